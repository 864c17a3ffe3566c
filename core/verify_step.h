/* verify_step.h - what the parts of verify share of the step at hand. */
#ifndef MI_CORE_VERIFY_STEP_H
#define MI_CORE_VERIFY_STEP_H

#include "compare.h"
#include "verify.h"

/* What a step knows of the values: [n] by id. */
typedef struct MiVerifyStep {
    MiShape         shape;
    MiPlaced        tested;
    const MiPlaced *reference;
    float         **want;     /* what the reference's node gave, before it is rounded; NULL: not yet, or not needed any more */
    bool           *cached;   /* it goes into the cache, too, and is rounded to the cache's dtype */
    int            *last;     /* the run of the tested side that looks at it last */
    bool           *done;     /* [nodes] the reference has run it */
    guint           next;     /* the reference's next run */
} Step;


/* Values as the tested side's nodes take them; the caller frees them. */
float *mi_verify_given(const MiVerify *, int32_t id, int64_t n);
bool   mi_verify_made_by(const MiRun *, int32_t id);
bool   mi_verify_shares_node(const MiRun *, const MiRun *);

/* What a run's results may differ by.  Its tolerance is that of the dtype of what it gives.  What it rounds inside
 * (a value that a fusion keeps, activations that a packed layout multiplies as 8 bits, weights that were made
 * narrower) matters as much as the model makes it matter: the reference's nodes run again from inputs disturbed by
 * that much, and what that changes counts beside it. */
bool mi_verify_allowed(MiVerify *, const MiRun *, MiAllowed *out, GError **error);

#endif
