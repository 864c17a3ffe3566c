/* prefill.h - what stands between the large products of a prompt. */
#ifndef KERNELS_CUDA_PREFILL_H
#define KERNELS_CUDA_PREFILL_H

#include <miniinfer/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Heads of q, k and v side by side become q, and rows of a cache. */
typedef struct {
    const void    *joined; /* [rows, (n_heads + 2 n_kv_heads) head_dim] of dtype */
    const float   *bias[3]; /* of q, k and v; NULL: none */
    const float   *freqs;  /* [rotated / 2] radians a position */
    const int32_t *positions; /* [rows] */
    void          *q;      /* [rows, n_heads, head_dim] of dtype */
    MiDType        dtype;
    int32_t        rows, n_heads, n_kv_heads, head_dim;
    int32_t        rotated; /* the leading elements of a head that turn */
    bool           interleaved;
    float          magnitude;
} MiRopeAppend;

/* kv: the memory of one layer; a row whose slot is -1 goes nowhere.  dtype: bf16 or f16; head_dim even.
 * A cudaError_t. */
int mi_cuda_rope_append(void *stream, MiRopeAppend a, MiKvView kv);

/* y[r][i] = silu(x[r][i]) x[r][n + i]; x: [rows, 2 n], y: [rows, n] of dtype, n a multiple of 8. */
int mi_cuda_silu_mul(void *stream, const void *x, void *y, int64_t rows, int64_t n, MiDType dtype);

#ifdef __cplusplus
}
#endif
#endif
