/* quant_tiles.cuh - what the kernels of quant_rows.h share: a block has a tile of 128 rows of W and a part of the
 * columns, the blocks of a cluster the other parts; W comes through a ring of stages, a box of a tensor map for each, since a copy for
 * each of its 16 records would cost 75 to 120 ns; at the end each block gets what the others of its cluster have for its share of y's rows. */
#ifndef KERNELS_CUDA_QUANT_TILES_CUH
#define KERNELS_CUDA_QUANT_TILES_CUH

#include "boxes.cuh"
#include "gemv_parts.cuh"
#include "quant_rows.h"

namespace mi_quant_rows
{

using namespace mi_gemv;

constexpr int OCTET = MI_QUANT_ROWS, COLUMNS = MI_QUANT_COLUMNS, RING = 16; /* stages at most */
constexpr int TILE = 128, RECORDS = TILE / OCTET, MOST_PARTS = 4;
constexpr int ELEMENT = 8, BOX = 256;                    /* bytes of a box's elements, most in a row */
constexpr int FULL = 0, FREED = RING * 8, START = 1024; /* in shared memory */

struct Product {
    CUtensorMap  map;   /* of w: a stage's share is one box */
    CUtensorMap  map_x; /* of x as it is, where a kernel takes that */
    const char  *w, *x; /* x: of the kernel's form */
    const float *sums;  /* of x: [chunk][groups][N], where there are zeros */
    const float *bias;
    char        *y;
    int64_t      record, y_stride;
    int32_t      out, rows; /* of y */
    int32_t      chunks, chunk, groups;
    int32_t      parts, slice, stages, stage_bytes, flight; /* parts of the columns: blocks of a cluster */
    int32_t      x_at, sums_at, sums_bytes;                 /* in a stage, behind W; of a chunk */
    int32_t      boxes;                                     /* of 64 columns of x in a request */
    int32_t      x_stages;                                  /* where x has a ring of its own */
    int32_t      shares;                                    /* in shared memory, behind the ring: what other blocks have */
    bool         zeros, minima, per_row, y_f32, fours;      /* fours: of y are aligned */
};

#if __CUDA_ARCH__ >= 900

/* ---- numbers: W as bf16, exact ------------------------------------------------------------- */

__device__ __forceinline__ unsigned minus(unsigned p, unsigned q)
{
    const __nv_bfloat162 d = __hsub2(*(const __nv_bfloat162 *)&p, *(const __nv_bfloat162 *)&q);
    return *(const unsigned *)&d;
}
/* Two of four bytes, the first of them at `first`: 0x43 before seven bits is 128 and them.  nibbles: q + 8 in each byte. */
__device__ __forceinline__ unsigned nibbles_at(unsigned nibbles, int first)
{
    return minus(__byte_perm(nibbles, 0x43434343, first ? 0x4342 : 0x4140), 0x43084308);
}
/* bytes: q; its sign is worth 128, which the lowest bit of the exponent gives. */
__device__ __forceinline__ unsigned bytes_at(unsigned bytes, int first)
{
    const unsigned p = __byte_perm(bytes, 0x43434343, first ? 0x4342 : 0x4140);
    return minus(p & 0xff7fff7f, p & 0xff80ff80);
}

/* Step s of the eight of a chunk, of what a lane has of a record: its columns of the operand's first and second half. */
template <int BITS> __device__ __forceinline__ void widen(const uint4 *v, int s, unsigned &first, unsigned &second)
{
    const unsigned *w = (const unsigned *)v;
    const unsigned  n = BITS == 8 ? w[s] : (w[s / 2] >> s % 2 * 4 & 0x0f0f0f0f) ^ 0x08080808;

    first = BITS == 8 ? bytes_at(n, 0) : nibbles_at(n, 0);
    second = BITS == 8 ? bytes_at(n, 2) : nibbles_at(n, 2);
}

/* ---- copies ----------------------------------------------------------------------------------- */

__device__ __forceinline__ void load_box(void *to, const CUtensorMap *map, int column, int row, uint64_t *bar, uint64_t policy)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, {%2, "
                 "%3}], [%4], %5;" ::"r"(shared_address(to)),
                 "l"(map), "r"(column), "r"(row), "r"(shared_address(bar)), "l"(policy)
                 : "memory");
}

__device__ __forceinline__ void load_boxes(void *to, const CUtensorMap *map, int column, int box, uint64_t *bar)
{
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, 0, %3}], [%4];" ::"r"(
                     shared_address(to)),
                 "l"(map), "r"(column), "r"(box), "r"(shared_address(bar))
                 : "memory");
}

using mi_boxes::fetch_map;

#endif

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/* ---- products of a warpgroup ------------------------------------------------------------------- */

/* d[64][N] (+)= a[64][16] b[16][N], both along the sum, a in registers. */
template <int N> struct Mma;
#define LIST4(X, i) X(i), X(i + 1), X(i + 2), X(i + 3)
#define LIST16(X, i) LIST4(X, i), LIST4(X, i + 4), LIST4(X, i + 8), LIST4(X, i + 12)
#define ACC(i) "+f"(d[i])
#define MMA(N, LIST, NAMES, A0, A1, A2, A3, B, ADD) \
    template <> struct Mma<N> { \
        static __device__ __forceinline__ void run(float (&d)[N / 2], const unsigned (&a)[4], uint64_t b, int add) \
        { \
            asm volatile("{ .reg .pred p; setp.ne.b32 p, %" ADD ", 0; " \
                         "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32.bf16.bf16 {" NAMES "}, {%" A0 ", %" A1 ", %" A2 \
                         ", %" A3 "}, %" B ", p, 1, 1, 0; }" \
                         : LIST \
                         : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add)); \
        } \
    };
