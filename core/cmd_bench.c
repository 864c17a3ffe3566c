/* cmd_bench.c - how fast the engine is: through the engine itself, with random ids, greedy.
 *
 * A decode figure is of steps in which all sequences draw: from the moment the last of them
 * has its first token, --tokens steps, or to the first one's end.  Every round has prompts of
 * its own, so that no cache knows them; a round before the first is not counted. */
#include "cmd.h"
#include "crowd.h"
#include "interrupt.h"
#include "json_out.h"
#include "parts.h"
#include "spread.h"
#include "step_work.h"
#include "suggest.h"
#include "usage.h"

#include <stdio.h>
#include <string.h>

enum { MAX_LIST = 16, MAX_ROUNDS = 1000, MAX_MISSED = 20 /* rounds of a measurement done again */ };

typedef struct {
    int context[MAX_LIST], batch[MAX_LIST], prompt[MAX_LIST];
    int n_context, n_batch, n_prompt, tokens, rounds;
} Wanted;

/* ---- one round --------------------------------------------------------------------- */

/* n sequences of `prompt` random ids and `tokens` drawn; to be cleared even if it fails. */
static bool play(MiCrowd *r, MiSession *s, GRand *random, int n, int prompt, int tokens, GError **error)
{
    const int32_t       vocab = s->assembly->vocab;
    g_autofree int32_t *ids = g_new(int32_t, prompt);
    bool                ok = true;

    mi_crowd_init(r, s->engine, n);
    for (int i = 0; i < n && ok; i++) {
        for (int k = 0; k < prompt; k++)
            ids[k] = g_rand_int_range(random, 0, vocab);
        ok = mi_crowd_submit(r, i, ids, (size_t)prompt, tokens, error);
    }
    if (ok)
        mi_interrupt_target(mi_crowd_cancel, r);
    else
        mi_crowd_cancel(r);
    ok = mi_crowd_wait(r, NULL, NULL, ok ? error : NULL) && ok;
    mi_interrupt_target(NULL, NULL);
    return ok;
}

/* Milliseconds of a step in which every sequence drew a token. */
static double step_ms(const MiCrowd *r, int tokens)
{
    const MiAsked *q = &r->asked[0];
    int64_t        from = 0, to = INT64_MAX;
    int            first = 0, last;

    for (int i = 0; i < r->n; i++) {
        if (!r->asked[i].n)
            return 0;
        from = MAX(from, r->asked[i].at[0]);
        to = MIN(to, r->asked[i].at[r->asked[i].n - 1]);
    }
    while (first < q->n - 1 && q->at[first] < from)
        first++;
    last = MIN(first + tokens, q->n - 1);
    while (last > first && q->at[last] > to)
        last--;
    return last > first ? (double)(q->at[last] - q->at[first]) / 1e3 / (last - first) : 0;
}

/* ---- a measurement --------------------------------------------------------------------- */

typedef struct {
    bool   prefill;
    int    batch, tokens;    /* sequences; positions before the first step that counts, or of the prompt */
    double ms, least, most;  /* of a step, or of the prompt: median, extremes of the rounds */
    double rate, limit;      /* tokens a second; the least ms that its bytes take, 0: not known */
    double flops;            /* a second, of a prompt */
    MiPace pace;             /* of the engine's thread; steps 0: it computes, too */
} Result;

/* Steps that may pass between the first sequence's first token and the last one's. */
static int ramp(const MiAssembly *a, int batch, int context)
{
    const int64_t steps = (int64_t)batch * context / MAX(a->prefill_step, 1) + batch + 1;
    return batch == 1 ? 0 : (int)MIN(steps, 1 << 26); /* more than [engine] max_len can be */
}

static bool measure(MiSession *s, GRand *random, const Wanted *w, Result *out, GError **error)
{
    const int tokens = out->prefill ? 1 : 1 + w->tokens + ramp(s->assembly, out->batch, out->tokens);
    double    ms[MAX_ROUNDS];
    MiPace    before;
    int       n = 0, missed = 0;

    mi_engine_pace(s->engine, 0, false, 0, &before);
    for (int i = 0; i <= w->rounds && !mi_interrupted(); i++) {
        MiCrowd    r;
        const bool ok = play(&r, s, random, out->batch, out->tokens, tokens, error);
        ms[n] = !ok ? 0 : out->prefill ? (double)r.asked[0].prompt_us / 1e3 : step_ms(&r, w->tokens);
        mi_crowd_clear(&r);
        if (!ok)
            return false;
        /* On a small model the first can be done before the last was submitted. */
        if (i > 0 && ms[n] <= 0 && missed++ < MAX_MISSED) {
            i--;
            continue;
        }
        n += i > 0 && !mi_interrupted();
        mi_progress_line("%s of %d, %d tokens: round %d of %d", out->prefill ? "prompt" : "batch", out->batch, out->tokens, i,
                         w->rounds);
    }
    mi_progress_clear();
    if (!n)
        return true; /* interrupted */
    if (!s->assembly->ctx.pub.backend->unified)
        mi_engine_pace(s->engine, before.n, !out->prefill, out->prefill ? 0 : out->batch, &out->pace);
    out->ms = mi_median(ms, n);
    out->least = ms[0];
    out->most = ms[n - 1];
    if (out->ms <= 0) {
        g_set_error(error, MI_ERROR, MI_ERROR_CONFIG, "%d sequences of %d tokens never drew at once; say more --tokens",
                    out->batch, out->tokens);
        return false;
    }
    return true;
}

