/* attention_gqa.cu - attention of prompts with mma.m16n8k16, from sm_80 on: 64 packed rows a
 * block, 64 keys at a time in two buffers (FlashAttention-2, Dao 2023).
 *
 * K is what a cache's elements are: T, or numbers with scales, which become f16, with dimensions that change places and
 * scales that multiply scores and weights as attention_decode.cuh has it. */
#include <cuda/attention.cuh>
#include <cuda/scaled.cuh>
#include <type_traits>

namespace {

constexpr int TILE_ROWS = 64, TILE_KEYS = 64, TILE_THREADS = 128;

/* Shared memory: queries, two buffers of keys, of values, of offsets, of scales. */
template <typename K, int D> struct Tile {
    static constexpr int Q_PITCH = D * 2 + 16, PITCH = D * (int)sizeof(K) + 16, SIDE = TILE_KEYS * PITCH;
    static constexpr int OFFSETS = TILE_ROWS * Q_PITCH + 4 * SIDE, SCALES = OFFSETS + 2 * TILE_KEYS * 4;
    static constexpr int BYTES = SCALES + (SCALED<K> ? 2 * TILE_KEYS * 4 : 0);
};

/* Block index -> sequence and first packed row; the last rows of a sequence, which see the most keys, come
 * first.  Sequences of at most `few` packed rows are another kernel's, and those that have moved. */
__device__ __forceinline__ bool tile_at(const MiCudaAttention &a, int index, int group, int few, const int32_t *moved, int *seq, int *first)
{
    for (int s = 0; s < a.batch.shape.n_seqs; s++) {
        const int  packed = (a.batch.seq_start[s + 1] - a.batch.seq_start[s]) * group;
        const bool ours = packed > few && (!moved || moved[s] == MI_CUDA_NOT_WIDE);
        const int  tiles = ours ? (packed + TILE_ROWS - 1) / TILE_ROWS : 0;
        if (index < tiles) {
            *seq = s, *first = (tiles - 1 - index) * TILE_ROWS;
            return true;
        }
        index -= tiles;
    }
    return false;
}

template <typename T, typename K, int D>
__global__ void __launch_bounds__(TILE_THREADS) prefill(const __grid_constant__ MiCudaAttention a, int few, const int32_t *moved)
{
    using L = Tile<K, D>;
    using Number = std::conditional_t<SCALED<K>, __half, T>; /* what is multiplied */
    constexpr int PITCH = L::PITCH, Q_PITCH = L::Q_PITCH, EACH = 16 / (int)sizeof(K), CHUNKS = D / EACH;
    extern __shared__ __align__(128) unsigned char smem[];
    unsigned *offset = (unsigned *)(smem + L::OFFSETS); /* [2][TILE_KEYS] in 16 bytes */
    unsigned *scales = (unsigned *)(smem + L::SCALES);  /* [2][TILE_KEYS] of key and value */
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, kv_head = blockIdx.y, group = group_of(a);
    int       seq, first;

    let_successor_start();
    if (moved) {
        wait_for_predecessor();
        if (moved[a.batch.shape.n_seqs] == 0)
            return;
    }
    if (!tile_at(a, blockIdx.x, group, few, moved, &seq, &first)) {
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

    const unsigned q_at = shared_address(smem), k_at = q_at + TILE_ROWS * Q_PITCH, v_at = k_at + 2 * L::SIDE;
    auto           locate = [&](int b) {
        if (threadIdx.x < TILE_KEYS && b < n_blocks)
            offset[(b & 1) * TILE_KEYS + threadIdx.x] =
                (unsigned)(mi_kv_offset(&a.kv, seq, min(low + b * TILE_KEYS + (int)threadIdx.x, high - 1), kv_head) /
                           EACH);
    };
    auto request = [&](int b, const void *side, unsigned to) {
        if (b < n_blocks)
            for (int i = threadIdx.x; i < TILE_KEYS * CHUNKS; i += TILE_THREADS) {
                const int row = i / CHUNKS, chunk = i % CHUNKS;
                copy_16(to + (b & 1) * L::SIDE + row * PITCH + chunk * 16,
                        (const K *)side + ((uint64_t)offset[(b & 1) * TILE_KEYS + row] + chunk) * EACH,
                        low + b * TILE_KEYS + row < high);
            }
        if (SCALED<K> && to == k_at && threadIdx.x < TILE_KEYS && b < n_blocks) {
            const int at = (b & 1) * TILE_KEYS + (int)threadIdx.x;
            copy_4(shared_address(scales + at), (const unsigned *)a.kv.scales + offset[at] / CHUNKS,
                   low + b * TILE_KEYS + (int)threadIdx.x < high);
        }
        copies_commit();
    };

    locate(0);
    wait_for_predecessor();
    for (int i = threadIdx.x; i < TILE_ROWS * (D / 8); i += TILE_THREADS) {
        const int row = i / (D / 8), chunk = i % (D / 8);
        const T  *from = (const T *)a.q.data + row_at(a.q, s, kv_head, group, min(first + row, last)) + chunk * 8;
        if constexpr (SCALED<K>)
            store_query<T>(q_at + row * Q_PITCH + query_at(chunk), *(const uint4 *)from, a.scale);
        else
            copy_16(q_at + row * Q_PITCH + chunk * 16, from, true);
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
        if constexpr (SCALED<K>) {
#pragma unroll
            for (int k = 0; k < D / 32; k++) {
                unsigned x[2][4];
#pragma unroll
                for (int i = 0; i < 2; i++)
                    load_matrices(x[i], q_at + (warp * 16 + lane % 16) * Q_PITCH + (2 * k + i) * 32 + lane / 16 * 16);
#pragma unroll
                for (int n = 0; n < TILE_KEYS / 16; n++) {
                    unsigned y[4], low[4], high[4];
                    load_matrices(y, k_at + (b & 1) * L::SIDE + (n * 16 + lane / 16 * 8 + lane % 8) * PITCH + k * 32 +
                                         lane / 8 % 2 * 16);
#pragma unroll
                    for (int i = 0; i < 4; i++)
                        halves<K>(y[i], low[i], high[i]);
#pragma unroll
                    for (int i = 0; i < 2; i++) {
                        multiply<Number>(score[2 * n], x[i], low[i], high[i]);
                        multiply<Number>(score[2 * n + 1], x[i], low[2 + i], high[2 + i]);
                    }
                }
            }
#pragma unroll
            for (int n = 0; n < TILE_KEYS / 8; n++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    score[n][i] *= __fdividef(key_scale(scales[(b & 1) * TILE_KEYS + n * 8 + lane % 4 * 2 + (i & 1)]), a.scale);
        } else {
#pragma unroll
            for (int k = 0; k < D / 16; k++) {
                unsigned x[4];
                load_matrices(x, q_at + (warp * 16 + lane % 16) * Q_PITCH + k * 32 + lane / 16 * 16);
#pragma unroll
                for (int n = 0; n < TILE_KEYS / 16; n++) {
                    unsigned y[4];
                    load_matrices(y, k_at + (b & 1) * L::SIDE + (n * 16 + lane / 16 * 8 + lane % 8) * PITCH + k * 32 +
                                         lane / 8 % 2 * 16);
                    multiply<T>(score[2 * n], x, y[0], y[1]);
                    multiply<T>(score[2 * n + 1], x, y[2], y[3]);
                }
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
        /* Of the keys that this lane has scores of: by what a weight is multiplied, and its logarithm as a score. */
        auto by = [&](int n, int j) { return value_scale(scales[(b & 1) * TILE_KEYS + n * 8 + lane % 4 * 2 + j]); };
        auto more = [&](int n, int j) { return __fdividef(__log2f(by(n, j)), scale); };
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float m = top[i];
#pragma unroll
            for (int n = 0; n < TILE_KEYS / 8; n++)
                m = SCALED<K> ? fmaxf(m, fmaxf(score[n][2 * i] + more(n, 0), score[n][2 * i + 1] + more(n, 1)))
                              : fmaxf(m, fmaxf(score[n][2 * i], score[n][2 * i + 1]));
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
                    if (SCALED<K>)
                        score[n][2 * i + j] *= by(n, j);
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
            const unsigned x[4] = {
                pack<Number>(score[2 * k][0], score[2 * k][1]), pack<Number>(score[2 * k][2], score[2 * k][3]),
                pack<Number>(score[2 * k + 1][0], score[2 * k + 1][1]), pack<Number>(score[2 * k + 1][2], score[2 * k + 1][3])};
            const unsigned at = v_at + (b & 1) * L::SIDE + (k * 16 + lane % 16) * PITCH + lane / 16 * 16;
            if constexpr (SCALED<K>) {
#pragma unroll
                for (int n = 0; n < D / 32; n++) { /* of 16 dimensions each: even ones, odd ones */
                    unsigned y[4], even[4], odd[4];
                    load_matrices_turned(y, at + n * 32);
#pragma unroll
                    for (int i = 0; i < 4; i++)
                        halves_of_pairs<K>(y[i], even[i], odd[i]);
#pragma unroll
                    for (int i = 0; i < 2; i++) {
                        multiply<Number>(out[4 * n + 2 * i], x, even[2 * i], even[2 * i + 1]);
                        multiply<Number>(out[4 * n + 2 * i + 1], x, odd[2 * i], odd[2 * i + 1]);
                    }
                }
            } else {
#pragma unroll
                for (int n = 0; n < D / 16; n++) {
                    unsigned y[4];
                    load_matrices_turned(y, at + n * 32);
                    multiply<T>(out[2 * n], x, y[0], y[1]);
                    multiply<T>(out[2 * n + 1], x, y[2], y[3]);
                }
            }
        }
    }
    copies_wait<0>();
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int   r = first + warp * 16 + lane / 4 + i * 8;
        const float l = quad_sum(sum[i]), f = l > 0 ? 1 / l : 0; /* no keys: zeros */
        if (r <= last) {
            T *to = (T *)a.out.data + row_at(a.out, s, kv_head, group, r) + lane % 4 * (SCALED<K> ? 4 : 2);
            if constexpr (SCALED<K>) {
#pragma unroll
                for (int n = 0; n < D / 16; n++)
                    *(uint2 *)(to + n * 16) = uint2{pack<T>(out[2 * n][2 * i] * f, out[2 * n + 1][2 * i] * f),
                                                    pack<T>(out[2 * n][2 * i + 1] * f, out[2 * n + 1][2 * i + 1] * f)};
            } else {
#pragma unroll
                for (int n = 0; n < D / 8; n++)
                    *(unsigned *)(to + n * 8) = pack<T>(out[n][2 * i] * f, out[n][2 * i + 1] * f);
            }
        }
    }
}

template <typename T, typename K, int D> int launch(void *stream, const MiCudaAttention *a, int few, const int32_t *moved)
{
    static const int allowed = mi_allow_smem(prefill<T, K, D>, Tile<K, D>::BYTES);
    const int64_t    packed = (int64_t)a->batch.shape.n_tokens * (a->q.shape[1] / a->kv.n_kv_heads);
    const dim3       grid((unsigned)(packed / TILE_ROWS + a->batch.shape.n_seqs), (unsigned)a->kv.n_kv_heads);

    return allowed ? allowed : mi_launch(prefill<T, K, D>, grid, TILE_THREADS, Tile<K, D>::BYTES, stream, *a, few, moved);
}

template <typename T, typename K> int launch(void *stream, const MiCudaAttention *a, int few, const int32_t *moved)
{
    switch (a->kv.head_dim) {
    case 64:
        return launch<T, K, 64>(stream, a, few, moved);
    case 96:
        return launch<T, K, 96>(stream, a, few, moved);
    case 128:
        return launch<T, K, 128>(stream, a, few, moved);
    case 256:
        return launch<T, K, 256>(stream, a, few, moved);
    default:
        return cudaErrorNotSupported;
    }
}

template <typename T> int launch(void *stream, const MiCudaAttention *a, int few, const int32_t *moved)
{
    return a->kv.dtype == MI_F8   ? launch<T, F8>(stream, a, few, moved)
           : a->kv.dtype == MI_I8 ? launch<T, I8>(stream, a, few, moved)
                                  : launch<T, T>(stream, a, few, moved);
}

} // namespace

int mi_attention_gqa_rest(void *stream, const MiCudaAttention *a, int few, const int32_t *moved)
{
    return a->q.dtype == MI_BF16 ? launch<bf16>(stream, a, few, moved) : launch<__half>(stream, a, few, moved);
}

extern "C" int mi_cuda_attention_gqa(void *stream, const MiCudaAttention *a, int few)
{
    return mi_cuda_attention_fits(a) ? mi_attention_gqa_rest(stream, a, few, NULL) : (int)cudaErrorNotSupported;
}
