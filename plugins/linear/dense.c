/* dense.c - projections on f32, f16 and bf16 weights as they lie in the file, f32 in and out.
 *
 * Of those nothing is copied: out[i].tensor is the mapped weight.  What a checkpoint stores
 * quantised is decoded to f32 once, eight times what four bits take.  Sums are f32, in an
 * order that neither rows nor threads change (kernels/cpu/dense.h). */
#include <cpu/dense.h>
#include <miniinfer/plugin.h>
#include <stdatomic.h>
#include <string.h>

enum {
    PIECE = 64 << 10,  /* bytes of W that are worth an atomic addition when x has few rows */
    FEW_ROWS = 8,
    OUT_ROWS = 64,     /* of W in a piece when x has many rows */
    CACHED = 128 << 10 /* elements of x that stay in the second-level cache: 512 KB */
};

typedef struct { const char *isa; } Options;
static const MiOption option_table[] = {
    MI_CHOICE(Options, isa, "auto", "auto, avx512, avx2, scalar", "instruction set of the inner loops"),
    MI_OPTION_END,
};

static const char *const formats[] = { "f32", "f16", "bf16", "gptq", "awq", "ct_int4", "ct_int8", "fp8", "fp8_blocks", "fp8_groups", NULL };
static const MiDType     dtypes[] = { MI_F32, MI_F16, MI_BF16 };
enum { N_PLAIN = 3 };

static void on_all_threads(MiContext *ctx, void (*fn)(void *, int, int), void *arg)
{
    if (MI_HAS(ctx->backend, parallel))
        ctx->backend->parallel(ctx->device, fn, arg);
    else
        fn(arg, 0, 1);
}

/* ---- load ------------------------------------------------------------------- */

/* Of MiDenseType; -1 with *error. */
static int type_of(const MiWeight *w, GError **error)
{
    int   type = 0;
    gsize bytes;

    while (type < N_PLAIN && strcmp(formats[type], w->format) != 0)
        type++;
    if (type == N_PLAIN || w->ndim != 2 || w->shape[0] <= 0 || w->shape[1] <= 0) {
        g_set_error(error, MI_ERROR, MI_ERROR_MODEL, "%s: '%s' of %d dimensions; linear 'dense' reads f32, f16, bf16 of 2",
                    w->name, w->format, w->ndim);
        return -1;
    }
    if (!g_size_checked_mul(&bytes, (gsize)w->shape[0], (gsize)w->shape[1]) ||
        !g_size_checked_mul(&bytes, bytes, mi_dtype_size(dtypes[type])) || bytes > w->bytes) {
        g_set_error(error, MI_ERROR, MI_ERROR_MODEL, "%s: the file holds %zu bytes, its shape needs more", w->name, w->bytes);
        return -1;
    }
    return type;
}

static bool bytes(const MiWeight *parts, int n, MiDType dtype, const void *options, size_t *total, GError **error)
{
    (void)dtype;
    const Options *o = options;

    *total = 0;
    if (!mi_dense_isa(o && o->isa ? o->isa : "auto")) {
        g_set_error(error, MI_ERROR, MI_ERROR_CONFIG, "[linear.dense] isa = %s: this machine has no such instruction set; "
                    "set it to auto", o->isa);
        return false;
    }
    for (int i = 0; i < n; i++) {
        gsize one;
        if (!parts[i].quant && type_of(&parts[i], error) < 0)
            return false;
        if (parts[i].quant && (!g_size_checked_mul(&one, (gsize)parts[i].shape[0], (gsize)parts[i].shape[1]) ||
                               !g_size_checked_mul(&one, one, sizeof(float)) || !g_size_checked_add(total, *total, one))) {
            g_set_error(error, MI_ERROR, MI_ERROR_MODEL, "%s: too large for this machine", parts[i].name);
            return false;
        }
    }
    return true;
}

static bool pack(MiContext *ctx, const MiWeight *parts, int n, const void *options, void *dst, MiOperand *out,
                 GError **error)
{
    const Options *o = options;
    float         *decoded = dst;
    int64_t        row = 0;

    for (int i = 0; i < n; row += parts[i++].shape[0]) {
        const int type = parts[i].quant ? 0 : type_of(&parts[i], error);
        if (type < 0 || (parts[i].quant && !ctx->put(ctx, decoded, MI_F32, &parts[i], error)))
            return false;
        out[i] = (MiOperand){
            .tensor = { .data = parts[i].quant ? decoded : (void *)(uintptr_t)parts[i].data, .dtype = dtypes[type], .ndim = 2,
                        .shape = { parts[i].shape[0], parts[i].shape[1] }, .stride = { parts[i].shape[1], 1 } },
            .layout = "plain", .ext = mi_dense_isa(o && o->isa ? o->isa : "auto"), .first_row = row,
        };
        decoded += parts[i].quant ? parts[i].shape[0] * parts[i].shape[1] : 0;
    }
    return true;
}

