/* assembly.c - chooses parts that fit each other, in this order: format and
 * model (by the file), backend, linears (by each weight's storage), cache and
 * attention (as a pair), sampler chain, scheduler.  What `auto` picked and why
 * is kept for `plan`. */
#include "device.h"
#include "invariant.h"
#include "parts.h"

#include <string.h>

static bool is_auto(const char *name) { return !name || !*name || strcmp(name, "auto") == 0; }

static void chose(MiAssembly *a, const char *what, const char *chosen, const char *why)
{
    const MiPlanChoice c = { what, g_string_chunk_insert(a->strings, chosen), g_string_chunk_insert(a->strings, why) };
    g_array_append_val(a->choices, c);
}

/* ---- model ------------------------------------------------------------------ */

static bool choose_model(MiAssembly *a, GError **error)
{
    const char          *architecture = mi_source_meta(&a->source, "architectures.0");
    g_autoptr(GPtrArray) all = mi_registry_list(a->registry, MI_KIND_MODEL, NULL);
    g_autoptr(GString)   have = g_string_new(NULL);

    for (guint i = 0; i < all->len && architecture; i++) {
        const MiFeature *f = all->pdata[i];
        if (g_strv_contains(((const MiModel *)f->vtable)->architectures, architecture)) {
            a->model = f;
            chose(a, "model", f->name, architecture);
            return true;
        }
        for (const char *const *k = ((const MiModel *)f->vtable)->architectures; *k; k++)
            g_string_append_printf(have, " %s", *k);
    }
    g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED, "the model's architecture is '%s'; loaded plugins know:%s",
                architecture ? architecture : "(not said)", have->len ? have->str : " none");
    return false;
}

/* ---- backend ---------------------------------------------------------------- */

static bool choose_backend(MiAssembly *a, GError **error)
{
    return mi_device_open(a->registry, a->config, a->settings.engine.device, &a->backend, &a->backend_options, &a->device,
                          error);
}

/* A card takes a quarter of a second to open: meanwhile the model is. */
typedef struct {
    MiAssembly *a;
    GThread    *thread;
    GError     *error;
} Opening;

static gpointer open_meanwhile(gpointer data)
{
    Opening *o = data;
    (void)choose_backend(o->a, &o->error);
    return NULL;
}

static bool begin_opening(Opening *o, GError **error)
{
    return (o->thread = g_thread_try_new("device", open_meanwhile, o, error)) != NULL;
}

/* Joins in any case; the device is the assembly's, which closes it. */
static bool end_opening(Opening *o, GError **error)
{
    MiAssembly *a = o->a;

    if (!o->thread)
        return false;
    g_thread_join(g_steal_pointer(&o->thread));
    if (o->error) {
        g_propagate_error(error, g_steal_pointer(&o->error));
        return false;
    }
    a->tuned = mi_tuned_new(a->settings.engine.tuned);
    chose(a, "device", a->backend->name, is_auto(a->settings.engine.device) ? "auto: the best that is here" : "configured");
    if (!mi_context_init(&a->ctx, a->backend->vtable, a->device, error))
        return false;
    a->ctx.tuned = a->tuned;
    return true;
}

static const struct { const char *name; MiDType dtype; } dtypes[] = {
    { "bf16", MI_BF16 }, { "fp16", MI_F16 }, { "fp32", MI_F32 }, { "fp8", MI_F8 }, { "int8", MI_I8 },
};

static bool dtype_named(const char *name, MiDType *out)
{
    for (size_t i = 0; i < G_N_ELEMENTS(dtypes); i++)
        if (strcmp(dtypes[i].name, name) == 0)
            return *out = dtypes[i].dtype, true;
    return false;
}

static const char *dtype_name(MiDType t)
{
    for (size_t i = 0; i < G_N_ELEMENTS(dtypes); i++)
        if (dtypes[i].dtype == t)
            return dtypes[i].name;
    return "?";
}

