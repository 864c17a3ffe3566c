/* runner.c - see runner.h.  Nothing is allocated in a step once its shape has run before. */
#include "arena.h"
#include "graph.h"
#include "runner_parts.h"
#include "shift.h"

#include <math.h>
#include <string.h>

static MiRequested *requested(const MiSequence *s) { return s->owner; }
static bool         unified(const MiRunner *r) { return r->a->ctx.pub.backend->unified; }
static int32_t     *writable(const int32_t *p) { return (int32_t *)(uintptr_t)p; }
static const MiCache *cache_of(const MiRunner *r) { return r->a->cache->vtable; }

/* ---- what goes in ------------------------------------------------------------------ */

static int longer_first(const void *a, const void *b, void *unused)
{
    const MiSequence *const *x = a, *const *y = b;
    (void)unused;
    return (*y)->n_cached - (*x)->n_cached;
}

/* A step that only decodes has the longest sequence first: attention hands its blocks out in this order, and would wait for a
 * long one that begins last.  Stable, so that one step's order is the next one's. */
static void put_longest_first(MiStep *step)
{
    const int n = step->shape.n_seqs;
    bool      sorted = true;

    for (int i = 0; i < n; i++) {
        if (step->count[i] != 1)
            return;
        sorted = sorted && (i == 0 || step->seqs[i - 1]->n_cached >= step->seqs[i]->n_cached);
    }
    if (!sorted)
        g_qsort_with_data(step->seqs, n, sizeof *step->seqs, longer_first, NULL);
}

/* A sequence that wants every row of its prompt takes no more of them than outputs are left,
 * with one output kept for each of the others.  Where all is recomputed it takes all rows, and
 * fill_batch() asks for the outputs of some. */
static void limit_scored(const MiRunner *r, MiStep *step)
{
    int left = r->a->max_out - step->shape.n_seqs;

    for (int i = 0; i < step->shape.n_seqs && !cache_of(r)->recomputes; i++) {
        if (!requested(step->seqs[i])->prompt_logprobs)
            continue;
        step->count[i] = MIN(step->count[i], 1 + left);
        left -= step->count[i] - 1;
    }
}

static void add_output(MiRunner *r, MiFlight *f, int row, int seq, int32_t target)
{
    const int i = r->host.shape.n_out++;

    f->out_seq[i] = seq;
    f->out_slot[i] = target < 0 ? f->step.seqs[seq]->slot : -1;
    f->out_position[i] = r->host.positions[row];
    writable(r->host.out_rows)[i] = row;
    writable(r->host.out_slot)[i] = f->out_slot[i];
    writable(r->host.targets)[i] = target;
}

/* The outputs of a sequence whose first row is `row`: those of its prompt that are not scored
 * yet, and the one that is drawn from once all are.  left: of the outputs that any may take. */
static void add_outputs(MiRunner *r, MiFlight *f, int i, int row, int *left)
{
    const MiSequence *s = f->step.seqs[i];
    MiRequested      *q = requested(s);
    const int         end = s->n_cached + f->step.count[i], before = r->host.shape.n_out;
    int               own = 1 + *left, at = MAX(s->n_cached, q->n_asked);

    for (; q->prompt_logprobs && at < MIN(end, s->n_prompt - 1) && own > 0; at++, own--)
        add_output(r, f, row + at - s->n_cached, i, s->tokens[at + 1]);
    q->n_asked = MAX(q->n_asked, at);
    if (end == s->n_tokens && s->max_tokens > 0 && own > 0 && (!q->prompt_logprobs || at >= s->n_prompt - 1))
        add_output(r, f, row + end - 1 - s->n_cached, i, -1);
    *left -= MAX(r->host.shape.n_out - before - 1, 0);
}

/* What a slot's history does not have yet, and what stood there for a token that is known by now. */
static void tell_history(MiBatch *b, const MiSequence *s, int end)
{
    MiRequested *q = requested(s);

    if (s->n_cached < q->n_told) /* begun again, perhaps in another slot */
        q->n_told = 0;
    memcpy(writable(b->history) + (size_t)s->slot * (size_t)b->max_history + q->n_told, s->tokens + q->n_told,
           (size_t)(end - q->n_told) * sizeof *s->tokens);
    q->n_told = MIN(end, q->n_known);
}

