/* quantize_awq.c - AWQ: the search for scales of inputs, and for the ranges of groups. */
#include "quantize_awq.h"
#include "numbers.h"

#include <math.h>
#include <string.h>

enum {
    STEPS = 20,    /* alpha = 0, 1/20 ... 19/20 */
    SAMPLE = 128,  /* rows or a few more of each matrix, which the error is of */
    WIDE = 128,    /* columns of which the inputs' correlations count where a range is chosen */
    CUTS = 11,     /* ranges: 1, 0.95 ... 0.5 of all of it */
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
        mi_rounding_fit(r, s->grid);
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

/* ---- ranges ------------------------------------------------------------------------ */

typedef struct {
    MiRounding   *r;
    const MiGrid *grid;
    const float  *h; /* [in][WIDE]: row i, the columns of its part of its group */
} Clip;

typedef float Wide __attribute__((vector_size(4 * 16), aligned(4), may_alias));

/* d' h d, h [n][WIDE], d [WIDE] with zeros behind n. */
MI_ON_ANY_MACHINE
static float form(const float *h, const float *d, int64_t n)
{
    Wide  sum[WIDE / 16] = { 0 };
    float all[16], total = 0;

    for (int64_t i = 0; i < n; i++) {
#pragma GCC unroll 8
        for (int k = 0; k < WIDE / 16; k++)
            sum[k] += d[i] * ((const Wide *)(h + i * WIDE))[k];
    }
    Wide y = { 0 };
#pragma GCC unroll 8
    for (int k = 0; k < WIDE / 16; k++)
        y += sum[k] * ((const Wide *)d)[k];
    memcpy(all, &y, sizeof all);
    for (int k = 0; k < 16; k++)
        total += all[k];
    return total;
}

MI_ON_ANY_MACHINE
static void differences(const float *w, int64_t n, float scale, float zero, float top, float *d)
{
    for (int64_t i = 0; i < n; i++) {
        const float code = rintf(w[i] / scale) + zero;
        d[i] = scale * ((code < 0 ? 0 : code > top ? top : code) - zero) - w[i];
    }
}

static void clip_rows(void *user, int part, int n_parts)
{
    const Clip       *x = user;
    const MiRounding *r = x->r;
    const float       top = (float)((1 << x->grid->bits) - 1);

    for (int64_t k = r->out * r->groups * part / n_parts; k < r->out * r->groups * (part + 1) / n_parts; k++) {
        const int64_t first = k % r->groups * r->group, n = MIN(r->group, r->in - first);
        const float  *w = r->w + k / r->groups * r->in + first;
        float         low = 0, high = 0;
        double        best = 0;
        for (int64_t i = 0; i < n; i++) {
            low = MIN(low, w[i]);
            high = MAX(high, w[i]);
        }
        for (int cut = 0; cut < CUTS; cut++) {
            const float part_of = 1 - 0.05f * (float)cut;
            float       scale, d[WIDE];
            uint8_t     zero;
            double      e = 0;
            mi_grid_range(x->grid, low * part_of, high * part_of, &scale, &zero);
            for (int64_t at = 0; at < n; at += WIDE) {
                const int64_t take = MIN(WIDE, n - at);
                differences(w + at, take, scale, zero, top, d);
                memset(d + take, 0, (size_t)(WIDE - take) * sizeof *d);
                e += (double)form(x->h + (first + at) * WIDE, d, take);
            }
            if (cut == 0 || e < best) {
                best = e;
                r->scales[k] = scale;
                r->zeros[k] = zero;
            }
        }
    }
}

bool mi_rounding_clip(MiRounding *r, const MiGrid *grid, const float *hessian)
{
    g_autofree float *h = g_try_new0(float, (gsize)(r->in * WIDE));

    if (!h)
        return false;
    for (int64_t i = 0; i < r->in; i++) {
        const int64_t group = i / r->group * r->group, first = group + (i - group) / WIDE * WIDE;
        const int64_t end = MIN(MIN(first + WIDE, group + r->group), r->in);
        for (int64_t j = first; j < end; j++)
            h[i * WIDE + j - first] = hessian[i * r->in + j] / (r->columns ? r->columns[i] * r->columns[j] : 1);
    }
    mi_on_processors(clip_rows, &(Clip){ r, grid, h });
    return true;
}

/* ---- ranges, one after the other --------------------------------------------------- */

typedef struct {
    MiRounding   *r;
    const MiGrid *grid;
    const float  *h;     /* [in][in] */
    float        *y;     /* [out][in]: d H, d = W' - W as it was */
    float        *d;     /* [in][out], turned */
    float        *moved; /* [columns of the group][out]: by how much d moves */
    int64_t       first, n; /* columns of the group */
} Together;

/* d' h d + 2 y' d, h of rows of `ld`; t [n]. */
MI_ON_ANY_MACHINE
static double more(const float *h, int64_t ld, const float *y, const float *d, int64_t n, float *t)
{
    double sum = 0;

    memset(t, 0, (size_t)n * sizeof *t);
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++)
            t[j] += d[i] * h[i * ld + j];
    for (int64_t i = 0; i < n; i++)
        sum += (double)(t[i] + 2 * y[i]) * (double)d[i];
    return sum;
}

