/* panels.h - y = x W' with block-quantised W and x quantised to int8 on the way.
 *
 * W is repacked once into panels of 32 rows.  Every stored format becomes
 *     w = d q + m,   q unsigned, d and m shared by 32 (or 16) values of a row,
 * its q kept at 2, 3, 4, 5, 6 or 8 bits.  x becomes a = s qa, |qa| <= 127, s
 * shared by 32 values.  With integer sums over those values
 *     y += s (d (sum(q qa) - offset sum(qa))) + m s sum(qa).
 * Each y is accumulated in f32 block by block in one order with one rounding
 * each: every instruction set gives the same bits, whatever rows share a call.
 *
 * A panel: groups of 32 columns (of 256 where scales are of 256), one after the
 * other; each: scales, then for every 32 columns and each half (16 rows) planes
 * of 64 bytes.  Byte 4 r + j of a plane is of row r and of column 4 g + j:
 *     8 bits   plane g
 *     4 bits   plane g % 4, nibble g / 4
 *     2 bits   plane g / 4, bits 2 (g % 4) and up
 *     1 bit    one plane, bit g
 * so that a broadcast of four qa meets 16 rows in one vpdpbusd, and no sum runs
 * across a register.  5 bits are 4 + 1, 6 are 4 + 2, 3 are 2 + 1.
 *
 * Formats that are encoded while loading (encode.h) have d and m of 32, 64 or 128
 * columns or of a whole row.  Their x has one s for 32 columns, or one for the row:
 * then integers are summed over all columns that share d; or it is made two bytes,
 * which are multiplied one after the other. */
#ifndef MI_KERNELS_CPU_PANELS_H
#define MI_KERNELS_CPU_PANELS_H

#include <miniinfer/types.h>

enum { MI_PANEL = 32 /* rows of W */, MI_TILE = 64 /* rows of x */, MI_BLOCK = 32 /* columns */ };

/* Where d and m come from. */
typedef enum {
    MI_SCALE_D,    /* d: f16 of 32 columns */
    MI_SCALE_DM,   /* d, m: f16 of 32 columns */
    MI_SCALE_K,    /* d: f16 of 256 columns times int8 of 32 */
    MI_SCALE_KM,   /* m too, uint8 */
    MI_SCALE_K16,  /* d: f16 of 256 columns times int8 of 16 */
    MI_SCALE_KM16, /* m too, both 4 bits of one byte */
    MI_SCALE_G32,  /* d: f16 of 32 columns, the last group of a row may be short; so are those that follow */
    MI_SCALE_G64,
    MI_SCALE_G128,
    MI_SCALE_GM32, /* d, m: f16 of 32 columns */
    MI_SCALE_GM64,
    MI_SCALE_GM128,
    MI_SCALE_ROW,  /* d: f32 of the row */
    MI_SCALE_ROWM, /* d, m: f32 of the row */
} MiScales;

/* name, bits of the low and the high planes, looked up in the IQ4 table, offset, scales */
#define MI_PANEL_STORED(X)                    \
    X(q4_0, 4, 0, false, 8, MI_SCALE_D)       \
    X(q4_1, 4, 0, false, 0, MI_SCALE_DM)      \
    X(q5_0, 4, 1, false, 16, MI_SCALE_D)      \
    X(q5_1, 4, 1, false, 0, MI_SCALE_DM)      \
    X(q8_0, 8, 0, false, 128, MI_SCALE_D)     \
    X(q2_k, 2, 0, false, 0, MI_SCALE_KM16)    \
    X(q3_k, 2, 1, false, 4, MI_SCALE_K16)     \
    X(q4_k, 4, 0, false, 0, MI_SCALE_KM)      \
    X(q5_k, 4, 1, false, 0, MI_SCALE_KM)      \
    X(q6_k, 4, 2, false, 32, MI_SCALE_K16)    \
    X(iq4_nl, 4, 0, true, 128, MI_SCALE_D)    \
    X(iq4_xs, 4, 0, true, 128, MI_SCALE_K)
