/* test_tokenizer_vectors.c - every recorded text of real models, as the `tokenizers` and
 * sentencepiece libraries encode it: MI_DATA/reference/tokenizer_*.json.  Vocabularies
 * come from MI_MODELS (GGUF) and MI_DATA/tokenizers (tokenizer.json). */
#include "common.h"
#include "tokenizer_json.h"

#include <glib/gstdio.h>
#include <jansson.h>
#include <unistd.h>

typedef struct {
    const char *name, *gguf; /* NULL: tokenizers/NAME/tokenizer.json.xz */
} Model;

static MiRegistry *registry;

static char *data(const char *a, const char *b)
{
    const char *dir = g_getenv("MI_DATA");
    return dir ? g_build_filename(dir, a, b, NULL)
               : g_build_filename(g_getenv("MI_SRCDIR"), "..", "shared", "data", a, b, NULL);
}

static char *vectors_of(const Model *m)
{
    g_autofree char *file = g_strdup_printf("tokenizer_%s.json", m->name);
    return data("reference", file);
}

/* "": none. */
static char *vocabulary_of(const Model *m)
{
    if (!m->gguf) {
        g_autofree char *dir = data("tokenizers", m->name);
        return g_build_filename(dir, "tokenizer.json.xz", NULL);
    }
    return g_build_filename(g_getenv("MI_MODELS") ? g_getenv("MI_MODELS") : "", m->gguf, NULL);
}

static bool is_there(const Model *m)
{
    g_autofree char *vectors = vectors_of(m), *vocabulary = vocabulary_of(m);
    g_autofree char *xz = g_find_program_in_path("xz");
    return g_file_test(vectors, G_FILE_TEST_EXISTS) && g_file_test(vocabulary, G_FILE_TEST_EXISTS) && (m->gguf || xz);
}

/* ---- a vocabulary, opened -------------------------------------------------- */
typedef struct {
    const MiFormat    *format;
    void              *file;
    MiTokenizerJson   *json;
    MiTokenizerData    data;
    const MiTokenizer *vt;
    void              *self;
} Open;

static MiTokenizerJson *open_xz(const char *file, GError **error)
{
    const char *const argv[] = { "xz", "-dc", file, NULL };
    g_autofree char  *dir = g_dir_make_tmp("mi-tokenizer-XXXXXX", error);
    g_autofree char  *out = NULL, *path = g_build_filename(dir, "tokenizer.json", NULL);
    int               out_fd;
    GPid              pid;

    assert_true(g_spawn_async_with_pipes(NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH | G_SPAWN_DO_NOT_REAP_CHILD,
                                         NULL, NULL, &pid, NULL, &out_fd, NULL, error));
    FILE *to = g_fopen(path, "wb");
    char  buffer[65536];
    for (ssize_t n; (n = read(out_fd, buffer, sizeof buffer)) > 0;)
        assert_int_equal(fwrite(buffer, 1, (size_t)n, to), n);
    fclose(to);
    close(out_fd);
    g_spawn_close_pid(pid);
    MiTokenizerJson *json = mi_tokenizer_json_open(dir, error);
    g_unlink(path);
    g_rmdir(dir);
    return json;
}

/* o stays where it is: the tokenizer borrows its data. */
static void open_model(const Model *m, Open *o)
{
    g_autoptr(GError) error = NULL;
    g_autofree char  *path = vocabulary_of(m);
    const MiFeature  *f = m->gguf ? mi_registry_find(registry, MI_KIND_FORMAT, "gguf", "*", &error) : NULL;

    if (f) {
        o->format = f->vtable;
        o->file = o->format->open(path, NULL, &error);
        if (o->file)
            o->format->tokenizer(o->file, &o->data, &error);
    } else if (!m->gguf && (o->json = open_xz(path, &error))) {
        o->data = mi_tokenizer_json_data(o->json);
    }
    f = error ? NULL : mi_registry_find(registry, MI_KIND_TOKENIZER, o->data.kind, "*", &error);
    if (f) {
        o->vt = f->vtable;
        o->self = o->vt->open(&o->data, NULL, &error);
    }
    if (error)
        fail_msg("%s: %s", m->name, error->message);
}

static void close_model(Open *o)
{
    o->vt->close(o->self);
    if (o->format)
        o->format->close(o->file);
    mi_tokenizer_json_free(o->json);
}

/* ---- comparison ------------------------------------------------------------ */
static GArray *encode(const Open *o, const char *text, size_t len, bool special)
{
    GArray      *ids = g_array_new(FALSE, FALSE, sizeof(int32_t));
    const size_t n = o->vt->encode(o->self, text, len, special, NULL, 0);

    assert_int_not_equal(n, SIZE_MAX);
    g_array_set_size(ids, (guint)n);
    assert_int_equal(o->vt->encode(o->self, text, len, special, (int32_t *)(void *)ids->data, n), n);
    return ids;
}

