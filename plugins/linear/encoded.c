#include "encoded.h"
#include <cpu/blocks.h>
#include <cpu/encode.h>
#include <stdatomic.h>
#include <string.h>

enum { MAX_IN = 1 << 24 /* columns: all sizes below stay far from 2^63, sums of a row of x below 2^31 */ };

const char *const mi_encoded_formats[] = {
    "f32", "f16", "bf16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl", "iq4_xs",
    NULL,
};

MiPanelX mi_encoded_x(const char *activations)
{
    return strcmp(activations, "int8") == 0 ? MI_X_ROW : strcmp(activations, "none") == 0 ? MI_X_WIDE : MI_X_BLOCK;
}

const MiPanelKernel *mi_encoded_kernel(const char *linear, const MiWeight *w, const char *format, const char *group, const char *isa, MiPanelX x,
                                       GError **error)
{
    g_autofree char     *name = g_strdup_printf("%s_%s", format, group);
    const MiPanelKernel *k = mi_panel_kernel(name, isa, x);

    if (!k)
        g_set_error(error, MI_ERROR, MI_ERROR_CONFIG,
                    "%s: [linear.%s] isa = %s: this machine has no such instruction set; set it to auto", w->name, linear, isa);
    return k;
}

static bool check(const MiWeight *w, GError **error)
{
    const MiBlockFormat *f = mi_block_format(w->format);
    gsize                bytes;

    if (!f || w->ndim != 2 || w->shape[0] <= 0 || w->shape[0] > INT32_MAX || w->shape[1] <= 0 || w->shape[1] > MAX_IN ||
        w->shape[1] % f->values) {
        g_set_error(error, MI_ERROR, MI_ERROR_MODEL,
                    "%s: '%s' of %d dimensions, %" G_GINT64_FORMAT " columns; 2 are wanted and a multiple of %d, at most %d",
                    w->name, w->format, w->ndim, w->ndim == 2 ? w->shape[1] : 0, f ? f->values : 1, MAX_IN);
        return false;
    }
    if (!g_size_checked_mul(&bytes, (gsize)w->shape[0], (gsize)(w->shape[1] / f->values) * (gsize)f->bytes) || bytes > w->bytes) {
        g_set_error(error, MI_ERROR, MI_ERROR_MODEL, "%s: the file holds %zu bytes, its shape needs more", w->name, w->bytes);
        return false;
    }
    return true;
}

bool mi_encoded_bytes(MiKernelOf *kernel_of, const MiWeight *parts, int n, const void *options, size_t *total, GError **error)
{
    for (int i = 0; i < n; i++)
        if (!check(&parts[i], error))
            return false;
    return mi_panel_op_bytes(kernel_of, parts, n, options, total, error);
}

typedef struct {
    const MiWeight      *weight;
    const MiPanelKernel *kernel;
    bool                 fit;
    uint8_t             *dst;
    int64_t              n;
    atomic_llong         next;
    atomic_bool          no_memory, no_number;
} Encoding;

static void encode_panels(void *arg, int part, int n_parts)
{
    Encoding         *e = arg;
    const MiWeight   *w = e->weight;
    const int64_t     step = MAX(1, e->n / (8 * n_parts));
    g_autofree float *scratch = g_try_new(float, (gsize)mi_panel_scratch(w->shape[1]));

    (void)part;
    if (!scratch) {
        e->no_memory = true;
        return;
    }
    for (int64_t i; (i = atomic_fetch_add(&e->next, step)) < e->n;)
        if (!mi_panel_encode(e->kernel, w->format, e->fit, w->data, w->shape[0], w->shape[1], i, MIN(i + step, e->n), e->dst,
                             scratch))
            e->no_number = true;
}

bool mi_encoded_pack(MiKernelOf *kernel_of, bool fit, MiContext *ctx, const MiWeight *parts, int n, const void *options,
                     void *dst, MiOperand *out, GError **error)
{
    uint8_t *to = dst;
    int64_t  row = 0;

    for (int i = 0; i < n; i++) {
        const MiWeight *w = &parts[i];
        Encoding        e = { w, kernel_of(w, options, error), fit, to, mi_panels(w->shape[0]), 0, false, false };

        if (!e.kernel || !check(w, error))
            return false;
        mi_on_all_threads(ctx, encode_panels, &e);
        if (e.no_memory) {
            g_set_error(error, MI_ERROR, MI_ERROR_NO_MEMORY, "%s: no memory for a row as f32", w->name);
            return false;
        }
        if (e.no_number) {
            g_set_error(error, MI_ERROR, MI_ERROR_MODEL,
                        "%s holds a value that is not finite, or too large for a scale of half precision", w->name);
            return false;
        }
        out[i] = (MiOperand){
            .tensor = { .data = to, .dtype = MI_I8, .ndim = 2, .shape = { w->shape[0], w->shape[1] } },
            .layout = "panels", .ext = e.kernel, .first_row = row,
        };
        to += e.n * mi_panel_bytes(&e.kernel->shape, w->shape[1]);
        row += w->shape[0];
    }
    return true;
}
