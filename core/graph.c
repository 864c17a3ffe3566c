#include "graph.h"

#include <string.h>

static MiGraph *graph_of(const MiBucket *b, MiShape shape)
{
    for (guint i = 0; i < b->graphs->len; i++) {
        MiGraph *g = &g_array_index(b->graphs, MiGraph, i);
        if (memcmp(&g->shape, &shape, sizeof shape) == 0)
            return g;
    }
    return NULL;
}

/* ---- whose fault it is ---------------------------------------------------------- */

/* Once for each op, however many buckets have it. */
static void accuse(MiAssembly *a, const MiRun *run, const GError *why)
{
    g_autofree char *file = NULL, *feature = mi_schedule_feature(&a->parts, run, &file);

    if (g_ptr_array_find(a->blamed, run->op, NULL))
        return;
    g_ptr_array_add(a->blamed, (void *)(uintptr_t)run->op);
    g_message("%s of %s cannot be recorded into a graph, so steps that have it run node by node, slower: %s", feature,
              file ? file : "the program", why ? why->message : "no reason given");
}

/* What it enqueues, as a graph; NULL with *error: it cannot be recorded.  *begun: false where the device fails. */
static void *record(MiAssembly *a, bool (*enqueue)(const MiSchedule *, guint, MiContext *, GError **), const MiSchedule *s,
                    guint i, bool *begun, GError **error)
{
    MiContext *ctx = &a->ctx.pub;

    if (!(*begun = ctx->backend->capture_begin(ctx->device, ctx->stream, error)))
        return NULL;
    const bool ran = enqueue(s, i, ctx, error);
    void      *graph = ctx->backend->capture_end(ctx->device, ctx->stream, ran ? error : NULL);
    if (ran || !graph)
        return graph;
    ctx->backend->graph_free(ctx->device, graph);
    return NULL;
}

static bool enqueue_all(const MiSchedule *s, guint i, MiContext *ctx, GError **error)
{
    (void)i;
    return mi_schedule_run(s, ctx, error);
}

/* Says which op broke the recording: each is recorded alone.  False: none. */
static bool blame(MiAssembly *a, const MiBucket *b)
{
    MiContext *ctx = &a->ctx.pub;

    for (guint i = 0; i < b->schedule->runs->len; i++) {
        g_autoptr(GError) why = NULL;
        bool              begun;
        void             *graph = record(a, mi_schedule_run_one, b->schedule, i, &begun, &why);
        if (!graph) {
            if (begun)
                accuse(a, mi_schedule_at(b->schedule, i), why);
            return true; /* a device that fails is told of by what it does next */
        }
        ctx->backend->graph_free(ctx->device, graph);
    }
    return false;
}

/* ---- running ---------------------------------------------------------------------- */

static void *record_all(MiAssembly *a, MiBucket *b)
{
    g_autoptr(GError) why = NULL;
    bool              begun;
    void             *graph = record(a, enqueue_all, b->schedule, 0, &begun, &why);

    if (graph || !begun)
        return graph;
    b->eager = true;
    if (!blame(a, b))
        g_message("steps of %d rows cannot be recorded into a graph, though each node can, and run node by node, "
                  "slower: %s", b->schedule->shape.n_tokens, why ? why->message : "no reason given");
    return NULL;
}

/* The first step of a shape runs node by node, so that all of its code is loaded. */
bool mi_graph_run(MiAssembly *a, MiBucket *b, MiShape shape, bool recordable, bool *first, GError **error)
{
    MiContext *ctx = &a->ctx.pub;
    MiGraph   *g = recordable && !b->eager ? graph_of(b, shape) : NULL;

    if (g && g->graph)
        return ctx->backend->replay(ctx->device, ctx->stream, g->graph, error);
    *first = *first || !b->ran || (recordable && !b->eager);
    b->ran = true;
    mi_schedule_shape(b->schedule, shape);
    if (g && (g->graph = record_all(a, b)))
        return ctx->backend->replay(ctx->device, ctx->stream, g->graph, error);
    if (!mi_schedule_run(b->schedule, ctx, error))
        return false;
    if (recordable && !b->eager && !g) {
        const MiGraph first = { shape, NULL };
        g_array_append_val(b->graphs, first);
    }
    return true;
}

void mi_graph_clear(MiAssembly *a)
{
    MiContext *ctx = &a->ctx.pub;

    for (guint i = 0; i < a->buckets->len; i++) {
        const MiBucket *b = a->buckets->pdata[i];
        for (guint k = 0; k < b->graphs->len; k++)
            if (g_array_index(b->graphs, MiGraph, k).graph)
                ctx->backend->graph_free(ctx->device, g_array_index(b->graphs, MiGraph, k).graph);
        g_array_set_size(b->graphs, 0);
    }
}
