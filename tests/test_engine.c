/* test_engine.c - requests through the whole engine, on a tiny model.
 *
 * What one request gives alone, with every token recomputed at each step
 * (cache `none`), is the oracle: nothing else - caches, batches, chunks,
 * threads, other requests - may change a token of it. */
#define _GNU_SOURCE
#include "common.h"
#include "engine.h"
#ifdef MI_TEST_REMOTE
#include "remote.h"
#define DEVICE "remote"
#else
#define DEVICE "cpu"
#endif

#include <math.h>
#include <dlfcn.h>
#include <glib/gstdio.h>

enum { MANY = 8, N_PROMPT = 23, N_DRAWN = 24 };

/* ---- counting allocations: the program's malloc is everybody's ------------------- */

static volatile gint counting, allocations;
void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);

#if !defined(__SANITIZE_ADDRESS__)
static void note(void)
{
    if (g_atomic_int_get(&counting))
        g_atomic_int_inc(&allocations);
}
void *malloc(size_t n) { return note(), __libc_malloc(n); }
void *calloc(size_t n, size_t size) { return note(), __libc_calloc(n, size); }
void *realloc(void *p, size_t n) { return note(), __libc_realloc(p, n); }
#endif

/* ---- an engine and what comes out of it --------------------------------------------- */

typedef struct {
    MiRegistry *registry;
    MiConfig   *config;
    MiAssembly *assembly;
    MiEngine   *engine;
    bool        draws; /* its chain takes a seed */
} Run;

typedef struct {
    GMutex   lock;
    GCond    cond;
    int      left; /* requests that are not done */
    int      count_from, count_to; /* tokens between which allocations are counted */
} Meeting;

typedef struct {
    Meeting *meeting;
    int32_t  tokens[512];
    float    logprobs[512], prompt_logprobs[512];
    MiTop    tops[512][3];
    int      n, n_scored;
    GString *text;
    char    *error;
    MiEvent  done;
} Answer;

static char *model_file(const char *more)
{
    char   *path = NULL;
    GError *error = NULL;
    int     fd = g_file_open_tmp("miniinfer-XXXXXX.tiny", &path, &error);
    g_autofree char *text = g_strconcat("tiny\n", more, NULL);

    assert_true(fd >= 0 && g_file_set_contents(path, text, -1, NULL));
    close(fd);
    return path;
}

static bool start(Run *r, const char *model, const char *const *options, GError **error)
{
    g_autofree char *path = model_file(model);

    *r = (Run){ .registry = load((const char *[]){ "tests/plugins/tiny.so", NULL }), .config = mi_config_new() };
    assert_true(mi_config_set(r->config, "model.path", path, error) &&
                mi_config_set(r->config, "engine.linear", "reference", error));
#ifdef MI_TEST_REMOTE
    remote_add(r->registry);
    assert_true(mi_config_set(r->config, "engine.device", "remote", error));
#endif
    for (; options && *options; options += 2)
        if (!mi_config_set(r->config, options[0], options[1], error))
            fail_msg("%s", (*error)->message);
    const char *chain = mi_config_get(r->config, "sampler", "chain");
    r->draws = !chain || strstr(chain, "multinomial");
    r->assembly = mi_assembly_new(r->registry, r->config, error);
    r->engine = r->assembly ? mi_engine_start(r->assembly, NULL, NULL, error) : NULL;
    g_unlink(path);
    return r->engine != NULL;
}

static void started(Run *r, const char *model, const char *const *options)
{
    g_autoptr(GError) error = NULL;
    if (!start(r, model, options, &error))
        fail_msg("%s", error->message);
}

static void stop(Run *r)
{
    if (r->engine)
        mi_engine_stop(r->engine);
    mi_assembly_free(r->assembly);
    mi_config_free(r->config);
    mi_registry_free(r->registry);
}

