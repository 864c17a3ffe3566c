/* scheduler.c - schedulers against each other in an invented engine (scheduler_sim.h), which calls the real plugins.
 *
 *   scheduler load [--trace FILE] [--svg FILE]   waiting by policy at rising load: a table, and a picture of it
 *   scheduler rhythm                             time between tokens beside long prompts, by budget of time
 *   scheduler cost                               host time of a step with up to 4,096 waiting
 *   scheduler trace SEED N                       a trace as load reads it
 *
 * MI_PLUGINS says where the plugins are, else plugins/ below the working directory.  Load 1 is what fcfs could just
 * answer: the rate at which it gets through the whole trace when all of it is there from the start. */
#include "plugins.h"
#include "scheduler_sim.h"
#include "spread.h"

#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_POLICIES = 8, MAX_LOADS = 12 };

static const char *const policies[] = { "fcfs", "priority", "fair", "sjf", "mlfq" };
enum { N_POLICIES = G_N_ELEMENTS(policies) };

/* About a model of 7B in bf16 on one H100: 14 GB a step, 20,000 rows of prompts a second, 0.13 MB a position. */
static const Cost card = { .base = 6000, .answer = 12, .row = 50, .read = 0.04, .luck = 0.03 };

static MiRegistry *registry;

static const MiFeature *policy(const char *name)
{
    g_autoptr(GError) error = NULL;
    const MiFeature  *f = mi_registry_find(registry, MI_KIND_SCHEDULER, name, "*", &error);

    if (f)
        return f;
    fprintf(stderr, "scheduler: %s\n", error->message);
    exit(1);
}

static void simulate(const Sim *s, SimResult *out)
{
    g_autoptr(GError) error = NULL;

    if (sim_run(s, out, &error))
        return;
    fprintf(stderr, "scheduler: %s: %s\n", s->policy->name, error->message);
    exit(1);
}

static double mean(const double *x, int n)
{
    double sum = 0;

    for (int i = 0; i < n; i++)
        sum += x[i];
    return n ? sum / n : 0;
}

/* Sorts x. */
static double quantile(double *x, int n, double q)
{
    qsort(x, (size_t)n, sizeof *x, mi_ascending);
    return n ? x[MIN((int)(q * n), n - 1)] : 0;
}

/* ---- load ------------------------------------------------------------------------------- */

static Sim engine_of(const GArray *asks)
{
    return (Sim){ .max_seqs = 64, .max_tokens = 512 + 63, .prefill_step = 512, .max_answer = 2048, .page = 16, .n_pages = 3000,
                  .cost = card, .asks = (const Ask *)(void *)asks->data, .n_asks = (int)asks->len, .slower = 1 };
}

typedef struct {
    double mean[N_POLICIES][MAX_LOADS], p99[N_POLICIES][MAX_LOADS];
} Waiting;

static const double loads[] = { 0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.3 };
enum { N_LOADS = G_N_ELEMENTS(loads) };

static void row(const char *name, double load, const GArray *asks, const SimResult *r, double *waited, double *total, double slower)
{
    const int n = (int)asks->len;
    double    tokens = 0;

    for (int i = 0; i < n; i++) {
        const Ask *a = &g_array_index(asks, Ask, i);
        waited[i] = r->fates[i].waited;
        total[i] = r->fates[i].done - a->arrival * slower;
        tokens += a->answer;
    }
    printf("%-9s %5.2f %9.2f %9.2f %9.2f %9.2f %9.2f %8" G_GINT64_FORMAT " %9.0f\n", name, load, mean(waited, n),
           quantile(waited, n, 0.5), quantile(waited, n, 0.99), mean(total, n), quantile(total, n, 0.99), r->n_preempted,
           tokens / r->seconds);
}

/* Mean waiting of those whom `who` picks. */
static double group(const GArray *asks, const SimResult *r, const char *client, int priority, int longest)
{
    double sum = 0;
    int    n = 0;

    for (guint i = 0; i < asks->len; i++) {
        const Ask *a = &g_array_index(asks, Ask, i);
        if ((client && strcmp(a->client, client) != 0) || (priority >= 0 && a->priority != priority) || a->answer > longest)
            continue;
        sum += r->fates[i].waited;
        n++;
    }
    return n ? sum / n : 0;
}

