#include "prompt.h"

#include <string.h>

bool mi_prompt_text(MiEngine *e, const char *text, size_t len, bool special, int32_t **out, size_t *n_ids, GError **error)
{
    const int32_t bos = e->api->bos(e);
    const size_t  n = e->api->encode(e, text, len, special, NULL, 0), first = bos >= 0;

    if (n == SIZE_MAX) {
        g_set_error(error, MI_ERROR, MI_ERROR_MODEL, "the model's tokenizer gave up on this prompt of %zu bytes", len);
        return false;
    }
    if (!(*out = g_try_new(int32_t, n + 1))) {
        g_set_error(error, MI_ERROR, MI_ERROR_NO_MEMORY, "no memory for a prompt of %zu tokens", n);
        return false;
    }
    (*out)[0] = bos;
    *n_ids = first + e->api->encode(e, text, len, special, *out + first, n);
    return true;
}

static MiVar text_var(const char *text, size_t len) { return (MiVar){ .type = MI_VAR_TEXT, .text = text, .n = len }; }

/* fields: [2], of which the map is made. */
static MiVar message_var(const MiMessage *m, MiVar *fields)
{
    static const char *const keys[] = { "role", "content" };

    fields[0] = text_var(m->role, strlen(m->role));
    fields[1] = text_var(m->content, m->len);
    return (MiVar){ .type = MI_VAR_MAP, .n = 2, .items = fields, .keys = keys };
}

bool mi_prompt_chat(MiEngine *e, const char *system, const MiMessage *messages, size_t n, int32_t **out, size_t *n_ids,
                    GError **error)
{
    static const char *const keys[] = { "messages", "add_generation_prompt" };
    const bool        added = *system && !(n && strcmp(messages[0].role, "system") == 0);
    g_autofree MiVar *list = g_try_new(MiVar, 3 * (n + 1)); /* the messages, then their fields */

    if (!list) {
        g_set_error(error, MI_ERROR, MI_ERROR_NO_MEMORY, "no memory for %zu messages", n);
        return false;
    }
    if (added)
        list[0] = message_var(&(MiMessage){ "system", system, strlen(system) }, list + n + 1);
    for (size_t i = 0; i < n; i++)
        list[i + added] = message_var(&messages[i], list + n + 1 + 2 * (i + added));
    const MiVar top[] = { { .type = MI_VAR_LIST, .n = n + added, .items = list }, { .type = MI_VAR_BOOL, .integer = 1 } };
    const MiVar vars = { .type = MI_VAR_MAP, .n = 2, .items = top, .keys = keys };
    return (*out = e->api->encode_chat(e, &vars, n_ids, error)) != NULL;
}
