/* verify.c - the loop over a step's runs: the reference goes ahead as far as the next run of the
 * tested side needs, then that runs from the reference's values and is compared. */
#include "verify_step.h"
#include "numbers.h"

#include <math.h>
#include <string.h>

void mi_verify_init(MiVerify *v, MiSide *tested, MiSide *reference, const char *pattern)
{
    *v = (MiVerify){ .tested = tested, .reference = reference, .pattern = pattern, .lines = g_ptr_array_new(),
                     .by_key = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL) };
}

void mi_verify_clear(MiVerify *v)
{
    for (guint i = 0; i < v->lines->len; i++) {
        MiVerified *l = v->lines->pdata[i];
        g_free(l->label);
        g_free(l->feature);
        g_free(l->file);
        g_free(l->where);
        g_free(l);
    }
    g_ptr_array_unref(v->lines);
    g_hash_table_unref(v->by_key);
    g_free(v->tokens);
}

/* ---- values ----------------------------------------------------------------------------- */

static const MiRecording *program(const Step *s) { return s->tested.schedule->program; }
static int32_t root(const MiRecording *r, MiVal v) { return mi_recording_value(r, v)->base.id; }

float mi_verify_rounded(const MiVerify *v, int32_t id, float x)
{
    const Step *s = v->step;

    x = mi_number_as(mi_recording_value(program(s), (MiVal){ id })->type.dtype, x);
    return s->cached[id] ? mi_number_as(v->reference->a->kv_dtype, mi_number_as(v->tested->a->kv_dtype, x)) : x;
}

/* For the tested side, whose cache rounds itself what shares a scale: twice would not be the same. */
static float *fed(const MiVerify *v, int32_t id, int64_t n)
{
    const float *want = v->step->want[id];
    float       *x = g_new(float, n);

    for (int64_t i = 0; i < n; i++)
        x[i] = mi_verify_rounded(v, id, want[i]);
    return x;
}

float *mi_verify_given(const MiVerify *v, int32_t id, int64_t n)
{
    float *x = fed(v, id, n);

    mi_verify_as_cached(v, id, x);
    return x;
}

/* The reference's value of a node's output is kept, and goes on rounded. */
static bool keep(MiVerify *v, MiVal out, GError **error)
{
    Step         *s = v->step;
    const int64_t n = mi_side_elements(s->reference, out, s->shape);

    if (n <= 0)
        return true;
    s->want[out.id] = g_new(float, n);
    if (!mi_side_read(v->reference, s->reference, out, s->want[out.id], n, error))
        return false;
    g_autofree float *x = mi_verify_given(v, out.id, n);
    return memcmp(x, s->want[out.id], (size_t)n * sizeof *x) == 0 ||
           mi_side_write(v->reference, s->reference, out, x, n, error);
}

/* The reference has run all nodes of the tested side's run. */
static bool catch_up(MiVerify *v, const MiRun *run, GError **error)
{
    Step *s = v->step;

    for (int i = 0; i < run->call.n; i++) {
        guint node;
        if (!g_ptr_array_find(program(s)->nodes, run->call.at[i].node, &node))
            continue;
        while (!s->done[node] && s->next < s->reference->schedule->runs->len) {
            const MiRun *r = mi_schedule_at(s->reference->schedule, s->next);
            if (!mi_side_run(v->reference, s->reference, s->next++, error))
                return false;
            for (int k = 0; k < r->call.n; k++) {
                guint at;
                for (int o = 0; o < r->call.at[k].node->n_out; o++)
                    if (!keep(v, r->call.at[k].node->out[o], error))
                        return false;
                if (g_ptr_array_find(s->reference->schedule->program->nodes, r->call.at[k].node, &at))
                    s->done[at] = true;
            }
        }
    }
    return true;
}

/* ---- one run -------------------------------------------------------------------------------- */

