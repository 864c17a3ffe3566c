/* fuzz_ini.c - mutants of configurations.
 *
 *   tests/fuzz_ini [--count N] [--seconds S] [--seed N]
 *
 * Each mutant is read, and what is accepted is compared with a second reading
 * by split and search; then every setting is filled and checked.  An error must
 * be one printable line that names the file and a line of it.  Without options
 * 20,000 mutants, as a test.  A finding is printed and ends the program. */
#include "fuzz.h"
#include "settings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct { float heat; int32_t count; uint64_t seed; bool on; const char *mode; } Options;
static const MiOption options[] = {
    MI_OPTION(Options, heat, "1", -2, 2, "a number"), MI_OPTION(Options, count, "1", 1, 9, "an integer"),
    MI_OPTION(Options, seed, "0", 0, 0, "a large one"), MI_OPTION(Options, on, "true", 0, 0, "yes or no"),
    MI_CHOICE(Options, mode, "fast", "fast, slow", "one of two"), MI_OPTION_END,
};
typedef struct { MiBiases logit_bias; float top_p; } Row;
static const MiOption params[] = {
    MI_OPTION(Row, logit_bias, "", 0, 0, "biases"), MI_OPTION(Row, top_p, "1", 0, 1, "a share"), MI_OPTION_END,
};
static bool run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    (void)state, (void)ctx, (void)call, (void)error;
    return true;
}
static const MiOp      op = { .struct_size = sizeof op, .run = run };
static const MiSampler sampler = {
    .struct_size = sizeof sampler, .params = params, .row_size = sizeof(Row), .op = &op,
};
MI_PLUGIN("fuzz", "1", "Names for fuzz_ini", MI_FEATURE_OP("acme.op", "cpu", &op, options),
          MI_FEATURE_SAMPLER("top_p", "cpu", &sampler, NULL));

static const char *const seeds[] = {
    "; a comment\n[model]\npath = /models/a b.gguf ; where\n\n[engine]\ndtype = fp32\nmax_seqs = 4\n"
    "[sampler]\ntop_p = 0.9\nlogit_bias = 151: -100, 42: 2.5\nchain = top_p, top_p\n",
    "\xef\xbb\xbf[op.acme.op]\r\nheat = -1.5e0\r\n  count : 3\r\n\tseed = 18446744073709551615\r\non = false\r\n"
    "mode = slow\r\n[plugins] ; none\r\ndisable =\r\n",
    "[generate]\nstop = \\n\\n\nsystem = \"be brief\" # quoted\n[generate]\nmax_tokens = 16\n# end",
};
static const char *const words[] = {
    "[", "]", "=", ":", ";", " ;", "#", "\n", "\r\n", "\r", " ", "\t", "\"", ".", ",", "-", "[engine]\n",
    "[op.acme.op]\n", "[sampler]\n", "max_seqs", "dtype = auto\n", "nan", "inf", "0x10", "1e400", "-1", "2147483648",
    "18446744073709551616", "true", "\xef\xbb\xbf", "\xc3\xa9", "\xff", "\xc3", "\x01", "k = 1\n", "logit_bias = 1:1,2:2,\n", "${HOME}", "\\",
};

static void mutate(GString *s)
{
    const size_t at = below(s->len + 1), n = below(MIN(24, s->len - at) + 1);

    switch (below(8)) {
    case 0: /* a bit */
        if (at < s->len)
            s->str[at] ^= (char)(1 << below(8));
        break;
    case 1: /* a byte, NUL too */
        g_string_insert_c(s, (gssize)at, (gchar)below(256));
        break;
    case 2:
        g_string_erase(s, (gssize)at, (gssize)n);
        break;
    case 3: { /* a piece again, elsewhere */
        g_autofree char *piece = g_memdup2(s->str + at, n + 1);
        g_string_insert_len(s, (gssize)below(s->len + 1), piece, (gssize)n);
        break;
    }
    case 4: /* around the longest line and the longest name */
        for (size_t k = (below(2) ? 190 : 44) + below(12); k > 0; k--)
            g_string_insert_c(s, (gssize)at, 'x');
        break;
    case 5: /* the end goes */
        if (below(8) == 0)
            g_string_truncate(s, at);
        break;
    default:
        g_string_insert(s, (gssize)at, words[below(G_N_ELEMENTS(words))]);
    }
}

