/* lru.c - the block that has been idle longest goes first: what was asked for lately is asked for again.
 * A flood of texts that nobody repeats drives everything else out; lfu.c does not let it. */
#include "queue.h"

static void destroy(void *self)
{
    queues_clear(self);
    g_free(self);
}

static void *create(const MiEvictionSpec *spec, const void *options, GError **error)
{
    Queues *q = g_new0(Queues, 1);

    (void)options;
    if (queues_init(q, spec->n_blocks, 1, error))
        return q;
    g_free(q);
    return NULL;
}

static void idle(void *self, int32_t block) { queue_append(self, 0, block); }
static void busy(void *self, int32_t block) { queue_remove(self, block); }
static void hit(void *self, int32_t block) { (void)self, (void)block; }
static void forget(void *self, int32_t block) { (void)self, (void)block; }

static int32_t evict(void *self)
{
    const int32_t block = queue_first(self, 0);

    queue_remove(self, block);
    return block;
}

static const MiEviction lru = {
    .struct_size = sizeof lru, .create = create, .destroy = destroy, .idle = idle, .busy = busy, .hit = hit, .forget = forget,
    .evict = evict,
};

MI_PLUGIN("lru", "0.1", "Idle longest, evicted first", MI_FEATURE_EVICTION("lru", "*", &lru, NULL));
