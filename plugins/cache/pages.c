/* pages.c - see pages.h.  Nothing is allocated after pages_init(). */
#include "pages.h"
#include <string.h>

static int32_t blocks_of(const Pages *p, int64_t positions)
{
    return (int32_t)((positions + p->spec.block_size - 1) / p->spec.block_size);
}

/* ---- blocks: free, idle, referenced ---------------------------------------------- */

static void forget(Pages *p, int32_t b)
{
    p->spec.prefix->remove(p->spec.index, b);
    p->spec.eviction->forget(p->spec.evictor, b);
    p->known[b] = false;
}

/* One that nobody has: a free one, else the idle one that the policy gives up.  There must be one. */
static int32_t take(Pages *p)
{
    int32_t b;

    if (p->n_free) {
        b = p->free[--p->n_free];
    } else {
        b = p->spec.eviction->evict(p->spec.evictor);
        p->n_idle--;
        p->spec.prefix->remove(p->spec.index, b);
        p->known[b] = false;
    }
    p->refs[b] = 1;
    return b;
}

static void share(Pages *p, int32_t b)
{
    if (p->refs[b]++ == 0) {
        p->spec.eviction->busy(p->spec.evictor, b);
        p->n_idle--;
    }
}

static void drop(Pages *p, int32_t b)
{
    if (--p->refs[b])
        return;
    if (p->known[b]) {
        p->spec.eviction->idle(p->spec.evictor, b);
        p->n_idle++;
    } else {
        p->free[p->n_free++] = b;
    }
}

/* The last first: what stands behind a block is evicted before it, or it would be found no more. */
static void drop_from(Pages *p, Place *at, int32_t n)
{
    while (at->n_blocks > n)
        drop(p, at->blocks[--at->n_blocks]);
    at->n_known = MIN(at->n_known, n);
}

int32_t pages_room(const Pages *p) { return p->n_free + p->n_idle; }

/* ---- places by id ----------------------------------------------------------------- */

static int32_t home(const Pages *p, uint64_t id) { return (int32_t)(id * 0x9e3779b97f4a7c15u >> 32) & p->map_mask; }

/* Where it stands, or the empty entry where it would. */
static int32_t entry_of(const Pages *p, uint64_t id)
{
    int32_t i = home(p, id);
    while (p->map[i] >= 0 && p->places[p->map[i]].id != id)
        i = (i + 1) & p->map_mask;
    return i;
}

Place *pages_find(const Pages *p, uint64_t id)
{
    const int32_t at = p->map[entry_of(p, id)];
    return at < 0 ? NULL : &p->places[at];
}

static Place *add_place(Pages *p, uint64_t id)
{
    if (!p->n_spare)
        return NULL;
    const int32_t at = p->spare[--p->n_spare];
    Place        *place = &p->places[at];
    *place = (Place){ .id = id, .version = ++p->version, .blocks = place->blocks };
    p->map[entry_of(p, id)] = at;
    return place;
}

/* Entries behind the one that goes move up where they belong before it. */
static void remove_place(Pages *p, Place *place)
{
    int32_t hole = entry_of(p, place->id);

    p->spare[p->n_spare++] = (int32_t)(place - p->places);
    for (int32_t i = (hole + 1) & p->map_mask; p->map[i] >= 0; i = (i + 1) & p->map_mask) {
        const int32_t from = home(p, p->places[p->map[i]].id);
        if (((i - from) & p->map_mask) >= ((i - hole) & p->map_mask)) {
            p->map[hole] = p->map[i];
            hole = i;
        }
    }
    p->map[hole] = -1;
}

/* ---- what the index knows ------------------------------------------------------------ */

static bool all_said(const int32_t *tokens, int32_t n)
{
    for (int32_t i = 0; i < n; i++)
        if (tokens[i] < 0) /* still being drawn */
            return false;
    return true;
}

/* The index is told of the blocks that are full by now.  Of one that is there already the sequence
 * takes that, and its own is free: who holds a block holds what stands before it. */
