#include "weights.h"
#include "arena.h"
#include "context.h"
#include "invariant.h"

#include <string.h>

/* ---- choosing --------------------------------------------------------------- */

/* The formats that the linear of that name reads, or with "auto" any of them, as a list. */
static char *formats_read(const GPtrArray *linears, const char *name)
{
    g_autoptr(GPtrArray) formats = g_ptr_array_new();

    for (guint i = 0; i < linears->len; i++) {
        const MiFeature *f = linears->pdata[i];
        for (const char *const *s = ((const MiLinear *)f->vtable)->formats; *s; s++)
            if ((strcmp(name, "auto") == 0 || strcmp(name, f->name) == 0) &&
                !g_ptr_array_find_with_equal_func(formats, *s, g_str_equal, NULL))
                g_ptr_array_add(formats, (char *)(uintptr_t)*s);
    }
    g_ptr_array_add(formats, NULL);
    return g_strjoinv(", ", (char **)formats->pdata);
}

/* As the wish has it: of those that read the weight's format the one of that name, or the highest rank. */
static const MiFeature *choose(MiRegistry *r, const MiLinearWish *want, const MiWeight *w, GError **error)
{
    g_autoptr(GPtrArray) all = mi_registry_list(r, MI_KIND_LINEAR, want->backend), fit = g_ptr_array_new();
    const bool           any = strcmp(want->name, "auto") == 0, any_rank = want->invariant;
    const MiFeature     *best = NULL, *refused = NULL;

    if (!any && !mi_registry_find(r, MI_KIND_LINEAR, want->name, want->backend, error))
        return NULL;
    for (guint i = 0; i < all->len; i++) {
        const MiFeature *f = all->pdata[i];
        const MiLinear  *l = f->vtable;
        const bool       named = !any          ? strcmp(want->name, f->name) == 0
                                 : want->exact ? l->exact
                                               : l->rank >= 0 || any_rank;
        if (!g_strv_contains(l->formats, w->format))
            continue;
        if (want->invariant && !mi_feature_invariant(f)) {
            refused = named ? f : refused;
            continue;
        }
        g_ptr_array_add(fit, (char *)(uintptr_t)f->name);
        if (named && (!best || l->rank > ((const MiLinear *)best->vtable)->rank))
            best = f;
    }
    g_autofree char *names = (g_ptr_array_add(fit, NULL), g_strjoinv(", ", (char **)fit->pdata));
    if (!best && refused)
        mi_invariant_refuse(r, refused, (const char *const *)fit->pdata, error);
    else if (!best) {
        g_autofree char *read = formats_read(all, want->name);
        g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED,
                    "%s is stored as %s, which linear '%s' on %s does not read, but %s; %s%s", w->name, w->format, want->name,
                    want->backend, read, *names ? "these do: " : "none of those loaded does", names);
    }
    return best;
}

static bool is_linear(const MiNode *n) { return strcmp(n->op, "linear") == 0; }

/* The linear node that the logits come from, past what is done to them after it; -1: none. */
static int head_of(const MiRecording *r)
{
    MiVal v = mi_recording_output(r, "logits");

    for (int i = (int)r->nodes->len - 1; i >= 0 && v.id; i--) {
        const MiNode *n = mi_recording_node(r, i);
        for (int k = 0; k < n->n_out; k++)
            if (n->out[k].id == mi_recording_value(r, v)->base.id) {
                if (is_linear(n))
                    return i;
                v = n->in[0];
                break;
            }
    }
    return -1;
}

/* The last linear node before that one; -1: none. */
static int last_before(const MiRecording *r, int head)
{
    int i = head - 1;

    while (i >= 0 && !is_linear(mi_recording_node(r, i)))
        i--;
    return MAX(i, -1);
}

/* Whether the linear that is wished for says who runs the output layer. */
static bool linear_says(const MiLinearWish *want)
{
    return strcmp(want->name, "auto") != 0 && (!want->head || strcmp(want->head, "auto") == 0);
}

/* Whether it leaves the last projection to that one. */
static bool leaves_last(MiRegistry *r, const MiLinearWish *want)
{
    const MiFeature *linear = linear_says(want) ? mi_registry_find(r, MI_KIND_LINEAR, want->name, want->backend, NULL) : NULL;
    return linear && MI_HAS((const MiLinear *)linear->vtable, head_and_last);
}

