/* Checkpoints that are quantised already: each layout is written here value by value from codes, scales and zeros, and read
 * back; and what does not fit together is refused. */
#include "formats_common.h"
#include <math.h>

static char *folder;

static int set_up(void **state)
{
    (void)state;
    folder = new_folder();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    remove_folder(folder);
    g_free(folder);
    return 0;
}

/* ---- a file ----------------------------------------------------------------------- */

typedef struct {
    GString    *header;
    GByteArray *data;
} File;

static File file_new(void) { return (File){ g_string_new("{"), g_byte_array_new() }; }

/* Takes `bytes` of data, or so many ones where there is none. */
static void add(File *f, const char *name, const char *dtype, const char *shape, const void *data, size_t bytes)
{
    const guint at = f->data->len;

    g_byte_array_set_size(f->data, at + (guint)bytes);
    if (data)
        memcpy(f->data->data + at, data, bytes);
    else
        memset(f->data->data + at, 1, bytes);
    g_string_append_printf(f->header, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%u,%u]}",
                           f->header->len > 1 ? "," : "", name, dtype, shape, at, f->data->len);
}

static void file_write(File *f, const char *config)
{
    g_autofree char      *text = g_strdup_printf("{\"quantization_config\":{%s}}", config);
    g_autoptr(GByteArray) all = g_byte_array_new();

    g_string_append_c(f->header, '}');
    const uint64_t n = f->header->len;
    g_byte_array_append(all, (const guint8 *)&n, 8);
    g_byte_array_append(all, (const guint8 *)f->header->str, (guint)n);
    g_byte_array_append(all, f->data->data, f->data->len);
    put(folder, "model.safetensors", all->data, all->len);
    put(folder, "config.json", text, strlen(text));
    g_string_free(f->header, TRUE);
    g_byte_array_unref(f->data);
}

/* ---- layouts, value by value -------------------------------------------------------- */

typedef enum { GPTQ, GPTQ_V2, AWQ, CT_PACKED, CT_PACKED_ZEROS, CT_BYTES, CT_BYTES_ZEROS, FP8 } Layout;

typedef struct {
    const char *name, *format, *config;
    Layout      layout;
    int         bits;
    int64_t     out, in, group_in, group_out;
    bool        shuffled;
} Case;

typedef struct {
    const Case *c;
    int64_t     groups, blocks; /* along in, along out */
    int        *codes;          /* [out][in] from 0; FP8: the byte */
    int        *zeros;          /* [out][groups] on the codes' scale */
    float      *scales;         /* [blocks][groups] */
    int32_t    *of;             /* [in] */
} Made;

static int chance(int n)
{
    static uint32_t state = 12345;
    state = state * 1664525u + 1013904223u;
    return (int)((state >> 8) % (uint32_t)n);
}

static void put_value(GByteArray *words, int64_t word, int64_t bit, int value)
{
    for (int i = 0; i < 8; i++)
        if (value >> i & 1)
            words->data[word * 4 + (bit + i) / 8] |= (guint8)(1u << (bit + i) % 8);
}

static GByteArray *zeroed(int64_t bytes)
{
    GByteArray *a = g_byte_array_new();
    g_byte_array_set_size(a, (guint)bytes);
    memset(a->data, 0, (size_t)bytes);
    return a;
}

static void add_array(File *f, const char *name, const char *dtype, int64_t rows, int64_t columns, GByteArray *data)
{
    g_autofree char *shape = columns ? g_strdup_printf("[%d,%d]", (int)rows, (int)columns) : g_strdup_printf("[%d]", (int)rows);
    add(f, name, dtype, shape, data->data, data->len);
    g_byte_array_unref(data);
}

