/* sentence.h - what SentencePiece does before and after its models: blanks are written
 * U+2581, one may stand before the text, and what is unknown becomes bytes. */
#ifndef MI_TOKENIZERS_SENTENCE_H
#define MI_TOKENIZERS_SENTENCE_H

#include "lexicon.h"

typedef struct {
    MiLexicon lexicon;
    char     *plain;       /* the pieces that hold U+2581, with blanks instead, one after the other */
    uint32_t *plain_start; /* [n_pieces] where in `plain`, UINT32_MAX: the piece's own text */
    uint32_t *plain_len;   /* [n_pieces] */
    bool      split;       /* into words, each with the blank before it */
} MiSentence;

bool mi_sentence_init(MiSentence *, const MiTokenizerData *, GError **error);
void mi_sentence_clear(MiSentence *);

/* The text as the model sees it, for g_free(); NULL: no memory.  `start`: a blank goes before it,
 * if the model wants one. */
char *mi_sentence_prepare(const MiSentence *, const char *text, size_t len, bool start, size_t *out_len);
/* The end of the word of a prepared text that begins at `at`: before a blank, if the data splits there. */
size_t mi_sentence_word_end(const MiSentence *, const char *text, size_t at, size_t len);
/* A character no piece has, as its bytes or as `unk`, of which several in a row are one. */
void mi_sentence_unknown(const MiSentence *, const char *text, size_t len, bool after_unknown, MiIds *out);
/* As MiTokenizer.piece. */
const char *mi_sentence_piece(const MiSentence *, int32_t previous, int32_t id, size_t *len);

#endif
