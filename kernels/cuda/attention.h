/* attention.h - launchers of attention on a card.  Each enqueues on `stream` and
 * returns 0 or the cudaError_t. */
#ifndef KERNELS_CUDA_ATTENTION_H
#define KERNELS_CUDA_ATTENTION_H

#include <miniinfer/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* One call.  q and out: [n_tokens, n_heads, head_dim], the last dimension dense.  The rows of a sequence are its last
 * positions: those of a sequence of kv_len n and two rows are n - 2 and n - 1. */
typedef struct {
    MiTensor q, out;
    MiKvView kv;
    MiBatch  batch;
    float    scale, softcap; /* softcap 0: none */
    int32_t  window;         /* 0: none */
    bool     bidirectional;
} MiCudaAttention;

enum { MI_CUDA_ATTENTION_MAX_DIM = 256 };

/* Any layout, any of f32, f16, bf16 for q and these or numbers with scales for the cache, heads of at most MI_CUDA_ATTENTION_MAX_DIM. */
int mi_cuda_attention_simple(void *stream, const MiCudaAttention *call);

/* The others: q, out and cache of one 16-bit type, or the cache of numbers with scales, heads of 64, 96, 128 or 256, at most 16 query heads a key head,
 * mi_cuda_attention_fits().  What they count are packed rows: a sequence's rows times the query heads of a key head. */

/* Sequences of at most mi_cuda_attention_few() packed rows; more are left alone.  workspace: as many bytes as
 * _workspace() says; arrived: [n_seqs * n_kv_heads], 0, and 0 again afterwards; of no other call at the same time. */
size_t mi_cuda_attention_workspace(int head_dim);
int    mi_cuda_attention_decode(void *stream, const MiCudaAttention *call, void *workspace, int32_t *arrived);

/* Where the keys and values of prompts over a cache with scales become elements of q's type.  Of no other call at the same time. */
enum { MI_CUDA_NOT_WIDE = INT32_MIN };
typedef struct {
    void    *data;  /* [k, v][n_kv_heads][positions][head_dim] */
    int32_t *moved; /* [n_seqs + 1] by how many places a sequence's positions lie there, MI_CUDA_NOT_WIDE: it does not fit; how many do not */
    int32_t  positions;
} MiCudaWide;

/* Sequences of more than `few` packed rows; the rest is left alone.  flash: by the tensor cores of sm_90a; where the card,
 * the type or the pages of the cache do not allow that, as gqa; workspace: as many bytes as _flash_workspace() says, for a few rows
 * behind many keys; NULL: those take longer.  wide: for a cache with scales; NULL, or where a sequence does not fit there: as gqa. */
int    mi_cuda_attention_gqa(void *stream, const MiCudaAttention *call, int few);
size_t mi_cuda_attention_flash_workspace(int head_dim);
int    mi_cuda_attention_flash(void *stream, const MiCudaAttention *call, int few, void *workspace, const MiCudaWide *wide);

static inline int mi_cuda_attention_few(const MiCudaAttention *a) { return a->q.shape[1] / a->kv.n_kv_heads <= 8 ? 8 : 16; }

/* Of one 16-bit type, or the cache of numbers with scales, and 16-byte accesses may be used. */
static inline bool mi_cuda_attention_fits(const MiCudaAttention *a)
{
    const int64_t strides = a->q.stride[0] | a->q.stride[1] | a->out.stride[0] | a->out.stride[1] | a->kv.stride_block |
                            a->kv.stride_token | a->kv.stride_head;
    const uintptr_t bases = (uintptr_t)a->q.data | (uintptr_t)a->out.data | (uintptr_t)a->kv.k | (uintptr_t)a->kv.v;
    const int64_t of_cache = a->kv.stride_block | a->kv.stride_token | a->kv.stride_head;
    const bool    scaled = mi_dtype_scaled(a->kv.dtype);
    return strides % 8 == 0 && bases % 16 == 0 && (!scaled || of_cache % 16 == 0) && a->q.stride[2] == 1 && a->out.stride[2] == 1 &&
           (a->q.dtype == MI_BF16 || a->q.dtype == MI_F16) && (scaled || a->q.dtype == a->kv.dtype) &&
           a->q.dtype == a->out.dtype;
}

#ifdef __cplusplus
}
#endif
#endif
