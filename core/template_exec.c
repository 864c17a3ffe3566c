/* template_exec.c - statements, and a template's run as a whole. */
#include "template_eval.h"

#include <string.h>

typedef enum { GO_ON, BREAK, CONTINUE } Flow;

static Flow exec(Ctx *, const Node *);

/* ---- output ------------------------------------------------------------ */
static void write_run(Ctx *c, const char *s, size_t n, bool trusted)
{
    GArray *spans = c->out->spans;
    MiSpan  span = { c->out->text->len, n, trusted };
    MiSpan *last = spans->len ? &g_array_index(spans, MiSpan, spans->len - 1) : NULL;

    if (n == 0)
        return;
    if (n > MI_TEMPLATE_MAX_OUTPUT - c->out->text->len)
        tpl_fail(c, "puts out more than %d MiB", MI_TEMPLATE_MAX_OUTPUT >> 20);
    tpl_step(c, n / 64);
    g_string_append_len(c->out->text, s, (gssize)n);
    if (last && last->trusted == trusted) {
        last->len += n;
        return;
    }
    if (spans->len == MI_TEMPLATE_MAX_SPANS)
        tpl_fail(c, "puts out more than %d pieces of text in turn its own and the variables'", MI_TEMPLATE_MAX_SPANS);
    g_array_append_val(spans, span);
}

static void emit(Ctx *c, const Value *v)
{
    const Text *t;
    size_t      start = 0;

    if (c->capture) {
        tpl_put_value(c, c->capture, v);
        return;
    }
    v = tpl_to_str(c, v);
    t = &v->u.text;
    if (!t->marks) {
        write_run(c, t->s, t->n, v->trusted);
        return;
    }
    while (start < t->n) {
        const uint8_t *change = memchr(t->marks + start, !t->marks[start], t->n - start);
        const size_t   end = change ? (size_t)(change - t->marks) : t->n;
        write_run(c, t->s + start, end - start, t->marks[start]);
        start = end;
    }
}

/* What a body puts out, as a string. */
static const Value *captured(Ctx *c, const Node *body, Scope *scope)
{
    Builder      text = { 0 }, *outer = c->capture;
    Scope *const before = c->scope;

    c->capture = &text;
    c->scope = scope;
    exec(c, body);
    c->capture = outer;
    c->scope = before;
    return tpl_built(c, &text);
}

/* ---- assignment -------------------------------------------------------- */
static void assign(Ctx *c, Scope *scope, const Node *target, const Value *v)
{
    const Value *namespace;
    List         items;

    if (target->kind == N_NAME) {
        tpl_assign(c, scope, target->name, v);
        return;
    }
    if (target->kind == N_ATTR) {
        namespace = tpl_lookup(c, target->a->name);
        if (!namespace || namespace->kind != V_NAMESPACE)
            tpl_fail(c, "'%.40s' is no namespace, its attributes cannot be set", target->a->name);
        tpl_dict_set(c, namespace->u.dict, target->value, v);
        return;
    }
    if (v->kind == V_UNDEFINED)
        tpl_fail_missing(c, v);
    items = tpl_items(c, v);
    if (items.n != target->n)
        tpl_fail(c, "%zu values for %zu names", items.n, target->n);
    tpl_enter(c);
    for (size_t i = 0; i < items.n; i++)
        assign(c, scope, target->list[i], items.at[i]);
    tpl_leave(c);
}

static void set_block(Ctx *c, const Node *n)
{
    const Value *v = captured(c, n->b, tpl_scope(c, c->scope));

    if (n->c) {
        c->input = v;
        v = tpl_eval(c, n->c);
    }
    assign(c, c->scope, n->a, v);
}

/* ---- loops ------------------------------------------------------------- */
/* A scope for the next round: the last one again, unless a macro still knows it. */
static Scope *round_scope(Ctx *c, Scope *last, Scope *parent)
{
    if (!last || last->held)
        return tpl_scope(c, parent);
    last->n = 0;
    return last;
}

