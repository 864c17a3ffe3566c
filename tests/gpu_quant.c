/* Matrices of 4 and 8 bit on a card: how they are rounded, against the rule in double; products of any number of rows
 * through the plugins, against sums in double.  MI_BENCH=1: what products of few rows take, beside the read rate and
 * cuBLASLt in bf16.  The kernels with their neighbours: gpu_decode. */
#include "gpu_timed.h"

#include <cuda/gemm.h>
#include <cuda/gemv.h>
#include <cuda/quant_rows.h>

static const MiQuantForm forms[] = {
    {.bits = 4, .group = 128}, {.bits = 4, .group = 64}, {.bits = 4, .group = 32}, {.bits = 4, .group = 128, .zeros = true},
    {.bits = 4, .group = 64, .zeros = true}, {.bits = 4, .group = 32, .zeros = true}, {.bits = 8}, {.bits = 8, .zeros = true},
};
enum { N_FORMS = G_N_ELEMENTS(forms) };

static const char *name_of(MiQuantForm f)
{
    static char name[32];
    g_snprintf(name, sizeof name, "int%d g%d%s", f.bits, f.group, f.zeros ? " zeros" : "");
    return name;
}

/* ---- rounding ------------------------------------------------------------------------ */

/* What a group of n values becomes. */
static void round_group(MiQuantForm f, const float *v, int n, double *want, double *scale_out)
{
    double least = 0, most = 0, scale, zero = 0, lowest = f.bits == 4 ? -8 : -128, highest = -1 - lowest;

    for (int i = 0; i < n; i++) {
        least = MIN(least, v[i]);
        most = MAX(most, v[i]);
    }
    if (f.zeros)
        scale = (most - least) / (highest - lowest);
    else if (f.bits == 8)
        scale = MAX(most, -least) / 127;
    else
        scale = (-least > most ? least : most) / -8;
    scale = f.group ? (double)mi_f16_to_f32(mi_f32_to_f16((float)scale)) : (double)(float)scale;
    if (f.zeros && scale > 0)
        zero = CLAMP(rint(-least / scale), 0, highest - lowest) + lowest; /* the number that stands for 0 */
    for (int i = 0; i < n; i++)
        want[i] = scale == 0 ? 0 : scale * (CLAMP(rint(v[i] / scale) + zero, lowest, highest) - zero);
    *scale_out = fabs(scale);
}

static void rounding(MiQuantForm f, int rows, int in, MiDType dtype)
{
    const size_t n = (size_t)rows * (size_t)in, bytes = (size_t)mi_quant_bytes(f, rows, in);
    const int    group = f.group ? f.group : in;
    uint64_t     seed = (uint64_t)(rows * 31 + in);
    float       *v = g_new(float, n), *got = g_new(float, n);
    void        *stored = g_malloc(n * 4), *packed = gpu_alloc(bytes + 256), *back = gpu_alloc(n * 4);
    double       want[20000], scale;
    int          wrong = 0, ties = 0;
    uint8_t      behind[256];

    for (size_t i = 0; i < n; i++) {
        const float range = i / (size_t)in % 5 == 4 ? 0
                            : i % 97 == 0           ? 3.f
                                                    : 0.1f; /* a row of nothing, some large ones */
        v[i] = gpu_rounded((gpu_random(&seed) + (i / 640 % 3 == 0 ? 0.5f : 0)) * range, dtype);
        gpu_put(stored, (int64_t)i, dtype, v[i]);
    }
    void *src = gpu_upload(stored, n * mi_dtype_size(dtype));
    gpu_must(cudaMemset(packed, 0xa5, bytes + 256), "poisoning");
    gpu_must((cudaError_t)mi_cuda_quantise(gpu_card.stream, f, src, dtype, rows, in, packed), "quantising");
    gpu_must((cudaError_t)mi_cuda_dequantise(gpu_card.stream, f, packed, 0, rows, in, back, MI_F32), "dequantising");
    gpu_wait("quantising");
    gpu_must(cudaMemcpy(got, back, n * 4, cudaMemcpyDeviceToHost), "copying back");
    gpu_must(cudaMemcpy(behind, (char *)packed + bytes, 256, cudaMemcpyDeviceToHost), "copying back");
    for (int r = 0; r < rows; r++)
        for (int k = 0; k < in; k += group) {
            const int    m = MIN(group, in - k);
            const size_t at = (size_t)r * (size_t)in + (size_t)k;
            round_group(f, v + at, m, want, &scale);
            for (int i = 0; i < m; i++) {
                const double d = fabs(got[at + (size_t)i] - want[i]), part = scale > 0 ? v[at + (size_t)i] / scale : 0;
                if (d <= 1e-4 * scale + 1e-12) /* two roundings of the scale, times up to 255 */
                    continue;
                if (d < 1.0001 * scale && fabs(fabs(part - floor(part)) - 0.5) < 1e-3)
                    ties++; /* half way: either is right */
                else
                    wrong++;
            }
        }
    for (int i = 0; i < 256; i++)
        wrong += behind[i] != 0xa5;
    gpu_check(wrong == 0 && ties * 200 <= (int)n, "%s of %d x %d %s: %d values not as the rule says, %d half way",
              name_of(f), rows, in, gpu_dtype(dtype), wrong, ties);
    void *all[] = {src, packed, back};
    for (size_t i = 0; i < G_N_ELEMENTS(all); i++)
        cudaFree(all[i]);
    g_free(v), g_free(got), g_free(stored);
}

