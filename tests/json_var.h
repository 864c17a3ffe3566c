/* json_var.h - JSON as the MiVar that a template is given.  The JSON must outlive it. */
#ifndef TESTS_JSON_VAR_H
#define TESTS_JSON_VAR_H

#include <jansson.h>
#include <miniinfer/frontend.h>

/* Arrays are collected in `pool`, a GPtrArray that frees them. */
static inline MiVar json_var(const json_t *j, GPtrArray *pool)
{
    MiVar v = { .type = MI_VAR_NULL };

    switch (json_typeof(j)) {
    case JSON_NULL:
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        v = (MiVar){ .type = MI_VAR_BOOL, .integer = json_is_true(j) };
        break;
    case JSON_INTEGER:
        v = (MiVar){ .type = MI_VAR_INT, .integer = json_integer_value(j) };
        break;
    case JSON_REAL:
        v = (MiVar){ .type = MI_VAR_FLOAT, .number = json_real_value(j) };
        break;
    case JSON_STRING:
        v = (MiVar){ .type = MI_VAR_TEXT, .text = json_string_value(j), .n = json_string_length(j) };
        break;
    case JSON_ARRAY: {
        MiVar *items = g_new0(MiVar, json_array_size(j) + 1);
        g_ptr_array_add(pool, items);
        for (size_t i = 0; i < json_array_size(j); i++)
            items[i] = json_var(json_array_get(j, i), pool);
        v = (MiVar){ .type = MI_VAR_LIST, .n = json_array_size(j), .items = items };
        break;
    }
    case JSON_OBJECT: {
        MiVar       *items = g_new0(MiVar, json_object_size(j) + 1);
        const char **keys = g_new0(const char *, json_object_size(j) + 1);
        const char  *key;
        json_t      *value;
        g_ptr_array_add(pool, items);
        g_ptr_array_add(pool, keys);
        v = (MiVar){ .type = MI_VAR_MAP, .items = items, .keys = keys };
        json_object_foreach((json_t *)j, key, value) {
            keys[v.n] = key;
            items[v.n++] = json_var(value, pool);
        }
        break;
    }
    }
    return v;
}

/* A copy with every letter of its strings (not of its keys) moved to U+E000 and up: what a
 * template cannot have written itself.  Their first byte in UTF-8 is DYE. */
enum { DYE = 0xee };
static inline json_t *json_dyed(const json_t *j)
{
    json_t     *copy = NULL, *item;
    const char *key;
    size_t      i;

    if (json_is_array(j)) {
        copy = json_array();
        json_array_foreach((json_t *)j, i, item)
            json_array_append_new(copy, json_dyed(item));
    } else if (json_is_object(j)) {
        copy = json_object();
        json_object_foreach((json_t *)j, key, item)
            json_object_set_new(copy, key, json_dyed(item));
    } else if (json_is_string(j)) {
        g_autoptr(GString) s = g_string_new(NULL);
        for (const char *at = json_string_value(j); *at; at = g_utf8_next_char(at))
            g_string_append_unichar(s, 0xe000 + g_utf8_get_char(at) % 0x1000);
        copy = json_string(s->str);
    } else {
        copy = json_deep_copy(j);
    }
    return copy;
}

/* The file of that folder, "": the current one; NULL: there is none. */
static inline json_t *json_file(const char *folder, const char *name)
{
    g_autofree char *path = *folder ? g_build_filename(folder, name, NULL) : g_strdup(name);
    return json_load_file(path, JSON_ALLOW_NUL, NULL);
}

#endif
