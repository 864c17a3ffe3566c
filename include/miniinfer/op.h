/* op.h - what runs a node, and what runs several as one.
 *
 * Everything that enqueues is an MiOp: a feature of its own (`op:silu@cpu`),
 * or the op of a linear, an attention, a sampler or a fusion.  Prepared once
 * for each bucket, then run with the same addresses for ever. */
#ifndef MINIINFER_OP_H
#define MINIINFER_OP_H

#include <miniinfer/program.h>

/* A weight as it lies on the device. */
typedef struct {
    MiTensor    tensor; /* data NULL: absent; shape logical, strides only where layout is "plain" */
    const char *layout; /* "plain": rows of tensor.dtype; MiLinear.layout where packed; else the
                         * stored format as it lies in the file ("q8_0": an embedding).  A vector
                         * (ndim 1) is always plain f32, whatever the file has. */
    const void *scales, *zeros, *ext; /* the layout's; NULL where it has none */
    int64_t     first_row;            /* of this part in what pack() joined */
} MiOperand;

/* A node's tensors.  In a fusion a value that stays inside has data NULL. */
typedef struct {
    const MiNode    *node;
    const MiTensor  *in, *out; /* [node->n_in], [node->n_out]; shape[0] is the bucket's rows */
    const MiOperand *weight;   /* [MI_MAX_WEIGHTS] */
    const MiKvView  *kv;       /* of the node's layer; NULL where it names none */
    const void      *rows;     /* a link of the sampling chain: device [n_out] of its row struct */
} MiArgs;

typedef struct {
    MiShape        shape; /* in prepare(): the most rows there will be; in run(): those of this step */
    const MiBatch *batch; /* NULL in prepare() */
    const MiArgs  *at;    /* [n] one, or a fusion's, in the order of its pattern without the lines that are absent */
    int32_t        n;
    void          *self;      /* what the feature's create() gave; NULL where it has none */
    void          *workspace; /* device, as many bytes as prepare() asked for */
} MiCall;

typedef struct {
    size_t struct_size;
    /* What a node of this name brings along, checked when it is resolved. */
    int32_t  n_in, n_out, n_weights; /* weights: at least; more may be absent */
    size_t   attr_size;
    uint32_t inplace; /* bit i: out 0 may be the memory of in i */
    bool     splits;  /* gives the right share when handed a share of the heads or columns */

    /* LOAD, optional.  Once for each node and bucket; tensors have no data yet.
     * *state: run()'s, may stay NULL.  *workspace: device bytes, 0 as it comes. */
    bool (*prepare)(MiContext *, const MiCall *, void **state, size_t *workspace, GError **error);
    /* ENQUEUE.  Padded rows (slot -1, length 0) must do no harm. */
    bool (*run)(void *state, MiContext *, const MiCall *, GError **error);
    /* LOAD, optional.  state as prepare() left it. */
    void (*release)(void *state);

    /* What a row gets has the same bits whatever other rows share its step, and however many: in every bucket, and
     * however its prompt was cut.  Of a fusion: also where match() says no, by the nodes themselves.
     * [engine] deterministic = batch runs nothing else. */
    bool batch_invariant;
} MiOp;

enum { MI_MAX_PATTERN = 24 }; /* lines, not counting the end */

/* A line of a pattern: an op, and for each of its inputs the line (1 is the
 * first) whose output 0 it must be; 0: any value; -n: the value that line n has
 * as the same input.  Views are looked through.  A line "?op" may be absent: who
 * reads its output then reads what its input 0 would have been. */
typedef struct {
    const char *op; /* NULL ends a pattern */
    int8_t      in[MI_MAX_IN];
} MiPattern;

typedef struct {
    size_t             struct_size;
    const MiPattern   *pattern;
    const char *const *layouts; /* of the linears in it, NULL-terminated; NULL: any */
    /* LOAD, optional.  at: the lines of the pattern that are there and one without a node, tensors without
     * data; shape: the most rows of the bucket.  False: not these, or not in this bucket. */
    bool (*match)(const MiArgs *at, MiShape shape);
    const MiOp *op; /* only its functions and batch_invariant are used */
    bool scales; /* it takes a cache whose keys and values have scales; who does not say so is not given one */
} MiFusion;

#endif
