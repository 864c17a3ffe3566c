/* backend.h - a device: memory, streams, events, graphs.  What it computes is
 * in features of kind op, linear, attention and sampler. */
#ifndef MINIINFER_BACKEND_H
#define MINIINFER_BACKEND_H

#include <miniinfer/context.h>

typedef struct {
    void       *dst;
    const void *src;
    size_t      bytes; /* a multiple of 4, like both addresses */
} MiCopy;

struct MiBackend {
    size_t struct_size;
    bool   unified; /* device memory is host memory: a mapped weight is used where it lies */
    int32_t  rank;   /* of several with a device `auto` picks the highest */
    uint32_t dtypes; /* of activations that it has ops for: 1u << MiDType, or'ed; best first is bf16, f16, f32 */

    /* LOAD.  Usable devices on this machine; none is no error. */
    int (*probe)(void);
    /* LOAD.  Opens device `index`; options: its filled struct, NULL without a
     * table.  Returns the handle all others get, NULL with *error. */
    void *(*open)(int index, const void *options, GError **error);
    /* LOAD.  Nothing of the device is in use any more. */
    void (*close)(void *device);
    /* LOAD.  Bytes free now and in all. */
    bool (*memory)(void *device, size_t *free, size_t *total, GError **error);
    /* LOAD.  256-byte aligned; NULL with *error. */
    void *(*alloc)(void *device, MiMemory, size_t bytes, GError **error);
    /* LOAD.  Returns when no work under way uses it; p may be NULL. */
    void (*free)(void *device, MiMemory, void *p);

    /* LOAD.  A queue of work; NULL is a valid one where there are no streams. */
    bool (*stream_new)(void *device, void **stream, GError **error);
    void (*stream_free)(void *device, void *stream);
    /* LOAD.  A mark in a stream. */
    bool (*event_new)(void *device, void **event, GError **error);
    void (*event_free)(void *device, void *event);

    /* ENQUEUE.  Of device or pinned memory, each side. */
    bool (*copy)(void *device, void *stream, void *dst, const void *src, size_t bytes, GError **error);
    /* ENQUEUE. */
    bool (*event_record)(void *device, void *event, void *stream, GError **error);
    bool (*stream_wait)(void *device, void *stream, void *event, GError **error);
    /* STEP.  Returns when everything before the event is done; the only wait of a step. */
    bool (*event_wait)(void *device, void *event, GError **error);

    /* Optional, all four or none: without them every step runs eagerly. */
    /* STEP.  What is enqueued on `stream` from here on is recorded, not run. */
    bool (*capture_begin)(void *device, void *stream, GError **error);
    /* STEP.  The recorded graph; NULL with *error when something was not capturable. */
    void *(*capture_end)(void *device, void *stream, GError **error);
    /* ENQUEUE.  The copies in[n_in], what was recorded, the copies out[n_out], in this order; at most
     * MI_MAX_COPIES each, none of which reads what another of its kind writes. */
    bool (*replay)(void *device, void *stream, void *graph, const MiCopy *in, int n_in, const MiCopy *out, int n_out,
                   GError **error);
    /* LOAD.  It may be under way. */
    void (*graph_free)(void *device, void *graph);

    /* ENQUEUE, optional; for ops on the host.  Calls fn(arg, i, n) for every i < n
     * on the backend's threads, n of its choosing, and returns when all have. */
    void (*parallel)(void *device, void (*fn)(void *arg, int i, int n), void *arg);

    /* LOAD, optional.  Microseconds between two marks, both waited for: timer_new()'s where there is that. */
    bool (*event_elapsed)(void *device, void *from, void *to, double *us, GError **error);
    /* LOAD, optional.  Bytes a second that reading device memory gives, measured now: the limit
     * that `bench` sets its figures against. */
    bool (*read_rate)(void *device, double *bytes, GError **error);

    /* ENQUEUE, optional.  Several small copies as one piece of work, none of which reads what another
     * writes; n: at most MI_MAX_COPIES. */
    bool (*copy_all)(void *device, void *stream, const MiCopy *copies, int n, GError **error);

    /* STEP, optional.  What is enqueued until the next call is shown under this name by the vendor's
     * profilers; NULL: no name. */
    void (*name_range)(void *device, const char *name);

    /* LOAD, optional.  Like event_new(): a mark that event_elapsed() takes. */
    bool (*timer_new)(void *device, void **event, GError **error);
};
enum { MI_MAX_COPIES = 32 };

#endif
