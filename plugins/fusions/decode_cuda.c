/* decode_cuda.c - the linears of a decode step with what comes before and after
 * them, for NVIDIA cards from Hopper on.
 *
 * Up to MI_GEMV_MAX_ROWS rows of bf16 and weights of layout "plain", up to MI_GEMV_FEW_ROWS and weights
 * of "int8", "int4", E4M3 and "stored" (not in act order; those of one kernel in one form); a bucket of more rows,
 * another dtype or another card takes the fusions of
 * prefill_cuda.c or the operations. */
#include <cuda/gemv.h>
#include <cuda/ops.h>
#include <miniinfer/plugin.h>
#include <string.h>

#include "left_cuda.h"
#include "lines_cuda.h"
#include "parts_cuda.h"
#include <linear/stored_cuda.h>

static const char *const layouts[] = {"plain", "int8", "int4", "fp8", "fp8.blocks", "stored", NULL}, *const plain[] = {"plain", NULL};

/* ---- what all of them share ------------------------------------------------------ */

/* Rows one after the other, each in one piece that 16-byte loads can read. */
static bool packed(const MiTensor *t)
{
    int64_t n = 1;
    for (int i = t->ndim - 1; i > 0; n *= t->shape[i--])
        if (t->stride[i] != n)
            return false;
    return t->dtype == MI_BF16 && n % 8 == 0 && t->stride[0] % 8 == 0;
}

static bool has_bias(const MiArgs *linear) { return linear->node->weight[1] != NULL; }

/* How the weights will lie, at the worst: they are not there yet; 1 bit: not as these kernels read them. */
static MiQuantForm form_of(const MiArgs *linear)
{
    const char     *layout = linear->weight[0].layout;
    const MiWeight *w = linear->node->weight[0];
    MiQuantForm     stored = {.bits = 1};

    if (strcmp(layout, "stored") == 0 && !stored_cuda_ordered(w))
        (void)stored_cuda_form(w, &stored, NULL);
    return strcmp(layout, "int8") == 0         ? (MiQuantForm){.bits = 8}
           : strcmp(layout, "int4") == 0       ? (MiQuantForm){.bits = 4, .group = 32, .zeros = true}
           : strcmp(layout, "fp8") == 0        ? (MiQuantForm){.bits = MI_QUANT_E4M3}
           : strcmp(layout, "fp8.blocks") == 0 ? (MiQuantForm){.bits = MI_QUANT_E4M3, .group = 128}
           : strcmp(layout, "stored") == 0     ? stored
                                               : (MiQuantForm){0};
}

static bool same_form(const MiArgs *a, const MiArgs *b)
{
    const MiQuantForm f = form_of(a), g = form_of(b);
    return strcmp(a->weight[0].layout, b->weight[0].layout) == 0 && memcmp(&f, &g, sizeof f) == 0;
}

/* Of n linears next to each other: how they do lie. */
static bool settle(MiGemvPlan *p, const MiArgs *linear, int n, GError **error)
{
    for (int i = 1; i < n && p->form.bits; i++)
        if (memcmp(linear[i].weight[0].ext, linear->weight[0].ext, sizeof(MiQuantForm))) {
            g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED, "its weights are not all of one form");
            return false;
        }
    for (int i = 0; i < n; i++)
        p->scales[i] = linear[i].weight[0].scales;
    return !p->form.bits || launched(mi_cuda_gemv_form(p, linear->weight[0].ext), error);
}

/* x: what the norm or the linear reads; n_out: rows of W. */
static MiGemvPlan plan_of(MiGemvKind kind, const MiTensor *x, int64_t rows, int64_t in, int64_t n_out,
                          const MiArgs *linear)
{
    return (MiGemvPlan){.kind = kind,
                        .dtype = x->dtype,
                        .rows = (int32_t)MIN(rows, INT32_MAX),
                        .in = (int32_t)MIN(in, INT32_MAX),
                        .out = (int32_t)MIN(n_out, INT32_MAX),
                        .form = form_of(linear)};
}