static bool pick_dtype(MiAssembly *a, GError **error)
{
    const MiBackend *b = a->backend->vtable;
    const uint32_t   can = b->dtypes ? b->dtypes : 1u << MI_F32;

    if (dtype_named(a->settings.engine.dtype, &a->dtype)) {
        if (can >> a->dtype & 1)
            return true;
        g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED,
                    "[engine] dtype = %s: device '%s' has no operations in it; set dtype = auto", a->settings.engine.dtype,
                    a->backend->name);
        return false;
    }
    for (size_t i = 0; i < G_N_ELEMENTS(dtypes); i++)
        if (can >> dtypes[i].dtype & 1) {
            a->dtype = dtypes[i].dtype;
            break;
        }
    return true;
}

static bool choose_dtype(MiAssembly *a, GError **error)
{
    if (!pick_dtype(a, error))
        return false;
    a->ctx.pub.dtype = a->dtype;
    chose(a, "dtype", dtype_name(a->dtype), is_auto(a->settings.engine.dtype) ? "auto: the best of the device" : "configured");
    return true;
}

static bool exact(const MiAssembly *a) { return strcmp(a->settings.engine.dtype, "fp32") == 0; }
static bool invariant(const MiAssembly *a) { return strcmp(a->settings.engine.deterministic, "batch") == 0; }

/* ---- cache and attention ---------------------------------------------------- */

static bool reads_head(const MiAttention *t, int head_dim)
{
    for (const int32_t *d = t->head_dims; d && *d; d++)
        if (*d == head_dim)
            return true;
    return !t->head_dims;
}

/* The cache's dtype for this attention: as configured, else the smallest of 16 bits, f32 when exact. */
static bool pick_kv_dtype(const MiAssembly *a, const MiAttention *t, MiDType *out)
{
    static const MiDType order[] = { MI_F16, MI_BF16, MI_F32 };
    MiDType              wanted;

    if (dtype_named(a->settings.engine.kv_dtype, &wanted) || (exact(a) && (wanted = MI_F32, true))) {
        *out = wanted;
        return t->dtypes >> wanted & 1;
    }
    if (a->dtype != MI_F32 && t->dtypes >> a->dtype & 1)
        return *out = a->dtype, true;
    for (size_t i = 0; i < G_N_ELEMENTS(order); i++)
        if (t->dtypes >> order[i] & 1)
            return *out = order[i], true;
    return false;
}

/* NULL: they fit; else why not. */
static char *misfit(const MiAssembly *a, const MiFeature *cache, const MiFeature *attention, MiDType *kv_dtype)
{
    const MiCache     *c = cache->vtable;
    const MiAttention *t = attention->vtable;

    if (invariant(a) && !mi_feature_invariant(attention))
        return g_strdup_printf("[engine] deterministic = batch: attention '%s' on %s does not promise the same bits in "
                               "every batch", attention->name, a->backend->name);
    if (c->single && a->max_seqs > 1)
        return g_strdup_printf("cache '%s' holds one sequence and [engine] max_seqs is %d", cache->name, a->max_seqs);
    if (!g_strv_contains(t->layouts, c->layout)) {
        g_autofree char *all = g_strjoinv(", ", (char **)(uintptr_t)t->layouts);
        return g_strdup_printf("attention '%s' reads %s; cache '%s' is '%s'", attention->name, all, cache->name, c->layout);
    }
    if (!reads_head(t, a->cache_spec.head_dim))
        return g_strdup_printf("attention '%s' has no heads of %d", attention->name, a->cache_spec.head_dim);
    if ((a->attention_spec.attend.window && !t->window) || (a->attention_spec.attend.softcap > 0 && !t->softcap))
        return g_strdup_printf("attention '%s' has no %s, which the model needs", attention->name,
                               a->attention_spec.attend.window && !t->window ? "window" : "soft cap");
    if (!pick_kv_dtype(a, t, kv_dtype))
        return g_strdup_printf("attention '%s' does not read a cache of %s", attention->name,
                               exact(a) ? "fp32" : a->settings.engine.kv_dtype);
    return NULL;
}

