/* int4_cuda.c - matrices rounded to 4 bit while they are loaded, on a card.  The output layer, where
 * rounding costs most, has 8 bit unless `head` says so. */
#include "quant_cuda.h"

#include <miniinfer/plugin.h>
#include <string.h>

typedef struct {
    const char *group, *head;
    bool        symmetric;
} Options;

const MiOption int4_cuda_options[] = {
    MI_CHOICE(Options, group, "128", "128, 64, 32", "columns that share a scale"),
    MI_OPTION(Options, symmetric, "true", 0, 0, "false: with a zero point, so that a range need not be centred on zero"),
    MI_CHOICE(Options, head, "int8", "int8, int4", "the output layer: int8, as linear int8 does it; int4, as the others"),
    MI_OPTION_END,
};
static const Options defaults = {"128", "int8", true};

static const MiQuantForm forms[2][3] = {
    {{4, 32, true, false}, {4, 64, true, false}, {4, 128, true, false}},
    {{4, 32, false, false}, {4, 64, false, false}, {4, 128, false, false}},
};
static const MiQuantForm of_head[2] = {{8, 0, true, false}, {8, 0, false, false}};

/* Its own weight, or the embedding that it shares. */
static bool is_head(const MiWeight *w)
{
    return strcmp(w->name, "lm_head.weight") == 0 || strcmp(w->name, "model.embed_tokens.weight") == 0;
}

static const MiQuantForm *form_of(const MiWeight *w, const void *options)
{
    const Options *o = options ? options : &defaults;

    if (is_head(w) && strcmp(o->head, "int8") == 0)
        return &of_head[o->symmetric];
    return &forms[o->symmetric][strcmp(o->group, "32") == 0 ? 0 : strcmp(o->group, "64") == 0 ? 1 : 2];
}

static bool bytes(const MiWeight *parts, int n, MiDType dtype, const void *options, size_t *total, GError **error)
{
    (void)dtype;
    return quant_cuda_bytes(parts, n, *form_of(parts, options), total, error);
}

static bool pack(MiContext *ctx, const MiWeight *parts, int n, const void *options, void *dst, MiOperand *out,
                 GError **error)
{
    return quant_cuda_pack(ctx, parts, n, form_of(parts, options), "int4", dst, out, error);
}

const MiLinear int4_cuda = {
    .struct_size = sizeof int4_cuda,
    .formats = quant_cuda_formats,
    .layout = "int4",
    .rank = -1,
    .joins = true,
    .bytes = bytes,
    .pack = pack,
    .op = &quant_cuda_op,
};
