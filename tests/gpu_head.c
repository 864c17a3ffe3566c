/* gpu_head.c - the kernels of kernels/cuda/head.h against plain loops in double; with MI_BENCH=1 (or only: without the
 * comparison) what they take for the heads of Qwen2 shapes, weights from memory. */
#include <cuda/head.h>
#include <math.h>

#include "gpu_numbers.h"

static uint16_t *some_bf16(size_t n, float amp)
{
    uint16_t *b = malloc(n * 2);
    for (size_t i = 0; i < n; i++)
        b[i] = to_bf16(amp * uniform());
    return b;
}

typedef struct {
    int  rows, tokens, in, out; /* tokens: rows of x, of which every other is asked for where there are enough */
    bool logits, best;
} Case;

static void one(Case c)
{
    const size_t tiles = (size_t)(c.out + MI_HEAD_TILE - 1) / MI_HEAD_TILE;
    uint16_t    *x = some_bf16((size_t)c.tokens * c.in, 1), *w = some_bf16((size_t)c.out * c.in, 0.1f);
    float       *gain = malloc(sizeof *gain * c.in), *got = malloc(sizeof *got * c.rows * c.out);
    int32_t     *rows = malloc(sizeof *rows * c.rows), *slots = malloc(sizeof *slots * c.rows), *token = malloc(sizeof *token * c.rows);
    double      *n = malloc(sizeof *n * c.in), wrong = 0, size = 0;
    int          other = 0;
    char         name[128];

    for (int i = 0; i < c.in; i++)
        gain[i] = 1 + 0.5f * uniform();
    for (int i = 0; i < c.rows; i++) {
        rows[i] = c.tokens >= 2 * c.rows ? 2 * i + 1 : i;
        slots[i] = i % 5 == 3 ? -1 : i;
    }
    memcpy(w + (size_t)(c.out - 3) * c.in, w + (size_t)2 * c.in, (size_t)c.in * 2); /* equal logits: the first wins */
    MiHeadCall call = {.x = {upload(x, (size_t)c.tokens * c.in * 2), MI_BF16, 2, {c.tokens, c.in}, {c.in, 1}},
                       .out_rows = upload(rows, sizeof *rows * c.rows),
                       .norm = {upload(gain, sizeof *gain * c.in), 1e-5f, 0.25f},
                       .w = upload(w, (size_t)c.out * c.in * 2),
                       .logits = c.logits ? upload(NULL, sizeof *got * c.rows * c.out) : NULL,
                       .stride = c.out,
                       .best = c.best ? upload(NULL, sizeof(MiCandidate) * c.rows * tiles) : NULL,
                       .rows = c.rows,
                       .in = c.in,
                       .out = c.out,
                       .workspace = upload(NULL, (size_t)c.rows * c.in * 2)};
    int32_t *tokens = upload(NULL, sizeof *tokens * c.rows), *drawn = upload(NULL, sizeof *drawn * c.rows);
    must(mi_cuda_head_takes(MI_HEAD_MAX_ROWS, c.in, c.out), "planning"); /* a step may have fewer rows */
    must(mi_cuda_head(NULL, &call), "launching");
    if (c.best)
        must(mi_cuda_gemv_pick(NULL, call.best, (int32_t)tiles, c.rows, tokens, drawn, upload(slots, sizeof *slots * c.rows)), "picking");
    must(cudaDeviceSynchronize(), "running");
    if (c.logits)
        must(cudaMemcpy(got, call.logits, sizeof *got * c.rows * c.out, cudaMemcpyDeviceToHost), "copying back");
    must(cudaMemcpy(token, tokens, sizeof *token * c.rows, cudaMemcpyDeviceToHost), "copying back");
    for (int r = 0; r < c.rows; r++) {
        const uint16_t *from = x + (size_t)rows[r] * c.in;
        double          sum = 0, most = -INFINITY, second = -INFINITY;
        int             at = 0;
        for (int i = 0; i < c.in; i++)
            sum += (double)from_bf16(from[i]) * from_bf16(from[i]);
        for (int i = 0; i < c.in; i++)
            n[i] = from_bf16(from[i]) / sqrt(sum / c.in + 1e-5) * (gain[i] + 0.25);
        for (int o = 0; o < c.out; o++) {
            double y = 0;
            for (int i = 0; i < c.in; i++)
                y += n[i] * from_bf16(w[(size_t)o * c.in + i]);
            if (c.logits) {
                wrong += (got[(size_t)r * c.out + o] - y) * (got[(size_t)r * c.out + o] - y);
                size += y * y;
            }
            if (y > most) {
                second = most;
                most = y;
                at = o;
            } else if (y > second && o != c.out - 3) {
                second = y;
            }
        }
        if (c.best && token[r] != at && most - second > 0.02 * fabs(most))
            other++;
    }
    wrong = c.logits ? sqrt(wrong / size) : 0;
    const bool ok = wrong < 6e-3 && !other;
    snprintf(name, sizeof name, "%d rows of %d, %d in, %d out%s%s, %d other tokens", c.rows, c.tokens, c.in, c.out, c.logits ? ", logits" : "",
             c.best ? ", likeliest" : "", other);
    check(ok, name, wrong);
    free(x), free(w), free(gain), free(got), free(rows), free(slots), free(token), free(n);
    free_all();
}

