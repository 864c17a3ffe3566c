/* graph.h - a step as one launch: what a shape enqueues is recorded and replayed. */
#ifndef MI_CORE_GRAPH_H
#define MI_CORE_GRAPH_H

#include "parts.h"

/* Enqueues the bucket's nodes for a step of this shape: the first time one by one, from the second as a graph,
 * if `recordable` and the nodes can be.  *first: it was one of these two times. */
bool mi_graph_run(MiAssembly *, MiBucket *, MiShape, bool recordable, bool *first, GError **error);
/* Frees all that was recorded. */
void mi_graph_clear(MiAssembly *);

#endif
