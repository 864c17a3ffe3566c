/* attention_whole.cu - decode of at most 8 packed rows, without a soft cap, where a block's share of the keys and
 * values fits its shared memory: all of it is requested before the predecessor is done, but for the positions that this
 * step writes.
 *
 * Keys are the 16-row operand of mma.m16n8k16, the packed rows of a group its 8 columns, so that nothing is computed in
 * vain.  A block without work waits all the same: a kernel must not be done before its predecessor.
 *
 * K is what a cache's elements are: T, or numbers with scales, which become f16, with dimensions that change places and scales
 * that multiply scores and weights as attention_decode.cuh has it. */
#include <cuda/attention_parts.cuh>
#include <cuda/scaled.cuh>
#include <type_traits>

namespace
{

constexpr int ROWS = 8;

/* Units of 16 keys; a block's slot i holds positions 16 i to 16 i + 15 of its share, unit i / WARPS of warp i % WARPS.
 * Shared memory: slots of keys, slots of values, rows of q, scales of the slots' positions, what warps leave where that
 * does not fit their units, what the cluster exchanges. */
template <typename K, int D> struct Whole {
    static constexpr int UNITS = SCALED<K> || D <= 64 ? 4 : 3; /* of a warp */
    static constexpr int PITCH = D * (int)sizeof(K) + 16; /* bytes of a row: an odd number of 16, no bank conflicts */
    static constexpr int UNIT = KEYS * PITCH, Q_PITCH = D * 2 + 16, QUERIES = ROWS * Q_PITCH, CHUNKS = D * (int)sizeof(K) / 16;
    static constexpr int SHARE = SCALED<K> ? ROWS * (D + 4) * 4 : UNIT; /* from what one warp leaves to the next */
    static constexpr int FRESH = 2 * CHUNKS + SCALED<K>; /* loads of a position that this step writes */
    static constexpr int LATE = (ROWS * (D / 8 + FRESH) + THREADS - 1) / THREADS;
    static_assert(ROWS * (D + 4) * sizeof(float) <= SHARE, "what a warp leaves has room");

    static __host__ __device__ constexpr int scales(int slots) { return 2 * slots * UNIT + QUERIES; }
    static __host__ __device__ constexpr int shares(int slots) { return SCALED<K> ? scales(slots) + slots * KEYS * 4 : 0; }
    static __host__ __device__ constexpr int exchange(int slots)
    {
        return SCALED<K> ? shares(slots) + WARPS * SHARE : scales(slots);
    }
    static size_t bytes(const Split &s)
    {
        return (size_t)exchange(s.slots) + (s.power > 0 ? Exchange<D, ROWS>::bytes(s.n_parts, s.log2_owners) : 0);
    }
};

__device__ __forceinline__ void store_4_bytes(unsigned to, unsigned x)
{
    asm volatile("st.shared.b32 [%0], %1;" ::"r"(to), "r"(x) : "memory");
}
__device__ __forceinline__ void store_16(unsigned to, const uint4 &x)
{
    asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(x.x), "r"(x.y), "r"(x.z), "r"(x.w)
                 : "memory");
}