/* ---- products of any number of rows ------------------------------------------------------- */

static void product(MiQuantForm f, int rows, int in, int out, bool bias, MiDType dtype)
{
    g_autofree char *layout = g_strdup_printf("int%d", f.bits);
    const MiLinear  *linear = gpu_feature("linear_quant_cuda.so", MI_KIND_LINEAR, layout);
    const size_t     nw = (size_t)out * (size_t)in, nx = (size_t)rows * (size_t)in, ny = (size_t)rows * (size_t)out;
    uint64_t         seed = (uint64_t)(rows * 7919 + in + out);
    float           *w = g_new(float, nw), *x = g_new(float, nx), *b = g_new0(float, out);
    void            *half = g_malloc(MAX(nw, MAX(nx, ny)) * 4), *packed = gpu_alloc((size_t)mi_quant_bytes(f, out, in)),
         *back = gpu_alloc(nw * 4), *y = gpu_alloc((ny + 64) * 4);
    MiWeight     stored = {.name = "w", .format = "bf16", .ndim = 2, .shape = {out, in}};
    const MiNode node = {.op = "linear", .n_in = 1, .n_out = 1, .weight = {&stored}};

    for (size_t i = 0; i < nw; i++) {
        w[i] = gpu_rounded(gpu_random(&seed) * 0.1f, MI_BF16);
        gpu_put(half, (int64_t)i, MI_BF16, w[i]);
    }
    void *wc = gpu_upload(half, nw * 2);
    for (size_t i = 0; i < nx; i++)
        gpu_put(half, (int64_t)i, dtype, x[i] = gpu_rounded(gpu_random(&seed) * (i % 311 == 0 ? 30 : 1), dtype));
    void *xc = gpu_upload(half, nx * mi_dtype_size(dtype));
    for (int i = 0; i < out && bias; i++)
        b[i] = gpu_random(&seed);
    void *bc = gpu_upload(b, (size_t)out * 4);
    gpu_must((cudaError_t)mi_cuda_quantise(gpu_card.stream, f, wc, MI_BF16, out, in, packed), "quantising");
    gpu_must((cudaError_t)mi_cuda_dequantise(gpu_card.stream, f, packed, 0, out, in, back, MI_F32), "dequantising");
    gpu_wait("quantising");
    gpu_must(cudaMemcpy(w, back, nw * 4, cudaMemcpyDeviceToHost), "copying back");
    gpu_must(cudaMemset(y, 0xa5, (ny + 64) * 4), "poisoning");

    const MiTensor  tx = {xc, dtype, 2, {rows, in}, {in, 1}}, ty = {y, dtype, 2, {rows, out}, {out, 1}};
    const MiOperand operands[MI_MAX_WEIGHTS] = {
        {.tensor = {packed, dtype, 2, {out, in}, {0}}, .layout = layout, .ext = &f},
        {.tensor = {bias ? bc : NULL, MI_F32, 1, {out}, {1}}, .layout = "plain"},
    };
    const MiArgs at = {.node = &node, .in = &tx, .out = &ty, .weight = operands};
    MiCall       call = {.shape = {.n_tokens = rows, .n_out = rows}, .at = &at, .n = 1};
    gpu_card.dtype = dtype;
    const bool ran = gpu_run(linear->op, &gpu_card, &call, NULL);
    gpu_must(cudaMemcpy(half, y, ny * mi_dtype_size(dtype), cudaMemcpyDeviceToHost), "copying back");
    double error = 0, norm = 0;
    for (int r = 0; r < rows; r++)
        for (int k = 0; k < MIN(out, 300); k++) {
            const int o = out - 1 - (int)((int64_t)k * out / MIN(out, 300));
            double    want = b[o];
            for (int i = 0; i < in; i++)
                want += (double)x[(size_t)r * (size_t)in + (size_t)i] * w[(size_t)o * (size_t)in + (size_t)i];
            const double d = gpu_get(half, (int64_t)r * out + o, dtype) - want;
            error += d * d;
            norm += want * want;
        }
    error = sqrt(error / norm);
    gpu_check(ran && error < (dtype == MI_F32 ? 1e-3 : 5e-3), "%s, %d rows, %d -> %d%s %s: %.1e", name_of(f), rows, in,
              out, bias ? " bias" : "", gpu_dtype(dtype), error);
    void *all[] = {wc, xc, bc, packed, back, y};
    for (size_t i = 0; i < G_N_ELEMENTS(all); i++)
        cudaFree(all[i]);
    g_free(w), g_free(x), g_free(b), g_free(half);
}

