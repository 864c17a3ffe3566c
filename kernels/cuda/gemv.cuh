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
 * of each row, and needs neither conversions nor registers for f32 copies of x. */
#ifndef KERNELS_CUDA_GEMV_CUH
#define KERNELS_CUDA_GEMV_CUH

#include "device.cuh"
#include "gemv.h"

namespace mi_gemv {

constexpr int STEPS = 4;        /* of 256 elements of x that a warp keeps in registers */
constexpr int STEP_CHUNKS = 32; /* 16-byte chunks of a step */
constexpr int MAX_STAGES = 64, MAX_WARPS = 24;
constexpr int GAINS = 2;        /* chunks of the norm's gain that a thread loads ahead */
/* Shared memory: barriers, sums of squares, a flag; then the ring, at a multiple of 128 bytes (16 costs 5 % of
 * bandwidth), then normed x, what the ends of rows need, and the teams' partial sums. */
constexpr int BARRIERS = 2 * MAX_STAGES * 8, HEADER = BARRIERS + 512;

struct Args {
    const char    *w[3];
    const float   *bias[3];
    const char    *x, *residual;
    const int32_t *out_rows, *positions;
    const float   *gain, *freqs;
    char          *y;
    MiCandidate   *best;
    MiKvView       kv;
    int64_t        x_stride, r_stride, y_stride; /* elements between rows */
    float          eps, offset, magnitude;
    int32_t        rows, in, out, tiles;
    int32_t        warps, team, teams, stage_tiles, stages, stage_bytes, flight; /* stage_tiles 0: half a tile */
    int32_t        n_heads, n_kv_heads, head_dim, rope_dim;
    bool           interleaved, y_f32;
};

/* Where the two rows of a tile lie, and for how many tiles from it on the same rows go on. */
struct Place {
    const char *first, *second;
    int         run;
};

template <int KIND> __device__ __forceinline__ bool adjacent(const Args &a)
{
    return KIND != MI_GEMV_GATED && (KIND != MI_GEMV_QKV || a.interleaved);
}

/* A pair of elements of a head, and which projection it is of. */
struct Pair {
    int part, head, first, second, run;
    bool turns;
};

__device__ __forceinline__ Pair pair_of(const Args &a, int tile)
{
    const int half = a.head_dim / 2, turned = a.rope_dim / 2, head = tile / half, d = tile - head * half;
    Pair      p;

    p.part = head < a.n_heads ? 0 : head < a.n_heads + a.n_kv_heads ? 1 : 2;
    p.head = head - (p.part == 0 ? 0 : p.part == 1 ? a.n_heads : a.n_heads + a.n_kv_heads);
    p.turns = d < turned && p.part < 2;
    if (a.interleaved) {
        p.first = 2 * d;
        p.second = 2 * d + 1;
        p.run = half - d;
    } else if (d < turned) {
        p.first = d;
        p.second = d + turned;
        p.run = turned - d;
    } else {
        p.first = d + turned;
        p.second = d + half;
        p.run = half - d;
    }
    return p;
}

template <int KIND> __device__ __forceinline__ Place place_of(const Args &a, int tile)
{
    const int64_t row = (int64_t)a.in * 2;

    if (KIND == MI_GEMV_GATED)
        return { a.w[0] + tile * row, a.w[1] + tile * row, a.tiles };
    if (KIND == MI_GEMV_QKV) {
        const Pair  p = pair_of(a, tile);
        const char *w = a.w[p.part] + (int64_t)p.head * a.head_dim * row;
        return { w + p.first * row, w + p.second * row, p.run };
    }
    return { a.w[0] + 2 * tile * row, a.w[0] + (2 * tile + 1) * row, a.tiles };
}

/* ---- numbers -------------------------------------------------------------------- */

/* volatile, or the compiler sinks the loads below the wait. */
__device__ __forceinline__ uint4 load_weight(const uint4 *p)
{
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.L2::256B.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p));
    return v;
}

template <typename T>
__device__ __forceinline__ void mma(float *d, unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0, unsigned b1);
template <>
__device__ __forceinline__ void mma<bf16>(float *d, unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0,
                                          unsigned b1)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
template <>
__device__ __forceinline__ void mma<__half>(float *d, unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0,
                                            unsigned b1)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

