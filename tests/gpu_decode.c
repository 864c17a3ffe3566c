/* gpu_decode.c - the weight-streaming kernels of decode steps against plain loops in
 * double; with MI_BENCH=1 what they and a whole step take.  MI_BENCH_LAYOUTS=file:
 * lines "0.5B gated.teams=4 down.flight=2" of layouts to time as well. */
#include "gpu_decode_stored.h"

/* ---- the slow and obvious way --------------------------------------------------------- */

static double *normed(const Array *x, const Array *gain, int rows, int in, double eps, double offset)
{
    double *y = malloc((size_t)rows * in * sizeof *y);
    for (int r = 0; r < rows; r++) {
        double sum = 0;
        for (int i = 0; i < in; i++)
            sum += (double)x->host[r * in + i] * x->host[r * in + i];
        for (int i = 0; i < in; i++)
            y[r * in + i] = x->host[r * in + i] / sqrt(sum / in + eps) * (offset + gain->host[i]);
    }
    return y;
}

static double *widened(const Array *x)
{
    double *y = malloc(x->n * sizeof *y);
    for (size_t i = 0; i < x->n; i++)
        y[i] = x->host[i];
    return y;
}

static double *product(const double *x, const Array *w, const float *bias, int rows, int in, int out)
{
    double *y = malloc((size_t)rows * out * sizeof *y);
    for (int r = 0; r < rows; r++)
        for (int o = 0; o < out; o++) {
            double sum = bias ? bias[o] : 0;
            for (int i = 0; i < in; i++)
                sum += x[r * in + i] * w->host[(size_t)o * in + i];
            y[r * out + o] = sum;
        }
    return y;
}

/* ---- one case of each kind, in several layouts ------------------------------------------ */

typedef struct {
    MiGemvKind kind;
    int        rows, in, out, layout, norm_dim;
} Case;
enum { N_LAYOUTS = 4, MOST = MI_GEMV_MAX_ROWS };

/* As where rows are padded: more than there will be. */
static int planned_rows(int rows) { return rows > MI_GEMV_FEW_ROWS ? (rows + 7) / 8 * 8 : rows; }

/* Beyond a few rows, 0: as planned; else columns in 2, 4, 8 parts, few clusters, a short ring. */
static bool planned_many(const Case *c, MiGemvPlan *p)
{
    p->split = 1 << (c->rows + c->layout) % 4;
    p->cluster = 1 << c->layout;
    if (p->split > p->cluster)
        p->split = p->cluster;
    p->grid = p->cluster * (c->layout == 3 ? 1 : c->layout == 2 ? 3 : 2);
    p->stages = 2 + c->rows % 3;
    p->flight = 1 + c->rows % 2;
    const bool ok = mi_cuda_gemv_lay_out(p) == 0;
    (void)cudaGetLastError();
    return ok;
}

/* Of 4 and 8 bit, 0: as planned; few blocks, a ring that goes round, other slices and teams. */
static bool planned_packed(const Case *c, MiGemvPlan *p)
{
    static const int slices[] = {0, 100000, 3, 16}, teams[] = {0, 4, 1, 1};
    const int        chunks = (int)mi_quant_chunks(c->in);

    p->slice = slices[c->layout] < chunks ? slices[c->layout] : chunks;
    p->teams = p->slice == chunks ? teams[c->layout] : 1;
    p->team = c->layout == 2 ? 5 : 2;
    p->grid = c->layout == 2 ? 1 : 2;
    p->stages = p->teams * (c->layout == 3 ? 3 : 2);
    p->flight = 1 + c->layout % 2;
    p->ahead = 3;
    const bool ok = mi_cuda_gemv_lay_out(p) == 0;
    (void)cudaGetLastError();
    return ok;
}

