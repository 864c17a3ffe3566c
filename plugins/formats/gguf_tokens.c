/* gguf_tokens.c - pieces, merges and special ids out of GGUF's arrays.
 *
 * Pieces of a byte-level vocabulary stand in the file in GPT-2's letters, one for
 * each byte; the pieces given out are the bytes.  Merges are pairs of texts there
 * and pairs of ids here: a hash over the letters finds them, 150,000 in some 10 ms. */
#include "gguf_tokens.h"
#include "letters.h"
#include "names.h"
#include <stdlib.h>
#include <string.h>

enum { MAX_PIECES = 1 << 20, MAX_MERGES = 1 << 22, UNUSED = 5 };
enum { N_END_KEYS = 2, N_END_TEXTS = 8, MAX_STOP = 1 + N_END_KEYS + N_END_TEXTS };

struct MiGgufTokens {
    const MiGguf   *f;
    MiTokenizerData data;
    MiPiece        *pieces; /* [data.n_pieces] */
    char           *text;   /* the bytes of those that the file spells otherwise */
    int32_t       (*merges)[2];
    int32_t         stop[MAX_STOP];
    char           *model, *pre, *chat_template;
    uint32_t       *slots; /* [mask + 1] 1 + id, 0: free; while reading */
    uint64_t        seed;  /* of the hash: nobody can prepare texts that collide */
    uint32_t        mask;
};

static bool fail(const MiGguf *f, GError **error, const char *form, ...) G_GNUC_PRINTF(3, 4);
static bool fail(const MiGguf *f, GError **error, const char *form, ...)
{
    va_list args;
    va_start(args, form);
    g_autofree char *text = g_strdup_vprintf(form, args);
    va_end(args);
    g_set_error(error, MI_ERROR, MI_ERROR_MODEL, "%s: %s", f->path, text);
    return false;
}

static bool no_memory(const MiGguf *f, GError **error)
{
    g_set_error(error, MI_ERROR, MI_ERROR_NO_MEMORY, "%s: no memory for its vocabulary", f->path);
    return false;
}

char *mi_gguf_text(const MiGguf *f, const char *key, GError **error)
{
    const MiGgufKey *k = mi_gguf_key(f, key);
    const uint8_t   *at;
    const char      *text;
    size_t           len;

    if (!k)
        return NULL;
    at = k->at;
    if (k->type != MI_GGUF_STRING || k->array || !mi_gguf_string(f, &at, &text, &len)) {
        fail(f, error, "'%s' is no string", key);
        return NULL;
    }
    if (!g_utf8_validate_len(text, len, NULL)) {
        fail(f, error, "'%s' is not UTF-8", key);
        return NULL;
    }
    char *copy = g_try_malloc(len + 1);
    if (!copy) {
        no_memory(f, error);
        return NULL;
    }
    memcpy(copy, text, len);
    copy[len] = 0;
    return copy;
}

/* An array of the vocabulary's length; NULL without *error: absent. */
static const MiGgufKey *column(const MiGgufTokens *t, const char *key, bool whole, GError **error)
{
    const MiGgufKey *k = mi_gguf_key(t->f, key);
    int64_t          n;
    double           x;

    if (!k)
        return NULL;
    if (k->array && k->n == t->data.n_pieces && (whole ? mi_gguf_int(k, 0, &n) : mi_gguf_float(k, 0, &x)))
        return k;
    fail(t->f, error, "'%s' is no array of %u %snumbers, one for each token", key, t->data.n_pieces,
         whole ? "whole " : "");
    return NULL;
}