static void on_event(void *user, const MiEvent *e)
{
    Answer *a = user;

    if (e->type == MI_EVENT_TEXT) {
        g_string_append_len(a->text, e->text, (gssize)e->len);
        for (int i = 0; i < e->n_tokens; i++, a->n++) {
            a->tokens[a->n] = e->tokens[i];
            a->logprobs[a->n] = e->logprobs ? e->logprobs[i] : NAN;
            for (int k = 0; k < MIN(e->n_tops, 3); k++)
                a->tops[a->n][k] = e->tops[i * e->n_tops + k];
        }
        if (a->meeting->count_to && a->n == a->meeting->count_from)
            g_atomic_int_set(&counting, 1);
        if (a->meeting->count_to && a->n == a->meeting->count_to)
            g_atomic_int_set(&counting, 0);
        return;
    }
    if (e->type == MI_EVENT_PROMPT) {
        a->prompt_logprobs[a->n_scored++] = e->logprobs[0];
        return;
    }
    a->done = *e;
    a->error = e->type == MI_EVENT_ERROR ? g_strdup(e->text) : NULL;
    g_mutex_lock(&a->meeting->lock);
    a->meeting->left--;
    g_cond_signal(&a->meeting->cond);
    g_mutex_unlock(&a->meeting->lock);
}

static void prompt(int32_t *tokens, int n, int which)
{
    for (int i = 0; i < n; i++)
        tokens[i] = (int32_t)((i * 37 + which * 101 + i * i * which) % 250);
}

static void wait_all(Meeting *m)
{
    g_mutex_lock(&m->lock);
    while (m->left)
        g_cond_wait(&m->cond, &m->lock);
    g_mutex_unlock(&m->lock);
}

static void answer_clear(Answer *a)
{
    if (a->text)
        g_string_free(a->text, TRUE);
    g_free(a->error);
}

/* Requests first..first+n at once; each has its own prompt, length and seed. */
static void ask(Run *r, Answer *answers, int first, int n, const MiRequest *like)
{
    Meeting m = { .left = n };

    for (int i = 0; i < n; i++) {
        g_autoptr(GError) error = NULL;
        int32_t           tokens[N_PROMPT + 3 * MANY];
        g_autofree char  *seed = g_strdup_printf("%d", 1000 + first + i);
        const MiParam     params[] = { { "seed", seed }, { NULL, NULL } };
        MiRequest         q = like ? *like : (MiRequest){ .max_tokens = N_DRAWN };

        answers[i] = (Answer){ .meeting = &m, .text = g_string_new(NULL) };
        q.n_tokens = (size_t)(N_PROMPT + 3 * (first + i));
        prompt(tokens, (int)q.n_tokens, first + i);
        q.tokens = tokens;
        q.ignore_eos = true;
        q.event = on_event;
        q.user = &answers[i];
        if (r->draws)
            q.params = params;
        if (!r->engine->api->submit(r->engine, &q, &error))
            fail_msg("%s", error->message);
    }
    wait_all(&m);
    for (int i = 0; i < n; i++)
        if (answers[i].error)
            fail_msg("%s", answers[i].error);
}

#define GREEDY "sampler.chain", "greedy"
#define SAMPLED "sampler.chain", "temperature, multinomial", "sampler.temperature", "0.9"

/* Each request alone, nothing kept from step to step. */
static void oracle(Answer *answers, const char *chain[4])
{
    Run r;

    started(&r, "", (const char *[]){ "engine.device", "cpu", "engine.cache", "none", "engine.attention", "simple",
                                      "engine.dtype", "fp32", "backend.cpu.threads", "1", chain[0], chain[1], chain[2], chain[3], NULL });
    for (int i = 0; i < MANY; i++)
        ask(&r, &answers[i], i, 1, NULL);
    stop(&r);
}

static void same(const Answer *a, const Answer *b, const char *what)
{
    for (int i = 0; i < N_DRAWN; i++)
        if (a->n != b->n || a->tokens[i] != b->tokens[i])
            fail_msg("%s: token %d of %d is %d, not %d", what, i, b->n, b->tokens[i], a->tokens[i]);
    assert_string_equal(a->text->str, b->text->str);
}

