/* pick.cu - the likeliest token of a row, from the likeliest of each block that computed some of its logits. */
#include "device.cuh"
#include "gemv.h"

static __global__ void pick(const MiCandidate *candidates, int per_row, int32_t *token, int32_t *drawn,
                            const int32_t *slot)
{
    __shared__ MiCandidate found[8];
    const int              row = blockIdx.x, to = slot[row];
    float                  v = -INFINITY;
    int                    at = 0x7fffffff;

    let_successor_start();
    wait_for_predecessor();
    for (int i = threadIdx.x; i < per_row; i += blockDim.x) {
        const float2 c = __ldcg((const float2 *)(candidates + (int64_t)row * per_row) + i);
        if (beats(c.x, __float_as_int(c.y), v, at)) {
            v = c.x;
            at = __float_as_int(c.y);
        }
    }
    for (int o = 16; o; o /= 2) {
        const float w = __shfl_xor_sync(~0u, v, o);
        const int   j = __shfl_xor_sync(~0u, at, o);
        if (beats(w, j, v, at)) {
            v = w;
            at = j;
        }
    }
    if (threadIdx.x % 32 == 0)
        found[threadIdx.x / 32] = {v, at};
    __syncthreads();
    if (threadIdx.x)
        return;
    for (int i = 1; i < (int)blockDim.x / 32; i++)
        if (beats(found[i].logit, found[i].token, v, at)) {
            v = found[i].logit;
            at = found[i].token;
        }
    at = at == 0x7fffffff ? 0 : at; /* no number among them */
    if (token)
        token[row] = at;
    if (to >= 0)
        drawn[to] = at;
}

extern "C" int mi_cuda_gemv_pick(void *stream, const MiCandidate *candidates, int32_t per_row, int32_t rows,
                                 int32_t *token, int32_t *drawn, const int32_t *slot)
{
    if (rows < 1)
        return cudaSuccess;
    return mi_launch(pick, dim3(rows), dim3(256), 0, stream, candidates, per_row, token, drawn, slot);
}
