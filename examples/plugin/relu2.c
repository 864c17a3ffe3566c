/* relu2.c - an activation: squared ReLU, y = max(0, x)^2.
 *
 * A model names its activation in config.json: "hidden_act": "acme.relu2" is all
 * it takes to use this one.  For CPUs, f32; other types are refused by name when
 * the model is assembled, before a weight is read. */
#define MI_LICENCE "MIT"
#include <miniinfer/plugin.h>

/* One share of the rows.  Padded rows are computed like others: nobody reads them. */
static void some_rows(void *arg, int part, int n_parts)
{
    const MiArgs   *a = arg;
    const MiTensor *x = &a->in[0], *y = &a->out[0];
    const int64_t   n_rows = x->shape[0];

    for (int64_t r = n_rows * part / n_parts; r < n_rows * (part + 1) / n_parts; r++) {
        const float *from = (const float *)x->data + r * x->stride[0];
        float       *to = (float *)y->data + r * y->stride[0];
        for (int64_t i = 0; i < x->shape[1]; i++)
            to[i] = from[i] > 0 ? from[i] * from[i] : 0;
    }
}

static bool prepare(MiContext *ctx, const MiCall *call, void **state, size_t *workspace, GError **error)
{
    const MiTensor *x = &call->at->in[0];

    (void)ctx, (void)state, (void)workspace;
    if (x->dtype == MI_F32 && x->ndim == 2)
        return true;
    g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED, "op 'acme.relu2' takes f32 rows; set [engine] dtype = fp32");
    return false;
}

static bool run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    (void)state, (void)error;
    if (MI_HAS(ctx->backend, parallel))
        ctx->backend->parallel(ctx->device, some_rows, (void *)call->at);
    else
        some_rows((void *)call->at, 0, 1);
    return true;
}

static const MiOp relu2 = {
    .struct_size = sizeof relu2, .n_in = 1, .n_out = 1, .attr_size = sizeof(MiActivation),
    .inplace = 1, /* element by element: y may be x */
    .prepare = prepare, .run = run,
};

MI_PLUGIN("acme_relu2", "1.0", "Squared ReLU", MI_FEATURE_OP("acme.relu2", "cpu", &relu2, NULL));
