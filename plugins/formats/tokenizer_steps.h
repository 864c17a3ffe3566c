/* tokenizer_steps.h - what a tokenizer.json does before and after its model: normalizer,
 * pre_tokenizer, post_processor. */
#ifndef MI_FORMATS_TOKENIZER_STEPS_H
#define MI_FORMATS_TOKENIZER_STEPS_H

#include <jansson.h>
#include <miniinfer/format.h>

typedef struct {
    const char *name;       /* begins errors */
    bool        nfc, byte_level, metaspace, split_blanks;
    bool        add_prefix_space, prefix_first, prefix_if_none, escape_spaces;
    GPtrArray  *split;      /* regular expressions, each its own memory; applied one after the other */
    const char *pre;        /* what they are together: "qwen2", ..., "regex"; NULL: nothing */
    char       *first_special, *last_special; /* that the post-processor puts round a text; NULL: none */
    bool        has_template; /* there is a post-processor that would */
} MiSteps;

/* Each value may be NULL or null.  clear() after a failure too. */
bool mi_steps_read(MiSteps *, const json_t *normalizer, const json_t *pre_tokenizer, const json_t *post_processor,
                   GError **error);
void mi_steps_clear(MiSteps *);

#endif
