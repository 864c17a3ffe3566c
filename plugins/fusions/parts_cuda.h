/* parts_cuda.h - what fusions for cards make of a node, and of the kernels' answer. */
#ifndef PLUGINS_FUSIONS_PARTS_CUDA_H
#define PLUGINS_FUSIONS_PARTS_CUDA_H

#include <cuda/gemv.h>
#include <cuda/refused.h>
#include <miniinfer/plugin.h>

static inline bool launched(int e, GError **error)
{
    if (e)
        g_set_error(error, MI_ERROR, mi_cuda_refused(e) ? MI_ERROR_UNSUPPORTED : MI_ERROR_DEVICE,
                    "launching the kernel: CUDA error %d", e);
    return e == 0;
}

/* at: a line rmsnorm. */
static inline MiGemvNorm norm_of(const MiArgs *at)
{
    const MiNorm *n = at->node->attr;
    return (MiGemvNorm){at->weight[0].tensor.data, n->eps, n->offset};
}

#endif
