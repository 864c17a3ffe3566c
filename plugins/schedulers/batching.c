#include "batching.h"

#include <math.h>
#include <string.h>

enum { BLOCK = 64 /* entries that are made at once */ };
static const double AIM = 0.9; /* of a budget of time: steps vary */

/* ---- entries --------------------------------------------------------------------------- */

/* Allocates only where there are more sequences than there ever were. */
static Entry *take_entry(Batching *b)
{
    if (!b->n_spare) {
        char *block = g_malloc(BLOCK * b->policy->entry);
        g_ptr_array_add(b->blocks, block);
        b->n_entries += BLOCK;
        b->spare = g_renew(Entry *, b->spare, b->n_entries);
        heap_reserve(&b->queue, b->n_entries);
        for (int i = 0; i < BLOCK; i++)
            b->spare[b->n_spare++] = (Entry *)(void *)(block + (size_t)i * b->policy->entry);
    }
    Entry *e = b->spare[--b->n_spare];
    memset(e, 0, b->policy->entry);
    e->item.at = -1;
    e->running = -1;
    return e;
}

/* ---- who waits ---------------------------------------------------------------------------- */

static bool before(void *self, const HeapItem *x, const HeapItem *y)
{
    return ((Batching *)self)->policy->before(self, (const Entry *)(const void *)x, (const Entry *)(const void *)y);
}

static void queue(Batching *b, Entry *e)
{
    b->n_waiting++;
    if (b->policy->queue)
        b->policy->queue(b, e);
    else
        heap_push(&b->queue, &e->item);
}

static void unqueue(Batching *b, Entry *e)
{
    b->n_waiting--;
    if (b->policy->unqueue)
        b->policy->unqueue(b, e);
    else
        heap_remove(&b->queue, &e->item);
    b->refused = NULL;
}

static Entry *first(Batching *b)
{
    return b->policy->first ? b->policy->first(b) : (Entry *)(void *)heap_first(&b->queue);
}

void batching_reorder(Batching *b) { heap_rebuild(&b->queue); }

/* ---- who runs ------------------------------------------------------------------------------ */

/* The last in the policy's order. */
static Entry *last(Batching *b)
{
    Entry *e = b->running[0];

    for (int i = 1; i < b->n_running; i++)
        if (b->policy->before(b, e, b->running[i]))
            e = b->running[i];
    return e;
}

static void leave_slot(Batching *b, Entry *e)
{
    b->taken[e->s->slot] = false;
    e->s->slot = -1;
    b->n_running--;
    for (int i = e->running; i < b->n_running; i++) {
        b->running[i] = b->running[i + 1];
        b->running[i]->running = i;
    }
    e->running = -1;
}

static bool swap_out(Batching *b, Entry *e)
{
    e->swapped = b->swaps && e->s->n_cached > 0 && b->n_swapped < b->max_running &&
                 b->limits->cache->swap_out(b->limits->kv, b->limits->ctx, e->s);
    b->n_swapped += e->swapped;
    return e->swapped;
}

static void preempt(Batching *b, Entry *e)
{
    const MiCache *cache = b->limits->cache;

    if (!swap_out(b, e)) {
        cache->release(b->limits->kv, e->s);
        e->s->n_cached = 0;
    }
    leave_slot(b, e);
    queue(b, e);
}

/* Room for what every running sequence knows; true when somebody had to go. */
static bool make_room(Batching *b)
{
    const int n = b->n_running;

    for (int i = 0; i < b->n_running;)
        if (b->limits->cache->reserve(b->limits->kv, b->running[i]->s, b->running[i]->s->n_tokens))
            i++;
        else
            preempt(b, last(b)), i = 0; /* to reserve what one has costs nothing */
    return b->n_running < n;
}

/* Those that must let the first of the queue pass go, if that gets it in.  It is admitted in the next step: by then
 * the engine knows the tokens that they were drawing.  One always runs, so that there is that step. */
static bool displace(Batching *b)
{
    const MiCache *cache = b->limits->cache;
    const Entry   *w = b->policy->displaces ? first(b) : NULL;
    const int      n = b->n_running;
    Entry         *victim;

    if (!w || n < 2)
        return false;
    int64_t room = cache->room(b->limits->kv);
    if (n < b->max_running && room >= w->s->n_tokens)
        return false;
    for (int i = 0; i < n; i++)
        room += b->policy->displaces(b, w, b->running[i]) ? b->running[i]->s->n_tokens : 0;
    if (room < w->s->n_tokens)
        return false;
    while (b->n_running > 1 && (b->n_running == b->max_running || cache->room(b->limits->kv) < w->s->n_tokens) &&
           b->policy->displaces(b, w, victim = last(b)))
        preempt(b, victim);
    return b->n_running < n;
}

