/* template_format.c - text by pattern: '%5.2f' % x, '{:>8}'.format(x), strftime. */
#include "template_eval.h"

#include <math.h>
#include <string.h>

enum { MAX_WIDTH = 10000, MAX_PRECISION = 100, NUMBER_TEXT = 640 /* 309 digits, their commas, 100 decimals */ };

typedef struct {
    gunichar fill;
    char     align; /* < > ^ =, 0: by type */
    char     sign;  /* + or blank, 0: only minus */
    bool     alternate, zero, commas, percent; /* percent: of the % operator */
    int64_t  width, precision;                 /* precision -1: not given */
    char     type;                             /* 0: by the value */
} Spec;

static void put_fill(Ctx *c, Builder *b, gunichar fill, int64_t n)
{
    char      text[6];
    const int len = g_unichar_to_utf8(fill, text);

    tpl_step(c, n > 0 ? (size_t)n : 0);
    for (; n > 0; n--)
        tpl_put(c, b, text, (size_t)len, true);
}

/* `prefix` (a sign, 0x) stays in front of what '=' fills in. */
static void put_padded(Ctx *c, Builder *b, const Spec *spec, const Value *prefix, const Value *text, char align)
{
    const int64_t missing = spec->width - (int64_t)(prefix->u.text.chars + text->u.text.chars);
    const char    how = spec->align ? spec->align : align;
    const int64_t before = how == '<' ? 0 : how == '^' ? missing / 2 : missing;

    if (how != '=')
        put_fill(c, b, spec->fill, before);
    tpl_put_value(c, b, prefix);
    if (how == '=')
        put_fill(c, b, spec->fill, missing);
    tpl_put_value(c, b, text);
    if (how != '=')
        put_fill(c, b, spec->fill, missing - before);
}

static void put_text(Ctx *c, Builder *b, const Spec *spec, const Value *text)
{
    if (spec->precision >= 0 && (size_t)spec->precision < text->u.text.chars)
        text = tpl_cut(c, text, 0, tpl_offset(c, text, (size_t)spec->precision));
    put_padded(c, b, spec, tpl_str(c, ""), text, spec->percent ? '>' : '<');
}

/* 1234567.5 -> 1,234,567.5 */
static void group_digits(char text[NUMBER_TEXT])
{
    size_t whole = strspn(text, "0123456789"), len = strlen(text);

    for (size_t at = whole; at > 3; at -= 3) {
        memmove(text + at - 2, text + at - 3, len - (at - 3) + 1);
        text[at - 3] = ',';
        len++;
    }
}

static void int_digits(guint64 v, guint base, bool upper, char out[NUMBER_TEXT])
{
    char   reversed[72];
    size_t n = 0, to = 0;

    do {
        reversed[n++] = (upper ? "0123456789ABCDEF" : "0123456789abcdef")[v % base];
        v /= base;
    } while (v);
    while (n > 0)
        out[to++] = reversed[--n];
    out[to] = 0;
}

static void float_digits(double d, const Spec *spec, char out[NUMBER_TEXT])
{
    const char type = spec->type == '%' ? 'f' : spec->type ? spec->type : 'g';
    char       format[16], *e;

    if (!isfinite(d)) {
        const char *const words[] = { "inf", "nan", "INF", "NAN" };
        g_strlcpy(out, words[2 * g_ascii_isupper(type) + isnan(d)], NUMBER_TEXT);
        return;
    }
    if (!spec->type && spec->precision < 0) {
        char shortest[FLOAT_TEXT];
        tpl_float_text(d, shortest);
        g_strlcpy(out, shortest, NUMBER_TEXT);
        return;
    }
    g_snprintf(format, sizeof format, spec->alternate ? "%%#.%d%c" : "%%.%d%c",
               spec->precision < 0 ? 6 : (int)spec->precision, type);
    g_ascii_formatd(out, NUMBER_TEXT - 2, format, d);
    e = strpbrk(out, "eE.");
    if (!spec->type && !e) /* a float stays recognisable as one */
        g_strlcat(out, ".0", NUMBER_TEXT);
}

