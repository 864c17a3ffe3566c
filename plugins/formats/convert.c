#include "convert.h"
#include <miniinfer/plugin.h>
#include <string.h>

enum { CHUNK = 1 << 16 }; /* values decoded at a time where rows keep their order */

double mi_meta_number(const MiSource *s, const char *key, double def)
{
    const char *text = s->vt->meta(s->self, key);
    return text ? g_ascii_strtod(text, NULL) : def;
}

static int64_t count(const MiSource *s, const char *key, int64_t def)
{
    const double x = mi_meta_number(s, key, (double)def);
    return x >= 0 && x <= 1 << 24 ? (int64_t)x : def;
}

/* Rows are turned head by head: no q, k or joined qkv may end within one. */
static bool whole_heads(const MiConversion *c, GError **error)
{
    const MiSource *s = c->from;
    MiWeight        w;

    for (size_t i = 0; i < s->vt->count(s->self); i++) {
        s->vt->at(s->self, i, &w);
        if (w.companion)
            continue;
        const int64_t unit = strstr(w.name, ".query_key_value.") ? 3 * c->head_dim : c->head_dim;
        if ((strstr(w.name, ".q_proj.") || strstr(w.name, ".k_proj.") || unit > c->head_dim) && w.shape[0] % unit) {
            g_set_error(error, MI_ERROR, MI_ERROR_MODEL, "%s has %" G_GINT64_FORMAT " rows, which are no heads of %"
                        G_GINT64_FORMAT, w.name, w.shape[0], c->head_dim);
            return false;
        }
    }
    return true;
}

bool mi_conversion_new(MiConversion *c, const MiSource *from, const MiWriteSpec *spec, GError **error)
{
    const char *name = from->vt->meta(from->self, "architectures.0");
    char        shown[64];

    *c = (MiConversion){ .from = from, .arch = name ? mi_arch_hf(name) : NULL };
    if (!c->arch) {
        g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED, "architecture '%s' is not converted; Llama, Mistral, Qwen2, "
                    "Qwen3 and GPT-NeoX are", name ? mi_shown(name, strlen(name), shown) : "(none)");
        return false;
    }
    if (strcmp(spec->dtype, "keep") != 0 && strcmp(spec->dtype, "f32") != 0 && strcmp(spec->dtype, "f16") != 0 &&
        strcmp(spec->dtype, "bf16") != 0) {
        g_set_error(error, MI_ERROR, MI_ERROR_CONFIG, "dtype '%s'; keep, f32, f16 and bf16 are possible", spec->dtype);
        return false;
    }
    if (!MI_HAS(from->vt, decode)) {
        g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED, "the source's format cannot decode its weights");
        return false;
    }
    c->hidden = count(from, "hidden_size", 0);
    c->heads = count(from, "num_attention_heads", 0);
    c->kv_heads = count(from, "num_key_value_heads", c->heads);
    c->head_dim = count(from, "head_dim", c->heads ? c->hidden / c->heads : 0);
    c->n_layers = count(from, "num_hidden_layers", 0);
    c->vocab = count(from, "vocab_size", 0);
    c->to = MI_ROPE_HALF;
    if (c->n_layers && c->hidden && c->heads && c->kv_heads && c->head_dim && c->head_dim % 2 == 0)
        return whole_heads(c, error);
    g_set_error(error, MI_ERROR, MI_ERROR_MODEL, "%d layers of %d, %d heads of %d over %d of keys are no model",
                (int)c->n_layers, (int)c->hidden, (int)c->heads, (int)c->head_dim, (int)c->kv_heads);
    return false;
}

