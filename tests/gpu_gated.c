/* gpu_gated.c - what stands round a prompt's large products: gate and up as one product, against a product of both in f32 and
 * the formula, and against itself where kernels overlap; heads that turn by eights, against one element at a time. */
#include "gpu.h"

#include <cuda/fp8.h>
#include <cuda/gated.h>
#include <cuda/gemm.h>
#include <cuda/prefill.h>

static MiTensor matrix(void *data, MiDType t, int64_t rows, int64_t n, int64_t stride)
{
    return (MiTensor){ data, t, 2, { rows, n }, { stride, 1 } };
}

/* [rows][n] of t and a row more, no number where nothing is to be read. */
static uint16_t *numbers(int64_t rows, int64_t n, int64_t stride, MiDType t, float range, uint64_t *seed)
{
    uint16_t *x = g_new(uint16_t, (rows + 1) * stride);

    memset(x, 0xff, (size_t)((rows + 1) * stride) * 2);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < n; i++)
            gpu_put(x, r * stride + i, t, gpu_random(seed) * range);
    return x;
}

static void *poisoned(size_t bytes)
{
    void *p = gpu_alloc(bytes);
    gpu_must(cudaMemset(p, 0xa5, bytes), "poisoning");
    gpu_must(cudaDeviceSynchronize(), "poisoning");
    return p;
}

/* ---- gate and up ----------------------------------------------------------------------------- */

typedef struct {
    int     rows, hidden, ff, gap; /* gap: elements between rows of x and of y */
    MiDType t;
} Case;

static double dot(const uint16_t *x, const uint16_t *w, int n, MiDType t)
{
    double y = 0;
    for (int i = 0; i < n; i++)
        y += (double)gpu_get(x, i, t) * (double)gpu_get(w, i, t);
    return y;
}

static double gated_of(double g, double u) { return g / (1 + exp(-g)) * u; }

/* Sums of a joined product, f32, which are right where they are asked for: at 300 places. */
static float *sums_of(const Case *c, const uint16_t *x, const uint16_t *w, const void *xc, const void *wc)
{
    const int64_t xs = c->hidden + c->gap, out = 2 * c->ff;
    void         *y = gpu_alloc((size_t)(c->rows * out) * 4), *work = gpu_alloc(MI_GEMM_WORKSPACE);
    MiGemm       *g;
    double        most = 0;

    gpu_must((cudaError_t)mi_cuda_gemm_new(&g, out, c->hidden, xs, out, c->t, MI_F32), "preparing");
    gpu_must((cudaError_t)mi_cuda_gemm(g, gpu_card.stream, xc, wc, NULL, y, c->rows, work), "product");
    gpu_wait("product");
    float *sums = gpu_download(y, (size_t)(c->rows * out) * 4);
    for (int i = 0; i < 300; i++) {
        const int64_t r = i == 0 ? c->rows - 1 : i * 7919 % c->rows, o = i == 0 ? out - 1 : i * 104729ll % out;
        most = fmax(most, fabs(sums[r * out + o] - dot(x + r * xs, w + o * c->hidden, c->hidden, c->t)));
    }
    if (!(most < 1e-3))
        gpu_check(false, "the product itself is off by %.1e", most);
    mi_cuda_gemm_free(g);
    (void)cudaFree(y), (void)cudaFree(work);
    return sums;
}

