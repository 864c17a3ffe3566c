/* broken.c - a plugin with one fault, which $MI_BROKEN names; "" is none.
 * Copies of the one file become many broken plugins. */
#include <miniinfer/plugin.h>
#include <string.h>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_UNPOISON_MEMORY_REGION(p, n) (void)(p)
#endif

typedef struct { float amount; int32_t count; uint64_t seed; const char *mode; } Options;

static bool run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    (void)state, (void)ctx, (void)call, (void)error;
    return true;
}
static void *create(MiContext *ctx, const MiAttentionSpec *spec, const void *options, GError **error)
{
    (void)ctx, (void)spec, (void)options, (void)error;
    return NULL;
}

static MiOp         op = { .struct_size = sizeof op, .n_in = 1, .n_out = 1, .run = run };
static MiOp         inner = { .struct_size = sizeof inner, .n_in = 1, .n_out = 1, .run = run };
static MiFusion     fusion = { .struct_size = sizeof fusion, .op = &op };
static MiPattern    pattern[] = { { "linear", { 0 } }, { "add", { 1 } }, { NULL, { 0 } } };
static MiSampler    sampler = { .struct_size = sizeof sampler, .row_size = sizeof(Options), .op = &op };
static MiAttention  attention = { .struct_size = sizeof attention, .op = &op };
static MiModel      model = { .struct_size = sizeof model };
static const char  *none[] = { NULL }, *wild_text[] = { (const char *)16, NULL }, *tail[] = { "tail", NULL };
static MiOption     options[] = {
    MI_OPTION(Options, amount, "1", 0, 2, "how much"), MI_OPTION(Options, count, "1", 0, 9, "how many"),
    MI_OPTION(Options, seed, "1", 0, 0, "where it starts"), MI_CHOICE(Options, mode, "fast", "fast, slow", "how"),
    MI_OPTION_END,
};
static MiFeature features[] = {
    MI_FEATURE_OP("broken.first", "cpu", &op, options), MI_FEATURE_OP("broken.second", "cpu", &op, NULL),
};
static MiPlugin plugin = {
    MI_PLUGIN_MAGIC, MI_ABI_MAJOR, MI_ABI_MINOR, sizeof plugin, { MI_ABI_STRUCTS(MI_SIZE_OF) },
    "broken", "1", "A plugin with a fault", "MIT", features, 2,
};

/* A list of texts that nothing ends: its one entry is the last word of the object's memory. */
extern char _end[] __attribute__((visibility("hidden")));
__attribute__((no_sanitize("address"))) static const char *const *endless(void)
{
    const char **last = (const char **)((uintptr_t)_end & ~(uintptr_t)7) - 1;
    ASAN_UNPOISON_MEMORY_REGION(last, sizeof *last);
    *last = "text";
    return last;
}

/* A table that says it is as long as it must be, where the memory ends. */
__attribute__((no_sanitize("address"))) static const void *cut_table(void)
{
    size_t *last = (size_t *)endless();
    *last = sizeof(MiModel);
    return last;
}

static void be(MiKind kind, const void *vtable)
{
    features[1].kind = kind;
    features[1].vtable = vtable;
}

static void break_plugin(const char *how)
{
#define IF(fault) if (strcmp(how, fault) == 0)
    IF("magic") plugin.magic++;
    IF("major above") plugin.abi_major++;
    IF("major below") plugin.abi_major--;
    IF("minor above") plugin.abi_minor++;
    IF("plugin short") plugin.struct_size -= 8;
    IF("plugin long") plugin.struct_size += 8;
    IF("shared struct") plugin.sizes[1] += 8;
    IF("no name") plugin.name = NULL;
    IF("empty version") plugin.version = "";
    IF("two lines") plugin.description = "one\nmore";
    IF("no utf-8") plugin.licence = "\xff";
    IF("wild name") plugin.name = (const char *)16;
    IF("features null") plugin.features = NULL;
    IF("features wild") plugin.features = (const MiFeature *)0xdead0;
    IF("features none") plugin.n_features = 0;
    IF("features many") plugin.n_features = 4000000000u;
    IF("features past the end") plugin.n_features = 4096;
}

