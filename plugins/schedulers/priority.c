/* priority.c - the most urgent first, of equals the oldest; the least urgent gives up its place.
 *
 * Waiting makes up for priority at a steady rate, so nothing starves: who waits aging_ms longer stands as one
 * of the next priority.  As all age alike the order of two never changes, and a key that is made once says it:
 * the time of arrival, earlier by aging_ms for each step of priority. */
#include "batching.h"

typedef struct {
    BatchingOptions batching; /* first */
    float           aging_ms;
    bool            displace;
} Options;

typedef struct {
    Batching batching; /* first */
    Options  options;
} Priority;

typedef struct {
    Entry   entry; /* first */
    int64_t key;   /* least first */
} Ranked;

static void arrives(void *self, Entry *e)
{
    const Priority *p = self;
    const int64_t   aging_us = (int64_t)(1e3 * (double)p->options.aging_ms);

    ((Ranked *)e)->key = aging_us ? e->s->arrived - e->s->priority * aging_us : -(int64_t)e->s->priority;
}

static bool before(void *self, const Entry *a, const Entry *b)
{
    const int64_t x = ((const Ranked *)a)->key, y = ((const Ranked *)b)->key;

    (void)self;
    return x != y ? x < y : a->order < b->order;
}

static bool displaces(void *self, const Entry *waiting, const Entry *running)
{
    const Priority *p = self;
    return p->options.displace && waiting->s->priority > running->s->priority && before(self, waiting, running);
}

static const Policy policy = {
    .entry = sizeof(Ranked), .before = before, .arrives = arrives, .displaces = displaces,
};

static void destroy(void *self)
{
    Priority *p = self;

    batching_clear(&p->batching);
    g_free(p);
}

static void *create(const MiLimits *limits, const void *options, GError **error)
{
    Priority *p = g_new0(Priority, 1);

    p->options = *(const Options *)options;
    if (batching_init(&p->batching, "priority", &policy, limits, options, error))
        return p;
    g_free(p);
    return NULL;
}

static const MiScheduler priority = { .struct_size = sizeof priority, .create = create, .destroy = destroy, BATCHING_CALLS };

static const MiOption options[] = {
    MI_OPTION(Options, aging_ms, "1000", 0, 1e6,
              "milliseconds of waiting that make up for one step of priority; 0: none do, and the least urgent may starve"),
    MI_OPTION(Options, displace, "false", 0, 0,
              "who is more urgent takes the place of one that runs, when there is no other"),
    BATCHING_OPTIONS,
    MI_OPTION_END,
};

MI_PLUGIN("priority", "0.1", "The most urgent first, with aging",
          MI_FEATURE_SCHEDULER("priority", "*", &priority, options));
