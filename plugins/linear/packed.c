/* packed.c - projections on weights that a checkpoint stores in integers (GPTQ, AWQ, compressed-tensors), f32 in and out.
 *
 * Codes are packed anew, not rounded: panel_op.c runs them.  Scales are f16 as they mostly are in the files (those of rows
 * f32), others lose what f16 does not hold; so does zero times scale of groups that have zeros.  Columns in GPTQ's act order
 * are sorted by group, and x with them.  Groups: multiples of 32 columns, or rows. */
#include "panel_op.h"
#include <cpu/encode.h>
#include <cpu/quants.h>
#include <stdatomic.h>
#include <string.h>

enum { MAX_IN = 1 << 24 };

typedef struct { const char *activations, *isa; } Options;
static const MiOption option_table[] = {
    MI_CHOICE(Options, activations, "auto", "auto, block, int8",
              "what x is rounded to: auto, block: int8 with a scale for 32 columns; int8: with a scale for a row"),
    MI_CHOICE(Options, isa, "auto", "auto, avx512, avxvnni, avx2, scalar", "instruction set of the inner loops"),
    MI_OPTION_END,
};

static const char *const formats[] = { "gptq", "awq", "ct_int4", "ct_int8", NULL };

/* ---- what it becomes -------------------------------------------------------------- */

/* All zeros are the middle of the codes, so that none need be kept. */
static bool is_symmetric(const MiQuant *q)
{
    const int32_t       middle = 1 << (q->bits - 1);
    g_autofree float   *scales = g_new(float, q->n_groups);
    g_autofree int32_t *zeros = g_new(int32_t, q->n_groups);
    bool                same = true;

    for (int64_t o = 0; same && o < q->out; o++) {
        mi_quant_scales(q, o, 1, scales, zeros);
        for (int64_t g = 0; g < q->n_groups; g++)
            same = same && zeros[g] == middle;
    }
    return same;
}

/* In the order of the groups every group is group_in columns, but the last. */
static bool is_even(const MiQuant *q, const int64_t *counts)
{
    for (int64_t g = 0; g < q->n_groups; g++)
        if (counts[g] != MIN(q->group_in, q->in - g * q->group_in))
            return false;
    return true;
}

static const MiPanelKernel *kernel_of(const MiWeight *w, const Options *o, GError **error)
{
    const MiQuant       *q = w->quant;
    const bool           row = q && q->n_groups == 1;
    const int            group = !q ? 0 : row || q->group_in % 128 == 0 ? 128 : q->group_in % 64 == 0 ? 64 : q->group_in % 32 == 0 ? 32 : 0;
    const bool           symmetric = group && is_symmetric(q);
    const char          *isa = o && o->isa ? o->isa : "auto";
    const MiPanelX       x = o && o->activations && strcmp(o->activations, "int8") == 0 ? MI_X_ROW : MI_X_BLOCK;
    const MiPanelKernel *k;
    char                 name[16];

    if (!group || q->out > INT32_MAX || q->in > MAX_IN || (q->bits == 8 && !row && group < 128)) {
        g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED, "%s: groups of %" G_GINT64_FORMAT " columns of %d bits; multiples of 32, of "
                    "128 with 8 bits, or rows are packed; set [engine] linear = dense", w->name, q ? q->group_in : 0, q ? q->bits : 0);
        return NULL;
    }
    if (row && q->bits == 8)
        g_snprintf(name, sizeof name, "%sint8_row", symmetric ? "" : "u");
    else
        g_snprintf(name, sizeof name, "%sint%d_%d", symmetric ? "" : "u", q->bits, group);
    if (!(k = mi_panel_kernel(name, isa, x)))
        g_set_error(error, MI_ERROR, MI_ERROR_CONFIG, "%s: [linear.packed] isa = %s: this machine has no such instruction set; set it "
                    "to auto", w->name, isa);
    return k;
}

/* ---- load --------------------------------------------------------------------------- */

static size_t order_bytes(const MiQuant *q) { return q->group_of ? ((size_t)q->in * sizeof(int32_t) + 63) / 64 * 64 : 0; }

