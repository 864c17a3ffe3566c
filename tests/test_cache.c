/* Sequences come, grow, leave and come back through every cache and attention that
 * fit, and each row's result is compared with attention over the tokens themselves. */
#include "device.h"
#include "scaled.h"

enum { LAYERS = 2, HEADS = 4, KV_HEADS = 2, DIM = 12, WIDTH = HEADS * DIM, KV_WIDTH = KV_HEADS * DIM, MAX_LEN = 40,
       MAX_TOKENS = 128, MAX_SEQS = 3 };

/* A key depends on the token and where it stands, so that a prefix may be shared. */
static float element(int side, int layer, int token, int position, int i)
{
    return sinf((float)(side * 3 + layer * 5 + token * 7 + position * 11) * 0.37f + (float)(i * i) * 0.71f);
}

static MiDType kv_type = MI_F32;

/* Of the keys, side 1, or values, as the cache keeps them. */
static float kept(int side, int layer, int token, int position, int i)
{
    enum { TOKENS = 97 };
    static struct { MiDType type; float x[DIM]; } known[2][LAYERS][TOKENS][MAX_LEN][KV_HEADS];
    float x[DIM];

    if (!mi_dtype_scaled(kv_type))
        return element(side, layer, token, position, i);
    if (known[side - 1][layer][token][position][i / DIM].type != kv_type) {
        for (int d = 0; d < DIM; d++)
            x[d] = element(side, layer, token, position, i / DIM * DIM + d);
        scaled_round(kv_type, x, DIM, known[side - 1][layer][token][position][i / DIM].x);
        known[side - 1][layer][token][position][i / DIM].type = kv_type;
    }
    return known[side - 1][layer][token][position][i / DIM].x[i % DIM];
}

typedef struct {
    MiSequence seq;
    int32_t    tokens[MAX_LEN + 1];
} Text;

static void text(Text *t, uint64_t id, int salt, int n)
{
    *t = (Text){ .seq = { .id = id, .slot = -1, .n_prompt = n, .n_tokens = n } };
    t->seq.tokens = t->tokens;
    for (int i = 0; i <= MAX_LEN; i++)
        t->tokens[i] = (i * 13 + salt * 29) % 97;
}

/* out: [DIM] of head h. */
static void wanted(const Text *t, int layer, int position, int h, double *out)
{
    double weight[MAX_LEN], q[DIM], sum = 0;

    for (int i = 0; i < DIM; i++)
        q[i] = (double)element(0, layer, t->tokens[position], position, h * DIM + i);
    for (int j = 0; j <= position; j++) {
        double score = 0;
        for (int i = 0; i < DIM; i++)
            score += q[i] * (double)kept(1, layer, t->tokens[j], j, h / 2 * DIM + i);
        sum += weight[j] = exp(score);
    }
    for (int d = 0; d < DIM; d++) {
        out[d] = 0;
        for (int j = 0; j <= position; j++)
            out[d] += weight[j] / sum * (double)kept(2, layer, t->tokens[j], j, h / 2 * DIM + d);
    }
}

typedef struct {
    Device            *d;
    const MiCache     *cache;
    const MiAttention *attention;
    void              *self;
    MiKvView           kv[LAYERS];
    int                rows; /* all that were computed */
} World;

static void run_op(World *w, const MiOp *op, const MiBatch *b, MiTensor *in, MiTensor *out, const void *attr,
                   const MiKvView *kv)
{
    const MiNode node = { .op = "", .n_in = 2, .n_out = 1, .attr = attr };
    const MiArgs args = { &node, in, out, NULL, kv, NULL };
    device_run(w->d, op, &(MiCall){ .shape = b->shape, .batch = b, .at = &args, .n = 1 });
}

