/* cmd_determinism.c - does anything but the request change its answer?
 *
 * Requests made of the user's text, greedy and sampled, are answered one by one by an engine for one sequence:
 * that is what each gives alone.  Then together, their prompts cut, with too little memory, with their beginnings
 * in the cache; tokens and log probabilities are compared bit for bit.  At last without the option, for its cost. */
#include "answer.h"
#include "cmd.h"
#include "interrupt.h"
#include "parts.h"

#include <stdio.h>
#include <string.h>

enum { TOPS = 5, ROUNDS = 2 };

typedef enum { SAME, DIFFERS, NOT_RUN } Outcome;

typedef struct {
    char   *name, *note; /* note: what happened besides, or why it was not run; may be NULL */
    Outcome outcome;
    char   *difference;  /* the first, in words */
    int     request, token;
} Case;

typedef struct {
    const MiCommandLine *line;
    int32_t  *ids; /* [n_ids] the text */
    size_t    n_ids;
    int       batch, tokens;
    char     *places; /* batch, as a setting */
    int32_t  *chunks; /* [n_chunks] */
    size_t    n_chunks;
    bool      greedy; /* a seed or a temperature is nothing that the chain knows */
    GArray   *cases;  /* Case */
    MiAnswer *alone;  /* [batch]; NULL: not answered yet */
    double    with, without; /* tokens/s, all at once */
    bool      equal_without; /* and whether all was the same there */
    char     *what;   /* what was tested, a line */
} Proof;

/* ---- requests ---------------------------------------------------------------------------- */

/* Every other one begins with the text, each a little shorter than the one before; the others begin within it. */
static size_t prompt_length(const Proof *p, int i)
{
    return MAX(1, p->n_ids - p->n_ids * (size_t)i / (2 * (size_t)p->batch));
}

static size_t prompt(const Proof *p, int i, int32_t *out)
{
    const size_t n = prompt_length(p, i);

    for (size_t k = 0; k < n; k++)
        out[k] = p->ids[(k + (i % 2 ? 7 * (size_t)i : 0)) % p->n_ids];
    return n;
}

static bool sampled(const Proof *p, int i) { return !p->greedy && i % 4 >= 2; }

static void event(void *user, const MiEvent *e) { mi_answer_take(user, e); }

