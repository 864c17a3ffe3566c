/* chain.h - blocks by the hash of their tokens and of what stands before them. */
#ifndef PLUGINS_PREFIX_CHAIN_H
#define PLUGINS_PREFIX_CHAIN_H

#include <miniinfer/plugin.h>

enum { CHAIN_KEY = 16 }; /* bytes */

/* Of n tokens behind what `before` is the hash of, 0: nothing. */
typedef uint64_t ChainHash(const uint8_t key[CHAIN_KEY], uint64_t before, const int32_t *tokens, int32_t n);

/* NULL with *error.  The rest are MiPrefix's functions. */
void   *chain_new(const MiPrefixSpec *, ChainHash *, const uint8_t key[CHAIN_KEY], GError **error);
void    chain_free(void *self);
int32_t chain_find(void *self, const int32_t *tokens, int32_t n, int32_t *blocks);
int32_t chain_insert(void *self, int32_t parent, const int32_t *tokens, int32_t block);
void    chain_remove(void *self, int32_t block);

#endif