static void tell_index(Pages *p, Place *at, const MiSequence *seq)
{
    const int32_t size = p->spec.block_size, full = MIN(MIN(seq->n_cached, seq->n_tokens) / size, at->n_blocks);

    for (int32_t i = at->n_known; p->spec.prefix && !at->out && i < full; i++) {
        const int32_t *tokens = seq->tokens + (int64_t)i * size, own = at->blocks[i];
        if (!p->known[own]) {
            if (!all_said(tokens, size))
                return;
            const int32_t known = p->spec.prefix->insert(p->spec.index, i ? at->blocks[i - 1] : -1, tokens, own);
            if (known == own) {
                p->known[own] = true;
            } else {
                share(p, known);
                drop(p, own);
                at->blocks[i] = known;
                at->version = ++p->version;
            }
        }
        at->n_known = i + 1;
    }
}

int pages_match(Pages *p, const MiSequence *seq)
{
    const int32_t most = MIN(seq->n_tokens, p->spec.max_blocks * p->spec.block_size);
    Place        *at;

    if (!p->spec.prefix || seq->fresh || pages_find(p, seq->id) || !(at = add_place(p, seq->id)))
        return 0;
    const int32_t found = p->spec.prefix->find(p->spec.index, seq->tokens, most, at->blocks);
    const int32_t n = MIN(found, seq->n_tokens - 1); /* one is left to compute: its logits are what is wanted */
    if (n <= 0) {
        remove_place(p, at);
        return 0;
    }
    at->n_blocks = blocks_of(p, n);
    at->n_known = n / p->spec.block_size;
    for (int32_t i = 0; i < at->n_blocks; i++) {
        share(p, at->blocks[i]);
        p->spec.eviction->hit(p->spec.evictor, at->blocks[i]);
    }
    return n;
}

/* ---- room ---------------------------------------------------------------------------- */

/* Block i will be written: it must be the sequence's alone, and unknown.  What others have is copied, and so is
 * what is only known while there is a block to spare, for it may be asked for again. */
static void make_own(Pages *p, Place *at, int32_t i, int32_t *to_spare)
{
    const int32_t b = at->blocks[i];

    at->n_known = MIN(at->n_known, i);
    if (p->refs[b] == 1 && !p->known[b])
        return;
    if (p->refs[b] == 1 && !*to_spare) {
        forget(p, b);
        return;
    }
    *to_spare -= p->refs[b] == 1;
    at->blocks[i] = take(p);
    at->version = ++p->version;
    p->spec.move(p->spec.user, PAGES_COPY, b, at->blocks[i]);
    drop(p, b);
}

bool pages_reserve(Pages *p, const MiSequence *seq, int32_t n_tokens)
{
    const int32_t need = blocks_of(p, n_tokens), first = seq->n_cached / p->spec.block_size;
    Place        *at = pages_find(p, seq->id);
    int32_t       wanted;

    if (need > p->spec.max_blocks || (at ? at->out : !p->n_spare))
        return false;
    if (at)
        tell_index(p, at, seq);
    wanted = need - (at ? MIN(need, at->n_blocks) : 0);
    for (int32_t i = first; at && i < MIN(need, at->n_blocks); i++)
        wanted += p->refs[at->blocks[i]] > 1;
    if (wanted > pages_room(p))
        return false;
    if (!at)
        at = add_place(p, seq->id);
    int32_t to_spare = pages_room(p) - wanted;
    for (int32_t i = first; i < MIN(need, at->n_blocks); i++)
        make_own(p, at, i, &to_spare);
    while (at->n_blocks < need)
        at->blocks[at->n_blocks++] = take(p);
    return true;
}

void pages_release(Pages *p, const MiSequence *seq)
{
    Place *at = pages_find(p, seq->id);

    if (!at)
        return;
    if (at->out) {
        while (at->n_blocks)
            p->host[p->n_host++] = at->blocks[--at->n_blocks];
    } else {
        tell_index(p, at, seq);
        drop_from(p, at, 0);
    }
    remove_place(p, at);
}

