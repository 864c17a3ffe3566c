/* test_batch_request.c - lines of a batch, as strangers write them, against an engine that only
 * says what it was given to encode. */
#include "common.h"
#include "../plugins/frontends/batch_request.h"

static GString *seen; /* what encode_chat was given, spelled out */
static bool     no_tokenizer, no_template;

static int32_t bos(MiEngine *e) { return (void)e, no_tokenizer ? -1 : 1; }

/* One id a byte. */
static size_t encode(MiEngine *e, const char *text, size_t len, bool special, int32_t *out, size_t max)
{
    (void)e;
    assert_false(special);
    for (size_t i = 0; i < MIN(len, max); i++)
        out[i] = (unsigned char)text[i];
    return no_tokenizer ? SIZE_MAX : len;
}

static void spell(const MiVar *v)
{
    switch (v->type) {
    case MI_VAR_NULL: g_string_append(seen, "null"); break;
    case MI_VAR_BOOL: g_string_append(seen, v->integer ? "true" : "false"); break;
    case MI_VAR_INT: g_string_append_printf(seen, "%" G_GINT64_FORMAT, v->integer); break;
    case MI_VAR_FLOAT: g_string_append_printf(seen, "%g", v->number); break;
    case MI_VAR_TEXT: g_string_append_printf(seen, "'%.*s'", (int)v->n, v->text); break;
    case MI_VAR_LIST:
    case MI_VAR_MAP:
        g_string_append_c(seen, v->type == MI_VAR_LIST ? '[' : '{');
        for (size_t i = 0; i < v->n; i++) {
            g_string_append_printf(seen, "%s%s%s", i ? " " : "", v->type == MI_VAR_MAP ? v->keys[i] : "",
                                   v->type == MI_VAR_MAP ? "=" : "");
            spell(&v->items[i]);
        }
        g_string_append_c(seen, v->type == MI_VAR_LIST ? ']' : '}');
    }
}

static int32_t *encode_chat(MiEngine *e, const MiVar *vars, size_t *n_ids, GError **error)
{
    (void)e;
    if (no_template) {
        g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED, "no chat template");
        return NULL;
    }
    g_string_truncate(seen, 0);
    spell(vars);
    *n_ids = 2;
    return g_memdup2((int32_t[]){ 7, 8 }, 8);
}

static const MiEngineApi api = { .struct_size = sizeof api, .bos = bos, .encode = encode, .encode_chat = encode_chat };
static MiEngine          engine = { &api };

static bool take(BatchLine *b, const char *line, bool raw, GError **error)
{
    const BatchDefaults d = { .raw = raw, .max_tokens = 9, .stop = *line == 'h' && !raw ? "" : "\\n", .system = raw ? "" : "be brief", .seed = "3" };
    return batch_line_read(b, &engine, line, strlen(line), 4, &d, error);
}

