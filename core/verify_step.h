/* verify_step.h - what the parts of verify share of the step at hand. */
#ifndef MI_CORE_VERIFY_STEP_H
#define MI_CORE_VERIFY_STEP_H

#include "compare.h"
#include "verify.h"

/* What an append of the tested side writes to a cache with scales. */
typedef struct {
    const MiArgs *append;
    float        *shift; /* [n_kv_heads][head_dim] that keys are stored less by */
} MiScaledRows;

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
    GArray         *scaled;   /* MiScaledRows */
} Step;

/* One of a value's elements in the dtype in which the tested side's nodes take it. */
float  mi_verify_rounded(const MiVerify *, int32_t id, float x);
/* Values as the tested side's nodes see them, keys and values as attention does; the caller frees them. */
float *mi_verify_given(const MiVerify *, int32_t id, int64_t n);
bool   mi_verify_made_by(const MiRun *, int32_t id);
bool   mi_verify_shares_node(const MiRun *, const MiRun *);

/* verify_cache.c.  What the run wrote to the cache: compared, or, where d is NULL, the reference's takes its place, as
 * attention, like every other node, is run from the reference's values. */
bool mi_verify_cache(MiVerify *, const MiRun *, MiDifference *d, GError **error);
/* Fills the step's `scaled`. */
bool mi_verify_find_scaled(MiVerify *, GError **error);
/* x: all of a value; what of it goes to a cache with scales becomes what attention finds there. */
void mi_verify_as_cached(const MiVerify *, int32_t id, float *x);

/* What a run's results may differ by.  Its tolerance is that of the dtype of what it gives.  What it rounds inside
 * (a value that a fusion keeps, activations that a packed layout multiplies as 8 bits, weights that were made
 * narrower) matters as much as the model makes it matter: the reference's nodes run again from inputs disturbed by
 * that much, and what that changes counts beside it. */
bool mi_verify_allowed(MiVerify *, const MiRun *, MiAllowed *out, GError **error);

#endif
