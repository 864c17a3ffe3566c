/* crowd.h - requests that are submitted at once, and when each of their tokens came: what benchmarks measure. */
#ifndef MI_CORE_CROWD_H
#define MI_CORE_CROWD_H

#include <miniinfer/frontend.h>
#include <stdatomic.h>

typedef struct MiCrowd MiCrowd;

typedef struct {
    MiCrowd *crowd;
    uint64_t id;
    int64_t *at; /* [n_want] when each token came, microseconds; the engine thread's until it is done, as n is */
    int32_t  n, n_want;
    int64_t  submitted, prompt_us;
    bool     done;
} MiAsked;

struct MiCrowd {
    GMutex    lock; /* of the rest, while requests are under way */
    GCond     more;
    MiEngine *engine;
    MiAsked  *asked; /* [n] */
    int       n, left;
    _Atomic uint64_t drawn;
    GError   *error; /* the first; NULL: none */
};

void mi_crowd_init(MiCrowd *, MiEngine *, int n);
void mi_crowd_clear(MiCrowd *);

/* Number i, once more if it was before: n_want tokens, whatever the model would like. */
bool mi_crowd_submit(MiCrowd *, int i, const int32_t *ids, size_t n, int32_t n_want, GError **error);
void mi_crowd_cancel(void *crowd); /* all; may be a signal's target */
/* Until all are done; tick: now and then, locked, may be NULL.  False: with the first error of any. */
bool mi_crowd_wait(MiCrowd *, void (*tick)(void *user), void *user, GError **error);

#endif
