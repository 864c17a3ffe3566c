/* test_paged.c - paged memory in the engine: no token is another than without it.
 *
 * Greedy answers of a tiny model, and of stories260K where MI_MODELS has it, are compared with those of the caches
 * that keep each sequence whole: with blocks of any size, prompts cut anywhere, alone and together, beginnings shared or
 * not, and with memory for a quarter of what would be needed.  MI_PAGED_SEEDS: of how many sets of requests that is. */
#include "engine_run.h"

#include <glib/gstdio.h>
#include <stdlib.h>

enum { MANY = 12, MAX_PROMPT = 60, N_DRAWN = 24, MAX_LEN = 96 };

static const char *model_path, *kv_dtype;

/* ---- an engine, and what it answers -------------------------------------------------- */

typedef struct {
    GMutex lock;
    GCond  cond;
    int    left;
} Meeting;

typedef struct {
    Meeting *meeting;
    int32_t  prompt[MAX_PROMPT], tokens[N_DRAWN];
    int      n_prompt, n, n_cached;
} Answer;

static void start(Run *r, const char *more)
{
    static const char *const plugins[] = { "tests/plugins/tiny.so", "tests/plugins/collide.so", NULL };
    g_autofree char *all = g_strdup_printf("engine.kv_dtype %s sampler.chain greedy engine.device " DEVICE " engine.max_len 96 %s",
                                           kv_dtype, more);

    run_start(r, plugins, model_path, all);
}

static void on_event(void *user, const MiEvent *e)
{
    Answer *a = user;

    for (int i = 0; e->type == MI_EVENT_TEXT && i < e->n_tokens && a->n < N_DRAWN; i++)
        a->tokens[a->n++] = e->tokens[i];
    if (e->type != MI_EVENT_DONE && e->type != MI_EVENT_ERROR)
        return;
    if (e->type == MI_EVENT_ERROR)
        fprintf(stderr, "# %s\n", e->text);
    a->n_cached = e->n_cached;
    g_mutex_lock(&a->meeting->lock);
    a->meeting->left--;
    g_cond_signal(&a->meeting->cond);
    g_mutex_unlock(&a->meeting->lock);
}

/* One of three beginnings, then something of its own. */
static void prompt(Answer *a, uint32_t seed, int which)
{
    GRand    *r = g_rand_new_with_seed(seed * 1000 + (uint32_t)which);
    const int shared = 10 + 13 * (which % 3), own = g_rand_int_range(r, 1, MAX_PROMPT - shared);

    a->n_prompt = shared + own;
    for (int i = 0; i < a->n_prompt; i++)
        a->prompt[i] = i < shared ? (int32_t)(3 + (i * 31 + which % 3 * 57 + seed) % 200) : g_rand_int_range(r, 3, 200);
    g_rand_free(r);
}

/* n requests at once; they go to the front end's answers. */
static void ask(Run *r, Answer *answers, int first, int n, uint32_t seed)
{
    Meeting m = { .left = n };

    for (int i = 0; i < n; i++) {
        g_autoptr(GError) error = NULL;
        Answer           *a = &answers[first + i];
        *a = (Answer){ .meeting = &m };
        prompt(a, seed, first + i);
        const MiRequest q = { .tokens = a->prompt, .n_tokens = (size_t)a->n_prompt, .max_tokens = N_DRAWN,
                              .ignore_eos = true, .event = on_event, .user = a };
        if (!r->engine->api->submit(r->engine, &q, &error))
            fail_msg("%s", error->message);
    }
    g_mutex_lock(&m.lock);
    while (m.left)
        g_cond_wait(&m.cond, &m.lock);
    g_mutex_unlock(&m.lock);
}

static void same(const Answer *want, const Answer *got, int n, const char *what)
{
    for (int i = 0; i < n; i++) {
        assert_int_equal(want[i].n, N_DRAWN);
        for (int k = 0; k < N_DRAWN; k++)
            if (got[i].n != N_DRAWN || got[i].tokens[k] != want[i].tokens[k])
                fail_msg("%s: token %d of answer %d (of %d) is %d, not %d", what, k, i, got[i].n, got[i].tokens[k],
                         want[i].tokens[k]);
    }
}

/* ---- every size -------------------------------------------------------------------------- */

