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

/* Says which op broke the recording: each is recorded alone.  False: none, or the device fails. */
static bool blame(MiAssembly *a, const MiBucket *b)
{
    MiContext *ctx = &a->ctx.pub;

    for (guint i = 0; i < b->schedule->runs->len; i++) {
        g_autoptr(GError) why = NULL;
        if (!ctx->backend->capture_begin(ctx->device, ctx->stream, &why))
            return true;
        const bool ran = mi_schedule_run_one(b->schedule, i, ctx, &why);
        void      *graph = ctx->backend->capture_end(ctx->device, ctx->stream, ran ? &why : NULL);
        if (graph)
            ctx->backend->graph_free(ctx->device, graph);
        if (ran && graph)
            continue;
        accuse(a, mi_schedule_at(b->schedule, i), why);
        return true;
    }
    return false;
}

/* ---- recording -------------------------------------------------------------------- */

static void *record(MiAssembly *a, MiBucket *b)
{
    MiContext        *ctx = &a->ctx.pub;
    g_autoptr(GError) why = NULL;
    void             *graph;

    if (!ctx->backend->capture_begin(ctx->device, ctx->stream, &why))
        return NULL;
    const bool ran = mi_schedule_run(b->schedule, ctx, &why);
    graph = ctx->backend->capture_end(ctx->device, ctx->stream, ran ? &why : NULL);
    if (ran && graph)
        return graph;
    if (graph)
        ctx->backend->graph_free(ctx->device, graph);
    b->eager = true;
    if (!blame(a, b))
        g_message("steps of %d rows cannot be recorded into a graph, though each node can, and run node by node, "
                  "slower: %s", b->schedule->shape.n_tokens, why ? why->message : "no reason given");
    return NULL;
}

/* The first step of a shape runs node by node, so that all of its code is loaded. */
bool mi_graph_run(MiAssembly *a, MiBucket *b, MiShape shape, bool recordable, GError **error)
{
    MiContext *ctx = &a->ctx.pub;
    MiGraph   *g = recordable && !b->eager ? graph_of(b, shape) : NULL;

    if (g && g->graph)
        return ctx->backend->replay(ctx->device, ctx->stream, g->graph, error);
    mi_schedule_shape(b->schedule, shape);
    if (g && (g->graph = record(a, b)))
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
