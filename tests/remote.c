#include "remote.h"

#include <string.h>

enum { MAX_FEATURES = 128, MAX_QUEUED = 1 << 14, LATE_US = 50 };

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
} Work;

typedef struct {
    GThread    *thread;
    GMutex      lock;
    GCond       more, done;
    struct { Work *run, copy; } queue[MAX_QUEUED]; /* a ring; run NULL: copy */
    bool        owned[MAX_QUEUED];                 /* run is freed when it is done */
    uint64_t    enqueued, finished;
    bool        stopping;
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

    if (w->bytes) {
        g_usleep(LATE_US); /* a host that does not wait has time to be wrong */
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

/* ---- ops ---------------------------------------------------------------------- */

static const MiOp *original[MAX_FEATURES];

typedef struct {
    const MiOp *op;
    void       *state;
} State;

static bool prepare_of(int i, MiContext *ctx, const MiCall *call, void **state, size_t *workspace, GError **error)
{
    State *s = g_new0(State, 1);

    s->op = original[i];
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
    Work        *w = g_new0(Work, 1);

    (void)error;
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
    if (((Remote *)ctx->device)->recording)
        g_ptr_array_add(((Remote *)ctx->device)->recording, w);
    else
        enqueue(ctx->device, w, (Work){ 0 }, true);
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

bool   remote_no_graphs;
size_t remote_bytes = (size_t)1 << 40;

/* ---- the device ----------------------------------------------------------------- */

static int probe(void) { return 1; }

static void *open_device(int index, const void *options, GError **error)
{
    (void)index, (void)options;
    Remote *r = g_new0(Remote, 1);

    g_mutex_init(&r->lock);
    g_cond_init(&r->more);
    g_cond_init(&r->done);
    if (!(r->thread = g_thread_try_new("remote", loop, r, error)))
        return NULL;
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
}

static bool memory(void *device, size_t *free, size_t *total, GError **error)
{
    (void)device, (void)error;
    *free = *total = remote_bytes;
    return true;
}

static void *alloc(void *device, MiMemory kind, size_t bytes, GError **error)
{
    (void)device, (void)kind, (void)error;
    return memset(g_aligned_alloc(1, bytes ? bytes : 1, 256), 0xff, bytes); /* nothing is zero unless somebody says so */
}

static void free_memory(void *device, MiMemory kind, void *p)
{
    (void)device, (void)kind;
    if (p)
        g_aligned_free(p);
}

static bool stream_new(void *device, void **stream, GError **error)
{
    (void)error;
    *stream = device;
    return true;
}
static void stream_free(void *device, void *stream) { (void)device, (void)stream; }

static bool event_new(void *device, void **event, GError **error)
{
    (void)device, (void)error;
    *event = g_new0(uint64_t, 1);
    return true;
}
static void event_free(void *device, void *event)
{
    (void)device;
    g_free(event);
}

static bool copy(void *device, void *stream, void *dst, const void *src, size_t bytes, GError **error)
{
    (void)stream, (void)error;
    enqueue(device, NULL, (Work){ .dst = dst, .src = src, .bytes = bytes }, false);
    return true;
}

static bool copy_all(void *device, void *stream, const MiCopy *copies, int n, GError **error)
{
    for (int i = 0; i < n; i++)
        copy(device, stream, copies[i].dst, copies[i].src, copies[i].bytes, error);
    return true;
}

static bool event_record(void *device, void *event, void *stream, GError **error)
{
    Remote *r = device;

    (void)stream, (void)error;
    g_mutex_lock(&r->lock);
    *(uint64_t *)event = r->enqueued;
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

    (void)error;
    g_mutex_lock(&r->lock);
    while (r->finished < *(uint64_t *)event)
        g_cond_wait(&r->done, &r->lock);
    g_mutex_unlock(&r->lock);
    return true;
}

static bool capture_begin(void *device, void *stream, GError **error)
{
    (void)stream, (void)error;
    ((Remote *)device)->recording = g_ptr_array_new_with_free_func(work_free);
    return true;
}

static void *capture_end(void *device, void *stream, GError **error)
{
    GPtrArray *graph = g_steal_pointer(&((Remote *)device)->recording);

    (void)stream;
    if (!remote_no_graphs)
        return graph;
    g_ptr_array_unref(graph);
    g_set_error(error, MI_ERROR, MI_ERROR_DEVICE, "not permitted while recording");
    return NULL;
}

static bool replay(void *device, void *stream, void *graph, GError **error)
{
    (void)stream, (void)error;
    for (guint i = 0; i < ((GPtrArray *)graph)->len; i++)
        enqueue(device, ((GPtrArray *)graph)->pdata[i], (Work){ 0 }, false);
    return true;
}

static void graph_free(void *device, void *graph)
{
    (void)device;
    g_ptr_array_unref(graph);
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
};

/* ---- the CPU's features, once more -------------------------------------------------- */

static MiFeature features[MAX_FEATURES] = { MI_FEATURE_BACKEND("remote", "*", &remote, NULL) };
static uint32_t  n_features = 1;

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

    for (int kind = 0; kind < MI_N_KINDS && !plugins; kind++) {
        g_autoptr(GPtrArray) all = mi_registry_list(r, (MiKind)kind, "cpu");
        for (guint i = 0; i < all->len; i++)
            add(all->pdata[i]);
    }
    plugins = plugins ? plugins : g_ptr_array_new();
    g_ptr_array_add(plugins, plugin);
    g_ptr_array_add(plugins, mine);
    *plugin = (MiPlugin){ .name = "remote", .version = "0.1", .description = "The processor, as a card would be", .features = mine };
    for (uint32_t i = 0; i < n_features; i++)
        if (!has(r, &features[i]))
            mine[plugin->n_features++] = features[i];
    if (!mi_registry_add(r, plugin, "remote", &error))
        g_error("%s", error->message);
}
