/* scheduler:fcfs against a cache that counts pages, on random loads. */
#include "common.h"

#include <miniinfer/scheduler.h>

enum { MAX_SEQS = 6, N_SEQS = 60 };

/* A paged cache's bookkeeping: whole pages, `n_pages` of them. */
typedef struct {
    int  page, n_pages, used;
    int  held[N_SEQS + 1]; /* pages by sequence id */
    int  matches;          /* calls of match() */
    bool matches_all;      /* answers with all tokens there are */
} Pages;

static bool reserve(void *self, const MiSequence *s, int n_tokens)
{
    Pages    *p = self;
    const int want = (n_tokens + p->page - 1) / p->page, more = want - p->held[s->id];

    if (more > p->n_pages - p->used)
        return false;
    if (more > 0) {
        p->held[s->id] += more;
        p->used += more;
    }
    return true;
}

static void release(void *self, const MiSequence *s)
{
    Pages *p = self;
    p->used -= p->held[s->id];
    p->held[s->id] = 0;
}

/* Every second sequence finds its first page's tokens there. */
static int match(void *self, const MiSequence *s)
{
    Pages *p = self;

    p->matches++;
    if (p->matches_all)
        return s->n_tokens;
    return s->id % 2 && s->n_tokens > p->page && reserve(p, s, p->page) ? p->page : 0;
}

static MiCache cache = { .struct_size = sizeof cache, .reserve = reserve, .release = release, .match = match };

typedef struct {
    const MiScheduler *vt;
    void              *self;
    MiLimits           limits;
    Pages              pages;
    MiSequence         all[N_SEQS];
    int                total[N_SEQS];    /* tokens it ends at */
    int                n_added, n_done, n_preempted, order[N_SEQS], n_started;
    bool               started[N_SEQS];
    MiSequence        *seqs[MAX_SEQS];
    int32_t            count[MAX_SEQS];
    MiStep             step;
} World;

static void world_new(World *w, MiRegistry *r, MiLimits limits, Pages pages)
{
    g_autoptr(GError) error = NULL;
    const MiFeature  *f = mi_registry_find(r, MI_KIND_SCHEDULER, "fcfs", "cpu", &error);

    if (!f)
        fail_msg("%s", error->message);
    memset(w, 0, sizeof *w);
    w->vt = f->vtable;
    w->pages = pages;
    w->limits = limits;
    w->limits.cache = &cache;
    w->limits.kv = &w->pages;
    w->step.seqs = w->seqs;
    w->step.count = w->count;
    if (!(w->self = w->vt->create(&w->limits, NULL, &error)))
        fail_msg("%s", error->message);
}

static MiSequence *add(World *w, int n_prompt, int n_more)
{
    const int   i = w->n_added++;
    MiSequence *s = &w->all[i];

    *s = (MiSequence){ .id = (uint64_t)i, .slot = -1, .n_prompt = n_prompt, .n_tokens = n_prompt };
    w->total[i] = n_prompt + n_more;
    w->vt->add(w->self, s);
    return s;
}

static bool runs(const World *w, const MiSequence *s)
{
    for (int i = 0; i < w->step.shape.n_seqs; i++)
        if (w->seqs[i] == s)
            return true;
    return false;
}

/* What must hold of a step that next() gave. */
static void check(World *w)
{
    const MiShape *shape = &w->step.shape;
    int            rows = 0, out = 0, kv = 0, prompt = 0;
    bool           decode = true, slot[MAX_SEQS] = { false };

    assert_in_range(shape->n_seqs, 1, w->limits.max_seqs);
    for (int i = 0; i < shape->n_seqs; i++) {
        const MiSequence *s = w->seqs[i];
        assert_in_range(s->slot, 0, w->limits.max_seqs - 1);
        assert_false(slot[s->slot]);
        slot[s->slot] = true;
        assert_in_range(w->count[i], 1, s->n_tokens - s->n_cached);
        rows += w->count[i];
        prompt += s->n_tokens - s->n_cached > 1 || !w->started[s->id] ? w->count[i] : 0;
        out += s->n_cached + w->count[i] == s->n_tokens;
        kv = MAX(kv, s->n_cached + w->count[i]);
        decode = decode && w->count[i] == 1;
        assert_true(w->pages.held[s->id] * w->pages.page >= s->n_cached + w->count[i]);
        if (cache.recomputes)
            assert_int_equal(w->count[i], s->n_tokens);
    }
    assert_int_equal(shape->n_tokens, rows);
    assert_int_equal(shape->n_out, out);
    assert_int_equal(shape->max_kv, kv);
    assert_int_equal(shape->decode, decode);
    assert_true(rows <= w->limits.max_tokens);
    assert_true(cache.recomputes || prompt <= w->limits.prefill_step);
    assert_true(w->pages.used <= w->pages.n_pages);
}

