/* Requests through libminiinfer: every way to an answer, many at once, stopping, callbacks that call back.
 * Answers are compared with those of an engine that has one sequence at a time. */
#include "library.h"

/* ---- one request, every way ------------------------------------------------------------- */
typedef struct {
    Said   said;
    size_t len;
    int    done, texts, stop_after;
    char   finish;
} Heard;

static bool hear(void *user, const MiniinferEvent *e)
{
    Heard *h = user;

    assert_false(h->done);
    if (e->type == MINIINFER_TEXT) {
        assert_int_equal(strlen(e->tokens.text), e->tokens.len);
        memcpy(h->said.text + h->len, e->tokens.text, e->tokens.len + 1);
        h->len += e->tokens.len;
        for (size_t i = 0; i < e->tokens.n_ids; i++)
            h->said.ids[h->said.n++] = e->tokens.ids[i];
        h->texts++;
    }
    if (e->type == MINIINFER_DONE) {
        const Said whole = said(e->result);
        same(&h->said, &whole);
        assert_int_equal(e->result->n_drawn, h->said.n);
        h->finish = (char)e->result->finish;
        h->done++;
    }
    return !h->stop_after || h->texts < h->stop_after;
}

static void callback_iterator_and_batch_agree(void **state)
{
    (void)state;
    Miniinfer            *mi = loaded("silu", "1");
    MiniinferError        error;
    Heard                 called = { 0 }, iterated = { 0 };
    const MiniinferEvent *e;

    for (int i = 0; i < 3; i++) {
        const MiniinferRequest r = asked(i, TOKENS);
        MiniinferAnswer       *a;
        called = iterated = (Heard){ 0 };
        fine(miniinfer_generate(mi, &r, hear, &called, &error), &error);
        assert_int_equal(called.done, 1);
        assert_int_equal(called.finish, MINIINFER_LENGTH);
        same(&called.said, alone("silu", i));
        fine((a = miniinfer_submit(mi, &r, &error)), &error);
        while ((e = miniinfer_next(a, -1)))
            hear(&iterated, e);
        assert_int_equal(iterated.done, 1);
        assert_null(miniinfer_next(a, -1)); /* after DONE, without waiting */
        same(&iterated.said, alone("silu", i));
        miniinfer_release(a);
        fine(miniinfer_batch(mi, &r, 1, &a, NULL, NULL, &error), &error);
        const Said batched = said(miniinfer_wait(a, 0));
        same(&batched, alone("silu", i));
        miniinfer_release(a);
    }
    miniinfer_close(mi);
}

/* The chosen token's log probability is the first of the likeliest, where the chain is greedy, and no probability is above 1. */
static void log_probabilities(void **state)
{
    (void)state;
    Miniinfer       *mi = loaded("silu", "2");
    MiniinferError   error;
    MiniinferRequest r = asked(0, 5);

    r.logprobs = 3, r.prompt_logprobs = true;
    MiniinferAnswer *a = miniinfer_submit(mi, &r, &error);
    fine(a, &error);
    const MiniinferResult *whole = miniinfer_wait(a, -1);
    assert_int_equal(whole->answer.n_ids, 5);
    assert_int_equal(whole->answer.n_tops, 3);
    for (size_t i = 0; i < 5; i++) {
        const MiniinferTop *top = &whole->answer.tops[i * 3];
        assert_int_equal(top->id, whole->answer.ids[i]);
        assert_true(top->logprob == whole->answer.logprobs[i] && top[0].logprob >= top[1].logprob && top->logprob <= 0);
    }
    assert_int_equal(whole->prompt.n_ids, r.n_ids - 1);
    assert_memory_equal(whole->prompt.ids, r.ids + 1, (r.n_ids - 1) * sizeof *r.ids);
    assert_non_null(whole->prompt.logprobs);
    /* The events, one after the other, are the same. */
    size_t n[2] = { 0, 0 };
    for (const MiniinferEvent *e; (e = miniinfer_next(a, -1)) && e->type != MINIINFER_DONE;) {
        const int              k = e->type == MINIINFER_PROMPT;
        const MiniinferTokens *all = k ? &whole->prompt : &whole->answer;
        assert_memory_equal(e->tokens.logprobs, all->logprobs + n[k], e->tokens.n_ids * sizeof(float));
        assert_memory_equal(e->tokens.tops, all->tops + 3 * n[k], e->tokens.n_ids * 3 * sizeof(MiniinferTop));
        n[k] += e->tokens.n_ids;
    }
    assert_int_equal(n[0], 5);
    assert_int_equal(n[1], r.n_ids - 1);
    miniinfer_release(a);
    miniinfer_close(mi);
}

