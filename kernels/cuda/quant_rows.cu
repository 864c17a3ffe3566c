/* quant_rows.cu - the products of quant_rows.h.
 *
 * The same product of integers as quant_gemv.cuh's: two records of W, 16 rows, are the tall side of mma.m16n8k32, four
 * rows of x, high and low, the narrow one.  A warp has D such duos of W and all rows of x, and keeps their sums; a
 * block of eight warps has a tile of 128 D rows of W and a part of the columns, the blocks of a cluster the other
 * parts.  W and x go through a ring: W is requested before the predecessor is done, x after that.  At the end the
 * blocks of a cluster add up each other's sums, in the order of their parts.
 *
 * What x becomes, for each chunk of 128 columns: [half of the chunk][four rows][lane] 16 bytes, as a lane takes them,
 * then for all chunks [chunk][group][row] its scale and its sum. */
#include "gemv_parts.cuh"
#include "quant_rows.h"

using namespace mi_gemv;

constexpr int OCTET = MI_QUANT_ROWS, COLUMNS = MI_QUANT_COLUMNS, LARGEST = 32512, WARPS = 8,
              RING = 16;                               /* stages at most */
constexpr int FULL = 0, FREED = RING * 8, START = 256; /* in shared memory */

struct Product {
    const char   *w, *x;   /* x: of this kernel's form */
    const float2 *factors; /* [chunk][groups][rows] */
    const float  *bias;
    char         *y;
    int64_t       record, y_stride;
    int32_t       out, rows; /* of y */
    int32_t       chunks, chunk, groups, flush;
    int32_t       parts, slice, stages, stage_bytes; /* parts of the columns: blocks of a cluster */
    int32_t       x_at, factors_at;                  /* in a stage, behind W */
    bool          zeros, minima, y_f32;
};

/* ---- x ---------------------------------------------------------------------------------------- */

/* Eight columns a thread; a block has a row of x, or one that is not there: zeros. */
static __global__ void __launch_bounds__(256) split(const bf16 *x, int64_t stride, int rows, int in, char *digits,
                                                    float2 *factors, int quads, int group, int times)
{
    const int e = blockIdx.x * 256 + threadIdx.x, chunks = (in + COLUMNS - 1) / COLUMNS, m = blockIdx.y;
    const int c = e / 16, j = e / 4 % 4, t = e % 4, lanes = group / 8;
    uint4     v = {0, 0, 0, 0};
    unsigned  bits = 0, high[2] = {}, low[2] = {};
    int       both = 0;
    float     f[8];

    let_successor_start();
    wait_for_predecessor();
    if (m < rows && e * 8 < in)
        v = __ldcg((const uint4 *)(x + m * stride) + e);
    for (int i = 0; i < 4; i++) {
        const float2 p = unpack(((const unsigned *)&v)[i], bf16());
        f[2 * i] = p.x;
        f[2 * i + 1] = p.y;
    }
    for (int i = 0; i < 8; i++)
        bits = max(bits, __float_as_uint(f[i]) & 0x7fffffffu);
    const float most = __uint_as_float(__reduce_max_sync(~0u, bits));
    const float by = most > 1e-30f ? __fdividef(LARGEST, most) : 0;
    for (int i = 0; i < 8; i++) {
        const int q = __float_as_int(fmaf(f[i], by, 12582912.f)) << 16 >> 16, h = (q + 128) >> 8;
        both += q;
        high[i / 4] |= (unsigned)(h & 255) << 8 * (i % 4);
        low[i / 4] |= (unsigned)((q - 256 * h) & 255) << 8 * (i % 4);
    }
    for (int o = 1; o < lanes; o *= 2)
        both += __shfl_xor_sync(~0u, both, o);
    if (c >= chunks)
        return;
    char *to = digits + (((int64_t)c * 2 + j / 2) * quads + m / 4) * 512 + (m % 4 * 8 + t) * 16 + j % 2 * 8;
    *(uint2 *)to = {high[0], high[1]};
    *(uint2 *)(to + 64) = {low[0], low[1]};
    if (e % lanes == 0)
        factors[(int64_t)(e / lanes) * quads * 4 + m] = {most * (1.f / LARGEST) / times, (float)(both * times)};
}

/* ---- the product -------------------------------------------------------------------------------- */

#if __CUDA_ARCH__ >= 900

