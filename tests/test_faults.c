/* test_faults.c - a device that fails at one call, at all from one on, or for good.
 *
 * While the engine starts, every call of every kind fails in turn; while it runs, calls
 * drawn at random.  The oracle is what the CPU answers, with every token recomputed:
 * a request gets that, or its beginning and an error, and never waits for ever. */
#include "common.h"
#include "engine.h"
#include "remote.h"

#include <unistd.h>

enum { MANY = 8, N_PROMPT = 11, N_DRAWN = 24, LONG = 1024, HANGS_S = 60 };

/* ---- an engine ------------------------------------------------------------------- */

typedef struct {
    MiRegistry *registry;
    MiConfig   *config;
    MiAssembly *assembly;
    MiEngine   *engine;
} Run;

static char *model; /* a path */

static bool start(Run *r, const char *const *options, GError **error)
{
    static const char *const own[] = { "engine.linear", "reference", "engine.device", "remote", "engine.dtype", "fp32",
                                       "engine.max_len", "256", "engine.prefill_step", "16",
                                       "sampler.chain", "penalties, temperature, multinomial", NULL };

    *r = (Run){ .registry = load((const char *[]){ "tests/plugins/tiny.so", NULL }), .config = mi_config_new() };
    remote_add(r->registry);
    assert_true(mi_config_set(r->config, "model.path", model, error));
    for (const char *const *o = own; *o; o += 2)
        assert_true(mi_config_set(r->config, o[0], o[1], error));
    for (; options && *options; options += 2)
        assert_true(mi_config_set(r->config, options[0], options[1], error));
    r->assembly = mi_assembly_new(r->registry, r->config, error);
    r->engine = r->assembly ? mi_engine_start(r->assembly, NULL, NULL, error) : NULL;
    return r->engine != NULL;
}

/* Whatever happened, nothing of the device is left. */
static void stop(Run *r, const char *what)
{
    if (r->engine)
        mi_engine_stop(r->engine);
    mi_assembly_free(r->assembly);
    mi_config_free(r->config);
    mi_registry_free(r->registry);
    if (remote_left())
        fail_msg("%s: %s", what, remote_left());
}

static void started(Run *r, const char *const *options)
{
    g_autoptr(GError) error = NULL;
    if (!start(r, options, &error))
        fail_msg("%s", error->message);
}

static const char *const eight[] = { "engine.max_seqs", "8", "engine.cache", "batch", NULL };
static const char *const two[] = { "engine.max_seqs", "2", "engine.cache", "batch", NULL };

/* ---- requests ---------------------------------------------------------------------- */

typedef struct {
    GMutex lock;
    GCond  cond;
    int    left; /* requests that are not done */
} Meeting;

typedef struct {
    Meeting *meeting;
    int32_t  tokens[LONG];
    int      n, n_ends;
    char    *error; /* NULL: answered */
    int      code;
} Answer;

static void on_event(void *user, const MiEvent *e)
{
    Answer *a = user;

    for (int i = 0; e->type == MI_EVENT_TEXT && i < e->n_tokens; i++)
        a->tokens[a->n++] = e->tokens[i];
    if (e->type == MI_EVENT_TEXT)
        return;
    a->n_ends++;
    a->error = e->type == MI_EVENT_ERROR ? g_strdup(e->text) : NULL;
    a->code = e->code;
    g_mutex_lock(&a->meeting->lock);
    a->meeting->left--;
    g_cond_signal(&a->meeting->cond);
    g_mutex_unlock(&a->meeting->lock);
}

static void wait_all(Meeting *m, const char *what)
{
    const gint64 end = g_get_monotonic_time() + HANGS_S * G_TIME_SPAN_SECOND;

    g_mutex_lock(&m->lock);
    while (m->left)
        if (!g_cond_wait_until(&m->cond, &m->lock, end))
            fail_msg("%s: %d requests hang", what, m->left);
    g_mutex_unlock(&m->lock);
}

static void clear(Answer *answers, int n)
{
    for (int i = 0; i < n; i++)
        g_clear_pointer(&answers[i].error, g_free);
}

