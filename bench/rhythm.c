/* rhythm.c - the time between the tokens of answers that run, with long prompts coming beside them: a real engine.
 *
 *   rhythm -m MODEL [--answers N] [--prompt N] [--every SECONDS] [--seconds N] [--section.key VALUE ...]
 *
 * First the answers alone, then with a prompt of random ids each so many seconds.  Plugins: as bench/scheduler. */
#include "assembly.h"
#include "config.h"
#include "engine.h"
#include "parts.h"
#include "plugins.h"
#include "spread.h"

#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    int    answers, prompt, seconds;
    double every;
} Wanted;

/* One answer, or one prompt beside them. */
typedef struct {
    GArray *gaps;  /* double, milliseconds; NULL: nobody asks */
    int64_t last, sent;
    double *first; /* milliseconds to the first token; where gaps is NULL */
    gint   *left;  /* how many are not done */
    bool    counts; /* set while its gaps are looked at */
    gint    done;
} Asked;

static GRand *random_ids;

/* Engine thread. */
static void event(void *user, const MiEvent *e)
{
    Asked        *a = user;
    const int64_t now = g_get_monotonic_time();

    if (e->type == MI_EVENT_TEXT && e->n_tokens) {
        const double gap = (double)(now - (a->last ? a->last : a->sent)) / 1e3;
        if (a->gaps && a->last && a->counts)
            g_array_append_val(a->gaps, gap);
        if (!a->gaps && !a->last)
            *a->first = gap;
        a->last = now;
    }
    if (e->type == MI_EVENT_ERROR)
        fprintf(stderr, "rhythm: %s\n", e->text);
    if (e->type == MI_EVENT_DONE || e->type == MI_EVENT_ERROR) {
        g_atomic_int_set(&a->done, 1);
        g_atomic_int_add(a->left, -1);
    }
}

static uint64_t ask(MiEngine *e, Asked *a, int vocab, int prompt, int tokens)
{
    g_autofree int32_t *ids = g_new(int32_t, prompt);
    g_autoptr(GError)   error = NULL;

    for (int i = 0; i < prompt; i++)
        ids[i] = g_rand_int_range(random_ids, 0, vocab);
    a->sent = g_get_monotonic_time();
    g_atomic_int_inc(a->left);
    const uint64_t id = e->api->submit(e, &(MiRequest){ .tokens = ids, .n_tokens = (size_t)prompt, .max_tokens = tokens,
                                                       .ignore_eos = true, .event = event, .user = a }, &error);
    if (!id) {
        fprintf(stderr, "rhythm: %s\n", error->message);
        exit(1);
    }
    return id;
}

static double at(GArray *sorted, double q)
{
    return sorted->len ? g_array_index(sorted, double, MIN((guint)(q * sorted->len), sorted->len - 1)) : 0;
}

enum { WARM = 2 /* seconds that do not count */, ANSWER = 4 /* tokens to a prompt beside */, BEGINNING = 32 /* of an answer */ };

/* One round: the p99 of the gaps. */
static double round_of(MiEngine *e, const Wanted *w, int vocab, int max_len, bool prompts)
{
    const int          n_prompts = prompts ? (int)((w->seconds + WARM) / w->every) + 1 : 0;
    g_autoptr(GArray)  gaps = g_array_new(FALSE, FALSE, sizeof(double));
    g_autofree Asked  *answers = g_new0(Asked, w->answers), *beside = g_new0(Asked, n_prompts + 1);
    g_autofree double *first = g_new0(double, n_prompts + 1);
    g_autofree uint64_t *ids = g_new0(uint64_t, w->answers + n_prompts);
    gint               left = 0;
    double             sum = 0;
    int                sent = 0, n_first = 0;

    for (int i = 0; i < w->answers; i++) {
        answers[i] = (Asked){ .gaps = gaps, .left = &left };
        ids[i] = ask(e, &answers[i], vocab, BEGINNING, max_len - BEGINNING - 1);
    }
    const int64_t begun = g_get_monotonic_time();
    for (double now = 0; now < w->seconds + WARM; now = (double)(g_get_monotonic_time() - begun) / 1e6) {
        if (now >= sent * w->every && sent < n_prompts) {
            beside[sent] = (Asked){ .left = &left, .first = &first[sent] };
            ids[w->answers + sent] = ask(e, &beside[sent], vocab, w->prompt, ANSWER);
            sent++;
        }
        for (int i = 0; i < w->answers; i++) {
            if (g_atomic_int_get(&answers[i].done)) { /* at the model's limit */
                answers[i] = (Asked){ .gaps = gaps, .left = &left };
                ids[i] = ask(e, &answers[i], vocab, BEGINNING, max_len - BEGINNING - 1);
            }
            answers[i].counts = now >= WARM;
        }
        g_usleep(2000);
    }
    for (int i = 0; i < w->answers + sent; i++)
        e->api->cancel(e, ids[i]);
    while (g_atomic_int_get(&left))
        g_usleep(1000);
    qsort(gaps->data, gaps->len, sizeof(double), mi_ascending);
    for (int i = 0; i < sent; i++)
        sum += first[i], n_first += first[i] > 0;
    printf("%-16s %8u %8.2f %8.2f %8.2f %8.2f", prompts ? "with prompts" : "answers alone", gaps->len, at(gaps, 0.5), at(gaps, 0.9),
           at(gaps, 0.99), at(gaps, 1));
    if (prompts)
        printf("   %d of %d prompts begun, first token after %.0f ms", n_first, sent, n_first ? sum / n_first : 0);
    printf("\n");
    return at(gaps, 0.99);
}

