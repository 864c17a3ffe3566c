/* layer.cuh - the products behind layer.h, on the tensor cores of compute capability 9.0.
 *
 * A block has a tile: rows of x ("tokens"), up to 64 a warpgroup, times N rows of W. One thread streams both through a
 * ring of 64 columns a stage; W of all stages is fetched before the predecessor is done, and not all of it at once:
 * whatever else is read waits behind what the card's memory has been asked for. Blocks of a cluster
 * share the columns of one tile, tell each other their sums, and end some of its tokens each. Sums go through
 * shared memory to the ends, which see whole rows; what those need of vectors and the step's metadata is there
 * before x is.
 *
 * A norm is two steps: who writes x writes x * gain and, for each of its tiles, the sum of squares of a row; who
 * reads it multiplies with x * gain and scales what comes out by 1 / rms. */
#ifndef KERNELS_CUDA_LAYER_CUH
#define KERNELS_CUDA_LAYER_CUH

#include "gemv_parts.cuh"
#include "layer.h"
#include "scaled.cuh"
#include "wgmma.cuh"
#include <cuda.h>
#include <miniinfer/scales.h>

namespace mi_layer
{

using mi_gemv::pack, mi_gemv::unpack, mi_gemv::turn_by, mi_gemv::store_kv;

constexpr int BOX = 64, ROW = BOX * 2; /* columns of a stage; bytes of a row of it */
constexpr int MAX_STAGES = 16, MAX_CLUSTER = 8;
constexpr int PAD = 8; /* floats behind a row of sums: eight rows of a fragment are in different banks */

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

/* What ends need, in shared memory: a warp fetches it, and consumers that wait turn the positions into angles. */
template <Kind KIND, int TOKENS, int N> struct Known {
    static constexpr int SCALES = 0, BIAS = SCALES + TOKENS * 4, GAIN = BIAS + N * 4, SHIFT = GAIN + N * 4,
                         PLACES = SHIFT + (KIND == HEADS ? N * 4 : 0), TURNS = PLACES + TOKENS * 8;

    char *at;
    __device__ float   *scales() const { return (float *)(at + SCALES); } /* [tokens] 1 / rms */
    __device__ float   *bias() const { return (float *)(at + BIAS); }     /* [N] */
    __device__ float   *gain() const { return (float *)(at + GAIN); }     /* [N] BACK, HEADS: offset and all */
    __device__ float   *shift() const { return (float *)(at + SHIFT); }   /* [N] HEADS: what keys are less by in a cache with scales */
    __device__ int64_t *places() const { return (int64_t *)(at + PLACES); } /* [tokens] HEADS: -1: nowhere */
    __device__ float2  *turns() const { return (float2 *)(at + TURNS); }  /* [tokens][N / 2] HEADS */
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/* ---- barriers and copies ------------------------------------------------------------- */

__device__ __forceinline__ void wait_at(unsigned bar, unsigned parity)
{
    unsigned done;
    do
        asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
                     : "=r"(done)
                     : "r"(bar), "r"(parity)
                     : "memory");
    while (!done);
}
__device__ __forceinline__ void arrive_at(unsigned bar)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(bar) : "memory");
}
__device__ __forceinline__ void expect_at(unsigned bar, unsigned bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes) : "memory");
}
__device__ __forceinline__ unsigned in_block(unsigned address, unsigned rank)
{
    unsigned there;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(rank));
    return there;
}
__device__ __forceinline__ void clusters_meet()
{
    __syncwarp();
    asm volatile("barrier.cluster.arrive.relaxed.aligned;\nbarrier.cluster.wait.aligned;" ::: "memory");
}

__device__ __forceinline__ void load_box(unsigned to, const CUtensorMap *map, int column, int row, unsigned bar)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(to),
                 "l"(map), "r"(column), "r"(row), "r"(bar)
                 : "memory");
}
__device__ __forceinline__ void load_box(unsigned to, const CUtensorMap *map, int column, int row, unsigned bar, uint64_t policy)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, {%2, "
                 "%3}], [%4], %5;" ::"r"(to), "l"(map), "r"(column), "r"(row), "r"(bar), "l"(policy)
                 : "memory");
}
/* To a block of the cluster: four numbers, or a piece of shared memory. */
__device__ __forceinline__ void send_to(unsigned to, float x, float y, float z, float w, unsigned bar)
{
    asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1, %2, %3, %4}, [%5];" ::"r"(to), "f"(x), "f"(y),
                 "f"(z), "f"(w), "r"(bar)
                 : "memory");
}
__device__ __forceinline__ void send_piece(unsigned to, unsigned from, unsigned bytes, unsigned bar)
{
    asm volatile("cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to), "r"(from),
                 "r"(bytes), "r"(bar)
                 : "memory");
}

