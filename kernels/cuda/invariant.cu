/* invariant.cu - one order of every sum, for one row as for thousands.
 *
 * Of 16 bits: a block has 16 rows of W, or 32 or 64 where there are so many, and up to 64 of x; its eight warps share
 * the columns, 32 at a time in turn, and add up what they have in the order of the warps.  An element of a product of
 * mma.m16n8k16 is a function of its own row of W and of x alone, so that neither the place of a row in a tile nor the
 * size of the tile changes its bits (tests/gpu_invariant.c compares them).  The columns of a tile are dealt to the
 * instructions so that a lane reads 16 bytes at a time: any order will do, as long as it is that of W and of x.
 *
 * f32, the yardstick: a warp for a row of W, whose lanes have every 32nd four columns. */
#include "invariant.h"
#include "device.cuh"

namespace {

constexpr int WARPS = 8, THREADS = WARPS * 32, TILE_OUT = 16, TILE_ROWS = 8, COLUMNS = 32;

struct Part {
    const void  *w;
    const float *bias;
    void        *y;
    int64_t      y_stride; /* elements between rows */
    int          out, blocks;
};

struct Product {
    const void *x;
    Part        parts[MI_INVARIANT_PARTS];
    int64_t     x_stride; /* elements between rows */
    int         rows, in, n;
    bool        whole; /* a lane's 16 bytes are aligned, and all there or none */
};

/* The part that this block is of; *block: its place in that. */
__device__ __forceinline__ const Part &part_of(const Product &p, int *block)
{
    int i = 0;

    *block = blockIdx.x;
    for (; i + 1 < p.n && *block >= p.parts[i].blocks; i++)
        *block -= p.parts[i].blocks;
    return p.parts[i];
}

/* ---- 16 bits ------------------------------------------------------------------------ */

/* Eight elements from column k on; what lies behind the row is zero. */
template <typename T> __device__ __forceinline__ uint4 eight(const T *row, int k, const Product &p)
{
    uint4 v = make_uint4(0, 0, 0, 0);

    if (p.whole) {
        if (k < p.in)
            v = __ldg((const uint4 *)(row + k));
        return v;
    }
    unsigned short *to = (unsigned short *)&v;
#pragma unroll
    for (int i = 0; i < 8; i++)
        if (k + i < p.in)
            to[i] = __ldg((const unsigned short *)row + k + i);
    return v;
}

template <typename T>
__device__ __forceinline__ void multiply(float (&c)[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0,
                                         unsigned b1);
template <>
__device__ __forceinline__ void multiply<bf16>(float (&c)[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3,
                                               unsigned b0, unsigned b1)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
template <>
__device__ __forceinline__ void multiply<__half>(float (&c)[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3,
                                                 unsigned b0, unsigned b1)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

/* One tile of W: the warps' sums are added in their order, and leave. */
template <typename Y, int N>
__device__ __forceinline__ void finish(const Part &p, int rows, const float (&sum)[N][4], int o0, int r0,
                                       float (*part)[N * TILE_ROWS][TILE_OUT + 1])
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;

    __syncthreads(); /* the tile before this one has left */
#pragma unroll
    for (int n = 0; n < N; n++) {
        part[warp][n * TILE_ROWS + 2 * t][g] = sum[n][0];
        part[warp][n * TILE_ROWS + 2 * t + 1][g] = sum[n][1];
        part[warp][n * TILE_ROWS + 2 * t][g + 8] = sum[n][2];
        part[warp][n * TILE_ROWS + 2 * t + 1][g + 8] = sum[n][3];
    }
    __syncthreads();
    for (int i = threadIdx.x; i < N * TILE_ROWS * TILE_OUT; i += THREADS) {
        const int o = i % TILE_OUT, r = i / TILE_OUT;
        float     v = part[0][r][o];
#pragma unroll
        for (int w = 1; w < WARPS; w++)
            v += part[w][r][o];
        if (o0 + o < p.out && r0 + r < rows)
            ((Y *)p.y)[(r0 + r) * p.y_stride + o0 + o] = from_float<Y>(p.bias ? v + p.bias[o0 + o] : v);
    }
}

/* M tiles of W, N of x. */
template <typename T, typename Y, int M, int N>
__global__ void __launch_bounds__(THREADS) product(const __grid_constant__ Product p)
{
    __shared__ float part[WARPS][N * TILE_ROWS][TILE_OUT + 1];
    const int        lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    int              block;
    const Part      &own = part_of(p, &block);
    const int        o0 = block * M * TILE_OUT, r0 = blockIdx.y * N * TILE_ROWS;
    const T         *w[M][2], *x[N];
    float            sum[M][N][4] = {};

    /* Rows beyond the last are computed from the last, and dropped. */
#pragma unroll
    for (int m = 0; m < M; m++)
        for (int i = 0; i < 2; i++)
            w[m][i] = (const T *)own.w + (int64_t)min(o0 + m * TILE_OUT + 8 * i + g, own.out - 1) * p.in;
#pragma unroll
    for (int n = 0; n < N; n++)
        x[n] = (const T *)p.x + min(r0 + n * TILE_ROWS + g, p.rows - 1) * p.x_stride;
    let_successor_start();
    wait_for_predecessor();
#pragma unroll(M * N <= 2 ? 4 : 1)
    for (int k = warp * COLUMNS + t * 8; k - t * 8 < p.in; k += WARPS * COLUMNS) {
        uint4 a[M][2], b[N];
#pragma unroll
        for (int m = 0; m < M; m++)
            a[m][0] = eight(w[m][0], k, p), a[m][1] = eight(w[m][1], k, p);
#pragma unroll
        for (int n = 0; n < N; n++)
            b[n] = eight(x[n], k, p);
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int n = 0; n < N; n++) {
                multiply<T>(sum[m][n], a[m][0].x, a[m][1].x, a[m][0].y, a[m][1].y, b[n].x, b[n].y);
                multiply<T>(sum[m][n], a[m][0].z, a[m][1].z, a[m][0].w, a[m][1].w, b[n].z, b[n].w);
            }
    }
#pragma unroll
    for (int m = 0; m < M; m++)
        finish<Y, N>(own, p.rows, sum[m], o0 + m * TILE_OUT, r0, part);
}

/* Blocks of so many rows of W, over all parts. */
unsigned share_out(Product *p, int outs)
{
    unsigned all = 0;

    for (int i = 0; i < p->n; i++)
        all += (unsigned)(p->parts[i].blocks = (p->parts[i].out + outs - 1) / outs);
    return all;
}

template <typename T, typename Y, int M, int N> int launch(void *stream, Product p)
{
    const unsigned blocks = share_out(&p, M * TILE_OUT);
    const unsigned groups = (unsigned)(p.rows + N * TILE_ROWS - 1) / (N * TILE_ROWS);

    return mi_launch(product<T, Y, M, N>, dim3(blocks, groups), THREADS, 0, stream, p);
}

/* What a block reads of x serves more rows of W where there are enough of them for all of a card's processors. */
template <typename T, typename Y> int launch(void *stream, Product p)
{
    constexpr int FULL = 264; /* blocks: two for each of an H100's processors */
    const int64_t groups = (p.rows + 8 * TILE_ROWS - 1) / (8 * TILE_ROWS), outs = share_out(&p, TILE_OUT);

    if (p.rows <= TILE_ROWS)
        return outs >= 4 * FULL ? launch<T, Y, 2, 1>(stream, p) : launch<T, Y, 1, 1>(stream, p);
    if (p.rows <= 2 * TILE_ROWS)
        return outs >= 4 * FULL ? launch<T, Y, 2, 2>(stream, p) : launch<T, Y, 1, 2>(stream, p);
    if (p.rows <= 4 * TILE_ROWS)
        return outs >= 4 * FULL ? launch<T, Y, 2, 4>(stream, p) : launch<T, Y, 1, 4>(stream, p);
    return outs * groups >= 4 * FULL   ? launch<T, Y, 4, 8>(stream, p)
           : outs * groups >= 2 * FULL ? launch<T, Y, 2, 8>(stream, p)
                                       : launch<T, Y, 1, 8>(stream, p);
}

/* ---- f32 ---------------------------------------------------------------------------- */

constexpr int LINES = 8; /* rows of x of a warp */

__global__ void __launch_bounds__(THREADS) product_f32(const __grid_constant__ Product p)
{
    int          block;
    const Part  &own = part_of(p, &block);
    const int    o = block * WARPS + threadIdx.x / 32, lane = threadIdx.x % 32, r0 = blockIdx.y * LINES;
    const float *x = (const float *)p.x, *w = (const float *)own.w + (int64_t)min(o, own.out - 1) * p.in;
    float        sum[LINES] = {};

    let_successor_start();
    wait_for_predecessor();
    for (int k = lane * 4; k < p.in; k += 128)
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (k + i < p.in)
#pragma unroll
                for (int r = 0; r < LINES; r++)
                    sum[r] = fmaf(w[k + i], x[min(r0 + r, p.rows - 1) * p.x_stride + k + i], sum[r]);
#pragma unroll
    for (int r = 0; r < LINES; r++) {
        const float v = warp_sum(sum[r]);
        if (lane == 0 && o < own.out && r0 + r < p.rows)
            ((float *)own.y)[(r0 + r) * own.y_stride + o] = own.bias ? v + own.bias[o] : v;
    }
}

} // namespace

extern "C" int mi_cuda_invariant(void *stream, MiTensor x, const MiInvariantPart *parts, int n)
{
    const MiDType to = parts->y.dtype;
    Product       p = {};
    int64_t       in = 1;
    bool          aligned = (uintptr_t)x.data % 16 == 0;

    if (n < 1 || n > MI_INVARIANT_PARTS)
        return cudaErrorInvalidValue;
    for (int d = 1; d < x.ndim; d++)
        in *= x.shape[d];
    for (int i = 0; i < n; i++) {
        const MiTensor &y = parts[i].y;
        if (y.dtype != to)
            return cudaErrorInvalidValue;
        p.parts[i] = Part{ parts[i].w, parts[i].bias, y.data, y.stride[0], (int)y.shape[1], 0 };
        aligned = aligned && (uintptr_t)parts[i].w % 16 == 0;
    }
    p.x = x.data, p.x_stride = x.stride[0];
    p.rows = (int)parts->y.shape[0], p.in = (int)in, p.n = n;
    p.whole = aligned && in % 8 == 0 && x.stride[0] % 8 == 0;
    if (!p.rows)
        return 0;
    if (x.dtype == MI_F32 && to == MI_F32) {
        const unsigned blocks = share_out(&p, WARPS);
        return mi_launch(product_f32, dim3(blocks, (unsigned)(p.rows + LINES - 1) / LINES), THREADS, 0, stream, p);
    }
    if (x.dtype == MI_BF16 && (to == MI_F32 || to == MI_BF16))
        return to == MI_F32 ? launch<bf16, float>(stream, p) : launch<bf16, bf16>(stream, p);
    if (x.dtype == MI_F16 && (to == MI_F32 || to == MI_F16))
        return to == MI_F32 ? launch<__half, float>(stream, p) : launch<__half, __half>(stream, p);
    return cudaErrorNotSupported;
}
