/* quant.h - matrices of 4 and 8 bit as they lie on a card, made and read back there.
 *
 * Eight rows are a record; a record is chunks of 128 columns, one after the other, of
 *
 *   4 bit  512 bytes: for each lane (row lane / 4, t = lane % 4) of a warp 16 bytes, word j
 *          of which has columns 32 j + 8 t ..+3 in its low nibbles and the four after them in
 *          the high ones, both signed: q - 8;
 *   8 bit  1024 bytes: twice the same for 64 columns, a byte each, signed;
 *   then, where columns are in groups, for each group of the chunk eight f16 scales, one a
 *          row, and behind all of them as many f16 zeros, if there are.
 *
 * Where a scale is a whole row's, a record ends in eight f32 scales and eight f32 zeros.
 * Records are a multiple of 128 bytes.  So what a warp loads with one instruction is what
 * one mma.m16n8k32 of two records takes, in the order in which it takes it.
 *
 * On the host MiOperand.ext of the layouts "int4" and "int8" is a weight's MiQuantForm.
 *
 * A value is scale * (q + zero), zero 0 where there are none; with `minima` the f16 that
 * stands in a zero's place is added to scale * (q + 8) instead: how Q4_1 is stored. */
#ifndef KERNELS_CUDA_QUANT_H
#define KERNELS_CUDA_QUANT_H

#include <miniinfer/types.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    int32_t bits;  /* 4, 8; MI_QUANT_E4M3: no records, but as fp8.h has it; 0: plain numbers */
    int32_t group; /* columns that share a scale: 32, 64, 128; 0: a row does (8 bit, E4M3) */
    bool    zeros, minima;
} MiQuantForm;

enum { MI_QUANT_ROWS = 8, MI_QUANT_COLUMNS = 128, MI_QUANT_E4M3 = -8 };

static inline int32_t mi_quant_groups(MiQuantForm f) { return f.group ? MI_QUANT_COLUMNS / f.group : 0; }

/* Bytes of a chunk; of its values. */
static inline int32_t mi_quant_values(MiQuantForm f) { return f.bits * MI_QUANT_ROWS * MI_QUANT_COLUMNS / 8; }

static inline int32_t mi_quant_chunk(MiQuantForm f)
{
    return mi_quant_values(f) + mi_quant_groups(f) * MI_QUANT_ROWS * 2 * (1 + f.zeros);
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

/* LOAD.  Rounds rows [rows][in] of dtype to the nearest: symmetric ones so that the largest magnitude of a group is
 * exact, else so that the smallest and the largest value are nearly.  dst: of whole records. */
int mi_cuda_quantise(void *stream, MiQuantForm, const void *src, MiDType dtype, int64_t rows, int64_t in, void *dst);

/* ENQUEUE.  Rows first, a multiple of 8, to first + rows as plain [rows][in] of dtype. */
int mi_cuda_dequantise(void *stream, MiQuantForm, const void *packed, int64_t first, int64_t rows, int64_t in,
                       void *dst, MiDType dtype);

#ifdef __cplusplus
}
#endif
#endif
