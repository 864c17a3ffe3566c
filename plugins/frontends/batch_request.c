#include "batch_request.h"

#include <miniinfer/plugin.h>

#include <math.h>
#include <string.h>

enum { MAX_DEPTH = 64, MAX_ANSWERS = 128 };

/* A value that jansson finds no memory for it leaves out without a word: end the program as GLib does. */
__attribute__((constructor)) static void set_allocator(void) { json_set_alloc_funcs(g_malloc, g_free); }

G_GNUC_PRINTF(2, 3) static bool bad(GError **error, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    *error = g_error_new_valist(MI_ERROR, MI_ERROR_CONFIG, format, args);
    va_end(args);
    return false;
}

static bool is(json_type type, const json_t *j) { return j && json_typeof(j) == type; }

static void *keep(BatchLine *b, void *owned)
{
    g_ptr_array_add(b->owned, owned);
    return owned;
}

/* ---- JSON as a template's variables ------------------------------------------------- */
static bool var_of(BatchLine *b, const json_t *j, int depth, MiVar *out, GError **error);

static bool list_of(BatchLine *b, const json_t *j, int depth, MiVar *out, GError **error)
{
    const size_t n = json_array_size(j);
    MiVar       *items = keep(b, g_new0(MiVar, n + 1));

    *out = (MiVar){ .type = MI_VAR_LIST, .n = n, .items = items };
    for (size_t i = 0; i < n; i++)
        if (!var_of(b, json_array_get(j, i), depth + 1, &items[i], error))
            return false;
    return true;
}

static bool map_of(BatchLine *b, const json_t *j, int depth, MiVar *out, GError **error)
{
    const size_t n = json_object_size(j);
    MiVar       *items = keep(b, g_new0(MiVar, n + 1));
    const char **keys = keep(b, g_new0(const char *, n + 1));
    size_t       i = 0;

    *out = (MiVar){ .type = MI_VAR_MAP, .n = n, .items = items, .keys = keys };
    for (void *at = json_object_iter((json_t *)(uintptr_t)j); at; i++) {
        keys[i] = json_object_iter_key(at);
        if (!var_of(b, json_object_iter_value(at), depth + 1, &items[i], error))
            return false;
        at = json_object_iter_next((json_t *)(uintptr_t)j, at);
    }
    return true;
}

/* Borrows from j, which the line keeps. */
static bool var_of(BatchLine *b, const json_t *j, int depth, MiVar *out, GError **error)
{
    if (depth > MAX_DEPTH)
        return bad(error, "values lie more than %d deep in each other", MAX_DEPTH);
    switch (json_typeof(j)) {
    case JSON_OBJECT:
        return map_of(b, j, depth, out, error);
    case JSON_ARRAY:
        return list_of(b, j, depth, out, error);
    case JSON_STRING:
        *out = (MiVar){ .type = MI_VAR_TEXT, .text = json_string_value(j), .n = json_string_length(j) };
        return true;
    case JSON_INTEGER:
        *out = (MiVar){ .type = MI_VAR_INT, .integer = json_integer_value(j) };
        return true;
    case JSON_REAL:
        *out = (MiVar){ .type = MI_VAR_FLOAT, .number = json_real_value(j) };
        return true;
    case JSON_TRUE:
    case JSON_FALSE:
        *out = (MiVar){ .type = MI_VAR_BOOL, .integer = is(JSON_TRUE, j) };
        return true;
    default:
        *out = (MiVar){ .type = MI_VAR_NULL };
        return true;
    }
}

/* ---- the prompt ----------------------------------------------------------------------- */
static bool chat(BatchLine *b, MiEngine *e, const MiVar *messages, const MiVar *tools, GError **error)
{
    static const char *const keys[] = { "messages", "add_generation_prompt", "tools" };
    const MiVar top[] = { *messages, { .type = MI_VAR_BOOL, .integer = 1 }, tools ? *tools : (MiVar){ 0 } };
    const MiVar vars = { .type = MI_VAR_MAP, .n = tools ? 3 : 2, .items = top, .keys = keys };

    b->request.tokens = e->api->encode_chat(e, &vars, &b->request.n_tokens, error);
    keep(b, (int32_t *)(uintptr_t)b->request.tokens);
    return b->request.tokens;
}

