/* Matrices that files store in 4 to 8 bit, on a card in their own form: every format of the linears `blocks` and `packed` as
 * it is packed, against the slow decoding of kernels/cpu, number by number; products of any number of rows through the
 * plugin, against sums in double.  MI_BENCH=1: what products of one and four rows take, beside the read rate.
 * The kernels with their neighbours: gpu_decode. */
#include "gpu_timed.h"

#include <cpu/quants.h>
#include <cuda/gemm.h>
#include <cuda/gemv.h>
#include <cuda/quant_stored.h>

/* ---- weights as files have them ------------------------------------------------------ */

/* Where the f16 of a block are; all else may be any bits. */
static const struct {
    const char *name;
    int         halves[2];
} block_formats[] = {
    {"q4_0", {0, -1}}, {"q4_1", {0, 2}}, {"q5_0", {0, -1}},   {"q5_1", {0, 2}},    {"q8_0", {0, -1}},
    {"q4_k", {0, 2}},  {"q5_k", {0, 2}}, {"q6_k", {208, -1}}, {"iq4_nl", {0, -1}}, {"iq4_xs", {0, -1}},
};

static MiWeight random_blocks(int k, int64_t out, int64_t in, uint64_t *seed)
{
    const MiBlockFormat *f = mi_block_format(block_formats[k].name);
    const int64_t        n = out * in / f->values;
    uint8_t             *data = g_malloc((gsize)(n * f->bytes));

    for (int64_t i = 0; i < n * f->bytes; i++)
        data[i] = (uint8_t)(gpu_random(seed) * 128 + 128);
    for (int64_t b = 0; b < n; b++)
        for (int h = 0; h < 2 && block_formats[k].halves[h] >= 0; h++) {
            const uint16_t scale = mi_f32_to_f16(gpu_random(seed) / (b % 50 == 3 ? 4e4f : 32)); /* subnormal ones, too */
            memcpy(data + b * f->bytes + block_formats[k].halves[h], &scale, 2);
        }
    return (MiWeight){.name = f->name, .format = f->name, .ndim = 2, .shape = {out, in}, .data = data, .bytes = (size_t)(n * f->bytes)};
}

typedef struct {
    const char *what, *format;
    MiCodes     codes;
    MiZeros     zeros;
    int         bits, zero, group; /* group 0: a row; -1: the matrix */
    MiDType     scales;
    bool        symmetric, ordered;
} Layout;

static const Layout layouts[] = {
    {"gptq", "gptq", MI_CODES_ACROSS, MI_ZEROS_ALONG, 4, 1, 128, MI_F16, false, false},
    {"gptq symmetric", "gptq", MI_CODES_ACROSS, MI_ZEROS_ALONG, 4, 1, 128, MI_F16, true, false},
    {"gptq act order", "gptq", MI_CODES_ACROSS, MI_ZEROS_ALONG, 4, 1, 64, MI_F16, true, true},
    {"gptq act order, zeros", "gptq", MI_CODES_ACROSS, MI_ZEROS_ALONG, 4, 1, 32, MI_F16, false, true},
    {"gptq v2 of 8 bits", "gptq", MI_CODES_ACROSS, MI_ZEROS_ALONG, 8, 0, 128, MI_F16, false, false},
    {"gptq of 8 bits, symmetric, act order", "gptq", MI_CODES_ACROSS, MI_ZEROS_ALONG, 8, 1, 32, MI_F16, true, true},
    {"gptq rows", "gptq", MI_CODES_ACROSS, MI_ZEROS_ALONG, 4, 1, 0, MI_F16, false, false},
    {"awq", "awq", MI_CODES_AWQ, MI_ZEROS_AWQ, 4, 0, 128, MI_F16, false, false},
    {"awq, groups of 256", "awq", MI_CODES_AWQ, MI_ZEROS_AWQ, 4, 0, 256, MI_F16, false, false},
    {"int4", "ct_int4", MI_CODES_ALONG, MI_ZEROS_NONE, 4, 8, 128, MI_BF16, true, false},
    {"int4 zeros", "ct_int4", MI_CODES_ALONG, MI_ZEROS_DOWN, 4, 0, 32, MI_BF16, false, false},
    {"int4 zeros of bytes, f32 scales, ordered", "ct_int4", MI_CODES_ALONG, MI_ZEROS_I8, 4, 8, 64, MI_F32, false, true},
    {"int4 f32 scales", "ct_int4", MI_CODES_ALONG, MI_ZEROS_NONE, 4, 8, 32, MI_F32, true, false},
    {"int8 rows", "ct_int8", MI_CODES_I8, MI_ZEROS_NONE, 8, 0, 0, MI_BF16, true, false},
    {"int8 rows, zeros", "ct_int8", MI_CODES_I8, MI_ZEROS_I8, 8, 0, 0, MI_F32, false, false},
    {"int8 of a matrix", "ct_int8", MI_CODES_I8, MI_ZEROS_NONE, 8, 0, -1, MI_F32, true, false},
    {"int8 packed, groups", "ct_int8", MI_CODES_ALONG, MI_ZEROS_NONE, 8, 128, 64, MI_BF16, true, false},
};
enum { N_BLOCKS = G_N_ELEMENTS(block_formats), N_LAYOUTS = G_N_ELEMENTS(layouts), N_KINDS = N_BLOCKS + N_LAYOUTS };

