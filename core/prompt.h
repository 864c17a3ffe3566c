/* prompt.h - a prompt as ids, from text or from messages. */
#ifndef MI_CORE_PROMPT_H
#define MI_CORE_PROMPT_H

#include <miniinfer/frontend.h>

typedef struct {
    const char *role, *content;
    size_t      len; /* bytes of the content */
} MiMessage;

/* The text as it is, after the token that the model begins every text with, if it has one; the caller frees the ids. */
bool mi_prompt_text(MiEngine *, const char *text, size_t len, bool special, int32_t **out, size_t *n, GError **error);
/* The messages as the model's chat template puts them, up to where the answer begins; `system` comes first, unless it is
 * empty or the first message is a system message.  The caller frees the ids. */
bool mi_prompt_chat(MiEngine *, const char *system, const MiMessage *, size_t n_messages, int32_t **out, size_t *n,
                    GError **error);

#endif
