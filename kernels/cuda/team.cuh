/* team.cuh - one row of logits in the shared memory of a cluster of blocks.
 *
 * One SM alone reads a row of 152,000 logits in 6 us, eight in less than one.  Each block
 * of the team keeps a slice of the ids in shared memory, so that a link reads and writes
 * device memory once however many passes it makes; blocks see each other's sums through
 * distributed shared memory.  Devices without clusters have teams of one block; where a
 * slice does not fit, it stays in device memory, in the row that the link writes. */
#ifndef KERNELS_CUDA_TEAM_CUH
#define KERNELS_CUDA_TEAM_CUH

#include "device.cuh"
#include "sampling.h"

/* Two blocks of 512 share an SM, one computes while the other meets its team: 64 rows of top_k take 133 us on an H100,
 * with blocks of 1024 169 us on an H200; one row 38 and 33 us. */
enum { TEAM_THREADS = 512, TEAM_WARPS = TEAM_THREADS / 32, TEAM_MAX = 8, EXCHANGES = 12 };

using u64 = unsigned long long;

/* What a kernel gets; made by link_of(). */
struct Link {
    const float   *in;
    float         *out;
    int64_t        in_stride, out_stride;
    int            n, slice; /* ids of a row, of a block */
    bool           cached;   /* slices are in shared memory */
    const int32_t *slots, *positions, *out_rows;
    int32_t       *drawn;
};

struct TeamSizes {
    unsigned blocks;
    size_t   smem; /* dynamic, at most */
};

/* Of this machine's devices, which are all alike. */
static inline TeamSizes team_sizes()
{
    static const TeamSizes sizes = [] {
        enum { STATIC_SMEM = 48 * 1024 };
        int device = 0, major = 0, smem = 48 * 1024;
        (void)cudaGetDevice(&device);
        (void)cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
        (void)cudaDeviceGetAttribute(&smem, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
        return TeamSizes{ major >= 9 ? (unsigned)TEAM_MAX : 1u, (size_t)smem - STATIC_SMEM };
    }();
    return sizes;
}

int cuts_prepare(); /* of cuts.cu */

static inline Link link_of(const MiCudaLink *l)
{
    const unsigned blocks = team_sizes().blocks;
    Link           k = {};

    k.in = (const float *)l->in.data, k.in_stride = l->in.stride[0];
    k.out = (float *)l->out.data, k.out_stride = l->out.stride[0];
    k.n = (int)l->in.shape[1];
    k.slice = (int)(((k.n + blocks - 1) / blocks + 3) / 4 * 4);
    k.cached = (size_t)k.slice * sizeof(float) <= team_sizes().smem;
    k.slots = l->batch->out_slot, k.positions = l->batch->positions, k.out_rows = l->batch->out_rows;
    k.drawn = l->batch->drawn;
    return k;
}

/* Of one row, for what depends on its length alone. */
static inline Link link_of_row(int vocab)
{
    MiBatch    none = {};
    MiCudaLink l = {
        NULL, {NULL, MI_F32, 2, {1, vocab}, {vocab, 1}}, {NULL, MI_F32, 2, {1, vocab}, {vocab, 1}}, &none, NULL};
    return link_of(&l);
}

template <typename... P, typename... A>
static inline int launch_team(void (*kernel)(P...), const MiCudaLink *l, const Link &k, A... args)
{
    const unsigned blocks = team_sizes().blocks, rows = (unsigned)l->in.shape[0];

    if (!rows)
        return 0;
    return mi_launch_clusters(kernel, dim3(blocks, rows), TEAM_THREADS, blocks,
                              k.cached ? (size_t)k.slice * sizeof(float) : 0, l->stream, k, args...);
}

#ifdef __CUDACC__

/* ---- the team ------------------------------------------------------------------- */

/* Every block launched by launch_team(): its place is blockIdx.x. */
__device__ __forceinline__ unsigned team_rank() { return blockIdx.x; }
__device__ __forceinline__ unsigned team_size() { return gridDim.x; }

/* All threads of all blocks; what was written before is seen behind. */
__device__ __forceinline__ void team_sync()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
#else
    __syncthreads();
#endif
}

/* The same variable of another block. */
template <typename T> __device__ __forceinline__ const T *of_block(const T *p, unsigned rank)
{
#if __CUDA_ARCH__ >= 900
    const T *q;
    asm volatile("mapa.u64 %0, %1, %2;" : "=l"(q) : "l"(p), "r"(rank));
    return q;
#else
    return p;
#endif
}

/* The same variable of every block, all on their way at once; `none` where there is no such block. */
template <typename T> __device__ __forceinline__ void of_team(const T *p, T none, T (&v)[TEAM_MAX])
{
#pragma unroll
    for (unsigned r = 0; r < TEAM_MAX; r++)
        v[r] = r < team_size() ? *of_block(p, r) : none;
}

struct TeamShared {
    u64 warps[TEAM_WARPS];
    u64 exchange[EXCHANGES]; /* one for each exchange of a kernel: none is written twice */
};

