/* What the keys of a GGUF may say, key by key: what comes of it, or the line that refuses it. */
#define _GNU_SOURCE /* memmem */
#include "formats_common.h"
#include "gguf_builder.h"
#include <unistd.h>

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

typedef void Change(Builder *);

/* A file of those keys. */
static void put_keys(Change *change)
{
    Builder b = builder_new();
    change(&b);
    builder_end(&b);
    put(folder, "x.gguf", b.bytes->data, b.bytes->len);
    builder_free(&b);
}

static void *opened(void)
{
    g_autoptr(GError) error = NULL;
    void             *self = format_of("gguf")->open(path, NULL, &error);
    if (!self)
        fail_msg("%s", error->message);
    return self;
}

/* ---- numbers ----------------------------------------------------------------------------------- */

static void llama(Builder *b)
{
    key_text(b, "general.architecture", "llama");
    key_u32(b, "llama.embedding_length", 98), key_u32(b, "llama.attention.head_count", 1);
}

/* Each key that is a number, as a text and as an array. */
static void numbers_are_numbers(void **state)
{
    static const char *const keys[] = {
        "rope.scaling.factor", "rope.scale_linear", "rope.scaling.original_context_length",
        "rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow", "rope.scaling.attn_factor",
        "rope.scaling.yarn_attn_factor", "rope.dimension_count", "attention.value_length",
        "rope.scaling.low_freq_factor", "rope.scaling.high_freq_factor", "attention.key_length", "rope.freq_base",
    };

    (void)state;
    for (size_t i = 0; i < 2 * G_N_ELEMENTS(keys); i++) {
        g_autofree char *name = g_strconcat("llama.", keys[i / 2], NULL), *words = g_strdup_printf("'%s' is no ", name);
        Builder          b = builder_new();
        llama(&b);
        if (i % 2)
            key_numbers(&b, name, 4, "\1\0\0\0", 1);
        else
            key_text(&b, name, "1");
        tensor(&b, "rope_freqs.weight", 0, 8, 0, 32); /* low and high factors are of it */
        builder_end(&b);
        put(folder, "x.gguf", b.bytes->data, b.bytes->len);
        refused(format_of("gguf"), path, words);
        builder_free(&b);
    }
}

static void factor_alone(Builder *b) { llama(b), key_f32(b, "llama.rope.scaling.factor", 4); }
static void factor_one(Builder *b) { llama(b), key_f32(b, "llama.rope.scaling.factor", 1); }
static void name_alone(Builder *b) { llama(b), key_text(b, "llama.rope.scaling.type", "linear"); }
static void old_and_name(Builder *b) { name_alone(b), key_f32(b, "llama.rope.scale_linear", 8); }
static void yarn(Builder *b)
{
    llama(b), key_text(b, "llama.rope.scaling.type", "yarn"), key_f32(b, "llama.rope.scaling.factor", 4);
}
static void yarn_factor(Builder *b) { yarn(b), key_f32(b, "llama.rope.scaling.yarn_attn_factor", 2); }
static void yarn_small(Builder *b)
{
    llama(b), key_text(b, "llama.rope.scaling.type", "yarn"), key_f32(b, "llama.rope.scaling.factor", 0.5f);
    key_f32(b, "llama.rope.scaling.attn_factor", 2);
}
static void rounded(Builder *b) { llama(b), key_u32(b, "llama.rope.dimension_count", 55); }
static void whole_head(Builder *b) { llama(b), key_u32(b, "llama.rope.dimension_count", 98); }
static void values_alone(Builder *b) { llama(b), key_u32(b, "llama.attention.value_length", 98); }
static void uneven(Builder *b)
{
    key_text(b, "general.architecture", "llama");
    key_u32(b, "llama.embedding_length", 98), key_u32(b, "llama.attention.head_count", 4);
    key_u32(b, "llama.rope.dimension_count", 10), key_u32(b, "llama.attention.value_length", 98);
}
static void huge(Builder *b) { llama(b), key(b, "llama.block_count", 10), put_u64(b->bytes, b->marks, UINT64_MAX, MARK_VALUE); }
static void too_many_heads(Builder *b)
{
    key_text(b, "general.architecture", "llama"), key_u32(b, "llama.attention.head_count", (1 << 24) + 1);
}
static void stranger(Builder *b)
{
    key_text(b, "general.architecture", "mamba"), tensor(b, "rope_freqs.weight", 0, 4, 0, 16);
}
static void second_version(Builder *b) { llama(b), b->bytes->data[4] = 2; }
static void sequential(Builder *b)
{
    key_text(b, "general.architecture", "gptneox"), key_bool(b, "gptneox.use_parallel_residual", 0);
}