/* ---- a block's part ------------------------------------------------------------------- */

struct Bars {
    unsigned weights, tokens, freed, received, known; /* [stages] thrice, one, one */
};
__device__ __forceinline__ Bars bars_of(const Args &a, unsigned smem)
{
    const unsigned b = smem + a.bars, each = MAX_STAGES * 8;
    return {b, b + each, b + 2 * each, b + 3 * each, b + 3 * each + 8};
}

/* With 32 tokens a warpgroup's other rows are what lies behind them, and nobody looks at their sums. */
template <Kind KIND, int TOKENS, int N> struct Tile {
    static constexpr int WGS = TOKENS > 64 ? 2 : 1, CONSUMERS = WGS * 128, WIDTH = KIND == GATED ? N / 2 : N; /* of y */
    static constexpr int X_BYTES = TOKENS * ROW, W_BYTES = N * ROW, STAGE = X_BYTES + W_BYTES, STRIDE = N + PAD;
    static constexpr bool SENDS_NUMBERS = TOKENS <= 32; /* to the other blocks of a cluster */

    int tile, rank, token; /* rank: in the cluster; token: first of the tile */
    int first, n;          /* boxes of columns */
    int from, tokens;      /* which of the tile's tokens this block ends */

    __device__ __forceinline__ explicit Tile(const Args &a)
    {
        const int c = a.cluster, i = blockIdx.x / c;
        rank = blockIdx.x - i * c;
        tile = i / a.groups; /* blocks that read the same W run at once */
        token = (i - tile * a.groups) * TOKENS;
        first = rank * a.boxes / c;
        n = (rank + 1) * a.boxes / c - first;
        tokens = TOKENS / c;
        from = rank * tokens;
    }
};

/* What a tile of q, k and v is of: a projection's head, N / 2 of its pairs from `pair` on. */
template <int N> struct Head {
    int part, head, pair, apart; /* apart: rows of W from a pair's first to its second */

    __device__ __forceinline__ Head(const Heads &h, int tile)
    {
        const bool half = h.dim > N;
        const int  i = half ? tile / 2 : tile, k = i - h.n_heads, v = k - h.n_kv_heads;
        part = k < 0 ? 0 : v < 0 ? 1 : 2;
        head = k < 0 ? i : v < 0 ? k : v;
        pair = half ? tile % 2 * (N / 2) : 0;
        apart = h.interleaved ? 1 : h.dim / 2;
    }
    /* In the head, of the tile's column i. */
    __device__ __forceinline__ int dim(const Heads &h, int i) const
    {
        return h.interleaved ? 2 * pair + i : i < N / 2 ? pair + i : pair + apart + i - N / 2;
    }
};

/* ---- the thread that copies ----------------------------------------------------------- */

