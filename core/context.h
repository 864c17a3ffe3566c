/* context.h - the memory that the engine hands out, counted, and the ways into
 * the device's: weights while loading, a step's numbers while running. */
#ifndef MI_CORE_CONTEXT_H
#define MI_CORE_CONTEXT_H

#include <miniinfer/backend.h>
#include <miniinfer/format.h>

typedef struct MiLoader MiLoader;

typedef struct {
    MiContext   pub; /* first: what plugins see */
    GHashTable *blocks; /* address -> bytes */
    size_t      allocated, pinned, peak; /* bytes now, those of them that are pinned host memory; the most */
    struct MiTuned *tuned; /* what measuring found out; may be NULL */
    MiLoader   *loader;  /* while weights load, where the device has memory of its own */
    char       *staging; /* what send() copies from: [n] parts of staging_bytes, pinned */
    size_t      staging_bytes, staging_at; /* of a part; where the next send() goes, from `staging` on */
    size_t      staging_end;
    MiCopy      copies[MI_MAX_COPIES]; /* not enqueued yet */
    int         n_copies;
} MiOwnedContext;

/* device: what backend->open() gave. */
bool mi_context_init(MiOwnedContext *, const MiBackend *, void *device, GError **error);
/* Frees what is left. */
void mi_context_clear(MiOwnedContext *);

/* Room for what n steps under way send, `bytes` each; nothing where memory is shared. */
bool mi_context_stage(MiOwnedContext *, size_t bytes, int n, GError **error);
/* What is sent from here on goes through part i. */
void mi_context_stage_part(MiOwnedContext *, int i);
/* Enqueues what send() was told, as far as that was not done or taken away. */
bool mi_context_flush(MiOwnedContext *, GError **error);
int  mi_context_take(MiOwnedContext *, MiCopy out[MI_MAX_COPIES]);
/* Enqueues n copies, up to MI_MAX_COPIES, as one piece of work where the backend can. */
bool mi_context_copy_all(const MiOwnedContext *, const MiCopy *, int n, GError **error);

/* Between these two upload() and put() copy through pinned buffers on threads of their own. */
bool mi_context_load_begin(MiOwnedContext *, GError **error);
/* Waits until everything has arrived. */
bool mi_context_load_end(MiOwnedContext *, GError **error);

/* "bf16" -> MI_BF16; false: a storage that is no plain array of numbers. */
bool mi_plain_dtype(const char *format, MiDType *out);
/* Bytes of a weight's elements as dtype. */
size_t mi_weight_bytes_as(const MiWeight *, MiDType dtype);

#endif
