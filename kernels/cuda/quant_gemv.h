/* quant_gemv.h - what gemv.cu leaves to the kernel of quant_gemv.cuh: plans of matrices of quant.h.  For C++. */
#ifndef KERNELS_CUDA_QUANT_GEMV_H
#define KERNELS_CUDA_QUANT_GEMV_H

#include "gemv.h"

namespace mi_gemv
{
struct Args;
}

namespace mi_quant
{
/* The card's multiprocessors, and the shared memory that a block may have. */
int plan(MiGemvPlan *, int sms, int most);
int lay_out(MiGemvPlan *);
/* args: all but what the layout says. */
int start(void *stream, const MiGemvPlan *, const mi_gemv::Args &args);
} // namespace mi_quant
#endif
