/* dummy.c - random weights of the shapes that a config.json describes: for benchmarks.
 *
 * A path is a config.json or a directory with one; no weight is read, no tokenizer is there.
 * All weights are bf16, matrices and biases about normal with deviation 0.02, gains of norms
 * 1 + 0.02 of that, the same for the same file on every machine.  `stored`: matrices are blocks of
 * random codes instead, of about that deviation.  They lie in one pattern of
 * some 150 MB that is mapped one copy behind the other: a model of 15 GB takes no more host
 * memory.  Where weights are used as they lie in the file, a cache holds more of such a model
 * than of a real one; pattern_mb = 0 gives every weight memory of its own. */
#define _GNU_SOURCE
#include "files.h"
#include "hf_config.h"
#include "names.h"
#include <cpu/blocks.h>
#include <errno.h>
#include <miniinfer/plugin.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGE = 4096, START = 256, MAX_GAINS = 1 << 20, MAX_LAYERS = 1024, MAX_SIZE = 1 << 24 };
static const size_t MAX_BYTES = (size_t)1 << 42;

typedef struct {
    int32_t     pattern_mb;
    const char *stored;
} Options;

/* Where a block has its f16, and what they are about: codes and small scales are random bits. */
typedef struct {
    const char *format;
    struct { int at; float about; } half[2]; /* about 0: none */
} Blocks;

static const Blocks blocks[] = {
    { "q4_0", { { 0, 4.3e-3f } } },   { "q4_1", { { 0, 4.3e-3f }, { 2, -3.3e-2f } } }, { "q5_0", { { 0, 2.2e-3f } } },
    { "q8_0", { { 0, 2.7e-4f } } },   { "q5_1", { { 0, 2.2e-3f }, { 2, -3.4e-2f } } }, { "q6_k", { { 208, 1.5e-5f } } },
    { "iq4_nl", { { 0, 3.1e-4f } } }, { "q4_k", { { 0, 8e-5f }, { 2, 6e-4f } } },      { "iq4_xs", { { 0, 1.7e-5f } } },
    { "q5_k", { { 0, 4e-5f }, { 2, 6.2e-4f } } },
};

typedef struct {
    MiMeta    meta;
    MiWeights weights;
    MiSource  source;
    uint16_t *pattern; /* copies of [pattern_bytes], [mapped] in all */
    size_t    pattern_bytes, mapped;
    size_t    largest, total; /* bytes of a weight, of all */
    uint16_t *gains;          /* [MAX_GAINS] of norms; behind them as many of biases, where matrices are blocks */

    const MiBlockFormat *format; /* of matrices; a value a block: bf16 */
    const Blocks        *blocks; /* NULL then */
} Dummy;

static const MiFormat dummy;

/* ---- shapes --------------------------------------------------------------------- */

typedef struct {
    Dummy      *d;
    const char *path;
    GError    **error; /* set by the first failure */
    bool        failed;
} Reader;

static void fail(Reader *r, MiErrorCode code, const char *form, ...) G_GNUC_PRINTF(3, 4);
static void fail(Reader *r, MiErrorCode code, const char *form, ...)
{
    va_list args;

    if (r->failed)
        return;
    va_start(args, form);
    g_autofree char *text = g_strdup_vprintf(form, args);
    va_end(args);
    g_set_error(r->error, MI_ERROR, (int)code, "%s: %s", r->path, mi_one_line(text));
    r->failed = true;
}

/* A count, 1 to max; def 0: the file must say. */
static int64_t count_of(Reader *r, const char *key, int64_t def, int64_t max)
{
    const char *text = mi_meta_find(&r->d->meta, key);
    gint64      n = def;

    if (!text && !def)
        fail(r, MI_ERROR_MODEL, "it does not say '%s'", key);
    else if (text && !g_ascii_string_to_signed(text, 10, 1, max, &n, NULL))
        fail(r, MI_ERROR_MODEL, "'%s' is '%.20s'; 1 to %" G_GINT64_FORMAT " are possible", key, text, max);
    return r->failed ? 1 : n;
}

static bool flag(const Reader *r, const char *key, bool def)
{
    const char *text = mi_meta_find(&r->d->meta, key);
    return text ? strcmp(text, "true") == 0 : def;
}

