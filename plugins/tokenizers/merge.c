/* merge.c - byte pair merging in O(n log n).
 *
 * A short word looks for its best pair by going through all of them, which for
 * the five symbols of an ordinary word is the fastest there is.
 *
 * A long one has a queue of rank << 32 | position.  Only pairs better than both
 * their neighbours are in it: the best of all is always such a pair, and the
 * others could be next only after a neighbour has changed, when they are looked
 * at again.  That leaves a third of the pairs of a random text, and of a run of
 * one letter a single one.  The first of them are sorted once by radix; those that
 * arise by merging go into a heap, and the better of the two fronts is next.  An
 * entry is stale, and dropped, when the pair at that position has another rank. */
#include "merge.h"

#include <string.h>

enum { SHORT = 64 /* symbols */ };
#define NO_RANK UINT32_MAX

bool mi_pairs_init(MiPairs *p, size_t n)
{
    unsigned bits = 4;

    if (n > (size_t)1 << 40)
        return false;
    while ((size_t)1 << bits < 2 * n)
        bits++;
    p->at = g_try_new(MiPair, (size_t)1 << bits);
    if (!p->at)
        return false;
    p->shift = 64 - bits;
    p->mask = ((uint64_t)1 << bits) - 1;
    p->multiplier = ((uint64_t)g_random_int() << 32 | g_random_int()) | 1;
    for (size_t i = 0; i <= p->mask; i++)
        p->at[i].id = MI_NO_PAIR;
    return true;
}

void mi_pairs_clear(MiPairs *p)
{
    g_free(p->at);
    p->at = NULL;
}

void mi_pairs_add(MiPairs *p, int32_t left, int32_t right, uint32_t rank, int32_t id)
{
    const uint64_t key = mi_pair_key(left, right);
    uint64_t       i = key * p->multiplier >> p->shift;

    while (p->at[i].id != MI_NO_PAIR && p->at[i].key != key)
        i = (i + 1) & p->mask;
    if (p->at[i].id == MI_NO_PAIR || rank < p->at[i].rank)
        p->at[i] = (MiPair){ key, rank, id };
}

static size_t merge_short(const MiPairs *pairs, int32_t *ids, size_t n)
{
    uint32_t rank[SHORT]; /* of the pair that begins here */
    int32_t  into[SHORT];

#define LOOK(i)                                                           \
    do {                                                                  \
        const MiPair *found = mi_pairs_find(pairs, ids[i], ids[(i) + 1]); \
        rank[i] = found ? found->rank : NO_RANK;                          \
        into[i] = found ? found->id : MI_NO_PAIR;                         \
    } while (0)
    for (size_t i = 0; i + 1 < n; i++)
        LOOK(i);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (rank[i] < rank[best])
                best = i;
        if (rank[best] == NO_RANK)
            break;
        ids[best] = into[best];
        n--;
        memmove(ids + best + 1, ids + best + 2, (n - best - 1) * sizeof *ids);
        memmove(rank + best, rank + best + 1, (n - best - 1) * sizeof *rank);
        memmove(into + best, into + best + 1, (n - best - 1) * sizeof *into);
        if (best)
            LOOK(best - 1);
        if (best + 1 < n)
            LOOK(best);
    }
#undef LOOK
    return n;
}

/* A long word: a doubly linked list of symbols, and the two queues.  The pair at i is that of i
 * and next[i]. */
typedef struct {
    const MiPairs *pairs;
    int32_t       *ids;
    uint32_t      *next, *prev; /* [n]; n: none */
    uint32_t      *rank;        /* [n] of the pair at i */
    uint32_t      *queued;      /* [n] the rank of its latest entry in a queue, NO_RANK: popped, or none yet */
    uint64_t      *sorted, *spare, *heap;
    size_t         n, n_sorted, n_heap;
} Word;

static void push(Word *w, uint64_t entry)
{
    size_t i = w->n_heap++;

    for (; i && w->heap[(i - 1) / 4] > entry; i = (i - 1) / 4)
        w->heap[i] = w->heap[(i - 1) / 4];
    w->heap[i] = entry;
}

static uint64_t pop(Word *w)
{
    const uint64_t top = w->heap[0], last = w->heap[--w->n_heap];
    size_t         i = 0;

    for (size_t child; (child = 4 * i + 1) < w->n_heap; i = child) {
        const size_t end = MIN(child + 4, w->n_heap);
        for (size_t c = child + 1; c < end; c++)
            if (w->heap[c] < w->heap[child])
                child = c;
        if (w->heap[child] >= last)
            break;
        w->heap[i] = w->heap[child];
    }
    w->heap[i] = last;
    return top;
}

