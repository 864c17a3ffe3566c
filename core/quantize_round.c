/* quantize_round.c - matrices rounded to a grid, nearest or by GPTQ. */
#include "quantize.h"
#include "numbers.h"

#include <math.h>
#include <string.h>

enum { BLOCK = 128 /* columns whose errors are made up for together behind them */ };

bool mi_rounding_new(MiRounding *r, const MiWeight *w, const MiGrid *grid, GError **error)
{
    const int64_t out = w->shape[0], in = w->shape[1], group = grid->group ? grid->group : in;
    const gsize   n = (gsize)out * (gsize)in, groups = (gsize)out * (gsize)(in / group);

    *r = (MiRounding){ out, in, in / group, g_try_new(float, n), g_try_new(uint8_t, n), g_try_new(float, groups),
                       g_try_new(uint8_t, groups) };
    if (!r->w || !r->codes || !r->scales || !r->zeros) {
        g_set_error(error, MI_ERROR, MI_ERROR_NO_MEMORY, "%s: no memory for it as f32", w->name);
        mi_rounding_free(r);
        return false;
    }
    if (w->source->vt->decode(w->source->self, w, 0, (int64_t)n, r->w, error)) {
        gsize i = 0;
        while (i < n && isfinite(r->w[i]) && fabsf(r->w[i]) < 65504)
            i++;
        if (i == n)
            return true;
        g_set_error(error, MI_ERROR, MI_ERROR_MODEL, "%s holds %g, which cannot be rounded", w->name, (double)r->w[i]);
    }
    mi_rounding_free(r);
    return false;
}

void mi_rounding_free(MiRounding *r)
{
    g_free(r->w);
    g_free(r->codes);
    g_free(r->scales);
    g_free(r->zeros);
    *r = (MiRounding){ 0 };
}

/* ---- the grid ----------------------------------------------------------------- */

static float as_half(float x) { return mi_number_as(MI_F16, x); }

static void fit(const MiGrid *grid, const float *w, int64_t n, float *scale, uint8_t *zero)
{
    const float top = (float)((1 << grid->bits) - 1), half = (float)(1 << (grid->bits - 1));
    float       low = 0, high = 0;

    for (int64_t i = 0; i < n; i++) {
        low = MIN(low, w[i]);
        high = MAX(high, w[i]);
    }
    *scale = as_half(grid->symmetric ? MAX(high / (half - 1), -low / half) : (high - low) / top);
    if (*scale < 0x1p-24f) /* nothing there, or less than f16 has */
        *scale = 0x1p-24f;
    *zero = (uint8_t)(grid->symmetric ? half : CLAMP(rintf(-low / *scale), 0, top));
}

static uint8_t code_of(const MiGrid *grid, float w, float scale, uint8_t zero)
{
    return (uint8_t)CLAMP(rintf(w / scale) + (float)zero, 0, (float)((1 << grid->bits) - 1));
}

static float value_of(uint8_t code, float scale, uint8_t zero) { return scale * (float)((int)code - (int)zero); }

typedef struct {
    MiRounding   *r;
    const MiGrid *grid;
} Rows;

static void fit_rows(void *user, int part, int n_parts)
{
    const Rows       *x = user;
    const MiRounding *r = x->r;
    const int64_t     group = r->in / r->groups;

    for (int64_t k = r->out * r->groups * part / n_parts; k < r->out * r->groups * (part + 1) / n_parts; k++)
        fit(x->grid, r->w + k * group, group, &r->scales[k], &r->zeros[k]);
}

void mi_rounding_fit(MiRounding *r, const MiGrid *grid) { mi_on_processors(fit_rows, &(Rows){ r, grid }); }

static void round_rows(void *user, int part, int n_parts)
{
    const Rows       *x = user;
    const MiRounding *r = x->r;
    const int64_t     group = r->in / r->groups;

    for (int64_t k = r->out * r->groups * part / n_parts; k < r->out * r->groups * (part + 1) / n_parts; k++)
        for (int64_t i = k * group; i < (k + 1) * group; i++)
            r->codes[i] = code_of(x->grid, r->w[i], r->scales[k], r->zeros[k]);
}

void mi_round_nearest(MiRounding *r, const MiGrid *grid) { mi_on_processors(round_rows, &(Rows){ r, grid }); }

/* ---- GPTQ ------------------------------------------------------------------------ */

typedef struct {
    MiRounding    *r;
    const MiGrid  *grid;
    const float   *u;     /* [in][in] */
    float         *w;     /* [out][in] in the order of `order` */
    float         *error; /* [BLOCK][out] */
    const int32_t *order; /* [in] */
    int64_t        first, n; /* columns of this block */
} Gptq;

/* The columns of a block, each row by itself. */
static void round_block(void *user, int part, int n_parts)
{
    const Gptq       *x = user;
    const MiRounding *r = x->r;
    const int64_t     group = r->in / r->groups;

    for (int64_t o = r->out * part / n_parts; o < r->out * (part + 1) / n_parts; o++) {
        float *w = x->w + o * r->in;
        for (int64_t k = x->first; k < x->first + x->n; k++) {
            const float  *u = x->u + k * r->in;
            const int64_t at = x->order[k], g = o * r->groups + at / group;
            const uint8_t code = code_of(x->grid, w[k], r->scales[g], r->zeros[g]);
            const float   e = (w[k] - value_of(code, r->scales[g], r->zeros[g])) / u[k];

            r->codes[o * r->in + at] = code;
            x->error[(k - x->first) * r->out + o] = e;
            for (int64_t i = k + 1; i < x->first + x->n; i++)
                w[i] -= e * u[i];
        }
    }
}

