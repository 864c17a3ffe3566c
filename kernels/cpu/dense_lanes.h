/* dense_lanes.h - the loops of dense.h, for any type of 16 lanes.  Before it is included:
 *
 *   Lanes                        16 floats
 *   lanes_zero(), lanes_fma(a, b, sum), lanes_sum(v)
 *   lanes_f32(p), lanes_f16(p), lanes_bf16(p)    16 elements, any alignment
 *   TILE_OUT <= 4, TILE_ROWS <= 6                sums kept in registers */
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

enum { LANES = 16 };

INLINE Lanes elements(MiDenseType type, const void *p, int64_t at)
{
    return type == MI_DENSE_F32   ? lanes_f32((const char *)p + 4 * at)
           : type == MI_DENSE_F16 ? lanes_f16((const char *)p + 2 * at)
                                  : lanes_bf16((const char *)p + 2 * at);
}

/* The last n < 16, the others zero. */
INLINE Lanes rest(MiDenseType type, const void *p, int64_t at, int64_t n)
{
    const int64_t size = type == MI_DENSE_F32 ? 4 : 2;
    float         copy[LANES] = { 0 };

    memcpy(copy, (const char *)p + size * at, (size_t)(size * n));
    return elements(type, copy, 0);
}

/* The sums of row r of W with rows 0 .. 5 of x; unused ones vanish. */
typedef struct { Lanes s0, s1, s2, s3, s4, s5; } Sums;

INLINE void multiply(Sums *s, Lanes w, int rows, Lanes x0, Lanes x1, Lanes x2, Lanes x3, Lanes x4, Lanes x5)
{
#define ROW(t)                                \
    if (t < rows)                             \
        s->s##t = lanes_fma(w, x##t, s->s##t);
    ROW(0) ROW(1) ROW(2) ROW(3) ROW(4) ROW(5)
#undef ROW
}

INLINE void step(MiDenseType type, const char *const w[4], const float *const x[6], int out, int rows,
                 int64_t k, int64_t n, Sums *a, Sums *b, Sums *d, Sums *e)
{
    const Lanes zero = lanes_zero();
#define ROW(t) \
    const Lanes x##t = t >= rows ? zero : n == LANES ? elements(MI_DENSE_F32, x[t], k) : rest(MI_DENSE_F32, x[t], k, n);
    ROW(0) ROW(1) ROW(2) ROW(3) ROW(4) ROW(5)
#undef ROW
#define OUT(o, s)                                                                                    \
    if (o < out)                                                                                     \
        multiply(s, n == LANES ? elements(type, w[o], k) : rest(type, w[o], k, n), rows, x0, x1, x2, x3, x4, x5);
    OUT(0, a) OUT(1, b) OUT(2, d) OUT(3, e)
#undef OUT
}

/* `out` rows of W from o on, times `rows` rows of x from r on; both constants. */
INLINE void tile(MiDenseType type, const MiDenseCall *c, int64_t o, int64_t r, int out, int rows)
{
    const int64_t     size = type == MI_DENSE_F32 ? 4 : 2, whole = c->in - c->in % LANES;
    const char *const base = (const char *)c->w + o * c->in * size;
    const char *const w[4] = { base, out > 1 ? base + c->in * size : base, out > 2 ? base + 2 * c->in * size : base,
                               out > 3 ? base + 3 * c->in * size : base };
    const float *const x = c->x + r * c->x_stride;
    const float *const xs[6] = { x, rows > 1 ? x + c->x_stride : x, rows > 2 ? x + 2 * c->x_stride : x,
                                 rows > 3 ? x + 3 * c->x_stride : x, rows > 4 ? x + 4 * c->x_stride : x,
                                 rows > 5 ? x + 5 * c->x_stride : x };
    const Lanes z = lanes_zero();
    Sums        a = { z, z, z, z, z, z }, b = a, d = a, e = a;

    for (int64_t k = 0; k < whole; k += LANES) {
        if (rows == 1) /* W streams from memory: past the page's end, where the hardware's prefetch stops */
            for (int i = 0; i < out; i++)
                __builtin_prefetch(w[i] + k * size + 4096);
        step(type, w, xs, out, rows, k, LANES, &a, &b, &d, &e);
    }
    if (whole < c->in)
        step(type, w, xs, out, rows, whole, c->in - whole, &a, &b, &d, &e);
#define PUT(i, t, sums)                                                                                     \
    if (i < out && t < rows)                                                                             \
        c->y[(r + t) * c->y_stride + o + i] = lanes_sum(sums.s##t) + (c->bias ? c->bias[o + i] : 0);
#define PUT_ROW(t) PUT(0, t, a) PUT(1, t, b) PUT(2, t, d) PUT(3, t, e)
    PUT_ROW(0) PUT_ROW(1) PUT_ROW(2) PUT_ROW(3) PUT_ROW(4) PUT_ROW(5)
#undef PUT_ROW
#undef PUT
}

INLINE void matrix(MiDenseType type, const MiDenseCall *c)
{
    int64_t o = 0;

    for (; o + TILE_OUT <= c->out; o += TILE_OUT) {
        int64_t r = 0;
        for (; r + TILE_ROWS <= c->rows; r += TILE_ROWS)
            tile(type, c, o, r, TILE_OUT, TILE_ROWS);
        for (; r < c->rows; r++)
            tile(type, c, o, r, TILE_OUT, 1);
    }
    for (; o < c->out; o++)
        for (int64_t r = 0; r < c->rows; r++)
            tile(type, c, o, r, 1, 1);
}

static void run_f32(const MiDenseCall *c) { matrix(MI_DENSE_F32, c); }
static void run_f16(const MiDenseCall *c) { matrix(MI_DENSE_F16, c); }
static void run_bf16(const MiDenseCall *c) { matrix(MI_DENSE_BF16, c); }
