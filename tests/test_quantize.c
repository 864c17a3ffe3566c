/* What `quantize` computes: the product and the factor of linear algebra, rounding, GPTQ beside the paper's own slow way. */
#include "common.h"

#include "quantize_awq.h"

#include <math.h>
#include <stdlib.h>

static float uniform(void)
{
    static uint64_t state = 88172645463325252u;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (float)((double)(state >> 11) * 0x1p-52 - 1);
}

static float *floats(int64_t n)
{
    float *x = g_new(float, n);
    for (int64_t i = 0; i < n; i++)
        x[i] = uniform();
    return x;
}

static void multiplies(void **state)
{
    static const int sizes[][3] = { { 1, 1, 1 }, { 3, 5, 7 }, { 300, 9, 130 }, { 64, 64, 64 }, { 257, 66, 191 } };

    (void)state;
    for (size_t k = 0; k < G_N_ELEMENTS(sizes); k++) {
        const int64_t     nt = sizes[k][0], ni = sizes[k][1], nj = sizes[k][2];
        g_autofree float *a = floats(nt * (ni + 3)), *x = floats(nt * (nj + 2)), *c = floats(ni * (nj + 1)), *was = g_new(float, ni * (nj + 1));
        memcpy(was, c, (size_t)(ni * (nj + 1)) * sizeof *c);
        mi_product(&(MiProduct){ .c = c, .ldc = nj + 1, .a = a, .lda = ni + 3, .x = x, .ldx = nj + 2, .nt = nt, .ni = ni, .nj = nj,
                                 .sign = -1 });
        for (int64_t i = 0; i < ni; i++)
            for (int64_t j = 0; j <= nj; j++) {
                double sum = (double)was[i * (nj + 1) + j];
                for (int64_t t = 0; t < nt && j < nj; t++)
                    sum -= (double)a[t * (ni + 3) + i] * (double)x[t * (nj + 2) + j];
                if (!(fabs((double)c[i * (nj + 1) + j] - sum) <= 1e-4))
                    fail_msg("%d %d %d: [%d][%d] is %g, not %g", (int)nt, (int)ni, (int)nj, (int)i, (int)j,
                             (double)c[i * (nj + 1) + j], sum);
            }
    }
}

/* Sum of x x' of correlated rows; some inputs are much larger than others, one is always zero. */
static float *hessian(int64_t n, int rows)
{
    float *h = g_new0(float, n * n), *x = g_new(float, n);

    for (int r = 0; r < rows; r++) {
        const float common = uniform();
        for (int64_t i = 0; i < n; i++)
            x[i] = i == 5 ? 0 : (uniform() + common) * (i % 7 == 0 ? 8.0f : 1.0f);
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < n; j++)
                h[i * n + j] += x[i] * x[j];
    }
    g_free(x);
    return h;
}

static void factors(void **state)
{
    static const int64_t sizes[] = { 1, 2, 63, 64, 65, 200 };

    (void)state;
    for (size_t k = 0; k < G_N_ELEMENTS(sizes); k++) {
        const int64_t     n = sizes[k];
        g_autofree float *h = hessian(n, 400), *u = NULL;
        for (int64_t i = 0; i < n; i++)
            h[i * n + i] += 10;
        u = g_memdup2(h, (size_t)(n * n) * sizeof *h);
        assert_true(mi_inverse_factor(u, n));
        for (int64_t i = 0; i < n; i++) /* (u' u) h is one */
            for (int64_t j = 0; j < n; j++) {
                double sum = 0;
                for (int64_t m = 0; m < n; m++) {
                    double inverse = 0;
                    for (int64_t t = 0; t <= MIN(i, m); t++)
                        inverse += (double)u[t * n + i] * (double)u[t * n + m];
                    sum += inverse * (double)h[MIN(m, j) * n + MAX(m, j)];
                }
                if (!(fabs(sum - (i == j)) < 2e-3))
                    fail_msg("%d: [%d][%d] is %g", (int)n, (int)i, (int)j, sum);
            }
    }
    float indefinite[4] = { 1, 2, 0, 1 };
    assert_false(mi_inverse_factor(indefinite, 2));
}

