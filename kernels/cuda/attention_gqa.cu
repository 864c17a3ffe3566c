/* attention_gqa.cu - attention with mma.m16n8k16: few rows over long contexts, and
 * prompts in a plain way (sm_80).
 *
 * decode(): a sequence's keys are shared out among blocks (Flash-Decoding, Dao et al. 2023), a
 * block's among its warps, 16 keys at a time through a ring of each warp's own.  Keys are the 16-row
 * operand, the packed rows of a group the 8 columns, so that nothing is computed in vain.  Rows of
 * the cache that this step does not write are requested before the predecessor is done.  The
 * block that is done last adds the parts up, in order.  A block without work waits all the same: a kernel
 * must not be done before its predecessor.
 *
 * prefill(): 64 packed rows a block, 64 keys at a time in two buffers (FlashAttention-2, Dao 2023). */
#include <cuda/attention.cuh>

namespace {

/* ---- the card ----------------------------------------------------------------------- */

int multiprocessors()
{
    static const int n = [] {
        int device = 0, count = 0;
        return cudaGetDevice(&device) || cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device) ? 1 : count;
    }();
    return n;
}

bool has_clusters()
{
    static const bool has = [] {
        int device = 0, major = 0;
        return !cudaGetDevice(&device) && !cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) && major >= 9;
    }();
    return has;
}

/* ---- few rows -------------------------------------------------------------------- */

constexpr int WARPS = 8, KEYS = 16, MAX_PARTS = 64, MAX_CLUSTER = 16, MAX_CLUSTER_KEYS = 8192; /* of a cluster */

struct Split {
    float   *parts;   /* [n_seqs][n_kv_heads][n_parts] of NB * 8 rows: out, then max and sum */
    int32_t *arrived; /* [n_seqs][n_kv_heads], 0 between the calls */
    int      n_parts, least; /* keys of a part at the least */
    bool     cluster;        /* the parts of a sequence and key head are one cluster, a power of 2 */
};

template <int D> struct Ring {
    static constexpr int PITCH = D * 2 + 16; /* bytes of a row: an odd number of 16, no bank conflicts */
    static constexpr int DEPTH = D <= 64 ? 6 : D <= 96 ? 4 : 3;
    static constexpr int UNIT = KEYS * PITCH, WARP = DEPTH * UNIT;
};

/* Sum over splits, by the block that came last; weight: [MAX_PARTS][ROWS] of shared memory. */
template <typename T, int D, int ROWS>
__device__ void add_parts(const MiCudaAttention &a, const Span &s, int kv_head, int group, int packed, const float *parts,
                          int n_parts, float *weight)
{
    constexpr int PART = ROWS * (D + 2), AT_ONCE = 16;
    const int     lane = threadIdx.x % 32;

    for (int r = threadIdx.x / 32; r < packed; r += WARPS) {
        float2 x[MAX_PARTS / 32];
        float  top = -INFINITY, sum = 0;
#pragma unroll
        for (int i = 0; i < MAX_PARTS / 32; i++) {
            const int p = i * 32 + lane;
            x[i] = p < n_parts ? __ldcg((const float2 *)(parts + (int64_t)p * PART + ROWS * D) + r) : float2{ -INFINITY, 0 };
            top = fmaxf(top, x[i].x);
        }
        top = warp_max(top);
#pragma unroll
        for (int i = 0; i < MAX_PARTS / 32; i++) {
            x[i].x = x[i].y > 0 ? exp2_fast(x[i].x - top) : 0;
            sum += x[i].x * x[i].y;
        }
        sum = warp_sum(sum);
#pragma unroll
        for (int i = 0; i < MAX_PARTS / 32; i++)
            weight[(i * 32 + lane) * ROWS + r] = sum > 0 ? x[i].x / sum : 0;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < packed * (D / 4); i += WARPS * 32) {
        const int    r = i / (D / 4), d = i % (D / 4) * 4;
        const float *from = parts + r * D + d;
        float4       o = {};
        for (int p0 = 0; p0 < n_parts; p0 += AT_ONCE) {
            float4 x[AT_ONCE];
#pragma unroll
            for (int p = 0; p < AT_ONCE; p++)
                x[p] = p0 + p < n_parts ? __ldcg((const float4 *)(from + (int64_t)(p0 + p) * PART)) : float4{};
#pragma unroll
            for (int p = 0; p < AT_ONCE; p++) {
                const float w = weight[(p0 + p) * ROWS + r];
                o.x = fmaf(w, x[p].x, o.x), o.y = fmaf(w, x[p].y, o.y), o.z = fmaf(w, x[p].z, o.z), o.w = fmaf(w, x[p].w, o.w);
            }
        }
        *(uint2 *)((T *)a.out.data + row_at(a.out, s, kv_head, group, r) + d) =
            uint2{ pack<T>(o.x, o.y), pack<T>(o.z, o.w) };
    }
}

