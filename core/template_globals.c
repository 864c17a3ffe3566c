/* template_globals.c - functions that every template knows, and the methods of the objects
 * that they and loops make. */
#include "template_eval.h"

#define FUNCTION(name) static const Value *name(Ctx *c, const Value *self, const Args *args)

FUNCTION(range)
{
    int64_t start = 0, stop = tpl_integer(c, args->at[0], "range's argument"), step = 1;
    guint64 n = 0;
    Value  *v;

    (void)self;
    if (args->at[1]) {
        start = stop;
        stop = tpl_integer(c, args->at[1], "range's argument");
    }
    if (args->at[2])
        step = tpl_integer(c, args->at[2], "range's argument");
    if (step == 0)
        tpl_fail(c, "range: the step is 0");
    if (step > 0 && stop > start)
        n = ((guint64)stop - (guint64)start - 1) / (guint64)step + 1;
    else if (step < 0 && stop < start)
        n = ((guint64)start - (guint64)stop - 1) / (0 - (guint64)step) + 1;
    if (n > MI_TEMPLATE_MAX_RANGE)
        tpl_fail(c, "range: more than %d items", MI_TEMPLATE_MAX_RANGE);
    v = tpl_new(c, V_RANGE);
    v->trusted = args->at[0]->trusted && (!args->at[1] || args->at[1]->trusted);
    v->u.range.start = start;
    v->u.range.step = step;
    v->u.range.n = (size_t)n;
    return v;
}

/* dict(other, a=1), namespace(other, a=1) */
static const Value *make_dict(Ctx *c, const Args *args, Kind kind)
{
    const Value *v = tpl_dict(c, kind);

    if (args->n > 1 || (args->n == 1 && args->at[0]->kind != V_DICT))
        tpl_fail(c, "dict and namespace take one dict at most, and names");
    for (size_t i = 0; args->n && i < args->at[0]->u.dict->n; i++)
        tpl_dict_set(c, v->u.dict, args->at[0]->u.dict->keys[i], args->at[0]->u.dict->values[i]);
    for (size_t i = 0; i < args->n_named; i++)
        tpl_dict_set(c, v->u.dict, tpl_str(c, args->names[i]), args->named[i]);
    return v;
}

FUNCTION(dict) { return (void)self, make_dict(c, args, V_DICT); }
FUNCTION(namespace) { return (void)self, make_dict(c, args, V_NAMESPACE); }

FUNCTION(raise_exception)
{
    const Value *text = tpl_to_str(c, args->at[0]);

    (void)self;
    tpl_fail(c, "the template refuses: %.*s", (int)MIN(text->u.text.n, 500), text->u.text.s);
}

FUNCTION(strftime_now)
{
    (void)self;
    if (!is_str(args->at[0]))
        tpl_fail(c, "strftime_now wants a str, not a %s", tpl_kind_name(args->at[0]));
    return tpl_strftime(c, args->at[0]);
}

FUNCTION(joiner)
{
    const Value **sep = tpl_array(c, 1, sizeof *sep);
    Value        *v = tpl_new(c, V_JOINER);

    (void)self;
    sep[0] = args->at[0] ? args->at[0] : tpl_str(c, ", ");
    v->u.stream = tpl_alloc(c, sizeof *v->u.stream);
    v->u.stream->items = (List){ sep, 1 };
    return v;
}

FUNCTION(cycler)
{
    Value *v = tpl_new(c, V_CYCLER);

    (void)self;
    if (!args->n || args->n_named)
        tpl_fail(c, "cycler wants one item at least");
    v->u.stream = tpl_alloc(c, sizeof *v->u.stream);
    v->u.stream->items = (List){ args->at, args->n };
    return v;
}

const Builtin tpl_globals[] = {
    { "cycler", cycler, NULL, 0 },
    { "dict", dict, NULL, 0 },
    { "joiner", joiner, "sep", 0 },
    { "namespace", namespace, NULL, 0 },
    { "raise_exception", raise_exception, "message", 1 },
    { "range", range, "start stop step", 1 },
    { "strftime_now", strftime_now, "format", 1 },
    { NULL, NULL, NULL, 0 },
};

/* ---- methods ----------------------------------------------------------- */
FUNCTION(cycle)
{
    if (!args->n || args->n_named)
        tpl_fail(c, "cycle wants one item at least");
    return args->at[self->u.loop->index % args->n];
}

FUNCTION(changed)
{
    const Value *now = tpl_list(c, V_TUPLE, args->at, args->n);
    const bool   same = self->u.loop->changed && tpl_equal(c, self->u.loop->changed, now);

    self->u.loop->changed = now;
    return tpl_bool(!same);
}

const Builtin tpl_loop_methods[] = {
    { "changed", changed, NULL, 0 },
    { "cycle", cycle, NULL, 0 },
    { NULL, NULL, NULL, 0 },
};

FUNCTION(next)
{
    Stream *s = self->u.stream;
    return (void)c, (void)args, s->items.at[s->next++ % s->items.n];
}

FUNCTION(reset)
{
    self->u.stream->next = 0;
    return (void)c, (void)args, &tpl_none;
}

const Builtin tpl_cycler_methods[] = {
    { "next", next, "", 0 },
    { "reset", reset, "", 0 },
    { NULL, NULL, NULL, 0 },
};
