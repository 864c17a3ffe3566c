/* breakdown.h - where the time of a run of many steps went: what it did, and where the device waited for the host.
 *
 * Steps are counted by kind and size in the run that is measured, which nothing else disturbs.  A second run of the same
 * sizes has marks round every step, by the device's own clock, which tell how long a step of each size takes and how long
 * the device had nothing to do before it; of some steps of each size, spread over the run, the nodes are timed one by one
 * (node_times.h) instead, and what such a step takes is divided as they are.  Where the host is the device marks cost
 * nothing: the run that is measured has them, and every step is divided by its own nodes. */
#ifndef MI_CORE_BREAKDOWN_H
#define MI_CORE_BREAKDOWN_H

#include "json_out.h"
#include "parts.h"

#include <stdio.h>

typedef struct MiBreakdown MiBreakdown;

/* NULL: the device does not tell how long its work took, or with *error.  The assembly outlives it. */
MiBreakdown *mi_breakdown_new(MiAssembly *, GError **error);
void         mi_breakdown_free(MiBreakdown *); /* NULL is ignored; nothing runs any more that it watches */

/* What the engine's watch is during the run that is measured, and during the second; NULL: none is needed. */
const struct MiWatch *mi_breakdown_first(MiBreakdown *);
const struct MiWatch *mi_breakdown_second(MiBreakdown *);

/* seconds: of the run that is measured. */
void mi_breakdown_print(const MiBreakdown *, FILE *, double seconds);
void mi_breakdown_json(const MiBreakdown *, MiJson *, const char *key, double seconds);

#endif
