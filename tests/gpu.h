/* gpu.h - what the programs of tests/gpu share: plugins by dlopen, tensors on both
 * sides, and one line of TAP for each check. */
#ifndef TESTS_GPU_H
#define TESTS_GPU_H

#include "gpu_quick.h"

#include <cpu/blocks.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <math.h>
#include <miniinfer/plugin.h>
#include <stdarg.h>
#include <stdio.h>

static int gpu_passed, gpu_failed;

static inline G_GNUC_PRINTF(2, 3) bool gpu_check(bool ok, const char *format, ...)
{
    va_list ap;

    *(ok ? &gpu_passed : &gpu_failed) += 1;
    printf("%s %d - ", ok ? "ok" : "not ok", gpu_passed + gpu_failed);
    va_start(ap, format);
    vprintf(format, ap);
    va_end(ap);
    printf("\n");
    fflush(stdout);
    return ok;
}

/* A CUDA call that must work: nothing of the program can be trusted when it does not. */
static inline void gpu_must(cudaError_t e, const char *what)
{
    if (e == cudaSuccess)
        return;
    printf("Bail out! %s: %s\n", what, cudaGetErrorString(e));
    exit(1);
}

static inline bool gpu_present(void)
{
    int n = 0;
    if (cudaGetDeviceCount(&n) == cudaSuccess && n > 0)
        return true;
    printf("1..0 # SKIP no CUDA device\n");
    return false;
}

static inline int gpu_end(void)
{
    printf("1..%d\n%d passed, %d failed\n", gpu_passed + gpu_failed, gpu_passed, gpu_failed);
    return gpu_failed ? 1 : 0;
}

/* The vtable of a feature; file: as "ops_cuda.so", in MI_PLUGINS. */
static inline const void *gpu_feature(const char *file, MiKind kind, const char *name)
{
    const char      *dir = g_getenv("MI_PLUGINS");
    g_autofree char *path = g_build_filename(dir ? dir : "plugins", file, NULL);
    void            *so = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    const MiPlugin *(*query)(void) = NULL;

    if (so)
        *(void **)&query = dlsym(so, "mi_plugin_query");
    for (uint32_t i = 0; query && i < query()->n_features; i++)
        if (query()->features[i].kind == kind && strcmp(query()->features[i].name, name) == 0)
            return query()->features[i].vtable;
    printf("Bail out! no '%s' in %s: %s\n", name, path, so ? "not there" : dlerror());
    exit(1);
}

/* ---- contexts: the CPU's, without threads, and the card's ------------------------ */

static const MiBackend gpu_host_backend = { .struct_size = sizeof(MiBackend), .unified = true };
static const MiBackend gpu_card_backend = { .struct_size = sizeof(MiBackend) };
static MiContext       gpu_host G_GNUC_UNUSED = { .struct_size = sizeof(MiContext), .backend = &gpu_host_backend, .n_ranks = 1 };
static MiContext       gpu_card = { .struct_size = sizeof(MiContext), .backend = &gpu_card_backend, .n_ranks = 1 };

/* The stream waits for what the default one still does: a small upload and a fill are not there when their calls return. */
static inline void gpu_open(void)
{
    gpu_must(cudaSetDevice(0), "opening the device");
    gpu_must(cudaStreamCreate((cudaStream_t *)&gpu_card.stream), "making a stream");
}

static inline void *gpu_alloc(size_t bytes)
{
    void *p = NULL;
    gpu_must(cudaMalloc(&p, MAX(bytes, 1)), "allocating");
    return p;
}

static inline void *gpu_upload(const void *src, size_t bytes)
{
    void *p = gpu_alloc(bytes);
    gpu_must(cudaMemcpy(p, src, bytes, cudaMemcpyHostToDevice), "copying to the device");
    return p;
}

static inline void *gpu_download(const void *src, size_t bytes)
{
    void *p = g_malloc(bytes);
    gpu_must(cudaMemcpy(p, src, bytes, cudaMemcpyDeviceToHost), "copying from the device");
    return p;
}

static inline void gpu_wait(const char *what)
{
    gpu_must(cudaStreamSynchronize(gpu_card.stream), what);
}

/* prepare() and run() of one call, which finds its workspace on the side of the context. */
static inline bool gpu_run(const MiOp *op, MiContext *ctx, MiCall *call, const MiBatch *batch)
{
    g_autoptr(GError) error = NULL;
    void             *state = NULL;
    size_t            bytes = 0;
    bool              ok;

    if (MI_HAS(op, prepare) && !op->prepare(ctx, call, &state, &bytes, &error)) {
        printf("# prepare: %s\n", error->message);
        return false;
    }
    void *workspace = ctx == &gpu_card ? gpu_alloc(bytes) : g_malloc(bytes + 1);
    if (ctx == &gpu_card)
        gpu_must(cudaMemset(workspace, 0xa5, bytes), "poisoning"), gpu_must(cudaDeviceSynchronize(), "poisoning");
    else
        memset(workspace, 0xa5, bytes);
    call->workspace = workspace;
    call->batch = batch;
    if (!(ok = op->run(state, ctx, call, &error)))
        printf("# run: %s\n", error->message);
    if (ctx == &gpu_card)
        gpu_wait(call->at->node->op), (void)cudaFree(workspace);
    else
        g_free(workspace);
    call->batch = NULL;
    if (MI_HAS(op, release))
        op->release(state);
    return ok;
}

/* ---- values ------------------------------------------------------------------------ */

static inline float gpu_rounded(float x, MiDType t)
{
    return t == MI_F16 ? mi_f16_to_f32(mi_f32_to_f16(x)) : t == MI_BF16 ? mi_bf16_to_f32(mi_f32_to_bf16(x)) : x;
}

static inline void gpu_put(void *to, int64_t at, MiDType t, float x)
{
    if (t == MI_F32)
        ((float *)to)[at] = x;
    else
        ((uint16_t *)to)[at] = t == MI_F16 ? mi_f32_to_f16(x) : mi_f32_to_bf16(x);
}

static inline float gpu_get(const void *from, int64_t at, MiDType t)
{
    if (t == MI_F32)
        return ((const float *)from)[at];
    return t == MI_F16 ? mi_f16_to_f32(((const uint16_t *)from)[at]) : mi_bf16_to_f32(((const uint16_t *)from)[at]);
}

/* [-1, 1), xorshift64*: the tests' own. */
static inline float gpu_random(uint64_t *s)
{
    *s ^= *s >> 12, *s ^= *s << 25, *s ^= *s >> 27;
    return (float)(int32_t)(uint32_t)((*s * 0x2545f4914f6cdd1dull) >> 32) * 0x1p-31f;
}

static inline const char *gpu_dtype(MiDType t) { return t == MI_F32 ? "f32" : t == MI_F16 ? "f16" : "bf16"; }

/* The error of y against want, as relative L2; infinite where one is no number and the other is. */
static inline double gpu_error(const float *y, const float *want, int64_t n)
{
    double difference = 0, norm = 0;

    for (int64_t i = 0; i < n; i++) {
        if (isnan(y[i]) != isnan(want[i]) || isinf(y[i]) != isinf(want[i]))
            return INFINITY;
        if (!isfinite(want[i]))
            continue;
        difference += ((double)y[i] - want[i]) * ((double)y[i] - want[i]);
        norm += (double)want[i] * want[i];
    }
    return norm > 0 ? sqrt(difference / norm) : sqrt(difference);
}

#endif
