/* template_expression.c - tokens as nodes: Jinja's expressions, by recursive descent.
 *
 * Operators, loosest first: x if y else z; or; and; not; comparisons, in, not in; + -; ~;
 * * / // %; **; unary + -; . [] (); then | and `is`, which bind to the operand as a whole. */
#include "template_eval.h"

#include <string.h>

static Node *condition(Parser *);
static Node *unary(Parser *, bool with_filters);

/* ---- tokens ------------------------------------------------------------ */
void tpl_next(Parser *p)
{
    p->token = p->after;
    if (p->token.type != T_END)
        tpl_lex(&p->lexer, &p->after);
    p->c->line = p->token.line;
}

bool tpl_at_op(const Parser *p, Op op) { return p->token.type == T_OP && p->token.op == op; }

bool tpl_at_name(const Parser *p, const char *name)
{
    return p->token.type == T_NAME && strcmp(p->token.name, name) == 0;
}

bool tpl_take_op(Parser *p, Op op)
{
    if (!tpl_at_op(p, op))
        return false;
    tpl_next(p);
    return true;
}

bool tpl_take_name(Parser *p, const char *name)
{
    if (!tpl_at_name(p, name))
        return false;
    tpl_next(p);
    return true;
}

void tpl_unexpected(Parser *p, const char *wanted)
{
    const Token *t = &p->token;

    p->c->line = t->line;
    tpl_fail(p->c, "found '%.*s' where %s should stand", (int)MIN(t->n, 40), t->s, wanted);
}

void tpl_want_op(Parser *p, Op op, const char *wanted)
{
    if (!tpl_take_op(p, op))
        tpl_unexpected(p, wanted);
}

const char *tpl_want_name(Parser *p)
{
    const char *name = p->token.name;

    if (p->token.type != T_NAME)
        tpl_unexpected(p, "a name");
    tpl_next(p);
    return name;
}

/* ---- nodes ------------------------------------------------------------- */
Node *tpl_node(Parser *p, NodeKind kind)
{
    Node *n = tpl_alloc(p->c, sizeof *n);
    n->kind = kind;
    n->line = p->token.line;
    return n;
}

void tpl_deeper(Parser *p)
{
    if (++p->c->depth > MI_TEMPLATE_MAX_DEPTH)
        tpl_fail(p->c, "nested more than %d deep", MI_TEMPLATE_MAX_DEPTH);
}

void tpl_shallower(Parser *p) { p->c->depth--; }

/* Room doubles at each power of two. */
void tpl_add(Parser *p, Node *list, Node *item)
{
    if ((list->n & (list->n - 1)) == 0) {
        Node **bigger = tpl_array(p->c, list->n ? 2 * list->n : 1, sizeof *bigger);
        if (list->n)
            memcpy(bigger, list->list, list->n * sizeof *bigger);
        list->list = bigger;
    }
    list->list[list->n++] = item;
}

static Node *constant(Parser *p, const Value *v)
{
    Node *n = tpl_node(p, N_CONST);
    n->value = v;
    return n;
}

/* ---- operands ---------------------------------------------------------- */
static Node *name_or_constant(Parser *p)
{
    static const struct { const char *name; const Value *value; } constants[] = {
        { "true", &tpl_true },   { "True", &tpl_true }, { "false", &tpl_false },
        { "False", &tpl_false }, { "none", &tpl_none }, { "None", &tpl_none },
    };
    Node *n;

    for (size_t i = 0; i < G_N_ELEMENTS(constants); i++) {
        if (tpl_at_name(p, constants[i].name)) {
            n = constant(p, constants[i].value);
            tpl_next(p);
            return n;
        }
    }
    n = tpl_node(p, N_NAME);
    n->name = tpl_want_name(p);
    return n;
}

/* Strings side by side are one. */
static Node *literal(Parser *p)
{
    Node   *n = constant(p, p->token.value);
    Builder b = { 0 };

    tpl_next(p);
    if (!is_str(n->value) || p->token.type != T_VALUE || !is_str(p->token.value))
        return n;
    tpl_put_value(p->c, &b, n->value);
    for (; p->token.type == T_VALUE && is_str(p->token.value); tpl_next(p))
        tpl_put_value(p->c, &b, p->token.value);
    n->value = tpl_built(p->c, &b);
    return n;
}

