/* panels_scalar.c - panels in plain C: for every machine, and what the other
 * instruction sets are tested against bit by bit. */
#include <cpu/blocks.h>
#include <cpu/panels.h>
#include <math.h>
#include <string.h>

static bool usable(void) { return true; }

/* To nearest, ties to even, for |v| < 2^22: adding 1.5 2^23 leaves the integer in the mantissa. */
static int32_t nearest(float v)
{
    union { float f; int32_t i; } u = { v + 12582912.0f };
    return u.i - 0x4b400000;
}

static float largest(const float *v, int64_t n)
{
    float max = 0;
    for (int64_t k = 0; k < n; k++)
        max = fabsf(v[k]) > max ? fabsf(v[k]) : max;
    return max;
}

/* Of 32 values x / s to `to`; the sums of both halves. */
static void to_bytes(const float *v, float to_int, int8_t *to, int32_t sum[2])
{
    sum[0] = sum[1] = 0;
    for (int k = 0; k < MI_BLOCK; k++) {
        const int32_t q = nearest(v[k] * to_int);
        to[k] = (int8_t)q;
        sum[k / 16] += q;
    }
}

static void quantise(const float *x, int64_t x_stride, int32_t first, int32_t n, int32_t nt, int64_t blocks, uint8_t *tile)
{
    for (int32_t t = first; t < first + n; t++, x += x_stride) {
        for (int64_t b = 0; b < blocks; b++) {
            uint8_t    *at = tile + b * nt * MI_TILE_BYTES;
            int32_t     sum[2];
            const float max = largest(x + b * MI_BLOCK, MI_BLOCK);
            const float to_int = max > MI_PANEL_TINY ? 127.0f / max : 0, s = max > MI_PANEL_TINY ? max * (1.0f / 127.0f) : 0;

            to_bytes(x + b * MI_BLOCK, to_int, (int8_t *)at + t * MI_BLOCK, sum);
            const float s_sum = s * (float)(sum[0] + sum[1]);
            memcpy(at + 32 * nt + 4 * t, &s, 4);
            memcpy(at + 36 * nt + 4 * t, &s_sum, 4);
            memcpy(at + 40 * nt + 4 * t, &sum[0], 4);
            memcpy(at + 44 * nt + 4 * t, &sum[1], 4);
        }
    }
}

static void quantise_rows(const float *x, int64_t x_stride, int32_t first, int32_t n, int32_t nt, int64_t blocks,
                          uint8_t *tile)
{
    for (int32_t t = first; t < first + n; t++, x += x_stride) {
        const float max = largest(x, blocks * MI_BLOCK);
        const float to_int = max > MI_PANEL_TINY ? 127.0f / max : 0, s = max > MI_PANEL_TINY ? max * (1.0f / 127.0f) : 0;
        int32_t     total = 0, sum[2];

        for (int64_t b = 0; b < blocks; b++) {
            uint8_t *at = tile + b * nt * MI_TILE_BYTES;
            to_bytes(x + b * MI_BLOCK, to_int, (int8_t *)at + t * MI_BLOCK, sum);
            total += sum[0] + sum[1];
            memcpy(at + 32 * nt + 4 * t, &s, 4);
            memcpy(at + 40 * nt + 4 * t, &total, 4);
        }
    }
}

static void quantise_wide(const float *x, int64_t x_stride, int32_t first, int32_t n, int32_t nt, int64_t blocks,
                          uint8_t *tile)
{
    for (int32_t t = first; t < first + n; t++, x += x_stride) {
        for (int64_t b = 0; b < blocks; b++) {
            uint8_t    *at = tile + b * nt * MI_TILE_WIDE;
            const float max = largest(x + b * MI_BLOCK, MI_BLOCK);
            const float to_int = max > MI_PANEL_TINY ? MI_PANEL_WIDE / max : 0;
            const float s = max > MI_PANEL_TINY ? max * (1.0f / MI_PANEL_WIDE) : 0;
            int32_t     sum[2] = { 0, 0 };

            for (int k = 0; k < MI_BLOCK; k++) {
                const int32_t v = nearest(x[b * MI_BLOCK + k] * to_int), high = (v + 64) >> 7, low = v - high * 128;
                ((int8_t *)at)[t * MI_BLOCK + k] = (int8_t)high;
                ((int8_t *)at)[MI_TILE_BYTES * nt + t * MI_BLOCK + k] = (int8_t)low;
                sum[0] += high;
                sum[1] += low;
            }
            const float s_sum = s * (float)(128 * sum[0] + sum[1]);
            memcpy(at + 32 * nt + 4 * t, &s, 4);
            memcpy(at + 36 * nt + 4 * t, &s_sum, 4);
            memcpy(at + 40 * nt + 4 * t, &sum[0], 4);
            memcpy(at + 44 * nt + 4 * t, &sum[1], 4);
        }
    }
}

