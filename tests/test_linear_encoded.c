/* test_linear_encoded.c - linear:int8 and linear:int4 on every instruction set of this machine.
 *
 * What was packed is read back by the layout that panels.h describes, one number at a time; y is then
 * compared with sums in f64 of those weights, and the weights with the ones that were asked for. */
#include "linear.h"

#include <cpu/encode.h>

typedef struct { const char *group, *activations, *scales, *isa; bool symmetric; } Int8;        /* options of the plugins */
typedef struct { const char *group, *activations, *scales, *isa; bool symmetric; } Int4;

typedef struct { const char *linear; const void *options; int group; bool symmetric; const char *activations; } Case;

/* ---- reading back ----------------------------------------------------------- */

static float f16_at(const uint8_t *p)
{
    uint16_t h;
    memcpy(&h, p, 2);
    return mi_f16_to_f32(h);
}
static float f32_at(const uint8_t *p)
{
    float v;
    memcpy(&v, p, 4);
    return v;
}

/* Element [o][k] of an operand; bits: 4 or 8; group: columns, 0: a row. */
static float weight_at(const MiOperand *w, int bits, int group, bool symmetric, int64_t o, int64_t k)
{
    const int64_t  blocks = (w->tensor.shape[1] + 31) / 32, r = o % 32, b = k / 32, per_group = group ? group / 32 : blocks;
    const int      head = (group ? 64 : 128) * (symmetric ? 1 : 2), plane = 64, planes = 4 * bits * 32;
    const int64_t  groups = (blocks + per_group - 1) / per_group, j = k % 32;
    const uint8_t *panel = (const uint8_t *)w->tensor.data + o / 32 * (groups * head + blocks * planes);
    const uint8_t *scales = panel + b / per_group * (head + per_group * planes);
    const uint8_t *block = scales + head + b % per_group * planes + r / 16 * (planes / 2) + r % 16 * 4 + j % 4;
    const int      q = bits == 8 ? block[j / 4 * plane] : block[j / 4 % 4 * plane] >> j / 16 * 4 & 15;
    const float    d = group ? f16_at(scales + 2 * r) : f32_at(scales + 4 * r);
    const float    m = symmetric ? 0 : group ? f16_at(scales + 64 + 2 * r) : f32_at(scales + 128 + 4 * r);

    return d * (float)(q - (bits == 8 ? 128 : symmetric ? 8 : 0)) + m;
}

/* ---- how far it may be off --------------------------------------------------- */

/* Rounding of x: half a step of max / 127 of 32 columns or of the row, or of max / 16256 of 32 columns, and f32 sums. */
static double allowed(const float *x, const float *w, int64_t in, const char *activations)
{
    const bool   by_row = strcmp(activations, "int8") == 0;
    const double steps = strcmp(activations, "none") == 0 ? 16256 : 127;
    double       sum = 0;

    for (int64_t b = 0; b < in; b += by_row ? in : 32) {
        const int64_t end = by_row ? in : MIN(in, b + 32);
        float         max = 0;
        for (int64_t k = b; k < end; k++)
            max = MAX(max, fabsf(x[k]));
        for (int64_t k = b; k < end; k++)
            sum += fabs((double)w[k]) * (0.5001 * (double)max / steps + 1e-6 * (double)max);
    }
    return sum + 1e-9;
}

typedef struct { double worst, mean; } Miss;

static Miss compare(const float *y, const float *x, const float *w, const float *bias, int64_t rows, int64_t out, int64_t in,
                    const char *activations)
{
    Miss m = { 0, 0 };
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t o = 0; o < out; o++) {
            double sum = (double)bias[o];
            for (int64_t k = 0; k < in; k++)
                sum += (double)x[r * in + k] * (double)w[o * in + k];
            const double miss = fabs(sum - (double)y[r * out + o]) / allowed(x + r * in, w + o * in, in, activations);
            m.worst = MAX(m.worst, miss);
            m.mean += miss / (double)(rows * out);
        }
    }
    return m;
}

