#include "tables.h"
#include "names.h"
#include <cpu/blocks.h>
#include <cpu/quants.h>
#include <stdlib.h>
#include <string.h>

bool mi_weights_add(MiWeights *w, const MiWeight *new)
{
    if (w->n == w->room) {
        const size_t room = w->room ? 2 * w->room : 256;
        MiWeight    *at = g_try_renew(MiWeight, w->at, room);
        if (!at)
            return false;
        w->at = at;
        w->room = room;
    }
    char *name = g_try_malloc(strlen(new->name) + 1);
    if (!name)
        return false;
    w->at[w->n] = *new;
    w->at[w->n++].name = strcpy(name, new->name);
    return true;
}

void mi_weights_free(MiWeights *w)
{
    for (size_t i = 0; i < w->n; i++)
        g_free((char *)(uintptr_t)w->at[i].name);
    g_free(w->at);
    g_free(w->sorted);
}

static int by_name(const void *a, const void *b)
{
    const MiWeight *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

bool mi_weights_sort(MiWeights *w, const char *path, GError **error)
{
    char shown[64];

    w->sorted = g_try_new0(const MiWeight *, w->n + 1);
    if (!w->sorted) {
        g_set_error(error, MI_ERROR, MI_ERROR_NO_MEMORY, "%s: no memory for its tables", path);
        return false;
    }
    for (size_t i = 0; i < w->n; i++)
        w->sorted[i] = &w->at[i];
    qsort(w->sorted, w->n, sizeof *w->sorted, by_name);
    for (size_t i = 1; i < w->n; i++)
        if (by_name(&w->sorted[i - 1], &w->sorted[i]) == 0) {
            const char *name = w->sorted[i]->name;
            g_set_error(error, MI_ERROR, MI_ERROR_MODEL, "%s: tensor '%s' is there twice", path,
                        mi_shown(name, strlen(name), shown));
            return false;
        }
    return true;
}

const MiWeight *mi_weights_find(const MiWeights *w, const char *name)
{
    const MiWeight         wanted = { .name = name }, *key = &wanted;
    const MiWeight *const *found = w->n ? bsearch(&key, w->sorted, w->n, sizeof *w->sorted, by_name) : NULL;
    return found ? *found : NULL;
}

/* Of what was quantised before it was stored. */
static bool decode_quant(const MiWeight *w, int64_t first, int64_t n, float *out, GError **error)
{
    const int64_t total = w->quant->out * w->quant->in;

    if (first < 0 || n < 0 || first > total || n > total - first) {
        g_set_error(error, MI_ERROR, MI_ERROR_MODEL, "%s: elements %" G_GINT64_FORMAT " and %" G_GINT64_FORMAT
                    " more are not of its %" G_GINT64_FORMAT, w->name, first, n, total);
        return false;
    }
    g_autofree void *scratch = g_try_malloc(mi_quant_scratch(w->quant));
    if (!scratch) {
        g_set_error(error, MI_ERROR, MI_ERROR_NO_MEMORY, "%s: no memory to decode it", w->name);
        return false;
    }
    if (mi_quant_decode(w->quant, first, n, out, scratch))
        return true;
    g_set_error(error, MI_ERROR, MI_ERROR_MODEL, "%s: one of its scales is no finite number", w->name);
    return false;
}

bool mi_weights_decode(const MiWeight *w, int64_t first, int64_t n, float *out, GError **error)
{
    const MiBlockFormat *f = mi_block_format(w->format);

    if (w->quant)
        return decode_quant(w, first, n, out, error);
    if (!f) {
        g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED, "%s is stored as %s, which is not decoded here", w->name,
                    w->format);
        return false;
    }
    const int64_t total = (int64_t)(w->bytes / (size_t)f->bytes) * f->values;
    if (first < 0 || n < 0 || first > total || n > total - first || first % f->values || n % f->values) {
        g_set_error(error, MI_ERROR, MI_ERROR_MODEL, "%s: elements %" G_GINT64_FORMAT " and %" G_GINT64_FORMAT
                    " more are no whole blocks of %d of its %" G_GINT64_FORMAT, w->name, first, n, f->values, total);
        return false;
    }
    f->decode((const char *)w->data + first / f->values * f->bytes, out, n);
    return true;
}

bool mi_meta_add(MiMeta *m, const char *key, const char *value)
{
    if (mi_meta_find(m, key))
        return true;
    if (m->n == m->room) {
        const size_t room = m->room ? 2 * m->room : 64;
        MiMetaPair  *at = g_try_renew(MiMetaPair, m->at, room);
        if (!at)
            return false;
        m->at = at;
        m->room = room;
    }
    const size_t n_key = strlen(key) + 1, n_value = strlen(value) + 1;
    char        *copy = g_try_malloc(n_key + n_value);
    if (!copy)
        return false;
    memcpy(copy, key, n_key);
    memcpy(copy + n_key, value, n_value);
    m->at[m->n++] = (MiMetaPair){ copy, copy + n_key };
    return true;
}

bool mi_meta_addf(MiMeta *m, const char *key, const char *form, ...)
{
    va_list args;
    va_start(args, form);
    g_autofree char *value = g_strdup_vprintf(form, args);
    va_end(args);
    return mi_meta_add(m, key, value);
}

void mi_meta_free(MiMeta *m)
{
    for (size_t i = 0; i < m->n; i++)
        g_free(m->at[i].key); /* the value is behind it */
    g_free(m->at);
}

const char *mi_meta_find(const MiMeta *m, const char *key)
{
    for (size_t i = 0; i < m->n; i++)
        if (strcmp(m->at[i].key, key) == 0)
            return m->at[i].value;
    return NULL;
}
