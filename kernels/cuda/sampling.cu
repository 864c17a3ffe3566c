/* sampling.cu - the links that draw, those that look at a logit at a time, and those
 * that change a few.  Every kernel that exchanges anything ends with the team together:
 * nobody's shared memory goes while another block reads it. */
#include "draw.cuh"

extern __shared__ float4 dynamic_memory[];
#define ROOM ((float *)dynamic_memory)

/* ---- greedy ----------------------------------------------------------------------- */

__global__ void __launch_bounds__(TEAM_THREADS, 4) greedy(const Link l)
{
    __shared__ TeamShared shared;
    const int             slot = l.slots[blockIdx.y];

    let_successor_start();
    wait_for_predecessor();
    if (slot < 0)
        return;
    const u64 best = best_of(slice_of_row(l), shared, 0);
    if (team_rank() == 0 && threadIdx.x == 0)
        put_token(l, slot, id_of(best));
    team_sync();
}

int mi_cuda_greedy(const MiCudaLink *link)
{
    Link l = link_of(link);
    l.cached = false; /* each logit is looked at once */
    return launch_team(greedy, link, l);
}

/* ---- multinomial ------------------------------------------------------------------- */

__global__ void __launch_bounds__(TEAM_THREADS, 2) multinomial(const Link l, const uint64_t *seeds)
{
    __shared__ TeamShared shared;
    __shared__ DrawShared drawing;
    const int             slot = l.slots[blockIdx.y];
    const uint32_t        position = drawn_position(l);

    let_successor_start();
    wait_for_predecessor();
    if (slot < 0)
        return;
    const Slice x = take_slice(l, ROOM, false);
    const u64   best = best_of(x, shared, 0);
    const float max = key_float((uint32_t)(best >> 32));
    if (best)
        draw(l, x, shared, drawing, max, as_it_is, weigh(x, max, as_it_is), uniform_of(seeds[blockIdx.y], position),
             slot, 1);
    else {
        if (team_rank() == 0 && threadIdx.x == 0)
            put_token(l, slot, 0);
        team_sync();
    }
}

int mi_cuda_multinomial(const MiCudaLink *link, const uint64_t *seed)
{
    return launch_team(multinomial, link, link_of(link), seed);
}

/* ---- temperature, min_p -------------------------------------------------------------- */

__global__ void __launch_bounds__(TEAM_THREADS, 2) temperature(const Link l, const float *temperatures)
{
    __shared__ TeamShared shared;
    const float           t = temperatures[blockIdx.y];

    let_successor_start();
    wait_for_predecessor();
    if (l.slots[blockIdx.y] < 0 || (t == 1 && l.in == l.out))
        return;
    const Slice x = take_slice(l, ROOM, true);
    const u64   best = best_of(x, shared, 0);
    const float max = key_float((uint32_t)(best >> 32));
    const bool  one = !(t > 0) || !isfinite(max / t); /* only the likeliest stays */
    if (best && t != 1)
        each_logit(x, [&](int i, float v) { x.x[i] = !one ? v / t : x.first + i == id_of(best) ? 0 : -INFINITY; });
    give_slice(l, x);
    team_sync();
}

__global__ void __launch_bounds__(TEAM_THREADS, 2) min_p(const Link l, const float *shares)
{
    __shared__ TeamShared shared;
    const float           p = shares[blockIdx.y];

    let_successor_start();
    wait_for_predecessor();
    if (l.slots[blockIdx.y] < 0 || (!(p > 0) && l.in == l.out))
        return;
    const Slice  x = take_slice(l, ROOM, true);
    const u64    best = best_of(x, shared, 0);
    const double least = (double)key_float((uint32_t)(best >> 32)) + log((double)p); /* p e^max <= e^x */
    if (best && p > 0)
        each_logit(x, [&](int i, float v) { x.x[i] = v >= least ? v : -INFINITY; });
    give_slice(l, x);
    team_sync();
}

int mi_cuda_temperature(const MiCudaLink *link, const float *t)
{
    return launch_team(temperature, link, link_of(link), t);
}
int mi_cuda_min_p(const MiCudaLink *link, const float *p) { return launch_team(min_p, link, link_of(link), p); }

/* ---- logit_bias, penalties: a few logits, in place ------------------------------------- */

