#include "inspect.h"
#include "assembly.h"
#include "options.h"
#include "report.h"
#include "suggest.h"

#include <string.h>

/* ---- every feature, or those of a kind ----------------------------------------------- */

static void feature_line(MiReport *r, MiRegistry *reg, const MiFeature *f)
{
    const MiLoaded  *by = mi_registry_provider(reg, f);
    g_autofree char *base = by ? g_path_get_basename(by->file) : g_strdup("-");

    if (r->text) {
        g_string_append_printf(r->text, "%-9s %-20s %-5s %-28s %s\n", mi_kind_name(f->kind), f->name, f->backend, base,
                               by ? by->plugin->version : "-");
        return;
    }
    mi_json_open(&r->json, NULL, '{');
    mi_json_string(&r->json, "kind", mi_kind_name(f->kind));
    mi_json_string(&r->json, "name", f->name);
    mi_json_string(&r->json, "backend", f->backend);
    mi_json_string(&r->json, "file", by ? by->file : NULL);
    mi_json_string(&r->json, "version", by ? by->plugin->version : NULL);
    mi_json_string(&r->json, "description", by ? by->plugin->description : NULL);
    mi_json_close(&r->json, '}');
}

static void list_files(MiReport *r, MiRegistry *reg)
{
    static const char *const states[] = { "loaded", "skipped", "shadowed", "disabled" };
    GPtrArray               *files = mi_registry_files(reg);

    if (!r->text)
        mi_json_open(&r->json, "files", '[');
    for (guint i = 0; i < files->len; i++) {
        const MiLoaded *l = files->pdata[i];
        if (r->text) {
            if (l->state != MI_FILE_LOADED)
                g_string_append_printf(r->text, "%-9s %s\n", states[l->state], l->why);
            continue;
        }
        mi_json_open(&r->json, NULL, '{');
        mi_json_string(&r->json, "file", l->file);
        mi_json_string(&r->json, "state", states[l->state]);
        mi_json_string(&r->json, "why", l->why);
        mi_json_close(&r->json, '}');
    }
    if (!r->text)
        mi_json_close(&r->json, ']');
}

/* kind MI_N_KINDS: all of them, and the files that gave nothing. */
static void list_features(MiReport *r, MiRegistry *reg, MiKind kind)
{
    if (!r->text)
        mi_json_open(&r->json, "features", '[');
    for (int k = 0; k < MI_N_KINDS; k++) {
        g_autoptr(GPtrArray) list = mi_registry_list(reg, (MiKind)k, NULL);
        for (guint i = 0; i < list->len && (kind == MI_N_KINDS || kind == (MiKind)k); i++)
            feature_line(r, reg, list->pdata[i]);
    }
    if (!r->text)
        mi_json_close(&r->json, ']');
    if (kind == MI_N_KINDS)
        list_files(r, reg);
}

/* ---- one feature ---------------------------------------------------------------------- */

static bool no_such(GError **error, const char *what, const char *given, const GPtrArray *names)
{
    g_autofree char   *shown = mi_printable(given, 60);
    g_autoptr(GString) m = g_string_new(NULL);

    g_string_printf(m, "no %s '%s'; there are:", what, shown);
    for (guint i = 0; i < names->len; i++) /* sorted: a name for two backends stands twice in a row */
        if (i == 0 || strcmp(names->pdata[i], names->pdata[i - 1]) != 0)
            g_string_append_printf(m, " %s", (const char *)names->pdata[i]);
    if (names->len == 0)
        g_string_append(m, " none");
    mi_suggest_append(m, given, names);
    g_set_error_literal(error, MI_ERROR, MI_ERROR_NOT_FOUND, m->str);
    return false;
}

