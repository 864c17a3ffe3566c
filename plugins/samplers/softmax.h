/* softmax.h - exp(x - max) of a row of logits, and what follows from it.
 *
 * Plain C in blocks of constant length, which compilers turn into vectors.
 * The same operations in the same order on every machine (compiled without
 * contraction to fused multiply-adds): a seed gives one text everywhere. */
#ifndef SAMPLERS_SOFTMAX_H
#define SAMPLERS_SOFTMAX_H

#include "rows.h"

enum { BLOCK = 64 };

/* The largest candidate; -INFINITY: there is none. */
static inline float largest(const float *x, int n)
{
    float lane[16], max = -INFINITY;
    int   i = 0;

    for (int k = 0; k < 16; k++)
        lane[k] = -INFINITY;
    for (; i + 16 <= n; i += 16)
        for (int k = 0; k < 16; k++)
            lane[k] = x[i + k] > lane[k] ? x[i + k] : lane[k];
    for (; i < n; i++)
        max = x[i] > max ? x[i] : max;
    for (int k = 0; k < 16; k++)
        max = lane[k] > max ? lane[k] : max;
    return max;
}

/* e^z for z <= 0 within 2 units in the last place; 0 below -87, the last normal number, and for NaN.
 * z = n ln 2 + r, |r| <= ln 2 / 2; e^r by its Taylor polynomial of degree 7, error < 6e-9. */
static inline float exp_negative(float z)
{
    const float   magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
    const float   safe = z > -87.0f ? z : -87.0f;
    const float   n = (safe * 1.44269504f + magic) - magic;
    const float   r = (safe - n * 0.693359375f) + n * 2.12194440e-4f; /* ln 2 in two parts */
    float         p = 1.98412698e-4f;
    union { int32_t i; float f; } scale = { ((int32_t)n + 127) * (1 << 23) };

    p = p * r + 1.38888889e-3f;
    p = p * r + 8.33333333e-3f;
    p = p * r + 4.16666667e-2f;
    p = p * r + 1.66666667e-1f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    return z > -87.0f ? p * scale.f : 0.0f;
}

/* w[k] = e^(x[k] - max), 0 where removed; several +INFINITY share everything. */
static inline void weights(const float *restrict x, float max, float *restrict w)
{
    for (int k = 0; k < BLOCK; k++)
        w[k] = exp_negative(x[k] == max ? 0.0f : x[k] - max);
}

/* False: a whole block of tokens that are all removed, as most are behind a cut. */
static inline bool any_candidate(const float *x, int n)
{
    int any = 0;

    if (n == BLOCK) /* a constant length: vectors */
        for (int k = 0; k < BLOCK; k++)
            any |= x[k] > -INFINITY;
    return n < BLOCK || any;
}

/* Block b of a row of n: its weights; past the end they are 0. */
static inline int block_weights(const float *x, int n, int b, float max, float w[BLOCK])
{
    const int first = b * BLOCK, m = n - first < BLOCK ? n - first : BLOCK;
    float     tail[BLOCK];

    if (!any_candidate(x + first, m)) {
        memset(w, 0, BLOCK * sizeof *w);
        return m;
    }
    if (m == BLOCK) {
        weights(x + first, max, w);
        return m;
    }
    for (int k = 0; k < BLOCK; k++)
        tail[k] = k < m ? x[first + k] : -INFINITY;
    weights(tail, max, w);
    return m;
}

static inline int n_blocks(int n) { return (int)(((int64_t)n + BLOCK - 1) / BLOCK); }

/* In eight lanes: the order of additions is part of the result. */
static inline double block_sum(const float w[BLOCK])
{
    double lane[8] = { 0 };

    for (int k = 0; k < BLOCK; k += 8)
        for (int j = 0; j < 8; j++)
            lane[j] += w[k + j];
    return ((lane[0] + lane[1]) + (lane[2] + lane[3])) + ((lane[4] + lane[5]) + (lane[6] + lane[7]));
}

static inline double sum_of_weights(const float *x, int n, float max)
{
    double sum = 0;
    float  w[BLOCK];

    for (int b = 0; b < n_blocks(n); b++) {
        block_weights(x, n, b, max, w);
        sum += block_sum(w);
    }
    return sum;
}

/* The lowest id with the largest logit; 0 when all are removed. */
static inline int argmax(const float *x, int n)
{
    const float max = largest(x, n);

    for (int i = 0; i < n && candidate(max); i++)
        if (x[i] == max)
            return i;
    return 0;
}

#endif
