/* template_text.c - strings of the template interpreter, byte by byte trusted or not. */
#define _GNU_SOURCE /* memmem */
#include "template_text.h"

#include <string.h>

/* ---- putting together -------------------------------------------------- */
static void grow(Ctx *c, Builder *b, size_t more)
{
    const size_t room = MAX(b->n + more, b->room ? 2 * b->room : 64);
    char        *s;

    if (more <= b->room - b->n)
        return;
    s = tpl_alloc(c, room);
    if (b->n)
        memcpy(s, b->s, b->n);
    if (b->marks) {
        uint8_t *marks = tpl_alloc(c, room);
        memcpy(marks, b->marks, b->n);
        b->marks = marks;
    }
    b->s = s;
    b->room = room;
}

/* From here on every byte has its own mark. */
static void mark_each(Ctx *c, Builder *b)
{
    if (b->marks)
        return;
    b->marks = tpl_alloc(c, b->room);
    memset(b->marks, b->trusted, b->n);
}

void tpl_put(Ctx *c, Builder *b, const char *s, size_t n, bool trusted)
{
    if (n == 0)
        return;
    tpl_step(c, n / 64);
    grow(c, b, n);
    if (b->n == 0)
        b->trusted = trusted;
    if (b->trusted != trusted)
        mark_each(c, b);
    memcpy(b->s + b->n, s, n);
    if (b->marks)
        memset(b->marks + b->n, trusted, n);
    b->n += n;
}

void tpl_put_slice(Ctx *c, Builder *b, const Value *text, size_t start, size_t n)
{
    const Text *t = &text->u.text;

    if (n == 0)
        return;
    if (!t->marks) {
        tpl_put(c, b, t->s + start, n, text->trusted);
        return;
    }
    tpl_step(c, n / 64);
    grow(c, b, n);
    mark_each(c, b);
    memcpy(b->s + b->n, t->s + start, n);
    memcpy(b->marks + b->n, t->marks + start, n);
    b->n += n;
}

void tpl_put_value(Ctx *c, Builder *b, const Value *v)
{
    if (!is_str(v))
        v = tpl_to_str(c, v);
    tpl_put_slice(c, b, v, 0, v->u.text.n);
}

static size_t count_chars(const char *s, size_t n)
{
    size_t chars = 0;

    for (size_t i = 0; i < n; i++)
        chars += ((guchar)s[i] & 0xc0) != 0x80;
    return chars;
}

static const Value *text_value(Ctx *c, const char *s, size_t n, const uint8_t *marks, bool trusted)
{
    Value *v = tpl_new(c, V_STRING);

    v->trusted = trusted;
    v->u.text = (Text){ .s = s ? s : "", .n = n, .marks = marks, .chars = count_chars(s, n) };
    return v;
}

const Value *tpl_text(Ctx *c, const char *s, size_t n, bool trusted) { return text_value(c, s, n, NULL, trusted); }
const Value *tpl_str(Ctx *c, const char *s) { return text_value(c, s, strlen(s), NULL, true); }

const Value *tpl_built(Ctx *c, Builder *b)
{
    return text_value(c, b->s, b->n, b->marks, b->n == 0 || b->trusted);
}

const Value *tpl_cut(Ctx *c, const Value *text, size_t start, size_t n)
{
    const Text *t = &text->u.text;

    if (start == 0 && n == t->n)
        return text;
    tpl_step(c, n / 256);
    return text_value(c, t->s + start, n, t->marks ? t->marks + start : NULL, text->trusted);
}

/* ---- looking into ------------------------------------------------------ */
bool tpl_trusted(const Value *text)
{
    const Text *t = &text->u.text;
    return t->marks ? memchr(t->marks, 0, t->n) == NULL : text->trusted;
}

/* Whether the byte is; of a result that replaces it. */
static bool trusted_at(const Value *text, size_t byte)
{
    return text->u.text.marks ? text->u.text.marks[byte] : text->trusted;
}

size_t tpl_offset(Ctx *c, const Value *text, size_t i)
{
    const Text *t = &text->u.text;
    size_t      byte = 0;

    if (i >= t->chars)
        return t->n;
    if (t->chars == t->n)
        return i;
    tpl_step(c, i / 16);
    for (; i > 0; i--)
        byte += (size_t)g_utf8_skip[(guchar)t->s[byte]];
    return byte;
}

size_t tpl_find(Ctx *c, const Value *text, const Value *part, size_t from)
{
    const Text *t = &text->u.text, *p = &part->u.text;
    const char *at;

    if (p->n > t->n - from)
        return SIZE_MAX;
    if (p->n == 0)
        at = t->s + from;
    else if (p->n == 1)
        at = memchr(t->s + from, p->s[0], t->n - from);
    else
        at = memmem(t->s + from, t->n - from, p->s, p->n);
    tpl_step(c, (at ? (size_t)(at - t->s) - from : t->n - from) / 64);
    return at ? (size_t)(at - t->s) : SIZE_MAX;
}

const char *tpl_name(Ctx *c, const Value *text)
{
    char *s = tpl_alloc(c, text->u.text.n + 1);
    return text->u.text.n ? memcpy(s, text->u.text.s, text->u.text.n) : s;
}

bool tpl_same(const Value *text, const char *s)
{
    return is_str(text) && text->u.text.n == strlen(s) && memcmp(text->u.text.s, s, text->u.text.n) == 0;
}

gunichar tpl_char(const Value *text, size_t *at)
{
    const char    *s = text->u.text.s + *at;
    const gunichar ch = g_utf8_get_char(s);

    *at += (size_t)g_utf8_skip[(guchar)*s];
    return ch;
}

