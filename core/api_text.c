/* api_text.c - text and ids, with the loaded model's tokenizer and chat template. */
#include "api_answer.h"
#include "parts.h"

#include <string.h>

static size_t counted(bool ok, size_t n, GError *why, MiniinferError *error)
{
    return mi_api_told(ok, why, error) ? n : SIZE_MAX;
}

static bool has_tokenizer(Miniinfer *mi, GError **error)
{
    if (mi->session.assembly->text.vt)
        return true;
    g_set_error_literal(error, MI_ERROR, MI_ERROR_NOT_FOUND, "the model's files have no tokenizer");
    return false;
}

size_t miniinfer_tokenize(Miniinfer *mi, const char *text, size_t len, bool special, int32_t *ids, size_t max,
                          MiniinferError *error)
{
    GError *why = NULL;
    size_t  n = SIZE_MAX;

    if (!mi_api_enter(mi, true, &why))
        return counted(false, 0, why, error);
    if (has_tokenizer(mi, &why) &&
        (n = mi->session.engine->api->encode(mi->session.engine, text, len, special, max ? ids : NULL, max)) == SIZE_MAX)
        g_set_error(&why, MI_ERROR, MI_ERROR_MODEL, "the model's tokenizer gave up on a text of %zu bytes", len);
    mi_api_leave(mi);
    return counted(!why, n, why, error);
}

/* Of a special piece its name, or nothing; NULL: no such id. */
static const char *piece(Miniinfer *mi, int32_t before, int32_t id, bool special, size_t *len)
{
    const MiTokenizerData *t = &mi->session.assembly->text.data;
    MiEngine              *e = mi->session.engine;

    if (id >= 0 && (uint32_t)id < t->n_pieces && t->pieces[id].type == MI_PIECE_CONTROL && !special) {
        *len = 0;
        return "";
    }
    return e->api->piece(e, before == t->bos ? -1 : before, id, len);
}

static bool detokenize(Miniinfer *mi, const int32_t *ids, size_t n, bool special, char *text, size_t max, size_t *bytes,
                       GError **error)
{
    if (!has_tokenizer(mi, error))
        return false;
    *bytes = 0;
    for (size_t i = 0; i < n; i++) {
        size_t      len = 0;
        const char *p = piece(mi, i ? ids[i - 1] : -1, ids[i], special, &len);
        if (!p) {
            g_set_error(error, MI_ERROR, MI_ERROR_CONFIG, "id %zu is %d; the tokenizer has none of that number", i, ids[i]);
            return false;
        }
        if (*bytes < max)
            memcpy(text + *bytes, p, MIN(len, max - *bytes));
        *bytes += len;
    }
    if (*bytes < max)
        text[*bytes] = 0;
    return true;
}

size_t miniinfer_detokenize(Miniinfer *mi, const int32_t *ids, size_t n, bool special, char *text, size_t max,
                            MiniinferError *error)
{
    GError *why = NULL;
    size_t  bytes = 0;
    bool    ok;

    if (!mi_api_enter(mi, true, &why))
        return counted(false, 0, why, error);
    ok = detokenize(mi, ids, n, special, text, max, &bytes, &why);
    mi_api_leave(mi);
    return counted(ok, bytes, why, error);
}

bool mi_api_chat(Miniinfer *mi, const MiniinferMessage *messages, size_t n, int32_t **ids, size_t *n_ids, GError **error)
{
    g_autofree MiMessage *list = g_try_new(MiMessage, n + 1);

    if (!list) {
        g_set_error(error, MI_ERROR, MI_ERROR_NO_MEMORY, "no memory for %zu messages", n);
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        if (!messages[i].role || !messages[i].content) {
            g_set_error(error, MI_MISUSE, 0, "message %zu lacks its role or its content", i);
            return false;
        }
        list[i] = (MiMessage){ messages[i].role, messages[i].content, strlen(messages[i].content) };
    }
    return mi_prompt_chat(mi->session.engine, mi->session.settings.generate.system, list, n, ids, n_ids, error);
}

size_t miniinfer_chat(Miniinfer *mi, const MiniinferMessage *messages, size_t n, int32_t *ids, size_t max,
                      MiniinferError *error)
{
    g_autofree int32_t *all = NULL;
    GError             *why = NULL;
    size_t              n_ids = 0;
    bool                ok;

    if (!mi_api_enter(mi, true, &why))
        return counted(false, 0, why, error);
    ok = mi_api_chat(mi, messages, n, &all, &n_ids, &why);
    mi_api_leave(mi);
    if (ok && max)
        memcpy(ids, all, MIN(n_ids, max) * sizeof *ids);
    return counted(ok, n_ids, why, error);
}
