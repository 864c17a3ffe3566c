/* cmd_quantize.c - `quantize`: projections rounded one by one into files beside the result, which is written when all are
 * there; what was stopped goes on with those.  With awq the scales of inputs are files, too, made before what reads those inputs
 * is rounded, and so are the vectors that are divided by them.
 *
 * Memory: one matrix as f32, and with a calibration the model as it runs and the sums that --memory allows. */
#include "cmd.h"
#include "engine.h"
#include "interrupt.h"
#include "quantize_awq.h"
#include "suggest.h"

#include <glib/gstdio.h>
#include <stdio.h>
#include <string.h>

typedef enum { METHOD_RTN, METHOD_GPTQ, METHOD_AWQ } Method;
static const char *const methods[] = { "rtn", "gptq", "awq", NULL };
static const char *const linears[] = { "int4", "int8", "fp8", NULL };
static const char *const layouts[] = { "compressed-tensors", "gptq", NULL };
static const char *const formats[] = { "safetensors", "gguf", NULL };

typedef struct {
    const char    *model, *out, *format, *storage, *calibrate, *report;
    const MiFormat *vt;
    char          *folder; /* of the matrices that are ready */
    MiGrid         grid;
    Method         method;
    int            windows, length, memory; /* of the calibration; MB of sums */
    MiSource       source;
    GPtrArray     *weights; /* MiWeight *, those that are rounded, by layers, those whose rows are scaled last in theirs */
    MiRoundingError *errors; /* [weights] */
    GPtrArray     *folds;   /* MiFold *; NULL: the method has none */
    int            reused;
} Job;

/* ---- what is asked for ---------------------------------------------------------------- */

static bool usage(GError **error, const char *form, ...) G_GNUC_PRINTF(2, 3);
static bool usage(GError **error, const char *form, ...)
{
    va_list args;

    va_start(args, form);
    g_autofree char *text = g_strdup_vprintf(form, args);
    va_end(args);
    g_set_error_literal(error, MI_ERROR, MI_ERROR_CONFIG, text);
    return false;
}

/* Which of `names` a flag has; def: it is not given.  -1 with *error: none. */
static int choose(const MiCommandLine *cl, const char *flag, const char *const *names, int def, GError **error)
{
    const char          *word = mi_flag(cl, flag);
    g_autoptr(GPtrArray) all = g_ptr_array_new();
    g_autoptr(GString)   message = NULL;
    g_autofree char     *shown = word ? mi_printable(word, 40) : NULL, *list = NULL;

    if (!word && def >= 0)
        return def;
    for (int i = 0; names[i]; i++) {
        if (word && strcmp(names[i], word) == 0)
            return i;
        g_ptr_array_add(all, (gpointer)(uintptr_t)names[i]);
    }
    message = g_string_new(NULL);
    list = g_strjoinv(", ", (char **)(uintptr_t)names);
    if (word)
        g_string_printf(message, "--%s is '%s', not one of %s", flag, shown, list);
    else
        g_string_printf(message, "miniinfer quantize wants --%s, one of %s", flag, list);
    if (word)
        mi_suggest_append(message, word, all);
    usage(error, "%s", message->str);
    return -1;
}

static bool read_group(const MiCommandLine *cl, Job *j, GError **error)
{
    const char *group = mi_flag(cl, "group");
    int         size = 0;

    if (group && strcmp(group, "row") != 0 && !mi_flag_int(cl, "group", 32, 1024, 0, &size, error))
        return false;
    if (size % 32)
        return usage(error, "--group is %d; a multiple of 32 or row is possible", size);
    j->grid.group = group ? size : j->grid.bits == 4 ? 128 : 0;
    if (strcmp(j->format, "gguf") != 0)
        return true;
    if (group && size != 32) /* blocks of 32, which are all that it has */
        return usage(error, "--group is %s; gguf has groups of 32 only", group);
    if (!j->grid.symmetric)
        return usage(error, "--asymmetric: the blocks that are written into gguf have no zeros");
    if (mi_flag(cl, "layout"))
        return usage(error, "--layout is of safetensors; gguf has blocks");
    j->grid.group = 32;
    return true;
}