static void groups(const GArray *asks, Sim *sim, SimResult *r)
{
    printf("\nmean waiting at load 1.1, seconds: who asks little, who asks most; by priority; answers of at most 50 tokens\n"
           "%-9s %8s %8s %8s %8s %8s %8s %8s %8s\n", "policy", "ann", "bob", "eve", "bulk", "prio 2", "prio 1", "prio 0", "short");
    for (int p = 0; p < N_POLICIES; p++) {
        sim->policy = policy(policies[p]);
        simulate(sim, r);
        printf("%-9s %8.2f %8.2f %8.2f %8.2f %8.2f %8.2f %8.2f %8.2f\n", policies[p], group(asks, r, "ann", -1, INT32_MAX),
               group(asks, r, "bob", -1, INT32_MAX), group(asks, r, "eve", -1, INT32_MAX), group(asks, r, "bulk", -1, INT32_MAX),
               group(asks, r, NULL, 2, INT32_MAX), group(asks, r, NULL, 1, INT32_MAX), group(asks, r, NULL, 0, INT32_MAX),
               group(asks, r, NULL, -1, 50));
    }
}

static bool load(const GArray *asks, const char *svg, GError **error)
{
    const int          n = (int)asks->len;
    g_autofree double *waited = g_new(double, n), *total = g_new(double, n);
    g_autofree Fate   *fates = g_new(Fate, n);
    SimResult          r = { .fates = fates };
    Sim                sim = engine_of(asks);
    double             mean_of[N_POLICIES * N_LOADS], p99_of[N_POLICIES * N_LOADS];

    sim.policy = policy("fcfs");
    sim.slower = 0;
    simulate(&sim, &r);
    const double unit = r.seconds / sim.asks[n - 1].arrival; /* of `slower`, for load 1 */
    printf("%d requests, %.2f a second at load 1\n\n%-9s %5s %9s %9s %9s %9s %9s %8s %9s\n", n, n / r.seconds, "policy", "load",
           "wait mean", "p50", "p99", "done mean", "p99", "preempt", "tokens/s");
    for (int l = 0; l < N_LOADS; l++)
        for (int p = 0; p < N_POLICIES; p++) {
            sim.policy = policy(policies[p]);
            sim.slower = unit / loads[l];
            simulate(&sim, &r);
            row(policies[p], loads[l], asks, &r, waited, total, sim.slower);
            mean_of[p * N_LOADS + l] = mean(waited, n);
            p99_of[p * N_LOADS + l] = quantile(waited, n, 0.99);
        }
    sim.slower = unit / 1.1;
    groups(asks, &sim, &r);
    const Plot plots[] = {
        { "mean waiting", "load", "seconds", true, N_POLICIES, N_LOADS, policies, loads, mean_of },
        { "99th percentile of waiting", "load", "seconds", true, N_POLICIES, N_LOADS, policies, loads, p99_of },
    };
    return !svg || plots_write(svg, plots, 2, error);
}

/* ---- rhythm -------------------------------------------------------------------------------- */

/* 32 answers that go on, and from the second second on a prompt of 8,192 tokens each second. */
static GArray *rhythm_asks(bool prompts, int seconds)
{
    GArray *asks = g_array_new(FALSE, FALSE, sizeof(Ask));

    for (int i = 0; i < 32; i++) {
        const Ask a = { .prompt = 64, .answer = 100000, .client = "a" };
        g_array_append_val(asks, a);
    }
    for (int i = 0; prompts && i < seconds; i++) {
        const Ask a = { .arrival = 2 + i, .prompt = 8192, .answer = 16, .client = "p" };
        g_array_append_val(asks, a);
    }
    return asks;
}

static void rhythm(void)
{
    static const struct { const char *what; bool prompts; const char *options[5]; } cases[] = {
        { "no prompts", false, { NULL } },
        { "prefill_step 512 alone", true, { NULL } },
        { "prefill_stretch 3", true, { "prefill_stretch", "3", NULL } },
        { "prefill_stretch 2", true, { "prefill_stretch", "2", NULL } },
        { "prefill_stretch 1.9", true, { "prefill_stretch", "1.9", NULL } },
        { "prefill_ms 12", true, { "prefill_ms", "12", NULL } },
    };
    const int seconds = 60;
    double    without = 0;

    printf("milliseconds between the tokens of 32 answers, one prompt of 8,192 tokens a second beside them\n\n"
           "%-24s %7s %7s %7s %9s %14s %12s\n", "", "p50", "p99", "most", "p99 ratio", "prompt rows/s", "first token");
    for (size_t c = 0; c < G_N_ELEMENTS(cases); c++) {
        g_autoptr(GArray) asks = rhythm_asks(cases[c].prompts, seconds), gaps = g_array_new(FALSE, FALSE, sizeof(double));
        g_autofree Fate  *fates = g_new(Fate, asks->len);
        SimResult         r = { .fates = fates };
        Sim               sim = engine_of(asks);
        double            first = 0;
        int               n = 0;

        sim.n_pages = 1 << 20;
        sim.policy = policy("fcfs");
        sim.options = cases[c].options;
        sim.cost.row = 40; /* a prompt a second is a third of what there is */
        sim.cost.read = 0.002;
        sim.gaps = gaps;
        sim.gaps_from = 1000;
        sim.stop = seconds;
        simulate(&sim, &r);
        double *x = (double *)(void *)gaps->data;
        for (guint i = 32; i < asks->len; i++)
            if (fates[i].first > 0)
                first += fates[i].first - g_array_index(asks, Ask, i).arrival, n++;
        const double p99 = 1e3 * quantile(x, (int)gaps->len, 0.99);
        without = c ? without : p99;
        printf("%-24s %7.2f %7.2f %7.2f %9.2f %14.0f %10.2f s\n", cases[c].what, 1e3 * quantile(x, (int)gaps->len, 0.5), p99,
               1e3 * x[gaps->len - 1], p99 / without, (double)r.n_rows / seconds, n ? first / n : 0);
    }
}

