/* template_parse.c - tokens as nodes: Jinja's statements; parsing as a whole. */
#include "template_eval.h"

#include <miniinfer/plugin.h>
#include <string.h>

struct MiTemplate {
    Chunk *chunks;
    Node  *body;
};

static Node *body_until(Parser *, const char *const *ends);

static void end_tag(Parser *p)
{
    if (p->token.type != T_TAG_END)
        tpl_unexpected(p, "the end of the tag");
    tpl_next(p);
}

/* The body of a block up to {% end %}, which is taken too. */
static Node *block_body(Parser *p, const char *end)
{
    Node *n;

    end_tag(p);
    n = body_until(p, (const char *const[]){ end, NULL });
    tpl_next(p);
    return n;
}

/* A name, `a, b`, or, of set, an attribute of a namespace. */
static Node *target(Parser *p, bool attributes)
{
    Node *n, *list = NULL;

    for (;;) {
        if (tpl_at_op(p, OP_LPAREN)) {
            tpl_deeper(p);
            tpl_next(p);
            n = target(p, attributes);
            tpl_want_op(p, OP_RPAREN, "a closing )");
            tpl_shallower(p);
        } else {
            n = tpl_primary(p);
        }
        if (n->kind == N_NAME && attributes && tpl_at_op(p, OP_DOT)) {
            Node *attr = tpl_node(p, N_ATTR);
            tpl_next(p);
            attr->a = n;
            attr->name = tpl_want_name(p);
            attr->value = tpl_str(p->c, attr->name);
            n = attr;
        }
        if (n->kind != N_NAME && n->kind != N_ATTR && n->kind != N_TUPLE)
            tpl_fail(p->c, "cannot assign to this");
        if (list)
            tpl_add(p, list, n);
        if (!tpl_at_op(p, OP_COMMA))
            return list ? list : n;
        if (!list) {
            list = tpl_node(p, N_TUPLE);
            tpl_add(p, list, n);
        }
        tpl_next(p);
        if (tpl_at_op(p, OP_RPAREN))
            return list;
    }
}

static Node *parse_if(Parser *p)
{
    static const char *const ends[] = { "elif", "else", "endif", NULL };
    Node                    *first = tpl_node(p, N_IF), *n = first;

    for (;;) {
        n->a = tpl_tuple(p, false);
        end_tag(p);
        n->b = body_until(p, ends);
        if (!tpl_take_name(p, "elif"))
            break;
        n->c = tpl_node(p, N_IF);
        n = n->c;
    }
    if (tpl_take_name(p, "else"))
        n->c = block_body(p, "endif");
    else
        tpl_next(p);
    return first;
}

static Node *parse_for(Parser *p)
{
    static const char *const ends[] = { "else", "endfor", NULL };
    Node                    *n = tpl_node(p, N_FOR);

    n->a = target(p, false);
    if (!tpl_take_name(p, "in"))
        tpl_unexpected(p, "'in'");
    n->b = tpl_tuple(p, false);
    if (tpl_take_name(p, "if"))
        n->c = tpl_expression(p);
    if (tpl_at_name(p, "recursive"))
        tpl_fail(p->c, "recursive loops are not supported");
    end_tag(p);
    p->loops++;
    n->d = body_until(p, ends);
    p->loops--;
    if (tpl_take_name(p, "else"))
        n->e = block_body(p, "endfor");
    else
        tpl_next(p);
    return n;
}

static Node *parse_set(Parser *p)
{
    Node *n = tpl_node(p, N_SET);

    n->a = target(p, true);
    if (tpl_take_op(p, OP_ASSIGN)) {
        n->b = tpl_tuple(p, true);
        return n;
    }
    n->kind = N_SET_BLOCK;
    if (tpl_take_op(p, OP_PIPE))
        n->c = tpl_filters(p, NULL);
    n->b = block_body(p, "endset");
    return n;
}

static void parameters(Parser *p, Node *n)
{
    bool has_default = false;

    tpl_want_op(p, OP_LPAREN, "(");
    while (!tpl_take_op(p, OP_RPAREN)) {
        Node *param;

        if (n->n)
            tpl_want_op(p, OP_COMMA, "a comma or )");
        param = tpl_node(p, N_KEYWORD);
        param->name = tpl_want_name(p);
        if (tpl_take_op(p, OP_ASSIGN)) {
            param->a = tpl_expression(p);
            has_default = true;
        } else if (has_default) {
            tpl_fail(p->c, "a parameter without a default follows one with a default");
        }
        tpl_add(p, n, param);
    }
}

/* A body of its own: a loop round it cannot be left from inside. */
static Node *closed_body(Parser *p, const char *end)
{
    const int loops = p->loops;
    Node     *n;

    p->loops = 0;
    n = block_body(p, end);
    p->loops = loops;
    return n;
}

static Node *parse_macro(Parser *p)
{
    Node *n = tpl_node(p, N_MACRO);

    n->name = tpl_want_name(p);
    parameters(p, n);
    n->b = closed_body(p, "endmacro");
    return n;
}

static Node *parse_call(Parser *p)
{
    Node *n = tpl_node(p, N_CALL_BLOCK);

    n->name = "caller";
    if (tpl_at_op(p, OP_LPAREN))
        parameters(p, n);
    n->a = tpl_expression(p);
    if (n->a->kind != N_CALL)
        tpl_fail(p->c, "{%% call %%} wants a call");
    n->b = closed_body(p, "endcall");
    return n;
}

