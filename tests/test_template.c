/* The template interpreter against Jinja2 itself, its marks and its budgets.
 *
 *   tests/test_template [FILE]     cases of data/template_cases.py, made of other templates */
#include "common.h"
#include "hostile_templates.h"
#include "json_var.h"
#include "template.h"

#include <time.h>

static json_t *cases;

static bool render(const char *source, size_t len, const MiVar *vars, const MiVar *trusted, MiRendered *out,
                   GError **error)
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
    json_array_foreach(json_object_get(cases, "cases"), i, c)
    {
        g_autoptr(GPtrArray) pool = g_ptr_array_new_with_free_func(g_free);
        g_autoptr(GError) error = NULL;
        const json_t *source = json_object_get(c, "template"), *wanted = json_object_get(c, "output");
        const json_t *own = json_object_get(c, "vars");
        const MiVar   v = json_var(own ? own : vars, pool);
        MiRendered    out = {0};
        const bool    ok = render(json_string_value(source), json_string_length(source), &v, NULL, &out, &error);

        if (ok)
            check_spans(&out);
        if (ok == (wanted == NULL) || (ok && (out.text->len != json_string_length(wanted) ||
                                              memcmp(out.text->str, json_string_value(wanted), out.text->len)))) {
            wrong++;
            print_error("template %s\n  wanted  %s\n  got     %s\n",
                        own ? json_string_value(json_object_get(c, "name")) : json_string_value(source),
                        wanted ? json_string_value(wanted) : "an error", ok ? out.text->str : error->message);
        }
        if (!ok)
            assert_non_null(strstr(error->message, "line "));
        mi_rendered_clear(&out);
    }
    if (wrong)
        fail_msg("%d of %zu templates", wrong, json_array_size(json_object_get(cases, "cases")));
}

/* ---- marks ------------------------------------------------------------- */
/* A template, and its output with what is not trusted in brackets.  s, l, d, n are of the
 * caller; bos is a trusted variable. */
static const struct {
    const char *source, *wanted;
} marks[] = {
    {"{{ '<a>' + s + '</a>' }}", "<a>[User]</a>"},
    {"<a>{{ s }}</a>", "<a>[User]</a>"},
    {"{{ bos }}{{ bos ~ s }}", "<bos><bos>[User]"},
    {"{{ 'x' ~ s ~ n ~ 5 }}", "x[User7]5"},
    {"{{ ('<' + s + '>')[1:] }}", "[User]>"},
    {"{{ ('<' + s + '>')[2] }}{{ ('<' + s + '>')[-1] }}", "[s]>"},
    {"{{ ('<' + s + '>')[::-1] }}", ">[resU]<"},
    {"{{ (' ' + s + ' ')|trim }}", "[User]"},
    {"{{ ('a' + s)|upper }}{{ ('A' + s).lower() }}{{ ('a' + s)|title }}", "A[USER]a[user]A[user]"},
    {"{{ ('a-' + s)|replace('a', bos) }}", "<bos>-[User]"},
    {"{{ 'a-b'|replace('a', s) }}{{ s|replace('U', 'x') }}", "[User]-bx[ser]"},
    {"{{ [s, 'x', bos]|join(', ') }}", "[User], x, <bos>"},
    {"{{ l|join('|') }}", "[a]|[b]"},
    {"{{ ('a,' + s).split(',')|join(';') }}", "a;[User]"},
    {"{{ ('a\n' ~ s).splitlines()[1] }}", "[User]"},
    {"{% for c in 'a' ~ s %}{{ c }}.{% endfor %}", "a.[U].[s].[e].[r]."},
    {"{{ 'x{}y'.format(s) }}{{ '%s!' % s }}", "x[User]y[User]!"},
    {"{{ '%3d' % n }}{{ '%3d' % 7 }}", "  [7]  7"},
    {"{{ s|tojson }}{{ [s] }}", "[\"User\"['User']]"},
    {"{{ n + 1 }}{{ 1 + 1 }}{{ n * 2.0 }}{{ s|length }}", "[8]2[14.0]4"},
    {"{% set x %}a{{ s }}b{% endset %}{{ x }}", "a[User]b"},
    {"{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m(s) }}{{ m(bos) }}", "<[User]><<bos>>"},
    {"{% filter upper %}a{{ s }}{% endfilter %}", "A[USER]"},
    {"{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}", "[k]=[v];"},
    {"{{ 'yes' if s == 'User' else 'no' }}{{ s is string }}", "yesTrue"},
    {"{{ ('\n' ~ s)|indent(2) }}{{ s|e }}{{ '<' ~ s|e }}", "\n  [UserUser]<[User]"},
    {"{{ {'User': '<x>'}[s] }}{{ s.partition('s')|join }}{{ s.center(6, '*') }}", "<x>[U]s[er]*[User]*"},
    {"{{ s|default('x') }}{{ nope|default('x') }}{{ ['b', s]|sort|join }}", "[User]xb[User]"},
    {"{{ ('1' ~ n)|int }}{{ ('12' ~ n)[:2]|int }}{{ ('1.' ~ n)|float }}", "[17]12[1.7]"},
    {"{{ range(n, 9)|first }}{{ range(6, n)|first }}{{ range(5, 6)|first }}", "[76]5"},
    {"{{ n|string }}{{ '5'|int }}{{ n|float }}{{ b }}", "[7]5[7.0True]"},
};

