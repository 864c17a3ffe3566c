/* cmd_session.c - a session as a command line describes it, and the line that says how far loading is. */
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
/* A plugin that is there and refused, and a folder that --plugin-path names, are not only `inspect`'s to tell: without its
 * fusions a model would only be slower. */
static void tell_refused(const MiSession *s)
{
    const char      *path = mi_flag(s->line, "plugin-path");
    g_auto(GStrv)    dirs = g_strsplit(path ? path : "", G_SEARCHPATH_SEPARATOR_S, 0);
    const GPtrArray *files = mi_registry_files(s->registry);

    for (guint i = 0; i < files->len && strcmp(s->line->command->name, "inspect") != 0; i++) {
        const MiLoaded *l = files->pdata[i];
        if (l->state == MI_FILE_SKIPPED && g_strv_contains((const char *const *)dirs, l->file))
            g_message("--plugin-path: %s", l->why);
        else if (l->refused)
            g_message("plugin refused: %s", l->why);
    }
}

bool mi_session_open(MiSession *s, const MiCommandLine *line, MiSessionDepth depth, GError **error)
{
    const MiWanted wanted = { NULL, mi_flag(line, "config"), mi_flag(line, "plugin-path"),
                              (const char *const *)line->settings->pdata, line->settings->len };

    *s = (MiSession){ .line = line, .verbose = mi_flag(line, "verbose"), .progress = loading, .user = s };
    if (!mi_session_begin(s, &wanted, error))
        return false;
    tell_refused(s);
    return mi_session_deepen(s, depth, error);
}
