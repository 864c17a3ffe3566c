/* compare.h - how far two results of one node are apart, and how far they may be.
 *
 * Two measures, both of single rows and by the row's root mean square (by the median of all rows where
 * that is more: a first token's values all but cancel): the root mean square of the difference, and the
 * largest difference of an element by that plus its own size, of which MI_ELEMENT times as much is
 * allowed: a single wrong column of thousands shows in the second. */
#ifndef MI_CORE_COMPARE_H
#define MI_CORE_COMPARE_H

#include "side.h"

enum { MI_ELEMENT = 16 };

typedef struct {
    double l2, max_abs, element; /* the largest of all rows */
} MiDifference;

/* got, want: [rows][n]; exact: integers, any difference is infinite.  A row of which one element is cut off
 * (-inf) on one side only is forgiven: where a sampler cuts is a question of one rounding. */
void mi_compare(const float *got, const float *want, int64_t rows, int64_t n, bool exact, MiDifference *);

/* Tokens drawn as the likeliest, [rows], by logits [rows][n] that both sides had: how much less likely the one that
 * was got is, as an element's difference. */
void mi_compare_tokens(const float *got, const float *want, const float *logits, int64_t rows, int64_t n, MiDifference *);

/* The relative L2 difference that one rounding to nearest explains, by half as much again; of f32 what sums in
 * another order and short polynomials for exp and sin do. */
double mi_tolerated(MiDType);

/* What differences may be: a tolerance, and four times what a disturbance of the inputs changes. */
typedef struct {
    double       tolerance;
    MiDifference disturbed;
} MiAllowed;

/* The differences as parts of what is allowed; above 1: too much. */
double mi_compare_worst(const MiDifference *, const MiAllowed *);

#endif
