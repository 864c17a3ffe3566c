/* engine.c - one thread that takes requests, schedules, runs and delivers.
 *
 * Front ends talk to it from any thread: what they submit waits in `incoming`
 * until the engine thread looks, between steps.  All else is that thread's.
 * Nothing is allocated in a step once its bucket has run before. */
#include "engine.h"
#include "chat.h"
#include "sequence.h"

#include <math.h>
#include <string.h>

typedef struct {
    MiEngine    pub; /* first */
    MiAssembly *a;
    GThread    *thread;
    GMutex      lock; /* of what follows, to `stats` */
    GCond       wake;
    GPtrArray  *incoming; /* MiRequested * */
    GArray     *cancelled; /* uint64_t */
    uint64_t    last_id;
    bool        stopping;
    MiStats     stats;

    /* The engine thread's. */
    GPtrArray  *known; /* MiRequested *: all that are not finished, oldest first */
    void       *cache, *scheduler, *step_memory, *rows, *arena;
    MiLimits    limits;
    MiKvView   *views; /* [n_layers] */
    MiBatch     batch;
    MiStep      step;
    int32_t    *out_seq; /* [max_out] index in step.seqs of each output row */
    MiTemplate *template;
    char       *template_error, *name;
    GArray     *phases; /* MiPhase */
    int64_t     mark;
} Engine;

static Engine *engine(MiEngine *e) { return (Engine *)(void *)e; }
static MiRequested *requested(const MiSequence *s) { return s->owner; }

/* ---- a step: what goes in ------------------------------------------------------- */

/* A sequence that wants every row of its prompt takes no more of them than outputs are left,
 * with one output kept for each of the others.  Where all is recomputed it takes all rows, and
 * fill_batch() asks for the outputs of some. */
static void limit_scored(Engine *e)
{
    int left = e->a->max_out - e->step.shape.n_seqs;

    for (int i = 0; i < e->step.shape.n_seqs && !((const MiCache *)e->a->cache->vtable)->recomputes; i++) {
        if (!requested(e->step.seqs[i])->prompt_logprobs)
            continue;
        e->step.count[i] = MIN(e->step.count[i], 1 + left);
        left -= e->step.count[i] - 1;
    }
}

static int32_t *writable(const int32_t *p) { return (int32_t *)(uintptr_t)p; }

static void add_output(Engine *e, int row, int seq, int32_t target)
{
    const int i = e->batch.shape.n_out++;

    writable(e->batch.out_rows)[i] = row;
    writable(e->batch.out_slot)[i] = target < 0 ? e->step.seqs[seq]->slot : -1;
    writable(e->batch.targets)[i] = target;
    e->out_seq[i] = seq;
}

/* The outputs of a sequence whose first row is `row`: those of its prompt that are not scored
 * yet, and the one that is drawn from once all are.  left: of the outputs that any may take. */
static void add_outputs(Engine *e, int i, int row, int *left)
{
    const MiSequence *s = e->step.seqs[i];
    const MiRequested *q = requested(s);
    const int         end = s->n_cached + e->step.count[i], before = e->batch.shape.n_out;
    int               own = 1 + *left, at = MAX(s->n_cached, q->n_scored);

    for (; q->prompt_logprobs && at < MIN(end, s->n_prompt - 1) && own > 0; at++, own--)
        add_output(e, row + at - s->n_cached, i, s->tokens[at + 1]);
    if (end == s->n_tokens && s->max_tokens > 0 && own > 0 && (!q->prompt_logprobs || at >= s->n_prompt - 1))
        add_output(e, row + end - 1 - s->n_cached, i, -1);
    *left -= MAX(e->batch.shape.n_out - before - 1, 0);
}