struct Sum {
    __device__ static u64 of(u64 a, u64 b) { return a + b; }
};
struct SumOfDoubles {
    __device__ static u64 of(u64 a, u64 b)
    {
        return (u64)__double_as_longlong(__longlong_as_double((long long)a) + __longlong_as_double((long long)b));
    }
};
struct Most {
    __device__ static u64 of(u64 a, u64 b) { return a > b ? a : b; }
};

/* Of all threads of the block, for all of them. */
template <typename Op> __device__ __forceinline__ u64 block_reduce(u64 v, TeamShared &s)
{
#pragma unroll
    for (int o = 16; o; o >>= 1)
        v = Op::of(v, __shfl_xor_sync(~0u, v, o));
    __syncthreads();
    if (threadIdx.x % 32 == 0)
        s.warps[threadIdx.x / 32] = v;
    __syncthreads();
    v = s.warps[0];
    for (int i = 1; i < TEAM_WARPS; i++)
        v = Op::of(v, s.warps[i]);
    return v;
}

/* Of all threads of the team; `which`: an exchange that nothing else of the kernel uses. */
template <typename Op> __device__ __forceinline__ u64 team_reduce(u64 v, TeamShared &s, int which)
{
    v = block_reduce<Op>(v, s);
    if (threadIdx.x == 0)
        s.exchange[which] = v;
    team_sync();
    u64 all[TEAM_MAX];
    of_team(&s.exchange[which], u64(0), all); /* 0 changes no sum and is no most */
    v = all[0];
#pragma unroll
    for (int r = 1; r < TEAM_MAX; r++)
        v = Op::of(v, all[r]);
    return v;
}

/* The sum over threads up to this one, in order; *all: of the block. */
__device__ __forceinline__ u64 block_scan(u64 v, TeamShared &s, u64 *all)
{
    const int warp = (int)threadIdx.x / 32;
    u64       before = 0, total = 0;

#pragma unroll
    for (int o = 1; o < 32; o *= 2) {
        const u64 left = __shfl_up_sync(~0u, v, o);
        v += (int)threadIdx.x % 32 >= o ? left : 0;
    }
    __syncthreads();
    if (threadIdx.x % 32 == 31)
        s.warps[warp] = v;
    __syncthreads();
    for (int i = 0; i < TEAM_WARPS; i++) {
        before += i < warp ? s.warps[i] : 0;
        total += s.warps[i];
    }
    *all = total;
    return before + v;
}

/* ---- logits ---------------------------------------------------------------------- */

__device__ __forceinline__ bool candidate(float x) { return x > -INFINITY; } /* false for NaN */

/* Order of floats as order of integers; -0 is 0. */
__device__ __forceinline__ uint32_t float_key(float x)
{
    const uint32_t u = __float_as_uint(x + 0.0f);
    return u & 0x80000000u ? ~u : u | 0x80000000u;
}
__device__ __forceinline__ float key_float(uint32_t k)
{
    return __uint_as_float(k & 0x80000000u ? k & 0x7fffffffu : ~k);
}

/* A logit and its id in one number: the best is the largest; 0 is none. */
__device__ __forceinline__ u64 contender(float x, int id)
{
    return candidate(x) ? (u64)float_key(x) << 32 | ~(uint32_t)id : 0;
}
__device__ __forceinline__ int id_of(u64 contender) { return contender ? (int)~(uint32_t)contender : 0; }

/* e^z for z <= 0 as the CPU's links compute it, step by step: no step may become a fused multiply-add.  Within 2 units
 * in the last place; 0 below -87 and for NaN. */
__device__ __forceinline__ float exp_negative(float z)
{
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
    const float safe = z > -87.0f ? z : -87.0f;
    const float n = __fsub_rn(__fadd_rn(__fmul_rn(safe, 1.44269504f), magic), magic);
    const float r = __fadd_rn(__fsub_rn(safe, __fmul_rn(n, 0.693359375f)), __fmul_rn(n, 2.12194440e-4f));
    float       p = 1.98412698e-4f;

    p = __fadd_rn(__fmul_rn(p, r), 1.38888889e-3f);
    p = __fadd_rn(__fmul_rn(p, r), 8.33333333e-3f);
    p = __fadd_rn(__fmul_rn(p, r), 4.16666667e-2f);
    p = __fadd_rn(__fmul_rn(p, r), 1.66666667e-1f);
    p = __fadd_rn(__fmul_rn(p, r), 0.5f);
    p = __fadd_rn(__fmul_rn(p, r), 1.0f);
    p = __fadd_rn(__fmul_rn(p, r), 1.0f);
    return z > -87.0f ? __fmul_rn(p, __int_as_float(((int)n + 127) << 23)) : 0.0f;
}

/* e^(x - max); several +INFINITY are 1 each. */
__device__ __forceinline__ float weight_of(float x, float max) { return exp_negative(x == max ? 0.0f : x - max); }

