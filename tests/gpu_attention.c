/* Attention on a card against softmax(q k') v in double precision: every kernel over
 * layouts, head sizes, groups, dtypes, masks and batches of prompts, chunks of
 * prompts, decode rows and padding.  MI_BENCH=1 times it too. */
#include "gpu_attention.h"
#include "gpu_quick.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int  n_passed, n_failed;
static int  quick; /* as gpu_quick() */

static void report(bool ok, const char *what, double err)
{
    printf("%s %d - %s (%.1e)\n", ok ? "ok" : "not ok", n_passed + n_failed + 1, what, err);
    fflush(stdout);
    *(ok ? &n_passed : &n_failed) += 1;
}

static double value(const void *x, int64_t at, MiDType t)
{
    uint32_t u;
    float    f;
    if (t == MI_F32)
        return ((const float *)x)[at];
    const uint16_t h = ((const uint16_t *)x)[at];
    if (t == MI_F16) {
        if ((h & 0x7c00) == 0x7c00)
            return NAN;
        const double m = (h & 0x7c00) ? 1 + (h & 0x3ff) / 1024.0 : (h & 0x3ff) / 1024.0;
        return (h & 0x8000 ? -1 : 1) * ldexp(m, (h & 0x7c00 ? h >> 10 & 31 : 1) - 15);
    }
    u = (uint32_t)h << 16;
    memcpy(&f, &u, 4);
    return f;
}

/* Row r, head h of sequence s, as the formula says. */
static void wanted(const Case *c, float scale, int s, int r, int h, double *out)
{
    static double weight[8200];
    const int     position = c->len[s] - c->rows[s] + r, end = c->bidirectional ? c->len[s] : position + 1;
    const int     first = c->window && position + 1 > c->window ? position + 1 - c->window : 0,
              kv = h / (c->heads / c->kv_heads);
    const float *q = world_row(c, 2, s, position, h);
    double       sum = 0, top = -INFINITY;

    for (int d = 0; d < c->dim; d++)
        out[d] = 0;
    for (int t = first; t < end; t++) {
        const float *k = world_row(c, 0, s, t, kv);
        double       part[8] = {0}, score = 0; /* eight sums that do not wait for each other */
        for (int d = 0; d < c->dim; d += 8)
            for (int i = 0; i < 8; i++)
                part[i] += 4.0 * q[d + i] * k[d + i];
        for (int i = 0; i < 8; i++)
            score += part[i];
        score *= scale * world_scale(c, 0, s, t, kv);
        weight[t] = c->softcap > 0 ? c->softcap * tanh(score / c->softcap) : score;
        top = fmax(top, weight[t]);
    }
    for (int t = first; t < end; t++) {
        const float *v = world_row(c, 1, s, t, kv);
        const double w = exp(weight[t] - top);
        const double by = w * world_scale(c, 1, s, t, kv);
        sum += w;
        for (int d = 0; d < c->dim; d++)
            out[d] += by * v[d];
    }
    for (int d = 0; d < c->dim && sum > 0; d++)
        out[d] /= sum;
}

typedef struct {
    int     seq;
    int64_t at; /* its first element in out */
    double  x[256];
} Sample;

enum { MAX_SAMPLES = 6000 };
static Sample samples[MAX_SAMPLES];
static int    n_samples;

/* Some rows of each sequence, the borders of tiles among them, and some heads of each. */
static void take_samples(const Case *c, const World *w)
{
    static const int rows[] = {0, 1, 7, 8, 9, 17, 18, 19, 63, 64, 127, 128, 129, 200, 255, 256, 331};

    n_samples = 0;
    for (int s = 0; s < c->n_seqs; s++)
        for (int i = 0; i < 20; i++) {
            const int r = i < 17 ? rows[i] : c->rows[s] - 1 - (i - 17) * 3;
            for (int h = i % 2; h < c->heads && r >= 0 && r < c->rows[s] && n_samples < MAX_SAMPLES;
                 h += 1 + c->heads / 3) {
                Sample *x = &samples[n_samples++];
                x->seq = s, x->at = ((int64_t)(w->starts[s] + r) * c->heads + h) * c->dim;
                wanted(c, w->call.scale, s, r, h, x->x);
            }
        }
}

