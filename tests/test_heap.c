/* The schedulers' heap against a search through all of it. */
#include "common.h"
#include "../plugins/schedulers/heap.h"

enum { N = 200 };

typedef struct {
    HeapItem item; /* first */
    int      key;
} Thing;

static bool before(void *self, const HeapItem *a, const HeapItem *b)
{
    assert_null(self);
    return ((const Thing *)a)->key < ((const Thing *)b)->key;
}

static void the_first_is_the_least(void **state)
{
    static Thing things[N];
    GRand *rand = g_rand_new_with_seed(4);
    Heap   h;
    int    n = 0;

    (void)state;
    heap_init(&h, before, NULL);
    for (int i = 0; i < N; i++)
        things[i].item.at = -1;
    for (int i = 0; i < 200000; i++) {
        Thing *t = &things[g_rand_int_range(rand, 0, N)];
        const int what = g_rand_int_range(rand, 0, 1000);
        if (what == 0 || what == 1)
            for (int k = 0; k < N; k++)
                things[k].key = g_rand_int_range(rand, 0, 100);
        if (what == 0)
            heap_rebuild(&h);
        else if (what == 1)
            heap_clear(&h), n = 0;
        else if (t->item.at < 0)
            t->key = g_rand_int_range(rand, 0, 100), heap_push(&h, &t->item), n++;
        else if (what % 2)
            t->key = g_rand_int_range(rand, 0, 100), heap_moved(&h, &t->item);
        else
            heap_remove(&h, &t->item), n--;
        int least = INT_MAX;
        for (int k = 0; k < N; k++)
            if (things[k].item.at >= 0)
                least = MIN(least, things[k].key);
        assert_int_equal(h.n, n);
        assert_int_equal(n ? ((const Thing *)(void *)heap_first(&h))->key : INT_MAX, least);
        assert_true(t->item.at < 0 || h.items[t->item.at] == &t->item);
    }
    heap_free(&h);
    g_rand_free(rand);
}

TEST_MAIN(cmocka_unit_test(the_first_is_the_least));
