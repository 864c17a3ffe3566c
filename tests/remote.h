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

extern bool        remote_no_graphs; /* recording fails, as where a plugin allocates meanwhile */
extern const char *remote_no_record; /* of this feature only; NULL: of none */
extern unsigned    remote_late_us;   /* how much later a copy is made than it could be */
extern size_t      remote_bytes;     /* of memory that are free */

/* Calls that may fail.  PREPARE, RUN: of an op.  WORK: what the device does by itself; it is lost then. */
typedef enum {
    REMOTE_OPEN, REMOTE_MEMORY, REMOTE_ALLOC, REMOTE_STREAM, REMOTE_EVENT, REMOTE_COPY, REMOTE_COPY_ALL, REMOTE_RECORD,
    REMOTE_WAIT, REMOTE_BEGIN, REMOTE_END, REMOTE_REPLAY, REMOTE_PREPARE, REMOTE_RUN, REMOTE_WORK, REMOTE_N
} RemoteCall;
extern const char *const remote_names[REMOTE_N];

/* AGAIN: all later ones of that kind, too.  LOST: nothing at all works any more, as after an illegal address. */
typedef enum { REMOTE_ONCE, REMOTE_AGAIN, REMOTE_LOST } RemoteHow;

/* The nth call of that kind from now on fails, from 1; 0: none.  The device is well again, and calls are
 * counted from 0.  code: an MiErrorCode. */
void remote_fail(RemoteCall, long nth, RemoteHow, int code);
/* "replay 20 lost": of an environment variable. */
void remote_fail_as(const char *text);
bool remote_failed(void);         /* it did */
long remote_calls(RemoteCall);    /* how many there were */
/* What was opened, allocated, made and not freed: devices, streams, memory, events, graphs.  All zero: NULL,
 * else a line. */
const char *remote_left(void);

#endif
