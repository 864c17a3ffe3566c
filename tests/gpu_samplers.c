/* The links of the sampling chain and the log probabilities on a card against those
 * of the CPU: the same tokens stay, the same are drawn. */
#include "gpu.h"

#include "../plugins/samplers/links.h"

enum { MAX_ROWS = 256, MAX_HISTORY = 20000, N_SLOTS = MAX_ROWS };

/* A batch on both sides; row i is of slot 29 i + 1 (mod N_SLOTS), some are padding. */
typedef struct {
    MiBatch host, card;
    int32_t out_rows[MAX_ROWS], slots[MAX_ROWS], positions[MAX_ROWS], drawn[N_SLOTS], n_prompt[N_SLOTS];
} Batch;

/* [N_SLOTS][MAX_HISTORY], pinned: both sides read it.  Some tokens come often. */
static int32_t *history(void)
{
    static int32_t *h;
    uint64_t        seed = 41;

    if (!h) {
        gpu_must(cudaHostAlloc((void **)&h, sizeof *h * N_SLOTS * MAX_HISTORY, cudaHostAllocPortable), "pinning");
        for (int i = 0; i < N_SLOTS * MAX_HISTORY; i++)
            h[i] = (int32_t)((gpu_random(&seed) + 1) * (i % 3 ? 25 : 80000));
    }
    return h;
}

static void batch_free(Batch *b)
{
    const void *all[] = { b->card.out_rows, b->card.out_slot, b->card.positions, b->card.drawn, b->card.n_prompt };
    for (size_t i = 0; i < G_N_ELEMENTS(all); i++)
        (void)cudaFree((void *)(uintptr_t)all[i]);
    g_free(b);
}

static Batch *batch_new(int n, bool padding)
{
    Batch *b = g_new0(Batch, 1);

    for (int i = 0; i < n; i++) {
        b->out_rows[i] = n - 1 - i;
        b->slots[i] = padding && i % 3 == 1 ? -1 : (29 * i + 1) % N_SLOTS;
        b->positions[n - 1 - i] = i == 0 ? 18000 : 37 * i;
    }
    for (int s = 0; s < N_SLOTS; s++) {
        b->drawn[s] = -7;
        b->n_prompt[s] = s == 1 ? 9000 : 10;
    }
    b->host = (MiBatch){ .shape = { n, n, n, MAX_HISTORY, true }, .positions = b->positions, .out_rows = b->out_rows,
                         .out_slot = b->slots, .drawn = b->drawn, .history = history(), .max_history = MAX_HISTORY,
                         .n_prompt = b->n_prompt };
    b->card = b->host;
    b->card.positions = gpu_upload(b->positions, sizeof b->positions);
    b->card.out_rows = gpu_upload(b->out_rows, sizeof b->out_rows);
    b->card.out_slot = gpu_upload(b->slots, sizeof b->slots);
    b->card.drawn = gpu_upload(b->drawn, sizeof b->drawn);
    b->card.n_prompt = gpu_upload(b->n_prompt, sizeof b->n_prompt);
    return b;
}

/* ---- logits of many kinds --------------------------------------------------------------- */

enum { KINDS = 7 };
static const char *const kind_name[KINDS] = {"smooth",         "tied", "with holes", "huge",
                                             "NaN among tiny", "flat", "hopeless"};

static void fill(float *x, int64_t n, int kind, uint64_t *seed)
{
    for (int64_t k = 0; k < n; k++) {
        const float sum = gpu_random(seed) + gpu_random(seed) + gpu_random(seed) + gpu_random(seed);
        x[k] = 3.5f * sum; /* nearly normal */
        if (kind == 1)
            x[k] = rintf(x[k]) / 2; /* +0 and -0, too */
        if (kind == 2 && gpu_random(seed) < 0.4f)
            x[k] = -INFINITY;
        if (kind == 3)
            x[k] = x[k] * 1e3f + 2e4f;
        if (kind == 4)
            x[k] = gpu_random(seed) < -0.8f ? NAN : rintf(x[k] / 4) * 1e-30f;
        if (kind == 5)
            x[k] = 2.5f;
        if (kind == 6)
            x[k] = k % 2 ? NAN : -INFINITY;
    }
}

/* ---- one link ---------------------------------------------------------------------------- */

typedef struct {
    const char *name;
    size_t      row_size;
    void (*row)(void *row, int value, uint64_t *seed); /* one of some requests */
    int  n_values;
    bool draws, exact; /* exact: every token is as on the CPU; else rounding may move the last one */
} LinkCase;

