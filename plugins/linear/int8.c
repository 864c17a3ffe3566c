/* int8.c - projections with weights of 8 bits, a scale for 32, 64 or 128 columns or a whole row of W, encoded while loading.
 *
 * Takes plain weights, and block formats by decoding them.  f32 in and out; panel_op.c runs them. */
#include "encoded.h"
#include <string.h>

typedef struct {
    const char *group, *activations, *scales, *isa;
    bool        symmetric;
} Options;
static const Options defaults = { "64", "auto", "fit", "auto", false };

static const MiOption option_table[] = {
    MI_CHOICE(Options, group, "64", "128, 64, 32, row", "columns that share a scale"),
    MI_ACTIVATIONS(Options),
    MI_OPTION(Options, symmetric, "false", 0, 0, "false: with a zero point, so that a range need not be centred on zero"),
    MI_SCALES(Options),
    MI_ISA(Options),
    MI_OPTION_END,
};

static const MiPanelKernel *kernel_of(const MiWeight *w, const void *options, GError **error)
{
    const Options *o = options ? options : &defaults;
    return mi_encoded_kernel("int8", w, o->symmetric ? "int8" : "uint8", o->group, o->isa, mi_encoded_x(o->activations), error);
}

static bool bytes(const MiWeight *parts, int n, MiDType dtype, const void *options, size_t *total, GError **error)
{
    (void)dtype;
    return mi_encoded_bytes(kernel_of, parts, n, options, total, error);
}

static bool pack(MiContext *ctx, const MiWeight *parts, int n, const void *options, void *dst, MiOperand *out, GError **error)
{
    const Options *o = options ? options : &defaults;
    return mi_encoded_pack(kernel_of, strcmp(o->scales, "fit") == 0, ctx, parts, n, options, dst, out, error);
}

static const MiLinear int8 = {
    .struct_size = sizeof int8, .formats = mi_encoded_formats, .layout = "panels", .rank = -10, .joins = true,
    .bytes = bytes, .pack = pack, .op = &mi_panel_op_wide,
};

MI_PLUGIN("linear_int8", "0.1", "Projections with weights of 8 bits, encoded while loading",
          MI_FEATURE_LINEAR("int8", "cpu", &int8, option_table));
