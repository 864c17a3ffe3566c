/* quant_cuda.h - what linears of 4 and 8 bit on a card share: packing while a model loads, the operation. */
#ifndef PLUGINS_LINEAR_QUANT_CUDA_H
#define PLUGINS_LINEAR_QUANT_CUDA_H

#include <cuda/quant.h>
#include <miniinfer/linear.h>
#include <miniinfer/option.h>

/* What dense_cuda.c reads, too: f32, f16, bf16 and GGUF's blocks. */
extern const char *const quant_cuda_formats[];

bool quant_cuda_bytes(const MiWeight *parts, int n, MiQuantForm, size_t *bytes, GError **error);
/* form stays where it is: MiOperand.ext points at it. */
bool quant_cuda_pack(MiContext *, const MiWeight *parts, int n, const MiQuantForm *form, const char *layout, void *dst,
                     MiOperand *out, GError **error);
/* Of weights with such an ext. */
extern const MiOp quant_cuda_op;

/* The linears; the first two have options. */
extern const MiLinear int4_cuda, int8_cuda, blocks_cuda, packed_cuda;
extern const MiOption int4_cuda_options[], int8_cuda_options[];

#endif
