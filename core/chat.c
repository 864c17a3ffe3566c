/* chat.c - see chat.h. */
#include "chat.h"

#include <miniinfer/plugin.h>
#include <string.h>

enum { MAX_OWN = 6 };

/* The variables that every chat template is given beside the caller's. */
typedef struct {
    MiVar       items[MAX_OWN];
    const char *keys[MAX_OWN];
    size_t      n;
} Own;

static void add_token(Own *own, const MiTokenizerData *d, const char *name, int32_t id)
{
    if (id < 0 || (uint32_t)id >= d->n_pieces || !d->pieces[id].text)
        return;
    own->keys[own->n] = name;
    own->items[own->n++] = (MiVar){ .type = MI_VAR_TEXT, .text = d->pieces[id].text, .n = d->pieces[id].len };
}

static void add_none(Own *own, const MiVar *vars, const char *name)
{
    for (size_t i = 0; i < vars->n; i++) {
        if (strcmp(vars->keys[i], name) == 0)
            return;
    }
    own->keys[own->n] = name;
    own->items[own->n++] = (MiVar){ .type = MI_VAR_NULL };
}

static Own own_variables(const MiTokenizerData *d, const MiVar *vars)
{
    Own own = { .n = 0 };

    add_token(&own, d, "bos_token", d->bos);
    add_token(&own, d, "eos_token", d->eos);
    add_token(&own, d, "pad_token", d->pad);
    add_token(&own, d, "unk_token", d->unk);
    add_none(&own, vars, "tools");
    add_none(&own, vars, "documents");
    return own;
}

static int32_t *no_ids(GError **error, int code, const char *why)
{
    g_set_error(error, MI_ERROR, code, "chat: %s", why);
    return NULL;
}

static int32_t *encode(const MiTextCoder *coder, const MiRendered *r, size_t *n_ids, GError **error)
{
    g_autofree size_t(*ranges)[2] = g_try_malloc_n(r->spans->len + 1, sizeof *ranges);
    size_t   n_ranges = 0, n;
    int32_t *ids;

    if (!MI_HAS(coder->vt, encode_ranges))
        return no_ids(error, MI_ERROR_UNSUPPORTED, "this tokenizer cannot tell a user's text from special tokens "
                                                   "(it has no encode_ranges)");
    if (!ranges)
        return no_ids(error, MI_ERROR_NO_MEMORY, "no memory for the prompt");
    for (guint i = 0; i < r->spans->len; i++) {
        const MiSpan *span = &g_array_index(r->spans, MiSpan, i);
        if (!span->trusted)
            continue;
        ranges[n_ranges][0] = span->start;
        ranges[n_ranges++][1] = span->start + span->len;
    }
    n = coder->vt->encode_ranges(coder->self, r->text->str, r->text->len, (const size_t(*)[2])ranges, n_ranges, NULL,
                                 0);
    ids = n == SIZE_MAX ? NULL : g_try_new(int32_t, n + 1);
    if (!ids)
        return no_ids(error, MI_ERROR_NO_MEMORY, "the tokenizer has no memory for the prompt, or gave up on it");
    *n_ids = coder->vt->encode_ranges(coder->self, r->text->str, r->text->len, (const size_t(*)[2])ranges, n_ranges,
                                      ids, n);
    if (*n_ids == n)
        return ids;
    g_free(ids);
    return no_ids(error, MI_ERROR_NO_MEMORY, "the tokenizer has no memory for the prompt, or gave up on it");
}

int32_t *mi_chat_encode(const MiTemplate *t, const MiTextCoder *coder, const MiVar *vars, int64_t now, size_t *n_ids,
                        GError **error)
{
    const Own   own = own_variables(&coder->data, vars);
    const MiVar trusted = { .type = MI_VAR_MAP, .n = own.n, .items = own.items, .keys = own.keys };
    MiRendered  r;
    int32_t    *ids;

    if (!mi_template_render(t, vars, &trusted, now, &r, error))
        return NULL;
    ids = encode(coder, &r, n_ids, error);
    mi_rendered_clear(&r);
    return ids;
}

bool mi_chat_template(const char *file, const MiTokenizerData *d, MiTemplate **out, char **why, GError **error)
{
    const char       *source = d->chat_template;
    g_autofree char  *own = NULL;
    g_autoptr(GError) bad = NULL;

    if (file && *file) {
        if (!g_file_get_contents(file, &own, NULL, error))
            return false;
        source = own;
    }
    if (!source)
        *why = g_strdup("the model has no chat template; use --raw, or set [model] chat_template");
    else if (!(*out = mi_template_parse(source, strlen(source), &bad)))
        *why = g_strdup(bad->message);
    return true;
}
