/* template_sequences.c - filters of what can be walked: x | join, x | selectattr('a')... */
#include "template_eval.h"

#include <string.h>

#define FILTER(name) static const Value *name(Ctx *c, const Value *in, const Args *args)

static bool flag(Ctx *c, const Value *v) { return v && tpl_truth(c, v); }

/* item.a.b.0, for the path 'a.b.0' or an index; path NULL or None: the item itself. */
static const Value *reach(Ctx *c, const Value *item, const Value *path, const Value *otherwise)
{
    size_t at = 0;

    if (!path || path->kind == V_NONE)
        return item;
    if (!is_str(path))
        return tpl_item(c, item, path);
    for (;;) {
        const char  *s = path->u.text.s + at, *dot = memchr(s, '.', path->u.text.n - at);
        const size_t n = dot ? (size_t)(dot - s) : path->u.text.n - at;
        size_t       digits = 0;

        tpl_step(c, 1);
        while (digits < n && g_ascii_isdigit(s[digits]))
            digits++;
        if (n && digits == n && n < 10)
            item = tpl_item(c, item, tpl_int(c, g_ascii_strtoll(s, NULL, 10), true));
        else
            item = tpl_item(c, item, tpl_cut(c, path, at, n));
        if (otherwise && otherwise->kind != V_NONE && item->kind == V_UNDEFINED)
            item = otherwise;
        if (!dot)
            return item;
        at += n + 1;
    }
}

/* What to compare an item by; letters' case only counts if asked for. */
static const Value *key_of(Ctx *c, const Value *item, const Value *path, bool case_sensitive)
{
    const Value *key = reach(c, item, path, NULL);
    return is_str(key) && !case_sensitive ? tpl_case(c, key, CASE_LOWER) : key;
}

const size_t *tpl_sorted(Ctx *c, const Value *const *keys, size_t n, bool backwards)
{
    size_t *at = tpl_array(c, n, sizeof *at);

    for (size_t i = 0; i < n; i++) {
        size_t low = 0, high = i;
        while (low < high) {
            const size_t middle = (low + high) / 2;
            const int    order = tpl_order(c, keys[i], keys[at[middle]]);
            tpl_step(c, 1);
            if (backwards ? order == 1 : order == -1)
                high = middle;
            else
                low = middle + 1;
        }
        tpl_step(c, 1 + (i - low) / 64);
        memmove(at + low + 1, at + low, (i - low) * sizeof *at);
        at[low] = i;
    }
    return at;
}

static const Value *in_order(Ctx *c, List items, const Value *const *keys, bool backwards)
{
    const size_t *order = tpl_sorted(c, keys, items.n, backwards);
    const Value **at = tpl_array(c, items.n, sizeof *at);

    for (size_t i = 0; i < items.n; i++)
        at[i] = items.at[order[i]];
    return tpl_list(c, V_LIST, at, items.n);
}

/* attribute may name several, 'a,b': the key is then a list. */
FILTER(sort)
{
    const List    items = tpl_items(c, in);
    const bool    case_sensitive = flag(c, args->at[1]);
    const Value **keys = tpl_array(c, items.n, sizeof *keys), *path = args->at[2];
    List          paths = { &path, 1 };

    if (path && is_str(path)) {
        const Value  *comma = tpl_str(c, ",");
        const Value **part = tpl_array(c, path->u.text.n + 1, sizeof *part);
        size_t        start = 0, end;
        for (paths = (List){ part, 0 }; (end = tpl_find(c, path, comma, start)) != SIZE_MAX; start = end + 1)
            part[paths.n++] = tpl_cut(c, path, start, end - start);
        part[paths.n++] = tpl_cut(c, path, start, path->u.text.n - start);
    }
    for (size_t i = 0; i < items.n; i++) {
        const Value **key = tpl_array(c, paths.n, sizeof *key);
        for (size_t k = 0; k < paths.n; k++)
            key[k] = key_of(c, items.at[i], paths.at[k], case_sensitive);
        keys[i] = tpl_list(c, V_LIST, key, paths.n);
    }
    return in_order(c, items, keys, flag(c, args->at[0]));
}

static List pairs(Ctx *c, const Value *dict)
{
    const Dict   *d = dict->u.dict;
    const Value **at = tpl_array(c, d->n, sizeof *at);

    tpl_step(c, d->n);
    for (size_t i = 0; i < d->n; i++) {
        const Value **pair = tpl_array(c, 2, sizeof *pair);
        pair[0] = d->keys[i];
        pair[1] = d->values[i];
        at[i] = tpl_list(c, V_TUPLE, pair, 2);
    }
    return (List){ at, d->n };
}

static void want_dict(Ctx *c, const Value *v, const char *who)
{
    if (v->kind == V_UNDEFINED)
        tpl_fail_missing(c, v);
    if (v->kind != V_DICT)
        tpl_fail(c, "%s wants a dict, not a %s", who, tpl_kind_name(v));
}