int64_t mi_source_row(MiRowOrder order, int64_t r, int64_t n_rows, int64_t head_dim)
{
    const int64_t head = r / head_dim, i = r % head_dim, half = head_dim / 2, heads = n_rows / head_dim / 3;

    switch (order) {
    case MI_ROWS_PAIR: return head * head_dim + i % 2 * half + i / 2;
    case MI_ROWS_UNPAIR: return head * head_dim + i % half * 2 + i / half;
    case MI_ROWS_SPLIT_QKV: return (head % heads * 3 + head / heads) * head_dim + i;
    case MI_ROWS_JOIN_QKV: return (head % 3 * heads + head / 3) * head_dim + i;
    default: return r;
    }
}

MiRowOrder mi_row_order(const MiConversion *c, const MiWeight *w)
{
    const MiRopeStyle is = c->from->vt->rope_style(c->from->self);
    const bool q = strstr(w->name, ".self_attn.q_proj.") != NULL, k = strstr(w->name, ".self_attn.k_proj.") != NULL;

    if (is == c->to || !(q || k))
        return MI_ROWS_SAME;
    return c->to == MI_ROPE_INTERLEAVED ? MI_ROWS_PAIR : MI_ROWS_UNPAIR;
}

const MiBlockFormat *mi_target_format(const MiWeight *w, const MiWriteSpec *spec, bool blocks)
{
    const MiBlockFormat *stored = mi_block_format(w->format);

    if (w->ndim == 1) /* norms and biases: as exact as they are; GGUF's readers want f32 */
        return blocks || !stored || stored->values > 1 ? mi_block_format("f32") : stored;
    if (strcmp(spec->dtype, "keep") != 0)
        return mi_block_format(spec->dtype);
    return stored && (blocks || stored->values == 1) ? stored : mi_block_format("f16");
}

static int64_t elements(const MiWeight *w)
{
    int64_t n = 1;
    for (int i = 0; i < w->ndim; i++)
        n *= w->shape[i];
    return n;
}

uint64_t mi_format_bytes(const MiBlockFormat *f, const MiWeight *w)
{
    return (uint64_t)(elements(w) / f->values) * (uint64_t)f->bytes;
}

/* n values as format f, which is f32, f16 or bf16, in place. */
static void encode(const MiBlockFormat *f, float *x, int64_t n)
{
    uint16_t  *y = (uint16_t *)x;
    const bool bf16 = strcmp(f->name, "bf16") == 0;

    for (int64_t i = 0; f->bytes == 2 && i < n; i++) {
        const uint16_t h = bf16 ? mi_f32_to_bf16(x[i]) : mi_f32_to_f16(x[i]);
        memcpy(&y[i], &h, sizeof h);
    }
}

void mi_write_weight(MiOut *o, const MiConversion *c, const MiWeight *w, const MiBlockFormat *f, MiRowOrder order)
{
    const MiBlockFormat *stored = mi_block_format(w->format);
    const int64_t        n = elements(w), rows = w->shape[0], columns = n / rows;
    const bool           copy = stored == f;
    /* A chunk is a row where rows are turned, else as many values as are handy; whole blocks. */
    const int64_t        chunk = order == MI_ROWS_SAME ? MIN(n, CHUNK) : columns;
    g_autofree float    *x = copy ? NULL : g_try_malloc_n((size_t)chunk, sizeof *x);

    if (!copy && !x)
        mi_out_fail(o, MI_ERROR_NO_MEMORY, "no memory for a row of %s", w->name);
    for (int64_t at = 0; at < n && !o->error; at += chunk) {
        const int64_t take = MIN(chunk, n - at);
        const int64_t first =
            order == MI_ROWS_SAME ? at : mi_source_row(order, at / columns, rows, c->head_dim) * columns;
        if (copy) {
            const size_t block = (size_t)f->bytes;
            mi_out_bytes(o, (const char *)w->data + (size_t)(first / f->values) * block,
                         (size_t)(take / f->values) * block);
        } else if (c->from->vt->decode(c->from->self, w, first, take, x, &o->error)) {
            encode(f, x, take);
            mi_out_bytes(o, x, (size_t)take * (size_t)f->bytes);
        }
        mi_out_progress(o, (size_t)(take / f->values) * (size_t)f->bytes);
    }
}
