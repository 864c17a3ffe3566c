/* cmd_trace.c - where the time of a step goes: marks between all its nodes, by the device's own clock.
 *
 * A step begins with its tokens and can be run again: once to warm up, then some rounds, of which the
 * median counts for each node.  Where the device works by itself it is first given copies to do, long enough
 * for the host to enqueue the whole step behind them: or short nodes would be as long as their launch takes. */
#include "cmd.h"
#include "interrupt.h"
#include "json_out.h"
#include "side.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ROUNDS = 101, DELAY_BYTES = 32 << 20, MAX_DELAYS = 4096 };

typedef struct {
    char  *label, *feature, *file;
    int    step;
    double begin, us; /* in the last round, from its first mark; the median */
} Span;

typedef struct {
    MiShape shape;
    double  us; /* the sum of its nodes */
} TracedStep;

typedef struct {
    MiSide    side;
    int       steps, batch, rounds;
    GPtrArray *spans; /* Span * */
    GArray    *traced; /* TracedStep */
    void     **marks; /* [n_marks] */
    guint      n_marks;
    void      *delay, *delay_from; /* device, pinned: [DELAY_BYTES] */
} Trace;

/* ---- measuring ------------------------------------------------------------------------- */

static bool make_marks(Trace *t, guint n, GError **error)
{
    MiContext *ctx = &t->side.a->ctx.pub;
    bool (*make)(void *, void **, GError **) = MI_HAS(ctx->backend, timer_new) ? ctx->backend->timer_new : ctx->backend->event_new;

    t->marks = g_renew(void *, t->marks, MAX(n, t->n_marks));
    for (; t->n_marks < n; t->n_marks++)
        if (!make(ctx->device, &t->marks[t->n_marks], error))
            return false;
    return true;
}

