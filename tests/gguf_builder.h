/* gguf_builder.h - small GGUF files made in memory, with a note of what each byte is,
 * so that a test can break exactly one thing. */
#ifndef TESTS_GGUF_BUILDER_H
#define TESTS_GGUF_BUILDER_H

#include <glib.h>
#include <string.h>

typedef enum { MARK_COUNT, MARK_LENGTH, MARK_TYPE, MARK_DIM, MARK_OFFSET, MARK_VALUE, MARK_TEXT } MarkKind;
typedef struct { size_t at, width; MarkKind kind; } Mark;

typedef struct {
    GByteArray *bytes, *infos;
    GArray     *marks; /* of bytes; those of infos follow when they are joined */
    GArray     *info_marks;
    uint64_t    n_keys, n_tensors, data;
} Builder;

typedef enum { SMALL_LLAMA_BPE, SMALL_NEOX_SPM, SMALL_QWEN2_UNIGRAM, SMALL_N } Small;

static inline void put_mark(GByteArray *b, GArray *marks, const void *p, size_t width, MarkKind kind)
{
    const Mark m = { b->len, width, kind };
    if (width)
        g_array_append_val(marks, m);
    g_byte_array_append(b, p, (guint)width);
}

static inline void put_u32(GByteArray *b, GArray *m, uint32_t x, MarkKind kind) { put_mark(b, m, &x, 4, kind); }
static inline void put_u64(GByteArray *b, GArray *m, uint64_t x, MarkKind kind) { put_mark(b, m, &x, 8, kind); }

static inline void put_text(GByteArray *b, GArray *m, const char *text)
{
    put_u64(b, m, strlen(text), MARK_LENGTH);
    put_mark(b, m, text, strlen(text), MARK_TEXT);
}

static inline Builder builder_new(void)
{
    Builder b = { g_byte_array_new(), g_byte_array_new(), g_array_new(FALSE, FALSE, sizeof(Mark)),
                  g_array_new(FALSE, FALSE, sizeof(Mark)), 0, 0, 0 };
    put_mark(b.bytes, b.marks, "GGUF", 4, MARK_TEXT);
    put_u32(b.bytes, b.marks, 3, MARK_TYPE);
    put_u64(b.bytes, b.marks, 0, MARK_COUNT); /* of tensors, of keys: known at the end */
    put_u64(b.bytes, b.marks, 0, MARK_COUNT);
    return b;
}

static inline void builder_free(Builder *b)
{
    g_byte_array_unref(b->bytes);
    g_byte_array_unref(b->infos);
    g_array_unref(b->marks);
    g_array_unref(b->info_marks);
}

static inline void key(Builder *b, const char *name, uint32_t type)
{
    put_text(b->bytes, b->marks, name);
    put_u32(b->bytes, b->marks, type, MARK_TYPE);
    b->n_keys++;
}

static inline void key_u32(Builder *b, const char *name, uint32_t x)
{
    key(b, name, 4);
    put_u32(b->bytes, b->marks, x, MARK_VALUE);
}

static inline void key_f32(Builder *b, const char *name, float x)
{
    key(b, name, 6);
    put_mark(b->bytes, b->marks, &x, 4, MARK_VALUE);
}

static inline void key_bool(Builder *b, const char *name, uint8_t x)
{
    key(b, name, 7);
    put_mark(b->bytes, b->marks, &x, 1, MARK_VALUE);
}

static inline void key_text(Builder *b, const char *name, const char *text)
{
    key(b, name, 8);
    put_text(b->bytes, b->marks, text);
}

static inline void key_array(Builder *b, const char *name, uint32_t type, uint64_t n)
{
    key(b, name, 9);
    put_u32(b->bytes, b->marks, type, MARK_TYPE);
    put_u64(b->bytes, b->marks, n, MARK_COUNT);
}

static inline void key_texts(Builder *b, const char *name, const char *const *texts, size_t n)
{
    key_array(b, name, 8, n);
    for (size_t i = 0; i < n; i++)
        put_text(b->bytes, b->marks, texts[i]);
}

