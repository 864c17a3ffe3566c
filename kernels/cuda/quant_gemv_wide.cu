/* quant_gemv_wide.cu - the kernel of quant_gemv.cuh for weights of 4 and 8 bit whose scales are bf16 or f32. */
#include "quant_gemv.cuh"

using namespace mi_quant;

PackedKernel mi_quant::wide_kernel(MiQuantForm f, MiGemvKind kind, bool several)
{
    return f.bits == 4 ? any_kernel<4, WIDE_SCALES>(kind, several) : any_kernel<8, WIDE_SCALES>(kind, several);
}