/* Codes of 32-bit words: how they lie is said here once more, as the papers and formats have it. */
static void add_codes(File *f, const Made *m)
{
    static const int awq[8] = { 0, 2, 4, 6, 1, 3, 5, 7 }; /* the column that stands k-th in a word */
    const Case   *c = m->c;
    const int64_t per = 32 / c->bits, out = c->out, in = c->in;
    GByteArray   *a;

    if (c->layout <= GPTQ_V2) {
        a = zeroed(in / per * out * 4);
        for (int64_t i = 0; i < in * out; i++)
            put_value(a, i / out / per * out + i % out, i / out % per * c->bits, m->codes[i % out * in + i / out]);
        add_array(f, "x.qweight", "I32", in / per, out, a);
    } else if (c->layout == AWQ) {
        a = zeroed(in * out / 8 * 4);
        for (int64_t i = 0; i < in; i++)
            for (int64_t w = 0; w < out / 8; w++)
                for (int k = 0; k < 8; k++)
                    put_value(a, i * (out / 8) + w, 4 * k, m->codes[(8 * w + awq[k]) * in + i]);
        add_array(f, "x.qweight", "I32", in, out / 8, a);
    } else if (c->layout <= CT_PACKED_ZEROS) {
        const int64_t words = (in + per - 1) / per, shape[2] = { out, in };
        a = zeroed(out * words * 4);
        for (int64_t i = 0; i < in * out; i++)
            put_value(a, i / in * words + i % in / per, i % in % per * c->bits, m->codes[i]);
        add_array(f, "x.weight_packed", "I32", out, words, a);
        add(f, "x.weight_shape", "I64", "[2]", shape, sizeof shape);
    } else {
        a = zeroed(out * in);
        for (int64_t i = 0; i < in * out; i++)
            a->data[i] = (guint8)(c->layout == FP8 ? m->codes[i] : m->codes[i] - 128);
        add_array(f, "x.weight", c->layout == FP8 ? "F8_E4M3" : "I8", out, in, a);
    }
}

static void add_zeros(File *f, const Made *m)
{
    static const int awq[8] = { 0, 2, 4, 6, 1, 3, 5, 7 };
    const Case   *c = m->c;
    const int64_t per = 32 / c->bits, out = c->out, mask = (1 << c->bits) - 1;
    GByteArray   *a;

    if (c->layout <= AWQ) {
        a = zeroed(m->groups * (out / per) * 4);
        for (int64_t g = 0; g < m->groups; g++)
            for (int64_t w = 0; w < out / per; w++)
                for (int k = 0; k < per; k++) {
                    const int64_t o = per * w + (c->layout == AWQ ? awq[k] : k);
                    const int     z = m->zeros[o * m->groups + g] - (c->layout == GPTQ);
                    put_value(a, g * (out / per) + w, k * c->bits, z & (int)mask);
                }
        add_array(f, "x.qzeros", "I32", m->groups, out / per, a);
    } else if (c->layout == CT_PACKED_ZEROS) {
        const int64_t rows = (out + per - 1) / per;
        a = zeroed(rows * m->groups * 4);
        for (int64_t i = 0; i < out * m->groups; i++)
            put_value(a, i / m->groups / per * m->groups + i % m->groups, i / m->groups % per * c->bits, m->zeros[i]);
        add_array(f, "x.weight_zero_point", "I32", rows, m->groups, a);
    } else if (c->layout == CT_BYTES_ZEROS) {
        a = zeroed(m->blocks * m->groups);
        for (int64_t i = 0; i < m->blocks * m->groups; i++)
            a->data[i] = (guint8)(m->zeros[i / m->groups * c->group_out * m->groups + i % m->groups] - 128);
        add_array(f, "x.weight_zero_point", "I8", m->blocks, m->groups, a);
    }
}

static void add_scales(File *f, const Made *m)
{
    const bool  turned = m->c->layout <= AWQ;
    GByteArray *a = zeroed(m->blocks * m->groups * 4);

    for (int64_t b = 0; b < m->blocks; b++)
        for (int64_t g = 0; g < m->groups; g++)
            memcpy(a->data + 4 * (turned ? g * m->blocks + b : b * m->groups + g), &m->scales[b * m->groups + g], 4);
    if (turned)
        add_array(f, "x.scales", "F32", m->groups, m->blocks, a);
    else
        add_array(f, m->c->layout == FP8 ? "x.weight_scale_inv" : "x.weight_scale", "F32", m->blocks, m->groups, a);
}