static void product(const Case *c)
{
    uint64_t             seed = (uint64_t)(c->rows * 7919 + c->hidden * 31 + c->ff);
    const int64_t        xs = c->hidden + c->gap, ys = c->ff + c->gap, n = (c->rows + 1) * ys;
    g_autofree uint16_t *x = numbers(c->rows, c->hidden, xs, c->t, 1, &seed);
    g_autofree uint16_t *w = numbers(2 * c->ff, c->hidden, c->hidden, c->t, 6 / sqrtf((float)c->hidden), &seed);
    char                *xc = gpu_upload(x, (size_t)((c->rows + 1) * xs) * 2);
    char                *wc = gpu_upload(w, (size_t)((2 * c->ff + 1) * c->hidden) * 2);
    void                *y[] = { poisoned((size_t)n * 2), poisoned((size_t)n * 2) };
    int64_t              wrong = 0, elsewhere = 0;
    double               error = 0, norm = 0;

    for (int i = 0; i < 2; i++)
        gpu_must((cudaError_t)mi_cuda_gated(gpu_card.stream, matrix(xc, c->t, c->rows, c->hidden, xs), wc,
                                            wc + (size_t)(c->ff * c->hidden) * 2, matrix(y[i], c->t, c->rows, c->ff, ys)), "gated");
    gpu_wait("gated");
    g_autofree float    *sums = sums_of(c, x, w, xc, wc);
    g_autofree uint16_t *got = gpu_download(y[0], (size_t)n * 2), *again = gpu_download(y[1], (size_t)n * 2);
    for (int64_t i = 0; i < n; i++) {
        const int64_t r = i / ys, o = i % ys;
        if (r == c->rows || o >= c->ff) {
            elsewhere += got[i] != 0xa5a5;
            continue;
        }
        const double want = gated_of(sums[r * 2 * c->ff + o], sums[(r * 2 + 1) * c->ff + o]);
        const double off = fabs(gpu_get(got, i, c->t) - want);
        wrong += !(off <= fabs(want) * (c->t == MI_F16 ? 0x1p-10 : 0x1p-8) + 5e-4);
        error += off * off, norm += want * want;
    }
    error = sqrt(error / norm);
    const bool same = memcmp(got, again, (size_t)n * 2) == 0;
    gpu_check(!wrong && !elsewhere && same && error < (c->t == MI_F16 ? 3e-4 : 2.4e-3), "%d rows, %d -> %d, %s%s: %.1e, %d wrong%s%s",
              c->rows, c->hidden, c->ff, gpu_dtype(c->t), c->gap ? ", apart" : "", error, (int)wrong,
              elsewhere ? ", it wrote elsewhere" : "", same ? "" : ", and something else the second time");
    void *all[] = { xc, wc, y[0], y[1] };
    for (size_t i = 0; i < G_N_ELEMENTS(all); i++)
        (void)cudaFree(all[i]);
}

static void products(void)
{
    static const Case all[] = {
        { 1, 64, 128, 0, MI_BF16 },       { 77, 64, 136, 8, MI_F16 },         { 128, 72, 128, 0, MI_BF16 },
        { 129, 136, 1000, 16, MI_BF16 },  { 257, 896, 8, 0, MI_F16 },         { 1000, 896, 4864, 0, MI_BF16 },
        { 1000, 1536, 1000, 8, MI_F16 },  { 2112, 896, 4864, 0, MI_F16 },     { 2112, 3584, 1000, 0, MI_BF16 },
        { 4096, 1536, 4864, 0, MI_BF16 }, { 640, 3584, 4864, 24, MI_BF16 },   { 8192, 72, 136, 0, MI_BF16 },
    };

    for (size_t i = 0; i < (gpu_quick() ? 4 : G_N_ELEMENTS(all)); i++)
        product(&all[i]);
    gpu_check(mi_cuda_gated_rows(896, 4864, MI_BF16) < INT64_MAX && mi_cuda_gated_rows(900, 4864, MI_BF16) == INT64_MAX &&
              mi_cuda_gated_rows(896, 4868, MI_BF16) == INT64_MAX && mi_cuda_gated_rows(896, 4864, MI_F32) == INT64_MAX,
              "shapes that it takes, from %d rows on", (int)mi_cuda_gated_rows(896, 4864, MI_BF16));
}

