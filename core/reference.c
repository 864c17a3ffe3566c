/* reference.c - the configuration reference and the sample file, from the option tables. */
#include "inspect.h"
#include "options.h"
#include "settings.h"

#include <string.h>

static const char about[] =
    "# Configuration reference\n"
    "\n"
    "Written by `miniinfer inspect --reference` from the option tables of the program and its plugins; a test\n"
    "fails when it is stale.  Do not edit it by hand.\n"
    "\n"
    "A configuration is an INI file. Every key can also be given on the command line as `--section.key value`,\n"
    "which replaces what the file says; what neither says has the default below.\n"
    "\n"
    "* A section is `[name]`, alone on its line; the same section may come again, a key may not.\n"
    "* A key is `key = value`. The value ends at the line's end or at a blank and `;`, which begin a comment.\n"
    "  Lines that begin with `;` or `#` are comments. Quotes are part of a value.\n"
    "* A line has at most 198 bytes of UTF-8 and is not continued on the next; longer values go on the command line.\n"
    "* Nothing in a value is expanded: no `${VAR}`, no `~`.\n"
    "* An unknown section or key, a value of the wrong type or out of range, a key given twice: the program says\n"
    "  in which line and ends with status 78.\n"
    "* Plugins are searched in the directories of `--plugin-path`, then `$MINIINFER_PLUGIN_PATH`, then\n"
    "  `[plugins] path`, then where they were installed.\n";

static void cell(GString *out, const char *text)
{
    for (; *text; text++) {
        if (*text == '|')
            g_string_append_c(out, '\\');
        g_string_append_c(out, *text);
    }
}

static void rows(GString *out, const MiOption *table)
{
    for (const MiOption *o = table; o && o->key; o++) {
        g_autofree char *range = mi_option_range(o);
        g_string_append_printf(out, "| `%s` | %s%s%s | ", o->key,
                               *range && o->choices ? "" : mi_option_type_name(o->type), *range && !o->choices ? ", " : "", range);
        if (!o->def)
            g_string_append(out, "must be given");
        else if (*o->def)
            g_string_append_printf(out, "`%s`", o->def);
        g_string_append(out, " | ");
        cell(out, o->help);
        g_string_append(out, " |\n");
    }
}

static void heading(GString *out, const char *section, const char *said)
{
    g_string_append_printf(out, "\n## [%s]\n%s\n| key | value | default | what it is |\n|---|---|---|---|\n", section,
                           said);
}

static void sampler_rows(MiRegistry *r, GString *out)
{
    g_autoptr(GPtrArray)  list = mi_registry_list(r, MI_KIND_SAMPLER, NULL);
    g_autoptr(GHashTable) done = g_hash_table_new(g_str_hash, g_str_equal); /* one name, several backends */

    for (guint i = 0; i < list->len; i++) {
        const MiFeature *f = list->pdata[i];
        const MiSampler *s = f->vtable;
        if (s->params && s->params->key && g_hash_table_add(done, (void *)f->name))
            rows(out, s->params);
    }
}

static void feature_section(MiRegistry *r, const MiFeature *f, GString *out)
{
    const MiLoaded  *by = mi_registry_provider(r, f);
    g_autofree char *section = g_strdup_printf("%s.%s", mi_kind_name(f->kind), f->name);
    g_autofree char *base = by ? g_path_get_basename(by->file) : g_strdup("");
    g_autofree char *on = strcmp(f->backend, "*") ? g_strdup_printf(" for backend `%s`", f->backend) : g_strdup("");
    g_autofree char *said = g_strdup_printf("Of %s `%s`%s (`%s`).\n", mi_kind_name(f->kind), f->name, on, base);

    heading(out, section, said);
    rows(out, f->options);
}

void mi_inspect_reference(MiRegistry *r, GString *out)
{
    g_string_append(out, about);
    for (const char *const *s = mi_settings_sections(); *s; s++) {
        const bool sampler = strcmp(*s, "sampler") == 0;
        heading(out, *s,
                sampler ? "What a request does not say itself; each sampler of the chain reads its keys.\n" : "");
        rows(out, mi_settings_table(*s));
        if (sampler)
            sampler_rows(r, out);
    }
    for (int kind = 0; kind < MI_N_KINDS; kind++) {
        g_autoptr(GPtrArray) list = mi_registry_list(r, (MiKind)kind, NULL);
        for (guint i = 0; i < list->len; i++) {
            const MiFeature *f = list->pdata[i];
            if (f->options && f->options->key)
                feature_section(r, f, out);
        }
    }
}

/* Comment lines of at most 100 columns. */
static void wrap(GString *out, const char *text)
{
    g_auto(GStrv) words = g_strsplit(text, " ", 0);
    size_t        column = 0;

    for (char **w = words; *w; w++) {
        if (column && column + 1 + strlen(*w) > 100) {
            g_string_append_c(out, '\n');
            column = 0;
        }
        const char *before = column ? " " : "; ";
        g_string_append_printf(out, "%s%s", before, *w);
        column += strlen(before) + strlen(*w);
    }
    g_string_append_c(out, '\n');
}

void mi_inspect_sample(GString *out)
{
    g_string_append(out, "; Every key of the core with its default; take the ';' off to change one.\n"
                         "; Written by `miniinfer inspect --sample`; docs/configuration.md has the plugins' keys.\n");
    for (const char *const *s = mi_settings_sections(); *s; s++) {
        g_string_append_printf(out, "\n[%s]\n", *s);
        for (const MiOption *o = mi_settings_table(*s); o->key; o++) {
            g_autofree char *range = mi_option_range(o);
            g_autofree char *help = g_strdup_printf("%s%s%s%s", o->help, *range ? " (" : "", range, *range ? ")" : "");
            wrap(out, help);
            g_string_append_printf(out, ";%s =%s%s\n", o->key, o->def && *o->def ? " " : "", o->def ? o->def : "");
        }
    }
}
