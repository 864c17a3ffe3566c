/* logprobs.cu - natural log probabilities of the raw logits: of the token asked for
 * or drawn, then of the likeliest, best first. */
#include "cut.cuh"

extern __shared__ float4 dynamic_memory[];
#define ROOM ((float *)dynamic_memory)

struct Logprobs {
    const int32_t *targets, *tokens; /* targets may be NULL */
    float         *values;
    int32_t       *ids;
    int64_t        tokens_stride, values_stride, ids_stride;
    int            n_top;
};

struct Top {
    u64 found[MI_CUDA_MAX_TOP]; /* contenders of this block, in any order */
    int n;
};

/* Block 0: the contenders of all blocks, each to the place that the number of better ones gives it. */
__device__ __forceinline__ void put_top(const Logprobs &a, const Top &mine, double norm)
{
    float   *values = a.values + blockIdx.y * a.values_stride + 1;
    int32_t *ids = a.ids + blockIdx.y * a.ids_stride + 1;
    int      all = 0;

    for (unsigned r = 0; r < team_size(); r++) {
        const Top *theirs = of_block(&mine, r);
        const int  n = theirs->n;
        for (int i = threadIdx.x; i < n; i += TEAM_THREADS) {
            const u64 me = theirs->found[i];
            int       place = 0;
            for (unsigned q = 0; q < team_size(); q++) {
                const Top *others = of_block(&mine, q);
                for (int k = 0; k < others->n; k++)
                    place += others->found[k] > me;
            }
            ids[place] = id_of(me);
            values[place] = (float)(key_float((uint32_t)(me >> 32)) - norm);
        }
        all += n;
    }
    for (int i = all + threadIdx.x; i < a.n_top; i += TEAM_THREADS) /* more than there are */
        ids[i] = -1, values[i] = -INFINITY;
}

__global__ void __launch_bounds__(TEAM_THREADS, 2) logprobs(const Link l, const Logprobs a)
{
    __shared__ TeamShared shared;
    __shared__ CutShared  cut;
    __shared__ Top        top;

    let_successor_start();
    wait_for_predecessor();
    const Slice  x = take_slice(l, ROOM, false);
    const u64    best = best_of(x, shared, 0);
    const float  max = key_float((uint32_t)(best >> 32));
    const Fixed  fixed(l.n);
    const u64    want = (u64)min(a.n_top, l.n);
    u64          sum = 0;

    each_logit(x, [&](int, float v) { sum += fixed.of(weight_of(v, max)); });
    sum = team_reduce<Sum>(sum, shared, 1);
    const double norm = max + log(__ull2double_rn(sum) / fixed.one);

    if (threadIdx.x == 0)
        top.n = 0;
    __syncthreads();
    if (want && best) {
        const Threshold t = threshold_of_k(x, cut, want);
        settle(x, shared, ByLogit(), One(), t, 2, [&](int i, bool stays) {
            if (stays)
                top.found[atomicAdd(&top.n, 1)] = contender(x.x[i], x.first + i);
        });
    }
    team_sync();
    if (team_rank() == 0) {
        const float *row = l.in + (int64_t)blockIdx.y * l.in_stride;
        int          id = a.targets ? a.targets[blockIdx.y] : -1;

        if (id < 0)
            id = a.tokens[blockIdx.y * a.tokens_stride];
        if (threadIdx.x == 0) { /* a padded row's token may be anything */
            a.ids[blockIdx.y * a.ids_stride] = id;
            a.values[blockIdx.y * a.values_stride] = id >= 0 && id < l.n ? (float)(row[id] - norm) : -INFINITY;
        }
        put_top(a, top, norm);
    }
    team_sync();
}

int mi_cuda_logprobs(void *stream, MiTensor logits, MiTensor tokens, const MiBatch *batch, int n_top, MiTensor values,
                     MiTensor ids)
{
    const MiCudaLink link = { stream, logits, logits, batch, NULL };
    const Logprobs   a = { batch->targets,   (const int32_t *)tokens.data, (float *)values.data, (int32_t *)ids.data,
                           tokens.stride[0], values.stride[0],             ids.stride[0],        n_top };

    if (n_top > MI_CUDA_MAX_TOP)
        return cudaErrorInvalidValue;
    return launch_team(logprobs, &link, link_of(&link), a);
}

int mi_cuda_logprobs_prepare(void) { return mi_allow_smem(logprobs, team_sizes().smem); }
