/* hf_quant.c - GPTQ, AWQ, compressed-tensors and FP8 by their quantization_config.
 *
 * Tensors' names say which matrices are quantised, the configuration how; sizes must agree
 * with both.  What is read: GPTQ and compressed-tensors of 4 and 8 bits, AWQ's "gemm" of 4,
 * E4M3 with scales of the matrix, of rows or of blocks. */
#include "hf_quant.h"
#include "names.h"
#include <cpu/quants.h>
#include <stdlib.h>
#include <string.h>

#define CONFIG "quantization_config."

typedef enum { METHOD_NONE, METHOD_GPTQ, METHOD_AWQ, METHOD_TENSORS, METHOD_FP8 } Method;

typedef struct {
    MiWeights    *weights;
    const MiMeta *meta;
    const char   *path;
    Method        method;
    char          base[MI_NAME_MAX]; /* of the matrix at hand, without ".qweight" */
    MiWeight     *codes;
    MiQuant       q;
    GError      **error;
} Reader;

static bool fail(const Reader *r, const char *form, ...) G_GNUC_PRINTF(2, 3);
static bool fail(const Reader *r, const char *form, ...)
{
    char    shown[64];
    va_list args;

    va_start(args, form);
    g_autofree char *text = g_strdup_vprintf(form, args);
    va_end(args);
    g_set_error(r->error, MI_ERROR, MI_ERROR_MODEL, "%s: %s%s%s", r->path,
                *r->base ? mi_shown(r->base, strlen(r->base), shown) : "", *r->base ? ": " : "", mi_one_line(text));
    return false;
}

static const char *config(const Reader *r, const char *key)
{
    g_autofree char *full = g_strconcat(CONFIG, key, NULL);
    return mi_meta_find(r->meta, full);
}

static int64_t number(const char *text)
{
    gint64 n = 0;
    return text && g_ascii_string_to_signed(text, 10, INT32_MIN, INT32_MAX, &n, NULL) ? n : 0;
}

static int64_t rounded_up(int64_t n, int64_t by) { return n / by + (n % by > 0); }

/* x.<suffix>; NULL: none. */
static MiWeight *companion(const Reader *r, const char *suffix)
{
    g_autofree char *name = g_strconcat(r->base, ".", suffix, NULL);
    return (MiWeight *)(uintptr_t)mi_weights_find(r->weights, name);
}

static bool is_words(const MiWeight *w) { return strcmp(w->format, "i32") == 0 || strcmp(w->format, "u32") == 0; }

/* A companion of whole numbers in words, [rows][columns]. */
static bool check_words(const Reader *r, const MiWeight *w, const char *what, int64_t rows, int64_t columns)
{
    if (w && is_words(w) && w->ndim == 2 && w->shape[0] == rows && w->shape[1] == columns)
        return true;
    if (!w)
        return fail(r, "there are no %s", what);
    return fail(r, "%s are %d-dimensional %s, [%" G_GINT64_FORMAT ", %" G_GINT64_FORMAT "]; i32 [%" G_GINT64_FORMAT ", %"
                G_GINT64_FORMAT "] is needed", what, w->ndim, w->format, w->shape[0], w->ndim > 1 ? w->shape[1] : 1, rows,
                columns);
}

static bool set_scales(Reader *r, const MiWeight *w)
{
    static const struct { const char *format; MiDType dtype; } types[] = { { "f32", MI_F32 }, { "f16", MI_F16 },
                                                                           { "bf16", MI_BF16 } };
    for (size_t i = 0; w && i < G_N_ELEMENTS(types); i++)
        if (strcmp(types[i].format, w->format) == 0) {
            r->q.scales = w->data;
            r->q.scale_dtype = types[i].dtype;
            return true;
        }
    return w ? fail(r, "its scales are %s; f32, f16 and bf16 are read", w->format) : fail(r, "it has no scales");
}

/* ---- act order ---------------------------------------------------------------- */

/* Which group each column is of.  Where that is what it is anyhow, q.group_of stays NULL; so it does if -1 is all
 * that is there, which is how compressed-tensors say that. */
