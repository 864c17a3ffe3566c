/* builders.h - the words a model is written with: one node each, or a view.
 *
 * All are wrappers of mi_op(); a plugin's own words are written the same way. */
#ifndef MINIINFER_BUILDERS_H
#define MINIINFER_BUILDERS_H

#include <miniinfer/program.h>
#include <string.h>

/* Of the last dimension; both share the memory of x. */
static inline MiVal mi_slice(MiProgram *p, MiVal x, int64_t first, int64_t n)
{
    return p->api->view(p, x, first, n, 0);
}
static inline MiVal mi_heads(MiProgram *p, MiVal x, int n)
{
    MiType t = mi_type(p, x);
    return p->api->view(p, x, 0, mi_last_dim(&t), n);
}

static inline MiVal mi_embed(MiProgram *p, const char *name)
{
    const MiWeight *w = p->api->weight(p, name, "weight", true);
    MiType          t = { p->dtype, MI_ROWS_TOKENS, 0, 1, { w ? w->shape[1] : 0 } };
    if (w && w->ndim != 2)
        mi_fail(p, "%s has %d dimensions, 2 are wanted", w->name, w->ndim);
    return mi_op(p, (MiNode){ .op = "embed", .weight = { w } }, t);
}

/* y = x W' + b, b where the file has one; x: [rows, in], or heads that make up `in`. */
static inline MiVal mi_linear_as(MiProgram *p, MiVal x, const char *name, MiSplit split, MiDType dtype)
{
    const MiWeight *w = p->api->weight(p, name, "weight", true), *b = p->api->weight(p, name, "bias", false);
    MiType          t = mi_type(p, x), y = { dtype, t.rows, t.n_rows, 1, { w ? w->shape[0] : 0 } };
    if (w && w->ndim != 2)
        mi_fail(p, "%s has %d dimensions, 2 are wanted", w->name, w->ndim);
    if (w && w->shape[1] != mi_row_size(&t))
        mi_fail(p, "%s takes %d columns and gets %d", w->name, (int)w->shape[1], (int)mi_row_size(&t));
    if (w && b && (b->ndim != 1 || b->shape[0] != w->shape[0]))
        mi_fail(p, "%s has the wrong length", b->name);
    return mi_op(p, (MiNode){ .op = "linear", .in = { x }, .weight = { w, b }, .split = split }, y);
}
static inline MiVal mi_linear(MiProgram *p, MiVal x, const char *name, MiSplit split)
{
    return mi_linear_as(p, x, name, split, p->dtype);
}

/* Over the last dimension: a row, or each head. */
static inline MiVal mi_rmsnorm(MiProgram *p, MiVal x, const char *name, float eps)
{
    const MiWeight *w = p->api->weight(p, name, "weight", true);
    MiNorm          a = { eps, 0 };
    MiType          t = mi_type(p, x);
    if (w && (w->ndim != 1 || w->shape[0] != mi_last_dim(&t)))
        mi_fail(p, "%s has the wrong length", w->name);
    return mi_op(p, (MiNode){ .op = "rmsnorm", .in = { x }, .weight = { w }, .attr = &a, .attr_size = sizeof a }, t);
}

/* With mean and bias, the bias where the file has one. */
static inline MiVal mi_layernorm(MiProgram *p, MiVal x, const char *name, float eps)
{
    const MiWeight *w = p->api->weight(p, name, "weight", true), *b = p->api->weight(p, name, "bias", false);
    MiNorm          a = { eps, 0 };
    MiType          t = mi_type(p, x);
    if (w && (w->ndim != 1 || w->shape[0] != mi_last_dim(&t)))
        mi_fail(p, "%s has the wrong length", w->name);
    if (w && b && (b->ndim != 1 || b->shape[0] != w->shape[0]))
        mi_fail(p, "%s has the wrong length", b->name);
    return mi_op(p, (MiNode){ .op = "layernorm", .in = { x }, .weight = { w, b }, .attr = &a, .attr_size = sizeof a }, t);
}

