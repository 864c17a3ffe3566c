/* chat.h - a conversation as ids: the template's text, cut where the tokenizer cuts, with
 * special tokens only where the template itself wrote them. */
#ifndef MI_CORE_CHAT_H
#define MI_CORE_CHAT_H

#include "assembly.h"
#include "template.h"

/* The model's template, or that of `file`, unless it is NULL or empty.  Without one, or with one that cannot be parsed, *out stays
 * NULL and *why, the caller's, says so: such a model still completes text.  False: the file cannot be read. */
bool mi_chat_template(const char *file, const MiTokenizerData *, MiTemplate **out, char **why, GError **error);

/* vars: as MiEngineApi.encode_chat has it; `tools` and `documents` that it lacks are none,
 * bos_token and the like are the tokenizer's.  Any thread.  The caller frees the ids with
 * g_free(); NULL with *error. */
int32_t *mi_chat_encode(const MiTemplate *, const MiTextCoder *, const MiVar *vars, int64_t now, size_t *n_ids,
                        GError **error);

#endif
