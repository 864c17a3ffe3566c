/* GGUF files that lie: each is refused with one line that says what and where. */
#include "formats_common.h"
#include "gguf_builder.h"
#include <sys/stat.h>

static char *folder, *path;

static int set_up(void **state)
{
    (void)state;
    folder = new_folder();
    path = g_build_filename(folder, "x.gguf", NULL);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    remove_folder(folder);
    g_free(folder);
    g_free(path);
    return 0;
}

/* The i-th string that is `text`, in the small file: where its length stands. */
static size_t find_text(const Builder *b, const char *text)
{
    const size_t n = strlen(text);
    for (size_t i = 8; i + n <= b->bytes->len; i++) {
        uint64_t len;
        memcpy(&len, b->bytes->data + i - 8, 8);
        if (len == n && memcmp(b->bytes->data + i, text, n) == 0)
            return i - 8;
    }
    fail_msg("no string '%s'", text);
    return 0;
}

static void put_small(const Builder *b) { put(folder, "x.gguf", b->bytes->data, b->bytes->len); }

/* bytes at `at` overwritten, refused, restored. */
static void broken_at(Builder *b, size_t at, const void *bytes, size_t n, const char *words)
{
    uint8_t saved[64];

    assert_true(n <= sizeof saved && at + n <= b->bytes->len);
    memcpy(saved, b->bytes->data + at, n);
    memcpy(b->bytes->data + at, bytes, n);
    put_small(b);
    refused(format_of("gguf"), path, words);
    memcpy(b->bytes->data + at, saved, n);
}

static void broken_u32(Builder *b, size_t at, uint32_t x, const char *words) { broken_at(b, at, &x, 4, words); }
static void broken_u64(Builder *b, size_t at, uint64_t x, const char *words) { broken_at(b, at, &x, 8, words); }

static void opens(const Builder *b)
{
    g_autoptr(GError) error = NULL;
    const MiFormat   *f = format_of("gguf");

    put_small(b);
    void *self = f->open(path, NULL, &error);
    if (!self)
        fail_msg("%s", error->message);
    f->close(self);
}

static void refuses_lying_headers(void **state)
{
    Builder b = small_gguf(SMALL_LLAMA_BPE);

    (void)state;
    opens(&b);
    broken_at(&b, 0, "GGML", 4, "byte 0: this is no GGUF file");
    broken_u32(&b, 4, 0, "byte 4: GGUF version 0;");
    broken_u32(&b, 4, 1, "byte 4: GGUF version 1;");
    broken_u32(&b, 4, 4, "byte 4: GGUF version 4;");
    broken_u32(&b, 4, 0x03000000, "a big-endian file");
    broken_u64(&b, 8, UINT64_MAX, "tensors; the file has room for");
    broken_u64(&b, 8, 65537, "65537 tensors");
    broken_u64(&b, 8, b.n_tensors + 1, ": ");
    broken_u64(&b, 16, UINT64_MAX, "keys; the file has room for");
    broken_u64(&b, 16, 1ull << 61, "keys; the file has room for");
    broken_u64(&b, 16, b.n_keys + 1, ": ");
    for (size_t i = 0; i < b.bytes->len; i++) { /* cut anywhere: the data, too, is all needed */
        put(folder, "x.gguf", b.bytes->data, i);
        refused(format_of("gguf"), path, i ? "x.gguf: byte" : "the file is empty");
    }
    builder_free(&b);
}

