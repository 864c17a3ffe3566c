/* quantize_fold.c - scales of inputs: where a program lets them be folded into what gives those inputs, and their files.
 *
 * A norm whose result only projections read: its gain and bias.  A product of two values, one of them what a projection
 * gives: its rows and bias.  An attention: rows of the projection of its values, those of a head for each head that
 * shares it. */
#include "numbers.h"
#include "quantize_awq.h"

#include <string.h>

typedef struct {
    const MiRecording *r;
    GHashTable        *uses; /* MiWeight * -> how many nodes have it */
    GPtrArray         *folds;
} Finder;

static int32_t base_of(const MiRecording *r, MiVal v) { return mi_recording_value(r, v)->base.id; }

/* All of its base, element by element, in whatever heads. */
static bool whole(const MiRecording *r, MiVal v)
{
    const MiValue *x = mi_recording_value(r, v), *base = mi_recording_value(r, x->base);
    return mi_row_size(&x->type) == mi_row_size(&base->type) && x->offset == 0;
}

static const MiNode *giver(const MiRecording *r, int32_t base)
{
    for (guint i = 0; i < r->nodes->len; i++) {
        const MiNode *n = mi_recording_node(r, (int)i);
        for (int k = 0; k < n->n_out; k++)
            if (n->out[k].id == base)
                return n;
    }
    return NULL;
}

/* How often nodes, or the program's outputs, read it. */
static int readers(const MiRecording *r, int32_t base)
{
    GHashTableIter it;
    gpointer       id;
    int            n = 0;

    for (guint i = 0; i < r->nodes->len; i++) {
        const MiNode *node = mi_recording_node(r, (int)i);
        for (int k = 0; k < node->n_in; k++)
            n += base_of(r, node->in[k]) == base;
    }
    g_hash_table_iter_init(&it, r->outputs);
    while (g_hash_table_iter_next(&it, NULL, &id))
        n += base_of(r, (MiVal){ GPOINTER_TO_INT(id) }) == base;
    return n;
}

static bool once(const Finder *f, const MiWeight *w)
{
    return !w || GPOINTER_TO_INT(g_hash_table_lookup(f->uses, w)) == 1;
}

static bool projection(const Finder *f, const MiNode *n)
{
    return n && strcmp(n->op, "linear") == 0 && n->weight[0] && mi_quantizable(n->weight[0]) && once(f, n->weight[0]) &&
           once(f, n->weight[1]);
}

/* The projection that gives all of v, which nothing but one node reads. */
static const MiNode *rows_of(const Finder *f, MiVal v)
{
    const int32_t base = base_of(f->r, v);
    const MiNode *n = whole(f->r, v) && readers(f->r, base) == 1 ? giver(f->r, base) : NULL;
    return projection(f, n) ? n : NULL;
}

static bool from_norm(const Finder *f, const MiNode *n, MiFold *out)
{
    const MiNorm *a = n->attr;

    if ((strcmp(n->op, "rmsnorm") != 0 && strcmp(n->op, "layernorm") != 0) || !n->weight[0] || a->offset != 0 ||
        !once(f, n->weight[0]) || !once(f, n->weight[1]))
        return false;
    *out = (MiFold){ .from = n->weight[0], .gain = n->weight[0], .bias = n->weight[1], .n = n->weight[0]->shape[0] };
    return true;
}

static bool from_product(const Finder *f, const MiNode *n, MiFold *out)
{
    for (int k = 1; k >= 0 && strcmp(n->op, "mul") == 0; k--) {
        const MiNode *rows = base_of(f->r, n->in[0]) == base_of(f->r, n->in[1]) ? NULL : rows_of(f, n->in[k]);
        if (!rows)
            continue;
        *out = (MiFold){ .from = rows->weight[0], .bias = rows->weight[1], .n = rows->weight[0]->shape[0] };
        return true;
    }
    return false;
}

