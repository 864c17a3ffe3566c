/* gguf_file.c - reading of GGUF's tables.  Everything here is a stranger's: each
 * count is bounded by the bytes that are left before anything is allocated or
 * multiplied, and each message says at which byte. */
#include "gguf_file.h"
#include "names.h"
#include <miniinfer/context.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    MiGguf *f;
    size_t  at;
    GError **error;
} Reader;

static const uint8_t widths[MI_GGUF_N_TYPES] = { 1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8 };

static bool fail(const Reader *r, size_t at, const char *form, ...) G_GNUC_PRINTF(3, 4);
static bool fail(const Reader *r, size_t at, const char *form, ...)
{
    va_list args;
    va_start(args, form);
    g_autofree char *text = g_strdup_vprintf(form, args);
    va_end(args);
    g_set_error(r->error, MI_ERROR, MI_ERROR_MODEL, "%s: byte %zu: %s", r->f->path, at, text);
    return false;
}

static size_t left(const Reader *r) { return r->f->file.size - r->at; }

static bool need(const Reader *r, uint64_t n, const char *what)
{
    if (n > left(r))
        return fail(r, r->at, "%s takes %" G_GUINT64_FORMAT " bytes and the file has %zu more", what, n, left(r));
    return true;
}

static bool u32(Reader *r, uint32_t *out, const char *what)
{
    if (!need(r, 4, what))
        return false;
    memcpy(out, r->f->file.data + r->at, 4);
    r->at += 4;
    return true;
}

static bool u64(Reader *r, uint64_t *out, const char *what)
{
    if (!need(r, 8, what))
        return false;
    memcpy(out, r->f->file.data + r->at, 8);
    r->at += 8;
    return true;
}

static bool string(Reader *r, const char **text, uint32_t *len, uint32_t max, const char *what)
{
    const size_t at = r->at;
    uint64_t     n;

    if (!u64(r, &n, what) || !need(r, n, what))
        return false;
    if (n > max)
        return fail(r, at, "%s has %" G_GUINT64_FORMAT " bytes; %u are possible", what, n, max);
    *text = (const char *)r->f->file.data + r->at;
    *len = (uint32_t)n;
    r->at += (size_t)n;
    return true;
}

/* Steps over n values of a type; strings are looked at one by one. */
static bool values(Reader *r, MiGgufType type, uint64_t n, const char *key)
{
    const char *text;
    uint32_t    len;

    if (type != MI_GGUF_STRING) {
        if (n > left(r) / widths[type])
            return fail(r, r->at, "'%s' has %" G_GUINT64_FORMAT " values of %d bytes and the file has %zu more bytes",
                        key, n, widths[type], left(r));
        r->at += (size_t)n * widths[type];
        return true;
    }
    if (n > left(r) / 8)
        return fail(r, r->at, "'%s' has %" G_GUINT64_FORMAT " strings and the file has %zu more bytes", key, n,
                    left(r));
    while (n--)
        if (!string(r, &text, &len, G_MAXINT32, key))
            return false;
    return true;
}

static bool read_type(Reader *r, MiGgufType *type, const char *key)
{
    const size_t at = r->at;
    uint32_t     n;

    if (!u32(r, &n, key))
        return false;
    if (n >= MI_GGUF_N_TYPES)
        return fail(r, at, "'%s' is of type %u; 0 to %d are known", key, n, MI_GGUF_N_TYPES - 1);
    *type = (MiGgufType)n;
    return true;
}

static bool read_key(Reader *r, MiGgufKey *k)
{
    char   shown[64];
    size_t at = r->at;

    if (!string(r, &k->key, &k->key_len, G_MAXUINT16, "a key"))
        return false;
    if (k->key_len == 0)
        return fail(r, at, "a key is empty");
    mi_shown(k->key, k->key_len, shown);
    if (!read_type(r, &k->type, shown))
        return false;
    k->n = 1;
    if (k->type == MI_GGUF_ARRAY) {
        k->array = true;
        at = r->at;
        if (!read_type(r, &k->type, shown) || !u64(r, &k->n, shown))
            return false;
        if (k->type == MI_GGUF_ARRAY)
            return fail(r, at, "'%s' is an array of arrays; of numbers or strings are possible", shown);
    }
    k->at = r->f->file.data + r->at;
    return values(r, k->type, k->n, shown);
}

static int compare(const char *a, size_t n_a, const char *b, size_t n_b)
{
    const int c = memcmp(a, b, MIN(n_a, n_b));
    return c ? c : (n_a > n_b) - (n_a < n_b);
}

static int by_key(const void *a, const void *b)
{
    const MiGgufKey *x = a, *y = b;
    return compare(x->key, x->key_len, y->key, y->key_len);
}

