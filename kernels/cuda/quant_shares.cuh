/* quant_shares.cuh - how the blocks of a cluster add up what each has of a tile: every warp sends its sums to the block that
 * ends them, which waits for their bytes and adds them up in the order of parts and turns. */
#ifndef KERNELS_CUDA_QUANT_SHARES_CUH
#define KERNELS_CUDA_QUANT_SHARES_CUH

#include "quant_tiles.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

namespace mi_quant_rows
{

constexpr int DONE = 4 * RING * 8; /* in shared memory: opens when all shares are there */

/* Row of x that lane t of four has as value k of its eights e, i = 2 e + k.  One duo: as wgmma has it; two: as quant_rows_mma.cu reads x. */
template <int DUOS> __device__ __forceinline__ int row_of_x(int i, int t) { return DUOS == 1 ? i / 2 * 8 + t * 2 + i % 2 : i * 4 + t; }

/* Shares, in shared memory: [part][turn][duo][fours of rows of x][thread of a turn] of rows g and 8 + g.  Each warp, of DUOS
 * times 16 rows of W, gives each block of the cluster what is of its share.  A cluster of one has no such stores. */
template <int TURNS, int N, int DUOS, int THREADS> __device__ __forceinline__ void give(const Product &a, char *smem, const float *y)
{
    const int      part = blockIdx.x % a.parts, turn = threadIdx.x / THREADS, thread = threadIdx.x % THREADS;
    const int      fours = N / 4 / a.parts, shift = 31 - __clz(fours);
    const unsigned own = shared_address(smem) + a.shares + ((part * TURNS + turn) * DUOS * fours * THREADS + thread) * 8;
    const unsigned done = shared_address(smem) + DONE;

#pragma unroll
    for (int i = 0; i < N / 4; i++) {
        const int      rank = i >> shift, four = i & (fours - 1);
        const unsigned to = in_block(own + four * THREADS * 8, rank), bar = in_block(done, rank);
#pragma unroll
        for (int duo = 0; duo < DUOS; duo++) {
            const float *v = y + (duo * (N / 8) + i / 2) * 4 + i % 2;
            if (a.parts == 1) {
                *(float2 *)(smem + a.shares + (((turn * DUOS + duo) * fours + i) * THREADS + thread) * 8) = {v[0], v[2]};
                continue;
            }
            asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v2.f32 [%0], {%1, %2}, [%3];" ::"r"(
                             to + duo * fours * THREADS * 8),
                         "f"(v[0]), "f"(v[2]), "r"(bar)
                         : "memory");
        }
    }
}

/* What came, in the order of parts and turns, to y. */
template <int TURNS, int N, int DUOS, int THREADS> __device__ __forceinline__ void finish(const Product &a, char *smem)
{
    const int part = blockIdx.x % a.parts, tile = blockIdx.x / a.parts, fours = N / 4 / a.parts, all = DUOS * fours * THREADS;

    wait_for_predecessor(); /* it is done since x is here */
    if (a.parts == 1)
        asm volatile("bar.sync 1, %0;" ::"n"(TURNS * THREADS) : "memory");
    else
        barrier_wait((uint64_t *)(smem + DONE), 0);
#pragma unroll 1
    for (int i = threadIdx.x; i < all; i += TURNS * THREADS) {
        const int thread = i % THREADS, four = i / THREADS % fours, duo = i / THREADS / fours;
        const int m = row_of_x<DUOS>(part * fours + four, thread % 4), row = tile * TILE + (thread / 32 * DUOS + duo) * 16 + thread % 32 / 4;
        const float2 *from = (const float2 *)(smem + a.shares) + i;
        float         sum[2] = {};
#pragma unroll 4
        for (int s = 0; s < a.parts * TURNS; s++) {
            const float2 v = from[s * all];
            sum[0] += v.x;
            sum[1] += v.y;
        }
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const int     o = row + r * OCTET;
            const int64_t at = m * a.y_stride + o;
            if (m >= a.rows || o >= a.out)
                continue;
            if (a.bias)
                sum[r] += a.bias[o];
            if (a.y_f32)
                ((float *)a.y)[at] = sum[r];
            else
                ((bf16 *)a.y)[at] = from_float<bf16>(sum[r]);
        }
    }
}

} // namespace mi_quant_rows

#endif
#endif
