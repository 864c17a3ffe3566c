/* attention_flash.cu - attention of prompts on sm_90a, after FlashAttention-3 (Shah et al. 2024).
 *
 * A persistent block takes tiles of packed rows, those with the most keys first.  One warp copies keys and values
 * by TMA through two rings, three more bring the next tile's queries; two or three warpgroups compute, taking
 * turns at the tensor cores: while the scores of block j + 1 and the product with the values of block j are under way
 * in one, another turns its scores into weights, which stay in registers.
 *
 * A paged cache starts at position 0, in pages that divide a block of keys or are a multiple of it; what does not fit
 * here goes to attention_gqa.cu.  Keys and values with scales become 16 bits in a place of their own first
 * (attention_widen.cu), and that is read instead of the cache. */
#include <cuda.h>
#include <cuda/attention_tiles.cuh>
#include <cuda/boxes.cuh>
#include <cuda/wgmma.cuh>

namespace
{

/* N: warpgroups that compute, 64 rows each. */
template <int DIM, int N> struct Plan {
    static constexpr int GROUPS = N;
    static constexpr int ROWS = GROUPS * 64, KEYS = DIM <= 128 ? 128 : 64;
    static constexpr int STAGES = DIM <= 64 ? 3 : 2,
                         QUEUES = DIM <= 128 ? 2 : 1; /* of keys and of values; of queries */
    static constexpr int CHUNKS = (DIM + 63) / 64;    /* tiles of 64 columns */
    static constexpr int THREADS = (GROUPS + 1) * 128;
    static constexpr int QUERY_BYTES = ROWS * CHUNKS * 128, SIDE_BYTES = KEYS * CHUNKS * 128;
    static constexpr bool SHARES = GROUPS == 2; /* a tile's keys, with other blocks */
    static constexpr int BYTES = 1024 + QUEUES * QUERY_BYTES + 2 * STAGES * SIDE_BYTES;
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

constexpr int COPIERS = 3 * 32; /* threads that bring queries */

/* ---- shared memory --------------------------------------------------------------- */

template <typename P> struct Memory {
    unsigned char *q, *k, *v; /* [QUEUES], [STAGES], [STAGES] of tiles [CHUNKS][rows or keys][128 bytes] */
    uint64_t      *q_full, *q_empty, *k_full, *k_empty, *v_full, *v_empty;
    Listed        *listed;

    __device__ explicit Memory(unsigned char *smem)
    {
        q_full = (uint64_t *)smem;
        q_empty = q_full + P::QUEUES, k_full = q_empty + P::QUEUES, k_empty = k_full + P::STAGES;
        v_full = k_empty + P::STAGES, v_empty = v_full + P::STAGES;
        listed = (Listed *)(v_empty + P::STAGES);
        static_assert((2 * P::QUEUES + 4 * P::STAGES) * sizeof(uint64_t) + sizeof(Listed) <= 1024, "before the tiles");
        q = smem + 1024, k = q + P::QUEUES * P::QUERY_BYTES, v = k + P::STAGES * P::SIDE_BYTES;
    }
    __device__ void init() const
    {
        for (int i = 0; i < P::QUEUES; i++)
            barrier_init(q_full + i, COPIERS / 32), barrier_init(q_empty + i, P::GROUPS * 4);
        for (int i = 0; i < P::STAGES; i++) {
            barrier_init(k_full + i, 1), barrier_init(k_empty + i, P::GROUPS * 4);
            barrier_init(v_full + i, 1), barrier_init(v_empty + i, P::GROUPS * 4);
        }
        barrier_init_done();
    }
};

/* A counter's place in a ring. */
template <int N> struct Place {
    int      at;
    unsigned parity;
    __device__ explicit Place(int count) : at(count % N), parity((unsigned)(count / N) & 1) {}
};

template <int N> __device__ __forceinline__ void registers_fewer()
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}
template <int N> __device__ __forceinline__ void registers_more()
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}

