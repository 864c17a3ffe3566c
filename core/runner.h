/* runner.h - steps: what goes in, the launch, what comes out.
 *
 * A step is launched and waited for later.  Where the device works by itself, two
 * are under way: the second is prepared and enqueued while the first runs.  Then a
 * token that the host does not know yet stands in its sequence as -1 - slot, and
 * the device reads it from where it was drawn. */
#ifndef MI_CORE_RUNNER_H
#define MI_CORE_RUNNER_H

#include "sequence.h"

/* A step under way. */
typedef struct {
    MiStep   step;    /* what the scheduler gave; its sequences live until the step is delivered */
    MiShape  shape;   /* before padding */
    int32_t *seen;    /* [n_seqs] one past the last position of each */
    int32_t *out_seq; /* [n_out] index in step.seqs of each output row */
    int32_t *out_slot, *out_position; /* [n_out] slot -1: a row that is scored, not drawn from */
    bool     logprobs, first; /* first: of its kind, so that something was made for it */
    bool     watched;         /* the watch ran its nodes */
    int      watch_mark;      /* the watch's own */
    int64_t  launched_us;
    /* After the wait, host memory: */
    const int32_t *tokens;   /* [n_out] */
    const float   *values;   /* [n_out][1 + MI_MAX_TOPS] where logprobs */
    const int32_t *ids;      /* like values */
    /* the runner's */
    void  *event;
    MiMail mail;
    char  *results; /* pinned; NULL where memory is shared */
} MiFlight;

typedef struct MiRunner MiRunner;

/* Allocates everything that steps need: cache, arena, tables.  NULL with *error. */
MiRunner *mi_runner_new(MiAssembly *, GError **error);
void      mi_runner_free(MiRunner *);
void     *mi_runner_cache(const MiRunner *);
int       mi_runner_depth(const MiRunner *); /* steps under way at once */

/* For commands that look inside steps (verify, trace, bench).  All optional. */
typedef bool MiRunNodes(void *user, MiSchedule *, GError **error);
typedef struct MiWatch {
    /* Called in place of running a step's nodes, when all that they read is enqueued; such a step is neither padded nor
     * recorded. */
    MiRunNodes *nodes;
    bool      (*wants)(void *user, const MiFlight *); /* whether nodes() runs this one; NULL: all of them */
    /* Round what a step enqueues; when it is done. */
    bool      (*begin)(void *user, MiFlight *, GError **error);
    bool      (*end)(void *user, MiFlight *, GError **error);
    bool      (*done)(void *user, const MiFlight *, GError **error);
    void       *user;
} MiWatch;
/* Between steps; borrowed until the next call.  NULL: steps run as usual. */
void mi_runner_watch(MiRunner *, const MiWatch *);
void *mi_runner_arena(const MiRunner *);
/* A schedule of a program of this assembly, as the runner binds its own, but for the arena. */
void mi_runner_bind(MiRunner *, MiSchedule *, void *arena);

/* A free one for the scheduler to fill. */
MiFlight *mi_runner_flight(MiRunner *);
/* Enqueues it.  A sequence of which it draws ends in a token that nobody knows yet. */
bool mi_runner_launch(MiRunner *, MiFlight *, GError **error);
/* Some milliseconds of work that steps to come may need, to be done while those under way run: a schedule, a recording,
 * for as many sequences as there are, for fewer, for more positions, for more sequences.  False: there is none. */
bool mi_runner_ahead(MiRunner *);
/* All that decodes, as far as it can be told, recorded, and the code that prompts need loaded: some hundred milliseconds.
 * False: [engine] rehearse does not want it. */
bool mi_runner_rehearse(MiRunner *);
/* Returns when it is done.  After an error nothing that is under way will be. */
bool mi_runner_wait(MiRunner *, MiFlight *, GError **error);

#endif
