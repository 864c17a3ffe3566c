#include "gemm_parts.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Column-major, as the library thinks: y' [out, rows] = W (in x out, transposed) times x' (in x rows). */

/* ---- the library ------------------------------------------------------------------ */

/* Opened when the first product is prepared: it takes 80 ms and 170 MB, and a run on the processor none of it. */
struct MiGemmLibrary mi_gemm_lt;
cublasLtHandle_t     mi_gemm_library;
#define lt mi_gemm_lt
#define library mi_gemm_library
static char missing[256]; /* why it is not there */

#define FILE_NAME MI_CUBLASLT

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
    if (!(1 MI_GEMM_FUNCTIONS(FIND)))
        return CUBLAS_STATUS_NOT_INITIALIZED;
    return lt.cublasLtCreate(&library);
}

/* ---- a form of products ----------------------------------------------------------------- */

static MiGemm         *forms; /* all that somebody holds */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of them and of what is known of them */

static cudaDataType_t type_of(MiDType t)
{
    return t == MI_BF16 ? CUDA_R_16BF : t == MI_F16 ? CUDA_R_16F : t == MI_F8 ? CUDA_R_8F_E4M3 : CUDA_R_32F;
}

int mi_gemm_lay_out(const MiGemm *g, int64_t rows, MiGemmLayouts *l)
{
    memset(l, 0, sizeof *l);
    cublasStatus_t e = lt.cublasLtMatrixLayoutCreate(&l->x, g->type, (uint64_t)g->in, (uint64_t)rows, g->x_stride);

    if (e == CUBLAS_STATUS_SUCCESS)
        e = lt.cublasLtMatrixLayoutCreate(&l->y, g->y_type, (uint64_t)g->out, (uint64_t)rows, g->y_stride);
    return e;
}

void mi_gemm_forget(MiGemmLayouts *l)
{
    if (l->x)
        lt.cublasLtMatrixLayoutDestroy(l->x);
    if (l->y)
        lt.cublasLtMatrixLayoutDestroy(l->y);
    memset(l, 0, sizeof *l);
}

/* Sums of 8-bit products are kept by the tensor cores, which is twice as fast, and scales are the rows' of both sides. */
static cublasStatus_t describe_scaled(MiGemm *g)
{
#if CUDART_VERSION >= 12090
    const int8_t  fast = 1;
    const int32_t mode = CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
    cublasStatus_t e = lt.cublasLtMatmulDescSetAttribute(g->product, CUBLASLT_MATMUL_DESC_FAST_ACCUM, &fast, sizeof fast);

    if (e == CUBLAS_STATUS_SUCCESS)
        e = lt.cublasLtMatmulDescSetAttribute(g->product, CUBLASLT_MATMUL_DESC_A_SCALE_MODE, &mode, sizeof mode);
    if (e == CUBLAS_STATUS_SUCCESS)
        e = lt.cublasLtMatmulDescSetAttribute(g->product, CUBLASLT_MATMUL_DESC_B_SCALE_MODE, &mode, sizeof mode);
    return e;
#else
    (void)g;
    return CUBLAS_STATUS_NOT_SUPPORTED;
#endif
}

static int describe(MiGemm *g)
{
    const cublasOperation_t t = CUBLAS_OP_T;
    cublasStatus_t          e = lt.cublasLtMatmulDescCreate(&g->product, CUBLAS_COMPUTE_32F, CUDA_R_32F);

    if (e == CUBLAS_STATUS_SUCCESS)
        e = lt.cublasLtMatmulDescSetAttribute(g->product, CUBLASLT_MATMUL_DESC_TRANSA, &t, sizeof t);
    if (e == CUBLAS_STATUS_SUCCESS && g->type == CUDA_R_8F_E4M3)
        e = describe_scaled(g);
    if (e == CUBLAS_STATUS_SUCCESS)
        e = lt.cublasLtMatrixLayoutCreate(&g->w, g->type, (uint64_t)g->in, (uint64_t)g->out, g->in);
    return e;
}

static void destroy(MiGemm *g)
{
    for (int i = 0; i < g->n_known; i++)
        mi_gemm_forget(&g->known[i].sides);
    if (g->w)
        lt.cublasLtMatrixLayoutDestroy(g->w);
    if (g->product)
        lt.cublasLtMatmulDescDestroy(g->product);
    free(g);
}

