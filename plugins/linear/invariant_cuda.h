/* invariant_cuda.h - products whose rows get the same bits in every batch. */
#ifndef PLUGINS_LINEAR_INVARIANT_CUDA_H
#define PLUGINS_LINEAR_INVARIANT_CUDA_H

#include <miniinfer/plugin.h>

extern const MiOp invariant_op;

#endif