/* Behind a kernel that writes its x, twice in a row over the same memory, and before one that reads its y: as if each waited. */
static void overlapping(void)
{
    enum { ROWS = 1000, N = 896, TURNS = 24 };
    const int            turns = gpu_quick() ? 4 : TURNS;
    const size_t         bytes = (size_t)ROWS * N * 2;
    uint64_t             seed = 5;
    g_autofree uint16_t *z = numbers(ROWS * 2, 2 * N, 2 * N, MI_BF16, 2, &seed), *w = numbers(2 * N, N, N, MI_BF16, 0.13f, &seed);
    char                *zc = gpu_upload(z, bytes * 4), *wc = gpu_upload(w, bytes / ROWS * 2 * N);
    char                *a = poisoned(bytes), *b = poisoned(bytes), *end = poisoned(bytes / 2 * TURNS);
    g_autofree char     *want = NULL;
    const MiTensor       at = matrix(a, MI_BF16, ROWS, N, N), bt = matrix(b, MI_BF16, ROWS, N, N);
    int                  wrong = 0;

    for (int waits = 1; waits >= 0; waits--) {
        for (int i = 0; i < turns; i++)
            for (int k = 0; k < 4; k++) {
                const int e = k == 0   ? mi_cuda_silu_mul(gpu_card.stream, zc + i % 2 * bytes * 2, a, ROWS, N, MI_BF16)
                              : k == 3 ? mi_cuda_silu_mul(gpu_card.stream, a, end + bytes / 2 * (size_t)i, ROWS, N / 2, MI_BF16)
                                       : mi_cuda_gated(gpu_card.stream, k == 1 ? at : bt, wc, wc + (size_t)N * N * 2, k == 1 ? bt : at);
                gpu_must((cudaError_t)e, "launching");
                if (waits)
                    gpu_wait("one");
            }
        gpu_wait("all");
        g_autofree char *got = gpu_download(end, bytes / 2 * (size_t)turns);
        for (int i = 0; i < turns && !waits; i++)
            wrong += memcmp(got + bytes / 2 * (size_t)i, want + bytes / 2 * (size_t)i, bytes / 2) != 0;
        if (waits)
            want = g_steal_pointer(&got);
    }
    gpu_check(wrong == 0 && memcmp(want, want + bytes / 2, bytes / 2) != 0, "kernels that overlap: %d of %d are not as if they waited",
              wrong, turns);
    void *all[] = { zc, wc, a, b, end };
    for (size_t i = 0; i < G_N_ELEMENTS(all); i++)
        (void)cudaFree(all[i]);
}

/* ---- the same of 8 bits ------------------------------------------------------------------------------ */

/* An ordinary number: sign, exponent of 2^-2 to 1, three bits. */
static uint8_t some_code(uint64_t *seed)
{
    const int bits = (int)((gpu_random(seed) + 1) * 48) % 96;
    return (uint8_t)((bits & 1) << 7 | (5 + bits / 2 % 3) << 3 | (bits / 6 & 7));
}
static double code_value(uint8_t c) { return (c & 0x80 ? -1 : 1) * ldexp(1 + (c & 7) / 8.0, (c >> 3 & 15) - 7); }

static float *some_scales(int64_t n, double by, uint64_t *seed)
{
    float *x = g_new(float, n);
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)by * (1.5f + gpu_random(seed));
    return x;
}

