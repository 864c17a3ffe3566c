/* api_parts.c - single operations and attentions, by name, on a program's own arrays.
 *
 * A call records a program of one node, makes a schedule of it as the engine does, and runs it on a device of its own: what
 * a part refuses in a model it refuses here, in the same words.  Where the device's memory is the host's, inputs are used
 * where they lie; elsewhere they are copied. */
#include "api.h"
#include "device.h"
#include "options.h"
#include "schedule.h"

#include <math.h>
#include <string.h>

enum { STAGING = 4 << 20 }; /* bytes of a copy to or from memory that the host cannot see */

/* ---- which there are --------------------------------------------------------------------- */

bool miniinfer_parts(Miniinfer *mi, const char *kind, void (*part)(void *user, const char *name), void *user,
                     MiniinferError *error)
{
    g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
    GError              *why = NULL;
    const MiKind         only = kind ? mi_kind_of(kind) : MI_N_KINDS;

    if (!mi_api_enter(mi, false, &why))
        return mi_api_told(false, why, error);
    for (int k = 0; k < MI_N_KINDS; k++) {
        g_autoptr(GPtrArray) list = mi_registry_list(mi->session.registry, (MiKind)k, NULL);
        for (guint i = 0; i < list->len && (!kind || k == (int)only); i++) {
            const MiFeature *f = list->pdata[i];
            g_ptr_array_add(names, g_strdup_printf("%s:%s@%s", mi_kind_name(f->kind), f->name, f->backend));
        }
    }
    mi_api_leave(mi);
    if (kind && only == MI_N_KINDS)
        g_set_error(&why, MI_ERROR, MI_ERROR_CONFIG, "there is no kind of parts '%s'", kind);
    for (guint i = 0; i < names->len; i++)
        part(user, names->pdata[i]);
    return mi_api_told(!why, why, error);
}

/* ---- the device ---------------------------------------------------------------------------- */

static bool device_open(Miniinfer *mi, GError **error)
{
    MiPartsDevice *d = &mi->parts;
    MiSession     *s = &mi->session;
    sigset_t       before;

    if (d->event)
        return true;
    mi_api_parts_close(d); /* what an open that failed left */
    mi_api_block_signals(&before);
    const bool ok = mi_device_open(s->registry, s->config, s->settings.engine.device, &d->backend, &d->options, &d->device,
                                   error) &&
                    mi_context_init(&d->ctx, d->backend->vtable, d->device, error);
    mi_api_restore_signals(&before);
    if (!ok)
        return false;
    d->ctx.pub.dtype = MI_F32;
    const MiBackend *b = d->backend->vtable;
    if (!b->unified && !(d->staging = d->ctx.pub.alloc(&d->ctx.pub, MI_MEM_PINNED, STAGING, error)))
        return false;
    return b->event_new(d->device, &d->event, error);
}

void mi_api_parts_close(MiPartsDevice *d)
{
    const MiBackend *b = d->backend ? d->backend->vtable : NULL;

    if (d->event)
        b->event_free(d->device, d->event);
    mi_context_clear(&d->ctx);
    if (d->device)
        b->close(d->device);
    g_free(d->options);
    *d = (MiPartsDevice){ 0 };
}

static bool device_wait(MiPartsDevice *d, GError **error)
{
    const MiContext *ctx = &d->ctx.pub;
    return ctx->backend->event_record(ctx->device, d->event, ctx->stream, error) &&
           ctx->backend->event_wait(ctx->device, d->event, error);
}

/* One of them is device memory. */
static bool transfer(MiPartsDevice *d, void *to, const void *from, size_t bytes, bool out, GError **error)
{
    const MiContext *ctx = &d->ctx.pub;

    if (!d->staging) {
        memcpy(to, from, bytes);
        return true;
    }
    for (size_t at = 0; at < bytes; at += STAGING) {
        const size_t n = MIN(bytes - at, STAGING);
        char        *host = (char *)to + at;
        if (!out)
            memcpy(d->staging, (const char *)from + at, n);
        if (!ctx->backend->copy(ctx->device, ctx->stream, out ? d->staging : host, out ? (const char *)from + at : d->staging,
                                n, error) ||
            !device_wait(d, error))
            return false;
        if (out)
            memcpy(host, d->staging, n);
    }
    return true;
}

/* ---- a program of one node -------------------------------------------------------------------- */

