/* tokenizer_vocab.c - see tokenizer_vocab.h.
 *
 * Pieces come in the order of the file with ids of any size: they are collected,
 * bounded by the largest id that so many may have, and put in their places.  Merges
 * name their halves by text, which are looked up in a table whose hash is seeded: a
 * file cannot choose texts that collide. */
#include "tokenizer_vocab.h"

#include "letters.h"
#include "names.h"

#include <jansson.h>
#include <miniinfer/context.h>
#include <stdarg.h>
#include <string.h>

typedef struct {
    MiJsonText text;
    int64_t    id;
    double     score;
} Entry;

typedef struct {
    Entry *at;
    size_t n, capacity;
} Entries;

bool mi_tokenizer_wrong(GError **error, int code, const char *name, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    g_autofree char *message = g_strdup_vprintf(format, args);
    va_end(args);
    g_set_error(error, MI_ERROR, code, "%s: %s", name, mi_one_line(message));
    return false;
}

bool mi_tokenizer_json_wrong(GError **error, const char *name, const MiJson *j)
{
    return mi_tokenizer_wrong(error, MI_ERROR_MODEL, name, "byte %zu: wanted %s", (size_t)(j->at - j->start), j->wrong);
}

static bool no_memory(const MiVocab *v, GError **error)
{
    return mi_tokenizer_wrong(error, MI_ERROR_NO_MEMORY, v->name, "no memory for its vocabulary");
}

/* ---- by text --------------------------------------------------------------- */
static uint64_t hash(const MiVocab *v, const char *text, size_t len)
{
    uint64_t h = v->seed ^ len * 0x9e3779b97f4a7c15u, word;

    for (; len; text += MIN(len, 8), len -= MIN(len, 8)) {
        word = 0;
        memcpy(&word, text, MIN(len, 8));
        h = (h ^ word) * 0xff51afd7ed558ccdu;
        h ^= h >> 32;
    }
    return h * 0xc4ceb9fe1a85ec53u >> 20;
}

/* The place of this text, or the empty one where it would be. */
static uint32_t *place(const MiVocab *v, const char *text, size_t len)
{
    uint64_t i = hash(v, text, len) & v->mask;

    for (; v->by_text[i]; i = (i + 1) & v->mask) {
        const MiPiece *p = &v->pieces[v->by_text[i] - 1];
        if (p->len == len && !memcmp(p->text, text, len))
            break;
    }
    return &v->by_text[i];
}

int32_t mi_vocab_find(const MiVocab *v, const char *text, size_t len) { return (int32_t)*place(v, text, len) - 1; }

/* ---- pieces ---------------------------------------------------------------- */
static Entry *append(Entries *e)
{
    if (e->n == e->capacity) {
        const size_t capacity = e->capacity ? 2 * e->capacity : 1024;
        Entry       *at = g_try_renew(Entry, e->at, capacity);
        if (!at)
            return NULL;
        e->at = at;
        e->capacity = capacity;
    }
    e->at[e->n] = (Entry){ 0 };
    return &e->at[e->n++];
}

/* {"text": id, ...} of BPE, [["text", score], ...] of Unigram. */
static bool read_pieces(MiVocab *v, MiJson *j, Entries *entries, GError **error)
{
    size_t n = 0, in_pair;

    v->is_unigram = mi_json_peek(j) == '[';
    mi_json_open(j, v->is_unigram ? '[' : '{');
    while (mi_json_more(j, v->is_unigram ? ']' : '}', &n)) {
        Entry *e = append(entries);
        if (!e)
            return no_memory(v, error);
        if (!v->is_unigram) {
            if (mi_json_key(j, &v->buffer, &e->text))
                mi_json_int(j, &e->id);
            continue;
        }
        in_pair = 0;
        e->id = (int64_t)entries->n - 1;
        if (mi_json_open(j, '[') && mi_json_more(j, ']', &in_pair) && mi_json_string(j, &v->buffer, &e->text) &&
            mi_json_more(j, ']', &in_pair) && mi_json_real(j, &e->score))
            mi_json_more(j, ']', &in_pair);
        if (!j->wrong && in_pair != 2)
            j->wrong = "a pair of piece and score";
    }
    if (j->wrong)
        return mi_tokenizer_json_wrong(error, v->name, j);
    return true;
}