static Node *list_display(Parser *p)
{
    Node *n = tpl_node(p, N_LIST);

    tpl_next(p);
    while (!tpl_take_op(p, OP_RBRACKET)) {
        if (n->n) {
            tpl_want_op(p, OP_COMMA, "a comma or ]");
            if (tpl_take_op(p, OP_RBRACKET))
                break;
        }
        tpl_add(p, n, tpl_expression(p));
    }
    return n;
}

static Node *dict_display(Parser *p)
{
    Node *n = tpl_node(p, N_DICT);

    tpl_next(p);
    while (!tpl_take_op(p, OP_RBRACE)) {
        if (n->n) {
            tpl_want_op(p, OP_COMMA, "a comma or }");
            if (tpl_take_op(p, OP_RBRACE))
                break;
        }
        tpl_add(p, n, tpl_expression(p));
        tpl_want_op(p, OP_COLON, "a colon");
        tpl_add(p, n, tpl_expression(p));
    }
    return n;
}

static Node *parentheses(Parser *p)
{
    Node *n;

    tpl_next(p);
    if (tpl_at_op(p, OP_RPAREN))
        n = tpl_node(p, N_TUPLE);
    else
        n = tpl_tuple(p, true);
    tpl_want_op(p, OP_RPAREN, "a closing )");
    return n;
}

Node *tpl_primary(Parser *p)
{
    Node *n;

    tpl_deeper(p);
    if (p->token.type == T_NAME)
        n = name_or_constant(p);
    else if (p->token.type == T_VALUE)
        n = literal(p);
    else if (tpl_at_op(p, OP_LPAREN))
        n = parentheses(p);
    else if (tpl_at_op(p, OP_LBRACKET))
        n = list_display(p);
    else if (tpl_at_op(p, OP_LBRACE))
        n = dict_display(p);
    else
        tpl_unexpected(p, "a value");
    tpl_shallower(p);
    return n;
}

/* ---- what follows an operand ------------------------------------------- */
static void arguments(Parser *p, Node *call)
{
    bool named = false;

    tpl_next(p);
    while (!tpl_take_op(p, OP_RPAREN)) {
        Node *arg;

        if (call->n) {
            tpl_want_op(p, OP_COMMA, "a comma or )");
            if (tpl_take_op(p, OP_RPAREN))
                break;
        }
        if (tpl_at_op(p, OP_MUL) || tpl_at_op(p, OP_POW))
            tpl_fail(p->c, "arguments by * and ** are not supported");
        if (p->token.type == T_NAME && p->after.type == T_OP && p->after.op == OP_ASSIGN) {
            named = true;
            arg = tpl_node(p, N_KEYWORD);
            arg->name = p->token.name;
            tpl_next(p);
            tpl_next(p);
            arg->a = tpl_expression(p);
        } else {
            if (named)
                tpl_fail(p->c, "an argument without a name follows one with a name");
            arg = tpl_expression(p);
        }
        tpl_add(p, call, arg);
    }
}

/* Inside []: x, or x:y:z with any of them left out. */
static Node *subscript(Parser *p)
{
    Node  *slice = tpl_node(p, N_SLICE);
    Node **part[] = { &slice->a, &slice->b, &slice->c };

    for (int i = 0; i < 3; i++) {
        if (!tpl_at_op(p, OP_COLON) && !tpl_at_op(p, OP_RBRACKET))
            *part[i] = tpl_expression(p);
        if (i == 0 && *part[0] && tpl_at_op(p, OP_RBRACKET))
            return *part[0];
        if (i == 0 && !tpl_at_op(p, OP_COLON))
            tpl_unexpected(p, "a subscript");
        if (i < 2 && !tpl_take_op(p, OP_COLON))
            break;
    }
    return slice;
}

static Node *dotted(Parser *p, Node *of)
{
    Node *n = tpl_node(p, N_ATTR);

    tpl_next(p);
    n->a = of;
    if (p->token.type == T_NAME) {
        n->name = p->token.name;
        n->value = tpl_str(p->c, n->name);
    } else if (p->token.type == T_VALUE && p->token.value->kind == V_INT) {
        n->kind = N_ITEM;
        n->b = constant(p, p->token.value);
    } else {
        tpl_unexpected(p, "a name or a number");
    }
    tpl_next(p);
    return n;
}

