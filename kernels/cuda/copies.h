/* copies.h - small copies between pinned host memory and a card's, as one kernel.
 *
 * A copy by the engine that is made for it costs a few microseconds on either side of
 * a short step: it waits for the kernels, they wait for it.  A kernel between kernels
 * does not, and host memory that is pinned is in its reach. */
#ifndef KERNELS_CUDA_COPIES_H
#define KERNELS_CUDA_COPIES_H

#include <miniinfer/types.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { MI_CUDA_COPIES = 32 };
typedef struct {
    struct { void *dst; const void *src; size_t bytes; } at[MI_CUDA_COPIES];
} MiCudaCopies;

/* Bytes and addresses are multiples of 4.  A cudaError_t. */
int mi_cuda_copy_all(void *stream, const MiCudaCopies *, int n);
/* Of a graph that is launched from here on: what a node that mi_cuda_copy_all() recorded copies.  run: a
 * cudaGraphExec_t; node: of the graph it was made of. */
int mi_cuda_copy_all_set(void *run, void *node, const MiCudaCopies *, int n);

#ifdef __cplusplus
}
#endif
#endif
