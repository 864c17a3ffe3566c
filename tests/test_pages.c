/* Random operations on the book-keeping of paged memory, against a model that knows what stands in every block.
 *
 * The contents of a position are a digest of all tokens up to it.  A step writes them, copies carry them, and whatever
 * a sequence has must be its own text's: a block that was shared too far, written while others read it, or found
 * for other tokens shows.  MI_PAGES_OPS says how many operations there are, MI_PAGES_SEED where they begin. */
#include "../plugins/cache/pages.h"
#include "../plugins/prefix/chain.h"
#include "common.h"

#include <stdlib.h>

enum { MAX_SEQS = 7, MAX_TEXT = 48, MAX_BLOCKS = 96, MAX_HOST = 24, MAX_SIZE = 8, UNKNOWN = -5 };

typedef struct {
    MiSequence seq;
    bool       lives, out;
    int32_t    tokens[MAX_TEXT], real[MAX_TEXT]; /* tokens: as the engine knows them, the last perhaps not yet */
} Text;

/* What the index was told of a block. */
typedef struct {
    bool    known, lost; /* lost: a block before it was removed, so that it is not found any more */
    int     n;
    int32_t text[MAX_TEXT]; /* [n] its tokens behind all that stand before them */
} Told;

typedef struct {
    Pages           pages;
    const MiPrefix *prefix; /* the one that is tested; NULL: none */
    void           *index;
    const MiEviction *eviction; /* with prefix */
    void           *evictor;
    bool            idle[MAX_BLOCKS]; /* as the policy was told */
    Told            told[MAX_BLOCKS];
    GRand          *rand;
    bool            cuts;  /* sequences forget positions */
    bool            forks; /* sequences begin as copies of others */
    bool            whole; /* the index finds whole blocks only */
    Text            texts[MAX_SEQS];
    uint64_t        contents[MAX_BLOCKS][MAX_SIZE], outside[MAX_HOST][MAX_SIZE];
    uint64_t        last_id;
    int             matched, copied, swapped, forked, refused, evicted;
} World;

static uint64_t digest(const int32_t *tokens, int n)
{
    uint64_t h = 1469598103934665603u;
    for (int i = 0; i < n; i++)
        h = (h ^ (uint64_t)(uint32_t)tokens[i]) * 1099511628211u + 77;
    return h;
}

static int pick(World *w, int n) { return g_rand_int_range(w->rand, 0, n); }

static void move(void *user, PagesMove what, int32_t from, int32_t to)
{
    World *w = user;
    memcpy(what == PAGES_OUT ? w->outside[to] : w->contents[to], what == PAGES_IN ? w->outside[from] : w->contents[from],
           sizeof w->contents[0]);
    w->copied += what == PAGES_COPY;
}

/* ---- what must always hold --------------------------------------------------------------- */

static void lists_are_sound(const World *w)
{
    const Pages *p = &w->pages;
    int          seen[MAX_BLOCKS] = { 0 }, host[MAX_HOST] = { 0 }, refs[MAX_BLOCKS] = { 0 }, n = 0;

    for (int i = 0; i < MAX_SEQS; i++) {
        const Place *at = w->texts[i].lives ? pages_find(p, w->texts[i].seq.id) : NULL;
        for (int k = 0; at && k < at->n_blocks; k++)
            (at->out ? host : refs)[at->blocks[k]]++;
        n += at != NULL;
    }
    assert_int_equal(p->n_spare, p->spec.n_places - n);
    for (int i = 0; i < p->n_free; i++) {
        assert_true(!seen[p->free[i]]++ && !p->refs[p->free[i]] && !p->known[p->free[i]]);
    }
    n = 0;
    for (int b = 0; b < MAX_BLOCKS; b++)
        if (w->idle[b]) {
            assert_true(!seen[b]++ && !p->refs[b] && p->known[b]);
            n++;
        }
    assert_int_equal(n, p->n_idle);
    for (int b = 0; b < p->spec.n_blocks; b++) {
        assert_int_equal(p->refs[b], refs[b]);
        assert_int_equal(seen[b], refs[b] == 0);
    }
    for (int i = 0; i < p->n_host; i++)
        host[p->host[i]]++;
    for (int i = 0; i < p->spec.n_host; i++)
        assert_int_equal(host[i], 1);
}

