/* api.c - libminiinfer: open, load, close, and what a handle knows of itself.  A thin layer over the session that the
 * commands use, too; miniinfer/miniinfer.h is the contract. */
#include "api.h"
#include "help.h"
#include "parts.h"
#include "suggest.h"

#include <string.h>

const char *miniinfer_version(void) { return MI_VERSION; }

/* ---- errors ----------------------------------------------------------------------- */

MiniinferCode mi_api_code(const GError *why)
{
    if (why->domain == MI_MISUSE)
        return MINIINFER_ERROR_MISUSE;
    if (why->domain == MI_ERROR) /* the same order */
        return (MiniinferCode)(why->code + MINIINFER_ERROR_PLUGIN);
    return why->domain == G_FILE_ERROR && why->code == G_FILE_ERROR_NOENT ? MINIINFER_ERROR_NOT_FOUND : MINIINFER_ERROR_IO;
}
G_STATIC_ASSERT((int)MINIINFER_ERROR_IO == (int)MI_ERROR_IO + (int)MINIINFER_ERROR_PLUGIN);

void mi_api_fill(MiniinferError *out, const GError *why)
{
    static const char dots[] = "...";

    if (!out)
        return;
    g_autofree char *text = mi_printable(why->message, strlen(why->message));
    size_t           n = strlen(text);
    out->code = mi_api_code(why);
    if (n >= sizeof out->message) {
        for (n = sizeof out->message - sizeof dots; n && ((unsigned char)text[n] & 0xc0) == 0x80;)
            n--;
        memcpy(text + n, dots, sizeof dots);
        n += sizeof dots - 1;
    }
    memcpy(out->message, text, n + 1);
}

bool mi_api_told(bool ok, GError *why, MiniinferError *out)
{
    if (ok) {
        if (out)
            out->code = MINIINFER_OK, out->message[0] = 0;
        return true;
    }
    mi_api_fill(out, why);
    g_error_free(why);
    return false;
}

bool mi_api_sized(void *to, size_t bytes, const void *from, size_t least, GError **error)
{
    size_t n = 0;

    memset(to, 0, bytes);
    if (from)
        memcpy(&n, from, sizeof n);
    if (n < least) {
        g_set_error(error, MI_MISUSE, 0, "a struct without its struct_size");
        return false;
    }
    for (size_t i = bytes; i < n; i++)
        if (((const char *)from)[i]) {
            g_set_error(error, MI_MISUSE, 0, "a struct of a newer libminiinfer; this is " MI_VERSION);
            return false;
        }
    memcpy(to, from, MIN(n, bytes));
    return true;
}

/* ---- a handle's life ---------------------------------------------------------------- */

Miniinfer *mi_api_ref(Miniinfer *mi)
{
    g_atomic_int_inc(&mi->refs);
    return mi;
}

void mi_api_unref(Miniinfer *mi)
{
    if (!g_atomic_int_dec_and_test(&mi->refs))
        return;
    g_mutex_clear(&mi->lock);
    g_mutex_clear(&mi->parts_lock);
    g_cond_clear(&mi->idle);
    g_free(mi);
}

bool mi_api_enter(Miniinfer *mi, bool model, GError **error)
{
    const char *why = NULL;

    if (!mi) {
        g_set_error(error, MI_MISUSE, 0, "the handle is NULL");
        return false;
    }
    g_mutex_lock(&mi->lock);
    if (mi->closing)
        why = "the engine is being closed";
    else if (model && !mi->loaded)
        why = "no model is loaded: call miniinfer_load()";
    else
        mi->users++;
    g_mutex_unlock(&mi->lock);
    if (why)
        g_set_error_literal(error, MI_MISUSE, 0, why);
    return !why;
}

void mi_api_leave(Miniinfer *mi)
{
    g_mutex_lock(&mi->lock);
    if (--mi->users == 0)
        g_cond_broadcast(&mi->idle);
    g_mutex_unlock(&mi->lock);
}

