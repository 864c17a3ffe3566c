/* gpu_fp8.c - what fp8 and int8 are on a card, against slow loops over the definitions: rows into a cache with scales, and
 * linears of E4M3. */
#include "gpu.h"
#include "scaled.h"

#include <cuda/fp8.h>
#include <cuda/gemm.h>
#include <cuda/gemv.h>
#include <cuda/ops.h>
#include <cuda/prefill.h>

/* ---- a cache with scales ------------------------------------------------------------------- */

enum { ROWS = 37, BLOCK = 16, BLOCKS = 7 };

typedef struct {
    MiKvView kv;
    int32_t  slots[ROWS], row_of[BLOCK * BLOCKS];
    size_t   side, scales;
    float   *shift; /* [n_kv_heads][head_dim] of keys */
} Cache;

static void cache_make(Cache *c, MiDType t, int heads, int dim)
{
    c->side = (size_t)(BLOCKS * BLOCK * heads * dim);
    c->scales = (size_t)(BLOCKS * BLOCK * heads) * 4;
    const size_t     shift = (size_t)(heads * dim);
    g_autofree char *poison = g_malloc(MAX(c->side, shift * 4 + c->scales));
    memset(poison, 0x11, MAX(c->side, shift * 4 + c->scales));
    c->shift = g_new(float, shift);
    for (size_t i = 0; i < shift; i++)
        c->shift[i] = i % 3 ? 0 : (float)(i % 50);
    memset(c->row_of, -1, sizeof c->row_of);
    for (int i = 0; i < ROWS; i++) {
        c->slots[i] = i % 9 == 8 ? -1 : i * 29 % (BLOCK * BLOCKS);
        if (c->slots[i] >= 0)
            c->row_of[c->slots[i]] = i;
    }
    c->kv = (MiKvView){ .k = gpu_upload(poison, c->side), .v = gpu_upload(poison, c->side),
                        .dtype = t, .n_kv_heads = heads, .head_dim = dim, .stride_token = dim, .stride_head = BLOCK * dim,
                        .stride_block = (int64_t)BLOCK * dim * heads, .block_size = BLOCK,
                        .slots = gpu_upload(c->slots, sizeof c->slots) };
    memcpy(poison, c->shift, shift * 4);
    c->kv.scales = (float *)gpu_upload(poison, shift * 4 + c->scales) + shift;
}

static void cache_free(Cache *c)
{
    cudaFree(c->kv.k), cudaFree(c->kv.v), cudaFree((float *)c->kv.scales - c->kv.n_kv_heads * c->kv.head_dim), cudaFree((void *)(uintptr_t)c->kv.slots);
    g_free(c->shift);
}

/* Of x [ROWS][heads][dim], f32: heads that are not the nearest numbers of the least scale, as far as x is exact; those of
 * slots that no row has must be untouched. */
static int wrong_heads(const Cache *c, int side, const float *x)
{
    const MiKvView     *kv = &c->kv;
    g_autofree uint8_t *codes = gpu_download(side ? kv->v : kv->k, c->side);
    g_autofree uint16_t *scales = gpu_download(kv->scales, c->scales);
    int                 wrong = 0;

    for (int s = 0; s < BLOCK * BLOCKS; s++)
        for (int h = 0; h < kv->n_kv_heads; h++) {
            const int64_t at = mi_kv_offset(kv, s / BLOCK, s % BLOCK, h);
            const float   scale = mi_bf16_to_f32(scales[at / kv->head_dim * 2 + side]);
            float         want[512];
            bool          ok = true;
            for (int d = 0; d < kv->head_dim && c->row_of[s] >= 0; d++)
                want[d] = x[(c->row_of[s] * kv->n_kv_heads + h) * kv->head_dim + d] - (side ? 0 : c->shift[h * kv->head_dim + d]);
            if (c->row_of[s] >= 0)
                scaled_round(kv->dtype, want, kv->head_dim, want);
            for (int d = 0; d < kv->head_dim; d++)
                ok = ok && (c->row_of[s] < 0 ? codes[at + d] == 0x11 : scaled_code(kv->dtype, codes[at + d]) * scale == want[d]);
            wrong += !ok;
        }
    return wrong;
}