static bool read_keys(Reader *r)
{
    MiGguf *f = r->f;
    char    shown[64];

    for (size_t i = 0; i < f->n_keys; i++)
        if (!read_key(r, &f->keys[i]))
            return false;
    qsort(f->keys, f->n_keys, sizeof *f->keys, by_key);
    for (size_t i = 1; i < f->n_keys; i++)
        if (by_key(&f->keys[i - 1], &f->keys[i]) == 0)
            return fail(r, (size_t)((const uint8_t *)f->keys[i].key - f->file.data), "key '%s' is there twice",
                        mi_shown(f->keys[i].key, f->keys[i].key_len, shown));
    return true;
}

/* Dimensions to bytes: whole blocks along the fastest one, no overflow. */
static bool measure(Reader *r, MiGgufTensor *t, size_t at, const char *name)
{
    uint64_t n = 1;

    for (uint32_t d = 0; d < t->n_dims; d++) {
        if (t->dim[d] < 1)
            return fail(r, at, "tensor '%s' has %" G_GINT64_FORMAT " for dimension %u", name, t->dim[d], d);
        if (!g_uint64_checked_mul(&n, n, (uint64_t)t->dim[d]) || n > G_MAXINT64)
            return fail(r, at, "tensor '%s' has more than 2^63 values", name);
    }
    if (t->dim[0] % t->format->values)
        return fail(r, at, "tensor '%s' has rows of %" G_GINT64_FORMAT " values; %s goes by %d", name, t->dim[0],
                    t->format->name, t->format->values);
    n /= (uint64_t)t->format->values;
    if (n > r->f->file.size / (uint64_t)t->format->bytes)
        return fail(r, at, "tensor '%s' takes more bytes than the file has", name);
    t->bytes = (size_t)n * (size_t)t->format->bytes;
    return true;
}

/* `data` receives the offset from the start of the data, which is not known yet. */
static bool read_tensor(Reader *r, MiGgufTensor *t, uint64_t *offset)
{
    const size_t at = r->at;
    char         shown[64];
    uint32_t     type;
    uint64_t     dim;

    if (!string(r, &t->name, &t->name_len, MI_NAME_MAX - 1, "a tensor's name"))
        return false;
    mi_shown(t->name, t->name_len, shown);
    if (!mi_possible_name(t->name, t->name_len))
        return fail(r, at, "'%s', a tensor's name, is empty or holds control bytes", shown);
    if (!u32(r, &t->n_dims, shown))
        return false;
    if (t->n_dims < 1 || t->n_dims > 4)
        return fail(r, at, "tensor '%s' has %u dimensions; 1 to 4 are possible", shown, t->n_dims);
    for (uint32_t d = 0; d < 4; d++) {
        dim = 1;
        if (d < t->n_dims && !u64(r, &dim, shown))
            return false;
        t->dim[d] = dim > G_MAXINT64 ? -1 : (int64_t)dim;
    }
    if (!u32(r, &type, shown) || !u64(r, offset, shown))
        return false;
    t->format = mi_block_format_gguf(type);
    if (!t->format)
        return fail(r, at, "tensor '%s' is stored as ggml type %u; f32, f16, bf16, q4_0 to q8_0, q2_k to q6_k, iq4_nl "
                    "and iq4_xs can be read", shown, type);
    return measure(r, t, at, shown);
}

static bool alignment(Reader *r, size_t *out)
{
    const MiGgufKey *k = mi_gguf_key(r->f, "general.alignment");
    int64_t          n = 0;

    *out = 32;
    if (!k)
        return true;
    if (k->type == MI_GGUF_U32 && !k->array)
        mi_gguf_int(k, 0, &n);
    if (n < 1 || n > MI_GGUF_MAX_ALIGNMENT || (n & (n - 1)))
        return fail(r, (size_t)(k->at - r->f->file.data), "general.alignment is no power of two from 1 to %d",
                    MI_GGUF_MAX_ALIGNMENT);
    *out = (size_t)n;
    return true;
}

static bool read_tensors(Reader *r, uint64_t *offsets)
{
    MiGguf *f = r->f;
    size_t  align, start;
    char    shown[64];

    for (size_t i = 0; i < f->n_tensors; i++)
        if (!read_tensor(r, &f->tensors[i], &offsets[i]))
            return false;
    if (!alignment(r, &align))
        return false;
    start = (r->at + align - 1) / align * align; /* both are far below SIZE_MAX: at is within the file */
    for (size_t i = 0; i < f->n_tensors; i++) {
        MiGgufTensor *t = &f->tensors[i];
        mi_shown(t->name, t->name_len, shown);
        if (offsets[i] % align)
            return fail(r, r->at, "tensor '%s' starts at %" G_GUINT64_FORMAT " of the data, which %zu does not divide",
                        shown, offsets[i], align);
        if (start > f->file.size || offsets[i] > f->file.size - start || t->bytes > f->file.size - start - offsets[i])
            return fail(r, r->at,
                        "tensor '%s' (%zu bytes at %" G_GUINT64_FORMAT " of the data) ends past the file's %zu bytes",
                        shown, t->bytes, offsets[i], f->file.size);
        t->data = f->file.data + start + offsets[i];
    }
    return true;
}

