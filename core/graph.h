/* graph.h - a step as one launch: what a shape enqueues is recorded and replayed. */
#ifndef MI_CORE_GRAPH_H
#define MI_CORE_GRAPH_H

#include "parts.h"

/* Enqueues a step of this shape: what is to be copied in, the bucket's nodes, what is to be copied out.  The first
 * time one by one, then, if `recordable` and the nodes can be, as one graph for each flight of steps.  *first:
 * something of this was done for the first time. */
bool mi_graph_run(MiAssembly *, MiBucket *, MiShape, const MiMail *, bool recordable, bool *first, GError **error);
/* Frees all that was recorded. */
void mi_graph_clear(MiAssembly *);

#endif