static MiTensor rows_of(const float *x, MiDType t, int heads, int dim, float *rounded)
{
    const int64_t    n = (int64_t)ROWS * heads * dim;
    g_autofree void *host = g_malloc((size_t)n * 4);

    for (int64_t i = 0; i < n; i++)
        if (t == MI_BF16)
            rounded[i] = mi_bf16_to_f32(((uint16_t *)host)[i] = mi_f32_to_bf16(x[i]));
        else if (t == MI_F16)
            rounded[i] = mi_f16_to_f32(((uint16_t *)host)[i] = mi_f32_to_f16(x[i]));
        else
            rounded[i] = ((float *)host)[i] = x[i];
    return (MiTensor){ gpu_upload(host, (size_t)n * mi_dtype_size(t)), t, 3, { ROWS, heads, dim }, { heads * dim, dim, 1 } };
}

static float *noise(int64_t n, uint32_t seed)
{
    g_autoptr(GRand) r = g_rand_new_with_seed(seed);
    float           *x = g_new(float, n);

    for (int64_t i = 0; i < n; i++)
        x[i] = (float)(g_rand_double_range(r, -2, 2) * (i % 11 == 3 ? 9 : i % 7 == 1 ? 1e-3 : 1));
    return x;
}

static void appends(void)
{
    static const struct { int heads, dim; } shapes[] = { { 2, 64 }, { 3, 128 }, { 1, 20 }, { 4, 256 } };

    for (size_t i = 0; i < G_N_ELEMENTS(shapes); i++)
        for (MiDType t = MI_F8; t <= MI_I8; t++)
            for (MiDType from = MI_F32; from <= MI_BF16; from++) {
                const int         heads = shapes[i].heads, dim = shapes[i].dim, n = ROWS * heads * dim;
                g_autofree float *k = noise(n, 1), *v = noise(n, 2);
                Cache             c;
                memset(k, 0, (size_t)dim * sizeof *k);
                const MiTensor kt = rows_of(k, from, heads, dim, k), vt = rows_of(v, from, heads, dim, v);
                cache_make(&c, t, heads, dim);
                gpu_must(mi_cuda_kv_append(NULL, kt, vt, &c.kv), "kv_append");
                gpu_must(cudaDeviceSynchronize(), "kv_append");
                const int wrong = wrong_heads(&c, 0, k) + wrong_heads(&c, 1, v);
                gpu_check(wrong == 0, "kv_append, %s, %d heads of %d, from dtype %d: %d heads are wrong", t == MI_F8 ? "fp8" : "int8",
                          heads, dim, from, wrong);
                cudaFree(kt.data), cudaFree(vt.data);
                cache_free(&c);
            }
}