static bool possible(MiGemvPlan plan) { return mi_cuda_gemv_plan(&plan) == 0; }

static bool keep(MiGemvPlan plan, void **state, GError **error)
{
    const int e = mi_cuda_gemv_plan(&plan);

    *state = g_memdup2(&plan, sizeof plan);
    return launched(e, error);
}

/* ---- norm, q, k, v, rope, append --------------------------------------------------- */

enum { QKV_NORM, Q, K, V, ROPE_Q, ROPE_K, APPEND };
static const MiPattern qkv_pattern[] = {
    [QKV_NORM] = {"rmsnorm", {0}},
    QKV_LINES(QKV_NORM),
    ROPE_LINES,
    {NULL, {0}},
};

/* The same with each head of q and k normed, as in Qwen3. */
enum { NORM_Q = V + 1, NORM_K, NORMED_ROPE_Q, NORMED_ROPE_K, NORMED_APPEND };
static const MiPattern normed_pattern[] = {
    [QKV_NORM] = {"rmsnorm", {0}},
    QKV_LINES(QKV_NORM),
    NORMED_ROPE_LINES,
    {NULL, {0}},
};

/* rope: of q; after it comes k's, then the append. */
static MiGemvPlan qkv_plan(const MiArgs *at, const MiArgs *rope)
{
    const MiTensor *x = &at[QKV_NORM].in[0];
    MiGemvPlan p = plan_of(MI_GEMV_QKV, x, x->shape[0], x->shape[1], at[Q].out[0].shape[1] + 2 * at[K].out[0].shape[1],
                           &at[Q]);

    p.norm_dim = rope == &at[NORMED_ROPE_Q] ? (int32_t)rope->in[0].shape[2] : 0;
    return p;
}

static bool qkv_fits(const MiArgs *at, const MiArgs *rope)
{
    const MiTensor *x = &at[QKV_NORM].in[0], *q = &rope[0].in[0], *k = &rope[1].in[0], *v = &rope[2].in[1];
    const MiRotate *r = rope[0].node->attr;

    return x->ndim == 2 && packed(x) && q->ndim == 3 && k->ndim == 3 && v->ndim == 3 && packed(&rope[0].out[0]) &&
           q->shape[1] * q->shape[2] == at[Q].out[0].shape[1] && k->shape[1] * k->shape[2] == at[K].out[0].shape[1] &&
           v->shape[1] == k->shape[1] && v->shape[2] == k->shape[2] && q->shape[2] == k->shape[2] &&
           at[V].out[0].shape[1] == at[K].out[0].shape[1] && memcmp(r, rope[1].node->attr, sizeof *r) == 0 &&
           rope[0].node->in[1].id == rope[1].node->in[1].id && same_form(&at[Q], &at[K]) &&
           same_form(&at[Q], &at[V]) &&
           mi_cuda_gemv_qkv_takes((int32_t)q->shape[2], r->dim, r->style == MI_ROPE_INTERLEAVED,
                                  form_of(&at[Q]).bits > 0) &&
           possible(qkv_plan(at, rope));
}

static bool qkv_match(const MiArgs *at, MiShape shape)
{
    (void)shape;
    return qkv_fits(at, &at[ROPE_Q]);
}

static bool normed_match(const MiArgs *at, MiShape shape)
{
    (void)shape;
    return memcmp(at[NORM_Q].node->attr, at[NORM_K].node->attr, sizeof(MiNorm)) == 0 && at[NORM_Q].in[0].ndim == 3 &&
           at[NORM_K].in[0].ndim == 3 && qkv_fits(at, &at[NORMED_ROPE_Q]);
}

static const MiArgs *rope_of(const MiCall *call) { return &call->at[call->n > APPEND + 1 ? NORMED_ROPE_Q : ROPE_Q]; }

static bool qkv_prepare(MiContext *ctx, const MiCall *call, void **state, size_t *workspace, GError **error)
{
    (void)ctx;
    *workspace = left_bytes(&rope_of(call)[1].in[0]);
    return keep(qkv_plan(call->at, rope_of(call)), state, error);
}

