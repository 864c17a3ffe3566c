/* buckets.c - the model's program with each tail that steps ask for, and a schedule of
 * it for each size of a step. */
#include "parts.h"

/* ---- programs ------------------------------------------------------------------- */

static void record_tail(MiAssembly *a, MiRecording *r, uint32_t links, bool logprobs)
{
    MiProgram       *p = &r->pub;
    const MiVal      logits = mi_recording_output(r, "logits");
    const MiLogprobs attr = { MI_MAX_TOPS };
    MiVal            x = logits;

    for (int i = 0; i < a->n_links; i++)
        if (links >> i & 1)
            x = mi_link(p, a->links[i].feature->name, x, a->links[i].sampler->draws);
    mi_output(p, "tokens", x);
    if (logprobs) {
        const MiType values = { MI_F32, MI_ROWS_OUTPUTS, 0, 1, { 1 + MI_MAX_TOPS } };
        const MiType ids = { MI_I32, MI_ROWS_OUTPUTS, 0, 1, { 1 + MI_MAX_TOPS } };
        MiVal        out[2] = { { 0 }, { 0 } };
        MiNode       n = { .op = "logprobs", .in = { logits, x }, .attr = &attr, .attr_size = sizeof attr };
        p->api->node(p, &n, (MiType[]){ values, ids }, 2, out);
        mi_output(p, "logprobs", out[0]);
        mi_output(p, "logprob_ids", out[1]);
    }
}

MiVariant *mi_variant_add(MiAssembly *a, uint32_t links, bool logprobs, GError **error)
{
    MiVariant *v = g_new0(MiVariant, 1);

    *v = (MiVariant){ links, logprobs, mi_recording_new(&a->source, a->dtype) };
    g_ptr_array_add(a->variants, v);
    ((const MiModel *)a->model->vtable)->record(&v->program->pub, &a->source);
    bool ok = mi_recording_ok(v->program, error);
    if (ok && a->n_links) {
        record_tail(a, v->program, links, logprobs);
        ok = mi_recording_ok(v->program, error);
    }
    if (ok)
        return v;
    g_ptr_array_set_size(a->variants, (gint)a->variants->len - 1); /* who looks for it again records it again */
    return NULL;
}

static int variant_of(MiAssembly *a, uint32_t links, bool logprobs, GError **error)
{
    for (guint i = 0; i < a->variants->len; i++) {
        const MiVariant *v = a->variants->pdata[i];
        if (v->links == links && v->logprobs == logprobs)
            return (int)i;
    }
    return mi_variant_add(a, links, logprobs, error) ? (int)a->variants->len - 1 : -1;
}

/* ---- buckets -------------------------------------------------------------------- */

static MiBucket *add_bucket(MiAssembly *a, int variant, int size, GError **error)
{
    const MiVariant *v = a->variants->pdata[variant];
    MiSchedule      *s = mi_schedule_new(v->program, &a->parts, &a->ctx.pub, a->sizes[size], error);

    if (!s)
        return NULL;
    MiBucket *b = g_new(MiBucket, 1);
    *b = (MiBucket){ variant, size, s, g_array_new(FALSE, FALSE, sizeof(MiGraph)), false, false, false, false };
    g_ptr_array_add(a->buckets, b);
    return b;
}

MiBucket *mi_assembly_bucket(MiAssembly *a, uint32_t links, bool logprobs, MiShape shape, GError **error)
{
    const int variant = variant_of(a, links, logprobs, error);
    int       size = 0;

    if (variant < 0)
        return NULL;
    while (size < a->n_sizes - 1 && (shape.n_tokens > a->sizes[size].n_tokens || shape.n_out > a->sizes[size].n_out))
        size++;
    for (guint i = 0; i < a->buckets->len; i++) {
        MiBucket *b = a->buckets->pdata[i];
        if (b->variant == variant && b->size == size)
            return b;
    }
    return add_bucket(a, variant, size, error);
}

static void add_size(MiAssembly *a, int32_t rows, int32_t outs, bool decode)
{
    const MiShape *last = &a->sizes[MAX(a->n_sizes - 1, 0)];

    if (a->n_sizes < MI_MAX_SIZES && (!a->n_sizes || rows > last->n_tokens || outs > last->n_out))
        a->sizes[a->n_sizes++] = (MiShape){ .n_tokens = rows, .n_seqs = MIN(rows, a->max_seqs), .n_out = outs,
                                            .max_kv = a->max_len, .decode = decode };
}

/* Where a step is recorded once for each shape, shapes of steps that only decode are few: 1, 2, 4,
 * 8, then by eights and, from 64 on, by quarters of a power of two. */
void mi_buckets_choose(MiAssembly *a)
{
    const bool records = MI_HAS((const MiBackend *)a->backend->vtable, capture_begin);

    add_size(a, 1, 1, true);
    for (int n = 2; records && n < a->max_seqs; n += n < 8 ? n : n < 64 ? 8 : 1 << (g_bit_nth_msf((gulong)n, -1) - 2))
        add_size(a, n, n, true);
    add_size(a, a->max_seqs, a->max_seqs, true);
    a->n_sizes = MIN(a->n_sizes, MI_MAX_SIZES - 1);
    add_size(a, a->max_tokens, a->max_out, false);
}

/* One row and the two largest sizes of the fullest variants, so that the arena holds whatever runs later;
 * the sizes between them, of which a device that records steps has many, are made when first needed. */
bool mi_buckets_build(MiAssembly *a, GError **error)
{
    const uint32_t all = (1u << a->n_links) - 1;

    for (int logprobs = 0; logprobs < 2; logprobs++)
        for (int i = 0; i < a->n_sizes; i = i ? i + 1 : MAX(1, a->n_sizes - 2)) {
            MiBucket *b = mi_assembly_bucket(a, all, logprobs, a->sizes[i], error);
            if (!b)
                return false;
            a->arena_bytes = MAX(a->arena_bytes, b->schedule->bytes);
        }
    return true;
}

void mi_buckets_forget(MiAssembly *a)
{
    for (guint i = 0; i < a->buckets->len; i++)
        ((MiBucket *)a->buckets->pdata[i])->bound = false;
    for (guint i = 0; i < a->variants->len; i++) {
        const MiRecording *p = ((const MiVariant *)a->variants->pdata[i])->program;
        for (guint k = 0; k < p->values->len; k++)
            g_array_index(p->values, MiValue, k).device = NULL;
    }
}

void mi_variant_free(void *p)
{
    mi_recording_free(((MiVariant *)p)->program);
    g_free(p);
}

void mi_bucket_free(void *p)
{
    MiBucket *b = p;
    mi_schedule_free(b->schedule);
    g_array_unref(b->graphs);
    g_free(b);
}