/* Joined rows of q, k and v: v, which does not turn and has no bias here, to the bit; k by its distance. */
static void turns(void)
{
    for (int i = 0; i < 4; i++) {
        const int         q_heads = 6, heads = 2, dim = i % 2 ? 128 : 64, all = q_heads + 2 * heads, half = dim / 2;
        const MiDType     t = i < 2 ? MI_F8 : MI_I8;
        g_autofree float *x = noise((int64_t)ROWS * all * dim, 3), *freqs = noise(half, 4);
        g_autofree float *k = g_new(float, ROWS * heads * dim), *v = g_new(float, ROWS * heads * dim);
        int32_t           positions[ROWS];
        Cache             c;
        double            off = 0, norm = 0;
        for (int r = 0; r < ROWS; r++)
            positions[r] = r * 3;
        const MiTensor joined = rows_of(x, MI_BF16, all, dim, x);
        for (int r = 0; r < ROWS; r++)
            for (int h = 0; h < heads; h++)
                for (int d = 0; d < dim; d++) {
                    const float *row = x + ((int64_t)r * all + q_heads + h) * dim;
                    const double a = (double)(positions[r] * freqs[d % half]);
                    k[(r * heads + h) * dim + d] = (float)(d < half ? row[d] * cos(a) - row[d + half] * sin(a)
                                                                    : row[d - half] * sin(a) + row[d] * cos(a));
                    v[(r * heads + h) * dim + d] = x[((int64_t)r * all + q_heads + heads + h) * dim + d];
                }
        cache_make(&c, t, heads, dim);
        void *q = gpu_upload(x, (size_t)(ROWS * q_heads * dim) * 2);
        gpu_must(mi_cuda_rope_append(NULL, (MiRopeAppend){ .joined = joined.data, .freqs = gpu_upload(freqs, (size_t)half * 4),
                                                           .positions = gpu_upload(positions, sizeof positions), .q = q,
                                                           .dtype = MI_BF16, .rows = ROWS, .n_heads = q_heads, .n_kv_heads = heads,
                                                           .head_dim = dim, .rotated = dim, .magnitude = 1 }, c.kv), "rope_append");
        gpu_must(cudaDeviceSynchronize(), "rope_append");
        const int            wrong = wrong_heads(&c, 1, v);
        g_autofree uint8_t  *codes = gpu_download(c.kv.k, c.side);
        g_autofree uint16_t *scales = gpu_download(c.kv.scales, c.scales);
        for (int s = 0; s < BLOCK * BLOCKS; s++)
            for (int h = 0; h < heads && c.row_of[s] >= 0; h++)
                for (int d = 0; d < dim; d++) {
                    const int64_t at = mi_kv_offset(&c.kv, s / BLOCK, s % BLOCK, h);
                    const double  got = scaled_code(t, codes[at + d]) * mi_bf16_to_f32(scales[at / dim * 2]);
                    const double  want = k[(c.row_of[s] * heads + h) * dim + d] - c.shift[h * dim + d];
                    off += (got - want) * (got - want), norm += want * want;
                }
        const double e = sqrt(off / norm), most = t == MI_F8 ? 0.04 : 0.02;
        gpu_check(wrong == 0 && e < most, "rope_append, %s, heads of %d: %d of v wrong, k within %.4f", t == MI_F8 ? "fp8" : "int8",
                  dim, wrong, e);
        cudaFree(q), cudaFree(joined.data);
        cache_free(&c);
    }
}

