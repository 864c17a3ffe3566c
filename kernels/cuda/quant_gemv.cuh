/* quant_gemv.cuh - gemv.cuh for the matrices of quant.h: few rows of x, W read at the memory's speed.
 *
 * What streams, waits and ends is gemv.cuh's; the product is one of integers.  x is written
 * as x = scale * (256 high + low), a scale for 128 columns, high and low of 8 bit: 15 bits and a
 * sign, finer than the bf16 that most of its elements are.  The two are columns of the narrow side of
 * mma.m16n8k32, so four rows of x fill it; W is its tall side, two records of eight rows,
 * which need not lie next to each other.  Weights of 8 bit need no conversion at all, of
 * 4 bit one and a half operations for four: a nibble in the high half of its byte is 16 times
 * itself; of 5 and 6 bit four.  The sums are exact until a group's scale multiplies them.  One row of x and the usual form
 * take dp4a instead.
 *
 * One row of x leaves three of four column pairs of the narrow side idle.  Where groups have scales each pair then
 * has one quarter of a chunk, and nothing of the others: the four lanes of a row come out with four
 * groups' sums, and each multiplies by one scale instead of all by four. */
#ifndef KERNELS_CUDA_QUANT_GEMV_CUH
#define KERNELS_CUDA_QUANT_GEMV_CUH

#include "gemv_ends.cuh"
#include "quant_gemv.h"