static void *random_bytes(size_t n, uint64_t *seed)
{
    uint8_t *p = g_malloc(n + 1);
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)(gpu_random(seed) * 128 + 128);
    return p;
}

static MiWeight random_quant(const Layout *l, int64_t out, int64_t in, uint64_t *seed)
{
    MiQuant      *q = g_new0(MiQuant, 1);
    const int64_t per = 32 / l->bits;
    size_t        codes = (size_t)(out * in), zeros = 0;

    *q = (MiQuant){.codes_as = l->codes, .bits = l->bits, .out = out, .in = in, .group_in = l->group > 0 && l->group < in ? l->group : in,
                   .group_out = l->group < 0 ? out : 1, .scale_dtype = l->scales, .zeros_as = l->zeros, .zero = l->zero};
    q->n_groups = (in + q->group_in - 1) / q->group_in;
    const int64_t rows = (out + q->group_out - 1) / q->group_out;
    const bool    across = l->codes == MI_CODES_ACROSS || l->codes == MI_CODES_AWQ;
    q->scale_row = across ? 1 : q->n_groups;
    q->scale_group = across ? out : 1;
    if (l->codes == MI_CODES_ALONG)
        codes = (size_t)(out * ((in + per - 1) / per) * 4);
    else if (l->codes != MI_CODES_I8)
        codes = (size_t)(out * in * l->bits / 8);
    if (l->zeros == MI_ZEROS_I8)
        zeros = (size_t)(rows * q->n_groups);
    else if (l->zeros != MI_ZEROS_NONE)
        zeros = (size_t)((out + per - 1) / per * q->n_groups * 4);
    q->codes = random_bytes(codes, seed);
    q->zeros = random_bytes(zeros, seed);
    for (size_t i = 0; i < zeros; i++) { /* bytes in the range of the codes; gptq's older form has one less */
        if (l->zeros == MI_ZEROS_I8 && l->bits == 4)
            ((int8_t *)(uintptr_t)q->zeros)[i] = (int8_t)(((const int8_t *)q->zeros)[i] / 16);
        else if (l->symmetric)
            ((uint8_t *)(uintptr_t)q->zeros)[i] = (uint8_t)(l->bits == 8 ? 0x80 - l->zero : 0x88 - 0x11 * l->zero);
    }
    uint8_t *scales = g_malloc((size_t)(rows * q->n_groups) * 4);
    for (int64_t i = 0; i < rows * q->n_groups; i++)
        gpu_put(scales, i, l->scales, (gpu_random(seed) + 1.1f) * (l->bits == 8 ? 1e-3f : 1e-2f) * (i % 50 == 7 ? 1e-4f : 1));
    q->scales = scales;
    if (l->ordered) {
        int32_t *of = g_new(int32_t, in);
        for (int64_t i = 0; i < in; i++)
            of[i] = (int32_t)(i / q->group_in);
        for (int64_t i = in - 1; i > 0; i--) {
            const int64_t k = (int64_t)((gpu_random(seed) * 0.5f + 0.5f) * (float)i);
            const int32_t t = of[i];
            of[i] = of[k], of[k] = t;
        }
        q->group_of = of;
    }
    return (MiWeight){.name = l->what, .format = l->format, .ndim = 2, .shape = {out, in}, .data = q->codes, .bytes = codes, .quant = q};
}

