/* engine.c - one thread that takes requests, schedules, runs and delivers.
 *
 * Front ends talk to it from any thread: what they submit waits in `incoming`
 * until the engine thread looks, between steps.  All else is that thread's.
 * Nothing is allocated in a step once its bucket has run before. */
#include "engine.h"
#include "chat.h"
#include "identity.h"
#include "runner.h"

typedef struct {
    MiEngine    pub; /* first */
    MiAssembly *a;
    GThread    *thread;
    GMutex      lock; /* of what follows, to `dead` */
    GCond       wake, rest;
    GPtrArray  *incoming; /* MiRequested * */
    GArray     *cancelled; /* uint64_t */
    uint64_t    last_id;
    bool        stopping, resting; /* resting: nothing is asked, nothing under way */
    MiStats     stats;
    MiPaceLog   pace;
    char       *dead; /* why no step will ever run again; NULL: all is well */

    /* The engine thread's. */
    GPtrArray  *known; /* MiRequested *: all that are not finished, oldest first */
    MiRunner   *runner;
    void       *scheduler;
    MiLimits    limits;
    int64_t     room; /* positions of the cache when nothing runs */
    MiFlight   *flying[MI_FLIGHTS]; /* steps under way, oldest first */
    int         n_flying;
    uint64_t    n_prompt, n_found, n_preempted; /* as in MiStats */
    int64_t     landed_us; /* when the last one was done */
    MiPaced     step;      /* what is known of the next to land */
    MiTemplate *template;
    char       *template_error, *name;
    GArray     *phases; /* MiPhase */
    int64_t     mark;
} Engine;

static Engine *engine(MiEngine *e) { return (Engine *)(void *)e; }
static MiRequested *requested(const MiSequence *s) { return s->owner; }

/* ---- a step: what comes out --------------------------------------------------------- */

/* It takes no part any more; a step under way may still name it, and then it goes with that. */
static void forget(Engine *e, MiRequested *q)
{
    if (!q->gone) {
        ((const MiScheduler *)e->a->scheduler->vtable)->remove(e->scheduler, &q->pub);
        g_ptr_array_remove(e->known, q);
        q->gone = true;
    }
    if (!q->n_flights)
        mi_requested_free(q);
}

/* Before anybody hears of it: who is told that all is done finds it counted. */
static void tally(Engine *e, const MiFlight *f)
{
    uint64_t drawn = 0, read = 0;

    for (int i = 0; i < f->shape.n_out; i++)
        drawn += f->out_slot[i] >= 0 && !requested(f->step.seqs[f->out_seq[i]])->finished;
    for (int i = 0; i < f->shape.n_seqs; i++) {
        const int32_t n_prompt = f->step.seqs[i]->n_prompt;
        read += (uint64_t)(MIN(f->seen[i], n_prompt) - MIN(f->seen[i] - f->step.count[i], n_prompt));
    }
    g_mutex_lock(&e->lock);
    e->stats.steps++;
    e->stats.tokens_in += read;
    e->stats.tokens_out += drawn;
    g_mutex_unlock(&e->lock);
}

/* ok: it ran; else there is nothing in it, and all that took part were told. */
static void deliver(Engine *e, const MiFlight *f, bool ok)
{
    const MiShape shape = f->shape;

    if (ok)
        tally(e, f);
    for (int i = 0; i < shape.n_out && ok; i++) {
        MiRequested  *q = requested(f->step.seqs[f->out_seq[i]]);
        const size_t  at = (size_t)i * (1 + MI_MAX_TOPS);
        const int32_t position = f->out_position[i];
        const float  *values = f->logprobs ? f->values + at : NULL;
        const int32_t *ids = f->logprobs ? f->ids + at : NULL;
        if (q->finished)
            continue;
        if (f->out_slot[i] < 0)
            mi_requested_scored(q, position + 1, 1, values, ids);
        else
            mi_requested_drawn(q, e->a, f->tokens[i], values, ids);
    }
    for (int i = 0; i < shape.n_seqs; i++) {
        MiRequested *q = requested(f->step.seqs[i]);
        q->n_flights--;
        if (!q->finished && !q->pub.max_tokens && f->seen[i] == q->pub.n_tokens &&
            (!q->prompt_logprobs || q->n_scored >= f->seen[i] - 1))
            mi_requested_finish(q, MI_FINISH_LENGTH);
        if (q->finished)
            forget(e, q);
    }
}

static void fail_step(Engine *e, const MiStep *step, const GError *why)
{
    for (int i = 0; i < step->shape.n_seqs; i++) {
        MiRequested *q = requested(step->seqs[i]);
        if (q->gone)
            continue;
        mi_requested_fail(q, why);
        forget(e, q);
    }
}

