/* fuzz_template.c - mutants of templates.
 *
 *   tests/fuzz_template [--count N] [--seconds S] [--seed N] [--hostile]
 *
 * Mutants are made of the tokens of the templates at hand (data/template_cases.json, those
 * of the reference chats if they are there).  Each is parsed and rendered: an error must be one
 * line that names a line of the template; output must be UTF-8 within its limits, its spans
 * without gap; no letter of the variables may be trusted; nothing may take a second.  Without
 * options 2,000 mutants, as a test.  --hostile: the hostile templates instead, each with
 * its time.  A finding is printed and ends the program. */
#include "common.h"
#include "fuzz.h"
#include "hostile_templates.h"
#include "json_var.h"
#include "template.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

static GPtrArray *sources; /* of char *, the seeds */
static GPtrArray *pool;    /* of char *, all their tokens */
static gint64     slowest;

static void finding(const GString *s, const char *what)
{
    g_autofree char *shown = g_strescape(s->str, NULL);
    fprintf(stderr, "fuzz_template: %s\nmutant (%zu bytes): \"%s\"\n", what, s->len, shown);
    exit(1);
}

/* ---- mutants ----------------------------------------------------------- */
static size_t token_length(const char *s)
{
    static const char *const pairs[] = {"{{-", "{%-", "{#-", "-}}", "-%}", "-#}", "{%+", "+%}", "{{", "}}",
                                        "{%",  "%}",  "{#",  "#}",  "//",  "**",  "==",  "!=",  "<=", ">="};
    size_t                   n = 0;

    for (size_t i = 0; i < G_N_ELEMENTS(pairs); i++) {
        if (g_str_has_prefix(s, pairs[i]))
            return strlen(pairs[i]);
    }
    if (*s == '\'' || *s == '"') {
        for (n = 1; s[n] && s[n] != *s && n < 60; n++)
            n += s[n] == '\\' && s[n + 1];
        return n + (s[n] == *s);
    }
    while (g_ascii_isalnum(s[n]) || s[n] == '_')
        n++;
    return n ? n : (size_t)g_utf8_skip[(guchar)*s];
}

static void tokens_of(const char *s, GPtrArray *out)
{
    while (*s) {
        const size_t n = MIN(token_length(s), strlen(s));
        g_ptr_array_add(out, g_strndup(s, n));
        s += n;
    }
}

static const char *some_token(void)
{
    static const char *const extra[] = {
        "loop",
        "namespace",
        "range",
        "caller",
        "joiner",
        "0",
        "-1",
        "9223372036854775807",
        "1e308",
        "100000",
        "\xff",
        "\xc3",
        "break",
        "continue",
        "endfor",
        "endif",
        "else",
        "elif",
        "recursive",
        "[::-1]",
        "[-1]",
        ".items()",
        "|list",
        "|join",
        "|tojson",
        "|map('upper')",
        "|sort",
        "|int",
        "|float",
        "|round(3)",
        "|indent",
        "|batch(2)",
        "*",
        "%",
        "~",
        "'%s'",
        "'{:>9}'",
        ".format",
        ".split",
        "\\",
        "'\\u0041'",
        "none",
        "true",
        "{% raw %}",
        "{% endraw %}",
        "{#",
        "#}",
        "\r\n",
    };
    const size_t i = below(pool->len + G_N_ELEMENTS(extra));
    return i < pool->len ? pool->pdata[i] : extra[i - pool->len];
}

static void mutate(GPtrArray *t)
{
    const size_t at = below(t->len + 1), other = below(t->len + 1);
    size_t       n = below(6) + 1;
    gpointer     kept;

    switch (below(7)) {
    case 0:
        g_ptr_array_insert(t, (gint)at, g_strdup(some_token()));
        break;
    case 1:
        n = MIN(n, t->len - at);
        if (n)
            g_ptr_array_remove_range(t, (guint)at, (guint)n);
        break;
    case 2:
        if (at < t->len && other < t->len) {
            kept = t->pdata[at];
            t->pdata[at] = t->pdata[other];
            t->pdata[other] = kept;
        }
        break;
    case 3: /* another token in its place */
    case 4:
        if (at < t->len) {
            g_free(t->pdata[at]);
            t->pdata[at] = g_strdup(some_token());
        }
        break;
    case 5: /* some tokens again, elsewhere; at times very often */
        n = MIN(n, t->len - at);
        for (size_t times = below(20) ? 1 : 300; times > 0; times--)
            for (size_t i = 0; i < n && t->len < 50000; i++)
                g_ptr_array_insert(t, (gint)MIN(other + i, t->len), g_strdup(t->pdata[at + i]));
        break;
    default: { /* a part of another template */
        g_autoptr(GPtrArray) from = g_ptr_array_new_with_free_func(g_free);
        tokens_of(sources->pdata[below(sources->len)], from);
        n = below(from->len + 1);
        for (size_t i = 0; i < 12 && n + i < from->len; i++)
            g_ptr_array_insert(t, (gint)MIN(at + i, t->len), g_strdup(from->pdata[n + i]));
    }
    }
}