typedef struct { float key; int32_t column; } Key;

static int largest_first(const void *a, const void *b)
{
    const Key *x = a, *y = b;
    return x->key != y->key ? (x->key < y->key) - (x->key > y->key) : x->column - y->column;
}

/* h in the order of its diagonal, dampened, as u; columns that no input reaches stand alone. */
static bool factor(const float *h, int64_t n, float *u, int32_t *order)
{
    g_autofree Key *keys = g_try_new(Key, (gsize)n);
    double          mean = 0;

    if (!keys)
        return false;
    for (int64_t i = 0; i < n; i++) {
        keys[i] = (Key){ h[i * n + i], (int32_t)i };
        mean += (double)h[i * n + i] / (double)n;
    }
    qsort(keys, (size_t)n, sizeof *keys, largest_first);
    for (double damp = 0.01; damp < 1.5; damp *= 10) {
        for (int64_t i = 0; i < n; i++) {
            order[i] = keys[i].column;
            for (int64_t j = i; j < n; j++) {
                const int64_t a = MIN(keys[i].column, keys[j].column), b = MAX(keys[i].column, keys[j].column);
                u[i * n + j] = h[a * n + b];
            }
            u[i * n + i] += (float)(damp * mean) + (keys[i].key == 0 ? 1 : 0);
        }
        if (mi_inverse_factor(u, n))
            return true;
    }
    return false;
}

bool mi_round_gptq(MiRounding *r, const MiGrid *grid, const float *hessian)
{
    const int64_t       in = r->in, out = r->out;
    g_autofree float   *u = g_try_new(float, (gsize)in * (gsize)in), *w = g_try_new(float, (gsize)out * (gsize)in);
    g_autofree float   *error = g_try_new(float, (gsize)BLOCK * (gsize)out);
    g_autofree int32_t *order = g_try_new(int32_t, (gsize)in);
    Gptq                x = { r, grid, u, w, error, order, 0, 0 };

    if (!u || !w || !error || !order || !factor(hessian, in, u, order))
        return false;
    for (int64_t o = 0; o < out; o++)
        for (int64_t k = 0; k < in; k++)
            w[o * in + k] = r->w[o * in + order[k]];
    for (x.first = 0; x.first < in; x.first += BLOCK) {
        x.n = MIN(BLOCK, in - x.first);
        mi_on_processors(round_block, &x);
        const int64_t behind = x.first + x.n;
        mi_product(&(MiProduct){ .c = w + behind, .ldc = in, .a = error, .lda = out, .x = u + x.first * in + behind, .ldx = in,
                                 .nt = x.n, .ni = out, .nj = in - behind, .sign = -1 });
    }
    return true;
}

/* ---- how good it is ----------------------------------------------------------------- */

typedef struct {
    const MiRounding *r;
    const float      *hessian;
    double           *sums; /* [parts][4]: of differences, of weights; the same of outputs */
} Errors;

/* d' H d, H's upper triangle. */
static double form(const float *h, const float *d, int64_t n)
{
    double sum = 0;

    for (int64_t i = 0; i < n; i++) {
        double row = 0;
        for (int64_t j = i + 1; j < n; j++)
            row += (double)(h[i * n + j] * d[j]);
        sum += (double)d[i] * (2 * row + (double)h[i * n + i] * (double)d[i]);
    }
    return sum;
}

static void error_rows(void *user, int part, int n_parts)
{
    const Errors     *x = user;
    const MiRounding *r = x->r;
    const int64_t     group = r->in / r->groups;
    /* Of the outputs 64 rows tell enough: each costs in^2. */
    const int64_t     step = MAX(1, r->out / 64);
    g_autofree float *d = g_try_new(float, (gsize)r->in);
    double           *sums = x->sums + 4 * part;

    for (int64_t o = part; d && o < r->out; o += n_parts) {
        const float *w = r->w + o * r->in;
        for (int64_t i = 0; i < r->in; i++) {
            const int64_t g = o * r->groups + i / group;
            d[i] = value_of(r->codes[o * r->in + i], r->scales[g], r->zeros[g]) - w[i];
            sums[0] += (double)d[i] * (double)d[i];
            sums[1] += (double)w[i] * (double)w[i];
        }
        if (x->hessian && o % step == 0) {
            sums[2] += form(x->hessian, d, r->in);
            sums[3] += form(x->hessian, w, r->in);
        }
    }
}

MiRoundingError mi_rounding_error(const MiRounding *r, const float *hessian)
{
    g_autofree double *sums = g_new0(double, 4 * MAX(g_get_num_processors(), 1));
    double             s[4] = { 0 };

    mi_on_processors(error_rows, &(Errors){ r, hessian, sums });
    for (guint i = 0; i < 4 * MAX(g_get_num_processors(), 1); i++)
        s[i % 4] += sums[i];
    return (MiRoundingError){ s[1] > 0 ? sqrt(s[0] / s[1]) : 0, !hessian ? -1 : s[3] > 0 ? sqrt(MAX(s[2], 0) / s[3]) : 0 };
}
