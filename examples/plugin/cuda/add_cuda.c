/* add_cuda.c - two operations on a card, f32, f16 and bf16; the kernels are in kernels.cu.
 *
 *   op:acme.vector_add     y = a + b, rows of one type
 *   fusion:acme.add_norm   that and the RMS norm of it in one kernel
 *
 * ctx->stream is a cudaStream_t.  run() only enqueues (kernels.h says what that forbids);
 * what cannot be run is refused before that, in prepare() and match().  There is no CUDA
 * header here: a launcher gives back a number. */
#define MI_LICENCE "MIT"
#include "add_norm.h"
#include "kernels.h"

static bool floats(MiDType t) { return t == MI_F32 || t == MI_F16 || t == MI_BF16; }

static bool launched(int code, GError **error)
{
    if (code)
        g_set_error(error, MI_ERROR, MI_ERROR_DEVICE, "launching a kernel: %s", acme_error_text(code));
    return code == 0;
}

static bool add_prepare(MiContext *ctx, const MiCall *call, void **state, size_t *workspace, GError **error)
{
    const MiTensor *a = &call->at->in[0], *b = &call->at->in[1], *y = &call->at->out[0];

    (void)ctx, (void)state, (void)workspace;
    if (acme_is_rows(a) && acme_is_rows(b) && acme_is_rows(y) && floats(y->dtype) && a->dtype == y->dtype &&
        b->dtype == y->dtype)
        return true;
    g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED, "op 'acme.vector_add' takes rows of f32, f16 or bf16, of one type");
    return false;
}

static bool add_run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    const MiArgs *at = call->at;

    (void)state;
    return launched(acme_vector_add(ctx->stream, at->in[0], at->in[1], at->out[0]), error);
}

static const MiOp vector_add = {
    .struct_size = sizeof vector_add, .n_in = 2, .n_out = 1,
    .inplace = 3,    /* element by element: y may be a or b */
    .splits = true,  /* a share of the columns gives that share of the sum */
    .prepare = add_prepare, .run = add_run,
};

static bool add_norm_match(const MiArgs *at, MiShape shape)
{
    const MiDType t = at[NORM].out[0].dtype;

    (void)shape;
    return acme_add_norm_fits(at) && floats(t) && at[ADD].in[0].dtype == t && at[ADD].in[1].dtype == t &&
           at[ADD].out[0].dtype == t;
}

static bool add_norm_run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    const MiArgs *add = &call->at[ADD], *norm = &call->at[NORM];
    const MiNorm *a = norm->node->attr;

    (void)state;
    return launched(acme_add_norm(ctx->stream, add->in[0], add->in[1], add->out[0], norm->weight[0].tensor.data, a->eps,
                                  a->offset, norm->out[0]), error);
}

static const MiOp add_norm_op = { .struct_size = sizeof add_norm_op, .run = add_norm_run };

static const MiFusion add_norm = {
    .struct_size = sizeof add_norm, .pattern = add_norm_pattern, .match = add_norm_match, .op = &add_norm_op,
};

MI_PLUGIN("acme_add_cuda", "1.0", "Vector addition on a card, with the norm behind it",
          MI_FEATURE_OP("acme.vector_add", "cuda", &vector_add, NULL),
          MI_FEATURE_FUSION("acme.add_norm", "cuda", &add_norm, NULL));
