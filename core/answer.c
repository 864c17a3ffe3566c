#include "answer.h"

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

void mi_answer_take(MiAnswer *a, const MiEvent *e)
{
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
    g_cond_broadcast(&a->more);
    g_mutex_unlock(&a->lock);
}

const char *mi_finish_name(MiFinish f)
{
    return f == MI_FINISH_STOP ? "stop" : f == MI_FINISH_LENGTH ? "length" : "cancelled";
}
