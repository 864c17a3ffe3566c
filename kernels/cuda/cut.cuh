/* cut.cuh - the best tokens of a row that together reach a mass, without sorting.
 *
 * Walking from the best rank down and through equal ranks by id, those are kept before
 * which less than `want` was gathered.  The last rank is found digit by digit, by three
 * histograms of 11, 11 and 10 bits of the ranks' bits.  Masses are integers, weights times
 * a power of two: sums by atomics that come in any order are the same. */
#ifndef KERNELS_CUDA_CUT_CUH
#define KERNELS_CUDA_CUT_CUH

#include "team.cuh"

enum { CUT_BINS = 2048, CUT_LEVELS = 3 };

/* A mass of 64 bits in two words: 64-bit atomics on shared memory are loops. */
struct Histogram {
    uint32_t low[CUT_BINS], high[CUT_BINS];
    uint8_t  any[CUT_BINS]; /* a token of no mass is one nevertheless */
};

enum { GROUPS = 32, GROUP_BINS = CUT_BINS / GROUPS };

struct CutShared {
    Histogram h[2]; /* in turn: one is read by the team while the next is filled */
    u64       group_mass[2][GROUPS]; /* of this block's histogram */
    bool      group_any[2][GROUPS];
    u64       before;
    int       bin;
    bool      reached;
};

__device__ __forceinline__ void add_mass(Histogram &h, unsigned bin, u64 mass)
{
    const uint32_t low = (uint32_t)mass, old = atomicAdd(&h.low[bin], low),
                   high = (uint32_t)(mass >> 32) + (old + low < low);

    if (high)
        atomicAdd(&h.high[bin], high);
    h.any[bin] = 1;
}

__device__ __forceinline__ void clear(Histogram &h)
{
    static_assert(sizeof h % 4 == 0, "cleared by words");
    for (unsigned i = threadIdx.x; i < sizeof h / 4; i += TEAM_THREADS)
        ((uint32_t *)&h)[i] = 0;
    __syncthreads();
}

struct Bin {
    int  at;      /* -1: there are no tokens */
    u64  before;  /* what the bins above hold */
    bool reached; /* with it there is as much as was wanted */
};

/* One warp, a lane for each step of the walk from the highest: the lane in which it reaches `want`, or the last with a
 * token; -1: none has.  *before: what the lanes before it hold. */
__device__ __forceinline__ int walk_of(u64 mass, bool any, u64 want, u64 *before, bool *reached)
{
    const unsigned lane = threadIdx.x % 32;
    u64            sum = mass;

#pragma unroll
    for (int o = 1; o < 32; o *= 2) {
        const u64 left = __shfl_up_sync(~0u, sum, o);
        sum += lane >= (unsigned)o ? left : 0;
    }
    const unsigned hit = __ballot_sync(~0u, sum - mass < want && sum >= want), some = __ballot_sync(~0u, any);
    const int      at = hit ? __ffs(hit) - 1 : 31 - __clz(some);
    *before = __shfl_sync(~0u, sum - mass, at < 0 ? 0 : at);
    *reached = hit != 0;
    return at;
}

/* The first warp, after the team has met: first the group, then the bin. */
__device__ __forceinline__ void find_bin(CutShared &c, int which, u64 want)
{
    const int lane = (int)threadIdx.x, group_of_lane = GROUPS - 1 - lane;
    u64       mass = 0, high = 0, low = 0, before, before_too;
    bool      any = false, any_high = false, any_low = false, reached;

#pragma unroll
    for (unsigned r = 0; r < TEAM_MAX; r++)
        if (r < team_size()) {
            const CutShared *there = of_block(&c, r);
            mass += there->group_mass[which][group_of_lane];
            any |= there->group_any[which][group_of_lane];
        }
    const int at = walk_of(mass, any, want, &before, &reached), group = GROUPS - 1 - at;
    if (at < 0) {
        if (lane == 0)
            c.bin = -1, c.before = 0, c.reached = false;
        return;
    }
    const int bin = group * GROUP_BINS + GROUP_BINS - 1 - 2 * lane; /* and the one below */
#pragma unroll
    for (unsigned r = 0; r < TEAM_MAX; r++)
        if (r < team_size()) {
            const Histogram *h = &of_block(&c, r)->h[which];
            const uint2      l = *(const uint2 *)&h->low[bin - 1], u = *(const uint2 *)&h->high[bin - 1];
            const uchar2     s = *(const uchar2 *)&h->any[bin - 1];
            low += (u64)u.x << 32 | l.x, any_low |= s.x;
            high += (u64)u.y << 32 | l.y, any_high |= s.y;
        }
    const int winner = walk_of(high + low, any_high || any_low, want - before, &before_too, &reached);
    before += before_too;
    if (lane == winner) { /* which of its two */
        const bool upper = reached ? before + high >= want : !any_low;
        c.bin = upper ? bin : bin - 1;
        c.before = upper ? before : before + high;
        c.reached = reached;
    }
}

