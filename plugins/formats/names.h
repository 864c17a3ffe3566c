/* names.h - what GGUF and Hugging Face call the same thing.
 *
 * One row an architecture; names are patterns over a layer's number.  Used by
 * the reader of GGUF and by both writers, so that they cannot disagree. */
#ifndef MI_FORMATS_NAMES_H
#define MI_FORMATS_NAMES_H

#include <miniinfer/format.h>

typedef struct { const char *gguf, *hf; } MiNamePair;

typedef struct {
    const char       *gguf;         /* general.architecture, the prefix of its keys */
    const char       *architecture; /* of config.json */
    const char       *model_type;   /* of config.json */
    const char       *activation;
    const char       *layers;       /* "model.layers." */
    const MiNamePair *top;          /* whole names without .weight, .bias; a NULL ends it */
    const MiNamePair *layer;        /* behind "blk.N." and "<layers>N." */
    bool              layernorm;    /* has layer_norm_eps, not rms_norm_eps */
    MiRopeStyle       rope;         /* as GGUF stores q and k */
} MiArch;

enum { MI_NAME_MAX = 256 }; /* bytes of a weight's name, the terminator included */

/* `architecture` is Hugging Face's, or GGUF's; NULL: none of ours. */
const MiArch *mi_arch_hf(const char *architecture);
const MiArch *mi_arch_gguf(const char *name, size_t len);

/* Translate a weight's name into out [MI_NAME_MAX]; false: not a name of this architecture. */
bool mi_name_from_gguf(const MiArch *arch, const char *name, size_t len, char *out);
bool mi_name_to_gguf(const MiArch *arch, const char *name, char *out);

/* The shortest text that reads back as the same f32. */
void mi_float_text(float x, char out[32]);

/* At most 48 bytes of text for a message: one line, no control bytes. */
const char *mi_shown(const char *text, size_t len, char out[64]);

/* Of a whole message that has texts of a file in it: control bytes become '?'.  Returns it. */
static inline char *mi_one_line(char *message)
{
    for (char *p = message; *p; p++)
        if (g_ascii_iscntrl(*p))
            *p = '?';
    return message;
}

/* Whether a tensor may be called so: not empty, no control bytes, so that any message may name it. */
bool mi_possible_name(const char *text, size_t len);

#endif
