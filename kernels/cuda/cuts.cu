/* cuts.cu - the links that keep the best tokens: top_k, top_p, typical; and the
 * likeliest tokens' log probabilities, which are found in the same way. */
#include "cut.cuh"

extern __shared__ float4 dynamic_memory[];
#define ROOM ((float *)dynamic_memory)

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
    if (!all)
        keep_top_k(x, shared, cut, k, 0);
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
        const Mass mass(key_float((uint32_t)(best >> 32)), l.n);
        keep_top_p(x, shared, cut, mass, p, sum_of_masses(x, shared, mass, 1), 2, 0);
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
        const Mass   mass(max, l.n);
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