static Node *parse_filter(Parser *p)
{
    Node *n = tpl_node(p, N_FILTER_BLOCK);

    n->a = tpl_filters(p, NULL);
    n->b = closed_body(p, "endfilter");
    return n;
}

static Node *parse_with(Parser *p)
{
    Node *n = tpl_node(p, N_WITH);

    while (p->token.type != T_TAG_END) {
        Node *set = tpl_node(p, N_SET);
        if (n->n)
            tpl_want_op(p, OP_COMMA, "a comma or the end of the tag");
        set->a = target(p, false);
        tpl_want_op(p, OP_ASSIGN, "=");
        set->b = tpl_expression(p);
        tpl_add(p, n, set);
    }
    n->b = block_body(p, "endwith");
    return n;
}

static Node *parse_generation(Parser *p)
{
    Node *n = tpl_node(p, N_SCOPE);
    n->b = closed_body(p, "endgeneration");
    return n;
}

static Node *parse_break(Parser *p)
{
    if (!p->loops)
        tpl_fail(p->c, "break outside a loop");
    return tpl_node(p, N_BREAK);
}

static Node *parse_continue(Parser *p)
{
    if (!p->loops)
        tpl_fail(p->c, "continue outside a loop");
    return tpl_node(p, N_CONTINUE);
}

/* Each stands behind its name, and leaves the closing %} of its last tag. */
static const struct { const char *name; Node *(*parse)(Parser *); } statements[] = {
    { "if", parse_if },       { "for", parse_for },   { "set", parse_set },
    { "macro", parse_macro }, { "call", parse_call }, { "filter", parse_filter },
    { "with", parse_with },   { "break", parse_break }, { "continue", parse_continue },
    { "generation", parse_generation },
};

static Node *statement(Parser *p)
{
    static const char *const refused[] = { "include", "extends", "import", "from", "block", "autoescape", "do", "print",
                                           "trans" };

    for (size_t i = 0; i < G_N_ELEMENTS(statements); i++) {
        if (tpl_take_name(p, statements[i].name)) {
            Node *n = statements[i].parse(p);
            end_tag(p);
            return n;
        }
    }
    for (size_t i = 0; i < G_N_ELEMENTS(refused); i++) {
        if (tpl_at_name(p, refused[i]))
            tpl_fail(p->c, "{%% %s %%} is not supported in a chat template", refused[i]);
    }
    if (p->token.type == T_NAME)
        tpl_fail(p->c, "unknown or misplaced tag '%.40s'", p->token.name);
    tpl_unexpected(p, "the name of a tag");
}

static bool at_any(Parser *p, const char *const *names)
{
    for (; names && *names; names++) {
        if (tpl_at_name(p, *names))
            return true;
    }
    return false;
}

/* Up to a tag of one of these names, at which the parser then stands; ends NULL: to the end. */
static Node *body_until(Parser *p, const char *const *ends)
{
    Node     *body = tpl_node(p, N_BLOCK), *n;
    const int tag_line = p->tag_line;

    tpl_deeper(p);
    for (;;) {
        n = tpl_node(p, N_TEXT);
        switch (p->token.type) {
        case T_TEXT:
            n->value = p->token.value;
            tpl_next(p);
            break;
        case T_PRINT:
            tpl_next(p);
            n->kind = N_PRINT;
            n->a = tpl_tuple(p, true);
            if (p->token.type != T_PRINT_END)
                tpl_unexpected(p, "the end of the expression");
            tpl_next(p);
            break;
        case T_TAG:
            p->tag_line = p->token.line;
            tpl_next(p);
            if (at_any(p, ends)) {
                tpl_shallower(p);
                return body;
            }
            n = statement(p);
            break;
        default: /* T_END */
            if (ends)
                tpl_fail(p->c, "the template ends inside a block that wants {%% %s %%}; it began in line %d",
                         ends[g_strv_length((char **)ends) - 1], tag_line);
            tpl_shallower(p);
            return body;
        }
        tpl_add(p, body, n);
    }
}

static bool parse(Ctx *c, MiTemplate *t, const char *source, size_t len)
{
    Parser p = { .c = c };

    if (setjmp(c->leave))
        return false;
    if (len > MI_TEMPLATE_MAX_SOURCE)
        tpl_fail(c, "%zu bytes of template, %d are the limit", len, MI_TEMPLATE_MAX_SOURCE);
    if (!g_utf8_validate_len(source, len, NULL))
        tpl_fail(c, "the template is not UTF-8");
    p.lexer = tpl_lexer(c, source, len);
    tpl_lex(&p.lexer, &p.after);
    tpl_next(&p);
    t->body = body_until(&p, NULL);
    return true;
}

MiTemplate *mi_template_parse(const char *source, size_t len, GError **error)
{
    MiTemplate *t = g_new0(MiTemplate, 1);
    Ctx         c = { .error = error, .line = 1 };
    const bool  ok = parse(&c, t, source, len);

    t->chunks = c.chunks;
    if (ok)
        return t;
    mi_template_free(t);
    return NULL;
}

void mi_template_free(MiTemplate *t)
{
    if (t)
        tpl_free_chunks(t->chunks);
    g_free(t);
}

const Node *tpl_body(const MiTemplate *t) { return t->body; }