/* 0: as planned; 1: few blocks, a ring that goes round; 2: half tiles; 3: without a ring. */
static bool planned(const Case *c, MiGemvPlan *p)
{
    *p = (MiGemvPlan){
        .kind = c->kind, .dtype = MI_BF16, .rows = planned_rows(c->rows), .in = c->in, .out = c->out, .norm_dim = c->norm_dim, .form = form};
    const int e = mi_cuda_gemv_plan(p);
    if (e && c->rows > 16 && c->in > 9000)
        return false; /* more of x than eight blocks can hold */
    must(e, "planning");
    if (c->layout == 0)
        return true;
    if (form.bits > 0)
        return planned_packed(c, p);
    if (c->rows > MI_GEMV_FEW_ROWS)
        return planned_many(c, p);
    if (c->layout == 3) {
        p->direct = true;
        p->teams = p->team > 4 ? 1 : 4 / p->team;
    } else {
        p->direct = false;
        p->teams = p->team > 6 ? 1 : c->layout == 1 && p->team < 3 ? 4 : 2;
        p->stage_rows = c->layout == 1 ? c->rows % 2 ? 2 : 2 * p->teams : 1;
        if (p->stage_rows * c->in * 2 > 80 << 10)
            p->stage_rows = 1;
        p->stages = p->stage_rows < 2 * p->teams ? 4 : 2;
        p->flight = 1 + c->layout % 2;
        p->ahead = 3;
        p->grid = 3;
    }
    const bool ok = mi_cuda_gemv_lay_out(p) == 0;
    (void)cudaGetLastError();
    return ok;
}

static double plain(const Case *c, const MiGemvPlan *p)
{
    const bool     f32 = c->out % 2, has_bias = c->in % 3 != 0;
    const Array    x = random_bf16((size_t)c->rows * c->in, 0, 1), w = random_bf16((size_t)c->out * c->in, 0, 0.1f);
    const Array    bias = random_f32((size_t)c->out, 0, 1), res = random_bf16((size_t)c->rows * c->out, 0, 1);
    const size_t   n = (size_t)c->rows * c->out;
    const bool     residual = c->kind == MI_GEMV_RESIDUAL;
    void          *y = upload(NULL, n * 4), *wd = stored(&w, 0, c->out, c->in, 0);
    const MiGemvPlan own = with_scales(p);
    const MiDType  type = f32 && !residual ? MI_F32 : MI_BF16;
    const MiTensor tx = tensor(x.device, MI_BF16, c->rows, c->in), ty = tensor(y, type, c->rows, c->out);

    if (residual)
        must(mi_cuda_gemv_residual(NULL, &own, tx, wd, has_bias ? bias.device : NULL,
                                   tensor(res.device, MI_BF16, c->rows, c->out), ty),
             "residual");
    else
        must(mi_cuda_gemv(NULL, &own, tx, wd, has_bias ? bias.device : NULL, ty), "plain");
    double *wide = widened(&x), *want = product(wide, &w, has_bias ? bias.host : NULL, c->rows, c->in, c->out);
    for (size_t i = 0; i < n && residual; i++)
        want[i] += res.host[i];
    float       *got = fetch(y, n, type);
    const double d = distance(got, want, n);
    free(wide), free(want), free(got), free(x.host), free(w.host), free(bias.host), free(res.host);
    return d;
}

static double gated(const Case *c, const MiGemvPlan *p)
{
    const Array  x = random_bf16((size_t)c->rows * c->in, 0.1f, 2), gain = random_f32((size_t)c->in, 1, 0.5f);
    const Array  g = random_bf16((size_t)c->out * c->in, 0, 0.1f), u = random_bf16((size_t)c->out * c->in, 0, 0.1f);
    const size_t n = (size_t)c->rows * c->out;
    void        *y = upload(NULL, n * 2), *gd = stored(&g, 0, c->out, c->in, 0), *ud = stored(&u, 0, c->out, c->in, 1);
    const MiGemvPlan own = with_scales(p);

    must(mi_cuda_gemv_gated(NULL, &own, tensor(x.device, MI_BF16, c->rows, c->in), (MiGemvNorm){gain.device, 1e-5f, 0.25f},
                            gd, ud, tensor(y, MI_BF16, c->rows, c->out)),
         "gated");
    double *nx = normed(&x, &gain, c->rows, c->in, 1e-5, 0.25), *a = product(nx, &g, NULL, c->rows, c->in, c->out);
    double *b = product(nx, &u, NULL, c->rows, c->in, c->out);
    for (size_t i = 0; i < n; i++)
        a[i] = a[i] / (1 + exp(-a[i])) * b[i];
    float       *got = fetch(y, n, MI_BF16);
    const double d = distance(got, a, n);
    free(nx), free(a), free(b), free(got), free(x.host), free(gain.host), free(g.host), free(u.host);
    return d;
}

