/* attention_decode.cuh - few rows over long contexts: grouped-query decode with mma.m16n8k16.
 *
 * A sequence's keys are shared out among blocks, a block's among its warps, 16 positions at a time through a ring of
 * each warp's own; attention_whole.cu where no ring is needed.  Keys are the 16-row operand, the packed rows of a group
 * the 8 columns, so that nothing is computed in vain.  Positions that this step does not write are requested before the
 * predecessor is done.  Parts are added up in order: inside a cluster of blocks, or through the workspace by the block
 * that comes last.  A block without work waits all the same: a kernel must not be done before its predecessor.
 *
 * K is what a cache's elements are: T, or numbers with scales, which become f16 on their way to the tensor cores.  A load
 * of a matrix leaves four neighbouring bytes where there would be two elements: dimensions change places, alike in keys and
 * queries, and in values and what is made of them.  The scale of a key multiplies its score.  That of a value multiplies its
 * weight, and the largest of a row is sought among those products: no weight leaves the range of f16.  Half the bytes leave
 * half the time for the chain from a score to what it weighs, so a warp takes 32 of their positions at a time, and looks up
 * where the next ones lie while it computes; where 16 of them lie side by side, as in pages of 16 or a multiple, lanes know
 * what they copy without asking. */
#ifndef KERNELS_CUDA_ATTENTION_DECODE_CUH
#define KERNELS_CUDA_ATTENTION_DECODE_CUH

#include <cuda/attention_parts.cuh>
#include <cuda/scaled.cuh>
#include <type_traits>

