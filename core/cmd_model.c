/* cmd_model.c - what looks at a model without running it: `plan`, `tokenize`, `convert`. */
#include "cmd.h"
#include "interrupt.h"
#include "json_out.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* ---- plan ---------------------------------------------------------------------- */
static void plan_json(const MiPlan *p)
{
    MiJson j = mi_json_new();

    mi_json_open(&j, NULL, '{');
    mi_json_open(&j, "choices", '[');
    for (int i = 0; i < p->n_choices; i++) {
        mi_json_open(&j, NULL, '{');
        mi_json_string(&j, "what", p->choices[i].what);
        mi_json_string(&j, "chosen", p->choices[i].chosen);
        mi_json_string(&j, "why", p->choices[i].why);
        mi_json_close(&j, '}');
    }
    mi_json_close(&j, ']');
    mi_json_open(&j, "memory", '[');
    for (int i = 0; i < p->n_lines; i++) {
        mi_json_open(&j, NULL, '{');
        mi_json_string(&j, "part", p->lines[i].part);
        mi_json_string(&j, "what", p->lines[i].what);
        mi_json_int(&j, "bytes", (int64_t)p->lines[i].bytes);
        mi_json_bool(&j, "allocated", p->lines[i].allocated);
        mi_json_close(&j, '}');
    }
    mi_json_close(&j, ']');
    mi_json_open(&j, "projections", '[');
    for (int i = 0; i < p->n_projections; i++) {
        const MiPlanProjections *of = &p->projections[i];
        mi_json_open(&j, NULL, '{');
        mi_json_int(&j, "layer", of->layer);
        mi_json_string(&j, "stored", of->stored);
        mi_json_string(&j, "linear", of->linear);
        mi_json_int(&j, "matrices", of->n);
        mi_json_int(&j, "weights", of->weights);
        mi_json_int(&j, "stored_bytes", (int64_t)of->stored_bytes);
        mi_json_int(&j, "bytes", (int64_t)of->bytes);
        mi_json_close(&j, '}');
    }
    mi_json_close(&j, ']');
    mi_json_int(&j, "allocated", (int64_t)p->allocated);
    mi_json_int(&j, "mapped", (int64_t)p->mapped);
    mi_json_close(&j, '}');
    mi_json_print(&j);
}

static bool alike(const MiPlanProjections *a, const MiPlanProjections *b)
{
    return strcmp(a->stored, b->stored) == 0 && strcmp(a->linear, b->linear) == 0 && a->n == b->n && a->bytes == b->bytes &&
           a->stored_bytes == b->stored_bytes;
}

/* Lines of one layer: how many from `i` on. */
static int lines_of(const MiPlan *p, int i)
{
    int n = 1;
    while (i + n < p->n_projections && p->projections[i + n].layer == p->projections[i].layer)
        n++;
    return n;
}

/* Neighbouring layers that are alike in all their lines are one. */
static void plan_projections(const MiPlan *p)
{
    printf("\n%-12s %-8s %-10s %8s %15s %15s %6s\n", "layers", "stored", "linear", "matrices", "bytes stored", "packed", "bits");
    for (int i = 0, n, next; i < p->n_projections; i = next) {
        bool same = true;

        n = lines_of(p, i);
        for (next = i + n; same && next < p->n_projections && lines_of(p, next) == n; next += same ? n : 0)
            for (int k = 0; k < n; k++)
                same &= p->projections[next].layer >= 0 && alike(&p->projections[i + k], &p->projections[next + k]);
        for (int k = i; k < i + n; k++) {
            const MiPlanProjections *of = &p->projections[k];
            const size_t             here = of->bytes ? of->bytes : of->stored_bytes;
            const int                last = p->projections[next - 1].layer;
            g_autofree char         *layers = of->layer < 0      ? g_strdup("output")
                                              : last == of->layer ? g_strdup_printf("%d", last)
                                                                  : g_strdup_printf("%d-%d, each", of->layer, last);
            printf("%-12s %-8s %-10s %8d %15zu %15zu %6.3f\n", layers, of->stored, of->linear, of->n, of->stored_bytes,
                   of->bytes, 8.0 * (double)here / (double)MAX(1, of->weights));
        }
    }
}

