/* Products of few and of many rows on a card against sums in double: odd shapes, biases,
 * residuals, gates, rows apart from each other. */
#include "gpu.h"

#include <cuda/gemm.h>
#include <cuda/gemv.h>

typedef struct {
    int   rows, in, out, gap; /* gap: elements between rows of x and of y */
    bool  gated, bias, residual, f32;
} Case;

static float bf16_random(uint64_t *seed, float range) { return gpu_rounded(gpu_random(seed) * range, MI_BF16); }

static float *numbers(int64_t n, float range, uint64_t *seed, void **card, bool half)
{
    float *x = g_new(float, n);
    void  *packed = g_malloc((size_t)n * 4);

    for (int64_t i = 0; i < n; i++) {
        x[i] = bf16_random(seed, range);
        gpu_put(packed, i, half ? MI_BF16 : MI_F32, x[i]);
    }
    *card = gpu_upload(packed, (size_t)n * (half ? 2 : 4));
    g_free(packed);
    return x;
}

static double dot(const float *x, const float *w, int n)
{
    double y = 0;
    for (int i = 0; i < n; i++)
        y += (double)x[i] * w[i];
    return y;
}

static double wanted(const Case *c, const float *x, const float *w, const float *bias, const float *residual, int row, int o)
{
    const int64_t xs = c->in + c->gap, ys = c->out + c->gap;
    double        y = dot(x + row * xs, w + (int64_t)o * c->in, c->in);

    if (c->gated)
        return y / (1 + exp(-y)) * dot(x + row * xs, w + (int64_t)(c->out + o) * c->in, c->in);
    return y + (c->bias ? bias[o] : 0) + (c->residual ? residual[row * ys + o] : 0);
}

/* Against the formula at up to 400 outputs of each row, the last ones among them. */
static void compare(const char *what, const Case *c, const void *y_card, const float *x, const float *w, const float *bias,
                    const float *residual)
{
    const int64_t ys = c->out + c->gap, n = (c->rows + 1) * ys;
    void         *y = g_malloc((size_t)n * 4);
    double        error = 0, norm = 0;
    bool          apart = true;

    gpu_must(cudaMemcpy(y, y_card, (size_t)n * (c->f32 ? 4 : 2), cudaMemcpyDeviceToHost), "copying back");
    for (int r = 0; r < c->rows; r++)
        for (int k = 0; k < MIN(400, c->out); k++) {
            const int    o = c->out - 1 - (int)((int64_t)k * c->out / MIN(400, c->out));
            const double want = wanted(c, x, w, bias, residual, r, o), got = gpu_get(y, r * ys + o, c->f32 ? MI_F32 : MI_BF16);
            error += (got - want) * (got - want);
            norm += want * want;
        }
    /* What lies between rows and behind them is untouched. */
    for (int64_t i = 0; i < n; i++)
        if (i / ys == c->rows || i % ys >= c->out)
            apart = apart && ((uint8_t *)y)[i * (c->f32 ? 4 : 2)] == 0xa5;
    error = sqrt(error / norm);
    gpu_check(apart && error < (c->f32 ? 1e-5 : 4e-3), "%s of %d rows, %d -> %d%s%s%s%s%s: %.1e%s", what, c->rows, c->in, c->out,
              c->gated ? " gated" : "", c->bias ? " bias" : "", c->residual ? " residual" : "", c->f32 ? " f32" : "",
              c->gap ? " apart" : "", error, apart ? "" : ", and it wrote elsewhere");
    g_free(y);
}

/* The same with the algorithm that is the fastest here. */
static void timed(const Case *c, void *x, void *w, void *residual, void *y, void *work)
{
    const int class = mi_cuda_gemm_class(c->rows);
    char      algorithm[MI_GEMM_ALGORITHM], key[256];
    MiGemm   *g;

    gpu_must(cudaMemset(y, 0xa5, (size_t)((c->rows + 1) * (c->out + c->gap)) * 4), "poisoning");
    gpu_must((cudaError_t)mi_cuda_gemm_new(&g, c->out, c->in, c->in + c->gap, c->out + c->gap, MI_BF16, c->f32 ? MI_F32 : MI_BF16), "preparing");
    mi_cuda_gemm_key(g, class, c->residual, key, sizeof key);
    gpu_check(!mi_cuda_gemm_choose(g, class, key, 3) && !mi_cuda_gemm_has(g, class) &&
              mi_cuda_gemm_measure(g, class, c->residual, algorithm) && mi_cuda_gemm_choose(g, class, algorithm, sizeof algorithm) &&
              mi_cuda_gemm_has(g, class) && mi_cuda_gemm(g, gpu_card.stream, x, w, c->residual ? residual : NULL, y, c->rows, work) == 0,
              "timed: %s", key);
    gpu_wait("gemm");
    mi_cuda_gemm_free(g);
}