/* ---- rounding ---------------------------------------------------------------------- */

static MiRounding rounding(int64_t out, int64_t in, const MiGrid *g)
{
    const int64_t groups = g->group ? in / g->group : 1;
    return (MiRounding){ .out = out, .in = in, .group = g->group ? g->group : in, .groups = groups, .w = floats(out * in),
                         .codes = g_new0(uint8_t, out * in), .scales = g_new(float, out * groups),
                         .zeros = g_new(uint8_t, out * groups) };
}

static void rounds_to_the_nearest(void **state)
{
    static const MiGrid grids[] = { { 4, 32, true, false }, { 4, 32, false, false }, { 8, 0, true, false }, { 8, 32, false, false } };

    (void)state;
    for (size_t k = 0; k < G_N_ELEMENTS(grids); k++) {
        const MiGrid *g = &grids[k];
        MiRounding    r = rounding(5, 96, g);
        r.w[7] = -1; /* ranges are not centred */
        for (int i = 96; i < 192; i++)
            r.w[i] = 0.25f + r.w[i] / 4;
        mi_rounding_fit(&r, g, false);
        mi_round_nearest(&r, g);
        for (int64_t i = 0; i < 5 * 96; i++) {
            const int64_t at = i / 96 * r.groups + i % 96 / (96 / r.groups);
            const double  scale = (double)r.scales[at], back = scale * ((int)r.codes[i] - (int)r.zeros[at]);
            assert_true(r.codes[i] < 1 << g->bits);
            if (g->symmetric)
                assert_int_equal(r.zeros[at], 1 << (g->bits - 1));
            if (!(fabs(back - (double)r.w[i]) <= 1.02 * scale / 2 * (g->symmetric ? 1 : 2))) /* a zero is rounded, too */
                fail_msg("grid %d: %g became %g, scale %g", (int)k, (double)r.w[i], back, scale);
        }
        mi_rounding_free(&r);
    }
}

/* What a code of E4M3 stands for, by its definition. */
static double e4m3(int code)
{
    const int exponent = code >> 3 & 15, fraction = code & 7;
    return (code & 128 ? -1 : 1) * (exponent ? ldexp(8 + fraction, exponent - 10) : ldexp(fraction, -9));
}

/* The code with the number next to x. */
static int nearest_e4m3(double x)
{
    int best = 0;

    for (int code = 0; code < 256; code++)
        if ((code & 127) != 127 && fabs(e4m3(code) - x) < fabs(e4m3(best) - x))
            best = code;
    return best;
}

static void rounds_to_e4m3(void **state)
{
    const MiGrid g = { .bits = 8, .symmetric = true, .e4m3 = true };
    MiRounding   r = rounding(5, 96, &g);
    int          odd = 0;

    (void)state;
    r.e4m3 = true;
    for (int i = 0; i < 5 * 96; i++)
        r.w[i] *= i < 96 ? 1e-3f : i % 96 == 5 ? 30.0f : 1.0f;
    memset(r.w + 96, 0, 96 * sizeof *r.w);
    mi_rounding_fit(&r, &g, false);
    mi_round_nearest(&r, &g);
    for (int64_t i = 0; i < 5 * 96; i++) {
        const double scale = (double)r.scales[i / 96], x = (double)r.w[i] / scale, got = e4m3(r.codes[i]);
        float        largest = 0;
        uint32_t     bits;
        for (int64_t k = i / 96 * 96; k < i / 96 * 96 + 96; k++)
            largest = MAX(largest, fabsf(r.w[k]));
        memcpy(&bits, &r.scales[i / 96], sizeof bits);
        assert_true((bits & 0xffff) == 0); /* of bf16, and the least of it that leaves no number too large */
        assert_true(largest == 0 || (largest <= 448 * r.scales[i / 96] && largest * 130 / 128 > 448 * r.scales[i / 96]));
        if (!(fabs(got - x) <= fabs(e4m3(nearest_e4m3(x)) - x) + 1e-6 * fabs(x)))
            fail_msg("%g became %g, not %g", x, got, e4m3(nearest_e4m3(x)));
        odd += r.codes[i] & 1;
    }
    assert_true(odd > 96);
    mi_rounding_free(&r);
}