static void judge(const MiAssembly *a, const Wanted *w, double bandwidth, Result *r)
{
    const MiStepWork work = mi_step_work(a);
    const double     n = r->tokens, middle = n + w->tokens / 2.0;

    r->rate = 1e3 * (r->prefill ? n : r->batch) / r->ms;
    if (r->prefill)
        r->flops = 2 * (work.linear * n + work.head + work.attend * n * n / 2) / r->ms * 1e3;
    else if (bandwidth > 0)
        r->limit = 1e3 * (work.weights + r->batch * middle * work.kv) / bandwidth;
}

/* ---- printing ---------------------------------------------------------------------------- */

typedef struct {
    double  bandwidth; /* bytes a second; 0: not known */
    double  ready_ms, first_ms;
    GArray *results; /* Result */
    MiStats after;   /* of all of it */
} Report;

/* What the host did, and whether the device had to wait for it. */
static void print_pace(const Result *r)
{
    const MiPace *p = &r->pace;

    if (p->steps)
        printf("%14s the host works %.1f us a step (99 %% of them: %.1f); nothing was queued behind %d of %d steps\n", "",
               p->median_us, p->p99_us, p->late, p->steps);
    if (p->first)
        printf("%14s %d steps were the first of their kind: %.1f ms of the host in all\n", "", p->first, p->first_us / 1e3);
}

static void print_table(const MiSession *s, const Report *p)
{
    const MiAssembly *a = s->assembly;

    printf("%s on %s, attention %s, cache %s\n", s->engine->api->model(s->engine, NULL), a->backend->name, a->attention->name,
           a->cache->name);
    printf("start: ready after %.1f ms, first token after %.1f ms\n", p->ready_ms, p->first_ms);
    for (guint i = 0; i < s->phases->len; i++) {
        const MiPhase *phase = &g_array_index(s->phases, MiPhase, i);
        printf("  %9.1f ms  %s\n", (double)phase->us / 1e3, phase->what);
    }
    if (p->bandwidth > 0)
        printf("memory is read at %.4g GB/s\n", p->bandwidth / 1e9);
    printf("\n%-8s %5s %7s %11s %11s  %-23s %s\n", "", "seqs", "tokens", "ms", "tokens/s", "ms of the rounds", "of the limit");
    for (guint i = 0; i < p->results->len; i++) {
        const Result    *r = &g_array_index(p->results, Result, i);
        g_autofree char *rounds = g_strdup_printf("%.3f to %.3f", r->least, r->most);
        printf("%-8s %5d %7d %11.3f %11.1f  %-23s ", r->prefill ? "prefill" : "decode", r->batch, r->tokens, r->ms, r->rate,
               rounds);
        if (r->prefill)
            printf("%.3g TFLOP/s", r->flops / 1e12);
        else if (r->limit > 0)
            printf("%.0f %% of %.3f ms", 100 * r->limit / r->ms, r->limit);
        printf("\n");
        print_pace(r);
    }
    printf("\n");
    mi_usage_print(stdout, &(MiStats){ 0 }, &p->after);
}

