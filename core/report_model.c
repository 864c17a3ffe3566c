/* report_model.c - a model file as inspect shows it: what it is, what its
 * configuration says, its tokenizer, its tensors. */
#include "options.h"
#include "report.h"
#include "suggest.h"

#include <string.h>

/* Weights of one storage format. */
typedef struct {
    int64_t tensors, elements, bytes;
} Share;

static const MiFeature *feature_of(MiRegistry *reg, const MiFormat *vt)
{
    g_autoptr(GPtrArray) all = mi_registry_list(reg, MI_KIND_FORMAT, NULL);

    for (guint i = 0; i < all->len; i++)
        if (((const MiFeature *)all->pdata[i])->vtable == vt)
            return all->pdata[i];
    return NULL;
}

/* The model feature that records this architecture. */
static const MiFeature *recorder(MiRegistry *reg, const char *architecture)
{
    g_autoptr(GPtrArray) all = mi_registry_list(reg, MI_KIND_MODEL, NULL);

    for (guint i = 0; i < all->len; i++) {
        const MiFeature *f = all->pdata[i];
        if (g_strv_contains(((const MiModel *)f->vtable)->architectures, architecture))
            return f;
    }
    return NULL;
}

static int64_t elements(const MiWeight *w)
{
    int64_t n = 1;
    for (int d = 0; d < w->ndim && d < (int)G_N_ELEMENTS(w->shape); d++)
        if (__builtin_mul_overflow(n, w->shape[d], &n))
            return 0;
    return n;
}

static void tensor(MiReport *r, const MiWeight *w)
{
    if (!r->text) {
        mi_json_open(&r->json, NULL, '{');
        mi_json_string(&r->json, "name", w->name);
        mi_json_string(&r->json, "format", w->format);
        mi_json_open(&r->json, "shape", '[');
        for (int d = 0; d < w->ndim && d < (int)G_N_ELEMENTS(w->shape); d++)
            mi_json_int(&r->json, NULL, w->shape[d]);
        mi_json_close(&r->json, ']');
        mi_json_int(&r->json, "bytes", (int64_t)w->bytes);
        mi_json_close(&r->json, '}');
        return;
    }
    g_autofree char   *name = mi_printable(w->name, 100);
    g_autoptr(GString) shape = g_string_new(NULL);
    for (int d = 0; d < w->ndim && d < (int)G_N_ELEMENTS(w->shape); d++)
        g_string_append_printf(shape, "%s%" G_GINT64_FORMAT, d ? " x " : "", w->shape[d]);
    g_string_append_printf(r->text, "  %-52s %-6s %-16s %12zu\n", name, w->format, shape->str, w->bytes);
}

static int by_text(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

static void summary(MiReport *r, const MiSource *s)
{
    g_autoptr(GHashTable) shares = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, g_free);
    Share                 all = { 0 };

    for (size_t i = 0; i < s->vt->count(s->self); i++) {
        MiWeight w = { 0 };
        s->vt->at(s->self, i, &w);
        Share *x = g_hash_table_lookup(shares, w.format);
        if (!x)
            g_hash_table_insert(shares, (void *)w.format, x = g_new0(Share, 1));
        x->tensors++, all.tensors++;
        x->elements += elements(&w), all.elements += w.companion ? 0 : elements(&w);
        x->bytes += (int64_t)w.bytes, all.bytes += (int64_t)w.bytes;
    }
    mi_report_int(r, "parameters", all.elements);
    mi_report_int(r, "bytes", all.bytes);
    guint                   n;
    g_autofree const char **names = (const char **)g_hash_table_get_keys_as_array(shares, &n);
    qsort(names, n, sizeof *names, by_text);
    if (!r->text)
        mi_json_open(&r->json, "formats", '{');
    for (guint i = 0; i < n; i++) {
        const Share *x = g_hash_table_lookup(shares, names[i]);
        if (r->text) {
            g_string_append_printf(r->text, "  %-11s %6" G_GINT64_FORMAT " tensors %12" G_GINT64_FORMAT " bytes\n",
                                   names[i], x->tensors, x->bytes);
            continue;
        }
        mi_json_open(&r->json, names[i], '{');
        mi_json_int(&r->json, "tensors", x->tensors);
        mi_json_int(&r->json, "bytes", x->bytes);
        mi_json_close(&r->json, '}');
    }
    if (!r->text)
        mi_json_close(&r->json, '}');
}

static void metadata(MiReport *r, const MiSource *s)
{
    const char *key, *value;

    if (r->text)
        g_string_append(r->text, "metadata\n");
    else
        mi_json_open(&r->json, "metadata", '{');
    for (size_t i = 0; MI_HAS(s->vt, meta_at) && s->vt->meta_at(s->self, i, &key, &value); i++) {
        g_autofree char *name = mi_printable(key, 80), *shown = mi_printable(value, 120);
        if (r->text)
            g_string_append_printf(r->text, "  %s = %s\n", name, shown);
        else
            mi_json_string(&r->json, key, value);
    }
    if (!r->text)
        mi_json_close(&r->json, '}');
}

static bool tokenizer(MiReport *r, const MiSource *s, GError **error)
{
    MiTokenizerData t = { 0 };

    if (!MI_HAS(s->vt, tokenizer)) {
        mi_report_text(r, "tokenizer", "none");
        return true;
    }
    g_autoptr(GError) why = NULL;
    if (!s->vt->tokenizer(s->self, &t, &why)) {
        if (!g_error_matches(why, MI_ERROR, MI_ERROR_NOT_FOUND)) { /* a model without one is a model */
            g_propagate_error(error, g_steal_pointer(&why));
            return false;
        }
        mi_report_text(r, "tokenizer", "none");
        return true;
    }
    if (!r->text)
        mi_json_open(&r->json, "tokenizer", '{');
    mi_report_text(r, r->text ? "tokenizer" : "kind", t.kind);
    mi_report_text(r, "pre", t.pre ? t.pre : "none");
    mi_report_int(r, "pieces", t.n_pieces);
    mi_report_int(r, "merges", t.n_merges);
    mi_report_int(r, "bos", t.bos);
    mi_report_int(r, "eos", t.eos);
    mi_report_int(r, "chat template", t.chat_template ? (int64_t)strlen(t.chat_template) : 0);
    if (!r->text)
        mi_json_close(&r->json, '}');
    return true;
}

bool mi_report_model(MiReport *r, MiRegistry *reg, const MiSource *s, const char *path, GError **error)
{
    const MiFeature *format = feature_of(reg, s->vt);
    const char      *architecture = s->vt->meta(s->self, "architectures.0");
    const MiFeature *model = architecture ? recorder(reg, architecture) : NULL;

    mi_report_text(r, "model", path);
    mi_report_text(r, "format", format ? format->name : "unknown");
    mi_report_text(r, "architecture", architecture ? architecture : "not said");
    mi_report_text(r, "runs as", model ? model->name : "nothing: no loaded model records that architecture");
    summary(r, s);
    if (!tokenizer(r, s, error))
        return false;
    metadata(r, s);
    if (r->text)
        g_string_append(r->text, "tensors\n");
    else
        mi_json_open(&r->json, "tensors", '[');
    for (size_t i = 0; i < s->vt->count(s->self); i++) {
        MiWeight w = { 0 };
        s->vt->at(s->self, i, &w);
        tensor(r, &w);
    }
    if (!r->text)
        mi_json_close(&r->json, ']');
    return true;
}