namespace mi_quant
{

using namespace mi_gemv;

constexpr int OCTET = MI_QUANT_ROWS, COLUMNS = MI_QUANT_COLUMNS;
constexpr int LARGEST = 32512; /* of 256 high + low */

/* A kernel is for weights of so many bits, or for those of levels. */
constexpr int LEVELS = 1;
template <int BITS> constexpr int STORED = BITS == LEVELS ? 4 : BITS;
template <int BITS> constexpr int VALUES = STORED<BITS> *OCTET *COLUMNS / 8;                        /* bytes of a chunk */
template <int BITS> constexpr int TIMES = BITS == 4 ? 16 : BITS == 5 ? 8 : BITS == 6 ? 4 : 1; /* of a code */
/* And for scales of one kind; USUAL: one for a chunk or a row, no zeros. */
enum { USUAL, ROW_SCALES, F16_SCALES, WIDE_SCALES, PAIR_SCALES };
/* Groups of 16: a half of a quarter is one. */
template <int BITS> constexpr bool HALVES = BITS == 6;
/* Of a chunk of x, each with a scale and a sum. */
template <int SCALES> constexpr int GROUPS = SCALES == USUAL ? 1 : 4;

struct Packed : Args {
    int64_t  record;                     /* bytes of eight rows */
    int32_t  blocks_of_x, chunk, values; /* chunks of a row; bytes of one, of the values in it */
    int32_t  slice, cuts;                /* chunks of a stage, stages of a row */
    uint32_t cuts_magic;                 /* high 32 bits of i * magic = i / cuts; 0: one cut */
    int32_t  half;                       /* from the first record of a stage to the second */
    int32_t  tail;                       /* bytes behind a row's last chunk */
    int32_t  groups_shift;               /* quarters of a group of W = 1 << shift; groups of 16: 0 */
    bool     sums;                       /* of x are wanted */
    int32_t  factors;                    /* where in shared memory: scales and sums of x */
    int32_t  team_shift;                 /* team = 1 << team_shift */
    int32_t  zeros;                      /* from a group's scale to its zero z */
    float    z0, z1, z2;                 /* a code counts z (z0 + z1 scale) + z2 scale more than it is */
    unsigned odd, even;                  /* selectors that make f32 of the words in which rows' scales are */
};

/* Of a, what follows from how weights lie, but for their sizes. */
static inline void set_form(Packed *a, MiQuantForm f)
{
    a->groups_shift = f.group == 128 ? 2 : f.group == 64 ? 1 : 0;
    a->sums = f.zeros;
    a->zeros = f.zeros ? mi_quant_groups(f) * MI_QUANT_ROWS * (f.scales == MI_QUANT_F32 ? 4 : 2) : 0;
    a->z0 = f.minima;
    a->z1 = !f.minima;
    a->z2 = f.minima ? (float)(1 << (f.bits - 1)) : 0;
    a->even = f.scales == MI_QUANT_BF16 ? 0x1044 : 0x3210;
    a->odd = f.scales == MI_QUANT_BF16 ? 0x3244 : 0x3210;
}

#if __CUDA_ARCH__ >= 900

/* In units: pairs, or rows where not PAIRED; blocks have whole octets of them. */
template <int KIND> __device__ __forceinline__ Share share_of_octets(const Packed &a)
{
    const int b = blockIdx.x, n = OCTET * (a.each + (b < a.more)), first = OCTET * (b * a.each + min(b, a.more));
    const int rows = PAIRED<KIND> ? 2 * n : min(n, a.out - first);

    return {first, PAIRED<KIND> ? n : (rows + 1) / 2, rows};
}

/* Two records that are multiplied together; of the last there may be one. */
template <int KIND> __device__ __forceinline__ int duos_of(Share t) { return (t.rows + 2 * OCTET - 1) / (2 * OCTET); }

struct Duo {
    const char *first, *second; /* second NULL: none */
};

template <int KIND> __device__ __forceinline__ Duo duo_of(const Packed &a, Share t, int i)
{
    if (KIND == MI_GEMV_GATED) {
        const int64_t at = (t.first / OCTET + i) * a.record;
        return {a.w[0] + at, a.w[1] + at};
    }
    if (KIND == MI_GEMV_QKV) {
        const Pair e = pair_of(a, t.first + i * OCTET);
        const int  rows = e.head * a.head_dim, second = a.interleaved ? e.first + OCTET : e.second;
        return {a.w[e.part] + (rows + e.first) / OCTET * a.record, a.w[e.part] + (rows + second) / OCTET * a.record};
    }
    const char *at = a.w[0] + (t.first / OCTET + 2 * i) * a.record;
    return {at, (2 * i + 1) * OCTET < t.rows ? at + a.record : NULL};
}

template <int KIND>
__device__ __forceinline__ void request_slice(const Packed &a, Share t, char *smem, int stage, int slot,
                                              uint64_t policy)
{
    const int duo = a.cuts_magic ? __umulhi(stage, a.cuts_magic) : stage, cut = stage - duo * a.cuts;
    const int left = a.blocks_of_x - cut * a.slice;
    const int bytes = left > a.slice ? a.slice * a.chunk : left * a.chunk + a.tail;
    const Duo d = duo_of<KIND>(a, t, duo);
    const int from = cut * a.slice * a.chunk;
    uint64_t *full = (uint64_t *)smem + slot;
    char     *to = smem + HEADER + slot * a.stage_bytes;

    if (slot < 0) {
        prefetch(d.first + from, bytes);
        if (d.second)
            prefetch(d.second + from, bytes);
        return;
    }
    barrier_expect(full, d.second ? 2 * bytes : bytes);
    bulk_load_once(to, d.first + from, bytes, full, policy);
    if (d.second)
        bulk_load_once(to + a.half, d.second + from, bytes, full, policy);
}

/* ---- x ------------------------------------------------------------------------------ */

__device__ __forceinline__ float most_of(float a, float b) /* no number stays none */
{
    float m;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(m) : "f"(a), "f"(b));
    return m;
}

/* Where row m of x lies for quarter j of chunk c, lane t of a product: [chunk][j / 2][M][high, low][t][j % 2] 8 bytes.
 */
template <int M> __device__ __forceinline__ int digits_at(int c, int j, int m)
{
    return ((c * 2 + j / 2) * M + m) * 128;
}

