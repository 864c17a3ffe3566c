/* Each allocation and each system call of the readers fails in turn: a line that says so, or all that would
 * have come without it; under AddressSanitizer nothing leaks. */
#include "failing.h"
#include "formats_common.h"
#include "gguf_builder.h"
#include "config.h"
#include "image.h"
#include "template.h"

typedef struct { const MiFormat *f; char *path; } Model;

static char       *folder;
static MiRegistry *registry;
static Model       models[2 * SMALL_N + 4]; /* GGUF, the same as directories, and: */
enum { SHARDS = 2 * SMALL_N, ROTATED, STRANGER, YARN };

/* ---- what is done ---------------------------------------------------------------------------------- */

static void describe_tokens(const MiTokenizerData *t, GString *out)
{
    g_string_append_printf(out, "%s %s %u pieces, %u merges, %d %d %d %d, %d %d\n%s\n", t->kind, t->pre ? t->pre : "none",
                           t->n_pieces, t->n_merges, t->bos, t->eos, t->pad, t->unk, t->add_bos, t->add_eos,
                           t->chat_template);
    for (uint32_t i = 0; i < t->n_pieces; i++)
        g_string_append_printf(out, "%.*s|%d|%g\n", (int)t->pieces[i].len, t->pieces[i].text ? t->pieces[i].text : "",
                               t->pieces[i].type, (double)t->pieces[i].score);
    for (uint32_t i = 0; i < t->n_stop; i++)
        g_string_append_printf(out, "stop %d\n", t->stop[i]);
}

/* Opens a model and reads all its tables. */
static bool open_model(void *user, GString *out, GError **error)
{
    const Model    *m = user;
    const char     *key, *value;
    MiTokenizerData t;
    MiWeight        w;
    void           *self = m->f->open(m->path, NULL, error);

    if (!self)
        return false;
    for (size_t i = 0; i < m->f->count(self); i++) {
        m->f->at(self, i, &w);
        g_string_append_printf(out, "%s %s %" G_GINT64_FORMAT " %zu\n", w.name, w.format, w.shape[0], w.bytes);
    }
    for (size_t i = 0; m->f->meta_at(self, i, &key, &value); i++)
        g_string_append_printf(out, "%s = %s\n", key, value);
    g_autoptr(GError) none = NULL;
    bool              ok = m->f->tokenizer(self, &t, &none);
    if (ok)
        describe_tokens(&t, out);
    else if (!(ok = g_error_matches(none, MI_ERROR, MI_ERROR_NOT_FOUND)))
        g_propagate_error(error, g_steal_pointer(&none));
    m->f->close(self);
    return ok;
}

static bool write_model(void *user, GString *out, GError **error)
{
    const Model      *to = user;
    const MiSource    from = { models[0].f, models[0].f->open(models[0].path, NULL, error) };
    const MiWriteSpec spec = { .dtype = "f16" };
    g_autofree char  *part = g_strconcat(to->path, ".part", NULL);

    if (!from.self)
        return false;
    const bool ok = to->f->write(to->path, &from, &spec, error);
    from.vt->close(from.self);
    failing_end(); /* what is left of it is looked at without faults */
    assert_false(g_file_test(part, G_FILE_TEST_EXISTS));
    assert_true(ok == g_file_test(to->path, G_FILE_TEST_EXISTS));
    g_string_append(out, "written");
    if (ok && g_file_test(to->path, G_FILE_TEST_IS_DIR))
        remove_folder(to->path);
    else if (ok)
        g_remove(to->path);
    return ok;
}

/* A tokenizer of a model's tables, and a text there and back. */
static bool encode_text(void *user, GString *out, GError **error)
{
    static const char        text[] = " ab  aba\xc3\xa9\n<|im_end|>cab\xff b";
    static const size_t      trusted[][2] = { { 10, sizeof text - 4 } };
    const MiTokenizerData   *t = user;
    const MiFeature         *f = mi_registry_find(registry, MI_KIND_TOKENIZER, t->kind, "*", error);
    const MiTokenizer       *vt = f ? f->vtable : NULL;
    void                    *self = f ? vt->open(t, NULL, error) : NULL;
    int32_t                  ids[64];

    if (!self)
        return false;
    const size_t n = vt->encode_ranges(self, text, sizeof text - 1, trusted, 1, ids, G_N_ELEMENTS(ids));
    if (n == SIZE_MAX)
        g_set_error(error, MI_ERROR, MI_ERROR_NO_MEMORY, "SIZE_MAX, which is no memory");
    for (size_t i = 0; n != SIZE_MAX && i < n; i++)
        g_string_append_printf(out, " %d", ids[i]);
    vt->close(self);
    return n != SIZE_MAX;
}

