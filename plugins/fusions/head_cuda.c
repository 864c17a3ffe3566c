/* head_cuda.c - the likeliest token of many rows on cards of compute capability 9.0: output rows, norm, head and draw.
 *
 * For bf16 and weights of layout "plain"; up to MI_GEMV_HEAD_ROWS rows are decode_cuda.c's.  Where logits have to be stored for
 * a draw that reads them all, cuBLASLt's stores are hidden better than these (docs/performance.md). */
#include <cuda/head.h>
#include <miniinfer/plugin.h>

#include "parts_cuda.h"

static const char *const layouts[] = {"plain", NULL};

enum { ROWS, NORM, HEAD, DRAW };
static const MiPattern greedy_pattern[] = {
    [ROWS] = {"output_rows", {0}},
    [NORM] = {"rmsnorm", {1 + ROWS}},
    [HEAD] = {"linear", {1 + NORM}},
    [DRAW] = {"sampler:greedy", {1 + HEAD}},
    {NULL, {0}},
};

static bool match(const MiArgs *at, MiShape shape)
{
    const MiTensor *x = &at[ROWS].in[0], *y = &at[HEAD].out[0];

    (void)shape;
    return x->ndim == 2 && x->dtype == MI_BF16 && x->stride[1] == 1 && x->stride[0] % 8 == 0 && y->ndim == 2 && y->dtype == MI_F32 &&
           y->stride[1] == 1 && y->stride[0] % 4 == 0 && !at[HEAD].node->weight[1] && y->shape[0] > MI_GEMV_HEAD_ROWS &&
           y->shape[0] <= MI_HEAD_MAX_ROWS && x->shape[1] <= INT32_MAX && y->shape[1] <= INT32_MAX &&
           mi_cuda_head_takes((int32_t)y->shape[0], (int32_t)x->shape[1], (int32_t)y->shape[1]) == 0;
}

/* Of the workspace: the normed rows, then what each tile found. */
static size_t normed_bytes(const MiArgs *at)
{
    return ((size_t)(at[HEAD].out[0].shape[0] * at[ROWS].in[0].shape[1]) * mi_dtype_size(MI_BF16) + 255) / 256 * 256;
}
static int32_t tiles(const MiArgs *at) { return (int32_t)((at[HEAD].out[0].shape[1] + MI_HEAD_TILE - 1) / MI_HEAD_TILE); }

static bool prepare(MiContext *ctx, const MiCall *call, void **state, size_t *workspace, GError **error)
{
    (void)ctx, (void)state, (void)error;
    *workspace = normed_bytes(call->at) + (size_t)call->at[HEAD].out[0].shape[0] * (size_t)tiles(call->at) * sizeof(MiCandidate);
    return true;
}

static bool run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    const MiArgs   *at = call->at;
    const MiTensor *x = &at[ROWS].in[0], *y = &at[HEAD].out[0];
    const MiBatch  *b = call->batch;
    MiHeadCall      c = {.x = *x,
                         .out_rows = b->out_rows,
                         .norm = norm_of(&at[NORM]),
                         .w = at[HEAD].weight[0].tensor.data,
                         .logits = y->data, /* NULL: nobody reads them */
                         .stride = y->stride[0],
                         .rows = (int32_t)y->shape[0],
                         .in = (int32_t)x->shape[1],
                         .out = (int32_t)y->shape[1],
                         .workspace = call->workspace,
                         .best = (MiCandidate *)((char *)call->workspace + normed_bytes(at))};

    (void)state;
    return launched(mi_cuda_head(ctx->stream, &c), error) &&
           launched(mi_cuda_gemv_pick(ctx->stream, c.best, tiles(at), c.rows, at[DRAW].out[0].data, b->drawn, b->out_slot), error);
}

static const MiOp     op = {.struct_size = sizeof op, .prepare = prepare, .run = run};
static const MiFusion greedy = {
    .struct_size = sizeof greedy, .pattern = greedy_pattern, .layouts = layouts, .match = match, .op = &op};

MI_PLUGIN("head_cuda", "0.1", "The likeliest token of many rows: norm, head and draw",
          MI_FEATURE_FUSION("norm_head_many_greedy", "cuda", &greedy, NULL));