namespace
{

constexpr int MAX_CLUSTER_KEYS = 16384, SMALL = 256; /* keys; so many are one block's */
constexpr int PATIENCE = 8; /* weights are up to 2^8 times what they are with the largest score before that is sought anew */

/* What a kernel is made for.  ALONE: a multiprocessor has one block only.  PLAIN: there is no soft cap, 16 positions of the cache lie
 * side by side, and no sequence is shared out; SHARED: or each is, between the blocks of a cluster.  That is half the instructions: a
 * multiprocessor keeps those of some 128 KB, which a layer's kernels share, and each of them waits for what the others have driven
 * out. */
enum Way { ANY, ALONE, PLAIN, SHARED };
template <Way WAY> constexpr bool EVEN = WAY == PLAIN || WAY == SHARED;

/* Units of so many positions, and behind them their scales in words; two blocks a multiprocessor. AHEAD: units that are asked
 * for before one is read: all of them where lanes meet before they ask for what takes its place. */
template <typename K, int D, int POSITIONS, Way WAY> struct Ring {
    static constexpr int  SIZE = sizeof(K);
    /* Without bank conflicts: pieces of 16 bytes change places within 128, or a row is an odd number of them. */
    static constexpr bool SWIZZLED = SIZE == 1 && (D == 64 || D == 128);
    static constexpr int  PITCH = D * SIZE + (SWIZZLED ? 0 : 16); /* bytes of a row */
    static constexpr int  DEPTH = SIZE > 1 ? D <= 64 ? 6 : D <= 96 ? 4 : 3 : POSITIONS > KEYS ? 6 : D <= 64 ? 8 : D <= 96 ? 7 : D <= 128 ? 6 : 5;
    static constexpr int  AHEAD = WAY == ALONE || POSITIONS > KEYS ? DEPTH : DEPTH - 1;
    static constexpr int  UNIT = POSITIONS * PITCH, PAIRS = SIZE > 1 ? 0 : DEPTH / 2 + 1, SCALES = DEPTH * UNIT;
    static constexpr int  WARP = SCALES + (PAIRS * POSITIONS * 4 + 127) / 128 * 128;

    /* In a unit, which lies at a multiple of 128 bytes. */
    static __device__ __forceinline__ unsigned at(int row, int piece)
    {
        return (unsigned)(row * PITCH + (piece ^ (!SWIZZLED ? 0 : D == 64 ? row >> 1 & 3 : row & 7)) * 16);
    }
    /* From that two pieces at an even place to those `bytes` further. */
    static __device__ __forceinline__ unsigned on(unsigned at, int bytes) { return SWIZZLED ? at ^ (unsigned)bytes : at + bytes; }
};

/* ---- adding parts up through the workspace ------------------------------------------ */

/* to: where the rows of out begin; weight: [MAX_PARTS][ROWS]. */
template <typename T, int D, int ROWS>
__device__ void add_parts(T *const *to, int packed, const float *parts, int n_parts, float *weight)
{
    constexpr int PART = ROWS * (D + 2), AT_ONCE = 16;
    const int     lane = threadIdx.x % 32;

    for (int r = threadIdx.x / 32; r < packed; r += WARPS) {
        float2 x[MAX_PARTS / 32];
        float  top = -INFINITY, sum = 0;
#pragma unroll
        for (int i = 0; i < MAX_PARTS / 32; i++) {
            const int p = i * 32 + lane;
            x[i] =
                p < n_parts ? __ldcg((const float2 *)(parts + (int64_t)p * PART + ROWS * D) + r) : float2{-INFINITY, 0};
            top = fmaxf(top, x[i].x);
        }
        top = warp_max(top);
#pragma unroll
        for (int i = 0; i < MAX_PARTS / 32; i++) {
            x[i].x = x[i].y > 0 ? exp2_fast(x[i].x - top) : 0;
            sum += x[i].x * x[i].y;
        }
        sum = warp_sum(sum);
#pragma unroll
        for (int i = 0; i < MAX_PARTS / 32; i++)
            weight[(i * 32 + lane) * ROWS + r] = x[i].x * inverse(sum);
    }
    __syncthreads();
    for (int i = threadIdx.x; i < packed * (D / 4); i += THREADS) {
        float4 o = {};
        for (int p0 = 0; p0 < n_parts; p0 += AT_ONCE) {
            float4 x[AT_ONCE];
#pragma unroll
            for (int p = 0; p < AT_ONCE; p++)
                x[p] = p0 + p < n_parts ? __ldcg((const float4 *)(parts + (int64_t)(p0 + p) * PART) + i) : float4{};
#pragma unroll
            for (int p = 0; p < AT_ONCE; p++)
                add_4(o, weight[(p0 + p) * ROWS + i / (D / 4)], x[p]);
        }
        store_4(to[i / (D / 4)] + i % (D / 4) * 4, o, 1);
    }
}

/* As copy_16(), of what is there. */
__device__ __forceinline__ void copy_whole(unsigned dst, const void *src)
{
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"(dst), "l"(src) : "memory");
}

/* Of a scale: 2^-109 at least, or 0. */
__device__ __forceinline__ float log2_fast(float x)
{
    float y;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* ---- a warp's keys ----------------------------------------------------------------- */

/* NB blocks of 8 packed rows. */
template <typename T, typename K, int D, int NB, Way WAY> struct Warp {
    static constexpr int UNITS16 = SCALED<K> && D <= 64 && NB == 1 ? 2 : 1; /* times 16 positions that a warp takes at once */
    static constexpr int POSITIONS = UNITS16 * KEYS, STEP = WARPS * POSITIONS; /* of a unit; of a block at once */
    using R = Ring<K, D, POSITIONS, WAY>;
    using Number = std::conditional_t<SCALED<K>, __half, T>; /* what is multiplied */
    static constexpr bool BY_PAGE = SCALED<K> || EVEN<WAY>; /* pages are asked for early, and found without a division */
    static constexpr int ROWS = NB * 8, EACH = 16 / (int)sizeof(K), CHUNKS = D / EACH, OUT_PITCH = D + 4;
    static_assert(ROWS * OUT_PITCH * sizeof(float) <= R::WARP, "a warp's share fits its ring");

    const MiCudaAttention &a;
    const Part            &part;
    const int              lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    unsigned char         *mine;
    unsigned ring, whole, step; /* the latter two in the cache, in 16 bytes: sequence, a position more */
    unsigned at[UNITS16] = {};  /* likewise: dense: where each 16 positions begin; else at[0]: this lane's position */
    int      page_shift = -1; /* BY_PAGE, of pages that are a power of two: */
    unsigned page = 0;        /* of this lane's position in the unit that is requested next; nobody waits for it until then */
    bool     paged, dense = false; /* dense: BY_PAGE, 16 positions lie side by side */
    int      inner_from = 0, inner_to = 0; /* with scales: positions that all rows see */
    int      n_units; /* 2i: keys, 2i + 1: values of the warp's i-th positions */
    const T *q_at[NB];
    Keys     see[NB][2]; /* of the rows whose scores this lane holds; of UNITS16 > 1 found where they are needed */
    unsigned q[NB][D / 16][2];
    float    out[NB][D / 16][4], top[NB][2], sum[NB][2];

    /* BY_PAGE, asked for while the sequence's length is: the page of this lane's first position, should the part begin at
     * 0, or the one where all of the sequence lies. */
    static __device__ __forceinline__ int first_page(const MiKvView &kv)
    {
        if (!BY_PAGE || !kv.block_table)
            return (int)blockIdx.z;
        const int first = (int)threadIdx.x / 32 * POSITIONS + (int)threadIdx.x % POSITIONS;
        const int in_seq = kv.max_blocks > 1 ? min(first >> (__ffs(kv.block_size) - 1), kv.max_blocks - 1) : 0;
        int       page;
        asm volatile("ld.global.u32 %0, [%1];" : "=r"(page) : "l"(kv.block_table + (int64_t)blockIdx.z * kv.max_blocks + in_seq));
        return page;
    }

    __device__ __forceinline__ Warp(const MiCudaAttention &call, const Part &p, unsigned char *smem, int first_page)
        : a(call), part(p), mine(smem + warp * R::WARP), ring(shared_address(mine)), paged(call.kv.max_blocks > 1)
    {
        if constexpr (BY_PAGE) {
            whole = paged ? 0 : (unsigned)((first_page * a.kv.stride_block + p.kv_head * a.kv.stride_head) / EACH);
        } else {
            whole = paged ? 0 : (unsigned)(mi_kv_offset(&a.kv, p.seq, 0, p.kv_head) / EACH);
        }
        step = (unsigned)(a.kv.stride_token / EACH);
        n_units = 2 * max(0, (p.k1 - p.k0 - warp * POSITIONS + STEP - 1) / STEP); /* some have no keys */
        if constexpr (BY_PAGE) {
            page_shift = !paged || a.kv.block_size & (a.kv.block_size - 1) ? -1 : __ffs(a.kv.block_size) - 1;
            dense = step == CHUNKS && (!paged || (page_shift >= 4 && p.k0 % KEYS == 0));
            page = (unsigned)first_page;
            if (n_units && page_shift >= 0 && p.k0 > 0)
                page = page_of(min(p.k0 + warp * POSITIONS + lane % POSITIONS, p.k1 - 1));
        }
        if constexpr (SCALED<K>)
            inner_from = keys_of(a, p.s, p.s.rows - 1).first, inner_to = min(keys_of(a, p.s, 0).end, p.k1);
#pragma unroll
        for (int n = 0; n < NB; n++) {
            if constexpr (!SCALED<K>) {
                const int row = min(n * 8 + lane / 4, p.packed - 1);
                q_at[n] = (const T *)a.q.data + p.row(a.q, row) + lane % 4 * 2;
            }
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const int r = n * 8 + lane % 4 * 2 + i;
                if constexpr (UNITS16 == 1) {
                    see[n][i] = p.sees(a, r);
                    see[n][i].end = min(see[n][i].end, p.k1);
                }
            }
        }
    }

    __device__ __forceinline__ bool capped() const { return !EVEN<WAY> && a.softcap > 0; }
    __device__ __forceinline__ bool lies_side_by_side() const { return EVEN<WAY> || dense; }

    __device__ __forceinline__ Keys seen_by(int row) const
    {
        Keys keys = part.sees(a, row);
        keys.end = min(keys.end, part.k1);
        return keys;
    }

    __device__ __forceinline__ unsigned place(int p) const
    {
        return !paged       ? whole + (unsigned)p * step
               : EVEN<WAY> ? place_in(page_of(p), p)
                           : (unsigned)(mi_kv_offset(&a.kv, part.seq, p, part.kv_head) / EACH);
    }

    __device__ __forceinline__ unsigned page_of(int p) const
    {
        return (unsigned)a.kv.block_table[(int64_t)part.seq * a.kv.max_blocks + (p >> page_shift)];
    }
    /* As place(), without a division. */
    __device__ __forceinline__ unsigned place_in(unsigned page, int p) const
    {
        return page * (unsigned)(a.kv.stride_block / EACH) + (unsigned)(p & (a.kv.block_size - 1)) * step +
               (unsigned)part.kv_head * (unsigned)(a.kv.stride_head / EACH);
    }

    /* Where a warp keeps the scales of its i-th positions; those of the position at `place` in the cache. */
    __device__ __forceinline__ unsigned scales_at(int i) const { return ring + R::SCALES + (unsigned)i % max(R::PAIRS, 1) * POSITIONS * 4; }
    __device__ __forceinline__ void     request_scales(int i, int row, unsigned place, bool there)
    {
        copy_4(scales_at(i) + row * 4, (const unsigned *)a.kv.scales + place / CHUNKS, there);
    }

    /* A unit's positions before `to`, and zeros for those past the part; in the order of the units. */
    __device__ __forceinline__ void request(int u, int to)
    {
        const int p0 = part.k0 + (u / 2 * WARPS + warp) * POSITIONS;
        const K  *side = (const K *)(u & 1 ? a.kv.v : a.kv.k);

        if constexpr (R::SWIZZLED || EVEN<WAY>) {
            if (lies_side_by_side() && p0 + POSITIONS <= min(to, part.k1)) {
                request_whole(u, p0, side);
                return;
            }
        }
        if (!(u & 1)) {
            const int p = min(p0 + lane % POSITIONS, part.k1 - 1);
            if (BY_PAGE && page_shift >= 0) {
                at[0] = place_in(page, p);
                page = page_of(min(p0 + STEP + lane % POSITIONS, part.k1 - 1));
            } else {
                at[0] = place(p);
            }
            if (SCALED<K> && lane < POSITIONS && (p0 + lane < to || p0 + lane >= part.k1))
                request_scales(u / 2, lane, at[0], p0 + lane < part.k1);
            if (lies_side_by_side()) {
                const unsigned mine = at[0];
#pragma unroll
                for (int h = 0; h < UNITS16; h++)
                    at[h] = __shfl_sync(~0u, mine, h * KEYS);
            }
        }
#pragma unroll
        for (int i = 0; i < POSITIONS * CHUNKS / 32; i++) {
            constexpr int HALF = KEYS * CHUNKS;
            const int     row = (i * 32 + lane) / CHUNKS, chunk = (i * 32 + lane) % CHUNKS, p = p0 + row;
            const uint64_t from = lies_side_by_side() ? (uint64_t)at[i * 32 / HALF] + (i * 32 % HALF + lane)
                                        : (uint64_t)__shfl_sync(~0u, at[0], row) + chunk;
            if (p < to || p >= part.k1)
                copy_16(ring + (unsigned)u % R::DEPTH * R::UNIT + R::at(row, chunk), side + from * EACH, p < part.k1);
        }
        copies_commit();
    }
    /* The same of a unit all of whose positions are there, and lie 16 by 16 side by side: most are so. */
    __device__ __forceinline__ void request_whole(int u, int p0, const K *side)
    {
        constexpr int  HALF = KEYS * CHUNKS, ROWS_ONCE = 32 / CHUNKS;
        const unsigned to = ring + (unsigned)u % R::DEPTH * R::UNIT;

        if (!(u & 1)) {
            const int p = p0 + lane % POSITIONS;
            unsigned  mine = whole + (unsigned)p * CHUNKS;
            if (paged) {
                mine = place_in(page, p);
                page = page_of(min(p + STEP, part.k1 - 1));
#pragma unroll
                for (int h = 0; h < UNITS16; h++)
                    at[h] = __shfl_sync(~0u, mine, h * KEYS);
            } else {
#pragma unroll
                for (int h = 0; h < UNITS16; h++)
                    at[h] = whole + (unsigned)(p0 + h * KEYS) * CHUNKS;
            }
            if (SCALED<K> && (POSITIONS == 32 || lane < POSITIONS))
                copy_4(scales_at(u / 2) + lane * 4, (const unsigned *)a.kv.scales + mine / CHUNKS, true);
        }
#pragma unroll
        for (int h = 0; h < UNITS16; h++) {
            const K *from = side + ((uint64_t)at[h] + (unsigned)lane) * EACH;
#pragma unroll
            for (int i = 0; i < HALF / 32; i++)
                copy_whole(to + h * KEYS * R::PITCH + R::at(i * ROWS_ONCE + lane / CHUNKS, lane % CHUNKS), from + i * 32 * EACH);
        }
        copies_commit();
    }
    /* Alone there is time: one unit after the other, since what the predecessor reads waits behind all that is asked for. */
    __device__ __forceinline__ void request_old()
    {
#pragma unroll 1
        for (int u = 0; u < R::AHEAD; u++) {
            if (u < n_units)
                request(u, part.old);
            else
                copies_commit();
            if (WAY == ALONE)
                copies_wait<0>();
        }
    }
    /* What this step wrote of the units requested before it had; done when it returns. */
    __device__ __forceinline__ void request_new()
    {
        bool any = false;

        for (int p = max(part.old, part.k0); p < part.k1; p++) {
            const int u = (p - part.k0) / STEP * 2, row = (p - part.k0) % POSITIONS;
            if ((p - part.k0) / POSITIONS % WARPS != warp)
                continue;
            for (int c = lane; c < 2 * CHUNKS; c += 32)
                if (u + c / CHUNKS < R::AHEAD)
                    copy_16(ring + (u + c / CHUNKS) * R::UNIT + R::at(row, c % CHUNKS),
                            (const K *)(c < CHUNKS ? a.kv.k : a.kv.v) + ((uint64_t)place(p) + c % CHUNKS) * EACH, true);
            if (SCALED<K> && lane == 0 && u < R::AHEAD)
                request_scales(u / 2, row, place(p), true);
            any = true;
        }
        if (any) {
            copies_commit();
            copies_wait<0>();
        }
    }
    __device__ __forceinline__ void load_queries()
    {
#pragma unroll
        for (int n = 0; n < NB; n++) {
            if constexpr (SCALED<K>)
                q_at[n] = (const T *)a.q.data + part.row(a.q, min(n * 8 + lane / 4, part.packed - 1)) + lane % 4 * 4;
#pragma unroll
            for (int k = 0; k < D / 16; k++) {
                if constexpr (SCALED<K>) {
                    q[n][k][0] = scaled_two(q_at[n] + k * 16), q[n][k][1] = scaled_two(q_at[n] + k * 16 + 2);
                } else {
                    q[n][k][0] = *(const unsigned *)(q_at[n] + k * 16);
                    q[n][k][1] = *(const unsigned *)(q_at[n] + k * 16 + 8);
                }
            }
        }
    }
    /* Two elements of q as f16, times the scale of scores: so they are well within its range. */
    __device__ __forceinline__ unsigned scaled_two(const T *x) const
    {
        const unsigned both = *(const unsigned *)x;
        return pack<__half>(to_float(((const T *)&both)[0]) * a.scale, to_float(((const T *)&both)[1]) * a.scale);
    }

    /* Scores of 16 keys become weights, the right operand of the product with values. */
    __device__ __forceinline__ void softmax(float (&score)[4], int n, int key, float scale, const Cap &cap,
                                            const unsigned (&scales)[2], unsigned (&weights)[2])
    {
        float keep[2], by[2] = {1, 1}, more[2] = {}; /* of two keys' values: scales, and their logarithms */

        if constexpr (SCALED<K>) { /* braces: nvcc 13.0 takes a discarded loop's pragma and the loop after it away too */
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const float ours = __fdividef(key_scale(scales[i]), a.scale); /* q has it */
                score[2 * i] *= ours, score[2 * i + 1] *= ours;
                by[i] = value_scale(scales[i]), more[i] = __log2f(by[i]);
            }
        }
#pragma unroll
        for (int i = 0; i < 4; i++) {
            score[i] = (capped() ? cap.of(score[i]) : score[i]) * scale;
            if (key + i / 2 * 8 < see[n][i & 1].first || key + i / 2 * 8 >= see[n][i & 1].end)
                score[i] = -INFINITY;
        }
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float m = SCALED<K> ? fmaxf(score[i] + more[0], score[i + 2] + more[1]) : fmaxf(score[i], score[i + 2]);
#pragma unroll
            for (int o = 4; o < 32; o *= 2)
                m = fmaxf(m, __shfl_xor_sync(~0u, m, o));
            m = fmaxf(m, top[n][i]);
            const float safe = m == -INFINITY ? 0 : m;
            keep[i] = exp2_fast(top[n][i] - safe);
            top[n][i] = m;
            score[i] = exp2_fast(score[i] - safe), score[i + 2] = exp2_fast(score[i + 2] - safe);
            sum[n][i] = sum[n][i] * keep[i] + score[i] + score[i + 2];
        }
        if constexpr (SCALED<K>)
            score[0] *= by[0], score[1] *= by[0], score[2] *= by[1], score[3] *= by[1];
        weights[0] = turned(pack<Number>(score[0], score[1]));
        weights[1] = turned(pack<Number>(score[2], score[3]));
#pragma unroll
        for (int j = 0; j < D / 16; j++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                out[n][j][i] *= keep[i & 1];
    }

