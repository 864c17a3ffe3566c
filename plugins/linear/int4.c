/* int4.c - projections with weights of 4 bits in groups of 32, 64 or 128 columns, encoded while loading.
 *
 * Takes plain weights, and block formats by decoding them.  f32 in and out; panel_op.c runs them.  The
 * output layer, where rounding costs most, is linear int8's unless [engine] head says otherwise. */
#include "encoded.h"
#include <string.h>

typedef struct {
    const char *group, *activations, *scales, *isa;
    bool        symmetric;
} Options;
static const Options defaults = { "128", "auto", "fit", "auto", true };

static const MiOption option_table[] = {
    MI_CHOICE(Options, group, "128", "128, 64, 32", "columns that share a scale"),
    MI_OPTION(Options, symmetric, "true", 0, 0, "false: with a zero point, so that a range need not be centred on zero"),
    MI_ACTIVATIONS(Options),
    MI_SCALES(Options),
    MI_ISA(Options),
    MI_OPTION_END,
};

static const MiPanelKernel *kernel_of(const MiWeight *w, const void *options, GError **error)
{
    const Options *o = options ? options : &defaults;
    return mi_encoded_kernel("int4", w, o->symmetric ? "int4" : "uint4", o->group, o->isa, mi_encoded_x(o->activations), error);
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

static const MiLinear int4 = {
    .struct_size = sizeof int4, .formats = mi_encoded_formats, .layout = "panels", .rank = -10, .joins = true,
    .bytes = bytes, .pack = pack, .op = &mi_panel_op_wide, .head = "int8",
};

MI_PLUGIN("linear_int4", "0.1", "Projections with weights of 4 bits in groups, encoded while loading",
          MI_FEATURE_LINEAR("int4", "cpu", &int4, option_table));