/* Who runs the output layer. */
static const MiFeature *choose_head(MiRegistry *r, const MiLinearWish *want, const MiWeight *w, GError **error)
{
    MiLinearWish     head = *want;
    const MiFeature *linear, *chosen;

    if (want->head && strcmp(want->head, "auto") != 0) {
        head.name = strcmp(want->head, "same") == 0 ? want->name : want->head;
    } else if (linear_says(want)) {
        if (!(linear = mi_registry_find(r, MI_KIND_LINEAR, want->name, want->backend, error)))
            return NULL;
        head.name = MI_HAS((const MiLinear *)linear->vtable, head) ? ((const MiLinear *)linear->vtable)->head : want->name;
    }
    if (!(chosen = choose(r, &head, w, error)) && strcmp(head.name, want->name) != 0)
        g_prefix_error(error, "[engine] head = %s: ", want->head ? want->head : "auto");
    return chosen;
}

/* ---- packs ------------------------------------------------------------------ */

static MiOperand *operand_of(const MiWeight *w)
{
    MiOperand *o = g_new0(MiOperand, 1);
    o->tensor.ndim = w->ndim;
    for (int i = 0; i < w->ndim; i++)
        o->tensor.shape[i] = w->shape[i];
    for (int i = w->ndim - 1; i >= 0; i--)
        o->tensor.stride[i] = i == w->ndim - 1 ? 1 : o->tensor.stride[i + 1] * w->shape[i + 1];
    o->layout = "plain";
    return o;
}

static bool same_input(const MiRecording *r, const MiNode *a, const MiNode *b)
{
    return mi_recording_value(r, a->in[0])->base.id == mi_recording_value(r, b->in[0])->base.id;
}

static void pack_free(void *p)
{
    MiPack *pack = p;
    g_free(pack->options);
    g_free(pack->parts);
    g_free(pack->operands);
    g_free(pack);
}

/* The nodes from `first` on that read the same value through the same linear. */
static bool add_pack(MiWeights *ws, const MiRecording *r, int first, const MiFeature *const *linear, const MiConfig *c,
                     GError **error)
{
    const MiNode     *head = mi_recording_node(r, first);
    g_autoptr(GArray) parts = g_array_new(FALSE, TRUE, sizeof(MiWeight));
    MiPack           *pack = g_new0(MiPack, 1);

    g_ptr_array_add(ws->packs, pack);
    pack->feature = linear[first];
    pack->linear = linear[first]->vtable;
    for (int i = first; i < (int)r->nodes->len; i++) {
        const MiNode *n = mi_recording_node(r, i);
        if (linear[i] != linear[first] || !same_input(r, n, head) || g_hash_table_contains(ws->pack_of, n->weight[0]->name))
            continue;
        if (parts->len && !(pack->linear->joins && n->weight[0]->shape[1] == head->weight[0]->shape[1]))
            continue;
        g_array_append_val(parts, *n->weight[0]);
        g_hash_table_insert(ws->pack_of, (char *)n->weight[0]->name, pack);
    }
    pack->n = (int)parts->len;
    pack->parts = g_memdup2(parts->data, parts->len * sizeof(MiWeight));
    pack->operands = g_new0(MiOperand, pack->n);
    for (int i = 0; i < pack->n; i++) {
        g_autofree MiOperand *o = operand_of(&pack->parts[i]);
        pack->operands[i] = *o;
        pack->operands[i].layout = pack->linear->layout;
    }
    if (!mi_config_feature(c, pack->feature, &pack->options, error))
        return false;
    if (!pack->linear->bytes(pack->parts, pack->n, r->pub.dtype, pack->options, &pack->bytes, error)) {
        g_prefix_error(error, "linear '%s': ", pack->feature->name);
        return false;
    }
    ws->packed_bytes += mi_align(pack->bytes);
    for (int i = 0; i < pack->n && !pack->bytes; i++)
        ws->mapped_bytes += pack->parts[i].bytes;
    return true;
}

/* ---- what is not a linear's --------------------------------------------------- */

static size_t vector_bytes(const MiWeight *w) { return mi_align((size_t)w->shape[0] * sizeof(float)); }

static bool usable_where_it_lies(const MiWeight *w, bool unified)
{
    return unified && w->data && ((uintptr_t)w->data % 4 == 0 || strcmp(w->format, "f32") != 0);
}

