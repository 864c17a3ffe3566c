#include "stored_cuda.h"

#include <cuda/quant_stored.h>
#include <string.h>

bool stored_cuda_form(const MiWeight *w, MiQuantForm *form, GError **error)
{
    const MiStoredBlocks *b = mi_stored_blocks(w->format);
    const MiQuant        *q = w->quant;

    if (b) {
        *form = b->form;
        return true;
    }
    const bool row = q && q->n_groups == 1;
    const int  group = !q || (row && q->bits == 8)   ? 0
                       : row || q->group_in % 128 == 0 ? 128
                       : q->group_in % 64 == 0         ? 64
                       : q->group_in % 32 == 0         ? 32
                                                       : -1;
    if (!q || group < 0 || q->codes_as == MI_CODES_F8) {
        g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED, "%s: %s in groups of %" G_GINT64_FORMAT " columns; groups of multiples of 32, "
                    "or rows, are packed; set [engine] linear = dense", w->name, w->format, q ? q->group_in : 0);
        return false;
    }
    *form = (MiQuantForm){
        .bits = q->bits,
        .group = group,
        .zeros = q->zeros_as != MI_ZEROS_NONE,
        .scales = !group                      ? 0
                  : q->scale_dtype == MI_F16  ? MI_QUANT_F16
                  : q->scale_dtype == MI_BF16 ? MI_QUANT_BF16
                                              : MI_QUANT_F32,
    };
    return true;
}

static bool all_words(const MiQuant *q, int64_t n, uint32_t wanted)
{
    const uint8_t *p = q->zeros; /* at any alignment */

    for (int64_t i = 0; i < n; i++) {
        uint32_t w;
        memcpy(&w, p + 4 * i, sizeof w);
        if (w != wanted)
            return false;
    }
    return true;
}

bool stored_cuda_symmetric(const MiQuant *q)
{
    const int64_t  per = 32 / q->bits, rows = (q->out + q->group_out - 1) / q->group_out;
    const uint32_t ones = UINT32_MAX / ((1u << q->bits) - 1), middle = ones << (q->bits - 1);
    const int8_t  *bytes = q->zeros;

    switch (q->zeros_as) {
    case MI_ZEROS_I8:
        for (int64_t i = 0; i < rows * q->n_groups; i++)
            if (bytes[i])
                return false;
        return true;
    case MI_ZEROS_DOWN: /* a last word that is not full counts as any other */
        return all_words(q, (q->out + per - 1) / per * q->n_groups, middle);
    case MI_ZEROS_ALONG:
        return all_words(q, q->n_groups * (q->out / per), middle - (uint32_t)q->zero * ones);
    case MI_ZEROS_AWQ:
        return all_words(q, q->n_groups * (q->out / per), middle);
    default:
        return true;
    }
}