static MiWeight random_weight(int kind, int64_t out, int64_t in, uint64_t *seed)
{
    return kind < N_BLOCKS ? random_blocks(kind, out, in, seed) : random_quant(&layouts[kind - N_BLOCKS], out, in, seed);
}

static void free_weight(MiWeight *w)
{
    if (w->quant) {
        g_free((void *)(uintptr_t)w->quant->scales), g_free((void *)(uintptr_t)w->quant->zeros);
        g_free((void *)(uintptr_t)w->quant->group_of);
        g_free((void *)(uintptr_t)w->quant);
    }
    g_free((void *)(uintptr_t)w->data);
}

/* Columns that a row of the kind may have, about so many. */
static int columns(int kind, int in)
{
    const int of = kind < N_BLOCKS ? mi_block_format(block_formats[kind].name)->values : layouts[kind - N_BLOCKS].ordered ? 64 : 8;
    return MAX(in / of * of, of);
}

static float *decoded(const MiWeight *w)
{
    const int64_t n = w->shape[0] * w->shape[1];
    float        *v = g_new(float, n);

    if (w->quant) {
        g_autofree void *scratch = g_malloc(mi_quant_scratch(w->quant));
        gpu_check(mi_quant_decode(w->quant, 0, n, v, scratch), "%s decoded", w->name);
    } else {
        mi_block_format(w->format)->decode(w->data, v, n);
    }
    return v;
}

/* ---- a linear of n parts ------------------------------------------------------------- */

static void *card_alloc(MiContext *ctx, MiMemory memory, size_t bytes, GError **error)
{
    (void)ctx, (void)memory, (void)error;
    return gpu_alloc(bytes);
}
static void card_free(MiContext *ctx, MiMemory memory, void *p)
{
    (void)memory;
    gpu_must(cudaStreamSynchronize(ctx->stream), "packing");
    cudaFree(p);
}
static bool card_upload(MiContext *ctx, void *dst, const void *src, size_t bytes, GError **error)
{
    (void)error;
    gpu_must(cudaMemcpyAsync(dst, src, bytes, cudaMemcpyHostToDevice, ctx->stream), "copying to the device");
    gpu_must(cudaStreamSynchronize(ctx->stream), "copying to the device");
    return true;
}

static const MiLinear *linear_of(int kind)
{
    return gpu_feature("linear_quant_cuda.so", MI_KIND_LINEAR, kind < N_BLOCKS ? "blocks" : "packed");
}

enum { PARTS = 2, BEHIND = 256 };

