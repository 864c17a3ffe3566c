/* layer.cu - how the kernels of layer.cuh are laid out, and their launcher. */
#include "boxes.cuh"
#include "layer.cuh"

#include <algorithm>
#include <cmath>
#include <new>

namespace mi_layer
{

using mi_boxes::card, mi_boxes::describe;

typedef void (*Kernel)(Args);

/* ---- tiles ---------------------------------------------------------------------------- */

struct Variant {
    Kind   kind;
    int    tokens, n;
    Kernel kernel;
    int    known; /* bytes of what the ends need, without the angles */
};
#define VARIANT(KIND, TOKENS, N) {KIND, TOKENS, N, product<KIND, TOKENS, N>, Known<KIND, TOKENS, N>::TURNS}
static const Variant variants[] = {
    VARIANT(BACK, 32, 64),   VARIANT(BACK, 64, 64),   VARIANT(BACK, 128, 64),  VARIANT(BACK, 32, 128),   VARIANT(BACK, 64, 128),
    VARIANT(BACK, 128, 128), VARIANT(HEADS, 32, 64),  VARIANT(HEADS, 64, 64),  VARIANT(HEADS, 128, 64),  VARIANT(HEADS, 32, 128),
    VARIANT(HEADS, 64, 128), VARIANT(HEADS, 128, 128), VARIANT(GATED, 32, 80), VARIANT(GATED, 64, 80),   VARIANT(GATED, 128, 80),
    VARIANT(GATED, 32, 144), VARIANT(GATED, 64, 144),  VARIANT(GATED, 256, 80),   VARIANT(GATED, 256, 144),
    VARIANT(BACK, 192, 64),  VARIANT(GATED, 192, 144),
};

/* One of the products. */
struct Product {
    const Variant *v;
    int            width, boxes, tiles, groups; /* columns of x; tiles of W; of tokens */
    int            cluster, stages, smem;
    bool           alone; /* a block on its multiprocessor */
};

constexpr int UNDER_WAY = 44 << 10; /* of W, of each of two blocks at once; 33 or 60 KB are slower (docs/performance.md) */
constexpr int HALF = 113 << 10; /* of shared memory: of two blocks at once, of one product or of two that follow each other */
constexpr int WHOLE = 227 << 10;

static int stage_bytes(const Variant *v) { return (v->tokens + v->n) * ROW; }
static int sums_bytes(const Variant *v) { return sums_bytes(v->tokens, v->n); }

static int known_bytes(const Product *p)
{
    return p->v->known + (p->v->kind == HEADS ? p->v->tokens / p->cluster * p->v->n * 4 : 0);
}
/* Behind the ring. */
static int received_bytes(const Product *p) { return p->cluster > 1 && sends_numbers(p->v->tokens) ? sums_bytes(p->v) : 0; }
/* Where the ring was: a block's own, and what it gets. */
static int exchanged_bytes(const Product *p)
{
    return p->cluster == 1 ? sums_bytes(p->v) : sends_numbers(p->v->tokens) ? 0 : 2 * sums_bytes(p->v);
}

static bool lay_out(Product *p)
{
    const int stage = stage_bytes(p->v), rest = received_bytes(p) + known_bytes(p) + BARS_BYTES;
    const int least = std::max(2, (exchanged_bytes(p) + stage - 1) / stage);
    const int n = (p->boxes + p->cluster - 1) / p->cluster;

    p->alone = alone(p->v->tokens, p->v->n) || least * stage + rest > HALF;
    p->stages = std::min(((p->alone ? WHOLE : HALF) - rest) / stage, (int)MAX_STAGES);
    if (p->stages > n)
        p->stages = std::max(n, least);
    p->smem = p->stages * stage + rest;
    return p->stages >= least && p->smem <= card().smem && p->boxes >= p->cluster;
}

/* Clocks, about. Both sets of numbers are fitted to what some hundred layouts took on an H100 (docs/performance.md): up to 32 tokens
 * it is W that takes the time, beyond it is what a multiprocessor gets from the second-level cache, and what it multiplies. */
struct Fit {
    double shared, memory;            /* bytes a clock of a multiprocessor */
    double multiply;                  /* of 64 tokens times a row of W, a box of columns */
    double end, piece;                /* of a tile; of eight sums that a thread ends */
    double exchange, each, exchanged; /* in a cluster; for each other block there; a byte of sums */
    double place;                     /* of a block of o: gate and up's, which have most to fetch, are there so much later */
    double two;                       /* times as long as one take two at once */
    double alone, lonely;             /* times as many bytes gets one that is alone; and nobody begins beside it */
    double cache;                     /* of all multiprocessors: times what each gets */
};
static const Fit few = {.shared = 29.5, .memory = 19.6, .multiply = 1.05, .end = 1628, .piece = 1739, .exchange = 590,
                        .exchanged = 0.64, .place = 30, .two = 1.43, .alone = 1, .cache = 1};
static const Fit many = {.shared = 45.3, .memory = 28.9, .multiply = 1.88, .end = 500, .each = 319, .exchanged = 0.096,
                         .two = 1.3, .alone = 1.665, .lonely = 380, .cache = 1.443};

static double cost(const Product *p, int rows, bool before_most)
{
    const Variant *v = p->v;
    const Fit     &f = v->tokens > 32 ? many : few;
    const int      others = p->cluster - 1, blocks = p->tiles * p->cluster * p->groups;
    const int      each = (blocks + card().sms - 1) / card().sms; /* a multiprocessor, at most */
    const double   x = v->tokens > 32 ? std::min(rows, v->tokens) : v->tokens, bytes = (x + v->n) * ROW;
    const double   boxes = (p->boxes + p->cluster - 1) / p->cluster;
    const double   told = others ? f.exchange + f.each * others + f.exchanged * sums_bytes(v) * others / p->cluster : 0;
    const double   ends = f.end + f.piece * v->n / 16. / p->cluster + told;
    const double   get = f.shared * (p->alone ? f.alone : 1), multiply = std::max(1, v->tokens / 64) * f.multiply * v->n;
    const double   one = boxes * std::max(multiply, bytes / get) + ends;
    const double   all = p->alone ? each * one : each / 2 * f.two * one + each % 2 * one;
    const double   memory = (double)p->tiles * v->n * p->width * 2 / (f.memory * card().sms);

    return std::max({all, memory + ends, blocks * boxes * bytes / (f.shared * f.cache * card().sms) + ends}) +
           (before_most ? f.place * blocks : 0) + (p->alone ? f.lonely : 0);
}

enum { O, MLP, DOWN, QKV };

struct Sizes {
    Kind kind;
    int  width, out;
};
static Sizes sizes_of(const MiLayerShape *s, int product)
{
    const Sizes all[] = {{BACK, s->heads_width, s->hidden},
                         {GATED, s->hidden, s->ff},
                         {BACK, s->ff, s->hidden},
                         {HEADS, s->hidden, (s->n_heads + 2 * s->n_kv_heads) * s->head_dim}};
    return all[product];
}

static bool cut(Product *p, const MiLayerShape *s, int product, const Variant *v, int cluster)
{
    const Sizes z = sizes_of(s, product);
    const int   tile = z.kind == GATED ? v->n / 2 : v->n;

    *p = {.v = v,
          .width = z.width,
          .boxes = (z.width + BOX - 1) / BOX,
          .tiles = (z.out + tile - 1) / tile,
          .groups = (s->rows + v->tokens - 1) / v->tokens,
          .cluster = cluster};
    return v->kind == z.kind && (z.kind != HEADS || v->n == s->head_dim || 2 * v->n == s->head_dim) &&
           (z.kind != GATED || cluster == 1) && lay_out(p);
}

static bool choose(Product *best, const MiLayerShape *s, int product, bool whole_heads)
{
    double  least = INFINITY;
    Product p;

    for (const Variant &v : variants)
        for (int cluster = 1; cluster <= MAX_CLUSTER; cluster *= 2)
            if ((v.tokens == 32) == (s->rows <= 32) && (!whole_heads || v.n == s->head_dim) && cut(&p, s, product, &v, cluster) && cost(&p, s->rows, product == O) < least) {
                least = cost(&p, s->rows, product == O);
                *best = p;
            }
    return least < INFINITY;
}

} // namespace mi_layer

