/* gpu_layer.c - the kernels of kernels/cuda/layer.h against plain loops in double; with MI_BENCH=1 (or only: without the
 * comparison) what a stack of layers takes with them, attention in between: of all shapes, or `gpu_layer 0.5B 32`.
 * MI_BENCH=cuts: with each product cut in every way. */
#include <cuda/attention.h>
#include <cuda/layer.h>
#include <math.h>

#include "gpu_numbers.h"
#include "scaled.h"

/* What tiles may be. */
static const int tile_tokens[] = {32, 64, 128, 192, 256}, tile_ns[] = {64, 80, 128, 144};

typedef struct {
    double *host;
    void   *device;
} Array;

static Array random_bf16(size_t n, float amp)
{
    uint16_t *b = malloc(n * 2);
    Array     a = {malloc(n * sizeof(double)), NULL};

    for (size_t i = 0; i < n; i++)
        a.host[i] = from_bf16(b[i] = to_bf16(amp * uniform()));
    a.device = upload(b, n * 2);
    free(b);
    return a;
}

static Array random_f32(size_t n, float mean, float amp)
{
    float *f = malloc(n * 4);
    Array  a = {malloc(n * sizeof(double)), NULL};

    for (size_t i = 0; i < n; i++)
        a.host[i] = f[i] = mean + amp * uniform();
    a.device = upload(f, n * 4);
    free(f);
    return a;
}

static double *fetch(const void *device, size_t n)
{
    uint16_t *b = malloc(n * 2);
    double   *f = malloc(n * sizeof *f);

    must(cudaDeviceSynchronize(), "running");
    must(cudaMemcpy(b, device, n * 2, cudaMemcpyDeviceToHost), "copying back");
    for (size_t i = 0; i < n; i++)
        f[i] = from_bf16(b[i]);
    free(b);
    return f;
}

static double distance(const double *a, const double *b, size_t n)
{
    double d = 0, s = 0;
    for (size_t i = 0; i < n; i++) {
        d += (a[i] - b[i]) * (a[i] - b[i]);
        s += b[i] * b[i];
    }
    return sqrt(d / (s + 1e-300));
}

static MiTensor tensor(void *data, int64_t rows, int64_t n)
{
    return (MiTensor){data, MI_BF16, 2, {rows, n}, {n, 1}};
}

/* ---- the slow and obvious way --------------------------------------------------------- */

static double *product(const double *x, const double *w, const double *bias, const double *add, int rows, int in, int out)
{
    double *y = malloc((size_t)rows * out * sizeof *y);
    for (int r = 0; r < rows; r++)
        for (int o = 0; o < out; o++) {
            double sum = (bias ? bias[o] : 0) + (add ? add[(size_t)r * out + o] : 0);
            for (int i = 0; i < in; i++)
                sum += x[(size_t)r * in + i] * w[(size_t)o * in + i];
            y[(size_t)r * out + o] = sum;
        }
    return y;
}

static double *normed(const double *x, const double *gain, int rows, int in, double eps, double offset)
{
    double *y = malloc((size_t)rows * in * sizeof *y);
    for (int r = 0; r < rows; r++) {
        double sum = 0;
        for (int i = 0; i < in; i++)
            sum += x[(size_t)r * in + i] * x[(size_t)r * in + i];
        for (int i = 0; i < in; i++)
            y[(size_t)r * in + i] = x[(size_t)r * in + i] / sqrt(sum / in + eps) * (offset + gain[i]);
    }
    return y;
}

/* ---- a case ------------------------------------------------------------------------------ */

enum { CAPACITY = 48, BLOCKS = 22 };

typedef struct {
    int  rows, planned, hidden, ff, heads, kv_heads, dim;
    bool interleaved, bias, next, own; /* next: with the heads of the next layer; own: h and act by the caller */
    bool normed;                       /* heads of q and k */
} Case;

/* ---- a cache with scales -------------------------------------------------------------------- */

typedef struct {
    MiKvView kv;
    float   *shift; /* of keys, on this side */
    size_t   side;  /* bytes of keys */
} Scaled;