#if __CUDA_ARCH__ >= 900
__device__ __forceinline__ void cluster_sync()
{
    __syncwarp();
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}
__device__ __forceinline__ unsigned of_block(const void *p, int rank)
{
    unsigned at;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(at) : "r"(shared_address(p)), "r"(rank));
    return at;
}

/* Sum over the blocks of a cluster, each of which holds `total` like a part: a lane for each part. */
template <typename T, int D, int ROWS>
__device__ void add_cluster(const MiCudaAttention &a, const Span &s, int kv_head, int group, int packed, const float *total,
                            int n_parts, int rank)
{
    for (int i = rank * WARPS * 32 + threadIdx.x; i < packed * (D / 4) * n_parts; i += n_parts * WARPS * 32) {
        const int p = i % n_parts, r = i / n_parts / (D / 4), d = i / n_parts % (D / 4) * 4;
        float4    v;
        float2    x;
        asm volatile("ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [%4];"
                     : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
                     : "r"(of_block(total + r * D + d, p)));
        asm volatile("ld.shared::cluster.v2.f32 {%0, %1}, [%2];" : "=f"(x.x), "=f"(x.y) : "r"(of_block(total + ROWS * D + 2 * r, p)));
        float m = x.x;
        for (int o = 1; o < n_parts; o *= 2)
            m = fmaxf(m, __shfl_xor_sync(~0u, m, o));
        const float f = x.y > 0 ? exp2_fast(x.x - m) : 0;
        float       l = f * x.y;
        v.x *= f, v.y *= f, v.z *= f, v.w *= f;
        for (int o = 1; o < n_parts; o *= 2) {
            l += __shfl_xor_sync(~0u, l, o);
            v.x += __shfl_xor_sync(~0u, v.x, o), v.y += __shfl_xor_sync(~0u, v.y, o);
            v.z += __shfl_xor_sync(~0u, v.z, o), v.w += __shfl_xor_sync(~0u, v.w, o);
        }
        const float g = l > 0 ? 1 / l : 0; /* no keys: zeros */
        if (p == 0)
            *(uint2 *)((T *)a.out.data + row_at(a.out, s, kv_head, group, r) + d) =
                uint2{ pack<T>(v.x * g, v.y * g), pack<T>(v.z * g, v.w * g) };
    }
}
#endif

