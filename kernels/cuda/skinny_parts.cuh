/* skinny_parts.cuh - what the kernel of skinny.cuh is made of until its sums are there, and
 * what it needs at the ends of rows beyond gemv_ends.cuh. */
#ifndef KERNELS_CUDA_SKINNY_PARTS_CUH
#define KERNELS_CUDA_SKINNY_PARTS_CUH

#include "gemv_ends.cuh"
#include "skinny.h"

namespace mi_skinny
{

using namespace mi_gemv;

constexpr int TILE_ROWS = 8, TILE_PAIRS = 4; /* of W; two tiles make a group */
constexpr int LATER = 4096;                  /* bytes fetched for a later kernel at once */
constexpr int STEP = 32;                     /* columns that a warp multiplies at once */
constexpr int MOST_ROWS = 32, MOST_WARPS = 15, MOST_PARTS = 8;
/* Shared memory: barriers of the ring, of x, of the exchange and of the predecessor's end; what belongs to rows of x; then what regions
 * says. */
constexpr int FULL = 0, FREED = 64 * 8, ARRIVED = 2 * 64 * 8, TAKEN = ARRIVED + 16, FETCHED = TAKEN + 16,
              RELEASED = FETCHED + 16;
constexpr int ZEROS = RELEASED + 16, SLOTS = ZEROS + 16, SUMS = SLOTS + MOST_ROWS * 4;
constexpr int START = (SUMS + (MOST_WARPS + MOST_PARTS) * MOST_ROWS * 4 + 127) / 128 * 128;

struct Wide : Args {
    int32_t steps;              /* of all columns */
    int32_t split, share;       /* 1 << split blocks of a cluster have the columns, 1 << share the same ones */
    int32_t sharers;            /* a bit for each of the latter, of the first part */
    int32_t pitch;              /* bytes between rows in shared memory */
    int32_t round, rounds;      /* groups after which sums are exchanged */
    int32_t gains, bests;       /* where in shared memory; xs, known and parts: as in Args; parts where x was */
    int32_t exchange, exchange_bytes;
    MiGemvLater later[MI_GEMV_LATER];
};

#if __CUDA_ARCH__ >= 900

/* A block's place in its cluster: which part of the columns, and the how-manieth that has it. */
struct Rank {
    int part, index;
};

__device__ __forceinline__ Rank rank_of(const Wide &a)
{
    const int r = blockIdx.x & ((1 << (a.split + a.share)) - 1);
    return {r & ((1 << a.split) - 1), r >> a.split};
}

/* A block's columns, in chunks of 8. */
struct Columns {
    int first, n;
};

__device__ __forceinline__ Columns columns_of(const Wide &a, int part)
{
    const int first = (a.steps * part >> a.split) * (STEP / 8);
    return {first, min((a.steps * (part + 1) >> a.split) * (STEP / 8), a.chunks) - first};
}

/* Pairs of rows are dealt out to the blocks that have the same columns. */
template <int KIND> __device__ __forceinline__ Share share_of_rows(const Wide &a)
{
    const int b = blockIdx.x >> a.split, n = a.each + (b < a.more), first = b * a.each + min(b, a.more);
    return PAIRED<KIND> ? Share{first, n, 2 * n} : Share{2 * first, n, min(2 * n, a.out - 2 * first)};
}

/* ---- clusters -------------------------------------------------------------------------- */

/* The producer, whose barriers are prepared and made visible by a fence; the others, who look for them, call started_together() after it. */
__device__ __forceinline__ void start_together(const Wide &a)
{
    if (a.split + a.share)
        cluster_here();
    else
        asm volatile("bar.arrive 2, %0;" ::"r"(a.warps * 32 + 32) : "memory");
}
__device__ __forceinline__ void started_together(const Wide &a)
{
    if (a.split + a.share)
        cluster_wait();
    else
        asm volatile("bar.sync 2, %0;" ::"r"(a.warps * 32 + 32) : "memory");
}

/* An address in the block of this cluster that has another part of the columns of the same rows. */
__device__ __forceinline__ unsigned in_part(const Wide &a, Rank rank, unsigned address, int part)
{
    return in_block(address, (rank.index << a.split) + part);
}

/* Into the shared memory of another block, whose barrier hears of it. */
__device__ __forceinline__ void send(unsigned to, float2 v, unsigned barrier)
{
    asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.v2.f32 [%0], {%1, %2}, [%3];" ::"r"(to), "f"(v.x),
                 "f"(v.y), "r"(barrier)
                 : "memory");
}
__device__ __forceinline__ void send(unsigned to, float v, unsigned barrier)
{
    asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.f32 [%0], %1, [%2];" ::"r"(to), "f"(v), "r"(barrier)
                 : "memory");
}
__device__ __forceinline__ void wait_for_cluster(unsigned barrier, unsigned parity)
{
    unsigned done;
    do
        asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
                     : "=r"(done)
                     : "r"(barrier), "r"(parity)
                     : "memory");
    while (!done);
}