template <typename T, typename K, int D> struct Warp {
    using W = Whole<K, D>;
    using Number = std::conditional_t<SCALED<K>, __half, T>; /* what is multiplied */
    static constexpr int CHUNKS = W::CHUNKS, UNITS = W::UNITS, EACH = 16 / (int)sizeof(K);

    const MiCudaAttention &a;
    const Part            &part;
    const int              lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const unsigned         keys, vals, queries, scales; /* of shared memory */
    unsigned               whole, step; /* in the cache, in 16 bytes, where a sequence is one block: it; a position */
    int   first, n_units, low[2], span[2]; /* of the rows whose scores this lane holds: what they see */
    float score[UNITS][4], out[D / 16][4], top[2], sums[4]; /* sums: of two rows, twice */
    float by[SCALED<K> ? UNITS : 1][2]; /* scales of the values whose weights the scores become */

    /* What other kernels of this step write: rows of q, then its keys and values, and their scales. */
    const void *late_from[W::LATE];
    unsigned    late_to[W::LATE];

    __device__ __forceinline__ Warp(const MiCudaAttention &call, const Part &p, unsigned char *smem, int slots)
        : a(call), part(p), keys(shared_address(smem)), vals(keys + slots * W::UNIT), queries(vals + slots * W::UNIT),
          scales(keys + W::scales(slots)), first(p.k0 + warp * KEYS), n_units(max(0, (p.k1 - first + TURN - 1) / TURN))
    {
        whole = a.kv.max_blocks > 1 ? 0 : (unsigned)(mi_kv_offset(&a.kv, p.seq, 0, p.kv_head) / EACH);
        step = (unsigned)(a.kv.stride_token / EACH);
    }

    __device__ __forceinline__ unsigned place(int p) const
    {
        p = max(0, min(p, part.k1 - 1));
        return a.kv.max_blocks > 1 ? (unsigned)(mi_kv_offset(&a.kv, part.seq, p, part.kv_head) / EACH)
                                   : whole + (unsigned)p * step;
    }
    __device__ __forceinline__ bool later(int p) const { return p >= part.old && p < part.k1; }

    /* Keys, then values of the positions that are there, and zeros for those past the part. */
    __device__ __forceinline__ void request_old()
    {
        unsigned where[(UNITS + 1) / 2]; /* of units 0 and 1, 2 and 3, ... */

#pragma unroll
        for (int h = 0; h < (UNITS + 1) / 2; h++)
            where[h] = place(first + (2 * h + lane / 16) * TURN + lane % 16);
        if constexpr (SCALED<K>) {
#pragma unroll
            for (int h = 0; h < UNITS / 2; h++) {
                const int u = 2 * h + lane / 16, p = first + u * TURN + lane % 16;
                if (u < n_units && !later(p))
                    copy_4(scales + ((u * WARPS + warp) * KEYS + lane % 16) * 4, (const unsigned *)a.kv.scales + where[h] / CHUNKS,
                           p < part.k1);
            }
        }
#pragma unroll 1
        for (int side = 0; side < 2; side++) {
            const K *from = (const K *)(side ? a.kv.v : a.kv.k);
#pragma unroll 1
            for (int u = 0; u < n_units; u++) {
                const unsigned to = (side ? vals : keys) + (u * WARPS + warp) * W::UNIT;
                const int      p0 = first + u * TURN;
                unsigned       at = where[0];
#pragma unroll
                for (int h = 1; h < (UNITS + 1) / 2; h++)
                    at = u >= 2 * h ? where[h] : at;
#pragma unroll
                for (int i = 0; i < KEYS * CHUNKS / 32; i++) {
                    const int      row = (i * 32 + lane) / CHUNKS, chunk = (i * 32 + lane) % CHUNKS, p = p0 + row;
                    const unsigned row_at = __shfl_sync(~0u, at, u % 2 * 16 + row);
                    if (!later(p))
                        copy_16(to + row * W::PITCH + chunk * 16, from + ((uint64_t)row_at + chunk) * EACH, p < part.k1);
                }
            }
            copies_commit();
        }
    }

    /* Everything that the rest needs to know. */
    __device__ __forceinline__ void prepare()
    {
        constexpr int OF_ROW = D / 8;
        const int     fresh = max(part.old, part.k0), n_q = part.packed * OF_ROW;

#pragma unroll
        for (int i = 0; i < W::LATE; i++) {
            const int at = i * THREADS + threadIdx.x, r = at / OF_ROW, p = fresh + (at - n_q) / W::FRESH,
                      c = at < n_q ? at % OF_ROW : (at - n_q) % W::FRESH, slot = (p - part.k0) / KEYS;
            late_from[i] = NULL;
            if (at < n_q) {
                late_from[i] = (const T *)a.q.data + part.row(a.q, r) + c * 8;
                late_to[i] = queries + r * W::Q_PITCH + (SCALED<K> ? query_at(c) : c * 16);
            } else if (p < part.k1 && c < 2 * CHUNKS) {
                late_from[i] = (const K *)(c < CHUNKS ? a.kv.k : a.kv.v) + ((uint64_t)place(p) + c % CHUNKS) * EACH;
                late_to[i] =
                    (c < CHUNKS ? keys : vals) + slot * W::UNIT + (p - part.k0) % KEYS * W::PITCH + c % CHUNKS * 16;
            } else if (p < part.k1) {
                late_from[i] = (const unsigned *)a.kv.scales + place(p) / CHUNKS;
                late_to[i] = scales + (p - part.k0) * 4;
            }
        }
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const Keys see = part.sees(a, lane % 4 * 2 + i);
            low[i] = see.first - first - lane / 4, span[i] = max(0, min(see.end, part.k1) - see.first);
        }
    }

    __device__ __forceinline__ void load_late()
    {
        const int n_q = part.packed * (D / 8);
        uint4     x[W::LATE];

#pragma unroll
        for (int i = 0; i < W::LATE; i++)
            if (late_from[i]) {
                if (is_scale(i * THREADS + threadIdx.x - n_q))
                    x[i].x = __ldcg((const unsigned *)late_from[i]);
                else
                    x[i] = __ldcg((const uint4 *)late_from[i]);
            }
#pragma unroll
        for (int i = 0; i < W::LATE; i++)
            if (late_from[i]) {
                const int at = i * THREADS + threadIdx.x - n_q;
                if (SCALED<K> && at < 0)
                    store_query<T>(late_to[i], x[i], a.scale);
                else if (is_scale(at))
                    store_4_bytes(late_to[i], x[i].x);
                else
                    store_16(late_to[i], x[i]);
            }
    }
    /* Of what comes behind the queries. */
    static __device__ __forceinline__ bool is_scale(int at) { return SCALED<K> && at >= 0 && at % W::FRESH == 2 * CHUNKS; }

    __device__ __forceinline__ void scores()
    {
        const unsigned at = keys + warp * W::UNIT + (lane / 8 % 2 * 8 + lane % 8) * W::PITCH + lane / 16 * 16;
        unsigned       q[D / 32][4];

#pragma unroll
        for (int k = 0; k < D / 32; k++)
            load_matrices(q[k], queries + lane % 8 * W::Q_PITCH + k * 64 + lane / 8 * 16);
#pragma unroll
        for (int u = 0; u < UNITS; u++)
            if (u < n_units) {
                float s[2][4] = {}; /* two sums: half the chain */
#pragma unroll
                for (int k = 0; k < D / (SCALED<K> ? 32 : 16); k++) {
                    unsigned x[4];
                    load_matrices(x, at + u * WARPS * W::UNIT + k * 32);
                    if constexpr (SCALED<K>) {
                        unsigned y[2][4];
#pragma unroll
                        for (int i = 0; i < 4; i++)
                            halves<K>(x[i], y[i / 2][i % 2], y[i / 2][i % 2 + 2]);
#pragma unroll
                        for (int i = 0; i < 2; i++)
                            multiply<Number>(s[i], y[i], q[k][i * 2], q[k][i * 2 + 1]);
                    } else {
                        multiply<T>(s[k % 2], x, q[k / 2][k % 2 * 2], q[k / 2][k % 2 * 2 + 1]);
                    }
                }
#pragma unroll
                for (int i = 0; i < 4; i++)
                    score[u][i] = s[0][i] + s[1][i];
            }
    }

    /* Of the positions whose scores this lane holds: scores times those of keys and `scale`; by: those of values. */
    __device__ __forceinline__ void apply_scales(int u, float scale)
    {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const unsigned both = load_word(scales + ((u * WARPS + warp) * KEYS + lane / 4 + i * 8) * 4);
            score[u][2 * i] *= key_scale(both) * scale, score[u][2 * i + 1] *= key_scale(both) * scale;
            by[u][i] = value_scale(both);
        }
    }

    /* Scores become weights. */
    __device__ __forceinline__ void softmax()
    {
        const float scale = SCALED<K> ? 1 : a.scale * LOG2E; /* of scores that have not got it yet */
        float       safe[2];

        top[0] = top[1] = -INFINITY;
        sums[0] = sums[1] = 0;
#pragma unroll
        for (int u = 0; u < UNITS; u++)
            if (u < n_units) {
                if constexpr (SCALED<K>)
                    apply_scales(u, LOG2E); /* q has that of scores */
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    if ((unsigned)(u * TURN + j / 2 * 8 - low[j & 1]) >= (unsigned)span[j & 1])
                        score[u][j] = -INFINITY;
                    top[j & 1] = fmaxf(top[j & 1], SCALED<K> ? score[u][j] + __log2f(by[u][j / 2]) : score[u][j]);
                }
            }