static void make_mutant(GString *s)
{
    g_autoptr(GPtrArray) t = g_ptr_array_new_with_free_func(g_free);

    tokens_of(sources->pdata[below(sources->len)], t);
    for (size_t n = below(8); n > 0; n--)
        mutate(t);
    g_string_truncate(s, 0);
    for (guint i = 0; i < t->len; i++)
        g_string_append(s, t->pdata[i]);
    if (s->len && below(10) == 0)
        s->str[below(s->len)] ^= (char)(1 << below(8));
}

/* ---- what must hold ---------------------------------------------------- */
static void check_error(const GString *s, const GError *e, const MiRendered *out)
{
    const char *line = "chat template, line ";
    unsigned    n_lines = 1;

    if (!e || out->text || out->spans)
        finding(s, "an error without a message, or with output");
    if (e->domain != MI_ERROR || e->code != MI_ERROR_MODEL || !g_utf8_validate(e->message, -1, NULL) ||
        strchr(e->message, '\n') || strlen(e->message) > 2000)
        finding(s, "an error that is not one short line of text");
    for (size_t i = 0; i < s->len; i++)
        n_lines += s->str[i] == '\n' || s->str[i] == '\r';
    if (!g_str_has_prefix(e->message, line) || strtoul(e->message + strlen(line), NULL, 10) < 1 ||
        strtoul(e->message + strlen(line), NULL, 10) > n_lines)
        finding(s, "an error that names no line of the template");
}

static void check_output(const GString *s, const MiRendered *out)
{
    const bool may_hold_dye = memchr(s->str, DYE, s->len) || strstr(s->str, "\\u") || strstr(s->str, "\\U");
    size_t     end = 0;

    if (out->text->len > MI_TEMPLATE_MAX_OUTPUT || !g_utf8_validate_len(out->text->str, out->text->len, NULL))
        finding(s, "output that is too long or not UTF-8");
    for (guint i = 0; i < out->spans->len; i++) {
        const MiSpan *span = &g_array_index(out->spans, MiSpan, i);
        if (span->start != end || !span->len || (i && span->trusted == span[-1].trusted))
            finding(s, "spans with a gap or without a change");
        end += span->len;
        if (span->trusted && !may_hold_dye && memchr(out->text->str + span->start, DYE, span->len))
            finding(s, "text of the variables is trusted");
    }
    if (end != out->text->len)
        finding(s, "spans that do not cover the output");
}

