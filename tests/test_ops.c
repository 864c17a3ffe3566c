#include "device.h"
#include "scaled.h"
#include <cpu/blocks.h>
#include <cpu/floats.h>

static int setup(void **state)
{
    *state = device_open("3");
    return 0;
}

static int teardown(void **state)
{
    device_close(*state);
    return 0;
}

static void apply(Device *d, const char *name, MiArgs args, const MiNode *given, const MiBatch *batch)
{
    const MiOp *op = device_find(d, MI_KIND_OP, name);
    MiNode      node = *given;

    node.op = name;
    node.n_in = op->n_in, node.n_out = op->n_out;
    args.node = &node;
    assert_int_equal(op->attr_size, node.attr_size);
    device_run(d, op, &(MiCall){ .batch = batch, .at = &args, .n = 1 });
}

/* ---- activations -------------------------------------------------------------- */

static double slope;
static double want_silu(double x) { return x / (1 + exp(-x)); }
static double want_sigmoid(double x) { return 1 / (1 + exp(-x)); }
static double want_gelu_tanh(double x) { return x / (1 + exp(-2 * sqrt(2 / G_PI) * (x + 0.044715 * x * x * x))); }
static double want_gelu_erf(double x) { return 0.5 * x * erfc(-x / sqrt(2)); }
static double want_relu(double x) { return x > 0 ? x : 0; }
static double want_leaky(double x) { return x > 0 ? x : slope * x; }

static const struct { const char *name; double (*want)(double); } activations[] = {
    { "silu", want_silu }, { "sigmoid", want_sigmoid }, { "gelu_tanh", want_gelu_tanh }, { "gelu_erf", want_gelu_erf },
    { "relu", want_relu }, { "leaky_relu", want_leaky }, { "tanh", tanh },
};

/* Relative error, but where a value is below 1e-4 its absolute one counts. */
static void activation(Device *d, size_t which, MiTensor in, MiTensor out)
{
    const MiActivation attr = { (float)slope };
    const MiNode       node = { .attr = &attr, .attr_size = sizeof attr };
    const int64_t      inner = in.ndim == 3 ? in.shape[2] : 1;
    g_autofree double *want = g_new(double, in.shape[0] * in.shape[1] * inner);
    int64_t            k = 0;

    for (int pass = 0; pass < 2; pass++) { /* what is wanted is computed first: out may be in */
        k = 0;
        for (int64_t r = 0; r < in.shape[0]; r++)
            for (int64_t i = 0; i < in.shape[1]; i++)
                for (int64_t j = 0; j < inner; j++, k++) {
                    const float *x = (float *)in.data + r * in.stride[0] + i * in.stride[1] + j;
                    const float *y = (float *)out.data + r * out.stride[0] + i * out.stride[1] + j;
                    if (pass == 0)
                        want[k] = activations[which].want(*x);
                    else
                        assert_near(*y, want[k], 2e-6, 1e-4);
                }
        if (pass == 0)
            apply(d, activations[which].name, (MiArgs){ .in = &in, .out = &out }, &node, NULL);
    }
}

static void activations_are_what_they_are_called(void **state)
{
    g_autoptr(GRand)  rand = g_rand_new_with_seed(1);
    g_autofree float *x = random_floats(rand, 300 * 512, -12, 12), *y = g_new0(float, 300 * 512);
    const float special[] = {0, 1e-30f, -1e-30f, 1e-4f, -1e-4f, 0.62f, 0.63f, -0.62f, -0.63f, 20, -20, 60, -60, 1e4f};

    memcpy(x, special, sizeof special);
    for (size_t i = 0; i < G_N_ELEMENTS(activations); i++)
        for (int s = 0; s < 3; s++) {
            slope = (const double[]){ 0.01f, 0.25f, 0 }[s];
            MiTensor all = tensor(x, 2, 300, 512, 0), to = tensor(y, 2, 300, 512, 0);
            MiTensor one = tensor(x, 2, 1, 512, 0), part = all, heads = tensor(x, 3, 7, 5, 13), heads_to = heads;
            activation(*state, i, all, to);
            part.shape[1] = 101, part.data = x + 7; /* columns 7 to 108 */
            to.shape[1] = 101, to.data = y + 3;
            activation(*state, i, part, to);
            heads.stride[0] = 512, heads.stride[1] = 30; /* 13 of 30 in each of 5 heads */
            heads_to.data = y;
            activation(*state, i, heads, heads_to);
            activation(*state, i, one, tensor(y, 2, 1, 512, 0));
            g_autofree float *copy = g_memdup2(x, 300 * 512 * sizeof *x);
            MiTensor          place = tensor(copy, 2, 300, 512, 0);
            activation(*state, i, place, place);
        }
}

