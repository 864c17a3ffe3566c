/* rows.c - operations that move rows: embed, output_rows, kv_append, and rope,
 * which turns them on the way. */
#include "ops.h"
#include <cpu/blocks.h>
#include <cpu/floats.h>
#include <cpu/scaled.h>

typedef struct {
    const MiArgs        *at;
    const MiBatch       *batch;
    const MiBlockFormat *format; /* embed's */
    const MiFloats      *floats;
} Work;

/* ---- embed: out[row] = weight[token of row] -------------------------------- */

static const MiBlockFormat *stored_as(const MiOperand *w)
{
    static const char *const plain[MI_N_DTYPES] = { [MI_F32] = "f32", [MI_F16] = "f16", [MI_BF16] = "bf16" };
    const char              *name = w->layout;

    if (strcmp(name, "plain") == 0)
        name = plain[w->tensor.dtype] ? plain[w->tensor.dtype] : "";
    return mi_block_format(name);
}

static void embed_rows(void *arg, int64_t first, int64_t end)
{
    const Work      *w = arg;
    const MiOperand *table = &w->at->weight[0];
    const MiTensor  *out = &w->at->out[0];
    const int64_t    n = out->shape[1], bytes = n / w->format->values * w->format->bytes;

    for (int64_t row = first; row < end; row++) {
        const int64_t token = mi_batch_token(w->batch, (int)row);
        float        *to = (float *)out->data + row * out->stride[0];
        w->format->decode((const char *)table->tensor.data + token * bytes, to, n);
    }
}

static bool embed_prepare(MiContext *ctx, const MiCall *call, void **state, size_t *workspace, GError **error)
{
    const MiOperand     *w = &call->at->weight[0];
    const MiBlockFormat *format = stored_as(w);

    if (!format || call->at->out[0].shape[1] % format->values) {
        g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED, "an embedding of rows of %" G_GINT64_FORMAT
                    " values stored as '%s' cannot be read", call->at->out[0].shape[1], w->layout);
        return false;
    }
    return reads_f32(ctx, call, state, workspace, error);
}

static bool embed_run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    (void)state, (void)error;
    const MiTensor *out = &call->at->out[0];
    Work            w = { call->at, call->batch, stored_as(&call->at->weight[0]), NULL };

    share_rows(ctx, out->shape[0], out->shape[0] * out->shape[1], embed_rows, &w);
    return true;
}

/* ---- output_rows: out[i] = x[out_rows[i]] ----------------------------------- */

static void output_rows(void *arg, int64_t first, int64_t end)
{
    const Work     *w = arg;
    const MiTensor *x = &w->at->in[0], *y = &w->at->out[0];

    for (int64_t i = first; i < end; i++)
        memcpy((float *)y->data + i * y->stride[0],
               (const float *)x->data + w->batch->out_rows[i] * x->stride[0], (size_t)row_elements(y) * sizeof(float));
}

static bool output_rows_run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    (void)state, (void)error;
    const MiTensor *out = &call->at->out[0];
    Work            w = { call->at, call->batch, NULL, NULL };
    share_rows(ctx, out->shape[0], out->shape[0] * row_elements(out), output_rows, &w);
    return true;
}

/* ---- kv_append: the rows of k and v into the cache, in its dtype ------------- */

static void store(const MiFloats *floats, void *to, int64_t at, MiDType dtype, const float *x, int64_t n)
{
    if (dtype == MI_F32)
        memcpy((float *)to + at, x, (size_t)n * sizeof *x);
    else
        (dtype == MI_F16 ? floats->to_f16 : floats->to_bf16)(x, (uint16_t *)to + at, n);
}

/* side: 0 for keys. */
static void store_head(const Work *w, int side, const MiTensor *from, int64_t row, int h, int64_t to)
{
    const MiKvView *kv = w->at->kv;
    const float    *x = (const float *)from->data + row * from->stride[0] + h * from->stride[1];
    void           *all = side ? kv->v : kv->k;

    if (mi_dtype_scaled(kv->dtype)) {
        const float *shift = side ? NULL : mi_kv_shift(kv) + (int64_t)h * kv->head_dim;
        ((uint16_t *)kv->scales)[to / kv->head_dim * 2 + side] =
            mi_scaled_store(kv->dtype, x, shift, kv->head_dim, (uint8_t *)all + to);
    } else
        store(w->floats, all, to, kv->dtype, x, kv->head_dim);
}

