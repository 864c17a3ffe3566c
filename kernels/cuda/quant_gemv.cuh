/* quant_gemv.cuh - gemv.cuh for the matrices of quant.h: few rows of x, W read at the memory's speed.
 *
 * What streams, waits and ends is gemv.cuh's; the product is one of integers.  x is written
 * as x = scale * (256 high + low), a scale for 128 columns, high and low of 8 bit: 15 bits and a
 * sign, finer than the bf16 that most of its elements are.  The two are columns of the narrow side of
 * mma.m16n8k32, so four rows of x fill it; W is its tall side, two records of eight rows,
 * which need not lie next to each other.  Weights of 8 bit need no conversion at all, of
 * 4 bit one and a half operations for four: a nibble in the high half of its byte is 16 times
 * itself; of 5 and 6 bit four.  The sums are exact until a group's scale multiplies them.  One row of x and the usual form
 * take dp4a instead.
 *
 * One row of x leaves three of four column pairs of the narrow side idle.  Where groups have scales each pair then
 * has one quarter of a chunk, and nothing of the others: the four lanes of a row come out with four
 * groups' sums, and each multiplies by one scale instead of all by four. */
#ifndef KERNELS_CUDA_QUANT_GEMV_CUH
#define KERNELS_CUDA_QUANT_GEMV_CUH

#include "quant_gemv_products.cuh"

