/* chain.cu - temperature, top_k, top_p, min_p and the draw in one kernel, which reads the logits once.
 *
 * Most requests leave a few tokens of 150,000.  So some hundred that are certainly the best are
 * picked out first: each thread has a best one, and where so many of those are as good as a bound, at
 * least so many tokens are.  One block sorts what passes the bound, and all links are walks along that
 * list.  Where it may be too short (top_k above FEW, a share that more tokens make up, ties) the links
 * go over the whole row, as they do one by one. */
#include "cut.cuh"
#include "draw.cuh"

extern __shared__ float4 dynamic_memory[];
#define ROOM ((float *)dynamic_memory)

/* What a row's requests are; NULL: no such link in the chain. */
struct Wishes {
    const float    *temperature, *top_p, *min_p;
    const int32_t  *top_k;
    const uint64_t *seed;
};

/* Of one row; those that change nothing: 1, 0, 1, 0. */
struct Wish {
    float temperature, top_p, min_p;
    int   top_k;
};

enum { FEW = 256, LIST = 1024 };

struct Few {
    u64      mine[LIST], all[LIST]; /* contenders: of this block, of the team */
    uint32_t n;
};

union ChainShared { /* one way or the other */
    CutShared cut;
    Few       few;
};

enum { BEST, BOUND, COUNT, MASS, GATHERED, CUT_K, CUT_P = CUT_K + 2, DRAWN = CUT_P + 2 }; /* exchanges */
static_assert((int)DRAWN < (int)EXCHANGES, "one for each");

/* ---- the few ------------------------------------------------------------------------ */

/* a[0..n), n a power of two, the largest first (Batcher's bitonic network). */
__device__ __forceinline__ void sort_descending(u64 *a, int n)
{
    for (int size = 2; size <= n; size *= 2)
        for (int stride = size / 2; stride; stride /= 2) {
            __syncthreads();
            for (int i = threadIdx.x; i < n / 2; i += TEAM_THREADS) {
                const int lo = 2 * i - (i & (stride - 1)), hi = lo + stride;
                const u64 x = a[lo], y = a[hi];
                if ((x < y) == !(lo & size))
                    a[lo] = y, a[hi] = x;
            }
        }
    __syncthreads();
}

__device__ __forceinline__ int power_of_two(int n)
{
    return n <= 1 ? 1 : 1 << (32 - __clz(n - 1));
}

/* A key that as many tokens of the row reach as `want`, as good a one as the bests of threads tell; 0: all may be needed. */
__device__ __forceinline__ uint32_t bound_of(TeamShared &s, uint32_t best, int want)
{
    uint32_t  bound = 0;
    const int share = (want + (int)team_size() - 1) / (int)team_size();

    for (int bit = 31; bit >= 8; bit--)
        if (__syncthreads_count(best >= (bound | 1u << bit)) >= share)
            bound |= 1u << bit;
    if (threadIdx.x == 0)
        s.exchange[BOUND] = bound;
    team_sync();
    u64 each[TEAM_MAX];
    of_team(&s.exchange[BOUND], u64(~0u), each);
#pragma unroll
    for (int r = 0; r < TEAM_MAX; r++)
        bound = min(bound, (uint32_t)each[r]);
    return bound;
}

/* Those that reach the bound, into the blocks' lists.  Returns how many the team has; above LIST: they are not all there.
 * mass, *gathered: of theirs. */
__device__ __forceinline__ int gather(const Slice &x, TeamShared &s, Few &f, const Mass &mass, uint32_t bound, u64 *gathered)
{
    u64 sum = 0;
    int n = 0;

    each_logit(x, [&](int i, float v) {
        if (!candidate(v) || float_key(v) < bound)
            return;
        const uint32_t at = atomicAdd(&f.n, 1u);
        if (at < LIST)
            f.mine[at] = contender(v, x.first + i);
        sum += mass(v);
    });
    sum = block_reduce<Sum>(sum, s);
    if (threadIdx.x == 0)
        s.exchange[COUNT] = f.n, s.exchange[GATHERED] = sum;
    team_sync();
    *gathered = 0;
    u64 count[TEAM_MAX], masses[TEAM_MAX];
    of_team(&s.exchange[COUNT], u64(0), count);
    of_team(&s.exchange[GATHERED], u64(0), masses);
#pragma unroll
    for (int r = 0; r < TEAM_MAX; r++) {
        n += (int)min(count[r], (u64)LIST + 1);
        *gathered += masses[r];
    }
    return n;
}

