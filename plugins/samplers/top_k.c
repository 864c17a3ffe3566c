/* top_k.c - keeps the k largest logits, of equal ones the lower ids. */
#include "cut.h"

enum { GROUPS = 2048 };

/* Of each of some groups the largest; the k-th largest of these is at most that of all tokens. */
static void remove_surely(float *x, int n, int k)
{
    const int size = (n + GROUPS - 1) / GROUPS, n_groups = (n + size - 1) / size;
    float     tops[GROUPS], least = INFINITY;
    int       kept = 0;

    if (k > n_groups)
        return;
    for (int g = 0; g < n_groups; g++)
        tops[g] = largest(x + g * size, g + 1 < n_groups ? size : n - g * size);
    cut(tops, n_groups, &(RowFacts){ .max = 0 }, by_logit, false, k);
    for (int g = 0; g < n_groups; g++)
        if (candidate(tops[g])) {
            least = fminf(least, tops[g]);
            kept++;
        }
    if (kept == k) /* so many are not below `least` */
        remove_below(x, n, least);
}

static void row(const MiCall *call, int i, float *x, int n)
{
    const int32_t k = ROW(TopKRow, call, i)->top_k;

    if (k == 0 || k >= n)
        return;
    remove_surely(x, n, k);
    cut(x, n, &(RowFacts){ .max = 0 }, by_logit, false, k);
}

static bool run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    (void)state, (void)error;
    return each_row(ctx, call, row, false);
}

static const MiOp top_k_op = {
    .struct_size = sizeof top_k_op, .n_in = 1, .n_out = 1, .inplace = 1, .prepare = check_logits, .run = run,
    .batch_invariant = true,
};

static const MiSampler top_k = {
    .struct_size = sizeof top_k, .params = top_k_params,
    .row_size = sizeof(TopKRow), .wants = top_k_wants, .op = &top_k_op,
};

MI_PLUGIN("top_k", "0.1", "Keeps the k likeliest tokens", MI_FEATURE_SAMPLER("top_k", "cpu", &top_k, NULL));
