/* gguf.c - GGUF files, versions 2 and 3, under Hugging Face's names.
 *
 * Nothing is copied: weights stay mapped, in their blocks, dimensions turned to
 * [out, in].  The vocabulary is read when it is first asked for.  q and k of the
 * llama architecture are stored for interleaved rotation, and rope_style() says so.
 * Not read: big-endian files, files split in several, types beyond blocks.h. */
#include "gguf_file.h"
#include "gguf_tokens.h"
#include "gguf_write.h"
#include "names.h"
#include "tables.h"
#include <fcntl.h>
#include <math.h>
#include <miniinfer/plugin.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct {
    MiGguf       *file;
    const MiArch *arch; /* NULL: none of ours; names and keys stay as they are */
    MiWeights     weights;
    MiMeta        meta;
    MiGgufTokens *tokens; /* NULL: not asked for yet */
    MiSource      source; /* this, for MiWeight.source */
    float         theta;
    void        **copies; /* [n_copies] of weights in another order */
    size_t        n_copies;
} Gguf;

static const MiFormat gguf;

static bool fail(const Gguf *g, GError **error, const char *form, ...) G_GNUC_PRINTF(3, 4);
static bool fail(const Gguf *g, GError **error, const char *form, ...)
{
    va_list args;
    va_start(args, form);
    g_autofree char *text = g_strdup_vprintf(form, args);
    va_end(args);
    g_set_error(error, MI_ERROR, MI_ERROR_MODEL, "%s: %s", g->file->path, text);
    return false;
}

static bool no_memory(const Gguf *g, GError **error)
{
    g_set_error(error, MI_ERROR, MI_ERROR_NO_MEMORY, "%s: no memory for its tables", g->file->path);
    return false;
}

/* ---- metadata --------------------------------------------------------------- */

static const MiGgufKey *arch_key(const Gguf *g, const char *name)
{
    g_autofree char *key = g_strconcat(g->arch->gguf, ".", name, NULL);
    return mi_gguf_key(g->file, key);
}

/* A number or bool as text. */
static bool scalar(const MiGgufKey *k, char out[32])
{
    int64_t n;
    double  x;

    if (k->array)
        return false;
    if (!mi_gguf_float(k, 0, &x))
        return false;
    if (!mi_gguf_int(k, 0, &n))
        mi_float_text((float)x, out);
    else if (k->type == MI_GGUF_BOOL)
        g_strlcpy(out, n ? "true" : "false", 32);
    else
        g_snprintf(out, 32, "%" G_GINT64_FORMAT, n);
    return true;
}

static bool read_plain(Gguf *g, GError **error)
{
    static const MiNamePair keys[] = {
        { "block_count", "num_hidden_layers" },
        { "embedding_length", "hidden_size" },
        { "feed_forward_length", "intermediate_size" },
        { "attention.head_count", "num_attention_heads" },
        { "attention.head_count_kv", "num_key_value_heads" },
        { "attention.key_length", "head_dim" },
        { "attention.layer_norm_rms_epsilon", "rms_norm_eps" },
        { "attention.layer_norm_epsilon", "layer_norm_eps" },
        { "context_length", "max_position_embeddings" },
        { "rope.freq_base", "rope_theta" },
        { "attention.sliding_window", "sliding_window" },
        { "attention.max_window_layers", "max_window_layers" },
        { "use_parallel_residual", "use_parallel_residual" },
    };
    char text[32];

    for (size_t i = 0; i < G_N_ELEMENTS(keys); i++) {
        const MiGgufKey *k = arch_key(g, keys[i].gguf);
        if (k && !scalar(k, text))
            return fail(g, error, "'%s.%s' is no single number", g->arch->gguf, keys[i].gguf);
        if (k && !mi_meta_add(&g->meta, keys[i].hf, text))
            return no_memory(g, error);
    }
    return true;
}

