/* cmd_bench_offline.c - `bench offline`: all requests are there at once, and what counts is when
 * the last of them is answered.
 *
 * The workload is the one that nano-vllm made a habit of: lengths and ids drawn by Python's
 * random module, so that other engines can be given the very same.  256 sequences of seed 0 are
 * 142,827 tokens in and 133,966 out. */
#include "breakdown.h"
#include "cmd.h"
#include "crowd.h"
#include "interrupt.h"
#include "json_out.h"
#include "parts.h"
#include "plot.h"
#include "spread.h"
#include "step_work.h"
#include "usage.h"

#include <stdio.h>
#include <string.h>

enum { MAX_SEQUENCES = 1 << 16, LARGEST_ID = 10000, BARS = 12, BAR = 40 };

/* ---- Python's random numbers -------------------------------------------------------- */

/* MT19937 (Matsumoto and Nishimura, 1998), seeded by a key of one word as random.seed(n) does. */
typedef struct { uint32_t at[624]; int next; } Twister;

static void seed(Twister *t, uint32_t key)
{
    enum { N = 624 };
    uint32_t *x = t->at;
    int       i = 1;

    x[0] = 19650218;
    for (int k = 1; k < N; k++)
        x[k] = 1812433253u * (x[k - 1] ^ x[k - 1] >> 30) + (uint32_t)k;
    for (int k = 0; k < N; k++) {
        x[i] = (x[i] ^ (x[i - 1] ^ x[i - 1] >> 30) * 1664525u) + key;
        if (++i == N)
            x[0] = x[N - 1], i = 1;
    }
    for (int k = 0; k < N - 1; k++) {
        x[i] = (x[i] ^ (x[i - 1] ^ x[i - 1] >> 30) * 1566083941u) - (uint32_t)i;
        if (++i == N)
            x[0] = x[N - 1], i = 1;
    }
    x[0] = 0x80000000u;
    t->next = N;
}

static uint32_t bits32(Twister *t)
{
    enum { N = 624, M = 397 };
    uint32_t *x = t->at, y;

    if (t->next == N) {
        for (int k = 0; k < N; k++) {
            y = (x[k] & 0x80000000u) | (x[(k + 1) % N] & 0x7fffffffu);
            x[k] = x[(k + M) % N] ^ y >> 1 ^ (y & 1 ? 0x9908b0dfu : 0);
        }
        t->next = 0;
    }
    y = x[t->next++];
    y ^= y >> 11;
    y ^= y << 7 & 0x9d2c5680u;
    y ^= y << 15 & 0xefc60000u;
    return y ^ y >> 18;
}

/* random.randint(from, to): as many bits as the count of numbers has, again while they are too large. */
static int32_t between(Twister *t, int32_t from, int32_t to)
{
    const uint32_t n = (uint32_t)(to - from) + 1;
    const int      bits = (int)g_bit_storage(n);
    uint32_t       x;

    do
        x = bits32(t) >> (32 - bits);
    while (x >= n);
    return from + (int32_t)x;
}

/* ---- the workload ---------------------------------------------------------------------- */

typedef struct { int32_t from, to; } Range;

typedef struct {
    int         sequences, seed;
    Range       input, output;
    const char *plot; /* NULL: none */
    bool        json, once; /* once: no second run to look into steps */
} Wanted;

typedef struct {
    int32_t *prompt; /* [n_prompt] */
    int32_t  n_prompt, n_want;
} Request;

/* At one moment. */
typedef struct { double seconds, running, waiting, cache, rate; } Sample;

typedef struct {
    MiCrowd  crowd;
    Request *requests; /* [n] */
    int      n;
    uint64_t tokens_in, tokens_out; /* wanted */
    uint64_t ids;                   /* their sum, to compare with what another engine was given */
    int32_t  largest;               /* id */
    GArray  *samples; /* Sample */
    int64_t  began;
} Run;

