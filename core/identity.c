/* identity.c - see identity.h.  Payloads are not read through: the beginning of each weight tells one training of a
 * model from the next. */
#include "identity.h"

#include <string.h>

enum { BEGINNING = 64 /* bytes of a weight */ };

static void add_text(GChecksum *sum, const char *text)
{
    g_checksum_update(sum, (const guchar *)(text ? text : ""), text ? (gssize)strlen(text) : 0);
    g_checksum_update(sum, (const guchar *)"", 1); /* its end */
}

static void add_weight(GChecksum *sum, const MiWeight *w)
{
    add_text(sum, w->name);
    add_text(sum, w->format);
    for (int i = 0; i < w->ndim; i++) {
        g_autofree char *n = g_strdup_printf("%" G_GINT64_FORMAT, w->shape[i]);
        add_text(sum, n);
    }
    if (w->data)
        g_checksum_update(sum, w->data, (gssize)MIN(w->bytes, BEGINNING));
}

static void add_template(GChecksum *sum, const MiAssembly *a)
{
    const char      *file = a->settings.model.chat_template;
    g_autofree char *own = NULL;

    if (file && *file && g_file_get_contents(file, &own, NULL, NULL))
        add_text(sum, own);
    else
        add_text(sum, a->text.data.chat_template);
}

char *mi_identity_model(const MiAssembly *a)
{
    GChecksum      *sum = g_checksum_new(G_CHECKSUM_SHA256);
    const MiSource *s = &a->source;
    const char     *key, *value;

    for (size_t i = 0; MI_HAS(s->vt, meta_at) && s->vt->meta_at(s->self, i, &key, &value); i++) {
        add_text(sum, key);
        add_text(sum, value);
    }
    for (size_t i = 0; i < s->vt->count(s->self); i++) {
        MiWeight w;
        s->vt->at(s->self, i, &w);
        add_weight(sum, &w);
    }
    add_text(sum, a->settings.model.load);
    add_text(sum, a->settings.model.tokenizer);
    add_text(sum, a->settings.engine.dtype);
    add_template(sum, a);
    char *text = g_strdup(g_checksum_get_string(sum));
    g_checksum_free(sum);
    return text;
}

char *mi_identity_sampling(const MiAssembly *a)
{
    GString *text = g_string_new(NULL);

    for (int i = 0; i < a->n_links; i++) {
        const MiLink    *l = &a->links[i];
        g_autofree char *row = l->defaults ? g_compute_checksum_for_data(G_CHECKSUM_SHA256, l->defaults, l->row_size) : NULL;
        g_string_append_printf(text, "%s %s\n", l->feature->name, row ? row : "");
    }
    return g_string_free(text, FALSE);
}
