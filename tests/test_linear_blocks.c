/* test_linear_blocks.c - linear:blocks on every instruction set of this machine
 * and in every format: against sums in f64 of the decoded weights, and bit by
 * bit against itself. */
#include "linear.h"

#include <cpu/panels.h>

static const char *const formats[] = { "q4_0", "q4_1", "q5_0", "q5_1", "q8_0",   "q2_k",
                                       "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl", "iq4_xs" };

typedef struct { const char *isa; } Options; /* of the plugin */

/* A row of y may be off by the rounding of x, half a step of max / 127 for each
 * element of a block, and by f32 sums. */
static double allowed(const float *x, const float *w, int64_t in)
{
    double sum = 0;
    for (int64_t b = 0; b < in; b += 32) {
        float max = 0;
        for (int64_t k = b; k < b + 32; k++)
            max = MAX(max, fabsf(x[k]));
        for (int64_t k = b; k < b + 32; k++)
            sum += fabs((double)w[k]) * (0.5001 * (double)max / 127 + 2e-6 * (double)max);
    }
    return sum + 1e-9;
}

typedef struct { double worst, mean; } Miss;

static Miss compare(const float *y, const float *x, const float *w, const float *bias, int64_t rows, int64_t out, int64_t in)
{
    Miss m = { 0, 0 };
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t o = 0; o < out; o++) {
            double sum = bias ? (double)bias[o] : 0;
            for (int64_t k = 0; k < in; k++)
                sum += (double)x[r * in + k] * (double)w[o * in + k];
            const double miss = fabs(sum - (double)y[r * out + o]) / allowed(x + r * in, w + o * in, in);
            m.worst = MAX(m.worst, miss);
            m.mean += miss / (double)(rows * out);
        }
    }
    return m;
}

/* y of `rows` rows at a time. */
static void run_by(const Packed *p, const float *x, int64_t n, int64_t rows, float *const *y, float *const *bias)
{
    Bound b;
    float *to[4];

    for (int64_t r = 0; r < n; r += rows) {
        for (int i = 0; i < p->n; i++)
            to[i] = y[i] + r * p->operand[i].tensor.shape[0];
        test_bind(&b, p, x + r * p->operand[0].tensor.shape[1], MIN(rows, n - r), to, bias);
        test_run(&b, p);
        test_unbind(&b, p);
    }
}

/* Every format at every count of rows, each instruction set: within the bound, and the same bits. */
static void all_formats_agree(void **state)
{
    static const int64_t counts[] = { 1, 2, 3, 5, 16, 17, 64, 129 };
    const int64_t        in = 512, out = 75, n = 129;
    MiRegistry          *r = load(NULL);
    const MiLinear      *vt = test_linear(r, "blocks");
    g_autofree float    *x = test_floats(n * in, 5), *bias = test_floats(out, 6), *plain = g_new(float, out * in);
    g_autofree float    *y = g_new(float, n * out), *first = g_new(float, n * out);
    Device               d;

    (void)state;
    memset(x + 3 * in, 0, 64 * sizeof *x); /* two blocks of nothing */
    for (size_t f = 0; f < G_N_ELEMENTS(formats); f++) {
        const MiWeight w = test_weight(formats[f], out, in, 11 + f);
        bool           have_first = false;

        mi_block_format(formats[f])->decode(w.data, plain, out * in);
        for (const char *const *isa = mi_panel_isas(); *isa; isa++) {
            if (!mi_panel_kernel(formats[f], *isa, MI_X_BLOCK))
                continue;
            MiContext ctx = test_context(&d, 2);
            Packed    p = test_pack(vt, &ctx, &w, 1, &(Options){ *isa });

            for (size_t c = 0; c < G_N_ELEMENTS(counts); c++) {
                ctx = test_context(&d, (int)(c % 4));
                run_by(&p, x, n, counts[c], &y, &bias);
                if (!have_first) {
                    const Miss m = compare(y, x, plain, bias, n, out, in);
                    if (!(m.worst <= 1) || !(m.mean > 1e-4)) /* rounding as small as that would be somebody else's sums */
                        fail_msg("%s on %s is %g of the allowed rounding off, %g in the mean", formats[f], *isa, m.worst, m.mean);
                    memcpy(first, y, (size_t)(n * out) * sizeof *y);
                }
                have_first = true;
                if (memcmp(first, y, (size_t)(n * out) * sizeof *y) != 0)
                    fail_msg("%s on %s differs when %d rows share a call", formats[f], *isa, (int)counts[c]);
                memset(y, 0, (size_t)(n * out) * sizeof *y);
            }
            free(p.memory);
        }
        g_free((void *)(uintptr_t)w.data);
    }
    mi_registry_free(r);
}