static void fill_batch(MiRunner *r, MiFlight *f)
{
    MiBatch *b = &r->host;
    int      row = 0, left = r->a->max_out - f->step.shape.n_seqs;

    b->shape = (MiShape){ .n_seqs = f->step.shape.n_seqs, .decode = true };
    for (int i = 0; i < b->shape.n_seqs; i++) {
        const MiSequence *s = f->step.seqs[i];
        const int         n = f->step.count[i], first = row;

        writable(b->seq_start)[i] = row;
        writable(b->n_prompt)[s->slot] = s->n_prompt;
        tell_history(b, s, s->n_cached + n);
        for (int k = 0; k < n; k++, row++) {
            writable(b->tokens)[row] = s->tokens[s->n_cached + k];
            writable(b->positions)[row] = s->n_cached + k;
        }
        add_outputs(r, f, i, first, &left);
        f->seen[i] = s->n_cached + n;
        b->shape.max_kv = MAX(b->shape.max_kv, s->n_cached + n);
        b->shape.decode = b->shape.decode && n == 1;
    }
    writable(b->seq_start)[b->shape.n_seqs] = row;
    b->shape.n_tokens = row;
    f->step.shape = f->shape = b->shape;
}

/* Until an answer has min_tokens, a bias makes its ends impossible. */
static bool forbids_stops(const MiRequested *q) { return q->pub.n_tokens - q->pub.n_prompt < q->min_tokens; }

static void forbid_stops(const MiRequested *q, const MiLink *l, char *row)
{
    for (const MiOption *o = l->sampler->params; o && o->key; o++) {
        MiBiases *b = (MiBiases *)(void *)(row + o->offset);
        for (int i = 0; o->type == MI_BIASES && i < q->n_stop_ids && b->n < MI_MAX_BIASES; i++) {
            b->at[b->n].id = q->stop_ids[i];
            b->at[b->n++].bias = -INFINITY;
        }
    }
}

/* The parameters of every output row; which of them are not those of the step before.  Most rows are the
 * same request's as then. */
static void fill_link(MiRunner *r, const MiFlight *f, int link)
{
    const MiLink *l = &r->a->links[link];
    const size_t  size = l->row_size;
    char         *rows = r->host_rows + mi_rows_offset(r->a, link), *row = l->scratch;
    MiChanged    *c = &r->changed[link];
    uint64_t     *row_of = r->row_of[link];

    for (int i = 0; i < f->shape.n_out; i++) {
        const MiRequested *q = requested(f->step.seqs[f->out_seq[i]]);
        const bool         forbids = f->out_slot[i] >= 0 && forbids_stops(q);
        if (i < r->sent[link] && row_of[i] == q->pub.id && !forbids)
            continue;
        memcpy(row, q->rows[link], size);
        if (forbids)
            forbid_stops(q, l, row);
        row_of[i] = forbids ? 0 : q->pub.id;
        if (i < r->sent[link] && memcmp(rows + (size_t)i * size, row, size) == 0)
            continue;
        memcpy(rows + (size_t)i * size, row, size);
        c->first = c->n ? c->first : i;
        c->n = i + 1 - c->first;
    }
    r->sent[link] = MAX(r->sent[link], f->shape.n_out);
}

/* The links that take part, with their rows. */
static uint32_t fill_rows(MiRunner *r, const MiFlight *f)
{
    const MiAssembly *a = r->a;
    uint32_t          links = 1u << (a->n_links - 1);

    for (int i = 0; i < f->shape.n_out; i++)
        if (f->out_slot[i] >= 0)
            links |= requested(f->step.seqs[f->out_seq[i]])->links;
    for (int l = 0; l < a->n_links; l++) {
        r->changed[l].n = 0;
        if (a->links[l].row_size && (links >> l & 1))
            fill_link(r, f, l);
    }
    return links;
}