/* Relative L2 of the samples, of the sequence where it is largest. */
static double distance(const Case *c, const void *out)
{
    double worst = 0;

    for (int s = 0; s < c->n_seqs; s++) {
        double off = 0, norm = 0;
        for (int i = 0; i < n_samples; i++)
            for (int d = 0; samples[i].seq == s && d < c->dim; d++) {
                const double y = value(out, samples[i].at + d, c->dtype), x = samples[i].x[d];
                off += (y - x) * (y - x), norm += x * x;
            }
        const double e = norm > 0 ? sqrt(off / norm) : sqrt(off);
        worst = e <= worst ? worst : e; /* NaN counts as worst */
    }
    return worst;
}

static double between(const void *a, const void *b, int64_t n, MiDType t)
{
    double off = 0, norm = 0;
    for (int64_t i = 0; i < n; i++) {
        const double x = value(a, i, t), y = value(b, i, t);
        off += (x - y) * (x - y), norm += y * y;
    }
    return norm > 0 ? sqrt(off / norm) : sqrt(off);
}

static void *outcome(World *w, Kernel kernel, const Case *c)
{
    void *out = malloc(w->out_bytes);
    must(cudaMemset(w->out, 0xff, w->out_bytes), "cudaMemset");
    must(world_run(w, kernel, c, NULL), kernel_names[kernel]);
    must(cudaDeviceSynchronize(), kernel_names[kernel]);
    must(cudaMemcpy(out, w->out, w->out_bytes, cudaMemcpyDeviceToHost), "cudaMemcpy");
    return out;
}

/* ---- cases --------------------------------------------------------------------- */

typedef enum { DECODE, PROMPTS, PROMPT, FEW_ROWS, N_BATCHES } Batch;

static void fill_batch(Case *c, Batch b)
{
    static const int lens[] = {1, 17, 0, 128, 333, 1000};

    *c = (Case){.dim = c->dim,
                .heads = c->heads,
                .kv_heads = c->kv_heads,
                .page = c->page,
                .dtype = c->dtype,
                .kv_dtype = c->kv_dtype,
                .layout = c->layout,
                .softcap = c->softcap,
                .window = c->window,
                .bidirectional = c->bidirectional,
                .room = c->room};
    if (b == PROMPT) {
        c->n_seqs = 1, c->rows[0] = c->len[0] = 333;
        return;
    }
    c->n_seqs = 6;
    c->decode = b == DECODE;
    for (int s = 0; s < 6; s++) {
        c->len[s] = lens[s];
        /* prompts: whole ones, a chunk of one, and a decode row */
        const int most = b == DECODE || lens[s] == 0 ? 1 : b == FEW_ROWS ? 2 : s == 5 ? 1 : s == 4 ? 150 : lens[s];
        c->rows[s] = most < 1 || lens[s] == 0 ? 1 : most < lens[s] ? most : lens[s];
    }
}

static const double tolerance[] = {[MI_F32] = 2e-5, [MI_F16] = 1e-3, [MI_BF16] = 6e-3};
static const Kernel fast[] = {GQA, FLASH};

/* Prompts over a cache with scales: flash rounds what is stored times its scale once more. */
static double allowed(Kernel kernel, MiDType t, bool scaled) { return tolerance[t] * (kernel == FLASH && scaled ? 1.5 : 1); }

/* Every kernel on one case; worst: of each kernel. */
static void compare(const Case *c, double *worst)
{
    World w;
    world_make(&w, c);
    take_samples(c, &w);
    void  *plain = outcome(&w, SIMPLE, c);
    double e = distance(c, plain);
    worst[SIMPLE] = e <= worst[SIMPLE] ? worst[SIMPLE] : e;
    for (int i = 0; i < N_KERNELS - 1 && c->dtype != MI_F32 && (c->dtype == c->kv_dtype || mi_dtype_scaled(c->kv_dtype)); i++) {
        void *out = outcome(&w, fast[i], c);
        e = distance(c, out);
        worst[fast[i]] = e <= worst[fast[i]] ? worst[fast[i]] : e;
        e = between(out, plain, (int64_t)w.n_tokens * c->heads * c->dim, c->dtype);
        worst[fast[i]] = e <= worst[fast[i]] ? worst[fast[i]] : e;
        if (!(worst[fast[i]] <= allowed(fast[i], c->dtype, mi_dtype_scaled(c->kv_dtype))))
            printf("# %s layout %d page %d window %d softcap %g both %d decode %d seqs %d: %.2e\n",
                   kernel_names[fast[i]], c->layout, c->page, c->window, (double)c->softcap, c->bidirectional,
                   c->decode, c->n_seqs, e);
        free(out);
    }
    free(plain);
    world_free(&w);
}