/* Like a cache of bf16. */
static Scaled scaled_like(const MiKvView *kv, MiDType t)
{
    const size_t n = (size_t)kv->n_kv_heads * kv->head_dim, rows = (size_t)BLOCKS * kv->n_kv_heads * CAPACITY;
    Scaled       s = {*kv, malloc(n * sizeof(float)), rows * kv->head_dim};

    s.kv.dtype = t;
    s.kv.k = upload(NULL, s.side);
    s.kv.v = upload(NULL, s.side);
    float *shift = upload(NULL, n * sizeof(float) + rows * 4);
    for (size_t i = 0; i < n; i++)
        s.shift[i] = 3 * uniform();
    must(cudaMemcpy(shift, s.shift, n * sizeof(float), cudaMemcpyHostToDevice), "copying there");
    s.kv.scales = shift + n;
    return s;
}

static void *downloaded(const void *device, size_t bytes)
{
    void *p = malloc(bytes);
    must(cudaDeviceSynchronize(), "running");
    must(cudaMemcpy(p, device, bytes, cudaMemcpyDeviceToHost), "copying back");
    return p;
}

/* Heads in the cache with scales that are not to the bit what those in the cache of bf16, to which the call writes, become; elements that
 * are no row's count too where they have changed.  The tiles have to be whole heads: other tiles add up in another order. */
static int wrong_heads(const MiLayer *l, MiLayerCall call, const Scaled *s, const int32_t *slots)
{
    const MiKvView *kv = &s->kv;
    const int       dim = kv->head_dim;
    const size_t    rows = s->side / (size_t)dim;
    int             wrong = 0;

    must(mi_cuda_layer(NULL, l, &call), "launching");
    double *x[2] = {fetch(call.qkv.kv.k, s->side), fetch(call.qkv.kv.v, s->side)};
    must(cudaMemset(kv->k, 0xff, s->side), "poisoning");
    must(cudaMemset(kv->v, 0xff, s->side), "poisoning");
    must(cudaMemset(kv->scales, 0xff, rows * 4), "poisoning");
    call.qkv.kv = *kv;
    must(mi_cuda_layer(NULL, l, &call), "launching");
    uint8_t  *codes[2] = {downloaded(kv->k, s->side), downloaded(kv->v, s->side)};
    uint16_t *scales = downloaded(kv->scales, rows * 4);
    for (int side = 0; side < 2; side++) {
        size_t kept = 0, written = 0;
        for (int r = 0; r < call.a.shape[0]; r++)
            for (int h = 0; h < kv->n_kv_heads && slots[r] >= 0; h++, written++) {
                const int64_t at = slots[r] / CAPACITY * kv->stride_block + slots[r] % CAPACITY * kv->stride_token + h * kv->stride_head;
                const float   scale = from_bf16(scales[at / dim * 2 + side]);
                float         want[256];
                bool          ok = true;
                for (int d = 0; d < dim; d++)
                    want[d] = (float)x[side][at + d] - (side ? 0 : s->shift[h * dim + d]);
                scaled_round(kv->dtype, want, dim, want);
                for (int d = 0; d < dim; d++)
                    ok = ok && scaled_code(kv->dtype, codes[side][at + d]) * scale == want[d];
                wrong += !ok;
            }
        for (size_t i = 0; i < rows; i++)
            kept += scales[2 * i + (size_t)side] == 0xffff;
        wrong += kept != rows - written;
        free(x[side]), free(codes[side]);
    }
    free(scales);
    return wrong;
}

