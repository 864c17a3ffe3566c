/* template_filters.c - filters of text and of single values: x | trim, x | tojson... */
#include "template_eval.h"

#include <math.h>
#include <string.h>

#define FILTER(name) static const Value *name(Ctx *c, const Value *in, const Args *args)

static const Value *text_argument(Ctx *c, const Value *v, const char *what)
{
    if (v->kind == V_UNDEFINED)
        tpl_fail_missing(c, v);
    if (!is_str(v))
        tpl_fail(c, "%s is a %s, a str is wanted", what, tpl_kind_name(v));
    return v;
}

static bool flag(Ctx *c, const Value *v) { return v && tpl_truth(c, v); }

FILTER(trim)
{
    const Value *chars = args->at[0] && args->at[0]->kind != V_NONE ? text_argument(c, args->at[0], "chars") : NULL;
    return tpl_strip(c, tpl_to_str(c, in), chars, true, true);
}

FILTER(upper) { return (void)args, tpl_case(c, tpl_to_str(c, in), CASE_UPPER); }
FILTER(lower) { return (void)args, tpl_case(c, tpl_to_str(c, in), CASE_LOWER); }
FILTER(title) { return (void)args, tpl_case(c, tpl_to_str(c, in), CASE_WORDS); }
FILTER(capitalize) { return (void)args, tpl_case(c, tpl_to_str(c, in), CASE_CAPITAL); }
FILTER(string) { return (void)args, tpl_to_str(c, in); }
FILTER(same) { return (void)args, (void)c, in; }
FILTER(length) { return (void)args, tpl_int(c, (int64_t)tpl_length(c, in), true); }

FILTER(replace)
{
    const Value *count = args->at[2];
    return tpl_replace(c, tpl_to_str(c, in), tpl_to_str(c, args->at[0]), tpl_to_str(c, args->at[1]),
                       !count || count->kind == V_NONE ? -1 : tpl_integer(c, count, "count"));
}

FILTER(fallback)
{
    const bool use = in->kind == V_UNDEFINED || (flag(c, args->at[1]) && !tpl_truth(c, in));
    return !use ? in : args->at[0] ? args->at[0] : tpl_str(c, "");
}

FILTER(escape)
{
    static const char from[] = "&<>'\"";
    static const char *const to[] = { "&amp;", "&lt;", "&gt;", "&#39;", "&#34;" };

    (void)args;
    in = tpl_to_str(c, in);
    for (size_t i = 0; i < G_N_ELEMENTS(to); i++) {
        const Value *one = tpl_text(c, from + i, 1, true);
        if (tpl_find(c, in, one, 0) != SIZE_MAX)
            in = tpl_replace(c, in, one, tpl_text(c, to[i], strlen(to[i]), false), -1);
    }
    return in;
}

FILTER(indent)
{
    const Value *width = args->at[0], *lines;
    Builder      b = { 0 }, whole = { 0 };
    const bool   blank = flag(c, args->at[2]);

    if (!width || !is_str(width))
        width = tpl_arith(c, OP_MUL, tpl_str(c, " "), width ? width : tpl_int(c, 4, true));
    tpl_put_value(c, &whole, text_argument(c, in, "what indent is used on"));
    tpl_put(c, &whole, "\n", 1, true);
    lines = tpl_lines(c, tpl_built(c, &whole), false);
    for (size_t i = 0; i < lines->u.list.n; i++) {
        const Value *line = lines->u.list.at[i];
        if (i)
            tpl_put(c, &b, "\n", 1, true);
        if (i ? blank || line->u.text.n : flag(c, args->at[1]))
            tpl_put_value(c, &b, width);
        tpl_put_value(c, &b, line);
    }
    return tpl_built(c, &b);
}

FILTER(wordcount)
{
    int64_t n = 0;
    bool    within = false;

    (void)args;
    in = tpl_to_str(c, in);
    tpl_step(c, in->u.text.n / 8);
    for (size_t at = 0; at < in->u.text.n;) {
        const gunichar ch = tpl_char(in, &at);
        const bool     word = g_unichar_isalnum(ch) || ch == '_';
        n += word && !within;
        within = word;
    }
    return tpl_int(c, n, true);
}

/* ---- numbers ----------------------------------------------------------- */
enum { NUMBER_TEXT = 400 };

