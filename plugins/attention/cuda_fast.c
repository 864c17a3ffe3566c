/* cuda_fast.c - what the fast attention plugins for cards share: what they take, and
 * the counters that they keep. */
#include "cuda.h"

enum { MAX_GROUP = 16 };

const int32_t cuda_attention_head_dims[] = { 64, 96, 128, 256, 0 };

MiCudaAttentionMode cuda_attention_mode(const MiCall *call)
{
    const MiShape s = call->batch->shape;
    return s.decode ? MI_CUDA_ATTENTION_FEW : s.n_seqs == 1 ? MI_CUDA_ATTENTION_PROMPT : MI_CUDA_ATTENTION_BOTH;
}

typedef struct {
    CudaAttention pub;
    MiContext    *ctx;
} Own;

void *cuda_attention_create(MiContext *ctx, const MiAttentionSpec *spec, const void *options, GError **error)
{
    (void)options;
    const size_t bytes = (size_t)spec->max_seqs * (size_t)spec->n_kv_heads * sizeof(int32_t);
    const int    group = spec->n_heads / spec->n_kv_heads;

    if (spec->dtype != spec->kv_dtype || spec->n_heads % spec->n_kv_heads || group > MAX_GROUP) {
        g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED, "this attention takes activations and cache of one dtype and at "
                    "most %d query heads for a key head; set [engine] attention = simple", MAX_GROUP);
        return NULL;
    }
    g_autofree void *zeros = g_malloc0(bytes);
    Own             *o = g_new0(Own, 1);
    o->ctx = ctx;
    if (!(o->pub.arrived = ctx->alloc(ctx, MI_MEM_DEVICE, bytes, error)) ||
        !ctx->upload(ctx, o->pub.arrived, zeros, bytes, error)) {
        cuda_attention_destroy(o);
        return NULL;
    }
    return o;
}

void cuda_attention_destroy(void *self)
{
    Own *o = self;
    o->ctx->free(o->ctx, MI_MEM_DEVICE, o->pub.arrived);
    g_free(o);
}

bool cuda_attention_prepare(MiContext *ctx, const MiCall *call, void **state, size_t *workspace, GError **error)
{
    (void)ctx, (void)state;
    const MiTensor *q = &call->at->in[0];

    if (q->ndim != 3 || (q->dtype != MI_BF16 && q->dtype != MI_F16)) {
        g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED,
                    "this attention takes bf16 or f16; set [engine] attention = simple");
        return false;
    }
    *workspace = mi_cuda_attention_gqa_workspace((int)q->shape[2]);
    return true;
}
