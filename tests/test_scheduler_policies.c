/* What each policy promises, compared with the slow and obvious way to say it. */
#include "scheduler_world.h"

static MiRegistry *registry;

static int group_load(void **state)
{
    (void)state;
    registry = load(NULL);
    return 0;
}

static int group_free(void **state)
{
    (void)state;
    mi_registry_free(registry);
    return 0;
}

static World *plenty(const char *policy, int max_seqs, const char *const *options)
{
    return world_new(registry, &(WorldSpec){ .policy = policy, .max_seqs = max_seqs, .max_tokens = 512,
                                             .prefill_step = 256, .n_pages = 100000, .options = options });
}

static bool waits(const WorldSeq *q) { return !q->gone && q->s.slot < 0; }

static bool step(World *w)
{
    if (!world_next(w))
        return false;
    world_run(w);
    return true;
}

/* Who got its first place in this step must not have gone before `better` of those that wait on. */
static void check_admitted(const World *w, bool (*better)(const World *, const WorldSeq *, const WorldSeq *))
{
    for (int i = 0; i < w->step.shape.n_seqs; i++) {
        const WorldSeq *q = w->seqs[i]->owner;
        for (guint k = 0; !q->placed && k < w->known->len; k++)
            if (waits(w->known->pdata[k]))
                assert_false(better(w, w->known->pdata[k], q));
    }
}

static void random_arrivals(World *w, GRand *rand, int n, bool (*better)(const World *, const WorldSeq *, const WorldSeq *))
{
    static const char *const clients[] = { "ann", "bob", "eve" };

    while ((int)w->all->len < n || w->known->len) {
        for (int i = g_rand_int_range(rand, 0, 3); i > 0 && (int)w->all->len < n; i--)
            world_add(w, clients[g_rand_int_range(rand, 0, 3)], g_rand_int_range(rand, 0, 4), g_rand_int_range(rand, 1, 50),
                      g_rand_int_range(rand, 1, 60));
        if (world_next(w)) {
            check_admitted(w, better);
            world_run(w);
        }
    }
}

/* ---- fcfs ------------------------------------------------------------------------ */

/* When somebody loses its place, nobody younger keeps one. */
static void fcfs_takes_from_the_youngest(void **state)
{
    (void)state;
    World *w = world_new(registry, &(WorldSpec){ .policy = "fcfs", .max_seqs = 8, .max_tokens = 64, .prefill_step = 32,
                                                 .n_pages = 10 });

    for (int i = 0; i < 40; i++)
        world_add(w, "", 0, 1 + i % 30, 60 - i);
    while (world_next(w)) {
        for (guint i = 0; i < w->all->len; i++)
            for (guint k = i + 1; k < w->all->len; k++) {
                const WorldSeq *q = w->all->pdata[i], *younger = w->all->pdata[k];
                assert_false(!q->gone && q->placed && q->s.slot < 0 && younger->s.slot >= 0);
            }
        world_run(w);
    }
    assert_true(w->n_preempted > 10);
    world_free(w);
}

/* ---- priority ---------------------------------------------------------------------- */

static double aging_us; /* 0: none */

static bool more_urgent(const World *w, const WorldSeq *a, const WorldSeq *b)
{
    (void)w;
    if (aging_us <= 0)
        return a->s.priority > b->s.priority || (a->s.priority == b->s.priority && a->s.id < b->s.id);
    const double x = a->s.priority + (double)(world_now - a->s.arrived) / aging_us,
                 y = b->s.priority + (double)(world_now - b->s.arrived) / aging_us;
    return x > y + 1e-6 || (x > y - 1e-6 && a->s.arrived == b->s.arrived && a->s.priority == b->s.priority && a->s.id < b->s.id);
}

static void priority_admits_the_most_urgent(void **state)
{
    static const char *const none[] = { "aging_ms", "0", NULL }, *const some[] = { "aging_ms", "50", NULL };

    (void)state;
    for (guint32 seed = 1; seed <= 10; seed++) {
        GRand *rand = g_rand_new_with_seed(seed);
        World *w = plenty("priority", 3, seed % 2 ? none : some);
        aging_us = seed % 2 ? 0 : 50e3;
        random_arrivals(w, rand, 120, more_urgent);
        world_free(w);
        g_rand_free(rand);
    }
}