/* The paper's section 3: after each column what is left takes up its error by the inverse of the Hessian of what is left,
 * which is eliminated from; in f64.  order: of the columns. */
static void slowly(const MiRounding *r, const float *h, double damp, const int *order, uint8_t *codes)
{
    const int64_t      n = r->in;
    g_autofree double *a = g_new(double, 2 * n * n), *w = g_new(double, n);
    double             mean = 0;

    for (int64_t i = 0; i < n; i++)
        mean += (double)h[i * n + i] / (double)n;
    for (int64_t i = 0; i < n; i++) { /* [H 1], then Gauss and Jordan: [1 inverse] */
        for (int64_t j = 0; j < n; j++) {
            a[i * 2 * n + j] = (double)h[MIN(i, j) * n + MAX(i, j)] + (i == j ? damp * mean + (h[i * n + i] == 0) : 0);
            a[i * 2 * n + n + j] = i == j;
        }
    }
    for (int64_t p = 0; p < n; p++) {
        const double d = a[p * 2 * n + p];
        for (int64_t j = 0; j < 2 * n; j++)
            a[p * 2 * n + j] /= d;
        for (int64_t i = 0; i < n; i++) {
            const double f = i == p ? 0 : a[i * 2 * n + p];
            for (int64_t j = 0; j < 2 * n && f != 0; j++)
                a[i * 2 * n + j] -= f * a[p * 2 * n + j];
        }
    }
    g_autofree double *start = g_new(double, n * n), *inverse = g_new(double, n * n);
    for (int64_t i = 0; i < n * n; i++)
        start[i] = a[i / n * 2 * n + n + i % n];
    for (int64_t o = 0; o < r->out; o++) {
        memcpy(inverse, start, (size_t)(n * n) * sizeof *inverse);
        for (int64_t i = 0; i < n; i++)
            w[i] = (double)r->w[o * n + i];
        for (int64_t k = 0; k < n; k++) {
            const int     q = order[k];
            const int64_t g = o * r->groups + q / (n / r->groups);
            const double  scale = (double)r->scales[g], zero = r->zeros[g];
            const int     code = r->e4m3 ? nearest_e4m3(w[q] / scale) : (int)CLAMP(rint(w[q] / scale) + zero, 0, 15);
            const double  back = scale * (r->e4m3 ? e4m3(code) : code - zero), d = inverse[q * n + q], e = (w[q] - back) / d;
            codes[o * n + q] = (uint8_t)code;
            for (int64_t i = 0; i < n; i++)
                w[i] -= e * inverse[q * n + i];
            g_autofree double *row = g_memdup2(inverse + q * n, (size_t)n * sizeof *row);
            for (int64_t i = 0; i < n; i++)
                for (int64_t j = 0; j < n; j++)
                    inverse[i * n + j] -= row[i] * row[j] / d;
        }
    }
}

static const float *diagonal_of;
static int64_t      diagonal_n;
static int          larger(const void *a, const void *b)
{
    const int   x = *(const int *)a, y = *(const int *)b;
    const float p = diagonal_of[x * diagonal_n + x], q = diagonal_of[y * diagonal_n + y];
    return p != q ? (p < q) - (p > q) : x - y;
}