/* ---- the plan ----------------------------------------------------------------------- */

using namespace mi_layer;

struct MiLayer {
    MiLayerShape shape;
    Product      product[MI_LAYER_PRODUCTS];
    Product      whole; /* q, k and v where something is of all of a head, a norm or a scale */
    size_t       h, act, scaled[2], squares[2], bytes; /* where in the workspace */
};

static bool plan(MiLayer *l)
{
    const MiLayerShape *s = &l->shape;
    size_t              at = 0;
    auto                take = [&](size_t bytes) {
        const size_t here = at;
        at = (at + bytes + 255) / 256 * 256;
        return here;
    };

    for (int i = 0; i < (s->n_heads ? QKV + 1 : QKV); i++)
        if (!choose(&l->product[i], s, i, false) || mi_allow_smem(l->product[i].v->kernel, l->product[i].smem))
            return false;
    if (s->n_heads && (!choose(&l->whole, s, QKV, true) || mi_allow_smem(l->whole.v->kernel, l->whole.smem)))
        return false;
    l->h = take((size_t)s->rows * s->hidden * 2);
    l->act = take((size_t)s->rows * s->ff * 2);
    for (int i = 0; i < 2; i++) {
        l->scaled[i] = take((size_t)s->rows * s->hidden * 2);
        l->squares[i] = take((size_t)(s->hidden + 63) / 64 * s->rows * 4); /* of the narrowest tiles */
    }
    l->bytes = at;
    return true;
}

