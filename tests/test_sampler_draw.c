/* The links that draw: known answers, exact distributions, independence of the batch. */
#include "sampler.h"
#include "../plugins/samplers/philox.h"

/* kat_vectors of Random123, philox4x32 10. */
static void philox_gives_the_published_numbers(void **state)
{
    (void)state;
    static const struct { uint32_t counter[4], key[2], want[4]; } kat[] = {
        { { 0, 0, 0, 0 }, { 0, 0 }, { 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8 } },
        { { 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff }, { 0xffffffff, 0xffffffff },
          { 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd } },
        { { 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344 }, { 0xa4093822, 0x299f31d0 },
          { 0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1 } },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(kat); i++) {
        uint32_t out[4];
        philox4x32_10(kat[i].counter, kat[i].key, out);
        assert_memory_equal(out, kat[i].want, sizeof out);
    }
}

/* Draws at positions 0 .. n-1 of one seed; how often each token came. */
static void count(const MiSampler *s, const char *seed, const float *logits, int n_vocab, int n, int *times)
{
    Rows             r;
    g_autofree void *rows = params(s, MAX_ROWS);
    float           *x = rows_new(&r, MAX_ROWS, n_vocab);

    for (int i = 0; i < MAX_ROWS; i++) {
        memcpy(x + i * n_vocab, logits, sizeof *x * (size_t)n_vocab);
        set(s, rows, i, "seed", seed);
    }
    for (int at = 0; at < n; at += MAX_ROWS) {
        for (int i = 0; i < MAX_ROWS; i++)
            r.position[i] = at + i;
        apply(s, rows, &r);
        for (int i = 0; i < MAX_ROWS; i++) {
            assert_in_range(r.token[i], 0, n_vocab - 1);
            assert_int_equal(r.drawn[r.slot[i]], r.token[i]);
            times[r.token[i]]++;
        }
    }
    g_free(r.logits);
}

/* Chi-square against the exact probabilities.  With d degrees of freedom it exceeds d + 1 + 4 sqrt(2 d) about
 * once in 10,000 times (a bit more often for few); the seeds are fixed, so this passes always or never. */
static void draws_by_the_probabilities(void **state)
{
    (void)state;
    enum { N = 40000 };
    MiRegistry      *reg = load(NULL);
    const MiSampler *s = link_named(reg, "multinomial");
    const int        sizes[] = { 2, 5, 63, 64, 65, 200 };
    uint64_t         rng = 7;

    for (size_t c = 0; c < G_N_ELEMENTS(sizes); c++) {
        const int          n = sizes[c];
        g_autofree float  *x = g_new(float, n);
        g_autofree double *p = g_new(double, n);
        g_autofree int    *times = g_new0(int, n);
        double             chi = 0, rest = 0, rest_times = 0;
        int                degrees = -1;

        for (int k = 0; k < n; k++)
            x[k] = k % 7 == 3 ? -INFINITY : gauss(&rng) - 40;
        softmax(x, n, p);
        count(s, c % 2 ? "1" : "12345678901234567890", x, n, N, times);
        for (int k = 0; k < n; k++) {
            if (p[k] == 0)
                assert_int_equal(times[k], 0);
            if (p[k] * N < 10) {
                rest += p[k] * N, rest_times += times[k];
                continue;
            }
            chi += (times[k] - p[k] * N) * (times[k] - p[k] * N) / (p[k] * N);
            degrees++;
        }
        if (rest > 10)
            chi += (rest_times - rest) * (rest_times - rest) / rest, degrees++;
        if (chi > degrees + 1 + 4 * sqrt(2.0 * degrees))
            fail_msg("%d tokens: chi-square %g with %d degrees of freedom", n, chi, degrees);
    }
    mi_registry_free(reg);
}

/* The token at the number u of an inverse CDF in double; -1: u lies within 1e-6 of a border. */
static int by_inverse(const float *x, int n, double u)
{
    g_autofree double *p = g_new(double, n);
    double             sum = 0;

    softmax(x, n, p);
    for (int k = 0; k < n; k++) {
        if (p[k] > 0 && u < sum + p[k])
            return u - sum < 1e-6 || sum + p[k] - u < 1e-6 ? -1 : k;
        sum += p[k];
    }
    return -1;
}

/* What comes is the inverse of the CDF at Philox(seed, position): this pins the stream of numbers down. */
static void draws_the_inverse_of_the_cdf(void **state)
{
    (void)state;
    enum { VOCAB = 3000 };
    MiRegistry      *reg = load(NULL);
    const MiSampler *s = link_named(reg, "multinomial");
    g_autofree void *rows = params(s, 1);
    uint64_t         rng = 3;
    Rows             r;
    float           *x = rows_new(&r, 1, VOCAB);
    int              compared = 0;

    for (int i = 0; i < 400; i++) {
        g_autofree char *seed = g_strdup_printf("%" G_GUINT64_FORMAT, (guint64)(i * 0x9e3779b97f4a7c15ull));
        for (int k = 0; k < VOCAB; k++)
            x[k] = 3 * gauss(&rng);
        r.position[0] = i * 17;
        set(s, rows, 0, "seed", seed);
        apply(s, rows, &r);
        const int want = by_inverse(x, VOCAB, philox_uniform(i * 0x9e3779b97f4a7c15ull, (uint32_t)i * 17 + 1));
        if (want >= 0)
            assert_int_equal(r.token[0], want), compared++;
    }
    assert_true(compared > 350);
    g_free(r.logits);
    mi_registry_free(reg);
}

