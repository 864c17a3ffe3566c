#include "gemm.h"

#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Column-major, as the library thinks: y' [out, rows] = W (in x out, transposed) times x' (in x rows). */
enum { KEPT = 64, CLASSES = 16, TRIED = 8 };

/* One for all products of one form, however many layers have it. */
struct MiGemm {
    int64_t                out, in, x_stride, y_stride;
    cudaDataType_t         type, y_type;
    cublasLtMatmulDesc_t   product;
    cublasLtMatrixLayout_t w;
    struct { int64_t rows; cublasLtMatrixLayout_t x, y; cublasLtMatmulAlgo_t algorithm; } known[KEPT];
    int                    n_known, oldest;
    struct { int class; cublasLtMatmulAlgo_t algorithm; } chosen[CLASSES];
    int                    n_chosen, users;
    struct MiGemm         *next;
};

/* ---- the library ------------------------------------------------------------------ */

/* Opened when the first product is prepared: it takes 80 ms and 170 MB, and a run on the processor none of it. */
#define FUNCTIONS(X) \
    X(cublasLtCreate) X(cublasLtMatmul) X(cublasLtMatmulDescCreate) X(cublasLtMatmulDescDestroy) \
    X(cublasLtMatmulDescSetAttribute) X(cublasLtMatrixLayoutCreate) X(cublasLtMatrixLayoutDestroy) \
    X(cublasLtMatmulPreferenceCreate) X(cublasLtMatmulPreferenceDestroy) X(cublasLtMatmulPreferenceSetAttribute) \
    X(cublasLtMatmulAlgoGetHeuristic) X(cublasLtMatmulAlgoCheck) X(cublasLtGetStatusString) X(cublasLtGetVersion)
#define POINTER(name) __typeof__(name) *name;
static struct { FUNCTIONS(POINTER) } lt;
static cublasLtHandle_t library;
static char             missing[256]; /* why it is not there */

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
    if (!(1 FUNCTIONS(FIND)))
        return CUBLAS_STATUS_NOT_INITIALIZED;
    return lt.cublasLtCreate(&library);
}

/* ---- the first call takes 70 ms ------------------------------------------------------- */

/* Asking for an algorithm for the first time reads tables, and the first product loads code: a thread does both for a
 * small product that nobody needs, while the start goes on. */
enum { SQUARE = MI_GEMM_SIDE * MI_GEMM_SIDE * 2 }; /* bytes */
static pthread_t warmer;
static int       warming, device_of_warmer;

static void warm_up(cublasLtMatmulDesc_t product, cublasLtMatrixLayout_t side, cublasLtMatmulPreference_t preference)
{
    const float                     one = 1, zero = 0;
    cublasLtMatmulHeuristicResult_t found;
    cudaStream_t                    stream = NULL;
    void                           *memory = NULL;
    int                             n = 0;

    if (mi_cuda_gemm_ground(&memory) == cudaSuccess &&
        cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess &&
        lt.cublasLtMatmulAlgoGetHeuristic(library, product, side, side, side, side, preference, 1, &found, &n) ==
            CUBLAS_STATUS_SUCCESS && n)
        (void)lt.cublasLtMatmul(library, product, &one, memory, side, (char *)memory + SQUARE, side, &zero,
                                (char *)memory + 2 * SQUARE, side, (char *)memory + 2 * SQUARE, side, &found.algo, NULL, 0, stream);
    if (stream) {
        (void)cudaStreamSynchronize(stream);
        (void)cudaStreamDestroy(stream);
    }
}

static void *warm(void *unused)
{
    cublasLtMatmulDesc_t       product = NULL;
    cublasLtMatrixLayout_t     side = NULL;
    cublasLtMatmulPreference_t preference = NULL;
    const cublasOperation_t    t = CUBLAS_OP_T;

    (void)unused;
    if (cudaSetDevice(device_of_warmer) == cudaSuccess &&
        lt.cublasLtMatmulDescCreate(&product, CUBLAS_COMPUTE_32F, CUDA_R_32F) == CUBLAS_STATUS_SUCCESS &&
        lt.cublasLtMatmulDescSetAttribute(product, CUBLASLT_MATMUL_DESC_TRANSA, &t, sizeof t) == CUBLAS_STATUS_SUCCESS &&
        lt.cublasLtMatrixLayoutCreate(&side, CUDA_R_16BF, MI_GEMM_SIDE, MI_GEMM_SIDE, MI_GEMM_SIDE) == CUBLAS_STATUS_SUCCESS &&
        lt.cublasLtMatmulPreferenceCreate(&preference) == CUBLAS_STATUS_SUCCESS)
        warm_up(product, side, preference);
    (void)cudaGetLastError();
    if (preference)
        lt.cublasLtMatmulPreferenceDestroy(preference);
    if (side)
        lt.cublasLtMatrixLayoutDestroy(side);
    if (product)
        lt.cublasLtMatmulDescDestroy(product);
    return NULL;
}

