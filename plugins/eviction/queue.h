/* queue.h - blocks in queues, each in one at most, by links in two arrays.
 *
 * Queue q of n_blocks blocks is the ring through the entry n_blocks + q, which is no block: what is taken out of a ring
 * need not know whose it is. */
#ifndef PLUGINS_EVICTION_QUEUE_H
#define PLUGINS_EVICTION_QUEUE_H

#include <miniinfer/plugin.h>

typedef struct {
    int32_t  n_blocks;
    int32_t *next, *previous; /* [n_blocks + queues] */
} Queues;

static inline void queues_clear(Queues *q)
{
    g_free(q->next);
    g_free(q->previous);
}

static inline bool queues_init(Queues *q, int32_t n_blocks, int32_t n, GError **error)
{
    const size_t all = (size_t)n_blocks + (size_t)n;

    *q = (Queues){ n_blocks, g_try_new(int32_t, all), g_try_new(int32_t, all) };
    if (!q->next || !q->previous) {
        g_set_error(error, MI_ERROR, MI_ERROR_NO_MEMORY, "an order of %d blocks: no memory", n_blocks);
        queues_clear(q);
        return false;
    }
    for (int32_t i = n_blocks; i < n_blocks + n; i++)
        q->next[i] = q->previous[i] = i;
    return true;
}

static inline void queue_remove(Queues *q, int32_t block)
{
    q->next[q->previous[block]] = q->next[block];
    q->previous[q->next[block]] = q->previous[block];
}

static inline void queue_append(Queues *q, int32_t queue, int32_t block)
{
    const int32_t ring = q->n_blocks + queue;

    q->next[block] = ring;
    q->previous[block] = q->previous[ring];
    q->next[q->previous[ring]] = block;
    q->previous[ring] = block;
}

/* The one that came first; -1: none. */
static inline int32_t queue_first(const Queues *q, int32_t queue)
{
    const int32_t first = q->next[q->n_blocks + queue];
    return first < q->n_blocks ? first : -1;
}

/* All of `from`, which is empty then, before those of `to`. */
static inline void queue_join(Queues *q, int32_t from, int32_t to)
{
    const int32_t a = q->n_blocks + from, b = q->n_blocks + to;

    if (q->next[a] == a)
        return;
    q->next[q->previous[a]] = q->next[b];
    q->previous[q->next[b]] = q->previous[a];
    q->next[b] = q->next[a];
    q->previous[q->next[a]] = b;
    q->next[a] = q->previous[a] = a;
}

#endif
