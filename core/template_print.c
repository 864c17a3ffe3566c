/* template_print.c - values as text: str(), repr() and JSON, letter for letter as Python
 * writes them.  What repr() and JSON make is untrusted: quotes and escapes belong to nobody. */
#include "template_eval.h"

#include <math.h>
#include <string.h>

static void put(Ctx *c, Builder *b, const char *s) { tpl_put(c, b, s, strlen(s), false); }

/* The shortest digits that read back as the same number, in Python's layout. */
void tpl_float_text(double d, char out[FLOAT_TEXT])
{
    char  digits[FLOAT_TEXT];
    char *e;
    int   precision = 0, exponent;

    if (isnan(d) || isinf(d)) {
        g_strlcpy(out, isnan(d) ? "nan" : d > 0 ? "inf" : "-inf", FLOAT_TEXT);
        return;
    }
    do {
        char format[] = "%.00e";
        format[2] = (char)('0' + precision / 10);
        format[3] = (char)('0' + precision % 10);
        precision++;
        g_ascii_formatd(digits, sizeof digits, format, d);
    } while (g_ascii_strtod(digits, NULL) != d); /* it does with 17 digits */
    e = strchr(digits, 'e');
    exponent = (int)g_ascii_strtoll(e + 1, NULL, 10);
    if (exponent < -4 || exponent >= 16) {
        *e = 0;
        g_snprintf(out, FLOAT_TEXT, "%se%c%02d", digits, exponent < 0 ? '-' : '+', ABS(exponent));
        return;
    }
    char format[] = "%.00f";
    const int decimals = MAX(precision - 1 - exponent, 1);
    format[2] = (char)('0' + decimals / 10);
    format[3] = (char)('0' + decimals % 10);
    g_ascii_formatd(out, FLOAT_TEXT, format, d);
}

/* ---- str() ------------------------------------------------------------- */
const Value *tpl_to_str(Ctx *c, const Value *v)
{
    Builder b = { 0 };
    char    text[FLOAT_TEXT];

    switch (v->kind) {
    case V_STRING:
        return v;
    case V_UNDEFINED:
        return tpl_text(c, "", 0, true);
    case V_NONE:
        return tpl_text(c, "None", 4, v->trusted);
    case V_BOOL:
        return v->u.integer ? tpl_text(c, "True", 4, v->trusted) : tpl_text(c, "False", 5, v->trusted);
    case V_INT:
        g_snprintf(text, sizeof text, "%" G_GINT64_FORMAT, v->u.integer);
        break;
    case V_FLOAT:
        tpl_step(c, 16);
        tpl_float_text(v->u.number, text);
        break;
    default:
        tpl_repr(c, &b, v);
        return tpl_built(c, &b);
    }
    tpl_put(c, &b, text, strlen(text), v->trusted);
    return tpl_built(c, &b);
}

/* ---- repr() ------------------------------------------------------------ */
static bool printable(gunichar ch)
{
    switch (g_unichar_type(ch)) {
    case G_UNICODE_CONTROL:
    case G_UNICODE_FORMAT:
    case G_UNICODE_UNASSIGNED:
    case G_UNICODE_PRIVATE_USE:
    case G_UNICODE_SURROGATE:
    case G_UNICODE_LINE_SEPARATOR:
    case G_UNICODE_PARAGRAPH_SEPARATOR:
        return false;
    case G_UNICODE_SPACE_SEPARATOR:
        return ch == ' ';
    default:
        return true;
    }
}

static void repr_text(Ctx *c, Builder *b, const Value *v)
{
    const Text *t = &v->u.text;
    const bool  single = t->n && memchr(t->s, '\'', t->n), twice = t->n && memchr(t->s, '"', t->n);
    const char  quote = single && !twice ? '"' : '\'';
    char        code[16];

    tpl_step(c, t->n / 4);
    tpl_put(c, b, &quote, 1, false);
    for (size_t at = 0; at < t->n;) {
        const size_t   from = at;
        const gunichar ch = tpl_char(v, &at);

        if (ch == '\n')
            put(c, b, "\\n");
        else if (ch == '\r')
            put(c, b, "\\r");
        else if (ch == '\t')
            put(c, b, "\\t");
        else if (ch == '\\' || ch == (gunichar)quote) {
            tpl_put(c, b, "\\", 1, false);
            tpl_put(c, b, t->s + from, 1, false);
        } else if (printable(ch)) {
            tpl_put(c, b, t->s + from, at - from, false);
        } else {
            g_snprintf(code, sizeof code, ch < 0x100 ? "\\x%02x" : ch < 0x10000 ? "\\u%04x" : "\\U%08x", ch);
            put(c, b, code);
        }
    }
    tpl_put(c, b, &quote, 1, false);
}

