/* quant_layer_cuda.c - all that a layer does between one attention and the next, for one row and weights of 4 and 8 bit,
 * as one kernel, for NVIDIA cards from Hopper on.
 *
 * For bf16 and weights of the layouts "int8" and "int4" in one form, and layers as large as win by it; others, and buckets of
 * more rows, take the fusions of decode_cuda.c.  Each layer's call keeps some ten KB on the card, in which the kernel's blocks tell each other results. */
#include <cuda/ops.h>
#include <cuda/quant_layer.h>
#include <miniinfer/plugin.h>
#include <string.h>

#include "left_cuda.h"
#include "lines_cuda.h"
#include "parts_cuda.h"

static const char *const layouts[] = {"int8", "int4", NULL};

enum { O, O_ADD, NORM, GATE, UP, SILU, MUL, DOWN, DOWN_ADD, N_MLP, NEXT_NORM = N_MLP, Q, K, V, ROPE_Q, ROPE_K, APPEND };

static const MiPattern mlp_pattern[] = {MLP_LINES, {NULL, {0}}};
static const MiPattern heads_pattern[] = {
    MLP_LINES,
    [NEXT_NORM] = {"rmsnorm", {1 + DOWN_ADD}},
    QKV_LINES(NEXT_NORM),
    ROPE_LINES,
    {NULL, {0}},
};

typedef struct {
    MiQuantLayerPlan plan;
    MiContext       *ctx;
    void            *exchange;
} State;

/* ---- what fits ------------------------------------------------------------------------- */

static bool packed(const MiTensor *t)
{
    int64_t n = 1;
    for (int i = t->ndim - 1; i > 0; n *= t->shape[i--])
        if (t->stride[i] != n)
            return false;
    return t->dtype == MI_BF16 && n % 8 == 0;
}

static int32_t narrow(int64_t n) { return (int32_t)CLAMP(n, 0, INT32_MAX); }

/* The form at the worst: the weights are not there yet. */
static MiQuantLayerShape shape_of(const MiArgs *at, bool heads)
{
    MiQuantLayerShape s = {.heads_width = narrow(at[O].node->weight[0]->shape[1]),
                           .hidden = narrow(at[O].out[0].shape[1]),
                           .ff = narrow(at[GATE].out[0].shape[1]),
                           .form = strcmp(at[O].weight[0].layout, "int8") == 0
                                       ? (MiQuantForm){.bits = 8}
                                       : (MiQuantForm){.bits = 4, .group = 32, .zeros = true}};

    if (heads)
        s.heads_rows = narrow(at[Q].out[0].shape[1] + 2 * at[K].out[0].shape[1]);
    return s;
}

/* docs/performance.md: below that, what blocks tell each other takes longer than kernels of their own do. */
enum { LEAST = 64 << 20 };

static bool wins(MiQuantLayerShape s)
{
    MiQuantLayerPlan p = {.shape = s};
    const int64_t    values = (int64_t)s.hidden * (s.heads_width + s.heads_rows + 3 * (int64_t)s.ff);

    return values * s.form.bits / 8 >= LEAST && mi_cuda_quant_layer_plan(&p) == 0;
}

static bool mlp_fits(const MiArgs *at, MiShape shape)
{
    const MiTensor *t[] = {&at[O].in[0], &at[O_ADD].in[0], &at[O_ADD].out[0], &at[MUL].out[0], &at[DOWN_ADD].out[0]};
    const int       linears[] = {GATE, UP, DOWN};

    for (size_t i = 0; i < G_N_ELEMENTS(t); i++)
        if (!packed(t[i]) || (i && t[i]->ndim != 2))
            return false;
    for (size_t i = 0; i < G_N_ELEMENTS(linears); i++)
        if (strcmp(at[linears[i]].weight[0].layout, at[O].weight[0].layout))
            return false;
    return shape.n_tokens == 1 && !at[GATE].node->weight[1] && !at[UP].node->weight[1] &&
           at[UP].out[0].shape[1] == at[GATE].out[0].shape[1];
}

static bool mlp_match(const MiArgs *at, MiShape shape) { return mlp_fits(at, shape) && wins(shape_of(at, false)); }

static bool heads_match(const MiArgs *at, MiShape shape)
{
    const MiTensor *q = &at[ROPE_Q].in[0], *k = &at[ROPE_K].in[0], *v = &at[APPEND].in[1];
    const MiRotate *r = at[ROPE_Q].node->attr;

    for (int i = Q; i <= V; i++)
        if (strcmp(at[i].weight[0].layout, at[O].weight[0].layout))
            return false;
    return mlp_fits(at, shape) && q->ndim == 3 && k->ndim == 3 && v->ndim == 3 && packed(&at[ROPE_Q].out[0]) &&
           memcmp(r, at[ROPE_K].node->attr, sizeof *r) == 0 && at[ROPE_Q].node->in[1].id == at[ROPE_K].node->in[1].id &&
           q->shape[1] * q->shape[2] == at[Q].out[0].shape[1] && k->shape[1] * k->shape[2] == at[K].out[0].shape[1] &&
           q->shape[2] == k->shape[2] && v->shape[1] == k->shape[1] && v->shape[2] == k->shape[2] &&
           at[V].out[0].shape[1] == at[K].out[0].shape[1] &&
           q->shape[2] % 16 == 0 && r->dim > 0 && r->dim <= q->shape[2] &&
           r->dim % (r->style == MI_ROPE_INTERLEAVED ? 2 : 16) == 0 && /* pairs come in whole eights of rows */
           wins(shape_of(at, true));
}

