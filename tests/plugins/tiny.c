/* tiny.c - a model made of numbers out of a hash: a format for tests, whose
 * file is a line "tiny", then lines "key value" of its configuration.
 *
 * Weights are f32, a function of their name and place, scaled so that the
 * network neither dies nor explodes; the tokenizer has the 256 bytes, then bos,
 * eos and end of turn.  Heads, layers and so on are read from the file. */
#include <miniinfer/plugin.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VOCAB = 259, BOS = 256, EOS = 257 };

typedef struct {
    GHashTable *meta;    /* key -> value */
    GHashTable *weights; /* name -> GBytes of f32 */
    MiPiece     pieces[VOCAB];
    char        bytes[256];
    int32_t     stop[1];
} Tiny;

static int number(const Tiny *t, const char *key, int def)
{
    const char *text = g_hash_table_lookup(t->meta, key);
    return text ? atoi(text) : def;
}

/* splitmix64, as Steele, Lea and Flood give it in "Fast splittable pseudorandom number generators". */
static uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

static int probe(const char *path)
{
    g_autofree char *text = NULL;
    return g_file_test(path, G_FILE_TEST_IS_REGULAR) && g_file_get_contents(path, &text, NULL, NULL) &&
           g_str_has_prefix(text, "tiny\n") ? 100 : 0;
}

static void *open_tiny(const char *path, const void *options, GError **error)
{
    g_autofree char *text = NULL;
    Tiny            *t;

    (void)options;
    if (!g_file_get_contents(path, &text, NULL, error))
        return NULL;
    t = g_new0(Tiny, 1);
    t->meta = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    t->weights = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, (GDestroyNotify)g_bytes_unref);
    g_auto(GStrv) lines = g_strsplit(text, "\n", 0);
    for (char **l = lines + 1; *l; l++) {
        char *blank = strchr(*l, ' ');
        if (blank)
            g_hash_table_insert(t->meta, g_strndup(*l, (gsize)(blank - *l)), g_strdup(blank + 1));
    }
    return t;
}

static void close_tiny(void *self)
{
    Tiny *t = self;
    g_hash_table_unref(t->meta);
    g_hash_table_unref(t->weights);
    g_free(t);
}

static bool shape_of(const Tiny *t, const char *name, int64_t *rows, int64_t *cols)
{
    const int hidden = number(t, "hidden_size", 64), head = number(t, "head_dim", 16);
    const int q = number(t, "num_attention_heads", 4) * head, kv = number(t, "num_key_value_heads", 2) * head;
    const int mlp = number(t, "intermediate_size", 96), layers = number(t, "num_hidden_layers", 2);
    const struct { const char *end; int rows, cols; } shapes[] = {
        { "input_layernorm.weight", hidden, 0 }, { "post_attention_layernorm.weight", hidden, 0 },
        { "self_attn.q_proj.weight", q, hidden }, { "self_attn.k_proj.weight", kv, hidden },
        { "self_attn.v_proj.weight", kv, hidden }, { "self_attn.o_proj.weight", hidden, q },
        { "self_attn.q_proj.bias", q, 0 }, { "mlp.gate_proj.weight", mlp, hidden },
        { "mlp.up_proj.weight", mlp, hidden }, { "mlp.down_proj.weight", hidden, mlp },
    };
    int layer, end = 0;

    *cols = hidden;
    if (strcmp(name, "model.embed_tokens.weight") == 0 || strcmp(name, "lm_head.weight") == 0)
        return *rows = VOCAB, true;
    *rows = hidden;
    *cols = 0;
    if (strcmp(name, "model.norm.weight") == 0)
        return true;
    if (sscanf(name, "model.layers.%d.%n", &layer, &end) != 1 || !end || layer < 0 || layer >= layers)
        return false;
    for (size_t i = 0; i < G_N_ELEMENTS(shapes); i++)
        if (strcmp(name + end, shapes[i].end) == 0) {
            *rows = shapes[i].rows;
            *cols = shapes[i].cols;
            return true;
        }
    return false;
}

