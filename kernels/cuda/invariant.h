/* invariant.h - y = x W' + b for any number of rows, each of which gets the same bits whatever rows are beside it. */
#ifndef KERNELS_CUDA_INVARIANT_H
#define KERNELS_CUDA_INVARIANT_H

#include <miniinfer/types.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { MI_INVARIANT_PARTS = 4 };

typedef struct {
    const void  *w;    /* [out][in] of x's dtype, row-major without gaps */
    const float *bias; /* [out] or NULL */
    MiTensor     y;    /* [rows][out] of x's dtype or f32, the same for all parts */
} MiInvariantPart;

/* ENQUEUE.  One kernel for up to MI_INVARIANT_PARTS products of one x [rows][in]; 0 or the cudaError_t.  Reads the
 * weights once for each 64 rows. */
int mi_cuda_invariant(void *stream, MiTensor x, const MiInvariantPart *parts, int n);

#ifdef __cplusplus
}
#endif
#endif