static void penalties_row(void *row, int value, uint64_t *seed)
{
    static const PenaltiesRow v[] = {{1.3f, 0, 0}, {1, 0.7f, 0}, {1, 0, 0.1f}, {0.8f, -1.5f, 0.01f}, {1, 0, 0}};
    (void)seed;
    *(PenaltiesRow *)row = v[value];
}
static void bias_row(void *row, int value, uint64_t *seed)
{
    MiBiases *b = &((LogitBiasRow *)row)->logit_bias;
    b->n = (const int[]){ 0, 1, MI_MAX_BIASES }[value];
    for (int i = 0; i < b->n; i++) {
        b->at[i].id = (int32_t)((gpu_random(seed) + 1) * (i % 2 ? 20 : 80000)) - 3; /* twins, and ids that are none */
        b->at[i].bias = 10 * gpu_random(seed);
    }
}
static void temperature_row(void *row, int value, uint64_t *seed)
{
    (void)seed;
    ((TemperatureRow *)row)->temperature = (const float[]){ 0, 0.7f, 1, 1.7f, 1e-39f }[value];
}
static void top_k_row(void *row, int value, uint64_t *seed)
{
    (void)seed;
    ((TopKRow *)row)->top_k = (const int[]){ 1, 2, 40, 999, 30000, 0, 1 << 30 }[value];
}
static void top_p_row(void *row, int value, uint64_t *seed)
{
    (void)seed;
    ((TopPRow *)row)->top_p = (const float[]){ 0, 0.0123f, 0.5123f, 0.9512f, 0.99991f, 1 }[value];
}
static void min_p_row(void *row, int value, uint64_t *seed)
{
    (void)seed;
    ((MinPRow *)row)->min_p = (const float[]){ 0, 0.0013f, 0.0512f, 1 }[value];
}
static void typical_row(void *row, int value, uint64_t *seed)
{
    (void)seed;
    ((TypicalRow *)row)->typical_p = (const float[]){ 0, 0.0512f, 0.2123f, 0.9512f, 1 }[value];
}
static void seed_row(void *row, int value, uint64_t *seed)
{
    ((MultinomialRow *)row)->seed = (*seed += 0x9e3779b97f4a7c15ull) + (uint64_t)value;
}

static const LinkCase links[] = {
    { "penalties", sizeof(PenaltiesRow), penalties_row, 5, false, true },
    { "logit_bias", sizeof(LogitBiasRow), bias_row, 3, false, true },
    { "temperature", sizeof(TemperatureRow), temperature_row, 5, false, true },
    { "top_k", sizeof(TopKRow), top_k_row, 7, false, true },
    { "min_p", sizeof(MinPRow), min_p_row, 4, false, true },
    { "top_p", sizeof(TopPRow), top_p_row, 6, false, false },
    { "typical", sizeof(TypicalRow), typical_row, 5, false, false },
    { "multinomial", sizeof(MultinomialRow), seed_row, 4, true, false },
    { "greedy", 0, NULL, 1, true, true },
};

typedef struct { int rows, differ; int64_t tokens; } Tally; /* tokens: that stay on one side only */

static bool same(float a, float b) { return a == b || (isnan(a) && isnan(b)); }

static bool same_bits(float a, float b) { return memcmp(&a, &b, sizeof a) == 0; }

