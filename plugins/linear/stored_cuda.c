/* stored_cuda.c - matrices that a file stores in 4 to 8 bit, on a card in their own form.
 *
 * GGUF's blocks, GPTQ, AWQ and compressed-tensors are packed anew by the card, once, while the model loads: codes and
 * scales are the file's, in the order in which the kernels of quant_cuda.c read them.  Columns in GPTQ's act order are
 * sorted by group, and x with them before each product.  Groups: multiples of 32 columns, or rows. */
#include "quant_cuda.h"
#include "stored_cuda.h"

#include <cpu/quants.h>
#include <cuda/quant_stored.h>
#include <cuda/refused.h>
#include <cuda_runtime_api.h>
#include <math.h>
#include <miniinfer/plugin.h>
#include <string.h>

enum { PIECE = 64 << 20 /* bytes of a file that are on the card at once */, ALIGN = 256 };
static const int64_t MAX_SIDE = 1 << 24;

static const char *const block_formats[] = {
    "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q4_k", "q5_k", "q6_k", "iq4_nl", "iq4_xs", NULL,
};
static const char *const quant_formats[] = {"gptq", "awq", "ct_int4", "ct_int8", NULL};

static bool cuda_ok(int e, GError **error)
{
    if (e)
        g_set_error(error, MI_ERROR, mi_cuda_refused(e) ? MI_ERROR_UNSUPPORTED : MI_ERROR_DEVICE,
                    "launching the kernel: %s", cudaGetErrorString((cudaError_t)e));
    return e == 0;
}

static size_t aligned(size_t bytes) { return (bytes + ALIGN - 1) / ALIGN * ALIGN; }

/* ---- what it becomes -------------------------------------------------------------- */

/* Where operands point: one of each form that MiQuant may become. */
#define OF_SCALES(bits, group, zeros)                                                                           \
    {bits, group, zeros, false, false, MI_QUANT_F16}, {bits, group, zeros, false, false, MI_QUANT_BF16},        \
    {bits, group, zeros, false, false, MI_QUANT_F32}
#define OF_ZEROS(bits, group) OF_SCALES(bits, group, false), OF_SCALES(bits, group, true)
static const MiQuantForm quant_forms[] = {
    OF_ZEROS(4, 32), OF_ZEROS(4, 64), OF_ZEROS(4, 128), OF_ZEROS(8, 32), OF_ZEROS(8, 64), OF_ZEROS(8, 128),
    {8, 0, false, false, false, 0}, {8, 0, true, false, false, 0},
};

/* Of part i; those of one pack that differ in nothing but zeros have one form, so that one kernel may read them. */
static const MiQuantForm *form_of(const MiWeight *parts, int n, int i, GError **error)
{
    const MiStoredBlocks *b = mi_stored_blocks(parts[i].format);
    MiQuantForm           form, other;

    if (b)
        return &b->form;
    if (!stored_cuda_form(&parts[i], &form, error))
        return NULL;
    bool zeros = form.zeros && !stored_cuda_symmetric(parts[i].quant);
    for (int k = 0; k < n && !zeros; k++)
        zeros = form.zeros && k != i && stored_cuda_form(&parts[k], &other, NULL) &&
                memcmp(&form, &other, sizeof form) == 0 && !stored_cuda_symmetric(parts[k].quant);
    form.zeros = zeros;
    for (size_t k = 0; k < G_N_ELEMENTS(quant_forms); k++)
        if (memcmp(&quant_forms[k], &form, sizeof form) == 0)
            return &quant_forms[k];
    g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED, "%s: %d bits; 4 and 8 are packed; set [engine] linear = dense",
                parts[i].name, form.bits);
    return NULL;
}

static bool same_order(const MiWeight *a, const MiWeight *b)
{
    if (!stored_cuda_ordered(a) || !stored_cuda_ordered(b))
        return stored_cuda_ordered(a) == stored_cuda_ordered(b);
    return a->quant->in == b->quant->in &&
           memcmp(a->quant->group_of, b->quant->group_of, (size_t)a->quant->in * sizeof(int32_t)) == 0;
}

