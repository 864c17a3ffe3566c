/* template_methods.c - methods of strings, lists, dicts, loops: those of Python that change
 * nothing. */
#include "template_eval.h"

#include <string.h>

#define METHOD(name) static const Value *name(Ctx *c, const Value *self, const Args *args)

static const Value *want_str(Ctx *c, const Value *v, const char *who)
{
    if (v->kind == V_UNDEFINED)
        tpl_fail_missing(c, v);
    if (!is_str(v))
        tpl_fail(c, "%s wants a str, not a %s", who, tpl_kind_name(v));
    return v;
}

static const Value *optional(const Value *v) { return v && v->kind != V_NONE ? v : NULL; }

/* ---- strings: whole ---------------------------------------------------- */
static const Value *strip_by(Ctx *c, const Value *self, const Args *args, bool left, bool right)
{
    const Value *chars = optional(args->at[0]);
    return tpl_strip(c, self, chars ? want_str(c, chars, "strip") : NULL, left, right);
}

METHOD(strip) { return strip_by(c, self, args, true, true); }
METHOD(lstrip) { return strip_by(c, self, args, true, false); }
METHOD(rstrip) { return strip_by(c, self, args, false, true); }
METHOD(upper) { return (void)args, tpl_case(c, self, CASE_UPPER); }
METHOD(lower) { return (void)args, tpl_case(c, self, CASE_LOWER); }
METHOD(title) { return (void)args, tpl_case(c, self, CASE_TITLE); }
METHOD(capitalize) { return (void)args, tpl_case(c, self, CASE_CAPITAL); }

METHOD(replace)
{
    return tpl_replace(c, self, want_str(c, args->at[0], "replace"), want_str(c, args->at[1], "replace"),
                       args->at[2] ? tpl_integer(c, args->at[2], "count") : -1);
}

METHOD(join)
{
    const List items = tpl_items(c, args->at[0]);

    for (size_t i = 0; i < items.n; i++)
        want_str(c, items.at[i], "join");
    return tpl_join(c, self, items);
}

METHOD(splitlines) { return tpl_lines(c, self, args->at[0] && tpl_truth(c, args->at[0])); }

METHOD(removeprefix)
{
    const Text *part = &want_str(c, args->at[0], "removeprefix")->u.text, *t = &self->u.text;
    const bool  there = part->n && part->n <= t->n && memcmp(t->s, part->s, part->n) == 0;
    return there ? tpl_cut(c, self, part->n, t->n - part->n) : self;
}

METHOD(removesuffix)
{
    const Text *part = &want_str(c, args->at[0], "removesuffix")->u.text, *t = &self->u.text;
    const bool  there = part->n && part->n <= t->n && memcmp(t->s + t->n - part->n, part->s, part->n) == 0;
    return there ? tpl_cut(c, self, 0, t->n - part->n) : self;
}

/* Filled up to `width` characters, `before` of the missing ones in front. */
static const Value *pad(Ctx *c, const Value *self, const Args *args, int before_of_two)
{
    const int64_t width = tpl_integer(c, args->at[0], "width"), missing = width - (int64_t)self->u.text.chars;
    const Value  *fill = args->at[1] ? want_str(c, args->at[1], "a fill character") : tpl_str(c, " ");
    int64_t       before;
    Builder       b = { 0 };

    if (fill->u.text.chars != 1)
        tpl_fail(c, "the fill character is one character");
    if (missing <= 0)
        return self;
    before = before_of_two == 1 ? missing / 2 + (missing & width & 1) : before_of_two == 2 ? missing : 0;
    tpl_put_value(c, &b, tpl_arith(c, OP_MUL, fill, tpl_int(c, before, true)));
    tpl_put_value(c, &b, self);
    tpl_put_value(c, &b, tpl_arith(c, OP_MUL, fill, tpl_int(c, missing - before, true)));
    return tpl_built(c, &b);
}

METHOD(ljust) { return pad(c, self, args, 0); }
METHOD(center) { return pad(c, self, args, 1); }
METHOD(rjust) { return pad(c, self, args, 2); }

METHOD(zfill)
{
    const int64_t missing = tpl_integer(c, args->at[0], "width") - (int64_t)self->u.text.chars;
    const size_t  sign = self->u.text.n && strchr("+-", self->u.text.s[0]) ? 1 : 0;
    Builder       b = { 0 };

    if (missing <= 0)
        return self;
    tpl_put_slice(c, &b, self, 0, sign);
    tpl_put_value(c, &b, tpl_arith(c, OP_MUL, tpl_str(c, "0"), tpl_int(c, missing, true)));
    tpl_put_slice(c, &b, self, sign, self->u.text.n - sign);
    return tpl_built(c, &b);
}