__device__ __forceinline__ void fence_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
__device__ __forceinline__ void named_sync(int id, int threads)
{
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
__device__ __forceinline__ void named_arrive(int id, int threads)
{
    asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

/* ---- the warps that copy ----------------------------------------------------------- */

/* A block of keys is boxes of 64 columns and step.box positions, of one page each: a lane copies one box. */
struct Box {
    int at, page; /* position in the page; below 0: nothing */

    /* Of the block that begins at t0, of a sequence of `end` keys; no page past its last.  The table is far away: it
     * is asked well before the box is copied. */
    __device__ __forceinline__ void find(const Step &step, int keys, int seq, int t0, int end)
    {
        const MiKvView &kv = step.call.kv;
        const int       i = threadIdx.x % 32 * step.box, t = kv.max_blocks > 1 ? min(t0 + i, end - 1) / step.box * step.box : t0 + i;
        const int       in_seq = kv.max_blocks > 1 ? t / kv.block_size : 0;

        at = -1;
        if (i >= keys)
            return;
        if (step.moved) {
            at = t + step.moved[seq];
            page = 0;
        } else {
            at = t - in_seq * kv.block_size;
            page = kv.block_table ? kv.block_table[seq * (int64_t)kv.max_blocks + in_seq] : seq;
        }
    }
};

template <typename P>
__device__ __forceinline__ void copy_block(const Step &step, const CUtensorMap *map, const Box &box, int kv_head, unsigned to,
                                           uint64_t *full)
{
    const int lane = threadIdx.x % 32;

    if (lane == 0)
        barrier_expect(full, P::SIDE_BYTES);
    __syncwarp();
    if (box.at >= 0)
#pragma unroll
        for (int c = 0; c < P::CHUNKS; c++)
            asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, "
                         "%3, %4, %5}], [%6];" ::"r"(to + c * P::KEYS * 128 + lane * step.box * 128),
                         "l"(map), "r"(c * 64), "r"(box.at), "r"(kv_head), "r"(box.page),
                         "r"(shared_address(full))
                         : "memory");
}

/* By a whole warp. */
template <typename P>
__device__ void copy_keys_and_values(const Step &step, const CUtensorMap *keys, const CUtensorMap *values,
                                     const Memory<P> &m)
{
    Walk<P::ROWS, P::KEYS, P::SHARES> walk(step, *m.listed);
    int                    n = 0;

    while (walk.next()) {
        const Tile &t = walk.t;
        Box         box, next;
        if (t.n_blocks > 0)
            next.find(step, P::KEYS, walk.seq, t.base + (t.n_blocks - 1) * P::KEYS, t.s.len);
        for (int b = t.n_blocks - 1; b >= 0; b--, n++) {
            const Place<P::STAGES> p(n);
            const unsigned         k = shared_address(m.k) + p.at * P::SIDE_BYTES,
                           v = shared_address(m.v) + p.at * P::SIDE_BYTES;
            box = next;
            if (b)
                next.find(step, P::KEYS, walk.seq, t.base + (b - 1) * P::KEYS, t.s.len);
            barrier_wait(m.k_empty + p.at, p.parity ^ 1);
            copy_block<P>(step, keys, box, t.kv_head, k, m.k_full + p.at);
            barrier_wait(m.v_empty + p.at, p.parity ^ 1);
            copy_block<P>(step, values, box, t.kv_head, v, m.v_full + p.at);
        }
    }
}

/* The rows of a tile, in the order that wgmma wants; those past the last are it once more. */
template <typename T, int DIM, typename P>
__device__ void copy_queries(const Step &step, const Memory<P> &m, int thread)
{
    const MiCudaAttention &a = step.call;
    Walk<P::ROWS, P::KEYS, P::SHARES> walk(step, *m.listed);

    for (int n = 0; walk.next(); n++) {
        const Place<P::QUEUES> p(n);
        const unsigned         to = shared_address(m.q) + p.at * P::QUERY_BYTES;
        barrier_wait(m.q_empty + p.at, p.parity ^ 1);
        for (int i = thread; i < P::ROWS * (DIM / 8); i += COPIERS) {
            const int row = i / (DIM / 8), c = i % (DIM / 8), r = min(walk.t.first + row, walk.t.last);
            copy_16(to + c / 8 * P::ROWS * 128 + row * 128 + ((c % 8 ^ row % 8) * 16),
                    (const T *)a.q.data + row_at(a.q, walk.t.s, walk.t.kv_head, walk.group, r) + c * 8, true);
        }
        copies_commit();
        copies_wait<0>();
        fence_async();
        __syncwarp();
        if (thread % 32 == 0)
            barrier_arrive(m.q_full + p.at);
    }
}

/* ---- the warpgroups that compute --------------------------------------------------- */

/* Two rows a thread: a row's maximum and sum so far. */
struct Softmax {
    float top[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};

    /* Scores become weights; keep: by how much what was there shrinks.  Sums are of this thread's columns. */
    template <int N> __device__ __forceinline__ void take(float (&x)[N], float scale, float (&keep)[2])
    {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float m = top[i];
#pragma unroll
            for (int c = 0; c < N; c += 4)
                m = fmaxf(m, fmaxf(x[c + 2 * i], x[c + 2 * i + 1]));
            m = quad_max(m);
            const float safe = m == -INFINITY ? 0 : m * scale;
            keep[i] = exp2_fast(top[i] * scale - safe);
            top[i] = m;
            float s[2] = {0, 0};
#pragma unroll
            for (int c = 0; c < N; c += 4)
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    x[c + 2 * i + j] = exp2_fast(fmaf(x[c + 2 * i + j], scale, -safe));
                    s[j] += x[c + 2 * i + j];
                }
            sum[i] = fmaf(sum[i], keep[i], s[0] + s[1]);
        }
    }
};