/* Of part i's own; it may be that of the part before. */
static size_t order_bytes(const MiWeight *parts, int i)
{
    return stored_cuda_ordered(&parts[i]) && (i == 0 || !same_order(&parts[i], &parts[i - 1]))
               ? aligned((size_t)parts[i].shape[1] * sizeof(int32_t))
               : 0;
}

/* In the order of the groups every group is group_in columns, but the last. */
static bool put_order(const MiWeight *w, int32_t *order, GError **error)
{
    const MiQuant      *q = w->quant;
    g_autofree int64_t *counts = g_new(int64_t, q->n_groups);

    mi_quant_order(q, order, counts);
    for (int64_t g = 0; g < q->n_groups; g++)
        if (counts[g] != MIN(q->group_in, q->in - g * q->group_in)) {
            g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED, "%s: group %" G_GINT64_FORMAT " has %" G_GINT64_FORMAT " columns, not %"
                        G_GINT64_FORMAT ", which is not packed; set [engine] linear = dense", w->name, g, counts[g], q->group_in);
            return false;
        }
    return true;
}

/* ---- load --------------------------------------------------------------------------- */

static bool check(const MiWeight *w, GError **error)
{
    const MiStoredBlocks *b = mi_stored_blocks(w->format);

    if (w->ndim != 2 || w->shape[0] <= 0 || w->shape[1] <= 0 || w->shape[0] > MAX_SIDE || w->shape[1] > MAX_SIDE ||
        (b && w->shape[1] % b->values)) {
        g_set_error(error, MI_ERROR, MI_ERROR_MODEL,
                    "%s: '%s' of %d dimensions, %" G_GINT64_FORMAT " columns; 2 are wanted, and a multiple of %d", w->name,
                    w->format, w->ndim, w->ndim == 2 ? w->shape[1] : 0, b ? b->values : 1);
        return false;
    }
    if (b && (uint64_t)(w->shape[0] * (w->shape[1] / b->values) * b->bytes) > w->bytes) {
        g_set_error(error, MI_ERROR, MI_ERROR_MODEL, "%s: the file holds %zu bytes, its shape needs more", w->name, w->bytes);
        return false;
    }
    if (!stored_cuda_ordered(w))
        return true;
    g_autofree int32_t *order = g_new(int32_t, w->shape[1]);
    return put_order(w, order, error);
}

static bool bytes(const MiWeight *parts, int n, MiDType dtype, const void *options, size_t *total, GError **error)
{
    (void)dtype, (void)options;
    *total = 0;
    for (int i = 0; i < n; i++) {
        const MiQuantForm *form = check(&parts[i], error) ? form_of(parts, n, i, error) : NULL;
        if (!form)
            return false;
        *total += aligned((size_t)mi_quant_bytes(*form, parts[i].shape[0], parts[i].shape[1])) + order_bytes(parts, i);
    }
    return true;
}

/* Rows at a time: whole records. */
static bool pack_blocks(MiContext *ctx, const MiWeight *w, const MiStoredBlocks *b, char *dst, GError **error)
{
    const int64_t rows = w->shape[0], in = w->shape[1], row = in / b->values * b->bytes;
    const int64_t piece = CLAMP(PIECE / row / MI_QUANT_ROWS * MI_QUANT_ROWS, MI_QUANT_ROWS, rows);
    void         *there = ctx->alloc(ctx, MI_MEM_DEVICE, (size_t)(piece * row), error);
    bool          ok = there != NULL;

    for (int64_t at = 0; at < rows && ok; at += piece) {
        const int64_t some = MIN(piece, rows - at);
        ok = ctx->upload(ctx, there, (const char *)w->data + at * row, (size_t)(some * row), error) &&
             cuda_ok(mi_cuda_pack_blocks(ctx->stream, b, there, some, in,
                                         dst + at / MI_QUANT_ROWS * mi_quant_record(b->form, in)),
                     error);
    }
    ctx->free(ctx, MI_MEM_DEVICE, there);
    return ok;
}

static int64_t n_scales(const MiQuant *q) { return (q->out + q->group_out - 1) / q->group_out * q->n_groups; }