/* The items for which the loop's own condition holds. */
static List chosen(Ctx *c, const Node *n, List items)
{
    const Value **at = tpl_array(c, items.n, sizeof *at);
    Scope *const  outer = c->scope;
    Scope        *scope = NULL;
    size_t        count = 0;

    for (size_t i = 0; i < items.n; i++) {
        scope = round_scope(c, scope, outer);
        assign(c, scope, n->a, items.at[i]);
        c->scope = scope;
        if (tpl_truth(c, tpl_eval(c, n->c)))
            at[count++] = items.at[i];
        c->scope = outer;
    }
    return (List){ at, count };
}

static Flow loop(Ctx *c, const Node *n)
{
    Scope *const outer = c->scope;
    List         items = tpl_items(c, tpl_eval(c, n->b));
    Value       *v = tpl_new(c, V_LOOP);
    Scope       *scope = NULL;
    Flow         flow = GO_ON;

    if (n->c)
        items = chosen(c, n, items);
    if (items.n == 0)
        return n->e ? exec(c, n->e) : GO_ON;
    v->u.loop = tpl_alloc(c, sizeof *v->u.loop);
    v->u.loop->items = items;
    for (size_t i = 0; i < items.n && flow != BREAK; i++) {
        tpl_step(c, 1);
        v->u.loop->index = i;
        scope = round_scope(c, scope, outer);
        tpl_assign(c, scope, "loop", v);
        assign(c, scope, n->a, items.at[i]);
        c->scope = scope;
        flow = exec(c, n->d);
        c->scope = outer;
    }
    return GO_ON;
}

/* ---- macros ------------------------------------------------------------ */
static const Value *macro(Ctx *c, const Node *n)
{
    Value *v = tpl_new(c, V_MACRO);

    v->u.macro.node = n;
    v->u.macro.home = c->scope;
    for (Scope *s = c->scope; s && !s->held; s = s->parent)
        s->held = true;
    return v;
}

static const Value *named_argument(const Args *args, const char *name)
{
    for (size_t i = 0; i < args->n_named; i++) {
        if (strcmp(args->names[i], name) == 0)
            return args->named[i];
    }
    return NULL;
}

static void check_names(Ctx *c, const Node *n, const Args *args)
{
    if (args->n > n->n)
        tpl_fail(c, "macro '%.40s' takes at most %zu arguments, not %zu", n->name, n->n, args->n);
    for (size_t i = 0; i < args->n_named; i++) {
        size_t to = 0;
        while (to < n->n && strcmp(n->list[to]->name, args->names[i]))
            to++;
        if (to == n->n && strcmp(args->names[i], "caller"))
            tpl_fail(c, "macro '%.40s' has no argument '%.40s'", n->name, args->names[i]);
        if (to < args->n)
            tpl_fail(c, "macro '%.40s' is given its argument '%.40s' twice", n->name, args->names[i]);
    }
}

const Value *tpl_call_macro(Ctx *c, const Value *v, const Args *args)
{
    const Node  *n = v->u.macro.node;
    Scope       *scope = tpl_scope(c, v->u.macro.home), *before = c->scope;
    const Value *caller = named_argument(args, "caller"), *out;

    tpl_enter(c);
    check_names(c, n, args);
    c->scope = scope;
    tpl_assign(c, scope, "caller", caller ? caller : tpl_missing(c, tpl_str(c, "caller"), NULL));
    for (size_t i = 0; i < n->n; i++) {
        const Node  *param = n->list[i];
        const Value *given = i < args->n ? args->at[i] : named_argument(args, param->name);

        if (!given)
            given = param->a ? tpl_eval(c, param->a) : tpl_missing(c, tpl_str(c, param->name), NULL);
        tpl_assign(c, scope, param->name, given);
    }
    c->scope = before;
    out = captured(c, n->b, scope);
    tpl_leave(c);
    return out;
}

/* ---- statements -------------------------------------------------------- */
static Flow exec_block(Ctx *c, const Node *n)
{
    Flow flow = GO_ON;

    for (size_t i = 0; i < n->n && flow == GO_ON; i++)
        flow = exec(c, n->list[i]);
    return flow;
}