/* One that is described, or its status; `like` says what of. */
static int form_of(const MiGemm *like, MiGemm **found)
{
    MiGemm *g = forms;
    int     e;

    while (g && (g->out != like->out || g->in != like->in || g->x_stride != like->x_stride || g->y_stride != like->y_stride ||
                 g->type != like->type || g->y_type != like->y_type))
        g = g->next;
    if (!g) {
        if (!(g = calloc(1, sizeof *g)))
            return CUBLAS_STATUS_ALLOC_FAILED;
        *g = *like;
        if ((e = describe(g))) {
            destroy(g);
            return e;
        }
        g->next = forms;
        forms = g;
    }
    g->users++;
    *found = g;
    return 0;
}

/* ---- which algorithm ---------------------------------------------------------------------- */

int mi_cuda_gemm_class(int64_t rows)
{
    for (int c = MI_GEMM_LEAST; c <= MI_GEMM_MOST; c *= 2)
        if (rows <= c + c / 4)
            return c;
    return 0;
}

/* The last number of rows of the step that so many belong to. */
static int64_t step_of(int64_t rows)
{
    int64_t step = 64;

    while (rows <= step / 2 && step > 1)
        step /= 2;
    while (rows > step * 8)
        step *= 2;
    return (rows + step - 1) / step * step;
}

static const cublasLtMatmulAlgo_t *chosen(const MiGemm *g, int class)
{
    for (int i = 0; i < g->n_chosen; i++)
        if (g->chosen[i].class == class)
            return &g->chosen[i].algorithm;
    return NULL;
}

int mi_cuda_gemm_has(const MiGemm *g, int class) { return chosen(g, class) != NULL; }

double mi_cuda_gemm_work(const MiGemm *g, int class) { return (double)class * (double)g->in * (double)g->out; }

int mi_cuda_gemm_choose(MiGemm *g, int class, const void *algorithm, size_t bytes)
{
    pthread_mutex_lock(&lock);
    const int can = bytes == sizeof g->chosen[0].algorithm && g->n_chosen < MI_GEMM_CLASSES && !chosen(g, class);
    if (can) {
        memcpy(&g->chosen[g->n_chosen].algorithm, algorithm, bytes);
        g->chosen[g->n_chosen++].class = class;
    }
    pthread_mutex_unlock(&lock);
    return can;
}

int mi_gemm_ask(const MiGemm *g, const MiGemmLayouts *l, int most, cublasLtMatmulHeuristicResult_t *found, int *status)
{
    const size_t               room = MI_GEMM_WORKSPACE;
    cublasLtMatmulPreference_t preference = NULL;
    int                        n = 0;
    cublasStatus_t             e = lt.cublasLtMatmulPreferenceCreate(&preference);

    if (e == CUBLAS_STATUS_SUCCESS)
        e = lt.cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &room, sizeof room);
    if (e == CUBLAS_STATUS_SUCCESS)
        e = lt.cublasLtMatmulAlgoGetHeuristic(library, g->product, g->w, l->x, l->y, l->y, preference, most, found, &n);
    if (preference)
        lt.cublasLtMatmulPreferenceDestroy(preference);
    *status = e != CUBLAS_STATUS_SUCCESS ? e : n ? 0 : CUBLAS_STATUS_NOT_SUPPORTED;
    return *status ? 0 : n;
}

static int fits(const MiGemm *g, const MiGemmLayouts *l, const cublasLtMatmulAlgo_t *a)
{
    cublasLtMatmulHeuristicResult_t r;

    return lt.cublasLtMatmulAlgoCheck(library, g->product, g->w, l->x, l->y, l->y, a, &r) == CUBLAS_STATUS_SUCCESS &&
           r.workspaceSize <= MI_GEMM_WORKSPACE;
}

/* What the library proposes for the last number of rows of a step; NULL: nothing.  Locked. */
static const cublasLtMatmulAlgo_t *proposal(const MiGemm *g, int64_t step)
{
    for (int i = 0; i < g->n_proposed; i++)
        if (g->proposed[i].rows == step)
            return &g->proposed[i].algorithm;
    return NULL;
}

