/* quantize.h - a model's projections rounded to few bits, matrix by matrix, and the result as a model of its own.
 *
 * A group of columns of a row becomes w = scale * (code - zero), code of `bits` bits from 0 on, scale exact in f16; or a row
 * w = scale * the number of E4M3 that a code is, scale exact in bf16. */
#ifndef MI_CORE_QUANTIZE_H
#define MI_CORE_QUANTIZE_H

#include "program.h"

typedef struct {
    int     bits;  /* 4 or 8 */
    int64_t group; /* columns that share a scale; 0: all of a row */
    bool    symmetric;
    bool    e4m3; /* of 8 bits, for rows, symmetric */
} MiGrid;

/* A matrix in f32 and what it is rounded to. */
typedef struct {
    int64_t  out, in, group, groups; /* groups of `group` columns, the last may have less */
    float   *w;      /* [out][in] */
    uint8_t *codes;  /* [out][in] */
    float   *scales; /* [out][groups] */
    uint8_t *zeros;  /* [out][groups] */
    bool     e4m3;
    /* w is the matrix with column i times columns[i] and row o divided by rows[o]; NULL: as it was. */
    const float *columns, *rows;
} MiRounding;

/* What a number of w, or a difference there, is multiplied by to be the matrix's as it was. */
static inline float mi_rounding_back(const MiRounding *r, int64_t o, int64_t i)
{
    return (r->rows ? r->rows[o] : 1) / (r->columns ? r->columns[i] : 1);
}

/* What a calibration text gives of a matrix's inputs x.  What is fitted to the sums is judged by rows that are held back from
 * them: a few thousand rows say little of thousands of inputs, and the error on the sums' own rows is then far too small. */
typedef struct {
    int64_t      n;
    const float *sums;       /* [n][n]: of x x' */
    const float *magnitudes; /* [n]: of |x| */
    const float *held;       /* [n][rows], turned; rows = 0: none */
    int64_t      rows;
} MiInputs;

/* Each `step`-th row from the first on. */
bool mi_rounding_new(MiRounding *, const MiWeight *, const MiGrid *, int64_t step, GError **error);
void mi_rounding_free(MiRounding *);
/* columns [in], rows [out], each may be NULL; they stay the caller's. */
void mi_rounding_scale(MiRounding *, const float *columns, const float *rows);
/* Scale and zero of integers for values from low, which is 0 or less, to high, which is 0 or more. */
void mi_grid_range(const MiGrid *, float low, float high, float *scale, uint8_t *zero);
/* Scales and zeros by each group's range.  weighted, of integers: of eight ranges, from all of it to 0.65 of it, that with the
 * least squared error, the scale by least squares, below 0 where symmetric codes reach further so; errors count by w^2 plus its
 * mean, since what large weights lose costs most. */
void mi_rounding_fit(MiRounding *, const MiGrid *, bool weighted);
/* Each value to the nearest code. */
void mi_round_nearest(MiRounding *, const MiGrid *);
/* Frantar et al. 2022 (arXiv 2210.17323): columns one after the other, those with the largest inputs first, the error of
 * each made up for by those that follow.  The diagonal of the sums has a part of its mean added: of a hundredth, a tenth and
 * all of it that which gives the held rows the least error, without such rows the first that leaves an inverse.
 * Groups' scales are those that are there.  False: no memory, or no inverse. */
bool mi_round_gptq(MiRounding *, const MiGrid *, const MiInputs *);

/* What has the least error is too small, by about the square of it: scales of each row times what gives its outputs y' a slope
 * of 1 upon those that are right, sum y y' = sum y y.  Errors by chance do not add up from layer to layer, this does.
 * sums: of the inputs as they are.  False: no memory. */
bool mi_rounding_level(MiRounding *, const float *sums);

/* |W' - W| / |W|; with inputs also |X (W' - W)'| / |X W'|, of some of the rows, X being held rows where there are any, else those
 * of the sums; both of the matrix as it was.  nearest: the latter of the matrix rounded to the nearest. */
typedef struct { double weights, outputs, nearest; /* < 0: not known */ } MiRoundingError;
MiRoundingError mi_rounding_error(const MiRounding *, const MiInputs *);
/* Rows that `outputs` is of: each step-th. */
static inline int64_t mi_sampled_rows(int64_t out, int64_t want) { return MAX(1, out / want); }