__device__ __forceinline__ float2 unpack(unsigned u, bf16)
{
    return { __uint_as_float(u << 16), __uint_as_float(u & 0xffff0000u) };
}
__device__ __forceinline__ float2 unpack(unsigned u, __half) { return __half22float2(*(const __half2 *)&u); }
__device__ __forceinline__ unsigned pack(float2 f, bf16)
{
    const __nv_bfloat162 h = __floats2bfloat162_rn(f.x, f.y);
    return *(const unsigned *)&h;
}
__device__ __forceinline__ unsigned pack(float2 f, __half)
{
    const __half2 h = __floats2half2_rn(f.x, f.y);
    return *(const unsigned *)&h;
}

/* Sums eight values over a warp in 9 shuffles, halving the set at each step; lane l gets that of value l / 4. */
__device__ __forceinline__ float warp_sum_eight(float *v, int lane)
{
    int o = 16;
#pragma unroll
    for (int n = 8; n > 1; n /= 2, o /= 2)
#pragma unroll
        for (int i = 0; i < n / 2; i++) {
            const float send = lane & o ? v[i] : v[i + n / 2], keep = lane & o ? v[i + n / 2] : v[i];
            v[i] = keep + __shfl_xor_sync(~0u, send, o);
        }
    v[0] += __shfl_xor_sync(~0u, v[0], 2);
    return v[0] + __shfl_xor_sync(~0u, v[0], 1);
}

/* Of position * freq in f32, as models are trained; the reduction in double keeps long contexts exact. */
__device__ __forceinline__ float2 turn_by(int position, float freq, float magnitude)
{
    double half_turns = (double)((float)position * freq) * 0.31830988618379067154;
    float  sine, cosine;

    half_turns -= 2 * rint(half_turns / 2);
    sincospif((float)half_turns, &sine, &cosine);
    return { cosine * magnitude, sine * magnitude };
}

__device__ __forceinline__ void store_kv(void *to, MiDType dtype, int64_t at, float v)
{
    if (dtype == MI_BF16)
        ((bf16 *)to)[at] = from_float<bf16>(v);
    else if (dtype == MI_F16)
        ((__half *)to)[at] = from_float<__half>(v);
    else
        ((float *)to)[at] = v;
}

#if __CUDA_ARCH__ >= 900

/* ---- the producer ----------------------------------------------------------------- */

struct Ring {
    uint64_t      *full, *empty;
    char          *at;
    volatile int  *released; /* set once the wait has returned */
    int            first_tile, n_tiles, n_stages; /* of this block */
};

template <int KIND> __device__ __forceinline__ void request(const Args &a, const Ring &r, int stage, int slot, uint64_t policy)
{
    const int row = a.in * 2;
    char     *to = r.at + (int64_t)slot * a.stage_bytes;

    if (!a.stage_tiles) { /* one row of a tile */
        const int   tile = r.first_tile + stage / 2;
        const Place p = place_of<KIND>(a, tile);
        const bool  there = stage % 2 == 0 || !adjacent<KIND>(a) || KIND == MI_GEMV_QKV || 2 * tile + 1 < a.out;
        barrier_expect(r.full + slot, there ? row : 0);
        if (there)
            bulk_load_once(to, stage % 2 ? p.second : p.first, row, r.full + slot, policy);
        return;
    }
    const int first = r.first_tile + stage * a.stage_tiles, n = min(a.stage_tiles, r.first_tile + r.n_tiles - first);
    const int rows = KIND == MI_GEMV_GATED || KIND == MI_GEMV_QKV ? 2 * n : min(2 * n, a.out - 2 * first);
    barrier_expect(r.full + slot, rows * row);
    for (int j = 0, m; j < n; j += m) {
        const Place p = place_of<KIND>(a, first + j);
        m = min(n - j, p.run);
        if (adjacent<KIND>(a)) {
            bulk_load_once(to + 2 * j * row, p.first, min(2 * m, rows - 2 * j) * row, r.full + slot, policy);
        } else {
            bulk_load_once(to + j * row, p.first, m * row, r.full + slot, policy);
            bulk_load_once(to + (a.stage_tiles + j) * row, p.second, m * row, r.full + slot, policy);
        }
    }
}

