/* model.c - an architecture of one's own: AcmeForCausalLM is Llama, but that it adds the
 * residual with an operation that this folder brings, acme.vector_add.
 *
 * Any device: what is recorded are names, and the plugins of the device at hand run them.
 * Weights and configuration are called as in Llama: a config.json whose
 * "architectures" says AcmeForCausalLM is all it takes. */
#define MI_LICENCE "MIT"
#include <miniinfer/plugin.h>

/* A word of the model's language: one node, two values of one type, their sum. */
static MiVal vector_add(MiProgram *p, MiVal a, MiVal b) { return mi_binary(p, "acme.vector_add", a, b); }

typedef struct {
    int         n_heads, n_kv_heads;
    const char *activation;
    float       eps;
    MiRope      rope;
    MiAttend    attend;
} Spec;

static MiVal attention(MiProgram *p, const Spec *s, MiVal x, int layer)
{
    MiVal h = mi_rmsnorm(p, x, "input_layernorm", s->eps);
    MiVal q = mi_rope(p, mi_heads(p, mi_linear(p, h, "self_attn.q_proj", MI_SPLIT_OUT), s->n_heads), &s->rope);
    MiVal k = mi_rope(p, mi_heads(p, mi_linear(p, h, "self_attn.k_proj", MI_SPLIT_OUT), s->n_kv_heads), &s->rope);
    MiVal v = mi_heads(p, mi_linear(p, h, "self_attn.v_proj", MI_SPLIT_OUT), s->n_kv_heads);

    return mi_linear(p, mi_attention(p, q, k, v, layer, &s->attend), "self_attn.o_proj", MI_SPLIT_IN);
}

static MiVal mlp(MiProgram *p, const Spec *s, MiVal x)
{
    MiVal h = mi_rmsnorm(p, x, "post_attention_layernorm", s->eps);
    MiVal gate = mi_activation(p, s->activation, mi_linear(p, h, "mlp.gate_proj", MI_SPLIT_OUT));

    return mi_linear(p, mi_mul(p, gate, mi_linear(p, h, "mlp.up_proj", MI_SPLIT_OUT)), "mlp.down_proj", MI_SPLIT_IN);
}

static void record(MiProgram *p, const MiSource *src)
{
    const int  n_layers = mi_meta_int(p, src, "num_hidden_layers", NULL, 1024);
    const int  n_heads = mi_meta_int(p, src, "num_attention_heads", NULL, 1024);
    const int  hidden = mi_meta_int(p, src, "hidden_size", NULL, 1 << 20);
    const int  stated = mi_meta_int(p, src, "head_dim", "0", 1024), head_dim = stated ? stated : hidden / MAX(n_heads, 1);
    const Spec s = {
        .n_heads = n_heads,
        .n_kv_heads = mi_meta_int(p, src, "num_key_value_heads", NULL, 1024),
        .activation = mi_meta(p, src, "hidden_act", "silu"),
        .eps = (float)mi_meta_float(p, src, "rms_norm_eps", "1e-6"),
        .rope = mi_meta_rope(p, src, head_dim),
        .attend.scale = 1 / sqrtf((float)MAX(head_dim, 1)),
    };
    MiVal x = mi_embed(p, "model.embed_tokens");

    for (int i = 0; i < n_layers; i++) {
        mi_scope(p, "model.layers.%d", i);
        x = vector_add(p, x, attention(p, &s, x, i));
        x = vector_add(p, x, mlp(p, &s, x));
    }
    mi_scope_end(p);
    x = mi_rmsnorm(p, mi_output_rows(p, x), "model.norm", s.eps);
    mi_logits(p, x, mi_source_has(src, "lm_head.weight") ? "lm_head" : "model.embed_tokens");
}

static const char *const architectures[] = { "AcmeForCausalLM", NULL };

static const MiModel acme = { .struct_size = sizeof acme, .architectures = architectures, .record = record };

MI_PLUGIN("acme_model", "1.0", "Llama with a sum of its own", MI_FEATURE_MODEL("acme", "*", &acme, NULL));
