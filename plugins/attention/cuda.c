/* cuda.c - what the attention plugins for cards share: a call as their kernels take it. */
#include "cuda.h"

#include <cuda/refused.h>

const char *const cuda_attention_layouts[] = { "contiguous", "tail", "paged", NULL };

MiCudaAttention cuda_attention_call(const MiCall *call)
{
    const MiArgs   *a = call->at;
    const MiAttend *attr = a->node->attr;

    return (MiCudaAttention){
        .q = a->in[0], .out = a->out[0], .kv = *a->kv, .batch = *call->batch, .scale = attr->scale,
        .softcap = attr->softcap, .window = attr->window, .bidirectional = attr->bidirectional,
    };
}

bool cuda_attention_done(int code, GError **error)
{
    if (code == cudaSuccess)
        return true;
    (void)cudaGetLastError();
    g_set_error(error, MI_ERROR, mi_cuda_refused(code) ? MI_ERROR_UNSUPPORTED : MI_ERROR_DEVICE,
                "launching attention: %s", cudaGetErrorString((cudaError_t)code));
    return false;
}
