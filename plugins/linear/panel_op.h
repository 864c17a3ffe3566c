/* panel_op.h - the op of linears that pack W into panels (kernels/cpu/panels.h).
 *
 * Such a linear's operands have layout "panels", its MiPanelKernel as `ext`, the
 * panels as tensor.data and [out, in] as shape; those of one pack share what
 * becomes of x, and the instruction set. */
#ifndef MI_LINEAR_PANEL_OP_H
#define MI_LINEAR_PANEL_OP_H

#include <cpu/panels.h>
#include <miniinfer/plugin.h>

extern const MiOp mi_panel_op, mi_panel_op_wide; /* the latter: with room for x of two bytes */

/* Of a part that is one matrix; NULL with *error: it is none, or this machine lacks what the options ask for. */
typedef const MiPanelKernel *MiKernelOf(const MiWeight *, const void *options, GError **error);

/* MiLinear.bytes of parts that read one x. */
bool mi_panel_op_bytes(MiKernelOf *, const MiWeight *parts, int n, const void *options, size_t *total, GError **error);

static inline int64_t mi_panels(int64_t out) { return (out + MI_PANEL - 1) / MI_PANEL; }

static inline void mi_on_all_threads(MiContext *ctx, void (*fn)(void *, int, int), void *arg)
{
    if (MI_HAS(ctx->backend, parallel))
        ctx->backend->parallel(ctx->device, fn, arg);
    else
        fn(arg, 0, 1);
}

#endif
