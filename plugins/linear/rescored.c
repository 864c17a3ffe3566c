/* rescored.c - an output layer of 4 bits whose likeliest tokens get their exact logits: [engine] head = rescored.
 *
 * Weights are encoded as linear int4 does it; after the product the `top` largest results of each row are computed again
 * from the weights as the file has them, plain formats with the very sums of linear dense.  So the likeliest token is that
 * of the exact layer unless 4 bits put it behind `top` others; what is not among them keeps its approximate logit.  The
 * file's rows stay mapped, and only those that are looked at need be in memory. */
#include "encoded.h"
#include <cpu/blocks.h>
#include <cpu/dense.h>
#include <string.h>

typedef struct {
    const char *group, *isa;
    bool        symmetric;
    int32_t     top;
} Options;
static const Options defaults = { "64", "auto", true, 128 };

static const MiOption option_table[] = {
    MI_CHOICE(Options, group, "64", "128, 64, 32", "columns that share a scale"),
    MI_OPTION(Options, symmetric, "true", 0, 0, "false: with a zero point, so that a range need not be centred on zero"),
    MI_OPTION(Options, top, "128", 1, 4096, "of a row's results so many, the largest, are computed again from the weights as stored"),
    MI_ISA(Options),
    MI_OPTION_END,
};

/* Lies before the panels. */
typedef struct {
    const MiBlockFormat *format;
    const char          *rows; /* as stored, the file's */
    int64_t              row_bytes;
    const MiDenseIsa    *isa;
    MiDenseType          type; /* of a plain format; of others f32, to which a row is decoded */
    bool                 plain;
    int32_t              top;
} Stored;

enum { STORED = (sizeof(Stored) + 63) / 64 * 64 };

static const MiPanelKernel *kernel_of(const MiWeight *w, const void *options, GError **error)
{
    const Options *o = options ? options : &defaults;
    return mi_encoded_kernel("rescored", w, o->symmetric ? "int4" : "uint4", o->group, o->isa, MI_X_BLOCK, error);
}

static bool bytes(const MiWeight *parts, int n, MiDType dtype, const void *options, size_t *total, GError **error)
{
    (void)dtype;
    if (!mi_encoded_bytes(kernel_of, parts, n, options, total, error))
        return false;
    *total += STORED;
    return true;
}

static bool pack(MiContext *ctx, const MiWeight *parts, int n, const void *options, void *dst, MiOperand *out, GError **error)
{
    const Options       *o = options ? options : &defaults;
    const MiBlockFormat *f = mi_block_format(parts[0].format);
    Stored              *s = dst;

    if (!mi_encoded_pack(kernel_of, true, ctx, parts, n, options, (char *)dst + STORED, out, error))
        return false;
    *s = (Stored){ .format = f, .rows = parts[0].data, .row_bytes = parts[0].shape[1] / f->values * f->bytes,
                   .isa = mi_dense_isa(strcmp(o->isa, "avxvnni") == 0 ? "avx2" : o->isa), .plain = f->values == 1,
                   .type = strcmp(f->name, "f16") == 0 ? MI_DENSE_F16 : strcmp(f->name, "bf16") == 0 ? MI_DENSE_BF16 : MI_DENSE_F32,
                   .top = o->top };
    out[0].zeros = s;
    return true;
}

/* ---- the op ----------------------------------------------------------------- */

typedef struct {
    float   value;
    int32_t at;
} Candidate;

typedef struct {
    size_t panels;  /* bytes of the workspace for the product */
    size_t scratch; /* and behind it for each thread: candidates, a row in f32 */
} State;

typedef struct {
    const State  *state;
    const MiCall *call;
} Work;

static void count_threads(void *arg, int i, int n)
{
    if (i == 0)
        *(int *)arg = n;
}

