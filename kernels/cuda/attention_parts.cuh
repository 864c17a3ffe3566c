/* attention_parts.cuh - decode: how a sequence's keys are shared out among blocks and warps (Flash-Decoding, Dao et al.
 * 2023), and how the parts are added up again, always in the same order. */
#ifndef KERNELS_CUDA_ATTENTION_PARTS_CUH
#define KERNELS_CUDA_ATTENTION_PARTS_CUH

#include <cuda/attention.cuh>

constexpr int WARPS = 8, THREADS = WARPS * 32, KEYS = 16,
              TURN = WARPS * KEYS; /* positions that a block takes at once */
constexpr int MAX_PARTS = 64, MAX_CLUSTER = 16, LEAST = TURN;

struct Split {
    float   *parts;   /* [n_seqs][n_kv_heads][n_parts] of ROWS rows: out, then max and sum */
    int32_t *arrived; /* [n_seqs][n_kv_heads], 0 between the calls */
    int      n_parts;
    int      power; /* >= 0: the parts of a sequence and key head are one cluster, 2 to this power; -1: by workspace */
    int      log2_owners;    /* so many blocks of a cluster add up */
    int      log2_mine;      /* fours that a block of a cluster adds up at most: Exchange */
    int      one;            /* up to so many keys are not shared out: adding up costs more */
    int      slots;          /* attention_whole.cu: places for 16 keys in a block's shared memory */
    int      group, per_row; /* query heads of a key head; 65536 / group + 1 */
};

/* What a block takes of a sequence. */
struct Part {
    Span s;
    int  seq, kv_head, group, per_row, packed;
    int  k0, k1, old; /* keys; from `old` on they are this step's */
    int  index, n;    /* of how many parts */

    /* Of a packed row, at most 16 of them: its token, what it sees, where it begins. */
    __device__ __forceinline__ int  token(int r) const { return r * per_row >> 16; }
    __device__ __forceinline__ Keys sees(const MiCudaAttention &a, int r) const
    {
        return r < packed ? keys_of(a, s, token(r)) : Keys{0, 0};
    }
    __device__ __forceinline__ int64_t row(const MiTensor &t, int r) const
    {
        return (s.row + token(r)) * t.stride[0] + (kv_head * group + r - token(r) * group) * t.stride[1];
    }
};

/* False: there is nothing to do for this block.  A cluster's blocks add up, even those without keys.  ONE: with a way of its own for
 * sequences that are not shared out, without a division; ALWAYS: none is. */
template <int ROWS, bool ONE = false, bool ALWAYS = false> __device__ __forceinline__ bool find_part(const MiCudaAttention &a, const Split &split, Part *p)
{
    p->index = blockIdx.x, p->kv_head = blockIdx.y, p->seq = blockIdx.z;
    p->group = split.group, p->per_row = split.per_row;
    p->s = span_of(a, p->seq);
    p->packed = p->s.rows * p->group;
    if (p->packed == 0 || p->packed > ROWS)
        return false;
    /* The first row sees the first key, the last row the last. */
    const int low = keys_of(a, p->s, 0).first, high = keys_of(a, p->s, p->s.rows - 1).end, n = high - low;
    if (ALWAYS || (ONE && split.n_parts == 1)) {
        p->n = 1, p->k0 = low, p->k1 = high, p->old = p->s.len - p->s.rows;
        return true;
    }
    const int even =
        split.power >= 0 ? (n + split.n_parts - 1) >> split.power : (n + split.n_parts - 1) / split.n_parts;
    const int share = n <= split.one ? split.one : max(LEAST, (even + KEYS - 1) / KEYS * KEYS);
    p->n = n <= split.one ? 1 : (n + share - 1) / share;
    p->k0 = low + p->index * share, p->k1 = min(high, p->k0 + share), p->old = p->s.len - p->s.rows;
    return p->k0 < high || (split.power > 0 && n > split.one) || (p->index == 0 && n <= 0);
}

/* ---- inside a block ---------------------------------------------------------------- */

__device__ __forceinline__ unsigned load_word(unsigned at)
{
    unsigned x;
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(x) : "r"(at) : "memory");
    return x;
}

template <typename T> __device__ __forceinline__ void store_4(T *to, const float4 &v, float f)
{
    *(uint2 *)to = uint2{pack<T>(v.x * f, v.y * f), pack<T>(v.z * f, v.w * f)};
}
__device__ __forceinline__ void add_4(float4 &to, float f, const float4 &v)
{
    to.x = fmaf(f, v.x, to.x), to.y = fmaf(f, v.y, to.y), to.z = fmaf(f, v.z, to.z), to.w = fmaf(f, v.w, to.w);
}
__device__ __forceinline__ float inverse(float sum) { return sum > 0 ? __fdividef(1, sum) : 0; } /* no keys: zeros */

/* The warps' shares, in order, each [ROWS][D + 4] at every WARP_BYTES of smem: take(four elements, which, max and sum
 * of their row). */
template <int D, int ROWS, int WARP_BYTES, typename F>
__device__ __forceinline__ void add_warps(const unsigned char *smem, const float2 (*of_warp)[ROWS], int packed, F take)
{
    for (int i = threadIdx.x; i < packed * (D / 4); i += THREADS) {
        const int r = i / (D / 4), d = i % (D / 4) * 4;
        float     m = -INFINITY, l = 0;
        float4    o = {};
#pragma unroll
        for (int w = 0; w < WARPS; w++)
            m = fmaxf(m, of_warp[w][r].x);
        m = m == -INFINITY ? 0 : m;
#pragma unroll
        for (int w = 0; w < WARPS; w++) {
            const float2 x = of_warp[w][r];
            const float  f = exp2_fast(x.x - m);
            l = fmaf(f, x.y, l);
            add_4(o, f, *(const float4 *)((const float *)(smem + w * WARP_BYTES) + r * (D + 4) + d));
        }
        take(o, i, float2{m, l});
    }
}