/* The device failed: everybody is told why. */
static void fail_known(Engine *e)
{
    const GError why = { MI_ERROR, MI_ERROR_DEVICE, e->dead };

    while (e->known->len) {
        MiRequested *q = e->known->pdata[0];
        mi_requested_fail(q, &why);
        forget(e, q);
    }
}

/* A device that failed stays so: whoever comes later is told, too. */
static void fail_all(Engine *e, const char *message)
{
    g_mutex_lock(&e->lock);
    if (!e->dead)
        e->dead = g_strdup(message);
    g_mutex_unlock(&e->lock);
    fail_known(e);
}

/* Nothing can run although somebody waits: the first of them does not fit even alone. */
static void fail_stuck(Engine *e)
{
    MiRequested      *q = e->known->pdata[0];
    g_autoptr(GError) why = g_error_new(MI_ERROR, MI_ERROR_CONFIG,
                                        "the request of %d tokens does not fit: [engine] max_tokens = %d, max_len = %d",
                                        q->pub.n_tokens, e->a->max_tokens, e->a->max_len);
    mi_requested_fail(q, why);
    forget(e, q);
}

/* ---- a step ----------------------------------------------------------------------- */

static void mark_started(Engine *e, const MiFlight *f)
{
    for (int i = 0; i < f->step.shape.n_seqs; i++) {
        MiRequested *q = requested(f->step.seqs[i]);
        q->placed = true;
        if (q->started_us)
            continue;
        q->started_us = g_get_monotonic_time();
        q->n_found = q->pub.n_cached;
        e->n_prompt += (uint64_t)q->pub.n_prompt;
        e->n_found += (uint64_t)q->n_found;
    }
}

/* The next step is enqueued; false: there is nothing to do, or it failed. */
static bool launch(Engine *e)
{
    MiFlight         *f = mi_runner_flight(e->runner);
    g_autoptr(GError) error = NULL;

    if (!((const MiScheduler *)e->a->scheduler->vtable)->next(e->scheduler, &f->step))
        return false;
    mark_started(e, f);
    if (mi_runner_launch(e->runner, f, &error)) {
        e->flying[e->n_flying++] = f;
        e->step.first |= f->first;
        return true;
    }
    fail_step(e, &f->step, error);
    if (g_error_matches(error, MI_ERROR, MI_ERROR_DEVICE))
        fail_all(e, error->message);
    return false;
}

enum { AT_ONCE = 2000 /* nanoseconds that asking takes */ };

/* The oldest step under way is waited for and delivered. */
static void land(Engine *e)
{
    const MiScheduler *s = e->a->scheduler->vtable;
    MiFlight          *f = e->flying[0];
    g_autoptr(GError)  error = NULL;
    const int64_t      from = mi_pace_now();
    const bool         ok = mi_runner_wait(e->runner, f, &error);
    const int64_t      waited = mi_pace_now() - from;

    const int64_t now = g_get_monotonic_time();
    e->step.ns -= waited;
    e->step.late = e->n_flying > 1 && waited < AT_ONCE;
    e->step.decode = f->shape.decode;
    e->step.n_seqs = f->shape.n_seqs;
    e->flying[0] = e->flying[--e->n_flying];
    if (MI_HAS(s, took)) /* while the step's sequences are all there: delivering ends some */
        s->took(e->scheduler, &f->step, now - MAX(f->launched_us, e->landed_us));
    e->landed_us = now;
    if (!ok)
        fail_all(e, error->message);
    deliver(e, f, ok);
}

/* A sequence that lost its place must not take another while its last token is on its way: it stands
 * in a slot that somebody else may have by then.  What that slot knew of it is told anew. */
static bool lost_in_flight(Engine *e)
{
    bool lost = false;

    for (guint i = 0; i < e->known->len; i++) {
        MiRequested *q = e->known->pdata[i];
        if (q->pub.slot >= 0)
            continue;
        q->n_told = 0;
        lost = lost || q->n_flights;
        e->n_preempted += q->placed;
        q->placed = false;
    }
    return lost;
}

/* Locked.  Who runs, who waits, and what is taken of the cache, found there and lost. */
static void count(Engine *e)
{
    const MiScheduler *s = e->a->scheduler->vtable;

    e->stats.waiting = s->waiting(e->scheduler);
    e->stats.running = (int32_t)e->known->len - e->stats.waiting;
    e->stats.kv_room = e->limits.cache->room(e->limits.kv);
    e->stats.kv_used = e->room - e->stats.kv_room;
    e->stats.kv_most = MAX(e->stats.kv_most, e->stats.kv_used);
    e->stats.prompt_tokens = e->n_prompt;
    e->stats.found_tokens = e->n_found;
    e->stats.preemptions = e->n_preempted;
}