/* Packs; the memory, with nothing written behind what bytes() said. */
static void *packed_parts(const MiLinear *l, const MiWeight *w, int n, MiOperand *operands)
{
    g_autoptr(GError) error = NULL;
    size_t            bytes = 0;
    uint8_t           behind[BEHIND];
    int               wrong = 0;

    if (!l->bytes(w, n, MI_BF16, NULL, &bytes, &error)) {
        gpu_check(false, "%s: %s", w->name, error->message);
        return NULL;
    }
    char *memory = gpu_alloc(bytes + BEHIND);
    gpu_must(cudaMemset(memory, 0xa5, bytes + BEHIND), "poisoning");
    gpu_must(cudaDeviceSynchronize(), "poisoning");
    if (!l->pack(&gpu_card, w, n, NULL, memory, operands, &error)) {
        gpu_check(false, "%s: %s", w->name, error->message);
        return NULL;
    }
    gpu_wait("packing");
    gpu_must(cudaMemcpy(behind, memory + bytes, BEHIND, cudaMemcpyDeviceToHost), "copying back");
    for (int i = 0; i < BEHIND; i++)
        wrong += behind[i] != 0xa5;
    if (wrong)
        gpu_check(false, "%s: %d bytes written behind its %zu", w->name, wrong, bytes);
    return memory;
}

/* Every number as the CPU decodes it, but for the last bit of a sum. */
static void numbers(int kind, int out, int in)
{
    uint64_t   seed = (uint64_t)(kind * 131 + out);
    MiWeight   w = random_weight(kind, out, columns(kind, in), &seed);
    MiOperand  operand;
    void      *memory = packed_parts(linear_of(kind), &w, 1, &operand);
    const int  n_in = (int)w.shape[1];
    const size_t n = (size_t)out * (size_t)n_in;
    float     *want = decoded(&w), *got = g_new(float, n);
    int32_t   *order = g_new(int32_t, n_in);
    int64_t    wrong = 0;
    double     worst = 0;

    if (!memory)
        return;
    void *back = gpu_alloc(n * 4);
    gpu_must(cudaMemset(back, 0xff, n * 4), "poisoning");
    gpu_must((cudaError_t)mi_cuda_dequantise(gpu_card.stream, *(const MiQuantForm *)operand.ext, operand.tensor.data, 0, out, n_in, back,
                                             MI_F32),
             "dequantising");
    gpu_wait("dequantising");
    gpu_must(cudaMemcpy(got, back, n * 4, cudaMemcpyDeviceToHost), "copying back");
    for (int k = 0; k < n_in; k++)
        order[k] = k;
    if (operand.zeros)
        gpu_must(cudaMemcpy(order, operand.zeros, (size_t)n_in * 4, cudaMemcpyDeviceToHost), "copying back");
    for (int r = 0; r < out; r++)
        for (int k = 0; k < n_in; k++) {
            const double v = want[(size_t)r * (size_t)n_in + (size_t)order[k]], d = fabs(got[(size_t)r * (size_t)n_in + (size_t)k] - v);
            /* minima: two products of up to 63 * 31 * 1/32 and their rounding */
            const bool sums = kind < N_BLOCKS && block_formats[kind].halves[1] > 0;
            wrong += !(d <= (sums ? 1e-5 : 0) + 2e-7 * fabs(v));
            worst = MAX(worst, d);
        }
    gpu_check(wrong == 0, "%s, %d x %d as on the CPU: %" G_GINT64_FORMAT " differ, the worst by %.1e", w.name, out, n_in, wrong, worst);
    cudaFree(back), cudaFree(memory);
    g_free(want), g_free(got), g_free(order);
    free_weight(&w);
}

