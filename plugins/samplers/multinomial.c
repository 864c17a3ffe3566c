/* multinomial.c - draws a token with the probability that the logits give it.
 *
 * The inverse of the cumulative distribution, in order of ids, at the number
 * that Philox gives for (seed, position of the token to be drawn): a function
 * of the logits, the seed and the position, whatever else is in the batch. */
#include "draw.h"
#include "philox.h"

/* The first token of block b at which the sum of weights, `sum` before the block, passes `at`; else its
 * last one with a weight, since a block's sum may differ from the running one in the last bit. */
static int within(const float *x, int n, int b, float max, double sum, double at)
{
    float     w[BLOCK];
    const int m = block_weights(x, n, b, max, w);
    int       last = 0;

    for (int k = 0; k < m; k++) {
        sum += w[k];
        if (w[k] > 0)
            last = k;
        if (w[k] > 0 && sum > at)
            break;
    }
    return b * BLOCK + last;
}

static void row(const MiCall *call, int i, float *x, int n)
{
    const MiBatch *batch = call->batch;
    const float    max = largest(x, n);
    double        *sums = (double *)call->workspace + (int64_t)i * n_blocks(n), sum = 0;
    const uint32_t position = (uint32_t)batch->positions[batch->out_rows[i]] + 1;
    int            b = 0, last = 0;
    float          w[BLOCK];

    if (!candidate(max)) {
        drawn(call, i, 0);
        return;
    }
    for (int k = 0; k < n_blocks(n); k++) {
        block_weights(x, n, k, max, w);
        sum += sums[k] = block_sum(w);
    }
    const double at = philox_uniform(ROW(MultinomialRow, call, i)->seed, position) * sum;
    for (sum = 0; b < n_blocks(n) && sum + sums[b] <= at; b++) {
        if (sums[b] > 0)
            last = b;
        sum += sums[b];
    }
    drawn(call, i, b < n_blocks(n) ? within(x, n, b, max, sum, at) : within(x, n, last, max, sum, INFINITY));
}

static bool prepare(MiContext *ctx, const MiCall *call, void **state, size_t *workspace, GError **error)
{
    if (!check_logits(ctx, call, state, workspace, error))
        return false;
    *workspace = sizeof(double) * (size_t)call->shape.n_out * (size_t)n_blocks((int)call->at->in[0].shape[1]);
    return true;
}

static bool run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    (void)state, (void)error;
    return each_row(ctx, call, row, true);
}

static const MiOp multinomial_op = {
    .struct_size = sizeof multinomial_op, .n_in = 1, .n_out = 1, .prepare = prepare, .run = run,
    .batch_invariant = true,
};

static const MiSampler multinomial = {
    .struct_size = sizeof multinomial,
    .params = multinomial_params,
    .row_size = sizeof(MultinomialRow),
    .draws = true,
    .op = &multinomial_op,
};

MI_PLUGIN("multinomial", "0.1", "Draws a token by its probability",
          MI_FEATURE_SAMPLER("multinomial", "cpu", &multinomial, NULL));