bool mi_api_on_engine_thread(Miniinfer *mi) { return g_atomic_pointer_get(&mi->engine_thread) == g_thread_self(); }

void mi_api_block_signals(sigset_t *before)
{
    static const int faults[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS };
    sigset_t         set;

    sigfillset(&set);
    for (size_t i = 0; i < G_N_ELEMENTS(faults); i++)
        sigdelset(&set, faults[i]);
    pthread_sigmask(SIG_BLOCK, &set, before);
}

void mi_api_restore_signals(const sigset_t *before) { pthread_sigmask(SIG_SETMASK, before, NULL); }

/* ---- open ----------------------------------------------------------------------------- */

/* "batch-size" -> "engine.max_seqs": an option of some command that stands for a key. */
static const char *key_of(const char *name, GPtrArray *names)
{
    for (const MiCommand *c = mi_commands; c->name; c++) {
        const MiFlag *const tables[] = { mi_common_flags, c->flags };
        for (int t = 0; t < 2; t++)
            for (const MiFlag *f = tables[t]; f->name; f++) {
                if (f->key && strcmp(f->name, name) == 0)
                    return f->key;
                if (f->key)
                    g_ptr_array_add(names, (void *)f->name);
            }
    }
    return NULL;
}

/* out: key and value, in turn, borrowed. */
static bool collect(const MiniinferPair *pairs, GPtrArray *out, GError **error)
{
    g_autoptr(GPtrArray) names = g_ptr_array_new();

    for (const MiniinferPair *p = pairs; p && p->key; p++) {
        const char        *key = strchr(p->key, '.') ? p->key : key_of(p->key, names);
        g_autoptr(GString) message = g_string_new(NULL);
        g_autofree char   *shown = mi_printable(p->key, 60);
        if (!key)
            g_string_printf(message, "settings: unknown key '%s'", shown), mi_suggest_append(message, p->key, names);
        else if (!p->value)
            g_string_printf(message, "settings: '%s' has no value", shown);
        if (message->len) {
            g_set_error_literal(error, MI_ERROR, MI_ERROR_CONFIG, message->str);
            return false;
        }
        g_ptr_array_add(out, (void *)key);
        g_ptr_array_add(out, (void *)p->value);
    }
    return true;
}

Miniinfer *miniinfer_open(const char *file, const MiniinferPair *settings, MiniinferError *error)
{
    g_autoptr(GPtrArray) pairs = g_ptr_array_new();
    GError              *why = NULL;
    Miniinfer           *mi = g_new0(Miniinfer, 1);
    bool                 ok = collect(settings, pairs, &why);

    mi->refs = 1;
    g_mutex_init(&mi->lock);
    g_cond_init(&mi->idle);
    g_mutex_init(&mi->parts_lock);
    if (ok) {
        const MiWanted wanted = { "settings", file, NULL, (const char *const *)pairs->pdata, pairs->len };
        if (!(ok = mi_session_begin(&mi->session, &wanted, &why)))
            mi_session_close(&mi->session);
    }
    if (mi_api_told(ok, why, error))
        return mi;
    mi_api_unref(mi);
    return NULL;
}

/* ---- load ------------------------------------------------------------------------------- */

static const char *dtype_name(MiDType t)
{
    return t == MI_F32 ? "fp32" : t == MI_F16 ? "fp16" : t == MI_BF16 ? "bf16" : t == MI_I8 ? "int8" : "fp8";
}

