/* cmd_answer.c - an answer awaited by a command, and written as JSON. */
#include "answer.h"
#include "interrupt.h"

typedef struct {
    MiEngine *engine;
    uint64_t  id;
} Running;

/* Engine thread. */
static void event(void *user, const MiEvent *e) { mi_answer_take(user, e); }

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
