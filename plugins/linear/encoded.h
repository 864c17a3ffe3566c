/* encoded.h - what linears that encode weights while loading share: any stored
 * format is decoded row by row and rounded into panels (kernels/cpu/encode.h). */
#ifndef MI_LINEAR_ENCODED_H
#define MI_LINEAR_ENCODED_H

#include "panel_op.h"

extern const char *const mi_encoded_formats[]; /* of MiLinear.formats: all that MiBlockFormat decodes */

/* Of "int4_64" and so on; NULL with *error: this machine lacks the instruction set.  linear: whose options they are. */
const MiPanelKernel *mi_encoded_kernel(const char *linear, const MiWeight *, const char *format, const char *group, const char *isa, MiPanelX,
                                       GError **error);

bool mi_encoded_bytes(MiKernelOf *, const MiWeight *parts, int n, const void *options, size_t *bytes, GError **error);
bool mi_encoded_pack(MiKernelOf *, bool fit, MiContext *, const MiWeight *parts, int n, const void *options, void *dst,
                     MiOperand *out, GError **error);

/* "auto", "block", "int8", "none" of an option. */
MiPanelX mi_encoded_x(const char *activations);

#define MI_ACTIVATIONS(Options)                                                        \
    MI_CHOICE(Options, activations, "auto", "auto, block, int8, none",                 \
              "what x is rounded to: auto, block: 8 bits with a scale for 32 columns; " \
              "int8: with one for a row; none: 15 bits, prompts take longer")
#define MI_SCALES(Options)                                                          \
    MI_CHOICE(Options, scales, "fit", "fit, range",                                 \
              "fit: with the least squared error; range: such that the largest value is exact, which loads faster")
#define MI_ISA(Options) \
    MI_CHOICE(Options, isa, "auto", "auto, avx512, avxvnni, avx2, scalar", "instruction set of the inner loops")

#endif