static uint64_t submit(MiEngine *engine, Answer *a, int which, int max_tokens, GError **error)
{
    int32_t          tokens[N_PROMPT + 3 * MANY];
    const int        n = N_PROMPT + 3 * which;
    g_autofree char *seed = g_strdup_printf("%d", 1000 + which);
    g_autofree char *heat = g_strdup_printf("0.%d", which == 6 ? 0 : 2 + which);
    const MiParam    params[] = { { "seed", seed }, { "temperature", heat }, { NULL, NULL } };

    for (int i = 0; i < n; i++)
        tokens[i] = (i * 37 + which * 101 + i * i * which) % 250;
    return engine->api->submit(engine, &(MiRequest){ .tokens = tokens, .n_tokens = (size_t)n, .max_tokens = max_tokens,
                                                     .params = params,
                                                     .ignore_eos = true, .event = on_event, .user = a }, error);
}

/* Requests first..first+n at once.  One that is refused at once ends with that error. */
static void ask(Run *r, Answer *answers, int first, int n, const char *what)
{
    Meeting m = { .left = n };

    for (int i = 0; i < n; i++) {
        g_autoptr(GError) error = NULL;
        answers[i] = (Answer){ .meeting = &m };
        if (submit(r->engine, &answers[i], first + i, N_DRAWN, &error))
            continue;
        answers[i].error = g_strdup(error->message);
        answers[i].code = error->code;
        answers[i].n_ends++;
        g_mutex_lock(&m.lock);
        m.left--;
        g_mutex_unlock(&m.lock);
    }
    wait_all(&m, what);
}

static Answer right[MANY];

/* Its tokens, or the first of them and an error; how many had an error. */
static int judge(const Answer *answers, int first, int n, const char *what)
{
    int errors = 0;

    for (int i = 0; i < n; i++) {
        const Answer *a = &answers[i], *b = &right[first + i];
        assert_int_equal(a->n_ends, 1);
        errors += a->error != NULL;
        if (a->n > b->n || (!a->error && a->n != b->n))
            fail_msg("%s: request %d has %d tokens, not %d", what, first + i, a->n, b->n);
        if (memcmp(a->tokens, b->tokens, (size_t)a->n * sizeof *a->tokens) != 0)
            fail_msg("%s: request %d: a wrong token", what, first + i);
        if (a->error && (!*a->error || strchr(a->error, '\n')))
            fail_msg("%s: '%s' is not one line", what, a->error);
    }
    return errors;
}

static int oracle(void **state)
{
    GError *error = NULL;
    Run     r;
    int     fd = g_file_open_tmp("miniinfer-XXXXXX.tiny", &model, &error);

    (void)state;
    assert_true(fd >= 0 && g_file_set_contents(model, "tiny\nmax_position_embeddings 2048\n", -1, NULL));
    close(fd);
    started(&r, (const char *[]){ "engine.device", "cpu", "engine.cache", "none", "engine.attention", "simple",
                                  "backend.cpu.threads", "1", NULL });
    for (int i = 0; i < MANY; i++) {
        ask(&r, &right[i], i, 1, "the oracle");
        assert_true(!right[i].error && right[i].n == N_DRAWN);
    }
    stop(&r, "the oracle");
    return 0;
}

static int done(void **state)
{
    (void)state;
    unlink(model);
    g_free(model);
    return 0;
}

/* ---- starting ------------------------------------------------------------------------ */

/* True: the call failed; else there are fewer. */
static bool start_with(RemoteCall call, long n, RemoteHow how, int code)
{
    g_autofree char  *what = g_strdup_printf("start, %s %ld, how %d", remote_names[call], n, how);
    g_autoptr(GError) error = NULL;
    Run               r;

    remote_fail(call, n, how, code);
    const bool ok = start(&r, two, &error), failed = remote_failed();
    if (ok == failed)
        fail_msg("%s: %s", what, ok ? "it starts all the same" : error->message);
    if (failed && (!error || !*error->message || strchr(error->message, '\n') || error->domain != MI_ERROR ||
                   error->code != (how == REMOTE_LOST ? MI_ERROR_DEVICE : code)))
        fail_msg("%s: '%s' is not one line, or has another code", what, error ? error->message : "(nothing)");
    if (failed && code == MI_ERROR_NO_MEMORY &&
        (!strstr(error->message, " bytes of ") || (!strstr(error->message, "are free") && !strstr(error->message, "pinned"))))
        fail_msg("%s: '%s' does not say what is free", what, error->message);
    stop(&r, what);
    remote_fail(0, 0, REMOTE_ONCE, 0);
    return failed;
}