static bool submit(const Proof *p, MiEngine *engine, int i, MiAnswer *a, GError **error)
{
    g_autofree int32_t *ids = g_new(int32_t, p->n_ids);
    g_autofree char    *seed = g_strdup_printf("%d", 1000 + i);
    const MiParam       greedy[] = { { "temperature", "0" }, { NULL, NULL } };
    const MiParam       drawn[] = { { "temperature", "0.8" }, { "seed", seed }, { NULL, NULL } };
    const MiRequest     q = {
        .tokens = ids, .n_tokens = prompt(p, i, ids), .max_tokens = p->tokens, .ignore_eos = true, .logprobs = TOPS,
        .params = p->greedy ? NULL : sampled(p, i) ? drawn : greedy, .prompt_logprobs = i == p->batch - 1,
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

static void free_answers(const Proof *p, MiAnswer *all)
{
    for (int i = 0; all && i < p->batch; i++)
        mi_answer_clear(&all[i]);
    g_free(all);
}

/* at_once: how many of them, before the first of those is waited for.  Tokens a second, of all; below 0: *error. */
static double ask(const Proof *p, MiEngine *engine, int at_once, MiAnswer **out, GError **error)
{
    MiAnswer     *all = g_new(MiAnswer, p->batch);
    const int64_t from = g_get_monotonic_time();
    int           asked = 0, drawn = 0;
    bool          ok = true;

    for (int i = 0; i < p->batch; i++)
        mi_answer_init(&all[i]);
    for (int i = 0; i < p->batch && ok; i++) {
        while (ok && asked < MIN(p->batch, i + at_once) && (ok = submit(p, engine, asked, &all[asked], error)))
            asked++;
        mi_progress_line("%d of %d requests", i, p->batch);
        ok = ok && wait(&all[i], error) && !mi_interrupted();
        drawn += (int)all[i].ids->len;
    }
    for (int i = 0; i < asked; i++)
        (void)wait(&all[i], NULL);
    mi_progress_clear();
    *out = all;
    return ok ? 1e6 * drawn / (double)MAX(g_get_monotonic_time() - from, 1) : -1;
}

/* ---- comparing ----------------------------------------------------------------------------- */

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

static Case compared(const Proof *p, char *name, const MiAnswer *got)
{
    Case c = { .name = name };

    for (int i = 0; i < p->batch; i++)
        if ((c.difference = difference(&p->alone[i], &got[i], &c.token))) {
            c.request = i;
            c.outcome = DIFFERS;
            break;
        }
    return c;
}

/* ---- engines ------------------------------------------------------------------------------- */

typedef struct {
    MiSession     session;
    MiCommandLine line;
} Opened;

/* The user's configuration, then "key", "value" in turn, which have the last word; to be ended even if it fails. */
static bool begin(const Proof *p, Opened *o, MiSessionDepth depth, const char *const *more, GError **error)
{
    GPtrArray *all = g_ptr_array_new();

    g_ptr_array_add(all, (char *)"engine.deterministic");
    g_ptr_array_add(all, (char *)"batch");
    for (guint i = 0; i < p->line->settings->len; i++)
        g_ptr_array_add(all, p->line->settings->pdata[i]);
    for (; *more; more++)
        g_ptr_array_add(all, (char *)(uintptr_t)*more);
    o->line = *p->line;
    o->line.settings = all;
    return mi_session_open(&o->session, &o->line, depth, error);
}

/* With a place for each request. */
static bool begin_for_all(const Proof *p, Opened *o, const char *key, const char *value, GError **error)
{
    const char *more[] = { "engine.max_seqs", p->places, key, value, NULL };
    return begin(p, o, MI_WITH_ENGINE, more, error);
}

static void end(Opened *o)
{
    mi_session_close(&o->session);
    g_ptr_array_unref(o->line.settings);
}

static bool encode(Proof *p, MiEngine *engine, GError **error)
{
    const char *said = mi_flag(p->line, "prompt");
    const char *text = said ? said :
        "The quick brown fox jumps over the lazy dog, and then it runs through the woods until it comes to a river. "
        "The water is cold and the other side is far away. A boat lies between the reeds, but there is nobody who "
        "could row it, and so the fox sits down and waits for the evening.";

    return p->ids || mi_prompt_text(engine, text, strlen(text), false, &p->ids, &p->n_ids, error);
}

static bool has_option(const MiOption *o, const char *key)
{
    for (; o && o->key; o++)
        if (strcmp(o->key, key) == 0)
            return true;
    return false;
}

static bool has_param(const MiAssembly *a, const char *key)
{
    for (int i = 0; i < a->n_links; i++)
        if (has_option(a->links[i].sampler->params, key))
            return true;
    return false;
}

static void describe(Proof *p, const MiAssembly *a)
{
    g_autoptr(GString) linears = g_string_new(NULL);
    size_t             least = p->n_ids;

    for (int i = 0; i < p->batch; i++)
        least = MIN(least, prompt_length(p, i));
    for (guint i = 0; i < a->weights->packs->len; i++) {
        const char *name = ((const MiPack *)a->weights->packs->pdata[i])->feature->name;
        if (!strstr(linears->str, name))
            g_string_append_printf(linears, "%s%s", linears->len ? ", " : "", name);
    }
    p->what = g_strdup_printf("%s, linear %s, attention %s, cache %s, scheduler %s; %d requests of %zu to %zu tokens, "
                              "%d drawn for each, %s",
                              a->backend->name, linears->str, a->attention->name, a->cache->name, a->scheduler->name,
                              p->batch, least, p->n_ids, p->tokens, p->greedy ? "greedy" : "half of them sampled");
}

/* ---- cases --------------------------------------------------------------------------------- */

static bool alone(Proof *p, GError **error)
{
    const char *more[] = { "engine.max_seqs", "1", NULL };
    Opened      o;
    bool        ok = begin(p, &o, MI_WITH_ENGINE, more, error) && encode(p, o.session.engine, error);

    if (ok) {
        p->greedy = !has_param(o.session.assembly, "seed") || !has_param(o.session.assembly, "temperature");
        describe(p, o.session.assembly);
        ok = ask(p, o.session.engine, 1, &p->alone, error) >= 0;
    }
    end(&o);
    return ok;
}

/* All requests, so many at once; takes the name.  NULL: *error, or it was interrupted. */
static Case *try(Proof *p, const Opened *o, int at_once, char *name, GError **error)
{
    MiAnswer  *got = NULL;
    const bool ok = ask(p, o->session.engine, at_once, &got, error) >= 0;

    if (ok) {
        const Case c = compared(p, name, got);
        g_array_append_val(p->cases, c);
    } else
        g_free(name);
    free_answers(p, got);
    return ok ? &g_array_index(p->cases, Case, p->cases->len - 1) : NULL;
}

/* The fastest of some rounds, all at once. */
static bool timed(Proof *p, const Opened *o, double *best, bool *equal, GError **error)
{
    bool ok = true;

    for (int i = 0; i < ROUNDS && ok; i++) {
        MiAnswer    *got = NULL;
        const double rate = ask(p, o->session.engine, p->batch, &got, error);
        if ((ok = rate >= 0)) {
            const Case c = compared(p, NULL, got);
            *equal = *equal && c.outcome == SAME;
            g_free(c.difference);
        }
        *best = MAX(*best, rate);
        free_answers(p, got);
    }
    return ok;
}

static bool together(Proof *p, GError **error)
{
    const int half = MAX(2, p->batch / 2);
    bool      unused = true, ok;
    Opened    o;

    ok = begin_for_all(p, &o, NULL, NULL, error) &&
         try(p, &o, 1, g_strdup_printf("alone, in an engine for %d", p->batch), error) &&
         try(p, &o, p->batch, g_strdup_printf("%d at once", p->batch), error) &&
         try(p, &o, half, g_strdup_printf("%d at once, the next when one ends", half), error) &&
         timed(p, &o, &p->with, &unused, error);
    end(&o);
    return ok;
}

static bool cut(Proof *p, int32_t chunk, GError **error)
{
    g_autofree char *size = g_strdup_printf("%d", chunk);
    Opened           o;
    const bool       ok = begin_for_all(p, &o, "engine.prefill_step", size, error) &&
                          try(p, &o, p->batch, g_strdup_printf("prompts in pieces of %d", chunk), error);

    end(&o);
    return ok;
}

static bool without(Proof *p, GError **error)
{
    Opened o;

    p->equal_without = true;
    const bool ok = begin_for_all(p, &o, "engine.deterministic", "off", error) &&
                    timed(p, &o, &p->without, &p->equal_without, error);
    end(&o);
    return ok;
}

/* ---- cases of shared and scarce memory -------------------------------------------------------- */

static const char in_cache[] = "beginnings found in the cache", made_room[] = "after making room for others";

/* A cache that finds beginnings, and whose memory an option limits: the user's, or another one; NULL: none. */
static const MiFeature *sharing_cache(const MiAssembly *a)
{
    g_autoptr(GPtrArray) all = mi_registry_list(a->registry, MI_KIND_CACHE, a->backend->name);
    const MiFeature     *found = NULL;

    for (guint i = 0; i < all->len; i++) {
        const MiFeature *f = all->pdata[i];
        if (MI_HAS((const MiCache *)f->vtable, match) && has_option(f->options, "bytes") && (!found || f == a->cache))
            found = f;
    }
    return found;
}

/* A quarter of what all take at once, but enough for the longest; a cache's own tables go on top. */
static size_t quarter(const Proof *p, const MiCacheSpec *c, int *longest)
{
    const size_t vector = (size_t)c->n_kv_heads * (size_t)c->head_dim * mi_dtype_size(c->dtype);
    const size_t position = 2 * (size_t)c->n_layers * vector;
    size_t       need = 0;

    *longest = 0;
    for (int i = 0; i < p->batch; i++) {
        const size_t n = prompt_length(p, i) + (size_t)p->tokens;
        *longest = MAX(*longest, (int)n);
        need += n;
    }
    return (MAX(need / 4, (size_t)*longest) + 16) * position +
           (size_t)(*longest + 64) * (size_t)p->batch * sizeof(int32_t);
}

/* What is not possible with this configuration is a case that was not run; other errors stay. */
static bool impossible(Proof *p, const char *name, GError *why, GError **error)
{
    if (!g_error_matches(why, MI_ERROR, MI_ERROR_CONFIG) && !g_error_matches(why, MI_ERROR, MI_ERROR_UNSUPPORTED) &&
        !g_error_matches(why, MI_ERROR, MI_ERROR_NO_MEMORY)) {
        if (why)
            g_propagate_error(error, why);
        return false;
    }
    const Case c = { .name = g_strdup(name), .note = g_strdup(why->message), .outcome = NOT_RUN };
    g_array_append_val(p->cases, c);
    g_error_free(why);
    return true;
}

static void note(Case *c, char *text, bool happened)
{
    c->note = text;
    if (!happened && c->outcome == SAME)
        c->outcome = NOT_RUN;
}

/* Twice in one engine: the second time all is there already. */
static bool found(Proof *p, const char *cache, GError **error)
{
    GError *why = NULL;
    MiStats before, after;
    Opened  o;
    Case   *c = NULL;

    if (begin_for_all(p, &o, "engine.cache", cache, &why) &&
        try(p, &o, 1, g_strdup_printf("alone, cache %s", cache), &why)) {
        o.session.engine->api->stats(o.session.engine, &before);
        c = try(p, &o, p->batch, g_strdup(in_cache), &why);
    }
    if (c) {
        o.session.engine->api->stats(o.session.engine, &after);
        const uint64_t n = after.found_tokens - before.found_tokens, of = after.prompt_tokens - before.prompt_tokens;
        note(c, g_strdup_printf("cache %s: %d of %d tokens", cache, (int)n, (int)of), n > 0);
    }
    end(&o);
    return c || impossible(p, in_cache, why, error);
}

static bool scarce(Proof *p, const char *cache, size_t bytes, int longest, GError **error)
{
    g_autofree char *key = g_strdup_printf("cache.%s.bytes", cache), *value = g_strdup_printf("%zu", bytes);
    g_autofree char *max_len = g_strdup_printf("%d", longest + 1), *size = g_format_size(bytes);
    const char      *more[] = { "engine.max_seqs", p->places, "engine.cache", cache, key, value,
                                "engine.max_len", max_len, NULL };
    GError          *why = NULL;
    MiStats          s;
    Opened           o;
    Case            *c = NULL;

    if (begin(p, &o, MI_WITH_ENGINE, more, &why) && (c = try(p, &o, p->batch, g_strdup(made_room), &why))) {
        o.session.engine->api->stats(o.session.engine, &s);
        note(c, g_strdup_printf("cache %s of %s: %d lost their place", cache, size, (int)s.preemptions),
             s.preemptions > 0);
    }
    end(&o);
    return c || impossible(p, made_room, why, error);
}

static bool memory(Proof *p, GError **error)
{
    const char      *more[] = { NULL };
    g_autofree char *cache = NULL;
    int              longest = 0;
    size_t           bytes = 0;
    Opened           o;
    bool             ok = begin(p, &o, MI_WITH_PLAN, more, error);

    if (ok) {
        const MiFeature *f = sharing_cache(o.session.assembly);
        bytes = quarter(p, &o.session.assembly->cache_spec, &longest);
        cache = f ? g_strdup(f->name) : NULL;
    }
    end(&o);
    if (!ok || cache)
        return ok && found(p, cache, error) && scarce(p, cache, bytes, longest, error);
    const char *none = "no cache here finds beginnings and has an option 'bytes'";
    return impossible(p, in_cache, g_error_new_literal(MI_ERROR, MI_ERROR_UNSUPPORTED, none), error) &&
           impossible(p, made_room, g_error_new_literal(MI_ERROR, MI_ERROR_UNSUPPORTED, none), error);
}

static bool prove(Proof *p, GError **error)
{
    bool ok = alone(p, error) && together(p, error);

    for (size_t i = 0; i < p->n_chunks && ok; i++)
        ok = cut(p, p->chunks[i], error);
    return ok && memory(p, error) && without(p, error);
}

/* ---- printing --------------------------------------------------------------------------------- */

static int count(const Proof *p, Outcome outcome)
{
    int n = 0;
    for (guint i = 0; i < p->cases->len; i++)
        n += g_array_index(p->cases, Case, i).outcome == outcome;
    return n;
}

static void print_case(const Case *c)
{
    static const char *const words[] = { [SAME] = "ok", [DIFFERS] = "DIFFERS", [NOT_RUN] = "not run" };

    printf("%-8s %s", words[c->outcome], c->name);
    if (c->note)
        printf(" (%s)", c->note);
    if (c->difference && c->token < 0)
        printf(": request %d: %s", c->request, c->difference);
    else if (c->difference)
        printf(": request %d, token %d: %s", c->request, c->token, c->difference);
    printf("\n");
}

static double cost(const Proof *p) { return p->without > 0 ? 1 - p->with / p->without : 0; }

static void print(const Proof *p)
{
    printf("%s\n\n", p->what);
    for (guint i = 0; i < p->cases->len; i++)
        print_case(&g_array_index(p->cases, Case, i));
    printf("\n%d the same to the bit, %d not, %d not run\n", count(p, SAME), count(p, DIFFERS), count(p, NOT_RUN));
    printf("cost: %d at once give %.1f tokens/s, with deterministic = off %.1f: %.1f %% %s; answers there are %s\n",
           p->batch, p->with, p->without, 100 * (cost(p) < 0 ? -cost(p) : cost(p)), cost(p) < 0 ? "faster" : "slower",
           p->equal_without ? "the same, too" : "others");
}

static void print_json(const Proof *p)
{
    static const char *const words[] = { [SAME] = "same", [DIFFERS] = "differs", [NOT_RUN] = "not_run" };
    MiJson                   j = mi_json_new();

    mi_json_open(&j, NULL, '{');
    mi_json_bool(&j, "ok", !count(p, DIFFERS));
    mi_json_string(&j, "what", p->what);
    mi_json_open(&j, "cases", '[');
    for (guint i = 0; i < p->cases->len; i++) {
        const Case *c = &g_array_index(p->cases, Case, i);
        mi_json_open(&j, NULL, '{');
        mi_json_string(&j, "case", c->name);
        mi_json_string(&j, "outcome", words[c->outcome]);
        mi_json_string(&j, "note", c->note);
        if (c->difference) {
            mi_json_int(&j, "request", c->request);
            mi_json_int(&j, "token", c->token);
            mi_json_string(&j, "difference", c->difference);
        }
        mi_json_close(&j, '}');
    }
    mi_json_close(&j, ']');
    mi_json_float(&j, "tokens_per_s", p->with);
    mi_json_float(&j, "tokens_per_s_off", p->without);
    mi_json_bool(&j, "same_with_off", p->equal_without);
    mi_json_close(&j, '}');
    mi_json_print(&j);
}

/* ---- the command ------------------------------------------------------------------------------ */

static bool read_flags(const MiCommandLine *cl, Proof *p, GError **error)
{
    static const char *const others[] = { "against", "node", "steps" };

    for (size_t i = 0; i < G_N_ELEMENTS(others); i++)
        if (mi_flag(cl, others[i])) {
            g_set_error(error, MI_ERROR, MI_ERROR_CONFIG,
                        "--%s is of the comparison node by node; --determinism compares answers", others[i]);
            return false;
        }
    if (mi_flag(cl, "prompt") && mi_flag(cl, "ids")) {
        g_set_error(error, MI_ERROR, MI_ERROR_CONFIG, "one of -p and --ids is enough");
        return false;
    }
    if ((mi_flag(cl, "ids") && !mi_cmd_ids(mi_flag(cl, "ids"), &p->ids, &p->n_ids, error)) ||
        !mi_cmd_ids(mi_flag(cl, "chunks") ? mi_flag(cl, "chunks") : "1,7,64,512", &p->chunks, &p->n_chunks, error) ||
        !mi_flag_int(cl, "tokens", 1, 1 << 20, 32, &p->tokens, error) ||
        !mi_flag_int(cl, "batch", 2, 4096, 8, &p->batch, error))
        return false;
    p->places = g_strdup_printf("%d", p->batch);
    for (size_t i = 0; i < p->n_chunks; i++)
        if (p->chunks[i] < 1) {
            g_set_error(error, MI_ERROR, MI_ERROR_CONFIG, "--chunks has %d; 1 and more are possible", p->chunks[i]);
            return false;
        }
    return true;
}

int mi_cmd_determinism(MiCommandLine *cl)
{
    Proof   p = { .line = cl, .cases = g_array_new(FALSE, TRUE, sizeof(Case)) };
    GError *error = NULL;
    int     status;

    mi_interrupt_start();
    if (!read_flags(cl, &p, &error))
        status = mi_cmd_usage(error);
    else if (!prove(&p, &error))
        status = error ? mi_cmd_report(error) : 130;
    else {
        (mi_flag(cl, "json") ? print_json : print)(&p);
        status = count(&p, DIFFERS) ? MI_EXIT_DIFFERS : 0;
    }
    for (guint i = 0; i < p.cases->len; i++) {
        Case *c = &g_array_index(p.cases, Case, i);
        g_free(c->name);
        g_free(c->note);
        g_free(c->difference);
    }
    g_array_unref(p.cases);
    free_answers(&p, p.alone);
    g_free(p.ids);
    g_free(p.chunks);
    g_free(p.places);
    g_free(p.what);
    return status;
}