/* After the block has filled its histogram: the bin in which the walk from the highest one reaches `want`, or the
 * lowest that has a token. */
__device__ __forceinline__ Bin bin_of(CutShared &c, int which, u64 want)
{
    const int  warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    Histogram &h = c.h[which];

    static_assert(GROUP_BINS == 64 && GROUPS == 32, "two bins a lane, a group a lane");
    __syncthreads();
    for (int group = warp; group < GROUPS; group += TEAM_WARPS) {
        const int  first = group * GROUP_BINS + 2 * lane;
        u64        mass = ((u64)h.high[first] << 32 | h.low[first]) + ((u64)h.high[first + 1] << 32 | h.low[first + 1]);
        const bool any = __any_sync(~0u, h.any[first] || h.any[first + 1]);
#pragma unroll
        for (int o = 16; o; o >>= 1)
            mass += __shfl_xor_sync(~0u, mass, o);
        if (lane == 0)
            c.group_mass[which][group] = mass, c.group_any[which][group] = any;
    }
    team_sync();
    if (warp == 0)
        find_bin(c, which, want);
    __syncthreads();
    return { c.bin, c.before, c.reached };
}

struct Threshold {
    uint32_t last; /* the key of the last rank that keeps a token */
    u64      rest; /* what is wanted of it */
    bool     none; /* there are no candidates */
};

/* rank(x): higher is better, never NaN; weigh(x): its mass; floor: no token whose key begins lower is needed.
 * used: how many histograms the kernel has filled. */
template <typename Rank, typename Weigh>
__device__ __forceinline__ Threshold threshold(const Slice &x, CutShared &c, Rank rank, Weigh weigh, u64 want,
                                               uint32_t floor, int used)
{
    Threshold t = { 0, want, false };

    for (int level = 0; level < CUT_LEVELS; level++) {
        const int      above = level == 0 ? 32 : level == 1 ? 21 : 10, below = level == 0 ? 21 : level == 1 ? 10 : 0;
        const uint32_t digit = (1u << (above - below)) - 1;
        const int      which = (used + level) % 2;

        clear(c.h[which]);
        each_logit(x, [&](int, float v) {
            const uint32_t key = candidate(v) ? float_key(rank(v)) : 0;
            if (candidate(v) && (level == 0 ? key >> below >= floor : key >> above == t.last))
                add_mass(c.h[which], key >> below & digit, weigh(v));
        });
        const Bin bin = bin_of(c, which, t.rest);
        if (bin.at < 0)
            return { 0, 0, true };
        t.last = t.last << (above - below) | (uint32_t)bin.at;
        t.rest -= bin.before;
    }
    return t;
}

/* settled(i, stays) of each candidate of the slice; uses two exchanges from `which` on. */
template <typename Rank, typename Weigh, typename Settled>
__device__ __forceinline__ void settle(const Slice &x, TeamShared &s, Rank rank, Weigh weigh, Threshold t, int which,
                                       Settled settled)
{
    u64 ties = 0, mass = 0, all_ties = 0, all_mass = 0, before = 0;

    each_logit(x, [&](int, float v) {
        if (candidate(v) && float_key(rank(v)) == t.last)
            ties++, mass += weigh(v);
    });
    ties = block_reduce<Sum>(ties, s);
    mass = block_reduce<Sum>(mass, s);
    if (threadIdx.x == 0)
        s.exchange[which] = ties, s.exchange[which + 1] = mass;
    team_sync();
    u64 each_ties[TEAM_MAX], each_mass[TEAM_MAX];
    of_team(&s.exchange[which], u64(0), each_ties);
    of_team(&s.exchange[which + 1], u64(0), each_mass);
#pragma unroll
    for (unsigned r = 0; r < TEAM_MAX; r++) {
        all_ties += each_ties[r];
        all_mass += each_mass[r];
        before = r < team_rank() ? all_mass : before;
    }
    if (!ties || all_ties <= 1 || all_mass < t.rest) { /* no tie is to be broken here */
        each_logit(x, [&](int i, float v) {
            if (candidate(v))
                settled(i, float_key(rank(v)) >= t.last);
        });
        return;
    }
    for (int at = 0; at < x.n; at += TEAM_THREADS) { /* in the order of ids */
        const int      i = at + (int)threadIdx.x;
        const bool     there = i < x.n && candidate(x.x[i]);
        const uint32_t key = there ? float_key(rank(x.x[i])) : 0;
        u64            chunk;
        const u64      mine = there && key == t.last ? weigh(x.x[i]) : 0, sum = block_scan(mine, s, &chunk);

        if (there)
            settled(i, key > t.last || (key == t.last && before + sum - mine < t.rest));
        before += chunk;
    }
}