static void fill_batch(Engine *e)
{
    MiBatch *b = &e->batch;
    int      row = 0, left = e->a->max_out - e->step.shape.n_seqs;

    b->shape = (MiShape){ .n_seqs = e->step.shape.n_seqs, .decode = true };
    for (int i = 0; i < b->shape.n_seqs; i++) {
        const MiSequence *s = e->step.seqs[i];
        const int         n = e->step.count[i];

        writable(b->seq_start)[i] = row;
        writable(b->n_prompt)[s->slot] = s->n_prompt;
        memcpy(writable(b->history) + (size_t)s->slot * (size_t)b->max_history + s->n_cached, s->tokens + s->n_cached,
               (size_t)n * sizeof *s->tokens);
        add_outputs(e, i, row, &left);
        for (int k = 0; k < n; k++, row++) {
            writable(b->tokens)[row] = s->tokens[s->n_cached + k];
            writable(b->positions)[row] = s->n_cached + k;
        }
        b->shape.max_kv = MAX(b->shape.max_kv, s->n_cached + n);
        b->shape.decode = b->shape.decode && n == 1;
    }
    writable(b->seq_start)[b->shape.n_seqs] = row;
    b->shape.n_tokens = row;
    e->step.shape = b->shape;
}

/* Until an answer has min_tokens, a bias makes its ends impossible. */
static void forbid_stops(const MiRequested *q, const MiLink *l, char *row)
{
    if (q->pub.n_tokens - q->pub.n_prompt >= q->min_tokens)
        return;
    for (const MiOption *o = l->sampler->params; o && o->key; o++) {
        MiBiases *b = (MiBiases *)(void *)(row + o->offset);
        for (int i = 0; o->type == MI_BIASES && i < q->n_stop_ids && b->n < MI_MAX_BIASES; i++) {
            b->at[b->n].id = q->stop_ids[i];
            b->at[b->n++].bias = -INFINITY;
        }
    }
}

/* The parameters of every output row; returns the links that take part. */
static uint32_t fill_rows(Engine *e)
{
    const MiAssembly *a = e->a;
    uint32_t          links = 1u << (a->n_links - 1);

    for (int i = 0; i < e->batch.shape.n_out; i++)
        if (e->batch.out_slot[i] >= 0)
            links |= requested(e->step.seqs[e->out_seq[i]])->links;
    for (int l = 0; l < a->n_links; l++) {
        const size_t size = a->links[l].row_size;
        char        *rows = (char *)e->rows + mi_rows_offset(a, l);
        if (!size || !(links >> l & 1))
            continue;
        for (int i = 0; i < e->batch.shape.n_out; i++) {
            const MiRequested *q = requested(e->step.seqs[e->out_seq[i]]);
            memcpy(rows + (size_t)i * size, q->rows[l], size);
            if (e->batch.out_slot[i] >= 0)
                forbid_stops(q, &a->links[l], rows + (size_t)i * size);
        }
    }
    return links;
}

/* ---- a step: running -------------------------------------------------------------- */

static const void *rows_of(void *user, const char *sampler)
{
    const Engine *e = user;
    for (int i = 0; i < e->a->n_links; i++)
        if (strcmp(e->a->links[i].feature->name, sampler) == 0)
            return (char *)e->rows + mi_rows_offset(e->a, i);
    return NULL;
}

static void bind(Engine *e, MiBucket *b)
{
    const MiBinding where = { .arena = e->arena, .batch = &e->batch, .kv = e->views, .attention = e->a->attention_self,
                              .cache = e->cache, .rows = rows_of, .user = e };
    mi_schedule_bind(b->schedule, &where);
    b->bound = true;
}

/* The bucket of this step.  One whose values happen not to fit the arena gives way to the
 * full chain's, whose links that nobody asks for change nothing. */
static MiBucket *bucket(Engine *e, uint32_t links, bool logprobs, GError **error)
{
    MiBucket *b = mi_assembly_bucket(e->a, links, logprobs, e->batch.shape, error);
    if (b && b->schedule->bytes > e->a->arena_bytes)
        b = mi_assembly_bucket(e->a, (1u << e->a->n_links) - 1, logprobs, e->batch.shape, error);
    if (b && !b->bound)
        bind(e, b);
    return b;
}