/* All that a sequence has is its own text's. */
static void contents_are_right(const World *w, const Text *t)
{
    const Place *at = pages_find(&w->pages, t->seq.id);
    const int    size = w->pages.spec.block_size;

    assert_true(t->seq.n_cached == 0 || (at && at->out == t->out && at->n_blocks * size >= t->seq.n_cached));
    for (int i = 0; i < t->seq.n_cached; i++)
        assert_true((at->out ? w->outside[at->blocks[i / size]] : w->contents[at->blocks[i / size]])[i % size] ==
                    digest(t->real, i + 1));
}

/* ---- the index, watched ------------------------------------------------------------------------ */

static int32_t watched_find(void *self, const int32_t *tokens, int32_t n, int32_t *blocks)
{
    World *w = self;
    return w->prefix->find(w->index, tokens, n, blocks);
}

static int32_t watched_insert(void *self, int32_t parent, const int32_t *tokens, int32_t block)
{
    World        *w = self;
    const int     size = w->pages.spec.block_size;
    Told         *t = &w->told[block];
    const int32_t got = w->prefix->insert(w->index, parent, tokens, block);

    assert_true(!t->known && (parent < 0 || w->told[parent].known));
    *t = (Told){ .known = true };
    if (parent >= 0)
        *t = w->told[parent];
    memcpy(t->text + t->n, tokens, (size_t)size * sizeof *tokens);
    t->n += size;
    if (got != block) { /* it is there already: with the very same text */
        assert_true(w->told[got].known && w->told[got].n == t->n);
        assert_memory_equal(w->told[got].text, t->text, (size_t)t->n * sizeof *tokens);
        t->known = false;
    }
    return got;
}

static void watched_remove(void *self, int32_t block)
{
    World *w = self;
    Told  *t = &w->told[block];

    assert_true(t->known);
    w->prefix->remove(w->index, block);
    t->known = false;
    for (int b = 0; b < MAX_BLOCKS; b++) {
        Told *other = &w->told[b];
        if (other->known && !t->lost && other->n > t->n &&
            memcmp(other->text, t->text, (size_t)t->n * sizeof t->text[0]) == 0)
            other->lost = true;
    }
}

static const MiPrefix watched = { .struct_size = sizeof watched, .find = watched_find, .insert = watched_insert,
                                  .remove = watched_remove };

/* ---- the policy, watched ----------------------------------------------------------------------- */

static void watched_idle(void *self, int32_t block)
{
    World *w = self;
    assert_true(!w->idle[block] && w->told[block].known);
    w->idle[block] = true;
    w->eviction->idle(w->evictor, block);
}

static void watched_busy(void *self, int32_t block)
{
    World *w = self;
    assert_true(w->idle[block]);
    w->idle[block] = false;
    w->eviction->busy(w->evictor, block);
}

static void watched_hit(void *self, int32_t block)
{
    World *w = self;
    assert_true(!w->idle[block] && w->told[block].known);
    w->eviction->hit(w->evictor, block);
}

static void watched_forget(void *self, int32_t block)
{
    World *w = self;
    assert_true(!w->idle[block] && !w->told[block].known);
    w->eviction->forget(w->evictor, block);
}

/* Never one behind which another can still be found.  Where sequences are forked there is an exception: of a block that two
 * of them have one may find its own copy of what stands before it known already, and take that. */
static int32_t watched_evict(void *self)
{
    World        *w = self;
    const int32_t block = w->eviction->evict(w->evictor);
    const Told   *t = &w->told[block];

    assert_true(block >= 0 && block < w->pages.spec.n_blocks && w->idle[block]);
    w->idle[block] = false;
    w->evicted++;
    for (int b = 0; b < MAX_BLOCKS && !t->lost && !w->forks; b++) {
        const Told *other = &w->told[b];
        if (other->known && !other->lost && other->n > t->n && memcmp(other->text, t->text, (size_t)t->n * sizeof t->text[0]) == 0)
            fail_msg("block %d goes before block %d behind it", block, b);
    }
    return block;
}