/* Against sums in double at some places, which is what tensor cores are short of; and what rows' largest are, and codes within them. */
static void scaled_product(int rows, int hidden, int ff, MiDType t)
{
    uint64_t             seed = (uint64_t)(rows + hidden * 31 + ff);
    g_autofree uint8_t  *x = g_new(uint8_t, (int64_t)rows * hidden), *w = g_new(uint8_t, 2 * (int64_t)ff * hidden);
    g_autofree float    *xs = some_scales(rows, 0.5, &seed), *ws = some_scales(2 * ff, 1.5 / sqrt(hidden), &seed);
    const size_t         n = (size_t)rows * (size_t)ff;
    double               error = 0, norm = 0, off = 0;
    int                  differ = 0;

    for (int64_t i = 0; i < (int64_t)rows * hidden; i++)
        x[i] = some_code(&seed);
    for (int64_t i = 0; i < 2 * (int64_t)ff * hidden; i++)
        w[i] = some_code(&seed);
    char    *xc = gpu_upload(x, (size_t)rows * (size_t)hidden), *wc = gpu_upload(w, 2 * (size_t)ff * (size_t)hidden);
    float   *xsc = gpu_upload(xs, (size_t)rows * 4), *wsc = gpu_upload(ws, (size_t)ff * 8), *largest = gpu_alloc((size_t)rows * 4);
    float   *scales = gpu_alloc((size_t)rows * 8);
    uint8_t *codes = gpu_alloc(2 * n);
    void    *y = poisoned(n * 2);
    gpu_must(cudaMemset(largest, 0, (size_t)rows * 4), "zeros"), gpu_must(cudaDeviceSynchronize(), "zeros");
    gpu_must((cudaError_t)mi_cuda_gated_scaled(gpu_card.stream, matrix(xc, MI_F8, rows, hidden, hidden), wc, wc + (size_t)ff * (size_t)hidden,
                                               matrix(y, t, rows, ff, ff), (MiGatedScales){ xsc, wsc, wsc + ff, largest }), "gated");
    if (ff % 16 == 0) {
        gpu_must((cudaError_t)mi_cuda_fp8_rows_within(gpu_card.stream, matrix(y, t, rows, ff, ff), codes, scales, largest), "rounding");
        gpu_must((cudaError_t)mi_cuda_fp8_rows(gpu_card.stream, matrix(y, t, rows, ff, ff), codes + n, scales + rows), "rounding");
    }
    gpu_wait("gated");
    g_autofree uint16_t *got = gpu_download(y, n * 2);
    g_autofree float    *most = gpu_download(largest, (size_t)rows * 4), *found = gpu_download(scales, (size_t)rows * 8);
    g_autofree uint8_t  *c = gpu_download(codes, 2 * n);
    for (int i = 0; i < 3000; i++) {
        const int64_t r = i == 0 ? rows - 1 : i * 7919ll % rows, o = i == 0 ? ff - 1 : i * 104729ll % ff;
        double        g = 0, u = 0;
        for (int k = 0; k < hidden; k++) {
            g += code_value(x[r * hidden + k]) * code_value(w[o * hidden + k]);
            u += code_value(x[r * hidden + k]) * code_value(w[(ff + o) * hidden + k]);
        }
        const double want = gated_of(g * (double)xs[r] * (double)ws[o], u * (double)xs[r] * (double)ws[ff + o]);
        const double is = gpu_get(got, r * ff + o, t);
        error += (is - want) * (is - want), norm += want * want;
    }
    for (int64_t r = 0; r < rows; r++) {
        double of_row = 0;
        for (int64_t o = 0; o < ff; o++) {
            of_row = fmax(of_row, fabs((double)gpu_get(got, r * ff + o, t)));
            differ += ff % 16 == 0 && abs(c[r * ff + o] - c[n + (size_t)(r * ff + o)]) > 1;
        }
        off = fmax(off, fabs((double)most[r] / of_row - 1));
        if (ff % 16 == 0)
            off = fmax(off, fabs((double)found[r] / (double)found[rows + r] - 1));
    }
    error = sqrt(error / norm);
    gpu_check(error < 4e-3 && off < (t == MI_F16 ? 6e-4 : 4.5e-3) && !differ, "E4M3, %d rows, %d -> %d, %s: %.1e, largest within %.1e, %d codes differ",
              rows, hidden, ff, gpu_dtype(t), error, off, differ);
    void *all[] = { xc, wc, xsc, wsc, largest, scales, codes, y };
    for (size_t i = 0; i < G_N_ELEMENTS(all); i++)
        (void)cudaFree(all[i]);
}

static void scaled_products(void)
{
    static const struct { int rows, hidden, ff; MiDType t; } all[] = {
        { 1, 128, 128, MI_BF16 }, { 77, 144, 136, MI_F16 }, { 300, 896, 1008, MI_BF16 }, { 1000, 1536, 4864, MI_F16 }, { 2112, 3584, 2000, MI_BF16 },
    };

    for (size_t i = 0; i < (gpu_quick() ? 2 : G_N_ELEMENTS(all)); i++)
        scaled_product(all[i].rows, all[i].hidden, all[i].ff, all[i].t);
}

