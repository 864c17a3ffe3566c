/* gemv_parts.cuh - what the kernel of gemv.cuh is made of until its sums are there:
 * its arguments, where weights lie, the warp that requests them, x. */
#ifndef KERNELS_CUDA_GEMV_PARTS_CUH
#define KERNELS_CUDA_GEMV_PARTS_CUH

#include "device.cuh"
#include "gemv.h"

namespace mi_gemv
{

constexpr int STEPS = 4;        /* of 256 elements of x that a warp keeps in registers */
constexpr int STEP_CHUNKS = 32; /* 16-byte chunks of a step */
constexpr int MAX_STAGES = 64, MAX_WARPS = 24;
constexpr int SPREAD = 4; /* threads that end a tile together where sums stay spread */
constexpr int GAINS = 2;  /* chunks of the norm's gain that a thread loads ahead */
/* Shared memory: barriers, sums of squares, the barrier that opens with the predecessor's end; then the ring, at a multiple of 128 bytes (16 costs 5 % of
 * bandwidth), then normed x, what the ends of rows need, and the teams' partial sums. */
constexpr int EMPTY = MAX_STAGES * 8, SQUARES = 2 * MAX_STAGES * 8, RELEASED = SQUARES + MAX_WARPS * 4 * 4;
constexpr int HEADER = (RELEASED + 8 + 127) / 128 * 128;

struct Args {
    const char    *w[3];
    const float   *bias[3];
    const char    *x, *residual;
    const int32_t *out_rows, *positions;
    const float   *gain, *freqs, *head_gain[2];
    char          *y;
    MiCandidate   *best;
    MiKvView       kv;
    int64_t        x_stride, r_stride, y_stride;                          /* elements between rows */
    float          eps, offset, magnitude, head_eps, head_offset, per_in; /* 1 / in */
    int32_t        cluster; /* blocks that norm a head together; 0: none is normed */
    int32_t        rows, out, chunks, row_bytes;
    int32_t        each, more; /* tiles, or rows where not PAIRED, of a block; so many blocks have one more */
    int32_t        warps, team, teams, team_magic;                              /* warp * magic >> 16 = warp / team */
    int32_t        stage_tiles, stage_shift, stages, stage_bytes, stages_round; /* stage_tiles 0: half a tile */
    int32_t        flight, ahead, pace;
    int32_t        tile_pitch, second; /* bytes between tiles of a stage; from the first row of a tile to the second */
    int32_t        xs, known, parts;   /* where in shared memory */
    int32_t        n_heads, n_kv_heads, head_dim, rope_dim;
    uint32_t       half_magic; /* high 32 bits of i * magic = i / (head_dim / 2) */
    const float   *scales[3];  /* of E4M3 */
    int32_t        across, factors; /* scales of 128 rows; where in shared memory those of rows are */
    bool           interleaved, y_f32;
};

/* How W is stored: as x; E4M3 with a scale for each row, or for each 128 x 128 of it. */
enum Storage { AS_X, OF_ROWS, OF_BLOCKS };
constexpr int BLOCK = 128;

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
    int  part, head, first, second, run;
    bool turns;
};

__device__ __forceinline__ Pair pair_of(const Args &a, int tile)
{
    const int half = a.head_dim / 2, turned = a.rope_dim / 2, head = __umulhi(tile, a.half_magic),
              d = tile - head * half;
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
        return {a.w[0] + unit * row, a.w[1] + unit * row, 1 << 30};
    if (KIND == MI_GEMV_QKV) {
        const Pair  p = pair_of(a, unit);
        const char *w = a.w[p.part] + (int64_t)(p.head * a.head_dim) * row;
        return {w + p.first * row, w + p.second * row, p.run};
    }
    return {a.w[0] + unit * row, a.w[0] + unit * row + row, 1 << 30};
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

/* The bits of two E4M3 at their place in bf16: 2^-120 of what they are; x is made 2^60 times as large, so that nothing
 * comes near the ends of the range, and the rest is in the factors of the sums.  A code that is no number is 480 here:
 * who packs makes its scale none. */
constexpr unsigned LARGER = 0x5d805d80; /* bf16, twice: 2^60 */
constexpr float    SMALLER = 0x1p60f;

template <int PAIR> __device__ __forceinline__ unsigned widened(unsigned codes)
{
    unsigned two; /* their signs above them */
    asm("prmt.b32 %0, %1, 0, %2;" : "=r"(two) : "r"(codes), "n"(PAIR ? 0xb3a2 : 0x9180));
    return two << 4 & 0x87f087f0u;
}

/* Eight elements of W. */
template <int W> __device__ __forceinline__ uint4 load_eight_of(unsigned row, int chunk)
{
    if (W == AS_X)
        return load_shared(row + chunk * 16);
    unsigned u, v;
    asm volatile("ld.shared.v2.u32 {%0,%1}, [%2];" : "=r"(u), "=r"(v) : "r"(row + chunk * 8));
    return {widened<0>(u), widened<1>(u), widened<0>(v), widened<1>(v)};
}

__device__ __forceinline__ unsigned larger(unsigned two)
{
    asm("mul.rn.bf16x2 %0, %0, %1;" : "+r"(two) : "r"(LARGER));
    return two;
}

template <typename T>
__device__ __forceinline__ void mma(float *d, unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0,
                                    unsigned b1);
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
    return {__uint_as_float(u << 16), __uint_as_float(u & 0xffff0000u)};
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
    return {cosine * magnitude, sine * magnitude};
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
    int first;   /* tile, or row where not PAIRED */
    int n, rows; /* tiles; rows in them: the last tile may have one */
};

