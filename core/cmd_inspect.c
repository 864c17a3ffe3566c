/* cmd_inspect.c - `inspect`: what plugins there are, one of their features, a file, a model. */
#include "cmd.h"
#include "inspect.h"

#include <stdio.h>

int mi_cmd_inspect(MiCommandLine *cl)
{
    g_autoptr(GString) out = g_string_new(NULL);
    const char        *what = cl->operands->len ? cl->operands->pdata[0] : NULL;
    GError            *error = NULL;
    MiSession          s;

    if (mi_session_open(&s, cl, MI_WITH_PLUGINS, &error)) {
        if (mi_flag(cl, "reference"))
            mi_inspect_reference(s.registry, out);
        else if (mi_flag(cl, "sample"))
            mi_inspect_sample(out);
        else
            mi_inspect(s.registry, s.config, what, mi_flag(cl, "json"), out, &error);
    }
    mi_session_close(&s);
    fwrite(out->str, 1, out->len, stdout);
    return mi_cmd_report(error);
}
