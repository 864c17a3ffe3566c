/* gemv_ends.cuh - what the kernel of gemv.cuh does with its sums. */
#ifndef KERNELS_CUDA_GEMV_ENDS_CUH
#define KERNELS_CUDA_GEMV_ENDS_CUH

#include "gemv_parts.cuh"

namespace mi_gemv
{

#if __CUDA_ARCH__ >= 900

/* ---- the ends of rows --------------------------------------------------------------- */

/* What the end of a tile needs and no kernel writes: two biases, cosine and sine. */
template <int KIND> __device__ __forceinline__ float4 look_up(const Args &a, int unit, int m, bool two)
{
    float4 p = {0, 0, 1, 0};

    if (KIND == MI_GEMV_QKV) {
        const Pair   e = pair_of(a, unit);
        const float *bias = a.bias[e.part];
        if (bias) {
            p.x = bias[e.head * a.head_dim + e.first];
            p.y = bias[e.head * a.head_dim + e.second];
        }
        if (e.turns && m < a.rows) {
            const float2 t = turn_by(a.positions[m], a.freqs[a.interleaved ? e.first / 2 : e.first], a.magnitude);
            p.z = t.x;
            p.w = t.y;
        }
    } else if (!NORMED<KIND> && a.bias[0]) {
        p.x = a.bias[0][unit];
        p.y = two ? a.bias[0][unit + 1] : 0;
    }
    return p;
}

/* Which scales are those of a tile's two rows; per: rows that share one. */
struct Scales {
    const float *first, *second;
};

template <int KIND> __device__ __forceinline__ Scales scales_of(const Args &a, int unit, bool two, int per, int across)
{
    if (KIND == MI_GEMV_GATED)
        return {a.scales[0] + unit / per * across, a.scales[1] + unit / per * across};
    if (KIND == MI_GEMV_QKV) {
        const Pair   e = pair_of(a, unit);
        const int    row = e.head * a.head_dim;
        const float *s = a.scales[e.part];
        return {s + (row + e.first) / per * across, s + (row + e.second) / per * across};
    }
    return {a.scales[0] + unit / per * across, a.scales[0] + (unit + two) / per * across};
}

/* What sums of E4M3 are to be multiplied with. */
template <int W, int KIND> __device__ __forceinline__ float2 factors_of(const Args &a, int unit, bool two)
{
    if (W != OF_ROWS)
        return {W == AS_X ? 1 : SMALLER, W == AS_X ? 1 : SMALLER};
    const Scales s = scales_of<KIND>(a, unit, two, 1, 1);
    return {*s.first * SMALLER, *s.second * SMALLER};
}

/* Where the two elements of a pair go: offsets into q, or into k and v; below 0: nowhere. */
struct Target {
    void   *to;
    int64_t first, second;
    MiDType dtype;
};

template <typename T> __device__ __forceinline__ Target target_at(const Args &a, int tile, int m, unsigned slot)
{
    const Pair e = pair_of(a, tile);
    Target     t = {a.y, m * a.y_stride + e.head * a.head_dim, 0, MI_BF16};

    if (e.part) {
        const unsigned block = slot / (unsigned)a.kv.block_size;
        t.to = (int)slot < 0 ? NULL : e.part == 1 ? a.kv.k : a.kv.v;
        t.first = block * a.kv.stride_block + (slot - block * a.kv.block_size) * a.kv.stride_token +
                  e.head * a.kv.stride_head;
        t.dtype = a.kv.dtype;
    }
    t.second = t.first + e.second;
    t.first += e.first;
    return t;
}

__device__ __forceinline__ int slot_of(const Args &a, int m) { return a.kv.slots ? a.kv.slots[m] : m; }

template <typename T> __device__ __forceinline__ Target target_of(const Args &a, int tile, int m)
{
    return target_at<T>(a, tile, m, m < a.rows ? slot_of(a, m) : -1);
}

template <typename T, int KIND> __device__ __forceinline__ float2 residual_of(const Args &a, int unit, int m, bool two)
{
    const T *r = (const T *)a.residual + m * a.r_stride + unit;

    if (KIND != MI_GEMV_RESIDUAL || m >= a.rows)
        return {0, 0};
    return {to_float(__ldcg(r)), two ? to_float(__ldcg(r + 1)) : 0};
}

template <typename T>
__device__ __forceinline__ void end_rows(const Args &a, int unit, int m, bool two, float y0, float y1)
{
    const int64_t at = m * a.y_stride + unit;

    if (a.y_f32 && a.y) {
        float *y = (float *)a.y + at;
        y[0] = y0;
        if (two)
            y[1] = y1;
    } else if (!a.y_f32) {
        T *y = (T *)a.y + at;
        if (two && at % 2 == 0)
            *(unsigned *)y = pack({y0, y1}, T());
        else
            y[0] = from_float<T>(y0);
        if (two && at % 2)
            y[1] = from_float<T>(y1);
    }
}

/* y of a tile, normed over its head of q or k, which the blocks of a cluster share.  All threads but the producer's
 * come here; all have arrived at the cluster's barrier once: so every block has started. */
__device__ __forceinline__ void norm_head(const Args &a, int unit, bool active, char *smem, float &y0, float &y1)
{
    const int    tid = threadIdx.x;
    const Pair   e = pair_of(a, unit);
    const float *gain = active && e.part < 2 ? a.head_gain[e.part] : NULL;
    const float  g0 = gain ? a.head_offset + gain[e.first] : 1, g1 = gain ? a.head_offset + gain[e.second] : 1;
    float       *sums = (float *)(smem + SQUARES), *shares = sums + 64; /* [warps] of this block; [cluster] of all */
    float        sum = warp_sum(active && tid % SPREAD == 0 ? y0 * y0 + y1 * y1 : 0);

    if (tid % 32 == 0)
        sums[tid / 32] = sum;
    cluster_wait();
    consumers_meet(a);
    if (tid < a.cluster) {
        const unsigned rank = blockIdx.x % a.cluster;
        sum = 0;
        for (int i = 0; i < a.warps; i++)
            sum += sums[i];
        asm volatile("st.shared::cluster.f32 [%0], %1;" ::"r"(in_block(shared_address(shares + rank), tid)), "f"(sum) : "memory");
    }
    __syncwarp();
    cluster_arrive();
    cluster_wait();
    sum = 0;
    for (int i = 0; i < a.cluster; i++)
        sum += shares[i];
    const float scale = gain ? rsqrtf(sum / a.head_dim + a.head_eps) : 1;
    y0 *= scale * g0;
    y1 *= scale * g1;
}

/* The end of a tile for row m of x; residual, ahead, target: loaded before. */
template <typename T, int KIND>
__device__ __forceinline__ void end_tile(const Args &a, int unit, int m, bool two, float y0, float y1, float4 ahead,
                                         float2 residual, const Target &target)
{
    if (KIND == MI_GEMV_QKV) {
        if (target.to) {
            store_kv(target.to, target.dtype, target.first, y0 * ahead.z - y1 * ahead.w);
            store_kv(target.to, target.dtype, target.second, y1 * ahead.z + y0 * ahead.w);
        }
    } else if (KIND == MI_GEMV_GATED) {
        ((T *)a.y)[m * a.y_stride + unit] = from_float<T>(__fdividef(y0, 1 + __expf(-y0)) * y1);
    } else {
        end_rows<T>(a, unit, m, two, y0 + residual.x, y1 + residual.y);
    }
}

/* The best of what the block's threads found, thread i of row i % M. */
template <int M> __device__ __forceinline__ void end_best(const Args &a, float v, int i, MiCandidate *found)
{
    const int tid = threadIdx.x, lane = tid % 32;

#pragma unroll
    for (int o = 16; o >= M; o /= 2) {
        const float w = __shfl_xor_sync(~0u, v, o);
        const int   j = __shfl_xor_sync(~0u, i, o);
        if (beats(w, j, v, i)) {
            v = w;
            i = j;
        }
    }
    consumers_meet(a); /* the partial sums are read: their place takes what the warps found */
    if (lane < M)
        found[tid / 32 * M + lane] = {v, i};
    consumers_meet(a);
    if (tid >= M || tid >= a.rows)
        return;
#pragma unroll 1
    for (int k = 1; k < a.warps; k++)
        if (beats(found[k * M + tid].logit, found[k * M + tid].token, v, i)) {
            v = found[k * M + tid].logit;
            i = found[k * M + tid].token;
        }
    a.best[(int64_t)tid * gridDim.x + blockIdx.x] = {v, i};
}

/* All tiles of the block, their sums already added over the lanes: parts [n][M][2][team]. */
template <typename T, int KIND, int M, int W = AS_X>
__device__ __forceinline__ void end_summed(const Args &a, Share t, char *smem, float2 residual)
{
    const int     tid = threadIdx.x;
    const float  *parts = (const float *)(smem + a.parts);
    const float4 *ahead = (const float4 *)(smem + a.known);
    const float   scale = NORMED<KIND> ? inverse_rms<M>(a, smem, tid % M) : 1;
    float         best = -INFINITY;
    int           best_at = 0x7fffffff;

#pragma unroll 1
    for (int i = tid; i < t.n * M; i += a.warps * 32) {
        const int  unit = unit_of<KIND>(t, i / M), m = i % M;
        const bool two = PAIRED<KIND> || i / M * 2 + 1 < t.rows;
        float      y0 = 0, y1 = 0;
        if (m >= a.rows)
            continue;
#pragma unroll 1
        for (int k = 0; k < a.team; k++) {
            y0 += parts[2 * i * a.team + k];
            y1 += parts[(2 * i + 1) * a.team + k];
        }
        const float4 p = KIND == MI_GEMV_GATED || KIND == MI_GEMV_HEAD ? float4{0, 0, 1, 0} : ahead[i];
        if (W != AS_X) {
            const float2 f = W == OF_ROWS ? ((const float2 *)(smem + a.factors))[i / M] : float2{SMALLER, SMALLER};
            y0 *= f.x;
            y1 *= f.y;
        }
        y0 = y0 * scale + p.x;
        y1 = y1 * scale + p.y;
        end_tile<T, KIND>(a, unit, m, two, y0, y1, p, i == tid ? residual : residual_of<T, KIND>(a, unit, m, two),
                          KIND == MI_GEMV_QKV ? target_of<T>(a, unit, m) : Target());
        if (KIND == MI_GEMV_HEAD) {
            if (beats(y0, unit, best, best_at)) {
                best = y0;
                best_at = unit;
            }
            if (two && beats(y1, unit + 1, best, best_at)) {
                best = y1;
                best_at = unit + 1;
            }
        }
    }
    if (KIND == MI_GEMV_HEAD && a.best)
        end_best<M>(a, best, best_at, (MiCandidate *)(smem + a.parts));
}

#endif

} // namespace mi_gemv
#endif
