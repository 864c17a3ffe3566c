/* The budget of time that prompts get beside running answers, on machines that the scheduler knows nothing of. */
#include "scheduler_world.h"

#include <math.h>

static double noise; /* relative */
static bool   hiccups; /* the first steps, and some later ones, take thirty times as long */
static GRand *luck;

static double lucky(const World *w, double us)
{
    const bool odd = hiccups && (w->n_steps < 10 || (w->n_steps >= 80 && w->n_steps < 85));
    return us * (odd ? 30 : 1) * (1 + noise * (2 * g_rand_double(luck) - 1));
}

/* Rows cost alike. */
static double flat(const World *w) { return lucky(w, 1000 + 20 * w->step.shape.n_seqs + 10 * w->step.shape.n_tokens); }

/* Attention counts: at 8,000 positions a row costs nine times as much as the first. */
static double steep(const World *w)
{
    double us = 2000;

    for (int i = 0; i < w->step.shape.n_seqs; i++)
        us += w->count[i] * (10 + (w->count[i] > 1 ? 0.01 * (w->seqs[i]->n_cached + w->count[i] / 2.0) : 0));
    return lucky(w, us);
}

/* A card: rows are nearly free up to a point, and a step with prompts costs something of its own. */
static double card(const World *w)
{
    const int n = w->step.shape.n_tokens;
    return lucky(w, (w->step.shape.decode ? 3000 : 3600) + 25.0 * MAX(n - 64, 0));
}

typedef struct {
    double alone, p99; /* microseconds: a step of answers alone, and one with prompts beside them */
    int    least, n, n_answered; /* rows of prompts in such a step; such steps; prompts that got their token */
} Rhythm;

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Eight answers, and prompts of 8,000 tokens beside them, one behind the other. */
static Rhythm rhythm(const char *policy, double (*takes)(const World *), const char *const *options)
{
    MiRegistry *r = load(NULL);
    World      *w = world_new(r, &(WorldSpec){ .policy = policy, .max_seqs = 16, .max_tokens = 512 + 15, .prefill_step = 512,
                                               .n_pages = 100000, .options = options, .takes = takes });
    Rhythm      out = { .least = INT32_MAX };
    double      x[4000];
    WorldSeq   *prompt = NULL;

    luck = g_rand_new_with_seed(9);
    for (int i = 0; i < 8; i++)
        world_add(w, "", 0, 16, 20000);
    for (int i = 0; i < 4000; i++) {
        if (i >= 100 && (!prompt || prompt->gone) && i % 50 == 0)
            prompt = world_add(w, "", 0, 8000, 2);
        assert_true(world_next(w));
        const int     rows = prompt && !prompt->prompt_done ? world_rows(w, prompt) : 0;
        const int64_t from = world_now;
        world_run(w);
        if (i >= 20 && i < 70)
            out.alone += (double)(world_now - from) / 50;
        if (!rows)
            continue;
        if (prompt->s.n_cached < 8000)
            out.least = MIN(out.least, rows);
        if (out.n_answered) /* the first is learned from */
            x[out.n++] = (double)(world_now - from);
        out.n_answered += prompt->prompt_done;
    }
    qsort(x, (size_t)out.n, sizeof *x, ascending);
    out.p99 = out.n ? x[(int)(0.99 * out.n)] : 0;
    while (w->known->len)
        world_cancel(w, w->known->pdata[0]);
    world_free(w);
    mi_registry_free(r);
    g_rand_free(luck);
    return out;
}

static double (*const machines[])(const World *) = { flat, steep, card };

static void without_a_budget_steps_are_long(void **state)
{
    (void)state;
    noise = 0;
    for (size_t m = 0; m < G_N_ELEMENTS(machines); m++) {
        const Rhythm r = rhythm("fcfs", machines[m], NULL);
        assert_int_equal(r.least, 512);
        assert_true(r.p99 > 4 * r.alone);
    }
}

/* Twice as long, and most of that is used: prompts go on as fast as they may. */
static void a_step_is_stretched_so_far(void **state)
{
    static const char *const options[] = { "prefill_stretch", "2", NULL };
    static const char *const policies[] = { POLICIES };

    (void)state;
    for (int noisy = 0; noisy < 3; noisy++)
        for (size_t m = 0; m < G_N_ELEMENTS(machines); m++) {
            noise = noisy == 1 ? 0.08 : 0;
            hiccups = noisy == 2;
            const Rhythm r = rhythm(policies[(m + 2 * (size_t)noisy) % G_N_ELEMENTS(policies)], machines[m], options);
            assert_true(r.p99 <= 2 * r.alone * (1 + noise));
            assert_true(r.p99 >= 1.6 * r.alone);
            assert_true(r.n_answered >= 5);
        }
    hiccups = false;
}

static void a_step_takes_so_many_milliseconds(void **state)
{
    static const char *const options[] = { "prefill_ms", "5", NULL };

    (void)state;
    noise = 0;
    for (size_t m = 0; m < G_N_ELEMENTS(machines); m++) {
        const Rhythm r = rhythm("fcfs", machines[m], options);
        assert_in_range((int)r.p99, 4000, 5000);
        assert_true(r.n_answered >= 3);
    }
}

/* What cannot be kept does not stop prompts. */
static void prompts_go_on_however_long_it_takes(void **state)
{
    static const char *const options[] = { "prefill_ms", "0.1", "prefill_min", "48", NULL };

    (void)state;
    noise = 0;
    const Rhythm r = rhythm("fcfs", flat, options);
    assert_int_equal(r.least, 48);
    assert_true(r.n_answered > 3);
}

/* Nobody waits for a rhythm where nobody decodes. */
static void prompts_alone_are_not_slowed_down(void **state)
{
    static const char *const options[] = { "prefill_ms", "1", NULL };

    (void)state;
    MiRegistry *r = load(NULL);
    World      *w = world_new(r, &(WorldSpec){ .policy = "fcfs", .max_seqs = 4, .max_tokens = 515, .prefill_step = 512,
                                               .n_pages = 10000, .options = options });
    world_add(w, "", 0, 5120, 1);
    for (int i = 0; i < 10; i++) {
        assert_true(world_next(w));
        assert_int_equal(w->step.shape.n_tokens, 512);
        world_run(w);
    }
    assert_int_equal(w->known->len, 0);
    world_free(w);
    mi_registry_free(r);
}

TEST_MAIN(cmocka_unit_test(without_a_budget_steps_are_long), cmocka_unit_test(a_step_is_stretched_so_far),
          cmocka_unit_test(a_step_takes_so_many_milliseconds), cmocka_unit_test(prompts_go_on_however_long_it_takes),
          cmocka_unit_test(prompts_alone_are_not_slowed_down));
