/* Chat templates of real models against transformers' output (shared/data/reference/chat_*.json). */
#include "common.h"
#include "json_var.h"
#include "template.h"

#include <stdio.h>

static char *folder;

static void chats(const char *file)
{
    json_t       *all = json_file(folder, file), *c;
    const json_t *source = json_object_get(all, "template");
    MiTemplate   *t;
    size_t        i;

    assert_non_null(all);
    t = mi_template_parse(json_string_value(source), json_string_length(source), NULL);
    assert_non_null(t);
    json_array_foreach(json_object_get(all, "cases"), i, c) {
        g_autoptr(GPtrArray) pool = g_ptr_array_new_with_free_func(g_free);
        g_autoptr(GError)    error = NULL;
        MiRendered           out;
        const MiVar          vars = json_var(c, pool);
        const MiVar          trusted = json_var(json_object_get(all, "render_kwargs"), pool);

        if (!mi_template_render(t, &vars, &trusted, 0, &out, &error))
            fail_msg("%s: %s", file, error->message);
        assert_string_equal(out.text->str, json_string_value(json_object_get(c, "output")));
        mi_rendered_clear(&out);
    }
    mi_template_free(t);
    json_decref(all);
}

static void chats_of_llama3(void **state) { (void)state, chats("chat_llama3.json"); }
static void chats_of_qwen2(void **state) { (void)state, chats("chat_qwen2.json"); }
static void chats_of_qwen3(void **state) { (void)state, chats("chat_qwen3.json"); }
static void chats_of_smollm2(void **state) { (void)state, chats("chat_smollm2.json"); }

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(chats_of_llama3), cmocka_unit_test(chats_of_qwen2),
                                        cmocka_unit_test(chats_of_qwen3), cmocka_unit_test(chats_of_smollm2) };
    const char             *data = g_getenv("MI_DATA");
    int                     failed;

    folder = data ? g_build_filename(data, "reference", NULL)
                  : g_build_filename(g_getenv("MI_SRCDIR"), "..", "shared", "data", "reference", NULL);
    if (!g_file_test(folder, G_FILE_TEST_IS_DIR)) {
        puts("1..0 # SKIP no reference data (set MI_DATA)");
        g_free(folder);
        return 0;
    }
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    g_free(folder);
    return failed;
}
