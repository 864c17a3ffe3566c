/* draw_all.cu - temperature and the draw, where nothing is cut and every token takes part: most of the time such a step
 * takes is the one reading of its logits.
 *
 * Blocks share out a row in pieces.  Each sums up what its piece weighs beside its own largest logit; then a block a row
 * finds the piece, the thread and the token at which the running sum, by id, passes uniform * total.  A weight is
 * 2^(x log2(e) / t), with the constant in two floats: what errors are left differ from token to token, and a sum of many
 * hides them.  So this draws what the links one by one draw, but where the number is within some 1e-9 of a border. */
#include "draw.cuh"

namespace
{

enum { ALL_THREADS = 256, ALL_WARPS = ALL_THREADS / 32, FOURS = 8, EACH = 4 * FOURS, PIECE = ALL_THREADS * EACH, MOST_PIECES = 256 };

struct Piece {
    double sum; /* of weights, that of its largest logit being 1 */
    float  max; /* a raw logit; -INFINITY: nothing is left of it */
};

/* e^((x - max) / t) of raw logits.  NaN and -INFINITY weigh nothing; what is as large as an infinite maximum, or as the
 * maximum where t leaves nothing beside it, weighs 1. */
struct Weight {
    float high, low; /* log2(e) / t */
    bool  usual;

    __device__ __forceinline__ Weight(float t, float max)
    {
        const double by = 1.4426950408889634 / (double)t;
        high = (float)by, low = (float)(by - (double)high);
        usual = fabsf(high) < INFINITY && fabsf(max) < INFINITY;
    }
    __device__ __forceinline__ float operator()(float x, float max) const
    {
        if (!usual)
            return x == max && max > -INFINITY ? 1 : 0;
        const float z = fmaxf(x, -INFINITY) - max; /* a NaN is the smaller one of any two */
        float       w;
        asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(w) : "f"(fmaf(z, low, z * high)));
        return z > -INFINITY ? w : 0;
    }
    /* What weights beside `max` are to be multiplied with, to be those beside a larger one. */
    __device__ __forceinline__ double from(float max, float larger) const
    {
        return max == larger ? 1 : usual ? exp2(((double)max - (double)larger) * ((double)high + (double)low)) : 0;
    }
};

/* fours[k] of a thread are those at (k * ALL_THREADS + thread) * 4 of the piece, so that a warp reads lines. */
__device__ __forceinline__ void load_fours(const float *from, int n, float4 (&fours)[FOURS])
{
    const bool whole = ((uintptr_t)from & 15) == 0;

#pragma unroll
    for (int k = 0; k < FOURS; k++) {
        const int at = (k * ALL_THREADS + (int)threadIdx.x) * 4;
        if (whole && at + 4 <= n)
            fours[k] = __ldcg((const float4 *)(from + at));
        else
            fours[k] = { at < n ? from[at] : -INFINITY, at + 1 < n ? from[at + 1] : -INFINITY,
                         at + 2 < n ? from[at + 2] : -INFINITY, at + 3 < n ? from[at + 3] : -INFINITY };
    }
}

/* Of a block's threads. block_max() takes any number of them, and a step 0.9 us more. */
__device__ __forceinline__ float largest_of_all(float max, float (&of_warp)[ALL_WARPS])
{
    max = warp_max(max);
    if (threadIdx.x % 32 == 0)
        of_warp[threadIdx.x / 32] = max;
    __syncthreads();
#pragma unroll
    for (int w = 0; w < ALL_WARPS; w++)
        max = fmaxf(max, of_warp[w]);
    return max;
}

/* ---- what pieces weigh ------------------------------------------------------------------ */

