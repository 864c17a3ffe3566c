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

extern "C" int mi_cuda_add_bias(void *stream, MiTensor y, const float *bias)
{
    return y.dtype == MI_BF16 ? launch<bf16>(stream, y, bias)
         : y.dtype == MI_F16  ? launch<__half>(stream, y, bias)
                              : launch<float>(stream, y, bias);
}
