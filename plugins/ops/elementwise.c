/* elementwise.c - add, mul and the activations. */
#include "ops.h"
#include <cpu/floats.h>

typedef void (*Unary)(const float *x, float *y, int64_t n);
typedef void (*Binary)(const float *a, const float *b, float *y, int64_t n);

typedef struct {
    Lines           lines; /* the inputs, then the output */
    Unary           unary; /* one of these; none: leaky_relu */
    Binary          binary;
    const MiFloats *floats;
    float           slope;
} Work;

static void rows(void *arg, int64_t first, int64_t end)
{
    const Work *w = arg;
    const int   out = w->lines.n_tensors - 1;

    for (int64_t i = first * w->lines.per_row; i < end * w->lines.per_row; i++) {
        const float *x = lines_at(&w->lines, 0, i);
        float       *y = lines_at(&w->lines, out, i);
        if (w->binary)
            w->binary(x, lines_at(&w->lines, 1, i), y, w->lines.n);
        else if (w->unary)
            w->unary(x, y, w->lines.n);
        else
            w->floats->leaky_relu(x, y, w->lines.n, w->slope);
    }
}

static bool apply(MiContext *ctx, const MiCall *call, Work w)
{
    const MiArgs   *at = call->at;
    const int       n_in = at->node->n_in;
    const MiTensor *t[3] = { &at->in[0], n_in == 2 ? &at->in[1] : &at->out[0], &at->out[0] };

    lines_of(&w.lines, t, n_in + 1, true);
    share_rows(ctx, w.lines.rows, w.lines.rows * w.lines.per_row * w.lines.n, rows, &w);
    return true;
}

#define OP(name, ins, attr, places, ...)                                                    \
    static bool name##_run(void *state, MiContext *ctx, const MiCall *call, GError **error) \
    {                                                                                       \
        (void)state, (void)error;                                                           \
        const MiFloats *f = mi_floats();                                                    \
        return apply(ctx, call, (Work){ .floats = f, __VA_ARGS__ });                        \
    }                                                                                       \
    const MiOp op_##name = {                                                                \
        .struct_size = sizeof op_##name, .batch_invariant = true, .n_in = ins, .n_out = 1, .attr_size = attr,        \
        .inplace = places, .splits = true, .prepare = reads_f32, .run = name##_run,         \
    };

OP(add, 2, 0, 3, .binary = f->add)
OP(mul, 2, 0, 3, .binary = f->mul)
OP(silu, 1, sizeof(MiActivation), 1, .unary = f->silu)
OP(sigmoid, 1, sizeof(MiActivation), 1, .unary = f->sigmoid)
OP(tanh, 1, sizeof(MiActivation), 1, .unary = f->tanh)
OP(gelu_tanh, 1, sizeof(MiActivation), 1, .unary = f->gelu_tanh)
OP(gelu_erf, 1, sizeof(MiActivation), 1, .unary = f->gelu_erf)
OP(relu, 1, sizeof(MiActivation), 1, .slope = 0)
OP(leaky_relu, 1, sizeof(MiActivation), 1, .slope = ((const MiActivation *)call->at->node->attr)->slope)
