/* The products for [engine] deterministic = batch on a card: against sums in double, and bit by bit against themselves,
 * a row alone and at any place among any number of others. */
#include "gpu.h"

#include <cuda/invariant.h>

enum { ROWS = 300 };

typedef struct {
    int     in, out, gap; /* gap: elements between rows of x and of y */
    MiDType dtype, to;
    bool    bias;
} Case;

static const char *const names[] = { [MI_F32] = "f32", [MI_F16] = "f16", [MI_BF16] = "bf16" };

static float *numbers(int64_t n, float range, uint64_t *seed, void **card, MiDType dtype)
{
    float *x = g_new(float, n);
    void  *packed = g_malloc((size_t)n * 4);

    for (int64_t i = 0; i < n; i++) {
        x[i] = gpu_rounded(gpu_random(seed) * range, dtype);
        gpu_put(packed, i, dtype, x[i]);
    }
    *card = gpu_upload(packed, (size_t)n * mi_dtype_size(dtype));
    g_free(packed);
    return x;
}

/* Rows [first, first + n) of x, into the same rows of y; W in one part, or, now and then, in three. */
static void product(const Case *c, char *x, const void *w, const float *bias, char *y, int first, int n)
{
    const int64_t  xs = c->in + c->gap, ys = c->out + c->gap;
    const size_t   each = mi_dtype_size(c->dtype), to = mi_dtype_size(c->to);
    const MiTensor tx = { x + (size_t)(first * xs) * each, c->dtype, 2, { n, c->in }, { xs, 1 } };
    const int      cuts[] = { 0, n % 3 ? c->out : c->out / 3, n % 3 ? c->out : c->out / 2, c->out };
    MiInvariantPart parts[3];
    int             n_parts = 0;

    for (int i = 0; i < 3; i++)
        if (cuts[i] < cuts[i + 1])
            parts[n_parts++] = (MiInvariantPart){
                (const char *)w + (size_t)cuts[i] * (size_t)c->in * each, bias ? bias + cuts[i] : NULL,
                { y + (size_t)(first * ys + cuts[i]) * to, c->to, 2, { n, cuts[i + 1] - cuts[i] }, { ys, 1 } },
            };
    gpu_must((cudaError_t)mi_cuda_invariant(gpu_card.stream, tx, parts, n_parts), "launching");
}

static char *back(const char *card, size_t bytes)
{
    char *y = g_malloc(bytes);
    gpu_wait("products");
    gpu_must(cudaMemcpy(y, card, bytes, cudaMemcpyDeviceToHost), "copying back");
    return y;
}

/* Against the formula, at up to 200 outputs of each row, the last among them. */
static double error_of(const Case *c, const void *y, const float *x, const float *w, const float *bias)
{
    double error = 0, norm = 0;

    for (int r = 0; r < ROWS; r++)
        for (int k = 0; k < MIN(200, c->out); k++) {
            const int o = c->out - 1 - (int)((int64_t)k * c->out / MIN(200, c->out));
            double    want = c->bias ? bias[o] : 0;
            for (int i = 0; i < c->in; i++)
                want += (double)x[(int64_t)r * (c->in + c->gap) + i] * w[(int64_t)o * c->in + i];
            const double got = gpu_get(y, (int64_t)r * (c->out + c->gap) + o, c->to);
            error += (got - want) * (got - want);
            norm += want * want;
        }
    return sqrt(error / norm);
}

/* Every size of a step up to 40, and some beyond, each beginning elsewhere; returns how many rows differ. */
static int other_batches(const Case *c, char *xc, const void *wc, const float *bc, char *yc, const char *want,
                         size_t bytes)
{
    static const int sizes[] = { 41, 63, 64, 65, 100, 128, 129, 200, 257 };
    const size_t     row = (size_t)(c->out + c->gap) * mi_dtype_size(c->to);
    int              differ = 0;

    for (int k = 1; k <= 40 + (int)G_N_ELEMENTS(sizes); k++) {
        const int n = k <= 40 ? k : sizes[k - 41];
        if (gpu_quick() && k % 13)
            continue;
        gpu_must(cudaMemset(yc, 0xa5, bytes), "poisoning");
        for (int first = k % 7; first < ROWS; first += n)
            product(c, xc, wc, bc, yc, first, MIN(n, ROWS - first));
        if (k % 7)
            product(c, xc, wc, bc, yc, 0, k % 7);
        g_autofree char *got = back(yc, bytes);
        for (int r = 0; r < ROWS; r++)
            differ += memcmp(got + (size_t)r * row, want + (size_t)r * row, row) != 0;
    }
    return differ;
}

static void try(const Case *c)
{
    uint64_t     seed = (uint64_t)(c->in * 31 + c->out);
    const int64_t xs = c->in + c->gap, ys = c->out + c->gap;
    const size_t bytes = (size_t)((ROWS + 1) * ys) * mi_dtype_size(c->to);
    void        *xc, *wc, *bc, *yc = gpu_alloc(bytes);
    float       *x = numbers(ROWS * xs, 1, &seed, &xc, c->dtype);
    float       *w = numbers((int64_t)c->out * c->in, 0.1f, &seed, &wc, c->dtype);
    float       *bias = numbers(c->out, 1, &seed, &bc, MI_F32);
    bool         apart = true;

    gpu_must(cudaMemset(yc, 0xa5, bytes), "poisoning");
    product(c, xc, wc, c->bias ? bc : NULL, yc, 0, ROWS);
    g_autofree char *want = back(yc, bytes);
    for (size_t i = 0; i < bytes; i++) { /* between rows and behind them */
        const int64_t at = (int64_t)(i / mi_dtype_size(c->to));
        apart = apart && ((at < ROWS * ys && at % ys < c->out) || want[i] == (char)0xa5);
    }
    const double error = error_of(c, want, x, w, bias);
    gpu_check(apart && error < (c->to == MI_BF16 ? 4e-3 : c->to == MI_F16 ? 5e-4 : 1e-5),
              "%d -> %d of %s to %s%s%s: %.1e%s", c->in, c->out, names[c->dtype], names[c->to], c->bias ? ", bias" : "",
              c->gap ? ", apart" : "", error, apart ? "" : ", and it wrote elsewhere");
    const int differ = other_batches(c, xc, wc, c->bias ? bc : NULL, yc, want, bytes);
    gpu_check(!differ, "%d -> %d of %s to %s: the same bits in every batch (%d rows differ)", c->in, c->out,
              names[c->dtype], names[c->to], differ);
    void *all[] = { xc, wc, bc, yc };
    for (size_t i = 0; i < G_N_ELEMENTS(all); i++)
        cudaFree(all[i]);
    g_free(x), g_free(w), g_free(bias);
}

int main(void)
{
    static const Case cases[] = {
        { 896, 1152, 0, MI_BF16, MI_BF16, true },  { 64, 64, 0, MI_BF16, MI_BF16, false },
        { 4864, 896, 8, MI_BF16, MI_BF16, false }, { 896, 15000, 0, MI_BF16, MI_F32, false },
        { 72, 40, 0, MI_F16, MI_F16, true },       { 576, 1536, 0, MI_F16, MI_F32, false },
        { 201, 99, 3, MI_BF16, MI_BF16, true },    { 33, 17, 1, MI_F16, MI_F16, false },
        { 200, 96, 0, MI_F32, MI_F32, true },      { 897, 130, 5, MI_F32, MI_F32, false },
    };
    if (!gpu_present())
        return 0;
    gpu_open();
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++)
        if (!gpu_quick() || cases[i].in * cases[i].out < 1 << 18)
            try(&cases[i]);
    return gpu_end();
}