/* NB blocks of 8 packed rows; a sequence of more is left to prefill(). */
template <typename T, int D, int NB>
__global__ void __launch_bounds__(WARPS * 32, D <= 64 || (D <= 128 && NB == 1) ? 2 : 1) decode(const __grid_constant__ MiCudaAttention a, const Split split)
{
    using R = Ring<D>;
    constexpr int ROWS = NB * 8, OUT_PITCH = D + 4, CHUNKS = D / 8, COPIES = KEYS * CHUNKS / 32;
    extern __shared__ __align__(128) unsigned char smem[];
    __shared__ float  weight[MAX_PARTS * ROWS];
    __shared__ float2 of_warp[WARPS][ROWS]; /* max, sum */
    __shared__ int    came;

    const int  lane = threadIdx.x % 32, warp = threadIdx.x / 32, kv_head = blockIdx.y, seq = blockIdx.z, group = group_of(a);
    const Span s = span_of(a, seq);
    const int  packed = s.rows * group;

    let_successor_start();
    if (packed == 0 || packed > ROWS) {
        wait_for_predecessor();
        return;
    }
    /* The first row sees the first key, the last row the last. */
    const int low = keys_of(a, s, 0).first, high = keys_of(a, s, s.rows - 1).end, old = s.len - s.rows;
    const int share = max(split.least, ((high - low + split.n_parts - 1) / split.n_parts + KEYS - 1) / KEYS * KEYS);
    const int n_parts = max(1, (high - low + share - 1) / share), part = blockIdx.x;
    const bool together = split.cluster && n_parts > 1;
    if (part >= n_parts && !together) {
        wait_for_predecessor();
        return;
    }
    const int k0 = low + part * share, k1 = min(high, k0 + share);
    const int n_units = 2 * max(0, (k1 - k0 - warp * KEYS + WARPS * KEYS - 1) / (WARPS * KEYS));

    /* ---- keys and values through the ring: unit 2i keys, 2i + 1 values of the warp's i-th 16 positions */
    unsigned char *mine = smem + warp * R::WARP;
    const unsigned ring = shared_address(mine);
    const bool     paged = a.kv.max_blocks > 1;
    const unsigned whole = paged ? 0 : (unsigned)(mi_kv_offset(&a.kv, seq, 0, kv_head) / 8), step = (unsigned)(a.kv.stride_token / 8);
    unsigned       at = 0; /* of this lane's position: its element in the cache / 8 */
    auto           request = [&](int u, int from, int to) {
        const int p0 = k0 + (u / 2 * WARPS + warp) * KEYS;
        const T  *side = (const T *)(u & 1 ? a.kv.v : a.kv.k);
        if (!(u & 1))
            at = paged ? (unsigned)(mi_kv_offset(&a.kv, seq, min(p0 + lane % KEYS, k1 - 1), kv_head) / 8)
                       : whole + (unsigned)min(p0 + lane % KEYS, k1 - 1) * step;
#pragma unroll
        for (int i = 0; i < COPIES; i++) {
            const int      row = (i * 32 + lane) / CHUNKS, chunk = (i * 32 + lane) % CHUNKS, p = p0 + row;
            const unsigned row_at = __shfl_sync(~0u, at, row);
            if (p >= from && (p < to || p >= k1))
                copy_16(ring + u % R::DEPTH * R::UNIT + row * R::PITCH + chunk * 16, side + ((uint64_t)row_at + chunk) * 8, p < k1);
        }
        copies_commit();
    };
#pragma unroll
    for (int u = 0; u < R::DEPTH - 1; u++)
        if (u < n_units)
            request(u, 0, old);
        else
            copies_commit();

    const T *q_at[NB];
    Keys     see[NB][2]; /* of the rows whose scores this lane holds */
#pragma unroll
    for (int n = 0; n < NB; n++) {
        q_at[n] = (const T *)a.q.data + row_at(a.q, s, kv_head, group, min(n * 8 + lane / 4, packed - 1)) + lane % 4 * 2;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int r = n * 8 + lane % 4 * 2 + i;
            see[n][i] = r < packed ? keys_of(a, s, r / group) : Keys{ 0, 0 };
            see[n][i].end = min(see[n][i].end, k1);
        }
    }

    wait_for_predecessor();
    unsigned q[NB][D / 16][2];
#pragma unroll
    for (int n = 0; n < NB; n++)
#pragma unroll
        for (int k = 0; k < D / 16; k++)
            q[n][k][0] = *(const unsigned *)(q_at[n] + k * 16), q[n][k][1] = *(const unsigned *)(q_at[n] + k * 16 + 8);
    bool late = false;
    for (int u = 0; u < min(R::DEPTH - 1, n_units); u++)
        if (k0 + (u / 2 * WARPS + warp) * KEYS + KEYS > old) {
            request(u, old, k1);
            late = true;
        }
    if (late)
        copies_wait<0>();

    /* ---- a running softmax over the warp's keys */
    float out[NB][D / 16][4] = {}, top[NB][2], sum[NB][2] = {};
