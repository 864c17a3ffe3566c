/* quant_gemv_blocks.cu - the kernel of quant_gemv.cuh for GGUF's blocks of 5 and 6 bit, of levels, and with pairs of scales. */
#include "quant_gemv.cuh"

using namespace mi_quant;

PackedKernel mi_quant::blocks_kernel(MiQuantForm f, MiGemvKind kind, bool several)
{
    const bool pairs = f.scales == MI_QUANT_PAIRS;

    if (f.levels)
        return pairs ? any_kernel<LEVELS, PAIR_SCALES>(kind, several) : any_kernel<LEVELS, F16_SCALES>(kind, several);
    return f.bits == 4   ? any_kernel<4, PAIR_SCALES>(kind, several)
           : f.bits == 6 ? any_kernel<6, PAIR_SCALES>(kind, several)
           : pairs       ? any_kernel<5, PAIR_SCALES>(kind, several)
                         : any_kernel<5, F16_SCALES>(kind, several);
}
