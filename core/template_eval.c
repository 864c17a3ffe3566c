/* template_eval.c - expressions: lookups, subscripts, calls, operators. */
#include "template_eval.h"

#include <string.h>

/* ---- variables --------------------------------------------------------- */
Scope *tpl_scope(Ctx *c, Scope *parent)
{
    Scope *s = tpl_alloc(c, sizeof *s);
    s->parent = parent;
    return s;
}

const Value *tpl_lookup(Ctx *c, const char *name)
{
    size_t seen = 0;

    for (const Scope *s = c->scope; s; s = s->parent) {
        for (size_t i = 0; i < s->n; i++) {
            if (strcmp(s->names[i], name) == 0) {
                tpl_step(c, (seen + i) / 16);
                return s->values[i];
            }
        }
        seen += s->n + 1;
    }
    tpl_step(c, seen / 16);
    return NULL;
}

void tpl_assign(Ctx *c, Scope *s, const char *name, const Value *v)
{
    tpl_step(c, s->n / 16);
    for (size_t i = 0; i < s->n; i++) {
        if (strcmp(s->names[i], name) == 0) {
            s->values[i] = v;
            return;
        }
    }
    if (s->n == s->room) {
        const size_t  room = s->room ? 2 * s->room : 4;
        const char  **names = tpl_array(c, room, sizeof *names);
        const Value **values = tpl_array(c, room, sizeof *values);
        if (s->n) {
            memcpy(names, s->names, s->n * sizeof *names);
            memcpy(values, s->values, s->n * sizeof *values);
        }
        s->names = names;
        s->values = values;
        s->room = room;
    }
    s->names[s->n] = name;
    s->values[s->n++] = v;
}

static const Value *variable(Ctx *c, const char *name)
{
    const Value   *v = tpl_lookup(c, name);
    const Builtin *global;

    if (v)
        return v;
    global = tpl_builtin(tpl_globals, name);
    return global ? tpl_bind(c, global, &tpl_none) : tpl_missing(c, tpl_str(c, name), NULL);
}

/* ---- attributes and items ---------------------------------------------- */
const Builtin *tpl_builtin(const Builtin *table, const char *name)
{
    for (; table->name; table++) {
        if (strcmp(table->name, name) == 0)
            return table;
    }
    return NULL;
}

const Builtin *tpl_filter(const char *name)
{
    const Builtin *b = tpl_builtin(tpl_text_filters, name);
    return b ? b : tpl_builtin(tpl_list_filters, name);
}

const Value *tpl_bind(Ctx *c, const Builtin *what, const Value *self)
{
    Value *v = tpl_new(c, V_BOUND);
    v->u.bound.what = what;
    v->u.bound.self = self;
    return v;
}

static const Value *method(Ctx *c, const Builtin *table, const Value *self, const Value *name)
{
    for (; table->name; table++) {
        if (tpl_same(name, table->name))
            return tpl_bind(c, table, self);
    }
    return NULL;
}

static const Value *loop_attr(Ctx *c, const Loop *l, const Value *name)
{
    const int64_t index = (int64_t)l->index, n = (int64_t)l->items.n;
    const struct { const char *name; int64_t value; } numbers[] = {
        { "index", index + 1 }, { "index0", index },     { "revindex", n - index }, { "revindex0", n - index - 1 },
        { "length", n },        { "depth", 1 },          { "depth0", 0 }, /* of recursive loops, which are refused */
    };

    for (size_t i = 0; i < G_N_ELEMENTS(numbers); i++) {
        if (tpl_same(name, numbers[i].name))
            return tpl_int(c, numbers[i].value, true);
    }
    if (tpl_same(name, "first"))
        return tpl_bool(index == 0);
    if (tpl_same(name, "last"))
        return tpl_bool(index == n - 1);
    if (tpl_same(name, "previtem"))
        return index > 0 ? l->items.at[index - 1] : tpl_missing(c, NULL, NULL);
    if (tpl_same(name, "nextitem"))
        return index < n - 1 ? l->items.at[index + 1] : tpl_missing(c, NULL, NULL);
    return NULL;
}

