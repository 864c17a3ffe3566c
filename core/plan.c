/* plan.c - the bytes of every part, before anything of them is there.
 *
 * The engine allocates exactly what stands here as `allocated`: the same
 * functions carve its memory that count it. */
#include "arena.h"
#include "parts.h"

#include <string.h>

static size_t carve(char *base, size_t *at, size_t bytes, void *member)
{
    if (base)
        *(void **)member = base + *at;
    return *at += mi_align(bytes);
}

size_t mi_step_carve(const MiAssembly *a, MiBatch *b, void *base)
{
    const size_t rows = (size_t)a->max_tokens * 4, seqs = (size_t)a->max_seqs * 4, outs = (size_t)a->max_out * 4;
    size_t       at = 0;

    b->max_history = a->max_len + 1;
    carve(base, &at, seqs + 4, &b->seq_start);
    carve(base, &at, outs, &b->out_rows);
    carve(base, &at, outs, &b->out_slot);
    carve(base, &at, outs, &b->targets);
    carve(base, &at, seqs, &b->n_prompt);
    carve(base, &at, rows, &b->tokens);
    return carve(base, &at, rows, &b->positions);
}

size_t mi_results_bytes(const MiAssembly *a)
{
    return mi_align((size_t)a->max_out * 4) + 2 * mi_align((size_t)a->max_out * (1 + MI_MAX_TOPS) * 4);
}

size_t mi_rows_offset(const MiAssembly *a, int link)
{
    size_t at = 0;
    for (int i = 0; i < link; i++)
        at += mi_align(a->links[i].row_size * (size_t)a->max_out);
    return at;
}

static void line(MiAssembly *a, const char *part, const char *what, size_t bytes, bool allocated)
{
    const MiPlanLine l = { part, g_string_chunk_insert(a->strings, what), bytes, allocated };
    if (!bytes)
        return;
    g_array_append_val(a->lines, l);
    *(allocated ? &a->plan.allocated : &a->plan.mapped) += bytes;
    if (allocated && strcmp(part, "host, pinned") != 0)
        a->plan.device += bytes;
}

static void linears(MiAssembly *a)
{
    g_autoptr(GHashTable) done = g_hash_table_new(NULL, NULL);

    for (guint i = 0; i < a->weights->packs->len; i++) {
        const MiPack *p = a->weights->packs->pdata[i];
        size_t        bytes = 0;
        if (!g_hash_table_add(done, (void *)(uintptr_t)p->feature))
            continue;
        for (guint k = i; k < a->weights->packs->len; k++) {
            const MiPack *q = a->weights->packs->pdata[k];
            bytes += q->feature == p->feature && q->bytes ? mi_align(q->bytes) : 0;
        }
        g_autofree char *what = g_strdup_printf("linear:%s", p->feature->name);
        line(a, "weights packed", what, bytes, true);
    }
}

/* The number in "model.layers.12.mlp.up_proj.weight"; -1: none. */
static int layer_of(const char *name)
{
    for (const char *dot = strchr(name, '.'); dot; dot = strchr(dot + 1, '.')) {
        char         *end;
        const guint64 n = g_ascii_isdigit(dot[1]) ? g_ascii_strtoull(dot + 1, &end, 10) : G_MAXUINT64;
        if (n <= G_MAXINT && *end == '.')
            return (int)n;
    }
    return -1;
}

static void add_projection(MiAssembly *a, const MiPack *p, const MiWeight *w)
{
    MiPlanProjections of = { layer_of(w->name), w->format, p->feature->name, 0, 0, 0, 0 }, *to = NULL;
    size_t            bytes = 0;

    for (guint i = 0; i < a->projections->len && !to; i++) {
        MiPlanProjections *have = &g_array_index(a->projections, MiPlanProjections, i);
        if (have->layer == of.layer && strcmp(have->stored, of.stored) == 0 && have->linear == of.linear)
            to = have;
    }
    if (!to) {
        g_array_append_val(a->projections, of);
        to = &g_array_index(a->projections, MiPlanProjections, a->projections->len - 1);
    }
    if (p->bytes)
        p->linear->bytes(w, 1, a->dtype, p->options, &bytes, NULL); /* of the pack it said yes before */
    to->n++;
    to->bytes += bytes;
    to->stored_bytes += w->bytes;
    to->weights += w->shape[0] * w->shape[1];
}

static int by_layer(const void *a, const void *b)
{
    const MiPlanProjections *x = a, *y = b;
    const unsigned           i = (unsigned)x->layer, k = (unsigned)y->layer; /* -1: the last */
    return i != k ? (i > k) - (i < k) : strcmp(x->stored, y->stored);
}

static void projections(MiAssembly *a)
{
    g_array_set_size(a->projections, 0);
    for (guint i = 0; i < a->weights->packs->len; i++) {
        const MiPack *p = a->weights->packs->pdata[i];
        for (int k = 0; k < p->n; k++)
            add_projection(a, p, &p->parts[k]);
    }
    g_array_sort(a->projections, by_layer);
    a->plan.projections = (const MiPlanProjections *)(void *)a->projections->data;
    a->plan.n_projections = (int)a->projections->len;
}

static size_t constants(const MiVariant *v)
{
    size_t bytes = 0;

    for (guint i = 1; i < v->program->values->len; i++) {
        const MiValue *c = &g_array_index(v->program->values, MiValue, i);
        if (c->data && c->base.id == (int32_t)i)
            bytes += mi_align((size_t)c->type.n_rows * (size_t)mi_row_size(&c->type) * mi_dtype_size(c->type.dtype));
    }
    return bytes;
}

