/* The plain operations on a card against those of the CPU in f32, on inputs rounded to
 * the dtype: odd shapes, views, in place, addresses that no vector load may take. */
#include "gpu.h"

/* How a value lies in its memory. */
typedef enum { GAPLESS, PART, ODD, N_LAYS } Lay;
static const char *const lay_name[] = { "gapless", "part of wider rows", "at odd addresses" };

/* A value of rows on both sides; host: [n] f32 without gaps, as the CPU's ops get it. */
typedef struct {
    MiTensor host, card;
    void    *base, *was; /* the card's whole block, and what it held when it was filled */
    size_t   bytes;
    int64_t  n;
} Value;

typedef struct { int64_t rows, heads, dim; } Shape; /* heads 0: rows of dim */

static int64_t element(const MiTensor *t, int64_t i)
{
    int64_t at = 0;
    for (int d = t->ndim - 1; d >= 0; d--) {
        at += i % t->shape[d] * t->stride[d];
        i /= t->shape[d];
    }
    return at;
}

static MiTensor gapless(Shape s, MiDType t, void *data)
{
    if (s.heads)
        return (MiTensor){ data, t, 3, { s.rows, s.heads, s.dim }, { s.heads * s.dim, s.dim, 1 } };
    return (MiTensor){ data, t, 2, { s.rows, s.dim }, { s.dim, 1 } };
}

/* Filled with random numbers of [-range, range), poison around it. */
static Value value_new(Shape s, MiDType dtype, Lay lay, float range, uint64_t *seed)
{
    const int64_t pad = lay == GAPLESS ? 0 : lay == PART ? 16 : 3;
    Value         v = { .host = gapless(s, MI_F32, NULL), .card = gapless(s, dtype, NULL) };

    if (s.heads && lay != GAPLESS)
        v.card.stride[1] += pad / 2 * 2 + (lay == ODD); /* gaps between heads, too */
    v.card.stride[0] = (s.heads ? s.heads * v.card.stride[1] : s.dim) + pad;
    v.n = s.rows * MAX(s.heads, 1) * s.dim;
    v.bytes = (size_t)(s.rows * v.card.stride[0] + 2 * pad) * mi_dtype_size(dtype);
    v.host.data = g_new(float, v.n);
    v.was = g_malloc(v.bytes);
    memset(v.was, 0xc7, v.bytes);
    for (int64_t i = 0; i < v.n; i++) {
        const float x = gpu_rounded(gpu_random(seed) * range, dtype);
        ((float *)v.host.data)[i] = x;
        gpu_put(v.was, pad + element(&v.card, i), dtype, x);
    }
    v.base = gpu_upload(v.was, v.bytes);
    v.card.data = (char *)v.base + (size_t)pad * mi_dtype_size(dtype);
    return v;
}

static void value_free(Value *v)
{
    (void)cudaFree(v->base);
    g_free(v->host.data);
    g_free(v->was);
}

/* What the card has, [n], and whether it kept to its own elements. */
static float *value_read(const Value *v, bool *outside)
{
    g_autofree char    *now = g_malloc(v->bytes);
    g_autofree uint8_t *mine = g_malloc0(v->bytes);
    const size_t        size = mi_dtype_size(v->card.dtype);
    const int64_t       first = ((char *)v->card.data - (char *)v->base) / (int64_t)size;
    float              *x = g_new(float, v->n);

    gpu_must(cudaMemcpy(now, v->base, v->bytes, cudaMemcpyDeviceToHost), "copying from the device");
    for (int64_t i = 0; i < v->n; i++) {
        const int64_t at = first + element(&v->card, i);
        x[i] = gpu_get(now, at, v->card.dtype);
        memset(mine + (size_t)at * size, 1, size);
    }
    for (size_t i = 0; i < v->bytes; i++)
        *outside = *outside || (!mine[i] && now[i] != ((const char *)v->was)[i]);
    return x;
}

/* ---- one op on values of one shape ------------------------------------------------------ */

typedef struct {
    const char *op;
    const void *attr;
    size_t      attr_size;
    int         n_in;
    const float *weight, *bias; /* [dim] on the host; NULL: none */
    const float *constant;      /* [n_constant] the input after the others */
    int64_t      n_constant;
    const int32_t *positions;   /* [rows] */
    float          range;
} Case;