static bool qkv_run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    const MiArgs   *at = call->at, *rope = rope_of(call);
    const MiTensor *q = &rope[0].out[0], *k = &rope[1].in[0];
    const MiRotate *r = rope[0].node->attr;
    const bool      scaled = mi_dtype_scaled(rope[2].kv->dtype);
    MiGemvQkv       c = {
              .freqs = rope[0].in[1].data,
              .positions = call->batch->positions,
              .n_heads = (int32_t)q->shape[1],
              .n_kv_heads = (int32_t)k->shape[1],
              .head_dim = (int32_t)q->shape[2],
              .rope_dim = r->dim,
              .interleaved = r->style == MI_ROPE_INTERLEAVED,
              .magnitude = r->magnitude,
              .q = *q,
              .kv = scaled ? left_view(call->workspace, k) : *rope[2].kv,
    };

    if (c.kv.dtype != MI_BF16 && c.kv.dtype != MI_F16 && c.kv.dtype != MI_F32) {
        g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED,
                    "it writes a cache of f32, f16, bf16, fp8 or int8; set [engine] kv_dtype");
        return false;
    }
    for (int i = 0; i < 2 && call->n > APPEND + 1; i++) {
        const MiGemvNorm n = norm_of(&at[NORM_Q + i]);
        c.head_gain[i] = n.gain;
        c.head_eps = n.eps;
        c.head_offset = n.offset;
    }
    for (int i = 0; i < 3; i++) {
        c.w[i] = at[Q + i].weight[0].tensor.data;
        c.bias[i] = at[Q + i].weight[1].tensor.data;
    }
    return settle(state, &at[Q], 3, error) &&
           launched(mi_cuda_gemv_qkv(ctx->stream, state, at[QKV_NORM].in[0], norm_of(&at[QKV_NORM]), &c), error) &&
           (!scaled || launched(mi_cuda_kv_append(ctx->stream, left(call->workspace, k, 0), left(call->workspace, k, 1), rope[2].kv), error));
}

static const MiOp qkv_op = {.struct_size = sizeof qkv_op, .prepare = qkv_prepare, .run = qkv_run, .release = g_free};
static const MiFusion qkv = {
    .struct_size = sizeof qkv,
    .pattern = qkv_pattern,
    .layouts = layouts,
    .match = qkv_match,
    .op = &qkv_op,
    .scales = true,
};

static const MiFusion qkv_normed = {
    .struct_size = sizeof qkv_normed,
    .pattern = normed_pattern,
    .layouts = layouts,
    .match = normed_match,
    .op = &qkv_op,
    .scales = true,
};

/* ---- linear, add ---------------------------------------------------------------------- */

enum { LINEAR, ADD };
static const MiPattern residual_pattern[] = {
    [LINEAR] = {"linear", {0}},
    [ADD] = {"add", {0, 1 + LINEAR}},
    {NULL, {0}},
};

static MiGemvPlan residual_plan(const MiArgs *at)
{
    const MiTensor *x = &at[LINEAR].in[0];
    return plan_of(MI_GEMV_RESIDUAL, x, x->shape[0], at[LINEAR].node->weight[0]->shape[1], at[LINEAR].out[0].shape[1],
                   &at[LINEAR]);
}

static bool residual_match(const MiArgs *at, MiShape shape)
{
    const MiTensor *y = &at[ADD].out[0], *r = &at[ADD].in[0];

    (void)shape;
    return packed(&at[LINEAR].in[0]) && y->ndim == 2 && packed(y) && r->ndim == 2 && packed(r) &&
           possible(residual_plan(at));
}

static bool residual_prepare(MiContext *ctx, const MiCall *call, void **state, size_t *workspace, GError **error)
{
    (void)ctx, (void)workspace;
    return keep(residual_plan(call->at), state, error);
}

static bool residual_run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    const MiArgs *at = call->at;
    return settle(state, &at[LINEAR], 1, error) &&
           launched(mi_cuda_gemv_residual(ctx->stream, state, at[LINEAR].in[0], at[LINEAR].weight[0].tensor.data,
                                          at[LINEAR].weight[1].tensor.data, at[ADD].in[0], at[ADD].out[0]),
                    error);
}

