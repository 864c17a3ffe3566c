/* ops.h - the plain operations of a step on a CUDA device, one kernel each.
 *
 * Tensors of activations are f32, f16 or bf16, all of a call alike, contiguous in
 * their last dimension; sums are f32.  The output may be the first input (of
 * binary ones: either).  Each launcher enqueues on `stream` and returns 0 or the
 * cudaError_t; of zero rows it launches nothing. */
#ifndef MI_KERNELS_CUDA_OPS_H
#define MI_KERNELS_CUDA_OPS_H

#include <miniinfer/types.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
    MI_CUDA_SILU, MI_CUDA_SIGMOID, MI_CUDA_TANH, MI_CUDA_GELU_TANH, MI_CUDA_GELU_ERF, MI_CUDA_LEAKY_RELU,
} MiCudaUnary;
typedef enum { MI_CUDA_ADD, MI_CUDA_MUL } MiCudaBinary;

/* y = f(x); slope: of leaky_relu, 0 for relu. */
int mi_cuda_unary(void *stream, MiCudaUnary, float slope, MiTensor x, MiTensor y);
int mi_cuda_binary(void *stream, MiCudaBinary, MiTensor a, MiTensor b, MiTensor y);

typedef enum { MI_CUDA_RMSNORM, MI_CUDA_LAYERNORM, MI_CUDA_SOFTMAX } MiCudaNorm;

/* Over the last dimension: norm(x) (offset + weight) + bias; weight, bias: f32 [last dimension], no kernel
 * writes them, bias may be NULL; softmax looks at x only. */
int mi_cuda_norm(void *stream, MiCudaNorm, MiTensor x, const float *weight, const float *bias, float eps, float offset,
                 MiTensor y);

/* y[row] = table[token of row]; table: f32, f16 or bf16 whatever y is. */
int mi_cuda_embed(void *stream, MiTensor table, const MiBatch *batch, MiTensor y);
/* y[i] = x[rows[i]]; rows of gapless elements. */
int mi_cuda_output_rows(void *stream, const int32_t *rows, MiTensor x, MiTensor y);
/* k, v: [rows, n_kv_heads, head_dim] to kv->slots, in the cache's dtype f32, f16 or bf16, or to E4M3 or int8 with scales. */
int mi_cuda_kv_append(void *stream, MiTensor k, MiTensor v, const MiKvView *kv);

enum { MI_CUDA_MAX_TURNED = 1024 }; /* elements of a head that rope turns */
typedef struct {
    const int32_t *positions; /* [rows] */
    const float   *freqs;     /* [dim / 2] radians a position */
    int            dim;
    bool           interleaved; /* pairs are 2i, 2i + 1; else i, i + dim / 2 */
    float          magnitude;
} MiCudaRope;
/* x, y: [rows, heads, head_dim]. */
int mi_cuda_rope(void *stream, const MiCudaRope *, MiTensor x, MiTensor y);

#ifdef __cplusplus
}
#endif
#endif