static void plan_table(const MiPlan *p)
{
    for (int i = 0; i < p->n_choices; i++)
        printf("%-12s %-20s %s\n", p->choices[i].what, p->choices[i].chosen, p->choices[i].why);
    printf("\n%15s  %-20s\n", "bytes", "part");
    for (int i = 0; i < p->n_lines; i++)
        printf("%15zu  %-20s %s%s\n", p->lines[i].bytes, p->lines[i].part, p->lines[i].what,
               p->lines[i].allocated ? "" : " (the file's, mapped)");
    printf("%15zu  allocated\n%15zu  mapped from the file\n", p->allocated, p->mapped);
    plan_projections(p);
}

int mi_cmd_plan(MiCommandLine *cl)
{
    GError   *error = NULL;
    MiSession s;

    if (mi_session_open(&s, cl, MI_WITH_PLAN, &error))
        (mi_flag(cl, "json") ? plan_json : plan_table)(mi_assembly_plan(s.assembly));
    mi_session_close(&s);
    return mi_cmd_report(error);
}

/* ---- tokenize ------------------------------------------------------------------ */
/* One token a line: the id, a tab, its bytes with \n and the like spelled out. */
static void token_lines(const MiTextCoder *c, const int32_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        size_t           len = 0;
        const char      *piece = c->vt->piece(c->self, i ? ids[i - 1] : -1, ids[i], &len);
        g_autofree char *bytes = g_strndup(piece ? piece : "", len);
        g_autofree char *shown = g_utf8_validate(bytes, -1, NULL) ? g_strdup(bytes) : g_strescape(bytes, NULL);
        g_autofree char *line = g_strescape(shown, "\"\\");
        printf("%d\t%s\n", ids[i], g_utf8_validate(shown, -1, NULL) && !strpbrk(shown, "\n\t\r") ? shown : line);
    }
}

static bool tokenize_one(const MiCommandLine *cl, const MiTextCoder *c, const char *text, size_t len, GError **error)
{
    const bool          special = mi_flag(cl, "special");
    g_autofree int32_t *ids = NULL;
    const size_t        n = c->vt->encode(c->self, text, len, special, NULL, 0);

    if (n == SIZE_MAX) {
        g_set_error(error, MI_ERROR, MI_ERROR_MODEL, "the model's tokenizer gave up on a text of %zu bytes", len);
        return false;
    }
    if (!(ids = g_try_new(int32_t, n + 1))) {
        g_set_error(error, MI_ERROR, MI_ERROR_NO_MEMORY, "no memory for %zu token ids", n);
        return false;
    }
    c->vt->encode(c->self, text, len, special, ids, n);
    if (mi_flag(cl, "json")) {
        MiJson j = mi_json_new();
        mi_json_open(&j, NULL, '{');
        mi_json_ints(&j, "ids", ids, n);
        mi_json_close(&j, '}');
        mi_json_print(&j);
    } else
        token_lines(c, ids, n);
    return true;
}

/* With --null as many texts as there are zero bytes, and what is left after the last of them. */
static bool tokenize(const MiCommandLine *cl, const MiTextCoder *c, GError **error)
{
    size_t           len = 0;
    g_autofree char *text = mi_cmd_slurp("-", &len, error);
    const bool       many = mi_flag(cl, "null");

    if (!text || !many)
        return text && tokenize_one(cl, c, text, len, error);
    for (size_t at = 0, end; at < len; at = end + 1) {
        const char *zero = memchr(text + at, 0, len - at);
        end = zero ? (size_t)(zero - text) : len;
        if (!tokenize_one(cl, c, text + at, end - at, error))
            return false;
        if (!mi_flag(cl, "json"))
            putchar('\n');
    }
    return true;
}

