/* none.c - keeps nothing: every step computes its sequences from their first token.
 *
 * For tests and teaching: the slow truth that the others must agree with.  The rows
 * of a step lie one after the other, as in the batch, and since nothing outlives a
 * layer's attention, all layers share the same memory. */
#include "store.h"

typedef struct {
    Store store;
} None;

static StoreShape shape_of(const MiCacheSpec *spec) { return (StoreShape){ 1, 1, spec->max_tokens, 1 }; }

static size_t bytes(const MiCacheSpec *spec, const void *options)
{
    (void)options;
    return store_bytes(spec, shape_of(spec));
}

static void *create(MiContext *ctx, const MiCacheSpec *spec, const void *options, GError **error)
{
    (void)options;
    None *n = g_new0(None, 1);

    if (store_new(&n->store, ctx, spec, shape_of(spec), error))
        return n;
    g_free(n);
    return NULL;
}

static void destroy(void *self)
{
    store_free(&((None *)self)->store);
    g_free(self);
}

/* A block begins wherever its sequence's first row is. */
static void view(void *self, int layer, MiKvView *out)
{
    store_view(&((None *)self)->store, layer, out);
    out->kv_start = NULL;
    out->stride_block = out->stride_token;
}

static bool reserve(void *self, const MiSequence *seq, int n_tokens)
{
    (void)seq;
    return n_tokens <= ((None *)self)->store.spec.max_tokens;
}

static void release(void *self, const MiSequence *seq) { (void)self, (void)seq; }

static bool plan(void *self, MiContext *ctx, const MiStep *step, const MiBatch *batch, GError **error)
{
    Store *s = &((None *)self)->store;
    int    row = 0;

    store_clear(s, batch);
    for (int i = 0; i < step->shape.n_seqs; i++) {
        s->block[i] = row;
        s->kv_len[i] = step->count[i];
        for (int k = 0; k < step->count[i]; k++, row++)
            s->slots[row] = row;
    }
    return store_send(s, ctx, batch, error);
}

static int64_t room(void *self) { return ((None *)self)->store.spec.max_tokens; }

static const MiCache none = {
    .struct_size = sizeof none,
    .layout = "contiguous",
    .rank = -1,
    .recomputes = true,
    .append = "kv_append",
    .bytes = bytes,
    .create = create,
    .destroy = destroy,
    .view = view,
    .reserve = reserve,
    .release = release,
    .plan = plan,
    .room = room,
};

MI_PLUGIN("none", "0.1", "No cache: recomputes", MI_FEATURE_CACHE("none", "*", &none, NULL));
