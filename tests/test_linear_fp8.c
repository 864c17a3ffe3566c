/* test_linear_fp8.c - linear:fp8 against sums in f64 over what a slow model makes of the weights. */
#include "linear.h"
#include "scaled.h"

typedef struct { const char *scale, *activations; } Options; /* of the plugin */

/* Rows and columns that share a scale. */
static void model(const char *scale, const float *w, int64_t rows, int64_t in, float *out)
{
    const bool    block = strcmp(scale, "block") == 0, channel = strcmp(scale, "channel") == 0;
    const int64_t down = block ? 128 : channel ? 1 : rows, across = block ? 128 : in;

    for (int64_t r0 = 0; r0 < rows; r0 += down)
        for (int64_t c0 = 0; c0 < in; c0 += across) {
            float largest = 0;
            for (int64_t r = r0; r < MIN(r0 + down, rows); r++)
                for (int64_t c = c0; c < MIN(c0 + across, in); c++)
                    largest = fmaxf(largest, fabsf(w[r * in + c]));
            const float by = largest > 0 ? largest / 448 : 1;
            for (int64_t r = r0; r < MIN(r0 + down, rows); r++)
                for (int64_t c = c0; c < MIN(c0 + across, in); c++)
                    out[r * in + c] = (float)(scaled_nearest(MI_F8, (double)(w[r * in + c] / by)) * by);
        }
}

static bool put(MiContext *ctx, void *dst, MiDType dtype, const MiWeight *w, GError **error)
{
    (void)ctx, (void)error;
    assert_int_equal(dtype, MI_F32);
    mi_block_format(w->format)->decode(w->data, dst, w->shape[0] * w->shape[1]);
    return true;
}

/* Odd sizes, rows next to nothing beside large ones, several threads, parts that share an input. */
static void products_are_those_of_the_nearest_numbers(void **state)
{
    static const char *const scales[] = { "channel", "tensor", "block" }, *const stored[] = { "f32", "bf16", "q4_1" };
    const int64_t            in = 288, out[2] = { 203, 37 }, n = 19;
    MiRegistry              *r = load(NULL);
    const MiLinear          *vt = test_linear(r, "fp8");
    g_autofree float        *x = test_floats(n * in, 5), *rounded = g_new(float, n * in), *bias = test_floats(out[0], 6);

    (void)state;
    for (int i = 0; i < 18; i++) {
        const char *scale = scales[i / 3 % 3];
        MiWeight    w[2];
        float      *plain[2], *y[2], *b[2] = { bias, NULL };
        Device      d;
        MiContext   ctx = test_context(&d, i % 4);
        Bound       bound;
        ctx.put = put;
        for (int k = 0; k < 2; k++) {
            w[k] = test_weight(stored[i % 3], out[k], in, 31 + (uint64_t)(i * 2 + k));
            if (i % 3 == 0)
                for (int64_t c = 0; c < in; c++) /* a row of zeros, and a small one */
                    ((float *)(uintptr_t)w[k].data)[c] = 0, ((float *)(uintptr_t)w[k].data)[in + c] *= 1e-4f;
            plain[k] = g_new(float, out[k] * in);
            y[k] = g_new0(float, n * out[k]);
            mi_block_format(stored[i % 3])->decode(w[k].data, plain[k], out[k] * in);
            model(scale, plain[k], out[k], in, plain[k]);
        }
        Packed p = test_pack(vt, &ctx, w, 2, &(Options){ scale, i < 9 ? "none" : "fp8" });
        memcpy(rounded, x, (size_t)(n * in) * sizeof *x);
        for (int64_t row = 0; row < n && i >= 9; row++) /* as a matrix of one row */
            model("tensor", x + row * in, 1, in, rounded + row * in);
        test_bind(&bound, &p, x, n, y, b);
        test_run(&bound, &p);
        for (int k = 0; k < 2; k++)
            for (int64_t row = 0; row < n; row++)
                for (int64_t o = 0; o < out[k]; o++) {
                    double sum = b[k] ? (double)b[k][o] : 0, size = fabs(sum) + 1e-3;
                    for (int64_t c = 0; c < in; c++) {
                        sum += (double)rounded[row * in + c] * (double)plain[k][o * in + c];
                        size += fabs((double)rounded[row * in + c] * (double)plain[k][o * in + c]);
                    }
                    if (!(fabs(sum - (double)y[k][row * out[k] + o]) <= 2e-6 * size))
                        fail_msg("%s, %s, x %s, part %d: row %d out %d: %g, wanted %g", scale, stored[i % 3], i < 9 ? "as it is" : "rounded", k, (int)row, (int)o,
                                 (double)y[k][row * out[k] + o], sum);
                }
        test_unbind(&bound, &p);
        free(p.memory);
        for (int k = 0; k < 2; k++) {
            g_free((void *)(uintptr_t)w[k].data);
            g_free(plain[k]);
            g_free(y[k]);
        }
    }
    mi_registry_free(r);
}

/* What is E4M3 with scales of rows already is multiplied as it is: no code is the largest, so that rounding anew would move them. */
static void stored_numbers_stay(void **state)
{
    const int64_t       in = 96, out = 21, n = 3;
    MiRegistry         *r = load(NULL);
    const MiLinear     *vt = test_linear(r, "fp8");
    g_autofree float   *x = test_floats(n * in, 5), *y = g_new0(float, n * out), *scales = test_floats(out, 9);
    g_autofree uint8_t *codes = g_new(uint8_t, out * in);
    float              *outputs[] = { y }, *no_bias[] = { NULL };
    Device              d;
    MiContext           ctx = test_context(&d, 2);
    Bound               bound;

    (void)state;
    for (int64_t i = 0; i < out * in; i++)
        codes[i] = (uint8_t)((i * 37 + i / in) % 0x78 | (i % 3 ? 0x80 : 0));
    const MiQuant  q = { .codes_as = MI_CODES_F8, .bits = 8, .out = out, .in = in, .codes = codes, .n_groups = 1, .group_in = in,
                         .group_out = 1, .scales = scales, .scale_dtype = MI_F32, .scale_row = 1, .scale_group = 1 };
    const MiWeight w = { .name = "w", .format = "fp8", .ndim = 2, .shape = { out, in }, .data = codes, .bytes = (size_t)(out * in),
                         .quant = &q };
    Packed p = test_pack(vt, &ctx, &w, 1, &(Options){ "channel", "none" });
    test_bind(&bound, &p, x, n, outputs, (float *const *)no_bias);
    test_run(&bound, &p);
    for (int64_t row = 0; row < n; row++)
        for (int64_t o = 0; o < out; o++) {
            double sum = 0, size = 1e-3;
            for (int64_t c = 0; c < in; c++) {
                const int    code = codes[o * in + c], exponent = code >> 3 & 15, fraction = code & 7;
                const double number = (code & 128 ? -1 : 1) * (exponent ? ldexp(8 + fraction, exponent - 10) : ldexp(fraction, -9));
                sum += (double)x[row * in + c] * number * (double)scales[o];
                size += fabs((double)x[row * in + c] * number * (double)scales[o]);
            }
            if (!(fabs(sum - (double)y[row * out + o]) <= 2e-6 * size))
                fail_msg("row %d out %d: %g, wanted %g", (int)row, (int)o, (double)y[row * out + o], sum);
        }
    test_unbind(&bound, &p);
    free(p.memory);
    mi_registry_free(r);
}

TEST_MAIN(cmocka_unit_test(products_are_those_of_the_nearest_numbers), cmocka_unit_test(stored_numbers_stay));
