#include "node_times.h"
#include "side.h"

enum { DELAY_BYTES = 32 << 20, MAX_DELAYS = 4096 };

bool mi_node_times_can(const MiContext *ctx) { return MI_HAS(ctx->backend, event_elapsed); }

bool mi_timer_new(const MiContext *ctx, void **out, GError **error)
{
    return (MI_HAS(ctx->backend, timer_new) ? ctx->backend->timer_new : ctx->backend->event_new)(ctx->device, out, error);
}

static bool make_marks(MiNodeTimes *t, guint n, GError **error)
{
    t->marks = g_renew(void *, t->marks, MAX(n, t->n_marks));
    for (; t->n_marks < n; t->n_marks++)
        if (!mi_timer_new(t->ctx, &t->marks[t->n_marks], error))
            return false;
    return true;
}

/* n copies, for the device to do while the host gets ahead. */
static bool hold_up(MiNodeTimes *t, int n, GError **error)
{
    MiContext *ctx = t->ctx;

    if (n && !t->delay &&
        (!(t->delay = ctx->alloc(ctx, MI_MEM_DEVICE, DELAY_BYTES, error)) ||
         !(t->delay_from = ctx->alloc(ctx, MI_MEM_PINNED, DELAY_BYTES, error))))
        return false;
    for (int i = 0; i < n; i++)
        if (!ctx->backend->copy(ctx->device, ctx->stream, t->delay, t->delay_from, DELAY_BYTES, error))
            return false;
    return true;
}

/* The whole step once, a mark before each node and one behind the last. */
static bool round_of(MiNodeTimes *t, const MiSchedule *s, int delays, GError **error)
{
    MiContext *ctx = t->ctx;

    if (!make_marks(t, MAX(s->runs->len + 1, 2), error) || !hold_up(t, delays, error) ||
        !ctx->backend->event_record(ctx->device, t->marks[0], ctx->stream, error))
        return false;
    for (guint i = 0; i < s->runs->len; i++) {
        if (MI_HAS(ctx->backend, name_range)) {
            g_autofree char *label = mi_side_label(s, i);
            ctx->backend->name_range(ctx->device, label);
        }
        if (!mi_schedule_run_one(s, i, ctx, error) ||
            !ctx->backend->event_record(ctx->device, t->marks[i + 1], ctx->stream, error))
            return false;
    }
    if (MI_HAS(ctx->backend, name_range))
        ctx->backend->name_range(ctx->device, NULL);
    return ctx->backend->event_wait(ctx->device, t->marks[s->runs->len], error);
}

bool mi_node_times_delays(MiNodeTimes *t, const MiSchedule *s, int *out, GError **error)
{
    MiContext *ctx = t->ctx;
    double     copy_us;

    *out = 0;
    if (!round_of(t, s, 0, error)) /* loads what is loaded at first use */
        return false;
    if (ctx->backend->unified)
        return true;
    const int64_t from = g_get_monotonic_time();
    if (!round_of(t, s, 0, error))
        return false;
    const double host_us = (double)(g_get_monotonic_time() - from);
    if (!hold_up(t, 1, error) || !ctx->backend->event_record(ctx->device, t->marks[0], ctx->stream, error) ||
        !hold_up(t, 1, error) || !ctx->backend->event_record(ctx->device, t->marks[1], ctx->stream, error) ||
        !ctx->backend->event_wait(ctx->device, t->marks[1], error) ||
        !ctx->backend->event_elapsed(ctx->device, t->marks[0], t->marks[1], &copy_us, error))
        return false;
    *out = (int)MIN(1 + 1.5 * host_us / MAX(copy_us, 1), MAX_DELAYS);
    return true;
}

bool mi_node_times_run(MiNodeTimes *t, const MiSchedule *s, int delays, double *us, GError **error)
{
    bool ok = round_of(t, s, delays, error);

    for (guint i = 0; i < s->runs->len && ok; i++)
        ok = t->ctx->backend->event_elapsed(t->ctx->device, t->marks[i], t->marks[i + 1], &us[i], error);
    return ok;
}

bool mi_node_times_begin(const MiNodeTimes *t, guint i, double *us, GError **error)
{
    return t->ctx->backend->event_elapsed(t->ctx->device, t->marks[0], t->marks[i], us, error);
}

void mi_node_times_clear(MiNodeTimes *t)
{
    MiContext *ctx = t->ctx;

    for (guint i = 0; i < t->n_marks; i++)
        ctx->backend->event_free(ctx->device, t->marks[i]);
    g_free(t->marks);
    if (ctx) {
        ctx->free(ctx, MI_MEM_DEVICE, t->delay);
        ctx->free(ctx, MI_MEM_PINNED, t->delay_from);
    }
    *t = (MiNodeTimes){ 0 };
}
