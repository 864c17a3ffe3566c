/* attention.c - attention as the paper writes it: all scores of a row, their
 * softmax, the weighted sum of values.
 *
 *   [engine] attention = acme.plain
 *
 * Reads caches of layout "contiguous" that hold f32: the table at the end says
 * so, and the engine picks a cache that fits or refuses the pair by name. */
#define MI_LICENCE "MIT"
#include <math.h>
#include <miniinfer/plugin.h>

/* One head of one row over the keys first <= t < end of sequence s; scores: [end] */
static void attend(const MiKvView *kv, int s, int h, int first, int end, float scale, const float *q, float *scores,
                   float *out)
{
    float max = -INFINITY, sum = 0;

    for (int t = first; t < end; t++) {
        const float *k = (const float *)kv->k + mi_kv_offset(kv, s, t, h);
        float        dot = 0;
        for (int d = 0; d < kv->head_dim; d++)
            dot += q[d] * k[d];
        scores[t] = dot * scale;
        max = fmaxf(max, scores[t]);
    }
    for (int t = first; t < end; t++)
        sum += scores[t] = expf(scores[t] - max);
    for (int d = 0; d < kv->head_dim; d++)
        out[d] = 0; /* and stays so in a row without keys */
    for (int t = first; t < end; t++) {
        const float *v = (const float *)kv->v + mi_kv_offset(kv, s, t, h);
        for (int d = 0; d < kv->head_dim; d++)
            out[d] += scores[t] / sum * v[d];
    }
}

/* Every n-th head is a thread's.  in 0: q [n_tokens, n_heads, head_dim]. */
static void some_heads(void *arg, int part, int n_parts)
{
    const MiCall   *call = arg;
    const MiKvView *kv = call->at->kv;
    const MiAttend *attr = call->at->node->attr;
    const MiBatch  *b = call->batch;
    const MiTensor *q = &call->at->in[0], *out = &call->at->out[0];
    const int       n_heads = (int)q->shape[1], shared = n_heads / kv->n_kv_heads;

    for (int h = part; h < n_heads; h += n_parts) {
        float *scores = (float *)call->workspace + (int64_t)h * call->shape.max_kv;
        for (int s = 0; s < b->shape.n_seqs; s++)
            for (int row = b->seq_start[s]; row < b->seq_start[s + 1]; row++) {
                const int end = attr->bidirectional ? kv->kv_len[s] : MIN(b->positions[row] + 1, kv->kv_len[s]);
                const int first = attr->window ? MAX(0, b->positions[row] + 1 - attr->window) : 0;
                attend(kv, s, h / shared, first, end, attr->scale,
                       (const float *)q->data + row * q->stride[0] + h * q->stride[1], scores,
                       (float *)out->data + row * out->stride[0] + h * out->stride[1]);
            }
    }
}

/* Scores of one row for each head: as many as the cache holds positions. */
static bool prepare(MiContext *ctx, const MiCall *call, void **state, size_t *workspace, GError **error)
{
    const MiTensor *q = &call->at->in[0];

    (void)ctx, (void)state;
    *workspace = sizeof(float) * (size_t)q->shape[1] * (size_t)call->shape.max_kv;
    if (q->dtype == MI_F32)
        return true;
    g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED, "attention 'acme.plain' takes f32; set [engine] dtype = fp32");
    return false;
}

static bool run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    (void)state, (void)error;
    if (MI_HAS(ctx->backend, parallel))
        ctx->backend->parallel(ctx->device, some_heads, (void *)call);
    else
        some_heads((void *)call, 0, 1);
    return true;
}

static const MiOp plain_op = {
    .struct_size = sizeof plain_op, .n_in = 2, .n_out = 1, .attr_size = sizeof(MiAttend),
    .prepare = prepare, .run = run,
};

static const char *const layouts[] = { "contiguous", NULL };

static const MiAttention plain = {
    .struct_size = sizeof plain,
    .layouts = layouts,
    .dtypes = 1u << MI_F32,
    .prefill = true,
    .decode = true,
    .window = true,
    .softcap = false,
    .op = &plain_op,
};

MI_PLUGIN("acme_attention", "1.0", "Attention in two passes", MI_FEATURE_ATTENTION("acme.plain", "cpu", &plain, NULL));
