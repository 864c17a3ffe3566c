/* test_linear_encoded.c - linear:int8 and linear:int4 on every instruction set of this machine.
 *
 * What was packed is read back by the layout that panels.h describes, one number at a time; y is then
 * compared with sums in f64 of those weights, and the weights with the ones that were asked for. */
#include "linear.h"

#include <cpu/encode.h>

typedef struct { const char *group, *activations, *scales, *isa; bool symmetric; } Int8;        /* options of the plugins */
typedef struct { const char *group, *activations, *scales, *head, *isa; bool symmetric; } Int4;

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

/* Rounding of x: half a step of max / 127 of 32 columns or of the row, and f32 sums. */
static double allowed(const float *x, const float *w, int64_t in, bool by_row)
{
    double sum = 0;
    for (int64_t b = 0; b < in; b += by_row ? in : 32) {
        const int64_t end = by_row ? in : MIN(in, b + 32);
        float         max = 0;
        for (int64_t k = b; k < end; k++)
            max = MAX(max, fabsf(x[k]));
        for (int64_t k = b; k < end; k++)
            sum += fabs((double)w[k]) * (0.5001 * (double)max / 127 + 1e-5 * (double)max);
    }
    return sum + 1e-9;
}

typedef struct { double worst, mean; } Miss;

static Miss compare(const float *y, const float *x, const float *w, const float *bias, int64_t rows, int64_t out, int64_t in,
                    bool by_row)
{
    Miss m = { 0, 0 };
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t o = 0; o < out; o++) {
            double sum = (double)bias[o];
            for (int64_t k = 0; k < in; k++)
                sum += (double)x[r * in + k] * (double)w[o * in + k];
            const double miss = fabs(sum - (double)y[r * out + o]) / allowed(x + r * in, w + o * in, in, by_row);
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
    const bool           by_row = strcmp(c->activations, "int8") == 0;
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
                const Miss m = compare(y, x, w, bias, n, out, in, by_row);
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

static const char *const activations[] = { "block", "int8" };
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
                for (int g = 0; g < 2; g++) {
                    Int8       o = { g ? "row" : "128", activations[a], i % 2 ? "fit" : "range", NULL, s == 0 };
                    const Case c = { "int8", &o, g ? 0 : 128, s == 0, activations[a] };
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
                    Int4       o = { name, activations[a], i % 2 ? "fit" : "range", "int8", NULL, s == 0 };
                    const Case c = { "int4", &o, groups[g], s == 0, activations[a] };
                    g_snprintf(name, sizeof name, "%d", groups[g]);
                    check(vt, &c, &o, &o.isa, shapes[i].format, shapes[i].out, shapes[i].in, shapes[i].rows);
                }
    mi_registry_free(r);
}

TEST_MAIN(cmocka_unit_test(int8_is_the_sum_of_its_products), cmocka_unit_test(int4_is_the_sum_of_its_products));