/* What Python has, but would change the object: the sandbox refuses it. */
static void refuse_changes(Ctx *c, const Value *v, const Value *name)
{
    static const char *const of_list[] = { "append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort" };
    static const char *const of_dict[] = { "clear", "pop", "popitem", "setdefault", "update" };
    const bool               is_list = v->kind == V_LIST;
    const char *const       *names = is_list ? of_list : of_dict;

    for (size_t i = 0; i < (is_list ? G_N_ELEMENTS(of_list) : G_N_ELEMENTS(of_dict)); i++) {
        if (tpl_same(name, names[i]))
            tpl_fail(c, "%s() would change a %s, which a template may not", names[i], tpl_kind_name(v));
    }
}

const Value *tpl_attr(Ctx *c, const Value *v, const Value *name)
{
    const Value *found = NULL;

    switch (v->kind) {
    case V_UNDEFINED:
        tpl_fail_missing(c, v);
    case V_STRING:
        found = method(c, tpl_string_methods, v, name);
        break;
    case V_LIST:
    case V_TUPLE:
        refuse_changes(c, v, name);
        found = method(c, tpl_list_methods, v, name);
        break;
    case V_DICT:
        found = method(c, tpl_dict_methods, v, name);
        if (!found)
            found = tpl_dict_get(c, v->u.dict, name);
        if (!found)
            refuse_changes(c, v, name);
        break;
    case V_NAMESPACE:
        found = tpl_dict_get(c, v->u.dict, name);
        break;
    case V_LOOP:
        found = loop_attr(c, v->u.loop, name);
        if (!found)
            found = method(c, tpl_loop_methods, v, name);
        break;
    case V_CYCLER:
        found = tpl_same(name, "current") ? v->u.stream->items.at[v->u.stream->next % v->u.stream->items.n]
                                          : method(c, tpl_cycler_methods, v, name);
        break;
    case V_MACRO:
        if (tpl_same(name, "name"))
            found = tpl_str(c, v->u.macro.node->name);
        break;
    default:
        break;
    }
    return found ? found : tpl_missing(c, name, v);
}

const Value *tpl_item(Ctx *c, const Value *v, const Value *key)
{
    const bool   is_index = key->kind == V_INT || key->kind == V_BOOL;
    const Value *found;
    int64_t      i, n;

    if (v->kind == V_UNDEFINED)
        tpl_fail_missing(c, v);
    if (v->kind == V_DICT && key->kind != V_LIST && key->kind != V_DICT && (found = tpl_dict_get(c, v->u.dict, key)))
        return found;
    if (is_str(key))
        return tpl_attr(c, v, key);
    if (!is_index || (!is_str(v) && v->kind != V_LIST && v->kind != V_TUPLE && v->kind != V_RANGE))
        return tpl_missing(c, key, v);
    i = key->u.integer;
    n = (int64_t)tpl_length(c, v);
    i = i < 0 ? i + n : i;
    if (i < 0 || i >= n)
        return tpl_missing(c, key, v);
    if (v->kind == V_RANGE)
        return tpl_int(c, tpl_range_at(v, (size_t)i), v->trusted);
    if (is_str(v)) {
        const size_t start = tpl_offset(c, v, (size_t)i);
        return tpl_cut(c, v, start, (size_t)g_utf8_skip[(guchar)v->u.text.s[start]]);
    }
    return v->u.list.at[i];
}

/* A slice's end, within [low, high]. */
static int64_t bound(Ctx *c, const Value *v, int64_t n, int64_t otherwise, int64_t low, int64_t high)
{
    int64_t i;

    if (!v || v->kind == V_NONE)
        return otherwise;
    i = tpl_integer(c, v, "a slice's bound");
    i = i < 0 ? (i < -n ? low : i + n) : i;
    return CLAMP(i, low, high);
}

