/* invariant_cuda.c - products of plain matrices by one kernel whatever the number of rows, for [engine] deterministic =
 * batch: f32, f16 and bf16.  Slower than what `dense` chooses by the number of rows, so it is taken only then. */
#include "invariant_cuda.h"

#include <cuda/invariant.h>
#include <cuda/refused.h>
#include <cuda_runtime_api.h>

static bool prepare(MiContext *ctx, const MiCall *call, void **state, size_t *workspace, GError **error)
{
    (void)state, (void)workspace;
    for (int i = 0; i < call->n; i++) {
        const MiTensor *x = &call->at[i].in[0], *y = &call->at[i].out[0], *w = &call->at[i].weight[0].tensor;
        if (x->dtype == ctx->dtype && (y->dtype == x->dtype || y->dtype == MI_F32) && x->stride[x->ndim - 1] == 1 &&
            (x->ndim == 2 || x->stride[1] == x->shape[2]) && y->stride[y->ndim - 1] == 1 && w->shape[1] <= INT32_MAX)
            continue;
        g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED,
                    "linear 'invariant' on CUDA takes rows of f32, f16 or bf16 without gaps and gives the same or f32");
        return false;
    }
    return true;
}

/* The parts of a pack read one input: several are one launch. */
static bool run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    (void)state;
    for (int i = 0, n; i < call->n; i += n) {
        const MiArgs   *first = &call->at[i];
        MiInvariantPart parts[MI_INVARIANT_PARTS];
        for (n = 0; n < MI_INVARIANT_PARTS && i + n < call->n && first[n].out[0].dtype == first->out[0].dtype; n++) {
            const MiArgs *a = &first[n];
            parts[n] = (MiInvariantPart){ a->weight[0].tensor.data, a->weight[1].tensor.data, a->out[0] };
        }
        const int e = mi_cuda_invariant(ctx->stream, first->in[0], parts, n);
        if (!e)
            continue;
        g_set_error(error, MI_ERROR, mi_cuda_refused(e) ? MI_ERROR_UNSUPPORTED : MI_ERROR_DEVICE,
                    "launching the kernel: %s", cudaGetErrorString((cudaError_t)e));
        return false;
    }
    return true;
}

const MiOp invariant_op = {
    .struct_size = sizeof invariant_op, .n_in = 1, .n_out = 1, .n_weights = 1, .prepare = prepare, .run = run,
    .batch_invariant = true,
};
