/* gpu_quant_layer.c - the kernels of quant_layer.h against a layer in double that rounds where the one kernel stores bf16:
 * several launches one after the other, which must not read what earlier ones left.
 * MI_BENCH=1: what a chain of them takes. */
#include "gpu.h"

#include <cuda/quant_layer.h>
#include <cuda/gemm.h>

typedef struct {
    int  hidden, ff, n_heads, n_kv_heads, head_dim, rope_dim;
    bool interleaved, tail, bias; /* tail: nothing comes after down */
    bool small;                   /* as three kernels */
} Shape;

typedef struct {
    int    out, in;
    float *host;   /* what the packed form stands for */
    void  *device; /* packed */
} Matrix;

enum { LAUNCHES = 5, SLOTS = 7 };

static uint64_t seed = 77;

static Matrix matrix(MiQuantForm f, int out, int in)
{
    const size_t n = (size_t)out * (size_t)in;
    uint16_t    *half = g_new(uint16_t, n);
    Matrix       m = {out, in, g_new(float, n), gpu_alloc((size_t)mi_quant_bytes(f, out, in))};

    for (size_t i = 0; i < n; i++)
        half[i] = mi_f32_to_bf16((gpu_random(&seed) + (f.zeros ? 0.1f : 0)) * 2 / sqrtf((float)in));
    void *plain = gpu_upload(half, n * 2), *back = gpu_alloc(n * 4);
    gpu_must((cudaError_t)mi_cuda_quantise(gpu_card.stream, f, plain, MI_BF16, out, in, m.device), "quantising");
    gpu_must((cudaError_t)mi_cuda_dequantise(gpu_card.stream, f, m.device, 0, out, in, back, MI_F32), "dequantising");
    gpu_wait("quantising");
    gpu_must(cudaMemcpy(m.host, back, n * 4, cudaMemcpyDeviceToHost), "copying back");
    cudaFree(plain), cudaFree(back), g_free(half);
    return m;
}

static void drop(Matrix m) { g_free(m.host), cudaFree(m.device); }

/* n random floats around a middle, on both sides. */
static float *vector(int n, float middle, void **device)
{
    float *v = g_new(float, n);
    for (int i = 0; i < n; i++)
        v[i] = middle + gpu_random(&seed) * 0.5f;
    *device = gpu_upload(v, (size_t)n * 4);
    return v;
}

static float *row(int n, void **device)
{
    float    *v = g_new(float, n);
    uint16_t *half = g_new(uint16_t, n);
    for (int i = 0; i < n; i++) {
        v[i] = gpu_rounded(gpu_random(&seed) * (i % 97 == 0 ? 20 : 1), MI_BF16);
        half[i] = mi_f32_to_bf16(v[i]);
    }
    *device = gpu_upload(half, (size_t)n * 2);
    g_free(half);
    return v;
}

static void multiply(const Matrix *m, const double *x, const float *bias, double *y)
{
    for (int o = 0; o < m->out; o++) {
        y[o] = bias ? bias[o] : 0;
        for (int i = 0; i < m->in; i++)
            y[o] += (double)m->host[(size_t)o * (size_t)m->in + (size_t)i] * x[i];
    }
}

static void norm(double *y, const double *x, int n, const float *gain, double eps)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += x[i] * x[i];
    for (int i = 0; i < n; i++)
        y[i] = x[i] / sqrt(sum / n + eps) * gain[i];
}

static void round_all(double *x, int n)
{
    for (int i = 0; i < n; i++)
        x[i] = gpu_rounded((float)x[i], MI_BF16);
}

static void turn(double *x, const Shape *s, int position, const float *freqs)
{
    for (int i = 0; i < s->rope_dim / 2; i++) {
        const int    a = s->interleaved ? 2 * i : i, b = s->interleaved ? 2 * i + 1 : i + s->rope_dim / 2;
        const double angle = (double)((float)position * freqs[i]), p = x[a], q = x[b];
        x[a] = p * cos(angle) - q * sin(angle);
        x[b] = q * cos(angle) + p * sin(angle);
    }
}

static double distance(const void *device, const double *want, int n)
{
    uint16_t *got = g_new(uint16_t, n);
    double    error = 0, all = 0;

    gpu_must(cudaMemcpy(got, device, (size_t)n * 2, cudaMemcpyDeviceToHost), "copying back");
    for (int i = 0; i < n; i++) {
        const double d = mi_bf16_to_f32(got[i]) - want[i];
        error += d * d;
        all += want[i] * want[i];
    }
    g_free(got);
    return sqrt(error / all);
}

