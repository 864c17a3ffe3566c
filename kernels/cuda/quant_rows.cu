/* quant_rows.cu - the products of quant_rows.h.
 *
 * Two records of W are 16 rows of a warp's share of wgmma.m64nNk16, whose first operand is in registers: integers as
 * bf16, exact.  Of eight of its columns a lane has the same two pairs that the packed form gives it, so the columns of x change
 * places instead, once, in a kernel before: [chunk][unit of eight][rows of x][unit], which is how wgmma reads
 * its second operand from shared memory.  A group's sum is multiplied by its scale in f32.
 *
 * A block has a tile of 128 rows of W and a part of the columns, the blocks of a cluster the other
 * parts.  W and x go through a ring: W is requested before the predecessor is done, x after that.  A stage's 16 pieces
 * of records are one request: a copy for each costs 75 to 120 ns.  At the end the blocks of a cluster add up each other's sums, in the order of their parts. */
#include "boxes.cuh"
#include "gemv_parts.cuh"
#include "quant_rows.h"

using namespace mi_gemv;

constexpr int OCTET = MI_QUANT_ROWS, COLUMNS = MI_QUANT_COLUMNS, WARPS = 8, RING = 16; /* stages at most */
constexpr int ELEMENT = 8, BOX = 256;                                                  /* bytes of a box's elements, most in a row */
constexpr int FULL = 0, FREED = RING * 8, START = 256;                                /* in shared memory */

constexpr int TILE = 2 * OCTET * WARPS, MOST_PARTS = 4;
/* Registers for two blocks on a multiprocessor, where they suffice. */
template <bool ANY, int N> constexpr int PER_SM = ANY && N == 64 ? 1 : 2;

struct Product {
    CUtensorMap  map;   /* of w: a stage's share is one box */
    const char  *w, *x; /* x: of this kernel's form */
    const float *sums;  /* of x: [chunk][groups][N], where there are zeros */
    const float *bias;
    char        *y;
    int64_t      record, y_stride;
    int32_t      out, rows; /* of y */
    int32_t      chunks, chunk, groups;
    int32_t      parts, slice, stages, stage_bytes, flight; /* parts of the columns: blocks of a cluster */
    int32_t      x_at, sums_at, sums_bytes;         /* in a stage, behind W; of a chunk */
    bool         zeros, minima, per_row, y_f32;
};

/* ---- x ---------------------------------------------------------------------------------------- */

/* A warp has a chunk of eight rows, or of rows that are not there: zeros. */
static __global__ void __launch_bounds__(128) arrange(const bf16 *x, int64_t stride, int rows, int in, char *to,
                                                      float *sums, int n, int group)
{
    const int warp = blockIdx.x * 4 + threadIdx.x / 32, eights = n / 8, chunk = warp / eights, eight = warp % eights;
    const int lane = threadIdx.x % 32, t = lane % 4, m = eight * 8 + lane / 4;
    uint4     v[4] = {};
    float     sum = 0;

    let_successor_start();
    wait_for_predecessor();
    if (chunk * COLUMNS >= in)
        return;
#pragma unroll
    for (int j = 0; j < 4; j++) {
        const int k = chunk * COLUMNS + j * 32 + t * 8;
        if (m < rows && k < in)
            v[j] = __ldcg((const uint4 *)(x + m * stride + k));
    }
    unsigned *at = (unsigned *)(to + (int64_t)chunk * n * COLUMNS * 2) + eight * 32 + lane;
#pragma unroll
    for (int j = 0; j < 4; j++) {
        const unsigned *w = (const unsigned *)&v[j];
#pragma unroll
        for (int i = 0; i < 4; i++) { /* step 2 j + i / 2, unit i % 2 of it */
            const float2 p = unpack(w[i], bf16());
            at[(j * 4 + i) * n * 4] = w[i];
            sum += p.x + p.y;
        }
        if (sums && (j + 1) * 32 % group == 0) {
            sum += __shfl_xor_sync(~0u, sum, 1);
            sum += __shfl_xor_sync(~0u, sum, 2);
            if (t == 0)
                sums[(chunk * (COLUMNS / group) + j * 32 / group) * n + m] = sum;
            sum = 0;
        }
    }
}

