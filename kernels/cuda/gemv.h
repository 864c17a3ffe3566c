/* gemv.h - y = x W' for few rows of x, limited by how fast W can be read, and what
 * a decode step does before and after it.
 *
 * W is plain row-major [out][in] of x's dtype, 16-byte aligned, in a multiple of 8; or as
 * quant.h has it, for up to FEW rows, whole eights of rows where two are paired; or E4M3 as fp8.h
 * has it, for up to FEW rows, in a multiple of 16.
 * A launcher enqueues one kernel and returns 0 or the cudaError_t.  Weights, gains,
 * biases and the step's metadata are read before the grid dependency is waited for:
 * no kernel may write them.  Everything else is read and written after it.
 * Sums are f32 in an order that is the same in every run. */
#ifndef KERNELS_CUDA_GEMV_H
#define KERNELS_CUDA_GEMV_H

#include "quant.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
    MI_GEMV_PLAIN,    /* y = x W' + b */
    MI_GEMV_RESIDUAL, /* y = residual + x W' + b */
    MI_GEMV_GATED,    /* y = silu(n G') * n U', n = rmsnorm(x) */
    MI_GEMV_QKV,      /* rope(n Q'), rope(n K') and n V', the latter two into the cache */
    MI_GEMV_HEAD,     /* logits = n W', with the largest of what each block computed */
} MiGemvKind;

/* Up to FEW rows gemv.cuh computes, or quant_gemv.cuh, beyond that skinny.cuh. */
enum { MI_GEMV_FEW_ROWS = 4, MI_GEMV_MAX_ROWS = 32, MI_GEMV_LATER = 3 };
/* Of the head; beyond that head.h is faster. */
enum { MI_GEMV_HEAD_ROWS = 24 };

/* Weights that a later kernel reads, for the second-level cache: the first `bytes` of every `stride`, n times. */
typedef struct {
    const void *at;
    int64_t     stride;
    int32_t     bytes, n; /* bytes: a multiple of 16 */
} MiGemvLater;

/* How a kernel is laid out; mi_cuda_gemv_plan() fills what is below the line. */
typedef struct {
    MiGemvKind kind;
    MiDType    dtype; /* of x and W: MI_BF16, MI_F16 */
    int32_t    rows;  /* of x, at most */
    int32_t    in;
    int32_t    out;      /* rows of W; of G where gated; of q, k and v together */
    int32_t    norm_dim; /* head_dim where each head of q and k is normed, for one row; else 0 */
    MiQuantForm form;    /* of W; bits 0: plain */
    /* ---- */
    bool    direct;     /* weights straight into registers, one tile a team */
    int32_t grid;       /* blocks */
    int32_t cluster;    /* blocks that share a head that is normed, or what they fetch of x; else 1 */
    int32_t split;      /* parts of the columns of x, which blocks of a cluster take; else 1 */
    int32_t team;       /* warps that share a tile of two rows of W */
    int32_t teams;      /* in a block */
    int32_t stage_rows; /* of W in one stage of the ring: 1, or 2 * a power of two that divides teams */
    int32_t stages;     /* of the ring */
    int32_t flight;     /* stages requested at once before the predecessor is done */
    int32_t ahead;      /* stages behind a full ring that go to the second-level cache */
    int32_t pace;       /* clocks between two of them */
    int32_t slice;      /* of 4 and 8 bit: chunks of a row in one stage */
    int32_t smem;       /* bytes a block */
    /* ---- a caller's, beyond a few rows: what to fetch while the kernels before this one run */
    MiGemvLater later[MI_GEMV_LATER];
    const float *scales[3]; /* a caller's, of E4M3: those of each w of the launcher */
} MiGemvPlan;

/* LOAD.  cudaErrorNotSupported: not on this card, or not this shape. */
int mi_cuda_gemv_plan(MiGemvPlan *);
/* What a kernel after this one should find in the second-level cache of the weights w, as the block that reads them
 * goes through them; at most so many bytes of each block's. */
MiGemvLater mi_cuda_gemv_later(const MiGemvPlan *, const void *w, int64_t most);
/* Of weights of 4 or 8 bit, once they are known: plans anew where their form is another. */
int mi_cuda_gemv_form(MiGemvPlan *, const MiQuantForm *);
/* LOAD.  After a caller changed the layout: smem, and what the driver must know. */
int mi_cuda_gemv_lay_out(MiGemvPlan *);

typedef struct {
    const float *gain; /* [in] */
    float        eps, offset;
} MiGemvNorm; /* n = x / rms(x) * (offset + gain) */

/* ENQUEUE.  x: [rows][in], y: [rows][out] of x's dtype or f32; bias: [out] or NULL; rows <= plan's. */
int mi_cuda_gemv(void *stream, const MiGemvPlan *, MiTensor x, const void *w, const float *bias, MiTensor y);

/* ENQUEUE.  residual may be y. */
int mi_cuda_gemv_residual(void *stream, const MiGemvPlan *, MiTensor x, const void *w, const float *bias,
                          MiTensor residual, MiTensor y);

/* ENQUEUE.  gate, up: [out][in]. */
int mi_cuda_gemv_gated(void *stream, const MiGemvPlan *, MiTensor x, MiGemvNorm, const void *gate, const void *up,
                       MiTensor y);

/* The three projections of attention.  A row whose slot is -1 is stored nowhere. */
typedef struct {
    const void    *w[3];    /* q: [n_heads * head_dim][in]; k and v: [n_kv_heads * head_dim][in] */
    const float   *bias[3]; /* or NULL */
    const float   *freqs;   /* [rope_dim / 2] radians a position */
    const int32_t *positions;
    int32_t        n_heads, n_kv_heads, head_dim, rope_dim;
    bool           interleaved;  /* 2i turns with 2i + 1; else i with i + rope_dim / 2 */
    float          magnitude;    /* of sine and cosine */
    const float   *head_gain[2]; /* where plan->norm_dim: of each head of q and of k, [head_dim] */
    float          head_eps, head_offset;
    MiTensor       q;  /* out: [rows][n_heads][head_dim] */
    MiKvView       kv; /* its k and v are f32, f16 or bf16; slots NULL: row i goes to slot i */
} MiGemvQkv;

/* LOAD.  Whether head_dim and rope_dim are ones that the kernel divides evenly; of 4 and 8 bit: as pairs of whole eights. */
bool mi_cuda_gemv_qkv_takes(int32_t head_dim, int32_t rope_dim, bool interleaved, bool quantised);
/* ENQUEUE. */
int mi_cuda_gemv_qkv(void *stream, const MiGemvPlan *, MiTensor x, MiGemvNorm, const MiGemvQkv *);

/* The likeliest token among what one block computed. */
typedef struct {
    float   logit;
    int32_t token;
} MiCandidate;

/* ENQUEUE.  Row i of logits (f32) is of row out_rows[i] of x; out_rows NULL: of row i.
 * candidates: [rows][plan->grid] or NULL. */
int mi_cuda_gemv_head(void *stream, const MiGemvPlan *, MiTensor x, const int32_t *out_rows, MiGemvNorm, const void *w,
                      MiTensor logits, MiCandidate *candidates);
/* ENQUEUE.  token[i] (where token is not NULL) and drawn[slot[i]] (where slot[i] >= 0) = the best of candidates[i], of
 * equal ones the lowest. */
int mi_cuda_gemv_pick(void *stream, const MiCandidate *candidates, int32_t per_row, int32_t rows, int32_t *token,
                      int32_t *drawn, const int32_t *slot);

#ifdef __cplusplus
}
#endif
#endif
