/* gated.cu - the kernel of gated.h, on the tensor cores of compute capability 9.0.
 *
 * A block has 128 tokens times 128 rows of gate and the same 128 of up, side by side as the 256 columns of one product: a thread has
 * both sums of an output, so nothing is written but that.  Two blocks, a cluster, have the same rows and 256 tokens that follow each
 * other; one fetches gate and the other up, for both.
 *
 * Blocks stay and take tile after tile.  Two threads fill a ring of 64 columns a stage and go on into the next tile, and the two
 * warpgroups, 64 tokens each, do not wait for each other: while one ends its outputs, the other multiplies. */
#include "gated.h"

#include "boxes.cuh"
#include "wgmma.cuh"

#include <algorithm>

namespace mi_gated
{

using mi_boxes::card, mi_boxes::describe;

constexpr int CLUSTER = 2, TOKENS = 128, WIDTH = 128; /* WIDTH: of y */
constexpr int BOX = 64, ROW = BOX * 2;                /* columns of a stage; bytes of a row of it */
constexpr int WGS = 2, EACH = TOKENS / WGS;           /* warpgroups that multiply; tokens of one */
constexpr int X_BYTES = TOKENS * ROW, W_BYTES = WIDTH * ROW, STAGE = X_BYTES + 2 * W_BYTES, STAGES = 4;
constexpr int OUT_BYTES = EACH * WIDTH * 2, OUT = STAGES * STAGE, FULL = OUT + WGS * OUT_BYTES, FREED = FULL + STAGES * 8,
              BYTES = FREED + STAGES * 8; /* of shared memory */
constexpr int CONSUMERS = WGS * 128, THREADS = CONSUMERS + 128;

struct Args {
    CUtensorMap w[2], x, y; /* w: gate, up */
    int32_t     rows, ff, boxes;
    int32_t     columns, pairs, group, tiles; /* tiles of W; of tokens, for two blocks; of those at a time; all for a cluster */
    MiGatedScales scales;
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

constexpr int TAKEN = 240, LEFT = 24; /* registers: 168 each at first */

using mi_boxes::fetch_map, mi_boxes::load_box, mi_boxes::load_box_for, mi_boxes::store_box;

/* A cluster's tile i, and this block's part of it: a group of tokens goes through all of W, and what the card does at once is
 * about as many tokens as rows of W. */
struct Tile {
    int token, column; /* the first, of x and of y */

    __device__ __forceinline__ Tile(const Args &a, int i, int rank)
    {
        const int whole = a.group * a.columns, g = i / whole, first = g * a.group, n = min(a.group, a.pairs - first);
        const int in_group = i - g * whole, w = in_group / n;

        token = ((first + in_group - w * n) * CLUSTER + rank) * TOKENS;
        column = w * WIDTH;
    }
};

/* A place in the ring: its parity changes each time round. */
struct Place {
    int at = 0, parity = 0;

    __device__ __forceinline__ void next()
    {
        if (++at == STAGES)
            at = 0, parity ^= 1;
    }
};

/* ---- the threads that copy --------------------------------------------------------------- */

/* One of them x, the other its block's half of W, before the predecessor is done. A stage is free when both blocks' warpgroups are
 * done with it, since both get W. */
template <bool X> __device__ __forceinline__ void copy(const Args &a, char *smem, int rank)
{
    const CUtensorMap *map = X ? &a.x : &a.w[rank];
    uint64_t          *full = (uint64_t *)(smem + FULL), *freed = (uint64_t *)(smem + FREED);
    Place              p;

    fetch_map(map);
    if (X)
        wait_for_predecessor();
#pragma unroll 1
    for (int i = blockIdx.x / CLUSTER; i < a.tiles; i += gridDim.x / CLUSTER) {
        const Tile t(a, i, rank);
#pragma unroll 1
        for (int box = 0; box < a.boxes; box++, p.next()) {
            const unsigned to = shared_address(smem) + p.at * STAGE, bar = shared_address(full + p.at);
            barrier_wait(freed + p.at, p.parity ^ 1); /* the first time round at once */
            barrier_expect(full + p.at, X ? X_BYTES : 2 * W_BYTES);
            if (X)
                load_box(to, map, box * BOX, t.token, bar);
            else
                load_box_for((1 << CLUSTER) - 1, to + X_BYTES + rank * W_BYTES, map, box * BOX, t.column, bar);
        }
    }
}

/* ---- the warps that multiply --------------------------------------------------------------- */

/* Where numbers are too small for f32's usual form they are 0. */
__device__ __forceinline__ float silu(float v)
{
    float e, part;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(e) : "f"(v * -1.442695041f));
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(part) : "f"(1 + e));
    return v * part;
}

