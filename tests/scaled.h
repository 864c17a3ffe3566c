/* scaled.h - a slow model of what a cache with scales keeps: nearest numbers by the definition of E4M3, nothing of the
 * code under test. */
#ifndef TESTS_SCALED_H
#define TESTS_SCALED_H

#include <math.h>
#include <miniinfer/types.h>

/* What a code stands for; NaN: nothing. */
static inline double scaled_code(MiDType t, int code)
{
    const int exponent = code >> 3 & 15, fraction = code & 7;

    if (t == MI_I8)
        return (int8_t)code;
    if ((code & 0x7f) == 0x7f)
        return NAN;
    return (code & 0x80 ? -1 : 1) * (exponent ? ldexp(8 + fraction, exponent - 10) : ldexp(fraction, -9));
}

/* The nearest number of the type, of two the even one. */
static inline double scaled_nearest(MiDType t, double x)
{
    const double most = t == MI_I8 ? 127 : 448, a = fabs(x);
    const double step = t == MI_I8 ? 1 : ldexp(1, (a < ldexp(1, -6) ? -6 : ilogb(a)) - 3);

    return copysign(fmin(nearbyint(a / step) * step, most), x);
}

/* The least bf16 by which no element is more than the largest number; 1 for zeros. */
static inline double scaled_scale(MiDType t, const float *x, int n)
{
    double largest = 0;

    for (int i = 0; i < n; i++)
        largest = fmax(largest, fabs(x[i]));
    const double exact = largest / (t == MI_I8 ? 127 : 448);
    return largest > 0 ? ceil(ldexp(exact, 7 - ilogb(exact))) * ldexp(1, ilogb(exact) - 7) : 1;
}

/* A vector as it comes back. */
static inline void scaled_round(MiDType t, const float *x, int n, float *y)
{
    const double scale = scaled_scale(t, x, n);

    for (int i = 0; i < n; i++)
        y[i] = (float)(scaled_nearest(t, (double)(x[i] * (1 / (float)scale))) * scale);
}

#endif
