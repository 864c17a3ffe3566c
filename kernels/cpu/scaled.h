/* scaled.h - vectors of 8-bit numbers that share a scale: keys and values of caches, rows of weights.
 *
 * E4M3 (OCP 8-bit floating point, 2023): sign, 4 bits of exponent (bias 7), 3 of fraction; the largest
 * is 448, there is no infinity, 0x7f and 0xff are NaN.  A scale is a bf16, rounded up, so that the largest
 * element of a vector is at most the largest number; a vector of zeros has the scale 1. */
#ifndef MI_KERNELS_CPU_SCALED_H
#define MI_KERNELS_CPU_SCALED_H

#include <math.h>
#include <miniinfer/scales.h>
#include <string.h>

MI_INLINE float mi_scale_value(uint16_t scale)
{
    const uint32_t u = (uint32_t)scale << 16;
    float          x;

    memcpy(&x, &u, sizeof x);
    return x;
}

MI_INLINE float mi_e4m3_to_f32(uint8_t e)
{
    const uint32_t u = (uint32_t)(e & 0x80) << 24 | (uint32_t)(e & 0x7f) << 20;
    float          x;

    if ((e & 0x7f) == 0x7f)
        return NAN;
    memcpy(&x, &u, sizeof x);
    return x * 0x1p120f;
}

/* To nearest, ties to even; what is larger becomes 448. */
MI_INLINE uint8_t mi_f32_to_e4m3(float x)
{
    const float a = fabsf(x);
    uint32_t    u;
    uint8_t     e;

    if (a >= 0x1p-6f) {
        memcpy(&u, &a, sizeof u);
        u += 0x7ffff + (u >> 20 & 1);
        e = (uint8_t)(a >= 448 ? 0x7e : (u >> 20) - (120 << 3));
    } else {
        const float magic = 0x1p14f; /* its last place is 2^-9, the least number */
        const float y = a + magic;
        memcpy(&u, &y, sizeof u);
        e = (uint8_t)(isnan(x) ? 0x7f : u & 0xf);
    }
    return (uint8_t)(e | (signbit(x) ? 0x80 : 0));
}

/* Of elements up to largest in magnitude; largest_code: what of the stored type stands for it. */
MI_INLINE uint16_t mi_scale_of(float largest, float largest_code)
{
    const float x = largest / largest_code;
    uint32_t    u;

    if (!(largest < INFINITY))
        return 0x7fc0; /* NaN, and all of the vector with it */
    if (largest < 0x1p-100f)
        return 0x3f80;
    memcpy(&u, &x, sizeof u);
    return (uint16_t)((u + 0xffff) >> 16);
}

/* Of x - shift, or of x where that is NULL. */
MI_INLINE float mi_largest(const float *x, const float *shift, int64_t n)
{
    float largest = 0;

    for (int64_t i = 0; i < n; i++) {
        const float a = fabsf(shift ? x[i] - shift[i] : x[i]);
        largest = a > largest || isnan(a) ? a : largest;
    }
    return largest;
}

/* n numbers of dtype, MI_F8 or MI_I8, of x - shift, NULL: of x, to `to`; their scale. */
MI_INLINE uint16_t mi_scaled_store(MiDType dtype, const float *x, const float *shift, int64_t n, void *to)
{
    const uint16_t scale = mi_scale_of(mi_largest(x, shift, n), dtype == MI_F8 ? 448 : 127);
    const float    by = 1 / mi_scale_value(scale);

    for (int64_t i = 0; i < n; i++) {
        const float y = (shift ? x[i] - shift[i] : x[i]) * by;
        if (dtype == MI_F8)
            ((uint8_t *)to)[i] = mi_f32_to_e4m3(y);
        else
            ((int8_t *)to)[i] = (int8_t)(isnan(y) ? 0 : lrintf(fminf(fmaxf(y, -127), 127)));
    }
    return scale;
}

MI_INLINE float mi_scaled_at(MiDType dtype, const void *x, int64_t i)
{
    return dtype == MI_F8 ? mi_e4m3_to_f32(((const uint8_t *)x)[i]) : ((const int8_t *)x)[i];
}

#endif