/* Bytes that the others send a block in a round: their part of the sums it ends; in the first one the squares too. */
template <int KIND, int MT> __device__ __forceinline__ unsigned awaited(const Wide &a, int groups, int part, int round)
{
    const int others = (1 << a.split) - 1, n = min(a.round, groups - round * a.round) * 4 * MT;
    return (((n - part + others) >> a.split) * 256 + (NORMED<KIND> && round == 0 ? MT * 64 : 0)) * others;
}

/* ---- the producer -------------------------------------------------------------------------- */

/* A warp, whose first lanes request a row of a tile each. */
template <int KIND, int MT, bool SPLIT>
__device__ __forceinline__ void produce(const Wide &a, Share t, Columns k, Rank rank, char *smem)
{
    const uint64_t policy = evict_first_policy();
    const int      lane = threadIdx.x % 32, n = (t.rows + TILE_ROWS - 1) / TILE_ROWS;
    uint64_t      *full = (uint64_t *)(smem + FULL), *freed = (uint64_t *)(smem + FREED), *released = (uint64_t *)(smem + RELEASED);
    int            slot = 0, phase = 1, done_slot = 0, done_phase = 0, s = 0, next = a.stages, last = 0;
    auto           row_of = [&](int tile, int row) {
        const Place p = place_of<KIND>(a, unit_of<KIND>(t, tile * TILE_PAIRS + row / 2));
        return (row & 1 ? p.second : p.first) + k.first * 16;
    };

#pragma unroll 1
    for (int i = lane; i < a.stages; i += 32) {
        barrier_init(full + i, 1);
        barrier_init(freed + i, 1);
    }
    if (lane == 31) {
        barrier_init((uint64_t *)(smem + FETCHED), 1);
        barrier_expect((uint64_t *)(smem + FETCHED), a.rows * k.n * 16);
    }
    if (SPLIT && lane < 2) {
        uint64_t *arrived = (uint64_t *)(smem + ARRIVED) + lane;
        barrier_init(arrived, 1);
        barrier_init((uint64_t *)(smem + TAKEN) + lane, 1 << a.split);
        if (lane < a.rounds)
            barrier_expect(arrived, awaited<KIND, MT>(a, (n + 1) / 2, rank.part, lane));
    }
    if (lane == 0)
        barrier_init(released, 1);
    barrier_init_done();
    __syncwarp();
    start_together(a);
#pragma unroll 1
    for (int pass = 0; pass < 2; pass++) {
        const int end = pass ? n : min(n, a.flight); /* first what may be under way before anybody waits */
#pragma unroll 1
        for (; s < end; s++) {
            const int rows = min(TILE_ROWS, t.rows - s * TILE_ROWS);
            if (pass) {
                while (!barrier_open(released, 0) && !barrier_done(full + done_slot, done_phase)) {
                }
                if (++done_slot == a.stages) {
                    done_slot = 0;
                    done_phase ^= 1;
                }
                /* The ring is full: what comes next, as fast as memory gives it while nobody else reads. */
                while (s >= a.stages && !barrier_done(freed + slot, phase))
                    if (next < min(n, a.stages + a.ahead) && !barrier_open(released, 0) && clock() - last > a.pace) {
                        if (lane < min(TILE_ROWS, t.rows - next * TILE_ROWS))
                            prefetch(row_of(next, lane), k.n * 16);
                        next++;
                        last = clock();
                    }
            }
            if (lane == 0)
                barrier_expect(full + slot, rows * k.n * 16);
            __syncwarp();
            if (lane < rows)
                bulk_load_once(smem + START + slot * a.stage_bytes + lane * a.pitch, row_of(s, lane), k.n * 16, full + slot,
                               policy);
            if (++slot == a.stages) {
                slot = 0;
                phase ^= 1;
            }
        }
        __syncwarp();
    }
    /* What later kernels read: a range of one of their blocks each, while those before this one compute. */
#pragma unroll 1
    for (int i = 0; KIND == MI_GEMV_RESIDUAL && i < MI_GEMV_LATER && lane == 0; i++) {
        const MiGemvLater l = a.later[i];
#pragma unroll 1
        for (int b = blockIdx.x; b < l.n; b += gridDim.x)
#pragma unroll 1
            for (int at = 0; at < l.bytes && !barrier_open(released, 0); at += LATER) {
                while (!barrier_open(released, 0) && clock() - last < a.pace) {
                }
                prefetch((const char *)l.at + b * l.stride + at, min(LATER, l.bytes - at));
                last = clock();
            }
    }
}

