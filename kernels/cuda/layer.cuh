/* layer.cuh - the products behind layer.h, on the tensor cores of compute capability 9.0.
 *
 * A block has a tile: rows of x ("tokens"), 64 or twice that many a warpgroup, times N rows of W. One thread streams both through a
 * ring of 64 columns a stage. W of all its stages is fetched before the predecessor is done, though not all of it at
 * once: whatever else is read waits behind what the card's memory has been asked for. Blocks of a cluster share the
 * columns of one tile, tell each other their sums, and end some of its tokens each. Sums go through shared memory to the
 * ends (layer_ends.cuh), which see whole rows; what those need of vectors and the step's metadata is there before x is.
 *
 * A norm is two steps: who writes x writes x * gain and, for each of its tiles, the sum of squares of a row; who
 * reads it multiplies with x * gain and scales what comes out by 1 / rms. */
#ifndef KERNELS_CUDA_LAYER_CUH
#define KERNELS_CUDA_LAYER_CUH

#include "boxes.cuh"
#include "layer_ends.cuh"
#include "wgmma.cuh"

namespace mi_layer
{

constexpr int BOX = 64, ROW = BOX * 2; /* columns of a stage; bytes of a row of it */
constexpr int MAX_STAGES = 16, MAX_CLUSTER = 8, BARS_BYTES = (3 * MAX_STAGES + 2) * 8; /* BARS_BYTES: of Bars */
constexpr int PAD = 8; /* floats behind a row of sums: eight rows of a fragment are in different banks */

/* Warpgroups that multiply, 64 tokens each, of 256 twice that many; with two warps beside them, or a warpgroup that leaves them some of
 * its 168 registers. */
__host__ __device__ constexpr int warpgroups(int tokens) { return tokens > 192 ? 2 : tokens > 128 ? 3 : tokens > 64 ? 2 : 1; }
__host__ __device__ constexpr int threads(int tokens) { return warpgroups(tokens) * 128 + (tokens > 192 ? 128 : 64); }
constexpr int TAKEN = 200, LEFT = 96;
/* Sums go to a cluster's other blocks as numbers, to memory of their own; else in pieces, to where the ring was, as soon as all
 * blocks are done with their rings. */
__host__ __device__ constexpr bool sends_numbers(int tokens) { return tokens <= 32; }
__host__ __device__ constexpr int  sums_bytes(int tokens, int n) { return tokens * (n + PAD) * 4; }
/* Tiles of which a multiprocessor has registers for one. */
__host__ __device__ constexpr bool alone(int tokens, int n) { return tokens * n > 128 * 128; }

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
/* What is sent to other blocks has barriers of its own. */
__device__ __forceinline__ void clusters_meet()
{
    __syncwarp();
    cluster_here();
    cluster_wait();
}

using mi_boxes::fetch_map, mi_boxes::load_box;

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
    static constexpr int WGS = warpgroups(TOKENS), CONSUMERS = WGS * 128, WIDTH = KIND == GATED ? N / 2 : N; /* of y */
    static constexpr int EACH = TOKENS > 192 ? 2 : 1; /* times 64 tokens that a warpgroup multiplies */
    static constexpr int X_BYTES = TOKENS * ROW, W_BYTES = N * ROW, STAGE = X_BYTES + W_BYTES, STRIDE = N + PAD;
    static constexpr bool SENDS_NUMBERS = sends_numbers(TOKENS);
    static constexpr int  SUMS_BYTES = sums_bytes(TOKENS, N);

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

        fetch_map(&a.x);
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
#pragma unroll 1
        for (int i = lane; i < t.tokens; i += 32) {
            const int row = first + i, slot = row >= a.rows ? -1 : h.part == 0 ? 0 : kv.slots ? kv.slots[row] : row;
            int64_t   at = row * b.q_stride + h.head * b.dim;
            if (h.part && slot >= 0) {
                const unsigned block = (unsigned)slot / (unsigned)kv.block_size;
                at = block * kv.stride_block + ((unsigned)slot - block * kv.block_size) * kv.stride_token + h.head * kv.stride_head;
            }
            known.places()[i] = slot < 0 ? -1 : at + h.dim(b, 0);
        }
    }
}

/* The same warp: 1 / rms of the n tokens from `first` on that this block ends, from what each tile of the product before
 * found. Few tokens: lanes share out the tiles. */