int mi_cmd_tokenize(MiCommandLine *cl)
{
    GError     *error = NULL;
    MiSession   s;
    MiSource    source;
    MiTextCoder coder;

    if (mi_session_open(&s, cl, MI_WITH_PLUGINS, &error) &&
        mi_model_open(s.registry, s.config, s.settings.model.path, &source, &error)) {
        if (mi_text_open(s.registry, s.config, &source, &coder, &error)) {
            tokenize(cl, &coder, &error);
            mi_text_close(&coder);
        }
        mi_model_close(&source);
    }
    mi_session_close(&s);
    return mi_cmd_report(error);
}

/* ---- convert ------------------------------------------------------------------- */
/* --to, else the format that DST's extension names, else the one that can write and is not SRC's. */
static const MiFormat *target(MiSession *s, const char *dst, const MiFormat *from, GError **error)
{
    g_autoptr(GPtrArray) list = mi_registry_list(s->registry, MI_KIND_FORMAT, NULL);
    const char          *dot = strrchr(dst, '.'), *to = mi_flag(s->line, "to");
    const MiFormat      *other = NULL;
    const MiFeature     *named;

    if (to) {
        if (!(named = mi_registry_find(s->registry, MI_KIND_FORMAT, to, "*", error)))
            return NULL;
        if (MI_HAS((const MiFormat *)named->vtable, write))
            return named->vtable;
        g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED, "format '%s' is only read, not written", to);
        return NULL;
    }
    for (guint i = 0; i < list->len; i++) {
        const MiFeature *f = list->pdata[i];
        const MiFormat  *vt = f->vtable;
        if (!MI_HAS(vt, write))
            continue;
        if (dot && strcmp(dot + 1, f->name) == 0)
            return vt;
        if (vt != from)
            other = vt;
    }
    if (!other)
        g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED, "no format to write '%s' in; say --to", dst);
    return other;
}

static bool progress(void *user, uint64_t done, uint64_t total)
{
    (void)user;
    if (total)
        mi_progress_line("writing: %d %%", (int)(100 * done / total));
    return !mi_interrupted();
}

static void nothing(void *user) { (void)user; /* progress() looks */ }

static bool convert(MiSession *s, const char *src, const char *dst, const char *dtype, GError **error)
{
    const MiWriteSpec spec = { .dtype = dtype, .progress = progress };
    MiSource          source;
    const MiFormat   *format;
    bool              ok = false;

    if (!mi_model_open(s->registry, s->config, src, &source, error))
        return false;
    if (g_file_test(dst, G_FILE_TEST_EXISTS))
        g_set_error(error, MI_ERROR, MI_ERROR_IO, "%s exists; convert writes no file over another", dst);
    else if ((format = target(s, dst, source.vt, error))) {
        mi_interrupt_target(nothing, NULL);
        ok = format->write(dst, &source, &spec, error);
        mi_interrupt_target(NULL, NULL);
        mi_progress_clear();
    }
    mi_model_close(&source);
    return ok;
}

static void converted(const MiCommandLine *cl, const char *dtype)
{
    MiJson j = mi_json_new();

    mi_json_open(&j, NULL, '{');
    mi_json_string(&j, "source", cl->operands->pdata[0]);
    mi_json_string(&j, "written", cl->operands->pdata[1]);
    mi_json_string(&j, "dtype", dtype);
    mi_json_close(&j, '}');
    mi_json_print(&j);
}

int mi_cmd_convert(MiCommandLine *cl)
{
    static const char *const dtypes[] = { "keep", "f32", "f16", "bf16", NULL };
    const char *dtype = mi_flag(cl, "dtype") ? mi_flag(cl, "dtype") : "keep";
    GError     *error = NULL;
    MiSession   s;

    if (!g_strv_contains(dtypes, dtype))
        return mi_cmd_usage(g_error_new(MI_ERROR, MI_ERROR_CONFIG, "--dtype is '%s'; keep, f32, f16 and bf16 are possible",
                                        dtype));
    mi_interrupt_start();
    if (mi_session_open(&s, cl, MI_WITH_PLUGINS, &error) &&
        convert(&s, cl->operands->pdata[0], cl->operands->pdata[1], dtype, &error) && mi_flag(cl, "json"))
        converted(cl, dtype);
    mi_session_close(&s);
    const int status = mi_cmd_report(error);
    return mi_interrupted() ? 130 : status;
}