/* name: "full" or "full@cpu". */
static bool one_feature(MiReport *r, MiRegistry *reg, MiKind kind, const char *name, GError **error)
{
    g_autoptr(GPtrArray) list = mi_registry_list(reg, kind, NULL), names = g_ptr_array_new();
    const char          *at = strchr(name, '@');
    g_autofree char     *bare = g_strndup(name, at ? (size_t)(at - name) : strlen(name));
    int                  found = 0;

    if (!r->text)
        mi_json_open(&r->json, "features", '[');
    for (guint i = 0; i < list->len; i++) {
        const MiFeature *f = list->pdata[i];
        g_ptr_array_add(names, (void *)f->name);
        if (strcmp(f->name, bare) != 0 || (at && strcmp(f->backend, at + 1) != 0))
            continue;
        if (r->text && found)
            g_string_append_c(r->text, '\n');
        if (!r->text)
            mi_json_open(&r->json, NULL, '{');
        mi_report_feature(r, reg, f);
        if (!r->text)
            mi_json_close(&r->json, '}');
        found++;
    }
    if (!r->text)
        mi_json_close(&r->json, ']');
    return found > 0 || no_such(error, mi_kind_name(kind), name, names);
}

/* ---- a plugin file ---------------------------------------------------------------------- */

static bool plugin_file(MiReport *r, const char *file, GError **error)
{
    if (!g_file_test(file, G_FILE_TEST_EXISTS)) {
        g_set_error(error, MI_ERROR, MI_ERROR_NOT_FOUND, "%s: No such file or directory", file);
        return false;
    }
    const MiPlugin *p = mi_plugin_open(file, error);
    if (!p)
        return false;
    if (r->text) {
        g_string_append_printf(r->text, "%s: %s %s, ABI %u.%u, ok\n", file, p->name, p->version, p->abi_major,
                               p->abi_minor);
    } else {
        g_autofree char *abi = g_strdup_printf("%u.%u", p->abi_major, p->abi_minor);
        mi_json_string(&r->json, "file", file);
        mi_json_string(&r->json, "plugin", p->name);
        mi_json_string(&r->json, "version", p->version);
        mi_json_string(&r->json, "abi", abi);
    }
    mi_report_text(r, "description", p->description);
    mi_report_text(r, "licence", p->licence);
    g_autoptr(GPtrArray) keys = g_ptr_array_new_with_free_func(g_free);
    for (uint32_t i = 0; i < p->n_features; i++)
        g_ptr_array_add(keys, g_strdup_printf("%s:%s@%s", mi_kind_name(p->features[i].kind), p->features[i].name,
                                              p->features[i].backend));
    g_ptr_array_add(keys, NULL);
    mi_report_list(r, "features", (const char *const *)keys->pdata);
    return true;
}

static bool model_file(MiReport *r, MiRegistry *reg, const MiConfig *c, const char *path, GError **error)
{
    MiSource source;

    if (!mi_model_open(reg, c, path, &source, error))
        return false;
    bool ok = mi_report_model(r, reg, &source, path, error);
    mi_model_close(&source);
    return ok;
}

/* ---- which of them ------------------------------------------------------------------------ */

static bool inspect(MiReport *r, MiRegistry *reg, const MiConfig *c, const char *what, GError **error)
{
    g_autofree char *kind_name = what ? g_strndup(what, strcspn(what, ":")) : NULL;
    const MiKind     kind = what ? mi_kind_of(kind_name) : MI_N_KINDS;

    if (!what || (kind != MI_N_KINDS && !strchr(what, ':'))) {
        list_features(r, reg, kind);
        return true;
    }
    if (kind != MI_N_KINDS)
        return one_feature(r, reg, kind, strchr(what, ':') + 1, error);
    if (g_str_has_suffix(what, ".so"))
        return plugin_file(r, what, error);
    if (strchr(what, '/') || g_file_test(what, G_FILE_TEST_EXISTS))
        return model_file(r, reg, c, what, error);
    g_autoptr(GPtrArray) kinds = g_ptr_array_new();
    for (int k = 0; k < MI_N_KINDS; k++)
        g_ptr_array_add(kinds, (void *)mi_kind_name((MiKind)k));
    return no_such(error, "file and no kind of feature", kind_name, kinds);
}

bool mi_inspect(MiRegistry *reg, const MiConfig *c, const char *what, bool json, GString *out, GError **error)
{
    g_autoptr(GString) text = g_string_new(NULL);
    MiReport           r = { .text = json ? NULL : text, .json = { text, false }, .key = "" };

    if (json)
        mi_json_open(&r.json, NULL, '{');
    if (!inspect(&r, reg, c, what, error))
        return false;
    if (json) {
        mi_json_close(&r.json, '}');
        g_string_append_c(text, '\n');
    }
    g_string_append_len(out, text->str, (gssize)text->len);
    return true;
}
