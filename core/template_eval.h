/* template_eval.h - what a template can call, and how. */
#ifndef MI_CORE_TEMPLATE_EVAL_H
#define MI_CORE_TEMPLATE_EVAL_H

#include "template_node.h"

typedef struct {
    const Value *const *at; /* [n]; of a builtin with `params`: by parameter, NULL: not given */
    size_t              n;
    const char *const  *names; /* [n_named] */
    const Value *const *named;
    size_t              n_named;
} Args;

enum { MAX_PARAMS = 6 };

/* What a template can call: a function, a method, a filter (self: what is filtered), a test. */
typedef struct Builtin {
    const char *name;
    const Value *(*fn)(Ctx *, const Value *self, const Args *);
    const char *params;   /* the names of its parameters, "width first blank"; NULL: it sorts them out itself */
    size_t      required; /* how many have no default */
} Builtin;

/* A variable is looked for here, then in the parents. */
struct Scope {
    Scope        *parent;
    const char  **names;
    const Value **values;
    size_t        n, room;
    bool          held; /* a macro was defined here: it is not used again for the next round of a loop */
};

/* ---- template_eval.c --------------------------------------------------- */
const Value *tpl_eval(Ctx *, const Node *);
const Value *tpl_attr(Ctx *, const Value *, const Value *name); /* x.name: methods first */
const Value *tpl_item(Ctx *, const Value *, const Value *key);  /* x[key]: items first */
const Value *tpl_slice(Ctx *, const Value *, const Value *start, const Value *stop, const Value *step);
const Value *tpl_call(Ctx *, const Value *callee, const Args *);
const Value *tpl_eval_call(Ctx *, const Node *call, const Value *caller); /* caller: of {% call %}, or NULL */
const Value *tpl_call_builtin(Ctx *, const Builtin *, const Value *self, const Args *);
const Value *tpl_lookup(Ctx *, const char *name); /* NULL: no such variable */
void         tpl_assign(Ctx *, Scope *, const char *name, const Value *);
Scope       *tpl_scope(Ctx *, Scope *parent);

/* ---- template_arith.c -------------------------------------------------- */
const Value *tpl_arith(Ctx *, Op, const Value *, const Value *);
const Value *tpl_negate(Ctx *, const Value *);

/* ---- template_parse.c -------------------------------------------------- */
const Node *tpl_body(const MiTemplate *);

/* ---- template_exec.c --------------------------------------------------- */
const Value *tpl_call_macro(Ctx *, const Value *macro, const Args *);

/* ---- tables ------------------------------------------------------------ */
extern const Builtin tpl_text_filters[], tpl_list_filters[], tpl_tests[], tpl_globals[], tpl_string_methods[],
    tpl_list_methods[], tpl_dict_methods[], tpl_loop_methods[], tpl_cycler_methods[];
const Builtin *tpl_builtin(const Builtin *table, const char *name); /* NULL: none */
const Builtin *tpl_filter(const char *name);
const Value   *tpl_bind(Ctx *, const Builtin *, const Value *self);

/* ---- template_sequences.c ---------------------------------------------- */
/* The places of the keys in order, equal ones as they came. */
const size_t *tpl_sorted(Ctx *, const Value *const *keys, size_t n, bool backwards);

/* ---- template_format.c ------------------------------------------------- */
const Value *tpl_format(Ctx *, const Value *format, const Args *);

#endif