const Value *tpl_slice(Ctx *c, const Value *v, const Value *start, const Value *stop, const Value *step)
{
    const bool    text = is_str(v);
    int64_t       by, from, to, n;
    const Value **at;
    size_t        count;
    List          all;

    if (v->kind == V_UNDEFINED)
        tpl_fail_missing(c, v);
    if (!text && v->kind != V_LIST && v->kind != V_TUPLE && v->kind != V_RANGE)
        return tpl_missing(c, tpl_str(c, "slice"), v);
    n = (int64_t)tpl_length(c, v);
    by = !step || step->kind == V_NONE ? 1 : tpl_integer(c, step, "a slice's step");
    if (by == 0)
        tpl_fail(c, "a slice's step is 0");
    by = CLAMP(by, -n - 1, n + 1);
    from = bound(c, start, n, by > 0 ? 0 : n - 1, by > 0 ? 0 : -1, by > 0 ? n : n - 1);
    to = bound(c, stop, n, by > 0 ? n : -1, by > 0 ? 0 : -1, by > 0 ? n : n - 1);
    count = by > 0 ? (to > from ? (size_t)((to - from - 1) / by + 1) : 0)
                   : (from > to ? (size_t)((from - to - 1) / -by + 1) : 0);
    if (text && by == 1) {
        const size_t first = tpl_offset(c, v, (size_t)from);
        return count ? tpl_cut(c, v, first, tpl_offset(c, v, (size_t)to) - first) : tpl_cut(c, v, 0, 0);
    }
    if (v->kind == V_RANGE) {
        Value *part = tpl_new(c, V_RANGE);
        part->u.range.start = tpl_range_at(v, (size_t)from);
        part->u.range.step = (int64_t)((guint64)v->u.range.step * (guint64)by);
        part->u.range.n = count;
        return part;
    }
    all = tpl_items(c, v);
    at = tpl_array(c, count, sizeof *at);
    for (size_t i = 0; i < count; i++)
        at[i] = all.at[from + (int64_t)i * by];
    if (text)
        return tpl_join(c, tpl_str(c, ""), (List){ at, count });
    return tpl_list(c, v->kind == V_TUPLE ? V_TUPLE : V_LIST, at, count);
}

static const Value *item(Ctx *c, const Node *n)
{
    const Value *v = tpl_eval(c, n->a);
    const Node  *key = n->b;

    if (key->kind != N_SLICE)
        return tpl_item(c, v, tpl_eval(c, key));
    return tpl_slice(c, v, key->a ? tpl_eval(c, key->a) : NULL, key->b ? tpl_eval(c, key->b) : NULL,
                     key->c ? tpl_eval(c, key->c) : NULL);
}

/* ---- calls ------------------------------------------------------------- */
/* The place of `name` among "width first blank"; SIZE_MAX: none. */
static size_t parameter(const char *params, const char *name)
{
    const size_t n = strlen(name);

    for (size_t i = 0; *params; i++) {
        const size_t len = strcspn(params, " ");
        if (len == n && memcmp(params, name, n) == 0)
            return i;
        params += len + strspn(params + len, " ");
    }
    return SIZE_MAX;
}

static size_t n_parameters(const char *params)
{
    size_t n = *params != 0;

    for (; *params; params++)
        n += *params == ' ';
    return n;
}

const Value *tpl_call_builtin(Ctx *c, const Builtin *what, const Value *self, const Args *in)
{
    const Value *at[MAX_PARAMS] = { NULL };
    Args         args = { .at = at };

    if (!what->params)
        return what->fn(c, self, in);
    args.n = n_parameters(what->params);
    if (in->n > args.n)
        tpl_fail(c, "%s takes at most %zu arguments, not %zu", what->name, args.n, in->n);
    for (size_t i = 0; i < in->n; i++)
        at[i] = in->at[i];
    for (size_t i = 0; i < in->n_named; i++) {
        const size_t to = parameter(what->params, in->names[i]);
        if (to == SIZE_MAX)
            tpl_fail(c, "%s has no argument '%.40s'", what->name, in->names[i]);
        if (at[to])
            tpl_fail(c, "%s is given its argument '%.40s' twice", what->name, in->names[i]);
        at[to] = in->named[i];
    }
    for (size_t i = 0; i < what->required; i++) {
        if (!at[i])
            tpl_fail(c, "%s wants %zu arguments", what->name, what->required);
    }
    return what->fn(c, self, &args);
}