/* Two parts, of which the second may be of another kind, or in another order. */
static void product(int kind, int other, int rows, int in, int out, bool bias, MiDType dtype)
{
    uint64_t        seed = (uint64_t)(rows * 7919 + in + out + kind * 31);
    const int       n_in = columns(kind, columns(other, in)), outs[PARTS] = {out, 40};
    MiWeight        w[PARTS] = {random_weight(kind, outs[0], n_in, &seed), random_weight(other, outs[1], n_in, &seed)};
    const MiLinear *l = linear_of(kind);
    MiOperand       operands[PARTS], weights[PARTS][MI_MAX_WEIGHTS] = {0};
    void           *memory = packed_parts(l, w, PARTS, operands), *b = NULL;
    const size_t    nx = (size_t)rows * (size_t)n_in;
    float          *x = g_new(float, nx), *biases = g_new(float, out);
    void           *half = g_malloc(nx * 4);

    if (!memory)
        return;
    for (size_t i = 0; i < nx; i++)
        gpu_put(half, (int64_t)i, dtype, x[i] = gpu_rounded(gpu_random(&seed) * (i % 311 == 0 ? 30 : 1), dtype));
    for (int i = 0; i < out; i++)
        biases[i] = gpu_random(&seed);
    void    *xc = gpu_upload(half, nx * mi_dtype_size(dtype));
    MiTensor tx = {xc, dtype, 2, {rows, n_in}, {n_in, 1}}, ty[PARTS];
    MiNode   nodes[PARTS];
    MiArgs   at[PARTS];
    for (int i = 0; i < PARTS; i++) {
        const size_t bytes = (size_t)rows * (size_t)outs[i] * 4;
        nodes[i] = (MiNode){.op = "linear", .n_in = 1, .n_out = 1, .weight = {&w[i]}};
        ty[i] = (MiTensor){gpu_alloc(bytes), MI_F32, 2, {rows, outs[i]}, {outs[i], 1}};
        gpu_must(cudaMemset(ty[i].data, 0xff, bytes), "poisoning");
        weights[i][0] = operands[i];
        if (bias && i == 0)
            weights[i][1] = (MiOperand){.tensor = {b = gpu_upload(biases, (size_t)out * 4), MI_F32, 1, {out}, {1}}, .layout = "plain"};
        at[i] = (MiArgs){.node = &nodes[i], .in = &tx, .out = &ty[i], .weight = weights[i]};
    }
    gpu_must(cudaDeviceSynchronize(), "poisoning");
    MiCall call = {.shape = {.n_tokens = rows, .n_out = rows}, .at = at, .n = PARTS};
    gpu_card.dtype = dtype;
    bool   ran = gpu_run(l->op, &gpu_card, &call, NULL);
    double error = 0, norm = 0;
    for (int i = 0; i < PARTS; i++) {
        g_autofree float *v = decoded(&w[i]), *y = g_new(float, (size_t)rows * (size_t)outs[i]);
        gpu_must(cudaMemcpy(y, ty[i].data, (size_t)rows * (size_t)outs[i] * 4, cudaMemcpyDeviceToHost), "copying back");
        for (int r = 0; r < rows; r++)
            for (int k = 0; k < MIN(outs[i], 100); k++) {
                const int o = outs[i] - 1 - (int)((int64_t)k * outs[i] / MIN(outs[i], 100));
                double    want = bias && i == 0 ? biases[o] : 0;
                for (int c = 0; c < n_in; c++)
                    want += (double)x[(size_t)r * (size_t)n_in + (size_t)c] * v[(size_t)o * (size_t)n_in + (size_t)c];
                const double d = y[(size_t)r * (size_t)outs[i] + (size_t)o] - want;
                error += d * d;
                norm += want * want;
            }
        cudaFree(ty[i].data);
    }
    error = sqrt(error / norm);
    /* few rows: x of 15 bits beside elements 30 times as large; else weights are rounded to dtype */
    gpu_check(ran && error < (dtype == MI_BF16 && rows > MI_GEMV_FEW_ROWS ? 4e-3 : 1e-3), "%s and %s, %d rows, %d -> %d%s %s: %.1e",
              w[0].name, w[1].name, rows, n_in, out, bias ? " bias" : "", gpu_dtype(dtype), error);
    cudaFree(xc), cudaFree(memory), cudaFree(b);
    g_free(x), g_free(half), g_free(biases);
    for (int i = 0; i < PARTS; i++)
        free_weight(&w[i]);
}

/* ---- how fast -------------------------------------------------------------------------- */

typedef struct {
    int        rows, copies;
    size_t     bytes;
    char      *x, *w, *y;
    MiGemvPlan plan;
} Timed;

