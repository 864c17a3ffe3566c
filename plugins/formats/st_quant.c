/* st_quant.c - rows are copied in the order of the result; only zeros, which are packed across rows, are packed anew. */
#include "st_quant.h"
#include <cpu/quants.h>
#include <miniinfer/plugin.h>
#include <string.h>

static bool is_gptq(const MiQuant *q) { return q->codes_as == MI_CODES_ACROSS; }
static bool is_e4m3(const MiQuant *q) { return q->codes_as == MI_CODES_F8; }

bool mi_st_packable(const MiWeight *w)
{
    const MiQuant *q = w->quant;

    if (!q || q->group_out != 1)
        return false;
    if (is_gptq(q))
        return q->zeros_as == MI_ZEROS_ALONG && q->scale_row == 1 && q->scale_group == q->out;
    if (is_e4m3(q))
        return q->n_groups == 1 && q->scale_row == 1 && !q->group_of;
    return q->codes_as == MI_CODES_ALONG && !q->group_of && q->scale_group == 1 && q->scale_row == q->n_groups &&
           (q->n_groups == 1 || q->in % q->group_in == 0) && (q->zeros_as == MI_ZEROS_NONE || q->zeros_as == MI_ZEROS_DOWN);
}

int mi_st_parts(const MiWeight *w, MiPart out[4])
{
    int n = 0;

    if (!mi_st_packable(w))
        return out[0] = MI_PART_WHOLE, 1;
    out[n++] = MI_PART_CODES;
    out[n++] = MI_PART_SCALES;
    if (w->quant->zeros_as != MI_ZEROS_NONE)
        out[n++] = MI_PART_ZEROS;
    if (!is_e4m3(w->quant))
        out[n++] = is_gptq(w->quant) ? MI_PART_GROUPS : MI_PART_SHAPE;
    return n;
}

static int64_t per_word(const MiQuant *q) { return 32 / q->bits; }
static int64_t words(const MiQuant *q, int64_t n) { return n / per_word(q) + (n % per_word(q) > 0); }

void mi_st_part_tensor(const MiWeight *w, MiPart part, MiPartTensor *t)
{
    static const char *const suffixes[3][6] = {
        { "", ".weight_packed", ".weight_scale", ".weight_zero_point", ".weight_shape", "" },
        { "", ".qweight", ".scales", ".qzeros", "", ".g_idx" },
        { "", ".weight", ".weight_scale", "", "", "" },
    };
    const MiQuant *q = w->quant;
    const bool     gptq = is_gptq(q), numbers = is_e4m3(q) && part == MI_PART_CODES, vector = part == MI_PART_SHAPE || part == MI_PART_GROUPS;
    const int      base = (int)(strrchr(w->name, '.') - w->name);
    const MiDType  scale = q->scale_dtype;
    /* GPTQ's are the same, turned, but for the codes of a word, which go along the columns in both */
    const int64_t  rows = part == MI_PART_ZEROS ? words(q, q->out) : q->out;
    const int64_t  columns = numbers ? q->in : part == MI_PART_CODES ? words(q, q->in) : q->n_groups;

    g_snprintf(t->name, sizeof t->name, "%.*s%s", base, w->name, suffixes[is_e4m3(q) ? 2 : gptq][part]);
    t->ndim = vector ? 1 : 2;
    t->shape[0] = part == MI_PART_SHAPE ? 2 : part == MI_PART_GROUPS ? q->in : gptq ? columns : rows;
    t->shape[1] = vector ? 1 : gptq ? rows : columns;
    t->dtype = part == MI_PART_SHAPE    ? "I64"
               : numbers                ? "F8_E4M3"
               : part != MI_PART_SCALES ? "I32"
               : scale == MI_F32        ? "F32"
               : scale == MI_F16        ? "F16"
                                        : "BF16";
    t->bytes = (uint64_t)(t->shape[0] * t->shape[1]) *
               (part == MI_PART_SHAPE ? 8 : part == MI_PART_SCALES ? mi_dtype_size(scale) : numbers ? 1 : 4);
}

/* Rows of so many bytes. */
static void write_rows(MiOut *o, const MiConversion *c, const void *data, int64_t rows, size_t bytes, MiRowOrder order)
{
    for (int64_t r = 0; r < rows && !o->error; r++) {
        mi_out_bytes(o, (const char *)data + (size_t)mi_source_row(order, r, rows, c->head_dim) * bytes, bytes);
        mi_out_progress(o, bytes);
    }
}