static bool wants_logprobs(const Engine *e)
{
    for (int i = 0; i < e->batch.shape.n_out; i++) {
        const MiRequested *q = requested(e->step.seqs[e->out_seq[i]]);
        if (q->logprobs || q->prompt_logprobs)
            return true;
    }
    return false;
}

static MiTensor output(const Engine *e, const MiBucket *b, const char *name)
{
    return mi_schedule_tensor(b->schedule, e->arena, mi_recording_output(b->schedule->program, name));
}

static MiBucket *run(Engine *e, bool *logprobs, GError **error)
{
    const MiCache     *cache = e->a->cache->vtable;
    const MiAttention *attention = e->a->attention->vtable;
    MiContext         *ctx = &e->a->ctx.pub;
    MiBucket          *b;

    limit_scored(e);
    fill_batch(e);
    *logprobs = wants_logprobs(e);
    if (!(b = bucket(e, fill_rows(e), *logprobs, error)) || !cache->plan(e->cache, ctx, &e->step, &e->batch, error) ||
        (MI_HAS(attention, plan) && !attention->plan(e->a->attention_self, ctx, &e->step, &e->batch, error)))
        return NULL;
    mi_schedule_shape(b->schedule, e->batch.shape);
    return mi_schedule_run(b->schedule, ctx, error) ? b : NULL;
}

/* ---- a step: what comes out --------------------------------------------------------- */

static void forget(Engine *e, MiRequested *q)
{
    ((const MiScheduler *)e->a->scheduler->vtable)->remove(e->scheduler, &q->pub);
    g_ptr_array_remove(e->known, q);
    g_mutex_lock(&e->lock);
    e->stats.running = (int32_t)e->known->len;
    g_mutex_unlock(&e->lock);
    mi_requested_free(q);
}

static void deliver(Engine *e, const MiBucket *b, bool with_logprobs)
{
    const MiShape  shape = e->batch.shape;
    const int32_t *tokens = shape.n_out ? output(e, b, "tokens").data : NULL;
    const float   *logprobs = with_logprobs ? output(e, b, "logprobs").data : NULL;
    const int32_t *ids = with_logprobs ? output(e, b, "logprob_ids").data : NULL;
    const bool     recomputes = ((const MiCache *)e->a->cache->vtable)->recomputes;

    for (int i = 0; i < shape.n_seqs; i++)
        e->step.seqs[i]->n_cached += recomputes ? 0 : e->step.count[i];
    for (int i = 0; i < shape.n_out; i++) {
        MiRequested  *q = requested(e->step.seqs[e->out_seq[i]]);
        const size_t  at = (size_t)i * (1 + MI_MAX_TOPS);
        const int32_t position = e->batch.positions[e->batch.out_rows[i]];
        if (q->finished)
            continue;
        if (e->batch.out_slot[i] < 0)
            mi_requested_scored(q, position + 1, 1, logprobs + at, ids + at);
        else
            mi_requested_drawn(q, e->a, tokens[i], logprobs ? logprobs + at : NULL, ids ? ids + at : NULL);
    }
    g_mutex_lock(&e->lock);
    e->stats.steps++;
    e->stats.tokens_in += (uint64_t)(shape.n_tokens - (shape.decode ? shape.n_seqs : 0));
    e->stats.tokens_out += (uint64_t)shape.n_out;
    g_mutex_unlock(&e->lock);
    for (int i = 0; i < shape.n_seqs; i++) {
        MiRequested *q = requested(e->step.seqs[i]);
        const int32_t seen = e->batch.positions[e->batch.seq_start[i + 1] - 1] + 1;
        if (!q->pub.max_tokens && seen == q->pub.n_tokens && (!q->prompt_logprobs || q->n_scored >= seen - 1))
            mi_requested_finish(q, MI_FINISH_LENGTH);
        if (q->finished)
            forget(e, q);
    }
}

static void fail_step(Engine *e, const char *message)
{
    for (int i = 0; i < e->step.shape.n_seqs; i++) {
        MiRequested *q = requested(e->step.seqs[i]);
        mi_requested_fail(q, message);
        forget(e, q);
    }
}

