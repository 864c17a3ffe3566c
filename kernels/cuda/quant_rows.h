/* quant_rows.h - y = x W' for 5 to 64 rows of x and a matrix of quant.h, by tensor cores.
 *
 * More than 16 rows of x are put into another order once, for all matrices that they are multiplied with, where a form has zeros, or groups of 8 bit. */
#ifndef KERNELS_CUDA_QUANT_ROWS_H
#define KERNELS_CUDA_QUANT_ROWS_H

#include "quant.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { MI_QUANT_MOST = 64 };

/* Bytes of what x [rows][in] becomes, or 0: it stays. */
size_t mi_cuda_quant_split_bytes(MiQuantForm, int64_t rows, int64_t in);

/* LOAD.  cudaErrorNotSupported: not on this card, or not this shape. */
int mi_cuda_quant_rows_takes(MiQuantForm, int64_t rows, int64_t in, int64_t out);

/* ENQUEUE, both.  x: [rows][in] of bf16, 16-byte aligned; split: 128-byte aligned; y: [rows][out] of bf16 or f32; bias: [out] or NULL.
 * The weights are read before the grid dependency is waited for. */
int mi_cuda_quant_split(void *stream, MiQuantForm, MiTensor x, void *split);
int mi_cuda_quant_rows(void *stream, MiQuantForm, MiTensor x, const void *split, const void *w, const float *bias, MiTensor y);

#ifdef __cplusplus
}
#endif
#endif
