/* gemm_time.c - which of cuBLASLt's algorithms for a product is the fastest on this card. */
#include "gemm_parts.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* A copy of the weights for each of some calls in a row, so that they come from memory as they do in a step, but where
 * the product is so large that it does not matter. */
enum { TRIED = 8 };
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

static int call(const MiGemm *g, const MiGemmLayouts *l, const Bench *b, int copy, const cublasLtMatmulAlgo_t *a)
{
    const float one = 1;
    return (int)mi_gemm_lt.cublasLtMatmul(mi_gemm_library, g->product, &one, b->w + b->w_bytes * (size_t)(copy % b->copies), g->w, b->x,
                                  l->x, &b->beta, b->y, l->y, b->y, l->y, a, b->workspace,
                                  MI_GEMM_WORKSPACE, b->stream);
}

/* Some calls as one graph: launching one takes the host as long as a small product takes the card. */
static cudaGraphExec_t record(const MiGemm *g, const MiGemmLayouts *l, const Bench *b, const cublasLtMatmulAlgo_t *a)
{
    cudaGraph_t     graph = NULL;
    cudaGraphExec_t run = NULL;
    int             e = 0;

    if (call(g, l, b, 0, a) || cudaStreamBeginCapture(b->stream, cudaStreamCaptureModeThreadLocal) != cudaSuccess)
        return NULL;
    for (int k = 0; k < b->calls && !e; k++)
        e = call(g, l, b, k, a);
    if (cudaStreamEndCapture(b->stream, &graph) == cudaSuccess) {
        if (!e)
            (void)cudaGraphInstantiate(&run, graph, 0);
        (void)cudaGraphDestroy(graph);
    }
    return run;
}

/* Milliseconds of the calls, the best of some runs; infinite where it cannot run, and rough where it is far from `best`. */
static float time_of(const MiGemm *g, const MiGemmLayouts *l, const Bench *b, const cublasLtMatmulAlgo_t *a, float best)
{
    cudaGraphExec_t run = record(g, l, b, a);
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
    MiGemmLayouts                   l;
    Bench                           b;
    int                             status = 0, best = 0, n = 0;
    float                           least = HUGE_VALF;

    mi_gemm_wait();
    if (g->type == CUDA_R_32F)
        return 0;
    if (!mi_gemm_lay_out(g, class, &l))
        n = mi_gemm_ask(g, &l, TRIED, found, &status);
    if (n > 1 && bench_open(&b, g, class, adds) == 0)
        for (int k = 0; k < n; k++) {
            const float ms = time_of(g, &l, &b, &found[k].algo, least);
            /* The library's order stands unless the difference is more than noise. */
            if (ms < (k ? 0.98f : 1) * least) {
                least = ms;
                best = k;
            }
        }
    if (n > 1)
        bench_close(&b);
    mi_gemm_forget(&l);
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
             card.name, card.multiProcessorCount, driver, mi_gemm_lt.cublasLtGetVersion(), g->type == CUDA_R_16BF ? "bf16" : "f16",
             g->y_type == CUDA_R_32F ? "f32" : "the same", (long long)g->out, (long long)g->in, (long long)g->x_stride,
             (long long)g->y_stride, class, adds ? ", added" : "");
}
