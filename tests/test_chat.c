/* Chats of real models: the text and the ids that transformers makes of them (MI_DATA/reference/chat_*.json).
 * Vocabularies come from MI_MODELS (GGUF) and MI_DATA/tokenizers (tokenizer.json.xz). */
#include "chat.h"
#include "common.h"
#include "json_var.h"
#include "tokenizer_json.h"

#include <glib/gstdio.h>
#include <stdio.h>

static char *data; /* the folder */

static json_t *reference(const char *name)
{
    g_autofree char *folder = g_build_filename(data, "reference", NULL), *file = g_strdup_printf("chat_%s.json", name);
    json_t          *all = json_file(folder, file);

    assert_non_null(all);
    return all;
}

static MiTemplate *parse(const json_t *source)
{
    MiTemplate *t = mi_template_parse(json_string_value(source), json_string_length(source), NULL);

    assert_non_null(t);
    return t;
}

/* ---- text -------------------------------------------------------------- */
static void same_text(const char *name)
{
    json_t     *all = reference(name), *c;
    MiTemplate *t = parse(json_object_get(all, "template"));
    size_t      i;

    json_array_foreach(json_object_get(all, "cases"), i, c) {
        g_autoptr(GPtrArray) pool = g_ptr_array_new_with_free_func(g_free);
        g_autoptr(GError)    error = NULL;
        const MiVar          vars = json_var(c, pool), own = json_var(json_object_get(all, "render_kwargs"), pool);
        MiRendered           out;

        if (!mi_template_render(t, &vars, &own, 0, &out, &error))
            fail_msg("%s: %s", name, error->message);
        assert_string_equal(out.text->str, json_string_value(json_object_get(c, "output")));
        mi_rendered_clear(&out);
    }
    mi_template_free(t);
    json_decref(all);
}

static void text_of_llama3(void **state) { (void)state, same_text("llama3"); }
static void text_of_qwen2(void **state) { (void)state, same_text("qwen2"); }
static void text_of_qwen3(void **state) { (void)state, same_text("qwen3"); }
static void text_of_smollm2(void **state) { (void)state, same_text("smollm2"); }

/* ---- ids --------------------------------------------------------------- */
typedef struct {
    MiRegistry      *registry;
    const MiFormat  *format; /* of a GGUF, with `file` */
    void            *file;
    MiTokenizerJson *json; /* of a tokenizer.json */
    MiTextCoder      coder;
} Model;

/* Unpacked to a folder of its own, as its reader wants it. */
static MiTokenizerJson *open_json(const char *name, GError **error)
{
    g_autofree char *packed = g_build_filename(data, "tokenizers", name, "tokenizer.json.xz", NULL), *text = NULL;
    g_autofree char *folder = g_dir_make_tmp("mi-chat-XXXXXX", error);
    g_autofree char *file = g_build_filename(folder, "tokenizer.json", NULL);
    char            *argv[] = { (char *)"xz", (char *)"-dc", packed, NULL };
    MiTokenizerJson *json = NULL;

    if (g_spawn_sync(NULL, argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, &text, NULL, NULL, error) &&
        g_file_set_contents(file, text, -1, error))
        json = mi_tokenizer_json_open(folder, error);
    g_unlink(file);
    g_rmdir(folder);
    return json;
}

static void open_model(Model *m, const char *name, const char *gguf)
{
    g_autoptr(GError) error = NULL;
    g_autofree char  *path = gguf ? g_build_filename(g_getenv("MI_MODELS"), gguf, NULL) : NULL;
    const MiFeature  *f = NULL;

    m->registry = load(NULL);
    if (gguf && (f = mi_registry_find(m->registry, MI_KIND_FORMAT, "gguf", "*", &error))) {
        m->format = f->vtable;
        m->file = m->format->open(path, NULL, &error);
        if (m->file)
            m->format->tokenizer(m->file, &m->coder.data, &error);
    } else if (!gguf && (m->json = open_json(name, &error))) {
        m->coder.data = mi_tokenizer_json_data(m->json);
    }
    f = error ? NULL : mi_registry_find(m->registry, MI_KIND_TOKENIZER, m->coder.data.kind, "*", &error);
    if (f) {
        m->coder.vt = f->vtable;
        m->coder.self = m->coder.vt->open(&m->coder.data, NULL, &error);
    }
    if (error)
        fail_msg("%s: %s", name, error->message);
}

static void close_model(Model *m)
{
    m->coder.vt->close(m->coder.self);
    if (m->file)
        m->format->close(m->file);
    mi_tokenizer_json_free(m->json);
    mi_registry_free(m->registry);
}

