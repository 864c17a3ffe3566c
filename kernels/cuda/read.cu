/* read.cu - a read of device memory and nothing else: every thread has eight
 * loads of 16 bytes under way, as a decode step's kernels do. */
#include "read.h"

#include <cuda_runtime.h>

enum { THREADS = 256, LOADS = 8 };

/* The sum is stored only where it is something that cleared memory never gives: the
 * compiler cannot leave the loads out, and no write disturbs them. */
__global__ void __launch_bounds__(THREADS) read_all(uint4 *data, size_t n)
{
    const size_t stride = (size_t)gridDim.x * THREADS;
    unsigned     all = ~0u;

    for (size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x; i < n; i += stride * LOADS) {
        uint4 x[LOADS];
#pragma unroll
        for (int k = 0; k < LOADS; k++)
            x[k] = i + k * stride < n ? __ldcs(data + i + k * stride) : make_uint4(~0u, ~0u, ~0u, ~0u);
#pragma unroll
        for (int k = 0; k < LOADS; k++)
            all &= x[k].x & x[k].y & x[k].z & x[k].w;
    }
    if (all == ~0u && blockIdx.x * THREADS + threadIdx.x < n)
        data[0].x = all;
}

extern "C" int mi_cuda_read(void *stream, void *data, size_t bytes)
{
    int device = 0, processors = 0;

    cudaError_t e = cudaGetDevice(&device);
    if (e == cudaSuccess)
        e = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
    if (e != cudaSuccess)
        return e;
    read_all<<<processors * 8, THREADS, 0, (cudaStream_t)stream>>>((uint4 *)data, bytes / sizeof(uint4));
    return cudaGetLastError();
}
