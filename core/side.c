#include "side.h"
#include "arena.h"
#include "numbers.h"

#include <string.h>

/* ---- opening ------------------------------------------------------------------------ */

static void placed_free(MiSide *s, MiPlaced *p)
{
    if (p->own) {
        s->a->ctx.pub.free(&s->a->ctx.pub, MI_MEM_DEVICE, p->arena);
        mi_schedule_free(p->schedule);
    }
    g_free(p);
}

static void table_free(MiSide *s, GHashTable *table)
{
    GHashTableIter it;
    gpointer       placed;

    g_hash_table_iter_init(&it, table);
    while (g_hash_table_iter_next(&it, NULL, &placed))
        placed_free(s, placed);
    g_hash_table_unref(table);
}

bool mi_side_open(MiSide *s, MiAssembly *a, GError **error)
{
    MiContext *ctx = &a->ctx.pub;

    *s = (MiSide){ .a = a, .seqs = g_ptr_array_new(), .plain = g_hash_table_new(NULL, NULL),
                   .spare = g_hash_table_new(NULL, NULL) };
    if (!mi_context_load_begin(&a->ctx, error)) /* what is uploaded need not outlive the call only while a model loads */
        return false;
    s->runner = mi_runner_new(a, error);
    return mi_context_load_end(&a->ctx, s->runner ? error : NULL) && s->runner &&
           ctx->backend->event_new(ctx->device, &s->event, error);
}

void mi_side_close(MiSide *s)
{
    if (!s->a)
        return;
    table_free(s, s->plain);
    table_free(s, s->spare);
    mi_runner_free(s->runner);
    for (guint i = 0; i < s->seqs->len; i++)
        mi_requested_free(s->seqs->pdata[i]);
    g_ptr_array_unref(s->seqs);
    if (s->event)
        s->a->ctx.pub.backend->event_free(s->a->ctx.pub.device, s->event);
    s->a->ctx.pub.free(&s->a->ctx.pub, MI_MEM_PINNED, s->pinned);
    *s = (MiSide){ 0 };
}

/* ---- steps ---------------------------------------------------------------------------- */

bool mi_side_ask(MiSide *s, const MiRequest *r, GError **error)
{
    MiRequested *q = mi_requested_new(s->a, r, s->seqs->len + 1, error);

    if (!q)
        return false;
    q->pub.slot = (int32_t)s->seqs->len;
    g_ptr_array_add(s->seqs, q);
    return true;
}

/* Every sequence takes what it has not computed, as far as rows are left. */
static bool plan(MiSide *s, MiFlight *f, GError **error)
{
    const MiCache *cache = s->a->cache->vtable;
    MiStep        *step = &f->step;
    int            left = s->a->max_tokens;

    step->shape = (MiShape){ 0 };
    for (guint i = 0; i < s->seqs->len; i++) {
        MiRequested *q = s->seqs->pdata[i];
        const int    want = q->pub.n_tokens - q->pub.n_cached, rows = MIN(want, left);

        if (rows <= 0 || (cache->recomputes && rows < want))
            continue;
        if (!cache->reserve(mi_runner_cache(s->runner), &q->pub, q->pub.n_cached + rows)) {
            g_set_error(error, MI_ERROR, MI_ERROR_CONFIG, "cache '%s' has no room for %u sequences of %d positions",
                        s->a->cache->name, s->seqs->len, q->pub.n_cached + rows);
            return false;
        }
        step->seqs[step->shape.n_seqs] = &q->pub;
        step->count[step->shape.n_seqs++] = rows;
        step->shape.n_tokens += rows;
        left -= rows;
    }
    if (step->shape.n_seqs)
        return true;
    g_set_error(error, MI_ERROR, MI_ERROR_CONFIG, "[engine] max_tokens = %d is too little for one step", s->a->max_tokens);
    return false;
}

bool mi_side_step(MiSide *s, MiRunNodes *nodes, void *user, MiFlight **out, GError **error)
{
    MiFlight     *f = *out = mi_runner_flight(s->runner);
    const MiWatch watch = { .nodes = nodes, .user = user };

    mi_runner_watch(s->runner, &watch);
    const bool ok = plan(s, f, error) && mi_runner_launch(s->runner, f, error) && mi_runner_wait(s->runner, f, error);
    mi_runner_watch(s->runner, NULL);
    return ok;
}