/* ---- x ------------------------------------------------------------------------------------- */

__device__ __forceinline__ void bulk_load_shared(void *dst, const void *src, unsigned bytes, uint64_t *bar, unsigned mask)
{
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1], %2, [%3], %4;" ::"r"(
                     shared_address(dst)),
                 "l"(src), "r"(bytes), "r"(shared_address(bar)), "h"((unsigned short)mask)
                 : "memory");
}

/* What a lane of one warp fetches after the wait: a row for all blocks of the same columns, of which each has its
 * share; blocks that fetch alone start at different ones. */
struct Row {
    const char *from; /* NULL: none */
    char       *to;
};

template <int KIND> __device__ __forceinline__ Row row_of_lane(const Wide &a, Columns k, Rank rank, char *smem)
{
    static_assert(MOST_ROWS <= 32, "a lane a row");
    int row = (threadIdx.x << a.share) + rank.index;

    if (row >= a.rows)
        return {NULL, NULL};
    if (!a.share)
        row = (row + blockIdx.x) % (unsigned)a.rows;
    const int64_t from = KIND == MI_GEMV_HEAD && a.out_rows ? a.out_rows[row] : row;
    return {a.x + from * a.x_stride * 2 + k.first * 16, smem + a.xs + row * a.pitch};
}

__device__ __forceinline__ void fetch(const Wide &a, Row r, Columns k, Rank rank, char *smem)
{
    if (r.from && a.share)
        bulk_load_shared(r.to, r.from, k.n * 16, (uint64_t *)(smem + FETCHED), a.sharers << rank.part);
    else if (r.from)
        bulk_load(r.to, r.from, k.n * 16, (uint64_t *)(smem + FETCHED));
}

/* The gains of a block's columns as a sum of two bf16, chunk by chunk: [k.n][2]. */
__device__ __forceinline__ void split_gains(const Wide &a, Columns k, char *smem)
{
#pragma unroll 1
    for (int c = threadIdx.x; c < k.n; c += a.warps * 32) {
        const float2 *from = (const float2 *)a.gain + (k.first + c) * 4;
        uint4         high, low;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float2 g = {a.offset + from[i].x, a.offset + from[i].y};
            const unsigned h = pack(g, bf16());
            const float2 about = unpack(h, bf16());
            ((unsigned *)&high)[i] = h;
            ((unsigned *)&low)[i] = pack({g.x - about.x, g.y - about.y}, bf16());
        }
        ((uint4 *)(smem + a.gains))[2 * c] = high;
        ((uint4 *)(smem + a.gains))[2 * c + 1] = low;
    }
}

__device__ __forceinline__ unsigned times(unsigned x, unsigned high, unsigned low)
{
    const __nv_bfloat162 v = *(__nv_bfloat162 *)&x, h = *(__nv_bfloat162 *)&high, l = *(__nv_bfloat162 *)&low,
                         y = __hfma2(v, h, __hmul2(v, l));
    return *(const unsigned *)&y;
}

/* x * gain in place, and the sums of the squares of this warp's columns into shared memory: [warps][16 MT].  They are
 * the diagonal of x x', which the tensor core gives for an instruction on 16 elements. */
template <int MT, int STEPS>
__device__ __forceinline__ void norm_x(const Wide &a, Columns k, uint4 (*x)[MT][2], char *smem)
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4;
    float     d[MT][2][4] = {};

