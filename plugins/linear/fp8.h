/* fp8.h - what the linears of E4M3 on both devices share: their options, and how parts lie side by side. */
#ifndef PLUGINS_LINEAR_FP8_H
#define PLUGINS_LINEAR_FP8_H

#include <miniinfer/linear.h>
#include <miniinfer/option.h>
#include <string.h>

typedef struct {
    const char *scale;
} Fp8Options;

enum { FP8_BLOCK = 128, FP8_ALIGN = 256 };

static inline size_t fp8_aligned(size_t bytes) { return (bytes + FP8_ALIGN - 1) / FP8_ALIGN * FP8_ALIGN; }

/* Codes of all parts, row after row; then their scales. */
static inline bool fp8_codes(const MiWeight *parts, int n, int64_t multiple, size_t *codes, int64_t *rows, GError **error)
{
    gsize all = 0, one;

    *rows = 0;
    for (int i = 0; i < n; i++) {
        const MiWeight *w = &parts[i];
        if (w->ndim != 2 || w->shape[0] <= 0 || w->shape[1] <= 0 || w->shape[1] % multiple || w->shape[0] > INT32_MAX ||
            w->shape[1] > INT32_MAX) {
            g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED,
                        "%s: linear 'fp8' reads matrices whose rows are a multiple of %" G_GINT64_FORMAT
                        ", this has %d dimensions and rows of %" G_GINT64_FORMAT, w->name, multiple, w->ndim,
                        w->ndim > 1 ? w->shape[1] : 0);
            return false;
        }
        if (!g_size_checked_mul(&one, (gsize)w->shape[0], (gsize)w->shape[1]) || !g_size_checked_add(&all, all, one) ||
            all > G_MAXSIZE / 16) {
            g_set_error(error, MI_ERROR, MI_ERROR_MODEL, "%s: too large for this machine", w->name);
            return false;
        }
        *rows += w->shape[0];
    }
    *codes = fp8_aligned(all);
    return true;
}

/* Rows first to first + rows of a weight; one that is quantised already comes whole. */
static inline MiWeight fp8_piece(const MiWeight *w, int64_t first, int64_t rows)
{
    MiWeight     some = *w;
    const size_t stored = w->bytes / (size_t)w->shape[0];

    some.shape[0] = rows;
    if (!w->quant && rows < w->shape[0]) {
        some.data = (const char *)w->data + (size_t)first * stored;
        some.bytes = (size_t)rows * stored;
    }
    return some;
}

#endif
