#include "crowd.h"

enum { TICK_US = 20000 };

/* Engine thread. */
static void event(void *user, const MiEvent *e)
{
    MiAsked      *q = user;
    MiCrowd      *c = q->crowd;
    const int64_t now = g_get_monotonic_time();

    for (int i = 0; e->type == MI_EVENT_TEXT && i < e->n_tokens && q->n < q->n_want; i++) {
        q->at[q->n++] = now;
        /* Nobody else adds: no locked instruction, which would wait for the line above. */
        atomic_store_explicit(&c->drawn, atomic_load_explicit(&c->drawn, memory_order_relaxed) + 1, memory_order_relaxed);
    }
    if (e->type == MI_EVENT_TEXT)
        return;
    g_mutex_lock(&c->lock);
    if (e->type == MI_EVENT_ERROR && !c->error)
        c->error = g_error_new_literal(MI_ERROR, e->code, e->text);
    if (e->type == MI_EVENT_DONE)
        q->prompt_us = e->prompt_us;
    if ((e->type == MI_EVENT_DONE || e->type == MI_EVENT_ERROR) && !q->done) {
        q->done = true;
        c->left--;
        g_cond_signal(&c->more);
    }
    g_mutex_unlock(&c->lock);
}

void mi_crowd_init(MiCrowd *c, MiEngine *engine, int n)
{
    *c = (MiCrowd){ .engine = engine, .asked = g_new0(MiAsked, n), .n = n };
    g_mutex_init(&c->lock);
    g_cond_init(&c->more);
    for (int i = 0; i < n; i++)
        c->asked[i].crowd = c;
}

void mi_crowd_clear(MiCrowd *c)
{
    for (int i = 0; i < c->n; i++)
        g_free(c->asked[i].at);
    g_free(c->asked);
    g_clear_error(&c->error);
    g_mutex_clear(&c->lock);
    g_cond_clear(&c->more);
}

bool mi_crowd_submit(MiCrowd *c, int i, const int32_t *ids, size_t n, int32_t n_want, GError **error)
{
    MiAsked        *q = &c->asked[i];
    const MiRequest ask = { .tokens = ids, .n_tokens = n, .max_tokens = n_want, .ignore_eos = true, .event = event, .user = q };

    g_mutex_lock(&c->lock);
    q->at = g_renew(int64_t, q->at, n_want);
    q->n_want = n_want;
    q->n = 0;
    q->done = false;
    c->left++;
    q->submitted = g_get_monotonic_time();
    g_mutex_unlock(&c->lock);
    const uint64_t id = c->engine->api->submit(c->engine, &ask, error);
    g_mutex_lock(&c->lock);
    q->id = id;
    c->left -= !id;
    g_mutex_unlock(&c->lock);
    return id != 0;
}

void mi_crowd_cancel(void *crowd)
{
    MiCrowd *c = crowd;

    for (int i = 0; i < c->n; i++) {
        g_mutex_lock(&c->lock);
        const uint64_t id = c->asked[i].id;
        g_mutex_unlock(&c->lock);
        c->engine->api->cancel(c->engine, id);
    }
}

bool mi_crowd_wait(MiCrowd *c, void (*tick)(void *user), void *user, GError **error)
{
    g_mutex_lock(&c->lock);
    while (c->left) {
        const int64_t until = g_get_monotonic_time() + TICK_US;
        while (c->left && g_cond_wait_until(&c->more, &c->lock, until))
            ;
        if (tick)
            tick(user);
    }
    GError *first = g_steal_pointer(&c->error);
    g_mutex_unlock(&c->lock);
    if (first)
        g_propagate_error(error, first);
    return !first;
}
