/* dense_cuda.c - plain matrices of the activations' dtype on a card.
 *
 * Whatever the file stores is converted once, while loading: a quantised file
 * takes more memory here than on disk.  Products of many rows are cuBLASLt's, those
 * of few our own, which read the weights at the memory's speed. */
#include "invariant_cuda.h"

#include <cuda/gemm.h>
#include <cuda/gemv.h>
#include <cuda/refused.h>
#include <cuda_runtime_api.h>
#include <linear/tune_cuda.h>
#include <miniinfer/plugin.h>

static const char *const formats[] = {
    "f32", "f16", "bf16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl", "iq4_xs",
    "gptq", "awq", "ct_int4", "ct_int8", "fp8", "fp8_blocks", "fp8_groups", NULL,
};

/* ---- load ------------------------------------------------------------------- */

static bool bytes(const MiWeight *parts, int n, MiDType dtype, const void *options, size_t *total, GError **error)
{
    (void)options;
    *total = 0;
    for (int i = 0; i < n; i++) {
        gsize one;
        if (parts[i].ndim != 2 || parts[i].shape[0] <= 0 || parts[i].shape[1] <= 0) {
            g_set_error(error, MI_ERROR, MI_ERROR_MODEL, "%s: linear 'dense' reads matrices; this has %d dimensions",
                        parts[i].name, parts[i].ndim);
            return false;
        }
        if (!g_size_checked_mul(&one, (gsize)parts[i].shape[0], (gsize)parts[i].shape[1]) ||
            !g_size_checked_mul(&one, one, mi_dtype_size(dtype)) || !g_size_checked_add(total, *total, one)) {
            g_set_error(error, MI_ERROR, MI_ERROR_MODEL, "%s: too large for this machine", parts[i].name);
            return false;
        }
    }
    return true;
}

static bool pack(MiContext *ctx, const MiWeight *parts, int n, const void *options, void *dst, MiOperand *out, GError **error)
{
    char   *at = dst;
    int64_t row = 0;

    (void)options;
    for (int i = 0; i < n; i++) {
        const int64_t rows = parts[i].shape[0], in = parts[i].shape[1];
        if (!ctx->put(ctx, at, ctx->dtype, &parts[i], error))
            return false;
        out[i] = (MiOperand){ .tensor = { .data = at, .dtype = ctx->dtype, .ndim = 2, .shape = { rows, in }, .stride = { in, 1 } },
                              .layout = "plain", .first_row = row };
        row += rows;
        at += (size_t)(rows * in) * mi_dtype_size(ctx->dtype);
    }
    return true;
}

/* ---- run -------------------------------------------------------------------- */

/* Of so many rows at most; what has more is cuBLASLt's. */
static const int32_t most_rows[] = { MI_GEMV_FEW_ROWS, 16 };
enum { N_PLANS = G_N_ELEMENTS(most_rows) };

typedef struct {
    MiGemm    *gemm;
    MiGemvPlan plan[N_PLANS]; /* rows 0: not possible */
} Part;

typedef struct {
    int  n;
    Part part[];
} State;

static void release(void *state)
{
    State *s = state;
    for (int i = 0; i < s->n; i++)
        mi_cuda_gemm_free(s->part[i].gemm);
    g_free(s);
}

static bool in_one_piece(const MiTensor *x, int64_t in) { return x->stride[0] == in && x->stride[x->ndim - 1] == 1; }

