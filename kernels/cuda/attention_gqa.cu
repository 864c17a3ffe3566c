/* attention_gqa.cu - attention of prompts with mma.m16n8k16, from sm_80 on: 64 packed rows a
 * block, 64 keys at a time in two buffers (FlashAttention-2, Dao 2023). */
#include <cuda/attention.cuh>

namespace {

constexpr int TILE_ROWS = 64, TILE_KEYS = 64, TILE_THREADS = 128;

template <int D> struct Tile {
    static constexpr int PITCH = D * 2 + 16, SIDE = TILE_KEYS * PITCH;
    static constexpr int BYTES = TILE_ROWS * PITCH + 4 * SIDE + 2 * TILE_KEYS * 4;
};

/* Block index -> sequence and first packed row; the last rows of a sequence, which see the most keys, come
 * first.  Sequences of at most `few` packed rows are another kernel's. */
__device__ __forceinline__ bool tile_at(const MiCudaAttention &a, int index, int group, int few, int *seq, int *first)
{
    for (int s = 0; s < a.batch.shape.n_seqs; s++) {
        const int packed = (a.batch.seq_start[s + 1] - a.batch.seq_start[s]) * group;
        const int tiles = packed > few ? (packed + TILE_ROWS - 1) / TILE_ROWS : 0;
        if (index < tiles) {
            *seq = s, *first = (tiles - 1 - index) * TILE_ROWS;
            return true;
        }
        index -= tiles;
    }
    return false;
}

template <typename T, int D>
__global__ void __launch_bounds__(TILE_THREADS) prefill(const __grid_constant__ MiCudaAttention a, int few)
{
    constexpr int     PITCH = Tile<D>::PITCH, CHUNKS = D / 8;
    extern __shared__ __align__(128) unsigned char smem[];
    unsigned *offset = (unsigned *)(smem + TILE_ROWS * PITCH + 4 * Tile<D>::SIDE); /* [2][TILE_KEYS] elements / 8 */
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, kv_head = blockIdx.y, group = group_of(a);
    int       seq, first;

    let_successor_start();
    if (!tile_at(a, blockIdx.x, group, few, &seq, &first)) {
        wait_for_predecessor();
        return;
    }
    const Span s = span_of(a, seq);
    const int  last = min(first + TILE_ROWS, s.rows * group) - 1;
    const int  low = keys_of(a, s, first / group).first, high = keys_of(a, s, last / group).end;
    const int  n_blocks = max(0, (high - low + TILE_KEYS - 1) / TILE_KEYS);
    Keys       see[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int r = first + warp * 16 + lane / 4 + i * 8;
        see[i] = r <= last ? keys_of(a, s, r / group) : Keys{0, 0};
    }
    const int certain = keys_of(a, s, first / group).end, from = keys_of(a, s, last / group).first;

    const unsigned q_at = shared_address(smem), k_at = q_at + TILE_ROWS * PITCH, v_at = k_at + 2 * Tile<D>::SIDE;
    auto           locate = [&](int b) {
        if (threadIdx.x < TILE_KEYS && b < n_blocks)
            offset[(b & 1) * TILE_KEYS + threadIdx.x] =
                (unsigned)(mi_kv_offset(&a.kv, seq, min(low + b * TILE_KEYS + (int)threadIdx.x, high - 1), kv_head) /
                           8);
    };
    auto request = [&](int b, const void *side, unsigned to) {
        if (b < n_blocks)
            for (int i = threadIdx.x; i < TILE_KEYS * CHUNKS; i += TILE_THREADS) {
                const int row = i / CHUNKS, chunk = i % CHUNKS;
                copy_16(to + (b & 1) * Tile<D>::SIDE + row * PITCH + chunk * 16,
                        (const T *)side + ((uint64_t)offset[(b & 1) * TILE_KEYS + row] + chunk) * 8,
                        low + b * TILE_KEYS + row < high);
            }
        copies_commit();
    };

    locate(0);
    wait_for_predecessor();
    for (int i = threadIdx.x; i < TILE_ROWS * CHUNKS; i += TILE_THREADS) {
        const int row = i / CHUNKS, chunk = i % CHUNKS;
        copy_16(q_at + row * PITCH + chunk * 16,
                (const T *)a.q.data + row_at(a.q, s, kv_head, group, min(first + row, last)) + chunk * 8, true);
    }
    __syncthreads();
    request(0, a.kv.k, k_at);
    request(0, a.kv.v, v_at);

    float       out[D / 8][4] = {}, top[2] = {-INFINITY, -INFINITY}, sum[2] = {};
    const float scale = a.scale * LOG2E;
    const Cap   cap(a);
    for (int b = 0; b < n_blocks; b++) {
        const int k0 = low + b * TILE_KEYS;
        float     score[TILE_KEYS / 8][4] = {};

        locate(b + 1);
        copies_wait<1>(); /* q and this block's keys */
        __syncthreads();
        request(b + 1, a.kv.k, k_at);
#pragma unroll
        for (int k = 0; k < D / 16; k++) {
            unsigned x[4];
            load_matrices(x, q_at + (warp * 16 + lane % 16) * PITCH + k * 32 + lane / 16 * 16);
#pragma unroll
            for (int n = 0; n < TILE_KEYS / 16; n++) {
                unsigned y[4];
                load_matrices(y, k_at + (b & 1) * Tile<D>::SIDE + (n * 16 + lane / 16 * 8 + lane % 8) * PITCH + k * 32 +
                                     lane / 8 % 2 * 16);
                multiply<T>(score[2 * n], x, y[0], y[1]);
                multiply<T>(score[2 * n + 1], x, y[2], y[3]);
            }
        }
        if (a.softcap > 0)
#pragma unroll
            for (int n = 0; n < TILE_KEYS / 8; n++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    score[n][i] = cap.of(score[n][i]);
        if (k0 + TILE_KEYS > certain || k0 < from)
#pragma unroll
            for (int n = 0; n < TILE_KEYS / 8; n++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const int key = k0 + n * 8 + lane % 4 * 2 + (i & 1);
                    if (key < see[i / 2].first || key >= see[i / 2].end)
                        score[n][i] = -INFINITY;
                }
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float m = top[i];
#pragma unroll
            for (int n = 0; n < TILE_KEYS / 8; n++)
                m = fmaxf(m, fmaxf(score[n][2 * i], score[n][2 * i + 1]));
            m = quad_max(m);
            const float safe = m == -INFINITY ? 0 : m * scale, keep = exp2_fast(top[i] * scale - safe);
            top[i] = m;
            sum[i] *= keep;
#pragma unroll
            for (int n = 0; n < TILE_KEYS / 8; n++)
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    score[n][2 * i + j] = exp2_fast(fmaf(score[n][2 * i + j], scale, -safe));
                    sum[i] += score[n][2 * i + j];
                }
#pragma unroll
            for (int n = 0; n < D / 8; n++)
                out[n][2 * i] *= keep, out[n][2 * i + 1] *= keep;
        }
        copies_wait<1>(); /* this block's values */
        __syncthreads();
        request(b + 1, a.kv.v, v_at);
#pragma unroll
        for (int k = 0; k < TILE_KEYS / 16; k++) {
            const unsigned x[4] = {pack<T>(score[2 * k][0], score[2 * k][1]), pack<T>(score[2 * k][2], score[2 * k][3]),
                                   pack<T>(score[2 * k + 1][0], score[2 * k + 1][1]),
                                   pack<T>(score[2 * k + 1][2], score[2 * k + 1][3])};
#pragma unroll
            for (int n = 0; n < D / 16; n++) {
                unsigned y[4];
                load_matrices_turned(y, v_at + (b & 1) * Tile<D>::SIDE + (k * 16 + lane % 16) * PITCH + n * 32 +
                                            lane / 16 * 16);
                multiply<T>(out[2 * n], x, y[0], y[1]);
                multiply<T>(out[2 * n + 1], x, y[2], y[3]);
            }
        }
    }
    copies_wait<0>();
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int   r = first + warp * 16 + lane / 4 + i * 8;
        const float l = quad_sum(sum[i]), f = l > 0 ? 1 / l : 0; /* no keys: zeros */
        if (r <= last) {
            T *to = (T *)a.out.data + row_at(a.out, s, kv_head, group, r) + lane % 4 * 2;
#pragma unroll
            for (int n = 0; n < D / 8; n++)
                *(unsigned *)(to + n * 8) = pack<T>(out[n][2 * i] * f, out[n][2 * i + 1] * f);
        }
    }
}