template <int N> __device__ __forceinline__ void cap(float (&x)[N], const Cap &c)
{
#pragma unroll
    for (int i = 0; i < N; i++)
        x[i] = c.of(x[i]);
}

/* What a row does not see; key: of this thread's first column. */
template <int N> __device__ __forceinline__ void mask(float (&x)[N], const Keys (&see)[2], int key)
{
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int first = see[i].first - key, end = see[i].end - key;
#pragma unroll
        for (int c = 0; c < N; c += 4)
#pragma unroll
            for (int j = 0; j < 2; j++)
                if (c * 2 + j < first || c * 2 + j >= end)
                    x[c + 2 * i + j] = -INFINITY;
    }
}

/* Weights as the left operand of the product with values. */
template <typename T, int N> __device__ __forceinline__ void to_operand(const float (&x)[N], unsigned (&p)[N / 8][4])
{
#pragma unroll
    for (int i = 0; i < N / 8; i++)
#pragma unroll
        for (int j = 0; j < 4; j++)
            p[i][j] = pack<T>(x[8 * i + 2 * j], x[8 * i + 2 * j + 1]);
}

template <typename T, int DIM, typename P> struct Consumer {
    const Step      &step;
    const Memory<P> &m;
    const int        which, thread, lane;
    int              n = 0; /* blocks of keys taken */

    __device__ Consumer(const Step &s, const Memory<P> &memory, int w)
        : step(s), m(memory), which(w), thread(threadIdx.x % 128), lane(threadIdx.x % 32)
    {
        if (which == P::GROUPS - 1)
            named_arrive(1, 256);
    }
    __device__ __forceinline__ void my_turn() const { named_sync(1 + which, 256); }
    __device__ __forceinline__ void next_turn() const { named_arrive(1 + (which + 1) % P::GROUPS, 256); }
    __device__ __forceinline__ void release(uint64_t *barrier) const
    {
        if (lane == 0)
            barrier_arrive(barrier);
    }

    __device__ __forceinline__ void scores(float (&x)[P::KEYS / 2], uint64_t q, int stage) const
    {
        const uint64_t k = wgmma_operand(shared_address(m.k) + stage * P::SIDE_BYTES, 0);
#pragma unroll
        for (int i = 0; i < DIM / 16; i++)
            Wgmma<T, P::KEYS>::a_shared(x, wgmma_ahead(q, i / 4 * P::ROWS * 128 + i % 4 * 32),
                                        wgmma_ahead(k, i / 4 * P::KEYS * 128 + i % 4 * 32), i > 0);
    }
    __device__ __forceinline__ void values(float (&out)[DIM / 2], const unsigned (&p)[P::KEYS / 16][4], int stage) const
    {
        const uint64_t v = wgmma_operand(shared_address(m.v) + stage * P::SIDE_BYTES, P::KEYS * 128);
#pragma unroll
        for (int i = 0; i < P::KEYS / 16; i++)
            Wgmma<T, DIM>::a_registers(out, p[i], wgmma_ahead(v, i * 2048));
    }

    /* Positions past the sequence's last hold anything, NaN among it: their values count as 0. */
    __device__ void clear_values(int from, int stage) const
    {
        unsigned char *v = m.v + stage * P::SIDE_BYTES;
        for (int i = from * 8 + thread; i < P::KEYS * 8; i += 128)
#pragma unroll
            for (int c = 0; c < P::CHUNKS; c++)
                *(uint4 *)(v + c * P::KEYS * 128 + i * 16) = uint4{};
        fence_async();
        named_sync(1 + P::GROUPS + which, 128);
    }

    /* A part of the tile's keys. */
    __device__ __forceinline__ void hand_over(const Tile &t, const float (&out)[DIM / 2], const Softmax &soft, float scale) const
    {
        float *to = step.parts + (size_t)t.slot * PART_FLOATS<P::ROWS, DIM>;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int   r = which * 64 + thread / 32 * 16 + lane / 4 + 8 * i;
            const float l = quad_sum(soft.sum[i]);
            if (t.first + r > t.last)
                continue;
#pragma unroll
            for (int c = 0; c < DIM / 8; c++)
                *(float2 *)(to + r * DIM + c * 8 + lane % 4 * 2) = {out[4 * c + 2 * i], out[4 * c + 2 * i + 1]};
            if (lane % 4 == 0)
                ((float2 *)(to + P::ROWS * DIM))[r] = {soft.top[i] * scale, l};
        }
    }

    __device__ void tile(const Walk<P::ROWS, P::KEYS, P::SHARES> &walk, int queue)
    {
        const Tile            &t = walk.t;
        const MiCudaAttention &a = step.call;
        const int row = t.first + which * 64 + thread / 32 * 16 + lane / 4; /* of this thread, and the one 8 on */
        const int certain = walk.see(t.first + which * 64).end,
                  from = walk.see(min(t.first + which * 64 + 63, t.last)).first;
        const uint64_t q = wgmma_operand(shared_address(m.q) + queue * P::QUERY_BYTES + which * 8192, 0);
        const float    scale = a.scale * LOG2E;
        const Cap      softcap(a);
        Keys           see[2];
        Softmax        soft;
        float          x[P::KEYS / 2], out[DIM / 2], keep[2];
        unsigned       p[P::KEYS / 16][4];

#pragma unroll
        for (int i = 0; i < 2; i++)
            see[i] = row + 8 * i <= t.last ? walk.see(row + 8 * i) : Keys{0, 0};
#pragma unroll
        for (int i = 0; i < DIM / 2; i++)
            out[i] = 0;
        if (t.n_blocks > 0) {
            int              key = t.base + (t.n_blocks - 1) * P::KEYS; /* of the block at hand; the last comes first */
            Place<P::STAGES> now(n);

            barrier_wait(m.k_full + now.at, now.parity);
            wgmma_begin();
            scores(x, q, now.at);
            wgmma_commit();
            wgmma_wait<0>();
            wgmma_settle(x);
            release(m.k_empty + now.at);
            if (a.softcap > 0)
                cap(x, softcap);
            if (key + P::KEYS > certain || key < from)
                mask(x, see, key + lane % 4 * 2);
            soft.take(x, scale, keep);
            to_operand<T>(x, p);
            if (key + P::KEYS > t.s.len) {
                barrier_wait(m.v_full + now.at, now.parity);
                clear_values(t.s.len - key, now.at);
            }
            for (int b = 1; b < t.n_blocks; b++) {
                const Place<P::STAGES> next(++n);

                key -= P::KEYS;
                barrier_wait(m.k_full + next.at, next.parity);
                my_turn();
                wgmma_begin();
                scores(x, q, next.at);
                wgmma_commit();
                barrier_wait(m.v_full + now.at, now.parity);
                wgmma_begin();
                values(out, p, now.at);
                wgmma_commit();
                next_turn();
                wgmma_wait<1>();
                wgmma_settle(x);
                release(m.k_empty + next.at);
                if (a.softcap > 0)
                    cap(x, softcap);
                if (key + P::KEYS > certain || key < from)
                    mask(x, see, key + lane % 4 * 2);
                soft.take(x, scale, keep);
                wgmma_wait<0>();
                wgmma_settle(out);
                wgmma_settle(p);
                release(m.v_empty + now.at);
#pragma unroll
                for (int i = 0; i < DIM / 2; i++)
                    out[i] *= keep[i / 2 % 2];
                to_operand<T>(x, p);
                now = next;
            }
            release(m.q_empty + queue);
            barrier_wait(m.v_full + now.at, now.parity);
            wgmma_begin();
            values(out, p, now.at);
            wgmma_commit();
            wgmma_wait<0>();
            wgmma_settle(out);
            release(m.v_empty + now.at);
            n++;
        } else {
            release(m.q_empty + queue);
        }
        if constexpr (P::SHARES)
            if (t.slot >= 0)
                return hand_over(t, out, soft, scale);
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const float l = quad_sum(soft.sum[i]), f = l > 0 ? 1 / l : 0; /* no keys: zeros */
            if (row + 8 * i <= t.last) {
                T *to = (T *)a.out.data + row_at(a.out, t.s, t.kv_head, walk.group, row + 8 * i) + lane % 4 * 2;
#pragma unroll
                for (int c = 0; c < DIM / 8; c++)
                    *(unsigned *)(to + c * 8) = pack<T>(out[4 * c + 2 * i] * f, out[4 * c + 2 * i + 1] * f);
            }
        }
    }
};