/* E4M3 is stored in one way. */
static bool read_e4m3(const MiCommandLine *cl, Job *j, GError **error)
{
    const char *group = mi_flag(cl, "group");

    if (strcmp(j->format, "gguf") == 0)
        return usage(error, "--linear fp8: gguf has no such format");
    if (group && strcmp(group, "row") != 0)
        return usage(error, "--group is %s; fp8 has a scale for a row", group);
    if (mi_flag(cl, "asymmetric"))
        return usage(error, "--asymmetric: fp8 has no zeros");
    if (mi_flag(cl, "layout"))
        return usage(error, "--layout is of integers; fp8 has one");
    if (j->method == METHOD_AWQ)
        return usage(error, "--method awq is of integers; fp8 has rtn and gptq");
    j->grid = (MiGrid){ .bits = 8, .symmetric = true, .e4m3 = true };
    j->storage = "fp8";
    return true;
}

static bool read_grid(const MiCommandLine *cl, Job *j, GError **error)
{
    const char *dot = strrchr(j->out, '.');
    const int   format = choose(cl, "to", formats, dot && strcmp(dot, ".gguf") == 0, error);
    const int   linear = format < 0 ? -1 : choose(cl, "linear", linears, -1, error);
    const int   layout = linear < 0 ? -1 : choose(cl, "layout", layouts, 0, error);

    if (layout < 0)
        return false;
    j->format = formats[format];
    if (linear == 2)
        return read_e4m3(cl, j, error);
    j->grid.bits = linear == 0 ? 4 : 8;
    j->grid.symmetric = !mi_flag(cl, "asymmetric");
    j->storage = format == 1 ? (linear == 0 ? "q4_0" : "q8_0") : layout == 1 ? "gptq" : "ct";
    return read_group(cl, j, error);
}

static bool read_flags(const MiCommandLine *cl, Job *j, GError **error)
{
    j->out = mi_flag(cl, "output");
    j->model = cl->operands->pdata[0];
    j->calibrate = mi_flag(cl, "calibrate");
    j->report = mi_flag(cl, "report");
    if (!j->out)
        return usage(error, "miniinfer quantize wants a place for the result: -o OUT");
    if (j->report && !g_str_has_suffix(j->report, ".svg")) {
        g_autofree char *shown = mi_printable(j->report, 60);
        return usage(error, "--report is '%s'; what is drawn is an SVG, a name that ends in .svg", shown);
    }
    const int method = choose(cl, "method", methods, METHOD_RTN, error);
    if (method < 0)
        return false;
    j->method = (Method)method;
    if (j->method != METHOD_RTN && !j->calibrate)
        return usage(error, "--method %s wants a text to calibrate with: --calibrate FILE", methods[method]);
    return mi_flag_int(cl, "windows", 1, 1024, 64, &j->windows, error) &&
           mi_flag_int(cl, "window", 16, 1 << 16, 256, &j->length, error) &&
           mi_flag_int(cl, "memory", 1, 1 << 20, 1024, &j->memory, error) && read_grid(cl, j, error);
}

/* ---- what there is to do ------------------------------------------------------------------ */