extern "C" int mi_cuda_layer_new(MiLayer **layer, const MiLayerShape *s)
{
    *layer = NULL;
    const bool wide = s->hidden % 8 == 0 && s->ff % 8 == 0 && s->heads_width % 8 == 0 && s->hidden > 0 && s->ff > 0 && s->heads_width > 0;
    if (!card().encode || !wide || s->rows < 1 || s->rows > MI_LAYER_MAX_ROWS)
        return cudaErrorNotSupported;
    MiLayer *l = new (std::nothrow) MiLayer();
    if (!l)
        return cudaErrorMemoryAllocation;
    l->shape = *s;
    if (!plan(l)) {
        (void)cudaGetLastError();
        delete l;
        return cudaErrorNotSupported;
    }
    *layer = l;
    return 0;
}

extern "C" void mi_cuda_layer_free(MiLayer *l) { delete l; }

extern "C" MiLayerTiles mi_cuda_layer_tiles(const MiLayer *l, int product)
{
    const Product *p = &l->product[product];
    return {p->v->tokens, p->v->n, p->cluster};
}

extern "C" int mi_cuda_layer_cut(MiLayer *l, int product, MiLayerTiles t)
{
    Product p;

    for (const Variant &v : variants)
        if (v.tokens == t.tokens && v.n == t.n && cut(&p, &l->shape, product, &v, t.cluster)) {
            l->product[product] = p;
            if (product == QKV && v.n == l->shape.head_dim)
                l->whole = p;
            return mi_allow_smem(v.kernel, p.smem);
        }
    return cudaErrorNotSupported;
}

extern "C" size_t mi_cuda_layer_workspace(const MiLayer *l) { return l->bytes; }

/* ---- running -------------------------------------------------------------------------- */

/* a.w, its end and what norms x are the caller's. */
static int launch(void *stream, const Product *p, Args *a, const void *x, int rows, int64_t x_stride, int out)
{
    const Variant *v = p->v;

    a->rows = rows;
    a->out = out;
    a->boxes = p->boxes;
    a->groups = (rows + v->tokens - 1) / v->tokens;
    a->cluster = p->cluster;
    a->stages = p->stages;
    a->under_way = std::clamp((p->alone ? 2 : 1) * UNDER_WAY / (v->n * ROW), 1, p->stages);
    a->received = sends_numbers(v->tokens) ? p->stages * stage_bytes(v) : 0;
    a->known = p->stages * stage_bytes(v) + received_bytes(p);
    a->bars = p->smem - BARS_BYTES;
    a->per_width = 1.f / p->width;
    if (!describe(&a->x, x, rows, p->width, x_stride, v->tokens))
        return cudaErrorInvalidValue;
    return mi_launch_clusters(v->kernel, dim3(p->tiles * a->groups * p->cluster), dim3(threads(v->tokens)), p->cluster,
                              p->smem, stream, *a);
}