/* ---- the product -------------------------------------------------------------------------------- */

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/* d[64][N] (+)= a[64][16] b[16][N], both along the sum, b without swizzle: units of eight rows, 128 bytes, and N of them to the
 * next eight columns. */
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
#define ACC8 LIST4(ACC, 0), LIST4(ACC, 4)
#define ACC16 LIST16(ACC, 0)
#define ACC32 LIST16(ACC, 0), LIST16(ACC, 16)
MMA(16, ACC8, N8, "8", "9", "10", "11", "12", "13")
MMA(32, ACC16, N16, "16", "17", "18", "19", "20", "21")
MMA(64, ACC32, N32, "32", "33", "34", "35", "36", "37")
#undef MMA
#undef N8
#undef N16
#undef N32
#undef ACC
#undef ACC8
#undef ACC16
#undef ACC32
#undef LIST4
#undef LIST16

template <int N> __device__ __forceinline__ uint64_t operand_at(unsigned at)
{
    return (uint64_t)((at & 0x3ffff) >> 4) | (uint64_t)N << 16 | (uint64_t)(128 >> 4) << 32;
}

/* Two of the four bytes of w, the first of them at `first`, as bf16: 0x43 before seven bits is 128 and them. */
__device__ __forceinline__ unsigned minus(unsigned p, unsigned q)
{
    const __nv_bfloat162 d = __hsub2(*(const __nv_bfloat162 *)&p, *(const __nv_bfloat162 *)&q);
    return *(const unsigned *)&d;
}
/* nibbles: q + 8 in each byte. */
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

/* What a lane has of a chunk of two records, from step `from` on: [step][operand]. */
template <int BITS, int STEPS> __device__ __forceinline__ void load_duo(unsigned p, unsigned q, int from, unsigned (&a)[STEPS][4])
{
#pragma unroll
    for (int r = 0; r < 2; r++) {
        uint4 v[BITS / 4];
#pragma unroll
        for (int i = 0; i < BITS / 4; i++) {
            v[i] = load_shared((r ? q : p) + i * 512);
        }
        const unsigned *w = (const unsigned *)v;
#pragma unroll
        for (int i = 0; i < STEPS; i++) {
            const int      s = from + i;
            const unsigned n = BITS == 8 ? 0 : (w[s / 2] >> s % 2 * 4 & 0x0f0f0f0f) ^ 0x08080808;
            a[i][r] = BITS == 8 ? bytes_at(w[s], 0) : nibbles_at(n, 0);
            a[i][2 + r] = BITS == 8 ? bytes_at(w[s], 2) : nibbles_at(n, 2);
        }
    }
}

__device__ __forceinline__ void meet_all()
{
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}

__device__ __forceinline__ float4 four_in(unsigned at, int block)
{
    unsigned there;
    float4   v;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(at), "r"(block));
    asm volatile("ld.shared::cluster.v4.f32 {%0,%1,%2,%3}, [%4];"
                 : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
                 : "r"(there)
                 : "memory");
    return v;
}

__device__ __forceinline__ void load_box(void *to, const CUtensorMap *map, int column, int row, uint64_t *bar, uint64_t policy)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, {%2, "
                 "%3}], [%4], %5;" ::"r"(shared_address(to)),
                 "l"(map), "r"(column), "r"(row), "r"(shared_address(bar)), "l"(policy)
                 : "memory");
}