/* They seldom change: they go ahead of what every step sends. */
static bool send_rows(MiRunner *r, GError **error)
{
    MiContext *ctx = &r->a->ctx.pub;

    for (int l = 0; l < r->a->n_links && !unified(r); l++) {
        const size_t size = r->a->links[l].row_size, at = mi_rows_offset(r->a, l) + (size_t)r->changed[l].first * size;
        if (r->changed[l].n &&
            !ctx->send(ctx, (char *)r->rows + at, r->host_rows + at, (size_t)r->changed[l].n * size, error))
            return false;
    }
    return mi_context_flush(&r->a->ctx, error);
}

static bool wants_logprobs(const MiFlight *f)
{
    for (int i = 0; i < f->shape.n_out; i++) {
        const MiRequested *q = requested(f->step.seqs[f->out_seq[i]]);
        if (q->logprobs || q->prompt_logprobs)
            return true;
    }
    return false;
}

/* ---- buckets and graphs ---------------------------------------------------------------- */

static const void *rows_of(void *user, const char *sampler)
{
    const MiRunner *r = user;
    for (int i = 0; i < r->a->n_links; i++)
        if (strcmp(r->a->links[i].feature->name, sampler) == 0)
            return (char *)r->rows + mi_rows_offset(r->a, i);
    return NULL;
}

void mi_runner_bind(MiRunner *r, MiSchedule *s, void *arena)
{
    const MiBinding where = { .arena = arena, .batch = &r->batch, .kv = r->views, .attention = r->a->attention_self,
                              .cache = r->cache, .rows = rows_of, .user = r };
    mi_schedule_bind(s, &where);
}

bool mi_runner_place(MiRunner *r, MiBucket *b, GError **error)
{
    const MiVariant *v = r->a->variants->pdata[b->variant];

    if (b->bound)
        return true;
    if (!unified(r) && !mi_constants_place(r->constants, &r->a->ctx.pub, v->program, error))
        return false;
    mi_runner_bind(r, b->schedule, r->arena);
    return b->bound = true;
}

/* The bucket of this step.  One whose values happen not to fit the arena gives way to the full
 * chain's, whose links that nobody asks for change nothing, and that to the largest. */
static MiBucket *bucket(MiRunner *r, uint32_t links, bool logprobs, GError **error)
{
    const uint32_t all = (1u << r->a->n_links) - 1;
    MiBucket      *b = mi_assembly_bucket(r->a, links, logprobs, r->host.shape, error);

    if (b && b->schedule->bytes > r->a->arena_bytes)
        b = mi_assembly_bucket(r->a, all, logprobs, r->host.shape, error);
    if (b && b->schedule->bytes > r->a->arena_bytes)
        b = mi_assembly_bucket(r->a, all, logprobs, r->a->sizes[r->a->n_sizes - 1], error);
    return b && mi_runner_place(r, b, error) ? b : NULL;
}

bool mi_runner_records(const MiRunner *r)
{
    return r->a->settings.engine.graphs && MI_HAS(r->a->ctx.pub.backend, capture_begin);
}

int32_t mi_runner_kv(const MiRunner *r, int32_t n)
{
    int32_t kv = 256;

    while (kv < n)
        kv *= 2;
    return kv + kv / 4 > r->a->max_len ? r->a->max_len : kv; /* the last step is no small one */
}

/* A step that only decodes is padded to its bucket, so that few shapes are recorded. */
static bool pad(MiRunner *r, const MiBucket *b)
{
    MiShape  *s = &r->host.shape;
    const int n = r->a->sizes[b->size].n_tokens, from = s->n_tokens;

    if (!mi_runner_records(r) || b->size == r->a->n_sizes - 1 || !s->decode || s->n_out != s->n_tokens || s->n_seqs != s->n_tokens)
        return false;
    for (int i = from; i < n; i++) {
        writable(r->host.tokens)[i] = writable(r->host.positions)[i] = 0;
        writable(r->host.seq_start)[i + 1] = i + 1;
        writable(r->host.out_rows)[i] = i;
        writable(r->host.out_slot)[i] = writable(r->host.targets)[i] = -1;
    }
    *s = (MiShape){ n, n, n, mi_runner_kv(r, s->max_kv), true };
    return true;
}

/* ---- what comes out ----------------------------------------------------------------------- */