static bool set_groups(Reader *r, const MiWeight *w)
{
    MiQuant *q = &r->q;
    bool     plain = true, unset = true;

    if (!is_words(w) || w->ndim != 1 || w->shape[0] != q->in)
        return fail(r, "g_idx is %s of %" G_GINT64_FORMAT "; i32 of %" G_GINT64_FORMAT " is needed", w->format, w->shape[0],
                    q->in);
    int32_t *of = g_try_new(int32_t, (gsize)q->in);
    if (!of) {
        g_set_error(r->error, MI_ERROR, MI_ERROR_NO_MEMORY, "%s: no memory for the order of its columns", r->path);
        return false;
    }
    memcpy(of, w->data, (size_t)q->in * sizeof *of);
    for (int64_t i = 0; i < q->in; i++) {
        plain = plain && of[i] == i / q->group_in;
        unset = unset && of[i] == -1;
    }
    for (int64_t i = 0; !unset && i < q->in; i++)
        if (of[i] < 0 || of[i] >= q->n_groups) {
            fail(r, "g_idx[%" G_GINT64_FORMAT "] is %d of %" G_GINT64_FORMAT " groups", i, of[i], q->n_groups);
            g_free(of);
            return false;
        }
    if (plain || unset)
        g_free(of);
    else
        q->group_of = of;
    return true;
}

/* ---- GPTQ, AWQ ---------------------------------------------------------------- */

/* Scales [groups][out] and zeros [groups][out / n], where q.in, out, bits are known. */
static bool set_turned(Reader *r, MiZeros zeros_as)
{
    MiQuant        *q = &r->q;
    const MiWeight *scales = companion(r, "scales"), *zeros = companion(r, "qzeros");
    const int64_t   size = number(config(r, "group_size")), per = 32 / q->bits;

    if (size < -1 || size == 0)
        return fail(r, "group_size is '%.20s'; -1 and more than 0 are possible", config(r, "group_size"));
    q->group_in = size == -1 || size > q->in ? q->in : size;
    q->n_groups = rounded_up(q->in, q->group_in);
    q->group_out = 1;
    if (q->out % per)
        return fail(r, "%" G_GINT64_FORMAT " rows are no multiple of %d", q->out, (int)per);
    if (!set_scales(r, scales))
        return false;
    if (scales->ndim != 2 || scales->shape[0] != q->n_groups || scales->shape[1] != q->out)
        return fail(r, "scales are [%" G_GINT64_FORMAT ", %" G_GINT64_FORMAT "]; [%" G_GINT64_FORMAT ", %" G_GINT64_FORMAT
                    "] is needed for groups of %" G_GINT64_FORMAT, scales->shape[0], scales->ndim > 1 ? scales->shape[1] : 1,
                    q->n_groups, q->out, q->group_in);
    q->scale_row = 1;
    q->scale_group = q->out;
    if (!check_words(r, zeros, "qzeros", q->n_groups, q->out / per))
        return false;
    q->zeros_as = zeros_as;
    q->zeros = zeros->data;
    return true;
}

static bool read_gptq(Reader *r)
{
    const MiWeight *w = r->codes, *order = companion(r, "g_idx");
    MiQuant        *q = &r->q;
    const char     *form = config(r, "checkpoint_format"), *bits = config(r, "bits"), *act = config(r, "desc_act");

    if (!form)
        form = "gptq";
    if (strcmp(form, "gptq") != 0 && strcmp(form, "gptq_v2") != 0)
        return fail(r, "checkpoint_format is '%.20s'; gptq and gptq_v2 are read", form);
    q->bits = (int32_t)number(bits);
    if (q->bits != 4 && q->bits != 8)
        return fail(r, "GPTQ of %.20s bits; 4 and 8 are read", bits ? bits : "no said number of");
    if (!is_words(w) || w->ndim != 2)
        return fail(r, "qweight is %s of %d dimensions; i32 of 2 is needed", w->format, w->ndim);
    q->codes_as = MI_CODES_ACROSS;
    q->in = w->shape[0] * (32 / q->bits);
    q->out = w->shape[1];
    q->zero = strcmp(form, "gptq") == 0;
    if (!set_turned(r, MI_ZEROS_ALONG))
        return false;
    if (order)
        return set_groups(r, order);
    if (act && strcmp(act, "true") == 0 && q->n_groups > 1)
        return fail(r, "desc_act is true and there is no g_idx");
    return true;
}

