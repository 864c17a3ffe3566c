/* cuda.h - what the attention plugins for cards share. */
#ifndef PLUGINS_ATTENTION_CUDA_H
#define PLUGINS_ATTENTION_CUDA_H

#include <cuda/attention.h>
#include <cuda_runtime_api.h>
#include <miniinfer/plugin.h>

/* What the fast ones keep. */
typedef struct {
    int32_t *arrived; /* device [max_seqs * n_kv_heads] */
} CudaAttention;

extern const char *const cuda_attention_layouts[];
extern const int32_t     cuda_attention_head_dims[];

/* A call as the kernels take it. */
MiCudaAttention cuda_attention_call(const MiCall *call);
/* False with *error unless code is 0. */
bool cuda_attention_done(int code, GError **error);
/* How a step's rows are shared out. */
MiCudaAttentionMode cuda_attention_mode(const MiCall *call);

void *cuda_attention_create(MiContext *ctx, const MiAttentionSpec *spec, const void *options, GError **error);
void  cuda_attention_destroy(void *self);
bool  cuda_attention_prepare(MiContext *ctx, const MiCall *call, void **state, size_t *workspace, GError **error);

#endif