static void refuses_lying_keys(void **state)
{
    Builder      b = small_gguf(SMALL_LLAMA_BPE);
    const size_t arch = find_text(&b, "general.architecture"), value = arch + 28;
    const size_t alignment = find_text(&b, "general.alignment") + 25;
    const size_t tokens = find_text(&b, "tokenizer.ggml.tokens") + 29;

    (void)state;
    broken_u64(&b, arch, 0, "a key is empty");
    broken_u64(&b, arch, 65536, "a key");
    broken_u64(&b, arch, UINT64_MAX, "a key takes 18446744073709551615 bytes");
    broken_u64(&b, arch, 1ull << 63, "a key takes");
    broken_u32(&b, value, 13, "'general.architecture' is of type 13; 0 to 12");
    broken_u32(&b, value, UINT32_MAX, "is of type 4294967295");
    broken_u64(&b, value + 4, UINT64_MAX - 8, "general.architecture takes 18446744073709551607 bytes");
    broken_at(&b, arch + 8, "\x1b[2J\n", 5, "the file does not say its 'general.architecture'");
    broken_at(&b, find_text(&b, "llama.rope.freq_base") + 8, "llama.context_length", 20,
              "key 'llama.context_length' is there twice");
    broken_u32(&b, alignment, 5, "general.alignment is no power of two");
    broken_u32(&b, alignment, 6, "general.alignment is no power of two");
    broken_u32(&b, alignment + 4, 0, "general.alignment is no power of two");
    broken_u32(&b, alignment + 4, 3, "general.alignment is no power of two");
    broken_u32(&b, alignment + 4, 1u << 31, "general.alignment is no power of two");
    broken_u32(&b, tokens, 7, "bytes");
    broken_u32(&b, tokens + 4, 9, "is an array of arrays");
    broken_u32(&b, tokens + 4, 14, "is of type 14");
    broken_u64(&b, tokens + 8, UINT64_MAX, "strings and the file has");
    broken_u64(&b, tokens + 8, 1ull << 61, "strings and the file has");
    broken_u64(&b, find_text(&b, "tokenizer.ggml.token_type") + 41, 1ull << 62, "values of 4 bytes and the file has");
    builder_free(&b);
}

static void refuses_lying_tensors(void **state)
{
    Builder      b = small_gguf(SMALL_LLAMA_BPE);
    const size_t t = find_text(&b, "blk.0.attn_q.weight"), n_dims = t + 8 + 19, dims = n_dims + 4, type = dims + 16;
    const size_t q4 = find_text(&b, "blk.0.ffn_gate.weight") + 8 + 21 + 4;

    (void)state;
    broken_u64(&b, t, 0, "'', a tensor's name, is empty");
    broken_u64(&b, t, 256, "a tensor's name has 256 bytes; 255 are possible");
    broken_u64(&b, t, UINT64_MAX, "a tensor's name takes");
    broken_at(&b, t + 8 + 4, "\0", 1, "'blk.?.attn_q.weight', a tensor's name, is empty or holds control bytes");
    broken_at(&b, t + 8 + 4, "\n", 1, "'blk.?.attn_q.weight', a tensor's name, is empty or holds control bytes");
    broken_u32(&b, n_dims, 0, "'blk.0.attn_q.weight' has 0 dimensions");
    broken_u32(&b, n_dims, 5, "'blk.0.attn_q.weight' has 5 dimensions");
    broken_u64(&b, dims, 0, "has 0 for dimension 0");
    broken_u64(&b, dims + 8, 0, "has 0 for dimension 1");
    broken_u64(&b, dims, UINT64_MAX, "has -1 for dimension 0");
    broken_u64(&b, dims, 1ull << 62, "has more than 2^63 values");
    broken_u64(&b, dims + 8, 1ull << 40, "takes more bytes than the file has");
    broken_u64(&b, q4, 33, "has rows of 33 values; q4_1 goes by 32");
    broken_u32(&b, type, 16, "is stored as ggml type 16;");
    broken_u32(&b, type, UINT32_MAX, "is stored as ggml type 4294967295;");
    broken_u64(&b, type + 4, 8, "which 32 does not divide");
    broken_u64(&b, type + 4, 1ull << 40, "ends past the file's");
    broken_u64(&b, type + 4, UINT64_MAX - 31, "ends past the file's");
    broken_u64(&b, type + 4, (b.data / 32 - 1) * 32, "ends past the file's");
    broken_at(&b, find_text(&b, "blk.0.attn_k.weight") + 8, "blk.0.attn_q.weight", 19,
              "tensor 'model.layers.0.self_attn.q_proj.weight' is there twice");
    builder_free(&b);
}

