/* parts.h - what an assembly holds; for assembly.c, plan.c and the engine. */
#ifndef MI_CORE_PARTS_H
#define MI_CORE_PARTS_H

#include "assembly.h"
#include "context.h"
#include "schedule.h"
#include "weights.h"

enum { MI_MAX_LINKS = 31 };

/* A link of the sampling chain. */
typedef struct {
    const MiFeature *feature;
    const MiSampler *sampler;
    void            *defaults; /* [row_size] a row as the configuration has it */
    size_t           row_size;
} MiLink;

/* The model's program with one tail: some links of the chain, log probabilities or not. */
typedef struct {
    uint32_t     links; /* bit i: link i takes part */
    bool         logprobs;
    MiRecording *program;
} MiVariant;

/* A schedule for up to so many rows. */
typedef struct {
    int          variant, size; /* indices of variants and sizes */
    MiSchedule  *schedule;
    bool         bound;
} MiBucket;

struct MiAssembly {
    MiRegistry     *registry;
    const MiConfig *config;
    MiSettings      settings;
    MiSource        source;
    MiTextCoder     text;

    const MiFeature *model, *backend, *cache, *attention, *scheduler;
    void            *cache_options, *attention_options, *scheduler_options, *backend_options;
    void            *device;
    MiOwnedContext   ctx;
    MiDType          dtype, kv_dtype;
    MiLink           links[MI_MAX_LINKS];
    int              n_links;

    int32_t     max_len, max_tokens, max_seqs, prefill_step, max_out, vocab, n_layers;
    MiCacheSpec cache_spec;
    MiAttentionSpec attention_spec;
    void       *attention_self;

    MiWeights *weights;
    MiParts    parts;
    MiShape    sizes[3]; /* the largest shape of each bucket, smallest first */
    int        n_sizes;
    GPtrArray *variants; /* MiVariant *; the first is all of it */
    GPtrArray *buckets;  /* MiBucket * */
    size_t     arena_bytes, step_bytes, rows_bytes;

    MiPlan        plan;
    GArray       *lines, *choices; /* MiPlanLine, MiPlanChoice */
    GStringChunk *strings;
};

/* The schedule for a step; built when first needed.  NULL with *error. */
MiBucket *mi_assembly_bucket(MiAssembly *, uint32_t links, bool logprobs, MiShape shape, GError **error);

/* Lines of the plan, from what was chosen. */
void mi_assembly_count(MiAssembly *);

/* Where a step's metadata lies in one block; counts when base is NULL. */
size_t mi_step_carve(const MiAssembly *, MiBatch *, void *base);
/* The rows of link i in the block of all links' rows. */
size_t mi_rows_offset(const MiAssembly *, int link);

#endif
