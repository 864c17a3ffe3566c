/* test_determinism.c - 64 requests at once give exactly what each gives alone.
 *
 * With [engine] deterministic = batch tokens and log probabilities are the same to the bit; without it they are up to a
 * near tie: for every scheduler, equal beginnings shared or not, prompts in pieces of 1, 7, 64 and 512.  With memory for
 * a quarter of what all need: the same as with plenty, somebody lost its place, and all that was used is free again.
 *
 * On a tiny model, and in part on stories260K where MI_MODELS has it.  MI_DETERMINISM=MODEL runs all of it on that
 * model, with 20 sets of requests for the scarce memory; MI_DETERMINISM_DRAWN: tokens of an answer (16). */
#include "engine_run.h"
#ifdef MI_TEST_REMOTE
#define PLENTY " cache.paged.bytes 8MB"
#else
#define PLENTY ""
#endif

#include <glib/gstdio.h>
#include <math.h>
#include <stdlib.h>

enum { MANY = 64, MAX_PROMPT = 40, MAX_DRAWN = 32, TOPS = 3, BLOCK = 8 };

static const char *model_path;
static int         n_drawn = 16;
static int32_t     text[256]; /* what prompts are made of */

static const char *const schedulers[] = { "fcfs", "priority", "fair", "sjf", "mlfq" };
static const char *const sharing[] = { "hash", "none" };
static const int         chunks[] = { 1, 7, 64, 512 };

/* ---- an engine, and what it answers -------------------------------------------------- */

typedef struct {
    GMutex lock;
    GCond  cond;
    int    left;
} Meeting;

typedef struct {
    Meeting *meeting;
    int32_t  prompt[MAX_PROMPT], tokens[MAX_DRAWN];
    float    logprobs[MAX_DRAWN];
    MiTop    tops[MAX_DRAWN][TOPS];
    int      n_prompt, n;
    bool     failed;
} Answer;

static void start(Run *r, const char *device, const char *more)
{
    static const char *const plugins[] = { "tests/plugins/tiny.so", NULL };
    g_autofree char *all = g_strdup_printf("engine.device %s engine.max_len %d %s", device, MAX_PROMPT + MAX_DRAWN, more);

    run_start(r, plugins, model_path, all);
}

static void on_event(void *user, const MiEvent *e)
{
    Answer *a = user;

    for (int i = 0; e->type == MI_EVENT_TEXT && i < e->n_tokens && a->n < MAX_DRAWN; i++, a->n++) {
        a->tokens[a->n] = e->tokens[i];
        a->logprobs[a->n] = e->logprobs[i];
        memcpy(a->tops[a->n], e->tops + i * e->n_tops, sizeof a->tops[0]);
    }
    if (e->type != MI_EVENT_DONE && e->type != MI_EVENT_ERROR)
        return;
    if (e->type == MI_EVENT_ERROR)
        fprintf(stderr, "# %s\n", e->text);
    a->failed = e->type == MI_EVENT_ERROR;
    g_mutex_lock(&a->meeting->lock);
    a->meeting->left--;
    g_cond_signal(&a->meeting->cond);
    g_mutex_unlock(&a->meeting->lock);
}

/* ---- requests --------------------------------------------------------------------------- */

static bool sampled(int which) { return which % 2; }
static int  wanted(int which) { return n_drawn - which % 5; }

/* One of three beginnings, then something of its own. */
static void prompt(Answer *a, uint32_t seed, int which)
{
    GRand    *r = g_rand_new_with_seed(seed * 1000 + (uint32_t)which);
    const int shared = 4 + 10 * (which % 3), own = g_rand_int_range(r, 1, MAX_PROMPT - shared);
    const int at = g_rand_int_range(r, 0, 200);

    a->n_prompt = shared + own;
    for (int i = 0; i < a->n_prompt; i++)
        a->prompt[i] = text[(i < shared ? i + which % 3 * 50 + (int)seed : i + at) % (int)G_N_ELEMENTS(text)];
    g_rand_free(r);
}