/* ---- strings: split ---------------------------------------------------- */
typedef struct {
    const Value **at;
    size_t        n, room;
} Parts;

static void add_part(Ctx *c, Parts *p, const Value *v)
{
    if (p->n == p->room) {
        const Value **bigger = tpl_array(c, p->room ? 2 * p->room : 8, sizeof *bigger);
        if (p->n)
            memcpy(bigger, p->at, p->n * sizeof *bigger);
        p->at = bigger;
        p->room = p->room ? 2 * p->room : 8;
    }
    tpl_step(c, 1);
    p->at[p->n++] = v;
}

/* At runs of blanks; none at the ends. */
static void split_blanks(Ctx *c, Parts *p, const Value *self, int64_t most)
{
    const size_t n = self->u.text.n;
    size_t       at = 0, start, next;

    tpl_step(c, n / 8);
    for (;;) {
        while (at < n && (next = at, tpl_is_space(tpl_char(self, &next))))
            at = next;
        if (at >= n)
            return;
        if (most-- == 0) {
            add_part(c, p, tpl_cut(c, self, at, n - at));
            return;
        }
        for (start = at; at < n && (next = at, !tpl_is_space(tpl_char(self, &next)));)
            at = next;
        add_part(c, p, tpl_cut(c, self, start, at - start));
    }
}

METHOD(split)
{
    const Value *sep = optional(args->at[0]);
    int64_t      most = args->at[1] ? tpl_integer(c, args->at[1], "maxsplit") : -1;
    Parts        p = { 0 };
    size_t       at = 0, found;

    if (!sep) {
        split_blanks(c, &p, self, most);
        return tpl_list(c, V_LIST, p.at, p.n);
    }
    if (!want_str(c, sep, "split")->u.text.n)
        tpl_fail(c, "split at an empty separator");
    for (; most != 0 && (found = tpl_find(c, self, sep, at)) != SIZE_MAX; most--) {
        add_part(c, &p, tpl_cut(c, self, at, found - at));
        at = found + sep->u.text.n;
    }
    add_part(c, &p, tpl_cut(c, self, at, self->u.text.n - at));
    return tpl_list(c, V_LIST, p.at, p.n);
}

/* The last place of `part` that ends at or before byte `end`; SIZE_MAX: none. */
static size_t find_last(Ctx *c, const Value *text, const Value *part, size_t start, size_t end)
{
    const Text *t = &text->u.text, *p = &part->u.text;

    tpl_step(c, (end - start) / 8);
    for (size_t at = end; at >= start + p->n; at--) {
        if (p->n == 0 || memcmp(t->s + at - p->n, p->s, p->n) == 0)
            return at - p->n;
    }
    return SIZE_MAX;
}

METHOD(rsplit)
{
    const Value *sep = optional(args->at[0]);
    int64_t      most = args->at[1] ? tpl_integer(c, args->at[1], "maxsplit") : -1;
    size_t       end = self->u.text.n, found;
    Parts        p = { 0 };

    if (!sep) {
        if (most >= 0)
            tpl_fail(c, "rsplit at blanks with maxsplit is not supported");
        return split(c, self, args);
    }
    if (!want_str(c, sep, "rsplit")->u.text.n)
        tpl_fail(c, "split at an empty separator");
    for (; most != 0 && (found = find_last(c, self, sep, 0, end)) != SIZE_MAX; most--) {
        add_part(c, &p, tpl_cut(c, self, found + sep->u.text.n, end - found - sep->u.text.n));
        end = found;
    }
    add_part(c, &p, tpl_cut(c, self, 0, end));
    for (size_t i = 0; i < p.n / 2; i++) {
        const Value *v = p.at[i];
        p.at[i] = p.at[p.n - 1 - i];
        p.at[p.n - 1 - i] = v;
    }
    return tpl_list(c, V_LIST, p.at, p.n);
}

static const Value *three(Ctx *c, const Value *self, const Value *sep, size_t at, bool from_right)
{
    const Value **part = tpl_array(c, 3, sizeof *part), *empty = tpl_str(c, "");

    if (at == SIZE_MAX) {
        part[0] = from_right ? empty : self;
        part[1] = empty;
        part[2] = from_right ? self : empty;
    } else {
        part[0] = tpl_cut(c, self, 0, at);
        part[1] = sep;
        part[2] = tpl_cut(c, self, at + sep->u.text.n, self->u.text.n - at - sep->u.text.n);
    }
    return tpl_list(c, V_TUPLE, part, 3);
}