#endif

template <typename T, int DIM, int N>
__global__ void __launch_bounds__(Plan<DIM, N>::THREADS, 1)
    flash(const __grid_constant__ CUtensorMap keys, const __grid_constant__ CUtensorMap values,
          const __grid_constant__ Step step)
{
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    using P = Plan<DIM, N>;
    extern __shared__ __align__(1024) unsigned char smem[];
    const Memory<P>                                 m(smem);
    const int group = __shfl_sync(~0u, (int)threadIdx.x / 128, 0); /* wgmma wants to know that a warp does not part */

    let_successor_start();
    if (threadIdx.x == 0)
        m.init();
    if (threadIdx.x / 32 == 1) {
        step.wait_for_moved();
        m.listed->fill(step, P::ROWS, threadIdx.x % 32);
    }
    __syncthreads();
    wait_for_predecessor();
    if (group == 0) {
        registers_fewer<N == 3 ? 32 : 40>(); /* of 65536: 384 or 512 threads */
        if (threadIdx.x < 32)
            copy_keys_and_values<P>(step, &keys, &values, m);
        else
            copy_queries<T, DIM, P>(step, m, threadIdx.x - 32);
    } else {
        registers_more<N == 3 ? 160 : 232>();
        Consumer<T, DIM, P>    consumer(step, m, group - 1);
        Walk<P::ROWS, P::KEYS, P::SHARES> walk(step, *m.listed);
        for (int n = 0; walk.next(); n++) {
            const Place<P::QUEUES> p(n);
            barrier_wait(m.q_full + p.at, p.parity);
            consumer.tile(walk, p.at);
        }
    }
#else
    (void)keys, (void)values, (void)step;
#endif
}

