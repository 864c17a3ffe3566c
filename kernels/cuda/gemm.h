/* gemm.h - y = x W' (+ c) by cuBLASLt, for one W at many numbers of rows.
 *
 * Plain row-major matrices of one dtype, sums in f32.  For each number of rows the algorithm
 * is one that was chosen by timing, where there is one, else the library's first choice.  Products
 * of equal shapes share what is known of them.
 *
 * Numbers of rows fall into classes, a quarter above a power of two: what is the fastest at 512
 * serves 321 to 640.  The library is asked once for each step, four to a power of two and 64 at
 * least above 64: what it says of 512 serves 449 to 512. */
#ifndef KERNELS_CUDA_GEMM_H
#define KERNELS_CUDA_GEMM_H

#include <miniinfer/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The library: opened at the first product, since that takes long; by the backend before, meanwhile. */
#define MI_CUBLASLT (CUDART_VERSION >= 13000 ? "libcublasLt.so.13" : "libcublasLt.so.12")

/* What a call may use beside its operands; algorithms that need more are not considered. */
enum { MI_GEMM_WORKSPACE = 32 << 20 };
enum { MI_GEMM_LEAST = 32, MI_GEMM_MOST = 8192 }; /* classes */
enum { MI_GEMM_ALGORITHM = 64 };                  /* bytes of one */

typedef struct MiGemm MiGemm;

/* x: [rows, in] of dtype, W: [out, in] of dtype, y: [rows, out] of y_dtype, which is dtype or f32; MI_F8: below.
 * x_stride, y_stride: elements between rows.  A cublasStatus_t that is not 0: there is no such product. */
int  mi_cuda_gemm_new(MiGemm **out_gemm, int64_t out, int64_t in, int64_t x_stride, int64_t y_stride, MiDType dtype,
                      MiDType y_dtype);
void mi_cuda_gemm_free(MiGemm *);
/* residual: like y, added to it; NULL: none; may be y.  workspace: MI_GEMM_WORKSPACE bytes. */
int  mi_cuda_gemm(MiGemm *, void *stream, const void *x, const void *w, const void *residual, void *y, int64_t rows,
                  void *workspace);
/* Of dtype MI_F8 (E4M3; y of bf16, f16 or f32; `in` a multiple of 16): scales of x's rows, [rows], and of W's, [out]. */
int  mi_cuda_gemm_scaled(MiGemm *, void *stream, const void *x, const float *x_scales, const void *w, const float *w_scales,
                         const void *residual, void *y, int64_t rows, void *workspace);
/* "CUBLAS_STATUS_NOT_SUPPORTED" */
const char *mi_cuda_gemm_error(int status);

/* LOAD, the rest.  The class that so many rows belong to; 0: more than any. */
int  mi_cuda_gemm_class(int64_t rows);
int  mi_cuda_gemm_has(const MiGemm *, int class_); /* an algorithm was chosen for it */
double mi_cuda_gemm_work(const MiGemm *, int class_); /* multiply-adds */
/* Times some of the library's algorithms on the card, with memory of its own, for milliseconds.  adds: with a
 * residual.  algorithm: [MI_GEMM_ALGORITHM].  0: nothing could be found out. */
int  mi_cuda_gemm_measure(MiGemm *, int class_, int adds, void *algorithm);
/* From here on; 0: these bytes are none.  One that a number of rows does not allow is not used for it. */
int  mi_cuda_gemm_choose(MiGemm *, int class_, const void *algorithm, size_t bytes);
/* All that the choice depends on. */
void mi_cuda_gemm_key(const MiGemm *, int class_, int adds, char *key, size_t size);

/* y[r][i] += bias[i]; y: [rows, n], bias f32.  A cudaError_t. */
int mi_cuda_add_bias(void *stream, MiTensor y, const float *bias);
/* Small numbers of dtype; bytes: a multiple of 4.  A cudaError_t. */
int mi_cuda_noise(void *stream, void *p, size_t bytes, MiDType dtype);
/* Room for three matrices of MI_GEMM_SIDE squared halves that mean nothing.  A cudaError_t. */
enum { MI_GEMM_SIDE = 128 };
int mi_cuda_gemm_ground(void **p);

#ifdef __cplusplus
}
#endif
#endif