/* The two sides of one call; *broken: what may not be at all. */
static void one_call(const LinkCase *c, int rows, int vocab, int kind, int value, bool copy, Tally *t, bool *broken)
{
    g_autofree char *file = g_strdup_printf("sampler_%s.so", c->name);
    const MiSampler *host = gpu_feature(file, MI_KIND_SAMPLER, c->name),
                    *card = gpu_feature("samplers_cuda.so", MI_KIND_SAMPLER, c->name);
    const int64_t    n = (int64_t)rows * vocab;
    const size_t     bytes = (size_t)n * sizeof(float);
    Batch           *b = batch_new(rows, true);
    g_autofree float *x = g_new(float, n), *was = g_new(float, n), *y = g_new(float, n);
    g_autofree char *params = g_malloc0(MAX(c->row_size, 1) * (size_t)rows);
    uint64_t         seed = 77 + (uint64_t)(vocab * 10 + kind);
    int32_t          tokens[MAX_ROWS], drawn[N_SLOTS], tokens2[MAX_ROWS];
    const MiNode     node = { .op = c->name, .n_in = 1, .n_out = 1 };

    fill(was, n, kind, &seed);
    memcpy(x, was, bytes);
    for (int i = 0; i < rows && c->row; i++)
        c->row(params + (size_t)i * c->row_size, (value + i) % c->n_values, &seed);
    void *d_x = gpu_upload(x, bytes), *d_y = gpu_alloc(bytes),
         *d_params = gpu_upload(params, c->row_size * (size_t)rows);
    void    *d_tokens = gpu_alloc(sizeof tokens);
    MiTensor in = { x, MI_F32, 2, { rows, vocab }, { vocab, 1 } }, out = in, d_in = in, d_out;
    d_in.data = d_x;
    d_out = d_in;
    gpu_must(cudaMemcpy(d_y, was, bytes, cudaMemcpyHostToDevice), "copying");
    memset(tokens, 0x5a, sizeof tokens);
    gpu_must(cudaMemcpy(d_tokens, tokens, sizeof tokens, cudaMemcpyHostToDevice), "copying");
    if (copy && !c->draws)
        d_out.data = d_y;
    if (c->draws) {
        out = (MiTensor){ tokens, MI_I32, 2, { rows, 1 }, { 1, 1 } };
        d_out = out;
        d_out.data = d_tokens;
    }
    const MiArgs at = { &node, &in, &out, NULL, NULL, params }, d_at = { &node, &d_in, &d_out, NULL, NULL, d_params };
    MiCall       call = { .shape = b->host.shape, .at = &at, .n = 1 };
    MiCall       d_call = { .shape = b->host.shape, .at = &d_at, .n = 1 };
    *broken = *broken || !gpu_run(host->op, &gpu_host, &call, &b->host) ||
              !gpu_run(card->op, &gpu_card, &d_call, &b->card) || host->draws != card->draws ||
              host->row_size != card->row_size || card->row_size != c->row_size;
    gpu_must(cudaMemcpy(y, c->draws ? d_x : d_out.data, bytes, cudaMemcpyDeviceToHost), "copying");
    gpu_must(cudaMemcpy(tokens2, d_tokens, sizeof tokens2, cudaMemcpyDeviceToHost), "copying");
    gpu_must(cudaMemcpy(drawn, b->card.drawn, sizeof drawn, cudaMemcpyDeviceToHost), "copying");
    for (int i = 0; i < rows; i++) {
        int64_t lost = 0;
        for (int64_t k = (int64_t)i * vocab; k < (int64_t)(i + 1) * vocab; k++)
            if (b->slots[i] < 0 || c->draws)
                *broken = *broken || !same_bits(y[k], was[k]); /* padding, and what is only read */
            else if (!same(x[k], y[k]) && (x[k] > -INFINITY || y[k] > -INFINITY)) /* NaN is removed, too */
                lost++;
        if (c->draws && b->slots[i] >= 0) {
            lost = tokens[i] != tokens2[i];
            *broken = *broken || drawn[b->slots[i]] != tokens2[i];
        }
        if (c->draws && b->slots[i] < 0)
            *broken = *broken || tokens2[i] != 0x5a5a5a5a;
        t->rows++, t->differ += lost > 0, t->tokens += lost;
    }
    for (int s = 0; s < N_SLOTS; s++) /* slots that no row has */
        *broken = *broken || (b->drawn[s] == -7 && drawn[s] != -7);
    (void)cudaFree(d_x), (void)cudaFree(d_y), (void)cudaFree(d_params), (void)cudaFree(d_tokens);
    batch_free(b);
}

static void link_agrees(const LinkCase *c)
{
    static const struct {
        int rows, vocab;
    } sizes[] = {{1, 1}, {3, 7}, {64, 100}, {5, 1000}, {5, 4096}, {9, 49152}, {7, 151936}, {4, 262144}, {2, 500001}};
    const int quick = gpu_quick();
    for (size_t s = quick > 1; s < (quick ? 4 : G_N_ELEMENTS(sizes)); s += quick > 1 ? 2 : 1) {
        Tally t = { 0 };
        bool  broken = false;
        for (int kind = 0; kind < KINDS; kind += quick > 1 ? KINDS : quick ? 2 : 1)
            for (int v = quick > 1 && c->n_values > 1; v < MIN(c->n_values, quick || sizes[s].vocab > 100000 ? 2 : 7); v++) {
                const Tally before = t;
                one_call(c, sizes[s].rows, sizes[s].vocab, kind, v, (kind + v) % 2, &t, &broken);
                if (t.differ > before.differ && (c->exact || g_getenv("MI_VERBOSE")))
                    printf("# %s of %d, %s, value %d: %d rows differ in %d tokens\n", c->name, sizes[s].vocab,
                           kind_name[kind], v, t.differ - before.differ, (int)(t.tokens - before.tokens));
            }
        /* Sums that are rounded otherwise move the border by a token, where logits are tied or 1e-7 apart. */
        const bool ok = !broken && (c->exact ? t.differ == 0 : t.differ * 20 <= t.rows && t.tokens <= 2 * t.differ);
        gpu_check(ok, "%s of %d logits: %d of %d rows differ, in %d tokens%s", c->name, sizes[s].vocab, t.differ,
                  t.rows, (int)t.tokens, broken ? "; something that may not be written was" : "");
    }
}