static Run *run_new(const Wanted *w, MiEngine *engine, int32_t vocab)
{
    Run    *r = g_new0(Run, 1);
    Twister t;

    r->n = w->sequences;
    r->largest = MIN(LARGEST_ID, vocab - 1);
    mi_crowd_init(&r->crowd, engine, r->n);
    r->requests = g_new0(Request, r->n);
    r->samples = g_array_new(FALSE, FALSE, sizeof(Sample));
    seed(&t, (uint32_t)w->seed);
    for (int i = 0; i < r->n; i++) {
        Request *q = &r->requests[i];
        q->n_prompt = between(&t, w->input.from, w->input.to);
        q->prompt = g_new(int32_t, q->n_prompt);
        for (int k = 0; k < q->n_prompt; k++)
            r->ids += (uint64_t)(q->prompt[k] = between(&t, 0, r->largest));
        r->tokens_in += (uint64_t)q->n_prompt;
    }
    for (int i = 0; i < r->n; i++) { /* after all prompts */
        Request *q = &r->requests[i];
        q->n_want = between(&t, w->output.from, w->output.to);
        r->tokens_out += (uint64_t)q->n_want;
    }
    return r;
}

static void run_free(Run *r)
{
    for (int i = 0; i < r->n; i++)
        g_free(r->requests[i].prompt);
    g_free(r->requests);
    g_array_unref(r->samples);
    mi_crowd_clear(&r->crowd);
    g_free(r);
}

/* ---- playing it ---------------------------------------------------------------------------- */

/* The other prompts of the same lengths: a cache that remembers knows none of them. */
static void turn_prompts(Run *r)
{
    for (int i = 0; i < r->n; i++)
        for (int32_t k = 0; k < r->requests[i].n_prompt; k++)
            r->requests[i].prompt[k] = r->largest - r->requests[i].prompt[k];
}

static bool submit(Run *r, int i, int32_t n_want, GError **error)
{
    return mi_crowd_submit(&r->crowd, i, r->requests[i].prompt, (size_t)r->requests[i].n_prompt, n_want, error);
}

/* The crowd is locked. */
static void take_sample(void *user)
{
    Run          *r = user;
    const MiCrowd *c = &r->crowd;
    const double  now = (double)(g_get_monotonic_time() - r->began) / 1e6;
    const Sample *last = r->samples->len ? &g_array_index(r->samples, Sample, r->samples->len - 1) : NULL;
    MiStats       s;

    c->engine->api->stats(c->engine, &s);
    const int64_t positions = s.kv_used + s.kv_room;
    const Sample  sample = { now, s.running, s.waiting, positions > 0 ? 100.0 * (double)s.kv_used / (double)positions : 0,
                             (double)c->drawn };
    if (!last || now > last->seconds)
        g_array_append_val(r->samples, sample);
    if (c->drawn)
        mi_progress_line("%" G_GUINT64_FORMAT " of %" G_GUINT64_FORMAT " tokens, %.0f a second, %.0f s left", c->drawn,
                         r->tokens_out, (double)c->drawn / now, (double)(r->tokens_out - c->drawn) * now / (double)c->drawn);
}

typedef struct {
    double  seconds;
    GArray *first, *gaps; /* double, ms: to the first token, between tokens */
    MiStats before, after;
    MiPace  decode, prompts; /* of the engine's thread: steps without and with prompts */
    MiBreakdown *parts; /* NULL: nobody knows */
    double       bandwidth, limit; /* bytes a second that memory is read at, 0: not known; seconds that it takes to read what steps do */
} Outcome;

/* All of them, until the last is answered. */
static bool play(Run *r, double *seconds, void (*tick)(void *), GError **error)
{
    bool ok = true;

    r->crowd.drawn = 0;
    mi_interrupt_target(mi_crowd_cancel, &r->crowd);
    r->began = g_get_monotonic_time();
    for (int i = 0; i < r->n && ok && !mi_interrupted(); i++)
        ok = submit(r, i, r->requests[i].n_want, error);
    if (!ok)
        mi_crowd_cancel(&r->crowd);
    ok = mi_crowd_wait(&r->crowd, tick, r, ok ? error : NULL) && ok;
    *seconds = (double)(g_get_monotonic_time() - r->began) / 1e6;
    mi_interrupt_target(NULL, NULL);
    mi_progress_clear();
    return ok;
}