static bool decodes(const MiWeight *w, GError **error)
{
    if (w->source && MI_HAS(w->source->vt, decode))
        return true;
    g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED, "%s is stored as %s, which its format does not decode", w->name,
                w->format);
    return false;
}

/* Norms and biases: f32, where they lie or converted. */
static bool add_vector(MiWeights *ws, const MiWeight *w, MiOperand *o, bool unified, GError **error)
{
    o->tensor.dtype = MI_F32;
    if (strcmp(w->format, "f32") == 0 && usable_where_it_lies(w, unified)) {
        o->tensor.data = (void *)(uintptr_t)w->data;
        ws->mapped_bytes += w->bytes;
        return true;
    }
    if (strcmp(w->format, "f32") != 0 && !decodes(w, error))
        return false;
    ws->vector_bytes += vector_bytes(w);
    g_ptr_array_add(ws->vectors, (void *)(uintptr_t)w);
    return true;
}

/* The plain rows that a linear packed of the same weight, which an embedding reads, too. */
static const MiPack *shared_rows(const MiWeights *ws, const MiWeight *w)
{
    const MiPack *p = g_hash_table_lookup(ws->pack_of, w->name);
    return p && strcmp(p->linear->layout, "plain") == 0 ? p : NULL;
}

/* As it is stored where the device reads the file's memory; elsewhere as plain rows of `dtype`. */
static bool add_other(MiWeights *ws, const MiWeight *w, bool unified, MiDType dtype, GError **error)
{
    MiOperand *o;
    MiDType    stored;
    const bool plain = mi_plain_dtype(w->format, &stored);

    if (g_hash_table_contains(ws->operands, w->name))
        return true;
    g_hash_table_insert(ws->operands, (char *)w->name, o = operand_of(w));
    if (w->ndim == 1)
        return add_vector(ws, w, o, unified, error);
    o->tensor.dtype = unified && plain ? stored : dtype;
    if (unified) {
        const MiPack *p = g_hash_table_lookup(ws->pack_of, w->name);
        if (!plain) {
            o->layout = w->format;
            memset(o->tensor.stride, 0, sizeof o->tensor.stride);
        }
        o->tensor.data = (void *)(uintptr_t)w->data;
        ws->mapped_bytes += p && !p->bytes ? 0 : w->bytes; /* a linear that maps it has counted it */
        return true;
    }
    if ((!plain || stored != dtype) && !decodes(w, error))
        return false;
    if (!shared_rows(ws, w))
        ws->uploaded_bytes += mi_align(mi_weight_bytes_as(w, dtype));
    g_ptr_array_add(ws->others, (void *)(uintptr_t)w);
    return true;
}

MiWeights *mi_weights_new(const MiRecording *r, MiRegistry *registry, const MiConfig *c, bool unified,
                          const MiLinearWish *want, GError **error)
{
    const int                    n = (int)r->nodes->len, head = head_of(r);
    const int                    last = leaves_last(registry, want) ? last_before(r, head) : -1;
    g_autofree const MiFeature **of = g_new0(const MiFeature *, n);
    MiWeights                   *ws = g_new0(MiWeights, 1);
    bool                         ok = true;

    ws->packs = g_ptr_array_new_with_free_func(pack_free);
    ws->pack_of = g_hash_table_new(g_str_hash, g_str_equal);
    ws->operands = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, g_free);
    ws->vectors = g_ptr_array_new();
    ws->others = g_ptr_array_new();
    for (int i = 0; i < n && ok; i++) {
        const MiNode *node = mi_recording_node(r, i);
        if (is_linear(node) && node->weight[0])
            ok = (of[i] = (i == head || i == last ? choose_head : choose)(registry, want, node->weight[0], error)) != NULL;
    }
    for (int i = 0; i < n && ok; i++)
        if (of[i] && !g_hash_table_contains(ws->pack_of, mi_recording_node(r, i)->weight[0]->name))
            ok = add_pack(ws, r, i, of, c, error);
    ws->head = ok && head >= 0 && of[head] ? mi_weights_pack(ws, mi_recording_node(r, head)) : NULL;
    for (int i = 0; i < n && ok; i++) {
        const MiNode *node = mi_recording_node(r, i);
        for (int k = of[i] ? 1 : 0; k < MI_MAX_WEIGHTS && ok; k++)
            if (node->weight[k])
                ok = add_other(ws, node->weight[k], unified, r->pub.dtype, error);
    }
    if (ok)
        return ws;
    mi_weights_free(ws);
    return NULL;
}