/* Nothing can run although somebody waits: the first of them does not fit even alone. */
static void fail_stuck(Engine *e)
{
    MiRequested     *q = e->known->pdata[0];
    g_autofree char *why = g_strdup_printf("the request of %d tokens does not fit: [engine] max_tokens = %d, max_len = %d",
                                           q->pub.n_tokens, e->a->max_tokens, e->a->max_len);
    mi_requested_fail(q, why);
    forget(e, q);
}

static void one_step(Engine *e)
{
    const MiScheduler *s = e->a->scheduler->vtable;
    g_autoptr(GError)  error = NULL;
    bool               logprobs = false;

    if (!s->next(e->scheduler, &e->step)) {
        fail_stuck(e);
        return;
    }
    const int64_t now = g_get_monotonic_time();
    for (int i = 0; i < e->step.shape.n_seqs; i++)
        if (!requested(e->step.seqs[i])->started_us) {
            requested(e->step.seqs[i])->started_us = now;
            requested(e->step.seqs[i])->n_found = e->step.seqs[i]->n_cached;
        }
    const MiBucket *b = run(e, &logprobs, &error);
    if (MI_HAS(s, took)) /* while the step's sequences are all there: delivering ends some */
        s->took(e->scheduler, &e->step, g_get_monotonic_time() - now);
    if (b)
        deliver(e, b, logprobs);
    else
        fail_step(e, error->message);
}

/* ---- the thread ----------------------------------------------------------------------- */

static void take_incoming(Engine *e)
{
    for (guint i = 0; i < e->incoming->len; i++) {
        MiRequested *q = e->incoming->pdata[i];
        g_ptr_array_add(e->known, q);
        ((const MiScheduler *)e->a->scheduler->vtable)->add(e->scheduler, &q->pub);
    }
    g_ptr_array_set_size(e->incoming, 0);
    for (guint i = 0; i < e->cancelled->len; i++)
        for (guint k = 0; k < e->known->len; k++) {
            MiRequested *q = e->known->pdata[k];
            if (q->pub.id == g_array_index(e->cancelled, uint64_t, i))
                q->cancelled = true;
        }
    g_array_set_size(e->cancelled, 0);
    e->stats.running = (int32_t)e->known->len;
}

static void end_cancelled(Engine *e, bool all)
{
    for (guint k = e->known->len; k-- > 0;) {
        MiRequested *q = e->known->pdata[k];
        if (!q->cancelled && !all)
            continue;
        mi_requested_finish(q, MI_FINISH_CANCELLED);
        forget(e, q);
    }
}

static gpointer loop(gpointer data)
{
    Engine *e = data;

    for (;;) {
        g_mutex_lock(&e->lock);
        while (!e->stopping && !e->incoming->len && !e->cancelled->len && !e->known->len)
            g_cond_wait(&e->wake, &e->lock);
        take_incoming(e);
        const bool stopping = e->stopping;
        g_mutex_unlock(&e->lock);
        end_cancelled(e, stopping);
        if (stopping)
            return NULL;
        if (e->known->len)
            one_step(e);
    }
}

/* ---- what front ends call ---------------------------------------------------------------- */

static uint64_t submit(MiEngine *self, const MiRequest *r, GError **error)
{
    Engine  *e = engine(self);
    uint64_t id;

    g_mutex_lock(&e->lock);
    id = ++e->last_id;
    g_mutex_unlock(&e->lock);
    MiRequested *q = mi_requested_new(e->a, r, id, error);
    if (!q)
        return 0;
    g_mutex_lock(&e->lock);
    g_ptr_array_add(e->incoming, q);
    e->stats.requests++;
    g_cond_signal(&e->wake);
    g_mutex_unlock(&e->lock);
    return id;
}

static void cancel(MiEngine *self, uint64_t id)
{
    Engine *e = engine(self);

    g_mutex_lock(&e->lock);
    g_array_append_val(e->cancelled, id);
    g_cond_signal(&e->wake);
    g_mutex_unlock(&e->lock);
}

