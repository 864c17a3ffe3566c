#include "breakdown.h"
#include "node_times.h"
#include "runner.h"

#include <string.h>

enum { RING = 4, CLASSES = MI_MAX_SIZES + 33, EVERY_DECODE = 16, EVERY_PROMPT = 4 };

/* LAYERS: attention and products in one node, which nothing divides. */
typedef enum { GEMM, ATTENTION, LAYERS, SAMPLING, REST, N_PARTS } Part;

/* Steps of one size. */
typedef struct {
    int    steps;        /* in the run that is measured */
    int    asked;        /* in that which has marks */
    int    timed, gaps;  /* of those: steps with us, gaps before steps */
    double us, gap_us;
    int    looked;       /* of those: steps whose nodes were timed */
    double parts[N_PARTS];
    int    delays;       /* for node_times.h; -1: not known */
} Class;

struct MiBreakdown {
    MiAssembly *a;
    MiNodeTimes times;
    MiWatch     first, second;
    bool        same;            /* one run is both */
    Class       classes[CLASSES]; /* decode steps by bucket, then those with prompts by the bits of their rows */
    void       *marks[RING][2];  /* round a step */
    unsigned    begun;
    int         last;            /* the ring's entry of the step before, -1: none that counts */
    double     *us;              /* [n_us] */
    guint       n_us;
};

/* ---- watching ------------------------------------------------------------------------------- */

static Class *class_of(MiBreakdown *b, const MiShape *s)
{
    int i = 0;

    if (!s->decode)
        return &b->classes[MI_MAX_SIZES + (int)g_bit_storage((gulong)s->n_tokens)];
    while (i < b->a->n_sizes - 1 && s->n_tokens > b->a->sizes[i].n_tokens)
        i++;
    return &b->classes[i];
}

static Part part_of(const MiRun *run)
{
    bool linear = false, attention = false, sampling = false, append = false;

    for (int i = 0; i < run->call.n; i++) {
        const char *op = run->call.at[i].node->op;
        linear |= strcmp(op, "linear") == 0;
        attention |= strcmp(op, "attention") == 0;
        append |= strcmp(op, "kv_append") == 0;
        sampling |= g_str_has_prefix(op, "sampler:") || strcmp(op, "logprobs") == 0;
    }
    if (linear)
        return attention ? LAYERS : GEMM;
    return attention || append ? ATTENTION : sampling ? SAMPLING : REST;
}

static bool wants(void *user, const MiFlight *f)
{
    MiBreakdown *b = user;
    Class       *c = class_of(b, &f->shape);

    return c->asked++ % (b->same ? 1 : f->shape.decode ? EVERY_DECODE : EVERY_PROMPT) == 0;
}

static bool look(void *user, MiSchedule *s, GError **error)
{
    MiBreakdown *b = user;
    Class       *c = s->runs->len ? class_of(b, &mi_schedule_at(s, 0)->call.shape) : &b->classes[0];

    if (b->n_us < s->runs->len)
        b->us = g_renew(double, b->us, b->n_us = s->runs->len);
    if (b->same)
        c->delays = 0;
    if ((c->delays < 0 && !mi_node_times_delays(&b->times, s, &c->delays, error)) ||
        !mi_node_times_run(&b->times, s, c->delays, b->us, error))
        return false;
    c->looked++;
    for (guint i = 0; i < s->runs->len; i++)
        c->parts[part_of(mi_schedule_at(s, i))] += b->us[i];
    return true;
}

static bool mark(MiBreakdown *b, int entry, int side, GError **error)
{
    const MiContext *ctx = &b->a->ctx.pub;
    return ctx->backend->event_record(ctx->device, b->marks[entry][side], ctx->stream, error);
}

static bool begin(void *user, MiFlight *f, GError **error)
{
    MiBreakdown *b = user;

    f->watch_mark = (int)(b->begun++ % RING);
    return mark(b, f->watch_mark, 0, error);
}

static bool end(void *user, MiFlight *f, GError **error) { return mark(user, f->watch_mark, 1, error); }

static bool elapsed(const MiBreakdown *b, void *from, void *to, int *n, double *sum, GError **error)
{
    const MiContext *ctx = &b->a->ctx.pub;
    double           us = 0;

    if (!ctx->backend->event_elapsed(ctx->device, from, to, &us, error))
        return false;
    ++*n;
    *sum += us;
    return true;
}

/* What made something for its kind, or was looked into, took longer than such a step does. */
static bool timed(void *user, const MiFlight *f, GError **error)
{
    MiBreakdown *b = user;
    Class       *c = class_of(b, &f->shape);
    void       **at = b->marks[f->watch_mark];
    const bool   counts = b->same || (!f->watched && !f->first);

    if ((counts && !elapsed(b, at[0], at[1], &c->timed, &c->us, error)) ||
        (counts && b->last >= 0 && !elapsed(b, b->marks[b->last][1], at[0], &c->gaps, &c->gap_us, error)))
        return false;
    b->last = counts ? f->watch_mark : -1;
    return true;
}

static bool count(void *user, const MiFlight *f, GError **error)
{
    (void)error;
    class_of(user, &f->shape)->steps++;
    return true;
}

static bool count_and_time(void *user, const MiFlight *f, GError **error)
{
    return count(user, f, error) && timed(user, f, error);
}

const MiWatch *mi_breakdown_first(MiBreakdown *b) { return &b->first; }

const MiWatch *mi_breakdown_second(MiBreakdown *b) { return b->same ? NULL : &b->second; }

/* ---- sums ------------------------------------------------------------------------------------ */