static bool read_awq(Reader *r)
{
    const MiWeight *w = r->codes;
    MiQuant        *q = &r->q;
    const char     *version = config(r, "version"), *bits = config(r, "bits");

    if (!version && !(version = config(r, "checkpoint_format")))
        version = "gemm";
    if (g_ascii_strcasecmp(version, "gemm") != 0)
        return fail(r, "AWQ's version is '%.20s'; gemm is read", version);
    if (number(bits ? bits : (bits = config(r, "w_bit"))) != 4)
        return fail(r, "AWQ of %.20s bits; 4 is read", bits ? bits : "no said number of");
    if (!is_words(w) || w->ndim != 2)
        return fail(r, "qweight is %s of %d dimensions; i32 of 2 is needed", w->format, w->ndim);
    *q = (MiQuant){ .codes_as = MI_CODES_AWQ, .bits = 4, .in = w->shape[0], .out = w->shape[1] * 8 };
    return set_turned(r, MI_ZEROS_AWQ);
}

/* ---- compressed-tensors, FP8 -------------------------------------------------- */

/* A size in columns that gives so many groups: that of the blocks, or of one of the configuration's groups. */
static int64_t group_size(const Reader *r, int64_t n)
{
    static const char *const ends[] = { ".weights.group_size", ".weights.block_structure.1", CONFIG "weight_block_size.1" };

    for (size_t i = 0; i < r->meta->n; i++)
        for (size_t k = 0; k < G_N_ELEMENTS(ends); k++) {
            const int64_t size = g_str_has_suffix(r->meta->at[i].key, ends[k]) ? number(r->meta->at[i].value) : 0;
            if (size > 0 && rounded_up(r->q.in, size) == n)
                return size;
        }
    return 0;
}

static int64_t group_rows(const Reader *r, int64_t n)
{
    static const char *const ends[] = { ".weights.block_structure.0", CONFIG "weight_block_size.0" };

    for (size_t i = 0; i < r->meta->n; i++)
        for (size_t k = 0; k < G_N_ELEMENTS(ends); k++) {
            const int64_t size = g_str_has_suffix(r->meta->at[i].key, ends[k]) ? number(r->meta->at[i].value) : 0;
            if (size > 0 && rounded_up(r->q.out, size) == n)
                return size;
        }
    return 0;
}

/* Scales of the matrix: [1]; of rows: [out] or [out][1]; of groups: [out][n]; of blocks: [m][n]. */
static bool set_blocks(Reader *r, const MiWeight *w)
{
    MiQuant *q = &r->q;

    if (!set_scales(r, w))
        return false;
    const int64_t rows = w->shape[0], columns = w->ndim > 1 ? w->shape[1] : 1;
    q->group_out = rows == q->out ? 1 : rows == 1 ? q->out : group_rows(r, rows);
    q->group_in = columns == 1 ? q->in : group_size(r, columns);
    if (w->ndim > 2 || !q->group_out || !q->group_in)
        return fail(r, "scales are %d-dimensional, [%" G_GINT64_FORMAT ", %" G_GINT64_FORMAT "], which fits no group or block "
                    "that the configuration has for [%" G_GINT64_FORMAT ", %" G_GINT64_FORMAT "]", w->ndim, rows, columns,
                    q->out, q->in);
    q->n_groups = columns;
    q->scale_row = columns;
    q->scale_group = 1;
    return true;
}

/* Zeros as words, or as bytes of the scales' shape. */
static bool set_zeros(Reader *r, const MiWeight *scales)
{
    const MiWeight *w = companion(r, "weight_zero_point");
    MiQuant        *q = &r->q;
    const bool      packed = q->codes_as == MI_CODES_ALONG;

    q->zero = packed ? 1 << (q->bits - 1) : 0;
    if (!w)
        return true;
    q->zeros = w->data;
    if (packed && is_words(w)) {
        q->zeros_as = MI_ZEROS_DOWN;
        q->zero = 0;
        if (q->group_out != 1)
            return fail(r, "zero points of rows beside scales that are not");
        return check_words(r, w, "zero points", rounded_up(q->out, 32 / q->bits), q->n_groups);
    }
    q->zeros_as = MI_ZEROS_I8;
    const size_t n = scales->bytes / mi_dtype_size(q->scale_dtype);
    if (q->codes_as == MI_CODES_F8) {
        for (size_t i = 0; i < w->bytes; i++)
            if (((const uint8_t *)w->data)[i] != 0)
                return fail(r, "FP8 with zero points");
        q->zeros_as = MI_ZEROS_NONE;
        q->zeros = NULL;
    } else if (strcmp(w->format, "i8") != 0 || w->bytes != n) {
        return fail(r, "%zu zero points of %s beside %zu scales", w->bytes, w->format, n);
    }
    return true;
}