static void nothing_changes_an_answer(void **state)
{
    (void)state;
    static const char *const ways[][12] = {
        { "engine.cache", "full", "engine.attention", "simple" },
        { "engine.cache", "full", "engine.attention", "gqa" },
        { "engine.cache", "none", "engine.attention", "gqa" },
        { "engine.cache", "batch", "engine.attention", "simple", "engine.max_seqs", "1" },
        { "engine.cache", "batch", "engine.attention", "gqa", "engine.max_seqs", "3" },
        { "engine.cache", "batch", "engine.attention", "gqa", "engine.max_seqs", "8", "engine.prefill_step", "7" },
        { "engine.dtype", "auto", "engine.kv_dtype", "fp32", "engine.cache", "batch", "engine.max_seqs", "6" },
        { "engine.cache", "batch", "engine.attention", "simple", "engine.max_seqs", "5", "engine.prefill_step", "1" },
        { "engine.cache", "batch", "engine.max_seqs", "8", "backend.cpu.threads", "3" },
        { "engine.cache", "none", "engine.max_seqs", "4", "engine.attention", "simple" },
        { "engine.attention", "paged", "cache.paged.bytes", "4 MB" },
        { "engine.attention", "paged", "cache.paged.bytes", "4 MB", "engine.max_seqs", "8", "cache.paged.block_size", "1" },
        { "engine.cache", "paged", "cache.paged.bytes", "4 MB", "engine.max_seqs", "5", "engine.prefill_step", "7" },
    };
    const char *chains[2][4] = { { GREEDY, NULL, NULL }, { SAMPLED } };

    for (int c = 0; c < 2; c++) {
        Answer alone[MANY];
        oracle(alone, chains[c]);
        for (size_t w = 0; w < G_N_ELEMENTS(ways); w++) {
            const char *options[20] = { "engine.dtype", "fp32", chains[c][0], chains[c][1] };
            g_autofree char *what = g_strjoinv(" ", (char **)(uintptr_t)ways[w]);
            int         n = 4;
            Run         r;
            Answer      got[MANY];

            if (chains[c][2])
                options[n++] = chains[c][2], options[n++] = chains[c][3];
            for (int i = 0; ways[w][i]; i++)
                options[n++] = ways[w][i];
            started(&r, "", options);
            ask(&r, got, 0, MANY, NULL);
            for (int i = 0; i < MANY; i++) {
                same(&alone[i], &got[i], what);
                answer_clear(&got[i]);
            }
            stop(&r);
        }
        for (int i = 0; i < MANY; i++)
            answer_clear(&alone[i]);
    }
}

/* Scored at once, a prompt has the log probabilities that its tokens had when drawn. */
static void scores_what_it_drew(void **state)
{
    (void)state;
    Run     r;
    Answer  drawn, scored = { .text = g_string_new(NULL) };
    Meeting m = { .left = 1 };
    int32_t tokens[N_PROMPT + N_DRAWN];

    started(&r, "", (const char *[]){ SAMPLED, "engine.dtype", "fp32", NULL });
    ask(&r, &drawn, 0, 1, &(MiRequest){ .max_tokens = N_DRAWN, .logprobs = 3 });
    prompt(tokens, N_PROMPT, 0);
    memcpy(tokens + N_PROMPT, drawn.tokens, sizeof drawn.tokens[0] * N_DRAWN);
    scored.meeting = &m;
    const MiRequest q = { .tokens = tokens, .n_tokens = N_PROMPT + N_DRAWN, .max_tokens = -1, .prompt_logprobs = true,
                          .logprobs = 1, .event = on_event, .user = &scored };
    assert_true(r.engine->api->submit(r.engine, &q, NULL) != 0);
    wait_all(&m);
    assert_int_equal(scored.n_scored, N_PROMPT + N_DRAWN - 1);
    assert_int_equal(scored.n, 0);
    for (int i = 0; i < N_DRAWN; i++) {
        const float a = drawn.logprobs[i], b = scored.prompt_logprobs[N_PROMPT - 1 + i];
        if (!(fabsf(a - b) < 1e-5f))
            fail_msg("token %d: %f when drawn, %f when scored", i, (double)a, (double)b);
        assert_true(drawn.tops[i][0].logprob >= drawn.tops[i][1].logprob && drawn.tops[i][0].logprob >= a);
    }
    answer_clear(&drawn);
    answer_clear(&scored);
    stop(&r);
}