static void stats(MiEngine *self, MiStats *out)
{
    Engine *e = engine(self);

    g_mutex_lock(&e->lock);
    *out = e->stats;
    out->waiting = (int32_t)e->incoming->len;
    g_mutex_unlock(&e->lock);
}

static const char *model(MiEngine *self, int32_t *max_len)
{
    if (max_len)
        *max_len = engine(self)->a->max_len;
    return engine(self)->name;
}

static size_t encode(MiEngine *self, const char *text, size_t len, bool special, int32_t *out, size_t max)
{
    const MiTextCoder *t = &engine(self)->a->text;
    return t->vt ? t->vt->encode(t->self, text, len, special, out, max) : SIZE_MAX;
}

static const char *piece(MiEngine *self, int32_t previous, int32_t id, size_t *len)
{
    const MiTextCoder *t = &engine(self)->a->text;
    return t->vt ? t->vt->piece(t->self, previous, id, len) : NULL;
}

static int32_t *encode_chat(MiEngine *self, const MiVar *vars, size_t *n_ids, GError **error)
{
    const Engine *e = engine(self);

    if (e->template)
        return mi_chat_encode(e->template, &e->a->text, vars, g_get_real_time() / G_USEC_PER_SEC, n_ids, error);
    g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED, "%s", e->template_error);
    return NULL;
}

static int32_t bos(MiEngine *self)
{
    const MiTextCoder *t = &engine(self)->a->text;
    return t->vt && t->data.add_bos ? t->data.bos : -1;
}

static const MiEngineApi api = {
    .struct_size = sizeof api,
    .submit = submit,
    .cancel = cancel,
    .stats = stats,
    .model = model,
    .encode = encode,
    .piece = piece,
    .encode_chat = encode_chat,
    .bos = bos,
};

/* ---- start and stop ------------------------------------------------------------------------ */

static void phase(Engine *e, const char *what)
{
    const int64_t now = g_get_monotonic_time();
    const MiPhase p = { what, now - e->mark };

    g_array_append_val(e->phases, p);
    e->mark = now;
}

/* The model's chat template, or the configuration's; a model without one still completes text. */
static bool read_template(Engine *e, GError **error)
{
    const char       *file = e->a->settings.model.chat_template, *source = e->a->text.data.chat_template;
    g_autofree char  *own = NULL;
    g_autoptr(GError) why = NULL;

    if (file && *file) {
        if (!g_file_get_contents(file, &own, NULL, error))
            return false;
        source = own;
    }
    if (!source)
        e->template_error = g_strdup("the model has no chat template; use --raw, or set [model] chat_template");
    else if (!(e->template = mi_template_parse(source, strlen(source), &why)))
        e->template_error = g_strdup(why->message);
    return true;
}

/* A model whose files have no tokenizer still takes ids and gives ids. */
static bool read_text(Engine *e, GError **error)
{
    g_autoptr(GError) why = NULL;

    if (mi_text_open(e->a->registry, e->a->config, &e->a->source, &e->a->text, &why))
        return read_template(e, error);
    if (!g_error_matches(why, MI_ERROR, MI_ERROR_NOT_FOUND)) {
        g_propagate_error(error, g_steal_pointer(&why));
        return false;
    }
    e->template_error = g_strdup(why->message);
    return true;
}

