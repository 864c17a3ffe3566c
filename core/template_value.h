/* template_value.h - values of the template interpreter, and the arena they live in.
 *
 *   template_lex.c, template_expression.c, template_parse.c   source -> tokens -> nodes
 *   template_value.c       arena, values, comparisons, dicts
 *   template_text.c        strings and their marks, put together and taken apart
 *   template_print.c       str(), repr(), JSON
 *   template_format.c      '%d' % x, '{}'.format(x), strftime
 *   template_eval.c        expressions; template_arith.c their operators
 *   template_exec.c        statements, mi_template_render
 *   template_filters.c, template_sequences.c, template_methods.c, template_tests.c,
 *   template_globals.c     what a template can call
 *
 * All memory is the context's arena, so an error at any depth just leaves by longjmp, to
 * parse() or render() (tpl_fail() does not return); nothing here owns anything else while
 * it can fail.  Values never change after they were made: a template's constants are
 * shared by threads.  What does change (namespaces, loops, half-read streams) hangs off
 * a value by a pointer that is not const. */
#ifndef MI_CORE_TEMPLATE_VALUE_H
#define MI_CORE_TEMPLATE_VALUE_H

#include "template.h"

#include <setjmp.h>

typedef struct Value Value;
typedef struct Scope Scope;

typedef enum {
    V_UNDEFINED, V_NONE, V_BOOL, V_INT, V_FLOAT, V_STRING, V_LIST, V_TUPLE,
    V_VIEW,   /* keys(), values(), items() of a dict: can be walked, not indexed */
    V_STREAM, /* what Python has as generators: walked once */
    V_RANGE, V_DICT, V_NAMESPACE, V_MACRO,
    V_BOUND, /* a builtin function, perhaps a method with its object */
    V_LOOP, V_JOINER, V_CYCLER,
} Kind;

typedef struct {
    const char    *s;     /* [n] UTF-8 */
    size_t         n;     /* bytes */
    const uint8_t *marks; /* [n] 1: trusted; NULL: all as the value's `trusted` */
    size_t         chars; /* code points */
} Text;

typedef struct {
    const Value *const *at; /* [n] */
    size_t              n;
} List;

/* Keys in the order they came. */
typedef struct {
    size_t        n, room;
    const Value **keys, **values; /* [n] */
} Dict;

typedef struct {
    const Value *name, *owner; /* what was looked for, NULL: an item of nothing; in what, NULL: the variables */
} Missing;

typedef struct {
    List         items;
    size_t       index; /* from 0 */
    const Value *changed;
} Loop;

/* JOINER: items is its separator, next whether it was used; CYCLER: next is its turn. */
typedef struct {
    List   items;
    size_t next;
} Stream;

struct Value {
    Kind kind;
    bool trusted; /* scalars: not made from an untrusted variable; strings: see Text */
    union {
        int64_t integer; /* BOOL, INT */
        double  number;
        Text    text;
        List    list; /* LIST, TUPLE, VIEW */
        Dict   *dict; /* DICT, NAMESPACE */
        Missing missing;
        Loop   *loop;
        Stream *stream;
        struct { int64_t start, step; size_t n; } range;
        struct { const struct Node *node; Scope *home; } macro; /* its definition and where that stood */
        struct { const struct Builtin *what; const Value *self; } bound;
    } u;
};

/* Text being put together; marks stay NULL as long as all bytes agree. */
typedef struct {
    char    *s;
    uint8_t *marks;
    size_t   n, room;
    bool     trusted;
} Builder;

typedef struct Chunk Chunk;

/* One parse() or one render(). */
typedef struct {
    jmp_buf     leave;
    GError    **error;
    Chunk      *chunks;
    size_t      bytes; /* of all chunks */
    size_t      steps;
    int         depth, line;
    int64_t     now;
    Scope      *scope;
    const Value *input;   /* of a filter without operand: the text of its block */
    Builder    *capture;  /* where text goes; NULL: into `out` */
    MiRendered *out;
} Ctx;

extern const Value tpl_none, tpl_true, tpl_false;
static inline const Value *tpl_bool(bool b) { return b ? &tpl_true : &tpl_false; }
static inline bool is_str(const Value *v) { return v->kind == V_STRING; }

/* Item i of a range, or its end: unsigned, as nothing else may leave 64 bits on the way. */
static inline int64_t tpl_range_at(const Value *v, size_t i)
{
    return (int64_t)((guint64)v->u.range.start + (guint64)i * (guint64)v->u.range.step);
}

/* ---- template_value.c -------------------------------------------------- */
G_NORETURN void tpl_fail(Ctx *, const char *format, ...) G_GNUC_PRINTF(2, 3);
void           *tpl_alloc(Ctx *, size_t bytes);          /* zeroed */
void           *tpl_array(Ctx *, size_t n, size_t size); /* zeroed */
void            tpl_free_chunks(Chunk *);
void            tpl_step(Ctx *, size_t n);               /* n steps of the budget are used */
void            tpl_enter(Ctx *); /* one deeper, of MI_TEMPLATE_MAX_CALLS */
static inline void tpl_leave(Ctx *c) { c->depth--; }
Value          *tpl_new(Ctx *, Kind);
const Value    *tpl_int(Ctx *, int64_t, bool trusted);
const Value    *tpl_float(Ctx *, double, bool trusted);
const Value    *tpl_list(Ctx *, Kind, const Value *const *at, size_t n);
const Value    *tpl_stream(Ctx *, const Value *const *at, size_t n);
const Value    *tpl_missing(Ctx *, const Value *name, const Value *owner);
G_NORETURN void tpl_fail_missing(Ctx *, const Value *undefined);
const char     *tpl_kind_name(const Value *); /* as Python calls its type */
bool            tpl_truth(Ctx *, const Value *);
bool            tpl_equal(Ctx *, const Value *, const Value *);
int             tpl_order(Ctx *, const Value *, const Value *); /* -1, 0, 1; 2: not a number; fails without order */
bool            tpl_contains(Ctx *, const Value *whole, const Value *part);
bool            tpl_is_number(const Value *); /* bool, int, float */
double          tpl_number(const Value *);
int64_t         tpl_integer(Ctx *, const Value *, const char *what); /* of a bool or an int; fails else */
List            tpl_items(Ctx *, const Value *);  /* walks anything that can be walked; uses up a stream */
size_t          tpl_length(Ctx *, const Value *);
const Value    *tpl_import(Ctx *, const MiVar *, bool trusted);
const Value    *tpl_dict(Ctx *, Kind);
void            tpl_dict_set(Ctx *, Dict *, const Value *key, const Value *value);
const Value    *tpl_dict_get(Ctx *, const Dict *, const Value *key); /* NULL: no such key */

#endif
