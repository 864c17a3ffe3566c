/* fp8_cuda.c - the products of a layer whose weights are E4M3 with a scale for each row, x rounded to it as well, with what
 * comes before and after them: an rmsnorm, or the gate, gives its rows as E4M3 at once.  A layer's last projection may be another
 * linear's: then the gate gives its rows as they are.
 *
 * Taken for more rows than decode_cuda.c's kernels are made for; bf16 and f16. */
#include <cuda/fp8.h>
#include <cuda/gated.h>
#include <cuda/gemm.h>
#include <cuda/gemv.h>
#include <cuda/prefill.h>
#include <cuda/refused.h>
#include <cuda_runtime_api.h>
#include <miniinfer/plugin.h>

enum { MIN_ROWS = MI_GEMV_FEW_ROWS + 1, MULTIPLE = 16 /* of a side of W in a product of cuBLASLt's */ };

static const char *const layouts[] = { "fp8", NULL };

/* Products one after the other; where in the workspace their codes and scales of x, and what lies between them, begin. */
typedef struct {
    MiGemm *gemm[2];
    size_t  codes[2], scales[2], joined, act, largest, end;
    int64_t many; /* rows from which on gate and up are one kernel, and what it gives lies at act */
} State;

static void release(void *state)
{
    State *s = state;
    for (int i = 0; i < 2; i++)
        mi_cuda_gemm_free(s->gemm[i]);
    g_free(s);
}

static bool cuda_ok(int e, const char *what, GError **error)
{
    if (e)
        g_set_error(error, MI_ERROR, mi_cuda_refused(e) ? MI_ERROR_UNSUPPORTED : MI_ERROR_DEVICE, "%s: %s", what,
                    cudaGetErrorString((cudaError_t)e));
    return e == 0;
}

static bool status_ok(int status, const char *what, GError **error)
{
    if (status)
        g_set_error(error, MI_ERROR, MI_ERROR_DEVICE, "%s: cuBLASLt: %s", what, mi_cuda_gemm_error(status));
    return status == 0;
}

static size_t take(State *s, size_t bytes)
{
    const size_t at = s->end;

    s->end += (bytes + 255) / 256 * 256;
    return at;
}

/* Product k: of x with n linears' rows as one.  joined: rows of what comes out of it, where that lies in the workspace. */
static bool add_product(State *s, int k, const MiArgs *linears, int n, int64_t rows, int64_t joined, int64_t y_stride, MiDType dtype,
                        GError **error)
{
    const int64_t in = linears->weight[0].tensor.shape[1];
    int64_t       out = 0;

    for (int i = 0; i < n; i++)
        out += linears[i].weight[0].tensor.shape[0];
    s->codes[k] = take(s, (size_t)(rows * in));
    s->scales[k] = take(s, (size_t)rows * sizeof(float));
    if (joined)
        s->joined = take(s, (size_t)(joined * out) * mi_dtype_size(dtype));
    return status_ok(mi_cuda_gemm_new(&s->gemm[k], out, in, in, y_stride ? y_stride : out, MI_F8, dtype), "preparing", error);
}

static bool product(const State *s, int k, MiContext *ctx, const MiCall *call, const MiArgs *linear, const void *residual, void *y,
                    GError **error)
{
    char            *room = call->workspace;
    const MiOperand *w = &linear->weight[0];

    return status_ok(mi_cuda_gemm_scaled(s->gemm[k], ctx->stream, room + s->codes[k], (const float *)(void *)(room + s->scales[k]),
                                         w->tensor.data, w->scales, residual, y, call->at[0].in[0].shape[0], room), "product", error);
}

/* The rows of a product's x, as an rmsnorm, a gate or nobody changes them. */
static bool round_normed(const State *s, MiContext *ctx, const MiCall *call, const MiArgs *norm, float *zeros, GError **error)
{
    const MiNorm *n = norm->node->attr;
    char         *room = call->workspace;

    return cuda_ok(mi_cuda_fp8_norm_rows(ctx->stream, norm->in[0], norm->weight[0].tensor.data, n->eps, n->offset,
                                         (uint8_t *)room + s->codes[0], (float *)(void *)(room + s->scales[0]), zeros), "rounding", error);
}

static State *state_new(void)
{
    State *s = g_new0(State, 1);
    s->end = MI_GEMM_WORKSPACE;
    return s;
}

static bool prepared(State *s, bool ok, void **state, size_t *workspace)
{
    if (!ok) {
        release(s);
        return false;
    }
    *state = s;
    *workspace = s->end;
    return true;
}

