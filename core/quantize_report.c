/* quantize_report.c - what `quantize` says at its end: the error of each matrix, as a table, as JSON, as a plot. */
#include "json_out.h"
#include "plot.h"
#include "quantize.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int mi_layer_of(const char *name)
{
    const char *at = strstr(name, ".layers.");
    return at && g_ascii_isdigit(at[8]) ? (int)MIN(strtol(at + 8, NULL, 10), 1 << 20) : -1;
}

/* What comes behind the layer, without ".weight"; the caller frees it. */
static char *projection_of(const char *name)
{
    const char *at = strstr(name, ".layers."), *dot = at ? strchr(at + 8, '.') : NULL;
    char       *what = g_strdup(dot ? dot + 1 : name);

    if (g_str_has_suffix(what, ".weight"))
        what[strlen(what) - strlen(".weight")] = '\0';
    return what;
}

/* ---- table, JSON -------------------------------------------------------------------- */

typedef double (*Figure)(const MiRoundingError *);
static double weights(const MiRoundingError *e) { return e->weights; }
static double outputs(const MiRoundingError *e) { return e->outputs; }
static double nearest(const MiRoundingError *e) { return e->nearest; }

/* Over all matrices; < 0: of one it is not known. */
static double mean(const MiRoundingReport *r, Figure figure)
{
    double sum = 0;

    for (int i = 0; i < r->n; i++) {
        if (figure(&r->errors[i]) < 0)
            return -1;
        sum += figure(&r->errors[i]) / r->n;
    }
    return sum;
}

static void cell(double x)
{
    if (x < 0)
        printf("%9s", "");
    else
        printf("%9.4f", x);
}

void mi_rounding_report_print(const MiRoundingReport *r)
{
    const bool with_outputs = mean(r, outputs) >= 0, with_nearest = mean(r, nearest) >= 0;

    printf("%9s%9s%9s  relative error of\n", "weights", with_outputs ? "outputs" : "", with_nearest ? "by rtn" : "");
    for (int i = 0; i < r->n; i++) {
        cell(r->errors[i].weights);
        cell(r->errors[i].outputs);
        cell(r->errors[i].nearest);
        printf("  %s\n", r->weights[i]->name);
    }
    printf("%s: %d matrices, mean error %.4f of the weights", r->out, r->n, mean(r, weights));
    if (with_outputs)
        printf(", %.4f of the outputs", mean(r, outputs));
    if (with_nearest)
        printf(" (%.4f by rtn)", mean(r, nearest));
    if (r->reused)
        printf("; %d were ready from before", r->reused);
    putchar('\n');
}

void mi_rounding_report_json(const MiRoundingReport *r)
{
    MiJson out = mi_json_new();

    mi_json_open(&out, NULL, '{');
    mi_json_string(&out, "written", r->out);
    mi_json_string(&out, "method", r->method);
    mi_json_int(&out, "bits", r->grid.bits);
    mi_json_int(&out, "group", r->grid.group);
    mi_json_bool(&out, "symmetric", r->grid.symmetric);
    mi_json_int(&out, "resumed", r->reused);
    mi_json_open(&out, "matrices", '[');
    for (int i = 0; i < r->n; i++) {
        mi_json_open(&out, NULL, '{');
        mi_json_string(&out, "name", r->weights[i]->name);
        mi_json_float(&out, "error", r->errors[i].weights);
        if (r->errors[i].outputs >= 0)
            mi_json_float(&out, "output_error", r->errors[i].outputs);
        if (r->errors[i].nearest >= 0)
            mi_json_float(&out, "rtn_output_error", r->errors[i].nearest);
        mi_json_close(&out, '}');
    }
    mi_json_close(&out, ']');
    mi_json_close(&out, '}');
    mi_json_print(&out);
}

/* ---- plot ------------------------------------------------------------------------------ */

static gint by_name(gconstpointer a, gconstpointer b) { return strcmp(*(char *const *)a, *(char *const *)b); }

bool mi_rounding_report_plot(const MiRoundingReport *r, const char *file, GError **error)
{
    const bool           with_outputs = mean(r, outputs) >= 0, with_nearest = mean(r, nearest) >= 0;
    const double         all = mean(r, with_outputs ? outputs : weights);
    g_autoptr(GPtrArray) kinds = g_ptr_array_new_with_free_func(g_free);
    int                  layers = 0;

    for (int i = 0; i < r->n; i++) {
        char *what = projection_of(r->weights[i]->name);
        layers = MAX(layers, mi_layer_of(r->weights[i]->name) + 1);
        if (g_ptr_array_find_with_equal_func(kinds, what, g_str_equal, NULL))
            g_free(what);
        else
            g_ptr_array_add(kinds, what);
    }
    g_ptr_array_sort(kinds, by_name);
    const size_t        n = (size_t)kinds->len * (size_t)layers;
    g_autofree double  *before = g_new(double, n + 1), *after = g_new(double, n + 1);
    g_autofree MiDots  *panels = g_new(MiDots, kinds->len + 1);
    for (size_t i = 0; i < n; i++)
        before[i] = after[i] = NAN;
    for (int i = 0; i < r->n; i++) {
        g_autofree char *what = projection_of(r->weights[i]->name);
        guint            kind = 0;
        g_ptr_array_find_with_equal_func(kinds, what, g_str_equal, &kind);
        const size_t at = (size_t)kind * (size_t)layers + (size_t)MAX(mi_layer_of(r->weights[i]->name), 0);
        after[at] = 100 * (with_outputs ? outputs : weights)(&r->errors[i]);
        before[at] = with_nearest ? 100 * r->errors[i].nearest : NAN;
    }
    for (guint k = 0; k < kinds->len; k++)
        panels[k] = (MiDots){ kinds->pdata[k], { after + k * (size_t)layers, before + k * (size_t)layers } };
    g_autofree char *group = r->grid.group ? g_strdup_printf("groups of %d", (int)r->grid.group) : g_strdup("rows");
    g_autofree char *title = g_strdup_printf("Relative error of %s, %s: %d bits, %s, %s; mean %.2f %%",
                                             with_outputs ? "outputs" : "weights", r->method, r->grid.bits, group,
                                             r->grid.symmetric ? "symmetric" : "asymmetric", 100 * all);
    const MiDotPlot plot = { title, "layer", "%", { r->method, with_nearest ? "rtn" : NULL }, layers, panels, (int)kinds->len };
    return mi_plot_dots(file, &plot, error);
}