static bool bytes(const MiWeight *parts, int n, MiDType dtype, const void *options, size_t *total, GError **error)
{
    (void)dtype;
    *total = 0;
    for (int i = 0; i < n; i++) {
        const MiPanelKernel *k = kernel_of(&parts[i], options, error);
        if (!k)
            return false;
        *total += (size_t)(mi_panels(parts[i].shape[0]) * mi_panel_bytes(&k->shape, parts[i].shape[1])) + order_bytes(parts[i].quant);
    }
    return true;
}

typedef struct {
    const MiWeight      *weight;
    const MiPanelKernel *kernel;
    const int32_t       *order; /* NULL: as they are */
    uint8_t             *dst;
    int64_t              n;
    atomic_llong         next;
    atomic_bool          no_memory, no_number;
} Packing;

/* One row; codes: [in], sorted: [in] and up to whole blocks, scales and zeros [groups]. */
static void pack_row(const Packing *p, uint8_t *panel, int r, const uint8_t *codes, uint8_t *sorted, const float *scales,
                     const int32_t *zeros)
{
    const MiQuant      *q = p->weight->quant;
    const MiPanelShape *s = &p->kernel->shape;
    const int64_t       blocks = (q->in + MI_BLOCK - 1) / MI_BLOCK;

    for (int64_t k = 0; k < q->in; k++)
        sorted[k] = codes[p->order ? p->order[k] : k];
    for (int64_t b = 0; b < blocks; b++) {
        const int64_t g = b * MI_BLOCK / q->group_in;
        if (b % mi_panel_group(s->scales) == 0)
            mi_panel_put_scales(s, panel, b, r, scales[g], scales[g] * (float)(s->offset - zeros[g]));
        mi_panel_put_block(s, panel, b, r, sorted + b * MI_BLOCK);
    }
}

static void pack_panels(void *arg, int part, int n_parts)
{
    Packing            *p = arg;
    const MiQuant      *q = p->weight->quant;
    const int64_t       panel = mi_panel_bytes(&p->kernel->shape, q->in);
    g_autofree uint8_t *codes = g_try_malloc((gsize)q->in), *sorted = g_try_malloc0((gsize)q->in + MI_BLOCK);
    g_autofree float   *scales = g_try_new(float, (gsize)q->n_groups);
    g_autofree int32_t *zeros = g_try_new(int32_t, (gsize)q->n_groups);

    (void)part, (void)n_parts;
    if (!codes || !sorted || !scales || !zeros) {
        p->no_memory = true;
        return;
    }
    for (int64_t i; (i = atomic_fetch_add(&p->next, 1)) < p->n;) {
        const int64_t rows = MIN(MI_PANEL, q->out - i * MI_PANEL);
        memset(p->dst + i * panel, 0, (size_t)panel);
        for (int64_t r = 0; r < rows; r++) {
            mi_quant_codes(q, i * MI_PANEL + r, 1, codes);
            if (!mi_quant_scales(q, i * MI_PANEL + r, 1, scales, zeros))
                p->no_number = true;
            pack_row(p, p->dst + i * panel, (int)r, codes, sorted, scales, zeros);
        }
    }
}

/* The columns by group at dst. */
static bool put_order(const MiWeight *w, int32_t *dst, GError **error)
{
    const MiQuant      *q = w->quant;
    g_autofree int64_t *counts = g_new(int64_t, q->n_groups);

    mi_quant_order(q, dst, counts);
    if (is_even(q, counts))
        return true;
    g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED, "%s: its groups are not of %" G_GINT64_FORMAT " columns each, which is not packed; "
                "set [engine] linear = dense", w->name, q->group_in);
    return false;
}

static bool pack(MiContext *ctx, const MiWeight *parts, int n, const void *options, void *dst, MiOperand *out, GError **error)
{
    uint8_t *to = dst;
    int64_t  row = 0;

    for (int i = 0; i < n; row += parts[i++].shape[0]) {
        const MiWeight *w = &parts[i];
        Packing         p = { w, kernel_of(w, options, error), NULL, to, mi_panels(w->shape[0]), 0, false, false };

        if (!p.kernel)
            return false;
        to += p.n * mi_panel_bytes(&p.kernel->shape, w->shape[1]);
        if (w->quant->group_of && !put_order(w, (int32_t *)(void *)to, error))
            return false;
        p.order = w->quant->group_of ? (const int32_t *)(const void *)to : NULL;
        to += order_bytes(w->quant);
        mi_on_all_threads(ctx, pack_panels, &p);
        if (p.no_memory || p.no_number) {
            g_set_error(error, MI_ERROR, p.no_memory ? MI_ERROR_NO_MEMORY : MI_ERROR_MODEL, "%s: %s", w->name,
                        p.no_memory ? "no memory for a row" : "one of its scales is no finite number");
            return false;
        }
        out[i] = (MiOperand){
            .tensor = { .data = p.dst, .dtype = MI_I8, .ndim = 2, .shape = { w->shape[0], w->shape[1] } },
            .layout = "panels.ordered", .ext = p.kernel, .zeros = p.order, .first_row = row,
        };
    }
    return true;
}