static inline void key_numbers(Builder *b, const char *name, uint32_t type, const void *x, size_t n)
{
    key_array(b, name, type, n);
    for (size_t i = 0; i < n; i++)
        put_mark(b->bytes, b->marks, (const char *)x + 4 * i, 4, MARK_VALUE);
}

/* dims: the fastest first, 0 ends; bytes of data behind those before it. */
static inline void tensor(Builder *b, const char *name, uint32_t type, uint64_t d0, uint64_t d1, uint64_t bytes)
{
    put_text(b->infos, b->info_marks, name);
    put_u32(b->infos, b->info_marks, d1 ? 2 : 1, MARK_COUNT);
    put_u64(b->infos, b->info_marks, d0, MARK_DIM);
    if (d1)
        put_u64(b->infos, b->info_marks, d1, MARK_DIM);
    put_u32(b->infos, b->info_marks, type, MARK_TYPE);
    put_u64(b->infos, b->info_marks, b->data, MARK_OFFSET);
    b->data += (bytes + 31) / 32 * 32;
    b->n_tensors++;
}

/* Tables and data joined; data byte i is i * 37 % 61, so that no two tensors are alike and
 * no f32, f16 or scale among them is infinite. */
static inline void builder_end(Builder *b)
{
    memcpy(b->bytes->data + 8, &b->n_tensors, 8);
    memcpy(b->bytes->data + 16, &b->n_keys, 8);
    for (guint i = 0; i < b->info_marks->len; i++) {
        Mark m = g_array_index(b->info_marks, Mark, i);
        m.at += b->bytes->len;
        g_array_append_val(b->marks, m);
    }
    g_byte_array_append(b->bytes, b->infos->data, b->infos->len);
    while (b->bytes->len % 32)
        g_byte_array_append(b->bytes, (const guint8 *)"", 1);
    for (uint64_t i = 0; i < b->data; i++) {
        const guint8 x = (guint8)(i * 37 % 61);
        g_byte_array_append(b->bytes, &x, 1);
    }
}

static inline void small_tokens(Builder *b, Small which)
{
    static const char *const bpe[] = {"<|endoftext|>",
                                      "<|im_end|>",
                                      "a",
                                      "b",
                                      "c",
                                      "\xc4\xa0",
                                      "ab",
                                      "\xc4\xa0"
                                      "ab",
                                      "\xc3\xa9",
                                      "[PAD9]"};
    static const char *const spm[] = {"<unk>",
                                      "<s>",
                                      "</s>",
                                      "<0x0A>",
                                      "\xe2\x96\x81",
                                      "a",
                                      "b",
                                      "ab",
                                      "\xe2\x96\x81"
                                      "ab",
                                      "<user>"};
    static const char *const merges[] = { "a b", "\xc4\xa0 ab" };
    static const int32_t     bpe_types[] = {3, 3, 1, 1, 1, 1, 1, 1, 1, 5}, spm_types[] = {2, 3, 3, 6, 1, 1, 1, 1, 1, 4};
    static const float       scores[] = { 0, 0, 0, 0, -1, -2, -3, -0.5f, -0.25f, 0 };
    const bool               is_bpe = which == SMALL_LLAMA_BPE;

    key_text(b, "tokenizer.ggml.model", is_bpe ? "gpt2" : which == SMALL_NEOX_SPM ? "llama" : "t5");
    if (is_bpe)
        key_text(b, "tokenizer.ggml.pre", "smollm");
    key_texts(b, "tokenizer.ggml.tokens", is_bpe ? bpe : spm, 10);
    key_numbers(b, "tokenizer.ggml.token_type", 5, is_bpe ? bpe_types : spm_types, 10);
    if (is_bpe)
        key_texts(b, "tokenizer.ggml.merges", merges, 2);
    else
        key_numbers(b, "tokenizer.ggml.scores", 6, scores, 10);
    key_u32(b, "tokenizer.ggml.bos_token_id", is_bpe ? 0 : 1);
    key_u32(b, "tokenizer.ggml.eos_token_id", is_bpe ? 0 : 2);
    key_u32(b, "tokenizer.ggml.unknown_token_id", is_bpe ? UINT32_MAX : 0);
    key_u32(b, "tokenizer.ggml.padding_token_id", UINT32_MAX);
    key_u32(b, "tokenizer.ggml.eot_token_id", is_bpe ? 1 : 2);
    key_bool(b, "tokenizer.ggml.add_bos_token", 1);
    key_text(b, "tokenizer.chat_template", "{{ messages }}\n\"\\");
}

