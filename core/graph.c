#include "graph.h"

#include <string.h>

static bool same(const MiShape *a, const MiShape *b)
{
    return a->n_tokens == b->n_tokens && a->n_seqs == b->n_seqs && a->n_out == b->n_out && a->max_kv == b->max_kv &&
           a->decode == b->decode;
}

/* What of this shape is recorded; NULL: nothing. */
static MiGraph *graph_of(const MiBucket *b, MiShape shape)
{
    for (guint i = 0; i < b->graphs->len; i++) {
        MiGraph *g = &g_array_index(b->graphs, MiGraph, i);
        if (same(&g->shape, &shape))
            return g;
    }
    return NULL;
}

/* ---- whose fault it is ---------------------------------------------------------- */

/* Once for each op, however many buckets have it. */
static void accuse(MiAssembly *a, const MiRun *run, const GError *why)
{
    g_autofree char *file = NULL, *feature = mi_schedule_feature(&a->parts, run, &file);

    if (a->quiet || g_ptr_array_find(a->blamed, run->op, NULL))
        return;
    g_ptr_array_add(a->blamed, (void *)(uintptr_t)run->op);
    g_message("%s of %s cannot be recorded into a graph, so steps that have it run node by node, slower: %s", feature,
              file ? file : "the program", why ? why->message : "no reason given");
}

/* All of a schedule's nodes, or one of them, as a graph; NULL with *error: it cannot be recorded.  *begun: false where
 * the device fails. */
static void *record(MiAssembly *a, const MiBucket *b, const guint *only, bool *begun, GError **error)
{
    MiContext *ctx = &a->ctx.pub;

    if (!(*begun = ctx->backend->capture_begin(ctx->device, ctx->stream, error)))
        return NULL;
    const bool ran = only ? mi_schedule_run_one(b->schedule, *only, ctx, error) : mi_schedule_run(b->schedule, ctx, error);
    void      *graph = ctx->backend->capture_end(ctx->device, ctx->stream, ran ? error : NULL);
    if (ran || !graph)
        return graph;
    ctx->backend->graph_free(ctx->device, graph);
    return NULL;
}

/* Says which op broke the recording: each is recorded alone.  False: none. */
static bool blame(MiAssembly *a, const MiBucket *b)
{
    MiContext *ctx = &a->ctx.pub;

    for (guint i = 0; i < b->schedule->runs->len; i++) {
        g_autoptr(GError) why = NULL;
        bool              begun;
        void             *graph = record(a, b, &i, &begun, &why);
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
    void             *graph = record(a, b, NULL, &begun, &why);

    if (graph || !begun || !b->ran) /* what it does at the first time only may be what cannot be recorded */
        return graph;
    b->eager = true;
    if (!blame(a, b) && !a->quiet)
        g_message("steps of %d rows cannot be recorded into a graph, though each node can, and run node by node, "
                  "slower: %s", b->schedule->shape.n_tokens, why ? why->message : "no reason given");
    return NULL;
}

bool mi_graph_has(const MiBucket *b, MiShape shape, int flight)
{
    const MiGraph *g = graph_of(b, shape);
    return b->eager || (b->tried && !b->ran) || (g && (flight < 0 || g->of[flight]));
}

void mi_graph_record(MiAssembly *a, MiBucket *b, MiShape shape, int flight)
{
    MiGraph *g = graph_of(b, shape), new = { .shape = shape };
    void    *graph;

    flight = MAX(flight, 0);
    b->tried = true;
    mi_schedule_shape(b->schedule, shape);
    if (!(graph = record_all(a, b)))
        return;
    b->ran = true;
    if (g) {
        g->of[flight] = graph;
    } else {
        new.of[flight] = graph;
        g_array_append_val(b->graphs, new);
    }
}

void mi_graph_rehearse(MiAssembly *a, MiBucket *b, MiShape shape)
{
    bool begun;

    mi_schedule_shape(b->schedule, shape);
    void *graph = record(a, b, NULL, &begun, NULL);
    if (graph)
        a->ctx.pub.backend->graph_free(a->ctx.pub.device, graph);
}

/* One that another flight's steps have serves, too: its copies are told anew each time. */
static void *find(const MiBucket *b, MiShape shape, int flight)
{
    const MiGraph *g = graph_of(b, shape);
    void          *any = NULL;

    for (int i = 0; g && i < MI_FLIGHTS; i++)
        any = g->of[i] && (i == flight || !any) ? g->of[i] : any;
    return any;
}

bool mi_graph_run(MiAssembly *a, MiBucket *b, MiShape shape, int flight, const MiMail *m, bool recordable, bool *first,
                  GError **error)
{
    MiContext *ctx = &a->ctx.pub;
    void      *graph;

    recordable = recordable && !b->eager;
    if (recordable && !find(b, shape, flight)) {
        *first = true;
        mi_graph_record(a, b, shape, flight);
    }
    if (recordable && (graph = find(b, shape, flight)))
        return ctx->backend->replay(ctx->device, ctx->stream, graph, m->in, m->n_in, m->out, m->n_out, error);
    *first = *first || !b->ran;
    b->ran = true;
    mi_schedule_shape(b->schedule, shape);
    return mi_context_copy_all(&a->ctx, m->in, m->n_in, error) && mi_schedule_run(b->schedule, ctx, error) &&
           mi_context_copy_all(&a->ctx, m->out, m->n_out, error);
}

void mi_graph_clear(MiAssembly *a)
{
    MiContext *ctx = &a->ctx.pub;

    for (guint i = 0; i < a->buckets->len; i++) {
        const MiBucket *b = a->buckets->pdata[i];
        for (guint k = 0; k < b->graphs->len * MI_FLIGHTS; k++) {
            void *graph = g_array_index(b->graphs, MiGraph, k / MI_FLIGHTS).of[k % MI_FLIGHTS];
            if (graph)
                ctx->backend->graph_free(ctx->device, graph);
        }
        g_array_set_size(b->graphs, 0);
    }
}
