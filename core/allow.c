#include "verify_step.h"

#include <math.h>
#include <string.h>

enum { BLOCK = 32 }; /* elements that share a scale where activations become 8 bits: the narrowest in use */

/* ---- disturbing ------------------------------------------------------------------------- */

typedef struct {
    double rounding; /* of each element, relative */
    bool   bytes;    /* as 8 bits, a scale for each block */
} Noise;

/* -1 to 1, the same for the same place. */
static double random_at(uint64_t i)
{
    i = (i + 1) * 0x9e3779b97f4a7c15u;
    i = (i ^ i >> 32) * 0xd6e8feb86659fd93u;
    return (double)(int64_t)(i ^ i >> 32) * 0x1p-63;
}

static void disturb(float *x, int64_t n, const Noise *noise)
{
    for (int64_t i = 0; i < n; i++)
        x[i] += (float)(random_at((uint64_t)i) * noise->rounding * (double)x[i]);
    for (int64_t from = 0; from < n && noise->bytes; from += BLOCK) {
        double largest = 0;
        for (int64_t i = from; i < MIN(from + BLOCK, n); i++)
            largest = MAX(largest, fabs((double)x[i]));
        for (int64_t i = from; i < MIN(from + BLOCK, n); i++)
            x[i] += (float)(random_at((uint64_t)i) * largest / 254);
    }
}

/* ---- what a run rounds inside ---------------------------------------------------------------- */

static double rounding(MiDType t) { return t == MI_BF16 ? 0x1p-8 : t == MI_F16 ? 0x1p-11 : 0; }

/* Of a linear's weights, as if its input were as much off. */
static Noise of_weights(const MiArgs *a)
{
    Noise noise = { 0 };

    for (int k = 0; k < MI_MAX_WEIGHTS && strcmp(a->node->op, "linear") == 0; k++) {
        const MiWeight  *w = a->node->weight[k];
        const MiOperand *o = &a->weight[k];
        MiDType          stored;
        if (!w || w->ndim < 2)
            continue;
        if (o->layout && g_str_has_prefix(o->layout, "fp8"))
            noise.rounding = 0x1p-4; /* E4M3: three bits after the first */
        else if (!o->layout || strcmp(o->layout, "plain") != 0)
            noise.bytes = true;
        else if (!mi_plain_dtype(w->format, &stored) || stored != o->tensor.dtype)
            noise.rounding = rounding(o->tensor.dtype);
    }
    return noise;
}

static double tolerance(const MiVerify *v, const MiRun *run)
{
    const MiRecording *mine = v->step->tested.schedule->program, *its = v->step->reference->schedule->program;
    double             u = mi_tolerated(MI_F32);

    for (int i = 0; i < run->call.n; i++)
        for (int k = 0; k < run->call.at[i].node->n_out; k++) {
            const MiVal out = run->call.at[i].node->out[k];
            u = MAX(u, mi_tolerated(mi_recording_value(mine, out)->type.dtype));
            u = MAX(u, mi_tolerated(mi_recording_value(its, out)->type.dtype));
        }
    return u;
}

/* ---- the reference's nodes, disturbed ----------------------------------------------------------- */

/* The node of the tested side's run that this one is; NULL: it is no part of it. */
static const MiArgs *counterpart(const MiVerify *v, const MiRun *run, const MiNode *node)
{
    const MiRecording *mine = v->step->tested.schedule->program, *its = v->step->reference->schedule->program;
    guint              at;

    if (!g_ptr_array_find(its->nodes, node, &at))
        return NULL;
    for (int i = 0; i < run->call.n; i++)
        if (run->call.at[i].node == mi_recording_node(mine, (int)at))
            return &run->call.at[i];
    return NULL;
}

static bool writes_cache(const MiRun *r)
{
    for (int i = 0; i < r->call.n; i++)
        if (strcmp(r->call.at[i].node->op, "kv_append") == 0)
            return true;
    return false;
}

/* What `r` reads: from the reference's values, or, inside of the run, what was made before it. */
static bool feed(MiVerify *v, const MiPlaced *spare, const MiRun *r, const MiRun *run, GError **error)
{
    for (int i = 0; i < r->call.n; i++) {
        const MiArgs *tested = counterpart(v, run, r->call.at[i].node);
        Noise         noise = tested ? of_weights(tested) : (Noise){ 0 };
        for (int k = 0; k < r->call.at[i].node->n_in; k++) {
            const MiVal       in = { mi_recording_value(spare->schedule->program, r->call.at[i].node->in[k])->base.id };
            const int64_t     n = mi_side_elements(spare, in, v->step->shape);
            const bool        inside = mi_verify_made_by(run, in.id);
            g_autofree float *x = NULL;
            if (n <= 0 || (!inside && !v->step->want[in.id]))
                continue;
            x = inside ? g_new(float, n) : mi_verify_given(v, in.id, n);
            if (inside && !mi_side_read(v->reference, spare, in, x, n, error))
                return false;
            if (inside)
                noise.rounding = MAX(noise.rounding, rounding(v->tested->a->dtype));
            disturb(x, n, &noise);
            if (!mi_side_write(v->reference, spare, in, x, n, error))
                return false;
        }
    }
    return true;
}

static bool compare_outputs(MiVerify *v, const MiPlaced *spare, const MiRun *r, const MiRun *run, MiDifference *d, GError **error)
{
    for (int i = 0; i < r->call.n; i++)
        for (int k = 0; k < r->call.at[i].node->n_out; k++) {
            const MiVal   out = r->call.at[i].node->out[k];
            const int64_t n = mi_side_elements(spare, out, v->step->shape);
            const MiValue *value = mi_recording_value(spare->schedule->program, out);
            if (n <= 0 || value->type.dtype == MI_I32 || !v->step->want[out.id] || !mi_verify_made_by(run, out.id))
                continue;
            g_autofree float *x = g_new(float, n);
            if (!mi_side_read(v->reference, spare, out, x, n, error))
                return false;
            mi_compare(x, v->step->want[out.id], n / value->row, value->row, false, d);
        }
    return true;
}

static bool disturbed(MiVerify *v, const MiRun *run, MiDifference *d, GError **error)
{
    const MiPlaced *spare = mi_side_spare(v->reference, v->reference_schedule, error);

    if (!spare)
        return false;
    mi_schedule_shape(spare->schedule, v->step->shape);
    for (guint i = 0; i < spare->schedule->runs->len; i++) {
        const MiRun *r = mi_schedule_at(spare->schedule, i);
        bool         part = false;
        for (int k = 0; k < r->call.n && !part; k++)
            part = counterpart(v, run, r->call.at[k].node) != NULL;
        if (!part || writes_cache(r))
            continue;
        if (!feed(v, spare, r, run, error) || !mi_side_run(v->reference, spare, i, error) ||
            !compare_outputs(v, spare, r, run, d, error))
            return false;
    }
    return true;
}

bool mi_verify_allowed(MiVerify *v, const MiRun *run, MiAllowed *out, GError **error)
{
    bool inside = run->fused && rounding(v->tested->a->dtype) > 0;

    *out = (MiAllowed){ .tolerance = tolerance(v, run) };
    for (int i = 0; i < run->call.n && !inside; i++) {
        const Noise noise = of_weights(&run->call.at[i]);
        inside = noise.bytes || noise.rounding > 0;
    }
    return !inside || disturbed(v, run, &out->disturbed, error);
}