/* The thread that fills the ring. */
template <int N> __device__ __forceinline__ void produce(const Product &a, char *smem, int first, int n)
{
    constexpr int  RECORDS = 2 * WARPS;
    const int      octet = (int)(blockIdx.x / a.parts) * RECORDS, stages = (n + a.slice - 1) / a.slice;
    const uint64_t policy = evict_first_policy();
    auto           request = [&](int s, bool of_w, bool of_x) {
        const int slot = s % a.stages, from = first + s * a.slice, chunks = min(a.slice, n - s * a.slice);
        uint64_t *full = (uint64_t *)(smem + FULL) + slot;
        char     *to = smem + START + slot * a.stage_bytes;
        if (of_w) { /* whole boxes: what is outside of the matrix comes as zeros */
            barrier_expect(full, RECORDS * a.slice * a.chunk + chunks * (N * COLUMNS * 2 + a.sums_bytes));
            load_box(to, &a.map, from * (a.chunk / ELEMENT), octet, full, policy);
        }
        if (of_x) {
            bulk_load(to + a.x_at, a.x + (int64_t)from * N * COLUMNS * 2, chunks * N * COLUMNS * 2, full);
            if (a.sums_bytes)
                bulk_load(to + a.sums_at, (const char *)a.sums + (int64_t)from * a.sums_bytes, chunks * a.sums_bytes,
                                    full);
        }
    };

    /* A burst of all that the ring holds would queue in front of what the predecessor still reads. */
    const int early = min(a.flight, min(a.stages, stages));
    for (int s = 0; s < early; s++)
        request(s, true, false);
    wait_for_predecessor();
    for (int s = 0; s < min(a.stages, stages); s++)
        request(s, s >= early, true);
    for (int s = a.stages; s < stages; s++) {
        barrier_wait((uint64_t *)(smem + FREED) + s % a.stages, (s / a.stages - 1) & 1);
        request(s, true, true);
    }
}

/* Steps `from` to `end` of those that a has, whose first is at x, into d; waits until all are there. */
template <int N, int STEPS>
__device__ __forceinline__ void multiply(float (&d)[N / 2], const unsigned (&a)[STEPS][4], uint64_t x, int from, int end, bool add)
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
    for (int s = 0; s < STEPS; s++) {
        if (s >= from && s < end)
            Mma<N>::run(d, a[s], x + (uint64_t)(s * 2 * N), add || s > from);
    }
    asm volatile("wgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 0;" ::: "memory");
#pragma unroll
    for (int i = 0; i < N / 2; i++)
        asm volatile("" : "+f"(d[i])::"memory");
}

/* A chunk, in pieces that fit the registers. */
template <int BITS, int N>
__device__ __forceinline__ void multiply_chunk(float (&d)[N / 2], unsigned p, unsigned q, uint64_t x, bool add)
{
    constexpr int STEPS = N < 64 ? 8 : 4;
#pragma unroll
    for (int from = 0; from < 8; from += STEPS) {
        unsigned operand[STEPS][4];
        load_duo<BITS>(p, q, from, operand);
        multiply<N>(d, operand, x + (uint64_t)(from * 2 * N), 0, STEPS, add || from);
    }
}

