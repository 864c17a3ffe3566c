/* gated_kernels.h - silu(gate) * up with a mistake that a test wants. */
#ifndef TESTS_PLUGINS_GATED_KERNELS_H
#define TESTS_PLUGINS_GATED_KERNELS_H

#include <miniinfer/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Rows of f32, f16 or bf16.  wrong: this column is the gate's, -1: none.  Where a row is at position
 * lost or behind it (positions NULL: none is) the kernel writes where no memory is: the device is lost.
 * 0, or a cudaError_t. */
int gated_with_mistake(void *stream, MiTensor gate, MiTensor up, MiTensor y, int64_t wrong, const int32_t *positions,
                       int32_t lost);

#ifdef __cplusplus
}
#endif

#endif
