#include "tune_cuda.h"

/* Below, what timing wins of a step is less than 1 % (docs/performance.md), and a start with the usual prefill_step would
 * take longer for it. */
enum { LEAST = 1024 };
/* Above, a card runs at the limit of its power, and what is faster alone lowers its clock. */
#define MOST_WORK 4e11

static void tune(MiContext *ctx, MiGemm *g, int class, bool adds)
{
    char        key[256], algorithm[MI_GEMM_ALGORITHM];
    const void *known;
    size_t      bytes;

    mi_cuda_gemm_key(g, class, adds, key, sizeof key);
    if ((known = ctx->recall(ctx, key, &bytes))) {
        (void)mi_cuda_gemm_choose(g, class, known, bytes);
    } else if (ctx->measures(ctx) && mi_cuda_gemm_measure(g, class, adds, algorithm)) {
        ctx->remember(ctx, key, algorithm, sizeof algorithm);
        (void)mi_cuda_gemm_choose(g, class, algorithm, sizeof algorithm);
    }
}

void tune_cuda(MiContext *ctx, MiGemm *g, int64_t least, int64_t most, bool adds)
{
    int end = mi_cuda_gemm_class(most);

    if (most <= least || ctx->dtype == MI_F32 || ctx->struct_size < sizeof *ctx)
        return;
    end = end ? end : MI_GEMM_MOST;
    for (int c = MAX(mi_cuda_gemm_class(least + 1), LEAST); c <= end; c *= 2)
        if (!mi_cuda_gemm_has(g, c) && mi_cuda_gemm_work(g, c) <= MOST_WORK)
            tune(ctx, g, c, adds);
}
