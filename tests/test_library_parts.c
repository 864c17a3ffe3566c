/* Single operations and attentions through libminiinfer, against plain loops in double. */
#include "library.h"

#include <math.h>

/* ---- parts -------------------------------------------------------------------------------------------- */
static void near(double got, double want)
{
    if (!(fabs(got - want) <= 2e-6 * fmax(1, fabs(want))))
        fail_msg("%.9g instead of %.9g", got, want);
}

static double number(int i) { return fmod(i * 0.7390851332, 4) - 2; }

static double silu(double x) { return x / (1 + exp(-x)); }
static double gelu(double x) { return 0.5 * x * (1 + erf(x / sqrt(2))); }
static double leaky(double x) { return x < 0 ? 0.1 * x : x; }
static double relu(double x) { return fmax(x, 0); }

static void activations(void **state)
{
    (void)state;
    static const struct { const char *name; double (*f)(double); MiniinferPair params[2]; } cases[] = {
        { "silu", silu, { { 0 } } }, { "gelu", gelu, { { 0 } } }, { "tanh", tanh, { { 0 } } }, { "relu", relu, { { 0 } } },
        { "leaky_relu", leaky, { { "negative_slope", "0.1" }, { 0 } } },
    };
    enum { ROWS = 300, COLUMNS = 131 };
    static float   x[ROWS * COLUMNS], y[ROWS * COLUMNS];
    MiniinferError error;
    Miniinfer     *mi = opened(NULL);

    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        for (int i = 0; i < ROWS * COLUMNS; i++)
            x[i] = (float)number(i);
        fine(miniinfer_activation(mi, cases[c].name, cases[c].params, x, y, ROWS, COLUMNS, &error), &error);
        for (int i = 0; i < ROWS * COLUMNS; i++)
            near((double)y[i], cases[c].f((double)x[i]));
        fine(miniinfer_activation(mi, cases[c].name, cases[c].params, x, x, ROWS, COLUMNS, &error), &error); /* in place */
        assert_memory_equal(x, y, sizeof x);
    }
    fine(miniinfer_activation(mi, "relu", NULL, x, y, 1, 1, &error), &error);
    miniinfer_close(mi);
}

static void operations_on_rows(void **state)
{
    (void)state;
    enum { ROWS = 5, COLUMNS = 37 };
    float          a[ROWS * COLUMNS], b[ROWS * COLUMNS], w[COLUMNS], y[ROWS * COLUMNS];
    MiniinferError error;
    Miniinfer     *mi = opened(NULL);
    MiniinferRows  r = { .struct_size = sizeof r, .in = { a, b }, .out = y, .rows = ROWS, .columns = COLUMNS };

    for (int i = 0; i < ROWS * COLUMNS; i++)
        a[i] = (float)number(i), b[i] = (float)number(7 * i + 3), w[i % COLUMNS] = (float)number(i % COLUMNS + 11);
    fine(miniinfer_op(mi, "mul", NULL, &r, &error), &error);
    for (int i = 0; i < ROWS * COLUMNS; i++)
        near((double)y[i], (double)a[i] * (double)b[i]);
    r.in[1] = NULL;
    fine(miniinfer_op(mi, "softmax", NULL, &r, &error), &error);
    for (int i = 0; i < ROWS; i++) {
        double sum = 0;
        for (int k = 0; k < COLUMNS; k++)
            sum += exp((double)a[i * COLUMNS + k]);
        for (int k = 0; k < COLUMNS; k++)
            near((double)y[i * COLUMNS + k], exp((double)a[i * COLUMNS + k]) / sum);
    }
    r.weight[0] = w;
    fine(miniinfer_op(mi, "rmsnorm", (MiniinferPair[]){ { "eps", "0.5" }, { 0 } }, &r, &error), &error);
    for (int i = 0; i < ROWS; i++) {
        double squares = 0;
        for (int k = 0; k < COLUMNS; k++)
            squares += (double)a[i * COLUMNS + k] * (double)a[i * COLUMNS + k];
        for (int k = 0; k < COLUMNS; k++)
            near((double)y[i * COLUMNS + k], (double)a[i * COLUMNS + k] * (double)w[k] / sqrt(squares / COLUMNS + 0.5));
    }
    miniinfer_close(mi);
}

enum { MAX_FLOATS = 40 * 6 * 64 };
typedef struct { float q[MAX_FLOATS], k[MAX_FLOATS], v[MAX_FLOATS], out[MAX_FLOATS]; } Arrays;

