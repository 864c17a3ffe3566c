/* scan.c - the split rules of GPT-2, Llama 3 and Qwen 2, by hand.
 *
 * Each follows one regular expression, alternative by alternative, with the classes
 * of Unicode's general categories from GLib: L letters, N numbers, white space, and
 * "other".  A byte that is no UTF-8 is "other".  A run of white space is looked at
 * twice at most, so a scan of the whole text is linear.
 *
 *   gpt-2    's|'t|'re|'ve|'m|'ll|'d| ?L+| ?N+| ?other+|space+(?!\S)|space+
 *   llama 3  (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n L N]?L+|N{1,3}| ?other+[\r\n]*
 *            |space*[\r\n]+|space+(?!\S)|space+
 *   qwen 2   the same with N for N{1,3}
 */
#include "scan.h"

#include "utf8.h"

#include <glib.h>
#include <stdbool.h>

typedef enum { LETTER, NUMBER, SPACE, NEWLINE, OTHER, AT_END } Class;

static inline Class of_ascii(unsigned char c)
{
    if ((unsigned char)((c | 0x20) - 'a') < 26)
        return LETTER;
    if ((unsigned char)(c - '0') < 10)
        return NUMBER;
    return c == '\n' || c == '\r' ? NEWLINE : c == ' ' || c == '\t' || c == '\v' || c == '\f' ? SPACE : OTHER;
}

static Class beyond_ascii(uint32_t c)
{
    if (c >= MI_INVALID_BYTE)
        return OTHER;
    switch (g_unichar_type(c)) {
    case G_UNICODE_UPPERCASE_LETTER:
    case G_UNICODE_LOWERCASE_LETTER:
    case G_UNICODE_TITLECASE_LETTER:
    case G_UNICODE_MODIFIER_LETTER:
    case G_UNICODE_OTHER_LETTER:
        return LETTER;
    case G_UNICODE_DECIMAL_NUMBER:
    case G_UNICODE_LETTER_NUMBER:
    case G_UNICODE_OTHER_NUMBER:
        return NUMBER;
    case G_UNICODE_SPACE_SEPARATOR:
    case G_UNICODE_LINE_SEPARATOR:
    case G_UNICODE_PARAGRAPH_SEPARATOR:
        return SPACE;
    default:
        return c == 0x85 ? SPACE : OTHER;
    }
}

/* The class of the character at p, and where the next one begins. */
static inline Class classify(const char *p, const char *end, const char **next)
{
    size_t n;

    if (p >= end) {
        *next = end;
        return AT_END;
    }
    const unsigned char c = (unsigned char)*p;
    if (c < 128) {
        *next = p + 1;
        return of_ascii(c);
    }
    const uint32_t u = mi_utf8_at(p, end, &n);
    *next = p + n;
    return beyond_ascii(u);
}

static inline const char *run(Class class, const char *p, const char *end)
{
    const char *next;
    while (classify(p, end, &next) == class)
        p = next;
    return p;
}

/* The end of 's 't 're 've 'm 'll 'd at p, which is the apostrophe; NULL.  Without regard to
 * case U+017F is an s as well. */
static const char *contraction(const char *p, const char *end, bool any_case)
{
    static const char pairs[][2] = { { 'r', 'e' }, { 'v', 'e' }, { 'l', 'l' } };

    if (end - p < 2)
        return NULL;
    const char a = any_case ? g_ascii_tolower(p[1]) : p[1];
    if (a == 's' || a == 't' || a == 'm' || a == 'd')
        return p + 2;
    if (end - p < 3)
        return NULL;
    if (any_case && (unsigned char)p[1] == 0xc5 && (unsigned char)p[2] == 0xbf)
        return p + 3;
    const char b = any_case ? g_ascii_tolower(p[2]) : p[2];
    for (size_t i = 0; i < G_N_ELEMENTS(pairs); i++)
        if (a == pairs[i][0] && b == pairs[i][1])
            return p + 3;
    return NULL;
}

/* White space at p: space+(?!\S)|space+ leaves the last character to what follows, if
 * there is more than one and something follows.  newline: one past the last \r or \n. */
static const char *blanks(const char *p, const char *end, const char **newline)
{
    const char *last = p, *at = p, *next;
    size_t      n = 0;

    *newline = NULL;
    for (Class c; (c = classify(at, end, &next)) == SPACE || c == NEWLINE; at = next) {
        last = at;
        n++;
        if (c == NEWLINE)
            *newline = next;
    }
    return at == end || n == 1 ? at : last;
}

const char *mi_scan_gpt2(const char *p, const char *end)
{
    const char *next, *after, *newline, *e;

    if (*p == '\'' && (e = contraction(p, end, false)))
        return e;
    Class class = classify(p, end, &next);
    if (*p == ' ') {
        const Class following = classify(next, end, &after);
        if (following == LETTER || following == NUMBER || following == OTHER)
            return run(following, after, end);
    }
    if (class == SPACE || class == NEWLINE)
        return blanks(p, end, &newline);
    return run(class, next, end);
}

static inline const char *scan_llama3(const char *p, const char *end, int digits)
{
    const char *next, *after, *newline, *e;

    if (*p == '\'' && (e = contraction(p, end, true)))
        return e;
    const Class class = classify(p, end, &next);
    if (class == LETTER)
        return run(LETTER, next, end);
    if (class == NUMBER) {
        for (int i = 1; i < digits && classify(next, end, &after) == NUMBER; i++)
            next = after;
        return next;
    }
    const Class following = class == NEWLINE ? AT_END : classify(next, end, &after);
    if (following == LETTER)
        return run(LETTER, after, end);
    if (class == OTHER || (*p == ' ' && following == OTHER))
        return run(NEWLINE, run(OTHER, next, end), end);
    e = blanks(p, end, &newline);
    return newline ? newline : e;
}

const char *mi_scan_llama3(const char *p, const char *end) { return scan_llama3(p, end, 3); }
const char *mi_scan_qwen2(const char *p, const char *end) { return scan_llama3(p, end, 1); }

const char *mi_scan_digits(const char *p, const char *end)
{
    const char *next;

    if (classify(p, end, &next) == NUMBER)
        return next;
    while (next < end) {
        p = next;
        if (classify(p, end, &next) == NUMBER)
            return p;
    }
    return end;
}