static bool read_pieces(MiGgufTokens *t, GError **error)
{
    const MiGgufKey *k = mi_gguf_key(t->f, "tokenizer.ggml.tokens"), *types, *scores;
    GError          *bad = NULL;

    if (!k || !k->array || k->type != MI_GGUF_STRING || k->n == 0 || k->n > MAX_PIECES)
        return fail(t->f, error, "'tokenizer.ggml.tokens' is no array of 1 to %d strings", MAX_PIECES);
    t->data.n_pieces = (uint32_t)k->n;
    t->data.pieces = t->pieces = g_try_new0(MiPiece, t->data.n_pieces);
    if (!t->pieces)
        return no_memory(t->f, error);
    types = column(t, "tokenizer.ggml.token_type", true, &bad);
    scores = bad ? NULL : column(t, "tokenizer.ggml.scores", false, &bad);
    if (bad) {
        g_propagate_error(error, bad);
        return false;
    }
    const uint8_t *at = k->at;
    for (uint32_t i = 0; i < t->data.n_pieces; i++) {
        MiPiece *p = &t->pieces[i];
        size_t   len;
        int64_t  type = 1;
        double   score = 0;
        if (!mi_gguf_string(t->f, &at, &p->text, &len))
            return fail(t->f, error, "token %u leaves the file", i);
        p->len = (uint32_t)len;
        if (types)
            mi_gguf_int(types, i, &type);
        if (type < 1 || type > 6)
            return fail(t->f, error, "token %u has type %d; 1 to 6 are known", i, (int)type);
        if (scores)
            mi_gguf_float(scores, i, &score);
        p->score = (float)score;
        p->type = type == 6 ? MI_PIECE_BYTE : type == UNUSED ? MI_PIECE_NORMAL : (MiPieceType)(type - 1);
        if (type == UNUSED) /* "[PAD151646]": a gap */
            p->text = NULL, p->len = 0;
    }
    return true;
}

/* ---- texts to ids --------------------------------------------------------- */

static uint64_t mix(uint64_t x)
{
    x *= 0x9e3779b97f4a7c15u;
    return x ^ x >> 29;
}

static uint32_t hash(const MiGgufTokens *t, const char *text, size_t len)
{
    uint64_t h = t->seed ^ len, word;

    for (; len >= 8; text += 8, len -= 8) {
        memcpy(&word, text, 8);
        h = mix(h ^ word);
    }
    word = 0;
    memcpy(&word, text, len);
    h = mix(mix(h ^ word));
    return (uint32_t)(h >> 16) & t->mask;
}

/* The slot of a text: one that holds its id, or a free one. */
static uint32_t *slot(const MiGgufTokens *t, const char *text, size_t len)
{
    uint32_t at = hash(t, text, len);

    for (;; at = (at + 1) & t->mask) {
        const MiPiece *p = t->slots[at] ? &t->pieces[t->slots[at] - 1] : NULL;
        if (!p || (p->len == len && memcmp(p->text, text, len) == 0))
            return &t->slots[at];
    }
}

static bool index_pieces(MiGgufTokens *t, GError **error)
{
    uint32_t n = 16;

    while (n < 2 * t->data.n_pieces)
        n *= 2;
    t->mask = n - 1;
    t->seed = (uint64_t)g_random_int() << 32 | g_random_int();
    t->slots = g_try_new0(uint32_t, n);
    if (!t->slots)
        return no_memory(t->f, error);
    for (uint32_t i = 0; i < t->data.n_pieces; i++)
        if (t->pieces[i].text) {
            uint32_t *s = slot(t, t->pieces[i].text, t->pieces[i].len);
            if (!*s)
                *s = i + 1; /* of equal texts the first */
        }
    return true;
}

static bool read_merges(MiGgufTokens *t, GError **error)
{
    const MiGgufKey *k = mi_gguf_key(t->f, "tokenizer.ggml.merges");
    char             shown[64];

    if (!k || !k->array || k->type != MI_GGUF_STRING || k->n > MAX_MERGES)
        return fail(t->f, error, "'tokenizer.ggml.merges' is no array of at most %d strings, which model 'gpt2' needs",
                    MAX_MERGES);
    t->merges = g_try_malloc_n((size_t)k->n + 1, sizeof *t->merges);
    if (!t->merges)
        return no_memory(t->f, error);
    const uint8_t *at = k->at;
    for (uint32_t i = 0; i < k->n; i++) {
        const char *text;
        size_t      len;
        if (!mi_gguf_string(t->f, &at, &text, &len))
            return fail(t->f, error, "merge %u leaves the file", i);
        const char *blank = len > 1 ? memchr(text + 1, ' ', len - 1) : NULL;
        if (!blank)
            return fail(t->f, error, "merge %u, '%s', is no two tokens with a blank between", i,
                        mi_shown(text, len, shown));
        const size_t   n = (size_t)(blank - text);
        const uint32_t a = *slot(t, text, n), b = *slot(t, blank + 1, len - n - 1);
        if (!a || !b)
            return fail(t->f, error, "merge %u, '%s', is of texts that are no tokens", i, mi_shown(text, len, shown));
        t->merges[i][0] = (int32_t)a - 1;
        t->merges[i][1] = (int32_t)b - 1;
    }
    t->data.n_merges = (uint32_t)k->n;
    t->data.merges = (const int32_t(*)[2])t->merges;
    return true;
}

