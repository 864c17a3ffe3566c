/* quant_layer_cuda.c - all that a layer does between one attention and the next, for one row and weights of 4 and 8 bit,
 * as one kernel or, where a layer is small, as three, for NVIDIA cards from Hopper on.
 *
 * For bf16 and weights of the layouts "int8" and "int4" in one form, and layers as large or small as win by it; others, and buckets of
 * more rows, take the fusions of decode_cuda.c.  Each layer's call keeps some ten KB on the card, in which blocks tell each other results. */
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

/* Kernels of decode_cuda.c: of a small layer whose weights turn out to be of another form. */
enum { OF_O, OF_GATED, OF_DOWN, OF_HEADS, SINGLE };

typedef struct {
    MiQuantLayerPlan plan;
    MiGemvPlan       single[SINGLE];
    bool             singly;
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

/* docs/performance.md: below that, what blocks of one kernel tell each other takes longer than kernels of their own do. */
enum { LEAST = 64 << 20 };

/* As one kernel; or as three, if the weights turn out to be of the usual form; their place is enough for both. */
static bool plan_for(MiQuantLayerShape s, MiQuantLayerPlan *p)
{
    const int64_t values = (int64_t)s.hidden * (s.heads_width + s.heads_rows + 3 * (int64_t)s.ff);

    *p = (MiQuantLayerPlan){.shape = s};
    if (mi_cuda_quant_layer_plan(p))
        return false;
    if (values * s.form.bits / 8 >= LEAST)
        return true;
    p->shape.small = true;
    p->shape.form = s.form.bits == 8 ? (MiQuantForm){.bits = 8} : (MiQuantForm){.bits = 4, .group = 128};
    return mi_cuda_quant_layer_plan(p) == 0;
}

static bool wins(MiQuantLayerShape s)
{
    MiQuantLayerPlan p;
    return plan_for(s, &p);
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
    if (!plan_for(shape_of(call->at, call->n > N_MLP), &s->plan)) {
        g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED, "its layer is of no shape that the kernels have");
        release(s);
        return false;
    }
    const size_t rows = 1024 + 2 * (2 * (size_t)s->plan.shape.hidden + (size_t)s->plan.shape.ff); /* of run_singly() */
    if (!(s->exchange = ctx->alloc(ctx, MI_MEM_DEVICE, MAX(mi_cuda_quant_layer_bytes(&s->plan), rows), error)) ||
        !launched(mi_cuda_quant_layer_clear(ctx->stream, &s->plan, s->exchange), error)) {
        release(s);
        return false;
    }
    *state = s;
    *workspace = call->n > N_MLP ? left_bytes(&call->at[ROPE_K].in[0]) : 0;
    return true;
}

/* One kernel for each product, and what is next to it. */
static bool plan_singly(State *s, MiQuantForm f, int n, GError **error)
{
    const MiQuantLayerShape l = s->plan.shape;
    const MiGemvPlan        plans[SINGLE] = {
        [OF_O] = {.kind = MI_GEMV_RESIDUAL, .in = l.heads_width, .out = l.hidden},
        [OF_GATED] = {.kind = MI_GEMV_GATED, .in = l.hidden, .out = l.ff},
        [OF_DOWN] = {.kind = MI_GEMV_RESIDUAL, .in = l.ff, .out = l.hidden},
        [OF_HEADS] = {.kind = MI_GEMV_QKV, .in = l.hidden, .out = l.heads_rows},
    };

    for (int i = 0; i < (n > N_MLP ? SINGLE : OF_HEADS); i++) {
        s->single[i] = plans[i];
        s->single[i].dtype = MI_BF16;
        s->single[i].rows = 1;
        s->single[i].form = f;
        if (!launched(mi_cuda_gemv_plan(&s->single[i]), error))
            return false;
    }
    s->singly = true;
    return true;
}

/* Now that they are there: how the weights lie. */
static bool settle(State *s, const MiArgs *at, int n, GError **error)
{
    static const int   linears[] = {GATE, UP, DOWN, Q, K, V};
    const MiQuantForm *f = at[O].weight[0].ext;
    MiQuantLayerPlan  *p = &s->plan;

    for (size_t i = 0; i < G_N_ELEMENTS(linears) && linears[i] < n; i++)
        if (memcmp(at[linears[i]].weight[0].ext, f, sizeof *f)) {
            g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED, "its weights are not all of one form");
            return false;
        }
    if (memcmp(&p->shape.form, f, sizeof *f) == 0)
        return true;
    p->shape.form = *f;
    return p->shape.small ? plan_singly(s, *f, n, error) : launched(mi_cuda_quant_layer_plan(p), error);
}

static bool run_singly(State *s, MiContext *ctx, const MiArgs *at, int n, const MiQuantLayerCall *c, GError **error)
{
    MiTensor     h = at[NORM].in[0], act = at[MUL].out[0], y = c->y;
    const size_t row = ((size_t)s->plan.shape.hidden * 2 + 255) / 256 * 256;

    if (!h.data) /* nobody else reads it */
        h.data = s->exchange;
    if (!y.data)
        y.data = (char *)s->exchange + row;
    if (!act.data)
        act.data = (char *)s->exchange + 2 * row;
    return launched(mi_cuda_gemv_residual(ctx->stream, &s->single[OF_O], c->a, c->o, c->o_bias, c->x, h), error) &&
           launched(mi_cuda_gemv_gated(ctx->stream, &s->single[OF_GATED], h, c->norm, c->gate, c->up, act), error) &&
           launched(mi_cuda_gemv_residual(ctx->stream, &s->single[OF_DOWN], act, c->down, c->down_bias, h, y), error) &&
           (n <= N_MLP || launched(mi_cuda_gemv_qkv(ctx->stream, &s->single[OF_HEADS], y, c->next_norm, &c->qkv), error));
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
    return settle(s, at, call->n, error) &&
           (s->singly ? run_singly(s, ctx, at, call->n, &c, error)
                      : launched(mi_cuda_quant_layer(ctx->stream, &s->plan, &c), error)) &&
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

MI_PLUGIN("quant_layer_cuda", "0.1", "What a layer of 4 or 8 bit does between one attention and the next, as one kernel or three",
          MI_FEATURE_FUSION("quant_layer", "cuda", &mlp, NULL), MI_FEATURE_FUSION("quant_layer_heads", "cuda", &heads, NULL));
