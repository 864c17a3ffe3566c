/* pace.h - what steps take, learned from those that were, so that prompts get what running answers leave of a
 * budget of time. */
#ifndef PACE_H
#define PACE_H

#include <miniinfer/context.h>

/* Microseconds of prompts as rows a + (sum of the positions before each) b: least squares over steps, the older
 * the less. */
typedef struct {
    double xx, xc, cc, xy, cy;
    double a, b; /* both 0: nothing is known */
    int    most; /* rows of a step, of late: far beyond them nothing is known */
} PaceRows;

typedef struct {
    double   decode[13];  /* microseconds of a step of 2^i to 2^(i+1) - 1 answers; 0: none was seen */
    PaceRows beside, alone; /* prompts with answers in their step, and without */
} Pace;

void pace_learn(Pace *, const MiStep *, int64_t microseconds);
/* Of a step of n answers alone; 0: not known. */
double pace_decode(const Pace *, int n);
/* How many rows of a prompt of which n_cached are there take so long beside answers; 0: not known. */
int pace_rows(const Pace *, int n_cached, double microseconds);
/* What they take; 0: not known. */
double pace_of(const Pace *, int n_cached, int rows);

#endif
