#include "scheduler_sim.h"
#include "options.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct {
    MiSequence s; /* first; s.owner is this */
    Fate      *fate;
    int32_t    held, total;
    double     last; /* token, seconds; 0: none yet */
} Seq;

typedef struct {
    const Sim *sim;
    Seq       *seqs; /* [n_asks] */
    GPtrArray *running; /* Seq *, those with a place */
    int32_t    used; /* pages */
    uint64_t   luck;
} World;

static double now_s;

static int64_t now_us(void) { return (int64_t)(1e6 * now_s); }
static Seq    *of(const MiSequence *s) { return s->owner; }

/* ---- the cache -------------------------------------------------------------------- */

static bool reserve(void *self, const MiSequence *s, int n_tokens)
{
    World        *w = self;
    const int32_t more = (n_tokens + w->sim->page - 1) / w->sim->page - of(s)->held;

    if (more > w->sim->n_pages - w->used)
        return false;
    if (more > 0) {
        of(s)->held += more;
        w->used += more;
    }
    return true;
}

static void release(void *self, const MiSequence *s)
{
    ((World *)self)->used -= of(s)->held;
    of(s)->held = 0;
}

static int64_t room(void *self)
{
    const World *w = self;
    return (int64_t)(w->sim->n_pages - w->used) * w->sim->page;
}

/* ---- a step ------------------------------------------------------------------------- */

static double draw(uint64_t *state) /* splitmix64; in (0, 1) */
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return ((double)((z ^ z >> 31) >> 11) + 0.5) / 9007199254740992.0;
}

static double normal(uint64_t *state) { return sqrt(-2 * log(draw(state))) * cos(2 * G_PI * draw(state)); }

static double takes(World *w, const MiStep *step, int64_t *n_rows)
{
    const Cost *c = &w->sim->cost;
    double      us = c->base;

    for (int i = 0; i < step->shape.n_seqs; i++) {
        const double n = step->count[i], from = step->seqs[i]->n_cached;
        us += (n > 1 ? n * c->row : c->answer) + c->read * n * (from + n / 2);
        *n_rows += n > 1 ? step->count[i] : 0;
    }
    return us * exp(c->luck * normal(&w->luck));
}

static void run(World *w, const MiStep *step)
{
    for (int i = 0; i < step->shape.n_seqs; i++) {
        Seq *q = of(step->seqs[i]);
        q->s.n_cached += step->count[i];
        if (q->s.n_cached < q->s.n_tokens)
            continue;
        q->s.n_tokens++;
        if (q->last <= 0)
            q->fate->first = now_s;
        else if (w->sim->gaps && q->total - q->s.n_prompt >= w->sim->gaps_from) {
            const double gap = now_s - q->last;
            g_array_append_val(w->sim->gaps, gap);
        }
        q->last = now_s;
    }
}

/* Who got a place, who lost one. */
static int64_t account(World *w, const MiStep *step)
{
    int64_t lost = 0;

    for (guint i = w->running->len; i-- > 0;) {
        Seq *q = w->running->pdata[i];
        if (q->s.slot >= 0)
            continue;
        q->fate->placed = -1;
        q->fate->waited -= now_s; /* from here on */
        lost++;
        g_ptr_array_remove_index_fast(w->running, i);
    }
    for (int i = 0; i < step->shape.n_seqs; i++) {
        Seq *q = of(step->seqs[i]);
        if (q->fate->placed >= 0)
            continue;
        q->fate->placed = now_s;
        q->fate->waited += now_s;
        g_ptr_array_add(w->running, q);
    }
    return lost;
}

static int end_finished(World *w, const MiScheduler *vt, void *scheduler, const MiStep *step)
{
    int n = 0;

    for (int i = 0; i < step->shape.n_seqs; i++) {
        Seq *q = of(step->seqs[i]);
        if (q->s.n_tokens < q->total)
            continue;
        q->s.ended = true;
        q->fate->done = now_s;
        vt->remove(scheduler, &q->s);
        g_ptr_array_remove_fast(w->running, q);
        n++;
    }
    return n;
}

static void arrive(World *w, const MiScheduler *vt, void *scheduler, int i)
{
    const Ask *a = &w->sim->asks[i];
    Seq       *q = &w->seqs[i];

    q->s = (MiSequence){ .id = (uint64_t)i + 1, .slot = -1, .n_prompt = a->prompt, .n_tokens = a->prompt,
                         .max_tokens = MAX(w->sim->max_answer, a->answer), .priority = a->priority, .client = a->client,
                         .arrived = (int64_t)(1e6 * a->arrival * w->sim->slower), .owner = q };
    q->total = a->prompt + a->answer;
    q->fate->placed = -1;
    q->fate->waited = -a->arrival * w->sim->slower;
    vt->add(scheduler, &q->s);
}

/* Of this thread, so that others' work on the machine does not count. */
static int64_t cpu_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void play(World *w, const MiScheduler *vt, void *scheduler, SimResult *out)
{
    const Sim                *s = w->sim;
    g_autofree MiSequence   **seqs = g_new(MiSequence *, s->max_seqs);
    g_autofree int32_t       *count = g_new(int32_t, s->max_seqs);
    MiStep                    step = { .seqs = seqs, .count = count };
    int                       come = 0, gone = 0;

    for (now_s = 0; gone < s->n_asks && (s->stop <= 0 || now_s < s->stop);) {
        while (come < s->n_asks && s->asks[come].arrival * s->slower <= now_s)
            arrive(w, vt, scheduler, come++);
        const int64_t from = cpu_ns();
        const bool    more = vt->next(scheduler, &step);
        out->host_ns += cpu_ns() - from;
        if (!more) {
            if (come == s->n_asks) /* it waits for a place that there will never be */
                break;
            now_s = s->asks[come].arrival * s->slower;
            continue;
        }
        out->n_preempted += account(w, &step);
        const double us = takes(w, &step, &out->n_rows);
        now_s += us / 1e6;
        out->n_steps++;
        run(w, &step);
        if (MI_HAS(vt, took))
            vt->took(scheduler, &step, (int64_t)us);
        gone += end_finished(w, vt, scheduler, &step);
    }
    out->seconds = now_s;
    for (int i = 0; i < come; i++)
        vt->remove(scheduler, &w->seqs[i].s); /* those that were stopped; else unknown by now */
}