/* By accesses of eight elements, and, where rows do not begin at 16 bytes, one by one: the same bits. */
static void two_ways(void)
{
    static const struct { int q_heads, heads, dim, rotated; bool bias; MiDType from; } shapes[] = {
        { 14, 2, 64, 64, true, MI_BF16 }, { 28, 4, 128, 128, true, MI_F16 }, { 4, 4, 128, 32, false, MI_BF16 }, { 3, 1, 256, 128, true, MI_BF16 },
        { 5, 3, 16, 16, false, MI_F16 },  { 2, 1, 512, 512, true, MI_BF16 },
    };

    for (size_t i = 0; i < 2 * G_N_ELEMENTS(shapes); i++) {
        const int         q_heads = shapes[i / 2].q_heads, heads = shapes[i / 2].heads, dim = shapes[i / 2].dim, all = q_heads + 2 * heads;
        const MiDType     from = shapes[i / 2].from, t = i % 2 ? MI_I8 : MI_F8;
        const size_t      joined = (size_t)(ROWS * all * dim) * 2, of_q = (size_t)(ROWS * q_heads * dim) * 2;
        g_autofree float *x = noise((int64_t)ROWS * all * dim, 5), *numbers = noise((all + 1) * dim, 6);
        float            *constants = gpu_upload(numbers, (size_t)((all + 1) * dim) * 4), *bias = constants + dim;
        const MiTensor    xd = rows_of(x, from, all, dim, x);
        char             *aside = gpu_alloc(joined + 8), *q[2] = { gpu_alloc(of_q), gpu_alloc(of_q) };
        int32_t           positions[ROWS];
        Cache             c[2];

        for (int r = 0; r < ROWS; r++)
            positions[r] = r * 3;
        int32_t *at = gpu_upload(positions, sizeof positions);
        gpu_must(cudaMemcpy(aside + 8, xd.data, joined, cudaMemcpyDeviceToDevice), "copying");
        for (int way = 0; way < 2; way++) {
            MiRopeAppend a = { .joined = way ? aside + 8 : (char *)xd.data, .freqs = constants, .positions = at, .q = q[way], .dtype = from, .rows = ROWS,
                               .n_heads = q_heads, .n_kv_heads = heads, .head_dim = dim, .rotated = shapes[i / 2].rotated, .magnitude = 1.25f };
            if (shapes[i / 2].bias)
                a.bias[0] = bias, a.bias[1] = bias + q_heads * dim, a.bias[2] = a.bias[1] + heads * dim;
            cache_make(&c[way], t, heads, dim);
            gpu_must(mi_cuda_rope_append(NULL, a, c[way].kv), "rope_append");
        }
        gpu_must(cudaDeviceSynchronize(), "rope_append");
        const void *pairs[][2] = { { q[0], q[1] }, { c[0].kv.k, c[1].kv.k }, { c[0].kv.v, c[1].kv.v }, { c[0].kv.scales, c[1].kv.scales } };
        const size_t bytes[] = { of_q, c[0].side, c[0].side, c[0].scales };
        int          differ = 0;
        for (int k = 0; k < 4; k++) {
            g_autofree uint8_t *one = gpu_download(pairs[k][0], bytes[k]), *other = gpu_download(pairs[k][1], bytes[k]);
            for (size_t n = 0; n < bytes[k]; n++)
                differ += one[n] != other[n];
        }
        gpu_check(differ == 0, "rope_append in two ways, %s, %d + 2 * %d heads of %d, %d turn%s: %d bytes differ", t == MI_F8 ? "fp8" : "int8", q_heads, heads, dim,
                  shapes[i / 2].rotated, shapes[i / 2].bias ? ", bias" : "", differ);
        cudaFree(constants), cudaFree(at), cudaFree(xd.data), cudaFree(aside), cudaFree(q[0]), cudaFree(q[1]);
        cache_free(&c[0]), cache_free(&c[1]);
    }
}

/* ---- linears ----------------------------------------------------------------------------------- */

static MiTensor matrix(const float *x, MiDType t, int64_t rows, int64_t n, float *rounded)
{
    g_autofree void *host = g_malloc((size_t)(rows * n) * 4);

    for (int64_t i = 0; i < rows * n; i++) {
        rounded[i] = gpu_rounded(x[i], t);
        gpu_put(host, i, t, x[i]);
    }
    return (MiTensor){ gpu_upload(host, (size_t)(rows * n) * mi_dtype_size(t)), t, 2, { rows, n }, { n, 1 } };
}

/* The nearest numbers of a row by its largest, in place; how many codes on the card are others. */
static int64_t round_row(float *x, int64_t n, const uint8_t *codes, float scale)
{
    float   largest = 0;
    int64_t wrong = 0;

    for (int64_t i = 0; i < n; i++)
        largest = fmaxf(largest, fabsf(x[i]));
    const float want = largest > 0 ? largest / 448 : 1;
    for (int64_t i = 0; i < n; i++) {
        const double code = scaled_nearest(MI_F8, (double)(x[i] * (1 / want)));
        wrong += want != scale || scaled_code(MI_F8, codes[i]) != code;
        x[i] = (float)(code * want);
    }
    return wrong;
}

static double product(const float *x, const float *w, const float *bias, int64_t in, int64_t r, int64_t o)
{
    double sum = bias ? (double)bias[o] : 0;

    for (int64_t k = 0; k < in; k++)
        sum += (double)x[r * in + k] * (double)w[o * in + k];
    return sum;
}

enum { SIDE = 128 }; /* of a block */

