#include "skinny.h"
#include "device.cuh"

#include <cooperative_groups.h>

namespace cg = cooperative_groups;

enum {
    TILE = 64,    /* rows of W a block takes: 16 for each of its four warps */
    CHUNK = 128,  /* columns of a stage */
    THREADS = 128,
    ROW_BYTES = CHUNK * 2,
    W_BYTES = TILE * ROW_BYTES,
};

/* NT: groups of 8 tokens. */
template <int NT> struct Shape {
    static constexpr int tokens = NT * 8, stage = W_BYTES + tokens * ROW_BYTES, stages = NT <= 4 ? 4 : 3;
    static constexpr int bytes = stages * stage;
    static constexpr int sum_stride = tokens + 1; /* of a row's sums: no two rows of a warp in one bank */
};

/* ---- pieces ---------------------------------------------------------------------------- */

#if __CUDA_ARCH__ >= 900

/* 16 bytes, or 16 zeros where there is nothing. */
__device__ __forceinline__ void copy16(unsigned dst, const void *src, bool there)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(dst), "l"(src), "r"(there ? 16 : 0) : "memory");
}
__device__ __forceinline__ void copy16_once(unsigned dst, const void *src, bool there, uint64_t policy)
{
    asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2, %3;" ::"r"(dst), "l"(src), "r"(there ? 16 : 0),
                 "l"(policy)
                 : "memory");
}
__device__ __forceinline__ void copies_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N> __device__ __forceinline__ void copies_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

/* Eight rows' 16-byte pieces at one column fall into eight different bank groups. */
__device__ __forceinline__ unsigned swizzled(unsigned base, int row, int piece)
{
    return base + (unsigned)(row * ROW_BYTES + ((piece ^ (row & 7)) << 4));
}

__device__ __forceinline__ void load_matrices(unsigned *r, unsigned at)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}

__device__ __forceinline__ void multiply(float *c, const unsigned *a, unsigned b0, unsigned b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* Row r of the tile in W; -1: there is none.  Gated, 32 rows of the gate stand before their 32 others. */
__device__ __forceinline__ int row_of(const MiSkinny &a, int tile, int r)
{
    const int half = TILE / 2, i = a.gated ? tile * half + r % half : tile * TILE + r;
    return i >= a.out ? -1 : a.gated && r >= half ? a.out + i : i;
}

__device__ __forceinline__ void load_w(const MiSkinny &a, unsigned to, int tile, int chunk, uint64_t policy)
{
#pragma unroll
    for (int i = 0; i < TILE * 16 / THREADS; i++) {
        const int  at = i * THREADS + threadIdx.x, r = at / 16, piece = at % 16, col = chunk * CHUNK + piece * 8;
        const int  row = row_of(a, tile, r);
        const bool there = row >= 0 && col < a.in;
        copy16_once(swizzled(to, r, piece), (const bf16 *)a.w + (there ? (int64_t)row * a.in + col : 0), there, policy);
    }
}

template <int NT> __device__ __forceinline__ void load_x(const MiSkinny &a, unsigned to, int chunk)
{
#pragma unroll
    for (int i = 0; i < NT * 8 * 16 / THREADS; i++) {
        const int  at = i * THREADS + threadIdx.x, t = at / 16, piece = at % 16, col = chunk * CHUNK + piece * 8;
        const bool there = t < a.rows && col < a.in;
        copy16(swizzled(to, t, piece), (const bf16 *)a.x + (there ? t * a.x_stride + col : 0), there);
    }
}

template <int NT> __device__ __forceinline__ void multiply_chunk(float (*acc)[4], unsigned w, unsigned x)
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;

#pragma unroll
    for (int k = 0; k < CHUNK / 16; k++) {
        unsigned p[4], q[4];
        load_matrices(p, swizzled(w, warp * 16 + lane % 16, 2 * k + lane / 16));
#pragma unroll
        for (int t = 0; t < NT; t += 2) {
            /* two groups of tokens at once; a single one reads its rows twice */
            const int token = NT == 1 ? lane % 8 : t * 8 + lane % 8 + lane / 16 * 8;
            load_matrices(q, swizzled(x, token, 2 * k + lane / 8 % 2));
            multiply(acc[t], p, q[0], q[1]);
            if (NT > 1)
                multiply(acc[t + 1], p, q[2], q[3]);
        }
    }
}

/* ---- the kernel ------------------------------------------------------------------------- */

/* What the cluster's blocks have for one row and token, added up in order. */
template <int NT> __device__ __forceinline__ float total(cg::cluster_group &cluster, float *sums, int blocks, int row, int token)
{
    float y = 0;
    for (int i = 0; i < blocks; i++)
        y += cluster.map_shared_rank(sums, i)[row * Shape<NT>::sum_stride + token];
    return y;
}