extern "C" int mi_cuda_layer(void *stream, const MiLayer *l, const MiLayerCall *c)
{
    const MiLayerShape *s = &l->shape;
    const Product      *p = l->product;
    char               *room = (char *)c->workspace;
    bf16               *h = (bf16 *)(c->h.data ? c->h.data : room + l->h);
    bf16               *act = (bf16 *)(c->act.data ? c->act.data : room + l->act);
    const int64_t       h_stride = c->h.data ? c->h.stride[0] : s->hidden, act_stride = c->act.data ? c->act.stride[0] : s->ff;
    const int           rows = (int)c->a.shape[0];
    Args                a = {};
    int                 e;

    a.back = {.residual = (const bf16 *)c->x.data,
              .bias = c->o_bias,
              .gain = c->norm.gain,
              .y = h,
              .scaled = (bf16 *)(room + l->scaled[0]),
              .squares = (float *)(room + l->squares[0]),
              .r_stride = c->x.stride[0],
              .y_stride = h_stride,
              .offset = c->norm.offset};
    if (!describe(&a.w[0], c->o, s->hidden, s->heads_width, s->heads_width, p[O].v->n))
        return cudaErrorInvalidValue;
    if ((e = launch(stream, &p[O], &a, c->a.data, rows, c->a.stride[0], s->hidden)))
        return e;

    a.squares = a.back.squares;
    a.n_squares = p[O].tiles;
    a.eps = c->norm.eps;
    a.gated = {act, act_stride};
    if (!describe(&a.w[0], c->gate, s->ff, s->hidden, s->hidden, p[MLP].v->n / 2) ||
        !describe(&a.w[1], c->up, s->ff, s->hidden, s->hidden, p[MLP].v->n / 2))
        return cudaErrorInvalidValue;
    if ((e = launch(stream, &p[MLP], &a, room + l->scaled[0], rows, s->hidden, s->ff)))
        return e;

    a.back = {.residual = h,
              .bias = c->down_bias,
              .gain = s->n_heads ? c->next_norm.gain : NULL,
              .y = (bf16 *)c->y.data,
              .scaled = (bf16 *)(room + l->scaled[1]),
              .squares = (float *)(room + l->squares[1]),
              .r_stride = h_stride,
              .y_stride = c->y.stride[0],
              .offset = c->next_norm.offset};
    if (!describe(&a.w[0], c->down, s->hidden, s->ff, s->ff, p[DOWN].v->n))
        return cudaErrorInvalidValue;
    if ((e = launch(stream, &p[DOWN], &a, act, rows, act_stride, s->hidden)) || !s->n_heads)
        return e;

    a.squares = a.back.squares;
    a.n_squares = p[DOWN].tiles;
    a.eps = c->next_norm.eps;
    a.heads = {.bias = {c->qkv.bias[0], c->qkv.bias[1], c->qkv.bias[2]},
               .gain = {c->qkv.head_gain[0], c->qkv.head_gain[1]},
               .freqs = c->qkv.freqs,
               .positions = c->qkv.positions,
               .q = (bf16 *)c->qkv.q.data,
               .q_stride = c->qkv.q.stride[0],
               .kv = c->qkv.kv,
               .n_heads = s->n_heads,
               .n_kv_heads = s->n_kv_heads,
               .dim = s->head_dim,
               .magnitude = c->qkv.magnitude,
               .eps = c->qkv.head_eps,
               .offset = c->qkv.head_offset,
               .interleaved = s->interleaved};
    const bool     whole = a.heads.gain[0] || a.heads.gain[1] || mi_dtype_scaled(a.heads.kv.dtype);
    const Product *heads = whole ? &l->whole : &p[QKV];
    const int      n = heads->v->n, box = n < s->head_dim && !s->interleaved ? n / 2 : n; /* half a head's pairs are two boxes */
    for (int i = 0; i < 3; i++)
        if (!describe(&a.w[i], c->qkv.w[i], (int64_t)(i ? s->n_kv_heads : s->n_heads) * s->head_dim, s->hidden, s->hidden, box))
            return cudaErrorInvalidValue;
    return launch(stream, heads, &a, room + l->scaled[1], rows, s->hidden, (s->n_heads + 2 * s->n_kv_heads) * s->head_dim);
}