static void one_step(Engine *e)
{
    const int64_t  from = mi_pace_now();
    const uint64_t steps = e->stats.steps;

    while (lost_in_flight(e))
        land(e);
    const bool launched = e->known->len && launch(e);
    if (launched && e->n_flying == mi_runner_depth(e->runner))
        e->step.first |= mi_runner_ahead(e->runner);
    if (e->n_flying && (!launched || e->n_flying == mi_runner_depth(e->runner)))
        land(e);
    else if (!launched && !e->n_flying && e->known->len)
        fail_stuck(e);
    g_mutex_lock(&e->lock);
    e->step.ns += mi_pace_now() - from;
    if (e->stats.steps != steps) { /* else the next that lands is told what was done for it */
        mi_pace_add(&e->pace, &e->step);
        e->stats.host_us += e->step.ns / 1000;
        e->step = (MiPaced){ 0 };
    }
    g_mutex_unlock(&e->lock);
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
        count(e);
        while (!e->stopping && !e->incoming->len && !e->cancelled->len && !e->known->len && !e->n_flying) {
            e->resting = true;
            g_cond_broadcast(&e->rest);
            g_cond_wait(&e->wake, &e->lock);
        }
        e->resting = false;
        take_incoming(e);
        const bool stopping = e->stopping;
        g_mutex_unlock(&e->lock);
        end_cancelled(e, stopping);
        if (e->dead) /* who submitted while it failed */
            fail_known(e);
        if (e->known->len || e->n_flying)
            one_step(e);
        else if (stopping)
            return NULL;
    }
}

/* ---- what front ends call ---------------------------------------------------------------- */

static uint64_t submit(MiEngine *self, const MiRequest *r, GError **error)
{
    Engine  *e = engine(self);
    uint64_t id;

    g_mutex_lock(&e->lock);
    id = ++e->last_id;
    if (e->dead)
        g_set_error(error, MI_ERROR, MI_ERROR_DEVICE, "the device failed before: %s", e->dead);
    const bool dead = e->dead != NULL;
    g_mutex_unlock(&e->lock);
    if (dead)
        return 0;
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
    out->waiting += (int32_t)e->incoming->len;
    g_mutex_unlock(&e->lock);
}