static bool render_template(void *user, GString *out, GError **error)
{
    static const char source[] =
        "{% macro m(x, y='d') %}{% for i in range(x) %}{{ loop.index ~ y }}{% else %}none{% endfor %}{% endmacro %}"
        "{% set ns = namespace(n=0) %}{% for w in ['b', 'a', 'b']|unique|sort %}{% set ns.n = ns.n + 1 %}{{ w|upper }}"
        "{% endfor %}{{ ns.n }}{{ m(3) }}{{ m(0, y='z') }}{{ {'a': [1, 2.5, none]}|tojson(indent=2) }}"
        "{{ ('x' * 90000)|length }}{{ 'a,b,c'.split(',')|join('-') }}{{ '%05.1f|%s' % (2.25, 'e') }}"
        "{{ '{:>5}'.format('r') }}{{ [3, 1, 2]|sort(reverse=true)|first }}{{ s|replace('s', 't') }}{{ s[::-1] }}"
        "{% filter indent(2) %}a\nb{% endfilter %}{% call(u) m2(1) %}{{ u }}{% endcall %}";
    static const char *const macro = "{% macro m2(x) %}[{{ caller(x) }}]{% endmacro %}";
    static const char *const keys[] = { "s" };
    const MiVar       item = { .type = MI_VAR_TEXT, .text = "sis", .n = 3 };
    const MiVar       vars = { .type = MI_VAR_MAP, .n = 1, .items = &item, .keys = keys };
    g_autofree char  *whole = g_strconcat(macro, source, NULL);
    MiRendered        r;

    (void)user;
    MiTemplate *t = mi_template_parse(whole, strlen(whole), error);
    const bool  ok = t && mi_template_render(t, &vars, NULL, 0, &r, error);
    if (ok) {
        g_string_append(out, r.text->str);
        mi_rendered_clear(&r);
    }
    mi_template_free(t);
    return ok;
}

static bool read_configuration(void *user, GString *out, GError **error)
{
    MiConfig  *c = mi_config_new();
    const bool ok = mi_config_read(c, user, error);

    if (ok)
        g_string_append(out, mi_config_get(c, "engine", "max_seqs"));
    mi_config_free(c);
    return ok;
}

static bool check_plugin(void *user, GString *out, GError **error)
{
    (void)out;
    return mi_image_check_file(user, error);
}

/* ---- the tests ------------------------------------------------------------------------------------- */

static void models_are_opened(void **state)
{
    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(models); i++)
        for (FailKind kind = FAIL_MEMORY; kind < FAIL_N; kind++)
            failing_each(kind, open_model, &models[i]);
}

/* What probe() cannot read is no model of the format; only a name speaks for it. */
static void models_are_probed(void **state)
{
    (void)state;
    g_autofree char *nameless = g_build_filename(folder, "nameless", NULL);
    Builder          b = small_gguf(SMALL_LLAMA_BPE);

    put(folder, "nameless", b.bytes->data, b.bytes->len);
    builder_free(&b);
    for (long n = 1; n <= 3; n++) { /* open, fstat, read */
        failing_begin(FAIL_FILES, n, false);
        const int named = models[0].f->probe(models[0].path);
        assert_true(failing_end());
        assert_int_equal(named, 50);
        failing_begin(FAIL_FILES, n, false);
        assert_int_equal(models[0].f->probe(nameless), 0);
        failing_end();
    }
    assert_int_equal(models[0].f->probe(nameless), 100);
}

static void models_are_written(void **state)
{
    (void)state;
    for (int to = 0; to < 2; to++) {
        Model m = { models[to * SMALL_N].f, g_build_filename(folder, "written", NULL) };
        for (FailKind kind = FAIL_MEMORY; kind < FAIL_N; kind++)
            failing_each(kind, write_model, &m);
        g_free(m.path);
    }
}

static void texts_are_encoded(void **state)
{
    (void)state;
    for (size_t i = 0; i <= SHARDS; i++) {
        g_autoptr(GError) error = NULL;
        MiTokenizerData   t;
        void             *self = models[i].f->open(models[i].path, NULL, &error);
        if (!self || !models[i].f->tokenizer(self, &t, &error))
            fail_msg("%s", error->message);
        failing_each(FAIL_MEMORY, encode_text, &t);
        models[i].f->close(self);
    }
}

static void templates_are_rendered(void **state)
{
    (void)state;
    failing_each(FAIL_MEMORY, render_template, NULL);
}

static void files_are_read(void **state)
{
    (void)state;
    g_autofree char *file = g_build_filename(folder, "x.ini", NULL), *plugin = built("plugins/format_gguf.so");

    put(folder, "x.ini", "[engine]\nmax_seqs = 4\n", 22);
    failing_each(FAIL_FILES, read_configuration, file);
    failing_each(FAIL_FILES, check_plugin, plugin);
}

/* ---- the models ---------------------------------------------------------------------------------------- */