/* How large ids may be: files have gaps, but not many. */
static bool count_pieces(MiVocab *v, const Entries *entries, const json_t *added, GError **error)
{
    const int64_t largest = 4 * ((int64_t)entries->n + (int64_t)json_array_size(added)) + 65536;
    int64_t       n = 0;

    for (size_t k = 0; k < entries->n; k++) {
        if (entries->at[k].id < 0 || entries->at[k].id > largest)
            return mi_tokenizer_wrong(error, MI_ERROR_MODEL, v->name,
                                      "a piece of id %" G_GINT64_FORMAT "; wanted 0 to %" G_GINT64_FORMAT,
                                      entries->at[k].id, largest);
        n = MAX(n, entries->at[k].id + 1);
    }
    for (size_t i = 0; i < json_array_size(added); i++) {
        const json_t *id = json_object_get(json_array_get(added, i), "id");
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) > largest)
            return mi_tokenizer_wrong(error, MI_ERROR_MODEL, v->name,
                                      "added_tokens[%zu]: id: wanted an integer, 0 to %" G_GINT64_FORMAT, i, largest);
        n = MAX(n, json_integer_value(id) + 1);
    }
    if (!n)
        return mi_tokenizer_wrong(error, MI_ERROR_MODEL, v->name, "a vocabulary of 0 pieces");
    v->n_pieces = (uint32_t)n; /* below 2^30: a piece takes 5 bytes of a file of at most 2^29 */
    return true;
}

static bool make_tables(MiVocab *v, GError **error)
{
    uint64_t size = 16;

    while (size < 2 * (uint64_t)v->n_pieces)
        size *= 2;
    v->mask = size - 1;
    v->seed = (uint64_t)g_random_int() << 32 | g_random_int();
    v->pieces = g_try_new0(MiPiece, v->n_pieces);
    v->added = g_try_new0(bool, v->n_pieces);
    v->by_text = g_try_new0(uint32_t, size);
    if (!v->pieces || !v->added || !v->by_text)
        return no_memory(v, error);
    return true;
}

/* The texts of a JSON object differ, so each is entered once; of two for one id neither is right. */
static bool enter_pieces(MiVocab *v, const Entries *entries, GError **error)
{
    for (size_t i = 0; i < entries->n; i++) {
        const Entry *e = &entries->at[i];
        MiPiece     *p = &v->pieces[e->id];
        if (p->text)
            return mi_tokenizer_wrong(error, MI_ERROR_MODEL, v->name, "two pieces have the id %d", (int)e->id);
        uint32_t *at = place(v, e->text.text, e->text.len);
        if (*at)
            return mi_tokenizer_wrong(error, MI_ERROR_MODEL, v->name, "piece %d has the text of piece %u", (int)e->id,
                                      *at - 1);
        *p = (MiPiece){ .text = e->text.text, .len = (uint32_t)e->text.len, .score = (float)e->score };
        if (v->byte_fallback && mi_byte_piece(e->text.text, e->text.len))
            p->type = MI_PIECE_BYTE;
        *at = (uint32_t)e->id + 1;
    }
    return true;
}

/* {"id", "content", "special", "lstrip", "rstrip", "single_word", "normalized"} */
static bool enter_added(MiVocab *v, const json_t *token, size_t i, GError **error)
{
    const json_t *content = json_object_get(token, "content");
    const size_t  id = (size_t)json_integer_value(json_object_get(token, "id"));
    const size_t  len = json_string_length(content);
    MiPiece      *p = &v->pieces[id];

    if (!json_is_string(content))
        return mi_tokenizer_wrong(error, MI_ERROR_MODEL, v->name, "added_tokens[%zu]: content: wanted a string", i);
    if (json_is_true(json_object_get(token, "single_word")))
        return mi_tokenizer_wrong(error, MI_ERROR_UNSUPPORTED, v->name,
                                  "added_tokens[%zu]: single_word is not known here", i);
    uint32_t *at = place(v, json_string_value(content), len);
    if ((*at && *at != id + 1) || (p->text && *at != id + 1))
        return mi_tokenizer_wrong(error, MI_ERROR_MODEL, v->name,
                                  "added_tokens[%zu]: id %zu and its content belong to different pieces", i, id);
    if (!p->text) {
        memcpy(v->buffer, json_string_value(content), len);
        p->text = v->buffer;
        p->len = (uint32_t)len;
        v->buffer += len;
        *at = (uint32_t)id + 1;
    }
    p->type = json_is_true(json_object_get(token, "special")) ? MI_PIECE_CONTROL : MI_PIECE_USER;
    p->lstrip = json_is_true(json_object_get(token, "lstrip"));
    p->rstrip = json_is_true(json_object_get(token, "rstrip"));
    v->added[id] = true;
    return true;
}

