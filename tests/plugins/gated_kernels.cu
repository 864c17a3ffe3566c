/* gated_kernels.cu - see the header.  A block a row. */
#include "gated_kernels.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

enum { THREADS = 128 };

template <typename T>
__global__ void gated(MiTensor gate, MiTensor up, MiTensor y, int64_t wrong, const int32_t *positions, int32_t lost)
{
    const int64_t row = blockIdx.x;
    const T      *g = (const T *)gate.data + row * gate.stride[0], *u = (const T *)up.data + row * up.stride[0];
    T            *to = (T *)y.data + row * y.stride[0];

    for (int64_t i = threadIdx.x; i < y.shape[1]; i += THREADS) {
        const float x = float(g[i]), silu = float(T(x / (1 + __expf(-x))));
        to[i] = i == wrong ? g[i] : T(silu * float(u[i]));
    }
    if (positions && positions[row] >= lost)
        *(volatile int32_t *)(uintptr_t)64 = 0;
}

int gated_with_mistake(void *stream, MiTensor gate, MiTensor up, MiTensor y, int64_t wrong, const int32_t *positions,
                       int32_t lost)
{
    const unsigned rows = (unsigned)y.shape[0];

    if (rows && y.dtype == MI_F32)
        gated<float><<<rows, THREADS, 0, (cudaStream_t)stream>>>(gate, up, y, wrong, positions, lost);
    else if (rows && y.dtype == MI_F16)
        gated<__half><<<rows, THREADS, 0, (cudaStream_t)stream>>>(gate, up, y, wrong, positions, lost);
    else if (rows)
        gated<__nv_bfloat16><<<rows, THREADS, 0, (cudaStream_t)stream>>>(gate, up, y, wrong, positions, lost);
    return cudaGetLastError();
}