static MiniinferAttention filled(Arrays *x, int queries, int keys, int heads, int kv_heads, int dim)
{
    for (int i = 0; i < MAX_FLOATS; i++)
        x->q[i] = (float)number(i), x->k[i] = (float)number(3 * i + 1), x->v[i] = (float)number(5 * i + 2);
    return (MiniinferAttention){ .struct_size = sizeof(MiniinferAttention), .q = x->q, .k = x->k, .v = x->v, .out = x->out,
                                 .n_queries = queries, .n_keys = keys, .n_heads = heads, .n_kv_heads = kv_heads,
                                 .head_dim = dim };
}

static double wanted(const MiniinferAttention *a, int query, int head, int element)
{
    const int    position = a->n_keys - a->n_queries + query, kv = head / (a->n_heads / a->n_kv_heads), dim = a->head_dim;
    const double scale = a->scale > 0 ? (double)a->scale : 1 / sqrt(dim);
    double       sum = 0, out = 0;

    for (int t = 0; t < a->n_keys; t++) {
        double score = 0;
        if (a->causal && (t > position || (a->window && t <= position - a->window)))
            continue;
        for (int d = 0; d < dim; d++)
            score += (double)a->q[(query * a->n_heads + head) * dim + d] * (double)a->k[(t * a->n_kv_heads + kv) * dim + d];
        score *= scale;
        if (a->softcap > 0)
            score = (double)a->softcap * tanh(score / (double)a->softcap);
        sum += exp(score);
        out += exp(score) * (double)a->v[(t * a->n_kv_heads + kv) * dim + element];
    }
    return out / sum;
}

static void attentions(void **state)
{
    (void)state;
    static const char *const names[] = { "gqa", "simple" };
    static Arrays  x;
    MiniinferError error;
    Miniinfer     *mi = opened(NULL);

    for (int c = 0; c < 7; c++) {
        MiniinferAttention a = c == 0 ? filled(&x, 1, 40, 6, 2, 64) : filled(&x, 1 + 9 * c % 17, 30, 6, c % 2 ? 3 : 6, 20);
        a.causal = c != 3;
        a.scale = c == 4 ? 0.1f : 0;
        a.softcap = c == 5 ? 3 : 0;
        a.window = c == 6 ? 4 : 0;
        for (int n = 0; n < 2; n++) {
            memset(x.out, 0xff, sizeof x.out);
            fine(miniinfer_attention(mi, names[n], &a, &error), &error);
            for (int i = 0; i < a.n_queries * a.n_heads * a.head_dim; i++)
                near((double)x.out[i], wanted(&a, i / (a.n_heads * a.head_dim), i / a.head_dim % a.n_heads, i % a.head_dim));
        }
    }
    miniinfer_close(mi);
}