static void run_by(const Packed *p, const float *x, int64_t n, int64_t rows, float *y, float *bias)
{
    const int64_t in = p->operand[0].tensor.shape[1], out = p->operand[0].tensor.shape[0];
    Bound         b;

    for (int64_t r = 0; r < n; r += rows) {
        float *to = y + r * out;
        test_bind(&b, p, x + r * in, MIN(rows, n - r), &to, &bias);
        test_run(&b, p);
        test_unbind(&b, p);
    }
}

/* ---- the products ------------------------------------------------------------ */

/* Of one case and shape: against f64, and bit by bit on every instruction set, count of rows and threads. */
static void check(const MiLinear *vt, const Case *c, void *options, const char **isa_option, const char *format, int64_t out,
                  int64_t in, int64_t n)
{
    static const int64_t counts[] = { 1, 2, 3, 5, 17, 64, 129 };
    const int            bits = strcmp(c->linear, "int8") == 0 ? 8 : 4;
    g_autofree float    *x = test_floats(n * in, 5), *bias = test_floats(out, 6), *w = g_new(float, out * in);
    g_autofree float    *y = g_new0(float, n * out), *first = g_new(float, n * out);
    const MiWeight       stored = test_weight(format, out, in, 7 + (uint64_t)in);
    bool                 have_first = false;
    Device               d;

    memset(x + 3 * in, 0, (size_t)in * sizeof *x); /* a row of nothing */
    for (const char *const *isa = mi_panel_isas(); *isa; isa++) {
        MiContext ctx = test_context(&d, 2);
        Packed    p;

        if (!mi_panel_kernel("int8_row", *isa, MI_X_BLOCK))
            continue;
        *isa_option = *isa;
        p = test_pack(vt, &ctx, &stored, 1, options);
        for (int64_t o = 0; o < out; o++)
            for (int64_t k = 0; k < in; k++)
                w[o * in + k] = weight_at(&p.operand[0], bits, c->group, c->symmetric, o, k);
        for (size_t i = 0; i < G_N_ELEMENTS(counts) && counts[i] <= MAX(1, n); i++) {
            ctx = test_context(&d, (int)(i % 4));
            run_by(&p, x, n, counts[i], y, bias);
            if (!have_first) {
                const Miss m = compare(y, x, w, bias, n, out, in, c->activations);
                if (!(m.worst <= 1) || !(m.mean > 1e-5))
                    fail_msg("%s group %d %s, x by %s, %s %dx%d on %s is %g of the allowed rounding off, %g in the mean", c->linear,
                             c->group, c->symmetric ? "symmetric" : "asymmetric", c->activations, format, (int)out, (int)in, *isa,
                             m.worst, m.mean);
                memcpy(first, y, (size_t)(n * out) * sizeof *y);
            }
            have_first = true;
            if (memcmp(first, y, (size_t)(n * out) * sizeof *y) != 0)
                fail_msg("%s group %d %s, x by %s, %dx%d on %s differs when %d rows share a call", c->linear, c->group,
                         c->symmetric ? "symmetric" : "asymmetric", c->activations, (int)out, (int)in, *isa, (int)counts[i]);
            memset(y, 0, (size_t)(n * out) * sizeof *y);
        }
        free(p.memory);
    }
    g_free((void *)(uintptr_t)stored.data);
}

static const char *const activations[] = { "block", "int8", "none" };
/* Whole panels and groups, and nothing of the sort. */
static const struct { const char *format; int64_t out, in, rows; } shapes[] = {
    { "bf16", 75, 512, 129 }, { "f32", 33, 203, 66 }, { "f16", 1, 31, 9 },     { "bf16", 64, 160, 5 },
    { "f32", 31, 129, 65 },   { "q4_1", 40, 96, 4 },  { "q6_k", 35, 768, 17 }, { "f32", 3, 4864, 4 },
};

static void int8_is_the_sum_of_its_products(void **state)
{
    MiRegistry     *r = load(NULL);
    const MiLinear *vt = test_linear(r, "int8");

    (void)state;
    for (size_t a = 0; a < G_N_ELEMENTS(activations); a++)
        for (int s = 0; s < 2; s++)
            for (size_t i = 0; i < G_N_ELEMENTS(shapes); i++)
                for (int g = 0; g < 4; g++) {
                    Int8       o = { (const char *[]){ "row", "128", "64", "32" }[g], activations[a], i % 2 ? "fit" : "range", NULL, s == 0 };
                    const Case c = { "int8", &o, (const int[]){ 0, 128, 64, 32 }[g], s == 0, activations[a] };
                    check(vt, &c, &o, &o.isa, shapes[i].format, shapes[i].out, shapes[i].in, shapes[i].rows);
                }
    mi_registry_free(r);
}

