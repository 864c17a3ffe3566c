/* scaled.cuh - caches whose keys and values are 8-bit numbers with a scale for each position and head: E4M3 or
 * integers to and from f16, which holds each of them exactly. */
#ifndef KERNELS_CUDA_SCALED_CUH
#define KERNELS_CUDA_SCALED_CUH

#include <cuda/device.cuh>

/* What a cache's elements are, as types: their numbers are bytes. */
struct F8 {
    uint8_t code;
};
struct I8 {
    int8_t code;
};
template <typename K> constexpr bool SCALED = sizeof(K) == 1;

/* ---- four numbers as two times two f16 -------------------------------------------------- */

/* The bytes 0 and 1, 2 and 3 of x. */
template <typename K> __device__ __forceinline__ void halves(unsigned x, unsigned &low, unsigned &high);

template <> __device__ __forceinline__ void halves<I8>(unsigned x, unsigned &low, unsigned &high)
{
    const unsigned shifted = x ^ 0x80808080u, two = 0x64006400u, bias = 0x64806480u; /* 1024 + x + 128, minus 1152 */
    const unsigned a = __byte_perm(shifted, two, 0x5150), b = __byte_perm(shifted, two, 0x5352);

    asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(low) : "r"(a), "r"(bias));
    asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(high) : "r"(b), "r"(bias));
}

template <> __device__ __forceinline__ void halves<F8>(unsigned x, unsigned &low, unsigned &high)
{
#if __CUDA_ARCH__ >= 890
    asm("{ .reg .b16 a, b; mov.b32 {a, b}, %2; cvt.rn.f16x2.e4m3x2 %0, a; cvt.rn.f16x2.e4m3x2 %1, b; }"
        : "=r"(low), "=r"(high)
        : "r"(x));
#else
    const unsigned eight = 0x5c005c00u; /* 2^8 twice: of the bits as f16 the exponent is so much too small */
    const unsigned a = __byte_perm(x, 0, 0x1404), b = __byte_perm(x, 0, 0x3424);
    const unsigned u = (a & 0x80008000u) | (a & 0x7f007f00u) >> 1, v = (b & 0x80008000u) | (b & 0x7f007f00u) >> 1;

    asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(low) : "r"(u), "r"(eight));
    asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(high) : "r"(v), "r"(eight));
#endif
}

/* The same with the bytes 0 and 2, 1 and 3: of two positions, as a transposing load leaves them. */
template <typename K> __device__ __forceinline__ void halves_of_pairs(unsigned x, unsigned &even, unsigned &odd)
{
    halves<K>(__byte_perm(x, 0, 0x3120), even, odd);
}

template <typename K> __device__ __forceinline__ float number(K x);
template <> __device__ __forceinline__ float           number<I8>(I8 x) { return x.code; }
template <> __device__ __forceinline__ float           number<F8>(F8 x)
{
    unsigned low, high;
    halves<F8>(x.code, low, high);
    return __low2float(*(const __half2 *)&low);
}

/* Queries beside such keys, in shared memory: of each 16 elements the pairs 0, 2, 4, 6 come first, then 1, 3, 5, 7.  Where in a row
 * its chunk of eight elements begins; and those, times the scale of scores, as f16 from there on. */
__device__ __forceinline__ int query_at(int chunk) { return chunk / 2 * 32 + chunk % 2 * 8; }
template <typename T> __device__ __forceinline__ void store_query(unsigned to, const uint4 &raw, float scale)
{
    const T *x = (const T *)&raw;

#pragma unroll
    for (int i = 0; i < 4; i++)
        asm volatile("st.shared.u32 [%0], %1;" ::"r"(to + i % 2 * 16 + i / 2 * 4),
                     "r"(pack<__half>(to_float(x[2 * i]) * scale, to_float(x[2 * i + 1]) * scale))
                     : "memory");
}

/* Both scales of a position and head lie in one word, the key's first. */
__device__ __forceinline__ float key_scale(unsigned both) { return __uint_as_float(both << 16); }
__device__ __forceinline__ float value_scale(unsigned both) { return __uint_as_float(both & 0xffff0000u); }

/* ---- storing, as kernels/cpu/scaled.h has it ---------------------------------------------- */

/* x / BY as IEEE 754 has it, without its code for every case: the product with the inverse is next to it or it, and what is left
 * says which (Markstein, IBM Journal of Research and Development 34, 1990).  Neither x nor the quotient may be subnormal. */
template <int BY> __device__ __forceinline__ float divided(float x)
{
    constexpr float inverse = 1.f / BY;
    const float     near = x * inverse;
    return fmaf(fmaf(-(float)BY, near, x), inverse, near);
}

/* Of elements up to `largest` in magnitude: their scale, as the bits of a bf16, and by what they are multiplied to become codes. */
struct Scale {
    unsigned short bits;
    float          by;
};

__device__ __forceinline__ Scale scale_of(float largest, bool f8)
{
    const float exact = f8 ? divided<448>(largest) : divided<127>(largest);
    Scale       s = {(unsigned short)((__float_as_uint(exact) + 0xffff) >> 16), 1};

    if (!(largest < INFINITY))
        s.bits = 0x7fc0;
    else if (largest < 0x1p-100f)
        s.bits = 0x3f80;
    s.by = __frcp_rn(__uint_as_float((unsigned)s.bits << 16));
    return s;
}

/* To nearest, ties to even; what is larger becomes the largest. */
__device__ __forceinline__ uint8_t code_of(float x, bool f8)
{
    if (!f8)
        return (uint8_t)(int8_t)(isnan(x) ? 0 : __float2int_rn(fminf(fmaxf(x, -127), 127)));
#if __CUDA_ARCH__ >= 890
    unsigned short two;
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(two) : "f"(0.f), "f"(x));
    return (uint8_t)two;
#else
    const float    a = fabsf(x);
    const unsigned u = __float_as_uint(a), sign = __float_as_uint(x) >> 24 & 0x80;
    if (isnan(x))
        return (uint8_t)(sign | 0x7f);
    if (a >= 448)
        return (uint8_t)(sign | 0x7e);
    return (uint8_t)(sign | (a >= 0x1p-6f ? ((u + 0x7ffff + (u >> 20 & 1)) >> 20) - (120 << 3)
                                          : __float_as_uint(__fadd_rn(a, 0x1p14f)) & 0xf));
#endif
}

/* Four of them, of x times by, in order; eight. */
__device__ __forceinline__ unsigned four_codes(const float *x, float by, bool f8)
{
#if __CUDA_ARCH__ >= 890
    if (f8) { /* one instruction rounds two */
        unsigned short low, high;
        asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(low) : "f"(x[1] * by), "f"(x[0] * by));
        asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(high) : "f"(x[3] * by), "f"(x[2] * by));
        return low | (unsigned)high << 16;
    }
#endif
    unsigned codes = 0;
#pragma unroll
    for (int k = 0; k < 4; k++)
        codes |= (unsigned)code_of(x[k] * by, f8) << 8 * k;
    return codes;
}
__device__ __forceinline__ uint2 eight_codes(const float *x, float by, bool f8)
{
    return uint2{four_codes(x, by, f8), four_codes(x + 4, by, f8)};
}

__device__ __forceinline__ float larger_of(float a, float b) { return b > a || isnan(b) ? b : a; } /* no number stays none */
__device__ __forceinline__ float largest_of_warp(float v)
{
#pragma unroll
    for (int o = 16; o; o >>= 1)
        v = larger_of(v, __shfl_xor_sync(~0u, v, o));
    return v;
}

#endif
