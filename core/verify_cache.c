/* verify_cache.c - what a run wrote to the tested side's cache.
 *
 * Elements that share a scale are rounded together, and a second time they would be rounded otherwise.  So of a cache
 * with scales the tested side appends what the reference gave, unrounded, and the reference's attention reads what that
 * becomes.  Keys are stored less by a shift (scales.h), which it gets back. */
#include "verify_step.h"
#include "numbers.h"

#include <miniinfer/scales.h>
#include <string.h>

static const MiRecording *program(const MiVerify *v) { return v->step->tested.schedule->program; }

static bool is_append(const MiArgs *a) { return strcmp(a->node->op, "kv_append") == 0; }

/* Layouts that MiKvView describes whole; others are seen through attention alone. */
static bool described(const MiArgs *a)
{
    const MiKvView *kv = a->kv;

    return kv && kv->k && kv->slots && !kv->ext && kv->block_size > 0 &&
           (mi_dtype_scaled(kv->dtype) ? kv->scales != NULL
                                       : kv->dtype == MI_F32 || kv->dtype == MI_F16 || kv->dtype == MI_BF16);
}

/* ---- caches with scales --------------------------------------------------------------------- */

bool mi_verify_find_scaled(MiVerify *v, GError **error)
{
    const MiSchedule *s = v->step->tested.schedule;

    for (guint i = 0; i < s->runs->len; i++)
        for (int k = 0; k < mi_schedule_at(s, i)->call.n; k++) {
            const MiArgs *a = &mi_schedule_at(s, i)->call.at[k];
            if (!is_append(a) || !described(a) || !a->kv->scales)
                continue;
            const size_t bytes = (size_t)(a->kv->n_kv_heads * a->kv->head_dim) * sizeof(float);
            const void  *shift = mi_side_gather(v->tested, (const void *const[]){ mi_kv_shift(a->kv) }, 1, bytes, error);
            if (!shift)
                return false;
            const MiScaledRows rows = { a, g_memdup2(shift, bytes) };
            g_array_append_val(v->step->scaled, rows);
        }
    return true;
}

/* NULL: its cache has no scales. */
static const float *shift_of(const MiVerify *v, const MiArgs *a)
{
    for (guint i = 0; i < v->step->scaled->len; i++)
        if (g_array_index(v->step->scaled, MiScaledRows, i).append == a)
            return g_array_index(v->step->scaled, MiScaledRows, i).shift;
    return NULL;
}

void mi_verify_as_cached(const MiVerify *v, int32_t id, float *x)
{
    for (guint i = 0; i < v->step->scaled->len && !mi_dtype_scaled(v->reference->a->kv_dtype); i++) {
        const MiScaledRows *of = &g_array_index(v->step->scaled, MiScaledRows, i);
        const MiKvView     *kv = of->append->kv;
        const int64_t       dim = kv->head_dim, n = (int64_t)v->step->shape.n_tokens * kv->n_kv_heads;
        for (int side = 0; side < 2; side++) {
            const MiValue *value = mi_recording_value(program(v), of->append->node->in[side]);
            for (int64_t r = 0; r < n && value->base.id == id; r++) {
                const int64_t      head = r % kv->n_kv_heads;
                const float       *shift = side ? NULL : of->shift + head * dim;
                float             *at = x + r / kv->n_kv_heads * value->row + value->offset + head * value->stride[0];
                g_autofree uint8_t *codes = g_malloc((size_t)dim);
                const uint16_t     scale = mi_scaled_to(kv->dtype, at, shift, dim, codes);
                mi_scaled_from(kv->dtype, codes, scale, dim, at);
                for (int64_t k = 0; k < dim && shift; k++)
                    at[k] += shift[k];
            }
        }
    }
}

/* ---- rows ----------------------------------------------------------------------------------- */

/* One input of an append, head by head, and where the cache has each. */
typedef struct {
    const MiArgs *append;
    size_t        n, heads, dim, size; /* heads of all rows; of a row; elements of a head; bytes of one */
    void        **at, **scale_at;      /* [n]; scale_at NULL: none */
    uint8_t      *stored;              /* [n][dim] elements that should be there */
    uint16_t     *scales;              /* [n] */
} Rows;

static void rows_clear(Rows *r)
{
    g_free(r->at);
    g_free(r->scale_at);
    g_free(r->stored);
    g_free(r->scales);
}

