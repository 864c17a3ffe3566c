/* quant.h - matrices of 4 to 8 bit as they lie on a card: made there, packed anew from what files store, read back.
 *
 * Eight rows are a record; a record is chunks of 128 columns, one after the other, of
 *
 *   4 bit  512 bytes: for each lane (row lane / 4, t = lane % 4) of a warp 16 bytes, word j
 *          of which has columns 32 j + 8 t ..+3 in its low nibbles and the four after them in
 *          the high ones, both signed: q - 8;
 *   5, 6   the same of the low four bits, then for each lane 4 or 8 bytes with the bits above:
 *          of byte i (0 to 3) of half s (the first or last four columns of a t) of quarter j
 *          bit 8 i + 2 j + s, or of word j / 2 the two bits at 8 i + 2 (2 (j % 2) + s);
 *   8 bit  1024 bytes: twice the same as 4 bit for 64 columns, a byte each, signed;
 *   then, where columns are in groups, for each group of the chunk eight scales, one a
 *          row, and behind all of them as many f16 zeros, if there are.
 *
 * Where groups are of 16 columns, a quarter's first halves are its columns 4 t ..+3, and its
 * second ones those 16 further on.  Codes of `levels` are places in mi_quant_levels, nibble
 * after nibble in their word.
 *
 * Scales are f16, bf16 or f32; or MI_QUANT_PAIRS: a row's f16 for the chunk, and for each group
 * a signed byte that it is multiplied by; with minima both are pairs, an f16 and a byte that count for
 * those.  Where a scale is a whole row's, a record ends in eight f32 scales and eight f32 zeros.
 * Records are a multiple of 128 bytes.  So what a warp loads with one instruction is what
 * one mma.m16n8k32 of two records takes, in the order in which it takes it.
 *
 * On the host MiOperand.ext of the layouts "int4", "int8" and "stored" is a weight's MiQuantForm.
 *
 * A value is scale * (q + zero), zero 0 where there are none; with `minima` what
 * stands in a zero's place is added to scale * (q + 8) instead: how Q4_1 is stored (of 5 bit: 16, 6 bit: 32).  Pairs'
 * minima are taken off. */
#ifndef KERNELS_CUDA_QUANT_H
#define KERNELS_CUDA_QUANT_H

#include <miniinfer/types.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { MI_QUANT_F16, MI_QUANT_BF16, MI_QUANT_F32, MI_QUANT_PAIRS } MiQuantScales;

typedef struct {
    int32_t bits;  /* 4, 5, 6, 8; MI_QUANT_E4M3: no records, but as fp8.h has it; 0: plain numbers */
    int32_t group; /* columns that share a scale: 32, 64, 128; of 6 bit 16; 0: a row does (8 bit, E4M3) */
    bool    zeros, minima;
    bool    levels; /* of 4 bit */
    uint8_t scales; /* MiQuantScales of groups */
} MiQuantForm;

/* IQ4's: denser round zero, as weights are. */
#define MI_QUANT_LEVELS {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113}

enum { MI_QUANT_ROWS = 8, MI_QUANT_COLUMNS = 128, MI_QUANT_E4M3 = -8 };

static inline int32_t mi_quant_groups(MiQuantForm f) { return f.group ? MI_QUANT_COLUMNS / f.group : 0; }

/* Bytes of a chunk; of its values. */
static inline int32_t mi_quant_values(MiQuantForm f) { return f.bits * MI_QUANT_ROWS * MI_QUANT_COLUMNS / 8; }

static inline int32_t mi_quant_chunk(MiQuantForm f)
{
    const int32_t groups = mi_quant_groups(f), scale = f.scales == MI_QUANT_F32 ? 4 : 2;

    if (f.scales == MI_QUANT_PAIRS)
        return mi_quant_values(f) + (2 + groups) * MI_QUANT_ROWS * (1 + f.zeros);
    return mi_quant_values(f) + groups * MI_QUANT_ROWS * (scale + 2 * f.zeros);
}

static inline int64_t mi_quant_chunks(int64_t in) { return (in + MI_QUANT_COLUMNS - 1) / MI_QUANT_COLUMNS; }

/* Bytes of eight rows; of a matrix. */
static inline int64_t mi_quant_record(MiQuantForm f, int64_t in)
{
    return (mi_quant_chunks(in) * mi_quant_chunk(f) + (f.group ? 0 : MI_QUANT_ROWS * 8) + 127) / 128 * 128;
}

static inline int64_t mi_quant_bytes(MiQuantForm f, int64_t out, int64_t in)
{
    return (out + MI_QUANT_ROWS - 1) / MI_QUANT_ROWS * mi_quant_record(f, in);
}

/* Each returns 0 or the cudaError_t. */

/* Whether there is such a form. */
static inline bool mi_quant_possible(MiQuantForm f)
{
    const bool group = f.group == 32 || f.group == 64 || f.group == 128;

    return (f.bits == 6 ? f.group == 16 : (f.bits == 4 || f.bits == 5) ? group : f.bits == 8 && (group || !f.group)) &&
           f.scales <= MI_QUANT_PAIRS && (!f.levels || (f.bits == 4 && !f.zeros)) &&
           (!f.minima || (f.zeros && f.group && f.bits < 8)) && (f.scales != MI_QUANT_PAIRS || (f.group && f.zeros == f.minima)) &&
           (f.group || !f.scales);
}

/* LOAD.  Rounds rows [rows][in] of dtype to the nearest, in a form of 4 or 8 bit with scales of f16: symmetric ones so that the largest magnitude of a group is
 * exact, else so that the smallest and the largest value are nearly.  dst: of whole records. */
int mi_cuda_quantise(void *stream, MiQuantForm, const void *src, MiDType dtype, int64_t rows, int64_t in, void *dst);

/* ENQUEUE.  Rows first, a multiple of 8, to first + rows as plain [rows][in] of dtype. */
int mi_cuda_dequantise(void *stream, MiQuantForm, const void *packed, int64_t first, int64_t rows, int64_t in,
                       void *dst, MiDType dtype);

#ifdef __cplusplus
}
#endif
#endif