static const MiEviction watched_policy = { .struct_size = sizeof watched_policy, .idle = watched_idle, .busy = watched_busy,
                                           .hit = watched_hit, .forget = watched_forget, .evict = watched_evict };

/* How much of a text known blocks hold, found by looking at all of them. */
static int longest(const World *w, const int32_t *tokens, int n)
{
    const int size = w->pages.spec.block_size;
    int       best = 0;

    for (int b = 0; b < w->pages.spec.n_blocks; b++) {
        const Told *t = &w->told[b];
        int         same = 0;
        while (t->known && !t->lost && same < MIN(n, t->n) && tokens[same] == t->text[same])
            same++;
        best = MAX(best, same);
    }
    return w->whole ? best / size * size : best;
}

/* ---- operations ------------------------------------------------------------------------------- */

/* Few tokens, so that many texts begin alike. */
static int32_t token(World *w) { return pick(w, 5) ? 1 : pick(w, 3); }

static void release(World *w, Text *t)
{
    pages_release(&w->pages, &t->seq);
    assert_null(pages_find(&w->pages, t->seq.id));
    t->seq.n_cached = 0;
    t->out = false;
}

/* What was drawn arrives. */
static void know(Text *t) { memcpy(t->tokens, t->real, (size_t)t->seq.n_tokens * sizeof t->tokens[0]); }

/* It comes, or comes back: takes what is there already. */
static void admit(World *w, Text *t)
{
    const int size = w->pages.spec.block_size, n = t->seq.n_tokens;

    know(t);
    const bool no_place = !w->pages.n_spare;
    const int  wanted = no_place ? 0 : longest(w, t->tokens, n), got = pages_match(&w->pages, &t->seq);
    assert_in_range(got, 0, n - 1);
    assert_int_equal(got, t->seq.fresh || !w->prefix ? 0 : MIN(wanted, n - 1));
    t->seq.n_cached = got;
    w->matched += got;
    contents_are_right(w, t);
    if (!pages_reserve(&w->pages, &t->seq, n)) {
        w->refused++;
        assert_true(no_place || pages_room(&w->pages) < (n + size - 1) / size);
        release(w, t);
    }
}

static void come(World *w, Text *t)
{
    *t = (Text){ .lives = true, .seq = { .id = ++w->last_id * (1 + 8 * (uint64_t)pick(w, 2)), .slot = -1 } };
    w->last_id = t->seq.id;
    t->seq.tokens = t->tokens;
    t->seq.n_tokens = t->seq.n_prompt = 1 + pick(w, MAX_TEXT * 2 / 3);
    t->seq.fresh = pick(w, 10) == 0;
    for (int i = 0; i < t->seq.n_tokens; i++)
        t->tokens[i] = t->real[i] = token(w);
    admit(w, t);
}

/* Some of its rows are computed; a token is drawn that the host does not know yet, and may still not when
 * its own row is computed. */
static void step(World *w, Text *t)
{
    const int size = w->pages.spec.block_size, from = t->seq.n_cached;

    if (!pages_reserve(&w->pages, &t->seq, t->seq.n_tokens)) {
        w->refused++;
        if (!pick(w, 2) && (t->out = pages_swap_out(&w->pages, &t->seq)))
            w->swapped++;
        else
            release(w, t);
        return;
    }
    const Place *at = pages_find(&w->pages, t->seq.id);
    t->seq.n_cached += 1 + pick(w, t->seq.n_tokens - from);
    for (int i = from; i < t->seq.n_cached; i++) {
        const int32_t b = at->blocks[i / size];
        assert_true(w->pages.refs[b] == 1 && !w->pages.known[b]); /* nobody else reads what is written */
        w->contents[b][i % size] = digest(t->real, i + 1);
    }
    if (t->seq.n_cached < t->seq.n_tokens)
        return;
    if (t->seq.n_tokens == MAX_TEXT) {
        release(w, t);
        t->lives = false;
        return;
    }
    t->real[t->seq.n_tokens] = token(w);
    t->tokens[t->seq.n_tokens++] = UNKNOWN;
}

