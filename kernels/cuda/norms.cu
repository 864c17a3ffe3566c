/* norms.cu - rmsnorm, layernorm and softmax over the last dimension.
 *
 * A line belongs to a team: one warp to 1024 elements, which needs no barrier, else a
 * block of up to 16 warps.  A thread has up to 32 elements of its line in registers, so
 * that it is read once up to 16384 elements; longer ones are read again for each pass.
 * Many small blocks hide the reductions better than few that prefetch their next line
 * (H200, 8192 x 3584: 46 against 62 us). */
#include "lines.cuh"
#include "ops.h"

enum { KEEP = 4, WARPS_MAX = 16, BLOCK = 128 };

struct Norm {
    Lines        lines; /* x, y */
    const float *weight, *bias;
    float        eps, offset;
    int          team; /* threads: 32, or the block's */
};

/* What one thread holds of a line. */
template <typename T> struct Part {
    Eight<T> at[KEEP];
};

/* Where: unit k of chunk c of this thread. */
struct Place {
    int n, first, step, chunks; /* step: elements between a thread's units */
    bool aligned;

    __device__ __forceinline__ int at(int chunk, int k) const { return first + (chunk * KEEP + k) * step; }
    template <typename T> __device__ __forceinline__ void load(Part<T> &p, const T *x, int chunk) const
    {
#pragma unroll
        for (int k = 0; k < KEEP; k++) {
            const int i = at(chunk, k);
            p.at[k] = {};
            if (i < n)
                p.at[k] = load_eight(x + i, n - i, aligned);
        }
    }
    /* f(value) of this thread's elements, in order; read again where they are not all kept. */
    template <typename T, typename F> __device__ __forceinline__ void each(Part<T> &p, const T *x, F f) const
    {
        for (int c = 0; c < chunks; c++) {
            if (chunks > 1)
                load(p, x, c);
#pragma unroll
            for (int k = 0; k < KEEP; k++) {
                const int left = n - at(c, k);
                if (left >= UNIT) {
#pragma unroll
                    for (int i = 0; i < UNIT; i++)
                        f(to_float(p.at[k].at[i]));
                } else if (left > 0) {
#pragma unroll
                    for (int i = 0; i < UNIT; i++)
                        if (i < left)
                            f(to_float(p.at[k].at[i]));
                }
            }
        }
    }
};

__device__ __forceinline__ float team_sum(float v, int team, float *shared)
{
    return team == 32 ? warp_sum(v) : block_sum(v, shared);
}

/* What makes y of x: y = (x - shift) scale, or e^(x - shift) scale. */
template <typename T, int KIND>
__device__ __forceinline__ void measure(const Place &at, Part<T> &p, const T *x, const Norm &a, float *shared,
                                        float *shift, float *scale)
{
    const float n = (float)at.n;
    float       sum = 0, mean = 0, max = -INFINITY;

    if (KIND == MI_CUDA_SOFTMAX) {
        at.each(p, x, [&](float v) { max = fmaxf(max, v); });
        max = a.team == 32 ? warp_max(max) : block_max(max, shared);
        at.each(p, x, [&](float v) { sum += exponential<T>(v - max); });
        *shift = max, *scale = 1.0f / team_sum(sum, a.team, shared);
        return;
    }
    if (KIND == MI_CUDA_LAYERNORM) {
        at.each(p, x, [&](float v) { sum += v; });
        mean = team_sum(sum, a.team, shared) / n;
        sum = 0;
    }
    at.each(p, x, [&](float v) { sum += (v - mean) * (v - mean); });
    *shift = mean, *scale = 1.0f / sqrtf(team_sum(sum, a.team, shared) / n + a.eps);
}