static MiTensor output(const MiRunner *r, const MiBucket *b, const char *name)
{
    return mi_schedule_tensor(b->schedule, r->arena, mi_recording_output(b->schedule->program, name));
}

static void fetch_one(const MiRunner *r, const MiBucket *b, const char *name, MiMail *mail, char **at, size_t bytes,
                      const void *out)
{
    void *data = output(r, b, name).data;

    *(void **)(uintptr_t)out = unified(r) ? data : *at;
    if (unified(r))
        return;
    mail->out[mail->n_out++] = (MiCopy){ *at, data, bytes };
    *at += mi_align(bytes);
}

/* Padded rows, too, so that it is the same for all steps of a shape. */
static void fetch(const MiRunner *r, const MiBucket *b, MiFlight *f)
{
    const size_t n = (size_t)r->host.shape.n_out * 4, tops = n * (1 + MI_MAX_TOPS);
    char        *at = f->results;

    f->mail.n_out = 0;
    if (!n)
        return;
    fetch_one(r, b, "tokens", &f->mail, &at, n, &f->tokens);
    if (!f->logprobs)
        return;
    fetch_one(r, b, "logprobs", &f->mail, &at, tops, &f->values);
    fetch_one(r, b, "logprob_ids", &f->mail, &at, tops, &f->ids);
}

static bool run(MiRunner *r, MiBucket *b, MiFlight *f, bool recordable, GError **error)
{
    const MiMail         *m = &f->mail;
    const MiOwnedContext *ctx = &r->a->ctx;

    fetch(r, b, f);
    if (!f->watched)
        return mi_graph_run(r->a, b, r->host.shape, (int)(f - r->flights), m, recordable, &f->first, error);
    mi_schedule_shape(b->schedule, r->host.shape);
    return mi_context_copy_all(ctx, m->in, m->n_in, error) && r->watch->nodes(r->watch->user, b->schedule, error) &&
           mi_context_copy_all(ctx, m->out, m->n_out, error);
}

static bool run_between_marks(MiRunner *r, MiBucket *b, MiFlight *f, bool recordable, GError **error)
{
    const MiContext *ctx = &r->a->ctx.pub;
    const MiWatch   *w = r->watch;

    return (!w || !w->begin || w->begin(w->user, f, error)) && run(r, b, f, recordable, error) &&
           (!w || !w->end || w->end(w->user, f, error)) &&
           ctx->backend->event_record(ctx->device, f->event, ctx->stream, error);
}

/* The host goes on as if the step were done: what was drawn it will know later. */
static void advance(MiRunner *r, const MiFlight *f)
{
    for (int i = 0; i < f->shape.n_seqs; i++) {
        f->step.seqs[i]->n_cached += cache_of(r)->recomputes ? 0 : f->step.count[i];
        requested(f->step.seqs[i])->n_flights++;
    }
    for (int i = 0; i < f->shape.n_out; i++) {
        MiSequence *s = f->step.seqs[f->out_seq[i]];
        if (f->out_slot[i] >= 0 && s->n_tokens - s->n_prompt + 1 < s->max_tokens)
            s->tokens[s->n_tokens++] = -1 - s->slot; /* else it is the last, and no step takes it up */
    }
}

/* ---- a step ---------------------------------------------------------------------------------- */

static bool send_step(MiRunner *r, GError **error)
{
    MiContext   *ctx = &r->a->ctx.pub;
    const size_t used = (size_t)((const char *)r->host.positions - (const char *)r->host_step) +
                        (size_t)r->host.shape.n_tokens * sizeof(int32_t);

    r->batch.shape = r->host.shape;
    return unified(r) || ctx->send(ctx, r->step_memory, r->host_step, used, error);
}

