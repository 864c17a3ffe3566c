/* quant_cuda.c - matrices of 4 to 8 bit on a card, rounded while they are loaded or, in stored_cuda.c, as files have them.
 *
 * The card rounds them, a piece of rows at a time: what is there of a matrix in more bits is
 * never more than PIECE bytes.  Products of up to 64 rows read the packed weights
 * as they lie; of more rows, a piece of the matrix is made plain again for each product of
 * cuBLASLt's, as much as the second-level cache holds. */
#include "quant_cuda.h"
#include "stored_cuda.h"

#include <cuda/gemm.h>
#include <cuda/gemv.h>
#include <cuda/quant_rows.h>
#include <cuda/refused.h>
#include <cuda_runtime_api.h>
#include <linear/tune_cuda.h>
#include <miniinfer/plugin.h>
#include <string.h>

enum { PIECE = 64 << 20, PLAIN = 32 << 20, MAX_SIDE = 1 << 24 };

const char *const quant_cuda_formats[] = {
    "f32",  "f16",  "bf16", "q4_0", "q4_1", "q5_0",   "q5_1",   "q8_0",
    "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl", "iq4_xs", NULL,
};

static bool cuda_ok(int e, GError **error)
{
    if (e)
        g_set_error(error, MI_ERROR, mi_cuda_refused(e) ? MI_ERROR_UNSUPPORTED : MI_ERROR_DEVICE,
                    "launching the kernel: %s", cudaGetErrorString((cudaError_t)e));
    return e == 0;
}

/* ---- load ------------------------------------------------------------------- */

bool quant_cuda_bytes(const MiWeight *parts, int n, MiQuantForm form, size_t *bytes, GError **error)
{
    *bytes = 0;
    for (int i = 0; i < n; i++) {
        const MiWeight *w = &parts[i];
        if (w->ndim != 2 || w->shape[0] <= 0 || w->shape[1] <= 0 || w->shape[0] > MAX_SIDE || w->shape[1] > MAX_SIDE ||
            w->bytes % (size_t)w->shape[0]) {
            g_set_error(error, MI_ERROR, MI_ERROR_MODEL,
                        "%s: %d dimensions, %" G_GINT64_FORMAT
                        " rows in %zu bytes; a matrix of whole rows, of %d at most a side, is wanted",
                        w->name, w->ndim, w->shape[0], w->bytes, MAX_SIDE);
            return false;
        }
        *bytes += (size_t)mi_quant_bytes(form, w->shape[0], w->shape[1]); /* 2^49 at most each */
    }
    return true;
}

/* As it is stored where the card reads that, else f32: the weight is rounded once. */
static MiDType dtype_of(const MiWeight *w)
{
    return strcmp(w->format, "bf16") == 0 ? MI_BF16 : strcmp(w->format, "f16") == 0 ? MI_F16 : MI_F32;
}

/* Rows that are handled at once: whole records. */
static int64_t piece_of(size_t limit, size_t row, int64_t rows)
{
    const int64_t fit = (int64_t)(limit / row) / MI_QUANT_ROWS * MI_QUANT_ROWS;
    return MIN(MAX(fit, MI_QUANT_ROWS), rows);
}

static bool pack_one(MiContext *ctx, const MiWeight *w, MiQuantForm form, char *dst, GError **error)
{
    const int64_t rows = w->shape[0], in = w->shape[1];
    const MiDType dtype = dtype_of(w);
    const size_t  plain = (size_t)in * mi_dtype_size(dtype), stored = w->bytes / (size_t)rows;
    const int64_t piece = piece_of(PIECE, plain, rows);
    void         *temporary = ctx->alloc(ctx, MI_MEM_DEVICE, (size_t)piece * plain, error);
    bool          ok = temporary != NULL;

    for (int64_t at = 0; at < rows && ok; at += piece) {
        MiWeight some = *w;
        some.shape[0] = MIN(piece, rows - at);
        some.data = (const char *)w->data + (size_t)at * stored;
        some.bytes = (size_t)some.shape[0] * stored;
        ok = ctx->put(ctx, temporary, dtype, &some, error) &&
             cuda_ok(mi_cuda_quantise(ctx->stream, form, temporary, dtype, some.shape[0], in,
                                      dst + at / MI_QUANT_ROWS * mi_quant_record(form, in)),
                     error);
    }
    ctx->free(ctx, MI_MEM_DEVICE, temporary);
    return ok;
}

