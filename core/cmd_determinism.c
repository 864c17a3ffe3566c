/* cmd_determinism.c - does anything but the request change its answer?
 *
 * Requests made of the user's text, greedy and sampled, are answered one by one by an engine for one sequence:
 * that is what each gives alone.  Then together, their prompts cut, with too little memory, with their beginnings
 * in the cache; tokens and log probabilities are compared bit for bit.  At last without the option, for its cost. */
#include "cmd.h"
#include "determinism.h"
#include "interrupt.h"
#include "parts.h"

#include <stdio.h>
#include <string.h>

enum { ROUNDS = 3 };

typedef enum { SAME, DIFFERS, NOT_RUN } Outcome;

typedef struct {
    char   *name, *note; /* note: what happened besides, or why it was not run; may be NULL */
    Outcome outcome;
    char   *difference;  /* the first, in words */
    int     request, token;
} Case;

typedef struct {
    const MiCommandLine *line;
    MiAsked   asked;
    char     *places; /* for as many requests, as a setting */
    int32_t  *chunks; /* [n_chunks] */
    size_t    n_chunks;
    GArray   *cases;  /* Case */
    MiAnswer *alone;  /* to all that are asked; NULL: not answered yet */
    double    with, without; /* tokens/s, all at once */
    bool      equal_without; /* and whether all was the same there */
    char     *runs, *runs_without; /* what runs in steps, a line each */
    char     *what;   /* what was tested, a line */
} Proof;

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

    return p->asked.ids || mi_prompt_text(engine, text, strlen(text), false, &p->asked.ids, &p->asked.n_ids, error);
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
    size_t             least = p->asked.n_ids;

    for (int i = 0; i < p->asked.n; i++)
        least = MIN(least, mi_asked_length(&p->asked, i));
    for (guint i = 0; i < a->weights->packs->len; i++) {
        const char *name = ((const MiPack *)a->weights->packs->pdata[i])->feature->name;
        if (!strstr(linears->str, name))
            g_string_append_printf(linears, "%s%s", linears->len ? ", " : "", name);
    }
    p->what = g_strdup_printf("%s, linear %s, attention %s, cache %s, scheduler %s; %d requests of %zu to %zu tokens, "
                              "%d drawn for each, %s",
                              a->backend->name, linears->str, a->attention->name, a->cache->name, a->scheduler->name,
                              p->asked.n, least, p->asked.n_ids, p->asked.tokens,
                              p->asked.greedy ? "greedy" : "half of them sampled");
}

/* What runs in the steps that were planned before the first request. */
static char *runs_of(const MiAssembly *a)
{
    GString *all = g_string_new(NULL);

    for (guint b = 0; b < a->buckets->len; b++) {
        const MiSchedule *s = ((const MiBucket *)a->buckets->pdata[b])->schedule;
        for (guint i = 0; i < s->runs->len; i++)
            g_string_append_printf(all, "%s\n", mi_schedule_at(s, i)->name);
    }
    return g_string_free(all, FALSE);
}

/* ---- cases --------------------------------------------------------------------------------- */

static Case compared(const Proof *p, char *name, const MiAnswer *got)
{
    Case c = { .name = name };

    if ((c.difference = mi_asked_difference(&p->asked, p->alone, got, &c.request, &c.token)))
        c.outcome = DIFFERS;
    return c;
}

static bool alone(Proof *p, GError **error)
{
    const char *more[] = { "engine.max_seqs", "1", NULL };
    Opened      o;
    bool        ok = begin(p, &o, MI_WITH_ENGINE, more, error) && encode(p, o.session.engine, error);

    if (ok) {
        p->asked.greedy = !has_param(o.session.assembly, "seed") || !has_param(o.session.assembly, "temperature");
        describe(p, o.session.assembly);
        ok = mi_asked_run(&p->asked, o.session.engine, 1, &p->alone, error) >= 0;
    }
    end(&o);
    return ok;
}

/* All requests, so many at once; takes the name.  NULL: *error, or it was interrupted. */
static Case *try(Proof *p, const Opened *o, int at_once, char *name, GError **error)
{
    MiAnswer  *got = NULL;
    const bool ok = mi_asked_run(&p->asked, o->session.engine, at_once, &got, error) >= 0;

    if (ok) {
        const Case c = compared(p, name, got);
        g_array_append_val(p->cases, c);
    } else
        g_free(name);
    mi_asked_free(&p->asked, got);
    return ok ? &g_array_index(p->cases, Case, p->cases->len - 1) : NULL;
}

/* The fastest of some rounds, all at once; before them one for what is done once. */
static bool timed(Proof *p, const Opened *o, double *best, bool *equal, GError **error)
{
    bool ok = true;

    for (int i = 0; i <= ROUNDS && ok; i++) {
        MiAnswer    *got = NULL;
        const double rate = mi_asked_run(&p->asked, o->session.engine, p->asked.n, &got, error);
        if ((ok = rate >= 0)) {
            const Case c = compared(p, NULL, got);
            *equal = *equal && c.outcome == SAME;
            g_free(c.difference);
        }
        *best = i ? MAX(*best, rate) : 0;
        mi_asked_free(&p->asked, got);
    }
    return ok;
}

