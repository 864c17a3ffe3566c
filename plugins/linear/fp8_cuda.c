/* fp8_cuda.c - projections as E4M3 on a card, in three linears:
 *
 *   fp8         any weight, rounded there while it loads, a scale for each row or for all of a matrix
 *   fp8_rows    what is stored so, as it is
 *   fp8_blocks  what is stored with a scale for each 128 x 128, as it is
 *
 * Up to MI_GEMV_FEW_ROWS rows of bf16 read the weights at the memory's speed and multiply by what x is.  For more rows x
 * is rounded too, a scale for each of its rows, and cuBLASLt multiplies; fusions/fp8_cuda.c does so for several
 * projections as one.  It has no such product with blocks, nor for an odd number of W's rows: those become plain again, a
 * piece at a time. */
#include "fp8.h"
#include <cpu/quants.h>
#include <cuda/fp8.h>
#include <cuda/gemm.h>
#include <cuda/gemv.h>
#include <cuda/refused.h>
#include <cuda_runtime_api.h>
#include <miniinfer/plugin.h>

enum { PIECE = 64 << 20, PLAIN = 32 << 20 /* bytes */, MULTIPLE = 16 /* of W's columns; of its rows in a product of cuBLASLt's */ };

static const char *const formats[] = {
    "f32", "f16", "bf16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl", "iq4_xs",
    "gptq", "awq", "ct_int4", "ct_int8", "fp8", "fp8_blocks", "fp8_groups", NULL,
};
static const char *const of_rows[] = { "fp8", NULL }, *const of_blocks[] = { "fp8_blocks", NULL };

static const MiOption options_table[] = {
    MI_CHOICE(Fp8Options, scale, "channel", "channel, tensor", "what has one: a row, or a matrix; what is stored as E4M3 keeps its own"),
    MI_OPTION_END,
};

static const MiQuantForm rows_form = { .bits = MI_QUANT_E4M3 }, blocks_form = { .bits = MI_QUANT_E4M3, .group = MI_FP8_BLOCK };

static bool even(const void *options) { return options && strcmp(((const Fp8Options *)options)->scale, "tensor") == 0; }

static bool cuda_ok(int e, GError **error)
{
    if (e)
        g_set_error(error, MI_ERROR, mi_cuda_refused(e) ? MI_ERROR_UNSUPPORTED : MI_ERROR_DEVICE,
                    "launching the kernel: %s", cudaGetErrorString((cudaError_t)e));
    return e == 0;
}

static bool product_ok(int status, GError **error)
{
    if (status)
        g_set_error(error, MI_ERROR, MI_ERROR_DEVICE, "cuBLASLt, a product of fp8: %s", mi_cuda_gemm_error(status));
    return status == 0;
}

/* ---- load: rounding ----------------------------------------------------------- */

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
static bool round_one(MiContext *ctx, const MiWeight *w, bool is_even, uint8_t *codes, float *scales, GError **error)
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
                 cuda_ok(pass      ? mi_cuda_fp8_rows_by(ctx->stream, x, codes + at * in, scales + at)
                         : is_even ? mi_cuda_fp8_measure(ctx->stream, x, scales + at)
                                   : mi_cuda_fp8_rows(ctx->stream, x, codes + at * in, scales + at), error);
        }
        ok = ok && (pass || !is_even || cuda_ok(mi_cuda_fp8_even(ctx->stream, scales, rows), error));
    }
    ctx->free(ctx, MI_MEM_DEVICE, plain);
    return ok;
}

/* ---- load: as it is stored ------------------------------------------------------- */

static bool stored_so(const MiWeight *w) { return strcmp(w->format, "fp8") == 0; }

/* The codes as they are, n scales from the host. */
static bool keep(MiContext *ctx, const MiQuant *q, int block, const float *own, int64_t n, uint8_t *codes, float *scales, GError **error)
{
    return ctx->upload(ctx, codes, q->codes, (size_t)(q->out * q->in), error) &&
           ctx->upload(ctx, scales, own, (size_t)n * sizeof *own, error) &&
           cuda_ok(mi_cuda_fp8_check(ctx->stream, codes, q->out, q->in, block, scales), error);
}

static bool no_memory(const MiWeight *w, GError **error)
{
    g_set_error(error, MI_ERROR, MI_ERROR_NO_MEMORY, "%s: no memory for its scales", w->name);
    return false;
}

/* One scale a row, however many rows share it. */
static bool keep_rows(MiContext *ctx, const MiWeight *w, uint8_t *codes, float *scales, GError **error)
{
    g_autofree float *own = g_try_new(float, (gsize)w->quant->out);

    if (!own)
        return no_memory(w, error);
    (void)mi_quant_scales(w->quant, 0, w->quant->out, own, NULL); /* one that is no number makes its rows none */
    return keep(ctx, w->quant, 1, own, w->quant->out, codes, scales, error);
}

static int64_t blocks_of(int64_t n) { return (n + MI_FP8_BLOCK - 1) / MI_FP8_BLOCK; }

