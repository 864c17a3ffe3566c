/* gpu_numbers.h - what tests of kernels count, and numbers that they have on both sides. */
#ifndef TESTS_GPU_NUMBERS_H
#define TESTS_GPU_NUMBERS_H

#include "gpu_quick.h"

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int passed, failed;
static int quick; /* as gpu_quick() */

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

static void free_all(void)
{
    while (n_owned)
        must(cudaFree(owned[--n_owned]), "cudaFree");
}

#endif