/* The sums of small layers hold numbers below 2^24: of x with a larger one nothing is a number. */
static void beyond(const MiQuantLayerPlan *plan, MiQuantLayerCall c, int hidden)
{
    uint16_t *x = g_new0(uint16_t, hidden);

    x[hidden / 2] = mi_f32_to_bf16(0x1p25f);
    c.x.data = gpu_upload(x, (size_t)hidden * 2);
    c.y.data = gpu_alloc((size_t)hidden * 2);
    c.h = c.act = NULL;
    c.qkv.q.data = c.qkv.kv.k = c.qkv.kv.v = gpu_alloc((size_t)hidden * 64);
    gpu_must((cudaError_t)mi_cuda_quant_layer(gpu_card.stream, plan, &c), "launching");
    gpu_wait("the layer");
    gpu_must(cudaMemcpy(x, c.y.data, (size_t)hidden * 2, cudaMemcpyDeviceToHost), "copying back");
    int numbers = 0;
    for (int i = 0; i < hidden; i++)
        numbers += !isnan(mi_bf16_to_f32(x[i]));
    gpu_check(numbers == 0, "hidden %d, a number beyond what sums hold: %d numbers come out", hidden, numbers);
    cudaFree(c.x.data), cudaFree(c.y.data), cudaFree(c.qkv.q.data), g_free(x);
}

