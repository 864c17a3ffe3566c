#include "batch_answer.h"

#include <stdlib.h>

static BatchTokens tokens_new(void)
{
    return (BatchTokens){ g_array_new(FALSE, FALSE, sizeof(int32_t)), g_array_new(FALSE, FALSE, sizeof(float)),
                          g_array_new(FALSE, FALSE, sizeof(MiTop)) };
}

static void tokens_clear(BatchTokens *t)
{
    g_array_unref(t->ids);
    g_array_unref(t->logprobs);
    g_array_unref(t->tops);
}

void batch_answer_init(BatchAnswer *a, json_t *id, int index, const char *of)
{
    *a = (BatchAnswer){ .id = json_incref(id), .index = index, .text = g_string_new(NULL),
                        .drawn = tokens_new(), .prompt = tokens_new() };
    g_strlcpy(a->of, of, sizeof a->of);
}

void batch_answer_clear(BatchAnswer *a)
{
    json_decref(a->id);
    g_clear_error(&a->error);
    g_string_free(a->text, TRUE);
    tokens_clear(&a->drawn);
    tokens_clear(&a->prompt);
}

void batch_answer_event(BatchAnswer *a, const MiEvent *e)
{
    BatchTokens *t = e->type == MI_EVENT_PROMPT ? &a->prompt : &a->drawn;

    if (e->type == MI_EVENT_TEXT && e->len)
        g_string_append_len(a->text, e->text, (gssize)e->len);
    if ((e->type == MI_EVENT_TEXT || e->type == MI_EVENT_PROMPT) && e->n_tokens)
        g_array_append_vals(t->ids, e->tokens, (guint)e->n_tokens);
    if (e->logprobs)
        g_array_append_vals(t->logprobs, e->logprobs, (guint)e->n_tokens);
    if (e->tops) {
        g_array_append_vals(t->tops, e->tops, (guint)(e->n_tokens * e->n_tops));
        a->n_tops = e->n_tops;
    }
    if (e->type == MI_EVENT_ERROR)
        a->error = g_error_new_literal(MI_ERROR, e->code, e->text);
    if (e->type == MI_EVENT_DONE) {
        a->finish = e->finish;
        a->n_prompt = e->n_prompt;
    }
}

static void add_logprobs(json_t *o, const char *key, const BatchTokens *t, int n_tops)
{
    json_t *list = json_array();

    for (guint i = 0; i < t->logprobs->len; i++) {
        json_t *top = json_array();
        for (int k = 0; k < n_tops; k++) {
            const MiTop *at = &g_array_index(t->tops, MiTop, i * (guint)n_tops + (guint)k);
            json_array_append_new(top, json_pack("[i, f]", at->id, (double)at->logprob));
        }
        json_array_append_new(list, json_pack("{s:i, s:f, s:o}", "id", g_array_index(t->ids, int32_t, i), "logprob",
                                              (double)g_array_index(t->logprobs, float, i), "top", top));
    }
    if (t->logprobs->len)
        json_object_set(o, key, list);
    json_decref(list);
}

char *batch_answer_line(const BatchAnswer *a)
{
    g_autofree char *text = g_utf8_make_valid(a->text->str, (gssize)a->text->len);
    json_t          *ids = json_array(), *o;

    for (guint i = 0; i < a->drawn.ids->len; i++)
        json_array_append_new(ids, json_integer(g_array_index(a->drawn.ids, int32_t, i)));
    o = json_pack("{s:O, s:i, s:s, s:o, s:s, s:i, s:s}", "id", a->id, "index", a->index, "text", text, "output_ids", ids,
                  "finish_reason", a->finish == MI_FINISH_STOP ? "stop" : "length", "prompt_tokens", a->n_prompt, "request",
                  a->of);
    add_logprobs(o, "logprobs", &a->drawn, a->n_tops);
    add_logprobs(o, "prompt_logprobs", &a->prompt, a->n_tops);
    char *compact = json_dumps(o, JSON_COMPACT | JSON_REAL_PRECISION(9));
    char *line = g_strconcat(compact, "\n", NULL);
    free(compact);
    json_decref(o);
    return line;
}
