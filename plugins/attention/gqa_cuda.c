/* gqa_cuda.c - grouped-query attention for cards from sm_80 on: f16 and bf16, heads
 * of 64, 96, 128 and 256, groups of at most 16.  Long contexts are shared out among blocks;
 * prompts go the plain way, `flash` is faster where it runs. */
#include "cuda.h"

static int prompts(void *stream, const MiCudaAttention *call, int few, void *workspace, const MiCudaWide *wide)
{
    (void)workspace, (void)wide;
    return mi_cuda_attention_gqa(stream, call, few);
}

static int64_t none(const MiAttentionSpec *spec)
{
    (void)spec;
    return 0;
}

CudaAttentionPrompts *const   cuda_attention_prompts = prompts;
CudaAttentionWorkspace *const cuda_attention_workspace = mi_cuda_attention_workspace;
CudaAttentionWide *const      cuda_attention_wide = none;

static const MiAttention gqa = CUDA_ATTENTION(cuda_attention_layouts, 10);

/* For [engine] deterministic = batch: all rows as those of prompts are, whose keys are never shared out.  Tiles of keys begin
 * at multiples of 64 positions, but where a window's does, so that there is none. */
static bool run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    const MiCudaAttention a = cuda_attention_call(call);

    (void)state;
    return cuda_attention_done(mi_cuda_attention_gqa(ctx->stream, &a, 0), error);
}

static const MiOp invariant_op = {
    .struct_size = sizeof invariant_op, .n_in = 2, .n_out = 1, .attr_size = sizeof(MiAttend), .splits = true,
    .prepare = cuda_attention_prepare, .run = run, .batch_invariant = true,
};

static const MiAttention invariant = {
    .struct_size = sizeof invariant, .layouts = cuda_attention_layouts, .dtypes = CUDA_ATTENTION_DTYPES,
    .head_dims = cuda_attention_head_dims, .prefill = true, .decode = true, .softcap = true, .rank = 1,
    .create = cuda_attention_create, .destroy = cuda_attention_destroy, .op = &invariant_op,
};

MI_PLUGIN("gqa", "0.1", "Grouped-query attention on a card", MI_FEATURE_ATTENTION("gqa", "cuda", &gqa, NULL),
          MI_FEATURE_ATTENTION("invariant", "cuda", &invariant, NULL));
