/* quantize_awq.h - scales of inputs, folded into what gives them: Lin et al. 2023 (arXiv 2306.00978).
 *
 * Columns of matrices are multiplied by scales before they are rounded, and what comes before is divided by them: a
 * norm's gain, or the rows of a matrix. */
#ifndef MI_CORE_QUANTIZE_AWQ_H
#define MI_CORE_QUANTIZE_AWQ_H

#include "program.h"
#include "quantize.h"

typedef struct {
    const MiWeight *from;        /* the gain, or the matrix whose rows give the inputs */
    const MiWeight *gain, *bias; /* vectors that are divided; NULL: none.  bias: of the norm or of the matrix */
    int64_t         n, unit, repeat; /* input i has scale i / (unit * repeat) * unit + i % unit of n: heads share v's */
    GPtrArray      *to;          /* MiWeight *, the matrices that read them */
} MiFold;

/* All that a program has among projections that quantising takes: MiFold *, which the array owns. */
GPtrArray *mi_folds_new(const MiRecording *);
/* The fold that gives a matrix its inputs, that begins at it; NULL. */
const MiFold *mi_fold_to(const GPtrArray *folds, const char *name);
const MiFold *mi_fold_from(const GPtrArray *folds, const char *name);

static inline int64_t mi_fold_scale(const MiFold *f, int64_t i) { return i / (f->unit * f->repeat) * f->unit + i % f->unit; }

/* scales [n] = magnitude^alpha, alpha 0 to 0.95, with the least error of the outputs of f->to rounded to the nearest; with
 * 0 all are 1.  magnitudes [in]: of each input, any multiple of the mean |x|.  vector [n]: the gain, or the bias where there
 * is no gain, or NULL: each scale is moved by less than one part in 128 such that what it divides becomes a value of bf16,
 * and nothing is lost when that is stored.  False: no memory, or a matrix cannot be read. */
bool mi_fold_search(const MiFold *, const MiGrid *, const float *hessian, const float *magnitudes, const float *vector,
                    float *scales, double *alpha, GError **error);

/* The scales of a fold whose inputs the last run of the calibration had, found for the matrices of `source` and saved in
 * the folder, the vectors that they divide before them; and what was saved there, NULL: nothing, or not all.  The caller
 * frees them. */
float *mi_fold_find(const MiFold *, const MiSource *source, const MiGrid *, const MiCalibration *, const char *folder,
                    GError **error);
float *mi_fold_saved(const MiFold *, const char *folder);

#endif
