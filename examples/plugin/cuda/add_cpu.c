/* add_cpu.c - the same two operations on a processor, f32: what a card's are compared
 * with (`miniinfer verify --against cpu`), and what runs where there is none.
 *
 *   op:acme.vector_add     y = a + b, rows
 *   fusion:acme.add_norm   that and the RMS norm of it in one pass */
#define MI_LICENCE "MIT"
#include "add_norm.h"

static float *row(const MiTensor *t, int64_t r) { return (float *)t->data + r * t->stride[0]; }

/* One share of the rows; of a fusion the call has a second node, whose rows follow.  A sum
 * that nobody else wants has no memory: it is made in the norm's row. */
static void some_rows(void *arg, int part, int n_parts)
{
    const MiCall   *call = arg;
    const MiArgs   *add = &call->at[ADD], *norm = call->n > 1 ? &call->at[NORM] : NULL;
    const MiTensor *sum = add->out[0].data ? &add->out[0] : &norm->out[0];
    const int64_t   n_rows = add->in[0].shape[0], n = add->in[0].shape[1];

    for (int64_t r = n_rows * part / n_parts; r < n_rows * (part + 1) / n_parts; r++) {
        const float *a = row(&add->in[0], r), *b = row(&add->in[1], r);
        float       *x = row(sum, r), squares = 0;
        for (int64_t i = 0; i < n; i++)
            x[i] = a[i] + b[i];
        if (!norm)
            continue;
        const MiNorm *attr = norm->node->attr;
        const float  *w = norm->weight[0].tensor.data;
        float        *y = row(&norm->out[0], r);
        for (int64_t i = 0; i < n; i++)
            squares += x[i] * x[i];
        const float scale = 1 / sqrtf(squares / (float)n + attr->eps);
        for (int64_t i = 0; i < n; i++)
            y[i] = x[i] * scale * (attr->offset + w[i]);
    }
}

static bool run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    (void)state, (void)error;
    if (MI_HAS(ctx->backend, parallel))
        ctx->backend->parallel(ctx->device, some_rows, (void *)call);
    else
        some_rows((void *)call, 0, 1);
    return true;
}

static bool prepare(MiContext *ctx, const MiCall *call, void **state, size_t *workspace, GError **error)
{
    const MiTensor *a = &call->at->in[0], *b = &call->at->in[1], *y = &call->at->out[0];

    (void)ctx, (void)state, (void)workspace;
    if (acme_is_rows(a) && acme_is_rows(b) && acme_is_rows(y) && a->dtype == MI_F32 && b->dtype == MI_F32 &&
        y->dtype == MI_F32)
        return true;
    g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED, "op 'acme.vector_add' on a processor takes rows of f32");
    return false;
}

static const MiOp vector_add = {
    .struct_size = sizeof vector_add, .n_in = 2, .n_out = 1,
    .inplace = 3,   /* element by element: y may be a or b */
    .splits = true, /* a share of the columns gives that share of the sum */
    .prepare = prepare, .run = run,
};

static bool match(const MiArgs *at, MiShape shape)
{
    (void)shape;
    return acme_add_norm_fits(at) && at[ADD].in[0].dtype == MI_F32 && at[ADD].in[1].dtype == MI_F32 &&
           at[NORM].out[0].dtype == MI_F32;
}

static const MiOp add_norm_op = { .struct_size = sizeof add_norm_op, .run = run };

static const MiFusion add_norm = {
    .struct_size = sizeof add_norm, .pattern = add_norm_pattern, .match = match, .op = &add_norm_op,
};

MI_PLUGIN("acme_add_cpu", "1.0", "Vector addition on a processor, with the norm behind it",
          MI_FEATURE_OP("acme.vector_add", "cpu", &vector_add, NULL),
          MI_FEATURE_FUSION("acme.add_norm", "cpu", &add_norm, NULL));
