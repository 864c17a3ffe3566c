/* program.h - the language a model is written in.
 *
 * A model runs once and records what a step does: nodes, each an operation by
 * name, over values whose number of rows is not known yet.  Errors stick: the
 * first one is kept, later builders do nothing, record() need not look.
 * A weight's name is relative to the scope.  All of this is LOAD. */
#ifndef MINIINFER_PROGRAM_H
#define MINIINFER_PROGRAM_H

#include <miniinfer/format.h>

enum { MI_MAX_IN = 8, MI_MAX_OUT = 4, MI_MAX_WEIGHTS = 4, MI_MAX_DIMS = 3 };

typedef struct { int32_t id; } MiVal; /* 0: nothing */

typedef enum { MI_ROWS_FIXED, MI_ROWS_TOKENS, MI_ROWS_OUTPUTS } MiRows;

typedef struct {
    MiDType dtype;
    MiRows  rows;
    int32_t n_rows, ndim;     /* n_rows: MI_ROWS_FIXED only; ndim: of a row */
    int64_t dim[MI_MAX_DIMS]; /* of a row */
} MiType;

/* How a weight divides over devices: by what it gives, or by what it takes;
 * the core adds the sum that the latter needs. */
typedef enum { MI_SPLIT_NONE, MI_SPLIT_OUT, MI_SPLIT_IN } MiSplit;

typedef struct {
    const char     *op; /* "rmsnorm", "acme.swirl"; a sampler's is "sampler:top_k" */
    MiVal           in[MI_MAX_IN];
    const MiWeight *weight[MI_MAX_WEIGHTS]; /* NULL: absent, as a bias may be */
    const void     *attr;                   /* plain data, copied */
    size_t          attr_size;
    int32_t         kv; /* 1 + the layer whose keys and values it touches; 0: none */
    MiSplit         split;
    /* the recorder's */
    const char *scope;
    int32_t     n_in, n_out;
    MiVal       out[MI_MAX_OUT];
} MiNode;

typedef struct { float eps, offset; } MiNorm; /* y = norm(x) * (offset + w) */
typedef struct { float scale, softcap; int32_t window; bool bidirectional; } MiAttend; /* softcap, window: 0: none */
typedef struct { float slope; } MiActivation;
typedef struct { int32_t n_top; } MiLogprobs; /* of op "logprobs": logits, tokens -> [n_out, 1 + n_top] values, ids */
typedef struct { int32_t dim; MiRopeStyle style; float magnitude; } MiRotate; /* of op "rope" */
typedef struct {
    MiRotate    rotate;  /* dim: the leading elements of a head that turn */
    const char *scaling; /* "default", "linear", "dynamic", "yarn", "llama3" */
    float       theta, factor, low_freq, high_freq, original_len;
    float       beta_fast, beta_slow, attention_factor; /* yarn; attention_factor 0: from factor */
    float       max_len; /* dynamic NTK: the length it is computed for */
} MiRope;

typedef struct MiProgram MiProgram;
typedef struct {
    size_t struct_size;
    /* name.suffix within the scope; NULL if there is none, an error if required. */
    const MiWeight *(*weight)(MiProgram *, const char *name, const char *suffix, bool required);
    /* Copies the node; types: [n_out]; out receives [n_out] values. */
    void (*node)(MiProgram *, const MiNode *, const MiType *types, int n_out, MiVal *out);
    /* The same memory: elements first..first+n of the last dimension, in `heads` equal parts (0: undivided). */
    MiVal (*view)(MiProgram *, MiVal, int64_t first, int64_t n, int32_t heads);
    MiVal (*constant)(MiProgram *, const MiType *, const void *data); /* copied; equal ones are one */
    MiVal (*rope_table)(MiProgram *, const MiRope *); /* f32 [rotate.dim / 2] radians a position */
    void (*output)(MiProgram *, const char *name, MiVal); /* "logits", "tokens", "embedding" */
    const MiType *(*type)(const MiProgram *, MiVal); /* never NULL, until the next call */
    void (*scope)(MiProgram *, const char *format, ...) G_GNUC_PRINTF(2, 3); /* NULL: the top */
    void (*fail)(MiProgram *, const char *format, ...) G_GNUC_PRINTF(2, 3);
} MiProgramApi;

struct MiProgram {
    const MiProgramApi *api;
    MiDType             dtype; /* of activations */
};

#define mi_scope(p, ...) ((p)->api->scope((p), __VA_ARGS__))
#define mi_fail(p, ...) ((p)->api->fail((p), __VA_ARGS__))

static inline void    mi_scope_end(MiProgram *p) { p->api->scope(p, NULL); }
static inline MiType  mi_type(const MiProgram *p, MiVal x) { return *p->api->type(p, x); }
static inline int64_t mi_last_dim(const MiType *t) { return t->ndim ? t->dim[t->ndim - 1] : 0; }
static inline int64_t mi_row_size(const MiType *t) /* in elements; 0: no row */
{
    int64_t n = t->ndim > 0;
    for (int i = 0; i < t->ndim; i++)
        n *= t->dim[i];
    return n;
}

/* Any operation, by name; inputs end at the first empty one. */
static inline MiVal mi_op(MiProgram *p, MiNode node, MiType type)
{
    MiVal y = { 0 };
    p->api->node(p, &node, &type, 1, &y);
    return y;
}

#endif