static double compare(const Case *c, Shape s, MiDType dtype, Lay lay, bool in_place, bool *outside)
{
    const MiOp *cpu = gpu_feature("ops_cpu.so", MI_KIND_OP, c->op),
               *card = gpu_feature("ops_cuda.so", MI_KIND_OP, c->op);
    uint64_t    seed = 88172645463325252ull + (uint64_t)(s.rows * 7 + s.dim);
    Value       in[2], out = value_new(s, dtype, lay, 1, &seed);
    MiTensor    hosts[3], cards[3];
    MiOperand   host_w[MI_MAX_WEIGHTS] = { 0 }, card_w[MI_MAX_WEIGHTS] = { 0 };
    void       *constant = c->constant ? gpu_upload(c->constant, (size_t)c->n_constant * 4) : NULL;
    void       *positions = c->positions ? gpu_upload(c->positions, (size_t)s.rows * 4) : NULL;
    MiBatch     host_b = { .positions = c->positions }, card_b = { .positions = positions };
    const int   n_in = c->n_in + !!c->constant;
    const MiNode node = { .op = c->op, .attr = c->attr, .attr_size = c->attr_size, .n_in = n_in, .n_out = 1 };

    for (int i = 0; i < c->n_in; i++) {
        in[i] = value_new(s, dtype, i ? (Lay)((lay + 1) % N_LAYS) : lay, c->range, &seed);
        hosts[i] = in[i].host, cards[i] = in[i].card;
    }
    if (c->constant) {
        hosts[c->n_in] = (MiTensor){(void *)(uintptr_t)c->constant, MI_F32, 2, {1, c->n_constant}, {c->n_constant, 1}};
        cards[c->n_in] = hosts[c->n_in];
        cards[c->n_in].data = constant;
    }
    for (int i = 0; i < 2; i++) {
        const float *w = i ? c->bias : c->weight;
        host_w[i] = (MiOperand){ .tensor = { (void *)(uintptr_t)w, MI_F32, 1, { s.dim }, { 1 } }, .layout = "plain" };
        card_w[i] = host_w[i];
        if (w)
            card_w[i].tensor.data = gpu_upload(w, (size_t)s.dim * 4);
    }
    Value       *to = in_place ? &in[0] : &out;
    const MiArgs host_at = {&node, hosts, &out.host, host_w, NULL, NULL}, card_at = {&node, cards, &to->card, card_w, NULL, NULL};
    MiCall       host_call = { .at = &host_at, .n = 1 }, card_call = { .at = &card_at, .n = 1 };
    double       error = INFINITY;
    if (gpu_run(cpu, &gpu_host, &host_call, &host_b) && gpu_run(card, &gpu_card, &card_call, &card_b)) {
        g_autofree float *y = value_read(to, outside);
        error = gpu_error(y, out.host.data, out.n);
    }
    for (int i = 0; i < 2; i++)
        (void)cudaFree(card_w[i].tensor.data);
    (void)cudaFree(constant);
    (void)cudaFree(positions);
    for (int i = 0; i < c->n_in; i++)
        value_free(&in[i]);
    value_free(&out);
    return error;
}

/* Rounding of the result alone: half a unit in the last place at most, some 0.4 on the average. */
static double tolerance(MiDType t) { return t == MI_F32 ? 2e-6 : t == MI_F16 ? 3e-4 : 2.2e-3; }

static void over_shapes(const Case *c, const Shape *shapes, int n_shapes, const char *more)
{
    for (MiDType t = MI_F32; t <= MI_BF16; t++) {
        double worst = 0;
        bool   outside = false;
        int    n = 0;

        for (int s = 0; s < (gpu_quick() ? MIN(2, n_shapes) : n_shapes); s++)
            for (int lay = 0; lay < N_LAYS; lay++)
                for (int in_place = 0; in_place < 2; in_place++, n++) {
                    const double e = compare(c, shapes[s], t, (Lay)lay, in_place, &outside);
                    if (!(e <= tolerance(t)))
                        printf("# %s %s [%d, %d, %d] %s%s: %.3g\n", c->op, gpu_dtype(t), (int)shapes[s].rows,
                               (int)shapes[s].heads, (int)shapes[s].dim, lay_name[lay], in_place ? ", in place" : "",
                               e);
                    worst = fmax(worst, e);
                }
        gpu_check(worst <= tolerance(t) && !outside, "%s%s in %s, %d cases (worst %.2g of %.2g%s)", c->op, more,
                  gpu_dtype(t), n, worst, tolerance(t), outside ? ", wrote elsewhere" : "");
    }
}