static void gptq_is_the_papers(void **state)
{
    static const MiGrid grids[] = { { 4, 32, true, false }, { 4, 64, false, false }, { 8, 0, true, true } };

    (void)state;
    for (size_t k = 0; k < G_N_ELEMENTS(grids); k++) {
        const int64_t     out = 6, in = 192;
        g_autofree float *h = hessian(in, 600);
        MiRounding        r = rounding(out, in, &grids[k]);
        g_autofree uint8_t *want = g_new(uint8_t, out * in);
        int               order[192], same = 0;

        for (int i = 0; i < in; i++)
            order[i] = i;
        diagonal_of = h;
        diagonal_n = in;
        qsort(order, (size_t)in, sizeof *order, larger);
        r.e4m3 = grids[k].e4m3;
        mi_rounding_fit(&r, &grids[k], false);
        mi_round_nearest(&r, &grids[k]);
        const MiInputs        inputs = { .n = in, .sums = h };
        const MiRoundingError nearest = mi_rounding_error(&r, &inputs);
        assert_true(mi_round_gptq(&r, &grids[k], &inputs));
        const MiRoundingError made_up = mi_rounding_error(&r, &inputs);
        slowly(&r, h, 0.01, order, want);
        for (int64_t i = 0; i < out * in; i++)
            same += r.codes[i] == want[i];
        if (same < out * in * 99 / 100) /* what is rounded last may be at the middle of two */
            fail_msg("grid %d: %d of %d codes are the same", (int)k, same, (int)(out * in));
        assert_true(made_up.weights > nearest.weights);
        if (!(made_up.outputs < 0.8 * nearest.outputs))
            fail_msg("grid %d: outputs are off by %g with gptq, %g without", (int)k, made_up.outputs, nearest.outputs);
        mi_rounding_free(&r);
    }
}

/* Fewer rows than inputs in the sums, so that what is made up for is mostly chance: of the three dampings that is taken which is
 * the best for rows held back, each tried slowly, its error taken row by row. */
static void rows_held_back_choose_the_damping(void **state)
{
    static const double dampings[] = { 0.01, 0.1, 1 };
    static const struct { int rows; float noise; } texts[] = { { 60, 1 }, { 4000, 1 } };
    const MiGrid        g = { 4, 32, true, false };
    enum { OUT = 6, IN = 128, HELD = 150 };
    int                 chosen[2] = { 0 };

    (void)state;
    for (size_t k = 0; k < G_N_ELEMENTS(texts); k++) {
        g_autofree float   *h = g_new0(float, IN * IN), *held = g_new(float, IN * HELD);
        g_autofree uint8_t *want = g_new(uint8_t, OUT * IN);
        MiRounding          r = rounding(OUT, IN, &g);
        int                 order[IN], same = 0;
        double              best = -1, worst = 0, energy = 0;

        for (int t = 0; t < texts[k].rows + HELD; t++) { /* a few things that inputs have in common, and noise */
            float common[4], x[IN];
            for (int i = 0; i < 4; i++)
                common[i] = 2 * uniform();
            for (int i = 0; i < IN; i++)
                x[i] = (common[i % 4] + texts[k].noise * uniform()) * (i % 7 == 0 ? 4.0f : 1.0f);
            for (int i = 0; i < IN; i++)
                if (t >= texts[k].rows)
                    held[i * HELD + t - texts[k].rows] = x[i];
                else
                    for (int j = 0; j < IN; j++)
                        h[i * IN + j] += x[i] * x[j];
        }
        for (int i = 0; i < IN; i++)
            order[i] = i;
        diagonal_of = h;
        diagonal_n = IN;
        qsort(order, IN, sizeof *order, larger);
        mi_rounding_fit(&r, &g, false);
        for (int d = 0; d < 3; d++) {
            g_autofree uint8_t *codes = g_new(uint8_t, OUT * IN);
            double              off = 0;
            slowly(&r, h, dampings[d], order, codes);
            energy = 0;
            for (int o = 0; o < OUT; o++)
                for (int t = 0; t < HELD; t++) {
                    double y = 0, all = 0;
                    for (int i = 0; i < IN; i++) {
                        const int at = o * IN + i, group = o * 4 + i / 32;
                        y += ((double)r.scales[group] * (codes[at] - 8) - (double)r.w[at]) * (double)held[i * HELD + t];
                        all += (double)r.w[at] * (double)held[i * HELD + t];
                    }
                    off += y * y;
                    energy += all * all;
                }
            worst = MAX(worst, off);
            if (best < 0 || off < best) {
                best = off;
                chosen[k] = d;
                memcpy(want, codes, OUT * IN);
            }
        }
        const MiInputs inputs = { .n = IN, .sums = h, .held = held, .rows = HELD };
        assert_true(mi_round_gptq(&r, &g, &inputs));
        for (int i = 0; i < OUT * IN; i++)
            same += r.codes[i] == want[i];
        if (same < OUT * IN * 98 / 100)
            fail_msg("text %d: %d of %d codes are those of damping %g", (int)k, same, OUT * IN, dampings[chosen[k]]);
        const double e = mi_rounding_error(&r, &inputs).outputs;
        if (!(fabs(e - sqrt(best / energy)) < 0.03 * e))
            fail_msg("text %d: error %g, not %g", (int)k, e, sqrt(best / energy));
        assert_true(best < 0.95 * worst);
        mi_rounding_free(&r);
    }
    assert_true(chosen[0] > chosen[1]); /* the more rows, the less is added */
}

