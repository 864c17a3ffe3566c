/* gqa_cuda.c - grouped-query attention for cards from sm_80 on: f16 and bf16, heads
 * of 64, 96, 128 and 256, groups of at most 16.  Long contexts are shared out among blocks;
 * prompts go the plain way, `flash` is faster where it runs. */
#include "cuda.h"

CudaAttentionPrompts *const cuda_attention_prompts = mi_cuda_attention_gqa;

static const MiAttention gqa = CUDA_ATTENTION(cuda_attention_layouts, 10);

MI_PLUGIN("gqa", "0.1", "Grouped-query attention on a card", MI_FEATURE_ATTENTION("gqa", "cuda", &gqa, NULL));
