/* quant_short.cuh - of quant_short.cu's kernels: their arguments, x as digits, sums of parts. */
#ifndef KERNELS_CUDA_QUANT_SHORT_CUH
#define KERNELS_CUDA_QUANT_SHORT_CUH

#include "quant_gemv_products.cuh"
#include "quant_short.h"

namespace mi_short
{

using namespace mi_quant;

constexpr int MOST_CHUNKS = 16, DUO_ROWS = 2 * OCTET;
constexpr int PITCH = MOST_CHUNKS + 4; /* of sums, in words: eight threads read 16 bytes each without conflicts */
constexpr int UNIT = COLUMNS / OCTET;  /* octets of gate's rows in a cluster */
constexpr int GROUP = 16;              /* records of down that are requested at once */
constexpr int STAGES = 64, BEGIN = (STAGES + 2) * 8 + 112; /* of the MLP's weights in shared memory, behind the barriers */
static_assert(BEGIN % 128 == 0);
constexpr float LIMIT = 0x1p24f, ONE = 0x1p32f; /* of sums */

typedef unsigned long long Sum;

/* o, or q, k and v: a block has 16 rows or 8 pairs. */
struct Rows : Packed {
    Sum  *sums;   /* [in or out + 1]: the last one counts what was no number */
    char *hidden; /* q, k and v: x as bf16 goes there; or NULL */
};

struct Mlp : Packed { /* Packed: of gate and up */
    const char  *down;
    Sum         *sums;
    char        *act; /* or NULL */
    int64_t      down_record;
    int32_t      ff, octets, down_tail; /* down's rows / 8; from a record's begin to its scales */
    int32_t      blocks, groups;        /* of a cluster; of warps, each with all of x */
    int32_t      down_at, act_at, digits_at, sums_at, squares_at, scales_at; /* in shared memory */
};

#if __CUDA_ARCH__ >= 900

/* ---- parts of the kernels ---------------------------------------------------------------------- */

__device__ __forceinline__ void load_direct(Weights<4> &w, const char *chunk)
{
    w.v[0] = load_weight((const uint4 *)chunk + threadIdx.x % 32);
}
__device__ __forceinline__ void load_direct(Weights<8> &w, const char *chunk)
{
    w.v[0] = load_weight((const uint4 *)chunk + threadIdx.x % 32);
    w.v[1] = load_weight((const uint4 *)chunk + threadIdx.x % 32 + 32);
}

/* Volatile, as load_weight(): not to be put off until after the wait. */
__device__ __forceinline__ float half_before(const char *p)
{
    unsigned short h;
    asm volatile("ld.global.nc.u16 %0, [%1];" : "=h"(h) : "l"(p));
    return __half2float(__ushort_as_half(h));
}
__device__ __forceinline__ float float_before(const void *p)
{
    float f;
    asm volatile("ld.global.nc.f32 %0, [%1];" : "=f"(f) : "l"(p));
    return f;
}

__device__ __forceinline__ float4 gain_before(const Packed &a, int column)
{
    float4 g = {0, 0, 0, 0};
    if (column < a.chunks * 8)
        asm volatile("ld.global.nc.v4.f32 {%0,%1,%2,%3}, [%4];"
                     : "=f"(g.x), "=f"(g.y), "=f"(g.z), "=f"(g.w)
                     : "l"(a.gain + column));
    return {g.x + a.offset, g.y + a.offset, g.z + a.offset, g.w + a.offset};
}

__device__ __forceinline__ float4 four_of(const char *x, int column, int columns)
{
    if (column >= columns)
        return {0, 0, 0, 0};
    const uint2  v = __ldcg((const uint2 *)(x + column * 2));
    const float2 p = unpack(v.x, bf16()), q = unpack(v.y, bf16());
    return {p.x, p.y, q.x, q.y};
}

/* A chunk of x, four columns a lane, as the digits that multiply_words() takes; returns what sums of them are to be
 * multiplied with.  at: 256 bytes of the warp's own. */
template <int BITS> __device__ __forceinline__ float digits_of(float4 f, unsigned at, uint4 *b)
{
    const int   lane = threadIdx.x % 32;
    const float own = most_of(most_of(fabsf(f.x), fabsf(f.y)), most_of(fabsf(f.z), fabsf(f.w)));
    const float most = __uint_as_float(__reduce_max_sync(~0u, __float_as_uint(own))); /* no number is the largest */
    const float times = __fdividef(LARGEST, fmaxf(most, 1e-30f)), middle = 12582912.f + 128;
    const unsigned p = __byte_perm(__float_as_int(fmaf(f.x, times, middle)), __float_as_int(fmaf(f.y, times, middle)), 0x5140);
    const unsigned q = __byte_perm(__float_as_int(fmaf(f.z, times, middle)), __float_as_int(fmaf(f.w, times, middle)), 0x5140);
    const unsigned to = at + lane / 16 * 128 + lane / 2 % 4 * 16 + lane / 8 % 2 * 8 + lane % 2 * 4; /* as split() has them */

    asm volatile("st.shared.u32 [%0], %1;" ::"r"(to), "r"(__byte_perm(p, q, 0x7632)) : "memory");
    asm volatile("st.shared.u32 [%0], %1;" ::"r"(to + 64), "r"(__byte_perm(p, q, 0x5410) ^ 0x80808080) : "memory");
    __syncwarp();
    const unsigned from = at + lane / 4 % 2 * 64 + lane % 4 * 16;
    b[0] = load_shared(from);
    b[1] = load_shared(from + 128);
    __syncwarp();
    return most * (1.f / (LARGEST * TIMES<BITS>));
}

/* Rows g of both, in all lanes of a row. */
template <int BITS> __device__ __forceinline__ float2 multiplied(const Weights<BITS> &u, const Weights<BITS> &v, const uint4 *b)
{
    int d[4] = {};
    multiply_words<BITS>(u, v, b, d);
    return {(float)(d[0] * 256 + d[1]), (float)(d[2] * 256 + d[3])};
}

/* Of `eights` times eight numbers; behind those that there are stand zeros. */
__device__ __forceinline__ float added_up_over(const float *sums, int eights)
{
    float sum = 0;
#pragma unroll 1
    for (int i = 0; i < eights; i++) {
        const float4 v = ((const float4 *)sums)[2 * i], w = ((const float4 *)sums)[2 * i + 1];
        sum += ((v.x + v.y) + (v.z + v.w)) + ((w.x + w.y) + (w.z + w.w));
    }
    return sum;
}

__device__ __forceinline__ Sum fixed(float v)
{
    return (Sum)__float2ll_rn(fminf(fmaxf(v, -LIMIT), LIMIT) * ONE);
}

/* x from its sums, rounded as it is stored. */
__device__ __forceinline__ float4 four_summed(const Sum *sums, int column, int columns)
{
    longlong2 p = {0, 0}, q = {0, 0};
    const Sum mark = __ldcg(sums + columns);

    if (column < columns) {
        p = __ldcg((const longlong2 *)(sums + column));
        q = __ldcg((const longlong2 *)(sums + column) + 1);
    }
    const unsigned u = pack({__ll2float_rn(p.x) * (1 / ONE), __ll2float_rn(p.y) * (1 / ONE)}, bf16());
    const unsigned v = pack({__ll2float_rn(q.x) * (1 / ONE), __ll2float_rn(q.y) * (1 / ONE)}, bf16());
    const float2   f = unpack(mark ? ~0u : u, bf16()), g = unpack(mark ? ~0u : v, bf16());
    return {f.x, f.y, g.x, g.y};
}

__device__ __forceinline__ uint2 packed_four(float4 f) { return {pack({f.x, f.y}, bf16()), pack({f.z, f.w}, bf16())}; }

__device__ __forceinline__ float squares_of(float4 f) { return warp_sum(f.x * f.x + f.y * f.y + (f.z * f.z + f.w * f.w)); }

__device__ __forceinline__ void scale_by(float4 &f, float4 g)
{
    f = {f.x * g.x, f.y * g.y, f.z * g.z, f.w * g.w};
}

#endif

} // namespace mi_short
#endif