typedef struct {
    Miniinfer     *mi;
    MiPartsDevice *d;
    MiRecording   *program;
    MiSchedule    *schedule;
    GPtrArray     *blocks; /* device memory */
    MiBatch        batch;
    MiKvView       kv;
    const MiFeature   *attention; /* NULL: an op */
    MiAttentionSpec    spec;
    void              *options, *self; /* of the attention */
} One;

static void *block(One *o, size_t bytes, GError **error)
{
    MiContext *ctx = &o->d->ctx.pub;
    void      *p = ctx->alloc(ctx, MI_MEM_DEVICE, MAX(bytes, 4), error);

    if (p)
        g_ptr_array_add(o->blocks, p);
    return p;
}

/* What the device reads of the caller's; NULL with *error. */
static void *lend(One *o, const void *from, size_t bytes, GError **error)
{
    void *p;

    if (!o->d->staging)
        return (void *)(uintptr_t)from;
    return (p = block(o, bytes, error)) && transfer(o->d, p, from, bytes, false, error) ? p : NULL;
}

static bool begin(One *o, Miniinfer *mi, GError **error)
{
    *o = (One){ .mi = mi, .d = &mi->parts, .blocks = g_ptr_array_new() };
    o->program = mi_recording_new(NULL, MI_F32);
    return device_open(mi, error);
}

static void end(One *o)
{
    MiContext *ctx = &o->d->ctx.pub;

    mi_schedule_free(o->schedule);
    if (o->self)
        ((const MiAttention *)o->attention->vtable)->destroy(o->self);
    g_free(o->options);
    for (guint i = 0; i < o->blocks->len; i++)
        ctx->free(ctx, MI_MEM_DEVICE, o->blocks->pdata[i]);
    g_ptr_array_unref(o->blocks);
    mi_recording_free(o->program);
}

/* Rows 0 to n of one sequence, the last of n_keys positions. */
static bool make_batch(One *o, int32_t n, int32_t n_keys, GError **error)
{
    const size_t        bytes = ((size_t)n * 2 + 3) * sizeof(int32_t);
    g_autofree int32_t *ints = g_try_malloc(bytes); /* positions, rows, the sequence's first and last row, keys */
    int32_t            *at;

    if (!ints) {
        g_set_error(error, MI_ERROR, MI_ERROR_NO_MEMORY, "no memory for %d rows", n);
        return false;
    }
    for (int32_t i = 0; i < n; i++) {
        ints[i] = n_keys - n + i;
        ints[n + i] = i;
    }
    ints[2 * (size_t)n] = 0, ints[2 * (size_t)n + 1] = n, ints[2 * (size_t)n + 2] = n_keys;
    if (!(at = block(o, bytes, error)) || !transfer(o->d, at, ints, bytes, false, error))
        return false;
    o->batch = (MiBatch){ .shape = { n, 1, n, n_keys, n == 1 }, .positions = at, .out_rows = at + n,
                          .seq_start = at + 2 * (size_t)n };
    o->kv.kv_len = at + 2 * (size_t)n + 2;
    return true;
}

/* weights: of an op, [MI_MAX_WEIGHTS]. */
static bool make_schedule(One *o, const MiOperand *weights, GError **error)
{
    MiContext    *ctx = &o->d->ctx.pub;
    const MiParts parts = { .registry = o->mi->session.registry, .backend = o->d->backend->name, .unfused = true,
                            .attention = o->attention ? o->attention->name : NULL, .append = "kv_append" };
    void         *arena;

    if (!mi_recording_ok(o->program, error) ||
        !(o->schedule = mi_schedule_new(o->program, &parts, ctx, o->batch.shape, error)) ||
        !(arena = block(o, o->schedule->bytes, error)))
        return false;
    mi_schedule_bind(o->schedule, &(MiBinding){ .arena = arena, .batch = &o->batch, .kv = &o->kv, .attention = o->self });
    if (weights)
        memcpy((MiOperand *)mi_schedule_at(o->schedule, 0)->call.at[0].weight, weights, MI_MAX_WEIGHTS * sizeof *weights);
    mi_schedule_shape(o->schedule, o->batch.shape);
    return true;
}