static void one(const Case c)
{
    const int    R = c.rows, D = c.hidden, F = c.ff, Q = c.heads * c.dim, K = c.kv_heads * c.dim, all = Q + 2 * K;
    MiLayerShape s = {.rows = c.planned, .hidden = D, .ff = F, .heads_width = Q};
    MiLayer     *l;
    char         name[128];
    double       worst = 0;

    if (c.next) {
        s.n_heads = c.heads;
        s.n_kv_heads = c.kv_heads;
        s.head_dim = c.dim;
        s.interleaved = c.interleaved;
    }
    must(mi_cuda_layer_new(&l, &s), "planning");
    const Array a = random_bf16((size_t)R * Q, 1), x = random_bf16((size_t)R * D, 1), wo = random_bf16((size_t)D * Q, 0.1f);
    const Array wg = random_bf16((size_t)2 * F * D, 0.1f), wd = random_bf16((size_t)D * F, 0.05f);
    const Array wq = random_bf16((size_t)all * D, 0.1f), gain = random_f32((size_t)D, 1, 0.5f), next = random_f32((size_t)D, 1, 0.5f);
    const Array bo = random_f32((size_t)D, 0, 1), bd = random_f32((size_t)D, 0, 1), bq = random_f32((size_t)all, 0, 1);
    const Array freqs = random_f32((size_t)c.dim / 2, 0.5f, 0.5f), head_gain = random_f32((size_t)2 * c.dim, 1, 0.5f);
    int32_t     positions[MI_LAYER_MAX_ROWS], slots[MI_LAYER_MAX_ROWS];
    const size_t n_kv = (size_t)BLOCKS * c.kv_heads * CAPACITY * c.dim;
    for (int i = 0; i < MI_LAYER_MAX_ROWS; i++) {
        positions[i] = i == 2 ? 100003 : 37 * i;
        slots[i] = i % 11 == 9 ? -1 : 2 * i + 1;
    }
    char       *wqd = wq.device;
    MiLayerCall call = {
        .a = tensor(a.device, R, Q),
        .x = tensor(x.device, R, D),
        .y = tensor(upload(NULL, (size_t)R * D * 2), R, D),
        .h = tensor(c.own ? upload(NULL, (size_t)R * D * 2) : NULL, R, D),
        .act = tensor(c.own ? upload(NULL, (size_t)R * F * 2) : NULL, R, F),
        .o = wo.device,
        .gate = wg.device,
        .up = (char *)wg.device + (size_t)F * D * 2,
        .down = wd.device,
        .o_bias = c.bias ? bo.device : NULL,
        .down_bias = c.bias ? bd.device : NULL,
        .norm = {gain.device, 1e-5f, 0.25f},
        .next_norm = {next.device, 1e-6f, 0},
        .qkv = {.w = {wqd, wqd + (size_t)Q * D * 2, wqd + (size_t)(Q + K) * D * 2},
                .freqs = freqs.device,
                .positions = upload(positions, sizeof positions),
                .magnitude = 1.1f,
                .q = tensor(upload(NULL, (size_t)R * Q * 2), R, Q),
                .kv = {.k = upload(NULL, n_kv * 2),
                       .v = upload(NULL, n_kv * 2),
                       .dtype = MI_BF16,
                       .n_kv_heads = c.kv_heads,
                       .head_dim = c.dim,
                       .stride_block = c.kv_heads * CAPACITY * c.dim,
                       .stride_token = c.dim,
                       .stride_head = CAPACITY * c.dim,
                       .block_size = CAPACITY,
                       .max_blocks = 1,
                       .slots = upload(slots, sizeof slots)}},
        .workspace = upload(NULL, mi_cuda_layer_workspace(l)),
    };
    for (int i = 0; i < 3 && c.bias; i++)
        call.qkv.bias[i] = (const float *)bq.device + (i == 0 ? 0 : i == 1 ? Q : Q + K);
    if (c.normed) {
        call.qkv.head_gain[0] = head_gain.device;
        call.qkv.head_gain[1] = (const float *)head_gain.device + c.dim;
        call.qkv.head_eps = 1e-3f;
        call.qkv.head_offset = 0.125f;
    }
    must(mi_cuda_layer(NULL, l, &call), "launching");

    double *h = product(a.host, wo.host, c.bias ? bo.host : NULL, x.host, R, Q, D), *n = normed(h, gain.host, R, D, 1e-5, 0.25);
    double *act = product(n, wg.host, NULL, NULL, R, D, F), *up = product(n, wg.host + (size_t)F * D, NULL, NULL, R, D, F);
    for (size_t i = 0; i < (size_t)R * F; i++)
        act[i] = act[i] / (1 + exp(-act[i])) * up[i];
    double *y = product(act, wd.host, c.bias ? bd.host : NULL, h, R, F, D);
    double *got = fetch(call.y.data, (size_t)R * D);
    double  d = distance(got, y, (size_t)R * D);
    worst = fmax(worst, d);
    if (c.own) {
        double *gh = fetch(call.h.data, (size_t)R * D), *ga = fetch(call.act.data, (size_t)R * F);
        const double dh = distance(gh, h, (size_t)R * D), da = distance(ga, act, (size_t)R * F);
        if (!(dh < 4e-3) || !(da < 1e-2) || !(d < 1e-2))
            printf("# h %.2e, act %.2e, y %.2e\n", dh, da, d);
        worst = fmax(worst, fmax(dh, da));
        worst = isnan(dh) || isnan(da) ? NAN : worst;
        free(gh), free(ga);
    }
    if (c.next) {
        double *m = normed(y, next.host, R, D, 1e-6, 0), *t = product(m, wq.host, c.bias ? bq.host : NULL, NULL, R, D, all);
        for (int i = 0; i < 2 && c.normed; i++)
            for (int r = 0; r < R; r++) {
                double *from = t + (size_t)r * all + (i ? Q : 0), *heads = normed(from, head_gain.host + i * c.dim, i ? c.kv_heads : c.heads, c.dim, 1e-3, 0.125);
                memcpy(from, heads, (size_t)(i ? K : Q) * sizeof *heads);
                free(heads);
            }
        double *gq = fetch(call.qkv.q.data, (size_t)R * Q), *gk = fetch(call.qkv.kv.k, n_kv), *gv = fetch(call.qkv.kv.v, n_kv);
        double  e[3] = {0}, sum[3] = {0};
        size_t  kept = 2 * n_kv;
        for (int r = 0; r < R; r++)
            for (int i = 0; i < all; i++) {
                const int head = i / c.dim, at = i % c.dim, half = c.dim / 2, part = i < Q ? 0 : i < Q + K ? 1 : 2;
                const int pair = c.interleaved ? at / 2 : at % half, first = c.interleaved ? at / 2 * 2 : pair;
                const double *v = t + (size_t)r * all + head * c.dim, angle = (float)positions[r] * (float)freqs.host[pair];
                const double  p = v[first], q = v[first + (c.interleaved ? 1 : half)];
                const double  want = part == 2      ? v[at]
                                     : at == first ? 1.1f * (p * cos(angle) - q * sin(angle))
                                                   : 1.1f * (q * cos(angle) + p * sin(angle));
                const int kv_head = head - c.heads - (part == 2 ? c.kv_heads : 0);
                if (part && slots[r] < 0)
                    continue;
                const double g = part == 0 ? gq[(size_t)r * Q + i]
                                           : (part == 1 ? gk : gv)[slots[r] / CAPACITY * call.qkv.kv.stride_block +
                                                                   slots[r] % CAPACITY * c.dim + kv_head * call.qkv.kv.stride_head + at];
                kept -= part > 0;
                e[part] += (g - want) * (g - want);
                sum[part] += want * want;
            }
        for (size_t i = 0; i < n_kv; i++) /* nothing else was written */
            kept -= isnan(gk[i]) + isnan(gv[i]);
        for (int i = 0; i < 3; i++) {
            const double dq = sqrt(e[i] / sum[i]);
            if (!(dq < 1e-2))
                printf("# %s %.2e\n", i == 0 ? "q" : i == 1 ? "k" : "v", dq);
            worst = isnan(dq) ? NAN : fmax(worst, dq);
        }
        if (kept)
            worst = 2;
        free(m), free(t), free(gq), free(gk), free(gv);
    }
    snprintf(name, sizeof name, "%d rows (of %d) of %d, %d between, heads %d/%d of %d%s%s%s%s%s", R, c.planned, D, F, c.heads, c.kv_heads, c.dim,
             c.interleaved ? " interleaved" : "", c.bias ? ", bias" : "", c.next ? ", next" : "", c.own ? ", own" : "",
             c.normed ? ", heads normed" : "");
    check(worst < 1e-2 && !isnan(d), name, isnan(d) ? d : worst);
    double *first_q = fetch(call.qkv.q.data, (size_t)R * Q);
    /* Again, with other launches between: the same bits. */
    double *before = got;
    bool    same = true;
    for (int i = 0; i < (quick ? 2 : 30) && same; i++) {
        must(cudaMemsetAsync(call.y.data, 0xff, (size_t)R * D * 2, NULL), "poisoning");
        must(mi_cuda_layer(NULL, l, &call), "launching");
        double *now = fetch(call.y.data, (size_t)R * D);
        same = memcmp(now, before, (size_t)R * D * sizeof *now) == 0;
        free(now);
    }
    check(same, "the same bits again", 0);
    for (int i = 0; i < (quick ? 5 : 500); i++) /* one after the other, not waited for */
        must(mi_cuda_layer(NULL, l, &call), "launching");
    double *last = fetch(call.y.data, (size_t)R * D);
    check(memcmp(last, before, (size_t)R * D * sizeof *last) == 0, "and after many launches in a row", 0);
    free(last);
    /* Every tile that there is, in every product. */
    Scaled scaled[2] = {0};
    int    cuts = 0, wrong = 0;
    double far = 0;
    for (int i = 0; i < 2 && c.next; i++) {
        scaled[i] = scaled_like(&call.qkv.kv, i ? MI_I8 : MI_F8);
        if (mi_cuda_layer_tiles(l, MI_LAYER_PRODUCTS - 1).n == c.dim)
            wrong += wrong_heads(l, call, &scaled[i], slots);
    }
    for (int i = 0; i < (c.next ? MI_LAYER_PRODUCTS : MI_LAYER_PRODUCTS - 1) && !quick; i++)
        for (int k = 0; k < 4; k++)
            for (int j = 0; j < 5; j++)
                for (int cluster = 1; cluster <= 8; cluster *= 2) {
                    const int tokens = tile_tokens[j];
                    mi_cuda_layer_free(l);
                    must(mi_cuda_layer_new(&l, &s), "planning");
                    if (mi_cuda_layer_cut(l, i, (MiLayerTiles){tokens, tile_ns[k], cluster}))
                        continue;
                    must(cudaMemsetAsync(call.y.data, 0xff, (size_t)R * D * 2, NULL), "poisoning");
                    must(cudaMemsetAsync(call.qkv.q.data, 0xff, (size_t)R * Q * 2, NULL), "poisoning");
                    must(mi_cuda_layer(NULL, l, &call), "launching");
                    double *now = fetch(call.y.data, (size_t)R * D), *q = fetch(call.qkv.q.data, (size_t)R * Q);
                    for (int t = 0; t < 2 && i == MI_LAYER_PRODUCTS - 1 && tile_ns[k] == c.dim; t++)
                        wrong += wrong_heads(l, call, &scaled[t], slots);
                    d = fmax(distance(now, y, (size_t)R * D), c.next ? distance(q, first_q, (size_t)R * Q) : 0);
                    far = isnan(d) ? NAN : fmax(far, d);
                    if (!(d < 1e-2))
                        printf("# product %d, %d tokens x %d, %d blocks: %.2e\n", i, tokens, tile_ns[k], cluster, d);
                    cuts++;
                    free(now), free(q);
                }
    snprintf(name, sizeof name, "cut in %d other ways", cuts);
    if (!quick)
        check(cuts > 0 && far < 1e-2, name, far);
    if (c.next)
        check(!wrong, "heads in caches of fp8 and int8, to the bit", wrong);
    for (int i = 0; i < 2; i++)
        free(scaled[i].shift);
    free(first_q);
    mi_cuda_layer_free(l);
    free(h), free(n), free(act), free(up), free(y), free(got);
    const Array all_arrays[] = {a, x, wo, wg, wd, wq, gain, next, bo, bd, bq, freqs, head_gain};
    for (size_t i = 0; i < sizeof all_arrays / sizeof *all_arrays; i++)
        free(all_arrays[i].host);
    free_all();
}

