/* fair.c - every client gets the same service, counted in tokens: the virtual token counter of Sheng et al.,
 * "Fairness in Serving Large Language Models" (OSDI 2024).
 *
 * A counter per client grows by input_weight for each token of a prompt when it is admitted, but for those that
 * the cache has, and by output_weight for each token drawn.  The client with the least has its oldest request
 * admitted next, the one with the most gives up a place.  Whoever comes back after a time without waiting
 * requests begins no lower than the least of those that wait: what one did not use is not saved up.  So two
 * clients that always have something waiting never differ by more than the paper's bound, and nobody starves. */
#include "batching.h"

enum { MOST_IDLE = 4096 /* clients without a request whose counters are kept */ };

typedef struct {
    BatchingOptions batching; /* first */
    float           input_weight, output_weight;
} Options;

typedef struct Asked Asked;

typedef struct {
    HeapItem item; /* first: among those with waiting requests, or those with none at all */
    char    *name;
    double   served;
    Asked   *oldest, *youngest; /* of its requests that wait */
    int      n_known; /* requests that wait or run */
} Client;

struct Asked {
    Entry   entry; /* first */
    Client *client;
    Asked  *older, *younger; /* where it waits */
};

typedef struct {
    Batching    batching; /* first */
    Options     options;
    GHashTable *clients; /* by name, which is the client's */
    Heap        asking, idle;
    double      left; /* the counter of the client whose last request was admitted last */
} Fair;

/* ---- clients ----------------------------------------------------------------------- */

static bool served_less(void *self, const HeapItem *x, const HeapItem *y)
{
    const Client *a = (const Client *)(const void *)x, *b = (const Client *)(const void *)y;

    (void)self;
    if (a->served < b->served || a->served > b->served || !a->oldest || !b->oldest)
        return a->served < b->served;
    return a->oldest->entry.order < b->oldest->entry.order;
}

static void client_free(void *data)
{
    Client *c = data;
    g_free(c->name);
    g_free(c);
}

static Client *client_of(Fair *f, const MiSequence *s)
{
    Client *c = g_hash_table_lookup(f->clients, s->client);

    if (c)
        return c;
    c = g_new0(Client, 1);
    c->item.at = -1;
    c->name = g_strdup(s->client);
    g_hash_table_insert(f->clients, c->name, c);
    heap_reserve(&f->asking, (int)g_hash_table_size(f->clients)); /* so that losing a place allocates nothing */
    return c;
}

static void serve(Fair *f, Client *c, double tokens)
{
    c->served += tokens;
    if (c->oldest)
        heap_moved(&f->asking, &c->item);
}

/* ---- the policy ---------------------------------------------------------------------- */

static bool before(void *self, const Entry *a, const Entry *b)
{
    const Client *x = ((const Asked *)a)->client, *y = ((const Asked *)b)->client;

    (void)self;
    return x->served < y->served || (!(x->served > y->served) && a->order < b->order);
}

static void arrives(void *self, Entry *e)
{
    Fair   *f = self;
    Client *c = ((Asked *)e)->client = client_of(f, e->s), *least = (Client *)(void *)heap_first(&f->asking);

    if (!c->n_known++ && c->item.at >= 0)
        heap_remove(&f->idle, &c->item);
    if (!c->oldest)
        c->served = MAX(c->served, least ? least->served : f->left);
}

/* Whoever has least is forgotten first: it would begin no lower anyway. */
static void leaves(void *self, Entry *e)
{
    Fair   *f = self;
    Client *c = ((Asked *)e)->client;

    if (--c->n_known)
        return;
    heap_push(&f->idle, &c->item);
    if (f->idle.n <= MOST_IDLE)
        return;
    c = (Client *)(void *)heap_first(&f->idle);
    heap_remove(&f->idle, &c->item);
    g_hash_table_remove(f->clients, c->name);
}

static void admits(void *self, Entry *e, int rows)
{
    Fair *f = self;
    serve(f, ((Asked *)e)->client, (double)f->options.input_weight * rows);
}

static void draws(void *self, Entry *e)
{
    Fair *f = self;
    serve(f, ((Asked *)e)->client, (double)f->options.output_weight);
}

/* By age: a newcomer is its client's youngest; what lost its place is older than all that wait, or nearly. */
static void queue(void *self, Entry *e)
{
    Fair   *f = self;
    Asked  *a = (Asked *)e, *older;
    Client *c = a->client;

    older = c->youngest && c->youngest->entry.order < e->order ? c->youngest : NULL;
    for (Asked *x = c->oldest; !older && x && x->entry.order < e->order; x = x->younger)
        if (!x->younger || x->younger->entry.order > e->order)
            older = x;
    a->older = older;
    a->younger = older ? older->younger : c->oldest;
    *(a->older ? &a->older->younger : &c->oldest) = a;
    *(a->younger ? &a->younger->older : &c->youngest) = a;
    if (c->item.at < 0)
        heap_push(&f->asking, &c->item);
    else
        heap_moved(&f->asking, &c->item);
}

static void unqueue(void *self, Entry *e)
{
    Fair   *f = self;
    Asked  *a = (Asked *)e;
    Client *c = a->client;

    *(a->older ? &a->older->younger : &c->oldest) = a->younger;
    *(a->younger ? &a->younger->older : &c->youngest) = a->older;
    a->older = a->younger = NULL;
    if (c->oldest) {
        heap_moved(&f->asking, &c->item);
        return;
    }
    heap_remove(&f->asking, &c->item);
    f->left = c->served;
}

static Entry *first(void *self)
{
    const Client *c = (const Client *)(const void *)heap_first(&((Fair *)self)->asking);
    return c ? &c->oldest->entry : NULL;
}

static const Policy policy = {
    .entry = sizeof(Asked), .before = before, .arrives = arrives, .leaves = leaves, .admits = admits, .draws = draws,
    .queue = queue, .unqueue = unqueue, .first = first,
};

/* ---- the scheduler -------------------------------------------------------------------- */

static void destroy(void *self)
{
    Fair *f = self;

    batching_clear(&f->batching);
    heap_free(&f->asking);
    heap_free(&f->idle);
    g_hash_table_unref(f->clients);
    g_free(f);
}

static void *create(const MiLimits *limits, const void *options, GError **error)
{
    Fair *f = g_new0(Fair, 1);

    f->options = *(const Options *)options;
    if (!batching_init(&f->batching, "fair", &policy, limits, options, error)) {
        g_free(f);
        return NULL;
    }
    f->clients = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, client_free);
    heap_init(&f->asking, served_less, NULL);
    heap_init(&f->idle, served_less, NULL);
    return f;
}

static const MiScheduler fair = { .struct_size = sizeof fair, .create = create, .destroy = destroy, BATCHING_CALLS };

static const MiOption options[] = {
    MI_OPTION(Options, input_weight, "1", 0, 1e3, "what a token of a prompt counts"),
    MI_OPTION(Options, output_weight, "2", 0.001, 1e3, "what a token of an answer counts"),
    BATCHING_OPTIONS,
    MI_OPTION_END,
};

MI_PLUGIN("fair", "0.1", "The same service for every client, counted in tokens",
          MI_FEATURE_SCHEDULER("fair", "*", &fair, options));