static void print_json(const MiSession *s, const Report *p)
{
    const MiAssembly *a = s->assembly;
    MiJson            j = mi_json_new();

    mi_json_open(&j, NULL, '{');
    mi_json_string(&j, "model", s->engine->api->model(s->engine, NULL));
    mi_json_string(&j, "device", a->backend->name);
    mi_json_string(&j, "attention", a->attention->name);
    mi_json_string(&j, "cache", a->cache->name);
    mi_json_open(&j, "start_ms", '{');
    for (guint i = 0; i < s->phases->len; i++) {
        const MiPhase *phase = &g_array_index(s->phases, MiPhase, i);
        mi_json_float(&j, phase->what, (double)phase->us / 1e3);
    }
    mi_json_close(&j, '}');
    mi_json_float(&j, "ready_ms", p->ready_ms);
    mi_json_float(&j, "first_token_ms", p->first_ms);
    if (p->bandwidth > 0)
        mi_json_float(&j, "bytes_per_s", p->bandwidth);
    mi_json_open(&j, "results", '[');
    for (guint i = 0; i < p->results->len; i++) {
        const Result *r = &g_array_index(p->results, Result, i);
        mi_json_open(&j, NULL, '{');
        mi_json_string(&j, "work", r->prefill ? "prefill" : "decode");
        mi_json_int(&j, "batch", r->batch);
        mi_json_int(&j, r->prefill ? "prompt" : "context", r->tokens);
        mi_json_float(&j, "ms", r->ms);
        mi_json_float(&j, "ms_least", r->least);
        mi_json_float(&j, "ms_most", r->most);
        mi_json_float(&j, "tokens_per_s", r->rate);
        if (r->prefill)
            mi_json_float(&j, "flops_per_s", r->flops);
        else if (r->limit > 0)
            mi_json_float(&j, "limit_ms", r->limit);
        if (r->pace.steps) {
            mi_json_float(&j, "host_us_per_step", r->pace.median_us);
            mi_json_float(&j, "host_us_p99", r->pace.p99_us);
            mi_json_int(&j, "host_steps", r->pace.steps);
            mi_json_int(&j, "host_late", r->pace.late);
        }
        if (r->pace.first) {
            mi_json_int(&j, "first_steps", r->pace.first);
            mi_json_float(&j, "first_steps_host_us", r->pace.first_us);
        }
        mi_json_close(&j, '}');
    }
    mi_json_close(&j, ']');
    mi_usage_json(&j, &(MiStats){ 0 }, &p->after);
    mi_json_close(&j, '}');
    mi_json_print(&j);
}

/* ---- the command --------------------------------------------------------------------------- */

/* "1,8,32" into out [MAX_LIST]. */
static bool list_of(const MiCommandLine *cl, const char *name, const char *def, int max, int *out, int *n, GError **error)
{
    const char   *text = mi_flag(cl, name) ? mi_flag(cl, name) : def;
    g_auto(GStrv) words = g_strsplit_set(text, ", ", 0);

    *n = 0;
    for (char **w = words; *w; w++) {
        gint64 x;
        if (!**w)
            continue;
        if (*n == MAX_LIST || !g_ascii_string_to_signed(*w, 10, 1, max, &x, NULL)) {
            g_set_error(error, MI_ERROR, MI_ERROR_CONFIG, "--%s: '%s' in '%s'; up to %d numbers from 1 to %d are possible", name,
                        *w, text, MAX_LIST, max);
            return false;
        }
        out[(*n)++] = (int)x;
    }
    if (mi_flag(cl, name) && !*n)
        g_set_error(error, MI_ERROR, MI_ERROR_CONFIG, "--%s wants numbers: 1,8", name);
    return !mi_flag(cl, name) || *n;
}

static bool read_wanted(const MiCommandLine *cl, Wanted *w, GError **error)
{
    static const char *const works[] = { "decode", "batch", "prefill", "offline", NULL };
    const char *work = cl->operands->len ? cl->operands->pdata[0] : NULL;
    const char *batch = !work ? "1,8,32" : strcmp(work, "decode") == 0 ? "1" : strcmp(work, "batch") == 0 ? "8,32" : "";
    const bool  prefill = !work || strcmp(work, "prefill") == 0;

    if (work && !g_strv_contains(works, work)) {
        g_autoptr(GPtrArray) names = g_ptr_array_new();
        g_autoptr(GString)   message = g_string_new(NULL);
        for (int i = 0; works[i]; i++)
            g_ptr_array_add(names, (char *)(uintptr_t)works[i]);
        g_string_printf(message, "miniinfer bench: '%s' is none of decode, batch, prefill and offline", work);
        mi_suggest_append(message, work, names);
        g_set_error_literal(error, MI_ERROR, MI_ERROR_CONFIG, message->str);
        return false;
    }
    static const char *const offline[] = { "sequences", "input", "output", "seed", "plot", "once" };
    for (size_t i = 0; i < G_N_ELEMENTS(offline); i++)
        if (mi_flag(cl, offline[i])) {
            g_set_error(error, MI_ERROR, MI_ERROR_CONFIG, "--%s is of `bench offline`", offline[i]);
            return false;
        }
    if ((prefill && work && (mi_flag(cl, "batch") || mi_flag(cl, "context"))) || (!prefill && mi_flag(cl, "prompt-tokens"))) {
        g_set_error(error, MI_ERROR, MI_ERROR_CONFIG, "--batch and --context are of decode and batch, --prompt-tokens of prefill");
        return false;
    }
    return list_of(cl, "context", "128", 1 << 24, w->context, &w->n_context, error) &&
           list_of(cl, "batch", batch, 4096, w->batch, &w->n_batch, error) &&
           list_of(cl, "prompt-tokens", prefill ? "512" : "", 1 << 24, w->prompt, &w->n_prompt, error) &&
           mi_flag_int(cl, "tokens", 1, 1 << 20, 128, &w->tokens, error) &&
           mi_flag_int(cl, "rounds", 1, MAX_ROUNDS, 5, &w->rounds, error);
}