static void rows_find(const MiVerify *v, Rows *r, int side, const int32_t *slots, const float *base, bool settle)
{
    const MiKvView *kv = r->append->kv;
    const MiValue  *value = mi_recording_value(program(v), r->append->node->in[side]);
    const float    *shift = shift_of(v, r->append);
    g_autofree float *x = g_new(float, r->dim);

    for (size_t i = 0; i < r->n; i++) {
        const int64_t slot = slots[i / r->heads], head = (int64_t)(i % r->heads);
        const int64_t to = slot / kv->block_size * kv->stride_block + slot % kv->block_size * kv->stride_token + head * kv->stride_head;
        const float  *row = base + (int64_t)(i / r->heads) * value->row + value->offset + head * value->stride[0];
        const bool    nowhere = slot < 0 && settle;
        r->at[i] = nowhere ? NULL : (char *)(side ? kv->v : kv->k) + (size_t)MAX(to, 0) * r->size;
        if (r->scale_at)
            r->scale_at[i] = nowhere ? NULL : (uint16_t *)kv->scales + MAX(to, 0) / kv->head_dim * 2 + side;
        for (size_t k = 0; k < r->dim; k++)
            x[k] = mi_verify_rounded(v, value->base.id, row[(int64_t)k * value->stride[1]]);
        if (r->scale_at)
            r->scales[i] = mi_scaled_to(kv->dtype, x, side ? NULL : shift + (size_t)head * r->dim, (int64_t)r->dim,
                                        r->stored + i * r->dim);
        else
            mi_numbers_to(kv->dtype, x, (int64_t)r->dim, r->stored + i * r->dim * r->size);
    }
}

static bool rows_settle(MiVerify *v, const Rows *r, GError **error)
{
    return mi_side_scatter(v->tested, r->at, r->n, r->dim * r->size, r->stored, error) &&
           (!r->scale_at || mi_side_scatter(v->tested, r->scale_at, r->n, sizeof *r->scales, r->scales, error));
}

static void rows_values(const Rows *r, const uint8_t *stored, const uint16_t *scales, float *out)
{
    const MiDType dtype = r->append->kv->dtype;

    for (size_t i = 0; i < r->n && r->scale_at; i++)
        mi_scaled_from(dtype, stored + i * r->dim, scales[i], (int64_t)r->dim, out + i * r->dim);
    if (!r->scale_at)
        mi_numbers_from(dtype, stored, (int64_t)(r->n * r->dim), out);
}

static bool rows_compare(MiVerify *v, const Rows *r, MiDifference *d, GError **error)
{
    g_autofree float    *got = g_new(float, r->n * r->dim), *want = g_new(float, r->n * r->dim);
    g_autofree uint16_t *scales = NULL;
    const void          *there;

    if (r->scale_at) {
        if (!(there = mi_side_gather(v->tested, (const void *const *)r->scale_at, r->n, sizeof *scales, error)))
            return false;
        scales = g_memdup2(there, r->n * sizeof *scales);
    }
    if (!(there = mi_side_gather(v->tested, (const void *const *)r->at, r->n, r->dim * r->size, error)))
        return false;
    rows_values(r, there, scales, got);
    rows_values(r, r->stored, r->scales, want);
    mi_compare(got, want, (int64_t)(r->n / r->heads), (int64_t)(r->heads * r->dim), false, d);
    return true;
}

static bool side_of(MiVerify *v, const MiArgs *a, int side, const int32_t *slots, MiDifference *d, GError **error)
{
    const MiKvView *kv = a->kv;
    const float    *base = v->step->want[mi_recording_value(program(v), a->node->in[side])->base.id];
    Rows            r = { .append = a, .n = (size_t)v->step->shape.n_tokens * (size_t)kv->n_kv_heads,
                          .heads = (size_t)kv->n_kv_heads, .dim = (size_t)kv->head_dim, .size = mi_dtype_size(kv->dtype) };

    if (!base)
        return true;
    r.at = g_new0(void *, r.n);
    r.stored = g_malloc(r.n * r.dim * r.size);
    if (kv->scales) {
        r.scale_at = g_new0(void *, r.n);
        r.scales = g_new(uint16_t, r.n);
    }
    rows_find(v, &r, side, slots, base, !d);
    const bool ok = d ? rows_compare(v, &r, d, error) : rows_settle(v, &r, error);
    rows_clear(&r);
    return ok;
}

bool mi_verify_cache(MiVerify *v, const MiRun *run, MiDifference *d, GError **error)
{
    for (int i = 0; i < run->call.n; i++) {
        const MiArgs *a = &run->call.at[i];
        const void   *at;
        if (!is_append(a) || !described(a))
            continue;
        const size_t bytes = (size_t)v->step->shape.n_tokens * sizeof(int32_t);
        if (!(at = mi_side_gather(v->tested, (const void *const[]){ a->kv->slots }, 1, bytes, error)))
            return false;
        g_autofree int32_t *slots = g_memdup2(at, bytes);
        if (!side_of(v, a, 0, slots, d, error) || !side_of(v, a, 1, slots, d, error))
            return false;
    }
    return true;
}
