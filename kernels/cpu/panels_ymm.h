/* panels_ymm.h - panels with 32-byte registers, 8 rows of W each: what
 * panels_avx2.c and panels_avxvnni.c share.  Before it is included:
 *   YMM_VNNI   1: vpdpbusd; 0: vpmaddubsw, whose 16-bit sums must not saturate. */
#include <cpu/panels.h>
#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))

/* ---- x ---------------------------------------------------------------------- */

INLINE __m256 absolute(__m256 v) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), v); }

INLINE int32_t sum_of(__m128i q)
{
    __m128i v = _mm_madd_epi16(_mm_maddubs_epi16(_mm_set1_epi8(1), q), _mm_set1_epi16(1));
    v = _mm_add_epi32(v, _mm_shuffle_epi32(v, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(v, _mm_shuffle_epi32(v, 0xb1)));
}

INLINE __m256i scaled(const float *x, float to_int)
{
    return _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x), _mm256_set1_ps(to_int)));
}

INLINE __m128i to_bytes(__m256i p, __m256i q)
{
    const __m256i w = _mm256_permute4x64_epi64(_mm256_packs_epi32(p, q), 0xd8);
    return _mm_packs_epi16(_mm256_castsi256_si128(w), _mm256_extracti128_si256(w, 1));
}

INLINE __m256 largest_of_32(const float *v)
{
    return _mm256_max_ps(_mm256_max_ps(absolute(_mm256_loadu_ps(v)), absolute(_mm256_loadu_ps(v + 8))),
                         _mm256_max_ps(absolute(_mm256_loadu_ps(v + 16)), absolute(_mm256_loadu_ps(v + 24))));
}

INLINE float largest(__m256 top)
{
    __m128 top4 = _mm_max_ps(_mm256_castps256_ps128(top), _mm256_extractf128_ps(top, 1));
    top4 = _mm_max_ps(top4, _mm_movehl_ps(top4, top4));
    return _mm_cvtss_f32(_mm_max_ss(top4, _mm_movehdup_ps(top4)));
}

/* Of 32 values x / s to `to`; the sums of both halves. */
INLINE void block_to_bytes(const float *v, float to_int, uint8_t *to, int32_t *sum, int32_t *sum2)
{
    const __m128i q0 = to_bytes(scaled(v, to_int), scaled(v + 8, to_int));
    const __m128i q1 = to_bytes(scaled(v + 16, to_int), scaled(v + 24, to_int));

    _mm_storeu_si128((__m128i *)to, q0);
    _mm_storeu_si128((__m128i *)(to + 16), q1);
    *sum = sum_of(q0);
    *sum2 = sum_of(q1);
}

