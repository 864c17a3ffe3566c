/* template.h - chat templates: the subset of Jinja that models' files use.
 *
 * A template is untrusted code: steps, depth, memory and output have budgets, there
 * is no way to files, attributes of the host or imports.  The text that comes out
 * of the variables is marked, so that a tokenizer never reads a special token
 * in what a user wrote.  core/chat.h makes ids of it.
 *
 * Left out on purpose, refused by name: include, extends, import, block, recursive
 * loops, *args and **kwargs, `do`, integers past 64 bits.  `safe` and `escape` give
 * plain strings. */
#ifndef MI_CORE_TEMPLATE_H
#define MI_CORE_TEMPLATE_H

#include <miniinfer/frontend.h>

/* What a template may use; each has its own error. */
enum {
    MI_TEMPLATE_MAX_SOURCE = 1 << 20,  /* bytes of source */
    MI_TEMPLATE_MAX_STEPS = 1 << 20,   /* nodes evaluated, items walked, each 64 bytes handled */
    MI_TEMPLATE_MAX_DEPTH = 100,       /* nested blocks and brackets in the source */
    MI_TEMPLATE_MAX_CALLS = 400,       /* nested evaluations; a macro's call is about five */
    MI_TEMPLATE_MAX_OUTPUT = 8 << 20,  /* bytes of text that come out */
    MI_TEMPLATE_MAX_MEMORY = 32 << 20, /* bytes of values and nodes, of parse() and of render() each */
    MI_TEMPLATE_MAX_SPANS = 1 << 18,   /* changes between trusted and untrusted output */
    MI_TEMPLATE_MAX_RANGE = 100000,    /* items of one range() */
};

typedef struct MiTemplate MiTemplate;

/* source: [len] bytes.  NULL with *error: the line and what was wrong. */
MiTemplate *mi_template_parse(const char *source, size_t len, GError **error);
void        mi_template_free(MiTemplate *);

/* A run of the output; trusted: the template's own text or that of trusted variables. */
typedef struct {
    size_t start, len;
    bool   trusted;
} MiSpan;

typedef struct {
    GString *text;
    GArray  *spans; /* MiSpan, gap-free, neighbours differ in `trusted` */
} MiRendered;

/* vars: a map; its entries are the template's variables (messages, tools, ...), whose text
 * is never trusted.  trusted: another such map, of text that may be special tokens (bos_token,
 * eos_token), or NULL; where both name a variable this one counts.  `now`: seconds since 1970
 * for strftime_now.  Any thread; *out is the caller's to clear, whatever it held is lost.
 * False with *error, of the template's own raise_exception() too; *out is then empty. */
bool mi_template_render(const MiTemplate *, const MiVar *vars, const MiVar *trusted, int64_t now, MiRendered *out,
                        GError **error);
void mi_rendered_clear(MiRendered *);

#endif
