/* pool.c - threads that share one call at a time.
 *
 * The caller writes the call, then moves `work` on; each worker that sees the new
 * number runs its share and takes one off `left`.  Both sides watch for a while,
 * since the next call of a step is microseconds away, giving the core to whoever
 * else wants it between looks, and then sleep on a futex: an idle pool takes no
 * processor time.
 *
 * No wake-up is lost: a sleeper announces itself before the kernel compares the
 * word it sleeps on, and who changes the word looks for sleepers afterwards, all in
 * one total order. */
#define _GNU_SOURCE
#include "cpu.h"

#include <errno.h>
#include <linux/futex.h>
#include <miniinfer/context.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

typedef struct {
    Pool    *pool;
    GThread *thread;
    int      index, cpu; /* cpu -1: any */
} Worker;

/* Words that different sides write stand on lines of their own. */
struct Pool {
    _Alignas(64) _Atomic uint32_t work; /* number of the call */
    _Atomic int32_t sleepers;           /* workers that wait for `work` to change */
    void (*fn)(void *arg, int i, int n);
    void *arg;
    bool  stop;
    _Alignas(64) _Atomic uint32_t left; /* workers that have not finished this call */
    _Atomic bool caller_sleeps;
    _Alignas(64) _Atomic bool busy;
    int     n, spin_us;
    Worker *workers; /* [n - 1] */
};

static void pause_briefly(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static void sleep_on(_Atomic uint32_t *word, uint32_t value)
{
    (void)syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void wake_all(_Atomic uint32_t *word)
{
    (void)syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

/* Watches *word until it has (is) or has not `value`; false: not within the time. */
static bool watch(_Atomic uint32_t *word, uint32_t value, bool is, int spin_us)
{
    const int64_t end = now_ns() + (int64_t)spin_us * 1000;

    do {
        for (int i = 0; i < 64; i++) {
            if ((atomic_load_explicit(word, memory_order_acquire) == value) == is)
                return true;
            pause_briefly();
        }
        sched_yield();
    } while (now_ns() < end);
    return false;
}

static void *serve(void *arg)
{
    Worker  *w = arg;
    Pool    *p = w->pool;
    uint32_t seen = 0;

    if (w->cpu >= 0) { /* refused (a cgroup changed): the thread runs anywhere, which is slower and not wrong */
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(w->cpu, &set);
        (void)sched_setaffinity(0, sizeof set, &set);
    }
    for (;;) {
        if (!watch(&p->work, seen, false, p->spin_us)) {
            atomic_fetch_add(&p->sleepers, 1);
            while (atomic_load(&p->work) == seen)
                sleep_on(&p->work, seen);
            atomic_fetch_sub(&p->sleepers, 1);
        }
        seen++;
        if (p->stop)
            return NULL;
        p->fn(p->arg, w->index, p->n);
        if (atomic_fetch_sub(&p->left, 1) == 1 && atomic_load(&p->caller_sleeps))
            wake_all(&p->left);
    }
}

static void start(Pool *p)
{
    atomic_store(&p->left, (uint32_t)p->n - 1);
    atomic_fetch_add(&p->work, 1);
    if (atomic_load(&p->sleepers))
        wake_all(&p->work);
}

Pool *cpu_pool_new(int n_threads, int spin_us, bool pin, GError **error)
{
    int       cpus[CPU_MAX_THREADS];
    const int cores = cpu_cores(cpus);
    Pool     *p = NULL;

    if (posix_memalign((void **)&p, 64, sizeof *p)) {
        g_set_error(error, MI_ERROR, MI_ERROR_NO_MEMORY, "no memory for a pool of threads");
        return NULL;
    }
    memset(p, 0, sizeof *p);
    p->n = n_threads ? n_threads : cores;
    p->spin_us = spin_us;
    p->workers = g_new0(Worker, p->n - 1);
    for (int i = 1; i < p->n; i++) {
        Worker *w = &p->workers[i - 1];
        *w = (Worker){ .pool = p, .index = i, .cpu = pin ? cpus[i % cores] : -1 };
        if (!(w->thread = g_thread_try_new("mi-cpu", serve, w, error))) {
            g_prefix_error(error, "thread %d of %d: ", i + 1, p->n);
            p->n = i; /* those that exist are let go */
            cpu_pool_free(p);
            return NULL;
        }
    }
    return p;
}

void cpu_pool_free(Pool *p)
{
    p->stop = true;
    start(p);
    for (int i = 1; i < p->n; i++)
        g_thread_join(p->workers[i - 1].thread);
    g_free(p->workers);
    free(p);
}

void cpu_pool_run(Pool *p, void (*fn)(void *arg, int i, int n), void *arg)
{
    if (p->n == 1 || atomic_exchange(&p->busy, true)) {
        fn(arg, 0, 1);
        return;
    }
    p->fn = fn;
    p->arg = arg;
    start(p);
    fn(arg, 0, p->n);
    if (!watch(&p->left, 0, true, p->spin_us)) {
        uint32_t left;
        atomic_store(&p->caller_sleeps, true);
        while ((left = atomic_load(&p->left)))
            sleep_on(&p->left, left);
        atomic_store(&p->caller_sleeps, false);
    }
    atomic_store(&p->busy, false);
}