static bool read_general(Gguf *g, GError **error)
{
    static const char *const keys[] = {
        "general.name",       "general.basename", "general.size_label",  "general.finetune",
        "general.organization", "general.author", "general.license",     "general.description",
        "general.version",    "general.url",      "general.file_type",   "general.quantization_version",
    };

    for (size_t i = 0; i < G_N_ELEMENTS(keys); i++) {
        const MiGgufKey *k = mi_gguf_key(g->file, keys[i]);
        char             text[32];
        g_autofree char *string = NULL;
        if (!k)
            continue;
        if (k->type == MI_GGUF_STRING && !k->array) {
            string = mi_gguf_text(g->file, keys[i], error);
            if (!string)
                return false;
        } else if (!scalar(k, text)) {
            return fail(g, error, "'%s' is an array", keys[i]);
        }
        if (!mi_meta_add(&g->meta, keys[i], string ? string : text))
            return no_memory(g, error);
    }
    return true;
}

static int64_t count(const Gguf *g, const char *key)
{
    const char *text = mi_meta_find(&g->meta, key);
    const gint64 n = text ? g_ascii_strtoll(text, NULL, 10) : 0;
    return n > 0 && n <= 1 << 24 ? n : 0;
}

static bool number(const Gguf *g, const char *name, double *out, GError **error)
{
    const MiGgufKey *k = arch_key(g, name);
    if (k && (k->array || !mi_gguf_float(k, 0, out)))
        return fail(g, error, "'%s.%s' is no number", g->arch->gguf, name);
    return true;
}

static bool add_text(Gguf *g, const char *key, const char *value, GError **error)
{
    if (!mi_meta_add(&g->meta, key, value))
        return no_memory(g, error);
    return true;
}

static bool add_float(Gguf *g, const char *key, double x, GError **error)
{
    char text[32];

    mi_float_text((float)x, text);
    return add_text(g, key, text, error);
}

/* linear and yarn, as metadata; the frequencies of Llama 3 are a tensor (see below). */
static bool read_rope_scaling(Gguf *g, GError **error)
{
    GError          *bad = NULL;
    g_autofree char *key = g_strconcat(g->arch->gguf, ".rope.scaling.type", NULL);
    g_autofree char *type = mi_gguf_text(g->file, key, &bad);
    double           factor = 0, old = 0, length = 0, slow = 1, fast = 32, attn = 1;

    if (bad) {
        g_propagate_error(error, bad);
        return false;
    }
    if (!number(g, "rope.scaling.factor", &factor, error) || !number(g, "rope.scale_linear", &old, error) ||
        !number(g, "rope.scaling.original_context_length", &length, error) ||
        !number(g, "rope.scaling.yarn_beta_fast", &fast, error) ||
        !number(g, "rope.scaling.yarn_beta_slow", &slow, error) ||
        !number(g, "rope.scaling.attn_factor", &attn, error) ||
        !number(g, "rope.scaling.yarn_attn_factor", &attn, error))
        return false;
    if (!type && old <= 1 && factor <= 1)
        return true;
    if (type && strcmp(type, "none") == 0)
        return true;
    if (!mi_meta_add(&g->meta, "rope_scaling.rope_type", type ? type : "linear"))
        return no_memory(g, error);
    if (!add_float(g, "rope_scaling.factor", factor ? factor : old ? old : 1, error) ||
        (length > 0 && !add_float(g, "rope_scaling.original_max_position_embeddings", length, error)))
        return false;
    if (!type || strcmp(type, "yarn") != 0)
        return true;
    /* llama.cpp multiplies its factor onto YaRN's 0.1 ln(s) + 1, Hugging Face's replaces it. */
    return add_float(g, "rope_scaling.beta_fast", fast, error) && add_float(g, "rope_scaling.beta_slow", slow, error) &&
           (attn == 1 ||
            add_float(g, "rope_scaling.attention_factor", attn * (1 + 0.1 * log(MAX(factor, 1))), error));
}

/* rope_freqs.weight [dim / 2] holds what Llama 3's scaling divides each frequency by.  The
 * models name the rule's numbers, so they are found again: the largest divisor is the
 * factor, 1, 4 and 8192 are those of all Llamas, where keys that only we write do not say
 * others; divisors that do not follow are refused. */
