/* draw.cuh - the draw of a token by the weights of what is left of a row. */
#ifndef KERNELS_CUDA_DRAW_CUH
#define KERNELS_CUDA_DRAW_CUH

#include "team.cuh"

/* Philox4x32-10 (Salmon et al., SC 2011): in [0, 1), 53 bits, of a seed and a position. */
__device__ __forceinline__ double uniform_of(u64 seed, uint32_t position)
{
    uint32_t c[4] = { position, 0, 0, 0 }, k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);

    for (int round = 0; round < 10; round++) {
        const uint32_t x0 = __umulhi(0xcd9e8d57u, c[2]) ^ c[1] ^ k0, x2 = __umulhi(0xd2511f53u, c[0]) ^ c[3] ^ k1;
        c[1] = 0xcd9e8d57u * c[2];
        c[3] = 0xd2511f53u * c[0];
        c[0] = x0, c[2] = x2;
        k0 += 0x9e3779b9u;
        k1 += 0xbb67ae85u;
    }
    return (double)((u64)(c[0] >> 5) << 26 | c[1] >> 6) * 0x1p-53;
}

/* x / t as IEEE has it, by three products where the numbers are no extreme ones (Markstein 1990). */
struct Over {
    float t, r;
    bool  usual;

    __device__ __forceinline__ explicit Over(float by) : t(by), r(1 / by), usual(by > 0x1p-60f && by < 0x1p60f) {}
    __device__ __forceinline__ float operator()(float x) const
    {
        if (!usual || !(fabsf(x) > 0x1p-60f && fabsf(x) < 0x1p60f))
            return x / t;
        float q = __fmul_rn(x, r);
        q = __fmaf_rn(__fmaf_rn(-q, t, x), r, q);
        return __fmaf_rn(__fmaf_rn(-q, t, x), r, q);
    }
};

__device__ __forceinline__ float as_it_is(float x) { return x; }

/* The ids of a thread, [*first, *end): neighbours, an odd number of them, so that a warp's loads meet 32 banks. */
__device__ __forceinline__ void run_of(const Slice &x, int thread, int *first, int *end)
{
    const int each = (x.n + TEAM_THREADS - 1) / TEAM_THREADS | 1;
    *first = min(thread * each, x.n);
    *end = min(*first + each, x.n);
}

/* What a thread's ids weigh in all, in a row whose largest logit is max; change(x): what a logit has become. */
template <typename F> __device__ __forceinline__ double weigh(const Slice &x, float max, F change)
{
    double sum = 0;
    int    first, end;

    run_of(x, threadIdx.x, &first, &end);
#pragma unroll 4
    for (int i = first; i < end; i++)
        sum += weight_of(change(x.x[i]), max);
    return sum;
}

/* The sum over the lanes up to this one. */
__device__ __forceinline__ double warp_prefix(double v)
{
#pragma unroll
    for (int o = 1; o < 32; o *= 2) {
        const double left = __shfl_up_sync(~0u, v, o);
        v += (int)threadIdx.x % 32 >= o ? left : 0;
    }
    return v;
}

/* One warp: the id of a thread's ids at which the sum of weights, `sum` before them, passes `at`; else the last one with a
 * weight. */
template <typename F>
__device__ __forceinline__ int walk(const Slice &x, int thread, float max, F change, double sum, double at)
{
    const int lane = (int)threadIdx.x % 32;
    int       first, end, last = 0;

    run_of(x, thread, &first, &end);
    for (int from = first; from < end; from += 32) {
        const int      id = from + lane;
        const float    w = id < end ? weight_of(change(x.x[id]), max) : 0;
        const double   upto = sum + warp_prefix(w);
        const unsigned hits = __ballot_sync(~0u, w > 0 && upto > at), some = __ballot_sync(~0u, w > 0);
        if (hits)
            return from + __ffs(hits) - 1;
        if (some)
            last = from + 31 - __clz(some);
        sum = __shfl_sync(~0u, upto, 31);
    }
    return last;
}

/* Of the token that is drawn; metadata, which may be read before the predecessor ends. */
__device__ __forceinline__ uint32_t drawn_position(const Link &l)
{
    return (uint32_t)l.positions[l.out_rows[blockIdx.y]] + 1;
}

struct DrawShared {
    double sums[TEAM_WARPS];
};

/* What is left of a row, of which `mine` is weigh()'s sum of this thread: the id in which the running sum of weights, by
 * id, passes uniform * total.  Uses one exchange; when it returns nobody looks at another block's shared memory any more. */
template <typename F>
__device__ __forceinline__ void draw(const Link &l, const Slice &x, TeamShared &s, DrawShared &d, float max, F change, double mine,
                                     double uniform, int slot, int which)
{
    const int    lane = threadIdx.x % 32;
    const double upto = warp_prefix(mine);
    double       sum = 0, total = 0;
    int          owner = -1, warp = 0;
    bool         found = false;

    if (lane == 31)
        d.sums[threadIdx.x / 32] = upto;
    __syncthreads();
    for (int w = 0; w < TEAM_WARPS; w++)
        total += d.sums[w];
    if (threadIdx.x == 0)
        s.exchange[which] = (u64)__double_as_longlong(total);
    team_sync();
    total = 0;
    u64 each[TEAM_MAX];
    of_team(&s.exchange[which], u64(0), each);
#pragma unroll
    for (int r = 0; r < TEAM_MAX; r++)
        total += __longlong_as_double((long long)each[r]);
    team_sync();
    double at = uniform * total;
    /* the block, the warp, then the thread in which the running sum passes `at`; else the last with a weight */
#pragma unroll
    for (int r = 0; r < TEAM_MAX; r++) {
        const double next = __longlong_as_double((long long)each[r]);
        if (!found && next > 0)
            owner = r;
        found = found || sum + next > at;
        sum += found ? 0 : next;
    }
    if (!found) /* a product that was rounded up to the total */
        at = INFINITY;
    if (owner != (int)team_rank())
        return;
    found = false;
    for (int w = 0; w < TEAM_WARPS && !found; w++) {
        if (d.sums[w] > 0)
            warp = w;
        found = sum + d.sums[w] > at;
        sum += found ? 0 : d.sums[w];
    }
    if (!found)
        at = INFINITY;
    if ((int)threadIdx.x / 32 != warp)
        return;
    const unsigned hits = __ballot_sync(~0u, mine > 0 && sum + upto > at), some = __ballot_sync(~0u, mine > 0);
    const int      of = hits ? __ffs(hits) - 1 : 31 - __clz(some);
    sum += __shfl_sync(~0u, upto - mine, of);
    const int id = walk(x, warp * 32 + of, max, change, sum, hits ? at : INFINITY);
    if (lane == 0)
        put_token(l, slot, x.first + id);
}

#endif
