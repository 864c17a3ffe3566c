/* sampling.h - the links of the chain from logits to tokens, on a CUDA device.
 *
 * A row of logits is removed from token by token with -INFINITY; NaN counts as removed;
 * of equal logits the lower id is first.  The same weights (bit for bit), the same random
 * numbers and the same rules as the links of the CPU; where a sum decides, it is one of
 * integers, so that no order of additions shows.
 *
 * Rows of out_slot -1 are left alone.  Parameters are arrays [n_out] on the device. */
#ifndef MI_KERNELS_CUDA_SAMPLING_H
#define MI_KERNELS_CUDA_SAMPLING_H

#include <miniinfer/types.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    void          *stream;
    MiTensor       in, out; /* f32 [n_out, vocab], out may be in; of a link that draws out is i32 [n_out, 1] */
    const MiBatch *batch;   /* host memory, copied */
} MiCudaLink;

/* LOAD side, before any of the others. */
int mi_cuda_sampling_prepare(void);

/* Draws the likeliest token. */
int mi_cuda_greedy(const MiCudaLink *);

#ifdef __cplusplus
}
#endif
#endif
