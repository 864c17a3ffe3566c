/* ops.h - the parts of the CPU's operations, and what they share. */
#ifndef PLUGINS_OPS_OPS_H
#define PLUGINS_OPS_OPS_H

#include <miniinfer/plugin.h>

extern const MiOp op_add, op_mul, op_silu, op_gelu_tanh, op_gelu_erf, op_relu, op_leaky_relu, op_tanh, op_sigmoid;
extern const MiOp op_rmsnorm, op_layernorm, op_softmax;
extern const MiOp op_embed, op_output_rows, op_kv_append, op_rope, op_logprobs;

/* Values of one shape, as lines of contiguous elements: the last dimension, or, with `join`,
 * as much of a row as strides allow. */
enum { LINES_MAX = 3 };
typedef struct {
    int     n_tensors, ndim; /* ndim: of the lines, the row first */
    int64_t n;               /* elements of a line */
    int64_t rows, per_row;   /* lines: rows * per_row */
    int64_t shape[4], stride[LINES_MAX][4];
    float  *data[LINES_MAX];
} Lines;

void   lines_of(Lines *, const MiTensor *const *tensors, int n_tensors, bool join);
float *lines_at(const Lines *, int tensor, int64_t line);

/* Calls fn for all rows, in shares where `elements` in all make threads worth their barrier. */
void share_rows(MiContext *, int64_t rows, int64_t elements, void (*fn)(void *work, int64_t first, int64_t end),
                void *work);

/* prepare(): inputs and outputs are f32, their last dimension contiguous. */
bool reads_f32(MiContext *, const MiCall *, void **state, size_t *workspace, GError **error);

static inline int64_t row_elements(const MiTensor *t)
{
    int64_t n = 1;
    for (int i = 1; i < t->ndim; i++)
        n *= t->shape[i];
    return n;
}

#endif