static void parameters_of_a_request(void **state)
{
    (void)state;
    MiniinferError error;
    char           path[512];
    Said           s[3];

    snprintf(path, sizeof path, "%s/silu", folder);
    Miniinfer *mi = opened((MiniinferPair[]){ { "model", path }, { "seed", "3" }, { "max-tokens", "12" }, { NULL, NULL } });
    fine(miniinfer_load(mi, NULL, NULL, &error), &error);
    for (int i = 0; i < 3; i++) {
        MiniinferRequest r = asked(0, 0);
        r.params = (MiniinferPair[]){ { "seed", i == 1 ? "4" : "3" }, { NULL, NULL } };
        if (i == 2)
            r.params = NULL; /* the configuration's seed */
        s[i] = answer(mi, &r);
        assert_int_equal(s[i].n, 12); /* the configuration's */
    }
    same(&s[0], &s[2]);
    assert_memory_not_equal(s[0].ids, s[1].ids, 12 * sizeof(int32_t));
    MiniinferRequest r = asked(0, 5);
    r.params = (MiniinferPair[]){ { "temperatur", "1" }, { NULL, NULL } };
    refused(miniinfer_submit(mi, &r, &error), &error, MINIINFER_ERROR_CONFIG, "temperatur");
    r.params = (MiniinferPair[]){ { "temperature", "hot" }, { NULL, NULL } };
    refused(miniinfer_submit(mi, &r, &error), &error, MINIINFER_ERROR_CONFIG, "hot");
    r.params = NULL;
    r.n_ids = 0;
    refused(miniinfer_submit(mi, &r, &error), &error, MINIINFER_ERROR_CONFIG, "empty");
    r.text = "both";
    refused(miniinfer_submit(mi, &r, &error), &error, MINIINFER_ERROR_MISUSE, "one of text, ids and messages");
    r.struct_size = 0;
    refused(miniinfer_submit(mi, &r, &error), &error, MINIINFER_ERROR_MISUSE, "struct_size");
    miniinfer_close(mi);
}

/* Of a program that was compiled with other headers. */
static void structs_of_other_versions(void **state)
{
    (void)state;
    Miniinfer       *mi = loaded("silu", "1");
    MiniinferError   error;
    struct { MiniinferRequest r; void *later; } newer = { asked(0, TOKENS), NULL };
    MiniinferStats   stats = { .struct_size = offsetof(MiniinferStats, requests), .steps = 77 };

    newer.r.struct_size = sizeof newer;
    const Said s = answer(mi, &newer.r);
    same(&s, alone("silu", 0));
    newer.later = &newer;
    refused(miniinfer_submit(mi, &newer.r, &error), &error, MINIINFER_ERROR_MISUSE, "newer libminiinfer");
    MiniinferRequest older = asked(0, 0); /* knows nothing of max_tokens and what follows */
    older.struct_size = offsetof(MiniinferRequest, max_tokens);
    older.max_tokens = 1;
    MiniinferAnswer *a = miniinfer_submit(mi, &older, &error);
    fine(a, &error);
    assert_int_not_equal(miniinfer_wait(a, -1)->n_drawn, 1);
    miniinfer_release(a);
    assert_true(miniinfer_stats(mi, &stats));
    assert_int_equal(stats.steps, 77);
    miniinfer_close(mi);
}

/* ---- several at once ------------------------------------------------------------------------ */
typedef struct {
    Miniinfer  *mi;
    const char *model;
    int         first;
    bool        ok;
} Worker;