/* One warp; its first lane requests, the others only meet the rest of the block. */
template <int KIND> __device__ __forceinline__ void produce(const Args &a, const Ring &r)
{
    const uint64_t policy = evict_first_policy();
    const bool     first = threadIdx.x % 32 == 0;
    int            slot = 0, phase = 1, done_slot = 0, done_phase = 0, s;

    if (first) {
        for (int i = 0; i < a.stages; i++) {
            barrier_init(r.full + i, 1);
            barrier_init(r.empty + i, max(a.stage_tiles, 1) * a.team);
        }
        *r.released = 0;
        barrier_init_done();
        for (s = 0; s < min(r.n_stages, a.flight); s++)
            request<KIND>(a, r, s, s, policy);
    }
    __syncthreads();
    if (!first)
        return;
    slot = s = min(r.n_stages, a.flight);
    if (slot == a.stages) {
        slot = 0;
        phase = 0;
    }
    for (; s < r.n_stages; s++) {
        while (!*r.released && !barrier_done(r.full + done_slot, done_phase)) {
        }
        if (++done_slot == a.stages) {
            done_slot = 0;
            done_phase ^= 1;
        }
        if (s >= a.stages)
            barrier_wait(r.empty + slot, phase);
        request<KIND>(a, r, s, slot, policy);
        if (++slot == a.stages) {
            slot = 0;
            phase ^= 1;
        }
    }
}

/* ---- x ------------------------------------------------------------------------------ */

/* x * gain of all rows into shared memory, the sums of their squares into `squares` [warps][M]: 1 / rms is
 * applied to y, where nobody waits for it. */
template <typename T, int M>
__device__ __forceinline__ void norm_rows(const Args &a, const int *row, const float4 (*gain)[2], uint4 *xs, float *squares)
{
    const int chunks = a.in / 8, threads = a.warps * 32, tid = threadIdx.x;
    float     sum[M] = {};
    uint4     u[GAINS][M];

    auto take = [&](int c, int m, uint4 v, const float *g) {
        unsigned *w = (unsigned *)&v;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float2 f = unpack(w[i], T());
            sum[m] += f.x * f.x;
            sum[m] += f.y * f.y;
            f.x *= a.offset + g[2 * i];
            f.y *= a.offset + g[2 * i + 1];
            w[i] = pack(f, T());
        }
        xs[m * chunks + c] = v;
    };
    auto load = [&](int c, int m) { return __ldcg((const uint4 *)(a.x + row[m] * a.x_stride * 2) + c); };

#pragma unroll
    for (int k = 0; k < GAINS; k++)
#pragma unroll
        for (int m = 0; m < M; m++)
            if (tid + k * threads < chunks)
                u[k][m] = load(tid + k * threads, m);
#pragma unroll
    for (int k = 0; k < GAINS; k++)
#pragma unroll
        for (int m = 0; m < M; m++)
            if (tid + k * threads < chunks)
                take(tid + k * threads, m, u[k][m], (const float *)gain[k]);
    for (int c = tid + GAINS * threads; c < chunks; c += threads) {
        const float4 g[2] = { ((const float4 *)a.gain)[2 * c], ((const float4 *)a.gain)[2 * c + 1] };
        for (int m = 0; m < M; m++)
            take(c, m, load(c, m), (const float *)g);
    }
#pragma unroll
    for (int m = 0; m < M; m++) {
        sum[m] = warp_sum(sum[m]);
        if (tid % 32 == 0)
            squares[tid / 32 * M + m] = sum[m];
    }
}

__device__ __forceinline__ void consumers_meet(int threads) { asm volatile("bar.sync 1, %0;" ::"r"(threads) : "memory"); }

/* ---- the ends of rows --------------------------------------------------------------- */

/* What the end of a row needs and no kernel writes: two biases, cosine and sine. */
template <int KIND> __device__ __forceinline__ float4 look_up(const Args &a, int tile, int m)
{
    float4 p = { 0, 0, 1, 0 };

    if (KIND == MI_GEMV_QKV) {
        const Pair   e = pair_of(a, tile);
        const float *bias = a.bias[e.part];
        if (bias) {
            p.x = bias[e.head * a.head_dim + e.first];
            p.y = bias[e.head * a.head_dim + e.second];
        }
        if (e.turns && m < a.rows) {
            const float2 t = turn_by(a.positions[m], a.freqs[tile % (a.head_dim / 2)], a.magnitude);
            p.z = t.x;
            p.w = t.y;
        }
    } else if (a.bias[0]) {
        p.x = a.bias[0][2 * tile];
        p.y = 2 * tile + 1 < a.out ? a.bias[0][2 * tile + 1] : 0;
    }
    return p;
}

