/* cmd_quantize.c - `quantize`: projections rounded one by one into files beside the result, which is written when all are
 * there; what was stopped goes on with those.
 *
 * Memory: one matrix as f32, and with a calibration the model as it runs and the sums that --memory allows. */
#include "cmd.h"
#include "engine.h"
#include "interrupt.h"
#include "json_out.h"
#include "quantize.h"

#include <glib/gstdio.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

typedef enum { METHOD_RTN, METHOD_GPTQ } Method;
static const char *const methods[] = { "rtn", "gptq", NULL };

/* What a format's writer takes as it is, by its name. */
static const struct { const char *format; const char *storage[2]; int64_t group; } storages[] = {
    { "gguf", { "q4_0", "q8_0" }, 32 }, /* blocks of 32, which are all that it has */
    { "safetensors", { "ct", "ct" }, 0 },
};

typedef struct {
    const char    *model, *out, *format, *storage, *calibrate;
    const MiFormat *vt;
    char          *folder; /* of the matrices that are ready */
    MiGrid         grid;
    Method         method;
    int            windows, length, memory; /* of the calibration; MB of sums */
    MiSource       source;
    GPtrArray     *weights; /* MiWeight *, those that are rounded */
    MiRoundingError *errors; /* [weights] */
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

static bool read_grid(const MiCommandLine *cl, Job *j, GError **error)
{
    const char *linear = mi_flag(cl, "linear"), *group = mi_flag(cl, "group");
    int         size = 0;

    if (!linear || (strcmp(linear, "int4") != 0 && strcmp(linear, "int8") != 0))
        return usage(error, "--linear is '%s'; int4 and int8 are possible", linear ? linear : "");
    j->grid.bits = strcmp(linear, "int4") == 0 ? 4 : 8;
    j->grid.symmetric = !mi_flag(cl, "asymmetric");
    if (group && strcmp(group, "row") != 0 && !mi_flag_int(cl, "group", 32, 1024, 0, &size, error))
        return false;
    if (size % 32)
        return usage(error, "--group is %d; a multiple of 32 or row is possible", size);
    j->grid.group = group ? size : j->grid.bits == 4 ? 128 : 0;
    for (size_t i = 0; i < G_N_ELEMENTS(storages); i++)
        if (strcmp(storages[i].format, j->format) == 0) {
            j->storage = storages[i].storage[j->grid.bits == 8];
            if (storages[i].group && group && size != storages[i].group)
                return usage(error, "--group is %s; %s has groups of %d only", group, j->format, (int)storages[i].group);
            if (storages[i].group && !j->grid.symmetric)
                return usage(error, "--asymmetric: the blocks that are written into %s have no zeros", j->format);
            j->grid.group = storages[i].group ? storages[i].group : j->grid.group;
            return true;
        }
    return usage(error, "nothing quantised is written into format '%s'; gguf and safetensors are possible", j->format);
}

static bool read_flags(const MiCommandLine *cl, Job *j, GError **error)
{
    const char *method = mi_flag(cl, "method") ? mi_flag(cl, "method") : "rtn", *out = mi_flag(cl, "output");
    const char *dot = out ? strrchr(out, '.') : NULL;

    if (!out)
        return usage(error, "miniinfer quantize wants a place for the result: -o OUT");
    j->out = out;
    j->model = cl->operands->pdata[0];
    j->format = mi_flag(cl, "to") ? mi_flag(cl, "to") : dot && strcmp(dot, ".gguf") == 0 ? "gguf" : "safetensors";
    j->calibrate = mi_flag(cl, "calibrate");
    if (!g_strv_contains(methods, method))
        return usage(error, "--method is '%s'; rtn and gptq are possible", method);
    j->method = strcmp(method, "gptq") == 0 ? METHOD_GPTQ : METHOD_RTN;
    if (j->method != METHOD_RTN && !j->calibrate)
        return usage(error, "--method %s wants a text to calibrate with: --calibrate FILE", method);
    return mi_flag_int(cl, "windows", 1, 1024, 16, &j->windows, error) &&
           mi_flag_int(cl, "window", 16, 1 << 16, 256, &j->length, error) &&
           mi_flag_int(cl, "memory", 1, 1 << 20, 1024, &j->memory, error) && read_grid(cl, j, error);
}

/* ---- what there is to do ------------------------------------------------------------------ */

static bool list(Job *j, GError **error)
{
    for (size_t i = 0; i < j->source.vt->count(j->source.self); i++) {
        MiWeight w;
        j->source.vt->at(j->source.self, i, &w);
        if (!mi_quantizable(&w))
            continue;
        if (j->grid.group && w.shape[1] % j->grid.group) {
            g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED, "%s has rows of %" G_GINT64_FORMAT ", no multiple of %" G_GINT64_FORMAT
                        "%s", w.name, w.shape[1], j->grid.group,
                        j->grid.group > 32 && w.shape[1] % 32 == 0 ? (w.shape[1] % 64 ? "; --group 32 divides it" : "; --group 64 divides it") : "");
            return false;
        }
        w.source = &j->source;
        g_ptr_array_add(j->weights, g_memdup2(&w, sizeof w));
    }
    j->errors = g_new0(MiRoundingError, j->weights->len + 1);
    if (j->weights->len)
        return true;
    g_set_error(error, MI_ERROR, MI_ERROR_MODEL, "%s: no layer has a matrix", j->model);
    return false;
}

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
        const MiWeight *w = j->weights->pdata[i];
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