/* The layouts have it with such groups. */
static bool fits(const Job *j, const MiWeight *w, GError **error)
{
    const bool gptq = strcmp(j->storage, "gptq") == 0; /* whose last group may be shorter */

    if (j->grid.group && w->shape[1] % (gptq ? 32 : j->grid.group)) {
        g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED, "%s has rows of %" G_GINT64_FORMAT ", no multiple of %" G_GINT64_FORMAT
                    "%s", w->name, w->shape[1], gptq ? 32 : j->grid.group,
                    j->grid.group > 32 && w->shape[1] % 32 == 0
                        ? (w->shape[1] % 64 ? "; --group 32 divides it" : "; --group 64 divides it, and --layout gptq needs no such")
                        : "");
        return false;
    }
    if (!gptq || w->shape[0] % (32 / j->grid.bits) == 0)
        return true;
    g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED, "%s has %" G_GINT64_FORMAT " rows; --layout gptq has words of %d of them",
                w->name, w->shape[0], 32 / j->grid.bits);
    return false;
}

static gint by_layer(gconstpointer a, gconstpointer b)
{
    const MiWeight *const *x = a, *const *y = b;
    return mi_layer_of((*x)->name) - mi_layer_of((*y)->name);
}

static bool list(Job *j, GError **error)
{
    for (size_t i = 0; i < j->source.vt->count(j->source.self); i++) {
        MiWeight w;
        j->source.vt->at(j->source.self, i, &w);
        if (!mi_quantizable(&w))
            continue;
        if (!fits(j, &w, error))
            return false;
        w.source = &j->source;
        g_ptr_array_add(j->weights, g_memdup2(&w, sizeof w));
    }
    g_ptr_array_sort(j->weights, by_layer); /* stable: those of a layer stay as the file has them */
    j->errors = g_new0(MiRoundingError, j->weights->len + 1);
    if (j->weights->len)
        return true;
    g_set_error(error, MI_ERROR, MI_ERROR_MODEL, "%s: no layer has a matrix", j->model);
    return false;
}

static const MiWeight *listed(const Job *j, guint i) { return j->weights->pdata[i]; }

/* Whose the files are: of this model, these settings. */
static char *identity(const Job *j)
{
    g_autoptr(GString) s = g_string_new(NULL);

    g_string_append_printf(s, "%s %d bits, groups of %d, %s, %s", j->storage, j->grid.bits, (int)j->grid.group,
                           j->grid.symmetric ? "symmetric" : "asymmetric", methods[j->method]);
    if (j->calibrate)
        g_string_append_printf(s, ", %d windows of %d of %s", j->windows, j->length, j->calibrate);
    g_string_append_printf(s, "\nof %s\n", j->model);
    for (guint i = 0; i < j->weights->len; i++) {
        const MiWeight *w = listed(j, i);
        g_string_append_printf(s, "%s %s %zu\n", w->name, w->format, w->bytes);
    }
    return g_string_free(g_steal_pointer(&s), FALSE);
}

static bool open_folder(Job *j, GError **error)
{
    g_autofree char *want = identity(j), *file = NULL, *have = NULL;

    if (g_file_test(j->out, G_FILE_TEST_EXISTS)) {
        g_set_error(error, MI_ERROR, MI_ERROR_IO, "%s exists; quantize writes nothing over another file", j->out);
        return false;
    }
    j->folder = g_strconcat(j->out, ".quantize", NULL);
    file = g_build_filename(j->folder, "job", NULL);
    if (g_file_get_contents(file, &have, NULL, NULL)) {
        if (strcmp(have, want) == 0)
            return true;
        g_set_error(error, MI_ERROR, MI_ERROR_CONFIG, "%s has matrices of another model or other settings; remove it to begin anew",
                    j->folder);
        return false;
    }
    if (g_mkdir(j->folder, 0777) != 0) {
        g_set_error(error, MI_ERROR, MI_ERROR_IO, "%s cannot be made, or is no folder of quantize", j->folder);
        return false;
    }
    GError *why = NULL;
    if (g_file_set_contents(file, want, -1, &why))
        return true;
    g_set_error(error, MI_ERROR, MI_ERROR_IO, "%s", why->message);
    g_error_free(why);
    return false;
}

static void remove_file(const Job *j, const char *name, const char *kind)
{
    g_autofree char *file = mi_quantized_file(j->folder, name, kind);
    g_unlink(file);
}