template <Kind KIND, int TOKENS, int N> struct Copier {
    using T = Tile<KIND, TOKENS, N>;
    const Args        &a;
    const T           &t;
    unsigned           smem;
    Bars               bars;
    const CUtensorMap *w, *second; /* NULL: a tile is one box */
    int                row, second_row;
    uint64_t           once;

    __device__ __forceinline__ Copier(const Args &a, const T &t, unsigned smem, const Bars &bars)
        : a(a), t(t), smem(smem), bars(bars), w(a.w), second(KIND == GATED ? a.w + 1 : NULL), row(t.tile * T::WIDTH),
          second_row(row), once(evict_first_policy())
    {
        if (KIND == HEADS) {
            const Head<N> h(a.heads, t.tile);
            w += h.part;
            row = h.head * a.heads.dim + h.dim(a.heads, 0);
            if (a.heads.dim > N && !a.heads.interleaved) {
                second = w;
                second_row = row + h.apart;
            }
        }
    }

    __device__ __forceinline__ void weights(int place, int box)
    {
        const unsigned to = smem + place * T::STAGE + T::X_BYTES, bar = bars.weights + place * 8;
        const int      column = (t.first + box) * BOX;
        expect_at(bar, T::W_BYTES);
        load_box(to, w, column, row, bar, once);
        if ((KIND == GATED || KIND == HEADS) && second)
            load_box(to + T::W_BYTES / 2, second, column, second_row, bar, once);
    }

    __device__ __forceinline__ void tokens(int place, int box)
    {
        const unsigned bar = bars.tokens + place * 8;
        expect_at(bar, T::X_BYTES);
        load_box(smem + place * T::STAGE, &a.x, (t.first + box) * BOX, t.token, bar);
    }

    /* One thread: W, and x from where the ring begins anew. */
    __device__ __forceinline__ void run()
    {
        const int stages = a.stages;
        int       place = 0, parity = 0, behind = 0, there = 0; /* behind: the stage that must be there before one more is asked for */

#pragma unroll 1
        for (int i = 0; i < t.n; i++) {
            if (i >= a.under_way) {
                wait_at(bars.weights + behind * 8, there);
                if (++behind == stages)
                    behind = 0, there ^= 1;
            }
            if (i >= stages)
                wait_at(bars.freed + place * 8, parity ^ 1);
            weights(place, i);
            if (i >= stages)
                tokens(place, i);
            if (++place == stages)
                place = 0, parity ^= 1;
        }
    }

    /* Another: x of the first stages, as soon as it is there. */
    __device__ __forceinline__ void begin()
    {
        const int ready = min(t.n, a.stages);

        asm volatile("prefetch.tensormap [%0];" ::"l"(&a.x) : "memory");
        wait_for_predecessor();
#pragma unroll 1
        for (int i = 0; i < ready; i++)
            tokens(i, i);
    }
};

/* A warp. */
template <Kind KIND, int TOKENS, int N>
__device__ __forceinline__ void fetch_known(const Args &a, const Tile<KIND, TOKENS, N> &t, const Known<KIND, TOKENS, N> &known)
{
    const int lane = threadIdx.x % 32, first = t.token + t.from;

    if (KIND == BACK) {
        const Back &b = a.back;
#pragma unroll
        for (int i = lane; i < N; i += 32) {
            const int  at = t.tile * N + i;
            const bool there = at < a.out;
            known.bias()[i] = b.bias && there ? b.bias[at] : 0;
            known.gain()[i] = b.gain && there ? b.gain[at] + b.offset : 0;
        }
    }
    if (KIND == HEADS) {
        const Heads    &b = a.heads;
        const MiKvView &kv = b.kv;
        const Head<N>   h(b, t.tile);
#pragma unroll
        for (int i = lane; i < N; i += 32) {
            const int dim = h.dim(b, i);
            known.bias()[i] = b.bias[h.part] ? b.bias[h.part][h.head * b.dim + dim] : 0;
            if (h.part < 2 && b.gain[h.part])
                known.gain()[i] = b.gain[h.part][dim] + b.offset;
            if (mi_dtype_scaled(kv.dtype))
                known.shift()[i] = h.part == 1 ? mi_kv_shift(&kv)[h.head * b.dim + dim] : 0;
        }
        for (int i = lane; i < t.tokens; i += 32) {
            const int row = first + i, slot = row >= a.rows ? -1 : h.part == 0 ? 0 : kv.slots ? kv.slots[row] : row;
            int64_t   at = row * b.q_stride + h.head * b.dim;
            if (h.part && slot >= 0)
                at = slot / kv.block_size * kv.stride_block + slot % kv.block_size * kv.stride_token + h.head * kv.stride_head;
            known.places()[i] = slot < 0 ? -1 : at + h.dim(b, 0);
        }
    }
}

/* The same warp: 1 / rms of the n tokens from `first` on that this block ends, from what each tile of the product before
 * found. Few tokens: lanes share out the tiles. */