#define INLINE static inline __attribute__((always_inline)) /* the shape is a constant of each format */

INLINE uint32_t word(const uint8_t *p) /* four columns, in the machine's order: only bytes matter */
{
    uint32_t v;
    memcpy(&v, p, 4);
    return v;
}

/* The q of a block, [row][column]; 16 bits, which compilers know how to multiply and add in pairs. */
INLINE void unpack(MiPanelShape f, const uint8_t *planes, int16_t q[MI_PANEL][MI_BLOCK])
{
    const int half = mi_panel_planes(f.low, f.high) / 2;

    for (int r = 0; r < MI_PANEL; r++) {
        const uint8_t *low = planes + r / 16 * half + r % 16 * 4, *high = low + 64 * f.low;
        uint32_t       four[8];
        uint8_t        byte[MI_BLOCK];

        for (int g = 0; g < 8; g++) {
            four[g] = f.low == 8   ? word(low + 64 * g)
                      : f.low == 4 ? word(low + 64 * (g % 4)) >> 4 * (g / 4) & 0x0f0f0f0fu
                                   : word(low + 64 * (g / 4)) >> 2 * (g % 4) & 0x03030303u;
            if (f.high == 1)
                four[g] |= (word(high) >> g & 0x01010101u) << f.low;
            if (f.high == 2)
                four[g] |= (word(high + 64 * (g / 4)) >> 2 * (g % 4) & 0x03030303u) << f.low;
        }
        memcpy(byte, four, sizeof byte);
        for (int k = 0; k < MI_BLOCK; k++)
            q[r][k] = f.table ? mi_panel_table[byte[k]] : byte[k];
    }
}

static float half_at(const uint8_t *p, int r)
{
    uint16_t h;
    memcpy(&h, p + 2 * r, 2);
    return mi_f16_to_f32(h);
}

static float float_at(const uint8_t *p, int r)
{
    float v;
    memcpy(&v, p + 4 * r, 4);
    return v;
}

/* d and m of the rows, of both halves of the columns; i: which block of its group. */
INLINE void scales(MiScales s, const uint8_t *head, int i, float d[2][MI_PANEL], float m[2][MI_PANEL])
{
    for (int r = 0; r < MI_PANEL; r++) {
        const bool  row = mi_panel_row(s), mins = mi_panel_mins(s);
        const float d0 = row ? float_at(head, r) : half_at(head, r);
        const float m0 = !mins ? 0 : row ? float_at(head + 128, r) : half_at(head + 64, r);
        for (int h = 0; h < 2; h++) {
            const int one = 32 * i + r, two = 32 * (2 * i + h) + r;
            d[h][r] = d0;
            m[h][r] = m0;
            if (s == MI_SCALE_K)
                d[h][r] = d0 * (float)(int8_t)head[64 + one];
            if (s == MI_SCALE_K16)
                d[h][r] = d0 * (float)(int8_t)head[64 + two];
            if (s == MI_SCALE_KM) {
                d[h][r] = d0 * (float)head[128 + one];
                m[h][r] = -m0 * (float)head[384 + one];
            }
            if (s == MI_SCALE_KM16) {
                d[h][r] = d0 * (float)(head[128 + two] & 15);
                m[h][r] = -m0 * (float)(head[128 + two] >> 4);
            }
        }
    }
}

/* Of 16 columns. */
static int32_t dot(const int16_t *q, const int16_t *a)
{
    int32_t sum = 0;
    for (int k = 0; k < 16; k++)
        sum += q[k] * a[k];
    return sum;
}

typedef struct { float s, s_sum; int32_t sum[2]; } Block; /* of x */

