/* quant.h - a matrix that was quantised before it was stored: one description of what
 * checkpoints store in many ways (GPTQ, AWQ, compressed-tensors, FP8).
 *
 *   w[o][i] = scale[o / group_out][g] * (code[o][i] - zero[o][g])
 *   g = group_of ? group_of[i] : i / group_in
 *
 * Whoever opened the file has checked all sizes and group_of's values, not the scales: they
 * may be no finite numbers.  Pointers are into the file, at any alignment but group_of's.
 * Plain data, for kernels too. */
#ifndef MINIINFER_QUANT_H
#define MINIINFER_QUANT_H

#include <miniinfer/types.h>

/* Words are 32 bits, little-endian, with n = 32 / bits values each, the first in the lowest
 * bits: value k of a word at bit k * bits. */
typedef enum {
    MI_CODES_I8,     /* int8 [out][in] */
    MI_CODES_F8,     /* e4m3fn [out][in]; code is its value, zero 0 */
    MI_CODES_ALONG,  /* words [out][ceil(in / n)]: i is value i % n of word i / n (compressed-tensors) */
    MI_CODES_ACROSS, /* words [ceil(in / n)][out]: the same, turned (GPTQ) */
    MI_CODES_AWQ,    /* words [in][out / 8]: o is value {0, 4, 1, 5, 2, 6, 3, 7}[o % 8] of word o / 8 */
} MiCodes;

typedef enum {
    MI_ZEROS_NONE,  /* MiQuant.zero is all */
    MI_ZEROS_I8,    /* int8 [ceil(out / group_out)][n_groups], and MiQuant.zero is added */
    MI_ZEROS_DOWN,  /* words [ceil(out / n)][n_groups]: o is value o % n of word o / n (compressed-tensors) */
    MI_ZEROS_ALONG, /* words [n_groups][out / n]: o is value o % n of word o / n (GPTQ); to each word
                     * MiQuant.zero is added in each of its values, with carry: its older form has 1 less */
    MI_ZEROS_AWQ,   /* words [n_groups][out / 8] in AWQ's order */
} MiZeros;

typedef struct MiQuant {
    MiCodes        codes_as;
    int32_t        bits; /* of a code: 4 or 8 */
    int64_t        out, in;
    const void    *codes;
    int64_t        n_groups, group_in, group_out; /* a group is group_in columns of group_out rows */
    const int32_t *group_of;                      /* [in] below n_groups (GPTQ's act order), or NULL */
    const void    *scales;
    MiDType        scale_dtype;            /* MI_F32, MI_F16 or MI_BF16 */
    int64_t        scale_row, scale_group; /* strides in elements, of group_out rows and of a group */
    MiZeros        zeros_as;
    const void    *zeros;
    int32_t        zero; /* what is stored as unsigned has 8 or 128 here where it has no zeros */
} MiQuant;

#endif
