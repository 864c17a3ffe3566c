/* elementwise.cu - add, mul and the activations: bound by memory alone.  A thread
 * has two units of eight in flight, which covers the latency at full occupancy. */
#include "lines.cuh"
#include "ops.h"

enum { THREADS = 256, UNITS = 2 };

template <typename T> __device__ __forceinline__ float sigmoid(float x)
{
    return __fdividef(1.0f, 1.0f + exponential<T>(-x));
}

/* The normal distribution function.  For two-byte types Abramowitz and Stegun 7.1.26: within 1e-7, and the tail is
 * right since it is a factor of e^(-x x / 2). */
template <typename T> __device__ __forceinline__ float normal(float x)
{
    if (sizeof(T) == 4)
        return normcdff(x);
    const float z = fabsf(x) * 0.70710678f, t = __fdividef(1.0f, 1.0f + 0.3275911f * z);
    const float p =
        t * (0.254829592f + t * (-0.284496736f + t * (1.421413741f + t * (-1.453152027f + t * 1.061405429f))));
    const float tail = 0.5f * p * __expf(-z * z);
    return x < 0 ? tail : 1.0f - tail;
}

template <typename T, int F> __device__ __forceinline__ float activated(float x, float slope)
{
    if (F == MI_CUDA_SILU)
        return __fdividef(x, 1.0f + exponential<T>(-x));
    if (F == MI_CUDA_SIGMOID)
        return sigmoid<T>(x);
    if (F == MI_CUDA_TANH)
        return tanhf(x);
    if (F == MI_CUDA_GELU_TANH) /* x (1 + tanh(u)) / 2 = x sigmoid(2 u) */
        return x * sigmoid<T>(x * (1.59576912f + 0.0713548163f * (x * x)));
    if (F == MI_CUDA_GELU_ERF)
        return x * normal<T>(x);
    return x > 0 ? x : slope * x;
}

template <typename T, int F> __device__ __forceinline__ void activate(Eight<T> &x, float slope)
{
    float y[UNIT];
#pragma unroll
    for (int i = 0; i < UNIT; i++)
        y[i] = activated<T, F>(to_float(x.at[i]), slope);
    x = rounded(y, T());
}

/* lines: x, y.  Not `const T *x`: x may be y. */
template <typename T> __global__ void __launch_bounds__(THREADS) unary(Lines l, int f, float slope, unsigned units)
{
    const unsigned first = blockIdx.x * THREADS * UNITS + threadIdx.x, all = units * l.count;
    Eight<T>       x[UNITS];

    let_successor_start();
    wait_for_predecessor();
#pragma unroll
    for (int k = 0; k < UNITS; k++) {
        const unsigned g = first + k * THREADS, line = g / units, at = (g - line * units) * UNIT;
        if (g < all)
            x[k] = load_eight(line_at<T>(l, 0, line) + at, l.n - at, l.aligned);
    }
#pragma unroll
    for (int k = 0; k < UNITS; k++) {
        const unsigned g = first + k * THREADS, line = g / units, at = (g - line * units) * UNIT;
        if (g >= all)
            continue;
        switch (f) {
        case MI_CUDA_SILU: activate<T, MI_CUDA_SILU>(x[k], slope); break;
        case MI_CUDA_SIGMOID: activate<T, MI_CUDA_SIGMOID>(x[k], slope); break;
        case MI_CUDA_TANH: activate<T, MI_CUDA_TANH>(x[k], slope); break;
        case MI_CUDA_GELU_TANH: activate<T, MI_CUDA_GELU_TANH>(x[k], slope); break;
        case MI_CUDA_GELU_ERF: activate<T, MI_CUDA_GELU_ERF>(x[k], slope); break;
        default: activate<T, MI_CUDA_LEAKY_RELU>(x[k], slope);
        }
        store_eight(line_at<T>(l, 1, line) + at, x[k], l.n - at, l.aligned);
    }
}

/* lines: a, b, y */
template <typename T> __global__ void __launch_bounds__(THREADS, 5) binary(Lines l, bool multiply, unsigned units)
{
    const unsigned first = blockIdx.x * THREADS * UNITS + threadIdx.x, all = units * l.count;
    Eight<T>       a[UNITS], b[UNITS];

    let_successor_start();
    wait_for_predecessor();
#pragma unroll
    for (int k = 0; k < UNITS; k++) {
        const unsigned g = first + k * THREADS, line = g / units, at = (g - line * units) * UNIT;
        if (g >= all)
            continue;
        a[k] = load_eight(line_at<T>(l, 0, line) + at, l.n - at, l.aligned);
        b[k] = load_eight(line_at<T>(l, 1, line) + at, l.n - at, l.aligned);
    }
#pragma unroll
    for (int k = 0; k < UNITS; k++) {
        const unsigned g = first + k * THREADS, line = g / units, at = (g - line * units) * UNIT;
        if (g >= all)
            continue;
        float y[UNIT];
#pragma unroll
        for (int i = 0; i < UNIT; i++) {
            const float u = to_float(a[k].at[i]), v = to_float(b[k].at[i]);
            y[i] = multiply ? u * v : u + v;
        }
        store_eight(line_at<T>(l, 2, line) + at, rounded(y, T()), l.n - at, l.aligned);
    }
}

int mi_cuda_unary(void *stream, MiCudaUnary f, float slope, MiTensor x, MiTensor y)
{
    const MiTensor *const t[] = { &x, &y };
    const Lines           l = lines_of(t, 2, true);
    const unsigned        units = units_of(&l), blocks = blocks_for(units * l.count, THREADS * UNITS);

    if (!blocks)
        return 0;
    return by_dtype(x.dtype, [&](auto zero) {
        return mi_launch(unary<decltype(zero)>, blocks, THREADS, 0, stream, l, (int)f, slope, units);
    });
}

int mi_cuda_binary(void *stream, MiCudaBinary f, MiTensor a, MiTensor b, MiTensor y)
{
    const MiTensor *const t[] = { &a, &b, &y };
    const Lines           l = lines_of(t, 3, true);
    const unsigned        units = units_of(&l), blocks = blocks_for(units * l.count, THREADS * UNITS);

    if (!blocks)
        return 0;
    return by_dtype(a.dtype, [&](auto zero) {
        return mi_launch(binary<decltype(zero)>, blocks, THREADS, 0, stream, l, f == MI_CUDA_MUL, units);
    });
}