static bool better(const MiFeature *c, const MiFeature *t, const MiFeature *c0, const MiFeature *t0)
{
    const int dc = c0 ? ((const MiCache *)c->vtable)->rank - ((const MiCache *)c0->vtable)->rank : 1;
    return dc > 0 || (dc == 0 && ((const MiAttention *)t->vtable)->rank > ((const MiAttention *)t0->vtable)->rank);
}

static bool choose_pair(MiAssembly *a, GError **error)
{
    const MiEngineSettings *e = &a->settings.engine;
    g_autoptr(GPtrArray)    caches = mi_registry_list(a->registry, MI_KIND_CACHE, a->backend->name);
    g_autoptr(GPtrArray)    attentions = mi_registry_list(a->registry, MI_KIND_ATTENTION, a->backend->name);
    g_autofree char        *why = NULL;
    g_autoptr(GString)      others = g_string_new(NULL);

    if (invariant(a))
        chose(a, "deterministic", "batch", "configured");
    if ((!is_auto(e->cache) && !mi_registry_find(a->registry, MI_KIND_CACHE, e->cache, a->backend->name, error)) ||
        (!is_auto(e->attention) && !mi_registry_find(a->registry, MI_KIND_ATTENTION, e->attention, a->backend->name, error)))
        return false;
    for (guint i = 0; i < caches->len; i++)
        for (guint k = 0; k < attentions->len; k++) {
            const MiFeature *c = caches->pdata[i], *t = attentions->pdata[k];
            const bool       mine = (is_auto(e->cache) || strcmp(e->cache, c->name) == 0) &&
                                    (is_auto(e->attention) ? !exact(a) || ((const MiAttention *)t->vtable)->exact
                                                           : strcmp(e->attention, t->name) == 0);
            MiDType          kv_dtype = MI_F32;
            g_autofree char *bad = misfit(a, c, t, &kv_dtype);
            const bool       fits = !bad;
            if (fits)
                g_string_append_printf(others, "%s%s with %s", others->len ? ", " : "", t->name, c->name);
            if (!fits && mine && !why)
                why = g_steal_pointer(&bad);
            if (fits && mine && better(c, t, a->cache, a->attention)) {
                a->cache = c;
                a->attention = t;
                a->kv_dtype = kv_dtype;
            }
        }
    if (!a->cache) {
        g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED, "%s; these fit (attention with cache): %s",
                    why ? why : "no cache or no attention is loaded", others->len ? others->str : "none");
        return false;
    }
    chose(a, "cache", a->cache->name, is_auto(e->cache) ? "auto: the highest rank that fits" : "configured");
    chose(a, "attention", a->attention->name, is_auto(e->attention) ? "auto: the highest rank that fits" : "configured");
    chose(a, "kv dtype", dtype_name(a->kv_dtype), is_auto(e->kv_dtype) ? "auto" : "configured");
    return mi_config_feature(a->config, a->cache, &a->cache_options, error) && mi_config_feature(a->config, a->attention, &a->attention_options, error);
}

/* What the cache asks for by name; NULL: nothing, which is no error. */
static bool choose_for_cache(MiAssembly *a, MiKind kind, const char *name, const char *what, const MiFeature **f, void **options,
                             GError **error)
{
    if (!name)
        return true;
    if (!(*f = mi_registry_find(a->registry, kind, name, "*", error))) {
        g_prefix_error(error, "[cache.%s] %s: ", a->cache->name, mi_kind_name(kind));
        return false;
    }
    chose(a, what, (*f)->name, "the cache's");
    return mi_config_feature(a->config, *f, options, error);
}

/* The index of equal prefixes, and what goes first of what only that knows. */
static bool choose_prefix(MiAssembly *a, GError **error)
{
    const MiCache *cache = a->cache->vtable;
    const char    *prefix = MI_HAS(cache, prefix) ? cache->prefix(a->cache_options) : NULL;
    const char    *eviction = MI_HAS(cache, eviction) ? cache->eviction(a->cache_options) : NULL;

    if (!choose_for_cache(a, MI_KIND_PREFIX, prefix, "prefix index", &a->prefix, &a->prefix_options, error) ||
        !choose_for_cache(a, MI_KIND_EVICTION, eviction, "eviction", &a->eviction, &a->eviction_options, error))
        return false;
    a->cache_spec.prefix = a->prefix ? a->prefix->vtable : NULL;
    a->cache_spec.prefix_options = a->prefix_options;
    a->cache_spec.eviction = a->eviction ? a->eviction->vtable : NULL;
    a->cache_spec.eviction_options = a->eviction_options;
    return true;
}

