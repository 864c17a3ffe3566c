/* blocks.c - projections on block-quantised weights in their own form, f32 in and out.
 *
 * Weights are repacked once (kernels/cpu/panels.h says how), x is quantised to
 * int8 once for all projections of one input.  Work is taken in small pieces,
 * since cores are shared with others; neither that nor the rows that share a
 * call changes a result's bits. */
#include <cpu/blocks.h>
#include <cpu/panels.h>
#include <miniinfer/plugin.h>
#include <stdatomic.h>

enum {
    FEW_ROWS = 4,          /* fewer are quantised by the calling thread: 1 us a row, less than a wake-up */
    PIECE = 32 << 10,      /* bytes of W that are worth an atomic addition */
    TILES = 4,             /* of a piece: 256 rows */
    MAX_IN = 1 << 24,      /* columns: all sizes below stay far from 2^63 */
};

typedef struct { const char *isa; } Options;
static const MiOption option_table[] = {
    MI_CHOICE(Options, isa, "auto", "auto, avx512, avxvnni, avx2, scalar", "instruction set of the inner loops"),
    MI_OPTION_END,
};

static const char *const formats[] = {
    "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl", "iq4_xs", NULL,
};

static void on_all_threads(MiContext *ctx, void (*fn)(void *, int, int), void *arg)
{
    if (MI_HAS(ctx->backend, parallel))
        ctx->backend->parallel(ctx->device, fn, arg);
    else
        fn(arg, 0, 1);
}

static int64_t panels(int64_t out) { return (out + MI_PANEL - 1) / MI_PANEL; }

/* ---- load ------------------------------------------------------------------- */

/* NULL with *error: not a matrix this can read whole. */
static const MiPanelKernel *kernel_of(const MiWeight *w, const Options *options, GError **error)
{
    const char          *isa = options && options->isa ? options->isa : "auto";
    const MiPanelKernel *k = mi_panel_kernel(w->format, isa);
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
    *total = 0;
    for (int i = 0; i < n; i++) {
        const MiPanelKernel *k = kernel_of(&parts[i], options, error);
        if (!k)
            return false;
        if (parts[i].shape[1] != parts[0].shape[1]) {
            g_set_error(error, MI_ERROR, MI_ERROR_MODEL, "%s and %s share an input but not its width", parts[0].name,
                        parts[i].name);
            return false;
        }
        *total += (size_t)(panels(parts[i].shape[0]) * mi_panel_bytes(&k->shape, parts[i].shape[1]));
    }
    return true;
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
        Packing         p = { w, kernel_of(w, options, error), to, panels(w->shape[0]), 0 };

        if (!p.kernel)
            return false;
        on_all_threads(ctx, pack_panels, &p);
        out[i] = (MiOperand){
            .tensor = { .data = to, .dtype = MI_I8, .ndim = 2, .shape = { w->shape[0], w->shape[1] } },
            .layout = "panels", .ext = p.kernel, .first_row = row,
        };
        to += p.n * mi_panel_bytes(&p.kernel->shape, w->shape[1]);
        row += w->shape[0];
    }
    return true;
}

/* ---- the op ----------------------------------------------------------------- */

typedef struct {
    const MiCall       *call;
    const MiPanelIsa   *isa;
    uint8_t            *x; /* quantised */
    int64_t             rows, blocks, n_pieces, step;
    int64_t             spans; /* pieces of a panel: TILES tiles each */
    atomic_llong        next;
} Work;

static int64_t tile_bytes(const Work *w, int64_t rows) { return rows * w->blocks * MI_TILE_BYTES; }

static void quantise_rows(const Work *w, int64_t first, int64_t last)
{
    const MiTensor *x = &w->call->at[0].in[0];

    while (first < last) {
        const int64_t tile = first / MI_TILE, in_tile = first % MI_TILE, nt = MIN(MI_TILE, w->rows - tile * MI_TILE);
        const int64_t n = MIN(nt - in_tile, last - first);
        w->isa->quantise((const float *)x->data + first * x->stride[0], x->stride[0], (int32_t)in_tile, (int32_t)n,
                         (int32_t)nt, w->blocks, w->x + tile_bytes(w, tile * MI_TILE));
        first += n;
    }
}

static void quantise_share(void *arg, int part, int n_parts)
{
    const Work *w = arg;
    quantise_rows(w, w->rows * part / n_parts, w->rows * (part + 1) / n_parts);
}