static double head(const Case *c, const MiGemvPlan *p)
{
    const int     tokens = c->rows + 2;
    int32_t       pick[MOST] = {5 % tokens, 1, 2, 0}, slots[MOST] = {2, -1, 0, 3}, drawn[MOST], tokens_out[MOST];
    const Array   x = random_bf16((size_t)tokens * c->in, 0.1f, 2), gain = random_f32((size_t)c->in, 1, 0.5f);
    const Array   w = random_bf16((size_t)c->out * c->in, 0, 0.1f);
    const size_t  n = (size_t)c->rows * c->out;
    for (int i = 0; i < MOST; i++) {
        drawn[i] = -7;
        if (i >= 4) {
            pick[i] = i * 7 % tokens;
            slots[i] = i;
        }
    }
    void *y = upload(NULL, n * 4), *best = upload(NULL, (size_t)c->rows * p->grid * sizeof(MiCandidate));
    void *rows = upload(pick, sizeof pick), *slot = upload(slots, sizeof slots), *d = upload(drawn, sizeof drawn),
         *t = upload(NULL, sizeof tokens_out), *wd = stored(&w, 0, c->out, c->in, 0);
    const MiGemvPlan own = with_scales(p);

    must(mi_cuda_gemv_head(NULL, &own, tensor(x.device, MI_BF16, tokens, c->in), rows, (MiGemvNorm){gain.device, 1e-5f, 0},
                           wd, tensor(y, MI_F32, c->rows, c->out), best),
         "head");
    must(mi_cuda_gemv_pick(NULL, best, p->grid, c->rows, t, d, slot), "pick");
    double *nx = normed(&x, &gain, tokens, c->in, 1e-5, 0), *all = product(nx, &w, NULL, tokens, c->in, c->out);
    double *want = malloc(n * sizeof *want);
    float  *got = fetch(y, n, MI_F32);
    for (int r = 0; r < c->rows; r++)
        memcpy(want + (size_t)r * c->out, all + (size_t)pick[r] * c->out, (size_t)c->out * sizeof *want);
    double error = distance(got, want, n);
    download(drawn, d, sizeof drawn);
    download(tokens_out, t, sizeof(int32_t) * (size_t)c->rows);
    for (int r = 0; r < c->rows; r++) { /* the best of the logits that were written, exactly */
        int at = 0;
        for (int i = 1; i < c->out; i++)
            if (got[(size_t)r * c->out + i] > got[(size_t)r * c->out + at])
                at = i;
        if (tokens_out[r] != at || (slots[r] >= 0 && drawn[slots[r]] != at))
            error = 1;
    }
    if (drawn[1] != -7)
        error = 2;
    free(nx), free(all), free(want), free(got), free(x.host), free(gain.host), free(w.host);
    return error;
}

enum { HEADS = 3, KV_HEADS = 2, CAPACITY = 16, BLOCKS = 5 };

static double turned(double a, double b, const Array *freqs, int i, int position, bool second)
{
    const double t = (double)((float)position * freqs->host[i]), c = 1.1 * cos(t), s = 1.1 * sin(t);
    return second ? b * c + a * s : a * c - b * s;
}

