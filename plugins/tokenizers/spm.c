/* spm.c - tokenizer:spm, SentencePiece's byte pair encoding (Kudo and Richardson 2018), as
 * Llama 2 and Mistral have it.
 *
 * Text is one word, unless the data splits it before blanks.  Its symbols are characters, of which neighbours merge
 * that make the piece of the best score, the leftmost of several; or, where the data has merges (tokenizer.json), by
 * their order.  Merging by score becomes merging by pairs at open: a piece enters once for each way to cut it in two
 * symbols, ranked by its score. */
#include "sentence.h"
#include "utf8.h"

#include <miniinfer/plugin.h>
#include <math.h>
#include <string.h>

typedef struct {
    MiSentence sentence;
    MiPairs    pairs;
    int32_t    ascii[128]; /* the symbol of each */
} Spm;

/* Of one call. */
typedef struct {
    const Spm     *spm;
    MiMergeScratch scratch;
} Encoder;

/* The length of a piece that merges can make; SentencePiece trains up to 16 characters. */
enum { MAX_PIECE = 512 /* bytes */ };

/* ---- symbols --------------------------------------------------------------- */
/* A character that is no piece still may be part of one: its symbol is below -1. */
static int32_t symbol_of(uint32_t c) { return -2 - (int32_t)c; }

static int32_t character(const MiLexicon *l, const char *p, const char *end, size_t *n)
{
    const uint32_t c = mi_utf8_at(p, end, n);
    const int32_t  id = mi_lexicon_find(l, p, *n);
    return id >= 0 ? id : symbol_of(c);
}

/* The symbol of a text: a piece, or one character; -1. */
static int32_t symbol(const MiLexicon *l, const char *text, size_t len)
{
    size_t        n;
    const int32_t first = character(l, text, text + len, &n);
    return n == len ? first : mi_lexicon_find(l, text, len);
}

static size_t spell(int32_t symbol, char out[4])
{
    const uint32_t c = (uint32_t)(-2 - symbol);

    if (c < MI_INVALID_BYTE)
        return (size_t)g_unichar_to_utf8(c, out);
    out[0] = (char)(c - MI_INVALID_BYTE);
    return 1;
}

/* ---- open ------------------------------------------------------------------ */
typedef struct {
    float    score;
    uint32_t id;
} Scored;

static int by_score(const void *a, const void *b)
{
    const Scored *x = a, *y = b;
    return x->score != y->score ? (x->score < y->score) - (x->score > y->score) : (x->id > y->id) - (x->id < y->id);
}

/* For each way to cut piece `id` in two symbols, add it to the table; how many there are.
 * pairs NULL: only count. */
static size_t cuts(const MiLexicon *l, uint32_t id, uint32_t rank, MiPairs *pairs)
{
    const MiPiece *p = &l->data->pieces[id];
    size_t         n, count = 0;

    for (size_t at = 0; at < p->len; at += n) {
        mi_utf8_at(p->text + at, p->text + p->len, &n);
        if (!at)
            continue;
        if (pairs) {
            const int32_t left = symbol(l, p->text, at), right = symbol(l, p->text + at, p->len - at);
            if (left != -1 && right != -1)
                mi_pairs_add(pairs, left, right, rank, (int32_t)id);
        }
        count++;
    }
    return count;
}

static bool check_piece(const MiPiece *p, uint32_t id, GError **error)
{
    if (p->len > MAX_PIECE)
        g_set_error(error, MI_ERROR, MI_ERROR_MODEL, "tokenizer: piece %u has %u bytes; at most %d are read", id,
                    p->len, MAX_PIECE);
    else if (isnan(p->score))
        g_set_error(error, MI_ERROR, MI_ERROR_MODEL, "tokenizer: the score of piece %u is not a number", id);
    else
        return true;
    return false;
}

/* The pieces that merges make, best first; their cuts are at most *n_cuts. */
static Scored *rank_pieces(const MiLexicon *l, size_t *n_pieces, size_t *n_cuts, GError **error)
{
    const MiTokenizerData *d = l->data;
    Scored                *scored = g_try_new(Scored, d->n_pieces);

    if (!scored)
        g_set_error(error, MI_ERROR, MI_ERROR_NO_MEMORY, "tokenizer: no memory for %u pieces", d->n_pieces);
    *n_pieces = *n_cuts = 0;
    for (uint32_t id = 0; scored && id < d->n_pieces; id++) {
        const MiPiece *p = &d->pieces[id];
        if (!p->text || !p->len || p->type != MI_PIECE_NORMAL)
            continue;
        if (!check_piece(p, id, error)) {
            g_free(scored);
            return NULL;
        }
        if (mi_lexicon_find(l, p->text, p->len) != (int32_t)id)
            continue;
        scored[(*n_pieces)++] = (Scored){ p->score, id };
        *n_cuts += cuts(l, id, 0, NULL);
    }
    if (scored)
        qsort(scored, *n_pieces, sizeof *scored, by_score);
    return scored;
}

