/* bpe.c - tokenizer:bpe, byte-level byte pair encoding, as GPT-2 began it.
 *
 * Text is cut at its special pieces, normalised, split into words, and in each word
 * the best known pair of neighbours merges until none is left (Sennrich et al. 2016,
 * "Neural Machine Translation of Rare Words with Subword Units"; the bytes of UTF-8
 * as the alphabet: Radford et al. 2019).  A byte that the vocabulary lacks is left
 * out, as other implementations do.
 *
 * Reads MiTokenizerData of kind "bpe" with `merges`; add_prefix_space is one blank
 * before each piece of text that has none. */
#include "lexicon.h"
#include "normal.h"
#include "split.h"

#include <miniinfer/plugin.h>
#include <string.h>

typedef struct {
    const MiTokenizerData *data;
    MiLexicon              lexicon;
    MiPairs                pairs;
    MiSplitter            *splitter;
} Bpe;

/* Of one call. */
typedef struct {
    const Bpe     *bpe;
    MiMergeScratch scratch;
    int32_t       *word; /* [capacity] */
    size_t         capacity;
} Encoder;

/* ---- open ------------------------------------------------------------------ */
static void bpe_close(void *self)
{
    Bpe *b = self;

    mi_lexicon_clear(&b->lexicon);
    mi_pairs_clear(&b->pairs);
    mi_splitter_free(b->splitter);
    g_free(b);
}

static void *bpe_open(const MiTokenizerData *data, const void *options, GError **error)
{
    Bpe *b = g_new0(Bpe, 1);

    (void)options;
    b->data = data;
    if (mi_lexicon_init(&b->lexicon, data, error) && mi_lexicon_merges(&b->lexicon, &b->pairs, error) &&
        (b->splitter = mi_splitter_new(data->pre, data->split, error)))
        return b;
    bpe_close(b);
    return NULL;
}

/* ---- encode ---------------------------------------------------------------- */
static bool reserve(Encoder *e, size_t n)
{
    if (n <= e->capacity)
        return true;
    const size_t capacity = MAX(n, 2 * e->capacity);
    int32_t     *word = g_try_renew(int32_t, e->word, capacity);
    if (!word)
        return false;
    e->word = word;
    e->capacity = capacity;
    return true;
}

static bool encode_word(Encoder *e, const char *word, size_t len, MiIds *out)
{
    const Bpe *b = e->bpe;
    size_t     n = 0;

    if (b->data->ignore_merges) {
        const int32_t id = mi_lexicon_find(&b->lexicon, word, len);
        if (id >= 0) {
            mi_ids_push(out, id);
            return true;
        }
    }
    if (!reserve(e, len))
        return false;
    for (size_t i = 0; i < len; i++) {
        const int32_t id = b->lexicon.byte[(unsigned char)word[i]];
        if (id >= 0)
            e->word[n++] = id;
    }
    if (!mi_merge(&b->pairs, &e->scratch, e->word, &n))
        return false;
    for (size_t i = 0; i < n; i++)
        mi_ids_push(out, e->word[i]);
    return true;
}

static bool encode_words(Encoder *e, const char *text, size_t len, MiIds *out)
{
    MiWords     words;
    const char *word;
    size_t      n;

    mi_words_start(&words, e->bpe->splitter, text, len);
    while (mi_words_next(&words, &word, &n))
        if (!encode_word(e, word, n, out))
            return false;
    return !words.failed;
}

/* What lies between two special pieces. */
static void encode_text(void *user, const char *text, size_t len, bool first, MiIds *out)
{
    Encoder               *e = user;
    const MiTokenizerData *d = e->bpe->data;
    char                  *normal = (char *)text, *prefixed = NULL;
    size_t                 n = len;
    bool                   ok = !d->nfc || mi_nfc(text, len, &normal, &n);
    const char            *use = normal;

    if (ok && d->add_prefix_space && (first || !d->prefix_first) && use[0] != ' ') {
        use = prefixed = g_try_malloc(n + 1);
        ok = prefixed;
        if (ok) {
            prefixed[0] = ' ';
            memcpy(prefixed + 1, normal, n++);
        }
    }
    out->failed = !ok || !encode_words(e, use, n, out);
    g_free(prefixed);
    if (normal != text)
        g_free(normal);
}

static size_t bpe_encode_ranges(void *self, const char *text, size_t len, const size_t (*trusted)[2], size_t n_trusted,
                                int32_t *out, size_t max)
{
    Encoder e = { .bpe = self };
    MiIds   ids = { .out = out, .max = max };

    if (len > INT32_MAX)
        return SIZE_MAX;
    mi_lexicon_cut(&e.bpe->lexicon, text, len, trusted, n_trusted, encode_text, &e, &ids);
    mi_merge_scratch_clear(&e.scratch);
    g_free(e.word);
    return ids.failed ? SIZE_MAX : ids.n;
}

static size_t bpe_encode(void *self, const char *text, size_t len, bool special, int32_t *out, size_t max)
{
    const size_t all[1][2] = { { 0, len } };
    return bpe_encode_ranges(self, text, len, all, special, out, max);
}

/* ---- decode ---------------------------------------------------------------- */
static const char *bpe_piece(void *self, int32_t previous, int32_t id, size_t *len)
{
    (void)previous;
    return mi_lexicon_piece(&((Bpe *)self)->lexicon, id, len);
}

static int32_t bpe_special(void *self, const char *text) { return mi_lexicon_special(&((Bpe *)self)->lexicon, text); }

static const MiTokenizer bpe = {
    .struct_size = sizeof bpe,
    .open = bpe_open,
    .close = bpe_close,
    .encode = bpe_encode,
    .piece = bpe_piece,
    .special = bpe_special,
    .encode_ranges = bpe_encode_ranges,
};

MI_PLUGIN("bpe", "0.1", "Byte-level byte pair encoding", MI_FEATURE_TOKENIZER("bpe", "*", &bpe, NULL));