static int ascending(const void *a, const void *b) { return (*(const float *)a > *(const float *)b) - (*(const float *)a < *(const float *)b); }

static void bench(const char *name, int in, int rows, bool logits)
{
    const int    out = 151936;
    const size_t bytes = (size_t)out * in * 2, tiles = (size_t)(out + MI_HEAD_TILE - 1) / MI_HEAD_TILE;
    cudaEvent_t  begin, end;
    float        ms[9];
    MiHeadCall   call = {.x = {upload(NULL, (size_t)rows * in * 2), MI_BF16, 2, {rows, in}, {in, 1}},
                         .norm = {upload(NULL, (size_t)in * 4), 1e-5f, 0},
                         .w = upload(NULL, bytes),
                         .logits = logits ? upload(NULL, (size_t)rows * out * 4) : NULL,
                         .stride = out,
                         .best = upload(NULL, sizeof(MiCandidate) * rows * tiles),
                         .rows = rows,
                         .in = in,
                         .out = out,
                         .workspace = upload(NULL, (size_t)rows * in * 2)};

    must(mi_cuda_head_takes(rows, in, out), "planning");
    must(cudaEventCreate(&begin), "an event");
    must(cudaEventCreate(&end), "an event");
    for (int i = 0; i < 9; i++) {
        must(cudaEventRecord(begin, NULL), "an event");
        for (int k = 0; k < 10; k++)
            must(mi_cuda_head(NULL, &call), "launching");
        must(cudaEventRecord(end, NULL), "an event");
        must(cudaEventSynchronize(end), "running");
        must(cudaEventElapsedTime(ms + i, begin, end), "the time");
    }
    qsort(ms, 9, sizeof *ms, ascending);
    printf("# head of %s, %d rows, %s: %.1f us; W is %.1f us at 3.05 TB/s, the product %.1f at 800 TFLOP/s\n", name, rows,
           logits ? "logits" : "likeliest only", ms[4] * 100, (double)bytes / 3.05e6, 2. * rows * in * out / 8e8);
    fflush(stdout);
    free_all();
}

int main(void)
{
    static const Case cases[] = {
        {25, 60, 896, 1000, true, true},  {32, 32, 128, 3000, true, false}, {33, 33, 200, 264, true, true},  {64, 200, 896, 640, false, true},
        {100, 100, 1536, 1000, true, true}, {128, 256, 64, 136, true, true},  {250, 256, 896, 520, true, true}, {512, 512, 136, 392, true, true},
        {60, 64, 896, 1000, false, true},
    };
    static const int rows[] = {8, 32, 64, 128, 256, 512};
    const char      *timed = getenv("MI_BENCH");
    int              n = 0;

    quick = gpu_quick();
    if (cudaGetDeviceCount(&n) || !n) {
        printf("1..0 # SKIP no CUDA device\n");
        return 0;
    }
    for (size_t i = 0; i < sizeof cases / sizeof *cases && (!timed || strcmp(timed, "only") != 0); i += quick ? 3 : 1)
        one(cases[i]);
    printf("%d passed, %d failed\n", passed, failed);
    for (int i = 0; timed && i < 6; i++) {
        bench("0.5B", 896, rows[i], true);
        bench("0.5B", 896, rows[i], false);
        bench("1.5B", 1536, rows[i], true);
        bench("7B", 3584, rows[i], true);
    }
    return failed > 0;
}