/* ---- how fast ------------------------------------------------------------------------------- */

typedef struct {
    int        rows, in, out, copies;
    size_t     bytes;
    char      *x, *w, *y, *work;
    MiGemvPlan plan;
    MiGemm    *gemm;
} Timed;

static void few(void *arg, int i)
{
    Timed         *t = arg;
    const MiTensor x = {t->x, MI_BF16, 2, {t->rows, t->in}, {t->in, 1}},
                   y = {t->y, MI_BF16, 2, {t->rows, t->out}, {t->out, 1}};
    gpu_must(
        (cudaError_t)mi_cuda_gemv(gpu_card.stream, &t->plan, x, t->w + (size_t)(i % t->copies) * t->bytes, NULL, y),
        "gemv");
}

static void blas(void *arg, int i)
{
    Timed *t = arg;
    gpu_must((cudaError_t)mi_cuda_gemm(t->gemm, gpu_card.stream, t->x, t->w + (size_t)(i % t->copies) * t->bytes, NULL,
                                       t->y, t->rows, t->work),
             "gemm");
}

static void rows(void *arg, int i)
{
    Timed         *t = arg;
    const MiTensor x = {t->x, MI_BF16, 2, {t->rows, t->in}, {t->in, 1}},
                   y = {t->y, MI_BF16, 2, {t->rows, t->out}, {t->out, 1}};
    gpu_must((cudaError_t)mi_cuda_quant_split(gpu_card.stream, t->plan.form, x, t->work), "splitting");
    gpu_must((cudaError_t)mi_cuda_quant_rows(gpu_card.stream, t->plan.form, x, t->work,
                                             t->w + (size_t)(i % t->copies) * t->bytes, NULL, y),
             "rows");
}