static bool allocate(Engine *e, GError **error)
{
    MiAssembly    *a = e->a;
    MiContext     *ctx = &a->ctx.pub;
    const MiCache *cache = a->cache->vtable;

    if (!MI_HAS(ctx->backend, unified)) {
        g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED, "device '%s' has memory of its own, which this engine does not feed",
                    a->backend->name);
        return false;
    }
    if (!(e->cache = cache->create(ctx, &a->cache_spec, a->cache_options, error)) ||
        !(e->arena = ctx->alloc(ctx, MI_MEM_DEVICE, a->arena_bytes, error)) ||
        !(e->step_memory = ctx->alloc(ctx, MI_MEM_DEVICE, a->step_bytes, error)) ||
        (a->rows_bytes && !(e->rows = ctx->alloc(ctx, MI_MEM_DEVICE, a->rows_bytes, error))))
        return false;
    memset(e->step_memory, 0, a->step_bytes);
    mi_step_carve(a, &e->batch, e->step_memory);
    e->views = g_new0(MiKvView, a->n_layers);
    for (int i = 0; i < a->n_layers; i++)
        cache->view(e->cache, i, &e->views[i]);
    e->step.seqs = g_new0(MiSequence *, a->max_seqs);
    e->step.count = g_new0(int32_t, a->max_seqs);
    e->out_seq = g_new0(int32_t, a->max_out);
    e->limits = (MiLimits){ a->max_seqs, a->max_tokens, a->prefill_step, cache, e->cache };
    e->scheduler = ((const MiScheduler *)a->scheduler->vtable)->create(&e->limits, a->scheduler_options, error);
    return e->scheduler != NULL;
}

MiEngine *mi_engine_start(MiAssembly *a, MiLoadProgress *progress, void *user, GError **error)
{
    Engine           *e = g_new0(Engine, 1);
    g_autoptr(GError) why = NULL;

    e->pub.api = &api;
    e->a = a;
    g_mutex_init(&e->lock);
    g_cond_init(&e->wake);
    e->incoming = g_ptr_array_new();
    e->cancelled = g_array_new(FALSE, FALSE, sizeof(uint64_t));
    e->known = g_ptr_array_new();
    e->phases = g_array_new(FALSE, FALSE, sizeof(MiPhase));
    e->name = g_path_get_basename(a->settings.model.path);
    e->mark = g_get_monotonic_time();

    bool ok = read_text(e, &why);
    phase(e, "tokenizer and template");
    ok = ok && mi_weights_load(a->weights, &a->ctx.pub, progress, user, &why);
    phase(e, "weights");
    ok = ok && allocate(e, &why);
    for (guint i = 0; i < a->buckets->len && ok; i++)
        bind(e, a->buckets->pdata[i]);
    phase(e, "memory");
    if (ok && (e->thread = g_thread_try_new("engine", loop, e, &why)))
        return &e->pub;
    g_propagate_error(error, g_steal_pointer(&why));
    mi_engine_stop(&e->pub);
    return NULL;
}

void mi_engine_stop(MiEngine *self)
{
    Engine     *e = engine(self);
    MiAssembly *a = e->a;
    MiContext  *ctx = &a->ctx.pub;

    g_mutex_lock(&e->lock);
    e->stopping = true;
    g_cond_signal(&e->wake);
    g_mutex_unlock(&e->lock);
    if (e->thread)
        g_thread_join(e->thread);
    if (e->scheduler && MI_HAS((const MiScheduler *)a->scheduler->vtable, destroy))
        ((const MiScheduler *)a->scheduler->vtable)->destroy(e->scheduler);
    if (e->cache && MI_HAS((const MiCache *)a->cache->vtable, destroy))
        ((const MiCache *)a->cache->vtable)->destroy(e->cache);
    ctx->free(ctx, MI_MEM_DEVICE, e->arena);
    ctx->free(ctx, MI_MEM_DEVICE, e->step_memory);
    ctx->free(ctx, MI_MEM_DEVICE, e->rows);
    mi_template_free(e->template);
    g_ptr_array_unref(e->incoming);
    g_array_unref(e->cancelled);
    g_ptr_array_unref(e->known);
    g_array_unref(e->phases);
    g_free(e->views);
    g_free(e->step.seqs);
    g_free(e->step.count);
    g_free(e->out_seq);
    g_free(e->template_error);
    g_free(e->name);
    g_mutex_clear(&e->lock);
    g_cond_clear(&e->wake);
    g_free(e);
}

const MiPhase *mi_engine_phases(const MiEngine *self, int *n)
{
    const Engine *e = (const Engine *)(const void *)self;
    *n = (int)e->phases->len;
    return (const MiPhase *)(void *)e->phases->data;
}

size_t mi_engine_allocated(const MiEngine *self) { return ((const Engine *)(const void *)self)->a->ctx.allocated; }
