/* tokenizer_vocab.h - "model" and "added_tokens" of a tokenizer.json: pieces and merges. */
#ifndef MI_FORMATS_TOKENIZER_VOCAB_H
#define MI_FORMATS_TOKENIZER_VOCAB_H

#include "json_scan.h"

#include <miniinfer/format.h>

typedef struct {
    const char *name;   /* begins errors */
    const char *file;   /* its text: errors tell places in it */
    char       *buffer; /* where strings with escapes go: as many bytes as the file has */
    MiPiece    *pieces; /* [n_pieces] by id; texts as in the file, in it or in its buffer */
    uint32_t    n_pieces;
    uint32_t   *by_text; /* [mask + 1] id + 1, 0: empty */
    uint64_t    mask, seed;
    bool       *added;   /* [n_pieces] their text is meant as it is, never byte-level letters */
    int32_t   (*merges)[2];
    uint32_t    n_merges;
    int32_t     unk;
    bool        is_unigram, byte_fallback, ignore_merges, has_dropout, has_affix;
    char       *type, *unk_token;
    MiJsonText  vocab_text, merges_text; /* in the file */
} MiVocab;

/* The value of `model`, which is next: its settings; where vocab and merges are. */
bool mi_vocab_cut(MiVocab *, MiJson *, GError **error);
/* After cut(), the pieces and merges.  added: the value of `added_tokens`, len 0: none. */
bool mi_vocab_read(MiVocab *, MiJsonText added, GError **error);
/* After a failure, too. */
void mi_vocab_clear(MiVocab *);
int32_t mi_vocab_find(const MiVocab *, const char *text, size_t len);

/* Sets *error to "name: " and the message; false. */
bool mi_tokenizer_wrong(GError **error, int code, const char *name, const char *format, ...) G_GNUC_PRINTF(4, 5);
/* After j->wrong. */
bool mi_tokenizer_json_wrong(GError **error, const char *name, const MiJson *j);

#endif