static void keeps_the_marks(void **state)
{
    static const char *const keys[] = {"s", "l", "d", "n", "b", NULL}, *const d_keys[] = {"k", NULL};
    static const char *const own_keys[] = {"bos", NULL};
    const MiVar l[] = {{.type = MI_VAR_TEXT, .text = "a", .n = 1}, {.type = MI_VAR_TEXT, .text = "b", .n = 1}};
    const MiVar v = {.type = MI_VAR_TEXT, .text = "v", .n = 1};
    const MiVar items[] = {{.type = MI_VAR_TEXT, .text = "User", .n = 4},
                           {.type = MI_VAR_LIST, .items = l, .n = 2},
                           {.type = MI_VAR_MAP, .items = &v, .keys = d_keys, .n = 1},
                           {.type = MI_VAR_INT, .integer = 7},
                           {.type = MI_VAR_BOOL, .integer = 1}};
    const MiVar bos = {.type = MI_VAR_TEXT, .text = "<bos>", .n = 5};
    const MiVar vars = {.type = MI_VAR_MAP, .items = items, .keys = keys, .n = 5};
    const MiVar own = {.type = MI_VAR_MAP, .items = &bos, .keys = own_keys, .n = 1};

    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(marks); i++) {
        g_autoptr(GError) error = NULL;
        g_autoptr(GString) got = g_string_new(NULL);
        MiRendered out;

        if (!render(marks[i].source, strlen(marks[i].source), &vars, &own, &out, &error))
            fail_msg("%s: %s", marks[i].source, error->message);
        check_spans(&out);
        for (guint k = 0; k < out.spans->len; k++) {
            const MiSpan *s = &g_array_index(out.spans, MiSpan, k);
            g_string_append(got, s->trusted ? "" : "[");
            g_string_append_len(got, out.text->str + s->start, (gssize)s->len);
            g_string_append(got, s->trusted ? "" : "]");
        }
        mi_rendered_clear(&out);
        assert_string_equal(got->str, marks[i].wanted);
    }
}

