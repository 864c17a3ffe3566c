#include "options.h"

#include <math.h>
#include <miniinfer/context.h>
#include <string.h>

static const size_t size_of[] = {
    [MI_BOOL] = sizeof(bool), [MI_INT] = 4, [MI_UINT64] = 8, [MI_FLOAT] = 4, [MI_STRING] = sizeof(char *),
    [MI_BIASES] = sizeof(MiBiases),
};

size_t mi_options_size(const MiOption *table)
{
    size_t end = 0;
    for (const MiOption *o = table; o && o->key; o++)
        end = MAX(end, o->offset + size_of[o->type]);
    return (end + 7) / 8 * 8;
}

static bool parse(const MiOption *o, void *at, const char *text)
{
    char  *end = NULL;
    double x;

    switch (o->type) {
    case MI_STRING:
        *(const char **)at = text;
        return true;
    case MI_BOOL:
        *(bool *)at = strcmp(text, "true") == 0;
        return *(bool *)at || strcmp(text, "false") == 0;
    case MI_UINT64:
        *(uint64_t *)at = g_ascii_strtoull(text, &end, 10);
        return end != text && !*end && *text != '-';
    case MI_BIASES:
        return false; /* not yet */
    case MI_INT:
    case MI_FLOAT:
        break;
    }
    x = g_ascii_strtod(text, &end);
    if (end == text || *end || isnan(x) || ((o->min != 0 || o->max != 0) && (x < o->min || x > o->max)))
        return false;
    if (o->type == MI_FLOAT)
        *(float *)at = (float)x;
    else if (x != floor(x) || fabs(x) > INT32_MAX)
        return false;
    else
        *(int32_t *)at = (int32_t)x;
    return true;
}

bool mi_options_set(const MiOption *table, void *out, const char *key, const char *value, GError **error)
{
    g_autoptr(GString) keys = g_string_new(NULL);

    for (const MiOption *o = table; o && o->key; o++) {
        g_string_append_printf(keys, " %s", o->key);
        if (strcmp(o->key, key) != 0)
            continue;
        if (parse(o, (char *)out + o->offset, value))
            return true;
        if (o->min != 0 || o->max != 0)
            g_set_error(error, MI_ERROR, MI_ERROR_CONFIG, "%s is '%s'; %g to %g are possible", key, value, o->min,
                        o->max);
        else
            g_set_error(error, MI_ERROR, MI_ERROR_CONFIG, "%s cannot be '%s'", key, value);
        return false;
    }
    g_set_error(error, MI_ERROR, MI_ERROR_CONFIG, "unknown key '%s'; there are:%s", key,
                keys->len ? keys->str : " none");
    return false;
}

bool mi_options_defaults(const MiOption *table, void *out, GError **error)
{
    for (const MiOption *o = table; o && o->key; o++)
        if (o->def && !mi_options_set(table, out, o->key, o->def, error))
            return false;
    return true;
}
