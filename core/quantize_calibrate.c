/* quantize_calibrate.c - what the projections of a model get to read while it reads a text.
 *
 * The model runs as it is configured, node by node, one window of the text a step; before a projection runs, its input is
 * added to the sum of x x' of that input.  Sums take in^2 floats each: of as many as there is memory for in one run, which
 * ends behind the last of them.  Of each eighth window the inputs are kept as they are, and not added. */
#include "quantize.h"
#include "side.h"

#include <math.h>
#include <string.h>

enum { HELD = 8 };

typedef struct {
    int32_t input; /* the value */
    int64_t n;     /* columns */
    float  *sum;   /* [n][n] */
    float  *magnitudes; /* [n], sums of |x| */
    float  *held;  /* [n][rows of all held windows] */
    int64_t rows;  /* those that are there */
} Sum;

struct MiCalibration {
    MiAssembly    *a;
    const int32_t *ids;
    size_t         n_ids;
    int            windows, length, window; /* the one that is read */
    MiSide         side;
    GArray        *sums;   /* Sum */
    GHashTable    *sum_of; /* weight's name -> index + 1 */
};

MiCalibration *mi_calibration_new(MiAssembly *a, const int32_t *ids, size_t n, int windows, int length)
{
    MiCalibration *c = g_new0(MiCalibration, 1);

    *c = (MiCalibration){ .a = a, .ids = ids, .n_ids = n, .windows = windows, .length = length, .sums = g_array_new(FALSE, TRUE, sizeof(Sum)),
                          .sum_of = g_hash_table_new(g_str_hash, g_str_equal) };
    return c;
}

static void sum_free(const Sum *s)
{
    g_free(s->sum);
    g_free(s->magnitudes);
    g_free(s->held);
}

static void forget(MiCalibration *c)
{
    for (guint i = 0; i < c->sums->len; i++)
        sum_free(&g_array_index(c->sums, Sum, i));
    g_array_set_size(c->sums, 0);
    g_hash_table_remove_all(c->sum_of);
}

void mi_calibration_free(MiCalibration *c)
{
    if (!c)
        return;
    forget(c);
    g_array_unref(c->sums);
    g_hash_table_unref(c->sum_of);
    g_free(c);
}

static const Sum *sum_of(const MiCalibration *c, const char *name)
{
    const int i = GPOINTER_TO_INT(g_hash_table_lookup(c->sum_of, name));
    return i ? &g_array_index(c->sums, Sum, i - 1) : NULL;
}

bool mi_calibration_inputs(const MiCalibration *c, const char *name, MiInputs *out)
{
    const Sum *s = sum_of(c, name);

    if (s)
        *out = (MiInputs){ s->n, s->sum, s->magnitudes, s->held, s->rows };
    return s != NULL;
}

static int64_t held_rows(const MiCalibration *c) { return (int64_t)(c->windows / HELD) * c->length; }

/* ---- which sums --------------------------------------------------------------------- */

static const MiRecording *program(const MiCalibration *c) { return ((const MiVariant *)c->a->variants->pdata[0])->program; }

const MiRecording *mi_calibration_program(const MiCalibration *c) { return program(c); }

static const MiNode *reader(const MiRecording *r, const char *name)
{
    for (int i = 0; i < (int)r->nodes->len; i++) {
        const MiNode *n = mi_recording_node(r, i);
        if (strcmp(n->op, "linear") == 0 && n->weight[0] && strcmp(n->weight[0]->name, name) == 0)
            return n;
    }
    return NULL;
}

/* The sum that a matrix needs, made if there is room; -1: no room, or *error. */
static bool want(MiCalibration *c, const char *name, size_t bytes, size_t *used, GError **error)
{
    const MiRecording *r = program(c);
    const MiNode      *n = reader(r, name);
    Sum                s = { 0 };

    if (!n) {
        g_set_error(error, MI_ERROR, MI_ERROR_MODEL, "%s: the model has no projection with that matrix", name);
        return false;
    }
    s.input = mi_recording_value(r, n->in[0])->base.id;
    s.n = n->weight[0]->shape[1];
    for (guint i = 0; i < c->sums->len; i++)
        if (g_array_index(c->sums, Sum, i).input == s.input) {
            g_hash_table_insert(c->sum_of, (char *)(uintptr_t)n->weight[0]->name, GINT_TO_POINTER(i + 1));
            return true;
        }
    const size_t size = (size_t)s.n * (size_t)(s.n + held_rows(c)) * sizeof(float);
    if (c->sums->len && *used + size > bytes)
        return false;
    s.sum = g_try_malloc0((gsize)s.n * (gsize)s.n * sizeof(float));
    s.magnitudes = g_try_new0(float, (gsize)s.n);
    s.held = g_try_new(float, (gsize)(s.n * held_rows(c)));
    if (!s.sum || !s.magnitudes || (!s.held && held_rows(c))) {
        sum_free(&s);
        g_set_error(error, MI_ERROR, MI_ERROR_NO_MEMORY, "%s: no memory for the sums of %" G_GINT64_FORMAT " inputs", name, s.n);
        return false;
    }
    *used += size;
    g_array_append_val(c->sums, s);
    g_hash_table_insert(c->sum_of, (char *)(uintptr_t)n->weight[0]->name, GINT_TO_POINTER(c->sums->len));
    return true;
}

