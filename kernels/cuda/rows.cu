/* rows.cu - operations that move rows: embed, output_rows, kv_append, and rope,
 * which turns them on the way.
 *
 * The step's metadata lies on the device before its first kernel and is read before
 * the wait; drawn tokens are another kernel's and are read after it. */
#include "lines.cuh"
#include "ops.h"
#include "scaled.cuh"
#include <miniinfer/scales.h>

enum { THREADS = 256 };

/* ---- embed, output_rows -------------------------------------------------------- */

struct Gather {
    const void *from;
    void       *to;
    int64_t     from_stride, to_stride, n; /* in elements */
    unsigned    rows, units;
    bool        aligned;
};

template <typename T, typename W> __global__ void __launch_bounds__(THREADS) embed(const Gather g, const MiBatch batch)
{
    const unsigned item = blockIdx.x * THREADS + threadIdx.x, row = item / g.units;
    const int64_t  at = (int64_t)(item - row * g.units) * UNIT;

    let_successor_start();
    wait_for_predecessor();
    if (row >= g.rows)
        return;
    const W *from = (const W *)g.from + mi_batch_token(&batch, (int)row) * g.from_stride + at;
    store_eight((T *)g.to + row * g.to_stride + at, converted<T>(load_eight(from, g.n - at, g.aligned)), g.n - at,
                g.aligned);
}

template <typename T> __global__ void __launch_bounds__(THREADS) output_rows(const Gather g, const int32_t *rows)
{
    const unsigned item = blockIdx.x * THREADS + threadIdx.x, row = item / g.units;
    const int64_t  at = (int64_t)(item - row * g.units) * UNIT;
    const int64_t  which = row < g.rows ? rows[row] : 0;

    let_successor_start();
    wait_for_predecessor();
    if (row < g.rows)
        store_eight((T *)g.to + row * g.to_stride + at,
                    load_eight((const T *)g.from + which * g.from_stride + at, g.n - at, g.aligned), g.n - at,
                    g.aligned);
}

static Gather gather_of(const MiTensor *from, const MiTensor *to)
{
    Gather g = { from->data, to->data, from->stride[0], to->stride[0], 1, (unsigned)to->shape[0], 0, false };

    for (int i = 1; i < to->ndim; i++)
        g.n *= to->shape[i];
    g.units = (unsigned)((g.n + UNIT - 1) / UNIT);
    g.aligned = g.n % UNIT == 0 && (uintptr_t)g.from % 16 == 0 && (uintptr_t)g.to % 16 == 0 &&
                (size_t)g.from_stride * mi_dtype_size(from->dtype) % 16 == 0 &&
                (size_t)g.to_stride * mi_dtype_size(to->dtype) % 16 == 0;
    return g;
}

int mi_cuda_embed(void *stream, MiTensor table, const MiBatch *batch, MiTensor y)
{
    const Gather   g = gather_of(&table, &y);
    const unsigned blocks = blocks_for(g.rows * g.units, THREADS);

    if (!blocks)
        return 0;
    return by_dtype(y.dtype, [&](auto to) {
        return by_dtype(table.dtype, [&](auto from) {
            return mi_launch(embed<decltype(to), decltype(from)>, blocks, THREADS, 0, stream, g, *batch);
        });
    });
}

int mi_cuda_output_rows(void *stream, const int32_t *rows, MiTensor x, MiTensor y)
{
    const Gather   g = gather_of(&x, &y);
    const unsigned blocks = blocks_for(g.rows * g.units, THREADS);

    if (!blocks)
        return 0;
    return by_dtype(y.dtype, [&](auto zero) {
        return mi_launch(output_rows<decltype(zero)>, blocks, THREADS, 0, stream, g, rows);
    });
}

/* ---- kv_append ------------------------------------------------------------------ */

struct Append {
    const void *from[2]; /* k, v */
    int64_t     row[2], head[2]; /* strides in elements */
    int64_t     heads[3];        /* of a cache with scales: heads from a block, a position, a head to the next */
    MiKvView    kv;
    unsigned    rows, units; /* units: of a head */
    bool        aligned;
};

