/* int4_cuda.c - matrices rounded to 4 bit while they are loaded, on a card.  The output layer, where
 * rounding costs most, is linear int8's unless [engine] head says otherwise. */
#include "quant_cuda.h"

#include <miniinfer/plugin.h>
#include <string.h>

typedef struct {
    const char *group;
    bool        symmetric;
} Options;

const MiOption int4_cuda_options[] = {
    MI_CHOICE(Options, group, "128", "128, 64, 32", "columns that share a scale"),
    MI_OPTION(Options, symmetric, "true", 0, 0, "false: with a zero point, so that a range need not be centred on zero"),
    MI_OPTION_END,
};
static const Options defaults = {"128", true};

static const MiQuantForm forms[2][3] = {
    {{.bits = 4, .group = 32, .zeros = true}, {.bits = 4, .group = 64, .zeros = true}, {.bits = 4, .group = 128, .zeros = true}},
    {{.bits = 4, .group = 32}, {.bits = 4, .group = 64}, {.bits = 4, .group = 128}},
};

static const MiQuantForm *form_of(const void *options)
{
    const Options *o = options ? options : &defaults;

    return &forms[o->symmetric][strcmp(o->group, "32") == 0 ? 0 : strcmp(o->group, "64") == 0 ? 1 : 2];
}

static bool bytes(const MiWeight *parts, int n, MiDType dtype, const void *options, size_t *total, GError **error)
{
    (void)dtype;
    return quant_cuda_bytes(parts, n, *form_of(options), total, error);
}

static bool pack(MiContext *ctx, const MiWeight *parts, int n, const void *options, void *dst, MiOperand *out,
                 GError **error)
{
    return quant_cuda_pack(ctx, parts, n, form_of(options), "int4", dst, out, error);
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
    .head = "int8",
};