static void begin_warming(void)
{
    static int once;

    if (once++ || cudaGetDevice(&device_of_warmer) != cudaSuccess)
        return;
    warming = pthread_create(&warmer, NULL, warm, NULL) == 0;
}

static void end_warming(void)
{
    if (warming)
        (void)pthread_join(warmer, NULL);
    warming = 0;
}

/* ---- a form of products ----------------------------------------------------------------- */

static MiGemm         *forms; /* all that somebody holds */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of them */

static cudaDataType_t type_of(MiDType t) { return t == MI_BF16 ? CUDA_R_16BF : t == MI_F16 ? CUDA_R_16F : CUDA_R_32F; }

static void forget(MiGemm *g, int i)
{
    if (g->known[i].x)
        lt.cublasLtMatrixLayoutDestroy(g->known[i].x);
    if (g->known[i].y)
        lt.cublasLtMatrixLayoutDestroy(g->known[i].y);
}

static int describe(MiGemm *g)
{
    const cublasOperation_t t = CUBLAS_OP_T;
    cublasStatus_t          e = lt.cublasLtMatmulDescCreate(&g->product, CUBLAS_COMPUTE_32F, CUDA_R_32F);

    if (e == CUBLAS_STATUS_SUCCESS)
        e = lt.cublasLtMatmulDescSetAttribute(g->product, CUBLASLT_MATMUL_DESC_TRANSA, &t, sizeof t);
    if (e == CUBLAS_STATUS_SUCCESS)
        e = lt.cublasLtMatrixLayoutCreate(&g->w, g->type, (uint64_t)g->in, (uint64_t)g->out, g->in);
    return e;
}

static void destroy(MiGemm *g)
{
    for (int i = 0; i < g->n_known; i++)
        forget(g, i);
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
    pthread_mutex_lock(&lock);
    if (!--g->users) {
        end_warming(); /* before the process may end */
        while (*at != g)
            at = &(*at)->next;
        *at = g->next;
        destroy(g);
    }
    pthread_mutex_unlock(&lock);
}

/* ---- which algorithm ---------------------------------------------------------------------- */

int mi_cuda_gemm_class(int64_t rows)
{
    for (int c = MI_GEMM_LEAST; c <= MI_GEMM_MOST; c *= 2)
        if (rows <= c + c / 4)
            return c;
    return 0;
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
    if (bytes != sizeof g->chosen[0].algorithm || g->n_chosen == CLASSES || chosen(g, class))
        return 0;
    memcpy(&g->chosen[g->n_chosen].algorithm, algorithm, bytes);
    g->chosen[g->n_chosen++].class = class;
    return 1;
}

/* The library's own choices, best first; 0 with *status: none. */
static int ask(const MiGemm *g, int i, int most, cublasLtMatmulHeuristicResult_t *found, int *status)
{
    const size_t               room = MI_GEMM_WORKSPACE;
    cublasLtMatmulPreference_t preference = NULL;
    int                        n = 0;
    cublasStatus_t             e = lt.cublasLtMatmulPreferenceCreate(&preference);

    if (e == CUBLAS_STATUS_SUCCESS)
        e = lt.cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &room, sizeof room);
    if (e == CUBLAS_STATUS_SUCCESS)
        e = lt.cublasLtMatmulAlgoGetHeuristic(library, g->product, g->w, g->known[i].x, g->known[i].y, g->known[i].y, preference,
                                              most, found, &n);
    if (preference)
        lt.cublasLtMatmulPreferenceDestroy(preference);
    *status = e != CUBLAS_STATUS_SUCCESS ? e : n ? 0 : CUBLAS_STATUS_NOT_SUPPORTED;
    return *status ? 0 : n;
}

