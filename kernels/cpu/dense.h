/* dense.h - y = x W' + b with W of f32, f16 or bf16 as it lies in the file, x and y of f32.
 *
 * W's elements are converted exactly; products are added in 16 lanes, column k
 * in lane k % 16, one after the other, and the lanes by halves at the end. So a
 * result depends neither on the rows that share a call nor on the threads.
 * AVX-512 and AVX2 give the same bits (fused multiply-add); plain C rounds
 * products on their own and differs by that. */
#ifndef MI_KERNELS_CPU_DENSE_H
#define MI_KERNELS_CPU_DENSE_H

#include <miniinfer/types.h>

typedef enum { MI_DENSE_F32, MI_DENSE_F16, MI_DENSE_BF16, MI_DENSE_N } MiDenseType;

typedef struct {
    const void  *w; /* [out][in], any alignment */
    const float *x; /* [rows][x_stride], `in` of each */
    int64_t      x_stride, in, out, rows;
    float       *y; /* [rows][y_stride], `out` of each */
    int64_t      y_stride;
    const float *bias; /* [out] or NULL */
} MiDenseCall;

typedef struct {
    const char *name;         /* "scalar", "avx2", "avx512" */
    bool      (*usable)(void); /* on this machine */
    void      (*run[MI_DENSE_N])(const MiDenseCall *);
} MiDenseIsa;

/* isa: a name or "auto", the best here; NULL: not here. */
const MiDenseIsa *mi_dense_isa(const char *isa);

extern const MiDenseIsa mi_dense_scalar;
#ifdef MI_X86_64
extern const MiDenseIsa mi_dense_avx2, mi_dense_avx512;
#endif

#endif
