/* gemv.cuh - the kernel behind gemv.h.
 *
 * A block owns a run of tiles, two rows of W each.  Weights do not depend on what
 * the kernels before this one compute, so one warp streams them into a ring in
 * shared memory before the grid dependency is waited for; all kernels of a step
 * let their successors start at once, so that memory is busy while the chain of
 * small dependent kernels runs.  Until the predecessor is done only `flight`
 * stages are on their way: a burst would queue in front of its loads and stores.
 *
 * The product.  A lane of a warp multiplies 8 elements of a row of W by the same 8
 * of x, 256 elements a warp and step.  mma.m16n8k16 adds them up: in its A the 8
 * rows g = lane / 4 are the 8 groups of 4 lanes of the first row of the tile, the
 * 8 below those of the second; in its B column n is group n of x.  So D[g][g] is
 * what group g contributes and the rest of D is not used.  That is an eighth of the
 * tensor core's work, which is idle here, instead of 16 instructions on 8 elements
 * of each row, and needs neither conversions nor registers for f32 copies of x.
 *
 * E4M3 becomes bf16 on its way from the ring to the registers, two elements in three instructions.
 *
 * A step is a chain of five kernels over and over, each as short as starting it:
 * code is kept small, since the kernels push each other out of the instruction
 * caches, and what can be computed on the host is. */
#ifndef KERNELS_CUDA_GEMV_CUH
#define KERNELS_CUDA_GEMV_CUH

#include "gemv_ends.cuh"

namespace mi_gemv
{

#if __CUDA_ARCH__ >= 900

/* ---- the kernel ---------------------------------------------------------------------- */

/* A tile's steps times x: D[g][g] of both rows and each row of x, in the lanes where it is; weight(i, s): of row i. */
template <typename T, int M, typename F>
__device__ __forceinline__ void multiply(F weight, const uint4 (*x)[STEPS], float *sums, int g)
{
    constexpr int CHAINS = M == 1 ? 2 : 1; /* a chain of dependent mma is slow */
    float         d[M][CHAINS][4] = {};

#pragma unroll
    for (int s = 0; s < STEPS; s++) {
        const uint4 p = weight(0, s), q = weight(1, s);
#pragma unroll
        for (int m = 0; m < M; m++) {
            mma<T>(d[m][s % CHAINS], p.x, q.x, p.y, q.y, x[m][s].x, x[m][s].y);
            mma<T>(d[m][s % CHAINS], p.z, q.z, p.w, q.w, x[m][s].z, x[m][s].w);
        }
    }
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            sums[2 * m + i] = g % 2 ? d[m][0][2 * i + 1] : d[m][0][2 * i];
            if (CHAINS == 2)
                sums[2 * m + i] += g % 2 ? d[m][CHAINS - 1][2 * i + 1] : d[m][CHAINS - 1][2 * i];
        }
}

/* The same where each step of a row has a scale of its own. */
template <typename T, int M, typename F>
__device__ __forceinline__ void multiply_blocks(F weight, const float (*scale)[STEPS], const uint4 (*x)[STEPS], float *sums, int g)
{
#pragma unroll
    for (int k = 0; k < 2 * M; k++)
        sums[k] = 0;
#pragma unroll
    for (int s = 0; s < STEPS; s++) {
        const uint4 p = weight(0, s), q = weight(1, s);
#pragma unroll
        for (int m = 0; m < M; m++) {
            float d[4] = {};
            mma<T>(d, p.x, q.x, p.y, q.y, x[m][s].x, x[m][s].y);
            mma<T>(d, p.z, q.z, p.w, q.w, x[m][s].z, x[m][s].w);
            sums[2 * m] = fmaf(g % 2 ? d[1] : d[0], scale[0][s], sums[2 * m]);
            sums[2 * m + 1] = fmaf(g % 2 ? d[3] : d[2], scale[1][s], sums[2 * m + 1]);
        }
    }
}

/* Registers: some cold values are spilt.  48 and 72 for one row let more kernels of the chain be on an SM at once, and
 * their prefetches disturb each other: 0.477 instead of 0.434 ms a step of the 0.5B shape on an H100. */
template <int M, bool RING> constexpr int REGISTERS = M > 2 ? 96 : M == 1 && RING ? 64 : 80;

/* W: a Storage.  RING: weights through the ring; else a tile a team, straight into registers.  LATE: the sums of a tile stay spread
 * over lanes until its end: shorter than shuffles where a block has few tiles, and only for one row. */
