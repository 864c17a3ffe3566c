/* gguf_write.c - metadata, tensors, data; loads in what else reads GGUF.
 *
 * Matrices have the dtype that is asked for ("keep": as stored, blocks too), vectors are
 * f32.  Llama's q and k rows are turned for interleaved rotation, GPT-NeoX's joined rows
 * are all q, all k, all v.  Llama 3's rotation is rope_freqs.weight, a tensor of divisors. */
#include "gguf_write.h"
#include "gguf_file.h"
#include <math.h>
#include <miniinfer/plugin.h>
#include <string.h>

enum { ALIGNMENT = 32 };

typedef struct {
    MiWeight             w;
    const MiBlockFormat *format;
    MiRowOrder           order;
    uint64_t             offset, bytes;
    char                 name[MI_NAME_MAX];
} Item;

typedef struct {
    MiConversion c;
    Item        *items;
    size_t       n;
    uint64_t     total;
    float       *freqs; /* [n_freqs] of Llama 3's rotation; NULL: another one */
    uint32_t     n_freqs;
    MiGgufKeys   keys;
} Plan;

/* ---- keys ------------------------------------------------------------------------ */

static void put(MiGgufKeys *k, const void *data, size_t bytes) { g_byte_array_append(k->bytes, data, (guint)bytes); }

void mi_gguf_put_string(MiGgufKeys *k, const char *text, size_t len)
{
    const uint64_t n = len;
    put(k, &n, sizeof n);
    put(k, text, len);
}

static void put_key(MiGgufKeys *k, const char *key, uint32_t type)
{
    mi_gguf_put_string(k, key, strlen(key));
    put(k, &type, sizeof type);
    k->n++;
}

void mi_gguf_put_u32(MiGgufKeys *k, const char *key, uint32_t x)
{
    put_key(k, key, MI_GGUF_U32);
    put(k, &x, sizeof x);
}

void mi_gguf_put_f32(MiGgufKeys *k, const char *key, float x)
{
    put_key(k, key, MI_GGUF_F32);
    put(k, &x, sizeof x);
}

void mi_gguf_put_bool(MiGgufKeys *k, const char *key, bool x)
{
    const uint8_t byte = x;
    put_key(k, key, MI_GGUF_BOOL);
    put(k, &byte, 1);
}

void mi_gguf_put_text(MiGgufKeys *k, const char *key, const char *text)
{
    put_key(k, key, MI_GGUF_STRING);
    mi_gguf_put_string(k, text, strlen(text));
}

void mi_gguf_put_array(MiGgufKeys *k, const char *key, uint32_t type, uint64_t n)
{
    put_key(k, key, MI_GGUF_ARRAY);
    put(k, &type, sizeof type);
    put(k, &n, sizeof n);
}

/* ---- metadata ---------------------------------------------------------------------- */

static const char *meta(const Plan *p, const char *key) { return p->c.from->vt->meta(p->c.from->self, key); }
static bool says(const Plan *p, const char *key, const char *value) { return g_strcmp0(meta(p, key), value) == 0; }
static double      number(const Plan *p, const char *key, double def) { return mi_meta_number(p->c.from, key, def); }

static void arch_u32(Plan *p, const char *name, double x)
{
    g_autofree char *key = g_strconcat(p->c.arch->gguf, ".", name, NULL);
    mi_gguf_put_u32(&p->keys, key, (uint32_t)CLAMP(x, 0, (double)G_MAXUINT32));
}

static void arch_f32(Plan *p, const char *name, double x)
{
    g_autofree char *key = g_strconcat(p->c.arch->gguf, ".", name, NULL);
    mi_gguf_put_f32(&p->keys, key, (float)x);
}

static void arch_text(Plan *p, const char *name, const char *text)
{
    g_autofree char *key = g_strconcat(p->c.arch->gguf, ".", name, NULL);
    mi_gguf_put_text(&p->keys, key, text);
}

/* What Llama 3 divides the i-th frequency by: long waves by the factor, short ones by 1. */
static bool llama3_divisors(Plan *p, uint32_t dim, double theta, GError **error)
{
    const double factor = number(p, "rope_scaling.factor", 1), low = number(p, "rope_scaling.low_freq_factor", 1);
    const double high = number(p, "rope_scaling.high_freq_factor", 4);
    const double length = number(p, "rope_scaling.original_max_position_embeddings", 8192);

    if (!(factor >= 1 && high > low && low > 0 && length > 0)) {
        g_set_error(error, MI_ERROR, MI_ERROR_MODEL, "rope_scaling of llama3 by %g from %g to %g of %g", factor, low,
                    high, length);
        return false;
    }
    p->n_freqs = dim / 2;
    p->freqs = g_new(float, p->n_freqs);
    for (uint32_t i = 0; i < p->n_freqs; i++) {
        const double wave = 2 * G_PI * pow(theta, 2 * (double)i / dim);
        const double smooth = CLAMP((length / wave - low) / (high - low), 0, 1);
        p->freqs[i] = (float)(1 / ((1 - smooth) / factor + smooth));
    }
    arch_f32(p, "rope.scaling.low_freq_factor", low);
    arch_f32(p, "rope.scaling.high_freq_factor", high);
    arch_u32(p, "rope.scaling.original_context_length", length);
    return true;
}

