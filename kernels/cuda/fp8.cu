/* fp8.cu - see fp8.h. */
#include "fp8.h"
#include "lines.cuh"
#include "scaled.cuh"

#include <type_traits>

namespace
{

constexpr int LARGEST = 448, THREADS = 256;

__device__ __forceinline__ float largest_of_block(float v, float *shared)
{
    v = largest_of_warp(v);
    if (threadIdx.x % 32 == 0)
        shared[threadIdx.x / 32] = v;
    __syncthreads();
    v = shared[0];
    for (int i = 1; i < (int)blockDim.x / 32; i++)
        v = larger_of(v, shared[i]);
    return v;
}

/* ---- rows to codes ------------------------------------------------------------------ */

enum Of { AS_IT_IS, NORMED, GATED };

struct Source {
    const void  *x;
    int64_t      stride;
    int          rows, n;
    const float *gain;
    float        eps, offset;
    float       *zeros; /* of each row, for whoever comes later; NULL: none */
};

/* Eight elements as they are read: in words, which the compiler leaves whole until they are needed. */
template <typename T> struct alignas(16) Raw {
    unsigned word[2 * sizeof(T)];

    __device__ __forceinline__ float number(int k) const
    {
        if constexpr (sizeof(T) == 4)
            return __uint_as_float(word[k]);
        else if constexpr (std::is_same_v<T, bf16>)
            return __uint_as_float(k % 2 ? word[k / 2] & 0xffff0000u : word[k / 2] << 16);
        else
            return k % 2 ? __high2float(*(const __half2 *)&word[k / 2]) : __low2float(*(const __half2 *)&word[k / 2]);
    }
    /* Else their numbers would stay in registers from one use to the next. */
    __device__ __forceinline__ void forget()
    {
#pragma unroll
        for (int k = 0; k < (int)(2 * sizeof(T)); k++)
            asm volatile("" : "+r"(word[k]));
    }
};

/* Eight elements of a row; of NORMED before they are multiplied by 1 / rms. */
template <typename T, int OF> struct Row {
    const Source &a;
    const T      *x;

    __device__ __forceinline__ Raw<T> raw(int at) const { return *(const Raw<T> *)(x + at); }
    __device__ __forceinline__ void   widen(const Raw<T> &e, int at, float *v) const
    {
#pragma unroll
        for (int k = 0; k < 8; k++)
            v[k] = e.number(k);
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
    /* What of eight elements a row's scale depends on; of is left scaled. */
    __device__ __forceinline__ void look(const Raw<T> &e, int at, float *of, float &squares, float &most) const
    {
        widen(e, at, of);
#pragma unroll
        for (int k = 0; k < 8; k++)
            squares = fmaf(of[k], of[k], squares);
        scale(at, of);
#pragma unroll
        for (int k = 0; k < 8; k++)
            most = larger_of(most, fabsf(of[k]));
    }
};

__device__ __forceinline__ float scale_within(float most) { return most < 0x1p-100f ? 1 : __fdiv_rn(most, LARGEST); }

__device__ __forceinline__ void write_codes(uint8_t *to, const float *v, float by) { *(uint2 *)to = eight_codes(v, by, true); }

/* A warp a row of up to EIGHTS times 256 elements, which stay as they were read: nobody waits at a barrier, and a multiprocessor has
 * 100 KB under way.  What a product has left goes from its last row to its first: the last rows are still in the second-level cache, and
 * the first ones will be when the next product begins. */
constexpr int ROW_WARPS = 8, MANY_ROWS = 1024; /* warps of a block; 1 of fewer rows, so that they are on as many multiprocessors */
template <typename T, int OF, int EIGHTS>
__global__ void __launch_bounds__(ROW_WARPS * 32, EIGHTS > 8 ? 2 : 4) short_rows(const Source a, uint8_t *codes, float *scales)
{
    const int lane = threadIdx.x % 32, at_row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, row = OF == NORMED ? a.rows - 1 - at_row : at_row;
    Raw<T>    x[EIGHTS];
    float     most = 0, squares = 0;

    let_successor_start();
    wait_for_predecessor();
    if (at_row >= a.rows)
        return;
    const Row<T, OF> r = {a, (const T *)a.x + row * a.stride};
#pragma unroll
    for (int i = 0; i < EIGHTS; i++)
        if ((i * 32 + lane) * 8 < a.n)
            x[i] = r.raw((i * 32 + lane) * 8);
#pragma unroll
    for (int i = 0; i < EIGHTS; i++) {
        float v[8];
        if ((i * 32 + lane) * 8 < a.n)
            r.look(x[i], (i * 32 + lane) * 8, v, squares, most);
    }
    most = largest_of_warp(most);
    const float norm = OF == NORMED ? rsqrtf(warp_sum(squares) / a.n + a.eps) : 1, scale = scale_within(most * norm);
    if (lane == 0)
        scales[row] = scale;
    if (lane == 0 && a.zeros)
        a.zeros[row] = 0;
#pragma unroll
    for (int i = 0; i < EIGHTS; i++) {
        const int at = (i * 32 + lane) * 8;
        float     v[8];
        if (at < a.n) {
            x[i].forget();
            r.widen(x[i], at, v), r.scale(at, v);
            write_codes(codes + (int64_t)row * a.n + at, v, __fdiv_rn(1, scale) * norm);
        }
    }
}

/* A block a row; codes NULL: the scales only, 0 of nothing. */
constexpr int KEEP = 5; /* eights of a row that a thread has in registers */
template <typename T, int OF>
__global__ void __launch_bounds__(512) quantise(const Source a, uint8_t *codes, float *scales)
{
    __shared__ float   shared[2][32];
    const int64_t      row = blockIdx.x;
    const int          step = blockDim.x * 8, first = threadIdx.x * 8;
    const Row<T, OF>   r = {a, (const T *)a.x + row * a.stride};
    float              v[KEEP][8], most = 0, squares = 0;

    let_successor_start();
    wait_for_predecessor();
#pragma unroll
    for (int i = 0; i < KEEP; i++)
        if (first + i * step < a.n)
            r.look(r.raw(first + i * step), first + i * step, v[i], squares, most);
    for (int at = first + KEEP * step; at < a.n; at += step) {
        float more[8];
        r.look(r.raw(at), at, more, squares, most);
    }
    most = largest_of_block(most, shared[0]);
    const float norm = OF == NORMED ? rsqrtf(block_sum(squares, shared[1]) / a.n + a.eps) : 1;
    const float scale = codes ? scale_within(most * norm) : __fdiv_rn(most * norm, LARGEST), by = __fdiv_rn(1, scale) * norm;
    if (threadIdx.x == 0)
        scales[row] = scale;
    if (threadIdx.x == 0 && a.zeros)
        a.zeros[row] = 0;
    if (!codes)
        return;
#pragma unroll
    for (int i = 0; i < KEEP; i++)
        if (first + i * step < a.n)
            write_codes(codes + row * a.n + first + i * step, v[i], by);
    for (int at = first + KEEP * step; at < a.n; at += step) {
        float more[8];
        r.widen(r.raw(at), at, more), r.scale(at, more);
        write_codes(codes + row * a.n + at, more, by);
    }
}

/* A block a row, the last row first, whose scale is known, or what it follows from: nothing to wait for but memory.  largest NULL: the
 * scales are there. */
template <typename T>
__global__ void __launch_bounds__(THREADS, 6) known(const Source a, uint8_t *codes, float *scales, const float *largest)
{
    constexpr int          AT_ONCE = 4, STEP = THREADS * 8;
    const int64_t          row = a.rows - 1 - (int)blockIdx.x;
    const Row<T, AS_IT_IS> r = {a, (const T *)a.x + row * a.stride};

    let_successor_start();
    wait_for_predecessor();
    const float scale = largest ? scale_within(__ldcg(largest + row)) : scales[row], by = __fdiv_rn(1, scale);
    if (threadIdx.x == 0 && largest)
        scales[row] = scale;
    for (int at = threadIdx.x * 8; at < a.n; at += AT_ONCE * STEP) {
        Raw<T> x[AT_ONCE];
        float  v[8];
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++)
            if (at + i * STEP < a.n)
                x[i] = r.raw(at + i * STEP);
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++)
            if (at + i * STEP < a.n) {
                r.widen(x[i], at + i * STEP, v);
                write_codes(codes + row * a.n + at + i * STEP, v, by);
            }
    }
}

