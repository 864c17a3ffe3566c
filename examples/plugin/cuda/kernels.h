/* kernels.h - what add_cuda.c calls and kernels.cu defines: plain C between the two
 * compilers.  nvcc reads <miniinfer/types.h>, of MiniInfer's headers only this one.
 *
 * A launcher enqueues one kernel on `stream` (a cudaStream_t) and returns 0 or the
 * cudaError_t.  It does not wait, allocates nothing and reads nothing of the card's
 * memory: a step that decodes is recorded into a graph while these functions run, and
 * the graph is replayed later with other numbers in the same places.
 *
 * Rows are those of the tensors, padding included: a padded row holds finite numbers
 * that nobody reads, and is computed like others. */
#ifndef ACME_KERNELS_H
#define ACME_KERNELS_H

#include <miniinfer/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* y = a + b: [rows, n] of f32, f16 or bf16, all of one type; elements of a row lie side
 * by side.  y may be a or b.  Reads and writes each once: 3 n bytes of the type a row. */
int acme_vector_add(void *stream, MiTensor a, MiTensor b, MiTensor y);

/* sum = a + b, rounded to the type; y = sum / rms(sum) * (offset + w), with
 * rms(x) = sqrt(mean(x^2) + eps).  w: [n] f32, vectors always are.  sum.data NULL: nobody
 * else wants it.  Neither sum nor y is a or b. */
int acme_add_norm(void *stream, MiTensor a, MiTensor b, MiTensor sum, const float *w, float eps, float offset, MiTensor y);

/* Of what a launcher returned. */
const char *acme_error_text(int code);

#ifdef __cplusplus
}
#endif
#endif