static bool read_rope_freqs(Gguf *g, const MiGgufTensor *t, GError **error)
{
    double low = 1, high = 4, length = 8192;
    float  freq[1024], factor = 1;

    if (!number(g, "rope.scaling.low_freq_factor", &low, error) ||
        !number(g, "rope.scaling.high_freq_factor", &high, error))
        return false;
    number(g, "rope.scaling.original_context_length", &length, error); /* a number: read_rope_scaling() has looked */
    if (!(high > low && low > 0 && length > 0))
        return fail(g, error, "'rope_freqs.weight' with factors from %g to %g over %g", low, high, length);
    if (t->n_dims != 1 || t->format->gguf != 0 || t->dim[0] > 1024)
        return fail(g, error, "'rope_freqs.weight' is no row of at most 1024 f32 numbers");
    t->format->decode(t->data, freq, t->dim[0]);
    for (int i = 0; i < t->dim[0]; i++)
        factor = MAX(factor, freq[i]);
    for (int i = 0; i < t->dim[0]; i++) {
        const double wave = 2 * G_PI * pow((double)g->theta, (double)i / (double)t->dim[0]);
        const double smooth = CLAMP((length / wave - low) / (high - low), 0, 1);
        const double wanted = 1 / ((1 - smooth) / (double)factor + smooth);
        if (!(fabs(wanted - (double)freq[i]) <= 1e-3 * wanted))
            return fail(g, error, "'rope_freqs.weight' %d is %g, which is not Llama 3's scaling by %g (%g)", i,
                        (double)freq[i], (double)factor, wanted);
    }
    return add_text(g, "rope_scaling.rope_type", "llama3", error) &&
           add_float(g, "rope_scaling.factor", (double)factor, error) &&
           add_float(g, "rope_scaling.low_freq_factor", low, error) &&
           add_float(g, "rope_scaling.high_freq_factor", high, error) &&
           add_float(g, "rope_scaling.original_max_position_embeddings", length, error);
}

/* What follows from several keys, or from which tensors there are. */
static bool read_derived(Gguf *g, GError **error)
{
    const bool      mistral = strcmp(g->arch->gguf, "llama") == 0 && mi_meta_find(&g->meta, "sliding_window");
    const MiArch   *arch = mistral ? mi_arch_hf("MistralForCausalLM") : g->arch;
    const int64_t   hidden = count(g, "hidden_size"), heads = count(g, "num_attention_heads");
    char            name[MI_NAME_MAX];
    const MiWeight *embed;
    double          turned = 0, value_length = 0;

    if (!mi_meta_add(&g->meta, "architectures.0", arch->architecture) ||
        !mi_meta_add(&g->meta, "model_type", arch->model_type) ||
        !mi_meta_add(&g->meta, "hidden_act", arch->activation) || !mi_meta_add(&g->meta, "rope_theta", "10000") ||
        (heads && hidden % heads == 0 && !mi_meta_addf(&g->meta, "head_dim", "%" G_GINT64_FORMAT, hidden / heads)))
        return no_memory(g, error);
    g->theta = (float)g_ascii_strtod(mi_meta_find(&g->meta, "rope_theta"), NULL);
    const int64_t head = count(g, "head_dim");
    if (!number(g, "rope.dimension_count", &turned, error) ||
        !number(g, "attention.value_length", &value_length, error))
        return false;
    if (head && value_length && value_length != (double)head)
        return fail(g, error, "heads of %d for keys and %g for values; equal ones can be computed", (int)head,
                    value_length);
    if (turned > 0 && head && turned < (double)head) {
        double part = turned / (double)head;
        if ((int)(part * (double)head) < (int)turned)
            part = nextafter(part, 1);
        if (!mi_meta_addf(&g->meta, "partial_rotary_factor", "%.17g", part))
            return no_memory(g, error);
    }
    if (mi_meta_find(&g->meta, "sliding_window") && !mi_meta_add(&g->meta, "use_sliding_window", "true"))
        return no_memory(g, error);
    mi_name_from_gguf(g->arch, "output.weight", 13, name);
    if (!mi_meta_add(&g->meta, "tie_word_embeddings", mi_weights_find(&g->weights, name) ? "false" : "true"))
        return no_memory(g, error);
    mi_name_from_gguf(g->arch, "token_embd.weight", 17, name);
    embed = mi_weights_find(&g->weights, name);
    if (embed && !mi_meta_addf(&g->meta, "vocab_size", "%" G_GINT64_FORMAT, embed->shape[0]))
        return no_memory(g, error);
    return true;
}