static double qkv(const Case *c, const MiGemvPlan *p, int dim, int turns, bool interleaved, bool has_bias)
{
    const int     rows = c->rows, nq = HEADS * dim, nk = KV_HEADS * dim, all = nq + 2 * nk;
    const Array   x = random_bf16((size_t)rows * c->in, 0.1f, 2), gain = random_f32((size_t)c->in, 1, 0.5f);
    const Array   w = random_bf16((size_t)all * c->in, 0, 0.1f), bias = random_f32((size_t)all, 0, 1);
    const Array   freqs = random_f32((size_t)turns / 2, 0.5f, 0.5f), heads = random_f32((size_t)2 * dim, 1, 0.5f);
    int32_t       positions[MOST] = {7, 0, 100003, 31}, slots[MOST] = {21, 0, -1, CAPACITY * BLOCKS - 1};
    const size_t  n_kv = (size_t)BLOCKS * KV_HEADS * CAPACITY * dim;
    for (int i = 4; i < MOST; i++) {
        positions[i] = 37 * i;
        slots[i] = i % 11 == 9 ? -1 : i + 1; /* 20 would be 21 */
    }
    MiGemvQkv     q = {
            .freqs = freqs.device,
            .positions = upload(positions, sizeof positions),
            .n_heads = HEADS,
            .n_kv_heads = KV_HEADS,
            .head_dim = dim,
            .head_gain = {heads.device, (const float *)heads.device + dim},
            .head_eps = 1e-5f,
            .head_offset = 0.125f,
            .rope_dim = turns,
            .interleaved = interleaved,
            .magnitude = 1.1f,
            .q = tensor(upload(NULL, (size_t)rows * nq * 2), MI_BF16, rows, nq),
            .kv = {.k = upload(NULL, n_kv * 4),
                   .v = upload(NULL, n_kv * 4),
                   .dtype = interleaved ? MI_F32 : MI_BF16,
                   .n_kv_heads = KV_HEADS,
                   .head_dim = dim,
                   .stride_block = KV_HEADS * CAPACITY * dim,
                   .stride_token = dim,
                   .stride_head = CAPACITY * dim,
                   .block_size = CAPACITY,
                   .max_blocks = 1,
                   .slots = upload(slots, sizeof slots)},
    };
    for (int i = 0; i < 3; i++)
        q.w[i] = stored(&w, i == 0 ? 0 : i == 1 ? nq : nq + nk, i ? nk : nq, c->in, i);
    const MiGemvPlan own = with_scales(p);
    for (int i = 0; i < 3 && has_bias; i++)
        q.bias[i] = (const float *)bias.device + (i == 0 ? 0 : i == 1 ? nq : nq + nk);
    must(mi_cuda_gemv_qkv(NULL, &own, tensor(x.device, MI_BF16, rows, c->in), (MiGemvNorm){gain.device, 1e-5f, 0}, &q),
         "qkv");

    double *nx = normed(&x, &gain, rows, c->in, 1e-5, 0),
           *y = product(nx, &w, has_bias ? bias.host : NULL, rows, c->in, all);
    for (int r = 0; r < rows && c->norm_dim; r++) /* each head of q and k */
        for (int h = 0; h < HEADS + KV_HEADS; h++) {
            double *v = y + (size_t)r * all + h * dim, sum = 0;
            for (int e = 0; e < dim; e++)
                sum += v[e] * v[e];
            for (int e = 0; e < dim; e++)
                v[e] *= (0.125 + heads.host[(h < HEADS ? 0 : dim) + e]) / sqrt(sum / dim + 1e-5);
        }
    float *gq = fetch(q.q.data, (size_t)rows * nq, MI_BF16), *gk = fetch(q.kv.k, n_kv, q.kv.dtype),
          *gv = fetch(q.kv.v, n_kv, q.kv.dtype);
    double d = 0, s = 0;
    size_t kept = 2 * n_kv;
    for (int r = 0; r < rows; r++)
        for (int h = 0; h < HEADS + 2 * KV_HEADS; h++)
            for (int e = 0; e < dim; e++) {
                const double *v = y + (size_t)r * all + h * dim;
                double        want = v[e];
                if (h < HEADS + KV_HEADS && e < turns) {
                    const int i = interleaved ? e / 2 : e % (turns / 2), a = interleaved ? e / 2 * 2 : i;
                    want = turned(v[a], v[a + (interleaved ? 1 : turns / 2)], &freqs, i, positions[r], e != a);
                }
                const int64_t at =
                    slots[r] < 0 ? -1 : slots[r] / CAPACITY * q.kv.stride_block + slots[r] % CAPACITY * dim;
                const int kh = h < HEADS ? 0 : (h - HEADS) % KV_HEADS;
                if (h >= HEADS && at < 0)
                    continue;
                const float got = h < HEADS ? gq[(size_t)r * nq + h * dim + e]
                                            : (h < HEADS + KV_HEADS ? gk : gv)[at + kh * q.kv.stride_head + e];
                kept -= h >= HEADS;
                d += (got - want) * (got - want);
                s += want * want;
            }
    for (size_t i = 0; i < n_kv; i++) /* nothing else was written */
        kept -= isnan(gk[i]) + isnan(gv[i]);
    free(nx), free(y), free(gq), free(gk), free(gv), free(x.host), free(gain.host), free(w.host), free(bias.host),
        free(freqs.host), free(heads.host);
    return kept ? 2 : sqrt(d / s);
}