static bool prepare(MiContext *ctx, const MiCall *call, void **state, size_t *workspace, GError **error)
{
    const int64_t out = call->at[0].out[0].shape[call->at[0].out[0].ndim - 1], in = call->at[0].in[0].shape[1];
    int           threads = 1;
    void         *none = NULL;
    State         s = { 0 };

    if (!mi_panel_op.prepare(ctx, call, &none, &s.panels, error))
        return false;
    mi_on_all_threads(ctx, count_threads, &threads);
    s.panels = (s.panels + 63) / 64 * 64;
    s.scratch = ((size_t)MIN(out, 4096) * sizeof(Candidate) + (size_t)in * sizeof(float) + 63) / 64 * 64; /* 4096: of top */
    *state = g_memdup2(&s, sizeof s);
    *workspace = s.panels + (size_t)threads * s.scratch;
    return true;
}

static void sift_down(Candidate *heap, int32_t n, int32_t i)
{
    const Candidate c = heap[i];

    for (int32_t child; (child = 2 * i + 1) < n; i = child) {
        child += child + 1 < n && heap[child + 1].value < heap[child].value;
        if (!(heap[child].value < c.value))
            break;
        heap[i] = heap[child];
    }
    heap[i] = c;
}

/* The `top` largest of y [n], in a heap with the least of them first; how many: of equal ones the first to come. */
static int32_t largest(const float *y, int64_t n, int32_t top, Candidate *heap)
{
    const int32_t count = (int32_t)MIN(n, top);

    for (int32_t i = 0; i < count; i++)
        heap[i] = (Candidate){ y[i], i };
    for (int32_t i = count / 2 - 1; i >= 0; i--)
        sift_down(heap, count, i);
    for (int64_t i = count; i < n; i++)
        if (y[i] > heap[0].value) {
            heap[0] = (Candidate){ y[i], (int32_t)i };
            sift_down(heap, count, 0);
        }
    return count;
}

static void rescore(void *arg, int part, int n_parts)
{
    const Work     *work = arg;
    const MiArgs   *a = &work->call->at[0];
    const Stored   *s = a->weight[0].zeros;
    const MiTensor *x = &a->in[0], *y = &a->out[0];
    const float    *bias = a->weight[1].tensor.data;
    const int64_t   in = a->weight[0].tensor.shape[1], out = a->weight[0].tensor.shape[0];
    char           *scratch = (char *)work->call->workspace + work->state->panels + (size_t)part * work->state->scratch;
    Candidate      *heap = (Candidate *)(void *)scratch;
    float          *decoded = (float *)(void *)(heap + MIN(out, 4096));

    for (int64_t r = x->shape[0] * part / n_parts; r < x->shape[0] * (part + 1) / n_parts; r++) {
        float        *to = (float *)y->data + r * y->stride[0];
        const int32_t n = largest(to, out, s->top, heap);
        for (int32_t i = 0; i < n; i++) {
            const char *row = s->rows + heap[i].at * s->row_bytes;
            if (!s->plain)
                s->format->decode(row, decoded, in);
            s->isa->run[s->type](&(MiDenseCall){
                .w = s->plain ? row : (const char *)decoded, .x = (const float *)x->data + r * x->stride[0],
                .x_stride = x->stride[0], .in = in, .out = 1, .rows = 1, .y = to + heap[i].at, .y_stride = y->stride[0],
                .bias = bias ? bias + heap[i].at : NULL });
        }
    }
}

static bool run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    Work work = { state, call };

    if (!mi_panel_op.run(NULL, ctx, call, error))
        return false;
    mi_on_all_threads(ctx, rescore, &work);
    return true;
}

static const MiOp op = {
    .struct_size = sizeof op, .n_in = 1, .n_out = 1, .n_weights = 1, .prepare = prepare, .run = run, .release = g_free,
    .batch_invariant = true,
};

static const MiLinear rescored = {
    .struct_size = sizeof rescored, .formats = mi_encoded_formats, .layout = "panels.rescored", .rank = -20,
    .bytes = bytes, .pack = pack, .op = &op,
};

MI_PLUGIN("linear_rescored", "0.1", "An output layer of 4 bits with exact logits for the likeliest tokens",
          MI_FEATURE_LINEAR("rescored", "cpu", &rescored, option_table));
