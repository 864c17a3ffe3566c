/* cmd_verify.c - is what runs right?  Every node against a reference on the user's own model and
 * text, and the tokens of both. */
#include "answer.h"
#include "cmd.h"
#include "interrupt.h"
#include "suggest.h"
#include "verify.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SHOWN = 12 };

typedef struct {
    int32_t *ids; /* [n_ids] */
    size_t   n_ids;
    int      tokens, steps, batch;
    /* what came out */
    int      agreed, compared;         /* tokens from the first on that are equal; how many there are */
    double   gap, gap_tolerated;       /* at the first that is not: how much likelier the reference found its own */
    bool     close;                    /* a near tie */
} Whole;

/* ---- the reference's configuration ----------------------------------------------------- */

static void set(MiCommandLine *cl, const char *key, const char *value)
{
    g_ptr_array_add(cl->settings, g_strdup(key));
    g_ptr_array_add(cl->settings, g_strdup(value));
}

static bool unknown(const char *against, GError **error)
{
    static const char *const words[] = { "fp32", "cpu", "cuda", "linear:", "attention:", "cache:" };
    g_autoptr(GPtrArray)     names = g_ptr_array_new();
    g_autoptr(GString)       m = g_string_new(NULL);

    for (size_t i = 0; i < G_N_ELEMENTS(words); i++)
        g_ptr_array_add(names, (char *)(uintptr_t)words[i]);
    g_string_printf(m, "--against is '%s'; fp32, a device (cpu), linear:NAME, attention:NAME and cache:NAME are possible", against);
    g_autofree char *kind = g_strndup(against, strcspn(against, ":") + (strchr(against, ':') != NULL));
    mi_suggest_append(m, kind, names);
    g_set_error_literal(error, MI_ERROR, MI_ERROR_CONFIG, m->str);
    return false;
}

/* A copy of the command line that says what the reference is. */
static bool reference_line(const MiCommandLine *cl, MiCommandLine *out, GError **error)
{
    static const char *const kinds[] = { "linear", "attention", "cache", NULL };
    const char   *against = mi_flag(cl, "against") ? mi_flag(cl, "against") : "fp32";
    g_auto(GStrv) part = g_strsplit(against, ":", 2);

    *out = *cl;
    out->settings = g_ptr_array_new_with_free_func(g_free);
    for (guint i = 0; i < cl->settings->len; i++)
        g_ptr_array_add(out->settings, g_strdup(cl->settings->pdata[i]));
    if (part[0] && part[1] && *part[1] && g_strv_contains(kinds, part[0])) {
        g_autofree char *key = g_strconcat("engine.", part[0], NULL);
        set(out, key, part[1]);
        return true;
    }
    if (!*against || (part[1] && !g_ascii_isdigit(*part[1])))
        return unknown(against, error);
    set(out, "engine.dtype", "fp32");
    set(out, "engine.kv_dtype", "auto");
    set(out, "engine.linear", "auto");
    set(out, "engine.head", "auto");
    set(out, "engine.attention", "auto");
    if (strcmp(against, "fp32") != 0) {
        set(out, "engine.device", against);
        set(out, "engine.cache", "auto");
    }
    return true;
}

/* ---- whole answers ------------------------------------------------------------------------- */

static bool has_param(const MiAssembly *a, const char *key)
{
    for (int i = 0; i < a->n_links; i++)
        for (const MiOption *o = a->links[i].sampler->params; o && o->key; o++)
            if (strcmp(o->key, key) == 0)
                return true;
    return false;
}

/* params: [3].  The same seed on both sides; greedy where a temperature can say so. */
static void params_of(const MiAssembly *a, bool greedy, MiParam *params)
{
    int n = 0;

    if (has_param(a, "seed"))
        params[n++] = (MiParam){ "seed", "1" };
    if (greedy && has_param(a, "temperature"))
        params[n++] = (MiParam){ "temperature", "0" };
    params[n] = (MiParam){ NULL, NULL };
}

static bool answer(MiSession *s, const Whole *w, MiAnswer *a, GError **error)
{
    MiParam params[3];

    params_of(s->assembly, true, params);
    return mi_answer_await(a, s->engine,
                           (MiRequest){ .tokens = w->ids, .n_tokens = w->n_ids, .max_tokens = w->tokens, .ignore_eos = true,
                                        .params = params, .logprobs = MI_MAX_TOPS },
                           NULL, error);
}