/* ---- heads that turn ------------------------------------------------------------------------------ */

enum { BLOCK = 16 };

typedef struct {
    int     rows, n_heads, n_kv_heads, dim, rotated;
    bool    bias, interleaved;
    MiDType t;
} Heads;

/* What heads go through, and where they come out. */
typedef struct {
    MiRopeAppend a;
    MiKvView     kv;
    size_t       q, side; /* bytes */
    void        *owned[8];
    int          n_owned;
} Turning;

static void *own(Turning *t, void *p) { return t->owned[t->n_owned++] = p; }

/* gap: elements between heads of the cache; what is no multiple of eight goes one element at a time. */
static Turning turning_new(const Heads *h, int gap, const uint16_t *joined, const float *numbers, const int32_t *places)
{
    const int   all = h->n_heads + 2 * h->n_kv_heads, each = h->dim + gap, blocks = (h->rows + BLOCK - 1) / BLOCK;
    const float *freqs, *bias;
    Turning     t = { .q = (size_t)(h->rows * h->n_heads * h->dim) * 2, .side = (size_t)(blocks * BLOCK * h->n_kv_heads * each) * 2 };

    freqs = own(&t, gpu_upload(numbers, (size_t)(h->dim / 2) * 4));
    bias = own(&t, gpu_upload(numbers + h->dim, (size_t)(all * h->dim) * 4));
    const int32_t *at = own(&t, gpu_upload(places, (size_t)h->rows * 2 * 4));
    t.a = (MiRopeAppend){ .joined = own(&t, gpu_upload(joined, (size_t)(h->rows * all * h->dim) * 2)), .freqs = freqs, .positions = at,
                          .q = own(&t, poisoned(t.q)), .dtype = h->t, .rows = h->rows, .n_heads = h->n_heads, .n_kv_heads = h->n_kv_heads,
                          .head_dim = h->dim, .rotated = h->rotated, .interleaved = h->interleaved, .magnitude = 1.25f };
    if (h->bias)
        t.a.bias[0] = bias, t.a.bias[1] = bias + h->n_heads * h->dim, t.a.bias[2] = t.a.bias[1] + h->n_kv_heads * h->dim;
    t.kv = (MiKvView){ .k = own(&t, poisoned(t.side)), .v = own(&t, poisoned(t.side)), .dtype = h->t, .n_kv_heads = h->n_kv_heads,
                       .head_dim = h->dim, .stride_head = each, .stride_token = h->n_kv_heads * each,
                       .stride_block = (int64_t)BLOCK * h->n_kv_heads * each, .block_size = BLOCK, .slots = at + h->rows };
    return t;
}

static void turning_free(Turning *t)
{
    while (t->n_owned)
        (void)cudaFree(t->owned[--t->n_owned]);
}

/* Of a row's head among all, element d; in double. */
static double turned(const Heads *h, const uint16_t *joined, const float *numbers, const int32_t *places, int row, int head, int d)
{
    const int       all = h->n_heads + 2 * h->n_kv_heads, half = h->rotated / 2;
    const uint16_t *x = joined + ((int64_t)row * all + head) * h->dim;
    const float    *bias = numbers + h->dim + head * h->dim;
    const bool      turns = d < h->rotated && head < h->n_heads + h->n_kv_heads;
    const int       pair = h->interleaved ? d / 2 : d % half, first = h->interleaved ? 2 * pair : pair;
    const int       second = h->interleaved ? first + 1 : first + half;

    if (!turns)
        return (double)gpu_get(x, d, h->t) + (h->bias ? (double)bias[d] : 0);
    const double u = (double)gpu_get(x, first, h->t) + (h->bias ? (double)bias[first] : 0);
    const double v = (double)gpu_get(x, second, h->t) + (h->bias ? (double)bias[second] : 0);
    const double a = (double)((float)places[row] * numbers[pair]);
    return 1.25 * (d == first ? u * cos(a) - v * sin(a) : u * sin(a) + v * cos(a));
}