static Block block_of(const uint8_t *at, int nt, int t)
{
    Block b;
    memcpy(&b.s, at + 32 * nt + 4 * t, 4);
    memcpy(&b.s_sum, at + 36 * nt + 4 * t, 4);
    memcpy(&b.sum[0], at + 40 * nt + 4 * t, 4);
    memcpy(&b.sum[1], at + 44 * nt + 4 * t, 4);
    return b;
}

INLINE void panel(const MiPanelCall *c, MiPanelShape f)
{
    const int      per_group = mi_panel_super(f.scales) ? 8 : 1;
    const int      head_bytes = mi_panel_head(f.scales), planes = mi_panel_planes(f.low, f.high);
    const uint8_t *head = c->panel;
    float          y[MI_TILE][MI_PANEL] = { { 0 } };

    for (int64_t b = 0; b < c->blocks; b++) {
        const int i = (int)(b % per_group);
        int16_t   q[MI_PANEL][MI_BLOCK], a[MI_BLOCK];
        float     d[2][MI_PANEL], m[2][MI_PANEL];

        if (b && i == 0)
            head += head_bytes + per_group * planes;
        unpack(f, head + head_bytes + i * planes, q);
        scales(f.scales, head, i, d, m);
        for (int t = 0; t < c->nt; t++) {
            const uint8_t *at = c->tile + b * c->nt * MI_TILE_BYTES;
            const Block    x = block_of(at, c->nt, t);
            for (int k = 0; k < MI_BLOCK; k++)
                a[k] = ((const int8_t *)at)[t * MI_BLOCK + k];
            for (int r = 0; r < MI_PANEL; r++) {
                const int32_t first = dot(q[r], a) - f.offset * x.sum[0];
                const int32_t last = dot(q[r] + 16, a + 16) - f.offset * x.sum[1];
                if (mi_panel_halves(f.scales)) {
                    const float one = (float)first, two = (float)last;
                    y[t][r] = fmaf(fmaf(two, d[1][r], one * d[0][r]), x.s, y[t][r]);
                } else {
                    y[t][r] = fmaf((float)(first + last) * d[0][r], x.s, y[t][r]);
                }
                if (f.scales == MI_SCALE_KM16) {
                    y[t][r] = fmaf(m[0][r], x.s * (float)x.sum[0], y[t][r]);
                    y[t][r] = fmaf(m[1][r], x.s * (float)x.sum[1], y[t][r]);
                } else if (mi_panel_mins(f.scales)) {
                    y[t][r] = fmaf(m[0][r], x.s_sum, y[t][r]);
                }
            }
        }
    }
    for (int t = 0; t < c->nt; t++)
        for (int r = 0; r < c->n_rows; r++)
            c->y[t * c->y_stride + r] = y[t][r] + (c->bias ? c->bias[r] : 0);
}

/* ---- formats with scales of groups or rows -------------------------------------- */

typedef struct {
    float   y[MI_TILE][MI_PANEL], part[MI_TILE][MI_PANEL]; /* part: of this group, in units of d */
    int32_t whole[MI_TILE][MI_PANEL];                      /* in units of d s */
} Sums;

INLINE void add_block(MiPanelShape f, MiPanelX x, const uint8_t *planes, const uint8_t *at, int nt, Sums *u)
{
    int16_t q[MI_PANEL][MI_BLOCK], a[MI_BLOCK];

    unpack(f, planes, q);
    for (int t = 0; t < nt; t++) {
        const Block   b = block_of(at, nt, t);
        const int8_t *high = (const int8_t *)at + t * MI_BLOCK, *low = high + MI_TILE_BYTES * nt;
        const int32_t total = x == MI_X_WIDE ? 128 * b.sum[0] + b.sum[1] : b.sum[0] + b.sum[1];

        for (int k = 0; k < MI_BLOCK; k++)
            a[k] = (int16_t)(x == MI_X_WIDE ? 128 * high[k] + low[k] : high[k]);
        for (int r = 0; r < MI_PANEL; r++) {
            const int32_t sum = dot(q[r], a) + dot(q[r] + 16, a + 16);
            if (x == MI_X_ROW)
                u->whole[t][r] += sum;
            else
                u->part[t][r] = fmaf((float)(sum - f.offset * total), b.s, u->part[t][r]);
        }
    }
}

