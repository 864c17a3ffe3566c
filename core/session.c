#include "session.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* ---- the progress line ------------------------------------------------------ */
bool mi_progress_shown(void)
{
    const char *term = g_getenv("TERM");
    return isatty(STDERR_FILENO) && !g_getenv("NO_COLOR") && !(term && strcmp(term, "dumb") == 0);
}

void mi_progress_line(const char *format, ...)
{
    va_list args;

    if (!mi_progress_shown())
        return;
    fputs("\r\033[K", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fflush(stderr);
}

void mi_progress_clear(void)
{
    if (mi_progress_shown())
        fputs("\r\033[K", stderr);
}

/* A fast start stays silent: a line that flashes by is noise. */
static bool loading(void *user, uint64_t done, uint64_t total)
{
    MiSession *s = user;
    const int  percent = total ? (int)(100 * done / total) : 0;

    if (percent != s->percent && g_get_monotonic_time() - s->began > 300000)
        mi_progress_line("loading weights: %d %%", s->percent = percent);
    return true;
}

/* ---- opening ---------------------------------------------------------------- */
static void phase(MiSession *s, const char *what, int64_t since)
{
    MiPhase p = { what, g_get_monotonic_time() - since };
    g_array_append_val(s->phases, p);
}

static bool configure(MiSession *s, GError **error)
{
    const char *file = mi_flag(s->line, "config");

    if (file && !mi_config_read(s->config, file, error))
        return false;
    for (guint i = 0; i < s->line->settings->len; i += 2)
        if (!mi_config_set(s->config, s->line->settings->pdata[i], s->line->settings->pdata[i + 1], error))
            return false;
    return mi_settings_read(s->config, &s->settings, error);
}

bool mi_session_open(MiSession *s, const MiCommandLine *line, MiSessionDepth depth, GError **error)
{
    int64_t since = g_get_monotonic_time();

    *s = (MiSession){ .line = line, .registry = mi_registry_new(), .config = mi_config_new(), .began = since,
                      .phases = g_array_new(FALSE, FALSE, sizeof(MiPhase)), .verbose = mi_flag(line, "verbose") };
    if (!configure(s, error))
        return false;
    mi_plugin_load_all(s->registry, mi_flag(line, "plugin-path"), s->settings.plugin_path, s->settings.disable);
    phase(s, "plugins", since);
    return mi_config_check(s->config, s->registry, error) && mi_session_deepen(s, depth, error);
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
        s->engine = mi_engine_start(s->assembly, loading, s, error);
        mi_progress_clear();
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