#pragma unroll
    for (int n = 0; n < NB; n++)
        top[n][0] = top[n][1] = -INFINITY;
    const float    scale = a.scale * LOG2E;
    const Cap      cap(a);
    const unsigned key_at = ring + (lane / 8 % 2 * 8 + lane % 8) * R::PITCH + lane / 16 * 16;
    const unsigned value_at = ring + (lane / 16 * 8 + lane % 8) * R::PITCH + lane / 8 % 2 * 16;
    for (int u = 0; u < n_units; u += 2) {
        const int p = k0 + (u / 2 * WARPS + warp) * KEYS + lane / 4;
        float     score[NB][4] = {}, other[NB][4] = {}; /* two sums: half the chain */
        unsigned  weights[NB][2];

        copies_wait<R::DEPTH - 2>();
        __syncwarp();
#pragma unroll
        for (int k = 0; k < D / 16; k++) {
            unsigned x[4];
            load_matrices(x, key_at + u % R::DEPTH * R::UNIT + k * 32);
#pragma unroll
            for (int n = 0; n < NB; n++)
                multiply<T>(k % 2 ? other[n] : score[n], x, q[n][k][0], q[n][k][1]);
        }
        if (u + R::DEPTH - 1 < n_units)
            request(u + R::DEPTH - 1, 0, k1);
        else
            copies_commit();
#pragma unroll
        for (int n = 0; n < NB; n++) {
            float keep[2];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int key = p + i / 2 * 8;
                score[n][i] += other[n][i];
                score[n][i] = (a.softcap > 0 ? cap.of(score[n][i]) : score[n][i]) * scale;
                if (key < see[n][i & 1].first || key >= see[n][i & 1].end)
                    score[n][i] = -INFINITY;
            }
#pragma unroll
            for (int i = 0; i < 2; i++) {
                float m = fmaxf(score[n][i], score[n][i + 2]);
#pragma unroll
                for (int o = 4; o < 32; o *= 2)
                    m = fmaxf(m, __shfl_xor_sync(~0u, m, o));
                m = fmaxf(m, top[n][i]);
                const float safe = m == -INFINITY ? 0 : m;
                keep[i] = exp2_fast(top[n][i] - safe);
                top[n][i] = m;
                score[n][i] = exp2_fast(score[n][i] - safe), score[n][i + 2] = exp2_fast(score[n][i + 2] - safe);
                sum[n][i] = sum[n][i] * keep[i] + score[n][i] + score[n][i + 2];
            }
            weights[n][0] = turned(pack<T>(score[n][0], score[n][1]));
            weights[n][1] = turned(pack<T>(score[n][2], score[n][3]));
#pragma unroll
            for (int j = 0; j < D / 16; j++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    out[n][j][i] *= keep[i & 1];
        }
        copies_wait<R::DEPTH - 2>();
        __syncwarp();
#pragma unroll
        for (int j = 0; j < D / 16; j++) {
            unsigned x[4];
            load_matrices_turned(x, value_at + (u + 1) % R::DEPTH * R::UNIT + j * 32);
#pragma unroll
            for (int n = 0; n < NB; n++)
                multiply<T>(out[n][j], x, weights[n][0], weights[n][1]);
        }
        if (u + R::DEPTH < n_units)
            request(u + R::DEPTH, 0, k1);
        else
            copies_commit();
    }
    copies_wait<0>();
    __syncwarp();

    /* ---- the warps' shares, in order */
    static_assert(ROWS * OUT_PITCH * sizeof(float) <= R::WARP, "a warp's share fits its ring");
    float *share_of = (float *)mine;
#pragma unroll
    for (int n = 0; n < NB; n++) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int r = n * 8 + lane % 4 * 2 + i;