/* One of the configuration's groups says so many bits. */
static bool says_bits(const Reader *r, int32_t bits)
{
    for (size_t i = 0; i < r->meta->n; i++)
        if (g_str_has_prefix(r->meta->at[i].key, CONFIG "config_groups.") &&
            g_str_has_suffix(r->meta->at[i].key, ".weights.num_bits") && number(r->meta->at[i].value) == bits)
            return true;
    return false;
}

static bool read_packed(Reader *r)
{
    const MiWeight *w = r->codes, *shape = companion(r, "weight_shape"), *scales = companion(r, "weight_scale");
    MiQuant        *q = &r->q;
    int64_t         out_in[2];

    if (!is_words(w) || w->ndim != 2 || !shape || strcmp(shape->format, "i64") != 0 || shape->bytes != sizeof out_in)
        return fail(r, "weight_packed of i32, 2 dimensions, and weight_shape of i64, 2 numbers, are needed");
    memcpy(out_in, shape->data, sizeof out_in);
    if (out_in[0] != w->shape[0] || out_in[1] < 1 || out_in[1] > w->shape[1] * 32)
        return fail(r, "weight_shape is [%" G_GINT64_FORMAT ", %" G_GINT64_FORMAT "] for words of [%" G_GINT64_FORMAT ", %"
                    G_GINT64_FORMAT "]", out_in[0], out_in[1], w->shape[0], w->shape[1]);
    q->codes_as = MI_CODES_ALONG;
    q->out = out_in[0];
    q->in = out_in[1];
    for (int32_t bits = 4; bits <= 8; bits += 4)
        if (!q->bits && says_bits(r, bits) && rounded_up(q->in, 32 / bits) == w->shape[1])
            q->bits = bits;
    if (!q->bits)
        return fail(r, "%" G_GINT64_FORMAT " words for a row of %" G_GINT64_FORMAT ", which is not 4 and not 8 bits of any of the "
                    "configuration's groups; those are read", w->shape[1], q->in);
    if (!set_blocks(r, scales) || !set_zeros(r, scales))
        return false;
    const MiWeight *order = companion(r, "weight_g_idx");
    return !order || set_groups(r, order);
}

static bool read_bytes(Reader *r)
{
    const MiWeight *w = r->codes, *scales = companion(r, "weight_scale");

    if (!scales)
        scales = companion(r, "weight_scale_inv");
    if (w->ndim != 2)
        return fail(r, "its weight has %d dimensions; 2 are needed", w->ndim);
    r->q = (MiQuant){ .codes_as = strcmp(w->format, "i8") == 0 ? MI_CODES_I8 : MI_CODES_F8, .bits = 8, .out = w->shape[0],
                      .in = w->shape[1] };
    return set_blocks(r, scales) && set_zeros(r, scales);
}

/* ---- the whole ---------------------------------------------------------------- */

static bool read_method(Reader *r)
{
    static const struct { const char *name; Method method; } methods[] = {
        { "gptq", METHOD_GPTQ }, { "awq", METHOD_AWQ }, { "compressed-tensors", METHOD_TENSORS }, { "fp8", METHOD_FP8 },
        { "fbgemm_fp8", METHOD_FP8 },
    };
    static const char *const forms[] = { "pack-quantized", "int-quantized", "float-quantized", "naive-quantized",
                                         "mixed-precision", "dense", NULL };
    const char *name = config(r, "quant_method"), *form = config(r, "format"), *sparse = config(r, "sparsity_config.format");

    if (!name) /* AutoGPTQ's file of its own, or none */
        name = config(r, "bits") && config(r, "desc_act") ? "gptq" : NULL;
    if (!name)
        return true;
    for (size_t i = 0; i < G_N_ELEMENTS(methods); i++)
        if (g_ascii_strcasecmp(methods[i].name, name) == 0)
            r->method = methods[i].method;
    if (!r->method)
        return fail(r, "quantization_config.quant_method is '%.40s'; gptq, awq, compressed-tensors and fp8 are read", name);
    if (r->method == METHOD_TENSORS && form && !g_strv_contains(forms, form))
        return fail(r, "quantization_config.format is '%.40s'; pack-quantized, int-quantized and float-quantized are read", form);
    if (r->method == METHOD_TENSORS && sparse && strcmp(sparse, "dense") != 0)
        return fail(r, "quantization_config.sparsity_config.format is '%.40s'; only dense is read", sparse);
    return true;
}