static void report_these(const double *worst, const char *what, MiDType t, bool all, bool scaled)
{
    char line[200];
    for (Kernel k = 0; k < (all ? N_KERNELS : 1); k++) {
        snprintf(line, sizeof line, "%s, %s", kernel_names[k], what);
        report(worst[k] <= allowed(k, t, scaled), line, worst[k]);
    }
}
static void report_all(const double *worst, const char *what, MiDType t, bool all) { report_these(worst, what, t, all, false); }

static void shapes(void)
{
    static const int     dims[] = {64, 96, 128, 256}, groups[] = {1, 2, 6, 7, 8, 16};
    static const MiDType types[] = {MI_BF16, MI_F16};

    for (int t = 0; t < (quick ? 1 : 2); t++)
        for (int d = 0; d < 4; d += quick ? 2 : 1)
            for (int g = quick ? 4 : 0; g < (quick ? 5 : 6); g++) {
                double worst[N_KERNELS] = {0};
                char   what[100];
                for (int l = 0; l < N_LAYOUTS; l++)
                    for (int b = 0; b < N_BATCHES; b++) {
                        if (((t || d == 1 || d == 3 || quick) && (l + b + g) % 2) || (quick > 1 && l != b % N_LAYOUTS))
                            continue;
                        Case c = {.dim = dims[d],
                                  .heads = 2 * groups[g],
                                  .kv_heads = 2,
                                  .page = b % 2 ? 64 : 16,
                                  .dtype = types[t],
                                  .kv_dtype = types[t],
                                  .layout = (Layout)l};
                        fill_batch(&c, (Batch)b);
                        compare(&c, worst);
                    }
                snprintf(what, sizeof what, "heads of %d, %d a key head, %s", dims[d], groups[g], t ? "f16" : "bf16");
                report_all(worst, what, types[t], true);
            }
}

static void masks(void)
{
    static const struct {
        int   window;
        float softcap;
        bool  both;
    } attr[] = {{100, 0, false}, {0, 3, false}, {0, 0, true}, {40, 2, false}, {300, 0, false}, {1, 0, false}};

    for (int i = 0; i < (quick ? 1 : 6); i++) {
        double worst[N_KERNELS] = {0};
        char   what[100];
        for (int l = 0; l < (quick > 1 ? 1 : N_LAYOUTS); l++)
            for (int b = 0; b < N_BATCHES; b++) {
                Case c = {.dim = b % 2 ? 64 : 128,
                          .heads = 14,
                          .kv_heads = 2,
                          .page = 48,
                          .dtype = MI_BF16,
                          .kv_dtype = MI_BF16,
                          .layout = (Layout)l,
                          .window = attr[i].window,
                          .softcap = attr[i].softcap,
                          .bidirectional = attr[i].both};
                fill_batch(&c, (Batch)b);
                compare(&c, worst);
            }
        snprintf(what, sizeof what, "window %d, soft cap %g%s", attr[i].window, (double)attr[i].softcap,
                 attr[i].both ? ", both directions" : "");
        report_all(worst, what, MI_BF16, true);
    }
}

/* The plain one takes f32, and caches of another dtype than the activations. */
static void mixed_types(void)
{
    static const MiDType of[][2] = {{MI_F32, MI_F32}, {MI_F32, MI_BF16}, {MI_F32, MI_F16}, {MI_BF16, MI_F32}};
    for (int i = 0; i < (quick ? 1 : 4); i++)
        for (int b = 0; b < N_BATCHES; b++) {
            double worst[N_KERNELS] = {0};
            char   what[100];
            Case   c = {.dim = 80 + 48 * (b % 2),
                        .heads = 6,
                        .kv_heads = 2,
                        .page = 48,
                        .dtype = of[i][0],
                        .kv_dtype = of[i][1],
                        .layout = (Layout)(b % N_LAYOUTS)};
            fill_batch(&c, (Batch)b);
            compare(&c, worst);
            snprintf(what, sizeof what, "dtypes %d over %d", of[i][0], of[i][1]);
            report_all(worst, what, of[i][0], false);
        }
}