#pragma unroll
        for (int o = 4; o < 32; o *= 2)
#pragma unroll
            for (int i = 0; i < 2; i++)
                top[i] = fmaxf(top[i], __shfl_xor_sync(~0u, top[i], o));
#pragma unroll
        for (int i = 0; i < 2; i++)
            top[i] *= scale, safe[i] = top[i] == -INFINITY ? 0 : top[i];
#pragma unroll
        for (int u = 0; u < UNITS; u++)
            if (u < n_units)
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    score[u][j] = exp2_fast(fmaf(score[u][j], scale, -safe[j & 1]));
                    if constexpr (SCALED<K>)
                        sums[j & 1] += score[u][j], score[u][j] *= by[u][j / 2];
                }
    }

    __device__ __forceinline__ void values()
    {
        const unsigned at = vals + warp * W::UNIT + (lane / 16 * 8 + lane % 8) * W::PITCH + lane / 8 % 2 * 16;

        const unsigned ones[4] = {pack<T>(1, 1), pack<T>(1, 1), pack<T>(1, 1), pack<T>(1, 1)};

        if constexpr (!SCALED<K>)
            sums[0] = sums[1] = sums[2] = sums[3] = 0;
#pragma unroll
        for (int j = 0; j < D / 16; j++)
            out[j][0] = out[j][1] = out[j][2] = out[j][3] = 0;
#pragma unroll
        for (int u = 0; u < UNITS; u++)
            if (u < n_units) {
                const unsigned lower = turned(pack<Number>(score[u][0], score[u][1])),
                               upper = turned(pack<Number>(score[u][2], score[u][3]));
                if constexpr (!SCALED<K>)
                    multiply<T>(sums, ones, lower, upper); /* of what multiplies the values, as it is rounded */
#pragma unroll
                for (int j = 0; j < D / (SCALED<K> ? 32 : 16); j++) {
                    unsigned x[4];
                    load_matrices_turned(x, at + u * WARPS * W::UNIT + j * 32);
                    if constexpr (SCALED<K>) {
                        unsigned y[2][4]; /* of 16 dimensions each: even ones, odd ones; keys 0 to 7, 8 to 15 */
#pragma unroll
                        for (int i = 0; i < 4; i++)
                            halves_of_pairs<K>(x[i], y[i % 2][i / 2 * 2], y[i % 2][i / 2 * 2 + 1]);
#pragma unroll
                        for (int i = 0; i < 2; i++)
                            multiply<Number>(out[2 * j + i], y[i], lower, upper);
                    } else {
                        multiply<T>(out[j], x, lower, upper);
                    }
                }
            }
        if constexpr (SCALED<K>) {
#pragma unroll
            for (int o = 4; o < 32; o *= 2)
#pragma unroll
                for (int i = 0; i < 2; i++)
                    sums[i] += __shfl_xor_sync(~0u, sums[i], o);
        }
    }

    /* Where the warps' shares are, [ROWS][D + 4], and of_warp, [ROWS] of max and sum. */
    __device__ __forceinline__ void leave(unsigned char *shares, float2 *of_warp)
    {
        float *share = (float *)(shares + warp * W::SHARE);
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int r = lane % 4 * 2 + i;
#pragma unroll
            for (int j = 0; j < D / 16; j++) {
                float *to = share + r * (D + 4) + j * 16;
                if constexpr (SCALED<K>) {
                    *(float2 *)(to + lane / 4 * 2) = float2{out[j][i], out[j][i + 2]};
                } else {
                    to[lane / 4] = out[j][i];
                    to[lane / 4 + 8] = out[j][i + 2];
                }
            }
        }
        if (lane < 4) {
            of_warp[2 * lane] = float2{top[0], sums[0]};
            of_warp[2 * lane + 1] = float2{top[1], sums[1]};
        }
    }
};