static void int4_is_the_sum_of_its_products(void **state)
{
    static const int groups[] = { 32, 64, 128 };
    MiRegistry      *r = load(NULL);
    const MiLinear  *vt = test_linear(r, "int4");

    (void)state;
    for (size_t g = 0; g < G_N_ELEMENTS(groups); g++)
        for (size_t a = 0; a < G_N_ELEMENTS(activations); a++)
            for (int s = 0; s < 2; s++)
                for (size_t i = 0; i < G_N_ELEMENTS(shapes); i++) {
                    char       name[8];
                    Int4       o = { name, activations[a], i % 2 ? "fit" : "range", NULL, s == 0 };
                    const Case c = { "int4", &o, groups[g], s == 0, activations[a] };
                    g_snprintf(name, sizeof name, "%d", groups[g]);
                    check(vt, &c, &o, &o.isa, shapes[i].format, shapes[i].out, shapes[i].in, shapes[i].rows);
                }
    mi_registry_free(r);
}

/* ---- the weights ------------------------------------------------------------- */

/* Sum of (w - w')^2 weighted by w^2 plus its mean, over groups, as encode.h says; in f64. */
static double loss(const float *w, const float *packed, int64_t n, int64_t group)
{
    double all = 0;
    for (int64_t k = 0; k < n; k += group) {
        double mean = 0;
        for (int64_t i = k; i < MIN(n, k + group); i++)
            mean += (double)w[i] * (double)w[i] / (double)(MIN(n, k + group) - k);
        for (int64_t i = k; i < MIN(n, k + group); i++) {
            const double miss = (double)w[i] - (double)packed[i];
            all += miss * miss * (mean + (double)w[i] * (double)w[i]);
        }
    }
    return all;
}

/* Packs w [out, in] as int4 and reads it back; into `packed`. */
static double packed_loss(const MiLinear *vt, const float *w, int64_t out, int64_t in, bool symmetric, const char *scales,
                          float *packed)
{
    const MiWeight stored = { .name = "w", .format = "f32", .ndim = 2, .shape = { out, in }, .data = w,
                              .bytes = (size_t)(out * in) * sizeof *w };
    double         sum = 0;
    Device         d;
    MiContext      ctx = test_context(&d, 2);
    Packed         p = test_pack(vt, &ctx, &stored, 1, &(Int4){ "64", "auto", scales, "auto", symmetric });

    for (int64_t o = 0; o < out; o++) {
        for (int64_t k = 0; k < in; k++)
            packed[o * in + k] = weight_at(&p.operand[0], 4, 64, symmetric, o, k);
        sum += loss(w + o * in, packed + o * in, in, 64);
    }
    free(p.memory);
    return sum;
}

/* Bell-shaped, as weights are, about `centre`, every 97th twice as large. */
static float *weights(int64_t n, float centre)
{
    float   *w = g_new(float, n);
    uint64_t seed = 3;

    for (int64_t i = 0; i < n; i++) {
        w[i] = centre;
        for (int k = 0; k < 6; k++)
            w[i] += test_uniform(&seed) * (i % 97 ? 0.02f : 0.04f);
    }
    return w;
}

static void fitted_scales_lose_less(void **state)
{
    const int64_t   out = 40, in = 256;
    MiRegistry     *r = load(NULL);
    const MiLinear *vt = test_linear(r, "int4");

    (void)state;
    for (int shifted = 0; shifted < 2; shifted++) {
        g_autofree float *w = weights(out * in, shifted ? 0.05f : 0), *packed = g_new(float, out * in);
        const double      range = packed_loss(vt, w, out, in, true, "range", packed);
        const double      fit = packed_loss(vt, w, out, in, true, "fit", packed);
        const double      zero = packed_loss(vt, w, out, in, false, "fit", packed);

        assert_true(fit < 0.97 * range);
        assert_true(zero <= fit * 1.0001 && (!shifted || zero < 0.8 * fit));
    }
    mi_registry_free(r);
}

