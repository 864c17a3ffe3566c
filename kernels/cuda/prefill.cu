#include "prefill.h"
#include "device.cuh"
#include "scaled.cuh"
#include <miniinfer/scales.h>

/* ---- heads that turn, and go into a cache ------------------------------------------ */

enum { MAX_TURNED = 512, TURN_THREADS = 256, TURN_WARPS = TURN_THREADS / 32 };
enum { TURN_ROWS = 4, ROW_THREADS = TURN_THREADS / TURN_ROWS }; /* rows of a block, where it has more than one */

__device__ __forceinline__ void put(const MiKvView &kv, void *base, int64_t at, float x)
{
    if (kv.dtype == MI_BF16)
        ((bf16 *)base)[at] = __float2bfloat16_rn(x);
    else if (kv.dtype == MI_F16)
        ((__half *)base)[at] = __float2half_rn(x);
    else
        ((float *)base)[at] = x;
}

/* Cosine and sine of an angle of a row. */
__device__ __forceinline__ float2 angle(const MiRopeAppend &a, int row, int i)
{
    float s, c;
    sincosf((float)a.positions[row] * a.freqs[i], &s, &c);
    return make_float2(c * a.magnitude, s * a.magnitude);
}

/* A row's, for the whole block. */
__device__ __forceinline__ void look_up_angles(const MiRopeAppend &a, int row, float2 *turn)
{
    for (int i = threadIdx.x; i < a.rotated / 2; i += TURN_THREADS)
        turn[i] = angle(a, row, i);
    __syncthreads();
}

/* Rounded in one way, whichever kernel it is in. */
__device__ __forceinline__ void turn_pair(float &u, float &v, float2 by)
{
    const float y = __fmaf_rn(u, by.x, -__fmul_rn(v, by.y));
    v = __fmaf_rn(u, by.y, __fmul_rn(v, by.x));
    u = y;
}

/* A head of a row among those of q, k, v, and pair i of it: those that turn together, then the rest in order. */
struct Head {
    int part, h; /* 0 to 2: q, k, v; which of those */

    __device__ __forceinline__ Head(const MiRopeAppend &a, int head)
        : part(head < a.n_heads ? 0 : head < a.n_heads + a.n_kv_heads ? 1 : 2),
          h(part == 0 ? head : part == 1 ? head - a.n_heads : head - a.n_heads - a.n_kv_heads)
    {
    }
};

struct Turned {
    int   first, second;
    float y, z;
};

template <typename T>
__device__ __forceinline__ Turned turned_pair(const MiRopeAppend &a, const Head &head, const T *x, int i, const float2 *turn)
{
    const int    turned = a.rotated / 2;
    const bool   turns = head.part < 2 && i < turned;
    const float *bias = a.bias[head.part] ? a.bias[head.part] + head.h * a.head_dim : nullptr;
    Turned       p;

    p.first = i >= turned ? 2 * i : a.interleaved ? 2 * i : i;
    p.second = i >= turned || a.interleaved ? p.first + 1 : i + turned;
    float u = to_float(x[p.first]), v = to_float(x[p.second]);
    if (bias)
        u += bias[p.first], v += bias[p.second];
    if (turns)
        turn_pair(u, v, turn[i]);
    p.y = u, p.z = v;
    return p;
}

__device__ __forceinline__ int64_t offset_of(const MiKvView &kv, int slot, int head)
{
    return slot / kv.block_size * kv.stride_block + slot % kv.block_size * kv.stride_token + head * kv.stride_head;
}

/* A block a row. */
template <typename T> static __global__ void __launch_bounds__(TURN_THREADS) rope_append(const __grid_constant__ MiRopeAppend a,
                                                                                         const __grid_constant__ MiKvView kv)
{
    __shared__ float2 turn[MAX_TURNED / 2];
    const int         row = blockIdx.x, dim = a.head_dim, half = dim / 2, n_heads = a.n_heads + 2 * a.n_kv_heads, slot = kv.slots[row];

    let_successor_start();
    look_up_angles(a, row, turn);
    wait_for_predecessor();

    const T *x = (const T *)a.joined + (int64_t)row * n_heads * dim;
    for (int p = threadIdx.x; p < n_heads * half; p += TURN_THREADS) {
        const Head   head(a, p / half);
        const Turned t = turned_pair(a, head, x + p / half * dim, p % half, turn);
        if (head.part == 0) {
            T *q = (T *)a.q + ((int64_t)row * a.n_heads + head.h) * dim;
            q[t.first] = from_float<T>(t.y);
            q[t.second] = from_float<T>(t.z);
        } else if (slot >= 0) {
            const int64_t at = offset_of(kv, slot, head.h);
            put(kv, head.part == 1 ? kv.k : kv.v, at + t.first, t.y);
            put(kv, head.part == 1 ? kv.k : kv.v, at + t.second, t.z);
        }
    }
}

