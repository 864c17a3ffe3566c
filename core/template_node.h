/* template_node.h - tokens and nodes of a template.  Nodes live as long as the template. */
#ifndef MI_CORE_TEMPLATE_NODE_H
#define MI_CORE_TEMPLATE_NODE_H

#include "template_text.h"

typedef enum {
    OP_NONE, OP_ADD, OP_SUB, OP_MUL, OP_DIV, OP_FLOORDIV, OP_MOD, OP_POW,
    OP_EQ, OP_NE, OP_LT, OP_LE, OP_GT, OP_GE, OP_IN, OP_NOT_IN,
    OP_LPAREN, OP_RPAREN, OP_LBRACKET, OP_RBRACKET, OP_LBRACE, OP_RBRACE,
    OP_TILDE, OP_PIPE, OP_DOT, OP_COMMA, OP_COLON, OP_ASSIGN,
} Op;

typedef enum {
    N_CONST,     /* value */
    N_NAME,      /* name */
    N_LIST, N_TUPLE,
    N_DICT,      /* list: key, value, key, value... */
    N_BINARY,    /* a op b */
    N_CONCAT,    /* list, of ~ */
    N_UNARY,     /* op a */
    N_AND, N_OR, /* list */
    N_NOT,       /* a */
    N_COMPARE,   /* a, then list: N_BINARY of op and b */
    N_CONDITION, /* b if a else c; c may be NULL */
    N_ATTR,      /* a.name; value: the name */
    N_ITEM,      /* a[b] */
    N_SLICE,     /* of N_ITEM's b: a:b:c, each may be NULL */
    N_CALL,      /* a(list) */
    N_KEYWORD,   /* name=a, among arguments, parameters and the variables of `with` */
    N_FILTER,    /* a | name(list); a NULL: of the block's text */
    N_TEST,      /* a is name(list) */
    N_TEXT,      /* value */
    N_PRINT,     /* a */
    N_IF,        /* a: condition, b, c: what follows (N_BLOCK or the next N_IF), may be NULL */
    N_FOR,       /* a: target, b: over what, c: condition or NULL, d: body, e: else or NULL */
    N_SET,       /* a: target (N_NAME, N_TUPLE, N_ATTR of a namespace), b: value */
    N_SET_BLOCK, /* a: target, b: body, c: N_FILTER chain or NULL */
    N_MACRO,     /* name, list: N_KEYWORD with a: default or NULL, b: body */
    N_CALL_BLOCK, /* as N_MACRO; a: the call */
    N_FILTER_BLOCK, /* a: N_FILTER chain, b: body */
    N_WITH,      /* list: N_SET, b: body */
    N_SCOPE,     /* b: body: {% generation %} */
    N_BREAK, N_CONTINUE,
    N_BLOCK,     /* list */
} NodeKind;

typedef struct Node Node;
struct Node {
    NodeKind              kind;
    Op                    op;
    int                   line;
    const char           *name;
    const Value          *value;
    const struct Builtin *builtin; /* of N_FILTER and N_TEST */
    Node                 *a, *b, *c, *d, *e;
    Node                **list; /* [n] */
    size_t                n;
};

/* ---- template_lex.c ---------------------------------------------------- */
typedef enum { T_END, T_TEXT, T_PRINT, T_PRINT_END, T_TAG, T_TAG_END, T_NAME, T_OP, T_VALUE } TokenType;

typedef struct {
    TokenType    type;
    Op           op;
    int          line;
    const char  *name;  /* NAME */
    const Value *value; /* TEXT; VALUE: a number or a string */
    const char  *s;     /* as it is written, [n], for messages */
    size_t       n;
} Token;

typedef struct {
    Ctx        *c;
    const char *s; /* [n] line ends are \n */
    size_t      n, at;
    size_t      counted; /* up to where lines were counted */
    int         line;
    TokenType   within;  /* T_TEXT, T_PRINT or T_TAG */
    TokenType   opened;  /* a tag that begins once its text was given out; T_END: none */
    int         brackets;
    bool        fresh_line; /* the last tag took its line's end with it */
} Lexer;

Lexer tpl_lexer(Ctx *, const char *source, size_t n);
void  tpl_lex(Lexer *, Token *);

/* ---- template_expression.c --------------------------------------------- */
typedef struct {
    Ctx  *c;
    Lexer lexer;
    Token token, after; /* the one at hand and the one behind it */
    int   loops;        /* that the statement at hand stands in */
    int   tag_line;     /* where the last tag began */
} Parser;

void  tpl_next(Parser *);
bool  tpl_at_op(const Parser *, Op);
bool  tpl_at_name(const Parser *, const char *);
bool  tpl_take_op(Parser *, Op);
bool  tpl_take_name(Parser *, const char *);
void  tpl_want_op(Parser *, Op, const char *wanted);
const char *tpl_want_name(Parser *);
G_NORETURN void tpl_unexpected(Parser *, const char *wanted);
Node *tpl_node(Parser *, NodeKind);
void  tpl_deeper(Parser *); /* with tpl_shallower() round what recurses */
void  tpl_shallower(Parser *);
void  tpl_add(Parser *, Node *list, Node *item);
Node *tpl_expression(Parser *);
Node *tpl_tuple(Parser *, bool conditions); /* `a, b` without brackets; conditions: `x if y` may be in it */
Node *tpl_primary(Parser *);
Node *tpl_postfix(Parser *, Node *);
Node *tpl_filters(Parser *, Node *); /* one filter, then those after it, without the leading | */

#endif