static void quantise(const float *x, int64_t x_stride, int32_t first, int32_t n, int32_t nt, int64_t blocks, uint8_t *tile)
{
    for (int32_t t = first; t < first + n; t++, x += x_stride) {
        uint8_t *at = tile;
        for (int64_t b = 0; b < blocks; b++, at += nt * MI_TILE_BYTES) {
            const float max = largest(largest_of_32(x + b * 32));
            const float to_int = max > MI_PANEL_TINY ? 127.0f / max : 0, s = max > MI_PANEL_TINY ? max * (1.0f / 127.0f) : 0;
            int32_t     a, c;

            block_to_bytes(x + b * 32, to_int, at + 32 * t, &a, &c);
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
        __m256   top = _mm256_setzero_ps();
        int32_t  sum = 0, a, c;

        for (int64_t b = 0; b < blocks; b++)
            top = _mm256_max_ps(top, largest_of_32(x + b * 32));
        const float max = largest(top);
        const float to_int = max > MI_PANEL_TINY ? 127.0f / max : 0, s = max > MI_PANEL_TINY ? max * (1.0f / 127.0f) : 0;
        for (int64_t b = 0; b < blocks; b++, at += nt * MI_TILE_BYTES) {
            block_to_bytes(x + b * 32, to_int, at + 32 * t, &a, &c);
            ((float *)(at + 32 * nt))[t] = s;
            ((int32_t *)(at + 40 * nt))[t] = sum += a + c;
        }
    }
}

/* 16 values of a row of x: bytes to `high` and `low`; their sums are added. */
INLINE void split_bytes(const float *v, float to_int, uint8_t *high, uint8_t *low, int32_t *sum, int32_t *sum_low)
{
    const __m256i half = _mm256_set1_epi32(64), v0 = scaled(v, to_int), v1 = scaled(v + 8, to_int);
    const __m256i h0 = _mm256_srai_epi32(_mm256_add_epi32(v0, half), 7), h1 = _mm256_srai_epi32(_mm256_add_epi32(v1, half), 7);
    const __m128i h = to_bytes(h0, h1);
    const __m128i l = to_bytes(_mm256_sub_epi32(v0, _mm256_slli_epi32(h0, 7)), _mm256_sub_epi32(v1, _mm256_slli_epi32(h1, 7)));

    _mm_storeu_si128((__m128i *)high, h);
    _mm_storeu_si128((__m128i *)low, l);
    *sum += sum_of(h);
    *sum_low += sum_of(l);
}

static void quantise_wide(const float *x, int64_t x_stride, int32_t first, int32_t n, int32_t nt, int64_t blocks,
                          uint8_t *tile)
{
    for (int32_t t = first; t < first + n; t++, x += x_stride) {
        uint8_t *at = tile;
        for (int64_t b = 0; b < blocks; b++, at += nt * MI_TILE_WIDE) {
            const float max = largest(largest_of_32(x + b * 32));
            const float to_int = max > MI_PANEL_TINY ? MI_PANEL_WIDE / max : 0;
            const float s = max > MI_PANEL_TINY ? max * (1.0f / MI_PANEL_WIDE) : 0;
            uint8_t    *high = at + 32 * t, *low = at + MI_TILE_BYTES * nt + 32 * t;
            int32_t     sum = 0, sum_low = 0;

            split_bytes(x + b * 32, to_int, high, low, &sum, &sum_low);
            split_bytes(x + b * 32 + 16, to_int, high + 16, low + 16, &sum, &sum_low);
            ((float *)(at + 32 * nt))[t] = s;
            ((float *)(at + 36 * nt))[t] = s * (float)(128 * sum + sum_low);
            ((int32_t *)(at + 40 * nt))[t] = sum;
            ((int32_t *)(at + 44 * nt))[t] = sum_low;
        }
    }
}

/* ---- W ---------------------------------------------------------------------- */

typedef struct { __m256i q0, q1, q2, q3, q4, q5, q6, q7; } Eight; /* rows: q_g holds columns 4 g .. 4 g + 3 */

INLINE __m256i plane(const uint8_t *p, int i) { return _mm256_loadu_si256((const __m256i *)(p + 64 * i)); }

/* Bits from `from` on of each byte, moved to `to`; mask: where they land. */
#define MOVED(v, from, to) \
    ((to) >= (from) ? _mm256_slli_epi16(v, ((to) - (from)) & 15) : _mm256_srli_epi16(v, ((from) - (to)) & 15))
#define FIELD(v, from, to, mask) _mm256_and_si256(MOVED(v, from, to), mask)
#define FIELD_OR(q, v, from, to, mask) _mm256_or_si256(q, FIELD(v, from, to, mask))

/* 8-bit values for vpmaddubsw are left signed, see dot(). */
INLINE bool is_signed(MiPanelShape f) { return !YMM_VNNI && (f.low == 8 || f.table); }

INLINE Eight unpack(const uint8_t *p, MiPanelShape f)
{
    const __m256i m4 = _mm256_set1_epi8(15), m2 = _mm256_set1_epi8(3);
    Eight         w;

    if (f.low == 8) {
        w = (Eight){ plane(p, 0), plane(p, 1), plane(p, 2), plane(p, 3), plane(p, 4), plane(p, 5), plane(p, 6), plane(p, 7) };
    } else if (f.low == 4) {
        const __m256i a = plane(p, 0), b = plane(p, 1), c = plane(p, 2), d = plane(p, 3);
        w = (Eight){ _mm256_and_si256(a, m4), _mm256_and_si256(b, m4), _mm256_and_si256(c, m4), _mm256_and_si256(d, m4),
                     FIELD(a, 4, 0, m4),      FIELD(b, 4, 0, m4),      FIELD(c, 4, 0, m4),      FIELD(d, 4, 0, m4) };
    } else {
        const __m256i a = plane(p, 0), b = plane(p, 1);
        w = (Eight){ FIELD(a, 0, 0, m2), FIELD(a, 2, 0, m2), FIELD(a, 4, 0, m2), FIELD(a, 6, 0, m2),
                     FIELD(b, 0, 0, m2), FIELD(b, 2, 0, m2), FIELD(b, 4, 0, m2), FIELD(b, 6, 0, m2) };
    }
    if (f.high == 1) {
        const __m256i h = plane(p, f.low), m = _mm256_set1_epi8((char)(1 << f.low));
#define BIT(g) w.q##g = f.low == 4 ? FIELD_OR(w.q##g, h, g, 4, m) : FIELD_OR(w.q##g, h, g, 2, m);
        BIT(0) BIT(1) BIT(2) BIT(3) BIT(4) BIT(5) BIT(6) BIT(7)
#undef BIT
    } else if (f.high == 2) {
        const __m256i h = plane(p, f.low), i = plane(p, f.low + 1), m = _mm256_set1_epi8(0x30);
        w.q0 = FIELD_OR(w.q0, h, 0, 4, m), w.q1 = FIELD_OR(w.q1, h, 2, 4, m);
        w.q2 = FIELD_OR(w.q2, h, 4, 4, m), w.q3 = FIELD_OR(w.q3, h, 6, 4, m);
        w.q4 = FIELD_OR(w.q4, i, 0, 4, m), w.q5 = FIELD_OR(w.q5, i, 2, 4, m);
        w.q6 = FIELD_OR(w.q6, i, 4, 4, m), w.q7 = FIELD_OR(w.q7, i, 6, 4, m);
    }
    if (f.table) {
        const __m256i t = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)mi_panel_table));
