/* fp8.c - projections as E4M3, rounded while loading; products in f32.
 *
 * A scale for each row, for all of a matrix, or for each block of 128 x 128.  x is rounded only if asked for, a scale for each
 * of its rows, as cards do; a few rows of W at a time become f32 again, for as many rows of x as there are.  Slower than formats
 * with integer products: for checkpoints of this kind, and as the yardstick of the one on cards. */
#include "fp8.h"
#include <cpu/dense.h>
#include <cpu/quants.h>
#include <cpu/scaled.h>
#include <miniinfer/plugin.h>

enum { SLAB = 16 /* rows */, PIECE = 32 << 20 /* bytes of f32 */ };

static const char *const formats[] = {
    "f32", "f16", "bf16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl", "iq4_xs",
    "gptq", "awq", "ct_int4", "ct_int8", "fp8", "fp8_blocks", "fp8_groups", NULL,
};

typedef struct {
    const char *scale, *activations;
} Options;
static const Options defaults = { "channel", "none" };

static const MiOption options_table[] = {
    MI_CHOICE(Options, scale, "channel", "channel, tensor, block", "what has one: a row, a matrix, or a block of 128 x 128"),
    MI_CHOICE(Options, activations, "none", "none, fp8",
              "what x is rounded to: none, nothing; fp8: E4M3 with a scale for each row, as a card does for many rows"),
    MI_OPTION_END,
};

/* Rows and columns that share a scale, 0: all of them; whether x is rounded, too. */
typedef struct {
    int64_t rows, columns;
    bool    narrow;
} Form;

static const Form *form_of(const void *options)
{
    static const Form forms[2][3] = { { { 1, 0, false }, { 0, 0, false }, { FP8_BLOCK, FP8_BLOCK, false } },
                                      { { 1, 0, true }, { 0, 0, true }, { FP8_BLOCK, FP8_BLOCK, true } } };
    const Options    *o = options ? options : &defaults;
    const int         scale = strcmp(o->scale, "channel") == 0 ? 0 : strcmp(o->scale, "tensor") == 0 ? 1 : 2;
    return &forms[strcmp(o->activations, "fp8") == 0][scale];
}

static int64_t across(const Form *f, int64_t in) { return f->columns ? (in + f->columns - 1) / f->columns : 1; }
static int64_t down(const Form *f, int64_t rows) { return f->rows ? (rows + f->rows - 1) / f->rows : 1; }

/* ---- load ------------------------------------------------------------------- */

static bool bytes(const MiWeight *parts, int n, MiDType dtype, const void *options, size_t *total, GError **error)
{
    const Form *f = form_of(options);
    int64_t     rows;

    (void)dtype;
    if (!fp8_codes(parts, n, 1, total, &rows, error))
        return false;
    for (int i = 0; i < n; i++)
        *total += fp8_aligned((size_t)(across(f, parts[i].shape[1]) * down(f, parts[i].shape[0])) * sizeof(float));
    return true;
}

static void on_all_threads(MiContext *ctx, void (*fn)(void *, int, int), void *arg)
{
    if (MI_HAS(ctx->backend, parallel))
        ctx->backend->parallel(ctx->device, fn, arg);
    else
        fn(arg, 0, 1);
}

/* Rows of f32, and where they go. */
typedef struct {
    const Form  *form;
    const float *x;
    int64_t      rows, in, first; /* first: of the matrix */
    uint8_t     *codes;           /* of the first */
    float       *scales;          /* of the matrix */
} Piece;

static float *scale_at(const Piece *p, int64_t row, int64_t column)
{
    const Form *f = p->form;
    return p->scales + (f->rows ? (p->first + row) / f->rows : 0) * across(f, p->in) + (f->columns ? column / f->columns : 0);
}

static int64_t run_of(const Piece *p, int64_t column)
{
    return p->form->columns ? MIN(p->form->columns, p->in - column) : p->in;
}

/* A scale holds the largest magnitude until all of its elements are known. */
static void find_largest(const Piece *p)
{
    for (int64_t r = 0; r < p->rows; r++)
        for (int64_t c = 0; c < p->in; c += run_of(p, c)) {
            const float here = mi_largest(p->x + r * p->in + c, NULL, run_of(p, c));
            float      *all = scale_at(p, r, c);
            *all = here > *all || isnan(here) ? here : *all;
        }
}

static void round_rows(void *arg, int part, int n_parts)
{
    const Piece *p = arg;

    for (int64_t r = p->rows * part / n_parts; r < p->rows * (part + 1) / n_parts; r++)
        for (int64_t c = 0; c < p->in; c++)
            p->codes[r * p->in + c] = mi_f32_to_e4m3(p->x[r * p->in + c] / *scale_at(p, r, c));
}