/* ANY: groups, zeros; else a scale for the chunk (4 bit) or the row (8 bit). */
template <int BITS, bool ANY, int N>
__global__ void __launch_bounds__((WARPS + 1) * 32, PER_SM<ANY, N>) products(const __grid_constant__ Product a)
{
    extern __shared__ __align__(128) char smem[];
    constexpr int VALUES = BITS * OCTET * COLUMNS / 8, PITCH = TILE + 4;
    const int     tid = threadIdx.x, lane = tid % 32, g = lane / 4, t = lane % 4, warp = tid / 32;
    const int     part = blockIdx.x % a.parts, tile = blockIdx.x / a.parts;
    const int     first = a.chunks * part / a.parts, n = a.chunks * (part + 1) / a.parts - first;
    const bool    per_row = BITS == 8 && (!ANY || a.per_row);

    let_successor_start();
    if (tid < a.stages) {
        barrier_init((uint64_t *)(smem + FULL) + tid, 1);
        barrier_init((uint64_t *)(smem + FREED) + tid, WARPS);
        barrier_init_done();
    }
    __syncthreads();
    float y[N / 2] = {}, row_scale[2] = {}, row_zero[2] = {}; /* rows g, 8 + g */
    if (warp == WARPS) {
        if (lane == 0)
            produce<N>(a, smem, first, n);
        __syncwarp();
    } else {
        if (per_row) {
#pragma unroll
            for (int r = 0; r < 2; r++) {
                const int octet = tile * TILE / OCTET + 2 * warp + r;
                if (octet * OCTET < a.out) {
                    const float *end = (const float *)(a.w + octet * a.record + (int64_t)a.chunks * a.chunk);
                    row_scale[r] = end[g];
                    row_zero[r] = ANY && a.zeros ? end[OCTET + g] : 0;
                }
            }
        }
        wait_for_predecessor();
        const unsigned ring = shared_address(smem) + START;
#pragma unroll 1
        for (int s = 0, slot = 0, phase = 0; s * a.slice < n; s++) {
            const unsigned at = ring + slot * a.stage_bytes;
            const int      chunks = min(a.slice, n - s * a.slice);
            barrier_wait((uint64_t *)(smem + FULL) + slot, phase);
#pragma unroll 1
            for (int c = 0; c < chunks; c++) {
                const uint64_t x = operand_at<N>(at + a.x_at + c * N * COLUMNS * 2);
                const unsigned p = at + (2 * warp * a.slice + c) * a.chunk, q = p + a.slice * a.chunk;
                const unsigned scales[2] = {p + VALUES + g * 2, q + VALUES + g * 2};
                float          d[N / 2];
                if (BITS == 8 && !ANY) {
                    multiply_chunk<BITS, N>(y, p + lane * 16, q + lane * 16, x, true);
                    continue;
                }
                if (!ANY) {
                    const float scale[2] = {half_at(scales[0]), half_at(scales[1])};
                    multiply_chunk<BITS, N>(d, p + lane * 16, q + lane * 16, x, false);
#pragma unroll
                    for (int k = 0; k < N / 2; k++)
                        y[k] = fmaf(scale[k / 2 % 2], d[k], y[k]);
                    continue;
                }
                unsigned sums = at + a.sums_at + c * a.sums_bytes + t * 8;
                unsigned operand[8][4];
                load_duo<BITS>(p + lane * 16, q + lane * 16, 0, operand);
#pragma unroll 1
                for (int group = 0; group < a.groups; group++) {
                    float scale[2] = {1, 1}, zero[2] = {row_zero[0], row_zero[1]};
                    if (a.groups == 1)
                        multiply<N>(d, operand, x, 0, 8, false);
                    else if (a.groups == 2 && group == 0)
                        multiply<N>(d, operand, x, 0, 4, false);
                    else if (a.groups == 2)
                        multiply<N>(d, operand, x, 4, 8, false);
                    else if (group == 0)
                        multiply<N>(d, operand, x, 0, 2, false);
                    else if (group == 1)
                        multiply<N>(d, operand, x, 2, 4, false);
                    else if (group == 2)
                        multiply<N>(d, operand, x, 4, 6, false);
                    else
                        multiply<N>(d, operand, x, 6, 8, false);
                    if (!per_row) {
#pragma unroll
                        for (int r = 0; r < 2; r++) {
                            scale[r] = half_at(scales[r] + group * OCTET * 2);
                            if (a.zeros) {
                                const float z = half_at(scales[r] + (a.groups + group) * OCTET * 2);
                                zero[r] = a.minima ? fmaf(8, scale[r], z) : scale[r] * z;
                            }
                        }
                    }
#pragma unroll
                    for (int k = 0; k < N / 2; k++)
                        y[k] = fmaf(scale[k / 2 % 2], d[k], y[k]);
                    if (a.zeros) {
#pragma unroll
                        for (int k = 0; k < N / 8; k++) {
                            const float2 sum = pair_at(sums + k * 32);
#pragma unroll
                            for (int r = 0; r < 2; r++) {
                                y[4 * k + 2 * r] = fmaf(zero[r], sum.x, y[4 * k + 2 * r]);
                                y[4 * k + 2 * r + 1] = fmaf(zero[r], sum.y, y[4 * k + 2 * r + 1]);
                            }
                        }
                        sums += N * 4;
                    }
                }
            }
            __syncwarp();
            if (lane == 0)
                barrier_arrive((uint64_t *)(smem + FREED) + slot);
            if (++slot == a.stages) {
                slot = 0;
                phase ^= 1;
            }
        }
    }
    __syncthreads(); /* all of the ring is read: sums take its place, [row of x][row of W] */
    float *sums = (float *)(smem + START);
    if (warp < WARPS) {
#pragma unroll
        for (int k = 0; k < N / 2; k++) {
            const int r = k / 2 % 2, row = (2 * warp + r) * OCTET + g;
            sums[(k / 4 * 8 + t * 2 + k % 2) * PITCH + row] = per_row ? row_scale[r] * y[k] : y[k];
        }
    }
    if (a.parts > 1)
        meet_all();
    else
        __syncthreads();
    const int share = a.rows * TILE / 4 / a.parts; /* fours of rows of W */
#pragma unroll 1
    for (int i = tid; i < share; i += (WARPS + 1) * 32) {
        const int      at = i + part * share, m = at / (TILE / 4), in_tile = at % (TILE / 4) * 4, row = tile * TILE + in_tile;
        const unsigned from = shared_address(sums + m * PITCH + in_tile);
        float4         v[MOST_PARTS], sum = {0, 0, 0, 0};
#pragma unroll
        for (int p = 0; p < MOST_PARTS; p++)
            v[p] = p < a.parts ? four_in(from, p) : float4{0, 0, 0, 0};
#pragma unroll
        for (int p = 0; p < MOST_PARTS; p++)
            sum = {sum.x + v[p].x, sum.y + v[p].y, sum.z + v[p].z, sum.w + v[p].w};
        const float each[4] = {sum.x, sum.y, sum.z, sum.w};
#pragma unroll
        for (int k = 0; k < 4; k++) {
            const float s = each[k] + (a.bias && row + k < a.out ? a.bias[row + k] : 0);
            if (row + k >= a.out)
                continue;
            if (a.y_f32)
                ((float *)a.y)[m * a.y_stride + row + k] = s;
            else
                ((bf16 *)a.y)[m * a.y_stride + row + k] = from_float<bf16>(s);
        }
    }
    if (a.parts > 1)
        meet_all(); /* nobody leaves while its sums are read */
}

