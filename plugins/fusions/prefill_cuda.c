/* prefill_cuda.c - a layer's large products as one each: q, k and v together,
 * gate and up together, an output projection with the residual it is added to.
 *
 * Taken for more rows than the kernels of decode_cuda.c are made for, and for what they do
 * not take; bf16 and f16.  A joined product lies in the workspace until the kernel
 * behind it has turned heads and filled the cache, or multiplied the gate with the rest; the
 * latter of few rows only, where a card has a kernel that does both for many. */
#include <cuda/gated.h>
#include <cuda/gemm.h>
#include <cuda/gemv.h>
#include <cuda/prefill.h>
#include <cuda/refused.h>
#include <cuda_runtime_api.h>
#include <linear/tune_cuda.h>
#include <miniinfer/plugin.h>

enum { MIN_ROWS = MI_GEMV_FEW_ROWS + 1 };

static const char *const layouts[] = { "plain", NULL };

typedef struct {
    MiGemm *gemm;
    size_t  joined; /* bytes of the workspace before the product's own */
    int64_t many;   /* rows from which on gate and up need none of it */
} State;

static void release(void *state)
{
    mi_cuda_gemm_free(((State *)state)->gemm);
    g_free(state);
}

static bool status_ok(int status, const char *what, GError **error)
{
    if (status)
        g_set_error(error, MI_ERROR, MI_ERROR_DEVICE, "%s: cuBLASLt: %s", what, mi_cuda_gemm_error(status));
    return status == 0;
}

static bool cuda_ok(int e, const char *what, GError **error)
{
    if (e)
        g_set_error(error, MI_ERROR, mi_cuda_refused(e) ? MI_ERROR_UNSUPPORTED : MI_ERROR_DEVICE, "%s: %s", what,
                    cudaGetErrorString((cudaError_t)e));
    return e == 0;
}

static bool half_type(MiDType t) { return t == MI_BF16 || t == MI_F16; }

/* The product of x, of so many rows at most, with n projections' rows as one. */
static bool prepare_joined(MiContext *ctx, const MiCall *call, int n, int64_t rows, bool own_output, void **state, size_t *workspace,
                           GError **error)
{
    const MiTensor *x = &call->at[0].in[0];
    int64_t         out = 0;
    State          *s = g_new0(State, 1);

    for (int i = 0; i < n; i++)
        out += call->at[i].weight[0].tensor.shape[0];
    if (!own_output)
        s->joined = ((size_t)rows * (size_t)out * mi_dtype_size(x->dtype) + 255) / 256 * 256;
    if (!status_ok(mi_cuda_gemm_new(&s->gemm, out, call->at[0].weight[0].tensor.shape[1], x->stride[0], out, x->dtype, x->dtype),
                   "preparing", error)) {
        g_free(s);
        return false;
    }
    tune_cuda(ctx, s->gemm, MIN_ROWS - 1, rows, own_output);
    *state = s;
    *workspace = s->joined + MI_GEMM_WORKSPACE;
    return true;
}

static bool run_joined(const State *s, MiContext *ctx, const MiCall *call, const void *residual, void *y, GError **error)
{
    const MiTensor *x = &call->at[0].in[0];

    return status_ok(mi_cuda_gemm(s->gemm, ctx->stream, x->data, call->at[0].weight[0].tensor.data, residual, y, x->shape[0],
                                  (char *)call->workspace + s->joined), "product", error);
}

/* ---- q, k, v, rope, append ------------------------------------------------------ */

enum { Q, K, V, TURN_Q, TURN_K, APPEND };

static const MiPattern qkv_pattern[] = {
    { "linear", { 0 } }, { "linear", { -1 } }, { "linear", { -1 } },
    { "rope", { 1, 0 } }, { "rope", { 2, 0 } }, { "kv_append", { 5, 3 } },
    { NULL, { 0 } },
};

static bool qkv_match(const MiArgs *at, MiShape shape)
{
    const MiTensor *heads = &at[TURN_Q].out[0];

    return shape.n_tokens >= MIN_ROWS && half_type(at[Q].in[0].dtype) && heads->ndim == 3 && heads->shape[2] % 2 == 0 && heads->shape[2] <= 512 &&
           at[TURN_Q].node->in[1].id == at[TURN_K].node->in[1].id && heads->stride[0] == heads->shape[1] * heads->shape[2];
}

static bool qkv_prepare(MiContext *ctx, const MiCall *call, void **state, size_t *workspace, GError **error)
{
    return prepare_joined(ctx, call, 3, call->at[Q].in[0].shape[0], false, state, workspace, error);
}