/* Weights as integers whose sum over a row stays below 2^63. */
struct Fixed {
    double one;
    __device__ explicit Fixed(int n) { one = (double)(1ull << (30 + __clz(n))); }
    __device__ __forceinline__ u64 of(float weight) const { return __double2ull_rz((double)weight * one); }
};

/* This block's part of a row. */
struct Slice {
    float *x; /* [n] */
    int    first, n;
};

/* f(i, x[i]) for the elements of this thread: the same in every call, so that what one call has changed another may
 * look at without a barrier. */
template <typename F> __device__ __forceinline__ void each_logit(const Slice &x, F &&f)
{
    const int fours = ((uintptr_t)x.x & 15) == 0 ? x.n / 4 : 0;

    for (int q = threadIdx.x; q < fours; q += TEAM_THREADS) {
        const float4 v = ((const float4 *)x.x)[q];
        f(4 * q, v.x), f(4 * q + 1, v.y), f(4 * q + 2, v.z), f(4 * q + 3, v.w);
    }
    for (int i = 4 * fours + threadIdx.x; i < x.n; i += TEAM_THREADS)
        f(i, x.x[i]);
}

/* The best of what a thread sees, ids ascending. */
struct Best {
    float x = -INFINITY;
    int   at = -1;
    __device__ __forceinline__ void operator()(int i, float v)
    {
        if (v > x)
            x = v, at = i;
    }
    __device__ __forceinline__ u64 contender_from(int first) const { return at < 0 ? 0 : contender(x, first + at); }
};

/* Copies by float4 where both sides allow it, five of them on their way at once; seen(i, from[i]). */
template <typename F> __device__ __forceinline__ void copy_floats(float *to, const float *from, int n, F &&seen)
{
    enum { BATCH = 5 };
    int at = 0;

    if ((((uintptr_t)to | (uintptr_t)from) & 15) == 0) {
        at = n / 4 * 4;
        for (int i = threadIdx.x; i < n / 4; i += BATCH * TEAM_THREADS) {
            float4 v[BATCH];
#pragma unroll
            for (int k = 0; k < BATCH; k++)
                if (i + k * TEAM_THREADS < n / 4)
                    v[k] = ((const float4 *)from)[i + k * TEAM_THREADS];
#pragma unroll
            for (int k = 0; k < BATCH; k++)
                if (i + k * TEAM_THREADS < n / 4) {
                    const int q = 4 * (i + k * TEAM_THREADS);
                    ((float4 *)to)[q / 4] = v[k];
                    seen(q, v[k].x), seen(q + 1, v[k].y), seen(q + 2, v[k].z), seen(q + 3, v[k].w);
                }
        }
    }
    for (int i = at + threadIdx.x; i < n; i += TEAM_THREADS)
        seen(i, to[i] = from[i]);
}
__device__ __forceinline__ void copy_floats(float *to, const float *from, int n)
{
    copy_floats(to, from, n, [](int, float) {});
}

/* Where it lies. */
__device__ __forceinline__ Slice slice_of_row(const Link &l)
{
    const int first = (int)team_rank() * l.slice, n = max(0, min(l.n - first, l.slice));
    return { (float *)l.in + (int64_t)blockIdx.y * l.in_stride + first, first, n };
}

/* After wait_for_predecessor().  room: the dynamic shared memory.  A barrier follows. */
__device__ __forceinline__ Slice take_slice(const Link &l, float *room, bool writes)
{
    const Slice there = slice_of_row(l);
    Slice       s = there;

    if (l.cached)
        s.x = room;
    else if (writes)
        s.x = l.out + (int64_t)blockIdx.y * l.out_stride + s.first;
    if (s.x != there.x)
        copy_floats(s.x, there.x, s.n);
    __syncthreads();
    return s;
}

__device__ __forceinline__ void give_slice(const Link &l, const Slice &s)
{
    __syncthreads();
    if (l.cached)
        copy_floats(l.out + (int64_t)blockIdx.y * l.out_stride + s.first, s.x, s.n);
}

/* The best of the row, for all threads of the team. */
__device__ __forceinline__ u64 best_of(const Slice &s, TeamShared &shared, int which)
{
    Best best;

    each_logit(s, best);
    return team_reduce<Most>(best.contender_from(s.first), shared, which);
}

/* take_slice() into shared memory, which it must fit, and the best of the row, looked for on the way. */
__device__ __forceinline__ Slice take_slice_and_best(const Link &l, float *room, TeamShared &shared, int which, u64 *best)
{
    Slice s = slice_of_row(l);
    Best  mine;

    copy_floats(room, s.x, s.n, mine);
    s.x = room;
    *best = team_reduce<Most>(mine.contender_from(s.first), shared, which);
    return s;
}

/* Only thread 0 of block 0 calls it. */
__device__ __forceinline__ void put_token(const Link &l, int slot, int token)
{
    ((int32_t *)l.out)[(int64_t)blockIdx.y * l.out_stride] = token;
    l.drawn[slot] = token;
}

#endif
#endif