static void every_call_of_a_start_fails(void **state)
{
    (void)state;
    remote_late_us = 0; /* hundreds of starts */
    static const RemoteCall calls[] = { REMOTE_OPEN, REMOTE_MEMORY, REMOTE_ALLOC, REMOTE_STREAM, REMOTE_EVENT,
                                        REMOTE_COPY, REMOTE_RECORD, REMOTE_WAIT, REMOTE_PREPARE, REMOTE_WORK };
    int total = 0;

    for (size_t c = 0; c < G_N_ELEMENTS(calls); c++)
        for (int how = REMOTE_ONCE; how <= REMOTE_LOST; how += REMOTE_LOST - REMOTE_ONCE) {
            long n = 1;
            while (start_with(calls[c], n, (RemoteHow)how, MI_ERROR_DEVICE))
                n += n < 24 ? 1 : 7; /* prepare has hundreds, all alike */
            assert_true(n > 1);
            total += (int)n - 1;
        }
    print_message("# calls that failed: %d\n", total);
    Run    r;
    Answer a;
    started(&r, two);
    ask(&r, &a, 3, 1, "a later start");
    assert_int_equal(judge(&a, 3, 1, "a later start"), 0);
    stop(&r, "a later start");
}

static void no_memory_says_how_much_there_is(void **state)
{
    (void)state;
    int n = 0;

    for (long i = 1; start_with(REMOTE_ALLOC, i, REMOTE_ONCE, MI_ERROR_NO_MEMORY) || i < 3; i++)
        n++;
    assert_true(n > 10);
}

/* ---- running --------------------------------------------------------------------------- */

typedef struct {
    RemoteCall call;
    long       n;
    RemoteHow  how;
    int        code;
} Fault;

/* calls: how many there are in a run in which nothing fails. */
static Fault draw(GRand *random, const long *calls)
{
    Fault f = { .how = (RemoteHow)g_rand_int_range(random, 0, 3), .code = MI_ERROR_DEVICE };

    do
        f.call = (RemoteCall)g_rand_int_range(random, REMOTE_ALLOC, REMOTE_N);
    while (!calls[f.call]);
    f.n = g_rand_int_range(random, 1, (gint32)calls[f.call] + 1);
    if ((f.call == REMOTE_PREPARE || f.call == REMOTE_RUN) && f.how != REMOTE_LOST && g_rand_boolean(random))
        f.code = MI_ERROR_UNSUPPORTED;
    if (f.call == REMOTE_ALLOC || (f.call == REMOTE_END && g_rand_boolean(random)))
        f.code = MI_ERROR_NO_MEMORY;
    return f;
}

static void count_calls(long *calls)
{
    Answer a[MANY];
    Run    r;

    started(&r, eight);
    remote_fail(0, 0, REMOTE_ONCE, 0);
    ask(&r, a, 0, MANY, "counted");
    assert_int_equal(judge(a, 0, MANY, "counted"), 0);
    for (int i = 0; i < REMOTE_N; i++)
        calls[i] = remote_calls((RemoteCall)i);
    stop(&r, "counted");
}

/* After the device failed nothing is answered; after anything else all is, and rightly. */
static void afterwards(Run *r, bool dead, const char *what)
{
    Answer a[MANY];

    ask(r, a, 0, MANY, what);
    const int errors = judge(a, 0, MANY, what);
    if (errors != (dead ? MANY : 0))
        fail_msg("%s: then %d of %d have an error: %s", what, errors, MANY, a[0].error ? a[0].error : "not the first");
    for (int i = 0; i < MANY && dead; i++)
        if (a[i].code != MI_ERROR_DEVICE || !strstr(a[i].error, "remote: "))
            fail_msg("%s: '%s', code %d, does not say why", what, a[i].error, a[i].code);
    clear(a, MANY);
}