static const MiOp residual_op = {
    .struct_size = sizeof residual_op,
    .prepare = residual_prepare,
    .run = residual_run,
    .release = g_free,
};
static const MiFusion residual = {
    .struct_size = sizeof residual,
    .pattern = residual_pattern,
    .layouts = layouts,
    .match = residual_match,
    .op = &residual_op,
};

/* ---- norm, gate, up, silu, mul ----------------------------------------------------------- */

enum { GATED_NORM, GATE, UP, SILU, MUL };
static const MiPattern gated_pattern[] = {
    [GATED_NORM] = {"rmsnorm", {0}}, [GATE] = {"linear", {1 + GATED_NORM}}, [UP] = {"linear", {1 + GATED_NORM}},
    [SILU] = {"silu", {1 + GATE}},   [MUL] = {"mul", {1 + SILU, 1 + UP}},   {NULL, {0}},
};

static MiGemvPlan gated_plan(const MiArgs *at)
{
    const MiTensor *x = &at[GATED_NORM].in[0];
    return plan_of(MI_GEMV_GATED, x, x->shape[0], x->shape[1], at[GATE].out[0].shape[1], &at[GATE]);
}

static bool gated_match(const MiArgs *at, MiShape shape)
{
    const MiTensor *x = &at[GATED_NORM].in[0], *y = &at[MUL].out[0];

    (void)shape;
    return x->ndim == 2 && packed(x) && y->ndim == 2 && packed(y) && !has_bias(&at[GATE]) && !has_bias(&at[UP]) &&
           same_form(&at[GATE], &at[UP]) && possible(gated_plan(at));
}

static bool gated_prepare(MiContext *ctx, const MiCall *call, void **state, size_t *workspace, GError **error)
{
    (void)ctx, (void)workspace;
    return keep(gated_plan(call->at), state, error);
}

static bool gated_run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    const MiArgs *at = call->at;
    return settle(state, &at[GATE], 2, error) &&
           launched(mi_cuda_gemv_gated(ctx->stream, state, at[GATED_NORM].in[0], norm_of(&at[GATED_NORM]),
                                       at[GATE].weight[0].tensor.data, at[UP].weight[0].tensor.data, at[MUL].out[0]),
                    error);
}

static const MiOp gated_op = {
    .struct_size = sizeof gated_op,
    .prepare = gated_prepare,
    .run = gated_run,
    .release = g_free,
};
static const MiFusion gated = {
    .struct_size = sizeof gated,
    .pattern = gated_pattern,
    .layouts = layouts,
    .match = gated_match,
    .op = &gated_op,
};

/* ---- o, add, norm, gate, up, silu, mul, down, add ------------------------------------------ */

/* Three kernels as above; the first, which waits for attention, knows what the other two read. */
enum { BACK_O, BACK_ADD, BACK_NORM, BACK_GATE, BACK_UP, BACK_SILU, BACK_MUL, BACK_DOWN, BACK_LAST };
static const MiPattern back_pattern[] = {
    [BACK_O] = {"linear", {0}},
    [BACK_ADD] = {"add", {0, 1 + BACK_O}},
    [BACK_NORM] = {"rmsnorm", {1 + BACK_ADD}},
    [BACK_GATE] = {"linear", {1 + BACK_NORM}},
    [BACK_UP] = {"linear", {1 + BACK_NORM}},
    [BACK_SILU] = {"silu", {1 + BACK_GATE}},
    [BACK_MUL] = {"mul", {1 + BACK_SILU, 1 + BACK_UP}},
    [BACK_DOWN] = {"linear", {1 + BACK_MUL}},
    [BACK_LAST] = {"add", {1 + BACK_ADD, 1 + BACK_DOWN}},
    {NULL, {0}},
};

/* What is fetched ahead leaves room for keys and values in a second-level cache of 50 MB. */
enum { MOST_AHEAD = 24 << 20 };

