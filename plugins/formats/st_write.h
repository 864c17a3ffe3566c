/* st_write.h - any model as a Hugging Face directory that transformers loads. */
#ifndef MI_FORMATS_ST_WRITE_H
#define MI_FORMATS_ST_WRITE_H

#include "convert.h"

/* MiFormat.write. */
bool mi_st_write(const char *path, const MiSource *from, const MiWriteSpec *, GError **error);

/* The parts of it: config.json, with quantization_config unless `quant` is NULL, generation_config.json; tokenizer.json,
 * tokenizer_config.json. */
void mi_st_write_config(MiOut *, const MiConversion *, const char *dtype, const char *quant, const MiTokenizerData *);
void mi_st_write_tokenizer(MiOut *, const MiTokenizerData *);

#endif