template <typename T, typename K, int D>
__global__ void __launch_bounds__(THREADS, 2) whole(const __grid_constant__ MiCudaAttention a, const Split split)
{
    using W = Whole<K, D>;
    extern __shared__ __align__(128) unsigned char smem[];
    __shared__ float2                              of_warp[WARPS][ROWS];
    __shared__ T                                  *to[ROWS];
    Part                                           p;

    let_successor_start();
    if (!find_part<ROWS>(a, split, &p)) {
        wait_for_predecessor();
        return;
    }
    Warp<T, K, D> warp(a, p, smem, split.slots);
    warp.request_old();
    warp.prepare();
    if (threadIdx.x < p.packed)
        to[threadIdx.x] = (T *)a.out.data + p.row(a.out, threadIdx.x);
#if __CUDA_ARCH__ >= 900
    const Exchange<D, ROWS> exchange(smem + W::exchange(split.slots), split, p);
    if (p.n > 1)
        exchange.open(p);
#endif

    wait_for_predecessor();
    warp.load_late();
    copies_wait<1>();
    __syncthreads();
    warp.scores();
    warp.softmax();
    copies_wait<0>();
    __syncwarp();
    warp.values();
    warp.leave(smem + W::shares(split.slots), of_warp[warp.warp]);
    __syncthreads();
    if (p.index < p.n)
        add_warps<D, ROWS, W::SHARE>(smem + W::shares(split.slots), of_warp, p.packed, [&](const float4 &v, int i, const float2 &of_row) {
            if (p.n == 1)
                store_4(to[i / (D / 4)] + i % (D / 4) * 4, v, inverse(of_row.y));
#if __CUDA_ARCH__ >= 900
            else
                exchange.hand_over(i, split, p, v, of_row);
#endif
        });
#if __CUDA_ARCH__ >= 900
    if (p.n > 1)
        exchange.add(to, p);
#endif
}