/* More rows than outputs fit a step, cached or recomputed, alone or beside others: every
 * token of the prompt is scored once, and then the answer is drawn. */
static void scores_in_pieces(void **state)
{
    (void)state;
    static const char *const ways[][9] = {
        { GREEDY, "engine.dtype", "fp32" },
        { GREEDY, "engine.dtype", "fp32", "engine.cache", "none" },
        { GREEDY, "engine.dtype", "fp32", "engine.max_seqs", "3" },
        { GREEDY, "engine.dtype", "fp32", "engine.cache", "none", "engine.max_seqs", "3" },
    };
    Answer first[6], got[6];

    for (size_t w = 0; w < G_N_ELEMENTS(ways); w++) {
        Run r;
        started(&r, "", ways[w]);
        ask(&r, w ? got : first, 2, 6, &(MiRequest){ .max_tokens = 3, .logprobs = 1, .prompt_logprobs = true });
        for (int i = 0; i < 6; i++) {
            const Answer *a = w ? &got[i] : &first[i];
            assert_int_equal(a->n_scored, N_PROMPT + 3 * (2 + i) - 1);
            assert_int_equal(a->n, 3);
            for (int k = 0; k < a->n_scored; k++)
                assert_true(fabsf(a->prompt_logprobs[k] - first[i].prompt_logprobs[k]) < 1e-5f);
            for (int k = 0; k < 3; k++)
                assert_int_equal(a->tokens[k], first[i].tokens[k]);
            if (w)
                answer_clear(&got[i]);
        }
        stop(&r);
    }
    for (int i = 0; i < 6; i++)
        answer_clear(&first[i]);
}

static void ends_where_it_is_told(void **state)
{
    (void)state;
    Run    r;
    Answer free_run, a;

    started(&r, "", (const char *[]){ GREEDY, NULL });
    ask(&r, &free_run, 0, 1, NULL);
    assert_int_equal(free_run.done.finish, MI_FINISH_LENGTH);
    assert_int_equal(free_run.done.n_drawn, N_DRAWN);
    assert_int_equal(free_run.done.n_prompt, N_PROMPT);

    const int32_t id = free_run.tokens[5];
    int           first = 0;
    while (free_run.tokens[first] != id)
        first++;
    ask(&r, &a, 0, 1, &(MiRequest){ .max_tokens = N_DRAWN, .stop_ids = &id, .n_stop_ids = 1 });
    assert_int_equal(a.done.finish, MI_FINISH_STOP);
    assert_int_equal(a.n, first);
    answer_clear(&a);

    /* The answer to a stop string is the text before it, whatever tokens it spans. */
    const char *text = free_run.text->str, *part = g_utf8_offset_to_pointer(text, 6);
    g_autofree char *stop_text = g_strndup(part, (gsize)(g_utf8_offset_to_pointer(part, 2) - part));
    const char *const stops[] = { "not in there", stop_text, NULL };
    if (!strstr(stop_text, "\xef\xbf\xbd")) {
        ask(&r, &a, 0, 1, &(MiRequest){ .max_tokens = N_DRAWN, .stop = stops });
        assert_int_equal(a.done.finish, MI_FINISH_STOP);
        assert_int_equal(a.text->len, strstr(text, stop_text) - text);
        answer_clear(&a);
    }
    answer_clear(&free_run);
    stop(&r);
}

/* With min_tokens, an id that ends the answer is not drawn before its time. */
static void holds_out_for_min_tokens(void **state)
{
    (void)state;
    Run    r;
    Answer free_run, a;

    started(&r, "", (const char *[]){ "sampler.chain", "logit_bias, greedy", NULL });
    ask(&r, &free_run, 0, 1, NULL);
    const int32_t id = free_run.tokens[0];
    ask(&r, &a, 0, 1, &(MiRequest){ .max_tokens = N_DRAWN, .min_tokens = 9, .stop_ids = &id, .n_stop_ids = 1 });
    assert_true(a.n >= 9);
    for (int i = 0; i < a.n; i++)
        assert_int_not_equal(a.tokens[i], id);
    answer_clear(&free_run);
    answer_clear(&a);
    stop(&r);
}

