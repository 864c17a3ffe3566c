/* logprobs.c - natural log probabilities of the raw logits: of the token asked
 * for or drawn, then of the likeliest. */
#include "ops.h"
#include <cpu/floats.h>
#include <math.h>

typedef struct {
    const MiArgs   *at;
    const MiBatch  *batch;
    const MiFloats *floats;
    int32_t         n_top;
} Work;

/* The n largest, best first; of equal ones the lower id.  top: [n] ids. */
static void likeliest(const float *x, int32_t vocab, int32_t *top, int n)
{
    int have = 0;

    for (int32_t id = 0; id < vocab && n; id++) {
        int i = have;
        if (have == n && !(x[id] > x[top[n - 1]]))
            continue;
        for (i = have < n ? have++ : n - 1; i > 0 && x[id] > x[top[i - 1]]; i--)
            top[i] = top[i - 1];
        top[i] = id;
    }
}

static void one_row(const Work *w, int64_t row)
{
    const MiArgs   *at = w->at;
    const MiTensor *logits = &at->in[0];
    const float    *x = (const float *)logits->data + row * logits->stride[0];
    const int32_t   vocab = (int32_t)logits->shape[1];
    float          *value = (float *)at->out[0].data + row * at->out[0].stride[0];
    int32_t        *id = (int32_t *)at->out[1].data + row * at->out[1].stride[0];
    const float     max = w->floats->max(x, vocab);
    const double    norm = max + log(w->floats->exp_sum(x, NULL, vocab, max));

    id[0] = w->batch->targets ? w->batch->targets[row] : -1;
    if (id[0] < 0)
        id[0] = ((const int32_t *)at->in[1].data)[row * at->in[1].stride[0]];
    likeliest(x, vocab, id + 1, MIN(w->n_top, vocab));
    for (int i = vocab; i < w->n_top; i++) /* more than there are */
        id[1 + i] = -1;
    for (int i = 0; i <= w->n_top; i++) /* a padded row's token may be anything */
        value[i] = id[i] >= 0 && id[i] < vocab ? (float)(x[id[i]] - norm) : -INFINITY;
}

static void rows(void *arg, int64_t first, int64_t end)
{
    for (int64_t i = first; i < end; i++)
        one_row(arg, i);
}

static bool prepare(MiContext *ctx, const MiCall *call, void **state, size_t *workspace, GError **error)
{
    (void)ctx, (void)state, (void)workspace;
    const MiLogprobs *a = call->at->node->attr;
    const MiTensor   *in = call->at->in, *out = call->at->out;

    if (in[0].dtype == MI_F32 && in[1].dtype == MI_I32 && out[0].dtype == MI_F32 && out[1].dtype == MI_I32 &&
        a->n_top >= 0 && out[0].shape[1] == 1 + a->n_top && out[1].shape[1] == 1 + a->n_top)
        return true;
    g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED,
                "op 'logprobs' gives f32 values and i32 ids of the token and the %d likeliest", a->n_top);
    return false;
}

static bool run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    (void)state, (void)error;
    const MiTensor *logits = &call->at->in[0];
    Work            w = { call->at, call->batch, mi_floats(), ((const MiLogprobs *)call->at->node->attr)->n_top };

    share_rows(ctx, logits->shape[0], logits->shape[0] * logits->shape[1], rows, &w);
    return true;
}

const MiOp op_logprobs = {
    .struct_size = sizeof op_logprobs, .n_in = 2, .n_out = 2, .attr_size = sizeof(MiLogprobs), .prepare = prepare,
    .run = run,
    .batch_invariant = true,
};