bool mi_side_unfinished(const MiSide *s)
{
    for (guint i = 0; i < s->seqs->len; i++) {
        const MiRequested *q = s->seqs->pdata[i];
        if (q->n_known - q->pub.n_prompt < q->pub.max_tokens)
            return true;
    }
    return false;
}

void mi_side_draw(MiSide *s, const MiFlight *f, const int32_t *tokens)
{
    (void)s;
    for (int i = 0; i < f->shape.n_out; i++) {
        MiRequested *q = f->step.seqs[f->out_seq[i]]->owner;
        if (f->out_slot[i] < 0 || q->n_known - q->pub.n_prompt >= q->pub.max_tokens)
            continue;
        q->pub.tokens[q->n_known++] = tokens[i];
        q->pub.n_tokens = MAX(q->pub.n_tokens, q->n_known);
    }
}

/* ---- schedules --------------------------------------------------------------------------- */

static bool has_fusion(const MiSchedule *s)
{
    for (guint i = 0; i < s->runs->len; i++)
        if (mi_schedule_at(s, i)->fused)
            return true;
    return false;
}

/* Without fusions, at memory of its own. */
static MiPlaced *place(MiSide *s, MiSchedule *schedule, GError **error)
{
    MiContext *ctx = &s->a->ctx.pub;
    MiParts    parts = s->a->parts;
    MiPlaced  *p = g_new0(MiPlaced, 1);

    parts.unfused = p->own = true;
    if (!(p->schedule = mi_schedule_new(schedule->program, &parts, ctx, schedule->shape, error)) ||
        !(p->arena = ctx->alloc(ctx, MI_MEM_DEVICE, MAX(p->schedule->bytes, 1), error))) {
        placed_free(s, p);
        return NULL;
    }
    mi_runner_bind(s->runner, p->schedule, p->arena);
    return p;
}

static const MiPlaced *find(MiSide *s, GHashTable *table, MiSchedule *schedule, bool own, GError **error)
{
    MiPlaced *p = g_hash_table_lookup(table, schedule);

    if (p)
        return p;
    if (own)
        p = place(s, schedule, error);
    else {
        p = g_new(MiPlaced, 1);
        *p = (MiPlaced){ schedule, mi_runner_arena(s->runner), false };
    }
    if (p)
        g_hash_table_insert(table, schedule, p);
    return p;
}

const MiPlaced *mi_side_plain(MiSide *s, MiSchedule *schedule, GError **error)
{
    return find(s, s->plain, schedule, has_fusion(schedule), error);
}

const MiPlaced *mi_side_spare(MiSide *s, MiSchedule *schedule, GError **error)
{
    return find(s, s->spare, schedule, true, error);
}

bool mi_side_wait(MiSide *s, GError **error)
{
    MiContext *ctx = &s->a->ctx.pub;
    return ctx->backend->event_record(ctx->device, s->event, ctx->stream, error) &&
           ctx->backend->event_wait(ctx->device, s->event, error);
}

bool mi_side_run(MiSide *s, const MiPlaced *p, guint i, GError **error)
{
    if (mi_schedule_run_one(p->schedule, i, &s->a->ctx.pub, error) && mi_side_wait(s, error))
        return true;
    g_prefix_error(error, "after %s: ", mi_schedule_at(p->schedule, i)->name);
    return false;
}

/* ---- values ---------------------------------------------------------------------------------- */

static char *pinned(MiSide *s, size_t bytes, GError **error)
{
    MiContext *ctx = &s->a->ctx.pub;

    if (bytes <= s->pinned_bytes)
        return s->pinned;
    ctx->free(ctx, MI_MEM_PINNED, s->pinned);
    s->pinned_bytes = 0;
    if (!(s->pinned = ctx->alloc(ctx, MI_MEM_PINNED, mi_align(bytes), error)))
        return NULL;
    s->pinned_bytes = mi_align(bytes);
    return s->pinned;
}

