#include "session.h"

static void phase(MiSession *s, const char *what, int64_t since)
{
    MiPhase p = { what, g_get_monotonic_time() - since };
    g_array_append_val(s->phases, p);
}

static bool configure(MiSession *s, const MiWanted *w, GError **error)
{
    if (w->config && !mi_config_read(s->config, w->config, error))
        return false;
    for (size_t i = 0; i < w->n_settings; i += 2)
        if (!mi_config_set(s->config, w->settings[i], w->settings[i + 1], error))
            return false;
    return mi_settings_read(s->config, &s->settings, error);
}

bool mi_session_begin(MiSession *s, const MiWanted *w, GError **error)
{
    s->began = g_get_monotonic_time();
    s->registry = mi_registry_new();
    s->config = mi_config_new();
    s->phases = g_array_new(FALSE, FALSE, sizeof(MiPhase));
    mi_config_origin(s->config, w->origin);
    if (!configure(s, w, error))
        return false;
    mi_plugin_load_all(s->registry, w->plugin_path, s->settings.plugin_path, s->settings.disable);
    phase(s, "plugins", s->began);
    return mi_config_check(s->config, s->registry, error);
}

bool mi_session_deepen(MiSession *s, MiSessionDepth depth, GError **error)
{
    if (depth >= MI_WITH_PLAN && !s->assembly) {
        if (!(s->assembly = mi_assembly_new(s->registry, s->config, error)))
            return false;
        int            n;
        const MiPhase *p = mi_assembly_phases(s->assembly, &n);
        g_array_append_vals(s->phases, p, (guint)n);
    }
    if (depth >= MI_WITH_ENGINE && !s->engine) {
        s->engine = mi_engine_start(s->assembly, s->progress, s->user, error);
        if (!s->engine)
            return false;
        int            n;
        const MiPhase *p = mi_engine_phases(s->engine, &n);
        g_array_append_vals(s->phases, p, (guint)n);
    }
    return true;
}

void mi_session_close(MiSession *s)
{
    if (s->engine)
        mi_engine_stop(s->engine);
    if (s->assembly)
        mi_assembly_free(s->assembly);
    mi_config_free(s->config);
    mi_registry_free(s->registry);
    g_array_unref(s->phases);
}