bool mi_verify_made_by(const MiRun *run, int32_t id)
{
    for (int i = 0; i < run->call.n; i++)
        for (int k = 0; k < run->call.at[i].node->n_out; k++)
            if (run->call.at[i].node->out[k].id == id)
                return true;
    return false;
}

/* The reference's values into what `run` reads, but for what `maker`'s nodes give themselves. */
static bool feed(MiVerify *v, const MiPlaced *p, const MiRun *run, const MiRun *maker, GError **error)
{
    for (int i = 0; i < run->call.n; i++)
        for (int k = 0; k < run->call.at[i].node->n_in; k++) {
            const MiVal   in = { root(p->schedule->program, run->call.at[i].node->in[k]) };
            const int64_t n = mi_side_elements(p, in, v->step->shape);
            if (n <= 0 || mi_verify_made_by(maker, in.id) || !v->step->want[in.id])
                continue;
            g_autofree float *x = fed(v, in.id, n);
            if (!mi_side_write(v->tested, p, in, x, n, error))
                return false;
        }
    return true;
}

/* got against want, [n] of output `out` of one of the run's nodes. */
static void compare_values(const MiVerify *v, const MiRun *run, MiVal out, const float *got, const float *want, int64_t n,
                           MiDifference *d)
{
    const MiRecording *r = program(v->step);
    const MiValue     *value = mi_recording_value(r, out);

    for (int i = 0; i < run->call.n; i++) {
        const MiNode *node = run->call.at[i].node;
        const float  *logits = node->n_in ? v->step->want[root(r, node->in[0])] : NULL;
        if (node->out[0].id == out.id && strcmp(node->op, "sampler:greedy") == 0 && logits) {
            mi_compare_tokens(got, want, logits, n, mi_recording_value(r, node->in[0])->row, d);
            return;
        }
    }
    mi_compare(got, want, n / value->row, value->row, value->type.dtype == MI_I32, d);
}

static bool compare_with(MiVerify *v, const MiPlaced *p, const MiRun *run, MiVal out, MiDifference *d, GError **error)
{
    const int64_t     n = mi_side_elements(p, out, v->step->shape);
    const float      *want = v->step->want[out.id];
    g_autofree float *got = NULL;

    if (n <= 0 || !want || !mi_schedule_tensor(p->schedule, p->arena, out).data)
        return true;
    got = g_new(float, n);
    if (!mi_side_read(v->tested, p, out, got, n, error))
        return false;
    compare_values(v, run, out, got, want, n, d);
    return true;
}

/* ---- a fusion against its nodes -------------------------------------------------------------------- */

bool mi_verify_shares_node(const MiRun *a, const MiRun *b)
{
    for (int i = 0; i < a->call.n; i++)
        for (int k = 0; k < b->call.n; k++)
            if (a->call.at[i].node == b->call.at[k].node)
                return true;
    return false;
}

/* What the fusion gave is in fused [outputs of all nodes, in order], NULL where it keeps a value inside. */
static bool compare_nodes(MiVerify *v, const MiRun *run, float *const *fused, MiDifference *d, GError **error)
{
    const MiPlaced *plain = mi_side_plain(v->tested, v->step->tested.schedule, error);

    if (!plain)
        return false;
    mi_schedule_shape(plain->schedule, v->step->shape);
    for (guint i = 0; i < plain->schedule->runs->len; i++) {
        const MiRun *r = mi_schedule_at(plain->schedule, i);
        int          at = 0;
        if (!mi_verify_shares_node(r, run))
            continue;
        if (!feed(v, plain, r, run, error) || !mi_side_run(v->tested, plain, i, error))
            return false;
        /* An output may not outlive the next run's. */
        for (int k = 0; k < run->call.n; k++)
            for (int o = 0; o < run->call.at[k].node->n_out; o++, at++)
                if (fused[at] && mi_verify_made_by(r, run->call.at[k].node->out[o].id)) {
                    const MiVal       out = run->call.at[k].node->out[o];
                    const int64_t     n = mi_side_elements(plain, out, v->step->shape);
                    g_autofree float *nodes = g_new(float, n);
                    if (!mi_side_read(v->tested, plain, out, nodes, n, error))
                        return false;
                    compare_values(v, run, out, fused[at], nodes, n, d);
                }
    }
    return true;
}