static void *work(void *arg)
{
    Worker *w = arg;

    w->ok = true;
    for (int round = 0; round < 3; round++) {
        MiniinferAnswer *a[6];
        for (int i = 0; i < 6; i++) {
            const MiniinferRequest r = asked(w->first + i, TOKENS);
            a[i] = miniinfer_submit(w->mi, &r, NULL);
        }
        for (int i = 5; i >= 0; i--) {
            const Said             *want = alone(w->model, w->first + i);
            const MiniinferResult  *r = miniinfer_wait(a[i], -1);
            w->ok = w->ok && r && r->code == MINIINFER_OK && r->answer.n_ids == want->n &&
                    memcmp(r->answer.ids, want->ids, want->n * sizeof *want->ids) == 0;
            miniinfer_release(a[i]);
        }
    }
    return NULL;
}

static void four_threads_submit(void **state)
{
    (void)state;
    Miniinfer *mi = loaded("silu", "4");
    pthread_t  thread[4];
    Worker     w[4];

    alone("silu", 0);
    for (int i = 0; i < 4; i++) {
        w[i] = (Worker){ mi, "silu", 6 * i, false };
        assert_int_equal(pthread_create(&thread[i], NULL, work, &w[i]), 0);
    }
    for (int i = 0; i < 4; i++)
        pthread_join(thread[i], NULL);
    for (int i = 0; i < 4; i++)
        assert_true(w[i].ok);
    MiniinferStats stats = { .struct_size = sizeof stats };
    assert_true(miniinfer_stats(mi, &stats));
    assert_int_equal(stats.requests, 4 * 3 * 6);
    miniinfer_close(mi);
}

static void two_engines_at_once(void **state)
{
    (void)state;
    static const char *const models[] = { "silu", "tanh" };
    pthread_t thread[2];
    Worker    w[2];

    assert_memory_not_equal(alone("silu", 0)->ids, alone("tanh", 0)->ids, TOKENS * sizeof(int32_t));
    for (int i = 0; i < 2; i++) {
        w[i] = (Worker){ loaded(models[i], i ? "1" : "3"), models[i], 5 * i, false };
        assert_int_equal(pthread_create(&thread[i], NULL, work, &w[i]), 0);
    }
    for (int i = 0; i < 2; i++)
        pthread_join(thread[i], NULL);
    assert_string_equal(miniinfer_model(w[0].mi)->name, "silu");
    assert_true(miniinfer_close(w[0].mi));
    const MiniinferRequest r = asked(3, TOKENS);
    const Said             s = answer(w[1].mi, &r); /* the other goes on */
    same(&s, alone("tanh", 3));
    miniinfer_close(w[1].mi);
    assert_true(w[0].ok && w[1].ok);
}

typedef struct { size_t seen[PROMPTS], n, stop_after; } Finished;

static bool note(void *user, size_t i, const MiniinferResult *r)
{
    Finished *f = user;

    assert_non_null(r);
    f->seen[i]++;
    return ++f->n != f->stop_after;
}

