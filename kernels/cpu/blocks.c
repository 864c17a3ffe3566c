/* blocks.c - decoding of stored weights, plain C: the yardstick of every faster reader.
 *
 * A block is `values` weights with scales of their own; all numbers are little-endian,
 * as the machines are that this is built for.  Products are formed in the order
 * (d * scale) * q - (dmin * min), each rounded to f32, which is what the format's own
 * tools do: results are equal to theirs bit for bit. */
#include <cpu/blocks.h>
#include <string.h>

enum { SMALL = 32, SUPER = 256 }; /* values of a block */

static float half(const uint8_t *p)
{
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return mi_f16_to_f32(h);
}

static void f32(const void *src, float *dst, int64_t n) { memcpy(dst, src, (size_t)n * sizeof *dst); }

static void f16(const void *src, float *dst, int64_t n)
{
    const uint8_t *p = src;
    for (int64_t i = 0; i < n; i++)
        dst[i] = half(p + 2 * i);
}

static void bf16(const void *src, float *dst, int64_t n)
{
    const uint8_t *p = src;
    for (int64_t i = 0; i < n; i++) {
        uint16_t h;
        memcpy(&h, p + 2 * i, sizeof h);
        dst[i] = mi_bf16_to_f32(h);
    }
}

/* Nibbles: byte j holds values j (low) and j + 16 (high). */

static void q4_0(const void *src, float *dst, int64_t n) /* f16 d; nibbles [16] */
{
    for (const uint8_t *p = src; n > 0; n -= SMALL, p += 18, dst += SMALL) {
        const float d = half(p);
        for (int j = 0; j < 16; j++) {
            dst[j] = (float)((p[2 + j] & 15) - 8) * d;
            dst[j + 16] = (float)((p[2 + j] >> 4) - 8) * d;
        }
    }
}

static void q4_1(const void *src, float *dst, int64_t n) /* f16 d, m; nibbles [16] */
{
    for (const uint8_t *p = src; n > 0; n -= SMALL, p += 20, dst += SMALL) {
        const float d = half(p), m = half(p + 2);
        for (int j = 0; j < 16; j++) {
            dst[j] = (float)(p[4 + j] & 15) * d + m;
            dst[j + 16] = (float)(p[4 + j] >> 4) * d + m;
        }
    }
}

/* Their fifth bits: bit i of a word is value i's. */
static uint32_t word(const uint8_t *p)
{
    uint32_t w;
    memcpy(&w, p, sizeof w);
    return w;
}

static void q5_0(const void *src, float *dst, int64_t n) /* f16 d; fifth bits [32]; nibbles [16] */
{
    for (const uint8_t *p = src; n > 0; n -= SMALL, p += 22, dst += SMALL) {
        const float    d = half(p);
        const uint32_t bits = word(p + 2);
        for (int j = 0; j < 16; j++) {
            dst[j] = (float)((int)((p[6 + j] & 15) | (bits >> j & 1) << 4) - 16) * d;
            dst[j + 16] = (float)((int)(p[6 + j] >> 4 | (bits >> (j + 16) & 1) << 4) - 16) * d;
        }
    }
}

static void q5_1(const void *src, float *dst, int64_t n) /* f16 d, m; fifth bits [32]; nibbles [16] */
{
    for (const uint8_t *p = src; n > 0; n -= SMALL, p += 24, dst += SMALL) {
        const float    d = half(p), m = half(p + 2);
        const uint32_t bits = word(p + 4);
        for (int j = 0; j < 16; j++) {
            dst[j] = (float)(int)((p[8 + j] & 15) | (bits >> j & 1) << 4) * d + m;
            dst[j + 16] = (float)(int)(p[8 + j] >> 4 | (bits >> (j + 16) & 1) << 4) * d + m;
        }
    }
}

static void q8_0(const void *src, float *dst, int64_t n) /* f16 d; int8 [32] */
{
    for (const uint8_t *p = src; n > 0; n -= SMALL, p += 34, dst += SMALL) {
        const float d = half(p);
        for (int i = 0; i < SMALL; i++)
            dst[i] = (float)(int8_t)p[2 + i] * d;
    }
}

/* Two bits: byte j of a half's 32 holds values j, j + 32, j + 64, j + 96 of its 128. */
static int two(const uint8_t *q, int i) { return q[(i >> 7) * 32 + (i & 31)] >> ((i >> 5 & 3) * 2) & 3; }

static void q2_k(const void *src, float *dst, int64_t n) /* scale, min nibbles [16]; q [64]; f16 d, dmin */
{
    for (const uint8_t *p = src; n > 0; n -= SUPER, p += 84, dst += SUPER) {
        const float d = half(p + 80), dmin = half(p + 82);
        for (int i = 0; i < SUPER; i++) {
            const int s = p[i >> 4];
            dst[i] = d * (float)(s & 15) * (float)two(p + 16, i) - dmin * (float)(s >> 4);
        }
    }
}

/* Of 16 six-bit scales in 12 bytes: low nibbles in 0-7, two high bits each in 8-11. */
static int scale_q3(const uint8_t *s, int g)
{
    return (s[g & 7] >> (g >> 3) * 4 & 15) | (s[8 + (g & 3)] >> (g >> 2) * 2 & 3) << 4;
}