typedef struct {
    MiGemvPlan o, gated, down;
    size_t     act; /* where in the workspace its rows begin, after those of the residual */
} Back;

static Back back_plans(const MiArgs *at)
{
    return (Back){.o = residual_plan(at), .gated = gated_plan(at + BACK_NORM), .down = residual_plan(at + BACK_DOWN)};
}

static bool back_match(const MiArgs *at, MiShape shape)
{
    const MiTensor *x = &at[BACK_O].in[0], *r = &at[BACK_ADD].in[0], *y = &at[BACK_LAST].out[0];
    const MiTensor *h = &at[BACK_NORM].in[0], *act = &at[BACK_MUL].out[0];
    const Back      b = back_plans(at);

    return shape.n_tokens > MI_GEMV_FEW_ROWS && packed(x) && r->ndim == 2 && packed(r) && y->ndim == 2 && packed(y) &&
           h->ndim == 2 && packed(h) && act->ndim == 2 && packed(act) && !has_bias(&at[BACK_GATE]) &&
           !has_bias(&at[BACK_UP]) && possible(b.o) && possible(b.gated) && possible(b.down);
}

static bool back_prepare(MiContext *ctx, const MiCall *call, void **state, size_t *workspace, GError **error)
{
    const MiTensor *h = &call->at[BACK_NORM].in[0], *act = &call->at[BACK_MUL].out[0];
    Back           *b = g_new(Back, 1);

    (void)ctx;
    *b = back_plans(call->at);
    *state = b;
    b->act = (size_t)(h->shape[0] * h->shape[1]) * mi_dtype_size(h->dtype);
    b->act = (b->act + 255) / 256 * 256;
    *workspace = b->act + (size_t)(act->shape[0] * act->shape[1]) * mi_dtype_size(act->dtype);
    return launched(mi_cuda_gemv_plan(&b->o), error) && launched(mi_cuda_gemv_plan(&b->gated), error) &&
           launched(mi_cuda_gemv_plan(&b->down), error);
}

static bool back_run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    const MiArgs *at = call->at;
    const Back   *b = state;
    const void   *gate = at[BACK_GATE].weight[0].tensor.data, *up = at[BACK_UP].weight[0].tensor.data;
    const void   *down = at[BACK_DOWN].weight[0].tensor.data;
    MiGemvPlan    o = b->o;
    MiTensor      h = at[BACK_NORM].in[0], act = at[BACK_MUL].out[0];
    const int64_t blocks = b->gated.grid / b->gated.split;

    if (!h.data) /* nobody else reads it */
        h.data = call->workspace;
    if (!act.data)
        act.data = (char *)call->workspace + b->act;
    o.later[0] = mi_cuda_gemv_later(&b->gated, gate, MOST_AHEAD / 2 / blocks);
    o.later[1] = mi_cuda_gemv_later(&b->gated, up, MOST_AHEAD / 2 / blocks);
    if (o.later[0].bytes == o.later[0].stride)
        o.later[2] = mi_cuda_gemv_later(&b->down, down, MOST_AHEAD / 2 / blocks);
    return launched(mi_cuda_gemv_residual(ctx->stream, &o, at[BACK_O].in[0], at[BACK_O].weight[0].tensor.data,
                                          at[BACK_O].weight[1].tensor.data, at[BACK_ADD].in[0], h),
                    error) &&
           launched(mi_cuda_gemv_gated(ctx->stream, &b->gated, h, norm_of(&at[BACK_NORM]), gate, up, act), error) &&
           launched(mi_cuda_gemv_residual(ctx->stream, &b->down, act, down, at[BACK_DOWN].weight[1].tensor.data, h,
                                          at[BACK_LAST].out[0]),
                    error);
}

static const MiOp back_op = {
    .struct_size = sizeof back_op,
    .prepare = back_prepare,
    .run = back_run,
    .release = g_free,
};
static const MiFusion back = {
    .struct_size = sizeof back,
    .pattern = back_pattern,
    .layouts = plain,
    .match = back_match,
    .op = &back_op,
};

