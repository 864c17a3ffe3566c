/* quantize_store.c - rounded matrices as files of a folder, and a model that has them in the place of its own.
 *
 * A file is complete or not there, so that a command that was stopped goes on with those that are. */
#include "quantize.h"
#include "numbers.h"

#include <miniinfer/plugin.h>
#include <string.h>

typedef struct {
    char    magic[8]; /* with the layout's version */
    char    storage[8];
    int64_t out, in, group;
    int32_t bits, symmetric; /* E4M3 is known by its storage */
    double  weights, outputs, nearest; /* MiRoundingError */
} Header; /* 72 bytes; what follows it is as `storage` says */

static const char magic[8] = "MIROUND2";
G_STATIC_ASSERT(sizeof(Header) == 72);

struct MiQuantized {
    const MiSource *from;
    MiSource        source;
    size_t          n;
    MiWeight       *at;     /* [n] as from has them, or of `files` */
    MiQuant        *quants; /* [n] */
    GPtrArray      *files;  /* GMappedFile * */
};

bool mi_quantizable(const MiWeight *w)
{
    return w->ndim == 2 && !w->companion && strstr(w->name, ".layers.") && g_str_has_suffix(w->name, ".weight");
}

char *mi_quantized_file(const char *folder, const char *name, const char *kind)
{
    g_autofree char *file = g_strconcat(name, ".", kind, NULL);
    return g_build_filename(folder, g_strdelimit(file, "/\\", '_'), NULL);
}

bool mi_quantized_save(const char *folder, const char *name, const char *kind, const void *data, size_t bytes, GError **error)
{
    g_autofree char  *file = mi_quantized_file(folder, name, kind);
    g_autoptr(GError) why = NULL;

    if (g_file_set_contents(file, data, (gssize)bytes, &why))
        return true;
    g_set_error(error, MI_ERROR, MI_ERROR_IO, "%s", why->message);
    return false;
}

/* ---- layouts ----------------------------------------------------------------------- */

static int64_t words(int64_t n, int bits) { return (n * bits + 31) / 32; }

static int64_t groups_of(const MiGrid *g, int64_t in) { return g->group ? (in + g->group - 1) / g->group : 1; }

/* Bytes behind the header. */
static size_t payload(const char *storage, int64_t out, int64_t in, const MiGrid *g)
{
    const int64_t groups = groups_of(g, in);

    if (strcmp(storage, "gptq") == 0)
        return (size_t)(words(in, g->bits) * out * 4 + groups * out * 2 + groups * words(out, g->bits) * 4);
    if (strcmp(storage, "q4_0") == 0 || strcmp(storage, "q8_0") == 0)
        return (size_t)(out * (in / 32)) * (strcmp(storage, "q4_0") == 0 ? 18 : 34);
    if (strcmp(storage, "fp8") == 0)
        return (size_t)(out * in + out * 2);
    return (size_t)(out * words(in, g->bits) * 4 + out * groups * 2) + (g->symmetric ? 0 : (size_t)(words(out, g->bits) * groups * 4));
}

/* compressed-tensors: words of codes, f16 scales, words of zeros packed down the rows. */
static void store_packed(const MiRounding *r, const MiGrid *grid, uint8_t *to)
{
    const int64_t per = 32 / grid->bits, row = words(r->in, grid->bits);

    for (int64_t o = 0; o < r->out; o++)
        for (int64_t i = 0; i < r->in; i++)
            to[4 * (o * row + i / per) + i % per * grid->bits / 8] |= (uint8_t)(r->codes[o * r->in + i] << (grid->bits == 4 && i % 2 ? 4 : 0));
    to += r->out * row * 4;
    mi_numbers_to(MI_F16, r->scales, r->out * r->groups, to);
    to += r->out * r->groups * 2;
    for (int64_t o = 0; o < r->out && !grid->symmetric; o++)
        for (int64_t g = 0; g < r->groups; g++)
            to[4 * (o / per * r->groups + g) + o % per * grid->bits / 8] |=
                (uint8_t)(r->zeros[o * r->groups + g] << (grid->bits == 4 && o % 2 ? 4 : 0));
}

/* GPTQ: words of codes down the columns of the matrix, f16 scales and words of zeros group by group.  In the older form, which
 * everything reads, zeros are stored less 1; it has none for a zero of 0, so that asymmetric ones are stored in the newer. */
static void store_across(const MiRounding *r, const MiGrid *grid, uint8_t *to)
{
    const int64_t     per = 32 / grid->bits;
    uint8_t *const    scales = to + words(r->in, grid->bits) * r->out * 4, *const zeros = scales + r->groups * r->out * 2;
    const int         less = grid->symmetric ? 1 : 0;

    for (int64_t i = 0; i < r->in; i++)
        for (int64_t o = 0; o < r->out; o++)
            to[4 * (i / per * r->out + o) + i % per * grid->bits / 8] |=
                (uint8_t)(r->codes[o * r->in + i] << (grid->bits == 4 && i % 2 ? 4 : 0));
    for (int64_t g = 0; g < r->groups; g++)
        for (int64_t o = 0; o < r->out; o++) {
            mi_numbers_to(MI_F16, &r->scales[o * r->groups + g], 1, scales + 2 * (g * r->out + o));
            zeros[4 * (g * words(r->out, grid->bits) + o / per) + o % per * grid->bits / 8] |=
                (uint8_t)((r->zeros[o * r->groups + g] - less) << (grid->bits == 4 && o % 2 ? 4 : 0));
        }
}

