/* cuda.c - the operations of the CUDA backend, on f32, f16 or bf16 activations.
 *
 * Plain versions, a kernel each, launched so that it may begin while the one before
 * it ends; fusions stand in for them where a step is short of time. */
#include <cuda/ops.h>
#include <cuda/refused.h>
#include <cuda/sampling.h>
#include <cuda_runtime_api.h>
#include <miniinfer/plugin.h>

/* Of a launcher's result. */
static bool launched(int code, GError **error)
{
    if (code == cudaSuccess)
        return true;
    (void)cudaGetLastError(); /* one that does not stick is over */
    g_set_error(error, MI_ERROR, mi_cuda_refused(code) ? MI_ERROR_UNSUPPORTED : MI_ERROR_DEVICE,
                "launching a kernel: %s (%s)", cudaGetErrorString(code), cudaGetErrorName(code));
    return false;
}

static bool floats(MiDType t) { return t == MI_F32 || t == MI_F16 || t == MI_BF16; }

/* prepare(): inputs and outputs are of one float type, their last dimension contiguous. */
static bool reads_one_dtype(const MiNode *node, const MiTensor *in, int n_in, const MiTensor *out, GError **error)
{
    const MiDType t = out[0].dtype;
    bool          ok = floats(t);

    for (int i = 0; i < n_in; i++)
        ok = ok && in[i].dtype == t && in[i].ndim >= 2 && in[i].stride[in[i].ndim - 1] == 1;
    ok = ok && out[0].ndim >= 2 && out[0].stride[out[0].ndim - 1] == 1;
    if (!ok)
        g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED,
                    "op '%s' on CUDA takes rows of f32, f16 or bf16, all of its values of one type", node->op);
    return ok;
}

static bool prepare(MiContext *ctx, const MiCall *call, void **state, size_t *workspace, GError **error)
{
    (void)ctx, (void)state, (void)workspace;
    const MiArgs *at = call->at;
    return reads_one_dtype(at->node, at->in, at->node->n_in, at->out, error);
}

/* ---- element by element ------------------------------------------------------- */

#define UNARY(name, function, slope_)                                                                          \
    static bool name##_run(void *state, MiContext *ctx, const MiCall *call, GError **error)                    \
    {                                                                                                          \
        (void)state;                                                                                           \
        const MiActivation *a = call->at->node->attr;                                                          \
        (void)a;                                                                                               \
        return launched(mi_cuda_unary(ctx->stream, function, slope_, call->at->in[0], call->at->out[0]), error); \
    }                                                                                                          \
    static const MiOp op_##name = {                                                                            \
        .struct_size = sizeof op_##name, .n_in = 1, .n_out = 1, .attr_size = sizeof(MiActivation), .inplace = 1, \
        .splits = true, .prepare = prepare, .run = name##_run, .batch_invariant = true,                        \
    };
#define BINARY(name, function)                                                                                      \
    static bool name##_run(void *state, MiContext *ctx, const MiCall *call, GError **error)                         \
    {                                                                                                               \
        (void)state;                                                                                                \
        const MiTensor *in = call->at->in;                                                                          \
        return launched(mi_cuda_binary(ctx->stream, function, in[0], in[1], call->at->out[0]), error);              \
    }                                                                                                               \
    static const MiOp op_##name = {                                                                                 \
        .struct_size = sizeof op_##name, .n_in = 2, .n_out = 1, .inplace = 3, .splits = true, .prepare = prepare,   \
        .run = name##_run, .batch_invariant = true,                                                                 \
    };

UNARY(silu, MI_CUDA_SILU, 0)
UNARY(sigmoid, MI_CUDA_SIGMOID, 0)
UNARY(tanh, MI_CUDA_TANH, 0)
UNARY(gelu_tanh, MI_CUDA_GELU_TANH, 0)
UNARY(gelu_erf, MI_CUDA_GELU_ERF, 0)
UNARY(relu, MI_CUDA_LEAKY_RELU, 0)
UNARY(leaky_relu, MI_CUDA_LEAKY_RELU, a->slope)
BINARY(add, MI_CUDA_ADD)
BINARY(mul, MI_CUDA_MUL)

/* ---- norms ---------------------------------------------------------------------- */

