/* cuda.h - what the attention plugins for cards share. */
#ifndef PLUGINS_ATTENTION_CUDA_H
#define PLUGINS_ATTENTION_CUDA_H

#include <cuda/attention.h>
#include <cuda_runtime_api.h>
#include <miniinfer/plugin.h>

extern const char *const cuda_attention_layouts[];

/* A call as the kernels take it. */
MiCudaAttention cuda_attention_call(const MiCall *call);
/* False with *error unless code is 0. */
bool cuda_attention_done(int code, GError **error);

/* The fast ones (cuda_fast.c) are one but for what takes prompts, which a plugin says: sequences of more than `few`
 * packed rows. */
typedef int     CudaAttentionPrompts(void *stream, const MiCudaAttention *call, int few, void *workspace, const MiCudaWide *wide);
typedef size_t  CudaAttentionWorkspace(int head_dim);
typedef int64_t CudaAttentionWide(const MiAttentionSpec *spec);
extern CudaAttentionPrompts *const   cuda_attention_prompts;
extern CudaAttentionWorkspace *const cuda_attention_workspace; /* that it wants; what takes decode rows has its own need */
extern CudaAttentionWide *const      cuda_attention_wide;      /* positions of a MiCudaWide that it wants; 0: none */
extern const int32_t               cuda_attention_head_dims[];
extern const MiOp                  cuda_attention_op;
bool  cuda_attention_prepare(MiContext *, const MiCall *, void **state, size_t *workspace, GError **error);
void *cuda_attention_create(MiContext *ctx, const MiAttentionSpec *spec, const void *options, GError **error);
void  cuda_attention_destroy(void *self);

#define CUDA_ATTENTION_DTYPES (1u << MI_F16 | 1u << MI_BF16 | 1u << MI_F8 | 1u << MI_I8)
#define CUDA_ATTENTION(layouts_, rank_)                                                                                \
    {                                                                                                                  \
        .struct_size = sizeof(MiAttention), .layouts = (layouts_), .dtypes = CUDA_ATTENTION_DTYPES,             \
        .head_dims = cuda_attention_head_dims, .prefill = true, .decode = true, .window = true, .softcap = true,       \
        .rank = (rank_), .create = cuda_attention_create, .destroy = cuda_attention_destroy, .op = &cuda_attention_op, \
    }

#endif
