/* panels_avx512.c - panels with AVX-512 VNNI: 16 rows of W a register.
 *
 * A block of a panel (32 rows, 32 columns) is unpacked into 16 registers once
 * and meets every row of x of the tile: 16 vpdpbusd with broadcasts from
 * memory, then int32 -> f32 and one or two FMAs a half. */
#include <cpu/panels.h>
#include <cpu/x86.h>
#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))

/* How far ahead of x W is prefetched: the hardware's own stops at the ends of 4 KB
 * pages.  One thread, one row, q5_0, 14 GB/s to be had: 0: 8.5 GB/s, 2 KB: 10.0,
 * 4 KB: 10.8, 8 KB: 10.8, 16 KB: 10.6.  8 rows, q4_1: 0.30 of the peak without, 0.45 with. */
enum { AHEAD = 4096 };

/* ---- x ---------------------------------------------------------------------- */

INLINE float largest(__m512 top)
{
    const __m256 top8 = _mm256_max_ps(_mm512_castps512_ps256(top), _mm512_extractf32x8_ps(top, 1));
    __m128       top4 = _mm_max_ps(_mm256_castps256_ps128(top8), _mm256_extractf128_ps(top8, 1));
    top4 = _mm_max_ps(top4, _mm_movehl_ps(top4, top4));
    return _mm_cvtss_f32(_mm_max_ss(top4, _mm_movehdup_ps(top4)));
}

/* 32 integers as bytes to `to`; the sums of both halves. */
INLINE void store_bytes(__m512i v0, __m512i v1, uint8_t *to, int32_t *sum, int32_t *sum2)
{
    const __m256i q = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm512_cvtsepi32_epi8(v0)), _mm512_cvtsepi32_epi8(v1), 1);
    __m256i       sums = _mm256_dpbusd_epi32(_mm256_setzero_si256(), _mm256_set1_epi8(1), q);

    _mm256_storeu_si256((__m256i *)to, q);
    sums = _mm256_add_epi32(sums, _mm256_shuffle_epi32(sums, 0x4e));
    sums = _mm256_add_epi32(sums, _mm256_shuffle_epi32(sums, 0xb1));
    *sum = _mm256_extract_epi32(sums, 0);
    *sum2 = _mm256_extract_epi32(sums, 4);
}

INLINE __m512i scaled(const float *x, float to_int)
{
    return _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x), _mm512_set1_ps(to_int)));
}

INLINE void to_bytes(const float *x, float to_int, uint8_t *to, int32_t *sum, int32_t *sum2)
{
    store_bytes(scaled(x, to_int), scaled(x + 16, to_int), to, sum, sum2);
}

INLINE __m512 absolute(const float *x)
{
    return _mm512_max_ps(_mm512_abs_ps(_mm512_loadu_ps(x)), _mm512_abs_ps(_mm512_loadu_ps(x + 16)));
}

static void quantise(const float *x, int64_t x_stride, int32_t first, int32_t n, int32_t nt, int64_t blocks, uint8_t *tile)
{
    for (int32_t t = first; t < first + n; t++, x += x_stride) {
        uint8_t *at = tile;
        for (int64_t b = 0; b < blocks; b++, at += nt * MI_TILE_BYTES) {
            const float max = largest(absolute(x + b * 32));
            const float to_int = max > MI_PANEL_TINY ? 127.0f / max : 0, s = max > MI_PANEL_TINY ? max * (1.0f / 127.0f) : 0;
            int32_t     a, c;

            to_bytes(x + b * 32, to_int, at + 32 * t, &a, &c);
            ((float *)(at + 32 * nt))[t] = s;
            ((float *)(at + 36 * nt))[t] = s * (float)(a + c);
            ((int32_t *)(at + 40 * nt))[t] = a;
            ((int32_t *)(at + 44 * nt))[t] = c;
        }
    }
}

