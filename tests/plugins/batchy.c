/* batchy.c - a fusion that lies: it says that its bits do not depend on the batch, and every result carries how many
 * rows there were.  For `verify --determinism` to find. */
#include <math.h>
#include <miniinfer/plugin.h>

static bool run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    const MiTensor *g = &call->at[0].in[0], *u = &call->at[1].in[1], *y = &call->at[1].out[0];
    const float     rows = 1 + 1e-5f * (float)y->shape[0];

    (void)state, (void)ctx, (void)error;
    for (int64_t r = 0; r < y->shape[0]; r++) {
        const float *gate = (const float *)g->data + r * g->stride[0], *up = (const float *)u->data + r * u->stride[0];
        float       *to = (float *)y->data + r * y->stride[0];
        for (int64_t i = 0; i < y->shape[1]; i++)
            to[i] = gate[i] / (1 + expf(-gate[i])) * up[i] * rows;
    }
    return true;
}

static const MiOp      op = { .struct_size = sizeof op, .batch_invariant = true, .run = run };
static const MiPattern pattern[] = { { "silu", { 0 } }, { "mul", { 1, 0 } }, { NULL, { 0 } } };
static const MiFusion  batchy = { .struct_size = sizeof batchy, .pattern = pattern, .op = &op };

MI_PLUGIN("batchy", "1", "A result that counts its rows", MI_FEATURE_FUSION("acme.batchy", "cpu", &batchy, NULL));
