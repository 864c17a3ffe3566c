/* files.h - opening of what a stranger made: regular files only, mapped. */
#ifndef MI_FORMATS_FILES_H
#define MI_FORMATS_FILES_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct {
    const uint8_t *data; /* [size], never empty */
    size_t         size;
} MiMapped;

/* False: missing (NOT_FOUND), or a directory, a FIFO, empty (MODEL). */
bool mi_map(const char *path, MiMapped *out, GError **error);
void mi_unmap(MiMapped *); /* takes an empty one */
/* Gives back the pages that lie wholly in [data, data + bytes), if that is of this mapping. */
void mi_map_drop(const MiMapped *, const void *data, size_t bytes);

/* The file `name` of a model's directory, g_free() it.  It may be a link into the
 * directory, or, in a snapshot of the Hugging Face cache (<repository>/snapshots/<commit>),
 * into <repository>; one that leads elsewhere is refused.  NULL with *error. */
char *mi_model_file(const char *directory, const char *name, GError **error);

#endif
