/* cmd_trace.c - where the time of a step goes, node by node (node_times.h): once to warm up, then some rounds, of which
 * the median counts for each node. */
#include "cmd.h"
#include "interrupt.h"
#include "json_out.h"
#include "node_times.h"
#include "side.h"
#include "spread.h"

#include <stdio.h>
#include <string.h>

enum { MAX_ROUNDS = 101 };

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
    MiNodeTimes times;
} Trace;

/* ---- measuring ------------------------------------------------------------------------- */

static bool add_span(Trace *t, MiSchedule *s, guint i, double *us, TracedStep *step, GError **error)
{
    Span *span = g_new0(Span, 1);

    g_ptr_array_add(t->spans, span);
    span->label = mi_side_label(s, i);
    span->feature = mi_schedule_feature(&t->side.a->parts, mi_schedule_at(s, i), &span->file);
    span->step = (int)t->traced->len;
    span->us = mi_median(us, t->rounds);
    step->us += span->us;
    return mi_node_times_begin(&t->times, i, &span->begin, error);
}

/* In place of a step's nodes. */
static bool trace_step(void *user, MiSchedule *s, GError **error)
{
    Trace             *t = user;
    const guint        n = s->runs->len, rounds = (guint)t->rounds;
    g_autofree double *us = g_new(double, MAX(n, 1) * (rounds + 1));
    double            *round = us + n * rounds;
    TracedStep         step = { n ? mi_schedule_at(s, 0)->call.shape : (MiShape){ 0 }, 0 };
    int                delays;

    if (!mi_node_times_delays(&t->times, s, &delays, error))
        return false;
    for (guint r = 0; r < rounds; r++) {
        if (!mi_node_times_run(&t->times, s, delays, round, error))
            return false;
        for (guint i = 0; i < n; i++)
            us[i * rounds + r] = round[i];
    }
    for (guint i = 0; i < n; i++)
        if (!add_span(t, s, i, &us[i * rounds], &step, error))
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
    if (!mi_node_times_can(&s->assembly->ctx.pub)) {
        g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED, "device '%s' does not tell how long its work took",
                    s->assembly->backend->name);
        return false;
    }
    t->times = mi_node_times(&s->assembly->ctx.pub);
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
    for (guint i = 0; i < t->spans->len; i++) {
        Span *s = t->spans->pdata[i];
        g_free(s->label);
        g_free(s->feature);
        g_free(s->file);
        g_free(s);
    }
    mi_node_times_clear(&t->times);
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