bool sim_run(const Sim *s, SimResult *out, GError **error)
{
    const MiScheduler *vt = s->policy->vtable;
    World              w = { .sim = s, .seqs = g_new0(Seq, s->n_asks), .running = g_ptr_array_new(), .luck = 7 };
    const MiCache      cache = { .struct_size = sizeof cache, .reserve = reserve, .release = release, .room = room };
    const MiLimits     limits = { .max_seqs = s->max_seqs, .max_tokens = s->max_tokens, .prefill_step = s->prefill_step,
                                  .cache = &cache, .kv = &w, .clock = now_us };
    g_autofree void   *options = g_malloc0(mi_options_size(s->policy->options));
    void              *scheduler = NULL;
    bool               ok = mi_options_defaults(s->policy->options, options, error);

    for (const char *const *o = s->options; ok && o && *o; o += 2)
        ok = mi_options_set(s->policy->options, options, o[0], o[1], error);
    now_s = 0;
    out->seconds = 0;
    out->n_steps = out->n_preempted = out->host_ns = out->n_rows = 0;
    memset(out->fates, 0, (size_t)s->n_asks * sizeof *out->fates);
    for (int i = 0; i < s->n_asks; i++)
        w.seqs[i].fate = &out->fates[i];
    if (ok && (scheduler = vt->create(&limits, options, error))) {
        play(&w, vt, scheduler, out);
        vt->destroy(scheduler);
    }
    g_free(w.seqs);
    g_ptr_array_unref(w.running);
    return scheduler != NULL;
}

/* ---- traces ------------------------------------------------------------------------------ */

static bool read_ask(const char *line, Ask *out)
{
    g_auto(GStrv) f = g_strsplit(line, ",", 0);
    char         *end;

    if (g_strv_length(f) != 5)
        return false;
    *out = (Ask){ .arrival = g_ascii_strtod(f[0], &end), .prompt = atoi(f[1]), .answer = atoi(f[2]), .priority = atoi(f[3]) };
    g_strlcpy(out->client, f[4], sizeof out->client);
    return end != f[0] && out->arrival >= 0 && out->prompt > 0 && out->answer > 0;
}

GArray *asks_read(const char *path, GError **error)
{
    g_autofree char *text = NULL;
    GArray          *list = g_array_new(FALSE, FALSE, sizeof(Ask));
    Ask              ask;

    if (!g_file_get_contents(path, &text, NULL, error))
        return g_array_unref(list), NULL;
    g_auto(GStrv) lines = g_strsplit(text, "\n", 0);
    for (int i = 0; lines[i]; i++) {
        if (!*lines[i] || *lines[i] == '#')
            continue;
        if (!read_ask(lines[i], &ask) || (list->len && ask.arrival < g_array_index(list, Ask, list->len - 1).arrival)) {
            g_set_error(error, MI_ERROR, MI_ERROR_CONFIG, "%s:%d: wanted arrival,prompt,answer,priority,client, by arrival",
                        path, i + 1);
            return g_array_unref(list), NULL;
        }
        g_array_append_val(list, ask);
    }
    return list;
}

/* Of each kind: its share, medians of prompt and answer, and the sigma of both logarithms. */
static const struct { double share, prompt, answer, sigma; } kinds[] = {
    { 0.6, 100, 150, 0.8 },  /* chats */
    { 0.25, 1500, 60, 0.5 }, /* summaries */
    { 0.15, 300, 500, 0.6 }, /* programs */
};

static int32_t length(uint64_t *state, double median, double sigma, int32_t most)
{
    return CLAMP((int32_t)(median * exp(sigma * normal(state))), 1, most);
}

GArray *asks_draw(uint64_t seed, int n)
{
    static const char *const clients[] = { "ann", "bob", "eve", "bulk" };
    GArray  *list = g_array_new(FALSE, FALSE, sizeof(Ask));
    uint64_t state = seed;
    double   at = 0;

    for (int i = 0; i < n; i++) {
        double kind = draw(&state);
        size_t k = 0;
        while (k + 1 < G_N_ELEMENTS(kinds) && kind > kinds[k].share)
            kind -= kinds[k++].share;
        at -= log(draw(&state));
        const double who = draw(&state), urgent = draw(&state);
        Ask ask = { .arrival = floor(1e3 * at) / 1e3, .priority = urgent < 0.1 ? 2 : urgent < 0.4 ? 1 : 0 };
        ask.prompt = length(&state, kinds[k].prompt, kinds[k].sigma, 4096);
        ask.answer = length(&state, kinds[k].answer, kinds[k].sigma, 2048);
        g_strlcpy(ask.client, clients[who < 0.1 ? 0 : who < 0.2 ? 1 : who < 0.35 ? 2 : 3], sizeof ask.client);
        g_array_append_val(list, ask);
    }
    return list;
}