static Args arguments(Ctx *c, const Node *n, const Value *caller)
{
    const Value **at = tpl_array(c, n->n + 1, sizeof *at), **named = tpl_array(c, n->n + 1, sizeof *named);
    const char  **names = tpl_array(c, n->n + 1, sizeof *names);
    Args          args = { at, 0, names, named, 0 };

    for (size_t i = 0; i < n->n; i++) {
        const Node *arg = n->list[i];
        if (arg->kind != N_KEYWORD) {
            at[args.n++] = tpl_eval(c, arg);
            continue;
        }
        names[args.n_named] = arg->name;
        named[args.n_named++] = tpl_eval(c, arg->a);
    }
    if (caller) {
        names[args.n_named] = "caller";
        named[args.n_named++] = caller;
    }
    return args;
}

const Value *tpl_call(Ctx *c, const Value *callee, const Args *args)
{
    switch (callee->kind) {
    case V_MACRO:
        return tpl_call_macro(c, callee, args);
    case V_BOUND:
        return tpl_call_builtin(c, callee->u.bound.what, callee->u.bound.self, args);
    case V_JOINER:
        return callee->u.stream->next++ ? callee->u.stream->items.at[0] : tpl_str(c, "");
    case V_UNDEFINED:
        tpl_fail_missing(c, callee);
    default:
        tpl_fail(c, "a %s cannot be called", tpl_kind_name(callee));
    }
}

const Value *tpl_eval_call(Ctx *c, const Node *n, const Value *caller)
{
    const Value *callee = tpl_eval(c, n->a);
    const Args   args = n->n || caller ? arguments(c, n, caller) : (Args){ 0 };

    c->line = n->line;
    return tpl_call(c, callee, &args);
}

static const Value *filter_or_test(Ctx *c, const Node *n)
{
    const Value *in = n->a ? tpl_eval(c, n->a) : c->input;
    const Args   args = n->n ? arguments(c, n, NULL) : (Args){ 0 };

    c->line = n->line;
    if (!n->builtin)
        tpl_fail(c, "no %s '%.40s'", n->kind == N_FILTER ? "filter" : "test", n->name);
    return tpl_call_builtin(c, n->builtin, in, &args);
}

/* ---- operators --------------------------------------------------------- */
/* a + b + c...: strings are put together once, not once for each sign. */
static const Value *binary(Ctx *c, const Node *n)
{
    const Node  *few[8], **spine = few, *m;
    size_t       count = 0, i;
    const Value *v, *right;
    Builder      text = { 0 };
    bool         building = false;

    for (m = n; m->kind == N_BINARY; m = m->a)
        count++;
    if (count > G_N_ELEMENTS(few))
        spine = tpl_array(c, count, sizeof *spine);
    for (m = n, i = count; m->kind == N_BINARY; m = m->a)
        spine[--i] = m;
    v = tpl_eval(c, m);
    for (i = 0; i < count; i++) {
        right = tpl_eval(c, spine[i]->b);
        c->line = spine[i]->line;
        tpl_step(c, 1);
        if (spine[i]->op == OP_ADD && (building || is_str(v)) && is_str(right)) {
            if (!building)
                tpl_put_value(c, &text, v);
            tpl_put_value(c, &text, right);
            building = true;
            continue;
        }
        if (building)
            v = tpl_built(c, &text);
        building = false;
        text = (Builder){ 0 };
        v = tpl_arith(c, spine[i]->op, v, right);
    }
    return building ? tpl_built(c, &text) : v;
}