/* n copies, for the device to do while the host gets ahead. */
static bool hold_up(Trace *t, int n, GError **error)
{
    MiContext *ctx = &t->side.a->ctx.pub;

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
static bool round_of(Trace *t, MiSchedule *s, int delays, GError **error)
{
    MiContext *ctx = &t->side.a->ctx.pub;

    if (!hold_up(t, delays, error) || !ctx->backend->event_record(ctx->device, t->marks[0], ctx->stream, error))
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

/* How many copies take longer than the host needs to enqueue the step; 0 where enqueueing is running. */
static bool count_delays(Trace *t, MiSchedule *s, int *out, GError **error)
{
    MiContext *ctx = &t->side.a->ctx.pub;
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

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static bool add_span(Trace *t, MiSchedule *s, guint i, double *us, TracedStep *step, GError **error)
{
    MiContext *ctx = &t->side.a->ctx.pub;
    Span      *span = g_new0(Span, 1);

    g_ptr_array_add(t->spans, span);
    qsort(us, (size_t)t->rounds, sizeof *us, ascending);
    span->label = mi_side_label(s, i);
    span->feature = mi_schedule_feature(&t->side.a->parts, mi_schedule_at(s, i), &span->file);
    span->step = (int)t->traced->len;
    span->us = us[t->rounds / 2];
    step->us += span->us;
    return ctx->backend->event_elapsed(ctx->device, t->marks[0], t->marks[i], &span->begin, error);
}

/* In place of a step's nodes. */
static bool trace_step(void *user, MiSchedule *s, GError **error)
{
    Trace              *t = user;
    MiContext          *ctx = &t->side.a->ctx.pub;
    const guint         n = s->runs->len;
    g_autofree double  *us = g_new(double, MAX(n, 1) * (guint)t->rounds);
    TracedStep          step = { n ? mi_schedule_at(s, 0)->call.shape : (MiShape){ 0 }, 0 };
    int                 delays;

    if (!make_marks(t, MAX(n + 1, 2), error) || !count_delays(t, s, &delays, error))
        return false;
    for (int r = 0; r < t->rounds; r++) {
        if (!round_of(t, s, delays, error))
            return false;
        for (guint i = 0; i < n; i++)
            if (!ctx->backend->event_elapsed(ctx->device, t->marks[i], t->marks[i + 1], &us[i * (guint)t->rounds + (guint)r], error))
                return false;
    }
    for (guint i = 0; i < n; i++)
        if (!add_span(t, s, i, &us[i * (guint)t->rounds], &step, error))
            return false;
    g_array_append_val(t->traced, step);
    return true;
}

/* ---- sums ------------------------------------------------------------------------------------ */

typedef struct {
    const Span *like;
    int         count;
    double      us;
} Sum;

static int longest_first(const void *a, const void *b)
{
    const Sum *x = a, *y = b;
    return x->us != y->us ? (x->us < y->us) - (x->us > y->us) : strcmp(x->like->feature, y->like->feature);
}

/* By feature, over the steps of one kind. */
static GArray *sums_of(const Trace *t, bool decode, int *n_steps, double *total)
{
    GArray *sums = g_array_new(FALSE, FALSE, sizeof(Sum));

    *n_steps = 0;
    *total = 0;
    for (guint i = 0; i < t->traced->len; i++)
        *n_steps += g_array_index(t->traced, TracedStep, i).shape.decode == decode;
    for (guint i = 0; i < t->spans->len; i++) {
        const Span *span = t->spans->pdata[i];
        Sum        *sum = NULL;
        if (g_array_index(t->traced, TracedStep, span->step).shape.decode != decode)
            continue;
        for (guint k = 0; k < sums->len && !sum; k++)
            if (strcmp(g_array_index(sums, Sum, k).like->feature, span->feature) == 0)
                sum = &g_array_index(sums, Sum, k);
        if (!sum) {
            const Sum first = { span, 0, 0 };
            g_array_append_val(sums, first);
            sum = &g_array_index(sums, Sum, sums->len - 1);
        }
        sum->count++;
        sum->us += span->us;
        *total += span->us;
    }
    g_array_sort(sums, longest_first);
    return sums;
}

/* ---- printing ---------------------------------------------------------------------------------- */

static void print_kind(const Trace *t, bool decode)
{
    int               n;
    double            total;
    g_autoptr(GArray) sums = sums_of(t, decode, &n, &total);
    int               rows = 0;

    if (!n)
        return;
    for (guint i = 0; i < t->traced->len; i++) {
        const TracedStep *s = &g_array_index(t->traced, TracedStep, i);
        rows += s->shape.decode == decode ? s->shape.n_tokens : 0;
    }
    printf("%s: %d step%s, %d rows, %.1f us a step\n", decode ? "decode" : "prompt", n, n == 1 ? "" : "s", rows, total / n);
    printf("%7s %12s %10s %7s  %-28s %s\n", "nodes", "us a step", "us each", "share", "runs as", "plugin");
    for (guint i = 0; i < sums->len; i++) {
        const Sum *s = &g_array_index(sums, Sum, i);
        printf("%7d %12.1f %10.2f %6.1f%%  %-28s %s\n", s->count / n, s->us / n, s->us / s->count,
               total > 0 ? 100 * s->us / total : 0, s->like->feature, s->like->file ? s->like->file : "");
    }
    printf("\n");
}

static void json_kind(const Trace *t, bool decode, MiJson *j)
{
    int               n;
    double            total;
    g_autoptr(GArray) sums = sums_of(t, decode, &n, &total);

    mi_json_open(j, decode ? "decode" : "prompt", '{');
    mi_json_int(j, "steps", n);
    mi_json_float(j, "us", total);
    mi_json_open(j, "features", '[');
    for (guint i = 0; i < sums->len; i++) {
        const Sum *s = &g_array_index(sums, Sum, i);
        mi_json_open(j, NULL, '{');
        mi_json_string(j, "runs_as", s->like->feature);
        mi_json_string(j, "plugin", s->like->file);
        mi_json_int(j, "count", s->count);
        mi_json_float(j, "us", s->us);
        mi_json_float(j, "share", total > 0 ? s->us / total : 0);
        mi_json_close(j, '}');
    }
    mi_json_close(j, ']');
    mi_json_close(j, '}');
}

static void print_trace(const Trace *t, bool json)
{
    MiJson j;

    if (!json) {
        print_kind(t, false);
        print_kind(t, true);
        return;
    }
    j = mi_json_new();
    mi_json_open(&j, NULL, '{');
    mi_json_string(&j, "device", t->side.a->backend->name);
    json_kind(t, false, &j);
    json_kind(t, true, &j);
    mi_json_close(&j, '}');
    mi_json_print(&j);
}

/* The format of chrome://tracing and Perfetto: complete events, microseconds, a row for prompts and one for decoding. */
static bool write_file(const Trace *t, const char *file, GError **error)
{
    MiJson j = mi_json_new();
    double from = 0;

    mi_json_open(&j, NULL, '{');
    mi_json_string(&j, "displayTimeUnit", "ns");
    mi_json_open(&j, "traceEvents", '[');
    for (guint i = 0; i < t->spans->len; i++) {
        const Span       *s = t->spans->pdata[i], *last = i ? t->spans->pdata[i - 1] : NULL;
        const TracedStep *step = &g_array_index(t->traced, TracedStep, s->step);
        if (last && last->step != s->step)
            from += last->begin + last->us;
        mi_json_open(&j, NULL, '{');
        mi_json_string(&j, "name", s->label);
        mi_json_string(&j, "cat", s->feature);
        mi_json_string(&j, "ph", "X");
        mi_json_float(&j, "ts", from + s->begin);
        mi_json_float(&j, "dur", s->us);
        mi_json_int(&j, "pid", 1);
        mi_json_int(&j, "tid", step->shape.decode ? 2 : 1);
        mi_json_open(&j, "args", '{');
        mi_json_string(&j, "runs_as", s->feature);
        mi_json_string(&j, "plugin", s->file);
        mi_json_int(&j, "step", s->step);
        mi_json_int(&j, "rows", step->shape.n_tokens);
        mi_json_int(&j, "sequences", step->shape.n_seqs);
        mi_json_close(&j, '}');
        mi_json_close(&j, '}');
    }
    mi_json_close(&j, ']');
    mi_json_close(&j, '}');
    g_autoptr(GError) why = NULL;
    const bool        ok = g_file_set_contents(file, j.text->str, (gssize)j.text->len, &why);
    if (!ok)
        g_set_error(error, MI_ERROR, MI_ERROR_IO, "%s", why->message);
    g_string_free(j.text, TRUE);
    return ok;
}

/* ---- the command ---------------------------------------------------------------------------------- */

static bool ask(Trace *t, const int32_t *ids, size_t n, GError **error)
{
    for (int i = 0; i < t->batch; i++) {
        const MiRequest r = { .tokens = ids, .n_tokens = n, .max_tokens = 1 + t->steps, .ignore_eos = true };
        if (!mi_side_ask(&t->side, &r, error))
            return false;
    }
    return true;
}

static bool run(MiSession *s, Trace *t, GError **error)
{
    const char         *said = mi_flag(s->line, "prompt"), *list = mi_flag(s->line, "ids");
    const char         *text = said ? said : "The quick brown fox jumps over the lazy dog, and then";
    g_autofree int32_t *ids = NULL;
    size_t              n;
    MiFlight           *f;

    if (!(list ? mi_cmd_ids(list, &ids, &n, error) : mi_prompt_text(s->engine, text, strlen(text), false, &ids, &n, error)))
        return false;
    mi_engine_stop(g_steal_pointer(&s->engine)); /* its weights stay: the steps are run by hand */
    if (!MI_HAS((const MiBackend *)s->assembly->backend->vtable, event_elapsed)) {
        g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED, "device '%s' does not tell how long its work took",
                    s->assembly->backend->name);
        return false;
    }
    if (!mi_side_open(&t->side, s->assembly, error) || !ask(t, ids, n, error))
        return false;
    while (mi_side_unfinished(&t->side) && !mi_interrupted()) {
        if (!mi_side_step(&t->side, trace_step, t, &f, error))
            return false;
        mi_side_draw(&t->side, f, f->tokens);
    }
    return true;
}

static void trace_clear(Trace *t)
{
    MiContext *ctx = t->side.a ? &t->side.a->ctx.pub : NULL;

    for (guint i = 0; i < t->n_marks; i++)
        ctx->backend->event_free(ctx->device, t->marks[i]);
    if (ctx) {
        ctx->free(ctx, MI_MEM_DEVICE, t->delay);
        ctx->free(ctx, MI_MEM_PINNED, t->delay_from);
    }
    for (guint i = 0; i < t->spans->len; i++) {
        Span *s = t->spans->pdata[i];
        g_free(s->label);
        g_free(s->feature);
        g_free(s->file);
        g_free(s);
    }
    g_free(t->marks);
    g_ptr_array_unref(t->spans);
    g_array_unref(t->traced);
    mi_side_close(&t->side);
}

static bool read_flags(const MiCommandLine *cl, Trace *t, GError **error)
{
    g_autofree int32_t *ids = NULL;
    size_t              n;

    if (mi_flag(cl, "prompt") && mi_flag(cl, "ids")) {
        g_set_error(error, MI_ERROR, MI_ERROR_CONFIG, "one of -p and --ids is enough");
        return false;
    }
    return (!mi_flag(cl, "ids") || mi_cmd_ids(mi_flag(cl, "ids"), &ids, &n, error)) &&
           mi_flag_int(cl, "steps", 0, 1 << 16, 4, &t->steps, error) && mi_flag_int(cl, "batch", 1, 4096, 1, &t->batch, error) &&
           mi_flag_int(cl, "rounds", 1, MAX_ROUNDS, 5, &t->rounds, error);
}

int mi_cmd_trace(MiCommandLine *cl)
{
    Trace      t = { .spans = g_ptr_array_new(), .traced = g_array_new(FALSE, FALSE, sizeof(TracedStep)) };
    const char *file = mi_flag(cl, "output");
    GError     *error = NULL;
    MiSession   s;

    if (!read_flags(cl, &t, &error)) {
        trace_clear(&t);
        return mi_cmd_usage(error);
    }
    g_autofree char *n = g_strdup_printf("%d", t.batch);
    if (t.batch > 1) {
        g_ptr_array_add(cl->settings, g_strdup("engine.max_seqs"));
        g_ptr_array_add(cl->settings, g_strdup(n));
    }
    mi_interrupt_start();
    if (mi_session_open(&s, cl, MI_WITH_ENGINE, &error) && run(&s, &t, &error) && !mi_interrupted() &&
        (!file || write_file(&t, file, &error)))
        print_trace(&t, mi_flag(cl, "json"));
    trace_clear(&t);
    mi_session_close(&s);
    const int status = mi_cmd_report(error);
    return status ? status : mi_interrupted() ? 130 : 0;
}