#define LOOK_UP(g) w.q##g = _mm256_shuffle_epi8(t, w.q##g);
        LOOK_UP(0) LOOK_UP(1) LOOK_UP(2) LOOK_UP(3) LOOK_UP(4) LOOK_UP(5) LOOK_UP(6) LOOK_UP(7)
#undef LOOK_UP
    }
    if (is_signed(f)) {
        const __m256i top = _mm256_set1_epi8((char)0x80);
#define FLIP(g) w.q##g = _mm256_xor_si256(w.q##g, top);
        FLIP(0) FLIP(1) FLIP(2) FLIP(3) FLIP(4) FLIP(5) FLIP(6) FLIP(7)
#undef FLIP
    }
    return w;
}

typedef struct { __m256 d, d2, m, m2; } Scales; /* of 8 rows; d2, m2: of the last 16 columns */

INLINE __m256 halves(const uint8_t *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)); }
INLINE __m128i bytes(const uint8_t *p) { return _mm_loadl_epi64((const __m128i *)p); }
INLINE __m256 signed_bytes(const uint8_t *p) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes(p))); }
INLINE __m256 unsigned_bytes(__m128i v) { return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(v)); }
INLINE __m256 negative(__m256 v) { return _mm256_xor_ps(v, _mm256_set1_ps(-0.0f)); }

/* head: of the group; i: which of its blocks; e: which eight rows. */
INLINE Scales scales_of(MiScales s, const uint8_t *head, int i, int e)
{
    const __m256   d = mi_panel_row(s) ? _mm256_loadu_ps((const float *)(head + 32 * e)) : halves(head + 16 * e);
    const uint8_t *one = head + (s == MI_SCALE_KM ? 128 : 64) + 32 * i + 8 * e;
    const uint8_t *two = head + (s == MI_SCALE_KM16 ? 128 : 64) + 64 * i + 8 * e;
    const __m128i  m4 = _mm_set1_epi8(15);
    Scales         v = { d, d, d, d };

    if (s == MI_SCALE_ROWM)
        v.m = _mm256_loadu_ps((const float *)(head + 128 + 32 * e));
    else if (s == MI_SCALE_DM || (mi_panel_encoded(s) && mi_panel_mins(s)))
        v.m = halves(head + 64 + 16 * e);
    if (s == MI_SCALE_K)
        v.d = _mm256_mul_ps(d, signed_bytes(one));
    if (s == MI_SCALE_KM) {
        v.d = _mm256_mul_ps(d, unsigned_bytes(bytes(one)));
        v.m = _mm256_mul_ps(negative(halves(head + 64 + 16 * e)), unsigned_bytes(bytes(one + 256)));
    }
    if (s == MI_SCALE_K16) {
        v.d = _mm256_mul_ps(d, signed_bytes(two));
        v.d2 = _mm256_mul_ps(d, signed_bytes(two + 32));
    }
    if (s == MI_SCALE_KM16) {
        const __m256  m = negative(halves(head + 64 + 16 * e));
        const __m128i a = bytes(two), b = bytes(two + 32);
        v.d = _mm256_mul_ps(d, unsigned_bytes(_mm_and_si128(a, m4)));
        v.d2 = _mm256_mul_ps(d, unsigned_bytes(_mm_and_si128(b, m4)));
        v.m = _mm256_mul_ps(m, unsigned_bytes(_mm_and_si128(_mm_srli_epi16(a, 4), m4)));
        v.m2 = _mm256_mul_ps(m, unsigned_bytes(_mm_and_si128(_mm_srli_epi16(b, 4), m4)));
    }
    return v;
}