#define MI_PANEL_ENCODED(X)                        \
    X(int4_32, 4, 0, false, 8, MI_SCALE_G32)       \
    X(int4_64, 4, 0, false, 8, MI_SCALE_G64)       \
    X(int4_128, 4, 0, false, 8, MI_SCALE_G128)     \
    X(uint4_32, 4, 0, false, 0, MI_SCALE_GM32)     \
    X(uint4_64, 4, 0, false, 0, MI_SCALE_GM64)     \
    X(uint4_128, 4, 0, false, 0, MI_SCALE_GM128)   \
    X(int8_32, 8, 0, false, 128, MI_SCALE_G32)     \
    X(uint8_32, 8, 0, false, 128, MI_SCALE_GM32)   \
    X(int8_64, 8, 0, false, 128, MI_SCALE_G64)     \
    X(uint8_64, 8, 0, false, 128, MI_SCALE_GM64)   \
    X(int8_128, 8, 0, false, 128, MI_SCALE_G128)   \
    X(uint8_128, 8, 0, false, 128, MI_SCALE_GM128) \
    X(int8_row, 8, 0, false, 128, MI_SCALE_ROW)    \
    X(uint8_row, 8, 0, false, 128, MI_SCALE_ROWM)
#define MI_PANEL_FORMATS(X) MI_PANEL_STORED(X) MI_PANEL_ENCODED(X)

typedef struct {
    int32_t  low, high; /* bits */
    bool     table;
    int32_t  offset;
    MiScales scales;
} MiPanelShape;

MI_INLINE bool mi_panel_super(MiScales s) { return s >= MI_SCALE_K && s <= MI_SCALE_KM16; }
/* Of a block: a scale for each 16 columns. */
MI_INLINE bool mi_panel_halves(MiScales s) { return s == MI_SCALE_K16 || s == MI_SCALE_KM16; }
MI_INLINE bool mi_panel_encoded(MiScales s) { return s >= MI_SCALE_G32; }
MI_INLINE bool mi_panel_row(MiScales s) { return s >= MI_SCALE_ROW; }
MI_INLINE bool mi_panel_mins(MiScales s)
{
    return s == MI_SCALE_DM || s == MI_SCALE_KM || s == MI_SCALE_KM16 || (s >= MI_SCALE_GM32 && s <= MI_SCALE_GM128) ||
           s == MI_SCALE_ROWM;
}

/* Blocks that share scales.  Of a row's: what is summed up at once, 2^16 products of 8 bits by 8 stay below 2^31. */
MI_INLINE int32_t mi_panel_group(MiScales s)
{
    switch (s) {
    case MI_SCALE_K: case MI_SCALE_KM: case MI_SCALE_K16: case MI_SCALE_KM16: return 8;
    case MI_SCALE_G64: case MI_SCALE_GM64: return 2;
    case MI_SCALE_G128: case MI_SCALE_GM128: return 4;
    case MI_SCALE_ROW: case MI_SCALE_ROWM: return 2048;
    default: return 1;
    }
}

/* Bytes of a group's scales, and of a block's planes, for 32 rows. */
MI_INLINE int32_t mi_panel_head(MiScales s)
{
    switch (s) {
    case MI_SCALE_D: return 64;
    case MI_SCALE_DM: return 128;
    case MI_SCALE_K: return 64 + 8 * 32;
    case MI_SCALE_KM: return 128 + 2 * 8 * 32;
    case MI_SCALE_K16: return 64 + 16 * 32;
    case MI_SCALE_KM16: return 128 + 16 * 32;
    case MI_SCALE_G32: case MI_SCALE_G64: case MI_SCALE_G128: return 64;
    case MI_SCALE_GM32: case MI_SCALE_GM64: case MI_SCALE_GM128: case MI_SCALE_ROW: return 128;
    case MI_SCALE_ROWM: return 256;
    }
    return 0;
}
MI_INLINE int32_t mi_panel_planes(int32_t low, int32_t high) { return 128 * (low + high); }