static void watch(Run *r, const struct MiWatch *w) { mi_engine_watch(r->crowd.engine, w); }

static void count(Run *r, Outcome *o)
{
    for (int i = 0; i < r->n; i++) {
        const MiAsked *q = &r->crowd.asked[i];
        const double   ms = q->n ? (double)(q->at[0] - q->submitted) / 1e3 : 0;
        if (q->n)
            g_array_append_val(o->first, ms);
        for (int k = 1; k < q->n; k++) {
            const double gap = (double)(q->at[k] - q->at[k - 1]) / 1e3;
            g_array_append_val(o->gaps, gap);
        }
    }
}

/* One request that is not counted, then all.  False: nothing came of it, with *error unless somebody stopped it. */
static bool play_first(Run *r, Outcome *o, GError **error)
{
    MiEngine *e = r->crowd.engine;
    MiPace    before;

    turn_prompts(r);
    if (!submit(r, 0, MIN(r->requests[0].n_want, 16), error) || !mi_crowd_wait(&r->crowd, NULL, NULL, error))
        return false;
    turn_prompts(r);
    e->api->stats(e, &o->before);
    mi_engine_pace(e, 0, false, 0, &before);
    if (o->parts)
        watch(r, mi_breakdown_first(o->parts));
    bool ok = play(r, &o->seconds, take_sample, error);
    watch(r, NULL);
    e->api->stats(e, &o->after);
    mi_engine_pace(e, before.n, true, 0, &o->decode);
    mi_engine_pace(e, before.n, false, 0, &o->prompts);
    count(r, o);
    return ok && !mi_interrupted();
}

/* How fast memory is read, and how long that takes: the weights in each step, and for each token that is drawn behind the first the keys
 * and values before it. */
static bool judge(const MiSession *s, const Run *r, Outcome *o, GError **error)
{
    const MiBackend *b = s->assembly->backend->vtable;
    const MiStepWork work = mi_step_work(s->assembly);
    double           bytes = work.weights * (double)(o->after.steps - o->before.steps);

    if (!MI_HAS(b, read_rate))
        return true;
    if (!b->read_rate(s->assembly->device, &o->bandwidth, error))
        return false;
    for (int i = 0; i < r->n; i++) {
        const double prompt = r->requests[i].n_prompt, drawn = r->requests[i].n_want - 1;
        bytes += work.kv * drawn * (prompt + (drawn + 1) / 2);
    }
    o->limit = o->bandwidth > 0 ? bytes / o->bandwidth : 0;
    return true;
}

/* All once more, to be looked into.  Whatever becomes of that, the first run counts. */
static bool play_again(Run *r, Outcome *o, GError **error)
{
    double unused;

    if (!o->parts || !mi_breakdown_second(o->parts))
        return true;
    turn_prompts(r);
    watch(r, mi_breakdown_second(o->parts));
    const bool ok = play(r, &unused, NULL, error) && !mi_interrupted();
    watch(r, NULL);
    if (!ok)
        mi_breakdown_free(g_steal_pointer(&o->parts));
    return ok;
}

/* ---- what came of it ------------------------------------------------------------------------ */

static MiSpread spread_of(const GArray *values)
{
    return mi_spread_of((double *)(void *)values->data, (int)values->len);
}

/* Counts in BARS equal parts of [0, p99], the rest in the last. */
static void bars_of(const MiSpread *s, int *bars, double *width)
{
    *width = s->p99 > 0 ? s->p99 / (BARS - 1) : 1;
    memset(bars, 0, BARS * sizeof *bars);
    for (int i = 0; i < s->n; i++)
        bars[MIN((int)(s->sorted[i] / *width), BARS - 1)]++;
}