static void two_are_added_and_multiplied(void **state)
{
    g_autoptr(GRand)  rand = g_rand_new_with_seed(2);
    g_autofree float *a = random_floats(rand, 200 * 300, -2, 2), *b = random_floats(rand, 200 * 300, -2, 2),
                     *y = g_new0(float, 200 * 300);
    MiTensor          in[2] = { tensor(a, 2, 200, 150, 0), tensor(b + 11, 2, 200, 150, 0) };
    MiTensor          out = tensor(y, 2, 200, 150, 0);

    in[0].stride[0] = 300, in[1].stride[0] = 200; /* halves of wider rows */
    for (int mul = 0; mul < 2; mul++) {
        apply(*state, mul ? "mul" : "add", (MiArgs){ .in = in, .out = &out }, &(MiNode){ 0 }, NULL);
        for (int r = 0; r < 200; r++)
            for (int i = 0; i < 150; i++) {
                const float u = a[r * 300 + i], v = b[11 + r * 200 + i];
                assert_true(y[r * 150 + i] == (mul ? u * v : u + v));
            }
    }
    g_autofree float *copy = g_memdup2(a, 200 * 300 * sizeof *a);
    in[0].data = copy;
    apply(*state, "add", (MiArgs){ .in = in, .out = &in[0] }, &(MiNode){ 0 }, NULL);
    for (int r = 0; r < 200; r++)
        for (int i = 0; i < 300; i++) /* what is no part of the view stays */
            assert_true(copy[r * 300 + i] == a[r * 300 + i] + (i < 150 ? b[11 + r * 200 + i] : 0));
}

/* ---- norms --------------------------------------------------------------------- */

static void norm(Device *d, const char *name, MiTensor x, float *y, const float *w, const float *b, MiNorm attr)
{
    const bool      centred = strcmp(name, "layernorm") == 0, soft = strcmp(name, "softmax") == 0;
    const int       n = (int)x.shape[x.ndim - 1], parts = x.ndim == 3 ? (int)x.shape[1] : 1;
    const MiTensor  out = tensor(y, x.ndim, x.shape[0], x.shape[1], x.shape[2]);
    const MiOperand weights[MI_MAX_WEIGHTS] = {{.tensor = {.data = (void *)(uintptr_t)w, .ndim = 1, .shape = {n}}},
                                               {.tensor = {.data = (void *)(uintptr_t)b, .ndim = 1, .shape = {n}}}};
    const MiNode    node = { .attr = soft ? NULL : &attr, .attr_size = soft ? 0 : sizeof attr };

    apply(d, name, (MiArgs){ .in = &x, .out = &out, .weight = weights }, &node, NULL);
    for (int64_t r = 0; r < x.shape[0]; r++)
        for (int p = 0; p < parts; p++) {
            const float *v = (float *)x.data + r * x.stride[0] + (parts > 1 ? p * x.stride[1] : 0);
            double       mean = 0, square = 0, sum = 0;
            for (int i = 0; i < n && centred; i++)
                mean += v[i] / (double)n;
            for (int i = 0; i < n; i++)
                square += (v[i] - mean) * (v[i] - mean) / n, sum += exp(v[i]);
            for (int i = 0; i < n; i++) {
                const double normed = (v[i] - mean) / sqrt(square + attr.eps) * (attr.offset + w[i]);
                assert_near(y[(r * parts + p) * n + i], soft ? exp(v[i]) / sum : normed + (centred && b ? b[i] : 0),
                            4e-6, soft ? 0 : 0.1);
            }
        }
}

