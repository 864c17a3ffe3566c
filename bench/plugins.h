/* plugins.h - where programs of bench/ have their plugins from. */
#ifndef BENCH_PLUGINS_H
#define BENCH_PLUGINS_H

#include "registry.h"

/* The folder that MI_PLUGINS names, else plugins/ below the working directory: plugins are searched in absolute folders only. */
static inline void load_plugins(MiRegistry *r)
{
    const char      *dir = g_getenv("MI_PLUGINS");
    g_autofree char *here = g_get_current_dir(), *plugins = dir ? g_strdup(dir) : g_build_filename(here, "plugins", NULL);

    mi_plugin_load_dir(r, plugins);
}

#endif
