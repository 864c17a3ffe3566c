/* sampling.h - the links of the chain from logits to tokens, on a CUDA device.
 *
 * A token is removed by the logit -INFINITY; NaN counts as removed; of equal logits the
 * lower id is first.  The same weights (bit for bit), the same random numbers and the same
 * rules as the links of the CPU; a sum that decides what stays is one of integers, so that
 * no order of additions shows.  mi_cuda_draw_all() alone has weights of its own.
 *
 * Rows of out_slot -1 are left alone.  Parameters are arrays [n_out] on the device. */
#ifndef MI_KERNELS_CUDA_SAMPLING_H
#define MI_KERNELS_CUDA_SAMPLING_H

#include <miniinfer/types.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    void          *stream;
    MiTensor       in, out; /* f32 [n_out, vocab], out may be in; of a link that draws out is i32 [n_out, 1] */
    const MiBatch *batch;   /* host memory, copied */
    void          *workspace; /* penalties' */
} MiCudaLink;

/* LOAD side, before any of the others. */
int mi_cuda_sampling_prepare(void);

/* penalties: [n_out][3] repetition, presence, frequency; workspace: so many bytes. */
size_t mi_cuda_penalties_workspace(int n_out, int vocab);
int    mi_cuda_penalties(const MiCudaLink *, const float *penalties);
int    mi_cuda_logit_bias(const MiCudaLink *, const MiBiases *);
int    mi_cuda_temperature(const MiCudaLink *, const float *temperature);
int    mi_cuda_top_k(const MiCudaLink *, const int32_t *k);
int    mi_cuda_top_p(const MiCudaLink *, const float *p);
int    mi_cuda_min_p(const MiCudaLink *, const float *p);
int    mi_cuda_typical(const MiCudaLink *, const float *p);
/* These draw. */
int mi_cuda_multinomial(const MiCudaLink *, const uint64_t *seed);
int mi_cuda_greedy(const MiCudaLink *);

/* temperature, top_k, top_p, min_p in this order, then the draw, in one kernel, which leaves the logits as they are;
 * [n_out] each, NULL: no such link.  takes(): of rows as long as vocab; prepare: LOAD side, before the other. */
typedef struct {
    const float    *temperature, *top_p, *min_p;
    const int32_t  *top_k;
    const uint64_t *seed;
} MiCudaWishes;
bool mi_cuda_chain_takes(int vocab);
int  mi_cuda_chain_prepare(void);
int  mi_cuda_chain(const MiCudaLink *, const MiCudaWishes *);

/* temperature (NULL: none) and the draw, where nothing is cut, in two kernels that leave the logits as they are; workspace:
 * so many bytes, 0 where no row may be as long. */
size_t mi_cuda_draw_all_workspace(int n_out, int vocab);
int    mi_cuda_draw_all(const MiCudaLink *, const float *temperature, const uint64_t *seed);

/* The natural log probabilities of raw logits: of the token that batch->targets asks for, or of the one drawn,
 * then of the n_top likeliest; values, ids: [n_out, 1 + n_top], -INFINITY and -1 where there is none. */
enum { MI_CUDA_MAX_TOP = 1024 };
int mi_cuda_logprobs_prepare(void); /* LOAD side, before the other */
int mi_cuda_logprobs(void *stream, MiTensor logits, MiTensor tokens, const MiBatch *batch, int n_top, MiTensor values,
                     MiTensor ids);

#ifdef __cplusplus
}
#endif
#endif
