/* context.h - what the engine hands to a plugin: a device, its stream, and
 * what a sequence is.
 *
 * Every callback in these headers is marked with the side it runs on:
 *
 *   LOAD     host, while the engine is assembled or taken down; may block and allocate
 *   STEP     host, engine thread, between launches; bounded time, no allocation
 *   ENQUEUE  host, engine thread, perhaps inside a capture: only enqueues work
 *            on ctx->stream; no allocation, no waiting, no reading of device memory
 *
 * A callback that returns bool sets *error if and only if it returns false,
 * unless its comment says what false means.  No pointer is NULL where nothing
 * is said; `self` is what create() or open() gave.  destroy() and close() are
 * LOAD, called once, when nothing of self is in use. */
#ifndef MINIINFER_CONTEXT_H
#define MINIINFER_CONTEXT_H

#include <glib.h>
#include <miniinfer/types.h>

typedef struct MiBackend MiBackend;
typedef struct MiContext MiContext;
struct MiWeight;

typedef enum { MI_MEM_DEVICE, MI_MEM_PINNED } MiMemory;

/* One for each device; the engine's, valid until it is freed. */
struct MiContext {
    size_t           struct_size;
    const MiBackend *backend;
    void            *device;        /* the backend's handle */
    void            *stream;        /* cudaStream_t; NULL on the CPU */
    int32_t          rank, n_ranks; /* which part of a split weight is this device's */

    /* LOAD.  Memory that `plan` counts under the calling feature; NULL with
     * *error set when there is none.  free() takes NULL. */
    void *(*alloc)(MiContext *, MiMemory, size_t bytes, GError **error);
    void (*free)(MiContext *, MiMemory, void *p);
    /* LOAD.  Host memory to the device through pinned buffers; returns when
     * src may be reused, not when dst is filled. */
    bool (*upload)(MiContext *, void *dst, const void *src, size_t bytes, GError **error);

    MiDType dtype; /* of activations */
    /* LOAD.  A weight's elements, however its file stores them, as dtype and row-major. */
    bool (*put)(MiContext *, void *dst, MiDType dtype, const struct MiWeight *, GError **error);
    /* STEP.  What a step tells the device, in stream order; src may be reused at once. */
    bool (*send)(MiContext *, void *dst, const void *src, size_t bytes, GError **error);

    /* LOAD, all three.  What was measured on this machine, perhaps in an earlier run: up to 1024 bytes under a
     * key of up to 255 printable characters that names all it depends on: card, driver, library, shape.
     * recall(): NULL: not known; valid until the next call.  measures(): there is time to find it out now;
     * remember() ends that. */
    const void *(*recall)(MiContext *, const char *key, size_t *bytes);
    bool (*measures)(MiContext *);
    void (*remember)(MiContext *, const char *key, const void *data, size_t bytes);
};

/* A request on its way through.  Host memory, the engine's. */
typedef struct {
    uint64_t id;
    int32_t  slot;     /* -1: waiting */
    int32_t *tokens;   /* [n_tokens] prompt, then what was drawn */
    int32_t  n_prompt, n_tokens;
    int32_t  n_cached; /* positions the cache holds */
    int32_t  max_tokens, priority;
    bool     fresh;    /* wants a result for every row of its prompt: no match may stand in for some */
    bool     ended;    /* its answer is complete; a sequence that leaves without it was cancelled */
    int64_t  arrived;  /* microseconds, monotonic */
    const char *client; /* who asks; "": nobody in particular */
    void    *owner;    /* the engine's */
    void    *place;    /* the scheduler's, from add() to remove(); NULL else */
} MiSequence;

/* The rows of one step.  The arrays are the engine's, sized once. */
typedef struct {
    MiShape      shape; /* before padding */
    MiSequence **seqs;  /* [n_seqs] */
    int32_t     *count; /* [n_seqs] rows of each: 1 when decoding */
} MiStep;

#define MI_ERROR (g_quark_from_static_string("miniinfer"))
typedef enum {
    MI_ERROR_PLUGIN,      /* a file that is no plugin of ours, or a feature that none brings */
    MI_ERROR_NOT_FOUND,   /* a file, a model, a part of one */
    MI_ERROR_CONFIG,      /* a key or value of a configuration or request */
    MI_ERROR_UNSUPPORTED, /* parts that do not fit each other */
    MI_ERROR_MODEL,       /* a weights file that is not what it says */
    MI_ERROR_DEVICE,
    MI_ERROR_NO_MEMORY,
    MI_ERROR_IO,          /* a file that cannot be read or written */
} MiErrorCode;

#endif