/* ---- the op ----------------------------------------------------------------------------- */

static size_t panel_workspace(MiContext *ctx, const MiCall *call)
{
    size_t workspace = 0;
    mi_panel_op.prepare(ctx, call, NULL, &workspace, NULL);
    return (workspace + 63) / 64 * 64;
}

static bool prepare(MiContext *ctx, const MiCall *call, void **state, size_t *workspace, GError **error)
{
    const MiTensor *x = &call->at[0].in[0];
    int64_t         in = 1;

    if (!mi_panel_op.prepare(ctx, call, state, workspace, error))
        return false;
    for (int d = 1; d < x->ndim; d++)
        in *= x->shape[d];
    *workspace = panel_workspace(ctx, call) + (size_t)(x->shape[0] * in) * sizeof(float); /* of x in another order */
    return true;
}

typedef struct {
    const MiTensor *x;
    const int32_t  *order;
    float          *to;
    int64_t         in;
} Gather;

static void gather(void *arg, int part, int n_parts)
{
    const Gather *g = arg;
    const int64_t rows = g->x->shape[0];

    for (int64_t r = rows * part / n_parts; r < rows * (part + 1) / n_parts; r++) {
        const float *x = (const float *)g->x->data + r * g->x->stride[0];
        for (int64_t k = 0; k < g->in; k++)
            g->to[r * g->in + k] = x[g->order[k]];
    }
}

/* Those that read x in one order, as the first does. */
static int alike(const MiCall *call, int first)
{
    const int32_t *order = call->at[first].weight[0].zeros;
    const size_t   size = (size_t)call->at[first].weight[0].tensor.shape[1] * sizeof *order;
    int            n = first + 1;

    for (; n < call->n; n++) {
        const int32_t *other = call->at[n].weight[0].zeros;
        if (!order != !other || (order && memcmp(order, other, size) != 0))
            break;
    }
    return n - first;
}

static bool run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    for (int i = 0, n; i < call->n; i += n) {
        MiCall          part = *call;
        const MiTensor *x = &call->at[i].in[0];
        const int32_t  *order = call->at[i].weight[0].zeros;
        MiTensor        sorted = { .dtype = MI_F32, .ndim = 2, .shape = { x->shape[0], call->at[i].weight[0].tensor.shape[1] } };
        MiArgs          at[MI_MAX_PATTERN];

        n = MIN(alike(call, i), MI_MAX_PATTERN);
        memcpy(at, call->at + i, (size_t)n * sizeof *at);
        if (order) {
            sorted.data = (char *)call->workspace + panel_workspace(ctx, call);
            sorted.stride[0] = sorted.shape[1];
            sorted.stride[1] = 1;
            mi_on_all_threads(ctx, gather, &(Gather){ x, order, sorted.data, sorted.shape[1] });
            for (int k = 0; k < n; k++)
                at[k].in = &sorted;
        }
        part.at = at;
        part.n = n;
        if (!mi_panel_op.run(state, ctx, &part, error))
            return false;
    }
    return true;
}

static const MiOp op = {
    .struct_size = sizeof op, .n_in = 1, .n_out = 1, .n_weights = 1, .prepare = prepare, .run = run,
    .batch_invariant = true,
};

static const MiLinear packed = {
    .struct_size = sizeof packed, .formats = formats, .layout = "panels.ordered", .rank = 20, .joins = true,
    .bytes = bytes, .pack = pack, .op = &op, .head = "auto",
};

MI_PLUGIN("linear_packed", "0.1", "Projections on GPTQ, AWQ and compressed-tensors weights in their own form",
          MI_FEATURE_LINEAR("packed", "cpu", &packed, option_table));