template <int KIND> __device__ __forceinline__ Share share_of(const Args &a)
{
    const int b = blockIdx.x, n = a.each + (b < a.more);
    return {b * a.each + min(b, a.more), PAIRED<KIND> ? n : (n + 1) / 2, PAIRED<KIND> ? 2 * n : n};
}

/* What place_of() and the ends of rows count in. */
template <int KIND> __device__ __forceinline__ int unit_of(Share t, int tile)
{
    return t.first + (PAIRED<KIND> ? tile : 2 * tile);
}

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

/* As barrier_done(), but at once. */
__device__ __forceinline__ bool barrier_open(uint64_t *b, unsigned parity)
{
    unsigned done;
    asm volatile("{ .reg .pred p; mbarrier.test_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
                 : "=r"(done)
                 : "r"(shared_address(b)), "r"(parity)
                 : "memory");
    return done;
}

/* One warp; its first lane requests, the others only prepare the barriers.  n stages, each released by so many warps;
 * request(stage, slot): into a slot of the ring; slot below 0: into the second-level cache only. */
template <typename R> __device__ __forceinline__ void produce_stages(const Args &a, int n, int warps, char *smem, R request)
{
    const int lane = threadIdx.x % 32;
    uint64_t *released = (uint64_t *)(smem + RELEASED);
    int       slot = 0, phase = 1, done_slot = 0, done_phase = 0;

    for (int i = lane; i < a.stages; i += 32) {
        barrier_init((uint64_t *)smem + i, 1);
        barrier_init((uint64_t *)(smem + EMPTY) + i, warps);
    }
    if (lane == 0)
        barrier_init(released, 1);
    barrier_init_done();
    __syncwarp();
    int s = 0, next = a.stages, last = 0;
#pragma unroll 1
    for (int pass = 0; pass < 2; pass++) {
        const int end = lane ? 0 : pass ? n : min(n, a.flight); /* first what may be under way before anybody waits */
#pragma unroll 1
        for (; s < end; s++) {
            if (pass) {
                while (!barrier_open(released, 0) && !barrier_done((uint64_t *)smem + done_slot, done_phase)) {
                }
                if (++done_slot == a.stages) {
                    done_slot = 0;
                    done_phase ^= 1;
                }
                /* The ring is full: what comes next, as fast as memory gives it while nobody else reads. */
                while (s >= a.stages && !barrier_done((uint64_t *)(smem + EMPTY) + slot, phase))
                    if (next < min(n, a.stages + a.ahead) && !barrier_open(released, 0) && clock() - last > a.pace) {
                        request(next++, -1);
                        last = clock();
                    }
            }
            request(s, slot);
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

template <int KIND> __device__ __forceinline__ void produce(const Args &a, Share t, char *smem)
{
    const uint64_t policy = evict_first_policy();

    produce_stages(a, a.stage_tiles ? (t.n + a.stage_tiles - 1) >> a.stage_shift : t.rows, max(a.stage_tiles, 1) * a.team,
                   smem, [&](int stage, int slot) { request<KIND>(a, t, smem, stage, slot, policy); });
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
        w[i] = pack({f.x * (a.offset + g[2 * i]), f.y * (a.offset + g[2 * i + 1])}, T());
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

#endif

} // namespace mi_gemv
#endif