/* More sequences and heads of keys than a card has room for blocks: two or more for each; short ones, padding, a few of two rows. */
static void many_sequences(bool scaled)
{
    static const MiDType types[] = {MI_F8, MI_I8};

    for (int i = 0; i < (quick ? 1 : 16); i++) {
        const bool many_heads = i % 8 == 3 || i % 8 == 7, large = i >= 8;
        double     worst[N_KERNELS] = {0};
        char       what[100];
        Case       c = {.dim = large ? 128 : 64, .heads = many_heads ? 16 : 8, .kv_heads = many_heads ? 4 : 2, .page = i % 8 < 4 ? 16 : 24,
                        .dtype = i % 3 ? MI_BF16 : MI_F16, .layout = i % 4 == 3 ? PAGED : (Layout)(i % 4), .n_seqs = i % 2 ? 250 : 140,
                        .window = i % 8 == 5 ? 100 : 0, .softcap = i % 8 == 6 ? 20 : 0, .decode = i % 3 != 2};
        c.kv_dtype = scaled ? types[i % 2] : c.dtype;
        for (int s = 0; s < c.n_seqs; s++) {
            c.len[s] = s % 13 == 5 ? 0 : s % 17 == 1 ? 1 + s % 5 : i % 8 == 4 ? 40 - s % 30 : 700 - s * 2 - s * 37 % 100;
            c.rows[s] = !c.decode && s % 19 == 3 && c.len[s] > 1 ? 2 : 1;
        }
        compare(&c, worst);
        snprintf(what, sizeof what, "%s cache, %d times %d sequences, heads of %d, layout %d", !scaled ? "plain" : i % 2 ? "int8" : "fp8",
                 c.kv_heads, c.n_seqs, c.dim, c.layout);
        report_these(worst, what, c.dtype, true, scaled);
    }
}

