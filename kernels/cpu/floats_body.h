/* floats_body.h - the loops of floats.h for one instruction set: LANES, FLOATS
 * and FLOATS_NAME are defined by who includes it. */
#include <cpu/blocks.h>
#include <cpu/scaled.h>
#include <cpu/vectors.h>
#include <math.h>

/* ---- element by element; the last, short vector goes through a buffer -------- */

#define UNARY(name, value)                                         \
    static void name(const float *x, float *y, int64_t n)          \
    {                                                              \
        int64_t i = 0;                                             \
        for (; i + LANES <= n; i += LANES) {                       \
            const V v = load(x + i);                               \
            store(y + i, value);                                   \
        }                                                          \
        if (i < n) {                                               \
            const V v = first_lanes(x + i, n - i), last = value;   \
            memcpy(y + i, &last, (size_t)(n - i) * sizeof *y);     \
        }                                                          \
    }
#define BINARY(name, value)                                                                     \
    static void name(const float *a, const float *b, float *y, int64_t n)                       \
    {                                                                                           \
        int64_t i = 0;                                                                          \
        for (; i + LANES <= n; i += LANES) {                                                    \
            const V v = load(a + i), w = load(b + i);                                           \
            store(y + i, value);                                                                \
        }                                                                                       \
        if (i < n) {                                                                            \
            const V v = first_lanes(a + i, n - i), w = first_lanes(b + i, n - i), last = value; \
            memcpy(y + i, &last, (size_t)(n - i) * sizeof *y);                                  \
        }                                                                                       \
    }

BINARY(add, v + w)
BINARY(mul, v * w)
UNARY(silu, v * sigmoid_of(v))
UNARY(sigmoid, sigmoid_of(v))
UNARY(tanh_all, tanh_of(v))
UNARY(gelu_tanh, v * sigmoid_of(v * (1.59576912f + 0.0713548163f * (v * v))))
UNARY(gelu_erf, gelu_of(v))

static void leaky_relu(const float *x, float *y, int64_t n, float slope)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = x[i] > 0 ? x[i] : slope * x[i];
}

static void scale_by(const float *x, float *y, int64_t n, float by)
{
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        store(y + i, load(x + i) * by);
    for (; i < n; i++)
        y[i] = x[i] * by;
}

static void affine(const float *x, const float *w, float *y, int64_t n, float scale, float offset)
{
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        store(y + i, load(x + i) * scale * (offset + load(w + i)));
    for (; i < n; i++)
        y[i] = x[i] * scale * (offset + w[i]);
}

/* ---- reductions --------------------------------------------------------------- */

static float max_all(const float *x, int64_t n)
{
    V       m = all(x[0]);
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        m = maximum(load(x + i), m);
    float max = max_of(m);
    for (; i < n; i++)
        max = x[i] > max ? x[i] : max;
    return max;
}

INLINE D widen(const float *p)
{
    Half h;
    memcpy(&h, p, sizeof h);
    return __builtin_convertvector(h, D);
}

INLINE double total(D v)
{
    double sum = 0;
    for (int i = 0; i < LANES / 2; i++)
        sum += v[i];
    return sum;
}

static double sum_squares(const float *x, int64_t n)
{
    D       sum[2] = { { 0 }, { 0 } };
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        UNROLL(2) for (int k = 0; k < 2; k++) {
            const D v = widen(x + i + k * (LANES / 2));
            sum[k] += v * v;
        }
    double all_of_it = total(sum[0] + sum[1]);
    for (; i < n; i++)
        all_of_it += (double)x[i] * x[i];
    return all_of_it;
}