/* Ends a group, `blocks` of row t from `at` on: y += d part + m sum(x), in units of s where x has one. */
INLINE void end_group(MiPanelShape f, MiPanelX x, const uint8_t *head, const uint8_t *at, int64_t blocks, bool first,
                      int nt, int t, Sums *u)
{
    const int64_t step = (int64_t)nt * mi_tile_bytes(x);
    float         d[2][MI_PANEL], m[2][MI_PANEL], sum = 0;
    int32_t       total = 0;

    if (x == MI_X_ROW) {
        total = block_of(at + (blocks - 1) * step, nt, t).sum[0] - (first ? 0 : block_of(at - step, nt, t).sum[0]);
        sum = (float)total;
    } else {
        for (int64_t b = 0; b < blocks; b++)
            sum += block_of(at + b * step, nt, t).s_sum;
    }
    scales(f.scales, head, 0, d, m);
    for (int r = 0; r < MI_PANEL; r++) {
        const float part = x == MI_X_ROW ? (float)(u->whole[t][r] - f.offset * total) : u->part[t][r];
        u->y[t][r] = fmaf(part, d[0][r], u->y[t][r]);
        if (mi_panel_mins(f.scales))
            u->y[t][r] = fmaf(m[0][r], sum, u->y[t][r]);
        u->part[t][r] = 0, u->whole[t][r] = 0;
    }
}

INLINE void encoded_panel(const MiPanelCall *c, MiPanelShape f, MiPanelX x)
{
    const int      head_bytes = mi_panel_head(f.scales), planes = mi_panel_planes(f.low, f.high);
    const int64_t  group = mi_panel_group(f.scales), step = (int64_t)c->nt * mi_tile_bytes(x);
    const uint8_t *head = c->panel, *p = head + head_bytes, *at = c->tile;
    Sums           u;

    memset(&u, 0, sizeof u);
    for (int64_t from = 0; from < c->blocks; from += group, at += group * step) {
        const int64_t n = c->blocks - from < group ? c->blocks - from : group;

        for (int64_t b = 0; b < n; b++, p += planes)
            add_block(f, x, p, at + b * step, c->nt, &u);
        for (int t = 0; t < c->nt; t++)
            end_group(f, x, head, at, n, from == 0, c->nt, t, &u);
        if (!mi_panel_row(f.scales))
            head = p, p += head_bytes;
    }
    for (int t = 0; t < c->nt; t++) {
        const float s = x == MI_X_ROW ? block_of(c->tile, c->nt, t).s : 1;
        for (int r = 0; r < c->n_rows; r++)
            c->y[t * c->y_stride + r] = u.y[t][r] * s + (c->bias ? c->bias[r] : 0);
    }
}

/* ---- every format ----------------------------------------------------------- */

#define RUN(name, low, high, table, offset, scales)                 \
    static void name(const MiPanelCall *c)                          \
    {                                                               \
        panel(c, (MiPanelShape){ low, high, table, offset, scales }); \
    }
#define RUN_ENCODED(x, name, low, high, table, offset, scales)      \
    static void name(const MiPanelCall *c)                          \
    {                                                               \
        encoded_panel(c, (MiPanelShape){ low, high, table, offset, scales }, x); \
    }
#define RUN_BLOCK(name, ...) RUN_ENCODED(MI_X_BLOCK, name, __VA_ARGS__)
#define RUN_ROW(name, ...) RUN_ENCODED(MI_X_ROW, name##_by_row, __VA_ARGS__)
#define RUN_WIDE(name, ...) RUN_ENCODED(MI_X_WIDE, name##_wide, __VA_ARGS__)
MI_PANEL_STORED(RUN)
MI_PANEL_ENCODED(RUN_BLOCK)
MI_PANEL_ENCODED(RUN_ROW)
MI_PANEL_ENCODED(RUN_WIDE)

#define RUN_OF(name, ...) [MI_PANEL_##name] = name,
#define RUN_ROW_OF(name, ...) [MI_PANEL_##name] = name##_by_row,
#define RUN_WIDE_OF(name, ...) [MI_PANEL_##name] = name##_wide,
const MiPanelIsa mi_panel_scalar = {
    "scalar", usable, { quantise, quantise_rows, quantise_wide },
    { { MI_PANEL_FORMATS(RUN_OF) }, { MI_PANEL_ENCODED(RUN_ROW_OF) }, { MI_PANEL_ENCODED(RUN_WIDE_OF) } },
};