#define N8 "%0, %1, %2, %3, %4, %5, %6, %7"
#define N16 N8 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define N32 N16 ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define ACC16 LIST16(ACC, 0)
#define ACC32 LIST16(ACC, 0), LIST16(ACC, 16)
MMA(32, ACC16, N16, "16", "17", "18", "19", "20", "21")
MMA(64, ACC32, N32, "32", "33", "34", "35", "36", "37")
#undef MMA
#undef N8
#undef N16
#undef N32
#undef ACC
#undef ACC16
#undef ACC32
#undef LIST4
#undef LIST16

#endif

/* ---- launching --------------------------------------------------------------------------------- */

typedef void (*Kernel)(Product);

/* Of the matrix and the card; what follows for the cluster. */
static inline void set_shape(Product *a, MiQuantForm f, int64_t in, int64_t out, int sms)
{
    const int tiles = (int)((out + TILE - 1) / TILE);

    a->chunks = (int)mi_quant_chunks(in);
    a->chunk = mi_quant_chunk(f);
    a->groups = f.group ? mi_quant_groups(f) : 1;
    a->parts = 1;
    while (a->parts < MOST_PARTS && 2 * a->parts * tiles <= sms && 2 * a->parts <= a->chunks)
        a->parts *= 2;
}

/* Stages, of a->stage_bytes, of the ring that fits before `behind` bytes, whose memory is `least` bytes at least; the shared memory
 * in all, or 0: it does not fit. */
static inline int set_ring(Product *a, int behind, int least, int most)
{
    const int needed = ((a->chunks + a->parts - 1) / a->parts + a->slice - 1) / a->slice;

    a->stages = (most - START - behind) / a->stage_bytes;
    a->stages = a->stages < RING ? a->stages : RING;
    a->stages = a->stages < needed ? a->stages : needed;
    const int ring = a->stages * a->stage_bytes;
    a->shares = START + (ring > least ? ring : least);
    return a->stages < 1 || a->shares + behind > most ? 0 : a->shares + behind;
}

/* What only a launch knows.  An encoder's error, or 0. */
static inline int set_operands(Product *a, MiQuantForm f, int64_t in, const void *w, const float *bias, MiTensor y)
{
    const int64_t out = y.shape[1];

    a->w = (const char *)w;
    a->bias = bias;
    a->y = (char *)y.data;
    a->y_stride = y.stride[0];
    a->y_f32 = y.dtype == MI_F32;
    a->fours = y.stride[0] % 4 == 0 && (uintptr_t)y.data % 16 == 0;
    a->record = mi_quant_record(f, in);
    a->out = (int)out;
    a->rows = (int)y.shape[0];
    a->zeros = f.zeros;
    a->minima = f.minima;
    a->per_row = !f.group;
    const cuuint64_t size[2] = {(cuuint64_t)(a->record / ELEMENT), (cuuint64_t)((out + OCTET - 1) / OCTET)};
    const cuuint64_t stride[1] = {(cuuint64_t)a->record};
    const cuuint32_t box[2] = {(cuuint32_t)(a->slice * a->chunk / ELEMENT), RECORDS}, each[2] = {1, 1};
    return mi_boxes::card().encode(&a->map, CU_TENSOR_MAP_DATA_TYPE_FLOAT64, 2, (void *)w, size, stride, box, each,
                                   CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_NONE,
                                   CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE)
               ? cudaErrorInvalidValue
               : 0;
}

/* Rows of x that a kernel has. */
static inline int width_of(int64_t rows) { return rows <= 32 ? 32 : 64; }

/* No groups within a chunk, no zeros. */
static inline bool is_usual(MiQuantForm f) { return !f.zeros && f.group == (f.bits == 4 ? COLUMNS : 0); }

/* quant_rows_mma.cu: whether these rows are its; it takes x as it is. */
bool is_for_mma(MiQuantForm, int64_t rows);
int mma_takes(MiQuantForm, int64_t rows, int64_t in, int64_t out);
int multiply_by_mma(void *stream, MiQuantForm, MiTensor x, const void *w, const float *bias, MiTensor y);

/* quant_rows_wgmma.cu, likewise. */
bool is_for_wgmma(MiQuantForm, int64_t rows);
int wgmma_takes(MiQuantForm, int64_t rows, int64_t in, int64_t out);
int multiply_by_wgmma(void *stream, MiQuantForm, MiTensor x, const void *w, const float *bias, MiTensor y);

/* A kernel that takes x as it is, n rows of it: how it is launched.  bytes: of shared memory; 0: it was not laid out. */
struct Launch {
    Kernel kernel;
    int    n, threads, bytes;
};
int start(void *stream, Launch, Product *a, MiQuantForm, MiTensor x, const void *w, const float *bias, MiTensor y);
constexpr int BOX_COLUMNS = 64; /* of x's boxes */

} // namespace mi_quant_rows
#endif