/* Eight columns, the e-th of the row; 16 threads have a chunk.  sum: of squares, before the gain. */
template <int BITS, int SCALES, bool NORM, int M>
__device__ __forceinline__ void split(const Packed &a, char *smem, int e, int m, uint4 v, const float4 *gain,
                                      float &sum)
{
    const unsigned *w = (const unsigned *)&v;
    const float    *g = (const float *)gain;
    const int       c = e / 16, j = e / 4 % 4, t = e % 4;
    float           f[8], most = 0;
    int             r[8];

#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float2 p = unpack(w[i], bf16());
        f[2 * i] = p.x;
        f[2 * i + 1] = p.y;
    }
#pragma unroll
    for (int i = 0; i < 8; i++) {
        if (NORM) {
            sum = fmaf(f[i], f[i], sum);
            f[i] *= a.offset + g[i];
        }
        most = most_of(most, fabsf(f[i]));
    }
#pragma unroll
    for (int o = 1; o < 16; o *= 2)
        most = most_of(most, __shfl_xor_sync(~0u, most, o));
    const float times = most > 1e-30f ? __fdividef(LARGEST, most) : 0;
#pragma unroll
    for (int i = 0; i < 8; i++) /* the low 16 bits are the number + 128 */
        r[i] = __float_as_int(fmaf(f[i], times, 12582912.f + 128));
    unsigned high[2], low[2];
    int      both = 0;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const unsigned p = __byte_perm(r[4 * i], r[4 * i + 1], 0x5140),
                       q = __byte_perm(r[4 * i + 2], r[4 * i + 3], 0x5140);
        low[i] = __byte_perm(p, q, 0x5410) ^ 0x80808080;
        high[i] = __byte_perm(p, q, 0x7632);
    }
    if (SCALES != USUAL && a.sums) {
#pragma unroll
        for (int i = 0; i < 2; i++)
            both += __dp4a((int)high[i], 0x01010101, 0) * 256 + __dp4a((int)low[i], 0x01010101, 0);
#pragma unroll 1
        for (int o = 1; o < 4; o *= 2)
            both += __shfl_xor_sync(~0u, both, o);
    }
    if (e >= a.blocks_of_x * 16)
        return;
    char *to = smem + a.xs + digits_at<M>(c, j, m) + j % 2 * 8;
    if (HALVES<BITS>) {
        to += t % 2 * 32 + t / 2 * 4;
        *(unsigned *)to = high[0];
        *(unsigned *)(to + 16) = high[1];
        *(unsigned *)(to + 64) = low[0];
        *(unsigned *)(to + 80) = low[1];
    } else {
        to += t * 16;
        *(uint2 *)to = {high[0], high[1]};
        *(uint2 *)(to + 64) = {low[0], low[1]};
    }
    constexpr int GROUP = COLUMNS / 8 / GROUPS<SCALES>;
    if (e % GROUP == 0)
        ((float2 *)(smem + a.factors))[e / GROUP * M + m] = {most * (1.f / (LARGEST * TIMES<BITS>)),
                                                             (float)(both * TIMES<BITS>)};
}

/* x, times the norm's gain, of all rows into shared memory; sums of squares as norm_rows() leaves them.  One copy of
 * the code: what is on its way moves up. */
