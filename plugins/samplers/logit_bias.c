/* logit_bias.c - adds what the request says to the logits of some tokens.
 * Ids that the vocabulary does not have are ignored. */
#include "rows.h"

static void row(const MiCall *call, int i, float *x, int n)
{
    const MiBiases *b = &ROW(LogitBiasRow, call, i)->logit_bias;

    for (int k = 0; k < b->n && k < MI_MAX_BIASES; k++)
        if (b->at[k].id >= 0 && b->at[k].id < n)
            x[b->at[k].id] += b->at[k].bias;
}

static bool run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    (void)state, (void)error;
    return each_row(ctx, call, row, false);
}

static const MiOp logit_bias_op = {
    .struct_size = sizeof logit_bias_op, .n_in = 1, .n_out = 1, .inplace = 1, .prepare = check_logits, .run = run,
    .batch_invariant = true,
};

static const MiSampler logit_bias = {
    .struct_size = sizeof logit_bias, .params = logit_bias_params,
    .row_size = sizeof(LogitBiasRow), .wants = logit_bias_wants, .op = &logit_bias_op,
};

MI_PLUGIN("logit_bias", "0.1", "Adds to the logits of given tokens",
          MI_FEATURE_SAMPLER("logit_bias", "cpu", &logit_bias, NULL));
