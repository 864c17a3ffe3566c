/* st_write.c - model.safetensors, or, above 5 GB, shards and their index.
 *
 * Matrices have the dtype that is asked for; "keep" keeps f32, f16 and bf16, and blocks,
 * which the format does not know, become f16, but for what is quantised as compressed-tensors
 * or GPTQ pack it.  Vectors stay as exact as they are. */
#include "st_write.h"
#include "st_quant.h"
#include <miniinfer/plugin.h>
#include <string.h>

typedef struct {
    MiWeight             w;
    MiPart               part;
    const MiBlockFormat *format; /* of the whole */
    MiRowOrder           order;
    uint64_t             bytes;
    uint32_t             shard; /* from 0 */
} Item;

typedef struct {
    MiConversion c;
    Item        *items;
    size_t       n;
    uint32_t     n_shards;
    uint64_t     total;
    const char  *dtype; /* of the matrices, as torch calls it */
    char        *quant; /* quantization_config; NULL: nothing is quantised */
    bool         gptq;  /* and it is GPTQ */
} Plan;

#ifndef SHARD_BYTES /* a test builds this with less */
#define SHARD_BYTES 5000000000u
#endif

static const char *torch_name(const MiBlockFormat *f)
{
    return f->bytes == 4 ? "float32" : strcmp(f->name, "f16") == 0 ? "float16" : "bfloat16";
}

static const char *dtype_name(const MiBlockFormat *f)
{
    return f->bytes == 4 ? "F32" : strcmp(f->name, "f16") == 0 ? "F16" : "BF16";
}

static void add_item(Plan *p, const MiWriteSpec *spec, const MiWeight *w, MiPart part, uint64_t *in_shard)
{
    Item        *i = &p->items[p->n++];
    MiPartTensor t;

    *i = (Item){ .w = *w, .part = part, .format = mi_target_format(w, spec, false), .order = mi_row_order(&p->c, w) };
    if (part != MI_PART_WHOLE)
        mi_st_part_tensor(w, part, &t);
    i->bytes = part == MI_PART_WHOLE ? mi_format_bytes(i->format, w) : t.bytes;
    if (*in_shard && *in_shard + i->bytes > SHARD_BYTES) {
        *in_shard = 0;
        p->n_shards++;
    }
    *in_shard += i->bytes;
    i->shard = p->n_shards;
    p->total += i->bytes;
    if (w->ndim > 1 && part == MI_PART_WHOLE)
        p->dtype = torch_name(i->format);
}

static bool make_plan(Plan *p, const MiWriteSpec *spec, GError **error)
{
    const MiSource *from = p->c.from;
    const size_t    n = from->vt->count(from->self);
    const bool      keep = strcmp(spec->dtype, "keep") == 0;
    uint64_t        in_shard = 0;
    MiWeight        w;
    MiPart          parts[4];

    p->items = g_try_new0(Item, 4 * n + 1);
    if (!p->items) {
        g_set_error(error, MI_ERROR, MI_ERROR_NO_MEMORY, "no memory for the list of %zu weights", n);
        return false;
    }
    p->dtype = "float32";
    for (size_t k = 0; k < n; k++) {
        from->vt->at(from->self, k, &w);
        if (w.companion) /* part of a matrix that is written */
            continue;
        parts[0] = MI_PART_WHOLE;
        const int n_parts = keep ? mi_st_parts(&w, parts) : 1;
        for (int i = 0; i < n_parts; i++)
            add_item(p, spec, &w, parts[i], &in_shard);
    }
    p->n_shards++;
    GError *why = NULL;
    p->quant = keep ? mi_st_quant_config(from, &p->gptq, &why) : NULL;
    if (!why)
        return true;
    g_propagate_error(error, why);
    return false;
}

/* Its entry in the header. */
static void item_tensor(const Item *i, MiPartTensor *t)
{
    if (i->part != MI_PART_WHOLE) {
        mi_st_part_tensor(&i->w, i->part, t);
        return;
    }
    *t = (MiPartTensor){ .dtype = dtype_name(i->format), .bytes = i->bytes };
    g_strlcpy(t->name, i->w.name, sizeof t->name);
}

static void shard_name(const Plan *p, uint32_t shard, char out[64])
{
    if (p->n_shards == 1)
        g_strlcpy(out, "model.safetensors", 64);
    else
        g_snprintf(out, 64, "model-%05u-of-%05u.safetensors", shard + 1, p->n_shards);
}

