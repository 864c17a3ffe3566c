/* quant_gemv_parts.cuh - of quant_gemv.cuh's kernel: its arguments, where records lie, x as integers. */
#ifndef KERNELS_CUDA_QUANT_GEMV_PARTS_CUH
#define KERNELS_CUDA_QUANT_GEMV_PARTS_CUH

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

/* What a caller says. */
static inline void add_norm(Packed *a, MiGemvNorm n)
{
    a->gain = n.gain;
    a->eps = n.eps;
    a->offset = n.offset;
}

static inline void add_heads(Packed *a, const MiGemvQkv *q)
{
    for (int i = 0; i < 3; i++) {
        a->w[i] = (const char *)q->w[i];
        a->bias[i] = q->bias[i];
    }
    a->freqs = q->freqs;
    a->positions = q->positions;
    a->n_heads = q->n_heads;
    a->n_kv_heads = q->n_kv_heads;
    a->head_dim = q->head_dim;
    a->half_magic = (uint32_t)((((uint64_t)1 << 32) + q->head_dim / 2 - 1) / (q->head_dim / 2));
    a->rope_dim = q->rope_dim;
    a->interleaved = q->interleaved;
    a->magnitude = q->magnitude;
    a->kv = q->kv;
    a->y = (char *)q->q.data;
    a->y_stride = q->q.stride[0];
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
    /* A request takes 75 to 120 ns, whatever its size: what lies next to each other, by one. */
    const bool joined = bytes == a.half && d.second == d.first + bytes;
    bulk_load_once(to, d.first + from, joined ? 2 * bytes : bytes, full, policy);
    if (d.second && !joined)
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

#endif

} // namespace mi_quant
#endif