static void quantise_rows(const float *x, int64_t x_stride, int32_t first, int32_t n, int32_t nt, int64_t blocks,
                          uint8_t *tile)
{
    for (int32_t t = first; t < first + n; t++, x += x_stride) {
        uint8_t *at = tile;
        __m512   top = _mm512_setzero_ps();
        int32_t  sum = 0, a, c;

        for (int64_t b = 0; b < blocks; b++)
            top = _mm512_max_ps(top, absolute(x + b * 32));
        const float max = largest(top);
        const float to_int = max > MI_PANEL_TINY ? 127.0f / max : 0, s = max > MI_PANEL_TINY ? max * (1.0f / 127.0f) : 0;
        for (int64_t b = 0; b < blocks; b++, at += nt * MI_TILE_BYTES) {
            to_bytes(x + b * 32, to_int, at + 32 * t, &a, &c);
            ((float *)(at + 32 * nt))[t] = s;
            ((int32_t *)(at + 40 * nt))[t] = sum += a + c;
        }
    }
}

static void quantise_wide(const float *x, int64_t x_stride, int32_t first, int32_t n, int32_t nt, int64_t blocks,
                          uint8_t *tile)
{
    const __m512i half = _mm512_set1_epi32(64);

    for (int32_t t = first; t < first + n; t++, x += x_stride) {
        uint8_t *at = tile;
        for (int64_t b = 0; b < blocks; b++, at += nt * MI_TILE_WIDE) {
            const float   max = largest(absolute(x + b * 32));
            const float   to_int = max > MI_PANEL_TINY ? MI_PANEL_WIDE / max : 0;
            const float   s = max > MI_PANEL_TINY ? max * (1.0f / MI_PANEL_WIDE) : 0;
            const __m512i v0 = scaled(x + b * 32, to_int), v1 = scaled(x + b * 32 + 16, to_int);
            const __m512i h0 = _mm512_srai_epi32(_mm512_add_epi32(v0, half), 7);
            const __m512i h1 = _mm512_srai_epi32(_mm512_add_epi32(v1, half), 7);
            int32_t       a, c, l, m;

            store_bytes(h0, h1, at + 32 * t, &a, &c);
            store_bytes(_mm512_sub_epi32(v0, _mm512_slli_epi32(h0, 7)), _mm512_sub_epi32(v1, _mm512_slli_epi32(h1, 7)),
                        at + MI_TILE_BYTES * nt + 32 * t, &l, &m);
            ((float *)(at + 32 * nt))[t] = s;
            ((float *)(at + 36 * nt))[t] = s * (float)(128 * (a + c) + l + m);
            ((int32_t *)(at + 40 * nt))[t] = a + c;
            ((int32_t *)(at + 44 * nt))[t] = l + m;
        }
    }
}

/* ---- W ---------------------------------------------------------------------- */

typedef struct { __m512i q0, q1, q2, q3, q4, q5, q6, q7; } Half; /* 16 rows: q_g holds columns 4 g .. 4 g + 3 */

INLINE __m512i plane(const uint8_t *p, int i) { return _mm512_loadu_si512(p + 64 * i); }

/* Bits [from, from + n) of each byte, moved to `to`; mask: where they land. */
#define MOVED(v, from, to) \
    ((to) >= (from) ? _mm512_slli_epi16(v, ((to) - (from)) & 15) : _mm512_srli_epi16(v, ((from) - (to)) & 15))
#define FIELD(v, from, to, mask) _mm512_and_si512(MOVED(v, from, to), mask)
#define FIELD_OR(q, v, from, to, mask) _mm512_ternarylogic_epi32(q, MOVED(v, from, to), mask, 0xf8) /* q | v & mask */

