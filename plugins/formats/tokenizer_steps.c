/* tokenizer_steps.c - see tokenizer_steps.h.  A step that is not known is an error that
 * names it: leaving one out would give other tokens without a word. */
#include "tokenizer_steps.h"

#include "tokenizer_vocab.h"

#include <miniinfer/context.h>
#include <string.h>

enum { MAX_DEPTH = 8 /* of Sequence in Sequence */ };

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define WORDS "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+"
#define REST " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
static const char gpt2[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
static const char llama3[] = CONTRACTIONS "|" WORDS "|\\p{N}{1,3}|" REST;
static const char qwen2[] = CONTRACTIONS "|" WORDS "|\\p{N}|" REST;
static const char digit[] = "\\p{N}";

static bool unknown(const MiSteps *s, const char *what, const char *type, GError **error)
{
    return mi_tokenizer_wrong(error, MI_ERROR_UNSUPPORTED, s->name, "%s '%.40s' is not known here", what, type);
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

/* A member that is true where it is left out. */
static bool unless_false(const json_t *object, const char *key) { return !json_is_false(json_object_get(object, key)); }
static bool if_true(const json_t *object, const char *key) { return json_is_true(json_object_get(object, key)); }

/* Calls `one` for j, or for each of what a Sequence holds under `key`. */
static bool each(MiSteps *s, const json_t *j, const char *key, const char *what, int depth,
                 bool (*one)(MiSteps *, const json_t *, const char *type, GError **), GError **error)
{
    const char   *type = text_of(j, "type");
    const json_t *list = json_object_get(j, key);

    if (!j || json_typeof(j) == JSON_NULL)
        return true;
    if (strcmp(type, "Sequence"))
        return one(s, j, type, error);
    if (depth == MAX_DEPTH || !json_is_array(list))
        return mi_tokenizer_wrong(error, MI_ERROR_MODEL, s->name, "%s: a Sequence %s", what,
                                  depth == MAX_DEPTH ? "too deep" : "without its list");
    for (size_t i = 0; i < json_array_size(list); i++)
        if (!each(s, json_array_get(list, i), key, what, depth + 1, one, error))
            return false;
    return true;
}

/* ---- normalizer ------------------------------------------------------------ */
static bool normalize(MiSteps *s, const json_t *j, const char *type, GError **error)
{
    if (!strcmp(type, "NFC")) {
        s->nfc = true;
        return true;
    }
    if (!strcmp(type, "Prepend") && !strcmp(text_of(j, "prepend"), "\xe2\x96\x81")) {
        s->add_prefix_space = true;
        return true;
    }
    if (!strcmp(type, "Replace") && !strcmp(text_of(j, "content"), "\xe2\x96\x81") &&
        !strcmp(text_of(json_object_get(j, "pattern"), "String"), " ")) {
        s->escape_spaces = true;
        return true;
    }
    return unknown(s, "normalizer", type, error);
}

/* ---- pre_tokenizer --------------------------------------------------------- */
static void add_split(MiSteps *s, const char *pattern) { g_ptr_array_add(s->split, g_strdup(pattern)); }

static bool split(MiSteps *s, const json_t *j, GError **error)
{
    const json_t *pattern = json_object_get(j, "pattern");
    const json_t *regex = json_object_get(pattern, "Regex"), *string = json_object_get(pattern, "String");
    const char   *behaviour = text_of(j, "behavior");

    if (s->escape_spaces && !strcmp(text_of(pattern, "String"), " "))
        return true; /* no blanks are left by then */
    if (!json_string_length(regex ? regex : string) ||
        strlen(json_string_value(regex ? regex : string)) != json_string_length(regex ? regex : string))
        return mi_tokenizer_wrong(error, MI_ERROR_MODEL, s->name,
                                  "pre_tokenizer Split: pattern: wanted Regex or String, a text");
    if (strcmp(behaviour, "Isolated"))
        return unknown(s, "pre_tokenizer Split: behavior", behaviour, error);
    g_autofree char *escaped = regex ? NULL : g_regex_escape_string(json_string_value(string), -1);
    add_split(s, regex ? json_string_value(regex) : escaped);
    return true;
}

static bool byte_level(MiSteps *s, const json_t *j, GError **error)
{
    s->byte_level = true;
    if (unless_false(j, "add_prefix_space")) {
        if (s->split->len)
            return unknown(s, "pre_tokenizer ByteLevel", "add_prefix_space, after other splits", error);
        s->add_prefix_space = s->prefix_if_none = true;
    }
    if (unless_false(j, "use_regex"))
        add_split(s, gpt2);
    return true;
}

static bool metaspace(MiSteps *s, const json_t *j, GError **error)
{
    const char *scheme = text_of(j, "prepend_scheme");

    if (strcmp(text_of(j, "replacement"), "\xe2\x96\x81"))
        return unknown(s, "pre_tokenizer Metaspace: replacement", text_of(j, "replacement"), error);
    if (*scheme && strcmp(scheme, "always") && strcmp(scheme, "first") && strcmp(scheme, "never"))
        return unknown(s, "pre_tokenizer Metaspace: prepend_scheme", scheme, error);
    s->metaspace = s->escape_spaces = true;
    s->add_prefix_space = *scheme ? strcmp(scheme, "never") : unless_false(j, "add_prefix_space");
    s->prefix_if_none = true;
    s->prefix_first = !strcmp(scheme, "first");
    s->split_blanks = unless_false(j, "split");
    return true;
}

static bool pre_tokenize(MiSteps *s, const json_t *j, const char *type, GError **error)
{
    if (!strcmp(type, "ByteLevel"))
        return byte_level(s, j, error);
    if (!strcmp(type, "Metaspace"))
        return metaspace(s, j, error);
    if (!strcmp(type, "Split"))
        return if_true(j, "invert") ? unknown(s, "pre_tokenizer Split:", "invert", error) : split(s, j, error);
    if (!strcmp(type, "Digits")) {
        add_split(s, if_true(j, "individual_digits") ? digit : "\\p{N}+");
        return true;
    }
    return unknown(s, "pre_tokenizer", type, error);
}

/* The rules that need no regular expression. */
static void name_splits(MiSteps *s)
{
    static const struct { const char *pre, *first, *second; } rules[] = {
        { "gpt-2", gpt2, NULL }, { "llama-bpe", llama3, NULL }, { "qwen2", qwen2, NULL }, { "smollm", digit, gpt2 },
    };

    s->pre = s->split->len ? "regex" : NULL;
    for (size_t i = 0; i < G_N_ELEMENTS(rules); i++)
        if (s->split->len == (rules[i].second ? 2 : 1) && !strcmp(s->split->pdata[0], rules[i].first) &&
            (!rules[i].second || !strcmp(s->split->pdata[1], rules[i].second)))
            s->pre = rules[i].pre;
    g_ptr_array_add(s->split, NULL);
}

/* ---- post_processor -------------------------------------------------------- */
static bool post_process(MiSteps *s, const json_t *j, const char *type, GError **error)
{
    const json_t *single = json_object_get(j, "single");
    bool          text = false;

    if (!strcmp(type, "ByteLevel"))
        return true; /* of offsets only */
    if (strcmp(type, "TemplateProcessing"))
        return unknown(s, "post_processor", type, error);
    s->has_template = true;
    for (size_t i = 0; i < json_array_size(single); i++) {
        const char *special = text_of(json_object_get(json_array_get(single, i), "SpecialToken"), "id");
        char      **into = text ? &s->last_special : &s->first_special;
        if (!*special) {
            text = true;
            continue;
        }
        if (*into)
            return unknown(s, "post_processor TemplateProcessing:", "two special tokens on one side", error);
        *into = g_strdup(special);
    }
    return true;
}

bool mi_steps_read(MiSteps *s, const json_t *normalizer, const json_t *pre_tokenizer, const json_t *post_processor,
                   GError **error)
{
    s->split = g_ptr_array_new_with_free_func(g_free);
    if (!each(s, normalizer, "normalizers", "normalizer", 0, normalize, error) ||
        !each(s, pre_tokenizer, "pretokenizers", "pre_tokenizer", 0, pre_tokenize, error) ||
        !each(s, post_processor, "processors", "post_processor", 0, post_process, error))
        return false;
    if (s->byte_level ? s->metaspace || s->escape_spaces : s->split->len > 0)
        return unknown(s, "pre_tokenizer",
                       s->byte_level ? "ByteLevel with U+2581 for blanks" : "Split without ByteLevel", error);
    name_splits(s);
    return true;
}

void mi_steps_clear(MiSteps *s)
{
    if (s->split)
        g_ptr_array_unref(s->split);
    g_free(s->first_special);
    g_free(s->last_special);
}