/* Every request meets links of the chain that only others ask for.  params: [8]. */
static void params_of(int which, const char *seed, MiParam *params)
{
    static const MiParam more[][4] = {
        [1] = { { "top_p", "0.95" } },
        [3] = { { "repetition_penalty", "1.2" }, { "frequency_penalty", "0.3" } },
        [4] = { { "presence_penalty", "0.5" } },
        [5] = { { "top_k", "40" }, { "min_p", "0.02" } },
        [6] = { { "logit_bias", "5: 2.5, 9: -1" } },
        [7] = { { "typical_p", "0.9" }, { "top_k", "0" }, { "min_p", "0" } },
    };
    int n = 0;

    params[n++] = (MiParam){ "temperature", sampled(which) ? "0.9" : "0" };
    params[n++] = (MiParam){ "seed", seed };
    for (const MiParam *p = more[which % 8]; p->key; p++)
        params[n++] = *p;
    params[n] = (MiParam){ NULL, NULL };
}

static void submit(Run *r, Answer *a, Meeting *m, uint32_t seed, int which)
{
    g_autoptr(GError) error = NULL;
    g_autofree char  *number = g_strdup_printf("%u", 1000 * seed + (uint32_t)which + 1);
    g_autofree char  *client = g_strdup_printf("client %d", which % 4);
    MiParam           params[8];

    *a = (Answer){ .meeting = m };
    prompt(a, seed, which);
    params_of(which, number, params);
    const MiRequest q = { .tokens = a->prompt, .n_tokens = (size_t)a->n_prompt, .max_tokens = wanted(which),
                          .client = client, .priority = which % 5, .params = params, .logprobs = TOPS,
                          .ignore_eos = true, .event = on_event, .user = a };
    if (!r->engine->api->submit(r->engine, &q, &error))
        fail_msg("%s", error->message);
}

/* Requests first to first + n, at once. */
static void ask(Run *r, Answer *answers, int first, int n, uint32_t seed)
{
    Meeting m = { .left = n };

    for (int i = first; i < first + n; i++)
        submit(r, &answers[i], &m, seed, i);
    g_mutex_lock(&m.lock);
    while (m.left)
        g_cond_wait(&m.cond, &m.lock);
    g_mutex_unlock(&m.lock);
    for (int i = first; i < first + n; i++)
        assert_false(answers[i].failed);
}

/* ---- comparing ---------------------------------------------------------------------------- */

static void same(const Answer *want, const Answer *got, const char *what)
{
    for (int i = 0; i < MANY; i++) {
        assert_int_equal(want[i].n, wanted(i));
        if (got[i].n != want[i].n)
            fail_msg("%s: answer %d has %d tokens, not %d", what, i, got[i].n, want[i].n);
        for (int k = 0; k < want[i].n; k++)
            if (got[i].tokens[k] != want[i].tokens[k])
                fail_msg("%s: token %d of answer %d is %d, not %d", what, k, i, got[i].tokens[k], want[i].tokens[k]);
            else if (memcmp(&got[i].logprobs[k], &want[i].logprobs[k], sizeof(float)) != 0 ||
                     memcmp(got[i].tops[k], want[i].tops[k], sizeof want[i].tops[k]) != 0)
                fail_msg("%s: token %d of answer %d has %.9g, not %.9g", what, k, i, (double)got[i].logprobs[k],
                         (double)want[i].logprobs[k]);
    }
}

/* Where the first token differs the one that came must have been nearly as likely alone; before it log probabilities
 * are close.  Of a sampled answer: it was one of the likeliest.  Returns how many answers differ. */
static int nearly_same(const Answer *want, const Answer *got, const char *what)
{
    int others = 0;

    for (int i = 0; i < MANY; i++) {
        assert_int_equal(got[i].n, want[i].n);
        int k = 0;
        for (; k < want[i].n && got[i].tokens[k] == want[i].tokens[k]; k++)
            if (!(fabsf(got[i].logprobs[k] - want[i].logprobs[k]) < 0.05f))
                fail_msg("%s: token %d of answer %d has %f, not %f", what, k, i, (double)got[i].logprobs[k],
                         (double)want[i].logprobs[k]);
        if (k == want[i].n)
            continue;
        float gap = INFINITY;
        for (int t = 0; t < TOPS; t++)
            if (want[i].tops[k][t].id == got[i].tokens[k])
                gap = want[i].logprobs[k] - want[i].tops[k][t].logprob;
        if (!(gap <= (sampled(i) ? INFINITY : 0.25f)))
            fail_msg("%s: token %d of answer %d is %d, alone %d, which is no near tie", what, k, i, got[i].tokens[k],
                     want[i].tokens[k]);
        others++;
    }
    return others;
}

