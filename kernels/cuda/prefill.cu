#include "prefill.h"
#include "device.cuh"
#include "scaled.cuh"
#include <miniinfer/scales.h>

/* ---- heads that turn, and go into a cache ------------------------------------------ */

enum { MAX_TURNED = 512, TURN_THREADS = 256, MOST_HEADS = 96 << 10 /* bytes */ };

__device__ __forceinline__ void put(const MiKvView &kv, void *base, int64_t at, float x)
{
    if (kv.dtype == MI_BF16)
        ((bf16 *)base)[at] = __float2bfloat16_rn(x);
    else if (kv.dtype == MI_F16)
        ((__half *)base)[at] = __float2half_rn(x);
    else
        ((float *)base)[at] = x;
}

/* A block a row: the angles once, then every pair of every head.  Heads come as q, k, v.  scaled: those of k and v stay
 * in shared memory, f32, until all of them are there, and go to a cache with scales. */
template <typename T> static __global__ void __launch_bounds__(TURN_THREADS) rope_append(const __grid_constant__ MiRopeAppend a,
                                                                                         const __grid_constant__ MiKvView kv)
{
    __shared__ float2       turn[MAX_TURNED / 2]; /* cosine, sine */
    extern __shared__ float heads[];              /* [k, v][n_kv_heads][dim] */
    const bool              scaled = mi_dtype_scaled(kv.dtype);
    const int         row = blockIdx.x, dim = a.head_dim, half = dim / 2, turned = a.rotated / 2;
    const int         n_heads = a.n_heads + 2 * a.n_kv_heads, slot = kv.slots[row];

    for (int i = threadIdx.x; i < turned; i += TURN_THREADS) {
        float s, c;
        sincosf((float)a.positions[row] * a.freqs[i], &s, &c);
        turn[i] = make_float2(c * a.magnitude, s * a.magnitude);
    }
    __syncthreads();
    wait_for_predecessor();

    const T *x = (const T *)a.joined + (int64_t)row * n_heads * dim;
    for (int p = threadIdx.x; p < n_heads * half; p += TURN_THREADS) {
        const int    head = p / half, i = p % half;
        const int    part = head < a.n_heads ? 0 : head < a.n_heads + a.n_kv_heads ? 1 : 2;
        const int    h = part == 0 ? head : part == 1 ? head - a.n_heads : head - a.n_heads - a.n_kv_heads;
        const bool   turns = part < 2 && i < turned;
        /* The two elements of pair i: those that turn together, then the rest in order. */
        const int    first = i >= turned ? 2 * i : a.interleaved ? 2 * i : i;
        const int    second = i >= turned || a.interleaved ? first + 1 : i + turned;
        const float *bias = a.bias[part] ? a.bias[part] + h * dim : nullptr;
        float        u = to_float(x[head * dim + first]), v = to_float(x[head * dim + second]);

        if (bias)
            u += bias[first], v += bias[second];
        const float2 t = turns ? turn[i] : make_float2(1, 0);
        const float  y = u * t.x - v * t.y, z = u * t.y + v * t.x;
        if (part == 0) {
            T *q = (T *)a.q + ((int64_t)row * a.n_heads + h) * dim;
            q[first] = from_float<T>(y);
            q[second] = from_float<T>(z);
        } else if (scaled) {
            heads[(head - a.n_heads) * dim + first] = y;
            heads[(head - a.n_heads) * dim + second] = z;
        } else if (slot >= 0) {
            const int64_t at = slot / kv.block_size * kv.stride_block + slot % kv.block_size * kv.stride_token +
                               h * kv.stride_head;
            put(kv, part == 1 ? kv.k : kv.v, at + first, y);
            put(kv, part == 1 ? kv.k : kv.v, at + second, z);
        }
    }
    if (!scaled || slot < 0)
        return;
    __syncthreads();
    for (int h = threadIdx.x / 32; h < 2 * a.n_kv_heads; h += TURN_THREADS / 32) {
        const int     side = h / a.n_kv_heads, head = h % a.n_kv_heads;
        const int64_t at = slot / kv.block_size * kv.stride_block + slot % kv.block_size * kv.stride_token +
                           head * kv.stride_head;
        const float *shift = mi_kv_shift(&kv) + (int64_t)head * dim;
        store_scaled(kv, side, at, dim, [&](int d) { return heads[h * dim + d] - (side ? 0 : shift[d]); });
    }
}

extern "C" int mi_cuda_rope_append(void *stream, MiRopeAppend a, MiKvView kv)
{
    if (a.rotated > MAX_TURNED || a.rotated > a.head_dim || a.head_dim % 2)
        return cudaErrorInvalidValue;
    const size_t smem = mi_dtype_scaled(kv.dtype) ? 2 * (size_t)a.n_kv_heads * (size_t)a.head_dim * sizeof(float) : 0;
    if (smem > MOST_HEADS || (smem && a.head_dim % 4))
        return cudaErrorNotSupported;
    static const int allowed = mi_allow_smem(rope_append<bf16>, MOST_HEADS) + mi_allow_smem(rope_append<__half>, MOST_HEADS);
    if (allowed)
        return allowed;
    return a.dtype == MI_BF16  ? mi_launch(rope_append<bf16>, dim3(a.rows), dim3(TURN_THREADS), smem, stream, a, kv)
           : a.dtype == MI_F16 ? mi_launch(rope_append<__half>, dim3(a.rows), dim3(TURN_THREADS), smem, stream, a, kv)
                               : cudaErrorInvalidValue;
}

/* ---- silu(gate) * up ------------------------------------------------------------------- */

template <typename T> static __global__ void silu_mul(const T *x, T *y, int64_t rows, int64_t n)
{
    const int64_t eights = n / 8;

    wait_for_predecessor();
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < rows * eights; i += (int64_t)gridDim.x * blockDim.x) {
        const int64_t  row = i / eights, at = i % eights * 8;
        const Eight<T> g = *(const Eight<T> *)(x + row * 2 * n + at), u = *(const Eight<T> *)(x + row * 2 * n + n + at);
        Eight<T>       out;
#pragma unroll
        for (int k = 0; k < 8; k++) {
            /* rounded between the two as the separate operations are */
            const float v = to_float(g.at[k]), s = to_float(from_float<T>(v / (1 + __expf(-v))));
            out.at[k] = from_float<T>(s * to_float(u.at[k]));
        }
        *(Eight<T> *)(y + row * n + at) = out;
    }
}

extern "C" int mi_cuda_silu_mul(void *stream, const void *x, void *y, int64_t rows, int64_t n, MiDType dtype)
{
    const int64_t  eights = rows * (n / 8), blocks = (eights + 255) / 256;
    const unsigned grid = (unsigned)(blocks < 132 * 16 ? blocks : 132 * 16);

    return dtype == MI_BF16  ? mi_launch(silu_mul<bf16>, dim3(grid), dim3(256), 0, stream, (const bf16 *)x, (bf16 *)y, rows, n)
           : dtype == MI_F16 ? mi_launch(silu_mul<__half>, dim3(grid), dim3(256), 0, stream, (const __half *)x, (__half *)y,
                                         rows, n)
                             : cudaErrorInvalidValue;
}
