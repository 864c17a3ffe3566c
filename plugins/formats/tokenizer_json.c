/* tokenizer_json.c - see tokenizer_json.h.
 *
 * tokenizer.json is cut into its members in one pass; vocabulary and merges, which
 * are nearly all of it, are read from there, the small rest by jansson.  Byte-level
 * letters become the bytes that they stand for; then the text of the file is let go. */
#include "tokenizer_json.h"

#include "letters.h"
#include "tokenizer_steps.h"
#include "tokenizer_vocab.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <miniinfer/context.h>
#include <string.h>

enum { MAX_FILE = 1 << 29 /* bytes; the largest of known models has 34 MB */ };

struct MiTokenizerJson {
    MiVocab vocab;
    MiSteps steps;
    char   *texts; /* of all pieces */
    char   *chat_template;
    int32_t bos, eos, pad;
    bool    add_bos, add_eos;
};

/* ---- pieces --------------------------------------------------------------------- */
/* Moves the pieces' texts into memory of their own. */
static bool settle_texts(MiTokenizerJson *t, GError **error)
{
    MiVocab *v = &t->vocab;
    size_t   bytes = 1;

    for (uint32_t i = 0; i < v->n_pieces; i++)
        bytes += v->pieces[i].len;
    char *out = t->texts = g_try_malloc(bytes);
    if (!out)
        return mi_tokenizer_wrong(error, MI_ERROR_NO_MEMORY, v->name, "no memory for %zu bytes of pieces", bytes);
    for (uint32_t i = 0; i < v->n_pieces; i++) {
        MiPiece *p = &v->pieces[i];
        size_t   n = p->len;
        if (!p->text)
            continue;
        if (!t->steps.byte_level || v->added[i] || !mi_letters_to_bytes(p->text, p->len, out, &n)) {
            n = p->len;
            memcpy(out, p->text, n);
        }
        p->text = out;
        p->len = (uint32_t)n;
        out += n;
    }
    return true;
}

/* ---- tokenizer_config.json ---------------------------------------------------- */
/* "<s>" or {"content": "<s>"}: its id; -1. */
static int32_t token_id(const MiTokenizerJson *t, const json_t *config, const char *key)
{
    const json_t *token = json_object_get(config, key);
    const json_t *text = json_is_object(token) ? json_object_get(token, "content") : token;

    return json_is_string(text) ? mi_vocab_find(&t->vocab, json_string_value(text), json_string_length(text)) : -1;
}

/* A text, or a list of {"name", "template"}, of which "default" is meant. */
static const char *template_of(const json_t *config)
{
    const json_t *value = json_object_get(config, "chat_template");

    for (size_t i = 0; i < json_array_size(value); i++) {
        const json_t *item = json_array_get(value, i);
        if (!g_strcmp0(json_string_value(json_object_get(item, "name")), "default"))
            return json_string_value(json_object_get(item, "template"));
    }
    return json_string_value(value);
}

static void take_tokens(MiTokenizerJson *t, const json_t *config)
{
    const struct { const char *key; int32_t *id; } tokens[] = {
        { "bos_token", &t->bos }, { "eos_token", &t->eos }, { "pad_token", &t->pad }, { "unk_token", &t->vocab.unk },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(tokens); i++)
        if (*tokens[i].id < 0)
            *tokens[i].id = token_id(t, config, tokens[i].key);
}

static json_t *load_config(const char *name, const char *text, size_t len, GError **error)
{
    json_error_t why;
    /* model_max_length may be 10^30, written out. */
    json_t      *config = json_loadb(text, len, JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, &why);


    if (!config)
        mi_tokenizer_wrong(error, MI_ERROR_MODEL, name, "line %d: %s", why.line, why.text);
    else if (json_typeof(config) == JSON_OBJECT)
        return config;
    else
        mi_tokenizer_wrong(error, MI_ERROR_MODEL, name, "line 1: wanted an object");
    json_decref(config);
    return NULL;
}

/* What the post-processor puts round a text, unless the configuration says otherwise. */
static bool take_ends(MiTokenizerJson *t, const json_t *config, GError **error)
{
    const struct { const char *key, *text; int32_t *id; bool *add; } ends[] = {
        { "add_bos_token", t->steps.first_special, &t->bos, &t->add_bos },
        { "add_eos_token", t->steps.last_special, &t->eos, &t->add_eos },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(ends); i++) {
        const int32_t id = ends[i].text ? mi_vocab_find(&t->vocab, ends[i].text, strlen(ends[i].text)) : -1;
        const json_t *say = json_object_get(config, ends[i].key);
        if (ends[i].text && *ends[i].id < 0)
            *ends[i].id = id;
        if (ends[i].text && (id < 0 || id != *ends[i].id))
            return mi_tokenizer_wrong(error, MI_ERROR_UNSUPPORTED, t->vocab.name,
                                      "post_processor: '%.40s' is not the token that %s is about", ends[i].text,
                                      ends[i].key);
        *ends[i].add = json_is_boolean(say) ? json_typeof(say) == JSON_TRUE : ends[i].text != NULL;
        *ends[i].add = *ends[i].add && *ends[i].id >= 0;
    }
    return true;
}

