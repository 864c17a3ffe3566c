/* batching.h - continuous batching, which all schedulers here share: slots, room in the cache, who is admitted
 * when, chunks of prompts, and giving up a place for lack of room.  What a policy adds is an order.
 *
 * A step holds one row of every sequence that decodes.  What it may hold beside goes to prompts, those that run
 * and those that wait, in the policy's order.  A newcomer gets room for all of its known tokens at once, so a
 * prompt never stalls halfway.  When one that runs finds no room, the last in the policy's order gives up its
 * place and waits again; so those that decode do advance, and nothing deadlocks, whatever the order.
 *
 * next() is false while sequences wait only if the first of them does not fit into an empty cache, or, with a
 * cache that recomputes, into one step: the engine refuses such a request before it comes here. */
#ifndef BATCHING_H
#define BATCHING_H

#include "heap.h"
#include "pace.h"
#include <miniinfer/plugin.h>

/* A sequence, as long as the scheduler knows it.  A policy's own begins with it. */
typedef struct {
    HeapItem    item; /* first */
    MiSequence *s;
    uint64_t    order;    /* of arrival */
    int         running;  /* index of those that run; -1: waits */
    int32_t     placed;   /* tokens that it had when it got its place; 0: it never had one */
    bool        swapped;
} Entry;

/* Calls get what the policy's create() made.  Those behind before() may be NULL. */
typedef struct {
    size_t entry; /* bytes of one */
    /* Whether a comes before b: a total order that does not change of itself. */
    bool (*before)(void *self, const Entry *a, const Entry *b);

    void (*arrives)(void *self, Entry *);
    void (*leaves)(void *self, Entry *); /* s->ended: with its whole answer */
    /* For the first time; rows of its prompt are left to compute. */
    void (*admits)(void *self, Entry *, int rows);
    /* The step that is made draws a token of it. */
    void (*draws)(void *self, Entry *);
    /* Whether one that waits, without a slot or room, takes the place of one that runs.  What it took a place
     * from must not take it back before one of the two has advanced. */
    bool (*displaces)(void *self, const Entry *waiting, const Entry *running);
    /* A step is about to be made; may change the order of all, and tells so with batching_reorder(). */
    void (*turns)(void *self);
    /* A queue of its own, all three or none: else those that wait are a heap by before(). */
    void (*queue)(void *self, Entry *);
    void (*unqueue)(void *self, Entry *);
    Entry *(*first)(void *self); /* NULL: nobody waits */
} Policy;

/* The first member of a policy's options. */
typedef struct {
    const char *preempt;
    float       prefill_ms, prefill_stretch;
    int32_t     prefill_min;
} BatchingOptions;

#define BATCHING_OPTIONS                                                                                              \
    MI_CHOICE(BatchingOptions, preempt, "recompute", "recompute, swap",                                               \
              "what becomes of a sequence that loses its place: computed again, or kept in host memory while there "  \
              "is some"),                                                                                             \
        MI_OPTION(BatchingOptions, prefill_ms, "0", 0, 1e6,                                                           \
                  "milliseconds that a step of running answers may take with prompts beside them; 0: any"),          \
        MI_OPTION(BatchingOptions, prefill_stretch, "0", 0, 1e3,                                                      \
                  "how many times as long as without prompts such a step may take; 0: any"),                         \
        MI_OPTION(BatchingOptions, prefill_min, "16", 1, 1 << 16,                                                     \
                  "rows of prompts in a step however long it takes, so that prompts go on")

/* The first member of a policy's state. */
typedef struct {
    const Policy   *policy;
    const MiLimits *limits;
    BatchingOptions options;
    bool            swaps;
    int             max_running;
    Entry         **running; /* [n_running] in the order they were admitted */
    int             n_running, n_waiting;
    int             n_swapped; /* at most max_running: a cache has tables for no more beside those that run */
    bool           *taken;   /* [max_running] slots in use */
    Heap            queue, prompts; /* who waits; of a step being made, prompts that may get rows */
    uint64_t        n_arrived;
    GPtrArray      *blocks; /* of entries */
    Entry         **spare;  /* [n_spare] entries nobody uses */
    int             n_spare, n_entries;
    const Entry    *refused; /* who found no room last, and how much there was */
    int64_t         refused_room;
    Pace            pace;
} Batching;

/* self: a policy's zeroed state.  On false it frees nothing. */
bool batching_init(Batching *self, const char *name, const Policy *, const MiLimits *, const void *options, GError **error);
void batching_clear(Batching *self);
/* The order of those that wait is another. */
void batching_reorder(Batching *self);

/* Of a MiScheduler. */
void batching_add(void *self, MiSequence *);
void batching_remove(void *self, MiSequence *);
bool batching_next(void *self, MiStep *out);
int  batching_waiting(void *self);
void batching_took(void *self, const MiStep *, int64_t microseconds);
#define BATCHING_CALLS                                                                                       \
    .add = batching_add, .remove = batching_remove, .next = batching_next, .waiting = batching_waiting, \
    .took = batching_took

#endif
