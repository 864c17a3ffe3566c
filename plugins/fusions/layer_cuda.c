/* layer_cuda.c - all that a layer does between one attention and the next as four products on the tensor
 * cores of compute capability 9.0, each with what comes before and after it.
 *
 * For bf16 and weights of layout "plain", and the rows where that is faster than the kernels of
 * decode_cuda.c, which are made for few, and prefill_cuda.c, which leaves large products to cuBLASLt. */
#include <cuda/layer.h>
#include <miniinfer/plugin.h>
#include <string.h>

#include "lines_cuda.h"
#include "parts_cuda.h"

static const char *const layouts[] = {"plain", NULL};

enum { O, O_ADD, NORM, GATE, UP, SILU, MUL, DOWN, DOWN_ADD, N_MLP, NEXT_NORM = N_MLP, Q, K, V, ROPE_Q, ROPE_K, APPEND };

static const MiPattern mlp_pattern[] = {MLP_LINES, {NULL, {0}}};
static const MiPattern heads_pattern[] = {
    MLP_LINES,
    [NEXT_NORM] = {"rmsnorm", {1 + DOWN_ADD}},
    QKV_LINES(NEXT_NORM),
    ROPE_LINES,
    {NULL, {0}},
};

/* The same with each head of q and k normed, as in Qwen3. */
enum { NORM_Q = V + 1, NORM_K, NORMED_ROPE_Q, NORMED_ROPE_K, NORMED_APPEND };
static const MiPattern normed_pattern[] = {
    MLP_LINES,
    [NEXT_NORM] = {"rmsnorm", {1 + DOWN_ADD}},
    QKV_LINES(NEXT_NORM),
    NORMED_ROPE_LINES,
    {NULL, {0}},
};

/* ---- what fits ----------------------------------------------------------------------- */

/* Rows one after the other, each in one piece. */
static bool packed(const MiTensor *t)
{
    int64_t n = 1;
    for (int i = t->ndim - 1; i > 0; n *= t->shape[i--])
        if (t->stride[i] != n)
            return false;
    return t->dtype == MI_BF16 && n % 8 == 0 && t->stride[0] == n;
}

static bool no_bias(const MiArgs *linear) { return linear->node->weight[1] == NULL; }
static int32_t narrow(int64_t n) { return (int32_t)CLAMP(n, 0, INT32_MAX); }

/* rope: of q, after it come k's and the append; NULL: there are none. */
static MiLayerShape shape_of(const MiArgs *at, const MiArgs *rope)
{
    const MiTensor *a = &at[O].in[0];
    MiLayerShape    s = {.rows = narrow(a->shape[0]),
                         .hidden = narrow(at[O].out[0].shape[1]),
                         .ff = narrow(at[GATE].out[0].shape[1]),
                         .heads_width = narrow(at[O].node->weight[0]->shape[1])};

    if (rope) {
        s.n_heads = narrow(rope[0].in[0].shape[1]);
        s.n_kv_heads = narrow(rope[1].in[0].shape[1]);
        s.head_dim = narrow(rope[0].in[0].shape[2]);
        s.interleaved = ((const MiRotate *)rope[0].node->attr)->style == MI_ROPE_INTERLEAVED;
    }
    return s;
}

static bool possible(MiLayerShape s)
{
    MiLayer   *l = NULL;
    const bool ok = mi_cuda_layer_new(&l, &s) == 0;

    mi_cuda_layer_free(l);
    return ok;
}

static bool mlp_fits(const MiArgs *at)
{
    const MiTensor *t[] = {&at[O].in[0], &at[O_ADD].in[0], &at[O_ADD].out[0], &at[MUL].out[0], &at[DOWN_ADD].out[0]};

    for (size_t i = 0; i < G_N_ELEMENTS(t); i++)
        if (!packed(t[i]) || (i && t[i]->ndim != 2))
            return false;
    return no_bias(&at[GATE]) && no_bias(&at[UP]) && at[UP].out[0].shape[1] == at[GATE].out[0].shape[1];
}

/* Where these kernels are faster than what decode_cuda.c and prefill_cuda.c have for the same rows (docs/performance.md):
 * in wide models cuBLASLt's large tiles win beyond 256, and kernels for one or two rows do below. */
enum { MIN_ROWS = 3, MOST_WIDE = 256 };

static bool wins(const MiArgs *at, MiShape shape)
{
    return shape.n_tokens >= MIN_ROWS && shape.n_tokens <= (at[O].out[0].shape[1] <= 1024 ? MI_LAYER_MAX_ROWS : MOST_WIDE);
}

static bool mlp_match(const MiArgs *at, MiShape shape)
{
    return wins(at, shape) && mlp_fits(at) && possible(shape_of(at, NULL));
}

