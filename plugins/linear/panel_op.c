/* panel_op.c - y = x W' + b with W in panels of any format, f32 in and out.
 *
 * x is quantised once for all projections of one input.  Work is taken in small
 * pieces, since cores are shared with others; neither that nor the rows that
 * share a call changes a result's bits. */
#include "panel_op.h"
#include <stdatomic.h>
#include <string.h>

/* ---- load ------------------------------------------------------------------- */

bool mi_panel_op_bytes(MiKernelOf *kernel_of, const MiWeight *parts, int n, const void *options, size_t *total, GError **error)
{
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
        *total += (size_t)(mi_panels(parts[i].shape[0]) * mi_panel_bytes(&k->shape, parts[i].shape[1]));
    }
    return true;
}

enum {
    FEW_ROWS = 4,          /* fewer are quantised by the calling thread: 1 us a row, less than a wake-up */
    PIECE = 32 << 10,      /* bytes of W that are worth an atomic addition */
    TILES = 4,             /* of a piece: 256 rows */
};

typedef struct {
    const MiCall *call;
    MiQuantiseFn  quantise;
    uint8_t      *x;      /* quantised */
    float        *padded; /* x with rows of whole blocks; NULL: it has such */
    int64_t       in, rows, blocks, tile_bytes /* of a row and block */, n_pieces, step;
    int64_t       spans; /* pieces of a panel: TILES tiles each */
    atomic_llong  next;
} Work;

static int64_t tile_bytes(const Work *w, int64_t rows) { return rows * w->blocks * w->tile_bytes; }

static void quantise_rows(const Work *w, int64_t first, int64_t last)
{
    const MiTensor *x = &w->call->at[0].in[0];

    while (first < last) {
        const int64_t tile = first / MI_TILE, in_tile = first % MI_TILE, nt = MIN(MI_TILE, w->rows - tile * MI_TILE);
        const int64_t n = MIN(nt - in_tile, last - first);
        const float  *from = (const float *)x->data + first * x->stride[0];
        int64_t       stride = x->stride[0];

        if (w->padded) {
            stride = w->blocks * MI_BLOCK;
            for (int64_t r = 0; r < n; r++) {
                float *to = w->padded + (first + r) * stride;
                memcpy(to, from + r * x->stride[0], (size_t)w->in * sizeof *to);
                memset(to + w->in, 0, (size_t)(stride - w->in) * sizeof *to);
            }
            from = w->padded + first * stride;
        }
        w->quantise(from, stride, (int32_t)in_tile, (int32_t)n, (int32_t)nt, w->blocks,
                    w->x + tile_bytes(w, tile * MI_TILE));
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
        k->isa->run[k->x][k->index](&c);
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
            for (; i >= mi_panels(at->weight[0].tensor.shape[0]); at++)
                i -= mi_panels(at->weight[0].tensor.shape[0]);
            multiply(w, at, i, piece % w->spans * TILES);
        }
    }
}

static bool prepare_for(const MiCall *call, int tile_bytes, size_t *workspace, GError **error)
{
    const MiTensor *x = &call->at[0].in[0];
    int64_t         in = 1;

    for (int i = 0; i < call->n; i++) {
        if (call->at[i].in[0].dtype == MI_F32 && call->at[i].out[0].dtype == MI_F32)
            continue;
        g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED,
                    "projections from packed panels read and write f32 only; set [engine] dtype = auto");
        return false;
    }
    for (int d = 1; d < x->ndim; d++)
        in *= x->shape[d];
    const int64_t blocks = (in + MI_BLOCK - 1) / MI_BLOCK;
    *workspace = (size_t)(x->shape[0] * blocks * tile_bytes);
    if (in % MI_BLOCK)
        *workspace += (size_t)(x->shape[0] * blocks * MI_BLOCK) * sizeof(float);
    return true;
}

static bool prepare(MiContext *ctx, const MiCall *call, void **state, size_t *workspace, GError **error)
{
    (void)ctx, (void)state;
    return prepare_for(call, MI_TILE_BYTES, workspace, error);
}

static bool prepare_wide(MiContext *ctx, const MiCall *call, void **state, size_t *workspace, GError **error)
{
    (void)ctx, (void)state;
    return prepare_for(call, MI_TILE_WIDE, workspace, error);
}

static bool run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    const MiOperand     *first = &call->at[0].weight[0];
    const MiPanelKernel *k = first->ext;
    const int64_t        rows = call->at[0].in[0].shape[0], tiles = (rows + MI_TILE - 1) / MI_TILE;
    Work                 w = {
        .call = call, .quantise = k->isa->quantise[k->x], .x = call->workspace, .rows = rows,
        .in = first->tensor.shape[1], .tile_bytes = mi_tile_bytes(k->x),
        .blocks = (first->tensor.shape[1] + MI_BLOCK - 1) / MI_BLOCK, .spans = (tiles + TILES - 1) / TILES,
    };

    (void)state, (void)error;
    if (w.in % MI_BLOCK) /* behind the tiles, which are of a multiple of 16 bytes */
        w.padded = (float *)(void *)(w.x + tile_bytes(&w, rows));
    for (int i = 0; i < call->n; i++)
        w.n_pieces += mi_panels(call->at[i].weight[0].tensor.shape[0]) * w.spans;
    w.step = rows > FEW_ROWS ? 1 : MAX(1, PIECE / mi_panel_bytes(&k->shape, first->tensor.shape[1]));
    if (rows < FEW_ROWS)
        quantise_rows(&w, 0, rows);
    else
        mi_on_all_threads(ctx, quantise_share, &w);
    mi_on_all_threads(ctx, pieces, &w);
    return true;
}

const MiOp mi_panel_op = {
    .struct_size = sizeof mi_panel_op, .n_in = 1, .n_out = 1, .n_weights = 1, .prepare = prepare, .run = run,
    .batch_invariant = true,
};

const MiOp mi_panel_op_wide = {
    .struct_size = sizeof mi_panel_op_wide, .n_in = 1, .n_out = 1, .n_weights = 1, .prepare = prepare_wide, .run = run,
    .batch_invariant = true,
};
