#include "loader.h"
#include "numbers.h"

#include <miniinfer/plugin.h>
#include <string.h>

enum { N_LANES = 8, LANE_BYTES = 4 << 20, ELEMENTS = 1 << 20 };

/* One thread's way: what it reads goes into its buffer, and on from there while it reads the next. */
typedef struct {
    struct MiLoader *owner;
    GThread         *thread;
    char            *buffer; /* pinned, LANE_BYTES */
    void            *event;  /* the copy out of buffer */
    bool             busy;   /* event was recorded */
} Lane;

struct MiLoader {
    MiOwnedContext *ctx;
    Lane            lane[N_LANES];
    int             n_lanes;
    GMutex          lock; /* of what follows */
    GCond           work, idle;
    bool            stopping;
    int             running; /* lanes that still take parts of the task */
    int             round;   /* counts tasks */
    /* the task */
    const MiWeight *weight; /* NULL: plain bytes at src */
    const char     *src;
    char           *dst;
    MiDType         dtype;
    int64_t         at, end, step; /* bytes, or elements of the weight */
    GError         *error;
};

/* ---- converting --------------------------------------------------------------- */

bool mi_weight_convert(const MiWeight *w, int64_t first, int64_t n, MiDType dtype, void *dst, GError **error)
{
    MiDType           stored;
    g_autofree float *floats = NULL;
    const float      *from;

    if (mi_plain_dtype(w->format, &stored) && stored == dtype) {
        memcpy(dst, (const char *)w->data + (size_t)first * mi_dtype_size(dtype), (size_t)n * mi_dtype_size(dtype));
        return true;
    }
    if (!w->source || !MI_HAS(w->source->vt, decode)) {
        g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED, "%s is stored as %s, which its format does not decode", w->name,
                    w->format);
        return false;
    }
    floats = dtype == MI_F32 ? NULL : g_new(float, n);
    from = floats ? floats : dst;
    if (!w->source->vt->decode(w->source->self, w, first, n, (float *)(uintptr_t)from, error))
        return false;
    if (floats)
        mi_numbers_to(dtype, from, n, dst);
    return true;
}

/* ---- a lane --------------------------------------------------------------------- */

static bool fill(const MiLoader *l, Lane *lane, int64_t at, int64_t n, GError **error)
{
    if (l->weight)
        return mi_weight_convert(l->weight, at, n, l->dtype, lane->buffer, error);
    memcpy(lane->buffer, l->src + at, (size_t)n);
    return true;
}

static bool carry(MiLoader *l, Lane *lane, int64_t at, int64_t n, GError **error)
{
    MiContext       *ctx = &l->ctx->pub;
    const MiBackend *b = ctx->backend;
    const size_t     size = l->weight ? mi_dtype_size(l->dtype) : 1;

    if (lane->busy && !b->event_wait(ctx->device, lane->event, error))
        return false;
    lane->busy = false;
    if (!fill(l, lane, at, n, error) ||
        !b->copy(ctx->device, ctx->stream, l->dst + (size_t)at * size, lane->buffer, (size_t)n * size, error) ||
        !b->event_record(ctx->device, lane->event, ctx->stream, error))
        return false;
    return lane->busy = true;
}

static gpointer run(gpointer data)
{
    Lane     *lane = data;
    MiLoader *l = lane->owner;
    int       round = 0;

    g_mutex_lock(&l->lock);
    for (;;) {
        while (!l->stopping && l->round == round)
            g_cond_wait(&l->work, &l->lock);
        if (l->stopping)
            break;
        round = l->round;
        while (!l->error && l->at < l->end) {
            g_autoptr(GError) error = NULL;
            const int64_t     at = l->at, n = MIN(l->step, l->end - at);
            l->at += n;
            g_mutex_unlock(&l->lock);
            const bool ok = carry(l, lane, at, n, &error);
            g_mutex_lock(&l->lock);
            if (!ok && !l->error)
                l->error = g_steal_pointer(&error);
        }
        if (--l->running == 0)
            g_cond_signal(&l->idle);
    }
    g_mutex_unlock(&l->lock);
    return NULL;
}

static bool all_lanes(MiLoader *l, GError **error)
{
    g_mutex_lock(&l->lock);
    l->running = l->n_lanes;
    l->round++;
    g_cond_broadcast(&l->work);
    while (l->running)
        g_cond_wait(&l->idle, &l->lock);
    const bool ok = !l->error;
    if (!ok)
        g_propagate_error(error, g_steal_pointer(&l->error));
    g_mutex_unlock(&l->lock);
    return ok;
}

/* ---- the whole -------------------------------------------------------------------- */

MiLoader *mi_loader_new(MiOwnedContext *c, GError **error)
{
    MiContext *ctx = &c->pub;
    MiLoader  *l = g_new0(MiLoader, 1);

    l->ctx = c;
    g_mutex_init(&l->lock);
    g_cond_init(&l->work);
    g_cond_init(&l->idle);
    for (int i = 0; i < MIN(N_LANES, MAX(2, (int)g_get_num_processors() / 2)); i++) {
        Lane *lane = &l->lane[i];
        lane->owner = l;
        if (!(lane->buffer = ctx->alloc(ctx, MI_MEM_PINNED, LANE_BYTES, error)) ||
            !ctx->backend->event_new(ctx->device, &lane->event, error) ||
            !(lane->thread = g_thread_try_new("loader", run, lane, error))) {
            mi_loader_free(l, NULL);
            return NULL;
        }
        l->n_lanes++;
    }
    return l;
}

bool mi_loader_copy(MiLoader *l, void *dst, const void *src, size_t bytes, GError **error)
{
    l->weight = NULL;
    l->src = src;
    l->dst = dst;
    l->at = 0;
    l->end = (int64_t)bytes;
    l->step = LANE_BYTES;
    return all_lanes(l, error);
}

bool mi_loader_put(MiLoader *l, void *dst, MiDType dtype, const MiWeight *w, GError **error)
{
    MiDType stored;

    if (mi_plain_dtype(w->format, &stored) && stored == dtype)
        return mi_loader_copy(l, dst, w->data, mi_weight_bytes_as(w, dtype), error);
    l->weight = w;
    l->dst = dst;
    l->dtype = dtype;
    l->at = 0;
    l->end = (int64_t)(mi_weight_bytes_as(w, dtype) / mi_dtype_size(dtype));
    l->step = ELEMENTS; /* whole blocks of every storage, and with f32 it fits a buffer */
    return all_lanes(l, error);
}

bool mi_loader_free(MiLoader *l, GError **error)
{
    MiContext *ctx = &l->ctx->pub;
    bool       ok = true;

    g_mutex_lock(&l->lock);
    l->stopping = true;
    g_cond_broadcast(&l->work);
    g_mutex_unlock(&l->lock);
    for (int i = 0; i < N_LANES; i++) {
        Lane *lane = &l->lane[i];
        if (lane->thread)
            g_thread_join(lane->thread);
        if (lane->busy)
            ok = ctx->backend->event_wait(ctx->device, lane->event, ok ? error : NULL) && ok;
        if (lane->event)
            ctx->backend->event_free(ctx->device, lane->event);
        ctx->free(ctx, MI_MEM_PINNED, lane->buffer);
    }
    g_mutex_clear(&l->lock);
    g_cond_clear(&l->work);
    g_cond_clear(&l->idle);
    g_free(l);
    return ok;
}