static int64_t zeros_bytes(const MiQuant *q)
{
    const int64_t per = 32 / q->bits;

    switch (q->zeros_as) {
    case MI_ZEROS_I8:
        return n_scales(q);
    case MI_ZEROS_DOWN:
        return (q->out + per - 1) / per * q->n_groups * 4;
    case MI_ZEROS_ALONG:
    case MI_ZEROS_AWQ:
        return q->n_groups * (q->out / per) * 4;
    default:
        return 0;
    }
}

/* What kernels multiply by is a number. */
static bool finite_scales(const MiQuant *q)
{
    const uint8_t *p = q->scales;

    for (int64_t i = 0; i < n_scales(q); i++) {
        uint16_t half;
        float    x;
        memcpy(&x, p + 4 * (q->scale_dtype == MI_F32 ? i : 0), q->scale_dtype == MI_F32 ? sizeof x : 0);
        memcpy(&half, p + 2 * (q->scale_dtype == MI_F32 ? 0 : i), sizeof half);
        if (q->scale_dtype == MI_F32 ? !isfinite(x) : q->scale_dtype == MI_F16 ? (half & 0x7c00) == 0x7c00 : (half & 0x7f80) == 0x7f80)
            return false;
    }
    return true;
}

static bool pack_quant(MiContext *ctx, const MiWeight *w, MiQuantForm form, const int32_t *order, char *dst, GError **error)
{
    MiQuant      q = *w->quant;
    const size_t scales = (size_t)n_scales(&q) * mi_dtype_size(q.scale_dtype), zeros = (size_t)zeros_bytes(&q);
    char        *there;
    bool         ok;

    if (!finite_scales(&q)) {
        g_set_error(error, MI_ERROR, MI_ERROR_MODEL, "%s: one of its scales is no finite number", w->name);
        return false;
    }
    if (!(there = ctx->alloc(ctx, MI_MEM_DEVICE, aligned(w->bytes) + aligned(scales) + MAX(zeros, 4), error)))
        return false;
    ok = ctx->upload(ctx, there, q.codes, w->bytes, error) &&
         ctx->upload(ctx, there + aligned(w->bytes), q.scales, scales, error) &&
         (!zeros || ctx->upload(ctx, there + aligned(w->bytes) + aligned(scales), q.zeros, zeros, error));
    q.codes = there;
    q.scales = there + aligned(w->bytes);
    q.zeros = there + aligned(w->bytes) + aligned(scales);
    q.group_of = NULL;
    ok = ok && cuda_ok(mi_cuda_pack_quant(ctx->stream, form, &q, order, dst), error);
    ctx->free(ctx, MI_MEM_DEVICE, there);
    return ok;
}

static bool pack(MiContext *ctx, const MiWeight *parts, int n, const void *options, void *dst, MiOperand *out, GError **error)
{
    const int32_t *order = NULL; /* on the card, of the part before */
    char          *at = dst;
    int64_t        row = 0;

    (void)options;
    for (int i = 0; i < n; i++) {
        const MiWeight       *w = &parts[i];
        const MiStoredBlocks *b = mi_stored_blocks(w->format);
        const MiQuantForm    *form = form_of(parts, n, i, error);
        const size_t          own = order_bytes(parts, i);
        char                 *records = at + own;

        if (!form)
            return false;
        if (own) {
            g_autofree int32_t *host = g_new(int32_t, w->shape[1]);
            if (!put_order(w, host, error) || !ctx->upload(ctx, at, host, (size_t)w->shape[1] * sizeof *host, error))
                return false;
            order = (const int32_t *)(const void *)at;
        }
        if (!stored_cuda_ordered(w))
            order = NULL;
        if (!(b ? pack_blocks(ctx, w, b, records, error) : pack_quant(ctx, w, *form, order, records, error)))
            return false;
        out[i] = (MiOperand){.tensor = {.data = records, .dtype = ctx->dtype, .ndim = 2, .shape = {w->shape[0], w->shape[1]}},
                             .layout = "stored",
                             .zeros = order,
                             .ext = form,
                             .first_row = row};
        row += w->shape[0];
        at = records + aligned((size_t)mi_quant_bytes(*form, w->shape[0], w->shape[1]));
    }
    return true;
}