static Made make(const Case *c)
{
    const int64_t groups = (c->in + c->group_in - 1) / c->group_in, blocks = (c->out + c->group_out - 1) / c->group_out;
    Made          m = { c, groups, blocks, g_new(int, c->out * c->in), g_new(int, c->out * groups), g_new(float, blocks * groups),
                        g_new(int32_t, c->in) };

    for (int64_t i = 0; i < c->out * c->in; i++) {
        m.codes[i] = chance(1 << c->bits);
        m.codes[i] -= c->layout == FP8 && (m.codes[i] & 127) == 127; /* no NaN */
    }
    for (int64_t i = 0; i < c->out * groups; i++) /* of a block those of its first row; GPTQ's older form has 1 to all ones */
        m.zeros[i] = c->layout == CT_PACKED || c->layout == CT_BYTES ? 1 << (c->bits - 1)
                     : c->layout == GPTQ                             ? 1 + chance((1 << c->bits) - 1)
                     : c->layout == FP8                              ? 0
                                                                     : chance(1 << c->bits);
    for (int64_t i = 0; i < c->out * groups; i++)
        m.zeros[i] = m.zeros[i / groups / c->group_out * c->group_out * groups + i % groups];
    for (int64_t i = 0; i < blocks * groups; i++)
        m.scales[i] = 0.001f * (float)(1 + chance(1000));
    for (int64_t i = 0; i < c->in; i++)
        m.of[i] = (int32_t)(i / c->group_in);
    for (int64_t i = c->in - 1; c->shuffled && i > 0; i--) {
        const int     k = chance((int)i + 1);
        const int32_t x = m.of[i];
        m.of[i] = m.of[k];
        m.of[k] = x;
    }
    return m;
}

static double e4m3(int x)
{
    const int    exponent = x >> 3 & 15, mantissa = x & 7;
    const double v = exponent ? ldexp(8 + mantissa, exponent - 10) : ldexp(mantissa, -9);
    return x & 128 ? -v : v;
}

static float expected(const Made *m, int64_t o, int64_t i)
{
    const int64_t g = m->of[i];
    const int     code = m->codes[o * m->c->in + i];
    const double  q = m->c->layout == FP8 ? e4m3(code) : code - m->zeros[o * m->groups + g];

    return (float)(q * (double)m->scales[o / m->c->group_out * m->groups + g]);
}

static void reads_one(const Case *c)
{
    g_autoptr(GError) error = NULL;
    const MiFormat   *f = format_of("safetensors");
    Made              m = make(c);
    File              file = file_new();
    MiWeight          w, other;

    add(&file, "odd", "I8", "[3]", NULL, 3); /* so that nothing is aligned */
    add_codes(&file, &m);
    add_scales(&file, &m);
    add_zeros(&file, &m);
    if (c->shuffled)
        add(&file, c->layout <= GPTQ_V2 ? "x.g_idx" : "x.weight_g_idx", "I32", "[64]", m.of, (size_t)c->in * 4);
    file_write(&file, c->config);
    void *self = f->open(folder, NULL, &error);
    if (!self)
        fail_msg("%s: %s", c->name, error->message);
    assert_true(f->find(self, "x.weight", &w));
    assert_string_equal(w.format, c->format);
    assert_true(w.ndim == 2 && w.shape[0] == c->out && w.shape[1] == c->in && w.quant && !w.companion);
    assert_false(f->find(self, "x.qweight", &other));
    assert_true(f->find(self, c->layout <= AWQ ? "x.scales" : c->layout == FP8 ? "x.weight_scale_inv" : "x.weight_scale", &other));
    assert_true(other.companion && !other.quant);

    /* The whole, and parts that begin and end within rows. */
    const int64_t     total = c->out * c->in, from[] = { 0, 1, c->in - 1, 3 * c->in + 5, total - 1 },
                      to[] = { total, 2, c->in + 1, 11 * c->in + 2, total };
    g_autofree float *x = g_new(float, total);
    for (size_t k = 0; k < G_N_ELEMENTS(from); k++) {
        if (!f->decode(self, &w, from[k], to[k] - from[k], x, &error))
            fail_msg("%s: %s", c->name, error->message);
        for (int64_t i = from[k]; i < to[k]; i++)
            if (x[i - from[k]] != expected(&m, i / c->in, i % c->in))
                fail_msg("%s: [%d][%d] is %g, not %g", c->name, (int)(i / c->in), (int)(i % c->in), (double)x[i - from[k]],
                         (double)expected(&m, i / c->in, i % c->in));
    }
    assert_false(f->decode(self, &w, total, 1, x, &error));
    f->close(self);
    g_free(m.codes), g_free(m.zeros), g_free(m.scales), g_free(m.of);
}

