/* sampler.h - one link of the sampling chain, run on rows that a test makes. */
#ifndef TESTS_SAMPLER_H
#define TESTS_SAMPLER_H

#include "common.h"
#include "options.h"

#include <math.h>

enum { MAX_ROWS = 8, MAX_HISTORY = 64 };

/* Rows in a batch: row i is output i, of slot slot[i], at position[i]. */
typedef struct {
    int     n_rows, n_vocab;
    float  *logits; /* [n_rows][n_vocab] */
    int32_t out_rows[MAX_ROWS], slot[MAX_ROWS], position[MAX_ROWS];
    int32_t drawn[MAX_ROWS], token[MAX_ROWS]; /* by slot; by row */
    int32_t history[MAX_ROWS][MAX_HISTORY], n_prompt[MAX_ROWS]; /* by slot */
    bool    copy;                                               /* output beside the input */
} Rows;

static inline void *rows_new(Rows *r, int n_rows, int n_vocab)
{
    *r = (Rows){ .n_rows = n_rows, .n_vocab = n_vocab, .logits = g_new0(float, (gsize)n_rows * (gsize)n_vocab) };
    for (int i = 0; i < n_rows; i++)
        r->out_rows[i] = r->slot[i] = i;
    return r->logits;
}

/* Three shares, the last first: what a row gets must not depend on who does it when. */
static inline void backwards(void *device, void (*fn)(void *arg, int i, int n), void *arg)
{
    (void)device;
    for (int i = 2; i >= 0; i--)
        fn(arg, i, 3);
}

static inline const MiSampler *link_named(MiRegistry *r, const char *name)
{
    g_autoptr(GError) error = NULL;
    const MiFeature  *f = mi_registry_find(r, MI_KIND_SAMPLER, name, "cpu", &error);
    if (!f)
        fail_msg("%s", error->message);
    return f->vtable;
}

/* Row `row` of a link's parameters: the defaults, then key = value. */
static inline void set(const MiSampler *s, void *rows, int row, const char *key, const char *value)
{
    g_autoptr(GError) error = NULL;
    void             *at = (char *)rows + (gsize)row * s->row_size;

    if (!(key ? mi_options_set(s->params, at, key, value, &error) : mi_options_defaults(s->params, at, &error)))
        fail_msg("%s", error->message);
}

static inline void *params(const MiSampler *s, int n)
{
    char *rows = g_malloc0(MAX(s->row_size, 1) * (gsize)n);
    for (int i = 0; i < n; i++)
        set(s, rows, i, NULL, NULL);
    return rows;
}

static inline void apply(const MiSampler *s, const void *rows, Rows *r)
{
    static const MiBackend backend = { .struct_size = sizeof backend, .parallel = backwards };
    MiContext              ctx = { .struct_size = sizeof ctx, .backend = &backend };
    g_autoptr(GError)      error = NULL;
    g_autofree float      *beside = r->copy ? g_new(float, (gsize)r->n_rows * (gsize)r->n_vocab) : NULL;
    g_autofree void       *workspace = NULL;
    void                  *state = NULL;
    size_t                 bytes = 0;
    const MiNode           node = { .op = "sampler:test", .n_in = 1, .n_out = 1 };
    MiTensor               in = { r->logits, MI_F32, 2, { r->n_rows, r->n_vocab }, { r->n_vocab, 1 } }, out = in;
    MiArgs                 args = { .node = &node, .in = &in, .out = &out, .rows = rows };
    MiBatch batch = { .shape = { r->n_rows, r->n_rows, r->n_rows, MAX_HISTORY, true }, .positions = r->position,
                      .out_rows = r->out_rows, .out_slot = r->slot, .drawn = r->drawn, .history = r->history[0],
                      .max_history = MAX_HISTORY, .n_prompt = r->n_prompt };
    MiCall  call = { .shape = batch.shape, .at = &args, .n = 1 };

    if (s->draws)
        out = (MiTensor){ r->token, MI_I32, 2, { r->n_rows, 1 }, { 1, 1 } };
    else if (r->copy)
        out.data = beside;
    if (MI_HAS(s->op, prepare) && !s->op->prepare(&ctx, &call, &state, &bytes, &error))
        fail_msg("%s", error->message);
    call.workspace = workspace = g_malloc(bytes + 1);
    memset(workspace, 0xa5, bytes);
    call.batch = &batch;
    assert_true(s->op->run(state, &ctx, &call, &error));
    if (out.data == beside && beside)
        memcpy(r->logits, beside, sizeof(float) * (gsize)r->n_rows * (gsize)r->n_vocab);
}

/* ---- numbers ---- */

/* Marsaglia's xorshift: the tests' own, so that they share nothing with what they test. */
static inline double uniform(uint64_t *s)
{
    *s ^= *s << 13, *s ^= *s >> 7, *s ^= *s << 17;
    return (double)(*s >> 11) * 0x1p-53;
}

static inline float gauss(uint64_t *s)
{
    double u = uniform(s) + 1e-300, v = uniform(s);
    return (float)(sqrt(-2 * log(u)) * cos(6.283185307179586 * v));
}

/* p[k] by the definition, in double. */
static inline void softmax(const float *x, int n, double *p)
{
    double max = -INFINITY, sum = 0;

    for (int k = 0; k < n; k++)
        max = x[k] > max ? x[k] : max;
    for (int k = 0; k < n; k++)
        sum += p[k] = x[k] > -INFINITY ? exp((double)x[k] - max) : 0;
    for (int k = 0; k < n; k++)
        p[k] /= sum;
}

#endif