/* ---- run ---------------------------------------------------------------------------- */

/* quant_cuda_op's, of all parts if they read x in one order, else of each. */
typedef struct {
    bool     apart;
    size_t   gathered; /* where in the workspace x in their order lies */
    MiTensor x;        /* that, or as it comes; without data */
    void   **quant;    /* [apart ? n : 1] */
    int      n;
    MiArgs   at[]; /* [n] */
} State;

static void release(void *state)
{
    State *s = state;

    for (int i = 0; i < (s->apart ? s->n : 1); i++)
        if (s->quant[i])
            quant_cuda_op.release(s->quant[i]);
    g_free(s->quant);
    g_free(s);
}

static const MiWeight *weight_of(const MiArgs *a) { return a->node->weight[0]; }

/* Part i, or all. */
static MiCall call_of(State *s, const MiCall *call, int i)
{
    MiCall c = *call;

    c.at = s->at + i;
    c.n = s->apart ? 1 : s->n;
    return c;
}

/* Parts as call has them, but those in another order read x from there. */
static void take(State *s, const MiCall *call)
{
    for (int i = 0; i < s->n; i++) {
        s->at[i] = call->at[i];
        if (stored_cuda_ordered(weight_of(&call->at[i])))
            s->at[i].in = &s->x;
    }
}

static bool prepare(MiContext *ctx, const MiCall *call, void **state, size_t *workspace, GError **error)
{
    State          *s = g_malloc0(sizeof *s + (size_t)call->n * sizeof *s->at);
    const MiTensor *x = &call->at[0].in[0];
    const int64_t   in = call->at[0].weight[0].tensor.shape[1];
    bool            any = false;

    *state = s;
    s->n = call->n;
    for (int i = 0; i < s->n; i++) {
        any = any || stored_cuda_ordered(weight_of(&call->at[i]));
        s->apart = s->apart || !same_order(weight_of(&call->at[0]), weight_of(&call->at[i]));
    }
    s->quant = g_new0(void *, s->apart ? s->n : 1);
    s->x = (MiTensor){.dtype = x->dtype, .ndim = 2, .shape = {x->shape[0], in}, .stride = {in, 1}};
    take(s, call);
    for (int i = 0; i < (s->apart ? s->n : 1); i++) {
        const MiCall c = call_of(s, call, i);
        size_t       bytes = 0;
        if (!quant_cuda_op.prepare(ctx, &c, &s->quant[i], &bytes, error)) {
            release(s);
            *state = NULL;
            return false;
        }
        s->gathered = MAX(s->gathered, aligned(bytes));
    }
    *workspace = any ? s->gathered + (size_t)(x->shape[0] * in) * mi_dtype_size(x->dtype) : s->gathered;
    return true;
}

static bool run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    State         *s = state;
    const int32_t *last = NULL;

    take(s, call);
    s->x.data = (char *)call->workspace + s->gathered;
    s->x.shape[0] = call->at[0].in[0].shape[0];
    for (int i = 0; i < (s->apart ? s->n : 1); i++) {
        const int32_t *order = call->at[i].weight[0].zeros;
        const MiCall   c = call_of(s, call, i);
        if (order && order != last && !cuda_ok(mi_cuda_gather_columns(ctx->stream, call->at[i].in[0], order, s->x), error))
            return false;
        last = order ? order : last;
        if (!quant_cuda_op.run(s->quant[i], ctx, &c, error))
            return false;
    }
    return true;
}

static const MiOp op = {
    .struct_size = sizeof op, .n_in = 1, .n_out = 1, .n_weights = 1, .prepare = prepare, .run = run, .release = release,
};

const MiLinear blocks_cuda = {
    .struct_size = sizeof blocks_cuda, .formats = block_formats, .layout = "stored", .rank = 10, .joins = true,
    .bytes = bytes, .pack = pack, .op = &op,
};
const MiLinear packed_cuda = {
    .struct_size = sizeof packed_cuda, .formats = quant_formats, .layout = "stored", .rank = 20, .joins = true,
    .bytes = bytes, .pack = pack, .op = &op, .head = "auto",
};
