/* paged.c - many sequences in blocks of a few positions, shared where they begin alike.
 *
 * One pool of blocks for all (Kwon et al. 2023); pages.c says whose they are.  What
 * finished sequences leave stays until the room is needed and an eviction policy gives
 * it up, and a new one takes over what a prefix index finds.  A block that others read is copied before
 * it is written.  Within a block a head's positions lie side by side, and all blocks of
 * a layer together: attention streams a layer, a copy gathers over the layers.
 *
 * Work on blocks goes into the engine's stream: a block that changes hands is written
 * after whatever steps under way still read of it. */
#include "pages.h"
#include "size.h"
#include "store.h"
#include <string.h>

typedef struct {
    int32_t     block_size;
    const char *bytes, *swap, *prefix, *eviction;
} Options;

static const MiOption options_table[] = {
    MI_OPTION(Options, block_size, "16", 1, 1024, "positions in a block"),
    MI_OPTION(Options, bytes, "auto", 0, 0,
              "of the pool: a size as 4 GiB or 500 MB; auto: on a device with its own memory what is free, else what "
              "max_seqs sequences of max_len take, if there is so much"),
    MI_OPTION(Options, swap, "0", 0, 0, "host memory, a size, for sequences that have to make room; 0: they are computed again"),
    MI_OPTION(Options, prefix, "hash", 0, 0,
              "how sequences that begin alike find each other's blocks: hash (whole blocks), trie (to the token), none"),
    MI_OPTION(Options, eviction, "lru", 0, 0,
              "which kept block goes when room is needed: lru (idle longest), lfu (shared least)"),
    MI_OPTION_END,
};

/* What stood in a row of the block table when it was sent. */
typedef struct {
    uint64_t id, version;
    int32_t  n;
} Row;

typedef struct {
    Store             store;
    Pages             pages;
    const MiPrefix   *prefix;   /* NULL: nothing is shared, nothing kept */
    void             *index;
    const MiEviction *eviction; /* where there is a prefix */
    void             *evictor;
    size_t            piece;    /* bytes of a layer's keys, or values, in a block */
    size_t            scales;   /* and of its scales, 0: there are none */
    char             *outside;  /* pinned: blocks [n_host] of [n_layers][k, v][piece], then [n_layers][scales] */
    Row              *rows;     /* [max_seqs] */
    struct { int32_t first, end; } *changed; /* [max_seqs] of a row, since the last step */
    GError         *failed;  /* a block's copy did: the next plan() says so */
} Paged;

/* ---- sizes -------------------------------------------------------------------------- */

static const Options *options_of(const void *options)
{
    static const Options def = { 16, "auto", "0", "hash", "lru" };
    return options ? options : &def;
}

static int32_t most_blocks(const MiCacheSpec *spec, const Options *o)
{
    return (int32_t)(((int64_t)spec->max_len + o->block_size - 1) / o->block_size);
}

static StoreShape shape_for(const MiCacheSpec *spec, const Options *o, int32_t n_blocks)
{
    return (StoreShape){ spec->n_layers, n_blocks, o->block_size, most_blocks(spec, o) };
}

/* As many blocks as the memory holds; where others live on it, no more than sequences can fill. */
static StoreShape shape_of(const MiCacheSpec *spec, const Options *o)
{
    const int64_t useful = (int64_t)most_blocks(spec, o) * spec->max_seqs, slots = INT32_MAX / o->block_size;
    int64_t       low = 0, high = slots;
    size_t        budget;

    if (!size_parse(o->bytes, &budget)) {
        budget = spec->budget;
        high = spec->shared ? MIN(useful, slots) : slots;
    }
    while (low < high) {
        const int64_t middle = (low + high + 1) / 2;
        if (store_bytes(spec, shape_for(spec, o, (int32_t)middle)) <= budget)
            low = middle;
        else
            high = middle - 1;
    }
    return shape_for(spec, o, (int32_t)low);
}

/* Of a layer's keys, or values, in a block; of its scales. */
static size_t side_bytes(const MiCacheSpec *spec, const Options *o)
{
    return (size_t)spec->n_kv_heads * (size_t)o->block_size * (size_t)spec->head_dim * mi_dtype_size(spec->dtype);
}
static size_t scale_bytes(const MiCacheSpec *spec, const Options *o)
{
    return mi_dtype_scaled(spec->dtype) ? (size_t)spec->n_kv_heads * (size_t)o->block_size * 2 * sizeof(uint16_t) : 0;
}