static bool replaced(MiVerify *v, const MiRun *run, MiDifference *d, GError **error)
{
    const MiPlaced *p = &v->step->tested;
    float          *fused[MI_MAX_OUT * 16] = { NULL };
    int             at = 0;
    bool            ok = true;

    for (int k = 0; k < run->call.n; k++)
        for (int o = 0; o < run->call.at[k].node->n_out; o++, at++) {
            const MiVal   out = run->call.at[k].node->out[o];
            const int64_t n = mi_side_elements(p, out, v->step->shape);
            if (n <= 0 || !ok || !mi_schedule_tensor(p->schedule, p->arena, out).data)
                continue;
            fused[at] = g_new(float, n);
            ok = mi_side_read(v->tested, p, out, fused[at], n, error);
        }
    ok = ok && compare_nodes(v, run, fused, d, error);
    for (int i = 0; i < at; i++)
        g_free(fused[i]);
    return ok;
}

/* ---- lines --------------------------------------------------------------------------------------------- */

static bool same_code(const MiVerify *v, const MiRun *run)
{
    const MiSchedule *s = v->step->reference->schedule;

    for (guint i = 0; i < s->runs->len; i++) {
        const MiRun *r = mi_schedule_at(s, i);
        guint        mine, its;
        if (g_ptr_array_find(program(v->step)->nodes, run->call.at[0].node, &mine) &&
            g_ptr_array_find(s->program->nodes, r->call.at[0].node, &its) && mine == its)
            return r->op == run->op;
    }
    return false;
}

static bool wanted(const MiVerify *v, const char *label, const char *feature, const char *file)
{
    if (!v->pattern)
        return true;
    if (strpbrk(v->pattern, "*?"))
        return g_pattern_match_simple(v->pattern, label) || g_pattern_match_simple(v->pattern, feature) ||
               (file && g_pattern_match_simple(v->pattern, file));
    return strstr(label, v->pattern) || strstr(feature, v->pattern) || (file && strstr(file, v->pattern));
}

/* The line of a run; NULL: not of those that are asked for. */
static MiVerified *line_of(MiVerify *v, guint i)
{
    const MiRun     *run = mi_schedule_at(v->step->tested.schedule, i);
    guint            first = 0;
    char            *file;
    g_autofree char *label = mi_side_label(v->step->tested.schedule, i);
    g_autofree char *feature = mi_schedule_feature(&v->tested->a->parts, run, &file);
    g_autofree char *its_file = file;

    if (!wanted(v, label, feature, file))
        return NULL;
    (void)g_ptr_array_find(program(v->step)->nodes, run->call.at[0].node, &first);
    g_autofree char *key = g_strdup_printf("%u %d %s", first, run->call.n, feature);
    MiVerified      *l = g_hash_table_lookup(v->by_key, key);
    if (l)
        return l;
    l = g_new(MiVerified, 1);
    *l = (MiVerified){ .label = g_steal_pointer(&label), .feature = g_steal_pointer(&feature),
                       .file = g_steal_pointer(&its_file), .first = (int)first, .n_nodes = run->call.n, .fused = run->fused,
                       .same = !run->fused && same_code(v, run), .cache_worst = -1, .nodes_worst = -1 };
    g_ptr_array_add(v->lines, l);
    g_hash_table_insert(v->by_key, g_steal_pointer(&key), l);
    return l;
}