static void layer(MiQuantForm f, Shape s)
{
    const int width = s.n_heads * s.head_dim, kv = s.n_kv_heads * s.head_dim, rows = s.tail ? 0 : width + 2 * kv;
    Matrix    o = matrix(f, s.hidden, width), gate = matrix(f, s.ff, s.hidden), up = matrix(f, s.ff, s.hidden),
           down = matrix(f, s.hidden, s.ff), q = matrix(f, width, s.hidden), k = matrix(f, kv, s.hidden),
           v = matrix(f, kv, s.hidden);
    void  *gain_d[2], *bias_d[5], *freqs_d, *positions, *slots, *a_d[LAUNCHES], *x_d[LAUNCHES];
    float *gain[2] = {vector(s.hidden, 1, &gain_d[0]), vector(s.hidden, 1, &gain_d[1])}, *a[LAUNCHES], *x[LAUNCHES];
    const int n_bias[5] = {s.hidden, s.hidden, width, kv, kv};
    float    *bias[5], *freqs = g_new(float, s.rope_dim / 2);
    const int32_t position = 1234;
    int32_t       slot[LAUNCHES];
    uint8_t      *y[LAUNCHES], *qs[LAUNCHES], *h = gpu_alloc((size_t)s.hidden * 2), *act = gpu_alloc((size_t)s.ff * 2);
    uint8_t      *cache = gpu_alloc((size_t)SLOTS * (size_t)kv * 4);
    MiQuantLayerPlan plan = {.shape = {width, s.hidden, s.ff, rows, f, s.small}};

    for (int i = 0; i < 5; i++)
        bias[i] = vector(n_bias[i], 0, &bias_d[i]);
    for (int i = 0; i < s.rope_dim / 2; i++)
        freqs[i] = powf(10000, -2.f * (float)i / (float)s.rope_dim);
    freqs_d = gpu_upload(freqs, (size_t)s.rope_dim * 2);
    positions = gpu_upload(&position, 4);
    for (int i = 0; i < LAUNCHES; i++) {
        slot[i] = i == 1 ? -1 : (i * 3 + 1) % SLOTS;
        a[i] = row(width, &a_d[i]);
        x[i] = row(s.hidden, &x_d[i]);
        y[i] = gpu_alloc((size_t)s.hidden * 2);
        qs[i] = gpu_alloc((size_t)width * 2);
        cudaMemset(y[i], 0xa5, (size_t)s.hidden * 2), cudaMemset(qs[i], 0xa5, (size_t)width * 2);
    }
    slots = gpu_upload(slot, sizeof slot);
    cudaMemset(cache, 0xa5, (size_t)SLOTS * (size_t)kv * 4);
    const int e = mi_cuda_quant_layer_plan(&plan);
    if (e) {
        gpu_check(false, "planning: %s", cudaGetErrorString((cudaError_t)e));
        return;
    }
    void *exchange = gpu_alloc(mi_cuda_quant_layer_bytes(&plan));
    gpu_must((cudaError_t)mi_cuda_quant_layer_clear(gpu_card.stream, &plan, exchange), "clearing");
    for (int i = 0; i < LAUNCHES; i++) {
        const bool       last = i == LAUNCHES - 1;
        MiQuantLayerCall c = {
            .a = {a_d[i], MI_BF16, 2, {1, width}, {width, 1}},
            .x = {x_d[i], MI_BF16, 2, {1, s.hidden}, {s.hidden, 1}},
            .y = {y[i], MI_BF16, 2, {1, s.hidden}, {s.hidden, 1}},
            .h = last ? h : NULL,
            .act = last ? act : NULL,
            .o = o.device,
            .gate = gate.device,
            .up = up.device,
            .down = down.device,
            .o_bias = s.bias ? bias_d[0] : NULL,
            .down_bias = s.bias ? bias_d[1] : NULL,
            .norm = {gain_d[0], 1e-5f, 0},
            .next_norm = {gain_d[1], 1e-5f, 0},
            .qkv = {.w = {q.device, k.device, v.device},
                    .bias = {s.bias ? bias_d[2] : NULL, s.bias ? bias_d[3] : NULL, s.bias ? bias_d[4] : NULL},
                    .freqs = freqs_d,
                    .positions = positions,
                    .n_heads = s.n_heads,
                    .n_kv_heads = s.n_kv_heads,
                    .head_dim = s.head_dim,
                    .rope_dim = s.rope_dim,
                    .interleaved = s.interleaved,
                    .magnitude = 1,
                    .q = {qs[i], MI_BF16, 3, {1, s.n_heads, s.head_dim}, {width, s.head_dim, 1}},
                    .kv = {.k = cache,
                           .v = cache + (size_t)SLOTS * (size_t)kv * 2,
                           .dtype = MI_BF16,
                           .n_kv_heads = s.n_kv_heads,
                           .head_dim = s.head_dim,
                           .stride_token = kv,
                           .stride_head = s.head_dim,
                           .block_size = INT32_MAX,
                           .slots = (int32_t *)slots + i}},
            .exchange = exchange,
        };
        gpu_must((cudaError_t)mi_cuda_quant_layer(gpu_card.stream, &plan, &c), "launching");
        if (last && s.small)
            beyond(&plan, c, s.hidden);
    }
    gpu_wait("the layer");
    double *wide = g_new(double, width), *hidden = g_new(double, s.hidden), *normed = g_new(double, s.hidden),
           *one = g_new(double, s.ff), *two = g_new(double, s.ff), *heads = g_new(double, width + 2 * kv);
    double worst[6] = {0}; /* y, q, k, v, h, act */
    for (int i = 0; i < LAUNCHES; i++) {
        for (int j = 0; j < width; j++)
            wide[j] = a[i][j];
        multiply(&o, wide, s.bias ? bias[0] : NULL, hidden);
        for (int j = 0; j < s.hidden; j++)
            hidden[j] += x[i][j];
        round_all(hidden, s.hidden);
        norm(normed, hidden, s.hidden, gain[0], 1e-5);
        multiply(&gate, normed, NULL, one);
        multiply(&up, normed, NULL, two);
        for (int j = 0; j < s.ff; j++)
            one[j] = one[j] / (1 + exp(-one[j])) * two[j];
        round_all(one, s.ff);
        if (i == LAUNCHES - 1) {
            worst[4] = distance(h, hidden, s.hidden);
            worst[5] = distance(act, one, s.ff);
        }
        multiply(&down, one, s.bias ? bias[1] : NULL, normed);
        for (int j = 0; j < s.hidden; j++)
            hidden[j] += normed[j];
        round_all(hidden, s.hidden);
        worst[0] = MAX(worst[0], distance(y[i], hidden, s.hidden));
        if (s.tail)
            continue;
        norm(normed, hidden, s.hidden, gain[1], 1e-5);
        multiply(&q, normed, s.bias ? bias[2] : NULL, heads);
        multiply(&k, normed, s.bias ? bias[3] : NULL, heads + width);
        multiply(&v, normed, s.bias ? bias[4] : NULL, heads + width + kv);
        for (int j = 0; j < s.n_heads + s.n_kv_heads; j++)
            turn(heads + j * s.head_dim, &s, position, freqs);
        worst[1] = MAX(worst[1], distance(qs[i], heads, width));
        if (slot[i] < 0)
            continue;
        worst[2] = MAX(worst[2], distance(cache + (size_t)slot[i] * (size_t)kv * 2, heads + width, kv));
        worst[3] = MAX(worst[3], distance(cache + (size_t)(SLOTS + slot[i]) * (size_t)kv * 2, heads + width + kv, kv));
    }
    bool near = true;
    for (int i = 0; i < 6; i++)
        near = near && worst[i] < 6e-3;
    gpu_check(near, "a layer, int%d g%d%s, hidden %d, ff %d, %d/%d x %d%s%s%s: %.1e %.1e %.1e %.1e, h %.1e, act %.1e", f.bits,
              f.group, f.zeros ? " zeros" : "", s.hidden, s.ff, s.n_heads, s.n_kv_heads, s.head_dim,
              s.interleaved ? " interleaved" : "", s.tail ? ", the last" : "", s.small ? ", three kernels" : s.bias ? ", biases" : "", worst[0], worst[1],
              worst[2], worst[3], worst[4], worst[5]);
    g_free(wide), g_free(hidden), g_free(normed), g_free(one), g_free(two), g_free(heads), g_free(freqs);
    for (int i = 0; i < LAUNCHES; i++)
        g_free(a[i]), g_free(x[i]), cudaFree(a_d[i]), cudaFree(x_d[i]), cudaFree(y[i]), cudaFree(qs[i]);
    for (int i = 0; i < 5; i++)
        g_free(bias[i]), cudaFree(bias_d[i]);
    for (int i = 0; i < 2; i++)
        g_free(gain[i]), cudaFree(gain_d[i]);
    drop(o), drop(gate), drop(up), drop(down), drop(q), drop(k), drop(v);
    void *all[] = {h, act, cache, freqs_d, positions, slots, exchange};
    for (size_t i = 0; i < G_N_ELEMENTS(all); i++)
        cudaFree(all[i]);
}