static bool from_attention(const Finder *f, const MiNode *n, MiFold *out)
{
    const MiNode *append = strcmp(n->op, "attention") == 0 ? giver(f->r, base_of(f->r, n->in[1])) : NULL;

    if (!append || strcmp(append->op, "kv_append") != 0 || append->kv != n->kv ||
        base_of(f->r, append->in[0]) == base_of(f->r, append->in[1]))
        return false;
    for (guint i = 0; i < f->r->nodes->len; i++) /* nobody else reads that cache */
        if (mi_recording_node(f->r, (int)i)->kv == n->kv && mi_recording_node(f->r, (int)i) != n &&
            mi_recording_node(f->r, (int)i) != append)
            return false;
    const MiType *q = &mi_recording_value(f->r, n->in[0])->type, *v = &mi_recording_value(f->r, append->in[1])->type;
    const MiNode *rows = rows_of(f, append->in[1]);
    if (!rows || q->ndim != 2 || v->ndim != 2 || q->dim[1] != v->dim[1] || q->dim[0] % v->dim[0])
        return false;
    *out = (MiFold){ .from = rows->weight[0], .bias = rows->weight[1], .n = rows->weight[0]->shape[0], .unit = v->dim[1],
                     .repeat = q->dim[0] / v->dim[0] };
    return true;
}

/* The fold of the inputs of a projection, with all that read them. */
static void look(Finder *f, const MiNode *linear)
{
    const int32_t base = base_of(f->r, linear->in[0]);
    const MiNode *from = giver(f->r, base);
    MiFold        found, *fold;
    GPtrArray    *to = g_ptr_array_new();

    for (guint i = 0; i < f->r->nodes->len; i++) {
        const MiNode *n = mi_recording_node(f->r, (int)i);
        if (projection(f, n) && base_of(f->r, n->in[0]) == base && whole(f->r, n->in[0]))
            g_ptr_array_add(to, (gpointer)(uintptr_t)n->weight[0]);
    }
    if (from && (int)to->len == readers(f->r, base) &&
        (from_norm(f, from, &found) || from_product(f, from, &found) || from_attention(f, from, &found))) {
        found.to = to;
        found.unit = found.unit ? found.unit : found.n;
        found.repeat = MAX(found.repeat, 1);
        if (found.n * found.repeat == linear->weight[0]->shape[1]) {
            fold = g_new(MiFold, 1);
            *fold = found;
            g_ptr_array_add(f->folds, fold);
            return;
        }
    }
    g_ptr_array_unref(to);
}

static void free_fold(gpointer data)
{
    MiFold *f = data;

    g_ptr_array_unref(f->to);
    g_free(f);
}

GPtrArray *mi_folds_new(const MiRecording *r)
{
    Finder f = { r, g_hash_table_new(NULL, NULL), g_ptr_array_new_with_free_func(free_fold) };

    for (guint i = 0; i < r->nodes->len; i++)
        for (int k = 0; k < MI_MAX_WEIGHTS; k++) {
            const MiWeight *w = mi_recording_node(r, (int)i)->weight[k];
            if (w)
                g_hash_table_insert(f.uses, (gpointer)(uintptr_t)w,
                                    GINT_TO_POINTER(GPOINTER_TO_INT(g_hash_table_lookup(f.uses, w)) + 1));
        }
    for (guint i = 0; i < r->nodes->len; i++) {
        const MiNode *n = mi_recording_node(r, (int)i);
        if (projection(&f, n) && !mi_fold_to(f.folds, n->weight[0]->name))
            look(&f, n);
    }
    g_hash_table_unref(f.uses);
    return f.folds;
}

const MiFold *mi_fold_to(const GPtrArray *folds, const char *name)
{
    for (guint i = 0; i < folds->len; i++) {
        const MiFold *f = folds->pdata[i];
        for (guint k = 0; k < f->to->len; k++)
            if (strcmp(((const MiWeight *)f->to->pdata[k])->name, name) == 0)
                return f;
    }
    return NULL;
}