static size_t block_bytes(const MiCacheSpec *spec, const Options *o)
{
    return (size_t)spec->n_layers * (2 * side_bytes(spec, o) + scale_bytes(spec, o));
}

static int32_t blocks_outside(const MiCacheSpec *spec, const Options *o)
{
    size_t swap = 0;
    return size_parse(o->swap, &swap) ? (int32_t)MIN(swap / block_bytes(spec, o), (size_t)INT32_MAX / 2) : 0;
}

static size_t bytes(const MiCacheSpec *spec, const void *options)
{
    return store_bytes(spec, shape_of(spec, options_of(options)));
}

static size_t pinned(const MiCacheSpec *spec, const void *options)
{
    const Options *o = options_of(options);
    return (size_t)blocks_outside(spec, o) * block_bytes(spec, o);
}

/* The block table, whole, and what aligning its rows takes. */
static size_t sends(const MiCacheSpec *spec, const void *options)
{
    return (size_t)spec->max_seqs * ((size_t)most_blocks(spec, options_of(options)) * sizeof(int32_t) + 256);
}

static const char *prefix_of(const void *options)
{
    const char *name = options_of(options)->prefix;
    return strcmp(name, "none") == 0 ? NULL : name;
}

static const char *eviction_of(const void *options)
{
    return prefix_of(options) ? options_of(options)->eviction : NULL;
}

static bool check(const MiCacheSpec *spec, const void *options, GError **error)
{
    const Options *o = options_of(options);
    const int32_t  one = most_blocks(spec, o), have = shape_of(spec, o).n_blocks;
    size_t         unused;

    if (strcmp(o->bytes, "auto") != 0 && !size_parse(o->bytes, &unused)) {
        g_set_error(error, MI_ERROR, MI_ERROR_CONFIG, "[cache.paged] bytes = '%s': auto, or a size as 4 GiB or 500 MB",
                    o->bytes);
        return false;
    }
    if (!size_parse(o->swap, &unused)) {
        g_set_error(error, MI_ERROR, MI_ERROR_CONFIG, "[cache.paged] swap = '%s': 0, or a size as 4 GiB or 500 MB",
                    o->swap);
        return false;
    }
    if (have >= one)
        return true;
    g_autofree char *need = g_format_size(store_bytes(spec, shape_for(spec, o, one)));
    g_set_error(error, MI_ERROR, MI_ERROR_NO_MEMORY,
                "cache 'paged' has memory for %" G_GINT64_FORMAT " positions, one sequence takes up to %d, which is %s; "
                "raise [cache.paged] bytes or lower [engine] max_len",
                (int64_t)have * o->block_size, spec->max_len, need);
    return false;
}

/* ---- the contents of a block ------------------------------------------------------------- */

/* Where a part of a block lies; plane: 2 layer for its keys, + 1 for values, 2 n_layers + layer for scales. */
static char *piece(const Paged *p, int plane, int32_t block, bool outside)
{
    const Store *s = &p->store;
    const int    sides = 2 * s->spec.n_layers, layer = plane - sides;

    if (outside) {
        char *at = p->outside + (size_t)block * ((size_t)sides * p->piece + (size_t)s->spec.n_layers * p->scales);
        return layer < 0 ? at + (size_t)plane * p->piece : at + (size_t)sides * p->piece + (size_t)layer * p->scales;
    }
    return layer < 0 ? s->data + (size_t)plane * s->side_bytes + (size_t)block * p->piece
                     : store_scales(s, layer) + (size_t)block * p->scales;
}

static void move(void *self, PagesMove what, int32_t from, int32_t to)
{
    Paged           *p = self;
    MiContext       *ctx = p->store.ctx;
    const MiBackend *b = ctx->backend;
    const int        sides = 2 * p->store.spec.n_layers, n = sides + (p->scales ? p->store.spec.n_layers : 0);
    MiCopy           all[MI_MAX_COPIES];
    bool             ok = p->failed == NULL;

    for (int i = 0, k = 0; i < n && ok; i++) {
        all[k++] = (MiCopy){ piece(p, i, to, what == PAGES_OUT), piece(p, i, from, what == PAGES_IN),
                             i < sides ? p->piece : p->scales };
        if (!MI_HAS(b, copy_all)) {
            ok = b->copy(ctx->device, ctx->stream, all[0].dst, all[0].src, all[0].bytes, &p->failed);
            k = 0;
        } else if (k == MI_MAX_COPIES || i + 1 == n) {
            ok = b->copy_all(ctx->device, ctx->stream, all, k, &p->failed);
            k = 0;
        }
    }
}

/* ---- start and stop -------------------------------------------------------------------------- */