#pragma unroll
    for (int s = 0; s < STEPS; s++) {
        const int   c = min((s * a.warps + warp) * 4 + lane % 4, k.n - 1);
        const uint4 high = ((const uint4 *)(smem + a.gains))[2 * c], low = ((const uint4 *)(smem + a.gains))[2 * c + 1];
#pragma unroll
        for (int m = 0; m < MT; m++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                uint4 *v = x[s][m];
                mma<bf16>(d[m][i], v[0].x, v[1].x, v[0].y, v[1].y, v[i].x, v[i].y);
                mma<bf16>(d[m][i], v[0].z, v[1].z, v[0].w, v[1].w, v[i].z, v[i].w);
            }
#pragma unroll
        for (int m = 0; m < MT; m++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                uint4 *v = &x[s][m][i];
                v->x = times(v->x, high.x, low.x);
                v->y = times(v->y, high.y, low.y);
                v->z = times(v->z, high.z, low.z);
                v->w = times(v->w, high.w, low.w);
            }
    }
    if (lane % 4 == g / 2)
#pragma unroll
        for (int m = 0; m < MT; m++)
#pragma unroll
            for (int i = 0; i < 2; i++)
                ((float *)(smem + SUMS))[(warp * MT + m) * 16 + i * 8 + g] = g % 2 ? d[m][i][2 * i + 1] : d[m][i][2 * i];
}

/* Of row m's squares in this block. */
template <int MT> __device__ __forceinline__ float squares_of(const Wide &a, int m, const char *smem)
{
    float sum = 0;
#pragma unroll 8
    for (int w = 0; w < a.warps; w++)
        sum += ((const float *)(smem + SUMS))[w * MT * 16 + m];
    return sum;
}

/* After the warps have met: to all parts of the columns. */
template <int MT> __device__ __forceinline__ void share_squares(const Wide &a, Rank rank, char *smem)
{
    float *all = (float *)(smem + SUMS) + MOST_WARPS * MOST_ROWS;

#pragma unroll 1
    for (int m = threadIdx.x; m < MT * 16; m += a.warps * 32) {
        const float sum = squares_of<MT>(a, m, smem);
        float      *to = all + rank.part * MT * 16 + m;
#pragma unroll 1
        for (int p = 0; p < 1 << a.split; p++)
            if (p == rank.part)
                *to = sum;
            else
                send(in_part(a, rank, shared_address(to), p), sum, in_part(a, rank, shared_address(smem + ARRIVED), p));
    }
}

/* 1 / rms of row m; SPLIT: after the round's sums have come. */
template <int MT, bool SPLIT> __device__ __forceinline__ float scale_of(const Wide &a, int m, const char *smem)
{
    float sum = 0;

    if constexpr (SPLIT) {
#pragma unroll 1
        for (int p = 0; p < 1 << a.split; p++)
            sum += ((const float *)(smem + SUMS))[MOST_WARPS * MOST_ROWS + p * MT * 16 + m];
    } else {
        sum = squares_of<MT>(a, m, smem);
    }
    return rsqrtf(sum * a.per_in + a.eps);
}

/* ---- ends -------------------------------------------------------------------------------------- */

/* Two neighbours of the residual as they lie there, loaded long before they are used; from an even place. */
__device__ __forceinline__ unsigned load_residual(const Wide &a, int unit, int m, bool two)
{
    const unsigned short *from = (const unsigned short *)a.residual + m * a.r_stride + unit;

    return two && a.r_stride % 2 == 0 ? __ldcg((const unsigned *)from) : __ldcg(from) | (two ? __ldcg(from + 1) << 16 : 0);
}

/* Of what the threads found for each row. */
template <int MT> __device__ __forceinline__ void end_bests(const Wide &a, const char *smem)
{
    const MiCandidate *found = (const MiCandidate *)(smem + a.bests);

    consumers_meet(a);
#pragma unroll 1
    for (int m = threadIdx.x; m < a.rows; m += a.warps * 32) {
        MiCandidate best = {-INFINITY, 0x7fffffff};
        for (int i = 0; i < a.warps * 4; i++) {
            const MiCandidate c = found[(i / 4 * 2 * MT + m / 8) * 32 + m % 8 * 4 + i % 4];
            if (beats(c.logit, c.token, best.logit, best.token))
                best = c;
        }
        a.best[(int64_t)m * gridDim.x + blockIdx.x] = best;
    }
}

#endif

} // namespace mi_skinny
#endif
