/* The template interpreter against Jinja2 itself (data/template_cases.py), its marks and its budgets. */
#include "common.h"
#include "json_var.h"
#include "template.h"

#include <stdio.h>

static json_t *cases;

/* Text with the error's message in place of a text, if it fails. */
static bool render(const char *source, size_t len, const MiVar *vars, const MiVar *trusted, MiRendered *out, GError **error)
{
    MiTemplate *t = mi_template_parse(source, len, error);
    const bool  ok = t && mi_template_render(t, vars, trusted, 0, out, error);

    mi_template_free(t);
    return ok;
}

static void check_spans(const MiRendered *r)
{
    size_t end = 0;

    for (guint i = 0; i < r->spans->len; i++) {
        const MiSpan *s = &g_array_index(r->spans, MiSpan, i);
        assert_true(s->start == end && s->len > 0);
        assert_true(i == 0 || s->trusted != s[-1].trusted);
        end += s->len;
    }
    assert_int_equal(end, r->text->len);
}

static void agrees_with_jinja2(void **state)
{
    json_t *vars = json_object_get(cases, "vars"), *c;
    size_t  i;
    int     wrong = 0;

    (void)state;
    json_array_foreach(json_object_get(cases, "cases"), i, c) {
        g_autoptr(GPtrArray) pool = g_ptr_array_new_with_free_func(g_free);
        g_autoptr(GError)    error = NULL;
        const json_t        *source = json_object_get(c, "template"), *wanted = json_object_get(c, "output");
        const json_t        *own = json_object_get(c, "vars");
        const MiVar          v = json_var(own ? own : vars, pool);
        MiRendered           out = { 0 };
        const bool           ok = render(json_string_value(source), json_string_length(source), &v, NULL, &out, &error);

        if (ok)
            check_spans(&out);
        if (ok == (wanted == NULL) || (ok && (out.text->len != json_string_length(wanted) ||
                                              memcmp(out.text->str, json_string_value(wanted), out.text->len)))) {
            wrong++;
            print_error("template %s\n  wanted  %s\n  got     %s\n", json_string_value(source),
                        wanted ? json_string_value(wanted) : "an error", ok ? out.text->str : error->message);
        }
        if (!ok)
            assert_non_null(strstr(error->message, "line "));
        mi_rendered_clear(&out);
    }
    if (wrong)
        fail_msg("%d of %zu templates", wrong, json_array_size(json_object_get(cases, "cases")));
}

static int open_cases(void **state)
{
    g_autofree char *folder = g_build_filename(g_getenv("MI_SRCDIR"), "tests", "data", NULL);

    (void)state;
    cases = json_file(folder, "template_cases.json");
    return cases ? 0 : -1;
}

static int close_cases(void **state)
{
    (void)state;
    json_decref(cases);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(agrees_with_jinja2) };
    return cmocka_run_group_tests(tests, open_cases, close_cases);
}
