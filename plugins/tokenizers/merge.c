/* merge.c - byte pair merging in O(n log n).
 *
 * A short word looks for its best pair by going through all of them, which for
 * the five symbols of an ordinary word is the fastest there is.  A long one keeps
 * the pairs in order: those of the start are sorted once by radix, those that arise
 * by merging go into a heap, and the better of the two fronts is next.  An entry is
 * rank << 32 | position; it is stale, and dropped, when the pair at that position
 * has another rank by then. */
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

/* A long word: a doubly linked list of symbols, and the two queues. */
typedef struct {
    int32_t  *ids;
    uint32_t *next, *prev; /* [n]; next of the last is n */
    uint32_t *rank;        /* [n] of the pair of i and next[i] */
    uint64_t *sorted, *spare;
    uint64_t *heap;
    size_t    n, n_sorted, n_heap;
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

static uint32_t look(const Word *w, const MiPairs *pairs, uint32_t i)
{
    const MiPair *found = w->next[i] < w->n ? mi_pairs_find(pairs, w->ids[i], w->ids[w->next[i]]) : NULL;
    return found ? found->rank : NO_RANK;
}

static void look_again(Word *w, const MiPairs *pairs, uint32_t i)
{
    w->rank[i] = look(w, pairs, i);
    if (w->rank[i] != NO_RANK)
        push(w, (uint64_t)w->rank[i] << 32 | i);
}

/* Every merge removes a symbol and pushes two entries at most. */
static bool lay_out(Word *w, MiMergeScratch *scratch, int32_t *ids, size_t n)
{
    const size_t want = n * (3 * sizeof(uint32_t) + 4 * sizeof(uint64_t)) + sizeof(uint64_t);

    if (scratch->bytes < want) {
        void *p = g_try_realloc(scratch->memory, want);
        if (!p)
            return false;
        *scratch = (MiMergeScratch){ p, want };
    }
    w->ids = ids;
    w->n = n;
    w->n_heap = w->n_sorted = 0;
    w->sorted = scratch->memory;
    w->spare = w->sorted + n;
    w->heap = w->spare + n;
    w->next = (uint32_t *)(w->heap + 2 * n);
    w->prev = w->next + n;
    w->rank = w->prev + n;
    return true;
}

static bool merge_long(const MiPairs *pairs, MiMergeScratch *scratch, int32_t *ids, size_t *n)
{
    Word w;

    if (*n >= UINT32_MAX / 2 || !lay_out(&w, scratch, ids, *n))
        return false;
    for (uint32_t i = 0; i < w.n; i++) {
        w.next[i] = i + 1;
        w.prev[i] = i - 1;
        w.rank[i] = look(&w, pairs, i);
        if (w.rank[i] != NO_RANK)
            w.sorted[w.n_sorted++] = (uint64_t)w.rank[i] << 32 | i;
    }
    sort(&w);
    for (size_t done = 0; done < w.n_sorted || w.n_heap;) {
        const bool     old = done < w.n_sorted && (!w.n_heap || w.sorted[done] < w.heap[0]);
        const uint64_t entry = old ? w.sorted[done++] : pop(&w);
        const uint32_t i = (uint32_t)entry, j = w.next[i];
        if (w.rank[i] != entry >> 32)
            continue;
        ids[i] = mi_pairs_find(pairs, ids[i], ids[j])->id;
        w.next[i] = w.next[j];
        w.rank[j] = NO_RANK;
        if (w.next[i] < w.n)
            w.prev[w.next[i]] = i;
        look_again(&w, pairs, i);
        if (i)
            look_again(&w, pairs, w.prev[i]);
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