/* One step of `count` new rows each; the bucket is a few rows larger. */
static void step(World *w, int n, Text *const *texts, const int *count)
{
    g_autoptr(GError) error = NULL;
    const MiAttend    attend = { .scale = 1 };
    MiSequence       *seqs[MAX_SEQS];
    int32_t           counts[MAX_SEQS], starts[MAX_SEQS + 2] = { 0 }, positions[MAX_TOKENS] = { 0 };
    static float q[MAX_TOKENS * WIDTH], k[MAX_TOKENS * KV_WIDTH], v[MAX_TOKENS * KV_WIDTH], out[MAX_TOKENS * WIDTH];

    for (int s = 0; s < n; s++) {
        seqs[s] = &texts[s]->seq;
        counts[s] = count[s] + (w->cache->recomputes ? texts[s]->seq.n_prompt : 0); /* n_prompt: those of before */
        starts[s + 1] = starts[s] + counts[s];
        if (!w->cache->reserve(w->self, seqs[s], seqs[s]->n_cached + counts[s]))
            fail_msg("no room for %d of sequence %d", seqs[s]->n_cached + counts[s], (int)seqs[s]->id);
        for (int r = 0; r < counts[s]; r++)
            positions[starts[s] + r] = seqs[s]->n_cached + r;
    }
    const int     rows = starts[n], padded_seqs = n < MAX_SEQS && !w->cache->single ? n + 1 : n;
    const MiShape unpadded = { rows, n, n, MAX_LEN, false };
    const MiBatch b = {
        .shape = {rows + 3, padded_seqs, n, MAX_LEN, false}, .positions = positions, .seq_start = starts};
    starts[n + 1] = rows; /* of the padding: no rows */
    if (!w->cache->plan(w->self, &w->d->ctx, &(MiStep){ unpadded, seqs, counts }, &b, &error))
        fail_msg("%s", error->message);
    for (int layer = 0; layer < LAYERS; layer++) {
        MiTensor kv_in[2] = { tensor(k, 3, rows + 3, KV_HEADS, DIM), tensor(v, 3, rows + 3, KV_HEADS, DIM) };
        MiTensor q_in[2] = { tensor(q, 3, rows + 3, HEADS, DIM), { 0 } }, to = tensor(out, 3, rows + 3, HEADS, DIM);
        MiTensor nothing = { 0 };
        for (int i = 0; i < (rows + 3) * KV_WIDTH; i++)
            k[i] = v[i] = 1e9f; /* what padding would write */
        for (int s = 0; s < n; s++)
            for (int r = starts[s]; r < starts[s + 1]; r++) {
                const int token = texts[s]->tokens[positions[r]];
                for (int i = 0; i < WIDTH; i++)
                    q[r * WIDTH + i] = element(0, layer, token, positions[r], i);
                for (int i = 0; i < KV_WIDTH; i++) {
                    k[r * KV_WIDTH + i] = element(1, layer, token, positions[r], i);
                    v[r * KV_WIDTH + i] = element(2, layer, token, positions[r], i);
                }
            }
        run_op(w, device_find(w->d, MI_KIND_OP, w->cache->append), &b, kv_in, &nothing, NULL, &w->kv[layer]);
        run_op(w, w->attention->op, &b, q_in, &to, &attend, &w->kv[layer]);
        for (int s = 0; s < n; s++)
            for (int r = starts[s]; r < starts[s + 1]; r++, w->rows++)
                for (int h = 0; h < HEADS; h++) {
                    double want[DIM];
                    wanted(texts[s], layer, positions[r], h, want);
                    for (int d = 0; d < DIM; d++)
                        assert_near(out[r * WIDTH + h * DIM + d], want[d], 3e-6, 1);
                }
    }
    for (int s = 0; s < n; s++)
        if (w->cache->recomputes)
            texts[s]->seq.n_prompt += count[s];
        else
            texts[s]->seq.n_cached += count[s];
}

static MiCacheSpec spec_of(const MiCache *c)
{
    return (MiCacheSpec){ LAYERS, KV_HEADS, DIM, c->single ? 1 : MAX_SEQS, MAX_TOKENS, MAX_LEN, kv_type, 1 << 30, true,
                          NULL, NULL };
}