bool tpl_is_space(gunichar ch)
{
    return ch == ' ' || (ch >= 9 && ch <= 13) || (ch >= 0x1c && ch <= 0x1f) || ch == 0x85 ||
           (ch >= 0x80 && g_unichar_isspace(ch));
}

static bool in_set(const Value *chars, gunichar ch)
{
    if (!chars)
        return tpl_is_space(ch);
    for (size_t i = 0; i < chars->u.text.n;) {
        if (tpl_char(chars, &i) == ch)
            return true;
    }
    return false;
}

const Value *tpl_strip(Ctx *c, const Value *text, const Value *chars, bool left, bool right)
{
    const Text *t = &text->u.text;
    size_t      start = 0, end = t->n, at;

    tpl_step(c, t->n / 64 * (chars ? 1 + chars->u.text.n : 1));
    while (left && start < end && (at = start, in_set(chars, tpl_char(text, &at))))
        start = at;
    while (right && end > start) {
        for (at = end - 1; ((guchar)t->s[at] & 0xc0) == 0x80;)
            at--;
        size_t next = at;
        if (!in_set(chars, tpl_char(text, &next)))
            break;
        end = at;
    }
    return tpl_cut(c, text, start, end - start);
}

/* ---- changing ---------------------------------------------------------- */
/* One character in upper or lower case; some become several (German sharp s). */
static void put_cased(Ctx *c, Builder *b, const Value *text, size_t from, size_t n, bool upper)
{
    const char    *s = text->u.text.s + from;
    const gunichar ch = g_utf8_get_char(s), other = upper ? g_unichar_toupper(ch) : g_unichar_tolower(ch);
    char           out[24];
    size_t         len;

    if (other == ch && ch >= 0x80 && upper && g_unichar_islower(ch)) {
        char *full = g_utf8_strup(s, (gssize)n);
        len = g_strlcpy(out, full, sizeof out);
        g_free(full);
    } else if (ch == 0x130 && !upper) {
        len = g_strlcpy(out, "i\xcc\x87", sizeof out);
    } else {
        len = (size_t)g_unichar_to_utf8(other, out);
    }
    tpl_put(c, b, out, MIN(len, sizeof out - 1), trusted_at(text, from));
}

/* What begins a word: of str.title() any letter after none; of the filter `title` what
 * stands after a blank, a hyphen or an opening bracket. */
static bool ends_word(gunichar ch, Case how)
{
    if (how == CASE_WORDS)
        return tpl_is_space(ch) || strchr("-({[<", ch < 0x80 ? (int)ch : 'x') != NULL;
    return !g_unichar_isalpha(ch);
}

const Value *tpl_case(Ctx *c, const Value *text, Case how)
{
    Builder b = { 0 };
    bool    first = true;

    tpl_step(c, text->u.text.n / 4);
    for (size_t at = 0; at < text->u.text.n;) {
        const size_t   from = at;
        const gunichar ch = tpl_char(text, &at);
        put_cased(c, &b, text, from, at - from, how == CASE_UPPER || (how != CASE_LOWER && first));
        first = (how == CASE_TITLE || how == CASE_WORDS) && ends_word(ch, how);
    }
    return tpl_built(c, &b);
}

const Value *tpl_replace(Ctx *c, const Value *text, const Value *old, const Value *now, int64_t count)
{
    const size_t n = text->u.text.n;
    Builder      b = { 0 };
    size_t       at = 0;

    for (; count != 0; count--) {
        size_t found = tpl_find(c, text, old, at);

        tpl_step(c, 1);
        if (found == SIZE_MAX)
            break;
        tpl_put_slice(c, &b, text, at, found - at);
        tpl_put_value(c, &b, now);
        at = found + old->u.text.n;
        if (old->u.text.n == 0) { /* between any two characters, and at both ends */
            if (at >= n)
                break;
            found = at;
            tpl_char(text, &at);
            tpl_put_slice(c, &b, text, found, at - found);
        }
    }
    tpl_put_slice(c, &b, text, at, n - at);
    return tpl_built(c, &b);
}

const Value *tpl_join(Ctx *c, const Value *separator, List items)
{
    Builder b = { 0 };

    tpl_step(c, items.n);
    for (size_t i = 0; i < items.n; i++) {
        if (i)
            tpl_put_value(c, &b, separator);
        tpl_put_value(c, &b, items.at[i]);
    }
    return tpl_built(c, &b);
}

static bool ends_line(gunichar ch)
{
    return (ch >= '\n' && ch <= '\r') || (ch >= 0x1c && ch <= 0x1e) || ch == 0x85 || ch == 0x2028 || ch == 0x2029;
}

const Value *tpl_lines(Ctx *c, const Value *text, bool keep_ends)
{
    const size_t  n = text->u.text.n;
    size_t        room = 1, count = 0, start = 0;
    const Value **lines;

    tpl_step(c, n / 8);
    for (size_t at = 0; at < n;)
        room += ends_line(tpl_char(text, &at));
    lines = tpl_array(c, room, sizeof *lines);
    for (size_t at = 0; at < n;) {
        const size_t   end = at;
        const gunichar ch = tpl_char(text, &at);

        if (!ends_line(ch))
            continue;
        if (ch == '\r' && at < n && text->u.text.s[at] == '\n')
            at++;
        lines[count++] = tpl_cut(c, text, start, (keep_ends ? at : end) - start);
        start = at;
    }
    if (start < n)
        lines[count++] = tpl_cut(c, text, start, n - start);
    return tpl_list(c, V_LIST, lines, count);
}
