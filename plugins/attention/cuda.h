/* cuda.h - what the attention plugins for cards share. */
#ifndef PLUGINS_ATTENTION_CUDA_H
#define PLUGINS_ATTENTION_CUDA_H

#include <cuda/attention.h>
#include <cuda_runtime_api.h>
#include <miniinfer/plugin.h>

extern const char *const cuda_attention_layouts[];
extern const int32_t     cuda_attention_head_dims[];

/* A call as the kernels take it. */
MiCudaAttention cuda_attention_call(const MiCall *call);
/* False with *error unless code is 0. */
bool cuda_attention_done(int code, GError **error);
/* Of the fast ones; run(): prompts launches sequences of more than a few rows. */
void *cuda_attention_create(MiContext *ctx, const MiAttentionSpec *spec, const void *options, GError **error);
void  cuda_attention_destroy(void *self);
bool  cuda_attention_prepare(MiContext *ctx, const MiCall *call, void **state, size_t *workspace, GError **error);
bool  cuda_attention_run(MiContext *ctx, const MiCall *call, int (*prompts)(void *, const MiCudaAttention *, int),
                         GError **error);

#endif