template <typename T, int KIND>
__device__ __forceinline__ Eight<T> scaled(const Eight<T> &x, const Norm &a, int at, int left, float shift, float scale)
{
    float        y[UNIT];
    Eight<float> w = {}, b = {};

    if (KIND != MI_CUDA_SOFTMAX)
        w = load_eight(a.weight + at, left, a.lines.aligned);
    if (KIND == MI_CUDA_LAYERNORM && a.bias)
        b = load_eight(a.bias + at, left, a.lines.aligned);
#pragma unroll
    for (int i = 0; i < UNIT; i++) {
        const float v = to_float(x.at[i]);
        y[i] = KIND == MI_CUDA_SOFTMAX   ? exponential<T>(v - shift) * scale
               : KIND == MI_CUDA_RMSNORM ? v * scale * (a.offset + w.at[i])
                                         : (v - shift) * scale * (a.offset + w.at[i]) + b.at[i];
    }
    return rounded(y, T());
}

template <typename T, int KIND> __global__ void __launch_bounds__(WARPS_MAX * 32) norm(const Norm a)
{
    __shared__ float shared[32];
    const unsigned   index = blockIdx.x * (blockDim.x / a.team) + threadIdx.x / a.team;
    const int        n = (int)a.lines.n, first = (int)(threadIdx.x % a.team) * UNIT, step = a.team * UNIT;
    const Place      at = { n, first, step, (n + KEEP * step - 1) / (KEEP * step), a.lines.aligned };
    Part<T>          part;
    float            shift, scale;

    let_successor_start();
    if (KIND != MI_CUDA_SOFTMAX && blockIdx.x == 0) /* the weights are on their way while the predecessor ends */
        for (int k = 0; k < KEEP; k++)
            if (at.at(0, k) < n)
                asm volatile("prefetch.global.L2 [%0];" ::"l"(a.weight + at.at(0, k)));
    wait_for_predecessor();
    if (index >= a.lines.count)
        return;
    const T *x = line_at<T>(a.lines, 0, index);
    T       *y = line_at<T>(a.lines, 1, index);
    at.load(part, x, 0);
    measure<T, KIND>(at, part, x, a, shared, &shift, &scale);
    for (int c = 0; c < at.chunks; c++) {
        if (at.chunks > 1)
            at.load(part, x, c);
#pragma unroll
        for (int k = 0; k < KEEP; k++) {
            const int i = at.at(c, k);
            if (i < n)
                store_eight(y + i, scaled<T, KIND>(part.at[k], a, i, n - i, shift, scale), n - i, at.aligned);
        }
    }
}

template <typename T> static int launch(void *stream, MiCudaNorm kind, const Norm &a, unsigned blocks, unsigned threads)
{
    switch (kind) {
    case MI_CUDA_RMSNORM: return mi_launch(norm<T, MI_CUDA_RMSNORM>, blocks, threads, 0, stream, a);
    case MI_CUDA_LAYERNORM: return mi_launch(norm<T, MI_CUDA_LAYERNORM>, blocks, threads, 0, stream, a);
    default: return mi_launch(norm<T, MI_CUDA_SOFTMAX>, blocks, threads, 0, stream, a);
    }
}

int mi_cuda_norm(void *stream, MiCudaNorm kind, MiTensor x, const float *weight, const float *bias, float eps,
                 float offset, MiTensor y)
{
    const MiTensor *const t[] = { &x, &y };
    Norm                  a = { lines_of(t, 2, false), weight, bias, eps, offset, 32 };
    const unsigned        warps = blocks_for(units_of(&a.lines), 32 * KEEP);
    unsigned              threads = BLOCK;

    if (!a.lines.count || !a.lines.n)
        return 0;
    if (a.lines.n > INT32_MAX / 2)
        return cudaErrorInvalidValue;
    a.lines.aligned = a.lines.aligned && ((uintptr_t)weight | (uintptr_t)bias) % 16 == 0;
    if (warps > 1)
        a.team = (int)(threads = 32 * (warps < WARPS_MAX ? warps : (unsigned)WARPS_MAX));
    else if (a.lines.count < BLOCK / 32)
        threads = 32 * a.lines.count;
    const unsigned blocks = blocks_for(a.lines.count, threads / (unsigned)a.team);
    return by_dtype(x.dtype, [&](auto zero) {
        return launch<decltype(zero)>(stream, kind, a, blocks, threads);
    });
}