static bool swap_in(Batching *b, Entry *e)
{
    const MiCache *cache = b->limits->cache;

    if (cache->room(b->limits->kv) < e->s->n_tokens || !cache->swap_in(b->limits->kv, b->limits->ctx, e->s))
        return false;
    e->swapped = false;
    b->n_swapped--;
    if (cache->reserve(b->limits->kv, e->s, e->s->n_tokens))
        return true;
    if (!swap_out(b, e)) {
        cache->release(b->limits->kv, e->s);
        e->s->n_cached = 0;
    }
    return false;
}

static bool find_room(Batching *b, Entry *e)
{
    const MiCache *cache = b->limits->cache;
    MiSequence    *s = e->s;

    if (e->swapped)
        return swap_in(b, e);
    const int found = MI_HAS(cache, match) && !cache->recomputes && !s->fresh ? cache->match(b->limits->kv, s) : 0;
    s->n_cached = CLAMP(found, 0, s->n_tokens - 1); /* one row is left to compute: it gives the token */
    if (cache->reserve(b->limits->kv, s, s->n_tokens))
        return true;
    cache->release(b->limits->kv, s); /* what matched must not hold up those that run */
    s->n_cached = 0;
    return false;
}

/* The first that waits gets a slot and room for all of its tokens; false: it does not fit yet.  Who found no room
 * is not tried again, prompt and all, before there is more of it. */
static bool admit(Batching *b, Entry *e)
{
    const int64_t room = b->limits->cache->room(b->limits->kv);
    int           slot = 0;

    if (b->refused == e && b->n_running && room <= b->refused_room)
        return false;
    if (!find_room(b, e)) {
        b->refused = e;
        b->refused_room = room;
        return false;
    }
    unqueue(b, e);
    while (b->taken[slot])
        slot++;
    b->taken[slot] = true;
    e->s->slot = slot;
    e->running = b->n_running;
    b->running[b->n_running++] = e;
    if (!e->placed && b->policy->admits)
        b->policy->admits(b, e, e->s->n_tokens - e->s->n_cached);
    e->placed = e->s->n_tokens;
    return true;
}

/* ---- the step --------------------------------------------------------------------------------- */

/* What prompts may still take of a step. */
typedef struct {
    int    rows, least; /* least: however long they take */
    double us;
} Share;

static void put(Batching *b, MiStep *out, Entry *e, int rows)
{
    MiShape    *shape = &out->shape;
    MiSequence *s = e->s;
    const bool  draws = s->n_cached + rows == s->n_tokens;

    out->seqs[shape->n_seqs] = s;
    out->count[shape->n_seqs] = rows;
    shape->n_seqs++;
    shape->n_tokens += rows;
    shape->n_out += draws;
    shape->max_kv = MAX(shape->max_kv, s->n_cached + rows);
    shape->decode = shape->decode && rows == 1;
    if (draws && b->policy->draws)
        b->policy->draws(b, e);
}

static bool decodes(const Batching *b, const MiSequence *s)
{
    return s->n_tokens - s->n_cached == 1 && !b->limits->cache->recomputes;
}

/* Running answers keep their rhythm, if there are any and somebody wants that. */
static Share share(const Batching *b, int answers)
{
    const BatchingOptions *o = &b->options;
    const double           alone = pace_decode(&b->pace, answers);
    Share                  s = { b->limits->prefill_step, 0, INFINITY };

    if (!answers)
        return s;
    if (o->prefill_ms > 0)
        s.us = 1e3 * (double)o->prefill_ms;
    if (o->prefill_stretch > 0)
        s.us = MIN(s.us, (double)o->prefill_stretch * alone);
    s.us = AIM * s.us - alone;
    s.least = o->prefill_min;
    return s;
}

/* How many rows of a prompt fit. */
static int chunk(const Batching *b, const MiStep *out, const MiSequence *s, const Share *share)
{
    const int want = s->n_tokens - s->n_cached, left = b->limits->max_tokens - out->shape.n_tokens;

    if (b->limits->cache->recomputes)
        return want <= left ? want : 0; /* all or nothing: no row is kept for the next step */
    const int most = MIN(want, MIN(left, share->rows));
    return isinf(share->us) ? most : MIN(most, MAX(share->least, pace_rows(&b->pace, s->n_cached, share->us)));
}

static void give(Batching *b, MiStep *out, Entry *e, Share *share)
{
    const int rows = chunk(b, out, e->s, share);

    if (rows <= 0)
        return;
    share->us -= pace_of(&b->pace, e->s->n_cached, rows);
    share->rows -= rows;
    share->least = MAX(share->least - rows, 0);
    put(b, out, e, rows);
}