/* The node's output goes to `to`. */
static bool run(One *o, float *to, GError **error)
{
    const MiTensor t = mi_schedule_at(o->schedule, 0)->call.at[0].out[0];

    return mi_schedule_run(o->schedule, &o->d->ctx.pub, error) && device_wait(o->d, error) &&
           transfer(o->d, to, t.data, (size_t)(t.shape[0] * t.stride[0]) * sizeof *to, true, error);
}

/* Bytes of floats of a shape; false with *error: more than there can be. */
static bool bytes_of(int64_t a, int64_t b, int64_t c, size_t *out, GError **error)
{
    if (a > 0 && b > 0 && c > 0 && a <= G_MAXINT32 && b <= G_MAXINT32 && c <= G_MAXINT32) {
        *out = sizeof(float);
        if (g_size_checked_mul(out, *out, (gsize)a) && g_size_checked_mul(out, *out, (gsize)b) &&
            g_size_checked_mul(out, *out, (gsize)c) && *out <= G_MAXSSIZE)
            return true;
    }
    g_set_error(error, MI_MISUSE, 0, "an array of %" G_GINT64_FORMAT " x %" G_GINT64_FORMAT " x %" G_GINT64_FORMAT
                " elements; each is 1 to %d", a, b, c, G_MAXINT32);
    return false;
}

/* ---- operations ---------------------------------------------------------------------------------- */

static const MiOption activation[] = {
    { "negative_slope", MI_FLOAT, offsetof(MiActivation, slope), "0.01", 0, 0, "of leaky_relu, below zero", NULL },
    MI_OPTION_END,
};
static const MiOption norm[] = {
    { "eps", MI_FLOAT, offsetof(MiNorm, eps), "1e-5", 0, 0, "added to what the root is taken of", NULL },
    { "offset", MI_FLOAT, offsetof(MiNorm, offset), "0", 0, 0, "added to the weight", NULL },
    MI_OPTION_END,
};
static const MiOption none[] = { MI_OPTION_END };

typedef union { MiActivation activation; MiNorm norm; } Attributes;

/* By the size of what the op takes: those of the core, and a plugin's that are like one of them. */
static bool read_params(const MiOp *op, const char *name, const MiniinferPair *pairs, Attributes *out, GError **error)
{
    const MiOption *table = op->attr_size == sizeof(MiActivation) ? activation : op->attr_size == sizeof(MiNorm) ? norm : none;

    if (op->attr_size && table == none) {
        g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED, "op '%s' takes attributes that only a model gives", name);
        return false;
    }
    if (!mi_options_defaults(table, out, error))
        return false;
    for (const MiniinferPair *p = pairs; p && p->key; p++)
        if (!mi_options_set(table, out, p->key, p->value ? p->value : "", error)) {
            g_prefix_error(error, "op '%s': ", name);
            return false;
        }
    return true;
}

static int given(const float *const *arrays)
{
    int n = 0;

    while (n < MINIINFER_MAX_OPERANDS && arrays[n])
        n++;
    return n;
}

/* The append of some cache: it needs one. */
static bool appends(MiRegistry *r, const char *name)
{
    g_autoptr(GPtrArray) all = mi_registry_list(r, MI_KIND_CACHE, NULL);

    for (guint i = 0; i < all->len; i++)
        if (g_strcmp0(((const MiCache *)((const MiFeature *)all->pdata[i])->vtable)->append, name) == 0)
            return true;
    return false;
}

static const MiOp *find_op(const One *o, const char *name, const MiniinferRows *r, GError **error)
{
    MiRegistry      *registry = o->mi->session.registry;
    const MiFeature *f = mi_registry_find(registry, MI_KIND_OP, name, o->d->backend->name, error);
    const MiOp      *op = f ? f->vtable : NULL;
    const int        n_in = given(r->in), n_weights = given(r->weight);

    if (!op)
        return NULL;
    if (appends(registry, name) || op->n_in < 1 || op->n_out != 1) {
        g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED, "op '%s' works on a model's step, not on rows", name);
        return NULL;
    }
    if (n_in == op->n_in && n_weights >= op->n_weights)
        return op;
    g_set_error(error, MI_MISUSE, 0, "op '%s' takes %d inputs and %d weights; %d and %d were given", name, op->n_in,
                op->n_weights, n_in, n_weights);
    return NULL;
}