/* What names one thing may not be spelled as another: such tensors keep their own name. */
static void keeps_names_it_does_not_know(void **state)
{
    static const char *const names[] = {"blk.00.attn_q.weight",
                                        "blk.x.attn_q.weight",
                                        "blk.123456.attn_q.weight",
                                        "blk.1.weight",
                                        "blk.1",
                                        "blk.",
                                        "output",
                                        ".weight",
                                        "output.weight.weight",
                                        "blk.1.attn_q.scale"};
    const MiFormat *f = format_of("gguf");

    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        Builder  b = builder_new();
        MiWeight w;
        key_text(&b, "general.architecture", "llama");
        tensor(&b, names[i], 0, 4, 0, 16);
        builder_end(&b);
        put_small(&b);
        void *self = f->open(path, NULL, NULL);
        assert_non_null(self);
        assert_true(f->find(self, names[i], &w));
        f->close(self);
        builder_free(&b);
    }
}

typedef void Change(Builder *);
static void no_architecture(Builder *b) { key_u32(b, "x", 1); }
static void number_as_architecture(Builder *b) { key_u32(b, "general.architecture", 1); }
static void bad_utf8(Builder *b) { key_text(b, "general.architecture", "\xff"); }
static void llama(Builder *b) { key_text(b, "general.architecture", "llama"); }
static void text_as_count(Builder *b) { llama(b), key_text(b, "llama.block_count", "1"); }
static void array_as_count(Builder *b) { llama(b), key_numbers(b, "llama.attention.head_count", 4, "\1\0\0\0", 1); }
static void text_as_scale(Builder *b) { llama(b), key_text(b, "llama.rope.scale_linear", "1"); }
static void number_as_scaling(Builder *b) { llama(b), key_u32(b, "llama.rope.scaling.type", 1); }
static void array_as_name(Builder *b) { llama(b), key_numbers(b, "general.name", 4, "\1\0\0\0", 1); }
static void bad_name(Builder *b) { llama(b), key_text(b, "general.name", "\xff"); }
static void  two_head_sizes(Builder *b)
{
    llama(b), key_u32(b, "llama.attention.key_length", 64), key_u32(b, "llama.attention.value_length", 32);
}
static void wrong_freqs(Builder *b) { llama(b), tensor(b, "rope_freqs.weight", 0, 8, 0, 32); }
static void wide_freqs(Builder *b) { llama(b), tensor(b, "rope_freqs.weight", 0, 1025, 0, 4100); }
static void freqs_of_halves(Builder *b) { llama(b), tensor(b, "rope_freqs.weight", 1, 8, 0, 32); }
static void odd_freq_factors(Builder *b) { wrong_freqs(b), key_f32(b, "llama.rope.scaling.low_freq_factor", 9); }
static void odd_qkv(Builder *b)
{
    key_text(b, "general.architecture", "gptneox");
    key_u32(b, "gptneox.embedding_length", 32);
    key_u32(b, "gptneox.attention.head_count", 2);
    tensor(b, "blk.0.attn_qkv.weight", 0, 32, 95, 95 * 128);
}
static void qkv_without_heads(Builder *b)
{
    key_text(b, "general.architecture", "gptneox");
    key_u32(b, "gptneox.attention.head_count", 0);
    tensor(b, "blk.0.attn_qkv.weight", 0, 32, 96, 96 * 128);
}

static void refuses_metadata_of_the_wrong_kind(void **state)
{
    static const struct { Change *change; const char *words; } bad[] = {
        { no_architecture, "does not say its 'general.architecture'" },
        { number_as_architecture, "'general.architecture' is no string" },
        { bad_utf8, "'general.architecture' is not UTF-8" },
        { text_as_count, "'llama.block_count' is no single number" },
        { array_as_count, "'llama.attention.head_count' is no single number" },
        { text_as_scale, "'llama.rope.scale_linear' is no number" },
        { number_as_scaling, "'llama.rope.scaling.type' is no string" },
        { array_as_name, "'general.name' is an array" },
        { bad_name, "'general.name' is not UTF-8" },
        { two_head_sizes, "heads of 64 for keys and 32 for values" },
        { wrong_freqs, "which is not Llama 3's scaling" },
        { wide_freqs, "no row of at most 1024 f32" },
        { freqs_of_halves, "no row of at most 1024 f32" },
        { odd_freq_factors, "with factors from 9 to 4" },
        { odd_qkv, "has 95 rows, not 3 times 2 heads of 16" },
        { qkv_without_heads, "has 96 rows, not 3 times 0 heads" },
    };

    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        Builder b = builder_new();
        bad[i].change(&b);
        builder_end(&b);
        put_small(&b);
        refused(format_of("gguf"), path, bad[i].words);
        builder_free(&b);
    }
}