template <int TOKENS> __device__ __forceinline__ void fetch_scales(const Args &a, int first, int n, float *scales)
{
    constexpr int EACH = TOKENS / 32, AT_ONCE = 64 / EACH;
    const int     lane = threadIdx.x % 32, wide = min(n, 32), token = lane % wide, step = 32 / wide;
    float         sum[EACH];

#pragma unroll
    for (int i = 0; i < EACH; i++)
        sum[i] = 0;
    wait_for_predecessor();
#pragma unroll 1
    for (int g = lane / wide; g < a.n_squares; g += step * AT_ONCE) {
        float v[AT_ONCE][EACH];
#pragma unroll
        for (int k = 0; k < AT_ONCE; k++)
#pragma unroll
            for (int i = 0; i < EACH; i++)
                v[k][i] = g + k * step < a.n_squares && i * 32 < n && first + token + i * 32 < a.rows
                              ? __ldcg(a.squares + (int64_t)(g + k * step) * a.rows + first + token + i * 32)
                              : 0;
#pragma unroll
        for (int k = 0; k < AT_ONCE; k++)
#pragma unroll
            for (int i = 0; i < EACH; i++)
                sum[i] += v[k][i];
    }
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        for (int o = wide; o < 32; o *= 2)
            sum[i] += __shfl_xor_sync(~0u, sum[i], o);
        if (i * 32 < n && lane < wide)
            scales[token + i * 32] = rsqrtf(sum[i] * a.per_width + a.eps);
    }
}

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
    unsigned   codes[8];

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
    const unsigned short scale = scale_of(largest, f8 ? 448 : 127);
    const float          by = __fdiv_rn(1, __uint_as_float((unsigned)scale << 16));
#pragma unroll
    for (int i = 0; i < 8; i++)
        codes[i] = code_of(d.at[i] * by, f8);
    uint8_t *to = (uint8_t *)(part == 1 ? kv.k : kv.v) + at + first;
    if (step == 2) {
        *(uint2 *)to = {codes[0] | codes[4] << 8 | codes[1] << 16 | codes[5] << 24, codes[2] | codes[6] << 8 | codes[3] << 16 | codes[7] << 24};
    } else {
        *(unsigned *)to = codes[0] | codes[1] << 8 | codes[2] << 16 | codes[3] << 24;
        *(unsigned *)(to + far) = codes[4] | codes[5] << 8 | codes[6] << 16 | codes[7] << 24;
    }
    if (threadIdx.x % (DIM / 8) == 0)
        ((unsigned short *)kv.scales)[at / DIM * 2 + part - 1] = scale;
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

/* ---- the warps that multiply ------------------------------------------------------------- */