    /* The same of 8 packed rows and twice 16 keys, of a cache with scales.  factor: what scores are to be multiplied with before the
     * soft cap, or at all.  As long as no weight is beyond what PATIENCE allows, nothing that was added up shrinks, and lanes do
     * not ask each other for their largest score (as FlashAttention-4 has it). */
    __device__ __forceinline__ void softmax_two(float (&score)[2][4], int key, float factor, const Cap &cap,
                                                const unsigned (&scales)[2][2], unsigned (&weights)[2][2])
    {
        const int p0 = key - lane / 4;
        float     m[2] = {-INFINITY, -INFINITY}, by[2][2]; /* by: what scores are yet to be multiplied with */

#pragma unroll
        for (int h = 0; h < 2; h++)
#pragma unroll
            for (int i = 0; i < 2; i++)
                by[h][i] = key_scale(scales[h][i]) * factor;
        if (capped()) {
#pragma unroll
            for (int h = 0; h < 2; h++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    score[h][i] = cap.of(score[h][i] * by[h][i / 2]) * (a.scale * LOG2E);
        }
        if (p0 < inner_from || p0 + POSITIONS > inner_to) {
            const Keys see[2] = {seen_by(lane % 4 * 2), seen_by(lane % 4 * 2 + 1)};
#pragma unroll
            for (int h = 0; h < 2; h++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const int at = key + h * KEYS + i / 2 * 8;
                    score[h][i] *= capped() ? 1 : by[h][i / 2];
                    if (at < see[i & 1].first || at >= see[i & 1].end)
                        score[h][i] = -INFINITY;
                }
#pragma unroll
            for (int i = 0; i < 4; i++)
                by[i / 2][i % 2] = 1;
        }
        if (capped()) {
#pragma unroll
            for (int i = 0; i < 4; i++)
                by[i / 2][i % 2] = 1;
        }
#pragma unroll
        for (int h = 0; h < 2; h++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                m[i & 1] = fmaxf(m[i & 1], fmaf(score[h][i], by[h][i / 2], log2_fast(value_scale(scales[h][i / 2]))));
        if (__any_sync(~0u, m[0] > top[0][0] + PATIENCE || m[1] > top[0][1] + PATIENCE)) {
            float keep[2];
#pragma unroll
            for (int i = 0; i < 2; i++) {
#pragma unroll
                for (int o = 4; o < 32; o *= 2)
                    m[i] = fmaxf(m[i], __shfl_xor_sync(~0u, m[i], o));
                m[i] = fmaxf(m[i], top[0][i]);
                keep[i] = exp2_fast(top[0][i] - (m[i] == -INFINITY ? 0 : m[i]));
                top[0][i] = m[i];
                sum[0][i] *= keep[i];
            }
#pragma unroll
            for (int j = 0; j < D / 16; j++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    out[0][j][i] *= keep[i & 1];
        }
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const float safe = top[0][i] == -INFINITY ? 0 : top[0][i];
#pragma unroll
            for (int h = 0; h < 2; h++)
#pragma unroll
                for (int k = i; k < 4; k += 2) {
                    score[h][k] = exp2_fast(fmaf(score[h][k], by[h][k / 2], -safe));
                    sum[0][i] += score[h][k];
                    score[h][k] *= value_scale(scales[h][k / 2]);
                }
        }
#pragma unroll
        for (int h = 0; h < 2; h++) {
            weights[h][0] = turned(pack<Number>(score[h][0], score[h][1]));
            weights[h][1] = turned(pack<Number>(score[h][2], score[h][3]));
        }
    }

    /* As attend(), 32 positions at a time. */
    __device__ __forceinline__ void attend_two()
    {
        const float    factor = capped() ? __fdividef(1, a.scale) : LOG2E; /* q has the scale of scores */
        const Cap      cap(a);
        const unsigned key_at = ring + R::at(lane / 8 % 2 * 8 + lane % 8, lane / 16);
        const unsigned value_at = ring + R::at(lane / 16 * 8 + lane % 8, lane / 8 % 2);

        top[0][0] = top[0][1] = -INFINITY, sum[0][0] = sum[0][1] = 0;
#pragma unroll
        for (int j = 0; j < D / 16; j++)
            out[0][j][0] = out[0][j][1] = out[0][j][2] = out[0][j][3] = 0;
        for (int u = 0; u < n_units; u += 2) {
            float    score[2][4] = {};
            unsigned weights[2][2], scales[2][2];

            copies_wait<R::AHEAD - 1>();
            __syncwarp();
#pragma unroll
            for (int h = 0; h < 2; h++) {
#pragma unroll
                for (int i = 0; i < 2; i++)
                    scales[h][i] = load_word(scales_at(u / 2) + (h * KEYS + lane / 4 + i * 8) * 4);
#pragma unroll
                for (int k = 0; k < D / 32; k++) {
                    unsigned x[4], y[2][4];
                    load_matrices(x, R::on(key_at + (unsigned)u % R::DEPTH * R::UNIT + h * KEYS * R::PITCH, k * 32));
#pragma unroll
                    for (int i = 0; i < 4; i++)
                        halves<K>(x[i], y[i / 2][i % 2], y[i / 2][i % 2 + 2]);
#pragma unroll
                    for (int i = 0; i < 2; i++)
                        multiply<Number>(score[h], y[i], q[0][2 * k + i][0], q[0][2 * k + i][1]);
                }
            }
            __syncwarp();
            request_if(u + R::AHEAD);
            softmax_two(score, part.k0 + (u / 2 * WARPS + warp) * POSITIONS + lane / 4, factor, cap, scales, weights);
            copies_wait<R::AHEAD - 1>();
            __syncwarp();
#pragma unroll
            for (int h = 0; h < 2; h++)
#pragma unroll
                for (int j = 0; j < D / 32; j++) {
                    unsigned x[4], y[2][4]; /* of 16 dimensions each: even ones, odd ones; keys 0 to 7, 8 to 15 */
                    load_matrices_turned(x, R::on(value_at + (unsigned)(u + 1) % R::DEPTH * R::UNIT + h * KEYS * R::PITCH, j * 32));
#pragma unroll
                    for (int i = 0; i < 4; i++)
                        halves_of_pairs<K>(x[i], y[i % 2][i / 2 * 2], y[i % 2][i / 2 * 2 + 1]);
#pragma unroll
                    for (int i = 0; i < 2; i++)
                        multiply<Number>(out[0][2 * j + i], y[i], weights[h][0], weights[h][1]);
                }
            __syncwarp();
            request_if(u + R::AHEAD + 1);
        }
        copies_wait<0>();
        __syncwarp();
    }
    __device__ __forceinline__ void request_if(int u)
    {
        if (u < n_units)
            request(u, part.k1);
        else
            copies_commit();
    }

    /* A running softmax over the warp's keys. */
    __device__ __forceinline__ void attend()
    {
        const float    scale = a.scale * LOG2E;
        const Cap      cap(a);
        const unsigned key_at = ring + R::at(lane / 8 % 2 * 8 + lane % 8, lane / 16);
        const unsigned value_at = ring + R::at(lane / 16 * 8 + lane % 8, lane / 8 % 2);

#pragma unroll
        for (int n = 0; n < NB; n++) {
            top[n][0] = top[n][1] = -INFINITY, sum[n][0] = sum[n][1] = 0;
#pragma unroll
            for (int j = 0; j < D / 16; j++)
                out[n][j][0] = out[n][j][1] = out[n][j][2] = out[n][j][3] = 0;
        }
        for (int u = 0; u < n_units; u += 2) {
            float    score[2][NB][4] = {}; /* two sums: half the chain */
            unsigned x[4], weights[NB][2], scales[2] = {};

            copies_wait<R::AHEAD - 1>();
            __syncwarp();
            if constexpr (SCALED<K>) {
#pragma unroll
                for (int i = 0; i < 2; i++)
                    scales[i] = load_word(scales_at(u / 2) + (lane / 4 + i * 8) * 4);
#pragma unroll
                for (int k = 0; k < D / 32; k++) {
                    unsigned y[2][4];
                    load_matrices(x, R::on(key_at + u % R::DEPTH * R::UNIT, k * 32));
#pragma unroll
                    for (int i = 0; i < 4; i++)
                        halves<K>(x[i], y[i / 2][i % 2], y[i / 2][i % 2 + 2]);
#pragma unroll
                    for (int n = 0; n < NB; n++)
#pragma unroll
                        for (int i = 0; i < 2; i++)
                            multiply<Number>(score[i][n], y[i], q[n][2 * k + i][0], q[n][2 * k + i][1]);
                }
            } else {
#pragma unroll
                for (int k = 0; k < D / 16; k++) {
                    load_matrices(x, key_at + u % R::DEPTH * R::UNIT + k * 32);
#pragma unroll
                    for (int n = 0; n < NB; n++)
                        multiply<T>(score[k % 2][n], x, q[n][k][0], q[n][k][1]);
                }
            }
            if (WAY == ALONE)
                __syncwarp();
            request_if(u + R::AHEAD);
#pragma unroll
            for (int n = 0; n < NB; n++) {
#pragma unroll
                for (int i = 0; i < 4; i++)
                    score[0][n][i] += score[1][n][i];
                softmax(score[0][n], n, part.k0 + (u / 2 * WARPS + warp) * POSITIONS + lane / 4, scale, cap, scales,
                        weights[n]);
            }
            copies_wait<R::AHEAD - 1>();
            __syncwarp();
            if constexpr (SCALED<K>) {
#pragma unroll
                for (int j = 0; j < D / 32; j++) {
                    unsigned y[2][4]; /* of 16 dimensions each: even ones, odd ones; keys 0 to 7, 8 to 15 */
                    load_matrices_turned(x, R::on(value_at + (u + 1) % R::DEPTH * R::UNIT, j * 32));
#pragma unroll
                    for (int i = 0; i < 4; i++)
                        halves_of_pairs<K>(x[i], y[i % 2][i / 2 * 2], y[i % 2][i / 2 * 2 + 1]);
#pragma unroll
                    for (int n = 0; n < NB; n++)
#pragma unroll
                        for (int i = 0; i < 2; i++)
                            multiply<Number>(out[n][2 * j + i], y[i], weights[n][0], weights[n][1]);
                }
            } else {
#pragma unroll
                for (int j = 0; j < D / 16; j++) {
                    load_matrices_turned(x, value_at + (u + 1) % R::DEPTH * R::UNIT + j * 32);
#pragma unroll
                    for (int n = 0; n < NB; n++)
                        multiply<T>(out[n][j], x, weights[n][0], weights[n][1]);
                }
            }
            if (WAY == ALONE)
                __syncwarp();
            request_if(u + R::AHEAD + 1);
        }
        copies_wait<0>();
        __syncwarp();
    }

    /* Into the warp's ring, [ROWS][OUT_PITCH], and of_warp, [ROWS] of max and sum. */
    __device__ __forceinline__ void leave(float2 *of_warp)
    {
        float *share = (float *)mine;
#pragma unroll
        for (int n = 0; n < NB; n++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const int r = n * 8 + lane % 4 * 2 + i;
#pragma unroll
                for (int j = 0; j < D / 16; j++) {
                    share[r * OUT_PITCH + j * 16 + lane / 4 * (SCALED<K> ? 2 : 1)] = out[n][j][i];
                    share[r * OUT_PITCH + j * 16 + (SCALED<K> ? lane / 4 * 2 + 1 : lane / 4 + 8)] = out[n][j][i + 2];
                }
#pragma unroll
                for (int o = 4; o < 32; o *= 2)
                    sum[n][i] += __shfl_xor_sync(~0u, sum[n][i], o);
                if (lane < 4)
                    of_warp[r] = float2{top[n][i], sum[n][i]};
            }
    }
};

/* ---- the kernel -------------------------------------------------------------------- */

/* Sequences of more than NB * 8 packed rows are another kernel's. */
template <typename T, typename K, int D, int NB, Way WAY>
__global__ void __launch_bounds__(THREADS, D <= 64 || (D <= 128 && NB == 1) ? 2 : 1)
    decode(const __grid_constant__ MiCudaAttention a, const Split split)
{
    using W = Warp<T, K, D, NB, WAY>;
    constexpr int     ROWS = W::ROWS, PART = ROWS * (D + 2);
    extern __shared__ __align__(128) unsigned char smem[];
    __shared__ float2                              of_warp[WARPS][ROWS];
    __shared__ T                                  *to[ROWS];
    __shared__ bool                                last;
    unsigned char                                 *behind = smem + WARPS * W::R::WARP;
    Part                                           p;

    let_successor_start();
    const int first_page = W::first_page(a.kv);
    if (!find_part<ROWS, W::BY_PAGE, WAY == PLAIN>(a, split, &p)) {
        wait_for_predecessor();
        return;
    }
    W warp(a, p, smem, first_page);
    warp.request_old();
    if (threadIdx.x < p.packed)
        to[threadIdx.x] = (T *)a.out.data + p.row(a.out, threadIdx.x);
#if __CUDA_ARCH__ >= 900
    const Exchange<D, ROWS> exchange(behind, split, p);
    if (WAY != PLAIN && split.power > 0 && p.n > 1)
        exchange.open(p);
#endif

    wait_for_predecessor();
    warp.load_queries();
    warp.request_new();
    if constexpr (W::UNITS16 > 1) {
        warp.attend_two();
    } else {
        warp.attend();
    }
    warp.leave(of_warp[warp.warp]);
    __syncthreads();
    if (WAY == PLAIN || p.n == 1) {
        add_warps<D, ROWS, W::R::WARP>(smem, of_warp, p.packed, [&](const float4 &v, int i, const float2 &of_row) {
            store_4(to[i / (D / 4)] + i % (D / 4) * 4, v, inverse(of_row.y));
        });
        return;
    }
#if __CUDA_ARCH__ >= 900
    if (WAY == SHARED || split.power > 0) {
        if (p.index < p.n)
            add_warps<D, ROWS, W::R::WARP>(smem, of_warp, p.packed, [&](const float4 &v, int i, const float2 &of_row) {
                exchange.hand_over(i, split, p, v, of_row);
            });
        exchange.add(to, p);
        return;
    }
#endif
    const int64_t pair = (int64_t)p.seq * a.kv.n_kv_heads + p.kv_head;
    float        *parts = split.parts + pair * split.n_parts * PART, *mine = parts + (int64_t)p.index * PART;
    add_warps<D, ROWS, W::R::WARP>(smem, of_warp, p.packed, [&](const float4 &v, int i, const float2 &of_row) {
        *((float4 *)mine + i) = v;
        if (i % (D / 4) == 0)
            *((float2 *)(mine + ROWS * D) + i / (D / 4)) = of_row;
    });
    __syncthreads();
    if (threadIdx.x == 0) { /* what the block wrote is there for whoever sees the count */
        int before;
        asm volatile("atom.add.acq_rel.gpu.global.s32 %0, [%1], 1;"
                     : "=r"(before)
                     : "l"(split.arrived + pair)
                     : "memory");
        last = before == p.n - 1;
        if (last)
            split.arrived[pair] = 0;
    }
    __syncthreads();
    if (last)
        add_parts<T, D, ROWS>(to, p.packed, parts, p.n, (float *)behind);
}

/* ---- launching --------------------------------------------------------------------- */

struct Card {
    int  processors = 1;
    bool clusters = false;
};

const Card &card()
{
    static const Card c = [] {
        Card x;
        int  device = 0, n = 0, major = 0;
        if (!cudaGetDevice(&device) && !cudaDeviceGetAttribute(&n, cudaDevAttrMultiProcessorCount, device) &&
            !cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device))
            x.processors = n, x.clusters = major >= 9;
        return x;
    }();
    return c;
}

template <typename T, typename K, int D, int NB, Way WAY> int launch(void *stream, const MiCudaAttention *a, const Split &split)
{
    constexpr size_t add = Exchange<D, NB * 8>::bytes(MAX_CLUSTER, 4), weights = MAX_PARTS * NB * 8 * sizeof(float);
    constexpr size_t bytes = (size_t)WARPS * Warp<T, K, D, NB, WAY>::R::WARP + (add > weights ? add : weights);
    static const int allowed = [] {
        const int e = mi_allow_smem(decode<T, K, D, NB, WAY>, bytes);
        if (e || !card().clusters)
            return e;
        return (int)cudaFuncSetAttribute(decode<T, K, D, NB, WAY>, cudaFuncAttributeNonPortableClusterSizeAllowed, 1);
    }();
    const dim3 grid((unsigned)split.n_parts, (unsigned)a->kv.n_kv_heads, (unsigned)a->batch.shape.n_seqs);
    Split      s = split;

    if (allowed)
        return allowed;
    s.log2_mine = Exchange<D, NB * 8>::log2_of(s.log2_owners);
    return mi_launch_clusters(decode<T, K, D, NB, WAY>, grid, THREADS, s.power > 0 ? 1u << s.power : 1, bytes, stream, *a, s);
}

/* Of any sequence's positions each 16 that a warp takes lie side by side. */
bool side_by_side(const MiKvView &kv, int window)
{
    const bool pages = kv.block_size % KEYS == 0 && (kv.block_size & (kv.block_size - 1)) == 0 && !window && !kv.kv_start;
    return kv.stride_token == kv.head_dim && (kv.max_blocks <= 1 || pages);
}

template <typename T, typename K, int D> int launch(void *stream, const MiCudaAttention *a, const Split &split)
{
    if (mi_cuda_attention_few(a) > 8)
        return launch<T, K, D, 2, ANY>(stream, a, split);
    if constexpr (D == 128 && !SCALED<K>) {
        if (a->batch.shape.n_seqs * a->kv.n_kv_heads * split.n_parts <= card().processors)
            return launch<T, K, D, 1, ALONE>(stream, a, split);
    }
    if constexpr (D == 64 || D == 128) {
        const bool even = a->softcap <= 0 && side_by_side(a->kv, a->window);
        if (even && split.n_parts == 1)
            return launch<T, K, D, 1, PLAIN>(stream, a, split);
        if (even && split.power > 0)
            return launch<T, K, D, 1, SHARED>(stream, a, split);
    }
    return launch<T, K, D, 1, ANY>(stream, a, split);
}

template <typename T, typename K> int launch(void *stream, const MiCudaAttention *a, const Split &split)
{
    switch (a->kv.head_dim) {
    case 64:
        return launch<T, K, 64>(stream, a, split);
    case 96:
        return launch<T, K, 96>(stream, a, split);
    case 128:
        return launch<T, K, 128>(stream, a, split);
    case 256:
        return launch<T, K, 256>(stream, a, split);
    default:
        return cudaErrorNotSupported;
    }
}

} // namespace
#endif