static const char *const kinds[] = {"plain", "residual", "gated", "qkv", "head"};

static void one(Case c, const int *heads)
{
    MiGemvPlan p;
    char       what[128];
    double     error;

    if (!planned(&c, &p))
        return; /* no such kernel, or more than fits */
    if (c.kind == MI_GEMV_QKV)
        error = qkv(&c, &p, heads[0], heads[1], heads[2], heads[3]);
    else
        error = c.kind == MI_GEMV_GATED ? gated(&c, &p) : c.kind == MI_GEMV_HEAD ? head(&c, &p) : plain(&c, &p);
    char how[32] = "";
    if (blocks)
        snprintf(how, sizeof how, " %s", blocks->name);
    else if (form.bits)
        snprintf(how, sizeof how, " %s%d g%d%s", form.bits < 0 ? "fp" : "int", abs(form.bits), form.group, form.zeros ? " zeros" : "");
    snprintf(what, sizeof what, "%s%s%s, %d rows of %d, %d out, %d blocks, %d x %d warps, %s%d stages of %d rows",
             kinds[c.kind], how, c.norm_dim ? " with normed heads" : "", c.rows, c.in, c.out, p.grid, p.teams, p.team,
             p.direct ? "direct, " : "", p.stages, form.bits > 0 ? p.slice : p.stage_rows);
    check(error < (c.kind == MI_GEMV_GATED ? 8e-3 : 4e-3), what, error); /* gated: a product of two that round x */
    free_all();
}

/* Of the widths: all; with MI_QUICK every so many'th; for racecheck, which takes seconds for each kernel, the `middle` one alone. */
static size_t first_of(size_t middle) { return quick > 1 ? middle : 0; }
static size_t step_of(size_t some) { return quick > 1 ? 100 : quick ? some : 1; }

static void compare(void)
{
    static const int ins[] = {64, 72, 576, 896, 1536, 2048, 3584, 4864, 8960, 18944};
    static const int counts[] = {1, 2, 3, 4, 5, 8, 13, 16, 17, 27, 32};
    static const int heads[][4] = {{64, 64, 0, 1}, {128, 128, 0, 0}, {64, 64, 1, 1},
                                   {8, 8, 0, 0},   {96, 32, 0, 1},   {80, 40, 1, 0}};
    int              turn = 0;

    for (size_t i = first_of(3); i < sizeof ins / sizeof *ins; i += step_of(4))
        for (size_t n = 0; n < sizeof counts / sizeof *counts; n += quick > 1 ? 9 : quick ? 3 : 1)
            for (int layout = 0; layout < (quick > 1 ? 1 : N_LAYOUTS); layout += quick ? 2 : 1, turn++) {
                const int in = ins[i], rows = counts[n], big = in > 4000, *h = heads[turn % 6];
                if (rows > MI_GEMV_FEW_ROWS && layout && (turn + n) % 3 == 0)
                    continue;
                const bool wide = in <= 4096;
                one((Case){MI_GEMV_PLAIN, rows, in, big ? 37 : 131, layout, 0}, NULL);
                one((Case){MI_GEMV_RESIDUAL, rows, in, big ? 40 : 200, layout, 0}, NULL);
                if (!wide)
                    continue;
                one((Case){MI_GEMV_GATED, rows, in, 51, layout, 0}, NULL);
                one((Case){MI_GEMV_HEAD, rows, in, 301, layout, 0}, NULL);
                one((Case){MI_GEMV_QKV, rows, in, (HEADS + 2 * KV_HEADS) * h[0], layout, 0}, h);
                if (rows == 1 && layout == 0)
                    for (int k = 0; k < 6; k += quick ? 4 : 1)
                        one((Case){MI_GEMV_QKV, 1, in, (HEADS + 2 * KV_HEADS) * heads[k][0], 0, heads[k][0]}, heads[k]);
            }
}

