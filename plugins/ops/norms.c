/* norms.c - rmsnorm, layernorm and softmax: over the last dimension, a row's or
 * each head's.  Sums in double: a row of 4096 squares loses nothing. */
#include "ops.h"
#include <cpu/floats.h>
#include <math.h>

typedef struct {
    Lines           lines; /* x, y */
    const float    *weight, *bias; /* [n]; bias may be NULL */
    MiNorm          norm;
    bool            centred;
    const MiFloats *floats;
} Work;

static void rms(const Work *w, const float *x, float *y)
{
    const double square = w->floats->sum_squares(x, w->lines.n) / (double)w->lines.n;
    w->floats->affine(x, w->weight, y, w->lines.n, 1 / sqrtf((float)square + w->norm.eps), w->norm.offset);
}

static void layer(const Work *w, const float *x, float *y)
{
    const int64_t n = w->lines.n;
    double        sum = 0, squares = 0;

    for (int64_t i = 0; i < n; i++)
        sum += x[i];
    const float mean = (float)(sum / (double)n);
    for (int64_t i = 0; i < n; i++)
        squares += (double)(x[i] - mean) * (x[i] - mean);
    const float scale = 1 / sqrtf((float)(squares / (double)n) + w->norm.eps);
    for (int64_t i = 0; i < n; i++)
        y[i] = (x[i] - mean) * scale * (w->norm.offset + w->weight[i]) + (w->bias ? w->bias[i] : 0);
}

static void norm_rows(void *arg, int64_t first, int64_t end)
{
    const Work *w = arg;
    for (int64_t i = first * w->lines.per_row; i < end * w->lines.per_row; i++)
        (w->centred ? layer : rms)(w, lines_at(&w->lines, 0, i), lines_at(&w->lines, 1, i));
}

static void norm(MiContext *ctx, const MiCall *call, bool centred)
{
    const MiArgs *at = call->at;
    Work          w = { .weight = at->weight[0].tensor.data, .norm = *(const MiNorm *)at->node->attr,
                        .centred = centred, .floats = mi_floats() };

    if (centred)
        w.bias = at->weight[1].tensor.data;
    lines_of(&w.lines, (const MiTensor *const[]){ &at->in[0], &at->out[0] }, 2, false);
    share_rows(ctx, w.lines.rows, w.lines.rows * w.lines.per_row * w.lines.n, norm_rows, &w);
}

static bool rmsnorm_run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    (void)state, (void)error;
    norm(ctx, call, false);
    return true;
}

static bool layernorm_run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    (void)state, (void)error;
    norm(ctx, call, true);
    return true;
}

static void softmax_rows(void *arg, int64_t first, int64_t end)
{
    const Work   *w = arg;
    const int64_t n = w->lines.n;

    for (int64_t i = first * w->lines.per_row; i < end * w->lines.per_row; i++) {
        const float *x = lines_at(&w->lines, 0, i);
        float       *y = lines_at(&w->lines, 1, i);
        const double sum = w->floats->exp_sum(x, y, n, w->floats->max(x, n));
        for (int64_t j = 0; j < n; j++)
            y[j] = (float)(y[j] / sum);
    }
}

static bool softmax_run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    (void)state, (void)error;
    Work w = { .floats = mi_floats() };
    lines_of(&w.lines, (const MiTensor *const[]){ &call->at->in[0], &call->at->out[0] }, 2, false);
    share_rows(ctx, w.lines.rows, w.lines.rows * w.lines.per_row * w.lines.n, softmax_rows, &w);
    return true;
}

const MiOp op_rmsnorm = {
    .struct_size = sizeof op_rmsnorm, .n_in = 1, .n_out = 1, .n_weights = 1, .attr_size = sizeof(MiNorm), .inplace = 1,
    .prepare = reads_f32, .run = rmsnorm_run,
    .batch_invariant = true,
};
const MiOp op_layernorm = {
    .struct_size = sizeof op_layernorm, .n_in = 1, .n_out = 1, .n_weights = 1, .attr_size = sizeof(MiNorm),
    .inplace = 1, .prepare = reads_f32, .run = layernorm_run,
    .batch_invariant = true,
};
const MiOp op_softmax = {
    .struct_size = sizeof op_softmax, .n_in = 1, .n_out = 1, .inplace = 1, .prepare = reads_f32, .run = softmax_run,
    .batch_invariant = true,
};
