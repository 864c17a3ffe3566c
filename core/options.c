#include "options.h"
#include "suggest.h"

#include <errno.h>
#include <float.h>
#include <math.h>
#include <miniinfer/context.h>
#include <string.h>

enum { LONGEST_NUMBER = 64, LONGEST_SHOWN = 60 };
G_STATIC_ASSERT(MI_MAX_BIASES == 300); /* a message says it */

size_t mi_option_size(MiOptionType type)
{
    static const size_t sizes[] = {
        [MI_BOOL] = sizeof(bool), [MI_INT] = sizeof(int32_t),       [MI_UINT64] = sizeof(uint64_t),
        [MI_FLOAT] = sizeof(float), [MI_STRING] = sizeof(char *), [MI_BIASES] = sizeof(MiBiases),
    };
    return (unsigned)type < G_N_ELEMENTS(sizes) ? sizes[type] : 0;
}

const char *mi_option_type_name(MiOptionType type)
{
    static const char *const names[] = {
        [MI_BOOL] = "true or false", [MI_INT] = "integer", [MI_UINT64] = "integer",
        [MI_FLOAT] = "number",       [MI_STRING] = "text", [MI_BIASES] = "id: bias, ...",
    };
    return (unsigned)type < G_N_ELEMENTS(names) ? names[type] : "unknown";
}

size_t mi_options_size(const MiOption *table)
{
    size_t end = 0;
    for (const MiOption *o = table; o && o->key; o++)
        end = MAX(end, o->offset + mi_option_size(o->type));
    return (end + 7) / 8 * 8;
}

static bool ranged(const MiOption *o) { return o->min != 0 || o->max != 0; }

char *mi_option_range(const MiOption *o)
{
    if (o->type == MI_STRING && o->choices)
        return g_strdup(o->choices);
    if (o->type == MI_BOOL || o->type == MI_STRING || !ranged(o))
        return g_strdup("");
    /* %.10g: an int32 in full, a float as it was written. */
    return g_strdup_printf("%.10g to %.10g", o->min, o->max);
}

/* "key = 'value' is <what>; <range> are possible", the value made printable and not too long. */
static bool wrong(const MiOption *o, const char *value, const char *what, GError **error)
{
    g_autofree char *shown = mi_printable(value, LONGEST_SHOWN), *range = mi_option_range(o);

    g_set_error(error, MI_ERROR, MI_ERROR_CONFIG, "%s = '%s' %s%s%s%s%s", o->key, shown, what,
                *range ? "; " : "", range, *range ? " are possible" : "",
                strstr(value, " #") ? "; a comment behind a value begins with ';'" : "");
    return false;
}

/* Digits as people write them: no hexadecimal, no names, no locale.  [text, text + n) becomes *x. */
static bool number(const char *text, size_t n, double *x)
{
    char  copy[LONGEST_NUMBER + 1];
    char *end = NULL;

    if (n == 0 || n > LONGEST_NUMBER || strspn(text, "0123456789+-.eE") < n)
        return false;
    memcpy(copy, text, n);
    copy[n] = 0;
    *x = g_ascii_strtod(copy, &end);
    return *end == 0;
}

static bool out_of_range(const MiOption *o, double x) { return ranged(o) && !(x >= o->min && x <= o->max); }

static bool parse_float(const MiOption *o, float *at, const char *value, GError **error)
{
    double x;

    /* Only a range that ends there makes infinity a value. */
    if ((isinf(o->max) && strcmp(value, "inf") == 0) || (isinf(o->min) && strcmp(value, "-inf") == 0)) {
        *at = *value == '-' ? -INFINITY : INFINITY;
        return true;
    }
    if (!number(value, strlen(value), &x))
        return wrong(o, value, "is no number", error);
    if (out_of_range(o, x) || fabs(x) > (double)FLT_MAX)
        return wrong(o, value, "is out of range", error);
    *at = (float)x;
    return true;
}

static bool parse_int(const MiOption *o, int32_t *at, const char *value, GError **error)
{
    double x;

    if (!number(value, strlen(value), &x))
        return wrong(o, value, "is no number", error);
    if (!isfinite(x) || x > (double)INT32_MAX || x < (double)INT32_MIN || out_of_range(o, x))
        return wrong(o, value, "is out of range", error);
    if (x != floor(x))
        return wrong(o, value, "is no integer", error);
    *at = (int32_t)x;
    return true;
}

static bool parse_uint64(const MiOption *o, uint64_t *at, const char *value, GError **error)
{
    const size_t n = strlen(value);
    guint64      x;

    if (n == 0 || n > LONGEST_NUMBER || strspn(value, "0123456789") < n)
        return wrong(o, value, "is no integer of 0 or more", error);
    errno = 0;
    x = g_ascii_strtoull(value, NULL, 10);
    if (errno == ERANGE || out_of_range(o, (double)x))
        return wrong(o, value, "is out of range", error);
    *at = x;
    return true;
}