/* The same with weights of 4 and 8 bit, whose sums are exact but for x: its 15 bits. */
static void compare_packed(void)
{
    static const MiQuantForm forms[] = {{.bits = 4, .group = 128},
                                        {.bits = 8},
                                        {.bits = 4, .group = 64, .zeros = true},
                                        {.bits = 8, .zeros = true},
                                        {.bits = 4, .group = 32, .zeros = true},
                                        {.bits = 4, .group = 32}};
    static const int ins[] = {64, 72, 576, 896, 1544, 3584, 4864, 18944}, counts[] = {1, 2, 3, 4};
    static const int heads[][4] = {{64, 64, 0, 1}, {128, 128, 0, 0}, {64, 64, 1, 1}, {80, 32, 1, 0}, {96, 32, 0, 1}};
    int              turn = 0;

    for (size_t i = first_of(3); i < sizeof ins / sizeof *ins; i += step_of(3))
        for (size_t n = 0; n < sizeof counts / sizeof *counts; n += quick > 1 ? 4 : quick ? 3 : 1)
            for (int layout = 0; layout < N_LAYOUTS; layout += quick > 1 ? 2 : 1, turn++) {
                const int in = ins[i], rows = counts[n], *h = heads[turn % 5];
                form = forms[turn % 6];
                one((Case){MI_GEMV_PLAIN, rows, in, in > 4000 ? 37 : 131, layout, 0}, NULL);
                form = forms[(turn + 1) % 6];
                one((Case){MI_GEMV_RESIDUAL, rows, in, in > 4000 ? 40 : 200, layout, 0}, NULL);
                if (in > 4096)
                    continue;
                one((Case){MI_GEMV_GATED, rows, in, 56, layout, 0}, NULL);
                form = forms[(turn + 2) % 6];
                one((Case){MI_GEMV_HEAD, rows, in, 301, layout, 0}, NULL);
                one((Case){MI_GEMV_QKV, rows, in, (HEADS + 2 * KV_HEADS) * h[0], layout, 0}, h);
            }
    form = (MiQuantForm){0};
}

/* The same with weights of E4M3, which bf16 holds exactly. */
static void compare_e4m3(void)
{
    static const int ins[] = {64, 144, 576, 896, 1552, 3584, 4864, 18944}, counts[] = {1, 2, 3, 4};
    static const int heads[][4] = {{64, 64, 0, 1}, {128, 128, 0, 0}, {8, 8, 0, 0}, {80, 32, 1, 0}, {96, 32, 0, 1}};
    int              turn = 0;

    for (size_t i = first_of(3); i < sizeof ins / sizeof *ins; i += step_of(3))
        for (size_t n = 0; n < sizeof counts / sizeof *counts; n += quick > 1 ? 4 : quick ? 3 : 1)
            for (int layout = 0; layout < N_LAYOUTS - 1; layout += quick > 1 ? 2 : 1, turn++) {
                const int in = ins[i], rows = counts[n], *h = heads[turn % 5];
                form = (MiQuantForm){.bits = MI_QUANT_E4M3, .group = turn % 2 ? 128 : 0};
                one((Case){MI_GEMV_PLAIN, rows, in, in > 4000 ? 37 : 331, layout, 0}, NULL);
                one((Case){MI_GEMV_RESIDUAL, rows, in, in > 4000 ? 40 : 200, layout, 0}, NULL);
                if (in > 4096)
                    continue;
                form.group = turn % 2 ? 0 : 128;
                one((Case){MI_GEMV_GATED, rows, in, 151, layout, 0}, NULL);
                one((Case){MI_GEMV_HEAD, rows, in, 301, layout, 0}, NULL);
                one((Case){MI_GEMV_QKV, rows, in, (HEADS + 2 * KV_HEADS) * h[0], layout, 0}, h);
                if (rows == 1 && layout == 0)
                    one((Case){MI_GEMV_QKV, 1, in, (HEADS + 2 * KV_HEADS) * h[0], 0, h[0]}, h);
            }
    form = (MiQuantForm){0};
}

