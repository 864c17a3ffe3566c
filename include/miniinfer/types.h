/* types.h - plain data shared by C, CUDA and every plugin.
 *
 * No GLib, no CUDA types, no functions that need linking: nvcc includes this
 * header too.  These structs cross the plugin ABI and are passed by value to
 * kernels: their sizes are compared at load, any change is a new MI_ABI_MAJOR. */
#ifndef MINIINFER_TYPES_H
#define MINIINFER_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __CUDACC__
#define MI_INLINE __host__ __device__ static inline
#else
#define MI_INLINE static inline
#endif

/* What kernels compute with.  How a weight is stored is a string, "q4_k". */
typedef enum { MI_F32, MI_F16, MI_BF16, MI_F8, MI_I8, MI_I32, MI_N_DTYPES } MiDType;

MI_INLINE size_t mi_dtype_size(MiDType t)
{
    return t == MI_F32 || t == MI_I32 ? 4 : t == MI_F16 || t == MI_BF16 ? 2 : 1;
}

/* Keys and values of these types have scales. */
MI_INLINE bool mi_dtype_scaled(MiDType t) { return t == MI_F8 || t == MI_I8; }

/* What a request adds to some logits before anything else looks at them; fixed
 * size, since a row of sampling parameters never allocates. */
enum { MI_MAX_BIASES = 300 };
typedef struct {
    int32_t n;
    struct { int32_t id; float bias; } at[MI_MAX_BIASES];
} MiBiases;

/* A view: data is borrowed, never owned.  The first dimension is the rows. */
typedef struct {
    void   *data;
    MiDType dtype;
    int     ndim;
    int64_t shape[4];
    int64_t stride[4]; /* in elements */
} MiTensor;

/* The bucket a step was padded to.  Two steps of equal shape launch the same
 * kernels with the same grids: a captured graph is keyed by exactly this. */
typedef struct {
    int32_t n_tokens; /* rows of the activations */
    int32_t n_seqs;
    int32_t n_out;  /* rows whose logits are wanted */
    int32_t max_kv; /* upper bound of kv_len over the batch */
    bool    decode; /* one token a sequence */
} MiShape;

/* One step's metadata.  The arrays live on the device, at addresses that stay
 * put for the engine's life; only what they hold changes.  A slot is a
 * sequence's row in every table that outlives the step; -1 is padding. */
typedef struct {
    MiShape        shape;
    const int32_t *tokens;    /* [n_tokens] read through mi_batch_token() */
    const int32_t *positions; /* [n_tokens] */
    const int32_t *seq_start; /* [n_seqs + 1] first row of each sequence */
    const int32_t *out_rows;  /* [n_out] */
    const int32_t *out_slot;  /* [n_out] */
    const int32_t *targets;   /* [n_out] whose log probability is wanted; -1: the one drawn */
    int32_t       *drawn;     /* [max_seqs] by slot: the token drawn last */
    const int32_t *history;   /* [max_seqs][max_history] by slot: prompt, then drawn; read by mi_batch_history() */
    int32_t        max_history;
    const int32_t *n_prompt;  /* [max_seqs] by slot: how many of its history are prompt */
} MiBatch;

/* A step is prepared while the one before it still runs: a token that the
 * host does not know yet stands in tokens[] as -1 - slot. */
MI_INLINE int32_t mi_batch_token(const MiBatch *b, int row)
{
    int32_t t = b->tokens[row];
    return t >= 0 ? t : b->drawn[-1 - t];
}

/* Token i of what the sequence in a slot has said so far; the newest may be one the host does not know. */
MI_INLINE int32_t mi_batch_history(const MiBatch *b, int slot, int i)
{
    int32_t t = b->history[(int64_t)slot * b->max_history + i];
    return t >= 0 ? t : b->drawn[-1 - t];
}

/* Where one layer's keys and values live: every cache layout in one struct.
 *
 *   contiguous    block_size = capacity, block_table = NULL, kv_start = NULL
 *   tail-aligned  as above, kv_start[s] = left padding of sequence s
 *   paged         block_size = page, block_table[s * max_blocks + i] = page
 */
typedef struct {
    void          *k, *v;
    MiDType        dtype;
    int            n_kv_heads, head_dim;
    int64_t        stride_block, stride_token, stride_head; /* in elements */
    int            block_size, max_blocks;
    const int32_t *block_table; /* [n_seqs][max_blocks], or NULL: block = sequence */
    const int32_t *kv_start;    /* [n_seqs] first valid position, or NULL: 0 */
    const int32_t *kv_len;      /* [n_seqs] one past the last valid position */
    const int32_t *slots;       /* [n_tokens] where each new row goes, -1: nowhere */
    void          *scales; /* of MI_F8 and MI_I8: bf16 [][2], of a key and of a value, at mi_kv_offset() / head_dim; an
                            * element is what is stored times its scale.  NULL else */
    const void    *ext; /* layouts named by third parties */
} MiKvView;

/* Element offset of position t, head h, of sequence s.  The single place
 * where the layouts meet. */
MI_INLINE int64_t mi_kv_offset(const MiKvView *kv, int s, int t, int h)
{
    const uint32_t size = (uint32_t)kv->block_size, in_seq = (uint32_t)t / size;
    const int64_t  block = kv->block_table ? kv->block_table[s * (int64_t)kv->max_blocks + in_seq] : s;
    return block * kv->stride_block + ((uint32_t)t - in_seq * size) * kv->stride_token + h * kv->stride_head;
}

#endif
