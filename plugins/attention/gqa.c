/* gqa.c - attention for CPUs, fast: the heads of a group, and the rows of a prompt,
 * share every load of a key or value.
 *
 * Work is divided into blocks of MI_TILE_ROWS rows (position and head of the group,
 * flattened) of one key head.  A block walks over its keys in chunks of CHUNK logical
 * positions, a chunk in tiles, each with a running softmax of its own; chunks are added
 * up in order.  All borders lie at multiples of logical positions, so that a row's result
 * is the same to the bit whatever the batch, the layout, the number of threads, and
 * however the prompt was cut.  A few rows over a long context share out chunks, not
 * blocks (Flash-Decoding, Dao et al. 2023). */
#include <cpu/floats.h>
#include <math.h>
#include <miniinfer/plugin.h>
#include <stdatomic.h>

enum { CHUNK = 512, MAX_DIM = 512, LINE = 16 /* floats in a cache line */ };

typedef struct {
    const MiFloats *floats;
    int             n_threads, wide, group;
    size_t          scratch;  /* floats of a thread */
    size_t          part;     /* floats of a chunk's result: max, sum, out */
    int64_t         max_parts; /* that fit behind the scratch */
} State;

/* One step.  Item i: of sequence and key head i, or, in parts, a chunk of that. */
typedef struct {
    const State  *state;
    const MiCall *call;
    float        *parts; /* NULL: whole blocks */
    int           n_chunks; /* with parts: of every sequence, as far as it is that long */
    int64_t       n_items;
    _Atomic int64_t next;
} Step;

/* A thread's memory, and the rows at hand. */
typedef struct {
    MiTile  tile;
    int     seq, first_row, low, high; /* of the flattened rows of the sequence; keys that any sees */
    int32_t first[MI_TILE_ROWS], end[MI_TILE_ROWS];
    float  *max, *sum, *out; /* of the chunks so far */
} Block;

static size_t padded(size_t floats) { return (floats + LINE - 1) / LINE * LINE; }

/* The one place that knows what a thread's scratch holds; base NULL: only counts. */
static size_t carve(Block *b, float *base, int wide)
{
    const size_t sizes[] = { MI_TILE_ROWS * (size_t)wide, MI_TILE_KEYS * (size_t)wide, MI_TILE_KEYS * (size_t)wide,
                             MI_TILE_ROWS * MI_TILE_KEYS, MI_TILE_ROWS, MI_TILE_ROWS, MI_TILE_ROWS,
                             MI_TILE_ROWS * (size_t)wide, MI_TILE_ROWS, MI_TILE_ROWS, MI_TILE_ROWS * (size_t)wide };
    float       *at[G_N_ELEMENTS(sizes)];
    size_t       n = 0;

    for (size_t i = 0; i < G_N_ELEMENTS(sizes); n += padded(sizes[i++]))
        at[i] = base ? base + n : NULL;
    if (base) {
        b->tile.q = at[0];
        b->tile.keys = at[1], b->tile.values = at[2], b->tile.scores = at[3];
        b->tile.max = at[4], b->tile.sum = at[5], b->tile.keep = at[6], b->tile.out = at[7];
        b->max = at[8], b->sum = at[9], b->out = at[10];
    }
    return n;
}

/* ---- a block ------------------------------------------------------------------- */

static int rows_of(const MiBatch *b, int seq) { return b->seq_start[seq + 1] - b->seq_start[seq]; }

/* Gathers its queries, scaled, and what each may see. */
static void gather(const Step *step, Block *b, int seq, int head, int first_row)
{
    const MiArgs   *a = step->call->at;
    const MiAttend *attr = a->node->attr;
    const MiBatch  *batch = step->call->batch;
    const MiTensor *q = &a->in[0];
    MiTile         *t = &b->tile;
    const int       group = step->state->group, start = a->kv->kv_start ? a->kv->kv_start[seq] : 0;
    const int       len = a->kv->kv_len[seq] - start;

    t->kv = a->kv, t->seq = seq, t->head = head, t->start = start;
    t->dim = a->kv->head_dim, t->wide = step->state->wide;
    t->softcap = attr->softcap;
    t->first = b->first, t->end = b->end;
    t->n_rows = MIN(MI_TILE_ROWS, rows_of(batch, seq) * group - first_row);
    b->seq = seq, b->first_row = first_row, b->low = INT32_MAX, b->high = 0;
    for (int r = 0; r < t->n_rows; r++) {
        const int    row = batch->seq_start[seq] + (first_row + r) / group, h = head * group + (first_row + r) % group;
        const float *from = (const float *)q->data + row * q->stride[0] + h * q->stride[1];
        float       *to = (float *)(uintptr_t)t->q + (int64_t)r * t->wide;

        step->state->floats->scale(from, to, t->dim, attr->scale);
        for (int d = t->dim; d < t->wide; d++)
            to[d] = 0;
        b->end[r] = attr->bidirectional ? len : MIN(batch->positions[row] + 1, len);
        b->first[r] = attr->window ? MAX(0, batch->positions[row] + 1 - attr->window) : 0;
        b->low = MIN(b->low, b->first[r]);
        b->high = MAX(b->high, b->end[r]);
    }
}

