/* panels_avxvnni.c - panels with AVX-VNNI: small cores without AVX-512. */
#define YMM_VNNI 1
#include <cpu/panels_ymm.h>

#include <cpuid.h>

static bool usable(void)
{
    unsigned a = 0, b, c, d;

    /* Clang 14's __builtin_cpu_supports does not know the name: leaf 7, subleaf 1, EAX bit 4. */
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c") &&
           __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
}

const MiPanelIsa mi_panel_avxvnni = { "avxvnni", usable, quantise, { MI_PANEL_FORMATS(RUN_OF) } };
