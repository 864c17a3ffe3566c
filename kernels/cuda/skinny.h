/* skinny.h - y = x W' for 5 to 64 rows of x, limited by how fast W can be read.
 *
 * W is plain row-major [out][in] bf16, 16-byte aligned, in a multiple of 8.  The
 * tokens are the narrow side of a tensor core's product, W its tall one: a block
 * takes 64 rows of W, blocks of a cluster take a share of the columns each and add
 * up through their shared memory, in an order that is the same in every run. */
#ifndef KERNELS_CUDA_SKINNY_H
#define KERNELS_CUDA_SKINNY_H

#include <miniinfer/types.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { MI_SKINNY_MAX_ROWS = 64 };

typedef struct {
    const void  *x;        /* [rows][in] bf16, x_stride elements apart */
    const void  *w;        /* [out][in]; where gated [2 out][in]: the gate's rows, then the others */
    const float *bias;     /* [out], or NULL; not where gated */
    const void  *residual; /* [rows][out] bf16, y_stride apart, added to y; or NULL; may be y */
    void        *y;        /* [rows][out] bf16, or f32 */
    int64_t      x_stride, y_stride;
    int32_t      rows, in, out;
    bool         gated; /* y = silu(x G') * x U' */
    bool         f32;   /* y */
} MiSkinny;

/* LOAD.  Whether this card and shape can: 0, or cudaErrorNotSupported. */
int mi_cuda_skinny_prepare(int64_t in, int64_t out);
/* Where it is faster than cuBLASLt, as measured on an H100 with the shapes of Qwen2 from 0.5B to 7B: up to 16
 * rows, and up to 32 where a product has few outputs of many columns.  Beyond that it waits for x. */
static inline bool mi_cuda_skinny_wins(int64_t rows, int64_t in, int64_t out)
{
    return rows <= 16 || (rows <= 32 && in >= 4 * out);
}
/* ENQUEUE.  A cudaError_t. */
int mi_cuda_skinny(void *stream, const MiSkinny *);

#ifdef __cplusplus
}
#endif
#endif
