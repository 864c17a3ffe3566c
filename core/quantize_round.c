/* quantize_round.c - matrices rounded to a grid, nearest or by GPTQ. */
#include "quantize.h"
#include "numbers.h"

#include <math.h>
#include <string.h>

enum { BLOCK = 128 /* columns whose errors are made up for together behind them */ };

/* Of its size, what is its own. */
static bool allocate(MiRounding *r)
{
    const gsize n = (gsize)r->out * (gsize)r->in, groups = (gsize)r->out * (gsize)r->groups;

    r->w = g_try_new(float, n);
    r->codes = g_try_new(uint8_t, n);
    r->scales = g_try_new(float, groups);
    r->zeros = g_try_new(uint8_t, groups);
    return r->w && r->codes && r->scales && r->zeros;
}

bool mi_rounding_new(MiRounding *r, const MiWeight *w, const MiGrid *grid, int64_t step, GError **error)
{
    const int64_t out = (w->shape[0] + step - 1) / step, in = w->shape[1], group = grid->group ? MIN(grid->group, in) : in;
    const int64_t n_groups = (in + group - 1) / group, chunk = step == 1 ? out * in : in;
    const gsize   n = (gsize)out * (gsize)in;

    *r = (MiRounding){ .out = out, .in = in, .group = group, .groups = n_groups, .e4m3 = grid->e4m3 };
    if (!allocate(r)) {
        g_set_error(error, MI_ERROR, MI_ERROR_NO_MEMORY, "%s: no memory for it as f32", w->name);
        mi_rounding_free(r);
        return false;
    }
    bool ok = true;
    for (int64_t at = 0; ok && at < (int64_t)n; at += chunk)
        ok = w->source->vt->decode(w->source->self, w, at * step, chunk, r->w + at, error);
    if (ok) {
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

/* A scale in f16, which is never 0 nor infinite. */
static float as_scale(float x)
{
    const float half = mi_number_as(MI_F16, x);
    return copysignf(CLAMP(fabsf(half), 0x1p-24f, 65504), x);
}

void mi_grid_range(const MiGrid *grid, float low, float high, float *scale, uint8_t *zero)
{
    const float top = (float)((1 << grid->bits) - 1), half = (float)(1 << (grid->bits - 1));

    *scale = as_scale(grid->symmetric ? MAX(high / (half - 1), -low / half) : (high - low) / top);
    *zero = (uint8_t)(grid->symmetric ? half : CLAMP(rintf(-low / *scale), 0, top));
}

typedef struct {
    MiRounding   *r;
    const MiGrid *grid;
    bool          weighted;
} Rows;

/* Groups by number, those of a row one after the other: where the k-th begins in w, and how many columns it has. */
static int64_t group_begin(const MiRounding *r, int64_t k) { return k / r->groups * r->in + k % r->groups * r->group; }
static int64_t group_columns(const MiRounding *r, int64_t k) { return MIN(r->group, r->in - k % r->groups * r->group); }

static void scale_rows(void *user, int part, int n_parts)
{
    const MiRounding *r = user;

    for (int64_t o = r->out * part / n_parts; o < r->out * (part + 1) / n_parts; o++)
        for (int64_t i = 0; i < r->in; i++)
            r->w[o * r->in + i] *= (r->columns ? r->columns[i] : 1) / (r->rows ? r->rows[o] : 1);
}

void mi_rounding_scale(MiRounding *r, const float *columns, const float *rows)
{
    r->columns = columns;
    r->rows = rows;
    if (columns || rows)
        mi_on_processors(scale_rows, r);
}

enum { RANGES = 8 };

/* Weighted by w^2 + floor, q being w's codes less the zero: sums of q^2 and w q. */
typedef struct { float qq, wq; } Moments;

MI_ON_ANY_MACHINE
static Moments moments(const float *w, int64_t n, float floor, float scale, float zero, float top)
{
    Moments m = { 0 };

    for (int64_t i = 0; i < n; i++) {
        const float code = rintf(w[i] / scale) + zero, q = (code < 0 ? 0 : code > top ? top : code) - zero;
        const float weighted = (w[i] * w[i] + floor) * q;
        m.qq += weighted * q;
        m.wq += weighted * w[i];
    }
    return m;
}

/* With the scale by least squares, wq / qq, wq^2 / qq is what the error is less than w's own squares.  Symmetric codes reach one
 * further down than up: a scale below 0 turns that round. */
static void fit_weighted(const MiGrid *grid, const float *w, int64_t n, float low, float high, float *scale, uint8_t *zero)
{
    const float top = (float)((1 << grid->bits) - 1), sign = grid->symmetric && high > -low ? -1 : 1;
    float       floor = 0, most = 0;

    mi_grid_range(grid, low, high, scale, zero);
    for (int64_t i = 0; i < n; i++)
        floor += w[i] * w[i] / (float)n;
    for (int k = 0; k < RANGES; k++) {
        const float   part = 1 - 0.05f * (float)k;
        float         s;
        uint8_t       z;
        mi_grid_range(grid, (sign > 0 ? low : -high) * part, (sign > 0 ? high : -low) * part, &s, &z);
        const Moments m = moments(w, n, floor, sign * s, (float)z, top);
        if (m.qq > 0 && m.wq / m.qq * m.wq > most) {
            most = m.wq / m.qq * m.wq;
            *scale = as_scale(m.wq / m.qq);
            *zero = z;
        }
    }
}

static void fit_rows(void *user, int part, int n_parts)
{
    const Rows       *x = user;
    const MiRounding *r = x->r;

    for (int64_t k = r->out * r->groups * part / n_parts; k < r->out * r->groups * (part + 1) / n_parts; k++) {
        const float *w = r->w + group_begin(r, k);
        float        low = 0, high = 0;
        for (int64_t i = 0; i < group_columns(r, k); i++) {
            low = MIN(low, w[i]);
            high = MAX(high, w[i]);
        }
        if (r->e4m3)
            r->scales[k] = mi_scale_for(MI_F8, MAX(high, -low)), r->zeros[k] = 0;
        else if (x->weighted)
            fit_weighted(x->grid, w, group_columns(r, k), low, high, &r->scales[k], &r->zeros[k]);
        else
            mi_grid_range(x->grid, low, high, &r->scales[k], &r->zeros[k]);
    }
}

void mi_rounding_fit(MiRounding *r, const MiGrid *grid, bool weighted) { mi_on_processors(fit_rows, &(Rows){ r, grid, weighted }); }

static void nearest_numbers(const float *w, int64_t n, float scale, uint8_t *codes)
{
    for (int64_t i = 0; i < n; i++)
        codes[i] = mi_number_to_f8(w[i] / scale);
}

MI_ON_ANY_MACHINE
static void nearest_codes(const float *w, int64_t n, float scale, float zero, float top, uint8_t *codes)
{
    for (int64_t i = 0; i < n; i++) {
        const float code = rintf(w[i] / scale) + zero;
        codes[i] = (uint8_t)(int)(code < 0 ? 0 : code > top ? top : code);
    }
}

static void round_rows(void *user, int part, int n_parts)
{
    const Rows       *x = user;
    const MiRounding *r = x->r;
    const float       top = (float)((1 << x->grid->bits) - 1);

    for (int64_t k = r->out * r->groups * part / n_parts; k < r->out * r->groups * (part + 1) / n_parts; k++)
        if (r->e4m3)
            nearest_numbers(r->w + group_begin(r, k), group_columns(r, k), r->scales[k], r->codes + group_begin(r, k));
        else
            nearest_codes(r->w + group_begin(r, k), group_columns(r, k), r->scales[k], r->zeros[k], top,
                          r->codes + group_begin(r, k));
}

void mi_round_nearest(MiRounding *r, const MiGrid *grid) { mi_on_processors(round_rows, &(Rows){ r, grid, false }); }

static uint8_t code_of(const MiGrid *grid, float w, float scale, uint8_t zero)
{
    if (grid->e4m3)
        return mi_number_to_f8(w / scale);
    return (uint8_t)CLAMP(rintf(w / scale) + (float)zero, 0, (float)((1 << grid->bits) - 1));
}

static float value_of(const MiRounding *r, uint8_t code, int64_t group)
{
    return r->scales[group] * (r->e4m3 ? mi_number_from_f8(code) : (float)((int)code - (int)r->zeros[group]));
}

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

    for (int64_t o = r->out * part / n_parts; o < r->out * (part + 1) / n_parts; o++) {
        float *w = x->w + o * r->in;
        for (int64_t k = x->first; k < x->first + x->n; k++) {
            const float  *u = x->u + k * r->in;
            const int64_t at = x->order[k], g = o * r->groups + at / r->group;
            const uint8_t code = code_of(x->grid, w[k], r->scales[g], r->zeros[g]);
            const float   e = (w[k] - value_of(r, code, g)) / u[k];

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

/* h in the order of its diagonal, with `damp` of its mean added, as u; columns that no input reaches stand alone. */
static bool factor(const float *h, int64_t n, double damp, float *u, int32_t *order)
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
    for (int64_t i = 0; i < n; i++) {
        order[i] = keys[i].column;
        for (int64_t j = i; j < n; j++)
            u[i * n + j] = h[keys[i].column * n + keys[j].column];
        u[i * n + i] += (float)(damp * mean) + (keys[i].key == 0 ? 1 : 0);
    }
    return mi_inverse_factor(u, n);
}

/* u and the order of its columns as factor() has them. */
static bool round_with(MiRounding *r, const MiGrid *grid, const float *u, const int32_t *order)
{
    const int64_t     in = r->in, out = r->out;
    g_autofree float *w = g_try_new(float, (gsize)out * (gsize)in), *error = g_try_new(float, (gsize)BLOCK * (gsize)out);
    Gptq              x = { r, grid, u, w, error, order, 0, 0 };

    if (!w || !error)
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

enum { SAMPLE = 64 /* rows or a few more, whose outputs are looked at */ };

/* Each step-th row, not yet rounded. */
static bool sampled(const MiRounding *r, MiRounding *out)
{
    const int64_t step = mi_sampled_rows(r->out, SAMPLE), rows = (r->out + step - 1) / step;

    *out = *r;
    out->out = rows;
    if (!allocate(out))
        return false;
    for (int64_t o = 0; o < rows; o++) {
        memcpy(out->w + o * r->in, r->w + o * step * r->in, (size_t)r->in * sizeof *r->w);
        memcpy(out->scales + o * r->groups, r->scales + o * step * r->groups, (size_t)r->groups * sizeof *r->scales);
        memcpy(out->zeros + o * r->groups, r->zeros + o * step * r->groups, (size_t)r->groups);
    }
    return true;
}

bool mi_round_gptq(MiRounding *r, const MiGrid *grid, const MiInputs *x)
{
    static const double dampings[] = { 0.01, 0.1, 1 };
    const gsize         size = (gsize)r->in * (gsize)r->in;
    g_autofree float   *u = g_try_new(float, size), *best_u = x->rows ? g_try_new(float, size) : NULL;
    g_autofree int32_t *order = g_try_new(int32_t, (gsize)r->in);
    MiRounding          some = { 0 };
    double              best = -1;
    bool                ok = u && order && (!x->rows || (best_u && sampled(r, &some)));

    for (size_t i = 0; ok && i < G_N_ELEMENTS(dampings); i++) {
        if (!factor(x->sums, r->in, dampings[i], u, order))
            continue;
        if (!x->rows)
            return round_with(r, grid, u, order);
        const double e = round_with(&some, grid, u, order) ? mi_rounding_error(&some, x).outputs : -1;
        if (e >= 0 && (best < 0 || e < best)) {
            float *const worse = best_u;
            best_u = u;
            u = worse;
            best = e;
        }
    }
    mi_rounding_free(&some);
    return best >= 0 && round_with(r, grid, best_u, order);
}

/* ---- level -------------------------------------------------------------------------- */

typedef struct {
    MiRounding  *r;
    float       *y; /* [out][in]: w H */
} Level;

static void level_rows(void *user, int part, int n_parts)
{
    const Level      *x = user;
    const MiRounding *r = x->r;

    for (int64_t o = r->out * part / n_parts; o < r->out * (part + 1) / n_parts; o++) {
        double same = 0, all = 0;
        for (int64_t i = 0; i < r->in; i++) {
            const double y = (double)x->y[o * r->in + i] * (double)mi_rounding_back(r, o, i);
            same += y * (double)value_of(r, r->codes[o * r->in + i], o * r->groups + i / r->group);
            all += y * (double)r->w[o * r->in + i];
        }
        if (same > all / 2 && same < all * 2) /* else there is nothing that it could be made level with */
            for (int64_t g = o * r->groups; g < (o + 1) * r->groups; g++)
                r->scales[g] = as_scale(r->scales[g] * (float)(all / same));
    }
}

bool mi_rounding_level(MiRounding *r, const float *sums)
{
    g_autofree float *w = g_try_new(float, (gsize)(r->out * r->in)); /* turned */
    Level             x = { r, g_try_new0(float, (gsize)(r->out * r->in)) };
    const bool        ok = w && x.y;

    for (int64_t o = 0; ok && o < r->out; o++)
        for (int64_t i = 0; i < r->in; i++)
            w[i * r->out + o] = r->w[o * r->in + i] * mi_rounding_back(r, o, i);
    if (ok) {
        mi_product(&(MiProduct){ .c = x.y, .ldc = r->in, .a = w, .lda = r->out, .x = sums, .ldx = r->in, .nt = r->in, .ni = r->out,
                                 .nj = r->in, .sign = 1 });
        mi_on_processors(level_rows, &x);
    }
    g_free(x.y);
    return ok;
}

/* ---- how good it is ----------------------------------------------------------------- */

typedef struct {
    const MiRounding *r;
    int64_t           step, sampled;
    float            *off, *w;  /* [in][sampled] of those rows, or NULL */
    double           *sums; /* [parts][2]: of differences, of weights */
} Errors;

/* Of the matrix as it was. */
static void error_rows(void *user, int part, int n_parts)
{
    const Errors     *x = user;
    const MiRounding *r = x->r;
    double           *sums = x->sums + 2 * part;

    for (int64_t o = part; o < r->out; o += n_parts)
        for (int64_t i = 0; i < r->in; i++) {
            const int64_t g = o * r->groups + i / r->group, at = i * x->sampled + o / x->step;
            const float   back = mi_rounding_back(r, o, i), w = r->w[o * r->in + i];
            const float   d = (value_of(r, r->codes[o * r->in + i], g) - w) * back;
            sums[0] += (double)d * (double)d;
            sums[1] += (double)(w * back) * (double)(w * back);
            if (x->off && o % x->step == 0) {
                x->off[at] = d;
                x->w[at] = w * back;
            }
        }
}

/* |X d|^2, d [in][rows], turned; < 0: no memory. */
static double energy(const MiInputs *x, const float *d, int64_t rows)
{
    g_autofree float *y = NULL; /* [rows][held] */
    double            sum = 0;

    if (!x->rows)
        return mi_quadratic(x->sums, d, x->n, rows);
    if (!(y = g_try_new0(float, (gsize)(rows * x->rows))))
        return -1;
    mi_product(&(MiProduct){ .c = y, .ldc = x->rows, .a = d, .lda = rows, .x = x->held, .ldx = x->rows, .nt = x->n, .ni = rows,
                             .nj = x->rows, .sign = 1 });
    for (int64_t i = 0; i < rows * x->rows; i++)
        sum += (double)y[i] * (double)y[i];
    return sum;
}

MiRoundingError mi_rounding_error(const MiRounding *r, const MiInputs *x)
{
    const guint        parts = MAX(g_get_num_processors(), 1);
    const int64_t      step = mi_sampled_rows(r->out, SAMPLE), sampled = (r->out + step - 1) / step;
    g_autofree double *sums = g_new0(double, 2 * parts);
    g_autofree float  *off = x ? g_try_new(float, (gsize)(r->in * sampled)) : NULL;
    g_autofree float  *w = x ? g_try_new(float, (gsize)(r->in * sampled)) : NULL;
    double             s[2] = { 0 };

    if (!off || !w)
        x = NULL;
    mi_on_processors(error_rows, &(Errors){ r, step, sampled, x ? off : NULL, w, sums });
    for (guint i = 0; i < 2 * parts; i++)
        s[i % 2] += sums[i];
    MiRoundingError e = { s[1] > 0 ? sqrt(s[0] / s[1]) : 0, -1, -1 };
    if (x) {
        const double of = energy(x, w, sampled), d = energy(x, off, sampled);
        e.outputs = of > 0 ? sqrt(MAX(d, 0) / of) : of < 0 ? -1 : 0;
    }
    return e;
}
