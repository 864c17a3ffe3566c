/* fcfs.c - first come, first served, with continuous batching.
 *
 * A step holds one row of every sequence that decodes, then prompts in chunks,
 * oldest first, then newcomers while there is a slot and room.  A newcomer gets
 * room for all of its known tokens at once, so a prompt never stalls halfway.
 * When a running sequence finds no room the youngest gives up its own and goes
 * back to the front of the queue: the oldest always advances, nothing deadlocks.
 *
 * next() is false while sequences wait only if the first of them does not fit
 * into an empty cache, or, with a cache that recomputes, into one step: the
 * engine ends that one. */
#include <miniinfer/plugin.h>
#include <string.h>

typedef struct {
    const MiLimits *limits;
    int             max_running;
    MiSequence    **running; /* [max_running] in the order they were admitted */
    int             n_running;
    MiSequence    **queue; /* [size] a ring: who waits, first at `head` */
    size_t          size, head, n_waiting;
    bool           *taken; /* [max_running] slots in use */
} Fcfs;

/* ---- the queue ---- */

static MiSequence **queued(const Fcfs *f, size_t i) { return &f->queue[(f->head + i) % f->size]; }

/* The ring keeps a place for every sequence it knows, so that pushing one back never allocates. */
static void make_place(Fcfs *f)
{
    const size_t size = 2 * f->size;
    MiSequence **queue;

    if (f->n_waiting + (size_t)f->n_running < f->size)
        return;
    queue = g_new(MiSequence *, size);
    for (size_t i = 0; i < f->n_waiting; i++)
        queue[i] = *queued(f, i);
    g_free(f->queue);
    f->queue = queue;
    f->size = size;
    f->head = 0;
}

static void push_front(Fcfs *f, MiSequence *s)
{
    f->head = (f->head + f->size - 1) % f->size;
    f->n_waiting++;
    *queued(f, 0) = s;
}

/* ---- who runs ---- */

/* Takes the sequence at `i` out of those that run: its place in the cache and its slot are free. */
static MiSequence *stop(Fcfs *f, int i)
{
    MiSequence *s = f->running[i];

    f->limits->cache->release(f->limits->kv, s);
    f->taken[s->slot] = false;
    s->slot = -1;
    f->n_running--;
    memmove(&f->running[i], &f->running[i + 1], sizeof f->running[0] * (size_t)(f->n_running - i));
    return s;
}

static void preempt_youngest(Fcfs *f)
{
    MiSequence *s = stop(f, f->n_running - 1);
    s->n_cached = 0;
    push_front(f, s);
}

/* Room for what every running sequence knows, oldest first; true when somebody had to go. */
static bool make_room(Fcfs *f)
{
    const int n = f->n_running;

    for (int i = 0; i < f->n_running; i++)
        while (i < f->n_running && !f->limits->cache->reserve(f->limits->kv, f->running[i], f->running[i]->n_tokens))
            preempt_youngest(f);
    return f->n_running < n;
}

/* The first that waits gets a slot and room for all of its tokens; false: it does not fit yet. */
static bool admit(Fcfs *f)
{
    const MiCache *cache = f->limits->cache;
    MiSequence    *s = *queued(f, 0);
    int            slot = 0;

    s->n_cached = 0;
    if (MI_HAS(cache, match) && !cache->recomputes && !s->fresh) /* one row is left to compute: it gives the token */
        s->n_cached = CLAMP(cache->match(f->limits->kv, s), 0, s->n_tokens - 1);
    if (!cache->reserve(f->limits->kv, s, s->n_tokens)) {
        cache->release(f->limits->kv, s); /* what matched must not hold up those that run */
        s->n_cached = 0;
        return false;
    }
    while (f->taken[slot])
        slot++;
    f->taken[slot] = true;
    s->slot = slot;
    f->running[f->n_running++] = s;
    f->head = (f->head + 1) % f->size;
    f->n_waiting--;
    return true;
}

/* ---- the step ---- */

static void put(MiStep *out, MiSequence *s, int rows)
{
    MiShape *shape = &out->shape;

    out->seqs[shape->n_seqs] = s;
    out->count[shape->n_seqs] = rows;
    shape->n_seqs++;
    shape->n_tokens += rows;
    shape->n_out += s->n_cached + rows == s->n_tokens;
    shape->max_kv = MAX(shape->max_kv, s->n_cached + rows);
    shape->decode = shape->decode && rows == 1;
}

