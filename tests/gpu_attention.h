/* gpu_attention.h - one call of attention on a card, made up: what
 * gpu_attention.c compares and what it times. */
#ifndef TESTS_GPU_ATTENTION_H
#define TESTS_GPU_ATTENTION_H

#include <cuda/attention.h>
#include <cuda_runtime_api.h>

enum { MAX_SEQS = 256 };
typedef enum { CONTIGUOUS, TAIL, PAGED, N_LAYOUTS } Layout;
typedef enum { SIMPLE, GQA, FLASH, N_KERNELS } Kernel;

typedef struct {
    int     n_seqs, rows[MAX_SEQS], len[MAX_SEQS]; /* the last rows of len positions; len 0: padding */
    int     dim, heads, kv_heads, page, max_kv, room;    /* max_kv 0: the longest; room: positions of a MiCudaWide, 0: all */
    MiDType dtype, kv_dtype;
    Layout  layout;
    float   softcap;
    int     window;
    bool    bidirectional, decode, blank; /* blank: the cache is of one value, for timings */
} Case;

/* Everything on the device; free with world_free(). */
typedef struct {
    MiCudaAttention call;
    void           *k, *v, *q, *out, *ints, *workspace, *scales;
    MiCudaWide      wide;
    size_t          side, scale_bytes, out_bytes;
    int             n_tokens, starts[MAX_SEQS + 1];
} World;

void  world_make(World *w, const Case *c);
void  world_free(World *w);
/* Row r of the case's k (side 0), v (1) or q (2), as the device has it: where it lies in a table of values. */
const float *world_row(const Case *c, int side, int seq, int t, int head);
/* What a row of k or v is multiplied with; 1 but for caches with scales. */
float world_scale(const Case *c, int side, int seq, int t, int head);
int   world_run(World *w, Kernel kernel, const Case *c, cudaStream_t stream);
void  must(int code, const char *what);
float bench_all(void);

extern const char *const kernel_names[];

#endif
