/* cut.h - the best candidates that together reach a mass, without sorting.
 *
 * A link says how tokens rank and what each weighs.  Kept are those before
 * which less than `want` was gathered, walking from the best rank down and
 * through equal ranks by id: the smallest set that reaches `want`, at least
 * one token.  Top-k weighs every token 1.
 *
 * The last rank is found digit by digit, as a radix sort would, but only the
 * one bin that it lies in is looked at again: three passes, on the stack,
 * linear whatever the logits are.  What a pass leaves behind the next one skips
 * in blocks, and links remove beforehand what surely goes. */
#ifndef SAMPLERS_CUT_H
#define SAMPLERS_CUT_H

#include "softmax.h"

/* What rank and weight may need of the row. */
typedef struct {
    float  max;
    double surprise; /* -log p of the largest logit */
    double entropy;  /* in nats */
} RowFacts;

typedef float (*RankFn)(float x, const RowFacts *); /* higher is better; never NaN */

enum { CUT_LEVELS = 3, CUT_BINS = 2048 };

typedef struct {
    double  mass[CUT_BINS];
    uint8_t any[CUT_BINS]; /* a token of no mass is one nevertheless */
} Histogram;

/* Order of floats as order of integers; -0 is 0. */
static inline uint32_t float_key(float x)
{
    union { float f; uint32_t u; } bits = { x + 0.0f };
    return bits.u & 0x80000000u ? ~bits.u : bits.u | 0x80000000u;
}

static inline float weight(float x, const RowFacts *facts, bool weighted)
{
    return !weighted ? 1 : exp_negative(x == facts->max ? 0.0f : x - facts->max);
}

/* One digit of the keys that begin with `prefix`; what ranks below all of them is removed. */
static inline __attribute__((always_inline)) void count_digit(Histogram *h, float *x, int n, int level,
                                                              uint32_t prefix, const RowFacts *facts, RankFn rank,
                                                              bool weighted)
{
    static const int shift[CUT_LEVELS + 1] = { 32, 21, 10, 0 };
    const int        above = shift[level], below = shift[level + 1];
    const uint32_t   digit = (1u << (above - below)) - 1;

    memset(h, 0, sizeof *h);
    for (int b = 0; b < n_blocks(n); b++) {
        float    *block = x + b * BLOCK;
        const int m = n - b * BLOCK < BLOCK ? n - b * BLOCK : BLOCK;
        if (!any_candidate(block, m))
            continue;
        for (int k = 0; k < m; k++) {
            if (!candidate(block[k]))
                continue;
            const uint32_t key = float_key(rank(block[k], facts)), high = level ? key >> above : prefix;
            if (high < prefix)
                block[k] = -INFINITY;
            if (high != prefix)
                continue;
            h->mass[key >> below & digit] += weight(block[k], facts, weighted);
            h->any[key >> below & digit] = 1;
        }
    }
}

/* The bin in which the walk from the best reaches `want`, or the last one; -1: all are empty.
 * *before: what the ranks above it hold. */
static inline int bin_of(const Histogram *h, int n_bins, double want, double *before)
{
    int bin = -1;

    for (int b = n_bins - 1; b >= 0; b--) {
        if (!h->any[b])
            continue;
        if (bin >= 0)
            *before += h->mass[bin];
        bin = b;
        if (*before + h->mass[b] >= want)
            break;
    }
    return bin;
}

/* Removes all but the best that reach `want` > 0 in units of the weights. */
static inline __attribute__((always_inline)) void cut(float *x, int n, const RowFacts *facts, RankFn rank,
                                                      bool weighted, double want)
{
    static const int bits[CUT_LEVELS] = { 11, 11, 10 };
    Histogram        h;
    uint32_t         last = 0; /* the key of the last rank that keeps a token */
    double           before = 0;

    for (int level = 0; level < CUT_LEVELS; level++) {
        count_digit(&h, x, n, level, last, facts, rank, weighted);
        const int bin = bin_of(&h, 1 << bits[level], want, &before);
        if (bin < 0)
            return; /* no candidates */
        last = last << bits[level] | (uint32_t)bin;
    }
    for (int b = 0; b < n_blocks(n); b++) {
        float    *block = x + b * BLOCK;
        const int m = n - b * BLOCK < BLOCK ? n - b * BLOCK : BLOCK;
        for (int k = any_candidate(block, m) ? 0 : m; k < m; k++) {
            const uint32_t key = candidate(block[k]) ? float_key(rank(block[k], facts)) : 0;
            const float    w = key == last ? weight(block[k], facts, weighted) : 0;
            if (key < last || (key == last && before >= want))
                block[k] = -INFINITY;
            before += w;
        }
    }
}

/* Removes what is below `least`, and NaN. */
static inline void remove_below(float *x, int n, float least)
{
    for (int k = 0; k < n; k++)
        x[k] = x[k] >= least ? x[k] : -INFINITY;
}

static inline float by_logit(float x, const RowFacts *facts)
{
    (void)facts;
    return x;
}

#endif
