/* convert.h - weights of any format as another's: dtype and order of rows.
 *
 * The same network has its q and k rows in two orders, as its rotation pairs them;
 * GPT-NeoX's joined q, k and v in two more.  Rows are turned on the way, one at a
 * time, so that memory is bounded by a row. */
#ifndef MI_FORMATS_CONVERT_H
#define MI_FORMATS_CONVERT_H

#include "names.h"
#include "out.h"
#include <cpu/blocks.h>

typedef enum { MI_ROWS_SAME, MI_ROWS_PAIR, MI_ROWS_UNPAIR, MI_ROWS_JOIN_QKV, MI_ROWS_SPLIT_QKV } MiRowOrder;

/* The row of the source that row r of the result is.  PAIR: halves of a head to neighbours
 * (Hugging Face to Llama's GGUF), UNPAIR back; SPLIT_QKV: per head q, k, v to all q, all k,
 * all v (Hugging Face to GGUF), JOIN_QKV back. */
int64_t mi_source_row(MiRowOrder, int64_t r, int64_t n_rows, int64_t head_dim);

typedef struct {
    const MiSource *from;
    const MiArch   *arch;
    int64_t         n_layers, hidden, heads, kv_heads, head_dim, vocab;
    MiRopeStyle     to; /* the order that the result has */
} MiConversion;

/* Reads what both writers need; false with *error: an architecture that they do not know. */
bool mi_conversion_new(MiConversion *, const MiSource *from, const MiWriteSpec *, GError **error);

/* How q and k rows of w go. */
MiRowOrder mi_row_order(const MiConversion *, const MiWeight *w);

/* The format of a matrix under spec->dtype; `blocks`: the target can hold what GGUF can. */
const MiBlockFormat *mi_target_format(const MiWeight *w, const MiWriteSpec *, bool blocks);

uint64_t mi_format_bytes(const MiBlockFormat *, const MiWeight *w);
/* Streams w in the order and format of the target. */
void mi_write_weight(MiOut *, const MiConversion *, const MiWeight *w, const MiBlockFormat *, MiRowOrder);

/* Metadata as a number; def where there is none. */
double mi_meta_number(const MiSource *, const char *key, double def);

#endif