/* A number's letters without blanks round it and _ inside; false: too long, or a _ out of place. */
static bool number_text(Ctx *c, const Value *v, char out[NUMBER_TEXT])
{
    const Value *text = tpl_strip(c, v, NULL, true, true);
    const Text  *t = &text->u.text;
    size_t       n = 0;

    if (t->n == 0 || t->n >= NUMBER_TEXT)
        return false;
    for (size_t i = 0; i < t->n; i++) {
        if (t->s[i] != '_')
            out[n++] = t->s[i];
        else if (i == 0 || i + 1 == t->n || !g_ascii_isxdigit(t->s[i - 1]) || !g_ascii_isxdigit(t->s[i + 1]))
            return false;
    }
    out[n] = 0;
    return strlen(out) == n;
}

static bool read_int(Ctx *c, const char *s, int base, int64_t *out)
{
    static const char prefixes[] = "xob";
    static const int  bases[] = { 16, 8, 2 };
    const bool        minus = *s == '-';
    int64_t           v = 0;

    s += *s == '-' || *s == '+';
    for (size_t i = 0; i < G_N_ELEMENTS(bases); i++) {
        if (base == bases[i] && s[0] == '0' && (s[1] | 32) == prefixes[i])
            s += 2;
    }
    if (!*s)
        return false;
    for (; *s; s++) {
        const int digit = g_ascii_isdigit(*s) ? *s - '0' : g_ascii_isalpha(*s) ? (*s | 32) - 'a' + 10 : 99;
        if (digit >= base)
            return false;
        if (__builtin_mul_overflow(v, base, &v) || __builtin_sub_overflow(v, digit, &v))
            tpl_fail(c, "a number does not fit in 64 bits");
    }
    if (!minus && v == INT64_MIN)
        tpl_fail(c, "a number does not fit in 64 bits");
    *out = minus ? v : -v;
    return true;
}

static bool read_float(const char *s, double *out)
{
    const char *digits = s + (*s == '-' || *s == '+');
    char       *end;

    if (!g_ascii_isdigit(*digits) && *digits != '.' && g_ascii_strcasecmp(digits, "inf") &&
        g_ascii_strcasecmp(digits, "infinity") && g_ascii_strcasecmp(digits, "nan"))
        return false;
    if (digits[0] == '0' && (digits[1] | 32) == 'x')
        return false;
    *out = g_ascii_strtod(s, &end);
    return *end == 0;
}

static bool float_to_int(double d, int64_t *out)
{
    if (!(d > -9223372036854775808.0 && d < 9223372036854775808.0))
        return false;
    *out = (int64_t)d;
    return true;
}

FILTER(to_int)
{
    const int64_t base = args->at[1] ? tpl_integer(c, args->at[1], "base") : 10;
    char          text[NUMBER_TEXT];
    int64_t       i = 0;
    double        d;

    if (base < 2 || base > 36)
        tpl_fail(c, "int: base %" G_GINT64_FORMAT " is not within 2 and 36", base);
    if (in->kind == V_UNDEFINED)
        tpl_fail_missing(c, in);
    if (in->kind == V_INT || in->kind == V_BOOL)
        return tpl_int(c, in->u.integer, in->trusted);
    if (in->kind == V_FLOAT) {
        if (!float_to_int(in->u.number, &i) && !isnan(in->u.number))
            tpl_fail(c, "a number does not fit in 64 bits");
        if (!isnan(in->u.number))
            return tpl_int(c, i, in->trusted);
    }
    if (is_str(in) && number_text(c, in, text) &&
        (read_int(c, text, (int)base, &i) || (read_float(text, &d) && float_to_int(d, &i))))
        return tpl_int(c, i, tpl_trusted(in));
    return args->at[0] ? args->at[0] : tpl_int(c, 0, true);
}

FILTER(to_float)
{
    char   text[NUMBER_TEXT];
    double d;

    if (in->kind == V_UNDEFINED)
        tpl_fail_missing(c, in);
    if (tpl_is_number(in))
        return tpl_float(c, tpl_number(in), in->trusted);
    if (is_str(in) && number_text(c, in, text) && read_float(text, &d))
        return tpl_float(c, d, tpl_trusted(in));
    return args->at[0] ? args->at[0] : tpl_float(c, 0, true);
}

static void want_number(Ctx *c, const Value *v, const char *who)
{
    if (v->kind == V_UNDEFINED)
        tpl_fail_missing(c, v);
    if (!tpl_is_number(v))
        tpl_fail(c, "%s wants a number, not a %s", who, tpl_kind_name(v));
}