/* ---- log probabilities --------------------------------------------------------------------- */

static void logprobs(int rows, int vocab, int n_top, int kind)
{
    const MiOp       *host = gpu_feature("ops_cpu.so", MI_KIND_OP, "logprobs"),
                     *card = gpu_feature("ops_cuda.so", MI_KIND_OP, "logprobs");
    const int64_t     n = (int64_t)rows * vocab, m = (int64_t)rows * (1 + n_top);
    g_autofree float *x = g_new(float, n), *values = g_new(float, m), *values2 = g_new(float, m);
    g_autofree int32_t *ids = g_new(int32_t, m), *ids2 = g_new(int32_t, m);
    int32_t           tokens[MAX_ROWS], targets[MAX_ROWS];
    const MiLogprobs  attr = { n_top };
    const MiNode      node = { .op = "logprobs", .attr = &attr, .attr_size = sizeof attr, .n_in = 2, .n_out = 2 };
    uint64_t          seed = 9 + (uint64_t)(vocab + kind);
    int               wrong = 0;
    double            worst = 0;

    fill(x, n, kind, &seed);
    for (int i = 0; i < rows; i++)
        tokens[i] = i == 2 ? 0x7fffffff : (i * 977 + 5) % vocab, targets[i] = i % 2 ? -1 : (i * 31) % vocab;
    MiTensor in[2] = { { x, MI_F32, 2, { rows, vocab }, { vocab, 1 } }, { tokens, MI_I32, 2, { rows, 1 }, { 1, 1 } } };
    MiTensor out[2] = {{values, MI_F32, 2, {rows, 1 + n_top}, {1 + n_top, 1}},
                       {ids, MI_I32, 2, {rows, 1 + n_top}, {1 + n_top, 1}}};
    MiTensor d_in[2] = { in[0], in[1] }, d_out[2] = { out[0], out[1] };
    d_in[0].data = gpu_upload(x, (size_t)n * 4), d_in[1].data = gpu_upload(tokens, sizeof tokens);
    d_out[0].data = gpu_alloc((size_t)m * 4), d_out[1].data = gpu_alloc((size_t)m * 4);
    const MiBatch hb = { .targets = targets }, db = { .targets = gpu_upload(targets, sizeof targets) };
    const MiArgs  at = { &node, in, out, NULL, NULL, NULL }, d_at = { &node, d_in, d_out, NULL, NULL, NULL };
    MiCall        call = { .at = &at, .n = 1 }, d_call = { .at = &d_at, .n = 1 };
    const bool    ran = gpu_run(host, &gpu_host, &call, &hb) && gpu_run(card, &gpu_card, &d_call, &db);
    gpu_must(cudaMemcpy(values2, d_out[0].data, (size_t)m * 4, cudaMemcpyDeviceToHost), "copying");
    gpu_must(cudaMemcpy(ids2, d_out[1].data, (size_t)m * 4, cudaMemcpyDeviceToHost), "copying");
    for (int64_t i = 0; i < m; i++) {
        wrong += ids[i] != ids2[i];
        if (!(isinf(values[i]) && isinf(values2[i])))
            worst = fmax(worst, fabs((double)values[i] - values2[i]) / fmax(1, fabs((double)values[i])));
    }
    gpu_check(ran && !wrong && worst < 1e-6, "logprobs of %d rows of %d, %s, top %d: %d ids differ, values by %.2g",
              rows, vocab, kind_name[kind], n_top, wrong, worst);
    (void)cudaFree(d_in[0].data), (void)cudaFree(d_in[1].data), (void)cudaFree(d_out[0].data),
        (void)cudaFree(d_out[1].data);
    (void)cudaFree((void *)(uintptr_t)db.targets);
}

/* ---- links that run as one ------------------------------------------------------------------- */

enum { N_FUSED = 5 };
static const char *const fused_links[N_FUSED] = {"temperature", "top_k", "top_p", "min_p", "multinomial"};

static const LinkCase *link_named(const char *name)
{
    for (size_t i = 0; i < G_N_ELEMENTS(links); i++)
        if (strcmp(links[i].name, name) == 0)
            return &links[i];
    return NULL;
}

