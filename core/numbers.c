#include "numbers.h"

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
