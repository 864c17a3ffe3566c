/* linear.h - y = x W' + b, for one way of storing W.
 *
 * Projections of one input (q, k, v; gate, up) are packed together, their rows
 * joined: a fusion that lists the layout, or the op itself, reads them as one. */
#ifndef MINIINFER_LINEAR_H
#define MINIINFER_LINEAR_H

#include <miniinfer/op.h>

typedef struct {
    size_t             struct_size;
    const char *const *formats; /* of MiWeight.format that pack() takes, NULL-terminated */
    const char        *layout;  /* what pack() writes: "plain", "int4.g128"; fusions list it */
    int32_t            rank;    /* of several that take a format `auto` picks the highest; below 0: only by name */
    bool               exact;   /* plain loops over f32 values: what dtype = fp32, the yardstick, uses */
    bool               joins;   /* op takes all parts in one call: at[0..n), one in, an out each */

    /* LOAD.  Device bytes for these parts, [out, in] each, equal `in`, where activations are of
     * dtype; options may be NULL.  False: a shape it cannot take, *error says which. */
    bool (*bytes)(const MiWeight *parts, int n, MiDType dtype, const void *options, size_t *bytes, GError **error);
    /* LOAD.  Reads parts[i].data once, in order, writes dst (device, as many bytes) by
     * ctx->upload or ctx->put, fills out[i]; layout "plain": row-major of tensor.dtype, which an
     * embedding of the same weight then shares. */
    bool (*pack)(MiContext *, const MiWeight *parts, int n, const void *options, void *dst, MiOperand *out,
                 GError **error);
    /* in 0: x [rows, in], or of more dimensions, as attention leaves it: mi_linear_rows(); weight 0: W; weight 1: b [out]
     * or absent; out 0: y [rows, out], of the dtype of out 0. */
    const MiOp *op;

    /* Optional: who runs the output layer of a model whose projections are this one's, where [engine] head = auto;
     * "auto": as it is stored.  NULL: this one. */
    const char *head;
    /* Optional: who that is runs the last projection before the output layer as well.  What is lost there reaches the logits with no
     * layer behind it: of E4M3 it can be half of all that is lost. */
    bool head_and_last;
} MiLinear;

/* x of a linear as [rows, in], whatever a row is made of: attention's are heads, [rows, heads, in / heads]. */
static inline MiTensor mi_linear_rows(const MiArgs *a)
{
    const MiTensor *x = &a->in[0];
    const MiTensor  rows = { x->data, x->dtype, 2, { x->shape[0], a->weight[0].tensor.shape[1] }, { x->stride[0], 1 } };

    return rows;
}

#endif