/* User text that spells special tokens: they stay text, and all text comes back. */
static void check_protected(const Model *m, const json_t *c, const int32_t *ids, size_t n)
{
    g_autoptr(GString) text = g_string_new(NULL);
    size_t             special = 0, messages = json_array_size(json_object_get(c, "messages")), len;

    for (size_t i = 0; i < n; i++) {
        const char *piece = m->coder.vt->piece(m->coder.self, i ? ids[i - 1] : -1, ids[i], &len);
        g_string_append_len(text, piece, (gssize)len);
        special += m->coder.data.pieces[ids[i]].type == MI_PIECE_CONTROL;
    }
    if (!g_str_has_prefix(json_string_value(json_object_get(json_array_get(json_object_get(c, "messages"), 0), "role")),
                          "system"))
        messages++; /* the template adds one */
    assert_string_equal(text->str, json_string_value(json_object_get(c, "output")));
    assert_int_equal(special, 2 * messages + json_is_true(json_object_get(c, "add_generation_prompt")));
}

static void same_ids(const char *name, const char *gguf)
{
    json_t        *all = reference(name), *c;
    const json_t  *bos = json_object_get(json_object_get(all, "render_kwargs"), "bos_token");
    MiTemplate    *t = parse(json_object_get(all, "template"));
    Model          m = { 0 };
    size_t         i;

    open_model(&m, name, gguf);
    if (bos) /* which tokenizer_config.json would say */
        m.coder.data.bos = m.coder.vt->special(m.coder.self, json_string_value(bos));
    json_array_foreach(json_object_get(all, "cases"), i, c) {
        g_autoptr(GPtrArray) pool = g_ptr_array_new_with_free_func(g_free);
        g_autoptr(GError)    error = NULL;
        const MiVar          vars = json_var(c, pool);
        const char          *label = json_string_value(json_object_get(c, "name"));
        const json_t        *wanted = json_object_get(c, "ids");
        size_t               n = 0;
        g_autofree int32_t  *ids = mi_chat_encode(t, &m.coder, &vars, 0, &n, &error);

        if (!ids)
            fail_msg("%s %s: %s", name, label, error->message);
        if (strcmp(label, "special_in_text") == 0) {
            check_protected(&m, c, ids, n);
            continue;
        }
        if (n != json_array_size(wanted))
            fail_msg("%s %s: %zu ids, not %zu", name, label, n, json_array_size(wanted));
        for (size_t k = 0; k < n; k++)
            assert_int_equal(ids[k], json_integer_value(json_array_get(wanted, k)));
    }
    close_model(&m);
    mi_template_free(t);
    json_decref(all);
}

static void ids_of_llama3(void **state) { (void)state, same_ids("llama3", NULL); }
static void ids_of_qwen2(void **state) { (void)state, same_ids("qwen2", "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"); }
static void ids_of_qwen3(void **state) { (void)state, same_ids("qwen3", NULL); }
static void ids_of_smollm2(void **state) { (void)state, same_ids("smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"); }

static bool has_model(const char *gguf)
{
    g_autofree char *path = g_getenv("MI_MODELS") ? g_build_filename(g_getenv("MI_MODELS"), gguf, NULL) : NULL;
    return path && g_file_test(path, G_FILE_TEST_EXISTS);
}

static bool has_tokenizers(void)
{
    g_autofree char *xz = g_find_program_in_path("xz"), *folder = g_build_filename(data, "tokenizers", NULL);
    return xz && g_file_test(folder, G_FILE_TEST_IS_DIR);
}

int main(void)
{
    const struct CMUnitTest texts[] = { cmocka_unit_test(text_of_llama3), cmocka_unit_test(text_of_qwen2),
                                        cmocka_unit_test(text_of_qwen3), cmocka_unit_test(text_of_smollm2) };
    const struct CMUnitTest json[] = { cmocka_unit_test(ids_of_llama3), cmocka_unit_test(ids_of_qwen3) };
    const struct CMUnitTest qwen2 = cmocka_unit_test(ids_of_qwen2), smollm2 = cmocka_unit_test(ids_of_smollm2);
    struct CMUnitTest       tests[8];
    size_t                  n = 0;
    int                     failed;

    data = g_getenv("MI_DATA") ? g_strdup(g_getenv("MI_DATA"))
                               : g_build_filename(g_getenv("MI_SRCDIR"), "..", "shared", "data", NULL);
    if (!g_file_test(data, G_FILE_TEST_IS_DIR)) {
        puts("1..0 # SKIP no reference data (set MI_DATA)");
        g_free(data);
        return 0;
    }
    for (size_t i = 0; i < G_N_ELEMENTS(texts); i++)
        tests[n++] = texts[i];
    for (size_t i = 0; i < G_N_ELEMENTS(json) && has_tokenizers(); i++)
        tests[n++] = json[i];
    if (has_model("qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"))
        tests[n++] = qwen2;
    if (has_model("SmolLM2-135M-Instruct.Q4_1.gguf"))
        tests[n++] = smollm2;
    failed = _cmocka_run_group_tests("chat", tests, n, NULL, NULL);
    g_free(data);
    return failed;
}
