/* kernels.cu - the device code: vector_add and add_norm for f32, f16 and bf16.  Shapes
 * and rules are in kernels.h.
 *
 * Sums are f32, in an order that depends on the shape alone: a run gives the same bits as
 * the one before it, recorded or not.  No atomics for that reason.
 *
 * Each starts when the kernel before it is done, which is right between kernels that
 * overlap, too.  To overlap as the core's do (programmatic dependent launch, cards from
 * 9.0 on) launch with the attribute
 * cudaLaunchAttributeProgrammaticStreamSerialization, and call
 * cudaGridDependencySynchronize() in every thread before it touches what another kernel
 * writes or reads; weights may be read before. */
#include "kernels.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

enum { THREADS = 256, WARPS = THREADS / 32 };

/* Of row blockIdx.x; T may be written through another pointer, so no __restrict__. */
template <typename T> __device__ T *row(const MiTensor &t) { return (T *)t.data + blockIdx.x * t.stride[0]; }

/* grid: rows, parts of a row. */
template <typename T> __global__ void __launch_bounds__(THREADS) vector_add(MiTensor a, MiTensor b, MiTensor y)
{
    const int64_t i = (int64_t)blockIdx.y * THREADS + threadIdx.x;

    if (i < y.shape[1])
        row<T>(y)[i] = T(float(row<T>(a)[i]) + float(row<T>(b)[i]));
}

/* Of all threads, for all of them. */
__device__ float block_sum(float v)
{
    __shared__ float warps[WARPS];

    for (int o = 16; o; o >>= 1)
        v += __shfl_xor_sync(~0u, v, o);
    if (threadIdx.x % 32 == 0)
        warps[threadIdx.x / 32] = v;
    __syncthreads();
    v = 0;
    for (int i = 0; i < WARPS; i++)
        v += warps[i];
    return v;
}

/* A block a row.  The sum is made twice, from a and b that are in the cache by then, so that a row may have any length. */
template <typename T>
__global__ void __launch_bounds__(THREADS) add_norm(MiTensor a, MiTensor b, MiTensor sum, const float *w, float eps,
                                                    float offset, MiTensor y)
{
    float squares = 0;

    for (int64_t i = threadIdx.x; i < y.shape[1]; i += THREADS) {
        const T x = T(float(row<T>(a)[i]) + float(row<T>(b)[i]));
        if (sum.data)
            row<T>(sum)[i] = x;
        squares += float(x) * float(x);
    }
    const float scale = rsqrtf(block_sum(squares) / (float)y.shape[1] + eps);
    for (int64_t i = threadIdx.x; i < y.shape[1]; i += THREADS) {
        const T x = T(float(row<T>(a)[i]) + float(row<T>(b)[i]));
        row<T>(y)[i] = T(float(x) * scale * (offset + w[i]));
    }
}

/* kernel<<<grid, THREADS, 0, stream>>>(args...), whose error is nobody else's. */
template <typename... P, typename... A> static int launch(void (*kernel)(P...), dim3 grid, void *stream, A... args)
{
    cudaLaunchConfig_t c = {};

    c.gridDim = grid;
    c.blockDim = THREADS;
    c.stream = (cudaStream_t)stream;
    const cudaError_t e = cudaLaunchKernelEx(&c, kernel, P(args)...);
    if (e)
        (void)cudaGetLastError(); /* or the next to ask would be told again */
    return e;
}

int acme_vector_add(void *stream, MiTensor a, MiTensor b, MiTensor y)
{
    const dim3 grid((unsigned)y.shape[0], (unsigned)((y.shape[1] + THREADS - 1) / THREADS));

    if (y.shape[0] == 0)
        return 0;
    switch (y.dtype) {
    case MI_F32: return launch(vector_add<float>, grid, stream, a, b, y);
    case MI_F16: return launch(vector_add<__half>, grid, stream, a, b, y);
    case MI_BF16: return launch(vector_add<__nv_bfloat16>, grid, stream, a, b, y);
    default: return cudaErrorInvalidValue;
    }
}

int acme_add_norm(void *stream, MiTensor a, MiTensor b, MiTensor sum, const float *w, float eps, float offset, MiTensor y)
{
    const dim3 grid((unsigned)y.shape[0]);

    if (y.shape[0] == 0)
        return 0;
    switch (y.dtype) {
    case MI_F32: return launch(add_norm<float>, grid, stream, a, b, sum, w, eps, offset, y);
    case MI_F16: return launch(add_norm<__half>, grid, stream, a, b, sum, w, eps, offset, y);
    case MI_BF16: return launch(add_norm<__nv_bfloat16>, grid, stream, a, b, sum, w, eps, offset, y);
    default: return cudaErrorInvalidValue;
    }
}

const char *acme_error_text(int code) { return cudaGetErrorString((cudaError_t)code); }