/* blockIdx.y: k or v */
template <typename T, typename K> __global__ void __launch_bounds__(THREADS) append(const Append a)
{
    const int      side = (int)blockIdx.y;
    const unsigned item = blockIdx.x * THREADS + threadIdx.x, per_row = a.units * (unsigned)a.kv.n_kv_heads;
    const unsigned row = item / per_row, head = (item - row * per_row) / a.units;
    const int64_t  at = (int64_t)((item - row * per_row) - head * a.units) * UNIT, left = a.kv.head_dim - at;
    const int32_t  slot = row < a.rows ? a.kv.slots[row] : -1;

    let_successor_start();
    wait_for_predecessor();
    if (slot < 0)
        return;
    const int64_t to = slot / a.kv.block_size * a.kv.stride_block + slot % a.kv.block_size * a.kv.stride_token +
                       head * a.kv.stride_head + at;
    const T *from = (const T *)a.from[side] + row * a.row[side] + head * a.head[side] + at;
    store_eight((K *)(side ? a.kv.v : a.kv.k) + to, converted<K>(load_eight(from, left, a.aligned)), left, a.aligned);
}

/* The same into a cache with scales: a warp for each head of a row, four elements a lane, ROUNDS times.  All but the elements is
 * looked up before the wait.  blockIdx.y: k or v */
template <typename T, int ROUNDS> __global__ void __launch_bounds__(THREADS) append_scaled(const Append a)
{
    constexpr int  EACH = 4;
    const int      side = (int)blockIdx.y, lane = threadIdx.x % 32, dim = a.kv.head_dim;
    const unsigned item = blockIdx.x * (THREADS / 32) + threadIdx.x / 32, row = item / (unsigned)a.kv.n_kv_heads,
                   head = item - row * (unsigned)a.kv.n_kv_heads;
    const int32_t  slot = row < a.rows ? a.kv.slots[row] : -1;
    const bool     f8 = a.kv.dtype == MI_F8;
    float          x[ROUNDS][EACH] = {}, largest = 0; /* x: first what keys are less by */

    let_successor_start();
    const unsigned block = (unsigned)max(slot, 0) / (unsigned)a.kv.block_size;
    const int64_t  at_head = block * a.heads[0] + ((unsigned)slot - block * a.kv.block_size) * a.heads[1] + head * a.heads[2];
    uint8_t       *to = (uint8_t *)(side ? a.kv.v : a.kv.k) + at_head * dim;
    const T       *from = (const T *)a.from[side] + row * a.row[side] + head * a.head[side];
    const float   *shift = mi_kv_shift(&a.kv) + head * (unsigned)dim;
#pragma unroll
    for (int r = 0; r < ROUNDS; r++)
#pragma unroll
        for (int k = 0; k < EACH; k++) {
            const int at = (r * 32 + lane) * EACH + k;
            x[r][k] = side == 0 && at < dim ? shift[at] : 0;
        }
    wait_for_predecessor();
    if (slot < 0)
        return;
#pragma unroll
    for (int r = 0; r < ROUNDS; r++)
#pragma unroll
        for (int k = 0; k < EACH; k++) {
            const int at = (r * 32 + lane) * EACH + k;
            x[r][k] = at < dim ? to_float(from[at]) - x[r][k] : 0;
            largest = larger_of(largest, fabsf(x[r][k]));
        }
    const Scale scale = scale_of(largest_of_warp(largest), f8);
#pragma unroll
    for (int r = 0; r < ROUNDS; r++)
        if ((r * 32 + lane) * EACH < dim)
            *(unsigned *)(to + (r * 32 + lane) * EACH) = four_codes(x[r], scale.by, f8);
    if (lane == 0)
        ((unsigned short *)a.kv.scales)[at_head * 2 + side] = scale.bits;
}

enum { SCALED_DIM = 128, MOST_SCALED_DIM = 512 };

