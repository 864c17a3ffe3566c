/* fp8.h - matrices of E4M3 as they lie on a card, made and read back there, and rows of activations made so.
 *
 * Codes are plain rows, [rows][n], n a multiple of 16, 16-byte aligned.  An element is code * scale, f32: a row has one, or
 * each 128 x 128 of a matrix, [ceil(rows / 128)][ceil(n / 128)].  MiOperand.scales of the layouts "fp8" and "fp8.blocks"
 * are these, and its ext a MiQuantForm.  A scale that is made is the largest magnitude / 448.
 *
 * Each launcher returns 0 or the cudaError_t. */
#ifndef KERNELS_CUDA_FP8_H
#define KERNELS_CUDA_FP8_H

#include <miniinfer/types.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { MI_FP8_BLOCK = 128 };

/* ENQUEUE.  x: [rows, n] of f32, f16 or bf16; scales: [rows]. */
int mi_cuda_fp8_rows(void *stream, MiTensor x, uint8_t *codes, float *scales);
/* The same of rmsnorm(x) = x / rms(x) * (offset + gain); gain: [n].  zeros: [rows], which become 0; NULL: none. */
int mi_cuda_fp8_norm_rows(void *stream, MiTensor x, const float *gain, float eps, float offset, uint8_t *codes, float *scales,
                          float *zeros);
/* The same of rows whose largest magnitudes are known: [rows]. */
int mi_cuda_fp8_rows_within(void *stream, MiTensor x, uint8_t *codes, float *scales, const float *largest);
/* The same of silu(g) * u, x: [rows, 2 n], g before u. */
int mi_cuda_fp8_gated_rows(void *stream, MiTensor x, uint8_t *codes, float *scales);

/* LOAD.  The scales alone, 0 where there is nothing; then the codes by scales that are there already. */
int mi_cuda_fp8_measure(void *stream, MiTensor x, float *scales);
int mi_cuda_fp8_rows_by(void *stream, MiTensor x, uint8_t *codes, const float *scales);
/* All of n measured scales become the largest of them. */
int mi_cuda_fp8_even(void *stream, float *scales, int64_t n);
/* Codes that are no numbers make their scale none: products take any code for a number.  block: 1, or MI_FP8_BLOCK. */
int mi_cuda_fp8_check(void *stream, const uint8_t *codes, int64_t rows, int64_t n, int block, float *scales);

/* ENQUEUE.  Rows first, a multiple of 128, to first + rows of a matrix as [rows][n] of dtype. */
int mi_cuda_fp8_plain(void *stream, const uint8_t *codes, const float *scales, int block, int64_t first, int64_t rows, int64_t n,
                      void *dst, MiDType dtype);

#ifdef __cplusplus
}
#endif
#endif
