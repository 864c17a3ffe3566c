#include "spread.h"

#include <stdlib.h>

int mi_ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double mi_median(double *values, int n)
{
    qsort(values, (size_t)n, sizeof *values, mi_ascending);
    return !n ? 0 : n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

MiSpread mi_spread_of(double *values, int n)
{
    MiSpread s = { .sorted = values, .n = n };

    if (!n)
        return s;
    qsort(values, (size_t)n, sizeof *values, mi_ascending);
    for (int i = 0; i < n; i++)
        s.mean += values[i] / n;
    s.p50 = values[(n - 1) / 2];
    s.p90 = values[(int)((n - 1) * 0.9)];
    s.p99 = values[(int)((n - 1) * 0.99)];
    s.most = values[n - 1];
    return s;
}