static void every_size(void)
{
    static const int         sizes[] = { 1, 4, 16, 64 }, chunks[] = { 1, 7, 64, 512 };
    static const char *const indexes[] = { "hash", "trie", "none", "collide", "hash" };
    Answer                   want[MANY], got[MANY];
    Run                      r;

    start(&r, "engine.cache full");
    for (int i = 0; i < MANY; i++)
        ask(&r, want, i, 1, 1);
    stop(&r);
    start(&r, "engine.cache batch engine.max_seqs 5");
    ask(&r, got, 0, MANY, 1);
    same(want, got, MANY, "batch");
    stop(&r);
    for (int i = 0; i < 4 * 4 * 2; i++) {
        const char      *index = indexes[i % 5];
        g_autofree char *what = g_strdup_printf("engine.attention paged cache.paged.block_size %d engine.prefill_step %d "
                                                "engine.max_seqs %d cache.paged.prefix %s cache.paged.bytes 2MB",
                                                sizes[i % 4], chunks[i / 4 % 4], i / 16 ? 1 : 7, index);
        start(&r, what);
        ask(&r, got, 0, MANY, 1);
        same(want, got, MANY, what);
        ask(&r, got, 0, MANY, 1); /* now all of it is there */
        same(want, got, MANY, what);
        for (int k = 0; k < MANY; k++)
            if (strcmp(index, "none") == 0)
                assert_int_equal(got[k].n_cached, 0);
            else
                assert_true(got[k].n_cached >= (got[k].n_prompt - 1) / sizes[i % 4] * sizes[i % 4] &&
                            got[k].n_cached < got[k].n_prompt);
        const MiStats s = at_rest(&r);
        assert_true(s.found_tokens > 0 || strcmp(index, "none") == 0 || sizes[i % 4] > MAX_PROMPT);
        assert_true(s.prompt_tokens > s.found_tokens);
        assert_int_equal(s.preemptions, 0);
        stop(&r);
    }
}

/* ---- a quarter of the memory ----------------------------------------------------------------- */

/* So many positions and no more, as [cache.paged] bytes. */
static char *bytes_for(const MiAssembly *a, int positions, int block_size)
{
    const MiCacheSpec *c = &a->cache_spec;
    const size_t       blocks = (size_t)((positions + block_size - 1) / block_size), max_blocks = (size_t)(MAX_LEN / block_size) + 1;
    const size_t side = blocks * (size_t)block_size * (size_t)c->n_kv_heads * (size_t)c->head_dim * mi_dtype_size(c->dtype);

    return g_strdup_printf("%zu", 2 * (size_t)c->n_layers * ((side + 255) / 256 * 256) +
                                      (size_t)c->n_layers * ((mi_dtype_scaled(c->dtype) ? side / (size_t)c->head_dim * 4 + ((size_t)(c->n_kv_heads * c->head_dim) * 4 + 255) / 256 * 256 : 0) + 255) / 256 * 256 +
                                      ((size_t)c->max_tokens + (2 + max_blocks) * (size_t)c->max_seqs) * sizeof(int32_t));
}

static void a_quarter(const char *more)
{
    uint64_t preemptions = 0;
    Answer   want[MANY], got[MANY];
    Run      whole, r;

    const char    *asked = g_getenv("MI_PAGED_SEEDS");
    const uint32_t n_seeds = asked ? (uint32_t)atoi(asked) : 3;
    for (uint32_t seed = 1; seed <= n_seeds; seed++) {
        g_autofree char *common = g_strdup_printf("engine.attention paged engine.max_seqs 6 cache.paged.block_size 4 "
                                                  "engine.prefill_step %u %s", seed % 4 * 9 + 5, more);
        g_autofree char *plenty = g_strconcat(common, " cache.paged.bytes 4MB", NULL);
        start(&whole, plenty);
        ask(&whole, want, 0, MANY, seed);
        assert_int_equal(at_rest(&whole).preemptions, 0);
        int need = 0; /* of six at once */
        for (int i = 0; i < MANY; i++)
            need += (want[i].n_prompt + N_DRAWN) * 6 / MANY;
        g_autofree char *bytes = bytes_for(whole.assembly, MAX(need / 4, MAX_LEN), 4);
        g_autofree char *what = g_strconcat(common, " cache.paged.bytes ", bytes, NULL);
        start(&r, what);
        assert_in_range(r.room, MAX_LEN, MAX(need / 4, MAX_LEN) + 8);
        ask(&r, got, 0, MANY, seed);
        same(want, got, MANY, what);
        const MiStats s = at_rest(&r);
        preemptions += s.preemptions;
        stop(&r);
        stop(&whole);
    }
    print_message("# %s: %d preemptions in %u runs\n", more, (int)preemptions, n_seeds);
    assert_true(preemptions > n_seeds);
}