static void put_number(Ctx *c, Builder *b, const Spec *spec, const Value *v)
{
    const char type = spec->type;
    const bool of_int = type ? strchr("dixXobi", type) != NULL : v->kind != V_FLOAT;
    char       digits[NUMBER_TEXT], prefix[4] = "";
    bool       negative;
    size_t     n = 0;

    if (of_int) {
        const int64_t i = v->u.integer;
        const guint   base = type == 'x' || type == 'X' ? 16 : type == 'o' ? 8 : type == 'b' ? 2 : 10;
        negative = i < 0;
        int_digits(negative ? 0 - (guint64)i : (guint64)i, base, type == 'X', digits);
    } else {
        const double d = tpl_number(v) * (type == '%' ? 100 : 1);
        tpl_step(c, 64 + (size_t)MAX(spec->precision, 0)); /* printf of a float takes its time */
        negative = signbit(d) && !isnan(d);
        float_digits(fabs(d), spec, digits);
    }
    if (spec->commas)
        group_digits(digits);
    if (type == '%')
        g_strlcat(digits, "%", sizeof digits);
    if (negative || spec->sign)
        prefix[n++] = negative ? '-' : spec->sign;
    if (spec->alternate && of_int && type && strchr("xXob", type)) {
        prefix[n++] = '0';
        prefix[n++] = type;
    }
    Spec own = *spec;
    if (own.zero && !own.align) {
        own.align = '=';
        own.fill = '0';
    }
    Builder text = { 0 }, front = { 0 };
    tpl_put(c, &text, digits, strlen(digits), v->trusted);
    tpl_put(c, &front, prefix, n, v->trusted);
    put_padded(c, b, &own, tpl_built(c, &front), tpl_built(c, &text), '>');
}

static int64_t number_at(Ctx *c, const Value *text, size_t *at, int64_t most)
{
    int64_t v = 0;

    for (; *at < text->u.text.n && g_ascii_isdigit(text->u.text.s[*at]); ++*at) {
        v = v * 10 + (text->u.text.s[*at] - '0');
        if (v > most)
            tpl_fail(c, "a width or precision in a format is above %" G_GINT64_FORMAT, most);
    }
    return v;
}

static char byte_at(const Value *text, size_t at) { return at < text->u.text.n ? text->u.text.s[at] : 0; }

/* ---- the % operator ---------------------------------------------------- */
static void put_percent(Ctx *c, Builder *b, Spec *spec, const Value *v)
{
    Builder repr = { 0 };

    switch (spec->type) {
    case 's':
        put_text(c, b, spec, tpl_to_str(c, v));
        return;
    case 'r':
        tpl_repr(c, &repr, v);
        put_text(c, b, spec, tpl_built(c, &repr));
        return;
    case 'i':
    case 'd':
    case 'u':
        spec->type = 'd';
        if (v->kind == V_FLOAT)
            v = tpl_call_builtin(c, tpl_filter("int"), v, &(const Args){ 0 });
        break;
    case 'x':
    case 'X':
    case 'o':
        tpl_integer(c, v, "what %x and %o show");
        break;
    case 'e':
    case 'E':
    case 'f':
    case 'F':
    case 'g':
    case 'G':
        break;
    default:
        tpl_fail(c, "%% is followed by no known format letter");
    }
    if (v->kind == V_UNDEFINED)
        tpl_fail_missing(c, v);
    if (!tpl_is_number(v))
        tpl_fail(c, "%%%c shows numbers, not a %s", spec->type, tpl_kind_name(v));
    put_number(c, b, spec, v);
}

static void percent_flags(Spec *spec, const Value *format, size_t *at)
{
    for (;; ++*at) {
        switch (byte_at(format, *at)) {
        case '-':
            spec->align = '<';
            break;
        case '+':
            spec->sign = '+';
            break;
        case ' ':
            spec->sign = spec->sign ? spec->sign : ' ';
            break;
        case '#':
            spec->alternate = true;
            break;
        case '0':
            spec->zero = true;
            break;
        default:
            return;
        }
    }
}

const Value *tpl_percent(Ctx *c, const Value *format, const Value *args)
{
    const Value *sign = tpl_str(c, "%"), *close = tpl_str(c, ")"), *v;
    const List   list = args->kind == V_TUPLE ? args->u.list : (List){ &args, 1 };
    Builder      b = { 0 };
    size_t       at = 0, used = 0, found;

    while ((found = tpl_find(c, format, sign, at)) != SIZE_MAX) {
        Spec spec = { .fill = ' ', .precision = -1, .percent = true };

        tpl_step(c, 1);
        tpl_put_slice(c, &b, format, at, found - at);
        at = found + 1;
        v = NULL;
        if (byte_at(format, at) == '(') {
            found = tpl_find(c, format, close, at);
            if (found == SIZE_MAX || args->kind != V_DICT)
                tpl_fail(c, "%%(name) wants a closing ) and a dict");
            v = tpl_dict_get(c, args->u.dict, tpl_cut(c, format, at + 1, found - at - 1));
            if (!v)
                tpl_fail(c, "%%(name): the dict has no such key");
            at = found + 1;
        }
        percent_flags(&spec, format, &at);
        spec.width = number_at(c, format, &at, MAX_WIDTH);
        if (byte_at(format, at) == '.') {
            at++;
            spec.precision = number_at(c, format, &at, MAX_PRECISION);
        }
        spec.type = byte_at(format, at++);
        if (spec.type == '%') {
            tpl_put_slice(c, &b, format, at - 1, 1);
            continue;
        }
        if (!v && used == list.n)
            tpl_fail(c, "%%: there are fewer values than the format shows");
        put_percent(c, &b, &spec, v ? v : list.at[used++]);
    }
    if (used < list.n && args->kind != V_DICT && args->kind != V_LIST) /* of which Python counts none */
        tpl_fail(c, "%%: there are more values than the format shows");
    tpl_put_slice(c, &b, format, at, format->u.text.n - at);
    return tpl_built(c, &b);
}

