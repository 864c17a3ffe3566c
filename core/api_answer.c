/* api_answer.c - one request of a program's: what the engine tells goes into an MiAnswer, from which the program reads.
 *
 * An answer has two owners, the program until it releases it and the engine until the last event.  The engine's thread
 * writes under the answer's lock; what next() gives is copied, since the arrays move when they grow. */
#include "api_answer.h"

#include <string.h>

/* ---- life ----------------------------------------------------------------------------- */

static MiniinferAnswer *answer_new(Miniinfer *mi)
{
    MiniinferAnswer *a = g_new0(MiniinferAnswer, 1);

    a->refs = 1;
    a->mi = mi_api_ref(mi);
    mi_answer_init(&a->all);
    mi_answer_init(&a->news);
    g_rec_mutex_init(&a->notifying);
    return a;
}

static void answer_unref(MiniinferAnswer *a)
{
    if (!g_atomic_int_dec_and_test(&a->refs))
        return;
    mi_answer_clear(&a->all);
    mi_answer_clear(&a->news);
    g_rec_mutex_clear(&a->notifying);
    mi_api_unref(a->mi);
    g_free(a);
}

/* ---- what the engine tells --------------------------------------------------------------- */

/* Engine thread. */
static void told(void *user, const MiEvent *e)
{
    MiniinferAnswer *a = user;
    const bool       last = e->type == MI_EVENT_DONE || e->type == MI_EVENT_ERROR;

    g_atomic_pointer_set(&a->mi->engine_thread, g_thread_self());
    g_mutex_lock(&a->all.lock);
    a->id = e->id;
    g_mutex_unlock(&a->all.lock);
    mi_answer_take(&a->all, e);
    g_rec_mutex_lock(&a->notifying);
    if (a->notify)
        a->notify(a->notify_user);
    g_rec_mutex_unlock(&a->notifying);
    if (last && a->done.done)
        a->done.done(a->done.user, a->done.i);
    if (last)
        answer_unref(a);
}

/* ---- submit --------------------------------------------------------------------------------- */

static bool prompt_of(Miniinfer *mi, const MiniinferRequest *r, int32_t **ids, size_t *n, GError **error)
{
    MiEngine *e = mi->session.engine;

    if ((r->text != NULL) + (r->ids != NULL) + (r->messages != NULL) != 1) {
        g_set_error(error, MI_MISUSE, 0, "a request has one of text, ids and messages");
        return false;
    }
    if (r->text)
        return mi_prompt_text(e, r->text, r->text_len ? r->text_len : strlen(r->text), false, ids, n, error);
    if (r->messages)
        return mi_api_chat(mi, r->messages, r->n_messages, ids, n, error);
    *n = r->n_ids;
    return true;
}

/* Ends with a NULL key; the caller frees it. */
static MiParam *params_of(const MiniinferPair *pairs)
{
    size_t n = 0;

    while (pairs && pairs[n].key)
        n++;
    MiParam *params = g_new0(MiParam, n + 1);
    for (size_t i = 0; i < n; i++)
        params[i] = (MiParam){ pairs[i].key, pairs[i].value ? pairs[i].value : "" };
    return params;
}

/* What the request does not say, [generate] does. */
static bool put(Miniinfer *mi, MiniinferAnswer *a, const MiniinferRequest *r, GError **error)
{
    const MiGenerateSettings *g = &mi->session.settings.generate;
    MiEngine                 *e = mi->session.engine;
    g_autofree int32_t       *ids = NULL;
    g_autofree MiParam       *params = params_of(r->params);
    g_autofree char          *stop = g_strcompress(g->stop);
    const char *const         stops[] = { *stop ? stop : NULL, NULL };
    size_t                    n_ids;

    if (!prompt_of(mi, r, &ids, &n_ids, error))
        return false;
    a->notify = r->notify;
    a->notify_user = r->notify_user;
    g_atomic_int_inc(&a->refs);
    const uint64_t id = e->api->submit(
        e, &(MiRequest){ .tokens = ids ? ids : r->ids, .n_tokens = n_ids,
                         .max_tokens = r->max_tokens ? r->max_tokens : g->max_tokens,
                         .min_tokens = r->min_tokens ? r->min_tokens : g->min_tokens, .priority = r->priority,
                         .stop = r->stop ? r->stop : stops, .stop_ids = r->stop_ids, .n_stop_ids = r->n_stop_ids,
                         .params = params, .logprobs = r->logprobs, .prompt_logprobs = r->prompt_logprobs,
                         .ignore_eos = r->ignore_eos || g->ignore_eos, .event = told, .user = a },
        error);
    if (!id) {
        g_atomic_int_add(&a->refs, -1);
        return false;
    }
    g_mutex_lock(&a->all.lock);
    a->id = id;
    g_mutex_unlock(&a->all.lock);
    return true;
}

