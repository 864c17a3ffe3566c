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

TEST_MAIN(cmocka_unit_test(products_are_those_of_the_nearest_numbers));
