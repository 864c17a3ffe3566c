/* store.h - memory of a cache, in blocks of positions, and the tables that a step
 * reads: one allocation. */
#ifndef PLUGINS_CACHE_STORE_H
#define PLUGINS_CACHE_STORE_H

#include <miniinfer/plugin.h>

/* What a cache asks for. */
typedef struct {
    int32_t n_layers;     /* that have memory of their own */
    int32_t n_blocks;     /* of each layer */
    int32_t block_size;   /* positions of a block */
    int32_t max_blocks;   /* of a sequence; 1: a block is a whole sequence */
} StoreShape;

/* Within a block a head's positions lie side by side: attention streams them. */
typedef struct {
    MiCacheSpec spec;
    StoreShape  shape;
    MiContext  *ctx;
    size_t      side_bytes, scale_bytes, table_bytes; /* keys, or values, of a layer; its scales; all tables */
    char       *data; /* device: [n_layers][k, v][n_blocks][n_kv_heads][block_size][head_dim], then, where keys have
                       * scales, [n_layers] of mi_kv_shift() and bf16 [n_blocks][n_kv_heads][block_size][2], then tables */
    int32_t    *tables;                  /* host side: where they lie on a unified backend, else of its own */
    /* In tables; a step's plan() fills those of its rows and sequences. */
    int32_t *kv_len;   /* [max_seqs] */
    int32_t *kv_start; /* [max_seqs] */
    int32_t *block;    /* [max_seqs][max_blocks] */
    int32_t *slots;    /* [max_tokens] */
} Store;

size_t store_bytes(const MiCacheSpec *, StoreShape); /* SIZE_MAX: more than there can be */
bool   store_new(Store *, MiContext *, const MiCacheSpec *, StoreShape, GError **error);
void   store_free(Store *);
/* Where a layer's scales lie; NULL: there are none. */
char  *store_scales(const Store *, int layer);
/* kv_start and block_table are set; a layout without them sets them to NULL. */
void   store_view(const Store *, int layer, MiKvView *out);

/* Begins a step: all rows and sequences of the bucket are padding. */
void store_clear(Store *, const MiBatch *);
/* Ends it: the tables are on their way to the device. */
bool store_send(Store *, MiContext *, const MiBatch *, GError **error);
/* n entries of a table only. */
bool store_send_part(Store *, MiContext *, const int32_t *from, size_t n, GError **error);

#endif
