#include "constants.h"
#include "arena.h"

#include <string.h>

typedef struct {
    const void *data; /* the program's */
    size_t      bytes;
    void       *device;
} Constant;

struct MiConstants {
    GArray *all; /* Constant */
};

MiConstants *mi_constants_new(void)
{
    MiConstants *c = g_new(MiConstants, 1);

    c->all = g_array_new(FALSE, FALSE, sizeof(Constant));
    return c;
}

static size_t bytes_of(const MiValue *v)
{
    return (size_t)v->type.n_rows * (size_t)mi_row_size(&v->type) * mi_dtype_size(v->type.dtype);
}

/* NULL with *error. */
static void *place(MiConstants *all, MiContext *ctx, const MiValue *v, GError **error)
{
    Constant c = { v->data, bytes_of(v), NULL };

    for (guint k = 0; k < all->all->len; k++) {
        const Constant *have = &g_array_index(all->all, Constant, k);
        if (have->bytes == c.bytes && memcmp(have->data, c.data, c.bytes) == 0)
            return have->device;
    }
    if (!(c.device = ctx->alloc(ctx, MI_MEM_DEVICE, mi_align(c.bytes), error)))
        return NULL;
    g_array_append_val(all->all, c);
    if (ctx->upload(ctx, c.device, c.data, c.bytes, error))
        return c.device;
    g_array_index(all->all, Constant, all->all->len - 1).bytes = 0; /* like no other */
    return NULL;
}

bool mi_constants_place(MiConstants *c, MiContext *ctx, MiRecording *p, GError **error)
{
    for (guint i = 1; i < p->values->len; i++) {
        MiValue *v = &g_array_index(p->values, MiValue, i);
        if (v->data && !v->device && v->base.id == (int32_t)i && !(v->device = place(c, ctx, v, error)))
            return false;
    }
    return true;
}

void mi_constants_free(MiConstants *c, MiContext *ctx)
{
    for (guint i = 0; i < c->all->len; i++)
        ctx->free(ctx, MI_MEM_DEVICE, g_array_index(c->all, Constant, i).device);
    g_array_unref(c->all);
    g_free(c);
}