/* Any codes, a scale for each block; w: what they stand for. */
static void stored_blocks(int64_t out, int64_t in, float *w, uint8_t **codes, float **scales)
{
    const int64_t       across = (in + SIDE - 1) / SIDE, down = (out + SIDE - 1) / SIDE;
    g_autofree uint8_t *c = g_malloc((size_t)(out * in));
    g_autofree float   *s = g_new(float, across * down);
    uint64_t            seed = 77;

    for (int64_t i = 0; i < across * down; i++)
        s[i] = 1e-3f * (1.5f + gpu_random(&seed));
    for (int64_t i = 0; i < out * in; i++) {
        const int code = (int)(128 * (1 + gpu_random(&seed))) & 0xff;
        c[i] = (uint8_t)((code & 0x7f) == 0x7f ? 0x40 : code);
        w[i] = (float)scaled_code(MI_F8, c[i]) * s[i / in / SIDE * across + i % in / SIDE];
    }
    *codes = gpu_upload(c, (size_t)(out * in)), *scales = gpu_upload(s, (size_t)(across * down) * 4);
}

typedef struct {
    int     rows, in, out;
    MiDType t, y;
} Case;

/* Through the plugin; rows of x that are few multiply as they are. */
static void linear(const Case *k, bool blocks)
{
    const int64_t      rows = k->rows, in = k->in, out = k->out;
    const MiQuantForm  form = { .bits = MI_QUANT_E4M3, .group = blocks ? SIDE : 0 };
    const char *const  layout = blocks ? "fp8.blocks" : "fp8";
    const MiLinear    *vt = gpu_feature("linear_fp8_cuda.so", MI_KIND_LINEAR, blocks ? "fp8_blocks" : "fp8");
    g_autofree float  *x = noise(rows * in, 5), *w = noise(out * in, 6), *bias = noise(out, 7);
    const MiTensor     xd = matrix(x, k->t, rows, in, x);
    uint8_t           *wc, *xc = gpu_upload(x, (size_t)(rows * in));
    float             *ws, *xs = gpu_upload(x, (size_t)rows * 4), *bd = gpu_upload(bias, (size_t)out * 4);
    const size_t       bytes = (size_t)(rows * out) * mi_dtype_size(k->y);
    const MiTensor     y = { gpu_alloc(bytes), k->y, 2, { rows, out }, { out, 1 } };
    const bool         few = rows <= 4 && k->t == MI_BF16, plain = !few && (blocks || out % 16), rounds = !few && !plain;
    int64_t            wrong = 0;

    gpu_must(cudaMemset(y.data, 0xff, bytes), "poisoning");
    if (blocks) {
        stored_blocks(out, in, w, &wc, &ws);
    } else {
        const MiTensor wd = matrix(w, k->t, out, in, w);
        wc = gpu_upload(w, (size_t)(out * in)), ws = gpu_upload(w, (size_t)out * 4);
        gpu_must(mi_cuda_fp8_rows(NULL, wd, wc, ws), "rounding");
        gpu_must(cudaDeviceSynchronize(), "rounding");
        g_autofree uint8_t *codes = gpu_download(wc, (size_t)(out * in));
        g_autofree float   *scales = gpu_download(ws, (size_t)out * 4);
        for (int64_t o = 0; o < out; o++)
            wrong += round_row(w + o * in, in, codes + o * in, scales[o]);
        cudaFree(wd.data);
    }
    for (int64_t i = 0; i < out * in && plain; i++)
        w[i] = gpu_rounded(w[i], k->t);
    if (rounds) {
        gpu_must(mi_cuda_fp8_rows(NULL, xd, xc, xs), "rounding");
        gpu_must(cudaDeviceSynchronize(), "rounding");
        g_autofree uint8_t *codes = gpu_download(xc, (size_t)(rows * in));
        g_autofree float   *scales = gpu_download(xs, (size_t)rows * 4);
        for (int64_t r = 0; r < rows; r++)
            wrong += round_row(x + r * in, in, codes + r * in, scales[r]);
    }
    gpu_check(wrong == 0, "%d rows and %d of %d as E4M3: %d codes are wrong", k->rows, k->out, k->in, (int)wrong);

    const MiWeight  stored = { .name = "w", .format = "fp8", .ndim = 2, .shape = { out, in } };
    const MiNode    node = { .op = "linear", .n_in = 1, .n_out = 1, .weight = { &stored } };
    const MiOperand operands[MI_MAX_WEIGHTS] = {
        { .tensor = { wc, MI_F8, 2, { out, in }, { 0 } }, .layout = layout, .scales = ws, .ext = &form },
        { .tensor = { bd, MI_F32, 1, { out }, { 1 } }, .layout = "plain" },
    };
    const MiArgs at = { .node = &node, .in = &xd, .out = &y, .weight = operands };
    MiCall       call = { .shape = { .n_tokens = k->rows, .n_out = k->rows }, .at = &at, .n = 1 };
    gpu_card.dtype = k->t;
    const bool ran = gpu_run(vt->op, &gpu_card, &call, NULL);
    g_autofree void  *host = gpu_download(y.data, bytes);
    g_autofree float *got = g_new(float, rows * out), *want = g_new(float, rows * out);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t o = 0; o < out; o++) {
            got[r * out + o] = gpu_get(host, r * out + o, k->y);
            want[r * out + o] = (float)product(x, w, bias, in, r, o);
        }
    const double e = gpu_error(got, want, rows * out), most = k->y == MI_BF16 ? 4e-3 : few ? 1e-3 : 2e-3;
    gpu_check(ran && e < most, "linear of E4M3%s, %d rows of %s, %d to %d, to %s: %.1e", blocks ? " in blocks" : "", k->rows,
              gpu_dtype(k->t), k->in, k->out, gpu_dtype(k->y), e);
    void *all[] = { xd.data, y.data, wc, ws, xc, xs, bd };
    for (size_t i = 0; i < G_N_ELEMENTS(all); i++)
        cudaFree(all[i]);
}