/* ---- texts to bytes ------------------------------------------------------- */

static bool spell_out(MiGgufTokens *t, GError **error)
{
    size_t total = 1;
    char  *to;

    for (uint32_t i = 0; i < t->data.n_pieces; i++)
        total += t->pieces[i].len; /* letters only shrink; within the file, so no overflow */
    to = t->text = g_try_malloc(total);
    if (!to)
        return no_memory(t->f, error);
    for (uint32_t i = 0; i < t->data.n_pieces; i++) {
        MiPiece *p = &t->pieces[i];
        size_t   n;
        if (p->type == MI_PIECE_BYTE) {
            if (!mi_byte_piece(p->text, p->len))
                return fail(t->f, error, "token %u is of type byte and not <0x00> to <0xFF>", i);
            t->data.byte_fallback = true;
        }
        if (!t->merges || p->type != MI_PIECE_NORMAL || !p->text || !mi_letters_to_bytes(p->text, p->len, to, &n))
            continue; /* as the file has it */
        p->text = to;
        p->len = (uint32_t)n;
        to += n;
    }
    return true;
}

/* ---- what else there is ---------------------------------------------------- */

/* tokenizer.ggml.<name>; -1: the file says none. */
static bool read_id(const MiGgufTokens *t, const char *name, int32_t def, int32_t *out, GError **error)
{
    g_autofree char *key = g_strconcat("tokenizer.ggml.", name, NULL);
    const MiGgufKey *k = mi_gguf_key(t->f, key);
    int64_t          id = def;

    *out = -1;
    if (k && (k->array || !mi_gguf_int(k, 0, &id)))
        return fail(t->f, error, "'%s' is no number", key);
    if (id == -1 || id == G_MAXUINT32 || (!k && id >= t->data.n_pieces))
        return true;
    if (id < 0 || id >= t->data.n_pieces)
        return fail(t->f, error, "'%s' is %" G_GINT64_FORMAT "; there are %u tokens", key, id, t->data.n_pieces);
    *out = (int32_t)id;
    return true;
}

static bool read_flag(const MiGgufTokens *t, const char *name, bool def, bool *out, GError **error)
{
    g_autofree char *key = g_strconcat("tokenizer.ggml.", name, NULL);
    const MiGgufKey *k = mi_gguf_key(t->f, key);
    int64_t          n = def;

    if (k && (k->array || !mi_gguf_int(k, 0, &n)))
        return fail(t->f, error, "'%s' is neither true nor false", key);
    *out = n != 0;
    return true;
}

static void add_stop(MiGgufTokens *t, int32_t id)
{
    for (uint32_t i = 0; i < t->data.n_stop; i++)
        if (t->stop[i] == id)
            return;
    if (id >= 0)
        t->stop[t->data.n_stop++] = id;
}

/* eos, eot, eom, and control tokens that by their text end a turn: files of chat
 * models often name only one of them. */
static bool read_stops(MiGgufTokens *t, GError **error)
{
    static const char *const keys[N_END_KEYS] = { "eot_token_id", "eom_token_id" };
    static const char *const texts[N_END_TEXTS] = { "<|im_end|>",      "<|eot_id|>", "<|eom_id|>",    "<|endoftext|>",
                                                    "<|end_of_text|>", "<|end|>",    "<end_of_turn>", "<|end_of_turn|>" };
    int32_t                  id;

    add_stop(t, t->data.eos);
    for (size_t i = 0; i < G_N_ELEMENTS(keys); i++) {
        if (!read_id(t, keys[i], -1, &id, error))
            return false;
        add_stop(t, id);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(texts); i++) {
        const uint32_t found = *slot(t, texts[i], strlen(texts[i]));
        if (found && t->pieces[found - 1].type == MI_PIECE_CONTROL)
            add_stop(t, (int32_t)found - 1);
    }
    t->data.stop = t->stop;
    return true;
}