/* Caches of numbers with scales: every kernel, layout and mask, and long contexts, shared out in every way. */
static void scaled_caches(void)
{
    static const int     dims[] = {64, 96, 128, 256}, groups[] = {1, 7, 16};
    static const MiDType types[] = {MI_F8, MI_I8};

    for (int t = 0; t < 2; t++)
        for (int d = 0; d < 4; d += quick ? 2 : 1)
            for (int g = 0; g < (quick ? 1 : 3); g++) {
                double        worst[N_KERNELS] = {0};
                char          what[100];
                const MiDType dtype = (d + g) % 2 ? MI_F16 : MI_BF16;
                for (int l = 0; l < N_LAYOUTS; l++)
                    for (int b = 0; b < N_BATCHES; b++) {
                        Case c = {.dim = dims[d], .heads = 2 * groups[g], .kv_heads = 2, .page = b % 2 ? 64 : 16,
                                  .dtype = dtype, .kv_dtype = types[t], .layout = (Layout)l};
                        if (g == 1)
                            c.window = b % 2 * 40, c.softcap = (float)(l % 2 * 3), c.bidirectional = l == 2 && b == 1;
                        if (((l + b) % 2 && d % 2) || (quick > 1 && l != b % N_LAYOUTS))
                            continue;
                        fill_batch(&c, (Batch)b);
                        compare(&c, worst);
                    }
                snprintf(what, sizeof what, "%s cache, %s, heads of %d, %d a key head%s", t ? "int8" : "fp8",
                         dtype == MI_F16 ? "f16" : "bf16", dims[d], groups[g], g == 1 ? ", masks" : "");
                report_these(worst, what, dtype, true, true);
            }
    /* Places for the 16 bits of some prompts only, of 17, 128 and 333 keys, to the last of them and one less; the others straight from
     * the cache. */
    static const int rooms[] = {1, 16, 17, 144, 145, 477, 478};
    for (int i = 0; i < (quick ? 2 : 14); i++) {
        double worst[N_KERNELS] = {0};
        char   what[100];
        for (int l = 0; l < N_LAYOUTS; l++) {
            Case c = {.dim = i % 3 ? 64 : 128, .heads = 14, .kv_heads = 2, .page = 16, .room = rooms[i % 7], .dtype = i % 2 ? MI_F16 : MI_BF16,
                      .kv_dtype = types[i / 7], .layout = (Layout)l, .window = i % 4 == 3 ? 100 : 0};
            fill_batch(&c, PROMPTS);
            compare(&c, worst);
        }
        snprintf(what, sizeof what, "%s cache, heads of %d, room for %d positions", i / 7 ? "int8" : "fp8", i % 3 ? 64 : 128, rooms[i % 7]);
        report_these(worst, what, i % 2 ? MI_F16 : MI_BF16, true, true);
    }
    /* Scores far apart, so that a larger one than all before comes again and again. */
    for (int i = 0; i < 4; i++) {
        Case c = {.dim = 64, .heads = 14, .kv_heads = 2, .page = 16, .dtype = MI_BF16, .kv_dtype = types[i / 2], .layout = i % 2 ? PAGED : CONTIGUOUS};
        World w;
        fill_batch(&c, DECODE);
        world_make(&w, &c);
        w.call.scale *= 3;
        take_samples(&c, &w);
        void  *out = outcome(&w, FLASH, &c);
        double e = distance(&c, out);
        report(e <= tolerance[MI_BF16], "scores far apart, a cache with scales", e);
        free(out);
        world_free(&w);
    }
    for (int i = 0; i < 4; i += quick > 1 ? 3 : 1) {
        Case c = {.dim = i % 2 ? 64 : 128, .heads = 14, .kv_heads = 2, .page = 16, .dtype = MI_BF16,
                  .kv_dtype = types[i / 2], .layout = PAGED, .n_seqs = i < 2 ? 3 : 1, .rows = {1, 1, 1},
                  .len = {4097, 1000, 2500}, .decode = true};
        World w;
        bool  same = true;
        world_make(&w, &c);
        take_samples(&c, &w);
        void  *shared = outcome(&w, FLASH, &c);
        double e = distance(&c, shared);
        report(e <= tolerance[MI_BF16], "long contexts, a cache with scales, in clusters", e);
        for (int n = 0; n < (quick > 1 ? 1 : 20); n++) {
            void *again = outcome(&w, FLASH, &c);
            same = same && memcmp(shared, again, w.out_bytes) == 0;
            free(again);
        }
        report(same, "the same bits in 20 runs", 0);
        w.call.batch.shape.max_kv = 100000; /* through the workspace */
        void *other = outcome(&w, FLASH, &c);
        e = between(shared, other, (int64_t)w.n_tokens * c.heads * c.dim, c.dtype);
        report(e <= 4e-3, "shared out in two ways", e);
        free(shared), free(other);
        world_free(&w);
    }
}

/* Shared out between two blocks, whose warps are there in part when they add up. */
static void two_parts(void)
{
    static const int dims[] = {64, 96, 128, 256};

    for (int d = quick != 0; d < (quick ? 2 : 4); d++)
        for (int heads = 1; heads <= 3; heads += 2) {
            double worst[N_KERNELS] = {0};
            char   what[100];
            Case   c = {.dim = dims[d],
                        .heads = 2 * heads,
                        .kv_heads = 2,
                        .page = 16,
                        .dtype = MI_BF16,
                        .kv_dtype = MI_BF16,
                        .n_seqs = 3,
                        .rows = {1, 1, 1},
                        .len = {200, 130, 40},
                        .decode = true};
            compare(&c, worst);
            snprintf(what, sizeof what, "context 200, heads of %d, %d a key head", c.dim, heads);
            report_all(worst, what, MI_BF16, true);
        }
}

