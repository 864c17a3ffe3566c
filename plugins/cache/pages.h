/* pages.h - which sequence has which blocks: the book-keeping of paged memory,
 * which knows no device.
 *
 * A block is free, or idle (nobody's, but the prefix index knows what it holds), or
 * has references: one for every sequence it is part of.  Sequences write only into
 * blocks that are theirs alone and that the index does not know. */
#ifndef PLUGINS_CACHE_PAGES_H
#define PLUGINS_CACHE_PAGES_H

#include <miniinfer/plugin.h>

typedef enum { PAGES_COPY, PAGES_OUT, PAGES_IN } PagesMove; /* block to block, to a host block, from one */

typedef struct {
    int32_t         block_size, n_blocks, n_host; /* n_host: blocks outside, for sequences that were swapped out */
    int32_t         max_blocks, n_places;         /* blocks of a sequence; sequences */
    const MiPrefix *prefix; /* NULL: what sequences leave is free at once */
    void           *index;  /* prefix's self */
    const MiEviction *eviction; /* with prefix: which idle block goes */
    void             *evictor;  /* eviction's self */
    /* The contents of a block, in the order of the calls; called by all that say so. */
    void (*move)(void *user, PagesMove, int32_t from, int32_t to);
    void *user;
} PagesSpec;

/* What a sequence has. */
typedef struct {
    uint64_t id;
    uint64_t version;  /* another whenever a block of it changes; not when one is added */
    int32_t *blocks;   /* [max_blocks] */
    int32_t  n_blocks, n_known; /* n_known: of them that the index knows, from the first on */
    bool     out;      /* its blocks are host blocks */
} Place;

typedef struct {
    PagesSpec spec;
    int32_t  *refs;  /* [n_blocks] */
    bool     *known; /* [n_blocks] to the index */
    int32_t  *free, n_free;           /* [n_blocks] a stack */
    int32_t   n_idle;                 /* the policy has them */
    int32_t  *host, n_host;           /* [spec.n_host] a stack of free ones */
    Place    *places;                 /* [n_places] */
    int32_t  *spare, n_spare;         /* [n_places] a stack of those that nobody has */
    int32_t  *map, map_mask;          /* by id, open addressing: index of a place, -1: none */
    int32_t  *blocks;                 /* [n_places][max_blocks] the places' */
    uint64_t  version;                /* the last one given */
} Pages;

bool   pages_init(Pages *, const PagesSpec *); /* false: no memory */
void   pages_clear(Pages *);
Place *pages_find(const Pages *, uint64_t id); /* NULL: it has none */
int32_t pages_room(const Pages *);             /* blocks that are free or idle */

/* As MiCache's functions of these names; those marked with a star move contents. */
bool pages_reserve(Pages *, const MiSequence *, int32_t n_tokens); /* * */
void pages_release(Pages *, const MiSequence *);
int  pages_match(Pages *, const MiSequence *);
bool pages_fork(Pages *, const MiSequence *from, const MiSequence *to);
void pages_truncate(Pages *, const MiSequence *, int32_t n);
bool pages_swap_out(Pages *, const MiSequence *); /* * */
bool pages_swap_in(Pages *, const MiSequence *);  /* * */

#endif