/* Requests: temperature, top_k, top_p, min_p; what few tokens answer, what needs all, and what changes nothing. */
typedef struct { float temperature; int top_k; float top_p, min_p; } Request;
static const Request requests[] = {
    { 0.7f, 40, 0.9512f, 0 },    { 0.6f, 20, 0.9512f, 0.0123f }, { 1.3f, 1, 1, 0 },          { 0, 40, 0.5f, 0 },
    { 0.8f, 256, 0.8123f, 0 },   { 0.9f, 257, 0.8123f, 0 },      { 1.7f, 0, 0.9912f, 0 },    { 0.5f, 0, 0.5123f, 0 },
    { 1, 0, 1, 0.0512f },        { 0.7f, 0, 1, 0.00013f },       { 0.7f, 30000, 0.5f, 0 },   { 1, 0, 1, 0 },
    { 0.1f, 50, 0, 0.9f },       { 1e-39f, 5, 0.9f, 0 },         { 2.5f, 0, 0.9999f, 0.5f }, { 0.7f, 1 << 30, 0.3f, 0 },
};

static void put_request(void *row, int link, const Request *r, uint64_t *seed)
{
    switch (link) {
    case 0: ((TemperatureRow *)row)->temperature = r->temperature; break;
    case 1: ((TopKRow *)row)->top_k = r->top_k; break;
    case 2: ((TopPRow *)row)->top_p = r->top_p; break;
    case 3: ((MinPRow *)row)->min_p = r->min_p; break;
    default: seed_row(row, 0, seed);
    }
}

/* The links of `mask` (the draw is always there) on the CPU one by one, on the card at once. */
static void one_chain(int rows, int vocab, int kind, unsigned mask, int begin, Tally *t, bool *broken)
{
    const MiFusion  *fusion = gpu_feature("fusion_sampling_cuda.so", MI_KIND_FUSION, "sample");
    const int64_t    n = (int64_t)rows * vocab;
    const size_t     bytes = (size_t)n * sizeof(float);
    Batch           *b = batch_new(rows, true);
    g_autofree float *x = g_new(float, n), *was = g_new(float, n), *y = g_new(float, n);
    uint64_t         seed = 99 + (uint64_t)(vocab + 7 * kind) + mask;
    int32_t          tokens[MAX_ROWS], tokens2[MAX_ROWS], drawn[N_SLOTS];
    MiNode           nodes[N_FUSED];
    MiArgs           at[N_FUSED + 1] = { 0 };
    g_autofree char *ops = g_malloc0(N_FUSED * 32);
    void            *d_rows[N_FUSED] = { NULL };
    int              n_at = 0;

    fill(was, n, kind, &seed);
    memcpy(x, was, bytes);
    memset(tokens, 0x5a, sizeof tokens);
    void    *d_x = gpu_upload(was, bytes), *d_tokens = gpu_upload(tokens, sizeof tokens);
    MiTensor logits = { x, MI_F32, 2, { rows, vocab }, { vocab, 1 } }, token = { tokens, MI_I32, 2, { rows, 1 }, { 1, 1 } },
             d_logits = logits, inside = logits, d_token = token;
    d_logits.data = d_x, inside.data = NULL, d_token.data = d_tokens;
    for (int l = 0; l < N_FUSED; l++) {
        const LinkCase  *c = link_named(fused_links[l]);
        g_autofree char *file = g_strdup_printf("sampler_%s.so", c->name), *params = g_malloc0(c->row_size * (size_t)rows);
        const MiSampler *s = gpu_feature(file, MI_KIND_SAMPLER, c->name);
        if (l < N_FUSED - 1 && !(mask >> l & 1))
            continue;
        for (int i = 0; i < rows; i++)
            put_request(params + (size_t)i * c->row_size, l, &requests[(size_t)(begin + i) % G_N_ELEMENTS(requests)], &seed);
        g_snprintf(ops + 32 * n_at, 32, "sampler:%s", c->name);
        nodes[n_at] = (MiNode){ .op = ops + 32 * n_at, .n_in = 1, .n_out = 1 };
        const MiArgs host_at = { &nodes[n_at], &logits, s->draws ? &token : &logits, NULL, NULL, params };
        MiCall       call = { .shape = b->host.shape, .at = &host_at, .n = 1 };
        *broken = *broken || !gpu_run(s->op, &gpu_host, &call, &b->host);
        d_rows[n_at] = gpu_upload(params, c->row_size * (size_t)rows);
        at[n_at] = (MiArgs){ &nodes[n_at], n_at ? &inside : &d_logits, s->draws ? &d_token : &inside, NULL, NULL, d_rows[n_at] };
        n_at++;
    }
    MiCall d_call = { .shape = b->host.shape, .at = at, .n = n_at };
    *broken = *broken || (n_at > 1) != fusion->match(at, b->host.shape) || !gpu_run(fusion->op, &gpu_card, &d_call, &b->card);
    gpu_must(cudaMemcpy(y, d_x, bytes, cudaMemcpyDeviceToHost), "copying");
    gpu_must(cudaMemcpy(tokens2, d_tokens, sizeof tokens2, cudaMemcpyDeviceToHost), "copying");
    gpu_must(cudaMemcpy(drawn, b->card.drawn, sizeof drawn, cudaMemcpyDeviceToHost), "copying");
    *broken = *broken || memcmp(y, was, bytes) != 0; /* it only reads them */
    for (int i = 0; i < rows; i++) {
        if (b->slots[i] < 0) {
            *broken = *broken || tokens2[i] != 0x5a5a5a5a;
            continue;
        }
        t->rows++, t->differ += tokens[i] != tokens2[i];
        *broken = *broken || drawn[b->slots[i]] != tokens2[i];
        if (tokens[i] != tokens2[i])
            printf("# %d of %d, %s, links %x, request %d: %d, on the CPU %d\n", i, vocab, kind_name[kind], mask,
                   (int)((size_t)(begin + i) % G_N_ELEMENTS(requests)), tokens2[i], tokens[i]);
    }
    for (int l = 0; l < n_at; l++)
        (void)cudaFree(d_rows[l]);
    (void)cudaFree(d_x), (void)cudaFree(d_tokens);
    batch_free(b);
}