/* name.suffix; rows 0: a vector of `columns`.  The data comes once all sizes are known. */
static void add(Reader *r, const char *name, const char *suffix, int64_t rows, int64_t columns)
{
    g_autofree char *full = g_strdup_printf("%s.%s", name, suffix);
    const MiBlockFormat *f = rows ? r->d->format : mi_block_format("bf16");
    MiWeight         w = { .name = full, .format = f->name, .ndim = rows ? 2 : 1, .source = &r->d->source };

    if (columns % f->values)
        fail(r, MI_ERROR_MODEL, "%s has rows of %" G_GINT64_FORMAT ", no multiple of %d: no %s", full, columns, f->values, f->name);
    w.shape[0] = rows ? rows : columns;
    w.shape[1] = rows ? columns : 0;
    w.bytes = (size_t)(rows ? rows : 1) * (size_t)(columns / f->values) * (size_t)f->bytes; /* at most 2^24 * 2^24 * 2 */
    r->d->largest = MAX(r->d->largest, w.bytes);
    r->d->total += w.bytes;
    if (r->d->total > MAX_BYTES)
        fail(r, MI_ERROR_MODEL, "its weights are more than %zu GB", MAX_BYTES >> 30);
    if (!r->failed && !mi_weights_add(&r->d->weights, &w))
        fail(r, MI_ERROR_NO_MEMORY, "no memory for its tables");
}

static void linear(Reader *r, const char *layer, const char *name, int64_t rows, int64_t columns, bool bias)
{
    g_autofree char *full = g_strconcat(layer, name, NULL);
    add(r, full, "weight", rows, columns);
    if (bias)
        add(r, full, "bias", 0, rows);
}

/* is_gain() knows the names by their "norm.weight". */
static void norm(Reader *r, const char *layer, const char *name, int64_t n, bool bias)
{
    g_autofree char *full = g_strconcat(layer, name, NULL);
    add(r, full, "weight", 0, n);
    if (bias)
        add(r, full, "bias", 0, n);
}

static void llama(Reader *r, const char *architecture)
{
    const bool    qwen2 = strcmp(architecture, "Qwen2ForCausalLM") == 0, qwen3 = strcmp(architecture, "Qwen3ForCausalLM") == 0;
    const int64_t hidden = count_of(r, "hidden_size", 0, 1 << 20), mlp = count_of(r, "intermediate_size", 0, MAX_SIZE);
    const int64_t vocab = count_of(r, "vocab_size", 0, MAX_SIZE), layers = count_of(r, "num_hidden_layers", 0, MAX_LAYERS);
    const int64_t heads = count_of(r, "num_attention_heads", 0, 1024), kv = count_of(r, "num_key_value_heads", heads, 1024);
    const int64_t dim = count_of(r, "head_dim", MAX(hidden / heads, 1), 1024);
    const bool    bias = flag(r, "attention_bias", qwen2), mlp_bias = flag(r, "mlp_bias", false);

    add(r, "model.embed_tokens", "weight", vocab, hidden);
    for (int64_t i = 0; i < layers && !r->failed; i++) {
        g_autofree char *layer = g_strdup_printf("model.layers.%d.", (int)i);
        norm(r, layer, "input_layernorm", hidden, false);
        linear(r, layer, "self_attn.q_proj", heads * dim, hidden, bias);
        linear(r, layer, "self_attn.k_proj", kv * dim, hidden, bias);
        linear(r, layer, "self_attn.v_proj", kv * dim, hidden, bias);
        linear(r, layer, "self_attn.o_proj", hidden, heads * dim, bias && !qwen2);
        if (qwen3) {
            norm(r, layer, "self_attn.q_norm", dim, false);
            norm(r, layer, "self_attn.k_norm", dim, false);
        }
        norm(r, layer, "post_attention_layernorm", hidden, false);
        linear(r, layer, "mlp.gate_proj", mlp, hidden, mlp_bias);
        linear(r, layer, "mlp.up_proj", mlp, hidden, mlp_bias);
        linear(r, layer, "mlp.down_proj", hidden, mlp, mlp_bias);
    }
    norm(r, "", "model.norm", hidden, false);
    if (!flag(r, "tie_word_embeddings", false))
        add(r, "lm_head", "weight", vocab, hidden);
}

