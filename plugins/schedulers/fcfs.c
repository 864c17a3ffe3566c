/* fcfs.c - first come, first served: the oldest is admitted first, the youngest gives up its place. */
#include "batching.h"

typedef struct {
    Batching batching; /* first */
} Fcfs;

static bool before(void *self, const Entry *a, const Entry *b)
{
    (void)self;
    return a->order < b->order;
}

static const Policy policy = { .entry = sizeof(Entry), .before = before };

static void destroy(void *self)
{
    Fcfs *f = self;

    if (!f)
        return;
    batching_clear(&f->batching);
    g_free(f);
}

static void *create(const MiLimits *limits, const void *options, GError **error)
{
    Fcfs *f = g_new0(Fcfs, 1);

    if (batching_init(&f->batching, "fcfs", &policy, limits, options, error))
        return f;
    g_free(f);
    return NULL;
}

static const MiScheduler fcfs = { .struct_size = sizeof fcfs, .create = create, .destroy = destroy, BATCHING_CALLS };

static const MiOption options[] = { BATCHING_OPTIONS, MI_OPTION_END };

MI_PLUGIN("fcfs", "0.2", "First come, first served, with continuous batching",
          MI_FEATURE_SCHEDULER("fcfs", "*", &fcfs, options));
