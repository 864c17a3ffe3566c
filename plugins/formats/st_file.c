/* st_file.c - reading of a safetensors header: in one pass, nothing kept but the
 * tensors, every number bounded by the file's size. */
#include "st_file.h"
#include "json_scan.h"
#include "names.h"
#include <stdlib.h>
#include <string.h>

typedef struct {
    const char     *path;
    const MiSource *source;
    const uint8_t  *data; /* [bytes] behind the header */
    size_t          bytes, first; /* first: weights that were there before this file */
    MiJson          json;
    char           *buffer, *free; /* of escaped strings: as large as the header, touched where used */
    MiWeights      *weights;
    bool            metadata; /* was there */
    GError        **error;
} Reader;

/* What safetensors can hold.  Those without a decoder are listed; using one is refused by its name. */
static const struct { const char *dtype, *format; size_t bytes; } dtypes[] = {
    { "F32", "f32", 4 },         { "F16", "f16", 2 },         { "BF16", "bf16", 2 }, { "F64", "f64", 8 },
    { "I64", "i64", 8 },         { "I32", "i32", 4 },         { "I16", "i16", 2 },   { "I8", "i8", 1 },
    { "U64", "u64", 8 },         { "U32", "u32", 4 },         { "U16", "u16", 2 },   { "U8", "u8", 1 },
    { "F8_E4M3", "f8_e4m3", 1 }, { "F8_E5M2", "f8_e5m2", 1 }, { "BOOL", "bool", 1 },
};

static bool fail(const Reader *r, const char *form, ...) G_GNUC_PRINTF(2, 3);
static bool fail(const Reader *r, const char *form, ...)
{
    va_list args;
    va_start(args, form);
    g_autofree char *text = g_strdup_vprintf(form, args);
    va_end(args);
    g_set_error(r->error, MI_ERROR, MI_ERROR_MODEL, "%s: byte %zu: %s", r->path,
                r->json.start ? 8 + (size_t)(r->json.at - r->json.start) : 0, text);
    return false;
}

static bool wanted(const Reader *r)
{
    return fail(r, "the header has no %s here", r->json.wrong);
}

static bool no_memory(const Reader *r)
{
    g_set_error(r->error, MI_ERROR, MI_ERROR_NO_MEMORY, "%s: no memory for its tables", r->path);
    return false;
}

/* ---- one tensor -------------------------------------------------------------- */

typedef struct {
    char    name[MI_NAME_MAX];
    int     dtype; /* of dtypes; -1: not said yet */
    int32_t ndim;  /* -1: not said yet */
    int64_t shape[4], offset[2];
    bool    offsets;
} Entry;

static bool read_dtype(Reader *r, Entry *e)
{
    MiJsonText text;
    char       shown[64];

    r->free = r->buffer;
    if (e->dtype >= 0)
        return fail(r, "tensor '%s' says its dtype twice", e->name);
    if (!mi_json_string(&r->json, &r->free, &text))
        return wanted(r);
    for (size_t i = 0; i < G_N_ELEMENTS(dtypes); i++)
        if (mi_json_is(&text, dtypes[i].dtype))
            e->dtype = (int)i;
    if (e->dtype < 0)
        return fail(r, "tensor '%s' is of dtype '%s'; F32, F16 and BF16 can be read", e->name,
                    mi_shown(text.text, text.len, shown));
    return true;
}

/* At most max numbers from 0 on; how many, -1 with *error. */
static int32_t read_numbers(Reader *r, const Entry *e, const char *what, int64_t *out, size_t max)
{
    size_t n = 0;

    if (!mi_json_open(&r->json, '['))
        return wanted(r), -1;
    while (mi_json_more(&r->json, ']', &n)) {
        int64_t x;
        if (n > max)
            return fail(r, "tensor '%s' has more than %zu %s", e->name, max, what), -1;
        if (!mi_json_int(&r->json, &x))
            return wanted(r), -1;
        if (x < 0)
            return fail(r, "tensor '%s' has %" G_GINT64_FORMAT " in its %s", e->name, x, what), -1;
        out[n - 1] = x;
    }
    return r->json.wrong ? wanted(r), -1 : (int32_t)n;
}