/* ---- the op ----------------------------------------------------------------- */

typedef struct {
    const MiCall *call;
    int64_t       rows, span, n_spans; /* rows of x in a piece; how many such */
    int64_t       n_pieces;
    atomic_llong  next;
} Work;

/* Rows of W in a piece, a multiple of the kernels' tile of 4. */
static int64_t out_rows(const Work *w, const MiTensor *weight)
{
    const int64_t row = weight->shape[1] * (int64_t)mi_dtype_size(weight->dtype);
    return w->rows > FEW_ROWS ? OUT_ROWS : MAX(4, PIECE / row / 4 * 4);
}

static int64_t pieces_of(const Work *w, const MiTensor *weight)
{
    const int64_t n = out_rows(w, weight);
    return (weight->shape[0] + n - 1) / n * w->n_spans;
}

static void multiply(const Work *w, const MiArgs *at, int64_t piece)
{
    const MiTensor   *weight = &at->weight[0].tensor, *x = &at->in[0], *y = &at->out[0];
    const MiDenseIsa *isa = at->weight[0].ext;
    const float      *bias = at->weight[1].tensor.data;
    const int         type = weight->dtype == MI_F32 ? MI_DENSE_F32 : weight->dtype == MI_F16 ? MI_DENSE_F16 : MI_DENSE_BF16;
    const int64_t     in = weight->shape[1], n = out_rows(w, weight);
    const int64_t     o = piece / w->n_spans * n, r = piece % w->n_spans * w->span;
    const MiDenseCall c = {
        .w = (const char *)weight->data + o * in * (int64_t)mi_dtype_size(weight->dtype),
        .x = (const float *)x->data + r * x->stride[0], .x_stride = x->stride[0],
        .in = in, .out = MIN(n, weight->shape[0] - o), .rows = MIN(w->span, w->rows - r),
        .y = (float *)y->data + r * y->stride[0] + o, .y_stride = y->stride[0], .bias = bias ? bias + o : NULL,
    };

    isa->run[type](&c);
}

static void pieces(void *arg, int part, int n_parts)
{
    Work *w = arg;

    (void)part, (void)n_parts;
    for (int64_t piece; (piece = atomic_fetch_add_explicit(&w->next, 1, memory_order_relaxed)) < w->n_pieces;) {
        const MiArgs *at = w->call->at;
        for (; piece >= pieces_of(w, &at->weight[0].tensor); at++)
            piece -= pieces_of(w, &at->weight[0].tensor);
        multiply(w, at, piece);
    }
}

static bool prepare(MiContext *ctx, const MiCall *call, void **state, size_t *workspace, GError **error)
{
    (void)ctx, (void)state, (void)workspace;
    for (int i = 0; i < call->n; i++) {
        if (call->at[i].in[0].dtype == MI_F32 && call->at[i].out[0].dtype == MI_F32)
            continue;
        g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED,
                    "linear 'dense' on the CPU reads and writes f32 only; set [engine] dtype = fp32");
        return false;
    }
    return true;
}

static bool run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    const int64_t rows = call->at[0].in[0].shape[0], in = call->at[0].weight[0].tensor.shape[1];
    Work          w = { .call = call, .rows = rows, .span = MAX(6, MIN(96, CACHED / in / 6 * 6)) };

    (void)state, (void)error;
    w.n_spans = (rows + w.span - 1) / w.span;
    for (int i = 0; i < call->n; i++)
        w.n_pieces += pieces_of(&w, &call->at[i].weight[0].tensor);
    on_all_threads(ctx, pieces, &w);
    return true;
}

static const MiOp op = {
    .struct_size = sizeof op, .n_in = 1, .n_out = 1, .n_weights = 1, .prepare = prepare, .run = run,
    .batch_invariant = true,
};

static const MiLinear dense = {
    .struct_size = sizeof dense, .formats = formats, .layout = "plain", .rank = 10, .joins = true,
    .bytes = bytes, .pack = pack, .op = &op,
};

MI_PLUGIN("linear_dense", "0.1", "Projections on f32, f16 and bf16 weights as they lie in the file",
          MI_FEATURE_LINEAR("dense", "cpu", &dense, option_table));
