/* heap.h - a binary heap whose items know where they are: the first is found at once, one is
 * added, removed or moved in O(log n).  Items are the caller's and begin with a HeapItem. */
#ifndef HEAP_H
#define HEAP_H

#include <glib.h>
#include <stdbool.h>

typedef struct {
    int at; /* in its heap; -1: in none */
} HeapItem;

typedef struct {
    bool (*before)(void *self, const HeapItem *a, const HeapItem *b);
    void      *self;
    HeapItem **items; /* [n] */
    int        n, size;
} Heap;

void heap_init(Heap *, bool (*before)(void *, const HeapItem *, const HeapItem *), void *self);
void heap_free(Heap *);
/* From then on n items fit without an allocation. */
void heap_reserve(Heap *, int n);
void heap_push(Heap *, HeapItem *);
void heap_remove(Heap *, HeapItem *);
/* The item comes sooner or later than it did. */
void heap_moved(Heap *, HeapItem *);
/* All of them may: O(n). */
void heap_rebuild(Heap *);
void heap_clear(Heap *);

static inline HeapItem *heap_first(const Heap *h) { return h->n ? h->items[0] : NULL; }

#endif