/* ---- weights ------------------------------------------------------------------ */

/* p is freed with g; false: no memory, p is freed now. */
static bool keep(Gguf *g, void *p)
{
    void **copies = g_try_renew(void *, g->copies, g->n_copies + 1);

    if (!copies) {
        g_free(p);
        return false;
    }
    g->copies = copies;
    copies[g->n_copies++] = p;
    return true;
}

static bool add_weight(Gguf *g, const MiGgufTensor *t, GError **error)
{
    char     name[MI_NAME_MAX];
    MiWeight w = { .name = name, .format = t->format->name, .ndim = (int32_t)t->n_dims, .data = t->data,
                   .bytes = t->bytes, .source = &g->source };

    if (!g->arch || !mi_name_from_gguf(g->arch, t->name, t->name_len, name)) {
        memcpy(name, t->name, t->name_len); /* shorter than MI_NAME_MAX: the reader's limit */
        name[t->name_len] = 0;
    }
    for (uint32_t d = 0; d < t->n_dims; d++)
        w.shape[d] = t->dim[t->n_dims - 1 - d];
    if (!mi_weights_add(&g->weights, &w))
        return no_memory(g, error);
    return true;
}

/* GPT-NeoX's joined q, k, v have all of q first here and are per head in Hugging Face's
 * order, which the models know: a private copy in that order.  So opening such a file
 * reads these weights, a seventh of it. */
static bool join_qkv(Gguf *g, GError **error)
{
    const int64_t heads = count(g, "num_attention_heads"), head_dim = heads ? count(g, "hidden_size") / heads : 0;

    for (size_t i = 0; i < g->weights.n; i++) {
        MiWeight     *w = &g->weights.at[i];
        const int64_t rows = w->shape[0];
        if (!strstr(w->name, ".query_key_value."))
            continue;
        if (!head_dim || rows != 3 * heads * head_dim)
            return fail(g, error, "%s has %" G_GINT64_FORMAT " rows, not 3 times %" G_GINT64_FORMAT " heads of %"
                        G_GINT64_FORMAT, w->name, rows, heads, head_dim);
        const size_t bytes = w->bytes / (size_t)rows;
        char        *copy = g_try_malloc(w->bytes);
        if (!copy || !keep(g, copy))
            return no_memory(g, error);
        for (int64_t r = 0; r < rows; r++)
            memcpy(copy + (size_t)r * bytes,
                   (const char *)w->data + (size_t)mi_source_row(MI_ROWS_JOIN_QKV, r, rows, head_dim) * bytes, bytes);
        w->data = copy;
    }
    return true;
}

static bool is(const MiGgufTensor *t, const char *name)
{
    return t->name_len == strlen(name) && memcmp(t->name, name, t->name_len) == 0;
}

/* error: not NULL. */
static bool read_all(Gguf *g, GError **error)
{
    const MiGguf       *f = g->file;
    const MiGgufTensor *freqs = NULL;
    g_autofree char    *arch = mi_gguf_text(f, "general.architecture", error);

    if (!arch && !*error)
        return fail(g, error, "the file does not say its 'general.architecture'");
    if (!arch)
        return false;
    g->arch = mi_arch_gguf(arch, strlen(arch));
    for (size_t i = 0; i < f->n_tensors; i++)
        if (g->arch && is(&f->tensors[i], "rope_freqs.weight"))
            freqs = &f->tensors[i];
        else if (!add_weight(g, &f->tensors[i], error))
            return false;
    if (!mi_weights_sort(&g->weights, f->path, error))
        return false;
    if (!g->arch)
        return add_text(g, "architectures.0", arch, error) && read_general(g, error);
    return read_plain(g, error) && read_derived(g, error) && (!g->arch->layernorm || join_qkv(g, error)) &&
           read_rope_scaling(g, error) && (!freqs || read_rope_freqs(g, freqs, error)) && read_general(g, error);
}

