/* st_quant.c - rows are copied in the order of the result; only zeros, which are packed down the rows, are packed anew. */
#include "st_quant.h"
#include <cpu/quants.h>
#include <miniinfer/plugin.h>
#include <string.h>

bool mi_st_packable(const MiWeight *w)
{
    const MiQuant *q = w->quant;

    return q && q->codes_as == MI_CODES_ALONG && q->group_out == 1 && !q->group_of && q->scale_group == 1 &&
           q->scale_row == q->n_groups && (q->n_groups == 1 || q->in % q->group_in == 0) &&
           (q->zeros_as == MI_ZEROS_NONE || q->zeros_as == MI_ZEROS_DOWN);
}

int mi_st_parts(const MiWeight *w, MiPart out[4])
{
    int n = 0;

    if (!mi_st_packable(w))
        return out[0] = MI_PART_WHOLE, 1;
    out[n++] = MI_PART_CODES;
    out[n++] = MI_PART_SCALES;
    if (w->quant->zeros_as == MI_ZEROS_DOWN)
        out[n++] = MI_PART_ZEROS;
    out[n++] = MI_PART_SHAPE;
    return n;
}

static int64_t per_word(const MiQuant *q) { return 32 / q->bits; }
static int64_t words(const MiQuant *q, int64_t n) { return n / per_word(q) + (n % per_word(q) > 0); }

void mi_st_part_tensor(const MiWeight *w, MiPart part, MiPartTensor *t)
{
    static const char *const suffixes[] = { "", ".weight_packed", ".weight_scale", ".weight_zero_point", ".weight_shape" };
    const MiQuant           *q = w->quant;
    const int                base = (int)(strrchr(w->name, '.') - w->name);
    const MiDType            scale = q->scale_dtype;

    g_snprintf(t->name, sizeof t->name, "%.*s%s", base, w->name, suffixes[part]);
    t->ndim = part == MI_PART_SHAPE ? 1 : 2;
    t->shape[0] = part == MI_PART_ZEROS ? words(q, q->out) : part == MI_PART_SHAPE ? 2 : q->out;
    t->shape[1] = part == MI_PART_CODES ? words(q, q->in) : q->n_groups;
    t->dtype = part == MI_PART_SHAPE    ? "I64"
               : part != MI_PART_SCALES ? "I32"
               : scale == MI_F32        ? "F32"
               : scale == MI_F16        ? "F16"
                                        : "BF16";
    t->bytes = part == MI_PART_SHAPE ? 16 : (uint64_t)(t->shape[0] * t->shape[1]) *
                                            (part == MI_PART_SCALES ? mi_dtype_size(scale) : 4);
}

/* Rows of so many bytes. */
static void write_rows(MiOut *o, const MiConversion *c, const void *data, int64_t rows, size_t bytes, MiRowOrder order)
{
    for (int64_t r = 0; r < rows && !o->error; r++) {
        mi_out_bytes(o, (const char *)data + (size_t)mi_source_row(order, r, rows, c->head_dim) * bytes, bytes);
        mi_out_progress(o, bytes);
    }
}

static void write_zeros(MiOut *o, const MiConversion *c, const MiQuant *q, MiRowOrder order)
{
    const int64_t       per = per_word(q);
    g_autofree float   *scales = g_try_new(float, (gsize)q->n_groups);
    g_autofree int32_t *zeros = g_try_new(int32_t, (gsize)q->n_groups);
    g_autofree guint32 *row = g_try_new(guint32, (gsize)q->n_groups);

    if (!scales || !zeros || !row) {
        mi_out_fail(o, MI_ERROR_NO_MEMORY, "no memory for a row of zeros");
        return;
    }
    for (int64_t r = 0; r < q->out && !o->error; r += per) {
        memset(row, 0, (size_t)q->n_groups * sizeof *row);
        for (int64_t k = 0; k < per && r + k < q->out; k++) {
            mi_quant_scales(q, mi_source_row(order, r + k, q->out, c->head_dim), 1, scales, zeros);
            for (int64_t g = 0; g < q->n_groups; g++)
                row[g] |= GUINT32_TO_LE((guint32)zeros[g] << k * q->bits);
        }
        mi_out_bytes(o, row, (size_t)q->n_groups * sizeof *row);
        mi_out_progress(o, (size_t)q->n_groups * sizeof *row);
    }
}

void mi_st_write_part(MiOut *o, const MiConversion *c, const MiWeight *w, MiPart part, MiRowOrder order)
{
    const MiQuant *q = w->quant;
    const int64_t  shape[2] = { GINT64_TO_LE(q->out), GINT64_TO_LE(q->in) };

    switch (part) {
    case MI_PART_CODES: write_rows(o, c, q->codes, q->out, (size_t)words(q, q->in) * 4, order); break;
    case MI_PART_SCALES:
        write_rows(o, c, q->scales, q->out, (size_t)q->n_groups * mi_dtype_size(q->scale_dtype), order);
        break;
    case MI_PART_ZEROS: write_zeros(o, c, q, order); break;
    default: mi_out_bytes(o, shape, sizeof shape); mi_out_progress(o, sizeof shape);
    }
}

/* ---- the configuration ---------------------------------------------------------- */

static bool same_kind(const MiQuant *a, const MiQuant *b)
{
    return a->bits == b->bits && a->zeros_as == b->zeros_as && (a->n_groups == 1) == (b->n_groups == 1) &&
           (a->n_groups == 1 || a->group_in == b->group_in);
}

char *mi_st_quant_config(const MiSource *from, GError **error)
{
    g_autoptr(GString) ignored = g_string_new(NULL);
    const MiWeight    *kind = NULL;
    MiWeight           first, w;

    for (size_t i = 0; i < from->vt->count(from->self); i++) {
        from->vt->at(from->self, i, &w);
        const char *dot = strrchr(w.name, '.');
        if (mi_st_packable(&w)) {
            if (kind && !same_kind(kind->quant, w.quant)) {
                g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED, "%s and %s are quantised differently, which is not written",
                            kind->name, w.name);
                return NULL;
            }
            first = w;
            kind = &first;
        } else if (w.ndim == 2 && dot && !w.companion && !strstr(w.name, "embed")) {
            g_string_append_printf(ignored, "%s\"%.*s\"", ignored->len ? ", " : "", (int)(dot - w.name), w.name);
        }
    }
    if (!kind)
        return NULL;
    const MiQuant *q = kind->quant;
    g_autofree char *size = q->n_groups == 1 ? g_strdup("null") : g_strdup_printf("%" G_GINT64_FORMAT, q->group_in);
    return g_strdup_printf("{\n    \"quant_method\": \"compressed-tensors\",\n    \"format\": \"pack-quantized\",\n"
                           "    \"quantization_status\": \"compressed\",\n    \"ignore\": [%s],\n"
                           "    \"config_groups\": {\"group_0\": {\"targets\": [\"Linear\"], \"input_activations\": null, "
                           "\"output_activations\": null,\n      \"weights\": {\"num_bits\": %d, \"type\": \"int\", "
                           "\"strategy\": \"%s\", \"group_size\": %s, \"symmetric\": %s}}}\n  }",
                           ignored->str, q->bits, q->n_groups == 1 ? "channel" : "group", size,
                           q->zeros_as == MI_ZEROS_NONE ? "true" : "false");
}
