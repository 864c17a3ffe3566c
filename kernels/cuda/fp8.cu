/* fp8.cu - see fp8.h. */
#include "fp8.h"
#include "lines.cuh"
#include "scaled.cuh"

namespace
{

constexpr int THREADS = 256, WARPS = THREADS / 32, LARGEST = 448;

/* ---- rows to codes ------------------------------------------------------------------ */

__device__ __forceinline__ float larger(float a, float b) { return b > a || isnan(b) ? b : a; } /* no number stays none */

/* A block a row; given: of the scales, which are there already. */
template <typename T>
__global__ void __launch_bounds__(THREADS) quantise(const T *x, int64_t stride, int n, uint8_t *codes, float *scales, bool given)
{
    __shared__ float shared[32];
    const int64_t    row = blockIdx.x;
    const T         *from = x + row * stride;
    float            largest = 0, scale;

    let_successor_start();
    wait_for_predecessor();
    if (given) {
        scale = scales[row];
    } else {
        for (int i = threadIdx.x * 8; i < n; i += THREADS * 8) {
            const Eight<T> v = load_eight(from + i, 8, true);
#pragma unroll
            for (int k = 0; k < 8; k++)
                largest = larger(largest, fabsf(to_float(v.at[k])));
        }
#pragma unroll
        for (int o = 16; o; o >>= 1)
            largest = larger(largest, __shfl_xor_sync(~0u, largest, o));
        if (threadIdx.x % 32 == 0)
            shared[threadIdx.x / 32] = largest;
        __syncthreads();
        for (int i = 0; i < WARPS; i++)
            largest = larger(largest, shared[i]);
        scale = largest < 0x1p-100f ? 1 : __fdiv_rn(largest, LARGEST);
        if (threadIdx.x == 0)
            scales[row] = scale;
    }
    const float by = __fdiv_rn(1, scale);
    for (int i = threadIdx.x * 8; i < n; i += THREADS * 8) {
        const Eight<T> v = load_eight(from + i, 8, true);
        uint8_t        c[8];
#pragma unroll
        for (int k = 0; k < 8; k++)
            c[k] = code_of(to_float(v.at[k]) * by, true);
        *(uint2 *)(codes + row * n + i) = *(const uint2 *)c;
    }
}

/* By one block. */
__global__ void __launch_bounds__(THREADS) even(float *scales, int64_t rows)
{
    __shared__ float shared[32];
    float            largest = 0;

    let_successor_start();
    wait_for_predecessor();
    for (int64_t i = threadIdx.x; i < rows; i += THREADS)
        largest = larger(largest, scales[i]);
    largest = block_max(largest, shared);
    for (int64_t i = threadIdx.x; i < rows; i += THREADS)
        scales[i] = largest;
}

int rows_to_codes(void *stream, const MiTensor *x, uint8_t *codes, float *scales, bool given)
{
    if (x->shape[1] % 16 || !aligned_tensor(x) || (uintptr_t)codes % 16)
        return cudaErrorNotSupported;
    if (!x->shape[0])
        return 0;
    return by_dtype(x->dtype, [&](auto zero) {
        using T = decltype(zero);
        return mi_launch(quantise<T>, dim3((unsigned)x->shape[0]), THREADS, 0, stream, (const T *)x->data, x->stride[0],
                         (int)x->shape[1], codes, scales, given);
    });
}

/* ---- few rows ------------------------------------------------------------------------ */

constexpr int EACH = 16, OF_WARP = 2; /* columns of a load; rows of W that a warp has */

struct Few {
    const void    *x;
    const uint8_t *codes;
    const float   *scales, *bias;
    void          *y;
    int64_t        x_stride, y_stride;
    int            rows, in, out;
    bool           y_f32;
};

__device__ __forceinline__ void ahead(const void *p)
{
    asm volatile("prefetch.global.L2 [%0];" ::"l"(p));
}

/* M: rows of x.  Lanes share the columns, each takes 16 of every 512. */
template <typename T, int M> __global__ void __launch_bounds__(THREADS) few(const Few a)
{
    const int      lane = threadIdx.x % 32, first = (blockIdx.x * WARPS + threadIdx.x / 32) * OF_WARP;
    const int      n = min(OF_WARP, a.out - first);
    const uint8_t *w = a.codes + (int64_t)first * a.in;
    float          sum[OF_WARP][M] = {};

    let_successor_start();
    for (int64_t at = lane * 128; at < (int64_t)n * a.in; at += 32 * 128)
        ahead(w + at);
    wait_for_predecessor();
    if (n <= 0)
        return;
#pragma unroll 4
    for (int c = lane * EACH; c < a.in; c += 32 * EACH) {
        uint4 v[OF_WARP];
#pragma unroll
        for (int r = 0; r < OF_WARP; r++)
            v[r] = __ldcs((const uint4 *)(w + (int64_t)min(r, n - 1) * a.in + c));
        float x[M][EACH];
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const Eight<T> e = load_eight((const T *)a.x + min(m, a.rows - 1) * a.x_stride + c + h * 8, 8, true);
#pragma unroll
                for (int k = 0; k < 8; k++)
                    x[m][h * 8 + k] = to_float(e.at[k]);
            }
#pragma unroll
        for (int r = 0; r < OF_WARP; r++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                unsigned low, high;
                halves<F8>(((const unsigned *)&v[r])[i], low, high);
                const float2 p = __half22float2(*(const __half2 *)&low), q = __half22float2(*(const __half2 *)&high);
#pragma unroll
                for (int m = 0; m < M; m++) {
                    sum[r][m] = fmaf(p.x, x[m][4 * i], sum[r][m]);
                    sum[r][m] = fmaf(p.y, x[m][4 * i + 1], sum[r][m]);
                    sum[r][m] = fmaf(q.x, x[m][4 * i + 2], sum[r][m]);
                    sum[r][m] = fmaf(q.y, x[m][4 * i + 3], sum[r][m]);
                }
            }
    }
#pragma unroll
    for (int r = 0; r < OF_WARP; r++)
#pragma unroll
        for (int m = 0; m < M; m++) {
            const float s = warp_sum(sum[r][m]);
            if (lane != 0 || r >= n || m >= a.rows)
                continue;
            const float y = s * a.scales[first + r] + (a.bias ? a.bias[first + r] : 0);
            if (a.y_f32)
                ((float *)a.y)[m * a.y_stride + first + r] = y;
            else
                ((T *)a.y)[m * a.y_stride + first + r] = from_float<T>(y);
        }
}