static void heads(const Heads *h)
{
    const int            all = h->n_heads + 2 * h->n_kv_heads, blocks = (h->rows + BLOCK - 1) / BLOCK;
    uint64_t             seed = (uint64_t)(h->rows * 31 + h->dim);
    g_autofree uint16_t *joined = numbers(h->rows, all * h->dim, all * h->dim, h->t, 2, &seed);
    g_autofree float    *constants = g_new(float, (all + 1) * h->dim);
    g_autofree int32_t  *places = g_new(int32_t, 2 * h->rows);
    int64_t              differ = 0, wrong = 0, elsewhere = 0;

    for (int i = 0; i < (all + 1) * h->dim; i++)
        constants[i] = gpu_random(&seed);
    for (int r = 0; r < h->rows; r++) {
        places[r] = r * 3;
        places[h->rows + r] = r % 9 == 8 ? -1 : (h->rows - 1 - r); /* each once */
    }
    Turning eights = turning_new(h, 8, joined, constants, places), ones = turning_new(h, 4, joined, constants, places);
    gpu_must((cudaError_t)mi_cuda_rope_append(gpu_card.stream, eights.a, eights.kv), "turning");
    gpu_must((cudaError_t)mi_cuda_rope_append(gpu_card.stream, ones.a, ones.kv), "turning");
    gpu_wait("turning");
    g_autofree uint16_t *q = gpu_download(eights.a.q, eights.q), *q1 = gpu_download(ones.a.q, ones.q);
    for (int64_t i = 0; i < (int64_t)eights.q / 2; i++) {
        const int    d = (int)(i % h->dim), head = (int)(i / h->dim % h->n_heads), row = (int)(i / h->dim / h->n_heads);
        const double want = turned(h, joined, constants, places, row, head, d);
        differ += q[i] != q1[i];
        wrong += !(fabs(gpu_get(q, i, h->t) - want) <= fabs(want) * (h->t == MI_F16 ? 0x1p-10 : 0x1p-8) + 1e-4);
    }
    for (int side = 0; side < 2; side++) {
        g_autofree uint16_t *c = gpu_download(side ? eights.kv.v : eights.kv.k, eights.side);
        g_autofree uint16_t *c1 = gpu_download(side ? ones.kv.v : ones.kv.k, ones.side);
        for (int slot = 0; slot < blocks * BLOCK; slot++)
            for (int k = 0; k < h->n_kv_heads; k++)
                for (int d = 0; d < h->dim + 8; d++) {
                    const int     row = h->rows - 1 - slot;
                    const int64_t at = mi_kv_offset(&eights.kv, slot / BLOCK, slot % BLOCK, k) + d;
                    const int64_t at1 = mi_kv_offset(&ones.kv, slot / BLOCK, slot % BLOCK, k) + d;
                    if (row < 0 || row % 9 == 8 || d >= h->dim) {
                        elsewhere += c[at] != 0xa5a5;
                        continue;
                    }
                    const double want = turned(h, joined, constants, places, row, h->n_heads + side * h->n_kv_heads + k, d);
                    differ += c[at] != c1[at1];
                    wrong += !(fabs(gpu_get(c, at, h->t) - want) <= fabs(want) * (h->t == MI_F16 ? 0x1p-10 : 0x1p-8) + 1e-4);
                }
    }
    gpu_check(!differ && !wrong && !elsewhere, "%d rows of %d + 2 * %d heads of %d, %d turn%s, %s%s: %d differ, %d wrong%s", h->rows,
              h->n_heads, h->n_kv_heads, h->dim, h->rotated, h->interleaved ? " in pairs" : "", gpu_dtype(h->t),
              h->bias ? ", bias" : "", (int)differ, (int)wrong, elsewhere ? ", it wrote elsewhere" : "");
    turning_free(&eights), turning_free(&ones);
}