template <typename T> __device__ __forceinline__ void end_qkv(const Args &a, int tile, int m, float y0, float y1, float4 p)
{
    const Pair  e = pair_of(a, tile);
    const float r0 = y0 * p.z - y1 * p.w, r1 = y1 * p.z + y0 * p.w;

    if (e.part == 0) {
        T *q = (T *)a.y + m * a.y_stride + e.head * a.head_dim;
        q[e.first] = from_float<T>(r0);
        q[e.second] = from_float<T>(r1);
        return;
    }
    const int slot = a.kv.slots[m];
    if (slot < 0)
        return;
    const int64_t at = slot / a.kv.block_size * a.kv.stride_block + slot % a.kv.block_size * a.kv.stride_token +
                       e.head * a.kv.stride_head;
    void *to = e.part == 1 ? a.kv.k : a.kv.v;
    store_kv(to, a.kv.dtype, at + e.first, r0);
    store_kv(to, a.kv.dtype, at + e.second, r1);
}

template <typename T, int KIND> __device__ __forceinline__ float2 residual_of(const Args &a, int tile, int m)
{
    const T *r = (const T *)a.residual + m * a.r_stride + 2 * tile;

    if (KIND != MI_GEMV_RESIDUAL || m >= a.rows)
        return { 0, 0 };
    return { to_float(__ldcg(r)), 2 * tile + 1 < a.out ? to_float(__ldcg(r + 1)) : 0 };
}

template <typename T> __device__ __forceinline__ void end_rows(const Args &a, int tile, int m, float y0, float y1)
{
    const int64_t at = m * a.y_stride + 2 * tile;
    const bool    two = 2 * tile + 1 < a.out, pair = two && at % 2 == 0;

    if (a.y_f32) {
        float *y = (float *)a.y + at;
        if (!a.y)
            return;
        if (pair)
            *(float2 *)y = { y0, y1 };
        else
            y[0] = y0;
        if (two && !pair)
            y[1] = y1;
    } else {
        T *y = (T *)a.y + at;
        if (pair)
            *(unsigned *)y = pack({ y0, y1 }, T());
        else
            y[0] = from_float<T>(y0);
        if (two && !pair)
            y[1] = from_float<T>(y1);
    }
}

/* The best of what the block's threads found, thread i of row i % M. */
template <int M> __device__ __forceinline__ void end_best(const Args &a, float v, int i, MiCandidate *found)
{
    const int tid = threadIdx.x, lane = tid % 32;

#pragma unroll
    for (int o = 16; o >= M; o /= 2) {
        const float w = __shfl_xor_sync(~0u, v, o);
        const int   j = __shfl_xor_sync(~0u, i, o);
        if (beats(w, j, v, i)) {
            v = w;
            i = j;
        }
    }
    consumers_meet(a.warps * 32); /* the partial sums are read: their place takes what the warps found */
    if (lane < M)
        found[tid / 32 * M + lane] = { v, i };
    consumers_meet(a.warps * 32);
    if (tid >= M || tid >= a.rows)
        return;
    for (int k = 1; k < a.warps; k++)
        if (beats(found[k * M + tid].logit, found[k * M + tid].token, v, i)) {
            v = found[k * M + tid].logit;
            i = found[k * M + tid].token;
        }
    a.best[(int64_t)tid * gridDim.x + blockIdx.x] = { v, i };
}

/* ---- the kernel ---------------------------------------------------------------------- */

/* A tile of one team: its steps of both rows times x, for the caller to sum over the warp.  weight(i, s): of row i. */
template <typename T, int M, typename W>
__device__ __forceinline__ void multiply(W weight, const uint4 (*x)[STEPS], float *sums, int lane)
{
    constexpr int CHAINS = M == 4 ? 1 : 2; /* a chain of dependent mma is slow */
    float         d[M][CHAINS][4] = {};
    const int     g = lane / 4, t = lane % 4;

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
    for (int m = 0; m < M; m++) {
        float first = g % 2 ? d[m][0][1] : d[m][0][0], second = g % 2 ? d[m][0][3] : d[m][0][2];
#pragma unroll
        for (int c = 1; c < CHAINS; c++) {
            first += g % 2 ? d[m][c][1] : d[m][c][0];
            second += g % 2 ? d[m][c][3] : d[m][c][2];
        }
        sums[2 * m] = t == g / 2 ? first : 0;
        sums[2 * m + 1] = t == g / 2 ? second : 0;
    }
}