Node *tpl_postfix(Parser *p, Node *n)
{
    for (int length = 0;; length++) {
        Node *next;

        if (length == MI_TEMPLATE_MAX_DEPTH)
            tpl_fail(p->c, "more than %d subscripts and calls in a row", MI_TEMPLATE_MAX_DEPTH);
        if (tpl_at_op(p, OP_DOT)) {
            n = dotted(p, n);
        } else if (tpl_at_op(p, OP_LBRACKET)) {
            next = tpl_node(p, N_ITEM);
            tpl_next(p);
            next->a = n;
            next->b = subscript(p);
            tpl_want_op(p, OP_RBRACKET, "a closing ]");
            n = next;
        } else if (tpl_at_op(p, OP_LPAREN)) {
            next = tpl_node(p, N_CALL);
            next->a = n;
            arguments(p, next);
            n = next;
        } else {
            return n;
        }
    }
}

static Node *filter(Parser *p, Node *in)
{
    Node *n = tpl_node(p, N_FILTER);

    n->a = in;
    n->name = tpl_want_name(p);
    n->builtin = tpl_filter(n->name);
    if (tpl_at_op(p, OP_LPAREN))
        arguments(p, n);
    return n;
}

Node *tpl_filters(Parser *p, Node *in)
{
    Node *n = filter(p, in);

    for (int length = 1; tpl_take_op(p, OP_PIPE); length++) {
        if (length == MI_TEMPLATE_MAX_DEPTH)
            tpl_fail(p->c, "more than %d filters in a row", MI_TEMPLATE_MAX_DEPTH);
        n = filter(p, n);
    }
    return n;
}

/* x is [not] name, name(args) or name arg. */
static Node *test(Parser *p, Node *of)
{
    Node      *n = tpl_node(p, N_TEST), *no = NULL;
    bool       has_arg;

    tpl_next(p);
    if (tpl_at_name(p, "not")) {
        no = tpl_node(p, N_NOT);
        tpl_next(p);
    }
    n->a = of;
    n->name = tpl_want_name(p);
    n->builtin = tpl_builtin(tpl_tests, n->name);
    has_arg = p->token.type == T_VALUE || tpl_at_op(p, OP_LBRACKET) || tpl_at_op(p, OP_LBRACE) ||
              (p->token.type == T_NAME && !tpl_at_name(p, "else") && !tpl_at_name(p, "or") && !tpl_at_name(p, "and"));
    if (tpl_at_op(p, OP_LPAREN)) {
        arguments(p, n);
    } else if (has_arg) {
        if (tpl_at_name(p, "is"))
            tpl_fail(p->c, "tests with 'is' cannot be chained");
        tpl_add(p, n, tpl_postfix(p, tpl_primary(p)));
    }
    if (!no)
        return n;
    no->a = n;
    return no;
}

static Node *filters_and_tests(Parser *p, Node *n)
{
    for (int length = 0;; length++) {
        if (length == MI_TEMPLATE_MAX_DEPTH)
            tpl_fail(p->c, "more than %d filters and tests in a row", MI_TEMPLATE_MAX_DEPTH);
        if (tpl_take_op(p, OP_PIPE)) {
            n = filter(p, n);
        } else if (tpl_at_name(p, "is")) {
            n = test(p, n);
        } else if (tpl_at_op(p, OP_LPAREN)) {
            Node *call = tpl_node(p, N_CALL);
            call->a = n;
            arguments(p, call);
            n = call;
        } else {
            return n;
        }
    }
}

/* ---- operators --------------------------------------------------------- */
static Node *unary(Parser *p, bool with_filters)
{
    Node *n;

    tpl_deeper(p);
    if (tpl_at_op(p, OP_SUB) || tpl_at_op(p, OP_ADD)) {
        n = tpl_node(p, N_UNARY);
        n->op = p->token.op;
        tpl_next(p);
        n->a = unary(p, false);
    } else {
        n = tpl_primary(p);
    }
    n = tpl_postfix(p, n);
    if (with_filters)
        n = filters_and_tests(p, n);
    tpl_shallower(p);
    return n;
}

/* Left to right, as long as operators of this level come.  The left spine may be long: it
 * is built and evaluated in loops. */