/* The small file with bytes at `at` overwritten opens, and its vocabulary is refused. */
static void vocabulary_refused(Small which, const char *name, int skip, const void *bytes, size_t n, const char *words)
{
    g_autoptr(GError) error = NULL;
    const MiFormat   *f = format_of("gguf");
    Builder           b = small_gguf(which);
    MiTokenizerData   t;

    memcpy(b.bytes->data + find_text(&b, name) + 8 + strlen(name) + (size_t)skip, bytes, n);
    put_small(&b);
    void *self = f->open(path, NULL, &error);
    if (!self)
        fail_msg("%s", error->message);
    assert_false(f->tokenizer(self, &t, &error));
    if (!strstr(error->message, words) || !g_str_has_prefix(error->message, path))
        fail_msg("'%s' lacks '%s'", error->message, words);
    g_clear_error(&error);
    assert_false(f->tokenizer(self, &t, &error)); /* and again */
    f->close(self);
    builder_free(&b);
}

static void refuses_lying_vocabularies(void **state)
{
    static const int32_t ten = 10, minus_two = -2, seven = 7, zero = 0, real = 6;
    const Small          bpe = SMALL_LLAMA_BPE, spm = SMALL_NEOX_SPM;

    (void)state;
    vocabulary_refused(bpe, "tokenizer.ggml.model", 12, "bert", 4, "tokenizer 'bert'; gpt2, llama and t5");
    vocabulary_refused(bpe, "tokenizer.ggml.model", 12, "gp\xff\xff", 4, "'tokenizer.ggml.model' is not UTF-8");
    vocabulary_refused(bpe, "tokenizer.ggml.model", -1, "x", 1, "the file has no tokenizer");
    vocabulary_refused(bpe, "tokenizer.ggml.pre", 12, "\xff", 1, "'tokenizer.ggml.pre' is not UTF-8");
    vocabulary_refused(bpe, "tokenizer.chat_template", 12, "\0", 1, "'tokenizer.chat_template' is not UTF-8");
    vocabulary_refused(bpe, "tokenizer.ggml.tokens", -1, "x", 1, "'tokenizer.ggml.tokens' is no array");
    vocabulary_refused(bpe, "tokenizer.ggml.token_type", 16, &zero, 4, "token 0 has type 0; 1 to 6");
    vocabulary_refused(bpe, "tokenizer.ggml.token_type", 20, &seven, 4, "token 1 has type 7; 1 to 6");
    vocabulary_refused(bpe, "tokenizer.ggml.token_type", 20, &real, 4, "token 1 is of type byte and not <0x00>");
    vocabulary_refused(bpe, "tokenizer.ggml.merges", -1, "x", 1, "'tokenizer.ggml.merges' is no array");
    vocabulary_refused(bpe, "tokenizer.ggml.merges", 24, "a-b", 3, "merge 0, 'a-b', is no two tokens");
    vocabulary_refused(bpe, "tokenizer.ggml.merges", 24, " b ", 3, "merge 0, ' b ', is of texts that are no tokens");
    vocabulary_refused(bpe, "tokenizer.ggml.merges", 24, "x b", 3, "merge 0, 'x b', is of texts that are no tokens");
    vocabulary_refused(bpe, "tokenizer.ggml.merges", 24, "a x", 3, "merge 0, 'a x', is of texts that are no tokens");
    vocabulary_refused(bpe, "tokenizer.ggml.bos_token_id", 4, &ten, 4,
                       "'tokenizer.ggml.bos_token_id' is 10; there are 10");
    vocabulary_refused(bpe, "tokenizer.ggml.eos_token_id", 4, &minus_two, 4, "is 4294967294; there are 10");
    vocabulary_refused(bpe, "tokenizer.ggml.eot_token_id", 4, &ten, 4, "'tokenizer.ggml.eot_token_id' is 10");
    vocabulary_refused(bpe, "tokenizer.ggml.bos_token_id", 0, &real, 4, "'tokenizer.ggml.bos_token_id' is no number");
    vocabulary_refused(spm, "tokenizer.ggml.tokens", 16 + 8 + 5 + 8 + 3 + 8 + 4 + 8, "<0x-1>", 6,
                       "token 3 is of type byte and not");
    vocabulary_refused(spm, "tokenizer.ggml.tokens", 16 + 8 + 5 + 8 + 3 + 8 + 4 + 8, "<0x0G>", 6,
                       "token 3 is of type byte and not");
}