/* cuBLASLt has a product with it. */
static bool fits(const MiArgs *linear)
{
    const int64_t *side = linear->node->weight[0]->shape;
    return side[0] % MULTIPLE == 0 && side[1] % MULTIPLE == 0;
}

/* Rows one after the other, which 16-byte loads can read. */
static bool even_rows(const MiTensor *x)
{
    return x->ndim == 2 && (x->dtype == MI_BF16 || x->dtype == MI_F16) && x->stride[1] == 1 && x->stride[0] % 8 == 0;
}

/* ---- norm, q, k, v, rope, append ------------------------------------------------- */

enum { QKV_NORM, Q, K, V, TURN_Q, TURN_K, APPEND };
static const MiPattern qkv_pattern[] = {
    [QKV_NORM] = { "rmsnorm", { 0 } },
    [Q] = { "linear", { 1 + QKV_NORM } },
    [K] = { "linear", { 1 + QKV_NORM } },
    [V] = { "linear", { 1 + QKV_NORM } },
    [TURN_Q] = { "rope", { 1 + Q } },
    [TURN_K] = { "rope", { 1 + K } },
    [APPEND] = { "kv_append", { 1 + TURN_K, 1 + V } },
    { NULL, { 0 } },
};

static bool qkv_match(const MiArgs *at, MiShape shape)
{
    const MiTensor *heads = &at[TURN_Q].out[0];

    return shape.n_tokens >= MIN_ROWS && even_rows(&at[QKV_NORM].in[0]) && fits(&at[Q]) && fits(&at[K]) && fits(&at[V]) && heads->ndim == 3 && heads->shape[2] % 4 == 0 &&
           heads->shape[2] <= 512 && at[TURN_Q].node->in[1].id == at[TURN_K].node->in[1].id &&
           heads->stride[0] == heads->shape[1] * heads->shape[2];
}

static bool qkv_prepare(MiContext *ctx, const MiCall *call, void **state, size_t *workspace, GError **error)
{
    const MiTensor *x = &call->at[QKV_NORM].in[0];
    State          *s = state_new();

    (void)ctx;
    return prepared(s, add_product(s, 0, &call->at[Q], 3, x->shape[0], x->shape[0], 0, x->dtype, error), state, workspace);
}

static bool qkv_run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    const State    *s = state;
    const MiArgs   *at = call->at;
    const MiRotate *r = at[TURN_Q].node->attr;
    const MiTensor *q = &at[TURN_Q].out[0];
    void           *joined = (char *)call->workspace + s->joined;
    const MiRopeAppend a = {
        .joined = joined, .freqs = at[TURN_Q].in[1].data, .positions = call->batch->positions, .q = q->data,
        .bias = { at[Q].weight[1].tensor.data, at[K].weight[1].tensor.data, at[V].weight[1].tensor.data },
        .dtype = q->dtype, .rows = (int32_t)q->shape[0], .n_heads = (int32_t)q->shape[1],
        .n_kv_heads = at[APPEND].kv->n_kv_heads, .head_dim = (int32_t)q->shape[2], .rotated = r->dim,
        .interleaved = r->style == MI_ROPE_INTERLEAVED, .magnitude = r->magnitude,
    };

    return round_normed(s, ctx, call, &at[QKV_NORM], NULL, error) && product(s, 0, ctx, call, &at[Q], NULL, joined, error) &&
           cuda_ok(mi_cuda_rope_append(ctx->stream, a, *at[APPEND].kv), "turning heads", error);
}

/* ---- norm, gate, up, silu, mul, and perhaps down, add ------------------------------ */

#define GATE_LINES \
    [GATE_NORM] = { "rmsnorm", { 0 } }, [GATE] = { "linear", { 1 + GATE_NORM } }, [UP] = { "linear", { 1 + GATE_NORM } }, \
    [SILU] = { "silu", { 1 + GATE } }, [MUL] = { "mul", { 1 + SILU, 1 + UP } }

enum { GATE_NORM, GATE, UP, SILU, MUL, DOWN, LAST };
static const MiPattern gate_pattern[] = { GATE_LINES, { NULL, { 0 } } };
static const MiPattern mlp_pattern[] = {
    GATE_LINES, [DOWN] = { "linear", { 1 + MUL } }, [LAST] = { "add", { 0, 1 + DOWN } }, { NULL, { 0 } },
};

static bool has_bias(const MiArgs *linear) { return linear->node->weight[1] != NULL; }

static bool gate_fits(const MiArgs *at, MiShape shape)
{
    return shape.n_tokens >= MIN_ROWS && even_rows(&at[GATE_NORM].in[0]) && !has_bias(&at[GATE]) && !has_bias(&at[UP]) &&
           fits(&at[GATE]) && fits(&at[UP]);
}

