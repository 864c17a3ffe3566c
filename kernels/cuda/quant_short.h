/* quant_short.h - quant_layer.h's work for layers so small that a chain of latencies is what they take: as three kernels,
 * o; all of the MLP; q, k and v.  For C++. */
#ifndef KERNELS_CUDA_QUANT_SHORT_H
#define KERNELS_CUDA_QUANT_SHORT_H

#include "quant_layer.h"

namespace mi_quant
{
/* LOAD.  Of p->shape; fills p->small.  The card's multiprocessors, and the shared memory that a block may have. */
int plan_short(MiQuantLayerPlan *p, int sms, int most);
size_t short_bytes(const MiQuantLayerPlan *p);
int start_short(void *stream, const MiQuantLayerPlan *p, const MiQuantLayerCall *c);
} // namespace mi_quant
#endif
