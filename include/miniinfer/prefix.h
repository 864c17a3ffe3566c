/* prefix.h - which blocks of a cache hold which beginning of a text.
 *
 * An index for one cache, which owns the blocks and says when one is forgotten.
 * Host only.  A block is known with its tokens and all that stand before them:
 * what find() gives was compared token by token, whatever leads there. */
#ifndef MINIINFER_PREFIX_H
#define MINIINFER_PREFIX_H

#include <miniinfer/context.h>

typedef struct {
    int32_t n_blocks, block_size; /* block_size: positions, and so tokens, of a block */
} MiPrefixSpec;

typedef struct {
    size_t struct_size;
    /* LOAD.  Knows no block; options may be NULL.  NULL with *error. */
    void *(*create)(const MiPrefixSpec *, const void *options, GError **error);
    void (*destroy)(void *self);
    /* STEP.  The longest beginning of tokens[0..n) that known blocks hold, as positions; blocks
     * [n / block_size, rounded up]: those that hold it, in order, the last perhaps in part. */
    int32_t (*find)(void *self, const int32_t *tokens, int32_t n, int32_t *blocks);
    /* STEP.  `block`, which is not known, holds tokens[0..block_size) behind what the known block
     * `parent` does, -1: at the beginning.  Returns it, or the block that is known with the same. */
    int32_t (*insert)(void *self, int32_t parent, const int32_t *tokens, int32_t block);
    /* STEP.  A known block is so no longer.  What stands behind it is not found any more, but
     * known until it is removed, too. */
    void (*remove)(void *self, int32_t block);
} MiPrefix;

#endif