/* The figures themselves, against their definition. */
static void errors_are_what_they_say(void **state)
{
    const MiGrid      g = { 4, 32, true, false };
    MiRounding        r = rounding(3, 64, &g);
    g_autofree float *x = floats(50 * 64), *h = g_new0(float, 64 * 64);
    double            sums[4] = { 0 };

    (void)state;
    mi_rounding_fit(&r, &g, false);
    mi_round_nearest(&r, &g);
    for (int t = 0; t < 50; t++)
        for (int i = 0; i < 64; i++)
            for (int j = 0; j < 64; j++)
                h[i * 64 + j] += x[t * 64 + i] * x[t * 64 + j];
    for (int o = 0; o < 3; o++) {
        double d[64];
        for (int i = 0; i < 64; i++) {
            d[i] = (double)r.scales[o * 2 + i / 32] * ((int)r.codes[o * 64 + i] - (int)r.zeros[o * 2 + i / 32]) - (double)r.w[o * 64 + i];
            sums[0] += d[i] * d[i];
            sums[1] += (double)r.w[o * 64 + i] * (double)r.w[o * 64 + i];
        }
        for (int t = 0; t < 50; t++) {
            double off = 0, y = 0;
            for (int i = 0; i < 64; i++) {
                off += d[i] * (double)x[t * 64 + i];
                y += (double)r.w[o * 64 + i] * (double)x[t * 64 + i];
            }
            sums[2] += off * off;
            sums[3] += y * y;
        }
    }
    const MiRoundingError e = mi_rounding_error(&r, &(MiInputs){ .n = 64, .sums = h });
    assert_true(fabs(e.weights - sqrt(sums[0] / sums[1])) < 1e-5);
    assert_true(fabs(e.outputs - sqrt(sums[2] / sums[3])) < 1e-4);
    assert_true(mi_rounding_error(&r, NULL).outputs < 0);
    mi_rounding_free(&r);
}

/* ---- AWQ ----------------------------------------------------------------------------- */

enum { AWQ_IN = 96, AWQ_ROWS = 120, HEADS = 3, DIM = 16 /* two heads share one of v */ };

/* A source of matrices, [out][AWQ_IN] each. */
static bool decode(void *self, const MiWeight *w, int64_t first, int64_t n, float *out, GError **error)
{
    (void)self;
    (void)error;
    memcpy(out, (const float *)w->data + first, (size_t)n * sizeof *out);
    return true;
}

/* Of eight ranges of n weights the scale by least squares and the error, both weighted by w^2 and its mean. */
typedef struct { double scale, error; int zero; } SlowRange;