template <typename T> int launch(void *stream, const Few &a)
{
    const dim3 grid((unsigned)((a.out + WARPS * OF_WARP - 1) / (WARPS * OF_WARP)));
    return a.rows == 1 ? mi_launch(few<T, 1>, grid, THREADS, 0, stream, a) : mi_launch(few<T, 4>, grid, THREADS, 0, stream, a);
}

} // namespace

extern "C" int mi_cuda_fp8_rows(void *stream, MiTensor x, uint8_t *codes, float *scales)
{
    return rows_to_codes(stream, &x, codes, scales, false);
}

extern "C" int mi_cuda_fp8_rows_by(void *stream, MiTensor x, uint8_t *codes, const float *scales)
{
    return rows_to_codes(stream, &x, codes, (float *)scales, true);
}

extern "C" int mi_cuda_fp8_even(void *stream, float *scales, int64_t n)
{
    return mi_launch(even, dim3(1), THREADS, 0, stream, scales, n);
}

extern "C" int mi_cuda_fp8_gemv(void *stream, MiTensor x, const uint8_t *codes, const float *scales, const float *bias, MiTensor y)
{
    Few a = {x.data, codes, scales, bias, y.data, x.stride[0], y.stride[0], (int)x.shape[0], (int)x.shape[1], (int)y.shape[1],
             y.dtype == MI_F32};

    if (x.shape[0] > MI_FP8_FEW_ROWS || x.shape[1] % EACH || !aligned_tensor(&x) || (y.dtype != MI_F32 && y.dtype != x.dtype))
        return cudaErrorNotSupported;
    if (!a.rows || !a.out)
        return 0;
    return x.dtype == MI_BF16  ? launch<bf16>(stream, a)
           : x.dtype == MI_F16 ? launch<__half>(stream, a)
                               : (int)cudaErrorNotSupported;
}
