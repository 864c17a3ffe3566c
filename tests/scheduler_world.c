#include "scheduler_world.h"
#include "options.h"

int64_t world_now;

static int64_t now(void) { return world_now; }
static WorldSeq *of(const MiSequence *s) { return s->owner; }
static int pages(const World *w, int n_tokens) { return (n_tokens + w->spec.page - 1) / w->spec.page; }

/* ---- the cache ------------------------------------------------------------------ */

static bool reserve(void *self, const MiSequence *s, int n_tokens)
{
    World    *w = self;
    WorldSeq *q = of(s);
    const int more = pages(w, n_tokens) - q->held;

    assert_int_equal(q->outside, 0);
    if (more > w->spec.n_pages - w->used)
        return false;
    if (more > 0) {
        q->held += more;
        w->used += more;
    }
    return true;
}

static void release(void *self, const MiSequence *s)
{
    World    *w = self;
    WorldSeq *q = of(s);

    w->used -= q->held;
    w->outside -= q->outside;
    q->held = q->outside = q->kv = 0;
}

static int match(void *self, const MiSequence *s)
{
    World    *w = self;
    WorldSeq *q = of(s);

    w->n_matches++;
    if (w->spec.matches_all) {
        q->kv = s->n_tokens - 1; /* the rest is the scheduler's to leave out */
        return reserve(w, s, s->n_tokens) ? s->n_tokens : 0;
    }
    if (s->id % 2 == 0 || s->n_tokens <= w->spec.page || !reserve(w, s, w->spec.page))
        return 0;
    return q->kv = w->spec.page;
}

static int64_t room(void *self)
{
    const World *w = self;
    return (int64_t)(w->spec.n_pages - w->used) * w->spec.page;
}

static bool swap_out(void *self, MiContext *ctx, const MiSequence *s)
{
    World    *w = self;
    WorldSeq *q = of(s);
    int       n_out = 0;

    (void)ctx;
    assert_int_equal(q->outside, 0);
    assert_int_equal(s->n_cached, q->kv);
    if (q->held > w->spec.swap_pages - w->outside)
        return false;
    for (guint i = 0; i < w->known->len; i++)
        n_out += ((const WorldSeq *)w->known->pdata[i])->outside > 0;
    assert_true(n_out < w->limits.max_seqs);
    w->outside += q->outside = q->held;
    w->used -= q->held;
    q->held = 0;
    w->n_swapped++;
    return true;
}

static bool swap_in(void *self, MiContext *ctx, const MiSequence *s)
{
    World    *w = self;
    WorldSeq *q = of(s);

    (void)ctx;
    assert_int_equal(q->held, 0);
    if (q->outside > w->spec.n_pages - w->used)
        return false;
    w->used += q->held = q->outside;
    w->outside -= q->outside;
    q->outside = 0;
    return true;
}

/* ---- a world -------------------------------------------------------------------- */

World *world_new(MiRegistry *r, const WorldSpec *spec)
{
    g_autoptr(GError) error = NULL;
    const MiFeature  *f = mi_registry_find(r, MI_KIND_SCHEDULER, spec->policy, "*", &error);
    World            *w = g_new0(World, 1);

    if (!f)
        fail_msg("%s", error->message);
    w->spec = *spec;
    w->spec.page = spec->page ? spec->page : 16;
    w->vt = f->vtable;
    w->options = g_malloc0(mi_options_size(f->options));
    if (!mi_options_defaults(f->options, w->options, &error))
        fail_msg("%s", error->message);
    for (const char *const *o = spec->options; o && *o; o += 2)
        if (!mi_options_set(f->options, w->options, o[0], o[1], &error))
            fail_msg("%s", error->message);
    w->cache = (MiCache){ .struct_size = sizeof w->cache, .single = spec->single, .recomputes = spec->recomputes,
                          .reserve = reserve, .release = release, .room = room,
                          .match = spec->matches || spec->matches_all ? match : NULL,
                          .swap_out = spec->swap_pages ? swap_out : NULL, .swap_in = spec->swap_pages ? swap_in : NULL };
    w->limits = (MiLimits){ .max_seqs = spec->max_seqs, .max_tokens = spec->max_tokens,
                            .prefill_step = spec->prefill_step, .cache = &w->cache, .kv = w, .clock = now };
    w->all = g_ptr_array_new_with_free_func(g_free);
    w->known = g_ptr_array_new();
    w->order = g_array_new(FALSE, FALSE, sizeof(int));
    w->step.seqs = w->seqs = g_new(MiSequence *, spec->max_seqs);
    w->step.count = w->count = g_new(int32_t, spec->max_seqs);
    if (!(w->self = w->vt->create(&w->limits, w->options, &error)))
        fail_msg("%s", error->message);
    return w;
}