static bool put_rotation(Plan *p, GError **error)
{
    const char    *type = meta(p, "rope_scaling.rope_type");
    const double   theta = number(p, "rope_theta", 10000), part = number(p, "partial_rotary_factor", 1);
    const uint32_t dim = (uint32_t)((double)p->c.head_dim * CLAMP(part, 0, 1));
    const double   factor = number(p, "rope_scaling.factor", 1);

    arch_f32(p, "rope.freq_base", theta);
    arch_u32(p, "rope.dimension_count", dim);
    if (!type)
        type = meta(p, "rope_scaling.type");
    if (!type || strcmp(type, "default") == 0)
        return true;
    if (strcmp(type, "llama3") == 0)
        return llama3_divisors(p, dim, theta, error);
    if (strcmp(type, "linear") != 0 && strcmp(type, "yarn") != 0) {
        char shown[64];
        g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED, "rope_scaling '%s' cannot be said in a GGUF file",
                    mi_shown(type, strlen(type), shown));
        return false;
    }
    arch_text(p, "rope.scaling.type", type);
    arch_f32(p, "rope.scaling.factor", factor);
    if (strcmp(type, "yarn") != 0)
        return true;
    arch_u32(p, "rope.scaling.original_context_length", number(p, "rope_scaling.original_max_position_embeddings",
             number(p, "max_position_embeddings", 8192)));
    arch_f32(p, "rope.scaling.yarn_beta_fast", number(p, "rope_scaling.beta_fast", 32));
    arch_f32(p, "rope.scaling.yarn_beta_slow", number(p, "rope_scaling.beta_slow", 1));
    if (number(p, "rope_scaling.attention_factor", 0) > 0)
        arch_f32(p, "rope.scaling.yarn_attn_factor",
                 number(p, "rope_scaling.attention_factor", 0) / (1 + 0.1 * log(MAX(factor, 1))));
    return true;
}

static bool put_metadata(Plan *p, const MiWriteSpec *spec, GError **error)
{
    const MiArch *arch = p->c.arch;
    const char   *name = meta(p, "general.name"), *dtype = spec->dtype;
    const bool    window = meta(p, "sliding_window") &&
                        (strcmp(arch->model_type, "mistral") == 0 ? !says(p, "use_sliding_window", "false")
                                                                  : says(p, "use_sliding_window", "true"));

    mi_gguf_put_text(&p->keys, "general.architecture", arch->gguf);
    mi_gguf_put_text(&p->keys, "general.type", "model");
    if (name)
        mi_gguf_put_text(&p->keys, "general.name", name);
    if (strcmp(dtype, "keep") != 0)
        mi_gguf_put_u32(&p->keys, "general.file_type",
                        strcmp(dtype, "f32") == 0   ? 0
                        : strcmp(dtype, "f16") == 0 ? 1
                                                    : 32);
    arch_u32(p, "block_count", (double)p->c.n_layers);
    arch_u32(p, "context_length", number(p, "max_position_embeddings", 8192));
    arch_u32(p, "embedding_length", (double)p->c.hidden);
    arch_u32(p, "feed_forward_length", number(p, "intermediate_size", 4 * (double)p->c.hidden));
    arch_u32(p, "attention.head_count", (double)p->c.heads);
    arch_u32(p, "attention.head_count_kv", (double)p->c.kv_heads);
    arch_u32(p, "attention.key_length", (double)p->c.head_dim);
    arch_u32(p, "attention.value_length", (double)p->c.head_dim);
    if (p->c.vocab)
        arch_u32(p, "vocab_size", (double)p->c.vocab);
    if (arch->layernorm)
        arch_f32(p, "attention.layer_norm_epsilon", number(p, "layer_norm_eps", 1e-5));
    else
        arch_f32(p, "attention.layer_norm_rms_epsilon", number(p, "rms_norm_eps", 1e-6));
    if (arch->layernorm) {
        g_autofree char *key = g_strconcat(arch->gguf, ".use_parallel_residual", NULL);
        mi_gguf_put_bool(&p->keys, key, !says(p, "use_parallel_residual", "false"));
    }
    if (window) {
        arch_u32(p, "attention.sliding_window", number(p, "sliding_window", 0));
        if (meta(p, "max_window_layers"))
            arch_u32(p, "attention.max_window_layers", number(p, "max_window_layers", 0));
    }
    return put_rotation(p, error);
}

/* ---- tensors ------------------------------------------------------------------------- */

/* Buffers of old checkpoints, which follow from the configuration; a head that is the embedding. */
static bool dropped(const Plan *p, const char *name)
{
    return g_str_has_suffix(name, ".rotary_emb.inv_freq") || g_str_has_suffix(name, ".attention.bias") ||
           g_str_has_suffix(name, ".attention.masked_bias") ||
           (says(p, "tie_word_embeddings", "true") &&
            (strcmp(name, "lm_head.weight") == 0 || strcmp(name, "embed_out.weight") == 0));
}