/* temperatures: NULL: 1. */
__global__ void __launch_bounds__(ALL_THREADS) weigh_pieces(const Link l, const float *temperatures, Piece *pieces)
{
    __shared__ float  largest[ALL_WARPS];
    __shared__ double sums[ALL_WARPS];
    const int         row = blockIdx.y, first = (int)blockIdx.x * PIECE, warp = (int)threadIdx.x / 32;
    const float       t = temperatures ? temperatures[row] : 1;
    float4            x[FOURS];
    float             max = -INFINITY;
    double            all = 0; /* a float would lose what is small beside the largest */

    let_successor_start();
    wait_for_predecessor();
    if (l.slots[row] < 0)
        return;
    load_fours(l.in + (int64_t)row * l.in_stride + first, min(l.n - first, (int)PIECE), x);
#pragma unroll
    for (int k = 0; k < FOURS; k++)
        max = fmaxf(max, fmaxf(fmaxf(x[k].x, x[k].y), fmaxf(x[k].z, x[k].w)));
    max = largest_of_all(max, largest);
    const Weight weight(t, max);
#pragma unroll
    for (int k = 0; k < FOURS; k++)
        all += ((double)weight(x[k].x, max) + weight(x[k].y, max)) + ((double)weight(x[k].z, max) + weight(x[k].w, max));
#pragma unroll
    for (int o = 16; o; o >>= 1)
        all += __shfl_xor_sync(~0u, all, o);
    if (threadIdx.x % 32 == 0)
        sums[warp] = all;
    __syncthreads();
    if (threadIdx.x == 0) {
        all = 0;
        for (int w = 0; w < ALL_WARPS; w++)
            all += sums[w];
        pieces[(int64_t)row * gridDim.x + blockIdx.x] = { all, max };
    }
}

/* ---- the draw ----------------------------------------------------------------------------- */

struct AllShared {
    double sums[MOST_PIECES]; /* of pieces, beside the row's largest logit; then [ALL_WARPS], of warps */
    float  largest[ALL_WARPS];
    float  x[PIECE + ALL_THREADS]; /* of the chosen piece, a thread's at every EACH + 1: in different banks */
    double at; /* where the running sum is to pass, less what is before the chosen piece */
    int    chosen, found;
};

__device__ __forceinline__ int place_of(int i) { return i + i / EACH; }

/* One warp: of n sums in order the first in which the running one passes `at`, else the last that is not 0; -1: all are.
 * *before: what those before it are.  *passed: it was the former. */
__device__ __forceinline__ int passes(const double *sums, int n, double at, double *before, bool *passed)
{
    const int lane = (int)threadIdx.x % 32;
    double    sum = 0;
    int       last = -1;

    *passed = false, *before = 0;
    for (int from = 0; from < n; from += 32) {
        const double   mine = from + lane < n ? sums[from + lane] : 0, upto = sum + warp_prefix(mine);
        const unsigned hits = __ballot_sync(~0u, mine > 0 && upto > at), some = __ballot_sync(~0u, mine > 0);
        if (hits || some) {
            const int of = hits ? __ffs(hits) - 1 : 31 - __clz(some);
            last = from + of, *before = __shfl_sync(~0u, upto - mine, of);
        }
        if (hits) {
            *passed = true;
            return last;
        }
        sum = __shfl_sync(~0u, upto, 31);
    }
    return last;
}

/* The lowest id of the piece whose logit is max. */
__device__ __forceinline__ int lowest_of(AllShared &s, float max)
{
    if (threadIdx.x == 0)
        s.found = PIECE;
    __syncthreads();
    for (int i = threadIdx.x; i < PIECE; i += ALL_THREADS)
        if (s.x[place_of(i)] == max)
            atomicMin(&s.found, i);
    __syncthreads();
    return s.found;
}

/* All threads: the place in the piece, which is in s.x, at which the running sum passes `at`; else the last with a weight. */
__device__ __forceinline__ int drawn_of(AllShared &s, const Weight &weight, float max, double at)
{
    const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    float     w[EACH];
    double    mine = 0, before;
    bool      passed;

#pragma unroll
    for (int i = 0; i < EACH; i++)
        mine += w[i] = weight(s.x[place_of((int)threadIdx.x * EACH) + i], max);
    const double upto = warp_prefix(mine);
    if (lane == 31)
        s.sums[warp] = upto;
    __syncthreads();
    const int owner = passes(s.sums, ALL_WARPS, at, &before, &passed);
    at = passed ? at : INFINITY;
    if (warp == owner) {
        const unsigned hits = __ballot_sync(~0u, mine > 0 && before + upto > at), some = __ballot_sync(~0u, mine > 0);
        double         sum = before + upto - mine;
        int            last = 0;
        bool           done = false;
        at = hits ? at : INFINITY;
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            sum += w[i];
            if (w[i] > 0 && !done)
                last = i, done = sum > at;
        }
        if (lane == (hits ? __ffs(hits) - 1 : 31 - __clz(some)))
            s.found = (int)threadIdx.x * EACH + last;
    }
    __syncthreads();
    return s.found;
}

