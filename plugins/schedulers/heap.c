#include "heap.h"

void heap_init(Heap *h, bool (*before)(void *, const HeapItem *, const HeapItem *), void *self)
{
    *h = (Heap){ .before = before, .self = self };
}

void heap_free(Heap *h) { g_free(h->items); }

void heap_reserve(Heap *h, int n)
{
    if (n <= h->size)
        return;
    h->size = MAX(n, 2 * h->size);
    h->items = g_renew(HeapItem *, h->items, h->size);
}

static void put(Heap *h, int at, HeapItem *item)
{
    h->items[at] = item;
    item->at = at;
}

static void up(Heap *h, HeapItem *item)
{
    int at = item->at;

    for (; at > 0 && h->before(h->self, item, h->items[(at - 1) / 2]); at = (at - 1) / 2)
        put(h, at, h->items[(at - 1) / 2]);
    put(h, at, item);
}

static void down(Heap *h, HeapItem *item)
{
    int at = item->at;

    for (int child = 2 * at + 1; child < h->n; child = 2 * at + 1) {
        if (child + 1 < h->n && h->before(h->self, h->items[child + 1], h->items[child]))
            child++;
        if (!h->before(h->self, h->items[child], item))
            break;
        put(h, at, h->items[child]);
        at = child;
    }
    put(h, at, item);
}

void heap_push(Heap *h, HeapItem *item)
{
    heap_reserve(h, h->n + 1);
    put(h, h->n++, item);
    up(h, item);
}

void heap_moved(Heap *h, HeapItem *item)
{
    up(h, item);
    down(h, item);
}

void heap_remove(Heap *h, HeapItem *item)
{
    HeapItem *last = h->items[--h->n];

    if (last != item) {
        put(h, item->at, last);
        heap_moved(h, last);
    }
    item->at = -1;
}

void heap_rebuild(Heap *h)
{
    for (int i = h->n / 2; i-- > 0;)
        down(h, h->items[i]);
}

void heap_clear(Heap *h)
{
    for (int i = 0; i < h->n; i++)
        h->items[i]->at = -1;
    h->n = 0;
}