template <Kind KIND, int TOKENS, int N> struct Consumer {
    using T = Tile<KIND, TOKENS, N>;
    static constexpr int STRIDE = T::STRIDE, PIECES = (KIND == GATED ? N / 2 : N) / 8; /* of a row */
    const Args &a;
    const T    &t;
    char       *smem;
    Bars        bars;

    __device__ __forceinline__ void meet() const { asm volatile("bar.sync 1, %0;" ::"n"(T::CONSUMERS) : "memory"); }

    __device__ __forceinline__ void multiply(float (&d)[N / 2])
    {
        constexpr uint64_t REST = (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 62; /* of an operand but its address */
        const int          group = __shfl_sync(~0u, threadIdx.x / 128, 0), stages = a.stages;
        const unsigned     ring = shared_address(smem), mine = ring + group * 64 * ROW;
        const bool         speaks = threadIdx.x % 128 == 0;
        unsigned           behind = 0; /* the barrier of the stage that may still be read */
        int                place = 0, parity = 0;

#pragma unroll
        for (int i = 0; i < N / 2; i++)
            d[i] = 0;
#pragma unroll 1
        for (int i = 0; i < t.n; i++) {
            wait_at(bars.tokens + place * 8, parity);
            wait_at(bars.weights + place * 8, parity);
            /* A warp's registers in common: else each operand of each product goes there on its own. */
            const uint64_t to_x = (uint64_t)__shfl_sync(~0u, (mine + place * T::STAGE) >> 4, 0) | REST;
            const uint64_t to_w = (uint64_t)__shfl_sync(~0u, (ring + place * T::STAGE + T::X_BYTES) >> 4, 0) | REST;
            wgmma_settle(d);
            wgmma_begin();
#pragma unroll
            for (int k = 0; k < 4; k++)
                Wgmma<bf16, N>::a_shared(d, wgmma_ahead(to_x, k * 32), wgmma_ahead(to_w, k * 32), 1);
            wgmma_commit();
            wgmma_wait<1>();
            if (speaks && behind)
                arrive_at(behind);
            behind = bars.freed + place * 8;
            if (++place == stages)
                place = 0, parity ^= 1;
        }
        wgmma_wait<0>();
        wgmma_settle(d);
    }

    /* Sums to where the ring was, [token][STRIDE]. */
    __device__ __forceinline__ void put(const float (&d)[N / 2]) const
    {
        const int row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4;
        float    *to = (float *)smem + row * STRIDE + threadIdx.x % 4 * 2;

        meet();
        if (row < TOKENS)
#pragma unroll
            for (int i = 0; i < N / 8; i++) {
                *(float2 *)(to + i * 8) = {d[4 * i], d[4 * i + 1]};
                *(float2 *)(to + i * 8 + 8 * STRIDE) = {d[4 * i + 2], d[4 * i + 3]};
            }
    }

    /* Sums of each token to the block that ends it: few by themselves, many at once. */
    __device__ __forceinline__ void tell(const float (&d)[N / 2]) const
    {
        const unsigned mine = shared_address(smem) + a.received + t.rank * t.tokens * STRIDE * 4;

        if (T::SENDS_NUMBERS) {
            const int row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4;
#pragma unroll
            for (int k = 0; k < 2; k++) {
                const int      r = row + k * 8, who = r / t.tokens;
                const unsigned to = in_block(mine + ((r - who * t.tokens) * STRIDE + threadIdx.x % 4 * 4) * 4, who % a.cluster);
                const unsigned bar = in_block(bars.received, who % a.cluster);
                if (row < TOKENS)
#pragma unroll
                    for (int i = 0; i < N / 16; i++) {
                        const float *of = d + 8 * i + 2 * k;
                        send_to(to + i * 64, of[0], of[1], of[4], of[5], bar);
                    }
            }
        } else {
            put(d);
            asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
            meet();
            if (threadIdx.x < a.cluster) {
                const unsigned bytes = t.tokens * STRIDE * 4;
                send_piece(in_block(mine, threadIdx.x), shared_address(smem) + threadIdx.x * bytes, bytes,
                           in_block(bars.received, threadIdx.x));
            }
        }
        wait_at(bars.received, 0);
    }

    /* What all blocks of the cluster have of a row: of the four columns from `first` on, and from `second` on. Of 16 columns
     * that were sent as numbers, what one lane had lies together: 0, 1, 8, 9, then 2, 3, 10, 11, ... */
    __device__ __forceinline__ Row8 sum_of(int token, int first, int second) const
    {
        const bool   sent = T::SENDS_NUMBERS && a.cluster > 1;
        const float *from = (const float *)(smem + (a.cluster == 1 ? 0 : a.received)) + token * STRIDE;
        const int    at[2] = {sent ? first / 16 * 16 + first % 8 * 2 + first / 8 % 2 * 2 : first,
                              sent ? second / 16 * 16 + second % 8 * 2 + second / 8 % 2 * 2 : second};
        const int    step = sent ? 4 : 2;
        Row8         d = {};
#pragma unroll 4
        for (int k = 0; k < (KIND == GATED || KIND == LOGITS ? 1 : a.cluster); k++, from += t.tokens * STRIDE)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const float2 u = *(const float2 *)(from + at[i]), v = *(const float2 *)(from + at[i] + step);
                d.at[4 * i] += u.x, d.at[4 * i + 1] += u.y, d.at[4 * i + 2] += v.x, d.at[4 * i + 3] += v.y;
            }
        return d;
    }

    __device__ __forceinline__ uint4 residual_of(int i) const
    {
        const int token = t.token + t.from + i / PIECES, column = t.tile * N + i % PIECES * 8;
        if (KIND != BACK || token >= a.rows || column >= a.out)
            return {0, 0, 0, 0};
        return __ldcg((const uint4 *)(a.back.residual + token * a.back.r_stride + column));
    }

    __device__ __forceinline__ void angles(const Known<KIND, TOKENS, N> &known, int pair) const
    {
#pragma unroll 1
        for (int i = threadIdx.x; i < t.tokens * (N / 2); i += T::CONSUMERS) {
            const int token = t.token + t.from + i / (N / 2);
            known.turns()[i] = turn_by(token < a.rows ? a.heads.positions[token] : 0, a.heads.freqs[pair + i % (N / 2)], a.heads.magnitude);
        }
        meet();
    }

    __device__ __forceinline__ void run()
    {
        const Known<KIND, TOKENS, N> known{smem + a.known};
        const int  pieces = t.tokens * PIECES, part = KIND == HEADS ? Head<N>(a.heads, t.tile).part : 0;
        const bool inter = KIND == HEADS && a.heads.interleaved;
        float      d[N / 2];

        if (KIND == HEADS && part < 2)
            angles(known, Head<N>(a.heads, t.tile).pair);
        wait_for_predecessor();
        uint4 residual = residual_of(threadIdx.x < pieces ? threadIdx.x : 0);
        multiply(d);
        if ((KIND == BACK || KIND == HEADS) && a.cluster > 1) {
            tell(d);
        } else {
            put(d);
            meet();
        }
        wait_at(bars.known, 0);
#pragma unroll 1
        for (int i = threadIdx.x; i < pieces; i += T::CONSUMERS) {
            const int token = i / PIECES, piece = i % PIECES, at = t.token + t.from + token, c = piece * (KIND == HEADS && !inter ? 4 : 8);
            if (KIND == BACK) {
                if (i != threadIdx.x)
                    residual = residual_of(i);
                end_back<PIECES>(a, t.tile, at, t.tile * N + c, sum_of(token, c, c + 4), residual, known.bias() + c, known.gain() + c);
            } else if (KIND == GATED) {
                end_gated(a, at, t.tile * (N / 2) + c, sum_of(token, c, c + 4), sum_of(token, N / 2 + c, N / 2 + c + 4),
                          known.scales()[token]);
            } else if (KIND == LOGITS) {
                end_logits(a, t.tile, at, t.tile * N + c, sum_of(token, c, c + 4), PIECES);
            } else {
                Row8 s = sum_of(token, c, inter ? c + 4 : N / 2 + c);
                if (inter)
                    s = {s.at[0], s.at[2], s.at[4], s.at[6], s.at[1], s.at[3], s.at[5], s.at[7]};
                end_head<N>(a, part, known.places()[token], piece * 4, s, known.scales()[token], known.bias(), known.gain(), known.shift(),
                            known.turns() + token * (N / 2));
            }
        }
    }
};