__global__ void __launch_bounds__(ALL_THREADS) draw_piece(const Link l, const float *temperatures, const uint64_t *seeds,
                                                          const Piece *all, int n_pieces)
{
    __shared__ AllShared s;
    const int            row = blockIdx.y, slot = l.slots[row], warp = (int)threadIdx.x / 32;
    const Piece         *pieces = all + (int64_t)row * n_pieces;
    const float          t = temperatures ? temperatures[row] : 1;
    const double         uniform = uniform_of(seeds[row], drawn_position(l));
    float                max = -INFINITY;

    let_successor_start();
    wait_for_predecessor();
    if (slot < 0)
        return;
    for (int i = threadIdx.x; i < n_pieces; i += ALL_THREADS)
        max = fmaxf(max, __ldcg(&pieces[i].max));
    max = largest_of_all(max, s.largest);
    /* As the link has it: at 0, or so near that a quotient leaves the range of floats, only the likeliest stays. */
    const bool   likeliest = t != 1 && (!(t > 0) || !isfinite(max / t));
    const Weight weight(t, max);
    for (int i = threadIdx.x; i < n_pieces; i += ALL_THREADS) {
        const float of = __ldcg(&pieces[i].max);
        s.sums[i] = likeliest ? of == max : of == -INFINITY ? 0 : weight.from(of, max) * __ldcg(&pieces[i].sum);
    }
    __syncthreads();
    if (warp == 0) {
        double total = 0, before;
        bool   passed;
        for (int i = threadIdx.x; i < n_pieces; i += 32)
            total += s.sums[i];
#pragma unroll
        for (int o = 16; o; o >>= 1)
            total += __shfl_xor_sync(~0u, total, o);
        const double at = likeliest ? 0 : uniform * total;
        const int    chosen = passes(s.sums, n_pieces, at, &before, &passed);
        if (threadIdx.x == 0)
            s.chosen = max > -INFINITY ? chosen : -1, s.at = passed ? at - before : INFINITY;
    }
    __syncthreads();
    int token = 0;
    if (s.chosen >= 0) {
        const int   first = s.chosen * PIECE;
        const float of = __ldcg(&pieces[s.chosen].max);
        float4      x[FOURS];
        load_fours(l.in + (int64_t)row * l.in_stride + first, min(l.n - first, (int)PIECE), x);
#pragma unroll
        for (int k = 0; k < FOURS; k++) {
            float *to = &s.x[place_of((k * ALL_THREADS + (int)threadIdx.x) * 4)];
            to[0] = x[k].x, to[1] = x[k].y, to[2] = x[k].z, to[3] = x[k].w;
        }
        const double at = s.at / weight.from(of, max);
        __syncthreads();
        token = first + (likeliest ? lowest_of(s, max) : drawn_of(s, Weight(t, of), of, at));
    }
    if (threadIdx.x == 0)
        put_token(l, slot, token);
}

int pieces_of(int vocab) { return (vocab + PIECE - 1) / PIECE; }

} // namespace

size_t mi_cuda_draw_all_workspace(int n_out, int vocab)
{
    return vocab <= MOST_PIECES * PIECE ? (size_t)n_out * (size_t)pieces_of(vocab) * sizeof(Piece) : 0;
}

int mi_cuda_draw_all(const MiCudaLink *link, const float *temperature, const uint64_t *seed)
{
    const Link     l = link_of(link);
    const int      n = pieces_of(l.n);
    const unsigned rows = (unsigned)link->in.shape[0];

    if (!rows)
        return 0;
    if (n > MOST_PIECES)
        return cudaErrorNotSupported;
    const int e = mi_launch(weigh_pieces, dim3((unsigned)n, rows), dim3(ALL_THREADS), 0, link->stream, l, temperature,
                            (Piece *)link->workspace);
    return e ? e : mi_launch(draw_piece, dim3(1, rows), dim3(ALL_THREADS), 0, link->stream, l, temperature, seed,
                             (const Piece *)link->workspace, n);
}