static inline MiVal mi_rope(MiProgram *p, MiVal x, const MiRope *r)
{
    MiVal  table = p->api->rope_table(p, r);
    MiType t = mi_type(p, x);
    if (r->rotate.dim > mi_last_dim(&t))
        mi_fail(p, "rope turns %d elements of a head of %d", r->rotate.dim, (int)mi_last_dim(&t));
    return mi_op(p, (MiNode){ .op = "rope", .in = { x, table }, .attr = &r->rotate, .attr_size = sizeof r->rotate }, t);
}

/* q: [tokens, n_heads, head_dim], k, v: [tokens, n_kv_heads, head_dim]; like q.
 * What the cache's append gives has no bytes: it orders the two nodes. */
static inline MiVal mi_attention(MiProgram *p, MiVal q, MiVal k, MiVal v, int layer, const MiAttend *a)
{
    MiType tq = mi_type(p, q), tk = mi_type(p, k), tv = mi_type(p, v);
    if (tq.ndim != 2 || tk.ndim != 2 || tq.dim[1] != tk.dim[1] || tq.dim[0] % tk.dim[0] ||
        memcmp(tk.dim, tv.dim, sizeof tk.dim) != 0)
        mi_fail(p, "attention of q, k and v that do not fit");
    MiVal kv = mi_op(p, (MiNode){ .op = "kv_append", .in = { k, v }, .kv = 1 + layer }, (MiType){ 0 });
    return mi_op(p, (MiNode){ .op = "attention", .in = { q, kv }, .attr = a, .attr_size = sizeof *a, .kv = 1 + layer }, tq);
}

/* Two values of one type, element by element. */
static inline MiVal mi_binary(MiProgram *p, const char *op, MiVal a, MiVal b)
{
    MiType t = mi_type(p, a), u = mi_type(p, b);
    if (t.rows != u.rows || t.n_rows != u.n_rows || t.ndim != u.ndim || memcmp(t.dim, u.dim, sizeof t.dim) != 0)
        mi_fail(p, "%s of values of different shapes", op);
    return mi_op(p, (MiNode){ .op = op, .in = { a, b } }, t);
}
static inline MiVal mi_add(MiProgram *p, MiVal a, MiVal b) { return mi_binary(p, "add", a, b); }
static inline MiVal mi_mul(MiProgram *p, MiVal a, MiVal b) { return mi_binary(p, "mul", a, b); }

/* name: silu, gelu_tanh, …, or what Hugging Face calls it. */
static inline MiVal mi_activation(MiProgram *p, const char *name, MiVal x)
{
    MiActivation a = { 0.01f };
    return mi_op(p, (MiNode){ .op = name, .in = { x }, .attr = &a, .attr_size = sizeof a }, mi_type(p, x));
}

/* The rows whose logits are wanted. */
static inline MiVal mi_output_rows(MiProgram *p, MiVal x)
{
    MiType t = mi_type(p, x);
    t.rows = MI_ROWS_OUTPUTS;
    return mi_op(p, (MiNode){ .op = "output_rows", .in = { x } }, t);
}

static inline void mi_output(MiProgram *p, const char *name, MiVal x) { p->api->output(p, name, x); }
static inline void mi_logits(MiProgram *p, MiVal x, const char *head)
{
    mi_output(p, "logits", mi_linear_as(p, x, head, MI_SPLIT_OUT, MI_F32));
}

/* One link of the chain, recorded by the core after the model: logits to logits, or, the last, to tokens. */
static inline MiVal mi_link(MiProgram *p, const char *sampler, MiVal logits, bool draws)
{
    char   op[64];
    MiType t = mi_type(p, logits);
    g_snprintf(op, sizeof op, "sampler:%s", sampler);
    if (draws)
        t = (MiType){ MI_I32, t.rows, t.n_rows, 1, { 1 } };
    return mi_op(p, (MiNode){ .op = op, .in = { logits } }, t);
}

#endif