static void describe(Miniinfer *mi)
{
    const MiAssembly *a = mi->session.assembly;
    const MiEngineApi *e = mi->session.engine->api;
    const char       *file = a->settings.model.chat_template;
    int32_t           max_len;

    mi->model = (MiniinferModel){
        .name = e->model(mi->session.engine, &max_len), .architecture = mi_source_meta(&a->source, "architectures.0"),
        .device = a->backend->name, .dtype = dtype_name(a->dtype), .kv_dtype = dtype_name(a->kv_dtype),
        .attention = a->attention->name, .cache = a->cache->name, .scheduler = a->scheduler->name,
        .max_len = max_len, .max_seqs = a->max_seqs, .prefill_step = a->prefill_step, .n_layers = a->n_layers,
        .n_vocab = a->vocab, .bos = e->bos(mi->session.engine), .has_tokenizer = a->text.vt,
        .has_template = a->text.vt && (a->text.data.chat_template || *file),
        .bytes_mapped = a->plan.mapped, .bytes_allocated = a->plan.allocated,
    };
}

static bool load(MiSession *s, GError **error)
{
    if (!mi_session_deepen(s, MI_WITH_PLAN, error))
        return false;
    s->assembly->quiet = true;
    return mi_session_deepen(s, MI_WITH_ENGINE, error);
}

static bool begin_loading(Miniinfer *mi, GError **error)
{
    bool free_to;

    g_mutex_lock(&mi->lock);
    if ((free_to = !mi->loaded && !mi->loader))
        mi->loader = g_thread_self();
    g_mutex_unlock(&mi->lock);
    if (!free_to)
        g_set_error_literal(error, MI_MISUSE, 0, "a model is loaded already");
    return free_to;
}

bool miniinfer_load(Miniinfer *mi, bool (*progress)(void *user, uint64_t done, uint64_t total), void *user,
                    MiniinferError *error)
{
    GError  *why = NULL;
    sigset_t before;
    bool     ok;

    if (!mi_api_enter(mi, false, &why))
        return mi_api_told(false, why, error);
    if ((ok = begin_loading(mi, &why))) {
        mi->session.progress = progress;
        mi->session.user = user;
        mi_api_block_signals(&before);
        if ((ok = load(&mi->session, &why)))
            describe(mi);
        else /* a second try begins at the beginning */
            mi_assembly_free(g_steal_pointer(&mi->session.assembly));
        mi_api_restore_signals(&before);
        g_mutex_lock(&mi->lock);
        mi->loader = NULL;
        mi->loaded = ok;
        g_mutex_unlock(&mi->lock);
    }
    mi_api_leave(mi);
    return mi_api_told(ok, why, error);
}

/* ---- close -------------------------------------------------------------------------------- */

bool miniinfer_close(Miniinfer *mi)
{
    if (!mi)
        return true;
    g_mutex_lock(&mi->lock);
    const bool inside = mi->closing || mi->loader == g_thread_self() || mi_api_on_engine_thread(mi);
    mi->closing = mi->closing || !inside;
    while (mi->users && !inside)
        g_cond_wait(&mi->idle, &mi->lock);
    g_mutex_unlock(&mi->lock);
    if (inside)
        return false;
    mi_session_close(&mi->session);
    mi_api_parts_close(&mi->parts);
    mi_api_unref(mi);
    return true;
}

/* ---- facts ---------------------------------------------------------------------------------- */

const MiniinferModel *miniinfer_model(Miniinfer *mi)
{
    if (!mi_api_enter(mi, true, NULL))
        return NULL;
    mi_api_leave(mi);
    return &mi->model;
}

bool miniinfer_stats(Miniinfer *mi, MiniinferStats *out)
{
    MiniinferStats now = { .struct_size = out ? out->struct_size : 0 };
    MiStats        s;

    if (!now.struct_size || !mi_api_enter(mi, true, NULL))
        return false;
    mi->session.engine->api->stats(mi->session.engine, &s);
    mi_api_leave(mi);
    now.running = s.running, now.waiting = s.waiting, now.requests = s.requests;
    now.tokens_in = s.tokens_in, now.tokens_out = s.tokens_out, now.steps = s.steps, now.host_us = s.host_us;
    now.kv_used = s.kv_used, now.kv_room = s.kv_room;
    memcpy(out, &now, MIN(now.struct_size, sizeof now));
    return true;
}