static void append_rows(void *arg, int64_t first, int64_t end)
{
    const Work     *w = arg;
    const MiKvView *kv = w->at->kv;
    const MiTensor *k = &w->at->in[0], *v = &w->at->in[1];

    for (int64_t row = first; row < end; row++) {
        const int32_t slot = kv->slots[row];
        if (slot < 0)
            continue;
        for (int h = 0; h < kv->n_kv_heads; h++) {
            const int64_t to = slot / kv->block_size * kv->stride_block + slot % kv->block_size * kv->stride_token +
                               h * kv->stride_head;
            store_head(w, 0, k, row, h, to);
            store_head(w, 1, v, row, h, to);
        }
    }
}

static bool append_run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    (void)state, (void)error;
    const MiTensor *k = &call->at->in[0];
    Work            w = { call->at, call->batch, NULL, mi_floats() };
    share_rows(ctx, k->shape[0], k->shape[0] * row_elements(k), append_rows, &w);
    return true;
}

/* ---- rope -------------------------------------------------------------------- */

enum { MAX_TURNED = 1024 }; /* elements of a head */

static void turn(const MiRotate *r, const float *cosine, const float *sine, const float *x, float *y, int64_t dim)
{
    const int half = r->dim / 2, next = r->style == MI_ROPE_HALF ? half : 1, step = r->style == MI_ROPE_HALF ? 1 : 2;

    for (int i = 0; i < half; i++) {
        const float a = x[i * step], b = x[i * step + next];
        y[i * step] = a * cosine[i] - b * sine[i];
        y[i * step + next] = a * sine[i] + b * cosine[i];
    }
    for (int64_t i = r->dim; i < dim; i++)
        y[i] = x[i];
}

static void rope_rows(void *arg, int64_t first, int64_t end)
{
    const Work     *w = arg;
    const MiRotate *r = w->at->node->attr;
    const MiTensor *x = &w->at->in[0], *y = &w->at->out[0];
    const float    *freqs = w->at->in[1].data;
    float           cosine[MAX_TURNED / 2], sine[MAX_TURNED / 2];

    for (int64_t row = first; row < end; row++) {
        w->floats->sincos((float)w->batch->positions[row], freqs, r->magnitude, cosine, sine, r->dim / 2);
        for (int64_t h = 0; h < x->shape[1]; h++)
            turn(r, cosine, sine, (const float *)x->data + row * x->stride[0] + h * x->stride[1],
                 (float *)y->data + row * y->stride[0] + h * y->stride[1], x->shape[2]);
    }
}

static bool rope_prepare(MiContext *ctx, const MiCall *call, void **state, size_t *workspace, GError **error)
{
    const MiRotate *r = call->at->node->attr;

    if (r->dim < 2 || r->dim % 2 || r->dim > MAX_TURNED || call->at->in[0].ndim != 3) {
        g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED,
                    "op 'rope' on the CPU turns 2 to %d elements of a head, not %d", MAX_TURNED, r->dim);
        return false;
    }
    return reads_f32(ctx, call, state, workspace, error);
}

static bool rope_run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    (void)state, (void)error;
    const MiTensor *x = &call->at->in[0];
    Work            w = { call->at, call->batch, NULL, mi_floats() };
    share_rows(ctx, x->shape[0], x->shape[0] * row_elements(x), rope_rows, &w);
    return true;
}

const MiOp op_embed = {
    .struct_size = sizeof op_embed, .n_in = 0, .n_out = 1, .n_weights = 1, .prepare = embed_prepare, .run = embed_run,
    .batch_invariant = true,
};
const MiOp op_output_rows = {
    .struct_size = sizeof op_output_rows, .n_in = 1, .n_out = 1, .prepare = reads_f32, .run = output_rows_run,
    .batch_invariant = true,
};
const MiOp op_kv_append = {
    .struct_size = sizeof op_kv_append, .n_in = 2, .n_out = 1, .splits = true, .prepare = reads_f32, .run = append_run,
    .batch_invariant = true,
};
const MiOp op_rope = {
    .struct_size = sizeof op_rope, .n_in = 2, .n_out = 1, .attr_size = sizeof(MiRotate), .inplace = 1, .splits = true,
    .prepare = rope_prepare, .run = rope_run,
    .batch_invariant = true,
};
