/* attention.cuh - what the kernels of attention share: which keys a row sees, rows
 * of the cache into shared memory, fragments of mma.m16n8k16.
 *
 * The rows of a sequence and the query heads of a key head are one list of packed
 * rows: row r is head r % group of token r / group.  So a group shares each load. */
#ifndef KERNELS_CUDA_ATTENTION_CUH
#define KERNELS_CUDA_ATTENTION_CUH

#include <cuda/attention.h>
#include <cuda/device.cuh>

constexpr float LOG2E = 1.44269504f;

/* A sequence of this step: its rows, and its physical positions in the cache. */
struct Span {
    int row, rows, start, len;
};

__device__ __forceinline__ Span span_of(const MiCudaAttention &a, int seq)
{
    const int row = a.batch.seq_start[seq];
    return Span{row, a.batch.seq_start[seq + 1] - row, a.kv.kv_start ? a.kv.kv_start[seq] : 0, a.kv.kv_len[seq]};
}

/* The physical positions first <= t < end that a row of the sequence sees: its rows are its last positions. */
struct Keys {
    int first, end;
};

__device__ __forceinline__ Keys keys_of(const MiCudaAttention &a, const Span &s, int row)
{
    const int seen = s.len - s.rows + row + 1;
    return Keys{a.window ? max(s.start, seen - a.window) : s.start, a.bidirectional ? s.len : seen};
}

__device__ __forceinline__ int group_of(const MiCudaAttention &a) { return (int)a.q.shape[1] / a.kv.n_kv_heads; }

/* Where packed row r of a sequence and key head begins; tensors are q or out. */
__device__ __forceinline__ int64_t row_at(const MiTensor &t, const Span &s, int kv_head, int group, int r)
{
    return (s.row + r / group) * t.stride[0] + (kv_head * group + r % group) * t.stride[1];
}

__device__ __forceinline__ float exp2_fast(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* The soft cap of a score before it is scaled: cap * tanh(scale * x / cap) / scale, tanh(y) = 1 - 2 / (e^2y + 1). */
struct Cap {
    float in, out;
    __device__ explicit Cap(const MiCudaAttention &a) : in(2 * LOG2E * a.scale / a.softcap), out(a.softcap / a.scale) {}
    __device__ __forceinline__ float of(float x) const { return fmaf(__fdividef(-2, exp2_fast(x * in) + 1), out, out); }
};

/* ---- into shared memory ---------------------------------------------------------- */

/* 16 bytes; !there: zeros, and src is not read. */
__device__ __forceinline__ void copy_16(unsigned dst, const void *src, bool there)
{
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(dst), "l"(src), "r"(there ? 16 : 0)
                 : "memory");
}
/* 4 bytes, likewise. */
__device__ __forceinline__ void copy_4(unsigned dst, const void *src, bool there)
{
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(dst), "l"(src), "r"(there ? 4 : 0) : "memory");
}
__device__ __forceinline__ void copies_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N> __device__ __forceinline__ void copies_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

/* ---- fragments ------------------------------------------------------------------- */

__device__ __forceinline__ void load_matrices(unsigned (&x)[4], unsigned at)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                 : "r"(at)
                 : "memory");
}
__device__ __forceinline__ void load_matrices_turned(unsigned (&x)[4], unsigned at)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                 : "r"(at)
                 : "memory");
}

/* c[16][8] += a[16][16] b[16][8] */
template <typename T>
__device__ __forceinline__ void multiply(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1);
template <>
__device__ __forceinline__ void multiply<bf16>(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, "
        "%2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <>
__device__ __forceinline__ void multiply<__half>(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
        "%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* 8 x 8 elements, two a lane: rows become columns. */
__device__ __forceinline__ unsigned turned(unsigned x)
{
    unsigned y;
    asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(x));
    return y;
}

/* ---- caches with scales, in 16 bits ------------------------------------------------- */

/* attention_widen.cu: of the sequences with more than `few` packed rows. */
int mi_attention_widen(void *stream, const MiCudaAttention *a, int few, const MiCudaWide *wide);
/* attention_gqa.cu: those that did not fit; moved: MiCudaWide's, NULL: all. */
int mi_attention_gqa_rest(void *stream, const MiCudaAttention *a, int few, const int32_t *moved);

/* Of the four lanes that hold a row. */
__device__ __forceinline__ float quad_max(float v)
{
    v = fmaxf(v, __shfl_xor_sync(~0u, v, 1));
    return fmaxf(v, __shfl_xor_sync(~0u, v, 2));
}
__device__ __forceinline__ float quad_sum(float v)
{
    v += __shfl_xor_sync(~0u, v, 1);
    return v + __shfl_xor_sync(~0u, v, 2);
}

#endif