static void keys_become_metadata(void **state)
{
    static const struct { Change *change; const char *key, *value; } cases[] = {
        { factor_alone, "rope_scaling.rope_type", "linear" },
        { factor_alone, "rope_scaling.factor", "4" },
        { factor_one, "rope_scaling.rope_type", NULL },
        { name_alone, "rope_scaling.factor", "1" },
        { old_and_name, "rope_scaling.factor", "8" },
        { yarn, "rope_scaling.attention_factor", NULL },
        { yarn, "rope_scaling.beta_slow", "1" },
        { yarn, "rope_scaling.original_max_position_embeddings", NULL },
        { yarn_factor, "rope_scaling.attention_factor", "2.2772589" }, /* 2 (0.1 ln 4 + 1) */
        { yarn_small, "rope_scaling.attention_factor", "2" },
        { whole_head, "partial_rotary_factor", NULL },
        { values_alone, "head_dim", "98" },
        { uneven, "head_dim", NULL },
        { uneven, "partial_rotary_factor", NULL },
        { huge, "num_hidden_layers", "9223372036854775807" },
        { too_many_heads, "num_attention_heads", "16777217" },
        { too_many_heads, "head_dim", NULL },
        { stranger, "architectures.0", "mamba" },
        { second_version, "architectures.0", "LlamaForCausalLM" },
        { sequential, "use_parallel_residual", "false" },
    };
    const MiFormat *f = format_of("gguf");

    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        put_keys(cases[i].change);
        void *self = opened();
        if (g_strcmp0(f->meta(self, cases[i].key), cases[i].value) != 0)
            fail_msg("case %zu: %s is %s", i, cases[i].key, f->meta(self, cases[i].key));
        f->close(self);
    }
    put_keys(rounded); /* 55 / 98 * 98 is below 55: who takes the part of the head finds 55 all the same */
    void *self = opened();
    assert_int_equal((int)(g_ascii_strtod(f->meta(self, "partial_rotary_factor"), NULL) * 98), 55);
    f->close(self);
}

static void texts_as_name(Builder *b) { llama(b), key_texts(b, "general.name", (const char *const[]){ "a" }, 1); }
static void values_differ(Builder *b) { llama(b), key_u32(b, "llama.attention.value_length", 64); }
static void no_keys(Builder *b) { tensor(b, "x", 0, 4, 0, 16); }
static void alignment_array(Builder *b) { llama(b), key_numbers(b, "general.alignment", 4, "\40\0\0\0", 1); }
static void no_alignments(Builder *b) { llama(b), key_array(b, "general.alignment", 4, 0); }
static void alignment_text(Builder *b) { llama(b), key_text(b, "general.alignment", "32"); }
static void freqs(Builder *b, uint64_t d1) { llama(b), tensor(b, "rope_freqs.weight", 0, 8, d1, 32 * (d1 ? d1 : 1)); }
static void flat_freqs(Builder *b) { freqs(b, 2); }
static void no_low(Builder *b) { freqs(b, 0), key_f32(b, "llama.rope.scaling.low_freq_factor", 0); }
static void no_length(Builder *b) { freqs(b, 0), key_u32(b, "llama.rope.scaling.original_context_length", 0); }
static void half_the_numbers(Builder *b) { llama(b), tensor(b, "x", 24, 1ull << 32, 1ull << 31, 0); }
static void wider_numbers(Builder *b) { llama(b), tensor(b, "x", 0, 1ull << 32, 1ull << 31, 0); }

