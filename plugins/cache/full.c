/* full.c - one sequence in one piece of memory, all of its positions.
 *
 * What a finished sequence leaves stays there: the next one takes over as much of
 * it as its own tokens begin with, so that a chat's next turn computes only what
 * was added. */
#include "store.h"
#include <string.h>

typedef struct {
    Store    store;
    uint64_t owner;    /* id of the sequence that has the place */
    bool     taken;
    int32_t  reserved; /* positions */
    int32_t  n_left;   /* tokens that the memory holds from a sequence that is gone */
    int32_t *left;     /* [max_len] their ids */
} Full;

static StoreShape shape_of(const MiCacheSpec *spec) { return (StoreShape){ spec->n_layers, 1, spec->max_len, 1 }; }

static size_t bytes(const MiCacheSpec *spec, const void *options)
{
    (void)options;
    return store_bytes(spec, shape_of(spec));
}

static void *create(MiContext *ctx, const MiCacheSpec *spec, const void *options, GError **error)
{
    (void)options;
    Full *f;

    if (spec->max_seqs != 1) {
        g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED,
                    "cache 'full' holds one sequence, not %d; set [engine] max_seqs = 1 or cache = batch",
                    spec->max_seqs);
        return NULL;
    }
    f = g_new0(Full, 1);
    if (!store_new(&f->store, ctx, spec, shape_of(spec), error)) {
        g_free(f);
        return NULL;
    }
    f->left = g_new(int32_t, spec->max_len);
    return f;
}

static void destroy(void *self)
{
    Full *f = self;
    store_free(&f->store);
    g_free(f->left);
    g_free(f);
}

static void view(void *self, int layer, MiKvView *out)
{
    const Full *f = self;
    store_view(&f->store, layer, out);
    out->kv_start = out->block_table = NULL;
}

static bool reserve(void *self, const MiSequence *seq, int n_tokens)
{
    Full *f = self;

    if (n_tokens > f->store.spec.max_len || (f->taken && f->owner != seq->id))
        return false;
    f->taken = true;
    f->owner = seq->id;
    f->n_left = 0; /* overwritten from here on */
    f->reserved = MAX(f->reserved, n_tokens);
    return true;
}

static void release(void *self, const MiSequence *seq)
{
    Full *f = self;

    if (!f->taken || f->owner != seq->id)
        return;
    f->taken = false;
    f->reserved = 0;
    f->n_left = MIN(MIN(seq->n_cached, seq->n_tokens), f->store.spec.max_len);
    memcpy(f->left, seq->tokens, (size_t)f->n_left * sizeof *f->left);
}

static bool plan(void *self, MiContext *ctx, const MiStep *step, const MiBatch *batch, GError **error)
{
    Store *s = &((Full *)self)->store;

    store_clear(s, batch);
    if (step->shape.n_seqs == 1) {
        const int32_t first = step->seqs[0]->n_cached;
        for (int i = 0; i < step->count[0]; i++)
            s->slots[i] = first + i;
        s->kv_len[0] = first + step->count[0];
    }
    return store_send(s, ctx, batch, error);
}

static int64_t room(void *self)
{
    const Full *f = self;
    return f->store.spec.max_len - f->reserved;
}

/* A last token is always left to compute: its logits are what the sequence is here for. */
static int match(void *self, const MiSequence *seq)
{
    Full *f = self;
    int   n = 0;

    while (!f->taken && !seq->fresh && n < f->n_left && n < seq->n_tokens - 1 && f->left[n] == seq->tokens[n])
        n++;
    if (n) {
        f->taken = true;
        f->owner = seq->id;
        f->n_left = 0;
        f->reserved = n;
    }
    return n;
}

static void truncate_at(void *self, const MiSequence *seq, int n)
{
    Full *f = self;
    if (f->taken && f->owner == seq->id)
        f->reserved = MIN(f->reserved, n);
}

static const MiCache full = {
    .struct_size = sizeof full,
    .layout = "contiguous",
    .rank = 2,
    .single = true,
    .append = "kv_append",
    .bytes = bytes,
    .create = create,
    .destroy = destroy,
    .view = view,
    .reserve = reserve,
    .release = release,
    .plan = plan,
    .room = room,
    .match = match,
    .truncate = truncate_at,
};

MI_PLUGIN("full", "0.1", "One sequence, kept whole", MI_FEATURE_CACHE("full", "*", &full, NULL));
