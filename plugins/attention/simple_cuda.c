/* simple_cuda.c - attention as written in the paper, for cards: every layout and
 * dtype, heads of at most 256.  The others are tested against it. */
#include "cuda.h"

static bool prepare(MiContext *ctx, const MiCall *call, void **state, size_t *workspace, GError **error)
{
    (void)ctx, (void)state, (void)workspace;
    const MiTensor *q = &call->at->in[0];
    const MiKvView *kv = call->at->kv;

    if (q->ndim == 3 && q->shape[2] <= MI_CUDA_ATTENTION_MAX_DIM && (!kv || q->shape[1] % kv->n_kv_heads == 0))
        return true;
    g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED,
                "attention 'simple' takes heads of at most %d elements, as many for every key head",
                MI_CUDA_ATTENTION_MAX_DIM);
    return false;
}

static bool run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    (void)state;
    const MiCudaAttention a = cuda_attention_call(call);
    return cuda_attention_done(mi_cuda_attention_simple(ctx->stream, &a), error);
}

static const MiOp simple_op = {
    .struct_size = sizeof simple_op,
    .n_in = 2,
    .n_out = 1,
    .attr_size = sizeof(MiAttend),
    .splits = true,
    .prepare = prepare,
    .run = run,
    .batch_invariant = true,
};

static const MiAttention simple = {
    .struct_size = sizeof simple,
    .layouts = cuda_attention_layouts,
    .exact = true,
    .dtypes = 1u << MI_F32 | 1u << MI_F16 | 1u << MI_BF16 | 1u << MI_F8 | 1u << MI_I8,
    .prefill = true,
    .decode = true,
    .window = true,
    .softcap = true,
    .op = &simple_op,
};

MI_PLUGIN("simple", "0.1", "Reference attention on a card", MI_FEATURE_ATTENTION("simple", "cuda", &simple, NULL));
