/* greedy.c - draws the likeliest token, of several the lowest id.  A row in
 * which every token was removed gives token 0. */
#include "draw.h"

static void row(const MiCall *call, int i, float *x, int n) { drawn(call, i, argmax(x, n)); }

static bool run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    (void)state, (void)error;
    return each_row(ctx, call, row, true);
}

static const MiOp greedy_op = {
    .struct_size = sizeof greedy_op, .n_in = 1, .n_out = 1, .prepare = check_logits, .run = run,
    .batch_invariant = true,
};

static const MiSampler greedy = { .struct_size = sizeof greedy, .draws = true, .op = &greedy_op };

MI_PLUGIN("greedy", "0.1", "Draws the likeliest token", MI_FEATURE_SAMPLER("greedy", "cpu", &greedy, NULL));
