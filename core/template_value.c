/* template_value.c - values of the template interpreter: memory, Python's truth, equality
 * and order, dicts, and how the caller's variables come in. */
#include "template_text.h"

#include <string.h>

struct Chunk {
    Chunk *next;
    size_t used, size;
    max_align_t data[];
};

enum { FIRST_CHUNK = 16 << 10, LAST_CHUNK = 1 << 20 };

const Value tpl_none = { .kind = V_NONE, .trusted = true };
const Value tpl_true = { .kind = V_BOOL, .trusted = true, .u.integer = 1 };
const Value tpl_false = { .kind = V_BOOL, .trusted = true, .u.integer = 0 };

/* ---- errors, memory, budgets ------------------------------------------- */
void tpl_fail(Ctx *c, const char *format, ...)
{
    va_list ap;
    char   *text, *line;

    va_start(ap, format);
    text = g_strdup_vprintf(format, ap);
    va_end(ap);
    line = g_utf8_make_valid(text, -1); /* what it cites may be cut within a character */
    for (char *s = line; *s; s++)
        *s = (guchar)*s < ' ' || *s == 0x7f ? ' ' : *s;
    g_set_error(c->error, MI_ERROR, MI_ERROR_MODEL, "chat template, line %d: %s", c->line, line);
    g_free(line);
    g_free(text);
    longjmp(c->leave, 1);
}

static Chunk *new_chunk(Ctx *c, size_t bytes)
{
    size_t size = c->chunks ? MIN(2 * c->chunks->size, (size_t)LAST_CHUNK) : (size_t)FIRST_CHUNK;
    Chunk *chunk;

    size = MAX(size, bytes);
    if (c->bytes + size > MI_TEMPLATE_MAX_MEMORY)
        tpl_fail(c, "needs more than %d MiB of memory", MI_TEMPLATE_MAX_MEMORY >> 20);
    chunk = g_try_malloc(sizeof *chunk + size);
    if (!chunk)
        tpl_fail(c, "no memory for %zu bytes", size);
    chunk->used = 0;
    chunk->size = size;
    chunk->next = c->chunks;
    c->chunks = chunk;
    c->bytes += size;
    return chunk;
}

/* bytes: at most twice what the budget was good for, so that no sum overflows. */
void *tpl_alloc(Ctx *c, size_t bytes)
{
    const size_t rounded = (MAX(bytes, 1) + sizeof(max_align_t) - 1) / sizeof(max_align_t) * sizeof(max_align_t);
    Chunk       *chunk = c->chunks;
    void        *p;

    if (!chunk || chunk->size - chunk->used < rounded)
        chunk = new_chunk(c, rounded);
    p = (char *)chunk->data + chunk->used;
    chunk->used += rounded;
    return memset(p, 0, bytes);
}

void *tpl_array(Ctx *c, size_t n, size_t size)
{
    if (n > MI_TEMPLATE_MAX_MEMORY / size)
        tpl_fail(c, "needs more than %d MiB of memory", MI_TEMPLATE_MAX_MEMORY >> 20);
    return tpl_alloc(c, n * size);
}

void tpl_free_chunks(Chunk *chunk)
{
    while (chunk) {
        Chunk *next = chunk->next;
        g_free(chunk);
        chunk = next;
    }
}

void tpl_step(Ctx *c, size_t n)
{
    c->steps += n;
    if (c->steps > MI_TEMPLATE_MAX_STEPS)
        tpl_fail(c, "takes more than %d steps", MI_TEMPLATE_MAX_STEPS);
}

void tpl_enter(Ctx *c)
{
    if (++c->depth > MI_TEMPLATE_MAX_CALLS)
        tpl_fail(c, "nested more than %d deep", MI_TEMPLATE_MAX_CALLS);
}

/* ---- making values ----------------------------------------------------- */
Value *tpl_new(Ctx *c, Kind kind)
{
    Value *v = tpl_alloc(c, sizeof *v);
    v->kind = kind;
    v->trusted = true;
    return v;
}

const Value *tpl_int(Ctx *c, int64_t i, bool trusted)
{
    Value *v = tpl_new(c, V_INT);
    v->u.integer = i;
    v->trusted = trusted;
    return v;
}

const Value *tpl_float(Ctx *c, double d, bool trusted)
{
    Value *v = tpl_new(c, V_FLOAT);
    v->u.number = d;
    v->trusted = trusted;
    return v;
}

