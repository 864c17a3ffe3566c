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

/* q, out and cache of one 16-bit type, heads of 64, 96, 128 or 256, at most 16 query heads a key head, every stride
 * a multiple of 8 elements and every address of 16 bytes.  FEW: sequences with more rows than fit 16 packed rows
 * (8 where a group has no more than 8) are left alone.  PROMPT: one sequence, or many that all have many rows. */
typedef enum { MI_CUDA_ATTENTION_FEW, MI_CUDA_ATTENTION_PROMPT, MI_CUDA_ATTENTION_BOTH } MiCudaAttentionMode;

/* workspace: as many bytes as _workspace() says; arrived: [n_seqs * n_kv_heads], 0, and 0 again afterwards; of no
 * other call at the same time. */
size_t mi_cuda_attention_gqa_workspace(int head_dim);
int    mi_cuda_attention_gqa(void *stream, const MiCudaAttention *call, MiCudaAttentionMode mode, void *workspace,
                             int32_t *arrived);

/* The packed rows (rows times query heads of a key head) up to which a sequence is one of FEW. */
static inline int mi_cuda_attention_few(const MiCudaAttention *a) { return a->q.shape[1] / a->kv.n_kv_heads <= 8 ? 8 : 16; }

/* As gqa; prompts by the tensor cores of sm_90a, where the card and the pages of the cache allow it. */
int mi_cuda_attention_flash(void *stream, const MiCudaAttention *call, MiCudaAttentionMode mode, void *workspace, int32_t *arrived);

/* Whether 16-byte accesses may be used. */
static inline bool mi_cuda_attention_aligned(const MiCudaAttention *a)
{
    const int64_t strides = a->q.stride[0] | a->q.stride[1] | a->out.stride[0] | a->out.stride[1] | a->kv.stride_block |
                            a->kv.stride_token | a->kv.stride_head;
    const uintptr_t bases = (uintptr_t)a->q.data | (uintptr_t)a->out.data | (uintptr_t)a->kv.k | (uintptr_t)a->kv.v;
    return strides % 8 == 0 && bases % 16 == 0 && a->q.stride[2] == 1 && a->out.stride[2] == 1;
}

#ifdef __cplusplus
}
#endif
#endif