/* ---- inside a cluster: some of its blocks are handed what they add up ---------------- */

/* Of packed rows as [ROWS][D / 4] fours of elements, block b adds up those from b * MINE on.  It holds, of every part,
 * its fours side by side, and maximum and sum of all rows. */
template <int D, int ROWS> struct Exchange {
    static constexpr int FOURS = ROWS * D / 4;

    uint64_t *full;
    float2   *of_row;          /* [MAX_CLUSTER][ROWS] */
    float4   *v;               /* [n_parts][1 << log2_mine] */
    int       log2_mine, mine; /* mine: how many this block adds up */

    __host__ __device__ static constexpr int log2_of(int log2_owners)
    {
        int n = 0;
        while (1 << (n + log2_owners) < FOURS)
            n++;
        return n;
    }
    static constexpr size_t bytes(int n_parts, int log2_owners)
    {
        return 16 + MAX_CLUSTER * ROWS * sizeof(float2) + ((size_t)n_parts << log2_of(log2_owners)) * sizeof(float4);
    }
#if __CUDA_ARCH__ >= 900
    __device__ __forceinline__ Exchange(unsigned char *smem, const Split &split, const Part &p)
        : full((uint64_t *)smem), of_row((float2 *)(smem + 16)), v((float4 *)(of_row + MAX_CLUSTER * ROWS)),
          log2_mine(split.log2_mine), mine(max(0, min(p.packed * (D / 4) - (p.index << log2_mine), 1 << log2_mine)))
    {
    }
    /* Of all blocks of a cluster, before any of them hands anything over.  No barrier of the cluster orders memory,
     * here or later: that would wait for the second-level cache. */
    __device__ __forceinline__ void open(const Part &p) const
    {
        if (threadIdx.x == 0) {
            barrier_init(full, 1);
            barrier_init_done();
            barrier_expect(full, (unsigned)(p.n * (mine * sizeof(float4) + p.packed * sizeof(float2))));
        }
        __syncwarp();
        cluster_here();
        cluster_wait();
    }
    /* Four elements of a part, and what is of their row. */
    __device__ __forceinline__ void hand_over(int i, const Split &split, const Part &p, const float4 &x,
                                              const float2 &row) const
    {
        const int owner = i >> log2_mine, r = i / (D / 4), other = i % (D / 4);

        asm volatile(
            "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1, %2, %3, %4}, [%5];" ::"r"(
                in_block(shared_address(v + (p.index << log2_mine) + (i & ((1 << log2_mine) - 1))), owner)),
            "f"(x.x), "f"(x.y), "f"(x.z), "f"(x.w), "r"(in_block(shared_address(full), owner))
            : "memory");
        if (other <= (p.packed * (D / 4) - 1) >> log2_mine)
            asm volatile(
                "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v2.f32 [%0], {%1, %2}, [%3];" ::"r"(
                    in_block(shared_address(of_row + p.index * ROWS + r), other)),
                "f"(row.x), "f"(row.y), "r"(in_block(shared_address(full), other))
                : "memory");
    }
    /* Four lanes for each four, a quarter of the parts each. */
    template <typename T> __device__ __forceinline__ void add(T *const *to, const Part &p) const
    {
        constexpr int EACH = MAX_CLUSTER / 4;

        if (mine == 0)
            return;
        barrier_wait(full, 0);
        for (int base = threadIdx.x / 32 * 8; base < mine; base += THREADS / 4) {
            const int at = base + threadIdx.x % 32 / 4, i = (p.index << log2_mine) + at, r = i / (D / 4);
            float2    y[EACH];
            float4    x[EACH], o = {};
            float     m = -INFINITY, l = 0;
#pragma unroll
            for (int k = 0; k < EACH; k++) {
                const int  part = k * 4 + threadIdx.x % 4;
                const bool there = at < mine && part < p.n;
                y[k] = there ? of_row[part * ROWS + r] : float2{-INFINITY, 0};
                x[k] = there ? v[(part << log2_mine) + at] : float4{};
                m = fmaxf(m, y[k].x);
            }
            m = quad_max(m);
            m = m == -INFINITY ? 0 : m;
#pragma unroll
            for (int k = 0; k < EACH; k++) {
                const float f = exp2_fast(y[k].x - m);
                l = fmaf(f, y[k].y, l);
                add_4(o, f, x[k]);
            }
            l = quad_sum(l);
            o = float4{quad_sum(o.x), quad_sum(o.y), quad_sum(o.z), quad_sum(o.w)};
            if (at < mine && threadIdx.x % 4 == 0)
                store_4(to[r] + i % (D / 4) * 4, o, inverse(l));
        }
    }
#endif
};

/* ---- attention_whole.cu -------------------------------------------------------------- */

/* Keys that a block holds at most; 0: not for heads of this size. */
int    mi_attention_whole_keys(const MiKvView *kv);
size_t mi_attention_whole_bytes(const MiKvView *kv, const Split &split);
/* At most 8 packed rows a sequence, no workspace, no soft cap. */
int mi_attention_whole(void *stream, const MiCudaAttention *a, const Split &split);

/* attention_scaled.cu: of a cache with scales. */
int mi_attention_decode_scaled(void *stream, const MiCudaAttention *a, const Split &split);

#endif
