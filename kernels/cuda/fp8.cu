/* fp8.cu - see fp8.h. */
#include "fp8.h"
#include "lines.cuh"
#include "scaled.cuh"

namespace
{

constexpr int LARGEST = 448, THREADS = 256;

__device__ __forceinline__ float larger(float a, float b) { return b > a || isnan(b) ? b : a; } /* no number stays none */

__device__ __forceinline__ float largest_of_block(float v, float *shared)
{
#pragma unroll
    for (int o = 16; o; o >>= 1)
        v = larger(v, __shfl_xor_sync(~0u, v, o));
    if (threadIdx.x % 32 == 0)
        shared[threadIdx.x / 32] = v;
    __syncthreads();
    v = shared[0];
    for (int i = 1; i < (int)blockDim.x / 32; i++)
        v = larger(v, shared[i]);
    return v;
}

/* ---- rows to codes ------------------------------------------------------------------ */

enum Of { AS_IT_IS, NORMED, GATED };
constexpr int KEEP = 5; /* eights of a row that a thread has in registers */

struct Source {
    const void  *x;
    int64_t      stride;
    int          n;
    const float *gain;
    float        eps, offset;
    const float *largest; /* of each row; NULL: it is looked for */
    float       *zeros;   /* of each row, for whoever comes later; NULL: none */
};

/* Eight elements of a row; of NORMED before they are multiplied by 1 / rms. */
template <typename T, int OF> struct Row {
    const Source &a;
    const T      *x;

    __device__ __forceinline__ void load(int at, float *v) const
    {
        const Eight<T> e = load_eight(x + at, 8, true);
#pragma unroll
        for (int k = 0; k < 8; k++)
            v[k] = to_float(e.at[k]);
        if (OF == GATED) {
            const Eight<T> u = load_eight(x + a.n + at, 8, true);
#pragma unroll
            for (int k = 0; k < 8; k++) /* rounded as the separate operations are */
                v[k] = to_float(from_float<T>(to_float(from_float<T>(__fdividef(v[k], 1 + __expf(-v[k])))) * to_float(u.at[k])));
        }
    }
    __device__ __forceinline__ void scale(int at, float *v) const
    {
        if (OF != NORMED)
            return;
        const Eight<float> g = load_eight(a.gain + at, 8, true);
#pragma unroll
        for (int k = 0; k < 8; k++)
            v[k] *= a.offset + g.at[k];
    }
};

/* A block a row; given: of the scales, which are there already; codes NULL: the scales only, 0 of nothing. */
template <typename T, int OF>
__global__ void __launch_bounds__(512) quantise(const Source a, uint8_t *codes, float *scales, bool given)
{
    __shared__ float   shared[2][32];
    const int64_t      row = blockIdx.x;
    const int          step = blockDim.x * 8, first = threadIdx.x * 8;
    const Row<T, OF>   r = {a, (const T *)a.x + row * a.stride};
    float              v[KEEP][8], most = 0, squares = 0;

    let_successor_start();
    wait_for_predecessor();
    auto look = [&](int at, float *of) {
        r.load(at, of);
#pragma unroll
        for (int k = 0; k < 8; k++)
            squares = fmaf(of[k], of[k], squares);
        r.scale(at, of);
#pragma unroll
        for (int k = 0; k < 8; k++)
            most = larger(most, fabsf(of[k]));
    };
#pragma unroll
    for (int i = 0; i < KEEP; i++)
        if (first + i * step < a.n)
            look(first + i * step, v[i]);
    for (int at = first + KEEP * step; at < a.n; at += step) {
        float more[8];
        look(at, more);
    }
    float scale, by;
    if (given) {
        scale = scales[row];
        by = __fdiv_rn(1, scale);
    } else {
        most = a.largest ? __ldcg(a.largest + row) : largest_of_block(most, shared[0]);
        const float norm = OF == NORMED ? rsqrtf(block_sum(squares, shared[1]) / a.n + a.eps) : 1;
        most *= norm;
        scale = most < 0x1p-100f && codes ? 1 : __fdiv_rn(most, LARGEST);
        by = __fdiv_rn(1, scale) * norm;
        if (threadIdx.x == 0)
            scales[row] = scale;
        if (threadIdx.x == 0 && a.zeros)
            a.zeros[row] = 0;
        if (!codes)
            return;
    }
    auto write = [&](int at, const float *of) {
        uint8_t c[8];
#pragma unroll
        for (int k = 0; k < 8; k++)
            c[k] = code_of(of[k] * by, true);
        *(uint2 *)(codes + row * a.n + at) = *(const uint2 *)c;
    };
#pragma unroll
    for (int i = 0; i < KEEP; i++)
        if (first + i * step < a.n)
            write(first + i * step, v[i]);
    for (int at = first + KEEP * step; at < a.n; at += step) {
        float more[8];
        r.load(at, more);
        r.scale(at, more);
        write(at, more);
    }
}

template <int OF> int rows_to_codes(void *stream, const MiTensor &x, Source a, uint8_t *codes, float *scales, bool given)
{
    a.x = x.data, a.stride = x.stride[0], a.n = (int)(OF == GATED ? x.shape[1] / 2 : x.shape[1]);
    if (x.ndim != 2 || x.shape[1] > INT32_MAX || a.n % 16 || !aligned_tensor(&x) || ((uintptr_t)codes | (uintptr_t)a.gain) % 16)
        return cudaErrorNotSupported;
    if (!x.shape[0])
        return 0;
    const int eights = a.n / 8, each = eights <= 1024 ? 2 : KEEP, threads = ((eights + each - 1) / each + 31) / 32 * 32;
    return by_dtype(x.dtype, [&](auto zero) {
        return mi_launch(quantise<decltype(zero), OF>, dim3((unsigned)x.shape[0]), dim3(threads < 512 ? threads : 512), 0, stream, a,
                         codes, scales, given);
    });
}

/* ---- what a stored matrix is ----------------------------------------------------------- */

/* By one block. */
__global__ void __launch_bounds__(THREADS) even(float *scales, int64_t rows)
{
    __shared__ float shared[32];
    float            most = 0;

    for (int64_t i = threadIdx.x; i < rows; i += THREADS)
        most = larger(most, scales[i]);
    most = largest_of_block(most, shared);
    for (int64_t i = threadIdx.x; i < rows; i += THREADS)
        scales[i] = most < 0x1p-100f ? 1 : most;
}

/* A block a row. */
__global__ void __launch_bounds__(THREADS) check(const uint8_t *codes, int64_t n, int block, int64_t across, float *scales)
{
    const int64_t row = blockIdx.x;

    for (int64_t i = threadIdx.x * 4; i < n; i += THREADS * 4) {
        const unsigned four = *(const unsigned *)(codes + row * n + i) & 0x7f7f7f7fu;
        if ((four + 0x01010101u) & 0x80808080u)
            scales[row / block * across + (block > 1 ? i / block : 0)] = __int_as_float(0x7fc00000);
    }
}

/* Eight elements a thread. */
template <typename T>
__global__ void __launch_bounds__(THREADS) plain(const uint8_t *codes, const float *scales, int block, int64_t eights, int n, T *dst)
{
    const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;

    let_successor_start();
    wait_for_predecessor();
    if (i >= eights)
        return;
    const int      per_row = n / 8, row = (int)(i / per_row), column = (int)(i % per_row) * 8;
    const float    scale = scales[block > 1 ? row / block * ((n + block - 1) / block) + column / block : row];
    const uint2    c = ((const uint2 *)codes)[i];
    const uint8_t *code = (const uint8_t *)&c;
    Eight<T>       y;
#pragma unroll
    for (int k = 0; k < 8; k++)
        y.at[k] = from_float<T>(number(F8{code[k]}) * scale);
    *(Eight<T> *)(dst + i * 8) = y;
}

} // namespace

