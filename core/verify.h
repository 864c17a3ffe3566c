/* verify.h - one model's nodes on two assemblies, each from the same inputs.
 *
 * The reference runs node by node, without fusions; what a node gives there is rounded to the
 * tested side's dtype, and from these values both sides compute the next one.  So an error is
 * where it is made, and does not grow from node to node. */
#ifndef MI_CORE_VERIFY_H
#define MI_CORE_VERIFY_H

#include "side.h"

/* One run of the tested side, over all steps. */
typedef struct {
    char  *label, *feature, *file; /* file NULL: not known */
    int    first, n_nodes;         /* in the program */
    bool   fused;
    bool   same;  /* the reference ran the same code: that they agree says little */
    int    steps;
    double l2, max_abs; /* largest of a row's relative L2 difference; of an element */
    double tolerance;   /* of l2 */
    double worst;       /* differences as parts of what is tolerated; above 1: wrong */
    double values_worst;             /* of them the results' */
    double cache_worst, nodes_worst; /* what it wrote to the cache; a fusion against the nodes it replaced; -1: none */
    char  *where;       /* the step of `worst`: "12 rows of 1 sequence" */
} MiVerified;

typedef struct {
    MiSide     *tested, *reference;
    const char *pattern; /* of labels and features, with * and ?, or a part of one; NULL: all */
    GPtrArray  *lines;   /* MiVerified *, in the order of the program */
    GHashTable *by_key;
    /* the step at hand */
    MiSchedule *reference_schedule;
    struct MiVerifyStep *step;
    int32_t    *tokens; /* [n_out] that the reference drew */
} MiVerify;

void mi_verify_init(MiVerify *, MiSide *tested, MiSide *reference, const char *pattern);
void mi_verify_clear(MiVerify *);
/* One step of both sides. */
bool mi_verify_step(MiVerify *, GError **error);

#endif
