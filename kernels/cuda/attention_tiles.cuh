/* attention_tiles.cuh - which tiles of a step's prompts a block of attention_flash.cu takes.
 *
 * Where there are few tiles and many keys, the keys of a tile are shared out among several blocks, whose results are
 * added up afterwards: a chunk of 100 rows behind 8,000 others is a dozen tiles. */
#ifndef KERNELS_CUDA_ATTENTION_TILES_CUH
#define KERNELS_CUDA_ATTENTION_TILES_CUH

#include <cuda/attention.cuh>

namespace
{

struct Step {
    MiCudaAttention call;
    int             few; /* sequences of at most so many packed rows are another kernel's */
    int             box; /* positions that one copy brings */
    int             blocks, most_parts; /* that take tiles; so many for a tile, 1: none is shared out */
    float          *parts; /* [blocks] of rows [columns], then a maximum and a sum of each row */
    const int32_t  *moved; /* MiCudaWide's, where call.kv is in fact that: only sequences that fit; NULL: call.kv is the cache */

    /* Packed rows of a sequence, 0: it is another kernel's. */
    __device__ __forceinline__ int packed(int seq, int group) const
    {
        const int n = (call.batch.seq_start[seq + 1] - call.batch.seq_start[seq]) * group;
        return n > few && (!moved || moved[seq] != MI_CUDA_NOT_WIDE) ? n : 0;
    }
    /* Before anybody asks. */
    __device__ __forceinline__ void wait_for_moved() const
    {
        if (moved)
            wait_for_predecessor();
    }
};

/* ---- tiles ----------------------------------------------------------------------- */

struct Tile {
    Span s;
    int  kv_head, first, last; /* packed rows */
    int  base, n_blocks, low;  /* keys: where block 0 begins, how many blocks, the first that any row sees */
    int  slot;                 /* where in Step.parts this part goes; below 0: it is the whole */
};

/* The sequences that have tiles, as far as there is room: a step may bring hundreds that only decode. */
struct Listed {
    static constexpr int MOST = 160;
    int                  n, parts, seq[MOST]; /* parts: of a tile */