/* ---- what the program says of itself ------------------------------------------ */

static bool read_shape(MiAssembly *a, const MiRecording *r, GError **error)
{
    MiCacheSpec *c = &a->cache_spec;

    for (int i = 0; i < (int)r->nodes->len; i++) {
        const MiNode *n = mi_recording_node(r, i);
        if (strcmp(n->op, "kv_append") == 0) {
            const MiType *k = &mi_recording_value(r, n->in[0])->type;
            if (c->n_layers && (c->n_kv_heads != k->dim[0] || c->head_dim != k->dim[1])) {
                g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED,
                            "%s: its keys are %d heads of %d, those of another layer %d of %d", n->scope, (int)k->dim[0],
                            (int)k->dim[1], c->n_kv_heads, c->head_dim);
                return false;
            }
            c->n_kv_heads = (int32_t)k->dim[0];
            c->head_dim = (int32_t)k->dim[1];
            c->n_layers = MAX(c->n_layers, n->kv);
        } else if (strcmp(n->op, "attention") == 0) {
            const MiType   *q = &mi_recording_value(r, n->in[0])->type;
            const MiAttend *t = n->attr;
            a->attention_spec.n_heads = (int32_t)q->dim[0];
            a->attention_spec.attend.scale = t->scale;
            a->attention_spec.attend.softcap = MAX(a->attention_spec.attend.softcap, t->softcap);
            a->attention_spec.attend.window = MAX(a->attention_spec.attend.window, t->window);
        }
    }
    const MiType *logits = &mi_recording_value(r, mi_recording_output(r, "logits"))->type;
    a->vocab = (int32_t)logits->dim[0];
    if (a->vocab <= 0 || logits->ndim != 1 || logits->rows != MI_ROWS_OUTPUTS || logits->dtype != MI_F32) {
        g_set_error(error, MI_ERROR, MI_ERROR_MODEL, "model '%s' recorded no logits", a->model->name);
        return false;
    }
    a->n_layers = c->n_layers;
    return true;
}

static bool choose_sizes(MiAssembly *a, GError **error)
{
    const MiEngineSettings *e = &a->settings.engine;
    const char             *text = mi_source_meta(&a->source, "max_position_embeddings");
    const int64_t           model = text ? g_ascii_strtoll(text, NULL, 10) : 0;
    const int32_t           own = model > 0 && model < 4096 ? (int32_t)model : 4096;

    a->max_len = e->max_len ? e->max_len : own;
    a->max_seqs = e->max_seqs;
    a->prefill_step = (int32_t)MIN((int64_t)e->prefill_step, (int64_t)MAX(a->max_len, 1) * a->max_seqs);
    a->max_tokens = e->max_tokens ? e->max_tokens : a->prefill_step + a->max_seqs - 1;
    a->max_out = MAX(a->max_seqs, 32);
    if (model > 0 && a->max_len > model) {
        g_set_error(error, MI_ERROR, MI_ERROR_CONFIG, "[engine] max_len = %d, the model goes to %" G_GINT64_FORMAT, a->max_len,
                    model);
        return false;
    }
    if (a->max_tokens < a->max_seqs) {
        g_set_error(error, MI_ERROR, MI_ERROR_CONFIG, "[engine] max_tokens = %d is less than max_seqs = %d", a->max_tokens,
                    a->max_seqs);
        return false;
    }
    return true;
}

/* ---- the chain -------------------------------------------------------------- */