int64_t mi_side_elements(const MiPlaced *p, MiVal v, MiShape shape)
{
    const MiValue *value = mi_recording_value(p->schedule->program, v);
    const MiType  *t = &value->type;

    if (value->base.id != v.id || value->data)
        return 0;
    return (t->rows == MI_ROWS_TOKENS ? shape.n_tokens : t->rows == MI_ROWS_OUTPUTS ? shape.n_out : t->n_rows) * value->row;
}

bool mi_side_read(MiSide *s, const MiPlaced *p, MiVal v, float *out, int64_t n, GError **error)
{
    const MiTensor t = mi_schedule_tensor(p->schedule, p->arena, v);
    const void    *at = mi_side_gather(s, (const void *const[]){ t.data }, 1, (size_t)n * mi_dtype_size(t.dtype), error);

    if (at)
        mi_numbers_from(t.dtype, at, n, out);
    return at != NULL;
}

bool mi_side_write(MiSide *s, const MiPlaced *p, MiVal v, const float *x, int64_t n, GError **error)
{
    const MiTensor t = mi_schedule_tensor(p->schedule, p->arena, v);
    const size_t   bytes = (size_t)n * mi_dtype_size(t.dtype);
    MiContext     *ctx = &s->a->ctx.pub;
    char          *from = pinned(s, bytes, error);

    if (!from)
        return false;
    mi_numbers_to(t.dtype, x, n, from);
    return ctx->backend->copy(ctx->device, ctx->stream, t.data, from, bytes, error) && mi_side_wait(s, error);
}

const void *mi_side_gather(MiSide *s, const void *const *from, size_t n, size_t bytes, GError **error)
{
    MiContext *ctx = &s->a->ctx.pub;
    char      *to = pinned(s, MAX(n * bytes, 1), error);

    for (size_t i = 0; i < n && to; i++)
        if (!ctx->backend->copy(ctx->device, ctx->stream, to + i * bytes, from[i], bytes, error))
            return NULL;
    return to && mi_side_wait(s, error) ? to : NULL;
}

bool mi_side_scatter(MiSide *s, void *const *to, size_t n, size_t bytes, const void *from, GError **error)
{
    MiContext *ctx = &s->a->ctx.pub;
    char      *at = pinned(s, MAX(n * bytes, 1), error);

    if (!at)
        return false;
    memcpy(at, from, n * bytes);
    for (size_t i = 0; i < n; i++)
        if (to[i] && !ctx->backend->copy(ctx->device, ctx->stream, to[i], at + i * bytes, bytes, error))
            return false;
    return mi_side_wait(s, error);
}

/* ---- names --------------------------------------------------------------------------------------- */

/* "linear mlp.gate_proj"; of an op without weights how often its scope had it before: "rope 2". */
static void append_node(GString *out, const MiRecording *r, const MiNode *n)
{
    const char *weight = n->weight[0] ? n->weight[0]->name : NULL, *dot = weight ? strrchr(weight, '.') : NULL;
    int         times = 1;

    g_string_append(out, n->op);
    if (weight) {
        const size_t in = n->scope && g_str_has_prefix(weight, n->scope) ? strlen(n->scope) + 1 : 0;
        g_string_append_printf(out, " %.*s", (int)((dot ? (size_t)(dot - weight) : strlen(weight)) - in), weight + in);
        return;
    }
    for (int i = 0; mi_recording_node(r, i) != n; i++) {
        const MiNode *m = mi_recording_node(r, i);
        times += strcmp(m->op, n->op) == 0 && g_strcmp0(m->scope, n->scope) == 0 && !m->weight[0];
    }
    if (times > 1)
        g_string_append_printf(out, " %d", times);
}

char *mi_side_label(const MiSchedule *s, guint i)
{
    const MiCall *c = &mi_schedule_at(s, i)->call;
    const char   *scope = c->at[0].node->scope;
    GString      *out = g_string_new(scope);

    if (scope)
        g_string_append(out, ": ");
    for (int k = 0; k < c->n; k++) {
        if (k)
            g_string_append(out, " + ");
        append_node(out, s->program, c->at[k].node);
    }
    return g_string_free(out, FALSE);
}