static bool keep_blocks(MiContext *ctx, const MiWeight *w, uint8_t *codes, float *scales, GError **error)
{
    const int64_t     across = blocks_of(w->quant->in), down = blocks_of(w->quant->out);
    g_autofree float *own = g_try_new(float, (gsize)(across * down));

    if (!own)
        return no_memory(w, error);
    for (int64_t i = 0; i < down; i++)
        (void)mi_quant_scales(w->quant, i * MI_FP8_BLOCK, 1, own + i * across, NULL);
    return keep(ctx, w->quant, MI_FP8_BLOCK, own, across * down, codes, scales, error);
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
        if (!(stored_so(&parts[i]) ? keep_rows(ctx, &parts[i], codes + first * in, scales + first, error)
                                   : round_one(ctx, &parts[i], even(options), codes + first * in, scales + first, error)))
            return false;
        out[i] = (MiOperand){ .tensor = { .data = codes + first * in, .dtype = MI_F8, .ndim = 2, .shape = { parts[i].shape[0], in } },
                              .layout = "fp8", .scales = scales + first, .ext = &rows_form, .first_row = first };
        first += parts[i].shape[0];
    }
    return true;
}

static bool blocks_bytes(const MiWeight *parts, int n, MiDType dtype, const void *options, size_t *total, GError **error)
{
    int64_t rows;

    (void)dtype, (void)options;
    if (!fp8_codes(parts, n, MULTIPLE, total, &rows, error))
        return false;
    for (int i = 0; i < n; i++)
        *total += fp8_aligned((size_t)(blocks_of(parts[i].shape[0]) * blocks_of(parts[i].shape[1])) * sizeof(float));
    return true;
}

static bool pack_blocks(MiContext *ctx, const MiWeight *parts, int n, const void *options, void *dst, MiOperand *out, GError **error)
{
    uint8_t *codes = dst;
    size_t   all;
    int64_t  rows, first = 0;

    (void)options;
    if (!fp8_codes(parts, n, MULTIPLE, &all, &rows, error))
        return false;
    char *scales = (char *)dst + all;
    for (int i = 0; i < n; i++) {
        const int64_t of_part = parts[i].shape[0], in = parts[i].shape[1];
        if (!keep_blocks(ctx, &parts[i], codes, (float *)(void *)scales, error))
            return false;
        out[i] = (MiOperand){ .tensor = { .data = codes, .dtype = MI_F8, .ndim = 2, .shape = { of_part, in } },
                              .layout = "fp8.blocks", .scales = scales, .ext = &blocks_form, .first_row = first };
        first += of_part;
        codes += of_part * in;
        scales += fp8_aligned((size_t)(blocks_of(of_part) * blocks_of(in)) * sizeof(float));
    }
    return true;
}

/* ---- run -------------------------------------------------------------------- */

typedef struct {
    MiGemvPlan few;     /* rows 0: not possible */
    MiGemm    *gemm[2]; /* of W; where it becomes plain, of a piece of its rows, and of the last */
    int64_t    piece;
} Part;

typedef struct {
    size_t codes; /* bytes of those of x, or of a plain piece */
    int    n;
    Part   part[];
} State;

static void release(void *state)
{
    State *s = state;
    for (int i = 0; i < s->n; i++)
        for (int k = 0; k < 2; k++)
            mi_cuda_gemm_free(s->part[i].gemm[k]);
    g_free(s);
}

static bool in_blocks(const MiArgs *a) { return strcmp(a->weight[0].layout, "fp8.blocks") == 0; }

static bool becomes_plain(const MiArgs *a) { return in_blocks(a) || a->weight[0].tensor.shape[0] % MULTIPLE; }

static bool prepare_part(Part *p, MiContext *ctx, const MiArgs *a, GError **error)
{
    const MiTensor *x = &a->in[0], *y = &a->out[0], *w = &a->weight[0].tensor;
    const int64_t   in = w->shape[1], out = w->shape[0];

    p->few = (MiGemvPlan){ .kind = MI_GEMV_PLAIN, .dtype = x->dtype, .rows = MI_GEMV_FEW_ROWS, .in = (int32_t)in, .out = (int32_t)out,
                           .form = in_blocks(a) ? blocks_form : rows_form };
    if (x->stride[0] != in || mi_cuda_gemv_plan(&p->few) != 0)
        p->few.rows = 0;
    if (y->shape[0] <= p->few.rows)
        return true;
    if (!becomes_plain(a))
        return product_ok(mi_cuda_gemm_new(&p->gemm[0], out, in, in, y->stride[0], MI_F8, y->dtype), error);
    p->piece = MIN(MAX((int64_t)(PLAIN / ((size_t)in * mi_dtype_size(ctx->dtype))) / MI_FP8_BLOCK, 1) * MI_FP8_BLOCK, out);
    return product_ok(mi_cuda_gemm_new(&p->gemm[0], p->piece, in, x->stride[0], y->stride[0], ctx->dtype, y->dtype), error) &&
           (out % p->piece == 0 ||
            product_ok(mi_cuda_gemm_new(&p->gemm[1], out % p->piece, in, x->stride[0], y->stride[0], ctx->dtype, y->dtype), error));
}