/* ---- how fast ------------------------------------------------------------------------------- */

/* Copies of a layer's weights, one after the other in memory. */
static void bench(MiQuantForm f, Shape s, int copies, const char *name)
{
    enum { LAUNCHED = 48 };
    const int    width = s.n_heads * s.head_dim, kv = s.n_kv_heads * s.head_dim;
    const int    out[] = {s.hidden, s.ff, s.ff, s.hidden, width, kv, kv}, in[] = {width, s.hidden, s.hidden, s.ff, s.hidden, s.hidden, s.hidden};
    size_t       at[8] = {0};
    void        *gain, *freqs, *x, *y, *q, *cache;
    const int32_t zero = 0;
    MiQuantLayerPlan plan = {.shape = {width, s.hidden, s.ff, width + 2 * kv, f, s.small}};
    cudaGraph_t      graph;
    cudaGraphExec_t  run;
    cudaEvent_t      from, to;
    float            ms, best = 1e9f;

    gpu_must((cudaError_t)mi_cuda_quant_layer_plan(&plan), "planning");
    for (int i = 0; i < 7; i++)
        at[i + 1] = at[i] + (size_t)mi_quant_bytes(f, out[i], in[i]);
    char *w = gpu_alloc(at[7] * (size_t)copies), *plain = gpu_alloc((size_t)s.ff * (size_t)s.hidden * 2);
    gpu_must((cudaError_t)mi_cuda_noise(gpu_card.stream, plain, (size_t)s.ff * (size_t)s.hidden * 2, MI_BF16), "noise");
    for (int i = 0; i < 7; i++)
        gpu_must((cudaError_t)mi_cuda_quantise(gpu_card.stream, f, plain, MI_BF16, out[i], in[i], w + at[i]), "quantising");
    for (int i = 1; i < copies; i++)
        cudaMemcpyAsync(w + at[7] * (size_t)i, w, at[7], cudaMemcpyDeviceToDevice, gpu_card.stream);
    g_free(vector(s.hidden, 1, &gain)), g_free(vector(s.head_dim, 1, &freqs)), g_free(row(MAX(s.hidden, width), &x));
    y = gpu_alloc((size_t)s.hidden * 2), q = gpu_alloc((size_t)width * 2), cache = gpu_alloc((size_t)kv * 4);
    void *positions = gpu_upload(&zero, 4), *exchange = gpu_alloc(mi_cuda_quant_layer_bytes(&plan));
    gpu_must((cudaError_t)mi_cuda_quant_layer_clear(gpu_card.stream, &plan, exchange), "clearing");
    gpu_wait("preparing");
    gpu_must(cudaStreamBeginCapture(gpu_card.stream, cudaStreamCaptureModeThreadLocal), "capturing");
    for (int i = 0; i < LAUNCHED; i++) {
        const char      *p = w + at[7] * (size_t)(i % copies);
        MiQuantLayerCall c = {
            .a = {i % 2 ? q : x, MI_BF16, 2, {1, width}, {width, 1}},
            .x = {x, MI_BF16, 2, {1, s.hidden}, {s.hidden, 1}},
            .y = {y, MI_BF16, 2, {1, s.hidden}, {s.hidden, 1}},
            .o = p, .gate = p + at[1], .up = p + at[2], .down = p + at[3],
            .norm = {gain, 1e-5f, 0}, .next_norm = {gain, 1e-5f, 0},
            .qkv = {.w = {p + at[4], p + at[5], p + at[6]}, .freqs = freqs, .positions = positions,
                    .n_heads = s.n_heads, .n_kv_heads = s.n_kv_heads, .head_dim = s.head_dim, .rope_dim = s.rope_dim, .magnitude = 1,
                    .q = {q, MI_BF16, 3, {1, s.n_heads, s.head_dim}, {width, s.head_dim, 1}},
                    .kv = {.k = cache, .v = (char *)cache + kv * 2, .dtype = MI_BF16, .n_kv_heads = s.n_kv_heads, .head_dim = s.head_dim,
                           .stride_token = kv, .stride_head = s.head_dim, .block_size = INT32_MAX}},
            .exchange = exchange,
        };
        gpu_must((cudaError_t)mi_cuda_quant_layer(gpu_card.stream, &plan, &c), "launching");
    }
    gpu_must(cudaStreamEndCapture(gpu_card.stream, &graph), "capturing");
    gpu_must(cudaGraphInstantiate(&run, graph, 0), "instantiating");
    cudaEventCreate(&from), cudaEventCreate(&to);
    for (int i = 0; i < 6; i++) {
        cudaEventRecord(from, gpu_card.stream), cudaGraphLaunch(run, gpu_card.stream), cudaEventRecord(to, gpu_card.stream);
        gpu_must(cudaEventSynchronize(to), "timing");
        cudaEventElapsedTime(&ms, from, to);
        best = i ? MIN(best, ms) : best;
    }
    printf("# %s int%d: %.2f us a layer of %.1f MB; grid %d, %d stages of %d, flight %d, %d bytes\n", name, f.bits, 1e3 * best / LAUNCHED,
           (double)at[7] * 1e-6, plan.grid, plan.stages, plan.stage_bytes, plan.flight, plan.smem);
    fflush(stdout);
    cudaGraphExecDestroy(run), cudaGraphDestroy(graph);
    void *all[] = {w, plain, gain, freqs, x, y, q, cache, positions, exchange};
    for (size_t i = 0; i < G_N_ELEMENTS(all); i++)
        cudaFree(all[i]);
}

