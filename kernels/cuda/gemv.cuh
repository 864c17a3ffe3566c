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
 * A step is a chain of five kernels over and over, each as short as starting it:
 * code is kept small, since the kernels push each other out of the instruction
 * caches, and what can be computed on the host is. */
#ifndef KERNELS_CUDA_GEMV_CUH
#define KERNELS_CUDA_GEMV_CUH

#include "device.cuh"
#include "gemv.h"

namespace mi_gemv {

constexpr int STEPS = 4;        /* of 256 elements of x that a warp keeps in registers */
constexpr int STEP_CHUNKS = 32; /* 16-byte chunks of a step */
constexpr int MAX_STAGES = 64, MAX_WARPS = 24;
constexpr int SPREAD = 4; /* threads that end a tile together where sums stay spread */
constexpr int GAINS = 2;  /* chunks of the norm's gain that a thread loads ahead */
/* Shared memory: barriers, sums of squares, a flag; then the ring, at a multiple of 128 bytes (16 costs 5 % of
 * bandwidth), then normed x, what the ends of rows need, and the teams' partial sums. */
constexpr int EMPTY = MAX_STAGES * 8, SQUARES = 2 * MAX_STAGES * 8, FLAG = SQUARES + MAX_WARPS * 4 * 4;
constexpr int HEADER = (FLAG + 4 + 127) / 128 * 128;

struct Args {
    const char    *w[3];
    const float   *bias[3];
    const char    *x, *residual;
    const int32_t *out_rows, *positions;
    const float   *gain, *freqs, *head_gain[2];
    char          *y;
    MiCandidate   *best;
    MiKvView       kv;
    int64_t        x_stride, r_stride, y_stride; /* elements between rows */
    float          eps, offset, magnitude, head_eps, head_offset, per_in; /* 1 / in */
    int32_t        cluster; /* blocks that norm a head together; 0: none is normed */
    int32_t        rows, out, chunks, row_bytes;
    int32_t        each, more; /* tiles, or rows where not PAIRED, of a block; so many blocks have one more */
    int32_t        warps, team, teams, team_magic; /* warp * magic >> 16 = warp / team */
    int32_t        stage_tiles, stage_shift, stages, stage_bytes, stages_round; /* stage_tiles 0: half a tile */
    int32_t        flight, ahead, pace;
    int32_t        tile_pitch, second; /* bytes between tiles of a stage; from the first row of a tile to the second */
    int32_t        xs, known, parts;   /* where in shared memory */
    int32_t        n_heads, n_kv_heads, head_dim, rope_dim;
    uint32_t       half_magic; /* high 32 bits of i * magic = i / (head_dim / 2) */
    bool           interleaved, y_f32;
};

/* A tile is two rows that belong together; else any two that follow each other. */
template <int KIND> constexpr bool PAIRED = KIND == MI_GEMV_GATED || KIND == MI_GEMV_QKV;
template <int KIND> constexpr bool NORMED = KIND == MI_GEMV_GATED || KIND == MI_GEMV_QKV || KIND == MI_GEMV_HEAD;

/* The two rows of a tile lie next to each other. */
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
    const int half = a.head_dim / 2, turned = a.rope_dim / 2, head = __umulhi(tile, a.half_magic), d = tile - head * half;
    const int keys = head - a.n_heads, values = keys - a.n_kv_heads;
    Pair      p;

    p.part = keys < 0 ? 0 : values < 0 ? 1 : 2;
    p.head = keys < 0 ? head : values < 0 ? keys : values;
    p.turns = d < turned && values < 0;
    p.first = a.interleaved ? 2 * d : d < turned ? d : d + turned;
    p.second = a.interleaved ? 2 * d + 1 : d < turned ? d + turned : d + half;
    p.run = (!a.interleaved && d < turned ? turned : half) - d;
    return p;
}

/* Where the two rows of a tile lie, and for how many tiles from it on the same rows go on. */
struct Place {
    const char *first, *second;
    int         run;
};

