#include "hf_config.h"
#include "files.h"
#include "names.h"
#include <string.h>

static bool fail(const char *path, GError **error, const char *form, ...) G_GNUC_PRINTF(3, 4);
static bool fail(const char *path, GError **error, const char *form, ...)
{
    va_list args;
    va_start(args, form);
    g_autofree char *text = g_strdup_vprintf(form, args);
    va_end(args);
    g_set_error(error, MI_ERROR, MI_ERROR_MODEL, "%s: %s", path, text);
    return false;
}

static bool no_memory(const char *path, GError **error)
{
    g_set_error(error, MI_ERROR, MI_ERROR_NO_MEMORY, "%s: no memory for its values", path);
    return false;
}

/* A value that jansson finds no memory for it leaves out without a word: end the program as GLib does.  Texts
 * are as large as the files that hold them, which are bounded. */
__attribute__((constructor)) static void set_allocator(void) { json_set_alloc_funcs(g_malloc, g_free); }

json_t *mi_json_file(const char *directory, const char *name, size_t max, GError **error)
{
    g_autofree char *path = mi_model_file(directory, name, error);
    MiMapped         map = { NULL, 0 };
    json_error_t     bad;
    json_t          *root = NULL;

    if (!path || !mi_map(path, &map, error))
        return NULL;
    if (map.size > max) {
        fail(path, error, "%zu bytes; at most %zu are read", map.size, max);
    } else {
        root = json_loadb((const char *)map.data, map.size, JSON_REJECT_DUPLICATES, &bad);
        if (!root) {
            char shown[64];
            fail(path, error, "line %d: %s", bad.line, mi_shown(bad.text, strlen(bad.text), shown));
        } else if (json_typeof(root) != JSON_OBJECT) {
            fail(path, error, "this is no JSON object");
            json_decref(root);
            root = NULL;
        }
    }
    mi_unmap(&map);
    return root;
}

typedef struct {
    MiMeta     *meta;
    const char *path;
    int         depth;
    GError    **error;
} Walk;

static bool walk(Walk *w, const char *key, const json_t *value);

static bool walk_inner(Walk *w, const char *key, const json_t *value)
{
    const char   *name;
    const json_t *child;

    if (json_typeof(value) == JSON_OBJECT) {
        for (void *i = json_object_iter((json_t *)(uintptr_t)value); i;
             i = json_object_iter_next((json_t *)(uintptr_t)value, i)) {
            name = json_object_iter_key(i);
            child = json_object_iter_value(i);
            g_autofree char *inner = g_strconcat(key, *key ? "." : "", name, NULL);
            if (!walk(w, inner, child))
                return false;
        }
        return true;
    }
    for (size_t i = 0; i < json_array_size(value); i++) {
        g_autofree char *inner = g_strdup_printf("%s.%zu", key, i);
        if (!walk(w, inner, json_array_get(value, i)))
            return false;
    }
    return true;
}

static bool walk(Walk *w, const char *key, const json_t *value)
{
    char        text[64], form[8];
    int         digits = 6;
    const char *out = text;

    if (json_typeof(value) == JSON_OBJECT || json_typeof(value) == JSON_ARRAY) {
        if (w->depth == MI_CONFIG_MAX_DEPTH)
            return fail(w->path, w->error, "nested deeper than %d", MI_CONFIG_MAX_DEPTH);
        w->depth++;
        const bool ok = walk_inner(w, key, value);
        w->depth--;
        return ok;
    }
    switch (json_typeof(value)) {
    case JSON_STRING: out = json_string_value(value); break;
    case JSON_INTEGER: g_snprintf(text, sizeof text, "%" JSON_INTEGER_FORMAT, json_integer_value(value)); break;
    case JSON_TRUE: out = "true"; break;
    case JSON_FALSE: out = "false"; break;
    case JSON_REAL: /* the shortest that reads back as the same double, which 17 digits always do */
        do {
            g_snprintf(form, sizeof form, "%%.%dg", digits++);
            g_ascii_formatd(text, sizeof text, form, json_real_value(value));
        } while (g_ascii_strtod(text, NULL) != json_real_value(value));
        break;
    default: return true; /* null */
    }
    if (w->meta->n >= MI_CONFIG_MAX_VALUES)
        return fail(w->path, w->error, "more than %d values", MI_CONFIG_MAX_VALUES);
    if (!mi_meta_add(w->meta, key, out))
        return no_memory(w->path, w->error);
    return true;
}

bool mi_config_read(MiMeta *meta, const char *directory, const char *name, const char *prefix, GError **error)
{
    g_autofree char *path = g_build_filename(directory, name, NULL);
    Walk             w = { meta, path, 0, error };
    json_t          *root = mi_json_file(directory, name, MI_CONFIG_MAX_BYTES, error);
    const bool       ok = root && walk(&w, prefix, root);

    json_decref(root);
    return ok;
}

bool mi_config_aliases(MiMeta *meta, const char *directory, GError **error)
{
    static const char from[] = "rope_parameters.";
    static const MiNamePair tops[] = {
        { "rope_parameters.rope_theta", "rope_theta" },
        { "rope_parameters.partial_rotary_factor", "partial_rotary_factor" },
        { "rope_scaling.rope_theta", "rope_theta" },
        { "rotary_emb_base", "rope_theta" },
        { "rotary_pct", "partial_rotary_factor" },
    };
    const size_t n = meta->n;
    bool         ok = true;

    for (size_t i = 0; ok && i < G_N_ELEMENTS(tops); i++) {
        const char *value = mi_meta_find(meta, tops[i].gguf);
        ok = !value || mi_meta_add(meta, tops[i].hf, value);
    }
    for (size_t i = 0; ok && i < n; i++)
        if (g_str_has_prefix(meta->at[i].key, from)) {
            g_autofree char *key = g_strconcat("rope_scaling.", meta->at[i].key + strlen(from), NULL);
            ok = mi_meta_add(meta, key, meta->at[i].value);
        }
    if (!ok)
        return no_memory(directory, error);
    return true;
}
