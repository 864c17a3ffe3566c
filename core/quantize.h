/* quantize.h - a model's projections rounded to few bits, matrix by matrix, and the result as a model of its own.
 *
 * A group of columns of a row becomes w = scale * (code - zero), code of `bits` bits from 0 on, scale exact in f16. */
#ifndef MI_CORE_QUANTIZE_H
#define MI_CORE_QUANTIZE_H

#include <miniinfer/format.h>

typedef struct {
    int     bits;  /* 4 or 8 */
    int64_t group; /* columns that share a scale; 0: all of a row */
    bool    symmetric;
} MiGrid;

/* A matrix in f32 and what it is rounded to. */
typedef struct {
    int64_t  out, in, groups;
    float   *w;      /* [out][in] */
    uint8_t *codes;  /* [out][in] */
    float   *scales; /* [out][groups] */
    uint8_t *zeros;  /* [out][groups] */
} MiRounding;

bool mi_rounding_new(MiRounding *, const MiWeight *, const MiGrid *, GError **error);
void mi_rounding_free(MiRounding *);
/* Scales and zeros by each group's range. */
void mi_rounding_fit(MiRounding *, const MiGrid *);
/* Each value to the nearest code. */
void mi_round_nearest(MiRounding *, const MiGrid *);
/* Frantar et al. 2022 (arXiv 2210.17323): columns one after the other, those with the largest inputs first, the error of
 * each made up for by those that follow.  hessian [in][in]: sum of x x' over calibration rows, upper triangle.
 * Groups' scales are those of mi_rounding_fit().  False: no memory, or no inverse. */
bool mi_round_gptq(MiRounding *, const MiGrid *, const float *hessian);

/* |W' - W| / |W|; with a hessian also |X (W' - W)'| / |X W'|, of some of the rows. */
typedef struct { double weights, outputs; /* outputs < 0: not known */ } MiRoundingError;
MiRoundingError mi_rounding_error(const MiRounding *, const float *hessian);

/* ---- arithmetic ---------------------------------------------------------------- */

/* fn(user, i, n) for each i of [0, n), on as many threads as there are processors. */
void mi_on_processors(void (*fn)(void *user, int i, int n), void *user);

/* c[i][j] += sign * sum over t of a[t][i] x[t][j], i < ni, j < nj. */
typedef struct {
    float       *c;
    const float *a, *x;
    int64_t      ldc, lda, ldx, nt, ni, nj;
    float        sign;
    bool         upper; /* only where j >= i, or a little more */
} MiProduct;
void mi_product(const MiProduct *);

/* h [n][n], upper triangle, positive definite: u, upper, with h^-1 = u' u, in its place.  False: it is not, or no memory. */
bool mi_inverse_factor(float *h, int64_t n);

/* ---- what a calibration text gives ------------------------------------------------ */

typedef struct MiCalibration MiCalibration;
struct MiAssembly;

/* windows of `length` tokens of the text's ids; the assembly's weights are loaded, and it takes that many sequences. */
MiCalibration *mi_calibration_new(struct MiAssembly *, const int32_t *ids, int windows, int length);
void           mi_calibration_free(MiCalibration *);
/* Sums x x' of the inputs of as many of the matrices names[first ... n) as `bytes` of memory hold, at least one; how many,
 * 0 with *error.  tell, after each window, may say stop. */
int mi_calibration_run(MiCalibration *, const char *const *names, int n, size_t bytes, bool (*tell)(int done, int of),
                       GError **error);
/* Of the last run; NULL: it had none of that name.  Matrices of one input share it. */
const float *mi_calibration_hessian(const MiCalibration *, const char *name, int64_t *n);

/* ---- the result ------------------------------------------------------------------- */

/* How a matrix is stored: "ct" as MiQuant, "q4_0", "q8_0" as GGUF's blocks. */
GBytes *mi_rounding_store(const MiRounding *, const MiGrid *, const char *storage, const MiRoundingError *);
/* What was stored, if it is that; NULL. */
bool mi_stored_fits(const void *data, size_t bytes, const MiWeight *, const MiGrid *, const char *storage, MiRoundingError *);

/* `from` with the matrices that `folder` holds in their place. */
typedef struct MiQuantized MiQuantized;
MiQuantized *mi_quantized_open(const MiSource *from, const char *folder, const MiGrid *, const char *storage, GError **error);
const MiSource *mi_quantized_source(const MiQuantized *);
void         mi_quantized_close(MiQuantized *);
/* The file of a matrix in it; the caller frees it. */
char *mi_quantized_file(const char *folder, const char *name);

/* Whether quantising takes it: a matrix of a layer. */
bool mi_quantizable(const MiWeight *);

#endif