template <int KIND> __device__ __forceinline__ Place place_of(const Args &a, int unit)
{
    const int64_t row = a.row_bytes;

    if (KIND == MI_GEMV_GATED)
        return { a.w[0] + unit * row, a.w[1] + unit * row, 1 << 30 };
    if (KIND == MI_GEMV_QKV) {
        const Pair  p = pair_of(a, unit);
        const char *w = a.w[p.part] + (int64_t)(p.head * a.head_dim) * row;
        return { w + p.first * row, w + p.second * row, p.run };
    }
    return { a.w[0] + unit * row, a.w[0] + unit * row + row, 1 << 30 };
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

__device__ __forceinline__ uint4 load_shared(unsigned at)
{
    uint4 v;
    asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(at));
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

__device__ __forceinline__ float2 unpack(unsigned u, bf16)
{
    return { __uint_as_float(u << 16), __uint_as_float(u & 0xffff0000u) };
}
__device__ __forceinline__ unsigned pack(float2 f, bf16)
{
    const __nv_bfloat162 h = __floats2bfloat162_rn(f.x, f.y);
    return *(const unsigned *)&h;
}

/* Sums N values over a warp, halving the set at each step; lane l gets that of value l / (32 / N). */
template <int N> __device__ __forceinline__ float warp_sum_of(float *v, int lane)
{
    int o = 16;
#pragma unroll
    for (int n = N; n > 1; n /= 2, o /= 2)
#pragma unroll
        for (int i = 0; i < n / 2; i++) {
            const float send = lane & o ? v[i] : v[i + n / 2], keep = lane & o ? v[i + n / 2] : v[i];
            v[i] = keep + __shfl_xor_sync(~0u, send, o);
        }
#pragma unroll
    for (; o; o /= 2)
        v[0] += __shfl_xor_sync(~0u, v[0], o);
    return v[0];
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

/* The part of a block in the work. */
struct Share {
    int first; /* tile, or row where not PAIRED */
    int n, rows; /* tiles; rows in them: the last tile may have one */
};

template <int KIND> __device__ __forceinline__ Share share_of(const Args &a)
{
    const int b = blockIdx.x, n = a.each + (b < a.more);
    return { b * a.each + min(b, a.more), PAIRED<KIND> ? n : (n + 1) / 2, PAIRED<KIND> ? 2 * n : n };
}

/* What place_of() and the ends of rows count in. */
template <int KIND> __device__ __forceinline__ int unit_of(Share t, int tile) { return t.first + (PAIRED<KIND> ? tile : 2 * tile); }

__device__ __forceinline__ void prefetch(const void *p, unsigned bytes)
{
    asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(p), "r"(bytes) : "memory");
}

/* A stage into a slot of the ring; slot below 0: into the second-level cache only. */
template <int KIND>
__device__ __forceinline__ void request(const Args &a, Share t, char *smem, int stage, int slot, uint64_t policy)
{
    const int row = a.row_bytes, tiles = max(a.stage_tiles, 1), first = a.stage_tiles ? stage * tiles : stage >> 1;
    const int n = min(tiles, t.n - first), rows = a.stage_tiles ? min(2 * n, t.rows - 2 * first) : 1;
    uint64_t *full = (uint64_t *)smem + slot;
    char     *to = smem + HEADER + slot * a.stage_bytes;
    auto      fetch = [&](int at, const char *from, int bytes) {
        if (slot < 0)
            prefetch(from, bytes);
        else
            bulk_load_once(to + at, from, bytes, full, policy);
    };

    if (slot >= 0)
        barrier_expect(full, rows * row);
#pragma unroll 1
    for (int j = 0, m; j < n; j += m) {
        const Place p = place_of<KIND>(a, unit_of<KIND>(t, first + j));
        m = min(n - j, p.run);
        if (!a.stage_tiles) {
            fetch(0, stage & 1 ? p.second : p.first, row);
        } else if (adjacent<KIND>(a)) {
            fetch(2 * j * row, p.first, min(2 * m, rows - 2 * j) * row);
        } else {
            fetch(j * row, p.first, m * row);
            fetch((tiles + j) * row, p.second, m * row);
        }
    }
}

/* One warp; its first lane requests, the others only prepare the barriers. */
template <int KIND> __device__ __forceinline__ void produce(const Args &a, Share t, char *smem)
{
    const uint64_t policy = evict_first_policy();
    const int      lane = threadIdx.x % 32, n = a.stage_tiles ? (t.n + a.stage_tiles - 1) >> a.stage_shift : t.rows;
    volatile int  *released = (volatile int *)(smem + FLAG);
    int            slot = 0, phase = 1, done_slot = 0, done_phase = 0;

    for (int i = lane; i < a.stages; i += 32) {
        barrier_init((uint64_t *)smem + i, 1);
        barrier_init((uint64_t *)(smem + EMPTY) + i, max(a.stage_tiles, 1) * a.team);
    }
    if (lane == 0)
        *released = 0;
    barrier_init_done();
    __syncwarp();
    int s = 0, next = a.stages, last = 0;
#pragma unroll 1
    for (int pass = 0; pass < 2; pass++) {
        const int end = lane ? 0 : pass ? n : min(n, a.flight); /* first what may be under way before anybody waits */
#pragma unroll 1
        for (; s < end; s++) {
            if (pass) {
                while (!*released && !barrier_done((uint64_t *)smem + done_slot, done_phase)) {
                }
                if (++done_slot == a.stages) {
                    done_slot = 0;
                    done_phase ^= 1;
                }
                /* The ring is full: what comes next, as fast as memory gives it while nobody else reads. */
                while (s >= a.stages && !barrier_done((uint64_t *)(smem + EMPTY) + slot, phase))
                    if (next < min(n, a.stages + a.ahead) && !*released && clock() - last > a.pace) {
                        request<KIND>(a, t, smem, next++, -1, policy);
                        last = clock();
                    }
            }
            request<KIND>(a, t, smem, s, slot, policy);
            if (++slot == a.stages) {
                slot = 0;
                phase ^= 1;
            }
        }
        __syncwarp();
        if (pass == 0)
            __syncthreads();
    }
}

/* ---- x ------------------------------------------------------------------------------ */

__device__ __forceinline__ void consumers_meet(const Args &a)
{
    asm volatile("bar.sync 1, %0;" ::"r"(a.warps * 32) : "memory");
}

__device__ __forceinline__ uint4 load_x(const Args &a, int row, int chunk)
{
    return __ldcg((const uint4 *)(a.x + row * a.x_stride * 2) + chunk);
}

/* v * gain; the squares of v are added to sum. */
template <typename T> __device__ __forceinline__ uint4 scale(const Args &a, uint4 v, const float4 *gain, float &sum)
{
    unsigned    *w = (unsigned *)&v;
    const float *g = (const float *)gain;

#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float2 f = unpack(w[i], T());
        sum = fmaf(f.x, f.x, fmaf(f.y, f.y, sum));
        w[i] = pack({ f.x * (a.offset + g[2 * i]), f.y * (a.offset + g[2 * i + 1]) }, T());
    }
    return v;
}

