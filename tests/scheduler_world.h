/* scheduler_world.h - what is around a scheduler: a cache that counts pages, a clock, and the engine's part of a
 * step, checked at every turn. */
#ifndef TESTS_SCHEDULER_WORLD_H
#define TESTS_SCHEDULER_WORLD_H

#include "common.h"

#include <miniinfer/scheduler.h>

#define POLICIES "fcfs", "priority", "fair", "sjf", "mlfq"
enum { WORLD_SLOTS = 64 };

struct World;

typedef struct {
    const char        *policy;
    const char *const *options; /* key, value, ..., NULL; may be NULL */
    int32_t            max_seqs, max_tokens, prefill_step;
    int                page, n_pages; /* of the cache; page 0: 16 */
    int                swap_pages;    /* beside the cache; 0: it swaps nothing */
    int                max_answer;    /* what requests say they want at most; 0: just what they get */
    bool               single, recomputes;
    bool               matches;     /* a sequence with an odd id finds its first page there */
    bool               matches_all; /* everybody finds everything */
    double           (*takes)(const struct World *); /* microseconds of w->step; NULL: by its rows */
    bool               late;        /* the end of an answer is known a step later, as by an engine with two under way */
} WorldSpec;

/* A request as the world keeps it. */
typedef struct {
    MiSequence s; /* first; s.owner is this */
    int        total;  /* tokens it ends at */
    int        held, outside; /* pages in the cache, and swapped out */
    int        kv;     /* positions that were computed and kept */
    int        rows;   /* computed, in all */
    int        drawn;
    bool       placed; /* before this step was made */
    bool       prompt_done, gone, ending, surprise; /* surprise: its end shows only a step after it */
    int64_t    first_us, done_us; /* of the clock; 0: not yet */
    int64_t    started; /* the step it was first in; -1: none */
} WorldSeq;

typedef struct World {
    WorldSpec          spec;
    const MiScheduler *vt;
    void              *self, *options;
    MiCache            cache;
    MiLimits           limits;
    GPtrArray         *all;     /* WorldSeq *, by id */
    GPtrArray         *known;   /* those that are not gone */
    MiSequence       **seqs;
    int32_t           *count;
    MiStep             step;
    int                used, outside; /* pages */
    int                n_matches, n_preempted, n_swapped;
    int64_t            n_steps;
    GArray            *order;   /* ids as they were first in a step */
} World;

/* Microseconds; the scheduler's clock. */
extern int64_t world_now;

World    *world_new(MiRegistry *, const WorldSpec *);
/* Everybody must be gone. */
void      world_free(World *);
WorldSeq *world_add(World *, const char *client, int priority, int n_prompt, int n_answer);
void      world_cancel(World *, WorldSeq *);
/* Asks for a step and checks it.  Its sequences are in w->step; false: there is none. */
bool      world_next(World *);
/* Runs it: the clock goes on by what it takes. */
void      world_run(World *);
/* Both, until nothing is left to do. */
void      world_finish(World *);
bool      world_runs(const World *, const WorldSeq *);
int       world_rows(const World *, const WorldSeq *); /* in this step */

#endif