static int most(const int *at, int n)
{
    int m = 0;
    for (int i = 0; i < n; i++)
        m = MAX(m, at[i]);
    return m;
}

static bool raise_to(MiSession *s, const char *key, int value, GError **error)
{
    g_autofree char *text = g_strdup_printf("%d", value), *dotted = g_strdup_printf("engine.%s", key);
    const char      *said = mi_config_get(s->config, "engine", key);

    return (said && g_ascii_strtoll(said, NULL, 10) >= value) || mi_config_set(s->config, dotted, text, error);
}

/* Room for what is wanted, where the configuration has less; greedy, where it does not say. */
static bool make_room(MiSession *s, const Wanted *w, GError **error)
{
    const char *step = mi_config_get(s->config, "engine", "prefill_step");
    const int   batch = MAX(most(w->batch, w->n_batch), 1), context = most(w->context, w->n_context);
    MiAssembly  like = { .prefill_step = step ? (int32_t)g_ascii_strtoll(step, NULL, 10) : 512 };
    const int   decode = w->n_batch ? context + 2 + w->tokens + ramp(&like, batch, context) : 2;
    const int   len = MAX(decode, most(w->prompt, w->n_prompt) + 2);

    return raise_to(s, "max_seqs", batch, error) && raise_to(s, "max_len", len, error) &&
           (mi_config_get(s->config, "sampler", "chain") || mi_config_set(s->config, "sampler.chain", "greedy", error));
}

static bool run(MiSession *s, const Wanted *w, Report *p, GError **error)
{
    const MiBackend *b = s->assembly->backend->vtable;
    GRand           *random = g_rand_new_with_seed(1);
    MiCrowd          first;
    bool             ok = play(&first, s, random, 1, 1, 1, error);

    if (ok && first.asked[0].n)
        p->first_ms = (double)(first.asked[0].at[0] - s->began) / 1e3;
    mi_crowd_clear(&first);
    ok = ok && (!MI_HAS(b, read_rate) || b->read_rate(s->assembly->device, &p->bandwidth, error));
    for (int c = 0; c < w->n_context && w->n_batch; c++)
        for (int i = 0; i < w->n_batch && ok && !mi_interrupted(); i++) {
            Result r = { .batch = w->batch[i], .tokens = w->context[c] };
            if ((ok = measure(s, random, w, &r, error)) && r.ms > 0) {
                judge(s->assembly, w, p->bandwidth, &r);
                g_array_append_val(p->results, r);
            }
        }
    for (int i = 0; i < w->n_prompt && ok && !mi_interrupted(); i++) {
        Result r = { .prefill = true, .batch = 1, .tokens = w->prompt[i] };
        if ((ok = measure(s, random, w, &r, error)) && r.ms > 0) {
            judge(s->assembly, w, p->bandwidth, &r);
            g_array_append_val(p->results, r);
        }
    }
    s->engine->api->stats(s->engine, &p->after);
    g_rand_free(random);
    return ok;
}

int mi_cmd_bench(MiCommandLine *cl)
{
    Wanted    w;
    Report    p = { .results = g_array_new(FALSE, FALSE, sizeof(Result)) };
    GError   *error = NULL;
    MiSession s;

    if (cl->operands->len && strcmp(cl->operands->pdata[0], "offline") == 0) {
        g_array_unref(p.results);
        return mi_cmd_bench_offline(cl);
    }
    if (!read_wanted(cl, &w, &error)) {
        g_array_unref(p.results);
        return mi_cmd_usage(error);
    }
    mi_interrupt_start();
    if (mi_session_open(&s, cl, MI_WITH_PLUGINS, &error) && make_room(&s, &w, &error) &&
        mi_session_deepen(&s, MI_WITH_ENGINE, &error)) {
        p.ready_ms = (double)(g_get_monotonic_time() - s.began) / 1e3;
        if (run(&s, &w, &p, &error))
            (mi_flag(cl, "json") ? print_json : print_table)(&s, &p);
    }
    mi_session_close(&s);
    g_array_unref(p.results);
    const int status = mi_cmd_report(error);
    return status ? status : mi_interrupted() ? 130 : 0;
}
