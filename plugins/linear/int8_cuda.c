/* int8_cuda.c - matrices rounded to 8 bit while they are loaded, on a card. */
#include "quant_cuda.h"

#include <miniinfer/plugin.h>

typedef struct {
    bool symmetric;
} Options;

const MiOption int8_cuda_options[] = {
    MI_OPTION(Options, symmetric, "true", 0, 0, "false: with a zero point, so that a range need not be centred on zero"),
    MI_OPTION_END,
};

static const MiQuantForm forms[] = {{.bits = 8}, {.bits = 8, .zeros = true}};

static const MiQuantForm *form_of(const Options *o) { return &forms[o && !o->symmetric]; }

static bool bytes(const MiWeight *parts, int n, MiDType dtype, const void *options, size_t *total, GError **error)
{
    (void)dtype;
    return quant_cuda_bytes(parts, n, *form_of(options), total, error);
}

static bool pack(MiContext *ctx, const MiWeight *parts, int n, const void *options, void *dst, MiOperand *out,
                 GError **error)
{
    return quant_cuda_pack(ctx, parts, n, form_of(options), "int8", dst, out, error);
}

const MiLinear int8_cuda = {
    .struct_size = sizeof int8_cuda,
    .formats = quant_cuda_formats,
    .layout = "int8",
    .rank = -1,
    .joins = true,
    .bytes = bytes,
    .pack = pack,
    .op = &quant_cuda_op,
};
