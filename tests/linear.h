/* linear.h - what the tests of linear plugins share: a device of any number of
 * threads, random weights in any stored format, one call of pack and run. */
#ifndef TESTS_LINEAR_H
#define TESTS_LINEAR_H

#include "common.h"

#include <cpu/blocks.h>
#include <math.h>
#include <pthread.h>

typedef struct { int n_threads; } Device;

typedef struct {
    void (*fn)(void *, int, int);
    void     *arg;
    int       i, n;
    pthread_t thread;
} Share;

static void *share(void *arg)
{
    Share *s = arg;
    s->fn(s->arg, s->i, s->n);
    return NULL;
}

static inline void threads(void *device, void (*fn)(void *, int, int), void *arg)
{
    Share s[16];
    const int n = ((Device *)device)->n_threads;

    for (int i = 0; i < n; i++) {
        s[i] = (Share){ fn, arg, i, n, 0 };
        if (i && pthread_create(&s[i].thread, NULL, share, &s[i]))
            fail_msg("no thread");
    }
    share(&s[0]);
    for (int i = 1; i < n; i++)
        pthread_join(s[i].thread, NULL);
}

static void *device_alloc(MiContext *ctx, MiMemory memory, size_t bytes, GError **error)
{
    (void)ctx, (void)memory, (void)error;
    return g_malloc0(bytes);
}
static void device_free(MiContext *ctx, MiMemory memory, void *p)
{
    (void)ctx, (void)memory;
    g_free(p);
}
static bool device_upload(MiContext *ctx, void *dst, const void *src, size_t bytes, GError **error)
{
    (void)ctx, (void)error;
    memcpy(dst, src, bytes);
    return true;
}

/* n_threads 0: a backend without parallel(). */
static inline MiContext test_context(Device *d, int n_threads)
{
    static const MiBackend serial = { .struct_size = sizeof serial, .unified = true },
                           parallel = { .struct_size = sizeof parallel, .unified = true, .parallel = threads };
    d->n_threads = n_threads;
    return (MiContext){ sizeof(MiContext), n_threads ? &parallel : &serial, d, NULL, 0, 1,
                        device_alloc, device_free, device_upload };
}

static inline uint32_t test_random(uint64_t *state) /* xorshift64* */
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return (uint32_t)((*state * 0x2545f4914f6cdd1dull) >> 32);
}
static inline float test_uniform(uint64_t *state) { return (float)test_random(state) * 0x1p-31f - 1; } /* [-1, 1) */

/* Where the half floats of a block are; the rest of a block may be any bits. */
static inline const int *test_halves(const char *format)
{
    static const struct { const char *name; int at[3]; } halves[] = {
        { "q4_0", { 0, -1, -1 } },  { "q4_1", { 0, 2, -1 } },   { "q5_0", { 0, -1, -1 } },   { "q5_1", { 0, 2, -1 } },
        { "q8_0", { 0, -1, -1 } },  { "q2_k", { 80, 82, -1 } }, { "q3_k", { 108, -1, -1 } }, { "q4_k", { 0, 2, -1 } },
        { "q5_k", { 0, 2, -1 } },   { "q6_k", { 208, -1, -1 } }, { "iq4_nl", { 0, -1, -1 } }, { "iq4_xs", { 0, -1, -1 } },
    };
    for (size_t i = 0; i < G_N_ELEMENTS(halves); i++)
        if (strcmp(halves[i].name, format) == 0)
            return halves[i].at;
    fail_msg("no half floats known of %s", format);
    return NULL;
}

/* Random values in [-1, 1) or blocks with scales of about 1/64; the caller frees .data. */
static inline MiWeight test_weight(const char *format, int64_t out, int64_t in, uint64_t seed)
{
    const MiBlockFormat *f = mi_block_format(format);
    if (!f)
        fail_msg("no block format %s", format);
    const int64_t blocks = out * in / f->values;
    uint8_t      *data = g_malloc((gsize)(blocks * f->bytes));

    for (int64_t b = 0; b < blocks; b++) {
        uint8_t *at = data + b * f->bytes;
        if (f->values == 1) {
            const float    v = test_uniform(&seed);
            const uint16_t h = strcmp(format, "f16") == 0 ? mi_f32_to_f16(v) : mi_f32_to_bf16(v);
            memcpy(at, f->bytes == 4 ? (const void *)&v : (const void *)&h, (size_t)f->bytes);
            continue;
        }
        for (int i = 0; i < f->bytes; i++)
            at[i] = (uint8_t)test_random(&seed);
        for (const int *h = test_halves(format); *h >= 0 && h < test_halves(format) + 3; h++) {
            const uint16_t scale = mi_f32_to_f16(test_uniform(&seed) / 64);
            memcpy(at + *h, &scale, 2);
        }
    }
    return (MiWeight){ .name = format, .format = format, .ndim = 2, .shape = { out, in }, .data = data,
                       .bytes = (size_t)(blocks * f->bytes) };
}

