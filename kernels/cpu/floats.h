/* floats.h - loops over f32, for the instruction sets that this machine may
 * have; the best is chosen when first asked for.
 *
 * The transcendental ones are polynomials of our own (fits in the sense of
 * Chebyshev over the reduced range), so that every machine gives nearly the same:
 * exp within 2 ulp (below -87.6: 0; above 88.0: infinity), the others within 2e-6
 * relative.  y may be x everywhere; no alignment is asked for. */
#ifndef MI_KERNELS_CPU_FLOATS_H
#define MI_KERNELS_CPU_FLOATS_H

#include <miniinfer/types.h>

enum { MI_TILE_KEYS = 64, MI_TILE_ROWS = 96 };

/* Rows that share keys and values: the heads of a group, at one or more positions.
 * dim: of a head; wide: dim rounded up to MI_FLOATS_PAD. */
typedef struct {
    const MiKvView *kv;
    int             seq, head, start; /* of the view; start: where logical position 0 lies */
    int             n_rows, dim, wide; /* n_rows <= MI_TILE_ROWS */
    const int32_t  *first, *end;      /* [n_rows] logical positions that a row attends to */
    float           softcap;          /* 0: none */
    const float    *q;                /* [n_rows][wide] scaled, zeros beyond dim */
    float          *keys;             /* scratch [wide][MI_TILE_KEYS] */
    float          *values;           /* scratch [MI_TILE_KEYS][wide] */
    float          *scores;           /* scratch [MI_TILE_ROWS][MI_TILE_KEYS] */
    float          *max, *sum, *keep; /* [n_rows] of the softmax so far; keep: scratch */
    float          *out;              /* [n_rows][wide] not yet divided by sum */
} MiTile;

enum { MI_FLOATS_PAD = 16 };

typedef struct {
    const char *name; /* "plain", "avx2", "avx512" */
    void (*add)(const float *a, const float *b, float *y, int64_t n);
    void (*mul)(const float *a, const float *b, float *y, int64_t n);
    void (*silu)(const float *x, float *y, int64_t n);
    void (*sigmoid)(const float *x, float *y, int64_t n);
    void (*tanh)(const float *x, float *y, int64_t n);
    void (*gelu_tanh)(const float *x, float *y, int64_t n);
    void (*gelu_erf)(const float *x, float *y, int64_t n);
    void (*leaky_relu)(const float *x, float *y, int64_t n, float slope);
    void (*scale)(const float *x, float *y, int64_t n, float by);
    /* y = x scale (offset + w) */
    void (*affine)(const float *x, const float *w, float *y, int64_t n, float scale, float offset);
    float (*max)(const float *x, int64_t n);                     /* n > 0 */
    double (*sum_squares)(const float *x, int64_t n);
    double (*exp_sum)(const float *x, float *y, int64_t n, float shift); /* y = e^(x - shift), y may be NULL; its sum */
    void (*sincos)(float position, const float *frequency, float magnitude, float *cosine, float *sine, int64_t n);
    void (*to_f16)(const float *x, uint16_t *y, int64_t n);
    void (*to_bf16)(const float *x, uint16_t *y, int64_t n);
    /* Attention of the rows to logical positions t0 .. t1, at most MI_TILE_KEYS of
     * them, added to max, sum and out. */
    void (*attend)(const MiTile *, int t0, int t1);
    /* Two parts of one softmax, [n_rows]: the second is added to the first. */
    void (*merge)(int n_rows, int wide, float *max, float *sum, float *out, const float *max2, const float *sum2,
                  const float *out2);
} MiFloats;

const MiFloats *mi_floats(void);
/* The i-th of those that can run here, the plainest first; NULL: there are no more. */
const MiFloats *mi_floats_at(int i);

#endif