static void norms_are_over_the_last_dimension(void **state)
{
    g_autoptr(GRand)  rand = g_rand_new_with_seed(3);
    g_autofree float *x = random_floats(rand, 100 * 960, -3, 5), *y = g_new0(float, 100 * 960);
    g_autofree float *w = random_floats(rand, 960, 0.5, 2), *b = random_floats(rand, 960, -1, 1);
    MiTensor          heads = tensor(x, 3, 100, 15, 64), view = tensor(x + 5, 3, 50, 3, 17);

    view.stride[0] = 960, view.stride[1] = 100;
    for (int i = 0; i < 3; i++) {
        const char *name = (const char *[]){ "rmsnorm", "layernorm", "softmax" }[i];
        norm(*state, name, tensor(x, 2, 100, 960, 0), y, w, b, (MiNorm){ 1e-5f, 0 });
        norm(*state, name, tensor(x, 2, 1, 577, 0), y, w, NULL, (MiNorm){ 1e-3f, 1 });
        norm(*state, name, heads, y, w, b, (MiNorm){ 1e-6f, 0 });
        norm(*state, name, view, y, w, NULL, (MiNorm){ 1e-6f, 0 });
    }
}

/* ---- rows ------------------------------------------------------------------------ */

enum { VOCAB = 50, WIDTH = 64 };

static void embeddings_are_rows_of_the_table(void **state)
{
    g_autoptr(GRand)  rand = g_rand_new_with_seed(4);
    g_autofree float *x = random_floats(rand, VOCAB * WIDTH, -2, 2), *y = g_new0(float, 600 * WIDTH);
    g_autofree uint16_t *half = g_new(uint16_t, VOCAB * WIDTH), *brain = g_new(uint16_t, VOCAB * WIDTH);
    const char *const stored[] = { "plain", "plain", "plain", "f32", "q8_0" };
    const MiDType     dtypes[] = { MI_F32, MI_F16, MI_BF16, MI_F32, MI_F32 };
    g_autofree uint8_t *q8 = g_malloc0(VOCAB * WIDTH / 32 * 34);
    int32_t           tokens[600], drawn[4] = { 3, 49, 0, 7 };
    const MiBatch     batch = { .tokens = tokens, .drawn = drawn };

    for (int i = 0; i < VOCAB * WIDTH; i++)
        half[i] = mi_f32_to_f16(x[i]), brain[i] = mi_f32_to_bf16(x[i]);
    for (int i = 0; i < VOCAB * WIDTH / 32; i++) { /* a scale of 1/4, then 32 bytes */
        ((uint16_t *)(void *)(q8 + i * 34))[0] = mi_f32_to_f16(0.25f);
        for (int j = 0; j < 32; j++)
            q8[i * 34 + 2 + j] = (uint8_t)(int8_t)(i + j - 60);
    }
    for (int i = 0; i < 600; i++)
        tokens[i] = i % 5 == 4 ? -1 - i % 4 : g_rand_int_range(rand, 0, VOCAB);
    for (size_t f = 0; f < G_N_ELEMENTS(stored); f++) {
        void *const     data[] = { x, half, brain, x, q8 };
        const MiTensor  out = tensor(y, 2, 600, WIDTH, 0);
        const MiOperand w[MI_MAX_WEIGHTS] = { { .tensor = { data[f], dtypes[f], 2, { VOCAB, WIDTH }, { WIDTH, 1 } },
                                                .layout = stored[f] } };
        if (!mi_block_format("f16") && f)
            break;
        apply(*state, "embed", (MiArgs){ .out = &out, .weight = w }, &(MiNode){ 0 }, &batch);
        for (int r = 0; r < 600; r++)
            for (int i = 0; i < WIDTH; i++) {
                const int   at = (tokens[r] < 0 ? drawn[-1 - tokens[r]] : tokens[r]) * WIDTH + i;
                const float want[] = { x[at], mi_f16_to_f32(half[at]), mi_bf16_to_f32(brain[at]), x[at],
                                       0.25f * (int8_t)(at / 32 + at % 32 - 60) };
                assert_true(y[r * WIDTH + i] == want[f]);
            }
    }
}

