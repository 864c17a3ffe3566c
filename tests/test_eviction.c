/* test_eviction.c - which block goes: every policy against a model that looks at all blocks, and what each is for.
 * MI_EVICTION_OPS: how many operations a model sees, MI_EVICTION_SEED where they begin. */
#include "../plugins/cache/pages.h"
#include "common.h"
#include "options.h"

#include <stdlib.h>

static long number(const char *name, long def)
{
    const char *text = g_getenv(name);
    return text ? strtol(text, NULL, 10) : def;
}

/* The policy, and its self with this half_life; -1: without options. */
static const MiEviction *open_policy(MiRegistry *r, const char *name, int n_blocks, int half_life, void **self)
{
    const MiFeature   *f = mi_registry_find(r, MI_KIND_EVICTION, name, "*", NULL);
    g_autoptr(GError)  error = NULL;
    g_autofree char   *value = g_strdup_printf("%d", half_life);
    g_autofree void   *options = f->options && half_life >= 0 ? g_malloc0(mi_options_size(f->options)) : NULL;
    const MiEviction  *vt = f->vtable;

    if (options)
        assert_true(mi_options_defaults(f->options, options, NULL) && mi_options_set(f->options, options, "half_life", value, NULL));
    if (!(*self = vt->create(&(MiEvictionSpec){ n_blocks }, options, &error)))
        fail_msg("%s", error->message);
    return vt;
}

/* ---- against a slow model ------------------------------------------------------------------ */

enum { MAX_BLOCKS = 40 };
typedef enum { UNKNOWN, BUSY, IDLE } State;

typedef struct {
    State    state[MAX_BLOCKS];
    uint64_t hits[MAX_BLOCKS], came[MAX_BLOCKS], clock; /* came: when it joined those of its class */
    int64_t  life, evicted; /* 0: only who came first matters */
    bool     counts;
    int      n;
} Model;

static int class_of(const Model *m, int b)
{
    int c = 0;
    while (m->counts && m->hits[b] >> c)
        c++;
    return c;
}

static bool before(const Model *m, int a, int b)
{
    return class_of(m, a) != class_of(m, b) ? class_of(m, a) < class_of(m, b) : m->came[a] < m->came[b];
}

/* Everybody's count; who comes down joins those below, in the order that it had. */
static void halve(Model *m)
{
    int was[MAX_BLOCKS];

    for (int b = 0; b < m->n; b++) {
        was[b] = class_of(m, b);
        m->hits[b] /= 2;
    }
    for (int c = 1; c < 64; c++) {
        bool done[MAX_BLOCKS] = { false };
        for (int next; ; done[next] = true, m->came[next] = ++m->clock) {
            next = -1;
            for (int b = 0; b < m->n; b++)
                if (m->state[b] == IDLE && was[b] == c && !done[b] && (next < 0 || m->came[b] < m->came[next]))
                    next = b;
            if (next < 0)
                break;
        }
    }
    m->evicted = 0;
}

static int model_evicts(Model *m)
{
    int best = -1;

    if (m->life && ++m->evicted > m->life)
        halve(m);
    for (int b = 0; b < m->n; b++)
        if (m->state[b] == IDLE && (best < 0 || before(m, b, best)))
            best = b;
    m->state[best] = UNKNOWN;
    m->hits[best] = 0;
    return best;
}

static void agrees_with(const char *name, bool counts, int half_life, int n_blocks)
{
    MiRegistry       *r = load(NULL);
    void             *self;
    const MiEviction *vt = open_policy(r, name, n_blocks, half_life, &self);
    Model             m = { .n = n_blocks, .counts = counts, .life = counts ? (int64_t)half_life * n_blocks : 0 };
    GRand            *rand = g_rand_new_with_seed((guint32)number("MI_EVICTION_SEED", 1) + (guint32)n_blocks);
    int               evictions = 0, most = 0;

    for (long i = 0; i < number("MI_EVICTION_OPS", 30000); i++) {
        const int b = g_rand_int_range(rand, 0, n_blocks), what = g_rand_int_range(rand, 0, 12);
        bool      any = false;
        for (int k = 0; k < n_blocks; k++)
            any |= m.state[k] == IDLE;
        if (what < 2 && any) {
            assert_int_equal(vt->evict(self), model_evicts(&m));
            evictions++;
        } else if (m.state[b] == IDLE) {
            vt->busy(self, b);
            m.state[b] = BUSY;
        } else if (what < 6 && m.state[b] == BUSY) {
            for (int times = b % 3 ? 1 : 9; times > 0; times--) {
                vt->hit(self, b);
                m.hits[b]++;
            }
            most = MAX(most, class_of(&m, b));
        } else if (what == 7 && m.state[b] == BUSY) {
            vt->forget(self, b);
            m.state[b] = UNKNOWN;
            m.hits[b] = 0;
        } else {
            vt->idle(self, b);
            m.state[b] = IDLE;
            m.came[b] = ++m.clock;
        }
    }
    assert_true(evictions > 1000 && (!counts || most > 3));
    vt->destroy(self);
    g_rand_free(rand);
    mi_registry_free(r);
}