static void clear(const MiTile *t, float *max, float *sum, float *out)
{
    for (int r = 0; r < t->n_rows; r++)
        max[r] = -INFINITY, sum[r] = 0;
    memset(out, 0, (size_t)t->n_rows * (size_t)t->wide * sizeof *out);
}

/* The block's rows over the keys of one chunk, into the tile's max, sum and out. */
static void one_chunk(const Step *step, Block *b, int chunk)
{
    const int end = MIN((chunk + 1) * CHUNK, b->high);

    clear(&b->tile, b->tile.max, b->tile.sum, b->tile.out);
    for (int t0 = chunk * CHUNK; t0 < end; t0 += MI_TILE_KEYS)
        if (t0 + MI_TILE_KEYS > b->low)
            step->state->floats->attend(&b->tile, t0, MIN(t0 + MI_TILE_KEYS, end));
}

static void scatter(const Step *step, const Block *b)
{
    const MiTile   *t = &b->tile;
    const MiTensor *out = &step->call->at->out[0];
    const int       group = step->state->group;

    for (int r = 0; r < t->n_rows; r++) {
        const int row = step->call->batch->seq_start[b->seq] + (b->first_row + r) / group;
        const int h = t->head * group + (b->first_row + r) % group;
        float    *to = (float *)out->data + row * out->stride[0] + h * out->stride[1];
        /* no keys: zeros */
        step->state->floats->scale(b->out + (int64_t)r * t->wide, to, t->dim, b->sum[r] > 0 ? 1 / b->sum[r] : 0);
    }
}

/* ---- sharing ------------------------------------------------------------------- */

static int blocks_of(const Step *s, int seq)
{
    return (rows_of(s->call->batch, seq) * s->state->group + MI_TILE_ROWS - 1) / MI_TILE_ROWS;
}

/* The last blocks of a prompt see the most keys: they come first. */
static void whole_block(const Step *step, Block *b, int64_t item)
{
    const int n_heads = step->call->at->kv->n_kv_heads;
    int       seq = 0;

    while (item >= (int64_t)blocks_of(step, seq) * n_heads)
        item -= (int64_t)blocks_of(step, seq++) * n_heads;
    gather(step, b, seq, (int)(item % n_heads), (blocks_of(step, seq) - 1 - (int)(item / n_heads)) * MI_TILE_ROWS);
    clear(&b->tile, b->max, b->sum, b->out);
    for (int c = b->low / CHUNK; c * CHUNK < b->high; c++) {
        one_chunk(step, b, c);
        step->state->floats->merge(b->tile.n_rows, b->tile.wide, b->max, b->sum, b->out, b->tile.max, b->tile.sum,
                                   b->tile.out);
    }
    scatter(step, b);
}

/* A part lies as max, sum and out of one key head's rows. */
static float *part_at(const Step *s, int64_t item) { return s->parts + (size_t)item * s->state->part; }

static void one_part(const Step *step, Block *b, int64_t item)
{
    const int    n_heads = step->call->at->kv->n_kv_heads, chunk = (int)(item % step->n_chunks);
    const int    seq = (int)(item / step->n_chunks / n_heads), head = (int)(item / step->n_chunks % n_heads);
    float       *part = part_at(step, item);
    const size_t side = padded((size_t)step->state->group);

    if (rows_of(step->call->batch, seq) == 0)
        return;
    gather(step, b, seq, head, 0);
    b->tile.max = part, b->tile.sum = part + side, b->tile.out = part + 2 * side;
    one_chunk(step, b, chunk);
}

/* Adds a head's parts up, in order. */
static void sum_parts(const Step *step, Block *b, int seq, int head)
{
    const size_t  side = padded((size_t)step->state->group);
    const int64_t first = ((int64_t)seq * step->call->at->kv->n_kv_heads + head) * step->n_chunks;

    gather(step, b, seq, head, 0);
    clear(&b->tile, b->max, b->sum, b->out);
    for (int c = b->low / CHUNK; c * CHUNK < b->high; c++) {
        const float *part = part_at(step, first + c);
        step->state->floats->merge(b->tile.n_rows, b->tile.wide, b->max, b->sum, b->out, part, part + side,
                                   part + 2 * side);
    }
    scatter(step, b);
}

static void work(void *arg, int i, int n)
{
    (void)n;
    Step   *step = arg;
    Block   b;
    int64_t item;

    carve(&b, (float *)step->call->workspace + (size_t)i * step->state->scratch, step->state->wide);
    while ((item = atomic_fetch_add_explicit(&step->next, 1, memory_order_relaxed)) < step->n_items)
        (step->parts ? one_part : whole_block)(step, &b, item);
}

/* ---- the op -------------------------------------------------------------------- */

static void count_threads(void *arg, int i, int n)
{
    if (i == 0)
        *(int *)arg = n;
}