static void output_rows_are_picked(void **state)
{
    g_autoptr(GRand)  rand = g_rand_new_with_seed(5);
    g_autofree float *x = random_floats(rand, 40 * 2048, -2, 2), *y = g_new0(float, 30 * 2048);
    int32_t           rows[30];
    MiTensor          in = tensor(x, 2, 40, 1024, 0), out = tensor(y, 2, 30, 1024, 0);

    in.stride[0] = 2048;
    for (int i = 0; i < 30; i++)
        rows[i] = (i * 7) % 40;
    apply(*state, "output_rows", (MiArgs){ .in = &in, .out = &out }, &(MiNode){ 0 }, &(MiBatch){ .out_rows = rows });
    for (int i = 0; i < 30; i++)
        assert_memory_equal(y + i * 1024, x + rows[i] * 2048, 1024 * sizeof *x);
}

static void rope_turns_pairs(void **state)
{
    enum { ROWS = 90, HEADS = 6, DIM = 80 };
    g_autoptr(GRand)  rand = g_rand_new_with_seed(6);
    g_autofree float *x = random_floats(rand, ROWS * HEADS * DIM * 2, -2, 2), *y = g_new0(float, ROWS *HEADS *DIM * 2);
    float             freqs[DIM / 2];
    int32_t           positions[ROWS];

    for (int i = 0; i < ROWS; i++)
        positions[i] = i < 60 ? i : 37 * i * i; /* to 293,000 */
    for (int part = 0; part < 3; part++)
        for (int style = 0; style < 2; style++) {
            const int      dim = (const int[]){ DIM, 20, 6 }[part];
            const MiRotate r = { dim, style ? MI_ROPE_INTERLEAVED : MI_ROPE_HALF, part ? 1 : 1.5f };
            MiTensor       in[2] = { tensor(x, 3, ROWS, HEADS, DIM), tensor(freqs, 2, 1, dim / 2, 0) };
            MiTensor       out = tensor(y, 3, ROWS, HEADS, DIM);
            const MiNode   node = { .attr = &r, .attr_size = sizeof r };

            for (int i = 0; i < dim / 2; i++)
                freqs[i] = (float)pow(10000, -2.0 * i / dim);
            in[0].stride[0] *= 2; /* half of wider rows */
            g_autofree float *before = g_memdup2(x, ROWS * HEADS * DIM * 2 * sizeof *x);
            if (part == 1)
                out = in[0];
            apply(*state, "rope", (MiArgs){ .in = in, .out = &out }, &node, &(MiBatch){ .positions = positions });
            for (int row = 0; row < ROWS; row++)
                for (int h = 0; h < HEADS; h++) {
                    const float *from = before + row * in[0].stride[0] + h * DIM;
                    const float *to = (float *)out.data + row * out.stride[0] + h * DIM;
                    for (int i = 0; i < dim / 2; i++) {
                        const int    a = style ? 2 * i : i, b = style ? 2 * i + 1 : i + dim / 2;
                        const double turned = (float)positions[row] * freqs[i]; /* the angle itself is a float */
                        assert_near(to[a], r.magnitude * (from[a] * cos(turned) - from[b] * sin(turned)), 1e-6, 2);
                        assert_near(to[b], r.magnitude * (from[a] * sin(turned) + from[b] * cos(turned)), 1e-6, 2);
                    }
                    assert_memory_equal(to + dim, from + dim, (size_t)(DIM - dim) * sizeof *to);
                }
        }
}

