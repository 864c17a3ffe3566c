/* plugin.h - the one header every plugin includes.
 *
 *   static const MiAttention simple = { .struct_size = sizeof simple, ... };
 *
 *   MI_PLUGIN("simple", "0.1", "Reference attention for CPUs",
 *             MI_FEATURE_ATTENTION("simple", "cpu", &simple, NULL));
 *
 * A plugin is one shared object with one exported symbol, which returns a
 * constant.  Loading it runs no plugin code besides that function. */
#ifndef MINIINFER_PLUGIN_H
#define MINIINFER_PLUGIN_H

#include <miniinfer/attention.h>
#include <miniinfer/backend.h>
#include <miniinfer/cache.h>
#include <miniinfer/eviction.h>
#include <miniinfer/format.h>
#include <miniinfer/frontend.h>
#include <miniinfer/linear.h>
#include <miniinfer/model.h>
#include <miniinfer/op.h>
#include <miniinfer/option.h>
#include <miniinfer/prefix.h>
#include <miniinfer/sampler.h>
#include <miniinfer/scheduler.h>
#include <miniinfer/tokenizer.h>

#define MI_PLUGIN_MAGIC 0x4d694e66u /* "MiNf" */

/* Major: a struct of MI_ABI_STRUCTS, or a member removed or moved.
 * Minor: members appended to a vtable. */
#define MI_ABI_MAJOR 1
#define MI_ABI_MINOR 0

/* Structs that cross the boundary by value: sizes are compared at load. */
#define MI_ABI_STRUCTS(X) \
    X(MiTensor) X(MiBatch) X(MiKvView) X(MiSequence) X(MiStep) X(MiOption) X(MiType) X(MiNode) \
    X(MiOperand) X(MiArgs) X(MiCall) X(MiWeight) X(MiTokenizerData) X(MiRequest) X(MiEvent) X(MiRope) X(MiBiases)
#define MI_SIZE_OF(type) sizeof(type),
#define MI_COUNT_OF(type) +1
enum { MI_N_ABI_STRUCTS = MI_ABI_STRUCTS(MI_COUNT_OF) };

typedef enum {
    MI_KIND_BACKEND, MI_KIND_OP, MI_KIND_FUSION, MI_KIND_MODEL, MI_KIND_ATTENTION, MI_KIND_CACHE, MI_KIND_LINEAR,
    MI_KIND_SAMPLER, MI_KIND_SCHEDULER, MI_KIND_FORMAT, MI_KIND_TOKENIZER, MI_KIND_FRONTEND, MI_KIND_PREFIX,
    MI_KIND_EVICTION, MI_N_KINDS
} MiKind;

typedef struct {
    MiKind          kind;
    const char     *name;    /* [a-z0-9_.-]+, what a configuration names */
    const char     *backend; /* "cpu", "cuda", or "*": no device code */
    const void     *vtable;  /* first member: size_t struct_size */
    const MiOption *options; /* of its INI section; may be NULL */
} MiFeature;

typedef struct {
    uint32_t         magic; /* these three never move */
    uint16_t         abi_major, abi_minor;
    uint32_t         struct_size;
    uint32_t         sizes[MI_N_ABI_STRUCTS];
    const char      *name, *version, *description, *licence;
    const MiFeature *features; /* [n_features] */
    uint32_t         n_features;
} MiPlugin;

/* A vtable of the wrong type is a compile-time warning, not a crash. */
#define MI_FEATURE(kind, type, name, backend, vt, opts) { kind, name, backend, 1 ? (vt) : (const type *)0, opts }
#define MI_FEATURE_BACKEND(...) MI_FEATURE(MI_KIND_BACKEND, MiBackend, __VA_ARGS__)
#define MI_FEATURE_OP(...) MI_FEATURE(MI_KIND_OP, MiOp, __VA_ARGS__)
#define MI_FEATURE_FUSION(...) MI_FEATURE(MI_KIND_FUSION, MiFusion, __VA_ARGS__)
#define MI_FEATURE_MODEL(...) MI_FEATURE(MI_KIND_MODEL, MiModel, __VA_ARGS__)
#define MI_FEATURE_ATTENTION(...) MI_FEATURE(MI_KIND_ATTENTION, MiAttention, __VA_ARGS__)
#define MI_FEATURE_CACHE(...) MI_FEATURE(MI_KIND_CACHE, MiCache, __VA_ARGS__)
#define MI_FEATURE_LINEAR(...) MI_FEATURE(MI_KIND_LINEAR, MiLinear, __VA_ARGS__)
#define MI_FEATURE_SAMPLER(...) MI_FEATURE(MI_KIND_SAMPLER, MiSampler, __VA_ARGS__)
#define MI_FEATURE_SCHEDULER(...) MI_FEATURE(MI_KIND_SCHEDULER, MiScheduler, __VA_ARGS__)
#define MI_FEATURE_FORMAT(...) MI_FEATURE(MI_KIND_FORMAT, MiFormat, __VA_ARGS__)
#define MI_FEATURE_TOKENIZER(...) MI_FEATURE(MI_KIND_TOKENIZER, MiTokenizer, __VA_ARGS__)
#define MI_FEATURE_FRONTEND(...) MI_FEATURE(MI_KIND_FRONTEND, MiFrontend, __VA_ARGS__)
#define MI_FEATURE_PREFIX(...) MI_FEATURE(MI_KIND_PREFIX, MiPrefix, __VA_ARGS__)
#define MI_FEATURE_EVICTION(...) MI_FEATURE(MI_KIND_EVICTION, MiEviction, __VA_ARGS__)

/* #define it before including this header. */
#ifndef MI_LICENCE
#define MI_LICENCE "unspecified"
#endif

#define MI_PLUGIN(name_, version_, description_, ...)                                                   \
    __attribute__((visibility("default"))) const MiPlugin *mi_plugin_query(void);                       \
    const MiPlugin *mi_plugin_query(void)                                                               \
    {                                                                                                   \
        static const MiFeature features[] = { __VA_ARGS__ };                                            \
        static const MiPlugin  plugin = {                                                               \
            MI_PLUGIN_MAGIC, MI_ABI_MAJOR, MI_ABI_MINOR, sizeof plugin, { MI_ABI_STRUCTS(MI_SIZE_OF) }, \
            name_, version_, description_, MI_LICENCE,                                                  \
            features, sizeof features / sizeof features[0],                                             \
        };                                                                                              \
        return &plugin;                                                                                 \
    }                                                                                                   \
    extern int mi_plugin_semicolon

/* True when the vtable at hand is new enough to have `member` and sets it. */
#define MI_HAS(vt, member) \
    ((vt)->struct_size >= offsetof(__typeof__(*(vt)), member) + sizeof (vt)->member && (vt)->member)

#endif
