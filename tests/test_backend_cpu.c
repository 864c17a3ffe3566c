/* The pool of threads and the memory of the CPU backend. */
#include "device.h"
#include <unistd.h>

typedef struct {
    int counts[64], n, calls;
    _Atomic int running, most;
    Device     *d;
    bool        inside;
} Seen;

static void note(void *arg, int i, int n)
{
    Seen     *s = arg;
    const int now = ++s->running;

    s->counts[i]++;
    if (i == 0)
        s->n = n;
    if (now > s->most)
        s->most = now;
    s->running--;
}

static void every_share_is_done_once(void **state)
{
    (void)state;
    const char *const threads[] = { "1", "2", "3", "8" };

    for (size_t t = 0; t < G_N_ELEMENTS(threads); t++) {
        Device *d = device_open(threads[t]);
        Seen    s = { 0 };
        for (int i = 1; i <= 500; i++) {
            d->ctx.backend->parallel(d->ctx.device, note, &s);
            assert_int_equal(s.n, atoi(threads[t]));
            for (int k = 0; k < s.n; k++)
                assert_int_equal(s.counts[k], i);
            if (i % 100 == 0)
                usleep(2000); /* they sleep meanwhile */
        }
        device_close(d);
    }
}

static void again(void *arg, int i, int n)
{
    Seen *outer = arg;
    Seen  inner = { 0 };

    (void)n;
    outer->d->ctx.backend->parallel(outer->d->ctx.device, note, &inner);
    outer->counts[i] += inner.counts[0] == 1 && inner.n == 1;
}

static void *call_often(void *arg)
{
    Device *d = arg;
    for (int i = 0; i < 2000; i++) {
        Seen s = { 0 };
        d->ctx.backend->parallel(d->ctx.device, note, &s);
        assert_true(s.n == 3 || s.n == 1);
        for (int k = 0; k < s.n; k++)
            assert_int_equal(s.counts[k], 1);
    }
    return NULL;
}

/* A call from inside a call, and calls of several threads, are done alone. */
static void calls_do_not_mix(void **state)
{
    (void)state;
    Device  *d = device_open("3");
    Seen     s = { .d = d };
    GThread *threads[3];

    d->ctx.backend->parallel(d->ctx.device, again, &s);
    for (int i = 0; i < 3; i++)
        assert_int_equal(s.counts[i], 1);
    for (int i = 0; i < 3; i++)
        threads[i] = g_thread_new("caller", call_often, d);
    for (int i = 0; i < 3; i++)
        g_thread_join(threads[i]);
    device_close(d);
}

static void memory_is_aligned_and_zero(void **state)
{
    (void)state;
    g_autoptr(GError) error = NULL;
    Device           *d = device_open("1");
    const MiBackend  *b = d->ctx.backend;
    const size_t      sizes[] = { 0, 1, 4000, 3 << 20, 9 << 20 };
    size_t            free, total;

    for (size_t i = 0; i < G_N_ELEMENTS(sizes); i++)
        for (int round = 0; round < 2; round++) {
            unsigned char *p = b->alloc(d->ctx.device, MI_MEM_DEVICE, sizes[i], &error);
            assert_non_null(p);
            assert_int_equal((uintptr_t)p % 256, 0);
            for (size_t k = 0; k < sizes[i]; k++)
                if (p[k])
                    fail_msg("byte %zu of %zu is not 0", k, sizes[i]);
            memset(p, 0xaa, sizes[i]);
            b->free(d->ctx.device, MI_MEM_DEVICE, p);
        }
    b->free(d->ctx.device, MI_MEM_DEVICE, NULL);
    assert_null(b->alloc(d->ctx.device, MI_MEM_DEVICE, SIZE_MAX / 4, &error));
    assert_true(g_error_matches(error, MI_ERROR, MI_ERROR_NO_MEMORY));
    g_clear_error(&error);
    assert_true(b->memory(d->ctx.device, &free, &total, &error));
    assert_true(free > 0 && free <= total);
    assert_int_equal(b->probe(), 1);
    assert_null(b->open(1, NULL, &error));
    assert_string_equal(error->message, "cpu:1 does not exist; there is cpu:0");
    device_close(d);
}

/* Pinned, and with all cores that there are. */
static void options_are_taken(void **state)
{
    (void)state;
    g_autoptr(GError) error = NULL;
    MiRegistry       *r = load(NULL);
    const MiFeature  *f = mi_registry_find(r, MI_KIND_BACKEND, "cpu", "*", &error);
    const MiBackend  *b = f->vtable;
    g_autofree void  *options = g_malloc0(mi_options_size(f->options));

    for (int i = 0; i < 3; i++) {
        Seen s = { 0 };
        assert_true(mi_options_defaults(f->options, options, &error));
        assert_true(mi_options_set(f->options, options, "pin", "true", &error));
        assert_true(mi_options_set(f->options, options, "threads", i == 1 ? "4" : "0", &error));
        assert_true(mi_options_set(f->options, options, "spin_us", i == 2 ? "0" : "10", &error));
        void *device = b->open(0, options, &error);
        for (int k = 0; k < 100; k++)
            b->parallel(device, note, &s);
        assert_true(s.n >= 1 && (i != 1 || s.n == 4));
        for (int k = 0; k < s.n; k++)
            assert_int_equal(s.counts[k], 100);
        b->close(device);
    }
    mi_registry_free(r);
}

/* Two marks with 3 ms between them; a rate that a machine can have. */
static void time_is_told(void **state)
{
    (void)state;
    g_autoptr(GError) error = NULL;
    Device           *d = device_open("2");
    const MiBackend  *b = d->ctx.backend;
    void             *from, *to;
    double            us = 0, rate = 0;

    assert_true(b->event_new(d->ctx.device, &from, &error) && b->event_new(d->ctx.device, &to, &error));
    assert_true(b->event_record(d->ctx.device, from, NULL, &error));
    usleep(3000);
    assert_true(b->event_record(d->ctx.device, to, NULL, &error) && b->event_wait(d->ctx.device, to, &error));
    assert_true(b->event_elapsed(d->ctx.device, from, to, &us, &error));
    assert_true(us >= 3000 && us < 3e6);
    b->event_free(d->ctx.device, from);
    b->event_free(d->ctx.device, to);
    assert_true(b->read_rate(d->ctx.device, &rate, &error));
    assert_true(rate > 1e8 && rate < 1e13);
    device_close(d);
}

TEST_MAIN(cmocka_unit_test(every_share_is_done_once), cmocka_unit_test(calls_do_not_mix),
          cmocka_unit_test(memory_is_aligned_and_zero), cmocka_unit_test(options_are_taken),
          cmocka_unit_test(time_is_told));
