/* gguf_tokens.h - the tokenizer.ggml.* keys of a GGUF file as MiTokenizerData. */
#ifndef MI_FORMATS_GGUF_TOKENS_H
#define MI_FORMATS_GGUF_TOKENS_H

#include "gguf_file.h"
#include <miniinfer/format.h>

typedef struct MiGgufTokens MiGgufTokens;

/* What it gives lives as long as both it and the file. */
MiGgufTokens          *mi_gguf_tokens_new(const MiGguf *, GError **error);
void                   mi_gguf_tokens_free(MiGgufTokens *); /* takes NULL */
const MiTokenizerData *mi_gguf_tokens_data(const MiGgufTokens *);

/* A key's string as a C string, g_free() it; NULL without *error: absent.  Must be UTF-8. */
char *mi_gguf_text(const MiGguf *, const char *key, GError **error);

#endif