MiniinferAnswer *mi_api_submit(Miniinfer *mi, const MiniinferRequest *request, const MiApiDone *done, GError **error)
{
    MiniinferRequest r;
    MiniinferAnswer *a = NULL;

    if (!mi_api_sized(&r, sizeof r, request, offsetof(MiniinferRequest, text_len), error) || !mi_api_enter(mi, true, error))
        return NULL;
    a = answer_new(mi);
    if (done)
        a->done = *done;
    if (!put(mi, a, &r, error))
        answer_unref(g_steal_pointer(&a));
    mi_api_leave(mi);
    return a;
}

MiniinferAnswer *mi_api_refused(Miniinfer *mi, GError *why)
{
    MiniinferAnswer *a = answer_new(mi);

    a->all.error = why;
    a->all.finish = MI_FINISH_CANCELLED;
    a->all.done = true;
    return a;
}

MiniinferAnswer *miniinfer_submit(Miniinfer *mi, const MiniinferRequest *request, MiniinferError *error)
{
    GError          *why = NULL;
    MiniinferAnswer *a = mi_api_submit(mi, request, NULL, &why);

    mi_api_told(a != NULL, why, error);
    return a;
}

void miniinfer_cancel(MiniinferAnswer *a)
{
    if (!a)
        return;
    g_mutex_lock(&a->all.lock);
    const uint64_t id = a->all.done ? 0 : a->id;
    g_mutex_unlock(&a->all.lock);
    if (!id || !mi_api_enter(a->mi, true, NULL))
        return;
    a->mi->session.engine->api->cancel(a->mi->session.engine, id);
    mi_api_leave(a->mi);
}

void miniinfer_release(MiniinferAnswer *a)
{
    if (!a)
        return;
    g_rec_mutex_lock(&a->notifying);
    a->notify = NULL;
    g_rec_mutex_unlock(&a->notifying);
    miniinfer_cancel(a);
    answer_unref(a);
}

/* ---- read ------------------------------------------------------------------------------------ */

/* Under the lock, until `ready` or the time is over; true: ready. */
static bool wait_until(MiniinferAnswer *a, bool (*ready)(const MiniinferAnswer *), int timeout_ms)
{
    const int64_t end = g_get_monotonic_time() + timeout_ms * INT64_C(1000);

    if (mi_api_on_engine_thread(a->mi))
        timeout_ms = 0;
    while (!ready(a)) {
        if (timeout_ms < 0)
            g_cond_wait(&a->all.more, &a->all.lock);
        else if (!timeout_ms || !g_cond_wait_until(&a->all.more, &a->all.lock, end))
            return ready(a);
    }
    return true;
}

static bool is_done(const MiniinferAnswer *a) { return a->all.done; }
static bool has_prompt(const MiniinferAnswer *a) { return a->all.prompt_ids->len > a->prompt_seen; }
static bool has_text(const MiniinferAnswer *a) { return a->all.ids->len > a->ids_seen || a->all.text->len > a->text_seen; }
static bool has_news(const MiniinferAnswer *a) { return has_prompt(a) || has_text(a) || a->all.done; }

/* data: of an array that is there only if it was asked for. */
static const void *items(const GArray *a) { return a->len ? a->data : NULL; }

static MiniinferTokens tokens_of(const GString *text, const GArray *ids, const GArray *logprobs, const GArray *tops,
                                 int n_tops)
{
    return (MiniinferTokens){ .text = text ? text->str : "", .len = text ? text->len : 0, .n_ids = ids->len,
                              .ids = items(ids), .logprobs = items(logprobs), .tops = items(tops), .n_tops = n_tops };
}

