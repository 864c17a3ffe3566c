/* quants.c - what MiQuant describes, by plain loops.  Rows are taken by tiles, since GPTQ
 * and AWQ store a row with a stride: a tile's words share cache lines. */
#include "quants.h"
#include "blocks.h"
#include <math.h>
#include <string.h>

enum { TILE = 8 }; /* rows */

const char *const mi_quant_formats[] = { "gptq", "awq", "ct_int4", "ct_int8", "fp8", "fp8_blocks", "fp8_groups", NULL };

static const int awq_place[8] = { 0, 4, 1, 5, 2, 6, 3, 7 };

static uint32_t word(const void *words, int64_t i)
{
    const uint8_t *p = (const uint8_t *)words + 4 * i;
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* ---- codes ------------------------------------------------------------------ */

/* [n] of one row from words that stand `stride` apart. */
static void from_words(const MiQuant *q, const uint8_t *words, int64_t stride, uint8_t *codes)
{
    const int64_t  per = 32 / q->bits;
    const uint32_t mask = (1u << q->bits) - 1;

    for (int64_t i = 0; i < q->in; words += 4 * stride) {
        uint32_t w = word(words, 0);
        for (int64_t k = 0; k < per && i < q->in; k++, w >>= q->bits)
            codes[i++] = (uint8_t)(w & mask);
    }
}

static void row_codes(const MiQuant *q, int64_t o, uint8_t *codes)
{
    const uint8_t *p = q->codes;
    const int64_t  in = q->in, per = 32 / q->bits;

    switch (q->codes_as) {
    case MI_CODES_I8:
        for (int64_t i = 0; i < in; i++)
            codes[i] = p[o * in + i] ^ 0x80u;
        return;
    case MI_CODES_F8: memcpy(codes, p + o * in, (size_t)in); return;
    case MI_CODES_ALONG: from_words(q, p + 4 * (o * ((in + per - 1) / per)), 1, codes); return;
    case MI_CODES_ACROSS: from_words(q, p + 4 * o, q->out, codes); return;
    case MI_CODES_AWQ:
        for (int64_t i = 0; i < in; i++)
            codes[i] = (uint8_t)(word(p, i * (q->out / 8) + o / 8) >> 4 * awq_place[o % 8] & 15u);
    }
}

void mi_quant_codes(const MiQuant *q, int64_t row, int64_t n, uint8_t *codes)
{
    for (int64_t r = 0; r < n; r++)
        row_codes(q, row + r, codes + r * q->in);
}

/* ---- scales and zeros ------------------------------------------------------- */

static float scale_at(const MiQuant *q, int64_t o, int64_t g)
{
    const uint8_t *p = (const uint8_t *)q->scales +
                       (o / q->group_out * q->scale_row + g * q->scale_group) * (int64_t)mi_dtype_size(q->scale_dtype);
    uint16_t       half;
    float          x;

    if (q->scale_dtype == MI_F32) {
        memcpy(&x, p, sizeof x);
        return x;
    }
    memcpy(&half, p, sizeof half);
    return q->scale_dtype == MI_F16 ? mi_f16_to_f32(half) : mi_bf16_to_f32(half);
}

static int32_t zero_at(const MiQuant *q, int64_t o, int64_t g)
{
    const int64_t  per = 32 / q->bits;
    const uint32_t mask = (1u << q->bits) - 1;
    const int32_t  bias = q->codes_as == MI_CODES_I8 ? 128 : 0;

    switch (q->zeros_as) {
    case MI_ZEROS_I8: return ((const int8_t *)q->zeros)[o / q->group_out * q->n_groups + g] + q->zero + bias;
    case MI_ZEROS_DOWN: return (int32_t)(word(q->zeros, o / per * q->n_groups + g) >> o % per * q->bits & mask);
    case MI_ZEROS_ALONG:
        return (int32_t)((word(q->zeros, g * (q->out / per) + o / per) + (uint32_t)q->zero * (UINT32_MAX / mask)) >>
                             o % per * q->bits & mask);
    case MI_ZEROS_AWQ:
        return (int32_t)(word(q->zeros, g * (q->out / 8) + o / 8) >> 4 * awq_place[o % 8] & 15u);
    default: return q->zero + bias;
    }
}

bool mi_quant_scales(const MiQuant *q, int64_t row, int64_t n, float *scales, int32_t *zeros)
{
    bool finite = true;

    for (int64_t r = 0; r < n; r++)
        for (int64_t g = 0; g < q->n_groups; g++) {
            scales[r * q->n_groups + g] = scale_at(q, row + r, g);
            finite = finite && isfinite(scales[r * q->n_groups + g]);
            if (zeros)
                zeros[r * q->n_groups + g] = zero_at(q, row + r, g);
        }
    return finite;
}

/* ---- as f32 ----------------------------------------------------------------- */

typedef struct {
    float   *scales; /* [TILE][n_groups] */
    int32_t *zeros;  /* [TILE][n_groups] */
    uint8_t *codes;  /* [TILE][in] */
} Scratch;

size_t mi_quant_scratch(const MiQuant *q)
{
    return TILE * ((size_t)q->n_groups * (sizeof(float) + sizeof(int32_t)) + (size_t)q->in);
}

/* Columns [from, to) of a row. */
static void combine(const MiQuant *q, const Scratch *s, int64_t r, int64_t from, int64_t to, float *out)
{
    const float   *scales = s->scales + r * q->n_groups;
    const int32_t *zeros = s->zeros + r * q->n_groups;
    const uint8_t *codes = s->codes + r * q->in;

    for (int64_t i = from; i < to; i++) {
        const int64_t g = q->group_of ? q->group_of[i] : i / q->group_in;
        const float   code = q->codes_as == MI_CODES_F8 ? mi_f8_to_f32(codes[i]) : (float)((int32_t)codes[i] - zeros[g]);
        out[i - from] = scales[g] * code;
    }
}

bool mi_quant_decode(const MiQuant *q, int64_t first, int64_t n, float *out, void *scratch)
{
    const Scratch s = { scratch, (int32_t *)((float *)scratch + TILE * q->n_groups),
                        (uint8_t *)((float *)scratch + 2 * TILE * q->n_groups) };
    bool          finite = true;

    for (const int64_t end = first + n; first < end;) {
        const int64_t row = first / q->in, last = (end - 1) / q->in, rows = last - row + 1 < TILE ? last - row + 1 : TILE;
        finite = mi_quant_scales(q, row, rows, s.scales, s.zeros) && finite;
        mi_quant_codes(q, row, rows, s.codes);
        for (int64_t r = 0; r < rows; r++) {
            const int64_t from = first - (row + r) * q->in, to = end - (row + r) * q->in < q->in ? end - (row + r) * q->in : q->in;
            combine(q, &s, r, from, to, out);
            out += to - from;
            first += to - from;
        }
    }
    return finite;
}

void mi_quant_order(const MiQuant *q, int32_t *order, int64_t *counts)
{
    int64_t at = 0, end = 0;

    memset(counts, 0, (size_t)q->n_groups * sizeof *counts);
    for (int64_t i = 0; i < q->in; i++)
        counts[q->group_of[i]]++;
    for (int64_t g = 0; g < q->n_groups; g++) { /* where each begins */
        const int64_t n = counts[g];
        counts[g] = at;
        at += n;
    }
    for (int64_t i = 0; i < q->in; i++)
        order[counts[q->group_of[i]]++] = (int32_t)i;
    for (int64_t g = 0; g < q->n_groups; g++) { /* they are where each ends, now */
        const int64_t start = end;
        end = counts[g];
        counts[g] = end - start;
    }
}
