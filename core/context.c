#include "context.h"

#include <miniinfer/plugin.h>
#include <string.h>

static MiOwnedContext *self(MiContext *ctx) { return (MiOwnedContext *)(void *)ctx; }

typedef struct { size_t bytes; MiMemory kind; } Block;

static void *context_alloc(MiContext *ctx, MiMemory kind, size_t bytes, GError **error)
{
    MiOwnedContext *c = self(ctx);
    void           *p = ctx->backend->alloc(ctx->device, kind, bytes, error);

    if (!p)
        return NULL;
    Block *b = g_new(Block, 1);
    *b = (Block){ bytes, kind };
    g_hash_table_insert(c->blocks, p, b);
    c->allocated += bytes;
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
    g_hash_table_remove(c->blocks, p);
    ctx->backend->free(ctx->device, kind, p);
}

static bool context_upload(MiContext *ctx, void *dst, const void *src, size_t bytes, GError **error)
{
    if (MI_HAS(ctx->backend, unified)) {
        memcpy(dst, src, bytes);
        return true;
    }
    return ctx->backend->copy(ctx->device, ctx->stream, dst, src, bytes, error);
}

void mi_context_init(MiOwnedContext *c, const MiBackend *backend, void *device)
{
    *c = (MiOwnedContext){
        .pub = { .struct_size = sizeof c->pub, .backend = backend, .device = device, .n_ranks = 1,
                 .alloc = context_alloc, .free = context_free, .upload = context_upload },
        .blocks = g_hash_table_new_full(NULL, NULL, NULL, g_free),
    };
}

void mi_context_clear(MiOwnedContext *c)
{
    GHashTableIter it;
    gpointer       p, b;

    if (!c->blocks)
        return;
    g_hash_table_iter_init(&it, c->blocks);
    while (g_hash_table_iter_next(&it, &p, &b))
        c->pub.backend->free(c->pub.device, ((Block *)b)->kind, p);
    g_clear_pointer(&c->blocks, g_hash_table_unref);
}