/* Columns as long as the vocabulary, or none. */
static void refuses_columns_of_another_length(void **state)
{
    static const char *const texts[] = { "a", "b" };
    static const struct { const char *key; uint32_t type; } columns[] = { { "tokenizer.ggml.token_type", 5 },
                                                                          { "tokenizer.ggml.scores", 6 } };
    static const int32_t ones[3] = { 1, 1, 1 };
    const MiFormat      *f = format_of("gguf");

    (void)state;
    for (size_t i = 0; i < 2 * G_N_ELEMENTS(columns); i++) {
        g_autoptr(GError) error = NULL;
        MiTokenizerData   t;
        Builder           b = builder_new();
        llama(&b);
        key_text(&b, "tokenizer.ggml.model", "llama");
        key_texts(&b, "tokenizer.ggml.tokens", texts, 2);
        if (i % 2)
            key_texts(&b, columns[i / 2].key, texts, 2);
        else
            key_numbers(&b, columns[i / 2].key, columns[i / 2].type, ones, 3);
        builder_end(&b);
        put_small(&b);
        void *self = f->open(path, NULL, &error);
        assert_non_null(self);
        assert_false(f->tokenizer(self, &t, &error));
        assert_non_null(strstr(error->message, i < 2 ? "is no array of 2 whole numbers" : "is no array of 2 numbers"));
        f->close(self);
        builder_free(&b);
    }
}

static void shapes(Builder *b)
{
    llama(b);
    key_u32(b, "llama.embedding_length", 96), key_u32(b, "llama.attention.head_count", 1);
}
static void window(Builder *b) { shapes(b), key_u32(b, "llama.attention.sliding_window", 64); }
static void linear(Builder *b) { shapes(b), key_f32(b, "llama.rope.scale_linear", 2); }
static void linear_by_name(Builder *b)
{
    shapes(b), key_text(b, "llama.rope.scaling.type", "linear"), key_f32(b, "llama.rope.scaling.factor", 4);
}
static void no_scaling(Builder *b)
{
    shapes(b), key_text(b, "llama.rope.scaling.type", "none"), key_f32(b, "llama.rope.scaling.factor", 4);
}
static void yarn(Builder *b)
{
    shapes(b), key_text(b, "llama.rope.scaling.type", "yarn"), key_f32(b, "llama.rope.scaling.factor", 1);
    key_f32(b, "llama.rope.scaling.attn_factor", 2), key_f32(b, "llama.rope.scaling.yarn_beta_fast", 16);
    key_u32(b, "llama.rope.scaling.original_context_length", 4096);
}
static void partial(Builder *b) { shapes(b), key_u32(b, "llama.rope.dimension_count", 10); }
static void stranger(Builder *b) { key_text(b, "general.architecture", "mamba"), key_u32(b, "general.file_type", 7); }
static void wide_types(Builder *b)
{
    static const int64_t n = 24;
    static const double  x = 0.5;
    static const int16_t heads = 3;
    static const int8_t  kv = -1;
    llama(b);
    key(b, "llama.block_count", 10), put_u64(b->bytes, b->marks, (uint64_t)n, MARK_VALUE);
    key(b, "llama.embedding_length", 11), put_u64(b->bytes, b->marks, (uint64_t)n, MARK_VALUE);
    key(b, "llama.rope.freq_base", 12), put_mark(b->bytes, b->marks, &x, 8, MARK_VALUE);
    key(b, "llama.attention.head_count", 3), put_mark(b->bytes, b->marks, &heads, 2, MARK_VALUE);
    key(b, "llama.attention.head_count_kv", 1), put_mark(b->bytes, b->marks, &kv, 1, MARK_VALUE);
    key(b, "llama.context_length", 0), put_mark(b->bytes, b->marks, &heads, 1, MARK_VALUE);
    key(b, "llama.feed_forward_length", 2), put_mark(b->bytes, b->marks, &heads, 2, MARK_VALUE);
    key(b, "llama.attention.key_length", 5), put_u32(b->bytes, b->marks, 8, MARK_VALUE);
}

