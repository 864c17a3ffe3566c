/* sequence.c - what a request asks for, and its answer becoming text. */
#include "sequence.h"
#include "options.h"

#include <string.h>
#include <sys/random.h>

/* ---- parameters --------------------------------------------------------------- */

static const MiOption *param(const MiLink *l, const char *key)
{
    for (const MiOption *o = l->sampler->params; o && o->key; o++)
        if (strcmp(o->key, key) == 0)
            return o;
    return NULL;
}

static bool set_param(MiRequested *q, const MiAssembly *a, const char *key, const char *value, GError **error)
{
    bool known = false;

    for (int i = 0; i < a->n_links; i++) {
        if (!param(&a->links[i], key))
            continue;
        if (!mi_options_set(a->links[i].sampler->params, q->rows[i], key, value, error))
            return false;
        known = true;
    }
    if (!known)
        g_set_error(error, MI_ERROR, MI_ERROR_CONFIG, "no link of the sampler chain knows the parameter '%s'", key);
    return known;
}

/* Seed 0 is none: one is drawn for the request. */
static void draw_seed(MiRequested *q, const MiAssembly *a)
{
    for (int i = 0; i < a->n_links; i++) {
        const MiOption *o = param(&a->links[i], "seed");
        uint64_t       *seed = o && o->type == MI_UINT64 ? (void *)((char *)q->rows[i] + o->offset) : NULL;
        if (seed && !*seed && getrandom(seed, sizeof *seed, 0) != sizeof *seed)
            *seed = (uint64_t)g_get_real_time() ^ q->pub.id << 32;
    }
}

static bool read_params(MiRequested *q, const MiAssembly *a, const MiRequest *r, GError **error)
{
    for (int i = 0; i < a->n_links; i++)
        if (a->links[i].defaults)
            q->rows[i] = g_memdup2(a->links[i].defaults, a->links[i].row_size);
    for (const MiParam *p = r->params; p && p->key; p++)
        if (!set_param(q, a, p->key, p->value, error))
            return false;
    draw_seed(q, a);
    for (int i = 0; i < a->n_links; i++) {
        const MiSampler *s = a->links[i].sampler;
        if (s->draws || !MI_HAS(s, wants) || s->wants(q->rows[i]))
            q->links |= 1u << i;
    }
    return true;
}

/* While an answer is shorter than min_tokens its end is made impossible by a bias. */
static bool needs_biases(MiRequested *q, const MiAssembly *a, GError **error)
{
    if (q->min_tokens <= 0 || !q->n_stop_ids)
        return true;
    for (int i = 0; i < a->n_links; i++)
        for (const MiOption *o = a->links[i].sampler->params; o && o->key; o++)
            if (o->type == MI_BIASES) {
                q->links |= 1u << i;
                return true;
            }
    g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED, "min_tokens needs 'logit_bias' in [sampler] chain");
    return false;
}

static void collect_stops(MiRequested *q, const MiAssembly *a, const MiRequest *r)
{
    const MiTokenizerData *t = &a->text.data;
    const uint32_t         own = r->ignore_eos ? 0 : t->n_stop;

    q->stop_ids = g_new(int32_t, own + (uint32_t)r->n_stop_ids + 1);
    for (uint32_t i = 0; i < own; i++)
        q->stop_ids[q->n_stop_ids++] = t->stop[i];
    for (int32_t i = 0; i < r->n_stop_ids; i++)
        q->stop_ids[q->n_stop_ids++] = r->stop_ids[i];
    if (r->stop)
        q->stop = g_strdupv((char **)(uintptr_t)r->stop);
}

static bool check_prompt(const MiAssembly *a, const MiRequest *r, GError **error)
{
    if (!r->n_tokens) {
        g_set_error(error, MI_ERROR, MI_ERROR_CONFIG, "the prompt is empty");
        return false;
    }
    if (r->n_tokens + (r->max_tokens < 0 ? 0 : 1) > (size_t)a->longest) {
        g_set_error(error, MI_ERROR, MI_ERROR_CONFIG, "the prompt is %zu tokens; %s %d leaves room for %d", r->n_tokens,
                    a->longest < a->max_len ? "the cache's room of" : "[engine] max_len =", a->longest, MAX(a->longest - 1, 0));
        return false;
    }
    for (size_t i = 0; i < r->n_tokens; i++)
        if (r->tokens[i] < 0 || r->tokens[i] >= a->vocab) {
            g_set_error(error, MI_ERROR, MI_ERROR_CONFIG, "token %zu of the prompt is %d; the model has 0 to %d", i,
                        r->tokens[i], a->vocab - 1);
            return false;
        }
    if (r->logprobs < 0 || r->logprobs > MI_MAX_TOPS) {
        g_set_error(error, MI_ERROR, MI_ERROR_CONFIG, "logprobs is %d; 0 to %d are possible", r->logprobs, MI_MAX_TOPS);
        return false;
    }
    return true;
}