#else

template <int BITS, bool ANY, int N> __global__ void products(const __grid_constant__ Product a) { (void)a; }

#endif

/* ---- launching -------------------------------------------------------------------------------------- */

/* Rows of x that a kernel has. */
static int width_of(int64_t rows) { return rows <= 16 ? 16 : rows <= 32 ? 32 : 64; }
static int groups_of(MiQuantForm f) { return f.group ? mi_quant_groups(f) : 1; }

extern "C" size_t mi_cuda_quant_split_bytes(MiQuantForm f, int64_t rows, int64_t in)
{
    return (size_t)(mi_quant_chunks(in) * width_of(rows)) * (COLUMNS * 2 + (f.zeros ? 4 * (size_t)groups_of(f) : 0));
}

extern "C" int mi_cuda_quant_split(void *stream, MiQuantForm f, MiTensor x, void *to)
{
    const int64_t rows = x.shape[0], in = x.shape[1], chunks = mi_quant_chunks(in);
    const int     n = width_of(rows);
    float        *sums = f.zeros ? (float *)((char *)to + chunks * n * COLUMNS * 2) : NULL;

    return mi_launch(arrange, dim3((unsigned)((chunks * n / 8 + 3) / 4)), dim3(128), 0, stream, (const bf16 *)x.data,
                     x.stride[0], (int)rows, (int)in, (char *)to, sums, n, f.group ? f.group : COLUMNS);
}

typedef void (*Kernel)(Product);

template <int BITS, bool ANY> static Kernel kernel_of(int n)
{
    return n == 16 ? products<BITS, ANY, 16> : n == 32 ? products<BITS, ANY, 32> : products<BITS, ANY, 64>;
}

static Kernel kernel_for(MiQuantForm f, int n)
{
    const bool any = f.zeros || f.group != (f.bits == 4 ? 128 : 0);

    if (f.bits == 4)
        return any ? kernel_of<4, true>(n) : kernel_of<4, false>(n);
    return any ? kernel_of<8, true>(n) : kernel_of<8, false>(n);
}

static void lay_out_stage(Product *a, int slice, int n)
{
    a->slice = slice;
    a->x_at = (TILE / OCTET * slice * a->chunk + 127) / 128 * 128;
    a->sums_at = a->x_at + slice * n * COLUMNS * 2;
    a->stage_bytes = (a->sums_at + slice * a->sums_bytes + 127) / 128 * 128;
}