static void note(MiVerified *l, const MiVerify *v, double worst)
{
    const MiShape *s = &v->step->shape;

    if (l->where && !(worst > l->worst))
        return;
    l->worst = MAX(worst, l->worst);
    g_free(l->where);
    l->where = g_strdup_printf("%d row%s of %d sequence%s", s->n_tokens, s->n_tokens == 1 ? "" : "s", s->n_seqs,
                               s->n_seqs == 1 ? "" : "s");
}

static bool writes_cache(const MiRun *run)
{
    for (int k = 0; k < run->call.n; k++)
        if (strcmp(run->call.at[k].node->op, "kv_append") == 0)
            return true;
    return false;
}

static bool check_run(MiVerify *v, guint i, GError **error)
{
    const MiPlaced *p = &v->step->tested;
    const MiRun    *run = mi_schedule_at(p->schedule, i);
    MiVerified     *l = line_of(v, i);
    MiDifference    values = { 0 }, cache = { 0 }, nodes = { 0 };
    MiAllowed       allowed;

    /* What others will read from the cache is written whether somebody looks at it or not. */
    if (!l && !writes_cache(run))
        return true;
    if (!feed(v, p, run, run, error) || !mi_side_run(v->tested, p, i, error))
        return false;
    if (!l)
        return mi_verify_cache(v, run, NULL, error);
    for (int k = 0; k < run->call.n; k++) {
        const MiArgs *a = &run->call.at[k];
        for (int o = 0; o < a->node->n_out; o++)
            if (!compare_with(v, p, run, a->node->out[o], &values, error))
                return false;
    }
    if (!mi_verify_cache(v, run, &cache, error) || (run->fused && !replaced(v, run, &nodes, error)) ||
        !mi_verify_cache(v, run, NULL, error) || !mi_verify_allowed(v, run, &allowed, error))
        return false;
    l->steps++;
    l->tolerance = MAX(l->tolerance, allowed.tolerance + 4 * allowed.disturbed.l2);
    l->l2 = MAX(l->l2, values.l2);
    l->max_abs = isnan(values.max_abs) ? INFINITY : MAX(l->max_abs, values.max_abs);
    l->values_worst = MAX(l->values_worst, mi_compare_worst(&values, &allowed));
    note(l, v, l->values_worst);
    if (writes_cache(run)) {
        allowed.tolerance = MAX(allowed.tolerance, mi_tolerated(v->tested->a->kv_dtype));
        l->cache_worst = MAX(l->cache_worst, mi_compare_worst(&cache, &allowed));
        note(l, v, l->cache_worst);
    }
    if (run->fused) {
        l->nodes_worst = MAX(l->nodes_worst, mi_compare_worst(&nodes, &allowed));
        note(l, v, l->nodes_worst);
    }
    return true;
}

/* ---- a step ------------------------------------------------------------------------------------------------ */

static bool same_programs(const MiRecording *a, const MiRecording *b, GError **error)
{
    bool same = a->nodes->len == b->nodes->len && a->values->len == b->values->len;

    for (int i = 0; i < (int)a->nodes->len && same; i++)
        same = strcmp(mi_recording_node(a, i)->op, mi_recording_node(b, i)->op) == 0;
    if (!same)
        g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED, "the two sides recorded different programs, of %u and %u nodes",
                    a->nodes->len, b->nodes->len);
    return same;
}

static bool look_ahead(MiVerify *v, GError **error)
{
    Step              *s = v->step;
    const MiRecording *r = program(s);
    GHashTableIter     it;
    gpointer           id;

    for (guint i = 0; i < s->tested.schedule->runs->len; i++) {
        const MiCall *c = &mi_schedule_at(s->tested.schedule, i)->call;
        for (int k = 0; k < c->n; k++) {
            const MiNode *n = c->at[k].node;
            for (int j = 0; j < n->n_in; j++)
                s->last[root(r, n->in[j])] = (int)i;
            for (int j = 0; j < n->n_out; j++)
                s->last[n->out[j].id] = MAX(s->last[n->out[j].id], (int)i);
            for (int j = 0; j < n->n_in && strcmp(n->op, "kv_append") == 0; j++)
                s->cached[root(r, n->in[j])] = true;
        }
    }
    g_hash_table_iter_init(&it, r->outputs);
    while (g_hash_table_iter_next(&it, NULL, &id))
        s->last[root(r, (MiVal){ GPOINTER_TO_INT(id) })] = (int)s->tested.schedule->runs->len;
    return mi_verify_find_scaled(v, error);
}