static void refuses(const MiRequest *q, const char *why)
{
    g_autoptr(GError) error = NULL;
    Run               r;

    started(&r, "", (const char *[]){ GREEDY, "engine.max_len", "32", NULL });
    assert_true(r.engine->api->submit(r.engine, q, &error) == 0);
    if (!strstr(error->message, why))
        fail_msg("'%s' does not say '%s'", error->message, why);
    stop(&r);
}

static void refuses_what_cannot_be(void **state)
{
    (void)state;
    const int32_t tokens[40] = { 1, 2, 3, 259 }, low = -1;
    const MiParam params[] = { { "temprature", "1" }, { NULL, NULL } };

    refuses(&(MiRequest){ .tokens = tokens }, "the prompt is empty");
    refuses(&(MiRequest){ .tokens = tokens, .n_tokens = 4 }, "token 3 of the prompt is 259; the model has 0 to 258");
    refuses(&(MiRequest){ .tokens = &low, .n_tokens = 1 }, "token 0 of the prompt is -1");
    refuses(&(MiRequest){ .tokens = tokens, .n_tokens = 32 }, "max_len = 32 leaves room for 31");
    refuses(&(MiRequest){ .tokens = tokens, .n_tokens = 3, .params = params }, "temprature");
    refuses(&(MiRequest){ .tokens = tokens, .n_tokens = 3, .logprobs = 21 }, "0 to 20 are possible");
    refuses(&(MiRequest){ .tokens = tokens, .n_tokens = 3, .min_tokens = 2 }, "logit_bias");
}

static void fails_to_start(const char *model, const char *const *options, const char *why)
{
    g_autoptr(GError) error = NULL;
    Run               r;

    assert_false(start(&r, model, options, &error));
    if (!strstr(error->message, why))
        fail_msg("'%s' does not say '%s'", error->message, why);
    stop(&r);
}

static void names_what_does_not_fit(void **state)
{
    (void)state;
    fails_to_start("", (const char *[]){ "engine.cache", "full", "engine.max_seqs", "2", NULL },
                   "cache 'full' holds one sequence and [engine] max_seqs is 2; these fit");
    fails_to_start("", (const char *[]){ "engine.attention", "gqqa", NULL }, "no attention 'gqqa'");
    fails_to_start("", (const char *[]){ "engine.linear", "blocks", NULL }, "is stored as f32, which linear 'blocks' on " DEVICE
                   " does not read, but q4_0, q4_1, q5_0");
#ifndef MI_TEST_REMOTE
    fails_to_start("", (const char *[]){ "engine.linear", "itn8", NULL }, "did you mean int8?");
#endif
    fails_to_start("", (const char *[]){ "engine.dtype", "bf16", NULL }, "device '" DEVICE "' has no operations in it");
    fails_to_start("", (const char *[]){ "engine.device", "cpu:7", NULL }, "1 usable cpu device");
    fails_to_start("", (const char *[]){ "engine.max_len", "1000", NULL }, "the model goes to 512");
    fails_to_start("", (const char *[]){ "sampler.chain", "greedy, temperature", NULL }, "behind the link that draws");
    fails_to_start("architectures.0 NoSuchModel\n", NULL, "architecture is 'NoSuchModel'; loaded plugins know:");
    fails_to_start("num_hidden_layers 3\nintermediate_size 0\n", NULL, "impossible shape");
}

/* What is shown for each layer is what the packs take, but for the end of each, rounded up. */
static void projections_add_up(const MiPlan *p)
{
    size_t packed = 0, shown = 0, matrices = 0;

    for (int i = 0; i < p->n_lines; i++)
        packed += strcmp(p->lines[i].part, "weights packed") == 0 ? p->lines[i].bytes : 0;
    for (int i = 0; i < p->n_projections; i++) {
        shown += p->projections[i].bytes;
        matrices += (size_t)p->projections[i].n;
        assert_true(i == 0 || (unsigned)p->projections[i - 1].layer <= (unsigned)p->projections[i].layer);
    }
    assert_true(matrices > 0);
    assert_in_range(packed, shown, shown + 256 * matrices);
}