/* The same with blocks as files have them. */
static void compare_blocks(void)
{
    static const char *const names[] = {"q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q4_k", "q5_k", "q6_k", "iq4_nl", "iq4_xs"};
    static const int         ins[] = {256, 768, 3584, 18944}, counts[] = {1, 3, 4};
    static const int         heads[][4] = {{64, 64, 0, 1}, {128, 128, 0, 0}, {64, 64, 1, 1}};
    int                      turn = 0;

    for (size_t k = 0; k < sizeof names / sizeof *names; k += quick > 1 ? 4 : 1)
        for (size_t i = first_of(1); i < sizeof ins / sizeof *ins; i += step_of(3))
            for (size_t n = 0; n < sizeof counts / sizeof *counts; n += quick > 1 ? 4 : quick ? 2 : 1, turn++) {
                const int in = ins[i], rows = counts[n], layout = turn % N_LAYOUTS, *h = heads[turn % 3];
                blocks = mi_stored_blocks(names[k]);
                form = blocks->form;
                one((Case){MI_GEMV_RESIDUAL, rows, in, in > 4000 ? 40 : 200, layout, 0}, NULL);
                if (in > 4096)
                    continue;
                one((Case){MI_GEMV_PLAIN, rows, in, 131, layout, 0}, NULL);
                one((Case){MI_GEMV_GATED, rows, in, 56, layout, 0}, NULL);
                one((Case){MI_GEMV_HEAD, rows, in, 301, layout, 0}, NULL);
                one((Case){MI_GEMV_QKV, rows, in, (HEADS + 2 * KV_HEADS) * h[0], layout, 0}, h);
            }
    form = (MiQuantForm){0};
    blocks = NULL;
}

/* ---- a whole step ------------------------------------------------------------------------- */

static const Shape shapes[] = {
    {"0.5B", 896, 24, 14, 2, 64, 4864, 151936},
    {"1.5B", 1536, 28, 12, 2, 128, 8960, 151936},
    {"7B", 3584, 28, 28, 4, 128, 18944, 152064},
};
enum { N_SHAPES = 3, CONTEXT = 128, STEPS = 200, MANY = 32, MANY_CONTEXT = 512 };

static uint64_t digest(uint64_t h, const void *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        h = (h ^ ((const unsigned char *)p)[i]) * 1099511628211ull;
    return h;
}

/* What `steps` steps of `rows` rows of a small stack of the first shape's layers compute. */
static uint64_t chain(int rows, int steps, int *distinct)
{
    const Shape s = {"chain", 896, quick > 1 ? 1 : 6, 14, 2, 64, quick > 1 ? 608 : 4864, quick > 1 ? 1000 : 20000};
    Model      *m = model_new(&s, CONTEXT, rows);
    const size_t n_tokens = (size_t)steps * rows * 4, n_logits = (size_t)s.vocab * rows * 4;
    int32_t    *tokens = malloc(n_tokens);
    float      *logits = malloc(n_logits);

    model_generate(m, steps, tokens, logits);
    *distinct = 1;
    for (int i = 1; i < steps * rows; i++)
        *distinct += tokens[i] != tokens[i - 1];
    const uint64_t h = digest(digest(14695981039346656037ull, tokens, n_tokens), logits, n_logits);
    free(tokens), free(logits);
    model_free(m);
    return h;
}

static void compare_overlap(const char *self, int rows)
{
    char     line[64] = "", command[4096], what[128];
    int      distinct, same = 0;
    FILE    *child;
    uint64_t want;

    snprintf(command, sizeof command, "MI_CUDA_PDL=0 '%s' --chain %d", self, rows);
    child = popen(command, "r");
    if (!child || !fgets(line, sizeof line, child))
        line[0] = 0;
    if (child)
        pclose(child);
    want = strtoull(line, NULL, 16);
    for (int i = 0; i < 10; i++)
        same += chain(rows, STEPS, &distinct) == want;
    snprintf(what, sizeof what, "10 times 200 steps of %d rows, bit by bit those without overlapping kernels; runs that agree", rows);
    check(same == 10 && distinct > 1, what, same);
}