static bool holds(Ctx *c, Op op, const Value *a, const Value *b)
{
    int order;

    if (op == OP_EQ || op == OP_NE)
        return tpl_equal(c, a, b) == (op == OP_EQ);
    if (op == OP_IN || op == OP_NOT_IN)
        return tpl_contains(c, b, a) == (op == OP_IN);
    order = tpl_order(c, a, b);
    if (order == 2)
        return false;
    return op == OP_LT ? order < 0 : op == OP_LE ? order <= 0 : op == OP_GT ? order > 0 : order >= 0;
}

static const Value *compare(Ctx *c, const Node *n)
{
    const Value *left = tpl_eval(c, n->a);

    for (size_t i = 0; i < n->n; i++) {
        const Value *right = tpl_eval(c, n->list[i]->b);
        c->line = n->list[i]->line;
        if (!holds(c, n->list[i]->op, left, right))
            return &tpl_false;
        left = right;
    }
    return &tpl_true;
}

static const Value *logical(Ctx *c, const Node *n)
{
    const Value *v = NULL;

    for (size_t i = 0; i < n->n; i++) {
        v = tpl_eval(c, n->list[i]);
        if (tpl_truth(c, v) == (n->kind == N_OR))
            break;
    }
    return v;
}

static const Value *sign(Ctx *c, const Node *n)
{
    const Value *v = tpl_eval(c, n->a);

    if (v->kind == V_UNDEFINED)
        tpl_fail_missing(c, v);
    if (!tpl_is_number(v))
        tpl_fail(c, "a %s has no sign", tpl_kind_name(v));
    if (n->op == OP_SUB)
        return tpl_negate(c, v);
    return v->kind == V_BOOL ? tpl_int(c, v->u.integer, v->trusted) : v;
}

static const Value *display(Ctx *c, const Node *n)
{
    const Value **at;
    const Value  *dict;

    if (n->kind != N_DICT) {
        at = tpl_array(c, n->n, sizeof *at);
        for (size_t i = 0; i < n->n; i++)
            at[i] = tpl_eval(c, n->list[i]);
        return tpl_list(c, n->kind == N_LIST ? V_LIST : V_TUPLE, at, n->n);
    }
    dict = tpl_dict(c, V_DICT);
    for (size_t i = 0; i < n->n; i += 2) {
        const Value *key = tpl_eval(c, n->list[i]);
        tpl_dict_set(c, dict->u.dict, key, tpl_eval(c, n->list[i + 1]));
    }
    return dict;
}

static const Value *concat(Ctx *c, const Node *n)
{
    Builder b = { 0 };

    for (size_t i = 0; i < n->n; i++)
        tpl_put_value(c, &b, tpl_eval(c, n->list[i]));
    return tpl_built(c, &b);
}

static const Value *eval(Ctx *c, const Node *n)
{
    switch (n->kind) {
    case N_CONST:
        return n->value;
    case N_NAME:
        return variable(c, n->name);
    case N_LIST:
    case N_TUPLE:
    case N_DICT:
        return display(c, n);
    case N_BINARY:
        return binary(c, n);
    case N_CONCAT:
        return concat(c, n);
    case N_UNARY:
        return sign(c, n);
    case N_AND:
    case N_OR:
        return logical(c, n);
    case N_NOT:
        return tpl_bool(!tpl_truth(c, tpl_eval(c, n->a)));
    case N_COMPARE:
        return compare(c, n);
    case N_CONDITION:
        if (tpl_truth(c, tpl_eval(c, n->a)))
            return tpl_eval(c, n->b);
        return n->c ? tpl_eval(c, n->c) : tpl_missing(c, NULL, NULL);
    case N_ATTR:
        return tpl_attr(c, tpl_eval(c, n->a), n->value);
    case N_ITEM:
        return item(c, n);
    case N_CALL:
        return tpl_eval_call(c, n, NULL);
    default: /* N_FILTER, N_TEST: there are no other expressions */
        return filter_or_test(c, n);
    }
}

const Value *tpl_eval(Ctx *c, const Node *n)
{
    const Value *v;

    tpl_enter(c);
    tpl_step(c, 1);
    c->line = n->line;
    v = eval(c, n);
    tpl_leave(c);
    return v;
}
