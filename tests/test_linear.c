/* test_linear.c - linear:reference against sums in f64, one element at a time. */
#include "linear.h"

static void check(const MiLinear *vt, const char *format, int64_t out, int64_t in, int64_t rows, int n_threads)
{
    Device                 d;
    MiContext              ctx = test_context(&d, n_threads);
    const MiWeight         w = test_weight(format, out, in, 7);
    g_autofree float      *x = test_floats(rows * in, 1), *bias = test_floats(out, 2), *y = g_new(float, rows * out);
    g_autofree float      *plain = g_new(float, out * in);
    Packed                 p = test_pack(vt, &ctx, &w, 1, NULL);
    Bound                  b;

    mi_block_format(format)->decode(w.data, plain, out * in);
    test_bind(&b, &p, x, rows, &y, &bias);
    test_run(&b, &p);
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t o = 0; o < out; o++) {
            double sum = (double)bias[o], size = 1;
            for (int64_t k = 0; k < in; k++) {
                sum += (double)x[r * in + k] * (double)plain[o * in + k];
                size += fabs((double)x[r * in + k] * (double)plain[o * in + k]);
            }
            if (!(fabs(sum - (double)y[r * out + o]) <= 1e-6 * size))
                fail_msg("%s row %d out %d: %g, wanted %g", format, (int)r, (int)o, (double)y[r * out + o], sum);
        }
    }
    test_unbind(&b, &p);
    free(p.memory);
    g_free((void *)(uintptr_t)w.data);
}

static void reference_is_the_sum_of_products(void **state)
{
    static const char *const names[] = { "f32",  "f16",  "bf16", "q4_0", "q4_1", "q5_0",   "q5_1",  "q8_0",
                                         "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl", "iq4_xs" };
    MiRegistry     *r = load(NULL);
    const MiLinear *vt = test_linear(r, "reference");

    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        if (!mi_block_format(names[i]))
            continue;
        check(vt, names[i], 37, 512, 5, 3);
        check(vt, names[i], 1, 256, 1, 0);
    }
    check(vt, "f32", 5, 33, 9, 2); /* rows of any length */
    mi_registry_free(r);
}

/* Bit by bit. */
static void rows_and_threads_change_nothing(void **state)
{
    MiRegistry       *r = load(NULL);
    const MiLinear   *vt = test_linear(r, "reference");
    const int64_t     out = 67, in = 320, rows = 9;
    Device            d;
    MiContext         ctx = test_context(&d, 0);
    const MiWeight    w = test_weight("f32", out, in, 3);
    g_autofree float *x = test_floats(rows * in, 4), *y = g_new(float, rows * out), *one = g_new(float, out);
    Packed            p = test_pack(vt, &ctx, &w, 1, NULL);
    Bound             b;

    (void)state;
    test_bind(&b, &p, x, rows, &y, NULL);
    test_run(&b, &p);
    for (int64_t i = 0; i < rows; i++) {
        ctx = test_context(&d, 1 + (int)i % 4);
        test_unbind(&b, &p);
        test_bind(&b, &p, x + i * in, 1, &one, NULL);
        test_run(&b, &p);
        assert_memory_equal(one, y + i * out, (size_t)out * sizeof *one);
    }
    test_unbind(&b, &p);
    free(p.memory);
    g_free((void *)(uintptr_t)w.data);
    mi_registry_free(r);
}

static void refuses_what_does_not_fit(void **state)
{
    MiRegistry     *r = load(NULL);
    const MiLinear *vt = test_linear(r, "reference");
    GError         *error = NULL;
    MiWeight        w = test_weight("f32", 4, 32, 1);
    size_t          bytes;

    (void)state;
    w.bytes--;
    assert_false(vt->bytes(&w, 1, MI_F32, NULL, &bytes, &error));
    assert_non_null(strstr(error->message, "f32"));
    g_clear_error(&error);
    w.bytes++;
    w.ndim = 1;
    assert_false(vt->bytes(&w, 1, MI_F32, NULL, &bytes, &error));
    g_clear_error(&error);
    w.ndim = 2;
    w.shape[0] = INT64_MAX / 2;
    w.shape[1] = 1 << 20;
    assert_false(vt->bytes(&w, 1, MI_F32, NULL, &bytes, &error));
    g_clear_error(&error);
    g_free((void *)(uintptr_t)w.data);
    mi_registry_free(r);
}

TEST_MAIN(cmocka_unit_test(reference_is_the_sum_of_products), cmocka_unit_test(rows_and_threads_change_nothing),
          cmocka_unit_test(refuses_what_does_not_fit));