/* Rows in another order, in other slots, among padding and strangers: the same tokens. */
static void batch_does_not_matter(void **state)
{
    (void)state;
    enum { VOCAB = 500 };
    MiRegistry      *reg = load(NULL);
    const MiSampler *s = link_named(reg, "multinomial");
    g_autofree void *rows = params(s, MAX_ROWS);
    uint64_t         rng = 11;
    int32_t          alone[MAX_ROWS];
    Rows             r, all;
    float           *x = rows_new(&all, MAX_ROWS, VOCAB);

    for (int k = 0; k < MAX_ROWS * VOCAB; k++)
        x[k] = gauss(&rng);
    for (int i = 0; i < MAX_ROWS; i++) {
        rows_new(&r, 1, VOCAB);
        memcpy(r.logits, x + i * VOCAB, sizeof *x * VOCAB);
        r.position[0] = 100 + i;
        set(s, rows, 0, "seed", "99");
        apply(s, rows, &r);
        alone[i] = r.token[0];
        g_free(r.logits);
    }
    rows_new(&r, MAX_ROWS, VOCAB);
    for (int i = 0; i < MAX_ROWS; i++) {
        const int from = (i * 3 + 5) % MAX_ROWS;
        memcpy(r.logits + i * VOCAB, x + from * VOCAB, sizeof *x * VOCAB);
        set(s, rows, i, "seed", "99");
        r.out_rows[i] = MAX_ROWS - 1 - i;
        r.position[MAX_ROWS - 1 - i] = 100 + from;
        r.slot[i] = i == 4 ? -1 : (i + 2) % MAX_ROWS;
        r.drawn[(i + 2) % MAX_ROWS] = -7;
    }
    apply(s, rows, &r);
    for (int i = 0; i < MAX_ROWS; i++)
        assert_int_equal(r.drawn[(i + 2) % MAX_ROWS], i == 4 ? -7 : alone[(i * 3 + 5) % MAX_ROWS]);
    g_free(r.logits);
    g_free(all.logits);
    mi_registry_free(reg);
}

static int one(const MiSampler *s, const float *x, int n, int position)
{
    Rows             r;
    g_autofree void *rows = params(s, 1);

    memcpy(rows_new(&r, 1, n), x, sizeof *x * (size_t)n);
    r.position[0] = position;
    apply(s, rows, &r);
    g_free(r.logits);
    return r.token[0];
}

static void odd_rows_draw_something_possible(void **state)
{
    (void)state;
    const float      I = INFINITY;
    MiRegistry      *reg = load(NULL);
    const MiSampler *links[] = { link_named(reg, "greedy"), link_named(reg, "multinomial") };

    for (int l = 0; l < 2; l++)
        for (int at = 0; at < 20; at++) {
            assert_int_equal(one(links[l], (float[]){ 3 }, 1, at), 0);
            assert_int_equal(one(links[l], (float[]){ -I, -I, -I }, 3, at), 0);
            assert_int_equal(one(links[l], (float[]){ NAN, NAN }, 2, at), 0);
            assert_int_equal(one(links[l], (float[]){ -I, NAN, -3e38f, NAN }, 4, at), 2);
            assert_int_equal(one(links[l], (float[]){ 1e30f, I, 5, NAN }, 4, at), 1);
            assert_int_equal(one(links[l], (float[]){ -3e38f, 3e38f, 0 }, 3, at), 1);
        }
    assert_int_equal(one(links[0], (float[]){ 1, 2, -0.0f, 2, 0 }, 5, 0), 1);
    assert_int_equal(one(links[0], (float[]){ -1, -0.0f, 0 }, 3, 0), 1);
    mi_registry_free(reg);
}

/* Every place of the largest, every length: the vector part and its rest. */
static void greedy_finds_the_largest(void **state)
{
    (void)state;
    MiRegistry      *reg = load(NULL);
    const MiSampler *s = link_named(reg, "greedy");
    float            x[70];

    for (int n = 1; n <= 70; n++)
        for (int at = 0; at < n; at++) {
            for (int k = 0; k < n; k++)
                x[k] = k == at || k == at + 9 ? -1 : -2 - (float)(k * 7 % 5);
            assert_int_equal(one(s, x, n, 0), at);
        }
    mi_registry_free(reg);
}

TEST_MAIN(cmocka_unit_test(philox_gives_the_published_numbers), cmocka_unit_test(draws_by_the_probabilities),
          cmocka_unit_test(draws_the_inverse_of_the_cdf), cmocka_unit_test(batch_does_not_matter),
          cmocka_unit_test(odd_rows_draw_something_possible), cmocka_unit_test(greedy_finds_the_largest));