/* Long ones: shared out among many blocks and not at all; the same bits every time. */
static void long_contexts(void)
{
    for (int i = 0; i < 12; i++)
        for (int k = 0; k < (i < 6 ? N_KERNELS - 1 : 1); k++) {
            Case  c = {.dim = i % 2 ? 64 : 128,
                       .heads = i == 8   ? 6
                                : i == 9 ? 16
                                         : 14,
                       .kv_heads = 2,
                       .page = 64,
                       .dtype = MI_BF16,
                       .kv_dtype = MI_BF16,
                       .layout = (Layout)(i % N_LAYOUTS),
                       .n_seqs = i < 6 ? 3 : 1,
                       .rows = {1, 1, 1},
                       .len = {4097, 1000, 2500},
                       .decode = true};
            World w;
            char  what[100];
            bool  same = true;
            world_make(&w, &c);
            take_samples(&c, &w);
            void  *shared = outcome(&w, fast[k], &c);
            double e = distance(&c, shared);
            snprintf(what, sizeof what, "%s, %d of context 4097, layout %d, heads of %d", kernel_names[fast[k]],
                     c.n_seqs, c.layout, c.dim);
            report(e <= tolerance[MI_BF16], what, e);
            for (int n = 0; n < 20; n++) {
                void *again = outcome(&w, fast[k], &c);
                same = same && memcmp(shared, again, w.out_bytes) == 0;
                free(again);
            }
            report(same, "the same bits in 20 runs", 0);
            w.call.batch.shape.max_kv = 8192; /* fewer keys a block than its bucket has room for */
            void *roomy = outcome(&w, fast[k], &c);
            e = between(shared, roomy, (int64_t)w.n_tokens * c.heads * c.dim, c.dtype);
            report(e <= 4e-3, "in a larger bucket", e);
            w.call.batch.shape.max_kv = 100000; /* through the workspace */
            void *other = outcome(&w, fast[k], &c);
            e = between(shared, other, (int64_t)w.n_tokens * c.heads * c.dim, c.dtype);
            report(e <= 4e-3, "shared out in two ways", e);
            for (int n = 0; n < 20; n++) {
                void *again = outcome(&w, fast[k], &c);
                same = same && memcmp(other, again, w.out_bytes) == 0;
                free(again);
            }
            report(same, "the same bits in 20 runs", 0);
            free(shared), free(roomy), free(other);
            world_free(&w);
        }
}

/* One block a sequence and key head: what it holds ends beside the borders of units and turns. */
static void short_contexts(void)
{
    static const int lens[] = {1, 15, 16, 17, 0, 127, 128, 129, 145, 255, 256}, groups[] = {1, 6, 7, 8};

    for (int d = 64; d <= 128; d += 64)
        for (int g = 0; g < 4; g++) {
            double worst[N_KERNELS] = {0};
            char   what[100];
            for (int l = 0; l < N_LAYOUTS; l++)
                for (int rows = 1; rows <= (groups[g] == 1 ? 3 : 1); rows += 2) {
                    Case c = {.dim = d,
                              .heads = 2 * groups[g],
                              .kv_heads = 2,
                              .page = 16 + 32 * (g % 2),
                              .max_kv = l == TAIL ? 0 : 256,
                              .dtype = MI_BF16,
                              .kv_dtype = MI_BF16,
                              .layout = (Layout)l,
                              .n_seqs = 11,
                              .decode = rows == 1};
                    for (int s = 0; s < 11; s++)
                        c.len[s] = lens[s], c.rows[s] = rows < lens[s] ? rows : 1;
                    compare(&c, worst);
                }
            snprintf(what, sizeof what, "at most 256 keys, heads of %d, %d a key head", d, groups[g]);
            report_all(worst, what, MI_BF16, true);
        }
}

/* Chunks of prompts behind so many keys that these are shared out, one of a few keys beside them; the same bits every time. */
static void chunks(void)
{
    static const int dims[] = {64, 96, 128, 256};

    for (int i = 0; i < 20; i++) {
        const int d = i % 4, window = i >= 12 && i < 16 ? 700 : 0;
        Case      c = {.dim = dims[d],
                       .heads = d == 3 ? 4 : 14,
                       .kv_heads = 2,
                       .page = i / 4 % 2 ? 16 : 64,
                       .dtype = i < 8 ? MI_BF16 : MI_F16,
                       .kv_dtype = i >= 16 ? (i % 2 ? MI_I8 : MI_F8) : i < 8 ? MI_BF16 : MI_F16,
                       .layout = (Layout)((i / 4 + i) % N_LAYOUTS),
                       .window = window,
                       .softcap = i % 8 == 5 ? 3 : 0,
                       .n_seqs = i % 4 == 2 ? 1 : 5,
                       .rows = {i % 4 == 2 ? 90 : 20, 1, 33, 40, 1},
                       .len = {5000 - i, 900, 33, 2100, 0}};
        World     w;
        char      what[120];
        bool      same = true;
        world_make(&w, &c);
        take_samples(&c, &w);
        void  *out = outcome(&w, FLASH, &c), *whole;
        double e = distance(&c, out);
        snprintf(what, sizeof what, "flash, chunks of %d sequences behind up to 5000 keys%s, heads of %d, layout %d, window %d", c.n_seqs,
                 i >= 16 ? " with scales" : "", c.dim, c.layout, window);
        report(e <= allowed(FLASH, c.dtype, i >= 16), what, e);
        for (int n = 0; n < 10; n++) {
            void *again = outcome(&w, FLASH, &c);
            same = same && memcmp(out, again, w.out_bytes) == 0;
            free(again);
        }
        report(same, "the same bits in 10 runs", 0);
        w.call.batch.shape.max_kv = 1000; /* no longer shared out */
        whole = outcome(&w, FLASH, &c);
        e = between(out, whole, (int64_t)w.n_tokens * c.heads * c.dim, c.dtype);
        report(e <= (c.dtype == MI_BF16 ? 4e-3 : 6e-4) && (e > 0 || window), "as when they are not shared out, but for rounding", e);
        free(out), free(whole);
        world_free(&w);
    }
}