template <typename T, int W, int KIND, int M, bool RING, bool LATE>
__global__ void __maxnreg__((REGISTERS<M, RING>)) gemv(const __grid_constant__ Args a)
{
    extern __shared__ __align__(128) char smem[];

    let_successor_start();
    const Share t = share_of<KIND>(a);
    const int   tid = threadIdx.x, lane = tid % 32, g = lane / 4, warp = tid / 32;
    const bool clustered = LATE && KIND == MI_GEMV_QKV && a.cluster;
    if (clustered)
        cluster_arrive();
    if (RING && warp == a.warps) {
        produce<KIND>(a, t, smem);
        if (clustered) { /* its end would do as well, but not under the tools that look for races */
            cluster_wait();
            cluster_arrive();
        }
        return;
    }
    const int team = warp * a.team_magic >> 16, part = warp - team * a.team;
    uint4     w[2][RING ? 1 : STEPS], x[M][STEPS];
    int       chunk[STEPS];
#pragma unroll
    for (int s = 0; s < STEPS; s++) /* the last there is stands for those past it, times x = 0 */
        chunk[s] = min((s * a.team + part) * STEP_CHUNKS + lane, a.chunks - 1);
    if constexpr (!RING) {
        const int   tile = min(team, t.n - 1);
        const Place p = place_of<KIND>(a, unit_of<KIND>(t, tile));
        const bool  two = PAIRED<KIND> || 2 * tile + 1 < t.rows;
#pragma unroll
        for (int s = 0; s < STEPS; s++) {
            w[0][s] = load_weight((const uint4 *)p.first + chunk[s]);
            w[1][s] = load_weight((const uint4 *)(two ? p.second : p.first) + chunk[s]);
        }
    }
    float4 gain[GAINS][2] = {}, ahead = {0, 0, 1, 0};
    float2 factors = {1, 1};
    int    row[M];
    Target target = {};
#pragma unroll
    for (int m = 0; m < M; m++)
        row[m] = KIND == MI_GEMV_HEAD && a.out_rows ? a.out_rows[min(m, a.rows - 1)] : min(m, a.rows - 1);
    if constexpr (NORMED<KIND>) {
#pragma unroll
        for (int k = 0; k < GAINS; k++)
            if (tid + k * a.warps * 32 < a.chunks) {
                gain[k][0] = ((const float4 *)a.gain)[2 * (tid + k * a.warps * 32)];
                gain[k][1] = ((const float4 *)a.gain)[2 * (tid + k * a.warps * 32) + 1];
            }
    }
    const int  item = LATE ? tid / SPREAD : tid, items = t.n * M, unit = unit_of<KIND>(t, item / M);
    const bool two = PAIRED<KIND> || item / M * 2 + 1 < t.rows;
    if (LATE && item < items) {
        ahead = look_up<KIND>(a, unit, 0, two);
        factors = factors_of<W, KIND>(a, unit, two);
        if (KIND == MI_GEMV_QKV)
            target = target_of<T>(a, unit, 0);
    } else if (!LATE && KIND != MI_GEMV_GATED && KIND != MI_GEMV_HEAD) {
#pragma unroll 1
        for (int i = tid; i < items; i += a.warps * 32)
            ((float4 *)(smem + a.known))[i] =
                look_up<KIND>(a, unit_of<KIND>(t, i / M), i % M, PAIRED<KIND> || i / M * 2 + 1 < t.rows);
    }
    if constexpr (W == OF_ROWS && !LATE) {
#pragma unroll 1
        for (int i = tid; i < t.n; i += a.warps * 32)
            ((float2 *)(smem + a.factors))[i] = factors_of<W, KIND>(a, unit_of<KIND>(t, i), PAIRED<KIND> || i * 2 + 1 < t.rows);
    }
    if constexpr (RING)
        __syncthreads();

    wait_for_predecessor();
    if (RING && tid == 0)
        barrier_arrive((uint64_t *)(smem + RELEASED));

    const float2 residual = item < items ? residual_of<T, KIND>(a, unit, item % M, two) : float2{0, 0};
    if constexpr (NORMED<KIND>) {
        norm_rows<T, M>(a, row, gain, smem);
        consumers_meet(a);
    }
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int s = 0; s < STEPS; s++) {
            x[m][s] =
                NORMED<KIND> ? ((const uint4 *)(smem + a.xs))[m * a.chunks + chunk[s]] : load_x(a, row[m], chunk[s]);
            if ((s * a.team + part) * STEP_CHUNKS + lane >= a.chunks)
                x[m][s] = {0, 0, 0, 0};
            if constexpr (W != AS_X)
                x[m][s] = {larger(x[m][s].x), larger(x[m][s].y), larger(x[m][s].z), larger(x[m][s].w)};
        }

    const bool     half = a.stage_tiles == 0, diagonal = lane % 4 == g / 2;
    int            slot = half ? 2 * team : team >> a.stage_shift, phase = 0;
    const unsigned first = shared_address(smem) + HEADER + (half ? 0 : (team & (a.stage_tiles - 1)) * a.tile_pitch);
    float         *parts = (float *)(smem + a.parts);