static void put_shards(const char *path)
{
    static const char header[] = "{\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}";
    static const char *const files[][2] = {
        { "config.json", "{\"architectures\":[\"X\"],\"rope_parameters\":{\"rope_theta\":5,\"factor\":2.5}}" },
        { "model.safetensors.index.json", "{\"weight_map\":{\"x\":\"x.safetensors\",\"y\":\"y.safetensors\"}}" },
        { "generation_config.json", "{\"eos_token_id\":[1,2]}" },
        { "special_tokens_map.json", "{\"eos_token\":\"c\"}" },
        { "chat_template.jinja", "{{ messages }}" },
        { "tokenizer_config.json", "{\"bos_token\":\"a\",\"add_bos_token\":true,\"chat_template\":\"old\"}" },
        { "tokenizer.json", "{\"added_tokens\":[{\"id\":4,\"content\":\"<e>\",\"special\":true}],\"normalizer\":{\"type\":"
                            "\"NFC\"},\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},\"model\":{"
                            "\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"c\":3},\"merges\":[\"a b\"]}}" },
    };
    const uint64_t n = strlen(header);
    char           file[8 + sizeof header - 1 + 8] = { 0 };

    g_mkdir(path, 0700);
    memcpy(file, &n, 8);
    memcpy(file + 8, header, n);
    put(path, "x.safetensors", file, sizeof file);
    file[8 + 2] = 'y';
    put(path, "y.safetensors", file, sizeof file);
    for (size_t i = 0; i < G_N_ELEMENTS(files); i++)
        put(path, files[i][0], files[i][1], strlen(files[i][1]));
}

/* Llama 3's rotation and a window: what most keys follow from. */
static void put_rotated(const char *path)
{
    static const char config[] =
        "{\"architectures\":[\"MistralForCausalLM\"],\"hidden_size\":32,\"num_hidden_layers\":1,\"num_attention_heads\":2,"
        "\"sliding_window\":8,\"partial_rotary_factor\":0.5,\"rope_theta\":500000.0,\"rope_scaling\":{\"rope_type\":\"llama3\","
        "\"factor\":8.0,\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,\"original_max_position_embeddings\":8192}}";
    static const MiWriteSpec keep = { .dtype = "keep" };
    const MiFormat          *st = format_of("safetensors");
    g_autoptr(GError)        error = NULL;

    put(folder, "config.json", config, sizeof config - 1);
    put(folder, "model.safetensors", "\2\0\0\0\0\0\0\0{}", 10);
    const MiSource from = { st, st->open(folder, NULL, &error) };
    if (!from.self || !models[0].f->write(path, &from, &keep, &error))
        fail_msg("%s", error->message);
    st->close(from.self);
}

static int set_up(void **state)
{
    static const MiWriteSpec keep = { .dtype = "keep" };
    const MiFormat          *gguf = format_of("gguf"), *st = format_of("safetensors");

    (void)state;
    folder = new_folder();
    registry = load(NULL);
    for (int i = 0; i < SMALL_N; i++) {
        g_autofree char *name = g_strdup_printf("%d.gguf", i), *directory = g_strdup_printf("%d", i);
        Builder          b = small_gguf((Small)i);
        put(folder, name, b.bytes->data, b.bytes->len);
        builder_free(&b);
        models[i] = (Model){ gguf, g_build_filename(folder, name, NULL) };
        models[SMALL_N + i] = (Model){ st, g_build_filename(folder, directory, NULL) };
        const MiSource from = { gguf, gguf->open(models[i].path, NULL, NULL) };
        assert_true(st->write(models[SMALL_N + i].path, &from, &keep, NULL));
        gguf->close(from.self);
    }
    models[SHARDS] = (Model){ st, g_build_filename(folder, "shards", NULL) };
    put_shards(models[SHARDS].path);
    models[ROTATED] = (Model){ gguf, g_build_filename(folder, "rotated.gguf", NULL) };
    put_rotated(models[ROTATED].path);
    models[STRANGER] = (Model){ gguf, g_build_filename(folder, "stranger.gguf", NULL) };
    Builder b = builder_new();
    key_text(&b, "general.architecture", "mamba"), key_text(&b, "general.name", "x"), tensor(&b, "x", 0, 4, 0, 16);
    builder_end(&b);
    put(folder, "stranger.gguf", b.bytes->data, b.bytes->len);
    builder_free(&b);
    models[YARN] = (Model){ gguf, g_build_filename(folder, "yarn.gguf", NULL) };
    b = builder_new();
    key_text(&b, "general.architecture", "llama"), key_text(&b, "llama.rope.scaling.type", "yarn");
    key_f32(&b, "llama.rope.scaling.factor", 4), key_f32(&b, "llama.rope.scaling.attn_factor", 2);
    builder_end(&b);
    put(folder, "yarn.gguf", b.bytes->data, b.bytes->len);
    builder_free(&b);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(models); i++)
        g_free(models[i].path);
    mi_registry_free(registry);
    remove_folder(folder);
    g_free(folder);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(models_are_opened),  cmocka_unit_test(models_are_probed), cmocka_unit_test(models_are_written),
        cmocka_unit_test(texts_are_encoded), cmocka_unit_test(templates_are_rendered), cmocka_unit_test(files_are_read),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
