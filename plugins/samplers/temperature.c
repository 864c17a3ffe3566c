/* temperature.c - logits / temperature: below 1 the likely become likelier.
 *
 * At 0, or so near to it that a quotient leaves the range of floats, only the
 * likeliest token stays (of several the lowest id): what draws then has no choice. */
#include "softmax.h"

typedef struct { float temperature; } Row;

static const MiOption params[] = {
    MI_OPTION(Row, temperature, "0.7", 0, 100, "divides the logits; 0: the likeliest token only"),
    MI_OPTION_END,
};

static void row(const MiCall *call, int i, float *x, int n)
{
    const float t = ROW(Row, call, i)->temperature, max = largest(x, n);

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

static bool wants(const void *row) { return ((const Row *)row)->temperature != 1; }

static bool run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    (void)state, (void)error;
    return each_row(ctx, call, row, false);
}

static const MiOp temperature_op = {
    .struct_size = sizeof temperature_op, .n_in = 1, .n_out = 1, .inplace = 1, .prepare = check_logits, .run = run,
};

static const MiSampler temperature = {
    .struct_size = sizeof temperature, .params = params, .row_size = sizeof(Row), .wants = wants, .op = &temperature_op,
};

MI_PLUGIN("temperature", "0.1", "Divides the logits",
          MI_FEATURE_SAMPLER("temperature", "cpu", &temperature, NULL));
