/* typical.c - locally typical sampling: keeps the smallest set of the tokens
 * whose surprise, -log p, is nearest to the entropy and whose probabilities
 * reach typical_p.  Meister et al., "Locally Typical Sampling", TACL 2023. */
#include "cut.h"

#include <float.h>

/* How near a token's surprise is to the entropy. */
static float by_typicality(float x, const RowFacts *f)
{
    const double below = x == f->max ? 0 : (double)f->max - (double)x;
    return -(float)fabs(f->surprise + below - f->entropy);
}

static void row(const MiCall *call, int i, float *x, int n)
{
    const float p = ROW(TypicalRow, call, i)->typical_p, max = largest(x, n);
    const double sum = candidate(max) ? sum_of_weights(x, n, max) : 0;
    double       mean = 0; /* of max - x */
    float        w[BLOCK];

    if (!(p < 1) || !candidate(max))
        return;
    for (int b = 0; b < n_blocks(n); b++) {
        const int m = block_weights(x, n, b, max, w);
        for (int k = 0; k < m; k++)
            if (w[k] > 0 && x[b * BLOCK + k] != max)
                mean += w[k] / sum * ((double)max - (double)x[b * BLOCK + k]);
    }
    cut(x, n, &(RowFacts){ max, log(sum), log(sum) + mean }, by_typicality, true, fmax(p * sum, DBL_MIN));
}

static bool run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    (void)state, (void)error;
    return each_row(ctx, call, row, false);
}

static const MiOp typical_op = {
    .struct_size = sizeof typical_op, .n_in = 1, .n_out = 1, .inplace = 1, .prepare = check_logits, .run = run,
    .batch_invariant = true,
};

static const MiSampler typical = {
    .struct_size = sizeof typical, .params = typical_params,
    .row_size = sizeof(TypicalRow), .wants = typical_wants, .op = &typical_op,
};

MI_PLUGIN("typical", "0.1", "Keeps tokens of typical surprise",
          MI_FEATURE_SAMPLER("typical", "cpu", &typical, NULL));
