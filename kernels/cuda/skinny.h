/* skinny.h - what gemv.cu leaves to the kernel of skinny.cuh: plans of more rows than MI_GEMV_FEW_ROWS.  For C++. */
#ifndef KERNELS_CUDA_SKINNY_H
#define KERNELS_CUDA_SKINNY_H

#include "gemv.h"

namespace mi_gemv
{
struct Args;
}

namespace mi_skinny
{
/* The card's multiprocessors, and the shared memory that a block may have. */
int plan(MiGemvPlan *, int sms, int most);
int lay_out(MiGemvPlan *);
MiGemvLater later(const MiGemvPlan *, const void *w, int64_t most);
/* args: all but what the layout says. */
int start(void *stream, const MiGemvPlan *, const mi_gemv::Args &args);
}
#endif