template <Kind KIND, int TOKENS, int N>
__global__ void __launch_bounds__((TOKENS > 64 ? 256 : 128) + 64, N <= 128 ? 2 : 1) product(const __grid_constant__ Args a)
{
    extern __shared__ __align__(1024) char smem[];
    using T = Tile<KIND, TOKENS, N>;
    const unsigned at = shared_address(smem);
    const Bars     bars = bars_of(a, at);
    const T        t(a);
    const int      warp = threadIdx.x / 32;

    let_successor_start();
    if (threadIdx.x == T::CONSUMERS) {
        uint64_t *b = (uint64_t *)(smem + a.bars);
        for (int i = 0; i < a.stages; i++) {
            barrier_init(b + i, 1);
            barrier_init(b + MAX_STAGES + i, 1);
            barrier_init(b + 2 * MAX_STAGES + i, T::WGS);
        }
        barrier_init(b + 3 * MAX_STAGES, 1);
        barrier_init(b + 3 * MAX_STAGES + 1, 32);
        barrier_init_done();
        if (a.cluster > 1)
            expect_at(bars.received, TOKENS * (T::SENDS_NUMBERS ? N : T::STRIDE) * 4);
    }
    clusters_meet();
    if (warp < T::CONSUMERS / 32) {
        Consumer<KIND, TOKENS, N>{a, t, smem, bars}.run();
    } else if (warp > T::CONSUMERS / 32) {
        const Known<KIND, TOKENS, N> known{smem + a.known};
        fetch_known(a, t, known);
        if (threadIdx.x % 32 == 0)
            Copier<KIND, TOKENS, N>(a, t, at, bars).begin();
        __syncwarp();
        if (KIND == GATED || KIND == HEADS)
            fetch_scales<TOKENS>(a, t.token + t.from, t.tokens, known.scales());
        arrive_at(bars.known);
    } else if (threadIdx.x == T::CONSUMERS) {
        Copier<KIND, TOKENS, N>(a, t, at, bars).run();
    }
    if (a.cluster > 1)
        clusters_meet(); /* nobody's memory is needed any more */
}

#else

template <Kind KIND, int TOKENS, int N> __global__ void product(const __grid_constant__ Args a) { (void)a; }

#endif

} // namespace mi_layer
#endif
