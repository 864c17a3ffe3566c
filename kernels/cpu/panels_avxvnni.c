/* panels_avxvnni.c - panels with AVX-VNNI: small cores without AVX-512. */
#define YMM_VNNI 1
#include <cpu/panels_ymm.h>
#include <cpu/x86.h>

const MiPanelIsa mi_panel_avxvnni = { "avxvnni", mi_x86_avxvnni, { quantise, quantise_rows, quantise_wide }, ALL_OF_THEM };