static void print_spread(const char *what, const MiSpread *s)
{
    int    bars[BARS], largest = 1;
    double width;

    printf("\n%s: mean %.1f ms, half below %.1f, 90 %% below %.1f, 99 %% below %.1f, the longest %.1f\n", what, s->mean, s->p50,
           s->p90, s->p99, s->most);
    bars_of(s, bars, &width);
    for (int i = 0; i < BARS; i++)
        largest = MAX(largest, bars[i]);
    for (int i = 0; i < BARS; i++) {
        printf("  %s%8.1f ms  %8d  ", i == BARS - 1 ? ">" : "<", width * (i == BARS - 1 ? i : i + 1), bars[i]);
        for (int k = 0; k < (int)((int64_t)bars[i] * BAR / largest); k++)
            putchar('#');
        putchar('\n');
    }
}

static void print_text(const MiSession *s, const Run *r, const Outcome *o)
{
    const MiAssembly *a = s->assembly;
    const MiSpread    first = spread_of(o->first), gaps = spread_of(o->gaps);
    const double      steps = (double)(o->after.steps - o->before.steps);

    printf("%s on %s, attention %s, cache %s, scheduler %s\n", s->engine->api->model(s->engine, NULL), a->backend->name,
           a->attention->name, a->cache->name, a->scheduler->name);
    printf("%d sequences, %" G_GUINT64_FORMAT " tokens in, %" G_GUINT64_FORMAT " out: %.3f s\n", r->n, r->tokens_in,
           r->tokens_out, o->seconds);
    printf("%.0f tokens/s out, %.0f in and out; %.0f steps of %.1f tokens drawn, %.3f ms each\n",
           (double)r->tokens_out / o->seconds, (double)(r->tokens_in + r->tokens_out) / o->seconds, steps,
           (double)r->tokens_out / steps, 1e3 * o->seconds / steps);
    if (o->limit > 0)
        printf("memory is read at %.4g GB/s: weights, keys and values take %.3f s of it, %.0f %%\n", o->bandwidth / 1e9, o->limit,
               100 * o->limit / o->seconds);
    if (!a->ctx.pub.backend->unified)
        printf("the host works %.1f us a step (99 %% of them: %.1f), %.1f of one with prompts; the device waited for it %d times; %d steps "
               "were the first of their kind: %.0f ms of it\n", o->decode.median_us, o->decode.p99_us, o->prompts.median_us,
               o->decode.late + o->prompts.late, o->decode.first + o->prompts.first,
               (o->decode.first_us + o->prompts.first_us) / 1e3);
    mi_usage_print(stdout, &o->before, &o->after);
    print_spread("to the first token", &first);
    print_spread("between tokens", &gaps);
    if (o->parts)
        mi_breakdown_print(o->parts, stdout, o->seconds);
}

static void json_spread(MiJson *j, const char *key, const MiSpread *s)
{
    int    bars[BARS];
    double width;

    bars_of(s, bars, &width);
    mi_json_open(j, key, '{');
    mi_json_float(j, "mean", s->mean);
    mi_json_float(j, "p50", s->p50);
    mi_json_float(j, "p90", s->p90);
    mi_json_float(j, "p99", s->p99);
    mi_json_float(j, "most", s->most);
    mi_json_float(j, "bar", width);
    mi_json_open(j, "bars", '[');
    for (int i = 0; i < BARS; i++)
        mi_json_int(j, NULL, bars[i]);
    mi_json_close(j, ']');
    mi_json_close(j, '}');
}

