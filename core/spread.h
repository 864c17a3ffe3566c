/* spread.h - how measured values lie. */
#ifndef MI_CORE_SPREAD_H
#define MI_CORE_SPREAD_H

/* For qsort() of doubles. */
int mi_ascending(const void *, const void *);

/* The middle one, or the mean of the two; values: [n], sorted by it; 0 of none. */
double mi_median(double *values, int n);

typedef struct {
    double  mean, p50, p90, p99, most;
    double *sorted; /* [n] the caller's */
    int     n;
} MiSpread;

MiSpread mi_spread_of(double *values, int n); /* sorts them */

#endif