static const struct {
    const char *model, *kind;
    int32_t     bos, eos, unk, pad; /* where the file does not say */
    bool        add_bos, add_eos, prefix;
} kinds[] = {
    { "gpt2", "bpe", -1, -1, -1, -1, false, false, false },
    { "llama", "spm", 1, 2, 0, -1, true, false, true },
    { "t5", "unigram", -1, 1, 2, 0, false, true, true },
};

static bool read_kind(MiGgufTokens *t, GError **error)
{
    MiTokenizerData *d = &t->data;
    GError          *bad = NULL;
    size_t           i = 0;

    t->model = mi_gguf_text(t->f, "tokenizer.ggml.model", &bad);
    t->pre = bad ? NULL : mi_gguf_text(t->f, "tokenizer.ggml.pre", &bad);
    t->chat_template = bad ? NULL : mi_gguf_text(t->f, "tokenizer.chat_template", &bad);
    if (bad) {
        g_propagate_error(error, bad);
        return false;
    }
    if (!t->model) {
        g_set_error(error, MI_ERROR, MI_ERROR_NOT_FOUND, "%s: the file has no tokenizer ('tokenizer.ggml.model')",
                    t->f->path);
        return false;
    }
    while (i < G_N_ELEMENTS(kinds) && strcmp(t->model, kinds[i].model) != 0)
        i++;
    if (i == G_N_ELEMENTS(kinds)) {
        char shown[64];
        return fail(t->f, error, "tokenizer '%s'; gpt2, llama and t5 can be read",
                    mi_shown(t->model, strlen(t->model), shown));
    }
    const bool bpe = i == 0, llama3 = bpe && g_strcmp0(t->pre, "llama-bpe") == 0;
    d->kind = kinds[i].kind;
    if (bpe)
        d->pre = t->pre ? t->pre : "gpt-2";
    d->chat_template = t->chat_template;
    d->escape_spaces = !bpe;
    d->ignore_merges = llama3;
    d->nfc = bpe && g_strcmp0(t->pre, "qwen2") == 0;
    return read_flag(t, "add_bos_token", kinds[i].add_bos || llama3, &d->add_bos, error) &&
           read_flag(t, "add_eos_token", kinds[i].add_eos, &d->add_eos, error) &&
           read_flag(t, "add_space_prefix", kinds[i].prefix, &d->add_prefix_space, error) &&
           (i != 2 || read_flag(t, "remove_extra_whitespaces", true, &d->collapse_spaces, error)) &&
           read_pieces(t, error) && index_pieces(t, error) && (!bpe || read_merges(t, error)) &&
           read_id(t, "bos_token_id", kinds[i].bos, &d->bos, error) &&
           read_id(t, "eos_token_id", kinds[i].eos, &d->eos, error) &&
           read_id(t, "unknown_token_id", kinds[i].unk, &d->unk, error) &&
           read_id(t, "padding_token_id", kinds[i].pad, &d->pad, error) && read_stops(t, error) && spell_out(t, error);
}

MiGgufTokens *mi_gguf_tokens_new(const MiGguf *f, GError **error)
{
    MiGgufTokens *t = g_new0(MiGgufTokens, 1);

    t->f = f;
    const bool ok = read_kind(t, error);
    g_clear_pointer(&t->slots, g_free);
    if (ok)
        return t;
    mi_gguf_tokens_free(t);
    return NULL;
}

void mi_gguf_tokens_free(MiGgufTokens *t)
{
    if (!t)
        return;
    g_free(t->slots);
    g_free(t->merges);
    g_free(t->text);
    g_free(t->pieces);
    g_free(t->chat_template);
    g_free(t->pre);
    g_free(t->model);
    g_free(t);
}

const MiTokenizerData *mi_gguf_tokens_data(const MiGgufTokens *t) { return &t->data; }