static bool same(const GArray *ids, const json_t *wanted)
{
    json_t *id;
    size_t  i;

    if (ids->len != json_array_size(wanted))
        return false;
    json_array_foreach (wanted, i, id)
        if (g_array_index(ids, int32_t, i) != json_integer_value(id))
            return false;
    return true;
}

/* skip: control pieces are left out. */
static GString *decode(const Open *o, const GArray *ids, bool skip)
{
    GString *text = g_string_new(NULL);
    int32_t  previous = -1;
    size_t   len;

    for (guint i = 0; i < ids->len; i++) {
        const int32_t id = g_array_index(ids, int32_t, i);
        const char   *p = o->vt->piece(o->self, previous, id, &len);
        assert_non_null(p);
        previous = id;
        if (!skip || o->data.pieces[id].type != MI_PIECE_CONTROL)
            g_string_append_len(text, p, (gssize)len);
    }
    return text;
}

static bool reads(const Open *o, const GArray *ids, bool skip, const char *wanted, size_t len)
{
    GString   *text = decode(o, ids, skip);
    const bool ok = text->len == len && !memcmp(text->str, wanted, len);
    g_string_free(text, TRUE);
    return ok;
}

static size_t unhex(const char *hex, char *out)
{
    size_t n = strlen(hex) / 2;
    for (size_t i = 0; i < n; i++)
        out[i] = (char)(g_ascii_xdigit_value(hex[2 * i]) << 4 | g_ascii_xdigit_value(hex[2 * i + 1]));
    return n;
}

static int check(const char *model, const Open *o, const Open *no_nfc, const json_t *v)
{
    const json_t *text = json_object_get(v, "text"), *ids = json_object_get(v, "ids");
    const json_t *plain = json_object_get(v, "ids_plain"), *raw = json_object_get(v, "ids_no_nfc");
    const json_t *decoded = json_object_get(v, "decoded"), *skipped = json_object_get(v, "decoded_skip_special");
    const char   *hex = json_string_value(json_object_get(v, "decoded_hex")), *s = json_string_value(text);
    const size_t  len = json_string_length(text);
    GArray       *with = encode(o, s, len, true), *without = encode(o, s, len, false);
    GArray       *as_is = encode(no_nfc, s, len, true);
    char          bytes[4096];
    const char   *bad = NULL;

    if (!decoded)
        decoded = text;
    if (!same(with, ids))
        bad = "ids";
    else if (!same(without, plain ? plain : ids))
        bad = "ids_plain";
    else if (!same(as_is, raw ? raw : ids))
        bad = "ids_no_nfc";
    else if (hex ? !reads(o, with, false, bytes, unhex(hex, bytes))
                 : !reads(o, with, false, json_string_value(decoded), json_string_length(decoded)))
        bad = "decoded";
    else if (skipped && !reads(o, with, true, json_string_value(skipped), json_string_length(skipped)))
        bad = "decoded_skip_special";
    if (bad)
        print_message("%s %lld: %s\n", model, (long long)json_integer_value(json_object_get(v, "id")), bad);
    g_array_unref(with);
    g_array_unref(without);
    g_array_unref(as_is);
    return bad != NULL;
}

static void agrees_with_the_recorded_ids(void **state)
{
    const Model     *m = *state;
    g_autofree char *file = vectors_of(m);
    json_error_t     why;
    json_t          *all = json_load_file(file, JSON_ALLOW_NUL, &why), *v;
    Open             o = { 0 };
    size_t           i;
    int              bad = 0;

    assert_non_null(all);
    open_model(m, &o);
    Open            no_nfc = o;
    MiTokenizerData as_is = o.data;
    as_is.nfc = false;
    no_nfc.self = o.vt->open(&as_is, NULL, NULL);
    assert_non_null(no_nfc.self);
    assert_true(json_array_size(json_object_get(all, "vectors")) >= 80);
    json_array_foreach (json_object_get(all, "vectors"), i, v)
        bad += check(m->name, &o, &no_nfc, v);
    assert_int_equal(bad, 0);
    json_decref(all);
    o.vt->close(no_nfc.self);
    close_model(&o);
}

int main(void)
{
    static const Model models[] = {
        { "smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf" }, { "qwen2", "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf" },
        { "stories260k", "stories260K.gguf" },            { "qwen3", NULL },
        { "llama3", NULL },
    };
    struct CMUnitTest tests[G_N_ELEMENTS(models)];
    size_t            n = 0;

    for (size_t i = 0; i < G_N_ELEMENTS(models); i++)
        if (is_there(&models[i]))
            tests[n++] = (struct CMUnitTest){ .name = models[i].name, .test_func = agrees_with_the_recorded_ids,
                                              .initial_state = (void *)&models[i] };
    if (!n) {
        puts("1..0 # SKIP no recorded texts, or none of their vocabularies: set MI_DATA and MI_MODELS");
        return 0;
    }
    registry = load(NULL);
    const int failed = _cmocka_run_group_tests("tokenizer_vectors", tests, n, NULL, NULL);
    mi_registry_free(registry);
    return failed;
}