static void q3_k(const void *src, float *dst, int64_t n) /* third bits [32 bytes]; q [64]; scales [12]; f16 d */
{
    for (const uint8_t *p = src; n > 0; n -= SUPER, p += 110, dst += SUPER) {
        const float d = half(p + 108);
        for (int i = 0; i < SUPER; i++) {
            const int q = two(p + 32, i) - (p[i & 31] >> (i >> 5) & 1 ? 0 : 4);
            dst[i] = d * (float)(scale_q3(p + 96, i >> 4) - 32) * (float)q;
        }
    }
}

/* Of 8 pairs of six bits in 12 bytes, scale and min of group g. */
static void scale_min(const uint8_t *s, int g, float *scale, float *min)
{
    *scale = (float)(g < 4 ? s[g] & 63 : (s[g + 4] & 15) | (s[g - 4] >> 6) << 4);
    *min = (float)(g < 4 ? s[g + 4] & 63 : s[g + 4] >> 4 | (s[g] >> 6) << 4);
}

/* q4_k: f16 d, dmin; scales [12]; nibbles [128]: 32 bytes hold 64 values, low nibbles first.
 * q5_k has fifth bits [32 bytes] before them: bit g of byte j is value j of group g. */
static void q45_k(const uint8_t *p, float *dst, int64_t n, int bytes, bool fifth)
{
    for (; n > 0; n -= SUPER, p += bytes, dst += SUPER) {
        const uint8_t *bits = p + 16, *q = fifth ? bits + 32 : bits;
        for (int g = 0; g < 8; g++) {
            float scale, min;
            scale_min(p + 4, g, &scale, &min);
            scale *= half(p);
            min *= half(p + 2);
            for (int j = 0; j < 32; j++) {
                int v = q[(g >> 1) * 32 + j] >> (g & 1) * 4 & 15;
                if (fifth)
                    v |= (bits[j] >> g & 1) << 4;
                dst[g * 32 + j] = scale * (float)v - min;
            }
        }
    }
}

static void q4_k(const void *src, float *dst, int64_t n) { q45_k(src, dst, n, 144, false); }
static void q5_k(const void *src, float *dst, int64_t n) { q45_k(src, dst, n, 176, true); }

static void q6_k(const void *src, float *dst, int64_t n) /* low [128]; high [64]; int8 scales [16]; f16 d */
{
    for (const uint8_t *p = src; n > 0; n -= SUPER, p += 210, dst += SUPER) {
        const float d = half(p + 208);
        for (int i = 0; i < SUPER; i++) {
            const int part = i >> 5 & 3, low = p[(i >> 7) * 64 + (i & 63)] >> (part >> 1) * 4 & 15;
            const int q = (low | two(p + 128, i) << 4) - 32;
            dst[i] = d * (float)(int8_t)p[192 + (i >> 4)] * (float)q;
        }
    }
}

/* The 16 levels of iq4: denser round zero, as weights are. */
static const int8_t levels[16] = { -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113 };

static void iq4(const uint8_t *nibbles, float d, float *dst)
{
    for (int j = 0; j < 16; j++) {
        dst[j] = d * (float)levels[nibbles[j] & 15];
        dst[j + 16] = d * (float)levels[nibbles[j] >> 4];
    }
}

static void iq4_nl(const void *src, float *dst, int64_t n) /* f16 d; nibbles [16] */
{
    for (const uint8_t *p = src; n > 0; n -= SMALL, p += 18, dst += SMALL)
        iq4(p + 2, half(p), dst);
}

static void iq4_xs(const void *src, float *dst, int64_t n) /* f16 d; high bits [2]; low nibbles [4]; q [128] */
{
    for (const uint8_t *p = src; n > 0; n -= SUPER, p += 136, dst += SUPER)
        for (int g = 0; g < 8; g++) {
            const int scale = (p[4 + g / 2] >> (g & 1) * 4 & 15) | ((p[2] | p[3] << 8) >> 2 * g & 3) << 4;
            iq4(p + 8 + 16 * g, half(p) * (float)(scale - 32), dst + 32 * g);
        }
}

static const MiBlockFormat formats[] = {
    { "f32", 0, 1, 4, f32 },           { "f16", 1, 1, 2, f16 },           { "bf16", 30, 1, 2, bf16 },
    { "q4_0", 2, SMALL, 18, q4_0 },    { "q4_1", 3, SMALL, 20, q4_1 },    { "q5_0", 6, SMALL, 22, q5_0 },
    { "q5_1", 7, SMALL, 24, q5_1 },    { "q8_0", 8, SMALL, 34, q8_0 },    { "q2_k", 10, SUPER, 84, q2_k },
    { "q3_k", 11, SUPER, 110, q3_k },  { "q4_k", 12, SUPER, 144, q4_k },  { "q5_k", 13, SUPER, 176, q5_k },
    { "q6_k", 14, SUPER, 210, q6_k },  { "iq4_nl", 20, SMALL, 18, iq4_nl }, { "iq4_xs", 23, SUPER, 136, iq4_xs },
};

const MiBlockFormat *mi_block_format(const char *name)
{
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (strcmp(formats[i].name, name) == 0)
            return &formats[i];
    return NULL;
}

const MiBlockFormat *mi_block_format_gguf(uint32_t type)
{
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if ((uint32_t)formats[i].gguf == type)
            return &formats[i];
    return NULL;
}