static void print_json(const MiSession *s, const Wanted *w, const Run *r, const Outcome *o)
{
    const MiAssembly *a = s->assembly;
    const MiSpread    first = spread_of(o->first), gaps = spread_of(o->gaps);
    const double      steps = (double)(o->after.steps - o->before.steps);
    MiJson            j = mi_json_new();

    mi_json_open(&j, NULL, '{');
    mi_json_string(&j, "work", "offline");
    mi_json_string(&j, "model", s->engine->api->model(s->engine, NULL));
    mi_json_string(&j, "device", a->backend->name);
    mi_json_string(&j, "attention", a->attention->name);
    mi_json_string(&j, "cache", a->cache->name);
    mi_json_string(&j, "scheduler", a->scheduler->name);
    mi_json_int(&j, "seed", w->seed);
    mi_json_int(&j, "sequences", r->n);
    mi_json_int(&j, "tokens_in", (int64_t)r->tokens_in);
    mi_json_int(&j, "tokens_out", (int64_t)r->tokens_out);
    mi_json_int(&j, "sum_of_ids", (int64_t)r->ids);
    mi_json_float(&j, "seconds", o->seconds);
    mi_json_float(&j, "tokens_out_per_s", (double)r->tokens_out / o->seconds);
    mi_json_float(&j, "steps", steps);
    if (o->limit > 0) {
        mi_json_float(&j, "bytes_per_s", o->bandwidth);
        mi_json_float(&j, "limit_s", o->limit);
    }
    mi_json_float(&j, "host_us_per_step", o->decode.median_us);
    mi_json_float(&j, "host_us_p99", o->decode.p99_us);
    mi_json_int(&j, "late_steps", o->decode.late + o->prompts.late);
    mi_json_int(&j, "first_steps", o->decode.first + o->prompts.first);
    mi_json_float(&j, "first_steps_ms", (o->decode.first_us + o->prompts.first_us) / 1e3);
    mi_usage_json(&j, &o->before, &o->after);
    json_spread(&j, "first_token_ms", &first);
    json_spread(&j, "between_tokens_ms", &gaps);
    if (o->parts)
        mi_breakdown_json(o->parts, &j, "breakdown", o->seconds);
    mi_json_close(&j, '}');
    mi_json_print(&j);
}

/* Sequences that run, those that wait, the cache, tokens a second, over time. */
static bool plot(const Wanted *w, const MiSession *s, const Run *r, const Outcome *o, GError **error)
{
    const int         n = (int)r->samples->len;
    g_autofree double *at = g_new(double, 5 * n + 1);
    double           *x = at, *running = x + n, *waiting = running + n, *cache = waiting + n, *rate = cache + n;
    g_autofree char  *title = g_strdup_printf("%s on %s: %d sequences, %.0f tokens/s", s->engine->api->model(s->engine, NULL),
                                              s->assembly->backend->name, r->n, (double)r->tokens_out / o->seconds);

    for (int i = 0; i < n; i++) {
        const Sample *p = &g_array_index(r->samples, Sample, i), *before = i ? p - 1 : p;
        x[i] = p->seconds, running[i] = p->running, waiting[i] = p->waiting, cache[i] = p->cache;
        rate[i] = i ? (p->rate - before->rate) / (p->seconds - before->seconds) : 0;
    }
    const MiPanel panels[] = { { "sequences that run", running }, { "sequences that wait", waiting },
                               { "positions of the cache that are taken, %", cache }, { "tokens drawn a second", rate } };
    return mi_plot_write(w->plot, title, x, n, panels, G_N_ELEMENTS(panels), error);
}

/* ---- the command --------------------------------------------------------------------------- */

/* "100-1024", or one number. */
static bool range_of(const MiCommandLine *cl, const char *name, Range def, Range *out, GError **error)
{
    const char   *text = mi_flag(cl, name);
    g_auto(GStrv) words = text ? g_strsplit(text, "-", 2) : NULL;
    gint64        from, to;

    *out = def;
    if (!text)
        return true;
    if (words[0] && g_ascii_string_to_signed(words[0], 10, 1, 1 << 24, &from, NULL) &&
        (to = from, !words[1] || g_ascii_string_to_signed(words[1], 10, from, 1 << 24, &to, NULL))) {
        *out = (Range){ (int32_t)from, (int32_t)to };
        return true;
    }
    g_set_error(error, MI_ERROR, MI_ERROR_CONFIG, "--%s = '%s' is no range of lengths; 100-1024 is one", name, text);
    return false;
}