static bool read_tables(Reader *r)
{
    MiGguf            *f = r->f;
    uint32_t           magic, version;
    uint64_t           n_tensors, n_keys;
    g_autofree uint64_t *offsets = NULL;

    if (!u32(r, &magic, "the magic number"))
        return false;
    if (memcmp(f->file.data, "GGUF", 4) != 0)
        return fail(r, 0, "this is no GGUF file: it does not start with GGUF");
    if (!u32(r, &version, "the version"))
        return false;
    if (version != 2 && version != 3)
        return fail(r, 4, "GGUF version %u%s; 2 and 3 can be read", version,
                    version && !(version & 0xffff) ? " (a big-endian file)" : "");
    if (!u64(r, &n_tensors, "the number of tensors") || !u64(r, &n_keys, "the number of keys"))
        return false;
    if (n_tensors > MI_GGUF_MAX_TENSORS || n_tensors > left(r) / 24)
        return fail(r, 8, "%" G_GUINT64_FORMAT " tensors; the file has room for %zu", n_tensors,
                    MIN(left(r) / 24, (size_t)MI_GGUF_MAX_TENSORS));
    if (n_keys > MI_GGUF_MAX_KEYS || n_keys > left(r) / 13)
        return fail(r, 16, "%" G_GUINT64_FORMAT " keys; the file has room for %zu", n_keys,
                    MIN(left(r) / 13, (size_t)MI_GGUF_MAX_KEYS));
    f->n_keys = (size_t)n_keys;
    f->n_tensors = (size_t)n_tensors;
    f->keys = g_try_new0(MiGgufKey, f->n_keys + 1);
    f->tensors = g_try_new0(MiGgufTensor, f->n_tensors + 1);
    offsets = g_try_new0(uint64_t, f->n_tensors + 1);
    if (!f->keys || !f->tensors || !offsets) {
        g_set_error(r->error, MI_ERROR, MI_ERROR_NO_MEMORY, "%s: no memory for its tables", f->path);
        return false;
    }
    return read_keys(r) && read_tensors(r, offsets);
}

MiGguf *mi_gguf_open(const char *path, GError **error)
{
    MiGguf *f = g_new0(MiGguf, 1);
    Reader  r = { f, 0, error };

    f->path = g_strdup(path);
    if (mi_map(path, &f->file, error) && read_tables(&r))
        return f;
    mi_gguf_close(f);
    return NULL;
}

void mi_gguf_close(MiGguf *f)
{
    mi_unmap(&f->file);
    g_free(f->keys);
    g_free(f->tensors);
    g_free(f->path);
    g_free(f);
}

const MiGgufKey *mi_gguf_key(const MiGguf *f, const char *key)
{
    const MiGgufKey wanted = { .key = key, .key_len = (uint32_t)strlen(key) };
    return bsearch(&wanted, f->keys, f->n_keys, sizeof *f->keys, by_key);
}

/* The bytes of element i, as wide as the type is. */
typedef union {
    uint8_t  u8;
    int8_t   i8;
    uint16_t u16;
    int16_t  i16;
    uint32_t u32;
    int32_t  i32;
    uint64_t u64;
    int64_t  i64;
    float    f32;
    double   f64;
} Number;

static Number load(const MiGgufKey *k, uint64_t i)
{
    Number n = { .u64 = 0 };
    memcpy(&n, k->at + i * widths[k->type], widths[k->type]);
    return n;
}

bool mi_gguf_int(const MiGgufKey *k, uint64_t i, int64_t *out)
{
    const Number n = load(k, i);
    switch (k->type) {
    case MI_GGUF_U8: *out = n.u8; return true;
    case MI_GGUF_BOOL: *out = n.u8 != 0; return true;
    case MI_GGUF_I8: *out = n.i8; return true;
    case MI_GGUF_U16: *out = n.u16; return true;
    case MI_GGUF_I16: *out = n.i16; return true;
    case MI_GGUF_U32: *out = n.u32; return true;
    case MI_GGUF_I32: *out = n.i32; return true;
    case MI_GGUF_I64: *out = n.i64; return true;
    case MI_GGUF_U64: *out = (int64_t)MIN(n.u64, (uint64_t)G_MAXINT64); return true;
    default: return false;
    }
}

bool mi_gguf_float(const MiGgufKey *k, uint64_t i, double *out)
{
    int64_t n;

    if (mi_gguf_int(k, i, &n)) {
        *out = (double)n;
        return true;
    }
    if (k->type != MI_GGUF_F32 && k->type != MI_GGUF_F64)
        return false;
    *out = k->type == MI_GGUF_F32 ? (double)load(k, i).f32 : load(k, i).f64;
    return true;
}

bool mi_gguf_string(const MiGguf *f, const uint8_t **at, const char **text, size_t *len)
{
    const size_t room = f->file.size - (size_t)(*at - f->file.data);
    uint64_t     n;

    if (room < 8)
        return false;
    memcpy(&n, *at, 8);
    if (n > room - 8)
        return false;
    *text = (const char *)*at + 8;
    *len = (size_t)n;
    *at += 8 + (size_t)n;
    return true;
}
