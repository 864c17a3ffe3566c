#include "numbers.h"

#include <math.h>
#include <string.h>

static uint16_t bf16_of(float x)
{
    uint32_t u;

    memcpy(&u, &x, sizeof u);
    if ((u & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(u >> 16 | 0x40); /* a NaN stays one */
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

/* To nearest, ties to even; too large: infinity. */
static uint16_t f16_of(float x)
{
    uint32_t       u;
    memcpy(&u, &x, sizeof u);
    const uint32_t sign = u >> 16 & 0x8000, abs = u & 0x7fffffff;

    if (abs > 0x7f800000)
        return (uint16_t)(sign | 0x7e00);
    if (abs >= 0x477ff000)
        return (uint16_t)(sign | 0x7c00);
    if (abs < 0x38800000) { /* below the least normal: a multiple of 2^-24 */
        float m, magic = 0.5f;
        memcpy(&m, &abs, sizeof m);
        m += magic; /* its last place is 2^-24 */
        memcpy(&u, &m, sizeof u);
        return (uint16_t)(sign | (u - 0x3f000000));
    }
    return (uint16_t)(sign | ((abs + 0xfff + (abs >> 13 & 1) - 0x38000000) >> 13));
}

static float of_bits(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

static float of_f16(uint16_t h)
{
    const uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 0x3ff;

    if (exponent == 31)
        return of_bits(sign | 0x7f800000 | fraction << 13);
    if (exponent)
        return of_bits(sign | (exponent + 112) << 23 | fraction << 13);
    return (sign ? -1.0f : 1.0f) * (float)fraction * 0x1p-24f;
}

void mi_numbers_to(MiDType dtype, const float *x, int64_t n, void *out)
{
    for (int64_t i = 0; i < n; i++)
        switch (dtype) {
        case MI_BF16: ((uint16_t *)out)[i] = bf16_of(x[i]); break;
        case MI_F16: ((uint16_t *)out)[i] = f16_of(x[i]); break;
        case MI_I32: ((int32_t *)out)[i] = (int32_t)x[i]; break;
        default: ((float *)out)[i] = x[i]; break;
        }
}

void mi_numbers_from(MiDType dtype, const void *x, int64_t n, float *out)
{
    for (int64_t i = 0; i < n; i++)
        switch (dtype) {
        case MI_BF16: out[i] = of_bits((uint32_t)((const uint16_t *)x)[i] << 16); break;
        case MI_F16: out[i] = of_f16(((const uint16_t *)x)[i]); break;
        case MI_I32: out[i] = (float)((const int32_t *)x)[i]; break;
        default: out[i] = ((const float *)x)[i]; break;
        }
}

float mi_number_as(MiDType dtype, float x)
{
    uint16_t half;

    if (dtype != MI_BF16 && dtype != MI_F16)
        return x;
    mi_numbers_to(dtype, &x, 1, &half);
    mi_numbers_from(dtype, &half, 1, &x);
    return x;
}

/* ---- with scales ------------------------------------------------------------------- */

/* Steps are of an eighth of the power of two below, down to 2^-9. */
uint8_t mi_number_to_f8(float x)
{
    const float a = fminf(fabsf(x), 448);
    const int   e = a < 0x1p-6f ? -6 : ilogbf(a), code = isnan(x) ? 0x7f : (e + 6) * 8 + (int)nearbyintf(ldexpf(a, 3 - e));

    return (uint8_t)(code | (signbit(x) ? 0x80 : 0));
}

float mi_number_from_f8(uint8_t code)
{
    const int   e = code >> 3 & 15 ? code >> 3 & 15 : 1, fraction = code & 7;
    const float a = (code & 0x7f) == 0x7f ? NAN : ldexpf((float)((code >> 3 & 15 ? 8 : 0) + fraction), e - 10);

    return code & 0x80 ? -a : a;
}

static uint16_t scale_of(float largest, float most)
{
    const float exact = largest / most;
    uint32_t    u;

    if (!(largest < INFINITY))
        return 0x7fc0;
    if (largest < 0x1p-100f)
        return 0x3f80;
    memcpy(&u, &exact, sizeof u);
    return (uint16_t)((u + 0xffff) >> 16);
}

float mi_scale_for(MiDType dtype, float largest)
{
    return of_bits((uint32_t)scale_of(largest, dtype == MI_F8 ? 448 : 127) << 16);
}

uint16_t mi_scaled_to(MiDType dtype, const float *x, const float *shift, int64_t n, uint8_t *codes)
{
    float largest = 0;

    for (int64_t i = 0; i < n; i++) {
        const float a = fabsf(shift ? x[i] - shift[i] : x[i]);
        largest = a > largest || isnan(a) ? a : largest;
    }
    const uint16_t scale = scale_of(largest, dtype == MI_F8 ? 448 : 127);
    const float    by = 1 / of_bits((uint32_t)scale << 16);
    for (int64_t i = 0; i < n; i++) {
        const float y = (shift ? x[i] - shift[i] : x[i]) * by;
        codes[i] = dtype == MI_F8 ? mi_number_to_f8(y) : (uint8_t)(int8_t)(isnan(y) ? 0 : nearbyintf(fminf(fmaxf(y, -127), 127)));
    }
    return scale;
}

void mi_scaled_from(MiDType dtype, const uint8_t *codes, uint16_t scale, int64_t n, float *out)
{
    for (int64_t i = 0; i < n; i++)
        out[i] = (dtype == MI_F8 ? mi_number_from_f8(codes[i]) : (float)(int8_t)codes[i]) * of_bits((uint32_t)scale << 16);
}