static void reads_what_a_request_may_say(void **state)
{
    (void)state;
    BatchLine b;

    assert_true(take(&b, "hi", true, NULL));
    assert_int_equal(b.request.n_tokens, 3);
    assert_true(b.request.tokens[0] == 1 && b.request.tokens[2] == 'i');
    assert_true(b.request.max_tokens == 9 && b.seed == 3 && b.n == 1);
    assert_string_equal(b.request.stop[0], "\n");
    assert_int_equal(json_integer_value(b.id), 4);
    batch_line_clear(&b);

    assert_true(take(&b, "{\"prompt\": \"q\", \"id\": \"x\", \"max_tokens\": 5.0, \"min_tokens\": 2, \"logprobs\": 3, \"n\": 4, "
                         "\"seed\": 11, \"stop\": [\"a\", \"b\"], \"ignore_eos\": true, \"raw\": true, \"top_p\": 0.25, "
                         "\"prompt_logprobs\": true, "
                         "\"priority\": -2, \"client\": \"ann\", "
                         "\"top_k\": 5, \"flag\": false, \"on\": true, \"mode\": \"m\", \"logit_bias\": {\"15\": -1.5, \"2\": 3, \"1\": \"x\"}}",
                     false, NULL));
    assert_true(b.request.max_tokens == 5 && b.request.min_tokens == 2 && b.request.logprobs == 3 && b.n == 4);
    assert_true(b.seed == 11 && b.request.ignore_eos && b.request.prompt_logprobs &&
                b.request.n_tokens == 2 && b.request.priority == -2);
    assert_string_equal(b.request.client, "ann");
    assert_string_equal(b.request.stop[1], "b");
    const struct { const char *key, *value; } params[] = {
        { "top_p", "0.25" }, { "top_k", "5" }, { "flag", "false" }, { "on", "true" }, { "mode", "m" },
        { "logit_bias", "15: -1.5, 2: 3, 1: no number" },
    };
    assert_int_equal(b.params->len, G_N_ELEMENTS(params));
    for (size_t i = 0; i < G_N_ELEMENTS(params); i++) {
        const char *value = NULL;
        for (guint k = 0; k < b.params->len; k++)
            if (strcmp(g_array_index(b.params, MiParam, k).key, params[i].key) == 0)
                value = g_array_index(b.params, MiParam, k).value;
        assert_string_equal(value, params[i].value);
    }
    batch_line_clear(&b);

    assert_true(take(&b, "{\"ids\": [3, 0, 2147483647], \"stop\": \"one\", \"id\": -2}", false, NULL));
    assert_true(b.request.n_tokens == 3 && b.request.tokens[2] == INT32_MAX);
    assert_true(strcmp(b.request.stop[0], "one") == 0 && !b.request.stop[1]);
    batch_line_clear(&b);
}

static void hands_conversations_on(void **state)
{
    (void)state;
    BatchLine b;

    assert_true(take(&b, "hello", false, NULL));
    assert_string_equal(seen->str, "{messages=[{role='system' content='be brief'} {role='user' content='hello'}] "
                                   "add_generation_prompt=true}");
    batch_line_clear(&b);
    assert_true(take(&b, "{\"messages\": [{\"role\": \"user\"}, 1, -2.5, true, false, null, []], \"tools\": [{\"a\": {}}]}", true,
                     NULL));
    assert_string_equal(seen->str, "{messages=[{role='user'} 1 -2.5 true false null []] add_generation_prompt=true "
                                   "tools=[{a={}}]}");
    assert_int_equal(b.request.n_tokens, 2);
    batch_line_clear(&b);
}

static void refuses(const char *line, const char *why)
{
    g_autoptr(GError) error = NULL;
    BatchLine         b;

    assert_false(take(&b, line, true, &error));
    if (!strstr(error->message, why))
        fail_msg("'%s': '%s' does not say '%s'", line, error->message, why);
    batch_line_clear(&b);
}

