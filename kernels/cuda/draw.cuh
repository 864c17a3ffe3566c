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

enum { RUN = 64 }; /* ids that a warp weighs at once, two a lane */

struct Pair {
    float w[2];
};

__device__ __forceinline__ Pair weigh_pair(const Slice &x, int at, float max)
{
    Pair p;
    for (int k = 0; k < 2; k++)
        p.w[k] = at + k < x.n ? weight_of(x.x[at + k], max) : 0;
    return p;
}

__device__ __forceinline__ double warp_sum(double v)
{
#pragma unroll
    for (int o = 16; o; o >>= 1)
        v += __shfl_xor_sync(~0u, v, o);
    return v;
}

/* The runs of a warp, [*first, *end). */
__device__ __forceinline__ void runs_of(const Slice &x, int warp, int *first, int *end)
{
    const int runs = (x.n + RUN - 1) / RUN, share = (runs + TEAM_WARPS - 1) / TEAM_WARPS;
    *first = min(warp * share, runs);
    *end = min(*first + share, runs);
}

/* One warp: the id at which the sum of weights, `sum` before its runs, passes `at`; else its last one with a weight. */
__device__ __forceinline__ int walk(const Slice &x, int warp, float max, double sum, double at)
{
    const int lane = (int)threadIdx.x % 32;
    int       first, end, last = 0;

    runs_of(x, warp, &first, &end);
    for (int run = first; run < end; run++) {
        const int  id = run * RUN + 2 * lane;
        const Pair p = weigh_pair(x, id, max);
        double     prefix = (double)p.w[0] + p.w[1];
        const double all = warp_sum(prefix);

#pragma unroll
        for (int o = 1; o < 32; o *= 2) {
            const double left = __shfl_up_sync(~0u, prefix, o);
            prefix += lane >= o ? left : 0;
        }
        const double   second = sum + prefix, first_of_two = second - p.w[1];
        const bool     hit0 = p.w[0] > 0 && first_of_two > at, hit1 = p.w[1] > 0 && second > at;
        const unsigned hits = __ballot_sync(~0u, hit0 || hit1), some = __ballot_sync(~0u, p.w[0] > 0 || p.w[1] > 0);
        if (some) {
            const int best = __shfl_sync(~0u, p.w[1] > 0 ? id + 1 : id, 31 - __clz(some));
            last = best;
        }
        if (hits)
            return __shfl_sync(~0u, hit0 ? id : id + 1, __ffs(hits) - 1);
        sum += all;
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

__device__ __forceinline__ float as_it_is(const float &v) { return v; }

/* What a warp's runs of a row weigh in all, whose largest logit is max.  change(v) may change each, and gives it. */
template <typename F> __device__ __forceinline__ double weigh(const Slice &x, float max, F change)
{
    const int lane = threadIdx.x % 32;
    double    sum = 0;
    int       first, end;

    runs_of(x, threadIdx.x / 32, &first, &end);
    for (int run = first; run < end; run++) {
        const int at = run * RUN + 2 * lane;
        float     w[2] = { 0, 0 };
#pragma unroll
        for (int k = 0; k < 2; k++)
            if (at + k < x.n)
                w[k] = weight_of(change(x.x[at + k]), max);
        sum += (double)w[0] + w[1];
    }
    return warp_sum(sum);
}

/* What is left of a row, of which `mine` is weigh()'s sum of this warp: the id in which the running sum of weights, by
 * id, passes uniform * total.  Uses one exchange; the team meets before shared memory may go. */
__device__ __forceinline__ void draw(const Link &l, const Slice &x, TeamShared &s, DrawShared &d, float max, double mine,
                                     double uniform, int slot, int which)
{
    const int lane = threadIdx.x % 32;
    double    sum = 0, total = 0;
    int       owner = -1, warp = 0;
    bool      found = false;

    if (lane == 0)
        d.sums[threadIdx.x / 32] = mine;
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
    double at = uniform * total;
    /* the block, then the warp, in which the running sum passes `at`; else the last with a weight */
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
    if ((int)threadIdx.x / 32 == warp) {
        const int id = walk(x, warp, max, sum, at);
        if (lane == 0)
            put_token(l, slot, x.first + id);
    }
}

#endif