static bool norm(MiContext *ctx, const MiCall *call, MiCudaNorm kind, const void *weight, const void *bias,
                 GError **error)
{
    const MiArgs *at = call->at;
    const MiNorm  a = at->node->attr ? *(const MiNorm *)at->node->attr : (MiNorm){ 0 };
    return launched(mi_cuda_norm(ctx->stream, kind, at->in[0], weight, bias, a.eps, a.offset, at->out[0]), error);
}

static bool rmsnorm_run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    (void)state;
    return norm(ctx, call, MI_CUDA_RMSNORM, call->at->weight[0].tensor.data, NULL, error);
}

static bool layernorm_run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    (void)state;
    return norm(ctx, call, MI_CUDA_LAYERNORM, call->at->weight[0].tensor.data, call->at->weight[1].tensor.data, error);
}

static bool softmax_run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    (void)state;
    return norm(ctx, call, MI_CUDA_SOFTMAX, NULL, NULL, error);
}

static const MiOp op_rmsnorm = {
    .struct_size = sizeof op_rmsnorm, .n_in = 1, .n_out = 1, .n_weights = 1, .attr_size = sizeof(MiNorm), .inplace = 1,
    .prepare = prepare, .run = rmsnorm_run,
    .batch_invariant = true,
};
static const MiOp op_layernorm = {
    .struct_size = sizeof op_layernorm, .n_in = 1, .n_out = 1, .n_weights = 1, .attr_size = sizeof(MiNorm),
    .inplace = 1, .prepare = prepare, .run = layernorm_run,
    .batch_invariant = true,
};
static const MiOp op_softmax = {
    .struct_size = sizeof op_softmax, .n_in = 1, .n_out = 1, .inplace = 1, .prepare = prepare, .run = softmax_run,
    .batch_invariant = true,
};

/* ---- embed ------------------------------------------------------------------------ */

/* How a table's values are stored; MI_N_DTYPES: as none that the kernel reads. */
static MiDType stored_as(const MiOperand *w)
{
    static const struct { const char *name; MiDType dtype; } plain[] = { { "f32", MI_F32 }, { "f16", MI_F16 },
                                                                         { "bf16", MI_BF16 } };

    if (strcmp(w->layout, "plain") == 0)
        return floats(w->tensor.dtype) ? w->tensor.dtype : MI_N_DTYPES;
    for (size_t i = 0; i < G_N_ELEMENTS(plain); i++)
        if (strcmp(w->layout, plain[i].name) == 0)
            return plain[i].dtype;
    return MI_N_DTYPES;
}

static bool embed_prepare(MiContext *ctx, const MiCall *call, void **state, size_t *workspace, GError **error)
{
    const MiOperand *w = &call->at->weight[0];

    if (stored_as(w) == MI_N_DTYPES) {
        g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED,
                    "an embedding stored as '%s' cannot be read on CUDA; f32, f16 and bf16 can", w->layout);
        return false;
    }
    return prepare(ctx, call, state, workspace, error);
}

static bool embed_run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    (void)state;
    const MiOperand *w = &call->at->weight[0];
    const MiTensor  *y = &call->at->out[0];
    MiTensor         table = w->tensor;

    table.dtype = stored_as(w);
    if (strcmp(w->layout, "plain") != 0) /* as it lies in the file: without gaps */
        table.stride[0] = y->shape[1];
    return launched(mi_cuda_embed(ctx->stream, table, call->batch, *y), error);
}

static const MiOp op_embed = {
    .struct_size = sizeof op_embed, .n_in = 0, .n_out = 1, .n_weights = 1, .prepare = embed_prepare, .run = embed_run,
    .batch_invariant = true,
};

/* ---- output_rows, kv_append -------------------------------------------------------- */

static bool output_rows_run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    (void)state;
    return launched(mi_cuda_output_rows(ctx->stream, call->batch->out_rows, call->at->in[0], call->at->out[0]), error);
}

static bool append_prepare(MiContext *ctx, const MiCall *call, void **state, size_t *workspace, GError **error)
{
    (void)ctx, (void)state, (void)workspace;
    const MiTensor *in = call->at->in;
    return reads_one_dtype(call->at->node, in, 2, in, error);
}

