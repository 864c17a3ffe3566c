#include "context.h"
#include "arena.h"
#include "loader.h"
#include "tuned.h"

#include <miniinfer/plugin.h>
#include <string.h>

static MiOwnedContext *self(MiContext *ctx) { return (MiOwnedContext *)(void *)ctx; }
static bool            unified(const MiContext *ctx) { return ctx->backend->unified; }

typedef struct { size_t bytes; MiMemory kind; } Block;

/* What the backend said lacks how much there is, and what would help. */
static void say_what_is_free(MiContext *ctx, MiMemory kind, GError **error)
{
    size_t free, total;

    if (!error || !g_error_matches(*error, MI_ERROR, MI_ERROR_NO_MEMORY) || (kind == MI_MEM_PINNED && !unified(ctx)) ||
        !ctx->backend->memory(ctx->device, &free, &total, NULL))
        return;
    g_autofree char *have = g_format_size(free), *all = g_format_size(total);
    g_autofree char *taken = g_format_size(self(ctx)->allocated);
    g_autofree char *text = g_steal_pointer(&(*error)->message);
    (*error)->message = g_strdup_printf("%s; %s of %s are free, the model has taken %s; "
                                        "lower [engine] max_len or max_seqs", text, have, all, taken);
}

static void *context_alloc(MiContext *ctx, MiMemory kind, size_t bytes, GError **error)
{
    MiOwnedContext *c = self(ctx);
    void           *p = ctx->backend->alloc(ctx->device, kind, bytes, error);

    if (!p) {
        say_what_is_free(ctx, kind, error);
        return NULL;
    }
    Block *b = g_new(Block, 1);
    *b = (Block){ bytes, kind };
    g_hash_table_insert(c->blocks, p, b);
    c->allocated += bytes;
    c->pinned += kind == MI_MEM_PINNED ? bytes : 0;
    c->peak = MAX(c->peak, c->allocated);
    return p;
}

static void context_free(MiContext *ctx, MiMemory kind, void *p)
{
    MiOwnedContext *c = self(ctx);
    const Block    *b = p ? g_hash_table_lookup(c->blocks, p) : NULL;

    if (!b)
        return;
    c->allocated -= b->bytes;
    c->pinned -= b->kind == MI_MEM_PINNED ? b->bytes : 0;
    g_hash_table_remove(c->blocks, p);
    ctx->backend->free(ctx->device, kind, p);
}

/* ---- weights ------------------------------------------------------------------ */

bool mi_plain_dtype(const char *format, MiDType *out)
{
    static const struct { const char *name; MiDType dtype; } plain[] = { { "f32", MI_F32 }, { "f16", MI_F16 },
                                                                         { "bf16", MI_BF16 } };
    for (size_t i = 0; i < G_N_ELEMENTS(plain); i++)
        if (strcmp(plain[i].name, format) == 0)
            return *out = plain[i].dtype, true;
    return false;
}

size_t mi_weight_bytes_as(const MiWeight *w, MiDType dtype)
{
    size_t bytes = mi_dtype_size(dtype);

    for (int i = 0; i < w->ndim; i++)
        bytes *= (size_t)w->shape[i];
    return bytes;
}

bool mi_context_load_begin(MiOwnedContext *c, GError **error)
{
    return unified(&c->pub) || (c->loader = mi_loader_new(c, error));
}

bool mi_context_load_end(MiOwnedContext *c, GError **error)
{
    MiLoader *l = g_steal_pointer(&c->loader);
    return !l || mi_loader_free(l, error);
}

static bool context_upload(MiContext *ctx, void *dst, const void *src, size_t bytes, GError **error)
{
    if (self(ctx)->loader)
        return mi_loader_copy(self(ctx)->loader, dst, src, bytes, error);
    if (!unified(ctx))
        return ctx->backend->copy(ctx->device, ctx->stream, dst, src, bytes, error);
    memcpy(dst, src, bytes);
    return true;
}

static bool context_put(MiContext *ctx, void *dst, MiDType dtype, const MiWeight *w, GError **error)
{
    if (self(ctx)->loader)
        return mi_loader_put(self(ctx)->loader, dst, dtype, w, error);
    if (unified(ctx))
        return mi_weight_convert(w, 0, (int64_t)(mi_weight_bytes_as(w, dtype) / mi_dtype_size(dtype)), dtype, dst, error);
    g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED, "%s: weights are put only while the model loads", w->name);
    return false;
}