/* ---- launching --------------------------------------------------------------------- */

template <typename T, typename K, int D> int launch(void *stream, const MiCudaAttention *a, const Split &split)
{
    static const int allowed = [] {
        Split most = {};
        most.slots = Whole<K, D>::UNITS * WARPS, most.n_parts = MAX_CLUSTER, most.power = most.log2_owners = 3;
        const int e = mi_allow_smem(whole<T, K, D>, Whole<K, D>::bytes(most));
        (void)cudaFuncSetAttribute(whole<T, K, D>, cudaFuncAttributeNonPortableClusterSizeAllowed, 1);
        (void)cudaGetLastError(); /* a card without clusters refuses it, and is asked for none */
        return e;
    }();
    const dim3 grid((unsigned)split.n_parts, (unsigned)a->kv.n_kv_heads, (unsigned)a->batch.shape.n_seqs);
    Split      s = split;

    s.log2_mine = Exchange<D, ROWS>::log2_of(s.log2_owners);
    return allowed
               ? allowed
               : mi_launch_clusters(whole<T, K, D>, grid, THREADS, (unsigned)s.n_parts, Whole<K, D>::bytes(s), stream, *a, s);
}

template <typename T, typename K> int launch(void *stream, const MiCudaAttention *a, const Split &split)
{
    return a->kv.head_dim == 64 ? launch<T, K, 64>(stream, a, split) : launch<T, K, 128>(stream, a, split);
}

template <typename T> int launch(void *stream, const MiCudaAttention *a, const Split &split)
{
    return a->kv.dtype == MI_F8   ? launch<T, F8>(stream, a, split)
           : a->kv.dtype == MI_I8 ? launch<T, I8>(stream, a, split)
                                  : launch<T, T>(stream, a, split);
}

template <typename K> int most_keys(int head_dim)
{
    return head_dim == 64 ? Whole<K, 64>::UNITS * TURN : head_dim == 128 ? Whole<K, 128>::UNITS * TURN : 0;
}

template <typename K> size_t bytes(int head_dim, const Split &s)
{
    return head_dim == 64 ? Whole<K, 64>::bytes(s) : Whole<K, 128>::bytes(s);
}

} // namespace

int mi_attention_whole_keys(const MiKvView *kv)
{
    return mi_dtype_scaled(kv->dtype) ? most_keys<F8>(kv->head_dim) : most_keys<bf16>(kv->head_dim);
}

size_t mi_attention_whole_bytes(const MiKvView *kv, const Split &s)
{
    return mi_dtype_scaled(kv->dtype) ? bytes<F8>(kv->head_dim, s) : bytes<bf16>(kv->head_dim, s);
}

int mi_attention_whole(void *stream, const MiCudaAttention *a, const Split &split)
{
    return a->q.dtype == MI_BF16 ? launch<bf16>(stream, a, split) : launch<__half>(stream, a, split);
}