static bool heads_fit(const MiArgs *at, const MiArgs *rope)
{
    const MiTensor *q = &rope[0].in[0], *k = &rope[1].in[0], *v = &rope[2].in[1];
    const MiRotate *r = rope[0].node->attr;

    return mlp_fits(at) && q->ndim == 3 && k->ndim == 3 && v->ndim == 3 && packed(&rope[0].out[0]) && r->dim == q->shape[2] &&
           memcmp(r, rope[1].node->attr, sizeof *r) == 0 && rope[0].node->in[1].id == rope[1].node->in[1].id &&
           q->shape[1] * q->shape[2] == at[Q].out[0].shape[1] && k->shape[1] * k->shape[2] == at[K].out[0].shape[1] &&
           q->shape[2] == k->shape[2] && v->shape[1] == k->shape[1] && v->shape[2] == k->shape[2] &&
           at[V].out[0].shape[1] == at[K].out[0].shape[1] && possible(shape_of(at, rope));
}

static bool heads_match(const MiArgs *at, MiShape shape) { return wins(at, shape) && heads_fit(at, &at[ROPE_Q]); }

static bool normed_match(const MiArgs *at, MiShape shape)
{
    return wins(at, shape) && memcmp(at[NORM_Q].node->attr, at[NORM_K].node->attr, sizeof(MiNorm)) == 0 && at[NORM_Q].in[0].ndim == 3 &&
           at[NORM_K].in[0].ndim == 3 && heads_fit(at, &at[NORMED_ROPE_Q]);
}

/* ---- running ---------------------------------------------------------------------------- */

static const MiArgs *rope_of(const MiCall *call)
{
    return call->n <= N_MLP ? NULL : &call->at[call->n > APPEND + 1 ? NORMED_ROPE_Q : ROPE_Q];
}

static void release(void *state) { mi_cuda_layer_free(state); }

static bool prepare(MiContext *ctx, const MiCall *call, void **state, size_t *workspace, GError **error)
{
    const MiArgs      *rope = rope_of(call);
    const MiLayerShape shape = shape_of(call->at, rope);
    MiLayer           *l;

    (void)ctx;
    if (!launched(mi_cuda_layer_new(&l, &shape), error))
        return false;
    *state = l;
    *workspace = mi_cuda_layer_workspace(l);
    return true;
}

static bool run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    const MiArgs *at = call->at, *rope = rope_of(call);
    MiLayerCall   c = {.a = at[O].in[0],
                       .x = at[O_ADD].in[0],
                       .y = at[DOWN_ADD].out[0],
                       .h = at[O_ADD].out[0],
                       .act = at[MUL].out[0],
                       .o = at[O].weight[0].tensor.data,
                       .gate = at[GATE].weight[0].tensor.data,
                       .up = at[UP].weight[0].tensor.data,
                       .down = at[DOWN].weight[0].tensor.data,
                       .o_bias = at[O].weight[1].tensor.data,
                       .down_bias = at[DOWN].weight[1].tensor.data,
                       .norm = norm_of(&at[NORM]),
                       .workspace = call->workspace};

    if (rope) {
        const MiRotate *r = rope[0].node->attr;

        c.next_norm = norm_of(&at[NEXT_NORM]);
        c.qkv = (MiGemvQkv){.freqs = rope[0].in[1].data,
                            .positions = call->batch->positions,
                            .magnitude = r->magnitude,
                            .q = rope[0].out[0],
                            .kv = *rope[2].kv};
        if (c.qkv.kv.dtype != MI_BF16 && c.qkv.kv.dtype != MI_F16 && c.qkv.kv.dtype != MI_F32 && !mi_dtype_scaled(c.qkv.kv.dtype)) {
            g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED,
                        "it writes a cache of f32, f16, bf16, fp8 or int8; set [engine] kv_dtype");
            return false;
        }
        for (int i = 0; i < 2 && rope == &at[NORMED_ROPE_Q]; i++) {
            const MiGemvNorm n = norm_of(&at[NORM_Q + i]);
            c.qkv.head_gain[i] = n.gain;
            c.qkv.head_eps = n.eps;
            c.qkv.head_offset = n.offset;
        }
        for (int i = 0; i < 3; i++) {
            c.qkv.w[i] = at[Q + i].weight[0].tensor.data;
            c.qkv.bias[i] = at[Q + i].weight[1].tensor.data;
        }
    }
    return launched(mi_cuda_layer(ctx->stream, state, &c), error);
}

static const MiOp     op = {.struct_size = sizeof op, .prepare = prepare, .run = run, .release = release};
static const MiFusion mlp = {
    .struct_size = sizeof mlp, .pattern = mlp_pattern, .layouts = layouts, .match = mlp_match, .op = &op};
static const MiFusion heads = {
    .struct_size = sizeof heads, .pattern = heads_pattern, .layouts = layouts, .match = heads_match, .op = &op, .scales = true};
static const MiFusion normed = {
    .struct_size = sizeof normed, .pattern = normed_pattern, .layouts = layouts, .match = normed_match, .op = &op, .scales = true};

MI_PLUGIN("layer_cuda", "0.1", "What a layer does between one attention and the next, as four kernels",
          MI_FEATURE_FUSION("layer", "cuda", &mlp, NULL), MI_FEATURE_FUSION("layer_heads", "cuda", &heads, NULL),
          MI_FEATURE_FUSION("layer_normed_heads", "cuda", &normed, NULL));