/* ---- merges ---------------------------------------------------------------- */
/* "a b", or ["a", "b"]. */
static bool read_halves(MiVocab *v, MiJson *j, MiJsonText half[2])
{
    size_t n = 0;

    if (mi_json_peek(j) == '[') {
        mi_json_open(j, '[');
        if (mi_json_more(j, ']', &n) && mi_json_string(j, &v->buffer, &half[0]) &&
            mi_json_more(j, ']', &n) && mi_json_string(j, &v->buffer, &half[1]))
            mi_json_more(j, ']', &n);
        if (!j->wrong && n != 2)
            j->wrong = "a pair of pieces";
        return !j->wrong;
    }
    if (!mi_json_string(j, &v->buffer, &half[0]))
        return false;
    const char *blank = memchr(half[0].text, ' ', half[0].len);
    if (!blank) {
        j->wrong = "two pieces with a blank between";
        return false;
    }
    half[1] = (MiJsonText){ blank + 1, half[0].len - (size_t)(blank + 1 - half[0].text) };
    half[0].len = (size_t)(blank - half[0].text);
    return true;
}

static bool read_merges(MiVocab *v, GError **error)
{
    MiJson     j = { .start = v->file, .at = v->merges_text.text, .end = v->merges_text.text + v->merges_text.len };
    size_t     n = 0, capacity = 0;
    MiJsonText half[2];

    mi_json_open(&j, '[');
    while (mi_json_more(&j, ']', &n) && read_halves(v, &j, half)) {
        if (n > capacity) {
            capacity = capacity ? 2 * capacity : 4096;
            void *p = g_try_realloc_n(v->merges, capacity, sizeof *v->merges);
            if (!p)
                return no_memory(v, error);
            v->merges = p;
        }
        for (int side = 0; side < 2; side++) {
            v->merges[n - 1][side] = mi_vocab_find(v, half[side].text, half[side].len);
            if (v->merges[n - 1][side] < 0)
                return mi_tokenizer_wrong(error, MI_ERROR_MODEL, v->name, "merges[%zu]: '%.*s' is no piece", n - 1,
                                          (int)MIN(half[side].len, 40), half[side].text);
        }
        v->n_merges = (uint32_t)n;
    }
    if (j.wrong)
        return mi_tokenizer_json_wrong(error, v->name, &j);
    return true;
}

/* ---- the model ------------------------------------------------------------- */
/* A small member: anything but vocab and merges. */
static bool read_member(MiVocab *v, const MiJsonText *key, const MiJsonText *value, GError **error)
{
    json_error_t why;
    json_t *j = json_loadb(value->text, value->len, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &why);

    if (!j)
        return mi_tokenizer_wrong(error, MI_ERROR_MODEL, v->name, "model.%.*s: %s", (int)MIN(key->len, 40), key->text,
                                  why.text);
    const bool has_text = json_string_length(j) > 0; /* of what is no text: 0 */
    char     **text = mi_json_is(key, "type") ? &v->type : mi_json_is(key, "unk_token") ? &v->unk_token : NULL;
    if (text && has_text) { /* of a key that is there twice the last one counts, as in most readers */
        g_free(*text);
        *text = g_strdup(json_string_value(j));
    } else if (mi_json_is(key, "unk_id") && json_typeof(j) == JSON_INTEGER)
        v->unk = (int32_t)CLAMP(json_integer_value(j), -1, INT32_MAX);
    else if (mi_json_is(key, "byte_fallback"))
        v->byte_fallback = json_typeof(j) == JSON_TRUE;
    else if (mi_json_is(key, "ignore_merges"))
        v->ignore_merges = json_typeof(j) == JSON_TRUE;
    else if (mi_json_is(key, "dropout"))
        v->has_dropout = json_number_value(j) != 0; /* of what is no number: 0 */
    else if (mi_json_is(key, "continuing_subword_prefix") || mi_json_is(key, "end_of_word_suffix"))
        v->has_affix = v->has_affix || has_text;
    json_decref(j);
    return true;
}

