/* gpu_decode_data.h - gpu_decode.c's checks, and its numbers on both sides. */
#ifndef TESTS_GPU_DECODE_DATA_H
#define TESTS_GPU_DECODE_DATA_H

#include "gpu_decode.h"
#include <cuda_runtime_api.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int  passed, failed;
static bool quick; /* MI_QUICK=1: a few cases of each kind, for compute-sanitizer */

static void check(bool ok, const char *what, double error)
{
    *(ok ? &passed : &failed) += 1;
    printf("%sok %d - %s (%.2e)\n", ok ? "" : "not ", passed + failed, what, error);
    fflush(stdout);
}

static void must(int code, const char *what)
{
    if (!code)
        return;
    printf("not ok %d - %s: CUDA error %d: %s\n", passed + failed + 1, what, code,
           cudaGetErrorString((cudaError_t)code));
    exit(1);
}

/* ---- data: on both sides ------------------------------------------------------------ */

static uint64_t state = 1;
static float    uniform(void)
{
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    return (float)(state >> 40) * (2.f / 16777216.f) - 1;
}

static float from_bf16(uint16_t b)
{
    uint32_t u = (uint32_t)b << 16;
    float    f;
    memcpy(&f, &u, 4);
    return f;
}
static uint16_t to_bf16(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

enum { MAX_OWNED = 64 };
static void *owned[MAX_OWNED];
static int   n_owned;

static void *upload(const void *from, size_t bytes)
{
    void *p;
    must(cudaMalloc(&p, bytes ? bytes : 16), "cudaMalloc");
    if (from)
        must(cudaMemcpy(p, from, bytes, cudaMemcpyHostToDevice), "copying there");
    else
        must(cudaMemset(p, 0xff, bytes), "poisoning"); /* NaN in every format */
    return owned[n_owned++] = p;
}

static void download(void *to, const void *from, size_t bytes)
{
    must(cudaDeviceSynchronize(), "running");
    must(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost), "copying back");
}

static void free_all(void)
{
    while (n_owned)
        must(cudaFree(owned[--n_owned]), "cudaFree");
}

typedef struct {
    float *host;
    void  *device;
    size_t n;
} Array;

/* bf16 values around mean, as floats here. */
static Array random_bf16(size_t n, float mean, float amp)
{
    uint16_t *b = malloc(n * 2);
    Array     a = {malloc(n * 4), NULL, n};

    for (size_t i = 0; i < n; i++)
        a.host[i] = from_bf16(b[i] = to_bf16(mean + amp * uniform()));
    a.device = upload(b, n * 2);
    free(b);
    return a;
}

static Array random_f32(size_t n, float mean, float amp)
{
    Array a = {malloc(n * 4), NULL, n};
    for (size_t i = 0; i < n; i++)
        a.host[i] = mean + amp * uniform();
    a.device = upload(a.host, n * 4);
    return a;
}

static float *fetch(const void *device, size_t n, MiDType dtype)
{
    float    *f = malloc(n * 4);
    uint16_t *b = malloc(n * 2);

    download(dtype == MI_F32 ? (void *)f : (void *)b, device, n * mi_dtype_size(dtype));
    for (size_t i = 0; i < n && dtype != MI_F32; i++)
        f[i] = from_bf16(b[i]);
    free(b);
    return f;
}

static double distance(const float *a, const double *b, size_t n)
{
    double d = 0, s = 0;
    for (size_t i = 0; i < n; i++) {
        d += (a[i] - b[i]) * (a[i] - b[i]);
        s += b[i] * b[i];
    }
    return sqrt(d / (s + 1e-300));
}

static MiTensor tensor(void *data, MiDType dtype, int64_t rows, int64_t n)
{
    return (MiTensor){data, dtype, 2, {rows, n}, {n, 1}};
}

#endif