MiRequested *mi_requested_new(const MiAssembly *a, const MiRequest *r, uint64_t id, GError **error)
{
    MiRequested *q;

    if (!check_prompt(a, r, error))
        return NULL;
    const int32_t n = (int32_t)r->n_tokens, room = a->longest - n;
    int32_t      *tokens = g_try_new(int32_t, (gsize)a->max_len + 1);
    if (!tokens) {
        g_set_error(error, MI_ERROR, MI_ERROR_NO_MEMORY, "no memory for a request of up to %d tokens", a->max_len);
        return NULL;
    }
    q = g_new0(MiRequested, 1);
    q->pub = (MiSequence){
        .id = id, .slot = -1, .tokens = tokens, .n_prompt = n, .n_tokens = n,
        .max_tokens = r->max_tokens < 0 ? 0 : r->max_tokens ? MIN(r->max_tokens, room) : room,
        .priority = r->priority, .fresh = r->prompt_logprobs, .arrived = g_get_monotonic_time(), .owner = q,
    };
    q->pub.client = q->client = g_strdup(r->client ? r->client : "");
    memcpy(q->pub.tokens, r->tokens, r->n_tokens * sizeof *r->tokens);
    q->n_known = n;
    q->event = r->event;
    q->user = r->user;
    q->min_tokens = r->min_tokens;
    q->logprobs = r->logprobs;
    q->prompt_logprobs = r->prompt_logprobs;
    q->held = g_string_sized_new(4096);
    q->valid = g_string_sized_new(4096);
    q->arrived_us = q->pub.arrived;
    collect_stops(q, a, r);
    if (read_params(q, a, r, error) && needs_biases(q, a, error))
        return q;
    mi_requested_free(q);
    return NULL;
}

void mi_requested_free(MiRequested *q)
{
    if (!q)
        return;
    for (int i = 0; i < MI_MAX_LINKS; i++)
        g_free(q->rows[i]);
    g_free(q->pub.tokens);
    g_free(q->client);
    g_free(q->stop_ids);
    g_strfreev(q->stop);
    g_string_free(q->held, TRUE);
    g_string_free(q->valid, TRUE);
    g_free(q);
}

/* ---- text ----------------------------------------------------------------------- */

/* How much of text is whole characters: an incomplete one at the end may still become one. */
static size_t whole(const char *text, size_t len)
{
    for (size_t back = 1; back <= 3 && back <= len; back++) {
        const unsigned char c = (unsigned char)text[len - back];
        if (c >= 0xc0) /* begins a character of 2, 3 or 4 bytes */
            return back < (c >= 0xf0 ? 4u : c >= 0xe0 ? 3u : 2u) ? len - back : len;
        if (c < 0x80)
            return len;
    }
    return len;
}

/* Where a stop string begins, at the end perhaps only its first bytes; len: nowhere. */
static size_t find_stop(const MiRequested *q, const char *text, size_t len, bool *complete)
{
    size_t first = len;

    *complete = false;
    for (char **s = q->stop; s && *s; s++) {
        const size_t n = strlen(*s);
        for (size_t at = 0; n && at < len && at <= first; at++) {
            const size_t have = MIN(n, len - at);
            if (memcmp(text + at, *s, have) != 0)
                continue;
            if (at < first || have == n)
                *complete = have == n;
            first = at;
            break;
        }
    }
    return first;
}

static void tell(const MiRequested *q, MiEvent *e)
{
    e->id = q->pub.id;
    if (q->event)
        q->event(q->user, e);
}

/* Bytes that are no UTF-8 become U+FFFD: front ends get text. */
static void mend(MiRequested *q, size_t len)
{
    const char *text = q->held->str, *end;

    g_string_truncate(q->valid, 0);
    for (size_t at = 0; at < len; at++) {
        const bool ok = g_utf8_validate_len(text + at, len - at, &end);
        g_string_append_len(q->valid, text + at, end - (text + at));
        at = (size_t)(end - text);
        if (!ok)
            g_string_append(q->valid, "\xef\xbf\xbd");
    }
}

static void send_text(MiRequested *q, size_t len, MiEvent *e)
{
    e->text = q->held->str;
    e->len = len;
    if (len && !g_utf8_validate_len(q->held->str, len, NULL)) {
        mend(q, len);
        e->text = q->valid->str;
        e->len = q->valid->len;
    }
    tell(q, e);
    if (len)
        g_string_erase(q->held, 0, (gssize)len);
}