/* ---- MiFormat ------------------------------------------------------------------- */

static int probe(const char *path)
{
    const int   fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    char        magic[4] = { 0 };
    bool        regular = false;

    if (fd >= 0) {
        regular = fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
        if (regular && read(fd, magic, sizeof magic) != sizeof magic)
            magic[0] = 0;
        close(fd);
    }
    /* By its name alone: so that open() says what is wrong with it. */
    return regular && memcmp(magic, "GGUF", 4) == 0 ? 100 : g_str_has_suffix(path, ".gguf") ? 50 : 0;
}

static void close_gguf(void *self)
{
    Gguf *g = self;

    for (size_t i = 0; i < g->n_copies; i++)
        g_free(g->copies[i]);
    g_free(g->copies);
    mi_gguf_tokens_free(g->tokens);
    mi_meta_free(&g->meta);
    mi_weights_free(&g->weights);
    mi_gguf_close(g->file);
    g_free(g);
}

static void *open_gguf(const char *path, const void *options, GError **error)
{
    GError *bad = NULL;
    MiGguf *file = mi_gguf_open(path, error);

    (void)options;
    if (!file)
        return NULL;
    Gguf *g = g_new0(Gguf, 1);
    g->file = file;
    g->source = (MiSource){ &gguf, g };
    if (read_all(g, &bad))
        return g;
    g_propagate_error(error, bad);
    close_gguf(g);
    return NULL;
}

static bool find(void *self, const char *name, MiWeight *out)
{
    const Gguf     *g = self;
    const MiWeight *w = mi_weights_find(&g->weights, name);

    if (w)
        *out = *w;
    return w != NULL;
}

static size_t n_weights(void *self) { return ((Gguf *)self)->weights.n; }
static void   at(void *self, size_t i, MiWeight *out) { *out = ((Gguf *)self)->weights.at[i]; }
static const char *meta(void *self, const char *key) { return mi_meta_find(&((Gguf *)self)->meta, key); }

static MiRopeStyle rope_style(void *self)
{
    const Gguf *g = self;
    return g->arch ? g->arch->rope : MI_ROPE_HALF;
}

static bool tokenizer(void *self, MiTokenizerData *out, GError **error)
{
    Gguf *g = self;

    if (!g->tokens)
        g->tokens = mi_gguf_tokens_new(g->file, error);
    if (g->tokens)
        *out = *mi_gguf_tokens_data(g->tokens);
    return g->tokens != NULL;
}

static bool decode(void *self, const MiWeight *w, int64_t first, int64_t n, float *out, GError **error)
{
    (void)self;
    return mi_weights_decode(w, first, n, out, error);
}

static void drop(void *self, const MiWeight *w)
{
    mi_map_drop(&((Gguf *)self)->file->file, w->data, w->bytes);
}

static bool meta_at(void *self, size_t i, const char **key, const char **value)
{
    const MiMeta *m = &((Gguf *)self)->meta;

    if (i >= m->n)
        return false;
    *key = m->at[i].key;
    *value = m->at[i].value;
    return true;
}

static const MiFormat gguf = {
    .struct_size = sizeof gguf, .probe = probe, .open = open_gguf, .close = close_gguf, .find = find,
    .count = n_weights, .at = at, .meta = meta, .rope_style = rope_style, .tokenizer = tokenizer, .decode = decode,
    .drop = drop,
    .meta_at = meta_at, .write = mi_gguf_write,
};

MI_PLUGIN("gguf", "0.1", "GGUF files", MI_FEATURE_FORMAT("gguf", "*", &gguf, NULL));