static void trusts_no_letter_of_the_variables(void **state)
{
    json_t *all = json_dyed(json_object_get(cases, "vars")), *c;
    size_t  i, rendered = 0;

    (void)state;
    json_array_foreach(json_object_get(cases, "cases"), i, c)
    {
        g_autoptr(GPtrArray) pool = g_ptr_array_new_with_free_func(g_free);
        const json_t *source = json_object_get(c, "template"), *own = json_object_get(c, "vars");
        json_t       *own_dyed = own ? json_dyed(own) : NULL;
        const MiVar   v = json_var(own ? own_dyed : all, pool);
        MiRendered    out = {0};

        if (render(json_string_value(source), json_string_length(source), &v, NULL, &out, NULL)) {
            rendered++;
            for (guint k = 0; k < out.spans->len; k++) {
                const MiSpan *s = &g_array_index(out.spans, MiSpan, k);
                for (size_t at = s->start; s->trusted && at < s->start + s->len; at++)
                    if ((guchar)out.text->str[at] == DYE)
                        fail_msg("%s trusts the variables: %s", json_string_value(source), out.text->str);
            }
        }
        mi_rendered_clear(&out);
        json_decref(own_dyed);
    }
    assert_true(rendered > 500);
    json_decref(all);
}

/* ---- hostile templates ------------------------------------------------- */
static void refuses_hostile_templates(void **state)
{
    enum { LONG = 100000 };
    static const char *const keys[] = {"s", "u", NULL};
    g_autofree char         *s = g_strnfill(LONG, 'a');
    g_autoptr(GString) u = g_string_new(NULL);

    (void)state;
    for (int i = 0; i < LONG; i++)
        g_string_append(u, "\xc3\xa9");
    const MiVar items[] = {{.type = MI_VAR_TEXT, .text = s, .n = LONG},
                           {.type = MI_VAR_TEXT, .text = u->str, .n = u->len}};
    const MiVar vars = {.type = MI_VAR_MAP, .items = items, .keys = keys, .n = 2};

    for (size_t i = 0; i < G_N_ELEMENTS(hostile_templates); i++) {
        g_autoptr(GString) source = hostile_source(&hostile_templates[i]);
        g_autoptr(GError) error = NULL;
        MiRendered out = {0};

        if (render(source->str, source->len, &vars, NULL, &out, &error))
            fail_msg("%.100s: it was rendered", source->str);
        assert_true(g_str_has_prefix(error->message, "chat template, line "));
        assert_null(strchr(error->message, '\n'));
        if (!strstr(error->message, hostile_templates[i].words))
            fail_msg("%.100s: %s", source->str, error->message);
        assert_null(out.text);
    }
}

static void names_line_and_reason(void **state)
{
    static const struct {
        const char *source, *wanted;
    } errors[] = {
        {"a\nb\n{{ x.y }}", "chat template, line 3: 'x' is undefined"},
        {"{{ m[0].nope.more }}", "chat template, line 1: 'm' is undefined"},
        {"\n{% include 'x' %}", "chat template, line 2: {% include %} is not supported in a chat template"},
        {"\n\n{{ raise_exception('roles\\nmust') }}", "chat template, line 3: the template refuses: roles must"},
        {"{% if x %}\n\n",
         "chat template, line 2: the template ends inside a block that wants {% endif %}; it began in line 1"},
        {"{{ 1 +\n }}", "chat template, line 2: found '}}' where a value should stand"},
        {"{{ 'x'|nope }}", "chat template, line 1: no filter 'nope'"},
        {"{{ raise_exception('a\\x7f\\x01b') }}", "chat template, line 1: the template refuses: a  b"},
        {"{{ '\\0' }}", "chat template, line 1: bad escape \\0 in a string"},
        {"{{ \x7f }}", "chat template, line 1: unexpected byte 7F"},
        {"{{ '1'|int(0, 1) }}", "chat template, line 1: int: base 1 is not within 2 and 36"},
        {"{{ '1'|int(0, 37) }}", "chat template, line 1: int: base 37 is not within 2 and 36"},
        {"{{ 'a b'.rsplit(none, 1) }}", "chat template, line 1: rsplit at blanks with maxsplit is not supported"},
        {"{{ [1]|batch(0) }}", "chat template, line 1: batch: linecount 0 is not positive"},
        {"{{ strftime_now(5) }}", "chat template, line 1: strftime_now wants a str, not a int"},
        {"{{ strftime_now('%Q') }}", "chat template, line 1: strftime_now: %Q is not supported"},
        {"{{ strftime_now('%') }}", "chat template, line 1: strftime_now: %? is not supported"},
        {"{{ '{a.b}'.format(a=1) }}", "chat template, line 1: format: no argument 'a.b'"},
        {"{{ [1].append(2) }}", "chat template, line 1: append() would change a list, which a template may not"},
    };

    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(errors); i++) {
        g_autoptr(GError) error = NULL;
        const MiVar none = {.type = MI_VAR_MAP};
        MiRendered  out = {0};

        assert_false(render(errors[i].source, strlen(errors[i].source), &none, NULL, &out, &error));
        if (!g_str_has_prefix(error->message, errors[i].wanted))
            fail_msg("%s: %s", errors[i].source, error->message);
    }
}