/* M: what is multiplied; T: of y. */
template <typename M, typename T> struct Consumer {
    static constexpr bool SCALED_SUMS = SCALED<M>;

    const Args &a;
    char       *smem;
    int         rank, group; /* group: which warpgroup */

    __device__ __forceinline__ void meet() const { asm volatile("bar.sync %0, 128;" ::"r"(1 + group) : "memory"); }
    __device__ __forceinline__ bool speaks() const { return threadIdx.x % 128 == 0; }

    __device__ __forceinline__ void multiply(float (&d)[WIDTH], Place &p) const
    {
        constexpr uint64_t REST = (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 62; /* of an operand but its address */
        uint64_t *const    full = (uint64_t *)(smem + FULL);
        const bool         tells = threadIdx.x % 128 < CLUSTER; /* a thread each block */
        const unsigned     freed = in_block(shared_address(smem + FREED), threadIdx.x % CLUSTER);
        unsigned           behind = 0; /* the barrier of the stage that may still be read */

#pragma unroll 1
        for (int box = 0; box < a.boxes; box++, p.next()) {
            barrier_wait(full + p.at, p.parity);
            /* A warp's registers in common: else each operand of each product goes there on its own. */
            const unsigned at = shared_address(smem) + p.at * STAGE;
            const uint64_t x = (uint64_t)__shfl_sync(~0u, (at + group * EACH * ROW) >> 4, 0) | REST;
            const uint64_t w = (uint64_t)__shfl_sync(~0u, (at + X_BYTES) >> 4, 0) | REST;
            wgmma_settle(d);
            wgmma_begin();
#pragma unroll
            for (int k = 0; k < BOX / 16; k++)
                Wgmma<M, 2 * WIDTH>::a_shared(d, wgmma_ahead(x, k * 32), wgmma_ahead(w, k * 32), k ? 1 : box);
            wgmma_commit();
            wgmma_wait<1>();
            if (tells && behind)
                arrive_there(behind);
            behind = freed + p.at * 8;
        }
        wgmma_wait<0>();
        wgmma_settle(d);
        if (tells)
            arrive_there(behind);
    }

    /* Two boxes of 64 columns, in shared memory as the tensor map has them; what is beyond the edges is not written. */
    __device__ __forceinline__ void end(const float (&d)[WIDTH], const Tile &t) const
    {
        const int      lane = threadIdx.x % 32, row = threadIdx.x % 128 / 32 * 16 + lane % 16;
        const unsigned out = shared_address(smem) + OUT + group * OUT_BYTES, to = out + row * ROW;

        const int      first = t.token + group * EACH + threadIdx.x % 128 / 32 * 16 + lane / 4; /* of this thread's two rows: and 8 further */
        float          by[2] = {1, 1}, largest[2] = {0, 0};

        if (SCALED_SUMS) {
#pragma unroll
            for (int i = 0; i < 2; i++)
                by[i] = first + i * 8 < a.rows ? __ldcg(a.scales.x + first + i * 8) : 0;
        }
        if (speaks())
            asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory"); /* the last tile's are on their way */
        meet();
#pragma unroll
        for (int j = 0; j < WIDTH / 16; j++) {
            unsigned v[4]; /* eight rows times eight columns, the eight rows below, the next eight columns of both */
#pragma unroll
            for (int k = 0; k < 4; k++) {
                const int i = j * 8 + k / 2 * 4 + k % 2 * 2;
                float     g[2] = {d[i], d[i + 1]}, u[2] = {d[WIDTH / 2 + i], d[WIDTH / 2 + i + 1]};
                if (SCALED_SUMS) {
                    const int    column = t.column + (2 * j + k / 2) * 8 + lane % 4 * 2;
                    const float2 of_g = column < a.ff ? __ldg((const float2 *)(a.scales.gate + column)) : float2{};
                    const float2 of_u = column < a.ff ? __ldg((const float2 *)(a.scales.up + column)) : float2{};
                    g[0] *= by[k % 2] * of_g.x, g[1] *= by[k % 2] * of_g.y;
                    u[0] *= by[k % 2] * of_u.x, u[1] *= by[k % 2] * of_u.y;
                }
                const float y[2] = {silu(g[0]) * u[0], silu(g[1]) * u[1]};
                if (SCALED_SUMS)
                    largest[k % 2] = fmaxf(largest[k % 2], fmaxf(fabsf(y[0]), fabsf(y[1])));
                v[k] = pack<T>(y[0], y[1]);
            }
            asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(
                             to + j / 4 * (EACH * ROW) + ((j % 4 * 2 + lane / 16) ^ lane % 8) * 16),
                         "r"(v[0]), "r"(v[1]), "r"(v[2]), "r"(v[3])
                         : "memory");
        }
        if (SCALED_SUMS) {
#pragma unroll
            for (int i = 0; i < 2; i++) {
#pragma unroll
                for (int o = 1; o < 4; o *= 2)
                    largest[i] = fmaxf(largest[i], __shfl_xor_sync(~0u, largest[i], o));
                if (lane % 4 == 0 && first + i * 8 < a.rows) /* numbers that are not negative have the order of their bits */
                    atomicMax((int *)a.scales.largest + first + i * 8, __float_as_int(largest[i]));
            }
        }
        asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
        meet();
        if (speaks()) {
            const int token = t.token + group * EACH;
#pragma unroll
            for (int i = 0; i < WIDTH / BOX; i++)
                if (token < a.rows && t.column + i * BOX < a.ff)
                    store_box(&a.y, out + i * (EACH * ROW), t.column + i * BOX, token);
            asm volatile("cp.async.bulk.commit_group;" ::: "memory");
        }
    }

    __device__ __forceinline__ void run() const
    {
        float d[WIDTH] = {};
        Place p;

        wait_for_predecessor();
#pragma unroll 1
        for (int i = blockIdx.x / CLUSTER; i < a.tiles; i += gridDim.x / CLUSTER) {
            multiply(d, p);
            end(d, Tile(a, i, rank));
        }
        if (speaks())
            asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
    }
};