static void batches_are_in_order(void **state)
{
    (void)state;
    Miniinfer       *mi = loaded("silu", "3");
    MiniinferRequest r[PROMPTS];
    MiniinferAnswer *a[PROMPTS];
    MiniinferError   error;
    Finished         f = { { 0 }, 0, 0 };

    for (int i = 0; i < PROMPTS; i++)
        r[i] = asked(i, TOKENS - i % 7); /* they end at different times */
    fine(miniinfer_batch(mi, r, PROMPTS, a, note, &f, &error), &error);
    for (int i = 0; i < PROMPTS; i++) {
        const MiniinferResult *one = miniinfer_wait(a[i], 0);
        assert_int_equal(f.seen[i], 1);
        assert_int_equal(one->answer.n_ids, TOKENS - i % 7);
        assert_memory_equal(one->answer.ids, alone("silu", i)->ids, one->answer.n_ids * sizeof(int32_t));
        miniinfer_release(a[i]);
    }
    /* One that is wrong is its own affair. */
    const int32_t wrong[] = { 5, 96 };
    r[2].ids = wrong, r[2].n_ids = 2;
    refused(miniinfer_batch(mi, r, 5, a, NULL, NULL, &error), &error, MINIINFER_ERROR_CONFIG, "request 2: token 1");
    for (int i = 0; i < 5; i++) {
        assert_int_equal(miniinfer_wait(a[i], 0)->code, i == 2 ? MINIINFER_ERROR_CONFIG : MINIINFER_OK);
        assert_int_equal(miniinfer_wait(a[i], 0)->answer.n_ids, i == 2 ? 0 : TOKENS - i % 7);
        miniinfer_release(a[i]);
    }
    /* Stopped after the fourth: all have an answer, most of them none to speak of. */
    r[2] = asked(2, TOKENS);
    for (int i = 4; i < PROMPTS; i++)
        r[i] = asked_long(i);
    f = (Finished){ .stop_after = 4 };
    fine(miniinfer_batch(mi, r, PROMPTS, a, note, &f, &error), &error);
    assert_int_equal(f.n, PROMPTS);
    for (int i = 0; i < PROMPTS; i++) {
        if (i >= 4)
            assert_int_equal(miniinfer_wait(a[i], 0)->finish, MINIINFER_CANCELLED);
        miniinfer_release(a[i]);
    }
    fine(miniinfer_batch(mi, r, 0, a, NULL, NULL, &error), &error);
    miniinfer_close(mi);
}

/* ---- stopping ---------------------------------------------------------------------------------- */
static int running(Miniinfer *mi)
{
    MiniinferStats s = { .struct_size = sizeof s };

    assert_true(miniinfer_stats(mi, &s));
    return s.running + s.waiting;
}

static void until_idle(Miniinfer *mi)
{
    for (int i = 0; i < 5000 && running(mi); i++)
        nanosleep(&(struct timespec){ 0, 1000000 }, NULL);
    assert_int_equal(running(mi), 0);
}

static void cancelled_in_the_middle(void **state)
{
    (void)state;
    Miniinfer             *mi = loaded("silu", "2");
    MiniinferError         error;
    const MiniinferRequest r = asked_long(1), other = asked(2, TOKENS);
    MiniinferAnswer       *a = miniinfer_submit(mi, &r, &error);
    const MiniinferEvent  *e;
    Heard                  h = { .stop_after = 3 };

    assert_null(miniinfer_wait(a, 0));
    for (size_t n = 0; n < 5; n += e->tokens.n_ids)
        assert_non_null(e = miniinfer_next(a, -1));
    miniinfer_cancel(a);
    const MiniinferResult *whole = miniinfer_wait(a, -1);
    assert_int_equal(whole->finish, MINIINFER_CANCELLED);
    assert_int_equal(whole->code, MINIINFER_OK);
    assert_in_range(whole->n_drawn, 5, 8999);
    assert_memory_equal(whole->answer.ids, alone("silu", 1)->ids, 5 * sizeof(int32_t));
    miniinfer_cancel(a); /* of what is done */
    miniinfer_release(a);
    fine(miniinfer_generate(mi, &r, hear, &h, &error), &error);
    assert_int_equal(h.finish, MINIINFER_CANCELLED);
    const Said s = answer(mi, &other);
    same(&s, alone("silu", 2));
    until_idle(mi);
    miniinfer_close(mi);
}

static void abandoned_halfway(void **state)
{
    (void)state;
    Miniinfer             *mi = loaded("silu", "2");
    const MiniinferRequest r = asked_long(1), other = asked(2, TOKENS);

    for (int i = 0; i < 8; i++) {
        MiniinferAnswer *a = miniinfer_submit(mi, &r, NULL);
        assert_non_null(a);
        for (int k = 0; k < i; k++)
            assert_non_null(miniinfer_next(a, -1));
        miniinfer_release(a);
    }
    const Said s = answer(mi, &other);
    same(&s, alone("silu", 2));
    until_idle(mi);
    miniinfer_release(miniinfer_submit(mi, &r, NULL)); /* and closed at once */
    miniinfer_close(mi);
}

