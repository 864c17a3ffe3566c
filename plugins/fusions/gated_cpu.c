/* gated_cpu.c - silu(gate) * up of a gated MLP in one pass over both, for CPUs.
: saves
 * a barrier and a trip of the activated rows through the cache. */
#include <cpu/floats.h>
#include <miniinfer/plugin.h>

typedef struct {
    const MiTensor *gate, *up, *out;
    int64_t         n; /* elements of a row */
} Work;

static void rows(void *arg, int part, int n_parts)
{
    const Work     *w = arg;
    const MiFloats *f = mi_floats();
    const int64_t   n_rows = w->out->shape[0];

    for (int64_t r = n_rows * part / n_parts; r < n_rows * (part + 1) / n_parts; r++) {
        float *y = (float *)w->out->data + r * w->out->stride[0];
        f->silu((const float *)w->gate->data + r * w->gate->stride[0], y, w->n);
        f->mul(y, (const float *)w->up->data + r * w->up->stride[0], y, w->n);
    }
}

static bool run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    Work w = { &call->at[0].in[0], &call->at[1].in[1], &call->at[1].out[0], call->at[1].out[0].shape[1] };

    (void)state, (void)error;
    if (w.out->shape[0] > 1 && MI_HAS(ctx->backend, parallel))
        ctx->backend->parallel(ctx->device, rows, &w);
    else
        rows(&w, 0, 1);
    return true;
}

static const MiOp gated_op = { .struct_size = sizeof gated_op, .batch_invariant = true, .run = run };

static const MiPattern pattern[] = {
    { "silu", { 0 } },
    { "mul", { 1, 0 } },
    { NULL, { 0 } },
};

/* Rows of one dimension; what is divided into heads takes the operations themselves. */
static bool match(const MiArgs *at, MiShape shape)
{
    const MiTensor *y = &at[1].out[0];

    (void)shape;
    return y->ndim == 2 && y->dtype == MI_F32 && at[0].in[0].dtype == MI_F32 && at[1].in[1].dtype == MI_F32;
}

static const MiFusion gated = {
    .struct_size = sizeof gated, .pattern = pattern, .match = match, .op = &gated_op,
};

MI_PLUGIN("gated", "0.1", "silu(gate) * up in one pass", MI_FEATURE_FUSION("gated", "cpu", &gated, NULL));