static const Shape shapes[] = {{1, 0, 64}, {3, 0, 80}, {257, 0, 896}, {3, 0, 4864}, {1, 0, 4864}, {257, 0, 80},
                               {5, 0, 77}, {2, 7, 64}, {257, 3, 13},  {1, 14, 64},  {3, 0, 1}};

static void elementwise(void)
{
    static const char *const unary[] = { "silu", "sigmoid", "tanh", "gelu_tanh", "gelu_erf", "relu", "leaky_relu" };
    const MiActivation       a = { 0.3f };

    for (size_t i = 0; i < G_N_ELEMENTS(unary); i++)
        over_shapes(&(Case){ .op = unary[i], .attr = &a, .attr_size = sizeof a, .n_in = 1, .range = 9 }, shapes,
                    G_N_ELEMENTS(shapes), "");
    over_shapes(&(Case){ .op = "add", .n_in = 2, .range = 4 }, shapes, G_N_ELEMENTS(shapes), "");
    over_shapes(&(Case){ .op = "mul", .n_in = 2, .range = 4 }, shapes, G_N_ELEMENTS(shapes), "");
}

static void norms(void)
{
    static const Shape longer[] = { { 3, 0, 16384 }, { 2, 0, 20000 }, { 2, 0, 33333 } };
    enum { LONGEST = 33333 };
    g_autofree float *w = g_new(float, LONGEST), *b = g_new(float, LONGEST);
    uint64_t          seed = 3;

    for (int i = 0; i < LONGEST; i++)
        w[i] = 1 + 0.5f * gpu_random(&seed), b[i] = gpu_random(&seed);
    for (int pass = 0; pass < 2; pass++) {
        const Shape *s = pass ? longer : shapes;
        const int    n = pass ? G_N_ELEMENTS(longer) : G_N_ELEMENTS(shapes) - 1; /* the variance of one value is 0 */
        const char  *more = pass ? " of long rows" : "";
        const MiNorm a = { 1e-6f, (float)pass };
        over_shapes(&(Case){.op = "rmsnorm", .attr = &a, .attr_size = sizeof a, .n_in = 1, .weight = w, .range = 3}, s,
                    n, more);
        over_shapes(&(Case){.op = "layernorm",
                            .attr = &a,
                            .attr_size = sizeof a,
                            .n_in = 1,
                            .weight = w,
                            .bias = pass ? NULL : b,
                            .range = 3},
                    s, n, more);
        /* so far apart that what counts is no subnormal number of f16 */
        over_shapes(&(Case){ .op = "softmax", .n_in = 1, .range = 12 }, s, n, more);
    }
}

static void rope(void)
{
    static const Shape heads[] = { { 1, 14, 64 }, { 3, 2, 80 }, { 257, 5, 128 }, { 2, 3, 96 }, { 70, 1, 64 } };
    static const int   dims[] = { 64, 32, 20, 2 };
    float              freqs[64];
    int32_t            positions[257];

    for (int i = 0; i < 257; i++)
        positions[i] = i < 100 ? i : 13 * i * i; /* to 851,968 */
    for (size_t k = 0; k < G_N_ELEMENTS(dims); k++)
        for (int style = 0; style < 2; style++) {
            const MiRotate   r = { dims[k], style ? MI_ROPE_INTERLEAVED : MI_ROPE_HALF, k ? 1 : 1.3f };
            g_autofree char *more = g_strdup_printf(" of %d, %s", dims[k], style ? "interleaved" : "halves");
            for (int i = 0; i < dims[k] / 2; i++)
                freqs[i] = (float)pow(10000, -2.0 * i / dims[k]);
            over_shapes(&(Case){.op = "rope",
                                .attr = &r,
                                .attr_size = sizeof r,
                                .n_in = 1,
                                .constant = freqs,
                                .n_constant = dims[k] / 2,
                                .positions = positions,
                                .range = 2},
                        heads, G_N_ELEMENTS(heads), more);
        }
}

/* ---- rows ------------------------------------------------------------------------------- */