/* E4M3, row by row, then a bf16 scale for each. */
static void store_numbers(const MiRounding *r, const MiGrid *grid, uint8_t *to)
{
    (void)grid;
    memcpy(to, r->codes, (size_t)(r->out * r->in));
    mi_numbers_to(MI_BF16, r->scales, r->out, to + r->out * r->in);
}

/* GGUF's: f16 scale, then 32 codes: of 4 bits those of the first half in the low nibbles; of 8 as signed. */
static void store_blocks(const MiRounding *r, const MiGrid *grid, uint8_t *to)
{
    for (int64_t b = 0; b < r->out * r->groups; b++) {
        const uint8_t *q = r->codes + 32 * b;
        mi_numbers_to(MI_F16, &r->scales[b], 1, to);
        to += 2;
        for (int i = 0; i < (grid->bits == 4 ? 16 : 32); i++)
            *to++ = grid->bits == 4 ? (uint8_t)(q[i] | q[16 + i] << 4) : q[i] ^ 0x80;
    }
}

typedef void (*Store)(const MiRounding *, const MiGrid *, uint8_t *to);

static Store store_as(const char *storage)
{
    return strcmp(storage, "ct") == 0     ? store_packed
           : strcmp(storage, "gptq") == 0 ? store_across
           : strcmp(storage, "fp8") == 0  ? store_numbers
                                          : store_blocks;
}

GBytes *mi_rounding_store(const MiRounding *r, const MiGrid *grid, const char *storage, const MiRoundingError *e)
{
    const size_t bytes = payload(storage, r->out, r->in, grid);
    Header       h = { .out = r->out, .in = r->in, .group = grid->group, .bits = grid->bits, .symmetric = grid->symmetric,
                       .weights = e->weights, .outputs = e->outputs, .nearest = e->nearest };
    uint8_t     *data = g_try_malloc0(sizeof h + bytes);

    if (!data)
        return NULL;
    memcpy(h.magic, magic, sizeof magic);
    g_strlcpy(h.storage, storage, sizeof h.storage);
    memcpy(data, &h, sizeof h);
    store_as(storage)(r, grid, data + sizeof h);
    return g_bytes_new_take(data, sizeof h + bytes);
}

bool mi_stored_fits(const void *data, size_t bytes, const MiWeight *w, const MiGrid *grid, const char *storage, MiRoundingError *e)
{
    Header h;

    if (bytes < sizeof h)
        return false;
    memcpy(&h, data, sizeof h);
    *e = (MiRoundingError){ h.weights, h.outputs, h.nearest };
    return memcmp(h.magic, magic, sizeof magic) == 0 && strncmp(h.storage, storage, sizeof h.storage) == 0 && h.out == w->shape[0] &&
           h.in == w->shape[1] && h.group == grid->group && h.bits == grid->bits && h.symmetric == grid->symmetric &&
           bytes == sizeof h + payload(storage, h.out, h.in, grid);
}

/* ---- a model with them ----------------------------------------------------------------- */

static void as_packed(MiQuant *q, const MiGrid *grid)
{
    const uint8_t *behind = (const uint8_t *)q->codes + q->out * words(q->in, grid->bits) * 4;

    q->codes_as = MI_CODES_ALONG;
    q->scales = behind;
    q->scale_row = q->n_groups;
    q->scale_group = 1;
    q->zero = grid->symmetric ? 1 << (grid->bits - 1) : 0;
    q->zeros_as = grid->symmetric ? MI_ZEROS_NONE : MI_ZEROS_DOWN;
    q->zeros = grid->symmetric ? NULL : behind + q->out * q->n_groups * 2;
}

static void as_gptq(MiQuant *q, const MiGrid *grid)
{
    const uint8_t *behind = (const uint8_t *)q->codes + words(q->in, grid->bits) * q->out * 4;

    q->codes_as = MI_CODES_ACROSS;
    q->scales = behind;
    q->scale_row = 1;
    q->scale_group = q->out;
    q->zero = grid->symmetric ? 1 : 0;
    q->zeros_as = MI_ZEROS_ALONG;
    q->zeros = behind + q->n_groups * q->out * 2;
}

static void as_numbers(MiQuant *q, const MiGrid *grid)
{
    (void)grid;
    q->codes_as = MI_CODES_F8;
    q->scales = (const uint8_t *)q->codes + q->out * q->in;
    q->scale_dtype = MI_BF16;
    q->scale_row = q->scale_group = 1;
}