static void fork_one(World *w, const Text *from, Text *to)
{
    Text copy = *from;

    copy.seq.id = ++w->last_id;
    if (!pages_fork(&w->pages, &from->seq, &copy.seq))
        return;
    w->forked++;
    *to = copy;
    to->seq.tokens = to->tokens;
    know(to);
    if (to->seq.n_tokens > to->seq.n_cached) /* it goes on in its own way */
        to->tokens[to->seq.n_tokens - 1] = to->real[to->seq.n_tokens - 1] = token(w);
}

static void cut(World *w, Text *t)
{
    const int n = 1 + pick(w, MAX(t->seq.n_cached, 1));

    if (n > t->seq.n_cached)
        return;
    pages_truncate(&w->pages, &t->seq, n);
    t->seq.n_cached = n;
    t->seq.n_tokens = MIN(n + 1, MAX_TEXT);
    t->real[t->seq.n_tokens - 1] = token(w);
    know(t);
}

static void operation(World *w)
{
    Text *t = &w->texts[pick(w, MAX_SEQS)], *other = &w->texts[pick(w, MAX_SEQS)];

    if (t->lives && pick(w, 2))
        know(t);
    if (!t->lives) {
        come(w, t);
    } else if (t->out) {
        if (pick(w, 4))
            t->out = !pages_swap_in(&w->pages, &t->seq);
        else
            release(w, t);
    } else if (t->seq.n_cached == 0 && !pages_find(&w->pages, t->seq.id)) {
        admit(w, t);
    } else {
        switch (pick(w, 20)) {
        case 0:
            release(w, t);
            t->lives = pick(w, 2); /* it is done, or lost its place */
            break;
        case 1:
            if (t == other || !w->forks)
                break;
            if (other->lives)
                release(w, other), other->lives = false;
            fork_one(w, t, other);
            break;
        case 2:
            if (w->cuts)
                cut(w, t);
            break;
        case 3:
            if ((t->out = pages_swap_out(&w->pages, &t->seq)))
                w->swapped++;
            break;
        default: step(w, t);
        }
    }
}

/* ---- the worlds ---------------------------------------------------------------------------------- */

static long number(const char *name, long def)
{
    const char *text = g_getenv(name);
    return text ? strtol(text, NULL, 10) : def;
}

static void live(World *w, int size, int n_blocks, long n)
{
    const MiPrefixSpec blocks = { n_blocks, size };
    g_autoptr(GError)  error = NULL;

    w->rand = g_rand_new_with_seed((guint32)number("MI_PAGES_SEED", 1) + (guint32)(size * 100 + n_blocks));
    if (w->prefix && !w->index && !(w->index = w->prefix->create(&blocks, NULL, &error)))
        fail_msg("%s", error->message);
    if (w->prefix && !(w->evictor = w->eviction->create(&(MiEvictionSpec){ n_blocks }, NULL, &error)))
        fail_msg("%s", error->message);
    assert_true(pages_init(&w->pages, &(PagesSpec){ .block_size = size, .n_blocks = n_blocks, .n_host = MAX_HOST,
                                                    .max_blocks = (MAX_TEXT + size - 1) / size, .n_places = MAX_SEQS - 1,
                                                    .prefix = w->prefix ? &watched : NULL, .index = w,
                                                    .eviction = w->prefix ? &watched_policy : NULL, .evictor = w,
                                                    .move = move, .user = w }));
    for (long i = 0; i < n; i++) {
        operation(w);
        lists_are_sound(w);
        contents_are_right(w, &w->texts[i % MAX_SEQS]);
    }
    for (int i = 0; i < MAX_SEQS; i++)
        if (w->texts[i].lives)
            release(w, &w->texts[i]), w->texts[i].lives = false;
    lists_are_sound(w);
    assert_int_equal(pages_room(&w->pages), n_blocks);
    assert_int_equal(w->pages.n_host, MAX_HOST);
    if (w->index)
        w->prefix->destroy(w->index);
    if (w->evictor)
        w->eviction->destroy(w->evictor);
    pages_clear(&w->pages);
    g_rand_free(w->rand);
}

