/* assembly.h - a configuration turned into parts that fit: the open model, its
 * recorded program, the chosen backend, cache, attention, sampler chain and a
 * linear for every weight, and the memory all of it will take.
 *
 * No payload of a weight is read and nothing large is allocated here: `plan`
 * ends where this ends, mi_engine_start() goes on from it. */
#ifndef MI_CORE_ASSEMBLY_H
#define MI_CORE_ASSEMBLY_H

#include "settings.h"
#include "program.h"

typedef struct {
    const char *part;  /* "weights mapped", "weights packed", "kv cache", "activations", ... */
    const char *what;  /* the feature or detail: "linear:blocks", "cache:full f16", ... */
    size_t      bytes;
    bool        allocated; /* by the engine; false: mapped from the file */
} MiPlanLine;

/* The projections of a layer that are stored alike and run by the same linear. */
typedef struct {
    int         layer; /* -1: of none, as the output's */
    const char *stored, *linear;
    int         n;     /* matrices */
    size_t      stored_bytes, bytes; /* in the file; on the device, 0: used where they lie in the file */
    int64_t     weights;
} MiPlanProjections;

typedef struct {
    const char *what;   /* "attention" */
    const char *chosen; /* "gqa" */
    const char *why;    /* "auto: fits cache 'full'"; "configured" */
} MiPlanChoice;

typedef struct {
    const MiPlanLine   *lines;   /* [n_lines] */
    const MiPlanChoice *choices; /* [n_choices] */
    int                 n_lines, n_choices;
    const MiPlanProjections *projections; /* [n_projections] by layer, the last those of none */
    int                 n_projections;
    size_t              allocated, mapped; /* bytes, sums of the lines */
    size_t              device;            /* of `allocated`, what is not pinned host memory */
} MiPlan;

/* How long each part of the start took, in order; for -v and --json. */
typedef struct {
    const char *what; /* "plugins", "open model", "pack weights", ... */
    int64_t     us;
} MiPhase;

typedef struct MiAssembly MiAssembly;

/* registry and config outlive it. */
MiAssembly *mi_assembly_new(MiRegistry *, const MiConfig *, GError **error);
void        mi_assembly_free(MiAssembly *);

const MiPhase    *mi_assembly_phases(const MiAssembly *, int *n);
const MiPlan     *mi_assembly_plan(MiAssembly *);
const MiSettings *mi_assembly_settings(const MiAssembly *);
const MiSource   *mi_assembly_source(const MiAssembly *);

/* The model alone, for `inspect`, `convert` and `tokenize`: `path` is found as [model] path is. */
bool mi_model_open(MiRegistry *, const MiConfig *, const char *path, MiSource *out, GError **error);
void mi_model_close(MiSource *);

/* A tokenizer with its data; encode_text and so on are its vtable's. */
typedef struct {
    const MiTokenizer *vt;
    void              *self;
    MiTokenizerData    data;
} MiTextCoder;
bool mi_text_open(MiRegistry *, const MiConfig *, const MiSource *, MiTextCoder *out, GError **error);
void mi_text_close(MiTextCoder *);

#endif