bool quant_cuda_pack(MiContext *ctx, const MiWeight *parts, int n, const MiQuantForm *form, const char *layout,
                     void *dst, MiOperand *out, GError **error)
{
    char   *at = dst;
    int64_t row = 0;

    for (int i = 0; i < n; i++) {
        const int64_t rows = parts[i].shape[0], in = parts[i].shape[1];
        if (!pack_one(ctx, &parts[i], *form, at, error))
            return false;
        out[i] = (MiOperand){.tensor = {.data = at, .dtype = ctx->dtype, .ndim = 2, .shape = {rows, in}},
                             .layout = layout,
                             .ext = form,
                             .first_row = row};
        row += rows;
        at += mi_quant_bytes(*form, rows, in);
    }
    return true;
}

/* ---- run -------------------------------------------------------------------- */

typedef struct {
    MiGemm    *gemm[2]; /* of a piece of W's rows, and of the last, which may be smaller */
    int64_t    piece;
    MiGemvPlan few; /* rows 0: not possible; its form once the weight is there */
} Part;

typedef struct {
    size_t plain; /* bytes of the workspace's second part */
    int    n;
    Part   part[];
} State;

static void release(void *state)
{
    State *s = state;
    for (int i = 0; i < s->n; i++) {
        mi_cuda_gemm_free(s->part[i].gemm[0]);
        mi_cuda_gemm_free(s->part[i].gemm[1]);
    }
    g_free(s);
}

static bool in_one_piece(const MiTensor *x, int64_t in) { return x->stride[0] == in && x->stride[x->ndim - 1] == 1; }

/* What the form will be at the worst. */
static MiQuantForm largest(const MiArgs *a)
{
    const char *layout = a->weight[0].layout;
    MiQuantForm form = {.bits = 8};

    if (strcmp(layout, "int4") == 0)
        form = (MiQuantForm){.bits = 4, .group = 32, .zeros = true};
    else if (strcmp(layout, "stored") == 0)
        (void)stored_cuda_form(a->node->weight[0], &form, NULL); /* it was packed */
    return form;
}

static bool prepare_part(Part *p, MiContext *ctx, const MiArgs *a, GError **error)
{
    const MiTensor *x = &a->in[0], *y = &a->out[0], *w = &a->weight[0].tensor;
    const int64_t   in = w->shape[1], rows = w->shape[0];

    p->piece = piece_of(PLAIN, (size_t)in * mi_dtype_size(ctx->dtype), rows);
    const int64_t sizes[] = {p->piece, rows % p->piece};
    for (int k = 0; k < 2 && sizes[k]; k++) {
        const int status =
            mi_cuda_gemm_new(&p->gemm[k], sizes[k], in, x->stride[0], y->stride[0], ctx->dtype, y->dtype);
        if (status) {
            g_set_error(error, MI_ERROR, MI_ERROR_DEVICE, "cuBLASLt: %s", mi_cuda_gemm_error(status));
            return false;
        }
    }
    p->few = (MiGemvPlan){.kind = MI_GEMV_PLAIN,
                          .dtype = ctx->dtype,
                          .rows = MI_GEMV_FEW_ROWS,
                          .in = (int32_t)in,
                          .out = (int32_t)rows,
                          .form = largest(a)};
    if (!in_one_piece(x, in) || mi_cuda_gemv_plan(&p->few) != 0)
        p->few.rows = 0;
    return true;
}

/* Of x for tensor cores, in whatever form the weights will have. */
static size_t split_bytes(const MiArgs *a)
{
    const int64_t rows = MIN(a->out[0].shape[0], MI_QUANT_MOST);
    return mi_cuda_quant_split_bytes((MiQuantForm){.bits = 4, .group = 32, .zeros = true}, rows, a->weight[0].tensor.shape[1]);
}

static bool prepare(MiContext *ctx, const MiCall *call, void **state, size_t *workspace, GError **error)
{
    State *s = g_malloc0(sizeof *s + (size_t)call->n * sizeof *s->part);

    s->n = call->n;
    for (int i = 0; i < call->n; i++) {
        const int64_t in = call->at[i].weight[0].tensor.shape[1];
        if (!prepare_part(&s->part[i], ctx, &call->at[i], error)) {
            release(s);
            return false;
        }
        s->plain = MAX(s->plain, (size_t)(s->part[i].piece * in) * mi_dtype_size(ctx->dtype));
    }
    for (int i = 0; i < call->n; i++)
        tune_cuda(ctx, s->part[i].gemm[0], MI_GEMV_FEW_ROWS, call->at[i].out[0].shape[0], false);
    *state = s;
    for (int i = 0; i < call->n; i++)
        if (call->at[i].out[0].shape[0] > s->part[i].few.rows)
            *workspace = MAX(*workspace, MAX(MI_GEMM_WORKSPACE + s->plain, split_bytes(&call->at[i])));
    return true;
}

