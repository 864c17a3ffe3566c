#include "compare.h"
#include "spread.h"

#include <math.h>
#include <stdlib.h>

static double rms_of(const float *x, int64_t n)
{
    double  squares = 0;
    int64_t finite = 0;

    for (int64_t i = 0; i < n; i++)
        if (isfinite(x[i])) {
            squares += (double)x[i] * (double)x[i];
            finite++;
        }
    return finite ? sqrt(squares / (double)finite) : 0;
}

/* rms: of the row, or of most rows where that is more; got and want are equal where they are no numbers. */
static void compare_row(const float *got, const float *want, int64_t n, double rms, bool exact, MiDifference *d)
{
    double  squares = 0;
    int64_t cut = 0, finite = 0;

    for (int64_t i = 0; i < n; i++) {
        if (got[i] == want[i] && !isfinite(want[i]))
            continue;
        if (isinf(got[i]) != isinf(want[i]) && !isnan(got[i]) && !isnan(want[i])) {
            cut++;
            continue;
        }
        const double diff = fabs((double)got[i] - (double)want[i]);
        finite++;
        squares += diff * diff;
        d->max_abs = diff > d->max_abs || isnan(diff) ? diff : d->max_abs;
        if (diff > 0 && rms > 0)
            d->element = MAX(d->element, diff / (fabs((double)want[i]) + rms));
    }
    const bool nothing = squares <= 0 || (rms <= 0 && d->max_abs < 1e-6);
    if (cut > 1 || (!nothing && (exact || rms <= 0 || !isfinite(squares))))
        d->l2 = d->element = INFINITY;
    else if (!nothing)
        d->l2 = MAX(d->l2, sqrt(squares / (double)finite) / rms);
}

void mi_compare(const float *got, const float *want, int64_t rows, int64_t n, bool exact, MiDifference *d)
{
    g_autofree double *rms = g_new(double, 2 * MAX(rows, 1));
    double            *sorted = rms + rows;

    for (int64_t r = 0; r < rows; r++)
        sorted[r] = rms[r] = rms_of(want + r * n, n);
    qsort(sorted, (size_t)rows, sizeof *sorted, mi_ascending);
    for (int64_t r = 0; r < rows; r++)
        compare_row(got + r * n, want + r * n, n, MAX(rms[r], sorted[rows / 2]), exact, d);
}

void mi_compare_tokens(const float *got, const float *want, const float *logits, int64_t rows, int64_t n, MiDifference *d)
{
    for (int64_t r = 0; r < rows; r++) {
        const float  *row = logits + r * n;
        const int64_t g = (int64_t)got[r], w = (int64_t)want[r];
        if (g == w)
            continue;
        const bool   both = g >= 0 && g < n && w >= 0 && w < n && isfinite(row[g]) && isfinite(row[w]);
        const double gap = both ? fabs((double)row[w] - (double)row[g]) : 0, scale = both ? fabs((double)row[w]) + rms_of(row, n) : 0;
        d->element = MAX(d->element, !both ? INFINITY : gap > 0 ? gap / scale : 0);
    }
}

double mi_tolerated(MiDType t)
{
    switch (t) {
    case MI_BF16: return 1.5 * 0x1p-8;
    case MI_F16: return 1.5 * 0x1p-11;
    case MI_F8: return 1.5 * 0x1p-4;
    case MI_I8: return 1.5 * 0x1p-6; /* of rows whose largest element is four times their root mean square */
    default: return 5e-5;
    }
}

double mi_compare_worst(const MiDifference *d, const MiAllowed *a)
{
    const double l2 = d->l2 / (a->tolerance + 4 * a->disturbed.l2);
    const double element = d->element / (MI_ELEMENT * a->tolerance + 4 * a->disturbed.element);
    const double worst = MAX(l2, element);

    return isnan(l2) || isnan(element) ? INFINITY : worst;
}