/* One block: the team's lists in its own, the best first. */
__device__ __forceinline__ void collect(TeamShared &s, Few &f, int n)
{
    const int team = (int)team_size(), lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    u64       count[TEAM_MAX];
    int       at = 0;

    of_team(&s.exchange[COUNT], u64(0), count);
#pragma unroll
    for (int r = 0; r < TEAM_MAX; r++) { /* two warps a list */
        for (int i = warp / team * 32 + lane; warp % team == r && warp < 2 * team && i < (int)count[r]; i += 64)
            f.all[at + i] = of_block(f.mine, (unsigned)r)[i];
        at += (int)count[r];
    }
    for (int i = n + (int)threadIdx.x; i < power_of_two(n); i += TEAM_THREADS)
        f.all[i] = 0;
    sort_descending(f.all, power_of_two(n));
}

__device__ __forceinline__ float logit_of(u64 contender) { return key_float((uint32_t)(contender >> 32)); }

/* One block: how many of the n best top_p and min_p leave.  sum: all masses; 0: those of the n. */
__device__ __forceinline__ int cut_few(TeamShared &s, const Few &f, int n, const Mass &mass, const Wish &w, u64 sum)
{
    static_assert(LIST == 2 * TEAM_THREADS, "two a thread");
    const int    i = 2 * (int)threadIdx.x;
    const u64    first = i < n ? mass(logit_of(f.all[i])) : 0, second = i + 1 < n ? mass(logit_of(f.all[i + 1])) : 0;
    const double least = (double)mass.max + log((double)w.min_p);
    u64          all;
    const u64    before = block_scan(first + second, s, &all) - first - second,
              want = w.top_p < 1 ? share_of(w.top_p, sum ? sum : all) : ~0ull;
    const bool one = i < n && before < want && !(w.min_p > 0 && logit_of(f.all[i]) < least),
               two = i + 1 < n && before + first < want && !(w.min_p > 0 && logit_of(f.all[i + 1]) < least);

    return __syncthreads_count(one) + __syncthreads_count(two);
}

/* One block: draws among the first n, by id. */
__device__ __forceinline__ int draw_few(Few &f, int n, float max, double uniform)
{
    const int lane = threadIdx.x, each = (n + 31) / 32, first = min(lane * each, n), end = min(first + each, n);
    double    sum = 0, total;
    int       hit = -1, last = -1;

    for (int i = threadIdx.x; i < power_of_two(n); i += TEAM_THREADS)
        f.all[i] = i < n ? f.all[i] << 32 | f.all[i] >> 32 : 0; /* the id before the logit; its bits are turned */
    sort_descending(f.all, power_of_two(n));
    if (threadIdx.x >= 32)
        return -1;
    for (int i = first; i < end; i++)
        sum += weight_of(key_float((uint32_t)f.all[i]), max);
    total = sum;
#pragma unroll
    for (int o = 1; o < 32; o *= 2) {
        const double left = __shfl_up_sync(~0u, total, o);
        total += lane >= o ? left : 0;
    }
    double       before = total - sum;
    const double at = uniform * __shfl_sync(~0u, total, 31);
    for (int i = first; i < end; i++) {
        const float w = weight_of(key_float((uint32_t)f.all[i]), max);
        before += w;
        if (w > 0)
            last = (int)~(uint32_t)(f.all[i] >> 32);
        if (w > 0 && before > at && hit < 0)
            hit = last;
    }
    const unsigned hits = __ballot_sync(~0u, hit >= 0), some = __ballot_sync(~0u, last >= 0);
    hit = __shfl_sync(~0u, hit, hits ? __ffs(hits) - 1 : 0);
    last = __shfl_sync(~0u, last, some ? 31 - __clz(some) : 0);
    return hits ? hit : last; /* a product may be rounded up to the total */
}

/* False: the few are not enough.  best: the key of this thread's best; sum: all masses, where they are asked for. */
__device__ __forceinline__ bool by_few(const Link &l, const Slice &x, TeamShared &s, Few &f, const Mass &mass, const Wish &w,
                                       uint32_t best, u64 sum, double uniform, int slot)
{
    const bool     k = w.top_k > 0 && w.top_k <= FEW;
    u64            gathered;
    const uint32_t bound = bound_of(s, best, k ? w.top_k : FEW);
    const int      n = gather(x, s, f, mass, bound, &gathered);
    const double   least = (double)mass.max + log((double)w.min_p);

    if (n > LIST || !(k || (w.top_p < 1 && gathered >= share_of(w.top_p, sum)) ||
                      (w.min_p > 0 && bound > 0 && (double)key_float(bound) <= least)))
        return false;
    if (team_rank() != 0)
        return true;
    collect(s, f, n);
    const int left = cut_few(s, f, k ? min(n, w.top_k) : n, mass, w, k ? 0 : sum);
    const int token = draw_few(f, left, mass.max, uniform);
    if (threadIdx.x == 0)
        put_token(l, slot, token);
    return true;
}

