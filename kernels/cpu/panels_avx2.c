/* panels_avx2.c - panels with AVX2, FMA and F16C: any x86-64 since 2013. */
#define YMM_VNNI 0
#include <cpu/panels_ymm.h>
#include <cpu/x86.h>

const MiPanelIsa mi_panel_avx2 = { "avx2", mi_x86_avx2, { quantise, quantise_rows, quantise_wide }, ALL_OF_THEM };