/* The parts have one input: it is rounded once. */
static bool prepare(MiContext *ctx, const MiCall *call, void **state, size_t *workspace, GError **error)
{
    const int64_t rows = call->at[0].in[0].shape[0], in = call->at[0].weight[0].tensor.shape[1];
    State        *s = g_malloc0(sizeof *s + (size_t)call->n * sizeof *s->part);
    bool          many = false;

    s->n = call->n;
    for (int i = 0; i < call->n; i++) {
        Part *p = &s->part[i];
        if (!prepare_part(p, ctx, &call->at[i], error)) {
            release(s);
            return false;
        }
        many = many || p->gemm[0];
        s->codes = MAX(s->codes, becomes_plain(&call->at[i]) ? (size_t)(p->piece * in) * mi_dtype_size(ctx->dtype) : (size_t)(rows * in));
    }
    s->codes = fp8_aligned(s->codes);
    *state = s;
    *workspace = many ? MI_GEMM_WORKSPACE + s->codes + fp8_aligned((size_t)rows * sizeof(float)) : 0;
    return true;
}

static bool run_few(Part *p, MiContext *ctx, const MiArgs *a, GError **error)
{
    p->few.scales[0] = a->weight[0].scales;
    return cuda_ok(mi_cuda_gemv(ctx->stream, &p->few, a->in[0], a->weight[0].tensor.data, a->weight[1].tensor.data, a->out[0]), error);
}

static bool run_plain(const Part *p, MiContext *ctx, const MiArgs *a, char *workspace, GError **error)
{
    const MiTensor *x = &a->in[0], *y = &a->out[0], *w = &a->weight[0].tensor;
    void           *plain = workspace + MI_GEMM_WORKSPACE;
    const int64_t   out = w->shape[0];

    for (int64_t at = 0; at < out; at += p->piece) {
        const int64_t n = MIN(p->piece, out - at);
        if (!cuda_ok(mi_cuda_fp8_plain(ctx->stream, w->data, a->weight[0].scales, in_blocks(a) ? MI_FP8_BLOCK : 1, at, n, w->shape[1],
                                       plain, ctx->dtype), error) ||
            !product_ok(mi_cuda_gemm(p->gemm[n < p->piece], ctx->stream, x->data, plain, NULL,
                                     (char *)y->data + (size_t)at * mi_dtype_size(y->dtype), y->shape[0], workspace), error))
            return false;
    }
    return true;
}

static bool run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    State          *s = state;
    const MiTensor  x = mi_linear_rows(&call->at[0]);
    char           *workspace = call->workspace;
    uint8_t        *codes = (uint8_t *)workspace + MI_GEMM_WORKSPACE;
    float          *scales = (float *)(void *)(codes + s->codes);
    bool            rounded = false;

    for (int i = 0; i < call->n; i++) {
        Part           *p = &s->part[i];
        const MiArgs   *a = &call->at[i];
        const MiTensor *y = &a->out[0];
        const float    *bias = a->weight[1].tensor.data;
        if (y->shape[0] <= p->few.rows) {
            if (!run_few(p, ctx, a, error))
                return false;
            continue;
        }
        if (becomes_plain(a)) {
            rounded = false; /* its rows were where the plain ones are */
            if (!run_plain(p, ctx, a, workspace, error))
                return false;
        } else {
            if (!rounded && !cuda_ok(mi_cuda_fp8_rows(ctx->stream, x, codes, scales), error))
                return false;
            rounded = true;
            if (!product_ok(mi_cuda_gemm_scaled(p->gemm[0], ctx->stream, codes, scales, a->weight[0].tensor.data, a->weight[0].scales,
                                                NULL, y->data, y->shape[0], workspace), error))
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
    .head = "auto", .head_and_last = true,
};
static const MiLinear fp8_rows = {
    .struct_size = sizeof fp8_rows, .formats = of_rows, .layout = "fp8", .rank = 10, .joins = true, .bytes = bytes, .pack = pack, .op = &op,
};
static const MiLinear fp8_blocks = {
    .struct_size = sizeof fp8_blocks, .formats = of_blocks, .layout = "fp8.blocks", .rank = 10, .joins = true, .bytes = blocks_bytes,
    .pack = pack_blocks, .op = &op,
};

MI_PLUGIN("fp8_cuda", "0.1", "Projections as E4M3 on a card", MI_FEATURE_LINEAR("fp8", "cuda", &fp8, options_table),
          MI_FEATURE_LINEAR("fp8_rows", "cuda", &fp8_rows, NULL), MI_FEATURE_LINEAR("fp8_blocks", "cuda", &fp8_blocks, NULL));
