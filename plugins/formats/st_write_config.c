/* st_write_config.c - config.json and generation_config.json, in the spelling that
 * transformers 4 and 5 both read. */
#include "st_write.h"
#include <string.h>

typedef enum { INTEGER, REAL, BOOLEAN, TEXT } Kind;

/* What is taken over, if the source says it; the rest of a foreign configuration is not. */
static const struct { const char *key; Kind kind; } keys[] = {
    { "hidden_size", INTEGER },
    { "intermediate_size", INTEGER },
    { "num_hidden_layers", INTEGER },
    { "num_attention_heads", INTEGER },
    { "num_key_value_heads", INTEGER },
    { "head_dim", INTEGER },
    { "vocab_size", INTEGER },
    { "max_position_embeddings", INTEGER },
    { "hidden_act", TEXT },
    { "rms_norm_eps", REAL },
    { "layer_norm_eps", REAL },
    { "rope_theta", REAL },
    { "tie_word_embeddings", BOOLEAN },
    { "sliding_window", INTEGER },
    { "use_sliding_window", BOOLEAN },
    { "max_window_layers", INTEGER },
    { "use_parallel_residual", BOOLEAN },
};
static const struct { const char *key; Kind kind; } scaling[] = {
    { "rope_type", TEXT },        { "factor", REAL },    { "low_freq_factor", REAL },  { "high_freq_factor", REAL },
    { "original_max_position_embeddings", INTEGER },     { "beta_fast", REAL },        { "beta_slow", REAL },
    { "attention_factor", REAL },
};

/* `,\n<indent>"key": value`; a value that is not what it has to be is left out by nobody: it is an error. */
static void pair(MiOut *o, const char *key, Kind kind, const char *value)
{
    char *end = NULL;

    mi_out_print(o, ",\n  \"%s\": ", key);
    if (kind == TEXT) {
        if (g_utf8_validate(value, -1, NULL))
            mi_out_json(o, value, strlen(value));
        else
            mi_out_fail(o, MI_ERROR_MODEL, "'%s' is not UTF-8", key);
        return;
    }
    const double x = g_ascii_strtod(value, &end);
    const bool   truth = strcmp(value, "true") == 0 || strcmp(value, "false") == 0;
    if (kind == BOOLEAN ? !truth : end == value || *end || (kind == INTEGER && x != (double)(int64_t)x)) {
        mi_out_fail(o, MI_ERROR_MODEL, "'%s' is '%s', which cannot be written", key, value);
        return;
    }
    if (kind == INTEGER)
        mi_out_print(o, "%" G_GINT64_FORMAT, (int64_t)x);
    else if (kind == REAL && !strpbrk(value, ".eE"))
        mi_out_print(o, "%s.0", value);
    else
        mi_out_text(o, value);
}

static const char *meta(const MiConversion *c, const char *key) { return c->from->vt->meta(c->from->self, key); }

static void write_scaling(MiOut *o, const MiConversion *c)
{
    const char *type = meta(c, "rope_scaling.rope_type");

    if (!type)
        type = meta(c, "rope_scaling.type");
    if (!type || strcmp(type, "default") == 0)
        return;
    mi_out_text(o, ",\n  \"rope_scaling\": {\"type\": ");
    mi_out_json(o, type, strlen(type));
    for (size_t i = 0; i < G_N_ELEMENTS(scaling); i++) {
        g_autofree char *key = g_strconcat("rope_scaling.", scaling[i].key, NULL);
        const char      *value = i ? meta(c, key) : type;
        if (value)
            pair(o, scaling[i].key, scaling[i].kind, value);
    }
    mi_out_text(o, "}");
}

static void write_ids(MiOut *o, const MiTokenizerData *t)
{
    if (t->bos >= 0)
        mi_out_print(o, ",\n  \"bos_token_id\": %d", t->bos);
    if (t->pad >= 0)
        mi_out_print(o, ",\n  \"pad_token_id\": %d", t->pad);
    if (t->n_stop == 0)
        return;
    mi_out_print(o, ",\n  \"eos_token_id\": %s", t->n_stop > 1 ? "[" : "");
    for (uint32_t i = 0; i < t->n_stop; i++)
        mi_out_print(o, "%s%d", i ? ", " : "", t->stop[i]);
    mi_out_text(o, t->n_stop > 1 ? "]" : "");
}

static bool has(const MiConversion *c, const char *layer0)
{
    g_autofree char *name = g_strconcat(c->arch->layers, "0.", layer0, NULL);
    return mi_source_has(c->from, name);
}

void mi_st_write_config(MiOut *o, const MiConversion *c, const char *dtype, const char *quant, const MiTokenizerData *t)
{
    const bool neox = c->arch->layernorm;

    mi_out_file(o, "config.json");
    mi_out_print(o, "{\n  \"architectures\": [\"%s\"],\n  \"model_type\": \"%s\",\n  \"torch_dtype\": \"%s\"",
                 c->arch->architecture, c->arch->model_type, dtype);
    for (size_t i = 0; i < G_N_ELEMENTS(keys); i++) {
        const char *value = meta(c, keys[i].key);
        if (value)
            pair(o, keys[i].key, keys[i].kind, value);
    }
    mi_out_print(o, ",\n  \"attention_bias\": %s",
                 has(c, neox ? "attention.dense.bias" : "self_attn.q_proj.bias") ? "true" : "false");
    if (!neox)
        mi_out_print(o, ",\n  \"mlp_bias\": %s", has(c, "mlp.down_proj.bias") ? "true" : "false");
    const char *part = meta(c, "partial_rotary_factor"), *theta = meta(c, "rope_theta");
    if (part)
        pair(o, "partial_rotary_factor", REAL, part);
    if (neox) { /* its older names */
        pair(o, "rotary_pct", REAL, part ? part : "1");
        pair(o, "rotary_emb_base", REAL, theta ? theta : "10000");
    }
    write_scaling(o, c);
    if (quant)
        mi_out_print(o, ",\n  \"quantization_config\": %s", quant);
    if (t)
        write_ids(o, t);
    mi_out_text(o, "\n}\n");
    mi_out_close(o);

    mi_out_file(o, "generation_config.json");
    mi_out_text(o, "{\n  \"_from_model_config\": true");
    if (t)
        write_ids(o, t);
    mi_out_text(o, "\n}\n");
    mi_out_close(o);
}
