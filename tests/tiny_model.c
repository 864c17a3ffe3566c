/* tiny_model.c - writes a model of a few kilobytes with random weights, for tests
 * that need a run: a Hugging Face directory with config.json and model.safetensors, f32.
 *
 *   tiny_model [-t] DIRECTORY ACTIVATION gate|one [ARCHITECTURE]
 *
 * With -t it has a tokenizer, a character a token, a chat template, and room for long answers.
 * The MLP computes down(act(gate x) * up x).  With `gate` the up projection is the
 * gate's, so that "relu" gives relu(g) g = relu(g)^2; with `one` it is 0 x + 1, so
 * that an activation of relu(g)^2 gives the same numbers.  The weights do not depend
 * on the architecture, which is LlamaForCausalLM if none is named. */
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { VOCAB = 96, HIDDEN = 32, INNER = 48, HEADS = 4, KV_HEADS = 2, HEAD_DIM = 8, LAYERS = 2, MAX_TENSORS = 64 };

typedef enum { RANDOM, ONES, ZEROS } Fill;
typedef struct {
    char     name[64];
    int      rows, columns; /* columns 0: a vector */
    Fill     fill;
    uint64_t seed;
} Tensor;

static Tensor tensors[MAX_TENSORS];
static int    n_tensors;

/* seed 0: its own. */
static void add(const char *name, int rows, int columns, Fill fill, uint64_t seed)
{
    Tensor *t = &tensors[n_tensors++];

    snprintf(t->name, sizeof t->name, "%s", name);
    t->rows = rows, t->columns = columns, t->fill = fill;
    t->seed = seed ? seed : 1000u + (uint64_t)n_tensors;
}

static void layer(int i, bool one)
{
    static const struct { const char *name; int rows, columns; } parts[] = {
        { "input_layernorm", HIDDEN, 0 }, { "self_attn.q_proj", HEADS * HEAD_DIM, HIDDEN },
        { "self_attn.k_proj", KV_HEADS * HEAD_DIM, HIDDEN }, { "self_attn.v_proj", KV_HEADS * HEAD_DIM, HIDDEN },
        { "self_attn.o_proj", HIDDEN, HEADS * HEAD_DIM }, { "post_attention_layernorm", HIDDEN, 0 },
        { "mlp.gate_proj", INNER, HIDDEN }, { "mlp.up_proj", INNER, HIDDEN }, { "mlp.down_proj", HIDDEN, INNER },
    };
    char name[64];

    for (size_t k = 0; k < sizeof parts / sizeof parts[0]; k++) {
        const bool gate = strcmp(parts[k].name, "mlp.gate_proj") == 0, up = strcmp(parts[k].name, "mlp.up_proj") == 0;
        snprintf(name, sizeof name, "model.layers.%d.%s.weight", i, parts[k].name);
        add(name, parts[k].rows, parts[k].columns, !parts[k].columns ? ONES : up && one ? ZEROS : RANDOM,
            gate || up ? 77u + (uint64_t)i : 1u + (uint64_t)i * 16 + k);
        if (up && one) {
            snprintf(name, sizeof name, "model.layers.%d.mlp.up_proj.bias", i);
            add(name, INNER, 0, ONES, 0);
        }
    }
}

static uint64_t count(const Tensor *t) { return (uint64_t)t->rows * (uint64_t)(t->columns ? t->columns : 1); }

/* Uniform in -0.5 .. 0.5 (a linear congruential generator's upper bits). */
static float next(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (float)(*state >> 40) / (float)(1 << 24) - 0.5f;
}

static void write_payload(FILE *f, const Tensor *t)
{
    uint64_t state = t->seed;

    for (uint64_t i = 0; i < count(t); i++) {
        float x = t->fill == RANDOM ? next(&state) : t->fill == ONES;
        fwrite(&x, sizeof x, 1, f);
    }
}

static bool finished(FILE *f, const char *path)
{
    const bool bad = ferror(f) != 0;

    if (fclose(f) == 0 && !bad)
        return true;
    fprintf(stderr, "tiny_model: cannot write %s\n", path);
    return false;
}

static FILE *create(const char *directory, const char *name, char *path, size_t size)
{
    FILE *f;

    snprintf(path, size, "%s/%s", directory, name);
    if (!(f = fopen(path, "wb")))
        fprintf(stderr, "tiny_model: %s: %s\n", path, strerror(errno));
    return f;
}