void world_free(World *w)
{
    assert_int_equal(w->known->len, 0);
    assert_int_equal(w->used, 0);
    assert_int_equal(w->outside, 0);
    assert_int_equal(w->vt->waiting(w->self), 0);
    w->vt->destroy(w->self);
    g_ptr_array_unref(w->all);
    g_ptr_array_unref(w->known);
    g_array_unref(w->order);
    g_free(w->seqs);
    g_free(w->count);
    g_free(w->options);
    g_free(w);
}

WorldSeq *world_add(World *w, const char *client, int priority, int n_prompt, int n_answer)
{
    WorldSeq *q = g_new0(WorldSeq, 1);

    q->s = (MiSequence){ .id = w->all->len, .slot = -1, .n_prompt = n_prompt, .n_tokens = n_prompt, .client = client,
                         .max_tokens = w->spec.max_answer ? w->spec.max_answer : n_answer, .priority = priority, .arrived = world_now, .owner = q };
    q->total = n_prompt + n_answer;
    q->surprise = w->spec.max_answer > n_answer;
    q->started = -1;
    g_ptr_array_add(w->all, q);
    g_ptr_array_add(w->known, q);
    w->vt->add(w->self, &q->s);
    return q;
}

static void leave(World *w, WorldSeq *q)
{
    w->vt->remove(w->self, &q->s);
    assert_int_equal(q->s.slot, -1);
    assert_null(q->s.place);
    assert_int_equal(q->held + q->outside, 0);
    w->vt->remove(w->self, &q->s); /* unknown by now */
    q->gone = true;
    g_ptr_array_remove(w->known, q);
}

void world_cancel(World *w, WorldSeq *q)
{
    if (!q->gone)
        leave(w, q);
}

bool world_runs(const World *w, const WorldSeq *q) { return world_rows(w, q) > 0; }

int world_rows(const World *w, const WorldSeq *q)
{
    for (int i = 0; i < w->step.shape.n_seqs; i++)
        if (w->seqs[i] == &q->s)
            return w->count[i];
    return 0;
}

/* ---- what must hold of a step -------------------------------------------------------- */

static void check_shape(const World *w)
{
    const MiShape *shape = &w->step.shape;
    int            rows = 0, out = 0, kv = 0, prompt = 0;
    bool           decode = true, slot[WORLD_SLOTS] = { false };

    assert_in_range(shape->n_seqs, 1, w->spec.single ? 1 : w->limits.max_seqs);
    for (int i = 0; i < shape->n_seqs; i++) {
        const WorldSeq *q = of(w->seqs[i]);
        assert_in_range(q->s.slot, 0, w->limits.max_seqs - 1);
        assert_false(slot[q->s.slot]);
        slot[q->s.slot] = true;
        assert_in_range(w->count[i], 1, q->s.n_tokens - q->s.n_cached);
        rows += w->count[i];
        prompt += q->s.n_tokens - q->s.n_cached > 1 || q->started < 0 ? w->count[i] : 0;
        out += q->s.n_cached + w->count[i] == q->s.n_tokens;
        kv = MAX(kv, q->s.n_cached + w->count[i]);
        decode = decode && w->count[i] == 1;
        assert_true(q->held * w->spec.page >= q->s.n_cached + w->count[i]);
        if (w->spec.recomputes)
            assert_int_equal(w->count[i], q->s.n_tokens);
    }
    assert_int_equal(shape->n_tokens, rows);
    assert_int_equal(shape->n_out, out);
    assert_int_equal(shape->max_kv, kv);
    assert_int_equal(shape->decode, decode);
    assert_true(rows <= w->limits.max_tokens);
    assert_true(w->spec.recomputes || prompt <= w->limits.prefill_step);
    assert_true(w->used <= w->spec.n_pages);
}

/* Nothing that could run stands still: every answer goes on, prompts take what they may, and a slot stays free
 * only while not everybody who waits would fit.  Not with a budget of time. */