template <int TOKENS> __device__ __forceinline__ void fetch_scales(const Args &a, int first, int n, float *scales)
{
    constexpr int EACH = TOKENS / 32, AT_ONCE = (TOKENS > 128 ? 40 : 64) / EACH; /* 40: within LEFT */
    constexpr int GROUP = TOKENS > 64 ? AT_ONCE : 8; /* whose instructions are passed over where there are no more tiles */
    const int     lane = threadIdx.x % 32, wide = min(n, 32), token = lane % wide, step = 32 / wide;
    float         sum[EACH];

#pragma unroll
    for (int i = 0; i < EACH; i++)
        sum[i] = 0;
    wait_for_predecessor();
#pragma unroll 1
    for (int all = 0; all < a.n_squares; all += step * AT_ONCE) {
        const int g = all + lane / wide;
        float     v[AT_ONCE][EACH];
#pragma unroll
        for (int i = 0; i < EACH; i++)
#pragma unroll
            for (int j = 0; j < AT_ONCE; j += GROUP)
                if (i * 32 < n && all + j * step < a.n_squares)
#pragma unroll
                    for (int k = j; k < j + GROUP; k++)
                        v[k][i] = g + k * step < a.n_squares && first + token + i * 32 < a.rows
                                      ? __ldcg(a.squares + (int64_t)(g + k * step) * a.rows + first + token + i * 32)
                                      : 0;
#pragma unroll
        for (int i = 0; i < EACH; i++)
#pragma unroll
            for (int j = 0; j < AT_ONCE; j += GROUP)
                if (i * 32 < n && all + j * step < a.n_squares)
#pragma unroll
                    for (int k = j; k < j + GROUP; k++)
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

/* ---- the warps that multiply ------------------------------------------------------------- */

template <Kind KIND, int TOKENS, int N> struct Consumer {
    using T = Tile<KIND, TOKENS, N>;
    static constexpr int STRIDE = T::STRIDE, PIECES = (KIND == GATED ? N / 2 : N) / 8; /* of a row */
    const Args &a;
    const T    &t;
    char       *smem;
    Bars        bars;

    static __device__ __forceinline__ void settle(float (&d)[T::EACH][N / 2])
    {
#pragma unroll
        for (int m = 0; m < T::EACH; m++)
            wgmma_settle(d[m]);
    }

    /* Of the two tokens that a thread has sums of in d[m], the first; the other is 8 further. */
    __device__ __forceinline__ int token_of(int m) const
    {
        return (threadIdx.x / 128 * T::EACH + m) * 64 + threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4;
    }

    __device__ __forceinline__ void meet() const { asm volatile("bar.sync 1, %0;" ::"n"(T::CONSUMERS) : "memory"); }

    __device__ __forceinline__ void multiply(float (&d)[T::EACH][N / 2])
    {
        constexpr uint64_t REST = (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 62; /* of an operand but its address */
        const int          group = __shfl_sync(~0u, threadIdx.x / 128, 0), stages = a.stages;
        const unsigned     ring = shared_address(smem), mine = ring + group * T::EACH * 64 * ROW;
        const bool         speaks = threadIdx.x % 128 == 0;
        unsigned           behind = 0; /* the barrier of the stage that may still be read */
        int                place = 0, parity = 0;

#pragma unroll
        for (int m = 0; m < T::EACH; m++)
#pragma unroll
            for (int i = 0; i < N / 2; i++)
                d[m][i] = 0;
#pragma unroll 1
        for (int i = 0; i < t.n; i++) {
            wait_at(bars.tokens + place * 8, parity);
            wait_at(bars.weights + place * 8, parity);
            /* A warp's registers in common: else each operand of each product goes there on its own. */
            const uint64_t to_x = (uint64_t)__shfl_sync(~0u, (mine + place * T::STAGE) >> 4, 0) | REST;
            const uint64_t to_w = (uint64_t)__shfl_sync(~0u, (ring + place * T::STAGE + T::X_BYTES) >> 4, 0) | REST;
            settle(d);
            wgmma_begin();
#pragma unroll
            for (int k = 0; k < 4; k++)
#pragma unroll
                for (int m = 0; m < T::EACH; m++)
                    Wgmma<bf16, N>::a_shared(d[m], wgmma_ahead(to_x, m * 64 * ROW + k * 32), wgmma_ahead(to_w, k * 32), 1);
            wgmma_commit();
            wgmma_wait<1>();
            if (speaks && behind)
                arrive_at(behind);
            behind = bars.freed + place * 8;
            if (++place == stages)
                place = 0, parity ^= 1;
        }
        wgmma_wait<0>();
        settle(d);
    }

    /* Sums to where the ring was, `at` bytes from its begin, [token][STRIDE]. */
    __device__ __forceinline__ void put(const float (&d)[T::EACH][N / 2], int at) const
    {
        meet();
#pragma unroll
        for (int m = 0; m < T::EACH; m++) {
            const int row = token_of(m);
            float    *to = (float *)(smem + at) + row * STRIDE + threadIdx.x % 4 * 2;
            if (row < TOKENS) {
#pragma unroll
                for (int i = 0; i < N / 8; i++) {
                    *(float2 *)(to + i * 8) = {d[m][4 * i], d[m][4 * i + 1]};
                    *(float2 *)(to + i * 8 + 8 * STRIDE) = {d[m][4 * i + 2], d[m][4 * i + 3]};
                }
            }
        }
    }

    /* Sums of each token to the block that ends it: few by themselves, many at once. */
    __device__ __forceinline__ void tell(const float (&d)[T::EACH][N / 2]) const
    {
        const unsigned mine = shared_address(smem) + a.received + t.rank * t.tokens * STRIDE * 4;

        if (T::SENDS_NUMBERS) {
            const int row = token_of(0);
#pragma unroll
            for (int k = 0; k < 2; k++) {
                const int      r = row + k * 8, who = r / t.tokens;
                const unsigned to = in_block(mine + ((r - who * t.tokens) * STRIDE + threadIdx.x % 4 * 4) * 4, who % a.cluster);
                const unsigned bar = in_block(bars.received, who % a.cluster);
                if (row < TOKENS)
#pragma unroll
                    for (int i = 0; i < N / 16; i++) {
                        const float *of = d[0] + 8 * i + 2 * k;
                        send_to(to + i * 64, of[0], of[1], of[4], of[5], bar);
                    }
            }
        } else {
            cluster_here();
            put(d, T::SUMS_BYTES);
            asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
            meet();
            cluster_wait();
            if (threadIdx.x < a.cluster && threadIdx.x != t.rank) {
                const unsigned bytes = t.tokens * STRIDE * 4;
                send_piece(in_block(mine, threadIdx.x), shared_address(smem) + T::SUMS_BYTES + threadIdx.x * bytes, bytes,
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
                const float *part = from + at[i] + (!sent && a.cluster > 1 && k == t.rank ? T::SUMS_BYTES / 4 : 0); /* its own */
                const float2 u = *(const float2 *)part, v = *(const float2 *)(part + step);
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
        float      d[T::EACH][N / 2];

        if (KIND == HEADS && part < 2)
            angles(known, Head<N>(a.heads, t.tile).pair);
        wait_for_predecessor();
        uint4 residual = residual_of(threadIdx.x < pieces ? threadIdx.x : 0);
        multiply(d);
        if ((KIND == BACK || KIND == HEADS) && a.cluster > 1) {
            tell(d);
        } else {
            put(d, 0);
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
__global__ void __launch_bounds__(threads(TOKENS), alone(TOKENS, N) ? 1 : 2) product(const __grid_constant__ Args a)
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
            expect_at(bars.received, T::SENDS_NUMBERS ? TOKENS * N * 4 : T::SUMS_BYTES / a.cluster * (a.cluster - 1));
    }
    clusters_meet();
    if (warp < T::CONSUMERS / 32) {
        if (T::EACH > 1)
            asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(TAKEN));
        Consumer<KIND, TOKENS, N>{a, t, smem, bars}.run();
    } else {
        if (T::EACH > 1)
            asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(LEFT));
        if (threadIdx.x == T::CONSUMERS) {
            Copier<KIND, TOKENS, N>(a, t, at, bars).run();
        } else if (warp == T::CONSUMERS / 32 + 1) {
            const Known<KIND, TOKENS, N> known{smem + a.known};
            fetch_known(a, t, known);
            if (threadIdx.x % 32 == 0)
                Copier<KIND, TOKENS, N>(a, t, at, bars).begin();
            __syncwarp();
            if (KIND == GATED || KIND == HEADS)
                fetch_scales<TOKENS>(a, t.token + t.from, t.tokens, known.scales());
            arrive_at(bars.known);
        }
        if (!T::SENDS_NUMBERS && a.cluster > 1)
            clusters_meet(); /* as those that multiply do when they have */
    }
    if (a.cluster > 1)
        clusters_meet(); /* nobody's memory is needed any more */
}

#else

template <Kind KIND, int TOKENS, int N> __global__ void product(const __grid_constant__ Args a) { (void)a; }

#endif

} // namespace mi_layer
#endif