/* ---- a panel ---------------------------------------------------------------- */

/* sum += q_0 .. q_3 times 16 columns of x.  vpmaddubsw adds two products of u8
 * and s8 in 16 bits: q < 16 leaves room for eight such sums (30,480), q < 32 for
 * four (31,496), q < 64 for two (32,004), 8 bits for one if they are taken as
 * |q| <= 128 and the sign goes to x. */
INLINE __m256i dot(MiPanelShape f, __m256i sum, __m256i q0, __m256i q1, __m256i q2, __m256i q3, const int32_t *qa)
{
    const __m256i x0 = _mm256_set1_epi32(qa[0]), x1 = _mm256_set1_epi32(qa[1]);
    const __m256i x2 = _mm256_set1_epi32(qa[2]), x3 = _mm256_set1_epi32(qa[3]);
#if YMM_VNNI
    (void)f;
    sum = _mm256_dpbusd_avx_epi32(_mm256_dpbusd_avx_epi32(sum, q0, x0), q1, x1);
    return _mm256_dpbusd_avx_epi32(_mm256_dpbusd_avx_epi32(sum, q2, x2), q3, x3);
#else
    const __m256i ones = _mm256_set1_epi16(1);
    if (is_signed(f)) {
#define SIGNED(q, x) \
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_abs_epi8(q), _mm256_sign_epi8(x, q)), ones))
        SIGNED(q0, x0);
        SIGNED(q1, x1);
        SIGNED(q2, x2);
        SIGNED(q3, x3);
#undef SIGNED
        return sum;
    }
    const __m256i a = _mm256_add_epi16(_mm256_maddubs_epi16(q0, x0), _mm256_maddubs_epi16(q1, x1));
    const __m256i b = _mm256_add_epi16(_mm256_maddubs_epi16(q2, x2), _mm256_maddubs_epi16(q3, x3));
    if (f.low + f.high <= 5)
        return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_add_epi16(a, b), ones));
    return _mm256_add_epi32(sum, _mm256_add_epi32(_mm256_madd_epi16(a, ones), _mm256_madd_epi16(b, ones)));
#endif
}

/* What a block of x adds to the sums of eight rows. */
INLINE __m256 add(MiPanelShape f, const Eight *w, const Scales *e, const uint8_t *at, int nt, int t, __m256 y)
{
    const int32_t *qa = (const int32_t *)(at + 32 * t), *sum = (const int32_t *)(at + 40 * nt) + t;
    const float   *s = (const float *)(at + 32 * nt) + t;
    const bool     split = mi_panel_halves(f.scales);
    const int32_t  offset = is_signed(f) ? 0 : -f.offset;
    __m256i        a = _mm256_set1_epi32(offset * (split ? sum[0] : sum[0] + sum[nt]));

    a = dot(f, a, w->q0, w->q1, w->q2, w->q3, qa);
    if (!split)
        a = dot(f, a, w->q4, w->q5, w->q6, w->q7, qa + 4);
    __m256 v = _mm256_mul_ps(_mm256_cvtepi32_ps(a), e->d);
    if (split) {
        const __m256i b = dot(f, _mm256_set1_epi32(offset * sum[nt]), w->q4, w->q5, w->q6, w->q7, qa + 4);
        v = _mm256_fmadd_ps(_mm256_cvtepi32_ps(b), e->d2, v);
    }
    y = _mm256_fmadd_ps(v, _mm256_set1_ps(*s), y);
    if (mi_panel_mins(f.scales))
        y = _mm256_fmadd_ps(e->m, _mm256_set1_ps(f.scales == MI_SCALE_KM16 ? *s * (float)sum[0] : s[nt]), y);
    if (f.scales == MI_SCALE_KM16)
        y = _mm256_fmadd_ps(e->m2, _mm256_set1_ps(*s * (float)sum[nt]), y);
    return y;
}