/* More arrives than can be answered, all of it more urgent, for `steps`; who is not: when it was answered, or 0. */
static int64_t starved(const char *policy, const char *const *options, int priority, int prompt, int answer, int steps)
{
    World    *w = plenty(policy, 2, options);
    WorldSeq *q;
    int64_t   begun, done;

    for (int i = 0; i < 4; i++)
        world_add(w, "ann", priority, 8, 20);
    begun = world_now;
    q = world_add(w, "eve", 0, prompt, answer);
    while (w->n_steps < steps) {
        if (w->n_steps % 8 == 0) /* each takes ten steps of one of two slots */
            world_add(w, "ann", priority, 8, 20);
        assert_true(step(w));
    }
    done = q->gone ? q->done_us - begun : 0;
    world_finish(w);
    world_free(w);
    return done;
}

static void priority_starves_nobody(void **state)
{
    static const char *const none[] = { "aging_ms", "0", NULL }, *const some[] = { "aging_ms", "50", NULL };

    (void)state;
    assert_int_equal(starved("priority", none, 3, 8, 20, 2000), 0);
    const int64_t took = starved("priority", some, 3, 8, 20, 2000);
    assert_true(took > 0);
    assert_true(took < 3 * 50000 + 4 * 20 * 1200 * 2); /* three steps of aging, those before it, itself */
}

static void priority_displaces_if_asked(void **state)
{
    static const char *const no[] = { "aging_ms", "0", NULL };
    static const char *const yes[] = { "aging_ms", "0", "displace", "true", NULL };

    (void)state;
    for (int displace = 0; displace < 2; displace++) {
        World    *w = plenty("priority", 2, displace ? yes : no);
        WorldSeq *a = world_add(w, "", 0, 10, 100), *b = world_add(w, "", 0, 10, 100);
        step(w), step(w);
        WorldSeq *c = world_add(w, "", 1, 10, 10), *d = world_add(w, "", 1, 10, 10);
        for (int i = 0; i < 4; i++) {
            step(w);
            assert_true(world_runs(w, a) || world_runs(w, b) || world_runs(w, c)); /* one always runs on */
        }
        assert_int_equal(c->s.slot >= 0 && d->s.slot >= 0, displace);
        assert_int_equal(a->s.slot < 0 && b->s.slot < 0, displace);
        world_finish(w);
        assert_int_equal(a->drawn + b->drawn, 200);
        assert_int_equal(w->n_preempted, 2 * displace);
        world_free(w);
    }
}

/* A prompt that is being computed lets a more urgent one pass. */
static void priority_gives_rows_to_the_most_urgent(void **state)
{
    (void)state;
    World    *w = plenty("priority", 4, NULL);
    WorldSeq *a = world_add(w, "", 0, 2000, 2), *b = world_add(w, "", 0, 2000, 2);

    step(w), step(w);
    assert_int_equal(world_rows(w, a), 256);
    const WorldSeq *c = world_add(w, "", 9, 200, 2);
    step(w);
    assert_int_equal(world_rows(w, c), 200);
    assert_int_equal(world_rows(w, a), 56);
    assert_int_equal(world_rows(w, b), 0);
    world_finish(w);
    world_free(w);
}

/* ---- fair ---------------------------------------------------------------------------- */

/* Service as the paper counts it: a prompt when it is admitted, and two for each token drawn. */
static double service(const World *w, const char *client)
{
    double sum = 0;

    for (guint i = 0; i < w->all->len; i++) {
        const WorldSeq *q = w->all->pdata[i];
        if (strcmp(q->s.client, client) == 0)
            sum += (q->started >= 0 ? q->s.n_prompt : 0) + 2.0 * q->drawn;
    }
    return sum;
}

static int n_waiting(const World *w, const char *client)
{
    int n = 0;

    for (guint i = 0; i < w->known->len; i++)
        n += waits(w->known->pdata[i]) && strcmp(((const WorldSeq *)w->known->pdata[i])->s.client, client) == 0;
    return n;
}

/* Two that always have something waiting: the paper's theorem bounds by how much they may differ, whatever the
 * sizes of their requests.  The batch holds at most max_seqs (prompt + answer) tokens. */
static void fair_serves_clients_alike(void **state)
{
    (void)state;
    World        *w = plenty("fair", 4, NULL);
    const double  bound = 2 * MAX(60.0, 2.0 * 4 * (60 + 10));

    for (int i = 0; i < 3000; i++) {
        while (n_waiting(w, "ann") < 6) /* a step admits four at most */
            world_add(w, "ann", 0, 60, 10);
        for (int k = 0; n_waiting(w, "bob") < 40 && k < 9; k++)
            world_add(w, "bob", 0, 5, 40);
        assert_true(step(w));
        const double difference = service(w, "ann") - service(w, "bob");
        assert_true(difference < bound && difference > -bound);
    }
    assert_true(service(w, "ann") > 10 * bound);
    while (w->known->len)
        world_cancel(w, w->known->pdata[0]);
    world_free(w);
}

