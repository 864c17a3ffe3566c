/* option.h - a table that says what a struct's members are called outside.
 *
 *   typedef struct { int32_t block_size; bool prefix; } Options;
 *   static const MiOption options[] = {
 *       MI_OPTION(Options, block_size, "16", 1, 1024, "tokens in a block"),
 *       MI_OPTION(Options, prefix, "true", 0, 0, "share equal prefixes"),
 *       MI_OPTION_END,
 *   };
 *
 * The core fills the struct and hands it over: a feature's from its INI
 * section, a sampler's row from a request.  Validation, `inspect`, the sample
 * configuration and its reference come from the same table. */
#ifndef MINIINFER_OPTION_H
#define MINIINFER_OPTION_H

#include <miniinfer/types.h>

typedef enum {
    MI_BOOL, MI_INT, MI_UINT64, MI_FLOAT, MI_STRING,
    MI_BIASES, /* MiBiases, written "151: -100, 42: 2.5" */
} MiOptionType;

typedef struct {
    const char  *key; /* NULL ends a table */
    MiOptionType type;
    uint32_t     offset;   /* of the member */
    const char  *def;      /* as one writes it in a file; NULL: must be given */
    double       min, max; /* inclusive; both 0: any */
    const char  *help;
    const char  *choices; /* of a string: "auto, fp32, bf16"; NULL: any */
} MiOption;

#define MI_OPTION(struct_, member, def, min, max, help) \
    { #member, MI_OPTION_TYPE(((struct_ *)0)->member), offsetof(struct_, member), def, min, max, help, NULL }
#define MI_OPTION_END { NULL, MI_BOOL, 0, NULL, 0, 0, NULL, NULL }
/* A string out of a few. */
#define MI_CHOICE(struct_, member, def, choices, help) \
    { #member, MI_STRING, offsetof(struct_, member), def, 0, 0, help, choices }
#define MI_OPTION_TYPE(x)                                                                          \
    _Generic((x), bool: MI_BOOL, int32_t: MI_INT, uint64_t: MI_UINT64, float: MI_FLOAT,            \
             const char *: MI_STRING, MiBiases: MI_BIASES)

#endif