static void finding(const GString *s, const char *what)
{
    g_autofree char *shown = g_strescape(s->str, NULL);
    fprintf(stderr, "fuzz_ini: %s\nmutant (%zu bytes): \"%s\"\n", what, s->len, shown);
    exit(1);
}

static bool blank(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

/* The same text by split and search; every pair must be what the configuration says. */
static void compare(const GString *s, const MiConfig *c)
{
    g_auto(GStrv)    lines = g_strsplit(s->str + (g_str_has_prefix(s->str, "\xef\xbb\xbf") ? 3 : 0), "\n", 0);
    g_autofree char *section = g_strdup("");

    for (char **l = lines; *l; l++) {
        char *line = g_strstrip(*l);
        if (!*line || *line == ';' || *line == '#')
            continue;
        if (*line == '[') {
            g_free(section);
            section = g_strndup(line + 1, strcspn(line + 1, "]"));
            continue;
        }
        char *value = line + strcspn(line, "=:");
        if (!*value)
            finding(s, "a line without a value was accepted");
        *value++ = 0;
        for (char *p = value; *p; p++)
            if (*p == ';' && p > value && blank(p[-1]))
                *p = 0, p--;
        const char *got = mi_config_get(c, section, g_strstrip(line));
        if (!got || strcmp(got, g_strstrip(value)) != 0)
            finding(s, "a value differs from what the line says");
    }
}

static void check_error(const GString *s, const GError *e, unsigned n_lines)
{
    if (e->domain != MI_ERROR || e->code != MI_ERROR_CONFIG || !g_utf8_validate(e->message, -1, NULL) ||
        strchr(e->message, '\n') || strlen(e->message) > 1000)
        finding(s, "an error that is not one short line of text");
    if (!g_str_has_prefix(e->message, "fuzz.ini:"))
        finding(s, "an error that names no file");
    const unsigned long line = strtoul(e->message + 9, NULL, 10);
    if (line < 1 || line > n_lines)
        finding(s, "an error that names no line of the file");
}

static bool one(MiRegistry *r, const GString *s)
{
    g_autoptr(GError) error = NULL, ignored = NULL;
    MiConfig         *c = mi_config_new();
    MiSettings        settings;
    unsigned          n_lines = 1;
    const gint64      began = g_get_monotonic_time();
    bool              ok = mi_config_parse(c, "fuzz.ini", s->str, s->len, &error);

    for (size_t i = 0; i < s->len; i++)
        n_lines += s->str[i] == '\n';
    if (ok) {
        compare(s, c);
        ok = mi_config_check(c, r, &error);
        if (ok && !mi_settings_read(c, &settings, &ignored))
            finding(s, "settings that were checked and cannot be read");
    }
    if (!ok)
        check_error(s, error, n_lines);
    if (g_get_monotonic_time() - began > 1000000)
        finding(s, "more than a second");
    mi_config_free(c);
    return ok;
}

int main(int argc, char **argv)
{
    const FuzzPlan plan = fuzz_plan(argc, argv, 20000, NULL);
    MiRegistry    *r = mi_registry_new();
    GString       *s = g_string_new(NULL);
    gint64         n = 0, accepted = 0;

    if (!mi_registry_add(r, mi_plugin_query(), "fuzz", NULL))
        return 1;
    for (; fuzz_goes_on(&plan, n); n++) {
        g_string_assign(s, seeds[below(G_N_ELEMENTS(seeds))]);
        for (size_t k = below(6); k > 0; k--)
            mutate(s);
        accepted += one(r, s);
    }
    printf("1..1\n%s 1 - %" G_GINT64_FORMAT " mutants, %" G_GINT64_FORMAT " accepted, seed %" G_GINT64_FORMAT "\n",
           accepted > 0 && accepted < n ? "ok" : "not ok", n, accepted, plan.seed);
    g_string_free(s, TRUE);
    mi_registry_free(r);
    return 0;
}