INLINE Half unpack(const uint8_t *p, int low, int high, bool table)
{
    const __m512i m4 = _mm512_set1_epi8(15), m2 = _mm512_set1_epi8(3);
    Half          w;

    if (low == 8) {
        w = (Half){ plane(p, 0), plane(p, 1), plane(p, 2), plane(p, 3), plane(p, 4), plane(p, 5), plane(p, 6), plane(p, 7) };
    } else if (low == 4) {
        const __m512i a = plane(p, 0), b = plane(p, 1), c = plane(p, 2), d = plane(p, 3);
        w = (Half){ _mm512_and_si512(a, m4), _mm512_and_si512(b, m4), _mm512_and_si512(c, m4), _mm512_and_si512(d, m4),
                    FIELD(a, 4, 0, m4),      FIELD(b, 4, 0, m4),      FIELD(c, 4, 0, m4),      FIELD(d, 4, 0, m4) };
    } else {
        const __m512i a = plane(p, 0), b = plane(p, 1);
        w = (Half){ FIELD(a, 0, 0, m2), FIELD(a, 2, 0, m2), FIELD(a, 4, 0, m2), FIELD(a, 6, 0, m2),
                    FIELD(b, 0, 0, m2), FIELD(b, 2, 0, m2), FIELD(b, 4, 0, m2), FIELD(b, 6, 0, m2) };
    }
    if (high == 1) {
        const __m512i h = plane(p, low);
        const __m512i m = _mm512_set1_epi8((char)(1 << low));
#define BIT(g) w.q##g = low == 4 ? FIELD_OR(w.q##g, h, g, 4, m) : FIELD_OR(w.q##g, h, g, 2, m);
        BIT(0) BIT(1) BIT(2) BIT(3) BIT(4) BIT(5) BIT(6) BIT(7)
#undef BIT
    } else if (high == 2) {
        const __m512i h = plane(p, low), i = plane(p, low + 1), m = _mm512_set1_epi8(0x30);
        w.q0 = FIELD_OR(w.q0, h, 0, 4, m), w.q1 = FIELD_OR(w.q1, h, 2, 4, m);
        w.q2 = FIELD_OR(w.q2, h, 4, 4, m), w.q3 = FIELD_OR(w.q3, h, 6, 4, m);
        w.q4 = FIELD_OR(w.q4, i, 0, 4, m), w.q5 = FIELD_OR(w.q5, i, 2, 4, m);
        w.q6 = FIELD_OR(w.q6, i, 4, 4, m), w.q7 = FIELD_OR(w.q7, i, 6, 4, m);
    }
    if (table) {
        const __m512i t = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)mi_panel_table));
#define LOOK_UP(g) w.q##g = _mm512_shuffle_epi8(t, w.q##g);
        LOOK_UP(0) LOOK_UP(1) LOOK_UP(2) LOOK_UP(3) LOOK_UP(4) LOOK_UP(5) LOOK_UP(6) LOOK_UP(7)
#undef LOOK_UP
    }
    return w;
}

typedef struct { __m512 d, d2, m, m2; } Scales; /* of 16 rows; d2, m2: of the last 16 columns */

INLINE __m512 halves(const uint8_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }
INLINE __m128i bytes(const uint8_t *p) { return _mm_loadu_si128((const __m128i *)p); }
INLINE __m512 signed_bytes(const uint8_t *p) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes(p))); }
INLINE __m512 unsigned_bytes(__m128i v) { return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(v)); }
INLINE __m512 negative(__m512 v) { return _mm512_xor_ps(v, _mm512_set1_ps(-0.0f)); }