template <typename T> __device__ __forceinline__ void load_eight(const T *x, const float *bias, float (&f)[8])
{
    const Eight<T> v = *(const Eight<T> *)x;
    Eight<float>   b = {};

    if (bias)
        b = *(const Eight<float> *)bias;
#pragma unroll
    for (int k = 0; k < 8; k++)
        f[k] = bias ? to_float(v.at[k]) + b.at[k] : to_float(v.at[k]);
}

template <typename T> __device__ __forceinline__ void store_eight(T *y, const float (&f)[8])
{
    Eight<T> v;
#pragma unroll
    for (int k = 0; k < 8; k++)
        v.at[k] = from_float<T>(f[k]);
    *(Eight<T> *)y = v;
}

/* A piece of a head of keys or values as codes, side: 0 or 1; the head's pieces are neighbouring lanes.  at: of the head in the cache. */
__device__ __forceinline__ void store_codes(const MiKvView &kv, int side, int64_t at, int pieces, int first, int second, const float (&u)[8],
                                            const float (&v)[8])
{
    const int      lane = threadIdx.x % 32;
    const unsigned head = (unsigned)((1ull << pieces) - 1) << (lane & -pieces);
    const bool     f8 = kv.dtype == MI_F8;
    uint8_t       *to = (uint8_t *)(side ? kv.v : kv.k) + at;
    float          largest = 0;

#pragma unroll
    for (int k = 0; k < 8; k++)
        largest = larger_of(larger_of(largest, fabsf(u[k])), fabsf(v[k]));
    for (int o = 1; o < pieces; o *= 2)
        largest = larger_of(largest, __shfl_xor_sync(head, largest, o));
    const Scale scale = scale_of(largest, f8);
    *(uint2 *)(to + first) = eight_codes(u, scale.by, f8);
    *(uint2 *)(to + second) = eight_codes(v, scale.by, f8);
    if (lane % pieces == 0)
        ((unsigned short *)kv.scales)[(at >> (__ffs(kv.head_dim) - 1)) * 2 + side] = scale.bits;
}

/* The same bits by accesses of eight elements, for what in_eights() says: a thread has eight and the eight that turn with them, or,
 * of those that do not turn, sixteen in a row.  TURN_ROWS rows a block.  CODES: a cache with scales. */
template <typename T, bool CODES>
static __global__ void __launch_bounds__(TURN_THREADS) rope_append_eights(const __grid_constant__ MiRopeAppend a,
                                                                          const __grid_constant__ MiKvView kv)
{
    __shared__ float2 turn[TURN_ROWS][MAX_TURNED / 2]; /* [8][turning] of a row, so that threads side by side read side by side */
    const int         mine = threadIdx.x / ROW_THREADS, thread = threadIdx.x % ROW_THREADS, row = blockIdx.x * TURN_ROWS + mine;
    const int         dim = a.head_dim, pieces = dim / 16, turning = a.rotated / 16, n_heads = a.n_heads + 2 * a.n_kv_heads;
    const bool        there = row < a.rows;
    const int         slot = there ? kv.slots[row] : -1;

    let_successor_start();
    for (int i = thread; i < a.rotated / 2 && there; i += ROW_THREADS)
        turn[mine][i % 8 * turning + i / 8] = angle(a, row, i);
    __syncthreads();
    wait_for_predecessor();

    const T *x = (const T *)a.joined + (int64_t)row * n_heads * dim;
    for (int i = thread; i < n_heads * pieces && there; i += ROW_THREADS) {
        const int    h = i / pieces, piece = i - h * pieces;
        const Head   head(a, h);
        const int    first = piece < turning ? piece * 8 : piece * 16, second = first + (piece < turning ? a.rotated / 2 : 8);
        const float *bias = a.bias[head.part] ? a.bias[head.part] + head.h * dim : nullptr;
        float        u[8], v[8];
        if (head.part && slot < 0)
            continue;
        load_eight(x + h * dim + first, bias ? bias + first : nullptr, u);
        load_eight(x + h * dim + second, bias ? bias + second : nullptr, v);
        if (head.part < 2 && piece < turning) {
#pragma unroll
            for (int k = 0; k < 8; k++)
                turn_pair(u[k], v[k], turn[mine][k * turning + piece]);
        }
        const int64_t at = head.part ? offset_of(kv, slot, head.h) : ((int64_t)row * a.n_heads + head.h) * dim;
        if (CODES && head.part) {
            if (head.part == 1) {
                const float       *shift = mi_kv_shift(&kv) + head.h * dim;
                const Eight<float> by = *(const Eight<float> *)(shift + first), further = *(const Eight<float> *)(shift + second);
#pragma unroll
                for (int k = 0; k < 8; k++)
                    u[k] -= by.at[k], v[k] -= further.at[k];
            }
            store_codes(kv, head.part - 1, at, pieces, first, second, u, v);
        } else {
            T *to = (T *)(head.part == 0 ? a.q : head.part == 1 ? kv.k : kv.v) + at;
            store_eight(to + first, u);
            store_eight(to + second, v);
        }
    }
}

