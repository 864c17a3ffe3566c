/* hf_config.h - config.json and its like as flat pairs: "rope_scaling.factor",
 * "architectures.0", values as text; null is left out.
 *
 * What releases of transformers call differently gets one name: rope_parameters.x becomes
 * rope_scaling.x, its rope_theta and partial_rotary_factor stand at the top, as do GPT-NeoX's
 * rotary_emb_base and rotary_pct. */
#ifndef MI_FORMATS_HF_CONFIG_H
#define MI_FORMATS_HF_CONFIG_H

#include "tables.h"
#include <jansson.h>

enum { MI_CONFIG_MAX_BYTES = 1 << 22, MI_CONFIG_MAX_VALUES = 8192, MI_CONFIG_MAX_DEPTH = 8 };

/* The file `name` of a directory, an object of at most max bytes; NULL with *error. */
json_t *mi_json_file(const char *directory, const char *name, size_t max, GError **error);

/* Adds its values as "<prefix><key>". */
bool mi_config_read(MiMeta *, const char *directory, const char *name, const char *prefix, GError **error);
bool mi_config_aliases(MiMeta *, const char *directory, GError **error);

#endif
