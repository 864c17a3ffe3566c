/* cpu.c - this machine's processor as a device: memory, and a pool of threads.
 *
 * Work runs where it is enqueued, on the calling thread, so that streams and
 * waiting are nothing and an event is the time it was recorded.  parallel() shares a call among a fixed set of threads
 * that exist from open() to close().  Device memory is host memory; what alloc()
 * gives is zeroed. */
#include "cpu.h"

#include <errno.h>
#include <miniinfer/plugin.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

typedef struct {
    int32_t threads, spin_us;
    bool    pin;
} Options;

/* ---- memory ----------------------------------------------------------------- */

enum { ALIGN = 256, LARGE = 4 << 20 };

/* Stands in the 256 bytes before what alloc() gives. */
typedef struct {
    size_t mapped; /* bytes; 0: from the heap */
} Header;

static int probe(void) { return 1; }

static void *open_device(int index, const void *options, GError **error)
{
    const Options *o = options;

    if (index != 0) {
        g_set_error(error, MI_ERROR, MI_ERROR_DEVICE, "cpu:%d does not exist; there is cpu:0", index);
        return NULL;
    }
    return cpu_pool_new(o->threads, o->spin_us, o->pin, error);
}

static void close_device(void *device) { cpu_pool_free(device); }

static bool memory(void *device, size_t *free, size_t *total, GError **error)
{
    (void)device;
    if (cpu_memory(free, total))
        return true;
    g_set_error(error, MI_ERROR, MI_ERROR_DEVICE, "/proc/meminfo does not say how much memory there is");
    return false;
}

static void *alloc(void *device, MiMemory kind, size_t bytes, GError **error)
{
    (void)device, (void)kind;
    void  *p = NULL;
    Header h = { 0 };

    if (bytes <= SIZE_MAX - LARGE) {
        if (bytes >= LARGE) { /* huge pages spare the TLB; small mappings could not use any */
            h.mapped = bytes + ALIGN;
            p = mmap(NULL, h.mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            if (p == MAP_FAILED)
                p = NULL;
            else
                (void)madvise(p, h.mapped, MADV_HUGEPAGE);
        } else if (posix_memalign(&p, ALIGN, bytes + ALIGN) == 0) {
            memset(p, 0, bytes + ALIGN);
        } else {
            p = NULL;
        }
    }
    if (!p) {
        g_set_error(error, MI_ERROR, MI_ERROR_NO_MEMORY, "no %zu bytes of memory: %s", bytes, g_strerror(ENOMEM));
        return NULL;
    }
    *(Header *)p = h;
    return (char *)p + ALIGN;
}

static void release(void *device, MiMemory kind, void *p)
{
    (void)device, (void)kind;
    if (!p)
        return;
    Header *h = (Header *)(void *)((char *)p - ALIGN);
    if (h->mapped)
        munmap(h, h->mapped);
    else
        free(h);
}

/* ---- streams and events: everything is done when it is enqueued -------------- */

static bool stream_new(void *device, void **stream, GError **error)
{
    (void)device, (void)error;
    *stream = NULL;
    return true;
}

static void stream_free(void *device, void *stream) { (void)device, (void)stream; }

static bool event_new(void *device, void **event, GError **error)
{
    (void)device, (void)error;
    *event = g_new0(struct timespec, 1);
    return true;
}

static void event_free(void *device, void *event)
{
    (void)device;
    g_free(event);
}

static bool copy(void *device, void *stream, void *dst, const void *src, size_t bytes, GError **error)
{
    (void)device, (void)stream, (void)error;
    memcpy(dst, src, bytes);
    return true;
}

static bool event_record(void *device, void *event, void *stream, GError **error)
{
    (void)device, (void)stream, (void)error;
    (void)clock_gettime(CLOCK_MONOTONIC, event);
    return true;
}

static bool stream_wait(void *device, void *stream, void *event, GError **error)
{
    (void)device, (void)stream, (void)event, (void)error;
    return true;
}

static bool event_wait(void *device, void *event, GError **error)
{
    (void)device, (void)event, (void)error;
    return true;
}

static bool event_elapsed(void *device, void *from, void *to, double *us, GError **error)
{
    const struct timespec *a = from, *b = to;

    (void)device, (void)error;
    *us = 1e6 * (double)(b->tv_sec - a->tv_sec) + 1e-3 * (double)(b->tv_nsec - a->tv_nsec);
    return true;
}

/* ---- how fast memory is read --------------------------------------------------- */

enum { READ_BYTES = 256 << 20, READ_ROUNDS = 5 };

typedef struct {
    const uint64_t *data;
    size_t          n;
    uint64_t        sums[CPU_MAX_THREADS]; /* keeps the reading from being left out */
} Reading;

static void read_share(void *arg, int i, int n)
{
    Reading     *r = arg;
    const size_t begin = r->n * (size_t)i / (size_t)n / 8 * 8, end = r->n * (size_t)(i + 1) / (size_t)n / 8 * 8;
    uint64_t     sum[8] = { 0 };

    for (size_t k = begin; k < end; k += 8)
        for (int j = 0; j < 8; j++)
            sum[j] += r->data[k + (size_t)j];
    for (int j = 0; j < 8; j++)
        r->sums[i] += sum[j];
}

/* The best of some rounds over a block that no cache holds. */
static bool read_rate(void *device, double *bytes, GError **error)
{
    uint64_t        *data = alloc(device, MI_MEM_DEVICE, READ_BYTES, error);
    struct timespec  t[2];
    double           us;
    Reading         *r = g_new0(Reading, 1);

    *bytes = 0;
    if (data) {
        memset(data, 1, READ_BYTES);
        *r = (Reading){ .data = data, .n = READ_BYTES / sizeof *data };
    }
    for (int i = 0; i < READ_ROUNDS && data; i++) {
        (void)clock_gettime(CLOCK_MONOTONIC, &t[0]);
        cpu_pool_run(device, read_share, r);
        (void)clock_gettime(CLOCK_MONOTONIC, &t[1]);
        (void)event_elapsed(device, &t[0], &t[1], &us, error);
        *bytes = MAX(*bytes, READ_BYTES / us * 1e6);
    }
    release(device, MI_MEM_DEVICE, data);
    g_free(r);
    return data != NULL;
}

static void parallel(void *device, void (*fn)(void *arg, int i, int n), void *arg) { cpu_pool_run(device, fn, arg); }

static const MiBackend cpu = {
    .struct_size = sizeof cpu,
    .unified = true,
    .probe = probe,
    .open = open_device,
    .close = close_device,
    .memory = memory,
    .alloc = alloc,
    .free = release,
    .stream_new = stream_new,
    .stream_free = stream_free,
    .event_new = event_new,
    .event_free = event_free,
    .copy = copy,
    .event_record = event_record,
    .stream_wait = stream_wait,
    .event_wait = event_wait,
    .parallel = parallel,
    .event_elapsed = event_elapsed,
    .read_rate = read_rate,
};

static const MiOption options[] = {
    MI_OPTION(Options, threads, "0", 0, CPU_MAX_THREADS, "threads that compute; 0: one for each core it may use"),
    MI_OPTION(Options, pin, "false", 0, 0, "bind each thread of the pool to a core of its own"),
    MI_OPTION(Options, spin_us, "100", 0, 1000000, "microseconds that an idle thread watches before it sleeps"),
    MI_OPTION_END,
};

MI_PLUGIN("cpu", "0.1", "The processor: memory and threads", MI_FEATURE_BACKEND("cpu", "*", &cpu, options));
