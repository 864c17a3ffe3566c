/* min_p.c - keeps the tokens that have at least min_p times the probability of
 * the likeliest.  Nguyen et al., "Turning Up the Heat: Min-p Sampling", 2024. */
#include "softmax.h"

static void row(const MiCall *call, int i, float *x, int n)
{
    const float p = ROW(MinPRow, call, i)->min_p, max = largest(x, n);
    const double least = (double)max + log(p); /* p e^max <= e^x */

    if (!(p > 0) || !candidate(max))
        return;
    for (int k = 0; k < n; k++)
        x[k] = x[k] >= least ? x[k] : -INFINITY;
}

static bool run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    (void)state, (void)error;
    return each_row(ctx, call, row, false);
}

static const MiOp min_p_op = {
    .struct_size = sizeof min_p_op, .n_in = 1, .n_out = 1, .inplace = 1, .prepare = check_logits, .run = run,
    .batch_invariant = true,
};

static const MiSampler min_p = {
    .struct_size = sizeof min_p, .params = min_p_params,
    .row_size = sizeof(MinPRow), .wants = min_p_wants, .op = &min_p_op,
};

MI_PLUGIN("min_p", "0.1", "Keeps tokens near the likeliest", MI_FEATURE_SAMPLER("min_p", "cpu", &min_p, NULL));
