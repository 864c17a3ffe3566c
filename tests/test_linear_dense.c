/* test_linear_dense.c - linear:dense on every instruction set of this machine:
 * against sums in f64, and bit by bit against itself. */
#include "linear.h"

#include <cpu/dense.h>

typedef struct { const char *isa; } Options; /* of the plugin */

static const char *const types[] = { "f32", "f16", "bf16" };

static void check(const float *y, const float *x, const float *w, const float *bias, int64_t rows, int64_t out, int64_t in,
                  const char *what)
{
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t o = 0; o < out; o++) {
            double sum = (double)bias[o], size = fabs(sum) + 1e-3;
            for (int64_t k = 0; k < in; k++) {
                sum += (double)x[r * in + k] * (double)w[o * in + k];
                size += fabs((double)x[r * in + k] * (double)w[o * in + k]);
            }
            if (!(fabs(sum - (double)y[r * out + o]) <= 2e-6 * size))
                fail_msg("%s: row %d out %d: %g, wanted %g", what, (int)r, (int)o, (double)y[r * out + o], sum);
        }
    }
}

/* Odd sizes, weights at an odd address as in a safetensors file, every count of rows that a tile treats differently. */
static void all_types_agree(void **state)
{
    static const char *const isas[] = { "avx512", "avx2", "scalar" };
    static const int64_t     counts[] = { 1, 2, 3, 5, 6, 7, 16, 17, 64, 129 };
    const int64_t            in = 203, out = 75, n = 129;
    MiRegistry              *r = load(NULL);
    const MiLinear          *vt = test_linear(r, "dense");
    g_autofree float        *x = test_floats(n * in, 5), *bias = test_floats(out, 6), *plain = g_new(float, out * in);
    g_autofree float        *y = g_new(float, n * out), *first = g_new(float, n * out);
    Device                   d;

    (void)state;
    for (size_t t = 0; t < G_N_ELEMENTS(types); t++) {
        MiWeight            w = test_weight(types[t], out, in, 31 + t);
        g_autofree char    *odd = g_malloc(w.bytes + 1);
        const char         *fused = NULL; /* what filled `first` */

        memcpy(odd + 1, w.data, w.bytes);
        mi_block_format(types[t])->decode(w.data, plain, out * in);
        g_free((void *)(uintptr_t)w.data);
        w.data = odd + 1;
        for (size_t i = 0; i < G_N_ELEMENTS(isas); i++) {
            if (!mi_dense_isa(isas[i]))
                continue;
            MiContext ctx = test_context(&d, 2);
            Packed    p = test_pack(vt, &ctx, &w, 1, &(Options){ isas[i] });
            bool      again = fused && strcmp(isas[i], "scalar") != 0; /* which rounds products on their own */

            assert_null(p.memory); /* used where it lies */
            for (size_t c = 0; c < G_N_ELEMENTS(counts); c++) {
                float *b = bias;
                ctx = test_context(&d, (int)(c % 4));
                for (int64_t row = 0; row < n; row += counts[c]) {
                    Bound  bound;
                    float *to = y + row * out;
                    test_bind(&bound, &p, x + row * in, MIN(counts[c], n - row), &to, &b);
                    test_run(&bound, &p);
                    test_unbind(&bound, &p);
                }
                if (!again) {
                    check(y, x, plain, bias, n, out, in, isas[i]);
                    memcpy(first, y, (size_t)(n * out) * sizeof *y);
                }
                fused = isas[i];
                again = true;
                if (memcmp(first, y, (size_t)(n * out) * sizeof *y) != 0)
                    fail_msg("%s on %s differs when %d rows share a call", types[t], isas[i], (int)counts[c]);
                memset(y, 0, (size_t)(n * out) * sizeof *y);
            }
        }
    }
    mi_registry_free(r);
}

static void joined_parts_of_any_type(void **state)
{
    const int64_t     in = 96, outs[3] = { 40, 7, 65 }, n = 9;
    MiRegistry       *r = load(NULL);
    const MiLinear   *vt = test_linear(r, "dense");
    g_autofree float *x = test_floats(n * in, 8), *bias = test_floats(65, 9);
    float            *y[3], *biases[3] = { bias, bias, bias };
    Device            d;
    MiContext         ctx = test_context(&d, 2);
    MiWeight          w[3];
    Bound             b;

    (void)state;
    for (int i = 0; i < 3; i++) {
        w[i] = test_weight(types[i], outs[i], in, 41 + (uint64_t)i);
        y[i] = g_new0(float, n * outs[i]);
    }
    Packed p = test_pack(vt, &ctx, w, 3, NULL);
    test_bind(&b, &p, x, n, y, biases);
    test_run(&b, &p);
    for (int i = 0; i < 3; i++) {
        g_autofree float *plain = g_new(float, outs[i] * in);
        mi_block_format(types[i])->decode(w[i].data, plain, outs[i] * in);
        check(y[i], x, plain, bias, n, outs[i], in, types[i]);
        g_free(y[i]);
        g_free((void *)(uintptr_t)w[i].data);
    }
    test_unbind(&b, &p);
    mi_registry_free(r);
}

static void refuses_what_does_not_fit(void **state)
{
    MiRegistry     *r = load(NULL);
    const MiLinear *vt = test_linear(r, "dense");
    GError         *error = NULL;
    MiWeight        w = test_weight("bf16", 4, 32, 1);
    size_t          bytes;

    (void)state;
    assert_false(vt->bytes(&w, 1, MI_F32, &(Options){ "mmx" }, &bytes, &error));
    assert_non_null(strstr(error->message, "mmx"));
    g_clear_error(&error);
    w.shape[0]++;
    assert_false(vt->bytes(&w, 1, MI_F32, NULL, &bytes, &error));
    assert_non_null(strstr(error->message, "its shape needs more"));
    g_clear_error(&error);
    w.shape[0] = INT64_MAX;
    assert_false(vt->bytes(&w, 1, MI_F32, NULL, &bytes, &error));
    g_clear_error(&error);
    w.format = "q4_0";
    assert_false(vt->bytes(&w, 1, MI_F32, NULL, &bytes, &error));
    g_clear_error(&error);
    g_free((void *)(uintptr_t)w.data);
    mi_registry_free(r);
}

TEST_MAIN(cmocka_unit_test(all_types_agree), cmocka_unit_test(joined_parts_of_any_type),
          cmocka_unit_test(refuses_what_does_not_fit));