static void *wait_for_it(void *answer)
{
    return (void *)(uintptr_t)miniinfer_wait(answer, -1);
}

static void *generate_it(void *arg)
{
    const MiniinferRequest r = asked_long(4);
    static MiniinferError  error;
    Worker                *w = arg;

    w->ok = miniinfer_generate(w->mi, &r, NULL, NULL, &error);
    return NULL;
}

static void closed_while_requests_run(void **state)
{
    (void)state;
    Miniinfer             *mi = loaded("silu", "2");
    const MiniinferRequest r = asked_long(1);
    MiniinferAnswer       *a[5];
    pthread_t              thread[2];
    Worker                 w = { .mi = mi };
    void                  *result;

    for (int i = 0; i < 5; i++)
        assert_non_null(a[i] = miniinfer_submit(mi, &r, NULL));
    assert_int_equal(pthread_create(&thread[0], NULL, wait_for_it, a[3]), 0);
    assert_int_equal(pthread_create(&thread[1], NULL, generate_it, &w), 0);
    const MiniinferEvent *first = miniinfer_next(a[0], -1);
    const size_t          seen = first->tokens.n_ids;
    while (running(mi) < 6)
        nanosleep(&(struct timespec){ 0, 100000 }, NULL);
    assert_true(miniinfer_close(mi));
    pthread_join(thread[0], &result);
    pthread_join(thread[1], NULL);
    assert_true(w.ok);
    assert_int_equal(((const MiniinferResult *)result)->finish, MINIINFER_CANCELLED);
    for (int i = 0; i < 5; i++) { /* the engine is gone, the answers are not */
        const MiniinferEvent *e = NULL;
        size_t                n = i ? 0 : seen;
        while ((e = miniinfer_next(a[i], -1)) && e->type != MINIINFER_DONE)
            n += e->tokens.n_ids;
        assert_non_null(e);
        assert_int_equal(e->result->finish, MINIINFER_CANCELLED);
        assert_int_equal(e->result->answer.n_ids, n);
        miniinfer_cancel(a[i]);
        miniinfer_release(a[i]);
    }
}

static void a_timeout_is_no_end(void **state)
{
    (void)state;
    Miniinfer             *mi = loaded("silu", "1");
    const MiniinferRequest r = asked_long(1);
    MiniinferAnswer       *first = miniinfer_submit(mi, &r, NULL), *second = miniinfer_submit(mi, &r, NULL);
    struct timespec        t0, t1;

    clock_gettime(CLOCK_MONOTONIC, &t0);
    assert_null(miniinfer_next(second, 20)); /* it waits for its turn */
    assert_null(miniinfer_wait(second, 20));
    clock_gettime(CLOCK_MONOTONIC, &t1);
    assert_true((t1.tv_sec - t0.tv_sec) * 1000 + (t1.tv_nsec - t0.tv_nsec) / 1000000 >= 39);
    miniinfer_release(first);
    assert_non_null(miniinfer_next(second, -1));
    miniinfer_release(second);
    miniinfer_close(mi);
}

/* ---- callbacks that call back --------------------------------------------------------------------- */
typedef struct {
    Miniinfer *mi;
    int        inner, depth;
} Nested;

static bool ask_again(void *user, const MiniinferEvent *e)
{
    Nested                *n = user;
    const MiniinferRequest r = asked(5, 4);
    int32_t                ids[8];

    if (e->type != MINIINFER_TEXT || n->depth)
        return true;
    n->depth++;
    assert_int_equal(miniinfer_tokenize(n->mi, "ab", 2, false, ids, 8, NULL), 2);
    assert_true(miniinfer_generate(n->mi, &r, ask_again, n, NULL)); /* while the outer one runs */
    assert_non_null(miniinfer_model(n->mi));
    n->inner++;
    n->depth--;
    return true;
}