extern "C" int mi_cuda_fp8_rows(void *stream, MiTensor x, uint8_t *codes, float *scales)
{
    return rows_to_codes<AS_IT_IS>(stream, x, Source(), codes, scales, false);
}

extern "C" int mi_cuda_fp8_norm_rows(void *stream, MiTensor x, const float *gain, float eps, float offset, uint8_t *codes,
                                     float *scales, float *zeros)
{
    Source a = {};

    a.gain = gain, a.eps = eps, a.offset = offset, a.zeros = zeros;
    return rows_to_codes<NORMED>(stream, x, a, codes, scales, false);
}

extern "C" int mi_cuda_fp8_rows_within(void *stream, MiTensor x, uint8_t *codes, float *scales, const float *largest)
{
    Source a = {};

    a.largest = largest;
    return rows_to_codes<AS_IT_IS>(stream, x, a, codes, scales, false);
}

extern "C" int mi_cuda_fp8_gated_rows(void *stream, MiTensor x, uint8_t *codes, float *scales)
{
    return rows_to_codes<GATED>(stream, x, Source(), codes, scales, false);
}

extern "C" int mi_cuda_fp8_measure(void *stream, MiTensor x, float *scales)
{
    return rows_to_codes<AS_IT_IS>(stream, x, Source(), NULL, scales, false);
}

extern "C" int mi_cuda_fp8_rows_by(void *stream, MiTensor x, uint8_t *codes, const float *scales)
{
    return rows_to_codes<AS_IT_IS>(stream, x, Source(), codes, (float *)scales, true);
}

extern "C" int mi_cuda_fp8_even(void *stream, float *scales, int64_t n)
{
    even<<<1, THREADS, 0, (cudaStream_t)stream>>>(scales, n);
    return cudaGetLastError();
}

extern "C" int mi_cuda_fp8_check(void *stream, const uint8_t *codes, int64_t rows, int64_t n, int block, float *scales)
{
    if (rows < 1 || rows > INT32_MAX || n % 16)
        return cudaErrorInvalidValue;
    check<<<(unsigned)rows, THREADS, 0, (cudaStream_t)stream>>>(codes, n, block, block > 1 ? (n + block - 1) / block : 1, scales);
    return cudaGetLastError();
}

extern "C" int mi_cuda_fp8_plain(void *stream, const uint8_t *codes, const float *scales, int block, int64_t first,
                                 int64_t rows, int64_t n, void *dst, MiDType dtype)
{
    const int64_t eights = rows * (n / 8), across = block > 1 ? (n + block - 1) / block : 1;

    if (first % block || n % 16 || eights / THREADS >= INT32_MAX)
        return cudaErrorInvalidValue;
    if (!eights)
        return 0;
    return by_dtype(dtype, [&](auto zero) {
        using T = decltype(zero);
        return mi_launch(plain<T>, dim3((unsigned)((eights + THREADS - 1) / THREADS)), dim3(THREADS), 0, stream, codes + first * n,
                         scales + first / block * across, block, eights, (int)n, (T *)dst);
    });
}