/* At the first token that differs: how much less likely the reference found the tested side's. */
static void judge(Whole *w, const MiAnswer *tested, const MiAnswer *reference, bool exact)
{
    const guint n = MIN(tested->ids->len, reference->ids->len);

    w->compared = (int)n;
    while (w->agreed < (int)n &&
           g_array_index(tested->ids, int32_t, w->agreed) == g_array_index(reference->ids, int32_t, w->agreed))
        w->agreed++;
    w->gap_tolerated = exact ? 0.05 : 0.25;
    if (w->agreed == (int)n)
        return;
    w->gap = INFINITY;
    for (int t = 0; t < reference->n_tops; t++) {
        const guint at = (guint)w->agreed * (guint)reference->n_tops;
        const MiTop *top = &g_array_index(reference->tops, MiTop, at + (guint)t);
        if (top->id == g_array_index(tested->ids, int32_t, w->agreed))
            w->gap = (double)g_array_index(reference->tops, MiTop, at).logprob - (double)top->logprob;
    }
    w->close = w->gap <= w->gap_tolerated;
}

/* The engines stop here: what follows runs on their assemblies by hand. */
static bool whole(MiSession *tested, MiSession *reference, Whole *w, GError **error)
{
    MiAnswer a, b;
    bool     ok;

    mi_answer_init(&a);
    mi_answer_init(&b);
    ok = !w->tokens || (answer(reference, w, &b, error) && answer(tested, w, &a, error));
    if (ok && w->tokens && !mi_interrupted())
        judge(w, &a, &b, tested->assembly->dtype == MI_F32 && !mi_dtype_scaled(tested->assembly->kv_dtype));
    mi_answer_clear(&a);
    mi_answer_clear(&b);
    mi_engine_stop(g_steal_pointer(&tested->engine));
    mi_engine_stop(g_steal_pointer(&reference->engine));
    return ok;
}

/* ---- nodes ------------------------------------------------------------------------------------ */

/* Sequences of the prompt, each a token shorter than the one before it, so that their rows differ. */
static bool ask(MiSide *s, const Whole *w, GError **error)
{
    MiParam params[3];

    params_of(s->a, false, params);
    for (int i = 0; i < w->batch; i++) {
        const MiRequest r = { .tokens = w->ids, .n_tokens = MAX(w->n_ids - MIN((size_t)i, w->n_ids - 1), 1),
                              .max_tokens = 1 + w->steps, .ignore_eos = true, .params = params };
        if (!mi_side_ask(s, &r, error))
            return false;
    }
    return true;
}

static bool nodes(MiVerify *v, const Whole *w, GError **error)
{
    const MiCache *mine = v->tested->a->cache->vtable, *its = v->reference->a->cache->vtable;

    if (mine->recomputes != its->recomputes) {
        g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED,
                    "cache '%s' and the reference's '%s' do not compute the same rows; set the same [engine] cache for both",
                    v->tested->a->cache->name, v->reference->a->cache->name);
        return false;
    }
    if (!ask(v->tested, w, error) || !ask(v->reference, w, error))
        return false;
    for (int i = 1; mi_side_unfinished(v->reference) && !mi_interrupted(); i++) {
        mi_progress_line("step %d", i);
        if (!mi_verify_step(v, error))
            return false;
    }
    mi_progress_clear();
    if (v->pattern && !v->lines->len && !mi_interrupted()) {
        g_set_error(error, MI_ERROR, MI_ERROR_NOT_FOUND, "no node is called '%s'; `miniinfer verify -v` lists them", v->pattern);
        return false;
    }
    return true;
}

/* ---- printing ------------------------------------------------------------------------------------ */

static int worst_first(const void *a, const void *b)
{
    const MiVerified *x = *(MiVerified *const *)a, *y = *(MiVerified *const *)b;
    return x->worst != y->worst ? (x->worst < y->worst) - (x->worst > y->worst) : x->first - y->first;
}

static int wrong(const MiVerify *v)
{
    int n = 0;
    for (guint i = 0; i < v->lines->len; i++)
        n += ((const MiVerified *)v->lines->pdata[i])->worst > 1;
    return n;
}

/* In the order of the program: what comes after it may only follow from it. */
static const MiVerified *first_wrong(const MiVerify *v)
{
    const MiVerified *first = NULL;

    for (guint i = 0; i < v->lines->len; i++) {
        const MiVerified *l = v->lines->pdata[i];
        if (l->worst > 1 && (!first || l->first < first->first))
            first = l;
    }
    return first;
}