static inline float *test_floats(int64_t n, uint64_t seed)
{
    float *v = g_new(float, n);
    for (int64_t i = 0; i < n; i++)
        v[i] = test_uniform(&seed);
    return v;
}

/* A linear with n parts packed, ready to run. */
typedef struct {
    const MiLinear *vt;
    MiContext      *ctx;
    int             n;
    void           *memory;
    MiOperand       operand[4];
} Packed;

static inline Packed test_pack(const MiLinear *vt, MiContext *ctx, const MiWeight *parts, int n, const void *options)
{
    g_autoptr(GError) error = NULL;
    Packed            p = { .vt = vt, .ctx = ctx, .n = n };
    size_t            bytes;

    if (!vt->bytes(parts, n, MI_F32, options, &bytes, &error))
        fail_msg("%s", error->message);
    p.memory = bytes ? aligned_alloc(256, (bytes + 255) / 256 * 256 + 256) : NULL;
    if (bytes)
        memset((char *)p.memory + bytes, 0x5a, 256);
    if (!vt->pack(ctx, parts, n, options, p.memory, p.operand, &error))
        fail_msg("%s", error->message);
    for (int i = 0; bytes && i < 256; i++)
        assert_int_equal(((uint8_t *)p.memory)[bytes + (size_t)i], 0x5a); /* nothing past what bytes() said */
    return p;
}

/* y[i]: [rows, out of part i]; bias[i] may be NULL. */
typedef struct {
    MiNode    node;
    MiTensor  x, y[4];
    MiOperand weight[4][MI_MAX_WEIGHTS];
    MiArgs    at[4];
    MiCall    call;
    void     *state;
} Bound;

static inline void test_bind(Bound *b, const Packed *p, const float *x, int64_t rows, float *const *y, float *const *bias)
{
    g_autoptr(GError) error = NULL;
    const int64_t     in = p->operand[0].tensor.shape[1];
    size_t            workspace = 0;

    memset(b, 0, sizeof *b);
    b->node = (MiNode){ .op = "linear", .n_in = 1, .n_out = 1 };
    b->x = (MiTensor){ (void *)(uintptr_t)x, MI_F32, 2, { rows, in }, { in, 1 } };
    for (int i = 0; i < p->n; i++) {
        const int64_t out = p->operand[i].tensor.shape[0];
        b->y[i] = (MiTensor){ y[i], MI_F32, 2, { rows, out }, { out, 1 } };
        b->weight[i][0] = p->operand[i];
        if (bias && bias[i])
            b->weight[i][1] = (MiOperand){ { bias[i], MI_F32, 1, { out }, { 1 } }, .layout = "plain" };
        b->at[i] = (MiArgs){ &b->node, &b->x, &b->y[i], b->weight[i], NULL, NULL };
    }
    b->call = (MiCall){ .shape = { .n_tokens = (int32_t)rows, .n_out = (int32_t)rows }, .at = b->at, .n = p->n };
    if (MI_HAS(p->vt->op, prepare) && !p->vt->op->prepare(p->ctx, &b->call, &b->state, &workspace, &error))
        fail_msg("%s", error->message);
    b->call.workspace = workspace ? aligned_alloc(256, (workspace + 255) / 256 * 256) : NULL;
}

static inline void test_run(Bound *b, const Packed *p)
{
    g_autoptr(GError) error = NULL;
    if (!p->vt->op->run(b->state, p->ctx, &b->call, &error))
        fail_msg("%s", error->message);
}

static inline void test_unbind(Bound *b, const Packed *p)
{
    if (MI_HAS(p->vt->op, release) && b->state)
        p->vt->op->release(b->state);
    free(b->call.workspace);
}

static inline const MiLinear *test_linear(MiRegistry *r, const char *name)
{
    g_autoptr(GError) error = NULL;
    const MiFeature  *f = mi_registry_find(r, MI_KIND_LINEAR, name, "cpu", &error);
    if (!f)
        fail_msg("%s", error->message);
    return f->vtable;
}

#endif