template <typename T, int KIND, int M, bool RING>
__global__ void __maxnreg__(M == 1 ? RING ? 64 : 80 : M == 2 ? 88 : 96) gemv(const __grid_constant__ Args a)
{
    extern __shared__ __align__(128) char smem[];
    constexpr bool NORM = KIND == MI_GEMV_GATED || KIND == MI_GEMV_QKV || KIND == MI_GEMV_HEAD;
    constexpr int  AT_ONCE = 4 / M; /* tiles whose sums one shuffle tree adds */
    const int     tid = threadIdx.x, lane = tid % 32, warp = tid / 32, threads = a.warps * 32;
    const int     chunks = a.in / 8, tile0 = (int)((int64_t)a.tiles * blockIdx.x / gridDim.x);
    const int     n_tiles = (int)((int64_t)a.tiles * (blockIdx.x + 1) / gridDim.x) - tile0;
    const int     most = (a.tiles + gridDim.x - 1) / gridDim.x;
    float        *squares = (float *)(smem + BARRIERS); /* [warps][M] */
    char         *at = smem + HEADER + (RING ? a.stages * a.stage_bytes : 0);
    uint4        *xs = (uint4 *)at; /* [M][chunks] */
    float4       *ahead = (float4 *)(at + (NORM ? M * chunks * 16 : 0)); /* [n_tiles][M] */
    const bool    looks_up = KIND == MI_GEMV_QKV || (!NORM && a.bias[0]);
    float        *parts = (float *)(ahead + (looks_up ? most * M : 0)); /* [n_tiles][M][2][team] */
    const Ring    ring = { (uint64_t *)smem, (uint64_t *)smem + MAX_STAGES, smem + HEADER,
                           (volatile int *)(squares + MAX_WARPS * 4), tile0, n_tiles,
                           a.stage_tiles ? (n_tiles + a.stage_tiles - 1) / a.stage_tiles : 2 * n_tiles };

    let_successor_start();
    if (RING && warp == a.warps) {
        produce<KIND>(a, ring);
        return;
    }
    const int team = warp / a.team, part = warp - team * a.team;
    uint4     w[2][RING ? 1 : STEPS], x[M][STEPS];
    if constexpr (!RING) {
        const Place p = place_of<KIND>(a, tile0 + min(team, n_tiles - 1));
#pragma unroll
        for (int s = 0; s < STEPS; s++) {
            const int c = min((s * a.team + part) * STEP_CHUNKS + lane, chunks - 1);
            w[0][s] = load_weight((const uint4 *)p.first + c);
            w[1][s] = load_weight((const uint4 *)(2 * (tile0 + team) + 1 < a.out || !adjacent<KIND>(a) ? p.second : p.first) + c);
        }
    }
    float4 gain[GAINS][2] = {};
    int    row[M];
#pragma unroll
    for (int m = 0; m < M; m++)
        row[m] = KIND == MI_GEMV_HEAD && a.out_rows ? a.out_rows[min(m, a.rows - 1)] : min(m, a.rows - 1);
    if constexpr (NORM)
#pragma unroll
        for (int k = 0; k < GAINS; k++)
            if (tid + k * threads < chunks) {
                gain[k][0] = ((const float4 *)a.gain)[2 * (tid + k * threads)];
                gain[k][1] = ((const float4 *)a.gain)[2 * (tid + k * threads) + 1];
            }
    if (looks_up)
        for (int i = tid; i < n_tiles * M; i += threads)
            ahead[i] = look_up<KIND>(a, tile0 + i / M, i % M);
    if constexpr (RING)
        __syncthreads();

    wait_for_predecessor();
    if (RING && tid == 0)
        *ring.released = 1;

    const float2 residual = tid < n_tiles * M ? residual_of<T, KIND>(a, tile0 + tid / M, tid % M) : float2{ 0, 0 };
    if constexpr (NORM) {
        norm_rows<T, M>(a, row, gain, xs, squares);
        consumers_meet(threads);
    }
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int s = 0; s < STEPS; s++) {
            const int c = (s * a.team + part) * STEP_CHUNKS + lane;
            x[m][s] = c >= chunks ? uint4{ 0, 0, 0, 0 }
                      : NORM      ? xs[m * chunks + c]
                                  : __ldcg((const uint4 *)(a.x + row[m] * a.x_stride * 2) + c);
        }

    const int half = a.stage_tiles == 0, per = half ? 2 * a.teams : a.teams / max(a.stage_tiles, 1);
    int       slot = half ? 2 * team : team / max(a.stage_tiles, 1), phase = 0;
    for (int t0 = team; t0 < n_tiles; t0 += AT_ONCE * a.teams) {
        float sums[8];
#pragma unroll
        for (int n = 0; n < AT_ONCE; n++) {
            if (t0 + n * a.teams >= n_tiles) {
                for (int i = 0; i < 2 * M; i++)
                    sums[n * 2 * M + i] = 0;
                continue;
            }
            if constexpr (RING) {
                while (slot >= a.stages) {
                    slot -= a.stages;
                    phase ^= 1;
                }
                const int   j = half ? 0 : team % a.stage_tiles, wraps = half && slot + 1 == a.stages;
                const int   slot2 = half ? wraps ? 0 : slot + 1 : slot;
                const char *first = ring.at + slot * a.stage_bytes, *second = ring.at + slot2 * a.stage_bytes;
                if (!half) {
                    first += (adjacent<KIND>(a) ? 2 * j : j) * a.in * 2;
                    second += (adjacent<KIND>(a) ? 2 * j + 1 : a.stage_tiles + j) * a.in * 2;
                }
                barrier_wait(ring.full + slot, phase);
                if (half)
                    barrier_wait(ring.full + slot2, phase ^ wraps);
                multiply<T, M>(
                    [&](int i, int s) {
                        return ((const uint4 *)(i ? second : first))[min((s * a.team + part) * STEP_CHUNKS + lane, chunks - 1)];
                    },
                    x, sums + n * 2 * M, lane);
                __syncwarp();
                if (lane == 0) {
                    barrier_arrive(ring.empty + slot);
                    if (half)
                        barrier_arrive(ring.empty + slot2);
                }
                slot += per;
            } else {
                multiply<T, M>([&](int i, int s) { return w[i][s]; }, x, sums + n * 2 * M, lane);
            }
        }
        const float sum = warp_sum_eight(sums, lane);
        const int   i = lane / 4, tile = t0 + i / (2 * M) * a.teams;
        if (lane % 4 == 0 && tile < n_tiles)
            parts[(tile * M * 2 + i % (2 * M)) * a.team + part] = sum;
    }
    consumers_meet(threads);

    float best = -INFINITY, rstd = 1;
    int   best_at = 0x7fffffff;
    if constexpr (NORM) {
        float sum = 0;
        for (int i = 0; i < a.warps; i++)
            sum += squares[i * M + tid % M];
        rstd = rsqrtf(sum / a.in + a.eps);
    }
    for (int i = tid; i < n_tiles * M; i += threads) {
        const int tile = tile0 + i / M, m = i % M;
        float     y0 = 0, y1 = 0;
        if (m >= a.rows)
            continue;
        for (int k = 0; k < a.team; k++) {
            y0 += parts[2 * i * a.team + k];
            y1 += parts[(2 * i + 1) * a.team + k];
        }
        const float4 p = looks_up ? ahead[i] : float4{ 0, 0, 1, 0 };
        y0 = y0 * rstd + p.x;
        y1 = y1 * rstd + p.y;
        if (KIND == MI_GEMV_QKV) {
            end_qkv<T>(a, tile, m, y0, y1, p);
        } else if (KIND == MI_GEMV_GATED) {
            ((T *)a.y)[m * a.y_stride + tile] = from_float<T>(y0 / (1 + __expf(-y0)) * y1);
        } else {
            const float2 r = i == tid ? residual : residual_of<T, KIND>(a, tile, m);
            end_rows<T>(a, tile, m, y0 + r.x, y1 + r.y);
            if (beats(y0, 2 * tile, best, best_at)) {
                best = y0;
                best_at = 2 * tile;
            }
            if (2 * tile + 1 < a.out && beats(y1, 2 * tile + 1, best, best_at)) {
                best = y1;
                best_at = 2 * tile + 1;
            }
        }
    }
    if (KIND == MI_GEMV_HEAD && a.best)
        end_best<M>(a, best, best_at, (MiCandidate *)parts);
}

#else

template <typename T, int KIND, int M, bool RING> __global__ void gemv(const __grid_constant__ Args a) { (void)a; }

#endif

}
#endif
