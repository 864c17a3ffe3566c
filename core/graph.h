/* graph.h - a step as one launch: what a shape enqueues is recorded and replayed. */
#ifndef MI_CORE_GRAPH_H
#define MI_CORE_GRAPH_H

#include "parts.h"

/* Enqueues a step of this shape: what is to be copied in, the bucket's nodes, what is to be copied out; as one graph,
 * made at the first time, if `recordable` and the nodes can be, else one by one.  *first: something of this was done
 * for the first time. */
bool mi_graph_run(MiAssembly *, MiBucket *, MiShape, int flight, const MiMail *, bool recordable, bool *first,
                  GError **error);
/* Each flight of steps may have a graph of its own, which need not be told at each step what to copy; -1: any has.
 * False: it can be recorded ahead. */
bool mi_graph_has(const MiBucket *, MiShape, int flight);
void mi_graph_record(MiAssembly *, MiBucket *, MiShape, int flight);
/* As if it were recorded: all that its nodes need is there then. */
void mi_graph_rehearse(MiAssembly *, MiBucket *, MiShape);
/* Frees all that was recorded. */
void mi_graph_clear(MiAssembly *);

#endif