static const char *kind_of_error(const MiVerified *l)
{
    return l->values_worst > 1 ? "WRONG" : l->cache_worst > 1 ? "CACHE" : l->nodes_worst > 1 ? "NODES" : "ok";
}

static void print_line(const MiVerified *l)
{
    printf("%-6s %9.3g %10.3g %10.3g %10.3g  %-26s %-24s %s%s\n", kind_of_error(l), l->worst, l->l2, l->tolerance, l->max_abs,
           l->feature, l->file ? l->file : "", l->label, l->same ? " (same code)" : "");
}

static void print_tokens(const Whole *w)
{
    if (!w->compared)
        return;
    if (w->agreed == w->compared)
        printf("tokens: all %d agree\n", w->compared);
    else
        printf("tokens: the first %d of %d agree; there the reference found its own %.3g nats likelier: %s\n", w->agreed,
               w->compared, w->gap, w->close ? "a near tie" : "no near tie");
}

static void print_side(const char *what, const MiAssembly *a)
{
    static const char *const names[] = { [MI_F32] = "f32", [MI_F16] = "f16", [MI_BF16] = "bf16", [MI_F8] = "f8",
                                         [MI_I8] = "i8" };

    printf("%-10s %s, %s, attention %s, cache %s of %s\n", what, a->backend->name, names[a->dtype], a->attention->name,
           a->cache->name, names[a->kv_dtype]);
}

static void print_table(const MiVerify *v, const Whole *w, bool verbose)
{
    const MiVerified *first = first_wrong(v);
    const guint       n_wrong = (guint)wrong(v), n = verbose ? v->lines->len : MIN(v->lines->len, MAX(SHOWN, n_wrong));
    guint             same = 0;

    print_side("tested", v->tested->a);
    print_side("reference", v->reference->a);
    printf("\n%-6s %9s %10s %10s %10s  %-26s %-24s %s\n", "", "of limit", "rel. L2", "limit", "max abs", "runs as", "plugin", "node");
    for (guint i = 0; i < n; i++)
        print_line(v->lines->pdata[i]);
    if (n < v->lines->len)
        printf("... and %u more, all better; -v lists them\n", v->lines->len - n);
    for (guint i = 0; i < v->lines->len; i++)
        same += ((const MiVerified *)v->lines->pdata[i])->same;
    printf("\nnodes: %u of %u out of tolerance", n_wrong, v->lines->len);
    if (same)
        printf("; %u ran the same code on both sides: --against another device tells more", same);
    printf("\n");
    if (first)
        printf("first: %s, by %s of %s, in a step of %s\n", first->label, first->feature, first->file ? first->file : "the program",
               first->where);
    print_tokens(w);
}

static void json_line(const MiVerified *l, MiJson *j)
{
    mi_json_open(j, NULL, '{');
    mi_json_string(j, "node", l->label);
    mi_json_string(j, "runs_as", l->feature);
    mi_json_string(j, "plugin", l->file);
    mi_json_bool(j, "ok", l->worst <= 1);
    mi_json_float(j, "worst", l->worst);
    mi_json_float(j, "l2", l->l2);
    mi_json_float(j, "tolerance", l->tolerance);
    mi_json_float(j, "max_abs", l->max_abs);
    if (l->cache_worst >= 0)
        mi_json_float(j, "cache_worst", l->cache_worst);
    if (l->nodes_worst >= 0)
        mi_json_float(j, "nodes_worst", l->nodes_worst);
    mi_json_bool(j, "fused", l->fused);
    mi_json_bool(j, "same_code", l->same);
    mi_json_int(j, "steps", l->steps);
    mi_json_string(j, "where", l->where);
    mi_json_close(j, '}');
}

static void print_json(const MiVerify *v, const Whole *w)
{
    const MiVerified *first = first_wrong(v);
    MiJson            j = mi_json_new();

    mi_json_open(&j, NULL, '{');
    mi_json_bool(&j, "ok", !first && (w->agreed == w->compared || w->close));
    mi_json_string(&j, "device", v->tested->a->backend->name);
    mi_json_string(&j, "reference_device", v->reference->a->backend->name);
    mi_json_string(&j, "first", first ? first->label : NULL);
    mi_json_string(&j, "first_plugin", first ? first->file : NULL);
    mi_json_int(&j, "out_of_tolerance", wrong(v));
    mi_json_open(&j, "tokens", '{');
    mi_json_int(&j, "compared", w->compared);
    mi_json_int(&j, "agreed", w->agreed);
    if (w->agreed < w->compared)
        mi_json_float(&j, "gap", w->gap);
    mi_json_close(&j, '}');
    mi_json_open(&j, "nodes", '[');
    for (guint i = 0; i < v->lines->len; i++)
        json_line(v->lines->pdata[i], &j);
    mi_json_close(&j, ']');
    mi_json_close(&j, '}');
    mi_json_print(&j);
}

