/* lexicon.h - the pieces of a vocabulary: by text, by first bytes, special ones in text. */
#ifndef MI_TOKENIZERS_LEXICON_H
#define MI_TOKENIZERS_LEXICON_H

#include "merge.h"

#include <miniinfer/format.h>

/* What encode writes to.  n counts on past max. */
typedef struct {
    int32_t *out;
    size_t   max, n;
    bool     failed;
} MiIds;

static inline void mi_ids_push(MiIds *ids, int32_t id)
{
    if (ids->n < ids->max)
        ids->out[ids->n] = id;
    ids->n++;
}

/* A byte trie: edges by (node, byte), the id that ends at a node. */
typedef struct {
    MiPairs  edges;
    int32_t *ends; /* [n_nodes] -1: none */
    size_t   n_nodes;
} MiTrie;

static inline int32_t mi_trie_step(const MiTrie *t, int32_t node, char byte)
{
    const MiPair *edge = mi_pairs_find(&t->edges, node, (unsigned char)byte);
    return edge ? edge->id : -1;
}

typedef struct {
    const MiTokenizerData *data;
    uint32_t *by_text; /* [mask + 1] id + 1, 0: empty; ordinary and user pieces */
    uint64_t  mask, seed;
    MiTrie    special;      /* control, user and unknown pieces */
    bool      begins[256];  /* a special piece starts with this byte */
    int32_t   byte[256];    /* the piece of one byte: MI_PIECE_BYTE, else one of that length; -1 */
    char      bytes[256];   /* 0, 1, ... 255: what piece() points at */
} MiLexicon;

/* A longer piece would make every search as long. */
enum { MI_MAX_SPECIAL = 1024 /* bytes */ };

/* Checks the ids and sizes of data, which is borrowed until clear(). */
bool mi_lexicon_init(MiLexicon *, const MiTokenizerData *data, GError **error);
void mi_lexicon_clear(MiLexicon *);

/* The ordinary or user piece of exactly this text; -1. */
int32_t mi_lexicon_find(const MiLexicon *, const char *text, size_t len);
/* The special piece of exactly this text; -1. */
int32_t mi_lexicon_special(const MiLexicon *, const char *text);
/* The bytes of a piece; NULL: no such id. */
const char *mi_lexicon_piece(const MiLexicon *, int32_t id, size_t *len);

/* data->merges, each checked to make a piece. */
bool mi_lexicon_merges(const MiLexicon *, MiPairs *, GError **error);

/* The pieces that `wanted` says, by their bytes. */
bool mi_trie_init(MiTrie *, const MiTokenizerData *, bool (*wanted)(const MiPiece *), GError **error);
void mi_trie_clear(MiTrie *);

/* Cuts text at its special pieces, the longest at each place: `ordinary` gets what lies
 * between (never empty; `first`: the text begins with it), `out` the ids of the pieces.  Control
 * pieces count only inside `trusted`.  Stops when out->failed. */
typedef void (*MiOrdinary)(void *user, const char *text, size_t len, bool first, MiIds *out);
void mi_lexicon_cut(const MiLexicon *, const char *text, size_t len, const size_t (*trusted)[2], size_t n_trusted,
                    MiOrdinary ordinary, void *user, MiIds *out);

#endif