static void try(const Case *c)
{
    uint64_t      seed = (uint64_t)(c->rows * 7919 + c->in * 31 + c->out);
    const int64_t xs = c->in + c->gap, ys = c->out + c->gap;
    void         *xc, *wc, *bc, *rc, *yc = gpu_alloc((size_t)((c->rows + 1) * ys) * 4), *work = gpu_alloc(MI_GEMM_WORKSPACE);
    float        *x = numbers(c->rows * xs, 1, &seed, &xc, true), *w = numbers((int64_t)(1 + c->gated) * c->out * c->in, 0.1f, &seed, &wc, true);
    float        *bias = numbers(c->out, 1, &seed, &bc, false), *residual = numbers(c->rows * ys, 1, &seed, &rc, true);
    void *const   stream = gpu_card.stream;

    MiGemvPlan p = { .kind = c->residual ? MI_GEMV_RESIDUAL : MI_GEMV_PLAIN, .dtype = MI_BF16, .rows = c->rows, .in = c->in, .out = c->out };
    if (!c->gated && c->rows <= MI_GEMV_MAX_ROWS && gpu_check(mi_cuda_gemv_plan(&p) == 0, "our own kernel takes it")) {
        const MiTensor tx = { xc, MI_BF16, 2, { c->rows, c->in }, { xs, 1 } }, ty = { yc, c->f32 ? MI_F32 : MI_BF16, 2, { c->rows, c->out }, { ys, 1 } };
        MiTensor       tr = ty;
        tr.data = rc;
        gpu_must(cudaMemset(yc, 0xa5, (size_t)((c->rows + 1) * ys) * 4), "poisoning");
        gpu_must((cudaError_t)(c->residual ? mi_cuda_gemv_residual(stream, &p, tx, wc, c->bias ? bc : NULL, tr, ty)
                                           : mi_cuda_gemv(stream, &p, tx, wc, c->bias ? bc : NULL, ty)), "launching");
        gpu_wait("our own");
        compare("our own", c, yc, x, w, bias, residual);
    }
    if (!c->gated && !c->bias) {
        MiGemm *g;
        gpu_must(cudaMemset(yc, 0xa5, (size_t)((c->rows + 1) * ys) * 4), "poisoning");
        if (gpu_check(mi_cuda_gemm_new(&g, c->out, c->in, xs, ys, MI_BF16, c->f32 ? MI_F32 : MI_BF16) == 0 &&
                      mi_cuda_gemm(g, stream, xc, wc, c->residual ? rc : NULL, yc, c->rows, work) == 0, "cuBLASLt takes it")) {
            gpu_wait("gemm");
            compare("cuBLASLt", c, yc, x, w, bias, residual);
            mi_cuda_gemm_free(g);
        }
        timed(c, xc, wc, rc, yc, work);
        compare("cuBLASLt, timed", c, yc, x, w, bias, residual);
    }
    void *all[] = { xc, wc, bc, rc, yc, work };
    for (size_t i = 0; i < G_N_ELEMENTS(all); i++)
        cudaFree(all[i]);
    g_free(x), g_free(w), g_free(bias), g_free(residual);
}

/* ---- how fast ----------------------------------------------------------------------- */

typedef struct { const char *name; int in, out; } Matrix;

