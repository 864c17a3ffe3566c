/* json_scan.c - see json_scan.h.  No recursion: depth costs nothing. */
#include "json_scan.h"

#include <glib.h>
#include <string.h>

static bool wrong(MiJson *j, const char *wanted)
{
    if (!j->wrong)
        j->wrong = wanted;
    return false;
}

static inline bool is_blank(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

char mi_json_peek(MiJson *j)
{
    const char *p = j->at;

    while (p < j->end && is_blank(*p))
        p++;
    j->at = p;
    return p < j->end ? *p : 0;
}

static bool expect(MiJson *j, char c, const char *wanted)
{
    if (j->wrong || mi_json_peek(j) != c)
        return wrong(j, wanted);
    j->at++;
    return true;
}

bool mi_json_open(MiJson *j, char bracket) { return expect(j, bracket, bracket == '{' ? "an object" : "an array"); }

bool mi_json_more(MiJson *j, char bracket, size_t *n)
{
    if (j->wrong)
        return false;
    if (mi_json_peek(j) == bracket) {
        j->at++;
        return false;
    }
    return !(*n)++ || expect(j, ',', "a comma");
}

/* The code of \uXXXX at p, past the u; -1. */
static int32_t hex4(const char *p, const char *end)
{
    int32_t c = 0;

    if (end - p < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        const int digit = g_ascii_xdigit_value(p[i]);
        if (digit < 0)
            return -1;
        c = c << 4 | digit;
    }
    return c;
}

/* One escape at j->at, past the backslash. */
static bool escape(MiJson *j, char **out)
{
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";

    if (j->at == j->end)
        return wrong(j, "an escape of a string");
    const char *name = memchr(names, *j->at, sizeof names - 1);
    if (name) {
        *(*out)++ = values[name - names];
        j->at++;
        return true;
    }
    if (*j->at != 'u')
        return wrong(j, "an escape of a string");
    int32_t c = hex4(j->at + 1, j->end);
    size_t  n = 5;
    if (c >= 0xd800 && c < 0xdc00) {
        const char   *low = j->at + n;
        const int32_t second = j->end - low >= 6 && low[0] == '\\' && low[1] == 'u' ? hex4(low + 2, j->end) : -1;
        c = second >= 0xdc00 && second < 0xe000 ? 0x10000 + ((c - 0xd800) << 10) + (second - 0xdc00) : -1;
        n = 11;
    }
    if (c < 0 || (c >= 0xd800 && c < 0xe000))
        return wrong(j, "the code of a character");
    j->at += n;
    *out += g_unichar_to_utf8((gunichar)c, *out);
    return true;
}

bool mi_json_string(MiJson *j, char **buffer, MiJsonText *out)
{
    if (!expect(j, '"', "a string"))
        return false;
    const char *p = j->at;
    while (p < j->end && *p != '"' && *p != '\\' && (unsigned char)*p >= 0x20)
        p++;
    *out = (MiJsonText){ j->at, (size_t)(p - j->at) };
    if (p < j->end && *p == '"') {
        j->at = p + 1;
        return true;
    }
    char *to = *buffer;
    memcpy(to, j->at, out->len);
    to += out->len;
    for (j->at = p; j->at < j->end && *j->at != '"';) {
        if ((unsigned char)*j->at < 0x20)
            return wrong(j, "no control character in a string");
        if (*j->at != '\\')
            *to++ = *j->at++;
        else if (j->at++, !escape(j, &to))
            return false;
    }
    *out = (MiJsonText){ *buffer, (size_t)(to - *buffer) };
    *buffer = to;
    return expect(j, '"', "the end of a string");
}

bool mi_json_key(MiJson *j, char **buffer, MiJsonText *out)
{
    return mi_json_string(j, buffer, out) && expect(j, ':', "a colon");
}

static bool in_number(char c) { return g_ascii_isalnum(c) || c == '+' || c == '-' || c == '.'; }

/* Copies the number, so that it ends with NUL. */
static bool number(MiJson *j, char out[64])
{
    size_t n = 0;

    mi_json_peek(j);
    while (j->at + n < j->end && n < 63 && in_number(j->at[n]))
        n++;
    memcpy(out, j->at, n);
    out[n] = 0;
    return g_ascii_isdigit(out[0]) || (out[0] == '-' && g_ascii_isdigit(out[1]));
}

bool mi_json_int(MiJson *j, int64_t *out)
{
    char text[64], *end;

    if (j->wrong || !number(j, text))
        return wrong(j, "an integer");
    *out = g_ascii_strtoll(text, &end, 10);
    if (*end || *out == INT64_MAX || *out == INT64_MIN)
        return wrong(j, "an integer");
    j->at += end - text;
    return true;
}

bool mi_json_real(MiJson *j, double *out)
{
    char text[64], *end;

    if (j->wrong || !number(j, text))
        return wrong(j, "a number");
    *out = g_ascii_strtod(text, &end);
    if (*end || strpbrk(text, "xX"))
        return wrong(j, "a number");
    j->at += end - text;
    return true;
}

/* Past the string that begins at p; end: it does not end. */
static const char *skip_string(const char *p, const char *end)
{
    for (p++; p < end && *p != '"'; p++)
        p += *p == '\\' && p + 1 < end;
    return p < end ? p + 1 : end;
}

bool mi_json_skip(MiJson *j, MiJsonText *out)
{
    size_t depth = 0;

    if (j->wrong || !mi_json_peek(j))
        return wrong(j, "a value");
    const char *start = j->at, *p = start, *end = j->end;
    for (char c = 0; p < end && (depth || (c != '"' && c != '}' && c != ']'));) {
        c = *p;
        if (!depth && (c == ',' || c == '}' || c == ']'))
            break;
        depth += c == '{' || c == '[';
        depth -= c == '}' || c == ']';
        p = c == '"' ? skip_string(p, end) : p + 1;
    }
    j->at = p;
    if (depth || (*start == '"' && (p - start < 2 || p[-1] != '"')))
        return wrong(j, depth ? "a closing bracket" : "the end of a string");
    if (p == start)
        return wrong(j, "a value");
    *out = (MiJsonText){ start, (size_t)(p - start) };
    return true;
}

bool mi_json_is(const MiJsonText *t, const char *word)
{
    return t->len == strlen(word) && !memcmp(t->text, word, t->len);
}