static Node *binary(Parser *p, Node *(*operand)(Parser *), const Op *level)
{
    Node *n = operand(p);

    for (;;) {
        const Op *op = level;
        Node     *next;

        while (*op != OP_NONE && !tpl_at_op(p, *op))
            op++;
        if (*op == OP_NONE)
            return n;
        next = tpl_node(p, N_BINARY);
        next->op = *op;
        tpl_next(p);
        next->a = n;
        next->b = operand(p);
        n = next;
    }
}

static Node *operand(Parser *p) { return unary(p, true); }
static Node *power(Parser *p) { return binary(p, operand, (const Op[]){ OP_POW, OP_NONE }); }
static Node *product(Parser *p)
{
    return binary(p, power, (const Op[]){ OP_MUL, OP_DIV, OP_FLOORDIV, OP_MOD, OP_NONE });
}

static Node *concat(Parser *p)
{
    Node *first = product(p), *n;

    if (!tpl_at_op(p, OP_TILDE))
        return first;
    n = tpl_node(p, N_CONCAT);
    tpl_add(p, n, first);
    while (tpl_take_op(p, OP_TILDE))
        tpl_add(p, n, product(p));
    return n;
}

static Node *sum(Parser *p) { return binary(p, concat, (const Op[]){ OP_ADD, OP_SUB, OP_NONE }); }

static Op comparison(Parser *p)
{
    if (p->token.type == T_OP && p->token.op <= OP_GE) /* arithmetic, which stands before OP_EQ, was taken by sum() */
        return p->token.op;
    if (tpl_at_name(p, "in"))
        return OP_IN;
    if (tpl_at_name(p, "not") && p->after.type == T_NAME && strcmp(p->after.name, "in") == 0)
        return OP_NOT_IN;
    return OP_NONE;
}

static Node *compare(Parser *p)
{
    Node *n = sum(p), *whole = NULL;
    Op    op;

    while ((op = comparison(p)) != OP_NONE) {
        Node *step = tpl_node(p, N_BINARY);
        if (!whole) {
            whole = tpl_node(p, N_COMPARE);
            whole->a = n;
        }
        tpl_next(p);
        if (op == OP_NOT_IN)
            tpl_next(p);
        step->op = op;
        step->b = sum(p);
        tpl_add(p, whole, step);
    }
    return whole ? whole : n;
}

static Node *negation(Parser *p)
{
    Node *n;

    if (!tpl_at_name(p, "not"))
        return compare(p);
    tpl_deeper(p);
    n = tpl_node(p, N_NOT);
    tpl_next(p);
    n->a = negation(p);
    tpl_shallower(p);
    return n;
}

static Node *series(Parser *p, NodeKind kind, const char *word, Node *(*item)(Parser *))
{
    Node *first = item(p), *n;

    if (!tpl_at_name(p, word))
        return first;
    n = tpl_node(p, kind);
    tpl_add(p, n, first);
    while (tpl_take_name(p, word))
        tpl_add(p, n, item(p));
    return n;
}

static Node *conjunction(Parser *p) { return series(p, N_AND, "and", negation); }
static Node *disjunction(Parser *p) { return series(p, N_OR, "or", conjunction); }

static Node *condition(Parser *p)
{
    Node *n = disjunction(p);

    for (int length = 0; tpl_at_name(p, "if"); length++) {
        Node *whole = tpl_node(p, N_CONDITION);

        if (length == MI_TEMPLATE_MAX_DEPTH)
            tpl_fail(p->c, "nested more than %d deep", MI_TEMPLATE_MAX_DEPTH);
        tpl_next(p);
        whole->b = n;
        whole->a = disjunction(p);
        if (tpl_take_name(p, "else"))
            whole->c = tpl_expression(p);
        n = whole;
    }
    return n;
}

Node *tpl_expression(Parser *p)
{
    Node *n;

    tpl_deeper(p);
    n = condition(p);
    tpl_shallower(p);
    return n;
}

Node *tpl_tuple(Parser *p, bool conditions)
{
    Node *first = conditions ? tpl_expression(p) : disjunction(p), *n;

    if (!tpl_at_op(p, OP_COMMA))
        return first;
    n = tpl_node(p, N_TUPLE);
    tpl_add(p, n, first);
    while (tpl_take_op(p, OP_COMMA)) {
        if (p->token.type == T_PRINT_END || p->token.type == T_TAG_END || tpl_at_op(p, OP_RPAREN))
            break;
        tpl_add(p, n, conditions ? tpl_expression(p) : disjunction(p));
    }
    return n;
}