/* options: keys and values, NULL-terminated; NULL: as they come. */
static World open_with(Device *d, const char *cache, const char *attention, const char *prefix,
                       const char *const *options)
{
    g_autoptr(GError) error = NULL;
    World w = {d, device_find(d, MI_KIND_CACHE, cache), device_find(d, MI_KIND_ATTENTION, attention), NULL, {{0}}, 0};
    MiCacheSpec      spec = spec_of(w.cache);
    const MiFeature *f = mi_registry_find(d->registry, MI_KIND_CACHE, cache, "cpu", NULL);
    g_autofree void *filled = options ? g_malloc0(mi_options_size(f->options)) : NULL;
    bool             fits = false;

    assert_true(!options || mi_options_defaults(f->options, filled, NULL));
    for (; options && *options; options += 2)
        assert_true(mi_options_set(f->options, filled, options[0], options[1], NULL));
    spec.prefix = prefix ? device_find(d, MI_KIND_PREFIX, prefix) : NULL;
    spec.eviction = prefix ? device_find(d, MI_KIND_EVICTION, "lru") : NULL;

    for (const char *const *l = w.attention->layouts; *l; l++)
        fits = fits || strcmp(*l, w.cache->layout) == 0;
    assert_true(fits);
    d->allocated = 0;
    d->pinned = 0;
    if (!(w.self = w.cache->create(&d->ctx, &spec, filled, &error)))
        fail_msg("%s", error->message);
    assert_int_equal(d->allocated, w.cache->bytes(&spec, filled));
    assert_int_equal(d->pinned, MI_HAS(w.cache, pinned) ? w.cache->pinned(&spec, filled) : 0);
    for (int i = 0; i < LAYERS; i++)
        w.cache->view(w.self, i, &w.kv[i]);
    return w;
}

static World open_world(Device *d, const char *cache, const char *attention)
{
    return open_with(d, cache, attention, NULL, NULL);
}

/* n_prompt of a text counts what a cache that keeps nothing has been given so far. */
static void begin(Text *t, uint64_t id, int salt)
{
    text(t, id, salt, MAX_LEN);
    t->seq.n_prompt = 0;
}

static void several_in(World w)
{
    Text a, b, c, e;

    begin(&a, 7, 1), begin(&b, 8, 2), begin(&c, 9, 3);
    const int64_t empty = w.cache->room(w.self);
    step(&w, 1, (Text *[]){ &a }, (const int[]){ 4 });
    step(&w, 2, (Text *[]){ &a, &b }, (const int[]){ 6, 7 });
    step(&w, 3, (Text *[]){ &c, &a, &b }, (const int[]){ 15, 1, 1 }); /* another order than they came in */
    step(&w, 3, (Text *[]){ &b, &c, &a }, (const int[]){ 1, 5, 1 });
    for (int i = 0; i < 6; i++)
        step(&w, 3, (Text *[]){ &a, &b, &c }, (const int[]){ 1, 1, 1 });
    if (!w.cache->recomputes) { /* no place, and no positions */
        begin(&e, 10, 4);
        assert_false(w.cache->reserve(w.self, &e.seq, 1));
        assert_false(w.cache->reserve(w.self, &a.seq, MAX_LEN + 1));
        assert_true(w.cache->room(w.self) < empty);
    }
    w.cache->release(w.self, &b.seq);
    begin(&e, 10, 4);
    step(&w, 3, (Text *[]){ &a, &e, &c }, (const int[]){ 1, 3, 1 }); /* begins far into its region */
    while (a.seq.n_cached + a.seq.n_prompt < MAX_LEN - 1)
        step(&w, 2, (Text *[]){ &e, &a }, (const int[]){ 1, 1 });
    w.cache->release(w.self, &a.seq);
    w.cache->release(w.self, &c.seq);
    while (e.seq.n_cached + e.seq.n_prompt < MAX_LEN) /* to the end of its region and on */
        step(&w, 1, (Text *[]){ &e }, (const int[]){ 1 });
    w.cache->release(w.self, &e.seq);
    w.cache->release(w.self, &e.seq);
    assert_int_equal(w.cache->room(w.self), empty);
    assert_true(w.rows > 200);
    w.cache->destroy(w.self);
}

static void several(Device *d, const char *cache, const char *attention)
{
    several_in(open_world(d, cache, attention));
}

