/* gpu_attention_world.c - makes up a call: caches of every layout whose other
 * elements are NaN, q as a view into rows that hold more, outputs poisoned. */
#include "gpu_attention.h"
#include "scaled.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const kernel_names[] = {"simple", "gqa", "flash"};

void must(int code, const char *what)
{
    if (code) {
        printf("not ok - %s: %s\n", what, cudaGetErrorString((cudaError_t)code));
        exit(1);
    }
}

/* ---- numbers ------------------------------------------------------------------- */

enum { TABLE = 1 << 20 };

static uint16_t to_bf16(float x)
{
    uint32_t u;
    memcpy(&u, &x, 4);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

static float from_bf16(uint16_t h)
{
    uint32_t u = (uint32_t)h << 16;
    float    x;
    memcpy(&x, &u, 4);
    return x;
}

/* Values of 8 significant bits: bf16, f16 and f32 hold them all without rounding. */
static const float *table(void)
{
    static float t[TABLE];
    uint32_t     x = 1;

    if (t[0] == 0)
        for (int i = 0; i < TABLE; i++) {
            x ^= x << 13, x ^= x >> 17, x ^= x << 5;
            t[i] = from_bf16(to_bf16((float)(x >> 8) / (1 << 23) - 1));
            if (t[i] > -0x1p-6f && t[i] < 0x1p-6f)
                t[i] = 0x1p-6f;
        }
    return t;
}

/* The same as numbers of a type with scales. */
static const float *numbers(MiDType t)
{
    static float of[2][TABLE];
    float       *x = of[t == MI_I8];

    if (x[0] == 0)
        for (int i = 0; i < TABLE; i++)
            x[i] = (float)scaled_nearest(t, table()[i] * (t == MI_I8 ? 127 : 300));
    return x;
}

float world_scale(const Case *c, int side, int seq, int t, int head)
{
    const float *x = world_row(c, 3, side * 300 + seq, t, head);
    return mi_dtype_scaled(c->kv_dtype) && side < 2
               ? from_bf16(to_bf16((1.5f + *x) / (c->kv_dtype == MI_I8 ? 127 : 300))) : 1;
}

const float *world_row(const Case *c, int side, int seq, int t, int head)
{
    uint32_t x = (uint32_t)(((side * 67 + seq) * 8209 + t) * 67 + head) * 0x9e3779b1u + (uint32_t)c->dim;
    x = (x ^ x >> 15) * 0x2c1b3c6du;
    x = (x ^ x >> 12) * 0x297a2d39u;
    return (side < 2 && mi_dtype_scaled(c->kv_dtype) ? numbers(c->kv_dtype) : table()) + (x ^ x >> 15) % (TABLE - 256);
}

static uint16_t to_f16(float x) /* values of the table, times a power of 2 */
{
    uint32_t u;
    memcpy(&u, &x, 4);
    return (uint16_t)((u >> 16 & 0x8000) | ((u >> 23 & 0xff) - 112) << 10 | (u >> 13 & 0x3ff));
}

static void put(void *to, int64_t at, MiDType t, float x)
{
    if (t == MI_F32)
        ((float *)to)[at] = x;
    else if (t == MI_I8)
        ((int8_t *)to)[at] = (int8_t)x;
    else if (t == MI_F8) {
        int code = 0;
        for (int bit = 0x40; bit; bit >>= 1) /* codes ascend as their numbers do */
            if ((code | bit) < 0x7f && scaled_code(t, code | bit) <= fabsf(x))
                code |= bit;
        ((uint8_t *)to)[at] = (uint8_t)(code | (x < 0 ? 0x80 : 0));
    } else
        ((uint16_t *)to)[at] = t == MI_F16 ? to_f16(x) : to_bf16(x);
}

/* ---- the call ------------------------------------------------------------------ */

static void *upload(const void *from, size_t bytes)
{
    void *d = NULL;
    must(cudaMalloc(&d, bytes), "cudaMalloc");
    must(cudaMemcpy(d, from, bytes, cudaMemcpyHostToDevice), "cudaMemcpy");
    return d;
}

/* Lays the view out, and says how many elements a side has; tables: host, of the block table. */
static int64_t lay_out(MiKvView *kv, const Case *c, int longest, int *start, int *tables)
{
    const int pages = (longest + c->page - 1) / c->page;

    *kv = (MiKvView){.dtype = c->kv_dtype, .n_kv_heads = c->kv_heads, .head_dim = c->dim, .stride_token = c->dim};
    if (c->layout == PAGED) { /* pages shuffled */
        kv->block_size = c->page, kv->max_blocks = pages;
        for (int i = 0; i < c->n_seqs * pages; i++)
            tables[i] = c->n_seqs * pages - 1 - i;
        for (int i = 0; i + 3 < c->n_seqs * pages; i += 3) {
            const int x = tables[i];
            tables[i] = tables[i + 2], tables[i + 2] = x;
        }
    } else { /* a region for each sequence, in another order, not a multiple of any tile */
        kv->block_size = longest + 29, kv->max_blocks = 1;
        for (int i = 0; i < c->n_seqs; i++)
            tables[i] = c->n_seqs - 1 - i, start[i] = c->layout == TAIL ? 5 + 13 * (i % 2) : 0;
    }
    kv->stride_head = (int64_t)kv->block_size * c->dim;
    kv->stride_block = kv->stride_head * c->kv_heads;
    return kv->stride_block * (c->layout == PAGED ? (int64_t)c->n_seqs * pages : c->n_seqs);
}

static void fill_cache(const Case *c, const MiKvView *kv, const int *start, char *k, char *v, uint16_t *scales)
{
    for (int s = 0; s < c->n_seqs; s++)
        for (int t = 0; t < c->len[s]; t++)
            for (int h = 0; h < c->kv_heads; h++) {
                const int64_t at = mi_kv_offset(kv, s, start[s] + t, h);
                const float  *x = world_row(c, 0, s, t, h), *y = world_row(c, 1, s, t, h);
                for (int d = 0; d < c->dim; d++) {
                    put(k, at + d, c->kv_dtype, x[d]);
                    put(v, at + d, c->kv_dtype, y[d]);
                }
                for (int side = 0; side < 2 && mi_dtype_scaled(c->kv_dtype); side++)
                    scales[at / c->dim * 2 + side] = to_bf16(world_scale(c, side, s, t, h));
            }
}

static void make_cache(World *w, const Case *c, const int *start)
{
    char *k = malloc(w->side), *v = malloc(w->side);

    memset(k, 0xff, w->side);
    memset(v, 0xff, w->side);
    uint16_t *scales = malloc(w->scale_bytes + 4);
    memset(scales, 0xff, w->scale_bytes + 4);
    fill_cache(c, &w->call.kv, start, k, v, scales);
    w->call.kv.scales = w->scales = w->scale_bytes ? upload(scales, w->scale_bytes) : NULL;
    free(scales);
    w->call.kv.k = w->k = upload(k, w->side);
    w->call.kv.v = w->v = upload(v, w->side);
    free(k);
    free(v);
}

static void *blank(size_t bytes)
{
    void *d = NULL;
    must(cudaMalloc(&d, bytes), "cudaMalloc");
    must(cudaMemset(d, 0x3c, bytes), "cudaMemset");
    return d;
}

/* Rows of q beside what else a joined projection writes. */
static void make_q(World *w, const Case *c)
{
    const size_t  size = mi_dtype_size(c->dtype);
    const int64_t width = (int64_t)(c->heads + 2 * c->kv_heads) * c->dim;
    char         *q = malloc((size_t)(w->n_tokens * width) * size);

    memset(q, 0xff, (size_t)(w->n_tokens * width) * size);
    for (int s = 0, row = 0; s < c->n_seqs; s++)
        for (int r = 0; r < c->rows[s]; r++, row++)
            for (int h = 0; h < c->heads; h++) {
                const float *x = world_row(c, 2, s, c->len[s] - c->rows[s] + r, h);
                for (int d = 0; d < c->dim; d++)
                    put(q, row * width + (int64_t)h * c->dim + d, c->dtype, 4 * x[d]);
            }
    w->q = upload(q, (size_t)(w->n_tokens * width) * size);
    free(q);
    w->out_bytes = (size_t)w->n_tokens * (size_t)c->heads * (size_t)c->dim * size;
    must(cudaMalloc(&w->out, w->out_bytes), "cudaMalloc");
    w->call.q = (MiTensor){w->q, c->dtype, 3, {w->n_tokens, c->heads, c->dim}, {width, c->dim, 1}};
    w->call.out =
        (MiTensor){w->out, c->dtype, 3, {w->n_tokens, c->heads, c->dim}, {(int64_t)c->heads * c->dim, c->dim, 1}};
}

static void make_wide(World *w, const Case *c)
{
    w->wide.positions = c->room ? c->room : c->n_seqs * w->call.batch.shape.max_kv;
    const size_t bytes = 2 * (size_t)w->wide.positions * (size_t)(c->kv_heads * c->dim) * mi_dtype_size(c->dtype);
    must(cudaMalloc(&w->wide.data, bytes), "cudaMalloc");
    must(cudaMemset(w->wide.data, 0xff, bytes), "cudaMemset");
    must(cudaMalloc((void **)&w->wide.moved, ((size_t)c->n_seqs + 1) * 4), "cudaMalloc");
    must(cudaMemset(w->wide.moved, 0xff, ((size_t)c->n_seqs + 1) * 4), "cudaMemset");
}

void world_make(World *w, const Case *c)
{
    int longest = 1, n = 0;

    *w = (World){0};
    for (int s = 0; s < c->n_seqs; s++) {
        longest = c->len[s] > longest ? c->len[s] : longest;
        w->starts[s + 1] = w->n_tokens += c->rows[s];
    }
    const int pages = (longest + c->page - 1) / c->page;
    int      *ints = calloc((size_t)(w->n_tokens + MAX_SEQS + 1 + c->n_seqs * (3 + pages + c->kv_heads)), sizeof *ints);
    int *positions = ints, *starts = positions + w->n_tokens, *start = starts + MAX_SEQS + 1, *len = start + c->n_seqs;
    int *tables = len + c->n_seqs, *arrived = tables + c->n_seqs * (pages + 1);

    const int64_t elements = lay_out(&w->call.kv, c, longest, start, tables);
    memcpy(starts, w->starts, sizeof w->starts);
    for (int s = 0; s < c->n_seqs; s++) {
        len[s] = c->len[s] ? start[s] + c->len[s] : 0;
        for (int r = 0; r < c->rows[s]; r++)
            positions[n++] = c->len[s] ? c->len[s] - c->rows[s] + r : 0;
    }
    w->side = (size_t)elements * mi_dtype_size(c->kv_dtype);
    w->call.kv.block_table = tables;
    w->scale_bytes = mi_dtype_scaled(c->kv_dtype) ? (size_t)elements / (size_t)c->dim * 4 : 0;
    if (c->blank)
        w->call.kv.k = w->k = blank(w->side), w->call.kv.v = w->v = blank(w->side), w->call.kv.scales = w->scales = w->scale_bytes ? blank(w->scale_bytes) : NULL;
    else
        make_cache(w, c, start);
    make_q(w, c);
    int *d = w->ints = upload(ints, (size_t)(arrived + c->n_seqs * c->kv_heads - ints) * sizeof *ints);
    w->call.kv.kv_len = d + (len - ints);
    w->call.kv.kv_start = c->layout == TAIL ? d + (start - ints) : NULL;
    w->call.kv.block_table = d + (tables - ints);
    w->call.batch =
        (MiBatch){.shape = {w->n_tokens, c->n_seqs, c->n_seqs, c->max_kv ? c->max_kv : longest + 20, c->decode},
                  .positions = d,
                  .seq_start = d + (starts - ints)};
    w->call.scale = 1 / (c->dim == 64 ? 8.f : c->dim == 96 ? 9.8f : c->dim == 128 ? 11.3f : 16.f);
    w->call.softcap = c->softcap, w->call.window = c->window, w->call.bidirectional = c->bidirectional;
    const size_t decode = mi_cuda_attention_workspace(c->dim), prompts = mi_cuda_attention_flash_workspace(c->dim);
    must(cudaMalloc(&w->workspace, decode > prompts ? decode : prompts), "cudaMalloc");
    free(ints);
    if (mi_dtype_scaled(c->kv_dtype) && c->dtype != MI_F32)
        make_wide(w, c);
}

void world_free(World *w)
{
    void *all[] = {w->k, w->v, w->q, w->out, w->ints, w->workspace, w->scales, w->wide.data, w->wide.moved};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        cudaFree(all[i]);
}

int world_run(World *w, Kernel kernel, const Case *c, cudaStream_t stream)
{
    const int few = c->n_seqs == 1 && !c->decode ? 0 : mi_cuda_attention_few(&w->call);
    int      *arrived = (int *)(uintptr_t)w->call.kv.block_table + c->n_seqs * w->call.kv.max_blocks, e = 0;

    if (kernel == SIMPLE)
        return mi_cuda_attention_simple(stream, &w->call);
    if (few)
        e = mi_cuda_attention_decode(stream, &w->call, w->workspace, arrived);
    if (e || c->decode)
        return e;
    return kernel == GQA ? mi_cuda_attention_gqa(stream, &w->call, few)
                         : mi_cuda_attention_flash(stream, &w->call, few, w->workspace, w->wide.data ? &w->wide : NULL);
}
