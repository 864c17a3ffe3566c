/* skinny.cuh - the kernel behind gemv.h for more rows of x than a few.
 *
 * What gemv.cuh does, with all of a tensor core's work used: 16 rows of x are the tall
 * side of its product, 8 rows of W its narrow one.  A warp keeps its share of the
 * columns of x in registers for as long as the kernel runs, and W goes from the ring
 * through each warp once; the warps' sums meet in shared memory, 16 rows of W at a time.
 *
 * x is what such a kernel waits for: all multiprocessors want the same 100 KB at the same
 * time.  Blocks of a cluster fetch a share of it each, for all of them.  Where x is too
 * much for a block, blocks of a cluster take a part of its columns each, and add up what
 * the others send them of the sums that they end.
 *
 * Which columns a lane multiplies in which step is free as long as x and W agree: 8 next
 * to each other, so that a load of 16 bytes feeds two steps.  Rows lie in shared memory
 * at a distance of 64 bytes modulo 128: two of them, 64 bytes of each, are what eight
 * lanes read at once. */
#ifndef KERNELS_CUDA_SKINNY_CUH
#define KERNELS_CUDA_SKINNY_CUH

#include "skinny_parts.cuh"

namespace mi_skinny
{

#if __CUDA_ARCH__ >= 900

/* ---- the kernel ---------------------------------------------------------------------------------- */

/* Two tiles, at p and q in the ring, times x. */
template <int MT, int STEPS>
__device__ __forceinline__ void multiply(float (*d)[MT][4], const uint4 (*x)[MT][2], unsigned p, unsigned q, int first, int step,
                                         int last)
{
#pragma unroll
    for (int s = 0; s < STEPS; s++) {
        const unsigned at = min(first + s * step, last) * 16; /* beyond the last there is no x */
        const uint4    u = load_shared(p + at), v = load_shared(q + at);
#pragma unroll
        for (int m = 0; m < MT; m++) {
            mma<bf16>(d[0][m], x[s][m][0].x, x[s][m][1].x, x[s][m][0].y, x[s][m][1].y, u.x, u.y);
            mma<bf16>(d[1][m], x[s][m][0].x, x[s][m][1].x, x[s][m][0].y, x[s][m][1].y, v.x, v.y);
        }
#pragma unroll
        for (int m = 0; m < MT; m++) {
            mma<bf16>(d[0][m], x[s][m][0].z, x[s][m][1].z, x[s][m][0].w, x[s][m][1].w, u.z, u.w);
            mma<bf16>(d[1][m], x[s][m][0].z, x[s][m][1].z, x[s][m][0].w, x[s][m][1].w, v.z, v.w);
        }
    }
}

/* So that two such kernels are on a multiprocessor at once, or one beside attention. */
template <int MT, int STEPS> constexpr int MOST_REGISTERS = STEPS > 4 ? 168 : MT > 1 ? 112 : 80;

/* MT: sixteens of rows of x; STEPS: of columns that a warp keeps.  A group's sums are 4 MT pieces of 32 pairs: piece
 * c is tile c / 2 MT, rows c % (2 MT) * 8 + lane / 4 of x, the pair lane % 4 of the tile.  SPLIT: each part of the
 * columns ends every so-manieth piece, counted over all groups. */
template <int KIND, int MT, int STEPS, bool SPLIT>
__global__ void __maxnreg__((MOST_REGISTERS<MT, STEPS>)) skinny(const __grid_constant__ Wide a)
{
    constexpr int OCTETS = 2 * MT, PIECES = 2 * OCTETS;
    extern __shared__ __align__(128) char smem[];

    let_successor_start();
    const Rank    rank = rank_of(a);
    const Share   t = share_of_rows<KIND>(a);
    const Columns k = columns_of(a, rank.part);
    const int     tid = threadIdx.x, lane = tid % 32, warp = tid / 32;
    if (warp == a.warps) {
        produce<KIND, MT, SPLIT>(a, t, k, rank, smem);
        return;
    }
    if (a.split + a.share)
        cluster_here();
    const int tiles = (t.rows + TILE_ROWS - 1) / TILE_ROWS, groups = (tiles + 1) / 2;
    const int parts = SPLIT ? 1 << a.split : 1, part = SPLIT ? rank.part : 0;
    /* Piece q of all groups: its pair and its row of x; where it is this thread's. */
    auto pair_at = [&](int q) { return q / OCTETS * TILE_PAIRS + lane % 4; };
    auto row_at = [&](int q) { return q % OCTETS * 8 + lane / 4; };
    auto there = [&](int q) { return q < groups * PIECES && pair_at(q) < t.n && row_at(q) < a.rows; };
    auto two_at = [&](int pair) { return PAIRED<KIND> || 2 * pair + 1 < t.rows; };
    auto known_at = [&](int q) { return (float4 *)(smem + a.known) + (SPLIT ? q >> a.split : q) * 32 + lane; };
    auto residual_at = [&](int q) {
        return KIND == MI_GEMV_RESIDUAL && a.residual && there(q)
                   ? load_residual(a, unit_of<KIND>(t, pair_at(q)), row_at(q), two_at(pair_at(q)))
                   : 0;
    };

    if (NORMED<KIND>)
        split_gains(a, k, smem);
    if (KIND == MI_GEMV_QKV) {
#pragma unroll 1
        for (int m = tid; m < MT * 16; m += a.warps * 32)
            ((int *)(smem + SLOTS))[m] = m < a.rows ? slot_of(a, m) : -1;
#pragma unroll 1
        for (int q = warp * parts + part; q < groups * PIECES; q += a.warps * parts)
            if (there(q))
                *known_at(q) = look_up<KIND>(a, unit_of<KIND>(t, pair_at(q)), row_at(q), true);
    }
    if (KIND == MI_GEMV_HEAD)
#pragma unroll 1
        for (int i = 0; i < OCTETS; i++)
            ((MiCandidate *)(smem + a.bests))[(warp * OCTETS + i) * 32 + lane] = {-INFINITY, 0x7fffffff};
    if (tid == 0)
        *(uint4 *)(smem + ZEROS) = {0, 0, 0, 0};
    const Row mine = warp == 0 ? row_of_lane<KIND>(a, k, rank, smem) : Row{NULL, NULL};
    started_together(a); /* so the shared memory of the others may be written */
    consumers_meet(a);   /* and what they wrote here be read */

    wait_for_predecessor();
    fetch(a, mine, k, rank, smem);
    if (tid == 0)
        barrier_arrive((uint64_t *)(smem + RELEASED));
    unsigned residual = residual_at(SPLIT ? warp * parts + part : warp);

    uint4 x[STEPS][MT][2];
    barrier_wait((uint64_t *)(smem + FETCHED), 0);
#pragma unroll
    for (int s = 0; s < STEPS; s++) {
        const int      c = (s * a.warps + warp) * 4 + lane % 4;
        const unsigned at = shared_address(smem) + (c < k.n ? a.xs + lane / 4 * a.pitch + c * 16 : ZEROS);
#pragma unroll
        for (int i = 0; i < OCTETS; i++)
            x[s][i / 2][i % 2] = load_shared(at + (c < k.n ? i * 8 * a.pitch : 0));
    }
    if (NORMED<KIND>)
        norm_x<MT, STEPS>(a, k, x, smem);
    consumers_meet(a); /* x is read: the sums take its place */
    if (NORMED<KIND> && SPLIT)
        share_squares<MT>(a, rank, smem);

    /* The end of a piece. */
    auto end = [&](int q, float y0, float y1, float scale, unsigned raw) {
        const int  pair = pair_at(q), m = row_at(q);
        const bool two = two_at(pair);
        if (!there(q))
            return;
        const int unit = unit_of<KIND>(t, pair);
        float4    p = {0, 0, 1, 0};
        float2    r = {0, 0};
        if (KIND == MI_GEMV_QKV)
            p = *known_at(q);
        if (KIND == MI_GEMV_RESIDUAL) {
            r = unpack(raw, bf16());
            if (a.bias[0]) {
                p.x = a.bias[0][unit];
                p.y = two ? a.bias[0][unit + 1] : 0;
            }
        }
        y0 = y0 * scale + p.x;
        y1 = y1 * scale + p.y;
        end_tile<bf16, KIND>(a, unit, m, two, y0, y1, p, r,
                             KIND == MI_GEMV_QKV ? target_at<bf16>(a, unit, m, ((const int *)(smem + SLOTS))[m]) : Target());
        if (KIND == MI_GEMV_HEAD) {
            MiCandidate *best = (MiCandidate *)(smem + a.bests) + (warp * OCTETS + q % OCTETS) * 32 + lane;
            MiCandidate  v = *best;
            if (beats(y0, unit, v.logit, v.token))
                v = {y0, unit};
            if (two && beats(y1, unit + 1, v.logit, v.token))
                v = {y1, unit + 1};
            *best = v;
        }
    };

    const unsigned ring = shared_address(smem) + START + lane / 4 * a.pitch;
    const int      first = warp * 4 + lane % 4, step = a.warps * 4;
    int            slot = 0, phase = 0;
    float          scale = 1;
#pragma unroll 1
    for (int r = 0; r < a.rounds + SPLIT; r++) {
        if (SPLIT && r >= 2 && r < a.rounds) /* what was sent two rounds ago has been read */
            wait_for_cluster(shared_address(smem + TAKEN) + (r & 1) * 8, ((r >> 1) - 1) & 1);
        const int until = min(groups, (r + 1) * a.round), of_round = r * a.round * PIECES;
#pragma unroll 1
        for (int i = r * a.round; i < until; i++) {
            const bool second = 2 * i + 1 < tiles;
            float      d[2][MT][4] = {};
            const int  other = !second ? slot : slot + 1 == a.stages ? 0 : slot + 1;
            const int  other_phase = second && other == 0 ? phase ^ 1 : phase;
            uint64_t  *full = (uint64_t *)(smem + FULL);
            barrier_wait(full + slot, phase);
            if (second)
                barrier_wait(full + other, other_phase);
            multiply<MT, STEPS>(d, x, ring + slot * a.stage_bytes, ring + other * a.stage_bytes, first, step, k.n - 1);
            float2 *sums = (float2 *)(smem + a.parts) + (i & 1) * a.warps * PIECES * 32 + lane;
#pragma unroll
            for (int c = 0; c < PIECES; c++) {
                const float *v = d[c / OCTETS][c % OCTETS / 2] + c % 2 * 2;
                sums[(warp * PIECES + c) * 32] = {v[0], v[1]};
            }
            consumers_meet(a);
            if (tid == 0) {
                barrier_arrive((uint64_t *)(smem + FREED) + slot);
                if (second)
                    barrier_arrive((uint64_t *)(smem + FREED) + other);
            }
            phase = other + 1 == a.stages ? other_phase ^ 1 : other_phase;
            slot = other + 1 == a.stages ? 0 : other + 1;
#pragma unroll 1
            for (int c = warp; c < PIECES; c += a.warps) {
                const int q = i * PIECES + c;
                float2    y = {0, 0};
#pragma unroll 8
                for (int w = 0; w < a.warps; w++) {
                    const float2 v = sums[(w * PIECES + c) * 32];
                    y.x += v.x;
                    y.y += v.y;
                }
                if constexpr (!SPLIT) {
                    if (NORMED<KIND> && (i == 0 || a.warps < PIECES)) /* else it is that of the same rows as before */
                        scale = scale_of<MT, false>(a, row_at(q), smem);
                    end(q, y.x, y.y, scale, c == warp ? residual : residual_at(q));
                } else {
                    const int owner = q & (parts - 1);
                    char     *to = smem + a.exchange + (r & 1) * a.exchange_bytes +
                               (((q - of_round) >> a.split << a.split) + part) * 256 + lane * 8;
                    if (owner == part)
                        *(float2 *)to = y;
                    else
                        send(in_part(a, rank, shared_address(to), owner), y,
                             in_part(a, rank, shared_address(smem + ARRIVED) + (r & 1) * 8, owner));
                }
            }
            if (!SPLIT)
                residual = residual_at((i + 1) * PIECES + warp);
        }
        if (!SPLIT || r == 0)
            continue;
        if constexpr (SPLIT) {
            /* The round before this one: by now what the others sent has come. */
            const int done = r - 1, begin = done * a.round * PIECES, stop = min(groups, r * a.round) * PIECES;
            consumers_meet(a);
            wait_for_cluster(shared_address(smem + ARRIVED) + (done & 1) * 8, done >> 1 & 1);
#pragma unroll 1
            for (int q = begin + warp * parts + part; q < stop; q += a.warps * parts) {
                const float2 *from = (const float2 *)(smem + a.exchange + (done & 1) * a.exchange_bytes) +
                                     ((q - begin) >> a.split << a.split) * 32 + lane;
                float2        y = {0, 0};
#pragma unroll 2
                for (int p = 0; p < parts; p++) {
                    y.x += from[p * 32].x;
                    y.y += from[p * 32].y;
                }
                if (NORMED<KIND>)
                    scale = scale_of<MT, true>(a, row_at(q), smem);
                end(q, y.x, y.y, scale, q == warp * parts + part ? residual : residual_at(q));
            }
            if (r + 1 < a.rounds) {
                consumers_meet(a);
                if (tid == 0) {
                    barrier_expect((uint64_t *)(smem + ARRIVED) + (done & 1),
                                   awaited<KIND, MT>(a, groups, part, done + 2));
#pragma unroll 1
                    for (int p = 0; p < parts; p++)
                        arrive_there(in_part(a, rank, shared_address(smem + TAKEN) + (done & 1) * 8, p));
                }
            }
        }
    }
    if (KIND == MI_GEMV_HEAD && a.best)
        end_bests<MT>(a, smem);
}

#else

template <int KIND, int MT, int STEPS, bool SPLIT> __global__ void skinny(const __grid_constant__ Wide a)
{
    (void)a;
}

#endif

} // namespace mi_skinny
#endif
