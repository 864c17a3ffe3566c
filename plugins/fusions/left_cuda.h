/* left_cuda.h - keys and values on their way to a cache with scales.
 *
 * A head that gets a scale has to be there whole: where the cache has some, a fused kernel leaves keys and values
 * in bf16 in the workspace, [k, v][rows][n_kv_heads][head_dim], and kv_append's takes them from there. */
#ifndef PLUGINS_FUSIONS_LEFT_CUDA_H
#define PLUGINS_FUSIONS_LEFT_CUDA_H

#include <miniinfer/types.h>

/* k: as the projection gives it, [rows][n_kv_heads][head_dim]. */
static inline size_t left_bytes(const MiTensor *k)
{
    return 2 * (size_t)(k->shape[0] * k->shape[1] * k->shape[2]) * mi_dtype_size(MI_BF16);
}

static inline MiTensor left(void *at, const MiTensor *k, int side)
{
    const int64_t row = k->shape[1] * k->shape[2];

    return (MiTensor){ .data = (char *)at + (size_t)(side * k->shape[0] * row) * mi_dtype_size(MI_BF16), .dtype = MI_BF16, .ndim = 3,
                       .shape = { k->shape[0], k->shape[1], k->shape[2] }, .stride = { row, k->shape[2], 1 } };
}

/* For the kernel that leaves them: slots NULL, row i is slot i. */
static inline MiKvView left_view(void *at, const MiTensor *k)
{
    const MiTensor keys = left(at, k, 0), values = left(at, k, 1);

    return (MiKvView){ .k = keys.data, .v = values.data, .dtype = MI_BF16, .n_kv_heads = (int)k->shape[1], .head_dim = (int)k->shape[2],
                       .stride_token = keys.stride[0], .stride_head = keys.stride[1], .block_size = INT32_MAX };
}

#endif