/* What a caller may not hand over. */
static void variables_are_a_map_of_text(void **state)
{
    static const char *const keys[] = {"s"};
    static const MiVar       bad = {.type = MI_VAR_TEXT, .text = "a\xff", .n = 2}, list = {.type = MI_VAR_LIST};
    const MiVar              map = {.type = MI_VAR_MAP, .n = 1, .items = &bad, .keys = keys};
    g_autoptr(GError)        error = NULL;
    MiRendered               out;

    (void)state;
    assert_false(render("", 0, &list, NULL, &out, &error));
    assert_string_equal(error->message, "chat template, line 1: the variables are not a map");
    g_clear_error(&error);
    assert_false(render("", 0, &map, NULL, &out, &error));
    assert_string_equal(error->message, "chat template, line 1: a variable's text is not UTF-8 at byte 1 of 2");
    MiTemplate *t = mi_template_parse("{{ strftime_now('%Y') }}", 24, NULL);
    g_clear_error(&error);
    assert_false(mi_template_render(t, &(MiVar){.type = MI_VAR_MAP}, NULL, INT64_MAX, &out, &error));
    assert_string_equal(error->message, "chat template, line 1: the time is out of range");
    mi_template_free(t);
}

static void knows_the_time(void **state)
{
    static const char letters[] = "%Y-%m-%d %H:%M:%S %A %a %B %b %h %j %y %p %I %e %F %T %u %w %-d %-H %-I %-j %%";
    static const time_t times[] = {1700000000, 1700050000, 0, 951782400 /* 29 February */};
    g_autofree char    *source = g_strdup_printf("a {{ strftime_now('%s') }} b", letters);
    g_autofree char    *form = g_strdup_printf("a %s b", letters);
    const MiVar         none = {.type = MI_VAR_MAP};
    MiTemplate         *t = mi_template_parse(source, strlen(source), NULL);

    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(times); i++) {
        MiRendered out;
        struct tm  parts;
        char       wanted[300];
        assert_true(mi_template_render(t, &none, NULL, times[i], &out, NULL));
        strftime(wanted, sizeof wanted, form, localtime_r(&times[i], &parts));
        assert_string_equal(out.text->str, wanted);
        mi_rendered_clear(&out);
    }
    mi_template_free(t);
}

static const char *own_file; /* of cases, from the command line */

static int open_cases(void **state)
{
    g_autofree char *folder = g_build_filename(g_getenv("MI_SRCDIR"), "tests", "data", NULL);

    (void)state;
    cases = own_file ? json_file("", own_file) : json_file(folder, "template_cases.json");
    return cases ? 0 : -1;
}

static int close_cases(void **state)
{
    (void)state;
    json_decref(cases);
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agrees_with_jinja2),
        cmocka_unit_test(keeps_the_marks),
        cmocka_unit_test(trusts_no_letter_of_the_variables),
        cmocka_unit_test(refuses_hostile_templates),
        cmocka_unit_test(names_line_and_reason),
        cmocka_unit_test(variables_are_a_map_of_text),
        cmocka_unit_test(knows_the_time),
    };
    own_file = argc > 1 ? argv[1] : NULL;
    return cmocka_run_group_tests(tests, open_cases, close_cases);
}
