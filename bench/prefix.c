/* prefix.c - what a shared beginning costs: requests of one long prompt and a little of their own.
 *
 *   bench/prefix MODEL [SHARED SUFFIX REQUESTS [KEY VALUE]...]
 *
 * Each request is answered by two engines in turn, one with paged memory, one whose cache keeps the last sequence
 * whole and so has the same beginning there without looking for it: what the suffix costs by itself.  Their times to
 * the first token are taken side by side, so that a busy machine is busy for both. */
#include "engine.h"
#include "parts.h"
#include "plugins.h"
#include "registry.h"
#include "spread.h"

#include <stdio.h>
#include <stdlib.h>

typedef struct {
    MiRegistry *registry;
    MiConfig   *config;
    MiAssembly *assembly;
    MiEngine   *engine;
} Side;

typedef struct {
    GMutex  lock;
    GCond   cond;
    bool    done;
    MiEvent event;
} Answer;

static G_NORETURN void die(const GError *error)
{
    fprintf(stderr, "%s\n", error ? error->message : "usage: bench/prefix MODEL [SHARED SUFFIX REQUESTS [KEY VALUE]...]");
    exit(64);
}

static void start(Side *s, const char *model, const char *cache, char **more, int n)
{
    GError *error = NULL;

    *s = (Side){ .registry = mi_registry_new(), .config = mi_config_new() };
    load_plugins(s->registry);
    bool ok = mi_config_set(s->config, "model.path", model, &error) &&
              mi_config_set(s->config, "sampler.chain", "greedy", &error);
    for (int i = 0; i + 1 < n && ok; i += 2)
        ok = mi_config_set(s->config, more[i], more[i + 1], &error);
    if (!ok || !mi_config_set(s->config, "engine.cache", cache, &error) ||
        !mi_config_check(s->config, s->registry, &error) ||
        !(s->assembly = mi_assembly_new(s->registry, s->config, &error)) ||
        !(s->engine = mi_engine_start(s->assembly, NULL, NULL, &error)))
        die(error);
}

static void on_event(void *user, const MiEvent *e)
{
    Answer *a = user;

    if (e->type == MI_EVENT_ERROR)
        die(&(GError){ MI_ERROR, e->code, (char *)(uintptr_t)e->text });
    if (e->type != MI_EVENT_DONE)
        return;
    g_mutex_lock(&a->lock);
    a->event = *e;
    a->done = true;
    g_cond_signal(&a->cond);
    g_mutex_unlock(&a->lock);
}

/* Milliseconds to the first token. */
static double ask(Side *s, const int32_t *tokens, int n, int *cached)
{
    Answer          a = { .done = false };
    GError         *error = NULL;
    const MiRequest q = { .tokens = tokens, .n_tokens = (size_t)n, .max_tokens = 2, .ignore_eos = true, .event = on_event,
                          .user = &a };

    if (!s->engine->api->submit(s->engine, &q, &error))
        die(error);
    g_mutex_lock(&a.lock);
    while (!a.done)
        g_cond_wait(&a.cond, &a.lock);
    g_mutex_unlock(&a.lock);
    *cached = a.event.n_cached;
    return (double)(a.event.queued_us + a.event.prompt_us) / 1e3;
}

int main(int argc, char **argv)
{
    const int shared = argc > 2 ? atoi(argv[2]) : 2000, own = argc > 3 ? atoi(argv[3]) : 24, n = argc > 4 ? atoi(argv[4]) : 100;
    double   *ms[2];
    int       cached[2] = { 0 };
    Side      side[2];
    MiStats   is;

    if (argc < 2 || shared < 1 || own < 1 || n < 2)
        die(NULL);
    start(&side[0], argv[1], "paged", argv + MIN(argc, 5), MAX(argc - 5, 0));
    start(&side[1], argv[1], "full", argv + MIN(argc, 5), MAX(argc - 5, 0));
    const int vocab = side[0].assembly->vocab;
    int32_t  *tokens = g_new(int32_t, shared + own);
    GRand    *rand = g_rand_new_with_seed(0);
    ms[0] = g_new(double, n), ms[1] = g_new(double, n);
    for (int i = 0; i < shared; i++)
        tokens[i] = g_rand_int_range(rand, 0, vocab);
    for (int i = 0; i < n; i++) {
        for (int k = 0; k < own; k++)
            tokens[shared + k] = g_rand_int_range(rand, 0, vocab);
        for (int k = 0; k < 2; k++)
            ms[(i + k) % 2][i] = ask(&side[(i + k) % 2], tokens, shared + own, &cached[(i + k) % 2]);
    }
    side[0].engine->api->stats(side[0].engine, &is);
    printf("%d requests of %d tokens, the first %d the same; time to the first token, ms\n", n, shared + own, shared);
    printf("%-26s %9s %9s %9s %9s\n", "", "first", "least", "median", "90 %");
    for (int k = 0; k < 2; k++) {
        const double first = ms[k][0];
        qsort(ms[k] + 1, (size_t)n - 1, sizeof *ms[k], mi_ascending);
        printf("%-26s %9.2f %9.2f %9.2f %9.2f   %d tokens were there\n", k ? "the suffix alone (full)" : "paged", first, ms[k][1],
               ms[k][1 + (n - 1) / 2], ms[k][1 + (n - 1) * 9 / 10], cached[k]);
    }
    printf("paged costs %.1f %% more (least: %.1f %%)\n", 100 * (ms[0][1 + (n - 1) / 2] / ms[1][1 + (n - 1) / 2] - 1),
           100 * (ms[0][1] / ms[1][1] - 1));
    printf("of %llu tokens of prompts the cache had %llu: %.1f %%\n", (unsigned long long)is.prompt_tokens,
           (unsigned long long)is.found_tokens, 100 * (double)is.found_tokens / (double)is.prompt_tokens);
    for (int k = 0; k < 2; k++) {
        mi_engine_stop(side[k].engine);
        mi_assembly_free(side[k].assembly);
        mi_config_free(side[k].config);
        mi_registry_free(side[k].registry);
        g_free(ms[k]);
    }
    g_free(tokens);
    g_rand_free(rand);
    return 0;
}