static void repr_list(Ctx *c, Builder *b, List l, const char *open, const char *close)
{
    put(c, b, open);
    for (size_t i = 0; i < l.n; i++) {
        if (i)
            put(c, b, ", ");
        tpl_repr(c, b, l.at[i]);
    }
    put(c, b, close);
}

static void repr_dict(Ctx *c, Builder *b, const Dict *d)
{
    put(c, b, "{");
    for (size_t i = 0; i < d->n; i++) {
        if (i)
            put(c, b, ", ");
        tpl_repr(c, b, d->keys[i]);
        put(c, b, ": ");
        tpl_repr(c, b, d->values[i]);
    }
    put(c, b, "}");
}

static void repr_range(Ctx *c, Builder *b, const Value *v)
{
    char          text[96];
    const int64_t stop = tpl_range_at(v, v->u.range.n);

    if (v->u.range.step == 1)
        g_snprintf(text, sizeof text, "range(%" G_GINT64_FORMAT ", %" G_GINT64_FORMAT ")", v->u.range.start, stop);
    else
        g_snprintf(text, sizeof text, "range(%" G_GINT64_FORMAT ", %" G_GINT64_FORMAT ", %" G_GINT64_FORMAT ")",
                   v->u.range.start, stop, v->u.range.step);
    put(c, b, text);
}

void tpl_repr(Ctx *c, Builder *b, const Value *v)
{
    const Value *text;

    tpl_enter(c);
    tpl_step(c, 1);
    switch (v->kind) {
    case V_UNDEFINED:
        put(c, b, "Undefined");
        break;
    case V_STRING:
        repr_text(c, b, v);
        break;
    case V_LIST:
        repr_list(c, b, v->u.list, "[", "]");
        break;
    case V_TUPLE:
        repr_list(c, b, v->u.list, "(", v->u.list.n == 1 ? ",)" : ")");
        break;
    case V_VIEW:
        repr_list(c, b, v->u.list, "dict_view([", "])");
        break;
    case V_DICT:
        repr_dict(c, b, v->u.dict);
        break;
    case V_NAMESPACE:
        put(c, b, "<Namespace ");
        repr_dict(c, b, v->u.dict);
        put(c, b, ">");
        break;
    case V_RANGE:
        repr_range(c, b, v);
        break;
    case V_NONE:
    case V_BOOL:
    case V_INT:
    case V_FLOAT:
        text = tpl_to_str(c, v);
        tpl_put(c, b, text->u.text.s, text->u.text.n, false);
        break;
    default:
        put(c, b, "<");
        put(c, b, tpl_kind_name(v));
        put(c, b, ">");
    }
    tpl_leave(c);
}

/* ---- JSON -------------------------------------------------------------- */
static void json_value(Ctx *, Builder *, const Value *, const JsonStyle *, int depth);

static void json_escape(Ctx *c, Builder *b, gunichar ch)
{
    char code[16];

    if (ch >= 0x10000)
        g_snprintf(code, sizeof code, "\\u%04x\\u%04x", 0xd800 + ((ch - 0x10000) >> 10),
                   0xdc00 + ((ch - 0x10000) & 0x3ff));
    else
        g_snprintf(code, sizeof code, "\\u%04x", ch);
    put(c, b, code);
}