static bool pairs_by_score(const MiLexicon *l, MiPairs *pairs, GError **error)
{
    size_t             n, n_cuts;
    g_autofree Scored *scored = rank_pieces(l, &n, &n_cuts, error);

    if (!scored)
        return false;
    if (!mi_pairs_init(pairs, n_cuts)) {
        g_set_error(error, MI_ERROR, MI_ERROR_NO_MEMORY, "tokenizer: no memory for %zu pairs", n_cuts);
        return false;
    }
    for (uint32_t i = 0, rank = 0; i < n; i++) {
        rank += i && scored[i].score < scored[i - 1].score;
        cuts(l, scored[i].id, rank, pairs);
    }
    return true;
}

static void spm_close(void *self)
{
    Spm *s = self;

    mi_sentence_clear(&s->sentence);
    mi_pairs_clear(&s->pairs);
    g_free(s);
}

static void *spm_open(const MiTokenizerData *data, const void *options, GError **error)
{
    Spm             *s = g_new0(Spm, 1);
    const MiLexicon *l = &s->sentence.lexicon;
    size_t           n;

    (void)options;
    if (!mi_sentence_init(&s->sentence, data, error) ||
        !(data->merges ? mi_lexicon_merges(l, &s->pairs, error) : pairs_by_score(l, &s->pairs, error))) {
        spm_close(s);
        return NULL;
    }
    for (int c = 0; c < 128; c++)
        s->ascii[c] = character(l, &l->bytes[c], &l->bytes[c] + 1, &n);
    return s;
}

/* ---- encode ---------------------------------------------------------------- */
static bool encode_word(Encoder *e, const char *text, size_t len, MiIds *out)
{
    const Spm          *s = e->spm;
    g_autofree int32_t *ids = g_try_new(int32_t, len);
    size_t              n = 0, step;
    bool                unknown = false;

    if (!ids && len)
        return false;
    for (size_t i = 0; i < len; i += step) {
        const unsigned char c = (unsigned char)text[i];
        step = 1;
        ids[n++] = c < 128 ? s->ascii[c] : character(&s->sentence.lexicon, text + i, text + len, &step);
    }
    if (!mi_merge(&s->pairs, &e->scratch, ids, &n))
        return false;
    for (size_t i = 0; i < n; i++) {
        char bytes[6];
        if (ids[i] >= 0)
            mi_ids_push(out, ids[i]);
        else
            mi_sentence_unknown(&s->sentence, bytes, spell(ids[i], bytes), unknown, out);
        unknown = ids[i] < 0;
    }
    return true;
}

static void encode_text(void *user, const char *text, size_t len, bool first, MiIds *out)
{
    Encoder               *e = user;
    const MiSentence      *s = &e->spm->sentence;
    size_t                 n, end;
    g_autofree char       *prepared = mi_sentence_prepare(s, text, len, first || !s->lexicon.data->prefix_first, &n);

    out->failed = !prepared;
    for (size_t at = 0; at < n && !out->failed; at = end) {
        end = mi_sentence_word_end(s, prepared, at, n);
        out->failed = !encode_word(e, prepared + at, end - at, out);
    }
}

static size_t spm_encode_ranges(void *self, const char *text, size_t len, const size_t (*trusted)[2], size_t n_trusted,
                                int32_t *out, size_t max)
{
    Encoder e = { .spm = self };
    MiIds   ids = { .out = out, .max = max };

    if (len > INT32_MAX / 4)
        return SIZE_MAX;
    mi_lexicon_cut(&e.spm->sentence.lexicon, text, len, trusted, n_trusted, encode_text, &e, &ids);
    mi_merge_scratch_clear(&e.scratch);
    return ids.failed ? SIZE_MAX : ids.n;
}

static size_t spm_encode(void *self, const char *text, size_t len, bool special, int32_t *out, size_t max)
{
    const size_t all[1][2] = { { 0, len } };
    return spm_encode_ranges(self, text, len, all, special, out, max);
}

/* ---- decode ---------------------------------------------------------------- */
static const char *spm_piece(void *self, int32_t previous, int32_t id, size_t *len)
{
    return mi_sentence_piece(&((Spm *)self)->sentence, previous, id, len);
}

static int32_t spm_special(void *self, const char *text)
{
    return mi_lexicon_special(&((Spm *)self)->sentence.lexicon, text);
}

static const MiTokenizer spm = {
    .struct_size = sizeof spm,
    .open = spm_open,
    .close = spm_close,
    .encode = spm_encode,
    .piece = spm_piece,
    .special = spm_special,
    .encode_ranges = spm_encode_ranges,
};

MI_PLUGIN("spm", "0.1", "SentencePiece byte pair encoding", MI_FEATURE_TOKENIZER("spm", "*", &spm, NULL));