static void compare(void)
{
    static const Case cases[] = {
        {5, 8, 128, 192, 2, 1, 64, false, false, false, true, false},
        {32, 32, 128, 192, 2, 1, 64, false, true, true, true, false},
        {13, 16, 896, 512, 14, 2, 64, false, true, true, true, false},
        {32, 32, 896, 4864, 14, 2, 64, false, true, true, false, false},
        {31, 32, 576, 1536, 9, 3, 64, true, false, true, true, false},
        {27, 32, 1536, 8960, 12, 2, 128, false, true, true, false, false},
        {50, 64, 896, 4864, 14, 2, 64, false, true, true, true, false},
        {64, 64, 264, 648, 4, 4, 128, true, false, true, true, false},
        {120, 128, 896, 4864, 14, 2, 64, false, true, true, true, false},
        {128, 128, 192, 320, 3, 1, 64, false, true, false, true, false},
        {70, 128, 1536, 1000, 12, 2, 128, false, true, true, true, false},
        {250, 256, 896, 2432, 14, 2, 64, false, true, true, true, false},
        {256, 256, 128, 192, 2, 1, 64, false, true, true, true, false},
        {450, 512, 328, 408, 5, 5, 64, true, true, true, true, false},
        {30, 32, 1024, 3072, 16, 8, 128, false, false, true, false, true},
        {100, 128, 512, 640, 4, 2, 64, true, true, true, true, true},
        {200, 256, 1024, 3072, 16, 8, 128, false, false, true, true, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i += quick ? 4 : 1)
        one(cases[i]);
}

/* ---- a stack of layers --------------------------------------------------------------------- */

typedef struct {
    const char *name;
    int         hidden, layers, heads, kv_heads, dim, mlp;
} Shape;
static const Shape shapes[] = {
    {"0.5B", 896, 24, 14, 2, 64, 4864}, {"1.5B", 1536, 28, 12, 2, 128, 8960}, {"7B", 3584, 28, 28, 4, 128, 18944},
    {"Qwen3-0.6B", 1024, 28, 16, 8, 128, 3072}};
enum { CONTEXT = 512 };

static int ascending(const void *a, const void *b) { return (*(const float *)a > *(const float *)b) - (*(const float *)a < *(const float *)b); }

/* What a stack of layers reads and writes, whatever kernels run it. */
typedef struct {
    const Shape *s;
    int          rows, capacity;
    size_t       per_layer, side; /* weights; keys of a layer */
    char        *w, *cache;
    float       *vector;
    int32_t     *numbers;
    void        *x, *q, *a, *workspace, *room, *arrived;
    cudaStream_t stream;
    cudaEvent_t  begin, end;
} Stack;

enum { WORKSPACE = 64 << 20 };

static void *cleared(size_t bytes)
{
    void *p = upload(NULL, bytes);
    must(cudaMemset(p, 0, bytes), "clearing");
    return p;
}

static Stack new_stack(const Shape *s, int rows)
{
    const int Q = s->heads * s->dim, K = s->kv_heads * s->dim;
    Stack     t = {.s = s, .rows = rows, .capacity = CONTEXT + 64};
    int32_t  *ints = malloc(sizeof *ints * 4 * (size_t)(rows + 1));

    t.per_layer = (size_t)s->hidden * Q + 3 * (size_t)s->hidden * s->mlp + (size_t)(Q + 2 * K) * s->hidden;
    t.side = (size_t)rows * s->kv_heads * t.capacity * s->dim;
    t.w = cleared(t.per_layer * 2 * s->layers);
    t.cache = cleared(t.side * 4 * s->layers);
    t.vector = cleared(65536 * 4);
    for (int i = 0; i <= rows; i++) {
        ints[i] = CONTEXT - 1;                                     /* positions */
        ints[rows + 1 + i] = CONTEXT;                              /* kv_len */
        ints[2 * (rows + 1) + i] = i * t.capacity + CONTEXT - 1; /* slots */
        ints[3 * (rows + 1) + i] = i;                              /* seq_start */
    }
    t.numbers = upload(ints, sizeof *ints * 4 * (size_t)(rows + 1));
    free(ints);
    t.x = cleared((size_t)rows * s->hidden * 2);
    t.q = cleared((size_t)rows * Q * 2);
    t.a = cleared((size_t)rows * Q * 2);
    t.workspace = cleared(WORKSPACE);
    t.room = cleared(mi_cuda_attention_workspace(s->dim));
    t.arrived = cleared((size_t)rows * s->kv_heads * 4);
    must(cudaStreamCreate(&t.stream), "a stream");
    must(cudaEventCreate(&t.begin), "an event");
    must(cudaEventCreate(&t.end), "an event");
    return t;
}

/* us a layer of a captured stack; l NULL: of attention alone. */
static float measure(const Stack *t, const MiLayer *l, int rounds, int replays)
{
    const Shape    *s = t->s;
    const int       Q = s->heads * s->dim, K = s->kv_heads * s->dim, rows = t->rows;
    cudaGraph_t     graph;
    cudaGraphExec_t exec;
    float           times[15];

    if (l && mi_cuda_layer_workspace(l) > WORKSPACE)
        must(cudaErrorInvalidValue, "workspace");
    must(cudaStreamBeginCapture(t->stream, cudaStreamCaptureModeThreadLocal), "capturing");
    for (int i = 0; i < s->layers; i++) {
        char           *wl = t->w + t->per_layer * 2 * i, *keys = t->cache + t->side * 4 * i;
        MiKvView        kv = {.k = keys, .v = keys + t->side * 2, .dtype = MI_BF16,
                              .n_kv_heads = s->kv_heads, .head_dim = s->dim, .stride_block = s->kv_heads * t->capacity * s->dim,
                              .stride_token = s->dim, .stride_head = t->capacity * s->dim, .block_size = t->capacity, .max_blocks = 1,
                              .kv_len = t->numbers + rows + 1, .slots = t->numbers + 2 * (rows + 1)};
        MiTensor        heads = {t->q, MI_BF16, 3, {rows, s->heads, s->dim}, {Q, s->dim, 1}}, out = heads;
        out.data = t->a;
        MiCudaAttention at = {.q = heads, .out = out, .kv = kv, .scale = 0.1f};
        at.batch.shape = (MiShape){rows, rows, rows, CONTEXT, true};
        at.batch.positions = t->numbers;
        at.batch.seq_start = t->numbers + 3 * (rows + 1);
        must(mi_cuda_attention_decode(t->stream, &at, t->room, t->arrived), "attention");
        MiLayerCall call = {.a = tensor(t->a, rows, Q), .x = tensor(t->x, rows, s->hidden), .y = tensor(t->x, rows, s->hidden),
                            .h = tensor(NULL, rows, s->hidden), .act = tensor(NULL, rows, s->mlp),
                            .o = wl, .gate = wl + (size_t)s->hidden * Q * 2,
                            .norm = {t->vector, 1e-6f, 0}, .next_norm = {t->vector, 1e-6f, 0}, .workspace = t->workspace};
        call.up = (const char *)call.gate + (size_t)s->hidden * s->mlp * 2;
        call.down = (const char *)call.up + (size_t)s->hidden * s->mlp * 2;
        call.qkv = (MiGemvQkv){.freqs = t->vector, .positions = t->numbers, .magnitude = 1, .q = tensor(t->q, rows, Q), .kv = kv};
        call.qkv.w[0] = (const char *)call.down + (size_t)s->hidden * s->mlp * 2;
        call.qkv.w[1] = (const char *)call.qkv.w[0] + (size_t)Q * s->hidden * 2;
        call.qkv.w[2] = (const char *)call.qkv.w[1] + (size_t)K * s->hidden * 2;
        if (l)
            must(mi_cuda_layer(t->stream, l, &call), "layer");
    }
    must(cudaStreamEndCapture(t->stream, &graph), "captured");
    must(cudaGraphInstantiate(&exec, graph, 0), "a graph");
    for (int i = 0; i < rounds; i++) {
        must(cudaEventRecord(t->begin, t->stream), "an event");
        for (int k = 0; k < replays; k++)
            must(cudaGraphLaunch(exec, t->stream), "a launch");
        must(cudaEventRecord(t->end, t->stream), "an event");
        must(cudaEventSynchronize(t->end), "running");
        must(cudaEventElapsedTime(times + i, t->begin, t->end), "the time");
    }
    must(cudaGraphExecDestroy(exec), "a graph");
    must(cudaGraphDestroy(graph), "a graph");
    qsort(times, (size_t)rounds, sizeof *times, ascending);
    return times[rounds / 2] / (float)replays * 1e3f / (float)s->layers;
}

/* A product after the other in every way, the others as they were best so far. */
static void every_cut(const Stack *t, const MiLayerShape *shape)
{
    static const char *const names[] = {"o", "gate, up", "down", "q, k, v"};
    MiLayerTiles             best[MI_LAYER_PRODUCTS];
    float                    least = INFINITY;
    MiLayer                 *l;

    must(mi_cuda_layer_new(&l, shape), "planning");
    for (int i = 0; i < MI_LAYER_PRODUCTS; i++)
        best[i] = mi_cuda_layer_tiles(l, i);
    for (int i = 0; i < MI_LAYER_PRODUCTS; i++) {
        MiLayerTiles here = best[i];
        least = INFINITY;
        printf("#   %s:", names[i]);
        for (int k = 0; k < 4; k++)
            for (int j = 0; j < 5; j++)
                for (int cluster = 1; cluster <= 8; cluster *= 2) {
                    const MiLayerTiles tiles = {tile_tokens[j], tile_ns[k], cluster};
                    if (tiles.tokens >= 4 * shape->rows || mi_cuda_layer_cut(l, i, tiles))
                        continue;
                    const float us = measure(t, l, 3, 3);
                    printf(" %dx%d/%d %.2f", tiles.tokens, tiles.n, cluster, us);
                    if (us < least)
                        least = us, here = tiles;
                }
        best[i] = here;
        must(mi_cuda_layer_cut(l, i, here), "cutting");
        printf("\n");
        fflush(stdout);
    }
    mi_cuda_layer_free(l);
    printf("#   the best: %.2f:", least);
    for (int i = 0; i < MI_LAYER_PRODUCTS; i++)
        printf(" %dx%d/%d", best[i].tokens, best[i].n, best[i].cluster);
    printf("\n");
}

static void bench(const Shape *s, int rows, bool every)
{
    Stack         t = new_stack(s, rows);
    MiLayerShape  shape = {.rows = rows, .hidden = s->hidden, .ff = s->mlp, .heads_width = s->heads * s->dim,
                           .n_heads = s->heads, .n_kv_heads = s->kv_heads, .head_dim = s->dim};
    MiLayer      *l;

    must(mi_cuda_layer_new(&l, &shape), "planning");
    printf("# %s, %d rows: a layer with attention %.2f us, attention alone %.2f; weights are %.2f us at 3.05 TB/s;", s->name, rows,
           measure(&t, l, 9, 6), measure(&t, NULL, 9, 6), (double)t.per_layer * 2 / 3.05e6);
    for (int i = 0; i < MI_LAYER_PRODUCTS; i++) {
        const MiLayerTiles c = mi_cuda_layer_tiles(l, i);
        printf(" %dx%d/%d", c.tokens, c.n, c.cluster);
    }
    printf("\n");
    fflush(stdout);
    mi_cuda_layer_free(l);
    if (every)
        every_cut(&t, &shape);
    must(cudaStreamDestroy(t.stream), "a stream");
    must(cudaEventDestroy(t.begin), "an event");
    must(cudaEventDestroy(t.end), "an event");
    free_all();
}

int main(int argc, char **argv)
{
    static const int rows[] = {8, 32, 64, 96, 128, 192, 256, 512};
    const char      *timed = getenv("MI_BENCH");
    int              n = 0;

    quick = gpu_quick();
    if (cudaGetDeviceCount(&n) || !n) {
        printf("1..0 # SKIP no CUDA device\n");
        return 0;
    }
    if (!timed || (strcmp(timed, "only") != 0 && strcmp(timed, "cuts") != 0))
        compare();
    printf("%d passed, %d failed\n", passed, failed);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes && timed; i++)
        for (size_t k = 0; k < sizeof rows / sizeof *rows; k++)
            if (argc < 3 || (strcmp(argv[1], shapes[i].name) == 0 && (atoi(argv[2]) == rows[k] || !atoi(argv[2]))))
                bench(&shapes[i], rows[k], strcmp(timed, "cuts") == 0);
    return failed > 0;
}
