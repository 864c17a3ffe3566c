/* elementwise.c - add, mul and the activations. */
#include "ops.h"
#include <math.h>

typedef void (*Line)(const float *const *x, float *y, int64_t n, float slope);

typedef struct {
    Lines lines; /* the inputs, then the output */
    Line  line;
    float slope;
} Work;

static void rows(void *arg, int64_t first, int64_t end)
{
    const Work *w = arg;
    const int   n_in = w->lines.n_tensors - 1;

    for (int64_t i = first * w->lines.per_row; i < end * w->lines.per_row; i++) {
        const float *x[2] = { lines_at(&w->lines, 0, i), n_in == 2 ? lines_at(&w->lines, 1, i) : NULL };
        w->line(x, lines_at(&w->lines, n_in, i), w->lines.n, w->slope);
    }
}

static bool apply(MiContext *ctx, const MiCall *call, Line line)
{
    const MiArgs   *at = call->at;
    const int       n_in = at->node->n_in;
    const MiTensor *t[3] = { &at->in[0], n_in == 2 ? &at->in[1] : &at->out[0], &at->out[0] };
    Work            w = { .line = line };

    if (n_in == 1)
        w.slope = ((const MiActivation *)at->node->attr)->slope;
    lines_of(&w.lines, t, n_in + 1, true);
    share_rows(ctx, w.lines.rows, w.lines.rows * w.lines.per_row * w.lines.n, rows, &w);
    return true;
}

#define BINARY(name, expression)                                                          \
    static void name##_line(const float *const *x, float *y, int64_t n, float slope)      \
    {                                                                                     \
        (void)slope;                                                                      \
        const float *x0 = x[0], *x1 = x[1];                                               \
        for (int64_t i = 0; i < n; i++) {                                                 \
            const float a = x0[i], b = x1[i];                                             \
            y[i] = expression;                                                            \
        }                                                                                 \
    }                                                                                     \
    OP(name, 2, 0, 3)
#define UNARY(name, expression)                                                           \
    static void name##_line(const float *const *x, float *y, int64_t n, float slope)      \
    {                                                                                     \
        (void)slope;                                                                      \
        const float *x0 = x[0];                                                           \
        for (int64_t i = 0; i < n; i++) {                                                 \
            const float v = x0[i];                                                        \
            y[i] = expression;                                                            \
        }                                                                                 \
    }                                                                                     \
    OP(name, 1, sizeof(MiActivation), 1)
#define OP(name, ins, attr, places)                                                       \
    static bool name##_run(void *state, MiContext *ctx, const MiCall *call, GError **error) \
    {                                                                                     \
        (void)state, (void)error;                                                         \
        return apply(ctx, call, name##_line);                                             \
    }                                                                                     \
    const MiOp op_##name = {                                                              \
        .struct_size = sizeof op_##name, .n_in = ins, .n_out = 1, .attr_size = attr,      \
        .inplace = places, .splits = true, .prepare = reads_f32, .run = name##_run,       \
    };

BINARY(add, a + b)
BINARY(mul, a *b)
UNARY(silu, v / (1 + expf(-v)))
UNARY(sigmoid, 1 / (1 + expf(-v)))
UNARY(gelu_tanh, v / (1 + expf(-2 * 0.7978845608f * (v + 0.044715f * v * v * v))))
UNARY(gelu_erf, 0.5f * v * erfcf(-0.7071067812f * v))
UNARY(relu, v > 0 ? v : 0)
UNARY(leaky_relu, v > 0 ? v : slope * v)
UNARY(tanh, tanhf(v))