/* The engine's part: rows are computed, finished texts leave. */
static void run_step(World *w)
{
    for (int i = 0; i < w->step.shape.n_seqs; i++) {
        MiSequence *s = w->seqs[i];
        const int   id = (int)s->id;

        if (!w->started[id]) {
            w->started[id] = true;
            w->order[w->n_started++] = id;
        }
        if (!cache.recomputes)
            s->n_cached += w->count[i];
        if ((cache.recomputes ? w->count[i] : s->n_cached) < s->n_tokens)
            continue;
        if (++s->n_tokens > w->total[id]) {
            w->vt->remove(w->self, s);
            assert_int_equal(s->slot, -1);
            s->n_tokens = -1;
            w->n_done++;
        }
    }
}

/* n_cached moves only by what a step computed, by a match at admission, or back to 0. */
static bool next(World *w)
{
    int  cached[N_SEQS], slot[N_SEQS];
    bool more;

    for (int i = 0; i < w->n_added; i++)
        cached[i] = w->all[i].n_cached, slot[i] = w->all[i].slot;
    more = w->vt->next(w->self, &w->step);
    for (int i = 0; i < w->n_added; i++) {
        MiSequence *s = &w->all[i];
        if (s->n_tokens < 0)
            continue;
        if (slot[i] >= 0 && s->slot >= 0)
            assert_int_equal(s->n_cached, cached[i]);
        if (slot[i] >= 0 && s->slot < 0) {
            assert_int_equal(s->n_cached, 0);
            assert_int_equal(w->pages.held[i], 0);
            w->n_preempted++;
            for (int k = 0; k < w->n_added; k++) /* nobody younger kept its place */
                assert_false(k > i && w->all[k].n_tokens >= 0 && w->all[k].slot >= 0);
        }
        if (s->slot < 0)
            assert_int_equal(w->pages.held[i], 0);
    }
    return more;
}

/* Random prompts arrive in a random order of time; all finish, in budget, first come first. */
static void load_finishes(MiRegistry *r, uint64_t seed, bool scarce)
{
    World    w;
    GRand   *rand = g_rand_new_with_seed((guint32)seed);
    const int page = g_rand_int_range(rand, 1, 9);
    const int longest = 60, pages = (longest + page - 1) / page * (scarce ? 1 : MAX_SEQS);
    const int max_tokens = cache.recomputes ? g_rand_int_range(rand, longest, 100)
                                            : g_rand_int_range(rand, MAX_SEQS, 40);
    int       steps = 0;

    world_new(&w, r, (MiLimits){ .max_seqs = g_rand_int_range(rand, 1, MAX_SEQS + 1), .max_tokens = max_tokens,
                                 .prefill_step = g_rand_int_range(rand, 1, max_tokens + 1) },
              (Pages){ .page = page, .n_pages = pages });
    while (w.n_done < N_SEQS && steps++ < 100000) {
        while (w.n_added < N_SEQS && g_rand_int_range(rand, 0, 3) == 0) {
            const int prompt = g_rand_int_range(rand, 1, longest - 1);
            add(&w, prompt, g_rand_int_range(rand, 1, longest - prompt + 1));
        }
        if (next(&w)) {
            check(&w);
            run_step(&w);
        } else {
            assert_int_equal(w.n_done, w.n_added); /* nothing to do, not a deadlock */
        }
    }
    assert_int_equal(w.n_done, N_SEQS);
    assert_int_equal(w.pages.used, 0);
    assert_int_equal(w.vt->waiting(w.self), 0);
    for (int i = 0; i < N_SEQS; i++)
        assert_int_equal(w.order[i], i);
    if (scarce && !cache.single && w.limits.max_seqs > 3)
        assert_true(w.n_preempted > 0);
    w.vt->destroy(w.self);
    g_rand_free(rand);
}

static void random_loads_finish(void **state)
{
    (void)state;
    MiRegistry *r = load(NULL);
    for (uint64_t seed = 1; seed <= 150; seed++)
        load_finishes(r, seed, seed % 2);
    mi_registry_free(r);
}

static void whole_sequences_where_nothing_is_kept(void **state)
{
    (void)state;
    MiRegistry *r = load(NULL);
    cache.recomputes = true;
    for (uint64_t seed = 1; seed <= 50; seed++)
        load_finishes(r, seed, false);
    cache.recomputes = false;
    mi_registry_free(r);
}