/* Once it is done nothing of `all` changes. */
static const MiniinferResult *result_of(MiniinferAnswer *a)
{
    const MiAnswer *all = &a->all;

    a->result = (MiniinferResult){
        .code = all->error ? mi_api_code(all->error) : MINIINFER_OK, .message = all->error ? all->error->message : "",
        .finish = all->error ? MINIINFER_CANCELLED : (MiniinferFinish)all->finish,
        .answer = tokens_of(all->text, all->ids, all->logprobs, all->tops, all->n_tops),
        .prompt = tokens_of(NULL, all->prompt_ids, all->prompt_logprobs, all->prompt_tops, all->n_tops),
        .n_prompt = all->n_prompt, .n_cached = all->n_cached, .n_drawn = all->n_drawn,
        .queued_us = all->queued_us, .prompt_us = all->prompt_us, .decode_us = all->decode_us,
    };
    return &a->result;
}
G_STATIC_ASSERT((int)MINIINFER_LENGTH == (int)MI_FINISH_LENGTH && (int)MINIINFER_CANCELLED == (int)MI_FINISH_CANCELLED);
G_STATIC_ASSERT(sizeof(MiniinferTop) == sizeof(MiTop) && offsetof(MiniinferTop, logprob) == offsetof(MiTop, logprob));

/* to: what `from` has from item `first` on. */
static void copy_from(GArray *to, const GArray *from, guint first)
{
    g_array_set_size(to, 0);
    if (first < from->len)
        g_array_append_vals(to, from->data + (size_t)first * g_array_get_element_size((GArray *)(uintptr_t)from),
                            from->len - first);
}

static void take(MiniinferAnswer *a, const GArray *ids, const GArray *logprobs, const GArray *tops, guint *seen)
{
    MiAnswer *to = &a->news;

    copy_from(to->ids, ids, *seen);
    copy_from(to->logprobs, logprobs, *seen);
    copy_from(to->tops, tops, *seen * (guint)a->all.n_tops);
    *seen = ids->len;
}

static void take_text(MiniinferAnswer *a)
{
    const MiAnswer *all = &a->all;

    g_string_truncate(a->news.text, 0);
    g_string_append_len(a->news.text, all->text->str + a->text_seen, (gssize)(all->text->len - a->text_seen));
    a->text_seen = all->text->len;
    take(a, all->ids, all->logprobs, all->tops, &a->ids_seen);
}

const MiniinferEvent *miniinfer_next(MiniinferAnswer *a, int timeout_ms)
{
    const MiAnswer *all = &a->all, *news = &a->news;

    if (!a || a->ended)
        return NULL;
    g_mutex_lock(&a->all.lock);
    const bool there = wait_until(a, has_news, timeout_ms);
    a->event = (MiniinferEvent){ .type = has_prompt(a) ? MINIINFER_PROMPT : has_text(a) ? MINIINFER_TEXT : MINIINFER_DONE };
    if (there && a->event.type == MINIINFER_PROMPT)
        take(a, all->prompt_ids, all->prompt_logprobs, all->prompt_tops, &a->prompt_seen);
    else if (there && a->event.type == MINIINFER_TEXT)
        take_text(a);
    else if (there)
        a->ended = true;
    g_mutex_unlock(&a->all.lock);
    if (!there)
        return NULL;
    if (a->ended)
        a->event.result = result_of(a);
    else
        a->event.tokens = tokens_of(a->event.type == MINIINFER_TEXT ? news->text : NULL, news->ids, news->logprobs,
                                    news->tops, all->n_tops);
    return &a->event;
}

const MiniinferResult *miniinfer_wait(MiniinferAnswer *a, int timeout_ms)
{
    if (!a)
        return NULL;
    g_mutex_lock(&a->all.lock);
    const bool there = wait_until(a, is_done, timeout_ms);
    g_mutex_unlock(&a->all.lock);
    return there ? result_of(a) : NULL;
}

/* ---- generate ---------------------------------------------------------------------------------- */

bool miniinfer_generate(Miniinfer *mi, const MiniinferRequest *request, bool (*event)(void *user, const MiniinferEvent *),
                        void *user, MiniinferError *error)
{
    MiniinferAnswer      *a;
    const MiniinferEvent *e;
    GError               *why = NULL;

    if (mi && mi_api_on_engine_thread(mi)) {
        g_set_error_literal(&why, MI_MISUSE, 0, "miniinfer_generate() would wait on the engine's thread: use miniinfer_submit()");
        return mi_api_told(false, why, error);
    }
    if (!(a = miniinfer_submit(mi, request, error)))
        return false;
    while ((e = miniinfer_next(a, -1)))
        if (event && !event(user, e))
            miniinfer_cancel(a);
    why = a->all.error ? g_error_copy(a->all.error) : NULL;
    miniinfer_release(a);
    return mi_api_told(!why, why, error);
}