/* ---- arithmetic ---------------------------------------------------------------- */

/* fn(user, i, n) for each i of [0, n), on as many threads as there are processors. */
void mi_on_processors(void (*fn)(void *user, int i, int n), void *user);

/* Where the compiler can, a function is made for each of several instruction sets. */
#if defined __x86_64__ && defined __GNUC__ && !defined __clang__ && !defined __SANITIZE_ADDRESS__ && defined __linux__
#define MI_ON_ANY_MACHINE __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define MI_ON_ANY_MACHINE
#endif

/* c[i][j] += sign * sum over t of a[t][i] x[t][j], i < ni, j < nj. */
typedef struct {
    float       *c;
    const float *a, *x;
    int64_t      ldc, lda, ldx, nt, ni, nj;
    float        sign;
    bool         upper; /* only where j >= i, or a little more */
} MiProduct;
void mi_product(const MiProduct *);

/* Sum of d' h d over rows: d [n][rows], turned; < 0: no memory. */
double mi_quadratic(const float *h, const float *d, int64_t n, int64_t rows);

/* h [n][n], upper triangle, positive definite: u, upper, with h^-1 = u' u, in its place.  False: it is not, or no memory. */
bool mi_inverse_factor(float *h, int64_t n);

/* ---- what a calibration text gives ------------------------------------------------ */

typedef struct MiCalibration MiCalibration;
struct MiAssembly;

/* windows of `length` tokens, evenly over all n of the text's ids, at least windows * length; the assembly's weights are loaded, and it
 * takes that many sequences. */
MiCalibration *mi_calibration_new(struct MiAssembly *, const int32_t *ids, size_t n, int windows, int length);
void           mi_calibration_free(MiCalibration *);
const MiRecording *mi_calibration_program(const MiCalibration *);
/* The inputs of as many of the matrices names[0 ... n) as `bytes` of memory hold, at least one; how many, 0 with
 * *error.  Of each eight windows the last is held back.  tell, after each window, may say stop. */
int mi_calibration_run(MiCalibration *, const char *const *names, int n, size_t bytes, bool (*tell)(int done, int of),
                       GError **error);
/* Of the last run; false: it had none of that name.  Matrices of one input share them. */
bool mi_calibration_inputs(const MiCalibration *, const char *name, MiInputs *out);

/* ---- the result ------------------------------------------------------------------- */

/* How a matrix is stored: "ct", "gptq" and "fp8" as MiQuant, "q4_0", "q8_0" as GGUF's blocks. */
GBytes *mi_rounding_store(const MiRounding *, const MiGrid *, const char *storage, const MiRoundingError *);
/* What was stored, if it is that; NULL. */
bool mi_stored_fits(const void *data, size_t bytes, const MiWeight *, const MiGrid *, const char *storage, MiRoundingError *);

/* `from` with the matrices, and the vectors that were folded into, that `folder` holds in their place. */
typedef struct MiQuantized MiQuantized;
MiQuantized *mi_quantized_open(const MiSource *from, const char *folder, const MiGrid *, const char *storage, GError **error);
const MiSource *mi_quantized_source(const MiQuantized *);
void         mi_quantized_close(MiQuantized *);
/* The file of a matrix in it ("rounded"), of the scales of a fold by where it is from ("scales"), of a vector ("folded"); the
 * caller frees it. */
char *mi_quantized_file(const char *folder, const char *name, const char *kind);
bool  mi_quantized_save(const char *folder, const char *name, const char *kind, const void *data, size_t bytes, GError **error);

/* Whether quantising takes it: a matrix of a layer. */
bool mi_quantizable(const MiWeight *);

/* ---- the report ------------------------------------------------------------------- */

typedef struct {
    const char            *out, *method;
    MiGrid                 grid;
    int                    n, reused; /* matrices, those that were ready before */
    const MiWeight *const *weights;   /* [n] */
    const MiRoundingError *errors;    /* [n] */
} MiRoundingReport;

void mi_rounding_report_print(const MiRoundingReport *);
void mi_rounding_report_json(const MiRoundingReport *);
/* A panel for each projection of a layer, layer by layer, as an SVG. */
bool mi_rounding_report_plot(const MiRoundingReport *, const char *file, GError **error);
/* The layer in a name; -1: none. */
int mi_layer_of(const char *name);

#endif
