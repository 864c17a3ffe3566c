/* linear.c - speed of linears on the CPU, as JSON lines: blocks, dense, and int8 and int4 as if they were formats.
 *
 *   bench/linear [--core] [FORMAT...]      all formats by default
 *
 * --core: one thread and its processor time, for machines that others use, too.
 * One row of x: GB/s of packed weights that lie in memory, not in a cache
 * (copies are taken in turn), against reading a buffer of the same size with
 * all threads.  Many rows: GOP/s against a loop of vpdpbusd (vfmadd for dense)
 * on registers.  Limit and value are measured in turn; medians. */
#include "registry.h"

#include <cpu/blocks.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#ifdef __x86_64__
#include <immintrin.h>
#endif

enum { ROUNDS = 5, MAX_COPIES = 4096 };
static const size_t memory_bytes = (size_t)640 << 20; /* more than any cache: the last level here has 260 MB */

typedef struct {
    const char *format;
    int64_t     out, in;
    int         parts; /* of equal shape, joined */
    int64_t     rows;
} Case;

static const Case cases[] = {
    { "q4_1", 1536, 576, 2, 1 },     { "q4_1", 576, 1536, 1, 1 },     { "q8_0", 49152, 576, 1, 1 }, /* SmolLM2-135M */
    { "q5_0", 4864, 896, 2, 1 },     { "q6_k", 896, 4864, 1, 1 },     { "q4_k", 896, 4864, 1, 1 },  /* Qwen2.5-0.5B */
    { "q8_0", 151936, 896, 1, 1 },   { "q4_0", 4096, 4096, 1, 1 },    { "q5_1", 4096, 4096, 1, 1 },
    { "q2_k", 4096, 4096, 1, 1 },    { "q3_k", 4096, 4096, 1, 1 },    { "q5_k", 4096, 4096, 1, 1 },
    { "iq4_nl", 4096, 4096, 1, 1 },  { "iq4_xs", 4096, 4096, 1, 1 },  { "f32", 4096, 4096, 1, 1 },
    { "f16", 4096, 4096, 1, 1 },     { "bf16", 4096, 4096, 1, 1 },    { "q4_1", 1536, 576, 2, 8 },
    { "q5_0", 4864, 896, 2, 8 },     { "q4_1", 1536, 576, 2, 512 },   { "q4_1", 576, 1536, 1, 512 },
    { "q5_0", 4864, 896, 2, 512 },   { "q6_k", 896, 4864, 1, 512 },   { "q4_k", 896, 4864, 1, 512 },
    { "q8_0", 4096, 4096, 1, 512 },  { "q2_k", 4096, 4096, 1, 512 },  { "iq4_xs", 4096, 4096, 1, 512 },
    { "f32", 4096, 4096, 1, 512 },   { "bf16", 4096, 4096, 1, 512 },
    { "q4_0", 4864, 896, 2, 1 },     { "int4", 4864, 896, 2, 1 },     { "q8_0", 4864, 896, 2, 1 },
    { "int8", 4864, 896, 2, 1 },     { "q4_0", 896, 4864, 1, 1 },     { "int4", 896, 4864, 1, 1 },
    { "q8_0", 896, 4864, 1, 1 },     { "int8", 896, 4864, 1, 1 },     { "q4_0", 4864, 896, 2, 512 },
    { "int4", 4864, 896, 2, 512 },   { "q8_0", 4864, 896, 2, 512 },   { "int8", 4864, 896, 2, 512 },
};

static clockid_t the_clock = CLOCK_MONOTONIC;

