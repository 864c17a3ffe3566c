/* gpu_timed.h - how long kernels take that read weights from memory. */
#ifndef TESTS_GPU_TIMED_H
#define TESTS_GPU_TIMED_H

#include "gpu.h"

#include <cuda/read.h>

/* Microseconds of one in a graph of many, over copies of the weights that the second-level cache does not hold. */
static inline double gpu_timed(void (*launch)(void *, int), void *arg)
{
    enum { N = 120 };
    cudaGraph_t     graph;
    cudaGraphExec_t run;
    cudaEvent_t     from, to;
    float           ms, best = 1e9f;

    launch(arg, 0);
    gpu_wait("warming up");
    gpu_must(cudaStreamBeginCapture(gpu_card.stream, cudaStreamCaptureModeThreadLocal), "capturing");
    for (int i = 0; i < N; i++)
        launch(arg, i);
    gpu_must(cudaStreamEndCapture(gpu_card.stream, &graph), "capturing");
    gpu_must(cudaGraphInstantiate(&run, graph, 0), "instantiating");
    cudaEventCreate(&from), cudaEventCreate(&to);
    for (int i = 0; i < 6; i++) {
        cudaEventRecord(from, gpu_card.stream), cudaGraphLaunch(run, gpu_card.stream),
            cudaEventRecord(to, gpu_card.stream);
        gpu_must(cudaEventSynchronize(to), "timing");
        cudaEventElapsedTime(&ms, from, to);
        best = i ? MIN(best, ms) : best;
    }
    cudaEventDestroy(from), cudaEventDestroy(to);
    cudaGraphExecDestroy(run), cudaGraphDestroy(graph);
    return 1e3 * (double)best / N;
}

/* Bytes a second. */
static inline double gpu_read_rate(char *p, size_t bytes)
{
    cudaEvent_t from, to;
    float       ms, best = 1e9f;

    cudaEventCreate(&from), cudaEventCreate(&to);
    for (int i = 0; i < 8; i++) {
        cudaEventRecord(from, gpu_card.stream);
        gpu_must((cudaError_t)mi_cuda_read(gpu_card.stream, p, bytes), "reading");
        cudaEventRecord(to, gpu_card.stream);
        gpu_must(cudaEventSynchronize(to), "reading");
        cudaEventElapsedTime(&ms, from, to);
        best = MIN(best, ms);
    }
    cudaEventDestroy(from), cudaEventDestroy(to);
    return (double)bytes / (double)best * 1e3;
}

#endif
