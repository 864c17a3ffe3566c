/* lines.c - how an operation walks over its tensors and shares the work. */
#include "ops.h"

/* A barrier costs about 2 us, an element about 1 ns or less. */
enum { SHARED_FROM = 32768 };

void lines_of(Lines *l, const MiTensor *const *t, int n_tensors, bool join)
{
    const int last = t[0]->ndim - 1;

    *l = (Lines){ .n_tensors = n_tensors, .ndim = 1, .n = last ? t[0]->shape[last] : 1, .per_row = 1 };
    l->rows = l->shape[0] = t[0]->shape[0];
    for (int k = 0; k < n_tensors; k++) {
        l->data[k] = t[k]->data;
        l->stride[k][0] = t[k]->stride[0];
    }
    for (int i = last - 1; i >= 1; i--) {
        bool joins = join && l->ndim == 1;
        for (int k = 0; k < n_tensors; k++)
            joins = joins && t[k]->stride[i] == l->n;
        if (joins) {
            l->n *= t[0]->shape[i];
            continue;
        }
        /* outer dimensions stand before inner ones */
        for (int j = l->ndim; j > 1; j--) {
            l->shape[j] = l->shape[j - 1];
            for (int k = 0; k < n_tensors; k++)
                l->stride[k][j] = l->stride[k][j - 1];
        }
        l->ndim++;
        l->shape[1] = t[0]->shape[i];
        for (int k = 0; k < n_tensors; k++)
            l->stride[k][1] = t[k]->stride[i];
        l->per_row *= t[0]->shape[i];
    }
}

float *lines_at(const Lines *l, int tensor, int64_t line)
{
    int64_t at = 0;
    for (int i = l->ndim - 1; i >= 1; i--) {
        at += line % l->shape[i] * l->stride[tensor][i];
        line /= l->shape[i];
    }
    return l->data[tensor] + at + line * l->stride[tensor][0];
}

typedef struct {
    int64_t rows;
    void (*fn)(void *work, int64_t first, int64_t end);
    void *work;
} Share;

static void share(void *arg, int i, int n)
{
    const Share *s = arg;
    s->fn(s->work, s->rows * i / n, s->rows * (i + 1) / n);
}

void share_rows(MiContext *ctx, int64_t rows, int64_t elements, void (*fn)(void *work, int64_t first, int64_t end),
                void *work)
{
    if (rows > 1 && elements >= SHARED_FROM && MI_HAS(ctx->backend, parallel))
        ctx->backend->parallel(ctx->device, share, &(Share){ rows, fn, work });
    else
        fn(work, 0, rows);
}

static bool fits(const MiTensor *t) { return t->dtype == MI_F32 && (t->ndim < 2 || t->stride[t->ndim - 1] == 1); }

bool reads_f32(MiContext *ctx, const MiCall *call, void **state, size_t *workspace, GError **error)
{
    (void)ctx, (void)state, (void)workspace;
    const MiNode *node = call->at->node;
    bool          ok = true;

    for (int i = 0; i < node->n_in; i++)
        ok = ok && fits(&call->at->in[i]);
    for (int i = 0; i < node->n_out; i++)
        ok = ok && fits(&call->at->out[i]);
    if (!ok)
        g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED,
                    "op '%s' on the CPU takes f32 only; set [engine] dtype = auto or fp32", node->op);
    return ok;
}