#pragma unroll
            for (int o = 4; o < 32; o *= 2)
                sum[n][i] += __shfl_xor_sync(~0u, sum[n][i], o);
            if (lane < 4)
                of_warp[warp][r] = float2{ top[n][i], sum[n][i] };
#pragma unroll
            for (int j = 0; j < D / 16; j++) {
                share_of[r * OUT_PITCH + j * 16 + lane / 4] = out[n][j][i];
                share_of[r * OUT_PITCH + j * 16 + lane / 4 + 8] = out[n][j][i + 2];
            }
        }
    }
    __syncthreads();
    const int64_t pair = (int64_t)seq * a.kv.n_kv_heads + kv_head;
    constexpr int PART = ROWS * (D + 2);
    float        *parts = split.parts + pair * split.n_parts * PART;
    float        *part_at = together ? (float *)(smem + WARPS * R::WARP) : parts + (int64_t)part * PART;
    for (int i = threadIdx.x; i < packed * (D / 4); i += WARPS * 32) {
        const int r = i / (D / 4), d = i % (D / 4) * 4;
        float     m = -INFINITY, l = 0;
        float4    o = {};
#pragma unroll
        for (int w = 0; w < WARPS; w++)
            m = fmaxf(m, of_warp[w][r].x);
#pragma unroll
        for (int w = 0; w < WARPS; w++) {
            const float2 x = of_warp[w][r];
            const float  f = x.y > 0 ? exp2_fast(x.x - m) : 0;
            const float4 v = *(const float4 *)((const float *)(smem + w * R::WARP) + r * OUT_PITCH + d);
            l = fmaf(f, x.y, l);
            o.x = fmaf(f, v.x, o.x), o.y = fmaf(f, v.y, o.y), o.z = fmaf(f, v.z, o.z), o.w = fmaf(f, v.w, o.w);
        }
        if (n_parts == 1) {
            const float f = l > 0 ? 1 / l : 0; /* no keys: zeros */
            *(uint2 *)((T *)a.out.data + row_at(a.out, s, kv_head, group, r) + d) =
                uint2{ pack<T>(o.x * f, o.y * f), pack<T>(o.z * f, o.w * f) };
        } else {
            *(float4 *)(part_at + r * D + d) = o;
            if (d == 0)
                *((float2 *)(part_at + ROWS * D) + r) = float2{ m, l };
        }
    }
    if (n_parts == 1)
        return;
#if __CUDA_ARCH__ >= 900
    if (together) {
        cluster_sync();
        add_cluster<T, D, ROWS>(a, s, kv_head, group, packed, part_at, split.n_parts, part);
        cluster_sync(); /* nobody leaves while its memory is read */
        return;
    }
#endif
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        came = atomicAdd(split.arrived + pair, 1);
        if (came == n_parts - 1)
            split.arrived[pair] = 0;
    }
    __syncthreads();
    if (came == n_parts - 1) {
        __threadfence();
        add_parts<T, D, ROWS>(a, s, kv_head, group, packed, parts, n_parts, weight);
    }
}

template <typename T, int D, int NB> int launch_decode(void *stream, const MiCudaAttention *a, const Split &split)
{
    constexpr size_t bytes = (size_t)WARPS * Ring<D>::WARP + NB * 8 * (D + 2) * sizeof(float);
    static const int allowed = [] {
        const int e = mi_allow_smem(decode<T, D, NB>, bytes);
        return e || !has_clusters() ? e : cudaFuncSetAttribute(decode<T, D, NB>, cudaFuncAttributeNonPortableClusterSizeAllowed, 1);
    }();
    const dim3 grid((unsigned)split.n_parts, (unsigned)a->kv.n_kv_heads, (unsigned)a->batch.shape.n_seqs);

    if (allowed)
        return allowed;
    return mi_launch_clusters(decode<T, D, NB>, grid, WARPS * 32, split.cluster ? (unsigned)split.n_parts : 1, bytes, stream, *a, split);
}

/* ---- prompts --------------------------------------------------------------------- */

