/* layer.h - what a layer does between one attention and the next, as four kernels:
 *
 *   h = x + a O' + b,  act = silu(n G') * n U',  y = h + act D' + b,  n = rmsnorm(h)
 *   q, k, v = rope(rmsnorm(y) W' + b), k and v into the cache of the next layer; before rope each head of q and k
 *   may be normed, as Qwen3 does
 *
 * for up to MI_LAYER_MAX_ROWS rows of bf16, a product each with all that comes before and after it.  Sums are f32
 * in an order that is the same in every run. */
#ifndef KERNELS_CUDA_LAYER_H
#define KERNELS_CUDA_LAYER_H

#include "gemv.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { MI_LAYER_MAX_ROWS = 512 };

typedef struct {
    int32_t rows;        /* of a, at most */
    int32_t hidden, ff;  /* columns of h, of act */
    int32_t heads_width; /* columns of a: n_heads * head_dim */
    /* The next layer's heads; n_heads 0: it ends with y. */
    int32_t n_heads, n_kv_heads, head_dim;
    bool    interleaved; /* 2i turns with 2i + 1; else i with i + head_dim / 2 */
} MiLayerShape;

typedef struct MiLayer MiLayer;

/* LOAD.  cudaErrorNotSupported: not on this card, or not this shape. */
int  mi_cuda_layer_new(MiLayer **, const MiLayerShape *);
void mi_cuda_layer_free(MiLayer *);
/* How the products (o; gate and up; down; q, k and v) are cut: the tokens and the rows of W of a tile, of 32, 64, 128, 192 or 256
 * and 64, 80, 128 or 144, and the blocks, 1 to 8, that share its columns. */
enum { MI_LAYER_PRODUCTS = 4 };
typedef struct {
    int32_t tokens, n, cluster;
} MiLayerTiles;
MiLayerTiles mi_cuda_layer_tiles(const MiLayer *, int product);
/* LOAD.  Otherwise than new() chose, to measure it; cudaErrorNotSupported: not so. */
int mi_cuda_layer_cut(MiLayer *, int product, MiLayerTiles);

/* Bytes of device memory while it runs; of which h and act need none if the caller has them. */
size_t mi_cuda_layer_workspace(const MiLayer *);

typedef struct {
    MiTensor     a, x, y;    /* x may be y */
    MiTensor     h, act;     /* data NULL: nobody else reads them */
    const void  *o, *gate, *up, *down; /* [hidden][heads_width], [ff][hidden] twice, [hidden][ff] */
    const float *o_bias, *down_bias;   /* or NULL */
    MiGemvNorm   norm, next_norm;
    MiGemvQkv    qkv; /* w, bias, freqs, positions, magnitude, head_* (gain NULL: no norm), q, kv; the rest as in the shape */
    void        *workspace;
} MiLayerCall;

/* ENQUEUE. */
int mi_cuda_layer(void *stream, const MiLayer *, const MiLayerCall *);

#ifdef __cplusplus
}
#endif
#endif
