/* penalties.c - makes what was said less likely.
 *
 *   repetition_penalty  of tokens in the prompt or the answer: a positive logit is
 *                       divided by it, a negative one multiplied.  Keskar et al.,
 *                       "CTRL", 2019.
 *   presence_penalty    subtracted once from the logits of tokens in the answer
 *   frequency_penalty   subtracted as often as the answer has the token
 *
 * The repetition penalty comes first: its sign is that of the model's logit. */
#include "rows.h"

static size_t set_words(int64_t n_vocab) { return (size_t)(n_vocab + 63) / 64; }

/* True the first time that a set of ids, a bit each, sees this one. */
static bool first_time(uint64_t *set, int32_t id)
{
    const uint64_t bit = (uint64_t)1 << (id % 64);
    const bool     first = !(set[id / 64] & bit);

    set[id / 64] |= bit;
    return first;
}

static void row(const MiCall *call, int i, float *x, int n)
{
    const PenaltiesRow *p = ROW(PenaltiesRow, call, i);
    const MiBatch      *b = call->batch;
    const int32_t       slot = b->out_slot[i];
    const int32_t       known = b->positions[b->out_rows[i]] + 1, n_tokens = CLAMP(known, 0, b->max_history);
    uint64_t           *set = (uint64_t *)call->workspace + (size_t)i * set_words(n);

    memset(set, 0, set_words(n) * sizeof *set);
    for (int32_t t = 0; p->repetition_penalty != 1 && t < n_tokens; t++) {
        const int32_t id = mi_batch_history(b, slot, t);
        if (id >= 0 && id < n && first_time(set, id))
            x[id] = x[id] > 0 ? x[id] / p->repetition_penalty : x[id] * p->repetition_penalty;
    }
    memset(set, 0, set_words(n) * sizeof *set);
    for (int32_t t = MAX(b->n_prompt[slot], 0); t < n_tokens; t++) {
        const int32_t id = mi_batch_history(b, slot, t);
        if (id >= 0 && id < n)
            x[id] -= p->frequency_penalty + (first_time(set, id) ? p->presence_penalty : 0);
    }
}

static bool prepare(MiContext *ctx, const MiCall *call, void **state, size_t *workspace, GError **error)
{
    if (!check_logits(ctx, call, state, workspace, error))
        return false;
    *workspace = sizeof(uint64_t) * (size_t)call->shape.n_out * set_words(call->at->in[0].shape[1]);
    return true;
}

static bool run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    (void)state, (void)error;
    return each_row(ctx, call, row, false);
}

static const MiOp penalties_op = {
    .struct_size = sizeof penalties_op, .n_in = 1, .n_out = 1, .inplace = 1, .prepare = prepare, .run = run,
    .batch_invariant = true,
};

static const MiSampler penalties = {
    .struct_size = sizeof penalties, .params = penalties_params,
    .row_size = sizeof(PenaltiesRow), .wants = penalties_wants, .op = &penalties_op,
};

MI_PLUGIN("penalties", "0.1", "Makes what was said less likely",
          MI_FEATURE_SAMPLER("penalties", "cpu", &penalties, NULL));