static void check_conserves(const World *w, bool lost)
{
    int  prompt = 0, wanted = 0, running = 0, longest = 0;
    const int left = w->limits.max_tokens - w->step.shape.n_tokens;

    for (guint i = 0; i < w->known->len; i++) {
        const WorldSeq *q = w->known->pdata[i];
        const int       want = q->s.n_tokens - q->s.n_cached, rows = world_rows(w, q);
        if (q->s.slot < 0) {
            longest = MAX(longest, q->s.n_tokens);
            continue;
        }
        running++;
        if (want == 1 && q->prompt_done && q->placed && !w->spec.recomputes)
            assert_int_equal(rows, 1);
        else
            wanted += want - rows, prompt += rows;
    }
    if (w->spec.recomputes)
        return;
    if (wanted)
        assert_true(left == 0 || prompt >= w->limits.prefill_step);
    if (!lost && longest && left && prompt < w->limits.prefill_step && running < (w->spec.single ? 1 : w->limits.max_seqs))
        assert_true(longest > (w->spec.n_pages - w->used) * w->spec.page);
}

/* n_cached is always what was computed and kept: no token is lost or comes twice. */
static void check_kept(const World *w)
{
    for (guint i = 0; i < w->known->len; i++) {
        const WorldSeq *q = w->known->pdata[i];
        assert_int_equal(q->s.n_cached, q->kv);
        if (q->s.slot < 0)
            assert_int_equal(q->held, 0);
        else
            assert_int_equal(q->outside, 0);
    }
}

static bool has_budget(const World *w)
{
    for (const char *const *o = w->spec.options; o && *o; o += 2)
        if (g_str_has_prefix(*o, "prefill_"))
            return true;
    return false;
}

/* Those whose end was known after the step before. */
static void end_late(World *w)
{
    for (guint i = w->known->len; i-- > 0;) {
        WorldSeq *q = w->known->pdata[i];
        if (q->ending) {
            q->s.ended = true;
            leave(w, q);
        }
    }
}

bool world_next(World *w)
{
    bool lost = false, more, able = false, ending = false;

    for (guint i = 0; i < w->known->len; i++)
        ((WorldSeq *)w->known->pdata[i])->placed = ((const WorldSeq *)w->known->pdata[i])->s.slot >= 0;
    w->step.shape = (MiShape){ 0 };
    more = w->vt->next(w->self, &w->step);
    for (guint i = 0; i < w->known->len; i++) {
        const WorldSeq *q = w->known->pdata[i];
        w->n_preempted += q->placed && q->s.slot < 0;
        lost = lost || (q->placed && q->s.slot < 0);
        able = able || q->s.n_tokens > q->s.n_cached;
        ending = ending || q->ending;
    }
    check_kept(w);
    for (guint i = 0; lost && i < w->known->len; i++) { /* the token of who lost a place may be on its way to it */
        const WorldSeq *q = w->known->pdata[i];
        assert_true(q->placed || q->s.slot < 0);
    }
    assert_int_equal(more, w->step.shape.n_seqs > 0);
    if (more) {
        check_shape(w);
        if (!has_budget(w))
            check_conserves(w, lost);
    } else {
        assert_true(!able || ending); /* nothing to do, not a deadlock */
    }
    end_late(w);
    return more;
}

static int64_t takes(const World *w)
{
    const MiShape *s = &w->step.shape;

    if (w->spec.takes)
        return (int64_t)w->spec.takes(w);
    return 1000 + 20 * s->n_seqs + 10 * s->n_tokens;
}

/* The engine's part: rows are computed, tokens drawn, finished texts leave. */
void world_run(World *w)
{
    const int64_t us = takes(w);

    world_now += us;
    w->n_steps++;
    for (int i = 0; i < w->step.shape.n_seqs; i++) {
        WorldSeq *q = of(w->seqs[i]);
        if (q->gone)
            continue; /* its row is dropped */
        if (q->started < 0) {
            const int id = (int)q->s.id;
            g_array_append_val(w->order, id);
            q->started = w->n_steps;
        }
        q->rows += w->count[i];
        const int end = q->s.n_cached + w->count[i];
        if (!w->spec.recomputes)
            q->s.n_cached = q->kv = end;
        if (end < q->s.n_tokens)
            continue;
        q->prompt_done = true;
        q->first_us = q->first_us ? q->first_us : world_now;
        q->done_us = world_now;
        q->drawn++;
        assert_int_equal(q->drawn, q->s.n_tokens + 1 - q->s.n_prompt);
        if (q->s.n_tokens + 1 < q->total || q->surprise) {
            q->s.n_tokens++;
            q->ending = q->ending || q->s.n_tokens >= q->total;
        } else {
            q->ending = true; /* its last: no step takes it up */
        }
    }
    if (MI_HAS(w->vt, took))
        w->vt->took(w->self, &w->step, us);
    if (!w->spec.late)
        end_late(w);
}

void world_finish(World *w)
{
    for (int64_t limit = w->n_steps + 1000000; w->known->len;) {
        assert_true(w->n_steps < limit);
        if (world_next(w))
            world_run(w);
    }
}