static GBytes *values(const char *name, int64_t rows, int64_t cols)
{
    const size_t   n = (size_t)(rows * (cols ? cols : 1));
    const uint64_t key = g_str_hash(name);
    float         *w = g_new(float, n);

    for (size_t i = 0; i < n; i++) {
        const double x = (double)(mix(key << 32 ^ i) >> 11) / 9007199254740992.0 * 2 - 1;
        w[i] = (float)(cols ? x * sqrt(3.0 / (double)cols) : 1 + 0.1 * x);
    }
    return g_bytes_new_take(w, n * sizeof *w);
}

static bool find(void *self, const char *name, MiWeight *out)
{
    Tiny   *t = self;
    int64_t rows, cols;
    gpointer key, bytes;

    if (!shape_of(t, name, &rows, &cols))
        return false;
    if (!g_hash_table_lookup_extended(t->weights, name, &key, &bytes)) {
        key = g_strdup(name);
        g_hash_table_insert(t->weights, key, bytes = values(name, rows, cols));
    }
    *out = (MiWeight){ .name = key, .format = "f32", .ndim = cols ? 2 : 1, .shape = { rows, cols },
                       .data = g_bytes_get_data(bytes, &out->bytes) };
    out->bytes = g_bytes_get_size(bytes);
    return true;
}

static size_t count(void *self) { return g_hash_table_size(((Tiny *)self)->weights); }

static void at(void *self, size_t i, MiWeight *out)
{
    g_autofree char **names = (char **)g_hash_table_get_keys_as_array(((Tiny *)self)->weights, NULL);
    find(self, names[i], out);
}

static const char *meta(void *self, const char *key)
{
    const char *text = g_hash_table_lookup(((Tiny *)self)->meta, key);
    static const char *const def[][2] = {
        { "architectures.0", "LlamaForCausalLM" }, { "hidden_size", "64" }, { "head_dim", "16" }, { "num_hidden_layers", "2" },
        { "num_attention_heads", "4" }, { "num_key_value_heads", "2" }, { "max_position_embeddings", "512" },
    };
    for (size_t i = 0; !text && i < G_N_ELEMENTS(def); i++)
        if (strcmp(key, def[i][0]) == 0)
            text = def[i][1];
    return text;
}

static MiRopeStyle rope_style(void *self)
{
    (void)self;
    return MI_ROPE_HALF;
}

static bool tokenizer(void *self, MiTokenizerData *out, GError **error)
{
    Tiny *t = self;

    (void)error;
    for (int i = 0; i < 256; i++) {
        t->bytes[i] = (char)i;
        t->pieces[i] = (MiPiece){ .text = &t->bytes[i], .len = 1, .type = MI_PIECE_NORMAL };
    }
    t->pieces[BOS] = (MiPiece){ .text = "<s>", .len = 3, .type = MI_PIECE_CONTROL };
    t->pieces[EOS] = (MiPiece){ .text = "</s>", .len = 4, .type = MI_PIECE_CONTROL };
    t->pieces[VOCAB - 1] = (MiPiece){ .text = "<end>", .len = 5, .type = MI_PIECE_CONTROL };
    t->stop[0] = EOS;
    *out = (MiTokenizerData){
        .kind = "bpe", .pieces = t->pieces, .n_pieces = VOCAB, .bos = BOS, .eos = EOS, .pad = -1, .unk = -1,
        .stop = t->stop, .n_stop = 1, .pre = "gpt-2",
        .chat_template = "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}<end>{% endfor %}",
    };
    return true;
}

static const MiFormat tiny = {
    .struct_size = sizeof tiny,
    .probe = probe,
    .open = open_tiny,
    .close = close_tiny,
    .find = find,
    .count = count,
    .at = at,
    .meta = meta,
    .rope_style = rope_style,
    .tokenizer = tokenizer,
};

MI_PLUGIN("tiny", "0", "A model of hashed numbers", MI_FEATURE_FORMAT("tiny", "*", &tiny, NULL));