static void chains_agree(void)
{
    static const struct { int rows, vocab; } sizes[] = { { 16, 1 }, { 16, 7 }, { 64, 1000 }, { 16, 49152 }, { 24, 151936 }, { 4, 151939 } };

    const int quick = gpu_quick();
    for (size_t s = quick > 1; s < (quick ? 3 : G_N_ELEMENTS(sizes)); s++) {
        Tally t = { 0 };
        bool  broken = false;
        for (int kind = 0; kind < KINDS; kind += quick > 1 ? KINDS : 1)
            for (unsigned mask = 0; mask < 16; mask += mask > 1 && (quick || sizes[s].vocab > 100000) ? 5 : 1)
                one_chain(quick > 1 ? 16 : sizes[s].rows, sizes[s].vocab, kind, mask, kind, &t, &broken);
        gpu_check(!broken && t.differ * 100 <= t.rows, "chains of %d logits at once: %d of %d tokens differ%s", sizes[s].vocab,
                  t.differ, t.rows, broken ? "; something that may not be written was" : "");
    }
}

/* ---- the whole chain as one graph ------------------------------------------------------------ */

/* Captured and replayed, the links give bit for bit what they give one by one. */
static void chain_is_a_graph(void)
{
    static const char *const chain[] = {"penalties", "logit_bias", "temperature", "top_k",
                                        "typical",   "top_p",      "min_p",       "multinomial"};
    enum { ROWS = 6, VOCAB = 151936 };
    const size_t    bytes = (size_t)ROWS * VOCAB * sizeof(float);
    Batch          *b = batch_new(ROWS, false);
    g_autofree float *x = g_new(float, ROWS * VOCAB), *y[2] = { g_new(float, ROWS * VOCAB), NULL };
    g_autofree float *y1 = g_new(float, ROWS * VOCAB);
    int32_t         tokens[2][ROWS];
    uint64_t        seed = 5;
    float          *d_x = gpu_alloc(bytes);
    void           *d_tokens = gpu_alloc(sizeof tokens[0]), *rows[G_N_ELEMENTS(chain)];
    MiTensor logits = {d_x, MI_F32, 2, {ROWS, VOCAB}, {VOCAB, 1}}, token = {d_tokens, MI_I32, 2, {ROWS, 1}, {1, 1}};
    cudaStream_t    stream = gpu_card.stream;
    cudaGraph_t     graph;
    cudaGraphExec_t run = NULL;
    bool            ok = true;

    y[1] = y1;
    fill(x, ROWS * VOCAB, 0, &seed);
    for (size_t l = 0; l < G_N_ELEMENTS(chain); l++)
        for (size_t k = 0; k < G_N_ELEMENTS(links); k++)
            if (strcmp(chain[l], links[k].name) == 0) {
                g_autofree char *p = g_malloc0(links[k].row_size * ROWS);
                for (int i = 0; i < ROWS; i++)
                    links[k].row(p + (size_t)i * links[k].row_size, (i + 2) % links[k].n_values, &seed);
                rows[l] = gpu_upload(p, links[k].row_size * ROWS);
            }
    for (int pass = 0; pass < 2; pass++) {
        gpu_must(cudaMemcpy(d_x, x, bytes, cudaMemcpyHostToDevice), "copying");
        if (pass)
            gpu_must(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capturing");
        for (size_t l = 0; l < G_N_ELEMENTS(chain); l++) {
            const MiSampler *s = gpu_feature("samplers_cuda.so", MI_KIND_SAMPLER, chain[l]);
            const MiNode     node = { .op = chain[l], .n_in = 1, .n_out = 1 };
            const MiArgs     at = { &node, &logits, s->draws ? &token : &logits, NULL, NULL, rows[l] };
            ok = ok &&
                 s->op->run(NULL, &gpu_card, &(MiCall){b->host.shape, &b->card, &at, 1, NULL, NULL}, NULL);
        }
        if (pass) {
            gpu_must(cudaStreamEndCapture(stream, &graph), "capturing");
            gpu_must(cudaGraphInstantiate(&run, graph, 0), "making a graph");
            gpu_must(cudaGraphLaunch(run, stream), "launching a graph");
        }
        gpu_wait("the chain");
        gpu_must(cudaMemcpy(y[pass], d_x, bytes, cudaMemcpyDeviceToHost), "copying");
        gpu_must(cudaMemcpy(tokens[pass], d_tokens, sizeof tokens[0], cudaMemcpyDeviceToHost), "copying");
    }
    gpu_check(ok && memcmp(y[0], y[1], bytes) == 0 && memcmp(tokens[0], tokens[1], sizeof tokens[0]) == 0,
              "a chain of eight links is the same as a graph");
    (void)cudaGraphExecDestroy(run), (void)cudaGraphDestroy(graph);
    for (size_t l = 0; l < G_N_ELEMENTS(chain); l++)
        (void)cudaFree(rows[l]);
    (void)cudaFree(d_x), (void)cudaFree(d_tokens);
    batch_free(b);
}

/* ---- time -------------------------------------------------------------------------------------- */

static void timed(const LinkCase *c, int rows, int value)
{
    enum { VOCAB = 151936, TIMES = 50 };
    const MiSampler *s = gpu_feature("samplers_cuda.so", MI_KIND_SAMPLER, c->name);
    const size_t     bytes = (size_t)rows * VOCAB * sizeof(float);
    Batch           *b = batch_new(rows, false);
    g_autofree float *x = g_new(float, (size_t)rows * VOCAB);
    g_autofree char *params = g_malloc0(MAX(c->row_size, 1) * (size_t)rows);
    uint64_t         seed = 3;
    const MiNode     node = { .op = c->name, .n_in = 1, .n_out = 1 };
    cudaEvent_t      from, to;
    float            best = INFINITY;

    fill(x, (int64_t)rows * VOCAB, 0, &seed);
    for (int i = 0; i < rows && c->row; i++)
        c->row(params + (size_t)i * c->row_size, value, &seed);
    void *d_x = gpu_upload(x, bytes), *d_y = gpu_alloc(bytes),
         *d_params = gpu_upload(params, c->row_size * (size_t)rows);
    MiTensor     in = { d_x, MI_F32, 2, { rows, VOCAB }, { VOCAB, 1 } }, out = in;
    const MiArgs at = { &node, &in, &out, NULL, NULL, d_params };
    out.data = d_y; /* else only the first run would have something to remove */
    if (c->draws)
        out = (MiTensor){ d_y, MI_I32, 2, { rows, 1 }, { 1, 1 } };
    gpu_must(cudaEventCreate(&from), "event"), gpu_must(cudaEventCreate(&to), "event");
    for (int pass = 0; pass < 4; pass++) {
        float ms = 0;
        gpu_must(cudaEventRecord(from, gpu_card.stream), "event");
        for (int i = 0; i < TIMES; i++)
            s->op->run(NULL, &gpu_card, &(MiCall){ b->host.shape, &b->card, &at, 1, NULL, NULL }, NULL);
        gpu_must(cudaEventRecord(to, gpu_card.stream), "event");
        gpu_wait(c->name);
        gpu_must(cudaEventElapsedTime(&ms, from, to), "event");
        best = fminf(best, ms / TIMES);
    }
    printf("# %-11s %2d x %d: %6.1f us, %5.0f GB/s\n", c->name, rows, VOCAB, best * 1e3,
           (double)bytes * (c->draws ? 1 : 2) / best / 1e6);
    (void)cudaFree(d_x), (void)cudaFree(d_y), (void)cudaFree(d_params);
    batch_free(b);
}

/* What a request asks for, at once: a link that changes nothing for it is not there, as in a step whose requests are all so. */
static void timed_chain(int rows, const Request *r)
{
    enum { VOCAB = 151936, TIMES = 50 };
    const MiFusion  *fusion = gpu_feature("fusion_sampling_cuda.so", MI_KIND_FUSION, "sample");
    const size_t     bytes = (size_t)rows * VOCAB * sizeof(float);
    Batch           *b = batch_new(rows, false);
    g_autofree float *x = g_new(float, (size_t)rows * VOCAB);
    size_t           workspace = 0;
    uint64_t         seed = 3;
    const bool       there[N_FUSED] = { r->temperature != 1, r->top_k != 0, r->top_p < 1, r->min_p > 0, true };
    char             ops[N_FUSED][32];
    int              n_at = 0;
    MiNode           nodes[N_FUSED];
    MiArgs           at[N_FUSED + 1] = { 0 };
    cudaEvent_t      from, to;
    float            best = INFINITY;

    fill(x, (int64_t)rows * VOCAB, 0, &seed);
    MiTensor in = { gpu_upload(x, bytes), MI_F32, 2, { rows, VOCAB }, { VOCAB, 1 } },
             out = { gpu_alloc(MAX_ROWS * 4), MI_I32, 2, { rows, 1 }, { 1, 1 } };
    for (int l = 0; l < N_FUSED; l++) {
        if (!there[l])
            continue;
        const LinkCase  *c = link_named(fused_links[l]);
        g_autofree char *params = g_malloc0(c->row_size * (size_t)rows);
        for (int i = 0; i < rows; i++)
            put_request(params + (size_t)i * c->row_size, l, r, &seed);
        g_snprintf(ops[n_at], sizeof ops[n_at], "sampler:%s", c->name);
        nodes[n_at] = (MiNode){ .op = ops[n_at], .n_in = 1, .n_out = 1 };
        at[n_at] = (MiArgs){ &nodes[n_at], &in, &out, NULL, NULL, gpu_upload(params, c->row_size * (size_t)rows) };
        n_at++;
    }
    gpu_must(cudaEventCreate(&from), "event"), gpu_must(cudaEventCreate(&to), "event");
    MiCall call = { .shape = b->host.shape, .batch = &b->card, .at = at, .n = n_at };
    if (!fusion->op->prepare(&gpu_card, &call, NULL, &workspace, NULL))
        gpu_must(cudaErrorUnknown, "preparing the chain");
    call.workspace = gpu_alloc(workspace);
    for (int pass = 0; pass < 4; pass++) {
        float ms = 0;
        gpu_must(cudaEventRecord(from, gpu_card.stream), "event");
        for (int i = 0; i < TIMES; i++)
            fusion->op->run(NULL, &gpu_card, &call, NULL);
        gpu_must(cudaEventRecord(to, gpu_card.stream), "event");
        gpu_wait("the chain");
        gpu_must(cudaEventElapsedTime(&ms, from, to), "event");
        best = fminf(best, ms / TIMES);
    }
    printf("# at once    %2d x %d: %6.1f us (temperature %g, top_k %d, top_p %g, min_p %g)\n", rows, VOCAB, best * 1e3,
           r->temperature, r->top_k, r->top_p, r->min_p);
    (void)cudaFree(in.data), (void)cudaFree(out.data);
    (void)cudaFree(call.workspace);
    for (int l = 0; l < n_at; l++)
        (void)cudaFree((void *)(uintptr_t)at[l].rows);
    batch_free(b);
}

/* Against slow and obvious ones. */
static void test_all(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(links); i++)
        link_agrees(&links[i]);
    for (int kind = 0; kind < (gpu_quick() > 1 ? 1 : 4); kind++)
        for (int top = gpu_quick() ? 3 : 0; top < 4; top++)
            if (kind != 2)
                logprobs(top == 3 && gpu_quick() < 2 ? 33 : 3, top == 3 ? 4096 : 151936, (const int[]){ 0, 1, 20, 1024 }[top], kind);
    logprobs(3, 10, 20, 0);
    chains_agree();
    if (!gpu_quick())
        chain_is_a_graph();
}

static void time_all(void)
{
    static const Request all_take_part = { 0.6f, 0, 1, 0 };

    for (int rows = 1; rows <= 64; rows += 63)
        for (size_t i = 0; i < G_N_ELEMENTS(links); i++)
            timed(&links[i], rows, (const int[]){ 0, 2, 1, 2, 2, 3, 3, 0, 0 }[i]);
    for (int rows = 1; rows <= 64; rows += 63)
        for (size_t i = 0; i < 12; i++)
            timed_chain(rows, &requests[i]);
    for (int rows = 64; rows <= MAX_ROWS; rows *= 2) {
        timed_chain(rows, &all_take_part);
        timed_chain(rows, &requests[0]);
    }
}

/* MI_BENCH=1: timings, too; MI_BENCH=only: nothing else. */
int main(void)
{
    if (!gpu_present())
        return 0;
    gpu_open();
    if (g_strcmp0(g_getenv("MI_BENCH"), "only") != 0)
        test_all();
    if (g_getenv("MI_BENCH"))
        time_all();
    return gpu_end();
}
