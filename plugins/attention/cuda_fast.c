/* cuda_fast.c - what the fast attention plugins for cards share: what they take, and
 * the counters and the wide keys and values that they keep. */
#include "cuda.h"

enum { MAX_GROUP = 16 };

const int32_t cuda_attention_head_dims[] = {64, 96, 128, 256, 0};

typedef struct {
    int32_t   *arrived; /* device [max_seqs * n_kv_heads] */
    MiCudaWide wide;    /* data NULL: none */
    MiContext *ctx;
} Own;

static bool make_wide(Own *o, const MiAttentionSpec *spec, GError **error)
{
    const int64_t positions = MIN(cuda_attention_wide(spec), INT32_MAX / 2);
    const size_t  bytes = 2 * (size_t)positions * (size_t)(spec->n_kv_heads * spec->head_dim) * mi_dtype_size(spec->dtype);

    o->wide.positions = (int32_t)positions;
    return !positions || ((o->wide.data = o->ctx->alloc(o->ctx, MI_MEM_DEVICE, bytes, error)) &&
                          (o->wide.moved = o->ctx->alloc(o->ctx, MI_MEM_DEVICE, ((size_t)spec->max_seqs + 1) * sizeof(int32_t), error)));
}

void *cuda_attention_create(MiContext *ctx, const MiAttentionSpec *spec, const void *options, GError **error)
{
    (void)options;
    const size_t bytes = (size_t)spec->max_seqs * (size_t)spec->n_kv_heads * sizeof(int32_t);
    const int    group = spec->n_heads / spec->n_kv_heads;

    if ((spec->dtype != spec->kv_dtype && !mi_dtype_scaled(spec->kv_dtype)) || spec->n_heads % spec->n_kv_heads || group > MAX_GROUP) {
        g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED,
                    "this attention takes activations and cache of one dtype, or a cache of fp8 or int8, and at "
                    "most %d query heads for a key head; set [engine] attention = simple",
                    MAX_GROUP);
        return NULL;
    }
    g_autofree void *zeros = g_malloc0(bytes);
    Own             *o = g_new0(Own, 1);
    o->ctx = ctx;
    if (!(o->arrived = ctx->alloc(ctx, MI_MEM_DEVICE, bytes, error)) ||
        !ctx->upload(ctx, o->arrived, zeros, bytes, error) || !make_wide(o, spec, error)) {
        cuda_attention_destroy(o);
        return NULL;
    }
    return o;
}

void cuda_attention_destroy(void *self)
{
    Own *o = self;
    o->ctx->free(o->ctx, MI_MEM_DEVICE, o->arrived);
    o->ctx->free(o->ctx, MI_MEM_DEVICE, o->wide.data);
    o->ctx->free(o->ctx, MI_MEM_DEVICE, o->wide.moved);
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
    *workspace = MAX(mi_cuda_attention_workspace((int)q->shape[2]), cuda_attention_workspace((int)q->shape[2]));
    return true;
}

/* Decode rows, in a step with prompts too, are shared out over their keys. */
static bool run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    (void)state;
    const MiCudaAttention a = cuda_attention_call(call);
    const MiShape         shape = call->batch->shape;
    const Own            *o = call->self;
    const int             few = shape.n_seqs == 1 && !shape.decode ? 0 : mi_cuda_attention_few(&a);

    return (!few ||
            cuda_attention_done(mi_cuda_attention_decode(ctx->stream, &a, call->workspace, o->arrived), error)) &&
           (shape.decode || cuda_attention_done(cuda_attention_prompts(ctx->stream, &a, few, call->workspace, o->wide.data ? &o->wide : NULL), error));
}

const MiOp cuda_attention_op = {
    .struct_size = sizeof cuda_attention_op, .n_in = 2, .n_out = 1, .attr_size = sizeof(MiAttend), .splits = true,
    .prepare = cuda_attention_prepare, .run = run,
};