static bool enqueue(MiRunner *r, MiFlight *f, GError **error)
{
    const MiAttention *attention = r->a->attention->vtable;
    MiContext         *ctx = &r->a->ctx.pub;
    const guint        made = r->a->buckets->len;
    uint32_t           links;
    MiBucket          *b;

    mi_context_stage_part(&r->a->ctx, (int)(f - r->flights));
    put_longest_first(&f->step);
    limit_scored(r, &f->step);
    fill_batch(r, f);
    f->logprobs = wants_logprobs(f);
    links = fill_rows(r, f);
    if (!(b = bucket(r, links, f->logprobs, error)))
        return false;
    f->first = r->a->buckets->len != made;
    f->watched = r->watch && r->watch->nodes && (!r->watch->wants || r->watch->wants(r->watch->user, f));
    const bool recordable = !f->watched && pad(r, b);
    if (!send_step(r, error) || !cache_of(r)->plan(r->cache, ctx, &f->step, &r->batch, error) ||
        (MI_HAS(attention, plan) && !attention->plan(r->a->attention_self, ctx, &f->step, &r->batch, error)))
        return false;
    f->mail.n_in = mi_context_take(&r->a->ctx, f->mail.in);
    mi_runner_expect(r, f, links);
    return send_rows(r, error) && run_between_marks(r, b, f, recordable, error);
}

/* Some of a step that failed may be under way, from memory that the next one writes: it is waited for.  What
 * was to be sent may never have been. */
static void give_up(MiRunner *r, const MiFlight *f, GError **error)
{
    MiContext *ctx = &r->a->ctx.pub;
    GError    *device = NULL;

    memset(r->sent, 0, sizeof r->sent);
    if (ctx->backend->event_record(ctx->device, f->event, ctx->stream, &device) &&
        ctx->backend->event_wait(ctx->device, f->event, &device))
        return;
    g_clear_error(error); /* a device that fails is the worse news */
    g_propagate_error(error, device);
}

MiFlight *mi_runner_flight(MiRunner *r) { return &r->flights[r->next]; }

bool mi_runner_launch(MiRunner *r, MiFlight *f, GError **error)
{
    f->launched_us = g_get_monotonic_time();
    if (!enqueue(r, f, error)) {
        give_up(r, f, error);
        return false;
    }
    advance(r, f);
    r->next = (r->next + 1) % MI_FLIGHTS;
    return true;
}

bool mi_runner_wait(MiRunner *r, MiFlight *f, GError **error)
{
    const MiWatch *w = r->watch;
    return r->a->ctx.pub.backend->event_wait(r->a->ctx.pub.device, f->event, error) &&
           (!w || !w->done || w->done(w->user, f, error));
}

/* ---- start and stop ---------------------------------------------------------------------------- */

static bool new_flight(MiRunner *r, MiFlight *f, GError **error)
{
    const MiAssembly *a = r->a;
    MiContext        *ctx = &r->a->ctx.pub;

    f->step.seqs = g_new0(MiSequence *, a->max_seqs);
    f->step.count = g_new0(int32_t, a->max_seqs);
    f->seen = g_new0(int32_t, a->max_seqs);
    f->out_seq = g_new0(int32_t, a->max_out);
    f->out_slot = g_new0(int32_t, a->max_out);
    f->out_position = g_new0(int32_t, a->max_out);
    return ctx->backend->event_new(ctx->device, &f->event, error) &&
           (unified(r) || (f->results = ctx->alloc(ctx, MI_MEM_PINNED, mi_results_bytes(a), error)));
}

static bool new_step_memory(MiRunner *r, GError **error)
{
    const MiAssembly *a = r->a;
    MiContext        *ctx = &r->a->ctx.pub;

    if (!(r->step_memory = ctx->alloc(ctx, MI_MEM_DEVICE, a->step_bytes, error)) ||
        !(r->drawn = ctx->alloc(ctx, MI_MEM_DEVICE, a->drawn_bytes, error)) ||
        !(r->history = ctx->alloc(ctx, MI_MEM_PINNED, a->history_bytes, error)) ||
        (a->rows_bytes && !(r->rows = ctx->alloc(ctx, MI_MEM_DEVICE, a->rows_bytes, error))))
        return false;
    r->host_step = unified(r) ? r->step_memory : g_malloc0(a->step_bytes);
    r->host_rows = unified(r) ? r->rows : g_malloc0(a->rows_bytes);
    mi_step_carve(a, &r->batch, r->step_memory);
    mi_step_carve(a, &r->host, r->host_step);
    r->batch.drawn = r->host.drawn = r->drawn;
    r->batch.history = r->host.history = r->history;
    memset(r->host_step, 0, a->step_bytes);
    memset(r->history, 0, a->history_bytes);
    if (r->host_rows)
        memset(r->host_rows, 0, a->rows_bytes);
    /* What is on the device is what the host thinks is there. */
    return unified(r) || !a->rows_bytes || ctx->upload(ctx, r->rows, r->host_rows, a->rows_bytes, error);
}

