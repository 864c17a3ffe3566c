#include "graph.h"

#include <string.h>

static bool same(const MiCopy *a, const MiCopy *b, int n) { return memcmp(a, b, (size_t)n * sizeof *a) == 0; }

/* What it brings along is what the mail begins with; what a step has beyond that goes ahead. */
static bool carries(const MiGraph *g, const MiMail *m)
{
    return g->graph && (g->bare || (g->mail.n_in <= m->n_in && same(g->mail.in, m->in, g->mail.n_in) &&
                                    g->mail.n_out == m->n_out && same(g->mail.out, m->out, m->n_out)));
}

/* What of this shape is recorded with this mail or, if none is, without any.  *n: of the shape, what ran once and what is
 * recorded; *ran: the former. */
static const MiGraph *graph_of(const MiBucket *b, MiShape shape, const MiMail *m, int *n, const MiGraph **ran)
{
    const MiGraph *found = NULL;

    *n = 0;
    for (guint i = 0; i < b->graphs->len; i++) {
        const MiGraph *g = &g_array_index(b->graphs, MiGraph, i);
        if (memcmp(&g->shape, &shape, sizeof shape) != 0)
            continue;
        ++*n;
        *ran = g->graph ? *ran : g;
        if (carries(g, m) && (!found || found->bare))
            found = g;
    }
    return found;
}

/* What every step of the shape seems to send: what two of them began with, from wherever. */
static int steady(const MiMail *a, const MiMail *b)
{
    int n = 0;

    while (n < MIN(a->n_in, b->n_in) && a->in[n].dst == b->in[n].dst && a->in[n].bytes == b->in[n].bytes)
        n++;
    return n;
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

typedef bool Enqueue(MiAssembly *, const MiBucket *, guint i, const MiMail *, GError **error);

/* What that enqueues, as a graph; NULL with *error: it cannot be recorded.  *begun: false where the device fails. */
static void *record(MiAssembly *a, Enqueue *enqueue, const MiBucket *b, guint i, const MiMail *mail, bool *begun, GError **error)
{
    MiContext *ctx = &a->ctx.pub;

    if (!(*begun = ctx->backend->capture_begin(ctx->device, ctx->stream, error)))
        return NULL;
    const bool ran = enqueue(a, b, i, mail, error);
    void      *graph = ctx->backend->capture_end(ctx->device, ctx->stream, ran ? error : NULL);
    if (ran || !graph)
        return graph;
    ctx->backend->graph_free(ctx->device, graph);
    return NULL;
}

static bool one(MiAssembly *a, const MiBucket *b, guint i, const MiMail *mail, GError **error)
{
    (void)mail;
    return mi_schedule_run_one(b->schedule, i, &a->ctx.pub, error);
}

/* mail NULL: the nodes only. */
static bool all(MiAssembly *a, const MiBucket *b, guint i, const MiMail *m, GError **error)
{
    (void)i;
    return (!m || mi_context_copy_all(&a->ctx, m->in, m->n_in, error)) && mi_schedule_run(b->schedule, &a->ctx.pub, error) &&
           (!m || mi_context_copy_all(&a->ctx, m->out, m->n_out, error));
}

/* Says which op broke the recording: each is recorded alone.  False: none. */
static bool blame(MiAssembly *a, const MiBucket *b)
{
    MiContext *ctx = &a->ctx.pub;

    for (guint i = 0; i < b->schedule->runs->len; i++) {
        g_autoptr(GError) why = NULL;
        bool              begun;
        void             *graph = record(a, one, b, i, NULL, &begun, &why);
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

static void *record_all(MiAssembly *a, MiBucket *b, const MiMail *mail)
{
    g_autoptr(GError) why = NULL;
    bool              begun;
    void             *graph = record(a, all, b, 0, mail, &begun, &why);

    if (graph || !begun)
        return graph;
    b->eager = true;
    if (!blame(a, b) && !a->quiet)
        g_message("steps of %d rows cannot be recorded into a graph, though each node can, and run node by node, "
                  "slower: %s", b->schedule->shape.n_tokens, why ? why->message : "no reason given");
    return NULL;
}

static bool replay(MiAssembly *a, const MiGraph *g, const MiMail *m, GError **error)
{
    const int  n = g->bare ? 0 : g->mail.n_in;
    MiContext *ctx = &a->ctx.pub;

    return mi_context_copy_all(&a->ctx, m->in + n, m->n_in - n, error) &&
           ctx->backend->replay(ctx->device, ctx->stream, g->graph, error) &&
           (!g->bare || mi_context_copy_all(&a->ctx, m->out, m->n_out, error));
}

/* The first step of a shape runs node by node, so that all of its code is loaded.  The next ones, one of each flight, are
 * recorded with their mail; should that ever be another, then once more without. */
bool mi_graph_run(MiAssembly *a, MiBucket *b, MiShape shape, const MiMail *m, bool recordable, bool *first, GError **error)
{
    const MiGraph *g = NULL, *ran = NULL;
    int            n = 0;

    recordable = recordable && !b->eager;
    if (recordable && (g = graph_of(b, shape, m, &n, &ran)))
        return replay(a, g, m, error);
    *first = *first || !b->ran || recordable;
    b->ran = true;
    mi_schedule_shape(b->schedule, shape);
    if (recordable) {
        MiGraph new = { .shape = shape, .bare = n > MI_FLIGHTS, .mail = *m };
        if (ran) {
            new.mail.n_in = steady(&ran->mail, m);
            new.graph = record_all(a, b, new.bare ? NULL : &new.mail);
        }
        if (!ran || new.graph)
            g_array_append_val(b->graphs, new);
        if (new.graph)
            return replay(a, &new, m, error);
    }
    return all(a, b, 0, m, error);
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
