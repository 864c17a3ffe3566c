#include "command_line.h"
#include "suggest.h"

#include <miniinfer/context.h>
#include <string.h>

/* The command as one types it: "miniinfer run", or "miniinfer" alone. */
static char *typed(const MiCommand *c) { return g_strconcat("miniinfer", *c->name ? " " : "", c->name, NULL); }

static bool refuse(GString *message, GError **error)
{
    g_set_error_literal(error, MI_ERROR, MI_ERROR_CONFIG, message->str);
    g_string_free(message, TRUE);
    return false;
}

static bool unknown_command(const char *word, GError **error)
{
    g_autoptr(GPtrArray) names = g_ptr_array_new();
    GString             *message = g_string_new(NULL);

    for (const MiCommand *c = mi_commands + 1; c->name; c++)
        g_ptr_array_add(names, (char *)c->name);
    g_string_printf(message, "there is no command '%s'", word);
    mi_suggest_append(message, word, names);
    g_string_append(message, "; `miniinfer --help` lists them");
    return refuse(message, error);
}

static bool unknown_flag(const MiCommand *c, const char *dashes, const char *word, GError **error)
{
    const MiFlag        *tables[] = { c->flags, mi_common_flags };
    g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
    g_autofree char     *command = typed(c), *option = g_strconcat(dashes, word, NULL);
    GString             *message = g_string_new(NULL);

    for (int i = 0; i < 2; i++)
        for (const MiFlag *f = tables[i]; f->name; f++)
            g_ptr_array_add(names, g_strconcat("--", f->name, NULL));
    g_string_printf(message, "%s has no option '%s'", command, option);
    mi_suggest_append(message, option, names);
    g_string_append_printf(message, "; `%s --help` lists them", command);
    return refuse(message, error);
}

static void setting(MiCommandLine *cl, const char *key, const char *value)
{
    g_ptr_array_add(cl->settings, g_strdup(key));
    g_ptr_array_add(cl->settings, g_strdup(value));
}

static void set(MiCommandLine *cl, const MiFlag *f, const char *value)
{
    if (f->key)
        setting(cl, f->key, f->arg ? value : "true");
    else
        g_hash_table_replace(cl->flags, (char *)f->name, g_strdup(value));
}

static bool missing(const char *word, const char *arg, GError **error)
{
    g_set_error(error, MI_ERROR, MI_ERROR_CONFIG, "%s wants a value: %s", word, arg);
    return false;
}

/* "--name", "--name=value", "--section.key value"; takes *next where the value is the next word. */
static bool long_option(MiCommandLine *cl, const char *word, char **next, int *used, GError **error)
{
    const char      *equals = strchr(word, '=');
    g_autofree char *name = g_strndup(word + 2, equals ? (gsize)(equals - word - 2) : strlen(word + 2));
    const MiFlag    *f = mi_flag_find(cl->command, name, 0);
    const bool       dotted = strchr(name, '.');

    if (!f && !dotted)
        return unknown_flag(cl->command, "--", name, error);
    if (f && !f->arg) {
        if (equals) {
            g_set_error(error, MI_ERROR, MI_ERROR_CONFIG, "--%s takes no value", name);
            return false;
        }
        set(cl, f, "");
        return true;
    }
    if (!equals && !*next)
        return missing(word, f ? f->arg : "--section.key VALUE", error);
    *used = !equals;
    if (f)
        set(cl, f, equals ? equals + 1 : *next);
    else
        setting(cl, name, equals ? equals + 1 : *next);
    return true;
}

/* "-n 64", "-n64", "-v". */
static bool short_option(MiCommandLine *cl, const char *word, char **next, int *used, GError **error)
{
    const MiFlag *f = mi_flag_find(cl->command, NULL, word[1]);

    if (!f) {
        const char letter[] = { word[1], 0 };
        return unknown_flag(cl->command, "-", letter, error);
    }
    if (!f->arg) {
        char rest[] = { '-', word[2], 0 };
        set(cl, f, "");
        return !word[2] || short_option(cl, rest, next, used, error);
    }
    if (!word[2] && !*next)
        return missing(word, f->arg, error);
    *used = !word[2];
    set(cl, f, word[2] ? word + 2 : *next);
    return true;
}

static bool operands_fit(const MiCommandLine *cl, GError **error)
{
    const MiCommand *c = cl->command;
    const int        n = (int)cl->operands->len;

    if (mi_flag(cl, "help") || (n >= c->min_operands && n <= c->max_operands))
        return true;
    if (n > c->max_operands)
        g_set_error(error, MI_ERROR, MI_ERROR_CONFIG, "miniinfer %s: '%s' is one word too many; `miniinfer help %s`",
                    c->name, (char *)cl->operands->pdata[c->max_operands], c->name);
    else
        g_set_error(error, MI_ERROR, MI_ERROR_CONFIG, "usage: miniinfer %s %s", c->name, c->operands);
    return false;
}

/* The first word that is neither an option nor an option's value names the command; options may stand before it. */
static const MiCommand *command_of(char **argv, GError **error)
{
    for (char **w = argv + 1; *w; w++) {
        if (**w != '-' || !(*w)[1]) {
            const MiCommand *c = **w ? mi_command_find(*w) : NULL;
            return c ? c : (unknown_command(*w, error), NULL);
        }
        const char   *name = (*w)[1] == '-' ? *w + 2 : NULL;
        const MiFlag *f = mi_flag_find(&mi_commands[0], name, (*w)[1]);
        const bool    dotted = name && strchr(name, '.');
        if (w[1] && !strchr(*w, '=') && (dotted || (f && f->arg && (name || !(*w)[2]))))
            w++;
    }
    return &mi_commands[0];
}

bool mi_command_line_parse(MiCommandLine *cl, int argc, char **argv, GError **error)
{
    bool named = false, plain = false; /* plain: after "--" */

    (void)argc;
    *cl = (MiCommandLine){ command_of(argv, error), g_hash_table_new_full(g_str_hash, g_str_equal, NULL, g_free),
                           g_ptr_array_new_with_free_func(g_free), g_ptr_array_new_with_free_func(g_free) };
    if (!cl->command)
        return false;
    for (char **w = argv + 1; *w; w++) {
        int used = 0;
        if (plain || **w != '-' || !(*w)[1]) {
            if (named)
                g_ptr_array_add(cl->operands, g_strdup(*w));
            named = true;
        } else if (strcmp(*w, "--") == 0)
            plain = true;
        else if ((*w)[1] == '-' ? !long_option(cl, *w, w + 1, &used, error) : !short_option(cl, *w, w + 1, &used, error))
            return false;
        w += used;
    }
    return operands_fit(cl, error);
}

void mi_command_line_clear(MiCommandLine *cl)
{
    g_hash_table_unref(cl->flags);
    g_ptr_array_unref(cl->settings);
    g_ptr_array_unref(cl->operands);
}

const char *mi_flag(const MiCommandLine *cl, const char *name) { return g_hash_table_lookup(cl->flags, name); }

bool mi_flag_int(const MiCommandLine *cl, const char *name, int min, int max, int def, int *out, GError **error)
{
    const char *text = mi_flag(cl, name);
    gint64      n = def;

    if (text && !g_ascii_string_to_signed(text, 10, min, max, &n, NULL)) {
        g_set_error(error, MI_ERROR, MI_ERROR_CONFIG, "--%s is '%s'; %d to %d are possible", name, text, min, max);
        return false;
    }
    *out = (int)n;
    return true;
}