static void slow_ranges(const MiGrid *g, const float *w, int64_t n, SlowRange found[8])
{
    double low = 0, high = 0, mean = 0;

    for (int64_t i = 0; i < n; i++) {
        low = MIN(low, (double)w[i]);
        high = MAX(high, (double)w[i]);
        mean += (double)w[i] * (double)w[i] / (double)n;
    }
    for (int k = 0; k < 8; k++) {
        const double part = 1 - 0.05 * k;
        const bool   turned = g->symmetric && high > -low; /* the larger end has eight of the sixteen codes */
        double       codes[1024], up = 0, down = 0, error = 0;
        float        scale;
        uint8_t      zero;
        mi_grid_range(g, (float)((turned ? -high : low) * part), (float)((turned ? -low : high) * part), &scale, &zero);
        scale = turned ? -scale : scale;
        for (int64_t i = 0; i < n; i++) {
            const double weight = (double)w[i] * (double)w[i] + mean;
            codes[i] = (double)(CLAMP(rintf(w[i] / scale) + (float)zero, 0, 15) - (float)zero);
            up += weight * codes[i] * (double)w[i];
            down += weight * codes[i] * codes[i];
        }
        for (int64_t i = 0; i < n; i++)
            error += ((double)w[i] * (double)w[i] + mean) * pow((double)w[i] - up / down * codes[i], 2);
        found[k] = (SlowRange){ up / down, error, zero };
    }
}

static const SlowRange *least(const SlowRange found[8])
{
    const SlowRange *best = found;

    for (int k = 1; k < 8; k++)
        best = found[k].error < best->error ? &found[k] : best;
    return best;
}

/* |X (Q(W s) / s - W)'|^2 / |X W'|^2, row by row of X. */
static double slow_error(const float *x, const MiWeight *w, const float *s, const MiGrid *g)
{
    const float *m = w->data;
    double       off = 0, all = 0;

    for (int64_t o = 0; o < w->shape[0]; o++) {
        double d[AWQ_IN];
        for (int64_t k = 0; k < AWQ_IN; k += g->group) {
            const int64_t end = MIN(k + g->group, AWQ_IN);
            float         scaled[AWQ_IN];
            SlowRange     ranges[8];
            for (int64_t i = k; i < end; i++)
                scaled[i - k] = m[o * AWQ_IN + i] * s[i];
            slow_ranges(g, scaled, end - k, ranges);
            const float scale = (float)least(ranges)->scale, zero = (float)least(ranges)->zero;
            for (int64_t i = k; i < end; i++) {
                const float code = CLAMP(rintf(scaled[i - k] / scale) + zero, 0, 15);
                d[i] = (double)(scale * (code - zero)) / (double)s[i] - (double)m[o * AWQ_IN + i];
            }
        }
        for (int t = 0; t < AWQ_ROWS; t++) {
            double a = 0, b = 0;
            for (int i = 0; i < AWQ_IN; i++) {
                a += d[i] * (double)x[t * AWQ_IN + i];
                b += (double)m[o * AWQ_IN + i] * (double)x[t * AWQ_IN + i];
            }
            off += a * a;
            all += b * b;
        }
    }
    return off / all;
}

/* Rows of which some inputs are much larger; with their sums. */
static float *inputs(float *hessian, float *magnitudes)
{
    float *x = floats(AWQ_ROWS * AWQ_IN);

    for (int t = 0; t < AWQ_ROWS; t++)
        for (int i = 0; i < AWQ_IN; i++)
            x[t * AWQ_IN + i] *= i % 13 == 4 ? 20.0f : i % 5 == 0 ? 0.1f : 1.0f;
    for (int t = 0; t < AWQ_ROWS; t++)
        for (int i = 0; i < AWQ_IN; i++) {
            magnitudes[i] += fabsf(x[t * AWQ_IN + i]);
            for (int j = 0; j < AWQ_IN; j++)
                hessian[i * AWQ_IN + j] += x[t * AWQ_IN + i] * x[t * AWQ_IN + j];
        }
    return x;
}