static bool add_link(MiAssembly *a, const char *name, GError **error)
{
    const MiFeature *f = mi_registry_find(a->registry, MI_KIND_SAMPLER, name, a->backend->name, error);
    MiLink          *l = &a->links[a->n_links];

    if (!f)
        return false;
    if (a->n_links == MI_MAX_LINKS || (a->n_links && l[-1].sampler->draws)) {
        g_set_error(error, MI_ERROR, MI_ERROR_CONFIG, "[sampler] chain: '%s' stands behind %s", name,
                    a->n_links == MI_MAX_LINKS ? "too many others" : "the link that draws");
        return false;
    }
    *l = (MiLink){ f, f->vtable, NULL, NULL, ((const MiSampler *)f->vtable)->row_size };
    if (l->sampler->params && l->row_size) {
        l->defaults = g_malloc0(l->row_size);
        l->scratch = g_malloc0(l->row_size);
        if (!mi_config_fill(a->config, "sampler", l->sampler->params, l->defaults, error)) {
            g_free(l->defaults);
            g_free(l->scratch);
            return false;
        }
    }
    a->n_links++;
    return true;
}

static bool choose_chain(MiAssembly *a, GError **error)
{
    g_auto(GStrv)      names = g_strsplit_set(a->settings.chain, ", \t", 0);
    g_autoptr(GString) chain = g_string_new(NULL);

    for (char **n = names; *n; n++)
        if (**n && !add_link(a, *n, error))
            return false;
    if ((!a->n_links || !a->links[a->n_links - 1].sampler->draws) && !add_link(a, "multinomial", error))
        return false;
    for (int i = 0; i < a->n_links; i++)
        g_string_append_printf(chain, "%s%s", i ? ", " : "", a->links[i].feature->name);
    chose(a, "sampler chain", chain->str, "configured");
    return true;
}

/* ---- the whole -------------------------------------------------------------- */

static bool choose_parts(MiAssembly *a, GError **error)
{
    MiVariant *model_only;

    if (!choose_sizes(a, error) || !(model_only = mi_variant_add(a, 0, false, error)) ||
        !read_shape(a, model_only->program, error) || !choose_pair(a, error) || !choose_prefix(a, error) ||
        !choose_chain(a, error))
        return false;
    const MiLinearWish linear = { a->backend->name, a->settings.engine.linear, exact(a), invariant(a),
                                  a->settings.engine.head };
    if (!(a->weights = mi_weights_new(model_only->program, a->registry, a->config,
                                      ((const MiBackend *)a->backend->vtable)->unified, &linear, error)))
        return false;
    if (a->weights->head)
        chose(a, "output layer", a->weights->head->feature->name,
              is_auto(a->settings.engine.head) ? "auto: what the linear has for it" : "configured");
    const char *scheduler = is_auto(a->settings.engine.scheduler) ? "fcfs" : a->settings.engine.scheduler;
    if (!(a->scheduler = mi_registry_find(a->registry, MI_KIND_SCHEDULER, scheduler, "*", error)) ||
        !mi_config_feature(a->config, a->scheduler, &a->scheduler_options, error))
        return false;
    chose(a, "scheduler", a->scheduler->name, is_auto(a->settings.engine.scheduler) ? "auto" : "configured");

    const MiCache *cache = a->cache->vtable;
    if (cache->recomputes && !a->settings.engine.max_tokens)
        a->max_tokens = MAX(a->max_tokens, a->max_len); /* every step has all tokens of a sequence */
    a->cache_spec.max_seqs = a->attention_spec.max_seqs = a->max_seqs;
    a->cache_spec.max_tokens = a->attention_spec.max_tokens = a->max_tokens;
    a->cache_spec.max_len = a->attention_spec.max_len = a->longest = a->max_len;
    a->cache_spec.dtype = a->attention_spec.kv_dtype = a->kv_dtype;
    a->attention_spec.dtype = a->dtype;
    a->attention_spec.n_kv_heads = a->cache_spec.n_kv_heads;
    a->attention_spec.head_dim = a->cache_spec.head_dim;
    a->parts = (MiParts){ a->registry, a->backend->name, a->attention->name, cache->append, a->weights, exact(a),
                          invariant(a), mi_dtype_scaled(a->kv_dtype) };
    mi_buckets_choose(a);
    return true;
}