static void destroy(void *self)
{
    Paged *p = self;

    if (p->index)
        p->prefix->destroy(p->index);
    if (p->evictor)
        p->eviction->destroy(p->evictor);
    if (p->outside)
        p->store.ctx->free(p->store.ctx, MI_MEM_PINNED, p->outside);
    pages_clear(&p->pages);
    store_free(&p->store);
    g_clear_error(&p->failed);
    g_free(p->rows);
    g_free(p->changed);
    g_free(p);
}

static bool create_pages(Paged *p, const MiCacheSpec *spec, const Options *o, GError **error)
{
    const StoreShape shape = p->store.shape;
    const int32_t    n_host = blocks_outside(spec, o);
    const PagesSpec  pages = {
        .block_size = shape.block_size, .n_blocks = shape.n_blocks, .max_blocks = shape.max_blocks, .n_host = n_host,
        .n_places = spec->max_seqs * (n_host ? 2 : 1), .prefix = p->prefix, .index = p->index,
        .eviction = p->eviction, .evictor = p->evictor, .move = move, .user = p,
    };

    if (pages_init(&p->pages, &pages))
        return true;
    g_set_error(error, MI_ERROR, MI_ERROR_NO_MEMORY, "cache 'paged': no memory to keep account of %d blocks",
                shape.n_blocks);
    return false;
}

static void *create(MiContext *ctx, const MiCacheSpec *spec, const void *options, GError **error)
{
    const Options *o = options_of(options);
    Paged         *p;

    if (!check(spec, options, error))
        return NULL;
    if (spec->prefix && !spec->eviction) {
        g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED, "cache 'paged': a prefix index, and no policy that gives up what it keeps");
        return NULL;
    }
    const StoreShape   shape = shape_of(spec, o);
    const MiPrefixSpec blocks = { shape.n_blocks, shape.block_size };
    const MiEvictionSpec same_blocks = { shape.n_blocks };
    const size_t       outside = pinned(spec, options);
    p = g_new0(Paged, 1);
    if (!store_new(&p->store, ctx, spec, shape, error)) {
        g_free(p);
        return NULL;
    }
    p->prefix = spec->prefix;
    p->eviction = spec->eviction;
    p->piece = side_bytes(spec, o);
    p->scales = scale_bytes(spec, o);
    p->rows = g_new0(Row, spec->max_seqs);
    p->changed = g_malloc0((size_t)spec->max_seqs * sizeof *p->changed);
    if ((outside && !(p->outside = ctx->alloc(ctx, MI_MEM_PINNED, outside, error))) ||
        (p->prefix && !(p->index = p->prefix->create(&blocks, spec->prefix_options, error))) ||
        (p->prefix && !(p->evictor = p->eviction->create(&same_blocks, spec->eviction_options, error))) ||
        !create_pages(p, spec, o, error)) {
        destroy(p);
        return NULL;
    }
    return p;
}

static void view(void *self, int layer, MiKvView *out)
{
    store_view(&((Paged *)self)->store, layer, out);
    out->kv_start = NULL;
}

/* ---- a step -------------------------------------------------------------------------------------- */

static bool reserve(void *self, const MiSequence *seq, int n_tokens)
{
    Paged *p = self;
    return n_tokens <= p->store.spec.max_len && pages_reserve(&p->pages, seq, n_tokens);
}

static void release(void *self, const MiSequence *seq) { pages_release(&((Paged *)self)->pages, seq); }

/* A sequence's row of the block table, and what of it the device does not have yet.  Of a row that was another
 * sequence's nothing is taken for granted: the step that sent it may have failed. */
static void fill_row(Paged *p, int i, const Place *at)
{
    int32_t  *table = p->store.block + (size_t)i * (size_t)p->store.shape.max_blocks;
    Row      *row = &p->rows[i];
    int32_t   n = 0;

    if (row->id == at->id && row->version == at->version)
        n = MIN(row->n, at->n_blocks);
    else if (row->id == at->id)
        while (n < MIN(row->n, at->n_blocks) && table[n] == at->blocks[n])
            n++;
    p->changed[i].first = n;
    p->changed[i].end = at->n_blocks;
    memcpy(table + n, at->blocks + n, (size_t)(at->n_blocks - n) * sizeof *table);
    *row = (Row){ at->id, at->version, at->n_blocks };
}

/* A row of the bucket's padding names a block, once: some kernels look at the first, whatever the length. */
static void fill_padding(Paged *p, int i)
{
    const bool bare = p->rows[i].n == 0;

    p->changed[i].first = 0;
    p->changed[i].end = bare;
    if (bare)
        p->rows[i].n = 1;
}