/* Who comes into a flood of another's requests does not wait for the end of it. */
static void fair_lets_nobody_wait_for_a_flood(void **state)
{
    static const char *const policies[] = { "fair", "fcfs" };
    int started[2];

    (void)state;
    for (int p = 0; p < 2; p++) {
        World *w = plenty(policies[p], 4, NULL);
        for (int i = 0; i < 200; i++)
            world_add(w, "ann", 0, 20, 20);
        for (int i = 0; i < 100; i++)
            step(w);
        const int       before = (int)w->order->len;
        const WorldSeq *q = world_add(w, "bob", 0, 20, 20);
        while (q->started < 0)
            step(w);
        started[p] = (int)w->order->len - before;
        world_finish(w);
        world_free(w);
    }
    assert_true(started[0] <= 4);
    assert_true(started[1] > 100);
}

/* Time without requests is not saved up: who comes back is served like the others from then on. */
static void fair_saves_nothing_up(void **state)
{
    (void)state;
    World       *w = plenty("fair", 4, NULL);
    const double bound = 2 * 2.0 * 4 * 40;
    double       ann = 0, bob = 0;

    world_add(w, "bob", 0, 20, 1);
    for (int i = 0; i < 5000; i++) {
        while (n_waiting(w, "ann") < 6)
            world_add(w, "ann", 0, 20, 20);
        while (i >= 500 && n_waiting(w, "bob") < 6)
            world_add(w, "bob", 0, 20, 20);
        if (i == 500)
            ann = service(w, "ann"), bob = service(w, "bob");
        assert_true(step(w));
        if (i < 500)
            continue;
        const double difference = (service(w, "ann") - ann) - (service(w, "bob") - bob);
        assert_true(difference < bound && difference > -bound);
    }
    assert_true(service(w, "bob") - bob > 10 * bound);
    while (w->known->len)
        world_cancel(w, w->known->pdata[0]);
    world_free(w);
}

/* Who had more than its share does not get rid of that by asking for one thing at a time. */
static void fair_forgives_nothing(void **state)
{
    (void)state;
    World        *w = plenty("fair", 4, NULL);
    const double  bound = 2 * MAX(500.0, 2.0 * 4 * 520);
    WorldSeq     *q = NULL;

    for (int i = 0; i < 6000; i++) {
        while (n_waiting(w, "bob") < 6)
            world_add(w, "bob", 0, 20, 20);
        if (!q || q->gone)
            q = world_add(w, "ann", 0, 500, 20);
        assert_true(step(w));
        assert_true(service(w, "ann") - service(w, "bob") < bound);
    }
    assert_true(service(w, "ann") > 2 * bound);
    while (w->known->len)
        world_cancel(w, w->known->pdata[0]);
    world_free(w);
}

/* Thousands of names that come once leave the others' counters alone. */
static void fair_forgets_clients(void **state)
{
    char name[16];

    (void)state;
    World *w = plenty("fair", 8, NULL);
    for (int i = 0; i < 10000; i++) {
        g_snprintf(name, sizeof name, "c%d", i);
        world_add(w, name, 0, 1 + i % 20, 1 + i % 3);
        if (i % 4 == 0)
            step(w);
        for (guint k = 0; k < w->known->len; k++) /* the name is on our stack */
            ((WorldSeq *)w->known->pdata[k])->s.client = "";
    }
    world_finish(w);
    world_free(w);
}

/* ---- sjf ------------------------------------------------------------------------------- */

/* Nobody says how long an answer will be; it follows from the prompt's length, as it did before. */
static void sjf_learns_lengths(void **state)
{
    (void)state;
    World *w = world_new(registry, &(WorldSpec){ .policy = "sjf", .max_seqs = 1, .max_tokens = 512, .prefill_step = 256,
                                                 .n_pages = 10000, .max_answer = 1000 });
    for (int i = 0; i < 20; i++) {
        world_add(w, "", 0, 8, 40 + i);
        world_add(w, "", 0, 70, 4);
    }
    world_finish(w);
    const guint trained = w->order->len;
    for (int i = 0; i < 20; i++) {
        world_add(w, "", 0, 8, 50);
        world_add(w, "", 0, 70, 4);
    }
    world_finish(w);
    for (int i = 0; i < 40; i++) { /* all of one kind, then the other, each as they came */
        const int id = (int)trained + (i < 20 ? 2 * i + 1 : 2 * (i - 20));
        assert_int_equal(g_array_index(w->order, int, trained + (guint)i), id);
    }
    world_free(w);
}

