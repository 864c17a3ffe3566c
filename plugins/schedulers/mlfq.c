/* mlfq.c - multi-level feedback queues: who had little service goes before who had much, without an estimate.
 *
 * A sequence sinks by a level when it has used up its quantum there; those of deeper levels are longer.
 * Within a level the oldest is first.  One that waits takes the place of one that runs on a deeper level, once
 * that has drawn enough there to be worth what it costs to compute it again.  The
 * prompt counts from the beginning, so that a long one starts where it would end up anyway (the skip-join of Wu
 * et al., "Fast Distributed Inference Serving for Large Language Models", 2023).  Every boost_ms all begin
 * again at the top, where the oldest is first: nothing starves, and who displaced another cannot be displaced by
 * it before it used up a quantum. */
#include "batching.h"

typedef struct {
    BatchingOptions batching; /* first */
    int32_t         levels, quantum;
    float           growth, input_weight, boost_ms, keep;
} Options;

typedef struct {
    Batching batching; /* first */
    Options  options;
    int64_t  boosted; /* when */
} Mlfq;

typedef struct {
    Entry  entry; /* first */
    double left;  /* of the quantum of its level */
    double quantum;
    int    level; /* 0: the top */
} Job;

static void sink(const Mlfq *m, Job *j)
{
    while (j->left <= 0 && j->level + 1 < m->options.levels) {
        j->level++;
        j->quantum *= (double)m->options.growth;
        j->left += j->quantum;
    }
}

static void rise(const Mlfq *m, Job *j)
{
    j->level = 0;
    j->left = j->quantum = m->options.quantum;
}

static void arrives(void *self, Entry *e)
{
    const Mlfq *m = self;
    Job        *j = (Job *)e;

    rise(m, j);
    j->left -= (double)m->options.input_weight * e->s->n_prompt;
    sink(m, j);
}

static void draws(void *self, Entry *e)
{
    ((Job *)e)->left--;
    sink(self, (Job *)e);
}

static bool before(void *self, const Entry *a, const Entry *b)
{
    const int x = ((const Job *)a)->level, y = ((const Job *)b)->level;

    (void)self;
    return x != y ? x < y : a->order < b->order;
}

/* What is swapped out need not be computed again. */
static bool displaces(void *self, const Entry *waiting, const Entry *running)
{
    const Mlfq  *m = self;
    const double drawn = running->s->n_tokens - running->placed;

    return ((const Job *)waiting)->level < ((const Job *)running)->level &&
           (m->batching.swaps || drawn >= (double)m->options.keep * running->s->n_tokens); /* its prompt is some */
}

static void turns(void *self)
{
    Mlfq         *m = self;
    Batching     *b = &m->batching;
    const int64_t now = b->limits->clock();

    if (m->options.boost_ms <= 0 || now - m->boosted < (int64_t)(1e3 * (double)m->options.boost_ms))
        return;
    m->boosted = now;
    for (int i = 0; i < b->n_running; i++)
        rise(m, (Job *)b->running[i]);
    for (int i = 0; i < b->queue.n; i++)
        rise(m, (Job *)(void *)b->queue.items[i]);
    batching_reorder(b);
}

static const Policy policy = {
    .entry = sizeof(Job), .before = before, .arrives = arrives, .draws = draws, .displaces = displaces, .turns = turns,
};

static void destroy(void *self)
{
    Mlfq *m = self;

    batching_clear(&m->batching);
    g_free(m);
}

static void *create(const MiLimits *limits, const void *options, GError **error)
{
    Mlfq *m = g_new0(Mlfq, 1);

    m->options = *(const Options *)options;
    m->boosted = limits->clock();
    if (batching_init(&m->batching, "mlfq", &policy, limits, options, error))
        return m;
    g_free(m);
    return NULL;
}

static const MiScheduler mlfq = { .struct_size = sizeof mlfq, .create = create, .destroy = destroy, BATCHING_CALLS };

static const MiOption options[] = {
    MI_OPTION(Options, levels, "4", 1, 16, "how many; one: first come, first served"),
    MI_OPTION(Options, quantum, "64", 1, 1 << 24, "tokens that are served on the first level"),
    MI_OPTION(Options, growth, "4", 1, 64, "how many times as long the quantum of the next level is"),
    MI_OPTION(Options, input_weight, "0.1", 0, 1e3, "what a token of the prompt counts, one of the answer counting 1"),
    MI_OPTION(Options, boost_ms, "10000", 0, 1e9,
              "milliseconds after which all begin again on the first level; 0: never, and the longest may starve"),
    MI_OPTION(Options, keep, "0.8", 0, 1,
              "share of its tokens that a sequence draws in its place before another may take it, where it would be "
              "computed again; 1: none may"),
    BATCHING_OPTIONS,
    MI_OPTION_END,
};

MI_PLUGIN("mlfq", "0.1", "Who had little service first, on levels",
          MI_FEATURE_SCHEDULER("mlfq", "*", &mlfq, options));
