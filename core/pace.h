/* pace.h - what each step takes of the engine's thread, its waits for the device left out, and whether
 * the device ever had to wait for it. */
#ifndef MI_CORE_PACE_H
#define MI_CORE_PACE_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

enum { MI_PACED = 4096 }; /* steps that are remembered */

typedef struct {
    int64_t ns;     /* from the end of the wait before it to that of its own, less both waits */
    int32_t n_seqs;
    bool    decode; /* one row of each sequence */
    bool    first;  /* something was made that later steps of its kind find: a schedule, a recording */
    bool    late;   /* it was over before the step behind it had been enqueued: the device had nothing to do */
} MiPaced;

typedef struct {
    MiPaced  at[MI_PACED]; /* a ring */
    uint64_t n;            /* steps so far */
} MiPaceLog;

/* Of the steps of one kind, those that made nothing: */
typedef struct {
    uint64_t n; /* steps of every kind until now */
    int    steps, late;
    double median_us, p99_us;
    int    first;    /* how many made something */
    double first_us; /* all they took, in all */
} MiPace;

int64_t mi_pace_now(void); /* nanoseconds */
void    mi_pace_add(MiPaceLog *, const MiPaced *);
/* Since the first `since` steps, as far as they are remembered; n_seqs 0: of any number. */
void mi_pace_sum(const MiPaceLog *, uint64_t since, bool decode, int n_seqs, MiPace *out);

#endif
