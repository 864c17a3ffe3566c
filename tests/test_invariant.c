/* test_invariant.c - the operations and links that promise the same bits in every batch, each of them: all rows at once, on
 * several threads, and every row again alone and in pieces of a few. */
#include "device.h"
#include "invariant.h"

enum { ROWS = 133, COLUMNS = 301, HEADS = 7, HEAD = 43 };

typedef struct {
    Device    *d;
    const MiOp *op;
    MiNode     node;
    float     *in[2], *out; /* [ROWS][COLUMNS] */
    MiOperand  weight[MI_MAX_WEIGHTS];
    bool       heads; /* a row is [HEADS][HEAD] */
} Case;

static MiTensor rows_of(const Case *c, float *data, int first, int n)
{
    float   *at = data + first * COLUMNS;
    MiTensor t = c->heads ? tensor(at, 3, n, HEADS, HEAD) : tensor(at, 2, n, COLUMNS, 0);
    t.stride[0] = COLUMNS;
    return t;
}

/* Rows [first, first + n). */
static void run(const Case *c, const MiTensor *turns, int first, int n)
{
    int32_t        positions[ROWS];
    MiBatch        batch = { .shape = { n, 1, n, ROWS, false }, .positions = positions };
    const MiTensor in[2] = { rows_of(c, c->in[0], first, n), turns ? *turns : rows_of(c, c->in[1], first, n) };
    MiTensor       out = rows_of(c, c->out, first, n);
    const MiArgs   args = { .node = &c->node, .in = in, .out = &out, .weight = c->weight };

    for (int i = 0; i < n; i++)
        positions[i] = 1000 + 7 * (first + i);
    device_run(c->d, c->op, &(MiCall){ .shape = batch.shape, .batch = &batch, .at = &args, .n = 1 });
}

static void keeps_its_bits(const Case *c, const MiTensor *turns)
{
    static const int  pieces[] = { 1, 2, 3, 5, 16, 64, 100 };
    const size_t      bytes = ROWS * COLUMNS * sizeof(float);
    g_autofree float *want = g_malloc(bytes);

    memset(c->out, 0, bytes);
    run(c, turns, 0, ROWS);
    memcpy(want, c->out, bytes);
    for (size_t k = 0; k < G_N_ELEMENTS(pieces); k++) {
        memset(c->out, 0, bytes);
        for (int first = 0; first < ROWS; first += pieces[k])
            run(c, turns, first, MIN(pieces[k], ROWS - first));
        for (int r = 0; r < ROWS; r++)
            if (memcmp(c->out + r * COLUMNS, want + r * COLUMNS, COLUMNS * sizeof(float)) != 0)
                fail_msg("op '%s': row %d has other bits in pieces of %d rows", c->node.op, r, pieces[k]);
    }
}

/* Those that compute; embed, output_rows and kv_append copy or round elements alone, logprobs is in test_determinism.c. */
static void operations_keep_their_bits(void **state)
{
    static const char *const names[] = { "silu", "sigmoid", "tanh", "gelu_tanh", "gelu_erf", "relu", "leaky_relu", "add",
                                         "mul", "rmsnorm", "layernorm", "softmax", "rope" };
    (void)state;
    g_autoptr(GRand)   rand = g_rand_new_with_seed(3);
    g_autofree float  *a = random_floats(rand, ROWS * COLUMNS, -3, 3), *b = random_floats(rand, ROWS * COLUMNS, -3, 3);
    g_autofree float  *y = g_new(float, ROWS * COLUMNS), *w = random_floats(rand, COLUMNS, -2, 2);
    g_autofree float  *freqs = random_floats(rand, HEAD, 0, 1);
    const MiActivation slope = { 0.1f };
    const MiNorm       norm = { 1e-5f, 0 };
    const MiRotate     rotate = { 32, MI_ROPE_HALF, 1.5f };
    const MiTensor     turns = tensor(freqs, 2, 1, 16, 0);
    Device            *d = device_open("3");

    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        Case c = { .d = d, .op = device_find(d, MI_KIND_OP, names[i]), .in = { a, b }, .out = y };
        c.node = (MiNode){ .op = names[i], .n_in = c.op->n_in, .n_out = 1, .attr_size = c.op->attr_size };
        const bool rope = strcmp(names[i], "rope") == 0;
        c.node.attr = rope ? (const void *)&rotate : c.op->n_weights ? (const void *)&norm : &slope;
        assert_true(c.op->attr_size == 0 || rope || c.op->attr_size == (c.op->n_weights ? sizeof norm : sizeof slope));
        for (int k = 0; k < 2; k++)
            c.weight[k] = (MiOperand){ .tensor = tensor(w, 1, COLUMNS, 0, 0), .layout = "plain" };
        assert_true(mi_op_invariant(c.op));
        for (int heads = rope; heads < 2; heads++) {
            c.heads = heads;
            for (int k = 0; k < 2; k++)
                c.weight[k].tensor.shape[0] = heads ? HEAD : COLUMNS;
            keeps_its_bits(&c, rope ? &turns : NULL);
        }
    }
    device_close(d);
}

/* What says nothing is not taken at its word: a table of an older header ends before the member. */
static void nobody_promises_by_being_silent(void **state)
{
    const MiOp silent = { .struct_size = sizeof silent };
    const MiOp old = { .struct_size = offsetof(MiOp, batch_invariant), .batch_invariant = true };
    const MiOp promises = { .struct_size = sizeof promises, .batch_invariant = true };

    (void)state;
    assert_true(!mi_op_invariant(&silent) && !mi_op_invariant(&old) && !mi_op_invariant(NULL));
    assert_true(mi_op_invariant(&promises));
}

/* Every one of ours for processors; a new one that does not is to say so here. */
static void all_of_the_processors_parts_promise_it(void **state)
{
    static const MiKind kinds[] = { MI_KIND_OP, MI_KIND_FUSION, MI_KIND_LINEAR, MI_KIND_ATTENTION, MI_KIND_SAMPLER };
    MiRegistry         *r = load(NULL);

    (void)state;
    for (size_t k = 0; k < G_N_ELEMENTS(kinds); k++) {
        g_autoptr(GPtrArray) all = mi_registry_list(r, kinds[k], "cpu");
        assert_true(all->len > 0);
        for (guint i = 0; i < all->len; i++)
            if (!mi_feature_invariant(all->pdata[i]))
                fail_msg("%s:%s promises nothing", mi_kind_name(kinds[k]), ((const MiFeature *)all->pdata[i])->name);
    }
    mi_registry_free(r);
}

TEST_MAIN(cmocka_unit_test(operations_keep_their_bits), cmocka_unit_test(nobody_promises_by_being_silent),
          cmocka_unit_test(all_of_the_processors_parts_promise_it));