static const cublasLtMatmulAlgo_t *propose(MiGemm *g, int64_t step, const cublasLtMatmulAlgo_t *a)
{
    const cublasLtMatmulAlgo_t *have = proposal(g, step);

    if (have || g->n_proposed == MI_GEMM_PROPOSED)
        return have;
    g->proposed[g->n_proposed].rows = step;
    g->proposed[g->n_proposed].algorithm = *a;
    return &g->proposed[g->n_proposed++].algorithm;
}

static int ask_for(const MiGemm *g, int64_t rows, cublasLtMatmulAlgo_t *out)
{
    cublasLtMatmulHeuristicResult_t found;
    MiGemmLayouts                   l;
    int                             status = mi_gemm_lay_out(g, rows, &l), n = 0;

    if (!status && (n = mi_gemm_ask(g, &l, 1, &found, &status)))
        *out = found.algo;
    mi_gemm_forget(&l);
    return n;
}

/* What was chosen by timing, else what is proposed for the step, where that can do so many rows; else what the library
 * proposes for just these.  To ask it takes a good part of a millisecond. */
static int learn(MiGemm *g, int i, int64_t rows)
{
    const cublasLtMatmulAlgo_t     *a;
    const MiGemmLayouts            *l = &g->known[i].sides;
    const int64_t                   step = step_of(rows);
    cublasLtMatmulHeuristicResult_t found;
    cublasLtMatmulAlgo_t            asked;
    int                             status = mi_gemm_lay_out(g, rows, &g->known[i].sides);

    if (status)
        return status;
    if ((!(a = chosen(g, mi_cuda_gemm_class(rows))) || !fits(g, l, a)) &&
        ((!(a = proposal(g, step)) && (!ask_for(g, step, &asked) || !(a = propose(g, step, &asked)))) || !fits(g, l, a)))
        a = mi_gemm_ask(g, l, 1, &found, &status) ? &found.algo : NULL;
    if (a) {
        g->known[i].algorithm = *a;
        g->known[i].rows = rows;
    }
    return status;
}

/* The place of what is known for so many rows; -1 with *status. */
static int place(MiGemm *g, int64_t rows, int *status)
{
    int i;

    *status = 0;
    for (i = 0; i < g->n_known; i++)
        if (g->known[i].rows == rows)
            return i;
    if (g->n_known < MI_GEMM_KEPT) {
        i = g->n_known++;
    } else {
        mi_gemm_forget(&g->known[i = g->oldest].sides);
        g->oldest = (g->oldest + 1) % MI_GEMM_KEPT;
    }
    memset(&g->known[i], 0, sizeof g->known[i]);
    g->known[i].rows = -1;
    return (*status = learn(g, i, rows)) ? -1 : i;
}

static int multiply(const MiGemm *g, const MiGemmLayouts *l, const cublasLtMatmulAlgo_t *a, void *stream, const void *x,
                    const void *w, const void *residual, void *y, void *workspace)
{
    const float one = 1, beta = residual ? 1 : 0;

    return (int)lt.cublasLtMatmul(library, g->product, &one, w, g->w, x, l->x, &beta, residual ? residual : y, l->y, y, l->y, a,
                                  workspace, MI_GEMM_WORKSPACE, stream);
}

/* The operands' scales belong to the form: whoever multiplies sets them. */
static int scale_by(MiGemm *g, const float *x_scales, const float *w_scales)
{
    cublasStatus_t e = lt.cublasLtMatmulDescSetAttribute(g->product, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, &w_scales, sizeof w_scales);

    return e != CUBLAS_STATUS_SUCCESS
               ? e : lt.cublasLtMatmulDescSetAttribute(g->product, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, &x_scales, sizeof x_scales);
}

int mi_cuda_gemm(MiGemm *g, void *stream, const void *x, const void *w, const void *residual, void *y, int64_t rows,
                 void *workspace)
{
    return mi_cuda_gemm_scaled(g, stream, x, NULL, w, NULL, residual, y, rows, workspace);
}