/* Heads, and their halves that turn, are of whole eights, and so is all that lies before them.  Of a cache with scales a head's threads
 * are within a warp, too. */
static bool in_eights(const MiRopeAppend &a, const MiKvView &kv)
{
    uintptr_t at = (uintptr_t)a.joined | (uintptr_t)a.q | (uintptr_t)kv.k | (uintptr_t)kv.v | (uintptr_t)kv.scales;

    for (const float *bias : a.bias)
        at |= (uintptr_t)bias;
    const bool codes = mi_dtype_scaled(kv.dtype) && !(a.head_dim & (a.head_dim - 1));
    return !a.interleaved && (kv.dtype == a.dtype || codes) && a.head_dim % 16 == 0 && a.rotated % 16 == 0 && at % 16 == 0 &&
           (kv.stride_block | kv.stride_token | kv.stride_head) % 8 == 0;
}

/* A block a row, for a cache with scales: a warp a head, which it has whole in registers, PAIRS a lane. */
template <typename T, int PAIRS>
static __global__ void __launch_bounds__(TURN_THREADS) rope_append_scaled(const __grid_constant__ MiRopeAppend a,
                                                                          const __grid_constant__ MiKvView kv)
{
    __shared__ float2 turn[MAX_TURNED / 2];
    const int         row = blockIdx.x, dim = a.head_dim, half = dim / 2, n_heads = a.n_heads + 2 * a.n_kv_heads, slot = kv.slots[row];
    const int         lane = threadIdx.x % 32;
    const bool        f8 = kv.dtype == MI_F8;

    let_successor_start();
    look_up_angles(a, row, turn);
    wait_for_predecessor();

    const T *x = (const T *)a.joined + (int64_t)row * n_heads * dim;
    for (int h = threadIdx.x / 32; h < n_heads; h += TURN_WARPS) {
        const Head    head(a, h);
        const float  *shift = mi_kv_shift(&kv) + (int64_t)head.h * dim;
        const int64_t at = offset_of(kv, slot, head.h);
        uint8_t      *to = (uint8_t *)(head.part == 1 ? kv.k : kv.v) + at;
        T            *q = (T *)a.q + ((int64_t)row * a.n_heads + head.h) * dim;
        Turned        t[PAIRS];
        float         largest = 0;
#pragma unroll
        for (int k = 0; k < PAIRS; k++)
            if (lane + k * 32 < half) {
                t[k] = turned_pair(a, head, x + h * dim, lane + k * 32, turn);
                if (head.part == 1)
                    t[k].y -= shift[t[k].first], t[k].z -= shift[t[k].second];
                largest = larger_of(larger_of(largest, fabsf(t[k].y)), fabsf(t[k].z));
            }
        if (head.part && slot < 0)
            continue;
        const Scale scale = scale_of(largest_of_warp(largest), f8);
#pragma unroll
        for (int k = 0; k < PAIRS; k++)
            if (lane + k * 32 < half && head.part == 0) {
                q[t[k].first] = from_float<T>(t[k].y);
                q[t[k].second] = from_float<T>(t[k].z);
            } else if (lane + k * 32 < half) {
                to[t[k].first] = code_of(t[k].y * scale.by, f8);
                to[t[k].second] = code_of(t[k].z * scale.by, f8);
            }
        if (lane == 0 && head.part)
            ((unsigned short *)kv.scales)[at / dim * 2 + head.part - 1] = scale.bits;
    }
}

template <typename T> static int append(void *stream, const MiRopeAppend &a, const MiKvView &kv)
{
    const dim3 rows(a.rows), block(TURN_THREADS);

    if (in_eights(a, kv))
        return mi_launch(mi_dtype_scaled(kv.dtype) ? rope_append_eights<T, true> : rope_append_eights<T, false>,
                         dim3((a.rows + TURN_ROWS - 1) / TURN_ROWS), block, 0, stream, a, kv);
    if (!mi_dtype_scaled(kv.dtype))
        return mi_launch(rope_append<T>, rows, block, 0, stream, a, kv);
    return a.head_dim <= 64    ? mi_launch(rope_append_scaled<T, 1>, rows, block, 0, stream, a, kv)
           : a.head_dim <= 128 ? mi_launch(rope_append_scaled<T, 2>, rows, block, 0, stream, a, kv)
                               : mi_launch(rope_append_scaled<T, MAX_TURNED / 64>, rows, block, 0, stream, a, kv);
}

extern "C" int mi_cuda_rope_append(void *stream, MiRopeAppend a, MiKvView kv)
{
    if (a.rotated > MAX_TURNED || a.rotated > a.head_dim || a.head_dim % 2)
        return cudaErrorInvalidValue;
    if (mi_dtype_scaled(kv.dtype) && a.head_dim > MAX_TURNED)
        return cudaErrorNotSupported;
    return a.dtype == MI_BF16  ? append<bf16>(stream, a, kv)
           : a.dtype == MI_F16 ? append<__half>(stream, a, kv)
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