/* ---- running ---------------------------------------------------------------------------- */

static void release(void *state)
{
    State *s = state;
    s->ctx->free(s->ctx, MI_MEM_DEVICE, s->exchange);
    g_free(s);
}

static bool prepare(MiContext *ctx, const MiCall *call, void **state, size_t *workspace, GError **error)
{
    State *s = g_new0(State, 1);

    s->ctx = ctx;
    s->plan.shape = shape_of(call->at, call->n > N_MLP);
    if (!launched(mi_cuda_quant_layer_plan(&s->plan), error) ||
        !(s->exchange = ctx->alloc(ctx, MI_MEM_DEVICE, mi_cuda_quant_layer_bytes(&s->plan), error)) ||
        !launched(mi_cuda_quant_layer_clear(ctx->stream, &s->plan, s->exchange), error)) {
        release(s);
        return false;
    }
    *state = s;
    *workspace = call->n > N_MLP ? left_bytes(&call->at[ROPE_K].in[0]) : 0;
    return true;
}

/* Now that they are there: how the weights lie. */
static bool settle(MiQuantLayerPlan *p, const MiArgs *at, int n, GError **error)
{
    static const int   linears[] = {GATE, UP, DOWN, Q, K, V};
    const MiQuantForm *f = at[O].weight[0].ext;

    for (size_t i = 0; i < G_N_ELEMENTS(linears) && linears[i] < n; i++)
        if (memcmp(at[linears[i]].weight[0].ext, f, sizeof *f)) {
            g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED, "its weights are not all of one form");
            return false;
        }
    if (memcmp(&p->shape.form, f, sizeof *f) == 0)
        return true;
    p->shape.form = *f;
    return launched(mi_cuda_quant_layer_plan(p), error);
}

static bool run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    const MiArgs    *at = call->at;
    State           *s = state;
    MiQuantLayerCall c = {.a = at[O].in[0],
                          .x = at[O_ADD].in[0],
                          .y = at[DOWN_ADD].out[0],
                          .h = at[O_ADD].out[0].data,
                          .act = at[MUL].out[0].data,
                          .o = at[O].weight[0].tensor.data,
                          .gate = at[GATE].weight[0].tensor.data,
                          .up = at[UP].weight[0].tensor.data,
                          .down = at[DOWN].weight[0].tensor.data,
                          .o_bias = at[O].weight[1].tensor.data,
                          .down_bias = at[DOWN].weight[1].tensor.data,
                          .norm = norm_of(&at[NORM]),
                          .exchange = s->exchange};
    const bool       has_heads = call->n > N_MLP, scaled = has_heads && mi_dtype_scaled(at[APPEND].kv->dtype);
    const MiTensor  *k = has_heads ? &at[ROPE_K].in[0] : NULL; /* no such line in the shorter pattern */

    if (has_heads) {
        const MiRotate *r = at[ROPE_Q].node->attr;
        const MiTensor *q = &at[ROPE_Q].out[0];

        c.next_norm = norm_of(&at[NEXT_NORM]);
        c.qkv = (MiGemvQkv){.freqs = at[ROPE_Q].in[1].data,
                            .positions = call->batch->positions,
                            .n_heads = (int32_t)q->shape[1],
                            .n_kv_heads = (int32_t)k->shape[1],
                            .head_dim = (int32_t)q->shape[2],
                            .rope_dim = r->dim,
                            .interleaved = r->style == MI_ROPE_INTERLEAVED,
                            .magnitude = r->magnitude,
                            .q = *q,
                            .kv = scaled ? left_view(call->workspace, k) : *at[APPEND].kv};
        if (c.qkv.kv.dtype != MI_BF16 && c.qkv.kv.dtype != MI_F16 && c.qkv.kv.dtype != MI_F32) {
            g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED,
                        "it writes a cache of f32, f16, bf16, fp8 or int8; set [engine] kv_dtype");
            return false;
        }
        for (int i = 0; i < 3; i++) {
            c.qkv.w[i] = at[Q + i].weight[0].tensor.data;
            c.qkv.bias[i] = at[Q + i].weight[1].tensor.data;
        }
    }
    return settle(&s->plan, at, call->n, error) && launched(mi_cuda_quant_layer(ctx->stream, &s->plan, &c), error) &&
           (!scaled || launched(mi_cuda_kv_append(ctx->stream, left(call->workspace, k, 0), left(call->workspace, k, 1),
                                                  at[APPEND].kv),
                                error));
}

static const MiOp     op = {.struct_size = sizeof op, .prepare = prepare, .run = run, .release = release};
static const MiFusion mlp = {
    .struct_size = sizeof mlp, .pattern = mlp_pattern, .layouts = layouts, .match = mlp_match, .op = &op};
static const MiFusion heads = {.struct_size = sizeof heads,
                               .pattern = heads_pattern,
                               .layouts = layouts,
                               .match = heads_match,
                               .op = &op,
                               .scales = true};

MI_PLUGIN("quant_layer_cuda", "0.1", "What a layer of 4 or 8 bit does between one attention and the next, as one kernel",
          MI_FEATURE_FUSION("quant_layer", "cuda", &mlp, NULL), MI_FEATURE_FUSION("quant_layer_heads", "cuda", &heads, NULL));
