/* scheduler_sim.h - a real scheduler plugin in an invented engine: a cache that counts pages and steps that take
 * what a formula says, so that an hour of requests is a second's work. */
#ifndef BENCH_SCHEDULER_SIM_H
#define BENCH_SCHEDULER_SIM_H

#include "registry.h"

#include <miniinfer/scheduler.h>

typedef struct {
    double  arrival; /* seconds */
    int32_t prompt, answer, priority;
    char    client[16];
} Ask;

/* Microseconds of a step: base + answers of them + rows of prompts + positions that either reads, and some luck. */
typedef struct {
    double base, answer, row, read, luck;
} Cost;

typedef struct {
    double first, done; /* seconds: first token, last one */
    double waited;      /* without a place, in all */
    double placed;      /* seconds; -1: it has no place */
} Fate;

typedef struct {
    const MiFeature   *policy;
    const char *const *options;  /* key, value, ..., NULL; may be NULL */
    int32_t            max_seqs, max_tokens, prefill_step, max_answer;
    int32_t            n_pages, page;
    Cost               cost;
    const Ask         *asks; /* [n_asks] by arrival */
    int                n_asks;
    double             slower; /* arrivals are so many times as far from each other */
    double             stop;   /* seconds after which nothing is simulated; 0: to the end */
    /* Seconds between the tokens of an answer, for those whose answer is at least so long; NULL: not wanted. */
    GArray *gaps; /* double */
    int32_t gaps_from;
} Sim;

typedef struct {
    Fate   *fates; /* [n_asks], the caller's */
    double  seconds; /* until the last answer */
    int64_t n_steps, n_preempted, host_ns; /* host_ns: of the processor, in next() */
    int64_t n_rows; /* of prompts */
} SimResult;

bool sim_run(const Sim *, SimResult *, GError **error);

/* Asks from a file of lines "arrival,prompt,answer,priority,client"; NULL with *error. */
GArray *asks_read(const char *path, GError **error);
/* Asks as the seed has them: Poisson arrivals, one a second, of chats, summaries and programs, whose lengths are log-normal. */
GArray *asks_draw(uint64_t seed, int n);

/* A picture of lines; log: of the y axis. */
typedef struct {
    const char *title, *x, *y;
    bool        log;
    int         n_lines, n_points;
    const char *const *names; /* [n_lines] */
    const double *at;         /* [n_points] */
    const double *values;     /* [n_lines][n_points] */
} Plot;
bool plots_write(const char *path, const Plot *plots, int n_plots, GError **error);

#endif
