/* gpu_attention_bench.c - times attention on a card: chains of calls in one graph,
 * each with a cache of its own, so that keys and values come from memory. */
#include "gpu_attention.h"
#include <cuda/read.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static cudaStream_t stream;
static cudaEvent_t  begun, ended;

static float since(void)
{
    float ms = 0;
    must(cudaEventRecord(ended, stream), "event");
    must(cudaEventSynchronize(ended), "a timed run");
    must(cudaEventElapsedTime(&ms, begun, ended), "event");
    return ms;
}

/* TB/s, the best of some reads of 4 GiB. */
static double read_speed(void)
{
    const size_t bytes = (size_t)4 << 30;
    void        *data;
    float        best = 1e9f;

    must(cudaMalloc(&data, bytes), "cudaMalloc");
    must(cudaMemset(data, 0, bytes), "cudaMemset");
    for (int i = 0; i < 8; i++) {
        must(cudaEventRecord(begun, stream), "event");
        must(mi_cuda_read(stream, data, bytes), "reading");
        const float ms = since();
        best = ms < best ? ms : best;
    }
    cudaFree(data);
    return (double)bytes / best * 1e-9;
}

/* us a call: `layers` calls over caches one after the other, in a graph, replayed. */
static double chain(World *w, const Case *c, Kernel kernel, char *k, char *v, int layers)
{
    cudaGraph_t     graph;
    cudaGraphExec_t run;
    float           best = 1e9f;

    must(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capturing");
    for (int i = 0; i < layers; i++) {
        w->call.kv.k = k + (size_t)i * w->side, w->call.kv.v = v + (size_t)i * w->side;
        must(world_run(w, kernel, c, stream), kernel_names[kernel]);
    }
    must(cudaStreamEndCapture(stream, &graph), "capturing");
    must(cudaGraphInstantiate(&run, graph, 0), "capturing");
    for (int i = 0; i < 7; i++) {
        must(cudaEventRecord(begun, stream), "event");
        must(cudaGraphLaunch(run, stream), "launching");
        const float ms = since();
        best = ms < best ? ms : best;
    }
    cudaGraphExecDestroy(run);
    cudaGraphDestroy(graph);
    return best * 1e3 / layers;
}

static const struct {
    int heads, kv_heads, dim;
} shapes[] = {{14, 2, 64}, {12, 2, 128}, {28, 4, 128}, {16, 8, 128}}; /* the last: offline() only */

/* MI_BENCH_WHAT=one,mixed: only some. */
static bool chosen(const char *what)
{
    const char *e = getenv("MI_BENCH_WHAT");
    return !e || strstr(e, what);
}

/* us a call over caches of their own, as many as `layers`. */
static double in_turn(World *w, const Case *c, int layers)
{
    char *k, *v;

    must(cudaMalloc((void **)&k, w->side * (size_t)layers), "cudaMalloc");
    must(cudaMalloc((void **)&v, w->side * (size_t)layers), "cudaMalloc");
    for (int i = 0; i < layers; i++) {
        must(cudaMemcpy(k + (size_t)i * w->side, w->k, w->side, cudaMemcpyDeviceToDevice), "cudaMemcpy");
        must(cudaMemcpy(v + (size_t)i * w->side, w->v, w->side, cudaMemcpyDeviceToDevice), "cudaMemcpy");
    }
    must(cudaDeviceSynchronize(), "copying"); /* the stream of the calls waits for no other */
    const double us = chain(w, c, GQA, k, v, layers); /* flash decodes as it does */
    cudaFree(k), cudaFree(v);
    return us;
}

static const char *named(MiDType kv) { return kv == MI_F8 ? " fp8" : kv == MI_I8 ? " int8" : ""; }

static void decode_from(MiDType kv, double limit, Layout layout, int n_seqs, int context, int max_kv)
{
    for (int s = 0; s < 3; s++) {
        Case  c = {.dim = shapes[s].dim,
                   .heads = shapes[s].heads,
                   .kv_heads = shapes[s].kv_heads,
                   .page = 64,
                   .dtype = MI_BF16,
                   .kv_dtype = kv,
                   .layout = layout,
                   .n_seqs = n_seqs,
                   .decode = true,
                   .max_kv = max_kv};
        World w;
        for (int i = 0; i < n_seqs; i++)
            c.rows[i] = 1, c.len[i] = context;
        world_make(&w, &c);
        /* Scales, the same for all layers, are not counted. */
        const double bytes = 2.0 * n_seqs * context * c.kv_heads * (double)mi_dtype_size(kv) * c.dim;
        const double us = in_turn(&w, &c, bytes > 3e7 ? 6 : bytes > 3e5 ? 60 : 28);
        printf("decode%s %2d/%d x %3d, %2d x %4d%s, bucket %4d: %7.2f us, %.2f TB/s = %3.0f %%\n",
               named(kv), c.heads, c.kv_heads, c.dim, n_seqs, context, layout == PAGED ? " paged" : "", w.call.batch.shape.max_kv, us,
               bytes / us * 1e-6, bytes / us * 1e-4 / limit);
        fflush(stdout);
        world_free(&w);
    }
}

static int longer_first(const void *a, const void *b) { return *(const int *)b - *(const int *)a; }

/* 256 requests of 100 to 1,024 tokens each way, all begun at once, after so many steps: as `bench offline` has them. */
static void offline(MiDType kv, double limit, Layout layout, int steps)
{
    for (int s = 0; s < 4; s++) {
        Case     c = {.dim = shapes[s].dim,
                      .heads = shapes[s].heads,
                      .kv_heads = shapes[s].kv_heads,
                      .page = 16,
                      .dtype = MI_BF16,
                      .kv_dtype = kv,
                      .layout = layout,
                      .decode = true,
                      .blank = true,
                      .max_kv = 256};
        World    w;
        uint32_t x = 1;
        int      keys = 0;
        for (int i = 0; i < 256; i++) {
            int of[2];
            for (int k = 0; k < 2; k++)
                x = x * 1664525 + 1013904223, of[k] = 100 + (int)((uint64_t)x * 925 >> 32);
            if (of[1] <= steps)
                continue;
            c.rows[c.n_seqs] = 1, c.len[c.n_seqs] = of[0] + steps, keys += of[0] + steps;
            while (c.max_kv < c.len[c.n_seqs])
                c.max_kv *= 2;
            c.n_seqs++;
        }
        qsort(c.len, (size_t)c.n_seqs, sizeof *c.len, longer_first);
        world_make(&w, &c);
        const double bytes = 2.0 * keys * c.kv_heads * c.dim * (double)mi_dtype_size(kv), us = in_turn(&w, &c, bytes > 3e7 ? 6 : 24);
        printf("decode%s %2d/%d x %3d, %3d of 256 requests after %3d steps%s, %6d keys: %7.2f us, %.2f TB/s = %3.0f %%\n", named(kv), c.heads,
               c.kv_heads, c.dim, c.n_seqs, steps, layout == PAGED ? " paged" : "", keys, us, bytes / us * 1e-6,
               bytes / us * 1e-4 / limit);
        fflush(stdout);
        world_free(&w);
    }
}

static void decode(double limit, Layout layout, int n_seqs, int context, int max_kv)
{
    decode_from(MI_BF16, limit, layout, n_seqs, context, max_kv);
}

static void prefill_from(MiDType kv, int n, Layout layout)
{
    for (int s = 0; s < 3; s++) {
        Case  c = {.dim = shapes[s].dim,
                   .heads = shapes[s].heads,
                   .kv_heads = shapes[s].kv_heads,
                   .page = 128,
                   .dtype = MI_BF16,
                   .kv_dtype = kv,
                   .layout = layout,
                   .n_seqs = 1,
                   .rows = {n},
                   .len = {n}};
        World w;
        world_make(&w, &c);
        for (Kernel kernel = GQA; kernel < N_KERNELS; kernel++) {
            float best = 1e9f;
            for (int i = 0; i < 6; i++) {
                must(cudaEventRecord(begun, stream), "event");
                for (int r = 0; r < 4; r++)
                    must(world_run(&w, kernel, &c, stream), kernel_names[kernel]);
                const float ms = since() / 4;
                best = ms < best ? ms : best;
            }
            printf("prefill %-5s %2d/%d x %3d, %4d%s: %8.1f us, %3.0f TFLOP/s\n", kernel_names[kernel], c.heads,
                   c.kv_heads, c.dim, n, layout == PAGED ? " paged" : "", best * 1e3,
                   2.0 * n * n * c.heads * c.dim / best * 1e-9);
        }
        fflush(stdout);
        world_free(&w);
    }
}

static void prefill(int n, Layout layout) { prefill_from(MI_BF16, n, layout); }

/* us of one call, the best of some times 8 in a row. */
static double eager(World *w, const Case *c, Kernel kernel)
{
    float best = 1e9f;

    for (int i = 0; i < 6; i++) {
        must(cudaEventRecord(begun, stream), "event");
        for (int r = 0; r < 8; r++)
            must(world_run(w, kernel, c, stream), kernel_names[kernel]);
        const float ms = since() / 8;
        best = ms < best ? ms : best;
    }
    return best * 1e3;
}

/* 31 sequences that decode at context 1000 and a chunk of a prompt, 512 rows after 512, in one step and apart. */
static void mixed(void)
{
    for (int s = 0; s < 3; s++)
        for (int layout = CONTIGUOUS; layout <= PAGED; layout += PAGED - CONTIGUOUS) {
            double us[3];
            for (int part = 0; part < 3; part++) {
                Case  c = {.dim = shapes[s].dim,
                           .heads = shapes[s].heads,
                           .kv_heads = shapes[s].kv_heads,
                           .page = 64,
                           .dtype = MI_BF16,
                           .kv_dtype = MI_BF16,
                           .layout = (Layout)layout,
                           .decode = part == 0};
                World w;
                for (int i = 0; i < 31 && part != 1; i++, c.n_seqs++)
                    c.rows[i] = 1, c.len[i] = 1000;
                if (part > 0)
                    c.rows[c.n_seqs] = 512, c.len[c.n_seqs++] = 1024;
                world_make(&w, &c);
                us[part] = eager(&w, &c, FLASH);
                world_free(&w);
            }
            printf("mixed %2d/%d x %3d%s: 31 rows over 1000 %.1f us, a chunk of 512 over 1024 %.1f us, in one step "
                   "%.1f us\n",
                   shapes[s].heads, shapes[s].kv_heads, shapes[s].dim, layout == PAGED ? " paged" : "", us[0], us[1],
                   us[2]);
            fflush(stdout);
        }
}

/* Prompts over a cache of fp8: rows behind others, alone or with as many sequences like them, straight from the cache and by way of
 * 16 bits; over bf16 beside it. */
static void wide(void)
{
    static const int rows[][3] = {{585, 585, 14}, {32, 32, 1}, {64, 64, 1}, {128, 128, 1}, {256, 256, 1}, {512, 512, 1}, {2048, 2048, 1},
                                  {32, 2000, 1}, {256, 2000, 1}, {512, 8192, 1}, {128, 128, 8}};

    for (int s = 0; s < 3; s++)
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
            double us[3];
            for (int k = 0; k < 3; k++) {
                Case  c = {.dim = shapes[s].dim, .heads = shapes[s].heads, .kv_heads = shapes[s].kv_heads, .page = 16, .dtype = MI_BF16,
                           .kv_dtype = k < 2 ? MI_F8 : MI_BF16, .layout = CONTIGUOUS, .n_seqs = rows[i][2],
                           .room = rows[i][0] * rows[i][2] + rows[i][1], .blank = true};
                World w;
                for (int n = 0; n < c.n_seqs; n++)
                    c.rows[n] = rows[i][0], c.len[n] = rows[i][1];
                world_make(&w, &c);
                us[k] = eager(&w, &c, k ? FLASH : GQA);
                world_free(&w);
            }
            printf("prompts %2d/%d x %3d, %2d of %4d rows, %4d keys: fp8 %.1f us by gqa, %.1f by flash; bf16 %.1f\n", shapes[s].heads,
                   shapes[s].kv_heads, shapes[s].dim, rows[i][2], rows[i][0], rows[i][1], us[0], us[1], us[2]);
            fflush(stdout);
        }
}