static void embed(MiDType dtype, MiDType stored, int64_t dim, bool named)
{
    enum { VOCAB = 301, ROWS = 130 };
    const MiOp        *card = gpu_feature("ops_cuda.so", MI_KIND_OP, "embed");
    uint64_t           seed = 17;
    int32_t            tokens[ROWS], drawn[4] = { 3, 300, 0, 7 };
    g_autofree void   *table = g_malloc((size_t)(VOCAB * dim) * mi_dtype_size(stored));
    Value              out = value_new((Shape){ ROWS, 0, dim }, dtype, PART, 1, &seed);
    bool               outside = false;
    int                wrong = 0;

    for (int64_t i = 0; i < VOCAB * dim; i++)
        gpu_put(table, i, stored, 3 * gpu_random(&seed));
    for (int i = 0; i < ROWS; i++)
        tokens[i] = i % 5 == 4 ? -1 - i % 4 : (i * 37) % VOCAB;
    void           *d_table = gpu_upload(table, (size_t)(VOCAB * dim) * mi_dtype_size(stored));
    const MiOperand w[MI_MAX_WEIGHTS] = {
        {.tensor = {d_table, named ? MI_I8 : stored, 2, {VOCAB, dim}, {named ? 0 : dim, 1}},
         .layout = named ? gpu_dtype(stored) : "plain"}};
    const MiNode    node = { .op = "embed", .n_out = 1 };
    const MiArgs    at = { &node, NULL, &out.card, w, NULL, NULL };
    MiCall          call = { .at = &at, .n = 1 };
    const MiBatch   batch = { .tokens = gpu_upload(tokens, sizeof tokens), .drawn = gpu_upload(drawn, sizeof drawn) };
    const bool      ran = gpu_run(card, &gpu_card, &call, &batch);
    g_autofree float *y = value_read(&out, &outside);
    for (int64_t i = 0; i < out.n; i++) {
        const int32_t t = tokens[i / dim] < 0 ? drawn[-1 - tokens[i / dim]] : tokens[i / dim];
        wrong += y[i] != gpu_rounded(gpu_get(table, t * dim + i % dim, stored), dtype);
    }
    gpu_check(ran && !wrong && !outside, "embed of %d in %s, a table of %s%s (%d wrong)", (int)dim, gpu_dtype(dtype),
              gpu_dtype(stored), named ? " as a file has it" : "", wrong);
    (void)cudaFree(d_table), (void)cudaFree((void *)(uintptr_t)batch.tokens), (void)cudaFree(batch.drawn);
    value_free(&out);
}

static void output_rows(MiDType dtype, int64_t dim, Lay lay)
{
    enum { ROWS = 41, OUTS = 30 };
    const MiOp    *card = gpu_feature("ops_cuda.so", MI_KIND_OP, "output_rows");
    uint64_t       seed = 5;
    Value          in = value_new((Shape){ ROWS, 0, dim }, dtype, lay, 2, &seed);
    Value          out = value_new((Shape){ OUTS, 0, dim }, dtype, GAPLESS, 2, &seed);
    int32_t        rows[OUTS];
    const MiNode   node = { .op = "output_rows", .n_in = 1, .n_out = 1 };
    const MiArgs   at = { &node, &in.card, &out.card, NULL, NULL, NULL };
    MiCall         call = { .at = &at, .n = 1 };
    bool           outside = false;
    int            wrong = 0;

    for (int i = 0; i < OUTS; i++)
        rows[i] = (i * 7) % ROWS;
    const MiBatch     batch = { .out_rows = gpu_upload(rows, sizeof rows) };
    const bool        ran = gpu_run(card, &gpu_card, &call, &batch);
    g_autofree float *y = value_read(&out, &outside);
    for (int64_t i = 0; i < out.n; i++)
        wrong += y[i] != ((float *)in.host.data)[rows[i / dim] * dim + i % dim];
    gpu_check(ran && !wrong, "output_rows of %d in %s, %s (%d wrong)", (int)dim, gpu_dtype(dtype), lay_name[lay],
              wrong);
    (void)cudaFree((void *)(uintptr_t)batch.out_rows);
    value_free(&in);
    value_free(&out);
}