static void keys_are_refused(void **state)
{
    static const struct { Change *change; const char *words; } bad[] = {
        { texts_as_name, "'general.name' is an array" },
        { values_differ, "heads of 98 for keys and 64 for values" },
        { no_keys, "does not say its 'general.architecture'" },
        { alignment_array, "general.alignment is no power of two" },
        { no_alignments, "general.alignment is no power of two" },
        { alignment_text, "general.alignment is no power of two" },
        { flat_freqs, "no row of at most 1024 f32" },
        { no_low, "with factors from 0 to 4" },
        { no_length, "over 0" },
        { half_the_numbers, "is stored as ggml type 24" },
        { wider_numbers, "has more than 2^63 values" },
    };

    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        put_keys(bad[i].change);
        refused(format_of("gguf"), path, bad[i].words);
    }
}

/* ---- sizes ----------------------------------------------------------------------------------------- */

/* The header alone in a file so large that it has room for what it promises. */
static void counts_have_a_limit(void **state)
{
    static const struct { uint64_t tensors, keys; const char *words; } bad[] = {
        { 65537, 0, "byte 8: 65537 tensors; the file has room for 65536" },
        { 0, 65537, "byte 16: 65537 keys; the file has room for 65536" },
    };

    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        char header[24] = "GGUF\3";
        memcpy(header + 8, &bad[i].tensors, 8);
        memcpy(header + 16, &bad[i].keys, 8);
        put(folder, "x.gguf", header, sizeof header);
        assert_int_equal(truncate(path, 2 << 20), 0);
        refused(format_of("gguf"), path, bad[i].words);
    }
}

/* Cut within the padding that stands before the data, however long it is. */
static void padding_may_not_be_missing(void **state)
{
    (void)state;
    for (int n = 1; n <= 32; n++) {
        g_autofree char *name = g_strnfill((gsize)n, 'x');
        Builder          b = builder_new();
        llama(&b);
        tensor(&b, name, 0, 4, 0, 16);
        const guint tables = b.bytes->len + b.infos->len;
        builder_end(&b);
        put(folder, "x.gguf", b.bytes->data, tables);
        refused(format_of("gguf"), path, "ends past the file's");
        builder_free(&b);
    }
}

static void blocks_are_decoded_whole(void **state)
{
    static const int64_t parts[][2] = { { 1, 32 }, { 0, 5 }, { 32, 33 } };
    const MiFormat      *f = format_of("gguf");
    Builder              b = small_gguf(SMALL_LLAMA_BPE);
    MiWeight             w;
    float                x[64];

    (void)state;
    put(folder, "x.gguf", b.bytes->data, b.bytes->len);
    builder_free(&b);
    void *self = opened();
    assert_true(f->find(self, "model.embed_tokens.weight", &w));
    assert_true(f->decode(self, &w, 32, 64, x, NULL));
    for (size_t i = 0; i < G_N_ELEMENTS(parts); i++) {
        g_autoptr(GError) error = NULL;
        assert_false(f->decode(self, &w, parts[i][0], parts[i][1], x, &error));
        assert_non_null(strstr(error->message, "are no whole blocks of 32 of its 320"));
    }
    f->close(self);
}

/* ---- vocabularies ---------------------------------------------------------------------------------------- */

static bool tokens(Change *change, MiTokenizerData *t, void **self, GError **error)
{
    put_keys(change);
    *self = opened();
    return format_of("gguf")->tokenizer(*self, t, error);
}

static void model(Builder *b, const char *kind) { llama(b), key_text(b, "tokenizer.ggml.model", kind); }