static bool read_shape(Reader *r, Entry *e)
{
    if (e->ndim >= 0)
        return fail(r, "tensor '%s' says its shape twice", e->name);
    e->ndim = read_numbers(r, e, "dimensions", e->shape, 4);
    return e->ndim >= 0;
}

static bool read_offsets(Reader *r, Entry *e)
{
    if (e->offsets)
        return fail(r, "tensor '%s' says its data_offsets twice", e->name);
    e->offsets = true;
    const int32_t n = read_numbers(r, e, "data_offsets", e->offset, 2);
    if (n == 0 || n == 1)
        return fail(r, "tensor '%s' has %d data_offsets; 2 are needed", e->name, n);
    return n == 2;
}

static bool add(Reader *r, const Entry *e)
{
    uint64_t bytes = e->dtype >= 0 ? dtypes[e->dtype].bytes : 0;

    if (e->dtype < 0 || e->ndim < 0 || !e->offsets)
        return fail(r, "tensor '%s' lacks its %s", e->name,
                    e->dtype < 0  ? "dtype"
                    : e->ndim < 0 ? "shape"
                                  : "data_offsets");
    for (int32_t d = 0; d < e->ndim; d++) {
        if (e->shape[d] == 0)
            return fail(r, "tensor '%s' has 0 for dimension %d", e->name, d);
        if (!g_uint64_checked_mul(&bytes, bytes, (uint64_t)e->shape[d]))
            return fail(r, "tensor '%s' has more than 2^64 bytes", e->name);
    }
    if (e->offset[0] > e->offset[1] || (uint64_t)e->offset[1] > r->bytes)
        return fail(r, "tensor '%s' is at %" G_GINT64_FORMAT " to %" G_GINT64_FORMAT " of the file's %zu bytes of data",
                    e->name, e->offset[0], e->offset[1], r->bytes);
    if ((uint64_t)(e->offset[1] - e->offset[0]) != bytes)
        return fail(r, "tensor '%s' of %s has %" G_GUINT64_FORMAT " bytes by its shape and %" G_GINT64_FORMAT
                    " by its data_offsets", e->name, dtypes[e->dtype].dtype, bytes, e->offset[1] - e->offset[0]);
    MiWeight w = { .name = e->name, .format = dtypes[e->dtype].format, .ndim = MAX(e->ndim, 1),
                   .data = r->data + e->offset[0], .bytes = (size_t)bytes, .source = r->source };
    for (int32_t d = 0; d < e->ndim; d++)
        w.shape[d] = e->shape[d];
    if (e->ndim == 0)
        w.shape[0] = 1; /* a scalar is a row of one */
    if (r->weights->n - r->first >= MI_ST_MAX_TENSORS)
        return fail(r, "the header has more than %d tensors", MI_ST_MAX_TENSORS);
    if (!mi_weights_add(r->weights, &w))
        return no_memory(r);
    return true;
}

static bool read_tensor(Reader *r, Entry *e)
{
    MiJsonText key;
    char       shown[64];
    size_t     n = 0;

    if (!mi_json_open(&r->json, '{'))
        return wanted(r);
    while (mi_json_more(&r->json, '}', &n)) {
        r->free = r->buffer;
        if (!mi_json_key(&r->json, &r->free, &key))
            return wanted(r);
        if (mi_json_is(&key, "dtype") ? !read_dtype(r, e)
            : mi_json_is(&key, "shape") ? !read_shape(r, e)
            : mi_json_is(&key, "data_offsets") ? !read_offsets(r, e)
            : !fail(r, "tensor '%s' has a key '%s'; dtype, shape and data_offsets are known", e->name,
                    mi_shown(key.text, key.len, shown)))
            return false;
    }
    return r->json.wrong ? wanted(r) : add(r, e);
}