static void linears(void)
{
    static const Case cases[] = {
        { 1, 896, 1152, MI_BF16, MI_BF16 }, { 3, 4864, 896, MI_BF16, MI_BF16 }, { 4, 528, 35, MI_F16, MI_F32 },
        { 5, 896, 1152, MI_BF16, MI_BF16 }, { 37, 1536, 256, MI_BF16, MI_F32 }, { 130, 512, 896, MI_F16, MI_F16 },
        { 9, 144, 4112, MI_BF16, MI_BF16 }, { 2, 3600, 300, MI_BF16, MI_F32 }, { 6, 272, 333, MI_BF16, MI_F32 }, { 9, 8192, 4111, MI_BF16, MI_BF16 },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++)
        for (int blocks = 0; blocks < 2; blocks++)
            linear(&cases[i], blocks);
}

/* Rows as an rmsnorm and as a gate give them: each code the nearest number or its neighbour, since both round on their way. */
static void rows_on_their_way(void)
{
    static const int sizes[] = { 64, 896, 3584, 18944, 24592 };

    for (size_t k = 0; k < 2 * G_N_ELEMENTS(sizes); k++) {
        const bool        gated = k % 2;
        const int64_t     rows = 5, n = sizes[k / 2], of_x = gated ? 2 * n : n;
        g_autofree float *x = noise(rows * of_x, 15 + k), *gain = noise(n, 16), *want = g_new(float, n);
        const MiTensor    xd = matrix(x, MI_BF16, rows, of_x, x);
        uint8_t          *cd = gpu_alloc((size_t)(rows * n));
        float            *sd = gpu_alloc((size_t)rows * 4), *gd = gpu_upload(gain, (size_t)n * 4);
        double            off = 0, norm = 0, most = 0;
        gpu_must(gated ? mi_cuda_fp8_gated_rows(NULL, xd, cd, sd) : mi_cuda_fp8_norm_rows(NULL, xd, gd, 1e-5f, 0.25f, cd, sd, NULL), "rounding");
        gpu_must(cudaDeviceSynchronize(), "rounding");
        g_autofree uint8_t *codes = gpu_download(cd, (size_t)(rows * n));
        g_autofree float   *scales = gpu_download(sd, (size_t)rows * 4);
        for (int64_t r = 0; r < rows; r++) {
            const float *row = x + r * of_x;
            double       squares = 0, largest = 0;
            for (int64_t i = 0; i < n; i++)
                squares += (double)row[i] * row[i];
            for (int64_t i = 0; i < n; i++) {
                want[i] = gated ? row[i] / (1 + expf(-row[i])) * row[n + i] : row[i] / sqrtf((float)(squares / (double)n) + 1e-5f) * (0.25f + gain[i]);
                largest = fmax(largest, fabs(want[i]));
            }
            most = fmax(most, fabs(largest / 448 / scales[r] - 1));
            for (int64_t i = 0; i < n; i++) {
                const double got = scaled_code(MI_F8, codes[r * n + i]) * scales[r];
                const double best = scaled_nearest(MI_F8, want[i] / scales[r]) * scales[r];
                off += (got - best) * (got - best), norm += best * best;
            }
        }
        gpu_check(most < (gated ? 8e-3 : 1e-5) && sqrt(off / norm) < (gated ? 2e-2 : 2e-3), "%d rows of %d, %s: scales within %.1e, codes %.1e",
                  (int)rows, (int)n, gated ? "gated" : "normed", most, sqrt(off / norm));
        cudaFree(xd.data), cudaFree(cd), cudaFree(sd), cudaFree(gd);
    }
}

