/* vectors.h - LANES floats as one value, in the vector extension of GCC and
 * Clang.  Included once by each file that is compiled for an instruction set. */
#include <string.h>

typedef float    V __attribute__((vector_size(LANES * 4)));
typedef int32_t  VI __attribute__((vector_size(LANES * 4)));
typedef uint32_t VU __attribute__((vector_size(LANES * 4)));
typedef float    Half __attribute__((vector_size(LANES * 2))); /* half as many, for arithmetic in double */
typedef double   D __attribute__((vector_size(LANES * 4)));
typedef int64_t  DI __attribute__((vector_size(LANES * 4)));

#define INLINE static inline __attribute__((always_inline))
#define PRAGMA(x) _Pragma(#x)
#ifdef __clang__
#define UNROLL(n) PRAGMA(unroll n)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define UNROLL(n) PRAGMA(GCC unroll n)
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (VI){ __VA_ARGS__ })
#endif

INLINE V    load(const float *p) { V v; memcpy(&v, p, sizeof v); return v; }
INLINE void store(float *p, V v) { memcpy(p, &v, sizeof v); }
INLINE V    all(float x) { return (V){ 0 } + x; }
INLINE V    first_lanes(const float *p, int64_t n) { V v = { 0 }; memcpy(&v, p, (size_t)n * sizeof *p); return v; }
INLINE V    choose(VI mask, V a, V b) { return (V)(((VI)a & mask) | ((VI)b & ~mask)); }
INLINE V    bits(VU u) { return (V)u; }

/* Of a NaN in b: b. */
INLINE V maximum(V a, V b)
{
#if LANES == 16
    return (V)_mm512_max_ps((__m512)a, (__m512)b);
#elif LANES == 8
    return (V)_mm256_max_ps((__m256)a, (__m256)b);
#else
    return choose(a > b, a, b);
#endif
}
INLINE V minimum(V a, V b)
{
#if LANES == 16
    return (V)_mm512_min_ps((__m512)a, (__m512)b);
#elif LANES == 8
    return (V)_mm256_min_ps((__m256)a, (__m256)b);
#else
    return choose(a < b, a, b);
#endif
}

/* In a fixed order: halves onto each other. */
INLINE float sum_of(V v)
{
#if LANES == 16
    return _mm512_reduce_add_ps((__m512)v);
#else
    float x[LANES];
    store(x, v);
    UNROLL(4) for (int n = LANES / 2; n > 0; n /= 2)
        UNROLL(8) for (int i = 0; i < n; i++)
            x[i] += x[i + n];
    return x[0];
#endif
}
INLINE float max_of(V v)
{
#if LANES == 16
    return _mm512_reduce_max_ps((__m512)v);
#else
    float x[LANES];
    store(x, v);
    UNROLL(4) for (int n = LANES / 2; n > 0; n /= 2)
        UNROLL(8) for (int i = 0; i < n; i++)
            x[i] = x[i] > x[i + n] ? x[i] : x[i + n];
    return x[0];
#endif
}

/* e^x = 2^k e^r with |r| <= ln 2 / 2; adding 1.5 * 2^23 rounds to the integer k. */
INLINE V exp_of(V x)
{
    const V magic = all(12582912.0f);
    x = minimum(all(89.0f), maximum(all(-88.0f), x));
    const V shifted = x * 1.44269504f + magic, k = shifted - magic;
    const V r = (x - k * 0.693359375f) + k * 2.12194440e-4f;
    V       p = all(1.97892617e-4f);
    p = p * r + 1.39457524e-3f;
    p = p * r + 8.33350376e-3f;
    p = p * r + 4.16662803e-2f;
    p = p * r + 1.66666658e-1f;
    p = p * r + 5.00000007e-1f;
    p = p * (r * r) + r + 1.0f;
    return p * bits(((VU)shifted + (127u - 0x4b400000u)) << 23);
}

INLINE V sigmoid_of(V x) { return 1.0f / (1.0f + exp_of(-x)); }

/* Odd polynomial about zero, by e^2x elsewhere. */
INLINE V tanh_of(V x)
{
    const V size = bits((VU)x & 0x7fffffffu), z = x * x;
    V       p = all(-8.1826764e-3f) + z * 2.14753893e-3f;
    p = p * z + 2.17029683e-2f;
    p = p * z - 5.39472045e-2f;
    p = p * z + 1.33332098e-1f;
    p = p * z - 3.33333309e-1f;
    const V near_zero = x + x * (z * p), far = 1.0f - 2.0f / (exp_of(size * 2.0f) + 1.0f);
    return choose(size < 0.625f, near_zero, bits((VU)far | ((VU)x & 0x80000000u)));
}

/* x Phi(x) = x erfc(-x / sqrt 2) / 2; erfc(z) = e^-z^2 Q(1 / (1 + 0.4 z)) for z >= 0. */
INLINE V gelu_of(V x)
{
    const V z = bits((VU)x & 0x7fffffffu) * 0.70710678f, t = 1.0f / (1.0f + 0.4f * z);
    V       q = all(2.86961035e-2f);
    q = q * t - 7.47507157e-2f;
    q = q * t - 6.36826665e-2f;
    q = q * t + 2.75784002e-1f;
    q = q * t - 6.85637430e-2f;
    q = q * t + 2.68636252e-1f;
    q = q * t + 1.77416737e-1f;
    q = q * t + 2.31355072e-1f;
    q = q * t + 2.25082584e-1f;
    q = q * t + 2.64048914e-5f;
    const V tail = 0.5f * q * exp_of(-z * z);
    return x * choose(x > 0.0f, 1.0f - tail, tail);
}
