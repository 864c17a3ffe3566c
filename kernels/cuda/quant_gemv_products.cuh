/* quant_gemv_products.cuh - of quant_gemv.cuh's kernel: a chunk of two records, or two of one, times x. */
#ifndef KERNELS_CUDA_QUANT_GEMV_PRODUCTS_CUH
#define KERNELS_CUDA_QUANT_GEMV_PRODUCTS_CUH

#include "quant_gemv_parts.cuh"

namespace mi_quant
{

#if __CUDA_ARCH__ >= 900

__device__ __forceinline__ void mma_bytes(int *d, unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0,
                                          unsigned b1)
{
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

/* The same of 16 columns. */
__device__ __forceinline__ void mma_bytes(int *d, unsigned a0, unsigned a1, unsigned b0)
{
    asm("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a0), "r"(a1), "r"(b0));
}

__device__ __forceinline__ unsigned word_at(unsigned at)
{
    unsigned w;
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(w) : "r"(at));
    return w;
}

__device__ __forceinline__ uint2 words_at(unsigned at)
{
    uint2 w;
    asm volatile("ld.shared.v2.u32 {%0,%1}, [%2];" : "=r"(w.x), "=r"(w.y) : "r"(at));
    return w;
}

__device__ __forceinline__ unsigned permuted(unsigned a, unsigned b, unsigned selector)
{
    unsigned w;
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(w) : "r"(a), "r"(b), "r"(selector));
    return w;
}

__host__ __device__ constexpr unsigned four_levels(int i)
{
    constexpr int8_t l[16] = MI_QUANT_LEVELS;
    return (unsigned)(uint8_t)l[i] | (unsigned)(uint8_t)l[i + 1] << 8 | (unsigned)(uint8_t)l[i + 2] << 16 |
           (unsigned)(uint8_t)l[i + 3] << 24;
}

/* The levels of the first or the last four places of eight, a nibble each. */
__device__ __forceinline__ unsigned levels_of(unsigned places, int second)
{
    constexpr unsigned least = four_levels(0), less = four_levels(4), more = four_levels(8), most = four_levels(12);
    const unsigned     in_eight = places & 0x77777777u, above = (places >> 1 & 0x44444444u) | 0x32103210u;
    const unsigned     i = second ? in_eight >> 16 : in_eight;

    return permuted(permuted(least, less, i), permuted(more, most, i), second ? above >> 16 : above);
}

/* What a lane has of a record's chunk: word() gives the two halves of quarter j. */
template <int BITS> struct Weights {
    uint4                           v[BITS == 8 ? 2 : 1];
    uint2                           above;
    __device__ __forceinline__ void load(unsigned chunk, int lane)
    {
        v[0] = load_shared(chunk + lane * 16);
        if (BITS == 8)
            v[BITS == 8] = load_shared(chunk + lane * 16 + 512);
        if (BITS == 5)
            above.x = word_at(chunk + 512 + lane * 4);
        if (BITS == 6)
            above = words_at(chunk + 512 + lane * 8);
    }
    __device__ __forceinline__ unsigned word(int j, int second) const
    {
        const unsigned *w = (const unsigned *)v;
        if (BITS == 8)
            return w[2 * j + second];
        if (BITS == LEVELS)
            return levels_of(w[j], second);
        if (BITS == 5)
            return ((second ? w[j] >> 1 : w[j] << 3) & 0x78787878u) | (above.x << (7 - 2 * j - second) & 0x80808080u);
        if (BITS == 6)
            return ((second ? w[j] >> 2 : w[j] << 2) & 0x3c3c3c3cu) |
                   ((j < 2 ? above.x : above.y) << (6 - 2 * (j % 2 * 2 + second)) & 0xc0c0c0c0u);
        return (second ? w[j] : w[j] << 4) & 0xf0f0f0f0u;
    }
};

/* A value is scale * code + zero: of a row's group; p: behind the chunk's values.  Without branches, so that loads of
 * several are under way at once. */
struct Affine {
    float scale, zero;
};

template <int BITS, int SCALES>
__device__ __forceinline__ Affine affine_at(const Packed &a, unsigned p, int row, int group)
{
    constexpr float MIDDLE = 1 << (STORED<BITS> - 1);
    const int       at = group * OCTET + row;
    Affine          r;

    if constexpr (SCALES == PAIR_SCALES && (BITS == 4 || BITS == 5)) { /* these have minima */
        const unsigned both = word_at(p + row * 4);
        unsigned short bytes;
        asm volatile("ld.shared.u16 %0, [%1];" : "=h"(bytes) : "r"(p + OCTET * 4 + at * 2));
        const float2 f = __half22float2(*(const __half2 *)&both);
        r.scale = f.x * (float)(bytes & 255);
        r.zero = fmaf(MIDDLE, r.scale, -f.y * (float)(bytes >> 8));
    } else if constexpr (SCALES == PAIR_SCALES) {
        short byte;
        asm volatile("ld.shared.s8 %0, [%1];" : "=h"(byte) : "r"(p + OCTET * 2 + at));
        r = {half_at(p + row * 2) * (float)byte, 0};
    } else if constexpr (BITS == LEVELS) {
        r = {half_at(p + at * 2), 0};
    } else {
        float zero;
        if (SCALES == F16_SCALES) {
            r.scale = half_at(p + at * 2);
            zero = half_at(p + at * 2 + a.zeros);
        } else {
            const bool f32 = a.odd == a.even;
            r.scale = __uint_as_float(permuted(word_at(f32 ? p + at * 4 : p + at / 2 * 4), 0, row % 2 ? a.odd : a.even));
            zero = half_at(p + at * 2 + a.zeros);
        }
        r.zero = a.sums ? fmaf(zero, fmaf(a.z1, r.scale, a.z0), a.z2 * r.scale) : 0; /* else zero may be no number */
    }
    return r;
}

/* Of rows g of both records. */
struct Affines {
    Affine first, second;
};

template <int BITS, int SCALES>
__device__ __forceinline__ Affines affines_at(const Packed &a, unsigned p, unsigned q, int group)
{
    const int g = threadIdx.x % 32 / 4;
    if constexpr (SCALES == ROW_SCALES)
        return {{1, 0}, {1, 0}};
    else
        return {affine_at<BITS, SCALES>(a, p, g, group), affine_at<BITS, SCALES>(a, q, g, group)};
}

/* What a group of x gives, of sums d (high and low of two rows), to y. */
__device__ __forceinline__ void add_group(Affines s, float2 f, const int *d, float *y)
{
    y[0] = fmaf(f.x, fmaf(s.first.scale, (float)(d[0] * 256 + d[1]), s.first.zero * f.y), y[0]);
    y[1] = fmaf(f.x, fmaf(s.second.scale, (float)(d[2] * 256 + d[3]), s.second.zero * f.y), y[1]);
}

/* All of a chunk; x: its digits, of this lane's column. */
template <int BITS> __device__ __forceinline__ void multiply_words(const Weights<BITS> &u, const Weights<BITS> &v, const uint4 *x, int *d)
{
#pragma unroll
    for (int j = 0; j < 4; j++) {
        const unsigned *w = (const unsigned *)&x[j / 2];
        mma_bytes(d, u.word(j, 0), v.word(j, 0), u.word(j, 1), v.word(j, 1), w[j % 2 * 2], w[j % 2 * 2 + 1]);
    }
}

/* A chunk of two records, at p and q, of lane (g, t): adds what row t of x has with rows g of them.  x: its digits,
 * factors: its scales; both of this lane and chunk.  Of the usual form. */
template <int BITS, int M>
__device__ __forceinline__ void multiply_usual(unsigned p, unsigned q, unsigned x, unsigned factors, float *y)
{
    const int     lane = threadIdx.x % 32, g = lane / 4;
    Weights<BITS> u, v;
    uint4         b[2];
    int           d[4] = {};

    u.load(p, lane);
    v.load(q, lane);
    b[0] = load_shared(x);
    b[1] = load_shared(x + M * 128);
    const float2 f = pair_at(factors);
    const float  s0 = BITS == 4 ? f.x * half_at(p + VALUES<BITS> + g * 2) : f.x;
    const float  s1 = BITS == 4 ? f.x * half_at(q + VALUES<BITS> + g * 2) : f.x;
    multiply_words<BITS>(u, v, b, d);
    y[0] = fmaf(s0, (float)(d[0] * 256 + d[1]), y[0]);
    y[1] = fmaf(s1, (float)(d[2] * 256 + d[3]), y[1]);
}

/* The same of any form, one row of x: lane (g, t) adds what its quarter t has of rows g of them for one row of x, whose
 * digits for quarter g / 2 are at x and whose scale is at factors; both of this lane and chunk. */
template <int BITS, int SCALES>
__device__ __forceinline__ void multiply_quarter(const Packed &a, unsigned p, unsigned q, unsigned x, unsigned factors,
                                                 float *y, float &offset)
{
    const int     lane = threadIdx.x % 32, t = lane % 4, own = lane / 8;
    Weights<BITS> u, v;
    int           d[4] = {}, e[4] = {};

    u.load(p, lane);
    v.load(q, lane);
    const uint2  w = words_at(x);
    const float2 f = pair_at(factors);
    p += VALUES<BITS>;
    q += VALUES<BITS>;
    const Affines s = affines_at<BITS, SCALES>(a, p, q, HALVES<BITS> ? 2 * t : t >> a.groups_shift);
    const Affines r = HALVES<BITS> ? affines_at<BITS, SCALES>(a, p, q, 2 * t + 1) : s;
#pragma unroll
    for (int j = 0; j < 4; j++) {
        const unsigned b0 = j == own ? w.x : 0, b1 = j == own ? w.y : 0;
        if constexpr (HALVES<BITS>) {
            mma_bytes(d, u.word(j, 0), v.word(j, 0), b0);
            mma_bytes(e, u.word(j, 1), v.word(j, 1), b1);
        } else {
            mma_bytes(d, u.word(j, 0), v.word(j, 0), u.word(j, 1), v.word(j, 1), b0, b1);
        }
    }
    add_group(s, f, d, y);
    if constexpr (HALVES<BITS>)
        add_group(r, f, e, y);
    if constexpr (SCALES == ROW_SCALES)
        offset = fmaf(f.x, f.y, offset);
}

/* The same of any form, several rows. */
template <int BITS, int SCALES, int M>
__device__ __forceinline__ void multiply_rows(const Packed &a, unsigned p, unsigned q, unsigned x, unsigned factors,
                                              float *y, float &offset)
{
    const int     lane = threadIdx.x % 32;
    Weights<BITS> u, v;
    uint4         b[2];

    u.load(p, lane);
    v.load(q, lane);
    b[0] = load_shared(x);
    b[1] = load_shared(x + M * 128);
    p += VALUES<BITS>;
    q += VALUES<BITS>;
#pragma unroll
    for (int j = 0; j < 4; j++) {
        const unsigned *w = (const unsigned *)&b[j / 2];
        const float2    f = pair_at(factors + j * M * sizeof(float2));
        int             d[4] = {}, e[4] = {};
        if constexpr (HALVES<BITS>) {
            const Affines s = affines_at<BITS, SCALES>(a, p, q, 2 * j), r = affines_at<BITS, SCALES>(a, p, q, 2 * j + 1);
            mma_bytes(d, u.word(j, 0), v.word(j, 0), w[j % 2 * 2]);
            mma_bytes(e, u.word(j, 1), v.word(j, 1), w[j % 2 * 2 + 1]);
            add_group(s, f, d, y);
            add_group(r, f, e, y);
        } else {
            const Affines s = affines_at<BITS, SCALES>(a, p, q, j >> a.groups_shift);
            mma_bytes(d, u.word(j, 0), v.word(j, 0), u.word(j, 1), v.word(j, 1), w[j % 2 * 2], w[j % 2 * 2 + 1]);
            add_group(s, f, d, y);
        }
        if constexpr (SCALES == ROW_SCALES)
            offset = fmaf(f.x, f.y, offset);
    }
}

/* The usual form, no zeros and one scale for the chunk or the row, and one row of x, without the tensor core, whose latency is longer than what is left of one
 * product: a lane has its own columns of rows g of both, so y is summed over the lanes of a row by added_up().  x: of this
 * chunk and lane % 4. */
template <int BITS>
__device__ __forceinline__ void multiply_one(unsigned p, unsigned q, unsigned x, unsigned factors, float *y)
{
    const int     lane = threadIdx.x % 32, g = lane / 4;
    Weights<BITS> u, v;
    uint4         digits[4]; /* [half of the chunk][high, low] */
    int           d[4] = {};

    u.load(p, lane);
    v.load(q, lane);
#pragma unroll
    for (int i = 0; i < 4; i++)
        digits[i] = load_shared(x + i * 64);
    const float2 f = pair_at(factors);
    const float  s0 = BITS == 4 ? half_at(p + VALUES<BITS> + g * 2) : 1, s1 = BITS == 4 ? half_at(q + VALUES<BITS> + g * 2) : 1;
#pragma unroll
    for (int j = 0; j < 8; j++) { /* quarter j / 2, word j % 2 of it */
        const int *high = (const int *)&digits[j / 4 * 2], *low = (const int *)&digits[j / 4 * 2 + 1];
        d[0] = __dp4a((int)u.word(j / 2, j % 2), high[j % 4], d[0]);
        d[1] = __dp4a((int)u.word(j / 2, j % 2), low[j % 4], d[1]);
        d[2] = __dp4a((int)v.word(j / 2, j % 2), high[j % 4], d[2]);
        d[3] = __dp4a((int)v.word(j / 2, j % 2), low[j % 4], d[3]);
    }
    y[0] = fmaf(f.x * s0, (float)(d[0] * 256 + d[1]), y[0]);
    y[1] = fmaf(f.x * s1, (float)(d[2] * 256 + d[3]), y[1]);
}

/* A block has one record, of the usual form in 4 bit: a warp multiplies two of its chunks at once, rows of one mma, each with its own pair of columns.
 * At p and, if `more`, q; x: the digits of this lane's column, factors: the scale of x for this lane's chunk; adds to what lanes 0 and 1 of a row have. */
__device__ __forceinline__ void multiply_two(unsigned p, unsigned q, bool more, unsigned x, unsigned factors, float &y)
{
    const int  lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    Weights<4> u, v;
    uint4      b[2];
    int        d[4] = {};

    u.load(p, lane);
    v.load(q, lane);
    b[0] = load_shared(x);
    b[1] = load_shared(x + 128);
    const float s = pair_at(factors).x * half_at((t ? q : p) + VALUES<4> + g * 2);
    multiply_words<4>(u, v, b, d);
    y = fmaf(t == 0 || more ? s : 0, (float)(t ? d[2] * 256 + d[3] : d[0] * 256 + d[1]), y);
}

__device__ __forceinline__ void added_up(float &y)
{
#pragma unroll
    for (int o = 1; o < 4; o *= 2)
        y += __shfl_xor_sync(~0u, y, o);
}

#endif

} // namespace mi_quant
#endif