const Value *tpl_list(Ctx *c, Kind kind, const Value *const *at, size_t n)
{
    Value *v = tpl_new(c, kind);
    v->u.list = (List){ at, n };
    return v;
}

const Value *tpl_stream(Ctx *c, const Value *const *at, size_t n)
{
    Value *v = tpl_new(c, V_STREAM);
    v->u.stream = tpl_alloc(c, sizeof *v->u.stream);
    v->u.stream->items = (List){ at, n };
    return v;
}

const Value *tpl_missing(Ctx *c, const Value *name, const Value *owner)
{
    Value *v = tpl_new(c, V_UNDEFINED);
    v->u.missing = (Missing){ name, owner };
    return v;
}

void tpl_fail_missing(Ctx *c, const Value *undefined)
{
    const Missing *m = &undefined->u.missing;
    Builder        b = { 0 };
    const Value   *name;

    if (!m->name)
        tpl_fail(c, "there is no such item, the sequence is empty");
    tpl_put_value(c, &b, m->name);
    name = tpl_built(c, &b);
    if (!m->owner)
        tpl_fail(c, "'%.*s' is undefined", (int)MIN(name->u.text.n, 80), name->u.text.s);
    tpl_fail(c, "%s has no '%.*s'", tpl_kind_name(m->owner), (int)MIN(name->u.text.n, 80), name->u.text.s);
}

const char *tpl_kind_name(const Value *v)
{
    static const char *const names[] = {
        [V_UNDEFINED] = "undefined", [V_NONE] = "None",      [V_BOOL] = "bool",     [V_INT] = "int",
        [V_FLOAT] = "float",         [V_STRING] = "str",     [V_LIST] = "list",     [V_TUPLE] = "tuple",
        [V_VIEW] = "dict view",      [V_STREAM] = "generator", [V_RANGE] = "range", [V_DICT] = "dict",
        [V_NAMESPACE] = "namespace", [V_MACRO] = "macro",    [V_BOUND] = "function", [V_LOOP] = "loop",
        [V_JOINER] = "joiner",       [V_CYCLER] = "cycler",
    };
    return names[v->kind];
}

/* ---- what Python asks of any value ------------------------------------- */
bool tpl_is_number(const Value *v) { return v->kind == V_BOOL || v->kind == V_INT || v->kind == V_FLOAT; }

double tpl_number(const Value *v) { return v->kind == V_FLOAT ? v->u.number : (double)v->u.integer; }

int64_t tpl_integer(Ctx *c, const Value *v, const char *what)
{
    if (v->kind == V_UNDEFINED)
        tpl_fail_missing(c, v);
    if (v->kind != V_INT && v->kind != V_BOOL)
        tpl_fail(c, "%s is a %s, an integer is wanted", what, tpl_kind_name(v));
    return v->u.integer;
}

bool tpl_truth(Ctx *c, const Value *v)
{
    switch (v->kind) {
    case V_UNDEFINED:
    case V_NONE:
        return false;
    case V_FLOAT:
        return v->u.number != 0;
    case V_BOOL:
    case V_INT:
        return v->u.integer != 0;
    case V_STRING:
    case V_LIST:
    case V_TUPLE:
    case V_VIEW:
    case V_RANGE:
    case V_DICT:
        return tpl_length(c, v) > 0;
    default:
        return true;
    }
}

size_t tpl_length(Ctx *c, const Value *v)
{
    switch (v->kind) {
    case V_UNDEFINED:
        return 0;
    case V_STRING:
        return v->u.text.chars;
    case V_LIST:
    case V_TUPLE:
    case V_VIEW:
        return v->u.list.n;
    case V_RANGE:
        return v->u.range.n;
    case V_DICT:
        return v->u.dict->n;
    case V_LOOP:
        return v->u.loop->items.n;
    default:
        tpl_fail(c, "a %s has no length", tpl_kind_name(v));
    }
}

static List characters(Ctx *c, const Value *text)
{
    const Value **at = tpl_array(c, text->u.text.chars, sizeof *at);
    size_t        byte = 0, n = 0;

    while (byte < text->u.text.n) {
        const size_t start = byte;
        tpl_char(text, &byte);
        at[n++] = tpl_cut(c, text, start, byte - start);
    }
    return (List){ at, n };
}