/* Prompts that run and, if there may be any, newcomers, in the policy's order. */
static void give_prompts(Batching *b, MiStep *out, bool newcomers)
{
    Share  left = share(b, out->shape.n_seqs);
    Entry *p, *w;

    heap_clear(&b->prompts);
    for (int i = 0; i < b->n_running; i++)
        if (!decodes(b, b->running[i]->s))
            heap_push(&b->prompts, &b->running[i]->item);
    for (;;) {
        p = (Entry *)(void *)heap_first(&b->prompts);
        w = newcomers && b->n_running < b->max_running ? first(b) : NULL;
        if (w && (!p || b->policy->before(b, w, p))) {
            newcomers = chunk(b, out, w->s, &left) > 0 && admit(b, w);
            if (newcomers)
                give(b, out, w, &left);
        } else if (p) {
            heap_remove(&b->prompts, &p->item);
            give(b, out, p, &left);
        } else {
            break;
        }
    }
}

bool batching_next(void *self, MiStep *out)
{
    Batching *b = self;

    if (b->policy->turns)
        b->policy->turns(b);
    /* Who just lost its place would take it again at once: newcomers wait for a step without losses. */
    const bool lost = make_room(b) || displace(b);
    out->shape = (MiShape){ .decode = true };
    for (int i = 0; i < b->n_running; i++)
        if (decodes(b, b->running[i]->s) && out->shape.n_tokens < b->limits->max_tokens)
            put(b, out, b->running[i], 1);
    give_prompts(b, out, !lost || b->n_running == 0);
    return out->shape.n_seqs > 0;
}

/* ---- what else the engine calls ------------------------------------------------------------------ */

void batching_add(void *self, MiSequence *s)
{
    Batching *b = self;
    Entry    *e = take_entry(b);

    e->s = s;
    e->order = b->n_arrived++;
    s->place = e;
    if (b->policy->arrives)
        b->policy->arrives(b, e);
    queue(b, e);
}

void batching_remove(void *self, MiSequence *s)
{
    Batching *b = self;
    Entry    *e = s->place;

    if (!e)
        return;
    if (e->running < 0)
        unqueue(b, e);
    if (e->running >= 0 || e->swapped)
        b->limits->cache->release(b->limits->kv, s);
    b->n_swapped -= e->swapped;
    if (e->running >= 0)
        leave_slot(b, e);
    if (b->policy->leaves)
        b->policy->leaves(b, e);
    b->spare[b->n_spare++] = e;
    s->place = NULL;
}

int batching_waiting(void *self) { return ((Batching *)self)->n_waiting; }

void batching_took(void *self, const MiStep *step, int64_t microseconds)
{
    Batching *b = self;

    if (!b->limits->cache->recomputes)
        pace_learn(&b->pace, step, microseconds);
}

static const BatchingOptions defaults = { .preempt = "recompute", .prefill_min = 16 };

bool batching_init(Batching *b, const char *name, const Policy *policy, const MiLimits *limits, const void *options,
                   GError **error)
{
    b->options = options ? *(const BatchingOptions *)options : defaults;
    b->swaps = strcmp(b->options.preempt, "swap") == 0;
    if (limits->max_seqs < 1 || limits->max_tokens < 1 || limits->prefill_step < 1) {
        g_set_error(error, MI_ERROR, MI_ERROR_CONFIG,
                    "scheduler '%s' gets max_seqs %d, max_tokens %d, prefill_step %d; each must be at least 1", name,
                    limits->max_seqs, limits->max_tokens, limits->prefill_step);
        return false;
    }
    if (b->swaps && !MI_HAS(limits->cache, swap_out)) {
        g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED,
                    "[scheduler.%s] preempt = swap: this cache swaps nothing; set preempt = recompute, or another "
                    "[engine] cache", name);
        return false;
    }
    b->policy = policy;
    b->limits = limits;
    b->max_running = limits->cache->single ? 1 : limits->max_seqs;
    b->running = g_new(Entry *, b->max_running);
    b->taken = g_new0(bool, b->max_running);
    b->blocks = g_ptr_array_new_with_free_func(g_free);
    heap_init(&b->queue, before, b);
    heap_init(&b->prompts, before, b);
    heap_reserve(&b->prompts, b->max_running);
    return true;
}

void batching_clear(Batching *b)
{
    g_free(b->running);
    g_free(b->taken);
    g_free(b->spare);
    heap_free(&b->queue);
    heap_free(&b->prompts);
    g_ptr_array_unref(b->blocks);
}
