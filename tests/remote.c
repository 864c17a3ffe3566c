#include "remote.h"
#include "pace.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_FEATURES = 128, MAX_QUEUED = 1 << 14 };

/* ---- what fails, what is left -------------------------------------------------- */

const char *const remote_names[REMOTE_N] = {
    "open", "memory", "alloc", "stream", "event", "copy", "copy_all", "record", "wait", "begin", "end", "replay", "prepare",
    "run", "work",
};
enum { DEVICES, STREAMS, BLOCKS, EVENTS, GRAPHS, N_KEPT };

static GMutex     faults; /* of what follows */
static RemoteCall failing;
static long       left, calls[REMOTE_N], kept[N_KEPT];
static RemoteHow  failing_how;
static int        failing_code;
static bool       failed, lost;

void remote_fail(RemoteCall call, long nth, RemoteHow how, int code)
{
    g_mutex_lock(&faults);
    failing = call;
    left = nth;
    failing_how = how;
    failing_code = code;
    failed = lost = false;
    memset(calls, 0, sizeof calls);
    g_mutex_unlock(&faults);
}

void remote_fail_as(const char *text)
{
    g_auto(GStrv)   word = g_strsplit(text ? text : "", " ", 3);
    int             call = 0;
    const bool      unsupported = g_strv_length(word) == 3 && strcmp(word[2], "refused") == 0;
    const bool      memory = g_strv_length(word) == 3 && strcmp(word[2], "memory") == 0;

    if (g_strv_length(word) != 3)
        return;
    while (call < REMOTE_N - 1 && strcmp(remote_names[call], word[0]) != 0)
        call++;
    remote_fail((RemoteCall)call, strtol(word[1], NULL, 10), strcmp(word[2], "lost") == 0 ? REMOTE_LOST : REMOTE_ONCE,
                unsupported ? MI_ERROR_UNSUPPORTED : memory ? MI_ERROR_NO_MEMORY : MI_ERROR_DEVICE);
}

bool remote_failed(void)
{
    g_mutex_lock(&faults);
    const bool yes = failed;
    g_mutex_unlock(&faults);
    return yes;
}

long remote_calls(RemoteCall call)
{
    g_mutex_lock(&faults);
    const long n = calls[call];
    g_mutex_unlock(&faults);
    return n;
}

/* Counts the call; false with *error: it is the one that fails. */
static bool works(RemoteCall call, GError **error)
{
    g_mutex_lock(&faults);
    calls[call]++;
    const bool fails = lost || (failing == call && (left == 1 || (failed && failing_how == REMOTE_AGAIN)));
    const int  code = lost ? MI_ERROR_DEVICE : failing_code;
    left -= failing == call && left > 0;
    if (fails) {
        failed = true;
        lost = lost || failing_how == REMOTE_LOST || call == REMOTE_WORK;
        g_set_error(error, MI_ERROR, lost ? MI_ERROR_DEVICE : code, "remote: %s %ld %s", remote_names[call],
                    calls[call], lost ? "found the device lost" : "failed, as asked");
    }
    g_mutex_unlock(&faults);
    return !fails;
}

static void keep(int what, long n)
{
    g_mutex_lock(&faults);
    kept[what] += n;
    g_mutex_unlock(&faults);
}

const char *remote_left(void)
{
    static char line[160];
    bool        any = false;

    g_mutex_lock(&faults);
    for (int i = 0; i < N_KEPT; i++)
        any = any || kept[i];
    g_snprintf(line, sizeof line, "left: %ld devices, %ld streams, %ld blocks of memory, %ld events, %ld graphs",
               kept[DEVICES], kept[STREAMS], kept[BLOCKS], kept[EVENTS], kept[GRAPHS]);
    g_mutex_unlock(&faults);
    return any ? line : NULL;
}

/* ---- work ------------------------------------------------------------------- */

typedef struct {
    const MiOp *op; /* NULL: a copy */
    void       *state;
    MiContext  *ctx;
    MiCall      call;
    MiBatch     batch;
    void       *dst;
    const void *src;
    size_t      bytes;
    int64_t    *stamp; /* the moment it is reached, ns; NULL: nobody asks */
} Work;

typedef struct {
    uint64_t at; /* work before it */
    int64_t  ns;
    bool     timer;
} Event;

