/* tune_cuda.h - which of cuBLASLt's algorithms is the fastest for a product on this card: measured
 * once, while a model loads, and recalled from then on. */
#ifndef PLUGINS_LINEAR_TUNE_CUDA_H
#define PLUGINS_LINEAR_TUNE_CUDA_H

#include <cuda/gemm.h>
#include <miniinfer/context.h>

/* LOAD.  For every number of rows above `least`, which other kernels do, and up to `most`; adds: with a residual. */
void tune_cuda(MiContext *, MiGemm *, int64_t least, int64_t most, bool adds);

#endif
