/* sampling.cu - the links that draw, and those that look at a logit at a time. */
#include "team.cuh"

extern __shared__ float4 dynamic_memory[];
#define ROOM ((float *)dynamic_memory)

/* Every kernel ends with the team together: nobody's shared memory goes while another reads it. */

__global__ void __launch_bounds__(TEAM_THREADS) greedy(const Link l)
{
    __shared__ TeamShared shared;
    const int             slot = l.slots[blockIdx.y];

    let_successor_start();
    wait_for_predecessor();
    if (slot < 0)
        return;
    const u64 best = best_of(take_slice(l, NULL, false), shared, 0);
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

int mi_cuda_sampling_prepare(void) { return 0; }