typedef struct {
    GThread    *thread;
    GMutex      lock;
    GCond       more, done;
    struct { Work *run, copy; } queue[MAX_QUEUED]; /* a ring; run NULL: copy */
    bool        owned[MAX_QUEUED];                 /* run is freed when it is done */
    uint64_t    enqueued, finished;
    bool        stopping, broken; /* broken: what is recorded cannot be */
    GPtrArray  *recording; /* Work *; NULL: nothing is recorded */
} Remote;

static void work_free(void *p)
{
    Work *w = p;
    for (int i = 0; w->op && i < w->call.n; i++) {
        g_free((void *)w->call.at[i].in);
        g_free((void *)w->call.at[i].out);
        g_free((void *)w->call.at[i].weight);
        g_free((void *)w->call.at[i].kv);
    }
    g_free((void *)w->call.at);
    g_free(w);
}

static void perform(Work *w)
{
    g_autoptr(GError) error = NULL;

    if (w->stamp) {
        *w->stamp = mi_pace_now();
        return;
    }
    if (!works(REMOTE_WORK, NULL))
        return;
    if (w->bytes) {
        if (remote_late_us)
            g_usleep(remote_late_us); /* a host that does not wait has time to be wrong */
        memcpy(w->dst, w->src, w->bytes);
    }
    if (w->op && !w->op->run(w->state, w->ctx, &w->call, &error))
        g_error("remote: %s", error->message);
}

static gpointer loop(gpointer data)
{
    Remote *r = data;

    g_mutex_lock(&r->lock);
    for (;;) {
        while (!r->stopping && r->enqueued == r->finished)
            g_cond_wait(&r->more, &r->lock);
        if (r->enqueued == r->finished)
            break;
        const uint64_t i = r->finished % MAX_QUEUED;
        g_mutex_unlock(&r->lock);
        perform(r->queue[i].run ? r->queue[i].run : &r->queue[i].copy);
        if (r->owned[i])
            work_free(r->queue[i].run);
        g_mutex_lock(&r->lock);
        r->finished++;
        g_cond_broadcast(&r->done);
    }
    g_mutex_unlock(&r->lock);
    return NULL;
}

/* run NULL: copy. */
static void enqueue(Remote *r, Work *run, Work copy, bool owned)
{
    g_mutex_lock(&r->lock);
    while (r->enqueued - r->finished == MAX_QUEUED)
        g_cond_wait(&r->done, &r->lock);
    const uint64_t i = r->enqueued++ % MAX_QUEUED;
    r->queue[i].run = run;
    r->queue[i].copy = copy;
    r->owned[i] = owned;
    g_cond_signal(&r->more);
    g_mutex_unlock(&r->lock);
}

/* Until all that is enqueued is done. */
static void drain(Remote *r)
{
    g_mutex_lock(&r->lock);
    while (r->finished < r->enqueued)
        g_cond_wait(&r->done, &r->lock);
    g_mutex_unlock(&r->lock);
}

/* ---- ops ---------------------------------------------------------------------- */

static const MiOp *original[MAX_FEATURES];
static MiFeature   features[MAX_FEATURES];
static uint32_t    n_features = 1;

typedef struct {
    const MiOp *op;
    const char *name; /* of the feature */
    void       *state;
} State;

static bool prepare_of(int i, MiContext *ctx, const MiCall *call, void **state, size_t *workspace, GError **error)
{
    State *s;

    if (!works(REMOTE_PREPARE, error))
        return false;
    s = g_new0(State, 1);
    s->op = original[i];
    s->name = features[i].name;
    if (MI_HAS(s->op, prepare) && !s->op->prepare(ctx, call, &s->state, workspace, error)) {
        g_free(s);
        return false;
    }
    *state = s;
    return true;
}

static void release(void *state)
{
    State *s = state;
    if (s->state && MI_HAS(s->op, release))
        s->op->release(s->state);
    g_free(s);
}