/* What the i-th tensor ends with if it is the codes of a matrix; NULL: it is not. */
static const char *codes_suffix(Reader *r, MiWeight *w)
{
    static const char *const suffixes[] = { ".qweight", ".weight_packed", ".weight" };
    const size_t             n = strlen(w->name);
    const size_t             from = r->method == METHOD_GPTQ || r->method == METHOD_AWQ ? 0 : 1;

    for (size_t i = from; i < (from ? 3 : 1); i++) {
        const size_t len = strlen(suffixes[i]);
        if (n <= len || strcmp(w->name + n - len, suffixes[i]) != 0)
            continue;
        memcpy(r->base, w->name, n - len);
        r->base[n - len] = '\0';
        if (i < 2 || ((strcmp(w->format, "f8_e4m3") == 0 || strcmp(w->format, "i8") == 0) &&
                      (companion(r, "weight_scale") || companion(r, "weight_scale_inv"))))
            return suffixes[i];
    }
    return NULL;
}

static void mark_companions(const Reader *r)
{
    static const char *const names[] = { "scales", "qzeros", "g_idx", "weight_scale", "weight_scale_inv", "weight_zero_point",
                                         "weight_g_idx", "weight_shape", "input_scale", "input_zero_point" };

    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        MiWeight *w = companion(r, names[i]);
        if (w)
            w->companion = true;
    }
}

/* By what has a scale: the matrix or a row; 128 x 128; anything else. */
static const char *format_of_f8(const MiQuant *q)
{
    return q->n_groups == 1 && (q->group_out == 1 || q->group_out == q->out) ? "fp8"
           : q->group_in == 128 && q->group_out == 128                        ? "fp8_blocks"
                                                                              : "fp8_groups";
}

static const char *format_name(const Reader *r)
{
    return r->method == METHOD_GPTQ             ? "gptq"
           : r->method == METHOD_AWQ            ? "awq"
           : r->q.codes_as == MI_CODES_F8       ? format_of_f8(&r->q)
           : r->q.bits == 4                     ? "ct_int4"
                                                : "ct_int8";
}

static bool read_one(Reader *r, const char *suffix, MiQuants *all)
{
    MiWeight *w = r->codes;

    r->q = (MiQuant){ .codes = NULL };
    if (!(r->method == METHOD_GPTQ             ? read_gptq(r)
          : r->method == METHOD_AWQ            ? read_awq(r)
          : strcmp(suffix, ".weight") == 0     ? read_bytes(r)
                                               : read_packed(r))) {
        g_free((int32_t *)(uintptr_t)r->q.group_of);
        return false;
    }
    r->q.codes = w->data;
    mark_companions(r);
    w->format = format_name(r);
    w->ndim = 2;
    w->shape[0] = r->q.out;
    w->shape[1] = r->q.in;
    all->at[all->n] = r->q;
    w->quant = &all->at[all->n++];
    return true;
}

/* The new name is no longer than the old: qweight and weight_packed are longer than weight. */
static void rename_codes(MiWeights *weights)
{
    for (size_t i = 0; i < weights->n; i++) {
        char *name = (char *)(uintptr_t)weights->at[i].name;
        if (weights->at[i].quant)
            strcpy(strrchr(name, '.'), ".weight");
    }
}

bool mi_quants_read(MiQuants *all, MiWeights *weights, const MiMeta *meta, const char *path, GError **error)
{
    Reader r = { .weights = weights, .meta = meta, .path = path, .error = error };
    bool   ok = read_method(&r);

    if (!ok || !r.method)
        return ok;
    if (!(all->at = g_try_new0(MiQuant, weights->n + 1))) {
        g_set_error(error, MI_ERROR, MI_ERROR_NO_MEMORY, "%s: no memory for its tables", path);
        return false;
    }
    for (size_t i = 0; ok && i < weights->n; i++) {
        const char *suffix = codes_suffix(&r, &weights->at[i]);
        r.codes = &weights->at[i];
        ok = !suffix || read_one(&r, suffix, all);
    }
    if (!ok)
        return false;
    rename_codes(weights);
    g_clear_pointer(&weights->sorted, g_free);
    return mi_weights_sort(weights, path, error);
}

void mi_quants_free(MiQuants *all)
{
    for (size_t i = 0; i < all->n; i++)
        g_free((int32_t *)(uintptr_t)all->at[i].group_of);
    g_free(all->at);
}