static void remove_folder(const Job *j)
{
    g_autofree char *job = g_build_filename(j->folder, "job", NULL);

    for (guint i = 0; i < j->weights->len; i++)
        remove_file(j, listed(j, i)->name, "rounded");
    for (guint i = 0; j->folds && i < j->folds->len; i++) {
        const MiFold *f = j->folds->pdata[i];
        remove_file(j, f->from->name, "scales");
        if (f->gain)
            remove_file(j, f->gain->name, "folded");
        if (f->bias)
            remove_file(j, f->bias->name, "folded");
    }
    g_unlink(job);
    g_rmdir(j->folder);
}

/* ---- scales of inputs ------------------------------------------------------------------------ */

/* What a matrix is scaled by before it is rounded. */
static bool scales_for(Job *j, const MiWeight *w, const MiCalibration *c, float **columns, float **rows, GError **error)
{
    const MiFold *to = j->folds ? mi_fold_to(j->folds, w->name) : NULL, *from = j->folds ? mi_fold_from(j->folds, w->name) : NULL;

    if (from && !(*rows = mi_fold_saved(from, j->folder))) {
        g_set_error(error, MI_ERROR, MI_ERROR_IO, "%s: what it is scaled by is gone from %s; remove that to begin anew", w->name,
                    j->folder);
        return false;
    }
    if (!to)
        return true;
    g_autofree float *scales = mi_fold_saved(to, j->folder);
    if (!scales && !(scales = mi_fold_find(to, &j->source, &j->grid, c, j->folder, error)))
        return false;
    *columns = g_new(float, w->shape[1]);
    for (int64_t i = 0; i < w->shape[1]; i++)
        (*columns)[i] = scales[mi_fold_scale(to, i)];
    return true;
}

static gint by_fold(gconstpointer a, gconstpointer b, gpointer user)
{
    const MiWeight *const *x = a, *const *y = b;
    const int              layers = by_layer(a, b);
    return layers ? layers : (mi_fold_from(user, (*x)->name) != NULL) - (mi_fold_from(user, (*y)->name) != NULL);
}

/* ---- a matrix --------------------------------------------------------------------------------- */

static bool ready(Job *j, guint i)
{
    const MiWeight  *w = listed(j, i);
    g_autofree char *file = mi_quantized_file(j->folder, w->name, "rounded");
    GMappedFile     *map = g_mapped_file_new(file, FALSE, NULL);
    const bool       ok = map && mi_stored_fits(g_mapped_file_get_contents(map), g_mapped_file_get_length(map), w, &j->grid,
                                                j->storage, &j->errors[i]);
    if (map)
        g_mapped_file_unref(map);
    return ok;
}

static bool stopped(GError **error)
{
    if (mi_interrupted())
        g_set_error(error, MI_ERROR, MI_ERROR_CONFIG, "stopped; the same command goes on with what is ready");
    return mi_interrupted();
}

/* False: no memory, or no inverse. */
static bool round_by_method(const Job *j, MiRounding *r, const MiInputs *x, const float *columns, const float *rows,
                            MiRoundingError *e)
{
    bool ok = x != NULL;

    mi_rounding_fit(r, &j->grid, false);
    if (j->method == METHOD_RTN || x) {
        mi_round_nearest(r, &j->grid);
        *e = mi_rounding_error(r, x);
    }
    if (j->method == METHOD_RTN)
        return true;
    const double nearest = e->outputs;
    mi_rounding_scale(r, columns, rows);
    mi_rounding_fit(r, &j->grid, true);
    if (j->method == METHOD_GPTQ)
        ok = ok && mi_round_gptq(r, &j->grid, x);
    else
        mi_round_nearest(r, &j->grid);
    ok = ok && (j->grid.e4m3 || mi_rounding_level(r, x->sums)); /* scales of bf16 are too coarse for it */
    if (ok)
        *e = mi_rounding_error(r, x);
    e->nearest = nearest;
    return ok;
}

