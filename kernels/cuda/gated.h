/* gated.h - y = silu(x gate') * (x up') for many rows, as one product. */
#ifndef KERNELS_CUDA_GATED_H
#define KERNELS_CUDA_GATED_H

#include <miniinfer/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* LOAD.  From how many rows on this is faster than a product of both and silu_mul behind it; INT64_MAX: not on this card, or not
 * of this shape.  MI_F8: mi_cuda_gated_scaled(). */
int64_t mi_cuda_gated_rows(int64_t hidden, int64_t ff, MiDType);

/* ENQUEUE.  x: [rows, hidden], gate, up: [ff, hidden], y: [rows, ff] of one dtype, bf16 or f16; rows of x and of y may be apart by a
 * multiple of eight elements, all begin at multiples of 16 bytes.  Sums are f32 in one order, and y, which may
 * not be x, is rounded once.  Of shapes that mi_cuda_gated_rows() has an answer for, any number of rows.  A cudaError_t. */
int mi_cuda_gated(void *stream, MiTensor x, const void *gate, const void *up, MiTensor y);

/* The same where x and both matrices are E4M3 with a scale for each row, hidden a multiple of 16, y of bf16 or f16; the tensor cores'
 * own sums.  largest: of each row of y the largest magnitude, where it is larger than what is there: 0 or more. */
typedef struct {
    const float *x, *gate, *up; /* [rows], [ff], [ff]; the latter two at multiples of 8 bytes */
    float       *largest;       /* [rows] */
} MiGatedScales;
int mi_cuda_gated_scaled(void *stream, MiTensor x, const void *gate, const void *up, MiTensor y, MiGatedScales scales);

#ifdef __cplusplus
}
#endif
#endif
