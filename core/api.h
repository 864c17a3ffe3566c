/* api.h - what the parts of libminiinfer share.
 *
 * A handle is alive while somebody holds a reference: the caller until close(), every answer until it is released.
 * What is inside of it, session and parts, is there from open() to close(): a call that uses it stands between
 * mi_api_enter() and mi_api_leave(), and close() waits for those under way. */
#ifndef MI_CORE_API_H
#define MI_CORE_API_H

#include "context.h"
#include "session.h"

#include <miniinfer/miniinfer.h>
#include <signal.h>

/* A device of its own for single operations; the engine's belongs to the engine's thread. */
typedef struct {
    const MiFeature *backend; /* NULL: not opened yet */
    void            *options, *device, *event;
    MiOwnedContext   ctx;
    char            *staging; /* pinned; NULL where memory is shared */
} MiPartsDevice;

struct Miniinfer {
    int            refs;
    GMutex         lock; /* of the next five */
    GCond          idle;
    int            users; /* calls between enter and leave */
    bool           closing, loaded;
    GThread       *loader; /* in load() */
    GThread       *engine_thread; /* NULL: it has told nothing yet; atomic */
    MiSession      session;
    MiniinferModel model;
    GMutex         parts_lock;
    MiPartsDevice  parts;
};

#define MI_MISUSE (g_quark_from_static_string("miniinfer-misuse"))

/* ok; else *out is filled from why, which is freed. */
bool mi_api_told(bool ok, GError *why, MiniinferError *out);
void mi_api_fill(MiniinferError *out, const GError *why); /* out may be NULL */
MiniinferCode mi_api_code(const GError *why);

/* model: it must be loaded.  False with *error. */
bool mi_api_enter(Miniinfer *, bool model, GError **error);
void mi_api_leave(Miniinfer *);
bool mi_api_on_engine_thread(Miniinfer *);
Miniinfer *mi_api_ref(Miniinfer *);
void       mi_api_unref(Miniinfer *);

/* Threads that start meanwhile have all signals blocked but those of faults. */
void mi_api_block_signals(sigset_t *before);
void mi_api_restore_signals(const sigset_t *before);

/* Copies a caller's struct that begins with its size; what it lacks is zero.  False with *error: no size, or members that
 * are set and not known here. */
bool mi_api_sized(void *to, size_t bytes, const void *from, size_t least, GError **error);

void mi_api_parts_close(MiPartsDevice *);

#endif
