/* template.h - chat templates: the subset of Jinja that models' files use.
 *
 * A template is untrusted code: steps, depth and output have budgets, there is
 * no way to files, attributes of the host or imports.  The text that comes out
 * of the variables is marked, so that a tokenizer never reads a special token
 * in what a user wrote. */
#ifndef MI_CORE_TEMPLATE_H
#define MI_CORE_TEMPLATE_H

#include <miniinfer/frontend.h>

typedef struct MiTemplate MiTemplate;

/* source: [len] bytes.  NULL with *error: the line and what was wrong. */
MiTemplate *mi_template_parse(const char *source, size_t len, GError **error);
void        mi_template_free(MiTemplate *);

/* A run of the output; trusted: the template's own text, not from the variables. */
typedef struct {
    size_t start, len;
    bool   trusted;
} MiSpan;

typedef struct {
    GString *text;
    GArray  *spans; /* MiSpan, gap-free, neighbours differ in `trusted` */
} MiRendered;

/* vars: a map; its entries are the template's variables (messages, tools, bos_token, ...).
 * `now`: seconds since 1970 for strftime_now.  False with *error, of the template's own
 * raise_exception() too. */
bool mi_template_render(const MiTemplate *, const MiVar *vars, int64_t now, MiRendered *out, GError **error);
void mi_rendered_clear(MiRendered *);

#endif
