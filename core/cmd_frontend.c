/* cmd_frontend.c - `chat` and `batch`: front ends, which are plugins. */
#include "cmd.h"
#include "interrupt.h"
#include "usage.h"

#include <stdio.h>
#include <string.h>

/* What the core's sections say is a front end's default, too. */
static bool inherit(MiConfig *c, const MiFeature *f, const char *key, const char *value, GError **error)
{
    g_autofree char *section = g_strconcat("frontend.", f->name, NULL), *dotted = g_strconcat(section, ".", key, NULL);

    for (const MiOption *o = f->options; o && o->key; o++)
        if (strcmp(o->key, key) == 0 && *value && !mi_config_get(c, section, key))
            return mi_config_set(c, dotted, value, error);
    return true;
}

static bool inherit_all(MiSession *s, const MiFeature *f, GError **error)
{
    static const struct { const char *section, *key; } from[] = {
        { "generate", "max_tokens" }, { "generate", "min_tokens" }, { "generate", "ignore_eos" }, { "generate", "stop" },
        { "generate", "system" },     { "sampler", "seed" },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(from); i++) {
        g_autofree char *value = g_strdup(mi_config_get(s->config, from[i].section, from[i].key));
        if (value && !inherit(s->config, f, from[i].key, value, error))
            return false;
    }
    return true;
}

typedef struct {
    const MiFrontend *vt;
    void             *self;
} Serving;

static void stop(void *user)
{
    const Serving *s = user;
    s->vt->stop(s->self);
}

static bool serve(MiSession *s, const MiFeature *f, GError **error)
{
    Serving          at = { f->vtable, NULL };
    g_autofree void *options = NULL;

    if (!mi_config_feature(s->config, f, &options, error) || !(at.self = at.vt->create(s->engine, options, error)))
        return false;
    mi_interrupt_target(stop, &at);
    const bool ok = at.vt->serve(at.self, error);
    mi_interrupt_target(NULL, NULL);
    at.vt->destroy(at.self);
    return ok;
}

/* With -v: what the engine did, and what its cache spared it. */
static void report(const MiSession *s)
{
    MiStats is;

    s->engine->api->stats(s->engine, &is);
    fprintf(stderr, "%" G_GUINT64_FORMAT " requests in %" G_GUINT64_FORMAT " steps: %" G_GUINT64_FORMAT " tokens in, %"
            G_GUINT64_FORMAT " out\n", is.requests, is.steps, is.tokens_in, is.tokens_out);
    mi_usage_print(stderr, &(MiStats){ 0 }, &is);
}

/* own_signals: the front end handles Ctrl-C itself, as an editor of lines must. */
static int run(MiCommandLine *cl, const char *name, bool own_signals)
{
    GError          *error = NULL;
    const MiFeature *f;
    MiSession        s;

    if (!own_signals)
        mi_interrupt_start();
    if (mi_session_open(&s, cl, MI_WITH_PLUGINS, &error) &&
        (f = mi_registry_find(s.registry, MI_KIND_FRONTEND, name, "*", &error)) && inherit_all(&s, f, &error) &&
        mi_session_deepen(&s, MI_WITH_ENGINE, &error) &&
        (serve(&s, f, &error), s.verbose))
        report(&s);
    mi_session_close(&s);
    const int status = mi_cmd_report(error);
    return status ? status : !own_signals && mi_interrupted() ? 130 : 0;
}

int mi_cmd_chat(MiCommandLine *cl) { return run(cl, "chat", true); }

int mi_cmd_batch(MiCommandLine *cl)
{
    g_ptr_array_add(cl->settings, g_strdup("frontend.batch.input"));
    g_ptr_array_add(cl->settings, g_strdup(cl->operands->pdata[0]));
    return run(cl, "batch", false);
}