static const char *const abc[] = { "a", "b", "c", "<|im_end|>" };
static const char *const letters[] = {
    "\xc4\xa0" "a", "\xe6\xbc\xa2", "\xc1", "\xc6\x80", "\xc4", "\xc4" "a", "\xc5\x84", "\xc2\x80", " ", "\xc3\xbf", "\xc5\x83",
    "\xc4\xa1", "\xc2\xa1",
};
static void spm(Builder *b) { model(b, "llama"), key_texts(b, "tokenizer.ggml.tokens", abc, 4); }
static void spm_of_one(Builder *b) { model(b, "llama"), key_texts(b, "tokenizer.ggml.tokens", abc, 1); }
static void bpe(Builder *b)
{
    model(b, "gpt2"), key_texts(b, "tokenizer.ggml.tokens", abc, 4), key_texts(b, "tokenizer.ggml.merges", abc, 0);
}
static void llama3(Builder *b) { bpe(b), key_text(b, "tokenizer.ggml.pre", "llama-bpe"); }
static void qwen(Builder *b) { bpe(b), key_text(b, "tokenizer.ggml.pre", "qwen2"); }
static void spelled(Builder *b)
{
    model(b, "gpt2");
    key_texts(b, "tokenizer.ggml.tokens", letters, G_N_ELEMENTS(letters)), key_texts(b, "tokenizer.ggml.merges", abc, 0);
}
static void twins(Builder *b)
{
    model(b, "gpt2"), key_texts(b, "tokenizer.ggml.tokens", (const char *const[]){ "a", "b", "a" }, 3);
    key_texts(b, "tokenizer.ggml.merges", (const char *const[]){ "a b" , "b a" }, 2);
}
static void t5(Builder *b) { model(b, "t5"), key_texts(b, "tokenizer.ggml.tokens", abc, 4); }
static void t5_blanks(Builder *b) { t5(b), key_bool(b, "tokenizer.ggml.remove_extra_whitespaces", 0); }

static bool none_beyond(const MiTokenizerData *t) { return t->bos == -1 && t->eos == -1 && t->unk == 0 && t->n_stop == 0; }
static bool begins(const MiTokenizerData *t) { return t->add_bos && t->ignore_merges && !strcmp(t->pre, "llama-bpe"); }
static bool normal(const MiTokenizerData *t) { return t->nfc && !t->add_bos && !strcmp(t->pre, "qwen2"); }
static bool of_gpt2(const MiTokenizerData *t) { return !t->nfc && !t->add_bos && !strcmp(t->pre, "gpt-2"); }
static bool collapses(const MiTokenizerData *t) { return t->collapse_spaces && !t->pre && t->add_eos; }
static bool keeps_blanks(const MiTokenizerData *t) { return !t->collapse_spaces; }
static bool first_counts(const MiTokenizerData *t) { return t->merges[0][0] == 0 && t->merges[1][1] == 0; }
static bool is_llama(const MiTokenizerData *t) { return t->add_bos && t->add_prefix_space && !t->collapse_spaces && t->eos == 2; }

/* Letters are bytes; a piece that has another is left as the file has it. */
static bool spells(const MiTokenizerData *t)
{
    static const struct { const char *text; uint32_t len; } bytes[] = {
        { " a", 2 }, { "\xe6\xbc\xa2", 3 }, { "\xc1", 1 }, { "\xc6\x80", 2 }, { "\xc4", 1 }, { "\xc4" "a", 2 }, { "\xc5\x84", 2 },
        { "\xc2\x80", 2 }, { " ", 1 }, { "\xff", 1 }, { "\xad", 1 }, { "\x7f", 1 }, { "\xa1", 1 },
    };
    for (size_t i = 0; i < G_N_ELEMENTS(bytes); i++)
        if (t->pieces[i].len != bytes[i].len || memcmp(t->pieces[i].text, bytes[i].text, bytes[i].len) != 0)
            return false;
    return true;
}

static void vocabularies_have_defaults(void **state)
{
    static const struct { Change *change; bool (*holds)(const MiTokenizerData *); } cases[] = {
        { spm, is_llama }, { spm_of_one, none_beyond }, { bpe, of_gpt2 }, { llama3, begins }, { qwen, normal },
        { t5, collapses }, { t5_blanks, keeps_blanks }, { spelled, spells }, { twins, first_counts },
    };

    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GError) error = NULL;
        MiTokenizerData   t;
        void             *self;
        if (!tokens(cases[i].change, &t, &self, &error))
            fail_msg("%s", error->message);
        if (!cases[i].holds(&t))
            fail_msg("case %zu", i);
        format_of("gguf")->close(self);
    }
}