/* ---- str.format() ------------------------------------------------------ */
/* Of a text that is not empty: [[fill]align][sign][#][0][width][,][.precision][type] */
static Spec read_spec(Ctx *c, const Value *s)
{
    Spec   spec = { .fill = ' ', .precision = -1 };
    size_t at = 0, next = 0;

    tpl_char(s, &next);
    if (byte_at(s, next) && strchr("<>^=", byte_at(s, next))) {
        spec.fill = tpl_char(s, &at);
        spec.align = byte_at(s, at++);
    } else if (strchr("<>^=", byte_at(s, 0))) { /* no text holds a NUL */
        spec.align = byte_at(s, at++);
    }
    if (byte_at(s, at) && strchr("+- ", byte_at(s, at)))
        spec.sign = byte_at(s, at++);
    spec.sign = spec.sign == '-' ? 0 : spec.sign;
    spec.alternate = byte_at(s, at) == '#';
    at += spec.alternate;
    spec.zero = byte_at(s, at) == '0';
    at += spec.zero;
    spec.width = number_at(c, s, &at, MAX_WIDTH);
    spec.commas = byte_at(s, at) == ',';
    at += spec.commas;
    if (byte_at(s, at) == '.') {
        if (!g_ascii_isdigit(byte_at(s, ++at)))
            tpl_fail(c, "format: a . without a precision");
        spec.precision = number_at(c, s, &at, MAX_PRECISION);
    }
    if (at < s->u.text.n)
        spec.type = byte_at(s, at++);
    if (at < s->u.text.n || (spec.type && !strchr("sdfFeEgGxXob%", spec.type)))
        tpl_fail(c, "bad format '{:%.*s}'", (int)MIN(s->u.text.n, 40), s->u.text.s);
    return spec;
}

static void put_formatted(Ctx *c, Builder *b, const Value *v, const Value *spec_text)
{
    Spec spec;

    if (!spec_text->u.text.n) {
        tpl_put_value(c, b, v);
        return;
    }
    spec = read_spec(c, spec_text);
    if (is_str(v) && (!spec.type || spec.type == 's') && spec.align != '=')
        put_text(c, b, &spec, v);
    else if (tpl_is_number(v) && spec.type != 's' &&
             (v->kind != V_FLOAT || !spec.type || !strchr("dxXob", spec.type)))
        put_number(c, b, &spec, v);
    else
        tpl_fail(c, "'{:%.*s}' does not fit a %s", (int)MIN(spec_text->u.text.n, 40), spec_text->u.text.s,
                 tpl_kind_name(v));
}

/* The value that {name} or {0} or {} stands for. */
static const Value *field(Ctx *c, const Value *name, const Args *args, size_t *automatic)
{
    size_t  digits = 0;
    int64_t i;

    if (name->u.text.n == 0) {
        i = (int64_t)(*automatic)++;
    } else {
        i = number_at(c, name, &digits, MAX_WIDTH);
        if (digits < name->u.text.n) {
            for (size_t k = 0; k < args->n_named; k++) {
                if (tpl_same(name, args->names[k]))
                    return args->named[k];
            }
            tpl_fail(c, "format: no argument '%.*s' (attributes and items are not supported)",
                     (int)MIN(name->u.text.n, 40), name->u.text.s);
        }
    }
    if ((size_t)i >= args->n)
        tpl_fail(c, "format: there are fewer arguments than the text shows");
    return args->at[i];
}

static void put_field(Ctx *c, Builder *b, const Value *inside, const Args *args, size_t *automatic)
{
    const Value *spec = tpl_str(c, ""), *v;
    size_t       colon = tpl_find(c, inside, tpl_str(c, ":"), 0), end = colon == SIZE_MAX ? inside->u.text.n : colon;
    bool         quoted = false;
    Builder      repr = { 0 };

    if (colon != SIZE_MAX)
        spec = tpl_cut(c, inside, colon + 1, inside->u.text.n - colon - 1);
    if (end >= 2 && inside->u.text.s[end - 2] == '!') {
        quoted = inside->u.text.s[end - 1] == 'r';
        if (!quoted && inside->u.text.s[end - 1] != 's')
            tpl_fail(c, "format: after ! comes r or s");
        end -= 2;
    }
    v = field(c, tpl_cut(c, inside, 0, end), args, automatic);
    if (quoted) {
        tpl_repr(c, &repr, v);
        v = tpl_built(c, &repr);
    }
    put_formatted(c, b, v, spec);
}

