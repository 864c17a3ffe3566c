/* blocks.c - projections on block-quantised weights in their own form, f32 in and out.
 *
 * Weights are repacked once (kernels/cpu/panels.h says how); panel_op.c runs them. */
#include "panel_op.h"
#include <cpu/blocks.h>
#include <stdatomic.h>

enum { MAX_IN = 1 << 24 /* columns: all sizes below stay far from 2^63 */ };

typedef struct { const char *isa; } Options;
static const MiOption option_table[] = {
    MI_CHOICE(Options, isa, "auto", "auto, avx512, avxvnni, avx2, scalar", "instruction set of the inner loops"),
    MI_OPTION_END,
};

static const char *const formats[] = {
    "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl", "iq4_xs", NULL,
};

/* ---- load ------------------------------------------------------------------- */

/* NULL with *error: not a matrix this can read whole. */
static const MiPanelKernel *kernel_of(const MiWeight *w, const void *options, GError **error)
{
    const Options       *o = options;
    const char          *isa = o && o->isa ? o->isa : "auto";
    const MiPanelKernel *k = mi_panel_kernel(w->format, isa, MI_X_BLOCK);
    const MiBlockFormat *f = mi_block_format(w->format);

    if (!k || !f) {
        g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED,
                    "%s: linear 'blocks' cannot read '%s' with instruction set '%s' on this machine; set [linear.blocks] isa = auto",
                    w->name, w->format, isa);
        return NULL;
    }
    if (w->ndim != 2 || w->shape[0] <= 0 || w->shape[0] > INT32_MAX || w->shape[1] <= 0 || w->shape[1] > MAX_IN ||
        w->shape[1] % f->values) {
        g_set_error(error, MI_ERROR, MI_ERROR_MODEL,
                    "%s: '%s' of %d dimensions, %" G_GINT64_FORMAT " columns; linear 'blocks' wants 2 and a multiple of %d",
                    w->name, w->format, w->ndim, w->ndim == 2 ? w->shape[1] : 0, f->values);
        return NULL;
    }
    if ((uint64_t)(w->shape[0] * (w->shape[1] / f->values) * f->bytes) > w->bytes) {
        g_set_error(error, MI_ERROR, MI_ERROR_MODEL, "%s: the file holds %zu bytes, its shape needs more", w->name, w->bytes);
        return NULL;
    }
    return k;
}

static bool bytes(const MiWeight *parts, int n, MiDType dtype, const void *options, size_t *total, GError **error)
{
    (void)dtype;
    return mi_panel_op_bytes(kernel_of, parts, n, options, total, error);
}

typedef struct {
    const MiWeight      *weight;
    const MiPanelKernel *kernel;
    uint8_t             *dst;
    int64_t              n;
    atomic_llong         next;
} Packing;

static void pack_panels(void *arg, int part, int n_parts)
{
    Packing      *p = arg;
    const int64_t step = MAX(1, p->n / (8 * n_parts));

    (void)part;
    for (int64_t i; (i = atomic_fetch_add(&p->next, step)) < p->n;)
        mi_panel_pack(p->kernel, p->weight->data, p->weight->shape[0], p->weight->shape[1], i, MIN(i + step, p->n), p->dst);
}

static bool pack(MiContext *ctx, const MiWeight *parts, int n, const void *options, void *dst, MiOperand *out,
                 GError **error)
{
    uint8_t *to = dst;
    int64_t  row = 0;

    for (int i = 0; i < n; i++) {
        const MiWeight *w = &parts[i];
        Packing         p = { w, kernel_of(w, options, error), to, mi_panels(w->shape[0]), 0 };

        if (!p.kernel)
            return false;
        mi_on_all_threads(ctx, pack_panels, &p);
        out[i] = (MiOperand){
            .tensor = { .data = to, .dtype = MI_I8, .ndim = 2, .shape = { w->shape[0], w->shape[1] } },
            .layout = "panels", .ext = p.kernel, .first_row = row,
        };
        to += p.n * mi_panel_bytes(&p.kernel->shape, w->shape[1]);
        row += w->shape[0];
    }
    return true;
}

static const MiLinear blocks = {
    .struct_size = sizeof blocks, .formats = formats, .layout = "panels", .rank = 10, .joins = true,
    .bytes = bytes, .pack = pack, .op = &mi_panel_op,
};

MI_PLUGIN("linear_blocks", "0.1", "Projections on GGUF's block-quantised weights in their own form",
          MI_FEATURE_LINEAR("blocks", "cpu", &blocks, option_table));