template <int BITS, int SCALES, int KIND, int M>
__device__ __forceinline__ void split_rows(const Packed &a, const int *row, float4 (*gain)[2], char *smem)
{
    constexpr int AHEAD = M == 1 ? 4 : 2;
    const int     threads = a.warps * 32, tid = threadIdx.x, all = a.blocks_of_x * 16;
    float         sum[M] = {};
    uint4         v[AHEAD][M];
    auto          load = [&](int e, uint4 *to) {
#pragma unroll
        for (int m = 0; m < M; m++) {
            to[m] = {0, 0, 0, 0};
            if (e < a.chunks)
                to[m] = load_x(a, row[m], e);
        }
    };

#pragma unroll
    for (int k = 0; k < AHEAD; k++)
        load(tid + k * threads, v[k]);
#pragma unroll 1
    for (int e = tid; e - tid % 32 < all; e += threads) { /* whole warps: they shuffle */
#pragma unroll
        for (int m = 0; m < M; m++)
            split<BITS, SCALES, NORMED<KIND>, M>(a, smem, e, m, v[0][m], gain[0], sum[m]);
#pragma unroll
        for (int k = 0; k + 1 < AHEAD; k++)
#pragma unroll
            for (int m = 0; m < M; m++)
                v[k][m] = v[k + 1][m];
        load(e + AHEAD * threads, v[AHEAD - 1]);
        if constexpr (NORMED<KIND>) {
            gain[0][0] = gain[1][0];
            gain[0][1] = gain[1][1];
            if (e + GAINS * threads < a.chunks) {
                gain[1][0] = ((const float4 *)a.gain)[2 * (e + GAINS * threads)];
                gain[1][1] = ((const float4 *)a.gain)[2 * (e + GAINS * threads) + 1];
            }
        }
    }
    if (NORMED<KIND>)
#pragma unroll
        for (int m = 0; m < M; m++) {
            sum[m] = warp_sum(sum[m]);
            if (tid % 32 == 0)
                ((float *)(smem + SQUARES))[tid / 32 * M + m] = sum[m];
        }
}

/* ---- the product ---------------------------------------------------------------------- */

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

/* LATE: each tile has threads of its own for its end, which
 * look up what it needs before the wait; for one row. */