/* n lines of an item of so many bytes for each row of the matrix. */
static void write_lines(MiOut *o, const MiConversion *c, const void *data, int64_t n, int64_t rows, size_t bytes, MiRowOrder order)
{
    g_autofree char *line = g_try_malloc((gsize)rows * bytes);

    if (!line) {
        mi_out_fail(o, MI_ERROR_NO_MEMORY, "no memory for a line of %" G_GINT64_FORMAT " rows", rows);
        return;
    }
    for (int64_t i = 0; i < n && !o->error; i++) {
        const char *from = (const char *)data + (size_t)(i * rows) * bytes;
        for (int64_t r = 0; r < rows; r++)
            memcpy(line + (size_t)r * bytes, from + (size_t)mi_source_row(order, r, rows, c->head_dim) * bytes, bytes);
        mi_out_bytes(o, line, (size_t)rows * bytes);
        mi_out_progress(o, (size_t)rows * bytes);
    }
}

static void write_zeros(MiOut *o, const MiConversion *c, const MiQuant *q, MiRowOrder order)
{
    const int64_t       per = per_word(q), down = words(q, q->out);
    g_autofree float   *scales = g_try_new(float, (gsize)q->n_groups);
    g_autofree int32_t *zeros = g_try_new(int32_t, (gsize)q->n_groups);
    g_autofree guint32 *all = g_try_new0(guint32, (gsize)(q->n_groups * down));

    if (!scales || !zeros || !all) {
        mi_out_fail(o, MI_ERROR_NO_MEMORY, "no memory for the zeros of a matrix");
        return;
    }
    /* [down][groups], GPTQ's [groups][down]; what the older form of those adds is taken off again, as it carries */
    const int64_t at_row = is_gptq(q) ? 1 : q->n_groups, at_group = is_gptq(q) ? down : 1;
    const guint32 less = is_gptq(q) ? (guint32)q->zero * (q->bits == 4 ? 0x11111111u : 0x01010101u) : 0;
    const guint32 mask = (1u << q->bits) - 1;
    for (int64_t r = 0; r < q->out; r++) {
        mi_quant_scales(q, mi_source_row(order, r, q->out, c->head_dim), 1, scales, zeros);
        for (int64_t g = 0; g < q->n_groups; g++)
            all[r / per * at_row + g * at_group] |= ((guint32)zeros[g] & mask) << r % per * q->bits;
    }
    for (int64_t i = 0; i < q->n_groups * down; i++)
        all[i] = GUINT32_TO_LE(all[i] - less);
    mi_out_bytes(o, all, (size_t)(q->n_groups * down) * sizeof *all);
    mi_out_progress(o, (size_t)(q->n_groups * down) * sizeof *all);
}

static void write_groups(MiOut *o, const MiQuant *q)
{
    g_autofree gint32 *of = g_try_new(gint32, (gsize)q->in);

    if (!of) {
        mi_out_fail(o, MI_ERROR_NO_MEMORY, "no memory for the groups of %" G_GINT64_FORMAT " columns", q->in);
        return;
    }
    for (int64_t i = 0; i < q->in; i++)
        of[i] = GINT32_TO_LE(q->group_of ? q->group_of[i] : (gint32)(i / q->group_in));
    mi_out_bytes(o, of, (size_t)q->in * sizeof *of);
    mi_out_progress(o, (size_t)q->in * sizeof *of);
}

void mi_st_write_part(MiOut *o, const MiConversion *c, const MiWeight *w, MiPart part, MiRowOrder order)
{
    const MiQuant *q = w->quant;
    const int64_t  shape[2] = { GINT64_TO_LE(q->out), GINT64_TO_LE(q->in) };
    const size_t   scale = mi_dtype_size(q->scale_dtype);

    switch (part) {
    case MI_PART_CODES:
        if (is_gptq(q))
            write_lines(o, c, q->codes, words(q, q->in), q->out, 4, order);
        else
            write_rows(o, c, q->codes, q->out, is_e4m3(q) ? (size_t)q->in : (size_t)words(q, q->in) * 4, order);
        break;
    case MI_PART_SCALES:
        if (is_gptq(q))
            write_lines(o, c, q->scales, q->n_groups, q->out, scale, order);
        else
            write_rows(o, c, q->scales, q->out, (size_t)q->n_groups * scale, order);
        break;
    case MI_PART_ZEROS: write_zeros(o, c, q, order); break;
    case MI_PART_GROUPS: write_groups(o, q); break;
    default: mi_out_bytes(o, shape, sizeof shape); mi_out_progress(o, sizeof shape);
    }
}

/* ---- the configuration ---------------------------------------------------------- */

/* Apart from sizes. */
static bool same_kind(const MiQuant *a, const MiQuant *b)
{
    return a->codes_as == b->codes_as && a->bits == b->bits && a->zeros_as == b->zeros_as && (!is_gptq(a) || a->zero == b->zero);
}

typedef struct {
    MiWeight kind;     /* the last that is packed; no quant: none is */
    GString *ignored;  /* matrices that are not, but for embeddings, as a list in JSON */
    char     plain[MI_NAME_MAX]; /* one of a layer that is not, or "" */
    int64_t  size;     /* columns of a group; 0: all have one group */
    int64_t  least, most; /* columns of matrices of one group */
    bool     ordered, symmetric; /* some has an order of columns; no zero but the middle one */
} Found;

