/* wrong.c - a third party's kernels with a mistake each, for `verify` to find:
 *
 *   op:rmsnorm@remote       an epsilon of 1e-2, whatever the model says
 *   fusion:acme.gated@cpu   silu(gate) * up, but for the last column, which is the gate
 *   fusion:acme.gated@remote
 *
 * Of remote (tests/remote.c) it waits for the device's thread and then computes on the host. */
#include <math.h>
#include <miniinfer/plugin.h>

static bool idle(MiContext *ctx, GError **error)
{
    const MiBackend *b = ctx->backend;
    void            *event;

    if (!b->event_new(ctx->device, &event, error))
        return false;
    const bool ok = b->event_record(ctx->device, event, ctx->stream, error) && b->event_wait(ctx->device, event, error);
    b->event_free(ctx->device, event);
    return ok;
}

static bool norm_run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    const MiTensor *x = &call->at->in[0], *y = &call->at->out[0];
    const float    *w = call->at->weight[0].tensor.data;

    (void)state;
    if (!idle(ctx, error))
        return false;
    for (int64_t r = 0; r < x->shape[0]; r++) {
        const float *from = (const float *)x->data + r * x->stride[0];
        float       *to = (float *)y->data + r * y->stride[0], squares = 0;
        for (int64_t i = 0; i < x->shape[1]; i++)
            squares += from[i] * from[i];
        for (int64_t i = 0; i < x->shape[1]; i++)
            to[i] = from[i] * w[i] / sqrtf(squares / (float)x->shape[1] + 1e-2f);
    }
    return true;
}

static bool gated_run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    const MiTensor *g = &call->at[0].in[0], *u = &call->at[1].in[1], *y = &call->at[1].out[0];
    const int64_t   n = y->shape[1];

    (void)state;
    if (!idle(ctx, error))
        return false;
    for (int64_t r = 0; r < y->shape[0]; r++) {
        const float *gate = (const float *)g->data + r * g->stride[0], *up = (const float *)u->data + r * u->stride[0];
        float       *to = (float *)y->data + r * y->stride[0];
        for (int64_t i = 0; i < n; i++)
            to[i] = i == n - 1 ? gate[i] : gate[i] / (1 + expf(-gate[i])) * up[i];
    }
    return true;
}

static const MiOp norm = { .struct_size = sizeof norm, .n_in = 1, .n_out = 1, .n_weights = 1, .attr_size = sizeof(MiNorm), .run = norm_run };
static const MiOp gated_op = { .struct_size = sizeof gated_op, .run = gated_run };

static const MiPattern pattern[] = { { "silu", { 0 } }, { "mul", { 1, 0 } }, { NULL, { 0 } } };
static const MiFusion  gated = { .struct_size = sizeof gated, .pattern = pattern, .op = &gated_op };

MI_PLUGIN("wrong", "1", "Kernels with a mistake each", MI_FEATURE_OP("rmsnorm", "remote", &norm, NULL),
          MI_FEATURE_FUSION("acme.gated", "cpu", &gated, NULL), MI_FEATURE_FUSION("acme.gated", "remote", &gated, NULL));