/* Every slot of a cache of blocks holds its row, the others what they held. */
static void append(MiDType dtype, MiDType stored, int dim, Lay lay)
{
    enum { ROWS = 70, HEADS = 3, BLOCK = 16, BLOCKS = 8, SLOTS = BLOCK * BLOCKS };
    const MiOp    *card = gpu_feature("ops_cuda.so", MI_KIND_OP, "kv_append");
    uint64_t       seed = 23;
    Value          in[2] = { value_new((Shape){ ROWS, HEADS, dim }, dtype, lay, 2, &seed),
                             value_new((Shape){ ROWS, HEADS, dim }, dtype, lay, 2, &seed) };
    const MiTensor cards[2] = { in[0].card, in[1].card }, none = { 0 };
    const int      n = SLOTS * HEADS * dim;
    const size_t   bytes = (size_t)n * mi_dtype_size(stored);
    int32_t        slots[ROWS], row_of[SLOTS];
    g_autofree char *back = g_malloc(bytes);
    int            wrong = 0;

    memset(row_of, -1, sizeof row_of);
    for (int i = 0; i < ROWS; i++)
        slots[i] = i % 9 == 8 ? -1 : (i * 29) % SLOTS;
    for (int i = 0; i < ROWS; i++)
        if (slots[i] >= 0)
            row_of[slots[i]] = i;
    memset(back, 0x11, bytes);
    MiKvView         kv = {.k = gpu_upload(back, bytes),
                           .v = gpu_upload(back, bytes),
                           .dtype = stored,
                           .n_kv_heads = HEADS,
                           .head_dim = dim,
                           .stride_block = BLOCK * HEADS * dim,
                           .stride_token = dim,
                           .stride_head = BLOCK * dim,
                           .block_size = BLOCK,
                           .slots = gpu_upload(slots, sizeof slots)};
    const MiNode node = { .op = "kv_append", .n_in = 2, .n_out = 1, .kv = 1 };
    const MiArgs at = { &node, cards, &none, NULL, &kv, NULL };
    MiCall       call = { .at = &at, .n = 1 };
    const bool   ran = gpu_run(card, &gpu_card, &call, NULL);
    g_autofree char *poison = g_malloc(4);
    memset(poison, 0x11, 4);
    for (int side = 0; side < 2; side++) {
        gpu_must(cudaMemcpy(back, side ? kv.v : kv.k, bytes, cudaMemcpyDeviceToHost), "copying from the device");
        for (int s = 0; s < SLOTS; s++)
            for (int h = 0; h < HEADS; h++)
                for (int d = 0; d < dim; d++) {
                    const int64_t to = mi_kv_offset(&kv, s / BLOCK, s % BLOCK, h) + d;
                    const float   want =
                        row_of[s] < 0
                              ? gpu_get(poison, 0, stored)
                              : gpu_rounded(((float *)in[side].host.data)[(row_of[s] * HEADS + h) * dim + d], stored);
                    wrong += gpu_get(back, to, stored) != want;
                }
    }
    gpu_check(ran && !wrong, "kv_append of %d, %s into %s, %s (%d wrong)", dim, gpu_dtype(dtype), gpu_dtype(stored),
              lay_name[lay], wrong);
    (void)cudaFree(kv.k), (void)cudaFree(kv.v), (void)cudaFree((void *)(uintptr_t)kv.slots);
    value_free(&in[0]);
    value_free(&in[1]);
}

static void rows(void)
{
    for (MiDType t = MI_F32; t <= MI_BF16; t++) {
        for (MiDType s = MI_F32; s <= MI_BF16; s++) {
            embed(t, s, 896, s == MI_F16);
            append(t, s, 64, GAPLESS);
            append(t, s, 20, PART);
        }
        embed(t, t, 77, false);
        append(t, t, 64, ODD);
        output_rows(t, 896, PART);
        output_rows(t, 77, ODD);
    }
}

/* ---- time --------------------------------------------------------------------------------- */

enum { ROWS = 8192, TIMES = 40, SETS_MAX = 8 };