template <int BITS, int SCALES, int KIND, int M, bool LATE>
__global__ void __maxnreg__(96) packed(const __grid_constant__ Packed a)
{
    extern __shared__ __align__(128) char smem[];

    let_successor_start();
    const Share t = share_of_octets<KIND>(a);
    const int   duos = duos_of<KIND>(t), tid = threadIdx.x, lane = tid % 32, g = lane / 4, warp = tid / 32;
    if (warp == a.warps) {
        const uint64_t policy = evict_first_policy();
        produce_stages(a, duos * a.cuts, a.team, smem,
                       [&](int stage, int slot) { request_slice<KIND>(a, t, smem, stage, slot, policy); });
        return;
    }
    float4 gain[GAINS][2] = {};
    int    row[M];
#pragma unroll
    for (int m = 0; m < M; m++)
        row[m] = KIND == MI_GEMV_HEAD && a.out_rows ? a.out_rows[min(m, a.rows - 1)] : min(m, a.rows - 1);
    if constexpr (NORMED<KIND>) {
#pragma unroll
        for (int k = 0; k < GAINS; k++)
            if (tid + k * a.warps * 32 < a.chunks) {
                gain[k][0] = ((const float4 *)a.gain)[2 * (tid + k * a.warps * 32)];
                gain[k][1] = ((const float4 *)a.gain)[2 * (tid + k * a.warps * 32) + 1];
            }
    }
    const int  items = t.n * M, item = LATE ? tid >> a.team_shift : tid, unit = unit_of<KIND>(t, item / M);
    const bool two = PAIRED<KIND> || item / M * 2 + 1 < t.rows;
    float4     ahead = {0, 0, 1, 0};
    Target     target = {};
    if (LATE && item < items) {
        ahead = look_up<KIND>(a, unit, 0, two);
        if (KIND == MI_GEMV_QKV)
            target = target_of<bf16>(a, unit, 0);
    } else if (!LATE && KIND != MI_GEMV_GATED && KIND != MI_GEMV_HEAD) {
#pragma unroll 1
        for (int i = tid; i < items; i += a.warps * 32)
            ((float4 *)(smem + a.known))[i] =
                look_up<KIND>(a, unit_of<KIND>(t, i / M), i % M, PAIRED<KIND> || i / M * 2 + 1 < t.rows);
    }
    __syncthreads();

    wait_for_predecessor();
    if (tid == 0)
        barrier_arrive((uint64_t *)(smem + RELEASED));
    const float2 residual = item < items ? residual_of<bf16, KIND>(a, unit, item % M, two) : float2{0, 0};
    split_rows<BITS, SCALES, KIND, M>(a, row, gain, smem);
    consumers_meet(a);

    /* Column g of the narrow side is row g / 2 of x, high or low, or its quarter g / 2; of those past the last nothing is used. */
    const int      team = warp * a.team_magic >> 16, part = warp - team * a.team;
    const int      column = SCALES == USUAL ? 0 : g % (2 * M);
    constexpr bool QUARTERS = SCALES != USUAL && M == 1; /* multiply_quarter() */
    const unsigned ring = shared_address(smem) + HEADER, of_x = shared_address(smem) + a.xs + lane % 4 * 16;
    const unsigned x = of_x + (QUARTERS ? g / 4 * 128 + g / 2 % 2 * 8 + g % 2 * 64 : column * 64);
    const unsigned factors = shared_address(smem) + a.factors + min(lane % 4, QUARTERS ? 3 : M - 1) * sizeof(float2);
    constexpr int  OF_CHUNK = GROUPS<SCALES> * M * sizeof(float2);
    float         *parts = (float *)(smem + a.parts);
    int            slot = team, phase = 0;
    /* Rows g and 8 + g of a duo: a tile's two rows lie in both records, or next to each other. */
    auto leave = [&](int i, bool both, float y0, float y1) {
        const bool apart = KIND == MI_GEMV_GATED || (KIND == MI_GEMV_QKV && !a.interleaved);
        const int  tile = i * OCTET + (apart ? g : g / 2), one = apart ? 0 : g % 2, m = lane % 4;
        parts[(2 * (tile * M + m) + one) * a.team + part] = y0;
        if (both)
            parts[(2 * ((tile + (apart ? 0 : OCTET / 2)) * M + m) + (apart ? 1 : one)) * a.team + part] = y1;
    };
    if constexpr (LATE && KIND == MI_GEMV_RESIDUAL && BITS == 4) {
        if (t.rows <= OCTET) { /* one team then */
            float y = 0;
#pragma unroll 1
            for (int cut = 0; cut < a.cuts; cut++) {
                uint64_t      *full = (uint64_t *)smem + slot;
                const unsigned at = ring + slot * a.stage_bytes;
                const int      from = cut * a.slice, n = min(a.slice, a.blocks_of_x - from);
                barrier_wait(full, phase);
#pragma unroll 1
                for (int c = part; c < n; c += 2 * a.team) {
                    const bool more = c + a.team < n;
                    const int  other = more ? c + a.team : c;
                    multiply_two(at + c * a.chunk, at + other * a.chunk, more,
                                 of_x + (from + (g / 2 % 2 ? other : c)) * 256 + g % 2 * 64,
                                 factors + (from + (lane % 4 ? other : c)) * OF_CHUNK, y);
                }
                __syncwarp();
                if (lane == 0)
                    barrier_arrive(full + MAX_STAGES);
                if (++slot == a.stages) {
                    slot = 0;
                    phase ^= 1;
                }
            }
            y += __shfl_xor_sync(~0u, y, 1);
            if (lane % 4 == 0)
                leave(0, false, y, 0);
            slot = -1;
        }
    }
#pragma unroll 1
    for (int i = slot < 0 ? duos : team; i < duos; i += a.teams) {
        const bool     both = PAIRED<KIND> || (2 * i + 1) * OCTET < t.rows;
        const unsigned second = both ? a.half : 0;
        float          y[2] = {}, offset = 0;
#pragma unroll 1
        for (int cut = 0; cut < a.cuts; cut++) {
            uint64_t      *full = (uint64_t *)smem + slot;
            const unsigned at = ring + slot * a.stage_bytes;
            const int      from = cut * a.slice, n = min(a.slice, a.blocks_of_x - from);
            barrier_wait(full, phase);
#pragma unroll 1
            for (int c = part; c < n; c += a.team) {
                const unsigned p = at + c * a.chunk, q = p + second, xc = x + (from + c) * 256 * M,
                               fc = factors + (from + c) * OF_CHUNK;
                if constexpr (QUARTERS) {
                    multiply_quarter<BITS, SCALES>(a, p, q, xc, fc, y, offset);
                } else if constexpr (SCALES != USUAL) {
                    multiply_rows<BITS, SCALES, M>(a, p, q, xc, fc, y, offset);
                } else {
                    multiply_one<BITS>(p, q, xc, fc, y);
                }
            }
            if (M == 1 && cut == a.cuts - 1) {
                added_up(y[0]);
                added_up(y[1]);
                added_up(offset);
            }
            if (BITS == 8 && SCALES <= ROW_SCALES && cut == a.cuts - 1) {
                const float *s = (const float *)(smem + HEADER + slot * a.stage_bytes + n * a.chunk) + g;
                const float *r = s + second / 4;
                y[0] = s[0] * (SCALES == ROW_SCALES ? fmaf(s[OCTET], offset, y[0]) : y[0]);
                y[1] = r[0] * (SCALES == ROW_SCALES ? fmaf(r[OCTET], offset, y[1]) : y[1]);
            }
            __syncwarp();
            if (lane == 0)
                barrier_arrive(full + MAX_STAGES);
            slot += a.teams;
            if (slot >= a.stages) {
                slot -= a.stages;
                phase ^= 1;
            }
        }
        if (lane % 4 < M)
            leave(i, both, y[0], y[1]);
    }
    const float scale = LATE && NORMED<KIND> ? inverse_rms<M>(a, smem, 0) : 1;
    consumers_meet(a);
    if constexpr (LATE) {
        const int k = tid & (a.team - 1);
        float     y0 = 0, y1 = 0;
        if (item < items) {
            y0 = parts[(2 * item << a.team_shift) + k];
            y1 = parts[(2 * item + 1 << a.team_shift) + k];
        }
#pragma unroll 1
        for (int o = 1; o < a.team; o *= 2) {
            y0 += __shfl_xor_sync(~0u, y0, o);
            y1 += __shfl_xor_sync(~0u, y1, o);
        }
        if (item < items && k == 0)
            end_tile<bf16, KIND>(a, unit, 0, two, y0 * scale + ahead.x, y1 * scale + ahead.y, ahead, residual, target);
    } else {
        end_summed<bf16, KIND, M>(a, t, smem, residual);
    }
}