/* ---- a step --------------------------------------------------------------------- */

bool mi_context_stage(MiOwnedContext *c, size_t bytes, int n, GError **error)
{
    if (unified(&c->pub))
        return true;
    c->staging_bytes = mi_align(bytes);
    return (c->staging = c->pub.alloc(&c->pub, MI_MEM_PINNED, c->staging_bytes * (size_t)n, error)) != NULL;
}

void mi_context_stage_part(MiOwnedContext *c, int i)
{
    c->staging_at = c->staging_bytes * (size_t)i;
    c->staging_end = c->staging_at + c->staging_bytes;
    c->n_copies = 0;
}

bool mi_context_copy_all(const MiOwnedContext *c, const MiCopy *copies, int n, GError **error)
{
    const MiBackend *b = c->pub.backend;
    bool             ok = true;

    if (n && MI_HAS(b, copy_all))
        return b->copy_all(c->pub.device, c->pub.stream, copies, n, error);
    for (int i = 0; i < n && ok; i++)
        ok = b->copy(c->pub.device, c->pub.stream, copies[i].dst, copies[i].src, copies[i].bytes, error);
    return ok;
}

bool mi_context_flush(MiOwnedContext *c, GError **error)
{
    const int n = c->n_copies;

    c->n_copies = 0;
    return mi_context_copy_all(c, c->copies, n, error);
}

int mi_context_take(MiOwnedContext *c, MiCopy out[MI_MAX_COPIES])
{
    const int n = c->n_copies;

    memcpy(out, c->copies, (size_t)n * sizeof *out);
    c->n_copies = 0;
    return n;
}

static bool context_send(MiContext *ctx, void *dst, const void *src, size_t bytes, GError **error)
{
    MiOwnedContext *c = self(ctx);

    if (unified(ctx)) {
        if (dst != src)
            memcpy(dst, src, bytes);
        return true;
    }
    if (bytes > c->staging_end - c->staging_at) {
        g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED, "a step sends %zu bytes more than the %zu there is room for", bytes,
                    c->staging_end - c->staging_at);
        return false;
    }
    char *from = memcpy(c->staging + c->staging_at, src, bytes);
    c->staging_at += mi_align(bytes);
    c->copies[c->n_copies++] = (MiCopy){ dst, from, bytes };
    return c->n_copies < MI_MAX_COPIES || mi_context_flush(c, error);
}

/* ---- what was measured ------------------------------------------------------------ */

static const void *context_recall(MiContext *ctx, const char *key, size_t *bytes)
{
    return self(ctx)->tuned ? mi_tuned_recall(self(ctx)->tuned, key, bytes) : NULL;
}

static bool context_measures(MiContext *ctx) { return self(ctx)->tuned && mi_tuned_measures(self(ctx)->tuned); }

static void context_remember(MiContext *ctx, const char *key, const void *data, size_t bytes)
{
    if (self(ctx)->tuned)
        mi_tuned_remember(self(ctx)->tuned, key, data, bytes);
}

/* ---- the whole -------------------------------------------------------------------- */

bool mi_context_init(MiOwnedContext *c, const MiBackend *backend, void *device, GError **error)
{
    *c = (MiOwnedContext){
        .pub = { .struct_size = sizeof c->pub, .backend = backend, .device = device, .n_ranks = 1,
                 .alloc = context_alloc, .free = context_free, .upload = context_upload, .put = context_put,
                 .send = context_send, .recall = context_recall, .measures = context_measures, .remember = context_remember },
        .blocks = g_hash_table_new_full(NULL, NULL, NULL, g_free),
    };
    return backend->stream_new(device, &c->pub.stream, error);
}

void mi_context_clear(MiOwnedContext *c)
{
    GHashTableIter it;
    gpointer       p, b;

    if (!c->blocks)
        return;
    (void)mi_context_load_end(c, NULL);
    g_hash_table_iter_init(&it, c->blocks);
    while (g_hash_table_iter_next(&it, &p, &b))
        c->pub.backend->free(c->pub.device, ((Block *)b)->kind, p);
    g_clear_pointer(&c->blocks, g_hash_table_unref);
    c->pub.backend->stream_free(c->pub.device, c->pub.stream);
}
