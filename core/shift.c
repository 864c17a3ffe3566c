/* shift.c - softmax does not see what all keys of a head have in common: its scores all grow by one number.
 *
 * Some models have biases of hundreds on a few elements of their keys, which turn so slowly that they are nearly the same
 * at all positions (Qwen2: the last pairs of a head).  A number of 8 bits that has to hold them has nothing left for the
 * rest.  So the mean of the turned bias over some positions is taken off before keys are rounded, as SageAttention (Zhang et
 * al. 2024) does with the mean of the keys at hand; what turns fast has a mean of nearly zero and stays. */
#include "shift.h"
#include "loader.h"

#include <math.h>
#include <miniinfer/scales.h>
#include <string.h>

/* The node whose output a value is, perhaps as a view; NULL: it is none's. */
static const MiNode *maker(const MiRecording *r, MiVal v)
{
    const int32_t base = mi_recording_value(r, v)->base.id;

    for (int i = 0; i < (int)r->nodes->len; i++) {
        const MiNode *n = mi_recording_node(r, i);
        for (int o = 0; o < n->n_out; o++)
            if (mi_recording_value(r, n->out[o])->base.id == base)
                return n;
    }
    return NULL;
}

/* Over more of them, elements that turn within a context have a mean that is far from most of it. */
enum { POSITIONS = 512 };

/* The bias of a head to its mean over n positions, in place. */
static void mean_of_turned(const MiRotate *rotate, const float *freqs, int32_t n, float *x)
{
    const int  half = rotate->dim / 2;
    const bool apart = rotate->style == MI_ROPE_HALF;

    for (int i = 0; i < half; i++) {
        float       *a = x + (apart ? i : 2 * i), *b = x + (apart ? i + half : 2 * i + 1);
        const double step = freqs[i], small = sin(step / 2);
        /* The sum of a geometric series, e^(i p step). */
        const double size = rotate->magnitude * (fabs(small) < 1e-12 ? 1 : sin(n * step / 2) / (n * small));
        const double c = size * cos((n - 1) * step / 2), s = size * sin((n - 1) * step / 2), u = *a, v = *b;
        *a = (float)(u * c - v * s);
        *b = (float)(u * s + v * c);
    }
}

/* Of the keys that a node appends: [n_kv_heads][head_dim]; NULL with no error: nothing. */
static float *shift_of(const MiAssembly *a, const MiRecording *r, const MiNode *append, GError **error)
{
    const int      heads = a->cache_spec.n_kv_heads, dim = a->cache_spec.head_dim;
    const MiNode  *rope = maker(r, append->in[0]);
    const MiNode  *linear = rope && strcmp(rope->op, "rope") == 0 ? maker(r, rope->in[0]) : rope;
    const MiRotate *rotate = linear == rope ? NULL : rope->attr;
    const float    *freqs = rotate ? mi_recording_value(r, rope->in[1])->data : NULL;

    if (!linear || strcmp(linear->op, "linear") != 0 || !linear->weight[1] || linear->weight[1]->shape[0] != heads * dim ||
        (rotate && (!freqs || rotate->dim > dim)))
        return NULL;
    float *x = g_new(float, heads * dim);
    if (!mi_weight_convert(linear->weight[1], 0, heads * dim, MI_F32, x, error)) {
        g_free(x);
        return NULL;
    }
    for (int h = 0; h < heads && rotate; h++)
        mean_of_turned(rotate, freqs, POSITIONS, x + h * dim);
    return x;
}

bool mi_shift_keys(MiAssembly *a, const MiKvView *views, GError **error)
{
    const MiRecording *r = ((const MiVariant *)a->variants->pdata[0])->program;
    MiContext         *ctx = &a->ctx.pub;
    const size_t       n = (size_t)a->cache_spec.n_kv_heads * (size_t)a->cache_spec.head_dim;

    /* A soft cap bends scores: they have to be the very ones. */
    if (!mi_dtype_scaled(a->kv_dtype) || a->attention_spec.attend.softcap > 0)
        return true;
    for (int i = 0; i < (int)r->nodes->len; i++) {
        const MiNode     *append = mi_recording_node(r, i);
        GError           *why = NULL;
        g_autofree float *x = strcmp(append->op, "kv_append") == 0 ? shift_of(a, r, append, &why) : NULL;
        if (why) {
            g_propagate_error(error, why);
            return false;
        }
        if (x && views[append->kv - 1].scales &&
            !ctx->upload(ctx, (float *)(uintptr_t)mi_kv_shift(&views[append->kv - 1]), x, n * sizeof *x, error))
            return false;
    }
    return true;
}