static void unknown_parts_and_wrong_shapes(void **state)
{
    (void)state;
    static Arrays  x;
    float          one[4] = { 1, 2, 3, 4 }, y[4];
    MiniinferError error;
    Miniinfer     *mi = opened(NULL);

    refused(miniinfer_activation(mi, "leaky_rely", NULL, one, y, 1, 4, &error), &error, MINIINFER_ERROR_PLUGIN,
            "did you mean leaky_relu?");
    refused(miniinfer_activation(mi, "leaky_relu", (MiniinferPair[]){ { "slope", "1" }, { 0 } }, one, y, 1, 4, &error), &error,
            MINIINFER_ERROR_CONFIG, "negative_slope");
    refused(miniinfer_activation(mi, "leaky_relu", (MiniinferPair[]){ { "negative_slope", "x" }, { 0 } }, one, y, 1, 4, &error),
            &error, MINIINFER_ERROR_CONFIG, "negative_slope = 'x'");
    refused(miniinfer_activation(mi, "silu", NULL, one, NULL, 1, 4, &error), &error, MINIINFER_ERROR_MISUSE, "output");
    refused(miniinfer_activation(mi, NULL, NULL, one, y, 1, 4, &error), &error, MINIINFER_ERROR_MISUSE, "name");
    refused(miniinfer_activation(mi, "silu", NULL, NULL, y, 1, 4, &error), &error, MINIINFER_ERROR_MISUSE, "takes 1 inputs");
    refused(miniinfer_activation(mi, "add", NULL, one, y, 1, 4, &error), &error, MINIINFER_ERROR_MISUSE, "takes 2 inputs");
    refused(miniinfer_activation(mi, "rmsnorm", NULL, one, y, 1, 4, &error), &error, MINIINFER_ERROR_MISUSE, "1 weights");
    for (int i = 0; i < 3; i++)
        refused(miniinfer_activation(mi, "silu", NULL, one, y, (int64_t[]){ 0, -1, INT64_MAX }[i], 4, &error), &error,
                MINIINFER_ERROR_MISUSE, "x 4 x 1 elements");
    static const char *const steps[] = { "kv_append", "embed", "logprobs", "rope" };
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        const MiniinferRows r = { .struct_size = sizeof r, .in = { one, one }, .out = y, .rows = 1, .columns = 4 };
        refused(miniinfer_op(mi, steps[i], NULL, &r, &error), &error, MINIINFER_ERROR_UNSUPPORTED, steps[i]);
    }
    MiniinferAttention a = filled(&x, 4, 8, 4, 2, 16);
    refused(miniinfer_attention(mi, "gqb", &a, &error), &error, MINIINFER_ERROR_PLUGIN, "did you mean gqa?");
    a.n_kv_heads = 3;
    refused(miniinfer_attention(mi, "gqa", &a, &error), &error, MINIINFER_ERROR_MISUSE, "multiple");
    a.n_kv_heads = 0;
    refused(miniinfer_attention(mi, "gqa", &a, &error), &error, MINIINFER_ERROR_MISUSE, "multiple");
    a.n_kv_heads = 2, a.causal = true, a.n_queries = 9;
    refused(miniinfer_attention(mi, "gqa", &a, &error), &error, MINIINFER_ERROR_MISUSE, "more causal queries");
    a.n_queries = 4, a.head_dim = 0;
    refused(miniinfer_attention(mi, "gqa", &a, &error), &error, MINIINFER_ERROR_MISUSE, "elements");
    a.head_dim = 16, a.scale = NAN;
    refused(miniinfer_attention(mi, "gqa", &a, &error), &error, MINIINFER_ERROR_MISUSE, "scale");
    a.scale = 0, a.head_dim = 2048; /* more than the attention can */
    refused(miniinfer_attention(mi, "gqa", &a, &error), &error, MINIINFER_ERROR_UNSUPPORTED, "gqa");
    a.head_dim = 16, a.v = NULL;
    refused(miniinfer_attention(mi, "gqa", &a, &error), &error, MINIINFER_ERROR_MISUSE, "q, k, v");
    refused(miniinfer_parts(mi, "atention", NULL, NULL, &error), &error, MINIINFER_ERROR_CONFIG, "atention");
    fine(miniinfer_activation(mi, "relu", NULL, one, y, 1, 4, &error), &error); /* after all that */
    miniinfer_close(mi);
    mi = miniinfer_open(NULL, (MiniinferPair[]){ { "engine.device", "cpu:7" }, { NULL, NULL } }, &error);
    fine(mi, &error);
    for (int i = 0; i < 2; i++)
        refused(miniinfer_activation(mi, "relu", NULL, one, y, 1, 4, &error), &error, MINIINFER_ERROR_DEVICE, "cpu:7");
    miniinfer_close(mi);
}

static void count(void *user, const char *name)
{
    *(int *)user += strcmp(name, "attention:gqa@cpu") == 0 ? 100 : 1;
}

/* Parts beside a model that answers: each on its own device. */
static void parts_while_the_engine_runs(void **state)
{
    (void)state;
    Miniinfer             *mi = loaded("silu", "1");
    const MiniinferRequest r = asked_long(1), other = asked(2, TOKENS);
    MiniinferAnswer       *a = miniinfer_submit(mi, &r, NULL);
    float                  x[3] = { -1, 0, 1 };
    MiniinferError         error;
    int                    n = 0;

    for (int i = 0; i < 50; i++)
        fine(miniinfer_activation(mi, "relu", NULL, x, x, 1, 3, &error), &error);
    assert_true(x[0] == 0 && x[1] == 0 && x[2] == 1);
    miniinfer_release(a);
    const Said s = answer(mi, &other);
    same(&s, alone("silu", 2));
    fine(miniinfer_parts(mi, "attention", count, &n, &error), &error);
    assert_in_range(n, 101, 120);
    fine(miniinfer_parts(mi, NULL, count, &n, &error), &error);
    assert_in_range(n, 221, 600);
    miniinfer_close(mi);
}

LIBRARY_MAIN(cmocka_unit_test(activations), cmocka_unit_test(operations_on_rows), cmocka_unit_test(attentions),
             cmocka_unit_test(unknown_parts_and_wrong_shapes), cmocka_unit_test(parts_while_the_engine_runs));