/* ---- the tests -------------------------------------------------------------------------------- */

static void on_each_model(void (*test)(const char *), const char *arg)
{
    g_autofree char *tiny = tiny_path(), *stories = stories_path();

    model_path = tiny, kv_dtype = "fp32";
    test(arg);
    g_unlink(tiny);
    model_path = stories, kv_dtype = "auto";
    if (stories)
        test(arg);
}

/* Keys and values with scales, which go wherever they do. */
static void on_scaled(void (*test)(const char *), const char *arg)
{
    g_autofree char *tiny = tiny_path(), *stories = stories_path();

    model_path = tiny, kv_dtype = "fp8";
    test(arg);
    g_unlink(tiny);
    model_path = stories, kv_dtype = "int8";
    if (stories)
        test(arg);
}

static void sizes(const char *unused) { (void)unused, every_size(); }
static void no_size_changes_a_token(void **state) { (void)state, on_each_model(sizes, ""); }
static void a_quarter_will_do_with_hashes(void **state) { (void)state, on_each_model(a_quarter, "cache.paged.prefix hash"); }
static void a_quarter_will_do_with_a_tree(void **state) { (void)state, on_each_model(a_quarter, "cache.paged.prefix trie"); }
static void a_quarter_will_do_where_the_least_shared_goes(void **state)
{
    (void)state;
    on_each_model(a_quarter, "cache.paged.prefix trie cache.paged.eviction lfu");
}
static void no_size_changes_a_token_with_scales(void **state) { (void)state, on_scaled(sizes, ""); }
static void a_quarter_will_do_with_scales(void **state)
{
    (void)state;
    on_scaled(a_quarter, "cache.paged.prefix trie");
    on_scaled(a_quarter, "cache.paged.prefix hash cache.paged.swap 100kB scheduler.fcfs.preempt swap");
}
static void a_quarter_will_do_alone(void **state) { (void)state, on_each_model(a_quarter, "cache.paged.prefix none"); }
static void a_quarter_will_do_where_all_collides(void **state)
{
    (void)state;
    on_each_model(a_quarter, "cache.paged.prefix collide");
}

static void a_quarter_will_do_swapped(void **state)
{
    (void)state;
    on_each_model(a_quarter, "cache.paged.prefix none cache.paged.swap 10MB scheduler.fcfs.preempt swap");
    on_each_model(a_quarter, "cache.paged.prefix hash cache.paged.swap 100kB scheduler.fcfs.preempt swap");
}

#ifdef MI_TEST_REMOTE
/* On a device with its own memory the cache takes what the other parts leave, and the plan says so. */
static void takes_what_is_free(void **state)
{
    (void)state;
    g_autofree char *tiny = tiny_path();
    Answer           got[MANY];
    Run              r;

    model_path = tiny, kv_dtype = "fp32";
    remote_bytes = 320 << 20; /* of which 256 MiB and 1/64 are left alone */
    start(&r, "engine.attention paged engine.max_seqs 3");
    const size_t  taken = mi_assembly_plan(r.assembly)->device, most = remote_bytes - (remote_bytes / 64 + (256 << 20));
    assert_in_range(taken, most - (1 << 20), most);
    assert_int_equal(mi_engine_allocated(r.engine), mi_assembly_plan(r.assembly)->allocated);
    ask(&r, got, 0, MANY, 1);
    at_rest(&r);
    stop(&r);
    remote_bytes = (size_t)1 << 40;
    g_unlink(tiny);
}
#define REMOTE_TESTS cmocka_unit_test(takes_what_is_free),
#else
#define REMOTE_TESTS
#endif

TEST_MAIN(REMOTE_TESTS cmocka_unit_test(no_size_changes_a_token),
          cmocka_unit_test(a_quarter_will_do_where_all_collides), cmocka_unit_test(a_quarter_will_do_with_hashes),
          cmocka_unit_test(a_quarter_will_do_with_a_tree), cmocka_unit_test(a_quarter_will_do_alone),
          cmocka_unit_test(a_quarter_will_do_where_the_least_shared_goes), cmocka_unit_test(a_quarter_will_do_swapped),
          cmocka_unit_test(no_size_changes_a_token_with_scales), cmocka_unit_test(a_quarter_will_do_with_scales));
