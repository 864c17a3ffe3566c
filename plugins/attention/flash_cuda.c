/* flash_cuda.c - the attention of cards of sm_90: prompts after FlashAttention-3, decode
 * and older cards as `gqa`.  f16 and bf16, heads of 64, 96, 128 and 256, groups of at most 16. */
#include "cuda.h"

static bool run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    (void)state;
    return cuda_attention_run(ctx, call, mi_cuda_attention_flash, error);
}

static const MiOp flash_op = {
    .struct_size = sizeof flash_op, .n_in = 2, .n_out = 1, .attr_size = sizeof(MiAttend), .splits = true,
    .prepare = cuda_attention_prepare, .run = run,
};

static const MiAttention flash = {
    .struct_size = sizeof flash,
    .layouts = cuda_attention_layouts,
    .dtypes = 1u << MI_F16 | 1u << MI_BF16,
    .head_dims = cuda_attention_head_dims,
    .prefill = true,
    .decode = true,
    .window = true,
    .softcap = true,
    .rank = 20,
    .create = cuda_attention_create,
    .destroy = cuda_attention_destroy,
    .op = &flash_op,
};

/* The same, by the name of what it reads: `attention = paged` asks for paged memory. */
static const char *const paged_layouts[] = { "paged", NULL };

static const MiAttention paged = {
    .struct_size = sizeof paged,
    .layouts = paged_layouts,
    .dtypes = 1u << MI_F16 | 1u << MI_BF16,
    .head_dims = cuda_attention_head_dims,
    .prefill = true,
    .decode = true,
    .window = true,
    .softcap = true,
    .create = cuda_attention_create,
    .destroy = cuda_attention_destroy,
    .op = &flash_op,
};

MI_PLUGIN("flash", "0.1", "FlashAttention on a card", MI_FEATURE_ATTENTION("flash", "cuda", &flash, NULL),
          MI_FEATURE_ATTENTION("paged", "cuda", &paged, NULL));