/* Panel `i` of one projection, tiles [first, first + TILES). */
static void multiply(const Work *w, const MiArgs *at, int64_t i, int64_t first)
{
    const MiTensor      *weight = &at->weight[0].tensor, *y = &at->out[0];
    const MiPanelKernel *k = at->weight[0].ext;
    const float         *bias = at->weight[1].tensor.data;

    for (int64_t row = first * MI_TILE; row < MIN(w->rows, (first + TILES) * MI_TILE); row += MI_TILE) {
        const MiPanelCall c = {
            .panel = (const uint8_t *)weight->data + i * mi_panel_bytes(&k->shape, weight->shape[1]),
            .tile = w->x + tile_bytes(w, row), .blocks = w->blocks, .nt = (int32_t)MIN(MI_TILE, w->rows - row),
            .y = (float *)y->data + row * y->stride[0] + i * MI_PANEL, .y_stride = y->stride[0],
            .bias = bias ? bias + i * MI_PANEL : NULL,
            .n_rows = (int32_t)MIN(MI_PANEL, weight->shape[0] - i * MI_PANEL),
        };
        k->isa->run[k->index](&c);
    }
}

static void pieces(void *arg, int part, int n_parts)
{
    Work *w = arg;

    (void)part, (void)n_parts;
    for (int64_t from; (from = atomic_fetch_add_explicit(&w->next, w->step, memory_order_relaxed)) < w->n_pieces;) {
        for (int64_t piece = from; piece < MIN(from + w->step, w->n_pieces); piece++) {
            const MiArgs *at = w->call->at;
            int64_t       i = piece / w->spans;
            for (; i >= panels(at->weight[0].tensor.shape[0]); at++)
                i -= panels(at->weight[0].tensor.shape[0]);
            multiply(w, at, i, piece % w->spans * TILES);
        }
    }
}

static bool prepare(MiContext *ctx, const MiCall *call, void **state, size_t *workspace, GError **error)
{
    const MiTensor *x = &call->at[0].in[0];
    int64_t         in = 1;

    (void)ctx, (void)state;
    for (int i = 0; i < call->n; i++) {
        if (call->at[i].in[0].dtype == MI_F32 && call->at[i].out[0].dtype == MI_F32)
            continue;
        g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED,
                    "linear 'blocks' on the CPU reads and writes f32 only; set [engine] dtype = fp32");
        return false;
    }
    for (int d = 1; d < x->ndim; d++)
        in *= x->shape[d];
    *workspace = (size_t)(x->shape[0] * (in / MI_BLOCK) * MI_TILE_BYTES);
    return true;
}

static bool run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    const MiOperand     *first = &call->at[0].weight[0];
    const MiPanelKernel *k = first->ext;
    const int64_t        rows = call->at[0].in[0].shape[0], tiles = (rows + MI_TILE - 1) / MI_TILE;
    Work                 w = {
        .call = call, .isa = k->isa, .x = call->workspace, .rows = rows,
        .blocks = first->tensor.shape[1] / MI_BLOCK, .spans = (tiles + TILES - 1) / TILES,
    };

    (void)state, (void)error;
    for (int i = 0; i < call->n; i++)
        w.n_pieces += panels(call->at[i].weight[0].tensor.shape[0]) * w.spans;
    w.step = rows > FEW_ROWS ? 1 : MAX(1, PIECE / mi_panel_bytes(&k->shape, first->tensor.shape[1]));
    if (rows < FEW_ROWS)
        quantise_rows(&w, 0, rows);
    else
        on_all_threads(ctx, quantise_share, &w);
    on_all_threads(ctx, pieces, &w);
    return true;
}

static const MiOp op = {
    .struct_size = sizeof op, .n_in = 1, .n_out = 1, .n_weights = 1, .prepare = prepare, .run = run,
    .batch_invariant = true,
};

static const MiLinear blocks = {
    .struct_size = sizeof blocks, .formats = formats, .layout = "panels", .rank = 10, .joins = true,
    .bytes = bytes, .pack = pack, .op = &op,
};

MI_PLUGIN("linear_blocks", "0.1", "Projections on GGUF's block-quantised weights in their own form",
          MI_FEATURE_LINEAR("blocks", "cpu", &blocks, option_table));
