/* stored_cuda.h - how a card keeps matrices that files store in 4 to 8 bit: GGUF's blocks, GPTQ, AWQ, compressed-tensors. */
#ifndef PLUGINS_LINEAR_STORED_CUDA_H
#define PLUGINS_LINEAR_STORED_CUDA_H

#include <cuda/quant.h>
#include <miniinfer/format.h>

/* Its form before anybody looked at its zeros: with room for them where the file has some.  False, and why: it cannot be kept
 * so; error may be NULL. */
bool stored_cuda_form(const MiWeight *, MiQuantForm *, GError **error);
/* All of its zeros are the middle of the codes. */
bool stored_cuda_symmetric(const MiQuant *);

/* x has to be brought into its order. */
static inline bool stored_cuda_ordered(const MiWeight *w) { return w->quant && w->quant->group_of; }

#endif