/* What was chosen by timing, where it can do so many rows, too. */
static int recalled(const MiGemm *g, int i, int64_t rows, cublasLtMatmulAlgo_t *out)
{
    const cublasLtMatmulAlgo_t     *a = chosen(g, mi_cuda_gemm_class(rows));
    cublasLtMatmulHeuristicResult_t fits;

    if (!a || lt.cublasLtMatmulAlgoCheck(library, g->product, g->w, g->known[i].x, g->known[i].y, g->known[i].y, a, &fits) !=
                  CUBLAS_STATUS_SUCCESS || fits.workspaceSize > MI_GEMM_WORKSPACE)
        return 0;
    *out = *a;
    return 1;
}

/* Layouts for so many rows at place i. */
static int lay_out(MiGemm *g, int i, int64_t rows)
{
    cublasStatus_t e = lt.cublasLtMatrixLayoutCreate(&g->known[i].x, g->type, (uint64_t)g->in, (uint64_t)rows, g->x_stride);

    if (e == CUBLAS_STATUS_SUCCESS)
        e = lt.cublasLtMatrixLayoutCreate(&g->known[i].y, g->y_type, (uint64_t)g->out, (uint64_t)rows, g->y_stride);
    return e;
}

static int learn(MiGemm *g, int i, int64_t rows)
{
    cublasLtMatmulHeuristicResult_t found;
    int                             status = lay_out(g, i, rows);

    end_warming();
    if (!status && !recalled(g, i, rows, &g->known[i].algorithm) && ask(g, i, 1, &found, &status))
        g->known[i].algorithm = found.algo;
    g->known[i].rows = status ? -1 : rows;
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
    if (g->n_known < KEPT) {
        i = g->n_known++;
    } else {
        forget(g, i = g->oldest);
        g->oldest = (g->oldest + 1) % KEPT;
    }
    memset(&g->known[i], 0, sizeof g->known[i]);
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

/* ---- timing -------------------------------------------------------------------------------- */

/* A copy of the weights for each of some calls in a row, so that they come from memory as they do in a step, but where
 * the product is so large that it does not matter. */
enum { WEIGHTS = 192 << 20, COPIES = 20, RUNS = 3, RUN_US = 300 };

typedef struct {
    char        *memory, *x, *w, *y, *workspace;
    size_t       w_bytes;
    int          copies, calls; /* of the weights; of a run */
    float        beta;
    cudaStream_t stream;
    cudaEvent_t  from, to;
} Bench;

static size_t aligned(size_t bytes) { return (bytes + 255) / 256 * 256; }

static int bench_open(Bench *b, const MiGemm *g, int64_t rows, int adds)
{
    const size_t x = aligned((size_t)(rows * g->x_stride) * 2);
    const size_t y = aligned((size_t)(rows * g->y_stride) * (g->y_type == CUDA_R_32F ? 4 : 2));
    const double us = 2e-6 * (double)rows * (double)g->out * (double)g->in / 600 + (double)g->out * (double)g->in * 2e-6 / 3;
    size_t       all;

    *b = (Bench){ .w_bytes = aligned((size_t)(g->out * g->in) * 2), .beta = adds ? 1 : 0 };
    b->copies = (int)(WEIGHTS / b->w_bytes);
    b->copies = b->copies < 1 ? 1 : b->copies > COPIES ? COPIES : b->copies;
    b->calls = (int)(RUN_US / us);
    b->calls = b->calls < 2 ? 2 : b->calls > COPIES ? COPIES : b->calls;
    all = x + y + (size_t)b->copies * b->w_bytes + MI_GEMM_WORKSPACE;
    cudaError_t e = cudaMalloc((void **)&b->memory, all);
    b->workspace = b->memory;
    b->x = b->workspace + MI_GEMM_WORKSPACE;
    b->y = b->x + x;
    b->w = b->y + y;
    e = e ? e : cudaStreamCreateWithFlags(&b->stream, cudaStreamNonBlocking);
    e = e ? e : cudaEventCreate(&b->from);
    e = e ? e : cudaEventCreate(&b->to);
    /* Zeros would draw less power than numbers do; two small ones of 16 bits are one of 32, too. */
    return e ? (int)e : mi_cuda_noise(b->stream, b->memory, all, g->type == CUDA_R_16BF ? MI_BF16 : MI_F16);
}

static void bench_close(Bench *b)
{
    if (b->to)
        (void)cudaEventDestroy(b->to);
    if (b->from)
        (void)cudaEventDestroy(b->from);
    if (b->stream) {
        (void)cudaStreamSynchronize(b->stream);
        (void)cudaStreamDestroy(b->stream);
    }
    (void)cudaFree(b->memory);
    (void)cudaGetLastError();
}

static int call(const MiGemm *g, int i, const Bench *b, int copy, const cublasLtMatmulAlgo_t *a)
{
    const float one = 1;
    return (int)lt.cublasLtMatmul(library, g->product, &one, b->w + b->w_bytes * (size_t)(copy % b->copies), g->w, b->x,
                                  g->known[i].x, &b->beta, b->y, g->known[i].y, b->y, g->known[i].y, a, b->workspace,
                                  MI_GEMM_WORKSPACE, b->stream);
}

/* Some calls as one graph: launching one takes the host as long as a small product takes the card. */
static cudaGraphExec_t record(const MiGemm *g, int i, const Bench *b, const cublasLtMatmulAlgo_t *a)
{
    cudaGraph_t     graph = NULL;
    cudaGraphExec_t run = NULL;
    int             e = 0;

    if (call(g, i, b, 0, a) || cudaStreamBeginCapture(b->stream, cudaStreamCaptureModeThreadLocal) != cudaSuccess)
        return NULL;
    for (int k = 0; k < b->calls && !e; k++)
        e = call(g, i, b, k, a);
    if (cudaStreamEndCapture(b->stream, &graph) == cudaSuccess) {
        if (!e)
            (void)cudaGraphInstantiate(&run, graph, 0);
        (void)cudaGraphDestroy(graph);
    }
    return run;
}

/* Milliseconds of the calls, the best of some runs; infinite where it cannot run, and rough where it is far from `best`. */
static float time_of(const MiGemm *g, int i, const Bench *b, const cublasLtMatmulAlgo_t *a, float best)
{
    cudaGraphExec_t run = record(g, i, b, a);
    float           least = HUGE_VALF, ms;

    for (int k = 0; run && k < 1 + RUNS && (k < 2 || least < 1.2f * best); k++) {
        if (cudaEventRecord(b->from, b->stream) || cudaGraphLaunch(run, b->stream) || cudaEventRecord(b->to, b->stream) ||
            cudaEventSynchronize(b->to) || cudaEventElapsedTime(&ms, b->from, b->to))
            break;
        least = k && ms < least ? ms : least;
    }
    if (run)
        (void)cudaGraphExecDestroy(run);
    return least;
}

int mi_cuda_gemm_measure(MiGemm *g, int class, int adds, void *algorithm)
{
    cublasLtMatmulHeuristicResult_t found[TRIED];
    Bench                           b;
    int                             status = 0, best = 0, i = g->n_known, n = 0;
    float                           least = HUGE_VALF;

    end_warming();
    if (i == KEPT || g->type == CUDA_R_32F)
        return 0;
    memset(&g->known[i], 0, sizeof g->known[i]);
    if (!lay_out(g, i, class))
        n = ask(g, i, TRIED, found, &status);
    if (n > 1 && bench_open(&b, g, class, adds) == 0)
        for (int k = 0; k < n; k++) {
            const float ms = time_of(g, i, &b, &found[k].algo, least);
            /* The library's order stands unless the difference is more than noise. */
            if (ms < (k ? 0.98f : 1) * least) {
                least = ms;
                best = k;
            }
        }
    if (n > 1)
        bench_close(&b);
    forget(g, i);
    memset(&g->known[i], 0, sizeof g->known[i]);
    if (!n || (n > 1 && least == HUGE_VALF))
        return 0;
    memcpy(algorithm, &found[best].algo, sizeof found[best].algo);
    return 1;
}

void mi_cuda_gemm_key(const MiGemm *g, int class, int adds, char *key, size_t size)
{
    static struct cudaDeviceProp card; /* takes a millisecond to ask for */
    static int                   asked = -1;
    int                          device = 0, driver = 0;

    (void)cudaGetDevice(&device);
    (void)cudaDriverGetVersion(&driver);
    if (asked != device && cudaGetDeviceProperties(&card, device) == cudaSuccess)
        asked = device;
    snprintf(key, size, "gemm %s, %d SMs, driver %d, cuBLASLt %zu, %s to %s, out %lld, in %lld, strides %lld %lld, rows %d%s",
             card.name, card.multiProcessorCount, driver, lt.cublasLtGetVersion(), g->type == CUDA_R_16BF ? "bf16" : "f16",
             g->y_type == CUDA_R_32F ? "f32" : "the same", (long long)g->out, (long long)g->in, (long long)g->x_stride,
             (long long)g->y_stride, class, adds ? ", added" : "");
}