List tpl_items(Ctx *c, const Value *v)
{
    List   items = { NULL, 0 };
    size_t n;

    switch (v->kind) {
    case V_UNDEFINED:
        return items;
    case V_STRING:
        items = characters(c, v);
        break;
    case V_LIST:
    case V_TUPLE:
    case V_VIEW:
        items = v->u.list;
        break;
    case V_STREAM:
        n = v->u.stream->next;
        v->u.stream->next = v->u.stream->items.n;
        items = (List){ v->u.stream->items.at + n, v->u.stream->items.n - n };
        break;
    case V_RANGE: {
        const Value **at = tpl_array(c, v->u.range.n, sizeof *at);
        for (n = 0; n < v->u.range.n; n++)
            at[n] = tpl_int(c, tpl_range_at(v, n), v->trusted);
        items = (List){ at, n };
        break;
    }
    case V_DICT:
        items = (List){ (const Value *const *)v->u.dict->keys, v->u.dict->n };
        break;
    default:
        tpl_fail(c, "a %s cannot be walked", tpl_kind_name(v));
    }
    tpl_step(c, items.n);
    return items;
}

static bool same_items(Ctx *c, List a, List b)
{
    if (a.n != b.n)
        return false;
    tpl_step(c, a.n);
    for (size_t i = 0; i < a.n; i++) {
        if (!tpl_equal(c, a.at[i], b.at[i]))
            return false;
    }
    return true;
}

static bool same_dict(Ctx *c, const Dict *a, const Dict *b)
{
    if (a->n != b->n)
        return false;
    for (size_t i = 0; i < a->n; i++) {
        const Value *other = tpl_dict_get(c, b, a->keys[i]);
        if (!other || !tpl_equal(c, a->values[i], other))
            return false;
    }
    return true;
}

static int order_numbers(const Value *a, const Value *b)
{
    if (a->kind != V_FLOAT && b->kind != V_FLOAT)
        return (a->u.integer > b->u.integer) - (a->u.integer < b->u.integer);
    const double x = tpl_number(a), y = tpl_number(b);
    return x != x || y != y ? 2 : (x > y) - (x < y);
}

bool tpl_equal(Ctx *c, const Value *a, const Value *b)
{
    bool same;

    if (tpl_is_number(a) && tpl_is_number(b))
        return order_numbers(a, b) == 0;
    if (a->kind != b->kind)
        return false;
    if (is_str(a)) {
        if (a->u.text.n != b->u.text.n)
            return false;
        tpl_step(c, a->u.text.n / 64);
        return a->u.text.n == 0 || memcmp(a->u.text.s, b->u.text.s, a->u.text.n) == 0;
    }
    if (a == b || a->kind == V_UNDEFINED) /* there is one None */
        return true;
    tpl_enter(c);
    if (a->kind == V_LIST || a->kind == V_TUPLE)
        same = same_items(c, a->u.list, b->u.list);
    else if (a->kind == V_RANGE)
        same = same_items(c, tpl_items(c, a), tpl_items(c, b));
    else
        same = a->kind == V_DICT && same_dict(c, a->u.dict, b->u.dict);
    tpl_leave(c);
    return same;
}

static int order_text(Ctx *c, const Text *a, const Text *b)
{
    const size_t n = MIN(a->n, b->n);
    const int    order = n ? memcmp(a->s, b->s, n) : 0; /* of UTF-8 is that of code points */

    tpl_step(c, n / 64);
    return order ? (order > 0) - (order < 0) : (a->n > b->n) - (a->n < b->n);
}

int tpl_order(Ctx *c, const Value *a, const Value *b)
{
    if (tpl_is_number(a) && tpl_is_number(b))
        return order_numbers(a, b);
    if (is_str(a) && is_str(b))
        return order_text(c, &a->u.text, &b->u.text);
    if (a->kind == V_UNDEFINED)
        tpl_fail_missing(c, a);
    if (b->kind == V_UNDEFINED)
        tpl_fail_missing(c, b);
    if (a->kind != b->kind || (a->kind != V_LIST && a->kind != V_TUPLE))
        tpl_fail(c, "a %s and a %s have no order", tpl_kind_name(a), tpl_kind_name(b));
    tpl_enter(c);
    tpl_step(c, MIN(a->u.list.n, b->u.list.n));
    for (size_t i = 0; i < a->u.list.n && i < b->u.list.n; i++) {
        if (!tpl_equal(c, a->u.list.at[i], b->u.list.at[i])) {
            const int order = tpl_order(c, a->u.list.at[i], b->u.list.at[i]);
            tpl_leave(c);
            return order;
        }
    }
    tpl_leave(c);
    return (a->u.list.n > b->u.list.n) - (a->u.list.n < b->u.list.n);
}