static bool check_settings(MiVocab *v, GError **error)
{
    const char *type = v->type ? v->type : v->merges_text.len ? "BPE" : "without a type";

    if (strcmp(type, "BPE") && strcmp(type, "Unigram"))
        return mi_tokenizer_wrong(error, MI_ERROR_UNSUPPORTED, v->name, "model '%.40s'; there are BPE and Unigram",
                                  type);
    v->is_unigram = !strcmp(type, "Unigram");
    if (!v->vocab_text.len || v->vocab_text.text[0] != (v->is_unigram ? '[' : '{') ||
        !v->merges_text.len != v->is_unigram)
        return mi_tokenizer_wrong(error, MI_ERROR_MODEL, v->name, "model: a %s has %s", type,
                                  v->is_unigram ? "an array `vocab` and no merges" : "an object `vocab`, and merges");
    if (v->has_dropout || v->has_affix)
        return mi_tokenizer_wrong(error, MI_ERROR_UNSUPPORTED, v->name, "model: %s is not known here",
                                  v->has_dropout ? "dropout" : "a prefix or suffix of subwords");
    return true;
}

bool mi_vocab_cut(MiVocab *v, MiJson *j, GError **error)
{
    size_t     n = 0;
    MiJsonText key, value;

    v->unk = -1;
    mi_json_open(j, '{');
    while (mi_json_more(j, '}', &n) && mi_json_key(j, &v->buffer, &key) && mi_json_skip(j, &value)) {
        MiJsonText *large = mi_json_is(&key, "vocab")    ? &v->vocab_text
                            : mi_json_is(&key, "merges") ? &v->merges_text
                                                         : NULL;
        if (large && large->len)
            return mi_tokenizer_wrong(error, MI_ERROR_MODEL, v->name, "model.%.*s is there twice", (int)key.len,
                                      key.text);
        if (large)
            *large = value;
        else if (!read_member(v, &key, &value, error))
            return false;
    }
    if (j->wrong)
        return mi_tokenizer_json_wrong(error, v->name, j);
    return check_settings(v, error);
}

static bool name_unknown(MiVocab *v, GError **error)
{
    if (v->unk_token)
        v->unk = mi_vocab_find(v, v->unk_token, strlen(v->unk_token));
    if ((v->unk_token && v->unk < 0) || v->unk >= (int64_t)v->n_pieces)
        return mi_tokenizer_wrong(error, MI_ERROR_MODEL, v->name, "model: the unknown piece is none of the vocabulary");
    if (v->unk >= 0 && v->pieces[v->unk].type == MI_PIECE_NORMAL)
        v->pieces[v->unk].type = MI_PIECE_UNKNOWN;
    return true;
}

static bool read_all(MiVocab *v, const json_t *added, GError **error)
{
    MiJson  j = { .start = v->file, .at = v->vocab_text.text, .end = v->vocab_text.text + v->vocab_text.len };
    Entries entries = { 0 };

    bool ok = read_pieces(v, &j, &entries, error) && count_pieces(v, &entries, added, error) &&
              make_tables(v, error) && enter_pieces(v, &entries, error);
    g_free(entries.at);
    for (size_t i = 0; ok && i < json_array_size(added); i++)
        ok = enter_added(v, json_array_get(added, i), i, error);
    return ok && name_unknown(v, error) && (!v->merges_text.len || read_merges(v, error));
}

bool mi_vocab_read(MiVocab *v, MiJsonText added, GError **error)
{
    json_error_t why;
    json_t      *tokens;
    bool         ok;

    if (!added.len)
        return read_all(v, NULL, error);
    tokens = json_loadb(added.text, added.len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &why);
    if (!tokens)
        return mi_tokenizer_wrong(error, MI_ERROR_MODEL, v->name, "added_tokens: %s", why.text);
    ok = json_typeof(tokens) == JSON_ARRAY
             ? read_all(v, tokens, error)
             : mi_tokenizer_wrong(error, MI_ERROR_MODEL, v->name, "added_tokens: wanted an array");
    json_decref(tokens);
    return ok;
}

void mi_vocab_clear(MiVocab *v)
{
    g_free(v->pieces);
    g_free(v->added);
    g_free(v->by_text);
    g_free(v->merges);
    g_free(v->type);
    g_free(v->unk_token);
}