FILTER(dictsort)
{
    const Value  *by = args->at[1] ? args->at[1] : tpl_str(c, "key");
    const bool    by_value = tpl_same(by, "value");
    const Value **keys;
    List          items;

    want_dict(c, in, "dictsort");
    if (!by_value && !tpl_same(by, "key"))
        tpl_fail(c, "dictsort: by is key or value");
    items = pairs(c, in);
    keys = tpl_array(c, items.n, sizeof *keys);
    for (size_t i = 0; i < items.n; i++)
        keys[i] = key_of(c, items.at[i]->u.list.at[by_value], NULL, flag(c, args->at[0]));
    return in_order(c, items, keys, flag(c, args->at[2]));
}

FILTER(items)
{
    List l = { NULL, 0 };

    (void)args;
    if (in->kind != V_UNDEFINED) {
        want_dict(c, in, "items");
        l = pairs(c, in);
    }
    return tpl_stream(c, l.at, l.n);
}

FILTER(join)
{
    const List    items = tpl_items(c, in);
    const Value **at = tpl_array(c, items.n, sizeof *at);

    for (size_t i = 0; i < items.n; i++)
        at[i] = reach(c, items.at[i], args->at[1], NULL);
    return tpl_join(c, args->at[0] ? tpl_to_str(c, args->at[0]) : tpl_str(c, ""), (List){ at, items.n });
}

FILTER(first)
{
    List l;

    (void)args;
    if (in->kind == V_STREAM) { /* takes only this one from it */
        Stream *s = in->u.stream;
        return s->next < s->items.n ? s->items.at[s->next++] : tpl_missing(c, NULL, NULL);
    }
    if (is_str(in) || in->kind == V_RANGE)
        return tpl_length(c, in) ? tpl_item(c, in, tpl_int(c, 0, true)) : tpl_missing(c, NULL, NULL);
    l = tpl_items(c, in);
    return l.n ? l.at[0] : tpl_missing(c, NULL, NULL);
}

FILTER(last)
{
    List l;

    (void)args;
    if (in->kind == V_STREAM)
        tpl_fail(c, "last: a %s cannot be walked backwards", tpl_kind_name(in));
    if (is_str(in) || in->kind == V_RANGE)
        return tpl_length(c, in) ? tpl_item(c, in, tpl_int(c, -1, true)) : tpl_missing(c, NULL, NULL);
    l = tpl_items(c, in);
    return l.n ? l.at[l.n - 1] : tpl_missing(c, NULL, NULL);
}

FILTER(list)
{
    const List l = tpl_items(c, in);
    return (void)args, tpl_list(c, V_LIST, l.at, l.n);
}

FILTER(reverse)
{
    const List    l = tpl_items(c, in);
    const Value **at = tpl_array(c, l.n, sizeof *at);

    (void)args;
    for (size_t i = 0; i < l.n; i++)
        at[i] = l.at[l.n - 1 - i];
    if (is_str(in))
        return tpl_join(c, tpl_str(c, ""), (List){ at, l.n });
    return in->kind == V_STREAM ? tpl_list(c, V_LIST, at, l.n) : tpl_stream(c, at, l.n);
}

FILTER(unique)
{
    const List    l = tpl_items(c, in);
    const Value **at = tpl_array(c, l.n, sizeof *at);
    const Value  *seen = tpl_dict(c, V_DICT);
    size_t        n = 0;

    for (size_t i = 0; i < l.n; i++) {
        const Value *key = key_of(c, l.at[i], args->at[1], flag(c, args->at[0]));
        if (tpl_dict_get(c, seen->u.dict, key))
            continue;
        tpl_dict_set(c, seen->u.dict, key, &tpl_none);
        at[n++] = l.at[i];
    }
    return tpl_stream(c, at, n);
}

static const Value *extreme(Ctx *c, const Value *in, const Args *args, int wanted)
{
    const List   l = tpl_items(c, in);
    const Value *best = NULL, *best_key = NULL;

    for (size_t i = 0; i < l.n; i++) {
        const Value *key = key_of(c, l.at[i], args->at[1], flag(c, args->at[0]));
        if (best && tpl_order(c, key, best_key) != wanted)
            continue;
        best = l.at[i];
        best_key = key;
    }
    return best ? best : tpl_missing(c, NULL, NULL);
}

FILTER(min) { return extreme(c, in, args, -1); }
FILTER(max) { return extreme(c, in, args, 1); }

FILTER(sum)
{
    const List   l = tpl_items(c, in);
    const Value *total = args->at[1] ? args->at[1] : tpl_int(c, 0, true);

    if (is_str(total))
        tpl_fail(c, "sum does not add strings, use join");
    for (size_t i = 0; i < l.n; i++)
        total = tpl_arith(c, OP_ADD, total, reach(c, l.at[i], args->at[0], NULL));
    return total;
}