static void turns(void)
{
    static const Heads all[] = {
        { 37, 28, 4, 128, 128, true, false, MI_BF16 }, { 203, 14, 2, 64, 64, true, false, MI_F16 },
        { 1, 4, 1, 256, 256, false, false, MI_BF16 },  { 66, 6, 2, 128, 32, true, false, MI_BF16 },
        { 50, 3, 3, 80, 48, false, false, MI_F16 },    { 31, 4, 2, 72, 72, true, false, MI_BF16 },
        { 31, 4, 2, 64, 64, true, true, MI_BF16 },     { 640, 16, 8, 128, 128, false, false, MI_BF16 },
    };

    for (size_t i = 0; i < (gpu_quick() ? 4 : G_N_ELEMENTS(all)); i++)
        heads(&all[i]);
}

/* ---- how fast --------------------------------------------------------------------------------------- */

typedef struct {
    int     rows, hidden, ff, copies; /* of W, so that it comes from memory as in a step */
    MiGemm *gemm;
    char   *x, *w, *y, *joined, *work;
    Turning turning;
} Bench;

static void both(Bench *b, int i)
{
    const char *w = b->w + (size_t)(i % b->copies) * (size_t)(b->ff * b->hidden) * 4;
    gpu_must((cudaError_t)mi_cuda_gemm(b->gemm, gpu_card.stream, b->x, w, NULL, b->joined, b->rows, b->work), "product");
    gpu_must((cudaError_t)mi_cuda_silu_mul(gpu_card.stream, b->joined, b->y, b->rows, b->ff, MI_BF16), "silu_mul");
}

static void one(Bench *b, int i)
{
    const char *w = b->w + (size_t)(i % b->copies) * (size_t)(b->ff * b->hidden) * 4;
    gpu_must((cudaError_t)mi_cuda_gated(gpu_card.stream, matrix(b->x, MI_BF16, b->rows, b->hidden, b->hidden), w,
                                        w + (size_t)(b->ff * b->hidden) * 2, matrix(b->y, MI_BF16, b->rows, b->ff, b->ff)), "gated");
}

static void turn(Bench *b, int i)
{
    (void)i;
    gpu_must((cudaError_t)mi_cuda_rope_append(gpu_card.stream, b->turning.a, b->turning.kv), "turning");
}

/* Microseconds of one of n. */
static double run_of(void (*launch)(Bench *, int), Bench *b, int n)
{
    cudaEvent_t from, to;
    float       ms;

    gpu_must(cudaEventCreate(&from), "event"), gpu_must(cudaEventCreate(&to), "event");
    gpu_must(cudaEventRecord(from, gpu_card.stream), "event");
    for (int i = 0; i < n; i++)
        launch(b, i);
    gpu_must(cudaEventRecord(to, gpu_card.stream), "event"), gpu_must(cudaEventSynchronize(to), "timing");
    gpu_must(cudaEventElapsedTime(&ms, from, to), "timing");
    (void)cudaEventDestroy(from), (void)cudaEventDestroy(to);
    return 1e3 * (double)ms / n;
}

/* So long that the card meets its power limit as it does in a prompt. */
static double sustained(void (*launch)(Bench *, int), Bench *b)
{
    enum { US = 150000 };
    (void)run_of(launch, b, 3);
    return run_of(launch, b, MAX(1, (int)(US / run_of(launch, b, 6))));
}

