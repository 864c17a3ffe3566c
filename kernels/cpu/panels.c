/* panels.c - repacking of stored blocks into panels, and the choice of an
 * instruction set.  Layouts of blocks are those of GGUF, see blocks.c. */
#include <cpu/blocks.h>
#include <cpu/panels.h>
#include <string.h>

const uint8_t mi_panel_table[16] = { 1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241 };

/* ---- one row of a block ------------------------------------------------------ */

/* 32 q of a row, a byte each: q[g] holds columns 4 g .. 4 g + 3, the first in the lowest byte. */
typedef struct { uint32_t q[8]; } Row;

static uint32_t word(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* Where a row keeps its 16-byte nibbles, and what else, by the legacy formats' own rules. */
static void nibbles(const uint8_t *qs, Row *r)
{
    for (int g = 0; g < 4; g++) {
        const uint32_t w = word(qs + 4 * g);
        r->q[g] = w & 0x0f0f0f0fu;
        r->q[g + 4] = w >> 4 & 0x0f0f0f0fu;
    }
}

/* Bit k of `bits` becomes bit 4 of column k. */
static void fifth_bits(uint32_t bits, Row *r)
{
    for (int g = 0; g < 8; g++) {
        const uint32_t four = bits >> 4 * g & 15u;
        r->q[g] |= ((four & 1u) | (four & 2u) << 7 | (four & 4u) << 14 | (four & 8u) << 21) << 4;
    }
}

static void q4_0(const uint8_t *block, int i, Row *r) { (void)i, nibbles(block + 2, r); }
static void q4_1(const uint8_t *block, int i, Row *r) { (void)i, nibbles(block + 4, r); }
static void q5_0(const uint8_t *block, int i, Row *r)
{
    (void)i, nibbles(block + 6, r);
    fifth_bits(word(block + 2), r);
}
static void q5_1(const uint8_t *block, int i, Row *r)
{
    (void)i, nibbles(block + 8, r);
    fifth_bits(word(block + 4), r);
}
static void q8_0(const uint8_t *block, int i, Row *r)
{
    (void)i;
    for (int g = 0; g < 8; g++)
        r->q[g] = word(block + 2 + 4 * g) ^ 0x80808080u;
}

/* Of a super-block of 256: columns 32 i .. 32 i + 31. */
static void q2_k(const uint8_t *block, int i, Row *r)
{
    for (int g = 0; g < 8; g++)
        r->q[g] = word(block + 16 + 32 * (i / 4) + 4 * g) >> 2 * (i % 4) & 0x03030303u;
}
static void q3_k(const uint8_t *block, int i, Row *r)
{
    for (int g = 0; g < 8; g++)
        r->q[g] = (word(block + 32 + 32 * (i / 4) + 4 * g) >> 2 * (i % 4) & 0x03030303u) |
                  (word(block + 4 * g) >> i & 0x01010101u) << 2;
}
static void q4_k(const uint8_t *block, int i, Row *r)
{
    for (int g = 0; g < 8; g++)
        r->q[g] = word(block + 16 + 32 * (i / 2) + 4 * g) >> 4 * (i % 2) & 0x0f0f0f0fu;
}
static void q5_k(const uint8_t *block, int i, Row *r)
{
    for (int g = 0; g < 8; g++)
        r->q[g] = (word(block + 48 + 32 * (i / 2) + 4 * g) >> 4 * (i % 2) & 0x0f0f0f0fu) |
                  (word(block + 16 + 4 * g) >> i & 0x01010101u) << 4;
}
static void q6_k(const uint8_t *block, int i, Row *r)
{
    for (int g = 0; g < 8; g++)
        r->q[g] = (word(block + 64 * (i / 4) + 32 * (i % 2) + 4 * g) >> 4 * (i / 2 % 2) & 0x0f0f0f0fu) |
                  (word(block + 128 + 32 * (i / 4) + 4 * g) >> 2 * (i % 4) & 0x03030303u) << 4;
}
static void iq4_nl(const uint8_t *block, int i, Row *r) { (void)i, nibbles(block + 2, r); }
static void iq4_xs(const uint8_t *block, int i, Row *r) { nibbles(block + 8 + 16 * i, r); }

/* ---- scales ----------------------------------------------------------------- */

/* Six-bit scales and mins of q4_k and q5_k: 12 bytes for eight of each. */
static void six_bits(const uint8_t *s, int i, uint8_t *scale, uint8_t *min)
{
    *scale = i < 4 ? s[i] & 63 : (uint8_t)((s[i + 4] & 15) | s[i - 4] >> 6 << 4);
    *min = i < 4 ? s[i + 4] & 63 : (uint8_t)(s[i + 4] >> 4 | s[i] >> 6 << 4);
}

/* q3_k: 16 of six bits, less 32. */
static int8_t q3_scale(const uint8_t *s, int i)
{
    const int low = s[i % 8] >> 4 * (i / 8) & 15, high = s[8 + i % 4] >> 2 * (i / 4) & 3;
    return (int8_t)((low | high << 4) - 32);
}

/* Scales of row r of a group, from its block: f16 at head and 64 bytes on, int8 after those. */
static void put_half(uint8_t *head, int r, const uint8_t *half) { memcpy(head + 2 * r, half, 2); }

static void scales_d(const uint8_t *block, uint8_t *head, int r) { put_half(head, r, block); }
static void scales_dm(const uint8_t *block, uint8_t *head, int r)
{
    put_half(head, r, block);
    put_half(head + 64, r, block + 2);
}
static void scales_iq4_xs(const uint8_t *block, uint8_t *head, int r)
{
    put_half(head, r, block);
    for (int i = 0; i < 8; i++) {
        const int low = block[4 + i / 2] >> 4 * (i % 2) & 15, high = (block[2] | block[3] << 8) >> 2 * i & 3;
        head[64 + 32 * i + r] = (uint8_t)((low | high << 4) - 32);
    }
}
static void scales_km(const uint8_t *block, uint8_t *head, int r)
{
    scales_dm(block, head, r);
    for (int i = 0; i < 8; i++)
        six_bits(block + 4, i, &head[128 + 32 * i + r], &head[128 + 256 + 32 * i + r]);
}
static void scales_q6_k(const uint8_t *block, uint8_t *head, int r)
{
    put_half(head, r, block + 208);
    for (int i = 0; i < 16; i++)
        head[64 + 32 * i + r] = block[192 + i];
}
static void scales_q3_k(const uint8_t *block, uint8_t *head, int r)
{
    put_half(head, r, block + 108);
    for (int i = 0; i < 16; i++)
        head[64 + 32 * i + r] = (uint8_t)q3_scale(block + 96, i);
}
static void scales_q2_k(const uint8_t *block, uint8_t *head, int r)
{
    put_half(head, r, block + 80);
    put_half(head + 64, r, block + 82);
    for (int i = 0; i < 16; i++)
        head[128 + 32 * i + r] = block[i];
}

static const struct {
    const char *name;
    void (*row)(const uint8_t *block, int i, Row *r);
    void (*scales)(const uint8_t *block, uint8_t *head, int r);
} stored[] = {
    { "q4_0", q4_0, scales_d },         { "q4_1", q4_1, scales_dm },    { "q5_0", q5_0, scales_d },
    { "q5_1", q5_1, scales_dm },        { "q8_0", q8_0, scales_d },     { "q2_k", q2_k, scales_q2_k },
    { "q3_k", q3_k, scales_q3_k },      { "q4_k", q4_k, scales_km },    { "q5_k", q5_k, scales_km },
    { "q6_k", q6_k, scales_q6_k },      { "iq4_nl", iq4_nl, scales_d }, { "iq4_xs", iq4_xs, scales_iq4_xs },
};

/* ---- panels ----------------------------------------------------------------- */

static void put_word(uint8_t *p, uint32_t v)
{
    for (int j = 0; j < 4; j++)
        p[j] = (uint8_t)(v >> 8 * j);
}

/* Bits [from, from + bits) of each q into planes of 1 or 2 bits. */
static uint8_t *put_planes(const Row *r, int from, int bits, uint8_t *p)
{
    for (int plane = 0; plane < bits; plane++, p += 64) {
        uint32_t w = 0;
        for (int i = 0; i < 8 / bits; i++)
            w |= (r->q[8 / bits * plane + i] >> from & (bits == 2 ? 0x03030303u : 0x01010101u)) << bits * i;
        put_word(p, w);
    }
    return p;
}

/* One row of a block; p: the row's place in the first plane of its half. */
static void put_row(const Row *r, int low, int high, uint8_t *p)
{
    for (int g = 0; low == 8 && g < 8; g++, p += 64)
        put_word(p, r->q[g]);
    for (int g = 0; low == 4 && g < 4; g++, p += 64)
        put_word(p, (r->q[g] & 0x0f0f0f0fu) | (r->q[g + 4] & 0x0f0f0f0fu) << 4);
    if (low == 2)
        p = put_planes(r, 0, 2, p);
    put_planes(r, low, high, p);
}

int64_t mi_panel_bytes(const MiPanelShape *s, int64_t in)
{
    const int64_t blocks = in / MI_BLOCK, groups = mi_panel_super(s->scales) ? blocks / 8 : blocks;
    return groups * mi_panel_head(s->scales) + blocks * mi_panel_planes(s->low, s->high);
}

void mi_panel_pack(const MiPanelKernel *k, const void *src, int64_t out, int64_t in, int64_t first, int64_t last,
                   uint8_t *dst)
{
    const MiBlockFormat *f = mi_block_format(k->name);
    const int32_t        head = mi_panel_head(k->shape.scales), planes = mi_panel_planes(k->shape.low, k->shape.high);
    const int            per_group = f->values / MI_BLOCK;
    const int64_t        groups = in / f->values, panel = mi_panel_bytes(&k->shape, in);
    size_t               at = 0;

    while (strcmp(stored[at].name, k->name) != 0)
        at++;
    for (int64_t i = first; i < last; i++) {
        uint8_t  *group = dst + i * panel;
        const int rows = (int)(out - i * MI_PANEL < MI_PANEL ? out - i * MI_PANEL : MI_PANEL);
        if (rows < MI_PANEL)
            memset(group, 0, (size_t)panel);
        for (int64_t g = 0; g < groups; g++, group += head + per_group * planes) {
            for (int r = 0; r < rows; r++) {
                const uint8_t *block = (const uint8_t *)src + ((i * MI_PANEL + r) * groups + g) * f->bytes;
                stored[at].scales(block, group, r);
                for (int b = 0; b < per_group; b++) {
                    Row row;
                    stored[at].row(block, b, &row);
                    put_row(&row, k->shape.low, k->shape.high,
                            group + head + b * planes + r / 16 * (planes / 2) + r % 16 * 4);
                }
            }
        }
    }
}

/* ---- the choice ------------------------------------------------------------- */

const char *const *mi_panel_isas(void)
{
    static const char *const names[] = {
#ifdef MI_X86_64
        "avx512", "avxvnni", "avx2",
#endif
        "scalar", NULL,
    };
    return names;
}

#ifdef MI_X86_64
enum { N_ISAS = 4 };
#else
enum { N_ISAS = 1 };
#endif

#define KERNEL(name, low, high, table, offset, scales) \
    { #name, { low, high, table, offset, scales }, MI_PANEL_##name, &ISA },
static const MiPanelKernel kernels[N_ISAS][MI_PANEL_N_FORMATS] = {
#ifdef MI_X86_64
#define ISA mi_panel_avx512
    { MI_PANEL_FORMATS(KERNEL) },
#undef ISA
#define ISA mi_panel_avxvnni
    { MI_PANEL_FORMATS(KERNEL) },
#undef ISA
#define ISA mi_panel_avx2
    { MI_PANEL_FORMATS(KERNEL) },
#undef ISA
#endif
#define ISA mi_panel_scalar
    { MI_PANEL_FORMATS(KERNEL) },
#undef ISA
};

const MiPanelKernel *mi_panel_kernel(const char *format, const char *isa)
{
    for (int i = 0; i < N_ISAS; i++) {
        const MiPanelIsa *candidate = kernels[i][0].isa;
        if ((strcmp(isa, "auto") != 0 && strcmp(isa, candidate->name) != 0) || !candidate->usable())
            continue;
        for (int f = 0; f < MI_PANEL_N_FORMATS; f++)
            if (strcmp(kernels[i][f].name, format) == 0)
                return &kernels[i][f];
    }
    return NULL;
}