/* A chat: the next turn begins with what is there. */
static void one_after_the_other(Device *d, const char *attention)
{
    World w = open_world(d, "full", attention);
    Text  a, b;

    begin(&a, 1, 1), begin(&b, 2, 1);
    assert_int_equal(w.cache->match(w.self, &a.seq), 0);
    step(&w, 1, (Text *[]){ &a }, (const int[]){ 9 });
    step(&w, 1, (Text *[]){ &a }, (const int[]){ 1 });
    assert_int_equal(w.cache->match(w.self, &b.seq), 0); /* in use */
    assert_false(w.cache->reserve(w.self, &b.seq, 1));
    w.cache->release(w.self, &b.seq); /* not its own */
    assert_false(w.cache->reserve(w.self, &b.seq, 1));
    w.cache->release(w.self, &a.seq);

    b.tokens[8] = 96, b.seq.n_tokens = 20; /* 8 in common */
    b.seq.fresh = true;
    assert_int_equal(w.cache->match(w.self, &b.seq), 0);
    b.seq.fresh = false;
    assert_int_equal(b.seq.n_cached = w.cache->match(w.self, &b.seq), 8);
    step(&w, 1, (Text *[]){ &b }, (const int[]){ 12 });
    w.cache->truncate(w.self, &b.seq, 15); /* five were refused */
    b.seq.n_cached = 15, b.tokens[15] = 95;
    step(&w, 1, (Text *[]){ &b }, (const int[]){ 3 });
    w.cache->release(w.self, &b.seq);

    begin(&a, 3, 1), a.tokens[8] = 96, a.tokens[15] = 95, a.seq.n_tokens = 18; /* all of it: one is left to compute */
    assert_int_equal(a.seq.n_cached = w.cache->match(w.self, &a.seq), 17);
    step(&w, 1, (Text *[]){ &a }, (const int[]){ 1 });
    w.cache->release(w.self, &a.seq);
    begin(&b, 4, 5);
    assert_int_equal(w.cache->match(w.self, &b.seq), 0);
    step(&w, 1, (Text *[]){ &b }, (const int[]){ MAX_LEN });
    assert_int_equal(w.cache->room(w.self), 0);
    w.cache->destroy(w.self);
}

/* Sequences that begin alike, or go apart, in memory for little more than one. */
static void sharing(Device *d, const char *attention, const char *prefix, int to_the_token)
{
    World   w = open_with(d, "paged", attention, prefix, (const char *[]){ "block_size", "4", "bytes", kv_type == MI_F32 ? "23000" : "8400", "swap", "40 kB",
                                                                           NULL });
    Text    a, b, c, e;
    int64_t empty = w.cache->room(w.self);

    assert_in_range(empty, MAX_LEN, 2 * MAX_LEN);
    begin(&a, 1, 1), begin(&b, 2, 1), begin(&c, 3, 1), begin(&e, 4, 1);
    assert_int_equal(w.cache->match(w.self, &a.seq), 0);
    step(&w, 1, (Text *[]){ &a }, (const int[]){ 13 });
    step(&w, 1, (Text *[]){ &a }, (const int[]){ 5 });
    assert_true(w.cache->reserve(w.self, &a.seq, 19)); /* what is full by now is known by now */
    b.tokens[10] = 96;
    assert_int_equal(b.seq.n_cached = w.cache->match(w.self, &b.seq), to_the_token ? 10 : 8);
    step(&w, 2, (Text *[]){ &b, &a }, (const int[]){ 6, 1 });

    assert_true(w.cache->fork(w.self, &a.seq, &c.seq)); /* at 19, in the middle of a block */
    c.seq.n_cached = a.seq.n_cached, c.tokens[19] = 90;
    step(&w, 3, (Text *[]){ &c, &b, &a }, (const int[]){ 3, 1, 2 });
    step(&w, 3, (Text *[]){ &a, &b, &c }, (const int[]){ 1, 1, 1 });
    w.cache->truncate(w.self, &c.seq, c.seq.n_cached = 14); /* drafts that were refused, some in shared blocks */
    c.tokens[14] = 89;
    step(&w, 2, (Text *[]){ &a, &c }, (const int[]){ 1, 2 });

    assert_true(w.cache->swap_out(w.self, &d->ctx, &b.seq));
    assert_false(w.cache->swap_out(w.self, &d->ctx, &b.seq));
    assert_false(w.cache->reserve(w.self, &b.seq, b.seq.n_cached + 1));
    w.cache->release(w.self, &c.seq);
    while (a.seq.n_cached < MAX_LEN)
        step(&w, 1, (Text *[]){ &a }, (const int[]){ 1 });
    w.cache->release(w.self, &a.seq);
    assert_true(w.cache->swap_in(w.self, &d->ctx, &b.seq));
    step(&w, 1, (Text *[]){ &b }, (const int[]){ 3 });
    w.cache->release(w.self, &b.seq);
    assert_int_equal(w.cache->room(w.self), empty);

    e.seq.n_tokens = 20; /* all of it is there: one is left to compute, in a block that is known */
    assert_int_equal(e.seq.n_cached = w.cache->match(w.self, &e.seq), 19);
    step(&w, 1, (Text *[]){ &e }, (const int[]){ 1 });
    begin(&a, 5, 1);
    a.seq.n_cached = w.cache->match(w.self, &a.seq);
    assert_in_range(a.seq.n_cached, MAX_LEN - 4, MAX_LEN - 1); /* its end may have made room for b */
    step(&w, 2, (Text *[]){ &a, &e }, (const int[]){ MAX_LEN - a.seq.n_cached, 4 });
    w.cache->release(w.self, &e.seq);
    w.cache->release(w.self, &a.seq);
    begin(&b, 6, 7); /* nothing alike: what is there has to go */
    step(&w, 1, (Text *[]){ &b }, (const int[]){ MAX_LEN });
    assert_true(w.cache->swap_out(w.self, &d->ctx, &b.seq));
    w.cache->release(w.self, &b.seq);
    assert_int_equal(w.cache->room(w.self), empty);
    w.cache->destroy(w.self);
}

