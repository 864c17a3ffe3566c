/* gemm.h - y = x W' (+ c) by cuBLASLt, for one W at many numbers of rows.
 *
 * Plain row-major matrices of one dtype, sums in f32.  The algorithm is the
 * library's first choice for a number of rows, asked once for each and kept. */
#ifndef KERNELS_CUDA_GEMM_H
#define KERNELS_CUDA_GEMM_H

#include <miniinfer/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What a call may use beside its operands; algorithms that need more are not considered. */
enum { MI_GEMM_WORKSPACE = 32 << 20 };

typedef struct MiGemm MiGemm;

/* x: [rows, in] of dtype, W: [out, in] of dtype, y: [rows, out] of y_dtype, which is dtype or f32.
 * x_stride, y_stride: elements between rows.  A cublasStatus_t that is not 0: there is no such product. */
int  mi_cuda_gemm_new(MiGemm **out_gemm, int64_t out, int64_t in, int64_t x_stride, int64_t y_stride, MiDType dtype,
                      MiDType y_dtype);
void mi_cuda_gemm_free(MiGemm *);
/* residual: like y, added to it; NULL: none; may be y.  workspace: MI_GEMM_WORKSPACE bytes. */
int  mi_cuda_gemm(MiGemm *, void *stream, const void *x, const void *w, const void *residual, void *y, int64_t rows,
                  void *workspace);
/* "CUBLAS_STATUS_NOT_SUPPORTED" */
const char *mi_cuda_gemm_error(int status);

/* y[r][i] += bias[i]; y: [rows, n], bias f32.  A cudaError_t. */
int mi_cuda_add_bias(void *stream, MiTensor y, const float *bias);

#ifdef __cplusplus
}
#endif
#endif