/* Texts by name, which nobody reads; only that they are texts. */
static bool read_metadata(Reader *r)
{
    MiJsonText text;
    size_t     n = 0;

    if (r->metadata)
        return fail(r, "'__metadata__' is there twice");
    r->metadata = true;
    if (!mi_json_open(&r->json, '{'))
        return wanted(r);
    while (mi_json_more(&r->json, '}', &n)) {
        r->free = r->buffer;
        if (!mi_json_key(&r->json, &r->free, &text) || !mi_json_string(&r->json, &r->free, &text))
            return wanted(r);
    }
    if (r->json.wrong)
        return wanted(r);
    return true;
}

/* ---- the file ------------------------------------------------------------------ */

static bool read_header(Reader *r)
{
    MiJsonText name;
    char       shown[64];
    size_t     n = 0;

    mi_json_open(&r->json, '{'); /* it does begin so: mi_st_read() has looked */
    while (mi_json_more(&r->json, '}', &n)) {
        Entry e = { .dtype = -1, .ndim = -1 };
        r->free = r->buffer;
        if (!mi_json_key(&r->json, &r->free, &name))
            return wanted(r);
        if (!mi_possible_name(name.text, name.len) || name.len >= MI_NAME_MAX)
            return fail(r, "'%s', a tensor's name, is empty, longer than %d bytes or holds control bytes",
                        mi_shown(name.text, name.len, shown), MI_NAME_MAX - 1);
        memcpy(e.name, name.text, name.len);
        if (strcmp(e.name, "__metadata__") == 0 ? !read_metadata(r) : !read_tensor(r, &e))
            return false;
    }
    if (r->json.wrong)
        return wanted(r);
    mi_json_peek(&r->json);
    if (r->json.at != r->json.end)
        return fail(r, "there is something behind the header's end");
    return true;
}

static int by_data(const void *a, const void *b)
{
    const MiWeight *const *x = a, *const *y = b;
    const uintptr_t p = (uintptr_t)(*x)->data, q = (uintptr_t)(*y)->data;
    return (p > q) - (p < q);
}

/* Each byte of the data belongs to one tensor. */
static bool check_span(Reader *r)
{
    const size_t                n = r->weights->n - r->first;
    g_autofree const MiWeight **sorted = g_try_new0(const MiWeight *, n + 1);
    const uint8_t              *end = r->data;

    if (!sorted)
        return no_memory(r);
    for (size_t i = 0; i < n; i++)
        sorted[i] = &r->weights->at[r->first + i];
    qsort(sorted, n, sizeof *sorted, by_data);
    for (size_t i = 0; i < n; i++) {
        const uint8_t *at = sorted[i]->data;
        if (at != end)
            return fail(r, "tensor '%s' starts at %zu of the data and the one before it ends at %zu", sorted[i]->name,
                        (size_t)(at - r->data), (size_t)(end - r->data));
        end = at + sorted[i]->bytes;
    }
    if (end != r->data + r->bytes)
        return fail(r, "the tensors end at %zu of %zu bytes of data", (size_t)(end - r->data), r->bytes);
    return true;
}

bool mi_st_read(const char *path, const MiSource *source, MiMapped *map, MiWeights *weights, GError **error)
{
    Reader   r = { .path = path, .source = source, .weights = weights, .first = weights->n, .error = error };
    uint64_t n = 0;

    if (!mi_map(path, map, error))
        return false;
    if (map->size >= 8)
        memcpy(&n, map->data, 8);
    if (map->size < 8 || n > map->size - 8 || n > MI_ST_MAX_HEADER || n < 2)
        return fail(&r, "a header of %" G_GUINT64_FORMAT " bytes in a file of %zu; 2 to %d are possible", n, map->size,
                    MI_ST_MAX_HEADER);
    const char *header = (const char *)map->data + 8;
    r.json = (MiJson){ header, header, header + n, NULL };
    if (header[0] != '{')
        return fail(&r, "the header does not start with {");
    if (!g_utf8_validate_len(header, (gsize)n, &r.json.at))
        return fail(&r, "the header is not UTF-8, or has a zero byte");
    r.json.at = header;
    r.data = map->data + 8 + n;
    r.bytes = map->size - 8 - (size_t)n;
    r.buffer = g_try_malloc((gsize)n);
    const bool ok = r.buffer ? read_header(&r) && check_span(&r) : no_memory(&r);
    g_free(r.buffer);
    return ok;
}
