/* cut.h - the best candidates that together reach a mass, without sorting.
 *
 * A link says how tokens rank and what each weighs.  Kept are those before
 * which less than `want` was gathered, walking from the best rank down and
 * through equal ranks by id: the smallest set that reaches `want`, at least
 * one token.  Top-k weighs every token 1.
 *
 * The last rank is found digit by digit, as a radix sort would, but only the
 * one bin that it lies in is looked at again: three passes, on the stack,
 * linear whatever the logits are. */
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

/* One digit of the keys that begin with `prefix`. */
static inline __attribute__((always_inline)) void count_digit(Histogram *h, const float *x, int n, int level,
                                                              uint32_t prefix, const RowFacts *facts, RankFn rank,
                                                              bool weighted)
{
    static const int shift[CUT_LEVELS + 1] = { 32, 21, 10, 0 };
    const int        above = shift[level], below = shift[level + 1];
    const uint32_t   digit = (1u << (above - below)) - 1;
    float            w[BLOCK];

    memset(h, 0, sizeof *h);
    for (int b = 0; b < n_blocks(n); b++) {
        const int m = n - b * BLOCK < BLOCK ? n - b * BLOCK : BLOCK;
        if (weighted)
            block_weights(x, n, b, facts->max, w);
        for (int k = 0; k < m; k++) {
            const float    v = x[b * BLOCK + k];
            const uint32_t key = candidate(v) ? float_key(rank(v, facts)) : 0;
            const uint32_t bin = key >> below & digit;
            if (!candidate(v) || (level && key >> above != prefix))
                continue;
            h->mass[bin] += weighted ? w[k] : 1;
            h->any[bin] = 1;
        }
    }
}

/* Removes all but the best that reach `want` > 0 in units of the weights. */
static inline __attribute__((always_inline)) void cut(float *x, int n, const RowFacts *facts, RankFn rank,
                                                      bool weighted, double want)
{
    static const int bits[CUT_LEVELS] = { 11, 11, 10 };
    Histogram        h;
    uint32_t         last = 0; /* the key of the last rank that keeps a token */
    double           before = 0;
    float            w[BLOCK];

    for (int level = 0; level < CUT_LEVELS; level++) {
        int bin = -1;
        count_digit(&h, x, n, level, last, facts, rank, weighted);
        for (int b = (1 << bits[level]) - 1; b >= 0; b--) {
            if (!h.any[b])
                continue;
            if (bin >= 0)
                before += h.mass[bin];
            bin = b;
            if (before + h.mass[b] >= want)
                break;
        }
        if (bin < 0)
            return; /* no candidates */
        last = last << bits[level] | (uint32_t)bin;
    }
    for (int b = 0; b < n_blocks(n); b++) {
        const int m = n - b * BLOCK < BLOCK ? n - b * BLOCK : BLOCK;
        if (weighted)
            block_weights(x, n, b, facts->max, w);
        for (int k = 0; k < m; k++) {
            float         *v = &x[b * BLOCK + k];
            const uint32_t key = candidate(*v) ? float_key(rank(*v, facts)) : 0;
            const bool     tie = key == last && candidate(*v);
            if (key < last || (tie && before >= want))
                *v = -INFINITY;
            if (tie)
                before += weighted ? w[k] : 1;
        }
    }
}

static inline float by_logit(float x, const RowFacts *facts)
{
    (void)facts;
    return x;
}

#endif