bool pages_fork(Pages *p, const MiSequence *from, const MiSequence *to)
{
    const Place *a = pages_find(p, from->id);
    Place       *b;

    if (!a || a->out || pages_find(p, to->id) || !(b = add_place(p, to->id)))
        return false;
    b->n_blocks = MIN(blocks_of(p, from->n_cached), a->n_blocks);
    b->n_known = MIN(a->n_known, b->n_blocks);
    for (int32_t i = 0; i < b->n_blocks; i++)
        share(p, b->blocks[i] = a->blocks[i]);
    return true;
}

void pages_truncate(Pages *p, const MiSequence *seq, int32_t n)
{
    Place *at = pages_find(p, seq->id);

    if (!at || at->out)
        return;
    drop_from(p, at, MIN(at->n_blocks, blocks_of(p, n)));
    at->n_known = MIN(at->n_known, n / p->spec.block_size);
    at->version = ++p->version;
}

/* ---- out and in ------------------------------------------------------------------------ */

bool pages_swap_out(Pages *p, const MiSequence *seq)
{
    Place *at = pages_find(p, seq->id);

    if (!at || at->out || MIN(blocks_of(p, seq->n_cached), at->n_blocks) > p->n_host)
        return false;
    tell_index(p, at, seq);
    drop_from(p, at, MIN(blocks_of(p, seq->n_cached), at->n_blocks));
    for (int32_t i = at->n_blocks - 1; i >= 0; i--) {
        const int32_t to = p->host[--p->n_host];
        p->spec.move(p->spec.user, PAGES_OUT, at->blocks[i], to);
        drop(p, at->blocks[i]);
        at->blocks[i] = to;
    }
    at->n_known = 0;
    at->out = true;
    return true;
}

bool pages_swap_in(Pages *p, const MiSequence *seq)
{
    Place *at = pages_find(p, seq->id);

    if (!at || !at->out || at->n_blocks > pages_room(p))
        return false;
    for (int32_t i = 0; i < at->n_blocks; i++) {
        const int32_t from = at->blocks[i];
        at->blocks[i] = take(p);
        p->spec.move(p->spec.user, PAGES_IN, from, at->blocks[i]);
        p->host[p->n_host++] = from;
    }
    at->version = ++p->version;
    at->out = false;
    return true;
}

/* ---- start and stop --------------------------------------------------------------------- */

static bool new_ints(int32_t **out, size_t n) { return (*out = g_try_new(int32_t, MAX(n, 1))) != NULL; }

bool pages_init(Pages *p, const PagesSpec *spec)
{
    const size_t n_blocks = (size_t)spec->n_blocks, n_places = (size_t)spec->n_places;
    size_t       map = 4;

    *p = (Pages){ .spec = *spec };
    while (map < 2 * n_places)
        map *= 2;
    p->map_mask = (int32_t)map - 1;
    if (!(p->known = g_try_new0(bool, MAX(n_blocks, 1))) || !(p->places = g_try_new0(Place, n_places)) ||
        !(p->refs = g_try_new0(int32_t, MAX(n_blocks, 1))) || !new_ints(&p->free, n_blocks) ||
        !new_ints(&p->host, (size_t)spec->n_host) || !new_ints(&p->spare, n_places) || !new_ints(&p->map, map) ||
        !new_ints(&p->blocks, n_places * (size_t)spec->max_blocks)) {
        pages_clear(p);
        return false;
    }
    for (int32_t i = spec->n_blocks; i-- > 0;) /* the first are taken first */
        p->free[p->n_free++] = i;
    for (int32_t i = spec->n_host; i-- > 0;)
        p->host[p->n_host++] = i;
    for (int32_t i = spec->n_places; i-- > 0; p->spare[p->n_spare++] = i)
        p->places[i].blocks = p->blocks + (size_t)i * (size_t)spec->max_blocks;
    memset(p->map, -1, map * sizeof *p->map);
    return true;
}

void pages_clear(Pages *p)
{
    void *all[] = { p->refs, p->known, p->free, p->host, p->places, p->spare, p->map, p->blocks };

    for (size_t i = 0; i < G_N_ELEMENTS(all); i++)
        g_free(all[i]);
    *p = (Pages){ 0 };
}
