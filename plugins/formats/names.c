#include "names.h"
#include <string.h>

static const MiNamePair llama_top[] = {
    { "token_embd", "model.embed_tokens" }, { "output_norm", "model.norm" }, { "output", "lm_head" }, { NULL, NULL },
};
static const MiNamePair llama_layer[] = {
    { "attn_norm", "input_layernorm" },
    { "attn_q", "self_attn.q_proj" },
    { "attn_k", "self_attn.k_proj" },
    { "attn_v", "self_attn.v_proj" },
    { "attn_q_norm", "self_attn.q_norm" },
    { "attn_k_norm", "self_attn.k_norm" },
    { "attn_output", "self_attn.o_proj" },
    { "ffn_norm", "post_attention_layernorm" },
    { "ffn_gate", "mlp.gate_proj" },
    { "ffn_up", "mlp.up_proj" },
    { "ffn_down", "mlp.down_proj" },
    { NULL, NULL },
};
static const MiNamePair neox_top[] = {
    { "token_embd", "gpt_neox.embed_in" },
    { "output_norm", "gpt_neox.final_layer_norm" },
    { "output", "embed_out" },
    { NULL, NULL },
};
static const MiNamePair neox_layer[] = {
    { "attn_norm", "input_layernorm" },
    { "attn_qkv", "attention.query_key_value" },
    { "attn_output", "attention.dense" },
    { "ffn_norm", "post_attention_layernorm" },
    { "ffn_up", "mlp.dense_h_to_4h" },
    { "ffn_down", "mlp.dense_4h_to_h" },
    { NULL, NULL },
};

/* The first of several rows with one GGUF name is what that name means. */
static const MiArch archs[] = {
    { "llama", "LlamaForCausalLM", "llama", "silu", "model.layers.", llama_top, llama_layer, false,
      MI_ROPE_INTERLEAVED },
    { "llama", "MistralForCausalLM", "mistral", "silu", "model.layers.", llama_top, llama_layer, false,
      MI_ROPE_INTERLEAVED },
    { "qwen2", "Qwen2ForCausalLM", "qwen2", "silu", "model.layers.", llama_top, llama_layer, false, MI_ROPE_HALF },
    { "qwen3", "Qwen3ForCausalLM", "qwen3", "silu", "model.layers.", llama_top, llama_layer, false, MI_ROPE_HALF },
    { "gptneox", "GPTNeoXForCausalLM", "gpt_neox", "gelu", "gpt_neox.layers.", neox_top, neox_layer, true,
      MI_ROPE_HALF },
};

const MiArch *mi_arch_hf(const char *architecture)
{
    for (size_t i = 0; i < G_N_ELEMENTS(archs); i++)
        if (strcmp(archs[i].architecture, architecture) == 0)
            return &archs[i];
    return NULL;
}

const MiArch *mi_arch_gguf(const char *name, size_t len)
{
    for (size_t i = 0; i < G_N_ELEMENTS(archs); i++)
        if (strlen(archs[i].gguf) == len && memcmp(archs[i].gguf, name, len) == 0)
            return &archs[i];
    return NULL;
}

/* Length of a layer's number and the dot behind it at p; 0: there is none.  One
 * number has one spelling, or two weights could get one name. */
static size_t number(const char *p, size_t len)
{
    size_t n = 0;

    while (n < len && n < 5 && g_ascii_isdigit(p[n]))
        n++;
    return n > 0 && n < len && p[n] == '.' && (p[0] != '0' || n == 1) ? n + 1 : 0;
}

/* "<from>.<suffix>" of a table as "<head><to>.<suffix>". */
static bool swap(const MiNamePair *table, bool to_hf, const char *name, size_t len, const char *head, size_t head_len,
                 char *out)
{
    static const char *const suffixes[] = { ".weight", ".bias" };

    for (size_t s = 0; s < G_N_ELEMENTS(suffixes); s++) {
        const size_t n_suffix = strlen(suffixes[s]);
        if (len <= n_suffix || memcmp(name + len - n_suffix, suffixes[s], n_suffix) != 0)
            continue;
        for (; table->gguf; table++) {
            const char *from = to_hf ? table->gguf : table->hf, *to = to_hf ? table->hf : table->gguf;
            if (strlen(from) == len - n_suffix && memcmp(from, name, len - n_suffix) == 0) {
                g_snprintf(out, MI_NAME_MAX, "%.*s%s%s", (int)head_len, head, to, suffixes[s]);
                return true;
            }
        }
        return false;
    }
    return false;
}

static bool translate(const MiArch *arch, bool to_hf, const char *name, size_t len, char *out)
{
    const char  *from = to_hf ? "blk." : arch->layers, *to = to_hf ? arch->layers : "blk.";
    const size_t n = strlen(from);
    char         head[64];

    if (len > n && memcmp(name, from, n) == 0) {
        const size_t digits = number(name + n, len - n);
        if (!digits)
            return false;
        const int n_head = g_snprintf(head, sizeof head, "%s%.*s", to, (int)digits, name + n);
        return swap(arch->layer, to_hf, name + n + digits, len - n - digits, head, (size_t)n_head, out);
    }
    return swap(arch->top, to_hf, name, len, "", 0, out);
}

bool mi_name_from_gguf(const MiArch *arch, const char *name, size_t len, char *out)
{
    return translate(arch, true, name, len, out);
}

bool mi_name_to_gguf(const MiArch *arch, const char *name, char *out)
{
    return translate(arch, false, name, strlen(name), out);
}

void mi_float_text(float x, char out[32])
{
    for (int digits = 6; digits <= 9; digits++) {
        char form[8];
        g_snprintf(form, sizeof form, "%%.%dg", digits);
        g_ascii_formatd(out, 32, form, (double)x);
        if ((float)g_ascii_strtod(out, NULL) == x)
            return;
    }
}

const char *mi_shown(const char *text, size_t len, char out[64])
{
    size_t n = 0;

    for (size_t i = 0; i < len && n < 48; i++)
        out[n++] = text[i] >= ' ' && text[i] <= '~' && text[i] != '\'' ? text[i] : '?';
    out[n] = 0;
    if (len > 48)
        strcpy(out + n, "...");
    return out;
}

bool mi_possible_name(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (g_ascii_iscntrl(text[i]))
            return false;
    return len > 0;
}
