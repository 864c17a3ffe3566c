/* sjf.c - the shortest job first, by an estimate that learns; the longest gives up its place.
 *
 * A job is its answer's expected length and the tokens of its prompt, which count less.  The length is a quantile
 * of the latest answers to prompts about as long (within a power of two), of all answers while these are few, and
 * never more than the request allows.  An answer that outgrows its estimate gets the quantile of those that
 * did, too.  Waiting makes up for length at a steady rate, so nothing starves: as all age alike, a key that
 * is made once says the order of two, until the estimates are better. */
#include "batching.h"
#include <stdlib.h>
#include <string.h>

enum { KEPT = 64, ENOUGH = 8, N_LENGTHS = 26 };

typedef struct {
    BatchingOptions batching; /* first */
    int32_t         guess;
    float           quantile, input_weight, aging;
} Options;

typedef struct {
    int32_t latest[KEPT], sorted[KEPT]; /* [n] tokens of answers */
    int     n, next;
} Lengths;

typedef struct {
    Batching batching; /* first */
    Options  options;
    Lengths  of[N_LENGTHS], all; /* by the prompt's length: 2^i to 2^(i+1) - 1 */
    int      n_learned; /* answers since those that wait were estimated */
} Sjf;

typedef struct {
    Entry   entry; /* first */
    double  key;   /* least first */
    int32_t expected; /* tokens of the answer */
} Job;

/* ---- lengths ----------------------------------------------------------------------- */

static int ascending(const void *a, const void *b)
{
    const int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

static void learn(Lengths *l, int32_t tokens)
{
    l->latest[l->next] = tokens;
    l->next = (l->next + 1) % KEPT;
    l->n = MIN(l->n + 1, KEPT);
    memcpy(l->sorted, l->latest, (size_t)l->n * sizeof *l->sorted);
    qsort(l->sorted, (size_t)l->n, sizeof *l->sorted, ascending);
}

static Lengths *like(Sjf *j, const MiSequence *s)
{
    return &j->of[MIN(31 - __builtin_clz((unsigned)MAX(s->n_prompt, 1)), N_LENGTHS - 1)];
}

/* Tokens of an answer that has so many: it is longer than that. */
static int32_t expect(Sjf *j, const MiSequence *s)
{
    const Lengths *l = like(j, s)->n >= ENOUGH ? like(j, s) : &j->all;
    const int32_t  drawn = s->n_tokens - s->n_prompt;
    int            shorter = 0;

    while (shorter < l->n && l->sorted[shorter] <= drawn)
        shorter++;
    const int32_t guess = shorter < l->n ? l->sorted[shorter + (int)((float)(l->n - shorter - 1) * j->options.quantile)]
                                         : MAX(2 * drawn, j->options.guess);
    return MIN(guess, s->max_tokens);
}

/* ---- the policy ---------------------------------------------------------------------- */

static void estimate(Sjf *j, Job *e)
{
    const MiSequence *s = e->entry.s;

    e->expected = expect(j, s);
    e->key = e->expected + (double)j->options.input_weight * s->n_prompt;
    if (j->options.aging > 0)
        e->key = 1e6 * e->key / (double)j->options.aging + (double)s->arrived;
}

static bool before(void *self, const Entry *a, const Entry *b)
{
    const double x = ((const Job *)a)->key, y = ((const Job *)b)->key;

    (void)self;
    return x < y || (!(x > y) && a->order < b->order);
}

static void arrives(void *self, Entry *e) { estimate(self, (Job *)e); }

static void draws(void *self, Entry *e)
{
    if (e->s->n_tokens - e->s->n_prompt >= ((Job *)e)->expected)
        estimate(self, (Job *)e);
}

/* Those that wait are estimated anew after so many answers that this costs little for each. */
static void leaves(void *self, Entry *e)
{
    Sjf        *j = self;
    const Heap *waiting = &j->batching.queue;

    if (!e->s->ended)
        return;
    learn(like(j, e->s), e->s->n_tokens - e->s->n_prompt);
    learn(&j->all, e->s->n_tokens - e->s->n_prompt);
    if (++j->n_learned < MAX(ENOUGH, waiting->n / ENOUGH))
        return;
    j->n_learned = 0;
    for (int i = 0; i < waiting->n; i++)
        estimate(j, (Job *)(void *)waiting->items[i]);
    batching_reorder(&j->batching);
}

static const Policy policy = {
    .entry = sizeof(Job), .before = before, .arrives = arrives, .leaves = leaves, .draws = draws,
};

/* ---- the scheduler -------------------------------------------------------------------- */

static void destroy(void *self)
{
    Sjf *j = self;

    batching_clear(&j->batching);
    g_free(j);
}

static void *create(const MiLimits *limits, const void *options, GError **error)
{
    Sjf *j = g_new0(Sjf, 1);

    j->options = *(const Options *)options;
    if (batching_init(&j->batching, "sjf", &policy, limits, options, error))
        return j;
    g_free(j);
    return NULL;
}

static const MiScheduler sjf = { .struct_size = sizeof sjf, .create = create, .destroy = destroy, BATCHING_CALLS };

static const MiOption options[] = {
    MI_OPTION(Options, guess, "256", 1, 1 << 24, "tokens of an answer while nothing is known of others"),
    MI_OPTION(Options, quantile, "0.5", 0, 1, "of the lengths of like answers, which one is expected"),
    MI_OPTION(Options, input_weight, "0.1", 0, 1e3, "what a token of the prompt counts, one of the answer counting 1"),
    MI_OPTION(Options, aging, "20", 0, 1e9,
              "tokens that a second of waiting makes up for; 0: none, and the longest may starve"),
    BATCHING_OPTIONS,
    MI_OPTION_END,
};

MI_PLUGIN("sjf", "0.1", "The shortest answer first, by an estimate that learns",
          MI_FEATURE_SCHEDULER("sjf", "*", &sjf, options));
