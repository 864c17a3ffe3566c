/* model.h - an architecture: reads its shape, records its program. */
#ifndef MINIINFER_MODEL_H
#define MINIINFER_MODEL_H

#include <math.h>
#include <miniinfer/builders.h>

typedef struct {
    size_t             struct_size;
    const char *const *architectures; /* "Qwen2ForCausalLM", ...; NULL-terminated */
    /* LOAD, once.  source: the open weights file.  Ends with mi_logits(). */
    void (*record)(MiProgram *, const MiSource *source);
} MiModel;

/* Metadata with sticky errors.  `def` NULL: the file must say. */
static inline const char *mi_meta(MiProgram *p, const MiSource *s, const char *key, const char *def)
{
    const char *text = mi_source_meta(s, key);
    if (!text && !def)
        mi_fail(p, "the model's configuration lacks '%s'", key);
    return text ? text : def ? def : "0";
}

static inline double mi_meta_float(MiProgram *p, const MiSource *s, const char *key, const char *def)
{
    const char *text = mi_meta(p, s, key, def);
    char       *end;
    double      x = g_ascii_strtod(text, &end);
    if (end == text || *end)
        mi_fail(p, "'%s' is '%s', which is no number", key, text);
    return x;
}

/* A count: 0 .. max, so that no product of two overflows. */
static inline int mi_meta_int(MiProgram *p, const MiSource *s, const char *key, const char *def, int max)
{
    double x = mi_meta_float(p, s, key, def);
    if (!(x >= 0 && x <= max))
        mi_fail(p, "'%s' is %g; 0 to %d are possible", key, x, max);
    return x >= 0 && x <= max ? (int)x : 0;
}

static inline bool mi_meta_bool(MiProgram *p, const MiSource *s, const char *key, bool def)
{
    return strcmp(mi_meta(p, s, key, def ? "true" : "false"), "true") == 0;
}

/* YaRN's factor of attention as Hugging Face derives it where the file does not say. */
static inline double mi_meta_mscale(MiProgram *p, const MiSource *s, double factor)
{
    double part = mi_meta_float(p, s, "rope_scaling.mscale", "0");
    double all = mi_meta_float(p, s, "rope_scaling.mscale_all_dim", "0");
    double grown = 0.1 * log(MAX(factor, 1));
    return part != 0 && all != 0 ? (part * grown + 1) / (all * grown + 1) : grown + 1;
}

/* Rotary embedding as configurations describe it; head_dim: all of a head turns
 * unless partial_rotary_factor says less. */
static inline MiRope mi_meta_rope(MiProgram *p, const MiSource *s, int head_dim)
{
    double      part = mi_meta_float(p, s, "partial_rotary_factor", "1");
    double      max_len = mi_meta_float(p, s, "max_position_embeddings", "8192");
    const char *key = "rope_scaling.original_max_position_embeddings";
    bool        original = mi_source_meta(s, key) != NULL;
    MiRope      r = {
        .rotate = { (int32_t)(head_dim * CLAMP(part, 0, 1)), s->vt->rope_style(s->self), 1 },
        .scaling = mi_meta(p, s, "rope_scaling.rope_type", mi_meta(p, s, "rope_scaling.type", "default")),
        .theta = (float)mi_meta_float(p, s, "rope_theta", "10000"),
        .factor = (float)mi_meta_float(p, s, "rope_scaling.factor", "1"),
        .low_freq = (float)mi_meta_float(p, s, "rope_scaling.low_freq_factor", "1"),
        .high_freq = (float)mi_meta_float(p, s, "rope_scaling.high_freq_factor", "4"),
        .original_len = (float)(original ? mi_meta_float(p, s, key, NULL) : max_len),
        .beta_fast = (float)mi_meta_float(p, s, "rope_scaling.beta_fast", "32"),
        .beta_slow = (float)mi_meta_float(p, s, "rope_scaling.beta_slow", "1"),
        .attention_factor = (float)mi_meta_float(p, s, "rope_scaling.attention_factor", "0"),
        .max_len = (float)max_len,
    };
    if (strcmp(r.scaling, "yarn") != 0)
        return r;
    if (!mi_source_meta(s, "rope_scaling.factor") && original)
        r.factor = (float)(max_len / r.original_len);
    if (!mi_meta_bool(p, s, "rope_scaling.truncate", true))
        mi_fail(p, "rope_scaling.truncate = false is not supported");
    r.rotate.magnitude = r.attention_factor > 0 ? r.attention_factor : (float)mi_meta_mscale(p, s, r.factor);
    return r;
}

#endif