/* Projections of one input, of different formats and widths. */
static void joined_parts_are_as_alone(void **state)
{
    static const char *const mixed[] = { "q5_0", "q8_0", "q6_k" };
    static const int64_t     outs[] = { 96, 31, 33 };
    const int64_t            in = 768, n = 70;
    MiRegistry              *r = load(NULL);
    const MiLinear          *vt = test_linear(r, "blocks");
    g_autofree float        *x = test_floats(n * in, 15), *bias = test_floats(31, 16);
    float                   *y[3], *alone[3], *biases[3] = { NULL, bias, NULL };
    Device                   d;
    MiContext                ctx = test_context(&d, 3);
    MiWeight                 w[3];

    (void)state;
    for (int i = 0; i < 3; i++) {
        w[i] = test_weight(mixed[i], outs[i], in, 21 + (uint64_t)i);
        y[i] = g_new0(float, n * outs[i]);
        alone[i] = g_new0(float, n * outs[i]);
        Packed one = test_pack(vt, &ctx, &w[i], 1, NULL);
        run_by(&one, x, n, n, &alone[i], &biases[i]);
        free(one.memory);
    }
    Packed p = test_pack(vt, &ctx, w, 3, NULL);
    assert_int_equal(p.operand[2].first_row, 127);
    run_by(&p, x, n, n, y, biases);
    for (int i = 0; i < 3; i++) {
        assert_memory_equal(y[i], alone[i], (size_t)(n * outs[i]) * sizeof(float));
        g_free(y[i]);
        g_free(alone[i]);
        g_free((void *)(uintptr_t)w[i].data);
    }
    free(p.memory);
    mi_registry_free(r);
}

#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__)
/* Counts what the plugin allocates too: it is loaded into a program that defines these. */
extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t), *__libc_memalign(size_t, size_t);
static int allocations;
void *malloc(size_t n) { return allocations++, __libc_malloc(n); }
void *calloc(size_t n, size_t m) { return allocations++, __libc_calloc(n, m); }
void *realloc(void *p, size_t n) { return allocations++, __libc_realloc(p, n); }
void *aligned_alloc(size_t a, size_t n) { return allocations++, __libc_memalign(a, n); }

static void a_run_allocates_nothing(void **state)
{
    static const int64_t counts[] = { 1, 130 };
    MiRegistry          *r = load(NULL);
    const MiLinear      *vt = test_linear(r, "blocks");
    g_autofree float    *x = test_floats(130 * 256, 1), *y = g_new(float, 130 * 40);
    Device               d;
    MiContext            ctx = test_context(&d, 0);
    const MiWeight       w = test_weight("q6_k", 40, 256, 3);
    Packed               p = test_pack(vt, &ctx, &w, 1, NULL);

    (void)state;
    for (size_t c = 0; c < G_N_ELEMENTS(counts); c++) {
        Bound b;
        test_bind(&b, &p, x, counts[c], &y, NULL);
        const int before = allocations;
        for (int i = 0; i < 10; i++)
            test_run(&b, &p);
        assert_int_equal(allocations, before);
        test_unbind(&b, &p);
        assert_true(before > 0); /* they are counted */
    }
    free(p.memory);
    g_free((void *)(uintptr_t)w.data);
    mi_registry_free(r);
}
#define COUNTED cmocka_unit_test(a_run_allocates_nothing),
#else
#define COUNTED
#endif

static void refuses_what_does_not_fit(void **state)
{
    MiRegistry     *r = load(NULL);
    const MiLinear *vt = test_linear(r, "blocks");
    GError         *error = NULL;
    MiWeight        w[2] = { test_weight("q4_k", 4, 512, 1), test_weight("q8_0", 4, 256, 1) };
    size_t          bytes;

    (void)state;
    assert_false(vt->bytes(w, 2, MI_F32, NULL, &bytes, &error)); /* two widths */
    g_clear_error(&error);
    assert_false(vt->bytes(w, 1, MI_F32, &(Options){ "mmx" }, &bytes, &error));
    assert_non_null(strstr(error->message, "mmx"));
    g_clear_error(&error);
    w[0].shape[1] = 128; /* half a block */
    assert_false(vt->bytes(w, 1, MI_F32, NULL, &bytes, &error));
    assert_non_null(strstr(error->message, "multiple of 256"));
    g_clear_error(&error);
    w[1].bytes--;
    assert_false(vt->bytes(&w[1], 1, MI_F32, NULL, &bytes, &error));
    g_clear_error(&error);
    w[1].format = "f32";
    assert_false(vt->bytes(&w[1], 1, MI_F32, NULL, &bytes, &error));
    g_clear_error(&error);
    for (int i = 0; i < 2; i++)
        g_free((void *)(uintptr_t)w[i].data);
    mi_registry_free(r);
}

TEST_MAIN(cmocka_unit_test(all_formats_agree), cmocka_unit_test(joined_parts_are_as_alone),
          COUNTED cmocka_unit_test(refuses_what_does_not_fit));