static bool together(Proof *p, GError **error)
{
    const int half = MAX(2, p->asked.n / 2);
    bool      unused = true, ok;
    Opened    o;

    ok = begin_for_all(p, &o, NULL, NULL, error);
    p->runs = ok ? runs_of(o.session.assembly) : NULL;
    ok = ok && try(p, &o, 1, g_strdup_printf("alone, in an engine for %d", p->asked.n), error) &&
         try(p, &o, p->asked.n, g_strdup_printf("%d at once", p->asked.n), error) &&
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
                          try(p, &o, p->asked.n, g_strdup_printf("prompts in pieces of %d", chunk), error);

    end(&o);
    return ok;
}

static bool without(Proof *p, GError **error)
{
    Opened o;

    p->equal_without = true;
    bool ok = begin_for_all(p, &o, "engine.deterministic", "off", error);
    p->runs_without = ok ? runs_of(o.session.assembly) : NULL;
    ok = ok && timed(p, &o, &p->without, &p->equal_without, error);
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

enum { ALL_OF_IT = 8 }; /* times a quarter: whatever was asked stays, and twice */

/* A quarter of what all take at once, but so much that the first two prompts, the longest, find room in blocks of usual
 * size, and their answers do not; a cache's own tables go on top. */
static size_t quarter(const Proof *p, const MiCacheSpec *c, int *longest)
{
    enum { BLOCK = 16 };
    const MiAsked *q = &p->asked;
    const size_t   vector = (size_t)c->n_kv_heads * (size_t)c->head_dim * mi_dtype_size(c->dtype);
    const size_t   position = 2 * (size_t)c->n_layers * vector;
    size_t         need = 0, two = (size_t)q->tokens / 2;

    for (int i = 0; i < q->n; i++)
        need += mi_asked_length(q, i) + (size_t)q->tokens;
    for (int i = 0; i < 2; i++)
        two += (mi_asked_length(q, i) + BLOCK - 1) / BLOCK * BLOCK;
    *longest = (int)(mi_asked_length(q, 0) + (size_t)q->tokens);
    return MAX(MAX(need / 4, two), (size_t)*longest + BLOCK) * position +
           (size_t)(*longest + (4 + *longest / BLOCK) * q->n) * sizeof(int32_t);
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

/* With a cache of so many bytes and not, as a paged one by itself does, all that is free: others may want it, too. */
static bool begin_sharing(Proof *p, Opened *o, const char *cache, size_t bytes, int longest, GError **error)
{
    g_autofree char *key = g_strdup_printf("cache.%s.bytes", cache), *value = g_strdup_printf("%zu", bytes);
    g_autofree char *max_len = g_strdup_printf("%d", longest + 1);
    const char      *more[] = { "engine.max_seqs", p->places, "engine.cache", cache, key, value,
                                "engine.max_len", max_len, NULL };

    return begin(p, o, MI_WITH_ENGINE, more, error);
}

/* Twice in one engine: the second time all is there already. */
static bool found(Proof *p, const char *cache, size_t bytes, int longest, GError **error)
{
    GError *why = NULL;
    MiStats before, after;
    Opened  o;
    Case   *c = NULL;

    if (begin_sharing(p, &o, cache, bytes, longest, &why) &&
        try(p, &o, 1, g_strdup_printf("alone, cache %s", cache), &why)) {
        o.session.engine->api->stats(o.session.engine, &before);
        c = try(p, &o, p->asked.n, g_strdup(in_cache), &why);
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
    g_autofree char *size = g_format_size(bytes);
    GError          *why = NULL;
    MiStats          s;
    Opened           o;
    Case            *c = NULL;

    if (begin_sharing(p, &o, cache, bytes, longest, &why) && (c = try(p, &o, p->asked.n, g_strdup(made_room), &why))) {
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
        return ok && found(p, cache, ALL_OF_IT * bytes, longest, error) && scarce(p, cache, bytes, longest, error);
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
           p->asked.n, p->with, p->without, 100 * (cost(p) < 0 ? -cost(p) : cost(p)), cost(p) < 0 ? "faster" : "slower",
           p->equal_without ? "the same, too" : "others");
    if (strcmp(p->runs, p->runs_without) == 0)
        printf("the option changes nothing that runs here: its cost is the measurement's noise\n");
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
    mi_json_bool(&j, "same_parts_with_off", strcmp(p->runs, p->runs_without) == 0);
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
    if ((mi_flag(cl, "ids") && !mi_cmd_ids(mi_flag(cl, "ids"), &p->asked.ids, &p->asked.n_ids, error)) ||
        !mi_cmd_ids(mi_flag(cl, "chunks") ? mi_flag(cl, "chunks") : "1,7,64,512", &p->chunks, &p->n_chunks, error) ||
        !mi_flag_int(cl, "tokens", 1, 1 << 20, 32, &p->asked.tokens, error) ||
        !mi_flag_int(cl, "batch", 2, 4096, 8, &p->asked.n, error))
        return false;
    p->places = g_strdup_printf("%d", p->asked.n);
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
    mi_asked_free(&p.asked, p.alone);
    g_free(p.asked.ids);
    g_free(p.chunks);
    g_free(p.places);
    g_free(p.runs);
    g_free(p.runs_without);
    g_free(p.what);
    return status;
}