static void json_text(Ctx *c, Builder *b, const Value *v, const JsonStyle *style)
{
    static const char from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt";
    const Text       *t = &v->u.text;
    size_t            plain = 0; /* from here to the character at hand nothing is escaped */

    tpl_step(c, t->n / 8);
    put(c, b, "\"");
    for (size_t at = 0; at < t->n;) {
        const size_t   here = at;
        const gunichar ch = tpl_char(v, &at);
        const char    *named = ch < 0x80 ? strchr(from, (int)ch) : NULL; /* no text holds a NUL */

        if (!named && ch >= 0x20 && !(style->ascii && ch >= 0x7f))
            continue;
        tpl_put(c, b, t->s + plain, here - plain, false);
        plain = at;
        if (named) {
            const char out[] = { '\\', to[named - from] };
            tpl_put(c, b, out, 2, false);
        } else {
            json_escape(c, b, ch);
        }
    }
    tpl_put(c, b, t->s + plain, t->n - plain, false);
    put(c, b, "\"");
}

static void json_break(Ctx *c, Builder *b, const JsonStyle *style, int depth)
{
    if (!style->indent)
        return;
    put(c, b, "\n");
    for (int i = 0; i < depth; i++)
        tpl_put(c, b, style->indent->u.text.s, style->indent->u.text.n, false);
}

static void json_list(Ctx *c, Builder *b, List l, const JsonStyle *style, int depth)
{
    put(c, b, "[");
    for (size_t i = 0; i < l.n; i++) {
        if (i)
            tpl_put(c, b, style->comma->u.text.s, style->comma->u.text.n, false);
        json_break(c, b, style, depth + 1);
        json_value(c, b, l.at[i], style, depth + 1);
    }
    if (l.n)
        json_break(c, b, style, depth);
    put(c, b, "]");
}

static void json_key(Ctx *c, Builder *b, const Value *key, const JsonStyle *style)
{
    if (is_str(key)) {
        json_text(c, b, key, style);
        return;
    }
    if (key->kind != V_NONE && !tpl_is_number(key))
        tpl_fail(c, "tojson: a %s cannot be a key", tpl_kind_name(key));
    put(c, b, "\"");
    json_value(c, b, key, style, 0);
    put(c, b, "\"");
}

static void json_dict(Ctx *c, Builder *b, const Dict *d, const JsonStyle *style, int depth)
{
    const size_t *order = style->sort ? tpl_sorted(c, d->keys, d->n, false) : NULL;

    put(c, b, "{");
    for (size_t i = 0; i < d->n; i++) {
        const size_t at = order ? order[i] : i;
        if (i)
            tpl_put(c, b, style->comma->u.text.s, style->comma->u.text.n, false);
        json_break(c, b, style, depth + 1);
        json_key(c, b, d->keys[at], style);
        tpl_put(c, b, style->colon->u.text.s, style->colon->u.text.n, false);
        json_value(c, b, d->values[at], style, depth + 1);
    }
    if (d->n)
        json_break(c, b, style, depth);
    put(c, b, "}");
}

static void json_value(Ctx *c, Builder *b, const Value *v, const JsonStyle *style, int depth)
{
    const Value *text;

    tpl_enter(c);
    tpl_step(c, 1);
    switch (v->kind) {
    case V_NONE:
        put(c, b, "null");
        break;
    case V_BOOL:
        put(c, b, v->u.integer ? "true" : "false");
        break;
    case V_INT:
    case V_FLOAT:
        text = tpl_to_str(c, v);
        if (v->kind == V_FLOAT && !isfinite(v->u.number))
            put(c, b, isnan(v->u.number) ? "NaN" : v->u.number > 0 ? "Infinity" : "-Infinity");
        else
            tpl_put(c, b, text->u.text.s, text->u.text.n, false);
        break;
    case V_STRING:
        json_text(c, b, v, style);
        break;
    case V_LIST:
    case V_TUPLE:
        json_list(c, b, v->u.list, style, depth);
        break;
    case V_DICT:
        json_dict(c, b, v->u.dict, style, depth);
        break;
    case V_UNDEFINED:
        tpl_fail_missing(c, v);
    default:
        tpl_fail(c, "tojson: a %s has no JSON form", tpl_kind_name(v));
    }
    tpl_leave(c);
}

const Value *tpl_json(Ctx *c, const Value *v, const JsonStyle *style)
{
    Builder b = { 0 };

    json_value(c, &b, v, style, 0);
    return tpl_built(c, &b);
}
