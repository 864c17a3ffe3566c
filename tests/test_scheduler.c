/* What schedulers share, in a world with a cache that counts pages, on random loads. */
#include "scheduler_world.h"

static const char *const policies[] = { POLICIES };

/* Random prompts arrive in a random order of time; all are answered, whatever the policy and the place there is. */
static World *random_load(MiRegistry *r, WorldSpec spec, uint64_t seed)
{
    static const char *const clients[] = { "", "ann", "bob", "eve" };
    GRand    *rand = g_rand_new_with_seed((guint32)seed);
    const int n = 60;
    World    *w;

    spec.max_seqs = g_rand_int_range(rand, 1, 7);
    spec.page = g_rand_int_range(rand, 1, 9);
    spec.max_tokens = spec.recomputes ? g_rand_int_range(rand, 60, 100) : g_rand_int_range(rand, spec.max_seqs, 40);
    spec.prefill_step = g_rand_int_range(rand, 1, spec.max_tokens + 1);
    spec.n_pages = (60 + spec.page - 1) / spec.page * spec.n_pages; /* so many of the longest */
    spec.swap_pages *= spec.n_pages / 2;
    w = world_new(r, &spec);
    while ((int)w->all->len < n || w->known->len) {
        while ((int)w->all->len < n && g_rand_int_range(rand, 0, 3) == 0) {
            const int prompt = g_rand_int_range(rand, 1, 59);
            world_add(w, clients[g_rand_int_range(rand, 0, 4)], g_rand_int_range(rand, -2, 3), prompt,
                      g_rand_int_range(rand, 1, 61 - prompt));
        }
        if (world_next(w))
            world_run(w);
    }
    for (guint i = 0; i < w->all->len; i++) {
        const WorldSeq *q = w->all->pdata[i];
        assert_int_equal(q->drawn, q->total - q->s.n_prompt);
        if (strcmp(spec.policy, "fcfs") == 0)
            assert_int_equal(g_array_index(w->order, int, i), i);
        assert_true(w->n_preempted || q->rows == q->total - 1 || spec.recomputes || spec.matches);
    }
    g_rand_free(rand);
    return w;
}

static void every(const WorldSpec *spec, int n_seeds, int *n_preempted, int *n_swapped)
{
    MiRegistry *r = load(NULL);

    for (size_t p = 0; p < G_N_ELEMENTS(policies); p++)
        for (int seed = 1; seed <= n_seeds; seed++) {
            WorldSpec here = *spec;
            here.policy = policies[p];
            World *w = random_load(r, here, (uint64_t)seed);
            *n_preempted += w->n_preempted;
            *n_swapped += w->n_swapped;
            world_free(w);
        }
    mi_registry_free(r);
}

static void all_are_answered(void **state)
{
    int preempted = 0, swapped = 0;

    (void)state;
    every(&(WorldSpec){ .n_pages = 6 }, 60, &preempted, &swapped);
    every(&(WorldSpec){ .n_pages = 6, .late = true, .matches = true }, 60, &preempted, &swapped);
    assert_int_equal(swapped, 0);
}

static void all_are_answered_where_one_fits(void **state)
{
    int preempted = 0, swapped = 0;

    (void)state;
    every(&(WorldSpec){ .n_pages = 1 }, 60, &preempted, &swapped);
    every(&(WorldSpec){ .n_pages = 1, .late = true, .matches = true }, 60, &preempted, &swapped);
    assert_true(preempted > 100);
}

static void swapping_keeps_what_was_computed(void **state)
{
    static const char *const swap[] = { "preempt", "swap", NULL };
    int preempted = 0, swapped = 0;

    (void)state;
    every(&(WorldSpec){ .n_pages = 1, .swap_pages = 10, .options = swap }, 60, &preempted, &swapped);
    assert_true(swapped > 100);
    every(&(WorldSpec){ .n_pages = 1, .swap_pages = 1, .options = swap, .late = true }, 60, &preempted, &swapped);
    assert_true(preempted > swapped); /* some found no room there */
}

/* Where nothing is lost each position is computed once. */
static void what_was_swapped_is_not_computed_again(void **state)
{
    static const char *const swap[] = { "preempt", "swap", NULL };

    (void)state;
    MiRegistry *r = load(NULL);
    for (size_t p = 0; p < G_N_ELEMENTS(policies); p++) {
        World *w = world_new(r, &(WorldSpec){ .policy = policies[p], .max_seqs = 4, .max_tokens = 64, .prefill_step = 32,
                                              .n_pages = 4, .swap_pages = 100, .options = swap });
        for (int i = 0; i < 20; i++)
            world_add(w, "ann", 0, 10, 50);
        world_finish(w);
        assert_true(w->n_swapped > 10);
        for (guint i = 0; i < w->all->len; i++)
            assert_int_equal(((const WorldSeq *)w->all->pdata[i])->rows, 59);
        world_free(w);
    }
    mi_registry_free(r);
}

static void whole_sequences_where_nothing_is_kept(void **state)
{
    int preempted = 0, swapped = 0;

    (void)state;
    every(&(WorldSpec){ .n_pages = 6, .recomputes = true }, 30, &preempted, &swapped);
}

static void one_at_a_time_where_the_cache_holds_one(void **state)
{
    int preempted = 0, swapped = 0;

    (void)state;
    every(&(WorldSpec){ .n_pages = 1, .single = true }, 20, &preempted, &swapped);
    every(&(WorldSpec){ .n_pages = 1, .single = true, .late = true }, 20, &preempted, &swapped);
}

