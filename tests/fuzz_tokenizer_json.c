/* fuzz_tokenizer_json.c - mutants of small tokenizer.json files, read, opened and used.
 *
 *   tests/fuzz_tokenizer_json [--count N] [--seconds S] [--seed N]
 *
 * A mutant is made in the tree (values replaced, moved, nested, removed) or in the text (bytes
 * flipped, cut, doubled).  Nothing may crash, and none may take a second.  Without arguments
 * 2,000 of one seed, as a test. */
#include "common.h"
#include "fuzz.h"
#include "tokenizer_json.h"

#include <jansson.h>
#include <stdlib.h>

enum { MAX_BASES = 16 };

typedef struct {
    MiRegistry *registry;
    json_t     *base[MAX_BASES], *config;
    size_t      n_bases;
    uint64_t    accepted, opened, slow;
} Fuzz;

/* ---- values ---------------------------------------------------------------- */
static json_t *deep(uint32_t n)
{
    json_t *j = json_null();
    for (uint32_t i = 0; i < n; i++) {
        json_t *outer = json_array();
        json_array_append_new(outer, j);
        j = outer;
    }
    return j;
}

static json_t *long_text(void)
{
    g_autofree char *text = g_strnfill(below(8) ? below(2000) : 1 << 20, "a \x7f"[below(3)]);
    return json_string(text);
}

static json_t *strange(void)
{
    static const char *const texts[] = {
        "",
        " ",
        "a b",
        "<0x-1>",
        "<0xZZ>",
        "<0x0A>",
        "(a+)+$",
        "(",
        "\\p{L}+",
        "(?=(a|b)*c)",
        "^",
        "$",
        "(?R)",
        "a{1,60000}",
        "\xe2\x96\x81",
        "\xc4\xa0",
        "<|end|>",
        "Sequence",
        "Split",
        "ByteLevel",
        "Metaspace",
        "Digits",
        "NFC",
        "Prepend",
        "Replace",
        "TemplateProcessing",
        "BPE",
        "Unigram",
        "WordPiece",
        "Removed",
        "first",
        "\xef\xbf\xbf",
        "x\ny",
    };
    static const json_int_t ints[] = { 0, 1, -1, 255, 256, 65536, INT32_MAX, INT32_MIN, (json_int_t)1 << 31, UINT32_MAX,
                                       INT64_MAX, INT64_MIN };

    switch (below(9)) {
    case 0: return json_null();
    case 1: return json_boolean(below(2));
    case 2: return json_integer(ints[below(G_N_ELEMENTS(ints))]);
    case 3: return json_integer(below(600));
    case 4: return json_real((double[]){ 1e308, -1e308, 5e-324, -0.0, 1e10 }[below(5)]);
    case 5: return json_object();
    case 6: return below(20) ? json_array() : deep(below(4000));
    case 7: return long_text();
    default: return json_string(texts[below(G_N_ELEMENTS(texts))]);
    }
}

/* ---- mutants in the tree --------------------------------------------------- */
/* A random place: *parent and the index in it. */
static bool pick(json_t *j, json_t **parent, size_t *index)
{
    *parent = NULL;
    while (json_is_object(j) ? json_object_size(j) : json_array_size(j)) {
        const size_t n = json_is_object(j) ? json_object_size(j) : json_array_size(j);
        *parent = j;
        *index = below((uint32_t)n);
        if (json_is_array(j)) {
            j = json_array_get(j, *index);
        } else {
            void *at = json_object_iter(j);
            for (size_t i = 0; i < *index; i++)
                at = json_object_iter_next(j, at);
            j = json_object_iter_value(at);
        }
        if (!below(3))
            break;
    }
    return *parent;
}

static const char *key_at(json_t *object, size_t index)
{
    void *at = json_object_iter(object);
    while (index--)
        at = json_object_iter_next(object, at);
    return json_object_iter_key(at);
}

/* Takes the reference to value; NULL: removes. */
static void put(json_t *parent, size_t index, json_t *value)
{
    if (json_is_array(parent)) {
        if (value)
            json_array_set_new(parent, index, value);
        else
            json_array_remove(parent, index);
    } else {
        g_autofree char *key = g_strdup(key_at(parent, index));
        if (value)
            json_object_set_new(parent, key, value);
        else
            json_object_del(parent, key);
    }
}

static json_t *at(json_t *parent, size_t index)
{
    return json_is_array(parent) ? json_array_get(parent, index) : json_object_get(parent, key_at(parent, index));
}

static void mutate(json_t *tree)
{
    json_t *parent, *other;
    size_t  index, from;

    if (!pick(tree, &parent, &index))
        return;
    switch (below(6)) {
    case 0: put(parent, index, NULL); break;
    case 1: /* another value of the same file */
        if (pick(tree, &other, &from))
            put(parent, index, json_deep_copy(at(other, from)));
        break;
    case 2: /* once more */
        if (json_is_array(parent))
            json_array_append_new(parent, json_deep_copy(at(parent, index)));
        else
            json_object_set_new(parent, (const char *[]){ "id", "", "\xc4\xa0", "vocab", "type" }[below(5)],
                                json_deep_copy(at(parent, index)));
        break;
    case 3: { /* one level down */
        json_t *inner = json_pack("{s:s, s:[O]}", "type", "Sequence", "pretokenizers", at(parent, index));
        put(parent, index, inner ? inner : json_null());
        break;
    }
    default: put(parent, index, strange()); break;
    }
}