/* What the keys mean in Hugging Face's words; NULL: nothing is said. */
static void translates_metadata(void **state)
{
    static const struct { Change *change; const char *key, *value;
    } cases[] = {
        {shapes, "head_dim", "96"},
        {shapes, "rope_theta", "10000"},
        {shapes, "rope_scaling.rope_type", NULL},
        {shapes, "architectures.0", "LlamaForCausalLM"},
        {shapes, "partial_rotary_factor", NULL},
        {shapes, "tie_word_embeddings", "true"},
        {shapes, "vocab_size", NULL},
        {window, "architectures.0", "MistralForCausalLM"},
        {window, "use_sliding_window", "true"},
        {linear, "rope_scaling.rope_type", "linear"},
        {linear, "rope_scaling.factor", "2"},
        {linear_by_name, "rope_scaling.factor", "4"},
        {no_scaling, "rope_scaling.rope_type", NULL},
        {yarn, "rope_scaling.rope_type", "yarn"},
        {yarn, "rope_scaling.beta_fast", "16"},
        {yarn, "rope_scaling.attention_factor", "2"},
        {yarn, "rope_scaling.original_max_position_embeddings", "4096"},
        {stranger, "architectures.0", "mamba"},
        {stranger, "general.file_type", "7"},
        {stranger, "head_dim", NULL},
        {wide_types, "num_hidden_layers", "24"},
        {wide_types, "hidden_size", "24"},
        {wide_types, "rope_theta", "0.5"},
        {wide_types, "num_attention_heads", "3"},
        {wide_types, "num_key_value_heads", "-1"},
        {wide_types, "max_position_embeddings", "3"},
        {wide_types, "intermediate_size", "3"},
        {wide_types, "head_dim", "8"},
    };
    const MiFormat *f = format_of("gguf");

    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GError) error = NULL;
        Builder           b = builder_new();
        MiTokenizerData   t;
        cases[i].change(&b);
        builder_end(&b);
        put_small(&b);
        void *self = f->open(path, NULL, &error);
        if (!self)
            fail_msg("%s", error->message);
        if (g_strcmp0(f->meta(self, cases[i].key), cases[i].value) != 0)
            fail_msg("%s is %s, not %s (case %zu)", cases[i].key, f->meta(self, cases[i].key), cases[i].value, i);
        assert_int_equal(f->rope_style(self), cases[i].change == stranger ? MI_ROPE_HALF : MI_ROPE_INTERLEAVED);
        assert_false(f->tokenizer(self, &t, &error));
        assert_int_equal(error->code, MI_ERROR_NOT_FOUND);
        f->close(self);
        builder_free(&b);
    }
    /* The leading elements that turn come out of head_dim * factor, truncated, again. */
    Builder b = builder_new();
    partial(&b);
    builder_end(&b);
    put_small(&b);
    void *self = f->open(path, NULL, NULL);
    assert_int_equal((int)(96 * g_ascii_strtod(f->meta(self, "partial_rotary_factor"), NULL)), 10);
    f->close(self);
    builder_free(&b);
}

static void takes_regular_files_only(void **state)
{
    const MiFormat *f = format_of("gguf");

    (void)state;
    refused(f, path, "No such file or directory");
    assert_int_equal(f->probe(path), 50); /* so that open() says what is wrong */
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(f->probe(path), 50);
    refused(f, path, "not a regular file");
    g_remove(path);
    refused(f, folder, "not a regular file");
    assert_int_equal(f->probe(folder), 0);
    refused(f, "/dev/zero", "not a regular file");
    put(folder, "x.gguf", "GG", 2);
    assert_int_equal(f->probe(path), 50);
    refused(f, path, "the magic number takes 4 bytes and the file has 2 more");
}

#define ALONE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
TEST_MAIN(ALONE(refuses_lying_headers), ALONE(refuses_lying_keys), ALONE(refuses_lying_tensors),
          ALONE(keeps_names_it_does_not_know), ALONE(refuses_metadata_of_the_wrong_kind),
          ALONE(refuses_lying_vocabularies), ALONE(refuses_columns_of_another_length), ALONE(translates_metadata),
          ALONE(takes_regular_files_only));
