/* fp8_gemv.cu - see fp8_gemv.h. */
#include "fp8_gemv.h"
#include "gemv.cuh"

using namespace mi_gemv;

template <int W, int KIND> static Kernel kernel_of(int width, bool late)
{
    if constexpr (KIND == MI_GEMV_RESIDUAL || KIND == MI_GEMV_QKV || KIND == MI_GEMV_GATED)
        if (late)
            return gemv<bf16, W, KIND, 1, true, true>;
    return width == 1 ? gemv<bf16, W, KIND, 1, true, false> : gemv<bf16, W, KIND, 4, true, false>;
}

template <int W> static Kernel kernel_of(MiGemvKind kind, int width, bool late)
{
    switch (kind) {
    case MI_GEMV_PLAIN:
        return kernel_of<W, MI_GEMV_PLAIN>(width, late);
    case MI_GEMV_RESIDUAL:
        return kernel_of<W, MI_GEMV_RESIDUAL>(width, late);
    case MI_GEMV_GATED:
        return kernel_of<W, MI_GEMV_GATED>(width, late);
    case MI_GEMV_QKV:
        return kernel_of<W, MI_GEMV_QKV>(width, late);
    case MI_GEMV_HEAD:
        return kernel_of<W, MI_GEMV_HEAD>(width, late);
    }
    return NULL;
}

Kernel mi_fp8::kernel_for(const MiGemvPlan *p, int width, bool late)
{
    return p->direct ? NULL : p->form.group ? kernel_of<OF_BLOCKS>(p->kind, width, late) : kernel_of<OF_ROWS>(p->kind, width, late);
}