constexpr int TILE_ROWS = 64, TILE_KEYS = 64, TILE_THREADS = 128;

template <int D> struct Tile {
    static constexpr int PITCH = D * 2 + 16, SIDE = TILE_KEYS * PITCH;
    static constexpr int BYTES = TILE_ROWS * PITCH + 4 * SIDE + 2 * TILE_KEYS * 4;
};

/* Block index -> sequence and first packed row; the last rows of a sequence, which see the most keys, come
 * first.  Sequences of at most `few` packed rows are another kernel's. */
__device__ __forceinline__ bool tile_at(const MiCudaAttention &a, int index, int group, int few, int *seq, int *first)
{
    for (int s = 0; s < a.batch.shape.n_seqs; s++) {
        const int packed = (a.batch.seq_start[s + 1] - a.batch.seq_start[s]) * group;
        const int tiles = packed > few ? (packed + TILE_ROWS - 1) / TILE_ROWS : 0;
        if (index < tiles) {
            *seq = s, *first = (tiles - 1 - index) * TILE_ROWS;
            return true;
        }
        index -= tiles;
    }
    return false;
}

template <typename T, int D>
__global__ void __launch_bounds__(TILE_THREADS) prefill(const __grid_constant__ MiCudaAttention a, int few)
{
    constexpr int PITCH = Tile<D>::PITCH, CHUNKS = D / 8;
    extern __shared__ __align__(128) unsigned char smem[];
    unsigned *offset = (unsigned *)(smem + TILE_ROWS * PITCH + 4 * Tile<D>::SIDE); /* [2][TILE_KEYS] elements / 8 */
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, kv_head = blockIdx.y, group = group_of(a);
    int       seq, first;

    let_successor_start();
    if (!tile_at(a, blockIdx.x, group, few, &seq, &first)) {
        wait_for_predecessor();
        return;
    }
    const Span s = span_of(a, seq);
    const int  last = min(first + TILE_ROWS, s.rows * group) - 1;
    const int  low = keys_of(a, s, first / group).first, high = keys_of(a, s, last / group).end;
    const int  n_blocks = max(0, (high - low + TILE_KEYS - 1) / TILE_KEYS);
    Keys       see[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int r = first + warp * 16 + lane / 4 + i * 8;
        see[i] = r <= last ? keys_of(a, s, r / group) : Keys{ 0, 0 };
    }
    const int certain = keys_of(a, s, first / group).end, from = keys_of(a, s, last / group).first;

    const unsigned q_at = shared_address(smem), k_at = q_at + TILE_ROWS * PITCH, v_at = k_at + 2 * Tile<D>::SIDE;
    auto           locate = [&](int b) {
        if (threadIdx.x < TILE_KEYS && b < n_blocks)
            offset[(b & 1) * TILE_KEYS + threadIdx.x] =
                (unsigned)(mi_kv_offset(&a.kv, seq, min(low + b * TILE_KEYS + (int)threadIdx.x, high - 1), kv_head) / 8);
    };
    auto request = [&](int b, const void *side, unsigned to) {
        if (b < n_blocks)
            for (int i = threadIdx.x; i < TILE_KEYS * CHUNKS; i += TILE_THREADS) {
                const int row = i / CHUNKS, chunk = i % CHUNKS;
                copy_16(to + (b & 1) * Tile<D>::SIDE + row * PITCH + chunk * 16,
                        (const T *)side + ((uint64_t)offset[(b & 1) * TILE_KEYS + row] + chunk) * 8,
                        low + b * TILE_KEYS + row < high);
            }
        copies_commit();
    };

    locate(0);
    wait_for_predecessor();
    for (int i = threadIdx.x; i < TILE_ROWS * CHUNKS; i += TILE_THREADS) {
        const int row = i / CHUNKS, chunk = i % CHUNKS;
        copy_16(q_at + row * PITCH + chunk * 16,
                (const T *)a.q.data + row_at(a.q, s, kv_head, group, min(first + row, last)) + chunk * 8, true);
    }
    __syncthreads();
    request(0, a.kv.k, k_at);
    request(0, a.kv.v, v_at);

    float       out[D / 8][4] = {}, top[2] = { -INFINITY, -INFINITY }, sum[2] = {};
    const float scale = a.scale * LOG2E;
    const Cap   cap(a);
    for (int b = 0; b < n_blocks; b++) {
        const int k0 = low + b * TILE_KEYS;
        float     score[TILE_KEYS / 8][4] = {};

        locate(b + 1);
        copies_wait<1>(); /* q and this block's keys */
        __syncthreads();
        request(b + 1, a.kv.k, k_at);
#pragma unroll
        for (int k = 0; k < D / 16; k++) {
            unsigned x[4];
            load_matrices(x, q_at + (warp * 16 + lane % 16) * PITCH + k * 32 + lane / 16 * 16);
#pragma unroll
            for (int n = 0; n < TILE_KEYS / 16; n++) {
                unsigned y[4];
                load_matrices(y, k_at + (b & 1) * Tile<D>::SIDE + (n * 16 + lane / 16 * 8 + lane % 8) * PITCH + k * 32 +
                                     lane / 8 % 2 * 16);
                multiply<T>(score[2 * n], x, y[0], y[1]);
                multiply<T>(score[2 * n + 1], x, y[2], y[3]);
            }
        }
        if (a.softcap > 0)
#pragma unroll
            for (int n = 0; n < TILE_KEYS / 8; n++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    score[n][i] = cap.of(score[n][i]);
        if (k0 + TILE_KEYS > certain || k0 < from)
#pragma unroll
            for (int n = 0; n < TILE_KEYS / 8; n++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const int key = k0 + n * 8 + lane % 4 * 2 + (i & 1);
                    if (key < see[i / 2].first || key >= see[i / 2].end)
                        score[n][i] = -INFINITY;
                }
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float m = top[i];
#pragma unroll
            for (int n = 0; n < TILE_KEYS / 8; n++)
                m = fmaxf(m, fmaxf(score[n][2 * i], score[n][2 * i + 1]));
            m = quad_max(m);
            const float safe = m == -INFINITY ? 0 : m * scale, keep = exp2_fast(top[i] * scale - safe);
            top[i] = m;
            sum[i] *= keep;
#pragma unroll
            for (int n = 0; n < TILE_KEYS / 8; n++)
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    score[n][2 * i + j] = exp2_fast(fmaf(score[n][2 * i + j], scale, -safe));
                    sum[i] += score[n][2 * i + j];
                }
#pragma unroll
            for (int n = 0; n < D / 8; n++)
                out[n][2 * i] *= keep, out[n][2 * i + 1] *= keep;
        }
        copies_wait<1>(); /* this block's values */
        __syncthreads();
        request(b + 1, a.kv.v, v_at);
#pragma unroll
        for (int k = 0; k < TILE_KEYS / 16; k++) {
            const unsigned x[4] = { pack<T>(score[2 * k][0], score[2 * k][1]), pack<T>(score[2 * k][2], score[2 * k][3]),
                                    pack<T>(score[2 * k + 1][0], score[2 * k + 1][1]),
                                    pack<T>(score[2 * k + 1][2], score[2 * k + 1][3]) };
#pragma unroll
            for (int n = 0; n < D / 16; n++) {
                unsigned y[4];
                load_matrices_turned(y, v_at + (b & 1) * Tile<D>::SIDE + (k * 16 + lane % 16) * PITCH + n * 32 + lane / 16 * 16);
                multiply<T>(out[2 * n], x, y[0], y[1]);
                multiply<T>(out[2 * n + 1], x, y[2], y[3]);
            }
        }
    }
    copies_wait<0>();
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int   r = first + warp * 16 + lane / 4 + i * 8;
        const float l = quad_sum(sum[i]), f = l > 0 ? 1 / l : 0; /* no keys: zeros */
        if (r <= last) {
            T *to = (T *)a.out.data + row_at(a.out, s, kv_head, group, r) + lane % 4 * 2;
#pragma unroll
            for (int n = 0; n < D / 8; n++)
                *(unsigned *)(to + n * 8) = pack<T>(out[n][2 * i] * f, out[n][2 * i + 1] * f);
        }
    }
}

