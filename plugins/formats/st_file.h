/* st_file.h - the tables of one .safetensors file.
 *
 *   u64 n; n bytes of JSON: {"name": {"dtype": "BF16", "shape": [out, in],
 *   "data_offsets": [from, to]}, ..., "__metadata__": {text: text}}; the tensors' bytes
 *
 * The tensors fill what is behind the header without holes and without overlap. */
#ifndef MI_FORMATS_ST_FILE_H
#define MI_FORMATS_ST_FILE_H

#include "files.h"
#include "tables.h"

enum { MI_ST_MAX_HEADER = 100000000, MI_ST_MAX_TENSORS = 65536 };

/* Adds the file's tensors to *weights, pointing into *map, which the caller unmaps
 * whatever is returned. */
bool mi_st_read(const char *path, const MiSource *source, MiMapped *map, MiWeights *weights, GError **error);

#endif
