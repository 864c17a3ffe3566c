/* tokenizer_json.h - a Hugging Face model directory's tokenizer as MiTokenizerData: tokenizer.json,
 * tokenizer_config.json, special_tokens_map.json, chat_template.jinja.  Of a plugin for such
 * directories: not for the core. */
#ifndef MI_FORMATS_TOKENIZER_JSON_H
#define MI_FORMATS_TOKENIZER_JSON_H

#include <miniinfer/format.h>

typedef struct MiTokenizerJson MiTokenizerJson;

/* NULL with *error: the file, and what in it is missing, wrong or not known here. */
MiTokenizerJson *mi_tokenizer_json_open(const char *directory, GError **error);
void             mi_tokenizer_json_free(MiTokenizerJson *);

/* Points into the argument.  `stop` holds eos alone: generation_config.json, which may say
 * more, is the caller's. */
MiTokenizerData mi_tokenizer_json_data(const MiTokenizerJson *);

/* The same from texts in memory; config NULL: none.  `name` begins the errors. */
MiTokenizerJson *mi_tokenizer_json_parse(const char *name, const char *text, size_t len, const char *config,
                                         size_t config_len, GError **error);

#endif