/* One piece for each row, or, where many changed, one over all of them. */
static bool send_rows(Paged *p, MiContext *ctx, int n_seqs, GError **error)
{
    enum { FEW = 24 }; /* with what else a step sends they are one piece of work for the device */
    const size_t width = (size_t)p->store.shape.max_blocks;
    int          n = 0, first = 0, last = 0;

    for (int i = 0; i < n_seqs; i++)
        if (p->changed[i].first < p->changed[i].end) {
            first = n++ ? first : i;
            last = i;
        }
    if (n > FEW) {
        const int32_t *from = p->store.block + (size_t)first * width + p->changed[first].first;
        const int32_t *end = p->store.block + (size_t)last * width + p->changed[last].end;
        return store_send_part(&p->store, ctx, from, (size_t)(end - from), error);
    }
    for (int i = first; n && i <= last; i++)
        if (p->changed[i].first < p->changed[i].end &&
            !store_send_part(&p->store, ctx, p->store.block + (size_t)i * width + p->changed[i].first,
                             (size_t)(p->changed[i].end - p->changed[i].first), error))
            return false;
    return true;
}

/* A step that is not sent leaves the device with rows that nobody knows. */
static void distrust_rows(Paged *p) { memset(p->rows, 0, (size_t)p->store.spec.max_seqs * sizeof *p->rows); }

static bool fill(Paged *p, const MiStep *step, GError **error)
{
    Store    *s = &p->store;
    const int size = s->shape.block_size;
    int       row = 0;

    for (int i = 0; i < step->shape.n_seqs; i++) {
        const MiSequence *seq = step->seqs[i];
        const Place      *at = pages_find(&p->pages, seq->id);
        const int32_t     end = seq->n_cached + step->count[i];
        if (!at || at->out || end > (int64_t)at->n_blocks * size) {
            g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED, "cache 'paged': a sequence runs without a place");
            return false;
        }
        fill_row(p, i, at);
        s->kv_len[i] = end;
        for (int32_t t = seq->n_cached; t < end; t++)
            s->slots[row++] = at->blocks[t / size] * size + t % size;
    }
    return true;
}

static bool plan(void *self, MiContext *ctx, const MiStep *step, const MiBatch *batch, GError **error)
{
    Paged *p = self;
    Store *s = &p->store;

    if (p->failed) {
        g_propagate_error(error, g_steal_pointer(&p->failed));
        return false;
    }
    const int n_seqs = MIN(batch->shape.n_seqs, s->spec.max_seqs);
    store_clear(s, batch);
    for (int i = step->shape.n_seqs; i < n_seqs; i++)
        fill_padding(p, i);
    if (fill(p, step, error) && store_send_part(s, ctx, s->kv_len, (size_t)n_seqs, error) &&
        store_send_part(s, ctx, s->slots, (size_t)MIN(batch->shape.n_tokens, s->spec.max_tokens), error) &&
        send_rows(p, ctx, n_seqs, error))
        return true;
    distrust_rows(p);
    return false;
}

static int64_t room(void *self)
{
    const Pages *p = &((Paged *)self)->pages;
    return (int64_t)pages_room(p) * p->spec.block_size;
}

static int match(void *self, const MiSequence *seq) { return pages_match(&((Paged *)self)->pages, seq); }

static bool fork_sequence(void *self, const MiSequence *from, const MiSequence *to)
{
    return pages_fork(&((Paged *)self)->pages, from, to);
}

static void truncate_at(void *self, const MiSequence *seq, int n) { pages_truncate(&((Paged *)self)->pages, seq, n); }

static bool swap_out(void *self, MiContext *ctx, const MiSequence *seq)
{
    (void)ctx;
    return pages_swap_out(&((Paged *)self)->pages, seq);
}

static bool swap_in(void *self, MiContext *ctx, const MiSequence *seq)
{
    (void)ctx;
    return pages_swap_in(&((Paged *)self)->pages, seq);
}

static const MiCache paged = {
    .struct_size = sizeof paged,
    .layout = "paged",
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
    .fork = fork_sequence,
    .truncate = truncate_at,
    .swap_out = swap_out,
    .swap_in = swap_in,
    .prefix = prefix_of,
    .check = check,
    .sends = sends,
    .pinned = pinned,
    .eviction = eviction_of,
};

MI_PLUGIN("paged", "0.1", "Blocks, shared and copied on write", MI_FEATURE_CACHE("paged", "*", &paged, options_table));
