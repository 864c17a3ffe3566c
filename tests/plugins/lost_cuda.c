/* lost_cuda.c - a third party's kernel that is right until a sequence has 40 tokens, and then loses the
 * device: an error that no later call of the process gets rid of.
 *
 *   fusion:acme.gated@cuda   silu(gate) * up */
#include "gated_kernels.h"

#include <miniinfer/plugin.h>

enum { LAST = 40 };

static bool run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    const int code = gated_with_mistake(ctx->stream, call->at[0].in[0], call->at[1].in[1], call->at[1].out[0], -1,
                                        call->batch->positions, LAST);

    (void)state;
    if (code)
        g_set_error(error, MI_ERROR, MI_ERROR_DEVICE, "launching a kernel: %d", code);
    return code == 0;
}

static const MiOp op = { .struct_size = sizeof op, .run = run };
static const MiPattern pattern[] = { { "silu", { 0 } }, { "mul", { 1, 0 } }, { NULL, { 0 } } };
static const MiFusion  gated = { .struct_size = sizeof gated, .pattern = pattern, .op = &op };

MI_PLUGIN("lost_cuda", "1", "A kernel that loses the device", MI_FEATURE_FUSION("acme.gated", "cuda", &gated, NULL));