/* ---- mutants in the text --------------------------------------------------- */
static void mutate_text(GString *text)
{
    const size_t at = below((uint32_t)text->len), most = below(40), n = MIN(text->len - at, most);

    if (!text->len)
        return;
    switch (below(5)) {
    case 0: g_string_truncate(text, at); break;
    case 1: g_string_erase(text, (gssize)at, (gssize)n); break;
    case 2: {
        g_autofree char *again = g_strndup(text->str + at, n);
        g_string_insert(text, (gssize)below((uint32_t)text->len), again);
        break;
    }
    case 3: text->str[at] = (char)below(256); break;
    default: text->str[at] = "{}[]\",:\\u0e-+.tn"[below(16)]; break;
    }
}

/* ---- use ------------------------------------------------------------------- */
static void use(const MiTokenizer *vt, void *self, const MiTokenizerData *d)
{
    static const char texts[][48] = { "", "Hello  world 123 <|end|> a", "kaka\xcc\x81\xff\n\n  ab<s>x</s>",
                                      "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab" };
    int32_t           ids[64];
    size_t            len;

    for (size_t t = 0; t < G_N_ELEMENTS(texts); t++)
        for (int special = 0; special < 2; special++) {
            const size_t n = vt->encode(self, texts[t], strlen(texts[t]), special, ids, G_N_ELEMENTS(ids));
            for (size_t i = 0; n != SIZE_MAX && i < MIN(n, G_N_ELEMENTS(ids)); i++)
                if (ids[i] < 0 || (uint32_t)ids[i] >= d->n_pieces ||
                    !vt->piece(self, i ? ids[i - 1] : -1, ids[i], &len))
                    abort();
        }
    for (int32_t id = -2; id < 20; id++)
        vt->piece(self, -1, id, &len);
    vt->special(self, "<|end|>");
    vt->encode(self, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab", 73, true, NULL, 0);
}

static void try_one(Fuzz *f, const GString *text, const GString *config)
{
    g_autoptr(GError) error = NULL;
    MiTokenizerJson  *json = mi_tokenizer_json_parse("mutant", text->str, text->len, config->str, config->len, &error);

    if (!json != !!error)
        abort();
    if (!json)
        return;
    f->accepted++;
    const MiTokenizerData data = mi_tokenizer_json_data(json);
    const MiFeature      *feature = mi_registry_find(f->registry, MI_KIND_TOKENIZER, data.kind, "*", &error);
    const MiTokenizer    *vt = feature ? feature->vtable : NULL;
    void                 *self = vt ? vt->open(&data, NULL, &error) : NULL;
    if (!self != !!error)
        abort();
    if (self) {
        f->opened++;
        use(vt, self, &data);
        vt->close(self);
    }
    mi_tokenizer_json_free(json);
}

static GString *text_of(json_t *tree)
{
    char    *dump = json_dumps(tree, JSON_ENCODE_ANY);
    GString *text = g_string_new(dump ? dump : "");
    free(dump);
    return text;
}

static void one(Fuzz *f)
{
    json_t  *tree = json_deep_copy(f->base[below((uint32_t)f->n_bases)]), *config = json_deep_copy(f->config);
    uint32_t in_tree = below(5), in_text = below(4) ? 0 : 1 + below(4);

    while (in_tree-- > 0)
        mutate(below(6) ? tree : config);
    GString *text = text_of(tree), *text2 = text_of(config);
    while (in_text-- > 0)
        mutate_text(below(6) ? text : text2);
    const gint64 start = g_get_monotonic_time();
    try_one(f, text, text2);
    if (g_get_monotonic_time() - start > G_USEC_PER_SEC) {
        f->slow++;
        g_file_set_contents("fuzz_tokenizer_json.slow", text->str, (gssize)text->len, NULL);
    }
    g_string_free(text, TRUE);
    g_string_free(text2, TRUE);
    json_decref(tree);
    json_decref(config);
}

/* The files of tokenizer_small.json; a vocabulary as it is, or cut to a few pieces, without merges. */
static bool take_bases(Fuzz *f)
{
    g_autofree char *file = g_build_filename(g_getenv("MI_SRCDIR"), "tests", "data", "tokenizer_small.json", NULL);
    json_error_t     why;
    json_t          *models = json_load_file(file, 0, &why), *m;
    size_t           i;

    json_array_foreach (models, i, m) {
        json_t *tokenizer = json_object_get(m, "tokenizer");
        if (tokenizer && f->n_bases < MAX_BASES)
            f->base[f->n_bases++] = json_incref(tokenizer);
    }
    json_decref(models);
    f->config =
        json_pack("{s:s, s:{s:s}, s:s, s:[{s:s, s:s}], s:b}", "bos_token", "<s>", "eos_token", "content", "<|end|>",
                  "pad_token", "x", "chat_template", "name", "default", "template", "{{ x }}", "add_bos_token", 1);
    return f->n_bases && f->config;
}

int main(int argc, char **argv)
{
    const FuzzPlan plan = fuzz_plan(argc, argv, 2000, NULL);
    Fuzz           f = { .registry = load(NULL) };
    gint64         done = 0;

    if (!take_bases(&f)) {
        puts("Bail out! no tests/data/tokenizer_small.json");
        return 1;
    }
    for (; fuzz_goes_on(&plan, done); done++)
        one(&f);
    printf("1..1\n%s 1 - %" G_GINT64_FORMAT " mutants, %" G_GUINT64_FORMAT " read, %" G_GUINT64_FORMAT " opened, %" G_GUINT64_FORMAT
           " slower than 1 s\n", f.slow ? "not ok" : "ok", done, f.accepted, f.opened, f.slow);
    for (size_t i = 0; i < f.n_bases; i++)
        json_decref(f.base[i]);
    json_decref(f.config);
    mi_registry_free(f.registry);
    return f.slow != 0;
}
