/* quant_layer.h - all that a layer does between one attention and the next for one row of x, as one kernel or, where it is
 * small, as three: o, down and their residuals, the two norms, gate and up, then the next layer's q, k and v.  Weights are quant.h's.
 *
 * Blocks of the one kernel wait for each other, so all of them have to be on the card at once: the launch is
 * cooperative.  What blocks tell each other, and the three kernels, lies in memory that belongs to the caller and to one launch at a time. */
#ifndef KERNELS_CUDA_QUANT_LAYER_H
#define KERNELS_CUDA_QUANT_LAYER_H

#include "gemv.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    int32_t     heads_width, hidden, ff; /* columns of o; of gate; rows of gate */
    int32_t     heads_rows;              /* of q, k and v together; 0: the last layer, nothing comes after down */
    MiQuantForm form;                    /* of all matrices */
    bool        small;                   /* as three kernels: of a scale for 128 columns in 4 bit, for a row in 8, without zeros */
} MiQuantLayerShape;

/* A matrix's part in the kernel. */
typedef struct {
    int32_t in, out, paired;
    int32_t each, more;  /* eights of tiles or rows of a block; so many blocks have one more */
    int32_t slice, cuts; /* chunks of a stage, stages of a row */
    int32_t half;        /* bytes of one of a stage's two records */
} MiQuantPhase;

/* The MLP's kernel of a small layer. */
typedef struct {
    int32_t blocks;        /* of a cluster, which has 128 columns of down */
    int32_t groups, warps; /* of warps, each with all of x; warps in all */
    int32_t flight, smem;
} MiQuantSmall;

typedef struct {
    MiQuantLayerShape shape;
    MiQuantSmall      small; /* where shape.small; else what follows */
    MiQuantPhase      phase[4]; /* o, gate and up, down, q k v */
    int32_t           phases, grid, stages, stage_bytes, flight, smem;
} MiQuantLayerPlan;

/* LOAD.  shape is given.  cudaErrorNotSupported: not on this card, or not this shape. */
int mi_cuda_quant_layer_plan(MiQuantLayerPlan *);

/* Bytes of what blocks tell each other in. */
size_t mi_cuda_quant_layer_bytes(const MiQuantLayerPlan *);
/* Once, before the first launch that uses it. */
int mi_cuda_quant_layer_clear(void *stream, const MiQuantLayerPlan *, void *exchange);

typedef struct {
    MiTensor     a, x, y;        /* what o reads, the residual it is added to; the layer's result */
    void        *h, *act;        /* o's and gate's results, or NULL: nobody else reads them */
    const void  *o, *gate, *up, *down;
    const float *o_bias, *down_bias; /* or NULL */
    MiGemvNorm   norm, next_norm;
    MiGemvQkv    qkv; /* where shape.heads_rows */
    void        *exchange;
} MiQuantLayerCall;

/* ENQUEUE. */
int mi_cuda_quant_layer(void *stream, const MiQuantLayerPlan *, const MiQuantLayerCall *);

#ifdef __cplusplus
}
#endif
#endif