static void append_piece(MiRequested *q, const MiAssembly *a, int32_t token)
{
    const MiTokenizerData *t = &a->text.data;
    const int32_t          before = q->pub.tokens[q->n_known - 2];
    size_t                 len;

    if (!a->text.vt || token < 0 || (uint32_t)token >= t->n_pieces || t->pieces[token].type == MI_PIECE_CONTROL)
        return;
    const char *piece = a->text.vt->piece(a->text.self, before == t->bos ? -1 : before, token, &len);
    if (piece)
        g_string_append_len(q->held, piece, (gssize)len);
}

static bool is_stop(const MiRequested *q, int32_t token)
{
    for (int32_t i = 0; i < q->n_stop_ids; i++)
        if (q->stop_ids[i] == token)
            return true;
    return false;
}

static void fill_tops(const MiRequested *q, const float *logprobs, const int32_t *ids, MiTop *tops, MiEvent *e)
{
    if (!logprobs || !q->logprobs)
        return;
    for (int i = 0; i < q->logprobs; i++)
        tops[i] = (MiTop){ ids[1 + i], logprobs[1 + i] };
    e->logprobs = logprobs;
    e->tops = tops;
    e->n_tops = q->logprobs;
}

bool mi_requested_drawn(MiRequested *q, const MiAssembly *a, int32_t token, const float *logprobs, const int32_t *ids)
{
    MiEvent   e = { .type = MI_EVENT_TEXT, .tokens = &token, .n_tokens = 1 };
    MiTop     tops[MI_MAX_TOPS];
    bool      complete;
    const int drawn = q->n_known - q->pub.n_prompt;

    if (!q->first_us)
        q->first_us = g_get_monotonic_time();
    if (is_stop(q, token) && drawn >= q->min_tokens) {
        mi_requested_finish(q, MI_FINISH_STOP);
        return true;
    }
    q->pub.tokens[q->n_known++] = token;
    q->pub.n_tokens = MAX(q->pub.n_tokens, q->n_known);
    append_piece(q, a, token);
    fill_tops(q, logprobs, ids, tops, &e);
    const size_t stop = find_stop(q, q->held->str, q->held->len, &complete);
    send_text(q, complete ? stop : MIN(stop, whole(q->held->str, q->held->len)), &e);
    if (complete) {
        g_string_truncate(q->held, 0);
        mi_requested_finish(q, MI_FINISH_STOP);
        return true;
    }
    if (drawn + 1 < q->pub.max_tokens)
        return false;
    mi_requested_finish(q, MI_FINISH_LENGTH);
    return true;
}

void mi_requested_scored(MiRequested *q, int32_t first, int32_t n, const float *logprobs, const int32_t *ids)
{
    for (int32_t i = 0; i < n; i++) {
        MiEvent e = { .type = MI_EVENT_PROMPT, .tokens = &q->pub.tokens[first + i], .n_tokens = 1,
                      .logprobs = logprobs + (size_t)i * (1 + MI_MAX_TOPS) };
        MiTop   tops[MI_MAX_TOPS];
        fill_tops(q, e.logprobs, ids + (size_t)i * (1 + MI_MAX_TOPS), tops, &e);
        tell(q, &e);
    }
    q->n_scored = first + n - 1;
}

void mi_requested_finish(MiRequested *q, MiFinish finish)
{
    const int64_t now = g_get_monotonic_time();
    MiEvent       e = { .type = MI_EVENT_TEXT };

    if (q->finished)
        return;
    q->finished = true;
    q->pub.ended = finish != MI_FINISH_CANCELLED;
    if (q->held->len)
        send_text(q, q->held->len, &e);
    const int64_t started = q->started_us ? q->started_us : now, first = q->first_us ? q->first_us : now;
    e = (MiEvent){
        .type = MI_EVENT_DONE, .finish = finish, .n_prompt = q->pub.n_prompt, .n_cached = q->n_found,
        .n_drawn = q->n_known - q->pub.n_prompt, .queued_us = started - q->arrived_us,
        .prompt_us = first - started, .decode_us = now - first,
    };
    tell(q, &e);
}

void mi_requested_fail(MiRequested *q, const GError *why)
{
    MiEvent e = { .type = MI_EVENT_ERROR, .text = why->message, .len = strlen(why->message),
                  .code = why->domain == MI_ERROR ? why->code : MI_ERROR_PLUGIN };

    if (q->finished)
        return;
    q->finished = true;
    tell(q, &e);
}