static void gpt_neox(Reader *r, const char *architecture)
{
    const int64_t hidden = count_of(r, "hidden_size", 0, 1 << 20), mlp = count_of(r, "intermediate_size", 4 * hidden, MAX_SIZE);
    const int64_t vocab = count_of(r, "vocab_size", 0, MAX_SIZE), layers = count_of(r, "num_hidden_layers", 0, MAX_LAYERS);
    const bool    bias = flag(r, "attention_bias", true);

    (void)architecture;
    add(r, "gpt_neox.embed_in", "weight", vocab, hidden);
    for (int64_t i = 0; i < layers && !r->failed; i++) {
        g_autofree char *layer = g_strdup_printf("gpt_neox.layers.%d.", (int)i);
        norm(r, layer, "input_layernorm", hidden, true);
        linear(r, layer, "attention.query_key_value", 3 * hidden, hidden, bias);
        linear(r, layer, "attention.dense", hidden, hidden, bias);
        norm(r, layer, "post_attention_layernorm", hidden, true);
        linear(r, layer, "mlp.dense_h_to_4h", mlp, hidden, true);
        linear(r, layer, "mlp.dense_4h_to_h", hidden, mlp, true);
    }
    norm(r, "", "gpt_neox.final_layer_norm", hidden, true);
    if (!flag(r, "tie_word_embeddings", false))
        add(r, "embed_out", "weight", vocab, hidden);
}

static void read_shapes(Reader *r)
{
    static const struct {
        const char *architecture;
        void (*add)(Reader *, const char *architecture);
    } known[] = {
        { "LlamaForCausalLM", llama }, { "MistralForCausalLM", llama }, { "Qwen2ForCausalLM", llama },
        { "Qwen3ForCausalLM", llama }, { "GPTNeoXForCausalLM", gpt_neox },
    };
    const char       *architecture = mi_meta_find(&r->d->meta, "architectures.0");
    g_autoptr(GString) have = g_string_new(NULL);

    for (size_t i = 0; i < G_N_ELEMENTS(known); i++) {
        if (architecture && strcmp(architecture, known[i].architecture) == 0) {
            known[i].add(r, architecture);
            return;
        }
        g_string_append_printf(have, " %s", known[i].architecture);
    }
    char shown[64];
    fail(r, MI_ERROR_UNSUPPORTED, "random weights of '%s' are not known; these are:%s",
         architecture ? mi_shown(architecture, strlen(architecture), shown) : "(no architecture)", have->str);
}

/* ---- values --------------------------------------------------------------------- */

static uint64_t mixed(uint64_t x) /* splitmix64 */
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

