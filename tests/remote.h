/* remote.h - a device that works by itself, without being one: memory of its own
 * by name only, and a thread that does, in order and later, what was enqueued.
 *
 * Every feature for the CPU stands there once more for backend "remote", behind a
 * wrapper that copies its call and leaves it to that thread.  So the engine's steps
 * under way, its staging, its padding and its graphs are tested where there is no
 * card: a host that reads a result too soon, or writes what is still to be read,
 * gets other tokens than the CPU. */
#ifndef TESTS_REMOTE_H
#define TESTS_REMOTE_H

#include "registry.h"

/* After the CPU's plugins were loaded. */
void remote_add(MiRegistry *r);

extern bool   remote_no_graphs; /* recording fails, as where a plugin allocates meanwhile */
extern size_t remote_bytes;     /* of memory that are free */

#endif
