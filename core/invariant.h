/* invariant.h - which features give a row the same bits in every batch, as [engine] deterministic = batch wants.
 *
 * A feature says so of itself, in its MiOp. */
#ifndef MI_CORE_INVARIANT_H
#define MI_CORE_INVARIANT_H

#include "registry.h"

/* The op that a feature runs; NULL: it is of a kind that runs none. */
const MiOp *mi_feature_op(const MiFeature *);

bool mi_op_invariant(const MiOp *);
bool mi_feature_invariant(const MiFeature *);

/* Sets the error: this one does not, and which of `others` (names, NULL-terminated; may be NULL) do. */
void mi_invariant_refuse(MiRegistry *, const MiFeature *, const char *const *others, GError **error);

#endif