static bool take_config(MiTokenizerJson *t, const json_t *config, GError **error)
{
    take_tokens(t, config);
    t->chat_template = g_strdup(template_of(config));
    return take_ends(t, config, error);
}

/* ---- tokenizer.json ------------------------------------------------------------ */
/* Its members, as texts; len 0: not there. */
typedef struct {
    MiJsonText added_tokens, normalizer, pre_tokenizer, post_processor;
} Members;

static bool twice(const MiTokenizerJson *t, const char *key, GError **error)
{
    return mi_tokenizer_wrong(error, MI_ERROR_MODEL, t->vocab.name, "%s is there twice", key);
}

/* One member: kept as a text; the model is cut at once, so that nobody goes over it twice. */
static bool take_member(MiTokenizerJson *t, MiJson *j, const MiJsonText *key, Members *m, GError **error)
{
    const struct { const char *key; MiJsonText *to; } known[] = {
        { "added_tokens", &m->added_tokens }, { "normalizer", &m->normalizer },
        { "pre_tokenizer", &m->pre_tokenizer }, { "post_processor", &m->post_processor },
    };
    MiJsonText value;

    if (mi_json_is(key, "model"))
        return t->vocab.vocab_text.len ? twice(t, "model", error) : mi_vocab_cut(&t->vocab, j, error);
    if (!mi_json_skip(j, &value))
        return mi_tokenizer_json_wrong(error, t->vocab.name, j);
    for (size_t i = 0; i < G_N_ELEMENTS(known); i++) {
        if (!mi_json_is(key, known[i].key))
            continue;
        if (known[i].to->len)
            return twice(t, known[i].key, error);
        *known[i].to = value;
    }
    return true;
}

static bool cut(MiTokenizerJson *t, const char *text, size_t len, Members *m, GError **error)
{
    MiJson     j = { .start = text, .at = text, .end = text + len };
    size_t     n = 0;
    MiJsonText key;

    mi_json_open(&j, '{');
    while (mi_json_more(&j, '}', &n) && mi_json_key(&j, &t->vocab.buffer, &key))
        if (!take_member(t, &j, &key, m, error))
            return false;
    if (!j.wrong && mi_json_peek(&j))
        j.wrong = "the end";
    if (!j.wrong && !t->vocab.vocab_text.len)
        j.wrong = "a member `model`";
    if (j.wrong)
        return mi_tokenizer_json_wrong(error, t->vocab.name, &j);
    return true;
}

static bool read_steps(MiTokenizerJson *t, const Members *m, GError **error)
{
    const MiJsonText *texts[] = { &m->normalizer, &m->pre_tokenizer, &m->post_processor };
    json_t           *values[G_N_ELEMENTS(texts)] = { NULL };
    const size_t      flags = JSON_DECODE_ANY | JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL;
    json_error_t      why;
    bool              ok = true;

    for (size_t i = 0; i < G_N_ELEMENTS(texts) && ok; i++) {
        if (!texts[i]->len)
            continue;
        values[i] = json_loadb(texts[i]->text, texts[i]->len, flags, &why);
        if (!values[i])
            ok = mi_tokenizer_wrong(error, MI_ERROR_MODEL, t->vocab.name, "%s: %s",
                                    (const char *[]){ "normalizer", "pre_tokenizer", "post_processor" }[i], why.text);
    }
    ok = ok && mi_steps_read(&t->steps, values[0], values[1], values[2], error);
    for (size_t i = 0; i < G_N_ELEMENTS(values); i++)
        json_decref(values[i]);
    return ok;
}

/* Of the parts, does each fit the others? */
static bool check(const MiTokenizerJson *t, GError **error)
{
    const char *why = NULL;

    if (t->vocab.is_unigram && t->steps.byte_level)
        why = "a Unigram model of byte-level letters";
    else if (!t->vocab.is_unigram && !t->steps.byte_level && !t->steps.escape_spaces)
        why = "a BPE model with neither ByteLevel nor U+2581 for blanks";
    else if (!t->vocab.is_unigram && t->steps.nfc && !t->steps.byte_level)
        why = "NFC before a model that is not of bytes";
    if (why)
        return mi_tokenizer_wrong(error, MI_ERROR_UNSUPPORTED, t->vocab.name, "%s is not known here", why);
    return true;
}

static bool read_text(MiTokenizerJson *t, const char *text, size_t len, const char *config_name, const char *config,
                      size_t config_len, GError **error)
{
    Members m = { 0 };

    if (!g_utf8_validate_len(text, len, NULL))
        return mi_tokenizer_wrong(error, MI_ERROR_MODEL, t->vocab.name, "not UTF-8, or with a NUL");
    json_t *j = config ? load_config(config_name, config, config_len, error) : NULL;
    bool    ok = (j || !config) && cut(t, text, len, &m, error) && read_steps(t, &m, error) &&
              mi_vocab_read(&t->vocab, m.added_tokens, error) && check(t, error) && take_config(t, j, error) &&
              settle_texts(t, error);
    json_decref(j);
    return ok;
}