static bool prepare(MiContext *ctx, const MiCall *call, void **state, size_t *workspace, GError **error)
{
    const MiTensor *q = &call->at->in[0];
    const MiKvView *kv = call->at->kv;
    State          *s;

    if (q->dtype != MI_F32 || q->ndim != 3 || q->shape[2] > MAX_DIM || (kv && q->shape[1] % kv->n_kv_heads)) {
        g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED,
                    "attention 'gqa' takes f32 heads of at most %d elements; set [engine] attention = simple", MAX_DIM);
        return false;
    }
    *state = s = g_new0(State, 1);
    s->floats = mi_floats();
    s->n_threads = 1;
    if (MI_HAS(ctx->backend, parallel))
        ctx->backend->parallel(ctx->device, count_threads, &s->n_threads);
    s->wide = (int)(q->shape[2] + MI_FLOATS_PAD - 1) / MI_FLOATS_PAD * MI_FLOATS_PAD;
    s->scratch = carve(NULL, NULL, s->wide);
    /* Parts pay where there are fewer heads than would keep all threads busy. */
    s->part = 2 * padded((size_t)q->shape[1]) + (size_t)q->shape[1] * (size_t)s->wide;
    s->max_parts = s->n_threads > 1 ? 8 * (int64_t)s->n_threads * ((call->shape.max_kv + CHUNK - 1) / CHUNK) : 0;
    *workspace = ((size_t)s->n_threads * s->scratch + (size_t)s->max_parts * s->part) * sizeof(float);
    return true;
}

/* How many chunks the longest sequence has, where sharing them out pays; else 0. */
static int chunks_to_share(const State *s, const MiCall *call)
{
    const MiKvView *kv = call->at->kv;
    const MiBatch  *b = call->batch;
    int             longest = 0, rows = 0;

    for (int seq = 0; seq < b->shape.n_seqs; seq++) {
        rows = MAX(rows, rows_of(b, seq));
        longest = MAX(longest, kv->kv_len[seq] - (kv->kv_start ? kv->kv_start[seq] : 0));
    }
    const int     n = (longest + CHUNK - 1) / CHUNK;
    const int64_t heads = (int64_t)b->shape.n_seqs * kv->n_kv_heads;
    const bool    pays = n > 1 && rows == 1 && s->group <= MI_TILE_ROWS && heads < 4 * s->n_threads;
    return pays && heads * n <= s->max_parts ? n : 0;
}

static bool run(void *state, MiContext *ctx, const MiCall *call, GError **error)
{
    (void)error;
    State *s = state;
    Step   step = { .state = s, .call = call };

    s->group = (int)call->at->in[0].shape[1] / call->at->kv->n_kv_heads;
    for (int seq = 0; seq < call->batch->shape.n_seqs; seq++)
        step.n_items += (int64_t)blocks_of(&step, seq) * call->at->kv->n_kv_heads;
    if ((step.n_chunks = chunks_to_share(s, call))) {
        step.parts = (float *)call->workspace + (size_t)s->n_threads * s->scratch;
        step.n_items = (int64_t)call->batch->shape.n_seqs * call->at->kv->n_kv_heads * step.n_chunks;
    }
    if (step.n_items > 1 && s->n_threads > 1)
        ctx->backend->parallel(ctx->device, work, &step);
    else
        work(&step, 0, 1);
    if (step.parts) {
        Block b;
        carve(&b, call->workspace, s->wide);
        for (int seq = 0; seq < call->batch->shape.n_seqs; seq++)
            for (int h = 0; h < call->at->kv->n_kv_heads && rows_of(call->batch, seq); h++)
                sum_parts(&step, &b, seq, h);
    }
    return true;
}

static const MiOp gqa_op = {
    .struct_size = sizeof gqa_op, .n_in = 2, .n_out = 1, .attr_size = sizeof(MiAttend), .splits = true,
    .prepare = prepare, .run = run, .release = g_free,
    .batch_invariant = true,
};

static const char *const layouts[] = { "contiguous", "tail", "paged", NULL };

static const MiAttention gqa = {
    .struct_size = sizeof gqa,
    .layouts = layouts,
    .dtypes = 1u << MI_F32 | 1u << MI_F16 | 1u << MI_BF16 | 1u << MI_F8 | 1u << MI_I8,
    .prefill = true,
    .decode = true,
    .window = true,
    .softcap = true,
    .rank = 10,
    .op = &gqa_op,
};

/* The same, by the name of what it reads: `attention = paged` asks for paged memory. */
static const char *const paged_layouts[] = { "paged", NULL };

static const MiAttention paged = {
    .struct_size = sizeof paged,
    .layouts = paged_layouts,
    .dtypes = 1u << MI_F32 | 1u << MI_F16 | 1u << MI_BF16 | 1u << MI_F8 | 1u << MI_I8,
    .prefill = true,
    .decode = true,
    .window = true,
    .softcap = true,
    .op = &gqa_op,
};

MI_PLUGIN("gqa", "0.1", "Grouped-query attention in tiles", MI_FEATURE_ATTENTION("gqa", "cpu", &gqa, NULL),
          MI_FEATURE_ATTENTION("paged", "cpu", &paged, NULL));
