/* attention_whole.cu - decode of at most 8 packed rows, without a soft cap, where a block's share of the keys and
 * values fits its shared memory: all of it is requested before the predecessor is done, but for the positions that this
 * step writes.
 *
 * Keys are the 16-row operand of mma.m16n8k16, the packed rows of a group its 8 columns, so that nothing is computed in
 * vain.  A block without work waits all the same: a kernel must not be done before its predecessor. */
#include <cuda/attention_parts.cuh>

namespace
{

constexpr int ROWS = 8;

/* Units of 16 keys; a block's slot i holds positions 16 i to 16 i + 15 of its share, unit i / WARPS of warp i % WARPS.
 * Shared memory: slots of keys, slots of values, rows of q, what the cluster exchanges. */
template <int D> struct Whole {
    static constexpr int UNITS = D <= 64 ? 4 : 3; /* of a warp */
    static constexpr int PITCH = D * 2 + 16;      /* bytes of a row: an odd number of 16, no bank conflicts */
    static constexpr int UNIT = KEYS * PITCH, QUERIES = ROWS * PITCH, CHUNKS = D / 8;
    static constexpr int LATE = (3 * ROWS * CHUNKS + THREADS - 1) / THREADS;
    static_assert(ROWS * (D + 4) * sizeof(float) <= UNIT, "a warp's share fits its first unit");

    static size_t bytes(const Split &s)
    {
        const size_t exchange = s.power > 0 ? Exchange<D, ROWS>::bytes(s.n_parts, s.log2_owners) : 0;
        return 2 * (size_t)s.slots * UNIT + QUERIES + exchange;
    }
};

__device__ __forceinline__ void store_16(unsigned to, const uint4 &x)
{
    asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(x.x), "r"(x.y), "r"(x.z), "r"(x.w)
                 : "memory");
}

