/* top_p.c - nucleus sampling: keeps the smallest set of the likeliest tokens
 * whose probabilities reach top_p.  Holtzman et al., "The Curious Case of
 * Neural Text Degeneration", ICLR 2020. */
#include "cut.h"

#include <float.h>

static void row(const MiCall *call, int i, float *x, int n)
{
    const float p = ROW(TopPRow, call, i)->top_p, max = largest(x, n);

    if (!(p < 1) || !candidate(max))
        return;
    /* n tokens of less than (1 - p) / n weigh less than 1 - p together: none of them is needed. */
    const double sum = sum_of_weights(x, n, max), spare = (1.0 - p) * sum;
    if (isfinite(max))
        remove_below(x, n, (float)(max + log(spare / n) - 0.01));
    cut(x, n, &(RowFacts){ .max = max }, by_logit, true, fmax(p * sum, DBL_MIN));
}

static bool run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    (void)state, (void)error;
    return each_row(ctx, call, row, false);
}

static const MiOp top_p_op = {
    .struct_size = sizeof top_p_op, .n_in = 1, .n_out = 1, .inplace = 1, .prepare = check_logits, .run = run,
    .batch_invariant = true,
};

static const MiSampler top_p = {
    .struct_size = sizeof top_p, .params = top_p_params,
    .row_size = sizeof(TopPRow), .wants = top_p_wants, .op = &top_p_op,
};

MI_PLUGIN("top_p", "0.1", "Keeps the likeliest tokens up to a probability",
          MI_FEATURE_SAMPLER("top_p", "cpu", &top_p, NULL));
