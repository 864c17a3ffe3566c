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

/* Both scales of a position and head lie in one word, the key's first. */
__device__ __forceinline__ float key_scale(unsigned both) { return __uint_as_float(both << 16); }
__device__ __forceinline__ float value_scale(unsigned both) { return __uint_as_float(both & 0xffff0000u); }

/* ---- storing, as kernels/cpu/scaled.h has it ---------------------------------------------- */

/* The scale of elements up to `largest` in magnitude. */
__device__ __forceinline__ unsigned short scale_of(float largest, float largest_code)
{
    if (!(largest < INFINITY))
        return 0x7fc0;
    if (largest < 0x1p-100f)
        return 0x3f80;
    return (unsigned short)((__float_as_uint(__fdiv_rn(largest, largest_code)) + 0xffff) >> 16);
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

/* Eight of them, of x times by, in order. */
__device__ __forceinline__ uint2 eight_codes(const float *x, float by, bool f8)
{
#if __CUDA_ARCH__ >= 890
    if (f8) { /* one instruction rounds two */
        unsigned short two[4];
#pragma unroll
        for (int k = 0; k < 4; k++)
            asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(two[k]) : "f"(x[2 * k + 1] * by), "f"(x[2 * k] * by));
        return uint2{two[0] | (unsigned)two[1] << 16, two[2] | (unsigned)two[3] << 16};
    }
#endif
    uint2 codes = {};
#pragma unroll
    for (int k = 0; k < 4; k++) {
        codes.x |= (unsigned)code_of(x[k] * by, f8) << 8 * k;
        codes.y |= (unsigned)code_of(x[4 + k] * by, f8) << 8 * k;
    }
    return codes;
}

__device__ __forceinline__ float larger_of(float a, float b) { return b > a || isnan(b) ? b : a; } /* no number stays none */
__device__ __forceinline__ float largest_of_warp(float v)
{
#pragma unroll
    for (int o = 16; o; o >>= 1)
        v = larger_of(v, __shfl_xor_sync(~0u, v, o));
    return v;
}

/* By a whole warp: a head's x(0), ... x(dim - 1) to element offset `at` of keys, side 0, or values.  dim: a multiple
 * of 4. */
template <typename X> __device__ __forceinline__ void store_scaled(const MiKvView &kv, int side, int64_t at, int dim, X x)
{
    const int  lane = threadIdx.x % 32;
    const bool f8 = kv.dtype == MI_F8;
    float      largest = 0;

    for (int d = lane; d < dim; d += 32)
        largest = larger_of(largest, fabsf(x(d)));
    const unsigned short scale = scale_of(largest_of_warp(largest), f8 ? 448 : 127);
    const float          by = __fdiv_rn(1, __uint_as_float((unsigned)scale << 16));
    uint8_t             *to = (uint8_t *)(side ? kv.v : kv.k) + at;
    for (int d = lane * 4; d < dim; d += 128)
        *(uchar4 *)(to + d) = make_uchar4(code_of(x(d) * by, f8), code_of(x(d + 1) * by, f8), code_of(x(d + 2) * by, f8),
                                          code_of(x(d + 3) * by, f8));
    if (lane == 0)
        ((unsigned short *)kv.scales)[at / kv.head_dim * 2 + side] = scale;
}

#endif