static void rows_go_to_their_slots(void **state)
{
    enum { ROWS = 70, HEADS = 3, DIM = 20, BLOCK = 16, BLOCKS = 8 };
    g_autoptr(GRand)  rand = g_rand_new_with_seed(7);
    g_autofree float *k = random_floats(rand, ROWS * HEADS * DIM, -2, 2),
                     *v = random_floats(rand, ROWS * HEADS * DIM, -2, 2);
    g_autofree char  *ck = g_malloc(BLOCKS * BLOCK * HEADS * DIM * 4), *cv = g_malloc(BLOCKS * BLOCK * HEADS * DIM * 4);
    int32_t           slots[ROWS], row_of[BLOCKS * BLOCK];
    const MiTensor    in[2] = { tensor(k, 3, ROWS, HEADS, DIM), tensor(v, 3, ROWS, HEADS, DIM) }, out = { 0 };

    memset(row_of, -1, sizeof row_of);
    for (int i = 0; i < ROWS; i++)
        slots[i] = i % 9 == 8 ? -1 : (i * 29) % (BLOCK * BLOCKS);
    for (int i = 0; i < ROWS; i++)
        if (slots[i] >= 0)
            row_of[slots[i]] = i;
    memset(k + DIM, 0, DIM * sizeof *k); /* a head of zeros, and one of which most is next to nothing */
    for (int d = 1; d < DIM; d++)
        v[d] *= 1e-5f;
    for (MiDType t = MI_F32; t <= MI_I8; t++) {
        static struct { float shift[HEADS * DIM]; uint16_t scales[BLOCKS * BLOCK * HEADS][2]; } more;
        uint16_t (*const scales)[2] = more.scales;
        const MiKvView kv = { .k = ck, .v = cv, .dtype = t, .n_kv_heads = HEADS, .head_dim = DIM, .scales = scales,
                              .stride_block = BLOCK * HEADS * DIM, .stride_token = DIM, .stride_head = BLOCK * DIM,
                              .block_size = BLOCK, .slots = slots };
        memset(ck, 0x11, BLOCKS * BLOCK * HEADS * DIM * 4);
        memset(cv, 0x11, BLOCKS * BLOCK * HEADS * DIM * 4);
        memset(scales, 0x11, sizeof more.scales);
        for (int i = 0; i < HEADS * DIM; i++)
            more.shift[i] = i % 3 ? 0 : (float)i;
        apply(*state, "kv_append", (MiArgs){ .in = in, .out = &out, .kv = &kv }, &(MiNode){ 0 }, NULL);
        for (int s = 0; s < BLOCK * BLOCKS; s++)
            for (int h = 0; h < HEADS; h++)
                for (int d = 0; d < DIM; d++) {
                    const int64_t at = mi_kv_offset(&kv, s / BLOCK, s % BLOCK, h) + d;
                    const int     from = (row_of[s] * HEADS + h) * DIM + d;
                    for (int side = 0; side < 2; side++) {
                        const char *to = side ? cv : ck;
                        const float x = row_of[s] < 0 ? 0 : side ? v[from] : k[from];
                        if (mi_dtype_scaled(t) && row_of[s] < 0) {
                            assert_int_equal(((const uint8_t *)to)[at], 0x11);
                            assert_int_equal(scales[at / DIM][side], 0x1111);
                        } else if (mi_dtype_scaled(t)) {
                            const float scale = mi_bf16_to_f32(scales[at / DIM][side]);
                            float       want[DIM];
                            for (int i = 0; i < DIM; i++)
                                want[i] = side ? v[from - d + i] : k[from - d + i] - more.shift[h * DIM + i];
                            scaled_round(t, want, DIM, want);
                            assert_true(scaled_code(t, ((const uint8_t *)to)[at]) * scale == want[d]);
                        } else if (t == MI_F32)
                            assert_true(row_of[s] < 0 ? ((const int32_t *)(const void *)to)[at] == 0x11111111
                                                      : ((const float *)(const void *)to)[at] == x);
                        else
                            assert_int_equal(((const uint16_t *)(const void *)to)[at], row_of[s] < 0 ? 0x1111
                                                                                       : t == MI_F16
                                                                                           ? mi_f32_to_f16(x)
                                                                                           : mi_f32_to_bf16(x));
                    }
                }
    }
}

