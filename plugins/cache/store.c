/* store.c - one allocation, and what of it a host has to fill. */
#include "store.h"
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { ALIGN = 256, SCALES = 4 /* bytes of a position and head */ };

static bool product(size_t *x, int64_t by) { return !__builtin_mul_overflow(*x, (size_t)by, x); }

/* mi_kv_shift() of a layer, so many that scales begin aligned. */
static size_t shift_bytes(const MiCacheSpec *spec)
{
    return ((size_t)spec->n_kv_heads * (size_t)spec->head_dim * sizeof(float) + ALIGN - 1) / ALIGN * ALIGN;
}

/* The one computation that sizes and addresses come from. */
static bool measure(const MiCacheSpec *spec, StoreShape shape, size_t *side, size_t *scales, size_t *tables, size_t *all)
{
    size_t layer;

    *side = mi_dtype_size(spec->dtype);
    *tables = ((size_t)spec->max_tokens + (2 + (size_t)shape.max_blocks) * (size_t)spec->max_seqs) * sizeof(int32_t);
    if ((int64_t)shape.n_blocks * shape.block_size > INT32_MAX || /* slots are that */
        !product(side, spec->head_dim) || !product(side, shape.block_size) || !product(side, spec->n_kv_heads) ||
        !product(side, shape.n_blocks) || *side > SIZE_MAX / 16)
        return false;
    *scales = mi_dtype_scaled(spec->dtype) ? *side / (size_t)spec->head_dim * SCALES + shift_bytes(spec) : 0;
    *scales = (*scales + ALIGN - 1) / ALIGN * ALIGN;
    *side = (*side + ALIGN - 1) / ALIGN * ALIGN;
    layer = 2 * *side + *scales;
    *all = layer;
    return product(all, shape.n_layers) && !__builtin_add_overflow(*all, *tables, all);
}

size_t store_bytes(const MiCacheSpec *spec, StoreShape shape)
{
    size_t side, scales, tables, all;
    return measure(spec, shape, &side, &scales, &tables, &all) ? all : SIZE_MAX;
}

/* Every head has its own stretch of positions, most of them unused at first: small pages are
 * filled as positions are, a huge one would be whole at the first.  A hint: it may fail. */
static void use_small_pages(char *data, size_t bytes)
{
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    const uintptr_t first = ((uintptr_t)data + page - 1) / page * page, end = ((uintptr_t)data + bytes) / page * page;

    if (first < end)
        (void)madvise((void *)first, end - first, MADV_NOHUGEPAGE);
}

bool store_new(Store *s, MiContext *ctx, const MiCacheSpec *spec, StoreShape shape, GError **error)
{
    size_t all;

    *s = (Store){ .spec = *spec, .shape = shape, .ctx = ctx };
    if (spec->dtype == MI_I32 || (mi_dtype_scaled(spec->dtype) && spec->head_dim % 4)) {
        g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED,
                    "a cache of f32, f16 or bf16 can be made, of fp8 or int8 for heads of a multiple of 4, not %d; set "
                    "[engine] kv_dtype", spec->head_dim);
        return false;
    }
    if (!measure(spec, shape, &s->side_bytes, &s->scale_bytes, &s->table_bytes, &all)) {
        g_set_error(error, MI_ERROR, MI_ERROR_NO_MEMORY,
                    "%d positions in %d sequences are more than there can be; lower [engine] max_len or max_seqs",
                    shape.block_size, shape.n_blocks);
        return false;
    }
    if (!(s->data = ctx->alloc(ctx, MI_MEM_DEVICE, all, error)))
        return false;
    for (int i = 0; i < shape.n_layers && s->scale_bytes; i++) {
        g_autofree char *zeros = g_malloc0(shift_bytes(spec));
        char            *at = store_scales(s, i) - shift_bytes(spec);
        if (ctx->backend->unified)
            memcpy(at, zeros, shift_bytes(spec));
        else if (!ctx->upload(ctx, at, zeros, shift_bytes(spec), error)) {
            ctx->free(ctx, MI_MEM_DEVICE, s->data);
            return false;
        }
    }
    if (ctx->backend->unified)
        use_small_pages(s->data, all);
    s->tables = ctx->backend->unified ? (int32_t *)(void *)(s->data + all - s->table_bytes) : g_malloc0(s->table_bytes);
    s->kv_len = s->tables;
    s->kv_start = s->kv_len + spec->max_seqs;
    s->block = s->kv_start + spec->max_seqs;
    s->slots = s->block + (size_t)spec->max_seqs * (size_t)shape.max_blocks;
    memset(s->block, 0, (size_t)(s->slots - s->block) * sizeof *s->block);
    return true;
}

void store_free(Store *s)
{
    if (!s->ctx->backend->unified)
        g_free(s->tables);
    s->ctx->free(s->ctx, MI_MEM_DEVICE, s->data);
}

static char *after_sides(const Store *s) { return s->data + s->side_bytes * 2 * (size_t)s->shape.n_layers; }
static char *device_tables(const Store *s) { return after_sides(s) + s->scale_bytes * (size_t)s->shape.n_layers; }

char *store_scales(const Store *s, int layer)
{
    return s->scale_bytes ? after_sides(s) + s->scale_bytes * (size_t)layer + shift_bytes(&s->spec) : NULL;
}

void store_view(const Store *s, int layer, MiKvView *out)
{
    const MiCacheSpec *spec = &s->spec;
    const int32_t     *tables = (const int32_t *)(const void *)device_tables(s);
    char              *k = s->data + s->side_bytes * 2 * (size_t)(layer % s->shape.n_layers);

    *out = (MiKvView){
        .k = k,
        .v = k + s->side_bytes,
        .dtype = spec->dtype,
        .n_kv_heads = spec->n_kv_heads,
        .head_dim = spec->head_dim,
        .stride_token = spec->head_dim,
        .stride_head = (int64_t)s->shape.block_size * spec->head_dim,
        .stride_block = (int64_t)s->shape.block_size * spec->head_dim * spec->n_kv_heads,
        .block_size = s->shape.block_size,
        .max_blocks = s->shape.max_blocks,
        .kv_len = tables,
        .kv_start = tables + (s->kv_start - s->tables),
        .block_table = tables + (s->block - s->tables),
        .slots = tables + (s->slots - s->tables),
        .scales = store_scales(s, layer % s->shape.n_layers),
    };
}

void store_clear(Store *s, const MiBatch *batch)
{
    for (int i = 0; i < MIN(batch->shape.n_tokens, s->spec.max_tokens); i++)
        s->slots[i] = -1;
    for (int i = 0; i < MIN(batch->shape.n_seqs, s->spec.max_seqs); i++)
        s->kv_len[i] = s->kv_start[i] = 0;
}

bool store_send_part(Store *s, MiContext *ctx, const int32_t *from, size_t n, GError **error)
{
    const size_t at = (size_t)(from - s->tables) * sizeof *from;
    return ctx->backend->unified || !n || ctx->send(ctx, device_tables(s) + at, from, n * sizeof *from, error);
}

bool store_send(Store *s, MiContext *ctx, const MiBatch *batch, GError **error)
{
    return store_send_part(s, ctx, s->tables, (size_t)(s->slots - s->tables) + (size_t)batch->shape.n_tokens, error);
}
