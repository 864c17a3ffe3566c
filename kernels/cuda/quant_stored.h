/* quant_stored.h - matrices as files store them to the records of quant.h: no code is rounded, no scale changed. */
#ifndef KERNELS_CUDA_QUANT_STORED_H
#define KERNELS_CUDA_QUANT_STORED_H

#include "quant.h"

#include <miniinfer/quant.h>

#ifdef __cplusplus
extern "C" {
#endif

/* How one of GGUF's block formats lies on a card. */
typedef struct {
    const char *name; /* MiWeight.format */
    int32_t     values, bytes; /* of a block */
    MiQuantForm form;
} MiStoredBlocks;

const MiStoredBlocks *mi_stored_blocks(const char *format); /* NULL: not one of them */

/* Both LOAD; 0 or the cudaError_t.  dst: of whole records. */

/* src: rows on the card, blocks as in the file, at an even address. */
int mi_cuda_pack_blocks(void *stream, const MiStoredBlocks *, const void *src, int64_t rows, int64_t in, void *dst);

/* All of a matrix, whose codes, scales and zeros (group_of is not read) are the card's; order: NULL, or on the card: the
 * column of the file that stands k-th.  Each group_in columns in that order are a group.  form: of the bits, with the
 * file's scales, and with zeros but where all of them are the middle of the codes; its group divides group_in,
 * or what is there is one group. */
int mi_cuda_pack_quant(void *stream, MiQuantForm, const MiQuant *, const int32_t *order, void *dst);

/* ENQUEUE.  y[r][k] = x[r][order[k]], elements of 2 or 4 bytes; y has no gaps. */
int mi_cuda_gather_columns(void *stream, MiTensor x, const int32_t *order, MiTensor y);

#ifdef __cplusplus
}
#endif
#endif