static bool run_many(Part *p, MiContext *ctx, const MiCall *call, const MiArgs *a, GError **error)
{
    const MiTensor *x = &a->in[0], *y = &a->out[0], *w = &a->weight[0].tensor;
    void           *plain = (char *)call->workspace + MI_GEMM_WORKSPACE;
    const float    *bias = a->weight[1].tensor.data;
    const int64_t   rows = w->shape[0];

    for (int64_t at = 0; at < rows; at += p->piece) {
        const int64_t n = MIN(p->piece, rows - at);
        MiGemm       *g = p->gemm[n < p->piece];
        char         *to = (char *)y->data + (size_t)at * mi_dtype_size(y->dtype);
        if (!cuda_ok(mi_cuda_dequantise(ctx->stream, *(const MiQuantForm *)a->weight[0].ext, w->data, at, n,
                                        w->shape[1], plain, ctx->dtype),
                     error))
            return false;
        const int status = mi_cuda_gemm(g, ctx->stream, x->data, plain, NULL, to, y->shape[0], call->workspace);
        if (status) {
            g_set_error(error, MI_ERROR, MI_ERROR_DEVICE, "cuBLASLt: %s", mi_cuda_gemm_error(status));
            return false;
        }
    }
    return !bias || cuda_ok(mi_cuda_add_bias(ctx->stream, *y, bias), error);
}

/* All parts, which read the same x, in one form. */
static bool tensor_cores_take(MiContext *ctx, const MiCall *call)
{
    for (int i = 0; i < call->n; i++) {
        const MiArgs   *a = &call->at[i];
        const MiTensor *w = &a->weight[0].tensor;
        if (ctx->dtype != MI_BF16 || a->out[0].stride[1] != 1 || a->weight[0].ext != call->at[0].weight[0].ext ||
            !in_one_piece(&a->in[0], w->shape[1]) ||
            mi_cuda_quant_rows_takes(*(const MiQuantForm *)a->weight[0].ext, a->out[0].shape[0], w->shape[1],
                                     w->shape[0]))
            return false;
    }
    return true;
}

static bool run_rows(MiContext *ctx, const MiCall *call, GError **error)
{
    const MiQuantForm form = *(const MiQuantForm *)call->at[0].weight[0].ext;
    const MiTensor    x = mi_linear_rows(&call->at[0]);
    bool              ok = cuda_ok(mi_cuda_quant_split(ctx->stream, form, x, call->workspace), error);

    for (int i = 0; i < call->n && ok; i++) {
        const MiArgs *a = &call->at[i];
        ok = cuda_ok(mi_cuda_quant_rows(ctx->stream, form, x, call->workspace, a->weight[0].tensor.data,
                                        a->weight[1].tensor.data, a->out[0]),
                     error);
    }
    return ok;
}

static bool run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    State        *s = state;
    const int64_t rows = call->at[0].out[0].shape[0];

    if (rows > MI_GEMV_FEW_ROWS && rows <= MI_QUANT_MOST && tensor_cores_take(ctx, call))
        return run_rows(ctx, call, error);
    for (int i = 0; i < call->n; i++) {
        Part         *p = &s->part[i];
        const MiArgs *a = &call->at[i];
        const bool    few = a->out[0].shape[0] <= p->few.rows;
        if (few && (!cuda_ok(mi_cuda_gemv_form(&p->few, a->weight[0].ext), error) ||
                    !cuda_ok(mi_cuda_gemv(ctx->stream, &p->few, a->in[0], a->weight[0].tensor.data,
                                          a->weight[1].tensor.data, a->out[0]),
                             error)))
            return false;
        if (!few && !run_many(p, ctx, call, a, error))
            return false;
    }
    return true;
}

const MiOp quant_cuda_op = {
    .struct_size = sizeof quant_cuda_op,
    .n_in = 1,
    .n_out = 1,
    .n_weights = 1,
    .prepare = prepare,
    .run = run,
    .release = release,
};

MI_PLUGIN("quant_cuda", "0.1", "Matrices of 4 and 8 bit on a card",
          MI_FEATURE_LINEAR("int4", "cuda", &int4_cuda, int4_cuda_options),
          MI_FEATURE_LINEAR("int8", "cuda", &int8_cuda, int8_cuda_options),
          MI_FEATURE_LINEAR("blocks", "cuda", &blocks_cuda, NULL),
          MI_FEATURE_LINEAR("packed", "cuda", &packed_cuda, NULL));