bool describe(Source &a, const MiTensor &x, int of, const uint8_t *codes)
{
    a.x = x.data, a.stride = x.stride[0], a.rows = (int)x.shape[0], a.n = (int)(of == GATED ? x.shape[1] / 2 : x.shape[1]);
    return x.ndim == 2 && x.shape[0] <= INT32_MAX && x.shape[1] <= INT32_MAX && a.n % 16 == 0 && aligned_tensor(&x) &&
           ((uintptr_t)codes | (uintptr_t)a.gain) % 16 == 0;
}

template <int OF> int rows_to_codes(void *stream, const MiTensor &x, Source a, uint8_t *codes, float *scales)
{
    if (!describe(a, x, OF, codes))
        return cudaErrorNotSupported;
    if (!a.rows)
        return 0;
    const int eights = a.n / 8, each = eights <= 1024 ? 2 : KEEP, threads = ((eights + each - 1) / each + 31) / 32 * 32;
    return by_dtype(x.dtype, [&](auto zero) {
        using T = decltype(zero);
        if constexpr (OF != GATED && sizeof(T) == 2) {
            const auto kernel = eights <= 4 * 32 ? short_rows<T, OF, 4> : eights <= 8 * 32 ? short_rows<T, OF, 8> : short_rows<T, OF, 16>;
            const int  warps = a.rows < MANY_ROWS ? 1 : ROW_WARPS;
            if (codes && eights <= 16 * 32)
                return mi_launch(kernel, dim3((a.rows + warps - 1) / warps), dim3(warps * 32), 0, stream, a, codes, scales);
        }
        return mi_launch(quantise<T, OF>, dim3(a.rows), dim3(threads < 512 ? threads : 512), 0, stream, a, codes, scales);
    });
}

