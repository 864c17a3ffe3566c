/* sampler.c - a link of the sampling chain with a request field of its own:
 * epsilon sampling removes the tokens whose probability is below epsilon_cutoff,
 * all but the likeliest.  Hewitt, Manning and Liang, "Truncation Sampling as
 * Language Model Desmoothing", 2022.
 *
 *   [sampler] chain = temperature, acme.epsilon, multinomial
 *   [sampler] epsilon_cutoff = 0.001         the default of requests that do not say */
#define MI_LICENCE "MIT"
#include <math.h>
#include <miniinfer/plugin.h>
#include <string.h>

/* What a request may say: the engine fills one for each row from this table. */
typedef struct { float epsilon_cutoff; } Row;

static const MiOption params[] = {
    MI_OPTION(Row, epsilon_cutoff, "0", 0, 1, "removes tokens less probable than this; 0: none"),
    MI_OPTION_END,
};

/* x: [n] logits; a removed one is -INFINITY. */
static void cut(float *x, int64_t n, float epsilon)
{
    float  max = -INFINITY;
    double sum = 0;

    for (int64_t i = 0; i < n; i++)
        max = x[i] > max ? x[i] : max;
    for (int64_t i = 0; i < n; i++)
        sum += exp((double)x[i] - max);
    for (int64_t i = 0; i < n; i++)
        if (x[i] < max && exp((double)x[i] - max) < epsilon * sum)
            x[i] = -INFINITY;
}

/* A request that leaves it at 0 costs nothing. */
static bool wants(const void *row) { return ((const Row *)row)->epsilon_cutoff > 0; }

static bool run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    const MiTensor *in = &call->at->in[0], *out = &call->at->out[0]; /* f32 [n_out, vocabulary] */
    const Row      *rows = call->at->rows;

    (void)state, (void)ctx, (void)error;
    for (int i = 0; i < call->shape.n_out; i++) {
        float *x = (float *)out->data + i * out->stride[0];
        if (call->batch->out_slot[i] < 0)
            continue; /* padding */
        if (out->data != in->data)
            memcpy(x, (const float *)in->data + i * in->stride[0], sizeof *x * (size_t)in->shape[1]);
        cut(x, in->shape[1], rows[i].epsilon_cutoff);
    }
    return true;
}

static const MiOp epsilon_op = {
    .struct_size = sizeof epsilon_op, .n_in = 1, .n_out = 1, .inplace = 1, .run = run,
};

static const MiSampler epsilon = {
    .struct_size = sizeof epsilon, .params = params, .row_size = sizeof(Row), .wants = wants, .op = &epsilon_op,
};

MI_PLUGIN("acme_sampler", "1.0", "Epsilon sampling", MI_FEATURE_SAMPLER("acme.epsilon", "cpu", &epsilon, NULL));
