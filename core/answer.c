#include "answer.h"
#include "interrupt.h"

void mi_answer_init(MiAnswer *a)
{
    *a = (MiAnswer){ .text = g_string_new(NULL), .ids = g_array_new(FALSE, FALSE, sizeof(int32_t)),
                     .logprobs = g_array_new(FALSE, FALSE, sizeof(float)),
                     .tops = g_array_new(FALSE, FALSE, sizeof(MiTop)),
                     .prompt_ids = g_array_new(FALSE, FALSE, sizeof(int32_t)),
                     .prompt_logprobs = g_array_new(FALSE, FALSE, sizeof(float)),
                     .prompt_tops = g_array_new(FALSE, FALSE, sizeof(MiTop)) };
    g_mutex_init(&a->lock);
    g_cond_init(&a->more);
}

void mi_answer_clear(MiAnswer *a)
{
    g_string_free(a->text, TRUE);
    g_array_unref(a->ids);
    g_array_unref(a->logprobs);
    g_array_unref(a->tops);
    g_array_unref(a->prompt_ids);
    g_array_unref(a->prompt_logprobs);
    g_array_unref(a->prompt_tops);
    g_clear_error(&a->error);
    g_mutex_clear(&a->lock);
    g_cond_clear(&a->more);
}

static void usage(MiAnswer *a, const MiEvent *e)
{
    a->finish = e->finish;
    a->n_prompt = e->n_prompt, a->n_cached = e->n_cached, a->n_drawn = e->n_drawn;
    a->queued_us = e->queued_us, a->prompt_us = e->prompt_us, a->decode_us = e->decode_us;
}

/* Engine thread. */
static void event(void *user, const MiEvent *e)
{
    MiAnswer  *a = user;
    const bool prompt = e->type == MI_EVENT_PROMPT;

    g_mutex_lock(&a->lock);
    if (e->tokens)
        g_array_append_vals(prompt ? a->prompt_ids : a->ids, e->tokens, (guint)e->n_tokens);
    if (e->logprobs)
        g_array_append_vals(prompt ? a->prompt_logprobs : a->logprobs, e->logprobs, (guint)e->n_tokens);
    if (e->tops)
        g_array_append_vals(prompt ? a->prompt_tops : a->tops, e->tops, (guint)(e->n_tokens * e->n_tops));
    if (e->tops)
        a->n_tops = e->n_tops;
    if (e->type == MI_EVENT_TEXT && e->len)
        g_string_append_len(a->text, e->text, (gssize)e->len);
    if (e->type == MI_EVENT_ERROR)
        a->error = g_error_new_literal(MI_ERROR, e->code, e->text);
    if (e->type == MI_EVENT_DONE)
        usage(a, e);
    a->done = e->type == MI_EVENT_DONE || e->type == MI_EVENT_ERROR;
    g_cond_signal(&a->more);
    g_mutex_unlock(&a->lock);
}

typedef struct {
    MiEngine *engine;
    uint64_t  id;
} Running;

static void cancel(void *user)
{
    const Running *r = user;
    r->engine->api->cancel(r->engine, r->id);
}

/* Writes what came since `shown`, without the lock: a slow terminal must not hold up the engine. */
static size_t show(MiAnswer *a, size_t shown, FILE *out)
{
    g_autofree char *news = g_strndup(a->text->str + shown, a->text->len - shown);
    const size_t     len = a->text->len - shown;

    if (!out || !len)
        return a->text->len;
    g_mutex_unlock(&a->lock);
    fwrite(news, 1, len, out);
    fflush(out);
    g_mutex_lock(&a->lock);
    return shown + len;
}

bool mi_answer_await(MiAnswer *a, MiEngine *engine, MiRequest request, FILE *out, GError **error)
{
    Running running = { engine, 0 };
    size_t  shown = 0;

    request.event = event;
    request.user = a;
    if (!(running.id = engine->api->submit(engine, &request, error)))
        return false;
    mi_interrupt_target(cancel, &running);
    g_mutex_lock(&a->lock);
    while (!a->done || shown < a->text->len) {
        if (shown == a->text->len)
            g_cond_wait(&a->more, &a->lock);
        shown = show(a, shown, out);
    }
    g_mutex_unlock(&a->lock);
    mi_interrupt_target(NULL, NULL);
    if (!a->error)
        return true;
    g_propagate_error(error, g_steal_pointer(&a->error));
    return false;
}

const char *mi_finish_name(MiFinish f)
{
    return f == MI_FINISH_STOP ? "stop" : f == MI_FINISH_LENGTH ? "length" : "cancelled";
}

/* [{"id": 5, "logprob": -0.1, "top": [[5, -0.1], ...]}, ...] */
static void write_logprobs(MiJson *j, const char *key, const GArray *ids, const GArray *logprobs, const GArray *tops,
                           int n_tops)
{
    if (!logprobs->len)
        return;
    mi_json_open(j, key, '[');
    for (guint i = 0; i < logprobs->len; i++) {
        mi_json_open(j, NULL, '{');
        if (i < ids->len)
            mi_json_int(j, "id", g_array_index(ids, int32_t, i));
        mi_json_float(j, "logprob", (double)g_array_index(logprobs, float, i));
        if (n_tops && tops->len >= (i + 1) * (guint)n_tops) {
            mi_json_open(j, "top", '[');
            for (int t = 0; t < n_tops; t++) {
                const MiTop *top = &g_array_index(tops, MiTop, i * (guint)n_tops + (guint)t);
                mi_json_open(j, NULL, '[');
                mi_json_int(j, NULL, top->id);
                mi_json_float(j, NULL, (double)top->logprob);
                mi_json_close(j, ']');
            }
            mi_json_close(j, ']');
        }
        mi_json_close(j, '}');
    }
    mi_json_close(j, ']');
}

void mi_answer_write(const MiAnswer *a, MiJson *j)
{
    mi_json_ints(j, "output_ids", (const int32_t *)(void *)a->ids->data, a->ids->len);
    mi_json_text(j, "text", a->text->str, a->text->len);
    mi_json_string(j, "finish_reason", mi_finish_name(a->finish));
    write_logprobs(j, "logprobs", a->ids, a->logprobs, a->tops, a->n_tops);
    write_logprobs(j, "prompt_logprobs", a->prompt_ids, a->prompt_logprobs, a->prompt_tops, a->n_tops);
}

static double rate(int32_t n, int64_t us) { return us > 0 && n > 0 ? 1e6 * n / (double)us : 0; }

void mi_answer_write_timings(const MiAnswer *a, MiJson *j)
{
    mi_json_int(j, "prompt_tokens", a->n_prompt);
    mi_json_int(j, "cached_tokens", a->n_cached);
    mi_json_float(j, "queued_ms", (double)a->queued_us / 1e3);
    mi_json_float(j, "prompt_ms", (double)a->prompt_us / 1e3);
    mi_json_float(j, "prompt_tokens_per_s", rate(a->n_prompt - a->n_cached, a->prompt_us));
    mi_json_int(j, "decode_tokens", a->n_drawn);
    mi_json_float(j, "decode_ms", (double)a->decode_us / 1e3);
    mi_json_float(j, "decode_tokens_per_s", rate(a->n_drawn - 1, a->decode_us));
}