static bool chat_of_text(BatchLine *b, MiEngine *e, const char *text, size_t len, const char *system, GError **error)
{
    static const char *const keys[] = { "role", "content" };
    const MiVar fields[2][2] = {
        { { .type = MI_VAR_TEXT, .text = "system", .n = 6 }, { .type = MI_VAR_TEXT, .text = system, .n = strlen(system) } },
        { { .type = MI_VAR_TEXT, .text = "user", .n = 4 }, { .type = MI_VAR_TEXT, .text = text, .n = len } },
    };
    const MiVar  items[] = { { .type = MI_VAR_MAP, .n = 2, .items = fields[0], .keys = keys },
                             { .type = MI_VAR_MAP, .n = 2, .items = fields[1], .keys = keys } };
    const size_t first = !*system;
    const MiVar  messages = { .type = MI_VAR_LIST, .n = 2 - first, .items = items + first };

    return chat(b, e, &messages, NULL, error);
}

static bool raw(BatchLine *b, MiEngine *e, const char *text, size_t len, GError **error)
{
    const int32_t bos = e->api->bos(e);
    const size_t  n = e->api->encode(e, text, len, false, NULL, 0), first = bos >= 0;
    int32_t      *ids = n == SIZE_MAX ? NULL : g_try_new(int32_t, n + 1);

    if (!ids)
        return bad(error, "a prompt of %zu bytes cannot be encoded", len);
    ids[0] = bos;
    b->request.tokens = keep(b, ids);
    b->request.n_tokens = first + e->api->encode(e, text, len, false, ids + first, n);
    return true;
}

static bool prompt(BatchLine *b, MiEngine *e, const char *text, size_t len, const BatchDefaults *d, bool is_raw,
                   GError **error)
{
    return is_raw ? raw(b, e, text, len, error) : chat_of_text(b, e, text, len, d->system, error);
}

static bool ids(BatchLine *b, const json_t *list, GError **error)
{
    const size_t n = json_array_size(list);
    int32_t     *out = keep(b, g_new(int32_t, n + 1));

    for (size_t i = 0; i < n; i++) {
        const json_t *id = json_array_get(list, i);
        if (!is(JSON_INTEGER, id) || json_integer_value(id) < 0 || json_integer_value(id) > INT32_MAX)
            return bad(error, "\"ids\" holds something that is no token id, at %zu", i);
        out[i] = (int32_t)json_integer_value(id);
    }
    b->request.tokens = out;
    b->request.n_tokens = n;
    return true;
}

/* ---- the members of a request ----------------------------------------------------------- */
static bool whole(const json_t *j, const char *key, int64_t min, int64_t max, int64_t *out, GError **error)
{
    const double x = is(JSON_REAL, j) ? json_real_value(j) : NAN;

    /* 5.0 is what some clients write for 5. */
    *out = is(JSON_INTEGER, j) ? json_integer_value(j) : fabs(x) <= 1e15 ? (int64_t)x : 0;
    if ((!is(JSON_INTEGER, j) && (double)*out != x) || *out < min || *out > max)
        return bad(error, "\"%s\" must be a whole number from %lld to %lld", key, (long long)min, (long long)max);
    return true;
}

static bool truth(const json_t *j, const char *key, bool *out, GError **error)
{
    *out = is(JSON_TRUE, j);
    if (!*out && !is(JSON_FALSE, j))
        return bad(error, "\"%s\" must be true or false", key);
    return true;
}

static bool stop(BatchLine *b, const json_t *j, GError **error)
{
    const size_t n = is(JSON_STRING, j) ? 1 : json_array_size(j);
    const char **list = keep(b, g_new0(const char *, n + 1));

    for (size_t i = 0; i < n; i++)
        list[i] = json_string_value(is(JSON_STRING, j) ? j : json_array_get(j, i));
    b->request.stop = list;
    for (size_t i = 0; i < n; i++)
        if (!list[i] || !*list[i])
            return bad(error, "\"stop\" must be a text or a list of texts");
    if (n == 0)
        return bad(error, "\"stop\" must be a text or a list of texts");
    return true;
}

/* A sampler's parameter as a file would say it: 0.9, true, "151: -100, 42: 2.5". */
static char *spelled(const json_t *j)
{
    char digits[G_ASCII_DTOSTR_BUF_SIZE];

    if (is(JSON_INTEGER, j))
        return g_strdup_printf("%lld", (long long)json_integer_value(j));
    if (is(JSON_REAL, j))
        return g_strdup(g_ascii_dtostr(digits, sizeof digits, json_real_value(j)));
    if (is(JSON_TRUE, j) || is(JSON_FALSE, j))
        return g_strdup(is(JSON_TRUE, j) ? "true" : "false");
    if (is(JSON_STRING, j))
        return g_strdup(json_string_value(j));
    if (!is(JSON_OBJECT, j))
        return NULL;
    GString *biases = g_string_new(NULL);
    for (void *at = json_object_iter((json_t *)(uintptr_t)j); at; at = json_object_iter_next((json_t *)(uintptr_t)j, at)) {
        const json_t    *bias = json_object_iter_value(at);
        g_autofree char *value = is(JSON_INTEGER, bias) || is(JSON_REAL, bias) ? spelled(bias) : NULL;
        g_string_append_printf(biases, "%s%s: %s", biases->len ? ", " : "", json_object_iter_key(at),
                               value ? value : "no number");
    }
    return g_string_free(biases, FALSE);
}

