/* Random schedules: arrivals, cancels, worlds of every kind.  MI_SCHEDULES says how many; the world checks each step. */
#include "scheduler_world.h"

#include <stdlib.h>

static const char *const policies[] = { POLICIES };

static const char *pick(GRand *rand, const char *const *of, int n) { return of[g_rand_int_range(rand, 0, n)]; }

/* Options that any policy has or this one does, at random. */
static void random_options(GRand *rand, const char *policy, bool swaps, const char *out[11])
{
    static const char *const budgets[] = { "0", "1", "1.3", "2", "50" };
    int n = 0;

    if (swaps)
        out[n++] = "preempt", out[n++] = "swap";
    if (g_rand_boolean(rand))
        out[n++] = g_rand_boolean(rand) ? "prefill_ms" : "prefill_stretch", out[n++] = pick(rand, budgets, 5);
    if (strcmp(policy, "priority") == 0 && g_rand_boolean(rand))
        out[n++] = "displace", out[n++] = "true";
    if (strcmp(policy, "mlfq") == 0)
        out[n++] = "quantum", out[n++] = pick(rand, (const char *const[]){ "1", "5", "20" }, 3), out[n++] = "keep",
        out[n++] = pick(rand, (const char *const[]){ "0", "0.2", "1" }, 3), out[n++] = "boost_ms",
        out[n++] = pick(rand, (const char *const[]){ "0", "3", "50" }, 3);
    out[n] = NULL;
}

/* Everybody who was not cancelled has its whole answer in the end, every token once, and nothing is left. */
static void schedule(MiRegistry *r, GRand *rand, int *n_preempted, int *n_swapped)
{
    static const char *const clients[] = { "", "ann", "bob" };
    const char *options[11];
    const int   longest = 24, page = g_rand_int_range(rand, 1, 7), n = g_rand_int_range(rand, 1, 14);
    WorldSpec   spec = { .policy = pick(rand, policies, G_N_ELEMENTS(policies)), .page = page,
                         .max_seqs = g_rand_int_range(rand, 1, 6), .options = options,
                         .late = g_rand_boolean(rand), .matches = g_rand_boolean(rand),
                         .recomputes = g_rand_int_range(rand, 0, 10) == 0, .single = g_rand_int_range(rand, 0, 10) == 0,
                         .max_answer = g_rand_boolean(rand) ? longest : 0 };

    spec.n_pages = (longest + 1 + page) / page * g_rand_int_range(rand, 1, 4); /* one more: an end that shows late */
    spec.swap_pages = g_rand_boolean(rand) ? g_rand_int_range(rand, 1, spec.n_pages) : 0;
    spec.max_tokens = spec.recomputes ? g_rand_int_range(rand, longest + 1, 60) : g_rand_int_range(rand, spec.max_seqs, 20);
    spec.prefill_step = g_rand_int_range(rand, 1, spec.max_tokens + 1);
    random_options(rand, spec.policy, spec.swap_pages > 0, options);
    World *w = world_new(r, &spec);
    for (int steps = 0; (int)w->all->len < n || w->known->len; steps++) {
        assert_true(steps < 10000);
        while ((int)w->all->len < n && g_rand_int_range(rand, 0, 3)) {
            const int prompt = g_rand_int_range(rand, 1, longest);
            world_add(w, pick(rand, clients, 3), g_rand_int_range(rand, -2, 3), prompt,
                      g_rand_int_range(rand, 1, longest + 1 - prompt));
        }
        if (w->known->len && g_rand_int_range(rand, 0, 8) == 0)
            world_cancel(w, w->known->pdata[g_rand_int_range(rand, 0, (gint32)w->known->len)]);
        if (!world_next(w))
            continue;
        if (w->known->len && g_rand_int_range(rand, 0, 12) == 0) /* while its rows are under way */
            world_cancel(w, w->known->pdata[g_rand_int_range(rand, 0, (gint32)w->known->len)]);
        world_run(w);
    }
    for (guint i = 0; i < w->all->len; i++) {
        const WorldSeq *q = w->all->pdata[i];
        assert_true(!q->s.ended || q->drawn == q->total - q->s.n_prompt);
    }
    *n_preempted += w->n_preempted;
    *n_swapped += w->n_swapped;
    world_free(w);
}

static void random_schedules(void **state)
{
    const char *wanted = g_getenv("MI_SCHEDULES");
    const int   n = wanted ? atoi(wanted) : 20000;
    MiRegistry *r = load(NULL);
    GRand      *rand = g_rand_new_with_seed(20);
    int         preempted = 0, swapped = 0;

    (void)state;
    for (int i = 0; i < n; i++)
        schedule(r, rand, &preempted, &swapped);
    print_message("%d schedules, %d places lost, %d of them swapped out\n", n, preempted, swapped);
    assert_true(preempted > n / 4);
    assert_true(swapped > n / 16);
    g_rand_free(rand);
    mi_registry_free(r);
}

TEST_MAIN(cmocka_unit_test(random_schedules));
