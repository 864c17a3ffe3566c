/* attention.h - launchers of attention on a card.  Each enqueues on `stream` and
 * returns 0 or the cudaError_t. */
#ifndef KERNELS_CUDA_ATTENTION_H
#define KERNELS_CUDA_ATTENTION_H

#include <miniinfer/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* One call.  q and out: [n_tokens, n_heads, head_dim], the last dimension dense. */
typedef struct {
    MiTensor q, out;
    MiKvView kv;
    MiBatch  batch;
    float    scale, softcap; /* softcap 0: none */
    int32_t  window;         /* 0: none */
    bool     bidirectional;
} MiCudaAttention;

enum { MI_CUDA_ATTENTION_MAX_DIM = 256 };

/* Any layout, any of f32, f16, bf16 for q and for the cache, heads of at most MI_CUDA_ATTENTION_MAX_DIM. */
int mi_cuda_attention_simple(void *stream, const MiCudaAttention *call);

#ifdef __cplusplus
}
#endif
#endif