/* head: of the group; i: which of its blocks; h: which rows. */
INLINE Scales scales_of(MiScales s, const uint8_t *head, int i, int h)
{
    const __m512   d = mi_panel_row(s) ? _mm512_loadu_ps(head + 64 * h) : halves(head + 32 * h);
    const uint8_t *one = head + (s == MI_SCALE_KM ? 128 : 64) + 32 * i + 16 * h;
    const uint8_t *two = head + (s == MI_SCALE_KM16 ? 128 : 64) + 64 * i + 16 * h;
    const __m128i  m4 = _mm_set1_epi8(15);
    Scales         v = { d, d, d, d };

    if (s == MI_SCALE_ROWM)
        v.m = _mm512_loadu_ps(head + 128 + 64 * h);
    else if (s == MI_SCALE_DM || (mi_panel_encoded(s) && mi_panel_mins(s)))
        v.m = halves(head + 64 + 32 * h);
    if (s == MI_SCALE_K)
        v.d = _mm512_mul_ps(d, signed_bytes(one));
    if (s == MI_SCALE_KM) {
        v.d = _mm512_mul_ps(d, unsigned_bytes(bytes(one)));
        v.m = _mm512_mul_ps(negative(halves(head + 64 + 32 * h)), unsigned_bytes(bytes(one + 256)));
    }
    if (s == MI_SCALE_K16) {
        v.d = _mm512_mul_ps(d, signed_bytes(two));
        v.d2 = _mm512_mul_ps(d, signed_bytes(two + 32));
    }
    if (s == MI_SCALE_KM16) {
        const __m512  m = negative(halves(head + 64 + 32 * h));
        const __m128i a = bytes(two), b = bytes(two + 32);
        v.d = _mm512_mul_ps(d, unsigned_bytes(_mm_and_si128(a, m4)));
        v.d2 = _mm512_mul_ps(d, unsigned_bytes(_mm_and_si128(b, m4)));
        v.m = _mm512_mul_ps(m, unsigned_bytes(_mm_and_si128(_mm_srli_epi16(a, 4), m4)));
        v.m2 = _mm512_mul_ps(m, unsigned_bytes(_mm_and_si128(_mm_srli_epi16(b, 4), m4)));
    }
    return v;
}

/* ---- a panel ---------------------------------------------------------------- */

/* y += s (d a + d2 b) + m s_sum, or with a sum of each half of the block; s a where d is of more than a block. */
INLINE void scale(MiPanelShape f, const Scales *e, float s, float s_sum, int32_t sum, int32_t sum2, __m512i a, __m512i b,
                  __m512 *y)
{
    if (mi_panel_encoded(f.scales)) {
        *y = _mm512_fmadd_ps(_mm512_cvtepi32_ps(a), _mm512_set1_ps(s), *y);
        return;
    }
    __m512 v = _mm512_mul_ps(_mm512_cvtepi32_ps(a), e->d);

    if (mi_panel_halves(f.scales))
        v = _mm512_fmadd_ps(_mm512_cvtepi32_ps(b), e->d2, v);
    *y = _mm512_fmadd_ps(v, _mm512_set1_ps(s), *y);
    if (f.scales == MI_SCALE_KM16) {
        *y = _mm512_fmadd_ps(e->m, _mm512_set1_ps(s * (float)sum), *y);
        *y = _mm512_fmadd_ps(e->m2, _mm512_set1_ps(s * (float)sum2), *y);
    } else if (mi_panel_mins(f.scales)) {
        *y = _mm512_fmadd_ps(e->m, _mm512_set1_ps(s_sum), *y);
    }
}

/* Four rows of x at a time, or two where a block has two scales, keep eight sums
 * in flight: a vpdpbusd takes five cycles, two start in each.  One row alone
 * reaches 45 % of the peak, since its waiting instructions fill the scheduler. */
#define EACH_ROW(X)        \
    {                      \
        X(0)               \
        if (n > 1) {       \
            X(1)           \
        }                  \
        if (n > 2) {       \
            X(2) X(3)      \
        }                  \
    }

/* What a block of x, rows t .. t + n - 1 of the tile, adds to the sums of both halves of a panel's rows; to `whole`,
 * in integers and without the offset, where x has one scale for a row. */