/* ---- all ------------------------------------------------------------------------------ */

__device__ __forceinline__ void by_all(const Link &l, const Slice &x, TeamShared &s, CutShared &c, DrawShared &d,
                                       const Mass &mass, const Wish &w, u64 sum, double uniform, int slot)
{
    if (w.top_k > 0)
        keep_top_k(x, s, c, w.top_k, CUT_K);
    if (w.top_p < 1) {
        if (w.top_k > 0)
            sum = sum_of_masses(x, s, mass, GATHERED);
        keep_top_p(x, s, c, mass, w.top_p, sum, CUT_P, 4);
    }
    if (w.min_p > 0) {
        const double least = (double)mass.max + log((double)w.min_p);
        each_logit(x, [&](int i, float v) { x.x[i] = v >= least ? v : -INFINITY; });
    }
    __syncthreads();
    draw(l, x, s, d, mass.max, as_it_is, weigh(x, mass.max, as_it_is), uniform, slot, DRAWN);
}

__global__ void __launch_bounds__(TEAM_THREADS, 2) chain(const Link l, const Wishes all)
{
    __shared__ TeamShared  shared;
    __shared__ DrawShared  drawing;
    __shared__ ChainShared way;
    const int              row = blockIdx.y, slot = l.slots[row];
    const uint32_t         position = drawn_position(l);
    const Wish w = { all.temperature ? all.temperature[row] : 1, all.top_p ? all.top_p[row] : 1,
                     all.min_p ? all.min_p[row] : 0, all.top_k && all.top_k[row] < l.n ? all.top_k[row] : 0 };
    const double uniform = uniform_of(all.seed[row], position);

    let_successor_start();
    if (threadIdx.x == 0)
        way.few.n = 0;
    wait_for_predecessor();
    if (slot < 0)
        return;
    u64         best;
    const Slice x = take_slice_and_best(l, ROOM, shared, BEST, &best);
    const float raw = key_float((uint32_t)(best >> 32)), max = w.temperature == 1 ? raw : raw / w.temperature;

    if (!best || (w.temperature != 1 && (!(w.temperature > 0) || !isfinite(max)))) { /* nothing, or only the likeliest, is left */
        if (team_rank() == 0 && threadIdx.x == 0)
            put_token(l, slot, id_of(best));
        team_sync();
        return;
    }
    const bool few = (w.top_k > 0 && w.top_k <= FEW) || w.top_p < 1 || w.min_p > 0; /* tokens may be enough */
    if (!few && w.top_k == 0) { /* all take part */
        const Over over(w.temperature);
        draw(l, x, shared, drawing, max, over, weigh(x, max, over), uniform, slot, DRAWN);
        return;
    }
    const Mass mass(max, l.n);
    const Over over(w.temperature);
    const bool share = w.top_p < 1 && !(w.top_k > 0 && w.top_k <= FEW);
    uint32_t   key = 0;
    u64        sum = 0;
    each_logit(x, [&](int i, float v) {
        if (w.temperature != 1)
            x.x[i] = v = over(v);
        if (candidate(v))
            key = ::max(key, float_key(v));
        if (share)
            sum += mass(v);
    });
    if (share)
        sum = team_reduce<Sum>(sum, shared, MASS);
    if (!few || !by_few(l, x, shared, way.few, mass, w, key, sum, uniform, slot)) {
        team_sync(); /* nobody reads the lists any more */
        by_all(l, x, shared, way.cut, drawing, mass, w, sum, uniform, slot);
    }
    team_sync();
}

/* ---- launching --------------------------------------------------------------------------- */

bool mi_cuda_chain_takes(int vocab) { return link_of_row(vocab).cached; }

int mi_cuda_chain(const MiCudaLink *link, const MiCudaWishes *w)
{
    return launch_team(chain, link, link_of(link), Wishes{ w->temperature, w->top_p, w->min_p, w->top_k, w->seed });
}

int mi_cuda_chain_prepare(void) { return mi_allow_smem(chain, team_sizes().smem); }