/* ---- a window -------------------------------------------------------------------------- */

static void hold(const MiCalibration *c, Sum *s, const float *x, int64_t rows)
{
    const int64_t of = held_rows(c);

    for (int64_t i = 0; i < s->n; i++)
        for (int64_t r = 0; r < MIN(rows, of - s->rows); r++)
            s->held[i * of + s->rows + r] = x[r * s->n + i];
    s->rows += MIN(rows, of - s->rows);
}

static bool add(MiCalibration *c, const MiPlaced *p, MiShape shape, MiVal in, Sum *s, GError **error)
{
    const MiVal       base = { mi_recording_value(p->schedule->program, in)->base.id };
    const int64_t     n = mi_side_elements(p, base, shape), rows = n / s->n;
    g_autofree float *x = g_try_new(float, (gsize)n);

    if (!x || n % s->n || mi_recording_value(p->schedule->program, base)->row != s->n) {
        g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED, "a projection reads a part of a value, which is not calibrated");
        return false;
    }
    if (!mi_side_read(&c->side, p, base, x, n, error))
        return false;
    if (c->window % HELD == HELD - 1) {
        hold(c, s, x, rows);
        return true;
    }
    mi_product(&(MiProduct){ .c = s->sum, .ldc = s->n, .a = x, .lda = s->n, .x = x, .ldx = s->n, .nt = rows, .ni = s->n, .nj = s->n,
                             .sign = 1, .upper = true });
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < s->n; i++)
            s->magnitudes[i] += fabsf(x[r * s->n + i]);
    return true;
}

/* The lower triangle, which was not summed. */
static void mirror(void *user, int part, int n_parts)
{
    const Sum *s = user;

    for (int64_t b = 64 * part; b < s->n; b += 64 * n_parts)
        for (int64_t j = 0; j < MIN(b + 64, s->n); j++)
            for (int64_t i = MAX(b, j + 1); i < MIN(b + 64, s->n); i++)
                s->sum[i * s->n + j] = s->sum[j * s->n + i];
}

/* In place of a step's nodes. */
static bool nodes(void *user, MiSchedule *schedule, GError **error)
{
    MiCalibration   *c = user;
    const MiPlaced  *p = mi_side_plain(&c->side, schedule, error);
    const MiShape    shape = schedule->runs->len ? mi_schedule_at(schedule, 0)->call.shape : (MiShape){ 0 };
    g_autofree bool *done = g_new0(bool, c->sums->len);
    guint            left = c->sums->len;

    if (!p)
        return false;
    mi_schedule_shape(p->schedule, shape);
    for (guint i = 0; i < p->schedule->runs->len && left; i++) {
        const MiCall *call = &mi_schedule_at(p->schedule, i)->call;
        for (int k = 0; k < call->n; k++) {
            const MiNode *n = call->at[k].node;
            const int     at = strcmp(n->op, "linear") == 0 && n->weight[0]
                                   ? GPOINTER_TO_INT(g_hash_table_lookup(c->sum_of, n->weight[0]->name)) : 0;
            if (!at || done[at - 1])
                continue;
            if (!add(c, p, shape, n->in[0], &g_array_index(c->sums, Sum, at - 1), error))
                return false;
            done[at - 1] = true;
            left--;
        }
        if (left && !mi_side_run(&c->side, p, i, error))
            return false;
    }
    return true;
}

static bool run(MiCalibration *c, bool (*tell)(int done, int of), GError **error)
{
    MiFlight *f;

    if (!mi_side_open(&c->side, c->a, error))
        return false;
    for (c->window = 0; c->window < c->windows; c->window++) {
        const size_t    first = c->n_ids / (size_t)c->windows * (size_t)c->window;
        const MiRequest r = { .tokens = c->ids + first, .n_tokens = (size_t)c->length, .max_tokens = -1 };
        if (!mi_side_ask(&c->side, &r, error) || !mi_side_step(&c->side, nodes, c, &f, error))
            return false;
        if (!tell(c->window + 1, c->windows)) {
            g_set_error(error, MI_ERROR, MI_ERROR_CONFIG, "stopped; the same command goes on with what is ready");
            return false;
        }
    }
    return true;
}

int mi_calibration_run(MiCalibration *c, const char *const *names, int n, size_t bytes, bool (*tell)(int done, int of),
                       GError **error)
{
    size_t  used = 0;
    int     taken = 0;
    GError *why = NULL;

    forget(c);
    while (taken < n && want(c, names[taken], bytes, &used, &why))
        taken++;
    const bool ok = !why && run(c, tell, &why);
    mi_side_close(&c->side);
    for (guint i = 0; ok && i < c->sums->len; i++)
        mi_on_processors(mirror, &g_array_index(c->sums, Sum, i));
    if (ok)
        return taken;
    g_propagate_error(error, why);
    return 0;
}
