/* wrong_cuda.c - a third party's kernel for a card with a mistake, for `verify` to find:
 *
 *   fusion:acme.gated@cuda   silu(gate) * up, but for the last column, which is the gate */
#include "gated_kernels.h"

#include <miniinfer/plugin.h>

static bool run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    const MiTensor y = call->at[1].out[0];
    const int      code = gated_with_mistake(ctx->stream, call->at[0].in[0], call->at[1].in[1], y, y.shape[1] - 1, NULL, 0);

    (void)state;
    if (code)
        g_set_error(error, MI_ERROR, MI_ERROR_DEVICE, "launching a kernel: %d", code);
    return code == 0;
}

static const MiOp op = { .struct_size = sizeof op, .run = run };
static const MiPattern pattern[] = { { "silu", { 0 } }, { "mul", { 1, 0 } }, { NULL, { 0 } } };
static const MiFusion  gated = { .struct_size = sizeof gated, .pattern = pattern, .op = &op };

MI_PLUGIN("wrong_cuda", "1", "A kernel with a mistake", MI_FEATURE_FUSION("acme.gated", "cuda", &gated, NULL));