template <typename T, int D> int launch_prefill(void *stream, const MiCudaAttention *a, int few)
{
    static const int allowed = mi_allow_smem(prefill<T, D>, Tile<D>::BYTES);
    const int64_t    packed = (int64_t)a->batch.shape.n_tokens * (a->q.shape[1] / a->kv.n_kv_heads);

    if (allowed)
        return allowed;
    return mi_launch(prefill<T, D>, dim3((unsigned)(packed / TILE_ROWS + a->batch.shape.n_seqs), (unsigned)a->kv.n_kv_heads),
                     TILE_THREADS, Tile<D>::BYTES, stream, *a, few);
}

/* ---- both ------------------------------------------------------------------------ */

/* As many parts as keep all multiprocessors busy, none of fewer keys than pay for adding it up: a cluster where 16
 * are enough, else through the workspace.  More than one of a sequence and key head are at most 2 * multiprocessors()
 * in all: that is its size. */
Split split_of(const MiCudaAttention *a)
{
    const int pairs = a->batch.shape.n_seqs * a->kv.n_kv_heads, least = 128;
    const int most = (a->batch.shape.max_kv + least - 1) / least;
    int       n = multiprocessors() * (pairs > multiprocessors() / 2 ? 2 : 1) / (pairs > 0 ? pairs : 1);

    n = n > most ? most : n;
    n = n > MAX_PARTS ? MAX_PARTS : n;
    if (has_clusters() && n > 1 && a->batch.shape.max_kv <= MAX_CLUSTER_KEYS) {
        int c = 1;
        while (c < MAX_CLUSTER && c < n)
            c *= 2;
        return Split{ nullptr, nullptr, c, least, true };
    }
    return Split{ nullptr, nullptr, n < 1 ? 1 : n, least, false };
}