#define GPTQ_CONFIG(bits, group, form) \
    "\"quant_method\":\"gptq\",\"bits\":" bits ",\"group_size\":" group ",\"checkpoint_format\":\"" form "\""
#define CT_CONFIG(bits, group) \
    "\"quant_method\":\"compressed-tensors\",\"config_groups\":{\"group_0\":{\"weights\":{\"num_bits\":" bits ",\"group_size\":" group "}}}"

static void reads_every_layout(void **state)
{
    static const Case cases[] = {
        { "gptq", "gptq", GPTQ_CONFIG("4", "16", "gptq"), GPTQ, 4, 24, 64, 16, 1, false },
        { "gptq, last group short", "gptq", GPTQ_CONFIG("4", "48", "gptq"), GPTQ, 4, 24, 64, 48, 1, false },
        { "gptq, act order", "gptq", GPTQ_CONFIG("4", "16", "gptq"), GPTQ, 4, 24, 64, 16, 1, true },
        { "gptq, 8 bits", "gptq", GPTQ_CONFIG("8", "-1", "gptq"), GPTQ, 8, 20, 36, 36, 1, false },
        { "gptq v2", "gptq", GPTQ_CONFIG("4", "32", "gptq_v2"), GPTQ_V2, 4, 40, 96, 32, 1, false },
        { "gptq v2, 8 bits, act order", "gptq", GPTQ_CONFIG("8", "16", "gptq_v2"), GPTQ_V2, 8, 20, 64, 16, 1, true },
        { "awq", "awq", "\"quant_method\":\"awq\",\"bits\":4,\"group_size\":20,\"version\":\"GEMM\"", AWQ, 4, 24, 61, 20, 1, false },
        { "packed", "ct_int4", CT_CONFIG("4", "16"), CT_PACKED, 4, 21, 61, 16, 1, false },
        { "packed, act order", "ct_int4", CT_CONFIG("4", "16"), CT_PACKED, 4, 21, 64, 16, 1, true },
        { "packed, zeros", "ct_int4", CT_CONFIG("4", "16"), CT_PACKED_ZEROS, 4, 21, 61, 16, 1, false },
        { "packed, 8 bits, zeros", "ct_int8", CT_CONFIG("8", "null"), CT_PACKED_ZEROS, 8, 21, 61, 61, 1, false },
        { "packed, of the matrix", "ct_int8", CT_CONFIG("8", "null"), CT_PACKED, 8, 21, 61, 61, 21, false },
        { "bytes", "ct_int8", CT_CONFIG("8", "null"), CT_BYTES, 8, 13, 37, 37, 1, false },
        { "bytes, zeros", "ct_int8", CT_CONFIG("8", "null"), CT_BYTES_ZEROS, 8, 13, 37, 37, 1, false },
        { "bytes, groups, zeros", "ct_int8", CT_CONFIG("8", "10"), CT_BYTES_ZEROS, 8, 13, 37, 10, 1, false },
        { "bytes, of the matrix, zeros", "ct_int8", CT_CONFIG("8", "null"), CT_BYTES_ZEROS, 8, 13, 37, 37, 13, false },
        { "fp8, blocks", "fp8_groups", "\"quant_method\":\"fp8\",\"weight_block_size\":[16,24]", FP8, 8, 41, 61, 24, 16, false },
        { "fp8, of the matrix", "fp8", "\"quant_method\":\"fp8\"", FP8, 8, 13, 37, 37, 13, false },
        { "fp8, rows", "fp8", "\"quant_method\":\"fp8\"", FP8, 8, 13, 37, 37, 1, false },
    };

    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++)
        reads_one(&cases[i]);
}

/* ---- what is refused ------------------------------------------------------------------ */

typedef struct {
    const char *config;
    struct { const char *name, *dtype, *shape; size_t bytes; } tensors[6];
    const char *words;
} Bad;