static bool gate_match(const MiArgs *at, MiShape shape)
{
    const MiTensor *y = &at[MUL].out[0];

    return gate_fits(at, shape) && even_rows(y) && y->dtype == at[GATE_NORM].in[0].dtype && y->stride[0] == y->shape[1];
}

static bool mlp_match(const MiArgs *at, MiShape shape)
{
    const MiTensor *y = &at[LAST].out[0];

    return gate_fits(at, shape) && y->ndim == 2 && y->dtype == at[GATE_NORM].in[0].dtype &&
           at[LAST].in[0].stride[0] == y->stride[0] && !has_bias(&at[DOWN]) && fits(&at[DOWN]);
}

/* All but `down`. */
static bool prepare_gate(State *s, const MiCall *call, GError **error)
{
    const MiTensor *x = &call->at[GATE_NORM].in[0];
    const int64_t   rows = x->shape[0];

    s->many = mi_cuda_gated_rows(x->shape[1], call->at[GATE].weight[0].tensor.shape[0], MI_F8);
    if (rows >= s->many)
        s->largest = take(s, (size_t)rows * sizeof(float));
    return add_product(s, 0, &call->at[GATE], 2, rows, MIN(rows, s->many - 1), 0, x->dtype, error);
}

static bool gate_prepare(MiContext *ctx, const MiCall *call, void **state, size_t *workspace, GError **error)
{
    State *s = state_new();

    (void)ctx;
    return prepared(s, prepare_gate(s, call, error), state, workspace);
}

static bool mlp_prepare(MiContext *ctx, const MiCall *call, void **state, size_t *workspace, GError **error)
{
    const MiTensor *x = &call->at[GATE_NORM].in[0];
    const int64_t   rows = x->shape[0], *down = call->at[DOWN].weight[0].tensor.shape;
    State          *s = state_new();

    (void)ctx;
    const bool ok = prepare_gate(s, call, error) &&
                    add_product(s, 1, &call->at[DOWN], 1, rows, 0, call->at[LAST].out[0].stride[0], x->dtype, error);
    if (rows >= s->many)
        s->act = take(s, (size_t)(rows * down[1]) * mi_dtype_size(x->dtype));
    return prepared(s, ok, state, workspace);
}

/* Of many rows: where a kernel leaves the largest of each. */
static float *largest_of(const State *s, const MiCall *call)
{
    return call->at[GATE_NORM].in[0].shape[0] < s->many ? NULL : (float *)(void *)((char *)call->workspace + s->largest);
}

/* Of many rows: silu(gate) * up of what is rounded. */
static bool gate_many(const State *s, MiContext *ctx, const MiCall *call, MiTensor act, GError **error)
{
    const MiArgs       *at = call->at;
    const MiTensor     *gate = &at[GATE].weight[0].tensor;
    char               *room = call->workspace;
    const MiTensor      codes = { room + s->codes[0], MI_F8, 2, { act.shape[0], gate->shape[1] }, { gate->shape[1], 1 } };
    const MiGatedScales scales = { (const float *)(void *)(room + s->scales[0]), at[GATE].weight[0].scales, at[UP].weight[0].scales,
                                   largest_of(s, call) };

    return cuda_ok(mi_cuda_gated_scaled(ctx->stream, codes, gate->data, at[UP].weight[0].tensor.data, act, scales), "gate and up",
                   error);
}

/* Of few: gate and up side by side. */
static bool gate_few(const State *s, MiContext *ctx, const MiCall *call, MiTensor *joined, GError **error)
{
    const MiTensor *x = &call->at[GATE_NORM].in[0];
    const int64_t   two = 2 * call->at[GATE].weight[0].tensor.shape[0];

    *joined = (MiTensor){ (char *)call->workspace + s->joined, x->dtype, 2, { x->shape[0], two }, { two, 1 } };
    return product(s, 0, ctx, call, &call->at[GATE], NULL, joined->data, error);
}

static bool gate_run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    const State    *s = state;
    const MiTensor *y = &call->at[MUL].out[0];
    MiTensor        joined;

    if (!round_normed(s, ctx, call, &call->at[GATE_NORM], largest_of(s, call), error))
        return false;
    if (y->shape[0] >= s->many)
        return gate_many(s, ctx, call, *y, error);
    return gate_few(s, ctx, call, &joined, error) &&
           cuda_ok(mi_cuda_silu_mul(ctx->stream, joined.data, y->data, y->shape[0], y->shape[1], y->dtype), "gating", error);
}