static void bench(void)
{
    enum { SIDE = 8192 };
    const size_t total = (size_t)2 << 30;
    Timed        t = {.in = SIDE,
                      .out = SIDE,
                      .w = gpu_alloc(total),
                      .x = gpu_alloc(SIDE * 64 * 2),
                      .y = gpu_alloc(SIDE * 64 * 2),
                      .work = gpu_alloc(MI_GEMM_WORKSPACE)};

    gpu_must((cudaError_t)mi_cuda_noise(gpu_card.stream, t.w, total, MI_BF16), "noise");
    gpu_must((cudaError_t)mi_cuda_noise(gpu_card.stream, t.x, SIDE * 64 * 2, MI_BF16), "noise");
    const double rate = gpu_read_rate(t.w, total);
    printf("# read %.3f TB/s; %d x %d, us\n", rate * 1e-12, SIDE, SIDE);
    gpu_must((cudaError_t)mi_cuda_gemm_new(&t.gemm, SIDE, SIDE, SIDE, SIDE, MI_BF16, MI_BF16), "gemm");
    t.bytes = (size_t)SIDE * SIDE * 2;
    t.copies = (int)(total / t.bytes);
    for (t.rows = 1; t.rows <= 64; t.rows *= 4)
        printf("# cuBLASLt bf16, %d rows: %.2f\n", t.rows, gpu_timed(blas, &t));
    for (int i = 0; i < N_FORMS && strcmp(g_getenv("MI_BENCH"), "rows"); i++)
        for (t.rows = 1; t.rows <= MI_GEMV_FEW_ROWS; t.rows *= 2) {
            t.plan = (MiGemvPlan){
                .kind = MI_GEMV_PLAIN, .dtype = MI_BF16, .rows = t.rows, .in = SIDE, .out = SIDE, .form = forms[i]};
            t.bytes = (size_t)mi_quant_bytes(forms[i], SIDE, SIDE);
            t.copies = (int)(total / t.bytes);
            gpu_must((cudaError_t)mi_cuda_gemv_plan(&t.plan), "planning");
            const double us = gpu_timed(few, &t);
            printf("# %s, %d rows: %.2f, %.1f %% of read\n", name_of(forms[i]), t.rows, us,
                   1e8 * (double)t.bytes / us / rate);
            fflush(stdout);
        }
    for (int i = 0; i < N_FORMS; i++)
        for (t.rows = 8; t.rows <= MI_QUANT_MOST; t.rows *= 2) {
            t.plan.form = forms[i];
            t.bytes = (size_t)mi_quant_bytes(forms[i], SIDE, SIDE);
            t.copies = (int)(total / t.bytes);
            gpu_must((cudaError_t)mi_cuda_quant_rows_takes(forms[i], t.rows, SIDE, SIDE), "planning");
            printf("# %s, %d rows: %.2f\n", name_of(forms[i]), t.rows, gpu_timed(rows, &t));
            fflush(stdout);
        }
}

static const void *recall(MiContext *ctx, const char *key, size_t *bytes)
{
    return (void)ctx, (void)key, (void)bytes, NULL;
}
static bool measures(MiContext *ctx) { return (void)ctx, false; }

int main(void)
{
    if (!gpu_present())
        return 0;
    gpu_open();
    gpu_card.recall = recall;
    gpu_card.measures = measures;
    for (int i = 0; i < N_FORMS && g_strcmp0(g_getenv("MI_BENCH"), "rows"); i++) {
        rounding(forms[i], 13, 200, MI_BF16);
        rounding(forms[i], 40, 896, MI_F32);
        rounding(forms[i], 8, i % 2 ? 4864 : 72, MI_F16);
        product(forms[i], 1, 896, 203, true, MI_BF16);
        product(forms[i], 4, 2056, 64, false, MI_BF16);
        product(forms[i], 5, 264, 100, true, MI_BF16);
        product(forms[i], 16, 4864, 520, i % 2, MI_BF16);
        product(forms[i], 17, 896, 1000, true, MI_BF16);
        product(forms[i], 64, 1544, 300, i % 2, MI_BF16);
        product(forms[i], 41, 128, 2056, true, MI_BF16);
        product(forms[i], 33, 896, 152, i % 2, MI_F16);
        product(forms[i], 2, 328, 72, true, MI_F32);
    }
    if (!gpu_quick())
        product(forms[3], 70, 8192, 2100, true, MI_BF16); /* more than one piece */
    if (g_getenv("MI_BENCH"))
        bench();
    return gpu_end();
}
