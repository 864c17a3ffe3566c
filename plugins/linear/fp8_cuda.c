/* fp8_cuda.c - projections as E4M3 on a card: weights rounded there while they load, a scale for each row or for all of a
 * matrix.
 *
 * Up to MI_FP8_FEW_ROWS rows read the weights at the memory's speed and multiply by what x is.  For more rows x is rounded
 * too, a scale for each of its rows, and cuBLASLt multiplies; fusions/prefill_cuda.c does so for several projections as one. */
#include "fp8.h"
#include <cuda/fp8.h>
#include <cuda/gemm.h>
#include <cuda/refused.h>
#include <cuda_runtime_api.h>
#include <miniinfer/plugin.h>

enum { PIECE = 64 << 20 /* bytes */, MULTIPLE = 16 /* columns */ };

static const char *const formats[] = {
    "f32", "f16", "bf16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl", "iq4_xs",
    "gptq", "awq", "ct_int4", "ct_int8", "fp8", NULL,
};

static const MiOption options_table[] = {
    MI_CHOICE(Fp8Options, scale, "channel", "channel, tensor", "what has one: a row, or a matrix"),
    MI_OPTION_END,
};

static bool even(const void *options) { return options && strcmp(((const Fp8Options *)options)->scale, "tensor") == 0; }

static bool cuda_ok(int e, GError **error)
{
    if (e)
        g_set_error(error, MI_ERROR, mi_cuda_refused(e) ? MI_ERROR_UNSUPPORTED : MI_ERROR_DEVICE,
                    "launching the kernel: %s", cudaGetErrorString((cudaError_t)e));
    return e == 0;
}

/* ---- load ------------------------------------------------------------------- */

static bool bytes(const MiWeight *parts, int n, MiDType dtype, const void *options, size_t *total, GError **error)
{
    int64_t rows;

    (void)dtype, (void)options;
    if (!fp8_codes(parts, n, MULTIPLE, total, &rows, error))
        return false;
    *total += fp8_aligned((size_t)rows * sizeof(float));
    return true;
}

/* As it is stored where the card reads that, else f32: it is rounded once. */
static MiDType dtype_of(const MiWeight *w)
{
    return strcmp(w->format, "bf16") == 0 ? MI_BF16 : strcmp(w->format, "f16") == 0 ? MI_F16 : MI_F32;
}

/* A piece of rows at a time; twice where all scales are to be one. */
static bool pack_one(MiContext *ctx, const MiWeight *w, bool is_even, uint8_t *codes, float *scales, GError **error)
{
    const int64_t rows = w->shape[0], in = w->shape[1];
    const MiDType dtype = dtype_of(w);
    const size_t  row = (size_t)in * mi_dtype_size(dtype);
    const int64_t each = w->quant ? rows : CLAMP((int64_t)(PIECE / row), 1, rows);
    void         *plain = ctx->alloc(ctx, MI_MEM_DEVICE, (size_t)each * row, error);
    bool          ok = plain != NULL;

    for (int pass = 0; pass <= is_even && ok; pass++) {
        for (int64_t at = 0; at < rows && ok; at += each) {
            const MiWeight some = fp8_piece(w, at, MIN(each, rows - at));
            const MiTensor x = { plain, dtype, 2, { some.shape[0], in }, { in, 1 } };
            ok = ctx->put(ctx, plain, dtype, &some, error) &&
                 cuda_ok(pass ? mi_cuda_fp8_rows_by(ctx->stream, x, codes + at * in, scales + at)
                              : mi_cuda_fp8_rows(ctx->stream, x, codes + at * in, scales + at), error);
        }
        ok = ok && (pass || !is_even || cuda_ok(mi_cuda_fp8_even(ctx->stream, scales, rows), error));
    }
    ctx->free(ctx, MI_MEM_DEVICE, plain);
    return ok;
}

static bool pack(MiContext *ctx, const MiWeight *parts, int n, const void *options, void *dst, MiOperand *out, GError **error)
{
    uint8_t *codes = dst;
    size_t   all;
    int64_t  rows, first = 0;

    if (!fp8_codes(parts, n, MULTIPLE, &all, &rows, error))
        return false;
    float *scales = (float *)(void *)((char *)dst + all);
    for (int i = 0; i < n; i++) {
        const int64_t in = parts[i].shape[1];
        if (!pack_one(ctx, &parts[i], even(options), codes + first * in, scales + first, error))
            return false;
        out[i] = (MiOperand){ .tensor = { .data = codes + first * in, .dtype = MI_F8, .ndim = 2, .shape = { parts[i].shape[0], in } },
                              .layout = "fp8", .scales = scales + first, .first_row = first };
        first += parts[i].shape[0];
    }
    return true;
}