int mi_cuda_kv_append(void *stream, MiTensor k, MiTensor v, const MiKvView *kv)
{
    const size_t bytes = mi_dtype_size(kv->dtype);
    Append       a = {};

    for (int i = 0; i < 2; i++) {
        const MiTensor &from = i ? v : k;
        a.from[i] = from.data, a.row[i] = from.stride[0], a.head[i] = from.stride[1];
    }
    a.kv = *kv;
    a.rows = (unsigned)k.shape[0];
    a.units = (unsigned)((kv->head_dim + UNIT - 1) / UNIT);
    a.aligned = aligned_tensor(&k) && aligned_tensor(&v) && (uintptr_t)kv->k % 16 == 0 && (uintptr_t)kv->v % 16 == 0 &&
                (size_t)kv->stride_block * bytes % 16 == 0 && (size_t)kv->stride_token * bytes % 16 == 0 &&
                (size_t)kv->stride_head * bytes % 16 == 0;
    const dim3 blocks(blocks_for(a.rows * (unsigned)kv->n_kv_heads * a.units, THREADS), 2);
    if (!blocks.x)
        return 0;
    if (mi_dtype_scaled(kv->dtype)) {
        const int64_t strides[] = { kv->stride_block, kv->stride_token, kv->stride_head };
        for (int i = 0; i < 3; i++)
            a.heads[i] = strides[i] / kv->head_dim;
        const dim3 warps(blocks_for(a.rows * (unsigned)kv->n_kv_heads, THREADS / 32), 2);
        return kv->head_dim % 4 || kv->head_dim > MOST_SCALED_DIM ? (int)cudaErrorNotSupported : by_dtype(k.dtype, [&](auto zero) {
            using T = decltype(zero);
            return mi_launch(kv->head_dim <= SCALED_DIM ? append_scaled<T, 1> : append_scaled<T, MOST_SCALED_DIM / SCALED_DIM>, warps,
                             THREADS, 0, stream, a);
        });
    }
    return by_dtype(k.dtype, [&](auto from) {
        return by_dtype(kv->dtype, [&](auto to) {
            return mi_launch(append<decltype(from), decltype(to)>, blocks, THREADS, 0, stream, a);
        });
    });
}

/* ---- rope ------------------------------------------------------------------------ */

struct Rope {
    MiCudaRope how;
    void      *x, *y;
    int64_t    x_row, x_head, y_row, y_head; /* strides in elements */
    unsigned   rows, heads, per_block;       /* per_block: rows */
    unsigned   turned, units;                /* of a head: units that turn, and all */
    bool       aligned;
};

/* Unit u of a head.  Aligned: eight pairs of two halves, four neighbouring pairs, or eight elements that
 * stay; else one pair or one element. */
template <typename T>
__device__ __forceinline__ void turn(const Rope &r, const T *x, T *y, unsigned u, const float *cosine,
                                     const float *sine)
{
    const int half = r.how.dim / 2;

    if (u >= r.turned) {
        const unsigned at = (unsigned)r.how.dim + (u - r.turned) * (r.aligned ? UNIT : 1);
        if (r.aligned)
            store_eight(y + at, load_eight(x + at, UNIT, true), UNIT, true);
        else
            y[at] = x[at];
    } else if (!r.aligned) {
        const unsigned i = r.how.interleaved ? 2 * u : u, j = r.how.interleaved ? i + 1 : i + (unsigned)half;
        const float    a = to_float(x[i]), b = to_float(x[j]);
        y[i] = from_float<T>(a * cosine[u] - b * sine[u]);
        y[j] = from_float<T>(a * sine[u] + b * cosine[u]);
    } else if (r.how.interleaved) {
        const Eight<T> v = load_eight(x + u * UNIT, UNIT, true);
        float          to[UNIT];
#pragma unroll
        for (int i = 0; i < UNIT / 2; i++) {
            const float a = to_float(v.at[2 * i]), b = to_float(v.at[2 * i + 1]);
            const float c = cosine[u * (UNIT / 2) + i], s = sine[u * (UNIT / 2) + i];
            to[2 * i] = a * c - b * s;
            to[2 * i + 1] = a * s + b * c;
        }
        store_eight(y + u * UNIT, rounded(to, T()), UNIT, true);
    } else {
        const Eight<T> v = load_eight(x + u * UNIT, UNIT, true), w = load_eight(x + half + u * UNIT, UNIT, true);
        float          low[UNIT], high[UNIT];
#pragma unroll
        for (int i = 0; i < UNIT; i++) {
            const float a = to_float(v.at[i]), b = to_float(w.at[i]), c = cosine[u * UNIT + i], s = sine[u * UNIT + i];
            low[i] = a * c - b * s;
            high[i] = a * s + b * c;
        }
        store_eight(y + u * UNIT, rounded(low, T()), UNIT, true);
        store_eight(y + half + u * UNIT, rounded(high, T()), UNIT, true);
    }
}