static bool parse_choice(const MiOption *o, const char **at, const char *value, GError **error)
{
    g_auto(GStrv)        choices = g_strsplit(o->choices ? o->choices : "", ", ", 0);
    g_autoptr(GPtrArray) names = g_ptr_array_new();
    g_autoptr(GError)    why = NULL;

    *at = value;
    for (char **c = choices; *c; c++) {
        if (strcmp(*c, value) == 0)
            return true;
        g_ptr_array_add(names, *c);
    }
    if (!o->choices)
        return true;
    wrong(o, value, "is not possible", &why);
    g_autoptr(GString) message = g_string_new(why->message);
    mi_suggest_append(message, value, names);
    g_set_error_literal(error, MI_ERROR, MI_ERROR_CONFIG, message->str);
    return false;
}

/* "151: -100, 42: 2.5"; nothing at all is none. */
static bool parse_biases(const MiOption *o, MiBiases *at, const char *value, GError **error)
{
    MiBiases    b = { .n = 0 };
    const char *p = value + strspn(value, " ");

    while (*p) {
        const size_t part = strcspn(p, ","), id_len = strspn(p, "0123456789");
        const char  *q = p + id_len + strspn(p + id_len, " ");
        double       id, bias;

        if (b.n == MI_MAX_BIASES)
            return wrong(o, value, "has more than 300 biases", error);
        if (!number(p, id_len, &id) || *q != ':')
            return wrong(o, value, "is not written \"id: bias, id: bias\"", error);
        q += 1 + strspn(q + 1, " ");
        size_t n = (size_t)MAX(p + part - q, 0);
        while (n > 0 && q[n - 1] == ' ')
            n--;
        if (!number(q, n, &bias))
            return wrong(o, value, "is not written \"id: bias, id: bias\"", error);
        if (id > (double)INT32_MAX || fabs(bias) > (double)FLT_MAX || out_of_range(o, bias))
            return wrong(o, value, "has an id or a bias out of range", error);
        for (int32_t i = 0; i < b.n; i++)
            if (b.at[i].id == (int32_t)id)
                return wrong(o, value, "names an id twice", error);
        b.at[b.n].id = (int32_t)id;
        b.at[b.n++].bias = (float)bias;
        p += part;
        if (*p == ',') {
            p += 1 + strspn(p + 1, " ");
            if (!*p)
                return wrong(o, value, "ends with a comma", error);
        }
    }
    *at = b;
    return true;
}

bool mi_option_parse(const MiOption *o, void *at, const char *value, GError **error)
{
    switch (o->type) {
    case MI_STRING:
        return parse_choice(o, at, value, error);
    case MI_BOOL:
        *(bool *)at = strcmp(value, "true") == 0;
        if (!*(bool *)at && strcmp(value, "false") != 0)
            return wrong(o, value, "is neither true nor false", error);
        return true;
    case MI_UINT64:
        return parse_uint64(o, at, value, error);
    case MI_BIASES:
        return parse_biases(o, at, value, error);
    case MI_INT:
        return parse_int(o, at, value, error);
    case MI_FLOAT:
        return parse_float(o, at, value, error);
    }
    return wrong(o, value, "has no known type", error);
}

bool mi_option_accepts(const MiOption *o, const char *value, GError **error)
{
    union {
        bool        truth;
        int32_t     integer;
        uint64_t    large;
        float       real;
        const char *text;
        MiBiases    biases;
    } scratch;
    return mi_option_parse(o, &scratch, value, error);
}

const MiOption *mi_options_find(const MiOption *table, const char *key)
{
    for (const MiOption *o = table; o && o->key; o++)
        if (strcmp(o->key, key) == 0)
            return o;
    return NULL;
}

bool mi_options_set(const MiOption *table, void *out, const char *key, const char *value, GError **error)
{
    const MiOption *o = mi_options_find(table, key);

    if (o)
        return mi_option_parse(o, (char *)out + o->offset, value, error);
    g_autoptr(GPtrArray) keys = g_ptr_array_new();
    g_autofree char     *shown = mi_printable(key, LONGEST_SHOWN);
    g_autoptr(GString)   message = g_string_new(NULL);
    g_string_append_printf(message, "unknown key '%s'; there are:", shown);
    for (o = table; o && o->key; o++) {
        g_ptr_array_add(keys, (void *)o->key);
        g_string_append_printf(message, " %s", o->key);
    }
    if (keys->len == 0)
        g_string_append(message, " none");
    mi_suggest_append(message, key, keys);
    g_set_error_literal(error, MI_ERROR, MI_ERROR_CONFIG, message->str);
    return false;
}

bool mi_options_defaults(const MiOption *table, void *out, GError **error)
{
    for (const MiOption *o = table; o && o->key; o++)
        if (o->def && !mi_option_parse(o, (char *)out + o->offset, o->def, error))
            return false;
    return true;
}