    /* By a whole warp; rows: of a tile. */
    __device__ void fill(const Step &step, int rows, int lane)
    {
        const MiCudaAttention &a = step.call;
        const int              group = group_of(a);
        int                    count = 0, tiles = 0;

        for (int base = 0; base < a.batch.shape.n_seqs && count < MOST; base += 32) {
            const int  s = base + lane;
            const int  packed = s < a.batch.shape.n_seqs ? step.packed(s, group) : 0;
            const bool has = packed > 0;
            tiles += __reduce_add_sync(~0u, has ? (packed + rows - 1) / rows * a.kv.n_kv_heads : 0);
            const unsigned all = __ballot_sync(~0u, has);
            const int      at = count + __popc(all & ((1u << lane) - 1));
            if (has && at < MOST)
                seq[at] = s;
            count += __popc(all);
        }
        if (lane == 0) {
            n = min(count, MOST);
            parts = count < MOST && tiles ? max(1, min(step.most_parts, step.blocks / tiles)) : 1;
        }
    }
};

/* Walks over a block's tiles: every role does so by itself, and finds the same. */
template <int ROWS, int KEYS, bool SHARES> struct Walk {
    const Step   &step;
    const Listed &listed;
    int           group, at = -1, seq = -1, round = 0;
    int           before = 0, tiles = 0; /* of the sequences before, and of this one */
    Tile          t;

    __device__ Walk(const Step &of, const Listed &l) : step(of), listed(l), group(group_of(of.call)) {}

    /* Past the list, one by one. */
    __device__ bool next_sequence()
    {
        seq = ++at < listed.n ? listed.seq[at] : listed.n == Listed::MOST ? seq + 1 : step.call.batch.shape.n_seqs;
        return seq < step.call.batch.shape.n_seqs;
    }

    __device__ Keys see(int packed) const { return keys_of(step.call, t.s, packed / group); }

    /* The tile of this number, with all of its keys; numbers ascend. */
    __device__ bool seek(int number)
    {
        const MiCudaAttention &a = step.call;

        while (number >= before + tiles) {
            before += tiles;
            if (!next_sequence())
                return false;
            t.s = span_of(a, seq);
            tiles = (step.packed(seq, group) + ROWS - 1) / ROWS * a.kv.n_kv_heads;
        }
        const int at = tiles / a.kv.n_kv_heads - 1 - (number - before) / a.kv.n_kv_heads;
        t.kv_head = (number - before) % a.kv.n_kv_heads;
        t.first = at * ROWS;
        t.last = min(t.first + ROWS, t.s.rows * group) - 1;
        t.low = see(t.first).first;
        t.base = a.kv.max_blocks > 1 ? t.low / KEYS * KEYS : t.low;
        t.n_blocks = max(0, see(t.last).end - t.base + KEYS - 1) / KEYS;
        t.slot = -1;
        return true;
    }

    /* Blocks of keys that a part of the tile has, and how many parts have some.  Adding up takes some microseconds: two or
     * three parts win only where there is much to share out. */
    __device__ int each() const
    {
        const int least = listed.parts >= 4 ? 4 : 16;
        return t.n_blocks < 2 * least ? max(t.n_blocks, 1) : max(least, (t.n_blocks + listed.parts - 1) / listed.parts);
    }
    __device__ int parts() const { return (t.n_blocks + each() - 1) / each(); }

    __device__ bool next()
    {
        for (;;) {
            const int n = gridDim.x, index = round * n + (round % 2 ? n - 1 - (int)blockIdx.x : (int)blockIdx.x);

            round++;
            if (!SHARES)
                return seek(index);
            if (!seek(index / listed.parts))
                return false;
            const int part = index % listed.parts;
            if (listed.parts == 1 || (part == 0 && parts() <= 1))
                return true;
            if (part >= parts())
                continue; /* it is somebody else's whole */
            const int from = part * each();
            t.slot = index;
            t.base += from * KEYS;
            t.n_blocks = min(each(), t.n_blocks - from);
            return true;
        }
    }
};

/* ---- adding up ------------------------------------------------------------------------ */

template <int ROWS, int COLUMNS> constexpr int PART_FLOATS = ROWS * (COLUMNS + 2); /* of a part */

constexpr int ADDED = 8; /* rows of a block */

/* Tiles whose keys were shared out, 4 columns of a row a thread. */
template <typename T, int DIM, int ROWS, int KEYS>
__global__ void __launch_bounds__(ADDED *DIM / 4) add_parts(const __grid_constant__ Step step)
{
    constexpr int     PART = PART_FLOATS<ROWS, DIM>;
    __shared__ Listed listed;

    let_successor_start();
    if (threadIdx.x < 32) {
        step.wait_for_moved();
        listed.fill(step, ROWS, threadIdx.x);
    }
    __syncthreads();
    wait_for_predecessor();
    Walk<ROWS, KEYS, true> walk(step, listed);
    const int              tile = blockIdx.x / (ROWS / ADDED), r = blockIdx.x % (ROWS / ADDED) * ADDED + threadIdx.x / (DIM / 4);
    if (listed.parts == 1 || !walk.seek(tile) || walk.parts() <= 1 || walk.t.first + r > walk.t.last)
        return;
    const float *first = step.parts + (size_t)(tile * listed.parts) * PART;
    const int    n = walk.parts(), column = threadIdx.x % (DIM / 4) * 4;
    auto         row = [&](int i) { return ((const float2 *)(first + (size_t)i * PART + ROWS * DIM))[r]; };
    float        top = -INFINITY, sum = 0, o[4] = {};

    for (int i = 0; i < n; i++)
        top = fmaxf(top, row(i).x);
    top = top == -INFINITY ? 0 : top;
    for (int i = 0; i < n; i++) {
        const float2 x = row(i);
        const float  f = exp2_fast(x.x - top);
        const float4 v = *(const float4 *)(first + (size_t)i * PART + r * DIM + column);
        sum = fmaf(f, x.y, sum);
        o[0] = fmaf(f, v.x, o[0]), o[1] = fmaf(f, v.y, o[1]), o[2] = fmaf(f, v.z, o[2]), o[3] = fmaf(f, v.w, o[3]);
    }
    const float l = sum > 0 ? 1 / sum : 0;
    T *to = (T *)step.call.out.data + row_at(step.call.out, walk.t.s, walk.t.kv_head, walk.group, walk.t.first + r) + column;
    *(uint2 *)to = uint2{pack<T>(o[0] * l, o[1] * l), pack<T>(o[2] * l, o[3] * l)};
}

} // namespace

#endif
