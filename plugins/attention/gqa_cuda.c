/* gqa_cuda.c - grouped-query attention for cards from sm_80 on: f16 and bf16, heads
 * of 64, 96, 128 and 256, groups of at most 16.  Long contexts are shared out among blocks;
 * prompts go the plain way, `flash` is faster where it runs. */
#include "cuda.h"

static bool run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    (void)state;
    return cuda_attention_run(ctx, call, mi_cuda_attention_gqa, error);
}

static const MiOp gqa_op = {
    .struct_size = sizeof gqa_op, .n_in = 2, .n_out = 1, .attr_size = sizeof(MiAttend), .splits = true,
    .prepare = cuda_attention_prepare, .run = run,
};

static const MiAttention gqa = {
    .struct_size = sizeof gqa,
    .layouts = cuda_attention_layouts,
    .dtypes = 1u << MI_F16 | 1u << MI_BF16,
    .head_dims = cuda_attention_head_dims,
    .prefill = true,
    .decode = true,
    .window = true,
    .softcap = true,
    .rank = 10,
    .create = cuda_attention_create,
    .destroy = cuda_attention_destroy,
    .op = &gqa_op,
};

MI_PLUGIN("gqa", "0.1", "Grouped-query attention on a card", MI_FEATURE_ATTENTION("gqa", "cuda", &gqa, NULL));