static void refuses_what_it_may_not(void **state)
{
    (void)state;
    static const struct { const char *line, *why; } bad[] = {
        { "\xff", "not UTF-8" }, { "{", "at column" }, { "{\"prompt\": \"a\", \"prompt\": \"b\"}", "duplicate" },
        { "{}", "one of" }, { "{\"prompt\": \"a\", \"ids\": []}", "one of" }, { "{\"prompt\": 5}", "must be a text" },
        { "{\"messages\": {}}", "lists" }, { "{\"ids\": {}}", "lists" }, { "{\"prompt\": \"a\", \"id\": 1.5}", "\"id\" must be" },
        { "{\"ids\": [1, -1]}", "no token id, at 1" }, { "{\"ids\": [2147483648]}", "no token id, at 0" },
        { "{\"ids\": [1.0]}", "no token id" }, { "{\"prompt\": \"a\", \"raw\": 1}", "\"raw\" must be true or false" },
        { "{\"prompt\": \"a\", \"ignore_eos\": \"yes\"}", "true or false" },
        { "{\"prompt\": \"a\", \"stop\": []}", "\"stop\" must be" }, { "{\"prompt\": \"a\", \"stop\": [\"\"]}", "\"stop\"" },
        { "{\"prompt\": \"a\", \"stop\": [3]}", "\"stop\"" }, { "{\"prompt\": \"a\", \"stop\": {}}", "\"stop\"" },
        { "{\"prompt\": \"a\", \"max_tokens\": -1}", "from 0 to 2147483647" },
        { "{\"prompt\": \"a\", \"max_tokens\": 2147483648}", "whole number" },
        { "{\"prompt\": \"a\", \"max_tokens\": 1e300}", "whole number" },
        { "{\"prompt\": \"a\", \"max_tokens\": \"5\"}", "whole number" },
        { "{\"prompt\": \"a\", \"min_tokens\": 0.5}", "whole number" },
        { "{\"prompt\": \"a\", \"logprobs\": 21}", "from 0 to 20" }, { "{\"prompt\": \"a\", \"n\": 0}", "from 1 to 128" },
        { "{\"prompt\": \"a\", \"n\": 129}", "from 1 to 128" }, { "{\"prompt\": \"a\", \"seed\": -1}", "whole number" },
        { "{\"prompt\": \"a\", \"max_tokens\": -1e300}", "whole number" },
        { "{\"prompt\": \"a\", \"max_tokens\": 2147483648.0}", "whole number" },
        { "{\"prompt\": \"a\", \"max_tokens\": null}", "whole number" },
        { "{\"messages\": [], \"tools\": [1], \"prompt\": \"a\"}", "one of" },
        { "{\"prompt\": \"a\", \"id\": null}", "\"id\" must be" },
        { "{\"prompt\": \"a\", \"client\": 5}", "\"client\" must be a text" },
        { "{\"prompt\": \"a\", \"priority\": \"high\"}", "whole number" },
        { "{\"prompt\": \"a\", \"top_p\": null}", "neither a number" }, { "{\"prompt\": \"a\", \"top_p\": []}", "neither" },
    };
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++)
        refuses(bad[i].line, bad[i].why);

    g_autoptr(GString) deep = g_string_new("{\"messages\": ");
    for (int i = 0; i < 70; i++)
        g_string_append(deep, i % 2 ? "{\"a\": " : "[");
    g_string_append(deep, "1");
    for (int i = 69; i >= 0; i--)
        g_string_append(deep, i % 2 ? "}" : "]");
    g_string_append(deep, "}");
    refuses(deep->str, "more than 64 deep");
    g_string_replace(deep, "{\"messages\": ", "{\"messages\": [], \"tools\": ", 1);
    refuses(deep->str, "more than 64 deep");

    no_tokenizer = no_template = true;
    refuses("hello", "a prompt of 5 bytes cannot be encoded");
    refuses("{\"messages\": []}", "no chat template");
    refuses("{\"prompt\": \"a\", \"raw\": false}", "no chat template");
    no_tokenizer = no_template = false;
}

static void keys_tell_ids_apart(void **state)
{
    (void)state;
    json_t          *number = json_integer(7), *text = json_string("7");
    g_autofree char *a = batch_key(number, 0), *b = batch_key(text, 0), *c = batch_key(number, 1), *d = batch_key(number, 0);

    assert_string_not_equal(a, b);
    assert_string_not_equal(a, c);
    assert_string_equal(a, d);
    assert_string_equal(b, "s7#0");
    assert_string_equal(c, "i7#1");
    json_decref(number);
    json_decref(text);
}

static int setup(void **state)
{
    (void)state;
    seen = g_string_new(NULL);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    g_string_free(seen, TRUE);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_what_a_request_may_say), cmocka_unit_test(hands_conversations_on),
        cmocka_unit_test(refuses_what_it_may_not), cmocka_unit_test(keys_tell_ids_apart),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