/* Microseconds of one product in a graph of many, whose weights are read from memory: 160 MB and more of them rotate. */
static double time_of(const Matrix *m, int rows, int how, void *x, void *w, void *y, void *work)
{
    const size_t bytes = (size_t)m->in * (size_t)m->out * 2;
    const int    n = 200, copies = MAX(1, (int)(((size_t)320 << 20) / bytes));
    cudaGraph_t  graph;
    cudaGraphExec_t run;
    cudaEvent_t  from, to;
    float        ms, best = 1e9f;
    MiGemm      *g = NULL;

    MiGemvPlan   p = { .kind = MI_GEMV_PLAIN, .dtype = MI_BF16, .rows = rows, .in = m->in, .out = m->out };

    if (how)
        gpu_must((cudaError_t)mi_cuda_gemm_new(&g, m->out, m->in, m->in, m->out, MI_BF16, MI_BF16), m->name);
    else if (mi_cuda_gemv_plan(&p))
        return NAN;
    for (int warm = 0; warm < 2; warm++) {
        if (warm)
            cudaStreamBeginCapture(gpu_card.stream, cudaStreamCaptureModeThreadLocal);
        for (int i = 0; i < n; i++) {
            char    *wi = (char *)w + (size_t)(i % copies) * bytes;
            const MiTensor tx = { x, MI_BF16, 2, { rows, m->in }, { m->in, 1 } }, ty = { y, MI_BF16, 2, { rows, m->out }, { m->out, 1 } };
            gpu_must((cudaError_t)(how ? mi_cuda_gemm(g, gpu_card.stream, x, wi, NULL, y, rows, work)
                                       : mi_cuda_gemv(gpu_card.stream, &p, tx, wi, NULL, ty)), m->name);
        }
    }
    gpu_must(cudaStreamEndCapture(gpu_card.stream, &graph), "capturing");
    gpu_must(cudaGraphInstantiate(&run, graph, 0), "instantiating");
    cudaEventCreate(&from), cudaEventCreate(&to);
    for (int i = 0; i < 4; i++) {
        cudaEventRecord(from, gpu_card.stream), cudaGraphLaunch(run, gpu_card.stream), cudaEventRecord(to, gpu_card.stream);
        gpu_wait(m->name);
        cudaEventElapsedTime(&ms, from, to);
        best = MIN(best, ms);
    }
    cudaGraphExecDestroy(run), cudaGraphDestroy(graph), cudaEventDestroy(from), cudaEventDestroy(to);
    mi_cuda_gemm_free(g);
    return best * 1000 / n;
}

static void bench(void)
{
    static const Matrix m[] = {
        { "0.5B qkv", 896, 1152 },   { "0.5B o", 896, 896 },    { "0.5B gate_up", 896, 9728 },
        { "0.5B down", 4864, 896 },  { "0.5B head", 896, 151936 }, { "1.5B qkv", 1536, 2048 },
        { "1.5B gate_up", 1536, 17920 }, { "1.5B down", 8960, 1536 }, { "7B qkv", 3584, 4608 },
        { "7B o", 3584, 3584 },      { "7B gate_up", 3584, 37888 }, { "7B down", 18944, 3584 },
    };
    void *x = gpu_alloc(64 * 18944 * 2), *w = gpu_alloc((size_t)700 << 20), *y = gpu_alloc((size_t)64 * 151936 * 4), *work = gpu_alloc(MI_GEMM_WORKSPACE);

    cudaMemset(x, 0x3c, 64 * 18944 * 2), cudaMemset(w, 0x3c, (size_t)700 << 20);
    printf("# us (TB/s of the weights) for 8, 16, 32, 64 rows; then cuBLASLt's us\n");
    for (size_t i = 0; i < G_N_ELEMENTS(m); i++) {
        const double bytes = (double)m[i].in * m[i].out * 2;
        printf("# %-14s", m[i].name);
        for (int how = 0; how < 2; how++)
            for (int rows = 8; rows <= 64; rows *= 2) {
                const double us = time_of(&m[i], rows, how, x, w, y, work);
                if (how)
                    printf(" %7.2f", us);
                else
                    printf(" %7.2f (%.2f)", us, bytes / us / 1e6);
            }
        printf("\n");
        fflush(stdout);
    }
}

int main(void)
{
    static const Case cases[] = {
        { 5, 64, 64, 0, false, false, false, false },    { 8, 896, 1152, 0, false, true, false, false },
        { 13, 200, 100, 0, false, true, true, false },   { 16, 4864, 896, 0, false, false, true, false },
        { 17, 896, 4864, 0, true, false, false, false }, { 32, 1536, 8960, 8, true, false, false, false },
        { 33, 3584, 3584, 8, false, false, true, false }, { 64, 18944, 512, 0, false, false, true, false },
        { 31, 896, 15000, 0, false, false, false, true }, { 7, 136, 72, 8, true, false, false, false },
        { 64, 264, 40, 0, false, true, false, true },    { 100, 896, 1152, 0, false, false, true, false },
        { 300, 576, 576, 8, false, false, false, false },
    };
    if (!gpu_present())
        return 0;
    gpu_open();
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++)
        if (!gpu_quick() || cases[i].in * cases[i].out < 1 << 21)
            try(&cases[i]);
    if (g_getenv("MI_BENCH"))
        bench();
    return gpu_end();
}
