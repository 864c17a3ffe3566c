/* eviction.h - which block of a cache is given up when its room is needed.
 *
 * A policy for one cache.  Host only; nothing is allocated after create().  A block is known while an index knows
 * what it holds, and then idle, when no sequence has it, or busy; others the policy never hears of.  Of blocks that
 * one sequence leaves the last of its text comes first, and what it begins with has no gaps: who evicts what was idle
 * longest, or what the fewest began with, evicts no block before one behind it, which would be found no more. */
#ifndef MINIINFER_EVICTION_H
#define MINIINFER_EVICTION_H

#include <miniinfer/context.h>

typedef struct {
    int32_t n_blocks;
} MiEvictionSpec;

typedef struct {
    size_t struct_size;
    /* LOAD.  No block is known; options may be NULL.  NULL with *error. */
    void *(*create)(const MiEvictionSpec *, const void *options, GError **error);
    void (*destroy)(void *self);
    /* STEP.  A block that was busy or not known is idle. */
    void (*idle)(void *self, int32_t block);
    /* STEP.  An idle block is busy. */
    void (*busy)(void *self, int32_t block);
    /* STEP.  One more sequence begins with what a busy block holds. */
    void (*hit)(void *self, int32_t block);
    /* STEP.  A busy block is known no longer: what it holds will be something else. */
    void (*forget)(void *self, int32_t block);
    /* STEP.  An idle block, of which there is one; it is known no longer. */
    int32_t (*evict)(void *self);
} MiEviction;

#endif