namespace mi_quant
{

#if __CUDA_ARCH__ >= 900

/* LATE: each tile has threads of its own for its end, which
 * look up what it needs before the wait; for one row. */
template <int BITS, int SCALES, int KIND, int M, bool LATE>
__global__ void __maxnreg__(96) packed(const __grid_constant__ Packed a)
{
    extern __shared__ __align__(128) char smem[];

    let_successor_start();
    const Share t = share_of_octets<KIND>(a);
    const int   duos = duos_of<KIND>(t), tid = threadIdx.x, lane = tid % 32, g = lane / 4, warp = tid / 32;
    if (warp == a.warps) {
        const uint64_t policy = evict_first_policy();
        produce_stages(a, duos * a.cuts, a.team, smem,
                       [&](int stage, int slot) { request_slice<KIND>(a, t, smem, stage, slot, policy); });
        return;
    }
    float4 gain[GAINS][2] = {};
    int    row[M];
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
    const int  items = t.n * M, item = LATE ? tid >> a.team_shift : tid, unit = unit_of<KIND>(t, item / M);
    const bool two = PAIRED<KIND> || item / M * 2 + 1 < t.rows;
    float4     ahead = {0, 0, 1, 0};
    Target     target = {};
    if (LATE && item < items) {
        ahead = look_up<KIND>(a, unit, 0, two);
        if (KIND == MI_GEMV_QKV)
            target = target_of<bf16>(a, unit, 0);
    } else if (!LATE && KIND != MI_GEMV_GATED && KIND != MI_GEMV_HEAD) {
#pragma unroll 1
        for (int i = tid; i < items; i += a.warps * 32)
            ((float4 *)(smem + a.known))[i] =
                look_up<KIND>(a, unit_of<KIND>(t, i / M), i % M, PAIRED<KIND> || i / M * 2 + 1 < t.rows);
    }
    __syncthreads();

    wait_for_predecessor();
    if (tid == 0)
        barrier_arrive((uint64_t *)(smem + RELEASED));
    const float2 residual = item < items ? residual_of<bf16, KIND>(a, unit, item % M, two) : float2{0, 0};
    split_rows<BITS, SCALES, KIND, M>(a, row, gain, smem);
    consumers_meet(a);

    /* Column g of the narrow side is row g / 2 of x, high or low, or its quarter g / 2; of those past the last nothing is used. */
    const int      team = warp * a.team_magic >> 16, part = warp - team * a.team;
    const int      column = SCALES == USUAL ? 0 : g % (2 * M);
    constexpr bool QUARTERS = SCALES != USUAL && M == 1; /* multiply_quarter() */
    const unsigned ring = shared_address(smem) + HEADER, of_x = shared_address(smem) + a.xs + lane % 4 * 16;
    const unsigned x = of_x + (QUARTERS ? g / 4 * 128 + g / 2 % 2 * 8 + g % 2 * 64 : column * 64);
    const unsigned factors = shared_address(smem) + a.factors + min(lane % 4, QUARTERS ? 3 : M - 1) * sizeof(float2);
    constexpr int  OF_CHUNK = GROUPS<SCALES> * M * sizeof(float2);
    float         *parts = (float *)(smem + a.parts);
    int            slot = team, phase = 0;
    /* Rows g and 8 + g of a duo: a tile's two rows lie in both records, or next to each other. */
    auto leave = [&](int i, bool both, float y0, float y1) {
        const bool apart = KIND == MI_GEMV_GATED || (KIND == MI_GEMV_QKV && !a.interleaved);
        const int  tile = i * OCTET + (apart ? g : g / 2), one = apart ? 0 : g % 2, m = lane % 4;
        parts[(2 * (tile * M + m) + one) * a.team + part] = y0;
        if (both)
            parts[(2 * ((tile + (apart ? 0 : OCTET / 2)) * M + m) + (apart ? 1 : one)) * a.team + part] = y1;
    };
    if constexpr (LATE && KIND == MI_GEMV_RESIDUAL && BITS == 4) {
        if (t.rows <= OCTET) { /* one team then */
            float y = 0;
#pragma unroll 1
            for (int cut = 0; cut < a.cuts; cut++) {
                uint64_t      *full = (uint64_t *)smem + slot;
                const unsigned at = ring + slot * a.stage_bytes;
                const int      from = cut * a.slice, n = min(a.slice, a.blocks_of_x - from);
                barrier_wait(full, phase);
#pragma unroll 1
                for (int c = part; c < n; c += 2 * a.team) {
                    const bool more = c + a.team < n;
                    const int  other = more ? c + a.team : c;
                    multiply_two(at + c * a.chunk, at + other * a.chunk, more,
                                 of_x + (from + (g / 2 % 2 ? other : c)) * 256 + g % 2 * 64,
                                 factors + (from + (lane % 4 ? other : c)) * OF_CHUNK, y);
                }
                __syncwarp();
                if (lane == 0)
                    barrier_arrive(full + MAX_STAGES);
                if (++slot == a.stages) {
                    slot = 0;
                    phase ^= 1;
                }
            }
            y += __shfl_xor_sync(~0u, y, 1);
            if (lane % 4 == 0)
                leave(0, false, y, 0);
            slot = -1;
        }
    }
#pragma unroll 1
    for (int i = slot < 0 ? duos : team; i < duos; i += a.teams) {
        const bool     both = PAIRED<KIND> || (2 * i + 1) * OCTET < t.rows;
        const unsigned second = both ? a.half : 0;
        float          y[2] = {}, offset = 0;
#pragma unroll 1
        for (int cut = 0; cut < a.cuts; cut++) {
            uint64_t      *full = (uint64_t *)smem + slot;
            const unsigned at = ring + slot * a.stage_bytes;
            const int      from = cut * a.slice, n = min(a.slice, a.blocks_of_x - from);
            barrier_wait(full, phase);
#pragma unroll 1
            for (int c = part; c < n; c += a.team) {
                const unsigned p = at + c * a.chunk, q = p + second, xc = x + (from + c) * 256 * M,
                               fc = factors + (from + c) * OF_CHUNK;
                if constexpr (QUARTERS) {
                    multiply_quarter<BITS, SCALES>(a, p, q, xc, fc, y, offset);
                } else if constexpr (SCALES != USUAL) {
                    multiply_rows<BITS, SCALES, M>(a, p, q, xc, fc, y, offset);
                } else {
                    multiply_one<BITS>(p, q, xc, fc, y);
                }
            }
            if (M == 1 && cut == a.cuts - 1) {
                added_up(y[0]);
                added_up(y[1]);
                added_up(offset);
            }
            if (BITS == 8 && SCALES <= ROW_SCALES && cut == a.cuts - 1) {
                const float *s = (const float *)(smem + HEADER + slot * a.stage_bytes + n * a.chunk) + g;
                const float *r = s + second / 4;
                y[0] = s[0] * (SCALES == ROW_SCALES ? fmaf(s[OCTET], offset, y[0]) : y[0]);
                y[1] = r[0] * (SCALES == ROW_SCALES ? fmaf(r[OCTET], offset, y[1]) : y[1]);
            }
            __syncwarp();
            if (lane == 0)
                barrier_arrive(full + MAX_STAGES);
            slot += a.teams;
            if (slot >= a.stages) {
                slot -= a.stages;
                phase ^= 1;
            }
        }
        if (lane % 4 < M)
            leave(i, both, y[0], y[1]);
    }
    const float scale = LATE && NORMED<KIND> ? inverse_rms<M>(a, smem, 0) : 1;
    consumers_meet(a);
    if constexpr (LATE) {
        const int k = tid & (a.team - 1);
        float     y0 = 0, y1 = 0;
        if (item < items) {
            y0 = parts[(2 * item << a.team_shift) + k];
            y1 = parts[(2 * item + 1 << a.team_shift) + k];
        }
#pragma unroll 1
        for (int o = 1; o < a.team; o *= 2) {
            y0 += __shfl_xor_sync(~0u, y0, o);
            y1 += __shfl_xor_sync(~0u, y1, o);
        }
        if (item < items && k == 0)
            end_tile<bf16, KIND>(a, unit, 0, two, y0 * scale + ahead.x, y1 * scale + ahead.y, ahead, residual, target);
    } else {
        end_summed<bf16, KIND, M>(a, t, smem, residual);
    }
}

#else

template <int BITS, int SCALES, int KIND, int M, bool LATE> __global__ void packed(const __grid_constant__ Packed a)
{
    (void)a;
}

#endif

typedef void (*PackedKernel)(Packed);

/* The kernel for several rows, or one, of weights of any form. */
template <int BITS, int SCALES> PackedKernel any_kernel(MiGemvKind kind, bool several)
{
    switch (kind) {
    case MI_GEMV_PLAIN:
        return several ? packed<BITS, SCALES, MI_GEMV_PLAIN, 4, false> : packed<BITS, SCALES, MI_GEMV_PLAIN, 1, false>;
    case MI_GEMV_RESIDUAL:
        return several ? packed<BITS, SCALES, MI_GEMV_RESIDUAL, 4, false> : packed<BITS, SCALES, MI_GEMV_RESIDUAL, 1, false>;
    case MI_GEMV_GATED:
        return several ? packed<BITS, SCALES, MI_GEMV_GATED, 4, false> : packed<BITS, SCALES, MI_GEMV_GATED, 1, false>;
    case MI_GEMV_QKV:
        return several ? packed<BITS, SCALES, MI_GEMV_QKV, 4, false> : packed<BITS, SCALES, MI_GEMV_QKV, 1, false>;
    case MI_GEMV_HEAD:
        return several ? packed<BITS, SCALES, MI_GEMV_HEAD, 4, false> : packed<BITS, SCALES, MI_GEMV_HEAD, 1, false>;
    }
    return NULL;
}

/* Those of other files. */
PackedKernel blocks_kernel(MiQuantForm, MiGemvKind, bool several);
PackedKernel wide_kernel(MiQuantForm, MiGemvKind, bool several);

} // namespace mi_quant
#endif
