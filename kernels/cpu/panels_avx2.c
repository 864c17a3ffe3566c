/* panels_avx2.c - panels with AVX2, FMA and F16C: any x86-64 since 2013. */
#define YMM_VNNI 0
#include <cpu/panels_ymm.h>

static bool usable(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}

const MiPanelIsa mi_panel_avx2 = { "avx2", usable, quantise, { MI_PANEL_FORMATS(RUN_OF) } };
