/* fp8.h - linears of E4M3: rows of numbers with a scale each, and a product of few rows.
 *
 * A row's scale is its largest magnitude / 448; an element is code * scale.  Each launcher returns 0 or the cudaError_t. */
#ifndef KERNELS_CUDA_FP8_H
#define KERNELS_CUDA_FP8_H

#include <miniinfer/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ENQUEUE.  x: [rows, n] of f32, f16 or bf16, n a multiple of 16; codes: [rows][n], 16-byte aligned; scales: [rows]. */
int mi_cuda_fp8_rows(void *stream, MiTensor x, uint8_t *codes, float *scales);
/* The same by scales that are there already. */
int mi_cuda_fp8_rows_by(void *stream, MiTensor x, uint8_t *codes, const float *scales);
/* All of n scales become the largest of them. */
int mi_cuda_fp8_even(void *stream, float *scales, int64_t n);

enum { MI_FP8_FEW_ROWS = 4 };
/* ENQUEUE.  y = x W' + bias for at most MI_FP8_FEW_ROWS rows of bf16 or f16, read at the memory's speed; codes and scales of
 * W and bias are read before the grid dependency is waited for.  y: of x's dtype or f32; bias: f32 or NULL. */
int mi_cuda_fp8_gemv(void *stream, MiTensor x, const uint8_t *codes, const float *scales, const float *bias, MiTensor y);

#ifdef __cplusplus
}
#endif
#endif