static double exp_sum(const float *x, float *y, int64_t n, float shift)
{
    D sum = { 0 };
    for (int64_t i = 0; i < n; i += LANES) {
        const int64_t rest = n - i < LANES ? n - i : LANES;
        float         e[LANES];
        V             v = all(-INFINITY);
        if (rest == LANES)
            v = load(x + i);
        else
            memcpy(&v, x + i, (size_t)rest * sizeof *x);
        store(e, exp_of(v - shift));
        sum += widen(e) + widen(e + LANES / 2);
        if (y)
            memcpy(y + i, e, (size_t)rest * sizeof *y);
    }
    return total(sum);
}

/* ---- angles --------------------------------------------------------------------
 * The angle is a float, as in other implementations; a multiple of pi/2 is taken
 * off in double, so that long contexts lose nothing. */

INLINE void sincos_of(D angle, D *sine, D *cosine)
{
    const D  magic = (D){ 0 } + 6755399441055744.0; /* 1.5 * 2^52: rounds to the integer k */
    const D  shifted = angle * 0.63661977236758134 + magic, k = shifted - magic;
    const D  r = (angle - k * 1.5707963267948966) - k * 6.123233995736766e-17, z = r * r;
    const DI quarter = (DI)shifted;
    const D  s = r + r * z * (-0.166666666406 + z * (0.00833332926672 +
                 z * (-0.000198392961283 + z * 2.71793987021e-06)));
    const D  c = 1.0 - 0.5 * z + z * z * (0.0416666666211 + z * (-0.00138888835984 +
                 z * (2.47994786509e-05 - z * 2.72067899805e-07)));
    const DI swap = -(quarter & 1), negate_s = (quarter & 2) << 62, negate_c = ((quarter + 1) & 2) << 62;
    *sine = (D)((((DI)c & swap) | ((DI)s & ~swap)) ^ negate_s);
    *cosine = (D)((((DI)s & swap) | ((DI)c & ~swap)) ^ negate_c);
}

static void sincos_all(float position, const float *frequency, float magnitude, float *cosine, float *sine, int64_t n)
{
    enum { STEP = LANES / 2 };
    for (int64_t i = 0; i < n; i += STEP) {
        const int64_t rest = n - i < STEP ? n - i : STEP;
        float         angle[STEP] = { 0 };
        D             s, c;
        Half          hs, hc;
        for (int64_t j = 0; j < rest; j++)
            angle[j] = position * frequency[i + j];
        sincos_of(widen(angle), &s, &c);
        hs = __builtin_convertvector(s, Half) * magnitude, hc = __builtin_convertvector(c, Half) * magnitude;
        memcpy(sine + i, &hs, (size_t)rest * sizeof *sine);
        memcpy(cosine + i, &hc, (size_t)rest * sizeof *cosine);
    }
}

/* ---- conversions ---------------------------------------------------------------- */

static void to_f16(const float *x, uint16_t *y, int64_t n)
{
    int64_t i = 0;
#if LANES == 16
    for (; i + 16 <= n; i += 16)
        _mm256_storeu_si256((void *)(y + i), _mm512_cvtps_ph(_mm512_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT));
#elif LANES == 8
    for (; i + 8 <= n; i += 8)
        _mm_storeu_si128((void *)(y + i), _mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT));
#endif
    for (; i < n; i++)
        y[i] = mi_f32_to_f16(x[i]);
}

static void to_bf16(const float *x, uint16_t *y, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = mi_f32_to_bf16(x[i]);
}

#include <cpu/attend_body.h>

const MiFloats FLOATS = {
    .name = FLOATS_NAME,
    .add = add,
    .mul = mul,
    .silu = silu,
    .sigmoid = sigmoid,
    .tanh = tanh_all,
    .gelu_tanh = gelu_tanh,
    .gelu_erf = gelu_erf,
    .leaky_relu = leaky_relu,
    .scale = scale_by,
    .affine = affine,
    .max = max_all,
    .sum_squares = sum_squares,
    .exp_sum = exp_sum,
    .sincos = sincos_all,
    .to_f16 = to_f16,
    .to_bf16 = to_bf16,
    .attend = attend,
    .merge = merge,
};
