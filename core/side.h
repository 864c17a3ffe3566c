/* side.h - an assembly run by hand, step by step, its values read and written
 * between nodes: what `verify` and `trace` are made of.
 *
 * Works for a device with memory of its own: every value goes through pinned memory. */
#ifndef MI_CORE_SIDE_H
#define MI_CORE_SIDE_H

#include "runner.h"

/* A schedule with the memory of its values. */
typedef struct {
    MiSchedule *schedule;
    void       *arena;
    bool        own; /* not the runner's */
} MiPlaced;

typedef struct {
    MiAssembly *a;
    MiRunner   *runner;
    GPtrArray  *seqs; /* MiRequested * */
    void       *event;
    char       *pinned; /* [pinned_bytes] */
    size_t      pinned_bytes;
    GHashTable *plain, *spare; /* MiSchedule * -> MiPlaced * */
} MiSide;

/* The assembly's weights are loaded, no engine runs on it. */
bool mi_side_open(MiSide *, MiAssembly *, GError **error);
void mi_side_close(MiSide *);

/* One more sequence that takes part; its slot is its number. */
bool mi_side_ask(MiSide *, const MiRequest *, GError **error);
/* The next step of all of them, prompts first: `nodes` runs its nodes.  The flight stays valid
 * until the next but one. */
bool mi_side_step(MiSide *, MiRunNodes *nodes, void *user, MiFlight **out, GError **error);
/* Some sequence has not all of its tokens. */
bool mi_side_unfinished(const MiSide *);
/* What is drawn for each output row of the step. */
void mi_side_draw(MiSide *, const MiFlight *, const int32_t *tokens);

/* The same program without fusions, at memory of its own where that differs. */
const MiPlaced *mi_side_plain(MiSide *, MiSchedule *, GError **error);

/* The same once more, at memory that nothing else uses. */
const MiPlaced *mi_side_spare(MiSide *, MiSchedule *, GError **error);

/* Returns when all that is enqueued is done. */
bool mi_side_wait(MiSide *, GError **error);
/* Run i, then the wait. */
bool mi_side_run(MiSide *, const MiPlaced *, guint i, GError **error);

/* Elements of a value in a step of this shape; a view has none. */
int64_t mi_side_elements(const MiPlaced *, MiVal, MiShape);
bool    mi_side_read(MiSide *, const MiPlaced *, MiVal, float *out, int64_t n, GError **error);
bool    mi_side_write(MiSide *, const MiPlaced *, MiVal, const float *x, int64_t n, GError **error);
/* n pieces of `bytes` each at the device's from[i], one after the other; valid until the next call. */
const void *mi_side_gather(MiSide *, const void *const *from, size_t n, size_t bytes, GError **error);
/* The other way round; nothing to where to[i] is NULL. */
bool mi_side_scatter(MiSide *, void *const *to, size_t n, size_t bytes, const void *from, GError **error);

/* "model.layers.0: linear mlp.gate_proj + silu"; the caller frees it. */
char *mi_side_label(const MiSchedule *, guint i);

#endif