static bool add_item(Plan *p, const MiWeight *w, const MiWriteSpec *spec, GError **error)
{
    Item *i = &p->items[p->n];
    char  shown[64];

    i->w = *w;
    if (!mi_name_to_gguf(p->c.arch, w->name, i->name)) {
        g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED, "weight '%s' has no name in GGUF files of '%s'",
                    mi_shown(w->name, strlen(w->name), shown), p->c.arch->gguf);
        return false;
    }
    i->format = mi_target_format(w, spec, true);
    i->order = strstr(w->name, ".query_key_value.") ? MI_ROWS_SPLIT_QKV : mi_row_order(&p->c, w);
    i->bytes = mi_format_bytes(i->format, w);
    i->offset = p->total;
    p->total += (i->bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    p->n++;
    return true;
}

static bool plan_tensors(Plan *p, const MiWriteSpec *spec, GError **error)
{
    const MiSource *from = p->c.from;
    const size_t    n = from->vt->count(from->self);
    MiWeight        w;

    p->items = g_try_new0(Item, n + 1);
    if (!p->items) {
        g_set_error(error, MI_ERROR, MI_ERROR_NO_MEMORY, "no memory for the list of %zu weights", n);
        return false;
    }
    if (p->freqs)
        p->total = ((uint64_t)p->n_freqs * 4 + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    for (size_t i = 0; i < n; i++) {
        from->vt->at(from->self, i, &w);
        if (!w.companion && !dropped(p, w.name) && !add_item(p, &w, spec, error))
            return false;
    }
    return true;
}

static void put_info(MiGgufKeys *k, const char *name, int n_dims, const int64_t *shape, uint32_t type, uint64_t offset)
{
    const uint32_t n = (uint32_t)n_dims;

    mi_gguf_put_string(k, name, strlen(name));
    put(k, &n, sizeof n);
    for (int d = n_dims - 1; d >= 0; d--)
        put(k, &shape[d], sizeof *shape);
    put(k, &type, sizeof type);
    put(k, &offset, sizeof offset);
}

static void pad(MiOut *o)
{
    static const char zeros[ALIGNMENT];
    mi_out_bytes(o, zeros, (ALIGNMENT - o->at % ALIGNMENT) % ALIGNMENT);
}

static void write_all(MiOut *o, Plan *p)
{
    const uint32_t version = 3;
    const uint64_t n_tensors = p->n + (p->freqs != NULL);
    const int64_t  n_freqs = p->n_freqs;

    mi_out_text(o, "GGUF");
    mi_out_bytes(o, &version, sizeof version);
    mi_out_bytes(o, &n_tensors, sizeof n_tensors);
    mi_out_bytes(o, &p->keys.n, sizeof p->keys.n);
    if (p->freqs)
        put_info(&p->keys, "rope_freqs.weight", 1, &n_freqs, 0, 0);
    for (size_t i = 0; i < p->n; i++)
        put_info(&p->keys, p->items[i].name, p->items[i].w.ndim, p->items[i].w.shape,
                 (uint32_t)p->items[i].format->gguf, p->items[i].offset);
    mi_out_bytes(o, p->keys.bytes->data, p->keys.bytes->len);
    pad(o);
    if (p->freqs) {
        mi_out_bytes(o, p->freqs, p->n_freqs * sizeof *p->freqs);
        pad(o);
    }
    for (size_t i = 0; i < p->n && !o->error; i++) {
        mi_write_weight(o, &p->c, &p->items[i].w, p->items[i].format, p->items[i].order);
        pad(o);
    }
}

/* Of a source without one nothing is written. */
static bool put_tokenizer(Plan *p, GError **error)
{
    const MiSource *from = p->c.from;
    MiTokenizerData t;
    GError         *why = NULL;

    if (!MI_HAS(from->vt, tokenizer))
        return true;
    if (from->vt->tokenizer(from->self, &t, &why))
        return mi_gguf_put_tokens(&p->keys, &t, (uint32_t)p->c.vocab, error);
    if (why->code == MI_ERROR_NOT_FOUND) {
        g_error_free(why);
        return true;
    }
    g_propagate_error(error, why);
    return false;
}

bool mi_gguf_write(const char *path, const MiSource *from, const MiWriteSpec *spec, GError **error)
{
    Plan  p = { .n = 0 };
    MiOut o;
    bool  ok = false;

    if (!mi_conversion_new(&p.c, from, spec, error))
        return false;
    p.c.to = p.c.arch->rope;
    p.keys.bytes = g_byte_array_new();
    if (put_metadata(&p, spec, error) && put_tokenizer(&p, error) && plan_tensors(&p, spec, error)) {
        mi_out_start(&o, path, false, p.total, spec);
        if (!o.error)
            write_all(&o, &p);
        ok = mi_out_end(&o, error);
    }
    g_byte_array_unref(p.keys.bytes);
    g_free(p.freqs);
    g_free(p.items);
    return ok;
}
