/* cuda.c - one NVIDIA card: memory, streams, events, graphs.
 *
 * What it computes is in the other *_cuda plugins, all of one CUDA runtime and
 * one current device.  Memory is plain device memory, never managed.  A graph is
 * what one stream recorded, in the mode in which an allocation by this thread
 * fails the capture: that is how a plugin which breaks its contract is found.  It
 * begins and ends with a kernel that copies what a replay is told to. */
#include <cuda/copies.h>
#include <cuda/gemm.h>
#include <cuda/read.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <miniinfer/plugin.h>
#include <nvtx3/nvToolsExt.h>

typedef struct {
    bool spin;
} Options;

typedef struct {
    int  index;
    bool spin;  /* while it waits */
    bool named; /* a range is open */
    cudaGraphNode_t first; /* of what is being recorded: the copies that it begins with */
} Device;

/* What it copies is told to its two nodes when that is not what it was the last time. */
typedef struct {
    cudaGraph_t     recorded; /* whose nodes are named */
    cudaGraphExec_t run;
    struct { cudaGraphNode_t node; MiCudaCopies copies; int n; } in, out;
} Graph;

static bool ok(cudaError_t e, const char *what, GError **error)
{
    if (e == cudaSuccess)
        return true;
    (void)cudaGetLastError(); /* one that does not stick is over */
    g_set_error(error, MI_ERROR, e == cudaErrorMemoryAllocation ? MI_ERROR_NO_MEMORY : MI_ERROR_DEVICE, "%s: %s (%s)", what,
                cudaGetErrorString(e), cudaGetErrorName(e));
    return false;
}

/* The runtime's current device is each thread's own: the engine's thread is not the one that opened. */
static bool use(void *device, GError **error)
{
    return ok(cudaSetDevice(((const Device *)device)->index), "choosing the device", error);
}

static int probe(void)
{
    int n = 0;
    if (cudaGetDeviceCount(&n) == cudaSuccess)
        return n;
    (void)cudaGetLastError();
    return 0;
}

static bool start(int index, const Options *o, GError **error)
{
    int major = 0;

    if (!ok(cudaSetDevice(index), "opening the device", error) ||
        !ok(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, index), "asking for the device's age", error))
        return false;
    if (major < 8) {
        g_set_error(error, MI_ERROR, MI_ERROR_DEVICE, "cuda:%d is of compute capability %d.x; 8.0 is the least", index, major);
        return false;
    }
    /* Spinning answers some microseconds sooner and takes a core while a step runs. */
    return ok(cudaSetDeviceFlags(o->spin ? cudaDeviceScheduleSpin : cudaDeviceScheduleBlockingSync), "setting how to wait", error) &&
           ok(cudaFree(NULL), "starting the device", error);
}

/* The products' library is hundreds of megabytes, and half as long on its way in as the device is. */
static gpointer map_library(gpointer unused)
{
    (void)unused;
    return dlopen(MI_CUBLASLT, RTLD_NOW | RTLD_LOCAL); /* whoever needs it and does not find it says so */
}

static void *open_device(int index, const void *options, GError **error)
{
    const Options *o = options;
    GThread       *library = g_thread_try_new("library", map_library, NULL, NULL);
    Device        *d = NULL;

    if (start(index, o, error)) {
        d = g_new0(Device, 1);
        d->index = index;
        d->spin = o->spin;
    }
    if (library)
        (void)g_thread_join(library);
    return d;
}

static void close_device(void *device)
{
    (void)cudaDeviceSynchronize();
    g_free(device);
}

static bool memory(void *device, size_t *free, size_t *total, GError **error)
{
    return use(device, error) && ok(cudaMemGetInfo(free, total), "asking for the memory", error);
}

static void *alloc(void *device, MiMemory kind, size_t bytes, GError **error)
{
    void *p = NULL;
    char  what[64];

    g_snprintf(what, sizeof what, "%zu bytes of %s memory", bytes, kind == MI_MEM_PINNED ? "pinned host" : "device");
    if (!use(device, error) ||
        !ok(kind == MI_MEM_PINNED ? cudaHostAlloc(&p, bytes, cudaHostAllocPortable) : cudaMalloc(&p, bytes), what, error))
        return NULL;
    return p;
}

static void release(void *device, MiMemory kind, void *p)
{
    if (!p)
        return;
    (void)use(device, NULL);
    (void)cudaDeviceSynchronize(); /* a start that failed leaves copies under way */
    (void)(kind == MI_MEM_PINNED ? cudaFreeHost(p) : cudaFree(p));
}

static bool stream_new(void *device, void **stream, GError **error)
{
    return use(device, error) && ok(cudaStreamCreateWithFlags((cudaStream_t *)stream, cudaStreamNonBlocking), "making a stream", error);
}