/* ---- the k largest -------------------------------------------------------------- */

struct ByLogit {
    __device__ __forceinline__ float operator()(float x) const { return x; }
};
struct One {
    __device__ __forceinline__ u64 operator()(float) const { return 1; }
};

/* Each thread's best is one of so many groups' bests, and the k-th of those is no better than that of all: where its
 * key begins is a floor, which spares the first histogram most of the row.  Fills one histogram. */
__device__ __forceinline__ uint32_t floor_of(const Slice &x, CutShared &c, u64 k)
{
    float best = -INFINITY;

    each_logit(x, [&](int, float v) { best = v > best ? v : best; });
    clear(c.h[0]);
    if (candidate(best))
        add_mass(c.h[0], float_key(best) >> 21, 1);
    const Bin bin = bin_of(c, 0, k);
    return bin.reached ? (uint32_t)bin.at : 0;
}

__device__ __forceinline__ Threshold threshold_of_k(const Slice &x, CutShared &c, u64 k)
{
    const uint32_t floor = floor_of(x, c, k);
    return threshold(x, c, ByLogit(), One(), k, floor, 1);
}

/* Removes all but the k likeliest; two exchanges from `which` on, four histograms. */
__device__ __forceinline__ void keep_top_k(const Slice &x, TeamShared &s, CutShared &c, int k, int which)
{
    const Threshold t = threshold_of_k(x, c, (u64)k);

    if (!t.none)
        settle(x, s, ByLogit(), One(), t, which, [&](int i, bool stays) {
            if (!stays)
                x.x[i] = -INFINITY;
        });
}

/* ---- the smallest set of a share --------------------------------------------------- */

/* Of rows of n logits whose largest is max. */
struct Mass {
    float max;
    int   n;
    Fixed fixed;
    __device__ Mass(float largest, int count) : max(largest), n(count), fixed(count) {}
    __device__ __forceinline__ u64 operator()(float x) const { return fixed.of(weight_of(x, max)); }
};

/* The least mass that reaches share * sum; at least one token has to. */
__device__ __forceinline__ u64 share_of(float share, u64 sum)
{
    const u64 want = __double2ull_ru((double)share * __ull2double_rn(sum));
    return want ? want : 1;
}

__device__ __forceinline__ u64 sum_of_masses(const Slice &x, TeamShared &s, Mass mass, int which)
{
    u64 sum = 0;
    each_logit(x, [&](int, float v) { sum += mass(v); });
    return team_reduce<Sum>(sum, s, which);
}

/* Removes the tokens from which on the likeliest have a share p of `sum`, which is all masses.  Uses two exchanges from
 * `which` on; used: how many histograms the kernel has filled. */
__device__ __forceinline__ void keep_top_p(const Slice &x, TeamShared &s, CutShared &c, Mass mass, float p, u64 sum,
                                           int which, int used)
{
    /* n tokens of less than (1 - p) / n weigh less than 1 - p together: none of them is needed */
    const double spare = (1.0 - p) * (__ull2double_rn(sum) / mass.fixed.one);
    const float  least = (float)(mass.max + log(spare / mass.n) - 0.01);

    if (isfinite(mass.max))
        each_logit(x, [&](int i, float v) {
            if (!(v >= least))
                x.x[i] = -INFINITY;
        });
    const Threshold t = threshold(x, c, ByLogit(), mass, share_of(p, sum), 0, used);
    settle(x, s, ByLogit(), mass, t, which, [&](int i, bool stays) {
        if (!stays)
            x.x[i] = -INFINITY;
    });
}

#endif