static bool prepare(MiContext *ctx, const MiCall *call, void **state, size_t *workspace, GError **error)
{
    State *s = g_malloc0(sizeof *s + (size_t)call->n * sizeof *s->part);

    s->n = call->n;
    for (int i = 0; i < call->n; i++) {
        const MiTensor *x = &call->at[i].in[0], *y = &call->at[i].out[0], *w = &call->at[i].weight[0].tensor;
        Part           *p = &s->part[i];
        const int       status = mi_cuda_gemm_new(&p->gemm, w->shape[0], w->shape[1], x->stride[0], y->stride[0], ctx->dtype,
                                                  y->dtype);
        if (status) {
            g_set_error(error, MI_ERROR, MI_ERROR_DEVICE, "cuBLASLt: %s", mi_cuda_gemm_error(status));
            release(s);
            return false;
        }
        for (int k = 0; k < N_PLANS && ctx->dtype == MI_BF16 && in_one_piece(x, w->shape[1]); k++) {
            p->plan[k] = (MiGemvPlan){ .kind = MI_GEMV_PLAIN, .dtype = ctx->dtype, .rows = most_rows[k],
                                       .in = (int32_t)w->shape[1], .out = (int32_t)w->shape[0] };
            if (mi_cuda_gemv_plan(&p->plan[k]) != 0)
                p->plan[k].rows = 0;
        }
    }
    for (int i = 0; i < call->n; i++)
        tune_cuda(ctx, s->part[i].gemm, MI_GEMV_FEW_ROWS, call->at[i].out[0].shape[0], false);
    *state = s;
    *workspace = MI_GEMM_WORKSPACE;
    return true;
}

static bool cuda_ok(int e, GError **error)
{
    if (e)
        g_set_error(error, MI_ERROR, mi_cuda_refused(e) ? MI_ERROR_UNSUPPORTED : MI_ERROR_DEVICE,
                    "launching the kernel: %s", cudaGetErrorString((cudaError_t)e));
    return e == 0;
}

static bool run_one(Part *p, MiContext *ctx, const MiCall *call, const MiArgs *a, GError **error)
{
    const MiTensor *x = &a->in[0], *y = &a->out[0];
    const void     *w = a->weight[0].tensor.data;
    const float    *bias = a->weight[1].tensor.data;

    for (int k = 0; k < N_PLANS; k++)
        if (y->shape[0] <= p->plan[k].rows)
            return cuda_ok(mi_cuda_gemv(ctx->stream, &p->plan[k], *x, w, bias, *y), error);
    const int status = mi_cuda_gemm(p->gemm, ctx->stream, x->data, w, NULL, y->data, y->shape[0], call->workspace);
    if (status) {
        g_set_error(error, MI_ERROR, MI_ERROR_DEVICE, "cuBLASLt: %s", mi_cuda_gemm_error(status));
        return false;
    }
    return !bias || cuda_ok(mi_cuda_add_bias(ctx->stream, *y, bias), error);
}

static bool run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    State *s = state;

    for (int i = 0; i < call->n; i++)
        if (!run_one(&s->part[i], ctx, call, &call->at[i], error))
            return false;
    return true;
}

static const MiOp dense_op = {
    .struct_size = sizeof dense_op, .n_in = 1, .n_out = 1, .n_weights = 1, .prepare = prepare, .run = run, .release = release,
};

static const MiLinear dense = {
    .struct_size = sizeof dense, .formats = formats, .layout = "plain", .exact = true, .joins = true,
    .bytes = bytes, .pack = pack, .op = &dense_op,
};

/* What a configuration that was written for the processor's yardstick gets here: the same, which with
 * dtype = fp32 neither rounds weights nor uses reduced products. */
static const MiLinear reference = {
    .struct_size = sizeof reference, .formats = formats, .layout = "plain", .rank = -1, .exact = true, .joins = true,
    .bytes = bytes, .pack = pack, .op = &dense_op,
};

/* The same matrices for [engine] deterministic = batch. */
static const MiLinear invariant = {
    .struct_size = sizeof invariant, .formats = formats, .layout = "plain", .rank = -2, .exact = true, .joins = true,
    .bytes = bytes, .pack = pack, .op = &invariant_op,
};

MI_PLUGIN("dense", "0.1", "Plain matrices on a card", MI_FEATURE_LINEAR("dense", "cuda", &dense, NULL),
          MI_FEATURE_LINEAR("reference", "cuda", &reference, NULL),
          MI_FEATURE_LINEAR("invariant", "cuda", &invariant, NULL));