static void log_probabilities_of_the_drawn_and_the_best(void **state)
{
    enum { ROWS = 12, WORDS = 5003, TOP = 5 };
    g_autoptr(GRand)  rand = g_rand_new_with_seed(8);
    g_autofree float *x = random_floats(rand, ROWS * WORDS, -30, 30);
    float             value[ROWS * (1 + TOP)];
    int32_t           ids[ROWS * (1 + TOP)], drawn[ROWS], targets[ROWS];
    const MiTensor    in[2] = { tensor(x, 2, ROWS, WORDS, 0), { drawn, MI_I32, 2, { ROWS, 1 }, { 1, 1 } } };
    const MiTensor    out[2] = { tensor(value, 2, ROWS, 1 + TOP, 0),
                                 { ids, MI_I32, 2, { ROWS, 1 + TOP }, { 1 + TOP, 1 } } };
    const MiLogprobs  attr = { TOP };
    const MiNode      node = { .attr = &attr, .attr_size = sizeof attr };

    x[17] = x[4000] = 31; /* equal ones: the lower id first */
    for (int i = 0; i < ROWS; i++)
        drawn[i] = i * 400 % WORDS, targets[i] = i % 3 ? -1 : i * 77;
    for (int with = 0; with < 2; with++) {
        const MiBatch batch = { .targets = with ? targets : NULL };
        apply(*state, "logprobs", (MiArgs){ .in = in, .out = out }, &node, &batch);
        for (int r = 0; r < ROWS; r++) {
            double sum = 0;
            for (int i = 0; i < WORDS; i++)
                sum += exp((double)x[r * WORDS + i]);
            assert_int_equal(ids[r * (1 + TOP)], with && targets[r] >= 0 ? targets[r] : drawn[r]);
            for (int k = 0; k <= TOP; k++) {
                const int id = ids[r * (1 + TOP) + k];
                int       better = 0;
                assert_near(value[r * (1 + TOP) + k], x[r * WORDS + id] - log(sum), 1e-6, 1);
                for (int i = 0; i < WORDS; i++)
                    better += x[r * WORDS + i] > x[r * WORDS + id] || (x[r * WORDS + i] == x[r * WORDS + id] && i < id);
                if (k)
                    assert_int_equal(better, k - 1);
            }
        }
    }
}

/* ---- every instruction set that this machine has --------------------------------- */

static void check_unary(void (*f)(const float *, float *, int64_t), double (*want)(double), const float *x, int n)
{
    g_autofree float *y = g_new(float, n + 1);
    y[n] = 7;
    f(x, y, n);
    assert_true(y[n] == 7);
    for (int i = 0; i < n; i++)
        assert_near(y[i], want(x[i]), 2e-6, 1e-4);
}