static void finish(const MiPanelCall *c, int t, const float *y)
{
    float *to = c->y + t * c->y_stride;
    for (int r = 0; r < c->n_rows; r++)
        to[r] = y[r] + (c->bias ? c->bias[r] : 0);
}

INLINE void panel(const MiPanelCall *c, MiPanelShape f)
{
    const int      per_group = mi_panel_super(f.scales) ? 8 : 1, nt = c->nt;
    const int      head_bytes = mi_panel_head(f.scales), planes = mi_panel_planes(f.low, f.high);
    const uint8_t *head = c->panel, *at = c->tile;
    float          y[MI_TILE][MI_PANEL];

    for (int t = 0; t < nt; t++)
        for (int r = 0; r < MI_PANEL; r++)
            y[t][r] = 0;
    for (int64_t g = 0; g < c->blocks / per_group; g++, head += head_bytes + per_group * planes) {
        for (int i = 0; i < per_group; i++, at += nt * MI_TILE_BYTES) {
            for (int e = 0; e < MI_PANEL / 8; e++) {
                const Eight  w = unpack(head + head_bytes + i * planes + e / 2 * (planes / 2) + e % 2 * 32, f);
                const Scales s = scales_of(f.scales, head, i, e);
                for (int t = 0; t < nt; t++)
                    _mm256_storeu_ps(y[t] + 8 * e, add(f, &w, &s, at, nt, t, _mm256_loadu_ps(y[t] + 8 * e)));
            }
        }
    }
    for (int t = 0; t < nt; t++)
        finish(c, t, y[t]);
}

/* ---- formats with scales of groups or rows -------------------------------------- */

typedef struct {
    float   y[MI_TILE][MI_PANEL], part[MI_TILE][MI_PANEL]; /* part: of this group, in units of d */
    int32_t whole[MI_TILE][MI_PANEL];                      /* in units of d s */
} Sums;

/* What a block of x adds to the part of eight rows of W. */
INLINE void add_encoded(MiPanelShape f, MiPanelX x, const Eight *w, const uint8_t *at, int nt, int t, float *part,
                        int32_t *whole)
{
    const int32_t *qa = (const int32_t *)(at + 32 * t), *sum = (const int32_t *)(at + 40 * nt) + t;
    const int32_t  offset = is_signed(f) ? 0 : -f.offset;
    __m256i        a = x == MI_X_ROW ? _mm256_loadu_si256((const __m256i *)whole)
                                     : _mm256_set1_epi32(offset * (x == MI_X_WIDE ? sum[0] : sum[0] + sum[nt]));

    a = dot(f, dot(f, a, w->q0, w->q1, w->q2, w->q3, qa), w->q4, w->q5, w->q6, w->q7, qa + 4);
    if (x == MI_X_WIDE) {
        qa = (const int32_t *)(at + MI_TILE_BYTES * nt + 32 * t);
        a = _mm256_add_epi32(_mm256_slli_epi32(a, 7), _mm256_set1_epi32(offset * sum[nt]));
        a = dot(f, dot(f, a, w->q0, w->q1, w->q2, w->q3, qa), w->q4, w->q5, w->q6, w->q7, qa + 4);
    }
    if (x == MI_X_ROW)
        _mm256_storeu_si256((__m256i *)whole, a);
    else
        _mm256_storeu_ps(part, _mm256_fmadd_ps(_mm256_cvtepi32_ps(a), _mm256_set1_ps(((const float *)(at + 32 * nt))[t]),
                                               _mm256_loadu_ps(part)));
}

