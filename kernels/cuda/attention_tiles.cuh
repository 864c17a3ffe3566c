/* attention_tiles.cuh - which tiles of a step's prompts a block of attention_flash.cu takes. */
#ifndef KERNELS_CUDA_ATTENTION_TILES_CUH
#define KERNELS_CUDA_ATTENTION_TILES_CUH

#include <cuda/attention.cuh>

namespace
{

struct Step {
    MiCudaAttention call;
    int             few; /* sequences of at most so many packed rows are another kernel's */
    int             box; /* positions that one copy brings */
};

/* ---- tiles ----------------------------------------------------------------------- */

struct Tile {
    Span s;
    int  kv_head, first, last; /* packed rows */
    int  base, n_blocks, low;  /* keys: where block 0 begins, how many blocks, the first that any row sees */
};

/* The sequences that have tiles, as far as there is room: a step may bring hundreds that only decode. */
struct Listed {
    static constexpr int MOST = 160;
    int                  n, seq[MOST];

    /* By a whole warp. */
    __device__ void fill(const Step &step, int lane)
    {
        const MiCudaAttention &a = step.call;
        const int              group = group_of(a);
        int                    count = 0;

        for (int base = 0; base < a.batch.shape.n_seqs && count < MOST; base += 32) {
            const int  s = base + lane;
            const bool has =
                s < a.batch.shape.n_seqs && (a.batch.seq_start[s + 1] - a.batch.seq_start[s]) * group > step.few;
            const unsigned all = __ballot_sync(~0u, has);
            const int      at = count + __popc(all & ((1u << lane) - 1));
            if (has && at < MOST)
                seq[at] = s;
            count += __popc(all);
        }
        if (lane == 0)
            n = min(count, MOST);
    }
};

/* Walks over a block's tiles: every role does so by itself, and finds the same. */
template <int ROWS, int KEYS> struct Walk {
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

    __device__ bool next()
    {
        const MiCudaAttention &a = step.call;
        const int n = gridDim.x, index = round * n + (round % 2 ? n - 1 - (int)blockIdx.x : (int)blockIdx.x);

        round++;
        while (index >= before + tiles) {
            before += tiles;
            if (!next_sequence())
                return false;
            t.s = span_of(a, seq);
            const int packed = t.s.rows * group;
            tiles = packed > step.few ? (packed + ROWS - 1) / ROWS * a.kv.n_kv_heads : 0;
        }
        const int at = tiles / a.kv.n_kv_heads - 1 - (index - before) / a.kv.n_kv_heads;
        t.kv_head = (index - before) % a.kv.n_kv_heads;
        t.first = at * ROWS;
        t.last = min(t.first + ROWS, t.s.rows * group) - 1;
        t.low = see(t.first).first;
        t.base = a.kv.max_blocks > 1 ? t.low / KEYS * KEYS : t.low;
        t.n_blocks = max(0, see(t.last).end - t.base + KEYS - 1) / KEYS;
        return true;
    }
};

} // namespace

#endif