/* The largest value of a group is exact by range, nothing is further off than a step allows, and zero stays zero. */
static void range_and_zero_are_kept(void **state)
{
    const int64_t     out = 33, in = 160;
    MiRegistry       *r = load(NULL);
    const MiLinear   *vt = test_linear(r, "int4");
    g_autofree float *w = weights(out * in, 0), *packed = g_new(float, out * in);

    (void)state;
    for (int64_t i = 0; i < out * in; i += 3)
        w[i] = 0;
    memset(w + 5 * in, 0, (size_t)in * sizeof *w); /* a row of nothing */
    for (int symmetric = 0; symmetric < 2; symmetric++) {
        packed_loss(vt, w, out, in, symmetric, "range", packed);
        for (int64_t g = 0; g < out * in; g += (g + 64) % in == 32 ? 32 : 64) {
            const int64_t n = g % in + 64 > in ? in - g % in : 64;
            float         max = 0;
            for (int64_t i = g; i < g + n; i++)
                max = MAX(max, fabsf(w[i]));
            for (int64_t i = g; i < g + n; i++) {
                if (!w[i])
                    assert_true(fabsf(packed[i]) <= 1e-3f * max);
                if (symmetric && fabsf(w[i]) == max && max > 0)
                    assert_true(fabsf(packed[i] - w[i]) <= 1e-3f * max);
                assert_true(fabsf(packed[i] - w[i]) <= max / (symmetric ? 7.9f : 7.4f));
            }
        }
    }
    mi_registry_free(r);
}

static void refused(const MiLinear *vt, const MiWeight *w, int n, const void *options, const char *word)
{
    GError *error = NULL;
    size_t  bytes;

    assert_false(vt->bytes(w, n, MI_F32, options, &bytes, &error));
    if (!strstr(error->message, word))
        fail_msg("'%s' does not say '%s'", error->message, word);
    g_clear_error(&error);
}

static void refuses_what_does_not_fit(void **state)
{
    MiRegistry     *r = load(NULL);
    const MiLinear *vt = test_linear(r, "int8"), *int4 = test_linear(r, "int4");
    GError         *error = NULL;
    MiWeight        w[2] = { test_weight("f32", 4, 64, 1), test_weight("q8_0", 4, 32, 1) };
    float          *v = (float *)(uintptr_t)w[0].data;
    Device          d;
    MiContext       ctx = test_context(&d, 1);
    MiOperand       operand;
    char            memory[8192];

    (void)state;
    refused(vt, w, 2, NULL, "not its width");
    refused(vt, w, 1, &(Int8){ "row", "auto", "fit", "mmx", true }, "[linear.int8] isa = mmx");
    refused(int4, w, 1, &(Int4){ "64", "auto", "fit", "mmx", true }, "[linear.int4] isa = mmx");
    w[1].shape[1] = 31;
    refused(vt, &w[1], 1, NULL, "multiple of 32");
    w[1].shape[1] = 32, w[1].bytes--;
    refused(vt, &w[1], 1, NULL, "its shape needs more");
    w[1].format = "gptq";
    refused(vt, &w[1], 1, NULL, "'gptq'");
    w[0].shape[0] = INT64_MAX;
    refused(vt, w, 1, NULL, "f32");
    w[0].shape[0] = 4;
    for (int i = 0; i < 3; i++) {
        v[70] = i == 0 ? NAN : i == 1 ? -INFINITY : 3e38f; /* the last: a scale beyond half precision */
        assert_false(int4->pack(&ctx, w, 1, NULL, memory, &operand, &error));
        assert_non_null(strstr(error->message, "not finite"));
        g_clear_error(&error);
    }
    for (int i = 0; i < 2; i++)
        g_free((void *)(uintptr_t)w[i].data);
    mi_registry_free(r);
}

TEST_MAIN(cmocka_unit_test(int8_is_the_sum_of_its_products), cmocka_unit_test(int4_is_the_sum_of_its_products),
          cmocka_unit_test(fitted_scales_lose_less), cmocka_unit_test(range_and_zero_are_kept),
          cmocka_unit_test(refuses_what_does_not_fit));
