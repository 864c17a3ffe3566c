/* parts.h - what an assembly holds; for assembly.c, plan.c, the engine and
 * the commands that look inside. */
#ifndef MI_CORE_PARTS_H
#define MI_CORE_PARTS_H

#include "assembly.h"
#include "context.h"
#include "schedule.h"
#include "tuned.h"
#include "weights.h"

enum { MI_MAX_LINKS = 31, MI_MAX_SIZES = 24 };

/* A link of the sampling chain. */
typedef struct {
    const MiFeature *feature;
    const MiSampler *sampler;
    void            *defaults; /* [row_size] a row as the configuration has it */
    void            *scratch;  /* [row_size] */
    size_t           row_size;
} MiLink;

/* The model's program with one tail: some links of the chain, log probabilities or not. */
typedef struct {
    uint32_t     links; /* bit i: link i takes part */
    bool         logprobs;
    MiRecording *program;
} MiVariant;

/* What goes to the device before a step and comes back behind it. */
enum { MI_MAX_OUT_COPIES = 3 };
typedef struct {
    MiCopy in[MI_MAX_COPIES], out[MI_MAX_OUT_COPIES];
    int    n_in, n_out;
} MiMail;

enum { MI_FLIGHTS = 2 }; /* steps under way at most */

/* A step that was recorded: the nodes of one shape. */
typedef struct {
    MiShape shape;
    void   *of[MI_FLIGHTS]; /* for the steps of each flight; NULL: it takes another's */
} MiGraph;

/* A schedule for up to so many rows. */
typedef struct {
    int          variant, size; /* indices of variants and sizes */
    MiSchedule  *schedule;
    GArray      *graphs; /* MiGraph */
    bool         bound, ran, tried, eager; /* tried: to record; eager: something in it cannot be */
} MiBucket;

struct MiAssembly {
    MiRegistry     *registry;
    const MiConfig *config;
    MiSettings      settings;
    MiSource        source;
    MiTextCoder     text;

    const MiFeature *model, *backend, *cache, *prefix, *eviction, *attention, *scheduler;
    void            *cache_options, *prefix_options, *eviction_options, *attention_options, *scheduler_options, *backend_options;
    void            *device;
    MiOwnedContext   ctx;
    MiTuned         *tuned;
    MiDType          dtype, kv_dtype;
    MiLink           links[MI_MAX_LINKS];
    int              n_links;

    int32_t     longest; /* max_len, or what fits the cache where that is less: positions of one sequence */
    int32_t     max_len, max_tokens, max_seqs, prefill_step, max_out, vocab, n_layers;
    MiCacheSpec cache_spec;
    MiAttentionSpec attention_spec;
    void       *attention_self;

    MiWeights *weights;
    MiParts    parts;
    MiShape    sizes[MI_MAX_SIZES]; /* the largest shape of each bucket, smallest first */
    int        n_sizes;
    GPtrArray *variants; /* MiVariant *; the first is all of it */
    GPtrArray *buckets;  /* MiBucket * */
    GPtrArray *blamed;   /* const MiOp *: somebody was told that it cannot be recorded */
    bool       quiet;    /* nobody is: it is part of a program that prints for itself */
    size_t     arena_bytes, step_bytes, rows_bytes, drawn_bytes, history_bytes, constant_bytes, staging_bytes;

    MiPlan        plan;
    GArray       *lines, *choices, *projections; /* MiPlanLine, MiPlanChoice, MiPlanProjections */
    GStringChunk *strings;
    MiPhase       phases[5];
    int           n_phases;
    int64_t       mark;
};

/* Records the model, and behind it the links that `links` names; NULL with *error. */
MiVariant *mi_variant_add(MiAssembly *, uint32_t links, bool logprobs, GError **error);
void       mi_variant_free(void *);
/* Sizes, once the limits of a step are known; then those schedules that the arena is measured by. */
void mi_buckets_choose(MiAssembly *);
bool mi_buckets_build(MiAssembly *, GError **error);
void mi_bucket_free(void *);
/* What schedules and programs know of memory that is about to go. */
void mi_buckets_forget(MiAssembly *);
/* The schedule for a step; built when first needed.  NULL with *error. */
MiBucket *mi_assembly_bucket(MiAssembly *, uint32_t links, bool logprobs, MiShape shape, GError **error);

/* Lines of the plan, from what was chosen; false: there is no memory for it. */
bool mi_assembly_count(MiAssembly *, GError **error);
/* Whether the device has room for it, said before anything is copied, with what would help. */
bool mi_assembly_fits(MiAssembly *, GError **error);

/* Where a step's metadata lies in one block that is sent whole, `positions` last; counts when base is NULL.
 * What outlives a step, drawn and history, lies elsewhere. */
size_t mi_step_carve(const MiAssembly *, MiBatch *, void *base);

/* Host memory for what a step gives back: tokens, and where asked for their log probabilities. */
size_t mi_results_bytes(const MiAssembly *);
/* The rows of link i in the block of all links' rows. */
size_t mi_rows_offset(const MiAssembly *, int link);

#endif