static void random_calls_of_a_run_fail(void **state)
{
    (void)state;
    GRand *random = g_rand_new_with_seed(4);
    int    failed = 0, answered = 0, dead = 0;
    long   calls[REMOTE_N];

    count_calls(calls);
    for (int i = 0; i < 200; i++) {
        const Fault      f = draw(random, calls);
        g_autofree char *what = g_strdup_printf("fault %d: %s %ld, how %d, code %d", i, remote_names[f.call], f.n, f.how,
                                                f.code);
        Answer           a[MANY];
        Run              r;
        bool             died = false;

        started(&r, eight);
        remote_fail(f.call, f.n, f.how, f.code);
        ask(&r, a, 0, MANY, what);
        const int  errors = judge(a, 0, MANY, what);
        const bool hit = remote_failed();
        for (int k = 0; k < MANY; k++)
            died = died || (a[k].error && a[k].code == MI_ERROR_DEVICE);
        if (errors && !hit)
            fail_msg("%s: nothing failed, and %d requests did: %s", what, errors, a[0].error ? a[0].error : "");
        if (f.how != REMOTE_LOST && f.call != REMOTE_WORK) /* a recording may fail again, and a refusal is over */
            remote_fail(0, 0, REMOTE_ONCE, 0);
        if (hit && (died || f.how != REMOTE_LOST))
            afterwards(&r, died, what);
        failed += hit;
        answered += MANY - errors;
        dead += died;
        clear(a, MANY);
        stop(&r, what);
        remote_fail(0, 0, REMOTE_ONCE, 0);
    }
    print_message("# of 200 faults %d took place, %d ended the engine; %d of %d requests were answered\n", failed, dead,
                  answered, 200 * MANY);
    assert_true(failed > 150 && dead > 60 && failed - dead > 10 && answered > 200);
    g_rand_free(random);
}

/* What is copied for a step that then fails must be copied again. */
static void a_refusal_loses_nothing(void **state)
{
    (void)state;
    remote_late_us = 1;
    int refused = 0;

    for (long n = 1; n < 200; n += n < 8 ? 1 : 13)
        for (int call = REMOTE_PREPARE; call <= REMOTE_RUN; call++) {
            g_autofree char *what = g_strdup_printf("refused: %s %ld", remote_names[call], n);
            Answer           a[MANY];
            Run              r;

            started(&r, eight);
            remote_fail((RemoteCall)call, n, REMOTE_ONCE, MI_ERROR_UNSUPPORTED);
            ask(&r, a, 0, 3, what);
            const int errors = judge(a, 0, 3, what); /* none where a recording failed: the step ran node by node */
            assert_true(!errors || remote_failed());
            refused += errors;
            clear(a, 3);
            remote_fail(0, 0, REMOTE_ONCE, 0);
            ask(&r, a, 0, 3, what);
            assert_int_equal(judge(a, 0, 3, what), 0);
            afterwards(&r, false, what);
            stop(&r, what);
        }
    assert_true(refused > 20);
}

/* ---- nothing is kept, nothing is waited for ------------------------------------------------ */

static void twenty_rounds_leave_nothing(void **state)
{
    (void)state;
    for (int i = 0; i < 20; i++) {
        Answer a[MANY];
        Run    r;

        started(&r, eight);
        assert_non_null(remote_left());
        ask(&r, a, 0, MANY, "a round");
        assert_int_equal(judge(a, 0, MANY, "a round"), 0);
        stop(&r, "a round"); /* fails if something is left */
    }
}