template <typename T, int D> int launch(void *stream, const MiCudaAttention *a, MiCudaAttentionMode mode, const Split &split)
{
    const int few = mode == MI_CUDA_ATTENTION_PROMPT ? 0 : mi_cuda_attention_few(a);
    int       e = 0;

    if (few)
        e = few == 8 ? launch_decode<T, D, 1>(stream, a, split) : launch_decode<T, D, 2>(stream, a, split);
    return e || mode == MI_CUDA_ATTENTION_FEW ? e : launch_prefill<T, D>(stream, a, few);
}

template <typename T> int launch(void *stream, const MiCudaAttention *a, MiCudaAttentionMode mode, const Split &split)
{
    switch (a->kv.head_dim) {
    case 64: return launch<T, 64>(stream, a, mode, split);
    case 96: return launch<T, 96>(stream, a, mode, split);
    case 128: return launch<T, 128>(stream, a, mode, split);
    case 256: return launch<T, 256>(stream, a, mode, split);
    default: return cudaErrorNotSupported;
    }
}

} // namespace

extern "C" size_t mi_cuda_attention_gqa_workspace(int head_dim)
{
    return 2 * (size_t)multiprocessors() * 16 * ((size_t)head_dim + 2) * sizeof(float);
}

extern "C" int mi_cuda_attention_gqa(void *stream, const MiCudaAttention *a, MiCudaAttentionMode mode, void *workspace,
                                     int32_t *arrived)
{
    Split split = split_of(a);

    split.parts = (float *)workspace;
    split.arrived = arrived;
    if (a->q.dtype != a->kv.dtype || a->q.dtype != a->out.dtype || !mi_cuda_attention_aligned(a))
        return cudaErrorNotSupported;
    switch (a->q.dtype) {
    case MI_F16: return launch<__half>(stream, a, mode, split);
    case MI_BF16: return launch<bf16>(stream, a, mode, split);
    default: return cudaErrorNotSupported;
    }
}