/* The angle is a float, as it is everywhere, sine and cosine of it are exact to two units; each is computed
 * once for all heads, and before the wait. */
template <typename T> __global__ void __launch_bounds__(THREADS) rope(const Rope r)
{
    extern __shared__ float table[]; /* cosine [per_block][half], sine likewise */
    const int               half = r.how.dim / 2;
    const unsigned          first = blockIdx.x * r.per_block, n_rows = min(r.per_block, r.rows - first);
    float                  *cosine = table, *sine = table + r.per_block * half;

    let_successor_start();
    for (unsigned i = threadIdx.x; i < n_rows * half; i += THREADS) {
        const unsigned row = i / half;
        float          s, c;
        sincosf((float)r.how.positions[first + row] * r.how.freqs[i - row * half], &s, &c);
        cosine[i] = c * r.how.magnitude;
        sine[i] = s * r.how.magnitude;
    }
    wait_for_predecessor();
    __syncthreads();
    for (unsigned i = threadIdx.x; i < n_rows * r.heads * r.units; i += THREADS) {
        const unsigned line = i / r.units, row = line / r.heads, head = line - row * r.heads;
        turn((const Rope &)r, (const T *)r.x + (first + row) * r.x_row + head * r.x_head,
             (T *)r.y + (first + row) * r.y_row + head * r.y_head, i - line * r.units, cosine + row * half,
             sine + row * half);
    }
}

int mi_cuda_rope(void *stream, const MiCudaRope *how, MiTensor x, MiTensor y)
{
    Rope           r = {};
    const unsigned half = (unsigned)how->dim / 2, rest = (unsigned)x.shape[2] - (unsigned)how->dim;

    r.how = *how;
    r.x = x.data, r.x_row = x.stride[0], r.x_head = x.stride[1];
    r.y = y.data, r.y_row = y.stride[0], r.y_head = y.stride[1];
    r.rows = (unsigned)x.shape[0];
    r.heads = (unsigned)x.shape[1];
    r.aligned = aligned_tensor(&x) && aligned_tensor(&y) && rest % UNIT == 0 &&
                (how->interleaved ? how->dim % UNIT == 0 : half % UNIT == 0);
    r.turned = !r.aligned ? half : how->interleaved ? (unsigned)how->dim / UNIT : half / UNIT;
    r.units = r.turned + (x.data == y.data ? 0 : r.aligned ? rest / UNIT : rest);
    if (!r.rows || !r.heads)
        return 0;
    /* Small rows share a block, as long as it has a thread for each unit. */
    r.per_block = THREADS / (r.heads * r.units);
    r.per_block = r.per_block < 1 ? 1 : r.per_block > 8 ? 8 : r.per_block;
    return by_dtype(x.dtype, [&](auto zero) {
        return mi_launch(rope<decltype(zero)>, blocks_for(r.rows, r.per_block), THREADS,
                         2 * sizeof(float) * r.per_block * half, stream, r);
    });
}
