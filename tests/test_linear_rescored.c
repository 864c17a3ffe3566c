/* test_linear_rescored.c - linear:rescored against linear:int4, whose results it begins with, and linear:dense, whose the
 * largest become. */
#include "linear.h"

typedef struct { const char *group, *isa; bool symmetric; int32_t top; } Rescored; /* options of the plugins */
typedef struct { const char *group, *activations, *scales, *isa; bool symmetric; } Int4;
typedef struct { const char *isa; } Dense;

static float *product(const MiLinear *vt, MiContext *ctx, const MiWeight *w, const void *options, const float *x, int64_t rows, float *bias)
{
    float *y = g_new0(float, rows * w->shape[0]);
    Packed p = test_pack(vt, ctx, w, 1, options);
    Bound  b;

    test_bind(&b, &p, x, rows, &y, &bias);
    test_run(&b, &p);
    test_unbind(&b, &p);
    free(p.memory);
    return y;
}

/* The value that `top` of y [n] reach; -INFINITY: all. */
static float reached(const float *y, int64_t n, int64_t top)
{
    if (top >= n)
        return -INFINITY;
    for (int64_t i = 0; i < n; i++) {
        int64_t larger = 0, equal = 0;
        for (int64_t k = 0; k < n; k++)
            larger += y[k] > y[i], equal += y[k] == y[i];
        if (larger < top && larger + equal >= top)
            return y[i];
    }
    return NAN;
}

static void check(MiRegistry *r, const char *format, int64_t out, int64_t in, int64_t rows, int32_t top, int threads)
{
    Device           d;
    MiContext        ctx = test_context(&d, threads);
    const MiWeight   w = test_weight(format, out, in, (uint64_t)(out * 31 + in)), plain = { .name = "f32", .format = "f32",
                     .ndim = 2, .shape = { out, in }, .data = g_malloc((gsize)(out * in) * 4), .bytes = (size_t)(out * in) * 4 };
    const bool       blocks = mi_block_format(format)->values > 1;
    g_autofree float *x = test_floats(rows * in, 7), *bias = test_floats(out, 8);

    mi_block_format(format)->decode(w.data, (float *)(uintptr_t)plain.data, out * in);
    g_autofree float *got = product(test_linear(r, "rescored"), &ctx, &w, &(Rescored){ "32", "auto", true, top }, x, rows, bias);
    g_autofree float *rough = product(test_linear(r, "int4"), &ctx, &w, &(Int4){ "32", "block", "fit", "auto", true }, x, rows, bias);
    g_autofree float *exact = product(test_linear(r, "dense"), &ctx, blocks ? &plain : &w, &(Dense){ "auto" }, x, rows, bias);
    for (int64_t row = 0; row < rows; row++) {
        const float *g = got + row * out, *a = rough + row * out, *e = exact + row * out, least = reached(a, out, top);
        int64_t      changed = 0;
        for (int64_t o = 0; o < out; o++) {
            if (a[o] > least && g[o] != e[o])
                fail_msg("%s %dx%d, row %d: %d of the %d largest is %g, exactly %g", format, (int)out, (int)in, (int)row, (int)o,
                         top, (double)g[o], (double)e[o]);
            if (a[o] < least && g[o] != a[o])
                fail_msg("%s %dx%d, row %d: %d is none of the %d largest and became %g", format, (int)out, (int)in, (int)row, (int)o,
                         top, (double)g[o]);
            changed += g[o] != a[o];
        }
        assert_true(changed > 0 && changed <= MIN(top, out));
    }
    g_free((void *)(uintptr_t)w.data);
    g_free((void *)(uintptr_t)plain.data);
}

static void the_largest_are_exact(void **state)
{
    static const char *const formats[] = { "bf16", "f32", "f16", "q4_1", "q6_k" };
    MiRegistry              *r = load(NULL);

    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(formats); i++) {
        check(r, formats[i], 1003, i < 3 ? 93 : 256, 1, 64, (int)i);
        check(r, formats[i], 333, 256, 9, i % 2 ? 1 : 17, 3);
        check(r, formats[i], 37, 256, 66, i % 2 ? 36 : 4096, 2); /* all but one; all */
    }
    mi_registry_free(r);
}

/* Several equal ones at the edge: as many as there is room for, and always the same. */
static void equal_ones_are_no_matter(void **state)
{
    (void)state;
    enum { OUT = 70, IN = 32, TOP = 5 };
    MiRegistry   *r = load(NULL);
    Device        d;
    MiContext     ctx = test_context(&d, 2);
    float         w[OUT * IN] = { 0 }, x[3 * IN];
    const MiWeight stored = { .name = "w", .format = "f32", .ndim = 2, .shape = { OUT, IN }, .data = w, .bytes = sizeof w };

    for (int i = 0; i < OUT * IN; i++)
        w[i] = i % IN ? 0.3f : 1; /* 0.3 is no multiple of 1 / 8 */
    for (int i = 0; i < 3 * IN; i++)
        x[i] = 1;
    g_autofree float *y = product(test_linear(r, "rescored"), &ctx, &stored, &(Rescored){ "32", "auto", true, TOP }, x, 3, NULL);
    g_autofree float *exact = product(test_linear(r, "dense"), &ctx, &stored, &(Dense){ "auto" }, x, 3, NULL);
    for (int row = 0; row < 3; row++)
        for (int o = 0; o < OUT; o++)
            assert_true((y[row * OUT + o] == exact[0]) == (o < TOP));
    mi_registry_free(r);
}

TEST_MAIN(cmocka_unit_test(the_largest_are_exact), cmocka_unit_test(equal_ones_are_no_matter));