#define QWEIGHT { "x.qweight", "I32", "[2,8]", 64 }
#define QZEROS  { "x.qzeros", "I32", "[1,1]", 4 }
#define SCALES  { "x.scales", "F16", "[1,8]", 16 }
#define PACKED  { "x.weight_packed", "I32", "[4,2]", 32 }
#define SCALE   { "x.weight_scale", "F16", "[4,1]", 8 }
#define G16     GPTQ_CONFIG("4", "16", "gptq")

static void refuses_what_does_not_fit(void **state)
{
    static const Bad bad[] = {
        { "\"quant_method\":\"bitsandbytes\"", { QWEIGHT }, "'bitsandbytes'; gptq, awq, compressed-tensors and fp8 are read" },
        { "\"quant_method\":\"a\\nb\"", { QWEIGHT }, "'a?b'; gptq, awq, compressed-tensors and fp8 are read" },
        { GPTQ_CONFIG("3", "16", "gptq"), { QWEIGHT, QZEROS, SCALES }, "GPTQ of 3 bits; 4 and 8 are read" },
        { GPTQ_CONFIG("4", "16", "marlin"), { QWEIGHT, QZEROS, SCALES }, "checkpoint_format is 'marlin'" },
        { GPTQ_CONFIG("4", "0", "gptq"), { QWEIGHT, QZEROS, SCALES }, "group_size is '0'" },
        { GPTQ_CONFIG("4", "-2", "gptq"), { QWEIGHT, QZEROS, SCALES }, "group_size is '-2'" },
        { GPTQ_CONFIG("4", "8", "gptq"), { QWEIGHT, QZEROS, SCALES }, "[2, 8] is needed for groups of 8" },
        { GPTQ_CONFIG("8", "16", "gptq"), { QWEIGHT, QZEROS, SCALES }, "i32 [1, 2] is needed" },
        { G16, { QWEIGHT, SCALES }, "there are no qzeros" },
        { G16, { QWEIGHT, QZEROS }, "it has no scales" },
        { G16, { QWEIGHT, QZEROS, { "x.scales", "I32", "[1,8]", 32 } }, "scales are i32; f32, f16 and bf16" },
        { G16, { QWEIGHT, QZEROS, { "x.scales", "F16", "[8]", 16 } }, "scales are [8, 1]; [1, 8]" },
        { G16, { { "x.qweight", "I32", "[16]", 64 }, QZEROS, SCALES }, "qweight is i32 of 1 dimensions" },
        { G16, { { "x.qweight", "I64", "[2,8]", 128 }, QZEROS, SCALES }, "qweight is i64" },
        { G16, { { "x.qweight", "I32", "[2,9]", 72 }, QZEROS, SCALES }, "9 rows are no multiple of 8" },
        { G16, { QWEIGHT, QZEROS, SCALES, { "x.g_idx", "I32", "[15]", 60 } }, "g_idx is i32 of 15; i32 of 16" },
        { G16, { QWEIGHT, QZEROS, SCALES, { "x.g_idx", "I32", "[16]", 64 } }, "g_idx[0] is 16843009 of 1 groups" },
        { G16, { QWEIGHT, QZEROS, SCALES, { "x.weight", "F16", "[8]", 16 } }, "'x.weight' is there twice" },
        { GPTQ_CONFIG("4", "8", "gptq") ",\"desc_act\":true",
          { QWEIGHT, { "x.qzeros", "I32", "[2,1]", 8 }, { "x.scales", "F16", "[2,8]", 32 } }, "there is no g_idx" },
        { "\"quant_method\":\"awq\",\"bits\":4,\"group_size\":2,\"version\":\"gemv\"", { QWEIGHT }, "version is 'gemv'; gemm" },
        { "\"quant_method\":\"awq\",\"bits\":3,\"group_size\":2", { QWEIGHT }, "AWQ of 3 bits; 4" },
        { CT_CONFIG("4", "null") ",\"format\":\"nvfp4-pack-quantized\"", { PACKED }, "format is 'nvfp4-pack-quantized'" },
        { CT_CONFIG("4", "null") ",\"sparsity_config\":{\"format\":\"sparse-24\"}", { PACKED }, "only dense" },
        { CT_CONFIG("4", "null"), { PACKED, SCALE }, "weight_shape of i64" },
        { CT_CONFIG("4", "null"), { PACKED, SCALE, { "x.weight_shape", "I64", "[2]", 16 } }, "weight_shape is [72340172838076673" },
        { "\"quant_method\":\"fp8\"", { { "x.weight", "F8_E4M3", "[4,4]", 16 }, { "x.weight_scale", "F32", "[2,2]", 16 } },
          "fits no group or block" },
        { "\"quant_method\":\"fp8\",\"weight_block_size\":[1,1]",
          { { "x.weight", "F8_E4M3", "[4,4]", 16 }, { "x.weight_scale_inv", "F32", "[2,2]", 16 } }, "fits no group or block" },
        { "\"quant_method\":\"fp8\"", { { "x.weight", "F8_E4M3", "[16]", 16 }, { "x.weight_scale", "F32", "[1]", 4 } },
          "its weight has 1 dimensions" },
        { "\"quant_method\":\"fp8\"", { { "x.weight", "F8_E4M3", "[4,4]", 16 }, { "x.weight_scale", "F32", "[1]", 4 },
          { "x.weight_zero_point", "I8", "[1]", 1 } }, "FP8 with zero points" },
        { CT_CONFIG("8", "null"), { { "x.weight", "I8", "[4,4]", 16 }, { "x.weight_scale", "F32", "[4]", 16 },
          { "x.weight_zero_point", "I8", "[3]", 3 } }, "3 zero points of i8 beside 4 scales" },
    };
    const MiFormat *f = format_of("safetensors");

    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        File file = file_new();
        for (size_t k = 0; k < G_N_ELEMENTS(bad[i].tensors) && bad[i].tensors[k].name; k++)
            add(&file, bad[i].tensors[k].name, bad[i].tensors[k].dtype, bad[i].tensors[k].shape, NULL, bad[i].tensors[k].bytes);
        file_write(&file, bad[i].config);
        refused(f, folder, bad[i].words);
    }
}