static bool default_to(MiSession *s, const char *section, const char *key, const char *value, GError **error)
{
    g_autofree char *dotted = g_strdup_printf("%s.%s", section, key);
    return mi_config_get(s->config, section, key) || mi_config_set(s->config, dotted, value, error);
}

/* What the configuration leaves open: all sequences at once, room for the longest, drawn as others draw here. */
static bool configure(MiSession *s, const Wanted *w, GError **error)
{
    g_autofree char *seqs = g_strdup_printf("%d", MIN(w->sequences, 512)),
                    *len = g_strdup_printf("%d", w->input.to + w->output.to + 1);

    return default_to(s, "engine", "max_seqs", seqs, error) && default_to(s, "engine", "max_len", len, error) &&
           default_to(s, "engine", "prefill_step", "8192", error) && /* nobody waits for an answer's rhythm */
           default_to(s, "engine", "rehearse", "true", error) &&     /* starting is not what is measured */
           default_to(s, "sampler", "chain", "temperature, multinomial", error) &&
           default_to(s, "sampler", "temperature", "0.6", error);
}

static bool measure(MiSession *s, const Wanted *w, GError **error)
{
    Run    *r = run_new(w, s->engine, s->assembly->vocab);
    Outcome o = { .first = g_array_new(FALSE, FALSE, sizeof(double)), .gaps = g_array_new(FALSE, FALSE, sizeof(double)) };
    GError *why = NULL;

    if (!w->once)
        o.parts = mi_breakdown_new(s->assembly, &why);
    bool ok = !why && play_first(r, &o, &why);
    if (ok) {
        ok = play_again(r, &o, &why) && judge(s, r, &o, &why);
        if (w->json)
            print_json(s, w, r, &o);
        else
            print_text(s, r, &o);
        ok = (!w->plot || plot(w, s, r, &o, ok ? &why : NULL)) && ok;
    }
    g_array_unref(o.first);
    g_array_unref(o.gaps);
    mi_breakdown_free(o.parts);
    run_free(r);
    if (why)
        g_propagate_error(error, why);
    return ok;
}

static bool only_own_flags(const MiCommandLine *cl, GError **error)
{
    static const char *const others[] = { "context", "batch", "prompt-tokens", "tokens", "rounds" };

    for (size_t i = 0; i < G_N_ELEMENTS(others); i++)
        if (mi_flag(cl, others[i])) {
            g_set_error(error, MI_ERROR, MI_ERROR_CONFIG, "--%s is not of offline, which has --sequences, --input and --output",
                        others[i]);
            return false;
        }
    return true;
}

int mi_cmd_bench_offline(MiCommandLine *cl)
{
    Wanted    w = { .plot = mi_flag(cl, "plot"), .json = mi_flag(cl, "json"), .once = mi_flag(cl, "once") };
    GError   *error = NULL;
    MiSession s;

    if (!only_own_flags(cl, &error) || !mi_flag_int(cl, "sequences", 1, MAX_SEQUENCES, 256, &w.sequences, &error) ||
        !mi_flag_int(cl, "seed", 0, INT32_MAX, 0, &w.seed, &error) ||
        !range_of(cl, "input", (Range){ 100, 1024 }, &w.input, &error) ||
        !range_of(cl, "output", (Range){ 100, 1024 }, &w.output, &error))
        return mi_cmd_usage(error);
    mi_interrupt_start();
    if (mi_session_open(&s, cl, MI_WITH_PLUGINS, &error) && configure(&s, &w, &error) &&
        mi_session_deepen(&s, MI_WITH_ENGINE, &error))
        (void)measure(&s, &w, &error);
    mi_session_close(&s);
    const int status = mi_cmd_report(error);
    return status ? status : mi_interrupted() ? 130 : 0;
}