void mi_weights_free(MiWeights *ws)
{
    if (!ws)
        return;
    g_ptr_array_unref(ws->packs);
    g_hash_table_unref(ws->pack_of);
    g_hash_table_unref(ws->operands);
    g_ptr_array_unref(ws->vectors);
    g_ptr_array_unref(ws->others);
    g_free(ws);
}

/* ---- loading ---------------------------------------------------------------- */

static bool load_vectors(MiWeights *ws, MiContext *ctx, GError **error)
{
    size_t at = 0;

    if (!ws->vector_bytes)
        return true;
    if (!(ws->vector_memory = ctx->alloc(ctx, MI_MEM_DEVICE, ws->vector_bytes, error)))
        return false;
    for (guint i = 0; i < ws->vectors->len; i++) {
        const MiWeight *w = ws->vectors->pdata[i];
        MiOperand      *o = g_hash_table_lookup(ws->operands, w->name);

        o->tensor.data = (char *)ws->vector_memory + at;
        if (!ctx->put(ctx, o->tensor.data, MI_F32, w, error))
            return false;
        at += vector_bytes(w);
    }
    return true;
}

static bool load_others(MiWeights *ws, MiContext *ctx, GError **error)
{
    for (guint i = 0; i < ws->others->len; i++) {
        const MiWeight *w = ws->others->pdata[i];
        MiOperand      *o = g_hash_table_lookup(ws->operands, w->name);
        const MiPack   *p = shared_rows(ws, w);
        for (int k = 0; p && k < p->n; k++)
            if (strcmp(p->parts[k].name, w->name) == 0)
                *o = p->operands[k];
        if (!p && (!(o->tensor.data = ctx->alloc(ctx, MI_MEM_DEVICE, mi_align(mi_weight_bytes_as(w, o->tensor.dtype)), error)) ||
                   !ctx->put(ctx, o->tensor.data, o->tensor.dtype, w, error)))
            return false;
    }
    return true;
}

bool mi_weights_load(MiWeights *ws, MiContext *ctx, MiLoadProgress *progress, void *user, GError **error)
{
    uint64_t done = 0, total = 0;

    for (guint i = 0; i < ws->packs->len; i++)
        for (int k = 0; k < ((MiPack *)ws->packs->pdata[i])->n; k++)
            total += ((MiPack *)ws->packs->pdata[i])->parts[k].bytes;
    for (guint i = 0; i < ws->packs->len; i++) {
        MiPack *p = ws->packs->pdata[i];
        if (p->bytes && !(p->dst = ctx->alloc(ctx, MI_MEM_DEVICE, mi_align(p->bytes), error)))
            return false;
        if (!p->linear->pack(ctx, p->parts, p->n, p->options, p->dst, p->operands, error)) {
            g_prefix_error(error, "linear '%s': ", p->feature->name);
            return false;
        }
        for (int k = 0; k < p->n; k++) {
            const MiWeight *w = &p->parts[k];
            done += w->bytes;
            if (p->bytes && w->source && MI_HAS(w->source->vt, drop) && !g_hash_table_contains(ws->operands, w->name))
                w->source->vt->drop(w->source->self, w);
        }
        if (progress && !progress(user, done, total)) {
            g_set_error(error, MI_ERROR, MI_ERROR_CONFIG, "loading was interrupted");
            return false;
        }
    }
    return load_vectors(ws, ctx, error) && load_others(ws, ctx, error);
}

/* ---- looking up ------------------------------------------------------------- */

const MiPack *mi_weights_pack(const MiWeights *ws, const MiNode *n)
{
    return is_linear(n) && n->weight[0] ? g_hash_table_lookup(ws->pack_of, n->weight[0]->name) : NULL;
}

const MiOperand *mi_weights_operand(const MiWeights *ws, const MiNode *n, int k)
{
    const MiPack *p = k == 0 ? mi_weights_pack(ws, n) : NULL;

    for (int i = 0; p && i < p->n; i++)
        if (strcmp(p->parts[i].name, n->weight[0]->name) == 0)
            return &p->operands[i];
    return n->weight[k] ? g_hash_table_lookup(ws->operands, n->weight[k]->name) : NULL;
}