/* An answer that was cut short says nothing about lengths. */
static void sjf_learns_nothing_from_cancels(void **state)
{
    (void)state;
    World *w = world_new(registry, &(WorldSpec){ .policy = "sjf", .max_seqs = 1, .max_tokens = 512, .prefill_step = 256,
                                                 .n_pages = 10000, .max_answer = 1000 });
    for (int i = 0; i < 10; i++) {
        world_add(w, "", 0, 8, 60);
        world_add(w, "", 0, 70, 20);
    }
    world_finish(w);
    for (int i = 0; i < 80; i++) {
        WorldSeq *q = world_add(w, "", 0, 8, 60);
        step(w), step(w);
        world_cancel(w, q);
    }
    const WorldSeq *slow = world_add(w, "", 0, 8, 60), *quick = world_add(w, "", 0, 70, 20);
    world_finish(w);
    assert_true(quick->started < slow->started);
    world_free(w);
}

/* Those that wait already profit from what was learned meanwhile. */
static void sjf_learns_for_those_that_wait(void **state)
{
    int before = 0;

    (void)state;
    World *w = world_new(registry, &(WorldSpec){ .policy = "sjf", .max_seqs = 4, .max_tokens = 512, .prefill_step = 256,
                                                 .n_pages = 10000, .max_answer = 1000,
                                                 .options = (const char *const[]){ "input_weight", "0", NULL } });
    for (int i = 0; i < 200; i++)
        world_add(w, "", 0, i % 2 ? 40 : 8, i % 2 ? 4 : 60);
    world_finish(w);
    for (guint i = 140; i < 200; i++) /* the last are the long ones, once some of both kinds were answered */
        before += g_array_index(w->order, int, i) % 2;
    assert_int_equal(before, 0);
    world_free(w);
}

static bool asks_for_less(const World *w, const WorldSeq *a, const WorldSeq *b)
{
    (void)w;
    const double x = a->s.max_tokens + 0.5 * a->s.n_prompt, y = b->s.max_tokens + 0.5 * b->s.n_prompt;
    return x < y - 1e-3 || (x < y + 1e-3 && a->s.id < b->s.id);
}

/* A request's own limit is an estimate as well: none beyond it. */
static void sjf_believes_limits(void **state)
{
    static const char *const options[] = { "aging", "0", "guess", "100000", "input_weight", "0.5", NULL };

    (void)state;
    GRand *rand = g_rand_new_with_seed(3);
    World *w = plenty("sjf", 2, options);
    while (w->all->len < 40)
        world_add(w, "", 0, g_rand_int_range(rand, 1, 50), g_rand_int_range(rand, 1, 60));
    for (int i = 0; i < 5 && world_next(w); i++) { /* before an answer is complete: nothing was learned */
        check_admitted(w, asks_for_less);
        world_run(w);
        if (w->known->len < 40)
            break;
    }
    world_finish(w);
    world_free(w);
    g_rand_free(rand);
}

static void sjf_starves_nobody(void **state)
{
    static const char *const none[] = { "aging", "0", NULL }, *const some[] = { "aging", "1000", NULL };

    (void)state;
    assert_int_equal(starved("sjf", none, 0, 4000, 20, 3000), 0);
    const int64_t took = starved("sjf", some, 0, 4000, 20, 3000);
    assert_true(took > 0);
    /* Its prompt counts as 400 tokens more than the others, worth 0.4 s; then it has its own steps to take. */
    assert_true(took < 400000 + 4 * 20 * 1200 * 2 + 40 * 4000);
}

/* ---- mlfq -------------------------------------------------------------------------------- */

/* The level of who had so much service. */
static int level(const WorldSeq *q)
{
    const double used = 0.1 * q->s.n_prompt + q->drawn;
    double       sum = 0, quantum = 10;
    int          l = 0;

    for (; l < 3; l++, quantum *= 2)
        if (used < (sum += quantum) - 1e-4)
            break;
    return l;
}