const MiFold *mi_fold_from(const GPtrArray *folds, const char *name)
{
    for (guint i = 0; i < folds->len; i++)
        if (strcmp(((const MiFold *)folds->pdata[i])->from->name, name) == 0)
            return folds->pdata[i];
    return NULL;
}

/* ---- files ----------------------------------------------------------------------- */

/* As the source has it. */
static bool open_weight(const MiSource *source, const MiWeight *named, MiWeight *out, GError **error)
{
    if (source->vt->find(source->self, named->name, out) && out->ndim == named->ndim &&
        memcmp(out->shape, named->shape, (size_t)out->ndim * sizeof *out->shape) == 0) {
        out->source = source;
        return true;
    }
    g_set_error(error, MI_ERROR, MI_ERROR_MODEL, "%s is not what it was when the model was opened first", named->name);
    return false;
}

static float *vector(const MiSource *source, const MiWeight *named, GError **error)
{
    g_autofree float *x = g_try_new(float, (gsize)named->shape[0]);
    MiWeight          w;

    if (!x)
        g_set_error(error, MI_ERROR, MI_ERROR_NO_MEMORY, "%s: no memory for it", named->name);
    if (!x || !open_weight(source, named, &w, error) || !source->vt->decode(source->self, &w, 0, w.shape[0], x, error))
        return NULL;
    return g_steal_pointer(&x);
}

/* Divided by the scales; exact: those were chosen such that it has values of bf16. */
static bool fold_into(const MiSource *source, const MiWeight *w, bool exact, const float *scales, const char *folder,
                      GError **error)
{
    g_autofree float *x = w ? vector(source, w, error) : NULL;

    for (int64_t i = 0; x && i < w->shape[0]; i++)
        x[i] = exact ? mi_number_as(MI_BF16, x[i] / scales[i]) : x[i] / scales[i];
    return !w || (x && mi_quantized_save(folder, w->name, "folded", x, (size_t)w->shape[0] * sizeof *x, error));
}

float *mi_fold_saved(const MiFold *f, const char *folder)
{
    g_autofree char *file = mi_quantized_file(folder, f->from->name, "scales");
    char            *data = NULL;
    gsize            bytes = 0;

    if (g_file_get_contents(file, &data, &bytes, NULL) && bytes == (gsize)f->n * sizeof(float))
        return (float *)(void *)data;
    g_free(data);
    return NULL;
}

float *mi_fold_find(const MiFold *f, const MiSource *source, const MiGrid *grid, const MiCalibration *c, const char *folder,
                    GError **error)
{
    const char          *name = ((const MiWeight *)f->to->pdata[0])->name;
    g_autoptr(GPtrArray) to = g_ptr_array_new();
    g_autofree MiWeight *matrices = g_new(MiWeight, f->to->len);
    const MiFold         of = { f->from, f->gain, f->bias, f->n, f->unit, f->repeat, to };
    const MiWeight      *exact = f->gain ? f->gain : f->bias;
    g_autofree float    *values = exact ? vector(source, exact, error) : NULL, *scales = g_try_new(float, (gsize)f->n);
    MiInputs             x;
    double               alpha = 0;

    if (exact && !values)
        return NULL;
    for (guint k = 0; k < f->to->len; k++) {
        if (!open_weight(source, f->to->pdata[k], &matrices[k], error))
            return NULL;
        g_ptr_array_add(to, &matrices[k]);
    }
    if (!scales || !mi_calibration_inputs(c, name, &x)) {
        g_set_error(error, MI_ERROR, MI_ERROR_NO_MEMORY, "%s: no sums for it, or no memory", name);
        return NULL;
    }
    if (!mi_fold_search(&of, grid, x.sums, x.magnitudes, values, scales, &alpha, error) ||
        !(alpha == 0 || (fold_into(source, f->gain, true, scales, folder, error) &&
                         fold_into(source, f->bias, !f->gain, scales, folder, error))) ||
        !mi_quantized_save(folder, f->from->name, "scales", scales, (size_t)f->n * sizeof *scales, error))
        return NULL;
    return g_steal_pointer(&scales);
}