static void a_thousand_steps_only_launch(void **state)
{
    (void)state;
    Meeting m = { .left = 1 };
    Answer  a = { .meeting = &m };
    Run     r;

    started(&r, (const char *[]){ "engine.max_len", "1100", "sampler.chain", "greedy", NULL });
    remote_fail(0, 0, REMOTE_ONCE, 0);
    assert_true(r.engine->api->submit(r.engine, &(MiRequest){ .tokens = (const int32_t[]){ 3, 14, 15 }, .n_tokens = 3,
                                                              .max_tokens = 1001, .ignore_eos = true, .event = on_event,
                                                              .user = &a }, NULL) != 0);
    wait_all(&m, "a thousand steps");
    assert_int_equal(a.n, 1001);
    const long steps = a.n; /* the prompt's, and 1,000 that decode: each draws one */
    print_message("# %ld steps: %ld waits, %ld replays, %ld recordings, %ld allocations\n", steps, remote_calls(REMOTE_WAIT),
                  remote_calls(REMOTE_REPLAY), remote_calls(REMOTE_BEGIN), remote_calls(REMOTE_ALLOC));
    assert_int_equal(remote_calls(REMOTE_WAIT), steps);
    assert_int_equal(remote_calls(REMOTE_ALLOC), 0);
    assert_int_equal(remote_calls(REMOTE_EVENT), 0);
    assert_int_equal(remote_calls(REMOTE_COPY), 0); /* the one piece of all copies it is */
    assert_int_equal(remote_calls(REMOTE_BEGIN), 6); /* positions up to 256, 512, 1100 for each flight */
    assert_int_equal(remote_calls(REMOTE_REPLAY), 1000);
    assert_true(remote_calls(REMOTE_COPY_ALL) < 5); /* else they are part of what is replayed */
    stop(&r, "a thousand steps");
}

/* Nothing is made for a request that asks for nothing special; the second recording of steps under way is. */
static void what_was_rehearsed_is_there(void **state)
{
    (void)state;
    Answer a[MANY];
    Run    r;

    started(&r, (const char *[]){ "engine.max_seqs", "8", "engine.cache", "batch", "engine.max_len", "256", "engine.rehearse", "true", NULL });
    assert_true(remote_calls(REMOTE_BEGIN) > 8); /* sizes 1, 2, 4, 8, a flight each, and prompts */
    remote_fail(0, 0, REMOTE_ONCE, 0);
    ask(&r, a, 0, MANY, "rehearsed");
    assert_int_equal(judge(a, 0, MANY, "rehearsed"), 0);
    assert_int_equal(remote_calls(REMOTE_PREPARE), 0);
    assert_true(remote_calls(REMOTE_BEGIN) <= 8);
    stop(&r, "rehearsed");
}

/* ---- what cannot be recorded ------------------------------------------------------------------ */

static int accused, others;
static GLogWriterOutput count_lines(GLogLevelFlags level, const GLogField *fields, gsize n, gpointer user)
{
    (void)user, (void)level;
    for (gsize i = 0; i < n; i++)
        if (strcmp(fields[i].key, "MESSAGE") == 0) {
            const bool mine = strstr(fields[i].value, "op:silu@remote of remote.so cannot be recorded") != NULL;
            accused += mine;
            others += !mine;
        }
    return G_LOG_WRITER_HANDLED;
}

static void names_what_cannot_be_recorded(void **state)
{
    (void)state;
    Answer a[MANY];
    Run    r;

    g_log_set_writer_func(count_lines, NULL, NULL);
    remote_no_record = "silu";
    started(&r, eight);
    for (int n = 1; n <= MANY; n += 2) { /* several buckets have it */
        ask(&r, a, 0, n, "not recorded");
        assert_int_equal(judge(a, 0, n, "not recorded"), 0);
    }
    remote_no_record = NULL;
    assert_int_equal(accused, 1);
    assert_int_equal(others, 0);
    stop(&r, "not recorded");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_call_of_a_start_fails), cmocka_unit_test(no_memory_says_how_much_there_is),
        cmocka_unit_test(a_refusal_loses_nothing), cmocka_unit_test(random_calls_of_a_run_fail),
        cmocka_unit_test(twenty_rounds_leave_nothing), cmocka_unit_test(a_thousand_steps_only_launch),
        cmocka_unit_test(what_was_rehearsed_is_there), cmocka_unit_test(names_what_cannot_be_recorded),
    };
    return cmocka_run_group_tests(tests, oracle, done);
}
