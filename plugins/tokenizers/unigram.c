/* unigram.c - tokenizer:unigram, SentencePiece's unigram language model (Kudo 2018, "Subword
 * Regularization"), as T5 and its kin have it.
 *
 * Of all ways to write a text in pieces the one with the largest sum of scores, found
 * by Viterbi's algorithm over the ends of characters; the pieces that begin at a place
 * come from a trie.  A character without a piece costs 10 more than the worst piece.
 * Sums are in double: SentencePiece's own, in float, may differ on near ties in long texts. */
#include "sentence.h"
#include "utf8.h"

#include <miniinfer/plugin.h>
#include <math.h>

typedef struct {
    MiSentence sentence;
    MiTrie     pieces;
    double     unknown; /* the score of a character without a piece */
} Unigram;

/* ---- open ------------------------------------------------------------------ */
static bool is_normal(const MiPiece *p) { return p->type == MI_PIECE_NORMAL; }

static bool read_scores(Unigram *u, const MiTokenizerData *d, GError **error)
{
    double worst = 0;

    for (uint32_t i = 0; i < d->n_pieces; i++) {
        const MiPiece *p = &d->pieces[i];
        if (!p->text || !is_normal(p))
            continue;
        if (!isfinite(p->score)) {
            g_set_error(error, MI_ERROR, MI_ERROR_MODEL, "tokenizer: the score of piece %u is not a finite number", i);
            return false;
        }
        worst = fmin(worst, (double)p->score);
    }
    u->unknown = worst - 10;
    return true;
}

static void unigram_close(void *self)
{
    Unigram *u = self;

    mi_sentence_clear(&u->sentence);
    mi_trie_clear(&u->pieces);
    g_free(u);
}

static void *unigram_open(const MiTokenizerData *data, const void *options, GError **error)
{
    Unigram *u = g_new0(Unigram, 1);

    (void)options;
    if (mi_sentence_init(&u->sentence, data, error) && read_scores(u, data, error) &&
        mi_trie_init(&u->pieces, data, is_normal, error))
        return u;
    unigram_close(u);
    return NULL;
}

/* ---- encode ---------------------------------------------------------------- */
/* The best way to the place i of a word. */
typedef struct {
    double   score;
    uint32_t from;
    int32_t  id; /* of the piece between; UNKNOWN: one character; NOT_REACHED */
} Best;
enum { NOT_REACHED = -2, UNKNOWN = -1 };

static inline void offer(Best *to, double score, uint32_t from, int32_t id)
{
    if (to->id == NOT_REACHED || score > to->score)
        *to = (Best){ score, from, id };
}

/* best: [len + 1]. */
static void search(const Unigram *u, const char *text, size_t len, Best *best)
{
    const MiPiece *pieces = u->sentence.lexicon.data->pieces;
    size_t         n;

    for (size_t i = 0; i <= len; i++)
        best[i].id = NOT_REACHED;
    best[0].score = 0;
    for (size_t at = 0; at < len; at += n) {
        int32_t node = 0;
        mi_utf8_at(text + at, text + len, &n);
        bool alone = false;
        for (size_t end = at; end < len && (node = mi_trie_step(&u->pieces, node, text[end])) >= 0;) {
            const int32_t id = u->pieces.ends[node];
            if (++end, id < 0)
                continue;
            offer(&best[end], best[at].score + (double)pieces[id].score, (uint32_t)at, id);
            alone = alone || end == at + n;
        }
        if (!alone)
            offer(&best[at + n], best[at].score + u->unknown, (uint32_t)at, UNKNOWN);
    }
}

static bool encode_word(const Unigram *u, const char *text, size_t len, MiIds *out)
{
    g_autofree Best *best = g_try_new(Best, len + 1);
    bool             unknown = false;

    if (!best)
        return false;
    search(u, text, len, best);
    /* The way back, turned round: `from` becomes the place after. */
    uint32_t end = 0;
    for (uint32_t at = (uint32_t)len, before; at; at = before) {
        before = best[at].from;
        best[at].from = end;
        end = at;
    }
    for (uint32_t at = 0; at < len; at = end, end = best[end].from) {
        const int32_t id = best[end].id;
        if (id >= 0)
            mi_ids_push(out, id);
        else
            mi_sentence_unknown(&u->sentence, text + at, end - at, unknown, out);
        unknown = id < 0;
    }
    return true;
}

static void encode_text(void *user, const char *text, size_t len, bool first, MiIds *out)
{
    const Unigram   *u = user;
    size_t           n, end;
    g_autofree char *prepared =
        mi_sentence_prepare(&u->sentence, text, len, first || !u->sentence.lexicon.data->prefix_first, &n);

    out->failed = !prepared;
    for (size_t at = 0; at < n && !out->failed; at = end) {
        end = mi_sentence_word_end(&u->sentence, prepared, at, n);
        out->failed = !encode_word(u, prepared + at, end - at, out);
    }
}

static size_t unigram_encode_ranges(void *self, const char *text, size_t len, const size_t (*trusted)[2],
                                    size_t n_trusted, int32_t *out, size_t max)
{
    Unigram *u = self;
    MiIds    ids = { .out = out, .max = max };

    if (len > INT32_MAX / 4)
        return SIZE_MAX;
    mi_lexicon_cut(&u->sentence.lexicon, text, len, trusted, n_trusted, encode_text, u, &ids);
    return ids.failed ? SIZE_MAX : ids.n;
}

static size_t unigram_encode(void *self, const char *text, size_t len, bool special, int32_t *out, size_t max)
{
    const size_t all[1][2] = { { 0, len } };
    return unigram_encode_ranges(self, text, len, all, special, out, max);
}

/* ---- decode ---------------------------------------------------------------- */
static const char *unigram_piece(void *self, int32_t previous, int32_t id, size_t *len)
{
    return mi_sentence_piece(&((Unigram *)self)->sentence, previous, id, len);
}

static int32_t unigram_special(void *self, const char *text)
{
    return mi_lexicon_special(&((Unigram *)self)->sentence.lexicon, text);
}

static const MiTokenizer unigram = {
    .struct_size = sizeof unigram,
    .open = unigram_open,
    .close = unigram_close,
    .encode = unigram_encode,
    .piece = unigram_piece,
    .special = unigram_special,
    .encode_ranges = unigram_encode_ranges,
};

MI_PLUGIN("unigram", "0.1", "SentencePiece unigram language model",
          MI_FEATURE_TOKENIZER("unigram", "*", &unigram, NULL));
