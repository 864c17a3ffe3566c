/* reference.c - the yardstick: weights decoded to f32 once, plain loops.
 *
 * `[engine] dtype = fp32` chooses it; every other linear is tested against it.
 * A product is summed in one fixed order, whatever the number of threads and
 * of rows: 16 partial f32 sums over CHUNK elements, those added up in f64. */
#include <cpu/blocks.h>
#include <cpu/quants.h>
#include <miniinfer/plugin.h>
#include <stdatomic.h>

enum { LANES = 16, CHUNK = 256 };

static const char *const formats[] = {
    "f32", "f16", "bf16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl", "iq4_xs",
    "gptq", "awq", "ct_int4", "ct_int8", "fp8", "fp8_blocks", "fp8_groups", NULL,
};

static void on_all_threads(MiContext *ctx, void (*fn)(void *, int, int), void *arg)
{
    if (MI_HAS(ctx->backend, parallel))
        ctx->backend->parallel(ctx->device, fn, arg);
    else
        fn(arg, 0, 1);
}

/* ---- load ------------------------------------------------------------------- */

/* Of a weight without MiWeight.quant. */
static const MiBlockFormat *shape_of(const MiWeight *w, GError **error)
{
    const MiBlockFormat *f = mi_block_format(w->format);

    if (!f || w->ndim != 2 || w->shape[0] <= 0 || w->shape[1] <= 0 || w->shape[1] % f->values) {
        g_set_error(error, MI_ERROR, MI_ERROR_MODEL, "%s: linear 'reference' reads matrices of known formats, "
                    "rows a multiple of %d; this is '%s' with %d dimensions, rows of %" G_GINT64_FORMAT,
                    w->name, f ? f->values : 1, w->format, w->ndim, w->ndim > 1 ? w->shape[1] : 0);
        return NULL;
    }
    gsize blocks, bytes;
    if (!g_size_checked_mul(&blocks, (gsize)w->shape[0], (gsize)(w->shape[1] / f->values)) ||
        !g_size_checked_mul(&bytes, blocks, (gsize)f->bytes) || bytes > w->bytes) {
        g_set_error(error, MI_ERROR, MI_ERROR_MODEL, "%s: the file holds %zu bytes, its shape needs more", w->name, w->bytes);
        return NULL;
    }
    return f;
}

static bool bytes(const MiWeight *parts, int n, MiDType dtype, const void *options, size_t *total, GError **error)
{
    (void)dtype;
    (void)options;
    *total = 0;
    for (int i = 0; i < n; i++) {
        gsize one;
        if (!parts[i].quant && !shape_of(&parts[i], error))
            return false;
        if (!g_size_checked_mul(&one, (gsize)parts[i].shape[0], (gsize)parts[i].shape[1]) ||
            !g_size_checked_mul(&one, one, sizeof(float)) || !g_size_checked_add(total, *total, one)) {
            g_set_error(error, MI_ERROR, MI_ERROR_MODEL, "%s: too large for this machine", parts[i].name);
            return false;
        }
    }
    return true;
}

typedef struct {
    const MiBlockFormat *format; /* NULL: quant */
    const MiQuant       *quant;
    const char          *src;
    float               *dst;
    int64_t              rows, cols;
    atomic_bool          failed; /* no memory, or a scale of quant is no finite number */
} Decoding;

static void decode(void *arg, int part, int n_parts)
{
    Decoding       *d = arg;
    const int64_t   from = d->rows * part / n_parts, to = d->rows * (part + 1) / n_parts;
    g_autofree void *scratch = d->format ? NULL : g_try_malloc(mi_quant_scratch(d->quant));

    if (d->format)
        d->format->decode(d->src + from * (d->cols / d->format->values * d->format->bytes), d->dst + from * d->cols,
                          (to - from) * d->cols);
    else if (!scratch ||
             !mi_quant_decode(d->quant, from * d->cols, (to - from) * d->cols, d->dst + from * d->cols, scratch))
        atomic_store(&d->failed, true);
}