static void stream_free(void *device, void *stream)
{
    (void)device;
    if (stream)
        (void)cudaStreamDestroy(stream);
}

static bool event_of(void *device, void **event, unsigned how, GError **error)
{
    how |= ((const Device *)device)->spin ? cudaEventDefault : cudaEventBlockingSync;
    return use(device, error) && ok(cudaEventCreateWithFlags((cudaEvent_t *)event, how), "making an event", error);
}

/* One that notes no time is over a microsecond sooner. */
static bool event_new(void *device, void **event, GError **error)
{
    return event_of(device, event, cudaEventDisableTiming, error);
}

static bool timer_new(void *device, void **event, GError **error) { return event_of(device, event, 0, error); }

static void event_free(void *device, void *event)
{
    (void)device;
    if (event)
        (void)cudaEventDestroy(event);
}

static bool copy(void *device, void *stream, void *dst, const void *src, size_t bytes, GError **error)
{
    return use(device, error) && ok(cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDefault, stream), "copying", error);
}

static void gather(const MiCopy *copies, int n, MiCudaCopies *out)
{
    for (int i = 0; i < n; i++) {
        out->at[i].dst = copies[i].dst;
        out->at[i].src = copies[i].src;
        out->at[i].bytes = copies[i].bytes;
    }
}

static bool copy_all(void *device, void *stream, const MiCopy *copies, int n, GError **error)
{
    MiCudaCopies c;

    gather(copies, n, &c);
    return use(device, error) && ok((cudaError_t)mi_cuda_copy_all(stream, &c, n), "copying", error);
}

static bool event_record(void *device, void *event, void *stream, GError **error)
{
    (void)device;
    return ok(cudaEventRecord(event, stream), "marking the stream", error);
}

static bool stream_wait(void *device, void *stream, void *event, GError **error)
{
    (void)device;
    return ok(cudaStreamWaitEvent(stream, event, 0), "joining streams", error);
}

static bool event_wait(void *device, void *event, GError **error)
{
    (void)device;
    return ok(cudaEventSynchronize(event), "running the step", error);
}

static bool event_elapsed(void *device, void *from, void *to, double *us, GError **error)
{
    float ms = 0;

    (void)device;
    const bool done = ok(cudaEventElapsedTime(&ms, from, to), "asking for a time", error);
    *us = 1e3 * (double)ms;
    return done;
}

/* The best of some rounds over a block that the L2 does not hold. */
static bool read_rate(void *device, double *bytes, GError **error)
{
    enum { ROUNDS = 10 };
    size_t free = 0, total = 0, size = (size_t)1 << 30;
    void  *data = NULL, *from = NULL, *to = NULL;
    double us;

    *bytes = 0;
    bool good = memory(device, &free, &total, error);
    while (good && size > free / 2)
        size /= 2;
    good = good && (data = alloc(device, MI_MEM_DEVICE, size, error)) && timer_new(device, &from, error) &&
           timer_new(device, &to, error) && ok(cudaMemset(data, 0, size), "clearing memory", error);
    for (int i = 0; i < ROUNDS && good; i++) {
        good = event_record(device, from, NULL, error) && ok(mi_cuda_read(NULL, data, size), "reading memory", error) &&
               event_record(device, to, NULL, error) && event_wait(device, to, error) &&
               event_elapsed(device, from, to, &us, error);
        *bytes = good ? MAX(*bytes, (double)size / us * 1e6) : 0;
    }
    event_free(device, from);
    event_free(device, to);
    release(device, MI_MEM_DEVICE, data);
    return good;
}

/* A node of its own for copies that are told later; *node: NULL where the recording is broken. */
static bool record_copies(void *stream, cudaGraphNode_t *node, GError **error)
{
    const MiCudaCopies           none = { { { 0 } } };
    enum cudaStreamCaptureStatus status;
    const cudaGraphNode_t       *last;
    const cudaGraphEdgeData     *edges;
    size_t                       n;

    if (!ok((cudaError_t)mi_cuda_copy_all(stream, &none, 1), "copying", error) ||
        !ok(cudaStreamGetCaptureInfo(stream, &status, NULL, NULL, &last, &edges, &n), "asking for the recording", error))
        return false;
    *node = status == cudaStreamCaptureStatusActive && n == 1 ? *last : NULL;
    return true;
}

/* Kernels may start before the one ahead of them is done and read what the step was told: of what a recording begins
 * with, the copies, they see nothing but the end. */
