/* engine_run.h - an engine from its settings, on the processor or on tests/remote.c's device, for tests that compare
 * what requests get: test_paged.c, test_determinism.c. */
#ifndef TESTS_ENGINE_RUN_H
#define TESTS_ENGINE_RUN_H

#include "common.h"
#include "engine.h"
#include "parts.h"
#ifdef MI_TEST_REMOTE /* two steps under way, in memory of the device's own */
#include "remote.h"
#define DEVICE "remote"
#else
#define DEVICE "cpu"
#endif

#include <unistd.h>

typedef struct {
    MiRegistry *registry;
    MiConfig   *config;
    MiAssembly *assembly;
    MiEngine   *engine;
    int64_t     room; /* before anything ran */
} Run;

/* plugins: NULL-terminated; settings: "key value key value ...". */
static void run_start(Run *r, const char *const *plugins, const char *model, const char *settings)
{
    g_auto(GStrv)     words = g_strsplit_set(settings, " ", -1);
    g_autoptr(GError) error = NULL;
    MiStats           s;

    *r = (Run){ .registry = load(plugins), .config = mi_config_new() };
#ifdef MI_TEST_REMOTE
    remote_add(r->registry);
    remote_late_us = 5;
#endif
    bool ok = mi_config_set(r->config, "model.path", model, &error);
    for (char **w = words; ok && *w && **w; w += 2)
        ok = mi_config_set(r->config, w[0], w[1], &error);
    if (!ok || !(r->assembly = mi_assembly_new(r->registry, r->config, &error)) ||
        !(r->engine = mi_engine_start(r->assembly, NULL, NULL, &error)))
        fail_msg("%s: %s", settings, error->message);
    r->engine->api->stats(r->engine, &s);
    r->room = s.kv_room;
}

static void stop(Run *r)
{
    mi_engine_stop(r->engine);
    mi_assembly_free(r->assembly);
    mi_config_free(r->config);
    mi_registry_free(r->registry);
}

/* All that was used is free again, to the position; the last sequence leaves a moment after its last event. */
static MiStats at_rest(Run *r)
{
    MiStats s;

    for (int i = 0; i < 5000; i++) {
        r->engine->api->stats(r->engine, &s);
        if (!s.running && !s.kv_used)
            break;
        g_usleep(1000);
    }
    assert_int_equal(s.kv_used, 0);
    assert_int_equal(s.kv_room, r->room);
    return s;
}

/* ---- which model ----------------------------------------------------------------------- */

static char *tiny_path(void)
{
    char *path = NULL;
    int   fd = g_file_open_tmp("miniinfer-XXXXXX.tiny", &path, NULL);

    assert_true(fd >= 0 && write(fd, "tiny\n", 5) == 5);
    close(fd);
    return path;
}

static char *stories_path(void)
{
    const char *models = strcmp(DEVICE, "cpu") == 0 ? g_getenv("MI_MODELS") : NULL; /* the other takes its time */
    char       *path = models ? g_build_filename(models, "stories260K.gguf", NULL) : NULL;

    if (path && !g_file_test(path, G_FILE_TEST_EXISTS))
        g_clear_pointer(&path, g_free);
    return path;
}

#endif