/* By rank; entries are made in order of position and stay so within a rank. */
static void sort(Word *w)
{
    for (unsigned shift = 32; shift < 64; shift += 11) {
        size_t   start[2048] = { 0 }, sum = 0;
        uint64_t all = 0;
        for (size_t i = 0; i < w->n_sorted; i++) {
            start[w->sorted[i] >> shift & 2047]++;
            all |= w->sorted[i] >> shift;
        }
        if (!all)
            break;
        for (size_t i = 0; i < 2048; i++) {
            const size_t count = start[i];
            start[i] = sum;
            sum += count;
        }
        for (size_t i = 0; i < w->n_sorted; i++)
            w->spare[start[w->sorted[i] >> shift & 2047]++] = w->sorted[i];
        uint64_t *other = w->sorted;
        w->sorted = w->spare;
        w->spare = other;
    }
}

static uint32_t look(const Word *w, size_t i)
{
    const MiPair *found = w->next[i] < w->n ? mi_pairs_find(w->pairs, w->ids[i], w->ids[w->next[i]]) : NULL;
    return found ? found->rank : NO_RANK;
}

static inline uint64_t entry_of(const Word *w, size_t i)
{
    return i < w->n ? (uint64_t)w->rank[i] << 32 | i : UINT64_MAX;
}

static inline bool is_best_around(const Word *w, size_t i)
{
    const uint64_t entry = entry_of(w, i);
    return w->rank[i] != NO_RANK && entry < entry_of(w, w->prev[i]) && entry < entry_of(w, w->next[i]);
}

static inline void consider(Word *w, size_t i)
{
    if (i < w->n && w->queued[i] != w->rank[i] && is_best_around(w, i)) {
        w->queued[i] = w->rank[i];
        push(w, entry_of(w, i));
    }
}

/* Every pair is in the heap once for each rank it ever has: n at first, two more for each merge.
 * Of the pairs at first at most every other one is better than its neighbours. */
static bool lay_out(Word *w, MiMergeScratch *scratch, const MiPairs *pairs, int32_t *ids, size_t n)
{
    const size_t half = n / 2 + 1,
                 want = n * (4 * sizeof(uint32_t) + 3 * sizeof(uint64_t)) + 2 * half * sizeof(uint64_t);

    if (scratch->bytes < want) {
        mi_merge_scratch_clear(scratch);
        scratch->memory = g_try_malloc(want);
        if (!scratch->memory)
            return false;
        scratch->bytes = want;
    }
    *w = (Word){ .pairs = pairs, .ids = ids, .n = n, .sorted = scratch->memory };
    w->spare = w->sorted + half;
    w->heap = w->spare + half;
    w->next = (uint32_t *)(w->heap + 3 * n);
    w->prev = w->next + n;
    w->rank = w->prev + n;
    w->queued = w->rank + n;
    return true;
}

static void begin(Word *w)
{
    for (uint32_t i = 0; i < w->n; i++) {
        w->next[i] = i + 1;
        w->prev[i] = i ? i - 1 : (uint32_t)w->n;
        w->rank[i] = look(w, i);
        w->queued[i] = NO_RANK;
    }
    for (size_t i = 0; i < w->n; i++)
        if (is_best_around(w, i)) {
            w->queued[i] = w->rank[i];
            w->sorted[w->n_sorted++] = entry_of(w, i);
        }
    sort(w);
}

static void merge_at(Word *w, size_t i)
{
    const size_t j = w->next[i];

    w->ids[i] = mi_pairs_find(w->pairs, w->ids[i], w->ids[j])->id;
    w->next[i] = w->next[j];
    w->rank[j] = NO_RANK;
    if (w->next[i] < w->n)
        w->prev[w->next[i]] = (uint32_t)i;
    w->rank[i] = look(w, i);
    const size_t before = w->prev[i];
    if (before < w->n) {
        w->rank[before] = look(w, before);
        consider(w, w->prev[before]);
        consider(w, before);
    }
    consider(w, i);
    consider(w, w->next[i]);
}

static bool merge_long(const MiPairs *pairs, MiMergeScratch *scratch, int32_t *ids, size_t *n)
{
    Word w;

    if (*n >= UINT32_MAX / 2 || !lay_out(&w, scratch, pairs, ids, *n))
        return false;
    begin(&w);
    for (size_t done = 0; done < w.n_sorted || w.n_heap;) {
        const bool     first = done < w.n_sorted && (!w.n_heap || w.sorted[done] < w.heap[0]);
        const uint64_t entry = first ? w.sorted[done++] : pop(&w);
        const uint32_t i = (uint32_t)entry;
        if (w.queued[i] == entry >> 32)
            w.queued[i] = NO_RANK;
        if (w.rank[i] == entry >> 32)
            merge_at(&w, i);
    }
    *n = 0;
    for (size_t i = 0; i < w.n; i = w.next[i])
        ids[(*n)++] = ids[i];
    return true;
}

bool mi_merge(const MiPairs *pairs, MiMergeScratch *scratch, int32_t *ids, size_t *n)
{
    if (*n > SHORT)
        return merge_long(pairs, scratch, ids, n);
    *n = merge_short(pairs, ids, *n);
    return true;
}

void mi_merge_scratch_clear(MiMergeScratch *s)
{
    g_free(s->memory);
    *s = (MiMergeScratch){ 0 };
}
