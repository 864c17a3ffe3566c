#include "gemm.h"
#include "device.cuh"

template <typename T> static __global__ void add_bias(T *y, int64_t stride, int n, const float *bias)
{
    wait_for_predecessor();
    for (int i = blockIdx.y * blockDim.x + threadIdx.x; i < n; i += gridDim.y * blockDim.x)
        y[blockIdx.x * stride + i] = from_float<T>(to_float(y[blockIdx.x * stride + i]) + bias[i]);
}

template <typename T> static int launch(void *stream, const MiTensor &y, const float *bias)
{
    const int n = (int)y.shape[1];
    return mi_launch(add_bias<T>, dim3((unsigned)y.shape[0], (n + 1023) / 1024), dim3(256), 0, stream, (T *)y.data, y.stride[0],
                     n, bias);
}

template <typename T> static __global__ void noise(T *p, size_t n)
{
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (size_t)gridDim.x * blockDim.x) {
        uint32_t h = (uint32_t)i * 2654435761u;
        h = (h ^ h >> 15) * 2246822519u;
        p[i] = from_float<T>((float)(int32_t)(h ^ h >> 13) * 0x1p-36f); /* up to 1/32 */
    }
}

extern "C" int mi_cuda_noise(void *stream, void *p, size_t bytes, MiDType dtype)
{
    const dim3 grid(1024), block(256);
    return dtype == MI_BF16 ? mi_launch(noise<bf16>, grid, block, 0, stream, (bf16 *)p, bytes / 2)
         : dtype == MI_F16  ? mi_launch(noise<__half>, grid, block, 0, stream, (__half *)p, bytes / 2)
                            : mi_launch(noise<float>, grid, block, 0, stream, (float *)p, bytes / 4);
}

/* Of the module's own memory: whoever counts what is allocated finds nothing of it. */
static __device__ uint4 ground[3 * MI_GEMM_SIDE * MI_GEMM_SIDE * 2 / sizeof(uint4)];

extern "C" int mi_cuda_gemm_ground(void **p) { return cudaGetSymbolAddress(p, ground); }

extern "C" int mi_cuda_add_bias(void *stream, MiTensor y, const float *bias)
{
    return y.dtype == MI_BF16 ? launch<bf16>(stream, y, bias)
         : y.dtype == MI_F16  ? launch<__half>(stream, y, bias)
                              : launch<float>(stream, y, bias);
}