template <typename T, int D> int launch(void *stream, const MiCudaAttention *a, int few)
{
    static const int allowed = mi_allow_smem(prefill<T, D>, Tile<D>::BYTES);
    const int64_t    packed = (int64_t)a->batch.shape.n_tokens * (a->q.shape[1] / a->kv.n_kv_heads);
    const dim3       grid((unsigned)(packed / TILE_ROWS + a->batch.shape.n_seqs), (unsigned)a->kv.n_kv_heads);

    return allowed ? allowed : mi_launch(prefill<T, D>, grid, TILE_THREADS, Tile<D>::BYTES, stream, *a, few);
}

template <typename T> int launch(void *stream, const MiCudaAttention *a, int few)
{
    switch (a->kv.head_dim) {
    case 64:
        return launch<T, 64>(stream, a, few);
    case 96:
        return launch<T, 96>(stream, a, few);
    case 128:
        return launch<T, 128>(stream, a, few);
    case 256:
        return launch<T, 256>(stream, a, few);
    default:
        return cudaErrorNotSupported;
    }
}

} // namespace

extern "C" int mi_cuda_attention_gqa(void *stream, const MiCudaAttention *a, int few)
{
    if (!mi_cuda_attention_fits(a))
        return cudaErrorNotSupported;
    return a->q.dtype == MI_BF16 ? launch<bf16>(stream, a, few) : launch<__half>(stream, a, few);
}
