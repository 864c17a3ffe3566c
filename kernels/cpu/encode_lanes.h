/* encode_lanes.h - encode.h with 16 floats as one value.  Included once by each
 * file that is compiled for an instruction set; before it: ENCODE, its function. */
#include <cpu/blocks.h>
#include <cpu/encode.h>
#include <math.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
typedef float   V __attribute__((vector_size(64)));
typedef int32_t VI __attribute__((vector_size(64)));

#define LOAD(v, p) memcpy(&(v), p, sizeof(V)) /* no V is passed by value: without AVX-512 that has no ABI */
#define CHOOSE(mask, a, b) ((V)(((VI)(a) & (mask)) | ((VI)(b) & ~(mask))))
#define MAGIC 12582912.0f /* 1.5 2^23: adding it rounds to the nearest integer, ties to even */

/* Values d times the integers [low, high]: zero is one of them, since weights that are nearly zero belong to the
 * largest inputs, and half a step more of them is what ruins a model. */
typedef struct { float d, low, high; } Grid;

static float one_over(float d) { return fabsf(d) > 1e-37f ? 1 / d : 0; }

static float sum_of(const V *v)
{
    float x[16];
    memcpy(x, v, sizeof x);
    for (int n = 8; n > 0; n /= 2)
        for (int i = 0; i < n; i++)
            x[i] += x[i + n];
    return x[0];
}

/* The integers next to w / d, within the grid, as floats. */
#define ROUND(q, w, g, by)                                         \
    V q = (w) * (by);                                              \
    q = CHOOSE(q < (g)->low, (V){ 0 } + (g)->low, q);              \
    q = CHOOSE(q > (g)->high, (V){ 0 } + (g)->high, q);            \
    q = (q + MAGIC) - MAGIC;

/* What is known of w before; its errors count by floor + w^2, floor being the mean of w^2. */
typedef struct { float low, high, floor; bool finite; } Group;

typedef struct { float qq, wq; } Moments; /* weighted sums of q^2, w q */

static Moments moments(const float *w, int64_t n, const Group *u, const Grid *g)
{
    const float by = one_over(g->d);
    V           sqq = { 0 }, swq = { 0 }, v;

    for (int64_t i = 0; i < n; i += 16) {
        LOAD(v, w + i);
        ROUND(q, v, g, by)
        const V oq = (v * v + u->floor) * q;
        sqq += oq * q;
        swq += oq * v;
    }
    return (Moments){ sum_of(&sqq), sum_of(&swq) };
}

/* Weighted sum of (w - d q)^2; q in levels to `to` unless that is NULL. */
static float error_of(const float *w, int64_t n, const Group *u, const Grid *g, uint8_t *to)
{
    const float by = one_over(g->d);
    V           sum = { 0 }, v;

    for (int64_t i = 0; i < n; i += 16) {
        LOAD(v, w + i);
        ROUND(q, v, g, by)
        const V miss = v - q * g->d;
        sum += (v * v + u->floor) * miss * miss;
        for (int k = 0; to && k < 16; k++)
            to[i + k] = (uint8_t)(int32_t)(q[k] - g->low);
    }
    return sum_of(&sum);
}

static Group group_of(const float *w, int64_t n)
{
    V     low, high, squares = { 0 }, bad = { 0 }, v;
    Group u;

    LOAD(low, w);
    high = low;
    for (int64_t i = 0; i < n; i += 16) {
        LOAD(v, w + i);
        low = CHOOSE(v < low, v, low);
        high = CHOOSE(v > high, v, high);
        squares += v * v;
        bad += v * 0.0f; /* of an infinity, too: not a number */
    }
    u = (Group){ .low = low[0], .high = high[0], .floor = sum_of(&squares) / (float)n, .finite = sum_of(&bad) == 0 };
    for (int k = 1; k < 16; k++) {
        u.low = low[k] < u.low ? low[k] : u.low;
        u.high = high[k] > u.high ? high[k] : u.high;
    }
    return u;
}

/* As it can be stored: of a minimum with d of 7 bits, so that f16 holds products with 4 bits of a zero point. */
static float stored(const MiEncoding *e, float d)
{
    if (!e->half)
        return d;
    const uint16_t h = mi_f32_to_f16(d);
    return mi_f16_to_f32(e->minimum && e->levels == 16 ? (uint16_t)((h + 8) & 0xfff0) : h);
}

/* The better of two, `best` being of *least error; d by least squares for the q that `g` gives. */
static void try(const MiEncoding *e, const float *w, int64_t n, const Group *u, Grid g, Grid *best, float *least)
{
    const Moments m = moments(w, n, u, &g);

    if (!(m.qq > 0))
        return;
    g.d = stored(e, m.wq / m.qq);
    const float error = error_of(w, n, u, &g, NULL);
    if (error < *least) {
        *least = error;
        *best = g;
    }
}

enum { TRIES = 8 };

/* The value of the largest magnitude is the lowest level, which reaches one further than the highest. */
static Grid symmetric(const MiEncoding *e, const float *w, int64_t n, const Group *u)
{
    const float half = (float)(e->levels / 2), extreme = -u->low > u->high ? u->low : u->high;
    Grid        best = { stored(e, -extreme / half), -half, half - 1 };
    float       least = e->fit ? error_of(w, n, u, &best, NULL) : 0;

    for (int i = 0; i < TRIES && e->fit; i++) { /* of 16 levels: from a range of 7 to one of 10.4 where 7 fit */
        const Grid g = { -extreme / (half * (1 + (float)i / (float)e->levels) - 1), -half, half - 1 };
        try(e, w, n, u, g, &best, &least);
    }
    return best;
}

/* All levels between the extremes, or where some are cut off: at both ends, of 16 levels up to 22 % at each. */
static Grid asymmetric(const MiEncoding *e, const float *w, int64_t n, const Group *u)
{
    const float top = (float)(e->levels - 1), low = u->low < 0 ? u->low : 0, high = u->high > 0 ? u->high : 0;
    Grid        best = { 0, 0, top };
    float       least = INFINITY;

    for (int i = 0; i < (e->fit ? TRIES : 1); i++) {
        const float less = 0.5f * (float)i / (float)e->levels, d = (high - low) * (1 - 2 * less) / top;
        const float zero = ((low + (high - low) * less) * one_over(d) + MAGIC) - MAGIC; /* the lowest q */
        const Grid  g = { i ? d : stored(e, d), zero, top + zero };

        if (i == 0) {
            best = g;
            least = error_of(w, n, u, &g, NULL);
        }
        if (e->fit)
            try(e, w, n, u, g, &best, &least);
    }
    return best;
}

static bool ENCODE(const MiEncoding *e, const float *w, int64_t n, uint8_t *q, MiScalePair *out)
{
    const Group u = group_of(w, n);

    if (!u.finite)
        return false;
    Grid g = symmetric(e, w, n, &u);
    if (e->minimum) {
        const Grid a = asymmetric(e, w, n, &u);
        if (error_of(w, n, &u, &a, NULL) <= error_of(w, n, &u, &g, NULL))
            g = a;
    }
    error_of(w, n, &u, &g, q);
    *out = (MiScalePair){ g.d, e->minimum ? (g.low + (float)e->offset) * g.d : 0 }; /* q counts levels from g.low on */
    return fabsf(out->d) <= (e->half ? 65504.0f : INFINITY) && fabsf(out->m) <= (e->half ? 65504.0f : INFINITY);
}