template <typename T, int D> struct Warp {
    using W = Whole<D>;
    static constexpr int CHUNKS = W::CHUNKS, UNITS = W::UNITS;

    const MiCudaAttention &a;
    const Part            &part;
    const int              lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const unsigned         keys, vals, queries; /* of shared memory */
    unsigned               whole, step; /* in the cache, in 16 bytes, where a sequence is one block: it; a position */
    int   first, n_units, low[2], span[2]; /* of the rows whose scores this lane holds: what they see */
    float score[UNITS][4], out[D / 16][4], top[2], sums[4]; /* sums: of two rows, twice */

    /* What other kernels of this step write: rows of q, then its keys and values. */
    const void *late_from[W::LATE];
    unsigned    late_to[W::LATE];

    __device__ __forceinline__ Warp(const MiCudaAttention &call, const Part &p, unsigned char *smem, int slots)
        : a(call), part(p), keys(shared_address(smem)), vals(keys + slots * W::UNIT), queries(vals + slots * W::UNIT),
          first(p.k0 + warp * KEYS), n_units(max(0, (p.k1 - first + TURN - 1) / TURN))
    {
        whole = a.kv.max_blocks > 1 ? 0 : (unsigned)(mi_kv_offset(&a.kv, p.seq, 0, p.kv_head) / 8);
        step = (unsigned)(a.kv.stride_token / 8);
    }

    __device__ __forceinline__ unsigned place(int p) const
    {
        p = max(0, min(p, part.k1 - 1));
        return a.kv.max_blocks > 1 ? (unsigned)(mi_kv_offset(&a.kv, part.seq, p, part.kv_head) / 8)
                                   : whole + (unsigned)p * step;
    }

    /* Keys, then values of the positions that are there, and zeros for those past the part. */
    __device__ __forceinline__ void request_old()
    {
        unsigned where[(UNITS + 1) / 2]; /* of units 0 and 1, 2 and 3 */

#pragma unroll
        for (int h = 0; h < (UNITS + 1) / 2; h++)
            where[h] = place(first + (2 * h + lane / 16) * TURN + lane % 16);
#pragma unroll 1
        for (int side = 0; side < 2; side++) {
            const T *from = (const T *)(side ? a.kv.v : a.kv.k);
#pragma unroll 1
            for (int u = 0; u < n_units; u++) {
                const unsigned at = u >= 2 ? where[(UNITS - 1) / 2] : where[0];
                const unsigned to = (side ? vals : keys) + (u * WARPS + warp) * W::UNIT;
                const int      p0 = first + u * TURN;
#pragma unroll
                for (int i = 0; i < KEYS * CHUNKS / 32; i++) {
                    const int      row = (i * 32 + lane) / CHUNKS, chunk = (i * 32 + lane) % CHUNKS, p = p0 + row;
                    const unsigned row_at = __shfl_sync(~0u, at, u % 2 * 16 + row);
                    if (p < part.old || p >= part.k1)
                        copy_16(to + row * W::PITCH + chunk * 16, from + ((uint64_t)row_at + chunk) * 8, p < part.k1);
                }
            }
            copies_commit();
        }
    }

    /* Everything that the rest needs to know. */
    __device__ __forceinline__ void prepare()
    {
        const int fresh = max(part.old, part.k0), n_q = part.packed * CHUNKS;

#pragma unroll
        for (int i = 0; i < W::LATE; i++) {
            const int at = i * THREADS + threadIdx.x, r = at / CHUNKS, p = fresh + (at - n_q) / (2 * CHUNKS),
                      c = at < n_q ? at % CHUNKS : (at - n_q) % (2 * CHUNKS), slot = (p - part.k0) / KEYS;
            late_from[i] = NULL;
            if (at < n_q) {
                late_from[i] = (const T *)a.q.data + part.row(a.q, r) + c * 8;
                late_to[i] = queries + r * W::PITCH + c * 16;
            } else if (p < part.k1) {
                late_from[i] = (const T *)(c < CHUNKS ? a.kv.k : a.kv.v) + ((uint64_t)place(p) + c % CHUNKS) * 8;
                late_to[i] =
                    (c < CHUNKS ? keys : vals) + slot * W::UNIT + (p - part.k0) % KEYS * W::PITCH + c % CHUNKS * 16;
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
        uint4 x[W::LATE];
#pragma unroll
        for (int i = 0; i < W::LATE; i++)
            if (late_from[i])
                x[i] = __ldcg((const uint4 *)late_from[i]);
#pragma unroll
        for (int i = 0; i < W::LATE; i++)
            if (late_from[i])
                store_16(late_to[i], x[i]);
    }

    __device__ __forceinline__ void scores()
    {
        const unsigned at = keys + warp * W::UNIT + (lane / 8 % 2 * 8 + lane % 8) * W::PITCH + lane / 16 * 16;
        unsigned       q[D / 32][4];

#pragma unroll
        for (int k = 0; k < D / 32; k++)
            load_matrices(q[k], queries + lane % 8 * W::PITCH + k * 64 + lane / 8 * 16);
#pragma unroll
        for (int u = 0; u < UNITS; u++)
            if (u < n_units) {
                float s[2][4] = {}; /* two sums: half the chain */
#pragma unroll
                for (int k = 0; k < D / 16; k++) {
                    unsigned x[4];
                    load_matrices(x, at + u * WARPS * W::UNIT + k * 32);
                    multiply<T>(s[k % 2], x, q[k / 2][k % 2 * 2], q[k / 2][k % 2 * 2 + 1]);
                }
#pragma unroll
                for (int i = 0; i < 4; i++)
                    score[u][i] = s[0][i] + s[1][i];
            }
    }

    /* Scores become weights. */
    __device__ __forceinline__ void softmax()
    {
        const float scale = a.scale * LOG2E;
        float       safe[2];

        top[0] = top[1] = -INFINITY;
#pragma unroll
        for (int u = 0; u < UNITS; u++)
            if (u < n_units)
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    if ((unsigned)(u * TURN + j / 2 * 8 - low[j & 1]) >= (unsigned)span[j & 1])
                        score[u][j] = -INFINITY;
                    top[j & 1] = fmaxf(top[j & 1], score[u][j]);
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
                for (int j = 0; j < 4; j++)
                    score[u][j] = exp2_fast(fmaf(score[u][j], scale, -safe[j & 1]));
    }

    __device__ __forceinline__ void values()
    {
        const unsigned at = vals + warp * W::UNIT + (lane / 16 * 8 + lane % 8) * W::PITCH + lane / 8 % 2 * 16;

        const unsigned ones[4] = {pack<T>(1, 1), pack<T>(1, 1), pack<T>(1, 1), pack<T>(1, 1)};

        sums[0] = sums[1] = sums[2] = sums[3] = 0;
#pragma unroll
        for (int j = 0; j < D / 16; j++)
            out[j][0] = out[j][1] = out[j][2] = out[j][3] = 0;
#pragma unroll
        for (int u = 0; u < UNITS; u++)
            if (u < n_units) {
                const unsigned lower = turned(pack<T>(score[u][0], score[u][1])),
                               upper = turned(pack<T>(score[u][2], score[u][3]));
                multiply<T>(sums, ones, lower, upper); /* of what multiplies the values, as it is rounded */
#pragma unroll
                for (int j = 0; j < D / 16; j++) {
                    unsigned x[4];
                    load_matrices_turned(x, at + u * WARPS * W::UNIT + j * 32);
                    multiply<T>(out[j], x, lower, upper);
                }
            }
    }

    /* Into the warp's first unit, [ROWS][D + 4], and of_warp, [ROWS] of max and sum. */
    __device__ __forceinline__ void leave(unsigned char *smem, float2 *of_warp)
    {
        float *share = (float *)(smem + warp * W::UNIT);
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int r = lane % 4 * 2 + i;
#pragma unroll
            for (int j = 0; j < D / 16; j++) {
                share[r * (D + 4) + j * 16 + lane / 4] = out[j][i];
                share[r * (D + 4) + j * 16 + lane / 4 + 8] = out[j][i + 2];
            }
        }
        if (lane < 4) {
            of_warp[2 * lane] = float2{top[0], sums[0]};
            of_warp[2 * lane + 1] = float2{top[1], sums[1]};
        }
    }
};

template <typename T, int D>
__global__ void __launch_bounds__(THREADS, 2) whole(const __grid_constant__ MiCudaAttention a, const Split split)
{
    using W = Whole<D>;
    extern __shared__ __align__(128) unsigned char smem[];
    __shared__ float2                              of_warp[WARPS][ROWS];
    __shared__ T                                  *to[ROWS];
    Part                                           p;

    let_successor_start();
    if (!find_part<ROWS>(a, split, &p)) {
        wait_for_predecessor();
        return;
    }
    Warp<T, D> warp(a, p, smem, split.slots);
    warp.request_old();
    warp.prepare();
    if (threadIdx.x < p.packed)
        to[threadIdx.x] = (T *)a.out.data + p.row(a.out, threadIdx.x);
#if __CUDA_ARCH__ >= 900
    const Exchange<D, ROWS> exchange(smem + 2 * split.slots * W::UNIT + W::QUERIES, split, p);
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
    warp.leave(smem, of_warp[warp.warp]);
    __syncthreads();
    if (p.index < p.n)
        add_warps<D, ROWS, W::UNIT>(smem, of_warp, p.packed, [&](const float4 &v, int i, const float2 &of_row) {
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

template <typename T, int D> int launch(void *stream, const MiCudaAttention *a, const Split &split)
{
    static const int allowed = [] {
        Split most = {};
        most.slots = Whole<D>::UNITS * WARPS, most.n_parts = MAX_CLUSTER, most.power = most.log2_owners = 3;
        const int e = mi_allow_smem(whole<T, D>, Whole<D>::bytes(most));
        (void)cudaFuncSetAttribute(whole<T, D>, cudaFuncAttributeNonPortableClusterSizeAllowed, 1);
        (void)cudaGetLastError(); /* a card without clusters refuses it, and is asked for none */
        return e;
    }();
    const dim3 grid((unsigned)split.n_parts, (unsigned)a->kv.n_kv_heads, (unsigned)a->batch.shape.n_seqs);
    Split      s = split;

    s.log2_mine = Exchange<D, ROWS>::log2_of(s.log2_owners);
    return allowed
               ? allowed
               : mi_launch_clusters(whole<T, D>, grid, THREADS, (unsigned)s.n_parts, Whole<D>::bytes(s), stream, *a, s);
}

template <typename T> int launch(void *stream, const MiCudaAttention *a, const Split &split)
{
    return a->kv.head_dim == 64 ? launch<T, 64>(stream, a, split) : launch<T, 128>(stream, a, split);
}

} // namespace

int mi_attention_whole_keys(int head_dim)
{
    return head_dim == 64 ? Whole<64>::UNITS * TURN : head_dim == 128 ? Whole<128>::UNITS * TURN : 0;
}
size_t mi_attention_whole_bytes(int head_dim, const Split &s)
{
    return head_dim == 64 ? Whole<64>::bytes(s) : Whole<128>::bytes(s);
}

int mi_attention_whole(void *stream, const MiCudaAttention *a, const Split &split)
{
    return a->q.dtype == MI_BF16 ? launch<bf16>(stream, a, split) : launch<__half>(stream, a, split);
}