/* The header's JSON, padded so that the data begins at a multiple of 8. */
static GString *header(const Plan *p, uint32_t shard)
{
    GString *s = g_string_new("{\"__metadata__\":{\"format\":\"pt\"}");
    uint64_t at = 0;

    for (size_t i = 0; i < p->n; i++) {
        const Item *it = &p->items[i];
        if (it->shard != shard)
            continue;
        MiPartTensor   t;
        item_tensor(it, &t);
        const int      ndim = it->part == MI_PART_WHOLE ? it->w.ndim : t.ndim;
        const int64_t *shape = it->part == MI_PART_WHOLE ? it->w.shape : t.shape;
        g_string_append_printf(s, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", t.name, t.dtype);
        for (int d = 0; d < ndim; d++)
            g_string_append_printf(s, "%s%" G_GINT64_FORMAT, d ? "," : "", shape[d]);
        g_string_append_printf(s, "],\"data_offsets\":[%" G_GUINT64_FORMAT ",%" G_GUINT64_FORMAT "]}", at,
                               at + it->bytes);
        at += it->bytes;
    }
    g_string_append_c(s, '}');
    while (s->len % 8)
        g_string_append_c(s, ' ');
    return s;
}

static void write_shard(MiOut *o, const Plan *p, uint32_t shard)
{
    g_autoptr(GString) h = header(p, shard);
    const uint64_t     n = h->len;
    char               name[64];

    shard_name(p, shard, name);
    mi_out_file(o, name);
    mi_out_bytes(o, &n, sizeof n);
    mi_out_bytes(o, h->str, h->len);
    for (size_t i = 0; i < p->n && !o->error; i++)
        if (p->items[i].shard == shard && p->items[i].part == MI_PART_WHOLE)
            mi_write_weight(o, &p->c, &p->items[i].w, p->items[i].format, p->items[i].order);
        else if (p->items[i].shard == shard)
            mi_st_write_part(o, &p->c, &p->items[i].w, p->items[i].part, p->items[i].order);
    mi_out_close(o);
}

static void write_index(MiOut *o, const Plan *p)
{
    char         name[64];
    MiPartTensor t;

    mi_out_file(o, "model.safetensors.index.json");
    mi_out_print(o, "{\n  \"metadata\": {\"total_size\": %" G_GUINT64_FORMAT "},\n  \"weight_map\": {", p->total);
    for (size_t i = 0; i < p->n; i++) {
        shard_name(p, p->items[i].shard, name);
        item_tensor(&p->items[i], &t);
        mi_out_print(o, "%s\n    \"%s\": \"%s\"", i ? "," : "", t.name, name);
    }
    mi_out_text(o, "\n  }\n}\n");
    mi_out_close(o);
}

/* Names go into JSON as they are. */
static bool plain_names(const Plan *p, GError **error)
{
    for (size_t i = 0; i < p->n; i++)
        for (const char *c = p->items[i].w.name; *c; c++)
            if (*c < '!' || *c > '~' || *c == '"' || *c == '\\') {
                char shown[64];
                g_set_error(error, MI_ERROR, MI_ERROR_MODEL, "weight '%s' has a name that is not written",
                            mi_shown(p->items[i].w.name, strlen(p->items[i].w.name), shown));
                return false;
            }
    return true;
}

bool mi_st_write(const char *path, const MiSource *from, const MiWriteSpec *spec, GError **error)
{
    Plan            p = { .n = 0 };
    MiTokenizerData tokens, *t = NULL;
    GError         *why = NULL;
    MiOut           o;
    bool            ok = false;

    if (!mi_conversion_new(&p.c, from, spec, error))
        return false;
    if (MI_HAS(from->vt, tokenizer)) {
        if (from->vt->tokenizer(from->self, &tokens, &why)) {
            t = &tokens;
        } else if (why->code != MI_ERROR_NOT_FOUND) {
            g_propagate_error(error, why);
            return false;
        }
        g_clear_error(&why); /* a source without one */
    }
    if (make_plan(&p, spec, error) && plain_names(&p, error)) {
        mi_out_start(&o, path, true, p.total, spec);
        for (uint32_t s = 0; s < p.n_shards; s++)
            write_shard(&o, &p, s);
        if (p.n_shards > 1)
            write_index(&o, &p);
        mi_st_write_config(&o, &p.c, p.dtype, p.quant, t);
        if (p.quant && p.gptq) { /* where AutoGPTQ looks for it */
            mi_out_file(&o, "quantize_config.json");
            mi_out_print(&o, "%s\n", p.quant);
            mi_out_close(&o);
        }
        if (t)
            mi_st_write_tokenizer(&o, t);
        ok = mi_out_end(&o, error);
    }
    g_free(p.items);
    g_free(p.quant);
    return ok;
}