/* ---- output rows, norm, head, and perhaps the draw ------------------------------------------ */

enum { ROWS, HEAD_NORM, HEAD, DRAW };
static const MiPattern head_pattern[] = {
    [ROWS] = {"output_rows", {0}},
    [HEAD_NORM] = {"rmsnorm", {1 + ROWS}},
    [HEAD] = {"linear", {1 + HEAD_NORM}},
    {NULL, {0}},
};
static const MiPattern greedy_pattern[] = {
    [ROWS] = {"output_rows", {0}},
    [HEAD_NORM] = {"rmsnorm", {1 + ROWS}},
    [HEAD] = {"linear", {1 + HEAD_NORM}},
    [DRAW] = {"sampler:greedy", {1 + HEAD}},
    {NULL, {0}},
};

static MiGemvPlan head_plan(const MiArgs *at)
{
    const MiTensor *y = &at[HEAD].out[0];
    return plan_of(MI_GEMV_HEAD, &at[ROWS].in[0], y->shape[0], at[ROWS].in[0].shape[1], y->shape[1], &at[HEAD]);
}

static bool head_match(const MiArgs *at, MiShape shape)
{
    const MiTensor *x = &at[ROWS].in[0], *y = &at[HEAD].out[0];

    (void)shape;
    return x->ndim == 2 && packed(x) && y->ndim == 2 && y->dtype == MI_F32 && y->stride[1] == 1 && y->shape[0] <= MI_GEMV_HEAD_ROWS &&
           !has_bias(&at[HEAD]) && possible(head_plan(at));
}

static bool head_prepare(MiContext *ctx, const MiCall *call, void **state, size_t *workspace, GError **error)
{
    const MiGemvPlan plan = head_plan(call->at);

    (void)ctx;
    if (!keep(plan, state, error))
        return false;
    if (call->n > DRAW)
        *workspace = (size_t)plan.rows * (size_t)((const MiGemvPlan *)*state)->grid * sizeof(MiCandidate);
    return true;
}

static bool head_run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    const MiArgs     *at = call->at;
    MiGemvPlan       *plan = state;
    const MiBatch    *b = call->batch;
    const int32_t     rows = (int32_t)at[HEAD].out[0].shape[0];

    return settle(plan, &at[HEAD], 1, error) &&
           launched(mi_cuda_gemv_head(ctx->stream, plan, at[ROWS].in[0], b->out_rows, norm_of(&at[HEAD_NORM]),
                                      at[HEAD].weight[0].tensor.data, at[HEAD].out[0], call->workspace),
                    error) &&
           (call->n <= DRAW || launched(mi_cuda_gemv_pick(ctx->stream, call->workspace, plan->grid, rows,
                                                          at[DRAW].out[0].data, b->drawn, b->out_slot),
                                        error));
}

static const MiOp head_op = {
    .struct_size = sizeof head_op,
    .prepare = head_prepare,
    .run = head_run,
    .release = g_free,
};
static const MiFusion head = {
    .struct_size = sizeof head,
    .pattern = head_pattern,
    .layouts = layouts,
    .match = head_match,
    .op = &head_op,
};
static const MiFusion greedy = {
    .struct_size = sizeof greedy,
    .pattern = greedy_pattern,
    .layouts = layouts,
    .match = head_match,
    .op = &head_op,
};

MI_PLUGIN("decode_cuda", "0.1", "Linears of a decode step with their neighbours in one kernel each",
          MI_FEATURE_FUSION("norm_qkv_rope", "cuda", &qkv, NULL),
          MI_FEATURE_FUSION("norm_qkv_norm_rope", "cuda", &qkv_normed, NULL),
          MI_FEATURE_FUSION("linear_residual", "cuda", &residual, NULL),
          MI_FEATURE_FUSION("norm_gate_up", "cuda", &gated, NULL), MI_FEATURE_FUSION("o_mlp", "cuda", &back, NULL), MI_FEATURE_FUSION("norm_head", "cuda", &head, NULL),
          MI_FEATURE_FUSION("norm_head_greedy", "cuda", &greedy, NULL));