static bool new_memory(MiRunner *r, GError **error)
{
    MiAssembly    *a = r->a;
    MiContext     *ctx = &a->ctx.pub;
    const MiCache *cache = cache_of(r);

    if (!(r->cache = cache->create(ctx, &a->cache_spec, a->cache_options, error)) ||
        !(r->arena = ctx->alloc(ctx, MI_MEM_DEVICE, a->arena_bytes, error)) || !new_step_memory(r, error) ||
        !mi_context_stage(&a->ctx, a->staging_bytes, MI_FLIGHTS, error))
        return false;
    for (int i = 0; i < MI_FLIGHTS; i++)
        if (!new_flight(r, &r->flights[i], error))
            return false;
    r->views = g_new0(MiKvView, a->n_layers);
    for (int i = 0; i < a->n_layers; i++)
        cache->view(r->cache, i, &r->views[i]);
    if (!mi_shift_keys(a, r->views, error))
        return false;
    for (guint i = 0; i < a->buckets->len; i++)
        if (!mi_runner_place(r, a->buckets->pdata[i], error))
            return false;
    return true;
}

MiRunner *mi_runner_new(MiAssembly *a, GError **error)
{
    MiRunner *r = g_new0(MiRunner, 1);

    r->a = a;
    for (int i = 0; i < MI_MAX_LINKS; i++)
        r->sent[i] = a->max_out;
    for (int i = 0; i < a->n_links; i++)
        r->row_of[i] = g_new0(uint64_t, a->max_out);
    r->depth = unified(r) || cache_of(r)->recomputes ? 1 : MI_FLIGHTS; /* who recomputes must know all tokens */
    r->constants = mi_constants_new();
    if (new_memory(r, error))
        return r;
    mi_runner_free(r);
    return NULL;
}

static void free_flight(MiRunner *r, MiFlight *f)
{
    MiContext *ctx = &r->a->ctx.pub;

    if (f->event)
        ctx->backend->event_free(ctx->device, f->event);
    ctx->free(ctx, MI_MEM_PINNED, f->results);
    g_free(f->step.seqs);
    g_free(f->step.count);
    g_free(f->seen);
    g_free(f->out_seq);
    g_free(f->out_slot);
    g_free(f->out_position);
}

void mi_runner_free(MiRunner *r)
{
    if (!r)
        return;
    MiAssembly *a = r->a;
    MiContext  *ctx = &a->ctx.pub;

    for (int i = 0; i < MI_FLIGHTS; i++)
        free_flight(r, &r->flights[i]);
    mi_graph_clear(a);
    mi_buckets_forget(a);
    if (r->cache && MI_HAS(cache_of(r), destroy))
        cache_of(r)->destroy(r->cache);
    mi_constants_free(r->constants, ctx);
    ctx->free(ctx, MI_MEM_DEVICE, r->arena);
    ctx->free(ctx, MI_MEM_DEVICE, r->step_memory);
    ctx->free(ctx, MI_MEM_DEVICE, r->rows);
    ctx->free(ctx, MI_MEM_DEVICE, r->drawn);
    ctx->free(ctx, MI_MEM_PINNED, r->history);
    ctx->free(ctx, MI_MEM_PINNED, g_steal_pointer(&a->ctx.staging));
    if (!unified(r)) {
        g_free(r->host_step);
        g_free(r->host_rows);
    }
    g_free(r->views);
    for (int i = 0; i < MI_MAX_LINKS; i++)
        g_free(r->row_of[i]);
    g_free(r);
}

void *mi_runner_cache(const MiRunner *r) { return r->cache; }
void *mi_runner_arena(const MiRunner *r) { return r->arena; }
int   mi_runner_depth(const MiRunner *r) { return r->depth; }

void mi_runner_watch(MiRunner *r, const MiWatch *watch) { r->watch = watch; }
