/* sampling_cuda.c - the links that most requests ask for, and the draw, at once, so that
 * the logits are read once; see kernels/cuda/chain.cu, and draw_all.cu where no link cuts.
 *
 * For the chain in its usual order; vocabularies that fit the shared memory of a
 * cluster of blocks (from Hopper on, 370,000 tokens). */
#include "../samplers/links.h"

#include <cuda/refused.h>
#include <cuda/sampling.h>
#include <cuda_runtime_api.h>
#include <miniinfer/plugin.h>
#include <string.h>

static const MiPattern pattern[] = {
    { "?sampler:temperature", { 0 } }, { "?sampler:top_k", { 1 } },       { "?sampler:top_p", { 2 } },
    { "?sampler:min_p", { 3 } },       { "sampler:multinomial", { 4 } }, { NULL, { 0 } },
};

static bool match(const MiArgs *at, MiShape shape)
{
    const MiTensor *x = &at->in[0];

    (void)shape; /* a draw alone has nothing to be joined with */
    return at[1].node && x->dtype == MI_F32 && x->ndim == 2 && x->stride[1] == 1 && x->shape[1] > 0 &&
           x->shape[1] <= INT32_MAX && mi_cuda_chain_takes((int)x->shape[1]);
}

static bool launched(int code, GError **error)
{
    if (code == cudaSuccess)
        return true;
    (void)cudaGetLastError(); /* one that does not stick is over */
    g_set_error(error, MI_ERROR, mi_cuda_refused(code) ? MI_ERROR_UNSUPPORTED : MI_ERROR_DEVICE,
                "launching a kernel: %s (%s)", cudaGetErrorString(code), cudaGetErrorName(code));
    return false;
}

/* The link of this name; NULL: a step without it. */
static const MiArgs *link_named(const MiCall *call, const char *op)
{
    for (int i = 0; i < call->n; i++)
        if (strcmp(call->at[i].node->op, op) == 0)
            return &call->at[i];
    return NULL;
}

static const void *rows_of(const MiCall *call, const char *op)
{
    const MiArgs *link = link_named(call, op);
    return link ? link->rows : NULL;
}

static bool cuts(const MiCall *call)
{
    return link_named(call, "sampler:top_k") || link_named(call, "sampler:top_p") || link_named(call, "sampler:min_p");
}

static bool prepare(MiContext *ctx, const MiCall *call, void **state, size_t *workspace, GError **error)
{
    const MiTensor *x = &call->at[0].in[0];

    (void)ctx, (void)state;
    if (cuts(call))
        return launched(mi_cuda_chain_prepare(), error);
    *workspace = mi_cuda_draw_all_workspace((int)x->shape[0], (int)x->shape[1]);
    return true;
}

/* The kernel reads a row of one member as an element of an array. */
G_STATIC_ASSERT(sizeof(TemperatureRow) == sizeof(float) && sizeof(TopKRow) == sizeof(int32_t));
G_STATIC_ASSERT(sizeof(TopPRow) == sizeof(float) && sizeof(MinPRow) == sizeof(float));
G_STATIC_ASSERT(sizeof(MultinomialRow) == sizeof(uint64_t));

static bool run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    const MiArgs      *last = &call->at[call->n - 1];
    const MiCudaLink   link = { ctx->stream, call->at->in[0], last->out[0], call->batch, call->workspace };
    const MiCudaWishes wishes = {
        .temperature = rows_of(call, "sampler:temperature"), .top_k = rows_of(call, "sampler:top_k"),
        .top_p = rows_of(call, "sampler:top_p"), .min_p = rows_of(call, "sampler:min_p"),
        .seed = rows_of(call, "sampler:multinomial"),
    };

    (void)state;
    return launched(cuts(call) ? mi_cuda_chain(&link, &wishes) : mi_cuda_draw_all(&link, wishes.temperature, wishes.seed), error);
}

static const MiOp     op = { .struct_size = sizeof op, .prepare = prepare, .run = run };
static const MiFusion sample = { .struct_size = sizeof sample, .pattern = pattern, .match = match, .op = &op };

MI_PLUGIN("sampling_cuda", "0.1", "Temperature, cuts and the draw in one kernel",
          MI_FEATURE_FUSION("sample", "cuda", &sample, NULL));
