/* quants.h - matrices that checkpoints store quantised (MiQuant), decoded, and taken apart
 * for those who pack them anew. */
#ifndef MI_KERNELS_CPU_QUANTS_H
#define MI_KERNELS_CPU_QUANTS_H

#include <miniinfer/quant.h>

/* "gptq", "awq", "ct_int4", "ct_int8", "fp8", "fp8_blocks", "fp8_groups"; NULL ends them. */
extern const char *const mi_quant_formats[];

/* Rows [row, row + n) of the codes, one byte each, [n][in]: of signed ones 128 more, so that all
 * integers count from 0; e4m3 as it is. */
void mi_quant_codes(const MiQuant *, int64_t row, int64_t n, uint8_t *codes);
/* Their groups' scales and zeros, [n][n_groups], on the scale of mi_quant_codes(): w = scale * (code - zero).
 * zeros may be NULL.  False: a scale is no finite number; the rest is filled all the same. */
bool mi_quant_scales(const MiQuant *, int64_t row, int64_t n, float *scales, int32_t *zeros);

/* Elements [first, first + n) of the rows one behind the other, as f32: products are rounded once.
 * scratch: mi_quant_scratch() bytes.  False: a scale is no finite number. */
bool   mi_quant_decode(const MiQuant *, int64_t first, int64_t n, float *out, void *scratch);
size_t mi_quant_scratch(const MiQuant *);

/* The columns group by group, in each as they come: order[k] is the column that stands k-th,
 * counts[g] how many group g has.  Only where group_of is there. */
void mi_quant_order(const MiQuant *, int32_t *order /* [in] */, int64_t *counts /* [n_groups] */);

MI_INLINE float mi_f8_to_f32(uint8_t x) /* e4m3fn: no infinities, NaN 0x7f and 0xff */
{
    union { uint32_t u; float f; } v = { 0 };
    const uint32_t magnitude = x & 0x7fu;

    if (magnitude >= 8) {
        v.u = magnitude == 0x7fu ? 0x7fc00000u : (magnitude << 20) + (120u << 23);
    } else {
        v.f = (float)magnitude * 0x1p-9f;
    }
    v.u |= (uint32_t)(x & 0x80u) << 24;
    return v.f;
}

#endif