static double now(void)
{
    struct timespec t;
    clock_gettime(the_clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void *must(void *p, GError *error)
{
    if (p)
        return p;
    fprintf(stderr, "bench/linear: %s\n", error ? error->message : "no memory");
    exit(EXIT_FAILURE);
}

/* ---- limits ----------------------------------------------------------------- */

typedef struct {
    const uint64_t *words;
    size_t          n;
    bool            floats;
    uint64_t        sink[512];
} Probe;

typedef uint64_t Words __attribute__((vector_size(32)));

static void read_share(void *arg, int i, int n)
{
    Probe       *p = arg;
    const Words *w = (const Words *)p->words, *end = w + p->n / 4 * (size_t)(i + 1) / (size_t)n / 16 * 16;
    Words        a = { 0 }, b = a, c = a, d = a;

    for (w += p->n / 4 * (size_t)i / (size_t)n / 16 * 16; w < end; w += 4) {
        __builtin_prefetch(w + 128); /* 4 KB ahead, past the page's end, as the kernels do */
        __builtin_prefetch(w + 130);
        a ^= w[0];
        b ^= w[1];
        c ^= w[2];
        d ^= w[3];
    }
    a ^= b ^ c ^ d;
    p->sink[i] = a[0] ^ a[1] ^ a[2] ^ a[3];
}

enum { PEAK_LOOPS = 4000000 };

#ifdef __x86_64__
/* Twelve independent sums hide the latency of two units.  Names, not an array: GCC 12 keeps an array in memory. */
#define EACH12(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)
__attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni"))) static uint64_t peak_floats(int i)
{
#define START(k) __m512 s##k = _mm512_setzero_ps();
#define STEP(k) s##k = _mm512_fmadd_ps(x, x, s##k); __asm__ volatile("" : "+v"(s##k));
#define SUM(k) x = _mm512_add_ps(x, s##k);
    __m512 x = _mm512_set1_ps(1.0f + (float)i);
    EACH12(START)
    for (int loop = 0; loop < PEAK_LOOPS; loop++) {
        EACH12(STEP)
    }
    EACH12(SUM)
    return (uint64_t)_mm512_reduce_add_ps(x);
#undef START
#undef STEP
#undef SUM
}
__attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni"))) static uint64_t peak_bytes(int i)
{
#define START(k) __m512i s##k = _mm512_setzero_si512();
#define STEP(k) s##k = _mm512_dpbusd_epi32(s##k, x, x); __asm__ volatile("" : "+v"(s##k));
#define SUM(k) x = _mm512_add_epi32(x, s##k);
    __m512i x = _mm512_set1_epi32(i + 0x01020304);
    EACH12(START)
    for (int loop = 0; loop < PEAK_LOOPS; loop++) {
        EACH12(STEP)
    }
    EACH12(SUM)
    return (uint64_t)_mm512_reduce_add_epi32(x);
}
static void peak_share(void *arg, int i, int n)
{
    Probe *p = arg;
    (void)n;
    p->sink[i] = p->floats ? peak_floats(i) : peak_bytes(i);
}
static bool has_peak(void) { return __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw"); }
static const char *const peak_name = "vpdpbusd (vfmadd of floats) on registers, 512 bits";
#else
static void        peak_share(void *arg, int i, int n) { (void)arg, (void)i, (void)n; }
static bool        has_peak(void) { return false; }
static const char *const peak_name = "";
#endif

/* ---- one case --------------------------------------------------------------- */

typedef struct {
    MiRegistry *registry;
    MiContext   ctx;
    int         n_threads;
    uint8_t    *memory; /* [memory_bytes] */
} Bench;

static void count_share(void *arg, int i, int n)
{
    (void)i;
    *(int *)arg = n;
}

typedef struct {
    const MiLinear *vt;
    MiNode          node;
    MiTensor        x, y[2];
    MiOperand       weight[2][MI_MAX_WEIGHTS];
    MiArgs          at[2];
    MiCall          call;
    void           *state;
    size_t          bytes, copies;
} Made;

static void make(const Bench *b, const Case *c, Made *m)
{
    GError              *error = NULL;
    const bool           encoded = g_str_has_prefix(c->format, "int");
    const char          *format = encoded ? "bf16" : c->format;
    const MiBlockFormat *f = mi_block_format(format);
    const char          *name = encoded ? c->format : f->values == 1 ? "dense" : "blocks";
    const MiFeature     *feature = mi_registry_find(b->registry, MI_KIND_LINEAR, name, "cpu", &error);
    const size_t         stored = (size_t)(c->out * (c->in / f->values) * f->bytes);
    g_autofree uint8_t  *data = g_malloc(stored);
    MiWeight             w[2];
    size_t               workspace = 0;

    must((void *)(uintptr_t)feature, error);
    *m = (Made){ .vt = feature->vtable, .node = { .op = "linear", .n_in = 1, .n_out = 1 } };
    for (size_t i = 0; i < stored; i++) /* any half float made of these is a normal number */
        data[i] = (uint8_t)(0x20 | (i * 2654435761u >> 13 & 31));
    for (int i = 0; i < c->parts; i++)
        w[i] = (MiWeight){ .name = c->format, .format = format, .ndim = 2, .shape = { c->out, c->in }, .data = data, .bytes = stored };
    if (!m->vt->bytes(w, c->parts, MI_F32, NULL, &m->bytes, &error))
        must(NULL, error);
    MiOperand operand[2];
    if (m->bytes) {
        if (!m->vt->pack((MiContext *)&b->ctx, w, c->parts, NULL, b->memory, operand, &error))
            must(NULL, error);
    } else { /* used where it lies */
        m->bytes = stored;
        memcpy(b->memory, data, stored);
        for (int i = 0; i < c->parts; i++)
            w[i].data = b->memory;
        if (!m->vt->pack((MiContext *)&b->ctx, w, c->parts, NULL, NULL, operand, &error))
            must(NULL, error);
    }
    for (m->copies = 1; m->copies < MAX_COPIES && (m->copies + 1) * m->bytes <= memory_bytes; m->copies++)
        memcpy(b->memory + m->copies * m->bytes, b->memory, m->bytes);
    float *x = g_new(float, c->rows * c->in);
    for (int64_t i = 0; i < c->rows * c->in; i++)
        x[i] = (float)(i * 7919 % 2001) / 1000 - 1;
    m->x = (MiTensor){ x, MI_F32, 2, { c->rows, c->in }, { c->in, 1 } };
    for (int i = 0; i < c->parts; i++) {
        m->y[i] = (MiTensor){ g_new(float, c->rows * c->out), MI_F32, 2, { c->rows, c->out }, { c->out, 1 } };
        m->weight[i][0] = operand[i];
        m->at[i] = (MiArgs){ &m->node, &m->x, &m->y[i], m->weight[i], NULL, NULL };
    }
    m->call = (MiCall){ .shape = { .n_tokens = (int32_t)c->rows, .n_out = (int32_t)c->rows }, .at = m->at, .n = c->parts };
    if (!m->vt->op->prepare((MiContext *)&b->ctx, &m->call, &m->state, &workspace, &error))
        must(NULL, error);
    m->call.workspace = g_malloc(workspace + 1);
}

static void unmake(const Case *c, Made *m)
{
    for (int i = 0; i < c->parts; i++)
        g_free(m->y[i].data);
    g_free(m->x.data);
    g_free(m->call.workspace);
}

static double seconds_a_call(const Bench *b, const Case *c, Made *m)
{
    const double start = now();
    double       end = start;
    int64_t      n = 0;

    for (; end - start < 0.06; n++, end = now()) {
        const size_t at = (size_t)n % m->copies * m->bytes;
        for (int i = 0; i < c->parts; i++) {
            m->weight[i][0].tensor.data = (uint8_t *)m->weight[i][0].tensor.data + at;
        }
        m->vt->op->run(m->state, (MiContext *)&b->ctx, &m->call, NULL);
        for (int i = 0; i < c->parts; i++)
            m->weight[i][0].tensor.data = (uint8_t *)m->weight[i][0].tensor.data - at;
    }
    return (end - start) / (double)n;
}

static double limit_rate(const Bench *b, bool bandwidth, bool floats)
{
    Probe        p = { .words = (const uint64_t *)(const void *)b->memory, .n = memory_bytes / 8, .floats = floats };
    const double start = now();

    b->ctx.backend->parallel(b->ctx.device, bandwidth ? read_share : peak_share, &p);
    const double t = now() - start;
    return bandwidth ? (double)memory_bytes / t : 2.0 * (floats ? 16 : 64) * 12 * PEAK_LOOPS * b->n_threads / t;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v)
{
    qsort(v, ROUNDS, sizeof *v, by_value);
    return v[ROUNDS / 2];
}

static void measure(const Bench *b, const Case *c)
{
    const bool bandwidth = c->rows == 1, floats = mi_block_format(c->format) && mi_block_format(c->format)->values == 1;
    double     value[ROUNDS], limit[ROUNDS], ratio[ROUNDS];
    Made       m;

    if (!bandwidth && !has_peak())
        return;
    make(b, c, &m);
    for (int i = 0; i < ROUNDS; i++) {
        limit[i] = limit_rate(b, bandwidth, floats);
        const double t = seconds_a_call(b, c, &m);
        value[i] = (bandwidth ? (double)m.bytes : 2.0 * (double)(c->rows * c->out * c->parts * c->in)) / t;
        ratio[i] = value[i] / limit[i];
    }
    printf("{\"name\": \"linear %s %dx%dx%d rows %d\", \"value\": %.2f, \"unit\": \"%s\", \"limit\": %.2f, \"of\": \"%s\", "
           "\"ratio\": %.3f}\n",
           c->format, c->parts, (int)c->out, (int)c->in, (int)c->rows, median(value) * 1e-9, bandwidth ? "GB/s" : "GOP/s",
           median(limit) * 1e-9, bandwidth ? "reading memory" : peak_name, median(ratio));
    fflush(stdout);
    unmake(c, &m);
}

static bool chosen(const char *format, int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], format) == 0)
            return true;
    return argc < 2;
}

