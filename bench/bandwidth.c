/* bandwidth.c - how fast this machine reads memory: the limit of decoding, which
 * reads every weight once a token.
 *
 *   bandwidth [threads [passes]]
 *
 * Every thread adds up its share of a buffer that is larger than any cache (1 GiB,
 * or four times the last level where that is more) in loads of 64 bytes; a pass is
 * from the first to start to the last to end.  One JSON line: `value` is the median
 * of the passes, `limit` the best of them. */
#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { MAX_THREADS = 1024, MAX_PASSES = 99, LINE = 64, UNROLL = 8 };

typedef uint64_t Line __attribute__((vector_size(LINE)));

typedef struct {
    const Line       *at; /* [n] */
    size_t            n;  /* a multiple of UNROLL */
    int               n_passes;
    pthread_barrier_t *begin, *end;
    uint64_t          sum;
} Share;

#if defined __x86_64__ && defined __GNUC__ && !defined __SANITIZE_ADDRESS__
__attribute__((target_clones("avx512f", "avx2", "default")))
#endif
static uint64_t add_up(const Line *at, size_t n)
{
    Line     sum[UNROLL] = { 0 };
    uint64_t all = 0;

    for (size_t i = 0; i < n; i += UNROLL)
        for (int k = 0; k < UNROLL; k++)
            sum[k] += at[i + (size_t)k];
    for (int k = 1; k < UNROLL; k++)
        sum[0] += sum[k];
    for (size_t k = 0; k < LINE / sizeof(uint64_t); k++)
        all += sum[0][k];
    return all;
}

static void *read_share(void *arg)
{
    Share *s = arg;

    for (int i = 0; i < s->n_passes; i++) {
        pthread_barrier_wait(s->begin);
        s->sum += add_up(s->at, s->n);
        pthread_barrier_wait(s->end);
    }
    return NULL;
}

/* Touches its share: pages lie where the thread that reads them runs. */
static void *fill_share(void *arg)
{
    Share    *s = arg;
    uint64_t *x = (uint64_t *)s->at;

    for (size_t i = 0; i < s->n * LINE / sizeof *x; i++)
        x[i] = i;
    return NULL;
}

static bool on_threads(void *(*fn)(void *), Share *shares, int n, pthread_t *threads)
{
    for (int i = 0; i < n; i++)
        if (pthread_create(&threads[i], NULL, fn, &shares[i]))
            return false;
    return true;
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int number(const char *text, int def, int max)
{
    const long n = text ? strtol(text, NULL, 10) : def;
    return n < 1 ? 1 : n > max ? max : (int)n;
}

int main(int argc, char **argv)
{
    const int    n = number(argc > 1 ? argv[1] : NULL, (int)sysconf(_SC_NPROCESSORS_ONLN), MAX_THREADS);
    const int    n_passes = number(argc > 2 ? argv[2] : NULL, 9, MAX_PASSES);
    const long   l3 = sysconf(_SC_LEVEL3_CACHE_SIZE);
    const size_t least = (size_t)1 << 30, wanted = l3 > 0 && 4 * (size_t)l3 > least ? 4 * (size_t)l3 : least;
    const size_t lines = wanted / LINE / (size_t)n / UNROLL * UNROLL; /* of a share */
    Line        *buffer = aligned_alloc(LINE, lines * LINE * (size_t)n);
    static Share     shares[MAX_THREADS];
    static pthread_t threads[MAX_THREADS];
    pthread_barrier_t begin, end;
    double            rate[MAX_PASSES];
    uint64_t          sum = 0;

    if (!buffer || pthread_barrier_init(&begin, NULL, (unsigned)n + 1) ||
        pthread_barrier_init(&end, NULL, (unsigned)n + 1)) {
        fprintf(stderr, "bandwidth: no memory for %zu MiB\n", wanted >> 20);
        return 71;
    }
    for (int i = 0; i < n; i++)
        shares[i] = (Share){ buffer + (size_t)i * lines, lines, n_passes, &begin, &end, 0 };
    if (!on_threads(fill_share, shares, n, threads))
        return 71;
    for (int i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
    if (!on_threads(read_share, shares, n, threads))
        return 71;
    for (int i = 0; i < n_passes; i++) {
        pthread_barrier_wait(&begin);
        const double start = seconds();
        pthread_barrier_wait(&end);
        rate[i] = (double)(lines * LINE * (size_t)n) / (seconds() - start) * 1e-9;
    }
    for (int i = 0; i < n; i++) {
        pthread_join(threads[i], NULL);
        sum += shares[i].sum;
    }
    qsort(rate, (size_t)n_passes, sizeof *rate, ascending);
    printf("{\"name\": \"read bandwidth\", \"value\": %.2f, \"unit\": \"GB/s\", \"limit\": %.2f, \"ratio\": %.3f, "
           "\"threads\": %d, \"MiB\": %zu, \"checksum\": \"%016" PRIx64 "\"}\n",
           rate[n_passes / 2], rate[n_passes - 1], rate[n_passes / 2] / rate[n_passes - 1], n, wanted >> 20, sum);
    free(buffer);
    return 0;
}