static bool qkv_run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    const State    *s = state;
    const MiArgs   *at = call->at;
    const MiRotate *r = at[TURN_Q].node->attr;
    const MiTensor *q = &at[TURN_Q].out[0];
    MiRopeAppend    a = {
        .joined = call->workspace, .freqs = at[TURN_Q].in[1].data, .positions = call->batch->positions, .q = q->data,
        .bias = { at[Q].weight[1].tensor.data, at[K].weight[1].tensor.data, at[V].weight[1].tensor.data },
        .dtype = q->dtype, .rows = (int32_t)q->shape[0], .n_heads = (int32_t)q->shape[1],
        .n_kv_heads = at[APPEND].kv->n_kv_heads, .head_dim = (int32_t)q->shape[2], .rotated = r->dim,
        .interleaved = r->style == MI_ROPE_INTERLEAVED, .magnitude = r->magnitude,
    };

    return run_joined(s, ctx, call, NULL, call->workspace, error) &&
           cuda_ok(mi_cuda_rope_append(ctx->stream, a, *at[APPEND].kv), "turning heads", error);
}

/* ---- gate, up, silu, mul ---------------------------------------------------------- */

static const MiPattern gated_pattern[] = {
    { "linear", { 0 } }, { "linear", { -1 } }, { "silu", { 1 } }, { "mul", { 3, 2 } }, { NULL, { 0 } },
};

static bool gated_match(const MiArgs *at, MiShape shape)
{
    return shape.n_tokens >= MIN_ROWS && half_type(at[0].in[0].dtype) && !at[0].node->weight[1] && !at[1].node->weight[1] && at[3].out[0].ndim == 2 && at[3].out[0].shape[1] % 8 == 0;
}

static bool gated_prepare(MiContext *ctx, const MiCall *call, void **state, size_t *workspace, GError **error)
{
    const MiTensor *x = &call->at[0].in[0], *y = &call->at[3].out[0];
    const bool      whole = x->ndim == 2 && x->stride[0] % 8 == 0 && y->stride[0] % 8 == 0;
    const int64_t   many = whole ? mi_cuda_gated_rows(x->shape[1], y->shape[1], x->dtype) : INT64_MAX;

    if (!prepare_joined(ctx, call, 2, MIN(x->shape[0], many - 1), false, state, workspace, error))
        return false;
    ((State *)*state)->many = many;
    return true;
}

static bool gated_run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    const MiTensor *x = &call->at[0].in[0], *y = &call->at[3].out[0];

    if (x->shape[0] >= ((const State *)state)->many)
        return cuda_ok(mi_cuda_gated(ctx->stream, *x, call->at[0].weight[0].tensor.data, call->at[1].weight[0].tensor.data, *y),
                       "gate and up", error);
    return run_joined(state, ctx, call, NULL, call->workspace, error) &&
           cuda_ok(mi_cuda_silu_mul(ctx->stream, call->workspace, y->data, y->shape[0], y->shape[1], y->dtype), "gating", error);
}

/* ---- residual + linear ---------------------------------------------------------------- */

static const MiPattern residual_pattern[] = { { "linear", { 0 } }, { "add", { 0, 1 } }, { NULL, { 0 } } };

static bool residual_match(const MiArgs *at, MiShape shape)
{
    const MiTensor *y = &at[1].out[0];
    return shape.n_tokens >= MIN_ROWS && half_type(at[0].in[0].dtype) && y->dtype == at[0].in[0].dtype && !at[0].node->weight[1] &&
           at[1].in[0].stride[0] == y->stride[0];
}

static bool residual_prepare(MiContext *ctx, const MiCall *call, void **state, size_t *workspace, GError **error)
{
    return prepare_joined(ctx, call, 1, call->at[0].in[0].shape[0], true, state, workspace, error);
}

static bool residual_run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    return run_joined(state, ctx, call, call->at[1].in[0].data, call->at[1].out[0].data, error);
}

static const MiOp qkv_op = { .struct_size = sizeof qkv_op, .prepare = qkv_prepare, .run = qkv_run, .release = release };
static const MiOp gated_op = { .struct_size = sizeof gated_op, .prepare = gated_prepare, .run = gated_run, .release = release };
static const MiOp residual_op = {
    .struct_size = sizeof residual_op, .prepare = residual_prepare, .run = residual_run, .release = release,
};

static const MiFusion qkv = {
    .struct_size = sizeof qkv, .pattern = qkv_pattern, .layouts = layouts, .match = qkv_match, .op = &qkv_op,
    .scales = true,
};
static const MiFusion gated = {
    .struct_size = sizeof gated, .pattern = gated_pattern, .layouts = layouts, .match = gated_match, .op = &gated_op,
};
static const MiFusion residual = {
    .struct_size = sizeof residual, .pattern = residual_pattern, .layouts = layouts, .match = residual_match, .op = &residual_op,
};

MI_PLUGIN("prefill", "0.1", "A prompt's large products, joined", MI_FEATURE_FUSION("prefill_qkv", "cuda", &qkv, NULL),
          MI_FEATURE_FUSION("prefill_gated", "cuda", &gated, NULL),
          MI_FEATURE_FUSION("prefill_residual", "cuda", &residual, NULL));
