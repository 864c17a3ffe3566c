#include "copies.h"
#include "device.cuh"

enum { THREADS = 256, SLICE = 16 << 10 /* bytes of a block */ };

/* A row of blocks for each copy; those past its end have nothing to do. */
static __global__ void __launch_bounds__(THREADS) copy_all(const __grid_constant__ MiCudaCopies c)
{
    const size_t first = (size_t)blockIdx.x * SLICE, bytes = c.at[blockIdx.y].bytes;
    const char  *src = (const char *)c.at[blockIdx.y].src;
    char        *dst = (char *)c.at[blockIdx.y].dst;

    wait_for_predecessor();
    if (first >= bytes)
        return;
    const size_t end = bytes - first < SLICE ? bytes : first + SLICE;
    if ((((uintptr_t)src | (uintptr_t)dst) & 15) == 0) {
        size_t at = first + threadIdx.x * 16;
        for (; at + 16 <= end; at += THREADS * 16)
            *(uint4 *)(dst + at) = __ldcv((const uint4 *)(src + at));
        for (size_t rest = end - end % 16 + threadIdx.x * 4; rest < end; rest += THREADS * 4)
            *(uint32_t *)(dst + rest) = __ldcv((const uint32_t *)(src + rest));
    } else {
        for (size_t at = first + threadIdx.x * 4; at < end; at += THREADS * 4)
            *(uint32_t *)(dst + at) = __ldcv((const uint32_t *)(src + at));
    }
    __threadfence(); /* the next kernel may start at its end, before all has been written back */
}

/* None is one of no bytes. */
static dim3 grid_of(const MiCudaCopies *c, int n)
{
    size_t most = 1;

    for (int i = 0; i < n; i++)
        most = c->at[i].bytes > most ? c->at[i].bytes : most;
    return dim3((unsigned)((most + SLICE - 1) / SLICE), (unsigned)(n ? n : 1));
}

extern "C" int mi_cuda_copy_all(void *stream, const MiCudaCopies *c, int n)
{
    return mi_launch(copy_all, grid_of(c, n), dim3(THREADS), 0, stream, *c);
}

extern "C" int mi_cuda_copy_all_set(void *run, void *node, const MiCudaCopies *c, int n)
{
    MiCudaCopies         none = {};
    cudaKernelNodeParams k = {};
    void                *args[] = {n ? (void *)c : (void *)&none};

    k.func = (void *)copy_all;
    k.gridDim = grid_of(c, n);
    k.blockDim = dim3(THREADS);
    k.kernelParams = args;
    return cudaGraphExecKernelNodeSetParams((cudaGraphExec_t)run, (cudaGraphNode_t)node, &k);
}
