/* test_tokenizer_small.c - small vocabularies, as sentencepiece and `tokenizers` encode with them:
 * tests/data/tokenizer_small.json, which tests/data/tokenizer_small.py makes. */
#include "common.h"
#include "tokenizer_json.h"

#include <jansson.h>

static MiRegistry *registry;

static int32_t integer(const json_t *j, const char *key)
{
    return (int32_t)json_integer_value(json_object_get(j, key));
}
static bool    flag(const json_t *j, const char *key) { return json_is_true(json_object_get(j, key)); }

typedef struct {
    MiTokenizerJson   *json;
    MiPiece           *pieces;
    MiTokenizerData    data;
    const MiTokenizer *vt;
    void              *self;
} Open;

/* A SentencePiece model. */
static void take_pieces(Open *o, const json_t *model)
{
    const json_t *pieces = json_object_get(model, "pieces");
    json_t       *p;
    size_t        i;

    o->pieces = g_new0(MiPiece, json_array_size(pieces));
    json_array_foreach (pieces, i, p)
        o->pieces[i] = (MiPiece){ .text = json_string_value(json_array_get(p, 0)),
                                  .len = (uint32_t)json_string_length(json_array_get(p, 0)),
                                  .score = (float)json_number_value(json_array_get(p, 1)),
                                  .type = (MiPieceType)json_integer_value(json_array_get(p, 2)) };
    o->data = (MiTokenizerData){ .kind = json_string_value(json_object_get(model, "kind")),
                                 .pieces = o->pieces, .n_pieces = (uint32_t)json_array_size(pieces),
                                 .bos = -1, .eos = -1, .pad = -1, .unk = integer(model, "unk"),
                                 .byte_fallback = flag(model, "byte_fallback"), .escape_spaces = true,
                                 .add_prefix_space = flag(model, "add_prefix_space"),
                                 .collapse_spaces = flag(model, "collapse_spaces") };
}

static void take_file(Open *o, const json_t *model, GError **error)
{
    const json_t    *config = json_object_get(model, "config");
    g_autofree char *text = json_dumps(json_object_get(model, "tokenizer"), 0);
    g_autofree char *text2 = json_is_object(config) ? json_dumps(config, 0) : NULL;

    o->json = mi_tokenizer_json_parse("test", text, strlen(text), text2, text2 ? strlen(text2) : 0, error);
    if (o->json)
        o->data = mi_tokenizer_json_data(o->json);
}

/* o stays where it is: the tokenizer borrows its data. */
static void open_model(const json_t *model, Open *o)
{
    g_autoptr(GError) error = NULL;

    if (json_object_get(model, "pieces"))
        take_pieces(o, model);
    else
        take_file(o, model, &error);
    const MiFeature *f = error ? NULL : mi_registry_find(registry, MI_KIND_TOKENIZER, o->data.kind, "*", &error);
    if (f) {
        o->vt = f->vtable;
        o->self = o->vt->open(&o->data, NULL, &error);
    }
    if (error)
        fail_msg("%s", error->message);
}

static void close_model(Open *o)
{
    o->vt->close(o->self);
    mi_tokenizer_json_free(o->json);
    g_free(o->pieces);
}

static bool same_ids(const Open *o, const json_t *text, const json_t *wanted, bool special, GArray *ids)
{
    const char  *s = json_string_value(text);
    const size_t len = json_string_length(text), n = o->vt->encode(o->self, s, len, special, NULL, 0);
    json_t      *id;
    size_t       i;

    assert_int_not_equal(n, SIZE_MAX);
    g_array_set_size(ids, (guint)n);
    o->vt->encode(o->self, s, len, special, (int32_t *)(void *)ids->data, n);
    bool ok = n == json_array_size(wanted);
    json_array_foreach (wanted, i, id)
        ok = ok && g_array_index(ids, int32_t, i) == json_integer_value(id);
    return ok;
}

static bool same_text(const Open *o, const GArray *ids, const char *wanted)
{
    GString *text = g_string_new(NULL);
    int32_t  previous = -1;
    size_t   len;

    for (guint i = 0; i < ids->len; previous = g_array_index(ids, int32_t, i++)) {
        const char *p = o->vt->piece(o->self, previous, g_array_index(ids, int32_t, i), &len);
        assert_non_null(p);
        g_string_append_len(text, p, (gssize)len);
    }
    const bool ok = !strcmp(text->str, wanted);
    g_string_free(text, TRUE);
    return ok;
}

static void agrees(void **state)
{
    const json_t *model = *state, *v;
    Open          o = { 0 };
    GArray       *ids = g_array_new(FALSE, FALSE, sizeof(int32_t));
    size_t        i;
    int           bad = 0;

    open_model(model, &o);
    json_array_foreach (json_object_get(model, "vectors"), i, v) {
        const json_t *text = json_array_get(v, 0);
        const char   *decoded = json_string_value(json_array_get(v, 2));
        const bool    ok = same_ids(&o, text, json_array_get(v, 1), flag(model, "special"), ids);
        if (ok && (!decoded || same_text(&o, ids, decoded)))
            continue;
        bad++;
        print_message("%zu, %s: '%s'\n ", i, ok ? "decoded" : "ids", json_string_value(text));
        for (guint k = 0; k < ids->len; k++)
            print_message(" %d", g_array_index(ids, int32_t, k));
        print_message("\n");
    }
    assert_true(i >= 50);
    assert_int_equal(bad, 0);
    g_array_unref(ids);
    close_model(&o);
}

int main(void)
{
    g_autofree char  *file = g_build_filename(g_getenv("MI_SRCDIR"), "tests", "data", "tokenizer_small.json", NULL);
    json_error_t      why;
    json_t           *models = json_load_file(file, 0, &why);
    struct CMUnitTest tests[32];
    size_t            n = 0;
    json_t           *m;

    if (!models) {
        printf("Bail out! %s: %s\n", file, why.text);
        return 1;
    }
    json_array_foreach (models, n, m)
        if (n < G_N_ELEMENTS(tests))
            tests[n] = (struct CMUnitTest){ .name = json_string_value(json_object_get(m, "name")), .test_func = agrees,
                                            .initial_state = m };
    registry = load(NULL);
    const int failed = _cmocka_run_group_tests("tokenizer_small", tests, n, NULL, NULL);
    mi_registry_free(registry);
    json_decref(models);
    return failed;
}