/* Whoever had little service has a place, or gets one in the next steps. */
static void mlfq_prefers_who_had_little(void **state)
{
    static const char *const options[] = { "quantum", "10", "growth", "2", "levels", "4", "boost_ms", "0",
                                           "keep", "0", NULL };

    (void)state;
    for (guint32 seed = 1; seed <= 5; seed++) {
        GRand *rand = g_rand_new_with_seed(seed);
        World *w = plenty("mlfq", 4, options);
        int    patient = 0, events = 0;
        while (w->all->len < 150 || w->known->len) {
            if (w->all->len < 150 && g_rand_int_range(rand, 0, 6) == 0)
                world_add(w, "", 0, g_rand_int_range(rand, 1, 200), g_rand_int_range(rand, 1, 100));
            if (!step(w))
                continue;
            int highest = 99, lowest = -1, n = 0;
            for (guint i = 0; i < w->known->len; i++) {
                const WorldSeq *q = w->known->pdata[i];
                if (q->s.slot < 0)
                    highest = MIN(highest, level(q));
                else
                    lowest = MAX(lowest, level(q)), n++;
            }
            const int now = w->n_preempted + (int)w->order->len;
            patient = n == 4 && highest < lowest && now == events ? patient + 1 : 0;
            events = now;
            assert_true(patient <= 1);
        }
        assert_true(w->n_preempted > 20);
        world_free(w);
        g_rand_free(rand);
    }
}

static void mlfq_starves_nobody(void **state)
{
    static const char *const never[] = { "quantum", "32", "boost_ms", "0", "keep", "0", NULL };
    static const char *const boosts[] = { "quantum", "32", "boost_ms", "100", "keep", "0", NULL };

    (void)state;
    assert_int_equal(starved("mlfq", never, 0, 8, 400, 3000), 0);
    assert_true(starved("mlfq", boosts, 0, 8, 400, 3000) > 0);
}

/* A short question is answered while long ones go on, where first come first served makes it wait. */
static void mlfq_answers_the_short_soon(void **state)
{
    static const char *const policies[] = { "mlfq", "fcfs" };
    int64_t took[2];

    (void)state;
    for (int p = 0; p < 2; p++) {
        World *w = plenty(policies[p], 2, NULL);
        for (int i = 0; i < 6; i++)
            world_add(w, "", 0, 20, 1000);
        for (int i = 0; i < 100; i++)
            step(w);
        const int64_t   from = world_now;
        const WorldSeq *q = world_add(w, "", 0, 20, 20);
        world_finish(w);
        took[p] = q->done_us - from;
        world_free(w);
    }
    assert_true(took[0] < 300 * 1500); /* steps: quanta of the others, and its own */
    assert_true(took[1] > 2000 * 1000);
}

/* Who would have to be computed again keeps its place until four fifths of it were drawn there. */
static void mlfq_keeps_what_is_dear(void **state)
{
    static const char *const options[] = { "quantum", "1", "boost_ms", "0", NULL };

    (void)state;
    World    *w = plenty("mlfq", 2, options);
    WorldSeq *a = world_add(w, "", 0, 100, 1000), *b = world_add(w, "", 0, 100, 1000);

    for (int i = 0; i < 10; i++)
        step(w);
    const WorldSeq *c = world_add(w, "", 0, 1, 5);
    while (w->n_preempted == 0)
        step(w);
    assert_in_range(MAX(a->drawn, b->drawn), 399, 402);
    step(w);
    assert_true(c->s.slot >= 0);
    world_finish(w);
    world_free(w);
}

#define TEST(f) cmocka_unit_test(f)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(fcfs_takes_from_the_youngest), TEST(priority_admits_the_most_urgent), TEST(priority_starves_nobody),
        TEST(priority_displaces_if_asked),
        TEST(priority_gives_rows_to_the_most_urgent), TEST(fair_forgives_nothing), TEST(mlfq_keeps_what_is_dear), TEST(fair_serves_clients_alike), TEST(fair_lets_nobody_wait_for_a_flood),
        TEST(fair_saves_nothing_up), TEST(fair_forgets_clients), TEST(sjf_learns_lengths), TEST(sjf_learns_nothing_from_cancels),
        TEST(sjf_learns_for_those_that_wait), TEST(sjf_believes_limits), TEST(sjf_starves_nobody),
        TEST(mlfq_prefers_who_had_little), TEST(mlfq_starves_nobody), TEST(mlfq_answers_the_short_soon),
    };
    return cmocka_run_group_tests(tests, group_load, group_free);
}
