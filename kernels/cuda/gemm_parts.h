/* gemm_parts.h - what gemm.c and gemm_time.c share. */
#ifndef KERNELS_CUDA_GEMM_PARTS_H
#define KERNELS_CUDA_GEMM_PARTS_H

#include "gemm.h"

#include <cublasLt.h>
#include <cuda_runtime_api.h>

enum { MI_GEMM_KEPT = 64, MI_GEMM_PROPOSED = 48, MI_GEMM_CLASSES = 16 };

typedef struct {
    cublasLtMatrixLayout_t x, y;
} MiGemmLayouts;

/* One for all products of one form, however many layers have it. */
struct MiGemm {
    int64_t                out, in, x_stride, y_stride;
    cudaDataType_t         type, y_type;
    cublasLtMatmulDesc_t   product;
    cublasLtMatrixLayout_t w;
    struct { int64_t rows; MiGemmLayouts sides; cublasLtMatmulAlgo_t algorithm; } known[MI_GEMM_KEPT];
    int                    n_known, oldest;
    struct { int64_t rows; cublasLtMatmulAlgo_t algorithm; } proposed[MI_GEMM_PROPOSED]; /* by the library, for a step */
    int                    n_proposed;
    struct { int class; cublasLtMatmulAlgo_t algorithm; } chosen[MI_GEMM_CLASSES];
    int                    n_chosen, users;
    struct MiGemm         *next;
};

#define MI_GEMM_FUNCTIONS(X) \
    X(cublasLtCreate) X(cublasLtMatmul) X(cublasLtMatmulDescCreate) X(cublasLtMatmulDescDestroy) \
    X(cublasLtMatmulDescSetAttribute) X(cublasLtMatrixLayoutCreate) X(cublasLtMatrixLayoutDestroy) \
    X(cublasLtMatmulPreferenceCreate) X(cublasLtMatmulPreferenceDestroy) X(cublasLtMatmulPreferenceSetAttribute) \
    X(cublasLtMatmulAlgoGetHeuristic) X(cublasLtMatmulAlgoCheck) X(cublasLtGetStatusString) X(cublasLtGetVersion)
#define MI_GEMM_POINTER(name) __typeof__(name) *name;
extern struct MiGemmLibrary { MI_GEMM_FUNCTIONS(MI_GEMM_POINTER) } mi_gemm_lt;
extern cublasLtHandle_t mi_gemm_library;

/* For so many rows; what was made has to be forgotten even where the status says that something failed. */
int  mi_gemm_lay_out(const MiGemm *, int64_t rows, MiGemmLayouts *out);
void mi_gemm_forget(MiGemmLayouts *);
/* The library's own choices, best first; 0 with *status: none. */
int  mi_gemm_ask(const MiGemm *, const MiGemmLayouts *, int most, cublasLtMatmulHeuristicResult_t *found, int *status);
/* Waits until the library has read its tables. */
void mi_gemm_wait(void);

#endif