/* What becomes of x. */
typedef enum {
    MI_X_BLOCK, /* int8, s of 32 columns */
    MI_X_ROW,   /* int8, s of the row; this and the next of encoded formats only */
    MI_X_WIDE,  /* 15 bits in two bytes, 128 qa + low; s of 32 columns */
    MI_X_N
} MiPanelX;

/* x, quantised: tiles of MI_TILE rows, the last of fewer; of a tile of nt rows, block by block
 *     int8_t qa[nt][32]; float s[nt]; float s_sum[nt]; int32_t sum[2][nt]
 * s_sum = s sum(qa), sum: of the first and the last 16; of MI_X_ROW sum[0] is that of all columns up to here.
 * Of MI_X_WIDE int8_t low[nt][32] follow, in [-64, 63]; s_sum is of both, sum[0] of qa, sum[1] of low. */
enum { MI_TILE_BYTES = 32 + 4 + 4 + 8 /* of a row and block */, MI_TILE_WIDE = MI_TILE_BYTES + 32 };
MI_INLINE int32_t mi_tile_bytes(MiPanelX x) { return x == MI_X_WIDE ? MI_TILE_WIDE : MI_TILE_BYTES; }

/* |128 qa + low| at most. */
#define MI_PANEL_WIDE 16256.0f

#define MI_PANEL_TINY 1e-30f /* a block of x of nothing larger is zero: 127 / max stays finite */

/* One panel times one tile.  y: [nt][y_stride], n_rows of this panel's 32 are wanted; bias: [n_rows] or NULL. */
typedef struct {
    const uint8_t *panel;
    const uint8_t *tile;
    int64_t        blocks; /* columns / 32 */
    int32_t        nt;
    float         *y;
    int64_t        y_stride;
    const float   *bias;
    int32_t        n_rows;
} MiPanelCall;

typedef void (*MiPanelFn)(const MiPanelCall *);
/* Rows [first, first + n) of a tile of nt rows; x: row `first`, x_stride apart. */
typedef void (*MiQuantiseFn)(const float *x, int64_t x_stride, int32_t first, int32_t n, int32_t nt, int64_t blocks,
                             uint8_t *tile);

#define MI_PANEL_INDEX(name, ...) MI_PANEL_##name,
enum { MI_PANEL_FORMATS(MI_PANEL_INDEX) MI_PANEL_N_FORMATS };
#undef MI_PANEL_INDEX

/* What an instruction set brings along. */
typedef struct {
    const char  *name;          /* "scalar", "avx2", "avxvnni", "avx512" */
    bool       (*usable)(void); /* on this machine */
    MiQuantiseFn quantise[MI_X_N];
    MiPanelFn    run[MI_X_N][MI_PANEL_N_FORMATS]; /* NULL: not of this format */
} MiPanelIsa;

/* A stored format on an instruction set; constants of the program. */
typedef struct {
    const char       *name; /* of the format */
    MiPanelShape      shape;
    int32_t           index; /* in run[] */
    const MiPanelIsa *isa;
    MiPanelX          x;
} MiPanelKernel;

/* isa: one of the names or "auto", the best this machine has.  NULL: no such format, or no such set here. */
const MiPanelKernel *mi_panel_kernel(const char *format, const char *isa, MiPanelX);
/* The names of all, best first, NULL-terminated; usable on this machine or not. */
const char *const *mi_panel_isas(void);

int64_t mi_panel_bytes(const MiPanelShape *, int64_t in);
/* src: [out][in] in a stored format; writes panels [first, last) of those of dst. */
void mi_panel_pack(const MiPanelKernel *, const void *src, int64_t out, int64_t in, int64_t first, int64_t last,
                   uint8_t *dst);

extern const uint8_t    mi_panel_table[16]; /* IQ4's values + 128 */
extern const MiPanelIsa mi_panel_scalar;
#ifdef MI_X86_64
extern const MiPanelIsa mi_panel_avx2, mi_panel_avxvnni, mi_panel_avx512;
#endif

#endif