/* x * gain of all rows into shared memory, the sums of their squares into `squares` [warps][M]: 1 / rms is
 * applied to y, where nobody waits for it. */
template <typename T, int M>
__device__ __forceinline__ void norm_rows(const Args &a, const int *row, const float4 (*gain)[2], char *smem)
{
    const int threads = a.warps * 32, tid = threadIdx.x;
    uint4    *xs = (uint4 *)(smem + a.xs);
    float     sum[M] = {};
    uint4     u[GAINS][M];

#pragma unroll
    for (int k = 0; k < GAINS; k++)
#pragma unroll
        for (int m = 0; m < M; m++)
            if (tid + k * threads < a.chunks)
                u[k][m] = load_x(a, row[m], tid + k * threads);
#pragma unroll
    for (int k = 0; k < GAINS; k++)
        if (tid + k * threads < a.chunks)
#pragma unroll
            for (int m = 0; m < M; m++)
                xs[m * a.chunks + tid + k * threads] = scale<T>(a, u[k][m], gain[k], sum[m]);
#pragma unroll 1
    for (int c = tid + GAINS * threads; c < a.chunks; c += threads)
#pragma unroll
        for (int m = 0; m < M; m++)
            xs[m * a.chunks + c] = scale<T>(a, load_x(a, row[m], c), (const float4 *)a.gain + 2 * c, sum[m]);
#pragma unroll
    for (int m = 0; m < M; m++) {
        sum[m] = warp_sum(sum[m]);
        if (tid % 32 == 0)
            ((float *)(smem + SQUARES))[tid / 32 * M + m] = sum[m];
    }
}

template <int M> __device__ __forceinline__ float inverse_rms(const Args &a, const char *smem, int m)
{
    const float *squares = (const float *)(smem + SQUARES);
    float        sum = 0;

#pragma unroll 4
    for (int i = 0; i < a.warps; i++)
        sum += squares[i * M + m];
    return rsqrtf(sum * a.per_in + a.eps);
}

/* ---- the ends of rows --------------------------------------------------------------- */