static void all_paged(Device *d, const char *attention)
{
    static const char *const sizes[] = { "1", "3", "16", "64" };

    several(d, "paged", attention);
    for (size_t i = 0; i < G_N_ELEMENTS(sizes); i++) {
        World w = open_with(d, "paged", attention, "hash", (const char *[]){ "block_size", sizes[i], NULL });
        several_in(w);
    }
    sharing(d, attention, "hash", false);
    sharing(d, attention, "trie", true);
}

static void all_that_fit_agree(void **state)
{
    (void)state;
    static const MiDType types[] = { MI_F32, MI_F8, MI_I8 };
    Device              *d = device_open("2");
    for (int a = 0; a < 2 * 3; a++) {
        const char *attention = a % 2 ? "gqa" : "simple";
        kv_type = types[a / 2];
        several(d, "none", attention);
        several(d, "batch", attention);
        one_after_the_other(d, attention);
        all_paged(d, attention);
    }
    kv_type = MI_F32;
    all_paged(d, "paged");
    device_close(d);
}

static int  n_sent;
static bool send(MiContext *ctx, void *dst, const void *src, size_t bytes, GError **error)
{
    (void)ctx, (void)error;
    memcpy(dst, src, bytes);
    n_sent++;
    return true;
}

/* A device whose memory is its own: what was not sent is not seen. */
static void tables_are_copied_to_a_device(void **state)
{
    (void)state;
    Device   *d = device_open("1");
    MiBackend far = *d->ctx.backend;

    far.unified = false;
    d->ctx.backend = &far;
    d->ctx.send = send;
    several(d, "none", "simple");
    several(d, "batch", "simple");
    one_after_the_other(d, "simple");
    all_paged(d, "simple");
    assert_true(n_sent > 0);
    device_close(d);
}

static void refuses(Device *d, const char *name, MiCacheSpec spec, const char *why)
{
    g_autoptr(GError) error = NULL;
    const MiCache    *c = device_find(d, MI_KIND_CACHE, name);
    assert_null(c->create(&d->ctx, &spec, NULL, &error));
    if (!strstr(error->message, why))
        fail_msg("'%s' does not say '%s'", error->message, why);
}

static void refuses_what_cannot_be(void **state)
{
    (void)state;
    Device     *d = device_open("1");
    MiCacheSpec spec = spec_of(device_find(d, MI_KIND_CACHE, "batch"));

    refuses(d, "full", spec, "cache 'full' holds one sequence, not 3; set [engine] max_seqs = 1 or cache = batch");
    spec.dtype = MI_I32;
    refuses(d, "batch", spec, "f32, f16 or bf16");
    spec.dtype = MI_I8, spec.head_dim = 10;
    refuses(d, "batch", spec, "fp8 or int8 for heads of a multiple of 4, not 10");
    spec.head_dim = DIM;
    spec.dtype = MI_F16, spec.max_len = 1 << 30;
    refuses(d, "batch", spec, "more than there can be");
    assert_true(((const MiCache *)device_find(d, MI_KIND_CACHE, "batch"))->bytes(&spec, NULL) == SIZE_MAX);
    spec.max_len = MAX_LEN, spec.budget = 1000;
    refuses(d, "paged", spec, "has memory for 0 positions, one sequence takes up to 40, which is");
    spec.max_seqs = 1, spec.max_len = 1 << 28, spec.n_layers = 1024, spec.head_dim = 1024;
    refuses(d, "full", spec, "memory");
    device_close(d);
}

TEST_MAIN(cmocka_unit_test(all_that_fit_agree), cmocka_unit_test(tables_are_copied_to_a_device),
          cmocka_unit_test(refuses_what_cannot_be));