/* How many rows of a prompt fit; `prompt`: what prompts may still take of this step. */
static int chunk(const Fcfs *f, const MiStep *out, const MiSequence *s, int prompt)
{
    const int left = f->limits->max_tokens - out->shape.n_tokens, want = s->n_tokens - s->n_cached;

    if (f->limits->cache->recomputes)
        return want <= left ? want : 0; /* all or nothing: no row is kept for the next step */
    return MIN(want, MIN(left, prompt));
}

static bool decodes(const Fcfs *f, const MiSequence *s)
{
    return s->n_tokens - s->n_cached == 1 && !f->limits->cache->recomputes;
}

static void *create(const MiLimits *limits, const void *options, GError **error)
{
    Fcfs *f;

    (void)options;
    if (limits->max_seqs < 1 || limits->max_tokens < 1 || limits->prefill_step < 1) {
        g_set_error(error, MI_ERROR, MI_ERROR_CONFIG,
                    "scheduler 'fcfs' gets max_seqs %d, max_tokens %d, prefill_step %d; each must be at least 1",
                    limits->max_seqs, limits->max_tokens, limits->prefill_step);
        return NULL;
    }
    f = g_new0(Fcfs, 1);
    f->limits = limits;
    f->max_running = limits->cache->single ? 1 : limits->max_seqs;
    f->running = g_new(MiSequence *, f->max_running);
    f->taken = g_new0(bool, f->max_running);
    f->size = 2 * (size_t)f->max_running;
    f->queue = g_new(MiSequence *, f->size);
    return f;
}

static void destroy(void *self)
{
    Fcfs *f = self;

    if (!f)
        return;
    g_free(f->running);
    g_free(f->taken);
    g_free(f->queue);
    g_free(f);
}

static void add(void *self, MiSequence *s)
{
    Fcfs *f = self;

    make_place(f);
    f->n_waiting++;
    *queued(f, f->n_waiting - 1) = s;
}

static void remove_sequence(void *self, MiSequence *s)
{
    Fcfs  *f = self;
    size_t i = 0;

    for (int r = 0; r < f->n_running; r++)
        if (f->running[r] == s) {
            stop(f, r);
            return;
        }
    while (i < f->n_waiting && *queued(f, i) != s)
        i++;
    if (i == f->n_waiting)
        return;
    for (; i + 1 < f->n_waiting; i++)
        *queued(f, i) = *queued(f, i + 1);
    f->n_waiting--;
}

static bool next(void *self, MiStep *out)
{
    Fcfs      *f = self;
    int        prompt = f->limits->prefill_step, rows;
    const bool preempted = make_room(f);

    out->shape = (MiShape){ .decode = true };
    for (int i = 0; i < f->n_running; i++)
        if (decodes(f, f->running[i]) && out->shape.n_tokens < f->limits->max_tokens)
            put(out, f->running[i], 1);
    for (int i = 0; i < f->n_running; i++)
        if (!decodes(f, f->running[i]) && (rows = chunk(f, out, f->running[i], prompt)) > 0) {
            put(out, f->running[i], rows);
            prompt -= rows;
        }
    /* Who just lost its place would take it again at once: newcomers wait for a step without losses. */
    while (f->n_waiting && f->n_running < f->max_running && (!preempted || f->n_running == 0) &&
           chunk(f, out, *queued(f, 0), prompt) > 0 && admit(f)) {
        MiSequence *s = f->running[f->n_running - 1];
        rows = chunk(f, out, s, prompt);
        put(out, s, rows);
        prompt -= rows;
    }
    return out->shape.n_seqs > 0;
}

static int waiting(void *self) { return (int)((Fcfs *)self)->n_waiting; }

static const MiScheduler fcfs = {
    .struct_size = sizeof fcfs,
    .create = create,
    .destroy = destroy,
    .add = add,
    .remove = remove_sequence,
    .next = next,
    .waiting = waiting,
};

MI_PLUGIN("fcfs", "0.1", "First come, first served, with continuous batching",
          MI_FEATURE_SCHEDULER("fcfs", "*", &fcfs, NULL));
