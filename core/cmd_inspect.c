/* cmd_inspect.c - `inspect`: what plugins there are, and whether a file is one. */
#include "cmd.h"

#include <stdio.h>
#include <string.h>

static bool file(const char *path, GError **error)
{
    const MiPlugin *p = mi_plugin_open(path, error);

    if (p)
        printf("%s: %s %s, ABI %u.%u, ok\n", path, p->name, p->version, p->abi_major, p->abi_minor);
    return p;
}

static void list(MiRegistry *r)
{
    GPtrArray *files = mi_registry_files(r);

    for (guint i = 0; i < files->len; i++) {
        const MiLoaded *l = files->pdata[i];
        if (l->why)
            printf("skipped   %s\n          %s\n", l->file, l->why);
        for (uint32_t f = 0; l->plugin && f < l->plugin->n_features; f++) {
            g_autofree char *base = g_path_get_basename(l->file);
            printf("%-9s %-12s %-5s %-24s %s\n", mi_kind_name(l->plugin->features[f].kind), l->plugin->features[f].name,
                   l->plugin->features[f].backend, base, l->plugin->version);
        }
    }
}

int mi_cmd_inspect(MiCommandLine *cl)
{
    const char *what = cl->operands->len ? cl->operands->pdata[0] : NULL;
    GError     *error = NULL;
    MiRegistry *r = mi_registry_new();

    mi_plugin_load_all(r, mi_flag(cl, "plugin-path"), NULL, NULL);
    if (!what)
        list(r);
    else
        file(what, &error);
    mi_registry_free(r);
    return mi_cmd_report(error);
}