/* ---- alone and together --------------------------------------------------------------------- */

static void alone(Answer *answers)
{
    Run r;

    start(&r, "cpu", "engine.deterministic batch engine.cache full");
    for (int i = 0; i < MANY; i++)
        ask(&r, answers, i, 1, 1);
    at_rest(&r);
    stop(&r);
}

static void together(const Answer *want, const char *scheduler, const char *prefix, int chunk, bool to_the_bit)
{
    static Answer    got[MANY];
    g_autofree char *what = g_strdup_printf("engine.deterministic %s engine.scheduler %s engine.cache paged "
                                            "cache.paged.prefix %s cache.paged.block_size %d engine.prefill_step %d "
                                            "engine.max_seqs %d" PLENTY, to_the_bit ? "batch" : "off", scheduler, prefix, BLOCK,
                                            chunk, MANY);
    const int64_t    from = g_get_monotonic_time();
    Run              r;
    int              others = 0;

    start(&r, DEVICE, what);
    ask(&r, got, 0, MANY, 1);
    if (to_the_bit)
        same(want, got, what);
    else
        others = nearly_same(want, got, what);
    const MiStats s = at_rest(&r);
    assert_int_equal(s.preemptions, 0);
    if (strcmp(prefix, "none") == 0)
        assert_int_equal(s.found_tokens, 0);
    stop(&r);
    print_message("# %s, %s, sharing %s, pieces of %d: %d of %d the same in %d steps, %d tokens found, %.1f s\n",
                  to_the_bit ? "to the bit" : "near ties", scheduler, prefix, chunk, MANY - others, MANY, (int)s.steps,
                  (int)s.found_tokens, (double)(g_get_monotonic_time() - from) / 1e6);
}

/* Without MI_DETERMINISM every scheduler and sharing, with another size of pieces each; less on stories260K, which takes
 * longer. */
static void matrix(bool whole)
{
    const bool    asked = g_getenv("MI_DETERMINISM") != NULL;
    static Answer want[MANY];

    alone(want);
    for (size_t s = 0; s < G_N_ELEMENTS(schedulers); s++)
        for (size_t p = 0; p < G_N_ELEMENTS(sharing); p++)
            for (size_t c = 0; c < G_N_ELEMENTS(chunks); c++)
                for (int bits = 1; bits >= 0; bits--)
                    if (asked || ((whole || bits) && (s + p + (size_t)bits) % G_N_ELEMENTS(chunks) == c))
                        together(want, schedulers[s], sharing[p], chunks[c], bits);
}

/* ---- a quarter of the memory ------------------------------------------------------------------ */

/* So many positions and no more, as [cache.paged] bytes. */
static char *bytes_for(const MiAssembly *a, int positions)
{
    const MiCacheSpec *c = &a->cache_spec;
    const size_t       blocks = (size_t)((positions + BLOCK - 1) / BLOCK), most = (size_t)(c->max_len / BLOCK) + 1;
    const size_t       side = blocks * BLOCK * (size_t)c->n_kv_heads * (size_t)c->head_dim * mi_dtype_size(c->dtype);

    return g_strdup_printf("%zu", 2 * (size_t)c->n_layers * ((side + 255) / 256 * 256) +
                                      ((size_t)c->max_tokens + (2 + most) * (size_t)c->max_seqs) * sizeof(int32_t));
}

