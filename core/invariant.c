#include "invariant.h"

const MiOp *mi_feature_op(const MiFeature *f)
{
    switch (f->kind) {
    case MI_KIND_OP: return f->vtable;
    case MI_KIND_FUSION: return ((const MiFusion *)f->vtable)->op;
    case MI_KIND_LINEAR: return ((const MiLinear *)f->vtable)->op;
    case MI_KIND_ATTENTION: return ((const MiAttention *)f->vtable)->op;
    case MI_KIND_SAMPLER: return ((const MiSampler *)f->vtable)->op;
    default: return NULL;
    }
}

bool mi_op_invariant(const MiOp *op) { return op && MI_HAS(op, batch_invariant); }
bool mi_feature_invariant(const MiFeature *f) { return mi_op_invariant(mi_feature_op(f)); }

void mi_invariant_refuse(MiRegistry *r, const MiFeature *f, const char *const *others, GError **error)
{
    const MiLoaded  *by = mi_registry_provider(r, f);
    g_autofree char *file = by ? g_path_get_basename(by->file) : g_strdup("the program");
    g_autofree char *names = others ? g_strjoinv(", ", (char **)(uintptr_t)others) : g_strdup("");

    const char      *what_does = *names ? "these do: " : "nothing there that could stand in for it does: choose another device, "
                                                         "or deterministic = off";

    g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED,
                "[engine] deterministic = batch: %s '%s' on %s, of %s, does not promise the same bits in every batch; "
                "%s%s", mi_kind_name(f->kind), f->name, f->backend, file, what_does, names);
}
