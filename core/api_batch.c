/* api_batch.c - many requests at once, awaited as they finish. */
#include "api_answer.h"

enum { WAITING = 3 }; /* requests in the engine's queue for each that runs: what it chooses from */

/* Shared with the engine's thread while any of its answers is under way. */
typedef struct {
    GMutex  lock;
    GCond   more;
    size_t *finished; /* [n_finished] numbers of requests, in the order in which they finished */
    size_t  n_finished;
} Batch;

static void batch_clear(void *p)
{
    Batch *b = p;

    g_mutex_clear(&b->lock);
    g_cond_clear(&b->more);
    g_free(b->finished);
}

static Batch *batch_new(size_t n, GError **error)
{
    size_t *finished = g_try_new(size_t, n);
    Batch  *b;

    if (n && !finished) {
        g_set_error(error, MI_ERROR, MI_ERROR_NO_MEMORY, "no memory for a batch of %zu requests", n);
        return NULL;
    }
    b = g_atomic_rc_box_new0(Batch);
    g_mutex_init(&b->lock);
    g_cond_init(&b->more);
    b->finished = finished;
    return b;
}

static void finish(Batch *b, size_t i)
{
    g_mutex_lock(&b->lock);
    b->finished[b->n_finished++] = i;
    g_cond_signal(&b->more);
    g_mutex_unlock(&b->lock);
}

/* Engine thread. */
static void finished(void *user, size_t i)
{
    finish(user, i);
    g_atomic_rc_box_release_full(user, batch_clear);
}

/* The number of the next one that is done, in the order in which they are. */
static size_t await(Batch *b, size_t nth)
{
    g_mutex_lock(&b->lock);
    while (b->n_finished <= nth)
        g_cond_wait(&b->more, &b->lock);
    const size_t i = b->finished[nth];
    g_mutex_unlock(&b->lock);
    return i;
}

static const MiniinferRequest *request_at(const MiniinferRequest *requests, size_t i)
{
    return (const MiniinferRequest *)(const void *)((const char *)requests + i * requests->struct_size);
}

/* A request that is refused is an answer that is done. */
static MiniinferAnswer *start(Miniinfer *mi, Batch *b, const MiniinferRequest *r, size_t i)
{
    const MiApiDone  done = { finished, g_atomic_rc_box_acquire(b), i };
    GError          *why = NULL;
    MiniinferAnswer *a = mi_api_submit(mi, r, &done, &why);

    if (a)
        return a;
    finish(b, i);
    g_atomic_rc_box_release_full(b, batch_clear);
    return mi_api_refused(mi, why);
}

typedef struct {
    bool (*done)(void *user, size_t i, const MiniinferResult *);
    void *user;
} Caller;

/* True: every answer is right, or was cancelled; else *error is the first request's that is not. */
static bool check(MiniinferAnswer **answers, size_t n, GError **error)
{
    for (size_t i = 0; i < n; i++)
        if (answers[i]->all.error) {
            g_propagate_prefixed_error(error, g_error_copy(answers[i]->all.error), "request %zu: ", i);
            return false;
        }
    return true;
}

static bool run(Miniinfer *mi, Batch *b, const MiniinferRequest *requests, size_t n, MiniinferAnswer **answers,
                const Caller *caller, GError **error)
{
    const size_t at_once = (size_t)mi->model.max_seqs * (1 + WAITING);
    size_t       started = 0;
    bool         stopped = false;

    for (size_t done = 0; done < n; done++) {
        for (; started < n && started - done < at_once && !stopped; started++)
            answers[started] = start(mi, b, request_at(requests, started), started);
        for (; started < n && stopped; started++) {
            answers[started] = mi_api_refused(mi, NULL);
            finish(b, started);
        }
        const size_t i = await(b, done);
        if (caller->done && !caller->done(caller->user, i, miniinfer_wait(answers[i], 0)) && !stopped) {
            stopped = true;
            for (size_t k = 0; k < started; k++)
                miniinfer_cancel(answers[k]);
        }
    }
    return check(answers, n, error);
}

bool miniinfer_batch(Miniinfer *mi, const MiniinferRequest *requests, size_t n, MiniinferAnswer **answers,
                     bool (*done)(void *user, size_t i, const MiniinferResult *), void *user, MiniinferError *error)
{
    GError *why = NULL;
    Batch  *b;
    bool    ok = false;

    for (size_t i = 0; i < n; i++)
        answers[i] = NULL;
    if (!mi_api_enter(mi, true, &why))
        return mi_api_told(false, why, error);
    mi_api_ref(mi);
    mi_api_leave(mi); /* close() may cancel the batch */
    if (mi_api_on_engine_thread(mi))
        g_set_error_literal(&why, MI_MISUSE, 0, "miniinfer_batch() would wait on the engine's thread");
    else if (n && requests->struct_size < offsetof(MiniinferRequest, text_len))
        g_set_error_literal(&why, MI_MISUSE, 0, "a struct without its struct_size");
    else if ((b = batch_new(n, &why))) {
        ok = run(mi, b, requests, n, answers, &(Caller){ done, user }, &why);
        g_atomic_rc_box_release_full(b, batch_clear);
    }
    mi_api_unref(mi);
    return mi_api_told(ok, why, error);
}