/* ---- run -------------------------------------------------------------------- */

typedef struct {
    size_t  codes; /* bytes of those of x */
    int     n;
    MiGemm *gemm[]; /* NULL: of a few rows at most */
} State;

static void release(void *state)
{
    State *s = state;
    for (int i = 0; i < s->n; i++)
        mi_cuda_gemm_free(s->gemm[i]);
    g_free(s);
}

static bool few(const MiCall *call) { return call->at[0].out[0].shape[0] <= MI_FP8_FEW_ROWS; }

/* The parts have one input: it is rounded once. */
static bool prepare(MiContext *ctx, const MiCall *call, void **state, size_t *workspace, GError **error)
{
    const int64_t rows = call->at[0].in[0].shape[0], in = call->at[0].weight[0].tensor.shape[1];
    State        *s = g_malloc0(sizeof *s + (size_t)call->n * sizeof *s->gemm);

    (void)ctx;
    s->n = call->n;
    s->codes = fp8_aligned((size_t)(rows * in));
    for (int i = 0; i < call->n && !few(call); i++) {
        const MiTensor *y = &call->at[i].out[0];
        const int status = mi_cuda_gemm_new(&s->gemm[i], call->at[i].weight[0].tensor.shape[0], in, in, y->stride[0], MI_F8, y->dtype);
        if (status) {
            g_set_error(error, MI_ERROR, MI_ERROR_DEVICE, "cuBLASLt, a product of fp8: %s", mi_cuda_gemm_error(status));
            release(s);
            return false;
        }
    }
    *state = s;
    *workspace = few(call) ? 0 : MI_GEMM_WORKSPACE + s->codes + fp8_aligned((size_t)rows * sizeof(float));
    return true;
}

static bool run_few(MiContext *ctx, const MiCall *call, GError **error)
{
    for (int i = 0; i < call->n; i++) {
        const MiArgs *a = &call->at[i];
        if (!cuda_ok(mi_cuda_fp8_gemv(ctx->stream, a->in[0], a->weight[0].tensor.data, a->weight[0].scales,
                                      a->weight[1].tensor.data, a->out[0]), error))
            return false;
    }
    return true;
}

static bool run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    const State    *s = state;
    const MiTensor *x = &call->at[0].in[0];
    uint8_t        *codes = (uint8_t *)call->workspace + MI_GEMM_WORKSPACE;
    float          *scales = (float *)(void *)(codes + s->codes);

    if (few(call))
        return run_few(ctx, call, error);
    if (!cuda_ok(mi_cuda_fp8_rows(ctx->stream, *x, codes, scales), error))
        return false;
    for (int i = 0; i < call->n; i++) {
        const MiArgs   *a = &call->at[i];
        const MiTensor *y = &a->out[0];
        const float    *bias = a->weight[1].tensor.data;
        const int       status = mi_cuda_gemm_scaled(s->gemm[i], ctx->stream, codes, scales, a->weight[0].tensor.data,
                                                     a->weight[0].scales, NULL, y->data, y->shape[0], call->workspace);
        if (status) {
            g_set_error(error, MI_ERROR, MI_ERROR_DEVICE, "cuBLASLt, a product of fp8: %s", mi_cuda_gemm_error(status));
            return false;
        }
        if (bias && !cuda_ok(mi_cuda_add_bias(ctx->stream, *y, bias), error))
            return false;
    }
    return true;
}

static const MiOp op = {
    .struct_size = sizeof op, .n_in = 1, .n_out = 1, .n_weights = 1, .prepare = prepare, .run = run, .release = release,
};

static const MiLinear fp8 = {
    .struct_size = sizeof fp8, .formats = formats, .layout = "fp8", .rank = -1, .joins = true, .bytes = bytes, .pack = pack, .op = &op,
};

MI_PLUGIN("fp8_cuda", "0.1", "Projections as E4M3 on a card", MI_FEATURE_LINEAR("fp8", "cuda", &fp8, options_table));
