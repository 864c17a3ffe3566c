/* fp8_gemv.h - the kernels of gemv.cuh for weights of E4M3.  For C++. */
#ifndef KERNELS_CUDA_FP8_GEMV_H
#define KERNELS_CUDA_FP8_GEMV_H

#include "gemv.h"

namespace mi_gemv
{
struct Args;
typedef void (*Kernel)(Args);
} // namespace mi_gemv

namespace mi_fp8
{
/* width: 1 or 4 rows of x; late: as gemv.cu has it.  NULL: none. */
mi_gemv::Kernel kernel_for(const MiGemvPlan *, int width, bool late);
} // namespace mi_fp8
#endif