template <typename M, typename T> __global__ void __launch_bounds__(THREADS, 1) product(const __grid_constant__ Args a)
{
    extern __shared__ __align__(1024) char smem[];
    const int rank = blockIdx.x % CLUSTER, warp = __shfl_sync(~0u, threadIdx.x / 32, 0);

    let_successor_start();
    if (threadIdx.x == CONSUMERS) {
        for (int i = 0; i < STAGES; i++) {
            barrier_init((uint64_t *)(smem + FULL) + i, 2);
            barrier_init((uint64_t *)(smem + FREED) + i, WGS * CLUSTER);
        }
        barrier_init_done();
    }
    __syncwarp();
    cluster_arrive();
    cluster_wait();
    if (warp < CONSUMERS / 32) {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(TAKEN));
        Consumer<M, T>{a, smem, rank, warp / 4}.run();
    } else {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(LEFT));
        if (threadIdx.x == CONSUMERS)
            copy<false>(a, smem, rank);
        else if (threadIdx.x == CONSUMERS + 32)
            copy<true>(a, smem, rank);
    }
    __syncwarp();
    cluster_arrive(); /* until all are here the other block may write to this one's memory, and arrive at its barriers */
    cluster_wait();
}

#else

template <typename M, typename T> __global__ void product(const __grid_constant__ Args a) { (void)a; }

#endif

/* ---- launching -------------------------------------------------------------------------------- */

/* x of a group stays in the second-level cache, of which each half of the card has 25 MB, while W goes by. */
constexpr int64_t GROUP_BYTES = 16 << 20;
/* By measurement (MI_BENCH=1 tests/gpu_gated): of fewer rows, or of fewer tiles for each cluster, cuBLASLt's smaller tiles fill the
 * card better; 256 tokens are the least that are multiplied here. */
constexpr int64_t LEAST_ROWS = 897, LEAST_TILES = 2;

static int64_t parts(int64_t n, int64_t of) { return (n + of - 1) / of; }