static const int32_t ones[] = { 1, 1, 1, 1 }, minus = -2;
static void one_token(Builder *b) { model(b, "llama"), key_text(b, "tokenizer.ggml.tokens", "a"); }
static void number_tokens(Builder *b) { model(b, "llama"), key_numbers(b, "tokenizer.ggml.tokens", 4, ones, 4); }
static void no_tokens(Builder *b) { model(b, "llama"), key_texts(b, "tokenizer.ggml.tokens", abc, 0); }
static void one_type(Builder *b) { spm(b), key_u32(b, "tokenizer.ggml.token_type", 1); }
static void real_types(Builder *b) { spm(b), key_numbers(b, "tokenizer.ggml.token_type", 6, ones, 4); }
static void text_scores(Builder *b) { spm(b), key_texts(b, "tokenizer.ggml.scores", abc, 4); }
static void without_merges(Builder *b) { model(b, "gpt2"), key_texts(b, "tokenizer.ggml.tokens", abc, 4); }
static void one_merge(Builder *b) { without_merges(b), key_text(b, "tokenizer.ggml.merges", "a b"); }
static void number_merges(Builder *b) { without_merges(b), key_numbers(b, "tokenizer.ggml.merges", 4, ones, 4); }
static void short_merge(Builder *b) { without_merges(b), key_texts(b, "tokenizer.ggml.merges", abc, 1); }
static void empty_merge(Builder *b) { without_merges(b), key_texts(b, "tokenizer.ggml.merges", (const char *const[]){ "" }, 1); }
static void array_id(Builder *b) { spm(b), key_numbers(b, "tokenizer.ggml.bos_token_id", 4, ones, 1); }
static void negative_id(Builder *b)
{
    spm(b), key(b, "tokenizer.ggml.bos_token_id", 5), put_u32(b->bytes, b->marks, (uint32_t)minus, MARK_VALUE);
}
static void bad_unknown(Builder *b) { spm(b), key_u32(b, "tokenizer.ggml.unknown_token_id", 4); }
static void bad_padding(Builder *b) { spm(b), key_u32(b, "tokenizer.ggml.padding_token_id", 4); }
static void bad_eom(Builder *b) { spm(b), key_u32(b, "tokenizer.ggml.eom_token_id", 4); }
static void text_flag(Builder *b) { spm(b), key_text(b, "tokenizer.ggml.add_bos_token", "true"); }
static void array_flag(Builder *b) { spm(b), key_numbers(b, "tokenizer.ggml.add_eos_token", 4, ones, 1); }
static void text_prefix(Builder *b) { spm(b), key_text(b, "tokenizer.ggml.add_space_prefix", "yes"); }
static void text_blanks(Builder *b) { t5(b), key_text(b, "tokenizer.ggml.remove_extra_whitespaces", "yes"); }
static void texts_as_model(Builder *b) { llama(b), key_texts(b, "tokenizer.ggml.model", abc, 1); }
static void number_as_template(Builder *b) { spm(b), key_u32(b, "tokenizer.chat_template", 1); }

static void vocabularies_are_refused(void **state)
{
    static const struct { Change *change; const char *words; } bad[] = {
        { one_token, "'tokenizer.ggml.tokens' is no array" }, { number_tokens, "'tokenizer.ggml.tokens' is no array" },
        { no_tokens, "'tokenizer.ggml.tokens' is no array" },
        { one_type, "'tokenizer.ggml.token_type' is no array of 4 whole numbers" },
        { real_types, "'tokenizer.ggml.token_type' is no array of 4 whole numbers" },
        { text_scores, "'tokenizer.ggml.scores' is no array of 4 numbers" },
        { without_merges, "'tokenizer.ggml.merges' is no array" }, { one_merge, "'tokenizer.ggml.merges' is no array" },
        { number_merges, "'tokenizer.ggml.merges' is no array" }, { short_merge, "merge 0, 'a', is no two tokens" },
        { empty_merge, "merge 0, '', is no two tokens" }, { array_id, "'tokenizer.ggml.bos_token_id' is no number" },
        { negative_id, "'tokenizer.ggml.bos_token_id' is -2; there are 4 tokens" },
        { bad_unknown, "'tokenizer.ggml.unknown_token_id' is 4" }, { bad_padding, "'tokenizer.ggml.padding_token_id' is 4" },
        { bad_eom, "'tokenizer.ggml.eom_token_id' is 4" },
        { text_flag, "'tokenizer.ggml.add_bos_token' is neither true nor false" },
        { array_flag, "'tokenizer.ggml.add_eos_token' is neither true nor false" },
        { text_prefix, "'tokenizer.ggml.add_space_prefix' is neither" },
        { text_blanks, "'tokenizer.ggml.remove_extra_whitespaces' is neither" },
        { texts_as_model, "'tokenizer.ggml.model' is no string" }, { number_as_template, "'tokenizer.chat_template' is no string" },
    };

    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(GError) error = NULL;
        MiTokenizerData   t;
        void             *self;
        assert_false(tokens(bad[i].change, &t, &self, &error));
        if (!strstr(error->message, bad[i].words))
            fail_msg("'%s' lacks '%s'", error->message, bad[i].words);
        format_of("gguf")->close(self);
    }
}