static void remove_folder(const Job *j)
{
    g_autofree char *job = g_build_filename(j->folder, "job", NULL);

    for (guint i = 0; i < j->weights->len; i++) {
        g_autofree char *file = mi_quantized_file(j->folder, ((const MiWeight *)j->weights->pdata[i])->name);
        g_unlink(file);
    }
    g_unlink(job);
    g_rmdir(j->folder);
}

/* ---- a matrix --------------------------------------------------------------------------------- */

static bool ready(Job *j, guint i)
{
    const MiWeight  *w = j->weights->pdata[i];
    g_autofree char *file = mi_quantized_file(j->folder, w->name);
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

static bool round_one(Job *j, guint i, const MiCalibration *c, GError **error)
{
    const MiWeight *w = j->weights->pdata[i];
    int64_t         n = 0;
    const float    *hessian = c ? mi_calibration_hessian(c, w->name, &n) : NULL;
    MiRounding      r;
    GError         *why = NULL;

    if (!mi_rounding_new(&r, w, &j->grid, error))
        return false;
    mi_rounding_fit(&r, &j->grid);
    bool ok = true;
    if (j->method == METHOD_GPTQ)
        ok = hessian && n == r.in && mi_round_gptq(&r, &j->grid, hessian);
    else
        mi_round_nearest(&r, &j->grid);
    if (!ok)
        g_set_error(error, MI_ERROR, MI_ERROR_NO_MEMORY, "%s: no memory for gptq, or its inputs have no inverse", w->name);
    if (ok) {
        j->errors[i] = mi_rounding_error(&r, hessian);
        g_autoptr(GBytes) data = mi_rounding_store(&r, &j->grid, j->storage, &j->errors[i]);
        g_autofree char  *file = mi_quantized_file(j->folder, w->name);
        ok = data && g_file_set_contents(file, g_bytes_get_data(data, NULL), (gssize)g_bytes_get_size(data), &why);
        if (!ok)
            g_set_error(error, MI_ERROR, MI_ERROR_IO, "%s", why ? why->message : "no memory for a matrix");
        g_clear_error(&why);
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
        mi_progress_line("%s, %u of %u: %s", methods[j->method], i + 1, j->weights->len, ((const MiWeight *)j->weights->pdata[i])->name);
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

    for (guint i = 0; i < j->weights->len; i++)
        names[i] = ((const MiWeight *)j->weights->pdata[i])->name;
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
    MiCalibration *c = mi_calibration_new(s->assembly, ids, j->windows, j->length);
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
    ok = ok && !stopped(error) && write_out(j, error);
    mi_interrupt_target(NULL, NULL);
    mi_progress_clear();
    return ok;
}

/* ---- the report ----------------------------------------------------------------------------------------- */

static void print_json(const Job *j)
{
    MiJson out = mi_json_new();

    mi_json_open(&out, NULL, '{');
    mi_json_string(&out, "written", j->out);
    mi_json_string(&out, "method", methods[j->method]);
    mi_json_int(&out, "bits", j->grid.bits);
    mi_json_int(&out, "group", j->grid.group);
    mi_json_bool(&out, "symmetric", j->grid.symmetric);
    mi_json_int(&out, "resumed", j->reused);
    mi_json_open(&out, "matrices", '[');
    for (guint i = 0; i < j->weights->len; i++) {
        mi_json_open(&out, NULL, '{');
        mi_json_string(&out, "name", ((const MiWeight *)j->weights->pdata[i])->name);
        mi_json_float(&out, "error", j->errors[i].weights);
        if (j->errors[i].outputs >= 0)
            mi_json_float(&out, "output_error", j->errors[i].outputs);
        mi_json_close(&out, '}');
    }
    mi_json_close(&out, ']');
    mi_json_close(&out, '}');
    mi_json_print(&out);
}

static void print_table(const Job *j)
{
    double sum = 0, outputs = 0;

    printf("%8s %8s  %s\n", "weights", j->errors[0].outputs >= 0 ? "outputs" : "", "relative error of");
    for (guint i = 0; i < j->weights->len; i++) {
        g_autofree char *output = j->errors[i].outputs >= 0 ? g_strdup_printf("%8.4f", j->errors[i].outputs) : g_strdup("        ");
        printf("%8.4f %s  %s\n", j->errors[i].weights, output, ((const MiWeight *)j->weights->pdata[i])->name);
        sum += j->errors[i].weights;
        outputs += j->errors[i].outputs;
    }
    printf("%s: %u matrices, mean error %.4f of the weights", j->out, j->weights->len, sum / j->weights->len);
    if (outputs >= 0)
        printf(", %.4f of the outputs", outputs / j->weights->len);
    printf(j->reused ? "; %d were ready from before\n" : "\n", j->reused);
}

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
    if (mi_session_open(&s, cl, j.calibrate ? MI_WITH_ENGINE : MI_WITH_PLUGINS, &error) && quantize(&j, &s, &error))
        (mi_flag(cl, "json") ? print_json : print_table)(&j);
    mi_model_close(&j.source);
    mi_session_close(&s);
    g_ptr_array_unref(j.weights);
    g_free(j.errors);
    g_free(j.folder);
    const int status = mi_cmd_report(error);
    return mi_interrupted() ? 130 : status;
}
