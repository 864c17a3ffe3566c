/* head.h - the logits of many rows: norm, product with a tall W, and the likeliest of each row. */
#ifndef KERNELS_CUDA_HEAD_H
#define KERNELS_CUDA_HEAD_H

#include "gemv.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { MI_HEAD_MAX_ROWS = 512, MI_HEAD_TILE = 128 };

typedef struct {
    MiTensor       x;        /* [tokens][in] bf16 */
    const int32_t *out_rows; /* [rows] of x, or NULL: all in turn */
    MiGemvNorm     norm;
    const void    *w;       /* [out][in] bf16 */
    float         *logits;  /* [rows][out], or NULL: nobody reads them */
    int64_t        stride;  /* of logits, in elements; a multiple of 4 */
    MiCandidate   *best;    /* [rows][(out + MI_HEAD_TILE - 1) / MI_HEAD_TILE], or NULL; then mi_cuda_gemv_pick() */
    int32_t        rows, in, out; /* in and out: multiples of 8 */
    void          *workspace;     /* rows * in * 2 bytes, 16-byte aligned */
} MiHeadCall;

/* LOAD.  cudaErrorNotSupported: not on this card, or not these sizes. */
int mi_cuda_head_takes(int32_t rows, int32_t in, int32_t out);
/* ENQUEUE.  Sums in an order that depends on nothing but `in`. */
int mi_cuda_head(void *stream, const MiHeadCall *);

#ifdef __cplusplus
}
#endif
#endif
