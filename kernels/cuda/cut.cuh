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

struct CutShared {
    Histogram h[2]; /* in turn: one is read by the team while the next is filled */
    u64       before;
    int       bin, lowest;
};

__device__ __forceinline__ void add_mass(Histogram &h, unsigned bin, u64 mass)
{
    const uint32_t low = (uint32_t)mass, old = atomicAdd(&h.low[bin], low), high = (uint32_t)(mass >> 32) + (old + low < low);

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

/* After every block has filled its histogram: the bin in which the walk from the highest one reaches `want`, or the
 * lowest that has a token. */
__device__ __forceinline__ Bin bin_of(CutShared &c, const Histogram &mine, TeamShared &s, u64 want)
{
    const int high = CUT_BINS - 1 - 2 * (int)threadIdx.x, low = high - 1; /* a thread has two bins */
    u64       mass_high = 0, mass_low = 0, sum, all;
    bool      any_high = false, any_low = false;

    static_assert(CUT_BINS == 2 * TEAM_THREADS, "two bins a thread");
    if (threadIdx.x == 0)
        c.bin = -1, c.lowest = CUT_BINS;
    team_sync();
    for (unsigned r = 0; r < team_size(); r++) {
        const Histogram *h = of_block(&mine, r);
        const uint2      l = *(const uint2 *)&h->low[low], u = *(const uint2 *)&h->high[low];
        mass_low += (u64)u.x << 32 | l.x;
        mass_high += (u64)u.y << 32 | l.y;
        any_low = any_low || h->any[low];
        any_high = any_high || h->any[high];
    }
    sum = block_scan(mass_high + mass_low, s, &all);
    const u64 above = sum - mass_high - mass_low;
    if (above < want && above + mass_high >= want)
        c.bin = high, c.before = above;
    else if (above + mass_high < want && sum >= want)
        c.bin = low, c.before = above + mass_high;
    if (all < want && (any_high || any_low))
        atomicMin(&c.lowest, any_low ? low : high);
    __syncthreads();
    if (all < want && c.lowest == high)
        c.bin = high, c.before = all - mass_high;
    if (all < want && c.lowest == low)
        c.bin = low, c.before = all - mass_low;
    __syncthreads();
    return { c.bin, c.before, all >= want };
}

struct Threshold {
    uint32_t last; /* the key of the last rank that keeps a token */
    u64      rest; /* what is wanted of it */
    bool     none; /* there are no candidates */
};

/* rank(x): higher is better, never NaN; weigh(x): its mass; floor: no token whose key begins lower is needed.
 * used: how many histograms the kernel has filled. */
template <typename Rank, typename Weigh>
__device__ __forceinline__ Threshold threshold(const Slice &x, CutShared &c, TeamShared &s, Rank rank, Weigh weigh, u64 want,
                                               uint32_t floor, int used)
{
    Threshold t = { 0, want, false };

    for (int level = 0; level < CUT_LEVELS; level++) {
        const int      above = level == 0 ? 32 : level == 1 ? 21 : 10, below = level == 0 ? 21 : level == 1 ? 10 : 0;
        const uint32_t digit = (1u << (above - below)) - 1;
        Histogram     &h = c.h[(used + level) % 2];

        clear(h);
        for (int i = threadIdx.x; i < x.n; i += TEAM_THREADS) {
            if (!candidate(x.x[i]))
                continue;
            const uint32_t key = float_key(rank(x.x[i]));
            if (level == 0 ? key >> below >= floor : key >> above == t.last)
                add_mass(h, key >> below & digit, weigh(x.x[i]));
        }
        const Bin bin = bin_of(c, h, s, t.rest);
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

    for (int i = threadIdx.x; i < x.n; i += TEAM_THREADS)
        if (candidate(x.x[i]) && float_key(rank(x.x[i])) == t.last)
            ties++, mass += weigh(x.x[i]);
    ties = block_reduce<Sum>(ties, s);
    mass = block_reduce<Sum>(mass, s);
    if (threadIdx.x == 0)
        s.exchange[which] = ties, s.exchange[which + 1] = mass;
    team_sync();
    for (unsigned r = 0; r < team_size(); r++) {
        all_ties += *of_block(&s.exchange[which], r);
        all_mass += *of_block(&s.exchange[which + 1], r);
        before = r < team_rank() ? all_mass : before;
    }
    const bool all_stay = all_ties <= 1 || all_mass < t.rest;
    for (int at = 0; at < x.n; at += TEAM_THREADS) { /* in the order of ids */
        const int      i = at + (int)threadIdx.x;
        const bool     there = i < x.n && candidate(x.x[i]);
        const uint32_t key = there ? float_key(rank(x.x[i])) : 0;
        bool           stays = key > t.last || (key == t.last && all_stay);

        if (!all_stay && ties) {
            u64       chunk;
            const u64 mine = there && key == t.last ? weigh(x.x[i]) : 0, sum = block_scan(mine, s, &chunk);
            stays = stays || (key == t.last && before + sum - mine < t.rest);
            before += chunk;
        }
        if (there)
            settled(i, stays);
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
__device__ __forceinline__ uint32_t floor_of(const Slice &x, CutShared &c, TeamShared &s, u64 k)
{
    float best = -INFINITY;

    for (int i = threadIdx.x; i < x.n; i += TEAM_THREADS)
        best = x.x[i] > best ? x.x[i] : best;
    clear(c.h[0]);
    if (candidate(best))
        add_mass(c.h[0], float_key(best) >> 21, 1);
    const Bin bin = bin_of(c, c.h[0], s, k);
    return bin.reached ? (uint32_t)bin.at : 0;
}

__device__ __forceinline__ Threshold threshold_of_k(const Slice &x, CutShared &c, TeamShared &s, u64 k)
{
    const uint32_t floor = floor_of(x, c, s, k);
    return threshold(x, c, s, ByLogit(), One(), k, floor, 1);
}

#endif
