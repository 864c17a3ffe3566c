/* stubs.c - every name a program needs, and nothing behind it: for tests of
 * what is resolved, fused and planned.  On a backend of their own, so that they
 * and the real ones may be loaded together. */
#include <miniinfer/plugin.h>

static bool run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    (void)state, (void)ctx, (void)call;
    g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED, "a stub");
    return false;
}

static bool prepare(MiContext *ctx, const MiCall *call, void **state, size_t *workspace, GError **error)
{
    (void)ctx, (void)state, (void)error;
    *workspace = 1024 * (size_t)call->at->out[0].shape[0];
    return true;
}

#define STUB(name, ins, attr, ...) \
    static const MiOp name = {           \
        .struct_size = sizeof name, .n_in = ins, .n_out = 1, .attr_size = attr, .run = run, __VA_ARGS__ }
STUB(embed, 0, 0, .n_weights = 1);
STUB(rmsnorm, 1, sizeof(MiNorm), .n_weights = 1, .inplace = 1);
STUB(rope, 2, sizeof(MiRotate), .inplace = 1);
STUB(kv_append, 2, 0, .inplace = 0);
STUB(output_rows, 1, 0, .inplace = 0);
STUB(add, 2, 0, .inplace = 3);
STUB(mul, 2, 0, .inplace = 3);
STUB(silu, 1, sizeof(MiActivation), .inplace = 1);
STUB(simple_op, 2, sizeof(MiAttend), .inplace = 0);
STUB(dense_op, 1, 0, .n_weights = 1, .prepare = prepare);
STUB(norm_qkv_rope_op, 0, 0, .inplace = 0);
STUB(link_op, 1, 0, .inplace = 1);
STUB(draw_op, 1, 0, .inplace = 0);

static bool bytes(const MiWeight *parts, int n, MiDType dtype, const void *options, size_t *out, GError **error)
{
    (void)parts, (void)n, (void)dtype, (void)options, (void)error;
    *out = 0;
    return true;
}
static bool pack(MiContext *ctx, const MiWeight *parts, int n, const void *options, void *dst, MiOperand *out,
                 GError **error)
{
    (void)ctx, (void)parts, (void)n, (void)options, (void)dst, (void)out, (void)error;
    return true;
}
static const char *const formats[] = { "bf16", NULL };
static const MiLinear    dense = {
    .struct_size = sizeof dense, .formats = formats, .layout = "plain", .bytes = bytes, .pack = pack, .op = &dense_op,
};

static const MiPattern norm_qkv_rope_pattern[] = {
    { "rmsnorm", { 0 } },      /* 1 */
    { "linear", { 1 } },       /* 2: q */
    { "linear", { 1 } },       /* 3: k */
    { "linear", { 1 } },       /* 4: v */
    { "rope", { 2 } },         /* 5 */
    { "rope", { 3 } },         /* 6 */
    { "kv_append", { 6, 4 } }, /* 7 */
    { NULL, { 0 } },
};
static bool few_rows(const MiArgs *at, MiShape shape) { return at[0].node && shape.n_tokens <= 8; }
static const char *const layouts[] = { "plain", NULL };
static const MiFusion    norm_qkv_rope = {
    sizeof norm_qkv_rope, norm_qkv_rope_pattern, layouts, few_rows, &norm_qkv_rope_op,
};

typedef struct { float top_p; int32_t top_k; } Row;
static const MiOption params[] = {
    MI_OPTION(Row, top_p, "0.9", 0, 1, "the smallest set of tokens that has this share"),
    MI_OPTION(Row, top_k, "0", 0, 1 << 20, "of the likeliest so many; 0: all"),
    MI_OPTION_END,
};
static const MiSampler nucleus = { sizeof nucleus, params, sizeof(Row), false, NULL, &link_op };
static const MiSampler greedy = { sizeof greedy, NULL, 0, true, NULL, &draw_op };

static const char *const kv_layouts[] = { "contiguous", NULL };
static const MiAttention simple = {
    .struct_size = sizeof simple, .layouts = kv_layouts, .dtypes = 1u << MI_F32, .op = &simple_op,
};

MI_PLUGIN("stubs", "0", "Names without kernels",
          MI_FEATURE_OP("embed", "stub", &embed, NULL), MI_FEATURE_OP("rmsnorm", "stub", &rmsnorm, NULL),
          MI_FEATURE_OP("rope", "stub", &rope, NULL), MI_FEATURE_OP("kv_append", "stub", &kv_append, NULL),
          MI_FEATURE_OP("output_rows", "stub", &output_rows, NULL), MI_FEATURE_OP("add", "stub", &add, NULL),
          MI_FEATURE_OP("mul", "stub", &mul, NULL), MI_FEATURE_OP("silu", "stub", &silu, NULL),
          MI_FEATURE_ATTENTION("simple", "stub", &simple, NULL), MI_FEATURE_LINEAR("stub", "*", &dense, NULL),
          MI_FEATURE_FUSION("norm_qkv_rope", "stub", &norm_qkv_rope, NULL),
          MI_FEATURE_SAMPLER("stub_nucleus", "*", &nucleus, NULL), MI_FEATURE_SAMPLER("stub_draw", "*", &greedy, NULL));