static uint16_t bf16(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

/* The sum of four uniform numbers: deviation 0.02, at most 0.07 from the middle. */
static uint16_t value(uint64_t i, float middle)
{
    const uint64_t x = mixed(i);
    const int32_t  sum = (int32_t)(x & 0xffff) + (int32_t)(x >> 16 & 0xffff) + (int32_t)(x >> 32 & 0xffff) + (int32_t)(x >> 48);
    /* a uniform number of 16 bits has deviation 65536 / sqrt(12), four have twice that */
    return bf16(middle + (float)(sum - 131070) * (0.02f / 37837.2f));
}

static bool is_gain(const char *name) { return g_str_has_suffix(name, "norm.weight"); }

/* Copies of the pattern, one behind the other, until the largest weight fits behind any place in the first. */
static void map_pattern(Reader *r, size_t pages)
{
    Dummy       *d = r->d;
    const size_t bytes = d->pattern_bytes = pages * PAGE;
    const int    fd = memfd_create("dummy weights", MFD_CLOEXEC);
    const size_t copies = 1 + (d->largest + bytes - 1) / bytes;
    char        *base = MAP_FAILED;

    if (fd >= 0 && ftruncate(fd, (off_t)bytes) == 0)
        base = mmap(NULL, copies * bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base != MAP_FAILED) {
        d->pattern = (uint16_t *)(void *)base;
        d->mapped = copies * bytes;
    }
    for (size_t i = 0; i < copies && base != MAP_FAILED; i++)
        if (mmap(base + i * bytes, bytes, i ? PROT_READ : PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED)
            base = MAP_FAILED;
    if (base == MAP_FAILED)
        fail(r, MI_ERROR_NO_MEMORY, "no memory for %zu bytes of random weights: %s", bytes, g_strerror(errno));
    if (fd >= 0)
        close(fd);
}

static bool prime(size_t n)
{
    for (size_t i = 2; i * i <= n; i++)
        if (n % i == 0)
            return false;
    return n > 1;
}

/* Where a weight may begin: at blocks, and at a multiple of START. */
static size_t step_of(const Dummy *d)
{
    size_t step = START;

    while (step % (size_t)d->format->bytes)
        step += START;
    return step;
}

/* A prime number of pages: the rows of one weight come round to the same bytes as late as can be.  Of blocks a multiple of
 * theirs: they are whole where a copy ends. */
static size_t pattern_pages(const Dummy *d, const Options *o)
{
    const size_t all = (d->total + d->weights.n * step_of(d) + PAGE - 1) / PAGE + 1, bytes = (size_t)d->format->bytes;
    size_t       pages = (size_t)o->pattern_mb * (1 << 20) / PAGE;

    if (!pages || pages >= all)
        return (all + bytes - 1) / bytes * bytes;
    if (d->blocks)
        return MAX(pages / bytes, 1) * bytes;
    while (!prime(pages))
        pages--;
    return pages;
}

typedef struct {
    const Dummy *d;
    size_t       first, end; /* blocks */
} Part;

static void fill_block(const Dummy *d, size_t i)
{
    const size_t   bytes = (size_t)d->format->bytes;
    uint8_t       *b = (uint8_t *)d->pattern + i * bytes;
    const uint64_t x = mixed(i);
    const float    times = 0.5f + (float)(x >> 40) * 0x1p-24f; /* no two blocks have one scale */

    for (size_t k = 0; k < bytes; k += sizeof x) {
        const uint64_t y = mixed(x + k);
        memcpy(b + k, &y, MIN(sizeof y, bytes - k));
    }
    for (int h = 0; h < 2 && d->blocks->half[h].about != 0; h++) {
        const uint16_t scale = mi_f32_to_f16(d->blocks->half[h].about * times);
        memcpy(b + d->blocks->half[h].at, &scale, sizeof scale);
    }
}

static gpointer fill_part(gpointer data)
{
    const Part *p = data;

    for (size_t i = p->first; i < p->end; i++)
        if (p->d->blocks)
            fill_block(p->d, i);
        else
            p->d->pattern[i] = value(i, 0);
    return NULL;
}

static void fill_pattern(Dummy *d)
{
    enum { MAX_THREADS = 16 };
    const size_t n = d->pattern_bytes / (size_t)d->format->bytes, threads = CLAMP(g_get_num_processors(), 1u, (guint)MAX_THREADS);
    Part         part[MAX_THREADS];
    GThread     *thread[MAX_THREADS] = { NULL };

    for (size_t i = 0; i < threads; i++) {
        part[i] = (Part){ d, n * i / threads, n * (i + 1) / threads };
        if (i)
            thread[i] = g_thread_try_new("dummy", fill_part, &part[i], NULL);
    }
    for (size_t i = 0; i < threads; i++)
        if (!thread[i])
            fill_part(&part[i]);
    for (size_t i = 1; i < threads; i++)
        if (thread[i])
            g_thread_join(thread[i]);
}

static void fill(Reader *r, const Options *o)
{
    Dummy *d = r->d;
    size_t at = 0;

    map_pattern(r, pattern_pages(d, o));
    if (!r->failed && !(d->gains = g_try_new(uint16_t, 2 * MAX_GAINS)))
        fail(r, MI_ERROR_NO_MEMORY, "no memory for its norms");
    if (r->failed)
        return;
    fill_pattern(d);
    for (size_t i = 0; i < MAX_GAINS; i++) {
        d->gains[i] = value(i, 1);
        d->gains[MAX_GAINS + i] = value(i, 0);
    }
    for (size_t i = 0; i < d->weights.n; i++) {
        MiWeight    *w = &d->weights.at[i];
        const size_t step = step_of(d);
        if (is_gain(w->name) || (d->blocks && w->ndim == 1)) {
            w->data = d->gains + (is_gain(w->name) ? 0 : MAX_GAINS);
            if (w->bytes > MAX_GAINS * sizeof *d->gains)
                fail(r, MI_ERROR_MODEL, "%s has more than %d values", w->name, MAX_GAINS);
            if (d->blocks)
                continue;
        } else {
            w->data = (char *)d->pattern + at;
        }
        at = (at + w->bytes + step - 1) / step * step % d->pattern_bytes;
    }
}

/* ---- MiFormat ------------------------------------------------------------------- */

static int probe(const char *path)
{
    (void)path;
    return 0; /* only by name: nobody gets random weights who did not ask for them */
}

static void close_dummy(void *self)
{
    Dummy *d = self;

    if (d->mapped)
        munmap(d->pattern, d->mapped);
    g_free(d->gains);
    mi_meta_free(&d->meta);
    mi_weights_free(&d->weights);
    g_free(d);
}

static void *open_dummy(const char *path, const void *options, GError **error)
{
    const bool       whole = g_file_test(path, G_FILE_TEST_IS_DIR);
    g_autofree char *directory = whole ? g_strdup(path) : g_path_get_dirname(path);
    g_autofree char *name = whole ? g_strdup("config.json") : g_path_get_basename(path);
    Dummy           *d = g_new0(Dummy, 1);
    Reader           r = { d, path, error, false };

    const Options *o = options;
    d->source = (MiSource){ &dummy, d };
    d->format = mi_block_format(o->stored);
    for (size_t i = 0; i < G_N_ELEMENTS(blocks); i++)
        if (strcmp(blocks[i].format, o->stored) == 0)
            d->blocks = &blocks[i];
    if (mi_config_read(&d->meta, directory, name, "", error) && mi_config_aliases(&d->meta, directory, error)) {
        read_shapes(&r);
        if (!r.failed)
            fill(&r, o);
        if (!r.failed && mi_weights_sort(&d->weights, path, error))
            return d;
    }
    close_dummy(d);
    return NULL;
}

static bool find(void *self, const char *name, MiWeight *out)
{
    const MiWeight *w = mi_weights_find(&((Dummy *)self)->weights, name);

    if (w)
        *out = *w;
    return w != NULL;
}

static size_t n_weights(void *self) { return ((Dummy *)self)->weights.n; }
static void   at(void *self, size_t i, MiWeight *out) { *out = ((Dummy *)self)->weights.at[i]; }
static const char *meta(void *self, const char *key) { return mi_meta_find(&((Dummy *)self)->meta, key); }

static MiRopeStyle rope_style(void *self)
{
    (void)self;
    return MI_ROPE_HALF;
}

static bool decode(void *self, const MiWeight *w, int64_t first, int64_t n, float *out, GError **error)
{
    (void)self;
    return mi_weights_decode(w, first, n, out, error);
}

static bool meta_at(void *self, size_t i, const char **key, const char **value_out)
{
    const MiMeta *m = &((Dummy *)self)->meta;

    if (i >= m->n)
        return false;
    *key = m->at[i].key;
    *value_out = m->at[i].value;
    return true;
}

static const MiFormat dummy = {
    .struct_size = sizeof dummy, .probe = probe, .open = open_dummy, .close = close_dummy, .find = find,
    .count = n_weights, .at = at, .meta = meta, .rope_style = rope_style, .decode = decode, .meta_at = meta_at,
};

static const MiOption options[] = {
    MI_OPTION(Options, pattern_mb, "160", 0, 1 << 16, "mebibytes of random values that all weights share; 0: each has its own"),
    MI_CHOICE(Options, stored, "bf16", "bf16, q4_0, q4_1, q5_0, q5_1, q8_0, q4_k, q5_k, q6_k, iq4_nl, iq4_xs", "how matrices are stored"),
    MI_OPTION_END,
};

MI_PLUGIN("dummy", "0.1", "Random weights of a config.json, for benchmarks", MI_FEATURE_FORMAT("dummy", "*", &dummy, options));