/* An array of empty strings at the file's end: zeros, which take no room on the disk. */
static void vocabularies_have_a_limit(void **state)
{
    static const struct { const char *key; uint64_t n; const char *words; } bad[] = {
        { "tokenizer.ggml.tokens", (1 << 20) + 1, "no array of 1 to 1048576 strings" },
        { "tokenizer.ggml.merges", (1 << 22) + 1, "no array of at most 4194304 strings" },
    };

    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(GError) error = NULL;
        MiTokenizerData   t;
        Builder           b = builder_new();
        model(&b, "gpt2");
        if (i)
            key_texts(&b, "tokenizer.ggml.tokens", abc, 4);
        key_array(&b, bad[i].key, 8, bad[i].n);
        memcpy(b.bytes->data + 16, &b.n_keys, 8);
        put(folder, "x.gguf", b.bytes->data, b.bytes->len);
        assert_int_equal(truncate(path, (off_t)(b.bytes->len + 8 * bad[i].n)), 0);
        builder_free(&b);
        void *self = opened();
        assert_false(format_of("gguf")->tokenizer(self, &t, &error));
        if (!strstr(error->message, bad[i].words))
            fail_msg("'%s' lacks '%s'", error->message, bad[i].words);
        format_of("gguf")->close(self);
    }
}

/* A file that is written to after it was opened: lengths of strings are looked at again. */
static void a_changed_file_is_noticed(void **state)
{
    static const struct { const char *text; uint64_t behind; const char *words; } changes[] = {
        { "smollm", 0, "'tokenizer.ggml.pre' is no string" },
        { "<|endoftext|>", 0, "token 0 leaves the file" },
        { "<|endoftext|>", 4, "token 1 leaves the file" }, /* 4 bytes are left, a length has 8 */
        { "a b", 0, "merge 0 leaves the file" },
    };

    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(changes); i++) {
        g_autoptr(GError) error = NULL;
        MiTokenizerData   t;
        Builder           b = small_gguf(SMALL_LLAMA_BPE);
        const char       *at = memmem(b.bytes->data, b.bytes->len, changes[i].text, strlen(changes[i].text));
        const long        place = at - (const char *)b.bytes->data;
        const uint64_t    len = changes[i].behind ? b.bytes->len - (uint64_t)place - changes[i].behind : UINT64_MAX;
        put(folder, "x.gguf", b.bytes->data, b.bytes->len);
        void *self = opened();
        FILE *file = fopen(path, "r+b");
        assert_int_equal(fseek(file, place - 8, SEEK_SET), 0);
        assert_int_equal(fwrite(&len, 1, 8, file), 8);
        fclose(file);
        assert_false(format_of("gguf")->tokenizer(self, &t, &error));
        if (!strstr(error->message, changes[i].words))
            fail_msg("'%s' lacks '%s'", error->message, changes[i].words);
        format_of("gguf")->close(self);
        builder_free(&b);
    }
}

#define ALONE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
TEST_MAIN(ALONE(numbers_are_numbers), ALONE(keys_become_metadata), ALONE(keys_are_refused), ALONE(counts_have_a_limit),
          ALONE(padding_may_not_be_missing),
          ALONE(blocks_are_decoded_whole), ALONE(vocabularies_have_defaults), ALONE(vocabularies_are_refused),
          ALONE(vocabularies_have_a_limit), ALONE(a_changed_file_is_noticed));