/* That run at once; 0: not on this card. */
template <typename M, typename T> static int clusters()
{
    static const int n = [] {
        cudaLaunchConfig_t  c = {};
        cudaLaunchAttribute attr = {};
        int                 fit = 0;

        attr.id = cudaLaunchAttributeClusterDimension;
        attr.val.clusterDim.x = CLUSTER;
        attr.val.clusterDim.y = attr.val.clusterDim.z = 1;
        c.gridDim = dim3(CLUSTER * 1024);
        c.blockDim = dim3(THREADS);
        c.dynamicSmemBytes = BYTES;
        c.attrs = &attr;
        c.numAttrs = 1;
        const bool ok = card().encode && card().smem >= BYTES && !mi_allow_smem(product<M, T>, BYTES) &&
                        !cudaOccupancyMaxActiveClusters(&fit, product<M, T>, &c);
        (void)cudaGetLastError();
        return ok ? fit : 0;
    }();
    return n;
}

/* A matrix of E4M3 is to the copies one of half as many elements of two bytes. */
template <typename M, typename T>
static int run(void *stream, const MiTensor &x, const void *gate, const void *up, const MiTensor &y, const MiGatedScales &scales)
{
    constexpr int64_t PACKED = 2 / sizeof(M);
    const int64_t rows = x.shape[0], hidden = x.shape[1] / PACKED, ff = y.shape[1], pairs = parts(rows, CLUSTER * TOKENS);
    const int64_t groups = parts(pairs, std::max<int64_t>(1, GROUP_BYTES / (CLUSTER * TOKENS * hidden * 2)));
    Args          a = {};

    a.rows = (int32_t)rows;
    a.ff = (int32_t)ff;
    a.boxes = (int32_t)parts(hidden, BOX);
    a.columns = (int32_t)parts(ff, WIDTH);
    a.pairs = (int32_t)pairs;
    a.group = (int32_t)parts(pairs, groups);
    a.tiles = a.pairs * a.columns;
    a.scales = scales;
    const int n = clusters<M, T>();
    if (!n)
        return cudaErrorNotSupported;
    if (!describe(&a.w[0], gate, ff, hidden, hidden, WIDTH) || !describe(&a.w[1], up, ff, hidden, hidden, WIDTH) ||
        !describe(&a.x, x.data, rows, hidden, x.stride[0] / PACKED, TOKENS) || !describe(&a.y, y.data, rows, ff, y.stride[0], EACH))
        return cudaErrorInvalidValue;
    return mi_launch_clusters(product<M, T>, dim3(CLUSTER * std::min(n, a.tiles)), dim3(THREADS), CLUSTER, BYTES, stream, a);
}

} // namespace mi_gated

using namespace mi_gated;

extern "C" int64_t mi_cuda_gated_rows(int64_t hidden, int64_t ff, MiDType dtype)
{
    const int     n = dtype == MI_BF16  ? clusters<bf16, bf16>()
                      : dtype == MI_F16 ? clusters<__half, __half>()
                      : dtype == MI_F8  ? std::min(clusters<F8, bf16>(), clusters<F8, __half>())
                                        : 0;
    const int64_t even = dtype == MI_F8 ? 16 : 8; /* 16 bytes */

    if (!n || hidden < 1 || ff < 1 || hidden % even || ff % 8)
        return INT64_MAX;
    return std::max(LEAST_ROWS, (parts(LEAST_TILES * n, parts(ff, WIDTH)) - 1) * CLUSTER * TOKENS + 1);
}

extern "C" int mi_cuda_gated(void *stream, MiTensor x, const void *gate, const void *up, MiTensor y)
{
    return x.dtype == MI_BF16  ? run<bf16, bf16>(stream, x, gate, up, y, MiGatedScales())
           : x.dtype == MI_F16 ? run<__half, __half>(stream, x, gate, up, y, MiGatedScales())
                               : cudaErrorInvalidValue;
}

extern "C" int mi_cuda_gated_scaled(void *stream, MiTensor x, const void *gate, const void *up, MiTensor y, MiGatedScales scales)
{
    return x.dtype != MI_F8    ? cudaErrorInvalidValue
           : y.dtype == MI_BF16 ? run<F8, bf16>(stream, x, gate, up, y, scales)
           : y.dtype == MI_F16  ? run<F8, __half>(stream, x, gate, up, y, scales)
                                : cudaErrorInvalidValue;
}