/* A world of fcfs for what one can say by hand. */
static World *small(MiRegistry *r, WorldSpec spec)
{
    spec.policy = "fcfs";
    spec.page = 4;
    spec.n_pages = spec.n_pages ? spec.n_pages : 100;
    return world_new(r, &spec);
}

/* Decodes come first; what is left of the step goes to the prompt, in chunks. */
static void prompts_take_what_decodes_leave(void **state)
{
    static const int want[] = { 4, 8, 8 }; /* of c: 8 - 4 for the prompts a and b, then all of prefill_step */

    (void)state;
    MiRegistry *r = load(NULL);
    World      *w = small(r, (WorldSpec){ .max_seqs = 4, .max_tokens = 10, .prefill_step = 8 });
    WorldSeq   *a = world_add(w, "", 0, 2, 50), *b = world_add(w, "", 0, 2, 50), *c = world_add(w, "", 0, 20, 5);

    for (int i = 0; i < 3; i++) {
        assert_true(world_next(w));
        assert_ptr_equal(w->seqs[0], &a->s);
        assert_ptr_equal(w->seqs[1], &b->s);
        assert_ptr_equal(w->seqs[2], &c->s);
        assert_int_equal(w->count[2], want[i]);
        world_run(w);
    }
    assert_int_equal(c->s.n_tokens, 21);
    assert_true(world_next(w));
    assert_int_equal(w->step.shape.n_tokens, 3);
    assert_true(w->step.shape.decode);
    world_run(w);
    world_finish(w);
    world_free(w);
    mi_registry_free(r);
}

/* A full hit leaves one row to compute; a sequence that wants all rows takes no hit. */
static void matches_leave_a_row(void **state)
{
    (void)state;
    MiRegistry *r = load(NULL);
    World      *w = small(r, (WorldSpec){ .max_seqs = 4, .max_tokens = 64, .prefill_step = 64, .matches_all = true });
    WorldSeq   *a = world_add(w, "", 0, 9, 5), *b = world_add(w, "", 0, 9, 5);

    b->s.fresh = true;
    assert_true(world_next(w));
    assert_int_equal(w->n_matches, 1);
    assert_int_equal(a->s.n_cached, 8);
    assert_int_equal(b->s.n_cached, 0);
    assert_int_equal(w->count[0], 1);
    assert_int_equal(w->count[1], 9);
    assert_int_equal(w->step.shape.n_out, 2);
    world_run(w);
    world_finish(w);
    world_free(w);
    mi_registry_free(r);
}

/* What can never fit waits without blocking the rest once the engine has ended it. */
static void too_long_is_nothing_to_do(void **state)
{
    (void)state;
    MiRegistry *r = load(NULL);
    World      *w = small(r, (WorldSpec){ .max_seqs = 2, .max_tokens = 64, .prefill_step = 64, .n_pages = 3 });
    WorldSeq   *a = world_add(w, "", 0, 13, 1), *b = world_add(w, "", 0, 5, 1);
    MiSequence  stranger = { .slot = -1 };

    assert_false(w->vt->next(w->self, &w->step));
    assert_int_equal(w->vt->waiting(w->self), 2);
    w->vt->remove(w->self, &stranger);
    world_cancel(w, a);
    assert_int_equal(w->vt->waiting(w->self), 1);
    assert_true(world_next(w));
    assert_true(world_runs(w, b));
    world_cancel(w, b);
    assert_false(world_next(w));
    world_free(w);
    mi_registry_free(r);
}

/* Who finds no room is not looked up in the cache again before there is more. */
static void a_match_is_asked_for_once(void **state)
{
    (void)state;
    MiRegistry *r = load(NULL);
    World      *w = small(r, (WorldSpec){ .max_seqs = 4, .max_tokens = 64, .prefill_step = 64, .n_pages = 10, .matches = true });

    world_add(w, "", 0, 30, 10);
    world_add(w, "", 0, 30, 10);
    for (int i = 0; i < 9; i++) {
        assert_true(world_next(w));
        world_run(w);
    }
    assert_int_equal(w->n_matches, 2);
    world_finish(w);
    assert_int_equal(w->n_matches, 3);
    world_free(w);
    mi_registry_free(r);
}

static void refuses_to_swap_without_swapping(void **state)
{
    (void)state;
    MiRegistry       *r = load(NULL);
    World            *w = small(r, (WorldSpec){ .max_seqs = 4, .max_tokens = 64, .prefill_step = 64 });
    g_autoptr(GError) error = NULL;

    *(const char **)w->options = "swap";
    assert_null(w->vt->create(&w->limits, w->options, &error));
    assert_non_null(strstr(error->message, "[scheduler.fcfs] preempt = swap"));
    g_clear_error(&error);
    *(const char **)w->options = "recompute";
    w->limits.prefill_step = 0;
    assert_null(w->vt->create(&w->limits, w->options, &error));
    assert_non_null(strstr(error->message, "prefill_step 0"));
    w->limits.prefill_step = 64;
    world_free(w);
    mi_registry_free(r);
}

TEST_MAIN(cmocka_unit_test(all_are_answered), cmocka_unit_test(all_are_answered_where_one_fits),
          cmocka_unit_test(swapping_keeps_what_was_computed), cmocka_unit_test(what_was_swapped_is_not_computed_again),
          cmocka_unit_test(whole_sequences_where_nothing_is_kept),
          cmocka_unit_test(one_at_a_time_where_the_cache_holds_one), cmocka_unit_test(prompts_take_what_decodes_leave),
          cmocka_unit_test(matches_leave_a_row), cmocka_unit_test(too_long_is_nothing_to_do),
          cmocka_unit_test(a_match_is_asked_for_once), cmocka_unit_test(refuses_to_swap_without_swapping));