/* Ends a group, `blocks` of row t from `at` on: y += d part + m sum(x), in units of s where x has one. */
INLINE void end_group(MiPanelShape f, MiPanelX x, const uint8_t *head, const uint8_t *at, int64_t blocks, bool first,
                      int nt, int t, Sums *u)
{
    const int64_t step = (int64_t)nt * mi_tile_bytes(x);
    int32_t       total = 0;
    float         sum = 0;

    if (x == MI_X_ROW) {
        total = ((const int32_t *)(at + (blocks - 1) * step + 40 * nt))[t];
        total -= first ? 0 : ((const int32_t *)(at - step + 40 * nt))[t];
        sum = (float)total;
    } else if (mi_panel_mins(f.scales)) {
        for (int64_t b = 0; b < blocks; b++)
            sum += ((const float *)(at + b * step + 36 * nt))[t];
    }
    for (int e = 0; e < MI_PANEL / 8; e++) {
        const Scales  s = scales_of(f.scales, head, 0, e);
        const __m256i off = _mm256_set1_epi32(is_signed(f) ? 0 : f.offset * total);
        __m256i      *whole = (__m256i *)(u->whole[t] + 8 * e);
        float        *part = u->part[t] + 8 * e, *y = u->y[t] + 8 * e;
        const __m256  v = x == MI_X_ROW ? _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_loadu_si256(whole), off))
                                        : _mm256_loadu_ps(part);
        __m256        to = _mm256_fmadd_ps(v, s.d, _mm256_loadu_ps(y));

        if (mi_panel_mins(f.scales))
            to = _mm256_fmadd_ps(s.m, _mm256_set1_ps(sum), to);
        _mm256_storeu_ps(y, to);
        _mm256_storeu_ps(part, _mm256_setzero_ps());
        _mm256_storeu_si256(whole, _mm256_setzero_si256());
    }
}

INLINE void encoded_panel(const MiPanelCall *c, MiPanelShape f, MiPanelX x)
{
    const int      nt = c->nt, head_bytes = mi_panel_head(f.scales), planes = mi_panel_planes(f.low, f.high);
    const int64_t  group = mi_panel_group(f.scales), step = (int64_t)nt * mi_tile_bytes(x);
    const uint8_t *head = c->panel, *p = head + head_bytes, *at = c->tile;
    Sums           u;

    for (int t = 0; t < nt; t++)
        for (int r = 0; r < MI_PANEL; r++)
            u.y[t][r] = u.part[t][r] = 0, u.whole[t][r] = 0;
    for (int64_t from = 0; from < c->blocks; from += group, at += group * step) {
        const int64_t n = c->blocks - from < group ? c->blocks - from : group;

        for (int64_t b = 0; b < n; b++, p += planes) {
            for (int e = 0; e < MI_PANEL / 8; e++) {
                const Eight w = unpack(p + e / 2 * (planes / 2) + e % 2 * 32, f);
                for (int t = 0; t < nt; t++)
                    add_encoded(f, x, &w, at + b * step, nt, t, u.part[t] + 8 * e, u.whole[t] + 8 * e);
            }
        }
        for (int t = 0; t < nt; t++)
            end_group(f, x, head, at, n, from == 0, nt, t, &u);
        if (!mi_panel_row(f.scales))
            head = p, p += head_bytes;
    }
    for (int t = 0; t < nt; t++) {
        for (int r = 0; x == MI_X_ROW && r < MI_PANEL; r++)
            u.y[t][r] *= ((const float *)(c->tile + 32 * nt))[t];
        finish(c, t, u.y[t]);
    }
}

/* ---- every format ----------------------------------------------------------- */

#define RUN(name, low, high, table, offset, scales)                      \
    static void name(const MiPanelCall *c)                               \
    {                                                                    \
        const MiPanelShape shape = { low, high, table, offset, scales }; \
        panel(c, shape);                                                 \
    }
#define RUN_ENCODED(x, name, low, high, table, offset, scales)           \
    static void name(const MiPanelCall *c)                               \
    {                                                                    \
        const MiPanelShape shape = { low, high, table, offset, scales }; \
        encoded_panel(c, shape, x);                                      \
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
#define ALL_OF_THEM { { MI_PANEL_FORMATS(RUN_OF) }, { MI_PANEL_ENCODED(RUN_ROW_OF) }, { MI_PANEL_ENCODED(RUN_WIDE_OF) } }