/* Fills what the layout decides; the shared memory, or 0: it does not fit. */
static int lay_out(Product *a, MiQuantForm f, int64_t rows, int64_t in, int64_t out, int sms, int most)
{
    const int n = width_of(rows), tiles = (int)((out + TILE - 1) / TILE), sums = n * (TILE + 4) * (int)sizeof(float);

    a->chunks = (int)mi_quant_chunks(in);
    a->chunk = mi_quant_chunk(f);
    a->groups = groups_of(f);
    a->sums_bytes = f.zeros ? a->groups * n * (int)sizeof(float) : 0;
    a->parts = 1;
    while (a->parts < MOST_PARTS && 2 * a->parts * tiles <= sms && 2 * a->parts <= a->chunks)
        a->parts *= 2;
    /* A part of the columns has so many chunks at most; a stage is 40 KB or so, and one box. */
    const int share = (a->chunks + a->parts - 1) / a->parts;
    lay_out_stage(a, 1, n);
    int slice = (40 << 10) / a->stage_bytes;
    slice = slice < BOX * ELEMENT / a->chunk ? slice : BOX * ELEMENT / a->chunk;
    slice = slice < share ? slice : share;
    lay_out_stage(a, slice > 1 ? slice : 1, n);
    a->stages = (most - START) / a->stage_bytes;
    a->stages = a->stages < RING ? a->stages : RING;
    const int needed = (share + a->slice - 1) / a->slice;
    a->stages = a->stages < needed ? a->stages : needed;
    a->flight = (56 << 10) / a->stage_bytes;
    a->flight = a->flight > 1 ? a->flight : 1;
    const int ring = a->stages * a->stage_bytes, bytes = START + (ring > sums ? ring : sums);
    return a->stages < 1 || bytes > most ? 0 : bytes;
}

extern "C" int mi_cuda_quant_rows_takes(MiQuantForm f, int64_t rows, int64_t in, int64_t out)
{
    const mi_boxes::Card &c = mi_boxes::card();
    Product               a = {};

    if (!c.encode || (f.bits != 4 && f.bits != 8) || f.levels || f.scales || rows < 1 || rows > MI_QUANT_MOST || in < 8 ||
        in % 8 || out < 1 || in > 1 << 20 || out > 1 << 24)
        return cudaErrorNotSupported;
    const int bytes = lay_out(&a, f, rows, in, out, c.sms, c.smem);
    return bytes ? mi_allow_smem(kernel_for(f, width_of(rows)), (size_t)bytes) : (int)cudaErrorNotSupported;
}

extern "C" int mi_cuda_quant_rows(void *stream, MiQuantForm f, const void *from, int64_t in, const void *w,
                                  const float *bias, MiTensor y)
{
    const mi_boxes::Card &c = mi_boxes::card();
    const int64_t         rows = y.shape[0], out = y.shape[1];
    const int             n = width_of(rows);
    Product               a = {};
    const int             bytes = c.encode ? lay_out(&a, f, rows, in, out, c.sms, c.smem) : 0;

    if (!bytes)
        return cudaErrorNotSupported;
    a.w = (const char *)w;
    a.x = (const char *)from;
    a.sums = (const float *)(a.x + (int64_t)a.chunks * n * COLUMNS * 2);
    a.bias = bias;
    a.y = (char *)y.data;
    a.y_stride = y.stride[0];
    a.y_f32 = y.dtype == MI_F32;
    a.record = mi_quant_record(f, in);
    a.out = (int)out;
    a.rows = (int)rows;
    a.zeros = f.zeros;
    a.minima = f.minima;
    a.per_row = !f.group;
    const cuuint64_t size[2] = {(cuuint64_t)(a.record / ELEMENT), (cuuint64_t)((out + OCTET - 1) / OCTET)};
    const cuuint64_t stride[1] = {(cuuint64_t)a.record};
    const cuuint32_t box[2] = {(cuuint32_t)(a.slice * a.chunk / ELEMENT), (cuuint32_t)(TILE / OCTET)}, each[2] = {1, 1};
    if (c.encode(&a.map, CU_TENSOR_MAP_DATA_TYPE_FLOAT64, 2, (void *)w, size, stride, box, each,
                 CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_NONE, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                 CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE))
        return cudaErrorInvalidValue;
    return mi_launch_clusters(kernel_for(f, n), dim3((unsigned)((out + TILE - 1) / TILE * a.parts)),
                              dim3((WARPS + 1) * 32), (unsigned)a.parts, (size_t)bytes, stream, a);
}