/* Values of several sets in turn, more than the L2 holds. */
static void timed(const char *name, int64_t dim, int64_t heads, const Case *c)
{
    const MiOp  *op = gpu_feature("ops_cuda.so", MI_KIND_OP, c->op);
    const size_t one = (size_t)(ROWS * dim) * 2, bytes = one * (size_t)(c->n_in + 1);
    const int    sets = (int)MIN(SETS_MAX, 1 + (200 << 20) / bytes), n_in = c->n_in + !!c->constant;
    const MiNode node = { .op = c->op, .attr = c->attr, .attr_size = c->attr_size, .n_in = n_in, .n_out = 1 };
    char        *data = gpu_alloc(bytes * (size_t)sets);
    MiOperand    w[MI_MAX_WEIGHTS] = { { .tensor = { gpu_alloc((size_t)dim * 4), MI_F32, 1, { dim }, { 1 } } } };
    void        *positions = gpu_alloc(ROWS * 4), *constant = gpu_alloc(4096);
    cudaEvent_t  from, to;
    float        best = INFINITY;
    const MiBatch batch = { .positions = positions };

    gpu_must(cudaMemset(data, 0x3d, bytes * (size_t)sets), "filling");
    gpu_must(cudaMemset(positions, 0, ROWS * 4), "filling");
    gpu_must(cudaMemset(constant, 0, 4096), "filling");
    gpu_must(cudaEventCreate(&from), "event"), gpu_must(cudaEventCreate(&to), "event");
    for (int pass = 0; pass < 4; pass++) {
        float ms = 0;
        gpu_must(cudaEventRecord(from, gpu_card.stream), "event");
        for (int i = 0; i < TIMES; i++) {
            const Shape  s = { ROWS, heads, heads ? dim / heads : dim };
            char        *at = data + (size_t)(i % sets) * bytes;
            MiTensor     in[3] = {gapless(s, MI_BF16, at), gapless(s, MI_BF16, at + one)},
                     out = gapless(s, MI_BF16, at + c->n_in * one);
            if (c->constant)
                in[c->n_in] = (MiTensor){ constant, MI_F32, 2, { 1, c->n_constant }, { c->n_constant, 1 } };
            const MiArgs a = { &node, in, &out, w, NULL, NULL };
            op->run(NULL, &gpu_card, &(MiCall){ .at = &a, .n = 1, .batch = &batch }, NULL);
        }
        gpu_must(cudaEventRecord(to, gpu_card.stream), "event");
        gpu_wait(c->op);
        gpu_must(cudaEventElapsedTime(&ms, from, to), "event");
        best = fminf(best, ms / TIMES);
    }
    printf("# %-8s %d x %-5d bf16: %6.1f us, %5.0f GB/s\n", name, ROWS, (int)dim, best * 1e3,
           (double)bytes / best / 1e6);
    (void)cudaFree(data), (void)cudaFree(w[0].tensor.data), (void)cudaFree(positions), (void)cudaFree(constant);
}

static void times(void)
{
    static const MiActivation a = { 0 };
    static const MiNorm       n = { 1e-6f, 0 };
    static const float        f[64];

    for (int k = 0; k < 2; k++) {
        const int64_t  dim = k ? 3584 : 896, heads = k ? 28 : 14;
        const MiRotate r = { (int32_t)(dim / heads), MI_ROPE_HALF, 1 };
        timed("rmsnorm", dim, 0, &(Case){ .op = "rmsnorm", .attr = &n, .attr_size = sizeof n, .n_in = 1 });
        timed("layernorm", dim, 0, &(Case){ .op = "layernorm", .attr = &n, .attr_size = sizeof n, .n_in = 1 });
        timed("softmax", dim, 0, &(Case){ .op = "softmax", .n_in = 1 });
        timed("add", dim, 0, &(Case){ .op = "add", .n_in = 2 });
        timed("mul", dim, 0, &(Case){ .op = "mul", .n_in = 2 });
        timed("silu", dim, 0, &(Case){ .op = "silu", .attr = &a, .attr_size = sizeof a, .n_in = 1 });
        timed("gelu_erf", dim, 0, &(Case){ .op = "gelu_erf", .attr = &a, .attr_size = sizeof a, .n_in = 1 });
        timed("rope", dim, heads, &(Case){ .op = "rope", .attr = &r, .attr_size = sizeof r, .n_in = 1, .constant = f,
                                           .n_constant = r.dim / 2 });
    }
}

int main(void)
{
    if (!gpu_present())
        return 0;
    gpu_open();
    rows();
    elementwise();
    rope();
    norms();
    if (g_getenv("MI_BENCH"))
        times();
    return gpu_end();
}
