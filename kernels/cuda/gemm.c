#include "gemm.h"

#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Column-major, as the library thinks: y' [out, rows] = W (in x out, transposed) times x' (in x rows). */
enum { KEPT = 64 };

struct MiGemm {
    int64_t                out, in, x_stride, y_stride;
    cudaDataType_t         type, y_type;
    cublasLtMatmulDesc_t   product;
    cublasLtMatrixLayout_t w;
    struct { int64_t rows; cublasLtMatrixLayout_t x, y; cublasLtMatmulAlgo_t algorithm; } known[KEPT];
    int                    n_known, oldest;
};

/* ---- the library ------------------------------------------------------------------ */

/* Opened when the first product is prepared: it takes 80 ms and 170 MB, and a run on the processor none of it. */
#define FUNCTIONS(X) \
    X(cublasLtCreate) X(cublasLtMatmul) X(cublasLtMatmulDescCreate) X(cublasLtMatmulDescDestroy) \
    X(cublasLtMatmulDescSetAttribute) X(cublasLtMatrixLayoutCreate) X(cublasLtMatrixLayoutDestroy) \
    X(cublasLtMatmulPreferenceCreate) X(cublasLtMatmulPreferenceDestroy) X(cublasLtMatmulPreferenceSetAttribute) \
    X(cublasLtMatmulAlgoGetHeuristic) X(cublasLtGetStatusString)
#define POINTER(name) __typeof__(name) *name;
static struct { FUNCTIONS(POINTER) } lt;
static cublasLtHandle_t library;
static char             missing[256]; /* why it is not there */

#if CUDART_VERSION >= 13000
#define FILE_NAME "libcublasLt.so.13"
#else
#define FILE_NAME "libcublasLt.so.12"
#endif

static int find(void *so, const char *name, void *pointer)
{
    void *const at = dlsym(so, name);

    if (!at)
        snprintf(missing, sizeof missing, "%s has no %s", FILE_NAME, name);
    memcpy(pointer, &at, sizeof at);
    return at != NULL;
}

static int open_library(void)
{
    void *so;

    if (library)
        return CUBLAS_STATUS_SUCCESS;
    if (!(so = dlopen(FILE_NAME, RTLD_NOW | RTLD_LOCAL))) {
        snprintf(missing, sizeof missing, "%s", dlerror());
        return CUBLAS_STATUS_NOT_INITIALIZED;
    }
#define FIND(name) && find(so, #name, &lt.name)
    if (!(1 FUNCTIONS(FIND)))
        return CUBLAS_STATUS_NOT_INITIALIZED;
    return lt.cublasLtCreate(&library);
}

/* ---- a product ---------------------------------------------------------------------- */

static cudaDataType_t type_of(MiDType t) { return t == MI_BF16 ? CUDA_R_16BF : t == MI_F16 ? CUDA_R_16F : CUDA_R_32F; }

int mi_cuda_gemm_new(MiGemm **out_gemm, int64_t out, int64_t in, int64_t x_stride, int64_t y_stride, MiDType dtype,
                     MiDType y_dtype)
{
    const cublasOperation_t t = CUBLAS_OP_T;
    cublasStatus_t          e = (cublasStatus_t)open_library();
    MiGemm                 *g = calloc(1, sizeof *g);

    *out_gemm = NULL;
    if (!g)
        return CUBLAS_STATUS_ALLOC_FAILED;
    g->out = out, g->in = in, g->x_stride = x_stride, g->y_stride = y_stride;
    g->type = type_of(dtype), g->y_type = type_of(y_dtype);
    if (e == CUBLAS_STATUS_SUCCESS)
        e = lt.cublasLtMatmulDescCreate(&g->product, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    if (e == CUBLAS_STATUS_SUCCESS)
        e = lt.cublasLtMatmulDescSetAttribute(g->product, CUBLASLT_MATMUL_DESC_TRANSA, &t, sizeof t);
    if (e == CUBLAS_STATUS_SUCCESS)
        e = lt.cublasLtMatrixLayoutCreate(&g->w, g->type, (uint64_t)in, (uint64_t)out, in);
    if (e == CUBLAS_STATUS_SUCCESS)
        *out_gemm = g;
    else
        mi_cuda_gemm_free(g);
    return e;
}

static void forget(MiGemm *g, int i)
{
    lt.cublasLtMatrixLayoutDestroy(g->known[i].x);
    lt.cublasLtMatrixLayoutDestroy(g->known[i].y);
}

void mi_cuda_gemm_free(MiGemm *g)
{
    if (!g)
        return;
    for (int i = 0; i < g->n_known; i++)
        forget(g, i);
    if (g->w)
        lt.cublasLtMatrixLayoutDestroy(g->w);
    if (g->product)
        lt.cublasLtMatmulDescDestroy(g->product);
    free(g);
}

static int learn(MiGemm *g, int i, int64_t rows)
{
    const size_t                    room = MI_GEMM_WORKSPACE;
    cublasLtMatmulPreference_t      preference = NULL;
    cublasLtMatmulHeuristicResult_t found;
    int                             n = 0;
    cublasStatus_t e = lt.cublasLtMatrixLayoutCreate(&g->known[i].x, g->type, (uint64_t)g->in, (uint64_t)rows, g->x_stride);

    if (e != CUBLAS_STATUS_SUCCESS)
        return e;
    e = lt.cublasLtMatrixLayoutCreate(&g->known[i].y, g->y_type, (uint64_t)g->out, (uint64_t)rows, g->y_stride);
    if (e == CUBLAS_STATUS_SUCCESS)
        e = lt.cublasLtMatmulPreferenceCreate(&preference);
    if (e == CUBLAS_STATUS_SUCCESS)
        e = lt.cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &room, sizeof room);
    if (e == CUBLAS_STATUS_SUCCESS)
        e = lt.cublasLtMatmulAlgoGetHeuristic(library, g->product, g->w, g->known[i].x, g->known[i].y, g->known[i].y, preference,
                                           1, &found, &n);
    if (preference)
        lt.cublasLtMatmulPreferenceDestroy(preference);
    if (e == CUBLAS_STATUS_SUCCESS && n == 0)
        e = CUBLAS_STATUS_NOT_SUPPORTED;
    g->known[i].algorithm = found.algo;
    g->known[i].rows = rows;
    return e;
}

/* The place of what is known for so many rows; -1 with *status. */
static int place(MiGemm *g, int64_t rows, int *status)
{
    int i;

    *status = 0;
    for (i = 0; i < g->n_known; i++)
        if (g->known[i].rows == rows)
            return i;
    if (g->n_known < KEPT) {
        i = g->n_known++;
    } else {
        forget(g, i = g->oldest);
        g->oldest = (g->oldest + 1) % KEPT;
    }
    g->known[i].rows = -1;
    return (*status = learn(g, i, rows)) ? -1 : i;
}

int mi_cuda_gemm(MiGemm *g, void *stream, const void *x, const void *w, const void *residual, void *y, int64_t rows,
                 void *workspace)
{
    const float one = 1, beta = residual ? 1 : 0;
    int         status;
    const int   i = place(g, rows, &status);

    return i < 0 ? status
                 : (int)lt.cublasLtMatmul(library, g->product, &one, w, g->w, x, g->known[i].x, &beta, residual ? residual : y,
                                       g->known[i].y, y, g->known[i].y, &g->known[i].algorithm, workspace,
                                       MI_GEMM_WORKSPACE, stream);
}

const char *mi_cuda_gemm_error(int status)
{
    return lt.cublasLtGetStatusString && !missing[0] ? lt.cublasLtGetStatusString((cublasStatus_t)status) : missing;
}