static bool create_attention(MiAssembly *a, GError **error)
{
    const MiAttention *t = a->attention->vtable;
    return !MI_HAS(t, create) || (a->attention_self = t->create(&a->ctx.pub, &a->attention_spec, a->attention_options, error));
}

/* Notes how long it took since the last one; true. */
static bool passed(MiAssembly *a, const char *what)
{
    const int64_t now = g_get_monotonic_time();
    a->phases[a->n_phases++] = (MiPhase){ what, now - a->mark };
    a->mark = now;
    return true;
}

/* What planning found out is kept; true. */
static bool measured(MiAssembly *a)
{
    const int64_t us = mi_tuned_end(a->tuned);

    if (us)
        a->phases[a->n_phases++] = (MiPhase){ "of that, measuring what is fast, once", us };
    return true;
}

MiAssembly *mi_assembly_new(MiRegistry *registry, const MiConfig *config, GError **error)
{
    MiAssembly       *a = g_new0(MiAssembly, 1);
    Opening           opening = { .a = a };
    g_autoptr(GError) why = NULL;

    a->registry = registry;
    a->config = config;
    a->strings = g_string_chunk_new(256);
    a->lines = g_array_new(FALSE, TRUE, sizeof(MiPlanLine));
    a->projections = g_array_new(FALSE, TRUE, sizeof(MiPlanProjections));
    a->choices = g_array_new(FALSE, TRUE, sizeof(MiPlanChoice));
    a->variants = g_ptr_array_new_with_free_func(mi_variant_free);
    a->buckets = g_ptr_array_new_with_free_func(mi_bucket_free);
    a->blamed = g_ptr_array_new();
    a->mark = g_get_monotonic_time();
    bool ok = mi_settings_read(config, &a->settings, &why) && begin_opening(&opening, &why) &&
              mi_model_open(registry, config, a->settings.model.path, &a->source, &why) && choose_model(a, &why) &&
              passed(a, "model opened");
    ok = end_opening(&opening, ok ? &why : NULL) && ok;
    if (ok && passed(a, "device opened") && choose_dtype(a, &why) &&
        choose_parts(a, &why) && create_attention(a, &why) && passed(a, "parts chosen") && mi_buckets_build(a, &why) &&
        passed(a, "steps planned") && measured(a) && mi_assembly_count(a, &why))
        return a;
    g_propagate_error(error, g_steal_pointer(&why));
    mi_assembly_free(a);
    return NULL;
}

void mi_assembly_free(MiAssembly *a)
{
    if (!a)
        return;
    g_ptr_array_unref(a->buckets);
    g_ptr_array_unref(a->blamed);
    mi_weights_free(a->weights);
    g_ptr_array_unref(a->variants);
    if (a->attention_self)
        ((const MiAttention *)a->attention->vtable)->destroy(a->attention_self);
    if (a->device) {
        mi_context_clear(&a->ctx);
        ((const MiBackend *)a->backend->vtable)->close(a->device);
    }
    for (int i = 0; i < a->n_links; i++)
        g_free(a->links[i].defaults), g_free(a->links[i].scratch);
    mi_text_close(&a->text);
    mi_model_close(&a->source);
    mi_tuned_free(a->tuned);
    g_free(a->cache_options);
    g_free(a->prefix_options);
    g_free(a->eviction_options);
    g_free(a->attention_options);
    g_free(a->scheduler_options);
    g_free(a->backend_options);
    g_array_unref(a->lines);
    g_array_unref(a->projections);
    g_array_unref(a->choices);
    g_string_chunk_free(a->strings);
    g_free(a);
}

const MiPhase *mi_assembly_phases(const MiAssembly *a, int *n)
{
    *n = a->n_phases;
    return a->phases;
}
const MiPlan     *mi_assembly_plan(MiAssembly *a) { return &a->plan; }
const MiSettings *mi_assembly_settings(const MiAssembly *a) { return &a->settings; }
const MiSource   *mi_assembly_source(const MiAssembly *a) { return &a->source; }
