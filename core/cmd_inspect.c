/* cmd_inspect.c - `inspect`: what plugins there are, one of their features, a file, a model. */
#include "cmd.h"
#include "inspect.h"

#include <stdio.h>

static bool configure(MiCommandLine *cl, MiConfig *c, MiRegistry *r, GError **error)
{
    const char *file = mi_flag(cl, "config");
    MiSettings  s;

    if (file && !mi_config_read(c, file, error))
        return false;
    for (guint i = 0; i < cl->settings->len; i += 2)
        if (!mi_config_set(c, cl->settings->pdata[i], cl->settings->pdata[i + 1], error))
            return false;
    if (!mi_settings_read(c, &s, error))
        return false;
    mi_plugin_load_all(r, mi_flag(cl, "plugin-path"), s.plugin_path, s.disable);
    return mi_config_check(c, r, error);
}

int mi_cmd_inspect(MiCommandLine *cl)
{
    g_autoptr(GString) out = g_string_new(NULL);
    const char        *what = cl->operands->len ? cl->operands->pdata[0] : NULL;
    MiRegistry        *r = mi_registry_new();
    MiConfig          *c = mi_config_new();
    GError            *error = NULL;

    if (configure(cl, c, r, &error)) {
        if (mi_flag(cl, "reference"))
            mi_inspect_reference(r, out);
        else if (mi_flag(cl, "sample"))
            mi_inspect_sample(out);
        else
            mi_inspect(r, c, what, mi_flag(cl, "json"), out, &error);
    }
    fwrite(out->str, 1, out->len, stdout);
    mi_config_free(c);
    mi_registry_free(r);
    return mi_cmd_report(error);
}