static bool mlp_run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    const State   *s = state;
    const MiArgs  *at = call->at;
    char          *room = call->workspace;
    const MiTensor *x = &at[GATE_NORM].in[0];
    const int64_t  rows = x->shape[0], ff = at[GATE].weight[0].tensor.shape[0];
    const MiTensor act = { room + s->act, x->dtype, 2, { rows, ff }, { ff, 1 } };
    uint8_t       *codes = (uint8_t *)room + s->codes[1];
    float         *scales = (float *)(void *)(room + s->scales[1]);
    MiTensor       joined;
    bool           ok = round_normed(s, ctx, call, &at[GATE_NORM], largest_of(s, call), error);

    if (rows >= s->many)
        ok = ok && gate_many(s, ctx, call, act, error) &&
             cuda_ok(mi_cuda_fp8_rows_within(ctx->stream, act, codes, scales, largest_of(s, call)), "rounding", error);
    else
        ok = ok && gate_few(s, ctx, call, &joined, error) &&
             cuda_ok(mi_cuda_fp8_gated_rows(ctx->stream, joined, codes, scales), "gating", error);
    return ok && product(s, 1, ctx, call, &at[DOWN], at[LAST].in[0].data, at[LAST].out[0].data, error);
}

/* ---- residual + linear ---------------------------------------------------------------- */

static const MiPattern residual_pattern[] = { { "linear", { 0 } }, { "add", { 0, 1 } }, { NULL, { 0 } } };

static bool residual_match(const MiArgs *at, MiShape shape)
{
    const MiTensor *y = &at[1].out[0], *x = &at[0].in[0];

    return shape.n_tokens >= MIN_ROWS && (x->dtype == MI_BF16 || x->dtype == MI_F16) && y->dtype == x->dtype && !has_bias(&at[0]) && fits(&at[0]) &&
           at[1].in[0].stride[0] == y->stride[0] && x->stride[0] == at[0].node->weight[0]->shape[1];
}

static bool residual_prepare(MiContext *ctx, const MiCall *call, void **state, size_t *workspace, GError **error)
{
    const MiTensor *y = &call->at[1].out[0];
    State          *s = state_new();

    (void)ctx;
    return prepared(s, add_product(s, 0, call->at, 1, y->shape[0], 0, y->stride[0], y->dtype, error), state, workspace);
}

static bool residual_run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    const State   *s = state;
    const MiArgs  *at = call->at;
    char          *room = call->workspace;
    const int64_t  in = at[0].weight[0].tensor.shape[1];
    const MiTensor x = { at[0].in[0].data, at[0].in[0].dtype, 2, { at[0].in[0].shape[0], in }, { in, 1 } }; /* heads are columns */

    return cuda_ok(mi_cuda_fp8_rows(ctx->stream, x, (uint8_t *)room + s->codes[0], (float *)(void *)(room + s->scales[0])), "rounding",
                   error) &&
           product(s, 0, ctx, call, &at[0], at[1].in[0].data, at[1].out[0].data, error);
}

static const MiOp qkv_op = { .struct_size = sizeof qkv_op, .prepare = qkv_prepare, .run = qkv_run, .release = release };
static const MiOp gate_op = { .struct_size = sizeof gate_op, .prepare = gate_prepare, .run = gate_run, .release = release };
static const MiOp mlp_op = { .struct_size = sizeof mlp_op, .prepare = mlp_prepare, .run = mlp_run, .release = release };
static const MiOp residual_op = {
    .struct_size = sizeof residual_op, .prepare = residual_prepare, .run = residual_run, .release = release,
};

static const MiFusion qkv = {
    .struct_size = sizeof qkv, .pattern = qkv_pattern, .layouts = layouts, .match = qkv_match, .op = &qkv_op, .scales = true,
};
static const MiFusion gate = {
    .struct_size = sizeof gate, .pattern = gate_pattern, .layouts = layouts, .match = gate_match, .op = &gate_op,
};
static const MiFusion mlp = {
    .struct_size = sizeof mlp, .pattern = mlp_pattern, .layouts = layouts, .match = mlp_match, .op = &mlp_op,
};
static const MiFusion residual = {
    .struct_size = sizeof residual, .pattern = residual_pattern, .layouts = layouts, .match = residual_match, .op = &residual_op,
};

MI_PLUGIN("fp8_products", "0.1", "A layer's products of E4M3 with their neighbours", MI_FEATURE_FUSION("fp8_qkv", "cuda", &qkv, NULL),
          MI_FEATURE_FUSION("fp8_mlp", "cuda", &mlp, NULL), MI_FEATURE_FUSION("fp8_gate", "cuda", &gate, NULL),
          MI_FEATURE_FUSION("fp8_residual", "cuda", &residual, NULL));
