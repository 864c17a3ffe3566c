/* determinism.c - see determinism.h. */
#include "determinism.h"
#include "interrupt.h"

#include <string.h>

enum { TOPS = 5 };

/* ---- requests ---------------------------------------------------------------------------- */

size_t mi_asked_length(const MiAsked *p, int i)
{
    return MAX(1, p->n_ids - p->n_ids * (size_t)i / (2 * (size_t)p->n));
}

static size_t prompt(const MiAsked *p, int i, int32_t *out)
{
    const size_t n = mi_asked_length(p, i);

    for (size_t k = 0; k < n; k++)
        out[k] = p->ids[(k + (i % 2 ? 7 * (size_t)i : 0)) % p->n_ids];
    return n;
}

static bool sampled(const MiAsked *p, int i) { return !p->greedy && i % 4 >= 2; }

static void event(void *user, const MiEvent *e) { mi_answer_take(user, e); }

static bool submit(const MiAsked *p, MiEngine *engine, int i, MiAnswer *a, GError **error)
{
    g_autofree int32_t *ids = g_new(int32_t, p->n_ids);
    g_autofree char    *seed = g_strdup_printf("%d", 1000 + i);
    const MiParam       greedy[] = { { "temperature", "0" }, { NULL, NULL } };
    const MiParam       drawn[] = { { "temperature", "0.8" }, { "seed", seed }, { NULL, NULL } };
    const MiRequest     q = {
        .tokens = ids, .n_tokens = prompt(p, i, ids), .max_tokens = p->tokens, .ignore_eos = true, .logprobs = TOPS,
        .params = p->greedy ? NULL : sampled(p, i) ? drawn : greedy, .prompt_logprobs = i == p->n - 1,
        .event = event, .user = a,
    };
    return engine->api->submit(engine, &q, error) != 0;
}

static bool wait(MiAnswer *a, GError **error)
{
    g_mutex_lock(&a->lock);
    while (!a->done)
        g_cond_wait(&a->more, &a->lock);
    g_mutex_unlock(&a->lock);
    if (!a->error)
        return true;
    if (error && !*error)
        g_propagate_error(error, g_steal_pointer(&a->error));
    return false;
}

void mi_asked_free(const MiAsked *p, MiAnswer *all)
{
    for (int i = 0; all && i < p->n; i++)
        mi_answer_clear(&all[i]);
    g_free(all);
}

double mi_asked_run(const MiAsked *p, MiEngine *engine, int at_once, MiAnswer **out, GError **error)
{
    MiAnswer     *all = g_new(MiAnswer, p->n);
    const int64_t from = g_get_monotonic_time();
    int           asked = 0, drawn = 0;
    bool          ok = true;

    for (int i = 0; i < p->n; i++)
        mi_answer_init(&all[i]);
    for (int i = 0; i < p->n && ok; i++) {
        while (ok && asked < MIN(p->n, i + at_once) && (ok = submit(p, engine, asked, &all[asked], error)))
            asked++;
        mi_progress_line("%d of %d requests", i, p->n);
        ok = ok && wait(&all[i], error) && !mi_interrupted();
        drawn += (int)all[i].ids->len;
    }
    for (int i = 0; i < asked; i++)
        (void)wait(&all[i], NULL);
    mi_progress_clear();
    *out = all;
    return ok ? 1e6 * drawn / (double)MAX(g_get_monotonic_time() - from, 1) : -1;
}

/* ---- comparing -------------------------------------------------------------------------- */

static bool bits_differ(const GArray *a, const GArray *b, guint i)
{
    const guint size = g_array_get_element_size((GArray *)(uintptr_t)a);
    return memcmp(a->data + (gsize)i * size, b->data + (gsize)i * size, size) != 0;
}

static char *values(const char *what, const GArray *a, const GArray *b, guint i)
{
    return g_strdup_printf("%s %.9g alone, %.9g there", what, (double)g_array_index(a, float, i),
                           (double)g_array_index(b, float, i));
}

/* NULL: none; *token: of the answer, -1: of the prompt. */
static char *difference(const MiAnswer *a, const MiAnswer *b, int *token)
{
    *token = -1;
    if (a->prompt_logprobs->len != b->prompt_logprobs->len)
        return g_strdup_printf("%u tokens of its prompt scored alone, %u there", a->prompt_logprobs->len,
                               b->prompt_logprobs->len);
    for (guint i = 0; i < a->prompt_logprobs->len; i++)
        if (bits_differ(a->prompt_logprobs, b->prompt_logprobs, i))
            return values("its prompt's log probability", a->prompt_logprobs, b->prompt_logprobs, i);
    for (guint i = 0; i < MIN(a->ids->len, b->ids->len); i++) {
        *token = (int)i;
        if (bits_differ(a->ids, b->ids, i))
            return g_strdup_printf("id %d alone, %d there", g_array_index(a->ids, int32_t, i),
                                   g_array_index(b->ids, int32_t, i));
        if (bits_differ(a->logprobs, b->logprobs, i))
            return values("log probability", a->logprobs, b->logprobs, i);
        for (guint t = i * (guint)a->n_tops; t < (i + 1) * (guint)a->n_tops; t++) {
            const MiTop *x = &g_array_index(a->tops, MiTop, t), *y = &g_array_index(b->tops, MiTop, t);
            if (bits_differ(a->tops, b->tops, t))
                return g_strdup_printf("of the likeliest, %d at %.9g alone, %d at %.9g there", x->id,
                                       (double)x->logprob, y->id, (double)y->logprob);
        }
    }
    *token = (int)MIN(a->ids->len, b->ids->len);
    return a->ids->len == b->ids->len ? NULL : g_strdup_printf("%u tokens alone, %u there", a->ids->len, b->ids->len);
}

char *mi_asked_difference(const MiAsked *p, const MiAnswer *alone, const MiAnswer *there, int *request, int *token)
{
    char *words = NULL;

    for (*request = 0; *request < p->n && !words; ++*request)
        words = difference(&alone[*request], &there[*request], token);
    --*request;
    return words;
}
