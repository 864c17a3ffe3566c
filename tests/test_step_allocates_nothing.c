/* What runs in every step calls malloc not once: counted in this process, plugins
 * included. */
#include "device.h"
#include <stdlib.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__GLIBC__)
int main(void)
{
    puts("1..0 # SKIP the sanitizer's own malloc cannot be counted");
    return 0;
}
#else
static _Atomic long calls;

void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *malloc(size_t n)
{
    calls++;
    return __libc_malloc(n);
}
void *calloc(size_t n, size_t size)
{
    calls++;
    return __libc_calloc(n, size);
}
void *realloc(void *p, size_t n)
{
    calls++;
    return __libc_realloc(p, n);
}

enum { ROWS = 64, HEADS = 6, KV_HEADS = 2, DIM = 64, WIDTH = HEADS * DIM, VOCAB = 1000, MAX_OPS = 20 };

/* A prepared op, once for many rows. */
typedef struct {
    const MiOp *op;
    void       *state, *workspace;
    MiNode      node;
    MiTensor    in[2], out[2];
    MiOperand   weight[MI_MAX_WEIGHTS];
    MiArgs      at;
    MiCall      call;
} Prepared;

typedef struct {
    Device        *d;
    const MiCache *cache;
    void          *kv;
    MiKvView       view;
    Prepared       ops[MAX_OPS];
    int            n_ops;
    MiSequence     seq;
    int32_t        tokens[2 * ROWS], positions[ROWS], starts[2], out_rows[ROWS];
    MiBatch        batch;
    float         *x, *y, *weights;
} Run;

/* Tensors have all the rows in prepare(), as many as there are in run(). */
static void rows_of(Prepared *p, int rows)
{
    for (int i = 0; i < 2; i++) {
        p->in[i].shape[0] = p->in[i].data && p->in[i].stride[0] ? rows : p->in[i].shape[0];
        p->out[i].shape[0] = rows;
    }
}

static void add(Run *r, const MiOp *op, const char *name, int ndim, const void *attr, size_t attr_size)
{
    g_autoptr(GError) error = NULL;
    Prepared         *p = &r->ops[r->n_ops++];
    size_t            bytes = 0;
    const MiTensor    wide = tensor(r->x, ndim, ROWS, ndim == 3 ? HEADS : WIDTH, DIM);

    *p = (Prepared){ .op = op, .in = { wide, wide }, .out = { wide } };
    p->out[0].data = r->y;
    p->node = (MiNode){ .op = name, .n_in = op->n_in, .n_out = op->n_out, .attr = attr, .attr_size = attr_size };
    p->weight[0] = p->weight[1] = (MiOperand){ .layout = "plain" };
    p->weight[0].tensor = p->weight[1].tensor = tensor(r->weights, 2, VOCAB, WIDTH, 0);
    if (strcmp(name, "rope") == 0)
        p->in[1] = (MiTensor){ r->weights, MI_F32, 2, { 1, DIM / 2 }, { 0, 1 } };
    if (strcmp(name, "kv_append") == 0)
        p->in[0].shape[1] = p->in[1].shape[1] = KV_HEADS, p->out[0] = (MiTensor){ 0 };
    if (strcmp(name, "attention") == 0)
        p->in[1] = (MiTensor){ 0 };
    if (strcmp(name, "logprobs") == 0) {
        p->in[1] = (MiTensor){ r->out_rows, MI_I32, 2, { ROWS, 1 }, { 1, 1 } };
        p->out[0] = tensor(r->y, 2, ROWS, 6, 0);
        p->out[1] = (MiTensor){ r->y + ROWS * 6, MI_I32, 2, { ROWS, 6 }, { 6, 1 } };
    }
    p->at = (MiArgs){ &p->node, p->in, p->out, p->weight, &r->view, NULL };
    p->call = (MiCall){ .shape = { ROWS, 1, ROWS, 2 * ROWS, false }, .at = &p->at, .n = 1 };
    if (MI_HAS(op, prepare) && !op->prepare(&r->d->ctx, &p->call, &p->state, &bytes, &error))
        fail_msg("%s: %s", name, error->message);
    p->workspace = p->call.workspace = g_malloc(bytes);
    p->call.batch = &r->batch;
}