static const char *model(MiEngine *self, int32_t *max_len)
{
    if (max_len)
        *max_len = engine(self)->a->longest;
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

static void identity(MiEngine *self, char **model, char **sampling)
{
    *model = mi_identity_model(engine(self)->a);
    *sampling = mi_identity_sampling(engine(self)->a);
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
    .identity = identity,
};

/* ---- start and stop ------------------------------------------------------------------------ */

static void phase(Engine *e, const char *what)
{
    const int64_t now = g_get_monotonic_time();
    const MiPhase p = { what, now - e->mark };

    g_array_append_val(e->phases, p);
    e->mark = now;
}

/* A model whose files have no tokenizer still takes ids and gives ids. */
static bool read_text(Engine *e, GError **error)
{
    g_autoptr(GError) why = NULL;

    if (mi_text_open(e->a->registry, e->a->config, &e->a->source, &e->a->text, &why))
        return mi_chat_template(e->a->settings.model.chat_template, &e->a->text.data, &e->template, &e->template_error, error);
    if (!g_error_matches(why, MI_ERROR, MI_ERROR_NOT_FOUND)) {
        g_propagate_error(error, g_steal_pointer(&why));
        return false;
    }
    e->template_error = g_strdup(why->message);
    return true;
}

/* While weights load, the tokenizer's tables are read. */
typedef struct {
    Engine  *e;
    GThread *thread;
    GError  *error;
    int64_t  us;
} Reading;

static gpointer read_meanwhile(gpointer data)
{
    Reading      *r = data;
    const int64_t from = g_get_monotonic_time();

    (void)read_text(r->e, &r->error);
    r->us = g_get_monotonic_time() - from;
    return NULL;
}

static bool end_reading(Reading *r, GError **error)
{
    const MiPhase p = { "tokenizer and template, meanwhile", (g_thread_join(r->thread), r->us) };

    g_array_append_val(r->e->phases, p);
    if (r->error)
        g_propagate_error(error, g_steal_pointer(&r->error));
    return *error == NULL;
}

static bool start_scheduler(Engine *e, GError **error)
{
    MiAssembly        *a = e->a;
    const MiScheduler *s = a->scheduler->vtable;

    e->limits = (MiLimits){ .max_seqs = a->max_seqs, .max_tokens = a->max_tokens, .prefill_step = a->prefill_step,
                            .cache = a->cache->vtable, .kv = mi_runner_cache(e->runner), .ctx = &a->ctx.pub,
                            .clock = g_get_monotonic_time };
    e->stats.kv_room = e->room = e->limits.cache->room(e->limits.kv);
    a->longest = (int32_t)MIN(a->max_len, e->room);
    return (e->scheduler = s->create(&e->limits, a->scheduler_options, error)) != NULL;
}

static bool load(Engine *e, MiLoadProgress *progress, void *user, GError **error)
{
    MiAssembly *a = e->a;
    bool        ok;

    if (!mi_assembly_fits(a, error) || !mi_context_load_begin(&a->ctx, error))
        return false;
    ok = mi_weights_load(a->weights, &a->ctx.pub, progress, user, error);
    phase(e, "weights");
    ok = ok && (e->runner = mi_runner_new(a, error)) && start_scheduler(e, error);
    phase(e, "memory");
    ok = mi_context_load_end(&a->ctx, ok ? error : NULL) && ok;
    if (!a->ctx.pub.backend->unified)
        phase(e, "weights arrive");
    if (ok && mi_runner_rehearse(e->runner))
        phase(e, "steps recorded");
    return ok;
}

MiEngine *mi_engine_start(MiAssembly *a, MiLoadProgress *progress, void *user, GError **error)
{
    Engine           *e = g_new0(Engine, 1);
    g_autoptr(GError) why = NULL;

    e->pub.api = &api;
    e->a = a;
    g_mutex_init(&e->lock);
    g_cond_init(&e->wake);
    g_cond_init(&e->rest);
    e->incoming = g_ptr_array_new();
    e->cancelled = g_array_new(FALSE, FALSE, sizeof(uint64_t));
    e->known = g_ptr_array_new();
    e->phases = g_array_new(FALSE, FALSE, sizeof(MiPhase));
    e->name = g_path_get_basename(a->settings.model.path);
    e->mark = g_get_monotonic_time();

    Reading           reading = { .e = e };
    g_autoptr(GError) no_load = NULL;
    bool              ok = (reading.thread = g_thread_try_new("tokenizer", read_meanwhile, &reading, &why)) != NULL;
    if (ok) {
        ok = load(e, progress, user, &no_load);
        if (end_reading(&reading, &why) && !ok)
            why = g_steal_pointer(&no_load);
    }
    if (ok && !why && (e->thread = g_thread_try_new("engine", loop, e, &why)))
        return &e->pub;
    g_propagate_error(error, g_steal_pointer(&why));
    mi_engine_stop(&e->pub);
    return NULL;
}

void mi_engine_stop(MiEngine *self)
{
    Engine     *e = engine(self);
    MiAssembly *a = e->a;

    g_mutex_lock(&e->lock);
    e->stopping = true;
    g_cond_signal(&e->wake);
    g_mutex_unlock(&e->lock);
    if (e->thread)
        g_thread_join(e->thread);
    if (e->scheduler && MI_HAS((const MiScheduler *)a->scheduler->vtable, destroy))
        ((const MiScheduler *)a->scheduler->vtable)->destroy(e->scheduler);
    mi_runner_free(e->runner);
    mi_template_free(e->template);
    g_ptr_array_unref(e->incoming);
    g_array_unref(e->cancelled);
    g_ptr_array_unref(e->known);
    g_array_unref(e->phases);
    g_free(e->dead);
    g_free(e->template_error);
    g_free(e->name);
    g_mutex_clear(&e->lock);
    g_cond_clear(&e->wake);
    g_cond_clear(&e->rest);
    g_free(e);
}

const MiPhase *mi_engine_phases(const MiEngine *self, int *n)
{
    const Engine *e = (const Engine *)(const void *)self;
    *n = (int)e->phases->len;
    return (const MiPhase *)(void *)e->phases->data;
}

void mi_engine_pace(MiEngine *self, uint64_t since, bool decode, int n_seqs, MiPace *out)
{
    Engine *e = engine(self);

    g_mutex_lock(&e->lock);
    mi_pace_sum(&e->pace, since, decode, n_seqs, out);
    g_mutex_unlock(&e->lock);
}

void mi_engine_watch(MiEngine *self, const MiWatch *watch)
{
    Engine *e = engine(self);

    g_mutex_lock(&e->lock);
    while (!e->resting) /* who was told that all is done may be faster than its last step */
        g_cond_wait(&e->rest, &e->lock);
    mi_runner_watch(e->runner, watch);
    g_mutex_unlock(&e->lock);
}

size_t mi_engine_allocated(const MiEngine *self) { return ((const Engine *)(const void *)self)->a->ctx.allocated; }