/* What happened in some worlds: a test of what never did shows nothing. */
static void count(World *all, const World *w)
{
    all->matched += w->matched, all->copied += w->copied, all->swapped += w->swapped;
    all->forked += w->forked, all->refused += w->refused, all->evicted += w->evicted;
}

static void all_happened(const World *all, bool index)
{
    assert_true(all->copied > 10 && all->swapped > 10 && all->forked > 10 && all->refused > 10);
    assert_true(index == (all->matched > 10) && index == (all->evicted > 10));
}

static const struct { int size, n_blocks; } worlds[] = { { 1, 64 }, { 2, 40 }, { 3, 32 }, { 4, 25 }, { 8, 14 } };

static void all_worlds(const char *name, bool whole, const char *eviction)
{
    MiRegistry       *r = load(NULL);
    const MiFeature  *policy = mi_registry_find(r, MI_KIND_EVICTION, eviction, "*", NULL);
    const MiFeature  *f = name ? mi_registry_find(r, MI_KIND_PREFIX, name, "*", NULL) : NULL;
    const long        n = number("MI_PAGES_OPS", 20000);
    World             all = { 0 };

    assert_true((!name || f) && policy);
    for (size_t i = 0; i < G_N_ELEMENTS(worlds); i++)
        for (int kind = 0; kind < 4; kind++) {
            World w = { .prefix = f ? f->vtable : NULL, .eviction = policy->vtable, .whole = whole, .cuts = kind & 1, .forks = kind & 2 };
            live(&w, worlds[i].size, worlds[i].n_blocks, n / 20);
            count(&all, &w);
        }
    all_happened(&all, name != NULL);
    mi_registry_free(r);
}

static void nothing_is_lost_without_an_index(void **state) { (void)state, all_worlds(NULL, true, "lru"); }
static void nothing_is_lost_or_mixed_up_with_hashes(void **state) { (void)state, all_worlds("hash", true, "lru"); }
static void nothing_is_lost_or_mixed_up_in_a_tree(void **state) { (void)state, all_worlds("trie", false, "lru"); }
static void nor_where_the_least_shared_goes_first(void **state)
{
    (void)state;
    all_worlds("hash", true, "lfu");
    all_worlds("trie", false, "lfu");
}

/* The worst hash there can be: all texts collide, none is taken for another. */
static uint64_t constant(const uint8_t key[CHAIN_KEY], uint64_t before, const int32_t *tokens, int32_t n)
{
    (void)key, (void)before, (void)tokens, (void)n;
    return 42;
}

static void collisions_mix_nothing_up(void **state)
{
    (void)state;
    static const MiPrefix planted = { .struct_size = sizeof planted, .destroy = chain_free, .find = chain_find,
                                      .insert = chain_insert, .remove = chain_remove };
    const uint8_t         key[CHAIN_KEY] = { 0 };
    World                 all = { 0 };
    MiRegistry           *r = load(NULL);
    const MiFeature      *policy = mi_registry_find(r, MI_KIND_EVICTION, "lru", "*", NULL);

    for (size_t i = 0; i < G_N_ELEMENTS(worlds); i++)
        for (int kind = 0; kind < 4; kind++) {
            World w = { .prefix = &planted, .eviction = policy->vtable, .whole = true, .cuts = kind & 1, .forks = kind & 2 };
            assert_non_null(w.index = chain_new(&(MiPrefixSpec){ worlds[i].n_blocks, worlds[i].size }, constant, key, NULL));
            live(&w, worlds[i].size, worlds[i].n_blocks, number("MI_PAGES_OPS", 20000) / 20);
            count(&all, &w);
        }
    all_happened(&all, true);
    mi_registry_free(r);
}

TEST_MAIN(cmocka_unit_test(nothing_is_lost_without_an_index), cmocka_unit_test(nothing_is_lost_or_mixed_up_with_hashes),
          cmocka_unit_test(nothing_is_lost_or_mixed_up_in_a_tree), cmocka_unit_test(nor_where_the_least_shared_goes_first),
          cmocka_unit_test(collisions_mix_nothing_up));
