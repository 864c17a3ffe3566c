/* cuts.cu - the links that keep the best tokens: top_k, top_p, typical; and the
 * likeliest tokens' log probabilities, which are found in the same way. */
#include "cut.cuh"

extern __shared__ float4 dynamic_memory[];
#define ROOM ((float *)dynamic_memory)

struct Mass {
    float max;
    Fixed fixed;
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

/* ---- top_k --------------------------------------------------------------------------- */

__global__ void __launch_bounds__(TEAM_THREADS, 2) top_k(const Link l, const int32_t *counts)
{
    __shared__ TeamShared shared;
    __shared__ CutShared  cut;
    const int             k = counts[blockIdx.y];
    const bool            all = k <= 0 || k >= l.n;

    let_successor_start();
    wait_for_predecessor();
    if (l.slots[blockIdx.y] < 0 || (all && l.in == l.out))
        return;
    const Slice x = take_slice(l, ROOM, true);
    if (!all) {
        const Threshold t = threshold_of_k(x, cut, (u64)k);
        if (!t.none)
            settle(x, shared, ByLogit(), One(), t, 0, [&](int i, bool stays) {
                if (!stays)
                    x.x[i] = -INFINITY;
            });
    }
    give_slice(l, x);
    team_sync();
}

/* ---- top_p ----------------------------------------------------------------------------- */

__global__ void __launch_bounds__(TEAM_THREADS, 2) top_p(const Link l, const float *shares)
{
    __shared__ TeamShared shared;
    __shared__ CutShared  cut;
    const float           p = shares[blockIdx.y];

    let_successor_start();
    wait_for_predecessor();
    if (l.slots[blockIdx.y] < 0 || (!(p < 1) && l.in == l.out))
        return;
    const Slice x = take_slice(l, ROOM, true);
    const u64   best = best_of(x, shared, 0);
    if (p < 1 && best) {
        const Mass mass = { key_float((uint32_t)(best >> 32)), Fixed(l.n) };
        const u64  sum = sum_of_masses(x, shared, mass, 1);
        /* n tokens of less than (1 - p) / n weigh less than 1 - p together: none of them is needed */
        const double spare = (1.0 - p) * (__ull2double_rn(sum) / mass.fixed.one);
        const float  least = (float)(mass.max + log(spare / l.n) - 0.01);
        if (isfinite(mass.max))
            each_logit(x, [&](int i, float v) {
                if (!(v >= least))
                    x.x[i] = -INFINITY;
            });
        const Threshold t = threshold(x, cut, ByLogit(), mass, share_of(p, sum), 0, 0);
        settle(x, shared, ByLogit(), mass, t, 2, [&](int i, bool stays) {
            if (!stays)
                x.x[i] = -INFINITY;
        });
    }
    give_slice(l, x);
    team_sync();
}

/* ---- typical ---------------------------------------------------------------------------- */

/* How near a token's surprise is to the entropy. */
struct ByTypicality {
    float  max;
    double surprise, entropy; /* surprise: -log p of the largest */
    __device__ __forceinline__ float operator()(float x) const
    {
        const double below = x == max ? 0 : (double)max - (double)x;
        return -(float)fabs(surprise + below - entropy);
    }
};

__global__ void __launch_bounds__(TEAM_THREADS, 2) typical(const Link l, const float *shares)
{
    __shared__ TeamShared shared;
    __shared__ CutShared  cut;
    const float           p = shares[blockIdx.y];

    let_successor_start();
    wait_for_predecessor();
    if (l.slots[blockIdx.y] < 0 || (!(p < 1) && l.in == l.out))
        return;
    const Slice x = take_slice(l, ROOM, true);
    const u64   best = best_of(x, shared, 0);
    if (p < 1 && best) {
        const float  max = key_float((uint32_t)(best >> 32));
        const Mass   mass = { max, Fixed(l.n) };
        const u64    all = sum_of_masses(x, shared, mass, 1);
        const double sum = __ull2double_rn(all) / mass.fixed.one;
        double       mean = 0; /* of max - x */
        each_logit(x, [&](int, float v) {
            const float w = weight_of(v, max);
            if (w > 0 && v != max)
                mean += w / sum * ((double)max - (double)v);
        });
        mean = __longlong_as_double((long long)team_reduce<SumOfDoubles>((u64)__double_as_longlong(mean), shared, 2));
        const ByTypicality rank = { max, log(sum), log(sum) + mean };
        const Threshold    t = threshold(x, cut, rank, mass, share_of(p, all), 0, 0);
        settle(x, shared, rank, mass, t, 3, [&](int i, bool stays) {
            if (!stays)
                x.x[i] = -INFINITY;
        });
    }
    give_slice(l, x);
    team_sync();
}

int mi_cuda_top_k(const MiCudaLink *link, const int32_t *k) { return launch_team(top_k, link, link_of(link), k); }
int mi_cuda_top_p(const MiCudaLink *link, const float *p) { return launch_team(top_p, link, link_of(link), p); }
int mi_cuda_typical(const MiCudaLink *link, const float *p) { return launch_team(typical, link, link_of(link), p); }

int cuts_prepare()
{
    const size_t smem = team_sizes().smem;
    int          e = mi_allow_smem(top_k, smem);

    e = e ? e : mi_allow_smem(top_p, smem);
    return e ? e : mi_allow_smem(typical, smem);
}