static void takes_what_was_planned(void **state)
{
    (void)state;
    static const char *const ways[][8] = {
        { GREEDY }, { "engine.dtype", "fp32" }, { "engine.max_seqs", "4", "engine.cache", "batch" },
        { "engine.cache", "none" }, { "engine.max_len", "17", "engine.prefill_step", "3" },
#ifndef MI_TEST_REMOTE
        { "engine.linear", "int8" }, { "engine.linear", "int4", "linear.int4.symmetric", "false" },
        { "engine.linear", "int8", "engine.head", "auto" }, { "engine.linear", "int4", "engine.head", "same" },
        { "engine.linear", "fp8" }, { "engine.linear", "int4", "engine.head", "reference" },
#endif
    };
    for (size_t w = 0; w < G_N_ELEMENTS(ways); w++) {
        Run    r;
        Answer a;
        started(&r, "max_position_embeddings 128\n", ways[w]);
        assert_int_equal(mi_engine_allocated(r.engine), mi_assembly_plan(r.assembly)->allocated);
        projections_add_up(mi_assembly_plan(r.assembly));
        if (w != 4) {
            ask(&r, &a, 0, 1, NULL);
            answer_clear(&a);
        }
        assert_int_equal(mi_engine_allocated(r.engine), mi_assembly_plan(r.assembly)->allocated);
        stop(&r);
    }
}

static void allocates_nothing_while_it_decodes(const char *cache)
{
    Run     r;
    Answer  a = { .text = g_string_sized_new(65536) };
    Meeting m = { .left = 1, .count_from = 20, .count_to = 120 };
    int32_t tokens[N_PROMPT];

    started(&r, "", (const char *[]){ "sampler.chain", "penalties, temperature, top_k, top_p, min_p, multinomial",
                                      "sampler.top_k", "40", "sampler.top_p", "0.9", "sampler.repetition_penalty", "1.1",
                                      "backend.cpu.threads", "2", "engine.cache", cache, "cache.paged.bytes", "4MB", NULL });
    a.meeting = &m;
    prompt(tokens, N_PROMPT, 1);
    const MiRequest q = { .tokens = tokens, .n_tokens = N_PROMPT, .max_tokens = 130, .ignore_eos = true,
                          .event = on_event, .user = &a };
    assert_true(r.engine->api->submit(r.engine, &q, NULL) != 0);
    wait_all(&m);
    assert_int_equal(a.n, 130);
    print_message("# cache %s, allocations in 100 decode steps: %d\n", cache, g_atomic_int_get(&allocations));
    assert_int_equal(g_atomic_int_get(&allocations), 0);
    answer_clear(&a);
    stop(&r);
}

static void nobody_allocates_while_decoding(void **state)
{
    (void)state;
    allocates_nothing_while_it_decodes("auto");
    allocates_nothing_while_it_decodes("paged");
}

static MiEngine *counted;
static MiStats   most;

static void on_counted(void *user, const MiEvent *e)
{
    MiStats s;

    counted->api->stats(counted, &s);
    most.running = MAX(most.running, s.running);
    most.waiting = MAX(most.waiting, s.waiting);
    most.kv_used = MAX(most.kv_used, s.kv_used);
    on_event(user, e);
}

static void counts_who_runs_and_waits(void **state)
{
    enum { N = 6 };
    Run      r;
    Answer   a[N];
    Meeting  m = { .left = N };
    MiStats  s = { .running = 1 };
    int32_t  tokens[N_PROMPT];

    (void)state;
    started(&r, "", (const char *[]){ GREEDY, "engine.max_seqs", "2", "engine.max_len", "256", NULL });
    counted = r.engine;
    prompt(tokens, N_PROMPT, 1);
    for (int i = 0; i < N; i++) {
        a[i] = (Answer){ .meeting = &m, .text = g_string_new(NULL) };
        const MiRequest q = { .tokens = tokens, .n_tokens = N_PROMPT, .ignore_eos = true, .max_tokens = 200,
                              .event = on_counted, .user = &a[i] };
        assert_true(r.engine->api->submit(r.engine, &q, NULL) != 0);
    }
    wait_all(&m);
    assert_int_equal(most.running, 2);
    assert_in_range(most.waiting, N - 2, N - 1); /* before the second was taken up, too */
    assert_in_range(most.kv_used, N_PROMPT + 200, 2 * 256);
    for (int i = 0; i < 500 && (s.running || s.waiting || s.kv_used); i++) { /* the last step is still being put away */
        g_usleep(10000);
        r.engine->api->stats(r.engine, &s);
    }
    assert_true(!s.running && !s.waiting && !s.kv_used && s.kv_room > 0);
    for (int i = 0; i < N; i++)
        answer_clear(&a[i]);
    stop(&r);
}