const Value *tpl_format(Ctx *c, const Value *format, const Args *args)
{
    const Text *t = &format->u.text;
    Builder     b = { 0 };
    size_t      start = 0, automatic = 0;

    for (size_t at = 0; at < t->n; at++) {
        const char ch = t->s[at];
        size_t     end;

        if (ch != '{' && ch != '}')
            continue;
        tpl_step(c, 1);
        tpl_put_slice(c, &b, format, start, at - start);
        if (byte_at(format, at + 1) == ch) { /* {{ is { */
            tpl_put_slice(c, &b, format, at, 1);
            start = ++at + 1;
            continue;
        }
        end = tpl_find(c, format, tpl_str(c, "}"), at);
        if (ch == '}' || end == SIZE_MAX)
            tpl_fail(c, "format: a single %c", ch);
        put_field(c, &b, tpl_cut(c, format, at + 1, end - at - 1), args, &automatic);
        at = end;
        start = end + 1;
    }
    tpl_put_slice(c, &b, format, start, t->n - start);
    return tpl_built(c, &b);
}

/* ---- time -------------------------------------------------------------- */
/* In English whatever the locale, in the zone of this machine. */
const Value *tpl_strftime(Ctx *c, const Value *format)
{
    static const char *const days[] = { "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday" };
    static const char *const months[] = { "January", "February", "March",     "April",   "May",      "June",
                                          "July",    "August",   "September", "October", "November", "December" };
    GDateTime *when = g_date_time_new_from_unix_local(c->now); /* looks at files, at times */
    int        year, month, day, weekday, of_year, hour, minute, second;
    Builder    b = { 0 };

    if (!when)
        tpl_fail(c, "the time is out of range");
    g_date_time_get_ymd(when, &year, &month, &day);
    weekday = g_date_time_get_day_of_week(when);
    of_year = g_date_time_get_day_of_year(when);
    hour = g_date_time_get_hour(when);
    minute = g_date_time_get_minute(when);
    second = g_date_time_get_second(when);
    g_date_time_unref(when);
    tpl_step(c, 64);

    for (size_t at = 0; at < format->u.text.n; at++) {
        char       text[32] = "";
        const char letter = byte_at(format, at + 1) == '-' ? byte_at(format, at + 2) : byte_at(format, at + 1);
        const bool bare = byte_at(format, at + 1) == '-'; /* %-d: without a leading 0 */
        const struct { char letter; int width, value; } numbers[] = {
            { 'd', 2, day },    { 'm', 2, month },   { 'Y', 4, year },   { 'y', 2, year % 100 },
            { 'H', 2, hour },   { 'M', 2, minute },  { 'S', 2, second }, { 'I', 2, (hour + 11) % 12 + 1 },
            { 'j', 3, of_year }, { 'w', 1, weekday % 7 }, { 'u', 1, weekday },
        };

        if (byte_at(format, at) != '%') {
            tpl_put_slice(c, &b, format, at, 1);
            continue;
        }
        for (size_t i = 0; i < G_N_ELEMENTS(numbers); i++) {
            if (numbers[i].letter == letter)
                g_snprintf(text, sizeof text, "%0*d", bare ? 1 : numbers[i].width, numbers[i].value);
        }
        if (letter == 'B' || letter == 'b' || letter == 'h')
            g_snprintf(text, sizeof text, "%.*s", letter == 'B' ? 10 : 3, months[month - 1]);
        else if (letter == 'A' || letter == 'a')
            g_snprintf(text, sizeof text, "%.*s", letter == 'A' ? 10 : 3, days[weekday - 1]);
        else if (letter == 'p')
            g_strlcpy(text, hour < 12 ? "AM" : "PM", sizeof text);
        else if (letter == 'e')
            g_snprintf(text, sizeof text, "%2d", day);
        else if (letter == 'F')
            g_snprintf(text, sizeof text, "%04d-%02d-%02d", year, month, day);
        else if (letter == 'T')
            g_snprintf(text, sizeof text, "%02d:%02d:%02d", hour, minute, second);
        else if (letter == '%')
            g_strlcpy(text, "%", sizeof text);
        if (!*text)
            tpl_fail(c, "strftime_now: %%%c is not supported", g_ascii_isprint(letter) ? letter : '?');
        tpl_put(c, &b, text, strlen(text), true);
        at += bare ? 2 : 1;
    }
    return tpl_built(c, &b);
}