static bool run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    const State *s = state;
    Remote      *r = ctx->device;
    Work        *w;

    if (!works(REMOTE_RUN, error))
        return false;
    r->broken = r->broken || (r->recording && remote_no_record && strcmp(remote_no_record, s->name) == 0);
    w = g_new0(Work, 1);
    *w = (Work){ .op = s->op, .state = s->state, .ctx = ctx, .call = *call, .batch = *call->batch };
    w->call.batch = &w->batch;
    w->call.at = g_memdup2(call->at, (size_t)call->n * sizeof *call->at);
    for (int i = 0; i < call->n; i++) {
        MiArgs *a = (MiArgs *)&w->call.at[i];
        a->in = g_memdup2(a->in, (size_t)a->node->n_in * sizeof *a->in);
        a->out = g_memdup2(a->out, (size_t)a->node->n_out * sizeof *a->out);
        a->weight = g_memdup2(a->weight, MI_MAX_WEIGHTS * sizeof *a->weight);
        a->kv = a->kv ? g_memdup2(a->kv, sizeof *a->kv) : NULL;
    }
    if (r->recording)
        g_ptr_array_add(r->recording, w);
    else
        enqueue(r, w, (Work){ 0 }, true);
    return true;
}

#define EACH8(X, n) X(n##0) X(n##1) X(n##2) X(n##3) X(n##4) X(n##5) X(n##6) X(n##7)
#define EACH64(X, n) EACH8(X, n##0) EACH8(X, n##1) EACH8(X, n##2) EACH8(X, n##3) EACH8(X, n##4) EACH8(X, n##5) \
    EACH8(X, n##6) EACH8(X, n##7)
#define ALL(X) EACH64(X, 00) EACH64(X, 01) /* octal */
#define PREPARE(i) \
    static bool prepare_##i(MiContext *c, const MiCall *l, void **s, size_t *w, GError **e) { return prepare_of(i, c, l, s, w, e); }
#define NAME(i) prepare_##i,
ALL(PREPARE)
static bool (*const prepares[])(MiContext *, const MiCall *, void **, size_t *, GError **) = { ALL(NAME) };

bool        remote_no_graphs;
const char *remote_no_record;
unsigned    remote_late_us = 50;
size_t      remote_bytes = (size_t)1 << 40;

/* ---- the device ----------------------------------------------------------------- */

static int probe(void) { return 1; }

static void *open_device(int index, const void *options, GError **error)
{
    (void)index, (void)options;
    if (!works(REMOTE_OPEN, error))
        return NULL;
    Remote *r = g_new0(Remote, 1);

    g_mutex_init(&r->lock);
    g_cond_init(&r->more);
    g_cond_init(&r->done);
    if (!(r->thread = g_thread_try_new("remote", loop, r, error)))
        return NULL;
    keep(DEVICES, 1);
    return r;
}

static void close_device(void *device)
{
    Remote *r = device;

    g_mutex_lock(&r->lock);
    r->stopping = true;
    g_cond_signal(&r->more);
    g_mutex_unlock(&r->lock);
    g_thread_join(r->thread);
    g_mutex_clear(&r->lock);
    g_cond_clear(&r->more);
    g_cond_clear(&r->done);
    g_free(r);
    keep(DEVICES, -1);
}

static bool memory(void *device, size_t *free, size_t *total, GError **error)
{
    (void)device;
    if (!works(REMOTE_MEMORY, error))
        return false;
    *free = *total = remote_bytes;
    return true;
}

static void *alloc(void *device, MiMemory kind, size_t bytes, GError **error)
{
    (void)device;
    if (!works(REMOTE_ALLOC, error)) {
        g_prefix_error(error, "%zu bytes of %s memory: ", bytes, kind == MI_MEM_PINNED ? "pinned" : "device");
        return NULL;
    }
    keep(BLOCKS, 1);
    return memset(g_aligned_alloc(1, bytes ? bytes : 1, 256), 0xff, bytes); /* nothing is zero unless somebody says so */
}

static void free_memory(void *device, MiMemory kind, void *p)
{
    (void)kind;
    if (!p)
        return;
    drain(device);
    g_aligned_free(p);
    keep(BLOCKS, -1);
}

static bool stream_new(void *device, void **stream, GError **error)
{
    if (!works(REMOTE_STREAM, error))
        return false;
    *stream = device;
    keep(STREAMS, 1);
    return true;
}

static void stream_free(void *device, void *stream)
{
    (void)device;
    keep(STREAMS, stream ? -1 : 0);
}

static bool event_of(bool timer, void **event, GError **error)
{
    if (!works(REMOTE_EVENT, error))
        return false;
    keep(EVENTS, 1);
    Event *e = g_new0(Event, 1);
    e->timer = timer;
    *event = e;
    return true;
}

static bool event_new(void *device, void **event, GError **error) { return (void)device, event_of(false, event, error); }
static bool timer_new(void *device, void **event, GError **error) { return (void)device, event_of(true, event, error); }

static bool event_elapsed(void *device, void *from, void *to, double *us, GError **error)
{
    const Event *a = from, *b = to;

    (void)device;
    if (!a->timer || !b->timer) {
        g_set_error(error, MI_ERROR, MI_ERROR_DEVICE, "a mark that takes no time");
        return false;
    }
    *us = (double)(b->ns - a->ns) / 1e3;
    return true;
}

static void event_free(void *device, void *event)
{
    (void)device;
    keep(EVENTS, event ? -1 : 0);
    g_free(event);
}

/* Now, or as part of what is recorded. */
static void enqueue_or_record(Remote *r, Work w)
{
    if (r->recording)
        g_ptr_array_add(r->recording, g_memdup2(&w, sizeof w));
    else
        enqueue(r, NULL, w, false);
}

static bool copy(void *device, void *stream, void *dst, const void *src, size_t bytes, GError **error)
{
    (void)stream;
    if (!works(REMOTE_COPY, error))
        return false;
    enqueue_or_record(device, (Work){ .dst = dst, .src = src, .bytes = bytes });
    return true;
}

static bool copy_all(void *device, void *stream, const MiCopy *copies, int n, GError **error)
{
    (void)stream;
    if (!works(REMOTE_COPY_ALL, error))
        return false;
    for (int i = 0; i < n; i++)
        enqueue_or_record(device, (Work){ .dst = copies[i].dst, .src = copies[i].src, .bytes = copies[i].bytes });
    return true;
}

static bool event_record(void *device, void *event, void *stream, GError **error)
{
    Remote *r = device;
    Event  *e = event;

    (void)stream;
    if (!works(REMOTE_RECORD, error))
        return false;
    if (e->timer)
        enqueue(r, NULL, (Work){ .stamp = &e->ns }, false);
    g_mutex_lock(&r->lock);
    e->at = r->enqueued;
    g_mutex_unlock(&r->lock);
    return true;
}

static bool stream_wait(void *device, void *stream, void *event, GError **error)
{
    (void)device, (void)stream, (void)event, (void)error; /* one queue */
    return true;
}

static bool event_wait(void *device, void *event, GError **error)
{
    Remote *r = device;

    g_mutex_lock(&r->lock);
    while (r->finished < ((const Event *)event)->at)
        g_cond_wait(&r->done, &r->lock);
    g_mutex_unlock(&r->lock);
    return works(REMOTE_WAIT, error);
}

static bool capture_begin(void *device, void *stream, GError **error)
{
    (void)stream;
    if (!works(REMOTE_BEGIN, error))
        return false;
    ((Remote *)device)->broken = remote_no_graphs;
    ((Remote *)device)->recording = g_ptr_array_new_with_free_func(work_free);
    return true;
}

static void *capture_end(void *device, void *stream, GError **error)
{
    GPtrArray *graph = g_steal_pointer(&((Remote *)device)->recording);
    const bool ok = works(REMOTE_END, error);

    (void)stream;
    if (ok && !((Remote *)device)->broken) {
        keep(GRAPHS, 1);
        return graph;
    }
    g_ptr_array_unref(graph);
    if (ok)
        g_set_error(error, MI_ERROR, MI_ERROR_DEVICE, "not permitted while recording");
    return NULL;
}

static bool replay(void *device, void *stream, void *graph, const MiCopy *in, int n_in, const MiCopy *out, int n_out,
                   GError **error)
{
    (void)stream;
    if (!works(REMOTE_REPLAY, error))
        return false;
    for (int i = 0; i < n_in; i++)
        enqueue(device, NULL, (Work){ .dst = in[i].dst, .src = in[i].src, .bytes = in[i].bytes }, false);
    for (guint i = 0; i < ((GPtrArray *)graph)->len; i++)
        enqueue(device, ((GPtrArray *)graph)->pdata[i], (Work){ 0 }, false);
    for (int i = 0; i < n_out; i++)
        enqueue(device, NULL, (Work){ .dst = out[i].dst, .src = out[i].src, .bytes = out[i].bytes }, false);
    return true;
}

static void graph_free(void *device, void *graph)
{
    drain(device);
    g_ptr_array_unref(graph);
    keep(GRAPHS, -1);
}

static void parallel(void *device, void (*fn)(void *arg, int i, int n), void *arg)
{
    (void)device;
    fn(arg, 0, 1);
}

static const MiBackend remote = {
    .struct_size = sizeof remote, .rank = -1, .dtypes = 1u << MI_F32, .probe = probe, .open = open_device, .close = close_device,
    .memory = memory, .alloc = alloc, .free = free_memory, .stream_new = stream_new, .stream_free = stream_free,
    .event_new = event_new, .event_free = event_free, .copy = copy, .event_record = event_record,
    .stream_wait = stream_wait, .event_wait = event_wait, .capture_begin = capture_begin, .capture_end = capture_end,
    .replay = replay, .graph_free = graph_free, .parallel = parallel, .copy_all = copy_all,
    .event_elapsed = event_elapsed, .timer_new = timer_new,
};

/* ---- the CPU's features, once more -------------------------------------------------- */

static const MiOp *wrapped(const MiOp *op)
{
    MiOp *w = g_memdup2(op, sizeof *op);

    original[n_features] = op;
    w->prepare = prepares[n_features];
    w->run = run;
    w->release = release;
    return w;
}

#define WRAP(type) { type *v = g_memdup2(f->vtable, sizeof(type)); v->op = wrapped(v->op); vtable = v; }

static void add(const MiFeature *f)
{
    const void *vtable;

    if (strcmp(f->backend, "cpu") != 0 || n_features == MAX_FEATURES)
        return;
    switch (f->kind) {
    case MI_KIND_OP: vtable = wrapped(f->vtable); break;
    case MI_KIND_ATTENTION: WRAP(MiAttention) break;
    case MI_KIND_LINEAR: WRAP(MiLinear) break;
    case MI_KIND_SAMPLER: WRAP(MiSampler) break;
    case MI_KIND_FUSION: WRAP(MiFusion) break;
    default: return;
    }
    features[n_features++] = (MiFeature){ f->kind, f->name, "remote", vtable, f->options };
}

/* Somebody brought one of its own. */
static bool has(MiRegistry *r, const MiFeature *f)
{
    g_autoptr(GPtrArray) all = mi_registry_list(r, f->kind, "remote");

    for (guint i = 0; i < all->len; i++) {
        const MiFeature *g = all->pdata[i];
        if (strcmp(g->name, f->name) == 0 && strcmp(g->backend, "remote") == 0)
            return true;
    }
    return false;
}

void remote_add(MiRegistry *r)
{
    static GPtrArray *plugins; /* as long as the process, like the files of others */
    g_autoptr(GError) error = NULL;
    MiPlugin         *plugin = g_new0(MiPlugin, 1);
    MiFeature        *mine = g_new0(MiFeature, MAX_FEATURES);
    MiLoaded         *file = g_new0(MiLoaded, 1);

    for (int kind = 0; kind < MI_N_KINDS && !plugins; kind++) {
        g_autoptr(GPtrArray) all = mi_registry_list(r, (MiKind)kind, "cpu");
        for (guint i = 0; i < all->len; i++)
            add(all->pdata[i]);
    }
    features[0] = (MiFeature)MI_FEATURE_BACKEND("remote", "*", &remote, NULL);
    plugins = plugins ? plugins : g_ptr_array_new();
    g_ptr_array_add(plugins, plugin);
    g_ptr_array_add(plugins, mine);
    *plugin = (MiPlugin){ .name = "remote", .version = "0.1", .description = "The processor, as a card would be", .features = mine };
    for (uint32_t i = 0; i < n_features; i++)
        if (!has(r, &features[i]))
            mine[plugin->n_features++] = features[i];
    if (!mi_registry_add(r, plugin, "remote", &error))
        g_error("%s", error->message);
    *file = (MiLoaded){ g_strdup("remote.so"), MI_FILE_LOADED, plugin, NULL };
    g_ptr_array_add(mi_registry_files(r), file);
}