static void refuses_scales_that_are_no_numbers(void **state)
{
    static const float scales[2] = { 1, NAN };
    g_autoptr(GError)  error = NULL;
    const MiFormat    *f = format_of("safetensors");
    File               file = file_new();
    MiWeight           w;
    float              x[8];

    (void)state;
    add(&file, "x.weight", "F8_E4M3", "[2,4]", NULL, 8);
    add(&file, "x.weight_scale", "F32", "[2]", scales, sizeof scales);
    file_write(&file, "\"quant_method\":\"fp8\"");
    void *self = f->open(folder, NULL, &error);
    if (!self)
        fail_msg("%s", error->message);
    assert_true(f->find(self, "x.weight", &w));
    assert_true(f->decode(self, &w, 0, 4, x, &error));
    assert_true(x[3] == (float)e4m3(1));
    assert_false(f->decode(self, &w, 0, 8, x, &error));
    assert_non_null(strstr(error->message, "x.weight: one of its scales is no finite number"));
    f->close(self);
}

/* Older GPTQ has its configuration in a file of its own. */
static void reads_a_file_of_its_own(void **state)
{
    static const char config[] = "{\"bits\":4,\"group_size\":-1,\"desc_act\":false,\"sym\":true}";
    g_autofree char  *path = g_build_filename(folder, "quantize_config.json", NULL);
    g_autoptr(GError) error = NULL;
    const MiFormat   *f = format_of("safetensors");
    File              file = file_new();
    MiWeight          w;

    (void)state;
    add(&file, "x.qweight", "I32", "[2,8]", NULL, 64);
    add(&file, "x.qzeros", "I32", "[1,1]", NULL, 4);
    add(&file, "x.scales", "F16", "[1,8]", NULL, 16);
    file_write(&file, "");
    put(folder, "quantize_config.json", config, strlen(config));
    void *self = f->open(folder, NULL, &error);
    if (!self)
        fail_msg("%s", error->message);
    assert_true(f->find(self, "x.weight", &w) && w.shape[0] == 8 && w.shape[1] == 16);
    assert_string_equal(w.format, "gptq");
    f->close(self);
    g_remove(path);
}

#define ALONE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
TEST_MAIN(ALONE(reads_every_layout), ALONE(refuses_what_does_not_fit), ALONE(refuses_scales_that_are_no_numbers),
          ALONE(reads_a_file_of_its_own));
