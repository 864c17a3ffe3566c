/* encode.h - weights rounded to few bits: the numbers of a panel from f32.
 *
 * A group of n values w of a row becomes w = d (q - offset) + m, q of `levels`
 * values from 0 on; symmetric: m = 0.  By range: the extremes are representable
 * ("round to nearest", rtn, absmax).  Fitted: of some ranges that clip a little
 * the one with the least squared error, d and m then by least squares; errors
 * count by w^2 plus its mean, since what large weights lose costs most
 * (docs/quantisation.md has the figures).  An asymmetric group falls back on the
 * symmetric solution where that is better, so that its error is never larger. */
#ifndef MI_KERNELS_CPU_ENCODE_H
#define MI_KERNELS_CPU_ENCODE_H

#include <cpu/panels.h>

typedef struct {
    int32_t levels, offset; /* 16, 8; 256, 128; uint4: 16, 0 */
    bool    minimum;        /* m too */
    bool    half;           /* d and m are to be f16 */
    bool    fit;
} MiEncoding;

typedef struct { float d, m; } MiScalePair; /* exact in f16 where that is asked for */

/* w: [n], n a multiple of 16; q: [n].  False: w has a value that is no number, or too large for f16. */
typedef bool (*MiEncodeFn)(const MiEncoding *, const float *w, int64_t n, uint8_t *q, MiScalePair *);
/* The fastest of this machine; they differ in the last bits of sums, by which they choose. */
MiEncodeFn mi_encode(void);

/* Floats that encoding a panel needs as scratch. */
int64_t mi_panel_scratch(int64_t in);
/* Writes panels [first, last) of those of dst from src, [out][in] of a stored format (f32, bf16, q6_k, ...).
 * False: a value that cannot be encoded. */
bool mi_panel_encode(const MiPanelKernel *, const char *format, bool fit, const void *src, int64_t out, int64_t in,
                     int64_t first, int64_t last, uint8_t *dst, float *scratch);

/* For other sources of q, d and m: row r of 32 of `panel`, its block b of 32 columns; the scales of that block's
 * group, or of the row. */
void mi_panel_put_block(const MiPanelShape *, uint8_t *panel, int64_t b, int r, const uint8_t q[32]);
void mi_panel_put_scales(const MiPanelShape *, uint8_t *panel, int64_t b, int r, float d, float m);

#endif