static bool parameter(BatchLine *b, const char *key, const json_t *j, GError **error)
{
    char *value = spelled(j);

    if (!value)
        return bad(error, "\"%s\" is neither a number, a text, true nor false", key);
    const MiParam p = { key, keep(b, value) };
    g_array_append_val(b->params, p);
    return true;
}

/* What does not need the prompt; those that make the prompt are read by request(). */
static bool member(BatchLine *b, const char *key, const json_t *j, bool *is_raw, GError **error)
{
    static const char *const prompts[] = { "id", "prompt", "messages", "ids", "tools", NULL };
    int64_t n = 0;
    bool    ok = true;

    if (g_strv_contains(prompts, key))
        return true;
    if (strcmp(key, "raw") == 0)
        return truth(j, key, is_raw, error);
    if (strcmp(key, "ignore_eos") == 0)
        return truth(j, key, &b->request.ignore_eos, error);
    if (strcmp(key, "prompt_logprobs") == 0)
        return truth(j, key, &b->request.prompt_logprobs, error);
    if (strcmp(key, "stop") == 0)
        return stop(b, j, error);
    if (strcmp(key, "client") == 0)
        return (b->request.client = json_string_value(j)) || bad(error, "\"client\" must be a text");
    if (strcmp(key, "max_tokens") == 0 && (ok = whole(j, key, 0, INT32_MAX, &n, error)))
        b->request.max_tokens = (int32_t)n;
    else if (ok && strcmp(key, "min_tokens") == 0 && (ok = whole(j, key, 0, INT32_MAX, &n, error)))
        b->request.min_tokens = (int32_t)n;
    else if (ok && strcmp(key, "logprobs") == 0 && (ok = whole(j, key, 0, MI_MAX_TOPS, &n, error)))
        b->request.logprobs = (int32_t)n;
    else if (ok && strcmp(key, "priority") == 0 && (ok = whole(j, key, INT32_MIN, INT32_MAX, &n, error)))
        b->request.priority = (int32_t)n;
    else if (ok && strcmp(key, "n") == 0 && (ok = whole(j, key, 1, MAX_ANSWERS, &n, error)))
        b->n = (int)n;
    else if (ok && strcmp(key, "seed") == 0 && (ok = whole(j, key, 0, INT64_MAX, &n, error)))
        b->seed = (uint64_t)n;
    else if (ok)
        return parameter(b, key, j, error);
    return ok;
}

static bool request(BatchLine *b, MiEngine *e, const json_t *j, const BatchDefaults *d, GError **error)
{
    const json_t *text = json_object_get(j, "prompt"), *list = json_object_get(j, "messages"),
                 *numbers = json_object_get(j, "ids"), *id = json_object_get(j, "id"), *tools = json_object_get(j, "tools");
    bool          is_raw = d->raw;
    MiVar         messages, described;

    if (id && !is(JSON_STRING, id) && !is(JSON_INTEGER, id))
        return bad(error, "\"id\" must be a text or a whole number");
    if (id) {
        json_decref(b->id);
        b->id = json_incref((json_t *)(uintptr_t)id);
    }
    for (void *at = json_object_iter((json_t *)(uintptr_t)j); at; at = json_object_iter_next((json_t *)(uintptr_t)j, at))
        if (!member(b, json_object_iter_key(at), json_object_iter_value(at), &is_raw, error))
            return false;
    if (!!text + !!list + !!numbers != 1)
        return bad(error, "a request has one of \"prompt\", \"messages\" and \"ids\"");
    if (is(JSON_STRING, text))
        return prompt(b, e, json_string_value(text), json_string_length(text), d, is_raw, error);
    if (is(JSON_ARRAY, numbers))
        return ids(b, numbers, error);
    if (is(JSON_ARRAY, list))
        return var_of(b, list, 0, &messages, error) && (!tools || var_of(b, tools, 0, &described, error)) &&
               chat(b, e, &messages, tools ? &described : NULL, error);
    return bad(error, "\"prompt\" must be a text, \"messages\" and \"ids\" lists");
}