static void check_floats(const MiFloats *f, GRand *rand, int n)
{
    g_autofree float    *x = random_floats(rand, n, -9, 9), *w = random_floats(rand, n, -2, 2), *y = g_new0(float, n);
    g_autofree float    *sine = g_new(float, n), *freqs = random_floats(rand, n, 0, 1);
    g_autofree uint16_t *h = g_new(uint16_t, n);
    double               square = 0, sum = 0;
    float                max = x[0];

    check_unary(f->silu, want_silu, x, n);
    check_unary(f->sigmoid, want_sigmoid, x, n);
    check_unary(f->tanh, tanh, x, n);
    check_unary(f->gelu_tanh, want_gelu_tanh, x, n);
    check_unary(f->gelu_erf, want_gelu_erf, x, n);
    for (int i = 0; i < n; i++)
        square += (double)x[i] * x[i], max = fmaxf(max, x[i]), sum += exp((double)x[i] - 3);
    assert_near(f->sum_squares(x, n), square, 1e-12, 0);
    assert_true(f->max(x, n) == max);
    assert_near(f->exp_sum(x, y, n, 3), sum, 5e-7, 0);
    for (int i = 0; i < n; i++)
        assert_near(y[i], exp((double)(x[i] - 3)), 2.5e-7, 0); /* two units in the last place */
    f->add(x, w, y, n);
    for (int i = 0; i < n; i++)
        assert_true(y[i] == x[i] + w[i]);
    f->mul(x, w, y, n);
    for (int i = 0; i < n; i++)
        assert_true(y[i] == x[i] * w[i]);
    f->scale(x, y, n, 0.3f);
    for (int i = 0; i < n; i++)
        assert_true(y[i] == x[i] * 0.3f);
    f->affine(x, w, y, n, 0.7f, 1);
    for (int i = 0; i < n; i++)
        assert_near(y[i], (double)x[i] * 0.7f * (1 + (double)w[i]), 1e-6, 1);
    f->to_f16(x, h, n);
    for (int i = 0; i < n; i++)
        assert_int_equal(h[i], mi_f32_to_f16(x[i]));
    f->to_bf16(x, h, n);
    for (int i = 0; i < n; i++)
        assert_int_equal(h[i], mi_f32_to_bf16(x[i]));
    f->sincos(123456, freqs, 2, y, sine, n);
    for (int i = 0; i < n; i++) {
        assert_near(y[i], 2 * cos((float)(123456 * freqs[i])), 2e-7, 2);
        assert_near(sine[i], 2 * sin((float)(123456 * freqs[i])), 2e-7, 2);
    }
}

static void instruction_sets_agree(void **state)
{
    (void)state;
    const float       edge[] = { 0, -0.0f, 88.5f, -88.5f, 1000, -1000, INFINITY, -INFINITY, NAN };
    g_autoptr(GRand)  rand = g_rand_new_with_seed(9);
    const MiFloats   *f;

    for (int i = 0; (f = mi_floats_at(i)); i++) {
        float y[G_N_ELEMENTS(edge)];
        for (int n = 1; n < 70; n++)
            check_floats(f, rand, n);
        f->sigmoid(edge, y, G_N_ELEMENTS(edge));
        assert_true(y[0] == 0.5f && y[1] == 0.5f && y[2] == 1 && y[4] == 1 && y[6] == 1 && isnan(y[8]));
        assert_true(y[3] < 1e-37f && y[5] == 0 && y[7] == 0);
        f->tanh(edge, y, G_N_ELEMENTS(edge));
        assert_true(y[0] == 0 && y[4] == 1 && y[5] == -1 && y[6] == 1 && y[7] == -1 && isnan(y[8]));
        f->gelu_erf(edge, y, 6);
        assert_true(y[0] == 0 && y[4] == 1000 && y[5] == 0);
        assert_true(f->exp_sum(edge + 7, NULL, 1, 0) == 0);
    }
}

TEST_MAIN(cmocka_unit_test_setup_teardown(activations_are_what_they_are_called, setup, teardown),
          cmocka_unit_test_setup_teardown(two_are_added_and_multiplied, setup, teardown),
          cmocka_unit_test_setup_teardown(norms_are_over_the_last_dimension, setup, teardown),
          cmocka_unit_test_setup_teardown(embeddings_are_rows_of_the_table, setup, teardown),
          cmocka_unit_test_setup_teardown(output_rows_are_picked, setup, teardown),
          cmocka_unit_test_setup_teardown(rope_turns_pairs, setup, teardown),
          cmocka_unit_test_setup_teardown(rows_go_to_their_slots, setup, teardown),
          cmocka_unit_test_setup_teardown(log_probabilities_of_the_drawn_and_the_best, setup, teardown),
          cmocka_unit_test(instruction_sets_agree));