bool tpl_contains(Ctx *c, const Value *whole, const Value *part)
{
    List items;

    if (is_str(whole)) {
        if (part->kind == V_UNDEFINED)
            tpl_fail_missing(c, part);
        if (!is_str(part))
            tpl_fail(c, "'in' looks for a str in a str, not for a %s", tpl_kind_name(part));
        return tpl_find(c, whole, part, 0) != SIZE_MAX;
    }
    if (whole->kind == V_DICT)
        return tpl_dict_get(c, whole->u.dict, part) != NULL;
    items = tpl_items(c, whole);
    for (size_t i = 0; i < items.n; i++) {
        if (tpl_equal(c, items.at[i], part))
            return true;
    }
    return false;
}

/* ---- dicts ------------------------------------------------------------- */
const Value *tpl_dict(Ctx *c, Kind kind)
{
    Value *v = tpl_new(c, kind);
    v->u.dict = tpl_alloc(c, sizeof *v->u.dict);
    return v;
}

/* One after the other: a template's dicts are small, and large ones are paid for in steps. */
static size_t dict_find(Ctx *c, const Dict *d, const Value *key)
{
    if (key->kind == V_LIST || key->kind == V_DICT)
        tpl_fail(c, "a %s cannot be a key", tpl_kind_name(key));
    tpl_step(c, d->n / 16);
    for (size_t i = 0; i < d->n; i++) {
        if (tpl_equal(c, d->keys[i], key))
            return i;
    }
    return SIZE_MAX;
}

const Value *tpl_dict_get(Ctx *c, const Dict *d, const Value *key)
{
    const size_t i = dict_find(c, d, key);
    return i == SIZE_MAX ? NULL : d->values[i];
}

void tpl_dict_set(Ctx *c, Dict *d, const Value *key, const Value *value)
{
    const size_t i = dict_find(c, d, key);

    if (i != SIZE_MAX) {
        d->values[i] = value;
        return;
    }
    if (d->n == d->room) {
        const size_t  room = d->room ? 2 * d->room : 4;
        const Value **keys = tpl_array(c, room, sizeof *keys), **values = tpl_array(c, room, sizeof *values);
        if (d->n) {
            memcpy(keys, d->keys, d->n * sizeof *keys);
            memcpy(values, d->values, d->n * sizeof *values);
        }
        *d = (Dict){ d->n, room, keys, values };
    }
    d->keys[d->n] = key;
    d->values[d->n++] = value;
}

/* ---- the caller's variables -------------------------------------------- */
static const Value *import_text(Ctx *c, const char *s, size_t n, bool trusted)
{
    const char *bad;

    if (!g_utf8_validate_len(s, n, &bad))
        tpl_fail(c, "a variable's text is not UTF-8 at byte %zu of %zu", (size_t)(bad - s), n);
    return tpl_text(c, s, n, trusted);
}

const Value *tpl_import(Ctx *c, const MiVar *var, bool trusted)
{
    const Value **at, *v = &tpl_none;
    Value        *b;

    tpl_enter(c);
    switch (var->type) {
    case MI_VAR_BOOL:
        b = tpl_new(c, V_BOOL);
        b->u.integer = var->integer != 0;
        b->trusted = trusted;
        v = b;
        break;
    case MI_VAR_INT:
        v = tpl_int(c, var->integer, trusted);
        break;
    case MI_VAR_FLOAT:
        v = tpl_float(c, var->number, trusted);
        break;
    case MI_VAR_TEXT:
        v = import_text(c, var->n ? var->text : "", var->n, trusted);
        break;
    case MI_VAR_LIST:
        at = tpl_array(c, var->n, sizeof *at);
        for (size_t i = 0; i < var->n; i++)
            at[i] = tpl_import(c, &var->items[i], trusted);
        v = tpl_list(c, V_LIST, at, var->n);
        break;
    case MI_VAR_MAP:
        v = tpl_dict(c, V_DICT);
        for (size_t i = 0; i < var->n; i++)
            tpl_dict_set(c, v->u.dict, import_text(c, var->keys[i], strlen(var->keys[i]), trusted),
                         tpl_import(c, &var->items[i], trusted));
        break;
    default: /* MI_VAR_NULL */
        break;
    }
    tpl_leave(c);
    return v;
}