static void one_at_a_time_where_the_cache_holds_one(void **state)
{
    (void)state;
    MiRegistry *r = load(NULL);
    World       w;

    cache.single = true;
    for (uint64_t seed = 1; seed <= 20; seed++)
        load_finishes(r, seed, true);
    world_new(&w, r, (MiLimits){ .max_seqs = 4, .max_tokens = 64, .prefill_step = 64 },
              (Pages){ .page = 4, .n_pages = 100 });
    add(&w, 3, 1), add(&w, 3, 1);
    assert_true(next(&w));
    assert_int_equal(w.step.shape.n_seqs, 1);
    w.vt->destroy(w.self);
    cache.single = false;
    mi_registry_free(r);
}

/* Decodes come first; what is left of the step goes to the prompt, in chunks. */
static void prompts_take_what_decodes_leave(void **state)
{
    (void)state;
    MiRegistry *r = load(NULL);
    World       w;

    world_new(&w, r, (MiLimits){ .max_seqs = 4, .max_tokens = 10, .prefill_step = 8 },
              (Pages){ .page = 4, .n_pages = 100 });
    MiSequence *a = add(&w, 2, 50), *b = add(&w, 2, 50), *c = add(&w, 20, 5);
    static const int want[] = { 4, 8, 8 }; /* of c: 8 - 4 for the prompts a and b, then all of prefill_step */
    for (int i = 0; i < 3; i++) {
        assert_true(next(&w));
        check(&w);
        assert_ptr_equal(w.seqs[0], a);
        assert_ptr_equal(w.seqs[1], b);
        assert_ptr_equal(w.seqs[2], c);
        assert_int_equal(w.count[2], want[i]);
        run_step(&w);
    }
    assert_int_equal(c->n_tokens, 21);
    assert_true(next(&w));
    assert_int_equal(w.step.shape.n_tokens, 3);
    assert_true(w.step.shape.decode);
    w.vt->destroy(w.self);
    mi_registry_free(r);
}

/* A full hit leaves one row to compute; a sequence that wants all rows takes no hit. */
static void matches_leave_a_row(void **state)
{
    (void)state;
    MiRegistry *r = load(NULL);
    World       w;

    world_new(&w, r, (MiLimits){ .max_seqs = 4, .max_tokens = 64, .prefill_step = 64 },
              (Pages){ .page = 4, .n_pages = 100, .matches_all = true });
    MiSequence *a = add(&w, 9, 5), *b = add(&w, 9, 5);
    b->fresh = true;
    assert_true(next(&w));
    assert_int_equal(w.pages.matches, 1);
    assert_int_equal(a->n_cached, 8);
    assert_int_equal(b->n_cached, 0);
    assert_int_equal(w.count[0], 1);
    assert_int_equal(w.count[1], 9);
    assert_int_equal(w.step.shape.n_out, 2);
    w.vt->destroy(w.self);
    mi_registry_free(r);
}

/* What can never fit waits without blocking the rest once the engine has ended it. */
static void too_long_is_nothing_to_do(void **state)
{
    (void)state;
    MiRegistry *r = load(NULL);
    World       w;

    world_new(&w, r, (MiLimits){ .max_seqs = 2, .max_tokens = 64, .prefill_step = 64 },
              (Pages){ .page = 4, .n_pages = 3 });
    MiSequence *a = add(&w, 13, 1), *b = add(&w, 5, 1), *stranger = &w.all[N_SEQS - 1];
    assert_false(next(&w));
    assert_int_equal(w.vt->waiting(w.self), 2);
    w.vt->remove(w.self, stranger);
    w.vt->remove(w.self, a);
    assert_int_equal(w.vt->waiting(w.self), 1);
    assert_true(next(&w));
    assert_true(runs(&w, b));
    w.vt->remove(w.self, b);
    w.vt->remove(w.self, b);
    assert_false(next(&w));
    assert_int_equal(w.pages.used, 0);
    w.vt->destroy(w.self);
    mi_registry_free(r);
}

TEST_MAIN(cmocka_unit_test(random_loads_finish), cmocka_unit_test(whole_sequences_where_nothing_is_kept),
          cmocka_unit_test(one_at_a_time_where_the_cache_holds_one), cmocka_unit_test(prompts_take_what_decodes_leave),
          cmocka_unit_test(matches_leave_a_row), cmocka_unit_test(too_long_is_nothing_to_do));
