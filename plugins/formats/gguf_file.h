/* gguf_file.h - the tables of a GGUF file, checked, under the file's own names.
 *
 *   magic "GGUF", u32 version, u64 n_tensors, u64 n_kv
 *   n_kv      times  string key, u32 type, value
 *   n_tensors times  string name, u32 n_dims, u64 dims[n_dims], u32 type, u64 offset
 *   padding to general.alignment, then the tensors' bytes
 *
 * A string is u64 length and bytes; an array u32 type, u64 count and values.
 * Little-endian; versions 2 and 3 (which only adds big-endian files, refused).
 * The file is mapped read-only: pointers stay good until mi_gguf_close(). */
#ifndef MI_FORMATS_GGUF_FILE_H
#define MI_FORMATS_GGUF_FILE_H

#include "files.h"
#include <cpu/blocks.h>

typedef enum {
    MI_GGUF_U8, MI_GGUF_I8, MI_GGUF_U16, MI_GGUF_I16, MI_GGUF_U32, MI_GGUF_I32, MI_GGUF_F32, MI_GGUF_BOOL,
    MI_GGUF_STRING, MI_GGUF_ARRAY, MI_GGUF_U64, MI_GGUF_I64, MI_GGUF_F64, MI_GGUF_N_TYPES
} MiGgufType;

enum { MI_GGUF_MAX_KEYS = 65536, MI_GGUF_MAX_TENSORS = 65536, MI_GGUF_MAX_ALIGNMENT = 1 << 16 };

typedef struct {
    const char    *key; /* [key_len], not terminated */
    uint32_t       key_len;
    MiGgufType     type; /* of the value, or of an array's elements */
    bool           array;
    uint64_t       n;  /* elements; 1: no array */
    const uint8_t *at; /* the first one */
} MiGgufKey;

typedef struct {
    const char          *name; /* [name_len], not terminated */
    uint32_t             name_len, n_dims;
    int64_t              dim[4]; /* the fastest first, 1 beyond n_dims */
    const MiBlockFormat *format;
    const uint8_t       *data;
    size_t               bytes;
} MiGgufTensor;

typedef struct {
    char         *path;
    MiMapped      file;
    MiGgufKey    *keys; /* [n_keys] by key */
    size_t        n_keys;
    MiGgufTensor *tensors; /* [n_tensors] as the file has them */
    size_t        n_tensors;
} MiGguf;

MiGguf *mi_gguf_open(const char *path, GError **error);
void    mi_gguf_close(MiGguf *);

const MiGgufKey *mi_gguf_key(const MiGguf *, const char *key); /* NULL: absent */

/* Element i < n of k as a number: any integer or bool (f64 for mi_gguf_float: floats too).
 * False: not of that kind. */
bool mi_gguf_int(const MiGgufKey *k, uint64_t i, int64_t *out);
bool mi_gguf_float(const MiGgufKey *k, uint64_t i, double *out);

/* The string at *at, which moves behind it: for strings one after the other.  False: it
 * leaves the file, which only one that changed since it was opened does. */
bool mi_gguf_string(const MiGguf *, const uint8_t **at, const char **text, size_t *len);

#endif
