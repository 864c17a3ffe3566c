/* panels.c - repacking of stored blocks into panels, and the choice of an
 * instruction set.  Layouts of blocks are those of GGUF, see blocks.c. */
#include <cpu/blocks.h>
#include <cpu/panels.h>
#include <string.h>

const uint8_t mi_panel_table[16] = { 1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241 };

/* ---- planes: what one row of a block is in a panel, a word each --------------- */

static uint32_t word(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* Of 32 bytes, column k in byte k: bits [from, from + 4), [from, from + 2) or bit `from`. */
static void nibbles(const uint8_t *p, int from, uint32_t *planes)
{
    for (int g = 0; g < 4; g++)
        planes[g] = (word(p + 4 * g) >> from & 0x0f0f0f0fu) | (word(p + 16 + 4 * g) >> from & 0x0f0f0f0fu) << 4;
}
static void pairs(const uint8_t *p, int from, uint32_t *planes)
{
    for (int i = 0; i < 2; i++) {
        planes[i] = 0;
        for (int g = 0; g < 4; g++)
            planes[i] |= (word(p + 16 * i + 4 * g) >> from & 0x03030303u) << 2 * g;
    }
}
static void bits(const uint8_t *p, int from, uint32_t *planes)
{
    planes[0] = 0;
    for (int g = 0; g < 8; g++)
        planes[0] |= (word(p + 4 * g) >> from & 0x01010101u) << g;
}

/* 16 bytes, columns k and k + 16 in byte k: four planes as they are. */
static void old_nibbles(const uint8_t *p, uint32_t *planes)
{
    for (int g = 0; g < 4; g++)
        planes[g] = word(p + 4 * g);
}

/* Bit k of a word is column k's.  Times 1 + 2^7 + 2^14 + 2^21 bit j of a nibble comes to bit 8 j. */
static void old_bits(const uint8_t *p, uint32_t *planes)
{
    const uint32_t v = word(p);
    planes[0] = 0;
    for (int g = 0; g < 8; g++)
        planes[0] |= ((v >> 4 * g & 15u) * 0x204081u & 0x01010101u) << g;
}

/* Columns 32 i .. 32 i + 31 of a stored block. */
static void q4_0(const uint8_t *block, int i, uint32_t *planes) { (void)i, old_nibbles(block + 2, planes); }
static void q4_1(const uint8_t *block, int i, uint32_t *planes) { (void)i, old_nibbles(block + 4, planes); }
static void q5_0(const uint8_t *block, int i, uint32_t *planes)
{
    (void)i, old_nibbles(block + 6, planes);
    old_bits(block + 2, planes + 4);
}
static void q5_1(const uint8_t *block, int i, uint32_t *planes)
{
    (void)i, old_nibbles(block + 8, planes);
    old_bits(block + 4, planes + 4);
}
static void q8_0(const uint8_t *block, int i, uint32_t *planes)
{
    (void)i;
    for (int g = 0; g < 8; g++)
        planes[g] = word(block + 2 + 4 * g) ^ 0x80808080u;
}
static void q2_k(const uint8_t *block, int i, uint32_t *planes) { pairs(block + 16 + 32 * (i / 4), 2 * (i % 4), planes); }
static void q3_k(const uint8_t *block, int i, uint32_t *planes)
{
    pairs(block + 32 + 32 * (i / 4), 2 * (i % 4), planes);
    bits(block, i, planes + 2);
}
static void q4_k(const uint8_t *block, int i, uint32_t *planes) { nibbles(block + 16 + 32 * (i / 2), 4 * (i % 2), planes); }
static void q5_k(const uint8_t *block, int i, uint32_t *planes)
{
    nibbles(block + 48 + 32 * (i / 2), 4 * (i % 2), planes);
    bits(block + 16, i, planes + 4);
}
static void q6_k(const uint8_t *block, int i, uint32_t *planes)
{
    nibbles(block + 64 * (i / 4) + 32 * (i % 2), 4 * (i / 2 % 2), planes);
    pairs(block + 128 + 32 * (i / 4), 2 * (i % 4), planes + 4);
}
static void iq4_nl(const uint8_t *block, int i, uint32_t *planes) { (void)i, old_nibbles(block + 2, planes); }
static void iq4_xs(const uint8_t *block, int i, uint32_t *planes) { old_nibbles(block + 8 + 16 * i, planes); }

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

static void scales_q4_0(const uint8_t *block, uint8_t *head, int r) { put_half(head, r, block); }
static void scales_q4_1(const uint8_t *block, uint8_t *head, int r)
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
static void scales_q4_k(const uint8_t *block, uint8_t *head, int r)
{
    scales_q4_1(block, head, r);
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

#define scales_q5_0 scales_q4_0
#define scales_q8_0 scales_q4_0
#define scales_iq4_nl scales_q4_0
#define scales_q5_1 scales_q4_1
#define scales_q5_k scales_q4_k

/* ---- panels ----------------------------------------------------------------- */

int64_t mi_panel_bytes(const MiPanelShape *s, int64_t in)
{
    const int64_t blocks = (in + MI_BLOCK - 1) / MI_BLOCK, group = mi_panel_group(s->scales);
    const int64_t groups = mi_panel_row(s->scales) ? 1 : (blocks + group - 1) / group;
    return groups * mi_panel_head(s->scales) + blocks * mi_panel_planes(s->low, s->high);
}

typedef void (*Planes)(const uint8_t *block, int i, uint32_t *planes);
typedef void (*Scales)(const uint8_t *block, uint8_t *head, int r);

/* One panel; src: its first row.  Inlined, so that the calls are of known functions: a quarter faster. */
static inline __attribute__((always_inline)) void
pack_panel(MiPanelShape f, Planes planes_of, Scales scales_of, const uint8_t *src, int block_bytes, int64_t groups,
           int rows, uint8_t *dst)
{
    const int head = mi_panel_head(f.scales), planes = mi_panel_planes(f.low, f.high);
    const int per_group = mi_panel_super(f.scales) ? 8 : 1;

    for (int64_t g = 0; g < groups; g++, dst += head + per_group * planes) {
        for (int r = 0; r < rows; r++) {
            const uint8_t *block = src + (r * groups + g) * block_bytes;
            uint8_t       *to = dst + head + r / 16 * (planes / 2) + r % 16 * 4;

            scales_of(block, dst, r);
            for (int i = 0; i < per_group; i++, to += planes) {
                uint32_t w[10];
                planes_of(block, i, w);
                for (int k = 0; k < f.low + f.high; k++) {
                    to[64 * k] = (uint8_t)w[k];
                    to[64 * k + 1] = (uint8_t)(w[k] >> 8);
                    to[64 * k + 2] = (uint8_t)(w[k] >> 16);
                    to[64 * k + 3] = (uint8_t)(w[k] >> 24);
                }
            }
        }
    }
}

#define PACK(name, low, high, table, offset, scales)                                                                     \
    static void pack_##name(const uint8_t *src, int block_bytes, int64_t groups, int rows, uint8_t *dst)                 \
    {                                                                                                                    \
        pack_panel((MiPanelShape){ low, high, table, offset, scales }, name, scales_##name, src, block_bytes, groups, rows, dst); \
    }
MI_PANEL_STORED(PACK)

#define PACK_OF(name, ...) [MI_PANEL_##name] = pack_##name,
static void (*const packs[])(const uint8_t *src, int block_bytes, int64_t groups, int rows, uint8_t *dst) = {
    MI_PANEL_STORED(PACK_OF)
};

void mi_panel_pack(const MiPanelKernel *k, const void *src, int64_t out, int64_t in, int64_t first, int64_t last,
                   uint8_t *dst)
{
    const MiBlockFormat *f = mi_block_format(k->name);
    const int64_t        groups = in / f->values, panel = mi_panel_bytes(&k->shape, in);

    for (int64_t i = first; i < last; i++) {
        const int rows = (int)(out - i * MI_PANEL < MI_PANEL ? out - i * MI_PANEL : MI_PANEL);
        if (rows < MI_PANEL)
            memset(dst + i * panel, 0, (size_t)panel);
        packs[k->index]((const uint8_t *)src + i * MI_PANEL * groups * f->bytes, f->bytes, groups, rows, dst + i * panel);
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

#define KERNEL(x, name, ...) { #name, { __VA_ARGS__ }, MI_PANEL_##name, &ISA, x },
#define BLOCK(...) KERNEL(MI_X_BLOCK, __VA_ARGS__)
#define ROW(...) KERNEL(MI_X_ROW, __VA_ARGS__)
#define WIDE(...) KERNEL(MI_X_WIDE, __VA_ARGS__)
#define KERNELS { { MI_PANEL_FORMATS(BLOCK) }, { MI_PANEL_FORMATS(ROW) }, { MI_PANEL_FORMATS(WIDE) } }
static const MiPanelKernel kernels[N_ISAS][MI_X_N][MI_PANEL_N_FORMATS] = {
#ifdef MI_X86_64
#define ISA mi_panel_avx512
    KERNELS,
#undef ISA
#define ISA mi_panel_avxvnni
    KERNELS,
#undef ISA
#define ISA mi_panel_avx2
    KERNELS,
#undef ISA
#endif
#define ISA mi_panel_scalar
    KERNELS,
#undef ISA
};

const MiPanelKernel *mi_panel_kernel(const char *format, const char *isa, MiPanelX x)
{
    for (int i = 0; i < N_ISAS; i++) {
        const MiPanelIsa *candidate = kernels[i][x][0].isa;
        if ((strcmp(isa, "auto") != 0 && strcmp(isa, candidate->name) != 0) || !candidate->usable())
            continue;
        for (int f = 0; f < MI_PANEL_N_FORMATS; f++)
            if (strcmp(kernels[i][x][f].name, format) == 0 && candidate->run[x][f])
                return &kernels[i][x][f];
    }
    return NULL;
}