static bool round_one(Job *j, guint i, const MiCalibration *c, GError **error)
{
    const MiWeight   *w = listed(j, i);
    MiInputs          x;
    const bool        known = c && mi_calibration_inputs(c, w->name, &x) && x.n == w->shape[1];
    g_autofree float *columns = NULL, *rows = NULL;
    MiRounding        r;

    if (!scales_for(j, w, c, &columns, &rows, error) || !mi_rounding_new(&r, w, &j->grid, 1, error))
        return false;
    bool ok = round_by_method(j, &r, known ? &x : NULL, columns, rows, &j->errors[i]);
    if (!ok)
        g_set_error(error, MI_ERROR, MI_ERROR_NO_MEMORY, "%s: no memory for %s, or its inputs have no inverse", w->name,
                    methods[j->method]);
    if (ok) {
        g_autoptr(GBytes) data = mi_rounding_store(&r, &j->grid, j->storage, &j->errors[i]);
        if (!data)
            g_set_error(error, MI_ERROR, MI_ERROR_NO_MEMORY, "%s: no memory for it", w->name);
        ok = data && mi_quantized_save(j->folder, w->name, "rounded", g_bytes_get_data(data, NULL), g_bytes_get_size(data), error);
    }
    mi_rounding_free(&r);
    if (MI_HAS(w->source->vt, drop))
        w->source->vt->drop(w->source->self, w);
    return ok;
}

static bool round_range(Job *j, guint from, guint to, const MiCalibration *c, GError **error)
{
    for (guint i = from; i < to; i++) {
        if (stopped(error))
            return false;
        if (ready(j, i)) {
            j->reused++;
            continue;
        }
        mi_progress_line("%s, %u of %u: %s", methods[j->method], i + 1, j->weights->len, listed(j, i)->name);
        if (!round_one(j, i, c, error))
            return false;
    }
    return true;
}

/* ---- with a text --------------------------------------------------------------------------------- */

static bool tell(int done, int of)
{
    mi_progress_line("calibrating: window %d of %d", done, of);
    return !mi_interrupted();
}

static bool calibrated(Job *j, MiCalibration *c, GError **error)
{
    g_autofree const char **names = g_new0(const char *, j->weights->len + 1);
    guint                   from = 0;

    if (j->method == METHOD_AWQ) {
        j->folds = mi_folds_new(mi_calibration_program(c));
        g_ptr_array_sort_with_data(j->weights, by_fold, j->folds);
    }
    for (guint i = 0; i < j->weights->len; i++)
        names[i] = listed(j, i)->name;
    while (from < j->weights->len) {
        while (from < j->weights->len && ready(j, from))
            from++, j->reused++;
        if (from == j->weights->len)
            break;
        const int n = mi_calibration_run(c, names + from, (int)(j->weights->len - from), (size_t)j->memory << 20, tell, error);
        if (!n || !round_range(j, from, from + (guint)n, c, error))
            return false;
        from += (guint)n;
    }
    return true;
}

static bool with_text(Job *j, MiSession *s, GError **error)
{
    size_t              len = 0, n = 0;
    int32_t            *ids = NULL;
    g_autofree char    *text = mi_cmd_slurp(j->calibrate, &len, error);

    if (!text || !mi_prompt_text(s->engine, text, len, false, &ids, &n, error))
        return false;
    j->windows = (int)MIN((size_t)j->windows, n / (size_t)j->length);
    if (!j->windows)
        g_set_error(error, MI_ERROR, MI_ERROR_MODEL, "%s has %zu tokens; one window takes %d", j->calibrate, n, j->length);
    mi_engine_stop(g_steal_pointer(&s->engine));
    MiCalibration *c = mi_calibration_new(s->assembly, ids, n, j->windows, j->length);
    const bool     ok = j->windows && calibrated(j, c, error);
    mi_calibration_free(c);
    g_free(ids);
    return ok;
}