/* E4M3 with a scale for each row already: as it is.  Rounding it once more, to a scale of its largest number that is not the
 * file's, would double the error. */
static bool is_stored_so(const MiWeight *w, const Form *form)
{
    const MiQuant *q = w->quant;
    return q && q->codes_as == MI_CODES_F8 && q->n_groups == 1 && q->group_out == 1 && form->rows == 1 && !form->columns;
}

static bool copy_one(const MiWeight *w, uint8_t *codes, float *scales, GError **error)
{
    memcpy(codes, w->quant->codes, (size_t)(w->shape[0] * w->shape[1]));
    if (mi_quant_scales(w->quant, 0, w->shape[0], scales, NULL))
        return true;
    g_set_error(error, MI_ERROR, MI_ERROR_MODEL, "%s: a scale is no finite number", w->name);
    return false;
}

/* In pieces that end where blocks do, twice: for the scales, for the codes. */
static bool pack_one(MiContext *ctx, const MiWeight *w, const Form *form, uint8_t *codes, float *scales, GError **error)
{
    const int64_t    in = w->shape[1], fit = MAX(PIECE / (in * (int64_t)sizeof(float)) / FP8_BLOCK, 1) * FP8_BLOCK;
    const int64_t    each = w->quant ? w->shape[0] : MIN(fit, w->shape[0]);
    g_autofree float *x = g_try_malloc((size_t)(each * in) * sizeof *x);

    if (!x) {
        g_set_error(error, MI_ERROR, MI_ERROR_NO_MEMORY, "%s: no memory to round it in", w->name);
        return false;
    }
    memset(scales, 0, (size_t)(across(form, in) * down(form, w->shape[0])) * sizeof *scales);
    for (int pass = 0; pass < 2; pass++) {
        for (int64_t at = 0; at < w->shape[0]; at += each) {
            const MiWeight some = fp8_piece(w, at, MIN(each, w->shape[0] - at));
            Piece          p = { form, x, some.shape[0], in, at, codes + at * in, scales };
            if ((pass == 0 || each < w->shape[0]) && !ctx->put(ctx, x, MI_F32, &some, error))
                return false;
            if (pass)
                on_all_threads(ctx, round_rows, &p);
            else
                find_largest(&p);
        }
        for (int64_t i = 0; i < across(form, in) * down(form, w->shape[0]) && !pass; i++)
            scales[i] = scales[i] < 0x1p-100f ? 1 : scales[i] / 448;
    }
    return true;
}

static bool pack(MiContext *ctx, const MiWeight *parts, int n, const void *options, void *dst, MiOperand *out, GError **error)
{
    const Form *f = form_of(options);
    uint8_t    *codes = dst;
    size_t      all;
    int64_t     rows, first = 0;

    if (!fp8_codes(parts, n, 1, &all, &rows, error))
        return false;
    char *scales = (char *)dst + all;
    for (int i = 0; i < n; i++) {
        const int64_t out_rows = parts[i].shape[0], in = parts[i].shape[1];
        const bool ok = is_stored_so(&parts[i], f) ? copy_one(&parts[i], codes, (float *)(void *)scales, error)
                                                   : pack_one(ctx, &parts[i], f, codes, (float *)(void *)scales, error);
        if (!ok)
            return false;
        out[i] = (MiOperand){ .tensor = { .data = codes, .dtype = MI_F8, .ndim = 2, .shape = { out_rows, in } },
                              .layout = "fp8", .scales = scales, .ext = f, .first_row = first };
        first += out_rows;
        codes += out_rows * in;
        scales += fp8_aligned((size_t)(across(f, in) * down(f, out_rows)) * sizeof(float));
    }
    return true;
}

/* ---- the op ----------------------------------------------------------------- */

typedef struct {
    const MiDenseIsa *isa;
    float             value[256]; /* of a code */
    int64_t           in;         /* the most */
    size_t            slabs;      /* bytes of the workspace before x, rounded */
} State;

typedef struct {
    const State  *state;
    const MiCall *call;
    const float  *x; /* all parts' */
    int64_t       x_stride;
} Work;

static void count_threads(void *arg, int i, int n)
{
    if (i == 0)
        *(int *)arg = n;
}

