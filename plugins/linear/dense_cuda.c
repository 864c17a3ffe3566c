/* dense_cuda.c - plain matrices of the activations' dtype on a card.
 *
 * Whatever the file stores is converted once, while loading: a quantised file
 * takes more memory here than on disk.  Products of many rows are cuBLASLt's. */
#include <cuda/gemm.h>
#include <cuda_runtime_api.h>
#include <miniinfer/plugin.h>

static const char *const formats[] = {
    "f32", "f16", "bf16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl", "iq4_xs",
    NULL,
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

typedef struct {
    int     n;
    MiGemm *gemm[];
} State;

static void release(void *state)
{
    State *s = state;
    for (int i = 0; i < s->n; i++)
        mi_cuda_gemm_free(s->gemm[i]);
    g_free(s);
}

static bool prepare(MiContext *ctx, const MiCall *call, void **state, size_t *workspace, GError **error)
{
    State *s = g_malloc0(sizeof *s + (size_t)call->n * sizeof *s->gemm);

    s->n = call->n;
    for (int i = 0; i < call->n; i++) {
        const MiTensor *x = &call->at[i].in[0], *y = &call->at[i].out[0], *w = &call->at[i].weight[0].tensor;
        const int       status = mi_cuda_gemm_new(&s->gemm[i], w->shape[0], w->shape[1], x->stride[0], y->stride[0], ctx->dtype,
                                                  y->dtype);
        if (status) {
            g_set_error(error, MI_ERROR, MI_ERROR_DEVICE, "cuBLASLt: %s", mi_cuda_gemm_error(status));
            release(s);
            return false;
        }
    }
    *state = s;
    *workspace = MI_GEMM_WORKSPACE;
    return true;
}

static bool run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    State *s = state;

    for (int i = 0; i < call->n; i++) {
        const MiArgs   *a = &call->at[i];
        const MiTensor *y = &a->out[0];
        const int status = mi_cuda_gemm(s->gemm[i], ctx->stream, a->in[0].data, a->weight[0].tensor.data, NULL, y->data,
                                        y->shape[0], call->workspace);
        if (status) {
            g_set_error(error, MI_ERROR, MI_ERROR_DEVICE, "cuBLASLt: %s", mi_cuda_gemm_error(status));
            return false;
        }
        const int e = a->weight[1].tensor.data ? mi_cuda_add_bias(ctx->stream, *y, a->weight[1].tensor.data) : 0;
        if (e) {
            g_set_error(error, MI_ERROR, MI_ERROR_DEVICE, "adding the bias: %s", cudaGetErrorString((cudaError_t)e));
            return false;
        }
    }
    return true;
}

static const MiOp dense_op = {
    .struct_size = sizeof dense_op, .n_in = 1, .n_out = 1, .n_weights = 1, .prepare = prepare, .run = run, .release = release,
};

static const MiLinear dense = {
    .struct_size = sizeof dense, .formats = formats, .layout = "plain", .exact = true, .joins = true,
    .bytes = bytes, .pack = pack, .op = &dense_op,
};

MI_PLUGIN("dense", "0.1", "Plain matrices on a card", MI_FEATURE_LINEAR("dense", "cuda", &dense, NULL));
