/* flash_cuda.c - the attention of cards of sm_90: prompts after FlashAttention-3, decode
 * and older cards as `gqa`.  f16 and bf16, heads of 64, 96, 128 and 256, groups of at most 16. */
#include "cuda.h"

/* All rows of a step, and what one sequence has behind them: most prompts of a step begin in it. */
static int64_t wide(const MiAttentionSpec *spec)
{
    const bool taken = mi_dtype_scaled(spec->kv_dtype) && mi_cuda_attention_flash_workspace(spec->head_dim);
    return taken ? MIN((int64_t)spec->max_seqs * spec->max_len, (int64_t)spec->max_tokens + spec->max_len) : 0;
}

CudaAttentionPrompts *const   cuda_attention_prompts = mi_cuda_attention_flash;
CudaAttentionWorkspace *const cuda_attention_workspace = mi_cuda_attention_flash_workspace;
CudaAttentionWide *const      cuda_attention_wide = wide;

static const MiAttention flash = CUDA_ATTENTION(cuda_attention_layouts, 20);

/* The same, by the name of what it reads: `attention = paged` asks for paged memory. */
static const char *const paged_layouts[] = { "paged", NULL };

static const MiAttention paged = CUDA_ATTENTION(paged_layouts, 0);

MI_PLUGIN("flash", "0.1", "FlashAttention on a card", MI_FEATURE_ATTENTION("flash", "cuda", &flash, NULL),
          MI_FEATURE_ATTENTION("paged", "cuda", &paged, NULL));