/* Of this program alone, in microseconds: the machine has other work. */
static gint64 cpu_time(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (gint64)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static bool one(const GString *s, const MiVar *vars, bool timed)
{
    g_autoptr(GError) error = NULL;
    const gint64 began = cpu_time();
    MiTemplate  *t = mi_template_parse(s->str, s->len, &error);
    MiRendered   out = {0};
    const bool   ok = t && mi_template_render(t, vars, NULL, 1700000000, &out, &error);
    const gint64 took = cpu_time() - began;

    mi_template_free(t);
    if (ok)
        check_output(s, &out);
    else
        check_error(s, error, &out);
    if (took > 1000000)
        finding(s, "more than a second");
    slowest = MAX(slowest, took);
    if (timed)
        printf("# %7.2f ms %.110s...  %s\n", (double)took / 1e3, s->str, ok ? "rendered" : error->message);
    mi_rendered_clear(&out);
    return ok;
}

static int hostile(void)
{
    enum { LONG = 100000 };
    static const char *const keys[] = {"s", "u"};
    GString                 *s = g_string_new(NULL), *u = g_string_new(NULL);
    struct rusage            usage;
    size_t                   rendered = 0;

    for (int i = 0; i < LONG; i++) {
        g_string_append_c(s, 'a');
        g_string_append(u, "\xc3\xa9");
    }
    const MiVar items[] = {{.type = MI_VAR_TEXT, .text = s->str, .n = s->len},
                           {.type = MI_VAR_TEXT, .text = u->str, .n = u->len}};
    const MiVar vars = {.type = MI_VAR_MAP, .items = items, .keys = keys, .n = 2};

    for (size_t i = 0; i < G_N_ELEMENTS(hostile_templates); i++) {
        g_autoptr(GString) source = hostile_source(&hostile_templates[i]);
        rendered += one(source, &vars, true);
    }
    getrusage(RUSAGE_SELF, &usage);
    printf("1..1\n%s 1 - %zu hostile templates refused, the slowest in %.1f ms, peak %.1f MiB\n",
           rendered ? "not ok" : "ok", G_N_ELEMENTS(hostile_templates), (double)slowest / 1e3,
           (double)usage.ru_maxrss / 1024);
    g_string_free(s, TRUE);
    g_string_free(u, TRUE);
    return rendered > 0;
}

/* ---- the program ------------------------------------------------------- */
static json_t *read_seeds(void)
{
    static const char *const chats[] = {"llama3", "qwen2", "qwen3", "smollm2"};
    g_autofree char         *folder =
        g_build_filename(g_getenv("MI_SRCDIR") ? g_getenv("MI_SRCDIR") : ".", "tests", "data", NULL);
    json_t *cases = json_file(folder, "template_cases.json"), *c;
    size_t  i;

    json_array_foreach(json_object_get(cases, "cases"), i, c)
        g_ptr_array_add(sources, g_strdup(json_string_value(json_object_get(c, "template"))));
    for (i = 0; i < G_N_ELEMENTS(chats) && g_getenv("MI_DATA"); i++) {
        g_autofree char *reference = g_build_filename(g_getenv("MI_DATA"), "reference", NULL);
        g_autofree char *file = g_strdup_printf("chat_%s.json", chats[i]);
        json_t          *chat = json_file(reference, file);
        for (int often = 0; chat && often < 20; often++)
            g_ptr_array_add(sources, g_strdup(json_string_value(json_object_get(chat, "template"))));
        json_decref(chat);
    }
    for (i = 0; i < sources->len; i++)
        tokens_of(sources->pdata[i], pool);
    return cases;
}

static gint64 fuzz(const FuzzPlan *plan, const MiVar *vars, gint64 *accepted)
{
    GString *s = g_string_new(NULL);
    gint64   n = 0;

    for (; fuzz_goes_on(plan, n); n++) {
        make_mutant(s);
        *accepted += one(s, vars, false);
    }
    g_string_free(s, TRUE);
    return n;
}

int main(int argc, char **argv)
{
    gboolean           hostiles = FALSE;
    const GOptionEntry more[] = { { "hostile", 0, 0, G_OPTION_ARG_NONE, &hostiles, "the templates that are meant to do harm", NULL },
                                  { 0 } };
    const FuzzPlan     plan = fuzz_plan(argc, argv, 2000, more);
    GPtrArray         *arrays = g_ptr_array_new_with_free_func(g_free);
    json_t            *cases, *dyed;
    gint64             n, accepted = 0;
    MiVar              vars;

    if (hostiles)
        return hostile();
    sources = g_ptr_array_new_with_free_func(g_free);
    pool = g_ptr_array_new_with_free_func(g_free);
    if (!(cases = read_seeds())) {
        puts("Bail out! tests/data/template_cases.json cannot be read (set MI_SRCDIR)");
        return 1;
    }
    dyed = json_dyed(json_object_get(cases, "vars"));
    vars = json_var(dyed, arrays);
    n = fuzz(&plan, &vars, &accepted);
    printf("1..1\n%s 1 - %" G_GINT64_FORMAT " mutants, %" G_GINT64_FORMAT " rendered, the slowest in %.1f ms, seed %"
           G_GINT64_FORMAT "\n", accepted > 0 && accepted < n ? "ok" : "not ok", n, accepted, (double)slowest / 1e3,
           plan.seed);
    json_decref(dyed);
    json_decref(cases);
    g_ptr_array_free(arrays, TRUE);
    g_ptr_array_free(sources, TRUE);
    g_ptr_array_free(pool, TRUE);
    return 0;
}