static bool pack(MiContext *ctx, const MiWeight *parts, int n, const void *options, void *dst, MiOperand *out,
                 GError **error)
{
    float *p = dst;

    (void)options;
    for (int i = 0; i < n; i++) {
        const MiWeight *w = &parts[i];
        Decoding        d = { w->quant ? NULL : shape_of(w, error), w->quant, w->data, p, w->shape[0], w->shape[1], false };

        if (!d.format && !d.quant)
            return false;
        on_all_threads(ctx, decode, &d);
        if (atomic_load(&d.failed)) {
            g_set_error(error, MI_ERROR, MI_ERROR_MODEL, "%s: one of its scales is no finite number, or memory ran out",
                        w->name);
            return false;
        }
        out[i] = (MiOperand){
            .tensor = { .data = p, .dtype = MI_F32, .ndim = 2, .shape = { d.rows, d.cols }, .stride = { d.cols, 1 } },
            .layout = "plain",
        };
        p += d.rows * d.cols;
    }
    return true;
}

/* ---- the op ----------------------------------------------------------------- */

typedef struct {
    const MiArgs *at;
    int64_t       in, out;
} Work;

/* Four floats; GCC and clang make of it what the machine has. */
typedef float Four __attribute__((vector_size(16), aligned(4), may_alias));

/* x . w; the last elements of a row that is no multiple of LANES one by one. */
static float dot(const float *w, const float *x, int64_t n)
{
    double  sum = 0;
    int64_t k = 0;

    while (k + LANES <= n) {
        const int64_t to = MIN(k + CHUNK, n - n % LANES);
        Four          a = { 0 }, b = { 0 }, c = { 0 }, d = { 0 };
        for (; k < to; k += LANES) {
            const Four *xk = (const Four *)(x + k), *wk = (const Four *)(w + k);
            a += xk[0] * wk[0];
            b += xk[1] * wk[1];
            c += xk[2] * wk[2];
            d += xk[3] * wk[3];
        }
        a = (a + c) + (b + d);
        sum += (double)((a[0] + a[2]) + (a[1] + a[3]));
    }
    for (; k < n; k++)
        sum += (double)x[k] * (double)w[k];
    return (float)sum;
}

static void columns(void *arg, int part, int n_parts)
{
    const Work     *work = arg;
    const MiTensor *x = &work->at->in[0], *y = &work->at->out[0];
    const float    *w = work->at->weight[0].tensor.data, *b = work->at->weight[1].tensor.data;

    for (int64_t o = work->out * part / n_parts; o < work->out * (part + 1) / n_parts; o++)
        for (int64_t r = 0; r < x->shape[0]; r++)
            ((float *)y->data)[r * y->stride[0] + o] =
                dot(w + o * work->in, (const float *)x->data + r * x->stride[0], work->in) + (b ? b[o] : 0);
}

static bool prepare(MiContext *ctx, const MiCall *call, void **state, size_t *workspace, GError **error)
{
    (void)ctx, (void)state, (void)workspace;
    for (int i = 0; i < call->n; i++) {
        if (call->at[i].in[0].dtype == MI_F32 && call->at[i].out[0].dtype == MI_F32)
            continue;
        g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED,
                    "linear 'reference' reads and writes f32 only; set [engine] dtype = fp32");
        return false;
    }
    return true;
}

static bool run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    (void)state, (void)error;
    for (int i = 0; i < call->n; i++) {
        const MiTensor *w = &call->at[i].weight[0].tensor;
        Work            work = { &call->at[i], w->shape[1], w->shape[0] };
        on_all_threads(ctx, columns, &work);
    }
    return true;
}

static const MiOp op = {
    .struct_size = sizeof op, .n_in = 1, .n_out = 1, .n_weights = 1, .prepare = prepare, .run = run,
    .batch_invariant = true,
};

static const MiLinear reference = {
    .struct_size = sizeof reference, .formats = formats, .layout = "plain", .rank = -1, .exact = true,
    .bytes = bytes, .pack = pack, .op = &op,
};

MI_PLUGIN("linear_reference", "0.1", "Projections by plain loops over weights decoded to f32",
          MI_FEATURE_LINEAR("reference", "cpu", &reference, NULL));
