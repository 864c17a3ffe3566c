/* temperature.c - logits / temperature: below 1 the likely become likelier.
 *
 * At 0, or so near to it that a quotient leaves the range of floats, only the
 * likeliest token stays (of several the lowest id): what draws then has no choice. */
#include "softmax.h"

static void row(const MiCall *call, int i, float *x, int n)
{
    const float t = ROW(TemperatureRow, call, i)->temperature, max = largest(x, n);

    if (t == 1 || !candidate(max))
        return;
    if (!(t > 0) || !isfinite(max / t)) {
        const int first = argmax(x, n);
        for (int k = 0; k < n; k++)
            x[k] = k == first ? 0 : -INFINITY;
        return;
    }
    for (int k = 0; k < n; k++)
        x[k] /= t;
}

static bool run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    (void)state, (void)error;
    return each_row(ctx, call, row, false);
}

static const MiOp temperature_op = {
    .struct_size = sizeof temperature_op, .n_in = 1, .n_out = 1, .inplace = 1, .prepare = check_logits, .run = run,
    .batch_invariant = true,
};

static const MiSampler temperature = {
    .struct_size = sizeof temperature, .params = temperature_params,
    .row_size = sizeof(TemperatureRow), .wants = temperature_wants, .op = &temperature_op,
};

MI_PLUGIN("temperature", "0.1", "Divides the logits",
          MI_FEATURE_SAMPLER("temperature", "cpu", &temperature, NULL));
