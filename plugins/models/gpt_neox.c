/* gpt_neox.c - GPT-NeoX, Pythia: LayerNorm with biases, q, k and v in one
 * projection, part of each head turned, attention and MLP side by side. */
#include <math.h>
#include <miniinfer/plugin.h>

typedef struct {
    int         n_layers, n_heads, head_dim;
    float       norm_eps;
    bool        parallel, blocked;
    const char *activation;
    MiRope      rope;
    MiAttend    attend;
} Spec;

static Spec read_spec(MiProgram *p, const MiSource *src)
{
    Spec s = { 0 };

    s.n_layers = mi_meta_int(p, src, "num_hidden_layers", NULL, 1024);
    s.n_heads = mi_meta_int(p, src, "num_attention_heads", NULL, 1024);
    const int hidden = mi_meta_int(p, src, "hidden_size", NULL, 1 << 20);
    if (!s.n_heads || hidden % s.n_heads || !(s.head_dim = hidden / s.n_heads))
        mi_fail(p, "%d elements are no %d heads", hidden, s.n_heads);
    s.norm_eps = (float)mi_meta_float(p, src, "layer_norm_eps", "1e-5");
    s.parallel = mi_meta_bool(p, src, "use_parallel_residual", true);
    s.blocked = strcmp(mi_meta(p, src, "qkv_layout", "by_head"), "blocked") == 0;
    s.activation = mi_meta(p, src, "hidden_act", "gelu");
    s.rope = mi_meta_rope(p, src, s.head_dim);
    if (!mi_source_meta(src, "partial_rotary_factor"))
        s.rope.rotate.dim = s.head_dim / 4;
    s.attend.scale = 1 / sqrtf((float)MAX(s.head_dim, 1));
    return s;
}

/* Rows of the projection are q, k and v of the first head, of the second, and so on;
 * files of other programs have all of q, then of k, then of v: `blocked`. */
static MiVal part(MiProgram *p, const Spec *s, MiVal qkv, int which)
{
    const int64_t hidden = (int64_t)s->n_heads * s->head_dim;
    if (s->blocked)
        return mi_heads(p, mi_slice(p, qkv, which * hidden, hidden), s->n_heads);
    return mi_slice(p, mi_heads(p, qkv, s->n_heads), (int64_t)which * s->head_dim, s->head_dim);
}

static MiVal attention(MiProgram *p, const Spec *s, MiVal h, int layer)
{
    MiVal qkv = mi_linear(p, h, "attention.query_key_value", MI_SPLIT_OUT);
    MiVal q = mi_rope(p, part(p, s, qkv, 0), &s->rope);
    MiVal k = mi_rope(p, part(p, s, qkv, 1), &s->rope);
    MiVal v = part(p, s, qkv, 2);
    return mi_linear(p, mi_attention(p, q, k, v, layer, &s->attend), "attention.dense", MI_SPLIT_IN);
}

static MiVal mlp(MiProgram *p, const Spec *s, MiVal h)
{
    MiVal up = mi_linear(p, h, "mlp.dense_h_to_4h", MI_SPLIT_OUT);
    return mi_linear(p, mi_activation(p, s->activation, up), "mlp.dense_4h_to_h", MI_SPLIT_IN);
}

static void record(MiProgram *p, const MiSource *src)
{
    const Spec s = read_spec(p, src);
    MiVal      x = mi_embed(p, "gpt_neox.embed_in");

    for (int i = 0; i < s.n_layers; i++) {
        mi_scope(p, "gpt_neox.layers.%d", i);
        MiVal attended = mi_add(p, x, attention(p, &s, mi_layernorm(p, x, "input_layernorm", s.norm_eps), i));
        MiVal h = mi_layernorm(p, s.parallel ? x : attended, "post_attention_layernorm", s.norm_eps);
        x = mi_add(p, attended, mlp(p, &s, h));
    }
    mi_scope_end(p);
    x = mi_layernorm(p, mi_output_rows(p, x), "gpt_neox.final_layer_norm", s.norm_eps);
    mi_logits(p, x, mi_meta_bool(p, src, "tie_word_embeddings", false) ? "gpt_neox.embed_in" : "embed_out");
}

static const char *const architectures[] = { "GPTNeoXForCausalLM", NULL };

static const MiModel gpt_neox = { .struct_size = sizeof gpt_neox, .architectures = architectures, .record = record };

MI_PLUGIN("gpt_neox", "0.1", "GPT-NeoX, Pythia", MI_FEATURE_MODEL("gpt_neox", "*", &gpt_neox, NULL));