METHOD(partition)
{
    const Value *sep = want_str(c, args->at[0], "partition");
    if (!sep->u.text.n)
        tpl_fail(c, "split at an empty separator");
    return three(c, self, sep, tpl_find(c, self, sep, 0), false);
}

METHOD(rpartition)
{
    const Value *sep = want_str(c, args->at[0], "rpartition");
    if (!sep->u.text.n)
        tpl_fail(c, "split at an empty separator");
    return three(c, self, sep, find_last(c, self, sep, 0, self->u.text.n), true);
}

/* ---- strings: search --------------------------------------------------- */
/* Bytes of self[from:to], from, to being arguments 1 and 2; false: an empty range past the end. */
static bool range_of(Ctx *c, const Value *self, const Args *args, size_t *start, size_t *end)
{
    const int64_t n = (int64_t)self->u.text.chars;
    int64_t       at[2] = { 0, n };

    for (int i = 0; i < 2; i++) {
        const Value *v = optional(args->at[1 + i]);
        if (v)
            at[i] = tpl_integer(c, v, "a position");
        if (at[i] < 0)
            at[i] = at[i] < -n ? 0 : at[i] + n;
    }
    if (at[0] > n || at[0] > at[1])
        return false;
    *start = tpl_offset(c, self, (size_t)at[0]);
    *end = tpl_offset(c, self, (size_t)MIN(at[1], n));
    return true;
}

static int64_t place(Ctx *c, const Value *self, const Args *args, bool from_right)
{
    const Value *part = want_str(c, args->at[0], "find");
    size_t       start, end, at;

    if (!range_of(c, self, args, &start, &end))
        return -1;
    at = from_right ? find_last(c, self, part, start, end) : tpl_find(c, self, part, start);
    if (at == SIZE_MAX || at + part->u.text.n > end)
        return -1;
    return (int64_t)tpl_cut(c, self, 0, at)->u.text.chars;
}

METHOD(find) { return tpl_int(c, place(c, self, args, false), true); }
METHOD(rfind) { return tpl_int(c, place(c, self, args, true), true); }

METHOD(find_or_fail)
{
    const int64_t at = place(c, self, args, false);
    if (at < 0)
        tpl_fail(c, "index: there is no such part in the str");
    return tpl_int(c, at, true);
}

METHOD(count)
{
    const Value *part = want_str(c, args->at[0], "count");
    size_t       start, end, at;
    int64_t      n = 0;

    if (!range_of(c, self, args, &start, &end))
        return tpl_int(c, 0, true);
    if (part->u.text.n == 0)
        return tpl_int(c, (int64_t)tpl_cut(c, self, start, end - start)->u.text.chars + 1, true);
    while ((at = tpl_find(c, self, part, start)) != SIZE_MAX && at + part->u.text.n <= end) {
        tpl_step(c, 1);
        start = at + part->u.text.n;
        n++;
    }
    return tpl_int(c, n, true);
}

/* startswith and endswith take one part or a tuple of them. */
static const Value *at_edge(Ctx *c, const Value *self, const Args *args, bool at_end)
{
    const Value *one = args->at[0];
    const List   parts = one->kind == V_TUPLE ? one->u.list : (List){ &one, 1 };
    size_t       start, end;
    const bool   any = range_of(c, self, args, &start, &end);

    tpl_step(c, parts.n);
    for (size_t i = 0; i < parts.n; i++) {
        const Text *part = &want_str(c, parts.at[i], "startswith or endswith")->u.text;
        if (any && part->n <= end - start &&
            memcmp(self->u.text.s + (at_end ? end - part->n : start), part->s, part->n) == 0)
            return &tpl_true;
    }
    return &tpl_false;
}

METHOD(startswith) { return at_edge(c, self, args, false); }
METHOD(endswith) { return at_edge(c, self, args, true); }

static const Value *all_chars(Ctx *c, const Value *self, gboolean (*is)(gunichar))
{
    tpl_step(c, self->u.text.n / 8);
    for (size_t at = 0; at < self->u.text.n;) {
        if (!is(tpl_char(self, &at)))
            return &tpl_false;
    }
    return tpl_bool(self->u.text.n > 0);
}

static gboolean is_space(gunichar ch) { return tpl_is_space(ch); }
METHOD(all_letters) { return (void)args, all_chars(c, self, g_unichar_isalpha); }
METHOD(all_alphanumeric) { return (void)args, all_chars(c, self, g_unichar_isalnum); }
METHOD(all_digits) { return (void)args, all_chars(c, self, g_unichar_isdigit); }
METHOD(all_blank) { return (void)args, all_chars(c, self, is_space); }