int main(int argc, char **argv)
{
    GError             *error = NULL;
    g_autofree char    *self = g_file_read_link("/proc/self/exe", NULL), *here = g_path_get_dirname(self ? self : ".");
    g_autofree char    *plugins = g_build_filename(here, "..", "plugins", NULL);
    Bench               b = { .registry = mi_registry_new() };
    const bool          core = argc > 1 && strcmp(argv[1], "--core") == 0;
    struct { int32_t threads, spin_us; bool pin; } options = { core ? 1 : 0, 100, false }; /* of backend:cpu */

    if (core) {
        the_clock = CLOCK_THREAD_CPUTIME_ID;
        argc--, argv++;
    }
    mi_plugin_load_dir(b.registry, g_getenv("MI_PLUGINS") ? g_getenv("MI_PLUGINS") : plugins);
    const MiFeature *f = must((void *)(uintptr_t)mi_registry_find(b.registry, MI_KIND_BACKEND, "cpu", "*", &error), error);
    b.ctx = (MiContext){ .struct_size = sizeof b.ctx, .backend = f->vtable, .n_ranks = 1 };
    b.ctx.device = must(b.ctx.backend->open(0, &options, &error), error);
    b.ctx.backend->parallel(b.ctx.device, count_share, &b.n_threads);
    b.memory = must(b.ctx.backend->alloc(b.ctx.device, MI_MEM_DEVICE, memory_bytes + 4096, &error), error);
    memset(b.memory, 1, memory_bytes);
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++)
        if (chosen(cases[i].format, argc, argv))
            measure(&b, &cases[i]);
    b.ctx.backend->free(b.ctx.device, MI_MEM_DEVICE, b.memory);
    b.ctx.backend->close(b.ctx.device);
    mi_registry_free(b.registry);
    return 0;
}