/* What the end of a tile needs and no kernel writes: two biases, cosine and sine. */
template <int KIND> __device__ __forceinline__ float4 look_up(const Args &a, int unit, int m, bool two)
{
    float4 p = { 0, 0, 1, 0 };

    if (KIND == MI_GEMV_QKV) {
        const Pair   e = pair_of(a, unit);
        const float *bias = a.bias[e.part];
        if (bias) {
            p.x = bias[e.head * a.head_dim + e.first];
            p.y = bias[e.head * a.head_dim + e.second];
        }
        if (e.turns && m < a.rows) {
            const float2 t = turn_by(a.positions[m], a.freqs[a.interleaved ? e.first / 2 : e.first], a.magnitude);
            p.z = t.x;
            p.w = t.y;
        }
    } else if (!NORMED<KIND> && a.bias[0]) {
        p.x = a.bias[0][unit];
        p.y = two ? a.bias[0][unit + 1] : 0;
    }
    return p;
}

/* Where the two elements of a pair go: offsets into q, or into k and v; below 0: nowhere. */
struct Target {
    void   *to;
    int64_t first, second;
    MiDType dtype;
};

template <typename T> __device__ __forceinline__ Target target_of(const Args &a, int tile, int m)
{
    const Pair e = pair_of(a, tile);
    Target     t = { a.y, m * a.y_stride + e.head * a.head_dim, 0, MI_BF16 };

    if (e.part) {
        const unsigned slot = m < a.rows ? a.kv.slots[m] : -1;
        const unsigned block = slot / (unsigned)a.kv.block_size;
        t.to = (int)slot < 0 ? NULL : e.part == 1 ? a.kv.k : a.kv.v;
        t.first = block * a.kv.stride_block + (slot - block * a.kv.block_size) * a.kv.stride_token + e.head * a.kv.stride_head;
        t.dtype = a.kv.dtype;
    }
    t.second = t.first + e.second;
    t.first += e.first;
    return t;
}

template <typename T, int KIND> __device__ __forceinline__ float2 residual_of(const Args &a, int unit, int m, bool two)
{
    const T *r = (const T *)a.residual + m * a.r_stride + unit;

    if (KIND != MI_GEMV_RESIDUAL || m >= a.rows)
        return { 0, 0 };
    return { to_float(__ldcg(r)), two ? to_float(__ldcg(r + 1)) : 0 };
}

template <typename T> __device__ __forceinline__ void end_rows(const Args &a, int unit, int m, bool two, float y0, float y1)
{
    const int64_t at = m * a.y_stride + unit;

    if (a.y_f32 && a.y) {
        float *y = (float *)a.y + at;
        y[0] = y0;
        if (two)
            y[1] = y1;
    } else if (!a.y_f32) {
        T *y = (T *)a.y + at;
        if (two && at % 2 == 0)
            *(unsigned *)y = pack({ y0, y1 }, T());
        else
            y[0] = from_float<T>(y0);
        if (two && at % 2)
            y[1] = from_float<T>(y1);
    }
}