static bool end_beginning(void *stream, GError **error)
{
    enum cudaStreamCaptureStatus status;
    const cudaGraphNode_t       *last;
    const cudaGraphEdgeData     *edges;
    cudaGraph_t                  graph;
    cudaGraphNode_t              empty;
    size_t                       n;

    return ok(cudaStreamGetCaptureInfo(stream, &status, NULL, &graph, &last, &edges, &n), "asking for the recording", error) &&
           ok(cudaGraphAddEmptyNode(&empty, graph, last, n), "dividing the recording", error) &&
           ok(cudaStreamUpdateCaptureDependencies(stream, &empty, NULL, 1, cudaStreamSetCaptureDependencies),
              "dividing the recording", error);
}

static bool capture_begin(void *device, void *stream, GError **error)
{
    Device *d = device;

    if (!use(device, error) ||
        !ok(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "beginning a capture", error))
        return false;
    if (record_copies(stream, &d->first, error) && end_beginning(stream, error))
        return true;
    cudaGraph_t broken = NULL;
    (void)cudaStreamEndCapture(stream, &broken);
    if (broken)
        (void)cudaGraphDestroy(broken);
    (void)cudaGetLastError();
    return false;
}

static void graph_free(void *device, void *graph)
{
    Graph *g = graph;

    (void)device;
    if (!g)
        return;
    if (g->run)
        (void)cudaGraphExecDestroy(g->run);
    if (g->recorded)
        (void)cudaGraphDestroy(g->recorded);
    g_free(g);
}

static void *capture_end(void *device, void *stream, GError **error)
{
    Graph     *g = g_new0(Graph, 1);
    const bool whole = record_copies(stream, &g->out.node, error);

    g->in.node = ((Device *)device)->first;
    if (ok(cudaStreamEndCapture(stream, &g->recorded), "ending a capture", whole ? error : NULL) && whole &&
        ok(cudaGraphInstantiate(&g->run, g->recorded, 0), "making a graph", error) &&
        ok(cudaGraphUpload(g->run, stream), "uploading a graph", error))
        return g;
    graph_free(device, g);
    return NULL;
}

static bool told(const MiCudaCopies *c, int have, const MiCopy *copies, int n)
{
    bool same = have == n;

    for (int i = 0; i < n && same; i++)
        same = c->at[i].dst == copies[i].dst && c->at[i].src == copies[i].src && c->at[i].bytes == copies[i].bytes;
    return same;
}

static bool replay(void *device, void *stream, void *graph, const MiCopy *in, int n_in, const MiCopy *out, int n_out,
                   GError **error)
{
    Graph *g = graph;

    (void)device;
    if (!told(&g->in.copies, g->in.n, in, n_in)) {
        gather(in, g->in.n = n_in, &g->in.copies);
        if (!ok((cudaError_t)mi_cuda_copy_all_set(g->run, g->in.node, &g->in.copies, n_in), "telling a graph", error))
            return false;
    }
    if (!told(&g->out.copies, g->out.n, out, n_out)) {
        gather(out, g->out.n = n_out, &g->out.copies);
        if (!ok((cudaError_t)mi_cuda_copy_all_set(g->run, g->out.node, &g->out.copies, n_out), "telling a graph", error))
            return false;
    }
    return ok(cudaGraphLaunch(g->run, stream), "launching a graph", error);
}

static void name_range(void *device, const char *name)
{
    Device *d = device;

    if (d->named)
        nvtxRangePop();
    d->named = name != NULL;
    if (name)
        nvtxRangePushA(name);
}

static const MiBackend cuda = {
    .struct_size = sizeof cuda,
    .rank = 10,
    .dtypes = 1u << MI_BF16 | 1u << MI_F16 | 1u << MI_F32,
    .probe = probe,
    .open = open_device,
    .close = close_device,
    .memory = memory,
    .alloc = alloc,
    .free = release,
    .stream_new = stream_new,
    .stream_free = stream_free,
    .event_new = event_new,
    .event_free = event_free,
    .copy = copy,
    .event_record = event_record,
    .stream_wait = stream_wait,
    .event_wait = event_wait,
    .capture_begin = capture_begin,
    .capture_end = capture_end,
    .replay = replay,
    .graph_free = graph_free,
    .event_elapsed = event_elapsed,
    .read_rate = read_rate,
    .copy_all = copy_all,
    .name_range = name_range,
    .timer_new = timer_new,
};

static const MiOption options[] = {
    MI_OPTION(Options, spin, "true", 0, 0, "watch for the end of a step instead of sleeping: sooner, and busy"),
    MI_OPTION_END,
};

MI_PLUGIN("cuda", "0.1", "NVIDIA cards: memory, streams, graphs", MI_FEATURE_BACKEND("cuda", "*", &cuda, options));