int rows_known(void *stream, const MiTensor &x, uint8_t *codes, float *scales, const float *largest)
{
    Source a = {};

    if (!describe(a, x, AS_IT_IS, codes))
        return cudaErrorNotSupported;
    if (!a.rows)
        return 0;
    return by_dtype(x.dtype, [&](auto zero) {
        return mi_launch(known<decltype(zero)>, dim3(a.rows), dim3(THREADS), 0, stream, a, codes, scales, largest);
    });
}

/* ---- what a stored matrix is ----------------------------------------------------------- */

/* By one block. */
__global__ void __launch_bounds__(THREADS) even(float *scales, int64_t rows)
{
    __shared__ float shared[32];
    float            most = 0;

    for (int64_t i = threadIdx.x; i < rows; i += THREADS)
        most = larger_of(most, scales[i]);
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
    return rows_to_codes<AS_IT_IS>(stream, x, Source(), codes, scales);
}

extern "C" int mi_cuda_fp8_norm_rows(void *stream, MiTensor x, const float *gain, float eps, float offset, uint8_t *codes,
                                     float *scales, float *zeros)
{
    Source a = {};

    a.gain = gain, a.eps = eps, a.offset = offset, a.zeros = zeros;
    return rows_to_codes<NORMED>(stream, x, a, codes, scales);
}

extern "C" int mi_cuda_fp8_rows_within(void *stream, MiTensor x, uint8_t *codes, float *scales, const float *largest)
{
    return rows_known(stream, x, codes, scales, largest);
}

extern "C" int mi_cuda_fp8_gated_rows(void *stream, MiTensor x, uint8_t *codes, float *scales)
{
    return rows_to_codes<GATED>(stream, x, Source(), codes, scales);
}

extern "C" int mi_cuda_fp8_measure(void *stream, MiTensor x, float *scales)
{
    return rows_to_codes<AS_IT_IS>(stream, x, Source(), NULL, scales);
}

extern "C" int mi_cuda_fp8_rows_by(void *stream, MiTensor x, uint8_t *codes, const float *scales)
{
    return rows_known(stream, x, codes, (float *)scales, NULL);
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