static void forget(Step *s, const MiRun *run, int i)
{
    for (int k = 0; k < run->call.n; k++) {
        const MiNode *n = run->call.at[k].node;
        for (int j = 0; j < n->n_in; j++)
            if (s->last[root(program(s), n->in[j])] == i)
                g_clear_pointer(&s->want[root(program(s), n->in[j])], g_free);
        for (int j = 0; j < n->n_out; j++)
            if (s->last[n->out[j].id] == i)
                g_clear_pointer(&s->want[n->out[j].id], g_free);
    }
}

static bool all_runs(MiVerify *v, GError **error)
{
    Step *s = v->step;

    for (guint i = 0; i < s->tested.schedule->runs->len; i++) {
        const MiRun *run = mi_schedule_at(s->tested.schedule, i);
        if (!catch_up(v, run, error) || !check_run(v, i, error))
            return false;
        forget(s, run, (int)i);
    }
    const MiVal  tokens = mi_recording_output(program(s), "tokens");
    const float *drawn = s->want[tokens.id];
    v->tokens = g_renew(int32_t, v->tokens, MAX(s->shape.n_out, 1));
    for (int i = 0; i < s->shape.n_out && drawn; i++)
        v->tokens[i] = (int32_t)drawn[i];
    return true;
}

/* In place of the tested side's nodes. */
static bool both(void *user, MiSchedule *tested, GError **error)
{
    MiVerify   *v = user;
    const guint n = tested->program->values->len;
    Step        s = { .shape = tested->runs->len ? mi_schedule_at(tested, 0)->call.shape : (MiShape){ 0 },
                      .tested = { tested, mi_runner_arena(v->tested->runner), false },
                      .reference = mi_side_plain(v->reference, v->reference_schedule, error) };

    if (!s.reference || !same_programs(tested->program, s.reference->schedule->program, error))
        return false;
    mi_schedule_shape(s.reference->schedule, s.shape);
    s.want = g_new0(float *, n);
    s.cached = g_new0(bool, n);
    s.last = g_new(int, n);
    for (guint i = 0; i < n; i++)
        s.last[i] = -1;
    s.done = g_new0(bool, tested->program->nodes->len);
    s.scaled = g_array_new(FALSE, TRUE, sizeof(MiScaledRows));
    v->step = &s;
    const bool ok = look_ahead(v, error) && all_runs(v, error);
    v->step = NULL;
    for (guint i = 0; i < n; i++)
        g_free(s.want[i]);
    g_free(s.want);
    g_free(s.cached);
    g_free(s.last);
    g_free(s.done);
    for (guint i = 0; i < s.scaled->len; i++)
        g_free(g_array_index(s.scaled, MiScaledRows, i).shift);
    g_array_unref(s.scaled);
    return ok;
}

/* The reference's nodes run between the tested side's. */
static bool remember(void *user, MiSchedule *s, GError **error)
{
    (void)error;
    ((MiVerify *)user)->reference_schedule = s;
    return true;
}

bool mi_verify_step(MiVerify *v, GError **error)
{
    MiFlight *reference, *tested;

    if (!mi_side_step(v->reference, remember, v, &reference, error) || !mi_side_step(v->tested, both, v, &tested, error))
        return false;
    mi_side_draw(v->reference, reference, v->tokens);
    mi_side_draw(v->tested, tested, v->tokens);
    return true;
}
