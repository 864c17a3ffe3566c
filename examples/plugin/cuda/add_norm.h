/* add_norm.h - which nodes the fusion acme.add_norm stands in for: a sum and the norm
 * of it.  The sum is often wanted elsewhere, too, as a layer's residual is; then its
 * tensor has data.  One pattern for both backends, which differ in the types they take. */
#ifndef ACME_ADD_NORM_H
#define ACME_ADD_NORM_H

#include <miniinfer/plugin.h>

enum { ADD, NORM };

static const MiPattern add_norm_pattern[] = {
    [ADD] = { "acme.vector_add", { 0 } },
    [NORM] = { "rmsnorm", { 1 + ADD } },
    { NULL, { 0 } },
};

/* [rows, n], elements of a row side by side. */
static inline bool acme_is_rows(const MiTensor *t) { return t->ndim == 2 && t->stride[1] == 1; }

/* The norm is of the whole row and not of a view of it, such as one into heads. */
static inline bool acme_add_norm_fits(const MiArgs *at)
{
    return at[NORM].node->in[0].id == at[ADD].node->out[0].id && acme_is_rows(&at[ADD].in[0]) &&
           acme_is_rows(&at[ADD].in[1]) && acme_is_rows(&at[NORM].out[0]);
}

#endif