__device__ __forceinline__ void mma_bytes(int *d, const unsigned *a, unsigned b0, unsigned b1)
{
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* What a lane multiplies of a chunk of two records: [quarter][operand]. */
template <int BITS> __device__ __forceinline__ void load_duo(unsigned p, unsigned q, unsigned (*a)[4])
{
    uint4 u[BITS / 4], v[BITS / 4];
#pragma unroll
    for (int i = 0; i < BITS / 4; i++) {
        u[i] = load_shared(p + i * 512);
        v[i] = load_shared(q + i * 512);
    }
    const unsigned *s = (const unsigned *)u, *t = (const unsigned *)v;
#pragma unroll
    for (int j = 0; j < 4; j++) {
        a[j][0] = BITS == 8 ? s[2 * j] : s[j] << 4 & 0xf0f0f0f0u;
        a[j][1] = BITS == 8 ? t[2 * j] : t[j] << 4 & 0xf0f0f0f0u;
        a[j][2] = BITS == 8 ? s[2 * j + 1] : s[j] & 0xf0f0f0f0u;
        a[j][3] = BITS == 8 ? t[2 * j + 1] : t[j] & 0xf0f0f0f0u;
    }
}

__device__ __forceinline__ float half_at(unsigned at)
{
    unsigned short h;
    asm volatile("ld.shared.u16 %0, [%1];" : "=h"(h) : "r"(at));
    return __half2float(__ushort_as_half(h));
}

__device__ __forceinline__ float2 pair_at(unsigned at)
{
    float2 f;
    asm volatile("ld.shared.v2.f32 {%0,%1}, [%2];" : "=f"(f.x), "=f"(f.y) : "r"(at));
    return f;
}

__device__ __forceinline__ void meet_all()
{
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}

__device__ __forceinline__ float float_in(unsigned at, int block)
{
    unsigned there;
    float    v;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(at), "r"(block));
    asm volatile("ld.shared::cluster.f32 %0, [%1];" : "=f"(v) : "r"(there) : "memory");
    return v;
}

/* The warp that fills the ring; a lane requests a record's share, the first lane x, too. */
template <int QUADS, int D> __device__ __forceinline__ void produce(const Product &a, char *smem, int first, int n)
{
    const int      lane = threadIdx.x % 32, records = 2 * WARPS * D, tile = blockIdx.x / a.parts;
    const int      stages = (n + a.slice - 1) / a.slice;
    const int64_t  octet = (int64_t)tile * records + lane, octets = (a.out + OCTET - 1) / OCTET;
    const int      there = (int)min((int64_t)records, octets - (int64_t)tile * records);
    const uint64_t policy = evict_first_policy();
    auto           request = [&](int s, bool of_w, bool of_x) {
        const int slot = s % a.stages, from = first + s * a.slice, chunks = min(a.slice, n - s * a.slice);
        uint64_t *full = (uint64_t *)(smem + FULL) + slot;
        char     *to = smem + START + slot * a.stage_bytes;
        if (of_w) {
            if (lane == 0)
                barrier_expect(full, chunks * (there * a.chunk + QUADS * 1024 + a.groups * QUADS * 32));
            __syncwarp();
            if (lane < there)
                bulk_load_once(to + lane * a.slice * a.chunk, a.w + octet * a.record + (int64_t)from * a.chunk,
                                         chunks * a.chunk, full, policy);
        }
        if (of_x && lane == 0) {
            bulk_load(to + a.x_at, a.x + (int64_t)from * QUADS * 1024, chunks * QUADS * 1024, full);
            bulk_load(to + a.factors_at, (const char *)a.factors + (int64_t)from * a.groups * QUADS * 32,
                                chunks * a.groups * QUADS * 32, full);
        }
    };

    for (int s = 0; s < min(a.stages, stages); s++)
        request(s, true, false);
    wait_for_predecessor();
    for (int s = 0; s < min(a.stages, stages); s++)
        request(s, false, true);
    for (int s = a.stages; s < stages; s++) {
        barrier_wait((uint64_t *)(smem + FREED) + s % a.stages, (s / a.stages - 1) & 1);
        request(s, true, true);
    }
}