static void a_quarter(uint32_t seed)
{
    static const char *const preempt[] = { "recompute", "recompute", "swap" };
    static const int         pieces[] = { 37, 64, 512, 100 }; /* with smaller ones few requests overlap */
    static Answer    want[MANY], got[MANY];
    const char      *scheduler = schedulers[seed % G_N_ELEMENTS(schedulers)];
    g_autofree char *common = g_strdup_printf("engine.deterministic batch engine.scheduler %s engine.cache paged "
                                              "cache.paged.prefix %s cache.paged.block_size %d engine.prefill_step %d "
                                              "engine.max_seqs %d scheduler.%s.preempt %s cache.paged.swap 2MB",
                                              scheduler, sharing[seed / 2 % 2], BLOCK, pieces[seed / 3 % 4], MANY,
                                              scheduler, preempt[seed % 3]);
    g_autofree char *enough = g_strconcat(common, PLENTY, NULL);
    Run              plenty, scarce;
    int              need = 0;

    start(&plenty, DEVICE, enough);
    ask(&plenty, want, 0, MANY, seed);
    assert_int_equal(at_rest(&plenty).preemptions, 0);
    for (int i = 0; i < MANY; i++)
        need += want[i].n_prompt + wanted(i);
    g_autofree char *bytes = bytes_for(plenty.assembly, need / 4);
    g_autofree char *what = g_strconcat(common, " cache.paged.bytes ", bytes, NULL);
    stop(&plenty);
    start(&scarce, DEVICE, what);
    assert_in_range(scarce.room, need / 8, need / 4 + 2 * BLOCK);
    ask(&scarce, got, 0, MANY, seed);
    same(want, got, what);
    const MiStats s = at_rest(&scarce);
    print_message("# seed %u, %s, sharing %s, pieces of %d, %s: room for %d of %d positions, %d lost their place, all the "
                  "same, all free again\n", seed, scheduler, sharing[seed / 2 % 2], pieces[seed / 3 % 4], preempt[seed % 3],
                  (int)scarce.room, need, (int)s.preemptions);
    assert_true(s.preemptions > 0);
    stop(&scarce);
}

/* ---- which model ----------------------------------------------------------------------- */

/* English as this model cuts it. */
static void read_text(void)
{
    static const char words[] =
        "Once upon a time there was a miller who had three sons, a mill, a donkey and a cat. The sons had to grind, the "
        "donkey had to fetch corn and carry flour away, and the cat had to catch the mice. When the miller died the "
        "eldest took the mill, the second the donkey, and nothing was left for the youngest but the cat. He was sad and "
        "said to himself: I have come off worst of all. My eldest brother can grind, my second can ride on his donkey, "
        "but what can I do with the cat? I shall have a pair of gloves made of its fur, and then that is the end of it. "
        "The cat had understood it all, and said: you need not kill me for the sake of a pair of bad gloves. Have boots "
        "made for me, so that I can go out and be seen.";
    int32_t ids[1024];
    Run     r;

    start(&r, "cpu", "");
    const size_t n = r.engine->api->encode(r.engine, words, strlen(words), false, ids, G_N_ELEMENTS(ids));
    stop(&r);
    assert_in_range(n, 100, G_N_ELEMENTS(ids));
    for (size_t i = 0; i < G_N_ELEMENTS(text); i++)
        text[i] = ids[i % n];
}

/* Only the one that is asked for, if one is. */
static bool begin(char *path, bool own)
{
    const char *asked = g_getenv("MI_DETERMINISM"), *drawn = g_getenv("MI_DETERMINISM_DRAWN");

    if (!path || (asked != NULL) != own)
        return false;
    if (drawn)
        n_drawn = CLAMP(atoi(drawn), 8, MAX_DRAWN);
    model_path = path;
    read_text();
    return true;
}

static void on_each_model(void (*test)(bool whole))
{
    g_autofree char *tiny = tiny_path(), *stories = stories_path(), *own = g_strdup(g_getenv("MI_DETERMINISM"));

    if (strcmp(DEVICE, "cpu") == 0 && begin(own, true))
        test(true);
    if (begin(tiny, false))
        test(true);
    if (begin(stories, false))
        test(false);
    g_unlink(tiny);
}

static void scarce_sets(bool whole)
{
    const uint32_t n = g_getenv("MI_DETERMINISM") ? 20 : whole ? 5 : 2;

    for (uint32_t seed = 1; seed <= n; seed++)
        a_quarter(seed);
}

static void is_the_same_alone_and_together(void **state) { (void)state, on_each_model(matrix); }
static void is_the_same_with_a_quarter_of_the_memory(void **state) { (void)state, on_each_model(scarce_sets); }

TEST_MAIN(cmocka_unit_test(is_the_same_alone_and_together), cmocka_unit_test(is_the_same_with_a_quarter_of_the_memory));