int mi_cuda_gemm_scaled(MiGemm *g, void *stream, const void *x, const float *x_scales, const void *w, const float *w_scales,
                        const void *residual, void *y, int64_t rows, void *workspace)
{
    int status = 0;

    mi_gemm_wait();
    pthread_mutex_lock(&lock); /* who else holds this form may make room in it */
    if (x_scales && (status = scale_by(g, x_scales, w_scales))) {
        pthread_mutex_unlock(&lock);
        return status;
    }
    const int i = place(g, rows, &status);
    if (i >= 0)
        status = multiply(g, &g->known[i].sides, &g->known[i].algorithm, stream, x, w, residual, y, workspace);
    pthread_mutex_unlock(&lock);
    return status;
}

const char *mi_cuda_gemm_error(int status)
{
    return lt.cublasLtGetStatusString && !missing[0] ? lt.cublasLtGetStatusString((cublasStatus_t)status) : missing;
}

/* ---- meanwhile ---------------------------------------------------------------------------- */

/* The library's first answer takes 70 ms, for tables that it reads, and the first product loads code: a thread asks for
 * a small product that nobody needs, and does it, while the start goes on. */
enum { SQUARE = MI_GEMM_SIDE * MI_GEMM_SIDE * 2 /* bytes */ };
static pthread_t warmer;
static int       warming, device_of_warmer; /* warming: to be joined; locked */

static void warm_up(char *memory, cudaStream_t stream)
{
    const MiGemm like = { .out = MI_GEMM_SIDE, .in = MI_GEMM_SIDE, .x_stride = MI_GEMM_SIDE, .y_stride = MI_GEMM_SIDE,
                          .type = CUDA_R_16BF, .y_type = CUDA_R_16BF };
    MiGemm      *g = calloc(1, sizeof *g);
    cublasLtMatmulAlgo_t a;
    MiGemmLayouts        l;

    if (!g)
        return;
    *g = like;
    if (!describe(g) && ask_for(g, MI_GEMM_SIDE, &a) && !mi_gemm_lay_out(g, MI_GEMM_SIDE, &l)) {
        (void)multiply(g, &l, &a, stream, memory, memory + SQUARE, NULL, memory + 2 * SQUARE, NULL);
        mi_gemm_forget(&l);
    }
    destroy(g);
}

static void *warm(void *unused)
{
    cudaStream_t stream = NULL;
    void        *memory = NULL;

    (void)unused;
    if (cudaSetDevice(device_of_warmer) == cudaSuccess && mi_cuda_gemm_ground(&memory) == cudaSuccess &&
        cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess)
        warm_up(memory, stream);
    if (stream) {
        (void)cudaStreamSynchronize(stream);
        (void)cudaStreamDestroy(stream);
    }
    (void)cudaGetLastError();
    return NULL;
}

/* Locked. */
static void begin_warming(void)
{
    static int once;

    if (once++ || cudaGetDevice(&device_of_warmer) != cudaSuccess)
        return;
    warming = pthread_create(&warmer, NULL, warm, NULL) == 0;
}

void mi_gemm_wait(void)
{
    pthread_mutex_lock(&lock);
    if (warming)
        (void)pthread_join(warmer, NULL);
    warming = 0;
    pthread_mutex_unlock(&lock);
}

/* ---- who holds a form ------------------------------------------------------------------------ */

int mi_cuda_gemm_new(MiGemm **out_gemm, int64_t out, int64_t in, int64_t x_stride, int64_t y_stride, MiDType dtype,
                     MiDType y_dtype)
{
    const MiGemm like = { .out = out, .in = in, .x_stride = x_stride, .y_stride = y_stride, .type = type_of(dtype),
                          .y_type = type_of(y_dtype) };

    *out_gemm = NULL;
    pthread_mutex_lock(&lock);
    int e = open_library();
    if (!e) {
        begin_warming();
        e = form_of(&like, out_gemm);
    }
    pthread_mutex_unlock(&lock);
    return e;
}

void mi_cuda_gemm_free(MiGemm *g)
{
    MiGemm **at = &forms;

    if (!g)
        return;
    mi_gemm_wait(); /* before the process may end */
    pthread_mutex_lock(&lock);
    if (!--g->users) {
        while (*at != g)
            at = &(*at)->next;
        *at = g->next;
        destroy(g);
    }
    pthread_mutex_unlock(&lock);
}