/* ---- cost ------------------------------------------------------------------------------------ */

/* 256 run, so many wait, and for each that is done another comes. */
static void cost(void)
{
    static const int counts[] = { 0, 64, 256, 1024, 4096 };

    printf("microseconds of next() with 256 running\n\n%-9s", "waiting");
    for (size_t i = 0; i < G_N_ELEMENTS(counts); i++)
        printf(" %8d", counts[i]);
    printf("\n");
    for (int p = 0; p < N_POLICIES; p++) {
        printf("%-9s", policies[p]);
        for (size_t c = 0; c < G_N_ELEMENTS(counts); c++) {
            g_autoptr(GArray) asks = asks_draw(5, 256 + counts[c] + 4000);
            g_autofree Fate  *fates = g_new(Fate, asks->len);
            SimResult         r = { .fates = fates };
            Sim               sim = engine_of(asks);
            Ask              *a = (Ask *)(void *)asks->data;

            for (guint i = 0; i < asks->len; i++) { /* 256 answers of 256 tokens: one ends each step, another comes */
                a[i].prompt = 16 + a[i].prompt % 64;
                a[i].answer = (int)i < 256 ? 1 + (int)i : 256;
                a[i].arrival = (int)i < 256 + counts[c] ? 0 : 1.0 + 0.0085 * ((int)i - 256 - counts[c]);
            }
            sim.max_seqs = 256;
            sim.max_tokens = 512 + 255;
            sim.n_pages = 1 << 20;
            sim.policy = policy(policies[p]);
            sim.cost.luck = 0;
            sim.cost.read = 0;
            sim.stop = 1.0 + 0.0085 * 4000;
            simulate(&sim, &r);
            printf(" %8.1f", (double)r.host_ns / 1e3 / (double)r.n_steps);
            fflush(stdout);
        }
        printf("\n");
    }
}

/* ---- the command --------------------------------------------------------------------------------- */

static void write_trace(uint64_t seed, int n)
{
    g_autoptr(GArray) asks = asks_draw(seed, n);

    printf("# arrival (s), prompt and answer (tokens), priority, client; bench/scheduler trace %" G_GUINT64_FORMAT " %d\n", seed, n);
    for (guint i = 0; i < asks->len; i++) {
        const Ask *a = &g_array_index(asks, Ask, i);
        printf("%.3f,%d,%d,%d,%s\n", a->arrival, a->prompt, a->answer, a->priority, a->client);
    }
}

static const char *value(int argc, char **argv, const char *key)
{
    for (int i = 2; i + 1 < argc; i++)
        if (strcmp(argv[i], key) == 0)
            return argv[i + 1];
    return NULL;
}

int main(int argc, char **argv)
{
    const char       *what = argc > 1 ? argv[1] : "", *trace = value(argc, argv, "--trace");
    g_autoptr(GError) error = NULL;
    bool              ok = true;

    if (strcmp(what, "trace") == 0 && argc == 4) {
        write_trace(g_ascii_strtoull(argv[2], NULL, 10), atoi(argv[3]));
        return 0;
    }
    registry = mi_registry_new();
    load_plugins(registry);
    if (strcmp(what, "load") == 0) {
        GArray *asks = trace ? asks_read(trace, &error) : asks_draw(1, 2000);
        if ((ok = asks != NULL)) {
            ok = load(asks, value(argc, argv, "--svg"), &error);
            g_array_unref(asks);
        }
    } else if (strcmp(what, "rhythm") == 0) {
        rhythm();
    } else if (strcmp(what, "cost") == 0) {
        cost();
    } else {
        fprintf(stderr, "usage: scheduler load [--trace FILE] [--svg FILE] | rhythm | cost | trace SEED N\n");
        return 2;
    }
    mi_registry_free(registry);
    if (!ok)
        fprintf(stderr, "scheduler: %s\n", error->message);
    return !ok;
}
