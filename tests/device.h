/* device.h - the CPU backend opened for a test, and one op run on it. */
#ifndef TESTS_DEVICE_H
#define TESTS_DEVICE_H

#include "common.h"
#include "options.h"

#include <math.h>
#include <miniinfer/plugin.h>

typedef struct {
    MiContext   ctx; /* first */
    MiRegistry *registry;
    size_t      allocated, pinned; /* bytes through the context */
} Device;

static inline void *device_alloc(MiContext *ctx, MiMemory kind, size_t bytes, GError **error)
{
    Device *d = (Device *)ctx;
    *(kind == MI_MEM_DEVICE ? &d->allocated : &d->pinned) += bytes;
    return ctx->backend->alloc(ctx->device, kind, bytes, error);
}

static inline void device_free(MiContext *ctx, MiMemory kind, void *p) { ctx->backend->free(ctx->device, kind, p); }

static inline Device *device_open(const char *threads)
{
    g_autoptr(GError) error = NULL;
    Device           *d = g_new0(Device, 1);
    d->registry = load(NULL);
    const MiFeature  *f = mi_registry_find(d->registry, MI_KIND_BACKEND, "cpu", "*", &error);
    g_autofree void  *options = f ? g_malloc0(mi_options_size(f->options)) : NULL;

    if (!f || !mi_options_defaults(f->options, options, &error) ||
        !mi_options_set(f->options, options, "threads", threads, &error))
        fail_msg("%s", error->message);
    d->ctx = (MiContext){ .struct_size = sizeof d->ctx, .backend = f->vtable, .n_ranks = 1, .alloc = device_alloc,
                          .free = device_free };
    if (!(d->ctx.device = d->ctx.backend->open(0, options, &error)))
        fail_msg("%s", error->message);
    return d;
}

static inline void device_close(Device *d)
{
    d->ctx.backend->close(d->ctx.device);
    mi_registry_free(d->registry);
    g_free(d);
}

static inline const void *device_find(Device *d, MiKind kind, const char *name)
{
    g_autoptr(GError) error = NULL;
    const MiFeature  *f = mi_registry_find(d->registry, kind, name, "cpu", &error);
    if (!f)
        fail_msg("%s", error->message);
    return f->vtable;
}

/* Prepares at the call's own shape, gives the workspace, runs. */
static inline void device_run(Device *d, const MiOp *op, MiCall *call)
{
    g_autoptr(GError) error = NULL;
    void             *state = NULL;
    size_t            bytes = 0;

    if (MI_HAS(op, prepare) && !op->prepare(&d->ctx, call, &state, &bytes, &error))
        fail_msg("%s", error->message);
    g_autofree char *workspace = g_malloc(bytes + 64);
    memset(workspace, 0xff, bytes); /* NaN, should anyone trust it */
    memset(workspace + bytes, 0x5a, 64);
    call->workspace = workspace;
    if (!op->run(state, &d->ctx, call, &error))
        fail_msg("%s", error->message);
    for (int i = 0; i < 64; i++)
        assert_int_equal(workspace[bytes + i], 0x5a);
    if (MI_HAS(op, release))
        op->release(state);
}

static inline MiTensor tensor(float *data, int ndim, int64_t a, int64_t b, int64_t c)
{
    MiTensor t = { data, MI_F32, ndim, { a, b, c }, { b, 1 } };
    if (ndim == 3)
        t.stride[0] = b * c, t.stride[1] = c, t.stride[2] = 1;
    return t;
}

static inline float *random_floats(GRand *rand, size_t n, double low, double high)
{
    float *x = g_new(float, n);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)g_rand_double_range(rand, low, high);
    return x;
}

/* Within `relative` of what is wanted, or of `floor` where that is small. */
static inline void assert_near(double got, double want, double relative, double floor)
{
    if (!(fabs(got - want) <= relative * fmax(fabs(want), floor)) && !(got == want))
        fail_msg("%.9g instead of %.9g", got, want);
}

#endif