/* One layer of 2 heads of 16 over 1 of keys (GPT-NeoX: 2), hidden 32. */
static inline Builder small_gguf(Small which)
{
    static const char *const archs[] = { "llama", "gptneox", "qwen2" };
    const char              *arch = archs[which];
    Builder                  b = builder_new();
    char                     name[64];
    const struct { const char *key; uint32_t x; } counts[] = {
        { "block_count", 1 }, { "context_length", 128 }, { "embedding_length", 32 }, { "feed_forward_length", 64 },
        { "attention.head_count", 2 }, { "attention.head_count_kv", which == SMALL_NEOX_SPM ? 2 : 1 },
        { "rope.dimension_count", which == SMALL_NEOX_SPM ? 4 : 16 },
    };

    key_text(&b, "general.architecture", arch);
    key_text(&b, "general.name", "small");
    key_u32(&b, "general.alignment", 32);
    for (size_t i = 0; i < G_N_ELEMENTS(counts); i++) {
        g_snprintf(name, sizeof name, "%s.%s", arch, counts[i].key);
        key_u32(&b, name, counts[i].x);
    }
    g_snprintf(name, sizeof name, "%s.attention.layer_norm_%sepsilon", arch, which == SMALL_NEOX_SPM ? "" : "rms_");
    key_f32(&b, name, 1e-5f);
    g_snprintf(name, sizeof name, "%s.rope.freq_base", arch);
    key_f32(&b, name, 500000);
    if (which == SMALL_NEOX_SPM)
        key_bool(&b, "gptneox.use_parallel_residual", 1);
    if (which == SMALL_QWEN2_UNIGRAM) {
        key_text(&b, "qwen2.rope.scaling.type", "yarn");
        key_f32(&b, "qwen2.rope.scaling.factor", 4);
        key_u32(&b, "qwen2.rope.scaling.original_context_length", 32);
    }
    small_tokens(&b, which);
    tensor(&b, "token_embd.weight", 8, 32, 10, 340);
    tensor(&b, "output_norm.weight", 0, 32, 0, 128);
    tensor(&b, "blk.0.attn_norm.weight", 0, 32, 0, 128);
    tensor(&b, "blk.0.ffn_norm.weight", 0, 32, 0, 128);
    if (which == SMALL_NEOX_SPM) {
        tensor(&b, "output_norm.bias", 0, 32, 0, 128);
        tensor(&b, "output.weight", 1, 32, 10, 640);
        tensor(&b, "blk.0.attn_norm.bias", 0, 32, 0, 128);
        tensor(&b, "blk.0.ffn_norm.bias", 0, 32, 0, 128);
        tensor(&b, "blk.0.attn_qkv.weight", 0, 32, 96, 96 * 128);
        tensor(&b, "blk.0.attn_qkv.bias", 0, 96, 0, 384);
        tensor(&b, "blk.0.attn_output.bias", 0, 32, 0, 128);
        tensor(&b, "blk.0.ffn_up.bias", 0, 64, 0, 256);
        tensor(&b, "blk.0.ffn_down.bias", 0, 32, 0, 128);
    } else {
        tensor(&b, "blk.0.attn_q.weight", 0, 32, 32, 32 * 128);
        tensor(&b, "blk.0.attn_k.weight", 1, 32, 16, 16 * 64);
        tensor(&b, "blk.0.attn_v.weight", 30, 32, 16, 16 * 64);
        tensor(&b, "blk.0.ffn_gate.weight", 3, 32, 64, 64 * 20);
    }
    if (which == SMALL_QWEN2_UNIGRAM)
        tensor(&b, "blk.0.attn_q.bias", 0, 32, 0, 128);
    tensor(&b, "blk.0.attn_output.weight", 2, 32, 32, 32 * 18);
    tensor(&b, "blk.0.ffn_up.weight", 7, 32, 64, 64 * 24);
    tensor(&b, "blk.0.ffn_down.weight", 20, 64, 32, 64 * 18);
    builder_end(&b);
    return b;
}

#endif