/* What is no number, a matrix with rows of nothing and one scale. */
static void stored(void)
{
    enum { ROWS_OF = 300, N = 272, DOWN = 3, ACROSS = 3 };
    g_autofree uint8_t *codes = g_malloc0(ROWS_OF * N);
    g_autofree float   *ones = g_new(float, ROWS_OF);
    int                 wrong = 0;

    for (int i = 0; i < ROWS_OF; i++)
        ones[i] = 2;
    codes[7 * N + 270] = 0xff, codes[131 * N + 5] = 0x7f, codes[299 * N] = 0x7e;
    uint8_t *cd = gpu_upload(codes, ROWS_OF * N);
    float   *of_rows = gpu_upload(ones, ROWS_OF * 4), *of_blocks = gpu_upload(ones, DOWN * ACROSS * 4);
    gpu_must(mi_cuda_fp8_check(NULL, cd, ROWS_OF, N, 1, of_rows), "checking");
    gpu_must(mi_cuda_fp8_check(NULL, cd, ROWS_OF, N, MI_FP8_BLOCK, of_blocks), "checking");
    gpu_must(cudaDeviceSynchronize(), "checking");
    g_autofree float *r = gpu_download(of_rows, ROWS_OF * 4), *b = gpu_download(of_blocks, DOWN * ACROSS * 4);
    for (int i = 0; i < ROWS_OF; i++)
        wrong += i == 7 || i == 131 ? !isnan(r[i]) : r[i] != 2;
    for (int i = 0; i < DOWN * ACROSS; i++)
        wrong += i == 2 || i == 3 ? !isnan(b[i]) : b[i] != 2;
    gpu_check(wrong == 0, "codes that are no numbers: %d scales are wrong", wrong);

    g_autofree float *x = noise(ROWS_OF * N, 21);
    float             largest = 0;
    for (int i = 0; i < ROWS_OF * N; i++) {
        x[i] = i / N % 3 ? x[i] * 1e-3f : 0;
        largest = fmaxf(largest, fabsf(gpu_rounded(x[i], MI_BF16)));
    }
    const MiTensor xd = matrix(x, MI_BF16, ROWS_OF, N, x);
    gpu_must(mi_cuda_fp8_measure(NULL, xd, of_rows), "measuring"), gpu_must(mi_cuda_fp8_even(NULL, of_rows, ROWS_OF), "measuring");
    gpu_must(mi_cuda_fp8_rows_by(NULL, xd, cd, of_rows), "rounding"), gpu_must(cudaDeviceSynchronize(), "rounding");
    g_autofree float   *s = gpu_download(of_rows, ROWS_OF * 4);
    g_autofree uint8_t *c = gpu_download(cd, ROWS_OF * N);
    wrong = 0;
    for (int i = 0; i < ROWS_OF * N; i++)
        wrong += s[i / N] != largest / 448 || scaled_code(MI_F8, c[i]) != scaled_nearest(MI_F8, (double)(x[i] * (1 / s[i / N])));
    gpu_check(wrong == 0, "one scale for a matrix: %d elements are wrong", wrong);
    cudaFree(cd), cudaFree(of_rows), cudaFree(of_blocks), cudaFree(xd.data);
}