/* Biases of one id are added in the order of the list. */
__global__ void __launch_bounds__(TEAM_THREADS, 2) logit_bias(const Link l, const MiBiases *all)
{
    __shared__ int32_t ids[MI_MAX_BIASES];
    __shared__ float   biases[MI_MAX_BIASES];
    const MiBiases    &b = all[blockIdx.y];
    const int          n = b.n < MI_MAX_BIASES ? b.n : MI_MAX_BIASES, k = (int)threadIdx.x;

    let_successor_start();
    if (k < n)
        ids[k] = b.at[k].id, biases[k] = b.at[k].bias;
    wait_for_predecessor();
    if (l.slots[blockIdx.y] < 0)
        return;
    const Slice x = take_slice(l, NULL, true); /* has a barrier */
    const int   at = k < n ? ids[k] - x.first : -1;
    if (at < 0 || at >= x.n)
        return;
    for (int i = 0; i < k; i++)
        if (ids[i] == ids[k])
            return; /* another thread's */
    float v = x.x[at];
    for (int i = k; i < n; i++)
        if (ids[i] == ids[k])
            v += biases[i];
    x.x[at] = v;
}

int mi_cuda_logit_bias(const MiCudaLink *link, const MiBiases *biases)
{
    static_assert((int)MI_MAX_BIASES <= (int)TEAM_THREADS, "a thread for each");
    Link l = link_of(link);
    l.cached = false;
    return launch_team(logit_bias, link, l, biases);
}

enum : uint32_t { IN_PROMPT = 0x80000000u }; /* beside the number of times in the answer */

/* The history is host memory: the blocks of the team read a part each and show it to the others, which count the ids
 * of their slice.  counts: [rows][team][slice] where there is no room in shared memory. */
__global__ void __launch_bounds__(TEAM_THREADS, 2)
    penalties(const Link l, const float *all, const MiBatch batch, uint32_t *counts)
{
    __shared__ int32_t part[TEAM_THREADS];
    const int          slot = l.slots[blockIdx.y];
    const int          known = max(0, min(l.positions[l.out_rows[blockIdx.y]] + 1, batch.max_history));
    const float       *p = all + 3 * blockIdx.y, repetition = p[0], presence = p[1], frequency = p[2];

    let_successor_start();
    wait_for_predecessor();
    if (slot < 0)
        return;
    Link in_place = l;
    in_place.cached = false;
    const Slice x = take_slice(in_place, NULL, true);
    const int   answer = max(batch.n_prompt[slot], 0);
    uint32_t   *count = (uint32_t *)dynamic_memory;

    if (repetition == 1 && presence == 0 && frequency == 0)
        return;
    if (!l.cached)
        count = counts + ((int64_t)blockIdx.y * team_size() + team_rank()) * l.slice;
    for (int i = threadIdx.x; i < x.n; i += TEAM_THREADS)
        count[i] = 0;
    for (int from = 0; from < known; from += TEAM_THREADS * (int)team_size()) {
        const int mine = from + (int)(team_rank() * TEAM_THREADS + threadIdx.x);
        part[threadIdx.x] = mine < known ? mi_batch_history(&batch, slot, mine) : -1;
        team_sync();
        for (unsigned r = 0; r < team_size(); r++) {
            const int at = *of_block(&part[threadIdx.x], r) - x.first, t = from + (int)(r * TEAM_THREADS + threadIdx.x);
            if (at < 0 || at >= x.n || t >= known)
                continue;
            if (t >= answer)
                atomicAdd(&count[at], 1u);
            else
                atomicOr(&count[at], IN_PROMPT);
        }
        team_sync();
    }
    __syncthreads();
    for (int i = threadIdx.x; i < x.n; i += TEAM_THREADS) {
        const uint32_t times = count[i] & ~IN_PROMPT;
        if (!count[i])
            continue;
        float v = x.x[i];
        if (repetition != 1)
            v = v > 0 ? v / repetition : __fmul_rn(v, repetition);
        if (times)
            v = __fsub_rn(v, __fadd_rn(frequency, presence));
        for (uint32_t k = 1; k < times && frequency != 0; k++)
            v = __fsub_rn(v, frequency);
        x.x[i] = v;
    }
}

size_t mi_cuda_penalties_workspace(int n_out, int vocab)
{
    const Link l = link_of_row(vocab);
    return l.cached ? 0 : (size_t)n_out * team_sizes().blocks * (size_t)l.slice * sizeof(uint32_t);
}

int mi_cuda_penalties(const MiCudaLink *link, const float *values)
{
    return launch_team(penalties, link, link_of(link), values, *link->batch, (uint32_t *)link->workspace);
}

int mi_cuda_sampling_prepare(void)
{
    const size_t smem = team_sizes().smem;
    int          e = 0;

    for (auto kernel : { temperature, min_p })
        e = e ? e : mi_allow_smem(kernel, smem);
    e = e ? e : mi_allow_smem(multinomial, smem);
    e = e ? e : mi_allow_smem(penalties, smem);
    return e ? e : cuts_prepare();
}