static void lru_gives_up_what_is_idle_longest(void **state)
{
    (void)state;
    agrees_with("lru", false, -1, 1);
    agrees_with("lru", false, -1, 33);
}

static void lfu_gives_up_what_the_fewest_began_with(void **state)
{
    (void)state;
    agrees_with("lfu", true, 0, 33);
    agrees_with("lfu", true, 1, 17);
    agrees_with("lfu", true, 3, 40);
    agrees_with("lfu", true, 5, 2);
}

/* ---- what each is for: in the memory of many sequences ---------------------------------------- */

enum { POOL = 32, SHARED = 8, OWN = 4, TEXT = SHARED + OWN }; /* blocks of one position, and so tokens */

typedef struct {
    Pages    pages;
    uint64_t id;
    int32_t  next; /* a token that nobody had */
} Memory;

static void no_move(void *user, PagesMove what, int32_t from, int32_t to) { (void)user, (void)what, (void)from, (void)to; }

/* A whole text is computed and done with; how many of its positions were there. */
static int pass(Memory *m, int32_t first, bool shared)
{
    int32_t    tokens[TEXT];
    MiSequence s = { .id = ++m->id, .tokens = tokens, .n_tokens = TEXT, .n_prompt = TEXT };

    for (int i = 0; i < TEXT; i++)
        tokens[i] = shared && i < SHARED ? first + i : m->next++;
    const int found = s.n_cached = pages_match(&m->pages, &s);
    assert_true(pages_reserve(&m->pages, &s, TEXT));
    s.n_cached = TEXT;
    pages_release(&m->pages, &s);
    return found;
}

/* Texts that share a beginning, `flood` others between any two; how much of the beginnings was found at last. */
static double found_of(const char *name, int half_life, int flood, int rounds, int forgotten)
{
    MiRegistry      *r = load(NULL);
    const MiPrefix  *prefix = mi_registry_find(r, MI_KIND_PREFIX, "hash", "*", NULL)->vtable;
    Memory           m = { .next = 1000 };
    void            *self;
    const MiEviction *vt = open_policy(r, name, POOL, half_life, &self);
    void            *index = prefix->create(&(MiPrefixSpec){ POOL, 1 }, NULL, NULL);
    int              found = 0;

    assert_true(pages_init(&m.pages, &(PagesSpec){ .block_size = 1, .n_blocks = POOL, .max_blocks = TEXT, .n_places = 2,
                                                   .prefix = prefix, .index = index, .eviction = vt, .evictor = self,
                                                   .move = no_move }));
    for (int i = 0; i < 4; i++) /* it becomes known, and popular */
        pass(&m, 1, true);
    for (int i = 0; i < rounds; i++) {
        for (int k = 0; k < flood; k++)
            pass(&m, 0, false);
        found += pass(&m, 1, true);
    }
    for (int k = 0; k < forgotten; k++)
        pass(&m, 0, false);
    if (forgotten)
        found = pass(&m, 1, true) * rounds;
    assert_int_equal(pages_room(&m.pages), POOL);
    prefix->destroy(index);
    vt->destroy(self);
    pages_clear(&m.pages);
    mi_registry_free(r);
    return (double)found / (SHARED * rounds);
}

/* Seven texts of twelve blocks go through a pool of 32 between any two that share eight. */
static void only_lfu_keeps_a_shared_beginning_through_a_flood(void **state)
{
    (void)state;
    assert_true(found_of("lru", -1, 7, 50, 0) == 0);
    assert_true(found_of("lfu", -1, 7, 50, 0) == 1);
    assert_true(found_of("lru", -1, 1, 50, 0) == 1); /* what fits both keep */
    assert_true(found_of("lfu", -1, 1, 50, 0) == 1);
}

static void what_was_popular_once_goes_at_last(void **state)
{
    (void)state;
    assert_true(found_of("lfu", 4, 7, 50, 20) == 1);   /* 240 evictions: not yet */
    assert_true(found_of("lfu", 4, 7, 50, 2000) == 0); /* 24,000: seven halvings and more */
    assert_true(found_of("lfu", 0, 7, 50, 2000) == 1);
}

TEST_MAIN(cmocka_unit_test(lru_gives_up_what_is_idle_longest), cmocka_unit_test(lfu_gives_up_what_the_fewest_began_with),
          cmocka_unit_test(only_lfu_keeps_a_shared_beginning_through_a_flood), cmocka_unit_test(what_was_popular_once_goes_at_last));