__device__ __forceinline__ void cluster_arrive() { asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory"); }
__device__ __forceinline__ void cluster_wait() { asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory"); }

/* y of a tile, normed over its head of q or k, which the blocks of a cluster share.  All threads but the producer's
 * come here, having arrived at the cluster's barrier once: so every block has started. */
__device__ __forceinline__ void norm_head(const Args &a, int unit, bool active, char *smem, float &y0, float &y1)
{
    const int    tid = threadIdx.x;
    const Pair   e = pair_of(a, unit);
    const float *gain = active && e.part < 2 ? a.head_gain[e.part] : NULL;
    const float  g0 = gain ? a.head_offset + gain[e.first] : 1, g1 = gain ? a.head_offset + gain[e.second] : 1;
    float       *sums = (float *)(smem + SQUARES), *shares = sums + 64; /* [warps] of this block; [cluster] of all */
    float        sum = warp_sum(active && tid % SPREAD == 0 ? y0 * y0 + y1 * y1 : 0);

    if (tid % 32 == 0)
        sums[tid / 32] = sum;
    cluster_wait();
    consumers_meet(a);
    if (tid < a.cluster) {
        const unsigned rank = blockIdx.x % a.cluster;
        unsigned       there;
        sum = 0;
        for (int i = 0; i < a.warps; i++)
            sum += sums[i];
        asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(shared_address(shares + rank)), "r"(tid));
        asm volatile("st.shared::cluster.f32 [%0], %1;" ::"r"(there), "f"(sum) : "memory");
    }
    __syncwarp();
    cluster_arrive();
    cluster_wait();
    sum = 0;
    for (int i = 0; i < a.cluster; i++)
        sum += shares[i];
    const float scale = gain ? rsqrtf(sum / a.head_dim + a.head_eps) : 1;
    y0 *= scale * g0;
    y1 *= scale * g1;
}

/* The end of a tile for row m of x; residual, ahead, target: loaded before. */
template <typename T, int KIND>
__device__ __forceinline__ void end_tile(const Args &a, int unit, int m, bool two, float y0, float y1, float4 ahead,
                                         float2 residual, const Target &target)
{
    if (KIND == MI_GEMV_QKV) {
        if (target.to) {
            store_kv(target.to, target.dtype, target.first, y0 * ahead.z - y1 * ahead.w);
            store_kv(target.to, target.dtype, target.second, y1 * ahead.z + y0 * ahead.w);
        }
    } else if (KIND == MI_GEMV_GATED) {
        ((T *)a.y)[m * a.y_stride + unit] = from_float<T>(__fdividef(y0, 1 + __expf(-y0)) * y1);
    } else {
        end_rows<T>(a, unit, m, two, y0 + residual.x, y1 + residual.y);
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
    consumers_meet(a); /* the partial sums are read: their place takes what the warps found */
    if (lane < M)
        found[tid / 32 * M + lane] = { v, i };
    consumers_meet(a);
    if (tid >= M || tid >= a.rows)
        return;
#pragma unroll 1
    for (int k = 1; k < a.warps; k++)
        if (beats(found[k * M + tid].logit, found[k * M + tid].token, v, i)) {
            v = found[k * M + tid].logit;
            i = found[k * M + tid].token;
        }
    a.best[(int64_t)tid * gridDim.x + blockIdx.x] = { v, i };
}

/* All tiles of the block, their sums already added over the lanes: parts [n][M][2][team]. */
template <typename T, int KIND, int M>
__device__ __forceinline__ void end_summed(const Args &a, Share t, char *smem, float2 residual)
{
    const int     tid = threadIdx.x;
    const float  *parts = (const float *)(smem + a.parts);
    const float4 *ahead = (const float4 *)(smem + a.known);
    const float   scale = NORMED<KIND> ? inverse_rms<M>(a, smem, tid % M) : 1;
    float         best = -INFINITY;
    int           best_at = 0x7fffffff;

#pragma unroll 1
    for (int i = tid; i < t.n * M; i += a.warps * 32) {
        const int  unit = unit_of<KIND>(t, i / M), m = i % M;
        const bool two = PAIRED<KIND> || i / M * 2 + 1 < t.rows;
        float      y0 = 0, y1 = 0;
        if (m >= a.rows)
            continue;
#pragma unroll 1
        for (int k = 0; k < a.team; k++) {
            y0 += parts[2 * i * a.team + k];
            y1 += parts[(2 * i + 1) * a.team + k];
        }
        const float4 p = KIND == MI_GEMV_GATED || KIND == MI_GEMV_HEAD ? float4{ 0, 0, 1, 0 } : ahead[i];
        y0 = y0 * scale + p.x;
        y1 = y1 * scale + p.y;
        end_tile<T, KIND>(a, unit, m, two, y0, y1, p, i == tid ? residual : residual_of<T, KIND>(a, unit, m, two),
                          KIND == MI_GEMV_QKV ? target_of<T>(a, unit, m) : Target());
        if (KIND == MI_GEMV_HEAD) {
            if (beats(y0, unit, best, best_at)) {
                best = y0;
                best_at = unit;
            }
            if (two && beats(y1, unit + 1, best, best_at)) {
                best = y1;
                best_at = unit + 1;
            }
        }
    }
    if (KIND == MI_GEMV_HEAD && a.best)
        end_best<M>(a, best, best_at, (MiCandidate *)(smem + a.parts));
}

/* ---- the kernel ---------------------------------------------------------------------- */

/* A tile's steps times x: D[g][g] of both rows and each row of x, in the lanes where it is; weight(i, s): of row i. */
template <typename T, int M, typename W>
__device__ __forceinline__ void multiply(W weight, const uint4 (*x)[STEPS], float *sums, int g)
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

/* Registers: some cold values are spilt.  48 and 72 for one row let more kernels of the chain be on an SM at once, and
 * their prefetches disturb each other: 0.477 instead of 0.434 ms a step of the 0.5B shape on an H100. */
template <int M, bool RING> constexpr int REGISTERS = M > 2 ? 96 : M == 1 && RING ? 64 : 80;

/* RING: weights through the ring; else a tile a team, straight into registers.  LATE: the sums of a tile stay spread
 * over lanes until its end: shorter than shuffles where a block has few tiles, and only for one row. */
template <typename T, int KIND, int M, bool RING, bool LATE>
__global__ void __maxnreg__((REGISTERS<M, RING>)) gemv(const __grid_constant__ Args a)
{
    extern __shared__ __align__(128) char smem[];

    let_successor_start();
    const Share t = share_of<KIND>(a);
    const int   tid = threadIdx.x, lane = tid % 32, g = lane / 4, warp = tid / 32;
    if (RING && warp == a.warps) {
        produce<KIND>(a, t, smem);
        return;
    }
    if (LATE && KIND == MI_GEMV_QKV && a.cluster)
        cluster_arrive();
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
    float4 gain[GAINS][2] = {}, ahead = { 0, 0, 1, 0 };
    int    row[M];
    Target target = {};
#pragma unroll
    for (int m = 0; m < M; m++)
        row[m] = KIND == MI_GEMV_HEAD && a.out_rows ? a.out_rows[min(m, a.rows - 1)] : min(m, a.rows - 1);
    if constexpr (NORMED<KIND>)
#pragma unroll
        for (int k = 0; k < GAINS; k++)
            if (tid + k * a.warps * 32 < a.chunks) {
                gain[k][0] = ((const float4 *)a.gain)[2 * (tid + k * a.warps * 32)];
                gain[k][1] = ((const float4 *)a.gain)[2 * (tid + k * a.warps * 32) + 1];
            }
    const int  item = LATE ? tid / SPREAD : tid, items = t.n * M, unit = unit_of<KIND>(t, item / M);
    const bool two = PAIRED<KIND> || item / M * 2 + 1 < t.rows;
    if (LATE && item < items) {
        ahead = look_up<KIND>(a, unit, 0, two);
        if (KIND == MI_GEMV_QKV)
            target = target_of<T>(a, unit, 0);
    } else if (!LATE && KIND != MI_GEMV_GATED && KIND != MI_GEMV_HEAD) {
#pragma unroll 1
        for (int i = tid; i < items; i += a.warps * 32)
            ((float4 *)(smem + a.known))[i] =
                look_up<KIND>(a, unit_of<KIND>(t, i / M), i % M, PAIRED<KIND> || i / M * 2 + 1 < t.rows);
    }
    if constexpr (RING)
        __syncthreads();

    wait_for_predecessor();
    if (RING && tid == 0)
        *(volatile int *)(smem + FLAG) = 1;

    const float2 residual = item < items ? residual_of<T, KIND>(a, unit, item % M, two) : float2{ 0, 0 };
    if constexpr (NORMED<KIND>) {
        norm_rows<T, M>(a, row, gain, smem);
        consumers_meet(a);
    }
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int s = 0; s < STEPS; s++) {
            x[m][s] = NORMED<KIND> ? ((const uint4 *)(smem + a.xs))[m * a.chunks + chunk[s]] : load_x(a, row[m], chunk[s]);
            if ((s * a.team + part) * STEP_CHUNKS + lane >= a.chunks)
                x[m][s] = { 0, 0, 0, 0 };
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
            barrier_wait(full, phase);
            if (more)
                barrier_wait(full + 1, phase);
            multiply<T, M>([&](int r, int s) { return load_shared(at + (r ? second : 0) + chunk[s] * 16); }, x, sums, g);
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
                ((float2 *)parts)[(i * a.team + part) * 8 + g] = { sums[0], sums[1] };
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
        y0 = y0 * scale + ahead.x;
        y1 = y1 * scale + ahead.y;
        if (KIND == MI_GEMV_QKV && a.cluster)
            norm_head(a, unit, item < items, smem, y0, y1);
        if (item < items && lane % SPREAD == 0)
            end_tile<T, KIND>(a, unit, 0, two, y0, y1, ahead, residual, target);
    } else {
        end_summed<T, KIND, M>(a, t, smem, residual);
    }
}

#else

template <typename T, int KIND, int M, bool RING, bool LATE> __global__ void gemv(const __grid_constant__ Args a) { (void)a; }

#endif

}
#endif