static bool op_run(One *o, const char *name, const MiniinferPair *params, const MiniinferRows *r, GError **error)
{
    const MiType t = { MI_F32, MI_ROWS_TOKENS, 0, 1, { r->columns } };
    MiNode       node = { .op = name };
    MiOperand    weights[MI_MAX_WEIGHTS] = { 0 };
    MiWeight     shapes[MI_MAX_WEIGHTS] = { 0 };
    Attributes   attributes;
    const MiOp  *op = find_op(o, name, r, error);
    size_t       bytes;

    if (!op || !read_params(op, name, params, &attributes, error) || !bytes_of(r->rows, r->columns, 1, &bytes, error) ||
        !make_batch(o, (int32_t)r->rows, (int32_t)r->rows, error))
        return false;
    node.attr = op->attr_size ? &attributes : NULL;
    node.attr_size = op->attr_size;
    for (int i = 0; i < op->n_in; i++) {
        void *x = lend(o, r->in[i], bytes, error);
        if (!x)
            return false;
        node.in[i] = mi_recording_input(o->program, &t, x);
    }
    for (int i = 0; i < given(r->weight); i++) {
        void *w = lend(o, r->weight[i], (size_t)r->columns * sizeof(float), error);
        if (!w)
            return false;
        shapes[i] = (MiWeight){ .name = "weight", .format = "f32", .ndim = 1, .shape = { r->columns } };
        weights[i] = (MiOperand){ .tensor = { w, MI_F32, 1, { r->columns }, { 1 } }, .layout = "plain" };
        node.weight[i] = &shapes[i];
    }
    mi_op(&o->program->pub, node, t);
    return make_schedule(o, weights, error) && run(o, r->out, error);
}

bool miniinfer_op(Miniinfer *mi, const char *name, const MiniinferPair *params, const MiniinferRows *rows,
                  MiniinferError *error)
{
    GError       *why = NULL;
    MiniinferRows r;
    One           one;
    bool          ok = mi_api_sized(&r, sizeof r, rows, sizeof r, &why);

    if (!ok || !mi_api_enter(mi, false, &why))
        return mi_api_told(false, why, error);
    g_mutex_lock(&mi->parts_lock);
    if (!(ok = r.out && name))
        g_set_error(&why, MI_MISUSE, 0, "an operation without a name or an output");
    else {
        ok = begin(&one, mi, &why) && op_run(&one, mi_op_name(name), params, &r, &why);
        end(&one);
    }
    g_mutex_unlock(&mi->parts_lock);
    mi_api_leave(mi);
    return mi_api_told(ok, why, error);
}

bool miniinfer_activation(Miniinfer *mi, const char *name, const MiniinferPair *params, const float *x, float *y,
                          int64_t rows, int64_t columns, MiniinferError *error)
{
    return miniinfer_op(mi, name, params,
                        &(MiniinferRows){ .struct_size = sizeof(MiniinferRows), .in = { x }, .out = y, .rows = rows,
                                          .columns = columns },
                        error);
}

/* ---- attention ---------------------------------------------------------------------------------------- */

static bool refuse(const char *name, const char *what, GError **error)
{
    g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED, "attention '%s' %s", name, what);
    return false;
}

static bool can(const MiAttention *t, const char *name, const MiniinferAttention *a, GError **error)
{
    bool head = !t->head_dims;

    for (const int32_t *d = t->head_dims; d && *d; d++)
        head = head || *d == a->head_dim;
    if (!g_strv_contains(t->layouts, "contiguous"))
        return refuse(name, "does not read keys that lie in one piece", error);
    if (!(t->dtypes & 1u << MI_F32))
        return refuse(name, "does not read f32", error);
    if (!head)
        return refuse(name, "does not take heads of this size", error);
    if (!(a->n_queries == 1 ? t->decode : t->prefill))
        return refuse(name, a->n_queries == 1 ? "takes prompts only" : "takes one query at a time", error);
    if ((a->window && !t->window) || (a->softcap > 0 && !t->softcap))
        return refuse(name, "has no window or no softcap", error);
    return true;
}

