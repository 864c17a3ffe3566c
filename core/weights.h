/* weights.h - which linear runs which weight, and where every weight lies.
 *
 * A weight is known by its canonical name, so that several recordings of one
 * model (with and without log probabilities, say) share what was packed.
 * Made in two moves: mi_weights_new() chooses and counts, without any payload;
 * mi_weights_load() packs. */
#ifndef MI_CORE_WEIGHTS_H
#define MI_CORE_WEIGHTS_H

#include "config.h"
#include "program.h"

/* Projections of one input that one linear packs together. */
typedef struct {
    const MiFeature *feature;
    const MiLinear  *linear;
    void            *options;
    int              n;
    MiWeight        *parts;    /* [n] */
    MiOperand       *operands; /* [n] */
    size_t           bytes;    /* device memory */
    void            *dst;
} MiPack;

typedef struct {
    GPtrArray  *packs;    /* MiPack * in the order of the program */
    GHashTable *pack_of;  /* name -> MiPack *, of what linear nodes read */
    GHashTable *operands; /* name -> MiOperand *, of every weight */
    GPtrArray  *vectors;  /* MiWeight *: one-dimensional, made f32 where they are not */
    size_t      packed_bytes, vector_bytes, uploaded_bytes; /* device memory that load() takes */
    size_t      mapped_bytes;                               /* used where they lie in the file */
    void       *vector_memory;
    const MiPack *head;     /* of the node that makes the logits; NULL: none does */
    GPtrArray  *others; /* MiWeight *: used as stored, as an embedding is */
} MiWeights;

typedef struct {
    const char *backend, *name; /* "auto": of those that take the weight's format the highest rank */
    bool        exact;          /* only such as are the yardstick */
    bool        invariant;      /* only such as give a row the same bits in every batch; then a rank below 0 will do */
    const char *head;           /* the name for the output layer; "same": as the others; "auto" or NULL: as MiLinear.head */
} MiLinearWish;

MiWeights *mi_weights_new(const MiRecording *, MiRegistry *, const MiConfig *, bool unified, const MiLinearWish *,
                          GError **error);
typedef bool MiLoadProgress(void *user, uint64_t done, uint64_t total);
bool mi_weights_load(MiWeights *, MiContext *, MiLoadProgress *progress, void *user, GError **error);
void mi_weights_free(MiWeights *);

/* The operand of a node's k-th weight; NULL: the node has none there. */
const MiOperand *mi_weights_operand(const MiWeights *, const MiNode *, int k);
const MiPack    *mi_weights_pack(const MiWeights *, const MiNode *); /* of a linear node */

#endif