static void break_feature(const char *how)
{
    IF("kind") features[1].kind = (MiKind)99;
    IF("feature name") features[1].name = "Second One";
    IF("feature name null") features[1].name = NULL;
    IF("backend") features[1].backend = NULL;
    IF("table null") features[1].vtable = NULL;
    IF("table wild") features[1].vtable = (const void *)0xdead0;
    IF("table odd") features[1].vtable = (const char *)&op + 1;
    IF("table short") op.struct_size = offsetof(MiOp, run);
    IF("table long") op.struct_size += 8;
    IF("run") op.run = NULL;
    IF("inputs") op.n_in = 99;
    IF("twice") features[1].name = "broken.first";
    IF("model without lists") be(MI_KIND_MODEL, &model);
    IF("attention reads nothing") attention.layouts = none, be(MI_KIND_ATTENTION, &attention);
    IF("attention reads wildly") attention.layouts = wild_text, be(MI_KIND_ATTENTION, &attention);
    IF("attention reads endlessly") attention.layouts = endless(), be(MI_KIND_ATTENTION, &attention);
    IF("attention half") attention.layouts = tail, attention.create = create, be(MI_KIND_ATTENTION, &attention);
    IF("pattern ahead") pattern[0].in[0] = 2, fusion.pattern = pattern, be(MI_KIND_FUSION, &fusion);
    IF("pattern wild") pattern[1].op = (const char *)16, fusion.pattern = pattern, be(MI_KIND_FUSION, &fusion);
    IF("pattern endless") {
        fusion.pattern = (const MiPattern *)endless();
        be(MI_KIND_FUSION, &fusion);
    }
    IF("table at the end") be(MI_KIND_MODEL, cut_table());
    IF("inner op short") inner.struct_size = 8, sampler.op = &inner, be(MI_KIND_SAMPLER, &sampler);
    IF("inner op cannot run") inner.run = NULL, sampler.op = &inner, be(MI_KIND_SAMPLER, &sampler);
    IF("pattern optional") pattern[0].op = "?linear", pattern[1].op = "?add", fusion.pattern = pattern, be(MI_KIND_FUSION, &fusion);
    IF("pattern long") {
        static MiPattern lines[MI_MAX_PATTERN + 2];
        for (int i = 0; i <= MI_MAX_PATTERN; i++)
            lines[i].op = "add";
        fusion.pattern = lines, be(MI_KIND_FUSION, &fusion);
    }
    IF("pattern empty") pattern[0].op = NULL, fusion.pattern = pattern, be(MI_KIND_FUSION, &fusion);
    IF("op wild") sampler.op = (const MiOp *)0xdead0, be(MI_KIND_SAMPLER, &sampler);
    IF("text in a row") sampler.params = options, be(MI_KIND_SAMPLER, &sampler);
    IF("parameters without a row") sampler.params = options, sampler.row_size = 0, be(MI_KIND_SAMPLER, &sampler);
}

static void break_option(const char *how)
{
    IF("option type") options[0].type = (MiOptionType)99;
    IF("option name") options[0].key = "a.b";
    IF("option far") options[0].offset = 1 << 20;
    IF("option odd") options[2].offset = 4;
    IF("option help") options[0].help = NULL;
    IF("option range") options[0].min = 3;
    IF("option default") options[0].def = "5";
    IF("option choice") options[3].def = "slowly";
    IF("option choices") options[3].choices = (const char *)16;
    IF("option default wild") options[3].def = (const char *)16;
    IF("option twice") options[1].key = "amount";
}

__attribute__((visibility("default"))) const MiPlugin *mi_plugin_query(void);
const MiPlugin *mi_plugin_query(void)
{
    const char *how = g_getenv("MI_BROKEN") ? g_getenv("MI_BROKEN") : "";

    IF("null") return NULL;
    IF("wild") return (const MiPlugin *)0xdead0;
    IF("odd") return (const MiPlugin *)((const char *)&plugin + 1);
    break_plugin(how);
    break_feature(how);
    break_option(how);
    return &plugin;
}