static void few(void *arg, int i)
{
    Timed         *t = arg;
    const MiTensor x = {t->x, MI_BF16, 2, {t->rows, t->plan.in}, {t->plan.in, 1}},
                   y = {t->y, MI_BF16, 2, {t->rows, t->plan.out}, {t->plan.out, 1}};
    gpu_must((cudaError_t)mi_cuda_gemv(gpu_card.stream, &t->plan, x, t->w + (size_t)(i % t->copies) * t->bytes, NULL, y), "gemv");
}

static void bench(void)
{
    enum { SIDE = 8192 };
    const size_t total = (size_t)1 << 30;
    Timed        t = {.w = gpu_alloc(total), .x = gpu_alloc(SIDE * 8), .y = gpu_alloc(SIDE * 8)};

    gpu_must((cudaError_t)mi_cuda_noise(gpu_card.stream, t.w, total, MI_BF16), "noise");
    gpu_must((cudaError_t)mi_cuda_noise(gpu_card.stream, t.x, SIDE * 8, MI_BF16), "noise");
    const double rate = gpu_read_rate(t.w, total);
    printf("# read %.3f TB/s; %d x %d, us, share of read of the packed bytes, of the file's\n", rate * 1e-12, SIDE, SIDE);
    for (int k = 0; k < N_BLOCKS; k++)
        for (t.rows = 1; t.rows <= MI_GEMV_FEW_ROWS; t.rows *= 4) {
            const MiBlockFormat  *f = mi_block_format(block_formats[k].name);
            const MiStoredBlocks *b = mi_stored_blocks(f->name);
            const double          file = (double)SIDE * SIDE / f->values * f->bytes;
            t.plan = (MiGemvPlan){.kind = MI_GEMV_PLAIN, .dtype = MI_BF16, .rows = t.rows, .in = SIDE, .out = SIDE, .form = b->form};
            t.bytes = (size_t)mi_quant_bytes(b->form, SIDE, SIDE);
            t.copies = (int)(total / t.bytes);
            gpu_must((cudaError_t)mi_cuda_gemv_plan(&t.plan), "planning");
            const double us = gpu_timed(few, &t);
            printf("# %s, %d rows: %.2f, %.1f %%, %.1f %%\n", f->name, t.rows, us, 1e8 * (double)t.bytes / us / rate, 1e8 * file / us / rate);
            fflush(stdout);
        }
}

static const void *recall(MiContext *ctx, const char *key, size_t *bytes) { return (void)ctx, (void)key, (void)bytes, NULL; }
static bool measures(MiContext *ctx) { return (void)ctx, false; }

int main(void)
{
    if (!gpu_present())
        return 0;
    gpu_open();
    gpu_card.alloc = card_alloc;
    gpu_card.free = card_free;
    gpu_card.upload = card_upload;
    gpu_card.recall = recall;
    gpu_card.measures = measures;
    for (int k = 0; k < N_KINDS; k++) {
        const int next = k < N_BLOCKS ? (k + 3) % N_BLOCKS : N_BLOCKS + (k - N_BLOCKS + 1) % N_LAYOUTS;
        numbers(k, 16, 256);
        numbers(k, 24, 1000);
        product(k, k, 1, 896, 200, true, MI_BF16);
        product(k, next, 4, 2056, 64, false, MI_BF16);
        if (gpu_quick())
            continue;
        numbers(k, 40, 4864);
        product(k, next, 1, 3584, 136, false, MI_BF16);
        product(k, next, 2, 18944, 72, true, MI_BF16);
        product(k, next, 5, 264, 104, true, MI_BF16);
        product(k, k, 33, 896, 152, k % 2, MI_F16);
        product(k, k, 41, 1544, 152, k % 2, MI_BF16);
        product(k, next, 70, 896, 64, false, MI_BF16);
        product(k, next, 3, 328, 72, true, MI_F32);
    }
    if (g_getenv("MI_BENCH"))
        bench();
    return gpu_end();
}