/* w as what lies at `data`. */
static void replace(MiWeight *w, MiQuant *q, const uint8_t *data, size_t bytes, const MiGrid *grid, const char *storage)
{
    const int64_t out = w->shape[0], in = w->shape[1];
    const bool    packed = strcmp(storage, "ct") == 0, gptq = strcmp(storage, "gptq") == 0, numbers = strcmp(storage, "fp8") == 0;

    w->data = data;
    w->bytes = bytes;
    w->quant = NULL;
    w->format = !packed ? storage : grid->bits == 4 ? "ct_int4" : "ct_int8";
    if (!packed && !gptq && !numbers)
        return;
    *q = (MiQuant){ .bits = grid->bits, .out = out, .in = in, .codes = data, .n_groups = groups_of(grid, in),
                    .group_in = grid->group ? MIN(grid->group, in) : in, .group_out = 1, .scale_dtype = MI_F16 };
    (packed ? as_packed : gptq ? as_gptq : as_numbers)(q, grid);
    w->bytes = (size_t)((const uint8_t *)q->scales - data);
    w->quant = q;
}

static bool find(void *self, const char *name, MiWeight *out)
{
    const MiQuantized *m = self;

    for (size_t i = 0; i < m->n; i++)
        if (strcmp(m->at[i].name, name) == 0)
            return *out = m->at[i], true;
    return false;
}

static size_t count(void *self) { return ((MiQuantized *)self)->n; }
static void   at(void *self, size_t i, MiWeight *out) { *out = ((MiQuantized *)self)->at[i]; }

static const MiSource *from_of(void *self) { return ((const MiQuantized *)self)->from; }

static const char *meta(void *self, const char *key)
{
    return g_str_has_prefix(key, "quantization_config.") ? NULL : from_of(self)->vt->meta(from_of(self)->self, key);
}

static MiRopeStyle rope_style(void *self) { return from_of(self)->vt->rope_style(from_of(self)->self); }

static bool tokenizer(void *self, MiTokenizerData *out, GError **error)
{
    const MiSource *s = from_of(self);

    if (MI_HAS(s->vt, tokenizer))
        return s->vt->tokenizer(s->self, out, error);
    g_set_error(error, MI_ERROR, MI_ERROR_NOT_FOUND, "this model's files have no tokenizer");
    return false;
}

/* What is rounded the writers take as it is. */
static bool decode(void *self, const MiWeight *w, int64_t first, int64_t n, float *out, GError **error)
{
    return from_of(self)->vt->decode(from_of(self)->self, w, first, n, out, error);
}

static const MiFormat quantized = {
    .struct_size = sizeof quantized, .find = find, .count = count, .at = at, .meta = meta, .rope_style = rope_style,
    .tokenizer = tokenizer, .decode = decode,
};

/* The i-th as the folder has it: a matrix must be there, a vector may. */
static bool take_file(MiQuantized *m, size_t i, const char *folder, const MiGrid *grid, const char *storage, GError **error)
{
    MiWeight        *w = &m->at[i];
    const bool       matrix = mi_quantizable(w);
    g_autofree char *file = mi_quantized_file(folder, w->name, matrix ? "rounded" : "folded");
    GMappedFile     *map = NULL;
    MiRoundingError  e;

    if (!matrix && (w->ndim != 1 || w->companion || !g_file_test(file, G_FILE_TEST_EXISTS)))
        return true;
    if (!(map = g_mapped_file_new(file, FALSE, error)))
        return false;
    g_ptr_array_add(m->files, map);
    const uint8_t *data = (const uint8_t *)g_mapped_file_get_contents(map);
    const size_t   bytes = g_mapped_file_get_length(map);
    if (matrix ? !mi_stored_fits(data, bytes, w, grid, storage, &e) : bytes != (size_t)w->shape[0] * sizeof(float)) {
        g_set_error(error, MI_ERROR, MI_ERROR_IO, "%s: this is not what was written there", file);
        return false;
    }
    if (matrix) {
        replace(w, &m->quants[i], data + sizeof(Header), bytes - sizeof(Header), grid, storage);
    } else {
        w->format = "f32";
        w->data = data;
        w->bytes = bytes;
    }
    return true;
}

MiQuantized *mi_quantized_open(const MiSource *from, const char *folder, const MiGrid *grid, const char *storage, GError **error)
{
    MiQuantized *m = g_new0(MiQuantized, 1);

    m->from = from;
    m->n = from->vt->count(from->self);
    m->at = g_new0(MiWeight, m->n);
    m->quants = g_new0(MiQuant, m->n);
    m->files = g_ptr_array_new_with_free_func((GDestroyNotify)g_mapped_file_unref);
    m->source = (MiSource){ &quantized, m };
    for (size_t i = 0; i < m->n; i++) {
        from->vt->at(from->self, i, &m->at[i]);
        if (!take_file(m, i, folder, grid, storage, error)) {
            mi_quantized_close(m);
            return NULL;
        }
    }
    return m;
}

const MiSource *mi_quantized_source(const MiQuantized *m) { return &m->source; }

void mi_quantized_close(MiQuantized *m)
{
    if (!m)
        return;
    g_ptr_array_unref(m->files);
    g_free(m->at);
    g_free(m->quants);
    g_free(m);
}