/* W' - W of n columns of row o, as they were before columns and rows were scaled. */
static void differences_as_it_was(const Together *x, int64_t o, int64_t first, int64_t n, float scale, float zero, float *d)
{
    const MiRounding *r = x->r;

    differences(r->w + o * r->in + first, n, scale, zero, (float)((1 << x->grid->bits) - 1), d);
    for (int64_t i = 0; i < n; i++)
        d[i] *= mi_rounding_back(r, o, first + i);
}

static void begin_rows(void *user, int part, int n_parts)
{
    const Together   *x = user;
    const MiRounding *r = x->r;
    g_autofree float *d = g_new(float, r->group);

    for (int64_t o = r->out * part / n_parts; o < r->out * (part + 1) / n_parts; o++)
        for (int64_t g = 0; g < r->groups; g++) {
            const int64_t first = g * r->group, n = MIN(r->group, r->in - first);
            differences_as_it_was(x, o, first, n, r->scales[o * r->groups + g], r->zeros[o * r->groups + g], d);
            for (int64_t i = 0; i < n; i++)
                x->d[(first + i) * r->out + o] = d[i];
        }
}

static void clip_group(void *user, int part, int n_parts)
{
    const Together   *x = user;
    const MiRounding *r = x->r;
    const int64_t     n = x->n;
    g_autofree float *now = g_new(float, n), *step = g_new(float, n), *best_step = g_new(float, n), *t = g_new(float, n);

    for (int64_t o = r->out * part / n_parts; o < r->out * (part + 1) / n_parts; o++) {
        const float  *w = r->w + o * r->in + x->first;
        const int64_t k = o * r->groups + x->first / r->group;
        float         low = 0, high = 0;
        double        best = 0; /* as it is */
        memset(best_step, 0, (size_t)n * sizeof *best_step);
        for (int64_t i = 0; i < n; i++) {
            low = MIN(low, w[i]);
            high = MAX(high, w[i]);
            now[i] = x->d[(x->first + i) * r->out + o];
        }
        for (int cut = 0; cut < CUTS; cut++) {
            const float part_of = 1 - 0.05f * (float)cut;
            float       scale;
            uint8_t     zero;
            mi_grid_range(x->grid, low * part_of, high * part_of, &scale, &zero);
            differences_as_it_was(x, o, x->first, n, scale, zero, step);
            for (int64_t i = 0; i < n; i++)
                step[i] -= now[i];
            const double e = more(x->h + x->first * r->in + x->first, r->in, x->y + o * r->in + x->first, step, n, t);
            if (e < best) {
                best = e;
                r->scales[k] = scale;
                r->zeros[k] = zero;
                memcpy(best_step, step, (size_t)n * sizeof *step);
            }
        }
        for (int64_t i = 0; i < n; i++) {
            x->moved[i * r->out + o] = best_step[i];
            x->d[(x->first + i) * r->out + o] = now[i] + best_step[i];
        }
    }
}

bool mi_rounding_clip_together(MiRounding *r, const MiGrid *grid, const float *hessian)
{
    const gsize       size = (gsize)(r->out * r->in);
    g_autofree float *y = g_try_new0(float, size), *d = g_try_new(float, size);
    g_autofree float *moved = g_try_new(float, (gsize)(r->out * r->group));
    Together          x = { r, grid, hessian, y, d, moved, 0, 0 };

    if (!y || !d || !moved)
        return false;
    mi_on_processors(begin_rows, &x);
    mi_product(&(MiProduct){ .c = y, .ldc = r->in, .a = d, .lda = r->out, .x = hessian, .ldx = r->in, .nt = r->in, .ni = r->out,
                             .nj = r->in, .sign = 1 });
    for (x.first = 0; x.first < r->in; x.first += r->group) {
        x.n = MIN(r->group, r->in - x.first);
        mi_on_processors(clip_group, &x);
        mi_product(&(MiProduct){ .c = y, .ldc = r->in, .a = moved, .lda = r->out, .x = hessian + x.first * r->in, .ldx = r->in,
                                 .nt = x.n, .ni = r->out, .nj = r->in, .sign = 1 });
    }
    return true;
}