/* ---- launching --------------------------------------------------------------------- */

using mi_boxes::card;

/* One side of the cache as columns, positions of a block, heads, blocks; how many blocks there are is not known here.
 */
bool describe(CUtensorMap *map, const MiKvView *kv, void *side, int box)
{
    const cuuint64_t shape[4] = {(cuuint64_t)kv->head_dim, (cuuint64_t)kv->block_size, (cuuint64_t)kv->n_kv_heads,
                                 1u << 24};
    const cuuint64_t stride[3] = {(cuuint64_t)kv->stride_token * 2, (cuuint64_t)kv->stride_head * 2,
                                  (cuuint64_t)kv->stride_block * 2};
    const cuuint32_t part[4] = {64, (cuuint32_t)box, 1, 1}, each[4] = {1, 1, 1, 1};

    return card().encode(map, kv->dtype == MI_BF16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
                         4, side, shape, stride, part, each, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                         CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

/* Positions that one copy brings; 0: these pages do not fit. */
int box_of(const MiKvView *kv, int keys)
{
    if (kv->max_blocks <= 1 || kv->block_size % keys == 0)
        return keys;
    return keys % kv->block_size == 0 && kv->block_size % 8 == 0 ? kv->block_size : 0;
}

/* Tiles, as far as a host knows: a tail for each sequence. */
int64_t tiles_of(const MiCudaAttention *a, int rows)
{
    const int64_t packed = (int64_t)a->batch.shape.n_tokens * (a->q.shape[1] / a->kv.n_kv_heads);
    return (packed / rows + a->batch.shape.n_seqs) * a->kv.n_kv_heads;
}

/* 1: there are too many tiles in any case, or too few keys, to share these out. */
int most_parts(const MiCudaAttention *a, int rows)
{
    const MiShape s = a->batch.shape;
    const int64_t least = (int64_t)(s.n_tokens - s.n_seqs) * (a->q.shape[1] / a->kv.n_kv_heads) / rows * a->kv.n_kv_heads;

    return s.max_kv < (4 * least > card().sms ? 4096 : 1024) || 2 * least > card().sms ? 1 : 16;
}

template <typename T, int DIM, int N> int launch(void *stream, const MiCudaAttention *a, int few, void *workspace, const int32_t *moved)
{
    using P = Plan<DIM, N>;
    static const int allowed = mi_allow_smem(flash<T, DIM, N>, P::BYTES);
    const int        parts = P::SHARES && workspace ? most_parts(a, P::ROWS) : 1;
    const int64_t    tiles = tiles_of(a, P::ROWS) * parts;
    const int        blocks = (int)(tiles < card().sms ? tiles : card().sms);
    const Step       step = {*a, few, box_of(&a->kv, P::KEYS), blocks, parts, (float *)workspace, moved};
    CUtensorMap      keys, values;
    int              e;

    if (allowed)
        return allowed;
    if (!describe(&keys, &a->kv, a->kv.k, step.box) || !describe(&values, &a->kv, a->kv.v, step.box))
        return cudaErrorInvalidValue;
    e = mi_launch(flash<T, DIM, N>, dim3(blocks), P::THREADS, P::BYTES, stream, keys, values, step);
    /* Two parts each at least. */
    return e || parts == 1 ? e : mi_launch(add_parts<T, DIM, P::ROWS, P::KEYS>, dim3(blocks / 2 * (P::ROWS / ADDED)), ADDED * DIM / 4, 0, stream, step);
}

template <typename T> int launch(void *stream, const MiCudaAttention *a, int few, void *workspace, const int32_t *moved)
{
    switch (a->kv.head_dim) {
    case 64: /* larger tiles are faster where there are enough of them */
        if (tiles_of(a, 192) < 3 * card().sms)
            return launch<T, 64, 2>(stream, a, few, workspace, moved);
        return launch<T, 64, 3>(stream, a, few, workspace, moved);
    case 96:
        return launch<T, 96, 2>(stream, a, few, workspace, moved);
    case 128:
        return launch<T, 128, 2>(stream, a, few, workspace, moved);
    case 256:
        return launch<T, 256, 2>(stream, a, few, workspace, moved);
    default:
        return cudaErrorNotSupported;
    }
}

int launch(void *stream, const MiCudaAttention *a, int few, void *workspace, const int32_t *moved)
{
    return a->q.dtype == MI_BF16 ? launch<bf16>(stream, a, few, workspace, moved) : launch<__half>(stream, a, few, workspace, moved);
}

/* The same call over what became of the cache. */
MiCudaAttention over(const MiCudaAttention *a, const MiCudaWide *w)
{
    MiCudaAttention b = *a;

    b.kv.k = w->data;
    b.kv.dtype = a->q.dtype;
    b.kv.stride_token = a->kv.head_dim;
    b.kv.stride_head = (int64_t)w->positions * b.kv.stride_token;
    b.kv.stride_block = a->kv.n_kv_heads * b.kv.stride_head;
    b.kv.v = (char *)w->data + b.kv.stride_block * 2;
    b.kv.block_size = w->positions;
    b.kv.max_blocks = 1;
    b.kv.block_table = NULL;
    b.kv.scales = NULL;
    return b;
}

int launch_wide(void *stream, const MiCudaAttention *a, int few, void *workspace, const MiCudaWide *w)
{
    const MiShape         s = a->batch.shape;
    const MiCudaAttention wide = over(a, w);
    int                   e;

    if ((e = mi_attention_widen(stream, a, few, w)) || (e = launch(stream, &wide, few, workspace, w->moved)))
        return e;
    return (int64_t)s.n_seqs * s.max_kv > w->positions ? mi_attention_gqa_rest(stream, a, few, w->moved) : 0;
}

} // namespace

extern "C" size_t mi_cuda_attention_flash_workspace(int head_dim)
{
    return card().encode ? (size_t)card().sms * 128 * ((size_t)head_dim + 2) * sizeof(float) : 0;
}

/* Where gqa is done before keys and values are there in 16 bits. */
static bool short_prompts(const MiShape &s) { return s.max_kv <= 256 && s.n_tokens <= 1024; }

extern "C" int mi_cuda_attention_flash(void *stream, const MiCudaAttention *a, int few, void *workspace, const MiCudaWide *wide)
{
    const bool scaled = mi_dtype_scaled(a->kv.dtype);

    if (!mi_cuda_attention_fits(a))
        return cudaErrorNotSupported;
    if (!card().encode || (scaled ? !wide || short_prompts(a->batch.shape) : !box_of(&a->kv, a->kv.head_dim <= 128 ? 128 : 64)))
        return mi_cuda_attention_gqa(stream, a, few);
    return scaled ? launch_wide(stream, a, few, workspace, wide) : launch(stream, a, few, workspace, NULL);
}
