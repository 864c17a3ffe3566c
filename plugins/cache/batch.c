/* batch.c - several sequences of different length, their ends aligned.
 *
 * Every sequence has a region of max_len positions.  One that joins begins so far
 * into its region that its prompt ends where the batch's longest ends: sequences
 * that decode together then write the same column.  One that comes to the end of
 * its region is moved to the beginning, which frees what stood before its start; the
 * move is a copy by the host.  On a device with memory of its own every sequence
 * begins where its region does: nothing ever moves, and its kernels lose nothing. */
#include "store.h"
#include <string.h>

typedef struct {
    uint64_t owner;
    bool     taken;
    int32_t  start;    /* padding before the first position */
    int32_t  reserved; /* positions from start on */
} Region;

typedef struct {
    Store   store;
    Region *regions; /* [max_seqs] */
    int32_t *at_slot; /* [max_seqs] where the sequence of a slot was found last */
} Batch;

static StoreShape shape_of(const MiCacheSpec *spec)
{
    return (StoreShape){ spec->n_layers, spec->max_seqs, spec->max_len, 1 };
}

static size_t bytes(const MiCacheSpec *spec, const void *options)
{
    (void)options;
    return store_bytes(spec, shape_of(spec));
}

static void *create(MiContext *ctx, const MiCacheSpec *spec, const void *options, GError **error)
{
    (void)options;
    Batch *b;

    b = g_new0(Batch, 1);
    if (!store_new(&b->store, ctx, spec, shape_of(spec), error)) {
        g_free(b);
        return NULL;
    }
    b->regions = g_new0(Region, spec->max_seqs);
    b->at_slot = g_new0(int32_t, spec->max_seqs);
    return b;
}

static void destroy(void *self)
{
    Batch *b = self;
    store_free(&b->store);
    g_free(b->regions);
    g_free(b->at_slot);
    g_free(b);
}

static void view(void *self, int layer, MiKvView *out) { store_view(&((Batch *)self)->store, layer, out); }

static bool is_at(const Batch *b, int i, const MiSequence *seq) { return b->regions[i].taken && b->regions[i].owner == seq->id; }

static int region_of(const Batch *b, const MiSequence *seq)
{
    const int32_t n = b->store.spec.max_seqs;
    int32_t      *known = seq->slot >= 0 && seq->slot < n ? &b->at_slot[seq->slot] : NULL;

    if (known && is_at(b, *known, seq))
        return *known;
    for (int i = 0; i < n; i++)
        if (is_at(b, i, seq)) {
            if (known)
                *known = i;
            return i;
        }
    return -1;
}

static int join(Batch *b, const MiSequence *seq, int n_tokens)
{
    const int  n_seqs = b->store.spec.max_seqs, want = MAX(n_tokens, seq->n_tokens);
    const bool moves = b->store.ctx->backend->unified;
    int        at = -1, end = 0;

    for (int i = n_seqs - 1; i >= 0; i--) {
        const Region *r = &b->regions[i];
        if (!r->taken)
            at = i;
        else
            end = MAX(end, r->start + r->reserved);
    }
    if (at >= 0)
        b->regions[at] = (Region){ seq->id, true, moves ? MAX(end - want, 0) : 0, 0 };
    return at;
}

/* The sequence's n positions to the beginning of its region, in every layer and head. */
static void move_to_front(Batch *b, int region, int n)
{
    const MiCacheSpec *spec = &b->store.spec;
    const size_t       size = mi_dtype_size(spec->dtype);
    MiKvView           kv;

    for (int layer = 0; layer < spec->n_layers; layer++) {
        store_view(&b->store, layer, &kv);
        for (int h = 0; h < kv.n_kv_heads; h++) {
            const size_t to = (size_t)(region * kv.stride_block + h * kv.stride_head) * size;
            const size_t from = to + (size_t)(b->regions[region].start * kv.stride_token) * size;
            memmove((char *)kv.k + to, (char *)kv.k + from, (size_t)(n * kv.stride_token) * size);
            memmove((char *)kv.v + to, (char *)kv.v + from, (size_t)(n * kv.stride_token) * size);
            if (kv.scales) {
                uint32_t *both = (uint32_t *)kv.scales + (region * kv.stride_block + h * kv.stride_head) / kv.head_dim;
                memmove(both, both + b->regions[region].start, (size_t)n * sizeof *both);
            }
        }
    }
    b->regions[region].start = 0;
}

static bool reserve(void *self, const MiSequence *seq, int n_tokens)
{
    Batch *b = self;
    int    at;

    if (n_tokens > b->store.spec.max_len || ((at = region_of(b, seq)) < 0 && (at = join(b, seq, n_tokens)) < 0))
        return false;
    if (b->regions[at].start + n_tokens > b->store.spec.max_len)
        move_to_front(b, at, seq->n_cached);
    b->regions[at].reserved = MAX(b->regions[at].reserved, n_tokens);
    return true;
}

static void release(void *self, const MiSequence *seq)
{
    Batch    *b = self;
    const int at = region_of(b, seq);
    if (at >= 0)
        b->regions[at] = (Region){ 0 };
}

static bool plan(void *self, MiContext *ctx, const MiStep *step, const MiBatch *batch, GError **error)
{
    Batch *b = self;
    Store *s = &b->store;
    int    row = 0;

    store_clear(s, batch);
    for (int i = 0; i < step->shape.n_seqs; i++) {
        const int     at = region_of(b, step->seqs[i]);
        const int32_t n = step->seqs[i]->n_cached;
        if (at < 0) {
            g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED, "cache 'batch': a sequence runs without a place");
            return false;
        }
        s->block[i] = at;
        s->kv_start[i] = b->regions[at].start;
        s->kv_len[i] = b->regions[at].start + n + step->count[i];
        for (int k = 0; k < step->count[i]; k++)
            s->slots[row++] = at * s->spec.max_len + b->regions[at].start + n + k;
    }
    return store_send(s, ctx, batch, error);
}

static int64_t room(void *self)
{
    const Batch *b = self;
    int64_t      n = (int64_t)b->store.spec.max_seqs * b->store.spec.max_len;
    for (int i = 0; i < b->store.spec.max_seqs; i++)
        n -= b->regions[i].reserved;
    return n;
}

static void truncate_at(void *self, const MiSequence *seq, int n)
{
    Batch    *b = self;
    const int at = region_of(b, seq);
    if (at >= 0)
        b->regions[at].reserved = MIN(b->regions[at].reserved, n);
}

static const MiCache batch = {
    .struct_size = sizeof batch,
    .layout = "tail",
    .rank = 1,
    .append = "kv_append",
    .bytes = bytes,
    .create = create,
    .destroy = destroy,
    .view = view,
    .reserve = reserve,
    .release = release,
    .plan = plan,
    .room = room,
    .truncate = truncate_at,
};

MI_PLUGIN("batch", "0.1", "Several sequences, ends aligned", MI_FEATURE_CACHE("batch", "*", &batch, NULL));