/* One size of groups is that of all: what has one group has no more columns than that, and in compressed-tensors' as many. */
static bool same_size(Found *f, const MiQuant *q)
{
    if (q->n_groups > 1) {
        if (f->size && f->size != q->group_in)
            return false;
        f->size = q->group_in;
    } else {
        f->least = f->least ? MIN(f->least, q->in) : q->in;
        f->most = MAX(f->most, q->in);
    }
    return !f->size || !f->most || (f->most <= f->size && (is_gptq(q) || f->least == f->size));
}

/* Each zero is the middle of the codes. */
static bool middle_zeros(const MiQuant *q)
{
    const guint32 ones = q->bits == 4 ? 0x11111111u : 0x01010101u;
    const int64_t n = q->n_groups * words(q, q->out);

    for (int64_t i = 0; i < n; i++) {
        guint32 word;
        memcpy(&word, (const char *)q->zeros + 4 * i, sizeof word);
        if (GUINT32_FROM_LE(word) + (guint32)q->zero * ones != ones << (q->bits - 1))
            return false;
    }
    return true;
}

static bool find(const MiSource *from, Found *f, GError **error)
{
    MiWeight w;

    for (size_t i = 0; i < from->vt->count(from->self); i++) {
        from->vt->at(from->self, i, &w);
        const char *dot = strrchr(w.name, '.');
        if (mi_st_packable(&w)) {
            if (f->kind.quant && (!same_kind(f->kind.quant, w.quant) || !same_size(f, w.quant))) {
                g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED, "%s and %s are quantised differently, which is not written",
                            f->kind.name, w.name);
                return false;
            }
            if (!f->kind.quant)
                same_size(f, w.quant);
            f->kind = w;
            f->ordered = f->ordered || w.quant->group_of;
            f->symmetric = f->symmetric && (!is_gptq(w.quant) ? w.quant->zeros_as == MI_ZEROS_NONE : middle_zeros(w.quant));
        } else if (w.ndim == 2 && dot && !w.companion && !strstr(w.name, "embed")) {
            g_string_append_printf(f->ignored, "%s\"%.*s\"", f->ignored->len ? ", " : "", (int)(dot - w.name), w.name);
            if (strstr(w.name, ".layers."))
                g_strlcpy(f->plain, w.name, sizeof f->plain);
        }
    }
    if (!f->kind.quant || !is_gptq(f->kind.quant) || !*f->plain)
        return true;
    g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED, "%s is GPTQ and %s is not quantised, which is not written", f->kind.name,
                f->plain);
    return false;
}

static char *tensors_config(const Found *f)
{
    const MiQuant   *q = f->kind.quant;
    g_autofree char *size = f->size ? g_strdup_printf("%" G_GINT64_FORMAT, f->size) : g_strdup("null");

    return g_strdup_printf("{\n    \"quant_method\": \"compressed-tensors\",\n    \"format\": \"%s-quantized\",\n"
                           "    \"quantization_status\": \"compressed\",\n    \"ignore\": [%s],\n"
                           "    \"config_groups\": {\"group_0\": {\"targets\": [\"Linear\"], \"input_activations\": null, "
                           "\"output_activations\": null,\n      \"weights\": {\"num_bits\": %d, \"type\": \"%s\", "
                           "\"strategy\": \"%s\", \"group_size\": %s, \"symmetric\": %s}}}\n  }",
                           is_e4m3(q) ? "float" : "pack", f->ignored->str, q->bits, is_e4m3(q) ? "float" : "int", f->size ? "group" : "channel", size,
                           f->symmetric ? "true" : "false");
}

static char *gptq_config(const Found *f)
{
    const MiQuant *q = f->kind.quant;

    return g_strdup_printf("{\n    \"quant_method\": \"gptq\",\n    \"checkpoint_format\": \"%s\",\n    \"bits\": %d,\n"
                           "    \"group_size\": %d,\n    \"desc_act\": %s,\n    \"sym\": %s,\n    \"lm_head\": false,\n"
                           "    \"pack_dtype\": \"int32\"\n  }",
                           q->zero ? "gptq" : "gptq_v2", q->bits, f->size ? (int)f->size : -1,
                           f->ordered ? "true" : "false", f->symmetric ? "true" : "false");
}

char *mi_st_quant_config(const MiSource *from, bool *gptq, GError **error)
{
    g_autoptr(GString) ignored = g_string_new(NULL);
    Found              f = { .ignored = ignored, .symmetric = true };

    if (!find(from, &f, error) || !f.kind.quant)
        return NULL;
    *gptq = is_gptq(f.kind.quant);
    return *gptq ? gptq_config(&f) : tensors_config(&f);
}
