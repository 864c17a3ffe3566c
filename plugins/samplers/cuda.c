/* cuda.c - the links of the sampling chain on the CUDA backend: the CPU's rules,
 * parameters and random numbers; see kernels/cuda/sampling.h. */
#include "rows.h"
#include <cuda/refused.h>
#include <cuda/sampling.h>
#include <cuda_runtime_api.h>

/* Of a launcher's result. */
static bool launched(int code, GError **error)
{
    if (code == cudaSuccess)
        return true;
    (void)cudaGetLastError(); /* one that does not stick is over */
    g_set_error(error, MI_ERROR, mi_cuda_refused(code) ? MI_ERROR_UNSUPPORTED : MI_ERROR_DEVICE,
                "launching a kernel: %s (%s)", cudaGetErrorString(code), cudaGetErrorName(code));
    return false;
}

static bool prepare(MiContext *ctx, const MiCall *call, void **state, size_t *workspace, GError **error)
{
    return check_logits(ctx, call, state, workspace, error) && launched(mi_cuda_sampling_prepare(), error);
}

static bool penalties_prepare(MiContext *ctx, const MiCall *call, void **state, size_t *workspace, GError **error)
{
    if (!prepare(ctx, call, state, workspace, error))
        return false;
    *workspace = mi_cuda_penalties_workspace(call->shape.n_out, (int)call->at->in[0].shape[1]);
    return true;
}

/* The kernels read a row of one member as an element of an array. */
G_STATIC_ASSERT(sizeof(PenaltiesRow) == 3 * sizeof(float) && sizeof(LogitBiasRow) == sizeof(MiBiases));
G_STATIC_ASSERT(sizeof(TemperatureRow) == sizeof(float) && sizeof(TopKRow) == sizeof(int32_t));
G_STATIC_ASSERT(sizeof(TopPRow) == sizeof(float) && sizeof(MinPRow) == sizeof(float));
G_STATIC_ASSERT(sizeof(TypicalRow) == sizeof(float) && sizeof(MultinomialRow) == sizeof(uint64_t));

#define LINK(name, launch, prepare_, ...)                                                                    \
    static bool name##_run(void *state, MiContext *ctx, const MiCall *call, GError **error)                  \
    {                                                                                                        \
        (void)state;                                                                                         \
        const MiCudaLink l = { ctx->stream, call->at->in[0], call->at->out[0], call->batch, call->workspace }; \
        return launched(launch, error);                                                                      \
    }                                                                                                        \
    static const MiOp name##_op = {                                                                          \
        .struct_size = sizeof name##_op, .n_in = 1, .n_out = 1, .prepare = prepare_, .run = name##_run,      \
        .batch_invariant = true, __VA_ARGS__                                                                 \
    };

LINK(penalties, mi_cuda_penalties(&l, call->at->rows), penalties_prepare, .inplace = 1)
LINK(logit_bias, mi_cuda_logit_bias(&l, call->at->rows), prepare, .inplace = 1)
LINK(temperature, mi_cuda_temperature(&l, call->at->rows), prepare, .inplace = 1)
LINK(top_k, mi_cuda_top_k(&l, call->at->rows), prepare, .inplace = 1)
LINK(top_p, mi_cuda_top_p(&l, call->at->rows), prepare, .inplace = 1)
LINK(min_p, mi_cuda_min_p(&l, call->at->rows), prepare, .inplace = 1)
LINK(typical, mi_cuda_typical(&l, call->at->rows), prepare, .inplace = 1)
LINK(multinomial, mi_cuda_multinomial(&l, call->at->rows), prepare, .inplace = 0)
LINK(greedy, mi_cuda_greedy(&l), prepare, .inplace = 0)

#define SAMPLER(name, Row)                                                                                      \
    static const MiSampler name = {                                                                             \
        .struct_size = sizeof name, .params = name##_params, .row_size = sizeof(Row), .wants = name##_wants,    \
        .op = &name##_op,                                                                                       \
    };

SAMPLER(penalties, PenaltiesRow)
SAMPLER(logit_bias, LogitBiasRow)
SAMPLER(temperature, TemperatureRow)
SAMPLER(top_k, TopKRow)
SAMPLER(top_p, TopPRow)
SAMPLER(min_p, MinPRow)
SAMPLER(typical, TypicalRow)

static const MiSampler multinomial = {
    .struct_size = sizeof multinomial, .params = multinomial_params, .row_size = sizeof(MultinomialRow), .draws = true,
    .op = &multinomial_op,
};
static const MiSampler greedy = { .struct_size = sizeof greedy, .draws = true, .op = &greedy_op };

#define FEATURE(name) MI_FEATURE_SAMPLER(#name, "cuda", &name, NULL)

MI_PLUGIN("samplers_cuda", "0.1", "The sampling chain",
          FEATURE(penalties), FEATURE(logit_bias), FEATURE(temperature), FEATURE(top_k), FEATURE(top_p), FEATURE(min_p),
          FEATURE(typical), FEATURE(multinomial), FEATURE(greedy));