float bench_all(void)
{
    must(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "a stream");
    must(cudaEventCreate(&begun), "an event");
    must(cudaEventCreate(&ended), "an event");
    const double limit = read_speed();
    printf("memory reads at %.2f TB/s\n", limit);
    if (chosen("one")) {
        decode(limit, CONTIGUOUS, 1, 128, 128);
        decode(limit, CONTIGUOUS, 1, 160, 256);
        decode(limit, CONTIGUOUS, 1, 512, 512);
        decode(limit, CONTIGUOUS, 1, 1024, 1024);
        decode(limit, CONTIGUOUS, 1, 4128, 4162);
        decode(limit, CONTIGUOUS, 1, 4128, 8192);
        decode(limit, PAGED, 1, 4128, 4162);
    }
    if (chosen("long"))
        decode(limit, CONTIGUOUS, 1, 8192, 8192);
    if (chosen("batch")) {
        decode(limit, CONTIGUOUS, 32, 512, 578);
        decode(limit, PAGED, 32, 512, 578);
        decode(limit, CONTIGUOUS, 64, 512, 578);
        decode(limit, CONTIGUOUS, 48, 1024, 1100);
        decode(limit, CONTIGUOUS, 8, 512, 578);
    }
    if (chosen("many"))
        decode(limit, PAGED, 64, 4096, 0);
    if (chosen("scaled")) {
        for (MiDType kv = MI_BF16; kv <= MI_I8; kv++) {
            decode_from(kv, limit, PAGED, 128, 900, 1024);
            decode_from(kv, limit, PAGED, 32, 512, 578);
            decode_from(kv, limit, CONTIGUOUS, 1, 4128, 4162);
        }
        prefill_from(MI_F8, 2048, PAGED);
    }
    if (chosen("wide"))
        wide();
    if (chosen("offline"))
        for (int steps = 8; steps < 1000; steps = steps < 100 ? 250 : steps + 250)
            for (int layout = CONTIGUOUS; layout <= PAGED; layout += PAGED - CONTIGUOUS)
                for (MiDType kv = MI_BF16; kv <= MI_F8; kv++)
                    offline(kv, limit, (Layout)layout, steps);
    if (chosen("mixed"))
        mixed();
    if (chosen("prefill")) {
        prefill(2048, CONTIGUOUS);
        prefill(8192, CONTIGUOUS);
        prefill(8192, PAGED);
    }
    return (float)limit;
}