/* Every alpha tried with the inputs themselves: the one that is found is the best of them, and its scales are what they should. */
static void searches_scales(void **state)
{
    static const MiGrid grids[] = { { 4, 32, true, false }, { 4, 64, false, false } };
    const MiFormat      format = { .struct_size = sizeof format, .decode = decode };
    const MiSource      source = { &format, NULL };

    (void)state;
    for (int shared = 0; shared < 2; shared++) {
        const MiGrid     *g = &grids[shared];
        const int64_t     n = shared ? HEADS * DIM : AWQ_IN;
        g_autofree float *h = g_new0(float, AWQ_IN * AWQ_IN), *mean = g_new0(float, AWQ_IN), *x = inputs(h, mean);
        g_autofree float *a = floats(40 * AWQ_IN), *b = floats(9 * AWQ_IN), *gain = floats(n), *scales = g_new(float, n);
        MiWeight          m[2] = { { .name = "a", .ndim = 2, .shape = { 40, AWQ_IN }, .data = a, .source = &source },
                                   { .name = "b", .ndim = 2, .shape = { 9, AWQ_IN }, .data = b, .source = &source } };
        g_autoptr(GPtrArray) to = g_ptr_array_new();
        const MiFold      fold = { &m[0], NULL, NULL, n, shared ? DIM : n, shared ? 2 : 1, to };
        double            alpha = -1, best = 1e9, plain = 0, at[20];
        g_ptr_array_add(to, &m[0]);
        g_ptr_array_add(to, &m[1]);
        gain[7] = 0;
        assert_true(mi_fold_search(&fold, g, h, mean, shared ? NULL : gain, scales, &alpha, NULL));
        for (int step = 0; step < 20; step++) {
            double tied[AWQ_IN] = { 0 }, most = 0, least = 1e30;
            float  s[AWQ_IN];
            for (int i = 0; i < AWQ_IN; i++) /* heads 0 and 1 read v's first, 2 and 3 its second */
                tied[shared ? i / DIM / 2 * DIM + i % DIM : i] += (double)mean[i];
            for (int64_t c = 0; c < n; c++)
                most = MAX(most, tied[c]), least = MIN(least, tied[c]);
            for (int i = 0; i < AWQ_IN; i++) {
                const int c = shared ? i / DIM / 2 * DIM + i % DIM : i;
                s[i] = step ? (float)pow(tied[c] / sqrt(most * least), step / 20.0) : 1;
                if (fabs(alpha - step / 20.0) < 1e-9 && !(fabsf(scales[c] - s[i]) <= s[i] / 128))
                    fail_msg("scale %d is %g, not %g", c, (double)scales[c], (double)s[i]);
            }
            at[step] = slow_error(x, &m[0], s, g) + slow_error(x, &m[1], s, g);
            best = MIN(best, at[step]);
            plain = step ? plain : at[0];
        }
        if (!(at[(int)lrint(alpha * 20)] <= 1.03 * best)) /* scales move a little for the gain, sums are of f32 */
            fail_msg("alpha %g has error %g, the best has %g", alpha, at[(int)lrint(alpha * 20)], best);
        assert_true(alpha > 0 && best < 0.8 * plain);
        for (int64_t c = 0; c < n && !shared; c++) {
            const float stored = gain[c] / scales[c];
            uint32_t    bits;
            memcpy(&bits, &stored, sizeof bits);
            assert_true(((bits + 2) & 0xffff) <= 4); /* a value of bf16, or next to it where the division rounds */
        }
    }
}