/* Of all steps of one kind, seconds. */
typedef struct {
    int    steps, looked;
    double all, gaps, parts[N_PARTS];
} Sum;

/* The nearest of its kind, which is [from, end), that has steps looked into; NULL: none. */
static const Class *nearest(const MiBreakdown *b, int i, int from, int end)
{
    for (int d = 0; d < end - from; d++)
        for (int side = -1; side <= 1; side += 2) {
            const int at = i + side * d;
            if (at >= from && at < end && b->classes[at].looked)
                return &b->classes[at];
        }
    return NULL;
}

static double parts_us(const Class *c)
{
    double us = 0;
    for (int p = 0; p < N_PARTS; p++)
        us += c->parts[p];
    return us;
}

static Sum sum_of(const MiBreakdown *b, bool decode)
{
    const int from = decode ? 0 : MI_MAX_SIZES, end = decode ? MI_MAX_SIZES : CLASSES;
    Sum       s = { 0 };

    for (int i = from; i < end; i++) {
        const Class *c = &b->classes[i], *like = nearest(b, i, from, end);
        const double one = c->timed ? c->us / c->timed : like ? parts_us(like) / like->looked : 0, all = 1e-6 * one * c->steps;
        s.steps += c->steps;
        s.looked += c->looked;
        s.all += all;
        s.gaps += c->gaps ? 1e-6 * c->gap_us / c->gaps * c->steps : 0;
        for (int p = 0; like && p < N_PARTS; p++)
            s.parts[p] += all * like->parts[p] / MAX(parts_us(like), 1e-9);
    }
    return s;
}

/* ---- printing ----------------------------------------------------------------------------------- */

static void print_kind(FILE *out, const char *what, const Sum *s, double seconds)
{
    fprintf(out, "  %-26s %7d %9.3f %6.1f %%", what, s->steps, s->all, 100 * s->all / seconds);
    for (int p = 0; p < N_PARTS; p++)
        fprintf(out, "  %8.1f %%", 100 * s->parts[p] / seconds);
    fputc('\n', out);
}

void mi_breakdown_print(const MiBreakdown *b, FILE *out, double seconds)
{
    const Sum    decode = sum_of(b, true), prompts = sum_of(b, false);
    const double host = decode.gaps + prompts.gaps, rest = seconds - decode.all - prompts.all - host;

    if (seconds <= 0)
        return;
    fprintf(out, "\nwhere the time went, by the nodes of %d steps%s\n", decode.looked + prompts.looked,
            b->same ? "" : " of a second run");
    fprintf(out, "  %-26s %7s %9s %8s  %10s  %10s  %10s  %10s  %10s\n", "", "steps", "s", "", "GEMM", "attention", "both in one",
            "sampling", "the rest");
    print_kind(out, "steps that only decode", &decode, seconds);
    print_kind(out, "steps with prompts", &prompts, seconds);
    fprintf(out, "  %-26s %7s %9.3f %6.1f %%\n", "the device waits for it", "", host, 100 * host / seconds);
    fprintf(out, "  %-26s %7s %9.3f %6.1f %%\n", "what that leaves", "", rest, 100 * rest / seconds);
}

static void json_kind(MiJson *j, const char *key, const Sum *s)
{
    static const char *const names[] = { "gemm_s", "attention_s", "layers_s", "sampling_s", "rest_s" };

    mi_json_open(j, key, '{');
    mi_json_int(j, "steps", s->steps);
    mi_json_int(j, "looked_into", s->looked);
    mi_json_float(j, "s", s->all);
    for (int p = 0; p < N_PARTS; p++)
        mi_json_float(j, names[p], s->parts[p]);
    mi_json_close(j, '}');
}

void mi_breakdown_json(const MiBreakdown *b, MiJson *j, const char *key, double seconds)
{
    const Sum    decode = sum_of(b, true), prompts = sum_of(b, false);
    const double host = decode.gaps + prompts.gaps;

    mi_json_open(j, key, '{');
    json_kind(j, "decode", &decode);
    json_kind(j, "prompts", &prompts);
    mi_json_float(j, "host_exposed_s", host);
    mi_json_float(j, "not_accounted_s", seconds - decode.all - prompts.all - host);
    mi_json_close(j, '}');
}

/* ---- start and end --------------------------------------------------------------------------------- */

void mi_breakdown_free(MiBreakdown *b)
{
    if (!b)
        return;
    const MiContext *ctx = &b->a->ctx.pub;
    for (int i = 0; i < RING; i++)
        for (int k = 0; k < 2; k++)
            if (b->marks[i][k])
                ctx->backend->event_free(ctx->device, b->marks[i][k]);
    mi_node_times_clear(&b->times);
    g_free(b->us);
    g_free(b);
}

MiBreakdown *mi_breakdown_new(MiAssembly *a, GError **error)
{
    if (!mi_node_times_can(&a->ctx.pub))
        return NULL;
    MiBreakdown *b = g_new0(MiBreakdown, 1);
    b->a = a;
    b->times = mi_node_times(&a->ctx.pub);
    b->same = a->ctx.pub.backend->unified;
    b->last = -1;
    b->second = (MiWatch){ look, wants, begin, end, timed, b };
    b->first = b->same ? (MiWatch){ look, wants, begin, end, count_and_time, b } : (MiWatch){ .done = count, .user = b };
    for (int i = 0; i < CLASSES; i++)
        b->classes[i].delays = -1;
    for (int i = 0; i < RING; i++)
        for (int k = 0; k < 2; k++)
            if (!mi_timer_new(&a->ctx.pub, &b->marks[i][k], error)) {
                mi_breakdown_free(b);
                return NULL;
            }
    return b;
}