/* ---- the whole --------------------------------------------------------------------------------------- */

static bool writing(void *user, uint64_t done, uint64_t total)
{
    (void)user;
    if (total)
        mi_progress_line("writing: %d %%", (int)(100 * done / total));
    return !mi_interrupted();
}

static bool write_out(Job *j, GError **error)
{
    const MiWriteSpec spec = { .dtype = "keep", .progress = writing };
    MiQuantized      *m = mi_quantized_open(&j->source, j->folder, &j->grid, j->storage, error);
    const bool        ok = m && j->vt->write(j->out, mi_quantized_source(m), &spec, error);

    mi_quantized_close(m);
    if (ok)
        remove_folder(j);
    return ok;
}

static MiRoundingReport report_of(const Job *j)
{
    return (MiRoundingReport){ j->out, methods[j->method], j->grid, (int)j->weights->len, j->reused,
                               (const MiWeight *const *)j->weights->pdata, j->errors };
}

static void nothing(void *user) { (void)user; /* stopped() looks */ }

static bool quantize(Job *j, MiSession *s, GError **error)
{
    const MiFeature *f = mi_registry_find(s->registry, MI_KIND_FORMAT, j->format, "*", error);

    if (!f)
        return false;
    j->vt = f->vtable;
    if (!MI_HAS(j->vt, write)) {
        g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED, "format '%s' is only read, not written", j->format);
        return false;
    }
    if (!mi_model_open(s->registry, s->config, j->model, &j->source, error) || !list(j, error) || !open_folder(j, error))
        return false;
    mi_interrupt_target(nothing, NULL);
    bool ok = j->calibrate ? with_text(j, s, error) : round_range(j, 0, j->weights->len, NULL, error);
    const MiRoundingReport r = report_of(j);
    ok = ok && !stopped(error) && (!j->report || mi_rounding_report_plot(&r, j->report, error)) && write_out(j, error);
    mi_interrupt_target(NULL, NULL);
    mi_progress_clear();
    return ok;
}

/* ---- the command ----------------------------------------------------------------------------------------- */

static void set(MiCommandLine *cl, const char *key, int value)
{
    g_ptr_array_add(cl->settings, g_strdup(key));
    g_ptr_array_add(cl->settings, g_strdup_printf("%d", value));
}

int mi_cmd_quantize(MiCommandLine *cl)
{
    Job       j = { .weights = g_ptr_array_new_with_free_func(g_free) };
    GError   *error = NULL;
    MiSession s;

    if (!read_flags(cl, &j, &error)) {
        g_ptr_array_unref(j.weights);
        return mi_cmd_usage(error);
    }
    if (j.calibrate) { /* each window is a sequence, and a step */
        g_ptr_array_add(cl->settings, g_strdup("model.path"));
        g_ptr_array_add(cl->settings, g_strdup(j.model));
        set(cl, "engine.max_seqs", j.windows);
        set(cl, "engine.max_len", j.length);
        set(cl, "engine.max_tokens", MAX(j.length, j.windows));
        set(cl, "engine.prefill_step", j.length);
    }
    mi_interrupt_start();
    if (mi_session_open(&s, cl, j.calibrate ? MI_WITH_ENGINE : MI_WITH_PLUGINS, &error) && quantize(&j, &s, &error)) {
        const MiRoundingReport r = report_of(&j);
        (mi_flag(cl, "json") ? mi_rounding_report_json : mi_rounding_report_print)(&r);
    }
    if (j.folds)
        g_ptr_array_unref(j.folds);
    mi_model_close(&j.source);
    mi_session_close(&s);
    g_ptr_array_unref(j.weights);
    g_free(j.errors);
    g_free(j.folder);
    const int status = mi_cmd_report(error);
    return mi_interrupted() ? 130 : status;
}