static bool append_run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    (void)state;
    const MiArgs *at = call->at;

    if (!floats(at->kv->dtype) && !mi_dtype_scaled(at->kv->dtype)) {
        g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED, "op '%s' on CUDA writes caches of f32, f16, bf16, fp8 or int8",
                    at->node->op);
        return false;
    }
    return launched(mi_cuda_kv_append(ctx->stream, at->in[0], at->in[1], at->kv), error);
}

static const MiOp op_output_rows = {
    .struct_size = sizeof op_output_rows, .n_in = 1, .n_out = 1, .prepare = prepare, .run = output_rows_run,
    .batch_invariant = true,
};
static const MiOp op_kv_append = {
    .struct_size = sizeof op_kv_append, .n_in = 2, .n_out = 1, .splits = true, .prepare = append_prepare,
    .run = append_run,
    .batch_invariant = true,
};

/* ---- rope --------------------------------------------------------------------------- */

static bool rope_prepare(MiContext *ctx, const MiCall *call, void **state, size_t *workspace, GError **error)
{
    (void)ctx, (void)state, (void)workspace;
    const MiArgs   *at = call->at;
    const MiRotate *r = at->node->attr;

    if (r->dim < 2 || r->dim % 2 || r->dim > MI_CUDA_MAX_TURNED || at->in[0].ndim != 3 || at->in[1].dtype != MI_F32) {
        g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED,
                    "op 'rope' on CUDA turns 2 to %d elements of a head, not %d", MI_CUDA_MAX_TURNED, r->dim);
        return false;
    }
    return reads_one_dtype(at->node, at->in, 1, at->out, error);
}

static bool rope_run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    (void)state;
    const MiArgs    *at = call->at;
    const MiRotate  *r = at->node->attr;
    const MiCudaRope how = {call->batch->positions, at->in[1].data, r->dim, r->style == MI_ROPE_INTERLEAVED,
                            r->magnitude};

    return launched(mi_cuda_rope(ctx->stream, &how, at->in[0], at->out[0]), error);
}

static const MiOp op_rope = {
    .struct_size = sizeof op_rope, .n_in = 2, .n_out = 1, .attr_size = sizeof(MiRotate), .inplace = 1, .splits = true,
    .prepare = rope_prepare, .run = rope_run,
    .batch_invariant = true,
};

/* ---- logprobs ------------------------------------------------------------------------ */

static bool logprobs_prepare(MiContext *ctx, const MiCall *call, void **state, size_t *workspace, GError **error)
{
    (void)ctx, (void)state, (void)workspace;
    const MiLogprobs *a = call->at->node->attr;
    const MiTensor   *in = call->at->in, *out = call->at->out;

    if (in[0].dtype != MI_F32 || in[0].stride[1] != 1 || in[1].dtype != MI_I32 || out[0].dtype != MI_F32 ||
        out[1].dtype != MI_I32 || a->n_top < 0 || a->n_top > MI_CUDA_MAX_TOP || out[0].shape[1] != 1 + a->n_top ||
        out[1].shape[1] != 1 + a->n_top) {
        g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED,
                    "op 'logprobs' on CUDA gives f32 values and i32 ids, of up to %d of the likeliest tokens, not %d",
                    MI_CUDA_MAX_TOP, a->n_top);
        return false;
    }
    return launched(mi_cuda_logprobs_prepare(), error);
}

static bool logprobs_run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    (void)state;
    const MiArgs     *at = call->at;
    const MiLogprobs *a = at->node->attr;

    return launched(mi_cuda_logprobs(ctx->stream, at->in[0], at->in[1], call->batch, a->n_top, at->out[0], at->out[1]),
                    error);
}

static const MiOp op_logprobs = {
    .struct_size = sizeof op_logprobs, .n_in = 2, .n_out = 2, .attr_size = sizeof(MiLogprobs),
    .prepare = logprobs_prepare, .run = logprobs_run,
    .batch_invariant = true,
};

#define OP(name) MI_FEATURE_OP(#name, "cuda", &op_##name, NULL)

MI_PLUGIN("ops_cuda", "0.1", "Operations on f32, f16 and bf16",
          OP(embed), OP(rmsnorm), OP(layernorm), OP(rope), OP(kv_append), OP(output_rows), OP(logprobs),
          OP(add), OP(mul), OP(softmax),
          OP(silu), OP(gelu_tanh), OP(gelu_erf), OP(relu), OP(leaky_relu), OP(tanh), OP(sigmoid));