#else

template <int BITS, int SCALES, int KIND, int M, bool LATE> __global__ void packed(const __grid_constant__ Packed a)
{
    (void)a;
}

#endif

typedef void (*PackedKernel)(Packed);

/* The kernel for several rows, or one, of weights of any form. */
template <int BITS, int SCALES> PackedKernel any_kernel(MiGemvKind kind, bool several)
{
    switch (kind) {
    case MI_GEMV_PLAIN:
        return several ? packed<BITS, SCALES, MI_GEMV_PLAIN, 4, false> : packed<BITS, SCALES, MI_GEMV_PLAIN, 1, false>;
    case MI_GEMV_RESIDUAL:
        return several ? packed<BITS, SCALES, MI_GEMV_RESIDUAL, 4, false> : packed<BITS, SCALES, MI_GEMV_RESIDUAL, 1, false>;
    case MI_GEMV_GATED:
        return several ? packed<BITS, SCALES, MI_GEMV_GATED, 4, false> : packed<BITS, SCALES, MI_GEMV_GATED, 1, false>;
    case MI_GEMV_QKV:
        return several ? packed<BITS, SCALES, MI_GEMV_QKV, 4, false> : packed<BITS, SCALES, MI_GEMV_QKV, 1, false>;
    case MI_GEMV_HEAD:
        return several ? packed<BITS, SCALES, MI_GEMV_HEAD, 4, false> : packed<BITS, SCALES, MI_GEMV_HEAD, 1, false>;
    }
    return NULL;
}

/* Those of other files. */
PackedKernel blocks_kernel(MiQuantForm, MiGemvKind, bool several);
PackedKernel wide_kernel(MiQuantForm, MiGemvKind, bool several);

} // namespace mi_quant
#endif