static Flow exec_if(Ctx *c, const Node *n)
{
    for (; n && n->kind == N_IF; n = n->c) {
        c->line = n->line;
        if (tpl_truth(c, tpl_eval(c, n->a)))
            return exec(c, n->b);
    }
    return n ? exec(c, n) : GO_ON;
}

static Flow exec_in_scope(Ctx *c, const Node *n)
{
    Scope *const outer = c->scope, *const inner = tpl_scope(c, outer);
    Flow         flow;

    for (size_t i = 0; i < n->n; i++)
        assign(c, inner, n->list[i]->a, tpl_eval(c, n->list[i]->b));
    c->scope = inner;
    flow = exec(c, n->b);
    c->scope = outer;
    return flow;
}

static Flow exec_one(Ctx *c, const Node *n)
{
    switch (n->kind) {
    case N_BLOCK:
        return exec_block(c, n);
    case N_TEXT:
        emit(c, n->value);
        return GO_ON;
    case N_PRINT:
        emit(c, tpl_eval(c, n->a));
        return GO_ON;
    case N_IF:
        return exec_if(c, n);
    case N_FOR:
        return loop(c, n);
    case N_SET:
        assign(c, c->scope, n->a, tpl_eval(c, n->b));
        return GO_ON;
    case N_SET_BLOCK:
        set_block(c, n);
        return GO_ON;
    case N_MACRO:
        tpl_assign(c, c->scope, n->name, macro(c, n));
        return GO_ON;
    case N_CALL_BLOCK:
        emit(c, tpl_eval_call(c, n->a, macro(c, n)));
        return GO_ON;
    case N_FILTER_BLOCK:
        c->input = captured(c, n->b, tpl_scope(c, c->scope));
        emit(c, tpl_eval(c, n->a));
        return GO_ON;
    case N_WITH:
    case N_SCOPE:
        return exec_in_scope(c, n);
    case N_BREAK:
        return BREAK;
    default: /* N_CONTINUE: there are no other statements */
        return CONTINUE;
    }
}

static Flow exec(Ctx *c, const Node *n)
{
    Flow flow;

    tpl_enter(c);
    tpl_step(c, 1);
    c->line = n->line;
    flow = exec_one(c, n);
    tpl_leave(c);
    return flow;
}

/* ---- render ------------------------------------------------------------ */
static void set_variables(Ctx *c, const MiVar *vars, bool trusted)
{
    if (!vars)
        return;
    if (vars->type != MI_VAR_MAP)
        tpl_fail(c, "the variables are not a map");
    for (size_t i = 0; i < vars->n; i++)
        tpl_assign(c, c->scope, vars->keys[i], tpl_import(c, &vars->items[i], trusted));
}

static bool run(Ctx *c, const MiTemplate *t, const MiVar *vars, const MiVar *trusted)
{
    if (setjmp(c->leave))
        return false;
    c->scope = tpl_scope(c, NULL);
    c->input = &tpl_none;
    set_variables(c, vars, false);
    set_variables(c, trusted, true);
    exec(c, tpl_body(t));
    return true;
}

bool mi_template_render(const MiTemplate *t, const MiVar *vars, const MiVar *trusted, int64_t now, MiRendered *out,
                        GError **error)
{
    Ctx  c = { .error = error, .line = 1, .now = now, .out = out };
    bool ok;

    *out = (MiRendered){ g_string_new(NULL), g_array_new(FALSE, FALSE, sizeof(MiSpan)) };
    ok = run(&c, t, vars, trusted);
    tpl_free_chunks(c.chunks);
    if (!ok)
        mi_rendered_clear(out);
    return ok;
}

void mi_rendered_clear(MiRendered *r)
{
    if (r->text)
        g_string_free(r->text, TRUE);
    if (r->spans)
        g_array_free(r->spans, TRUE);
    *r = (MiRendered){ 0 };
}
