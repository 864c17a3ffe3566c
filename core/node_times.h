/* node_times.h - how long each node of a step takes: marks between them, by the device's own clock.
 *
 * A step begins with its tokens and can be run again.  Where the device works by itself it is first given copies to
 * do, long enough for the host to enqueue the whole step behind them: or short nodes would be as long as their launch
 * takes. */
#ifndef MI_CORE_NODE_TIMES_H
#define MI_CORE_NODE_TIMES_H

#include "schedule.h"

typedef struct {
    MiContext *ctx;
    void     **marks; /* [n_marks] */
    guint      n_marks;
    void      *delay, *delay_from; /* device, pinned; NULL until they are needed */
} MiNodeTimes;

/* False: the device does not tell how long its work took. */
bool mi_node_times_can(const MiContext *);
/* ctx outlives it.  Nothing is made yet. */
static inline MiNodeTimes mi_node_times(MiContext *ctx) { return (MiNodeTimes){ .ctx = ctx }; }
void mi_node_times_clear(MiNodeTimes *);

/* How many copies take longer than the host needs to enqueue the step, which runs once or twice for that; 0 where
 * enqueueing is running. */
bool mi_node_times_delays(MiNodeTimes *, const MiSchedule *, int *out, GError **error);
/* The whole step once, and what each of its nodes took; us: [s->runs->len]. */
bool mi_node_times_run(MiNodeTimes *, const MiSchedule *, int delays, double *us, GError **error);
/* When node i of that run began, from the first one's beginning. */
bool mi_node_times_begin(const MiNodeTimes *, guint i, double *us, GError **error);

/* A mark that event_elapsed() takes. */
bool mi_timer_new(const MiContext *, void **out, GError **error);

#endif
