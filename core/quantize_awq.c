/* quantize_awq.c - AWQ: the search for scales of inputs. */
#include "quantize_awq.h"
#include "numbers.h"

#include <math.h>
#include <string.h>

enum {
    STEPS = 20,    /* alpha = 0, 1/20 ... 19/20 */
    SAMPLE = 128,  /* rows or a few more of each matrix, which the error is of */
};

/* ---- scales ---------------------------------------------------------------------- */

typedef struct {
    MiRounding r;
    float     *w, *d;   /* [in][out]: sampled rows, turned, and what rounding takes from them */
    double     energy; /* |X W'|^2 */
} Sample;

typedef struct {
    const MiFold *f;
    const MiGrid *grid;
    const float  *hessian, *vector;
    Sample       *samples; /* [f->to] */
    double       *x;       /* [n] mean magnitudes */
} Search;

static void free_samples(Search *s)
{
    for (guint k = 0; k < s->f->to->len; k++) {
        mi_rounding_free(&s->samples[k].r);
        g_free(s->samples[k].w);
        g_free(s->samples[k].d);
    }
    g_free(s->samples);
    g_free(s->x);
}

static bool read_samples(Search *s, GError **error)
{
    for (guint k = 0; k < s->f->to->len; k++) {
        const MiWeight *w = s->f->to->pdata[k];
        Sample         *x = &s->samples[k];
        if (!mi_rounding_new(&x->r, w, s->grid, mi_sampled_rows(w->shape[0], SAMPLE), error))
            return false;
        const gsize n = (gsize)(x->r.out * x->r.in);
        x->w = g_try_new(float, n);
        x->d = g_try_new(float, n);
        for (int64_t i = 0; x->w && i < x->r.in; i++)
            for (int64_t o = 0; o < x->r.out; o++)
                x->w[i * x->r.out + o] = x->r.w[o * x->r.in + i];
        x->energy = x->w ? mi_quadratic(s->hessian, x->w, x->r.in, x->r.out) : -1;
        if (!x->d || x->energy < 0) {
            g_set_error(error, MI_ERROR, MI_ERROR_NO_MEMORY, "%s: no memory for awq", w->name);
            return false;
        }
    }
    return true;
}

/* |X (W' - W)'|^2 / |X W'|^2 of each matrix, summed up. */
static double error_with(Search *s, const float *scales)
{
    double sum = 0;

    for (guint k = 0; k < s->f->to->len; k++) {
        Sample     *x = &s->samples[k];
        MiRounding *r = &x->r;
        for (int64_t o = 0; o < r->out; o++)
            for (int64_t i = 0; i < r->in; i++)
                r->w[o * r->in + i] = x->w[i * r->out + o] * scales[mi_fold_scale(s->f, i)];
        mi_rounding_fit(r, s->grid, true);
        mi_round_nearest(r, s->grid);
        for (int64_t i = 0; i < r->in; i++)
            for (int64_t o = 0; o < r->out; o++) {
                const int64_t g = o * r->groups + i / r->group;
                x->d[i * r->out + o] = r->scales[g] * (float)((int)r->codes[o * r->in + i] - (int)r->zeros[g]) /
                                           scales[mi_fold_scale(s->f, i)] - x->w[i * r->out + o];
            }
        const double off = mi_quadratic(s->hessian, x->d, r->in, r->out);
        if (off < 0)
            return -1;
        sum += x->energy > 0 ? off / x->energy : 0;
    }
    return sum;
}

/* magnitude^alpha, the largest and the least as far from 1. */
static void scales_of(const Search *s, double alpha, float *scales)
{
    double most = 0, least = G_MAXDOUBLE;

    for (int64_t c = 0; c < s->f->n; c++) {
        most = MAX(most, s->x[c]);
        least = MIN(least, s->x[c]);
    }
    const double middle = sqrt(most) * sqrt(least);
    for (int64_t c = 0; c < s->f->n; c++) {
        float scale = (float)CLAMP(pow(s->x[c] / middle, alpha), 0x1p-10, 0x1p10);
        if (s->vector) {
            const float stored = mi_number_as(MI_BF16, s->vector[c] / scale);
            const float moved = s->vector[c] / stored;
            scale = isfinite(moved) && fabsf(moved - scale) <= scale / 128 ? moved : scale;
        }
        scales[c] = scale;
    }
}

bool mi_fold_search(const MiFold *f, const MiGrid *grid, const float *hessian, const float *magnitudes, const float *vector,
                    float *scales, double *alpha, GError **error)
{
    Search            s = { f, grid, hessian, vector, g_new0(Sample, f->to->len), g_try_new0(double, (gsize)f->n) };
    g_autofree float *candidate = g_try_new(float, (gsize)f->n);
    double            best = -1, mean = 0;
    bool              ok = s.x && candidate;

    if (!ok)
        g_set_error(error, MI_ERROR, MI_ERROR_NO_MEMORY, "%s: no memory for awq", f->from->name);
    ok = ok && read_samples(&s, error);
    for (int64_t i = 0; ok && i < f->n * f->repeat; i++) {
        s.x[mi_fold_scale(f, i)] += (double)magnitudes[i];
        mean += (double)magnitudes[i] / (double)f->n;
    }
    for (int64_t c = 0; ok && c < f->n; c++) /* what is never there has no scale to be found */
        s.x[c] = mean > 0 ? MAX(s.x[c], 1e-4 * mean) : 1;
    for (int step = 0; ok && step < STEPS; step++) {
        if (step)
            scales_of(&s, (double)step / STEPS, candidate);
        else
            for (int64_t c = 0; c < f->n; c++)
                candidate[c] = 1;
        const double e = error_with(&s, candidate);
        if (e < 0) {
            g_set_error(error, MI_ERROR, MI_ERROR_NO_MEMORY, "%s: no memory for awq", f->from->name);
            ok = false;
        } else if (step == 0 || e < best) {
            best = e;
            *alpha = (double)step / STEPS;
            memcpy(scales, candidate, (size_t)f->n * sizeof *scales);
        }
    }
    free_samples(&s);
    return ok;
}