int main(void)
{
    static const MiQuantForm forms[] = {
        {.bits = 4, .group = 128}, {.bits = 4, .group = 64}, {.bits = 4, .group = 32}, {.bits = 4, .group = 128, .zeros = true},
        {.bits = 4, .group = 32, .zeros = true},   {.bits = 8},  {.bits = 8, .zeros = true},
    };

    if (!gpu_present())
        return 0;
    gpu_open();
    if (g_getenv("MI_BENCH")) {
        const Shape small = {896, 4864, 14, 2, 64, 64, false, false, false, false}, large = {3584, 18944, 28, 4, 128, 128, false, false, false, false};
        const Shape three = {896, 4864, 14, 2, 64, 64, false, false, false, true};
        for (int k = 0; k < 2; k++) {
            bench(forms[k ? 5 : 0], small, 12, "0.5B");
            bench(forms[k ? 5 : 0], three, 12, "0.5B, three kernels");
            bench(forms[k ? 5 : 0], large, 3, "7B");
        }
        return 0;
    }
    for (int i = 0; i < (int)G_N_ELEMENTS(forms); i++) {
        layer(forms[i], (Shape){896, 4864, 14, 2, 64, 64, false, false, true, false});
        layer(forms[i], (Shape){200, 264, 3, 1, 32, 16, false, i % 2, i % 3, false});
        layer(forms[i], (Shape){1160, 520, 2, 2, 16, 10, true, false, false, false});
        if (!gpu_quick() && i % 2 == 1) /* more than the ring holds */
            layer(forms[i], (Shape){2048, 5120, 16, 8, 128, 128, false, i == 3, false, false});
    }
    for (int k = 0; k < 2; k++) {
        const MiQuantForm f = forms[k ? 5 : 0];
        for (int tail = 0; tail < 2; tail++) {
            layer(f, (Shape){896, 4864, 14, 2, 64, 64, false, tail, true, true});
            layer(f, (Shape){200, 264, 3, 1, 32, 16, false, tail, false, true});
        }
        layer(f, (Shape){1160, 520, 2, 2, 16, 10, true, false, true, true});
        if (f.bits == 4)
            layer(f, (Shape){2048, 2560, 16, 8, 128, 128, false, false, false, true});
    }
    return gpu_end();
}
