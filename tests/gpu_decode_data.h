/* gpu_decode_data.h - gpu_decode.c's checks, and its numbers on both sides. */
#ifndef TESTS_GPU_DECODE_DATA_H
#define TESTS_GPU_DECODE_DATA_H

#include "gpu_decode.h"
#include "gpu_numbers.h"
#include <math.h>

static void download(void *to, const void *from, size_t bytes)
{
    must(cudaDeviceSynchronize(), "running");
    must(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost), "copying back");
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