static void cancels_at_once(void **state)
{
    (void)state;
    Run      r;
    Answer   a = { .text = g_string_new(NULL) }, b;
    Meeting  m = { .left = 1 };
    int32_t  tokens[N_PROMPT];

    started(&r, "", (const char *[]){ GREEDY, NULL });
    a.meeting = &m;
    prompt(tokens, N_PROMPT, 1);
    const MiRequest q = { .tokens = tokens, .n_tokens = N_PROMPT, .ignore_eos = true, .event = on_event, .user = &a };
    const uint64_t  id = r.engine->api->submit(r.engine, &q, NULL);
    r.engine->api->cancel(r.engine, id + 7); /* nobody's */
    r.engine->api->cancel(r.engine, id);
    wait_all(&m);
    assert_int_equal(a.done.type, MI_EVENT_DONE);
    assert_int_equal(a.done.finish, MI_FINISH_CANCELLED);
    ask(&r, &b, 0, 1, NULL); /* and the engine lives on */
    assert_int_equal(b.n, N_DRAWN);
    answer_clear(&a);
    answer_clear(&b);
    stop(&r);
}

#ifdef MI_TEST_REMOTE
static int warned;
static GLogWriterOutput count_warnings(GLogLevelFlags level, const GLogField *fields, gsize n, gpointer user)
{
    (void)user, (void)level;
    for (gsize i = 0; i < n; i++)
        if (strcmp(fields[i].key, "MESSAGE") == 0 && strstr(fields[i].value, "op:embed@remote of remote.so cannot be recorded into a graph"))
            warned++;
    return G_LOG_WRITER_HANDLED;
}

static void runs_what_cannot_be_recorded(void **state)
{
    (void)state;
    Run    r;
    Answer alone[MANY], a;

    oracle(alone, (const char *[]){ GREEDY, NULL, NULL });
    g_log_set_writer_func(count_warnings, NULL, NULL);
    remote_no_graphs = true;
    started(&r, "", (const char *[]){ "engine.dtype", "fp32", GREEDY, NULL });
    ask(&r, &a, 0, 1, NULL);
    same(&alone[0], &a, "without graphs");
    assert_int_equal(warned, 1);
    answer_clear(&a);
    for (int i = 0; i < MANY; i++)
        answer_clear(&alone[i]);
    stop(&r);
    remote_no_graphs = false;
}

static void says_how_much_it_needs(void **state)
{
    (void)state;
    remote_bytes = 100000;
    fails_to_start("", NULL, " on device 'remote', where 100.0\302\240kB of 100.0\302\240kB are free; lower [engine] max_len or max_seqs (the cache takes ");
    remote_bytes = (size_t)1 << 40;
}
#define MORE , cmocka_unit_test(runs_what_cannot_be_recorded), cmocka_unit_test(says_how_much_it_needs)
#else
#define MORE
#endif

TEST_MAIN(cmocka_unit_test(nothing_changes_an_answer), cmocka_unit_test(scores_what_it_drew),
          cmocka_unit_test(scores_in_pieces),
          cmocka_unit_test(ends_where_it_is_told), cmocka_unit_test(holds_out_for_min_tokens),
          cmocka_unit_test(refuses_what_cannot_be), cmocka_unit_test(names_what_does_not_fit),
          cmocka_unit_test(takes_what_was_planned), cmocka_unit_test(nobody_allocates_while_decoding),
          cmocka_unit_test(counts_who_runs_and_waits), cmocka_unit_test(cancels_at_once) MORE);