INLINE void add(MiPanelShape f, const Half *w, const Half *w2, const Scales *e, const Scales *e2, const uint8_t *at,
                int nt, int t, int n, bool wide, __m512 (*y)[2], __m512i (*whole)[2])
{
    const int32_t *qa = (const int32_t *)(at + 32 * t), *sum = (const int32_t *)(at + 40 * nt) + t;
    const float   *s = (const float *)(at + 32 * nt) + t;
    const bool     split = mi_panel_halves(f.scales);

#define START(i)                                                                                           \
    const bool from##i = i < n && !whole;                                                                  \
    __m512i a##i = _mm512_set1_epi32(from##i ? -f.offset * (split || wide ? sum[i] : sum[i] + sum[nt + i]) : 0); \
    __m512i b##i = _mm512_set1_epi32(from##i && split ? -f.offset * sum[nt + i] : 0);                    \
    __m512i c##i = a##i, d##i = b##i;                                                                      \
    if (i < n && whole)                                                                                    \
        a##i = whole[i][0], c##i = whole[i][1];
    START(0) START(1) START(2) START(3)
#undef START
#define DOT(a, c, g, i)                                  \
    {                                                    \
        const __m512i x = _mm512_set1_epi32(qa[8 * i + g]); \
        a = _mm512_dpbusd_epi32(a, w->q##g, x);          \
        c = _mm512_dpbusd_epi32(c, w2->q##g, x);         \
    }
#define FIRST_0(i) DOT(a##i, c##i, 0, i)
#define FIRST_1(i) DOT(a##i, c##i, 1, i)
#define FIRST_2(i) DOT(a##i, c##i, 2, i)
#define FIRST_3(i) DOT(a##i, c##i, 3, i)
#define LAST(i, g) if (split) DOT(b##i, d##i, g, i) else DOT(a##i, c##i, g, i)
#define LAST_4(i) LAST(i, 4)
#define LAST_5(i) LAST(i, 5)
#define LAST_6(i) LAST(i, 6)
#define LAST_7(i) LAST(i, 7)
    EACH_ROW(FIRST_0) EACH_ROW(FIRST_1) EACH_ROW(FIRST_2) EACH_ROW(FIRST_3)
    EACH_ROW(LAST_4) EACH_ROW(LAST_5) EACH_ROW(LAST_6) EACH_ROW(LAST_7)
#define SHIFT(i)                                                                     \
    {                                                                                \
        const __m512i off = _mm512_set1_epi32(-f.offset * sum[nt + i]);              \
        a##i = _mm512_add_epi32(_mm512_slli_epi32(a##i, 7), off);                    \
        c##i = _mm512_add_epi32(_mm512_slli_epi32(c##i, 7), off);                    \
    }
    if (wide) {
        EACH_ROW(SHIFT)
        qa = (const int32_t *)(at + MI_TILE_BYTES * nt + 32 * t);
        EACH_ROW(FIRST_0) EACH_ROW(FIRST_1) EACH_ROW(FIRST_2) EACH_ROW(FIRST_3)
        EACH_ROW(LAST_4) EACH_ROW(LAST_5) EACH_ROW(LAST_6) EACH_ROW(LAST_7)
    }
#define FINISH(i)                                                                    \
    if (whole) {                                                                     \
        whole[i][0] = a##i, whole[i][1] = c##i;                                      \
    } else {                                                                         \
        scale(f, e, s[i], s[nt + i], sum[i], sum[nt + i], a##i, b##i, &y[i][0]);     \
        scale(f, e2, s[i], s[nt + i], sum[i], sum[nt + i], c##i, d##i, &y[i][1]);    \
    }
    EACH_ROW(FINISH)
}

INLINE void finish(const MiPanelCall *c, int t, __m512 y, __m512 y2)
{
    const uint32_t  wanted = c->n_rows >= 32 ? UINT32_MAX : (1u << c->n_rows) - 1;
    const __mmask16 k = (__mmask16)wanted, k2 = (__mmask16)(wanted >> 16);
    float          *to = c->y + t * c->y_stride;

    if (c->bias) {
        y = _mm512_add_ps(y, _mm512_maskz_loadu_ps(k, c->bias));
        y2 = _mm512_add_ps(y2, _mm512_maskz_loadu_ps(k2, c->bias + 16));
    }
    _mm512_mask_storeu_ps(to, k, y);
    _mm512_mask_storeu_ps(to + 16, k2, y2);
}

/* `one`: a tile of one row, whose sums stay in registers while W streams by. */
INLINE void panel(const MiPanelCall *c, MiPanelShape f, bool one)
{
    const int      per_group = mi_panel_super(f.scales) ? 8 : 1, nt = one ? 1 : c->nt;
    const int      head_bytes = mi_panel_head(f.scales), planes = mi_panel_planes(f.low, f.high);
    const uint8_t *head = c->panel, *at = c->tile;
    const int      step = mi_panel_halves(f.scales) ? 2 : 4;
    __m512         y[MI_TILE][2]; /* of one row only y[0], in registers */

    y[0][0] = y[0][1] = _mm512_setzero_ps();
    for (int t = 1; !one && t < nt; t++)
        y[t][0] = y[t][1] = y[0][0];
    for (int64_t g = 0; g < c->blocks / per_group; g++, head += head_bytes + per_group * planes) {
        for (int i = 0; i < per_group; i++, at += nt * MI_TILE_BYTES) {
            const uint8_t *p = head + head_bytes + i * planes;
            const Half     w = unpack(p, f.low, f.high, f.table), w2 = unpack(p + planes / 2, f.low, f.high, f.table);
            const Scales   e = scales_of(f.scales, head, i, 0), e2 = scales_of(f.scales, head, i, 1);
            int            t = 0;

            for (int o = 0; o < planes; o += 64)
                _mm_prefetch((const char *)p + AHEAD + o, _MM_HINT_T0);
            if (one) {
                add(f, &w, &w2, &e, &e2, at, 1, 0, 1, false, &y[0], NULL);
                continue;
            }
            for (; t + step <= nt; t += step)
                add(f, &w, &w2, &e, &e2, at, nt, t, step, false, &y[t], NULL);
            for (; t < nt; t++)
                add(f, &w, &w2, &e, &e2, at, nt, t, 1, false, &y[t], NULL);
        }
    }
    finish(c, 0, y[0][0], y[0][1]);
    for (int t = 1; !one && t < nt; t++)
        finish(c, t, y[t][0], y[t][1]);
}

/* ---- formats with scales of groups or rows -------------------------------------- */

typedef struct {
    __m512  y[MI_TILE][2], part[MI_TILE][2]; /* part: of this group, in units of d */
    __m512i whole[MI_TILE][2];               /* in units of d s */
} Sums;

/* Ends a group, `blocks` of row t from `at` on: y += d part + m sum(x), in units of s where x has one. */
INLINE void end_group(MiPanelShape f, MiPanelX x, const Scales *e, const Scales *e2, const uint8_t *at, int64_t blocks,
                      bool first, int nt, int t, Sums *u)
{
    const int64_t step = (int64_t)nt * mi_tile_bytes(x);
    float         sum = 0;

    if (x == MI_X_ROW) {
        const int32_t *last = (const int32_t *)(at + (blocks - 1) * step + 40 * nt);
        const int32_t  total = last[t] - (first ? 0 : ((const int32_t *)(at - step + 40 * nt))[t]);
        const __m512i  off = _mm512_set1_epi32(f.offset * total);
        u->part[t][0] = _mm512_cvtepi32_ps(_mm512_sub_epi32(u->whole[t][0], off));
        u->part[t][1] = _mm512_cvtepi32_ps(_mm512_sub_epi32(u->whole[t][1], off));
        u->whole[t][0] = u->whole[t][1] = _mm512_setzero_si512();
        sum = (float)total;
    } else if (mi_panel_mins(f.scales)) {
        for (int64_t b = 0; b < blocks; b++)
            sum += ((const float *)(at + b * step + 36 * nt))[t];
    }
    u->y[t][0] = _mm512_fmadd_ps(u->part[t][0], e->d, u->y[t][0]);
    u->y[t][1] = _mm512_fmadd_ps(u->part[t][1], e2->d, u->y[t][1]);
    if (mi_panel_mins(f.scales)) {
        u->y[t][0] = _mm512_fmadd_ps(e->m, _mm512_set1_ps(sum), u->y[t][0]);
        u->y[t][1] = _mm512_fmadd_ps(e2->m, _mm512_set1_ps(sum), u->y[t][1]);
    }
    u->part[t][0] = u->part[t][1] = _mm512_setzero_ps();
}

INLINE void encoded_panel(const MiPanelCall *c, MiPanelShape f, MiPanelX x, bool one)
{
    const int      nt = one ? 1 : c->nt, head_bytes = mi_panel_head(f.scales), planes = mi_panel_planes(f.low, f.high);
    const int64_t  group = mi_panel_group(f.scales), step = (int64_t)nt * mi_tile_bytes(x);
    const uint8_t *head = c->panel, *p = head + head_bytes, *at = c->tile;
    Sums           u;

    for (int t = 0; t < nt; t++) {
        u.y[t][0] = u.y[t][1] = u.part[t][0] = u.part[t][1] = _mm512_setzero_ps();
        u.whole[t][0] = u.whole[t][1] = _mm512_setzero_si512();
    }
    for (int64_t from = 0; from < c->blocks; from += group, at += group * step) {
        const int64_t n = c->blocks - from < group ? c->blocks - from : group;

        for (int64_t b = 0; b < n; b++, p += planes) {
            const Half w = unpack(p, f.low, f.high, f.table), w2 = unpack(p + planes / 2, f.low, f.high, f.table);
            int        t = 0;

            for (int o = 0; o < planes; o += 64)
                _mm_prefetch((const char *)p + AHEAD + o, _MM_HINT_T0);
            for (; !one && t + 4 <= nt; t += 4)
                add(f, &w, &w2, NULL, NULL, at + b * step, nt, t, 4, x == MI_X_WIDE, &u.part[t],
                    x == MI_X_ROW ? &u.whole[t] : NULL);
            for (; t < nt; t++)
                add(f, &w, &w2, NULL, NULL, at + b * step, nt, t, 1, x == MI_X_WIDE, &u.part[t],
                    x == MI_X_ROW ? &u.whole[t] : NULL);
        }
        const Scales e = scales_of(f.scales, head, 0, 0), e2 = scales_of(f.scales, head, 0, 1);
        for (int t = 0; t < nt; t++)
            end_group(f, x, &e, &e2, at, n, from == 0, nt, t, &u);
        if (!mi_panel_row(f.scales))
            head = p, p += head_bytes;
    }
    for (int t = 0; t < nt; t++) {
        const __m512 s = _mm512_set1_ps(x == MI_X_ROW ? ((const float *)(c->tile + 32 * nt))[t] : 1);
        finish(c, t, _mm512_mul_ps(u.y[t][0], s), _mm512_mul_ps(u.y[t][1], s));
    }
}

/* ---- every format ----------------------------------------------------------- */

#define RUN(name, low, high, table, offset, scales)                \
    static void name(const MiPanelCall *c)                         \
    {                                                              \
        const MiPanelShape shape = { low, high, table, offset, scales }; \
        if (c->nt == 1)                                            \
            panel(c, shape, true);                                 \
        else                                                       \
            panel(c, shape, false);                                \
    }
#define RUN_ENCODED(x, name, low, high, table, offset, scales)     \
    static void name(const MiPanelCall *c)                         \
    {                                                              \
        const MiPanelShape shape = { low, high, table, offset, scales }; \
        if (c->nt == 1)                                            \
            encoded_panel(c, shape, x, true);                      \
        else                                                       \
            encoded_panel(c, shape, x, false);                     \
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
const MiPanelIsa mi_panel_avx512 = {
    "avx512", mi_x86_avx512_vnni, { quantise, quantise_rows, quantise_wide },
    { { MI_PANEL_FORMATS(RUN_OF) }, { MI_PANEL_ENCODED(RUN_ROW_OF) }, { MI_PANEL_ENCODED(RUN_WIDE_OF) } },
};
