/* read.h - how fast this card reads its memory. */
#ifndef KERNELS_CUDA_READ_H
#define KERNELS_CUDA_READ_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Reads data [bytes] once, a multiple of 16, and writes nothing unless every byte of a block is 0xff. */
int mi_cuda_read(void *stream, void *data, size_t bytes);

#ifdef __cplusplus
}
#endif

#endif
