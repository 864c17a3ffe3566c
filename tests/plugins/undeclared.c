/* undeclared.c - features that promise nothing about the batch, of ranks above all others: [engine] deterministic =
 * batch passes them over, or refuses them where they are named.  Nothing here ever runs. */
#include <miniinfer/plugin.h>

static bool run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    (void)state, (void)ctx, (void)call;
    g_set_error(error, MI_ERROR, MI_ERROR_PLUGIN, "undeclared.so is for plans only");
    return false;
}

static bool bytes(const MiWeight *parts, int n, MiDType dtype, const void *options, size_t *out, GError **error)
{
    (void)parts, (void)n, (void)dtype, (void)options, (void)error;
    *out = 1000;
    return true;
}

static bool pack(MiContext *ctx, const MiWeight *parts, int n, const void *options, void *dst, MiOperand *out,
                 GError **error)
{
    (void)ctx, (void)parts, (void)n, (void)options, (void)dst, (void)out;
    return run(NULL, NULL, NULL, error);
}

static const MiOp link_op = { .struct_size = sizeof link_op, .n_in = 1, .n_out = 1, .run = run };
static const MiOp silu = {
    .struct_size = sizeof silu, .n_in = 1, .n_out = 1, .attr_size = sizeof(MiActivation), .run = run,
};
static const MiOp linear_op = { .struct_size = sizeof linear_op, .n_in = 1, .n_out = 1, .n_weights = 1, .run = run };
static const MiOp attention_op = {
    .struct_size = sizeof attention_op, .n_in = 2, .n_out = 1, .attr_size = sizeof(MiAttend), .run = run,
};
static const MiOp gated_op = { .struct_size = sizeof gated_op, .run = run };

static const char *const formats[] = { "f32", NULL };
static const char *const layouts[] = { "contiguous", "paged", NULL };
static const MiPattern   pattern[] = { { "silu", { 0 } }, { "mul", { 1, 0 } }, { NULL, { 0 } } };

static const MiLinear linear = {
    .struct_size = sizeof linear, .formats = formats, .layout = "plain", .rank = 1000,
    .bytes = bytes, .pack = pack, .op = &linear_op,
};
static const MiAttention attention = {
    .struct_size = sizeof attention, .layouts = layouts, .dtypes = 1u << MI_F32 | 1u << MI_F16, .prefill = true,
    .decode = true, .rank = 1000, .op = &attention_op,
};
static const MiSampler link = { .struct_size = sizeof link, .op = &link_op };
static const MiFusion  gated = { .struct_size = sizeof gated, .pattern = pattern, .op = &gated_op };

MI_PLUGIN("undeclared", "1", "Features that promise nothing about the batch",
          MI_FEATURE_OP("acme.silu", "cpu", &silu, NULL),
          MI_FEATURE_LINEAR("acme.linear", "cpu", &linear, NULL),
          MI_FEATURE_ATTENTION("acme.attention", "cpu", &attention, NULL),
          MI_FEATURE_SAMPLER("acme.link", "cpu", &link, NULL), MI_FEATURE_FUSION("acme.gated", "cpu", &gated, NULL));