static const Value *cased(Ctx *c, const Value *self, bool upper)
{
    bool any = false;

    tpl_step(c, self->u.text.n / 8);
    for (size_t at = 0; at < self->u.text.n;) {
        const gunichar ch = tpl_char(self, &at);
        if (upper ? g_unichar_islower(ch) : g_unichar_isupper(ch) || g_unichar_istitle(ch))
            return &tpl_false;
        any |= upper ? g_unichar_isupper(ch) : g_unichar_islower(ch);
    }
    return tpl_bool(any);
}

METHOD(all_upper) { return (void)args, cased(c, self, true); }
METHOD(all_lower) { return (void)args, cased(c, self, false); }

const Builtin tpl_string_methods[] = {
    { "capitalize", capitalize, "", 0 },
    { "center", center, "width fillchar", 1 },
    { "count", count, "sub start end", 1 },
    { "endswith", endswith, "suffix start end", 1 },
    { "find", find, "sub start end", 1 },
    { "format", tpl_format, NULL, 0 },
    { "index", find_or_fail, "sub start end", 1 },
    { "isalnum", all_alphanumeric, "", 0 },
    { "isalpha", all_letters, "", 0 },
    { "isdecimal", all_digits, "", 0 },
    { "isdigit", all_digits, "", 0 },
    { "islower", all_lower, "", 0 },
    { "isnumeric", all_digits, "", 0 },
    { "isspace", all_blank, "", 0 },
    { "isupper", all_upper, "", 0 },
    { "join", join, "iterable", 1 },
    { "ljust", ljust, "width fillchar", 1 },
    { "lower", lower, "", 0 },
    { "lstrip", lstrip, "chars", 0 },
    { "partition", partition, "sep", 1 },
    { "removeprefix", removeprefix, "prefix", 1 },
    { "removesuffix", removesuffix, "suffix", 1 },
    { "replace", replace, "old new count", 2 },
    { "rfind", rfind, "sub start end", 1 },
    { "rjust", rjust, "width fillchar", 1 },
    { "rpartition", rpartition, "sep", 1 },
    { "rsplit", rsplit, "sep maxsplit", 0 },
    { "rstrip", rstrip, "chars", 0 },
    { "split", split, "sep maxsplit", 0 },
    { "splitlines", splitlines, "keepends", 0 },
    { "startswith", startswith, "prefix start end", 1 },
    { "strip", strip, "chars", 0 },
    { "title", title, "", 0 },
    { "upper", upper, "", 0 },
    { "zfill", zfill, "width", 1 },
    { NULL, NULL, NULL, 0 },
};

/* ---- lists and tuples -------------------------------------------------- */
METHOD(list_index)
{
    const List l = tpl_items(c, self);

    for (size_t i = 0; i < l.n; i++) {
        if (tpl_equal(c, l.at[i], args->at[0]))
            return tpl_int(c, (int64_t)i, true);
    }
    tpl_fail(c, "index: there is no such item in the %s", tpl_kind_name(self));
}

METHOD(list_count)
{
    const List l = tpl_items(c, self);
    int64_t    n = 0;

    for (size_t i = 0; i < l.n; i++)
        n += tpl_equal(c, l.at[i], args->at[0]);
    return tpl_int(c, n, true);
}

METHOD(same) { return (void)args, (void)c, self; }

const Builtin tpl_list_methods[] = {
    { "copy", same, "", 0 },
    { "count", list_count, "value", 1 },
    { "index", list_index, "value", 1 },
    { NULL, NULL, NULL, 0 },
};

/* ---- dicts ------------------------------------------------------------- */
METHOD(keys)
{
    return (void)args, tpl_list(c, V_VIEW, (const Value *const *)self->u.dict->keys, self->u.dict->n);
}

METHOD(values)
{
    return (void)args, tpl_list(c, V_VIEW, (const Value *const *)self->u.dict->values, self->u.dict->n);
}

METHOD(items)
{
    const List l = tpl_items(c, tpl_call_builtin(c, tpl_filter("items"), self, args));
    return tpl_list(c, V_VIEW, l.at, l.n);
}

METHOD(get)
{
    const Value *v = tpl_dict_get(c, self->u.dict, args->at[0]);
    return v ? v : args->at[1] ? args->at[1] : &tpl_none;
}

const Builtin tpl_dict_methods[] = {
    { "copy", same, "", 0 },
    { "get", get, "key default", 1 },
    { "items", items, "", 0 },
    { "keys", keys, "", 0 },
    { "values", values, "", 0 },
    { NULL, NULL, NULL, 0 },
};