FILTER(absolute)
{
    (void)args;
    want_number(c, in, "abs");
    if (in->kind == V_FLOAT)
        return tpl_float(c, fabs(in->u.number), in->trusted);
    return in->u.integer < 0 ? tpl_negate(c, in) : tpl_int(c, in->u.integer, in->trusted);
}

/* Half to even on the exact value, as Python's round(): printf rounds so. */
static double round_to(double d, int64_t places)
{
    char text[NUMBER_TEXT], format[16];

    if (!isfinite(d) || places > 300)
        return d;
    if (places < 0) {
        const double unit = pow(10, (double)-places);
        return isfinite(unit) ? nearbyint(d / unit) * unit : copysign(0, d);
    }
    g_snprintf(format, sizeof format, "%%.%df", (int)places);
    if (fabs(d) > 1e60)
        return d;
    return g_ascii_strtod(g_ascii_formatd(text, sizeof text, format, d), NULL);
}

FILTER(rounded)
{
    const int64_t places = args->at[0] ? tpl_integer(c, args->at[0], "precision") : 0;
    const Value  *method = args->at[1] ? args->at[1] : tpl_str(c, "common");
    double        d, unit;

    want_number(c, in, "round");
    if (tpl_same(method, "common")) {
        if (in->kind != V_FLOAT && places >= 0)
            return tpl_int(c, in->u.integer, in->trusted);
        d = round_to(tpl_number(in), places);
        return in->kind == V_FLOAT ? tpl_float(c, d, in->trusted) : tpl_int(c, (int64_t)d, in->trusted);
    }
    if (!tpl_same(method, "ceil") && !tpl_same(method, "floor"))
        tpl_fail(c, "round: method is common, ceil or floor");
    unit = pow(10, (double)places);
    d = tpl_number(in) * unit;
    d = (tpl_same(method, "ceil") ? ceil(d) : floor(d)) / unit;
    if (!isfinite(d))
        tpl_fail(c, "round: the number is too large");
    return tpl_float(c, d, in->trusted);
}

/* ---- JSON -------------------------------------------------------------- */
/* As transformers defines it: json.dumps without ASCII escapes. */
FILTER(tojson)
{
    const Value *indent = args->at[1], *separators = args->at[2];
    JsonStyle    style = { .ascii = flag(c, args->at[0]), .sort = flag(c, args->at[3]) };

    if (indent && indent->kind != V_NONE && !is_str(indent))
        indent = tpl_arith(c, OP_MUL, tpl_str(c, " "), indent);
    style.indent = indent && is_str(indent) ? indent : NULL;
    style.comma = tpl_str(c, style.indent ? "," : ", ");
    style.colon = tpl_str(c, ": ");
    if (separators && separators->kind != V_NONE) {
        const List pair = tpl_items(c, separators);
        if (pair.n != 2)
            tpl_fail(c, "tojson: separators are two strings");
        style.comma = text_argument(c, pair.at[0], "a separator");
        style.colon = text_argument(c, pair.at[1], "a separator");
    }
    return tpl_json(c, in, &style);
}

FILTER(format)
{
    const Value *v;

    in = tpl_to_str(c, in);
    if (!args->n_named)
        return tpl_percent(c, in, tpl_list(c, V_TUPLE, args->at, args->n));
    v = tpl_dict(c, V_DICT);
    for (size_t i = 0; i < args->n_named; i++)
        tpl_dict_set(c, v->u.dict, tpl_str(c, args->names[i]), args->named[i]);
    return tpl_percent(c, in, v);
}

const Builtin tpl_text_filters[] = {
    { "abs", absolute, "", 0 },
    { "capitalize", capitalize, "", 0 },
    { "count", length, "", 0 },
    { "d", fallback, "default_value boolean", 0 },
    { "default", fallback, "default_value boolean", 0 },
    { "e", escape, "", 0 },
    { "escape", escape, "", 0 },
    { "float", to_float, "default", 0 },
    { "forceescape", escape, "", 0 },
    { "format", format, NULL, 0 },
    { "indent", indent, "width first blank", 0 },
    { "int", to_int, "default base", 0 },
    { "length", length, "", 0 },
    { "lower", lower, "", 0 },
    { "replace", replace, "old new count", 2 },
    { "round", rounded, "precision method", 0 },
    { "safe", same, "", 0 },
    { "string", string, "", 0 },
    { "title", title, "", 0 },
    { "tojson", tojson, "ensure_ascii indent separators sort_keys", 0 },
    { "trim", trim, "chars", 0 },
    { "upper", upper, "", 0 },
    { "wordcount", wordcount, "", 0 },
    { NULL, NULL, NULL, 0 },
};
