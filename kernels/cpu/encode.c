/* encode.c - encode.h in plain C, the choice of an instruction set, and where a panel keeps its numbers. */
#define ENCODE encode
#include <cpu/encode_lanes.h>
#ifdef MI_X86_64
#include <cpu/x86.h>

extern const MiEncodeFn mi_encode_avx2, mi_encode_avx512;
#endif

MiEncodeFn mi_encode(void)
{
#ifdef MI_X86_64
    if (mi_x86_avx512_vnni())
        return mi_encode_avx512;
    if (mi_x86_avx2())
        return mi_encode_avx2;
#endif
    return encode;
}

/* ---- panels ----------------------------------------------------------------- */

/* Where block b begins, and the scales of its group. */
static uint8_t *block_at(const MiPanelShape *s, uint8_t *panel, int64_t b)
{
    const int64_t groups = mi_panel_row(s->scales) ? 1 : b / mi_panel_group(s->scales) + 1;
    return panel + groups * mi_panel_head(s->scales) + b * mi_panel_planes(s->low, s->high);
}
static uint8_t *head_at(const MiPanelShape *s, uint8_t *panel, int64_t b)
{
    const int64_t group = mi_panel_group(s->scales), head = mi_panel_head(s->scales);
    return mi_panel_row(s->scales) ? panel : panel + b / group * (head + group * mi_panel_planes(s->low, s->high));
}

void mi_panel_put_block(const MiPanelShape *s, uint8_t *panel, int64_t b, int r, const uint8_t q[32])
{
    uint8_t *to = block_at(s, panel, b) + r / 16 * (mi_panel_planes(s->low, s->high) / 2) + r % 16 * 4;

    for (int g = 0; g < s->low; g++)
        for (int j = 0; j < 4; j++)
            to[64 * g + j] = s->low == 8 ? q[4 * g + j] : (uint8_t)(q[4 * g + j] | q[16 + 4 * g + j] << 4);
}

void mi_panel_put_scales(const MiPanelShape *s, uint8_t *panel, int64_t b, int r, float d, float m)
{
    uint8_t *head = head_at(s, panel, b);

    if (mi_panel_row(s->scales)) {
        memcpy(head + 4 * r, &d, 4);
        if (mi_panel_mins(s->scales))
            memcpy(head + 128 + 4 * r, &m, 4);
        return;
    }
    const uint16_t half_d = mi_f32_to_f16(d), half_m = mi_f32_to_f16(m);
    memcpy(head + 2 * r, &half_d, 2);
    if (mi_panel_mins(s->scales))
        memcpy(head + 64 + 2 * r, &half_m, 2);
}

/* A row as f32, and its q. */
int64_t mi_panel_scratch(int64_t in) { return (in + MI_BLOCK - 1) / MI_BLOCK * (MI_BLOCK + MI_BLOCK / 4); }

typedef struct {
    const MiPanelShape *shape;
    MiEncoding          how;
    MiEncodeFn          encode;
    float              *row;
    uint8_t            *q;
    int64_t             in, padded;
} Encoder;

static bool encode_row(const Encoder *e, uint8_t *panel, int r)
{
    const MiPanelShape *s = e->shape;
    const int64_t       group = mi_panel_row(s->scales) ? e->padded : mi_panel_group(s->scales) * MI_BLOCK;

    for (int64_t k = e->in; k < e->padded; k++)
        e->row[k] = e->row[e->in - 1]; /* changes no range; x is zero there */
    for (int64_t k = 0; k < e->padded; k += group) {
        const int64_t n = e->padded - k < group ? e->padded - k : group;
        MiScalePair   p;

        if (!e->encode(&e->how, e->row + k, n, e->q + k, &p))
            return false;
        mi_panel_put_scales(s, panel, k / MI_BLOCK, r, p.d, p.m);
    }
    for (int64_t b = 0; b < e->padded / MI_BLOCK; b++)
        mi_panel_put_block(s, panel, b, r, e->q + b * MI_BLOCK);
    return true;
}

bool mi_panel_encode(const MiPanelKernel *k, const char *format, bool fit, const void *src, int64_t out, int64_t in,
                     int64_t first, int64_t last, uint8_t *dst, float *scratch)
{
    const MiBlockFormat *f = mi_block_format(format);
    const int64_t        panel = mi_panel_bytes(&k->shape, in), row_bytes = in / f->values * f->bytes;
    const int64_t        padded = (in + MI_BLOCK - 1) / MI_BLOCK * MI_BLOCK;
    const Encoder        e = {
        .shape = &k->shape,
        .how = { 1 << k->shape.low, k->shape.offset, mi_panel_mins(k->shape.scales), !mi_panel_row(k->shape.scales), fit },
        .encode = mi_encode(), .row = scratch, .q = (uint8_t *)(scratch + padded), .in = in, .padded = padded,
    };

    for (int64_t i = first; i < last; i++) {
        const int64_t rows = out - i * MI_PANEL < MI_PANEL ? out - i * MI_PANEL : MI_PANEL;
        if (rows < MI_PANEL)
            memset(dst + i * panel, 0, (size_t)panel);
        for (int64_t r = 0; r < rows; r++) {
            f->decode((const uint8_t *)src + (i * MI_PANEL + r) * row_bytes, e.row, in);
            if (!encode_row(&e, dst + i * panel, (int)r))
                return false;
        }
    }
    return true;
}
