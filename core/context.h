/* context.h - the memory that the engine hands out, counted. */
#ifndef MI_CORE_CONTEXT_H
#define MI_CORE_CONTEXT_H

#include <miniinfer/context.h>

typedef struct {
    MiContext   pub; /* first: what plugins see */
    GHashTable *blocks; /* address -> bytes */
    size_t      allocated, peak;
} MiOwnedContext;

/* device: what backend->open() gave. */
void mi_context_init(MiOwnedContext *, const MiBackend *, void *device);
/* Frees what is left. */
void mi_context_clear(MiOwnedContext *);

#endif
