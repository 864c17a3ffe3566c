/* merge.h - byte pair merging: the best pair of neighbours becomes one symbol,
 * until no pair is left that the model knows. */
#ifndef MI_TOKENIZERS_MERGE_H
#define MI_TOKENIZERS_MERGE_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint64_t key; /* left << 32 | right */
    uint32_t rank;
    int32_t  id; /* what the two become; MI_NO_PAIR: an empty place */
} MiPair;
enum { MI_NO_PAIR = -1 };

/* An open-addressed table, at most half full.  The multiplier is drawn at open: a file cannot
 * choose pairs that collide. */
typedef struct {
    MiPair  *at; /* [1 << (64 - shift)] */
    uint64_t multiplier, mask;
    unsigned shift;
} MiPairs;

/* Room for n pairs; false: no memory. */
bool mi_pairs_init(MiPairs *, size_t n);
void mi_pairs_clear(MiPairs *);
/* Of two entries for one pair the lower rank stays.  No more than the n of init. */
void mi_pairs_add(MiPairs *, int32_t left, int32_t right, uint32_t rank, int32_t id);

static inline uint64_t mi_pair_key(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

/* NULL: there is no such pair. */
static inline const MiPair *mi_pairs_find(const MiPairs *p, int32_t left, int32_t right)
{
    const uint64_t key = mi_pair_key(left, right);
    for (uint64_t i = key * p->multiplier >> p->shift;; i = (i + 1) & p->mask) {
        const MiPair *e = &p->at[i];
        if (e->id == MI_NO_PAIR)
            return NULL;
        if (e->key == key)
            return e;
    }
}

/* Scratch of one call of encode. */
typedef struct {
    void  *memory;
    size_t bytes;
} MiMergeScratch;
void mi_merge_scratch_clear(MiMergeScratch *);

/* ids: [*n] symbols of one word, in place; *n is how many remain.  The best pair is that of
 * the lowest rank, the leftmost of several.  False: no memory. */
bool mi_merge(const MiPairs *, MiMergeScratch *, int32_t *ids, size_t *n);

#endif