static void events_may_call_anything(void **state)
{
    (void)state;
    Miniinfer             *mi = loaded("silu", "2");
    Nested                 n = { .mi = mi };
    const MiniinferRequest r = asked(0, TOKENS);
    MiniinferError         error;

    fine(miniinfer_generate(mi, &r, ask_again, &n, &error), &error);
    assert_in_range(n.inner, 1, TOKENS);
    miniinfer_close(mi);
}

static bool close_it(void *user, const MiniinferEvent *e)
{
    if (e->type == MINIINFER_TEXT && *(Miniinfer **)user) {
        assert_true(miniinfer_close(*(Miniinfer **)user)); /* this is our own thread */
        *(Miniinfer **)user = NULL;
    }
    if (e->type == MINIINFER_DONE)
        assert_int_equal(e->result->finish, MINIINFER_CANCELLED);
    return true;
}

static void an_event_may_close_the_engine(void **state)
{
    (void)state;
    Miniinfer             *mi = loaded("silu", "1");
    const MiniinferRequest r = asked_long(0);

    assert_true(miniinfer_generate(mi, &r, close_it, &mi, NULL));
    assert_null(mi);
}

typedef struct {
    Miniinfer       *mi;
    pthread_mutex_t  lock;
    MiniinferAnswer *chained;
    int              calls, misuses, closes, blocked;
    bool             started;
} Notified;

/* The engine's thread: nothing here waits, whatever it calls. */
static void notified(void *user)
{
    Notified              *n = user;
    const MiniinferRequest r = asked(6, TOKENS), quiet = asked(7, 3);
    MiniinferError         error;

    pthread_mutex_lock(&n->lock);
    n->calls++;
    if (!n->started) {
        n->started = true;
        n->chained = miniinfer_submit(n->mi, &r, NULL);
        n->blocked += miniinfer_next(n->chained, -1) == NULL;
        n->blocked += miniinfer_wait(n->chained, -1) == NULL;
        n->misuses += !miniinfer_generate(n->mi, &quiet, NULL, NULL, &error) && error.code == MINIINFER_ERROR_MISUSE;
        n->misuses += !miniinfer_batch(n->mi, &quiet, 1, &(MiniinferAnswer *){ NULL }, NULL, NULL, &error) &&
                      error.code == MINIINFER_ERROR_MISUSE;
        n->closes += miniinfer_close(n->mi);
        miniinfer_release(miniinfer_submit(n->mi, &quiet, NULL));
    }
    pthread_mutex_unlock(&n->lock);
}

static void notify_may_not_wait(void **state)
{
    (void)state;
    Notified         n = { .mi = loaded("silu", "2"), .lock = PTHREAD_MUTEX_INITIALIZER };
    MiniinferRequest r = asked(0, TOKENS);

    r.notify = notified, r.notify_user = &n;
    MiniinferAnswer *a = miniinfer_submit(n.mi, &r, NULL);
    const Said       s = said(miniinfer_wait(a, -1));
    same(&s, alone("silu", 0));
    miniinfer_release(a); /* from here on notify() is not called */
    assert_in_range(n.calls, 1, 2 * TOKENS);
    assert_int_equal(n.blocked, 2);
    assert_int_equal(n.misuses, 2);
    assert_int_equal(n.closes, 0);
    const Said chained = said(miniinfer_wait(n.chained, -1));
    same(&chained, alone("silu", 6));
    miniinfer_release(n.chained);
    assert_true(miniinfer_close(n.mi));
}

LIBRARY_MAIN(cmocka_unit_test(callback_iterator_and_batch_agree), cmocka_unit_test(log_probabilities),
             cmocka_unit_test(parameters_of_a_request), cmocka_unit_test(structs_of_other_versions),
             cmocka_unit_test(four_threads_submit), cmocka_unit_test(two_engines_at_once),
             cmocka_unit_test(batches_are_in_order), cmocka_unit_test(cancelled_in_the_middle),
             cmocka_unit_test(abandoned_halfway), cmocka_unit_test(closed_while_requests_run),
             cmocka_unit_test(a_timeout_is_no_end), cmocka_unit_test(events_may_call_anything),
             cmocka_unit_test(an_event_may_close_the_engine), cmocka_unit_test(notify_may_not_wait));