static void step(Run *r, int rows)
{
    GError       *error = NULL;
    MiSequence   *seqs[1] = { &r->seq };
    int32_t       count[1] = { rows };
    const MiShape shape = { rows, 1, rows, 2 * ROWS, rows == 1 };

    r->batch.shape = shape;
    r->starts[1] = rows;
    for (int i = 0; i < rows; i++)
        r->positions[i] = r->seq.n_cached + i;
    assert_true(r->cache->reserve(r->kv, &r->seq, r->seq.n_cached + rows));
    assert_true(r->cache->plan(r->kv, &r->d->ctx, &(MiStep){ shape, seqs, count }, &r->batch, &error));
    for (int i = 0; i < r->n_ops; i++) {
        Prepared *p = &r->ops[i];
        rows_of(p, rows);
        p->call.shape = shape;
        assert_true(p->op->run(p->state, &r->d->ctx, &p->call, &error));
    }
}

static void add_all(Run *r)
{
    static const MiActivation activation = { 0.1f };
    static const MiNorm       norm = { 1e-5f, 0 };
    static const MiRotate     rotate = { DIM, MI_ROPE_HALF, 1 };
    static const MiAttend     attend = { .scale = 0.1f };
    static const MiLogprobs   logprobs = { 5 };
    static const struct { const char *name; const void *attr; size_t size; int ndim; } ops[] = {
        { "embed", NULL, 0, 2 }, { "output_rows", NULL, 0, 2 }, { "add", NULL, 0, 2 }, { "mul", NULL, 0, 2 },
        { "softmax", NULL, 0, 2 }, { "rmsnorm", &norm, sizeof norm, 2 }, { "layernorm", &norm, sizeof norm, 2 },
        { "silu", &activation, sizeof activation, 2 }, { "gelu_erf", &activation, sizeof activation, 2 },
        { "leaky_relu", &activation, sizeof activation, 2 }, { "rope", &rotate, sizeof rotate, 3 },
        { "kv_append", NULL, 0, 3 }, { "logprobs", &logprobs, sizeof logprobs, 2 },
    };
    for (size_t i = 0; i < G_N_ELEMENTS(ops); i++)
        add(r, device_find(r->d, MI_KIND_OP, ops[i].name), ops[i].name, ops[i].ndim, ops[i].attr, ops[i].size);
    for (int a = 0; a < 2; a++) {
        const MiAttention *attention = device_find(r->d, MI_KIND_ATTENTION, a ? "gqa" : "simple");
        add(r, attention->op, "attention", 3, &attend, sizeof attend);
    }
}

static void a_step_calls_no_malloc(void **state)
{
    (void)state;
    g_autoptr(GRand) rand = g_rand_new_with_seed(1);

    for (int c = 0; c < 3; c++) {
        Run               r = { .d = device_open("3"), .seq = { .id = 1, .n_tokens = 2 * ROWS } };
        const MiCacheSpec spec = { 1, KV_HEADS, DIM, 1, 2 * ROWS, 2 * ROWS, MI_F16, 1 << 30 };
        r.cache = device_find(r.d, MI_KIND_CACHE, (const char *[]){ "none", "full", "batch" }[c]);
        r.kv = r.cache->create(&r.d->ctx, &spec, NULL, NULL);
        r.cache->view(r.kv, 0, &r.view);
        r.seq.tokens = r.tokens;
        r.batch =
            (MiBatch){.tokens = r.tokens, .positions = r.positions, .seq_start = r.starts, .out_rows = r.out_rows};
        r.x = random_floats(rand, ROWS * VOCAB, -1, 1), r.y = g_new(float, ROWS * VOCAB);
        r.weights = random_floats(rand, VOCAB * WIDTH, -1, 1);
        add_all(&r);
        step(&r, 1); /* whatever is done once is done now */
        const long before = calls;
        step(&r, ROWS);
        if (!r.cache->recomputes)
            r.seq.n_cached = ROWS;
        for (int i = 0; i < 50; i++, r.seq.n_cached += !r.cache->recomputes)
            step(&r, 1);
        assert_int_equal(calls - before, 0);
        void *volatile p = malloc(10); /* they are counted */
        free(p);
        assert_true(calls > before);

        for (int i = 0; i < r.n_ops; i++) {
            if (MI_HAS(r.ops[i].op, release))
                r.ops[i].op->release(r.ops[i].state);
            g_free(r.ops[i].workspace);
        }
        r.cache->destroy(r.kv);
        g_free(r.x), g_free(r.y), g_free(r.weights);
        device_close(r.d);
    }
}

TEST_MAIN(cmocka_unit_test(a_step_calls_no_malloc));
#endif