#pragma unroll 1
    for (int i = team; i < t.n; i += a.teams) {
        float sums[2 * M];
        if constexpr (RING) {
            uint64_t      *full = (uint64_t *)smem + slot;
            const unsigned at = first + slot * a.stage_bytes;
            const bool     more = half && 2 * i + 1 < t.rows; /* the second row is in the next stage */
            const unsigned second = !half || more ? a.second : 0;
            const auto     weight = [&](int r, int s) { return load_eight_of<W>(at + (r ? second : 0), chunk[s]); };
            float          scale[2][STEPS];
            if constexpr (W == OF_BLOCKS) {
                const Scales b = scales_of<KIND>(a, unit_of<KIND>(t, i), PAIRED<KIND> || 2 * i + 1 < t.rows, BLOCK, a.across);
#pragma unroll
                for (int s = 0; s < STEPS; s++) {
                    scale[0][s] = b.first[chunk[s] / (BLOCK / 8)];
                    scale[1][s] = b.second[chunk[s] / (BLOCK / 8)];
                }
            }
            barrier_wait(full, phase);
            if (more)
                barrier_wait(full + 1, phase);
            if constexpr (W == OF_BLOCKS) {
                multiply_blocks<T, M>(weight, scale, x, sums, g);
            } else {
                multiply<T, M>(weight, x, sums, g);
            }
            __syncwarp();
            if (lane == 0) {
                barrier_arrive(full + MAX_STAGES);
                if (more)
                    barrier_arrive(full + MAX_STAGES + 1);
            }
            slot += a.stages_round;
            if (slot >= a.stages) {
                slot -= a.stages;
                phase ^= 1;
            }
        } else {
            multiply<T, M>([&](int r, int s) { return w[r][s]; }, x, sums, g);
        }
        if constexpr (LATE) {
            if (diagonal)
                ((float2 *)parts)[(i * a.team + part) * 8 + g] = {sums[0], sums[1]};
        } else {
#pragma unroll
            for (int k = 0; k < 2 * M; k++)
                sums[k] = diagonal ? sums[k] : 0;
            const float sum = warp_sum_of<2 * M>(sums, lane);
            if (lane % (16 / M) == 0)
                parts[(i * M * 2 + lane / (16 / M)) * a.team + part] = sum;
        }
    }
    const float scale = LATE && NORMED<KIND> ? inverse_rms<M>(a, smem, 0) : 1;
    consumers_meet(a);

    if constexpr (LATE) {
        float y0 = 0, y1 = 0;
        if (item < items)
#pragma unroll 2
            for (int k = 0; k < a.team; k++) {
                const float4 v = ((const float4 *)parts)[(item * a.team + k) * SPREAD + lane % SPREAD];
                y0 += v.x + v.z;
                y1 += v.y + v.w;
            }
#pragma unroll
        for (int o = 1; o < SPREAD; o *= 2) {
            y0 += __shfl_xor_sync(~0u, y0, o);
            y1 += __shfl_xor_sync(~0u, y1, o);
        }
        y0 = y0 * scale * factors.x + ahead.x;
        y1 = y1 * scale * factors.y + ahead.y;
        if (KIND == MI_GEMV_QKV && a.cluster)
            norm_head(a, unit, item < items, smem, y0, y1);
        if (item < items && lane % SPREAD == 0)
            end_tile<T, KIND>(a, unit, 0, two, y0, y1, ahead, residual, target);
    } else {
        end_summed<T, KIND, M, W>(a, t, smem, residual);
    }
}

#else

template <typename T, int W, int KIND, int M, bool RING, bool LATE> __global__ void gemv(const __grid_constant__ Args a)
{
    (void)a;
}

#endif

} // namespace mi_gemv
#endif
