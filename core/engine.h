/* engine.h - the loop: one thread that schedules, runs and delivers.
 *
 * mi_engine_start() loads the weights and allocates everything; from then on
 * front ends talk to it through MiEngineApi (miniinfer/frontend.h). */
#ifndef MI_CORE_ENGINE_H
#define MI_CORE_ENGINE_H

#include "assembly.h"
#include "pace.h"
#include "weights.h"

/* progress: called while weights load, from the calling thread; false stops it; may be NULL. */
MiEngine *mi_engine_start(MiAssembly *, MiLoadProgress *progress, void *user, GError **error);
/* Cancels what runs, joins the thread, frees all but the assembly. */
void mi_engine_stop(MiEngine *);

const MiPhase *mi_engine_phases(const MiEngine *, int *n);
/* What its steps since the first `since` took of its thread; see pace.h. */
void mi_engine_pace(MiEngine *, uint64_t since, bool decode, int n_seqs, MiPace *out);
/* Waits until nothing is asked of it; borrowed until the next call, NULL: nobody looks.  See runner.h. */
struct MiWatch;
void mi_engine_watch(MiEngine *, const struct MiWatch *);
/* Bytes the engine really allocated through its contexts: equals mi_assembly_plan()->allocated. */
size_t mi_engine_allocated(const MiEngine *);

#endif
