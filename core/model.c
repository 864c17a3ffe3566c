/* model.c - finds a model's files and opens them.
 *
 * A path that exists is taken as it is.  A name such as Qwen/Qwen2-0.5B-Instruct
 * is looked up in the local Hugging Face cache, in this order:
 * $HF_HUB_CACHE, $HF_HOME/hub, ~/.cache/huggingface/hub.  Nothing is downloaded. */
#include "assembly.h"

#include <string.h>

static char *hub_dir(void)
{
    const char *hub = g_getenv("HF_HUB_CACHE"), *home = g_getenv("HF_HOME");
    if (hub && *hub)
        return g_strdup(hub);
    if (home && *home)
        return g_build_filename(home, "hub", NULL);
    return g_build_filename(g_get_home_dir(), ".cache", "huggingface", "hub", NULL);
}

/* org/name, of letters that the hub allows, and nothing that walks elsewhere. */
static bool is_hub_name(const char *path)
{
    const char *slash = strchr(path, '/');
    return g_ascii_isalnum(*path) && slash && g_ascii_isalnum(slash[1]) && !strchr(slash + 1, '/') &&
           !strstr(path, "..") &&
           !path[strspn(path, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./")];
}

static char *in_hub(const char *name, GError **error)
{
    g_autofree char *hub = hub_dir(), *folder = g_strdelimit(g_strdup(name), "/", '\0');
    g_autofree char *org = g_strdup(folder), *repo = g_strconcat("models--", org, "--", name + strlen(org) + 1, NULL);
    g_autofree char *ref = g_build_filename(hub, repo, "refs", "main", NULL), *commit = NULL;

    if (!g_file_get_contents(ref, &commit, NULL, NULL)) {
        g_set_error(error, MI_ERROR, MI_ERROR_NOT_FOUND,
                    "model '%s' is neither a file here nor in the Hugging Face cache %s; "
                    "fetch it with: hf download %s", name, hub, name);
        return NULL;
    }
    g_strstrip(commit);
    if (!*commit || commit[strspn(commit, "0123456789abcdef")]) {
        g_set_error(error, MI_ERROR, MI_ERROR_MODEL, "%s: not a commit of the Hugging Face cache", ref);
        return NULL;
    }
    return g_build_filename(hub, repo, "snapshots", commit, NULL);
}

static char *locate(const char *path, GError **error)
{
    if (!path || !*path) {
        g_set_error(error, MI_ERROR, MI_ERROR_CONFIG,
                    "no model; say where it is with --model.path or path = in [model]");
        return NULL;
    }
    if (g_file_test(path, G_FILE_TEST_EXISTS))
        return g_strdup(path);
    if (is_hub_name(path))
        return in_hub(path, error);
    g_set_error(error, MI_ERROR, MI_ERROR_NOT_FOUND, "%s: no such model file or directory", path);
    return NULL;
}

/* The format that is surest of the file, or the one that the configuration names. */
static const MiFeature *choose_format(MiRegistry *r, const char *name, const char *path, GError **error)
{
    g_autoptr(GPtrArray) all = NULL;
    g_autoptr(GString)   have = g_string_new(NULL);
    const MiFeature     *best = NULL;
    int                  surest = 0;

    if (strcmp(name, "auto") != 0)
        return mi_registry_find(r, MI_KIND_FORMAT, name, "*", error);
    all = mi_registry_list(r, MI_KIND_FORMAT, NULL);
    for (guint i = 0; i < all->len; i++) {
        const MiFeature *f = all->pdata[i];
        const int        sure = ((const MiFormat *)f->vtable)->probe(path);
        if (sure > surest)
            surest = sure, best = f;
        g_string_append_printf(have, " %s", f->name);
    }
    if (!best)
        g_set_error(error, MI_ERROR, MI_ERROR_MODEL, "%s: no model that a loaded format reads (there are:%s)", path,
                    have->len ? have->str : " none");
    return best;
}

bool mi_model_open(MiRegistry *r, const MiConfig *c, const char *path, MiSource *out, GError **error)
{
    const char       *format = mi_config_get(c, "model", "format"), *load = mi_config_get(c, "model", "load");
    g_autofree char  *found = locate(path, error);

    if (load && strcmp(load, "dummy") == 0)
        format = "dummy"; /* a format of that name, format_dummy.so */
    const MiFeature *f = found ? choose_format(r, format ? format : "auto", found, error) : NULL;

    *out = (MiSource){ 0 };
    if (!f)
        return false;
    g_autofree void *options = NULL;
    if (!mi_config_feature(c, f, &options, error))
        return false;
    const MiFormat *vt = f->vtable;
    void           *self = vt->open(found, options, error);
    if (!self)
        return false;
    *out = (MiSource){ vt, self };
    return true;
}

void mi_model_close(MiSource *s)
{
    if (s->self)
        s->vt->close(s->self);
    *s = (MiSource){ 0 };
}

bool mi_text_open(MiRegistry *r, const MiConfig *c, const MiSource *source, MiTextCoder *out, GError **error)
{
    const char       *name = mi_config_get(c, "model", "tokenizer");

    *out = (MiTextCoder){ 0 };
    if (!MI_HAS(source->vt, tokenizer)) {
        g_set_error(error, MI_ERROR, MI_ERROR_NOT_FOUND, "this model's files have no tokenizer");
        return false;
    }
    if (!source->vt->tokenizer(source->self, &out->data, error))
        return false;
    if (!name || strcmp(name, "auto") == 0)
        name = out->data.kind;
    const MiFeature *f = mi_registry_find(r, MI_KIND_TOKENIZER, name, "*", error);
    if (!f)
        return false;
    g_autofree void *options = NULL;
    if (!mi_config_feature(c, f, &options, error))
        return false;
    out->vt = f->vtable;
    return (out->self = out->vt->open(&out->data, options, error)) != NULL;
}

void mi_text_close(MiTextCoder *t)
{
    if (t->self && MI_HAS(t->vt, close))
        t->vt->close(t->self);
    *t = (MiTextCoder){ 0 };
}
