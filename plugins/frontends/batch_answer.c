#include "batch_answer.h"

#include <stdlib.h>

void batch_answer_init(BatchAnswer *a, json_t *id, int index, const char *of)
{
    *a = (BatchAnswer){ .id = json_incref(id), .index = index, .text = g_string_new(NULL),
                        .ids = g_array_new(FALSE, FALSE, sizeof(int32_t)), .logprobs = g_array_new(FALSE, FALSE, sizeof(float)),
                        .tops = g_array_new(FALSE, FALSE, sizeof(MiTop)) };
    g_strlcpy(a->of, of, sizeof a->of);
}

void batch_answer_clear(BatchAnswer *a)
{
    json_decref(a->id);
    g_clear_error(&a->error);
    g_string_free(a->text, TRUE);
    g_array_unref(a->ids);
    g_array_unref(a->logprobs);
    g_array_unref(a->tops);
}

void batch_answer_event(BatchAnswer *a, const MiEvent *e)
{
    if (e->type == MI_EVENT_TEXT && e->len)
        g_string_append_len(a->text, e->text, (gssize)e->len);
    if (e->type == MI_EVENT_TEXT && e->n_tokens)
        g_array_append_vals(a->ids, e->tokens, (guint)e->n_tokens);
    if (e->logprobs)
        g_array_append_vals(a->logprobs, e->logprobs, (guint)e->n_tokens);
    if (e->tops) {
        g_array_append_vals(a->tops, e->tops, (guint)(e->n_tokens * e->n_tops));
        a->n_tops = e->n_tops;
    }
    if (e->type == MI_EVENT_ERROR)
        a->error = g_error_new_literal(MI_ERROR, e->code, e->text);
    if (e->type == MI_EVENT_DONE) {
        a->finish = e->finish;
        a->n_prompt = e->n_prompt;
    }
}

static json_t *logprobs_of(const BatchAnswer *a)
{
    json_t *list = json_array();

    for (guint i = 0; i < a->logprobs->len; i++) {
        json_t *top = json_array();
        for (int t = 0; t < a->n_tops; t++) {
            const MiTop *at = &g_array_index(a->tops, MiTop, i * (guint)a->n_tops + (guint)t);
            json_array_append_new(top, json_pack("[i, f]", at->id, (double)at->logprob));
        }
        json_array_append_new(list, json_pack("{s:i, s:f, s:o}", "id", g_array_index(a->ids, int32_t, i), "logprob",
                                              (double)g_array_index(a->logprobs, float, i), "top", top));
    }
    return list;
}

char *batch_answer_line(const BatchAnswer *a)
{
    g_autofree char *text = g_utf8_make_valid(a->text->str, (gssize)a->text->len);
    json_t          *ids = json_array(), *o;

    for (guint i = 0; i < a->ids->len; i++)
        json_array_append_new(ids, json_integer(g_array_index(a->ids, int32_t, i)));
    o = json_pack("{s:O, s:i, s:s, s:o, s:s, s:i, s:s}", "id", a->id, "index", a->index, "text", text, "output_ids", ids,
                  "finish_reason", a->finish == MI_FINISH_STOP ? "stop" : "length", "prompt_tokens", a->n_prompt, "request",
                  a->of);
    if (a->logprobs->len)
        json_object_set_new(o, "logprobs", logprobs_of(a));
    char *compact = json_dumps(o, JSON_COMPACT | JSON_REAL_PRECISION(9));
    char *line = g_strconcat(compact, "\n", NULL);
    free(compact);
    json_decref(o);
    return line;
}
