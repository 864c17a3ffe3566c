/* tables.h - what both formats hold once a file is read: weights and metadata by name. */
#ifndef MI_FORMATS_TABLES_H
#define MI_FORMATS_TABLES_H

#include <miniinfer/format.h>

typedef struct {
    MiWeight        *at;     /* [n], in the file's order; names are owned */
    const MiWeight **sorted; /* [n], by name */
    size_t           n, room;
} MiWeights;

/* A copy of *w with a copy of its name.  False: no memory. */
bool mi_weights_add(MiWeights *, const MiWeight *w);
void mi_weights_free(MiWeights *);
/* Call when all are there: refuses a name that is there twice. */
bool mi_weights_sort(MiWeights *, const char *path, GError **error);
const MiWeight *mi_weights_find(const MiWeights *, const char *name); /* NULL: none */
/* MiFormat.decode of what mi_block_format() knows. */
bool mi_weights_decode(const MiWeight *, int64_t first, int64_t n, float *out, GError **error);

typedef struct { char *key, *value; } MiMetaPair;
typedef struct {
    MiMetaPair *at; /* [n] */
    size_t      n, room;
} MiMeta;

/* A copy; a key that is there already keeps its value.  False: no memory. */
bool mi_meta_add(MiMeta *, const char *key, const char *value);
bool mi_meta_addf(MiMeta *, const char *key, const char *form, ...) G_GNUC_PRINTF(3, 4);
void mi_meta_free(MiMeta *);
const char *mi_meta_find(const MiMeta *, const char *key); /* NULL: none */

#endif
