/* attention_widen.cu - keys and values of prompts over a cache with scales, as elements of 16 bits in a place of their own,
 * where attention_flash.cu reads them: what is stored times its scale, rounded once.
 *
 * A sequence's positions that any of its rows sees lie there one after the other, sequences in the order of the step, as far
 * as there is room; attention_gqa.cu takes the others from the cache itself. */
#include <cuda/attention.cuh>
#include <cuda/scaled.cuh>

namespace
{

constexpr int WIDEN_THREADS = 256, EACH = 16; /* EACH: elements a thread takes at once */

/* Where the sequences go, for the whole block. */
struct Places {
    int *begins, *moved; /* [n_seqs + 1] first place; [n_seqs] that of position 0, if it had one */
};

__device__ __forceinline__ Keys all_keys(const MiCudaAttention &a, int few, int group, int seq)
{
    const Span s = span_of(a, seq);
    const bool prompt = s.rows * group > few;
    const int  first = prompt ? keys_of(a, s, 0).first : 0;
    return Keys{first, prompt ? max(s.len, first) : first};
}

/* By a whole warp: how many sequences there is no room for. */
__device__ __forceinline__ int find_places(const MiCudaAttention &a, int few, int room, const Places &p)
{
    const int n = a.batch.shape.n_seqs, group = group_of(a), lane = threadIdx.x % 32;
    int       total = 0, end = 0, left = 0; /* end: of those that fit */

    for (int base = 0; base < n; base += 32) {
        const int  seq = base + lane;
        const Keys keys = seq < n ? all_keys(a, few, group, seq) : Keys{0, 0};
        const int  len = keys.end - keys.first;
        int        up = len;
#pragma unroll
        for (int o = 1; o < 32; o *= 2) {
            const int below = __shfl_up_sync(~0u, up, o);
            up += lane >= o ? below : 0;
        }
        const int  at = total + up - len;
        const bool fits = at + len <= room;
        if (seq < n)
            p.begins[seq] = at, p.moved[seq] = fits ? at - keys.first : MI_CUDA_NOT_WIDE;
        left += __popc(__ballot_sync(~0u, !fits));
        end = max(end, (int)__reduce_max_sync(~0u, fits ? at + len : 0));
        total = min(total + __shfl_sync(~0u, up, 31), room + 1);
    }
    if (lane == 0)
        p.begins[n] = end;
    return left;
}

/* The last sequence that begins at this place or before. */
__device__ __forceinline__ int sequence_at(const Places &p, int n, int place)
{
    int low = 0, high = n;

    while (high - low > 1) {
        const int middle = (low + high) / 2;
        const bool before = p.begins[middle] <= place;
        low = before ? middle : low;
        high = before ? high : middle;
    }
    return low;
}

template <typename T, typename K> __device__ __forceinline__ void widen_some(T *to, uint4 codes, float scale)
{
    const unsigned x[4] = {codes.x, codes.y, codes.z, codes.w};
    unsigned       y[8];

#pragma unroll
    for (int i = 0; i < 8; i++) {
        unsigned both[2];
        halves<K>(x[i / 2], both[0], both[1]);
        const float2 f = __half22float2(*(const __half2 *)&both[i % 2]);
        y[i] = pack<T>(f.x * scale, f.y * scale);
    }
    ((uint4 *)to)[0] = uint4{y[0], y[1], y[2], y[3]};
    ((uint4 *)to)[1] = uint4{y[4], y[5], y[6], y[7]};
}

/* blockIdx.y: the heads of keys, then those of values */
template <typename T, typename K>
__global__ void __launch_bounds__(WIDEN_THREADS) widen(const __grid_constant__ MiCudaAttention a, int few, const MiCudaWide w)
{
    extern __shared__ int shared[];
    const int             n = a.batch.shape.n_seqs, dim = a.kv.head_dim, chunks = dim / EACH;
    const int             side = blockIdx.y / a.kv.n_kv_heads, head = blockIdx.y % a.kv.n_kv_heads;
    const Places          p = {shared, shared + n + 1};

    let_successor_start();
    if (threadIdx.x < 32) {
        const int left = find_places(a, few, w.positions, p);
        wait_for_predecessor();
        if (threadIdx.x == 0 && blockIdx.x == 0 && blockIdx.y == 0)
            w.moved[n] = left;
    }
    __syncthreads();
    wait_for_predecessor();
    if (blockIdx.x == 0 && blockIdx.y == 0)
        for (int i = threadIdx.x; i < n; i += WIDEN_THREADS)
            w.moved[i] = p.moved[i];
    for (unsigned i = blockIdx.x * WIDEN_THREADS + threadIdx.x; i < (unsigned)(p.begins[n] * chunks); i += gridDim.x * WIDEN_THREADS) {
        const int     place = (int)(i / chunks), chunk = (int)i - place * chunks, seq = sequence_at(p, n, place);
        const int64_t at = mi_kv_offset(&a.kv, seq, place - p.moved[seq], head);
        const unsigned scales = ((const unsigned *)a.kv.scales)[at / dim];
        const uint4    codes = *(const uint4 *)((const uint8_t *)(side ? a.kv.v : a.kv.k) + at + chunk * EACH);
        widen_some<T, K>((T *)w.data + ((int64_t)blockIdx.y * w.positions + place) * dim + chunk * EACH, codes,
                         side ? value_scale(scales) : key_scale(scales));
    }
}

template <typename T> int launch(void *stream, const MiCudaAttention *a, int few, const MiCudaWide *w)
{
    const MiShape s = a->batch.shape;
    const int64_t all = (int64_t)s.n_seqs * s.max_kv, most = (all < w->positions ? all : w->positions) * (a->kv.head_dim / EACH);
    const int64_t blocks = (most + WIDEN_THREADS - 1) / WIDEN_THREADS;
    const dim3    grid((unsigned)(blocks < 512 ? blocks : 512), 2 * (unsigned)a->kv.n_kv_heads);
    const size_t  bytes = (2 * (size_t)s.n_seqs + 1) * sizeof(int);

    return a->kv.dtype == MI_F8 ? mi_launch(widen<T, F8>, grid, WIDEN_THREADS, bytes, stream, *a, few, *w)
                                : mi_launch(widen<T, I8>, grid, WIDEN_THREADS, bytes, stream, *a, few, *w);
}

} // namespace

int mi_attention_widen(void *stream, const MiCudaAttention *a, int few, const MiCudaWide *w)
{
    return a->q.dtype == MI_BF16 ? launch<bf16>(stream, a, few, w) : launch<__half>(stream, a, few, w);
}
