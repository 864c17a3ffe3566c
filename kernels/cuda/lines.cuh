/* lines.cuh - how a plain operation walks over its tensors: lines of contiguous
 * elements, eight at a time.
 *
 * Eight go as 16-byte accesses where every line of every tensor begins at such an
 * address and has a multiple of eight; else one by one, the last few alone. */
#ifndef KERNELS_CUDA_LINES_CUH
#define KERNELS_CUDA_LINES_CUH

#include "device.cuh"

enum { LINES_MAX = 3, UNIT = 8 };

/* Tensors of one shape [rows, outer, inner, n]. */
struct Lines {
    void    *data[LINES_MAX];
    int64_t  stride[LINES_MAX][3]; /* of a row, outer, inner */
    int64_t  n;
    unsigned count, per_row, inner; /* lines; count = rows * per_row */
    bool     aligned;
};

/* 16-byte accesses at t and at multiples of its strides, but the last one. */
static inline bool aligned_tensor(const MiTensor *t)
{
    bool ok = (uintptr_t)t->data % 16 == 0;

    for (int i = 0; i + 1 < t->ndim; i++)
        ok = ok && (t->shape[i] <= 1 || (size_t)t->stride[i] * mi_dtype_size(t->dtype) % 16 == 0);
    return ok && t->shape[t->ndim - 1] % UNIT == 0;
}

/* join: lines are as long as strides allow, over rows too; else the last dimension. */
static inline Lines lines_of(const MiTensor *const *t, int n_tensors, bool join)
{
    Lines     l = {};
    int64_t   shape[4] = { 1, 1, 1, 1 }, stride[LINES_MAX][4] = {};
    const int skip = 4 - t[0]->ndim; /* right-aligned: what is missing is 1 */

    for (int i = skip; i < 4; i++) {
        shape[i] = t[0]->shape[i - skip];
        for (int k = 0; k < n_tensors; k++)
            stride[k][i] = t[k]->stride[i - skip];
    }
    l.aligned = true;
    for (int k = 0; k < n_tensors; k++)
        l.aligned = l.aligned && aligned_tensor(t[k]);

    l.n = shape[3];
    for (int i = 2; i >= 0 && join; i--) {
        bool joins = true;
        for (int k = 0; k < n_tensors; k++)
            joins = joins && (shape[i] <= 1 || stride[k][i] == l.n);
        if (!joins)
            break;
        l.n *= shape[i];
        shape[i] = 1;
    }
    for (int k = 0; k < n_tensors; k++) {
        l.data[k] = t[k]->data;
        for (int i = 0; i < 3; i++)
            l.stride[k][i] = stride[k][i];
    }
    l.inner = (unsigned)shape[2];
    l.per_row = (unsigned)(shape[1] * shape[2]);
    l.count = (unsigned)shape[0] * l.per_row;
    return l;
}

static inline unsigned units_of(const Lines *l) { return (unsigned)((l->n + UNIT - 1) / UNIT); }

static inline unsigned blocks_for(unsigned items, unsigned per_block) { return (items + per_block - 1) / per_block; }

/* f(T()) for the type of a dtype. */
template <typename F> static inline int by_dtype(MiDType t, F f)
{
    switch (t) {
    case MI_F32: return f(float());
    case MI_F16: return f(__half());
    case MI_BF16: return f(__nv_bfloat16());
    default: return cudaErrorInvalidValue;
    }
}

#ifdef __CUDACC__

template <typename T> __device__ __forceinline__ T *line_at(const Lines &l, int tensor, unsigned line)
{
    const unsigned row = line / l.per_row, in_row = line - row * l.per_row, outer = in_row / l.inner;
    const int64_t *s = l.stride[tensor];
    return (T *)l.data[tensor] + row * s[0] + outer * s[1] + (in_row - outer * l.inner) * s[2];
}

/* Elements p[0..8), of which `left` exist; zeros for the others. */
template <typename T> __device__ __forceinline__ Eight<T> load_eight(const T *p, int64_t left, bool aligned)
{
    Eight<T> x;

    if (aligned) {
        if (sizeof(T) == 2) {
            *(uint4 *)&x = *(const uint4 *)p;
        } else {
            ((uint4 *)&x)[0] = ((const uint4 *)p)[0];
            ((uint4 *)&x)[sizeof(T) / 4] = ((const uint4 *)p)[sizeof(T) / 4];
        }
    } else {
#pragma unroll
        for (int i = 0; i < UNIT; i++)
            x.at[i] = i < left ? p[i] : from_float<T>(0);
    }
    return x;
}

template <typename T> __device__ __forceinline__ void store_eight(T *p, const Eight<T> &x, int64_t left, bool aligned)
{
    if (aligned) {
        if (sizeof(T) == 2) {
            *(uint4 *)p = *(const uint4 *)&x;
        } else {
            ((uint4 *)p)[0] = ((const uint4 *)&x)[0];
            ((uint4 *)p)[sizeof(T) / 4] = ((const uint4 *)&x)[sizeof(T) / 4];
        }
    } else {
#pragma unroll
        for (int i = 0; i < UNIT; i++)
            if (i < left)
                p[i] = x.at[i];
    }
}

/* Two-byte types lose nothing by the fast exponential, 2 + |x| units of f32. */
template <typename T> __device__ __forceinline__ float exponential(float x)
{
    return sizeof(T) == 2 ? __expf(x) : expf(x);
}

/* One instruction rounds two. */
__device__ __forceinline__ Eight<float> rounded(const float (&v)[UNIT], float)
{
    Eight<float> y;
#pragma unroll
    for (int i = 0; i < UNIT; i++)
        y.at[i] = v[i];
    return y;
}
__device__ __forceinline__ Eight<__half> rounded(const float (&v)[UNIT], __half)
{
    Eight<__half> y;
#pragma unroll
    for (int i = 0; i < UNIT; i += 2)
        *(__half2 *)&y.at[i] = __floats2half2_rn(v[i], v[i + 1]);
    return y;
}
__device__ __forceinline__ Eight<bf16> rounded(const float (&v)[UNIT], bf16)
{
    Eight<bf16> y;
#pragma unroll
    for (int i = 0; i < UNIT; i += 2)
        *(__nv_bfloat162 *)&y.at[i] = __floats2bfloat162_rn(v[i], v[i + 1]);
    return y;
}

template <typename T, typename U> __device__ __forceinline__ Eight<T> converted(const Eight<U> &x)
{
    float v[UNIT];
#pragma unroll
    for (int i = 0; i < UNIT; i++)
        v[i] = to_float(x.at[i]);
    return rounded(v, T());
}

#endif
#endif
