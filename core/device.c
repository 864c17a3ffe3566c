#include "device.h"

#include <string.h>

static const MiFeature *best_backend(MiRegistry *r)
{
    g_autoptr(GPtrArray) all = mi_registry_list(r, MI_KIND_BACKEND, NULL);
    const MiFeature     *best = NULL;

    for (guint i = 0; i < all->len; i++) {
        const MiFeature *f = all->pdata[i];
        const MiBackend *b = f->vtable;
        if ((!best || b->rank > ((const MiBackend *)best->vtable)->rank) && b->probe() > 0)
            best = f;
    }
    return best;
}

static bool has_file(MiRegistry *r, const char *name)
{
    const GPtrArray *files = mi_registry_files(r);

    for (guint i = 0; i < files->len; i++)
        if (g_str_has_suffix(((const MiLoaded *)files->pdata[i])->file, name))
            return true;
    return false;
}

static void append_message(GError **error, const char *text)
{
    g_autofree char *before = error && *error ? g_steal_pointer(&(*error)->message) : NULL;

    if (before)
        (*error)->message = g_strconcat(before, text, NULL);
}

bool mi_device_open(MiRegistry *r, const MiConfig *c, const char *name, const MiFeature **out, void **options, void **device,
                    GError **error)
{
    const bool      any = !*name || strcmp(name, "auto") == 0;
    g_auto(GStrv)   part = g_strsplit(any ? "" : name, ":", 2);
    guint64         index = 0;

    if (any) {
        if (!(*out = best_backend(r))) {
            g_set_error(error, MI_ERROR, MI_ERROR_DEVICE, "no backend with a usable device is loaded");
            return false;
        }
    } else if (!(*out = mi_registry_find(r, MI_KIND_BACKEND, part[0], "*", error))) {
        if (strcmp(part[0], "cuda") == 0 && !has_file(r, "backend_cuda.so"))
            append_message(error, "; this build has no CUDA parts: ./configure makes them where it finds nvcc, or with --with-cuda=DIRECTORY");
        return false;
    } else if (part[1] && !g_ascii_string_to_unsigned(part[1], 10, 0, 1023, &index, NULL)) {
        g_set_error(error, MI_ERROR, MI_ERROR_CONFIG, "[engine] device = '%s': the part after ':' is no device number", name);
        return false;
    }
    const MiBackend *b = (*out)->vtable;
    const int        n = b->probe();
    if ((int)index >= n) {
        g_set_error(error, MI_ERROR, MI_ERROR_DEVICE, "[engine] device = %s: this machine has %d usable %s device%s", name,
                    n, (*out)->name, n == 1 ? "" : "s");
        return false;
    }
    return mi_config_feature(c, *out, options, error) && (*device = b->open((int)index, *options, error));
}
