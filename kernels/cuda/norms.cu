/* norms.cu - rmsnorm, layernorm and softmax over the last dimension.
 *
 * A line belongs to a team: one warp to 1024 elements, which needs no barrier,
 * else a block of up to 16 warps.  A thread keeps up to 32 elements in registers, so
 * that a line is read once up to 16384; longer ones are read again for each pass. */
#include "lines.cuh"
#include "ops.h"

enum { KEEP = 4, WARPS_MAX = 16, BLOCK = 256 };

struct Norm {
    Lines        lines; /* x, y */
    const float *weight, *bias;
    float        eps, offset;
    int          team; /* threads: 32, or the block's */
};

template <typename T> struct Line {
    T       *x;
    int64_t  n, first; /* first: of this thread in a chunk */
    int      team, chunks;
    bool     aligned;
    Eight<T> kept[KEEP];

    __device__ __forceinline__ int64_t at(int chunk, int k) const
    {
        return first + ((int64_t)chunk * KEEP + k) * team * UNIT;
    }
    __device__ __forceinline__ void load(int chunk)
    {
#pragma unroll
        for (int k = 0; k < KEEP; k++)
            if (at(chunk, k) < n)
                kept[k] = load_eight(x + at(chunk, k), n - at(chunk, k), aligned);
    }
    /* f(value) of this thread's elements, in order; loaded again where they are not all kept. */
    template <typename F> __device__ __forceinline__ void each(F f)
    {
        for (int c = 0; c < chunks; c++) {
            if (chunks > 1)
                load(c);
#pragma unroll
            for (int k = 0; k < KEEP; k++)
#pragma unroll
                for (int i = 0; i < UNIT; i++)
                    if (at(c, k) + i < n)
                        f(to_float(kept[k].at[i]));
        }
    }
};

__device__ __forceinline__ float team_sum(float v, int team, float *shared)
{
    return team == 32 ? warp_sum(v) : block_sum(v, shared);
}

/* What makes y of x: y = (x - shift) scale, or e^(x - shift) scale. */
template <typename T, int KIND>
__device__ __forceinline__ void measure(Line<T> &line, const Norm &a, float *shared, float *shift, float *scale)
{
    const float n = (float)line.n;
    float       sum = 0, mean = 0, max = -INFINITY;

    if (KIND == MI_CUDA_SOFTMAX) {
        line.each([&](float v) { max = fmaxf(max, v); });
        max = line.team == 32 ? warp_max(max) : block_max(max, shared);
        line.each([&](float v) { sum += expf(v - max); });
        *shift = max, *scale = 1.0f / team_sum(sum, line.team, shared);
        return;
    }
    if (KIND == MI_CUDA_LAYERNORM) {
        line.each([&](float v) { sum += v; });
        mean = team_sum(sum, line.team, shared) / n;
        sum = 0;
    }
    line.each([&](float v) { sum += (v - mean) * (v - mean); });
    *shift = mean, *scale = 1.0f / sqrtf(team_sum(sum, line.team, shared) / n + a.eps);
}

/* Eight elements at `at` of a line. */
template <typename T, int KIND>
__device__ __forceinline__ void scale_eight(Eight<T> &x, const Norm &a, int64_t at, float shift, float scale)
{
    const int64_t left = a.lines.n - at;
    Eight<float>  w = {}, b = {};

    if (KIND != MI_CUDA_SOFTMAX)
        w = load_eight(a.weight + at, left, a.lines.aligned);
    if (KIND == MI_CUDA_LAYERNORM && a.bias)
        b = load_eight(a.bias + at, left, a.lines.aligned);
#pragma unroll
    for (int i = 0; i < UNIT; i++) {
        const float v = to_float(x.at[i]) - shift;
        x.at[i] = from_float<T>(KIND == MI_CUDA_SOFTMAX ? expf(v) * scale : v * scale * (a.offset + w.at[i]) + b.at[i]);
    }
}

template <typename T, int KIND> __global__ void __launch_bounds__(WARPS_MAX * 32) norm(const Norm a)
{
    __shared__ float shared[32];
    const unsigned   index = blockIdx.x * (blockDim.x / a.team) + threadIdx.x / a.team;
    Line<T>          line;
    float            shift, scale;

    let_successor_start();
    line.n = a.lines.n;
    line.first = (int64_t)(threadIdx.x % a.team) * UNIT;
    line.team = a.team;
    line.chunks = (int)((line.n + KEEP * UNIT * a.team - 1) / (KEEP * UNIT * a.team));
    line.aligned = a.lines.aligned;
    if (KIND != MI_CUDA_SOFTMAX) /* on its way while the predecessor ends */
        for (int k = 0; k < KEEP; k++)
            if (line.at(0, k) < line.n)
                asm volatile("prefetch.global.L2 [%0];" ::"l"(a.weight + line.at(0, k)));
    wait_for_predecessor();
    if (index >= a.lines.count)
        return;
    line.x = line_at<T>(a.lines, 0, index);
    T *y = line_at<T>(a.lines, 1, index);
    line.load(0);
    measure<T, KIND>(line, a, shared, &shift, &scale);
    for (int c = 0; c < line.chunks; c++) {
        if (line.chunks > 1)
            line.load(c);
#pragma unroll
        for (int k = 0; k < KEEP; k++) {
            const int64_t at = line.at(c, k);
            if (at >= line.n)
                continue;
            scale_eight<T, KIND>(line.kept[k], a, at, shift, scale);
            store_eight(y + at, line.kept[k], line.n - at, line.aligned);
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

int mi_cuda_norm(void *stream, MiCudaNorm kind, MiTensor x, const float *weight, const float *bias, float eps, float offset,
                 MiTensor y)
{
    const MiTensor *const t[] = { &x, &y };
    Norm                  a = { lines_of(t, 2, false), weight, bias, eps, offset, 32 };
    const unsigned        warps = blocks_for(units_of(&a.lines), 32 * KEEP);
    unsigned              threads = BLOCK;

    if (!a.lines.count || !a.lines.n)
        return 0;
    a.lines.aligned = a.lines.aligned && ((uintptr_t)weight | (uintptr_t)bias) % 16 == 0;
    if (warps > 1)
        a.team = (int)(threads = 32 * (warps < WARPS_MAX ? warps : WARPS_MAX));
    else if (a.lines.count < BLOCK / 32)
        threads = 32 * a.lines.count;
    const unsigned blocks = blocks_for(a.lines.count, threads / (unsigned)a.team);
    return by_dtype(x.dtype, [&](auto zero) { return launch<decltype(zero)>(stream, kind, a, blocks, threads); });
}
