/* chain.c - see chain.h.
 *
 * A hash only says where to look.  A block is found when its tokens are the ones
 * wanted and it was inserted behind the very block that was found before: every
 * insertion has a serial number, so that a block of the same place with other
 * contents is another. */
#include "chain.h"
#include <string.h>

typedef struct {
    uint64_t hash, serial, behind; /* behind: the serial of its parent, 0: it is the first; serial 0: unknown */
    int32_t  next, previous;       /* in its bucket; -1: none */
} Node;

typedef struct {
    int32_t    block_size;
    ChainHash *hash;
    uint8_t    key[CHAIN_KEY];
    uint64_t   serial; /* the last one given */
    Node      *nodes;  /* [n_blocks] */
    int32_t   *tokens; /* [n_blocks][block_size] */
    int32_t   *buckets, mask; /* [mask + 1] the first of each, -1: none */
} Chain;

void chain_free(void *self)
{
    Chain *c = self;
    g_free(c->nodes);
    g_free(c->tokens);
    g_free(c->buckets);
    g_free(c);
}

void *chain_new(const MiPrefixSpec *spec, ChainHash *hash, const uint8_t key[CHAIN_KEY], GError **error)
{
    const size_t n = (size_t)MAX(spec->n_blocks, 1), size = (size_t)MAX(spec->block_size, 1);
    size_t       buckets = 1;
    Chain       *c = g_new0(Chain, 1);

    while (buckets < n)
        buckets *= 2;
    c->block_size = spec->block_size;
    c->hash = hash;
    c->mask = (int32_t)(buckets - 1);
    memcpy(c->key, key, CHAIN_KEY);
    if (!(c->nodes = g_try_new0(Node, n)) || !(c->buckets = g_try_new(int32_t, buckets)) || n > SIZE_MAX / 4 / size ||
        !(c->tokens = g_try_new(int32_t, n * size))) {
        g_set_error(error, MI_ERROR, MI_ERROR_NO_MEMORY, "an index of %zu blocks of %zu tokens: no memory", n, size);
        chain_free(c);
        return NULL;
    }
    memset(c->buckets, -1, buckets * sizeof *c->buckets);
    return c;
}

static int32_t look_up(const Chain *c, uint64_t hash, uint64_t behind, const int32_t *tokens)
{
    const size_t bytes = (size_t)c->block_size * sizeof *tokens;
    int32_t      b = c->buckets[hash & (uint64_t)c->mask];

    while (b >= 0 && (c->nodes[b].hash != hash || c->nodes[b].behind != behind ||
                      memcmp(c->tokens + (int64_t)b * c->block_size, tokens, bytes) != 0))
        b = c->nodes[b].next;
    return b;
}

int32_t chain_find(void *self, const int32_t *tokens, int32_t n, int32_t *blocks)
{
    const Chain *c = self;
    uint64_t     hash = 0, behind = 0;
    int32_t      found = 0;

    for (; n - found >= c->block_size; found += c->block_size) {
        hash = c->hash(c->key, hash, tokens + found, c->block_size);
        const int32_t b = look_up(c, hash, behind, tokens + found);
        if (b < 0)
            break;
        behind = c->nodes[b].serial;
        *blocks++ = b;
    }
    return found;
}

int32_t chain_insert(void *self, int32_t parent, const int32_t *tokens, int32_t block)
{
    Chain         *c = self;
    const uint64_t behind = parent < 0 ? 0 : c->nodes[parent].serial;
    const uint64_t hash = c->hash(c->key, parent < 0 ? 0 : c->nodes[parent].hash, tokens, c->block_size);
    const int32_t  have = look_up(c, hash, behind, tokens);
    int32_t       *bucket = &c->buckets[hash & (uint64_t)c->mask];

    if (have >= 0)
        return have;
    c->nodes[block] = (Node){ hash, ++c->serial, behind, *bucket, -1 };
    if (*bucket >= 0)
        c->nodes[*bucket].previous = block;
    *bucket = block;
    memcpy(c->tokens + (int64_t)block * c->block_size, tokens, (size_t)c->block_size * sizeof *tokens);
    return block;
}

void chain_remove(void *self, int32_t block)
{
    Chain *c = self;
    Node  *n = &c->nodes[block];

    *(n->previous < 0 ? &c->buckets[n->hash & (uint64_t)c->mask] : &c->nodes[n->previous].next) = n->next;
    if (n->next >= 0)
        c->nodes[n->next].previous = n->previous;
    *n = (Node){ 0 };
}
