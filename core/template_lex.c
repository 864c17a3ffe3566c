/* template_lex.c - a template's source as tokens, one at a time.
 *
 * Blanks round tags go as Hugging Face sets Jinja up (trim_blocks, lstrip_blocks): the
 * line's end behind a {% %} or {# #} goes; blanks between the line's start and such a tag
 * go; a `-` inside a delimiter takes all blanks on its side, a `+` keeps them. */
#include "template_node.h"

#include <string.h>

static bool is_digit(char ch) { return ch >= '0' && ch <= '9'; }
static bool is_letter(char ch) { return (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || ch == '_'; }

Lexer tpl_lexer(Ctx *c, const char *source, size_t n)
{
    char  *s = tpl_alloc(c, n + 1);
    size_t to = 0;

    for (size_t i = 0; i < n; i++) {
        if (source[i] == '\r' && i + 1 < n && source[i + 1] == '\n')
            continue;
        s[to++] = source[i] == '\r' ? '\n' : source[i];
    }
    if (to && s[to - 1] == '\n')
        to--;
    s[to] = 0; /* so that looking a few bytes ahead is safe */
    return (Lexer){ .c = c, .s = s, .n = to, .line = 1, .within = T_TEXT, .opened = T_END, .fresh_line = true };
}

static int line_at(Lexer *l, size_t at)
{
    for (; l->counted < at; l->counted++)
        l->line += l->s[l->counted] == '\n';
    l->c->line = l->line;
    return l->line;
}

static bool starts(const Lexer *l, size_t at, const char *with)
{
    const size_t n = strlen(with);
    return l->n - at >= n && memcmp(l->s + at, with, n) == 0;
}

/* Blanks are Unicode's. */
static size_t skip_blanks(const Lexer *l, size_t at)
{
    while (at < l->n && tpl_is_space(g_utf8_get_char(l->s + at)))
        at += (size_t)g_utf8_skip[(guchar)l->s[at]];
    return at;
}

/* Where the blank that ends at `end` begins; `end` itself: there is none. */
static size_t blank_before(const Lexer *l, size_t start, size_t end)
{
    size_t at = end;

    if (end == start)
        return end;
    do
        at--;
    while (at > start && ((guchar)l->s[at] & 0xc0) == 0x80);
    return tpl_is_space(g_utf8_get_char(l->s + at)) ? at : end;
}

/* A tag ended just before `at`, with this sign inside; returns where what follows begins. */
static size_t after_tag(Lexer *l, size_t at, char sign, bool trim_line)
{
    const size_t from = at;

    if (sign == '-')
        at = skip_blanks(l, at);
    else if (trim_line && sign != '+' && at < l->n && l->s[at] == '\n')
        at++;
    l->fresh_line = at > from && l->s[at - 1] == '\n';
    return at;
}

/* Where the text [start, end) ends once the tag at `end` has taken its blanks. */
static size_t text_end(const Lexer *l, size_t start, size_t end, char sign, bool is_print)
{
    size_t at = end, next;

    while ((next = blank_before(l, start, at)) < at && (sign == '-' || l->s[next] != '\n'))
        at = next;
    if (sign == '-')
        return at;
    if (sign == '+' || is_print)
        return end;
    /* Only when nothing but blanks stands between the line's start and the tag. */
    return (at > start && l->s[at - 1] == '\n') || (at == start && l->fresh_line) ? at : end;
}

static void give_text(Lexer *l, Token *t, size_t start, size_t end)
{
    t->type = T_TEXT;
    t->line = line_at(l, start);
    t->value = tpl_text(l->c, l->s + start, end - start, true);
}

/* The end of a tag such as {% endraw %}, at `at`: past it, or 0. */
static size_t tag_ends(const Lexer *l, size_t at, const char *word, char *sign)
{
    at = skip_blanks(l, at);
    if (!starts(l, at, word))
        return 0;
    at = skip_blanks(l, at + strlen(word));
    *sign = 0;
    if (l->s[at] == '-' || l->s[at] == '+')
        *sign = l->s[at++];
    return starts(l, at, "%}") ? at + 2 : 0;
}

static char sign_at(const Lexer *l, size_t at)
{
    return at < l->n && (l->s[at] == '-' || l->s[at] == '+') ? l->s[at] : 0;
}

/* {% raw %} was found, its content begins at `start`: up to {% endraw %} it is text. */
static void lex_raw(Lexer *l, Token *t, size_t start)
{
    for (size_t at = start; at < l->n; at++) {
        char   sign, end_sign;
        size_t end;

        if (!starts(l, at, "{%"))
            continue;
        sign = sign_at(l, at + 2);
        end = tag_ends(l, at + 2 + (sign != 0), "endraw", &end_sign);
        if (!end)
            continue;
        give_text(l, t, start, text_end(l, start, at, sign, false));
        l->at = after_tag(l, end, end_sign, true);
        return;
    }
    line_at(l, start);
    tpl_fail(l->c, "{%% raw %%} has no {%% endraw %%}");
}

static void skip_comment(Lexer *l, size_t start)
{
    const char *end = g_strstr_len(l->s + start, (gssize)(l->n - start), "#}");
    char        sign = 0;

    line_at(l, start);
    if (!end)
        tpl_fail(l->c, "comment has no end #}");
    if (end > l->s + start && (end[-1] == '-' || end[-1] == '+'))
        sign = end[-1];
    l->at = after_tag(l, (size_t)(end - l->s) + 2, sign, true);
}

/* Text up to the next tag; false: there is none, the tag has begun. */
static bool lex_text(Lexer *l, Token *t)
{
    const size_t start = l->at;
    size_t       open = start, end, raw;
    char         kind, sign, raw_sign;

    while (open < l->n && !(l->s[open] == '{' && strchr("{%#", l->s[open + 1]) && l->s[open + 1]))
        open++;
    if (open == l->n) {
        l->at = l->n;
        give_text(l, t, start, l->n);
        return l->n > start;
    }
    kind = l->s[open + 1];
    sign = sign_at(l, open + 2);
    end = text_end(l, start, open, sign, kind == '{');
    give_text(l, t, start, end);
    l->at = open + 2 + (sign != 0);
    l->fresh_line = false;
    if (kind == '#') {
        skip_comment(l, l->at);
    } else if (kind == '%' && (raw = tag_ends(l, l->at, "raw", &raw_sign)) && raw_sign != '+') {
        Token before = *t;
        lex_raw(l, t, after_tag(l, raw, raw_sign, false));
        if (before.value->u.text.n) {
            Builder both = { 0 };
            tpl_put_value(l->c, &both, before.value);
            tpl_put_value(l->c, &both, t->value);
            t->value = tpl_built(l->c, &both);
        }
    } else {
        l->opened = kind == '{' ? T_PRINT : T_TAG;
    }
    return t->value->u.text.n > 0;
}

static void bad_number(Lexer *l, Token *t) { tpl_fail(l->c, "bad number '%.*s'", (int)MIN(t->n, 40), t->s); }

/* Digits with single _ between them, without the _, to `out`; returns where they end. */
static size_t digits(Lexer *l, size_t at, GString *out)
{
    while (at < l->n && (is_digit(l->s[at]) || (l->s[at] == '_' && is_digit(l->s[at + 1])))) {
        if (l->s[at] != '_')
            g_string_append_c(out, l->s[at]);
        at++;
    }
    return at;
}

static const Value *number_value(Lexer *l, Token *t, const char *text, bool is_float)
{
    gchar  *end;
    guint64 v;

    if (is_float) {
        const double d = g_ascii_strtod(text, NULL);
        return tpl_float(l->c, d, true);
    }
    if (text[0] == '0' && text[1] && strspn(text, "0") != strlen(text))
        bad_number(l, t);
    if (strlen(text) > 19)
        tpl_fail(l->c, "the number %.40s does not fit in 64 bits", text);
    v = g_ascii_strtoull(text, &end, 10);
    if (v > INT64_MAX)
        tpl_fail(l->c, "the number %.40s does not fit in 64 bits", text);
    return tpl_int(l->c, (int64_t)v, true);
}

/* 12, 1_000, 1.5, 2e3.  The text is short, or a copy of it lives in the arena only. */
static void lex_number(Lexer *l, Token *t)
{
    enum { LONGEST = 400 };
    GString *text = g_string_sized_new(LONGEST);
    size_t   at = digits(l, l->at, text), e;
    bool     is_float = false;
    char     copy[LONGEST];

    if (at < l->n && l->s[at] == '.' && is_digit(l->s[at + 1])) {
        g_string_append_c(text, '.');
        at = digits(l, at + 1, text);
        is_float = true;
    }
    e = at + 1 + (at < l->n && (l->s[at + 1] == '+' || l->s[at + 1] == '-'));
    if (at < l->n && (l->s[at] | 32) == 'e' && is_digit(l->s[e])) {
        g_string_append_len(text, l->s + at, (gssize)(e - at));
        at = digits(l, e, text);
        is_float = true;
    }
    t->n = at - l->at;
    l->at = at;
    g_strlcpy(copy, text->str, sizeof copy);
    e = text->len;
    g_string_free(text, TRUE);
    if (e >= LONGEST)
        bad_number(l, t);
    t->type = T_VALUE;
    t->value = number_value(l, t, copy, is_float);
}

/* \x41 and the like: `most` hex digits exactly, or up to three octal ones. */
static size_t escape_code(Lexer *l, size_t at, size_t end, Builder *b)
{
    const char   kind = l->s[at];
    const size_t most = kind == 'x' ? 2 : kind == 'u' ? 4 : kind == 'U' ? 8 : 3;
    const int    base = most == 3 ? 8 : 16;
    size_t       i = most == 3 ? at : at + 1, n = 0;
    guint32      code = 0;
    char         utf8[6];

    for (; n < most && i < end; n++, i++) {
        const int digit = g_ascii_xdigit_value(l->s[i]);
        if (digit < 0 || digit >= base)
            break;
        code = code * (guint32)base + (guint32)digit;
    }
    if ((base == 16 && n < most) || code == 0 || !g_unichar_validate(code))
        tpl_fail(l->c, "bad escape \\%c in a string", kind);
    tpl_put(l->c, b, utf8, (size_t)g_unichar_to_utf8(code, utf8), true);
    return i;
}

/* The string between [start, end), which holds at least one backslash. */
static const Value *unescape(Lexer *l, size_t start, size_t end)
{
    static const char from[] = "\\'\"abfnrtv", to[] = "\\'\"\a\b\f\n\r\t\v";
    Builder           b = { 0 };

    for (size_t at = start; at < end;) {
        const char  ch = l->s[at], next = l->s[at + 1];
        const char *known = strchr(from, next); /* a source has no NUL */

        if (ch != '\\') {
            const char *slash = memchr(l->s + at, '\\', end - at);
            size_t      n = slash ? (size_t)(slash - (l->s + at)) : end - at;
            tpl_put(l->c, &b, l->s + at, n, true);
            at += n;
        } else if (known) {
            tpl_put(l->c, &b, &to[known - from], 1, true);
            at += 2;
        } else if (next == '\n') {
            at += 2;
        } else if ((next >= '0' && next <= '7') || next == 'x' || next == 'u' || next == 'U') {
            at = escape_code(l, at + 1, end, &b);
        } else if (next == 'N') {
            tpl_fail(l->c, "characters by name (\\N) are not supported");
        } else { /* an unknown escape stays what it is */
            tpl_put(l->c, &b, l->s + at, 1, true);
            at++;
        }
    }
    return tpl_built(l->c, &b);
}

static void lex_string(Lexer *l, Token *t)
{
    const char   quote = l->s[l->at];
    const size_t start = l->at + 1;
    size_t       end = start;
    bool         plain = true;

    while (end < l->n && l->s[end] != quote) {
        if (l->s[end] == '\\') {
            plain = false;
            end++;
        }
        end++;
    }
    if (end >= l->n)
        tpl_fail(l->c, "string has no closing %c", quote);
    t->type = T_VALUE;
    t->n = end + 1 - l->at;
    t->value = plain ? tpl_text(l->c, l->s + start, end - start, true) : unescape(l, start, end);
    l->at = end + 1;
}

static bool lex_end(Lexer *l, Token *t)
{
    const bool   print = l->within == T_PRINT;
    const char  *mark = print ? "}}" : "%}";
    const char   sign = print && l->s[l->at] == '+' ? 0 : sign_at(l, l->at);
    const size_t end = l->at + (sign != 0);

    if (l->brackets || !starts(l, end, mark))
        return false;
    t->type = print ? T_PRINT_END : T_TAG_END;
    t->n = end + 2 - l->at;
    l->at = after_tag(l, end + 2, sign, !print);
    l->within = T_TEXT;
    return true;
}

/* Longest first. */
static const struct { const char *text; Op op; } ops[] = {
    { "//", OP_FLOORDIV }, { "**", OP_POW },      { "==", OP_EQ },      { "!=", OP_NE },       { "<=", OP_LE },
    { ">=", OP_GE },       { "<", OP_LT },        { ">", OP_GT },       { "+", OP_ADD },       { "-", OP_SUB },
    { "*", OP_MUL },       { "/", OP_DIV },       { "%", OP_MOD },      { "(", OP_LPAREN },    { ")", OP_RPAREN },
    { "[", OP_LBRACKET },  { "]", OP_RBRACKET },  { "{", OP_LBRACE },   { "}", OP_RBRACE },    { "~", OP_TILDE },
    { "|", OP_PIPE },      { ".", OP_DOT },       { ",", OP_COMMA },    { ":", OP_COLON },     { "=", OP_ASSIGN },
};

static void lex_op(Lexer *l, Token *t)
{
    for (size_t i = 0; i < G_N_ELEMENTS(ops); i++) {
        if (!starts(l, l->at, ops[i].text))
            continue;
        t->type = T_OP;
        t->op = ops[i].op;
        t->n = strlen(ops[i].text);
        l->at += t->n;
        if (t->op == OP_LPAREN || t->op == OP_LBRACKET || t->op == OP_LBRACE)
            l->brackets++;
        else if ((t->op == OP_RPAREN || t->op == OP_RBRACKET || t->op == OP_RBRACE) && l->brackets-- == 0)
            tpl_fail(l->c, "unexpected '%s'", ops[i].text);
        return;
    }
    if (l->s[l->at] > ' ' && l->s[l->at] < 0x7f)
        tpl_fail(l->c, "unexpected character '%c'", l->s[l->at]);
    tpl_fail(l->c, "unexpected byte %02X", (guint)(guchar)l->s[l->at]);
}

static void lex_name(Lexer *l, Token *t)
{
    char *name;

    for (t->n = 1; l->at + t->n < l->n && (is_letter(t->s[t->n]) || is_digit(t->s[t->n]));)
        t->n++;
    name = tpl_alloc(l->c, t->n + 1);
    memcpy(name, t->s, t->n);
    t->type = T_NAME;
    t->name = name;
    l->at += t->n;
}

void tpl_lex(Lexer *l, Token *t)
{
    *t = (Token){ .type = T_END };
    while (l->within == T_TEXT && l->opened == T_END) {
        if (l->at >= l->n) {
            *t = (Token){ .type = T_END, .line = line_at(l, l->n) };
            return;
        }
        if (lex_text(l, t))
            return;
    }
    if (l->opened != T_END) {
        *t = (Token){ .type = l->opened, .line = line_at(l, l->at) };
        l->within = l->opened;
        l->opened = T_END;
        l->brackets = 0;
        return;
    }
    l->at = skip_blanks(l, l->at);
    *t = (Token){ .line = line_at(l, l->at), .s = l->s + l->at };
    if (l->at >= l->n)
        tpl_fail(l->c, "the template ends inside a tag");
    if (lex_end(l, t))
        return;
    if (is_letter(l->s[l->at]))
        lex_name(l, t);
    else if (is_digit(l->s[l->at]))
        lex_number(l, t);
    else if (l->s[l->at] == '"' || l->s[l->at] == '\'')
        lex_string(l, t);
    else
        lex_op(l, t);
}
