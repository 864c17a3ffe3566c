/* lfu.c - the block that the fewest sequences began with goes first, so that a beginning which many share outlives any
 * number of texts that nobody repeats.
 *
 * Blocks are in classes, by the bits of how many began with them: none, one, 2 to 3, 4 to 7...; of
 * the lowest class that has an idle one, the one that came there first goes.  All counts halve after `half_life` times as
 * many evictions as there are blocks, or what was popular once would stay for ever: each class then moves into the one
 * below, behind those that are there.  Who begins with a block does so with all before it, so none is in a higher class than
 * they are (Robinson and Devarakonda 1990 is where counts that age come from). */
#include "queue.h"

enum { CLASSES = 33 };

typedef struct {
    int32_t half_life;
} Options;

typedef struct {
    Queues   queues;
    int32_t  lowest;  /* the queue of class 0; the next classes are the next queues, round the end */
    uint32_t *hits;   /* [n_blocks] as of halving `at` */
    uint32_t *at;     /* [n_blocks] */
    uint32_t halved;  /* how often */
    int64_t  life, evicted; /* evictions between halvings, 0: none ever; since the last */
} Lfu;

static void destroy(void *self)
{
    Lfu *l = self;

    queues_clear(&l->queues);
    g_free(l->hits);
    g_free(l->at);
    g_free(l);
}

static void *create(const MiEvictionSpec *spec, const void *options, GError **error)
{
    static const Options def = { 4 };
    const Options       *o = options ? options : &def;
    Lfu                 *l = g_new0(Lfu, 1);

    l->life = (int64_t)o->half_life * spec->n_blocks;
    if ((l->hits = g_try_new0(uint32_t, MAX((size_t)spec->n_blocks, 1))) && (l->at = g_try_new0(uint32_t, MAX((size_t)spec->n_blocks, 1))) &&
        queues_init(&l->queues, spec->n_blocks, CLASSES, error))
        return l;
    if (error && !*error)
        g_set_error(error, MI_ERROR, MI_ERROR_NO_MEMORY, "counts of %d blocks: no memory", spec->n_blocks);
    destroy(l);
    return NULL;
}

static uint32_t *hits_of(Lfu *l, int32_t block)
{
    const uint32_t times = l->halved - l->at[block];

    l->hits[block] = times < 32 ? l->hits[block] >> times : 0;
    l->at[block] = l->halved;
    return &l->hits[block];
}

static int32_t queue_of(const Lfu *l, uint32_t hits)
{
    return (l->lowest + (hits ? (int32_t)g_bit_storage(hits) : 0)) % CLASSES;
}

static void idle(void *self, int32_t block)
{
    Lfu *l = self;
    queue_append(&l->queues, queue_of(l, *hits_of(l, block)), block);
}

static void busy(void *self, int32_t block) { queue_remove(&((Lfu *)self)->queues, block); }

static void hit(void *self, int32_t block)
{
    uint32_t *hits = hits_of(self, block);
    *hits += *hits < UINT32_MAX;
}

static void forget(void *self, int32_t block) { *hits_of(self, block) = 0; }

static void halve(Lfu *l)
{
    const int32_t up = (l->lowest + 1) % CLASSES;

    queue_join(&l->queues, l->lowest, up); /* the emptied one is the highest class now */
    l->lowest = up;
    l->halved++;
    l->evicted = 0;
}

static int32_t evict(void *self)
{
    Lfu    *l = self;
    int32_t block = -1;

    if (l->life && ++l->evicted > l->life)
        halve(l);
    for (int32_t c = 0; block < 0; c++)
        block = queue_first(&l->queues, (l->lowest + c) % CLASSES);
    queue_remove(&l->queues, block);
    forget(l, block);
    return block;
}

static const MiEviction lfu = {
    .struct_size = sizeof lfu, .create = create, .destroy = destroy, .idle = idle, .busy = busy, .hit = hit, .forget = forget,
    .evict = evict,
};

static const MiOption options[] = {
    MI_OPTION(Options, half_life, "4", 0, 1 << 20, "after so many times as many evictions as there are blocks counts halve; 0: never"),
    MI_OPTION_END,
};

MI_PLUGIN("lfu", "0.1", "Least often shared, evicted first", MI_FEATURE_EVICTION("lfu", "*", &lfu, options));
