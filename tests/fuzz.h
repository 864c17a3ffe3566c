/* fuzz.h - what the fuzzers share: their random numbers, and a command line
 *
 *   tests/fuzz_* [--count N] [--seconds S] [--seed N]
 *
 * of which --seconds alone means no limit of mutants. */
#ifndef TESTS_FUZZ_H
#define TESTS_FUZZ_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static uint64_t random_state;

static inline uint64_t random_bits(void) /* splitmix64 */
{
    uint64_t z = random_state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static inline size_t below(size_t n) { return n ? (size_t)(random_bits() % n) : 0; }

typedef struct {
    gint64 count, seed; /* count: of mutants; 0: as many as the time allows */
    double seconds;     /* 0: no limit */
    gint64 began;
} FuzzPlan;

/* `count`: where neither is given.  `more` may be NULL.  Ends the program after a wrong argument. */
static inline FuzzPlan fuzz_plan(int argc, char **argv, gint64 count, const GOptionEntry *more)
{
    FuzzPlan           p = { .count = -1, .seed = 1 };
    const GOptionEntry entries[] = { { "count", 0, 0, G_OPTION_ARG_INT64, &p.count, "mutants", "N" },
                                     { "seconds", 0, 0, G_OPTION_ARG_DOUBLE, &p.seconds, "time", "S" },
                                     { "seed", 0, 0, G_OPTION_ARG_INT64, &p.seed, "of the random numbers", "N" },
                                     { 0 } };
    GOptionContext    *options = g_option_context_new(NULL);
    g_autoptr(GError)  error = NULL;
    bool               ok;

    g_option_context_add_main_entries(options, entries, NULL);
    if (more)
        g_option_context_add_main_entries(options, more, NULL);
    if ((ok = g_option_context_parse(options, &argc, &argv, &error)) && argc > 1)
        fprintf(stderr, "%s: '%s' is no option\n", argv[0], argv[1]);
    else if (!ok)
        fprintf(stderr, "%s: %s\n", argv[0], error->message);
    g_option_context_free(options);
    if (!ok || argc > 1)
        exit(64);
    if (p.count < 0)
        p.count = p.seconds > 0 ? 0 : count;
    random_state = (uint64_t)p.seed;
    p.began = g_get_monotonic_time();
    return p;
}

/* Another one, after `done`? */
static inline bool fuzz_goes_on(const FuzzPlan *p, gint64 done)
{
    return (!p->count || done < p->count) &&
           (p->seconds <= 0 || (double)(g_get_monotonic_time() - p->began) < p->seconds * 1e6);
}

#endif