template <int NT> static __global__ void __launch_bounds__(THREADS) skinny(const __grid_constant__ MiSkinny a)
{
    using S = Shape<NT>;
    extern __shared__ __align__(128) unsigned char smem[];
    cg::cluster_group cluster = cg::this_cluster();
    const int         parts = (int)cluster.num_blocks(), part = (int)cluster.block_rank(), tile = blockIdx.x / parts;
    const int         chunks = (a.in + CHUNK - 1) / CHUNK, first = chunks * part / parts, n = chunks * (part + 1) / parts - first;
    const int         lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const unsigned    base = shared_address(smem);
    const uint64_t    policy = evict_first_policy();
    float             acc[NT][4] = {};

    let_successor_start();
    for (int s = 0; s < S::stages - 1; s++) {
        if (s < n)
            load_w(a, base + s * S::stage, tile, first + s, policy);
        copies_commit();
    }
    wait_for_predecessor();
    for (int s = 0; s < S::stages - 1; s++) {
        if (s < n)
            load_x<NT>(a, base + s * S::stage + W_BYTES, first + s);
        copies_commit();
    }
    for (int i = 0; i < n; i++) {
        const int next = i + S::stages - 1;
        copies_wait<S::stages - 2>();
        __syncthreads();
        if (next < n) {
            load_w(a, base + next % S::stages * S::stage, tile, first + next, policy);
            load_x<NT>(a, base + next % S::stages * S::stage + W_BYTES, first + next);
        }
        copies_commit();
        multiply_chunk<NT>(acc, base + i % S::stages * S::stage, base + i % S::stages * S::stage + W_BYTES);
    }
    copies_wait<0>();
    __syncthreads();

    float *sums = (float *)smem; /* [TILE][tokens], where the stages were */
#pragma unroll
    for (int t = 0; t < NT; t++)
#pragma unroll
        for (int k = 0; k < 4; k++)
            sums[(warp * 16 + lane / 4 + k / 2 * 8) * S::sum_stride + t * 8 + lane % 4 * 2 + k % 2] = acc[t][k];
    cluster.sync();

    const int rows = a.gated ? TILE / 2 : TILE, mine = (rows + parts - 1) / parts;
    for (int i = threadIdx.x; i < mine * a.rows; i += THREADS) {
        const int r = part * mine + i % mine, token = i / mine, row = r < rows ? row_of(a, tile, r) : -1;
        if (row < 0)
            continue;
        const int64_t at = token * a.y_stride + row;
        float         y = total<NT>(cluster, sums, parts, r, token);
        if (a.gated) {
            const float g = to_float(from_float<bf16>(y)), u = to_float(from_float<bf16>(total<NT>(cluster, sums, parts, r + rows, token)));
            y = to_float(from_float<bf16>(g / (1 + __expf(-g)))) * u; /* rounded where the separate operations are */
        }
        if (a.bias)
            y += a.bias[row];
        if (a.residual)
            y += to_float(((const bf16 *)a.residual)[at]);
        if (a.f32)
            ((float *)a.y)[at] = y;
        else
            ((bf16 *)a.y)[at] = from_float<bf16>(y);
    }
    cluster.sync(); /* nobody leaves while its sums are read */
}

#else
template <int NT> static __global__ void skinny(const __grid_constant__ MiSkinny a) {}
#endif

/* ---- launching ------------------------------------------------------------------------------ */

extern "C" int mi_cuda_skinny_prepare(int64_t in, int64_t out)
{
    int device, major = 0, e;

    if (in % 8 || in <= 0 || in > 1 << 20 || out <= 0 || out > 1 << 24)
        return cudaErrorNotSupported;
    if ((e = cudaGetDevice(&device)) || (e = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device)))
        return e;
    if (major < 9)
        return cudaErrorNotSupported;
    if ((e = mi_allow_smem(skinny<1>, Shape<1>::bytes)) || (e = mi_allow_smem(skinny<2>, Shape<2>::bytes)) ||
        (e = mi_allow_smem(skinny<4>, Shape<4>::bytes)))
        return e;
    return mi_allow_smem(skinny<8>, Shape<8>::bytes);
}

/* Blocks of a cluster: as many as share the columns out until every SM has something to read. */
static int parts_of(int tiles, int in)
{
    const int chunks = (in + CHUNK - 1) / CHUNK;
    int       parts = 1;

    while (parts < 8 && tiles * parts * 2 <= 288 && parts < chunks)
        parts *= 2;
    return parts;
}

template <int NT> static int launch(void *stream, const MiSkinny &a, int tiles, int parts)
{
    cudaLaunchConfig_t    c = {};
    cudaLaunchAttribute   with[2] = {};

    c.gridDim = dim3((unsigned)(tiles * parts));
    c.blockDim = dim3(THREADS);
    c.dynamicSmemBytes = Shape<NT>::bytes;
    c.stream = (cudaStream_t)stream;
    with[0].id = cudaLaunchAttributeClusterDimension;
    with[0].val.clusterDim.x = (unsigned)parts;
    with[0].val.clusterDim.y = with[0].val.clusterDim.z = 1;
    with[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    with[1].val.programmaticStreamSerializationAllowed = 1;
    c.attrs = with;
    c.numAttrs = mi_overlaps() ? 2 : 1;
    const cudaError_t error = cudaLaunchKernelEx(&c, skinny<NT>, a);
    if (error)
        (void)cudaGetLastError(); /* else who asks next is told of it */
    return error;
}

extern "C" int mi_cuda_skinny(void *stream, const MiSkinny *a)
{
    const int per = a->gated ? TILE / 2 : TILE, tiles = (a->out + per - 1) / per, parts = parts_of(tiles, a->in);

    return a->rows <= 8    ? launch<1>(stream, *a, tiles, parts)
           : a->rows <= 16 ? launch<2>(stream, *a, tiles, parts)
           : a->rows <= 32 ? launch<4>(stream, *a, tiles, parts)
           : a->rows <= 64 ? launch<8>(stream, *a, tiles, parts)
                           : cudaErrorInvalidValue;
}
