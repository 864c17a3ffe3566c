/* cuda.c - the links of the sampling chain on the CUDA backend. */
#include "rows.h"
#include <cuda/sampling.h>
#include <cuda_runtime_api.h>

/* Of a launcher's result. */
static bool launched(int code, GError **error)
{
    if (code == cudaSuccess)
        return true;
    (void)cudaGetLastError(); /* one that does not stick is over */
    g_set_error(error, MI_ERROR, MI_ERROR_DEVICE, "launching a kernel: %s (%s)", cudaGetErrorString(code),
                cudaGetErrorName(code));
    return false;
}

static MiCudaLink link_of(MiContext *ctx, const MiCall *call)
{
    return (MiCudaLink){ ctx->stream, call->at->in[0], call->at->out[0], call->batch };
}

static bool prepare(MiContext *ctx, const MiCall *call, void **state, size_t *workspace, GError **error)
{
    return check_logits(ctx, call, state, workspace, error) && launched(mi_cuda_sampling_prepare(), error);
}

static bool greedy_run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    (void)state;
    const MiCudaLink l = link_of(ctx, call);
    return launched(mi_cuda_greedy(&l), error);
}

static const MiOp greedy_op = {
    .struct_size = sizeof greedy_op, .n_in = 1, .n_out = 1, .prepare = prepare, .run = greedy_run,
};
static const MiSampler greedy = { .struct_size = sizeof greedy, .draws = true, .op = &greedy_op };

MI_PLUGIN("samplers_cuda", "0.1", "The sampling chain", MI_FEATURE_SAMPLER("greedy", "cuda", &greedy, NULL));
