/* session.h - what a command needs of the engine, opened as far as it asks. */
#ifndef MI_CORE_SESSION_H
#define MI_CORE_SESSION_H

#include "command_line.h"
#include "engine.h"

typedef enum {
    MI_WITH_PLUGINS, /* the plugins, and the configuration checked against them */
    MI_WITH_PLAN,    /* the assembly: nothing large is allocated, no weight read */
    MI_WITH_ENGINE,  /* ready to answer */
} MiSessionDepth;

/* What a configuration is made of; borrowed while it is opened. */
typedef struct {
    const char        *origin;      /* of the settings, for messages; NULL: the command line */
    const char        *config;      /* a file; may be NULL */
    const char        *plugin_path; /* searched first; may be NULL */
    const char *const *settings;    /* [n_settings] "section.key" and its value, in turn */
    size_t             n_settings;
} MiWanted;

typedef struct {
    const MiCommandLine *line; /* NULL: it has none */
    MiRegistry          *registry;
    MiConfig            *config;
    MiSettings           settings; /* strings are the configuration's */
    MiAssembly          *assembly; /* NULL below MI_WITH_PLAN */
    MiEngine            *engine;   /* NULL below MI_WITH_ENGINE */
    GArray              *phases;   /* MiPhase, how long each part of opening took */
    int64_t              began;    /* microseconds, monotonic */
    int                  percent;  /* of loading, shown last */
    bool                 verbose;  /* -v */
    MiLoadProgress      *progress; /* while weights load; may be NULL */
    void                *user;
} MiSession;

/* The plugins and the configuration; of *s, progress and user are set, the rest is zero.  To be closed even if it fails. */
bool mi_session_begin(MiSession *s, const MiWanted *, GError **error);
/* The same as a command line says it, as deep as it is needed. */
bool mi_session_open(MiSession *, const MiCommandLine *, MiSessionDepth, GError **error);
void mi_session_close(MiSession *);

/* Goes on to a deeper depth than it was opened with. */
bool mi_session_deepen(MiSession *, MiSessionDepth, GError **error);

/* A line that overwrites itself on standard error, where that is a terminal that can. */
bool mi_progress_shown(void);
void mi_progress_line(const char *format, ...) G_GNUC_PRINTF(1, 2);
void mi_progress_clear(void);

#endif