static bool prepare(MiContext *ctx, const MiCall *call, void **state, size_t *workspace, GError **error)
{
    int    threads = 1;
    State *s;

    for (int i = 0; i < call->n; i++)
        if (call->at[i].in[0].dtype != MI_F32 || call->at[i].out[0].dtype != MI_F32) {
            g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED, "linear 'fp8' on the CPU reads and writes f32");
            return false;
        }
    *state = s = g_new0(State, 1);
    s->isa = mi_dense_isa("auto");
    for (int i = 0; i < 256; i++)
        s->value[i] = mi_e4m3_to_f32((uint8_t)i);
    for (int i = 0; i < call->n; i++)
        s->in = MAX(s->in, call->at[i].weight[0].tensor.shape[1]);
    on_all_threads(ctx, count_threads, &threads);
    s->slabs = (size_t)threads * SLAB * (size_t)s->in * sizeof(float);
    *workspace = s->slabs + (size_t)call->at[0].in[0].shape[0] * (size_t)s->in * sizeof(float); /* who rounds is not known yet */
    return true;
}

/* The numbers that E4M3 with a scale for each row makes of x, in f32. */
static void narrow_rows(void *arg, int part, int n_parts)
{
    const Work     *work = arg;
    const MiTensor *x = &work->call->at[0].in[0];
    const int64_t   in = work->x_stride, rows = x->shape[0];

    for (int64_t r = rows * part / n_parts; r < rows * (part + 1) / n_parts; r++) {
        const float *from = (const float *)x->data + r * x->stride[0];
        float       *to = (float *)(uintptr_t)work->x + r * in;
        const float  largest = mi_largest(from, NULL, in), scale = largest < 0x1p-100f ? 1 : largest / 448;
        for (int64_t c = 0; c < in; c++)
            to[c] = work->state->value[mi_f32_to_e4m3(from[c] / scale)] * scale;
    }
}

/* A thread takes slabs of rows of W. */
static void slabs(void *arg, int part, int n_parts)
{
    const Work *work = arg;

    for (int i = 0; i < work->call->n; i++) {
        const MiArgs    *a = &work->call->at[i];
        const MiOperand *w = &a->weight[0];
        const MiTensor  *y = &a->out[0];
        const float     *bias = a->weight[1].tensor.data;
        const int64_t    in = w->tensor.shape[1], rows = w->tensor.shape[0], n = (rows + SLAB - 1) / SLAB;
        float           *plain = (float *)work->call->workspace + part * SLAB * work->state->in;
        for (int64_t s = n * part / n_parts; s < n * (part + 1) / n_parts; s++) {
            const int64_t first = s * SLAB, some = MIN(SLAB, rows - first);
            const Piece   p = { .form = w->ext, .in = in, .scales = (float *)(uintptr_t)w->scales };
            for (int64_t r = 0; r < some; r++)
                for (int64_t c = 0; c < in;) {
                    const uint8_t *codes = (const uint8_t *)w->tensor.data + (first + r) * in;
                    const float    scale = *scale_at(&p, first + r, c);
                    for (const int64_t end = c + run_of(&p, c); c < end; c++)
                        plain[r * in + c] = work->state->value[codes[c]] * scale;
                }
            work->state->isa->run[MI_DENSE_F32](&(MiDenseCall){
                .w = plain, .x = work->x, .x_stride = work->x_stride, .in = in, .out = some, .rows = a->in[0].shape[0],
                .y = (float *)y->data + first, .y_stride = y->stride[0], .bias = bias ? bias + first : NULL });
        }
    }
}

static bool run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    const MiTensor *x = &call->at[0].in[0];
    const State    *s = state;
    Work            work = { s, call, x->data, x->stride[0] };

    (void)error;
    if (((const Form *)call->at[0].weight[0].ext)->narrow) {
        work.x = (const float *)(void *)((char *)call->workspace + s->slabs);
        work.x_stride = call->at[0].weight[0].tensor.shape[1];
        on_all_threads(ctx, narrow_rows, &work);
    }
    on_all_threads(ctx, slabs, &work);
    return true;
}

static const MiOp op = {
    .struct_size = sizeof op, .n_in = 1, .n_out = 1, .n_weights = 1, .prepare = prepare, .run = run, .release = g_free,
    .batch_invariant = true,
};

static const MiLinear fp8 = {
    .struct_size = sizeof fp8, .formats = formats, .layout = "fp8", .rank = -1, .joins = true, .bytes = bytes, .pack = pack, .op = &op,
    .head = "auto", .head_and_last = true,
};

MI_PLUGIN("linear_fp8", "0.1", "Projections as E4M3", MI_FEATURE_LINEAR("fp8", "cpu", &fp8, options_table));