/* Continuous batching: sequences that decode, chunks of prompts over what is cached of them, and whole prompts. */
static void mixed_steps(void)
{
    for (int i = 0; i < 8; i++) {
        double    worst[N_KERNELS] = {0};
        char      what[100];
        const int many = i / 4; /* 200 sequences, most of them prompts of a few rows */
        Case      c = {.dim = i % 2 ? 64 : 128,
                       .heads = 14,
                       .kv_heads = 2,
                       .page = 64,
                       .dtype = MI_BF16,
                       .kv_dtype = MI_BF16,
                       .layout = i % 4 < 2 ? CONTIGUOUS : PAGED,
                       .n_seqs = many ? 200 : 34};
        for (int s = 0; s < c.n_seqs; s++) {
            c.len[s] = many ? 1 + s * 7 % 40 : 1000 - s, c.rows[s] = 1;
            if (many && s % 8)
                c.rows[s] = c.len[s] < 2 + s % 5 ? c.len[s] : 2 + s % 5;
        }
        if (!many) {
            c.rows[11] = 512, c.len[11] = 1024;
            c.rows[12] = 77, c.len[12] = 77;
            c.rows[33] = 200, c.len[33] = 1333;
        }
        compare(&c, worst);
        snprintf(what, sizeof what, "%s, heads of %d%s",
                 many ? "200 sequences of a few rows" : "decode rows beside chunks", c.dim,
                 c.layout == PAGED ? ", paged" : "");
        report_all(worst, what, MI_BF16, true);
    }
}

static void long_prompts(void)
{
    for (int i = 0; i < 4; i++) {
        double worst[N_KERNELS] = {0};
        char   what[100];
        Case   c = {.dim = i % 2 ? 64 : 128,
                    .heads = 14,
                    .kv_heads = 2,
                    .page = 128,
                    .dtype = MI_BF16,
                    .kv_dtype = MI_BF16,
                    .layout = i < 2 ? CONTIGUOUS : PAGED,
                    .n_seqs = 2,
                    .rows = {i < 2 ? 4097 : 1000, 700},
                    .len = {4097, 700}};
        compare(&c, worst);
        snprintf(what, sizeof what, "%d rows of 4097, heads of %d", c.rows[0], c.dim);
        report_all(worst, what, MI_BF16, true);
    }
}

int main(void)
{
    int n = 0;
    if (cudaGetDeviceCount(&n) != cudaSuccess || n == 0) {
        printf("1..0 # SKIP no CUDA device\n");
        return 0;
    }
    quick = gpu_quick();
    if (getenv("MI_SCALED")) { /* those alone */
        scaled_caches();
        many_sequences(true);
        printf("%d passed, %d failed\n", n_passed, n_failed);
    } else if (!getenv("MI_BENCH") || strcmp(getenv("MI_BENCH"), "only") != 0) {
        scaled_caches();
        many_sequences(true);
        many_sequences(false);
        masks();
        shapes();
        mixed_types();
        two_parts();
        if (!quick)
            long_contexts(), short_contexts(), chunks(), mixed_steps(), long_prompts();
        printf("%d passed, %d failed\n", n_passed, n_failed);
    }
    if (getenv("MI_BENCH"))
        bench_all();
    return n_failed != 0;
}