/* ---- the command ------------------------------------------------------------------------------------ */

static bool read_flags(const MiCommandLine *cl, MiCommandLine *reference, Whole *w, GError **error)
{
    if (!reference_line(cl, reference, error))
        return false;
    if (mi_flag(cl, "prompt") && mi_flag(cl, "ids")) {
        g_set_error(error, MI_ERROR, MI_ERROR_CONFIG, "one of -p and --ids is enough");
        return false;
    }
    return (!mi_flag(cl, "ids") || mi_cmd_ids(mi_flag(cl, "ids"), &w->ids, &w->n_ids, error)) &&
           mi_flag_int(cl, "tokens", 0, 1 << 20, 32, &w->tokens, error) &&
           mi_flag_int(cl, "steps", 0, 1 << 20, 4, &w->steps, error) && mi_flag_int(cl, "batch", 1, 4096, 1, &w->batch, error);
}

static bool compare(MiSession *tested, MiSession *reference, Whole *w, MiVerify *v, GError **error)
{
    if (!whole(tested, reference, w, error) || mi_interrupted() || !mi_side_open(v->tested, tested->assembly, error) ||
        !mi_side_open(v->reference, reference->assembly, error) || !nodes(v, w, error))
        return false;
    g_ptr_array_sort(v->lines, worst_first);
    return true;
}

/* A sequence for each of the batch, on both sides. */
static void make_room(MiCommandLine *cl, int batch)
{
    g_autofree char *n = g_strdup_printf("%d", batch);
    if (batch > 1)
        set(cl, "engine.max_seqs", n);
}

static bool encode(MiSession *s, Whole *w, GError **error)
{
    const char *said = mi_flag(s->line, "prompt"), *text = said ? said : "The quick brown fox jumps over the lazy dog, and then";

    return w->ids || mi_prompt_text(s->engine, text, strlen(text), false, &w->ids, &w->n_ids, error);
}

static int run(MiCommandLine *cl, MiCommandLine *other, Whole *w)
{
    MiSession tested, reference = { 0 };
    MiSide    sides[2] = { { 0 }, { 0 } };
    MiVerify  v;
    GError   *error = NULL;
    int       status = 0;

    mi_verify_init(&v, &sides[0], &sides[1], mi_flag(cl, "node"));
    if (mi_session_open(&tested, cl, MI_WITH_ENGINE, &error) && encode(&tested, w, &error)) {
        if (mi_session_open(&reference, other, MI_WITH_ENGINE, &error) && compare(&tested, &reference, w, &v, &error)) {
            if (mi_flag(cl, "json"))
                print_json(&v, w);
            else
                print_table(&v, w, tested.verbose);
            status = wrong(&v) || (w->agreed < w->compared && !w->close) ? MI_EXIT_DIFFERS : 0;
        }
        mi_verify_clear(&v);
        mi_side_close(&sides[1]);
        mi_side_close(&sides[0]);
        mi_session_close(&reference);
    } else
        mi_verify_clear(&v);
    mi_session_close(&tested);
    return error ? mi_cmd_report(error) : status;
}

int mi_cmd_verify(MiCommandLine *cl)
{
    MiCommandLine other = { 0 };
    Whole         w = { 0 };
    GError       *error = NULL;
    int           status;

    if (mi_flag(cl, "determinism"))
        return mi_cmd_determinism(cl);
    if (mi_flag(cl, "chunks"))
        return mi_cmd_usage(g_error_new(MI_ERROR, MI_ERROR_CONFIG, "--chunks is of --determinism"));
    mi_interrupt_start();
    if (read_flags(cl, &other, &w, &error)) {
        make_room(cl, w.batch);
        make_room(&other, w.batch);
        status = run(cl, &other, &w);
    } else
        status = mi_cmd_usage(error);
    if (other.settings)
        g_ptr_array_unref(other.settings);
    g_free(w.ids);
    return status ? status : mi_interrupted() ? 130 : 0;
}