/* All of it; of the cache as much as its spec's budget lets it take, nothing where that is 0. */
static void count(MiAssembly *a)
{
    static const char *const names[] = { [MI_F32] = "f32", [MI_F16] = "f16", [MI_BF16] = "bf16", [MI_F8] = "f8",
                                         [MI_I8] = "i8", [MI_I32] = "i32" };
    const MiCache           *cache = a->cache->vtable;
    /* A pool is of another size than what its sequences may grow to. */
    const char              *times = MI_HAS(cache, fork) ? "for up to %d x %d positions" : "%d x %d positions";
    g_autofree char         *size = g_strdup_printf(times, a->max_seqs, a->max_len);
    g_autofree char         *kv = g_strdup_printf("cache:%s %s, %s", a->cache->name, names[a->kv_dtype], size);
    const bool               unified = ((const MiBackend *)a->backend->vtable)->unified;

    g_array_set_size(a->lines, 0);
    a->plan = (MiPlan){ 0 };
    line(a, "weights mapped", "from the file", a->weights->mapped_bytes, false);
    linears(a);
    line(a, "weights converted", "vectors as f32", a->weights->vector_bytes, true);
    line(a, "weights uploaded", "as stored", a->weights->uploaded_bytes, true);
    if (a->cache_spec.budget)
        line(a, "kv cache", kv, cache->bytes(&a->cache_spec, a->cache_options), true);
    line(a, "attention", a->attention->name, a->ctx.allocated, true);
    line(a, "activations", "one arena", a->arena_bytes, true);
    line(a, "constants", "rope tables and the like", a->constant_bytes, true);
    line(a, "step", "tokens, positions, what was drawn", a->step_bytes + a->drawn_bytes, true);
    line(a, unified ? "step" : "host, pinned", "history", a->history_bytes, true);
    line(a, "host, pinned", "what steps send and give back",
         unified ? 0 : MI_FLIGHTS * (mi_align(a->staging_bytes) + mi_results_bytes(a)), true);
    line(a, "host, pinned", "keys and values that make room",
         MI_HAS(cache, pinned) ? cache->pinned(&a->cache_spec, a->cache_options) : 0, true);
    line(a, "sampling", "parameters of the rows", a->rows_bytes, true);
}

/* What the parts leave free.  A little of it is kept for what nobody counts: recorded steps, code that is loaded
 * when it first runs, and, where memory is shared, everybody else. */
static bool find_budget(MiAssembly *a, GError **error)
{
    const MiBackend *b = a->backend->vtable;
    const size_t     counted = b->unified ? a->plan.allocated + a->plan.mapped : a->plan.device;
    const size_t     there = b->unified ? a->ctx.allocated : a->ctx.allocated - a->ctx.pinned;
    size_t           free, total;

    if (!b->memory(a->device, &free, &total, error))
        return false;
    free -= MIN(free, counted - there);
    free -= MIN(free, total / 64 + ((size_t)256 << 20));
    a->cache_spec.budget = MAX(free, 1);
    return true;
}

bool mi_assembly_count(MiAssembly *a, GError **error)
{
    const MiCache *cache = a->cache->vtable;
    const bool     unified = ((const MiBackend *)a->backend->vtable)->unified;
    MiBatch        unused = { 0 };

    a->cache_spec.shared = unified;
    a->step_bytes = mi_step_carve(a, &unused, NULL);
    a->rows_bytes = mi_rows_offset(a, a->n_links);
    a->drawn_bytes = mi_align((size_t)a->max_seqs * sizeof(int32_t));
    a->history_bytes = (size_t)a->max_seqs * (size_t)unused.max_history * sizeof(int32_t);
    a->constant_bytes = unified ? 0 : constants(a->variants->pdata[a->variants->len - 1]);
    /* Of what plugins send for a step, a cache's tables are the most: a slot for each row, a block list. */
    a->staging_bytes = unified ? 0 : 2 * (a->step_bytes + a->rows_bytes) + ((size_t)1 << 20) +
                                         (MI_HAS(cache, sends) ? cache->sends(&a->cache_spec, a->cache_options) : 0);
    count(a);
    if (!find_budget(a, error) ||
        (MI_HAS(cache, check) && !cache->check(&a->cache_spec, a->cache_options, error)))
        return false;
    count(a);
    a->plan.lines = (const MiPlanLine *)(void *)a->lines->data;
    a->plan.n_lines = (int)a->lines->len;
    a->plan.choices = (const MiPlanChoice *)(void *)a->choices->data;
    a->plan.n_choices = (int)a->choices->len;
    projections(a);
    return true;
}

bool mi_assembly_fits(MiAssembly *a, GError **error)
{
    const MiBackend *b = a->ctx.pub.backend;
    const size_t     wanted = a->plan.device - (a->ctx.allocated - a->ctx.pinned);
    size_t           free, total;

    if (b->unified)
        return true;
    if (!b->memory(a->device, &free, &total, error))
        return false;
    if (wanted <= free)
        return true;
    g_autofree char *need = g_format_size(wanted), *have = g_format_size(free), *all = g_format_size(total);
    g_autofree char *cache = g_format_size(((const MiCache *)a->cache->vtable)->bytes(&a->cache_spec, a->cache_options));
    g_set_error(error, MI_ERROR, MI_ERROR_NO_MEMORY,
                "the model needs %s on device '%s', where %s of %s are free; lower [engine] max_len or max_seqs (the cache takes %s)",
                need, a->backend->name, have, all, cache);
    return false;
}