/* ---- a line --------------------------------------------------------------------------------- */
bool batch_line_read(BatchLine *b, MiEngine *e, const char *line, size_t len, int64_t number, const BatchDefaults *d,
                     GError **error)
{
    json_error_t why;

    *b = (BatchLine){ .id = json_integer(number), .n = 1, .owned = g_ptr_array_new_with_free_func(g_free),
                      .params = g_array_new(TRUE, TRUE, sizeof(MiParam)),
                      .request = { .max_tokens = d->max_tokens, .min_tokens = d->min_tokens, .ignore_eos = d->ignore_eos } };
    b->seed = g_ascii_strtoull(d->seed, NULL, 10);
    if (*d->stop) {
        char **list = keep(b, g_new0(char *, 2));
        b->request.stop = (const char *const *)list;
        list[0] = keep(b, g_strcompress(d->stop));
    }
    if (!g_utf8_validate(line, (gssize)len, NULL))
        return bad(error, "the line is not UTF-8");
    if (line[0] != '{')
        return prompt(b, e, line, len, d, d->raw, error);
    if ((b->json = json_loadb(line, len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &why)))
        return request(b, e, b->json, d, error);
    return bad(error, "%s, at column %d", why.text, why.column);
}

void batch_line_clear(BatchLine *b)
{
    json_decref(b->id);
    json_decref(b->json);
    g_ptr_array_unref(b->owned);
    g_array_unref(b->params);
}

char *batch_key(const json_t *id, int64_t index)
{
    return is(JSON_STRING, id) ? g_strdup_printf("s%s#%lld", json_string_value(id), (long long)index)
                              : g_strdup_printf("i%lld#%lld", (long long)json_integer_value(id), (long long)index);
}

json_t *batch_line_id(const char *line, size_t len, int64_t number, int *n)
{
    g_autoptr(GError) error = NULL;
    json_error_t      why;
    json_t           *j = line[0] == '{' ? json_loadb(line, len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &why) : NULL;
    json_t           *id = json_object_get(j, "id");
    int64_t           wanted = 1;

    *n = 1;
    if (!id && (j || line[0] != '{'))
        id = json_integer(number);
    else if (is(JSON_STRING, id) || is(JSON_INTEGER, id))
        json_incref(id);
    else
        id = NULL;
    if (j && json_object_get(j, "n") && whole(json_object_get(j, "n"), "n", 1, MAX_ANSWERS, &wanted, &error))
        *n = (int)wanted;
    json_decref(j);
    return id;
}

/* ---- what an answer depends on ------------------------------------------------------------------ */
static void hex_of(const char *text, size_t len, size_t letters, char *out)
{
    g_autofree char *all = g_compute_checksum_for_data(G_CHECKSUM_SHA256, (const guchar *)text, len);
    g_strlcpy(out, all, letters + 1);
}

enum { COMMON = 8, LINE = 16 }; /* letters of each of the first two parts; of the last */

char *batch_common_digest(MiEngine *e, const BatchDefaults *d)
{
    g_autofree char *model = NULL, *sampling = NULL;
    char             of_model[COMMON + 1], of_settings[COMMON + 1];

    if (MI_HAS(e->api, identity))
        e->api->identity(e, &model, &sampling);
    g_autofree char *settings = g_strdup_printf("%s\n%d %d %d %d\n%s\n%s\n%s", sampling ? sampling : "", d->raw, d->max_tokens,
                                                d->min_tokens, d->ignore_eos, d->stop, d->system, d->seed);
    hex_of(model ? model : "", model ? strlen(model) : 0, COMMON, of_model);
    hex_of(settings, strlen(settings), COMMON, of_settings);
    return g_strdup_printf("%s-%s", of_model, of_settings);
}

void batch_digest(const char *common, const char *line, size_t len, char out[BATCH_DIGEST])
{
    char of_line[LINE + 1];

    hex_of(line, len, LINE, of_line);
    g_snprintf(out, BATCH_DIGEST, "%s-%s", common, of_line);
}

const char *batch_differs(const char *digest, const char *wanted)
{
    if (strcmp(digest, wanted) == 0)
        return NULL;
    if (strlen(digest) != strlen(wanted) || strncmp(digest, wanted, COMMON) != 0)
        return "another model";
    return strncmp(digest, wanted, 2 * COMMON + 1) != 0 ? "other settings" : "another request";
}
