/* gguf_write.h - any model as a GGUF file, version 3. */
#ifndef MI_FORMATS_GGUF_WRITE_H
#define MI_FORMATS_GGUF_WRITE_H

#include "convert.h"

/* MiFormat.write. */
bool mi_gguf_write(const char *path, const MiSource *from, const MiWriteSpec *, GError **error);

/* Keys and values as they stand in the file, counted. */
typedef struct {
    GByteArray *bytes;
    uint64_t    n;
} MiGgufKeys;

void mi_gguf_put_u32(MiGgufKeys *, const char *key, uint32_t);
void mi_gguf_put_f32(MiGgufKeys *, const char *key, float);
void mi_gguf_put_bool(MiGgufKeys *, const char *key, bool);
void mi_gguf_put_text(MiGgufKeys *, const char *key, const char *text);
/* The head of an array of n values, which the caller appends. */
void mi_gguf_put_array(MiGgufKeys *, const char *key, uint32_t type, uint64_t n);
void mi_gguf_put_string(MiGgufKeys *, const char *text, size_t len); /* of an array */

/* tokenizer.*; n_rows: of the embedding, no fewer tokens are written.  False with *error. */
bool mi_gguf_put_tokens(MiGgufKeys *, const MiTokenizerData *, uint32_t n_rows, GError **error);

#endif
