/* layer_ends.cuh - what the products of layer.cuh are told, and what becomes of a row's sums: eight outputs at a time. */
#ifndef KERNELS_CUDA_LAYER_ENDS_CUH
#define KERNELS_CUDA_LAYER_ENDS_CUH

#include "gemv_parts.cuh"
#include "layer.h"
#include "scaled.cuh"
#include <cuda.h>
#include <miniinfer/scales.h>

namespace mi_layer
{

using mi_gemv::pack, mi_gemv::unpack, mi_gemv::turn_by, mi_gemv::store_kv;

/* ---- what a kernel is told --------------------------------------------------------------- */

enum Kind { BACK, GATED, HEADS, LOGITS }; /* to the residual; gate and up; q, k and v; the head */

struct Back {
    const bf16  *residual;
    const float *bias, *gain; /* gain NULL: nothing is normed behind it */
    bf16        *y, *scaled;  /* scaled: y * gain */
    float       *squares;     /* [tiles][rows] */
    int64_t      r_stride, y_stride;
    float        offset;
};

struct Gated {
    bf16   *y;
    int64_t y_stride;
};

struct Heads {
    const float   *bias[3], *gain[2], *freqs; /* gain NULL: heads of q or k are not normed */
    const int32_t *positions;
    bf16          *q;
    int64_t        q_stride;
    MiKvView       kv;
    int32_t        n_heads, n_kv_heads, dim; /* a tile is a head, or half of its pairs */
    float          magnitude, eps, offset;
    bool           interleaved;
};

struct Logits {
    float       *y; /* NULL: nobody reads them */
    MiCandidate *best; /* [rows][tiles] the likeliest of each tile; NULL: nobody asks */
    int64_t      y_stride;
    int32_t      tiles;
};

struct Args {
    CUtensorMap  w[3], x; /* w: one; gate and up; q, k and v */
    int32_t      rows, out, boxes, groups, cluster, stages; /* groups: tiles of tokens */
    int32_t      under_way; /* stages of W, at most, that are asked for and not there */
    int32_t      received, known, bars; /* where in shared memory; the ring is at 0 */
    const float *squares;           /* [n_squares][rows] of what x was before it was scaled; NULL: x is not normed */
    int32_t      n_squares;
    float        eps, per_width; /* 1 / width of x */
    Back         back;
    Gated        gated;
    Heads        heads;
    Logits       logits;
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/* ---- ends: eight outputs of a row ------------------------------------------------------- */

struct alignas(16) Row8 {
    float at[8];
};

__device__ __forceinline__ void add8(Row8 &d, const float *from)
{
    const float4 u = *(const float4 *)from, v = *(const float4 *)(from + 4);
    d.at[0] += u.x, d.at[1] += u.y, d.at[2] += u.z, d.at[3] += u.w;
    d.at[4] += v.x, d.at[5] += v.y, d.at[6] += v.z, d.at[7] += v.w;
}
__device__ __forceinline__ void add8(Row8 &d, uint4 u)
{
    const unsigned v[4] = {u.x, u.y, u.z, u.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float2 f = unpack(v[i], bf16());
        d.at[2 * i] += f.x;
        d.at[2 * i + 1] += f.y;
    }
}
__device__ __forceinline__ uint4 packed8(const Row8 &d)
{
    return {pack({d.at[0], d.at[1]}, bf16()), pack({d.at[2], d.at[3]}, bf16()), pack({d.at[4], d.at[5]}, bf16()),
            pack({d.at[6], d.at[7]}, bf16())};
}

/* LANES neighbouring lanes have a row; bias, gain: of these columns. */
template <int LANES>
__device__ __forceinline__ void end_back(const Args &a, int tile, int token, int column, Row8 d, uint4 residual, const float *bias,
                                         const float *gain)
{
    const Back &b = a.back;
    const bool  there = token < a.rows && column < a.out;

    add8(d, residual);
    add8(d, bias);
    const uint4 h = packed8(d);
    if (there)
        *(uint4 *)(b.y + token * b.y_stride + column) = h;
    if (!b.gain)
        return;
    Row8  v = {}, g = {};
    float squares = 0;
    add8(v, h);
    add8(g, gain);
#pragma unroll
    for (int i = 0; i < 8; i++) {
        squares += v.at[i] * v.at[i];
        g.at[i] *= v.at[i];
    }
    if (there)
        *(uint4 *)(b.scaled + (int64_t)token * a.out + column) = packed8(g);
    else
        squares = 0;
#pragma unroll
    for (int o = 1; o < LANES; o *= 2)
        squares += __shfl_xor_sync(~0u, squares, o);
    if (threadIdx.x % LANES == 0 && token < a.rows)
        b.squares[(int64_t)tile * a.rows + token] = squares;
}

__device__ __forceinline__ void end_gated(const Args &a, int token, int column, const Row8 &gate, const Row8 &up, float scale)
{
    Row8 y;

    if (token >= a.rows || column >= a.out)
        return;
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const float g = gate.at[i] * scale;
        y.at[i] = __fdividef(g, 1 + __expf(-g)) * (up.at[i] * scale);
    }
    *(uint4 *)(a.gated.y + token * a.gated.y_stride + column) = packed8(y);
}

__device__ __forceinline__ void end_logits(const Args &a, int tile, int token, int column, const Row8 &d, int lanes)
{
    const Logits &l = a.logits;
    const bool    there = token < a.rows && column < a.out;

    if (l.y && there) {
        float4 *y = (float4 *)(l.y + token * l.y_stride + column);
        y[0] = {d.at[0], d.at[1], d.at[2], d.at[3]};
        y[1] = {d.at[4], d.at[5], d.at[6], d.at[7]};
    }
    if (!l.best)
        return;
    float v = -INFINITY;
    int   at = 0x7fffffff;
#pragma unroll
    for (int i = 0; i < 8; i++)
        if (there && beats(d.at[i], column + i, v, at)) {
            v = d.at[i];
            at = column + i;
        }
    for (int o = 1; o < lanes; o *= 2) {
        const float w = __shfl_xor_sync(~0u, v, o);
        const int   j = __shfl_xor_sync(~0u, at, o);
        if (beats(w, j, v, at)) {
            v = w;
            at = j;
        }
    }
    if (threadIdx.x % lanes == 0 && token < a.rows)
        l.best[(int64_t)token * l.tiles + tile] = {v, at};
}

/* Eight of a head's DIM elements, whose others neighbouring lanes have, to a cache with scales, rounded to bf16 first: to the bit
 * what mi_cuda_kv_append() makes of a head in bf16.  at: of the head, below 0: nowhere; the elements go to first, first + step, ...
 * and so many `far` behind them. */
template <int DIM>
__device__ __forceinline__ void store_scaled8(const MiKvView &kv, int part, int64_t at, int first, int step, int far, Row8 d, const float *shift)
{
    const bool f8 = kv.dtype == MI_F8;
    float      largest = 0;

#pragma unroll
    for (int i = 0; i < 8; i++) {
        d.at[i] = to_float(from_float<bf16>(d.at[i])) - shift[first + i % 4 * step + i / 4 * far];
        largest = larger_of(largest, fabsf(d.at[i]));
    }
#pragma unroll
    for (int o = 1; o < DIM / 8; o *= 2)
        largest = larger_of(largest, __shfl_xor_sync(~0u, largest, o));
    if (at < 0)
        return;
    const Scale scale = scale_of(largest, f8);
    uint8_t    *to = (uint8_t *)(part == 1 ? kv.k : kv.v) + at + first;
    if (step == 2) {
        const float x[8] = {d.at[0], d.at[4], d.at[1], d.at[5], d.at[2], d.at[6], d.at[3], d.at[7]};
        *(uint2 *)to = eight_codes(x, scale.by, f8);
    } else {
        *(unsigned *)to = four_codes(d.at, scale.by, f8);
        *(unsigned *)(to + far) = four_codes(d.at + 4, scale.by, f8);
    }
    if (threadIdx.x % (DIM / 8) == 0)
        ((unsigned short *)kv.scales)[at / DIM * 2 + part - 1] = scale.bits;
}

/* Four pairs from the tile's `pair` on; d: the first of each, then the second; at: where the tile goes, below 0: nowhere.
 * Neighbouring lanes have it.  A head that is normed, or that gets a scale, is one tile. */
template <int N>
__device__ __forceinline__ void end_head(const Args &a, int part, int64_t at, int pair, Row8 d, float scale, const float *bias,
                                         const float *gain, const float *shift, const float2 *turns)
{
    const Heads &h = a.heads;
    void        *to = part == 0 ? (void *)h.q : part == 1 ? h.kv.k : h.kv.v;
    const int    first = h.interleaved ? 2 * pair : pair, far = h.interleaved ? 1 : N / 2, step = h.interleaved ? 2 : 1;
    const int    apart = h.interleaved ? 1 : h.dim / 2;

#pragma unroll
    for (int i = 0; i < 4; i++) {
        d.at[i] = d.at[i] * scale + bias[first + i * step];
        d.at[4 + i] = d.at[4 + i] * scale + bias[first + i * step + far];
    }
    if (part < 2 && h.gain[part]) {
        float squares = 0;
#pragma unroll
        for (int i = 0; i < 8; i++)
            squares += d.at[i] * d.at[i];
#pragma unroll
        for (int o = 1; o < N / 8; o *= 2)
            squares += __shfl_xor_sync(~0u, squares, o);
        const float by = rsqrtf(squares / N + h.eps);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            d.at[i] *= by * gain[first + i * step];
            d.at[4 + i] *= by * gain[first + i * step + far];
        }
    }
    if (part < 2) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float  u = d.at[i], v = d.at[4 + i];
            const float2 turn = turns[pair + i];
            d.at[i] = u * turn.x - v * turn.y;
            d.at[4 + i] = v * turn.x + u * turn.y;
        }
    }
    if (part && mi_dtype_scaled(h.kv.dtype))
        return store_scaled8<N>(h.kv, part, at, first, step, far, d, shift);
    if (at < 0)
        return;
    if (part && h.kv.dtype != MI_BF16) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            store_kv(to, h.kv.dtype, at + first + i * step, d.at[i]);
            store_kv(to, h.kv.dtype, at + first + i * step + apart, d.at[4 + i]);
        }
    } else if (h.interleaved) {
        *(uint4 *)((bf16 *)to + at + first) = {pack({d.at[0], d.at[4]}, bf16()), pack({d.at[1], d.at[5]}, bf16()),
                                              pack({d.at[2], d.at[6]}, bf16()), pack({d.at[3], d.at[7]}, bf16())};
    } else {
        *(uint2 *)((bf16 *)to + at + first) = {pack({d.at[0], d.at[1]}, bf16()), pack({d.at[2], d.at[3]}, bf16())};
        *(uint2 *)((bf16 *)to + at + first + apart) = {pack({d.at[4], d.at[5]}, bf16()), pack({d.at[6], d.at[7]}, bf16())};
    }
}

#endif

} // namespace mi_layer
#endif
