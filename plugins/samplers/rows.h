/* rows.h - what the links of the sampling chain share: a row of logits for
 * each output row, on the backend's threads.
 *
 * A token is removed by the logit -INFINITY; NaN counts as removed.  Where
 * equal logits compete the lower id is first.  No link removes every token. */
#ifndef SAMPLERS_ROWS_H
#define SAMPLERS_ROWS_H

#include "links.h"

#include <math.h>
#include <miniinfer/plugin.h>
#include <string.h>

/* One row of a link.  i: the output row; x: [n] its logits, to be changed in place. */
typedef void (*RowFn)(const MiCall *call, int i, float *x, int n);

typedef struct {
    const MiCall *call;
    RowFn         fn;
    bool          draws; /* out 0 is no logits: x is those of in 0, read only */
} Rows;

static inline bool candidate(float x) { return x > -INFINITY; } /* false for NaN */

static inline void some_rows(void *arg, int part, int n_parts)
{
    const Rows     *r = arg;
    const MiTensor *in = &r->call->at->in[0], *out = &r->call->at->out[0];
    const int64_t   n_rows = r->call->shape.n_out;

    for (int64_t i = n_rows * part / n_parts; i < n_rows * (part + 1) / n_parts; i++) {
        float *x = (float *)in->data + i * in->stride[0];
        if (r->call->batch->out_slot[i] < 0)
            continue; /* padding */
        if (!r->draws && out->data != in->data)
            x = memcpy((float *)out->data + i * out->stride[0], x, (size_t)in->shape[1] * sizeof *x);
        r->fn(r->call, (int)i, x, (int)in->shape[1]);
    }
}

static inline bool each_row(MiContext *ctx, const MiCall *call, RowFn fn, bool draws)
{
    Rows r = { call, fn, draws };

    if (call->shape.n_out > 1 && MI_HAS(ctx->backend, parallel))
        ctx->backend->parallel(ctx->device, some_rows, &r);
    else
        some_rows(&r, 0, 1);
    return true;
}

/* Row i of the link's parameters; row_size: of its struct. */
#define ROW(Type, call, i) (&((const Type *)(call)->at->rows)[i])

/* LOAD.  MiOp.prepare of every link: the logits are f32 rows without gaps. */
static inline bool check_logits(MiContext *ctx, const MiCall *call, void **state, size_t *workspace, GError **error)
{
    const MiTensor *x = &call->at->in[0];

    (void)ctx, (void)state, (void)workspace;
    if (x->dtype == MI_F32 && x->ndim == 2 && x->shape[1] > 0 && x->shape[1] <= 1 << 30 && x->stride[1] == 1)
        return true;
    g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED,
                "'%s' reads logits that are f32 [rows, vocabulary]; the model's are not", call->at->node->op);
    return false;
}

#endif