static bool write_weights(const char *directory)
{
    char     path[4096], header[8192];
    uint64_t at = 0, length;
    size_t   n = 0;
    FILE    *f = create(directory, "model.safetensors", path, sizeof path);

    if (!f)
        return false;
    for (int i = 0; i < n_tensors; i++) {
        const Tensor  *t = &tensors[i];
        const uint64_t end = at + 4 * count(t);
        char           shape[32];
        snprintf(shape, sizeof shape, t->columns ? "%d,%d" : "%d", t->rows, t->columns);
        n += (size_t)snprintf(header + n, sizeof header - n,
                              "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[%s],\"data_offsets\":[%llu,%llu]}", i ? "," : "{",
                              t->name, shape, (unsigned long long)at, (unsigned long long)end);
        at = end;
    }
    n += (size_t)snprintf(header + n, sizeof header - n, "}");
    while (n % 8)
        header[n++] = ' ';
    length = n;
    fwrite(&length, sizeof length, 1, f); /* little-endian, as the machines that run this are */
    fwrite(header, 1, n, f);
    for (int i = 0; i < n_tensors; i++)
        write_payload(f, &tensors[i]);
    return finished(f, path);
}

/* Ids: the letters from ' ' to '{', a newline, and three special pieces. */
static bool write_tokenizer(const char *directory)
{
    static const char *const special[] = { "<|user|>", "<|bot|>", "<|end|>" };
    char                     path[4096];
    const int                first = VOCAB - 3;
    FILE                    *f = create(directory, "tokenizer.json", path, sizeof path);

    if (!f)
        return false;
    fprintf(f, "{\"added_tokens\": [");
    for (int i = 0; i < 3; i++)
        fprintf(f, "%s{\"id\": %d, \"content\": \"%s\", \"special\": true}", i ? ", " : "", first + i, special[i]);
    fprintf(f, "],\n \"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"use_regex\": false},\n"
               " \"decoder\": {\"type\": \"ByteLevel\"},\n \"model\": {\"type\": \"BPE\", \"merges\": [], \"vocab\": {\"\\u0120\": 0");
    for (int i = 1; i < first - 1; i++)
        fprintf(f, ", \"%s%c\": %d", i + ' ' == '"' || i + ' ' == '\\' ? "\\" : "", i + ' ', i);
    fprintf(f, ", \"\\u010a\": %d}}}\n", first - 1); /* the byte-level letters of blank and newline */
    if (!finished(f, path) || !(f = create(directory, "tokenizer_config.json", path, sizeof path)))
        return false;
    fprintf(f, "{\"eos_token\": \"<|end|>\"}\n");
    if (!finished(f, path) || !(f = create(directory, "chat_template.jinja", path, sizeof path)))
        return false;
    fprintf(f, "{%% for m in messages %%}{%% if m.role == 'user' %%}<|user|>{%% else %%}<|bot|>{%% endif %%}{{ m.content }}<|end|>{%% endfor %%}"
               "{%% if add_generation_prompt %%}<|bot|>{%% endif %%}");
    return finished(f, path);
}

static bool write_config(const char *directory, const char *activation, const char *architecture, int positions)
{
    char  path[4096];
    FILE *f = create(directory, "config.json", path, sizeof path);

    if (!f)
        return false;
    fprintf(f,
            "{\"architectures\": [\"%s\"], \"model_type\": \"llama\", \"hidden_act\": \"%s\",\n"
            " \"vocab_size\": %d, \"hidden_size\": %d, \"intermediate_size\": %d, \"num_hidden_layers\": %d,\n"
            " \"num_attention_heads\": %d, \"num_key_value_heads\": %d, \"head_dim\": %d, \"rms_norm_eps\": 1e-5,\n"
            " \"rope_theta\": 10000.0, \"max_position_embeddings\": %d, \"tie_word_embeddings\": false}\n",
            architecture, activation, VOCAB, HIDDEN, INNER, LAYERS, HEADS, KV_HEADS, HEAD_DIM, positions);
    return finished(f, path);
}

int main(int argc, char **argv)
{
    const bool text = argc > 1 && strcmp(argv[1], "-t") == 0;
    char     **arg = argv + text;

    argc -= text;
    if (argc < 4 || argc > 5 || (strcmp(arg[3], "gate") != 0 && strcmp(arg[3], "one") != 0)) {
        fprintf(stderr, "usage: tiny_model [-t] DIRECTORY ACTIVATION gate|one [ARCHITECTURE]\n");
        return 64;
    }
    if (mkdir(arg[1], 0777) && errno != EEXIST) {
        fprintf(stderr, "tiny_model: %s: %s\n", arg[1], strerror(errno));
        return 74;
    }
    add("model.embed_tokens.weight", VOCAB, HIDDEN, RANDOM, 5);
    for (int i = 0; i < LAYERS; i++)
        layer(i, strcmp(arg[3], "one") == 0);
    add("model.norm.weight", HIDDEN, 0, ONES, 6);
    add("lm_head.weight", VOCAB, HIDDEN, RANDOM, 7);
    return write_weights(arg[1]) && write_config(arg[1], arg[2], argc > 4 ? arg[4] : "LlamaForCausalLM", text ? 16384 : 128) &&
                   (!text || write_tokenizer(arg[1]))
               ? 0
               : 74;
}