static void bench_products(void)
{
    static const struct { int hidden, ff; } shapes[] = { { 896, 4864 }, { 1024, 3072 }, { 1536, 8960 }, { 3584, 18944 } };
    enum { MOST_ROWS = 8192, MOST_HIDDEN = 3584, MOST_FF = 18944 };
    const size_t w_bytes = (size_t)320 << 20;
    Bench        b = { .x = gpu_alloc((size_t)MOST_ROWS * MOST_HIDDEN * 2), .w = gpu_alloc(w_bytes),
                       .y = gpu_alloc((size_t)MOST_ROWS * MOST_FF * 2), .joined = gpu_alloc((size_t)MOST_ROWS * MOST_FF * 4),
                       .work = gpu_alloc(MI_GEMM_WORKSPACE) };
    char         algorithm[MI_GEMM_ALGORITHM];

    gpu_must((cudaError_t)mi_cuda_noise(gpu_card.stream, b.x, (size_t)MOST_ROWS * MOST_HIDDEN * 2, MI_BF16), "noise");
    gpu_must((cudaError_t)mi_cuda_noise(gpu_card.stream, b.w, w_bytes, MI_BF16), "noise");
    for (size_t s = 0; s < G_N_ELEMENTS(shapes); s++) {
        b.hidden = shapes[s].hidden, b.ff = shapes[s].ff;
        b.copies = (int)(w_bytes / ((size_t)b.ff * b.hidden * 4));
        gpu_must((cudaError_t)mi_cuda_gemm_new(&b.gemm, 2 * b.ff, b.hidden, b.hidden, 2 * b.ff, MI_BF16, MI_BF16), "preparing");
        printf("# %d/%d: from %d rows on\n", b.hidden, b.ff, (int)mi_cuda_gated_rows(b.hidden, b.ff, MI_BF16));
        for (b.rows = 512; b.rows <= MOST_ROWS; b.rows *= 2) {
            const int    class = mi_cuda_gemm_class(b.rows);
            const double work = 4e-6 * b.rows * b.hidden * b.ff;
            double       us[2] = { 0, 0 };
            if (mi_cuda_gemm_work(b.gemm, class) < 4e11 && mi_cuda_gemm_measure(b.gemm, class, 0, algorithm)) /* as plugins do */
                (void)mi_cuda_gemm_choose(b.gemm, class, algorithm, sizeof algorithm);
            for (int i = 0; i < 4; i++)
                us[i % 2] += sustained(i % 2 ? one : both, &b) / 2;
            printf("# %d/%d, %d rows: product and silu_mul %.1f us, %.0f TFLOP/s; gated %.1f us, %.0f TFLOP/s; ratio %.3f\n",
                   b.hidden, b.ff, b.rows, us[0], work / us[0], us[1], work / us[1], us[0] / us[1]);
            fflush(stdout);
        }
        mi_cuda_gemm_free(b.gemm);
    }
    void *all[] = { b.x, b.w, b.y, b.joined, b.work };
    for (size_t i = 0; i < G_N_ELEMENTS(all); i++)
        (void)cudaFree(all[i]);
}

static void bench_turns(void)
{
    const Heads          h = { 8192, 28, 4, 128, 128, true, false, MI_BF16 };
    const int            all = h.n_heads + 2 * h.n_kv_heads;
    uint64_t             seed = 3;
    g_autofree uint16_t *joined = numbers(h.rows, all * h.dim, all * h.dim, h.t, 2, &seed);
    g_autofree float    *constants = g_new(float, (all + 1) * h.dim);
    g_autofree int32_t  *places = g_new(int32_t, 2 * h.rows);

    for (int i = 0; i < (all + 1) * h.dim; i++)
        constants[i] = gpu_random(&seed);
    for (int r = 0; r < h.rows; r++)
        places[r] = places[h.rows + r] = r;
    for (int gap = 0; gap <= 4; gap += 4) {
        Bench b = { .turning = turning_new(&h, gap, joined, constants, places) };
        (void)run_of(turn, &b, 20);
        const double us = run_of(turn, &b, 200);
        printf("# %d rows of %d + 2 * %d heads of %d turn, %s: %.1f us, %.2f TB/s\n", h.rows, h.n_heads, h.n_kv_heads, h.dim,
               gap ? "one element at a time" : "by eights", us, 4e-6 * h.rows * all * h.dim / us);
        turning_free(&b.turning);
    }
}

int main(void)
{
    if (!gpu_present())
        return 0;
    gpu_open();
    turns();
    if (mi_cuda_gated_rows(64, 64, MI_BF16) < INT64_MAX) {
        products();
        scaled_products();
        overlapping();
        if (g_getenv("MI_BENCH"))
            bench_products();
    } else {
        printf("# gate and up as one product: not on this card\n");
    }
    if (g_getenv("MI_BENCH"))
        bench_turns();
    return gpu_end();
}