static void report(Model *m, const Shape *s, int rows, double bandwidth)
{
    const double ms = model_step_ms(m, 5, 50), limit = model_bytes(m, N_KERNELS) / bandwidth * 1e3;

    printf("# %s, %d rows, context %d: %.4f ms a step, limit %.4f ms, %.1f %%\n#  ", s->name, rows, rows > 1 ? MANY_CONTEXT : CONTEXT, ms, limit,
           100 * limit / ms);
    fflush(stdout);
    for (int k = 0; k < N_KERNELS; k++) {
        const double us = model_kernel_us(m, k), rate = model_bytes(m, k) / us * 1e6;
        printf(" %s %.2f us", kernel_names[k], us);
        if (k != ATTENTION && k != PICK)
            printf(" (%.0f %%)", 100 * rate / bandwidth);
        fflush(stdout);
    }
    printf("\n");
    fflush(stdout);
}

static void bench(int rows, int n_shapes)
{
    const char  *layouts = getenv("MI_BENCH_LAYOUTS");
    const double bandwidth = read_bandwidth();
    char         line[512], name[16];

    printf("# read bandwidth %.3f TB/s\n", bandwidth * 1e-12);
    for (int i = 0; i < n_shapes; i++) {
        Model *m = model_new(&shapes[i], rows > 1 ? MANY_CONTEXT : CONTEXT, rows);
        FILE  *f = layouts ? fopen(layouts, "r") : NULL;
        report(m, &shapes[i], rows, bandwidth);
        while (f && fgets(line, sizeof line, f)) {
            if (sscanf(line, "%15s", name) != 1 || strcmp(name, shapes[i].name) != 0)
                continue;
            line[strcspn(line, "\n")] = 0;
            if (model_lay_out(m, line + strlen(name)))
                printf("#   %.4f ms %s\n", model_step_ms(m, 3, i == 2 ? 20 : 50), line);
            else
                printf("#   impossible %s\n", line);
            fflush(stdout);
        }
        if (f)
            fclose(f);
        model_free(m);
    }
    printf("# read bandwidth afterwards %.3f TB/s\n", read_bandwidth() * 1e-12);
}

int main(int argc, char **argv)
{
    const char *timed = getenv("MI_BENCH");
    int         n = 0, distinct;

    if (cudaGetDeviceCount(&n) || !n) {
        printf("1..0 # SKIP no CUDA device\n");
        return 0;
    }
    if (argc > 2 && strcmp(argv[1], "--chain") == 0) {
        printf("%llx\n", (unsigned long long)chain(atoi(argv[2]), STEPS, &distinct));
        return 0;
    }
    if (argc > 1 && strcmp(argv[1], "--bench") == 0) {
        bench(argc > 2 ? atoi(argv[2]) : 1, argc > 3 ? atoi(argv[3]) : N_SHAPES);
        return 0;
    }
    quick = gpu_quick();
    if (argc > 1 && (strcmp(argv[1], "--packed") == 0 || strcmp(argv[1], "--e4m3") == 0)) {
        if (strcmp(argv[1], "--packed") == 0)
            compare_packed();
        compare_e4m3();
        if (strcmp(argv[1], "--packed") == 0)
            compare_blocks();
        printf("%d passed, %d failed\n", passed, failed);
        return failed > 0;
    }
    compare();
    compare_packed();
    compare_e4m3();
    compare_blocks();
    if (quick) {
        check(chain(1, 2, &distinct) != 0, "a chain of two steps", 0);
        check(chain(19, 2, &distinct) != 0, "a chain of two steps of 19 rows", 0);
    } else {
        compare_overlap(argv[0], 1);
        compare_overlap(argv[0], 19);
    }
    printf("%d passed, %d failed\n", passed, failed);
    if (timed && strcmp(timed, "1") == 0) {
        bench(1, N_SHAPES);
        bench(MANY, N_SHAPES);
    }
    return failed > 0;
}