static MiTokenizerJson *parse(const char *name, const char *text, size_t len, const char *config_name,
                              const char *config, size_t config_len, GError **error)
{
    MiTokenizerJson *t = g_new0(MiTokenizerJson, 1);
    g_autofree char *buffer = g_try_malloc(len + 1);

    t->vocab = (MiVocab){ .name = name, .file = text, .buffer = buffer };
    t->steps.name = name;
    t->bos = t->eos = t->pad = -1;
    const bool ok = buffer ? read_text(t, text, len, config_name, config, config_len, error)
                           : mi_tokenizer_wrong(error, MI_ERROR_NO_MEMORY, name, "no memory for %zu bytes", len);
    t->vocab.name = t->vocab.file = t->steps.name = t->vocab.buffer = NULL; /* the caller's */
    if (ok)
        return t;
    mi_tokenizer_json_free(t);
    return NULL;
}

MiTokenizerJson *mi_tokenizer_json_parse(const char *name, const char *text, size_t len, const char *config,
                                         size_t config_len, GError **error)
{
    return parse(name, text, len, name, config, config_len, error);
}

void mi_tokenizer_json_free(MiTokenizerJson *t)
{
    if (!t)
        return;
    mi_vocab_clear(&t->vocab);
    mi_steps_clear(&t->steps);
    g_free(t->texts);
    g_free(t->chat_template);
    g_free(t);
}

MiTokenizerData mi_tokenizer_json_data(const MiTokenizerJson *t)
{
    const MiVocab *v = &t->vocab;
    const MiSteps *s = &t->steps;

    return (MiTokenizerData){
        .kind = v->is_unigram ? "unigram" : s->byte_level ? "bpe" : "spm",
        .pre = s->split_blanks ? "metaspace" : s->pre,
        .split = (const char *const *)s->split->pdata,
        .chat_template = t->chat_template,
        .pieces = v->pieces, .n_pieces = v->n_pieces,
        .merges = (const int32_t(*)[2])v->merges, .n_merges = v->n_merges,
        .bos = t->bos, .eos = t->eos, .pad = t->pad, .unk = v->unk,
        .stop = &t->eos, .n_stop = t->eos >= 0,
        .add_bos = t->add_bos, .add_eos = t->add_eos,
        .add_prefix_space = s->add_prefix_space, .prefix_first = s->prefix_first, .prefix_if_none = s->prefix_if_none,
        .nfc = s->nfc, .byte_fallback = v->byte_fallback, .ignore_merges = v->ignore_merges,
        .escape_spaces = s->escape_spaces,
    };
}

/* ---- files ----------------------------------------------------------------------- */
/* Regular files only: a directory may hold a FIFO.  NULL without *error: there is none; what cannot be
 * asked for may be there. */
static char *read_file(const char *directory, const char *name, size_t *len, GError **error)
{
    g_autofree char *path = g_build_filename(directory, name, NULL);
    GStatBuf         st;
    char            *text;

    if (g_stat(path, &st)) {
        if (errno != ENOENT)
            mi_tokenizer_wrong(error, MI_ERROR_IO, path, "%s", g_strerror(errno));
        return NULL;
    }
    if (!S_ISREG(st.st_mode) || st.st_size > MAX_FILE) {
        mi_tokenizer_wrong(error, MI_ERROR_MODEL, path, "wanted a regular file of at most %d bytes", MAX_FILE);
        return NULL;
    }
    return g_file_get_contents(path, &text, len, error) ? text : NULL;
}

/* Files beside tokenizer.json, older and newer ways to say the same. */
static bool take_others(MiTokenizerJson *t, const char *directory, GError **error)
{
    g_autoptr(GError) why = NULL;
    size_t            len;
    g_autofree char  *map = read_file(directory, "special_tokens_map.json", &len, &why);

    if (map) {
        json_t *j = load_config("special_tokens_map.json", map, len, error);
        if (!j)
            return false;
        take_tokens(t, j);
        json_decref(j);
    }
    char *template = why ? NULL : read_file(directory, "chat_template.jinja", &len, &why);
    if (template) {
        g_free(t->chat_template);
        t->chat_template = template;
    }
    if (!why)
        return true;
    g_propagate_error(error, g_steal_pointer(&why));
    return false;
}

MiTokenizerJson *mi_tokenizer_json_open(const char *directory, GError **error)
{
    g_autofree char  *name = g_build_filename(directory, "tokenizer.json", NULL);
    g_autoptr(GError) why = NULL;
    size_t            len, config_len = 0;
    g_autofree char  *text = read_file(directory, "tokenizer.json", &len, &why);
    g_autofree char  *config = text ? read_file(directory, "tokenizer_config.json", &config_len, &why) : NULL;
    MiTokenizerJson  *t = NULL;

    if (!text && !why)
        mi_tokenizer_wrong(error, MI_ERROR_NOT_FOUND, directory, "there is no tokenizer.json");
    else if (why)
        g_propagate_error(error, g_steal_pointer(&why));
    else
        t = parse(name, text, len, "tokenizer_config.json", config, config_len, error);
    if (t && !take_others(t, directory, error)) {
        mi_tokenizer_json_free(t);
        return NULL;
    }
    return t;
}