/* MI_BENCH: TFLOP/s of a large product; TB/s of one row's. */
static void timings(void)
{
    enum { N = 8192, RUNS = 10 };
    g_autofree float *x = noise((int64_t)N * N, 8);
    const MiTensor    xd = matrix(x, MI_BF16, N, N, x);
    uint8_t          *codes = gpu_alloc((size_t)N * N), *w[4];
    float            *scales = gpu_alloc(N * 4), ms = 0;
    void             *y = gpu_alloc((size_t)N * N * 2), *room = gpu_alloc(MI_GEMM_WORKSPACE);
    cudaEvent_t       from, to;
    MiGemm           *g;

    gpu_must(mi_cuda_fp8_rows(NULL, xd, codes, scales), "rounding");
    for (int i = 0; i < 4; i++) {
        w[i] = gpu_alloc((size_t)N * N);
        gpu_must(cudaMemcpy(w[i], codes, (size_t)N * N, cudaMemcpyDeviceToDevice), "copying");
    }
    gpu_must(cudaEventCreate(&from), "event"), gpu_must(cudaEventCreate(&to), "event");
    if (mi_cuda_gemm_new(&g, N, N, N, N, MI_F8, MI_BF16))
        return;
    for (int i = -2; i < RUNS; i++) {
        if (i == 0)
            gpu_must(cudaEventRecord(from, NULL), "event");
        if (mi_cuda_gemm_scaled(g, NULL, codes, scales, w[i & 3], scales, NULL, y, N, room))
            return;
    }
    gpu_must(cudaEventRecord(to, NULL), "event"), gpu_must(cudaEventSynchronize(to), "event");
    gpu_must(cudaEventElapsedTime(&ms, from, to), "event");
    printf("# fp8, 8192 cubed: %.0f TFLOP/s\n", 2.0 * N * N * N * RUNS / ms * 1e-9);
    for (int rows = 1; rows <= MI_GEMV_FEW_ROWS; rows *= 4)
        for (int group = 0; group <= SIDE; group += SIDE) {
            MiTensor   some = xd, out = { y, MI_BF16, 2, { rows, N }, { N, 1 } };
            MiGemvPlan plan = { .kind = MI_GEMV_PLAIN, .dtype = MI_BF16, .rows = rows, .in = N, .out = N,
                                .form = { .bits = MI_QUANT_E4M3, .group = group }, .scales = { scales } };
            some.shape[0] = rows;
            gpu_must(mi_cuda_gemv_plan(&plan), "planning");
            for (int i = -2; i < 40; i++) {
                if (i == 0)
                    gpu_must(cudaEventRecord(from, NULL), "event");
                gpu_must(mi_cuda_gemv(NULL, &plan, some, w[i & 3], NULL, out), "gemv");
            }
            gpu_must(cudaEventRecord(to, NULL), "event"), gpu_must(cudaEventSynchronize(to), "event");
            gpu_must(cudaEventElapsedTime(&ms, from, to), "event");
            printf("# fp8%s, %d rows of 8192 squared: %.1f us, %.2f TB/s\n", group ? " in blocks" : "", rows, ms / 40 * 1e3,
                   (double)N * N / (ms / 40) * 1e-9);
        }
    mi_cuda_gemm_free(g);
}

int main(void)
{
    if (!gpu_present())
        return 0;
    appends();
    turns();
    two_ways();
    gpu_open();
    stored();
    rows_on_their_way();
    linears();
    if (g_getenv("MI_BENCH"))
        timings();
    return gpu_end();
}