/* The range that is chosen is one of eight, none has less error, and it is not always all of it. */
static void fits_by_weighted_squares(void **state)
{
    static const MiGrid grids[] = { { 4, 32, true, false }, { 4, 64, false, false }, { 4, 0, true, false } };

    (void)state;
    for (size_t k = 0; k < G_N_ELEMENTS(grids); k++) {
        const MiGrid *g = &grids[k];
        MiRounding    r = rounding(40, 192, g);
        int           cut = 0;
        for (int i = 0; i < 40 * 192; i += 31)
            r.w[i] *= 3;
        mi_rounding_fit(&r, g, true);
        for (int64_t at = 0; at < r.out * r.groups; at++) {
            SlowRange ranges[8];
            double    got = -1;
            slow_ranges(g, r.w + at / r.groups * r.in + at % r.groups * r.group, r.group, ranges);
            for (int i = 0; i < 8; i++)
                if (fabs(ranges[i].scale / (double)r.scales[at] - 1) < 6e-4 && ranges[i].zero == r.zeros[at] &&
                    (got < 0 || ranges[i].error < got)) /* scales are of f16 */
                    got = ranges[i].error;
            if (!(got >= 0 && got <= 1.0001 * least(ranges)->error))
                fail_msg("grid %d, group %d: error %g with %g, the best has %g", (int)k, (int)at, got, (double)r.scales[at],
                         least(ranges)->error);
            cut += least(ranges) != ranges;
        }
        assert_true(cut > 0 && cut < r.out * r.groups);
        mi_rounding_free(&r);
    }
}

/* The slope of row o's outputs upon the right ones, W' as it was before scaling by columns. */
static double slope_of(const MiRounding *r, const float *x, int64_t o)
{
    double same = 0, all = 0;

    for (int t = 0; t < AWQ_ROWS; t++) {
        double y = 0, right = 0;
        for (int64_t i = 0; i < AWQ_IN; i++) {
            const int64_t at = o * r->groups + i / r->group;
            const double  back = (double)x[t * AWQ_IN + i] / (double)r->columns[i];
            y += (double)r->scales[at] * (r->codes[o * AWQ_IN + i] - r->zeros[at]) * back;
            right += (double)r->w[o * AWQ_IN + i] * back;
        }
        same += y * right;
        all += right * right;
    }
    return same / all;
}

static void makes_rows_level(void **state)
{
    static const MiGrid grids[] = { { 4, 64, true, false }, { 4, 64, false, false } };

    (void)state;
    for (size_t k = 0; k < G_N_ELEMENTS(grids); k++) {
        const MiGrid     *g = &grids[k];
        g_autofree float *h = g_new0(float, AWQ_IN * AWQ_IN), *mean = g_new0(float, AWQ_IN), *x = inputs(h, mean);
        g_autofree float *columns = g_new(float, AWQ_IN);
        MiRounding        r = rounding(7, AWQ_IN + g->group - AWQ_IN % g->group, g);
        double            furthest = 0;

        r.in = AWQ_IN; /* the last group has less */
        for (int i = 0; i < AWQ_IN; i++)
            columns[i] = 0.5f + (float)i / AWQ_IN;
        mi_rounding_scale(&r, columns, NULL);
        mi_rounding_fit(&r, g, false);
        mi_round_nearest(&r, g);
        for (int64_t o = 0; o < r.out; o++)
            furthest = MAX(furthest, fabs(slope_of(&r, x, o) - 1));
        assert_true(furthest > 4e-3);
        assert_true(mi_rounding_level(&r, h));
        for (int64_t o = 0; o < r.out; o++) {
            const double slope = slope_of(&r, x, o);
            if (!(fabs(slope - 1) < 2e-3)) /* scales are of f16 */
                fail_msg("grid %d: row %d has slope %g", (int)k, (int)o, slope);
        }
        mi_rounding_free(&r);
    }
}

TEST_MAIN(cmocka_unit_test(multiplies), cmocka_unit_test(factors), cmocka_unit_test(rounds_to_the_nearest),
          cmocka_unit_test(errors_are_what_they_say), cmocka_unit_test(searches_scales),
          cmocka_unit_test(gptq_is_the_papers),
          cmocka_unit_test(rounds_to_e4m3), cmocka_unit_test(rows_held_back_choose_the_damping),
          cmocka_unit_test(fits_by_weighted_squares), cmocka_unit_test(makes_rows_level));