static bool configure(int argc, char **argv, MiConfig *c, Wanted *w, GError **error)
{
    for (int i = 1; i < argc; i += 2) {
        const char *key = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;
        bool        ok = value != NULL;
        if (ok && strcmp(key, "-m") == 0)
            ok = mi_config_set(c, "model.path", value, error);
        else if (ok && strcmp(key, "--answers") == 0)
            w->answers = atoi(value);
        else if (ok && strcmp(key, "--prompt") == 0)
            w->prompt = atoi(value);
        else if (ok && strcmp(key, "--seconds") == 0)
            w->seconds = atoi(value);
        else if (ok && strcmp(key, "--every") == 0)
            w->every = g_ascii_strtod(value, NULL);
        else
            ok = ok && g_str_has_prefix(key, "--") && mi_config_set(c, key + 2, value, error);
        if (!ok && !*error)
            g_set_error(error, MI_ERROR, MI_ERROR_CONFIG, "%s: -m, --answers, --prompt, --every, --seconds and keys take a value", key);
        if (!ok)
            return false;
    }
    if (w->answers >= 1 && w->prompt >= 1 && w->seconds >= 1 && w->every > 0)
        return true;
    g_set_error(error, MI_ERROR, MI_ERROR_CONFIG, "numbers must be at least 1");
    return false;
}

static void compare(MiEngine *e, const Wanted *w, int vocab, int max_len)
{
    printf("%d answers; a prompt of %d tokens every %g s; milliseconds between tokens\n%-16s %8s %8s %8s %8s %8s\n", w->answers,
           w->prompt, w->every, "", "gaps", "p50", "p90", "p99", "most");
    const double alone = round_of(e, w, vocab, max_len, false), with = round_of(e, w, vocab, max_len, true);
    printf("p99 ratio %.2f\n", with / alone);
}

static bool measure(MiRegistry *r, MiConfig *c, const Wanted *w, GError **error)
{
    g_autofree char *seqs = g_strdup_printf("%d", w->answers + 4);
    MiAssembly      *a = NULL;
    MiEngine        *e = NULL;
    int32_t          max_len;

    if (!mi_config_get(c, "engine", "max_seqs") && !mi_config_set(c, "engine.max_seqs", seqs, error))
        return false;
    if (!mi_config_check(c, r, error) || !(a = mi_assembly_new(r, c, error)) || !(e = mi_engine_start(a, NULL, NULL, error))) {
        mi_assembly_free(a);
        return false;
    }
    e->api->model(e, &max_len);
    const bool fits = MAX(w->prompt + ANSWER, BEGINNING + 1) < max_len;
    if (fits)
        compare(e, w, a->vocab, max_len);
    else
        g_set_error(error, MI_ERROR, MI_ERROR_CONFIG, "a prompt of %d tokens and %d more: [engine] max_len is %d", w->prompt, ANSWER, max_len);
    mi_engine_stop(e);
    mi_assembly_free(a);
    return fits;
}

int main(int argc, char **argv)
{
    MiRegistry       *r = mi_registry_new();
    MiConfig         *c = mi_config_new();
    Wanted            w = { .answers = 4, .prompt = 1024, .seconds = 20, .every = 2 };
    g_autoptr(GError) error = NULL;

    random_ids = g_rand_new_with_seed(1);
    load_plugins(r);
    const bool ok = configure(argc, argv, c, &w, &error) && measure(r, c, &w, &error);
    if (!ok)
        fprintf(stderr, "rhythm: %s\n", error->message);
    g_rand_free(random_ids);
    mi_config_free(c);
    mi_registry_free(r);
    return !ok;
}