/* Lists of n items each, the last one filled up if there is something to do it with. */
FILTER(batch)
{
    const List    l = tpl_items(c, in);
    const int64_t n = tpl_integer(c, args->at[0], "linecount");
    const Value  *fill = args->at[1] && args->at[1]->kind != V_NONE ? args->at[1] : NULL;
    const Value **at = tpl_array(c, l.n, sizeof *at);
    const size_t  width = (size_t)n;
    size_t        count = 0;

    if (n < 1)
        tpl_fail(c, "batch: linecount %" G_GINT64_FORMAT " is not positive", n);
    for (size_t i = 0; i < l.n; i += MIN(width, l.n - i)) {
        const size_t  have = MIN(width, l.n - i), len = fill ? width : have;
        const Value **row = tpl_array(c, len, sizeof *row);

        tpl_step(c, len / 16);
        for (size_t k = 0; k < len; k++)
            row[k] = k < have ? l.at[i + k] : fill;
        at[count++] = tpl_list(c, V_LIST, row, len);
    }
    return tpl_stream(c, at, count);
}

/* ---- choosing ---------------------------------------------------------- */
FILTER(map)
{
    const List     l = tpl_truth(c, in) ? tpl_items(c, in) : (List){ NULL, 0 };
    const Value  **at = tpl_array(c, l.n, sizeof *at), *path = NULL, *otherwise = NULL;
    const Builtin *filter = NULL;
    Args           rest = *args;

    for (size_t i = 0; i < args->n_named && !args->n; i++) {
        if (strcmp(args->names[i], "attribute") == 0)
            path = args->named[i];
        else if (strcmp(args->names[i], "default") == 0)
            otherwise = args->named[i];
        else
            tpl_fail(c, "map has no argument '%.40s'", args->names[i]);
    }
    if (!path) {
        if (!args->n || !is_str(args->at[0]))
            tpl_fail(c, "map wants a filter's name or attribute=");
        filter = tpl_filter(tpl_name(c, args->at[0]));
        if (!filter)
            tpl_fail(c, "no filter '%.*s'", (int)MIN(args->at[0]->u.text.n, 40), args->at[0]->u.text.s);
        rest.at++;
        rest.n--;
    }
    for (size_t i = 0; i < l.n; i++)
        at[i] = filter ? tpl_call_builtin(c, filter, l.at[i], &rest) : reach(c, l.at[i], path, otherwise);
    return tpl_stream(c, at, l.n);
}

/* select(test, args...), selectattr(path, test, args...): `wanted` is what the test must say. */
static const Value *choose(Ctx *c, const Value *in, const Args *args, bool by_attribute, bool wanted)
{
    const List     l = tpl_truth(c, in) ? tpl_items(c, in) : (List){ NULL, 0 };
    const Value  **at = tpl_array(c, l.n, sizeof *at), *path = NULL;
    const Builtin *test = NULL;
    Args           rest = *args;
    size_t         n = 0;

    if (by_attribute) {
        if (!rest.n)
            tpl_fail(c, "selectattr and rejectattr want an attribute's name");
        path = rest.at[0];
        rest.at++;
        rest.n--;
    }
    if (rest.n) {
        if (!is_str(rest.at[0]) || !(test = tpl_builtin(tpl_tests, tpl_name(c, rest.at[0]))))
            tpl_fail(c, "no such test to select by");
        rest.at++;
        rest.n--;
    }
    for (size_t i = 0; i < l.n; i++) {
        const Value *v = reach(c, l.at[i], path, NULL);
        tpl_step(c, 1);
        if (tpl_truth(c, test ? tpl_call_builtin(c, test, v, &rest) : v) == wanted)
            at[n++] = l.at[i];
    }
    return tpl_stream(c, at, n);
}

FILTER(chosen) { return choose(c, in, args, false, true); }
FILTER(reject) { return choose(c, in, args, false, false); }
FILTER(selectattr) { return choose(c, in, args, true, true); }
FILTER(rejectattr) { return choose(c, in, args, true, false); }

const Builtin tpl_list_filters[] = {
    { "batch", batch, "linecount fill_with", 1 },
    { "dictsort", dictsort, "case_sensitive by reverse", 0 },
    { "first", first, "", 0 },
    { "items", items, "", 0 },
    { "join", join, "d attribute", 0 },
    { "last", last, "", 0 },
    { "list", list, "", 0 },
    { "map", map, NULL, 0 },
    { "max", max, "case_sensitive attribute", 0 },
    { "min", min, "case_sensitive attribute", 0 },
    { "reject", reject, NULL, 0 },
    { "rejectattr", rejectattr, NULL, 0 },
    { "reverse", reverse, "", 0 },
    { "select", chosen, NULL, 0 },
    { "selectattr", selectattr, NULL, 0 },
    { "sort", sort, "reverse case_sensitive attribute", 0 },
    { "sum", sum, "attribute start", 0 },
    { "unique", unique, "case_sensitive attribute", 0 },
    { NULL, NULL, NULL, 0 },
};