static bool shape_fits(const MiniinferAttention *a, size_t *q_bytes, size_t *kv_bytes, GError **error)
{
    const char *wrong = !a->q || !a->k || !a->v || !a->out                        ? "q, k, v and out are needed"
                        : a->n_kv_heads < 1 || a->n_heads % a->n_kv_heads         ? "n_heads is no multiple of n_kv_heads"
                        : a->causal && a->n_queries > a->n_keys                   ? "there are more causal queries than keys"
                        : a->window < 0 || (a->window && !a->causal)              ? "a window is of a causal attention"
                        : !isfinite(a->scale) || a->scale < 0 || !(a->softcap >= 0) ? "scale and softcap are no negative numbers"
                                                                                  : NULL;

    if (wrong)
        g_set_error_literal(error, MI_MISUSE, 0, wrong);
    return !wrong && bytes_of(a->n_queries, a->n_heads, a->head_dim, q_bytes, error) &&
           bytes_of(a->n_keys, a->n_kv_heads, a->head_dim, kv_bytes, error);
}

/* STEP side of an attention that plans. */
static bool plan(One *o, GError **error)
{
    const MiAttention *t = o->attention->vtable;
    MiSequence         seq = { .id = 1, .n_prompt = o->spec.max_len, .n_tokens = o->spec.max_len,
                               .n_cached = o->spec.max_len - o->spec.max_tokens };
    MiSequence        *seqs[] = { &seq };
    int32_t            count[] = { o->spec.max_tokens };

    return !MI_HAS(t, plan) ||
           t->plan(o->self, &o->d->ctx.pub, &(MiStep){ o->batch.shape, seqs, count }, &o->batch, error);
}

static bool attention_run(One *o, const char *name, const MiniinferAttention *a, GError **error)
{
    const MiAttend     attend = { a->scale > 0 ? a->scale : 1 / sqrtf((float)a->head_dim), a->softcap, a->window, !a->causal };
    const MiType       t = { MI_F32, MI_ROWS_TOKENS, 0, 2, { a->n_heads, a->head_dim } }, order = { 0 };
    const MiAttention *vt;
    size_t             q_bytes, kv_bytes;
    void              *q;

    if (!shape_fits(a, &q_bytes, &kv_bytes, error) ||
        !(o->attention = mi_registry_find(o->mi->session.registry, MI_KIND_ATTENTION, name, o->d->backend->name, error)) ||
        !can(vt = o->attention->vtable, name, a, error) || !make_batch(o, a->n_queries, a->n_keys, error))
        return false;
    o->spec = (MiAttentionSpec){ a->n_heads, a->n_kv_heads, a->head_dim, MI_F32, MI_F32, attend, 1, a->n_queries, a->n_keys };
    if (!mi_config_feature(o->mi->session.config, o->attention, &o->options, error) ||
        (MI_HAS(vt, create) && !(o->self = vt->create(&o->d->ctx.pub, &o->spec, o->options, error))))
        return false;
    o->kv.dtype = MI_F32, o->kv.n_kv_heads = a->n_kv_heads, o->kv.head_dim = a->head_dim;
    o->kv.block_size = a->n_keys, o->kv.max_blocks = 1;
    o->kv.stride_head = a->head_dim, o->kv.stride_token = (int64_t)a->n_kv_heads * a->head_dim;
    o->kv.stride_block = o->kv.stride_token * a->n_keys;
    if (!(q = lend(o, a->q, q_bytes, error)) || !(o->kv.k = lend(o, a->k, kv_bytes, error)) ||
        !(o->kv.v = lend(o, a->v, kv_bytes, error)))
        return false;
    const MiNode node = { .op = "attention", .attr = &attend, .attr_size = sizeof attend, .kv = 1,
                          .in = { mi_recording_input(o->program, &t, q), mi_recording_input(o->program, &order, NULL) } };
    mi_op(&o->program->pub, node, t);
    return make_schedule(o, NULL, error) && plan(o, error) && run(o, a->out, error);
}

bool miniinfer_attention(Miniinfer *mi, const char *name, const MiniinferAttention *attention, MiniinferError *error)
{
    GError            *why = NULL;
    MiniinferAttention a;
    One                one;
    bool               ok = mi_api_sized(&a, sizeof a, attention, sizeof a, &why);

    if (!ok || !mi_api_enter(mi, false, &why))
        return mi_api_told(false, why, error);
    g_mutex_lock(&mi->parts_lock);
    ok = begin(&one, mi, &why) && attention_run(&one, name, &a, &why);
    end(&one);
    g_mutex_unlock(&mi->parts_lock);
    mi_api_leave(mi);
    return mi_api_told(ok, why, error);
}