/* ANY: groups, zeros; else a scale for the chunk (4 bit) or the row (8 bit). */
template <int BITS, bool ANY, int QUADS, int D>
__global__ void __launch_bounds__((WARPS + 1) * 32, 1) products(const __grid_constant__ Product a)
{
    extern __shared__ __align__(128) char smem[];
    constexpr int                         VALUES = BITS * OCTET * COLUMNS / 8, TILE = 2 * OCTET * WARPS * D;
    const int tid = threadIdx.x, lane = tid % 32, g = lane / 4, t = lane % 4, warp = tid / 32;
    const int part = blockIdx.x % a.parts, tile = blockIdx.x / a.parts;
    const int first = a.chunks * part / a.parts, n = a.chunks * (part + 1) / a.parts - first;

    let_successor_start();
    if (tid < a.stages) {
        barrier_init((uint64_t *)(smem + FULL) + tid, 1);
        barrier_init((uint64_t *)(smem + FREED) + tid, WARPS);
        barrier_init_done();
    }
    __syncthreads();
    float y[D][QUADS][2] = {}, offset[QUADS] = {};
    if (warp == WARPS) {
        produce<QUADS, D>(a, smem, first, n);
    } else {
        wait_for_predecessor();
        const unsigned ring = shared_address(smem) + START;
#pragma unroll 1
        for (int s = 0, slot = 0, phase = 0; s * a.slice < n; s++) {
            const unsigned at = ring + slot * a.stage_bytes;
            const int      chunks = min(a.slice, n - s * a.slice);
            barrier_wait((uint64_t *)(smem + FULL) + slot, phase);
#pragma unroll 1
            for (int c = 0; c < chunks; c++) {
                unsigned operand[D][4][4], scales[D][2];
                float    only[D][2]; /* where a chunk has one scale */
#pragma unroll
                for (int d = 0; d < D; d++) {
                    const unsigned p = at + (2 * (warp * D + d) * a.slice + c) * a.chunk, q = p + a.slice * a.chunk;
                    load_duo<BITS>(p + lane * 16, q + lane * 16, operand[d]);
                    scales[d][0] = p + VALUES + g * 2;
                    scales[d][1] = q + VALUES + g * 2;
                    if (BITS == 4 && !ANY) {
                        only[d][0] = half_at(scales[d][0]);
                        only[d][1] = half_at(scales[d][1]);
                    }
                }
#pragma unroll
                for (int k = 0; k < QUADS; k++) {
                    const unsigned x = at + a.x_at + (c * 2 * QUADS + k) * 512 + lane * 16;
                    const uint4    b[2] = {load_shared(x), load_shared(x + QUADS * 512)};
                    unsigned       factors = at + a.factors_at + (c * a.groups * QUADS * 4 + k * 4 + t) * 8;
                    int            d[D][4] = {}, group = 0;
#pragma unroll
                    for (int j = 0; j < 4; j++) {
                        const unsigned *w = (const unsigned *)&b[j / 2];
#pragma unroll
                        for (int i = 0; i < D; i++)
                            mma_bytes(d[i], operand[i][j], w[j % 2 * 2], w[j % 2 * 2 + 1]);
                        if (ANY ? !(a.flush >> j & 1) : j < 3)
                            continue;
                        const float2 f = pair_at(factors);
                        if (ANY)
                            offset[k] = fmaf(f.x, f.y, offset[k]);
#pragma unroll
                        for (int i = 0; i < D; i++)
#pragma unroll
                            for (int r = 0; r < 2; r++) {
                                const float sum = (float)(d[i][2 * r] * 256 + d[i][2 * r + 1]);
                                d[i][2 * r] = d[i][2 * r + 1] = 0;
                                if (BITS == 8 && (!ANY || a.flush == 16 + 8)) { /* the row's scale comes at the end */
                                    y[i][k][r] = fmaf(f.x, sum, y[i][k][r]);
                                    continue;
                                }
                                const float s = ANY ? half_at(scales[i][r] + group * OCTET * 2) : only[i][r];
                                float       z = 0;
                                if (ANY && a.zeros) {
                                    z = half_at(scales[i][r] + (a.groups + group) * OCTET * 2);
                                    z = (a.minima ? fmaf(8, s, z) : s * z) * f.y;
                                }
                                y[i][k][r] = fmaf(f.x, fmaf(s, sum, z), y[i][k][r]);
                            }
                        factors += QUADS * 32;
                        group++;
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
    if (warp < WARPS)
#pragma unroll
        for (int d = 0; d < D; d++)
#pragma unroll
            for (int r = 0; r < 2; r++) {
                const int  row = (2 * (warp * D + d) + r) * OCTET + g;
                float      scale = 1, zero = 0;
                const bool of_row = BITS == 8 && (!ANY || a.flush == 16 + 8);
                if (of_row && tile * TILE + row < a.out) {
                    const float *end = (const float *)(a.w + (int64_t)((tile * TILE + row) / OCTET) * a.record +
                                                       (int64_t)a.chunks * a.chunk);
                    scale = end[g];
                    zero = ANY ? end[OCTET + g] : 0;
                }
#pragma unroll
                for (int k = 0; k < QUADS; k++)
                    sums[(k * 4 + t) * TILE + row] =
                        of_row ? scale * fmaf(zero, ANY ? offset[k] : 0, y[d][k][r]) : y[d][k][r];
            }
    if (a.parts > 1)
        meet_all();
    else
        __syncthreads();
#pragma unroll 1
    for (int i = tid; i < a.rows * TILE / a.parts; i += (WARPS + 1) * 32) {
        const int at = i + part * (a.rows * TILE / a.parts), m = at / TILE, row = tile * TILE + at % TILE;
        float     v = row < a.out && a.bias ? a.bias[row] : 0;
        for (int p = 0; p < a.parts; p++)
            v += a.parts > 1 ? float_in(shared_address(sums + at), p) : sums[at];
        if (row >= a.out)
            continue;
        if (a.y_f32)
            ((float *)a.y)[m * a.y_stride + row] = v;
        else
            ((bf16 *)a.y)[m * a.y_stride + row] = from_float<bf16>(v);
    }
    if (a.parts > 1)
        meet_all(); /* nobody leaves while its sums are read */
}

#else

template <int BITS, bool ANY, int QUADS, int D> __global__ void products(const __grid_constant__ Product a) { (void)a; }

#endif

/* ---- launching -------------------------------------------------------------------------------------- */

/* Groups of four rows of x that a kernel has. */
static int quads_of(int64_t rows) { return rows <= 16 ? 4 : rows <= 32 ? 8 : 16; }
static int groups_of(MiQuantForm f) { return f.group ? mi_quant_groups(f) : 1; }

extern "C" size_t mi_cuda_quant_split_bytes(MiQuantForm f, int64_t rows, int64_t in)
{
    return (size_t)(mi_quant_chunks(in) * quads_of(rows)) * (1024 + 32 * (size_t)groups_of(f));
}

extern "C" int mi_cuda_quant_split(void *stream, MiQuantForm f, MiTensor x, void *to)
{
    const int64_t rows = x.shape[0], in = x.shape[1], chunks = mi_quant_chunks(in);
    const int     quads = quads_of(rows);

    return mi_launch(split, dim3((unsigned)((chunks * 16 + 255) / 256), (unsigned)quads * 4), dim3(256), 0, stream,
                     (const bf16 *)x.data, x.stride[0], (int)rows, (int)in, (char *)to,
                     (float2 *)((char *)to + chunks * quads * 1024), quads, f.group ? f.group : COLUMNS,
                     f.bits == 4 ? 16 : 1);
}

typedef void (*Kernel)(Product);

template <int BITS, bool ANY> static Kernel kernel_of(int quads)
{
    return quads == 4 ? products<BITS, ANY, 4, 1> : quads == 8 ? products<BITS, ANY, 8, 1> : products<BITS, ANY, 16, 2>;
}

static Kernel kernel_for(MiQuantForm f, int quads)
{
    const bool any = f.zeros || f.group != (f.bits == 4 ? 128 : 0);

    if (f.bits == 4)
        return any ? kernel_of<4, true>(quads) : kernel_of<4, false>(quads);
    return any ? kernel_of<8, true>(quads) : kernel_of<8, false>(quads);
}

/* Fills what the layout decides; the shared memory, or 0: it does not fit. */
static int lay_out(Product *a, MiQuantForm f, int64_t rows, int64_t in, int64_t out, int sms, int most)
{
    const int quads = quads_of(rows), tile = quads == 16 ? 256 : 128, tiles = (int)((out + tile - 1) / tile);
    const int groups = groups_of(f), chunk = mi_quant_chunk(f), sums = quads * 4 * tile * (int)sizeof(float);

    a->chunks = (int)mi_quant_chunks(in);
    a->chunk = chunk;
    a->groups = groups;
    a->parts = 1;
    while (a->parts < 8 && 2 * a->parts * tiles <= sms && 2 * a->parts <= a->chunks)
        a->parts *= 2;
    /* A part of the columns has so many chunks at most. */
    const int share = (a->chunks + a->parts - 1) / a->parts;
    const int each = tile / OCTET * chunk + quads * (1024 + groups * 32);
    a->slice = each > 24 << 10 ? 2 : (50 << 10) / each;
    a->slice = a->slice < share ? a->slice : share;
    a->x_at = tile / OCTET * a->slice * chunk;
    a->factors_at = a->x_at + a->slice * quads * 1024;
    a->stage_bytes = (a->factors_at + a->slice * groups * quads * 32 + 127) / 128 * 128;
    if (tiles * a->parts > sms && quads < 16) /* two blocks on a multiprocessor instead of two turns */
        most = (most - 2048) / 2;
    if (START + a->stage_bytes > most) {
        a->slice = 1;
        a->x_at = tile / OCTET * chunk;
        a->factors_at = a->x_at + quads * 1024;
        a->stage_bytes = (a->factors_at + groups * quads * 32 + 127) / 128 * 128;
    }
    a->stages = (most - START) / a->stage_bytes;
    a->stages = a->stages < RING ? a->stages : RING;
    const int needed = (share + a->slice - 1) / a->slice;
    a->stages = a->stages < needed ? a->stages : needed;
    const int ring = a->stages * a->stage_bytes, bytes = START + (ring > sums ? ring : sums);
    return a->stages < 1 || bytes > most ? 0 : bytes;
}

static int card(int *major, int *sms, int *most)
{
    int device;

    if (cudaGetDevice(&device) || cudaDeviceGetAttribute(major, cudaDevAttrComputeCapabilityMajor, device) ||
        cudaDeviceGetAttribute(sms, cudaDevAttrMultiProcessorCount, device) ||
        cudaDeviceGetAttribute(most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device))
        return cudaGetLastError();
    return cudaSuccess;
}

extern "C" int mi_cuda_quant_rows_takes(MiQuantForm f, int64_t rows, int64_t in, int64_t out)
{
    int       major, sms, most;
    Product   a = {};
    const int e = card(&major, &sms, &most);

    if (e)
        return e;
    if (major != 9 || rows < 1 || rows > MI_QUANT_MOST || in < 8 || in % 8 || out < 1 || in > 1 << 20 || out > 1 << 24)
        return cudaErrorNotSupported;
    const int bytes = lay_out(&a, f, rows, in, out, sms, most);
    return bytes ? mi_allow_smem(kernel_for(f, quads_of(rows)), (size_t)bytes) : (int)cudaErrorNotSupported;
}

extern "C" int mi_cuda_quant_rows(void *stream, MiQuantForm f, const void *from, int64_t in, const void *w,
                                  const float *bias, MiTensor y)
{
    const int64_t rows = y.shape[0], out = y.shape[1];
    const int     quads = quads_of(rows);
    int           major, sms, most;
    Product       a = {};
    const int     e = card(&major, &sms, &most), bytes = e ? 0 : lay_out(&a, f, rows, in, out, sms, most);

    if (!bytes)
        return e ? e : (int)cudaErrorNotSupported;
    a.w = (const char *)w;
    a.x = (const char *)from;
    a.factors = (const float2 *)(a.x + (int64_t)a.chunks * quads * 1024);
    a.bias = bias;
    a.y = (char *)y.data;
    a.y_stride = y.stride[0];
    a.y_f32 = y.dtype == MI_F32;
    a.record = mi_quant_record(f, in);
    a.out = (int)out;
    a.rows = (int)rows;
    a.flush = f.group == 32 ? 15 : f.group == 64 ? 10 : f.group ? 8 : 16 + 8; /* bit 4: a row has one scale */
    a.zeros = f.zeros && f.group;
    a.minima = f.minima;
    const int tile = quads == 16 ? 256 : 128;
    return mi_launch_clusters(kernel_for(f, quads), dim3((unsigned)((out + tile - 1) / tile * a.parts)),
                              dim3((WARPS + 1) * 32), (unsigned)a.parts, (size_t)bytes, stream, a);
}
